//! From a fresh socket to a session: upgrade, first frame, credential, registration, `connected`.
//!
//! A short task of its own, so that its buffers are no part of the long-lived connection's.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use protocol::close::CloseReason;
use protocol::ids::{DeviceFlag, DeviceId, Uid, Version};
use protocol::native::{ClientFrame, Connect, Encoding, ServerFrame, Sniffed, decode_client};
use protocol::wukong::{Cutter, Packet, RawPacket, Version as WukongVersion, decode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::{Connection, Speaker};
use super::native::{self, SyncAsked, Viewer, bad_id};
use super::seat::Seat;
use super::websocket::handshake::{HEAD_BYTES_MAX, Handshake, read_request};
use super::websocket::{Event, FrameReader, ReadLimits, close_frame};
use super::wire::Wire;
use super::wukong::connect::CONNECT_BYTES_MAX;
use super::{Context, Door, Stage, jsonrpc, wukong};
use crate::clock;
use crate::domain::identity::Identity;
use crate::domain::refusal::Refusal;
use crate::hub::outbox::Control;
use crate::hub::sessions::{Device, SessionPlace};
use crate::proxies::{self, HEADER_BYTES_MAX, Header};
use crate::voices;

/// Bytes of one read before there is a session.
const READ_BYTES: usize = 2 * 1024;

/// How long a client of WuKongIM may take to read why it is refused.
const LINGER: Duration = Duration::from_secs(1);

/// What every request of JSON-RPC has and no native frame.
const METHOD: &[u8] = b"\"method\"";

/// What is known of how the peer speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spoken {
    /// Nothing yet.
    Unknown,
    /// Native frames.
    Native(Encoding),
    /// WuKongIM's packets or JSON-RPC, which have no word for most closes.
    Foreign,
}

/// Why a socket did not become a session.
enum Fault {
    /// The peer hung up, or was told all it can be told.
    Over,
    /// It is told this reason as it speaks, if that is known.
    Close(CloseReason, Option<Refusal>),
    /// These are the last bytes, and it is given time to read them.
    Told(Vec<u8>),
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Self {
        Self::Over
    }
}

impl From<CloseReason> for Fault {
    fn from(reason: CloseReason) -> Self {
        Self::Close(reason, None)
    }
}

/// Takes a socket through the handshake. `None`: it is closed.
pub(super) async fn open(
    context: &Rc<Context>,
    mut stream: TcpStream,
    peer: SocketAddr,
    door: Door,
) -> Option<Connection> {
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(&stream);
    // Without it a reader that stalls hides behind megabytes of send buffer.
    let _ = socket.set_tcp_notsent_lowat(context.limits.not_sent_low_water_bytes);
    let mut spoken = if door == Door::Stream { Spoken::Foreign } else { Spoken::Unknown };
    let timeout = context.limits.connect_timeout;
    let mut client = peer;
    let begin = async {
        let early = introduced(context, &mut stream, &mut client).await?;
        match door {
            Door::WebSocket => upgrade(context, &mut stream, early, &mut client, &mut spoken).await,
            Door::Stream => greet(context, &mut stream, early).await,
        }
    };
    let outcome = tokio::select! {
        biased;
        outcome = tokio::time::timeout(timeout, begin) => Some(outcome),
        () = context.front.reached(Stage::Closing) => None,
    };
    let fault = match outcome {
        Some(Ok(Ok(opened))) => {
            return Some(install(context, stream, door, opened, (client != peer).then_some(client)));
        }
        Some(Ok(Err(fault))) => fault,
        Some(Err(_)) => Fault::Close(CloseReason::ConnectTimeout, None),
        None => Fault::Close(CloseReason::Draining, None),
    };
    match fault {
        Fault::Over => {}
        Fault::Close(reason, refusal) => {
            let last = last_words(context, door, spoken, reason, refusal);
            let farewell = async {
                stream.write_all(&last).await?;
                stream.shutdown().await
            };
            let _ = tokio::time::timeout(Duration::from_secs(1), farewell).await;
        }
        Fault::Told(last) => {
            let farewell = async {
                stream.write_all(&last).await?;
                stream.shutdown().await?;
                // Until the client hangs up: what it wrote and nobody read would make the kernel throw the answer away.
                let mut unread = [0; 512];
                while stream.read(&mut unread).await? > 0 {}
                Ok::<(), std::io::Error>(())
            };
            let _ = tokio::time::timeout(LINGER, farewell).await;
        }
    }
    None
}

