//! delivered-or-told: what each session must have received, and what those of users who come and go must not.

use std::collections::{HashMap, HashSet};

use super::{DELIVERED_OR_TOLD, Model, Session, Violation};
use crate::record::{Answer, Ask, At, Channel, Via};

/// What a session is told by answers to its own sends.
#[derive(Default)]
struct Own<'a> {
    /// Names it sent.
    sent: HashSet<(&'a Channel, &'a str)>,
    /// Seqs that were acked to it, at whatever level.
    acked: HashSet<(&'a Channel, u64)>,
}

pub fn check(model: &Model<'_>, found: &mut Vec<Violation>) {
    let mut own: HashMap<u64, Own<'_>> = HashMap::new();
    for op in model.ops.values() {
        if let (Ask::Send { channel, name, .. }, Via::Session(session)) = (op.ask, op.via) {
            let own = own.entry(session).or_default();
            own.sent.insert((channel, name));
            if let Some((seq, ..)) = op.stored() {
                own.acked.insert((channel, seq));
            }
        }
    }
    let none = Own::default();
    for (number, session) in &model.sessions {
        for channel in model.channels_of(session.user) {
            channel_of(model, *number, session, own.get(number).unwrap_or(&none), channel, found);
        }
    }
    guests(model, found);
}

/// When each stored message was first asked for, and first known to be stored.
fn moments<'a>(model: &Model<'a>) -> HashMap<(&'a Channel, u64), (At, Option<At>)> {
    let mut moments: HashMap<(&Channel, u64), (At, Option<At>)> = HashMap::new();
    let earlier = |known: &mut Option<At>, at: At| *known = Some(known.map_or(at, |known| known.min(at)));
    for op in model.ops.values() {
        let Ask::Send { channel, name, .. } = op.ask else { continue };
        let Some(stored) = model.place(channel, op.user, name) else { continue };
        let moment = moments.entry((channel, stored.seq)).or_insert((op.asked, None));
        moment.0 = moment.0.min(op.asked);
        if let (Some((.., true, _)), Some(at)) = (op.stored(), op.answered) {
            earlier(&mut moment.1, at);
        }
    }
    for (at, channel, messages) in model.sessions.values().flat_map(|session| &session.delivered) {
        for message in *messages {
            if let Some(moment) = moments.get_mut(&(*channel, message.seq)) {
                earlier(&mut moment.1, *at);
            }
        }
    }
    moments
}

/// Between two changes of a membership, the first of which was answered, a user surely is a member or surely is none.
/// Messages that were asked for and stored in between are due to the first and not for the second.
fn guests(model: &Model<'_>, found: &mut Vec<Violation>) {
    let moments = moments(model);
    let last = model.history.events.len();
    for guest in &model.guests {
        for (channel, messages) in &model.stored {
            let changes = model.ops.values().filter_map(|op| match (op.ask, op.answer) {
                (Ask::Membership { channel: of, uid, member }, answer) if of == *channel && uid == guest => {
                    let surely = matches!(answer, Some(Answer::Changed)).then_some((op.answered?, *member));
                    Some((op.asked, surely))
                }
                _ => None,
            });
            let mut spans: Vec<(At, At, bool)> = Vec::new();
            let mut from = Some((0, false));
            for (asked, surely) in changes {
                spans.extend(from.map(|(from, member)| (from, asked, member)));
                from = surely;
            }
            spans.extend(from.map(|(from, member)| (from, last, member)));
            let surely = |seq: u64| {
                let (asked, Some(known)) = *moments.get(&(*channel, seq))? else { return None };
                spans.iter().find(|(from, to, _)| *from < asked && known < *to).map(|(.., member)| *member)
            };
            for (number, session) in model.sessions.iter().filter(|(_, session)| session.user == *guest) {
                let Some((connected, since)) = session.connected else { continue };
                let of_channel = session.delivered.iter().filter(|(_, of, _)| of == channel);
                let told: HashMap<u64, At> =
                    of_channel.flat_map(|(at, _, messages)| messages.iter().map(|m| (m.seq, *at))).collect();
                for (seq, at) in &told {
                    if surely(*seq) == Some(false) {
                        let what = format!("{channel:?}: session {number} of {guest}, no member, got seq {seq}");
                        found.push(Violation { promise: DELIVERED_OR_TOLD, what, events: vec![*at] });
                    }
                }
                let Some((up_to, at)) = told.iter().max() else { continue };
                for message in messages.iter().filter(|message| message.id > since && message.seq < *up_to) {
                    let in_gap = session
                        .gaps
                        .iter()
                        .any(|(_, of, first, head)| of == channel && (*first..=*head).contains(&message.seq));
                    if surely(message.seq) == Some(true) && !told.contains_key(&message.seq) && !in_gap {
                        let what = format!("{channel:?}: session {number} of {guest} was never told of {message:?}");
                        found.push(Violation { promise: DELIVERED_OR_TOLD, what, events: vec![connected, *at] });
                    }
                }
            }
        }
    }
}

fn channel_of(
    model: &Model<'_>,
    number: u64,
    session: &Session<'_>,
    own: &Own<'_>,
    channel: &Channel,
    found: &mut Vec<Violation>,
) {
    let mut delivered: HashMap<u64, At> = HashMap::new();
    let mut reached: Option<(u64, At)> = None;
    let mut reach = |seq: u64, at: At| {
        if reached.is_none_or(|(most, _)| seq > most) {
            reached = Some((seq, at));
        }
    };
    for (at, in_channel, messages) in &session.delivered {
        if *in_channel != channel {
            continue;
        }
        for message in *messages {
            reach(message.seq, *at);
            if let Some(earlier) = delivered.insert(message.seq, *at) {
                let what = format!("{channel:?}: session {number} got seq {} twice", message.seq);
                found.push(Violation { promise: DELIVERED_OR_TOLD, what, events: vec![earlier, *at] });
            }
        }
    }
    let gaps: Vec<_> = session.gaps.iter().filter(|(_, in_channel, ..)| *in_channel == channel).collect();
    for (at, _, _, head) in &gaps {
        reach(*head, *at);
    }
    let Some((connected, since)) = session.connected else { return };
    // A session that was cut need not have got the last ones, but nothing before the last it got may be missing.
    let (up_to, shown_by) = match (session.settled, reached) {
        (Some(at), _) => (model.messages(channel).len() as u64, at),
        (None, Some((seq, at))) => (seq, at),
        (None, None) => return,
    };
    let due = model.messages(channel).iter().filter(|message| message.id > since && message.seq <= up_to);
    for message in due {
        let told = gaps.iter().any(|(_, _, first, head)| (*first..=*head).contains(&message.seq));
        let is_own = message.from == session.user
            && match session.settled {
                Some(_) => own.acked.contains(&(channel, message.seq)),
                None => own.sent.contains(&(channel, &*message.name)),
            };
        if !delivered.contains_key(&message.seq) && !told && !is_own {
            let what = format!(
                "{channel:?}: session {number} of {}, which is told of everything after {since}, was never told of {message:?}",
                session.user
            );
            found.push(Violation { promise: DELIVERED_OR_TOLD, what, events: vec![connected, shown_by] });
        }
    }
}
