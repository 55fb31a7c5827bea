//! A client that writes bytes as the test wants them: no library stands between the test and the socket.

use protocol::native::{ClientFrame, Connect, Encoding, ServerFrame, decode_server, encode_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{PATIENCE, Server};

/// A socket and what was read of it.
pub struct Raw {
    pub stream: TcpStream,
    pub buffer: Vec<u8>,
}

/// The upgrade request.
pub fn upgrade_request(subprotocol: Option<&str>) -> Vec<u8> {
    let protocol = subprotocol.map_or(String::new(), |name| format!("Sec-WebSocket-Protocol: {name}\r\n"));
    format!(
        "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{protocol}\r\n"
    )
    .into_bytes()
}

/// A client's WebSocket frame, masked.
pub fn masked(first_byte: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x12, 0x34, 0x56, 0x78];
    let mut out = vec![first_byte];
    match payload.len() {
        len @ 0..=125 => out.push(0x80 | len as u8),
        len @ 126..=0xffff => {
            out.push(0x80 | 126);
            out.extend_from_slice(&(len as u16).to_be_bytes());
        }
        len => {
            out.push(0x80 | 127);
            out.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().enumerate().map(|(i, byte)| byte ^ MASK[i % 4]));
    out
}

/// A client frame as the bytes of a WebSocket message.
pub fn message(encoding: Encoding, frame: &ClientFrame<'_>) -> Vec<u8> {
    let mut payload = Vec::new();
    encode_client(encoding, frame, &mut payload).expect("frame encodes");
    masked(if encoding.is_text() { 0x81 } else { 0x82 }, &payload)
}

/// A `connect` with a token.
pub fn connect(token: &str) -> ClientFrame<'static> {
    ClientFrame::Connect(Connect {
        token: token.to_owned().into(),
        uid: None,
        device_id: "".into(),
        device_flag: 0,
        client: None,
        resume: None,
    })
}

impl Raw {
    /// A TCP connection.
    pub async fn open(server: &Server) -> Self {
        let stream = TcpStream::connect(server.app.socket_addr()).await.expect("connects");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, buffer: Vec::new() }
    }

    /// A socket that took the upgrade.
    pub async fn upgraded(server: &Server, subprotocol: Option<&str>) -> Self {
        let mut raw = Self::open(server).await;
        raw.write(&upgrade_request(subprotocol)).await;
        let head = raw.head().await;
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        raw
    }

    /// Writes bytes.
    pub async fn write(&mut self, bytes: &[u8]) {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes))
            .await
            .expect("in time")
            .expect("socket takes bytes");
    }

    /// Reads more; `false` at the end.
    pub async fn more(&mut self) -> bool {
        let read = self.stream.read_buf(&mut self.buffer);
        tokio::time::timeout(PATIENCE, read).await.expect("bytes in time").is_ok_and(|read| read > 0)
    }

    /// A response head.
    pub async fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                return String::from_utf8(head).expect("utf-8");
            }
            assert!(self.more().await, "the end instead of a response: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }

    /// Everything up to the end.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// The next WebSocket frame: opcode and payload; `None` at the end.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Some((opcode, from, to)) = self.whole_frame() {
                let payload = self.buffer[from..to].to_vec();
                self.buffer.drain(..to);
                return Some((opcode, payload));
            }
            if !self.more().await {
                return None;
            }
        }
    }

    fn whole_frame(&self) -> Option<(u8, usize, usize)> {
        let bytes = &self.buffer;
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        assert_eq!(first & 0x80, 0x80, "the server does not fragment");
        assert_eq!(second & 0x80, 0, "a server does not mask");
        let (len, from) = match second {
            126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?) as usize, 10),
            len => (usize::from(len), 2),
        };
        (bytes.len() >= from + len).then_some((first & 0x0f, from, from + len))
    }

    /// The next frame of the protocol; `None` at a close or the end.
    pub async fn next(&mut self, encoding: Encoding) -> Option<ServerFrame<'static>> {
        loop {
            match self.frame().await? {
                (1 | 2, payload) => return Some(decode_server(encoding, &payload).expect("decodes")),
                (8, _) => return None,
                _ => {}
            }
        }
    }

    /// The `closing` frame and the number of the close frame.
    pub async fn closing(&mut self, encoding: Encoding) -> (Option<String>, Option<u16>) {
        let mut reason = None;
        while let Some((opcode, payload)) = self.frame().await {
            match opcode {
                1 | 2 => {
                    if let ServerFrame::Closing(closing) = decode_server(encoding, &payload).expect("decodes") {
                        reason = Some(closing.reason.into_owned());
                    }
                }
                8 => return (reason, Some(u16::from_be_bytes([payload[0], payload[1]]))),
                _ => {}
            }
        }
        (reason, None)
    }
}
