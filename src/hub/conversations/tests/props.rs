//! Random histories. Unread and presence against a recount over the list of what was done; snapshot(V0) merged with what
//! later syncs say against a fresh snapshot. The seed of a failure is printed and kept by proptest.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const USERS: [&str; 3] = ["alice", "bob", "carol"];

/// What can happen. Numbers are reduced to what exists when it is carried out.
#[derive(Debug, Clone)]
enum Deed {
    Say {
        channel: usize,
        from: usize,
        silent: bool,
        command: bool,
    },
    SetUnread {
        channel: usize,
        who: usize,
        unread: i64,
    },
    Read {
        channel: usize,
        who: usize,
        seq: u64,
    },
    Delete {
        channel: usize,
        who: usize,
    },
    Expire {
        channel: usize,
        seq: u64,
    },
    Join {
        channel: usize,
        who: usize,
    },
    Leave {
        channel: usize,
        who: usize,
    },
    /// A client that keeps the maximum of the versions it saw synchronises.
    Sync {
        who: usize,
    },
}

fn deed() -> impl Strategy<Value = Deed> {
    let (channel, who) = (0..4_usize, 0..USERS.len());
    prop_oneof![
        8 => (channel.clone(), who.clone(), prop::bool::weighted(0.2), prop::bool::weighted(0.15))
            .prop_map(|(channel, from, silent, command)| Deed::Say { channel, from, silent, command }),
        3 => (channel.clone(), who.clone(), 0..6_i64)
            .prop_map(|(channel, who, unread)| Deed::SetUnread { channel, who, unread }),
        2 => (channel.clone(), who.clone(), 0..12_u64).prop_map(|(channel, who, seq)| Deed::Read { channel, who, seq }),
        2 => (channel.clone(), who.clone()).prop_map(|(channel, who)| Deed::Delete { channel, who }),
        1 => (channel.clone(), 0..12_u64).prop_map(|(channel, seq)| Deed::Expire { channel, seq }),
        1 => (channel.clone(), who.clone()).prop_map(|(channel, who)| Deed::Join { channel, who }),
        1 => (channel, who.clone()).prop_map(|(channel, who)| Deed::Leave { channel, who }),
        2 => who.prop_map(|who| Deed::Sync { who }),
    ]
}

/// Two groups, a pair and a note to self.
fn key(channel: usize) -> ChannelKey {
    match channel {
        0 => group("g"),
        1 => group("h"),
        2 => pair("alice", "bob"),
        _ => pair("carol", "carol"),
    }
}

/// One user in one channel, as someone would keep it by hand: no floors by version, only what happened in its order.
#[derive(Debug, Clone, Default)]
struct Hand {
    member: bool,
    /// The last thing that set it, by hand or by an own message, whatever was before.
    read: u64,
    joined: u64,
    deleted: u64,
}

/// The recount: every message with what became of it, every user's hand.
#[derive(Debug, Default)]
struct Ledger {
    messages: BTreeMap<usize, Vec<(usize, bool, bool, bool)>>,
    hands: BTreeMap<(usize, usize), Hand>,
}

impl Ledger {
    fn counted(&self, channel: usize, who: usize, above: u64) -> Vec<u64> {
        let messages = self.messages.get(&channel).into_iter().flatten();
        let counted = (1..).zip(messages).filter(|(seq, (from, silent, command, expired))| {
            *seq > above && *from != who && !silent && !command && !expired
        });
        counted.map(|(seq, _)| seq).collect()
    }

    fn head(&self, channel: usize) -> u64 {
        self.messages.get(&channel).map_or(0, Vec::len) as u64
    }

    fn floor(&self, channel: usize, who: usize) -> u64 {
        self.hands.get(&(channel, who)).map_or(0, |hand| hand.read.max(hand.joined).max(hand.deleted))
    }

    /// Seqs the user sees, and unread; `None`: no conversation.
    fn row(&self, channel: usize, who: usize) -> Option<(Vec<u64>, u64)> {
        let hand = self.hands.get(&(channel, who)).filter(|hand| hand.member)?;
        let messages = self.messages.get(&channel)?;
        let shown = (1..).zip(messages).filter(|(seq, (_, _, command, _))| *seq > hand.deleted && !command);
        let mut visible: Vec<u64> = shown.map(|(seq, _)| seq).collect();
        visible.reverse();
        let unread = self.counted(channel, who, self.floor(channel, who)).len() as u64;
        (!visible.is_empty()).then_some((visible, unread))
    }
}

