//! Messages as readers get them: from where the index says they lie, with what became of them since.
//!
//! Owns how a record, its last edit, its reactions, its lanes and its state become one [`Message`]. Changes nothing.

use protocol::ids::{ChannelKey, ClientMsgNo, MessageSeq, Uid, Version};

use super::changes::Found;
use super::channel::{self, Located, read_edit, read_lane};
use super::{View, index};
use crate::domain::message::{Message, MessageFlags, MessageState, fingerprint};
use crate::domain::refusal::ErrorKind;
use crate::store::log::{Place, ReadError};
use crate::store::{ChannelNo, MessageRecord, Result, SeqRange, StoreError};

/// Messages asked of the log at a time when a range is limited by bytes.
const READ_CHUNK: usize = 64;

impl View {
    pub fn message_by_client_msg_no(
        &self,
        channel: ChannelNo,
        from_uid: &Uid,
        client_msg_no: &ClientMsgNo,
    ) -> Result<Option<Message>> {
        let fingerprint = fingerprint(from_uid, client_msg_no);
        let (key, places) = self.with(channel, |state| {
            state.load_fresh(&self.db)?;
            let candidates = state.runs().candidates(&self.db, channel.0, fingerprint, self.filter_bytes_max)?;
            let mut places = Vec::new();
            for seq in candidates {
                places.extend(state.locate(&self.db, seq)?);
            }
            places.sort_unstable_by_key(|located| located.seq);
            Ok((state.key().cloned(), places))
        })?;
        let Some(key) = key else { return Ok(None) };
        for located in places {
            // As it was sent: a retry is compared with its own bytes, not with what they were edited to.
            let as_sent = Located { altered: false, ..located };
            let message = self.read(&key, channel, &[as_sent])?.pop();
            match message {
                Some(m) if m.state == MessageState::Damaged => {
                    // Nobody can tell whether it is this one; storing it again could store it twice.
                    let detail = format!("channel number {} seq {} is damaged", channel.0, located.seq);
                    let operation = "look up client_msg_no";
                    return Err(StoreError { operation, kind: ErrorKind::Unavailable, detail, source: None });
                }
                Some(m) if m.from_uid == *from_uid && m.client_msg_no == *client_msg_no => return Ok(Some(m)),
                _ => {}
            }
        }
        Ok(None)
    }

    /// A message as it is now. One more read of the log when it was edited, and one for each of its lanes; rows only when it
    /// was edited, reacted to or streamed.
    fn as_read(
        &self,
        key: &ChannelKey,
        (channel, message_seq, version): (ChannelNo, MessageSeq, Version),
        located: Located,
        record: MessageRecord,
        found: Option<Found>,
    ) -> Result<Message, ReadError> {
        let over = located.is_over();
        let Found { edit, reactions, lanes } = found.unwrap_or_default();
        let lane = |(number, edit)| read_lane(&self.reader, channel.0, located.seq, number, edit);
        let lanes = lanes.into_iter().map(lane).collect::<Result<Vec<_>, _>>()?;
        let (payload, extras) = match edit.filter(|_| !over) {
            _ if over => (bytes::Bytes::new(), None),
            Some(edit) => read_edit(&self.reader, channel.0, located.seq, edit)?,
            None => (record.payload, record.extras),
        };
        Ok(Message {
            channel: key.clone(),
            message_seq,
            message_id: version,
            from_uid: record.from_uid,
            client_msg_no: record.client_msg_no,
            flags: record.flags,
            setting: record.setting,
            topic: record.topic,
            expire_s: record.expire_s,
            payload,
            extras,
            edited: edit.map_or(Version::ZERO, |edit| edit.version),
            reactions,
            lanes,
            state: match (located.revoked, located.expired) {
                (true, _) => MessageState::Revoked,
                (false, true) => MessageState::Expired,
                (false, false) => MessageState::Live,
            },
        })
    }

