//! A real binary, its server, and what a test asks of either.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::{Value, json};

use crate::process::{self, Process};

pub const PATIENCE: Duration = Duration::from_secs(60);
/// Small segments, so that a few hundred messages fill several.
pub const TIGHT: [&str; 4] = ["--set", "store.segment_bytes_max=1048576", "--set", "store.checkpoint_interval_ms=100"];

pub fn command(data: &Path, args: &[&str]) -> Command {
    let mut command = process::chinwag(data.parent().expect("a parent"));
    command.args(args).arg("--data-dir").arg(data);
    command
}

/// Runs a command to its end: its code and what it wrote.
pub fn run(data: &Path, args: &[&str]) -> (i32, String) {
    let Output { status, stdout, stderr } = command(data, args).output().expect("it runs");
    let text = format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    (status.code().unwrap_or(-1), text)
}

pub fn done(data: &Path, args: &[&str]) -> String {
    let (code, text) = run(data, args);
    assert_eq!(code, 0, "{args:?}: {text}");
    text
}

pub fn check(data: &Path) -> (i32, Value) {
    let Output { status, stdout, stderr } = command(data, &["check", "--json"]).output().expect("it runs");
    let report = serde_json::from_slice(&stdout);
    let report = report.unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&stderr).into_owned()));
    (status.code().unwrap_or(-1), report)
}

/// A running server; killed when it is dropped.
pub struct Server {
    process: Process,
    pub http: String,
    pub key: String,
    pub client: reqwest::Client,
}

impl Server {
    pub fn start(data: &Path) -> Self {
        let mut command = process::server(data.parent().expect("a parent"), data, "error");
        command.args(TIGHT);
        let process = Process::start(command).expect("the server starts");
        let key = std::fs::read_to_string(data.join("root.key")).expect("the root key").trim().to_owned();
        let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        Self { http: process.http.clone(), process, key, client }
    }

    pub async fn post(&self, path: &str, body: Value) -> (reqwest::header::HeaderMap, Value) {
        let request = self.client.post(format!("{}{path}", self.http)).bearer_auth(&self.key).json(&body);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let headers = answer.headers().clone();
        (headers, answer.json().await.expect("JSON"))
    }

    /// Sends and returns (seq, id).
    pub async fn send(&self, channel: &str, name: &str) -> (u64, u64) {
        let payload = "cGF5bG9hZCBvZiBhIG1lc3NhZ2Ug".repeat(100);
        let body = json!({"from_uid": "alice", "channel_id": channel, "channel_type": 2, "client_msg_no": name, "header": {"red_dot": 1},
                          "payload": payload});
        let (_, answer) = self.post("/message/send", body).await;
        assert_eq!(answer["reason"], 1, "{answer}");
        (answer["message_seq"].as_u64().expect("a seq"), answer["message_id"].as_u64().expect("an id"))
    }

    /// Mints a token of a user.
    pub async fn token(&self, uid: &str) -> String {
        let token = format!("{uid}-secret");
        self.post("/user/token", json!({"uid": uid, "token": token, "device_flag": 0, "device_level": 1})).await;
        token
    }

    /// Uploads a file as the user of a token: its id.
    pub async fn upload(&self, token: &str, content: Vec<u8>) -> String {
        let request = self.client.post(format!("{}/api/v1/files?name=a.bin", self.http)).header("token", token);
        let answer = request.header("content-type", "application/pdf").body(content).send().await.expect("an answer");
        let answer: Value = answer.json().await.expect("JSON");
        answer["id"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    }

    /// The content of a file, as the user of a token.
    pub async fn download(&self, token: &str, file: &str) -> Vec<u8> {
        let request = self.client.get(format!("{}/api/v1/files/{file}", self.http)).header("token", token);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.status());
        answer.bytes().await.expect("a content").to_vec()
    }

