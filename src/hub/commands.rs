//! A user's commands (`sync_once` messages) as one queue: what WuKongIM calls `/message/sync` and `/message/syncack`
//! (wukongim-http.md 5.5, v1).
//!
//! Nothing is written per member when a command is stored: commands lie in their channels, and the queue is what the user's
//! channels hold after the last one taken. A position counts the commands a user has taken, so it is small enough for clients
//! with 32 bit numbers; it is given when the queue is read, in order of message_id. Refuses to know wires.

use std::collections::{BTreeMap, BTreeSet};

use foldhash::HashMap;
use parking_lot::Mutex;
use protocol::ids::{ChannelKey, Uid, Version};

use super::Hub;
use super::conversations::refuse;
use crate::domain::message::{Message, MessageState};
use crate::domain::refusal::Refusal;
use crate::store::{ChannelNo, Record, SeqRange, Store};

/// Commands answered at once.
pub const COMMANDS_MAX: usize = 10_000;
/// Payload bytes of one answer, about.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Users whose last answer is remembered.
const ANSWERS_MAX: usize = 10_000;
/// Damaged messages that a search steps over.
const DAMAGED_MAX: usize = 16;

/// A command in a user's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// Its position, from 1.
    pub position: u64,
    /// The message.
    pub message: Message,
}

/// The last answer of each user: a position means what the user was told it is, even when a channel was left meanwhile.
#[derive(Debug, Default)]
pub struct Answers(Mutex<HashMap<Uid, (u64, Vec<Version>)>>);

impl Answers {
    fn note(&self, uid: &Uid, commands: &[Command]) {
        let Some(first) = commands.first() else { return };
        let mut answers = self.0.lock();
        if answers.len() >= ANSWERS_MAX
            && !answers.contains_key(uid)
            && let Some(any) = answers.keys().next().cloned()
        {
            answers.remove(&any);
        }
        let ids = commands.iter().map(|command| command.message.message_id).collect();
        answers.insert(uid.clone(), (first.position, ids));
    }

    /// The command the user was told lies at `position`.
    fn at(&self, uid: &Uid, position: u64) -> Option<Version> {
        let answers = self.0.lock();
        let (first, ids) = answers.get(uid)?;
        ids.get(usize::try_from(position.checked_sub(*first)?).ok()?).copied()
    }
}

/// The highest seq of a channel at or above `floor` whose message is not after `taken`.
fn taken_seq(store: &dyn Store, channel: ChannelNo, floor: u64, head: u64, taken: Version) -> Result<u64, Refusal> {
    let (mut low, mut high) = (floor, head);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        let range = SeqRange { first: middle, last: high, limit: DAMAGED_MAX, bytes_max: 1, newest_first: false };
        let found = store.messages(channel, range).map_err(refuse)?;
        match found.iter().find(|message| message.message_id > Version::ZERO) {
            Some(message) if message.message_id <= taken => low = message.message_seq.get(),
            _ => high = middle - 1,
        }
    }
    Ok(low)
}

/// The first commands of a user's queue after `taken`, at most `max`, in order of message_id. Reads in proportion to the
/// user's channels that changed since, and to the commands in them.
fn after(store: &dyn Store, uid: &Uid, taken: Version, max: usize) -> Result<Vec<Message>, Refusal> {
    let channels = store.channels_of(uid).map_err(refuse)?;
    let mut found: BTreeMap<Version, Message> = BTreeMap::new();
    let mut bytes = 0;
    for channel in store.changed_among(&channels, taken) {
        let Some(membership) = store.membership(channel, uid).map_err(refuse)? else { continue };
        if store.commands_after(channel, membership.join_floor, 1).map_err(refuse)?.is_empty() {
            continue;
        }
        let Some(info) = store.channel(channel).map_err(refuse)? else { continue };
        let mut floor = match info.created > taken {
            true => membership.join_floor,
            false => taken_seq(store, channel, membership.join_floor, info.head_seq, taken)?,
        };
        // Page by page: of a page some may be damaged, and what is behind them must not wait for ever.
        'channel: loop {
            let seqs = store.commands_after(channel, floor, max).map_err(refuse)?;
            for seq in &seqs {
                let range = SeqRange { first: *seq, last: *seq, limit: 1, bytes_max: usize::MAX, newest_first: false };
                let Some(message) = store.messages(channel, range).map_err(refuse)?.pop() else { continue };
                if message.state != MessageState::Live || message.message_id <= taken {
                    continue;
                }
                let is_full = found.len() >= max || bytes >= ANSWER_BYTES_MAX;
                if is_full && found.last_key_value().is_some_and(|(last, _)| *last < message.message_id) {
                    break 'channel;
                }
                bytes += message.content_bytes();
                found.insert(message.message_id, message);
                while found.len() > max || (bytes > ANSWER_BYTES_MAX && found.len() > 1) {
                    bytes -= found.pop_last().map_or(0, |(_, message)| message.content_bytes());
                }
            }
            match seqs.last() {
                Some(last) if seqs.len() == max => floor = *last,
                _ => break,
            }
        }
    }
    Ok(found.into_values().collect())
}