/// What a peer is told that never had a session.
fn last_words(context: &Context, door: Door, spoken: Spoken, reason: CloseReason, refusal: Option<Refusal>) -> Vec<u8> {
    if let Some(refusal) = &refusal {
        context.hub.metrics().refused(refusal.code());
    }
    let encoding = match (door, spoken) {
        (Door::Stream, _) => return Vec::new(),
        (Door::WebSocket, Spoken::Foreign) => return close_frame(reason.number(), reason.text()).to_vec(),
        (Door::WebSocket, Spoken::Native(encoding)) => encoding,
        (Door::WebSocket, Spoken::Unknown) => Encoding::MessagePack,
    };
    let mut last = Vec::new();
    if let Some(refusal) = refusal {
        last.extend_from_slice(&native::frame(encoding, &ServerFrame::Refused(native::refused(None, &refusal))));
    }
    last.extend_from_slice(&native::closing(encoding, reason));
    last
}

/// What the handshake leaves for the connection.
struct Opened {
    entered: Entered,
    wire: Wire,
    speaker: Speaker,
    /// The first bytes it is sent.
    first: bytes::Bytes,
    /// What came behind its first message.
    reader: FrameReader,
}

/// Lets a trusted proxy say whom it speaks for, where it is to: reads its header and returns what came behind it. From anybody
/// else the first byte is the client's.
async fn introduced(context: &Context, stream: &mut TcpStream, client: &mut SocketAddr) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    if !context.limits.proxy_protocol || !context.front.proxies.trusts(client.ip()) {
        return Ok(bytes);
    }
    loop {
        if read_some(stream, &mut bytes, HEADER_BYTES_MAX).await? == 0 {
            return Err(Fault::Over);
        }
        match proxies::header(&bytes) {
            Header::Incomplete => {}
            Header::Malformed => {
                tracing::debug!(peer = %client, "a trusted proxy sent no header of the proxy protocol");
                return Err(Fault::Over);
            }
            Header::Whole { client: named, bytes: length } => {
                bytes.drain(..length);
                if let Some(named) = named {
                    *client = named;
                    refuse_blocked(context, client)?;
                }
                return Ok(bytes);
            }
        }
    }
}

/// Closes without a word, as [`super::accept`] does where the peer itself is blocked.
fn refuse_blocked(context: &Context, client: &SocketAddr) -> Result<(), Fault> {
    if context.hub.is_address_blocked(client.ip()) { Err(Fault::Over) } else { Ok(()) }
}

/// A WebSocket: upgrade, then a first message that says what is spoken. `bytes` came already.
async fn upgrade(
    context: &Rc<Context>,
    stream: &mut TcpStream,
    mut bytes: Vec<u8>,
    client: &mut SocketAddr,
    spoken: &mut Spoken,
) -> Result<Opened, Fault> {
    let mut read = !bytes.is_empty();
    let upgrade = loop {
        if !std::mem::take(&mut read) && read_some(stream, &mut bytes, HEAD_BYTES_MAX + READ_BYTES).await? == 0 {
            return Err(Fault::Over);
        }
        match read_request(&bytes) {
            Handshake::Incomplete => {}
            Handshake::Upgrade(upgrade) => break upgrade,
            Handshake::Refuse { response, .. } => {
                stream.write_all(&response).await?;
                let _ = stream.shutdown().await;
                return Err(Fault::Over);
            }
        }
    };
    let named = context.front.proxies.client_of(client.ip(), std::iter::once(&upgrade.forwarded_for[..]));
    if named != client.ip().to_canonical() {
        // The header knows no port.
        *client = SocketAddr::new(named, 0);
        refuse_blocked(context, client)?;
    }
    *spoken = upgrade.encoding.map_or(Spoken::Unknown, Spoken::Native);
    stream.write_all(&upgrade.response).await?;
    if context.front.connections() > context.limits.connections_max {
        return Err(CloseReason::TooManyConnections.into());
    }
    bytes.drain(..upgrade.consumed);
    let limits = ReadLimits { message_bytes_max: context.limits.frame_bytes_max };
    let mut reader = FrameReader::new();
    let mut cutter = Cutter::new(CONNECT_BYTES_MAX);
    loop {
        let mut at = 0;
        while at < bytes.len() {
            let (used, event) = reader.next(&mut bytes[at..], &limits).map_err(|violation| violation.reason)?;
            at += used;
            let opened = match event {
                None => break,
                Some(Event::Message { text, payload }) => {
                    let tongue = tongue(*spoken, upgrade.encoding, text, &payload, spoken)?;
                    match tongue {
                        Tongue::Silence => None,
                        Tongue::Native(encoding) => Some(native_session(context, encoding, &payload).await?),
                        Tongue::Wukong => wukong_session(context, true, &mut cutter, &payload).await?,
                        Tongue::JsonRpc => Some(jsonrpc_session(context, &payload).await?),
                    }
                }
                Some(Event::Ping(payload)) => {
                    let pong = native::websocket_pong(&payload);
                    stream.write_all(&pong).await?;
                    None
                }
                Some(Event::Pong(_)) => None,
                Some(Event::Close { .. }) => return Err(CloseReason::Normal.into()),
            };
            if let Some(opened) = opened {
                // What the client sent behind its first message is read by the connection.
                reader.park(&bytes[at..]);
                return Ok(Opened { reader, ..opened });
            }
        }
        bytes.clear();
        if read_some(stream, &mut bytes, READ_BYTES).await? == 0 {
            return Err(Fault::Over);
        }
    }
}

