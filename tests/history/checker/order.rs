//! one-order, stored-once, and ack-means-stored of messages.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{ACK_MEANS_STORED, Model, ONE_ORDER, Op, STORED_ONCE, Violation};
use crate::record::{Answer, Ask, At, Channel, Seen, Via, What};

pub fn check(model: &Model<'_>, found: &mut Vec<Violation>) {
    stored(model, found);
    shown(model, found);
    sent_in_order(model, found);
    acked(model, found);
}

/// What is stored: 1, 2, 3 …, ids that grow, every name once, nothing nobody sent.
fn stored(model: &Model<'_>, found: &mut Vec<Violation>) {
    let mut sent: HashMap<(&Channel, &str, &str), HashSet<u64>> = HashMap::new();
    for op in model.ops.values() {
        if let Ask::Send { channel, name, payload, .. } = op.ask {
            sent.entry((channel, op.user, name)).or_default().insert(*payload);
        }
    }
    let events: Vec<At> = model.quiet.into_iter().collect();
    for (channel, messages) in &model.stored {
        let mut names: HashMap<(&str, &str), u64> = HashMap::new();
        let mut last_id = 0;
        for (place, message) in (1..).zip(*messages) {
            let mut say = |promise, what| found.push(Violation { promise, what, events: events.clone() });
            if message.seq != place {
                say(ONE_ORDER, format!("{channel:?}: seq {} is stored where {place} belongs", message.seq));
            }
            if message.id <= last_id {
                say(ONE_ORDER, format!("{channel:?}: seq {} has id {} behind {last_id}", message.seq, message.id));
            }
            last_id = message.id;
            if let Some(before) = names.insert((&message.from, &message.name), message.seq) {
                let what = format!("{channel:?}: {} is stored as {before} and as {}", message.name, message.seq);
                say(STORED_ONCE, what);
            }
            let payloads = sent.get(&(*channel, &*message.from, &*message.name));
            if payloads.is_none_or(|payloads| !payloads.contains(&message.payload)) {
                say(ONE_ORDER, format!("{channel:?}: nobody sent what is stored as {message:?}"));
            }
        }
    }
}

/// Every message anybody was shown is stored just so, and nobody was shown a channel in another order.
fn shown(model: &Model<'_>, found: &mut Vec<Violation>) {
    let mut see = |at: At, channel: &Channel, message: &Seen| match model.at(channel, message.seq) {
        Some(stored) if stored == message => {}
        stored => {
            let what = format!("{channel:?}: {message:?} was shown, stored there is {stored:?}");
            found.push(Violation { promise: ONE_ORDER, what, events: vec![at] });
        }
    };
    for session in model.sessions.values() {
        for (at, channel, messages) in &session.delivered {
            messages.iter().for_each(|message| see(*at, channel, message));
        }
    }
    for op in model.ops.values() {
        let Some(at) = op.answered else { continue };
        match (op.ask, op.answer) {
            (Ask::History { channel, .. }, Some(Answer::Page { messages })) => {
                messages.iter().for_each(|message| see(at, channel, message));
            }
            (Ask::Sync { .. }, Some(Answer::Synced { rows, .. })) => {
                for row in rows {
                    row.recents.iter().for_each(|message| see(at, &row.channel, message));
                }
            }
            _ => {}
        }
    }
    for (number, session) in &model.sessions {
        let mut last: HashMap<&Channel, (u64, At)> = HashMap::new();
        for (at, channel, messages) in &session.delivered {
            for message in *messages {
                let before = last.insert(channel, (message.seq, *at));
                if let Some((seq, earlier)) = before.filter(|(seq, _)| *seq >= message.seq) {
                    let what = format!("{channel:?}: session {number} got seq {} behind {seq}", message.seq);
                    found.push(Violation { promise: ONE_ORDER, what, events: vec![earlier, *at] });
                }
            }
        }
    }
    for op in model.ops.values() {
        let (Some(at), Ask::History { channel, first, whole }, Some(Answer::Page { messages })) =
            (op.answered, op.ask, op.answer)
        else {
            continue;
        };
        let in_order = (*first..).zip(messages).all(|(seq, message)| message.seq == seq);
        let is_final = *whole && model.quiet.is_some_and(|quiet| op.asked > quiet);
        if !in_order || (is_final && messages.len() != model.messages(channel).len()) {
            let seqs: Vec<u64> = messages.iter().map(|message| message.seq).collect();
            let what = format!("{channel:?}: a history from {first} on shows {} messages: {seqs:?}", seqs.len());
            found.push(Violation { promise: ONE_ORDER, what, events: vec![op.asked, at] });
        }
    }
}

