//! What the tests of faults share: a store beside the model, random work on both, and the comparison of every answer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use chinwag::domain::message::{MessageFlags, MessageState};
use chinwag::store::durable::{DurableStore, StoreOptions};
use chinwag::store::log::seam::FileFaults;
use chinwag::store::memory::MemoryStore;
use chinwag::store::{ChannelNo, Commit, MessageRecord, Record, SeqRange, Store, StoreError};
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageSeq, Uid, Version};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

pub const CHANNELS: u32 = 5;
const USERS: [&str; 4] = ["alice", "bob", "carol", "dave"];

pub fn uid(n: usize) -> Uid {
    Uid::from_stored(USERS[n % USERS.len()])
}

fn key(n: u32) -> ChannelKey {
    match n {
        0 => ChannelKey::person(&uid(0), &uid(1)),
        n => ChannelKey::named(&format!("group-{n}"), ChannelType::Group).expect("id"),
    }
}

/// A store of small segments whose checkpoints are the test's.
pub fn options(dir: &Path, faults: Option<Arc<dyn FileFaults>>) -> StoreOptions {
    StoreOptions {
        checkpoint_interval: Duration::from_secs(3_600),
        segment_bytes_max: 24 << 10,
        // Next to nothing, so that rows come from the view.
        cache_bytes_max: 4_000,
        view_cache_bytes: 1 << 20,
        faults,
        ..StoreOptions::new(dir)
    }
}

pub fn open(dir: &Path, faults: Option<Arc<dyn FileFaults>>) -> Result<DurableStore, StoreError> {
    DurableStore::open(options(dir, faults)).map(|(store, _)| store)
}

