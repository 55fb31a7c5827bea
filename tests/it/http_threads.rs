//! The `threads` document over HTTP: threads, pages by message ids, search, replies, likes, access (rows B1 to B20 of the
//! acceptance list; files are in `http_files`).

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::{Answer, Caller};

const THREADS: &str = "/api/v1/chat/threads";
const MESSAGES: &str = "/api/v1/chat/messages";
const UNKNOWN: &str = "6c1d4a53-2b57-4d2e-9d0e-6f9b5f4ad0c1";

async fn with_users<const N: usize>(names: [&str; N]) -> (Server, [Caller; N]) {
    let server = Server::on_memory().await;
    let mut callers = Vec::with_capacity(N);
    for name in names {
        callers.push(Caller::user(&server, name).await);
    }
    let callers = callers.try_into().unwrap_or_else(|_| panic!("as many callers as names"));
    (server, callers)
}

/// Sends to a user; answers the thread.
async fn say_to(from: &Caller, user: &str, content: &str) -> String {
    let sent = from.ok("POST", MESSAGES, Some(json!({"to": user, "content": content}))).await;
    sent["message"]["thread"].as_str().expect("a thread").to_owned()
}

/// Sends to a thread; answers the message's id.
async fn say(from: &Caller, thread: &str, content: &str) -> String {
    let sent = from.ok("POST", MESSAGES, Some(json!({"thread": thread, "content": content}))).await;
    sent["message"]["_id"].as_str().expect("an id").to_owned()
}

async fn custom(from: &Caller, users: Value) -> String {
    let made = from.ok("POST", THREADS, Some(json!({"type": "custom", "name": "n", "users": users}))).await;
    made["_id"].as_str().expect("an id").to_owned()
}

async fn list(caller: &Caller, thread: &str, query: &str) -> Value {
    caller.ok("GET", &format!("{THREADS}/{thread}/messages{query}"), None).await
}

async fn row(caller: &Caller, thread: &str) -> Value {
    caller.ok("GET", &format!("{THREADS}/{thread}"), None).await
}

fn contents(messages: &Value) -> Vec<&str> {
    messages.as_array().expect("a bare array").iter().filter_map(|m| m["content"].as_str()).collect()
}

