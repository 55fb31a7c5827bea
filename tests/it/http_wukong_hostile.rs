//! Requests that are huge, strange or hostile, to every route of WuKongIM's that is served: each is answered with success
//! or with a 4xx that has the reference's shape and, where a field is wrong, names it; and the server goes on.

use chinwag::http::reference::table::{ROUTES, Support};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{PATIENCE, Server};
use crate::http::{Answer, Caller};

fn check(answer: &Answer, what: &str) {
    let status = answer.status.as_u16();
    assert!(status == 200 || (400..500).contains(&status), "{what}: {status} {}", answer.json);
    if status != 200 {
        assert_eq!(answer.json["status"], status, "{what}: {}", answer.json);
        assert!(
            answer.json["msg"].is_string() && answer.json["msg"] == answer.json["error"],
            "{what}: {}",
            answer.json
        );
        assert!(answer.json["code"].is_string(), "{what}: {}", answer.json);
    }
    assert!(answer.bytes.len() < 1024 * 1024, "{what}: {} bytes", answer.bytes.len());
}

/// Fields of any route, each with what may not stand there.
fn fields() -> Vec<(&'static str, Vec<Value>)> {
    let text = || vec![json!(7), json!({}), json!([]), json!(true), json!("x".repeat(100_000)), json!("a\u{0}b")];
    let list = || vec![json!("x"), json!(7), json!({"a": 1}), json!([7]), json!([null]), json!(["x".repeat(100_000)])];
    let number = || vec![json!(-1), json!("x"), json!(1.5), json!(1e300), json!([]), json!(u64::MAX)];
    vec![
        ("uid", text()),
        ("login_uid", text()),
        ("from_uid", text()),
        ("channel_id", text()),
        ("client_msg_no", text()),
        ("topic", vec![json!(7), json!("x".repeat(100_000))]),
        ("payload", vec![json!(7), json!("***"), json!("eA="), json!(""), json!("A".repeat(2_000_000))]),
        ("channel_type", vec![json!(-1), json!(0), json!(9), json!(256), json!("x"), json!(1e9)]),
        ("subscribers", list()),
        ("uids", list()),
        ("ips", list()),
        ("channels", vec![json!("x"), json!([7]), json!([{"channel_id": 7}]), json!({"a": 1})]),
        ("items", vec![json!("x"), json!([7]), json!([{"channel_id": 7}])]),
        ("message_seqs", vec![json!("x"), json!([-1]), json!(vec![1; 5_000])]),
        ("message_ids", vec![json!([-1]), json!(["x"])]),
        ("client_msg_nos", vec![json!([7]), json!(["x".repeat(100_000)])]),
        ("limit", number()),
        ("msg_count", vec![json!(-1), json!("x"), json!(1.5), json!(1e300)]),
        ("unread", vec![json!(-1), json!("x"), json!(1e300)]),
        ("version", vec![json!(-1), json!("x"), json!(1e300)]),
        ("start_message_seq", number()),
        ("message_seq", vec![json!(-1), json!("x")]),
        ("last_message_seq", vec![json!(-1), json!("x"), json!(0)]),
        ("conn_id", vec![json!(-1), json!("x")]),
        ("pull_mode", vec![json!(2), json!(true), json!("x")]),
        ("ban", vec![json!(2), json!(true), json!(-1)]),
        ("reset", vec![json!(2), json!("1")]),
        ("header", vec![json!("x"), json!([7]), json!({"red_dot": 7}), json!({"red_dot": true})]),
        ("device_flag", vec![json!(-2), json!(300), json!("x")]),
        ("device_level", vec![json!(2), json!(-1)]),
        ("token", vec![json!(7), json!("x".repeat(100_000))]),
        ("cursor", vec![json!(7), json!("x"), json!("x".repeat(100_000))]),
        ("last_msg_seqs", vec![json!("x:y"), json!(7), json!("a:1:x"), json!("|".repeat(100_000))]),
    ]
}

