//! The read half of a connection: bytes to messages to whoever works them off.
//!
//! Owns nothing but a frame reader and who speaks; reads into the shard's shared buffer and works off what it got before
//! anything else runs. Many small sends in one read become one turn. At the in-flight cap, or while its own answers wait
//! unread, it stops reading and the peer's socket fills: that is the only backpressure a client meets.

use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use protocol::close::CloseReason;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::seat::{Room, Seat};
use super::websocket::{Event, FrameReader, Opcode, ReadLimits, frame};
use super::{Context, Door, handshake, jsonrpc, native, wukong};
use crate::clock;
use crate::hub::shard::Shard;

/// An established connection's read half.
pub(super) struct Connection {
    read: OwnedReadHalf,
    reader: FrameReader,
    /// Bytes come in WebSocket frames; else the connection is one stream.
    framed: bool,
    speaker: Speaker,
}

/// Who works off what a connection says.
pub(super) enum Speaker {
    /// Native frames.
    Native(native::session::Session),
    /// WuKongIM's packets.
    Wukong(wukong::Intake),
    /// WuKongIM's JSON-RPC.
    JsonRpc(jsonrpc::Intake),
}

impl Speaker {
    /// The session.
    pub fn seat(&self) -> &Seat {
        match self {
            Self::Native(session) => &session.seat,
            Self::Wukong(intake) => &intake.seat,
            Self::JsonRpc(intake) => &intake.seat,
        }
    }
}

/// Whether the connection goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// It reads on.
    Read,
    /// It waits for room first.
    Pause,
    /// It is over.
    End,
}

/// Takes care of a fresh socket: the handshake in a task of its own, then the connection in another, smaller one.
pub(super) fn spawn(context: &Rc<Context>, stream: TcpStream, peer: SocketAddr, door: Door) {
    let context = context.clone();
    tokio::task::spawn_local(async move {
        context.hub.metrics().connections.inc();
        match handshake::open(&context, stream, peer, door).await {
            Some(connection) => {
                context.hub.metrics().sessions.inc();
                tokio::task::spawn_local(async move {
                    let hub = context.hub.clone();
                    let mut connection = connection;
                    connection.run(&context).await;
                    connection.gone(&context);
                    hub.metrics().sessions.dec();
                    left(&context);
                });
            }
            None => left(&context),
        }
    });
}

fn left(context: &Context) {
    context.hub.metrics().connections.dec();
    let index = usize::from(context.shard.borrow().index());
    context.front.loads[index].fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
}

impl Connection {
    /// A connection whose handshake is over. `reader` holds what came behind it.
    pub(super) fn new(read: OwnedReadHalf, reader: FrameReader, door: Door, speaker: Speaker) -> Self {
        Self { read, reader, framed: door == Door::WebSocket, speaker }
    }

    async fn run(&mut self, context: &Rc<Context>) {
        let mut next = self.go_on(context);
        loop {
            next = match next {
                Next::End => return,
                Next::Read => self.read(context).await,
                Next::Pause => {
                    self.room(context).await;
                    self.go_on(context)
                }
            };
        }
    }

    /// Works off what was put aside: what a message left over, then what was not looked at.
    fn go_on(&mut self, context: &Rc<Context>) -> Next {
        if let Speaker::Wukong(intake) = &mut self.speaker
            && intake.holds()
        {
            let mut shard = context.shard.borrow_mut();
            shard.set_clock(clock::now_ms());
            let next = match intake.go_on(context, &mut shard) {
                Ok(next) => next,
                Err(reason) => {
                    close(&intake.seat, &mut shard, reason);
                    Next::End
                }
            };
            shard.finish_turn();
            if next != Next::Read {
                return next;
            }
        }
        let Some(mut parked) = self.reader.unpark() else { return Next::Read };
        let (used, next) = self.consume(context, parked.rest());
        parked.advance(used);
        self.reader.repark(parked);
        next
    }