fn refused(answer: &Answer, status: u16, code: &str, field: Option<&str>) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.json);
    assert_eq!((&answer.json["status"], &answer.json["code"]), (&json!(status), &json!(code)), "{}", answer.json);
    assert_eq!(answer.json["field"].as_str(), field, "{}", answer.json);
    assert!(answer.json["message"].is_string() && answer.json["requestId"].is_string(), "{}", answer.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn b1_threads_are_a_bare_array_with_the_latest_activity_first() {
    let (server, [alice, bob, eve]) = with_users(["alice", "bob", "eve"]).await;
    assert_eq!(alice.ok("GET", THREADS, None).await, json!([]));
    let first = say_to(&alice, "bob", "1").await;
    let second = custom(&alice, json!(["bob"])).await;
    let ids = |rows: &Value| -> Vec<String> {
        rows.as_array().expect("an array").iter().filter_map(|row| row["_id"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(ids(&bob.ok("GET", THREADS, None).await), [second.clone(), first.clone()]);
    say(&alice, &first, "2").await;
    assert_eq!(ids(&bob.ok("GET", THREADS, None).await), [first, second]);
    assert_eq!(eve.ok("GET", THREADS, None).await, json!([]), "the caller's own only");
    // The credential is a bearer, its scheme in any case.
    let bearer = format!("bEARER {}", bob.credential());
    assert_eq!(bob.raw("GET", THREADS, &[("authorization", bearer.as_str())], "").await.status, StatusCode::OK);
    refused(&bob.raw("GET", THREADS, &[], "").await, 401, "credential_missing", None);
    refused(&Caller::with(&server, "none").call("GET", THREADS, None).await, 401, "credential_unknown", None);
    refused(&bob.call("GET", "/api/v1/chat/nope", None).await, 404, "no_such_path", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn b2_messages_are_for_members() {
    let (_server, [alice, bob, eve]) = with_users(["alice", "bob", "eve"]).await;
    let thread = say_to(&alice, "bob", "1").await;
    let path = format!("{THREADS}/{thread}/messages");
    assert_eq!(contents(&bob.ok("GET", &path, None).await), ["1"]);
    refused(&eve.call("GET", &path, None).await, 403, "not_member", None);
    refused(&eve.call("GET", &format!("{THREADS}/{UNKNOWN}/messages"), None).await, 404, "channel_not_found", None);
    refused(&eve.call("GET", &format!("{THREADS}/x/messages"), None).await, 404, "channel_not_found", None);
    refused(&eve.call("GET", &format!("{THREADS}/{thread}"), None).await, 403, "not_member", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn b3_limit_has_a_default_and_a_maximum() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let thread = say_to(&alice, "bob", "0").await;
    for i in 1..=210 {
        say(&alice, &thread, &i.to_string()).await;
    }
    let count = |messages: Value| messages.as_array().map(Vec::len);
    assert_eq!(count(list(&bob, &thread, "").await), Some(50));
    assert_eq!(count(list(&bob, &thread, "?limit=").await), Some(50));
    assert_eq!(count(list(&bob, &thread, "?limit=3").await), Some(3));
    assert_eq!(count(list(&bob, &thread, "?limit=100000").await), Some(200));
    for limit in ["0", "-1", "NaN", "1.5", "x"] {
        let answer = bob.call("GET", &format!("{THREADS}/{thread}/messages?limit={limit}"), None).await;
        refused(&answer, 400, "invalid", Some("limit"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b4_search_finds_substrings_whatever_their_case() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let thread = say_to(&alice, "bob", "İSTANBUL güzel").await;
    let mut ids = Vec::new();
    for content in ["ısparta 100%_.*", "Straße", "nothing", "istanbul again", "GÜZEL revoked", "100 abc"] {
        ids.push(say(&alice, &thread, content).await);
    }
    alice.ok("DELETE", &format!("{MESSAGES}/{}", ids[4]), None).await;
    let find = |text: &'static str, more: String| {
        let (bob, thread) = (&bob, &thread);
        async move {
            let text: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
            list(bob, thread, &format!("?search={text}{more}")).await
        }
    };
    for (text, expected) in [
        ("istanbul", vec!["İSTANBUL güzel", "istanbul again"]),
        ("ISTANBUL", vec!["İSTANBUL güzel", "istanbul again"]),
        ("ISPARTA", vec!["ısparta 100%_.*"]),
        ("strasse", vec!["Straße"]),
        ("güzel", vec!["İSTANBUL güzel"]),
        ("%_.*", vec!["ısparta 100%_.*"]),
        ("100.", vec![]),
        ("t", vec!["İSTANBUL güzel", "ısparta 100%_.*", "Straße", "nothing", "istanbul again"]),
        ("not there", vec![]),
    ] {
        assert_eq!(contents(&find(text, String::new()).await), expected, "{text}");
    }
    assert_eq!(contents(&find("istanbul", "&limit=1".into()).await), ["istanbul again"], "the latest");
    assert_eq!(contents(&find("istanbul", format!("&before={}", ids[3])).await), ["İSTANBUL güzel"]);
    assert_eq!(contents(&find("istanbul", format!("&after={}", ids[2])).await), ["istanbul again"]);
    assert_eq!(contents(&find("a", format!("&after={}&limit=1", ids[0])).await), ["Straße"], "the first after");
    assert_eq!(contents(&find("a", format!("&after={}&before={}", ids[0], ids[3])).await), ["Straße"]);
    let long = format!("{THREADS}/{thread}/messages?search={}", "x".repeat(300));
    assert_eq!(bob.call("GET", &long, None).await.status, StatusCode::BAD_REQUEST);
    assert_eq!(row(&bob, &thread).await["access"], 0, "a search is no view");
}

#[tokio::test(flavor = "multi_thread")]
async fn b5_before_gives_the_latest_before() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let thread = say_to(&alice, "bob", "0").await;
    let mut ids = Vec::new();
    for i in 1..10 {
        ids.push(say(&alice, &thread, &i.to_string()).await);
    }
    let before = |id: &str, limit: u64| format!("?before={id}&limit={limit}");
    assert_eq!(contents(&list(&bob, &thread, &before(&ids[7], 3)).await), ["5", "6", "7"], "exclusive, the nearest");
    assert_eq!(contents(&list(&bob, &thread, &before(&ids[0], 3)).await), ["0"]);
    let oldest = list(&bob, &thread, "?limit=200").await[0]["_id"].clone();
    assert_eq!(list(&bob, &thread, &before(oldest.as_str().expect("an id"), 3)).await, json!([]));
    // As a number too, and in a body.
    let number: u64 = ids[7].parse().expect("digits");
    let body = Some(json!({"before": number, "limit": 1}));
    let listed = bob.ok("GET", &format!("{THREADS}/{thread}/messages"), body).await;
    assert_eq!(contents(&listed), ["7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b6_after_gives_the_first_after_and_foreign_ids_are_refused() {
    let (_server, [alice, bob, _carol]) = with_users(["alice", "bob", "carol"]).await;
    let thread = say_to(&alice, "bob", "0").await;
    let mut ids = Vec::new();
    for i in 1..10 {
        ids.push(say(&alice, &thread, &i.to_string()).await);
    }
    let after = |id: &str, more: &str| format!("?after={id}{more}");
    assert_eq!(contents(&list(&bob, &thread, &after(&ids[1], "&limit=3")).await), ["3", "4", "5"], "the nearest");
    assert_eq!(list(&bob, &thread, &after(&ids[8], "")).await, json!([]));
    let between = after(&ids[1], &format!("&before={}", ids[5]));
    assert_eq!(contents(&list(&bob, &thread, &between).await), ["3", "4", "5"], "the open interval");
    assert_eq!(contents(&list(&bob, &thread, &format!("{between}&limit=2")).await), ["3", "4"], "its first");
    assert_eq!(list(&bob, &thread, &after(&ids[5], &format!("&before={}", ids[1]))).await, json!([]));

    let group = custom(&alice, json!(["bob"])).await;
    let elsewhere = say(&alice, &group, "x").await;
    let secret = say_to(&alice, "carol", "x").await;
    let secret = say(&alice, &secret, "y").await;
    for field in ["before", "after"] {
        let ask = |id: &str| format!("{THREADS}/{thread}/messages?{field}={id}");
        refused(&bob.call("GET", &ask("5"), None).await, 404, "not_found", None);
        refused(&bob.call("GET", &ask("abc"), None).await, 400, "invalid", Some(field));
        refused(&bob.call("GET", &ask(&elsewhere), None).await, 400, "invalid", Some(field));
        refused(&bob.call("GET", &ask(&secret), None).await, 404, "not_found", None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b7_messages_are_ascending_in_every_case() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let thread = say_to(&alice, "bob", "x0").await;
    let mut ids = Vec::new();
    for i in 1..9 {
        ids.push(say(&alice, &thread, &format!("x{i}")).await);
    }
    for query in [String::new(), format!("?before={}", ids[6]), format!("?after={}", ids[1]), "?search=x".into()] {
        let listed = list(&bob, &thread, &query).await;
        let times: Vec<u64> =
            listed.as_array().expect("messages").iter().filter_map(|m| m["_id"].as_str()?.parse().ok()).collect();
        assert!(times.len() > 3 && times.is_sorted(), "{query}: {listed}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b8_a_send_has_a_target_and_something_to_say() {
    let (_server, [alice, _bob]) = with_users(["alice", "bob"]).await;
    for (body, field) in [
        (json!({"content": "x"}), "thread"),
        (json!({"to": "bob"}), "content"),
        (json!({"to": "bob", "content": ""}), "content"),
        (json!({"to": "bob", "content": null, "files": []}), "content"),
        (json!({"to": "bob", "content": 5}), "content"),
        (json!({"to": 5, "content": "x"}), "to"),
        (json!({"to": "bob", "content": "x", "files": ["no id"]}), "files[0]"),
        (json!({}), "content"),
    ] {
        refused(&alice.call("POST", MESSAGES, Some(body)).await, 400, "invalid", Some(field));
    }
    assert_eq!(alice.ok("GET", THREADS, None).await, json!([]), "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn b9_the_first_message_to_a_user_makes_the_thread() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let first = alice.ok("POST", MESSAGES, Some(json!({"to": "bob", "content": "1"}))).await;
    let thread = &first["thread"];
    assert_eq!((&thread["type"], &thread["_id"]), (&json!("personal"), &first["message"]["thread"]));
    assert_eq!(thread["lastMessage"], first["message"]);
    for (caller, to) in [(&alice, "bob"), (&bob, "alice")] {
        let sent = caller.ok("POST", MESSAGES, Some(json!({"to": to, "content": "2"}))).await;
        assert_eq!((sent.get("thread"), &sent["message"]["thread"]), (None, &thread["_id"]), "{sent}");
    }
    // A group's first message makes no thread: it was there.
    let group = custom(&alice, json!(["bob"])).await;
    let sent = alice.ok("POST", MESSAGES, Some(json!({"thread": group, "content": "x"}))).await;
    assert_eq!(sent.get("thread"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn b10_a_send_answers_the_message_itself() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let thread = say_to(&alice, "bob", "1").await;
    let sent = alice.ok("POST", MESSAGES, Some(json!({"thread": thread, "content": "2"}))).await;
    assert_eq!(sent["message"], list(&bob, &thread, "?limit=1").await[0], "as everybody sees it");
    // A repeat gets the first outcome, as it has become.
    let headers = [("token", alice.credential()), ("idempotency-key", "k")];
    let body = json!({"to": "bob", "content": "once"}).to_string();
    let first = alice.raw("POST", MESSAGES, &headers, body.clone()).await;
    let again = alice.raw("POST", MESSAGES, &headers, body).await;
    assert_eq!((again.status, &again.json), (StatusCode::OK, &first.json));
    let other = alice.raw("POST", MESSAGES, &headers, r#"{"to":"bob","content":"twice"}"#).await;
    refused(&other, 409, "client_msg_no_conflict", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn b11_thread_and_to_must_agree() {
    let (_server, [alice, _bob, _carol]) = with_users(["alice", "bob", "carol"]).await;
    let thread = say_to(&alice, "bob", "1").await;
    let send = |to: &'static str| {
        let (alice, thread) = (&alice, &thread);
        async move { alice.call("POST", MESSAGES, Some(json!({"thread": thread, "to": to, "content": "x"}))).await }
    };
    assert_eq!(send("bob").await.status, StatusCode::OK);
    let clash = send("carol").await;
    assert_eq!(clash.status, StatusCode::BAD_REQUEST);
    let said = clash.json["message"].as_str().unwrap_or_default();
    assert!(said.contains("thread") && said.contains("to"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b12_replies_stay_in_their_thread() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let thread = say_to(&alice, "bob", "1").await;
    let first = list(&bob, &thread, "").await[0].clone();
    assert_eq!(first["replyTo"], Value::Null);
    let reply = |to: &Value, thread: &str| Some(json!({"thread": thread, "content": "yes", "replyTo": to}));
    let sent = bob.ok("POST", MESSAGES, reply(&first["_id"], &thread)).await;
    assert_eq!(sent["message"]["replyTo"], first["_id"]);
    let group = custom(&alice, json!(["bob"])).await;
    let elsewhere = bob.call("POST", MESSAGES, reply(&first["_id"], &group)).await;
    assert_eq!(elsewhere.status, StatusCode::BAD_REQUEST, "{}", elsewhere.json);
    let unknown = bob.call("POST", MESSAGES, reply(&json!("5"), &thread)).await;
    assert!(matches!(unknown.status.as_u16(), 400 | 404), "{}", unknown.json);
    // A reply to what was taken back is fine, and shows what is left of it.
    let path = format!("{MESSAGES}/{}", first["_id"].as_str().expect("an id"));
    alice.ok("DELETE", &path, None).await;
    let sent = bob.ok("POST", MESSAGES, reply(&first["_id"], &thread)).await;
    assert_eq!(sent["message"]["replyTo"], first["_id"]);
    let gone = bob.ok("GET", &path, None).await;
    assert_eq!((&gone["content"], &gone["state"]), (&json!(""), &json!("revoked")));
}

#[tokio::test(flavor = "multi_thread")]
async fn b14_threads_of_all_three_types_can_be_made() {
    let (server, [alice, bob, carol]) = with_users(["alice", "bob", "carol"]).await;
    let root = Caller::root(&server);
    let project = json!({"type": "group", "group": "project-1", "users": ["alice", "bob"], "name": "P1"});
    refused(&alice.call("POST", THREADS, Some(project.clone())).await, 403, "forbidden", None);
    let made = root.done(THREADS, project.clone()).await;
    assert_eq!((&made["type"], &made["group"], &made["name"]), (&json!("group"), &json!("project-1"), &json!("P1")));
    assert_eq!(root.done(THREADS, project).await["_id"], made["_id"], "one thread per project");
    let id = made["_id"].as_str().expect("an id");
    assert_eq!(row(&bob, id).await["group"], "project-1");

    // A back end keeps its members, a member may leave, an admin adds and removes.
    let users = format!("{THREADS}/{id}/users");
    let members = root.done(&users, json!({"users": "carol"})).await;
    assert_eq!(members["users"], json!(["alice", "bob", "carol"]));
    say(&carol, id, "hello").await;
    let left = root.ok("DELETE", &format!("{users}/bob"), None).await;
    assert_eq!(left["users"], json!(["alice", "carol"]));
    refused(&bob.call("GET", &format!("{THREADS}/{id}/messages"), None).await, 403, "not_member", None);

    let mine = custom(&alice, json!(["bob"])).await;
    let path = format!("{THREADS}/{mine}");
    refused(&bob.call("PATCH", &path, Some(json!({"name": "x"}))).await, 403, "forbidden", None);
    alice.ok("PATCH", &path, Some(json!({"name": "renamed"}))).await;
    assert_eq!(row(&bob, &mine).await["name"], "renamed");
    alice.ok("POST", &format!("{path}/users"), Some(json!({"users": ["carol"]}))).await;
    refused(&bob.call("DELETE", &format!("{path}/users/carol"), None).await, 403, "forbidden", None);
    bob.ok("DELETE", &format!("{path}/users/bob"), None).await;
    assert_eq!(row(&alice, &mine).await["users"], json!(["alice", "carol"]));
    refused(&bob.call("GET", &path, None).await, 403, "not_member", None);

    for (body, field) in [
        (json!({"type": "custom", "users": ["bob"]}), "name"),
        (json!({"type": "custom", "name": "n", "group": "g"}), "group"),
        (json!({"type": "group"}), "group"),
        (json!({"type": "personal", "users": ["bob"]}), "type"),
        (json!({"type": "room", "name": "n"}), "type"),
        (json!({"name": "n", "users": ["a@b"]}), "users[0]"),
    ] {
        refused(&alice.call("POST", THREADS, Some(body)).await, 400, "invalid", Some(field));
    }
    let unknown = Some(json!({"name": "n", "users": ["nobody"]}));
    refused(&alice.call("POST", THREADS, unknown).await, 404, "not_found", None);
    let personal = say_to(&alice, "bob", "x").await;
    let add = Some(json!({"users": ["carol"]}));
    refused(&alice.call("POST", &format!("{THREADS}/{personal}/users"), add).await, 400, "invalid", Some("threadId"));
}

#[tokio::test(flavor = "multi_thread")]
async fn b15_a_thread_has_every_field_of_the_document() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let personal = say_to(&alice, "bob", "1").await;
    let thread = row(&bob, &personal).await;
    let last = thread["lastMessage"].clone();
    let mut users = thread["users"].as_array().expect("users").clone();
    users.sort_by_key(ToString::to_string);
    assert_eq!(users, [json!("alice"), json!("bob")]);
    assert_eq!(last["content"], "1");
    assert_eq!(thread["activity"], last["createdAt"], "Unix milliseconds");
    assert!(thread["createdAt"].as_u64().is_some_and(|at| at > 1_600_000_000_000 && at < 100_000_000_000_000));
    let expected = json!({
        "_id": personal, "type": "personal", "users": thread["users"], "activity": thread["activity"], "access": 0,
        "lastMessage": last, "newActivityCount": 1, "createdAt": thread["createdAt"],
    });
    assert_eq!(thread, expected);
    let custom = custom(&alice, json!(["bob"])).await;
    let thread = row(&bob, &custom).await;
    assert_eq!((&thread["type"], &thread["name"], thread.get("group")), (&json!("custom"), &json!("n"), None));
    assert_eq!(thread["activity"], thread["createdAt"], "nothing was sent");
    assert_eq!(bob.ok("GET", THREADS, None).await[0], thread, "the list has the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn b16_access_is_when_the_caller_last_viewed() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let thread = say_to(&alice, "bob", "1").await;
    let second = say(&alice, &thread, "2").await;
    let access = |caller: &'static str| {
        let (alice, bob, thread) = (&alice, &bob, &thread);
        async move {
            let row = row(if caller == "alice" { alice } else { bob }, thread).await;
            (row["access"].as_u64().expect("a number"), row["newActivityCount"].as_u64().expect("a number"))
        }
    };
    let sent = row(&bob, &thread).await["lastMessage"]["createdAt"].as_u64().expect("a time");
    assert_eq!(access("alice").await, (sent, 0), "sending is viewing");
    assert_eq!(access("bob").await, (0, 2), "never viewed; to show a thread is no view");
    list(&bob, &thread, &format!("?before={second}")).await;
    list(&bob, &thread, "?search=1").await;
    assert_eq!(access("bob").await, (0, 2), "no page with the last message");
    list(&bob, &thread, "?limit=1").await;
    let (viewed, unread) = access("bob").await;
    assert!(viewed >= sent && unread == 0, "{viewed} {sent} {unread}");
    list(&bob, &thread, "").await;
    assert_eq!(access("bob").await.0, viewed, "a poll changes nothing");

    let third = say(&alice, &thread, "3").await;
    say(&alice, &thread, "4").await;
    list(&bob, &thread, &format!("?after={second}&limit=1")).await;
    assert_eq!(access("bob").await.1, 2, "the page ends before the last");
    list(&bob, &thread, &format!("?after={third}")).await;
    assert_eq!(access("bob").await.1, 0, "the page behind `after` holds the last");
    say(&alice, &thread, "5").await;
    let marked = bob.ok("POST", &format!("{THREADS}/{thread}/access"), None).await;
    assert!(marked["newActivityCount"] == 0 && marked["access"].as_u64() > Some(viewed), "{marked}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b17_new_activity_is_the_one_unread() {
    let (server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let thread = say_to(&alice, "bob", "1").await;
    let root = Caller::root(&server);
    say(&bob, &thread, "own").await;
    assert_eq!(row(&bob, &thread).await["newActivityCount"], 0, "one's own are not new");
    say(&alice, &thread, "2").await;
    say(&alice, &thread, "3").await;
    let check = |expected: u64| {
        let (root, bob, thread) = (&root, &bob, &thread);
        async move {
            assert_eq!(row(bob, thread).await["newActivityCount"], expected);
            let rows = root.done("/conversation/sync", json!({"uid": "bob"})).await;
            assert_eq!(rows[0]["unread"], expected, "WuKongIM's unread");
            assert_eq!(bob.ok("GET", "/chats", None).await["chats"][0]["unRead"], expected, "the chats' unRead");
        }
    };
    check(2).await;
    let set = json!({"uid": "bob", "channel_id": "alice", "channel_type": 1, "unread": 1});
    root.done("/conversations/setUnread", set).await;
    check(1).await;
    list(&bob, &thread, "").await;
    check(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b18_a_message_has_every_field_and_users_like_or_dislike_it() {
    let (_server, [alice, bob, eve]) = with_users(["alice", "bob", "eve"]).await;
    let thread = say_to(&alice, "bob", "1").await;
    let message = list(&bob, &thread, "").await[0].clone();
    let id = message["_id"].as_str().expect("an id").to_owned();
    let expected = json!({
        "_id": id, "thread": thread, "from": "alice", "content": "1", "files": [], "likes": [], "dislikes": [],
        "replyTo": null, "createdAt": message["createdAt"],
    });
    assert_eq!(message, expected);
    let call = |caller: &'static str, method: &'static str, what: &'static str| {
        let (alice, bob, id) = (&alice, &bob, &id);
        async move {
            let caller = if caller == "alice" { alice } else { bob };
            let changed = caller.ok(method, &format!("{MESSAGES}/{id}/{what}"), None).await;
            (changed["message"]["likes"].clone(), changed["message"]["dislikes"].clone())
        }
    };
    assert_eq!(call("bob", "PUT", "like").await, (json!(["bob"]), json!([])));
    assert_eq!(call("bob", "PUT", "like").await, (json!(["bob"]), json!([])), "again changes nothing");
    assert_eq!(call("alice", "POST", "like").await, (json!(["bob", "alice"]), json!([])), "in the order of liking");
    assert_eq!(call("bob", "DELETE", "dislike").await, (json!(["bob", "alice"]), json!([])), "there was none");
    assert_eq!(call("bob", "PUT", "dislike").await, (json!(["alice"]), json!(["bob"])), "never in both");
    assert_eq!(call("bob", "POST", "dislike").await, (json!(["alice"]), json!(["bob"])));
    assert_eq!(call("bob", "DELETE", "dislike").await, (json!(["alice"]), json!([])));
    assert_eq!(call("alice", "DELETE", "like").await, (json!([]), json!([])));
    refused(&eve.call("PUT", &format!("{MESSAGES}/{id}/like"), None).await, 404, "not_found", None);
    refused(&bob.call("PUT", &format!("{MESSAGES}/5/like"), None).await, 404, "not_found", None);
    refused(&bob.call("PUT", &format!("{MESSAGES}/x/like"), None).await, 404, "not_found", None);

    let path = format!("{MESSAGES}/{id}");
    let edited = alice.ok("PATCH", &path, Some(json!({"content": "better"}))).await["message"].clone();
    assert_eq!((&edited["content"], edited["editedAt"].is_u64()), (&json!("better"), true));
    refused(&bob.call("PATCH", &path, Some(json!({"content": "mine"}))).await, 403, "forbidden", None);
    refused(&bob.call("DELETE", &path, None).await, 403, "forbidden", None);
    bob.ok("PUT", &format!("{path}/like"), None).await;
    let gone = alice.ok("DELETE", &path, None).await["message"].clone();
    assert_eq!((&gone["state"], &gone["content"], &gone["likes"]), (&json!("revoked"), &json!(""), &json!([])));
    let late = bob.call("PUT", &format!("{path}/like"), None).await;
    refused(&late, 404, "message_gone", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn b19_an_empty_thread_has_no_last_message() {
    let (_server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let thread = custom(&alice, json!(["bob"])).await;
    assert_eq!(row(&bob, &thread).await["lastMessage"], Value::Null);
    assert_eq!(list(&bob, &thread, "").await, json!([]));
    assert_eq!(list(&bob, &thread, "?search=x").await, json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn b20_to_oneself_to_nobody_and_to_who_blocked() {
    let (server, [alice, bob]) = with_users(["alice", "bob"]).await;
    let notes = say_to(&alice, "alice", "a note").await;
    assert_eq!(row(&alice, &notes).await["newActivityCount"], 0, "a note to oneself is kept and never new");
    let nobody = alice.call("POST", MESSAGES, Some(json!({"to": "nobody", "content": "x"}))).await;
    refused(&nobody, 404, "not_found", None);
    let change = chinwag::hub::people::RelationChange { blocked: Some(true), contact: None };
    server.app.hub().put_relation(server.uid("bob"), server.uid("alice"), change).await.expect("blocked");
    let blocked = alice.call("POST", MESSAGES, Some(json!({"to": "bob", "content": "x"}))).await;
    refused(&blocked, 403, "blocked", None);
    assert_eq!(bob.ok("GET", THREADS, None).await, json!([]), "nothing was stored");
}

#[tokio::test(flavor = "multi_thread")]
async fn b13_files_of_a_message_must_be_there() {
    let (_server, [alice, _bob]) = with_users(["alice", "bob"]).await;
    let body = json!({"to": "bob", "content": "x", "files": [UNKNOWN]});
    let answer = alice.call("POST", MESSAGES, Some(body)).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.json);
}
