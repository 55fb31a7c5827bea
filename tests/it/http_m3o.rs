//! The document `m3o.txt` over HTTP (rows E1 to E8 and E13 to E15 of the acceptance list): its literal calls, the same users'
//! same chat, tenants, errors, and who may act for whom.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::curl::curl;
use crate::harness::Server;
use crate::http::Caller;

fn root_key(server: &Server) -> String {
    std::fs::read_to_string(server.config.data_dir.join("root.key")).expect("the root key").trim().to_owned()
}

async fn new_chat(caller: &Caller, users: Value) -> String {
    let made = caller.done("/chat/New", json!({ "user_ids": users })).await;
    assert_eq!(made.as_object().map(serde_json::Map::len), Some(1), "{made}");
    let id = made["chat_id"].as_str().expect("a chat").to_owned();
    assert_eq!(uuid::Uuid::try_parse(&id).expect("a uuid").hyphenated().to_string(), id);
    id
}

async fn say(caller: &Caller, chat: &str, user: &str, text: &str) {
    let answer = caller.done("/chat/Send", json!({"chat_id": chat, "user_id": user, "text": text})).await;
    assert_eq!(answer, json!({}));
}

async fn texts(caller: &Caller, body: Value) -> Vec<String> {
    let page = caller.done("/chat/History", body).await;
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().map(|message| message["text"].as_str().expect("a text").to_owned()).collect()
}

/// The error's id, and that it is told as Micro does.
async fn refused(caller: &Caller, path: &str, body: Value, status: StatusCode) -> String {
    let answer = caller.post(path, body).await;
    assert_eq!(answer.status, status, "{path}: {}", answer.json);
    let fields: Vec<&String> = answer.json.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["Code", "Detail", "Id", "Status"], "{}", answer.json);
    assert_eq!(answer.json["Code"], status.as_u16());
    assert_eq!(answer.json["Status"].as_str(), status.canonical_reason());
    assert!(answer.json["Detail"].as_str().is_some_and(|detail| !detail.is_empty()));
    answer.json["Id"].as_str().expect("an id").to_owned()
}

const BAD: StatusCode = StatusCode::BAD_REQUEST;

