//! The server's HTTP interface as a back end uses it, and where the root key lies.
//!
//! Shapes: the WuKongIM-styled routes of the server (`/user/token`, `/channel`, `/conversation/sync`, …), JSON both ways,
//! payloads as standard base64.

// Each example uses a part of the shared modules.
#![allow(dead_code)]

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Name of the root key's file in the data directory.
pub const ROOT_KEY_FILE: &str = "root.key";
/// Environment variable that holds the root key itself.
pub const ROOT_KEY_VARIABLE: &str = "CHINWAG_AUTH_ROOT_KEY";
/// Requests of a bulk call under way at once: enough to keep a server core busy over kept-alive connections.
const BULK_CONCURRENCY: usize = 64;
/// No request of these tools takes longer on a healthy server.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// Reads the root key: from the environment, else from the data directory. `None`: neither is there.
///
/// # Errors
/// The file is there but cannot be read.
pub fn root_key(data_dir: &Path) -> Result<Option<String>> {
    if let Ok(key) = std::env::var(ROOT_KEY_VARIABLE)
        && !key.trim().is_empty()
    {
        return Ok(Some(key.trim().to_owned()));
    }
    let path: PathBuf = data_dir.join(ROOT_KEY_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text.trim().to_owned())),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("reading the root key {}", path.display())),
    }
}

/// The root key, or a sentence that says how to get one.
///
/// # Errors
/// There is none.
pub fn need_root_key(data_dir: &Path) -> Result<String> {
    root_key(data_dir)?.with_context(|| {
        format!(
            "no root key in {}: start the server there first (`cargo run --release`), name its data directory with \
             --data-dir, or set {ROOT_KEY_VARIABLE}",
            data_dir.display()
        )
    })
}

/// A random token of 32 hexadecimal digits, from the operating system.
///
/// # Errors
/// The operating system has no randomness.
pub fn random_token() -> Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).context("random bytes from the operating system")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// A handle on the HTTP interface with one credential.
#[derive(Clone)]
pub struct Backend {
    client: reqwest::Client,
    base: String,
    credential: String,
}

/// A message as HTTP shows it; fields these tools do not need are left out.
#[derive(Debug, Clone, Deserialize)]
pub struct Message {
    /// Position in its channel.
    pub message_seq: u64,
    /// Its sender.
    #[serde(default)]
    pub from_uid: String,
    /// The sender's name for it.
    #[serde(default)]
    pub client_msg_no: String,
    /// Unix seconds.
    #[serde(default)]
    pub timestamp: u64,
    /// Base64 of the content.
    #[serde(default)]
    pub payload: String,
}

impl Message {
    /// The content.
    ///
    /// # Errors
    /// Not base64.
    pub fn content(&self) -> Result<Vec<u8>> {
        BASE64.decode(&self.payload).context("payload is not base64")
    }
}

/// A row of `POST /conversation/sync`.
#[derive(Debug, Clone, Deserialize)]
pub struct Conversation {
    /// The peer or the group.
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    pub channel_type: u8,
    /// Unread messages.
    pub unread: u64,
    /// Unix seconds of the last message.
    #[serde(default)]
    pub timestamp: u64,
    /// Seq of the last message.
    #[serde(default)]
    pub last_msg_seq: u64,
    /// Change number.
    #[serde(default)]
    pub version: u64,
    /// 1: deleted or no longer a member.
    #[serde(default)]
    pub is_deleted: u8,
    /// The newest messages, newest first.
    #[serde(default)]
    pub recents: Vec<Message>,
}

/// A channel to make.
#[derive(Debug, Clone, Serialize)]
pub struct NewChannel {
    /// Its id.
    pub channel_id: String,
    /// Its type.
    pub channel_type: u8,
    /// Its members.
    pub subscribers: Vec<String>,
}

