//! Who may send over WuKongIM's HTTP API: deny and allow lists of channels and users, bans, system users, in the order of
//! wukongim-http.md section 9 (v2) with section 15's recommendations; and that a warm channel decides without a disk read.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::Caller;

/// One thing decided about the send of `alice`.
#[derive(Clone, Copy)]
struct Decided {
    name: &'static str,
    path: &'static str,
    body: fn() -> Value,
}

const fn decided(name: &'static str, path: &'static str, body: fn() -> Value) -> Decided {
    Decided { name, path, body }
}

async fn reason(caller: &Caller, body: Value) -> u64 {
    let answer = caller.post("/message/send", body).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.json);
    answer.json["reason"].as_u64().expect("a reason")
}

fn to_group() -> Value {
    json!({"from_uid": "alice", "channel_id": "g", "channel_type": 2, "payload": "eA=="})
}

fn to_bob() -> Value {
    json!({"from_uid": "alice", "channel_id": "bob", "channel_type": 1, "payload": "eA=="})
}

/// Everything that stops a send stands at first; what is taken away from the front lets the next reason show. So the order of
/// reasons is the order of the rules, and each rule is seen to hold alone.
async fn unravel(order: &[(Decided, Decided, u64)], send: Value, trusted_reasons: &[u64]) {
    let server = Server::on_memory().await;
    let (root, alice) = (Caller::root(&server), Caller::user(&server, "alice").await);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["bob"]})).await;
    for (set, ..) in order {
        root.done(set.path, (set.body)()).await;
    }
    let mut of_trusted = Vec::new();
    for (_, lift, expected) in order {
        assert_eq!(reason(&alice, send.clone()).await, *expected, "before: {}", lift.name);
        of_trusted.push(reason(&root, send.clone()).await);
        root.done(lift.path, (lift.body)()).await;
    }
    assert_eq!(reason(&alice, send.clone()).await, 1, "nothing is left");
    assert_eq!(of_trusted, trusted_reasons, "a back end is held to ban and disband");
}

