//! A session as its read half sees it: where its outbox is, and who it is.

use bytes::Bytes;
use protocol::ids::Uid;

use super::Context;
use crate::domain::channel::Standing;
use crate::domain::message::Draft;
use crate::domain::refusal::Refusal;
use crate::hub::committer::Waiter;
use crate::hub::outbox::Control;
use crate::hub::sequencer::{PendingDraft, Work};
use crate::hub::sessions::SessionPlace;
use crate::hub::shard::Shard;

/// A session's place and user.
#[derive(Debug, Clone)]
pub struct Seat {
    /// Where it is.
    pub place: SessionPlace,
    /// Its user.
    pub uid: Uid,
}

/// Whether a session may go on asking.
pub(super) enum Room {
    /// It may.
    Free,
    /// As many of its requests, or of their answers, wait as may.
    Full,
    /// It is over.
    Gone,
}

impl Seat {
    /// Whether one more request may come in now.
    pub(super) fn room(&self, context: &Context, shard: &mut Shard) -> Room {
        match shard.slot(self.place.slot, self.place.session) {
            None => Room::Gone,
            Some(slot) if slot.closing.is_some() => Room::Gone,
            Some(slot) => {
                let limits = &context.limits;
                let full =
                    slot.in_flight >= limits.in_flight_max || slot.outbox.control_len() >= limits.control_entries_max;
                if full { Room::Full } else { Room::Free }
            }
        }
    }

    /// Counts a request whose answer will come.
    pub(super) fn begin(&self, shard: &mut Shard) {
        if let Some(slot) = shard.slot(self.place.slot, self.place.session) {
            slot.in_flight += 1;
        }
    }

    /// Sends bytes of the wire's own that answer no counted request.
    pub(super) fn tell(&self, shard: &mut Shard, bytes: Bytes) {
        shard.answer(self.place.slot, self.place.session, Control::Raw(bytes));
    }

    /// Refuses a request at once.
    pub(super) fn refuse(&self, context: &Context, shard: &mut Shard, client_seq: u64, refusal: Refusal) {
        context.hub.metrics().refused(refusal.code());
        // Counted as in flight only to be counted off by the answer.
        self.begin(shard);
        let control = Control::Refused { client_seq: Some(client_seq), refusal };
        shard.answer(self.place.slot, self.place.session, control);
    }

    /// Hands a draft that was checked to its channel's lane. The answer names `client_seq`.
    pub(super) fn submit(&self, shard: &mut Shard, draft: Draft, client_seq: u64) {
        self.begin(shard);
        let key = draft.channel.clone();
        let waiter = Waiter::Session {
            place: self.place,
            client_seq,
            durability: draft.durability,
            made_msg_no: draft.client_msg_no.is_none(),
            acked: false,
        };
        shard.work(Work::Draft(PendingDraft { draft, standing: Standing::Client, waiter }), &key);
    }
}
