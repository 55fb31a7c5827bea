//! The read half of a connection: bytes to frames to the hub's verbs.
//!
//! Owns nothing but a frame reader and its place; reads into the shard's shared buffer and works off what it got before
//! anything else runs. Many small sends in one read become one turn. At the in-flight cap, or while its own answers wait
//! unread, it stops reading and the peer's socket fills: that is the only backpressure a client meets.

use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;
use protocol::close::CloseReason;
use protocol::ids::Uid;
use protocol::native::{ClientFrame, Encoding, SIGNAL_DATA_BYTES_MAX, SIGNAL_NAME_BYTES_MAX, decode_client};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;

use super::native::answers::Asked;
use super::native::{self, SyncAsked};
use super::websocket::{Event, FrameReader, ReadLimits};
use super::{Context, features, handshake};
use crate::clock;
use crate::domain::channel::Standing;
use crate::domain::message::Durability;
use crate::domain::refusal::Refusal;
use crate::hub::committer::Waiter;
use crate::hub::conversations::HistoryQuery;
use crate::hub::delivery::Signal;
use crate::hub::outbox::Control;
use crate::hub::sequencer::{PendingDraft, PendingSignal, Work};
use crate::hub::sessions::SessionPlace;
use crate::hub::shard::Shard;
use crate::hub::{ConversationChanged, Hub, Reader};

/// Bytes of messages in one history page.
const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Messages an explanation looks at.
const EXPLAIN_LIMIT_MAX: usize = 1_000;

/// An established connection's read half.
pub(super) struct Connection {
    read: OwnedReadHalf,
    reader: FrameReader,
    place: SessionPlace,
    uid: Uid,
    encoding: Encoding,
}

/// Whether the connection goes on.
enum Next {
    Read,
    Pause,
    End,
}

