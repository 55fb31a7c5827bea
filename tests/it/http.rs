//! Calls of the HTTP API, as a back end or a user makes them.

use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::harness::{PATIENCE, Server};

/// A caller with a credential.
pub struct Caller {
    client: reqwest::Client,
    base: String,
    credential: String,
}

/// What came back.
pub struct Answer {
    pub status: StatusCode,
    pub version: Option<u64>,
    pub reset: Option<String>,
    pub headers: reqwest::header::HeaderMap,
    pub bytes: Vec<u8>,
    pub json: Value,
}

impl Caller {
    /// With the root key.
    pub fn root(server: &Server) -> Self {
        let key = std::fs::read_to_string(server.config.data_dir.join("root.key")).expect("the root key");
        Self::with(server, key.trim())
    }

    /// A user with a token of one's own.
    pub async fn user(server: &Server, uid: &str) -> Self {
        let token = server.user(uid).await;
        Self::with(server, &token)
    }

    /// With any credential.
    pub fn with(server: &Server, credential: &str) -> Self {
        let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        Self { client, base: format!("http://{}", server.app.http_addr()), credential: credential.to_owned() }
    }

    /// POSTs JSON.
    pub async fn post(&self, path: &str, body: Value) -> Answer {
        let request = self.client.post(format!("{}{path}", self.base)).bearer_auth(&self.credential);
        Self::read(request.json(&body).send().await.expect("an answer")).await
    }

    /// POSTs what must succeed.
    pub async fn done(&self, path: &str, body: Value) -> Value {
        let answer = self.post(path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.json);
        answer.json
    }

    /// GETs.
    pub async fn get(&self, path: &str) -> Answer {
        let request = self.client.get(format!("{}{path}", self.base)).header("token", &self.credential);
        Self::read(request.send().await.expect("an answer")).await
    }

    /// Any method, with JSON or without, the credential in the header `token`.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Answer {
        let body = body.map(|json| json.to_string()).unwrap_or_default();
        self.raw(method, path, &[("token", &self.credential)], body).await
    }

    /// As [`Caller::call`], for what must succeed.
    pub async fn ok(&self, method: &str, path: &str, body: Option<Value>) -> Value {
        let answer = self.call(method, path, body).await;
        assert_eq!(answer.status, StatusCode::OK, "{method} {path}: {}", answer.json);
        answer.json
    }

    /// Any request, byte for byte; no credential but the headers'.
    pub async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<reqwest::Body>,
    ) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).expect("a method");
        let mut request = self.client.request(method, format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        Self::read(request.body(body).send().await.expect("an answer")).await
    }

    /// The credential.
    pub fn credential(&self) -> &str {
        &self.credential
    }

    /// Sends a message that counts; the answer's fields.
    pub async fn send(&self, from: &str, channel_id: &str, channel_type: u8, text: &str) -> Value {
        use base64::Engine;
        let payload = base64::engine::general_purpose::STANDARD.encode(text);
        let body = serde_json::json!({
            "header": {"red_dot": 1}, "from_uid": from, "channel_id": channel_id, "channel_type": channel_type,
            "payload": payload,
        });
        self.done("/message/send", body).await
    }

    async fn read(response: Response) -> Answer {
        let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let (status, version, reset) = (response.status(), header("x-chinwag-version"), header("x-chinwag-reset"));
        let headers = response.headers().clone();
        let bytes = response.bytes().await.expect("a body").to_vec();
        let text = String::from_utf8_lossy(&bytes);
        let json = serde_json::from_str(&text).unwrap_or_else(|_| Value::String(text.into_owned()));
        Answer { status, version: version.and_then(|v| v.parse().ok()), reset, headers, bytes, json }
    }
}