fn flags(channel_id: &str, channel_type: u8, ban: u8, disband: u8, send_ban: u8) -> Value {
    json!({"channel_id": channel_id, "channel_type": channel_type, "ban": ban, "disband": disband, "send_ban": send_ban})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_refuses_in_the_order_of_the_reference() {
    let order = [
        (
            decided("send ban", "/channel/info", || flags("alice", 1, 0, 0, 1)),
            decided("send ban", "/channel/info", || flags("alice", 1, 0, 0, 0)),
            25,
        ),
        (
            decided("ban", "/channel/info", || flags("g", 2, 1, 1, 0)),
            decided("ban", "/channel/info", || flags("g", 2, 0, 1, 0)),
            19,
        ),
        (
            decided("disband", "/channel/info", || flags("g", 2, 1, 1, 0)),
            decided("disband", "/channel/info", || flags("g", 2, 0, 0, 0)),
            24,
        ),
        (
            decided(
                "denied",
                "/channel/blacklist_add",
                || json!({"channel_id": "g", "channel_type": 2, "uids": ["alice"]}),
            ),
            decided(
                "denied",
                "/channel/blacklist_remove",
                || json!({"channel_id": "g", "channel_type": 2, "uids": ["alice"]}),
            ),
            4,
        ),
        (
            decided("no member", "/channel/subscriber_remove", || json!({"channel_id": "g", "subscribers": ["alice"]})),
            decided("no member", "/channel/subscriber_add", || json!({"channel_id": "g", "subscribers": ["alice"]})),
            3,
        ),
        (
            decided(
                "not listed",
                "/channel/whitelist_set",
                || json!({"channel_id": "g", "channel_type": 2, "uids": ["bob"]}),
            ),
            decided(
                "not listed",
                "/channel/whitelist_add",
                || json!({"channel_id": "g", "channel_type": 2, "uids": ["alice"]}),
            ),
            13,
        ),
    ];
    unravel(&order, to_group(), &[19, 19, 24, 1, 1, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_refuses_in_the_order_of_the_reference() {
    let order = [
        (
            decided("send ban", "/channel/info", || flags("alice", 1, 0, 0, 1)),
            decided("send ban", "/channel/info", || flags("alice", 1, 0, 0, 0)),
            25,
        ),
        (
            decided("banned pair", "/channel/info", || flags("alice@bob", 1, 1, 1, 0)),
            decided("banned pair", "/channel/info", || flags("alice@bob", 1, 0, 1, 0)),
            19,
        ),
        (
            decided("disbanded pair", "/channel/info", || flags("alice@bob", 1, 1, 1, 0)),
            decided("disbanded pair", "/channel/info", || flags("alice@bob", 1, 0, 0, 0)),
            24,
        ),
        (
            decided("banned user", "/channel/info", || flags("bob", 1, 1, 0, 0)),
            decided("banned user", "/channel/info", || flags("bob", 1, 0, 0, 0)),
            19,
        ),
        (
            decided(
                "blocked",
                "/channel/blacklist_set",
                || json!({"channel_id": "bob", "channel_type": 1, "uids": ["alice", "eve"]}),
            ),
            decided("blocked", "/channel/blacklist_remove_all", || json!({"channel_id": "bob", "channel_type": 1})),
            4,
        ),
    ];
    unravel(&order, to_bob(), &[19, 19, 24, 19, 1]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_whitelists_on_only_contacts_may_write() {
    let server = Server::on_memory_with(|config| config.wukong.whitelist_off_of_person = false).await;
    let (root, alice) = (Caller::root(&server), Caller::user(&server, "alice").await);
    let bobs = |uids: &[&str]| json!({"channel_id": "bob", "channel_type": 1, "uids": uids});
    assert_eq!(reason(&alice, to_bob()).await, 13);
    assert_eq!(reason(&root, to_bob()).await, 1, "a back end may");
    root.done("/channel/whitelist_add", bobs(&["alice", "carol"])).await;
    assert_eq!(reason(&alice, to_bob()).await, 1);
    let shown = root.get("/channel/whitelist?channel_id=bob&channel_type=1").await;
    assert_eq!(shown.json, json!(["alice", "carol"]));
    root.done("/channel/whitelist_remove", bobs(&["alice"])).await;
    assert_eq!(reason(&alice, to_bob()).await, 13, "although bob knows her");
    root.done("/channel/info", json!({"channel_id": "bob", "channel_type": 1, "allow_stranger": 1})).await;
    assert_eq!(reason(&alice, to_bob()).await, 1, "bob allows strangers");
    root.done("/channel/info", json!({"channel_id": "bob", "channel_type": 1})).await;
    assert_eq!(reason(&alice, to_bob()).await, 13);
    root.done("/channel/whitelist_set", bobs(&["alice"])).await;
    assert_eq!(reason(&alice, to_bob()).await, 1);
    root.done("/channel/whitelist_remove_all", json!({"channel_id": "bob", "channel_type": 1})).await;
    assert_eq!(reason(&alice, to_bob()).await, 13, "an empty list lets nobody in");

    // Who may not write may not write over what is there either, nor add to it; but take it back.
    let wanted = async |who: &Caller, path: &str, more: Value| {
        let mut body = json!({"channel_id": "bob", "channel_type": 1, "message_seq": 1});
        body.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let answer = who.post(path, body).await;
        (answer.status.as_u16(), answer.json["code"].clone())
    };
    let (ok, not_listed) = ((200, Value::Null), (403, json!("not_listed")));
    let edit = |payload: &str| json!({"payload": payload});
    let like = || json!({"reaction": "like"});
    assert_eq!(wanted(&alice, "/message/edit", edit("eQ==")).await, not_listed);
    assert_eq!(wanted(&alice, "/message/react", like()).await, not_listed);
    root.done("/channel/whitelist_add", bobs(&["alice"])).await;
    assert_eq!(wanted(&alice, "/message/edit", edit("eQ==")).await, ok);
    assert_eq!(wanted(&alice, "/message/react", like()).await, ok);
    root.done("/channel/whitelist_remove", bobs(&["alice"])).await;
    assert_eq!(wanted(&alice, "/message/edit", edit("eg==")).await, not_listed);
    assert_eq!(wanted(&alice, "/message/react", json!({"reaction": ""})).await, ok, "taken away");
    assert_eq!(wanted(&alice, "/message/revoke", json!({})).await, ok);
    let to_bob = json!({"from_uid": "alice", "uid": "alice", "payload": "eg==", "message_seq": 2});
    assert_eq!(wanted(&root, "/message/edit", to_bob).await, ok, "a back end may");
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_set_shown_and_cleared() {
    let server = Server::on_disk().await;
    let (root, alice) = (Caller::root(&server), Caller::user(&server, "alice").await);
    let named = |uids: &[&str]| json!({"channel_id": "new", "channel_type": 2, "uids": uids});
    let shown = async || root.get("/channel/whitelist?channel_id=new&channel_type=2").await.json;
    assert_eq!(shown().await, json!([]), "there is no such channel");
    root.done("/channel/whitelist_add", named(&["b", "a", "b"])).await;
    assert_eq!(shown().await, json!(["a", "b"]), "made in passing");
    root.done("/channel/whitelist_set", named(&["c"])).await;
    assert_eq!(root.get("/channel/whitelist?channel_id=new").await.json, json!(["c"]), "group is the default");
    root.done("/channel/whitelist_set", named(&[])).await;
    assert_eq!(shown().await, json!([]));
    root.done("/channel/whitelist_add", named(&["alice"])).await;
    root.done("/channel/whitelist_remove_all", json!({"channel_id": "new", "channel_type": 2})).await;
    root.done("/channel/blacklist_add", named(&["alice"])).await;
    root.done("/channel/subscriber_add", json!({"channel_id": "new", "subscribers": ["alice"]})).await;
    let send = json!({"from_uid": "alice", "channel_id": "new", "channel_type": 2, "payload": "eA=="});
    assert_eq!(reason(&alice, send.clone()).await, 4);
    // What was decided outlives the server.
    let server = server.restart().await;
    let (root, alice) = (Caller::root(&server), Caller::with(&server, alice.credential()));
    assert_eq!(reason(&alice, send.clone()).await, 4);
    root.done("/channel/blacklist_set", named(&[])).await;
    assert_eq!(reason(&alice, send).await, 1);
    for (path, body, field) in [
        ("/channel/blacklist_add", named(&[]), "uids"),
        ("/channel/whitelist_remove", json!({"channel_id": "g", "channel_type": 2}), "uids"),
        ("/channel/blacklist_add", named(&["a@b"]), "uids[0]"),
        ("/channel/whitelist_set", json!({"channel_id": "g", "uids": ["a"]}), "channel_type"),
        ("/channel/blacklist_set", json!({"channel_id": "", "channel_type": 2}), "channel_id"),
    ] {
        let refused = root.post(path, body).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!(field)), "{path}");
    }
    let forbidden = alice.post("/channel/blacklist_add", named(&["x"])).await;
    assert_eq!(forbidden.status, StatusCode::FORBIDDEN);
}

/// The back end's list and the user's own are one: what either decides, both see.
#[tokio::test(flavor = "multi_thread")]
async fn a_persons_deny_list_is_who_the_user_blocks() {
    let server = Server::on_memory().await;
    let (root, alice) = (Caller::root(&server), Caller::user(&server, "alice").await);
    root.done("/channel/blacklist_add", json!({"channel_id": "bob", "channel_type": 1, "uids": ["alice"]})).await;
    let relations = server.app.hub().relations(server.uid("bob")).await.expect("relations");
    assert!(relations.len() == 1 && relations[0].1.blocked, "{relations:?}");
    let change = chinwag::hub::people::RelationChange { blocked: Some(false), contact: Some(true) };
    server.app.hub().put_relation(server.uid("bob"), server.uid("alice"), change).await.expect("unblocked");
    assert_eq!(reason(&alice, to_bob()).await, 1);
    assert_eq!(root.get("/channel/whitelist?channel_id=bob&channel_type=1").await.json, json!(["alice"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn system_users_may_write_to_anybody_and_anybody_to_them() {
    let server = Server::on_memory_with(|config| config.wukong.whitelist_off_of_person = false).await;
    let (root, alice) = (Caller::root(&server), Caller::user(&server, "alice").await);
    let bob = Caller::user(&server, "bob").await;
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["bob"]})).await;
    root.done("/channel/blacklist_add", json!({"channel_id": "g", "channel_type": 2, "uids": ["alice"]})).await;
    assert_eq!((reason(&alice, to_group()).await, reason(&alice, to_bob()).await), (4, 13));
    assert_eq!(root.get("/user/systemuids").await.json, json!([]));
    root.done("/user/systemuids_add", json!({"uids": ["alice", "zed", "alice"]})).await;
    root.done("/user/systemuids_add", json!({"uids": []})).await;
    root.done("/user/systemuids_remove_from_cache", json!({"uids": ["zed"]})).await;
    assert_eq!(root.get("/user/systemuids").await.json, json!(["alice"]));
    assert_eq!((reason(&alice, to_group()).await, reason(&alice, to_bob()).await), (1, 1));
    let to_alice = json!({"channel_id": "alice", "channel_type": 1, "payload": "eA=="});
    assert_eq!(reason(&bob, to_alice.clone()).await, 1);
    root.done("/user/systemuids_remove", json!({"uids": ["alice"]})).await;
    assert_eq!((reason(&alice, to_group()).await, reason(&alice, to_bob()).await), (4, 13));
    assert_eq!(reason(&bob, to_alice.clone()).await, 13);
    root.done("/user/systemuids_add_to_cache", json!({"uids": ["alice"]})).await;
    assert_eq!(reason(&bob, to_alice).await, 1);
    // A ban still holds for them in a channel; the built-in one may write to a banned user.
    root.done("/channel/info", flags("g", 2, 1, 0, 0)).await;
    assert_eq!(reason(&alice, to_group()).await, 19);
    root.done("/channel/info", flags("bob", 1, 1, 0, 0)).await;
    let from_system = json!({"channel_id": "bob", "channel_type": 1, "payload": "eA=="});
    assert_eq!(reason(&root, from_system).await, 1);
    let from_carol = json!({"from_uid": "carol", "channel_id": "bob", "channel_type": 1, "payload": "eA=="});
    assert_eq!(reason(&root, from_carol).await, 19, "nobody else may, not even over the API");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_switch_checks_api_sends_like_a_clients() {
    let server = Server::on_memory_with(|config| config.wukong.api_send_checks = true).await;
    let root = Caller::root(&server);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["bob"]})).await;
    assert_eq!(reason(&root, to_group()).await, 3, "no member");
    let absent = json!({"from_uid": "alice", "channel_id": "none", "channel_type": 2, "payload": "eA=="});
    assert_eq!(reason(&root, absent).await, 5, "a back end may know that there is none");
    root.done("/channel/blacklist_add", json!({"channel_id": "bob", "channel_type": 1, "uids": ["alice"]})).await;
    assert_eq!(reason(&root, to_bob()).await, 4);
    root.done("/channel/info", flags("alice", 1, 0, 0, 1)).await;
    assert_eq!(reason(&root, to_group()).await, 25);
    let from_system = json!({"channel_id": "g", "channel_type": 2, "payload": "eA=="});
    assert_eq!(reason(&root, from_system).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_channel_decides_without_a_disk_read() {
    use chinwag::store::Store;
    let (server, store) = Server::on_shared_memory(|_| {}).await;
    let root = Caller::root(&server);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"]})).await;
    let listed = json!({"channel_id": "g", "channel_type": 2, "uids": ["alice"]});
    root.done("/channel/whitelist_add", listed.clone()).await;
    let mut alice = server.connect("alice").await;
    for channel in [("g", 2), ("bob", 1)] {
        alice.say(channel.0, channel.1, b"x").await;
        let before = store.read_counts();
        for _ in 0..5 {
            alice.say(channel.0, channel.1, b"x").await;
        }
        assert_eq!(store.read_counts(), before, "{channel:?}");
    }
    root.done("/channel/blacklist_add", listed).await;
    let send = alice.message("g", 2, b"x");
    let client_seq = send.client_seq;
    alice.send(&protocol::native::ClientFrame::Send(send)).await;
    let refused = alice
        .expect(|frame| match frame {
            protocol::native::ServerFrame::Refused(refused) if refused.client_seq == client_seq => {
                Some(refused.clone())
            }
            _ => None,
        })
        .await;
    assert_eq!(refused.code, "denied");
}
