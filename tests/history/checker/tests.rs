//! Hand-made histories: a good one with everything in it, and for every rule one in which one thing went wrong.

use super::*;
use crate::record::Row;

fn group() -> Channel {
    Channel::Group("g".into())
}

/// A message by its seq; ann sends them all.
fn seen(seq: u64) -> Seen {
    Seen { seq, id: 100 + 10 * seq, from: "ann".into(), name: format!("m{seq}"), payload: 7 * seq }
}

fn all(upto: u64) -> Vec<Seen> {
    (1..=upto).map(seen).collect()
}

/// A history that is written down step by step.
struct Story {
    history: History,
    ops: u64,
}

const ON_1: Via = Via::Session(1);
const ON_2: Via = Via::Session(2);
const HTTP: Via = Via::Http("reference");

impl Story {
    fn push(&mut self, what: What) -> &mut Self {
        self.history.events.push(what);
        self
    }

    fn ask(&mut self, user: &str, via: Via, ask: Ask) -> u64 {
        self.ops += 1;
        self.push(What::Asked { op: self.ops, user: user.into(), via, ask });
        self.ops
    }

    fn answer(&mut self, op: u64, answer: Answer) -> &mut Self {
        self.push(What::Answered { op, answer })
    }

    fn connect(&mut self, session: u64, user: &str, version: u64) -> &mut Self {
        self.push(What::Connecting { session, user: user.into() });
        self.push(What::Connected { session, version })
    }

    fn send(&mut self, via: Via, seq: u64) -> u64 {
        let Seen { name, payload, .. } = seen(seq);
        self.ask("ann", via, Ask::Send { channel: group(), name, payload, disk: true })
    }

    fn stored(&mut self, op: u64, seq: u64, duplicate: bool) -> &mut Self {
        self.answer(op, Answer::Stored { seq, id: seen(seq).id, disk: true, duplicate })
    }

    fn deliver(&mut self, session: u64, seqs: &[u64]) -> &mut Self {
        let messages = seqs.iter().copied().map(seen).collect();
        self.push(What::Delivered { session, channel: group(), messages })
    }

    fn sync(&mut self, via: Via, since: u64, version: u64, (unread, read_to, last): (u64, u64, u64)) -> &mut Self {
        let op = self.ask("rea", via, Ask::Sync { since, recents: 1 });
        let row = Row { channel: group(), version, unread, read_to, last, recents: vec![seen(last)] };
        self.answer(op, Answer::Synced { version, reset: false, rows: vec![row] })
    }

    fn history(&mut self, user: &str, messages: Vec<Seen>) -> &mut Self {
        let op = self.ask(user, HTTP, Ask::History { channel: group(), first: 1, whole: true });
        self.answer(op, Answer::Page { messages })
    }
}

/// Two pipelined sends, a read position, a sync, a send without an outcome, kill -9, a retry over another wire, a gap, the
/// end.
fn good() -> History {
    let members = BTreeMap::from([(group(), ["ann", "rea"].map(str::to_owned).into())]);
    let mut story = Story { history: History { members, events: vec![What::Started] }, ops: 0 };
    story.connect(1, "ann", 100).connect(2, "rea", 100);
    let (first, second) = (story.send(ON_1, 1), story.send(ON_1, 2));
    story.stored(first, 1, false).deliver(2, &[1, 2]).stored(second, 2, false);
    let read = story.ask("rea", ON_2, Ask::Read { channel: group(), seq: 1 });
    story.answer(read, Answer::Put { version: 125, unread: 1, read_to: 1 });
    story.push(What::Moved { session: 2, channel: group(), version: 125, unread: 1, read_to: 1, last: 2 });
    story.sync(ON_2, 0, 125, (1, 1, 2));
    let guest = Ask::Membership { channel: group(), uid: "guest".into(), member: true };
    let guest = story.ask("ann", HTTP, guest);
    story.answer(guest, Answer::Changed);
    story.connect(4, "guest", 125);
    let third = story.send(ON_1, 3);
    story.push(What::Ended { session: 4 }).push(What::Fault("kill".into()));
    story.push(What::Ended { session: 1 }).answer(third, Answer::Unknown).push(What::Ended { session: 2 });
    story.push(What::Started).connect(3, "rea", 126).sync(Via::Session(3), 0, 126, (1, 1, 2));
    let third = story.send(HTTP, 3);
    story.stored(third, 3, false).deliver(3, &[3]);
    story.connect(5, "guest", 130);
    let (fourth, fifth) = (story.send(HTTP, 4), story.send(HTTP, 5));
    story.stored(fourth, 4, false).stored(fifth, 5, false).deliver(5, &[4, 5]);
    story.push(What::Gap { session: 3, channel: group(), first: 4, head: 5 });
    let again = story.send(HTTP, 1);
    story.stored(again, 1, true);
    let other = Ask::Send { channel: group(), name: "m1".into(), payload: 1, disk: true };
    let other = story.ask("ann", HTTP, other);
    story.answer(other, Answer::Refused { code: "client_msg_no_conflict".into(), later: false });
    story.push(What::Settled { session: 3 }).push(What::Ended { session: 3 });
    story.push(What::Started).push(What::Quiet);
    story.history("ann", all(5)).history("rea", all(5));
    story.sync(HTTP, 0, 150, (4, 1, 5));
    let members = story.ask("ann", HTTP, Ask::Members { channel: group() });
    story.answer(members, Answer::Members(["ann", "guest", "rea"].map(str::to_owned).into()));
    story.history
}