/// A body that every route takes: each field it knows is right.
fn sound() -> Value {
    json!({
        "uid": "bob", "login_uid": "bob", "from_uid": "bob", "channel_id": "g", "channel_type": 2, "payload": "eA==",
        "token": "t", "uids": ["alice"], "ips": ["10.0.0.9"], "channels": [], "items": [], "conn_id": 9_999_999,
        "last_message_seq": 1, "client_msg_no": "n", "limit": 1,
    })
}

fn posts() -> impl Iterator<Item = &'static str> {
    ROUTES.iter().filter(|route| route.support == Support::Served && route.method == "POST").map(|route| route.path)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_field_is_a_4xx_that_names_it() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"]})).await;
    let document = root.get("/openapi.json").await.json;
    let properties = |path: &str| -> Value {
        let body = &document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"];
        let name = body["$ref"].as_str().and_then(|link| link.rsplit('/').next()).unwrap_or_default();
        document["components"]["schemas"][name]["properties"].clone()
    };
    let mut named = 0;
    for path in posts() {
        let known = properties(path);
        for (field, values) in fields() {
            for value in values {
                let mut body = sound();
                body[field] = value.clone();
                let shown: String = value.to_string().chars().take(40).collect();
                let what = format!("{path} {field} = {shown}");
                let answer = root.post(path, body).await;
                check(&answer, &what);
                // A route that reads the field says which one is wrong, or has taken it.
                let is_known = known.get(field).is_some();
                if answer.status == StatusCode::BAD_REQUEST && answer.json["code"] == "invalid" && is_known {
                    let told = answer.json["field"].as_str().unwrap_or_default();
                    assert!(!told.is_empty(), "{what}: {}", answer.json);
                    named += usize::from(told.split(['.', '[']).next() == Some(field));
                }
            }
        }
    }
    assert!(named > 400, "only {named} fields were named");
    assert_eq!(root.get("/readyz").await.json["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strange_body_is_a_4xx() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let deep_object = format!("{}1{}", "{\"header\":".repeat(50_000), "}".repeat(50_000));
    let bodies: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("a number", b"7".to_vec()),
        ("a text", b"\"x\"".to_vec()),
        ("null", b"null".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a list of a list", b"[[]]".to_vec()),
        ("half an object", b"{\"uid\":".to_vec()),
        ("two objects", b"{}{}".to_vec()),
        ("bytes", vec![0xff; 64]),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec()),
        ("a field twice", b"{\"uid\":\"a\",\"uid\":\"b\"}".to_vec()),
        ("depth", deep.into_bytes()),
        ("depth in objects", deep_object.into_bytes()),
        (
            "nulls",
            br#"{"uid":null,"uids":null,"channels":null,"items":null,"header":null,"channel_type":null}"#.to_vec(),
        ),
    ];
    for path in posts() {
        for (name, body) in &bodies {
            let headers = [("token", root.credential())];
            let answer = root.raw("POST", path, &headers, body.clone()).await;
            check(&answer, &format!("{path} with {name}"));
        }
    }
    assert_eq!(root.get("/readyz").await.json["status"], "ok");
}

/// A GET as it is written: no library mends or refuses what a test wants to say.
async fn written(server: &Server, path: &str, query: &[u8], token: &str) -> (u16, Value, Vec<u8>) {
    let mut socket = tokio::net::TcpStream::connect(server.app.http_addr()).await.expect("connects");
    let head = format!(" HTTP/1.1\r\nhost: x\r\ntoken: {token}\r\nconnection: close\r\n\r\n");
    let request = [b"GET ", path.as_bytes(), b"?", query, head.as_bytes()].concat();
    // A head that is too large is answered before it was read as a whole.
    let _ = socket.write_all(&request).await;
    let mut answer = Vec::new();
    let read = tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answer)).await.expect("an answer in time");
    assert!(read.is_ok() || !answer.is_empty(), "{path}: {read:?}");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a head");
    let (head, body) = (String::from_utf8_lossy(&answer[..end]), answer[end + 4..].to_vec());
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, serde_json::from_slice(&body).unwrap_or_default(), body)
}