/// A stream without frames: CONNECT is its first packet. `bytes` came already.
async fn greet(context: &Rc<Context>, stream: &mut TcpStream, mut bytes: Vec<u8>) -> Result<Opened, Fault> {
    if context.front.connections() > context.limits.connections_max {
        return Err(CloseReason::TooManyConnections.into());
    }
    let mut cutter = Cutter::new(CONNECT_BYTES_MAX);
    loop {
        if bytes.is_empty() && read_some(stream, &mut bytes, READ_BYTES).await? == 0 {
            return Err(Fault::Over);
        }
        if let Some(opened) = wukong_session(context, false, &mut cutter, &bytes).await? {
            return Ok(opened);
        }
        bytes.clear();
    }
}

async fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>, bytes_max: usize) -> std::io::Result<usize> {
    if bytes.len() >= bytes_max {
        return Ok(0);
    }
    bytes.reserve(READ_BYTES.min(bytes_max - bytes.len()));
    stream.read_buf(bytes).await
}

/// What a first message speaks.
enum Tongue {
    /// It is empty.
    Silence,
    /// Native frames.
    Native(Encoding),
    /// A piece of WuKongIM's packets.
    Wukong,
    /// WuKongIM's JSON-RPC.
    JsonRpc,
}

/// What is spoken: the subprotocol's encoding, else what the first byte says, whatever the opcode (wukongim-wire.md 7).
fn tongue(
    known: Spoken,
    named: Option<Encoding>,
    text: bool,
    payload: &[u8],
    spoken: &mut Spoken,
) -> Result<Tongue, Fault> {
    if let Some(encoding) = named {
        return if encoding.is_text() == text {
            Ok(Tongue::Native(encoding))
        } else {
            Err(CloseReason::ProtocolError.into())
        };
    }
    if known == Spoken::Foreign {
        // CONNECT goes on in this message.
        return Ok(Tongue::Wukong);
    }
    let Some(first) = payload.iter().copied().find(|byte| !byte.is_ascii_whitespace()) else {
        return Ok(Tongue::Silence);
    };
    let (now, tongue) = match Encoding::sniff(first) {
        Sniffed::Unknown if first == b'[' => (Spoken::Foreign, Tongue::JsonRpc),
        // Native JSON, whose client forgot the subprotocol and is told so in its own words.
        Sniffed::JsonRpc if !payload.windows(METHOD.len()).any(|window| window == METHOD) => {
            *spoken = Spoken::Native(Encoding::Json);
            return Err(CloseReason::UnsupportedProtocol.into());
        }
        Sniffed::Native(encoding) => (Spoken::Native(encoding), Tongue::Native(encoding)),
        Sniffed::WuKong => (Spoken::Foreign, Tongue::Wukong),
        Sniffed::JsonRpc => (Spoken::Foreign, Tongue::JsonRpc),
        Sniffed::Unknown => {
            *spoken = Spoken::Native(if text { Encoding::Json } else { Encoding::MessagePack });
            return Err(CloseReason::UnsupportedProtocol.into());
        }
    };
    *spoken = now;
    match tongue {
        Tongue::Native(encoding) if encoding.is_text() != text => Err(CloseReason::ProtocolError.into()),
        tongue => Ok(tongue),
    }
}