    /// Waits for bytes and works them off before anything else runs in the shard.
    async fn read(&mut self, context: &Rc<Context>) -> Next {
        let place = self.speaker.seat().place;
        let read = &mut self.read;
        let got = std::future::poll_fn(|cx| {
            let mut buffer = context.read_buffer.borrow_mut();
            let mut buffer = ReadBuf::new(&mut buffer[..]);
            match Pin::new(&mut *read).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) => Poll::Ready(buffer.filled().len()),
                Poll::Ready(Err(_)) => Poll::Ready(0),
                Poll::Pending => {
                    // Whoever ends the session wakes this task through the slot.
                    match context.shard.borrow_mut().slot(place.slot, place.session) {
                        Some(slot) => {
                            if slot.reader.as_ref().is_none_or(|known| !known.will_wake(cx.waker())) {
                                slot.reader = Some(cx.waker().clone());
                            }
                            Poll::Pending
                        }
                        None => Poll::Ready(0),
                    }
                }
            }
        })
        .await;
        if got == 0 {
            return Next::End;
        }
        let mut buffer = context.read_buffer.borrow_mut();
        let (used, next) = self.consume(context, &mut buffer[..got]);
        self.reader.park(&buffer[used..got]);
        next
    }

    /// Waits until the session may have more requests in flight.
    async fn room(&mut self, context: &Rc<Context>) {
        let seat = self.speaker.seat();
        std::future::poll_fn(|cx| {
            let mut shard = context.shard.borrow_mut();
            let room = seat.room(context, &mut shard);
            let Some(slot) = shard.slot(seat.place.slot, seat.place.session) else { return Poll::Ready(()) };
            slot.paused = matches!(room, Room::Full);
            if slot.paused {
                slot.reader = Some(cx.waker().clone());
                return Poll::Pending;
            }
            Poll::Ready(())
        })
        .await;
    }

    /// Works off bytes until they are used up or the connection must pause or end. Returns how many were used.
    fn consume(&mut self, context: &Rc<Context>, bytes: &mut [u8]) -> (usize, Next) {
        let now_ms = clock::now_ms();
        let mut shard = context.shard.borrow_mut();
        shard.set_clock(now_ms);
        let (used, outcome) =
            if self.framed { self.frames(context, &mut shard, bytes) } else { self.stream(context, &mut shard, bytes) };
        let passed = context.taken.take(used);
        context.writers.borrow_mut().heard(self.speaker.seat().place.slot, now_ms, passed);
        let next = outcome.unwrap_or_else(|reason| {
            close(self.speaker.seat(), &mut shard, reason);
            Next::End
        });
        shard.finish_turn();
        (used, next)
    }

    /// Bytes of a stream without frames.
    fn stream(&mut self, context: &Context, shard: &mut Shard, bytes: &[u8]) -> (usize, Result<Next, CloseReason>) {
        let Speaker::Wukong(intake) = &mut self.speaker else { return (0, Err(CloseReason::Internal)) };
        let mut piece = bytes;
        let outcome = intake.take(context, shard, &mut piece);
        (bytes.len() - piece.len(), outcome)
    }

    /// Bytes of WebSocket frames.
    fn frames(
        &mut self,
        context: &Rc<Context>,
        shard: &mut Shard,
        bytes: &mut [u8],
    ) -> (usize, Result<Next, CloseReason>) {
        let limits = ReadLimits { message_bytes_max: context.limits.frame_bytes_max };
        let mut at = 0;
        while at < bytes.len() {
            match self.speaker.seat().room(context, shard) {
                Room::Free => {}
                Room::Full => return (at, Ok(Next::Pause)),
                Room::Gone => return (at, Ok(Next::End)),
            }
            let (used, event) = match self.reader.next(&mut bytes[at..], &limits) {
                Ok(read) => read,
                Err(violation) => {
                    let session = self.speaker.seat().place.session;
                    tracing::debug!(session.id = session.0, error = violation.text, "frame refused");
                    return (at, Err(violation.reason));
                }
            };
            at += used;
            let outcome = match event {
                None => break,
                Some(Event::Message { text, payload }) => match &mut self.speaker {
                    Speaker::Native(session) if text == session.encoding.is_text() => {
                        context.taken.packet();
                        session.frame(context, shard, &payload).map(|()| Next::Read)
                    }
                    Speaker::Native(_) => Err(CloseReason::ProtocolError),
                    // Their clients are free in the choice of the opcode (wukongim-wire.md 3.2 and 7).
                    Speaker::Wukong(intake) => intake.message(context, shard, &payload),
                    Speaker::JsonRpc(intake) => {
                        context.taken.packet();
                        intake.message(context, shard, &payload).map(|()| Next::Read)
                    }
                },
                Some(Event::Ping(payload)) => {
                    self.speaker.seat().tell(shard, frame(Opcode::Pong, &payload));
                    Ok(Next::Read)
                }
                Some(Event::Pong(_)) => Ok(Next::Read),
                Some(Event::Close { .. }) => Err(CloseReason::Normal),
            };
            if outcome != Ok(Next::Read) {
                return (at, outcome);
            }
        }
        (at, Ok(Next::Read))
    }

    /// After the last read: what was closed by us is finished by the flusher, anything else ends here.
    fn gone(&mut self, context: &Rc<Context>) {
        let place = self.speaker.seat().place;
        let mut shard = context.shard.borrow_mut();
        if shard.slot(place.slot, place.session).is_some_and(|slot| slot.closing.is_none()) {
            context.writers.borrow_mut().remove(place.slot, place.session);
            shard.set_clock(clock::now_ms());
            shard.leave(&place);
            shard.finish_turn();
        }
    }
}

/// Lets the flusher end a session, behind what waits for it.
fn close(seat: &Seat, shard: &mut Shard, reason: CloseReason) {
    let place = seat.place;
    if let Some(slot) = shard.slot(place.slot, place.session) {
        slot.closing.get_or_insert(reason);
    }
    shard.mark_dirty(place.slot);
}
