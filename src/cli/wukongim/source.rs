//! A running WuKongIM as its public HTTP API shows it (wukongim-http.md; sections are named at each question).
//!
//! Owns the requests, the shapes of the answers and the retries. Refuses to know what is done with them. Every answer that is
//! not of the reference's shape is an error that names the request and the field.

use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client as Pool;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use protocol::ids::{ChannelKey, ChannelType};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::catalogue::escaped;

/// Longest answer read: a page of messages of the largest size fits.
const ANSWER_BYTES_MAX: usize = 512 << 20;
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Messages asked for at once.
pub(super) const PAGE: usize = 500;
/// What is not answered, or with a 5xx, is asked again after these.
const RETRIES: [Duration; 4] =
    [Duration::from_millis(200), Duration::from_millis(800), Duration::from_secs(3), Duration::from_secs(9)];

/// One user's view of a channel (6.1).
#[derive(Debug, Deserialize)]
pub(super) struct Row {
    pub channel_id: String,
    pub channel_type: u8,
    #[serde(default)]
    pub unread: u64,
    #[serde(default)]
    pub last_msg_seq: u64,
    /// From v2 on.
    pub readed_to_msg_seq: Option<u64>,
}

/// A message (1.1); what this server has no place for is left out.
#[derive(Debug, Deserialize)]
pub(super) struct Message {
    #[serde(default)]
    pub header: Header,
    #[serde(default)]
    pub setting: u8,
    #[serde(default)]
    pub message_id: Option<serde_json::Number>,
    #[serde(default)]
    pub client_msg_no: String,
    pub message_seq: u64,
    #[serde(default)]
    pub from_uid: String,
    #[serde(default)]
    pub topic: String,
    #[serde(default)]
    pub expire: u32,
    pub timestamp: i64,
    #[serde(default)]
    pub payload: Option<String>,
    #[serde(default)]
    pub stream_data: Option<String>,
}

/// Header flags, 0 or 1.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
pub(super) struct Header {
    #[serde(default)]
    pub red_dot: u8,
    #[serde(default)]
    pub sync_once: u8,
}

/// A page of messages (5.3), ascending.
#[derive(Debug, Deserialize)]
pub(super) struct Page {
    #[serde(default)]
    pub more: u8,
    pub messages: Option<Vec<Message>>,
}

/// An entry of an allow list: a text in v1, a row in v2.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Allowed {
    Text(String),
    Row { uid: String },
}

/// What v2 says where v1 says nothing is there: 400 with this text.
#[derive(Deserialize)]
struct Refused {
    msg: String,
}

#[derive(Debug, Deserialize)]
struct MaxSeq {
    message_seq: u64,
}

/// What became of a request.
enum Answer {
    /// 200.
    Body(Bytes),
    /// This version has no such route, or there is nothing of this name.
    NotThere,
}

/// The server that is read.
pub(super) struct Source {
    pool: Pool<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: tokio::runtime::Runtime,
    base: String,
    token: Option<String>,
    retries: &'static [Duration],
}

