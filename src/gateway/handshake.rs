//! From a fresh socket to a session: upgrade, first frame, credential, registration, `connected`.
//!
//! A short task of its own, so that its buffers are no part of the long-lived connection's.

use std::rc::Rc;

use protocol::close::CloseReason;
use protocol::ids::{DeviceFlag, DeviceId, Uid};
use protocol::native::{ClientFrame, Connect, Encoding, ServerFrame, Sniffed, decode_client};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::connection::Connection;
use super::native::{self, SyncAsked, Viewer, bad_id};
use super::websocket::handshake::{HEAD_BYTES_MAX, Handshake, read_request};
use super::websocket::{Event, FrameReader, ReadLimits};
use super::{Context, Stage};
use crate::clock;
use crate::domain::identity::Identity;
use crate::domain::refusal::Refusal;
use crate::hub::outbox::Control;
use crate::hub::sessions::SessionPlace;
use crate::voices;

/// Bytes of one read before there is a session.
const READ_BYTES: usize = 2 * 1024;

/// Why a socket did not become a session.
enum Fault {
    /// The peer hung up, or was told all it can be told.
    Over,
    /// It is told this reason in the encoding it speaks, if it is known.
    Close(CloseReason, Option<Encoding>, Option<Refusal>),
}

impl From<std::io::Error> for Fault {
    fn from(_: std::io::Error) -> Self {
        Self::Over
    }
}

/// Takes a socket through the handshake. `None`: it is closed.
pub(super) async fn open(context: &Rc<Context>, mut stream: TcpStream) -> Option<Connection> {
    let _ = stream.set_nodelay(true);
    let socket = socket2::SockRef::from(&stream);
    // Without it a reader that stalls hides behind megabytes of send buffer.
    let _ = socket.set_tcp_notsent_lowat(context.limits.not_sent_low_water_bytes);
    let mut encoding = None;
    let timeout = context.limits.connect_timeout;
    let outcome = tokio::select! {
        biased;
        outcome = tokio::time::timeout(timeout, upgrade(context, &mut stream, &mut encoding)) => Some(outcome),
        () = context.front.reached(Stage::Closing) => None,
    };
    let fault = match outcome {
        Some(Ok(Ok(opened))) => return Some(install(context, stream, opened)),
        Some(Ok(Err(fault))) => fault,
        Some(Err(_)) => Fault::Close(CloseReason::ConnectTimeout, encoding, None),
        None => Fault::Close(CloseReason::Draining, encoding, None),
    };
    if let Fault::Close(reason, encoding, refusal) = fault {
        let encoding = encoding.unwrap_or(Encoding::MessagePack);
        let mut last = Vec::new();
        if let Some(refusal) = refusal {
            context.hub.metrics().refused(refusal.code());
            last.extend_from_slice(&native::frame(encoding, &ServerFrame::Refused(native::refused(None, &refusal))));
        }
        last.extend_from_slice(&native::closing(encoding, reason));
        let farewell = async {
            stream.write_all(&last).await?;
            stream.shutdown().await
        };
        let _ = tokio::time::timeout(std::time::Duration::from_secs(1), farewell).await;
    }
    None
}

/// What the handshake leaves for the connection.
struct Opened {
    entered: Entered,
    uid: Uid,
    encoding: Encoding,
    connected: bytes::Bytes,
    reader: FrameReader,
}