/// Changes the nth answer that `change` takes.
fn answers(history: &mut History, n: usize, change: impl Fn(&mut Answer) -> bool) {
    let mut left = n;
    for event in &mut history.events {
        if let What::Answered { answer, .. } = event {
            let mut changed = answer.clone();
            if change(&mut changed) {
                if left == 0 {
                    *answer = changed;
                    return;
                }
                left -= 1;
            }
        }
    }
    panic!("no such answer");
}

fn store(history: &mut History, n: usize, to: (u64, u64, bool)) {
    answers(history, n, |answer| match answer {
        Answer::Stored { seq, id, duplicate, .. } => {
            (*seq, *id, *duplicate) = to;
            true
        }
        _ => false,
    });
}

/// Changes what both of the last readers find.
fn finally(history: &mut History, change: impl Fn(&mut Vec<Seen>)) {
    for event in &mut history.events {
        if let What::Answered { answer: Answer::Page { messages }, .. } = event {
            change(messages);
        }
    }
}

fn row(history: &mut History, n: usize, change: impl Fn(&mut Row)) {
    answers(history, n, |answer| match answer {
        Answer::Synced { rows, .. } => {
            rows.iter_mut().for_each(&change);
            true
        }
        _ => false,
    });
}

fn delivery(history: &mut History, n: usize, change: impl Fn(&mut Vec<Seen>)) {
    let mut left = n;
    for event in &mut history.events {
        if let What::Delivered { messages, .. } = event {
            if left == 0 {
                return change(messages);
            }
            left -= 1;
        }
    }
    panic!("no such delivery");
}

type Turn = fn(&mut History);

#[test]
fn a_history_that_keeps_every_promise_is_found_to() {
    assert_eq!(check(&good()), []);
}

