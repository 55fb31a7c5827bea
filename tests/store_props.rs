//! The durable store against the model: random histories with checkpoints, restarts, kills and lost views in between, after
//! which every read verb answers the same.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use chinwag::domain::channel::{ChannelList, ChannelProfile, ChannelSettings, Role};
use chinwag::domain::conversation::ConversationFlags;
use chinwag::domain::event::{Lane, LaneStatus};
use chinwag::domain::file::FileRecord;
use chinwag::domain::identity::Scopes;
use chinwag::domain::message::{Extras, MessageFlags, Reaction, fingerprint};
use chinwag::domain::user::{Relation, Strangers, UserSettings};
use chinwag::store::care::export::{ExportOptions, export};
use chinwag::store::care::import::import;
use chinwag::store::durable::{DurableStore, StoreOptions};
use chinwag::store::memory::MemoryStore;
use chinwag::store::{ApiKey, ChannelNo, Commit, MessageRecord, Probe, Record, SeqRange, Store};
use proptest::prelude::*;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, DeviceFlag, FileId, MessageSeq, Uid, Version};

const USERS: [&str; 6] = ["alice", "bob", "carol", "dave", "erin", "visitor"];
/// Two pairs, a note to self, two groups, a customer service channel.
const CHANNELS: u32 = 6;

fn uid(n: u8) -> Uid {
    Uid::from_stored(USERS[usize::from(n) % USERS.len()])
}

fn key(n: u32) -> ChannelKey {
    let named = |id, channel_type| ChannelKey::named(id, channel_type).expect("id");
    match n {
        0 => ChannelKey::person(&uid(0), &uid(1)),
        1 => ChannelKey::person(&uid(1), &uid(2)),
        2 => ChannelKey::person(&uid(3), &uid(3)),
        3 => named("team", ChannelType::Group),
        4 => named("all", ChannelType::Group),
        _ => named("visitor|shop", ChannelType::CustomerService),
    }
}

fn file(n: u8) -> FileId {
    FileId::from_stored(&format!("{:08x}-0000-4000-8000-000000000000", n % 4))
}

/// What a message refers to, by bits: mentions of each user, of all, two files.
fn extras(bits: u16) -> Option<Box<Extras>> {
    let on = |bit: u8| bits >> bit & 1 == 1;
    Extras {
        reply_to: on(9).then(|| Version::new(7)),
        mentions: (0..6).filter(|user| on(*user)).map(uid).collect(),
        mention_all: on(6),
        files: [7, 8].into_iter().filter(|bit| on(*bit)).map(file).collect(),
    }
    .boxed()
}

/// Seldom anything, so that most messages refer to nothing.
fn extra_bits() -> impl Strategy<Value = u16> {
    prop_oneof![2 => Just(0u16), 1 => 0..1_024u16, 1 => (0..10u32).prop_map(|bit| 1 << bit)]
}

/// Everything logged after a version, as a follower gets it, a page after the other.
fn followed(store: &dyn Store, since: Version, max: usize) -> Vec<(Version, ChannelNo, u64)> {
    let (mut at, mut all) = (since, Vec::new());
    loop {
        let page = store.logged_after(at, max).expect("read");
        assert!(page.messages.len() <= max && page.reached >= at);
        assert!(page.messages.iter().all(|message| message.version > at && message.version <= page.reached));
        assert!(page.messages.iter().all(|message| message.bytes > 0));
        all.extend(page.messages.iter().map(|message| (message.version, message.channel, message.seq)));
        if !page.more {
            assert_eq!(page.reached, since.max(store.version()));
            return all;
        }
        assert!(page.reached > at, "a follower gets on");
        at = page.reached;
    }
}

