//! Every route of WuKongIM's, of any version (wukongim-http.md section 2): whether it is served here, and what is to be known.
//!
//! Owns the one table that the router of refused routes and the page `docs/wukong.md` are made from, and that says which paths
//! `wukong.api_open` opens. Invariant: a route is served exactly when the API's document has it (a test looks at all).

use std::sync::Arc;

use axum::routing::any;
use utoipa_axum::router::OpenApiRouter;

use crate::http::HttpState;
use crate::http::problem::Problem;

/// Whether a route is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Support {
    /// It is.
    Served,
    /// It is answered with 400 and the note.
    Refused,
}

/// A route of WuKongIM's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// `GET`, `POST`; `*`: any.
    pub method: &'static str,
    /// Its path; one that ends in `/*` stands for everything below.
    pub path: &'static str,
    /// WuKongIM's versions that have it.
    pub versions: &'static str,
    /// Whether it is here.
    pub support: Support,
    /// What is to be known; of a refused route why, or what to use instead.
    pub note: &'static str,
}

const fn served(method: &'static str, path: &'static str, versions: &'static str, note: &'static str) -> Route {
    Route { method, path, versions, support: Support::Served, note }
}

const fn refused(method: &'static str, path: &'static str, versions: &'static str, note: &'static str) -> Route {
    Route { method, path, versions, support: Support::Refused, note }
}

const STREAMS: &str = "the streams of v1 are not offered; see /message/event";
const MANAGER: &str = "there is no manager; API keys are made by /admin/keys and `chinwag key`";
const CLUSTER: &str = "one process serves everything, there is no cluster to manage";
const PLUGINS: &str = "there are no plugins";
const BENCH: &str = "benchmarks of WuKongIM's own; load tests are examples/load and examples/idle";