impl Backend {
    /// A handle; nothing is sent yet.
    ///
    /// # Errors
    /// The HTTP client cannot be built.
    pub fn new(base: &str, credential: &str) -> Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(REQUEST_TIMEOUT)
            .pool_max_idle_per_host(BULK_CONCURRENCY)
            .build()
            .context("building the HTTP client")?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned(), credential: credential.to_owned() })
    }

    /// `POST path` with a JSON body; the JSON answer.
    ///
    /// # Errors
    /// No connection, or any status but 200: the error holds the server's text.
    pub async fn post(&self, path: &str, body: &impl Serialize) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let answer = self
            .client
            .post(&url)
            .bearer_auth(&self.credential)
            .json(body)
            .send()
            .await
            .with_context(|| format!("POST {url}"))?;
        let status = answer.status();
        let text = answer.text().await.with_context(|| format!("reading the answer of {path}"))?;
        if !status.is_success() {
            bail!("{path} answered {status}: {text}");
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        let value: Value = serde_json::from_str(&text).with_context(|| format!("{path} answered no JSON: {text}"))?;
        // A soft status: HTTP 200 with a reason code in the body (wukongim-http.md section 1).
        if let Some(code) = value.get("status").and_then(Value::as_u64)
            && code != 200
        {
            bail!("{path} was refused: {text}");
        }
        Ok(value)
    }

    /// Sets the token of a user for one kind of device.
    ///
    /// # Errors
    /// As [`Backend::post`].
    pub async fn set_token(&self, uid: &str, token: &str, device_flag: u8) -> Result<()> {
        let body = json!({"uid": uid, "token": token, "device_flag": device_flag, "device_level": 0});
        self.post("/user/token", &body).await.map(drop)
    }

    /// Sets the tokens of many users, many requests under way at once.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn set_tokens(&self, users: &[(String, String)], mut done: impl FnMut()) -> Result<()> {
        let mut requests =
            stream::iter(users).map(|(uid, token)| self.set_token(uid, token, 0)).buffer_unordered(BULK_CONCURRENCY);
        while requests.try_next().await?.is_some() {
            done();
        }
        Ok(())
    }

    /// Makes a channel, or adds members to it.
    ///
    /// # Errors
    /// As [`Backend::post`].
    pub async fn create_channel(&self, channel: &NewChannel) -> Result<()> {
        self.post("/channel", channel).await.map(drop)
    }

    /// Makes many channels.
    ///
    /// # Errors
    /// The first that fails.
    pub async fn create_channels(&self, channels: &[NewChannel], mut done: impl FnMut()) -> Result<()> {
        let mut requests = stream::iter(channels).map(|c| self.create_channel(c)).buffer_unordered(BULK_CONCURRENCY);
        while requests.try_next().await?.is_some() {
            done();
        }
        Ok(())
    }

    /// Adds or removes members.
    ///
    /// # Errors
    /// As [`Backend::post`].
    pub async fn change_members(&self, channel_id: &str, add: bool, uids: &[String]) -> Result<()> {
        let path = if add { "/channel/subscriber_add" } else { "/channel/subscriber_remove" };
        self.post(path, &json!({"channel_id": channel_id, "channel_type": 2, "subscribers": uids})).await.map(drop)
    }

    /// Sends a message in a user's name; the answer's JSON.
    ///
    /// # Errors
    /// As [`Backend::post`].
    pub async fn send(&self, from: &str, channel_id: &str, channel_type: u8, payload: &[u8]) -> Result<Value> {
        let body = json!({
            "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
            "client_msg_no": random_token()?,
            "from_uid": from,
            "channel_id": channel_id,
            "channel_type": channel_type,
            "payload": BASE64.encode(payload),
        });
        self.post("/message/send", &body).await
    }

    /// A user's conversations changed after `version` (0: all).
    ///
    /// # Errors
    /// As [`Backend::post`], or an answer of another shape.
    pub async fn conversations(&self, uid: &str, version: u64, msg_count: u32) -> Result<Vec<Conversation>> {
        let body = json!({"uid": uid, "version": version, "msg_count": msg_count});
        let rows = self.post("/conversation/sync", &body).await?;
        serde_json::from_value(rows).context("/conversation/sync answered another shape")
    }

    /// Sets how many messages of a conversation are unread.
    ///
    /// # Errors
    /// As [`Backend::post`].
    pub async fn set_unread(&self, uid: &str, channel_id: &str, channel_type: u8, unread: u64) -> Result<Value> {
        let body = json!({"uid": uid, "channel_id": channel_id, "channel_type": channel_type, "unread": unread});
        self.post("/conversations/setUnread", &body).await
    }

    /// Deletes a conversation from one user's view.
    ///
    /// # Errors
    /// As [`Backend::post`].
    pub async fn delete_conversation(&self, uid: &str, channel_id: &str, channel_type: u8) -> Result<()> {
        let body = json!({"uid": uid, "channel_id": channel_id, "channel_type": channel_type});
        self.post("/conversations/delete", &body).await.map(drop)
    }

    /// The newest messages of a channel, ascending.
    ///
    /// # Errors
    /// As [`Backend::post`], or an answer of another shape.
    pub async fn newest(&self, uid: &str, channel_id: &str, channel_type: u8, limit: u32) -> Result<Vec<Message>> {
        let body = json!({
            "login_uid": uid, "channel_id": channel_id, "channel_type": channel_type,
            "start_message_seq": 0, "end_message_seq": 0, "limit": limit, "pull_mode": 0,
        });
        let mut answer = self.post("/channel/messagesync", &body).await?;
        serde_json::from_value(answer["messages"].take()).context("/channel/messagesync answered another shape")
    }

    /// Which of these users are online.
    ///
    /// # Errors
    /// As [`Backend::post`].
    pub async fn online(&self, uids: &[String]) -> Result<Vec<String>> {
        let rows = self.post("/user/onlinestatus", &uids).await?;
        let mut online: Vec<String> =
            rows.as_array().into_iter().flatten().filter_map(|row| row["uid"].as_str().map(str::to_owned)).collect();
        online.sort();
        online.dedup();
        Ok(online)
    }
}