/// Promise, what went wrong, what the checker says of it.
#[test]
fn every_broken_promise_is_named() {
    let turns: &[(&str, &str, &str, Turn)] = &[
        (ONE_ORDER, "one reader's history is another", "was shown, stored there is", |h| {
            answers(h, 1, |answer| match answer {
                Answer::Page { messages } => {
                    messages[1].name = "m3".into();
                    true
                }
                _ => false,
            });
        }),
        (ONE_ORDER, "a hole", "is stored where", |h| finally(h, |m| drop(m.remove(2)))),
        (ONE_ORDER, "a payload nobody sent", "nobody sent", |h| finally(h, |m| m[2].payload = 1)),
        (ONE_ORDER, "delivered as another", "was shown", |h| delivery(h, 0, |m| m[0].payload = 14)),
        (ONE_ORDER, "delivered the wrong way round", "got seq 1 behind 2", |h| delivery(h, 0, |m| m.swap(0, 1))),
        (ONE_ORDER, "delivered and gone", "stored there is None", |h| finally(h, |m| m.truncate(2))),
        (ONE_ORDER, "stored the other way round than sent", "sent before it on the same session", |h| {
            // With acks and deliveries that agree.
            let swap = |m: &mut Vec<Seen>| {
                let (left, right) = m.split_at_mut(1);
                std::mem::swap(&mut left[0].name, &mut right[0].name);
                std::mem::swap(&mut left[0].payload, &mut right[0].payload);
            };
            finally(h, swap);
            delivery(h, 0, swap);
            store(h, 0, (2, 120, false));
            store(h, 1, (1, 110, false));
            store(h, 5, (2, 120, true));
        }),
        (ONE_ORDER, "a later message before one that was acked", "was sent after seq", |h| {
            h.events.iter_mut().for_each(|event| {
                if let What::Asked { ask: Ask::Send { name, .. }, via: HTTP, .. } = event
                    && name == "m4"
                {
                    *name = "m0".into();
                }
            });
            finally(h, |m| {
                m[3].name = "m5".into();
                m[3].payload = 35;
                m[4].name = "m0".into();
                m[4].payload = 28;
            });
            let fourth =
                h.events.iter().position(|e| matches!(e, What::Answered { answer: Answer::Stored { seq: 4, .. }, .. }));
            let fifth =
                h.events.iter().position(|e| matches!(e, What::Answered { answer: Answer::Stored { seq: 5, .. }, .. }));
            let (Some(fourth), Some(fifth)) = (fourth, fifth) else { panic!("both are acked") };
            // m0 has seq 5 and was acked before m5 was sent.
            let asked = h
                .events
                .iter()
                .position(|e| matches!(e, What::Asked { ask: Ask::Send { name, .. }, .. } if name == "m5"));
            let asked = h.events.remove(asked.expect("asked"));
            h.events.insert(fourth, asked);
            store(h, 3, (5, 150, false));
            store(h, 4, (4, 140, false));
            assert!(fifth > fourth);
        }),
        (ACK_MEANS_STORED, "acked and gone", "and is gone", |h| finally(h, |m| m.truncate(4))),
        (ACK_MEANS_STORED, "acked with another seq", "was acked as 9", |h| store(h, 3, (9, 190, false))),
        (ACK_MEANS_STORED, "a read position is gone", "as read to 0", |h| {
            row(h, 2, |r| (r.read_to, r.unread) = (0, 5))
        }),
        (ACK_MEANS_STORED, "a member is gone", "is a member: false", |h| {
            answers(h, 0, |answer| match answer {
                Answer::Members(members) => members.remove("guest"),
                _ => false,
            });
        }),
        (ACK_MEANS_STORED, "it does not start any more", "does not start", |h| {
            h.events.push(What::NotStarted("damaged".into()))
        }),
        (STORED_ONCE, "stored twice", "is stored as 1 and as 6", |h| {
            finally(h, |m| m.push(Seen { seq: 6, id: 160, ..seen(1) }));
        }),
        (STORED_ONCE, "a retry gets another outcome", "then as 6", |h| store(h, 5, (6, 160, true))),
        (STORED_ONCE, "a retry is called new", "acked as new twice", |h| store(h, 5, (1, 110, false))),
        (STORED_ONCE, "another payload under the same name is taken", "a payload other", |h| {
            answers(h, 0, |answer| match answer {
                Answer::Refused { .. } => {
                    *answer = Answer::Stored { seq: 1, id: 110, disk: true, duplicate: true };
                    true
                }
                _ => false,
            });
        }),
        (DELIVERED_OR_TOLD, "one is left out", "was never told", |h| delivery(h, 0, |m| drop(m.remove(0)))),
        (DELIVERED_OR_TOLD, "who joined is not told", "5 of guest was never told", |h| {
            delivery(h, 2, |m| drop(m.remove(0)))
        }),
        (DELIVERED_OR_TOLD, "who is no member is told", "4 of guest, no member, got seq 1", |h| {
            let told = What::Delivered { session: 4, channel: group(), messages: vec![seen(1)] };
            h.events.insert(h.events.len() - 1, told);
        }),
        (DELIVERED_OR_TOLD, "one is told twice", "got seq 1 twice", |h| delivery(h, 0, |m| m.insert(0, seen(1)))),
        (DELIVERED_OR_TOLD, "the last is never told", "was never told", |h| {
            h.events.retain(|event| !matches!(event, What::Gap { .. }));
        }),
        (DELIVERED_OR_TOLD, "a gap notice that is too short", "was never told", |h| {
            for event in &mut h.events {
                if let What::Gap { first, .. } = event {
                    *first = 5;
                }
            }
        }),
        (ONE_UNREAD, "a row counts one too many", "a row shows", |h| row(h, 0, |r| r.unread = 2)),
        (ONE_UNREAD, "a row counts one too few", "a row shows", |h| row(h, 2, |r| r.unread = 3)),
        (ONE_UNREAD, "an event counts what lies above its head", "an event tells", |h| {
            for event in &mut h.events {
                if let What::Moved { last, .. } = event {
                    *last = 1;
                }
            }
        }),
        (ONE_UNREAD, "a client counts one twice", "counts 5 in the end", |h| row(h, 1, |r| r.unread = 2)),
        (ONE_UNREAD, "an answer counts what cannot be there", "is told of 2 unread", |h| {
            answers(h, 0, |answer| match answer {
                Answer::Put { unread, .. } => {
                    *unread = 2;
                    true
                }
                _ => false,
            });
        }),
        (VERSION, "an older version after a restart", "shown is version 124", |h| {
            for event in &mut h.events {
                if let What::Connected { session: 3, version } = event {
                    *version = 124;
                }
            }
        }),
        (VERSION, "a new message with a version that was shown", "a new message has version 125", |h| {
            store(h, 2, (3, 125, false));
        }),
        (VERSION, "two changes of one version", "version 120 is of", |h| {
            for event in &mut h.events {
                if let What::Moved { version, .. } = event {
                    *version = 120;
                }
            }
        }),
        (VERSION, "a row beyond its answer", "has version 126", |h| row(h, 0, |r| r.version = 126)),
        (CLEAN_CUT, "a sync without the conversation", "is left out", |h| {
            answers(h, 0, |answer| match answer {
                Answer::Synced { rows, .. } => {
                    rows.clear();
                    true
                }
                _ => false,
            });
        }),
        (CLEAN_CUT, "a sync that ends before its version", "ends at 4", |h| {
            row(h, 2, |r| (r.last, r.unread, r.recents) = (4, 3, vec![seen(4)]));
        }),
        (CLEAN_CUT, "recents that are not the newest", "shows [3]", |h| row(h, 2, |r| r.recents = vec![seen(3)])),
    ];
    let mut missed = Vec::new();
    for (promise, turn, says, bend) in turns {
        let mut bad = good();
        bend(&mut bad);
        assert_ne!(bad.events, good().events, "{turn}");
        let found = check(&bad);
        let named = |violation: &Violation| violation.promise == *promise && violation.what.contains(says);
        if !found.iter().any(|violation| named(violation) && !violation.events.is_empty()) {
            missed.push(format!("{promise}: {turn}: found {found:?}"));
        }
    }
    assert!(missed.is_empty(), "not found:\n{}", missed.join("\n"));
}