async fn upgrade(
    context: &Rc<Context>,
    stream: &mut TcpStream,
    encoding: &mut Option<Encoding>,
) -> Result<Opened, Fault> {
    let mut bytes = Vec::with_capacity(READ_BYTES);
    let upgrade = loop {
        if read_some(stream, &mut bytes, HEAD_BYTES_MAX + READ_BYTES).await? == 0 {
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
    *encoding = upgrade.encoding;
    if context.front.connections() > context.limits.connections_max {
        stream.write_all(&upgrade.response).await?;
        return Err(Fault::Close(CloseReason::TooManyConnections, *encoding, None));
    }
    stream.write_all(&upgrade.response).await?;
    bytes.drain(..upgrade.consumed);
    let limits = ReadLimits { message_bytes_max: context.limits.frame_bytes_max };
    let mut reader = FrameReader::new();
    loop {
        let mut at = 0;
        while at < bytes.len() {
            let (used, event) = reader
                .next(&mut bytes[at..], &limits)
                .map_err(|violation| Fault::Close(violation.reason, *encoding, None))?;
            at += used;
            let opened = match event {
                None => break,
                Some(Event::Message { text, payload }) => {
                    let spoken = spoken(*encoding, text, &payload)?;
                    *encoding = Some(spoken);
                    match decode_client(spoken, &payload) {
                        Ok(ClientFrame::Connect(connect)) => Some(session(context, spoken, &connect).await?),
                        Ok(_) => return Err(Fault::Close(CloseReason::ConnectExpected, *encoding, None)),
                        Err(error) => {
                            let reason = error.close_reason().unwrap_or(CloseReason::ConnectExpected);
                            let refusal = Refusal::invalid("connect", &error);
                            return Err(Fault::Close(reason, *encoding, Some(refusal)));
                        }
                    }
                }
                Some(Event::Ping(payload)) => {
                    let pong = native::websocket_pong(&payload);
                    stream.write_all(&pong).await?;
                    None
                }
                Some(Event::Pong(_)) => None,
                Some(Event::Close { .. }) => return Err(Fault::Close(CloseReason::Normal, *encoding, None)),
            };
            if let Some((entered, uid, spoken, connected)) = opened {
                // What the client sent behind its connect is read by the connection.
                reader.park(&bytes[at..]);
                return Ok(Opened { entered, uid, encoding: spoken, connected, reader });
            }
        }
        bytes.clear();
        if read_some(stream, &mut bytes, READ_BYTES).await? == 0 {
            return Err(Fault::Over);
        }
    }
}

async fn read_some(stream: &mut TcpStream, bytes: &mut Vec<u8>, bytes_max: usize) -> std::io::Result<usize> {
    if bytes.len() >= bytes_max {
        return Ok(0);
    }
    bytes.reserve(READ_BYTES.min(bytes_max - bytes.len()));
    stream.read_buf(bytes).await
}

/// The encoding of the first message: the subprotocol's, else what its first byte says.
fn spoken(named: Option<Encoding>, text: bool, payload: &[u8]) -> Result<Encoding, Fault> {
    let sniffed = match named {
        Some(encoding) => Sniffed::Native(encoding),
        None => Encoding::sniff(payload.first().copied().unwrap_or(0)),
    };
    match sniffed {
        Sniffed::Native(encoding) if encoding.is_text() == text => Ok(encoding),
        Sniffed::Native(encoding) => Err(Fault::Close(CloseReason::ProtocolError, Some(encoding), None)),
        Sniffed::WuKong | Sniffed::JsonRpc | Sniffed::Unknown => {
            let encoding = if text { Encoding::Json } else { Encoding::MessagePack };
            Err(Fault::Close(CloseReason::UnsupportedProtocol, Some(encoding), None))
        }
    }
}

type Session = (Entered, Uid, Encoding, bytes::Bytes);

/// A session that is registered and has no connection yet. Takes it out again unless it gets one: the handshake may run
/// out of time, or fail, at any point behind the registration.
struct Entered {
    context: Rc<Context>,
    place: SessionPlace,
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

/// Proves the credential, registers the session and makes its first frame.
async fn session(context: &Rc<Context>, encoding: Encoding, connect: &Connect<'_>) -> Result<Session, Fault> {
    let fault = |refusal: Refusal| {
        let reason = voices::of(&refusal).close;
        Fault::Close(reason, Some(encoding), Some(refusal))
    };
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
    // Registered first, so that every change from now on finds the session; its groups are read behind that.
    let entered = {
        let mut shard = context.shard.borrow_mut();
        shard.set_clock(clock::now_ms());
        let entered = shard.enter(uid.clone(), DeviceFlag(connect.device_flag), device_level, device_id);
        shard.finish_turn();
        entered
    };
    let (place, first) = entered.map_err(fault)?;
    let entered = Entered { context: context.clone(), place, kept: false };
    let (groups, read_at) = context.hub.groups_of(&uid).await.map_err(fault)?;
    let begun = {
        let mut shard = context.shard.borrow_mut();
        let begun = shard.begin(&place, groups, read_at, first);
        shard.finish_turn();
        begun
    };
    let Some(version) = begun else { return Err(fault(Refusal::Internal)) };
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
    let connected = native::connected(encoding, place.session.0, &uid, version, now_ms, &context.limits, resumed);
    Ok((entered, uid, encoding, connected))
}

/// Gives the session its write half; from here on its outbox flows.
fn install(context: &Rc<Context>, stream: TcpStream, opened: Opened) -> Connection {
    let (read, write) = stream.into_split();
    let Opened { mut entered, uid, encoding, connected, reader } = opened;
    entered.kept = true;
    let place = entered.place;
    let viewer = Viewer { uid: uid.clone() };
    context.writers.borrow_mut().install(place.slot, write, place.session, encoding, viewer, clock::now_ms());
    let mut shard = context.shard.borrow_mut();
    if let Some(slot) = shard.slot(place.slot, place.session) {
        slot.outbox.push_control_front(Control::Raw(connected));
    }
    shard.mark_dirty(place.slot);
    Connection::new(read, reader, place, uid, encoding)
}
