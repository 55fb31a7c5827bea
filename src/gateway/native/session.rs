//! What a native session asks for: frames to the hub's verbs.
//!
//! Owns nothing but the encoding and the seat. Sends and signals go into the shard's turn; what asks the store runs in a task
//! of its own and is answered in whatever order it is done.

use std::rc::Rc;

use bytes::Bytes;
use protocol::close::CloseReason;
use protocol::native::{ClientFrame, Encoding, SIGNAL_DATA_BYTES_MAX, SIGNAL_NAME_BYTES_MAX, decode_client};

use super::answers::Asked;
use super::{SyncAsked, channel_of, draft_of, sync_of, wire_refused};
use crate::domain::message::Durability;
use crate::domain::refusal::Refusal;
use crate::gateway::seat::Seat;
use crate::gateway::{Context, features};
use crate::hub::committer::Waiter;
use crate::hub::conversations::HistoryQuery;
use crate::hub::delivery::Signal;
use crate::hub::outbox::Control;
use crate::hub::sequencer::{PendingSignal, Work};
use crate::hub::shard::Shard;
use crate::hub::{ConversationChanged, Hub, Reader};

/// Bytes of messages in one history page.
const HISTORY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Messages an explanation looks at.
const EXPLAIN_LIMIT_MAX: usize = 1_000;

/// A session that speaks native frames.
pub struct Session {
    /// Where it sits.
    pub seat: Seat,
    /// How its frames are written.
    pub encoding: Encoding,
}

impl Session {
    /// Works off one frame.
    pub(in crate::gateway) fn frame(
        &mut self,
        context: &Rc<Context>,
        shard: &mut Shard,
        bytes: &[u8],
    ) -> Result<(), CloseReason> {
        let frame = match decode_client(self.encoding, bytes) {
            Ok(frame) => frame,
            Err(error) => {
                if let Some(reason) = error.close_reason() {
                    tracing::debug!(session.id = self.seat.place.session.0, %error, "frame refused");
                    return Err(reason);
                }
                let bytes = wire_refused(self.encoding, &error);
                shard.answer(self.seat.place.slot, self.seat.place.session, Control::Raw(bytes));
                return Ok(());
            }
        };
        let asked = match frame {
            ClientFrame::Send(send) => self.send(context, shard, &send),
            ClientFrame::Signal(signal) => self.signal(context, shard, &signal),
            ClientFrame::Ping(_) => {
                let pong = Control::Raw(super::pong(self.encoding));
                shard.answer(self.seat.place.slot, self.seat.place.session, pong);
                Ok(())
            }
            // A receipt shows that the reader is alive, which `heard` has noted; the log knows the rest.
            ClientFrame::Pong(_) | ClientFrame::Receipt(_) => Ok(()),
            ClientFrame::Connect(_) => return Err(CloseReason::ConnectExpected),
            other => self.ask(context, shard, &other),
        };
        if let Err((client_seq, refusal)) = asked {
            self.seat.refuse(context, shard, client_seq, refusal);
        }
        Ok(())
    }

    fn send(
        &self,
        context: &Context,
        shard: &mut Shard,
        send: &protocol::native::Send<'_>,
    ) -> Result<(), (u64, Refusal)> {
        context.hub.metrics().sends.inc();
        context.taken.message(send.payload.len());
        let client_seq = send.client_seq;
        let draft = draft_of(&self.seat.uid, send).map_err(|refusal| (client_seq, refusal))?;
        shard.shared().check_draft(&draft).map_err(|refusal| (client_seq, refusal))?;
        self.seat.submit(shard, draft, client_seq);
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
        let key = channel_of(&self.seat.uid, &signal.channel_id, signal.channel_type).map_err(fault)?;
        let waiter = match client_seq {
            0 => Waiter::Nobody,
            _ => Waiter::Session {
                place: self.seat.place,
                client_seq,
                durability: Durability::Memory,
                made_msg_no: false,
                acked: false,
            },
        };
        let signal = Signal {
            channel: None,
            key: key.clone(),
            from_uid: self.seat.uid.clone(),
            name: signal.name.clone().into_owned(),
            data: Bytes::copy_from_slice(&signal.data),
            origin: Some(self.seat.place.session),
        };
        shard.work(Work::Signal(PendingSignal { signal, waiter }), &key);
        Ok(())
    }

    /// Requests that ask the store: each in a task of its own, answered in whatever order they are done.
    fn ask(&self, context: &Rc<Context>, shard: &mut Shard, frame: &ClientFrame<'_>) -> Result<(), (u64, Refusal)> {
        let (uid, hub, place) = (self.seat.uid.clone(), context.hub.clone(), self.seat.place);
        let channel = |client_seq: u64, id: &str, number: u8| {
            channel_of(&self.seat.uid, id, number).map_err(|refusal| (client_seq, refusal))
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
                let request = sync_of(&uid, &asked, &context.limits).map_err(|r| (client_seq, r))?;
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
                    uids.push(uid.neighbour(text).map_err(|error| (client_seq, Refusal::invalid("uids", error)))?);
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
        let asked = Asked { encoding: self.encoding, uid: self.seat.uid.clone(), client_seq };
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
        self.seat.begin(shard);
        let (context, place) = (context.clone(), self.seat.place);
        tokio::task::spawn_local(async move {
            let control =
                answer.await.unwrap_or_else(|refusal| Control::Refused { client_seq: Some(client_seq), refusal });
            let mut shard = context.shard.borrow_mut();
            shard.answer(place.slot, place.session, control);
            shard.finish_turn();
        });
    }
}