/// One step of a history. Numbers are reduced to what exists.
#[derive(Debug, Clone)]
enum Step {
    Send {
        channel: u32,
        from: u8,
        count: u8,
        flags: u8,
        expire_s: u32,
        extras: u16,
    },
    Revoke {
        channel: u32,
        back: u8,
    },
    Edit {
        channel: u32,
        back: u8,
        extras: u16,
        bytes: u8,
    },
    Happen {
        channel: u32,
        back: u8,
        lane: u8,
        status: u8,
        bytes: u8,
    },
    React {
        channel: u32,
        back: u8,
        users: Vec<u8>,
        reaction: Option<bool>,
    },
    Role {
        channel: u32,
        user: u8,
        role: u8,
    },
    Profile {
        channel: u32,
        bytes: u16,
    },
    Flags {
        channel: u32,
        user: u8,
        bits: u8,
    },
    UserSettings {
        user: u8,
        strangers: u8,
    },
    Relation {
        user: u8,
        peer: u8,
        bits: u8,
    },
    Listed {
        channel: u32,
        allow: bool,
        on: bool,
        users: Vec<u8>,
    },
    SystemUser {
        user: u8,
        on: bool,
    },
    CommandsRead {
        user: u8,
        position: u8,
    },
    AddressBlocked {
        address: u8,
        on: bool,
    },
    File {
        file: u8,
        content: u8,
    },
    FileRemoved {
        file: u8,
    },
    Join {
        channel: u32,
        users: Vec<u8>,
        floor: u8,
    },
    Leave {
        channel: u32,
        users: Vec<u8>,
    },
    Read {
        channel: u32,
        user: u8,
        back: u8,
    },
    Delete {
        channel: u32,
        user: u8,
        back: u8,
    },
    Expire {
        channel: u32,
        seqs: Vec<u8>,
    },
    ExpireDue {
        ahead_s: u32,
    },
    Settings {
        channel: u32,
        ban: bool,
    },
    User {
        user: u8,
    },
    Token {
        user: u8,
        flag: u8,
        token: Option<u8>,
    },
    Key {
        key: u8,
        revoked: bool,
    },
    Alias {
        alias: u8,
        channel: u32,
    },
    Checkpoint,
    Restart,
    Kill,
    LoseView,
    /// Export, import elsewhere, and go on there.
    Move,
}

fn step() -> impl Strategy<Value = Step> {
    let (channel, user) = (0..CHANNELS, 0..6u8);
    let users = prop::collection::vec(0..6u8, 1..4);
    prop_oneof![
        12 => (
            (channel.clone(), user.clone(), 1..40u8, any::<u8>()),
            prop_oneof![4 => Just(0u32), 1 => 1..200u32],
            extra_bits(),
        )
            .prop_map(|((channel, from, count, flags), expire_s, extras)| {
                Step::Send { channel, from, count, flags, expire_s, extras }
            }),
        8 => altering_step(),
        5 => people_step(),
        3 => listing_step(),
        3 => (channel.clone(), users.clone(), any::<u8>())
            .prop_map(|(channel, users, floor)| Step::Join { channel, users, floor }),
        2 => (channel.clone(), users).prop_map(|(channel, users)| Step::Leave { channel, users }),
        3 => (channel.clone(), user.clone(), any::<u8>())
            .prop_map(|(channel, user, back)| Step::Read { channel, user, back }),
        2 => (channel.clone(), user.clone(), any::<u8>())
            .prop_map(|(channel, user, back)| Step::Delete { channel, user, back }),
        2 => (channel.clone(), prop::collection::vec(any::<u8>(), 1..12))
            .prop_map(|(channel, seqs)| Step::Expire { channel, seqs }),
        1 => (0..300u32).prop_map(|ahead_s| Step::ExpireDue { ahead_s }),
        1 => (channel.clone(), any::<bool>()).prop_map(|(channel, ban)| Step::Settings { channel, ban }),
        1 => user.clone().prop_map(|user| Step::User { user }),
        2 => (user, 0..2u8, prop::option::of(0..3u8)).prop_map(|(user, flag, token)| Step::Token { user, flag, token }),
        1 => (0..3u8, any::<bool>()).prop_map(|(key, revoked)| Step::Key { key, revoked }),
        1 => (0..3u8, channel).prop_map(|(alias, channel)| Step::Alias { alias, channel }),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Restart),
        1 => Just(Step::Kill),
        1 => Just(Step::LoseView),
        1 => Just(Step::Move),
    ]
}

/// What becomes of messages; `back` counts from the head, so the newest are hit often.
fn altering_step() -> impl Strategy<Value = Step> {
    let channel = 0..CHANNELS;
    let back = || prop_oneof![3 => 0..6u8, 1 => any::<u8>()];
    prop_oneof![
        2 => (channel.clone(), back()).prop_map(|(channel, back)| Step::Revoke { channel, back }),
        3 => (channel.clone(), back(), extra_bits(), any::<u8>())
            .prop_map(|(channel, back, extras, bytes)| Step::Edit { channel, back, extras, bytes }),
        3 => (channel.clone(), back(), 0..40u8, 0..4u8, any::<u8>())
            .prop_map(|(channel, back, lane, status, bytes)| Step::Happen { channel, back, lane, status, bytes }),
        4 => (channel, back(), prop::collection::vec(0..60u8, 1..50), any::<Option<bool>>())
            .prop_map(|(channel, back, users, reaction)| Step::React { channel, back, users, reaction }),
    ]
}

