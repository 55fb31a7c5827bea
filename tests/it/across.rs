//! What holds across all dialects (rows 1 to 8 of section 6 of the acceptance list), each through several of them at once.
//! The table of targets (row 6) is `agreement::targets`; here is its reading through one pair.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::Caller;

const RELATION: &str = "/api/v1/message/send";

struct World {
    _server: Server,
    root: Caller,
    alice: Caller,
    bob: Caller,
    carol: Caller,
}

/// Three users who are known, and a back end that is also relation's application.
async fn world() -> World {
    let server = Server::on_memory().await;
    let key = Caller::root(&server).credential().to_owned();
    let mut users = Vec::new();
    for uid in ["alice", "bob", "carol"] {
        users.push(Caller::user(&server, uid).await.header("ApiKey", &key));
    }
    let [alice, bob, carol] = <[Caller; 3]>::try_from(users).unwrap_or_else(|_| unreachable!("three"));
    World { root: Caller::root(&server).header("ApiKey", &key), _server: server, alice, bob, carol }
}

fn chats(to: &str, text: &str) -> Value {
    json!({"userUUID": to, "message": {"type": "text", "content": text}})
}

async fn m3o_chat(world: &World) -> String {
    let made = world.root.done("/chat/New", json!({"user_ids": ["alice", "bob"]})).await;
    made["chat_id"].as_str().expect("a chat").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn six_1_one_idempotency_space() {
    let world = world().await;
    let chat = m3o_chat(&world).await;
    let first =
        world.root.done("/chat/Send", json!({"chat_id": chat, "user_id": "alice", "text": "hi", "client_id": "k"}));
    assert_eq!(first.await, json!({}));
    // The same name, sender and chat through three more; a text is a text whichever dialect says it.
    let again =
        world.alice.done(RELATION, json!({"toRelationId": "bob", "type": "text", "content": "hi", "sendUuid": "k"}));
    let id = again.await["data"]["id"].clone();
    let keyed = [("token", world.alice.credential()), ("idempotency-key", "k")];
    let third = world.alice.raw("POST", "/chats/messages", &keyed, chats("bob", "hi").to_string()).await;
    assert_eq!((third.status, &third.json["id"]), (StatusCode::OK, &id), "{}", third.json);
    let thread = json!({"to": "bob", "content": "hi"}).to_string();
    let fourth = world.alice.raw("POST", "/api/v1/chat/messages", &keyed, thread).await;
    assert_eq!(fourth.json["message"]["_id"], id, "{}", fourth.json);
    // Another content under the name is a conflict everywhere.
    let other = world.alice.raw("POST", "/chats/messages", &keyed, chats("bob", "other").to_string()).await;
    assert_eq!(other.status, StatusCode::CONFLICT, "{}", other.json);
    let history = world.root.done("/chat/History", json!({"chat_id": chat})).await;
    assert_eq!(history["messages"].as_array().map(Vec::len), Some(1), "{history}");
}

#[tokio::test(flavor = "multi_thread")]
async fn six_2_one_unread() {
    let world = world().await;
    for text in ["1", "2", "3"] {
        world.alice.ok("POST", "/chats/messages", Some(chats("bob", text))).await;
    }
    for expected in [3, 2] {
        let chat = world.bob.ok("GET", "/chats", None).await["chats"][0]["unRead"].clone();
        let thread = world.bob.ok("GET", "/api/v1/chat/threads", None).await[0]["newActivityCount"].clone();
        let sync = world.bob.done("/conversation/sync", json!({"uid": "bob", "version": 0, "msg_count": 1})).await;
        let relation = world.bob.done("/api/v1/message/unreadCount", json!({})).await["data"]["unreadCount"].clone();
        let all = [&chat, &thread, &sync[0]["unread"], &relation];
        assert!(all.iter().all(|unread| **unread == json!(expected)), "{all:?}");
        let set = json!({"uid": "bob", "channel_id": "alice", "channel_type": 1, "unread": 2});
        world.bob.done("/conversations/setUnread", set).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn six_3_ids_keep_their_digits_as_number_and_as_text() {
    let world = world().await;
    let sent = world.alice.ok("POST", "/chats/messages", Some(chats("bob", "quoted"))).await;
    let id = sent["id"].as_str().expect("a text").to_owned();
    let number: u64 = id.parse().expect("digits");
    assert!(number < 1 << 53, "safe in JavaScript: {number}");
    for quote in [json!(number), json!(id)] {
        let body = json!({"toRelationId": "alice", "type": "text", "content": "so?", "quoteId": quote});
        world.bob.done(RELATION, body).await;
    }
    let sync = world.alice.done("/conversation/sync", json!({"uid": "alice", "version": 0, "msg_count": 9})).await;
    let oldest = &sync[0]["recents"][2];
    assert_eq!((&oldest["message_id"], &oldest["message_idstr"]), (&json!(number), &json!(id)));
    assert!(sync[0]["version"].as_u64().is_some_and(|version| version < 1 << 53), "{sync}");
    let list = world.alice.done("/api/v1/message/list", json!({"toRelationId": "bob"})).await;
    assert_eq!(list["data"]["messages"][0]["quoteId"], json!(id), "{list}");
}

#[tokio::test(flavor = "multi_thread")]
async fn six_4_each_dialect_keeps_its_unit_of_time() {
    let world = world().await;
    let chat = m3o_chat(&world).await;
    let sent = world.alice.ok("POST", "/chats/messages", Some(chats("bob", "now"))).await;
    let us: u64 = sent["id"].as_str().and_then(|id| id.parse().ok()).expect("an id, which is a time");
    let (ms, s) = (json!(us / 1_000), json!(us / 1_000_000));
    assert_eq!(world.bob.ok("GET", "/chats", None).await["chats"][0]["lastMessage"]["createdAt"], ms);
    assert_eq!(world.bob.ok("GET", "/api/v1/chat/threads", None).await[0]["lastMessage"]["createdAt"], ms);
    let list = world.bob.done("/api/v1/message/list", json!({"toRelationId": "alice"})).await;
    assert_eq!(list["data"]["messages"][0]["createAt"], ms);
    let sync = world.bob.done("/conversation/sync", json!({"uid": "bob", "version": 0, "msg_count": 1})).await;
    assert_eq!((&sync[0]["timestamp"], &sync[0]["recents"][0]["timestamp"]), (&s, &s));
    let history = world.root.done("/chat/History", json!({"chat_id": chat})).await;
    assert_eq!(history["messages"][0]["sent_at"], s);
}

#[tokio::test(flavor = "multi_thread")]
async fn six_5_one_refusal_has_every_dialects_voice() {
    let world = world().await;
    world.alice.ok("POST", "/chats/messages", Some(chats("bob", "ours"))).await;
    let chat = m3o_chat(&world).await;
    let message = json!({"chatId": chat, "message": {"type": "text", "content": "x"}});
    let said = world.carol.call("POST", "/chats/messages", Some(message)).await;
    assert_eq!((said.status.as_u16(), &said.json["code"]), (403, &json!(403)), "{}", said.json);
    let said = world.carol.post("/api/v1/chat/messages", json!({"thread": chat, "content": "x"})).await;
    assert_eq!((said.status.as_u16(), &said.json["code"]), (403, &json!("not_member")), "{}", said.json);
    let said = world.carol.post(RELATION, json!({"channelUuid": chat, "type": "text", "content": "x"})).await;
    assert_eq!((said.status.as_u16(), &said.json["code"]), (200, &json!("13108")), "{}", said.json);
    let said = world.root.post("/chat/Send", json!({"chat_id": chat, "user_id": "carol", "text": "x"})).await;
    assert_eq!((said.status.as_u16(), &said.json["Code"]), (403, &json!(403)), "{}", said.json);
    assert!(said.json["Id"].as_str().is_some_and(|id| id.starts_with("chat.Send.")), "{}", said.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn six_6_a_target_means_the_same_everywhere() {
    let world = world().await;
    // One chat of a pair, whoever begins it and however it is named.
    let chat = m3o_chat(&world).await;
    let sent = world.alice.ok("POST", "/chats/messages", Some(chats("bob", "1"))).await;
    assert_eq!(sent["chatId"], json!(chat));
    let back = world.bob.done("/api/v1/chat/messages", json!({"to": "alice", "content": "2"})).await;
    assert_eq!(back["message"]["thread"], json!(chat));
    let third = world.bob.done(RELATION, json!({"toRelationId": "alice", "type": "text", "content": "3"})).await;
    assert_eq!(third["data"]["channelUuid"], json!(chat.replace('-', "")));
    // An unknown user is none to write to, and what clashes is named.
    let unknown = world.alice.call("POST", "/chats/messages", Some(chats("nobody", "x"))).await;
    assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{}", unknown.json);
    let clash = json!({"thread": chat, "to": "carol", "content": "x"});
    let clash = world.alice.post("/api/v1/chat/messages", clash).await;
    assert_eq!(clash.status, StatusCode::BAD_REQUEST, "{}", clash.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn six_7_bodies_are_json_whatever_they_say_and_gets_may_have_one() {
    let world = world().await;
    let token = world.alice.credential();
    for name in ["token", "TOKEN", "Token"] {
        let form = [(name, token), ("content-type", "application/x-www-form-urlencoded")];
        let sent = world.alice.raw("POST", "/chats/messages", &form, chats("bob", "x").to_string()).await;
        assert_eq!(sent.status, StatusCode::OK, "{}", sent.json);
    }
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let bearer = format!("{scheme} {token}");
        let sent = world.alice.raw("GET", "/api/v1/chat/threads", &[("authorization", &bearer)], "").await;
        assert_eq!(sent.status, StatusCode::OK, "{}", sent.json);
    }
    let chat = m3o_chat(&world).await;
    let body = json!({"chatId": chat, "limit": 2});
    let page = world.alice.ok("GET", "/chats/messages", Some(body.clone())).await;
    assert_eq!(page["meta"]["limit"], 2);
    let page = world.alice.ok("GET", &format!("/chats/messages?chatId={chat}&limit=1"), Some(body)).await;
    assert_eq!(page["meta"]["limit"], 1, "the query wins");
    let loud = world.alice.call("POST", "/chats/messages", Some(json!({"userUUID": 5, "message": {}}))).await;
    assert_eq!(loud.status, StatusCode::BAD_REQUEST, "{}", loud.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn six_8_a_user_acts_as_oneself_and_a_back_end_as_anybody() {
    let world = world().await;
    let chat = m3o_chat(&world).await;
    let as_bob = json!({"chat_id": chat, "user_id": "bob", "text": "x"});
    assert_eq!(world.alice.post("/chat/Send", as_bob.clone()).await.status, StatusCode::FORBIDDEN);
    world.root.done("/chat/Send", as_bob).await;
    let sync = json!({"uid": "bob", "version": 0, "msg_count": 1});
    assert_eq!(world.alice.post("/conversation/sync", sync.clone()).await.status, StatusCode::FORBIDDEN);
    world.root.done("/conversation/sync", sync).await;
    let headers = [("token", world.root.credential()), ("x-chinwag-uid", "bob")];
    let sent = world.root.raw("POST", "/chats/messages", &headers, chats("alice", "y").to_string()).await;
    assert_eq!(sent.status, StatusCode::OK, "{}", sent.json);
    let nobody = world.root.call("POST", "/chats/messages", Some(chats("alice", "y"))).await;
    assert_eq!(nobody.status, StatusCode::BAD_REQUEST, "a key names who it acts for: {}", nobody.json);
}
