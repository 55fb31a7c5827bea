//! Proves that the server's own routes about messages, people and groups do what the native wire does: with a user's own
//! credential under a client's rules, with an API key trusted, in a namespace without a look outside it; and that sockets
//! hear of it.

use protocol::native::{Event, MessageChange};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::Caller;

async fn code(caller: &Caller, path: &str, body: Value) -> (u16, String) {
    let answer = caller.post(path, body).await;
    assert_ne!(answer.status, StatusCode::OK, "{path}: {}", answer.json);
    (answer.status.as_u16(), answer.json["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_changed_and_found_over_http() {
    let server = Server::on_memory().await;
    let (root, alice) = (Caller::root(&server), Caller::user(&server, "alice").await);
    let mut bob = server.connect("bob").await;
    let sent = alice.send("alice", "bob", 1, "helo World").await;
    let quote = json!({
        "channel_id": "bob", "channel_type": 1, "payload": "eA==",
        "reply_to": sent["message_idstr"], "mentions": ["bob"],
    });
    alice.done("/message/send", quote).await;
    let here = |seq: u64| json!({"channel_id": "bob", "channel_type": 1, "message_seq": seq});
    let mut edit = here(1);
    edit["payload"] = json!("aGVsbG8gV29ybGQ");
    let edited = alice.done("/message/edit", edit).await;
    let version = bob
        .event(|event| match event {
            Event::Message(event) if event.what == MessageChange::Edited => Some(event.version),
            _ => None,
        })
        .await;
    assert_eq!((&edited["status"], &edited["version"]), (&json!(200), &json!(version)));
    let like = json!({"uid": "bob", "channel_id": "alice", "channel_type": 1, "message_seq": 1, "reaction": "like"});
    root.done("/message/react", like.clone()).await;
    assert_eq!(code(&alice, "/message/react", like).await, (403, "forbidden".into()));

    let mut search = json!({"channel_id": "bob", "channel_type": 1, "text": "HELLO w"});
    let found = alice.done("/message/search", search.clone()).await;
    let message = &found["messages"][0];
    assert_eq!((&message["message_seq"], &message["channel_id"]), (&json!(1), &json!("bob")));
    assert_eq!((&message["edited"], &message["likes"]), (&json!(version), &json!(["bob"])));
    // A back end names the pair, or whose view it is.
    assert_eq!(code(&root, "/message/search", search.clone()).await, (400, "invalid".into()));
    search["channel_id"] = json!("bob@alice");
    let found = root.done("/message/search", search.clone()).await;
    assert!(found["messages"][0]["channel_id"].as_str().is_some_and(|id| id.contains('@')), "{found}");
    search["uid"] = json!("bob");
    search["channel_id"] = json!("alice");
    search["text"] = json!("x");
    let found = root.done("/message/search", search).await;
    let quoting = &found["messages"][0];
    assert_eq!((&quoting["reply_to"], &quoting["mentions"]), (&sent["message_id"], &json!(["bob"])));
    assert_eq!(quoting["channel_id"], json!("alice"));

    let changes = alice.done("/message/changes", json!({"channel_id": "bob", "channel_type": 1})).await;
    assert_eq!((&changes["items"][0]["message_seq"], &changes["more"]), (&json!(1), &json!(false)));
    assert_eq!(alice.done("/message/readers", here(2)).await, json!({"uids": [], "of": 1, "more": false}));
    let read = json!({"uid": "bob", "channel_id": "alice", "channel_type": 1});
    root.done("/conversations/clearUnread", read).await;
    assert_eq!(alice.done("/message/readers", here(2)).await["uids"], json!(["bob"]));

    let eve = Caller::user(&server, "eve").await;
    assert_eq!(code(&eve, "/message/revoke", json!({"channel_id": "bob@alice", "channel_type": 1})).await.0, 400);
    let mut revoke = here(1);
    revoke["channel_id"] = json!("alice@bob");
    root.done("/message/revoke", revoke).await;
    let by = bob
        .event(|event| match event {
            Event::Message(event) if event.what == MessageChange::Revoked => Some(event.by.to_string()),
            _ => None,
        })
        .await;
    assert_eq!(by, "", "a back end did it");
    assert_eq!(
        code(&alice, "/message/edit", json!({"channel_id": "bob", "channel_type": 1, "message_seq": 1})).await.0,
        400
    );
    assert_eq!(code(&alice, "/message/revoke", here(9)).await, (404, "not_found".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn people_and_groups_are_kept_over_http() {
    let server = Server::on_memory().await;
    let (root, alice) = (Caller::root(&server), Caller::user(&server, "alice").await);
    let bob = Caller::user(&server, "bob").await;
    assert_eq!(bob.done("/user/settings", json!({})).await, json!({"strangers": "allow"}));
    let block = json!({"uid": "bob", "strangers": "block"});
    assert_eq!(root.done("/user/settings", block).await, json!({"strangers": "block"}));
    let refused = alice.done("/message/send", json!({"channel_id": "bob", "channel_type": 1, "payload": "eA=="})).await;
    assert_eq!((&refused["reason"], &refused["code"]), (&json!(4), &json!("stranger_refused")));
    let contact = json!({"peer": "alice", "contact": true});
    assert_eq!(bob.done("/user/relation", contact).await, json!({"peer": "alice", "contact": true, "blocked": false}));
    alice.send("alice", "bob", 1, "hi").await;
    let pin = json!({"channel_id": "alice", "channel_type": 1, "pinned": true});
    assert!(bob.done("/conversation/flags", pin).await["version"].as_u64().is_some_and(|v| v > 0));
    assert_eq!(bob.done("/user/relations", json!({})).await.as_array().map(Vec::len), Some(1));
    assert_eq!(code(&bob, "/user/settings", json!({"strangers": "maybe"})).await, (400, "invalid".into()));

    let made = alice.done("/channel/create", json!({"name": "Crew", "subscribers": ["bob"]})).await;
    assert_eq!((&made["creator"], &made["channel_type"]), (&json!("alice"), &json!(2)));
    let id = made["channel_id"].clone();
    let here = json!({"channel_id": id, "channel_type": 2});
    let with = |field: &str, value: Value| {
        let mut body = here.clone();
        body[field] = value;
        body
    };
    assert_eq!(bob.done("/channel/profile", here.clone()).await["name"], json!("Crew"));
    assert_eq!(code(&bob, "/channel/profile", with("name", json!("Mine"))).await, (403, "forbidden".into()));
    let renamed = root.done("/channel/profile", with("description", json!("Who sails"))).await;
    assert_eq!((&renamed["name"], &renamed["description"]), (&json!("Crew"), &json!("Who sails")));
    let mut role = with("member", json!("bob"));
    role["role"] = json!("admin");
    alice.done("/channel/role", role).await;
    bob.done("/channel/invite", with("subscribers", json!(["carol", "dave"]))).await;
    bob.done("/channel/expel", with("subscribers", json!(["dave"]))).await;
    alice.done("/channel/leave", here.clone()).await;
    let members = root.done("/channel/members", here.clone()).await;
    let expected = json!([{"uid": "bob", "role": "owner"}, {"uid": "carol", "role": "member"}]);
    assert_eq!((&members["members"], &members["of"], &members["more"]), (&expected, &json!(2), &json!(false)));
    assert_eq!(code(&alice, "/channel/members", here.clone()).await, (403, "not_member".into()));
    assert_eq!(code(&bob, "/channel/invite", here).await, (400, "invalid".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_namespace_is_closed_on_these_routes_and_on_sockets() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let bound = json!({"name": "tenant", "scopes": ["admin"], "namespace": "acme"});
    let key = root.done("/admin/keys", bound).await["key"].as_str().expect("a key").to_owned();
    let tenant = Caller::with(&server, &key);
    tenant.done("/user/token", json!({"uid": "alice", "token": "acme-alice"})).await;
    let made = tenant.done("/channel/create", json!({"uid": "alice", "name": "Ours", "subscribers": ["bob"]})).await;
    let here = json!({"channel_id": made["channel_id"], "channel_type": 2});
    let members = tenant.done("/channel/members", here.clone()).await;
    let expected = json!([{"uid": "alice", "role": "owner"}, {"uid": "bob", "role": "member"}]);
    assert_eq!(members["members"], expected);
    assert_eq!(code(&root, "/channel/members", here.clone()).await, (404, "channel_not_found".into()));

    // The same user on a socket: bare ids both ways.
    let encoding = protocol::native::Encoding::Json;
    let mut alice = crate::harness::Client::connect(&server, "acme-alice", encoding, |_| {}).await;
    assert_eq!(alice.connected.as_ref().map(|connected| &*connected.uid), Some("alice"));
    let id = made["channel_id"].as_str().expect("an id").to_owned();
    let send = protocol::native::Send { mentions: vec!["bob".into()], ..alice.message(&id, 2, b"hi") };
    alice.ask_send(send).await.expect("stored");
    let item = alice.whole_history(&id, 2, 1, 0).await.remove(0);
    assert_eq!((&*item.from_uid, item.mentions), ("alice", vec!["bob".into()]));
    let like = json!({"uid": "bob", "channel_id": id, "channel_type": 2, "message_seq": 1, "reaction": "like"});
    tenant.done("/message/react", like).await;
    let event = alice
        .event(|event| match event {
            Event::Message(event) => Some((event.channel_id.to_string(), event.by.to_string())),
            _ => None,
        })
        .await;
    assert_eq!(event, (id, "bob".into()));
}
