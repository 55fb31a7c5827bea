//! The document `relation.txt` over HTTP (rows D1 to D15 of the acceptance list): its literal call, who may call, which chat a
//! request means, what a message may say, strangers, and the routes around it.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::curl::curl;
use crate::harness::Server;
use crate::http::{Answer, Caller};

const SEND: &str = "/api/v1/message/send";
/// A token as the document prints one: a JWT whose time is over.
const EXPIRED: &str = "eyJhbG1ciOiJFUzI1NiJ9.eyJqdGkiOiI0MzdiN2EzZDEwMGY0ODVkOWVhMWUzZmZlOWE1NmEyZSIsImlzcyI6InJlbGF0aW9ubGFicy5haSIsImlhdCI6MTY2NTIxNTUzNSwic3ViIjoiZGhreXEtc3FhYWEtYWFhYWotc2d6M3EtY2FpIiwiZXhwIjoxNjY1ODIwMzM1fQ.rj7KKuIcgmvaIwZ63YHnXQ4jvvI-eR2Wo7k3YEyz1Muxo8j5ezCowKDpcW0u9zIuHPFqwD0-1XPWdPLR1d1HLFw";

/// A server with an application, and some users.
struct World {
    server: Server,
    root: Caller,
    app_key: String,
}

impl World {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut chinwag::config::Config)) -> Self {
        let server = Server::on_memory_with(change).await;
        let root = Caller::root(&server);
        // The least a key can be: it names an application and nothing more.
        let app_key = key(&root, json!({"name": "app", "scopes": ["read"]})).await;
        Self { server, root, app_key }
    }

    /// A user with a token and the application's key.
    async fn user(&self, uid: &str) -> Caller {
        let token = self.server.user(uid).await;
        self.bearer(&token)
    }

    fn bearer(&self, credential: &str) -> Caller {
        Caller::with(&self.server, credential).header("ApiKey", &self.app_key)
    }

    /// The root key as bearer.
    fn back_end(&self) -> Caller {
        let key = std::fs::read_to_string(self.server.config.data_dir.join("root.key")).expect("the root key");
        self.bearer(key.trim())
    }

    /// A group; its id as the dialect writes it.
    async fn group(&self, owner: &Caller, members: &[&str]) -> String {
        let made = owner.done("/api/v1/groups/create", json!({"name": "g", "members": members})).await;
        made["data"]["channelUuid"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.server.app.http_addr())
    }
}

async fn key(root: &Caller, body: Value) -> String {
    root.done("/admin/keys", body).await["key"].as_str().expect("a key").to_owned()
}

/// The code of an answer; HTTP says 200 whatever it is.
async fn code(caller: &Caller, path: &str, body: Value) -> String {
    let answer = caller.post(path, body).await;
    assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json);
    code_of(&answer)
}

fn code_of(answer: &Answer) -> String {
    let code = answer.json["code"].as_str().unwrap_or_else(|| panic!("the code is a text: {}", answer.json));
    assert_eq!(code == "0", !answer.json["data"].is_null(), "data comes with success only: {}", answer.json);
    code.to_owned()
}

/// What must succeed; its data.
async fn data(caller: &Caller, path: &str, body: Value) -> Value {
    let answer = caller.post(path, body).await;
    assert_eq!((code_of(&answer).as_str(), &answer.json["desc"]), ("0", &json!("success")), "{path}: {}", answer.json);
    answer.json["data"].clone()
}

fn to(uid: &str, content: &str) -> Value {
    json!({"type": "text", "toRelationId": uid, "content": content})
}

