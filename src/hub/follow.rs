//! Following what was stored, behind the committer: for whoever tells others of it in its own time.
//!
//! Owns what a follower asks: what came after a version, what those messages say now, and who of a channel is not there.
//! Refuses to know who follows and how far it is. Everything is read on threads that may block; no shard waits for it.

use std::collections::BTreeMap;

use protocol::ids::{ChannelKey, Uid, Version};

use super::drafts::is_system;
use super::{ChannelNo, Hub, Logged, LoggedMessage, conversations};
use crate::domain::message::{Message, MessageState};
use crate::domain::refusal::Refusal;
use crate::store::{SeqRange, Store};

/// Who counts as absent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Who has no session on a master device (wukongim-http.md section 10).
    NoMaster,
    /// Who has no session at all.
    NoSession,
}

impl Hub {
    /// Version of the last record that reads see. No I/O.
    pub fn version(&self) -> Version {
        self.shared().store.version()
    }

    /// Waits until something was committed after `version`.
    pub async fn committed_after(&self, version: Version) {
        loop {
            let committed = self.shared().queue.committed().notified();
            tokio::pin!(committed);
            // Only from here on is a lot sure to wake it.
            committed.as_mut().enable();
            if self.version() > version {
                return;
            }
            committed.await;
        }
    }

    /// Which messages were stored after a version, oldest first, at most `max`.
    ///
    /// # Errors
    /// The store: its disk, or damage in that part of the log.
    pub async fn logged_after(&self, after: Version, max: usize) -> Result<Logged, Refusal> {
        self.ask(move |store| store.logged_after(after, max).map_err(conversations::refuse)).await
    }

    /// What messages of the log say now, in the order given: a revoked or expired one has no payload, an edited one its
    /// present one. Messages of one channel must be given in the order of their seqs.
    ///
    /// # Errors
    /// The store.
    pub async fn messages_of(&self, logged: Vec<LoggedMessage>) -> Result<Vec<Message>, Refusal> {
        self.ask(move |store| read(store, &logged)).await
    }

    /// Who of a channel a message from `from` meets absent now: members without its sender, without system users. A group's
    /// order is that of the store.
    ///
    /// # Errors
    /// The store.
    pub async fn absent(&self, key: ChannelKey, from: Uid, absent: Absent) -> Result<Vec<Uid>, Refusal> {
        let sessions = self.shared().clone();
        self.ask(move |store| {
            let Some(channel) = store.channel_no(&key).map_err(conversations::refuse)? else { return Ok(Vec::new()) };
            let mut uids = store.members(channel).map_err(conversations::refuse)?;
            uids.retain(|uid| {
                let sessions = &sessions.sessions;
                let there = match absent {
                    Absent::NoMaster => sessions.has_master(uid.as_str()),
                    Absent::NoSession => sessions.is_online(uid.as_str()),
                };
                !there && *uid != from && !is_system(store, uid)
            });
            Ok(uids)
        })
        .await
    }
}

/// Reads each channel's part in one go: what the log holds of a channel in a row is a run of seqs.
fn read(store: &dyn Store, logged: &[LoggedMessage]) -> Result<Vec<Message>, Refusal> {
    let mut runs: BTreeMap<ChannelNo, (u64, u64)> = BTreeMap::new();
    for message in logged {
        let run = runs.entry(message.channel).or_insert((message.seq, message.seq));
        *run = (run.0.min(message.seq), run.1.max(message.seq));
    }
    let mut found = foldhash::HashMap::default();
    for (channel, (first, last)) in runs {
        let limit = usize::try_from(last - first + 1).unwrap_or(usize::MAX);
        let range = SeqRange { first, last, limit, bytes_max: usize::MAX, newest_first: false };
        for message in store.messages(channel, range).map_err(conversations::refuse)? {
            found.insert((channel, message.message_seq.get()), message);
        }
    }
    let mut messages = Vec::with_capacity(logged.len());
    for wanted in logged {
        let Some(message) = found.remove(&(wanted.channel, wanted.seq)) else {
            tracing::error!(
                channel.number = wanted.channel.0,
                message_seq = wanted.seq,
                "the log's message is not found"
            );
            return Err(Refusal::Internal);
        };
        // A damaged record does not tell its own id; the log's directory does.
        let damaged = message.state == MessageState::Damaged;
        messages.push(if damaged { Message { message_id: wanted.version, ..message } } else { message });
    }
    Ok(messages)
}