fn people_step() -> impl Strategy<Value = Step> {
    let (channel, user) = (0..CHANNELS, 0..6u8);
    prop_oneof![
        2 => (channel.clone(), user.clone(), 0..3u8)
            .prop_map(|(channel, user, role)| Step::Role { channel, user, role }),
        1 => (channel.clone(), 0..1_024u16).prop_map(|(channel, bytes)| Step::Profile { channel, bytes }),
        2 => (channel, user.clone(), 0..16u8).prop_map(|(channel, user, bits)| Step::Flags { channel, user, bits }),
        1 => (user.clone(), 0..3u8).prop_map(|(user, strangers)| Step::UserSettings { user, strangers }),
        2 => (user, 0..6u8, 0..4u8).prop_map(|(user, peer, bits)| Step::Relation { user, peer, bits }),
        2 => (0..4u8, 0..3u8).prop_map(|(file, content)| Step::File { file, content }),
        1 => (0..4u8).prop_map(|file| Step::FileRemoved { file }),
    ]
}

/// Lists, system users, commands, addresses.
fn listing_step() -> impl Strategy<Value = Step> {
    let users = prop::collection::vec(0..60u8, 1..40);
    prop_oneof![
        5 => (0..CHANNELS, any::<bool>(), any::<bool>(), users)
            .prop_map(|(channel, allow, on, users)| Step::Listed { channel, allow, on, users }),
        1 => (0..3u8, any::<bool>()).prop_map(|(user, on)| Step::SystemUser { user, on }),
        1 => (0..6u8, any::<u8>()).prop_map(|(user, position)| Step::CommandsRead { user, position }),
        1 => (0..3u8, any::<bool>()).prop_map(|(address, on)| Step::AddressBlocked { address, on }),
    ]
}

/// A user of a list: one of those who also write, or of many who do nothing else.
fn listed(n: u8) -> Uid {
    if n < 6 { uid(n) } else { Uid::from_stored(&format!("listed-{n}-with-a-name-of-some-length")) }
}

struct Pair {
    dir: tempfile::TempDir,
    store: Option<DurableStore>,
    model: MemoryStore,
    /// Number of each channel once it exists.
    numbers: [Option<ChannelNo>; CHANNELS as usize],
    sent: u64,
    /// The history has a [`Step::Move`].
    moves: bool,
}

/// Contents of files are some of these.
const CONTENT: &[u8] = b"what a file holds";
/// The file of an export that names breaks.
const BREAKS: &str = "breaks.ndjson";

fn files_of(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(at) = dirs.pop() {
        for entry in std::fs::read_dir(at).expect("readable") {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                dirs.push(path);
            } else {
                let name = path.strip_prefix(dir).expect("inside").to_owned();
                found.insert(name, std::fs::read(path).expect("reads"));
            }
        }
    }
    found
}

fn open(dir: &std::path::Path) -> DurableStore {
    let options = StoreOptions {
        checkpoint_interval: Duration::from_secs(3_600),
        // A cache that holds next to nothing, so that rows come from the view.
        cache_bytes_max: 4_000,
        ..StoreOptions::new(dir)
    };
    DurableStore::open(options).expect("store opens").0
}

