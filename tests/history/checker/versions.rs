//! version and clean-cut.

use std::collections::{BTreeMap, HashMap};

use super::{CLEAN_CUT, Model, Op, VERSION, Violation};
use crate::record::{Answer, Ask, At, Channel, Row, What};

pub fn check(model: &Model<'_>, found: &mut Vec<Violation>) {
    grows(model, found);
    unique(model, found);
    for op in model.ops.values() {
        if let (Ask::Sync { since, recents }, Some(Answer::Synced { version, reset, rows }), Some(at)) =
            (op.ask, op.answer, op.answered)
        {
            let (since, recents, version) = (if *reset { 0 } else { *since }, *recents, *version);
            cut(model, &Cut { user: op.user, events: [op.asked, at], since, recents, version, rows }, found);
        }
    }
}

/// Who asks after somebody was shown a version gets none below it; what is new gets a greater one.
fn grows(model: &Model<'_>, found: &mut Vec<Violation>) {
    let mut shown: (u64, At) = (0, 0);
    let mut floors: HashMap<u64, (u64, At)> = HashMap::new();
    let mut connecting: HashMap<u64, (u64, At)> = HashMap::new();
    for (at, event) in model.history.events.iter().enumerate() {
        let mut is_new = false;
        let (version, floor) = match event {
            What::Asked { op, .. } => {
                floors.insert(*op, shown);
                continue;
            }
            What::Connecting { session, .. } => {
                connecting.insert(*session, shown);
                continue;
            }
            What::Answered { op, answer } => {
                let version = match answer {
                    Answer::Stored { id, disk: true, duplicate, .. } => {
                        is_new = !duplicate;
                        *id
                    }
                    Answer::Put { version, .. } | Answer::Synced { version, .. } => *version,
                    _ => continue,
                };
                // The first outcome again, as old as it is.
                let again = matches!(answer, Answer::Stored { duplicate: true, .. });
                (version, floors.get(op).filter(|_| !again))
            }
            What::Connected { session, version } => (*version, connecting.get(session)),
            What::Delivered { messages, .. } => (messages.iter().map(|m| m.id).max().unwrap_or(0), None),
            What::Moved { version, .. } => (*version, None),
            _ => continue,
        };
        if let Some((least, earlier)) = floor.filter(|(least, _)| version < *least || (is_new && version == *least)) {
            let kind = if is_new { "a new message has" } else { "shown is" };
            let what = format!("{kind} version {version} after {least} was shown");
            found.push(Violation { promise: VERSION, what, events: vec![*earlier, at] });
        }
        if version > shown.0 {
            shown = (version, at);
        }
    }
}

/// No two changes share a version.
fn unique(model: &Model<'_>, found: &mut Vec<Violation>) {
    let mut changes: BTreeMap<u64, (String, At)> = BTreeMap::new();
    let mut see = |version: u64, change: String, at: At| {
        let (known, earlier) = changes.entry(version).or_insert_with(|| (change.clone(), at));
        if *known != change {
            let what = format!("version {version} is of {known} and of {change}");
            found.push(Violation { promise: VERSION, what, events: vec![*earlier, at] });
        }
    };
    let message = |channel: &Channel, from: &str, name: &str| format!("message {name} of {from} in {channel:?}");
    for (at, event) in model.history.events.iter().enumerate() {
        match event {
            What::Answered { op, answer: Answer::Stored { id, .. } } => {
                if let Some(Op { ask: Ask::Send { channel, name, .. }, user, .. }) = model.ops.get(op) {
                    see(*id, message(channel, user, name), at);
                }
            }
            What::Answered { op, answer: Answer::Page { messages } } => {
                if let Some(channel) = model.ops.get(op).and_then(|op| op.ask.channel()) {
                    messages.iter().for_each(|m| see(m.id, message(channel, &m.from, &m.name), at));
                }
            }
            What::Delivered { channel, messages, .. } => {
                messages.iter().for_each(|m| see(m.id, message(channel, &m.from, &m.name), at));
            }
            What::Moved { session, channel, version, unread, read_to, last } => {
                let user = model.sessions.get(session).map_or("", |session| session.user);
                let change = format!("{user} in {channel:?}: {unread} unread above {read_to} up to {last}");
                see(*version, change, at);
            }
            _ => {}
        }
    }
}

/// A sync and its answer.
struct Cut<'a> {
    user: &'a str,
    events: [At; 2],
    since: u64,
    recents: u64,
    version: u64,
    rows: &'a [Row],
}

/// A sync shows the state at its version: every channel with something after what was asked for, up to there at least.
fn cut(model: &Model<'_>, sync: &Cut<'_>, found: &mut Vec<Violation>) {
    let Cut { user, events, since, recents, version, rows } = *sync;
    let mut say = |promise, what: String| {
        let what = format!("a sync of {user} from {since} to {version}: {what}");
        found.push(Violation { promise, what, events: events.to_vec() });
    };
    let mut versions: HashMap<u64, &Channel> = HashMap::new();
    for row in rows {
        // A row that is newer than the answer does not say how new: it has the answer's version.
        if row.version > version || (row.version <= since && row.version < version) {
            say(VERSION, format!("{:?} has version {}", row.channel, row.version));
        }
        if row.version < version
            && let Some(other) = versions.insert(row.version, &row.channel)
        {
            say(VERSION, format!("{other:?} and {:?} have version {}", row.channel, row.version));
        }
        let head = model.messages(&row.channel).len() as u64;
        if row.last > head {
            say(CLEAN_CUT, format!("{:?} ends at {}, stored are {head}", row.channel, row.last));
        }
        let seqs = row.recents.iter().map(|message| message.seq);
        let expected = (1..=row.last).rev().take(usize::try_from(recents).unwrap_or(usize::MAX));
        if !seqs.clone().eq(expected) {
            let seqs: Vec<u64> = seqs.collect();
            say(CLEAN_CUT, format!("{:?} ends at {} and shows {seqs:?} of {recents}", row.channel, row.last));
        }
    }
    for channel in model.channels_of(user) {
        let newest = model.messages(channel).iter().rfind(|message| message.id <= version);
        let Some(newest) = newest else { continue };
        let row = rows.iter().find(|row| row.channel == *channel);
        match row {
            Some(row) if row.last < newest.seq => {
                say(CLEAN_CUT, format!("{channel:?} ends at {}, at that version it had {newest:?}", row.last));
            }
            None if newest.id > since => say(CLEAN_CUT, format!("{channel:?} is left out, it has {newest:?}")),
            _ => {}
        }
        let read = model.sessions.values().filter(|session| session.user == user);
        for moved in read.flat_map(|session| &session.moved) {
            if let What::Moved { channel: of, version: moved, .. } = &model.history.events[*moved]
                && of == channel
                && *moved > since
                && *moved <= version
                && row.is_none()
            {
                say(CLEAN_CUT, format!("{channel:?} is left out, it was read elsewhere at {moved}"));
            }
        }
    }
}
