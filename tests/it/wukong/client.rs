//! A client of WuKongIM's packets that says exactly what a test wants.

use std::collections::VecDeque;

use chinwag::credentials::Credentials;
use protocol::ids::DeviceFlag;
use protocol::wukong::{
    Cipher, ConnAck, Connect, Flags, Packet, RawPacket, Reason, RecvAck, Send, SendAck, ServerSecret, Setting, SubAck,
    Version, cut, decode, encode,
};
use tokio::net::TcpStream;

use crate::harness::{PATIENCE, Server};
use crate::raw::{Raw, masked};

/// Which way a client comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    WebSocket,
    Tcp,
}

/// All clients: versions that differ, and both ways.
pub const KINDS: [(u8, Way); 6] =
    [(2, Way::WebSocket), (5, Way::WebSocket), (6, Way::WebSocket), (2, Way::Tcp), (5, Way::Tcp), (6, Way::Tcp)];

/// Gives a user's device kind a token of a level.
pub async fn token(server: &Server, uid: &str, flag: u8, level: u8) -> String {
    let token = format!("token-of-{uid}-{flag}");
    let hash = Credentials::open(&server.config.data_dir).expect("credentials").hash(&token);
    server.app.hub().set_token(server.uid(uid), DeviceFlag(flag), level, hash).await.expect("token is set");
    token
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Got {
    ConnAck(ConnAck<'static>),
    Ack(SendAck<'static>),
    Recv(Message),
    Pong,
    Disconnect { reason: Reason, text: String },
    SubAck(SubAck<'static>),
    Event { id: String, event_type: String, timestamp: i64, data: Vec<u8> },
}

/// A RECV, opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub flags: Flags,
    pub setting: Setting,
    pub from_uid: String,
    pub channel_id: String,
    pub channel_type: u8,
    pub client_msg_no: String,
    pub message_id: i64,
    pub message_seq: u64,
    pub timestamp: i32,
    pub topic: String,
    pub payload: Vec<u8>,
}

/// How a client begins.
#[derive(Debug, Clone)]
pub struct Hello {
    pub version: u8,
    pub way: Way,
    pub uid: String,
    pub token: String,
    pub device_id: String,
    pub device_flag: u8,
    /// Offers a key.
    pub key: bool,
}

impl Hello {
    pub fn new(version: u8, way: Way, uid: &str, token: &str) -> Self {
        let (uid, token) = (uid.to_owned(), token.to_owned());
        Self { version, way, uid, token, device_id: String::new(), device_flag: 1, key: true }
    }

    /// CONNECT, and the secret behind its key.
    pub fn packet(&self) -> (Vec<u8>, ServerSecret) {
        let secret = ServerSecret::from_random(rand_bytes());
        let client_key = if self.key { secret.public_key() } else { String::new() };
        let connect = Connect {
            version: self.version,
            device_flag: self.device_flag,
            device_id: self.device_id.as_str().into(),
            uid: self.uid.as_str().into(),
            token: self.token.as_str().into(),
            client_timestamp: 1_700_000_000_123,
            client_key: client_key.into(),
        };
        (bytes_of(Version::negotiate(self.version), &Packet::Connect(connect)), secret)
    }
}

fn rand_bytes() -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    bytes[16..].copy_from_slice(uuid::Uuid::new_v4().as_bytes());
    bytes
}

/// A packet as bytes.
pub fn bytes_of(version: Version, packet: &Packet<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    encode(version, packet, &mut out).expect("encodes");
    out
}

/// A client.
pub struct Wk {
    pub raw: Raw,
    pub way: Way,
    pub version: Version,
    pub cipher: Option<Cipher>,
    pub close_number: Option<u16>,
    next_seq: u32,
    kept: VecDeque<Got>,
}

impl Wk {
    /// A socket without a session.
    pub async fn open(server: &Server, version: u8, way: Way) -> Self {
        let raw = match way {
            Way::WebSocket => Raw::upgraded(server, None).await,
            Way::Tcp => {
                let addr = server.app.wukong_addr().expect("the TCP listener is on");
                Raw { stream: TcpStream::connect(addr).await.expect("connects"), buffer: Vec::new() }
            }
        };
        raw.stream.set_nodelay(true).expect("nodelay");
        let version = Version::negotiate(version);
        Self { raw, way, version, cipher: None, close_number: None, next_seq: 1, kept: VecDeque::new() }
    }

    /// A session of a user whose token is made for it.
    pub async fn connect(server: &Server, version: u8, way: Way, uid: &str) -> Self {
        let token = token(server, uid, 1, 0).await;
        Self::begin(server, &Hello::new(version, way, uid, &token)).await.expect("CONNACK says success")
    }

    /// A session, or the reason there is none; `None`: closed without an answer.
    pub async fn begin(server: &Server, hello: &Hello) -> Result<Self, Option<Reason>> {
        let mut client = Self::open(server, hello.version, hello.way).await;
        let (connect, secret) = hello.packet();
        client.write(&connect).await;
        client.finish(&secret).await.map(|()| client)
    }

    /// Reads CONNACK and agrees on the key.
    pub async fn finish(&mut self, secret: &ServerSecret) -> Result<(), Option<Reason>> {
        let ack = match self.receive().await {
            Some(Got::ConnAck(ack)) => ack,
            None => return Err(None),
            other => panic!("CONNACK was expected: {other:?}"),
        };
        if ack.reason != Reason::SUCCESS {
            assert!(ack.server_key.is_empty() && ack.salt.is_empty(), "{ack:?}");
            return Err(Some(ack.reason));
        }
        assert_eq!(ack.server_version.is_some(), self.version.is_told(), "{ack:?}");
        assert!(ack.server_version.is_none_or(|version| version == self.version.get()), "{ack:?}");
        assert_eq!(ack.node_id > 0, self.version.has_node_id(), "{ack:?}");
        assert!(ack.time_diff > 0, "the client's clock was in 2023: {ack:?}");
        if !ack.server_key.is_empty() {
            self.cipher = Some(secret.agree(&ack.server_key, &ack.salt).expect("a good key"));
        }
        Ok(())
    }

    /// Writes bytes: one WebSocket message, or as they are.
    pub async fn write(&mut self, bytes: &[u8]) {
        match self.way {
            Way::WebSocket => self.raw.write(&masked(0x82, bytes)).await,
            Way::Tcp => self.raw.write(bytes).await,
        }
    }

    /// Writes a packet.
    pub async fn say(&mut self, packet: &Packet<'_>) {
        let bytes = bytes_of(self.version, packet);
        self.write(&bytes).await;
    }

    /// A SEND under the session's key.
    pub fn message(&mut self, client_msg_no: &str, to: &str, channel_type: u8, payload: &[u8]) -> Send<'static> {
        self.next_seq += 1;
        let send = Send {
            flags: Flags { red_dot: true, ..Flags::default() },
            client_seq: self.next_seq - 1,
            client_msg_no: client_msg_no.to_owned().into(),
            channel_id: to.to_owned().into(),
            channel_type,
            payload: payload.to_owned().into(),
            ..Send::default()
        };
        self.seal(send)
    }

    /// Encrypts and signs a SEND.
    pub fn seal(&self, mut send: Send<'static>) -> Send<'static> {
        if let Some(cipher) = &self.cipher {
            let mut wire = Vec::new();
            cipher.encrypt(&send.payload, &mut wire);
            send.payload = wire.into();
            send.msg_key = String::from_utf8(cipher.send_key(&send).to_vec()).expect("hex").into();
        }
        send
    }

    /// Sends and waits for the answer.
    pub async fn send(&mut self, client_msg_no: &str, to: &str, channel_type: u8, payload: &[u8]) -> SendAck<'static> {
        let send = self.message(client_msg_no, to, channel_type, payload);
        let client_seq = send.client_seq;
        self.say(&Packet::Send(send)).await;
        self.ack(client_seq).await
    }

    /// The answer to a SEND.
    pub async fn ack(&mut self, client_seq: u32) -> SendAck<'static> {
        self.expect(|got| match got {
            Got::Ack(ack) if ack.client_seq == client_seq => Some(ack.clone()),
            _ => None,
        })
        .await
    }

    /// The next message.
    pub async fn recv(&mut self) -> Message {
        let message = self
            .expect(|got| match got {
                Got::Recv(message) => Some(message.clone()),
                _ => None,
            })
            .await;
        let ack = RecvAck { flags: message.flags, message_id: message.message_id, message_seq: message.message_seq };
        self.say(&Packet::RecvAck(ack)).await;
        message
    }

    /// Everything the server wrote before it answered a ping.
    pub async fn pending(&mut self) -> Vec<Got> {
        self.say(&Packet::Ping).await;
        self.expect(|got| (*got == Got::Pong).then_some(())).await;
        self.kept.drain(..).collect()
    }

    /// The first of what comes that `pick` takes; the rest is kept.
    pub async fn expect<T>(&mut self, mut pick: impl FnMut(&Got) -> Option<T>) -> T {
        if let Some(at) = self.kept.iter().position(|got| pick(got).is_some()) {
            let got = self.kept.remove(at).expect("position exists");
            return pick(&got).expect("picked before");
        }
        loop {
            let got = self.receive().await.expect("a packet before the end");
            match pick(&got) {
                Some(picked) => return picked,
                None => self.kept.push_back(got),
            }
        }
    }

    /// Reads to the end: the DISCONNECT, if one came.
    pub async fn ended(&mut self) -> Option<(Reason, String)> {
        let mut told = None;
        while let Some(got) = self.receive().await {
            if let Got::Disconnect { reason, text } = got {
                told = Some((reason, text));
            }
        }
        told
    }

    /// The next packet from the socket; `None`: closed.
    pub async fn receive(&mut self) -> Option<Got> {
        loop {
            match self.way {
                Way::WebSocket => match self.raw.frame().await? {
                    (2, payload) => {
                        let raw = cut(&payload, payload.len()).expect("a packet").expect("a whole packet");
                        // The JavaScript SDK of version 2 loses what stands behind the first packet of a message.
                        assert_eq!(raw.bytes, payload.len(), "one packet per message");
                        return Some(self.got(&raw));
                    }
                    (8, payload) => {
                        self.close_number = payload.first_chunk().map(|number| u16::from_be_bytes(*number));
                        return None;
                    }
                    (opcode, _) => panic!("opcode {opcode}"),
                },
                Way::Tcp => {
                    let buffer = std::mem::take(&mut self.raw.buffer);
                    if let Some(raw) = cut(&buffer, 1 << 20).expect("a packet") {
                        self.raw.buffer = buffer[raw.bytes..].to_vec();
                        return Some(self.got(&raw));
                    }
                    self.raw.buffer = buffer;
                    if !self.raw.more().await {
                        assert!(self.raw.buffer.is_empty(), "the end inside of a packet");
                        return None;
                    }
                }
            }
        }
    }

    fn got(&self, raw: &RawPacket<'_>) -> Got {
        match decode(self.version, raw).expect("decodes") {
            Packet::ConnAck(ack) => Got::ConnAck(ConnAck {
                server_key: ack.server_key.into_owned().into(),
                salt: ack.salt.into_owned().into(),
                ..ack
            }),
            Packet::SendAck(ack) => Got::Ack(SendAck { client_msg_no: ack.client_msg_no.into_owned().into(), ..ack }),
            Packet::Recv(recv) => {
                let mut payload = Vec::new();
                match &self.cipher {
                    Some(cipher) => cipher.open_recv(&recv, &mut payload).expect("sealed for this session"),
                    None => {
                        assert!(recv.msg_key.is_empty());
                        payload.extend_from_slice(&recv.payload);
                    }
                }
                Got::Recv(Message {
                    flags: recv.flags,
                    setting: recv.setting,
                    from_uid: recv.from_uid.into_owned(),
                    channel_id: recv.channel_id.into_owned(),
                    channel_type: recv.channel_type,
                    client_msg_no: recv.client_msg_no.into_owned(),
                    message_id: recv.message_id,
                    message_seq: recv.message_seq,
                    timestamp: recv.timestamp,
                    topic: recv.topic.into_owned(),
                    payload,
                })
            }
            Packet::Pong => Got::Pong,
            Packet::Disconnect(end) => Got::Disconnect { reason: end.reason, text: end.text.into_owned() },
            Packet::SubAck(ack) => Got::SubAck(SubAck {
                sub_no: ack.sub_no.into_owned().into(),
                channel_id: ack.channel_id.into_owned().into(),
                ..ack
            }),
            Packet::Event(event) => Got::Event {
                id: event.id.into_owned(),
                event_type: event.event_type.into_owned(),
                timestamp: event.timestamp,
                data: event.data.into_owned(),
            },
            other => panic!("nothing a server sends: {other:?}"),
        }
    }

    /// Waits until the socket has ended.
    pub async fn gone(&mut self) {
        let begun = tokio::time::Instant::now();
        while self.receive().await.is_some() {
            assert!(begun.elapsed() < PATIENCE);
        }
    }
}
