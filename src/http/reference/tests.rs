//! The table of routes against WuKongIM's own, against the API's document and against the page.

use std::collections::BTreeSet;
use std::fmt::Write;

use super::table::{ROUTES, Route, Support, is_opened};

const PAGE: &str = include_str!("../../../docs/wukong.md");
const BEGIN: &str = "<!-- routes: generated -->\n";
const END: &str = "<!-- end of routes -->\n";

/// The rows of wukongim-http.md section 2, as they stand there.
const REFERENCE: &str = "
POST /user/token, /user/device_quit, /user/onlinestatus
POST /user/systemuids_add, /user/systemuids_remove
GET /user/systemuids
POST /user/systemuids_add_to_cache, /user/systemuids_remove_from_cache
POST /user/update_plugin_no
POST /channel, /channel/info, /channel/delete
POST /channel/subscriber_add, /channel/subscriber_remove
POST /channel/subscriber_remove_all, /channel/blacklist_remove_all, /channel/whitelist_remove_all
POST /channel/blacklist_add, /channel/blacklist_set, /channel/blacklist_remove
POST /channel/whitelist_add, /channel/whitelist_set, /channel/whitelist_remove
GET /channel/whitelist
POST /tmpchannel/subscriber_set
POST /message/send
POST /message/sendbatch
POST /message/sync, /message/syncack
POST /message/cmd/bind, /message/cmd/unbind
POST /messages
POST /message
GET /message/byclientmsgno
POST /streammessage/start, /streammessage/end
POST /message/event
POST /message/eventsync
POST /channel/messagesync
POST /channel/messagesyncbatch
GET /channel/max_message_seq
GET /channel/last_message
POST /conversation/sync
POST /conversation/syncMessages
POST /conversation/channels, /conversation/syncByChannels
GET /conversations
POST /conversations/clearUnread, /conversations/setUnread, /conversations/delete
POST /conversation/list, /conversation/retry, /conversations/activate
GET /route
POST /route/batch
GET /health
GET /healthz, /readyz, /metrics
GET /varz
GET /varz/setting
GET /connz
POST /conn/remove, /conn/kick
POST /system/ip/blacklist_add, /system/ip/blacklist_remove
GET /system/ip/blacklist
* /manager/*, /cluster/*, /plugin/*, /tag/*, /stress/*, /migrate/result
GET /docs
* /bench/v1/*, /top/v1/snapshot, /debug/*
";

fn reference() -> BTreeSet<(&'static str, &'static str)> {
    let rows = REFERENCE.trim().lines().filter_map(|line| line.split_once(' '));
    rows.flat_map(|(method, paths)| paths.split(", ").map(move |path| (method, path))).collect()
}

#[test]
fn every_route_of_the_reference_is_served_or_listed() {
    let listed: BTreeSet<(&str, &str)> = ROUTES.iter().map(|route| (route.method, route.path)).collect();
    assert_eq!(listed.len(), ROUTES.len(), "a route stands in the table twice");
    let missing: Vec<_> = reference().into_iter().filter(|row| !listed.contains(row)).collect();
    assert!(missing.is_empty(), "neither served nor listed: {missing:?}");
}

#[test]
fn a_route_is_served_exactly_when_the_document_has_it() {
    let document = crate::http::openapi();
    let has = |route: &Route| document["paths"][route.path][route.method.to_lowercase()].is_object();
    for route in ROUTES {
        assert_eq!(has(route), route.support == Support::Served, "{} {}", route.method, route.path);
        assert!(route.support == Support::Served || !route.note.is_empty(), "{} says why", route.path);
        assert!(route.versions.split(' ').all(|version| ["1", "2", "3"].contains(&version)), "{}", route.path);
    }
}

#[test]
fn what_is_opened_is_wukongs_only() {
    for path in ["/message/send", "/user/token", "/conversation/sync", "/route"] {
        assert!(is_opened(path), "{path}");
    }
    for path in ["/admin/keys", "/api/v1/message/send", "/chats", "/message/send/", "/streammessage/start", "/files"] {
        assert!(!is_opened(path), "{path}");
    }
}

fn generated() -> String {
    let mut page = String::from("| route | versions | here | |\n|---|---|---|---|\n");
    for Route { method, path, versions, support, note } in ROUTES {
        let versions = versions.split(' ').map(|version| format!("v{version}")).collect::<Vec<_>>().join(" ");
        let method = if *method == "*" { String::new() } else { format!("{method} ") };
        let here = if *support == Support::Served { "yes" } else { "no" };
        let _ = writeln!(page, "| `{method}{path}` | {versions} | {here} | {note} |");
    }
    page
}

#[test]
fn docs_wukong_lists_the_routes() {
    let (before, rest) = PAGE.split_once(BEGIN).expect("the page has the line");
    let (_, after) = rest.split_once(END).expect("the page has the other line");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", generated());
    if std::env::var_os("UPDATE").is_some() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/wukong.md");
        std::fs::write(path, &wanted).expect("the page can be written");
        return;
    }
    assert!(PAGE == wanted, "docs/wukong.md is old: UPDATE=1 cargo test --lib docs_wukong");
}
