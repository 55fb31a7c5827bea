//! The opening handshake (RFC 6455 section 4.2): an HTTP/1.1 request head in, a response out.
//!
//! A request that is no upgrade gets an answer a person understands, since people point browsers and curl at the port.
//! Bytes behind the head are the client's first frames and are kept: `consumed` says where they begin.

use protocol::native::{Encoding, SUBPROTOCOL_JSON, SUBPROTOCOL_MSGPACK};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// Largest request head in bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1_024;
/// Most header lines; browsers send about 15.
const HEADERS_MAX: usize = 64;

/// What the bytes received so far are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handshake {
    /// The head is not whole: read more, append, ask again.
    Incomplete,
    /// A good upgrade: write the response and read frames.
    Upgrade(Upgrade),
    /// Anything else: write these bytes and close.
    Refuse {
        /// Status of the response, for the log.
        status: u16,
        /// The whole response.
        response: Vec<u8>,
    },
}

/// An accepted upgrade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upgrade {
    /// The `101` response to write.
    pub response: Vec<u8>,
    /// Length of the request head: what follows are the first frames.
    pub consumed: usize,
    /// The encoding its subprotocol named; `None`: none was named, the first message's first byte decides.
    pub encoding: Option<Encoding>,
    /// Request target, path and query, as sent.
    pub target: String,
    /// All of `X-Forwarded-For`, its lines joined by commas in their order, as sent: to be believed only behind a trusted
    /// proxy. Bytes, since what a client wrote there may be none of UTF-8, and what its proxy added stands behind it.
    pub forwarded_for: Vec<u8>,
}

/// Reads a request head from the first bytes of a connection.
#[must_use]
pub fn read_request(bytes: &[u8]) -> Handshake {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    let consumed = match request.parse(bytes) {
        Ok(httparse::Status::Complete(consumed)) if consumed <= HEAD_BYTES_MAX => consumed,
        Ok(httparse::Status::Partial) if bytes.len() < HEAD_BYTES_MAX => return Handshake::Incomplete,
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {
            return refuse(
                431,
                "Request Header Fields Too Large",
                "",
                "the request head is larger than 8 KiB or 64 lines",
            );
        }
        Err(_) => {
            return refuse(
                400,
                "Bad Request",
                "",
                "this port speaks WebSocket over plain HTTP/1.1; is it wss:// or https:// where ws:// was meant?",
            );
        }
    };
    match judge(&request) {
        Ok((key, encoding)) => Handshake::Upgrade(Upgrade {
            response: accept(key, encoding),
            consumed,
            encoding,
            target: request.path.unwrap_or("/").to_owned(),
            forwarded_for: lines(&request, "x-forwarded-for").collect::<Vec<_>>().join(&b','),
        }),
        Err(refusal) => refusal,
    }
}

fn judge<'a>(request: &httparse::Request<'_, 'a>) -> Result<(&'a [u8], Option<Encoding>), Handshake> {
    let bad = |text: &str| refuse(400, "Bad Request", "", text);
    if request.method != Some("GET") {
        return Err(refuse(
            405,
            "Method Not Allowed",
            "Allow: GET\r\n",
            "this port speaks WebSocket; the HTTP API is on its own port",
        ));
    }
    if !values(request, "upgrade").any(|value| value.eq_ignore_ascii_case("websocket")) {
        return Err(if matches!(request.path, Some("/")) {
            refuse(
                426,
                "Upgrade Required",
                "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
                "this is Chinwag's WebSocket port: connect with a WebSocket client, subprotocol chinwag.v1.json or \
                 chinwag.v1.msgpack; the HTTP API is on its own port",
            )
        } else {
            refuse(404, "Not Found", "", "this port speaks WebSocket only; the HTTP API is on its own port")
        });
    }
    if request.version != Some(1) {
        return Err(bad("a WebSocket upgrade needs HTTP/1.1"));
    }
    if !values(request, "connection").any(|value| value.eq_ignore_ascii_case("upgrade")) {
        return Err(bad("the Connection header does not name upgrade; does a proxy in between drop it?"));
    }
    if values(request, "host").next().is_none() {
        return Err(bad("the Host header is missing"));
    }
    // A body would be read as frames.
    if header(request, "transfer-encoding").is_some()
        || header(request, "content-length").is_some_and(|len| len != b"0")
    {
        return Err(bad("an upgrade request has no body"));
    }
    if header(request, "sec-websocket-version") != Some(b"13") {
        return Err(refuse(
            426,
            "Upgrade Required",
            "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n",
            "only WebSocket version 13 is spoken here",
        ));
    }
    let Some(key) = header(request, "sec-websocket-key").filter(|key| is_key(key)) else {
        return Err(bad("Sec-WebSocket-Key is not the base64 of 16 bytes"));
    };
    let mut encoding = None;
    let mut ours_but_unknown = false;
    for name in values(request, "sec-websocket-protocol") {
        match Encoding::from_subprotocol(name) {
            Some(known) => {
                // The client lists what it likes best first.
                encoding = Some(known);
                break;
            }
            None => ours_but_unknown |= name.starts_with("chinwag."),
        }
    }
    if encoding.is_none() && ours_but_unknown {
        return Err(bad(&format!("the subprotocols offered here are {SUBPROTOCOL_MSGPACK} and {SUBPROTOCOL_JSON}")));
    }
    Ok((key, encoding))
}

fn is_key(key: &[u8]) -> bool {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16)
}

/// The first header of this name, trimmed.
fn header<'a>(request: &httparse::Request<'_, 'a>, name: &str) -> Option<&'a [u8]> {
    request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value.trim_ascii())
}

/// The values of a header, line by line.
fn lines<'a, 'h>(request: &'h httparse::Request<'_, 'a>, name: &'h str) -> impl Iterator<Item = &'a [u8]> + 'h
where
    'a: 'h,
{
    request.headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// Items of a header that is a comma list, over all its lines. What is not UTF-8 is skipped.
fn values<'a, 'h>(request: &'h httparse::Request<'_, 'a>, name: &'h str) -> impl Iterator<Item = &'a str> + 'h
where
    'a: 'h,
{
    lines(request, name)
        .filter_map(|value| std::str::from_utf8(value).ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|value| !value.is_empty())
}

fn accept(key: &[u8], encoding: Option<Encoding>) -> Vec<u8> {
    let mut response = Vec::with_capacity(192);
    response.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    response.extend_from_slice(derive_accept_key(key).as_bytes());
    if let Some(encoding) = encoding {
        response.extend_from_slice(b"\r\nSec-WebSocket-Protocol: ");
        response.extend_from_slice(encoding.subprotocol().as_bytes());
    }
    response.extend_from_slice(b"\r\n\r\n");
    response
}

fn refuse(status: u16, phrase: &str, headers: &str, text: &str) -> Handshake {
    let response = format!(
        "HTTP/1.1 {status} {phrase}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\
         Connection: close\r\n{headers}\r\n{text}\n",
        text.len() + 1
    );
    Handshake::Refuse { status, response: response.into_bytes() }
}
