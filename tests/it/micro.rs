//! The command line of `m3o.txt` (rows E9 to E12 of the acceptance list): the built binary as `chinwag chat …`, and as `micro
//! chat …` in the document's own words.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server};
use crate::http::Caller;

const BINARY: &str = env!("CARGO_BIN_EXE_chinwag");

/// A server, and a directory with a link `micro` and a configuration that finds it: what a person has who follows the page.
struct Desk {
    server: Server,
    dir: tempfile::TempDir,
}

struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Ran {
    fn json(&self) -> Value {
        assert_eq!((self.code, self.err.as_str()), (Some(0), ""), "{}", self.out);
        serde_json::from_str(&self.out).unwrap_or_else(|e| panic!("{e}: {}", self.out))
    }

    fn error(&self) -> Value {
        assert_eq!((self.code, self.out.as_str()), (Some(1), ""), "{}", self.err);
        serde_json::from_str(&self.err).unwrap_or_else(|e| panic!("{e}: {}", self.err))
    }
}

impl Desk {
    async fn new() -> Self {
        let server = Server::on_memory().await;
        let dir = tempfile::tempdir().expect("a directory");
        std::os::unix::fs::symlink(BINARY, dir.path().join("micro")).expect("a link");
        let config = format!(
            "data_dir = {:?}\n[listen]\nhttp = \"{}\"\nsocket = \"{}\"\n",
            server.config.data_dir,
            server.app.http_addr(),
            server.app.socket_addr(),
        );
        std::fs::write(dir.path().join("chinwag.toml"), config).expect("written");
        Self { server, dir }
    }