/// A native session from its first message.
async fn native_session(context: &Rc<Context>, encoding: Encoding, payload: &[u8]) -> Result<Opened, Fault> {
    match decode_client(encoding, payload) {
        Ok(ClientFrame::Connect(connect)) => session(context, encoding, &connect).await,
        Ok(_) => Err(CloseReason::ConnectExpected.into()),
        Err(error) => {
            let reason = error.close_reason().unwrap_or(CloseReason::ConnectExpected);
            Err(Fault::Close(reason, Some(Refusal::invalid("connect", &error))))
        }
    }
}

/// A WKProto session from the next piece of its stream; `None`: CONNECT is not whole.
async fn wukong_session(
    context: &Rc<Context>,
    framed: bool,
    cutter: &mut Cutter,
    mut piece: &[u8],
) -> Result<Option<Opened>, Fault> {
    let raw: RawPacket<'_> = match cutter.next(&mut piece) {
        Ok(Some(raw)) => raw,
        Ok(None) => return Ok(None),
        Err(error) => return Err(error.close_reason().into()),
    };
    let connect = match decode(WukongVersion::LATEST, &raw) {
        Ok(Packet::Connect(connect)) => connect,
        Ok(_) => return Err(CloseReason::ConnectExpected.into()),
        Err(error) => return Err(error.close_reason().into()),
    };
    let opened = wukong::connect::open(context, framed, &connect).await.map_err(|refused| match refused {
        wukong::connect::Refused::Told(last) => Fault::Told(last),
        wukong::connect::Refused::Closed(reason) => reason.into(),
    })?;
    let wukong::connect::Opened { admitted, session, answer } = opened;
    let seat = Seat { place: admitted.entered.place, uid: admitted.uid };
    let session = Rc::new(session);
    let body_bytes_max = context.limits.frame_bytes_max;
    Ok(Some(Opened {
        entered: admitted.entered,
        wire: Wire::Wukong(session.clone()),
        speaker: Speaker::Wukong(wukong::Intake::new(seat, session, piece.to_vec(), body_bytes_max)),
        first: answer.into(),
        reader: FrameReader::new(),
    }))
}

/// A JSON-RPC session from its first message.
async fn jsonrpc_session(context: &Rc<Context>, payload: &[u8]) -> Result<Opened, Fault> {
    let opened = jsonrpc::open(context, payload).await.map_err(|(told, reason)| match told {
        Some(mut last) => {
            last.extend_from_slice(&close_frame(reason.number(), reason.text()));
            Fault::Told(last)
        }
        None => reason.into(),
    })?;
    let jsonrpc::Opened { admitted, answer } = opened;
    let seat = Seat { place: admitted.entered.place, uid: admitted.uid };
    let session = Rc::new(jsonrpc::Session::new(admitted.master, context.limits.wukong_blank_system));
    Ok(Opened {
        entered: admitted.entered,
        wire: Wire::JsonRpc(session.clone()),
        speaker: Speaker::JsonRpc(jsonrpc::Intake::new(seat, session)),
        first: answer.into(),
        reader: FrameReader::new(),
    })
}

/// A session that is registered and has no connection yet. Takes it out again unless it gets one: the handshake may run
/// out of time, or fail, at any point behind the registration.
pub(super) struct Entered {
    context: Rc<Context>,
    pub place: SessionPlace,
    kept: bool,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if !self.kept {
            let mut shard = self.context.shard.borrow_mut();
            shard.set_clock(clock::now_ms());
            shard.leave(&self.place);
            shard.finish_turn();
        }
    }
}

/// Registers a session and puts it into its user's groups. Returns it and the version its stream begins behind.
///
/// # Errors
/// `Draining`, `UserBanned`, `TooMany` sessions, the store.
pub(super) async fn join(context: &Rc<Context>, uid: &Uid, device: &Device) -> Result<(Entered, Version), Refusal> {
    if context.hub.shared().is_draining() {
        return Err(Refusal::Draining { retry_after_ms: 1_000 });
    }
    context.hub.refuse_banned(uid)?;
    // Registered first, so that every change from now on finds the session; its groups are read behind that.
    let entered = {
        let mut shard = context.shard.borrow_mut();
        shard.set_clock(clock::now_ms());
        let entered = shard.enter(uid.clone(), device);
        shard.finish_turn();
        entered
    };
    let (place, first) = entered?;
    let entered = Entered { context: context.clone(), place, kept: false };
    let (groups, read_at) = context.hub.groups_of(uid).await?;
    let begun = {
        let mut shard = context.shard.borrow_mut();
        let begun = shard.begin(&place, groups, read_at, first);
        shard.finish_turn();
        begun
    };
    Ok((entered, begun.ok_or(Refusal::Internal)?))
}

