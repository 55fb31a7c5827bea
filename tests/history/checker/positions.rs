//! one-unread, and ack-means-stored of read positions and memberships.
//!
//! A change has an interval, from its ask to the end of what can become of it. What is shown to somebody who asks later is
//! the work of a change that no other came wholly after and wholly before the question: with everything else overlapping,
//! each of those may be the last.

use super::{ACK_MEANS_STORED, Model, ONE_UNREAD, Op, Violation};
use crate::record::{Answer, Ask, At, Channel, Row, What};

/// A change of something that is asked for later.
struct Change<T> {
    asked: At,
    /// When it was surely done; `None`: nobody was told.
    done: Option<At>,
    /// From when on it cannot be done any more.
    over: Option<At>,
    /// What it makes of it; `None`: anything.
    to: Option<T>,
}

/// What somebody who asked at `asked` and was answered at `answered` may be shown, and by which events; `None`: anything.
fn possible<T: Clone + PartialEq>(
    changes: &[Change<T>],
    first: T,
    asked: At,
    answered: At,
) -> Option<(Vec<T>, Vec<At>)> {
    let before = |done: Option<At>, at: At| done.is_some_and(|done| done < at);
    let done_before: Vec<_> = changes.iter().filter(|change| before(change.done, asked)).collect();
    let mut shown = Vec::new();
    if done_before.is_empty() {
        shown.push(first);
    }
    for change in changes.iter().filter(|change| change.asked < answered) {
        if !done_before.iter().any(|later| before(change.over, later.asked)) {
            shown.push(change.to.clone()?);
        }
    }
    Some((shown, done_before.iter().filter_map(|change| change.done).max().into_iter().collect()))
}

pub fn check(model: &Model<'_>, found: &mut Vec<Violation>) {
    let heads = Heads::of(model);
    for op in model.ops.values() {
        let Some(at) = op.answered else { continue };
        match (op.ask, op.answer) {
            (Ask::Sync { .. }, Some(Answer::Synced { rows, .. })) => {
                for row in rows {
                    row_of(model, op, at, row, found);
                }
            }
            (Ask::Read { channel, .. } | Ask::SetUnread { channel, .. }, Some(Answer::Put { unread, read_to, .. })) => {
                let heads = (heads.surely(channel, op.asked), heads.possibly(channel, at));
                found.extend(put(model, op, channel, (*unread, *read_to), heads).map(|what| Violation {
                    promise: ONE_UNREAD,
                    what,
                    events: vec![op.asked, at],
                }));
            }
            (Ask::Members { channel }, Some(Answer::Members(members))) => {
                for guest in &model.guests {
                    let changes = memberships(model, channel, guest);
                    let is_member = members.contains(*guest);
                    if let Some((may, events)) = possible(&changes, false, op.asked, at)
                        && !may.contains(&is_member)
                    {
                        let what = format!("{channel:?}: {guest} is a member: {is_member}; the last change says else");
                        let events = events.into_iter().chain([at]).collect();
                        found.push(Violation { promise: ACK_MEANS_STORED, what, events });
                    }
                }
            }
            _ => {}
        }
    }
    for session in model.sessions.values() {
        for at in &session.moved {
            let What::Moved { channel, unread, read_to, last, .. } = &model.history.events[*at] else { continue };
            let counted = model.countable(channel, session.user, *read_to, *last);
            if counted != *unread {
                let what = format!(
                    "{channel:?}: an event tells {} of {unread} unread above {read_to} up to {last}; stored are {counted}",
                    session.user
                );
                found.push(Violation { promise: ONE_UNREAD, what, events: vec![*at] });
            }
        }
    }
}

fn row_of(model: &Model<'_>, op: &Op<'_>, at: At, row: &Row, found: &mut Vec<Violation>) {
    let Row { channel, unread, read_to, last, .. } = row;
    let counted = model.countable(channel, op.user, *read_to, *last);
    // A busy channel's row may be counted with a floor one own message older (`hub/conversations/sync.rs`).
    let own = model.messages(channel).iter().filter(|m| m.from == op.user && m.seq <= *last).map(|m| m.seq).max();
    let above_own = own.filter(|own| own > read_to).map(|own| model.countable(channel, op.user, own, *last));
    if *unread != counted && Some(*unread) != above_own {
        let what = format!(
            "{channel:?}: a row shows {} {unread} unread above {read_to} up to {last}; stored are {counted}",
            op.user
        );
        found.push(Violation { promise: ONE_UNREAD, what, events: vec![op.asked, at] });
    }
    let changes = positions(model, channel, op.user);
    if let Some((may, events)) = possible(&changes, 0, op.asked, at)
        && !may.contains(read_to)
    {
        let what = format!("{channel:?}: a row shows {} as read to {read_to}, the last changes to {may:?}", op.user);
        let events = events.into_iter().chain([op.asked, at]).collect();
        found.push(Violation { promise: ACK_MEANS_STORED, what, events });
    }
}