async fn list(caller: &Caller, chat: &str) -> Vec<Value> {
    let page = data(caller, "/api/v1/message/list", json!({"channelUuid": chat})).await;
    page["messages"].as_array().expect("messages").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn d1_the_documents_literal_call_sends() {
    let world = World::new().await;
    let (alice, _) = (world.user("dhkyq-sqaaa-aaaaj-sgz3q-cai").await, world.user("1u4dp-6qaaa-aaaaj-aag4q-cai").await);
    let chat = world.group(&alice, &["1u4dp-6qaaa-aaaaj-aag4q-cai"]).await;
    let quoted = data(&alice, SEND, json!({"channelUuid": chat, "content": "first"})).await["id"].clone();
    // As printed, with host, ids and tokens replaced; `POST` stands without -X, and the scheme is `bearer`.
    let line = r#"curl POST 'https://api.relationlabs.ai/api/v1/message/send' \
--header 'ApiKey: <ApiKey>' \
--header 'Authorization: bearer <token>' \
--header 'Content-Type: application/json' \
--data-raw '{
    "type": "TEXT",
    "channelUuid": "4f326124812c41448bc587bf6b2eaf42",
    "toRelationId": null,
    "content": "hello",
    "sendUuid": "1u4dp-6qaaa-aaaaj-aag4q-cai-87b4c789ee444d28960dfdd9b208d1ef-1665371575954-35534417409750164",
    "quoteId":1579047130798100481,
    "mentionedUser":["1u4dp-6qaaa-aaaaj-aag4q-cai"]
}'"#
    .replace("https://api.relationlabs.ai/api/v1/message/send", &world.url(SEND))
    .replace("<ApiKey>", &world.app_key)
    .replace("<token>", "token-of-dhkyq-sqaaa-aaaaj-sgz3q-cai")
    .replace("4f326124812c41448bc587bf6b2eaf42", &chat)
    .replace("1579047130798100481", quoted.as_str().expect("an id"));
    let (status, answer) = curl(&line).await;
    assert_eq!((status, &answer["code"], &answer["desc"]), (200, &json!("0"), &json!("success")), "{answer}");
    assert_eq!(answer["data"]["channelUuid"], chat);
    let messages = list(&alice, &chat).await;
    let sent = &messages[0];
    assert_eq!(
        (&sent["id"], &sent["type"], &sent["content"]),
        (&answer["data"]["id"], &json!("text"), &json!("hello"))
    );
    assert_eq!((&sent["quoteId"], &sent["mentionedUser"]), (&quoted, &json!(["1u4dp-6qaaa-aaaaj-aag4q-cai"])));
    // The path as the document's head has it, without a slash, is the same path to every client.
    assert_eq!(code(&alice, "/api/v1/message/send", json!({"channelUuid": chat, "content": "x"})).await, "0");
}