    /// Reads messages of a channel from the log, in the order given (ascending by seq reads neighbours in one go).
    fn read(&self, key: &ChannelKey, channel: ChannelNo, wanted: &[Located]) -> Result<Vec<Message>> {
        let places: Vec<(u64, Place)> = wanted.iter().map(|located| (located.seq, located.place)).collect();
        let read = self.reader.read_messages(channel, &places);
        // Most channels never get here: no page says that anything was altered.
        let mut altered: foldhash::HashMap<u64, Found> = foldhash::HashMap::default();
        if wanted.iter().any(|located| located.altered) {
            self.with(channel, |state| {
                for located in wanted.iter().filter(|located| located.altered) {
                    altered.insert(located.seq, state.altered(&self.db, located.seq, !located.is_over())?);
                }
                Ok(())
            })?;
        }
        let mut messages = Vec::with_capacity(wanted.len());
        for (located, outcome) in wanted.iter().zip(read) {
            let Some(message_seq) = MessageSeq::new(located.seq) else { continue };
            let outcome = outcome.and_then(|(version, record)| {
                let altered = altered.remove(&located.seq);
                self.as_read(key, (channel, message_seq, version), *located, record, altered)
            });
            messages.push(match outcome {
                Ok(message) => message,
                Err(ReadError::Damaged(finding)) => {
                    let seq = located.seq;
                    tracing::error!(channel.number = channel.0, message_seq = seq, %finding, "message is damaged");
                    hole(key, message_seq)
                }
                Err(error @ ReadError::Io { .. }) => return Err(error.into()),
            });
        }
        Ok(messages)
    }

    pub fn messages(&self, channel: ChannelNo, range: SeqRange) -> Result<Vec<Message>> {
        let Some((key, head)) =
            self.with(channel, |state| Ok(state.key().cloned().map(|key| (key, state.head_seq()))))?
        else {
            return Ok(Vec::new());
        };
        let (mut first, mut last) = (range.first.max(1), range.last.min(head));
        let mut messages = Vec::new();
        let mut bytes = 0;
        while first <= last && messages.len() < range.limit {
            let count = (range.limit - messages.len()).min(READ_CHUNK) as u64;
            let (from, to) = if range.newest_first {
                ((last + 1).saturating_sub(count).max(first), last)
            } else {
                (first, last.min(first + count - 1))
            };
            let located = self.locate(channel, from, to)?;
            let mut chunk = self.read(&key, channel, &located)?;
            if range.newest_first {
                chunk.reverse();
                last = from - 1;
            } else {
                first = to + 1;
            }
            for message in chunk {
                bytes += message.content_bytes();
                if bytes > range.bytes_max && !messages.is_empty() {
                    return Ok(messages);
                }
                messages.push(message);
            }
        }
        Ok(messages)
    }

    /// Where messages from..=to lie. Pages that are not in memory are read without the channel's lock: a full page that
    /// memory does not hold is in the view as it is.
    fn locate(&self, channel: ChannelNo, from: u64, to: u64) -> Result<Vec<Located>> {
        let pages = index::page_of(from)..=index::page_of(to);
        let seqs_of = |page: u64| from.max(page * index::PAGE_SEQS + 1)..=to.min((page + 1) * index::PAGE_SEQS);
        let mut located = Vec::with_capacity((to + 1 - from) as usize);
        for number in pages {
            let hot = self.with(channel, |state| {
                Ok(state
                    .page(number)
                    .map(|page| seqs_of(number).filter_map(|seq| channel::located(page, seq)).collect::<Vec<_>>()))
            })?;
            match hot {
                Some(found) => located.extend(found),
                None => {
                    let page = channel::read_page(&self.db, channel.0, number)?;
                    located.extend(seqs_of(number).filter_map(|seq| channel::located(&page, seq)));
                }
            }
        }
        Ok(located)
    }

    pub fn message_by_id(&self, message_id: Version) -> Result<Option<Message>> {
        let Some(found) = self.reader.locate(message_id)? else { return Ok(None) };
        let (Some(channel), true) = (found.channel, found.seq > 0) else { return Ok(None) };
        let (key, located) =
            self.with(channel, |state| Ok((state.key().cloned(), state.locate(&self.db, found.seq)?)))?;
        match (key, located) {
            (Some(key), Some(located)) if located.place == found.place => {
                Ok(self.read(&key, channel, &[located])?.pop())
            }
            _ => Ok(None),
        }
    }
}

/// A message whose record is damaged.
fn hole(key: &ChannelKey, message_seq: MessageSeq) -> Message {
    Message {
        channel: key.clone(),
        message_seq,
        message_id: Version::ZERO,
        from_uid: Uid::from_stored(""),
        client_msg_no: ClientMsgNo::from_stored(""),
        flags: MessageFlags::default(),
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: bytes::Bytes::new(),
        extras: None,
        edited: Version::ZERO,
        reactions: Vec::new(),
        lanes: Vec::new(),
        state: MessageState::Damaged,
    }
}