#[tokio::test(flavor = "multi_thread")]
async fn e1_the_same_users_get_the_same_chat() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let pair = new_chat(&root, json!(["John", "Barry"])).await;
    for again in [json!(["Barry", "John"]), json!(["John", "Barry", "John"]), json!("Barry, John")] {
        assert_eq!(new_chat(&root, again).await, pair);
    }
    // Two are their person chat, whatever wire it was begun on.
    root.send("Barry", "John", 1, "over the socket's words").await;
    assert_eq!(texts(&root, json!({"chat_id": pair})).await, ["over the socket's words"]);
    let three = new_chat(&root, json!(["a", "b", "c"])).await;
    assert_eq!(new_chat(&root, json!(["c", "a", "b", "a"])).await, three);
    let alone = new_chat(&root, json!(["John"])).await;
    assert_eq!(new_chat(&root, json!(["John", "John"])).await, alone);
    assert!(pair != three && three != alone && pair != alone);
    // What became of the group stays when it is asked for again.
    say(&root, &three, "a", "x").await;
    let subscriber = json!({"channel_id": three, "channel_type": 2, "subscribers": ["c"]});
    root.done("/channel/subscriber_remove", subscriber).await;
    assert_eq!(new_chat(&root, json!(["a", "b", "c"])).await, three);
    let body = json!({"chat_id": three, "user_id": "c", "text": "x"});
    assert_eq!(refused(&root, "/chat/Send", body, StatusCode::FORBIDDEN).await, "chat.Send.NotMember");

    for none in [json!({}), json!({"user_ids": []}), json!({"user_ids": null}), json!({"user_ids": ""})] {
        assert_eq!(refused(&root, "/chat/New", none, BAD).await, "chat.New.MissingUserIDs");
    }
    for bad in [json!(["a@b"]), json!([1]), json!([""]), json!({"a": 1}), json!(["x".repeat(121)])] {
        assert_eq!(refused(&root, "/chat/New", json!({"user_ids": bad}), BAD).await, "chat.New.InvalidUserIDs");
    }
    // At once, from many sides: one chat.
    let asked = (0..8).map(|i| {
        let users = if i % 2 == 0 { json!(["x", "y", "z"]) } else { json!(["z", "y", "x"]) };
        let caller = Caller::root(&server);
        tokio::spawn(async move { new_chat(&caller, users).await })
    });
    let mut chats = std::collections::HashSet::new();
    for chat in asked.collect::<Vec<_>>() {
        chats.insert(chat.await.expect("no panic"));
    }
    assert_eq!(chats.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn e2_a_namespace_is_a_world_of_its_own() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let acme = Caller::root(&server).header("micro-namespace", "acme");
    let other = Caller::root(&server).header("Micro-Namespace", "other");
    let users = json!(["John", "Barry"]);
    let (mine, theirs, default) = (
        new_chat(&acme, users.clone()).await,
        new_chat(&other, users.clone()).await,
        new_chat(&root, users.clone()).await,
    );
    assert!(mine != theirs && theirs != default && mine != default);
    assert_eq!(new_chat(&acme, json!(["Barry", "John"])).await, mine);
    say(&acme, &mine, "John", "secret").await;
    let page = acme.done("/chat/History", json!({"chat_id": mine})).await;
    assert_eq!((&page["messages"][0]["user_id"], &page["messages"][0]["chat_id"]), (&json!("John"), &json!(mine)));
    for (chat, caller) in [(&mine, &other), (&mine, &root), (&default, &acme)] {
        let body = json!({"chat_id": chat});
        assert_eq!(refused(caller, "/chat/History", body, BAD).await, "chat.History.InvalidChatID");
        let body = json!({"chat_id": chat, "user_id": "John", "text": "x"});
        assert_eq!(refused(caller, "/chat/Send", body, BAD).await, "chat.Send.InvalidChatID");
    }
    // A group of it, too.
    let group = new_chat(&acme, json!(["a", "b", "c"])).await;
    say(&acme, &group, "a", "x").await;
    assert_eq!(texts(&acme, json!({"chat_id": group})).await, ["x"]);
    assert_eq!(refused(&root, "/chat/History", json!({"chat_id": group}), BAD).await, "chat.History.InvalidChatID");

    // A key that is bound names its own only, and needs no header.
    let made = root.done("/admin/keys", json!({"name": "t", "scopes": ["admin"], "namespace": "acme"})).await;
    let key = made["key"].as_str().expect("a key");
    let bound = Caller::with(&server, key);
    assert_eq!(new_chat(&bound, users.clone()).await, mine);
    assert_eq!(texts(&bound, json!({"chat_id": mine})).await, ["secret"]);
    assert_eq!(refused(&bound, "/chat/History", json!({"chat_id": theirs}), BAD).await, "chat.History.InvalidChatID");
    let astray = Caller::with(&server, key).header("micro-namespace", "other");
    let body = json!({"user_ids": users});
    assert_eq!(refused(&astray, "/chat/New", body, StatusCode::FORBIDDEN).await, "chat.New.Forbidden");
    // It opens nothing that has no place for a namespace, and reaches no user outside over a socket.
    let sync = bound.post("/conversation/sync", json!({"uid": "John"})).await;
    assert_eq!(sync.status, StatusCode::FORBIDDEN, "{}", sync.json);
    let over_socket = |uid: &'static str| {
        let key = key.to_owned();
        let server = &server;
        async move {
            let encoding = protocol::native::Encoding::Json;
            let named = |connect: &mut protocol::native::Connect<'_>| connect.uid = Some(uid.into());
            crate::harness::Client::connect(server, &key, encoding, named).await
        }
    };
    let mut john = over_socket("John").await;
    let connected = john.connected.as_ref().expect("connected");
    assert_eq!((&*connected.uid, connected.namespace.as_deref()), ("John", Some("acme")));
    let ack = john.say("Barry", 1, b"from a socket").await;
    assert_eq!(ack.message_seq, 2);
    assert_eq!(texts(&acme, json!({"chat_id": mine})).await, ["secret", "from a socket"]);
    assert_eq!(texts(&root, json!({"chat_id": default})).await, Vec::<String>::new());

    // What a socket of it shows and makes has no prefix, and lies inside.
    say(&acme, &mine, "Barry", "to a socket").await;
    let delivered = john.deliver().await;
    let from = delivered.messages[0].from_uid.to_string();
    assert_eq!((&*delivered.channel_id, from.as_str()), ("Barry", "Barry"));
    let client_seq = john.seq();
    let group = protocol::native::Group {
        client_seq,
        name: "g".into(),
        icon: "".into(),
        description: "".into(),
        members: vec!["Barry".into()],
    };
    john.send(&protocol::native::ClientFrame::Group(group)).await;
    let made = john
        .expect(|frame| match frame {
            protocol::native::ServerFrame::Profile(made) => {
                Some((made.channel_id.to_string(), made.creator.to_string()))
            }
            _ => None,
        })
        .await;
    assert_eq!(made.1, "John");
    assert_eq!(john.say(&made.0, 2, b"among us").await.message_seq, 1);
    let info =
        root.post("/channel/messagesync", json!({"login_uid": "Barry", "channel_id": made.0, "channel_type": 2}));
    assert_eq!(info.await.json["messages"], json!([]), "no such group in the default namespace");

    // Names that are none.
    let long = "x".repeat(61);
    for name in ["a@b", "a#b", long.as_str()] {
        let caller = Caller::root(&server).header("micro-namespace", name);
        assert_eq!(refused(&caller, "/chat/New", json!({"user_ids": ["a"]}), BAD).await, "chat.New.InvalidNamespace");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e3_the_literal_lines_send_json_as_a_form() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let url = format!("http://{}", server.app.http_addr());
    let key = root_key(&server);
    let literal = |line: &str| line.replace("https://api.m3o.com", &url).replace("$yourToken", &key);
    let (status, made) = curl(&literal(
        r#"curl 'https://api.m3o.com/chat/New' \
-H 'micro-namespace: $yourNamespace' \
-H 'authorization: Bearer $yourToken' \
-d '{"user_ids":["JohnBarry"]}';"#,
    ))
    .await;
    assert_eq!((status, made.as_object().map(serde_json::Map::len)), (200, Some(1)), "{made}");
    let chat = made["chat_id"].as_str().expect("a chat");
    // As printed it lacks the chat, and is told so.
    let send = r#"curl 'https://api.m3o.com/chat/Send' \
-H 'micro-namespace: $yourNamespace' \
-H 'authorization: Bearer $yourToken' \
-d '{"user_id": "John", "subject": "Hello", "text": "Hey Barry"}';"#;
    let (status, error) = curl(&literal(send)).await;
    assert_eq!((status, &error["Id"], &error["Code"]), (400, &json!("chat.Send.MissingChatID"), &json!(400)));
    let with_chat =
        send.replace("\"user_id\": \"John\"", &format!("\"chat_id\": \"{chat}\", \"user_id\": \"JohnBarry\""));
    assert_eq!(curl(&literal(&with_chat)).await, (200, json!({})));
    // The page's call for the history.
    let history = r#"curl 'https://api.m3o.com/chat/Send' \
-H 'micro-namespace: $yourNamespace' \
-H 'authorization: Bearer $yourToken' \
-d '{"chat_id": "bed4f0f0-da12-46d2-90d2-17ae1714a214"}';"#;
    let (status, page) = curl(&literal(&history.replace("bed4f0f0-da12-46d2-90d2-17ae1714a214", chat))).await;
    assert_eq!(status, 200, "{page}");
    let message = &page["messages"][0];
    let said = json!([message["chat_id"], message["user_id"], message["subject"], message["text"]]);
    assert_eq!(said, json!([chat, "JohnBarry", "Hello", "Hey Barry"]));
    // The shell kept the header as it is printed: a namespace of that name, apart from the default one.
    assert_eq!(refused(&root, "/chat/History", json!({"chat_id": chat}), BAD).await, "chat.History.InvalidChatID");
    let (status, error) = curl(&literal(&history.replace("-d '", "-d 'nonsense"))).await;
    assert_eq!((status, &error["Id"]), (400, &json!("chat.Send.Invalid")), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn e4_a_message_needs_chat_user_and_text() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let chat = new_chat(&root, json!(["John", "Barry"])).await;
    for (body, id) in [
        (json!({"user_id": "John", "subject": "Hello", "text": "Hey Barry"}), "chat.Send.MissingChatID"),
        (json!({}), "chat.Send.MissingChatID"),
        (json!({"chat_id": chat, "text": "x"}), "chat.Send.MissingUserID"),
        (json!({"chat_id": chat, "subject": "x"}), "chat.Send.MissingUserID"),
        (json!({"chat_id": chat, "user_id": "John"}), "chat.Send.MissingText"),
        (json!({"chat_id": chat, "user_id": "John", "subject": "x", "text": ""}), "chat.Send.MissingText"),
        (json!({"chat_id": chat, "user_id": "J@n", "text": "x"}), "chat.Send.InvalidUserID"),
        (json!({"chat_id": chat, "user_id": 5, "text": "x"}), "chat.Send.InvalidUserID"),
        (json!({"chat_id": "nonsense", "user_id": "John", "text": "x"}), "chat.Send.InvalidChatID"),
        (
            json!({"chat_id": uuid::Uuid::new_v4().to_string(), "user_id": "John", "text": "x"}),
            "chat.Send.InvalidChatID",
        ),
    ] {
        assert_eq!(refused(&root, "/chat/Send", body.clone(), BAD).await, id, "{body}");
    }
    assert_eq!(texts(&root, json!({"chat_id": chat})).await, Vec::<String>::new());
    let large = json!({"chat_id": chat, "user_id": "John", "text": "x".repeat(70_000)});
    assert_eq!(refused(&root, "/chat/Send", large, StatusCode::PAYLOAD_TOO_LARGE).await, "chat.Send.TooLarge");
}

#[tokio::test(flavor = "multi_thread")]
async fn e5_a_message_is_answered_with_nothing_and_seen_everywhere() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let mut barry = server.connect("Barry").await;
    let chat = new_chat(&root, json!(["John", "Barry"])).await;
    let body = json!({"chat_id": chat, "user_id": "John", "subject": "Hello", "text": "Hey Barry"});
    assert_eq!(root.done("/chat/Send", body).await, json!({}));
    let delivered = barry.deliver().await;
    assert_eq!((&*delivered.channel_id, delivered.channel_type), ("John", 1));
    let rows = root.done("/conversation/sync", json!({"uid": "Barry"})).await;
    assert_eq!((&rows[0]["channel_id"], &rows[0]["unread"]), (&json!("John"), &json!(1)));
    // What others write without a subject is a text here.
    root.send("Barry", "John", 1, "plain").await;
    let page = root.done("/chat/History", json!({"chat_id": chat})).await;
    assert_eq!((&page["messages"][0]["subject"], &page["messages"][1]["subject"]), (&json!("Hello"), &json!("")));
    assert_eq!(page["messages"][1]["text"], "plain");
}

