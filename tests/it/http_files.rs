//! Files over HTTP: uploads as forms and as bodies, limits and types, who may read them, ranges, and how messages of the
//! dialects carry them.

use reqwest::StatusCode;
use serde_json::{Value, json};

use chinwag::store::Store;
use protocol::ids::Version;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::harness::{Server, until};
use crate::http::{Answer, Caller};

const FILES: &str = "/api/v1/files";
const MESSAGES: &str = "/api/v1/chat/messages";

async fn upload(caller: &Caller, name: &str, mime: &str, content: Vec<u8>) -> Answer {
    let name: String = form_urlencoded::byte_serialize(name.as_bytes()).collect();
    let headers = [("token", caller.credential()), ("content-type", mime)];
    caller.raw("POST", &format!("{FILES}?name={name}"), &headers, content).await
}

fn form(parts: &[(&str, Option<&str>, &str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, filename, mime, content) in parts {
        let filename = filename.map(|f| format!("; filename=\"{f}\"")).unwrap_or_default();
        let head = format!(
            "--xyz\r\nContent-Disposition: form-data; name=\"{name}\"{filename}\r\nContent-Type: {mime}\r\n\r\n"
        );
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--xyz--\r\n");
    body
}

fn id(file: &Value) -> &str {
    file["id"].as_str().expect("an id")
}

async fn get(caller: &Caller, path: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("token", caller.credential())];
    all.extend_from_slice(headers);
    caller.raw("GET", path, &all, "").await
}

#[tokio::test(flavor = "multi_thread")]
async fn b13_messages_carry_files_with_their_shape() {
    let server = Server::on_memory().await;
    let (alice, bob) = (Caller::user(&server, "alice").await, Caller::user(&server, "bob").await);
    let file = upload(&alice, "şemâ ü.png", "image/png", vec![7; 1_000]).await;
    assert_eq!(file.status, StatusCode::OK, "{}", file.json);
    let file = file.json;
    let expected = json!({
        "id": file["id"], "name": "şemâ ü.png", "size": 1_000, "mime": "image/png",
        "url": format!("{FILES}/{}", id(&file)), "createdAt": file["createdAt"],
    });
    assert_eq!(file, expected);
    let now = chinwag::clock::now_ms();
    assert!(file["createdAt"].as_u64().is_some_and(|at| now.abs_diff(at) < 60_000), "Unix milliseconds");

    // Files alone are enough to say; the list keeps its order, in both dialects.
    let second = upload(&alice, "b.txt", "text/plain; charset=utf-8", b"hi".to_vec()).await.json;
    assert_eq!(second["mime"], "text/plain");
    let body = json!({"to": "bob", "files": [second["id"], file["id"]]});
    let sent = alice.ok("POST", MESSAGES, Some(body)).await;
    assert_eq!(sent["message"]["files"], json!([second, file]));
    assert_eq!(sent["message"]["content"], "");
    let chat = sent["message"]["thread"].as_str().expect("a thread");
    let listed = bob.ok("GET", &format!("/chats/messages?chatId={chat}"), None).await;
    assert_eq!(listed["messages"][0]["files"], json!([second, file]));
    let message = json!({"type": "docId", "files": [file["id"]]});
    let again = |caller: &'static str| {
        let (caller, message) = (if caller == "alice" { &alice } else { &bob }, message.clone());
        async move { caller.call("POST", "/chats/messages", Some(json!({"chatId": chat, "message": message}))).await }
    };
    assert_eq!(again("alice").await.status, StatusCode::OK, "a file may be carried twice");
    assert_eq!(again("bob").await.status, StatusCode::BAD_REQUEST, "by who uploaded it");

    for unknown in ["6c1d4a53-2b57-4d2e-9d0e-6f9b5f4ad0c1", "no id"] {
        let body = json!({"to": "bob", "content": "x", "files": [unknown]});
        let answer = alice.call("POST", MESSAGES, Some(body)).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{unknown}: {}", answer.json);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_see_a_message_reads_its_files() {
    let server = Server::on_memory().await;
    let (alice, bob, eve) =
        (Caller::user(&server, "alice").await, Caller::user(&server, "bob").await, Caller::user(&server, "eve").await);
    let file = upload(&alice, "a.txt", "text/plain", b"secret".to_vec()).await.json;
    let path = file["url"].as_str().expect("a url").to_owned();
    let info = format!("{path}/info");
    let statuses = |of: &'static str| {
        let caller = if of == "bob" { &bob } else { &eve };
        let (path, info) = (&path, &info);
        async move { [get(caller, path, &[]).await.status.as_u16(), get(caller, info, &[]).await.status.as_u16()] }
    };
    assert_eq!(get(&alice, &path, &[]).await.bytes, b"secret");
    assert_eq!(get(&alice, &info, &[]).await.json, file);
    assert_eq!(statuses("bob").await, [404, 404], "nobody carries it");
    let sent = alice.ok("POST", MESSAGES, Some(json!({"to": "bob", "files": [file["id"]]}))).await;
    assert_eq!((statuses("bob").await, statuses("eve").await), ([200, 200], [404, 404]));
    let root = Caller::root(&server);
    assert_eq!(get(&root, &path, &[]).await.bytes, b"secret", "a back end with the scope read");
    let as_eve = get(&root, &path, &[("x-chinwag-uid", "eve")]).await;
    assert_eq!((as_eve.status.as_u16(), &as_eve.json["code"]), (404, &json!("not_found")), "or as a user");
    let message = sent["message"]["_id"].as_str().expect("an id");
    alice.ok("DELETE", &format!("{MESSAGES}/{message}"), None).await;
    assert_eq!(statuses("bob").await, [404, 404], "the message was taken back");
    assert_eq!(alice.raw("GET", &path, &[], "").await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(get(&alice, &format!("{FILES}/..%2f..%2froot.key"), &[]).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_upload_one_file() {
    let server = Server::on_memory().await;
    let alice = Caller::user(&server, "alice").await;
    let post = |body: Vec<u8>, kind: &'static str| {
        let alice = &alice;
        async move { alice.raw("POST", FILES, &[("token", alice.credential()), ("content-type", kind)], body).await }
    };
    const KIND: &str = "multipart/form-data; boundary=xyz";
    // As `curl -F comment=x -F file=@a.bin` sends it, bytes of every value inside.
    let content: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let body = form(&[
        ("comment", None, "text/plain", b"x"),
        ("file", Some("a.bin"), "application/x-thing", &content),
        ("more", None, "text/plain", b"y"),
    ]);
    let made = post(body, KIND).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.json);
    assert_eq!((&made.json["name"], &made.json["size"]), (&json!("a.bin"), &json!(300_000)));
    assert_eq!(made.json["mime"], "application/x-thing");
    assert_eq!(get(&alice, made.json["url"].as_str().expect("a url"), &[]).await.bytes, content);

    let one = form(&[("file", Some("a"), "text/plain", b"x")]);
    for (body, kind, field) in [
        (form(&[("comment", None, "text/plain", b"x")]), KIND, "file"),
        (form(&[("a", Some("a"), "text/plain", b"x"), ("b", Some("b"), "text/plain", b"y")]), KIND, "file"),
        (form(&[("file", Some("a"), "text/plain", b"")]), KIND, "file"),
        (form(&[("file", Some(".."), "text/plain", b"x")]), KIND, "name"),
        (one.clone(), "multipart/form-data", "content-type"),
    ] {
        let answer = post(body, kind).await;
        assert_eq!((answer.status.as_u16(), &answer.json["field"]), (400, &json!(field)), "{}", answer.json);
    }
    let cut = post(one[..one.len() - 12].to_vec(), KIND).await;
    assert_eq!((cut.status.as_u16(), &cut.json["code"]), (400, &json!("body_broken")), "{}", cut.json);
    let much = form(&[("comment", None, "text/plain", &vec![b'x'; 70_000])]);
    assert_eq!(post(much, KIND).await.status, StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_of_files_are_their_own() {
    let server = Server::on_memory_with(|config| {
        config.files.bytes_max = 6 << 20;
        config.files.types = "image/*, text/plain".into();
    })
    .await;
    let alice = Caller::user(&server, "alice").await;
    // Larger than any other body may be.
    let large = upload(&alice, "a.png", "image/png", vec![1; 6 << 20]).await;
    assert_eq!((large.status, &large.json["size"]), (StatusCode::OK, &json!(6 << 20)), "{}", large.json);
    let over = upload(&alice, "a.png", "image/png", vec![1; (6 << 20) + 1]).await;
    assert_eq!((over.status.as_u16(), &over.json["code"]), (413, &json!("too_large")), "{}", over.json);
    for (name, mime, field) in [
        ("a.exe", "application/x-msdownload", "mime"),
        ("a.exe", "application/x-www-form-urlencoded", "mime"),
        ("a.txt", "text/html", "mime"),
        ("", "image/png", "name"),
    ] {
        let answer = upload(&alice, name, mime, vec![1]).await;
        assert_eq!((answer.status.as_u16(), &answer.json["field"]), (400, &json!(field)), "{}", answer.json);
    }
    let empty = upload(&alice, "a.png", "image/png", Vec::new()).await;
    assert_eq!((empty.status.as_u16(), &empty.json["field"]), (400, &json!("file")));
    let off = Server::on_memory_with(|config| config.files.on = false).await;
    let answer = upload(&Caller::user(&off, "alice").await, "a.png", "image/png", vec![1]).await;
    assert_eq!(answer.json["code"], "feature_off");
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_take_ranges_and_etags() {
    let server = Server::on_memory().await;
    let alice = Caller::user(&server, "alice").await;
    let content: Vec<u8> = (0..200_000_u32).map(|i| (i % 251) as u8).collect();
    let file = upload(&alice, "a \"b\".bin", "application/x-thing", content.clone()).await.json;
    let path = file["url"].as_str().expect("a url").to_owned();
    let whole = get(&alice, &path, &[]).await;
    let header = |answer: &Answer, name: &str| {
        answer.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned()
    };
    assert!(whole.bytes == content, "every byte");
    assert_eq!(header(&whole, "content-length"), "200000");
    assert_eq!(header(&whole, "content-type"), "application/x-thing");
    assert_eq!(header(&whole, "accept-ranges"), "bytes");
    assert_eq!(header(&whole, "x-content-type-options"), "nosniff");
    assert!(header(&whole, "content-disposition").starts_with("attachment; filename=\"a _b_.bin\""));
    let etag = header(&whole, "etag");
    for (range, first, last) in [
        ("bytes=0-0", 0, 0),
        ("bytes=100000-", 100_000, 199_999),
        ("bytes=-5", 199_995, 199_999),
        ("bytes=199999-999999", 199_999, 199_999),
    ] {
        let part = get(&alice, &path, &[("range", range)]).await;
        assert_eq!(part.status, StatusCode::PARTIAL_CONTENT, "{range}");
        assert!(part.bytes == content[first..=last], "{range}");
        assert_eq!(header(&part, "content-range"), format!("bytes {first}-{last}/200000"));
        let conditional = get(&alice, &path, &[("range", range), ("if-range", &etag)]).await;
        assert_eq!(conditional.status, StatusCode::PARTIAL_CONTENT);
        let other = get(&alice, &path, &[("range", range), ("if-range", "\"other\"")]).await;
        assert_eq!((other.status, other.bytes.len()), (StatusCode::OK, 200_000), "another content: all of it");
    }
    let beyond = get(&alice, &path, &[("range", "bytes=200000-")]).await;
    assert_eq!((beyond.status.as_u16(), header(&beyond, "content-range").as_str()), (416, "bytes */200000"));
    assert_eq!(beyond.json["code"], "range_not_satisfiable");
    let known = get(&alice, &path, &[("if-none-match", &etag)]).await;
    assert_eq!((known.status, known.bytes.len()), (StatusCode::NOT_MODIFIED, 0));
    let head = alice.raw("HEAD", &path, &[("token", alice.credential())], "").await;
    assert_eq!((head.status, header(&head, "content-length").as_str()), (StatusCode::OK, "200000"));
    // The same content again has a name of its own and the same etag.
    let again = upload(&alice, "b.bin", "application/x-thing", content).await.json;
    assert_ne!(again["id"], file["id"]);
    assert_eq!(header(&get(&alice, again["url"].as_str().expect("a url"), &[]).await, "etag"), etag);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_ends_early_leaves_nothing() {
    let (server, store) = Server::on_shared_memory(|_| {}).await;
    let token = server.user("alice").await;
    let blobs = |dir: &std::path::Path| -> usize {
        let mut files = 0;
        let mut dirs = vec![dir.join("files")];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                if entry.path().is_dir() { dirs.push(entry.path()) } else { files += 1 }
            }
        }
        files
    };
    let mut socket = tokio::net::TcpStream::connect(server.app.http_addr()).await.expect("connected");
    let head = format!("POST {FILES}?name=a HTTP/1.1\r\nhost: x\r\ntoken: {token}\r\ncontent-length: 900000\r\n\r\n");
    socket.write_all(head.as_bytes()).await.expect("written");
    socket.write_all(&vec![1; 600_000]).await.expect("written");
    until("a part is on disk", || blobs(&server.config.data_dir) > 0).await;
    socket.shutdown().await.expect("ended");
    let mut answer = String::new();
    let _ = socket.read_to_string(&mut answer).await;
    until("the part is gone", || blobs(&server.config.data_dir) == 0).await;
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(store.unused_files(Version::MAX, 10).expect("reads"), []);
}
