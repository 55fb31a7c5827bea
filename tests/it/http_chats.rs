//! The `chats` document over HTTP: targets, pages, groups, unread and its envelope (rows A1 to A20 of the acceptance list).

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Client, Server};
use crate::http::{Answer, Caller};
use protocol::native::Encoding;

/// A server with users who know each other by token.
async fn with_users<const N: usize>(names: [&str; N]) -> (Server, [Caller; N]) {
    let server = Server::on_memory().await;
    let mut callers = Vec::with_capacity(N);
    for name in names {
        callers.push(Caller::user(&server, name).await);
    }
    let callers = callers.try_into().unwrap_or_else(|_| panic!("as many callers as names"));
    (server, callers)
}

fn text(content: &str) -> Value {
    json!({"type": "text", "content": content})
}

/// Sends; answers the chat's id.
async fn say_to(from: &Caller, user: &str, content: &str) -> String {
    let sent = from.ok("POST", "/chats/messages", Some(json!({"userUUID": user, "message": text(content)}))).await;
    sent["chatId"].as_str().expect("a chat").to_owned()
}

async fn say(from: &Caller, chat: &str, content: &str) -> String {
    let sent = from.ok("POST", "/chats/messages", Some(json!({"chatId": chat, "message": text(content)}))).await;
    sent["id"].as_str().expect("an id").to_owned()
}

async fn page(caller: &Caller, chat: &str, query: &str) -> Value {
    caller.ok("GET", &format!("/chats/messages?chatId={chat}{query}"), None).await
}

fn contents(page: &Value) -> Vec<&str> {
    page["messages"].as_array().expect("messages").iter().filter_map(|m| m["content"].as_str()).collect()
}

async fn chat_row(caller: &Caller, chat: &str) -> Value {
    let chats = caller.ok("GET", "/chats", None).await;
    let rows = chats["chats"].as_array().expect("chats");
    rows.iter().find(|row| row["id"] == chat).cloned().unwrap_or(Value::Null)
}