/// An error with its causes.
pub fn text_of(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// A lot whose outcome nobody was told, with the versions it was given, if any.
pub type Doubt = (Vec<Commit>, Option<Version>);

/// What was acked.
pub struct Acked {
    pub model: MemoryStore,
    /// Every lot with its first version, to make the model again.
    lots: Vec<(Vec<Commit>, Version)>,
    pub messages: u64,
}

impl Acked {
    pub fn new() -> Self {
        Self { model: MemoryStore::new(), lots: Vec::new(), messages: 0 }
    }

    pub fn again(&self) -> Self {
        let mut again = Self::new();
        for (lot, first) in &self.lots {
            again.add(lot.clone(), *first);
        }
        again
    }

    pub fn add(&mut self, lot: Vec<Commit>, first: Version) {
        self.model.set_clock_us(Some(first.get()));
        let versions = self.model.commit(&lot, &mut |_| {}).expect("the model takes what the store took");
        assert_eq!(versions[0], first, "versions rise");
        let records = lot.iter().flat_map(|commit| &commit.records);
        self.messages += records.filter(|record| matches!(record, Record::Message(_))).count() as u64;
        self.lots.push((lot, first));
    }

    /// Commits to the store and, when it is taken, to the model.
    pub fn commit(&mut self, store: &DurableStore, lot: Vec<Commit>) -> Result<Version, (StoreError, Doubt)> {
        let mut given = None;
        match store.commit(&lot, &mut |versions| given = versions.first().copied()) {
            Ok(versions) => {
                assert!(versions[0] > self.model.version(), "{} behind {}", versions[0], self.model.version());
                self.add(lot, versions[0]);
                Ok(versions[0])
            }
            Err(error) => Err((error, (lot, given))),
        }
    }

    pub fn head(&self, channel: ChannelNo) -> u64 {
        self.model.channel(channel).expect("read").map_or(0, |info| info.head_seq)
    }

    /// One message more for a channel.
    pub fn message(&self, channel: u32, bytes: usize) -> Vec<Commit> {
        let mut rng = StdRng::seed_from_u64(self.messages);
        let mut lot = Vec::new();
        self.send(&mut rng, &mut lot, channel, 1, bytes);
        lot
    }

    fn send(&self, rng: &mut StdRng, lot: &mut Vec<Commit>, channel: u32, count: u64, bytes: usize) {
        let no = ChannelNo(channel);
        if self.model.channel(no).expect("read").is_none() {
            // The commit that first uses a channel makes it.
            lot.push(Record::ChannelCreated { channel: no, key: key(channel) }.into());
            lot.push(Record::MembersAdded { channel: no, join_floor: 0, uids: (0..4).map(uid).collect() }.into());
        }
        let head = self.head(no);
        for n in 1..=count {
            let seq = head + n;
            lot.push(
                Record::Message(MessageRecord {
                    channel: no,
                    message_seq: MessageSeq::new(seq).expect("seq"),
                    from_uid: uid(rng.random_range(0..4)),
                    client_msg_no: ClientMsgNo::from_stored(&format!("{channel}-{seq}-{}", rng.random::<u32>())),
                    flags: MessageFlags { red_dot: !seq.is_multiple_of(3), ..MessageFlags::default() },
                    setting: 0,
                    topic: String::new(),
                    expire_s: 0,
                    payload: Bytes::from((0..bytes).map(|_| rng.random::<u8>()).collect::<Vec<u8>>()),
                    extras: None,
                })
                .into(),
            );
        }
    }

    /// A random lot: messages of one channel, and changes of others.
    pub fn random_lot(&self, rng: &mut StdRng) -> Vec<Commit> {
        let mut lot = Vec::new();
        let channel = rng.random_range(0..CHANNELS);
        let bytes = if rng.random_bool(0.1) { rng.random_range(0..6_000) } else { rng.random_range(0..700) };
        let count = rng.random_range(1..4);
        self.send(rng, &mut lot, channel, count, bytes);
        let other = ChannelNo(rng.random_range(0..CHANNELS));
        if self.head(other) > 0 && other.0 != channel {
            let (who, head) = (uid(rng.random_range(0..4)), self.head(other));
            match rng.random_range(0..8) {
                0 => {
                    lot.push(Record::ReadPosition { channel: other, uid: who, seq: rng.random_range(0..=head) }.into())
                }
                1 => lot.push(Record::ConversationDeleted { channel: other, uid: who, delete_floor: head }.into()),
                2 => {
                    lot.push(Record::MessagesExpired { channel: other, seqs: vec![rng.random_range(1..=head)] }.into())
                }
                3 if other.0 > 0 => {
                    lot.push(Record::MembersRemoved { channel: other, delete_floor: head, uids: vec![who] }.into());
                }
                4 if other.0 > 0 => {
                    lot.push(Record::MembersAdded { channel: other, join_floor: head, uids: vec![who] }.into());
                }
                _ => {}
            }
        }
        lot
    }

    /// Compares every answer of the store with the model's. Holes are counted and may stand for any message.
    pub fn compare(&self, store: &impl Store) -> Result<u64, String> {
        let mut holes = 0;
        if store.version() != self.model.version() {
            return Err(format!("version {} instead of {}", store.version(), self.model.version()));
        }
        for n in 0..CHANNELS {
            let no = ChannelNo(n);
            let same = |what: &str, store: String, model: String| {
                if store == model { Ok(()) } else { Err(format!("channel {n}: {what} is {store} instead of {model}")) }
            };
            macro_rules! ask {
                ($what:expr, $verb:ident ( $($arg:expr),* )) => {
                    same(
                        $what,
                        format!("{:?}", store.$verb($($arg),*).map_err(|e| text_of(&e))),
                        format!("{:?}", self.model.$verb($($arg),*).map_err(|e| text_of(&e))),
                    )?
                };
            }
            ask!("its number", channel_no(&key(n)));
            let head = self.head(no);
            let range =
                SeqRange { first: 1, last: u64::MAX, limit: 10_000, bytes_max: usize::MAX, newest_first: false };
            let expected = self.model.messages(no, range).map_err(|e| text_of(&e))?;
            let messages = store.messages(no, range).map_err(|e| text_of(&e))?;
            if messages.len() != expected.len() {
                return Err(format!("channel {n}: {} messages instead of {}", messages.len(), expected.len()));
            }
            let mut whole = true;
            for (message, expected) in messages.iter().zip(&expected) {
                if message.message_seq != expected.message_seq {
                    return Err(format!(
                        "channel {n}: seq {} instead of {}",
                        message.message_seq, expected.message_seq
                    ));
                }
                if message.state == MessageState::Damaged {
                    (holes, whole) = (holes + 1, false);
                } else if message != expected {
                    return Err(format!("channel {n}: {message:?} instead of {expected:?}"));
                }
            }
            let found = store.channel(no).map_err(|e| text_of(&e))?;
            if whole || found.as_ref().map(|info| info.head_seq) != Some(head) {
                let model = self.model.channel(no).map_err(|e| text_of(&e))?;
                let digestless = |info: Option<chinwag::store::ChannelInfo>| {
                    format!(
                        "{:?}",
                        info.map(|info| (info.key, info.head_seq, info.head_version, info.settings, info.member_count))
                    )
                };
                same("the channel", digestless(found), digestless(model))?;
            }
            for who in (0..4).map(uid) {
                ask!("membership", membership(no, &who));
                ask!("the conversation", conversation_state(no, &who));
                if whole {
                    ask!("unread", countable_after(no, &who, head / 2));
                }
            }
        }
        Ok(holes)
    }
}