/// A row as a client keeps it.
#[derive(Debug, Default)]
struct Held {
    /// unread, last_msg_seq, read_to_msg_seq.
    numbers: (u64, u64, u64),
    seqs: BTreeSet<u64>,
}

/// A client: rows by channel, messages by seq, and the version it sends next.
#[derive(Debug, Default)]
struct Client {
    version: Version,
    rows: BTreeMap<ChannelKey, Held>,
}

impl Client {
    /// Upserts by channel, drops what is deleted, merges recents by seq, and takes `complete` at its word.
    fn merge(&mut self, answer: &SyncAnswer, keeps_maximum: bool) {
        assert!(!answer.reset);
        for row in &answer.rows {
            assert!(row.version <= answer.version);
            if row.is_deleted {
                self.rows.remove(&row.channel);
                continue;
            }
            let held = self.rows.entry(row.channel.clone()).or_default();
            if !row.complete {
                // A gap between what is held and what came: a client asks history for it or drops the older part.
                held.seqs.clear();
            }
            held.seqs.retain(|seq| *seq > row.deleted_to_msg_seq);
            held.seqs.extend(row.recents.iter().map(|m| m.message_seq.get()));
            held.numbers = (row.unread, row.last_msg_seq, row.read_to_msg_seq);
        }
        self.version = if keeps_maximum {
            answer.rows.iter().map(|row| row.version).fold(self.version, Version::max)
        } else {
            answer.version
        };
    }

    fn cursors(&self, who: &str) -> Option<Cursors> {
        let entry = |(key, row): (&ChannelKey, &Held)| Cursor {
            channel_id: key.id_for(who).to_owned(),
            channel_type: key.channel_type().to_wire(),
            last_msg_seq: row.seqs.last().copied().unwrap_or(0),
        };
        let list: Vec<Cursor> = self.rows.iter().map(entry).collect();
        (!list.is_empty()).then_some(Cursors::List(list))
    }
}

struct History {
    world: World,
    ledger: Ledger,
}

impl History {
    fn new(ring: usize) -> Self {
        let world = World { store: MemoryStore::with_ring(ring) };
        world.store.set_clock_us(Some(1_000_000));
        let mut history = Self { world, ledger: Ledger::default() };
        for who in 0..USERS.len() {
            for channel in 0..2 {
                history.carry_out(&Deed::Join { channel, who });
            }
        }
        history
    }

    fn is_party(channel: usize, who: usize) -> bool {
        key(channel).pair().is_none_or(|_| key(channel).is_pair_of(&uid(USERS[who])))
    }

    fn hand(&mut self, channel: usize, who: usize) -> &mut Hand {
        self.ledger.hands.entry((channel, who)).or_default()
    }

    fn is_member(&self, channel: usize, who: usize) -> bool {
        self.ledger.hands.get(&(channel, who)).is_some_and(|hand| hand.member)
    }

    fn carry_out(&mut self, deed: &Deed) {
        match *deed {
            Deed::Say { channel, from, silent, command } => {
                if key(channel).pair().is_some() {
                    if !Self::is_party(channel, from) {
                        return;
                    }
                    for who in (0..USERS.len()).filter(|who| Self::is_party(channel, *who)) {
                        self.hand(channel, who).member = true;
                    }
                } else if !self.is_member(channel, from) {
                    return;
                }
                let seq = self.world.say_as(&key(channel), USERS[from], Kind { silent, command, bytes: 1 });
                self.ledger.messages.entry(channel).or_default().push((from, silent, command, false));
                assert_eq!(seq, self.ledger.head(channel));
                self.hand(channel, from).read = seq;
            }
            Deed::SetUnread { channel, who, unread } => {
                if !self.is_member(channel, who) {
                    return;
                }
                let plan = self.world.set_unread(&key(channel), USERS[who], unread);
                let hand = self.hand(channel, who).clone();
                let countable = self.ledger.counted(channel, who, hand.joined.max(hand.deleted));
                let wanted = (unread as usize).min(countable.len());
                assert_eq!(plan.unread, wanted as u64);
                // By hand: just below the oldest that is to be unread, or at head.
                let read = match countable.len() - wanted {
                    _ if unread == 0 => self.ledger.head(channel),
                    0 if wanted < unread as usize => hand.joined.max(hand.deleted),
                    kept => countable[kept] - 1,
                };
                self.hand(channel, who).read = read;
            }
            Deed::Read { channel, who, seq } => {
                if !self.is_member(channel, who) {
                    return;
                }
                let seq = seq.min(self.ledger.head(channel));
                let floor = self.ledger.floor(channel, who);
                self.world.carry_out(plan_read(&self.world.store, &uid(USERS[who]), &key(channel), seq));
                if seq > floor {
                    self.hand(channel, who).read = seq;
                }
            }
            Deed::Delete { channel, who } => {
                self.world.delete(&key(channel), USERS[who]);
                if self.is_member(channel, who) {
                    self.hand(channel, who).deleted = self.ledger.head(channel);
                }
            }
            Deed::Expire { channel, seq } => {
                let Some(message) = self.ledger.messages.get_mut(&channel) else { return };
                let place = seq as usize % message.len();
                message[place].3 = true;
                self.world.expire(&key(channel), place as u64 + 1);
            }
            Deed::Join { channel, who } => {
                if key(channel).pair().is_some() || self.is_member(channel, who) {
                    return;
                }
                self.world.join(&key(channel), &[USERS[who]]);
                let joined = self.ledger.head(channel);
                let hand = self.hand(channel, who);
                (hand.member, hand.joined) = (true, joined);
            }
            Deed::Leave { channel, who } => {
                if key(channel).pair().is_some() || !self.is_member(channel, who) {
                    return;
                }
                self.world.leave(&key(channel), USERS[who]);
                let deleted = self.ledger.head(channel);
                let hand = self.hand(channel, who);
                (hand.member, hand.deleted) = (false, deleted);
            }
            Deed::Sync { .. } => {}
        }
    }