#[tokio::test(flavor = "multi_thread")]
async fn d2_the_application_key_is_asked_first_and_opens_nothing() {
    let world = World::new().await;
    let token = world.server.user("alice").await;
    world.server.user("bob").await;
    for key in [None, Some(""), Some("cw_nobody_has_this"), Some("ключ")] {
        let caller = Caller::with(&world.server, &token);
        let caller = match key {
            Some(key) => caller.header("ApiKey", key),
            None => caller,
        };
        assert_eq!(code(&caller, SEND, to("bob", "x")).await, "10102", "{key:?}");
    }
    // Missing beats everything else that is wrong.
    assert_eq!(code(&Caller::with(&world.server, "nobody"), SEND, json!({})).await, "10102");
    for scopes in ["read", "send", "admin"] {
        let made = world.root.done("/admin/keys", json!({"name": scopes, "scopes": [scopes]})).await;
        let app =
            |bearer: &str| Caller::with(&world.server, bearer).header("ApiKey", made["key"].as_str().expect("key"));
        assert_eq!(code(&app(&token), SEND, to("bob", "x")).await, "0", "{scopes}");
        // However powerful, it does not stand in for a bearer.
        assert_eq!(code(&app("nobody"), SEND, to("bob", "x")).await, "10101", "{scopes}");
        let path = format!("/admin/keys/{}/rotate", made["key_id"].as_str().expect("an id"));
        let rotated = world.root.done(&path, json!({})).await;
        assert_eq!(code(&app(&token), SEND, to("bob", "x")).await, "10102", "{scopes}: rotated away");
        let anew = Caller::with(&world.server, &token).header("apikey", rotated["key"].as_str().expect("a key"));
        assert_eq!(code(&anew, SEND, to("bob", "x")).await, "0", "{scopes}");
        world.root.done(&path.replace("rotate", "revoke"), json!({})).await;
        assert_eq!(code(&anew, SEND, to("bob", "x")).await, "10102", "{scopes}: revoked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_the_bearer_comes_from_auth_and_says_why_it_fails() {
    let world = World::new().await;
    world.server.user("bob").await;
    let back_end = world.back_end();
    let authed = data(&back_end, "/api/v1/auth", json!({"relationId": "alice", "deviceFlag": 1})).await;
    let token = authed["unifiedAuthToken"].as_str().expect("a token").to_owned();
    assert_eq!((&authed["relationId"], &authed["created"]), (&json!("alice"), &json!(true)));
    let client = reqwest::Client::new();
    for scheme in ["Bearer", "bearer", "BEARER"] {
        let request = client.post(world.url(SEND)).header("ApiKey", &world.app_key);
        let answer = request.header("authorization", format!("{scheme} {token}")).json(&to("bob", scheme)).send().await;
        let json: Value = answer.expect("an answer").json().await.expect("JSON");
        assert_eq!(json["code"], "0", "{scheme}");
    }
    for (bearer, expected) in [(EXPIRED, "10100"), ("a.b.c", "10101"), ("nobody", "10101"), ("", "10101")] {
        assert_eq!(code(&world.bearer(bearer), SEND, to("bob", "x")).await, expected, "{bearer}");
    }
    // A token's own facts, for its holder only.
    let alice = world.bearer(&token);
    let own = data(&alice, "/api/v1/auth", json!({})).await;
    assert_eq!(own, json!({"unifiedAuthToken": token, "relationId": "alice", "deviceFlag": 1, "created": false}));
    assert_eq!(code(&alice, "/api/v1/auth", json!({"relationId": "bob"})).await, "10103");
    let sender = key(&world.root, json!({"name": "s", "scopes": ["send", "read"]})).await;
    assert_eq!(code(&world.bearer(&sender), "/api/v1/auth", json!({"relationId": "bob"})).await, "10103");
    assert_eq!(code(&back_end, "/api/v1/auth", json!({})).await, "10112");
    assert_eq!(code(&back_end, "/api/v1/auth", json!({"relationId": "a@b"})).await, "10112");
    // A new token of that kind of device replaces the old one.
    data(&back_end, "/api/v1/auth", json!({"relationId": "alice", "deviceFlag": 1})).await;
    assert_eq!(code(&alice, SEND, to("bob", "x")).await, "10101");
}

#[tokio::test(flavor = "multi_thread")]
async fn d3_application_and_bearer_belong_together() {
    let world = World::new().await;
    let (acme_app, other_app) = (
        key(&world.root, json!({"name": "a", "scopes": ["admin"], "namespace": "acme"})).await,
        key(&world.root, json!({"name": "o", "scopes": ["admin"], "namespace": "other"})).await,
    );
    let of = |app: &str, bearer: &str| Caller::with(&world.server, bearer).header("ApiKey", app);
    let mint = |uid: &'static str| {
        let caller = of(&acme_app, &acme_app);
        async move {
            let authed = data(&caller, "/api/v1/auth", json!({"relationId": uid})).await;
            authed["unifiedAuthToken"].as_str().expect("a token").to_owned()
        }
    };
    let (alice, bob) = (mint("alice").await, mint("bob").await);
    let sent = data(&of(&acme_app, &alice), SEND, to("bob", "among tenants")).await;
    assert_eq!(code(&of(&other_app, &alice), SEND, to("bob", "x")).await, "10101");
    let outsider = world.server.user("bob").await;
    assert_eq!(code(&of(&acme_app, &outsider), SEND, to("alice", "x")).await, "10101");
    // Bare ids on the way out; and the other bob sees nothing of it.
    let messages = list(&of(&acme_app, &bob), sent["channelUuid"].as_str().expect("a chat")).await;
    assert_eq!((&messages[0]["fromRelationId"], messages.len()), (&json!("alice"), 1));
    let chat = json!({"channelUuid": sent["channelUuid"]});
    assert_eq!(code(&world.bearer(&outsider), "/api/v1/message/list", chat).await, "13108");
    let chats = data(&of(&acme_app, &bob), "/api/v1/chats/list", json!({})).await;
    assert_eq!(chats["chats"][0]["toRelationId"], "alice");
    let group = data(&of(&acme_app, &alice), "/api/v1/groups/create", json!({"members": ["bob"]})).await;
    assert_eq!(group["members"][1], json!({"relationId": "bob", "role": "member"}));
    let sent = json!({"channelUuid": group["channelUuid"], "content": "x"});
    assert_eq!(code(&of(&acme_app, &bob), SEND, sent.clone()).await, "0");
    assert_eq!(code(&world.bearer(&outsider), SEND, sent.clone()).await, "13108");
    assert_eq!(code(&of(&other_app, &other_app), SEND, sent).await, "13108");
}

#[tokio::test(flavor = "multi_thread")]
async fn d4_one_of_two_targets_is_needed_and_both_must_agree() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let carol = world.user("carol").await;
    for neither in [json!({"content": "x"}), json!({"channelUuid": null, "toRelationId": "", "content": "x"})] {
        let answer = alice.post(SEND, neither).await;
        assert_eq!((code_of(&answer).as_str(), &answer.json["field"]), ("10112", &json!("channelUuid")));
    }
    // One chat, whoever begins, and by either name.
    let chat = data(&alice, SEND, to("bob", "x")).await["channelUuid"].as_str().expect("a chat").to_owned();
    assert_eq!(data(&bob, SEND, to("alice", "y")).await["channelUuid"], chat);
    let group = world.group(&alice, &["bob"]).await;
    for (channel, peer, expected) in
        [(&chat, "bob", "0"), (&group, "bob", "0"), (&group, "carol", "10112"), (&chat, "carol", "10112")]
    {
        let both = json!({"channelUuid": channel, "toRelationId": peer, "content": "x"});
        let answer = alice.post(SEND, both).await;
        assert_eq!(code_of(&answer), expected, "{channel} {peer}");
        if expected == "0" {
            assert_eq!(&answer.json["data"]["channelUuid"], channel, "channelUuid wins");
        } else {
            assert_eq!(answer.json["field"], "toRelationId");
        }
    }
    // Every spelling of a uuid; anything else is said to be none.
    let spelled = uuid::Uuid::try_parse(&chat).expect("a uuid");
    for text in
        [spelled.simple().to_string(), spelled.hyphenated().to_string(), spelled.simple().to_string().to_uppercase()]
    {
        assert_eq!(data(&alice, SEND, json!({"channelUuid": text, "content": "x"})).await["channelUuid"], chat);
    }
    assert_eq!(code(&alice, SEND, json!({"channelUuid": "nonsense", "content": "x"})).await, "10112");
    // The pair's chat is known by both names before it is begun.
    let begun = data(&alice, SEND, to("carol", "first")).await["channelUuid"].clone();
    assert_eq!(list(&carol, begun.as_str().expect("a chat")).await.len(), 1);
    let unknown = alice.post(SEND, to("never-seen", "x")).await;
    assert_eq!(code_of(&unknown), "10113", "{}", unknown.json);
}

