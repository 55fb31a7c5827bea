//! Where moments lie in a channel: which seqs were committed between two of them.
//!
//! Timestamps are versions and grow with seq, so a moment's place is found by halving: at most some sixty messages are read,
//! however many there are.

use protocol::ids::ChannelKey;

use super::{Asker, Standing, refuse, standing};
use crate::domain::message::MessageState;
use crate::domain::refusal::Refusal;
use crate::store::{ChannelNo, SeqRange, Store};

/// Neighbours looked at for one that is not damaged: a damaged message tells no time.
const SOUND_LOOKED_FOR: usize = 64;

/// Messages of a channel between two moments, as seqs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Span {
    /// Lowest seq.
    pub first: u64,
    /// Highest seq; below `first`: there are none.
    pub last: u64,
    /// The channel's last seq; 0: none.
    pub head_seq: u64,
}

impl Span {
    /// How many messages.
    #[must_use]
    pub fn count(&self) -> u64 {
        (self.last + 1).saturating_sub(self.first)
    }
}

/// The seqs committed at or after `from_ms` and before `until_ms` (Unix milliseconds; `None`: no bound).
///
/// # Errors
/// `NotMember` as for history, the store.
pub fn span(
    store: &dyn Store,
    asker: Asker<'_>,
    key: &ChannelKey,
    from_ms: Option<u64>,
    until_ms: Option<u64>,
) -> Result<Span, Refusal> {
    let info = match asker {
        Asker::User(uid) => match standing(store, uid, key).map_err(refuse)? {
            Standing::Member { info, .. } => Some(*info),
            Standing::Unborn => None,
            Standing::Outside => return Err(Refusal::NotMember),
        },
        Asker::Trusted => match store.channel_no(key).map_err(refuse)? {
            Some(channel) => store.channel(channel).map_err(refuse)?,
            None => None,
        },
    };
    let Some(info) = info else { return Ok(Span { first: 1, ..Span::default() }) };
    let first = match from_ms {
        None => 1,
        Some(ms) => first_at_or_after(store, info.channel, info.head_seq, ms)?,
    };
    let last = match until_ms {
        None => info.head_seq,
        Some(ms) => first_at_or_after(store, info.channel, info.head_seq, ms)? - 1,
    };
    Ok(Span { first, last, head_seq: info.head_seq })
}

/// The lowest seq whose message is not older; head + 1 when all are.
fn first_at_or_after(store: &dyn Store, channel: ChannelNo, head: u64, ms: u64) -> Result<u64, Refusal> {
    // Everything below `low` is older, everything from `high` on is not.
    let (mut low, mut high) = (1, head + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        match sound_from(store, channel, middle, high)? {
            Some((seq, at)) if at < ms => low = seq + 1,
            // A damaged run counts to the later side: rather shown than hidden.
            _ => high = middle,
        }
    }
    Ok(low)
}

/// The first message of [from, before) that tells its time.
fn sound_from(store: &dyn Store, channel: ChannelNo, from: u64, before: u64) -> Result<Option<(u64, u64)>, Refusal> {
    let mut limit = 1;
    loop {
        let range = SeqRange { first: from, last: before - 1, limit, bytes_max: usize::MAX, newest_first: false };
        let found = store.messages(channel, range).map_err(refuse)?;
        let sound = found.iter().find(|message| message.state != MessageState::Damaged);
        if let Some(message) = sound {
            return Ok(Some((message.message_seq.get(), message.timestamp_ms())));
        }
        if limit >= SOUND_LOOKED_FOR || found.len() < limit {
            return Ok(None);
        }
        limit = SOUND_LOOKED_FOR;
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use protocol::ids::{ChannelType, ClientMsgNo, MessageSeq, Uid};

    use super::*;
    use crate::domain::message::MessageFlags;
    use crate::store::memory::MemoryStore;
    use crate::store::{MessageRecord, Record};

    /// A group with messages, and when each was committed.
    fn filled(count: u64) -> (MemoryStore, ChannelKey, Vec<u64>) {
        let store = MemoryStore::new();
        let key = ChannelKey::named("g", ChannelType::Group).expect("valid");
        let channel = store.reserve_channel_no();
        let commit = |record: Record| store.commit(&[record.into()], &mut |_| {}).expect("commits")[0];
        commit(Record::ChannelCreated { channel, key: key.clone() });
        let mut times = Vec::new();
        for seq in 1..=count {
            let record = MessageRecord {
                channel,
                message_seq: MessageSeq::new(seq).expect("not zero"),
                from_uid: Uid::from_stored("a"),
                client_msg_no: ClientMsgNo::from_stored(&format!("n{seq}")),
                flags: MessageFlags::default(),
                setting: 0,
                topic: String::new(),
                expire_s: 0,
                payload: Bytes::new(),
                extras: None,
            };
            times.push(commit(Record::Message(record)).unix_ms());
            if seq % 7 == 0 {
                // The clock must move on for moments to lie between messages.
                let begun = std::time::Instant::now();
                while begun.elapsed().as_micros() < 1_100 {}
            }
        }
        (store, key, times)
    }

    #[test]
    fn a_span_is_what_a_naive_look_finds() {
        let (store, key, times) = filled(60);
        let (oldest, newest) = (times[0], times[59]);
        for from in [None, Some(0), Some(oldest), Some(times[30]), Some(times[30] + 1), Some(newest), Some(newest + 1)]
        {
            for until in [None, Some(0), Some(oldest), Some(times[30]), Some(newest), Some(newest + 1), Some(u64::MAX)]
            {
                let found = span(&store, Asker::Trusted, &key, from, until).expect("reads");
                let inside = |at: u64| from.is_none_or(|f| at >= f) && until.is_none_or(|u| at < u);
                let naive: Vec<u64> = (1..).zip(&times).filter(|(_, at)| inside(**at)).map(|(seq, _)| seq).collect();
                assert_eq!(found.count(), naive.len() as u64, "{from:?} {until:?}");
                if let (Some(first), Some(last)) = (naive.first(), naive.last()) {
                    assert_eq!((found.first, found.last, found.head_seq), (*first, *last, 60), "{from:?} {until:?}");
                }
            }
        }
    }

    #[test]
    fn an_empty_channel_and_a_stranger() {
        let (store, key, _) = filled(0);
        assert_eq!(span(&store, Asker::Trusted, &key, Some(1), Some(2)).expect("reads").count(), 0);
        let stranger = Uid::from_stored("x");
        assert_eq!(span(&store, Asker::User(&stranger), &key, None, None), Err(Refusal::NotMember));
        let unborn = ChannelKey::person(&stranger, &stranger);
        assert_eq!(span(&store, Asker::User(&stranger), &unborn, None, None).expect("reads").count(), 0);
    }
}