/// All of them.
pub const ROUTES: &[Route] = &[
    served("POST", "/user/token", "1 2 3", "status 19 for a banned user; a uid holds no `@ # &`"),
    served("POST", "/user/device_quit", "1 2 3", ""),
    served("POST", "/user/onlinestatus", "1 2 3", "one row per connection; an empty list answers `[]`"),
    served("POST", "/user/systemuids_add", "1 2 3", ""),
    served("POST", "/user/systemuids_remove", "1 2 3", ""),
    served("GET", "/user/systemuids", "2 3", "without the built-in `____system`"),
    served("POST", "/user/systemuids_add_to_cache", "2 3", "the same as systemuids_add"),
    served("POST", "/user/systemuids_remove_from_cache", "2 3", "the same as systemuids_remove"),
    refused("POST", "/user/update_plugin_no", "2", PLUGINS),
    served("POST", "/channel", "1 2 3", "adds subscribers, replaces them with `reset` 1 (v2); types 1 to 3 only"),
    served("POST", "/channel/info", "1 2 3", ""),
    served("POST", "/channel/delete", "1 2 3", "disbands; messages stay, members and their conversations go"),
    served("POST", "/channel/subscriber_add", "1 2 3", "only new members begin with everything read"),
    served("POST", "/channel/subscriber_remove", "1 2 3", ""),
    served("POST", "/channel/subscriber_remove_all", "2 3", ""),
    served("POST", "/channel/blacklist_remove_all", "2 3", ""),
    served("POST", "/channel/whitelist_remove_all", "2 3", ""),
    served("POST", "/channel/blacklist_add", "1 2 3", "of a person: who the user blocks"),
    served("POST", "/channel/blacklist_set", "1 2 3", "of a person: who the user blocks"),
    served("POST", "/channel/blacklist_remove", "1 2 3", "of a person: who the user blocks"),
    served("POST", "/channel/whitelist_add", "1 2 3", "of a person: the user's contacts"),
    served("POST", "/channel/whitelist_set", "1 2 3", "of a person: the user's contacts"),
    served("POST", "/channel/whitelist_remove", "1 2 3", "of a person: the user's contacts"),
    served("GET", "/channel/whitelist", "1 2 3", "uids as texts (v1)"),
    served("POST", "/tmpchannel/subscriber_set", "2 3", "a group like any other"),
    served(
        "POST",
        "/message/send",
        "1 2 3",
        "stored when answered; a repeat of a client_msg_no gets the first outcome; `subscribers` with sync_once only",
    ),
    served("POST", "/message/sendbatch", "1 2", ""),
    served("POST", "/message/sync", "1 2 3", "one queue per user (v1); message_seq of the request is ignored (v2)"),
    served("POST", "/message/syncack", "1 2 3", ""),
    served("POST", "/message/cmd/bind", "3", "changes nothing: the queue holds every channel's commands"),
    served("POST", "/message/cmd/unbind", "3", "changes nothing"),
    served("POST", "/messages", "1 2", "at most 1,000"),
    served("POST", "/message", "2", ""),
    served("GET", "/message/byclientmsgno", "2", "finds messages of members and system users"),
    refused("POST", "/streammessage/start", "1", STREAMS),
    refused("POST", "/streammessage/end", "1", STREAMS),
    served(
        "POST",
        "/message/event",
        "2 3",
        "deltas are pushed and merged in memory, anything else is on disk when answered; section 8",
    ),
    served("POST", "/message/eventsync", "2 3", "of each lane its last stored event, with what the lane came to"),
    served("POST", "/channel/messagesync", "1 2 3", "limit 0 means 100; a back end may read any channel"),
    served("POST", "/channel/messagesyncbatch", "3", "at most 1,000 pages, 32 MiB of payloads in all"),
    served("GET", "/channel/max_message_seq", "1 2", ""),
    served("GET", "/channel/last_message", "2", ""),
    served("POST", "/conversation/sync", "1 2 3", "see the document; `version` grows with every visible change"),
    served("POST", "/conversation/syncMessages", "1 2", "ids as clients know them, newest first (v1)"),
    served("POST", "/conversation/channels", "2", ""),
    served("POST", "/conversation/syncByChannels", "2", ""),
    served("GET", "/conversations", "1", ""),
    served("POST", "/conversations/clearUnread", "1 2 3", "up to `message_seq`, or all"),
    served("POST", "/conversations/setUnread", "1 2 3", "exact, upwards too"),
    served("POST", "/conversations/delete", "1 2 3", "revived by what comes after"),
    served("POST", "/conversation/list", "3", "`coverage` is a version: sent back, it asks for what changed since"),
    served("POST", "/conversation/retry", "3", ""),
    served("POST", "/conversations/activate", "3", "changes nothing: the last written is up"),
    served("GET", "/route", "1 2 3", "addresses of `external.*`, else of the listeners"),
    served("POST", "/route/batch", "1 2 3", ""),
    served("GET", "/health", "2", "needs no key"),
    served("GET", "/healthz", "3", "needs no key"),
    served("GET", "/readyz", "3", "needs no key"),
    served("GET", "/metrics", "3", "OpenMetrics, names of this server's own"),
    served("GET", "/varz", "1 2", "what is not counted is 0 or empty"),
    served("GET", "/varz/setting", "2", ""),
    served("GET", "/connz", "1 2", "in order of `id`; no `sort`"),
    served("POST", "/conn/remove", "2", ""),
    served("POST", "/conn/kick", "2", ""),
    served("POST", "/system/ip/blacklist_add", "1", "not this machine's own addresses, no trusted proxy"),
    served("POST", "/system/ip/blacklist_remove", "1", ""),
    served("GET", "/system/ip/blacklist", "1", ""),
    refused("*", "/manager/*", "2", MANAGER),
    refused("*", "/cluster/*", "2", CLUSTER),
    refused("*", "/plugin/*", "2", PLUGINS),
    refused("*", "/plugins/*", "2", PLUGINS),
    refused("*", "/tag/*", "2", CLUSTER),
    refused("*", "/stress/*", "2", BENCH),
    refused("*", "/migrate/result", "2", "messages are taken over by `chinwag import wukongim`"),
    served("GET", "/docs", "2", "this server's own page"),
    refused("*", "/bench/v1/*", "3", BENCH),
    refused("*", "/top/v1/snapshot", "3", "see /metrics and /connz"),
    refused("*", "/debug/*", "3", "see /metrics and docs/operations.md"),
];

/// Whether a path is one of WuKongIM's that is served: what `wukong.api_open` opens.
#[must_use]
pub fn is_opened(path: &str) -> bool {
    ROUTES.iter().any(|route| route.support == Support::Served && route.path == path)
}

/// Whether a path is one of WuKongIM's, also one that is refused.
#[must_use]
pub fn is_theirs(path: &str) -> bool {
    ROUTES.iter().any(|route| match route.path.strip_suffix("/*") {
        Some(above) => path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
        None => route.path == path,
    })
}

/// Answers the routes that are not here, in the reference's shape.
pub fn refused_routes() -> OpenApiRouter<Arc<HttpState>> {
    let mut router = OpenApiRouter::new();
    for route in ROUTES.iter().filter(|route| route.support == Support::Refused) {
        let note = route.note;
        let refuse = move || async move { Problem::NotSupported { note } };
        match route.path.strip_suffix("/*") {
            Some(above) => {
                router = router.route(above, any(refuse)).route(&format!("{above}/{{*rest}}"), any(refuse));
            }
            None => router = router.route(route.path, any(refuse)),
        }
    }
    router
}