    fn check_against_recount(&self) {
        for (who, name) in USERS.iter().enumerate() {
            let answer = self.world.sync(&SyncRequest::full(uid(name), 1_000));
            let rows: BTreeMap<_, _> = answer.rows.iter().map(|row| (row.channel.clone(), row)).collect();
            assert_eq!(rows.len(), answer.rows.len(), "each channel once");
            for channel in 0..4 {
                let expected = self.ledger.row(channel, who);
                let found = rows.get(&key(channel)).map(|row| (seqs(&row.recents), row.unread));
                assert_eq!(found, expected, "{name} in {:?}", key(channel));
                let Some(row) = rows.get(&key(channel)) else { continue };
                let explained = explain_unread(&self.world.store, &uid(name), &key(channel), 1_000).expect("explains");
                assert_eq!(explained.unread, row.unread, "the explanation is of the number shown");
                let counted = explained.judged.iter().filter(|judged| judged.verdict == Verdict::Counted).count();
                assert_eq!(counted as u64, row.unread, "and its messages add up to it");
            }
        }
    }
}

/// What a fresh client sees, in the shape of [`Client::rows`].
fn snapshot(world: &World, who: &str) -> BTreeMap<ChannelKey, Held> {
    let mut fresh = Client::default();
    fresh.merge(&world.sync(&SyncRequest::full(uid(who), 1_000)), false);
    fresh.rows
}

/// clean-cut while others write: a client that only keeps the maximum version of its rows, and one that keeps the answer's,
/// end where a fresh one begins. What is random here is the interleaving of two threads.
#[test]
fn clients_that_sync_while_others_write_miss_nothing() {
    let world = World::new();
    let key = |number: usize| group(&format!("g{}", number % 7));
    for number in 0..7 {
        world.join(&key(number), &["alice", "bob"]);
    }
    let mut clients = [Client::default(), Client::default()];
    let catch_up = |clients: &mut [Client; 2]| {
        for (keeps_maximum, client) in clients.iter_mut().enumerate() {
            let request = SyncRequest { msg_count: 3, with_deleted: true, ..since("alice", client.version) };
            client.merge(&world.sync(&request), keeps_maximum == 1);
        }
    };
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            for number in 0..3_000 {
                match number % 11 {
                    3 => drop(world.set_unread(&key(number / 3), "alice", 2)),
                    5 if number % 5 == 0 => drop(world.delete(&key(number / 5), "alice")),
                    7 => drop(world.say(&key(number), "alice")),
                    _ => drop(world.say(&key(number), "bob")),
                }
            }
        });
        while !writer.is_finished() {
            catch_up(&mut clients);
        }
    });
    catch_up(&mut clients);
    let fresh = snapshot(&world, "alice");
    for client in &clients {
        let numbers = |rows: &BTreeMap<ChannelKey, Held>| {
            rows.iter().map(|(key, row)| (key.clone(), row.numbers, row.seqs.last().copied())).collect::<Vec<_>>()
        };
        assert_eq!(numbers(&client.rows), numbers(&fresh));
    }
}