fn refused(answer: &Answer, code: u16, error: &str, field: Option<&str>) {
    assert_eq!(answer.status.as_u16(), code, "{}", answer.json);
    assert_eq!(answer.json["code"], code, "{}", answer.json);
    assert_eq!(answer.json["error"], error, "{}", answer.json);
    assert_eq!(answer.json["field"].as_str(), field, "{}", answer.json);
    assert!(answer.json["message"].as_str().is_some_and(|m| !m.is_empty()), "{}", answer.json);
    assert!(answer.json["requestId"].is_string(), "{}", answer.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn a1_every_call_takes_the_header_token_and_answers_401_in_the_envelope() {
    let (server, [alice]) = with_users(["alice"]).await;
    let nobody = Caller::with(&server, "none");
    for (method, path) in [
        ("GET", "/chats"),
        ("GET", "/chats/messages?chatId=x"),
        ("POST", "/chats/messages"),
        ("PATCH", "/chats/messages/1"),
        ("DELETE", "/chats/messages/1"),
        ("POST", "/chats/groups"),
        ("GET", "/chats/groups/x"),
        ("PATCH", "/chats/groups/x"),
        ("POST", "/chats/groups/x/users"),
        ("PUT", "/chats/groups/x/users/y"),
        ("DELETE", "/chats/groups/x/users/y"),
    ] {
        let answer = nobody.raw(method, path, &[], "").await;
        refused(&answer, 401, "credential_missing", None);
        assert!(answer.headers.contains_key("www-authenticate"));
        refused(&nobody.call(method, path, None).await, 401, "credential_unknown", None);
    }
    for name in ["token", "TOKEN", "Token"] {
        let answer = alice.raw("GET", "/chats", &[(name, alice.credential())], "").await;
        assert_eq!(answer.status, StatusCode::OK, "{name}");
    }
    // A back end with an API key says for whom it acts, and may do what that user may.
    let root = Caller::root(&server);
    refused(&root.call("GET", "/chats", None).await, 400, "invalid", Some("x-chinwag-uid"));
    let as_alice = [("token", root.credential()), ("x-chinwag-uid", "alice")];
    assert_eq!(root.raw("GET", "/chats", &as_alice, "").await.status, StatusCode::OK);
    let as_bob = [("token", alice.credential()), ("x-chinwag-uid", "bob")];
    refused(&alice.raw("GET", "/chats", &as_bob, "").await, 403, "forbidden", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a2_exactly_one_target_and_a_clash_names_both() {
    let (_server, [alice, bob, _carol]) = with_users(["alice", "bob", "carol"]).await;
    let chat = say_to(&alice, "bob", "hi").await;
    let group = alice.ok("POST", "/chats/groups", Some(json!({"users": ["bob", "carol"]}))).await;
    let group = group["groupId"].as_str().expect("an id");
    let send = |mut body: Value| {
        body["message"] = text("x");
        let alice = &alice;
        async move { alice.call("POST", "/chats/messages", Some(body)).await }
    };
    refused(&send(json!({})).await, 400, "invalid", Some("chatId"));
    refused(
        &send(json!({"chatId": "", "userUUID": null, "userUUIDs": [], "groupUUID": ""})).await,
        400,
        "invalid",
        Some("chatId"),
    );
    for (body, to) in [
        (json!({"chatId": chat, "userUUID": "bob"}), chat.as_str()),
        (json!({"chatId": chat, "userUUID": "bob", "userId": "bob", "userUUIDs": ["bob"]}), &chat),
        (json!({"chatId": group, "groupUUID": group, "groupId": group}), group),
        (json!({"groupUUID": group, "userUUIDs": "carol,bob"}), group),
        (json!({"groupUUID": group, "userUUIDs": ["carol", "bob", "alice"], "userIds": "bob,carol"}), group),
    ] {
        let answer = send(body.clone()).await;
        assert_eq!((answer.status, &answer.json["chatId"]), (StatusCode::OK, &json!(to)), "{body} {}", answer.json);
    }
    for (body, both) in [
        (json!({"chatId": chat, "userUUID": "carol"}), ["chatId", "userUUID"]),
        (json!({"chatId": chat, "groupUUID": group}), ["chatId", "groupUUID"]),
        (json!({"userUUID": "bob", "groupUUID": group}), ["userUUID", "groupUUID"]),
        (json!({"userUUID": "bob", "userId": "carol"}), ["userUUID", "userId"]),
        (json!({"groupUUID": group, "userUUIDs": ["bob"]}), ["groupUUID", "userUUIDs"]),
        (json!({"userUUID": "bob", "userUUIDs": ["bob", "carol"]}), ["userUUID", "userUUIDs"]),
        (json!({"userUUIDs": ["bob"], "userIds": ["carol"]}), ["userUUIDs", "userIds"]),
    ] {
        let answer = send(body.clone()).await;
        let said = answer.json["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}: {said}");
        assert!(both.iter().all(|field| said.contains(field)), "{body}: {said}");
    }
    assert_eq!(contents(&page(&bob, &chat, "").await), ["hi", "x", "x"], "a clash stores nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a_send_answers_id_chat_and_code() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let body = json!({"userUUID": "bob", "message": text("hi")});
    let answer = alice.ok("POST", "/chats/messages", Some(body)).await;
    assert_eq!(answer.as_object().map(serde_json::Map::len), Some(3), "{answer}");
    assert_eq!(answer["code"], 200);
    let chat = answer["chatId"].as_str().expect("a chat");
    let listed = page(&bob, chat, "").await;
    assert_eq!(listed["messages"][0]["id"], answer["id"], "the message's own id, as text");
}

#[tokio::test(flavor = "multi_thread")]
async fn a4_a_known_chat_is_sent_to_and_others_are_not_made() {
    let (_server, [alice, bob, eve]) = with_users(["alice", "bob", "eve"]).await;
    let chat = say_to(&alice, "bob", "one").await;
    say(&bob, &chat, "two").await;
    say(&bob, &chat.to_uppercase(), "three").await;
    assert_eq!(contents(&page(&alice, &chat, "").await), ["one", "two", "three"]);
    let to = |chat: &str| Some(json!({"chatId": chat, "message": text("x")}));
    refused(&eve.call("POST", "/chats/messages", to(&chat)).await, 403, "not_member", None);
    for unknown in ["6c1d4a53-2b57-4d2e-9d0e-6f9b5f4ad0c1", "bob", "%"] {
        refused(&alice.call("POST", "/chats/messages", to(unknown)).await, 404, "channel_not_found", None);
    }
    refused(&eve.call("GET", &format!("/chats/messages?chatId={chat}"), None).await, 403, "not_member", None);
    assert_eq!(eve.ok("GET", "/chats", None).await["chats"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a5_two_users_have_one_private_chat() {
    let (server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let sends = (0..20).map(|i| {
        let (from, to) = if i % 2 == 0 { (&alice, "bob") } else { (&bob, "alice") };
        async move { say_to(from, to, &i.to_string()).await }
    });
    let chats = futures_util::future::join_all(sends).await;
    assert!(chats.iter().all(|chat| *chat == chats[0]), "concurrent first messages make one chat: {chats:?}");
    assert_eq!(say_to(&alice, "bob", "again").await, chats[0]);
    assert_eq!(page(&bob, &chats[0], "").await["meta"]["total"], 21);
    // Unknown users make none, and a chat begun on a socket is the same one.
    let to_nobody = Some(json!({"userUUID": "nobody", "message": text("x")}));
    refused(&alice.call("POST", "/chats/messages", to_nobody).await, 404, "not_found", None);
    let mut socket = Client::connect(&server, alice.credential(), Encoding::MessagePack, |_| {}).await;
    socket.say("bob", 1, b"from a socket").await;
    assert_eq!(contents(&page(&bob, &chats[0], "&limit=1").await), ["from a socket"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a6_users_make_a_discussion_group() {
    let (_server, [alice, bob, carol]) = with_users(["alice", "bob", "carol"]).await;
    let send = |users: Value, key: Option<&'static str>, content: &'static str| {
        let alice = &alice;
        async move {
            let body = json!({"userUUIDs": users, "message": text(content)}).to_string();
            let mut headers = vec![("token", alice.credential())];
            headers.extend(key.map(|key| ("Idempotency-Key", key)));
            alice.raw("POST", "/chats/messages", &headers, body).await
        }
    };
    let (first, second) = (send(json!(["bob", "carol"]), None, "x").await, send(json!("bob, carol"), None, "x").await);
    assert_eq!((first.status, second.status), (StatusCode::OK, StatusCode::OK), "{}", second.json);
    assert_ne!(first.json["chatId"], second.json["chatId"], "a new group each time");
    let chat = second.json["chatId"].as_str().expect("a chat");
    let group = carol.ok("GET", &format!("/chats/groups/{chat}"), None).await;
    assert_eq!(group["users"].as_array().map(Vec::len), Some(3), "the sender is a member: {group}");
    assert_eq!(contents(&page(&bob, chat, "").await), ["x"]);

    let named = send(json!(["bob", "carol"]), Some("retry-1"), "once").await;
    let again = send(json!(["carol", "bob"]), Some("retry-1"), "once").await;
    assert_eq!((&named.json["chatId"], &named.json["id"]), (&again.json["chatId"], &again.json["id"]));
    let other = send(json!(["bob", "carol"]), Some("retry-1"), "another").await;
    refused(&other, 409, "client_msg_no_conflict", None);
    refused(&send(json!(["bob", "nobody"]), None, "x").await, 404, "not_found", None);
    refused(&send(json!([5]), None, "x").await, 400, "invalid", Some("userUUIDs[0]"));
    refused(&send(json!(["a@b"]), None, "x").await, 400, "invalid", Some("userUUIDs[0]"));
    assert_eq!(alice.ok("GET", "/chats", None).await["chats"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a7_a_group_is_sent_to_by_its_id() {
    let (_server, [alice, bob, eve]) = with_users(["alice", "bob", "eve"]).await;
    let group = alice.ok("POST", "/chats/groups", Some(json!({"users": ["bob"]}))).await;
    let to = |group: &Value| Some(json!({"groupUUID": group, "message": text("x")}));
    let sent = bob.ok("POST", "/chats/messages", to(&group["id"])).await;
    assert_eq!(sent["chatId"], group["chatId"]);
    refused(&eve.call("POST", "/chats/messages", to(&group["id"])).await, 403, "not_member", None);
    let unknown = json!("6c1d4a53-2b57-4d2e-9d0e-6f9b5f4ad0c1");
    refused(&bob.call("POST", "/chats/messages", to(&unknown)).await, 404, "channel_not_found", None);
    let private = json!(say_to(&alice, "bob", "x").await);
    refused(&bob.call("POST", "/chats/messages", to(&private)).await, 404, "not_found", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a8_both_spellings_name_the_same() {
    let (_server, [alice, _bob]) = with_users(["alice", "bob"]).await;
    let group = alice.ok("POST", "/chats/groups", Some(json!({"users": "bob"}))).await["id"].clone();
    let send = |body: Value| {
        let (alice, mut body) = (&alice, body);
        body["message"] = text("x");
        async move { alice.ok("POST", "/chats/messages", Some(body)).await["chatId"].clone() }
    };
    assert_eq!(send(json!({"userUUID": "bob"})).await, send(json!({"userId": "bob"})).await);
    assert_eq!(send(json!({"groupUUID": group})).await, send(json!({"groupId": group})).await);
    let made = send(json!({"userIds": ["bob"]})).await;
    assert_eq!(chat_row(&alice, made.as_str().expect("a chat")).await["type"], 2, "users make a group");
}

#[tokio::test(flavor = "multi_thread")]
async fn a9_kinds_are_checked_and_content_comes_back_as_sent() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let chat = say_to(&alice, "bob", "first").await;
    let send = |message: Value| {
        let (alice, chat) = (&alice, &chat);
        async move { alice.call("POST", "/chats/messages", Some(json!({"chatId": chat, "message": message}))).await }
    };
    for (kind, content) in [
        ("text", json!("plain")),
        ("docId", json!("d-1")),
        ("link", json!({"url": "https://example.org/?a=1&b=2", "title": "ü"})),
        ("location", json!([52.5, 13.4])),
        ("profileId", json!(42)),
        ("text", json!("{\"content\":\"not taken apart\"}")),
    ] {
        assert_eq!(send(json!({"type": kind, "content": content})).await.status, StatusCode::OK);
        let listed = page(&bob, &chat, "&limit=1").await;
        assert_eq!((&listed["messages"][0]["type"], &listed["messages"][0]["content"]), (&json!(kind), &content));
    }
    for (message, field) in [
        (json!({"type": "video", "content": "x"}), "message.type"),
        (json!({"content": "x"}), "message.type"),
        (json!({"type": "text"}), "message.content"),
        (json!({"type": "text", "content": ""}), "message.content"),
        (json!({"type": "text", "content": null}), "message.content"),
        (json!({"type": 1, "content": "x"}), "message.type"),
        (json!({"type": "text", "content": "x", "replyTo": "abc"}), "message.replyTo"),
    ] {
        refused(&send(message).await, 400, "invalid", Some(field));
    }
    refused(&send(Value::Null).await, 400, "invalid", Some("message"));
    let reply =
        send(json!({"type": "text", "content": "yes", "replyTo": page(&bob, &chat, "").await["messages"][0]["id"]}))
            .await;
    assert_eq!(reply.status, StatusCode::OK, "{}", reply.json);
    let listed = page(&bob, &chat, "").await;
    let last = listed["messages"].as_array().and_then(|m| m.last()).expect("messages");
    assert_eq!(last["replyTo"], listed["messages"][0]["id"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_emoji_come_back_whole() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let emoji = "👩‍👩‍👧‍👦 𝄞 🏳️‍🌈 é \u{200f}";
    let chat = say_to(&alice, "bob", emoji).await;
    assert_eq!(chat_row(&bob, &chat).await["unRead"], 1);
    assert_eq!(contents(&page(&bob, &chat, "").await), [emoji]);
    let escaped = format!(r#"{{"chatId":"{chat}","message":{{"type":"text","content":"\ud83d\ude00"}}}}"#);
    let answer = alice.raw("POST", "/chats/messages", &[("token", alice.credential())], escaped).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(chat_row(&bob, &chat).await["lastMessage"]["content"], "😀");
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_private_chats_and_groups_are_told_apart() {
    let (_server, [alice, _bob]) = with_users(["alice", "bob"]).await;
    let chat = say_to(&alice, "bob", "x").await;
    let group = alice.ok("POST", "/chats/groups", Some(json!({"users": ["bob"]}))).await["id"].clone();
    let group = group.as_str().expect("an id");
    let (private, public) = (chat_row(&alice, &chat).await, chat_row(&alice, group).await);
    assert_eq!((&private["type"], &private["userUUID"], &private["groupId"]), (&json!(1), &json!("bob"), &Value::Null));
    assert_eq!((&public["type"], &public["userUUID"], &public["groupId"]), (&json!(2), &Value::Null, &json!(group)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_a_page_is_asked_in_the_query_or_in_a_body_and_the_query_wins() {
    let (_server, [alice, _bob]) = with_users(["alice", "bob"]).await;
    let chat = say_to(&alice, "bob", "1").await;
    for content in ["2", "3", "4"] {
        say(&alice, &chat, content).await;
    }
    // As curl sends the document's call: a body on a GET, with a form's type.
    let form = [("token", alice.credential()), ("content-type", "application/x-www-form-urlencoded")];
    let body = json!({"chatId": chat, "limit": 2, "skip": 1}).to_string();
    let answer = alice.raw("GET", "/chats/messages", &form, body.clone()).await;
    assert_eq!((answer.status, contents(&answer.json)), (StatusCode::OK, vec!["2", "3"]), "{}", answer.json);
    let answer = alice.raw("GET", "/chats/messages?limit=1", &form, body).await;
    assert_eq!(contents(&answer.json), ["3"], "the query wins, field by field");
    assert_eq!(contents(&page(&alice, &chat, "&limit=2&skip=1").await), ["2", "3"]);
    refused(&alice.call("GET", "/chats/messages", None).await, 400, "invalid", Some("chatId"));
    refused(&alice.call("GET", "/chats/messages?chatId=", None).await, 400, "invalid", Some("chatId"));
    refused(&alice.raw("GET", "/chats/messages", &form, "chatId=x").await, 400, "invalid", Some("body"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_meta_says_what_was_applied_and_what_there_is() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let chat = say_to(&alice, "bob", "1").await;
    for i in 2..=5 {
        // Each in a millisecond of its own, so that moments tell them apart.
        let last = page(&alice, &chat, "").await["messages"].as_array().and_then(|m| m.last().cloned()).expect("one");
        let now =
            || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
        while now() <= u128::from(last["createdAt"].as_u64().expect("a time")) {
            tokio::task::yield_now().await;
        }
        say(&alice, &chat, &i.to_string()).await;
    }
    let all = page(&bob, &chat, "").await;
    assert_eq!(contents(&all), ["1", "2", "3", "4", "5"], "oldest first");
    let meta = json!({"limit": 50, "skip": 0, "startAt": null, "endAt": null, "total": 5, "hasMore": false});
    assert_eq!((&all["meta"], &all["code"]), (&meta, &json!(200)));
    let at = |i: usize| all["messages"][i]["createdAt"].as_u64().expect("a time");
    for (query, expected, total, more) in [
        ("&limit=2".to_owned(), vec!["4", "5"], 5, true),
        ("&limit=2&skip=2".into(), vec!["2", "3"], 5, true),
        ("&limit=2&skip=4".into(), vec!["1"], 5, false),
        ("&skip=5".into(), vec![], 5, false),
        ("&skip=99999999999".into(), vec![], 5, false),
        (format!("&startAt={}", at(1)), vec!["2", "3", "4", "5"], 4, false),
        (format!("&endAt={}", at(3)), vec!["1", "2", "3"], 3, false),
        (format!("&startAt={}&endAt={}", at(1), at(4)), vec!["2", "3", "4"], 3, false),
        (format!("&startAt={}&endAt={}&limit=1&skip=1", at(1), at(4)), vec!["3"], 3, true),
        (format!("&startAt={0}&endAt={0}", at(1)), vec![], 0, false),
        (format!("&startAt={}", at(4) + 1), vec![], 0, false),
        ("&endAt=0".into(), vec![], 0, false),
        ("&startAt=1970-01-01T00:00:00Z&endAt=2000-01-01T01:00:00%2B01:00".into(), vec![], 0, false),
        ("&startAt=2000-01-01T00:00:00Z".into(), vec!["1", "2", "3", "4", "5"], 5, false),
    ] {
        let listed = page(&bob, &chat, &query).await;
        assert_eq!(contents(&listed), expected, "{query}");
        assert_eq!((&listed["meta"]["total"], &listed["meta"]["hasMore"]), (&json!(total), &json!(more)), "{query}");
    }
    let applied = page(&bob, &chat, "&limit=9999&startAt=1970-01-01T00:00:01Z").await["meta"].clone();
    assert_eq!((&applied["limit"], &applied["startAt"]), (&json!(200), &json!(1_000)), "as applied");
    for (query, field) in [
        ("&limit=0", "limit"),
        ("&limit=-1", "limit"),
        ("&limit=NaN", "limit"),
        ("&skip=-1", "skip"),
        ("&startAt=yesterday", "startAt"),
        ("&startAt=-5", "startAt"),
        ("&startAt=2&endAt=1", "startAt"),
    ] {
        let answer = bob.call("GET", &format!("/chats/messages?chatId={chat}{query}"), None).await;
        refused(&answer, 400, "invalid", Some(field));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a14_pages_by_skip_stand_still_when_the_end_is_pinned() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let chat = say_to(&alice, "bob", "0").await;
    for i in 1..20 {
        say(&alice, &chat, &i.to_string()).await;
    }
    let newest = page(&bob, &chat, "&limit=1").await["messages"][0]["createdAt"].as_u64().expect("a time");
    // Later messages lie at or after the pinned end once the clock has passed it.
    let end = newest + 1;
    let now = || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_millis();
    while now() < u128::from(end) {
        tokio::task::yield_now().await;
    }
    let (mut seen, mut skip) = (Vec::new(), 0);
    loop {
        let listed = page(&bob, &chat, &format!("&limit=6&skip={skip}&endAt={end}")).await;
        seen.splice(0..0, contents(&listed).into_iter().map(str::to_owned));
        skip += 6;
        say(&alice, &chat, "in between").await;
        if listed["meta"]["hasMore"] == false {
            break;
        }
    }
    assert_eq!(seen, (0..20).map(|i| i.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a15_groups_are_made_with_their_creator() {
    let (_server, [alice, _bob]) = with_users(["alice", "bob"]).await;
    let make = |body: Value| {
        let alice = &alice;
        async move { alice.call("POST", "/chats/groups", Some(body)).await }
    };
    let made = make(json!({"users": ["bob", "bob", "alice"], "name": "n", "icon": "i", "desc": "d"})).await.json;
    assert_eq!((&made["code"], &made["id"], &made["id"]), (&json!(200), &made["groupId"], &made["chatId"]));
    let mut users: Vec<&str> = made["users"].as_array().expect("users").iter().filter_map(Value::as_str).collect();
    users.sort_unstable();
    assert_eq!(users, ["alice", "bob"], "the creator once, repeats collapsed");
    assert_eq!(made["roles"], json!([{"userId": "alice", "role": "owner"}]));
    // The document's own default: an empty list is a group of oneself.
    let alone = make(json!({"users": []})).await;
    assert_eq!((alone.status, &alone.json["users"]), (StatusCode::OK, &json!(["alice"])));
    refused(&make(json!({"users": ["nobody"]})).await, 404, "not_found", None);
    refused(&make(json!({"users": [7]})).await, 400, "invalid", Some("users[0]"));
    refused(&make(json!({"users": [], "name": "n".repeat(300)})).await, 413, "too_large", Some("name"));
    let named = |key: &'static str| {
        let alice = &alice;
        async move {
            let headers = [("token", alice.credential()), ("idempotency-key", key)];
            alice.raw("POST", "/chats/groups", &headers, r#"{"users":["bob"]}"#).await.json["id"].clone()
        }
    };
    assert_eq!(named("k").await, named("k").await);
    assert_ne!(named("k").await, named("l").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a16_a_group_is_shown_to_its_members_and_changed_by_its_admins() {
    let (_server, [alice, bob, _carol, eve]) = with_users(["alice", "bob", "carol", "eve"]).await;
    let body = json!({"users": ["bob"], "name": "n", "icon": "i", "desc": "d"});
    let made = alice.ok("POST", "/chats/groups", Some(body)).await;
    let path = format!("/chats/groups/{}", made["id"].as_str().expect("an id"));
    assert_eq!(bob.ok("GET", &path, None).await, made);
    refused(&eve.call("GET", &path, None).await, 403, "not_member", None);
    let unknown = "/chats/groups/6c1d4a53-2b57-4d2e-9d0e-6f9b5f4ad0c1";
    refused(&alice.call("GET", unknown, None).await, 404, "channel_not_found", None);

    let changed = alice.ok("PATCH", &path, Some(json!({"name": "new", "icon": ""}))).await;
    assert_eq!((&changed["name"], &changed["icon"], &changed["desc"]), (&json!("new"), &json!(""), &json!("d")));
    refused(&bob.call("PATCH", &path, Some(json!({"name": "mine"}))).await, 403, "forbidden", None);
    let users = format!("{path}/users");
    refused(&bob.call("POST", &users, Some(json!({"users": ["carol"]}))).await, 403, "forbidden", None);
    refused(&alice.call("POST", &users, Some(json!({"users": ["nobody"]}))).await, 404, "not_found", None);
    let added = alice.ok("POST", &users, Some(json!({"users": "carol"}))).await;
    assert_eq!(added["users"], json!(["alice", "bob", "carol"]));
    refused(&bob.call("PUT", &format!("{users}/bob"), Some(json!({"role": "admin"}))).await, 403, "forbidden", None);
    let roles = alice.ok("PUT", &format!("{users}/bob"), Some(json!({"role": "admin"}))).await["roles"].clone();
    assert_eq!(roles.as_array().map(Vec::len), Some(2), "{roles}");
    refused(
        &alice.call("PUT", &format!("{users}/bob"), Some(json!({"role": "king"}))).await,
        400,
        "invalid",
        Some("role"),
    );
    bob.ok("DELETE", &format!("{users}/carol"), None).await;
    bob.ok("DELETE", &format!("{users}/bob"), None).await;
    refused(&bob.call("GET", &path, None).await, 403, "not_member", None);
    assert_eq!(alice.ok("GET", &path, None).await["users"], json!(["alice"]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a17_chats_are_listed_with_the_callers_unread() {
    let (server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let chat = say_to(&alice, "bob", "1").await;
    say(&alice, &chat, "2").await;
    let group = bob.ok("POST", "/chats/groups", Some(json!({"users": ["alice"], "icon": "i"}))).await;
    let group = group["id"].as_str().expect("an id");

    let listed = bob.ok("GET", "/chats", None).await;
    assert_eq!((&listed["code"], &listed["meta"]["hasMore"]), (&json!(200), &json!(false)));
    let ids: Vec<&Value> = listed["chats"].as_array().expect("chats").iter().map(|row| &row["id"]).collect();
    assert_eq!(ids, [&json!(group), &json!(chat)], "the latest activity first, an empty group too");
    let row = &listed["chats"][0];
    assert_eq!((&row["lastMessage"], &row["icon"], &row["unRead"]), (&json!({}), &json!("i"), &json!(0)));
    assert_eq!(
        (&listed["chats"][1]["unRead"], &listed["chats"][1]["lastMessage"]["content"]),
        (&json!(2), &json!("2"))
    );
    assert_eq!(chat_row(&alice, &chat).await["unRead"], 0, "per caller");
    assert_eq!(bob.ok("GET", "/chats?limit=1&skip=1", None).await["chats"][0]["id"], chat);

    // Pages that do not hold the last message leave unread as it is; one that does reads the chat, everywhere.
    page(&bob, &chat, "&limit=1&skip=1").await;
    assert_eq!(chat_row(&bob, &chat).await["unRead"], 2);
    page(&bob, &chat, "&endAt=5").await;
    assert_eq!(chat_row(&bob, &chat).await["unRead"], 2);
    page(&bob, &chat, "&limit=1").await;
    assert_eq!(chat_row(&bob, &chat).await["unRead"], 0);
    let rows = Caller::root(&server).done("/conversation/sync", json!({"uid": "bob"})).await;
    assert_eq!((&rows[0]["channel_id"], &rows[0]["unread"]), (&json!("alice"), &json!(0)), "one unread");
    // A poll changes nothing.
    let version = rows[0]["version"].clone();
    page(&bob, &chat, "").await;
    assert_eq!(Caller::root(&server).done("/conversation/sync", json!({"uid": "bob"})).await[0]["version"], version);
    say(&alice, group, "x").await;
    assert_eq!(bob.ok("GET", "/chats", None).await["chats"][0]["unRead"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a18_messages_and_groups_have_the_fields_of_the_models() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let chat = say_to(&alice, "bob", "x").await;
    let message = page(&bob, &chat, "").await["messages"][0].clone();
    assert_eq!(
        (&message["chatId"], &message["type"], &message["from"]),
        (&json!(chat), &json!("text"), &json!("alice"))
    );
    assert!(message["id"].is_string() && message["seq"] == 1 && message["createdAt"].is_u64(), "{message}");
    let row = chat_row(&bob, &chat).await;
    let mut users = row["userIds"].as_array().expect("users").clone();
    users.sort_by_key(ToString::to_string);
    assert_eq!((&row["chatId"], users), (&json!(chat), vec![json!("alice"), json!("bob")]));

    // Edited and taken back.
    let path = format!("/chats/messages/{}", message["id"].as_str().expect("an id"));
    let edit = Some(json!({"message": {"content": {"now": "json"}}}));
    let edited = alice.ok("PATCH", &path, edit.clone()).await["message"].clone();
    assert_eq!((&edited["content"], edited["editedAt"].is_u64()), (&json!({"now": "json"}), true), "{edited}");
    refused(&bob.call("PATCH", &path, edit).await, 403, "forbidden", None);
    refused(&bob.call("DELETE", &path, None).await, 403, "forbidden", None);
    let gone = alice.ok("DELETE", &path, None).await["message"].clone();
    assert_eq!((&gone["state"], &gone["content"], &gone["seq"]), (&json!("revoked"), &Value::Null, &json!(1)));
    assert_eq!(page(&bob, &chat, "").await["messages"][0], gone);
    refused(&bob.call("DELETE", "/chats/messages/5", None).await, 404, "not_found", None);
    refused(&bob.call("DELETE", "/chats/messages/abc", None).await, 404, "not_found", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a19_the_code_in_the_body_is_the_status() {
    let (_server, [alice]) = with_users(["alice"]).await;
    let answer = alice.call("GET", "/chats", None).await;
    assert_eq!((answer.status, &answer.json["code"]), (StatusCode::OK, &json!(200)));
    refused(&alice.call("GET", "/chats/nope", None).await, 404, "no_such_path", None);
    let wrong = alice.call("DELETE", "/chats", None).await;
    refused(&wrong, 405, "method_not_allowed", None);
    assert!(wrong.headers.contains_key("allow"));
    let token = [("token", alice.credential())];
    refused(&alice.raw("POST", "/chats/messages", &token, "{").await, 400, "invalid", Some("body"));
    refused(&alice.raw("POST", "/chats/messages", &token, vec![b' '; 5 << 20]).await, 413, "too_large", Some("body"));
    let long = json!({"userUUID": "alice", "message": text(&"x".repeat(70_000))});
    refused(&alice.call("POST", "/chats/messages", Some(long)).await, 413, "too_large", Some("payload"));
    assert_eq!(alice.ok("GET", "/chats", None).await["chats"], json!([]), "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn a20_what_users_of_other_services_expect_is_there() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    // Notes to oneself are kept and never unread; one sender's key names one message; one's own send reads the chat.
    let notes = say_to(&alice, "alice", "note").await;
    assert_eq!(chat_row(&alice, &notes).await["unRead"], 0);
    let send = |content: &'static str| {
        let alice = &alice;
        async move {
            let headers = [("token", alice.credential()), ("IDEMPOTENCY-KEY", "key-1")];
            let body = json!({"userUUID": "bob", "message": text(content)}).to_string();
            alice.raw("POST", "/chats/messages", &headers, body).await
        }
    };
    let (first, again) = (send("once").await, send("once").await);
    assert_eq!((again.status, &again.json), (StatusCode::OK, &first.json), "a repeat gets the first answer");
    refused(&send("twice").await, 409, "client_msg_no_conflict", None);
    let chat = first.json["chatId"].as_str().expect("a chat");
    assert_eq!(page(&bob, chat, "").await["meta"]["total"], 1);
    say(&alice, chat, "more").await;
    assert_eq!(chat_row(&bob, chat).await["unRead"], 1);
    say(&bob, chat, "answer").await;
    assert_eq!(chat_row(&bob, chat).await["unRead"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documents_own_bodies_work_as_curl_sends_them() {
    let (_server, [alice, _bob]) = with_users(["alice", "bob"]).await;
    let form = [("token", alice.credential()), ("content-type", "application/x-www-form-urlencoded")];
    let chat = say_to(&alice, "bob", "x").await;
    let send = format!(r#"{{"chatId":"{chat}","message":{{"type":"text","content":"xxxxxxxxx"}}}}"#);
    let sent = alice.raw("POST", "/chats/messages", &form, send).await;
    assert_eq!((sent.status, &sent.json["chatId"]), (StatusCode::OK, &json!(chat)), "{}", sent.json);
    let listed = alice.raw("GET", "/chats/messages", &form, format!(r#"{{"chatId":"{chat}"}}"#)).await;
    assert_eq!((listed.status, listed.json["messages"].as_array().map(Vec::len)), (StatusCode::OK, Some(2)));
    let made = alice.raw("POST", "/chats/groups", &form, r#"{"users":[]}"#).await;
    let group = made.json["id"].as_str().expect("an id").to_owned();
    let shown = alice.raw("GET", &format!("/chats/groups/{group}"), &form, "").await;
    assert_eq!((shown.status, &shown.json["users"]), (StatusCode::OK, &json!(["alice"])));
    assert_eq!(alice.raw("GET", "/chats", &form, "").await.json["chats"].as_array().map(Vec::len), Some(2));
}