#[tokio::test(flavor = "multi_thread")]
async fn e6_client_id_makes_a_retry_safe() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let chat = new_chat(&root, json!(["John", "Barry"])).await;
    let named = |user: &str, text: &str| json!({"chat_id": chat, "user_id": user, "text": text, "client_id": "c-1"});
    for _ in 0..3 {
        assert_eq!(root.done("/chat/Send", named("John", "once")).await, json!({}));
    }
    let conflict = refused(&root, "/chat/Send", named("John", "else"), StatusCode::CONFLICT).await;
    assert_eq!(conflict, "chat.Send.Conflict");
    // Per chat and user.
    root.done("/chat/Send", named("Barry", "once")).await;
    let group = new_chat(&root, json!(["John", "Barry", "Bob"])).await;
    let elsewhere = json!({"chat_id": group, "user_id": "John", "text": "once", "client_id": "c-1"});
    root.done("/chat/Send", elsewhere).await;
    assert_eq!(texts(&root, json!({"chat_id": chat})).await, ["once", "once"]);
    assert_eq!(texts(&root, json!({"chat_id": group})).await, ["once"]);
    // The header is the same name, and the server makes one where there is none.
    let keyed = Caller::root(&server).header("idempotency-key", "c-1");
    keyed.done("/chat/Send", json!({"chat_id": chat, "user_id": "John", "text": "once"})).await;
    say(&root, &chat, "John", "unnamed").await;
    let page = root.done("/chat/History", json!({"chat_id": chat})).await;
    let names: Vec<_> = page["messages"].as_array().expect("messages").iter().map(|m| m["client_id"].clone()).collect();
    assert_eq!((names.len(), &names[0], &names[1]), (3, &json!("c-1"), &json!("c-1")));
    assert!(names[2].as_str().is_some_and(|name| !name.is_empty()));
}

