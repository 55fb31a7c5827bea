//! delivered-or-told: what each session must have received.

use std::collections::{HashMap, HashSet};

use super::{DELIVERED_OR_TOLD, Model, Session, Violation};
use crate::record::{Ask, At, Channel, Via};

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