#[tokio::test(flavor = "multi_thread")]
async fn d5_types_are_words_in_any_case_and_sys_is_for_back_ends() {
    let world = World::new().await;
    let (alice, _) = (world.user("alice").await, world.user("bob").await);
    for (given, stored) in
        [("text", "text"), ("TEXT", "text"), ("Card", "card"), ("my-own.TYPE", "my-own.type"), ("", "text")]
    {
        let body = json!({"type": given, "toRelationId": "bob", "content": "x"});
        let chat = data(&alice, SEND, body).await["channelUuid"].as_str().expect("a chat").to_owned();
        assert_eq!(list(&alice, &chat).await[0]["type"], stored, "{given}");
    }
    for sys in ["sys", "SYS", " Sys "] {
        assert_eq!(code(&alice, SEND, json!({"type": sys, "toRelationId": "bob", "content": "x"})).await, "10103");
    }
    for bad in ["x".repeat(65), "a\u{7}b".to_owned()] {
        assert_eq!(code(&alice, SEND, json!({"type": bad, "toRelationId": "bob", "content": "x"})).await, "10112");
    }
    assert_eq!(code(&alice, SEND, json!({"type": 1, "toRelationId": "bob", "content": "x"})).await, "10112");
    let group = world.group(&alice, &["bob"]).await;
    let sys = json!({"type": "SYS", "channelUuid": group, "content": "bob joined"});
    data(&world.back_end(), SEND, sys.clone()).await;
    let shown = &list(&alice, &group).await[0];
    assert_eq!((&shown["type"], &shown["fromRelationId"]), (&json!("sys"), &json!("____system")));
    let reader = key(&world.root, json!({"name": "r", "scopes": ["read"]})).await;
    assert_eq!(code(&world.bearer(&reader), SEND, sys).await, "10103");
}

#[tokio::test(flavor = "multi_thread")]
async fn d6_content_is_needed_and_bounded() {
    let world = World::with(|config| config.limits.payload_bytes_max = 1024).await;
    let (alice, _) = (world.user("alice").await, world.user("bob").await);
    for body in [json!({"toRelationId": "bob"}), to("bob", ""), json!({"toRelationId": "bob", "content": null})] {
        let answer = alice.post(SEND, body).await;
        assert_eq!((code_of(&answer).as_str(), &answer.json["field"]), ("10112", &json!("content")));
    }
    assert_eq!(code(&alice, SEND, json!({"toRelationId": "bob", "content": {"a": 1}})).await, "10112");
    let large = alice.post(SEND, to("bob", &"x".repeat(1024))).await;
    assert_eq!((code_of(&large).as_str(), &large.json["field"]), ("10112", &json!("content")));
    assert!(large.json["desc"].as_str().is_some_and(|desc| desc.contains("1024")), "{}", large.json);
    let chat =
        data(&alice, SEND, to("bob", "🦀 é \u{202e} x")).await["channelUuid"].as_str().expect("a chat").to_owned();
    assert_eq!(list(&alice, &chat).await[0]["content"], "🦀 é \u{202e} x");
}