#[tokio::test(flavor = "multi_thread")]
async fn e7_send_with_a_chat_alone_is_the_pages_call_for_the_history() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let chat = new_chat(&root, json!(["John", "Barry"])).await;
    say(&root, &chat, "John", "x").await;
    let by_send = root.done("/chat/Send", json!({"chat_id": chat})).await;
    assert_eq!(by_send, root.done("/chat/History", json!({"chat_id": chat})).await);
    assert_eq!(by_send["messages"].as_array().map(Vec::len), Some(1), "and nothing was sent");
    let unknown = json!({"chat_id": "bed4f0f0-da12-46d2-90d2-17ae1714a214"});
    assert_eq!(refused(&root, "/chat/Send", unknown, BAD).await, "chat.Send.InvalidChatID");
    // It needs what reading needs.
    let made = root.done("/admin/keys", json!({"name": "s", "scopes": ["send"]})).await;
    let sender = Caller::with(&server, made["key"].as_str().expect("a key"));
    let body = json!({"chat_id": chat});
    assert_eq!(refused(&sender, "/chat/Send", body, StatusCode::FORBIDDEN).await, "chat.Send.Forbidden");
}

#[tokio::test(flavor = "multi_thread")]
async fn e8_history_is_oldest_first_and_pages_backwards() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let chat = new_chat(&root, json!(["John", "Barry"])).await;
    let empty = root.done("/chat/History", json!({"chat_id": chat})).await;
    assert_eq!(empty, json!({"messages": []}));
    for n in 0..60 {
        say(&root, &chat, if n % 2 == 0 { "John" } else { "Barry" }, &n.to_string()).await;
    }
    let numbers = |range: std::ops::Range<u32>| range.map(|n| n.to_string()).collect::<Vec<_>>();
    let page = root.done("/chat/History", json!({"chat_id": chat})).await;
    assert_eq!(page["more"], true);
    let first = &page["messages"][0];
    let fields: Vec<&String> = first.as_object().expect("an object").keys().collect();
    assert_eq!(fields, ["chat_id", "client_id", "id", "sent_at", "subject", "text", "user_id"]);
    let now_s = chinwag::clock::now_ms() / 1_000;
    assert!(first["sent_at"].as_u64().is_some_and(|at| at <= now_s + 1 && at + 600 > now_s), "{first}");
    assert_eq!(texts(&root, json!({"chat_id": chat})).await, numbers(10..60), "the newest 50");
    let older = json!({"chat_id": chat, "before": first["id"], "limit": 4});
    assert_eq!(texts(&root, older).await, numbers(6..10));
    let all = root.done("/chat/History", json!({"chat_id": chat, "limit": 1000})).await;
    assert_eq!((all["messages"].as_array().map(Vec::len), all.get("more")), (Some(60), None));
    let oldest = json!({"chat_id": chat, "before": all["messages"][0]["id"]});
    assert_eq!(texts(&root, oldest).await, Vec::<String>::new());
    for (body, id) in [
        (json!({}), "chat.History.MissingChatID"),
        (json!({"chat_id": "bed4f0f0-da12-46d2-90d2-17ae1714a214"}), "chat.History.InvalidChatID"),
        (json!({"chat_id": "bed4"}), "chat.History.InvalidChatID"),
        (json!({"chat_id": chat, "before": "a61284a8-f471-4734-9192-640d89762e98"}), "chat.History.InvalidBefore"),
        (json!({"chat_id": chat, "before": 1}), "chat.History.InvalidBefore"),
        (json!({"chat_id": chat, "limit": -1}), "chat.History.InvalidLimit"),
    ] {
        assert_eq!(refused(&root, "/chat/History", body.clone(), BAD).await, id, "{body}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e13_everything_is_refused_in_micros_words() {
    let server = Server::on_memory_with(|config| config.http.body_bytes_max = 1024).await;
    let root = Caller::root(&server);
    let nobody = Caller::with(&server, "nobody");
    for path in ["/chat/New", "/chat/Send", "/chat/History"] {
        let method = path.trim_start_matches('/').replace('/', ".");
        let id = refused(&nobody, path, json!({}), StatusCode::UNAUTHORIZED).await;
        assert_eq!(id, format!("{method}.Unauthorized"));
        let large = json!({"text": "x".repeat(server.config.http.body_bytes_max)});
        let id = refused(&root, path, large, StatusCode::PAYLOAD_TOO_LARGE).await;
        assert_eq!(id, format!("{method}.TooLarge"));
        assert_eq!(root.get(path).await.status, StatusCode::METHOD_NOT_ALLOWED);
    }
    let lost = refused(&root, "/chat/Nonsense", json!({}), StatusCode::NOT_FOUND).await;
    assert_eq!(lost, "chat.NotFound");
    // The client behind the document retries 408 and 500 by itself: no refusal of a rule may have them.
    let chat = new_chat(&root, json!(["John", "Barry"])).await;
    root.done("/channel", json!({"channel_id": "John@Barry", "channel_type": 1, "ban": 1})).await;
    let body = json!({"chat_id": chat, "user_id": "John", "text": "x"});
    assert_eq!(refused(&root, "/chat/Send", body, StatusCode::FORBIDDEN).await, "chat.Send.ChatBanned");
}

#[tokio::test(flavor = "multi_thread")]
async fn e14_a_key_acts_for_anybody_and_a_token_for_its_user() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let john = Caller::user(&server, "John").await;
    // The holder of a token is always one of the chat's users.
    let chat = new_chat(&john, json!(["Barry"])).await;
    assert_eq!(chat, new_chat(&root, json!(["John", "Barry"])).await);
    assert_eq!(chat, new_chat(&john, json!(["Barry", "John"])).await);
    say(&john, &chat, "John", "one").await;
    john.done("/chat/Send", json!({"chat_id": chat, "text": "two"})).await;
    say(&root, &chat, "Barry", "three").await;
    assert_eq!(texts(&john, json!({"chat_id": chat})).await, ["one", "two", "three"]);
    let as_barry = json!({"chat_id": chat, "user_id": "Barry", "text": "x"});
    assert_eq!(refused(&john, "/chat/Send", as_barry, StatusCode::FORBIDDEN).await, "chat.Send.Forbidden");
    let as_barry = json!({"chat_id": chat, "user_id": "Barry"});
    assert_eq!(refused(&john, "/chat/History", as_barry, StatusCode::FORBIDDEN).await, "chat.History.Forbidden");
    // Nor in another namespace.
    let astray = Caller::user(&server, "John").await.header("micro-namespace", "acme");
    let body = json!({"user_ids": ["Barry"]});
    assert_eq!(refused(&astray, "/chat/New", body, StatusCode::FORBIDDEN).await, "chat.New.Forbidden");
    // A user of a namespace has a token by the same route as any other.
    let acme = Caller::root(&server).header("micro-namespace", "acme");
    acme.done("/user/token", json!({"uid": "John", "token": "acmes-john-has-this"})).await;
    let tenant = Caller::with(&server, "acmes-john-has-this");
    let theirs = new_chat(&tenant, json!(["Barry"])).await;
    assert_eq!(theirs, new_chat(&acme, json!(["John", "Barry"])).await);
    say(&tenant, &theirs, "John", "x").await;
    assert_eq!(texts(&acme, json!({"chat_id": theirs})).await, ["x"]);
    // What a key may do.
    let made = root.done("/admin/keys", json!({"name": "r", "scopes": ["read"]})).await;
    let reader = Caller::with(&server, made["key"].as_str().expect("a key"));
    let body = json!({"chat_id": chat, "user_id": "John", "text": "x"});
    assert_eq!(refused(&reader, "/chat/Send", body, StatusCode::FORBIDDEN).await, "chat.Send.Forbidden");
    let body = json!({"user_ids": ["a"]});
    assert_eq!(refused(&reader, "/chat/New", body, StatusCode::FORBIDDEN).await, "chat.New.Forbidden");
    assert_eq!(texts(&reader, json!({"chat_id": chat, "user_id": "John"})).await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn e15_who_is_no_member_neither_writes_nor_reads() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let eve = Caller::user(&server, "Eve").await;
    for users in [json!(["John", "Barry"]), json!(["John", "Barry", "Bob"])] {
        let chat = new_chat(&root, users).await;
        say(&root, &chat, "John", "x").await;
        let body = json!({"chat_id": chat, "user_id": "Eve", "text": "x"});
        for caller in [&root, &eve] {
            let id = refused(caller, "/chat/Send", body.clone(), StatusCode::FORBIDDEN).await;
            assert_eq!(id, "chat.Send.NotMember");
            let body = json!({"chat_id": chat, "user_id": "Eve"});
            let id = refused(caller, "/chat/History", body, StatusCode::FORBIDDEN).await;
            assert_eq!(id, "chat.History.NotMember");
        }
        assert_eq!(texts(&root, json!({"chat_id": chat})).await, ["x"]);
    }
}
