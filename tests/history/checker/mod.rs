//! Proves the promises over a recorded history, or names the one that was broken and the events that show it.
//!
//! Pure: knows no server, no clock, no wire. Sound before complete: what clients could not know (an ask without an answer,
//! two that overlap) is given every benefit of the doubt, so a violation is a defect of the server, or of this checker.
//! What is stored is what the whole histories say that were read after [`What::Quiet`].

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;

use super::record::{Answer, Ask, At, Channel, History, Seen, Via, What};

mod client;
mod delivered;
mod order;
mod positions;
#[cfg(test)]
mod tests;
mod versions;

pub const ONE_ORDER: &str = "one-order";
pub const ACK_MEANS_STORED: &str = "ack-means-stored";
pub const STORED_ONCE: &str = "stored-once";
pub const DELIVERED_OR_TOLD: &str = "delivered-or-told";
pub const ONE_UNREAD: &str = "one-unread";
pub const VERSION: &str = "version";
pub const CLEAN_CUT: &str = "clean-cut";

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub promise: &'static str,
    pub what: String,
    /// The events that show it.
    pub events: Vec<At>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} (events {:?})", self.promise, self.what, self.events)
    }
}

/// Something asked, with its answer.
struct Op<'a> {
    asked: At,
    /// Where its answer is; `None`: none ever came.
    answered: Option<At>,
    /// Where it can do nothing any more, answered or not; `None`: it may to the end.
    over: Option<At>,
    user: &'a str,
    via: Via,
    ask: &'a Ask,
    answer: Option<&'a Answer>,
}

impl Op<'_> {
    /// Seq, id and level, when it was acked.
    fn stored(&self) -> Option<(u64, u64, bool, bool)> {
        match self.answer {
            Some(Answer::Stored { seq, id, disk, duplicate }) => Some((*seq, *id, *disk, *duplicate)),
            _ => None,
        }
    }

    /// Whether it may have been done although nobody said so.
    fn in_doubt(&self) -> bool {
        match self.answer {
            None | Some(Answer::Unknown) => true,
            // A lot whose fdatasync failed may be there after a restart (docs/faults.md, known limits).
            Some(Answer::Refused { later, .. }) => *later,
            Some(_) => false,
        }
    }
}

/// A native session.
#[derive(Default)]
struct Session<'a> {
    user: &'a str,
    connecting: At,
    connected: Option<(At, u64)>,
    delivered: Vec<(At, &'a Channel, &'a [Seen])>,
    gaps: Vec<(At, &'a Channel, u64, u64)>,
    moved: Vec<At>,
    /// Changes were dropped.
    must_sync: bool,
    settled: Option<At>,
}

/// The history sorted by what belongs together.
struct Model<'a> {
    history: &'a History,
    ops: BTreeMap<u64, Op<'a>>,
    sessions: BTreeMap<u64, Session<'a>>,
    /// What is stored, by channel; seq n at n - 1.
    stored: BTreeMap<&'a Channel, &'a [Seen]>,
    /// Where each name is stored first.
    places: HashMap<(&'a Channel, &'a str, &'a str), &'a Seen>,
    /// Users who were not members of some channel all the time.
    guests: HashSet<&'a str>,
    quiet: Option<At>,
}