/// What is wrong with the answer to a change of a read position: (unread, read to) must be so at some head between what was
/// surely and what can have been stored.
fn put(
    model: &Model<'_>,
    op: &Op<'_>,
    channel: &Channel,
    (unread, read_to): (u64, u64),
    (least, most): (u64, u64),
) -> Option<String> {
    let user = op.user;
    let counted = |floor, head| model.countable(channel, user, floor, head);
    let (from, to) = (counted(read_to, least), counted(read_to, most));
    if !(from..=to).contains(&unread) {
        return Some(format!(
            "{channel:?}: {user} is told of {unread} unread above {read_to}; stored are {from} to {to}"
        ));
    }
    match op.ask {
        Ask::SetUnread { unread: wanted, .. } if unread > *wanted || unread < (*wanted).min(counted(0, least)) => {
            Some(format!("{channel:?}: {user} asked for {wanted} unread and got {unread}"))
        }
        Ask::Read { seq, .. } if read_to < (*seq).min(least) => {
            Some(format!("{channel:?}: {user} read to {seq} and is told {read_to}"))
        }
        _ => None,
    }
}

/// How far a channel reached when.
struct Heads<'a> {
    /// (event, channel, seq): at that event somebody knew that the seq is stored.
    known: Vec<(At, &'a Channel, u64)>,
    /// (event, channel, seq): before that event the message did not exist.
    asked: Vec<(At, &'a Channel, u64)>,
}

impl<'a> Heads<'a> {
    fn of(model: &Model<'a>) -> Self {
        let (mut known, mut asked) = (Vec::new(), std::collections::HashMap::new());
        for op in model.ops.values() {
            let Ask::Send { channel, name, .. } = op.ask else { continue };
            if let Some((seq, _, true, _)) = op.stored()
                && let Some(at) = op.answered
            {
                known.push((at, channel, seq));
            }
            if let Some(stored) = model.place(channel, op.user, name) {
                let first = asked.entry((channel, stored.seq)).or_insert(op.asked);
                *first = op.asked.min(*first);
            }
        }
        for session in model.sessions.values() {
            for (at, channel, messages) in &session.delivered {
                known.extend(messages.last().map(|message| (*at, *channel, message.seq)));
            }
        }
        Self { known, asked: asked.into_iter().map(|((channel, seq), at)| (at, channel, seq)).collect() }
    }

    fn surely(&self, channel: &Channel, before: At) -> u64 {
        let known = self.known.iter().filter(|(at, of, _)| *at < before && *of == channel);
        known.map(|(.., seq)| *seq).max().unwrap_or(0)
    }

    fn possibly(&self, channel: &Channel, until: At) -> u64 {
        let asked = self.asked.iter().filter(|(at, of, _)| *at < until && *of == channel);
        asked.map(|(.., seq)| *seq).max().unwrap_or(0)
    }
}

/// What moves a user's read position in a channel: explicit changes and one's own messages.
fn positions(model: &Model<'_>, channel: &Channel, user: &str) -> Vec<Change<u64>> {
    let mut changes = Vec::new();
    let mut own: std::collections::BTreeMap<u64, Change<u64>> = std::collections::BTreeMap::new();
    for op in model.ops.values().filter(|op| op.user == user && op.ask.channel() == Some(channel)) {
        let (asked, over) = (op.asked, op.over);
        match (op.ask, op.answer) {
            (Ask::Read { .. } | Ask::SetUnread { .. }, Some(Answer::Put { read_to, .. })) => {
                changes.push(Change { asked, done: op.answered, over, to: Some(*read_to) });
            }
            (Ask::Read { seq, .. }, _) if op.in_doubt() => {
                changes.push(Change { asked, done: None, over, to: Some(*seq) });
            }
            (Ask::SetUnread { .. }, _) if op.in_doubt() => changes.push(Change { asked, done: None, over, to: None }),
            (Ask::Send { name, .. }, _) => {
                let Some(stored) = model.place(channel, user, name) else { continue };
                let done = op.stored().filter(|(.., disk, _)| *disk).and(op.answered);
                let change =
                    own.entry(stored.seq).or_insert(Change { asked, done: None, over: None, to: Some(stored.seq) });
                change.asked = change.asked.min(asked);
                change.done = [change.done, done].into_iter().flatten().min();
                change.over = change.done;
            }
            _ => {}
        }
    }
    changes.extend(own.into_values());
    changes
}

fn memberships(model: &Model<'_>, channel: &Channel, guest: &str) -> Vec<Change<bool>> {
    let of = |op: &Op<'_>| match (op.ask, op.answer) {
        (Ask::Membership { channel: of, uid, member }, answer) if of == channel && uid == guest => {
            let done = matches!(answer, Some(Answer::Changed)).then_some(op.answered).flatten();
            let to = Some(*member);
            (done.is_some() || op.in_doubt()).then_some(Change { asked: op.asked, done, over: op.over, to })
        }
        _ => None,
    };
    model.ops.values().filter_map(of).collect()
}
