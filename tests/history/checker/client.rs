//! one-unread and clean-cut from a client's side: whoever synced once and then follows docs/wire.md section 9 shows in the end
//! what the server does.

use std::collections::HashMap;

use super::{Model, ONE_UNREAD, Session, Violation};
use crate::record::{Answer, Ask, At, Channel, Via, What};

/// What a client took for the newest it knows of a conversation.
#[derive(Clone, Copy)]
struct Base {
    version: u64,
    unread: u64,
    last: u64,
    at: At,
}

pub fn check(model: &Model<'_>, found: &mut Vec<Violation>) {
    let mut shown: HashMap<(&str, &Channel), (u64, At)> = HashMap::new();
    for op in model.ops.values() {
        let (Ask::Sync { since: 0, .. }, Some(Answer::Synced { rows, .. }), Some(at)) =
            (op.ask, op.answer, op.answered)
        else {
            continue;
        };
        if model.quiet.is_some_and(|quiet| op.asked > quiet) {
            shown.extend(rows.iter().map(|row| ((op.user, &row.channel), (row.unread, at))));
        }
    }
    for (number, session) in &model.sessions {
        if session.settled.is_none() || session.must_sync {
            continue;
        }
        let Some(bases) = bases(model, *number, session) else { continue };
        for channel in model.channels_of(session.user) {
            let (Some(base), Some((unread, at))) = (bases.get(channel), shown.get(&(session.user, channel))) else {
                continue;
            };
            let head = model.messages(channel).len() as u64;
            let own = model.messages(channel).iter().rfind(|message| message.from == session.user);
            let counted = match own.filter(|own| own.id > base.version) {
                Some(own) => model.countable(channel, session.user, own.seq, head),
                None => base.unread + model.countable(channel, session.user, base.last, head),
            };
            if counted != *unread {
                let what = format!(
                    "{channel:?}: session {number} of {} was told of {} unread up to {} at version {} and counts \
                     {counted} in the end; the server shows {unread}",
                    session.user, base.unread, base.last, base.version
                );
                found.push(Violation { promise: ONE_UNREAD, what, events: vec![base.at, *at] });
            }
        }
    }
}

/// The newest of each conversation, when the session was shown all of them at some time.
fn bases<'a>(model: &Model<'a>, number: u64, session: &Session<'a>) -> Option<HashMap<&'a Channel, Base>> {
    let mut told: Vec<(At, &'a Channel, Base)> = Vec::new();
    let mut is_whole = false;
    for op in model.ops.values().filter(|op| op.via == Via::Session(number)) {
        let (Ask::Sync { since, .. }, Some(Answer::Synced { reset, rows, .. }), Some(at)) =
            (op.ask, op.answer, op.answered)
        else {
            continue;
        };
        if *since == 0 || *reset {
            is_whole = true;
            let nothing = Base { version: 0, unread: 0, last: 0, at };
            told.extend(model.channels_of(session.user).map(|channel| (0, channel, nothing)));
        }
        let base = |row: &crate::record::Row| Base { version: row.version, unread: row.unread, last: row.last, at };
        told.extend(rows.iter().map(|row| (at, &row.channel, base(row))));
    }
    for at in &session.moved {
        if let What::Moved { channel, version, unread, last, .. } = &model.history.events[*at] {
            told.push((*at, channel, Base { version: *version, unread: *unread, last: *last, at: *at }));
        }
    }
    told.sort_by_key(|(at, ..)| *at);
    let mut bases: HashMap<&Channel, Base> = HashMap::new();
    for (_, channel, base) in told {
        let known = bases.entry(channel).or_insert(base);
        if base.version >= known.version {
            *known = base;
        }
    }
    is_whole.then_some(bases)
}