/// Proves the credential of a native client, registers the session and makes its first frame.
async fn session(context: &Rc<Context>, encoding: Encoding, connect: &Connect<'_>) -> Result<Opened, Fault> {
    let fault = |refusal: Refusal| Fault::Close(voices::of(&refusal).close, Some(refusal));
    if context.hub.shared().is_draining() {
        return Err(fault(Refusal::Draining { retry_after_ms: 1_000 }));
    }
    let named = match &connect.uid {
        Some(text) => Some(Uid::new(text).map_err(bad_id("uid")).map_err(fault)?),
        None => None,
    };
    let identity = context.credentials.identify(&context.hub, &connect.token, named.as_ref()).map_err(fault)?;
    // Who connects another way than with a token of the device has no master device (wukongim-http.md section 10).
    let device_level = match &identity {
        Identity::User { device_level, .. } => *device_level,
        Identity::Key { .. } => 0,
    };
    let uid = match (identity, named) {
        (Identity::User { uid, .. }, Some(named)) if named.as_str() != uid.bare() => {
            return Err(fault(Refusal::Forbidden { action: "connect as this user" }));
        }
        (Identity::User { uid, .. }, _) => uid,
        // A bound key reaches the users of its own namespace only.
        (Identity::Key { scopes, namespace, .. }, Some(named)) if scopes.admin => {
            Uid::in_namespace(namespace.as_deref(), named.as_str()).map_err(bad_id("uid")).map_err(fault)?
        }
        (Identity::Key { .. }, Some(_)) => {
            return Err(fault(Refusal::Forbidden { action: "connect as a user" }));
        }
        (Identity::Key { .. }, None) => return Err(fault(Refusal::invalid("uid", "is needed with an API key"))),
    };
    let device_id: std::sync::Arc<str> = match &*connect.device_id {
        // A device without a name is a device of its own: nothing replaces it.
        "" => uuid::Uuid::new_v4().to_string().into(),
        text => DeviceId::new(text).map_err(bad_id("device_id")).map_err(fault)?.as_str().into(),
    };
    let device =
        Device { flag: DeviceFlag(connect.device_flag), id: device_id, master: device_level == 1, alone: false };
    let (entered, version) = join(context, &uid, &device).await.map_err(fault)?;
    let answer = match &connect.resume {
        Some(resume) => {
            let asked = SyncAsked {
                version: resume.version,
                last_msg_seqs: None,
                cursors: &resume.cursors,
                msg_count: resume.msg_count,
                only_unread: resume.only_unread,
                page_after: None,
                rows_max: resume.rows_max,
            };
            let request = native::sync_of(&uid, &asked, &context.limits).map_err(fault)?;
            Some((request.version, context.hub.sync(request).await.map_err(fault)?))
        }
        None => None,
    };
    context.hub.metrics().connects.inc();
    let now_ms = clock::now_ms();
    let resumed = answer.as_ref().map(|(since, answer)| (*since, answer));
    let place = entered.place;
    let first = native::connected(encoding, place.session.0, &uid, version, now_ms, &context.limits, resumed);
    let seat = Seat { place, uid };
    Ok(Opened {
        entered,
        wire: Wire::Native(encoding),
        speaker: Speaker::Native(native::session::Session { seat, encoding }),
        first,
        reader: FrameReader::new(),
    })
}

/// Gives the session its write half; from here on its outbox flows.
/// `client`: who a proxy speaks for.
fn install(
    context: &Rc<Context>,
    stream: TcpStream,
    door: Door,
    opened: Opened,
    client: Option<SocketAddr>,
) -> Connection {
    let (read, write) = stream.into_split();
    let Opened { mut entered, wire, speaker, first, reader } = opened;
    entered.kept = true;
    let place = entered.place;
    let viewer = Viewer { uid: speaker.seat().uid.clone() };
    let hears_gaps = wire.tells_gaps();
    context.writers.borrow_mut().install(place.slot, write, place.session, (wire, viewer), client, clock::now_ms());
    let mut shard = context.shard.borrow_mut();
    if let Some(slot) = shard.slot(place.slot, place.session) {
        slot.hears_gaps = hears_gaps;
        slot.outbox.push_control_front(Control::Raw(first));
    }
    shard.mark_dirty(place.slot);
    Connection::new(read, reader, door, speaker)
}