impl<'a> Model<'a> {
    fn of(history: &'a History) -> Self {
        let mut model = Self {
            history,
            ops: BTreeMap::new(),
            sessions: BTreeMap::new(),
            stored: BTreeMap::new(),
            places: HashMap::new(),
            guests: HashSet::new(),
            quiet: None,
        };
        let mut open: HashSet<u64> = HashSet::new();
        for (at, event) in history.events.iter().enumerate() {
            match event {
                What::Fault(_) | What::NotStarted(_) => {}
                What::Started => {
                    for op in open.drain() {
                        if let Some(op) = model.ops.get_mut(&op) {
                            op.over = Some(at);
                        }
                    }
                }
                What::Quiet => model.quiet = Some(at),
                What::Asked { op, user, via, ask } => {
                    if let Ask::Membership { uid, .. } = ask {
                        model.guests.insert(uid);
                    }
                    open.insert(*op);
                    let via = *via;
                    let op_of = Op { asked: at, answered: None, over: None, user, via, ask, answer: None };
                    model.ops.insert(*op, op_of);
                }
                What::Answered { op: number, answer } => {
                    let Some(op) = model.ops.get_mut(number) else { continue };
                    (op.answered, op.answer) = (Some(at), Some(answer));
                    if !op.in_doubt() {
                        op.over = Some(at);
                        open.remove(number);
                    }
                    if let (Answer::Page { messages }, Ask::History { channel, whole: true, .. }, Some(_)) =
                        (answer, op.ask, model.quiet)
                    {
                        model.stored.entry(channel).or_insert(messages);
                    }
                }
                What::Connecting { session, user } => {
                    let known = model.sessions.entry(*session).or_default();
                    (known.user, known.connecting) = (user, at);
                }
                What::Connected { session, version } => {
                    model.sessions.entry(*session).or_default().connected = Some((at, *version));
                }
                What::Delivered { session, channel, messages } => {
                    model.sessions.entry(*session).or_default().delivered.push((at, channel, messages));
                }
                What::Gap { session, channel, first, head } => {
                    model.sessions.entry(*session).or_default().gaps.push((at, channel, *first, *head));
                }
                What::Moved { session, .. } => model.sessions.entry(*session).or_default().moved.push(at),
                What::Resync { session } => model.sessions.entry(*session).or_default().must_sync = true,
                What::Settled { session } => model.sessions.entry(*session).or_default().settled = Some(at),
                What::Ended { .. } => {}
            }
        }
        for (channel, messages) in &model.stored {
            for message in *messages {
                model.places.entry((channel, &message.from, &message.name)).or_insert(message);
            }
        }
        model
    }

    /// What is stored at a seq.
    fn at(&self, channel: &Channel, seq: u64) -> Option<&'a Seen> {
        let index = usize::try_from(seq.checked_sub(1)?).ok()?;
        self.stored.get(channel)?.get(index)
    }

    fn messages(&self, channel: &Channel) -> &'a [Seen] {
        self.stored.get(channel).copied().unwrap_or_default()
    }

    /// Where a name is stored.
    fn place(&self, channel: &Channel, user: &str, name: &str) -> Option<&'a Seen> {
        self.places.get(&(channel, user, name)).copied()
    }

    /// Countable messages with `floor` < seq <= `last`: everything but one's own.
    fn countable(&self, channel: &Channel, user: &str, floor: u64, last: u64) -> u64 {
        let messages = self.messages(channel).iter();
        messages.filter(|m| m.seq > floor && m.seq <= last && m.from != user).count() as u64
    }

    /// Channels a user is in from beginning to end.
    fn channels_of(&self, user: &str) -> impl Iterator<Item = &'a Channel> {
        let of = move |members: &std::collections::BTreeSet<String>| members.contains(user);
        let channels: Vec<_> = self.history.members.iter().filter(|(_, members)| of(members)).collect();
        channels.into_iter().map(|(channel, _)| channel)
    }
}

/// Every broken promise of a history, in no particular order; none: all were kept.
pub fn check(history: &History) -> Vec<Violation> {
    let model = Model::of(history);
    let mut found = Vec::new();
    for (at, event) in history.events.iter().enumerate() {
        if let What::NotStarted(why) = event {
            let what = format!("the server does not start, so nothing that was acked is there: {why}");
            found.push(Violation { promise: ACK_MEANS_STORED, what, events: vec![at] });
        }
    }
    // Without an end nothing is known to be stored, and every promise would look broken.
    if model.quiet.is_some() {
        order::check(&model, &mut found);
        delivered::check(&model, &mut found);
        positions::check(&model, &mut found);
        client::check(&model, &mut found);
        versions::check(&model, &mut found);
    }
    found
}