/// one-unread while others write: the number a change is answered with, and other devices are told, is the count up to the
/// head it names, so that a device that adds what it is delivered above that head counts nothing twice.
#[test]
fn what_is_told_of_a_change_is_counted_up_to_the_head_it_names() {
    let world = World::new();
    let key = group("g");
    world.join(&key, &["alice", "bob"]);
    world.say(&key, "bob");
    std::thread::scope(|threads| {
        let writer = threads.spawn(|| {
            (0..3_000).for_each(|_| {
                world.say(&key, "bob");
            })
        });
        let mut seq = 0;
        while !writer.is_finished() {
            let plans = [
                plan_read(&world.store, &uid("alice"), &key, seq),
                plan_set_unread(&world.store, &uid("alice"), &key, 3),
                plan_set_unread(&world.store, &uid("alice"), &key, 1_000_000),
            ];
            for plan in plans {
                let Planned { unread, read_seq, head_seq, .. } = plan.expect("a plan");
                // Every message is bob's, so they are counted by their seqs.
                assert_eq!(unread, head_seq - read_seq, "above {read_seq} up to {head_seq}");
                seq = head_seq.saturating_sub(2);
            }
        }
    });
}

proptest! {
    #[test]
    fn unread_is_the_recount(deeds in prop::collection::vec(deed(), 1..80)) {
        let mut history = History::new(1_000);
        for deed in &deeds {
            history.carry_out(deed);
        }
        history.check_against_recount();
    }

    #[test]
    fn snapshot_and_deltas_are_a_fresh_snapshot(
        deeds in prop::collection::vec(deed(), 1..80),
        with_cursors in any::<bool>(),
        keeps_maximum in any::<bool>(),
        msg_count in prop_oneof![Just(1_usize), Just(3), Just(1_000)],
        ring in prop_oneof![Just(0_usize), Just(3), Just(1_000)],
    ) {
        let mut history = History::new(ring);
        let mut clients: Vec<Client> = USERS.iter().map(|_| Client::default()).collect();
        let catch_up = |history: &History, client: &mut Client, who: usize| {
            let request = SyncRequest {
                version: client.version,
                cursors: if with_cursors && client.version > Version::ZERO { client.cursors(USERS[who]) } else { None },
                with_deleted: true,
                ..SyncRequest::full(uid(USERS[who]), msg_count)
            };
            client.merge(&history.world.sync(&request), keeps_maximum);
        };
        for deed in &deeds {
            history.carry_out(deed);
            if let Deed::Sync { who } = *deed {
                catch_up(&history, &mut clients[who], who);
            }
        }
        for (who, client) in clients.iter_mut().enumerate() {
            catch_up(&history, client, who);
            let fresh = snapshot(&history.world, USERS[who]);
            prop_assert_eq!(client.rows.keys().collect::<Vec<_>>(), fresh.keys().collect::<Vec<_>>());
            for (key, row) in &fresh {
                let held = &client.rows[key];
                prop_assert_eq!(held.numbers, row.numbers, "{} in {:?}", USERS[who], key);
                // The client holds an unbroken end of the conversation: all of it where every row was complete.
                prop_assert!(held.seqs.iter().rev().eq(row.seqs.iter().rev().take(held.seqs.len())), "{held:?} of {row:?}");
                prop_assert!(held.seqs.len() >= row.seqs.len().min(msg_count), "{held:?} of {row:?}");
            }
            let again = SyncRequest { version: client.version, with_deleted: true, ..SyncRequest::full(uid(USERS[who]), 9) };
            if !keeps_maximum {
                prop_assert!(history.world.sync(&again).rows.is_empty(), "nothing changed, so nothing is sent");
            }
        }
    }

    #[test]
    fn pages_together_are_the_whole(deeds in prop::collection::vec(deed(), 1..60), rows_max in 1..4_usize) {
        let mut history = History::new(100);
        for deed in &deeds {
            history.carry_out(deed);
        }
        for who in USERS {
            let whole = history.world.sync(&SyncRequest::full(uid(who), 5));
            let (mut rows, mut after) = (Vec::new(), None);
            loop {
                let page = Page::Rows { after, rows_max };
                let answer = history.world.sync(&SyncRequest { page, ..SyncRequest::full(uid(who), 5) });
                rows.extend(answer.rows);
                after = answer.more;
                if after.is_none() {
                    break;
                }
            }
            rows.sort_by_key(|row| row.channel.clone());
            let mut expected = whole.rows;
            expected.sort_by_key(|row| row.channel.clone());
            prop_assert_eq!(rows, expected);
        }
    }
}