/// A message sent after another was acked lies behind it, whoever sent them; what one session sent in a row lies in that
/// row. A name that was sent more than once has a place in the second rule only where its first send was the stored one.
fn sent_in_order(model: &Model<'_>, found: &mut Vec<Violation>) {
    let mut sends: HashMap<(&Channel, &str, &str), u32> = HashMap::new();
    for op in model.ops.values() {
        if let Ask::Send { channel, name, .. } = op.ask {
            *sends.entry((channel, op.user, name)).or_default() += 1;
        }
    }
    let mut first_asked: HashSet<(&Channel, &str, &str)> = HashSet::new();
    let mut acked: HashMap<&Channel, (u64, At)> = HashMap::new();
    let mut in_a_row: BTreeMap<(u64, &Channel), (u64, At)> = BTreeMap::new();
    for (at, event) in model.history.events.iter().enumerate() {
        match event {
            What::Asked { op, user, via, ask: Ask::Send { channel, name, .. } } => {
                let key = (channel, &**user, &**name);
                let Some(stored) = model.place(channel, user, name).filter(|_| first_asked.insert(key)) else {
                    continue;
                };
                if let Some((seq, earlier)) = acked.get(channel).filter(|(seq, _)| *seq >= stored.seq) {
                    let what =
                        format!("{channel:?}: {name} was sent after seq {seq} was acked and has seq {}", stored.seq);
                    found.push(Violation { promise: ONE_ORDER, what, events: vec![*earlier, at] });
                }
                let is_the_one = model.ops.get(op).and_then(Op::stored).is_some_and(|(.., disk, again)| disk && !again);
                if let Via::Session(session) = via
                    && (is_the_one || sends.get(&key) == Some(&1))
                {
                    let before = in_a_row.insert((*session, channel), (stored.seq, at));
                    if let Some((seq, earlier)) = before.filter(|(seq, _)| *seq >= stored.seq) {
                        let what = format!(
                            "{channel:?}: {name} has seq {}, what {user} sent before it on the same session has {seq}",
                            stored.seq
                        );
                        found.push(Violation { promise: ONE_ORDER, what, events: vec![earlier, at] });
                    }
                }
            }
            What::Answered { op, answer: Answer::Stored { seq, disk: true, .. } } => {
                let Some(channel) = model.ops.get(op).and_then(|op| op.ask.channel()) else { continue };
                let last = acked.entry(channel).or_insert((*seq, at));
                if *seq > last.0 {
                    *last = (*seq, at);
                }
            }
            _ => {}
        }
    }
}

/// What was acked is stored as it was acked, and a name has one outcome.
fn acked(model: &Model<'_>, found: &mut Vec<Violation>) {
    let mut outcomes: HashMap<(&Channel, &str, &str), (u64, u64, At)> = HashMap::new();
    let mut news: HashMap<(&Channel, &str, &str), At> = HashMap::new();
    let mut acks: Vec<_> = model.ops.values().filter(|op| op.stored().is_some()).collect();
    acks.sort_by_key(|op| op.answered);
    for op in acks {
        let (Ask::Send { channel, name, payload, .. }, Some((seq, id, disk, duplicate)), Some(at)) =
            (op.ask, op.stored(), op.answered)
        else {
            continue;
        };
        // `memory` promises a number, and that only until a crash or a failed lot.
        if !disk {
            continue;
        }
        let key = (channel, op.user, &**name);
        let mut say = |promise, what, events| found.push(Violation { promise, what, events });
        let (first_seq, first_id, earlier) = *outcomes.entry(key).or_insert((seq, id, at));
        if (first_seq, first_id) != (seq, id) {
            let what = format!("{channel:?}: {name} was acked as {first_seq}, id {first_id}, then as {seq}, id {id}");
            say(STORED_ONCE, what, vec![earlier, at]);
        }
        if !duplicate && let Some(earlier) = news.insert(key, at) {
            say(STORED_ONCE, format!("{channel:?}: {name} was acked as new twice"), vec![earlier, at]);
        }
        match model.place(channel, op.user, name) {
            None => {
                let there = model.at(channel, seq);
                let what =
                    format!("{channel:?}: {name} was acked with seq {seq} and is gone; stored there is {there:?}");
                say(ACK_MEANS_STORED, what, vec![op.asked, at]);
            }
            Some(stored) if (stored.seq, stored.id) != (seq, id) => {
                // Under a name stored twice the acked one may be the other.
                let there = model.at(channel, seq).filter(|there| there.id == id && there.name == *name);
                if there.is_none() {
                    let what = format!("{channel:?}: {name} was acked as {seq}, id {id}; stored is {stored:?}");
                    say(ACK_MEANS_STORED, what, vec![op.asked, at]);
                }
            }
            Some(stored) if stored.payload != *payload => {
                let what = format!("{channel:?}: {name} was acked with a payload other than what is stored");
                say(STORED_ONCE, what, vec![op.asked, at]);
            }
            Some(_) => {}
        }
    }
}