impl Hub {
    /// The first `limit` commands of a user's queue, the oldest first.
    ///
    /// # Errors
    /// The store.
    pub async fn commands(&self, uid: Uid, limit: usize) -> Result<Vec<Command>, Refusal> {
        let asked = uid.clone();
        let commands = self
            .ask(move |store| {
                let (taken, last) = store.commands_read(&asked).map_err(refuse)?;
                let found = after(store, &asked, last, limit.min(COMMANDS_MAX))?;
                let positions = taken + 1..;
                Ok(positions.zip(found).map(|(position, message)| Command { position, message }).collect::<Vec<_>>())
            })
            .await?;
        self.shared.commands.note(&uid, &commands);
        Ok(commands)
    }

    /// The user has taken the queue up to a position: those are not answered again. Positions at or below the last one change
    /// nothing; one beyond the queue means all of it.
    ///
    /// # Errors
    /// The store.
    pub async fn take_commands(&self, uid: Uid, position: u64) -> Result<(), Refusal> {
        self.refuse_draining()?;
        let _decision = self.shared.decisions.of(&uid).lock().await;
        let (asked, told) = (uid.clone(), self.shared.commands.at(&uid, position));
        let planned = self
            .ask(move |store| {
                let (taken, last) = store.commands_read(&asked).map_err(refuse)?;
                if position <= taken {
                    return Ok(None);
                }
                if let Some(told) = told.filter(|told| *told > last) {
                    return Ok(Some((position, told)));
                }
                let max = usize::try_from(position - taken).unwrap_or(usize::MAX).min(COMMANDS_MAX);
                let found = after(store, &asked, last, max)?;
                Ok(found.last().map(|message| (taken + found.len() as u64, message.message_id)))
            })
            .await?;
        self.store_taken(uid, planned).await
    }

    /// A device of the user has these commands: what acknowledgements on a socket say. They leave the queue as far as they
    /// are its first; one behind another that nobody has stays, as taking it would take that one too.
    ///
    /// # Errors
    /// The store.
    pub async fn take_received(&self, uid: Uid, received: BTreeSet<Version>) -> Result<(), Refusal> {
        self.refuse_draining()?;
        let _decision = self.shared.decisions.of(&uid).lock().await;
        let asked = uid.clone();
        let planned = self
            .ask(move |store| {
                let (taken, last) = store.commands_read(&asked).map_err(refuse)?;
                if received.last().is_none_or(|newest| *newest <= last) {
                    return Ok(None);
                }
                let found = after(store, &asked, last, received.len().min(COMMANDS_MAX))?;
                let count = found.iter().take_while(|message| received.contains(&message.message_id)).count();
                Ok(count.checked_sub(1).map(|at| (taken + count as u64, found[at].message_id)))
            })
            .await?;
        self.store_taken(uid, planned).await
    }

    /// Stores how far the user's queue is taken: a position and the command there. `None`: nothing changes.
    async fn store_taken(&self, uid: Uid, planned: Option<(u64, Version)>) -> Result<(), Refusal> {
        let Some((position, message_id)) = planned else { return Ok(()) };
        self.commit(None, Record::CommandsRead { uid, position, message_id }.into(), (0, 0)).await.map(drop)
    }

    /// The name of the channel of commands to exactly these users, in any order: made with them as members when it is not
    /// there (wukongim-http.md 5.1, `subscribers`).
    ///
    /// # Errors
    /// `TooMany`, the store.
    pub async fn command_channel(&self, uids: Vec<Uid>) -> Result<ChannelKey, Refusal> {
        let key = crate::domain::channel::command_channel(&uids);
        self.add_members(key.clone(), uids, false).await?;
        Ok(key)
    }
}

#[cfg(test)]
mod tests;