/// Takes care of a fresh socket: the handshake in a task of its own, then the connection in another, smaller one.
pub(super) fn spawn(context: &Rc<Context>, stream: TcpStream) {
    let context = context.clone();
    tokio::task::spawn_local(async move {
        context.hub.metrics().connections.inc();
        match handshake::open(&context, stream).await {
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
    /// A connection whose handshake is over.
    pub(super) fn new(
        read: OwnedReadHalf,
        reader: FrameReader,
        place: SessionPlace,
        uid: Uid,
        encoding: Encoding,
    ) -> Self {
        Self { read, reader, place, uid, encoding }
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

    /// Works off what was put aside.
    fn go_on(&mut self, context: &Rc<Context>) -> Next {
        let Some(mut parked) = self.reader.unpark() else { return Next::Read };
        let (used, next) = self.consume(context, parked.rest());
        parked.advance(used);
        self.reader.repark(parked);
        next
    }

    /// Waits for bytes and works them off before anything else runs in the shard.
    async fn read(&mut self, context: &Rc<Context>) -> Next {
        let place = self.place;
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
        let place = self.place;
        std::future::poll_fn(|cx| {
            let mut shard = context.shard.borrow_mut();
            match shard.slot(place.slot, place.session) {
                Some(slot) if is_full(slot.in_flight, slot.outbox.control_len(), context) => {
                    slot.paused = true;
                    slot.reader = Some(cx.waker().clone());
                    Poll::Pending
                }
                Some(slot) => {
                    slot.paused = false;
                    Poll::Ready(())
                }
                None => Poll::Ready(()),
            }
        })
        .await;
    }

    /// Works off bytes until they are used up or the connection must pause or end. Returns how many were used.
    fn consume(&mut self, context: &Rc<Context>, bytes: &mut [u8]) -> (usize, Next) {
        let limits = ReadLimits { message_bytes_max: context.limits.frame_bytes_max };
        let now_ms = clock::now_ms();
        context.writers.borrow_mut().heard(self.place.slot, now_ms);
        let mut shard = context.shard.borrow_mut();
        shard.set_clock(now_ms);
        let mut at = 0;
        let mut next = Next::Read;
        while at < bytes.len() {
            match shard.slot(self.place.slot, self.place.session) {
                None => {
                    next = Next::End;
                    break;
                }
                Some(slot) if slot.closing.is_some() => {
                    next = Next::End;
                    break;
                }
                Some(slot) if is_full(slot.in_flight, slot.outbox.control_len(), context) => {
                    next = Next::Pause;
                    break;
                }
                Some(_) => {}
            }
            let (used, event) = match self.reader.next(&mut bytes[at..], &limits) {
                Ok(read) => read,
                Err(violation) => {
                    tracing::debug!(session.id = self.place.session.0, error = violation.text, "frame refused");
                    self.close(&mut shard, violation.reason);
                    next = Next::End;
                    break;
                }
            };
            at += used;
            let over = match event {
                None => break,
                Some(Event::Message { text, payload }) if text == self.encoding.is_text() => {
                    self.frame(context, &mut shard, &payload)
                }
                Some(Event::Message { .. }) => Err(CloseReason::ProtocolError),
                Some(Event::Ping(payload)) => {
                    let pong = Control::Raw(native::websocket_pong(&payload));
                    shard.answer(self.place.slot, self.place.session, pong);
                    Ok(())
                }
                Some(Event::Pong(_)) => Ok(()),
                Some(Event::Close { .. }) => Err(CloseReason::Normal),
            };
            if let Err(reason) = over {
                self.close(&mut shard, reason);
                next = Next::End;
                break;
            }
        }
        shard.finish_turn();
        (at, next)
    }

    fn close(&self, shard: &mut Shard, reason: CloseReason) {
        if let Some(slot) = shard.slot(self.place.slot, self.place.session) {
            slot.closing.get_or_insert(reason);
        }
        shard.mark_dirty(self.place.slot);
    }

    /// After the last read: what was closed by us is finished by the flusher, anything else ends here.
    fn gone(&mut self, context: &Rc<Context>) {
        let mut shard = context.shard.borrow_mut();
        if shard.slot(self.place.slot, self.place.session).is_some_and(|slot| slot.closing.is_none()) {
            context.writers.borrow_mut().remove(self.place.slot, self.place.session);
            shard.set_clock(clock::now_ms());
            shard.leave(&self.place);
            shard.finish_turn();
        }
    }

    /// Works off one frame.
    fn frame(&mut self, context: &Rc<Context>, shard: &mut Shard, bytes: &[u8]) -> Result<(), CloseReason> {
        let frame = match decode_client(self.encoding, bytes) {
            Ok(frame) => frame,
            Err(error) => {
                if let Some(reason) = error.close_reason() {
                    tracing::debug!(session.id = self.place.session.0, %error, "frame refused");
                    return Err(reason);
                }
                let bytes = native::wire_refused(self.encoding, &error);
                shard.answer(self.place.slot, self.place.session, Control::Raw(bytes));
                return Ok(());
            }
        };
        let asked = match frame {
            ClientFrame::Send(send) => self.send(context, shard, &send),
            ClientFrame::Signal(signal) => self.signal(context, shard, &signal),
            ClientFrame::Ping(_) => {
                let pong = Control::Raw(native::pong(self.encoding));
                shard.answer(self.place.slot, self.place.session, pong);
                Ok(())
            }
            // A receipt shows that the reader is alive, which `heard` has noted; the log knows the rest.
            ClientFrame::Pong(_) | ClientFrame::Receipt(_) => Ok(()),
            ClientFrame::Connect(_) => return Err(CloseReason::ConnectExpected),
            other => self.ask(context, shard, &other),
        };
        if let Err((client_seq, refusal)) = asked {
            context.hub.metrics().refused(refusal.code());
            // Counted as in flight only to be counted off by the answer.
            self.begin_request(shard);
            let control = Control::Refused { client_seq: Some(client_seq), refusal };
            shard.answer(self.place.slot, self.place.session, control);
        }
        Ok(())
    }

    fn begin_request(&self, shard: &mut Shard) {
        if let Some(slot) = shard.slot(self.place.slot, self.place.session) {
            slot.in_flight += 1;
        }
    }

    fn send(
        &self,
        context: &Context,
        shard: &mut Shard,
        send: &protocol::native::Send<'_>,
    ) -> Result<(), (u64, Refusal)> {
        context.hub.metrics().sends.inc();
        let client_seq = send.client_seq;
        let draft = native::draft_of(&self.uid, send).map_err(|refusal| (client_seq, refusal))?;
        shard.shared().check_draft(&draft).map_err(|refusal| (client_seq, refusal))?;
        self.begin_request(shard);
        let key = draft.channel.clone();
        let waiter = Waiter::Session {
            place: self.place,
            client_seq,
            durability: draft.durability,
            made_msg_no: draft.client_msg_no.is_none(),
            acked: false,
        };
        shard.work(Work::Draft(PendingDraft { draft, standing: Standing::Client, waiter }), &key);
        Ok(())
    }

    fn signal(
        &self,
        context: &Context,
        shard: &mut Shard,
        signal: &protocol::native::Signal<'_>,
    ) -> Result<(), (u64, Refusal)> {
        let client_seq = signal.client_seq;
        let fault = |refusal| (client_seq, refusal);
        if context.hub.shared().is_draining() {
            return Ok(());
        }
        if signal.name.is_empty() || signal.name.len() > SIGNAL_NAME_BYTES_MAX {
            return Err(fault(Refusal::invalid("name", format!("must have 1 to {SIGNAL_NAME_BYTES_MAX} bytes"))));
        }
        if signal.data.len() > SIGNAL_DATA_BYTES_MAX {
            let (bytes, max) = (signal.data.len(), SIGNAL_DATA_BYTES_MAX);
            return Err(fault(Refusal::TooLarge { field: "data", bytes, max }));
        }
        let key = native::channel_of(&self.uid, &signal.channel_id, signal.channel_type).map_err(fault)?;
        let waiter = match client_seq {
            0 => Waiter::Nobody,
            _ => Waiter::Session {
                place: self.place,
                client_seq,
                durability: Durability::Memory,
                made_msg_no: false,
                acked: false,
            },
        };
        let signal = Signal {
            channel: None,
            key: key.clone(),
            from_uid: self.uid.clone(),
            name: signal.name.clone().into_owned(),
            data: Bytes::copy_from_slice(&signal.data),
            origin: Some(self.place.session),
        };
        shard.work(Work::Signal(PendingSignal { signal, waiter }), &key);
        Ok(())
    }

    /// Requests that ask the store: each in a task of its own, answered in whatever order they are done.
    fn ask(&self, context: &Rc<Context>, shard: &mut Shard, frame: &ClientFrame<'_>) -> Result<(), (u64, Refusal)> {
        let (uid, hub, place) = (self.uid.clone(), context.hub.clone(), self.place);
        let channel = |client_seq: u64, id: &str, number: u8| {
            native::channel_of(&self.uid, id, number).map_err(|refusal| (client_seq, refusal))
        };
        let done = |client_seq| {
            move |changed: ConversationChanged| Control::Done {
                client_seq,
                version: changed.version,
                unread: changed.unread,
                read_to_msg_seq: changed.read_to_msg_seq,
            }
        };
        match frame {
            ClientFrame::Sync(sync) => {
                let client_seq = sync.client_seq;
                let asked = SyncAsked {
                    version: sync.version,
                    last_msg_seqs: sync.last_msg_seqs.as_deref(),
                    cursors: &sync.cursors,
                    msg_count: sync.msg_count,
                    only_unread: sync.only_unread,
                    page_after: sync.page_after.as_deref(),
                    rows_max: sync.rows_max,
                };
                let request = native::sync_of(&uid, &asked, &context.limits).map_err(|r| (client_seq, r))?;
                let since = request.version;
                self.answer_with(context, shard, client_seq, async move {
                    let answer = Box::new(hub.sync(request).await?);
                    Ok(Control::Synced { client_seq, since, answer })
                });
            }
            ClientFrame::History(history) => {
                let client_seq = history.client_seq;
                let key = channel(client_seq, &history.channel_id, history.channel_type)?;
                let limit = match history.limit as usize {
                    0 => context.limits.history_max.min(50),
                    wanted => wanted.min(context.limits.history_max),
                };
                let query = HistoryQuery {
                    first: history.first_seq.max(1),
                    last: if history.last_seq == 0 { u64::MAX } else { history.last_seq },
                    limit,
                    bytes_max: HISTORY_BYTES_MAX,
                    newest_first: history.newest_first,
                };
                self.answer_with(context, shard, client_seq, async move {
                    let page = Box::new(hub.history(Reader::User(uid), key.clone(), query).await?);
                    Ok(Control::Messages { client_seq, key, page })
                });
            }
            ClientFrame::Read(read) => {
                let (client_seq, seq) = (read.client_seq, read.message_seq);
                let key = channel(client_seq, &read.channel_id, read.channel_type)?;
                self.answer_with(context, shard, client_seq, async move {
                    hub.read(uid, key, seq).await.map(done(client_seq))
                });
            }
            ClientFrame::SetUnread(set) => {
                let (client_seq, unread) = (set.client_seq, set.unread);
                let key = channel(client_seq, &set.channel_id, set.channel_type)?;
                self.answer_with(context, shard, client_seq, async move {
                    hub.set_unread(uid, key, unread).await.map(done(client_seq))
                });
            }
            ClientFrame::DeleteConversation(delete) => {
                let client_seq = delete.client_seq;
                let key = channel(client_seq, &delete.channel_id, delete.channel_type)?;
                self.answer_with(context, shard, client_seq, async move {
                    hub.delete_conversation(uid, key).await.map(done(client_seq))
                });
            }
            ClientFrame::ExplainUnread(explain) => {
                let client_seq = explain.client_seq;
                let key = channel(client_seq, &explain.channel_id, explain.channel_type)?;
                let limit = (explain.limit as usize).min(EXPLAIN_LIMIT_MAX);
                self.answer_with(context, shard, client_seq, async move {
                    let explained = Box::new(hub.explain_unread(uid, key.clone(), limit).await?);
                    Ok(Control::Explained { client_seq, key, explained })
                });
            }
            ClientFrame::Presence(presence) => {
                let client_seq = presence.client_seq;
                let mut uids = Vec::with_capacity(presence.uids.len());
                for text in &presence.uids {
                    uids.push(Uid::new(text).map_err(|error| (client_seq, Refusal::invalid("uids", error)))?);
                }
                let (watch, context_of_watch) = (presence.watch, context.clone());
                self.answer_with(context, shard, client_seq, async move {
                    let mut peers = hub.peers(uid, uids).await?;
                    if watch {
                        let watched = peers.iter().map(|peer| peer.uid.clone()).collect();
                        context_of_watch.shard.borrow_mut().watch(&place, watched);
                        // Who came or went before the watch began is in no event: what is said now is.
                        for peer in &mut peers {
                            *peer = hub.presence_of(peer.uid.clone());
                        }
                    }
                    Ok(Control::Peers { client_seq, peers })
                });
            }
            ClientFrame::Revoke(f) => self.feature(context, shard, f.client_seq, f, features::revoke)?,
            ClientFrame::Edit(f) => self.feature(context, shard, f.client_seq, f, features::edit)?,
            ClientFrame::React(f) => self.feature(context, shard, f.client_seq, f, features::react)?,
            ClientFrame::Changes(f) => self.feature(context, shard, f.client_seq, f, features::changes)?,
            ClientFrame::ReadBy(f) => self.feature(context, shard, f.client_seq, f, features::read_by)?,
            ClientFrame::Search(f) => self.feature(context, shard, f.client_seq, f, features::search)?,
            ClientFrame::Flags(f) => self.feature(context, shard, f.client_seq, f, features::flags)?,
            ClientFrame::Relation(f) => self.feature(context, shard, f.client_seq, f, features::relation)?,
            ClientFrame::Relations(f) => self.feature(context, shard, f.client_seq, f, features::relations)?,
            ClientFrame::Settings(f) => self.feature(context, shard, f.client_seq, f, features::settings)?,
            ClientFrame::Group(f) => self.feature(context, shard, f.client_seq, f, features::group)?,
            ClientFrame::Profile(f) => self.feature(context, shard, f.client_seq, f, features::profile)?,
            ClientFrame::Members(f) => self.feature(context, shard, f.client_seq, f, features::members)?,
            ClientFrame::Invite(f) => self.feature(context, shard, f.client_seq, f, features::invite)?,
            ClientFrame::Expel(f) => self.feature(context, shard, f.client_seq, f, features::expel)?,
            ClientFrame::Role(f) => self.feature(context, shard, f.client_seq, f, features::role)?,
            ClientFrame::Leave(f) => self.feature(context, shard, f.client_seq, f, features::leave)?,
            ClientFrame::Connect(_)
            | ClientFrame::Ping(_)
            | ClientFrame::Pong(_)
            | ClientFrame::Send(_)
            | ClientFrame::Receipt(_)
            | ClientFrame::Signal(_) => {}
        }
        Ok(())
    }

    /// Checks a frame and begins what it asks for.
    fn feature<F, A>(
        &self,
        context: &Rc<Context>,
        shard: &mut Shard,
        client_seq: u64,
        frame: &F,
        begin: impl FnOnce(Asked, Hub, &F) -> Result<A, Refusal>,
    ) -> Result<(), (u64, Refusal)>
    where
        A: Future<Output = Result<Bytes, Refusal>> + 'static,
    {
        let asked = Asked { encoding: self.encoding, uid: self.uid.clone(), client_seq };
        let answer = begin(asked, context.hub.clone(), frame).map_err(|refusal| (client_seq, refusal))?;
        self.answer_with(context, shard, client_seq, async move { answer.await.map(Control::Answer) });
        Ok(())
    }

    fn answer_with(
        &self,
        context: &Rc<Context>,
        shard: &mut Shard,
        client_seq: u64,
        answer: impl Future<Output = Result<Control, Refusal>> + 'static,
    ) {
        self.begin_request(shard);
        let (context, place) = (context.clone(), self.place);
        tokio::task::spawn_local(async move {
            let control =
                answer.await.unwrap_or_else(|refusal| Control::Refused { client_seq: Some(client_seq), refusal });
            let mut shard = context.shard.borrow_mut();
            shard.answer(place.slot, place.session, control);
            shard.finish_turn();
        });
    }
}

fn is_full(in_flight: u32, control_entries: usize, context: &Context) -> bool {
    in_flight >= context.limits.in_flight_max || control_entries >= context.limits.control_entries_max
}