#[tokio::test(flavor = "multi_thread")]
async fn d7_send_uuid_is_the_one_idempotency_space() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let named = |name: &str, content: &str| json!({"toRelationId": "bob", "content": content, "sendUuid": name});
    let first = data(&alice, SEND, named("u-1", "x")).await;
    assert_eq!(data(&alice, SEND, named("u-1", "x")).await, first);
    assert_eq!(code(&alice, SEND, named("u-1", "other")).await, "13111");
    // By the header, and both: the same name.
    let by_header = alice.header("Idempotency-Key", "u-1");
    assert_eq!(data(&by_header, SEND, to("bob", "x")).await, first);
    assert_eq!(data(&by_header, SEND, named("u-1", "x")).await, first);
    assert_eq!(code(&by_header, SEND, named("u-2", "x")).await, "10112");
    // Another sender's name is another name; and without one every send is a message.
    let other = json!({"toRelationId": "alice", "content": "x", "sendUuid": "u-1"});
    assert_ne!(data(&bob, SEND, other).await["id"], first["id"]);
    assert_ne!(data(&bob, SEND, to("alice", "x")).await["id"], data(&bob, SEND, to("alice", "x")).await["id"]);
    // WuKongIM's name for it is this one.
    let history = json!({"login_uid": "alice", "channel_id": "bob", "channel_type": 1});
    let page = world.root.done("/channel/messagesync", history).await;
    let stored = page["messages"].as_array().expect("messages").iter().find(|m| m["client_msg_no"] == "u-1");
    let stored = stored.expect("the message");
    assert_eq!(stored["message_idstr"], first["id"]);
    let again = json!({
        "from_uid": "alice", "channel_id": "bob", "channel_type": 1, "client_msg_no": "u-1", "payload": stored["payload"],
        "header": {"red_dot": 1},
    });
    assert_eq!(world.root.done("/message/send", again).await["message_idstr"], first["id"]);
    assert_eq!(
        code(&bob, SEND, json!({"toRelationId": "alice", "content": "x", "sendUuid": "x".repeat(129)})).await,
        "10112"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn d8_a_quote_keeps_every_digit_and_lies_in_the_same_chat() {
    let world = World::new().await;
    let (alice, _) = (world.user("alice").await, world.user("bob").await);
    world.user("carol").await;
    let first = data(&alice, SEND, to("bob", "first")).await;
    let chat = first["channelUuid"].as_str().expect("a chat").to_owned();
    let id = first["id"].as_str().expect("an id").to_owned();
    let number: u64 = id.parse().expect("digits");
    for quote in [json!(id), json!(number)] {
        data(&alice, SEND, json!({"toRelationId": "bob", "content": "y", "quoteId": quote})).await;
        assert_eq!(list(&alice, &chat).await[0]["quoteId"], json!(id));
    }
    for none in [json!(null), json!("")] {
        data(&alice, SEND, json!({"toRelationId": "bob", "content": "y", "quoteId": none})).await;
        assert_eq!(list(&alice, &chat).await[0]["quoteId"], json!(null));
    }
    let elsewhere = data(&alice, SEND, to("carol", "z")).await["id"].clone();
    let body = r#"{"toRelationId": "bob", "content": "y", "quoteId": QUOTE}"#;
    for quote in [
        elsewhere.to_string().as_str(),
        "1579047130798100481",
        "\"1579047130798100481\"",
        "1.5",
        "-1",
        "\"12x\"",
        "true",
        "99999999999999999999",
    ] {
        let body: Value = serde_json::from_str(&body.replace("QUOTE", quote)).expect("JSON");
        let answer = alice.post(SEND, body).await;
        assert_eq!((code_of(&answer).as_str(), &answer.json["field"]), ("10112", &json!("quoteId")), "{quote}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d9_mentions_count_for_who_is_a_member() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (outsider, _) = (world.user("outsider").await, world.user("carol").await);
    let chat = world.group(&alice, &["bob", "carol", "bob"]).await;
    let mentioned = json!(["bob", "bob", "outsider", "never-seen", "alice"]);
    data(&alice, SEND, json!({"channelUuid": chat, "content": "hi", "mentionedUser": mentioned})).await;
    data(&alice, SEND, json!({"channelUuid": chat, "content": "to all"})).await;
    assert_eq!(list(&bob, &chat).await[1]["mentionedUser"], json!(["bob"]));
    for (question, expected) in [
        (json!({}), json!({"unreadCount": 2, "mentionsCount": 1})),
        (json!({"channelUuid": chat}), json!({"unreadCount": 2, "mentionsCount": 1})),
    ] {
        assert_eq!(data(&bob, "/api/v1/message/unreadCount", question).await, expected);
    }
    let none = json!({"unreadCount": 0, "mentionsCount": 0});
    assert_eq!(data(&outsider, "/api/v1/message/unreadCount", json!({})).await, none);
    assert_eq!(data(&bob, "/api/v1/message/read", json!({"channelUuid": chat})).await, none);
    for bad in [json!([1]), json!(["a@b"]), json!({"a": 1})] {
        assert_eq!(
            code(&alice, SEND, json!({"channelUuid": chat, "content": "x", "mentionedUser": bad})).await,
            "10112"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d10_the_answer_is_the_documents_and_made_of_texts() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let answer = alice.post(SEND, to("bob", "x")).await.json;
    let names: Vec<&String> = answer.as_object().expect("an object").keys().collect();
    assert_eq!(names, ["code", "data", "desc"]);
    assert_eq!((&answer["code"], &answer["desc"]), (&json!("0"), &json!("success")));
    let data = answer["data"].as_object().expect("an object");
    assert_eq!(data.keys().collect::<Vec<_>>(), ["channelUuid", "id"]);
    let uuid = data["channelUuid"].as_str().expect("a text");
    assert!(uuid.len() == 32 && uuid.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{uuid}");
    assert!(data["id"].as_str().is_some_and(|id| id.parse::<u64>().is_ok_and(|id| id < 1 << 53)));
    // The group's answer and the person chat's are made alike; both sides know one chat.
    assert_eq!(bob.done(SEND, to("alice", "y")).await["data"]["channelUuid"], answer["data"]["channelUuid"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn d11_who_blocks_strangers_hears_none() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let (carol, dave) = (world.user("carol").await, world.user("dave").await);
    let group = world.group(&alice, &["bob"]).await;
    data(&bob, SEND, to("carol", "hello carol")).await;
    assert_eq!(data(&bob, "/api/v1/settings", json!({"strangers": "block"})).await, json!({"strangers": "block"}));
    assert_eq!(bob.get("/api/v1/settings").await.json["data"], json!({"strangers": "block"}));
    assert_eq!(code(&bob, "/api/v1/settings", json!({"strangers": "maybe"})).await, "10112");

    let mut socket = world.server.connect("bob").await;
    let bob = world.user("bob").await;
    let refused = alice.post(SEND, to("bob", "let me in")).await;
    assert_eq!(code_of(&refused), "13301");
    assert!(refused.json["desc"].as_str().is_some_and(|desc| desc.starts_with("block stranger messages")));
    let none = json!({"unreadCount": 0, "mentionsCount": 0});
    assert_eq!(data(&bob, "/api/v1/message/unreadCount", json!({})).await, none);
    let chats = data(&bob, "/api/v1/chats/list", json!({})).await;
    let others: Vec<_> =
        chats["chats"].as_array().expect("chats").iter().filter(|c| c["toRelationId"] == "alice").collect();
    assert!(others.is_empty(), "nothing was stored: {chats}");
    assert!(socket.pending().await.iter().all(|frame| !matches!(frame, protocol::native::ServerFrame::Deliver(_))));

    // Whom bob wrote to is no stranger, a group is not about strangers, and a contact is none.
    data(&carol, SEND, to("bob", "hi bob")).await;
    data(&alice, SEND, json!({"channelUuid": group, "content": "x"})).await;
    data(&bob, "/api/v1/contacts/add", json!({"relationId": "alice"})).await;
    data(&alice, SEND, to("bob", "now?")).await;
    data(&bob, "/api/v1/contacts/remove", json!({"relationId": "alice"})).await;
    assert_eq!(code(&alice, SEND, to("bob", "and now?")).await, "13301");
    // Who is blocked hears no more than that, also as a contact.
    data(&bob, "/api/v1/contacts/block", json!({"relationId": "carol"})).await;
    assert_eq!(code(&carol, SEND, to("bob", "x")).await, "13301");
    let users = data(&bob, "/api/v1/contacts/list", json!({})).await;
    assert_eq!(users["users"], json!([{"relationId": "carol", "contact": false, "blocked": true}]));
    data(&bob, "/api/v1/contacts/unblock", json!({"relationId": "carol"})).await;
    data(&carol, SEND, to("bob", "x")).await;

    // Quarantine: it comes as a request, and counts from when it is accepted.
    data(&bob, "/api/v1/settings", json!({"strangers": "quarantine"})).await;
    data(&bob, "/api/v1/message/read", json!({"toRelationId": "carol"})).await;
    data(&bob, "/api/v1/message/read", json!({"toRelationId": "alice"})).await;
    data(&bob, "/api/v1/message/read", json!({"channelUuid": group})).await;
    data(&dave, SEND, to("bob", "may I?")).await;
    assert_eq!(data(&bob, "/api/v1/message/unreadCount", json!({})).await, none);
    let requests = bob.get("/api/v1/requests/list").await.json["data"]["chats"].clone();
    assert_eq!((requests.as_array().map(Vec::len), &requests[0]["toRelationId"]), (Some(1), &json!("dave")));
    data(&bob, "/api/v1/requests/accept", json!({"toRelationId": "dave"})).await;
    assert_eq!(data(&bob, "/api/v1/requests/list", json!({})).await["chats"], json!([]));
    assert_eq!(data(&bob, "/api/v1/message/unreadCount", json!({})).await["unreadCount"], 1);
    data(&bob, "/api/v1/settings", json!({"strangers": "block"})).await;
    data(&dave, SEND, to("bob", "still me")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn d12_who_is_no_member_learns_nothing_else() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let carol = world.user("carol").await;
    let chat = world.group(&alice, &["carol"]).await;
    let unknown = uuid::Uuid::new_v4().simple().to_string();
    for channel in [&chat, &unknown] {
        let answer = bob.post(SEND, json!({"channelUuid": channel, "content": "x"})).await;
        assert_eq!(code_of(&answer), "13108");
        assert!(answer.json["desc"].as_str().is_some_and(|desc| desc.starts_with("Not the member of this group")));
        // Asked before the content is looked at; after the request's shape.
        assert_eq!(code(&bob, SEND, json!({"channelUuid": channel, "type": "sys"})).await, "13108");
        assert_eq!(code(&bob, SEND, json!({"channelUuid": channel, "content": 1})).await, "10112");
        for path in
            ["/api/v1/message/list", "/api/v1/message/read", "/api/v1/message/unreadCount", "/api/v1/groups/members"]
        {
            assert_eq!(code(&bob, path, json!({"channelUuid": channel})).await, "13108", "{path}");
        }
    }
    // Who was removed is none any more.
    data(&alice, "/api/v1/groups/remove", json!({"channelUuid": chat, "members": ["carol"]})).await;
    assert_eq!(code(&carol, SEND, json!({"channelUuid": chat, "content": "x"})).await, "13108");
}

#[tokio::test(flavor = "multi_thread")]
async fn d13_refusals_have_http_200_unless_the_configuration_says_otherwise() {
    for (http_errors, statuses) in [(false, [200; 6]), (true, [401, 401, 400, 403, 403, 403])] {
        let world = World::with(|config| config.relation.http_errors = http_errors).await;
        let (alice, _) = (world.user("alice").await, world.user("bob").await);
        let stranger = Caller::with(&world.server, "token-of-alice");
        let unknown = json!({"channelUuid": uuid::Uuid::new_v4().simple().to_string(), "content": "x"});
        let group = world.group(&world.user("bob").await, &[]).await;
        let exchanges = [
            (stranger.post(SEND, to("bob", "x")).await, "10102"),
            (world.bearer("nobody").post(SEND, to("bob", "x")).await, "10101"),
            (alice.post(SEND, to("bob", "")).await, "10112"),
            (alice.post(SEND, json!({"type": "sys", "toRelationId": "bob", "content": "x"})).await, "10103"),
            (alice.post(SEND, unknown).await, "13108"),
            (alice.post(SEND, json!({"channelUuid": group, "content": "x"})).await, "13108"),
        ];
        for ((answer, code), status) in exchanges.iter().zip(statuses) {
            assert_eq!((code_of(answer).as_str(), answer.status.as_u16()), (*code, status), "{}", answer.json);
            assert!(answer.json["request_id"].is_string() || answer.json["requestId"].is_string(), "{}", answer.json);
        }
        // What is no route of the API is HTTP's to say, in the same shape.
        let lost = alice.post("/api/v1/message/nonsense", json!({})).await;
        assert_eq!((lost.status, code_of(&lost).as_str()), (StatusCode::NOT_FOUND, "10113"));
        let wrong = alice.get(SEND).await;
        assert_eq!((wrong.status, code_of(&wrong).as_str()), (StatusCode::METHOD_NOT_ALLOWED, "10114"));
        assert_eq!(alice.post(SEND, to("bob", "x")).await.status, StatusCode::OK);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d14_the_line_without_x_posts_and_a_form_type_is_json() {
    let world = World::new().await;
    world.server.user("alice").await;
    world.server.user("bob").await;
    for header in ["--header 'Content-Type: application/json'", ""] {
        let line = format!(
            "curl POST '{}' --header 'ApiKey: {}' --header 'Authorization: bearer token-of-alice' {header} \
             --data-raw '{{\"type\": \"TEXT\", \"toRelationId\": \"bob\", \"content\": \"hello\"}}'",
            world.url(SEND),
            world.app_key,
        );
        let (status, answer) = curl(&line).await;
        assert_eq!((status, &answer["code"]), (200, &json!("0")), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn d15_lists_page_backwards_and_reading_counts_down() {
    let world = World::new().await;
    let (alice, bob) = (world.user("alice").await, world.user("bob").await);
    let chat = data(&alice, SEND, to("bob", "0")).await["channelUuid"].as_str().expect("a chat").to_owned();
    for n in 1..7 {
        data(&alice, SEND, to("bob", &n.to_string())).await;
    }
    let contents = |page: &Value| -> Vec<String> {
        let messages = page["messages"].as_array().expect("messages");
        messages.iter().map(|m| m["content"].as_str().expect("a text").to_owned()).collect()
    };
    let first = data(&bob, "/api/v1/message/list", json!({"toRelationId": "alice", "limit": 3})).await;
    assert_eq!((contents(&first), &first["hasMore"]), (vec!["6".into(), "5".into(), "4".into()], &json!(true)));
    let mut seen = contents(&first);
    let mut page = first.clone();
    while page["hasMore"] == true {
        let last = page["messages"].as_array().and_then(|m| m.last()).expect("a message")["id"].clone();
        page = data(&bob, "/api/v1/message/list", json!({"channelUuid": chat, "limit": 3, "beforeId": last})).await;
        seen.extend(contents(&page));
    }
    assert_eq!(seen, ["6", "5", "4", "3", "2", "1", "0"]);
    // Up to a moment, that millisecond included; by query too.
    let at = first["messages"][2]["createAt"].as_u64().expect("a moment");
    let upto = bob.get(&format!("/api/v1/message/list?channelUuid={chat}&maxCreateAt={at}&limit=100")).await.json;
    assert!(contents(&upto["data"]).contains(&"4".to_owned()), "{upto}");
    assert!(upto["data"]["messages"].as_array().expect("messages").iter().all(|m| m["createAt"].as_u64() <= Some(at)));
    let before = data(&bob, "/api/v1/message/list", json!({"channelUuid": chat, "maxCreateAt": 1})).await;
    assert_eq!((contents(&before), &before["hasMore"]), (vec![], &json!(false)));

    let count = async |caller: &Caller, body: Value| {
        data(caller, "/api/v1/message/unreadCount", body).await["unreadCount"].clone()
    };
    assert_eq!(count(&bob, json!({})).await, 7, "listing reads nothing");
    let third = &first["messages"][2]["id"];
    let read = data(&bob, "/api/v1/message/read", json!({"channelUuid": chat, "messageId": third})).await;
    assert_eq!(read, json!({"unreadCount": 2, "mentionsCount": 0}));
    assert_eq!(code(&bob, "/api/v1/message/read", json!({"channelUuid": chat, "messageId": 1})).await, "10112");
    // Muting leaves a chat's own number and takes it out of the total.
    data(&bob, "/api/v1/chats/mute", json!({"channelUuid": chat})).await;
    assert_eq!((count(&bob, json!({})).await, count(&bob, json!({"channelUuid": chat})).await), (json!(0), json!(2)));
    data(&bob, "/api/v1/chats/mute", json!({"channelUuid": chat, "on": false})).await;
    assert_eq!(count(&bob, json!({})).await, 2);

    let group = world.group(&alice, &["bob"]).await;
    data(&alice, SEND, json!({"channelUuid": group, "content": "newer"})).await;
    let order = |chats: Value| -> Vec<String> {
        let chats = chats["chats"].as_array().expect("chats").clone();
        chats.iter().map(|c| c["channelUuid"].as_str().expect("a chat").to_owned()).collect()
    };
    assert_eq!(order(data(&bob, "/api/v1/chats/list", json!({})).await), [group.clone(), chat.clone()]);
    data(&bob, "/api/v1/chats/pin", json!({"channelUuid": chat})).await;
    let chats = data(&bob, "/api/v1/chats/list", json!({})).await;
    assert_eq!((&chats["chats"][0]["pinned"], &chats["chats"][1]["pinned"]), (&json!(true), &json!(false)));
    assert_eq!((&chats["chats"][1]["name"], &chats["chats"][1]["memberCount"]), (&json!("g"), &json!(2)));
    assert_eq!(order(chats), [chat.clone(), group.clone()]);
    data(&bob, "/api/v1/chats/hide", json!({"channelUuid": chat})).await;
    assert_eq!(order(data(&bob, "/api/v1/chats/list", json!({})).await), std::slice::from_ref(&group));
    data(&alice, SEND, to("bob", "back again")).await;
    assert_eq!(count(&bob, json!({"channelUuid": chat})).await, 1);

    // Groups: who is in, who comes, who goes.
    world.user("carol").await;
    assert_eq!(code(&bob, "/api/v1/groups/invite", json!({"channelUuid": group, "members": ["carol"]})).await, "10103");
    data(&alice, "/api/v1/groups/invite", json!({"channelUuid": group, "members": ["carol"]})).await;
    data(&bob, "/api/v1/groups/leave", json!({"channelUuid": group})).await;
    let members =
        alice.get(&format!("/api/v1/groups/members?channelUuid={group}")).await.json["data"]["members"].clone();
    let expected = json!([{"relationId": "alice", "role": "owner"}, {"relationId": "carol", "role": "member"}]);
    assert_eq!(members, expected);
    assert_eq!(code(&bob, "/api/v1/groups/leave", json!({"toRelationId": "alice"})).await, "10112");
}