impl Pair {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let store = Some(open(dir.path()));
        Self { dir, store, model: MemoryStore::new(), numbers: [None; CHANNELS as usize], sent: 0, moves: false }
    }

    fn store(&self) -> &DurableStore {
        self.store.as_ref().expect("open")
    }

    fn commit(&self, records: Vec<Record>) {
        let lot: Vec<Commit> = records.into_iter().map(Commit::from).collect();
        let versions = self.store().commit(&lot, &mut |_| {}).expect("commit");
        // The model gets the versions the store gave.
        self.model.set_clock_us(Some(versions[0].get()));
        assert_eq!(self.model.commit(&lot, &mut |_| {}).expect("commit"), versions);
    }

    fn channel(&mut self, n: u32) -> ChannelNo {
        if let Some(no) = self.numbers[n as usize] {
            return no;
        }
        let channel = self.store().reserve_channel_no();
        self.commit(vec![Record::ChannelCreated { channel, key: key(n) }]);
        self.numbers[n as usize] = Some(channel);
        channel
    }

    fn head(&self, channel: ChannelNo) -> u64 {
        self.model.channel(channel).expect("read").map_or(0, |info| info.head_seq)
    }

    /// A channel and a seq `back` from its head, perhaps one that is none.
    fn message(&mut self, channel: u32, back: u8) -> (ChannelNo, u64) {
        let channel = self.channel(channel);
        (channel, self.head(channel).saturating_sub(u64::from(back)))
    }

    fn run(&mut self, step: &Step) {
        match step.clone() {
            Step::Send { channel, from, count, flags, expire_s, extras: bits } => {
                let channel = self.channel(channel);
                let head = self.head(channel);
                let records = (1..=u64::from(count))
                    .map(|n| {
                        self.sent += 1;
                        // Not all of a burst are by one sender.
                        let from_uid = if n % 3 == 0 { uid(from + 1) } else { uid(from) };
                        Record::Message(MessageRecord {
                            // Every other one of a burst refers to something.
                            extras: if n % 2 == 1 { extras(bits) } else { None },
                            channel,
                            message_seq: MessageSeq::new(head + n).expect("seq"),
                            from_uid,
                            client_msg_no: ClientMsgNo::from_stored(&format!("c{}", self.sent)),
                            flags: MessageFlags {
                                no_persist: false,
                                red_dot: flags & 1 == 0,
                                sync_once: flags & 6 == 6,
                            },
                            setting: flags,
                            topic: String::new(),
                            expire_s,
                            payload: Bytes::from(vec![flags; usize::from(count)]),
                        })
                    })
                    .collect();
                self.commit(records);
            }
            Step::Join { channel, users, floor } => {
                let channel = self.channel(channel);
                let join_floor = u64::from(floor).min(self.head(channel));
                let uids = users.into_iter().map(uid).collect();
                self.commit(vec![Record::MembersAdded { channel, join_floor, uids }]);
            }
            Step::Leave { channel, users } => {
                let channel = self.channel(channel);
                let delete_floor = self.head(channel);
                let uids = users.into_iter().map(uid).collect();
                self.commit(vec![Record::MembersRemoved { channel, delete_floor, uids }]);
            }
            Step::Read { channel, user, back } => {
                let channel = self.channel(channel);
                let seq = self.head(channel).saturating_sub(u64::from(back));
                self.commit(vec![Record::ReadPosition { channel, uid: uid(user), seq }]);
            }
            Step::Delete { channel, user, back } => {
                let channel = self.channel(channel);
                let delete_floor = self.head(channel).saturating_sub(u64::from(back));
                self.commit(vec![Record::ConversationDeleted { channel, uid: uid(user), delete_floor }]);
            }
            Step::Expire { channel, seqs } => {
                let channel = self.channel(channel);
                let mut seqs: Vec<u64> = seqs.into_iter().map(u64::from).collect();
                // A record that names messages which are not there is a finding of the check an import ends with.
                if self.moves {
                    seqs.retain(|seq| *seq <= self.head(channel));
                }
                seqs.sort_unstable();
                self.commit(vec![Record::MessagesExpired { channel, seqs }]);
            }
            Step::ExpireDue { ahead_s } => {
                let now_ms = self.model.version().unix_ms() + u64::from(ahead_s) * 1_000;
                let expected = self.model.expiry_due(now_ms, 100).expect("read");
                // What a checkpoint is just writing is told by a later call.
                let begun = std::time::Instant::now();
                let due = loop {
                    let due = self.store().expiry_due(now_ms, 100).expect("read");
                    if due == expected || begun.elapsed() > std::time::Duration::from_secs(10) {
                        break due;
                    }
                    std::thread::yield_now();
                };
                assert_eq!(due, expected);
                let records: Vec<Record> =
                    due.into_iter().map(|(channel, seqs)| Record::MessagesExpired { channel, seqs }).collect();
                if !records.is_empty() {
                    self.commit(records);
                    assert_eq!(self.store().expiry_due(now_ms, 100).expect("read"), vec![]);
                }
            }
            Step::Settings { channel, ban } => {
                let channel = self.channel(channel);
                let settings = ChannelSettings { ban, large: !ban, ..ChannelSettings::default() };
                self.commit(vec![Record::ChannelSettings { channel, settings }]);
            }
            Step::Revoke { channel, back } => {
                let (channel, seq) = self.message(channel, back);
                self.commit(vec![Record::MessageRevoked { channel, seq, by: None }]);
            }
            Step::Edit { channel, back, extras: bits, bytes } => {
                let (channel, seq) = self.message(channel, back);
                let payload = Bytes::from(vec![bytes; usize::from(bytes)]);
                self.commit(vec![Record::MessageEdited {
                    channel,
                    seq,
                    by: Some(uid(1)),
                    payload,
                    extras: extras(bits),
                }]);
            }
            Step::React { channel, back, users, reaction } => {
                let (channel, seq) = self.message(channel, back);
                let reaction = reaction.map(|like| if like { Reaction::Like } else { Reaction::Dislike });
                let by = |n: u8| Uid::from_stored(&format!("reader-{n}-with-a-name-of-some-length"));
                let reacted = |n| Record::MessageReacted { channel, seq, uid: by(n), reaction };
                self.commit(users.into_iter().map(reacted).collect());
            }
            Step::Happen { channel, back, lane, status, bytes } => {
                let (channel, seq) = self.message(channel, back);
                let lane = Lane {
                    number: lane,
                    key: format!("k{lane}"),
                    status: LaneStatus::from_stored(status).expect("number"),
                    seq: u64::from(bytes),
                    event_id: "e".into(),
                    event_type: "stream.close".into(),
                    snapshot: Bytes::from(vec![b'7'; usize::from(bytes)]),
                    ..Lane::default()
                };
                self.commit(vec![Record::MessageEvent { channel, seq, lane: Box::new(lane) }]);
            }
            Step::Role { channel, user, role } => {
                let channel = self.channel(channel);
                let role = Role::from_wire(role).expect("role");
                self.commit(vec![Record::MemberRole { channel, uid: uid(user), role }]);
            }
            Step::Profile { channel, bytes } => {
                let channel = self.channel(channel);
                let text = |max: u16| "x".repeat(usize::from(bytes.min(max)));
                let profile = Box::new(ChannelProfile {
                    name: text(255),
                    icon: text(1_024),
                    description: text(1_024),
                    project: String::new(),
                    creator: (bytes % 2 == 0).then(|| uid(0)),
                });
                self.commit(vec![Record::ChannelProfile { channel, profile }]);
            }
            Step::Flags { channel, user, bits } => {
                let channel = self.channel(channel);
                let on = |bit: u8| bits >> bit & 1 == 1;
                let flags = ConversationFlags { pinned: on(0), muted: on(1), request: on(2), accepted: on(3) };
                self.commit(vec![Record::ConversationFlags { channel, uid: uid(user), flags }]);
            }
            Step::UserSettings { user, strangers } => {
                let settings = UserSettings { strangers: Strangers::from_stored(strangers).expect("number") };
                self.commit(vec![Record::UserSettings { uid: uid(user), settings }]);
            }
            Step::Relation { user, peer, bits } => {
                let relation = Relation { contact: bits & 1 != 0, blocked: bits & 2 != 0 };
                self.commit(vec![Record::Relation { uid: uid(user), peer: uid(peer), relation }]);
            }
            Step::Listed { channel, allow, on, users } => {
                let channel = self.channel(channel);
                let list = if allow { ChannelList::Allow } else { ChannelList::Deny };
                let uids = users.into_iter().map(listed).collect();
                self.commit(vec![Record::ChannelListed { channel, list, on, uids }]);
            }
            Step::SystemUser { user, on } => self.commit(vec![Record::SystemUser { uid: uid(user), on }]),
            Step::CommandsRead { user, position } => {
                let (position, message_id) = (u64::from(position), Version::new(7 + u64::from(position)));
                self.commit(vec![Record::CommandsRead { uid: uid(user), position, message_id }]);
            }
            Step::AddressBlocked { address, on } => {
                self.commit(vec![Record::AddressBlocked { address: [10, 0, 0, address].into(), on }]);
            }
            Step::File { file: n, content } => self.commit(vec![Record::File(Box::new(FileRecord {
                file_id: file(n),
                uploader: (n > 0).then(|| uid(n)),
                name: format!("{n}.txt"),
                mime: "text/plain".into(),
                size: CONTENT.len() as u64 * u64::from(content),
                content: *blake3::hash(&CONTENT.repeat(content.into())).as_bytes(),
            }))]),
            Step::FileRemoved { file: n } => self.commit(vec![Record::FileRemoved { file_id: file(n) }]),
            Step::User { user } => self.commit(vec![Record::UserCreated { uid: uid(user) }]),
            Step::Token { user, flag, token } => self.commit(vec![Record::UserToken {
                uid: uid(user),
                device_flag: DeviceFlag(flag),
                device_level: flag,
                token: token.map(|token| [token; 32]),
            }]),
            Step::Key { key, revoked } => self.commit(vec![Record::ApiKey(ApiKey {
                key_id: format!("key-{key}"),
                name: "a key".into(),
                secret: [key; 32],
                scopes: Scopes { read: true, ..Scopes::default() },
                namespace: None,
                revoked,
            })]),
            Step::Alias { alias, channel } => {
                let channel = self.channel(channel);
                self.commit(vec![Record::Alias { alias: format!("alias-{alias}"), channel }]);
            }
            Step::Checkpoint => self.store().checkpoint().expect("checkpoint"),
            Step::Restart => {
                self.store = None;
                self.store = Some(open(self.dir.path()));
            }
            Step::Kill => {
                self.store.take().expect("open").abandon();
                self.store = Some(open(self.dir.path()));
            }
            Step::Move => self.relocate(),
            Step::LoseView => {
                self.store = None;
                std::fs::remove_dir_all(self.dir.path().join("view")).expect("remove");
                self.store = Some(open(self.dir.path()));
            }
        }
    }

    /// Moves the store by export and import; exports again and compares every byte.
    fn relocate(&mut self) {
        self.store = None;
        let from = std::mem::replace(&mut self.dir, tempfile::tempdir().expect("dir"));
        for content in 0..3 {
            let bytes = CONTENT.repeat(content);
            let name = blake3::hash(&bytes).to_hex();
            let home = from.path().join("files").join(&name[..2]);
            std::fs::create_dir_all(&home).expect("made");
            std::fs::write(home.join(name.as_str()), bytes).expect("written");
        }
        std::fs::write(from.path().join("credentials.pepper"), [7; 32]).expect("written");
        let scratch = tempfile::tempdir().expect("dir");
        let (one, two) = (scratch.path().join("one"), scratch.path().join("two"));
        export(from.path(), &one, ExportOptions::default(), &mut |_| {}).expect("exported");
        if self.model.version() == Version::ZERO {
            let refused = import(&one, self.dir.path(), &mut |_| {}).expect_err("nothing to import");
            assert!(refused.to_string().contains("holds nothing"), "{refused}");
            self.store = Some(open(self.dir.path()));
            return;
        }
        let report = import(&one, self.dir.path(), &mut |_| {}).expect("imported");
        assert_eq!(report.version, self.model.version());
        export(self.dir.path(), &two, ExportOptions::default(), &mut |_| {}).expect("exported");
        let (mut before, mut after) = (files_of(&one), files_of(&two));
        // The import's own break is the one line that may be new.
        let (old, new) = (before.remove(Path::new(BREAKS)), after.remove(Path::new(BREAKS)));
        let changes = |text: Option<Vec<u8>>| -> Vec<String> {
            let text = String::from_utf8(text.expect("there")).expect("text");
            text.lines().filter(|line| !line.contains("\"end\"")).map(str::to_owned).collect()
        };
        let (old, new) = (changes(old), changes(new));
        assert!(new.len() == old.len() + 1 && new.starts_with(&old), "{old:?} {new:?}");
        assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
        for (name, bytes) in &before {
            let shown = String::from_utf8_lossy(bytes);
            assert!(after.get(name) == Some(bytes), "{} differs: {shown}", name.display());
        }
        self.store = Some(open(self.dir.path()));
        let broken = Record::Break { kept: report.version, until: report.broken_until };
        self.model.set_clock_us(Some(self.store().version().get()));
        self.model.commit(&[Commit::from(broken)], &mut |_| {}).expect("commit");
    }

    fn compare(&self, since: Version) {
        let (store, model) = (self.store(), &self.model);
        let sorted = |mut list: Vec<ChannelNo>| {
            list.sort_unstable();
            list
        };
        assert_eq!(store.version(), model.version());
        let channels: Vec<ChannelNo> = self.numbers.iter().flatten().copied().collect();
        for n in 0..CHANNELS {
            assert_eq!(store.channel_no(&key(n)).expect("read"), self.numbers[n as usize]);
        }
        for &no in &channels {
            self.compare_channel(no, since);
        }
        for user in (0..6).map(uid) {
            assert_eq!(
                sorted(store.channels_of(&user).expect("read")),
                sorted(model.channels_of(&user).expect("read"))
            );
            assert_eq!(
                sorted(store.group_channels_of(&user).expect("read")),
                sorted(model.group_channels_of(&user).expect("read"))
            );
            assert_eq!(store.channel_count_of(&user).expect("read"), model.channel_count_of(&user).expect("read"));
            assert_eq!(store.user_known(&user).expect("read"), model.user_known(&user).expect("read"), "{user}");
            assert_eq!(store.user_settings(&user).expect("read"), model.user_settings(&user).expect("read"));
            assert_eq!(store.relations(&user).expect("read"), model.relations(&user).expect("read"));
            assert_eq!(store.commands_read(&user).expect("read"), model.commands_read(&user).expect("read"));
            for peer in (0..6).map(uid) {
                assert_eq!(store.relation(&user, &peer).expect("read"), model.relation(&user, &peer).expect("read"));
            }
            for since in [Version::ZERO, since, model.version()] {
                assert_eq!(
                    sorted(store.own_changes(&user, since).expect("read")),
                    sorted(model.own_changes(&user, since).expect("read"))
                );
            }
        }
        for since in [Version::ZERO, since, model.version(), model.version().plus(9)] {
            let expected = followed(model, since, usize::MAX);
            for max in [1, 7, 10_000] {
                assert_eq!(followed(store, since, max), expected, "the log after {since}, {max} at a time");
            }
        }
        for since in [Version::ZERO, since, model.version()] {
            assert_eq!(store.changed_among(&channels, since), model.changed_among(&channels, since));
            let recent = |store: &dyn Store, max| store.recently_changed(since, max).map(sorted);
            assert_eq!(recent(store, 100), recent(model, 100));
            assert_eq!(recent(store, 2), recent(model, 2));
        }
        for token in 0..3u8 {
            let owners = |store: &dyn Store| {
                let mut owners = store.token_owners(&[token; 32]).expect("read");
                owners.sort();
                owners
            };
            assert_eq!(owners(store), owners(model));
        }
        for alias in 0..3 {
            let alias = format!("alias-{alias}");
            assert_eq!(store.alias(&alias).expect("read"), model.alias(&alias).expect("read"));
        }
        for file_id in (0..4).chain([7, 8]).map(file) {
            assert_eq!(store.file(&file_id).expect("read"), model.file(&file_id).expect("read"));
            for max in [0, 1, 5, 10_000] {
                let references = |store: &dyn Store| store.file_references(&file_id, max).expect("read");
                assert_eq!(references(store), references(model), "{file_id}, at most {max}");
            }
        }
        for (before, max) in [(since, 9), (Version::new(u64::MAX >> 11), 9), (Version::new(u64::MAX >> 11), 1)] {
            let unused = |store: &dyn Store| store.unused_files(before, max).expect("read");
            assert_eq!(unused(store), unused(model));
        }
        for content in 0..3 {
            assert_eq!(
                store.has_content(&[content; 32]).expect("read"),
                model.has_content(&[content; 32]).expect("read")
            );
        }
        assert_eq!(store.api_keys(), model.api_keys());
        for key in model.api_keys() {
            assert_eq!(store.api_key(&key.secret), model.api_key(&key.secret));
        }
        assert_eq!(store.system_users(), model.system_users());
        assert_eq!(store.is_system_user(&uid(0)), model.is_system_user(&uid(0)));
        assert_eq!(store.blocked_addresses(), model.blocked_addresses());
        assert_eq!(store.stats().channels, model.stats().channels);
    }

    fn compare_channel(&self, no: ChannelNo, since: Version) {
        let (store, model) = (self.store(), &self.model);
        assert_eq!(store.channel(no).expect("read"), model.channel(no).expect("read"));
        let members = |store: &dyn Store| {
            let mut members = store.members(no).expect("read");
            members.sort();
            members
        };
        assert_eq!(members(store), members(model));
        assert_eq!(store.memberships(no).expect("read"), model.memberships(no).expect("read"));
        assert_eq!(store.profile(no).expect("read"), model.profile(no).expect("read"));
        for list in [ChannelList::Deny, ChannelList::Allow] {
            assert_eq!(store.listed(no, list).expect("read"), model.listed(no, list).expect("read"));
        }
        for user in (0..60).map(listed) {
            assert_eq!(store.listing(no, &user).expect("read"), model.listing(no, &user).expect("read"), "{user}");
        }
        for since in [Version::ZERO, since, model.version()] {
            for max in [0, 1, 7, 10_000] {
                let changes = |store: &dyn Store| store.message_changes(no, since, max).expect("read");
                assert_eq!(changes(store), changes(model), "since {since:?}, at most {max}");
            }
        }
        let head = self.head(no);
        for (floor, max) in [(0, 10_000), (0, 3), (head / 2, 7), (head, 5)] {
            let commands = |store: &dyn Store| store.commands_after(no, floor, max).expect("read");
            assert_eq!(commands(store), commands(model), "above {floor}, at most {max}");
        }
        let seqs: Vec<u64> = (0..=head + 1).step_by(1 + head as usize / 17).chain([head, head + 1]).collect();
        for &seq in &seqs {
            assert_eq!(store.digest(no, seq).expect("read"), model.digest(no, seq).expect("read"));
        }
        for (first, last, limit, bytes_max) in [
            (1, u64::MAX, 10_000, usize::MAX),
            (head / 3, head / 2, 20, usize::MAX),
            (1, head, 500, 300),
            (5, 90, 7, 9),
        ] {
            for newest_first in [false, true] {
                let range = SeqRange { first, last, limit, bytes_max, newest_first };
                assert_eq!(store.messages(no, range).expect("read"), model.messages(no, range).expect("read"));
            }
        }
        for message in model
            .messages(no, SeqRange { first: 1, last: head, limit: 9_999, bytes_max: usize::MAX, newest_first: true })
            .expect("read")
            .iter()
            .step_by(13)
        {
            let (who, name) = (&message.from_uid, &message.client_msg_no);
            assert_eq!(store.probe(no, fingerprint(who, name)), Probe::Ask);
            let found = store.message_by_client_msg_no(no, who, name).expect("read");
            assert_eq!(found, model.message_by_client_msg_no(no, who, name).expect("read"));
            let found = store.message_by_id(message.message_id).expect("read");
            assert_eq!(found.as_ref(), Some(message));
            let other = ClientMsgNo::from_stored("never sent");
            assert_eq!(store.message_by_client_msg_no(no, who, &other).expect("read"), None);
        }
        for user in (0..6).map(uid) {
            assert_eq!(store.membership(no, &user).expect("read"), model.membership(no, &user).expect("read"));
            assert_eq!(
                store.conversation_state(no, &user).expect("read"),
                model.conversation_state(no, &user).expect("read")
            );
            assert_eq!(store.last_own(no, &user).expect("read"), model.last_own(no, &user).expect("read"));
            for &floor in &seqs {
                assert_eq!(
                    store.mentions_after(no, &user, floor).expect("read"),
                    model.mentions_after(no, &user, floor).expect("read"),
                    "mentions of {user} above {floor}"
                );
                assert_eq!(
                    store.countable_after(no, &user, floor).expect("read"),
                    model.countable_after(no, &user, floor).expect("read"),
                    "floor {floor} of {user}"
                );
                for unread in [0, 1, 3, floor, 10_000] {
                    assert_eq!(
                        store.position_for_unread(no, &user, unread, floor).expect("read"),
                        model.position_for_unread(no, &user, unread, floor).expect("read"),
                        "{unread} unread above {floor} of {user}"
                    );
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_durable_store_answers_as_the_model(steps in prop::collection::vec(step(), 1..80)) {
        let mut pair = Pair::new();
        pair.moves = steps.iter().any(|step| matches!(step, Step::Move));
        let mut since = Version::ZERO;
        for (n, step) in steps.iter().enumerate() {
            pair.run(step);
            if n == steps.len() / 2 {
                since = pair.model.version();
                pair.compare(since);
            }
        }
        pair.compare(since);
        // And from rows alone.
        pair.run(&Step::Restart);
        pair.compare(since);
        pair.run(&Step::LoseView);
        pair.compare(since);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_store_moved_by_export_and_import_answers_as_before(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        pair.moves = true;
        let mut since = Version::ZERO;
        for (n, step) in steps.iter().enumerate() {
            pair.run(step);
            if n == steps.len() / 2 {
                since = pair.model.version();
                pair.run(&Step::Move);
                pair.compare(since);
            }
        }
        // What was moved goes on, and can be moved again.
        pair.run(&Step::Move);
        pair.compare(since);
    }
}