/// What nobody can know is no defect.
#[test]
fn doubt_is_given() {
    let benign: &[(&str, Turn)] = &[
        ("a send without an outcome is stored", |h| {
            let asked = Ask::Send { channel: group(), name: "m6".into(), payload: 42, disk: true };
            h.events.insert(1, What::Asked { op: 99, user: "ann".into(), via: HTTP, ask: asked });
            finally(h, |m| m.push(seen(6)));
            // It came last, and whoever was settled before did not hear of it.
            h.events.retain(|event| !matches!(event, What::Settled { .. }));
            row(h, 2, |r| (r.last, r.unread, r.recents, r.version) = (6, 5, vec![seen(6)], 150));
        }),
        ("a position whose answer was lost may hold", |h| {
            let asked = Ask::Read { channel: group(), seq: 3 };
            let at = h.events.iter().position(|event| matches!(event, What::Gap { .. })).expect("a gap");
            h.events.insert(at, What::Asked { op: 99, user: "rea".into(), via: HTTP, ask: asked });
            // Who is online hears of it, unless cut.
            h.events.retain(|event| !matches!(event, What::Settled { .. }));
            row(h, 2, |r| (r.read_to, r.unread) = (3, 2));
        }),
        ("or not", |h| {
            let asked = Ask::Read { channel: group(), seq: 3 };
            let at = h.events.iter().position(|event| matches!(event, What::Gap { .. })).expect("a gap");
            h.events.insert(at, What::Asked { op: 99, user: "rea".into(), via: HTTP, ask: asked });
        }),
        ("a session that was cut did not get the last", |h| {
            h.events.retain(|event| !matches!(event, What::Settled { .. } | What::Gap { .. }));
        }),
        ("a row that is newer than its answer", |h| {
            for event in &mut h.events {
                if let What::Asked { ask: Ask::Sync { since, .. }, .. } = event {
                    *since = 125;
                }
            }
        }),
        ("without an end nothing is claimed", |h| {
            h.events.retain(|event| !matches!(event, What::Quiet));
            finally(h, Vec::clear);
        }),
    ];
    for (case, bend) in benign {
        let mut history = good();
        bend(&mut history);
        assert_eq!(check(&history), [], "{case}");
    }
}

#[test]
fn a_position_that_was_surely_replaced_is_not_possible_any_more() {
    let mut history = good();
    // Asked and lost before the server was killed; read positions of the new process come after it.
    let lost = Ask::Read { channel: group(), seq: 2 };
    history.events.insert(3, What::Asked { op: 98, user: "rea".into(), via: HTTP, ask: lost });
    let at = history.events.iter().position(|event| matches!(event, What::Gap { .. })).expect("a gap");
    let again = Ask::Read { channel: group(), seq: 3 };
    history.events.insert(at, What::Asked { op: 99, user: "rea".into(), via: HTTP, ask: again });
    let put = Answer::Put { version: 151, unread: 2, read_to: 3 };
    history.events.insert(at + 1, What::Answered { op: 99, answer: put });
    row(&mut history, 2, |r| (r.read_to, r.unread, r.version) = (2, 3, 150));
    answers(&mut history, 2, |answer| match answer {
        Answer::Synced { version, .. } => {
            *version = 151;
            true
        }
        _ => false,
    });
    let found = check(&history);
    assert!(found.iter().any(|violation| violation.promise == ACK_MEANS_STORED), "{found:?}");
}