    fn command(dir: &Path, line: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        // The document's lines are a shell's, quotes and all.
        let binary = PathBuf::from(BINARY);
        let path = format!("{}:{}", dir.display(), binary.parent().expect("a directory").display());
        command.arg("-c").arg(format!("exec {line}")).current_dir(dir).env_clear().env("PATH", path);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    async fn run(&self, line: &str) -> Ran {
        let mut command = Self::command(self.dir.path(), line);
        let run = tokio::task::spawn_blocking(move || command.output());
        let output = tokio::time::timeout(PATIENCE, run).await.expect("in time").expect("no panic").expect("runs");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("utf-8");
        Ran { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn e9_new_prints_the_chat() {
    let desk = Desk::new().await;
    let made = desk.run("micro chat new --user_ids=JohnBarry").await;
    let chat = made.json()["chat_id"].as_str().expect("a chat").to_owned();
    // As the page prints it: its one field, on a line of its own.
    assert_eq!(made.out, format!("{{\n  \"chat_id\": \"{chat}\"\n}}\n"));
    assert_eq!(desk.run("chinwag chat new --user_ids=JohnBarry").await.json()["chat_id"], chat);
    let root = Caller::root(&desk.server);
    let pair = root.done("/chat/New", json!({"user_ids": ["John", "Barry"]})).await;
    for line in [
        "micro chat new --user_ids=John,Barry",
        "micro chat new --user_ids=Barry --user_ids=John",
        "micro chat new --user_ids John --user-ids Barry",
    ] {
        assert_eq!(desk.run(line).await.json(), pair, "{line}");
    }
    let tenant = desk.run("micro chat new --user_ids=John,Barry --namespace=acme").await.json();
    assert_ne!(tenant, pair);
    let error = desk.run("micro chat new").await.error();
    assert_eq!((&error["Id"], &error["Code"]), (&json!("chat.New.MissingUserIDs"), &json!(400)));
}

#[tokio::test(flavor = "multi_thread")]
async fn e10_send_prints_nothing_but_braces() {
    let desk = Desk::new().await;
    let root = Caller::root(&desk.server);
    let chat = root.done("/chat/New", json!({"user_ids": ["John", "Barry"]})).await["chat_id"].clone();
    let chat = chat.as_str().expect("a chat");
    let line = "micro chat send --chat_id=bed4f0f0-da12-46d2-90d2-17ae1714a214 --user_id=John --subject=Hello --text='Hey Barry'";
    let unknown = desk.run(line).await.error();
    assert_eq!(unknown["Id"], "chat.Send.InvalidChatID", "the page's chat is none of ours");
    let line = line.replace("bed4f0f0-da12-46d2-90d2-17ae1714a214", chat);
    let sent = desk.run(&line).await;
    assert_eq!((sent.json(), sent.out.as_str()), (json!({}), "{}\n"));
    for _ in 0..2 {
        let again = format!("chinwag chat send --chat_id={chat} --user_id=Barry --text=-yes- --client_id=c1");
        assert_eq!(desk.run(&again).await.json(), json!({}));
    }
    let page = root.done("/chat/History", json!({"chat_id": chat})).await;
    let said: Vec<_> = page["messages"].as_array().expect("messages").iter().map(|m| m["text"].clone()).collect();
    assert_eq!(said, ["Hey Barry", "-yes-"]);
    let error = desk.run(&format!("micro chat send --chat_id={chat} --user_id=Eve --text=x")).await.error();
    assert_eq!((&error["Id"], &error["Status"]), (&json!("chat.Send.NotMember"), &json!("Forbidden")));
    let error = desk.run(&format!("micro chat send --chat_id={chat} --user_id=John")).await.error();
    assert_eq!(error["Id"], "chat.Send.MissingText");
    // A chat alone would be the history; who types `send` is told what is missing.
    let half = desk.run(&format!("micro chat send --chat_id={chat}")).await;
    assert!(half.code == Some(2) && half.err.contains("--text"), "{}", half.err);
    let error = desk.run(&format!("{line} --key=nobody-has-this")).await.error();
    assert_eq!(error["Code"], 401);
    let nobody = desk.run(&format!("{line} --server=127.0.0.1:1")).await;
    assert!(nobody.code == Some(1) && nobody.err.contains("127.0.0.1:1"), "{}", nobody.err);
}

#[tokio::test(flavor = "multi_thread")]
async fn e11_history_prints_what_the_api_answers() {
    let desk = Desk::new().await;
    let root = Caller::root(&desk.server);
    let chat = root.done("/chat/New", json!({"user_ids": ["John", "Barry"]})).await["chat_id"].clone();
    let chat = chat.as_str().expect("a chat");
    for text in ["one", "two", "three"] {
        root.done("/chat/Send", json!({"chat_id": chat, "user_id": "John", "subject": "s", "text": text})).await;
    }
    let line = format!("micro chat history --chat_id={chat}");
    let printed = desk.run(&line).await;
    let page = root.done("/chat/History", json!({"chat_id": chat})).await;
    assert_eq!(printed.json(), page);
    // In the document's order of fields.
    let at = |name: &str| printed.out.find(&format!("\"{name}\"")).unwrap_or_else(|| panic!("{name}: {}", printed.out));
    let order = ["id", "client_id", "chat_id", "user_id", "subject", "text"].map(at);
    assert!(order.is_sorted(), "{}", printed.out);
    let second = page["messages"][1]["id"].as_str().expect("an id");
    let older = desk.run(&format!("{line} --before={second} --limit=5")).await.json();
    assert_eq!(older["messages"], json!([page["messages"][0]]));
    let token = desk.server.user("John").await;
    let by_token = desk.run(&format!("{line} --key={token} --server=http://{}/", desk.server.app.http_addr())).await;
    assert_eq!(by_token.json(), page);
    let error = desk.run("micro chat history --chat_id=bed4f0f0-da12-46d2-90d2-17ae1714a214").await.error();
    assert_eq!(error["Id"], "chat.History.InvalidChatID");
    // A client, never a server by accident.
    let bare = desk.run("micro").await;
    assert!(bare.code == Some(2) && bare.err.contains("Usage: micro"), "{}", bare.err);
}

/// A child that ends with the test.
struct Listening(Child);

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Listening {
    fn start(desk: &Desk, line: &str) -> (Self, BufReader<impl Read + use<>>, BufReader<impl Read + use<>>) {
        let mut child = Desk::command(desk.dir.path(), line).spawn().expect("starts");
        let (out, err) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        (Self(child), BufReader::new(out), BufReader::new(err))
    }
}

async fn line<R: Read + Send + 'static>(mut from: BufReader<R>) -> (String, BufReader<R>) {
    let read = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        from.read_line(&mut text).expect("utf-8");
        (text, from)
    });
    tokio::time::timeout(PATIENCE, read).await.expect("a line in time").expect("no panic")
}

#[tokio::test(flavor = "multi_thread")]
async fn e12_connect_streams_messages_as_they_come() {
    let desk = Desk::new().await;
    let root = Caller::root(&desk.server);
    let chat = root.done("/chat/New", json!({"user_ids": ["John", "Barry"]})).await["chat_id"].clone();
    let chat = chat.as_str().expect("a chat");
    let other = root.done("/chat/New", json!({"user_ids": ["Bob", "Barry"]})).await["chat_id"].clone();
    let group = root.done("/chat/New", json!({"user_ids": ["John", "Bob", "Barry"]})).await["chat_id"].clone();
    let say = async |chat: &Value, user: &str, text: &str| {
        let body = json!({"chat_id": chat, "user_id": user, "subject": "s", "text": text});
        root.done("/chat/Send", body).await;
    };
    let chat_value = json!(chat);
    for (chat, sender) in [(&chat_value, "John"), (&group, "Bob")] {
        let id = chat.as_str().expect("a chat");
        let (_child, out, err) = Listening::start(&desk, &format!("micro chat connect --chat_id={id} --user_id=Barry"));
        let (ready, _err) = line(err).await;
        assert!(ready.contains("connected as Barry"), "{ready}");
        say(&other, "Bob", "of another chat").await;
        say(chat, sender, "first").await;
        say(chat, sender, "second").await;
        let (first, out) = line(out).await;
        let (second, _out) = line(out).await;
        let page = root.done("/chat/History", json!({"chat_id": chat, "limit": 2})).await;
        let printed: Vec<Value> = [first, second].iter().map(|l| serde_json::from_str(l).expect("JSON")).collect();
        assert_eq!(json!(printed), page["messages"]);
    }
    // A tenant's key listens among its own, and names nobody's namespace aloud.
    let bound = root.done("/admin/keys", json!({"name": "t", "scopes": ["admin"], "namespace": "acme"})).await;
    let bound = bound["key"].as_str().expect("a key");
    let tenant = Caller::with(&desk.server, bound);
    for users in [json!(["John", "Barry"]), json!(["John", "Barry", "Bob"])] {
        let theirs = tenant.done("/chat/New", json!({ "user_ids": users })).await["chat_id"].clone();
        let id = theirs.as_str().expect("a chat");
        let call = format!("micro chat connect --chat_id={id} --user_id=Barry --key={bound} --namespace=acme");
        let (_child, out, err) = Listening::start(&desk, &call);
        let (ready, _err) = line(err).await;
        assert!(ready.contains("connected as Barry"), "{ready}");
        tenant.done("/chat/Send", json!({"chat_id": id, "user_id": "John", "text": "hi"})).await;
        let (printed, _out) = line(out).await;
        let page = tenant.done("/chat/History", json!({"chat_id": id})).await;
        assert_eq!(serde_json::from_str::<Value>(&printed).expect("JSON"), page["messages"][0]);
        assert_eq!(page["messages"][0]["user_id"], "John");
    }
    let error = desk.run(&format!("micro chat connect --chat_id={chat} --user_id=Eve")).await.error();
    assert_eq!(error["Id"], "chat.History.NotMember");
}