impl Source {
    /// `base`: `http://host:5001`, or with `https`. `token`: the manager token, when the server has one.
    ///
    /// # Errors
    /// It is no such address.
    pub(super) fn new(base: &str, token: Option<String>) -> anyhow::Result<Self> {
        let base = base.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().with_context(|| format!("{base:?} is no address"))?;
        let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
        if !is_http || uri.host().is_none() || uri.query().is_some() {
            bail!("{base:?} is no address like http://127.0.0.1:5001");
        }
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        let https = HttpsConnectorBuilder::new().with_native_roots().context("no certificates on this system")?;
        let https = https.https_or_http().enable_http1().wrap_connector(tcp);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { pool: Pool::builder(TokioExecutor::new()).build(https), runtime, base, token, retries: &RETRIES })
    }

    /// Every conversation the server shows of a user: its newest ones, 1,000 by default (6.1). Asked for at once: pages are cut
    /// before rows are left out, so an empty one is not the end.
    ///
    /// # Errors
    /// No answer, or none of the reference's shape.
    pub(super) fn conversations(&self, uid: &str) -> anyhow::Result<Vec<Row>> {
        let body = json!({"uid": uid, "version": 0, "last_msg_seqs": "", "msg_count": 1});
        // `null` is an empty list in Go.
        let rows: Option<Vec<Row>> = self.asked("POST", "/conversation/sync", Some(&body))?;
        Ok(rows.unwrap_or_default())
    }

    /// Messages from seq `start` on (5.3). `login_uid`: who looks; of a person channel one of the two.
    ///
    /// # Errors
    /// As above.
    pub(super) fn messages(&self, login_uid: &str, key: &ChannelKey, start: u64) -> anyhow::Result<Page> {
        let body = json!({
            "login_uid": login_uid, "channel_id": key.id_for(login_uid), "channel_type": key.channel_type().to_wire(),
            "start_message_seq": start, "end_message_seq": 0, "limit": PAGE, "pull_mode": 1,
            "event_summary_mode": "basic",
        });
        self.asked("POST", "/channel/messagesync", Some(&body))
    }

    /// The header flags of a message, which v2 tells rightly when it looks one up by its client_msg_no (5.5). `None`: it does not
    /// find it.
    ///
    /// # Errors
    /// As above.
    pub(super) fn header(
        &self,
        login_uid: &str,
        key: &ChannelKey,
        message: &Message,
    ) -> anyhow::Result<Option<Header>> {
        let body = json!({
            "login_uid": login_uid, "channel_id": key.id_for(login_uid), "channel_type": key.channel_type().to_wire(),
            "client_msg_nos": [message.client_msg_no],
        });
        let found = self.asked_if_there::<Page>("POST", "/messages", Some(&body))?.and_then(|page| page.messages);
        // A name may stand for several messages there.
        let mut found = found.unwrap_or_default().into_iter();
        Ok(found.find(|other| other.message_seq == message.message_seq).map(|other| other.header))
    }

    /// The last seq a channel ever gave (5.4); `None`: the server does not tell, or it never had such a channel.
    ///
    /// # Errors
    /// As above.
    pub(super) fn max_seq(&self, key: &ChannelKey) -> anyhow::Result<Option<u64>> {
        // The canonical id of a person channel is what v1 and v2 both take.
        let (id, number) = (escaped(key.channel_id()), key.channel_type().to_wire());
        let path = format!("/channel/max_message_seq?channel_id={id}&channel_type={number}");
        Ok(self.asked_if_there::<MaxSeq>("GET", &path, None)?.map(|max| max.message_seq))
    }

    /// Who is on the allow list of a channel, or of a user (type person, the bare uid): 4.5.
    ///
    /// # Errors
    /// As above.
    pub(super) fn allowed(&self, id: &str, channel_type: ChannelType) -> anyhow::Result<Vec<String>> {
        let path = format!("/channel/whitelist?channel_id={}&channel_type={}", escaped(id), channel_type.to_wire());
        let listed = self.asked_if_there::<Option<Vec<Allowed>>>("GET", &path, None)?.flatten().unwrap_or_default();
        Ok(listed.into_iter().map(|(Allowed::Text(uid) | Allowed::Row { uid })| uid).collect())
    }

    /// The system users, without the built-in one (3.3). v1 does not tell.
    ///
    /// # Errors
    /// As above.
    pub(super) fn system_users(&self) -> anyhow::Result<Vec<String>> {
        let listed = self.asked_if_there::<Option<Vec<String>>>("GET", "/user/systemuids", None)?;
        Ok(listed.flatten().unwrap_or_default())
    }

    pub(super) fn asked<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<T> {
        let found = self.asked_if_there(method, path, body)?;
        found.ok_or_else(|| anyhow!("{}{path}: no such route: is this WuKongIM's API port?", self.base))
    }

    /// As above, `None` where there is no such thing.
    pub(super) fn asked_if_there<T: DeserializeOwned>(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Option<T>> {
        let asked = || match body {
            Some(body) => format!("{method} {}{path} {body}", self.base),
            None => format!("{method} {}{path}", self.base),
        };
        let answer = match self.runtime.block_on(self.answer(method, path, body)).with_context(asked)? {
            Answer::Body(answer) => answer,
            Answer::NotThere => return Ok(None),
        };
        let mut json = serde_json::Deserializer::from_slice(&answer);
        let read = serde_path_to_error::deserialize(&mut json);
        let read = read.map_err(|error| anyhow!("the answer is not what WuKongIM answers: {error}"));
        read.with_context(asked).map(Some)
    }

    /// Asks until it is answered, a few times.
    async fn answer(&self, method: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Answer> {
        let mut pauses = self.retries.iter();
        loop {
            let error = match tokio::time::timeout(TIMEOUT, self.once(method, path, body)).await {
                Ok(Ok(Ok(answer))) => return Ok(answer),
                // What was understood and refused is refused the next time, too.
                Ok(Ok(Err(refused))) => return Err(refused),
                Ok(Err(error)) => error,
                Err(_) => anyhow!("no answer within {} s", TIMEOUT.as_secs()),
            };
            match pauses.next() {
                Some(pause) => tokio::time::sleep(*pause).await,
                None => return Err(error.context("run the same command again to go on")),
            }
        }
    }

    /// One request. The outer error is worth another try.
    async fn once(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> anyhow::Result<Result<Answer, anyhow::Error>> {
        let mut request = Request::builder().method(method).uri(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("token", token);
        }
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = request.header(http::header::CONTENT_TYPE, "application/json").body(Full::new(bytes))?;
        let answer = self.pool.request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow!("the answer was cut off: {error}"))?.to_bytes();
        if status == http::StatusCode::OK {
            return Ok(Ok(Answer::Body(body)));
        }
        if status == http::StatusCode::NOT_FOUND {
            return Ok(Ok(Answer::NotThere));
        }
        if status == http::StatusCode::BAD_REQUEST
            && serde_json::from_slice::<Refused>(&body).is_ok_and(|refused| refused.msg == "not found")
        {
            return Ok(Ok(Answer::NotThere));
        }
        let text: String = String::from_utf8_lossy(&body).chars().filter(|c| !c.is_control()).take(200).collect();
        if status.is_server_error() {
            bail!("answered {status}: {text}");
        }
        let hint = match status {
            http::StatusCode::UNAUTHORIZED | http::StatusCode::FORBIDDEN => " (--token gives the manager token)",
            _ => "",
        };
        Ok(Err(anyhow!("answered {status}{hint}: {text}")))
    }
}

/// The channel a row of a user names; `None`: a type this server does not have.
///
/// # Errors
/// An id this server does not take.
pub(super) fn key_of(asker: &protocol::ids::Uid, id: &str, number: u8) -> anyhow::Result<Option<ChannelKey>> {
    let Ok(channel_type) = ChannelType::from_wire(number) else { return Ok(None) };
    let key = ChannelKey::seen_by(asker, id, channel_type);
    key.map(Some).map_err(|error| anyhow!("channel_id {id:?} of a conversation of {asker} {error}"))
}