    /// Sends a chat message with a file, as the user of a token.
    pub async fn send_file(&self, token: &str, to: &str, file: &str) {
        let body = json!({"to": to, "content": "look", "files": [file]});
        let request =
            self.client.post(format!("{}/api/v1/chat/messages", self.http)).header("token", token).json(&body);
        let answer = request.send().await.expect("an answer");
        assert!(answer.status().is_success(), "{}", answer.text().await.unwrap_or_default());
    }

    pub async fn make(&self, channel: &str) {
        let body = json!({"channel_id": channel, "channel_type": 2, "subscribers": ["alice", "bob"]});
        self.post("/channel", body).await;
    }

    /// All messages of a channel: seq → (id, client_msg_no).
    pub async fn messages(&self, channel: &str) -> BTreeMap<u64, (u64, String)> {
        let mut found = BTreeMap::new();
        loop {
            let next = found.last_key_value().map_or(1, |(seq, _)| seq + 1);
            let body = json!({"login_uid": "alice", "channel_id": channel, "channel_type": 2, "start_message_seq": next,
                              "end_message_seq": 0, "limit": 100, "pull_mode": 1});
            let (_, answer) = self.post("/channel/messagesync", body).await;
            let messages = answer["messages"].as_array().expect("messages").clone();
            if messages.is_empty() {
                return found;
            }
            for message in messages {
                let seq = message["message_seq"].as_u64().expect("a seq");
                let id = message["message_id"].as_u64().expect("an id");
                found.insert(seq, (id, message["client_msg_no"].as_str().expect("a name").to_owned()));
            }
        }
    }

    pub fn stop(mut self) {
        self.process.stop().expect("an end");
    }
}

pub const CHANNELS: [&str; 3] = ["one", "two", "three"];

/// A data directory with several segments, left by a server that ended well.
pub async fn filled(dir: &Path) -> PathBuf {
    let data = dir.join("data");
    let server = Server::start(&data);
    for channel in CHANNELS {
        server.make(channel).await;
    }
    for n in 0..700 {
        server.send(CHANNELS[n % 3], &format!("n{n}")).await;
    }
    server.stop();
    assert!(data.join("log/0000000002.log").exists(), "more than one segment");
    data
}

pub fn files_of(dir: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for entry in std::fs::read_dir(dir).expect("readable") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            files_of(&path, found);
        } else {
            found.insert(path.clone(), std::fs::read(&path).expect("reads"));
        }
    }
}

pub fn flip(path: &Path, at: usize) {
    let mut bytes = std::fs::read(path).expect("reads");
    bytes[at] ^= 0x10;
    std::fs::write(path, bytes).expect("writes");
}

pub fn last_segment(data: &Path) -> PathBuf {
    let mut found = BTreeMap::new();
    files_of(&data.join("log"), &mut found);
    found.into_keys().rfind(|path| path.extension().is_some_and(|e| e == "log")).expect("a segment")
}

/// The files of an export but those that say what its directory went through: its breaks, and secrets.
pub fn exported(data: &Path, to: &Path) -> BTreeMap<String, Vec<u8>> {
    done(data, &["export", to.to_str().expect("text")]);
    let mut found = BTreeMap::new();
    files_of(to, &mut found);
    let named = found.into_iter().map(|(path, bytes)| {
        let name = path.strip_prefix(to).expect("inside").to_str().expect("text").to_owned();
        (name, bytes)
    });
    named.filter(|(name, _)| name != "breaks.ndjson").collect()
}

/// Asserts that two exports hold the same, naming the first file that differs.
pub fn assert_same(one: &BTreeMap<String, Vec<u8>>, other: &BTreeMap<String, Vec<u8>>, when: &str) {
    assert_eq!(one.keys().collect::<Vec<_>>(), other.keys().collect::<Vec<_>>(), "{when}");
    for (name, bytes) in one {
        assert!(other.get(name) == Some(bytes), "{when}: {name} differs");
    }
}