/// What may stand behind the `?` of a parameter, and whether no route takes it.
fn strange_values() -> Vec<(&'static str, Vec<u8>, bool)> {
    vec![
        ("a broken escape", b"%zz".to_vec(), true),
        ("half an escape", b"a%4".to_vec(), true),
        ("a lone percent sign", b"%".to_vec(), true),
        ("bytes in escapes", b"%ff%fe".to_vec(), true),
        ("half a character", b"a%c3".to_vec(), true),
        ("a surrogate", b"%ed%a0%80".to_vec(), true),
        ("bytes", b"\xff\xfe".to_vec(), true),
        ("twice", b"1&%=2".to_vec(), true),
        ("NUL", b"%00".to_vec(), false),
        ("a line break", b"a%0d%0ab".to_vec(), false),
        ("nothing", Vec::new(), false),
        ("a space", b"+".to_vec(), false),
        ("a letter", b"x".to_vec(), false),
        ("JSON", b"%7b%22a%22%3a%5b%5d%7d".to_vec(), false),
        ("separators", b"&&=&==&".to_vec(), false),
        ("minus one", b"-1".to_vec(), false),
        ("a fraction", b"1.5".to_vec(), false),
        ("an exponent", b"1e300".to_vec(), false),
        ("more than 64 bits", b"99999999999999999999".to_vec(), false),
        ("the most of 64 bits", b"18446744073709551615".to_vec(), false),
        ("a letter beyond ASCII", "%c3%a9".into(), false),
        ("much", vec![b'x'; 50_000], false),
        ("more than a head holds", vec![b'x'; 1_000_000], true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strange_query_is_a_4xx() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"]})).await;
    root.send("alice", "g", 2, "x").await;
    let document = root.get("/openapi.json").await.json;
    let gets: Vec<&str> =
        ROUTES.iter().filter(|r| r.support == Support::Served && r.method == "GET").map(|r| r.path).collect();
    assert!(gets.len() > 15, "{gets:?}");
    let (mut named, mut refused) = (0, 0);
    for path in gets {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().cloned().unwrap_or_default();
        let known: Vec<&str> = parameters.iter().filter_map(|parameter| parameter["name"].as_str()).collect();
        for name in known.iter().copied().chain(["unknown"]) {
            for (what, value, wrong) in strange_values() {
                let what = format!("{path}?{name}= with {what}");
                let value = if value.contains(&b'&') && wrong { format!("1&{name}=2").into_bytes() } else { value };
                let (status, json, body) =
                    written(&server, path, &[name.as_bytes(), b"=", &value].concat(), root.credential()).await;
                assert!(status == 200 || (400..500).contains(&status), "{what}: {status} {json}");
                assert!(body.len() < 1024 * 1024, "{what}: {} bytes", body.len());
                // What is no request at all is refused below any route, and without a body.
                let is_request = value.len() < 60_000 && value.is_ascii();
                if status != 200 && is_request {
                    assert_eq!(json["status"], status, "{what}: {json}");
                    assert!(
                        json["msg"].is_string() && json["msg"] == json["error"] && json["code"].is_string(),
                        "{what}: {json}"
                    );
                    refused += 1;
                }
                if status == 400 && json["code"] == "invalid" {
                    let field = json["field"].as_str().unwrap_or_default();
                    assert!(field == "query" || known.contains(&field), "{what}: {json}");
                    named += usize::from(field == name);
                }
                // A route that reads its query has not read it wrong.
                if wrong && known.contains(&name) {
                    assert!((400..500).contains(&status), "{what}: {status} {json}");
                }
            }
        }
        // Without a query, with thousands of fields, and with a body in its place.
        let many = (0..5_000).map(|n| format!("f{n}=1&")).collect::<String>();
        let (status, json, _) = written(&server, path, many.as_bytes(), root.credential()).await;
        assert!(status == 200 || (400..500).contains(&status), "{path}: {status} {json}");
        for body in ["", "{", "[]", "7", r#"{"uid":7,"channel_id":{},"limit":"x","channel_type":-1,"message_id":[]}"#] {
            let answer = root.raw("GET", path, &[("token", root.credential())], body).await;
            let status = answer.status.as_u16();
            assert!(status == 200 || (400..500).contains(&status), "{path} with {body}: {status} {}", answer.json);
        }
    }
    assert!(named > 20 && refused > 60, "{named} {refused}");
    assert_eq!(root.get("/readyz").await.json["status"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_huge_request_is_bounded() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    for n in 0..30 {
        root.send("alice", "bob", 1, &format!("m{n}")).await;
    }
    let bob = json!({"uid": "bob", "login_uid": "bob", "channel_id": "alice", "channel_type": 1});
    let with = |field: &str, value: Value| {
        let mut body = bob.clone();
        body[field] = value;
        body
    };
    let billion = json!(1_000_000_000);
    let one = json!([{"channel_id": "alice", "channel_type": 1, "limit": 1_000_000_000}]);
    for (path, body) in [
        ("/conversation/sync", with("msg_count", billion.clone())),
        ("/channel/messagesync", with("limit", billion.clone())),
        ("/channel/messagesyncbatch", with("items", one.clone())),
        ("/message/sync", with("limit", billion.clone())),
        ("/conversation/list", with("limit", billion.clone())),
        ("/conversation/syncMessages", json!({"uid": "bob", "msg_count": 1_000_000_000, "channels": one})),
        ("/conversation/syncByChannels", json!({"uid": "bob", "msg_count": 1_000_000_000, "channels": one})),
        ("/message/syncack", with("last_message_seq", billion.clone())),
        ("/conversations/setUnread", with("unread", billion.clone())),
        ("/conversations/clearUnread", with("message_seq", billion)),
    ] {
        let answer = root.post(path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json);
    }
    let many = |n: usize| (0..n).map(|n| format!("u{n}")).collect::<Vec<_>>();
    let channels = vec![json!({"channel_id": "alice", "channel_type": 1}); 1_001];
    for (path, body) in [
        ("/messages", with("message_seqs", json!(vec![1; 1_001]))),
        ("/conversation/syncMessages", with("channels", json!(channels))),
        ("/conversation/syncByChannels", with("channels", json!(channels))),
        ("/conversation/retry", with("channels", json!(channels))),
        ("/channel/messagesyncbatch", with("items", json!(channels))),
        ("/user/onlinestatus", json!(many(10_001))),
        ("/route/batch", json!(many(10_001))),
        ("/user/systemuids_add", json!({"uids": many(10_001)})),
        ("/message/sendbatch", json!({"from_uid": "a", "payload": "eA==", "subscribers": many(10_001)})),
        ("/message/send", json!({"header": {"sync_once": 1}, "payload": "eA==", "subscribers": many(10_001)})),
        ("/channel/blacklist_add", json!({"channel_id": "bob", "channel_type": 1, "uids": many(10_001)})),
    ] {
        let answer = root.post(path, body).await;
        assert_eq!(
            (answer.status, &answer.json["code"]),
            (StatusCode::PAYLOAD_TOO_LARGE, &json!("too_many")),
            "{path}"
        );
    }
    for path in posts() {
        let answer = root.raw("POST", path, &[("token", root.credential())], vec![b' '; 5 * 1024 * 1024]).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path}");
        assert_eq!(answer.json["code"], "too_large", "{path}");
    }
    for path in ["/connz?limit=99999999999999999999", "/connz?offset=-1", "/channel/whitelist?channel_type=x"] {
        check(&root.get(path).await, path);
        assert_eq!(root.get(path).await.status, StatusCode::BAD_REQUEST, "{path}");
    }
    assert_eq!(root.get("/connz?limit=1000000000&offset=18446744073709551615").await.status, StatusCode::OK);
}
