//! Speaks to a running server over HTTP, one request at a time, for the commands.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::http::envelope::ErrorBody;
use crate::http::extract::NAMESPACE_HEADER;

/// Longest answer read, in bytes: a list of all keys fits many times.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What became of a request.
pub(super) enum Asked<T> {
    /// The server answered.
    Answer(T),
    /// Nobody listens there.
    NobodyThere,
}

/// Where commands find the server that listens on `addr`: "any address" means this machine.
pub(super) fn reachable(addr: SocketAddr) -> SocketAddr {
    match addr.ip() {
        ip if !ip.is_unspecified() => addr,
        IpAddr::V4(_) => (Ipv4Addr::LOCALHOST, addr.port()).into(),
        IpAddr::V6(_) => (Ipv6Addr::LOCALHOST, addr.port()).into(),
    }
}

/// A request of a command.
pub(super) struct Question<'a> {
    /// Path.
    pub path: &'a str,
    /// Bearer.
    pub credential: &'a str,
    /// The tenant; `None`: the default one.
    pub namespace: Option<&'a str>,
    /// JSON to POST; `None`: GET.
    pub body: Option<serde_json::Value>,
}

/// One request with a credential. `body` none: GET.
///
/// # Errors
/// The server's refusal in its own words, or what went wrong on the way.
pub(super) fn ask<T: DeserializeOwned>(
    addr: SocketAddr,
    path: &str,
    credential: &str,
    body: Option<serde_json::Value>,
) -> anyhow::Result<Asked<T>> {
    let (status, bytes) = match exchange(addr, &Question { path, credential, namespace: None, body })? {
        Asked::Answer(answer) => answer,
        Asked::NobodyThere => return Ok(Asked::NobodyThere),
    };
    if status.is_success() {
        return Ok(Asked::Answer(serde_json::from_slice(&bytes).with_context(|| spoken(addr))?));
    }
    if status == hyper::StatusCode::UNAUTHORIZED {
        bail!("the server at {addr} does not know this root key: is it another server, with another data directory?");
    }
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(error) => bail!("the server refused: {} ({})", error.msg, error.code),
        Err(_) => bail!("the server at {addr} answered {status}"),
    }
}

fn spoken(addr: SocketAddr) -> String {
    format!("what listens at {addr} does not speak HTTP as Chinwag does")
}

/// One request; the answer as it came, whatever its status.
///
/// # Errors
/// What went wrong on the way.
pub(super) fn exchange(addr: SocketAddr, question: &Question<'_>) -> anyhow::Result<Asked<(hyper::StatusCode, Bytes)>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let asked = tokio::time::timeout(TIMEOUT, exchange_async(reachable(addr), question)).await;
        asked.map_err(|_| anyhow!("the server at {addr} does not answer"))?
    })
}

async fn exchange_async(
    addr: SocketAddr,
    question: &Question<'_>,
) -> anyhow::Result<Asked<(hyper::StatusCode, Bytes)>> {
    let stream = match TcpStream::connect(addr).await {
        Ok(stream) => stream,
        Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused => return Ok(Asked::NobodyThere),
        Err(e) => return Err(e).with_context(|| format!("cannot reach the server at {addr}")),
    };
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.with_context(|| spoken(addr))?;
    tokio::spawn(async move {
        // Its errors reach the request.
        let _ = connection.await;
    });
    let body = question.body.as_ref();
    let mut request = Request::builder()
        .method(if body.is_some() { "POST" } else { "GET" })
        .uri(question.path)
        .header("host", addr.to_string())
        .header("authorization", format!("Bearer {}", question.credential))
        .header("content-type", "application/json");
    if let Some(namespace) = question.namespace {
        request = request.header(NAMESPACE_HEADER, namespace);
    }
    let request = request.body(Full::new(body.map(|json| Bytes::from(json.to_string())).unwrap_or_default()))?;
    let response = sender.send_request(request).await.with_context(|| spoken(addr))?;
    let status = response.status();
    let bytes =
        Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await.map_err(|e| anyhow!("{e}"))?.to_bytes();
    Ok(Asked::Answer((status, bytes)))
}
