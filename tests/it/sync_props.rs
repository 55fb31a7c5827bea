//! Proves clean-cut, version, delivered-or-told and one-unread together, over the socket: a client that keeps what
//! `docs/wire.md` section 8 says, through random histories, random cuts of its connection, dropped backlogs and restarts of
//! the server, stands where a fresh full sync stands. The seed is printed; `CHINWAG_SEED=n` runs one case again,
//! `CHINWAG_CASES=n` more cases.

use std::collections::{BTreeMap, BTreeSet};

use chinwag::clock;
use protocol::native::{
    ClientFrame, DeleteConversation, Encoding, Event, MessageItem, MessageState, Read, Resume, Row, ServerFrame,
    SetUnread, Synced,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::harness::{Client, Server, cursor, group};

type Key = (String, u8);

const GROUPS: [&str; 3] = ["g0", "g1", "g2"];
const PEERS: [&str; 2] = ["a", "b"];

/// One conversation as a client keeps it.
#[derive(Debug, Default, Clone)]
struct Conversation {
    /// Version of the last row or event taken.
    version: u64,
    /// Unread it named, and the head that was counted at.
    base: (u64, u64),
    /// Own last message: seq and id.
    own: (u64, u64),
    /// Messages up to here were deleted: history still has them, the conversation does not.
    floor: u64,
    /// Everything above the floor is held, up to the last: the last is a cursor.
    whole: bool,
    /// Messages held: whether one counts as unread, and whether it is a command.
    held: BTreeMap<u64, (bool, bool)>,
}

impl Conversation {
    fn unread(&self) -> u64 {
        let after = |floor: u64| self.held.range(floor + 1..).filter(|(_, (counts, _))| *counts).count() as u64;
        if self.own.1 > self.version { after(self.own.0) } else { self.base.0 + after(self.base.1) }
    }

    fn last(&self) -> u64 {
        self.held.iter().rev().find(|(_, (_, command))| !command).map_or(0, |(seq, _)| *seq)
    }

    fn top(&self) -> u64 {
        self.held.last_key_value().map_or(0, |(seq, _)| *seq)
    }

    fn drop_to(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.held = self.held.split_off(&(floor + 1));
    }
}

/// A client that follows `docs/wire.md`, section 8.
#[derive(Default)]
struct Replica {
    client: Option<Client>,
    version: u64,
    /// Something was dropped or must be asked for: the version stays until a sync has answered.
    must_sync: bool,
    gaps: Vec<(Key, u64, u64)>,
    conversations: BTreeMap<Key, Conversation>,
}

impl Replica {
    fn take_message(&mut self, key: &Key, message: &MessageItem<'_>) {
        if message.message_seq == 0 {
            return;
        }
        let conversation = self.conversations.entry(key.clone()).or_default();
        conversation.whole |= message.message_seq == 1;
        let own = message.from_uid == "u";
        if own && message.message_seq > conversation.own.0 {
            conversation.own = (message.message_seq, message.message_id);
        }
        let to_self = *key == ("u".to_owned(), 1);
        let counts = message.red_dot && !message.sync_once && !own && !to_self && message.state == MessageState::Live;
        if message.message_seq > conversation.floor {
            conversation.held.insert(message.message_seq, (counts, message.sync_once));
        }
    }

    fn take_row(&mut self, row: &Row<'_>) {
        let key = (row.channel_id.to_string(), row.channel_type);
        let conversation = self.conversations.entry(key.clone()).or_default();
        if row.version < conversation.version {
            return;
        }
        conversation.version = row.version;
        if row.is_deleted {
            conversation.drop_to(row.last_msg_seq);
            conversation.base = (0, row.last_msg_seq);
            return;
        }
        conversation.base = (row.unread, row.last_msg_seq);
        // Only what was whole was named as a cursor.
        let held_to = if conversation.whole { conversation.top() } else { conversation.floor };
        conversation.whole = true;
        for message in &row.recents {
            self.take_message(&key, message);
        }
        if !row.complete && row.first_seq > held_to + 1 {
            self.gaps.push((key, held_to + 1, row.first_seq - 1));
        }
    }

    fn take_synced(&mut self, synced: &Synced<'_>, first_page: bool) {
        if synced.reset && first_page {
            self.conversations.clear();
        }
        for row in &synced.rows {
            self.take_row(row);
        }
        if !synced.more {
            self.version = self.version.max(synced.version);
            self.must_sync = false;
        }
    }

    fn saw_version(&mut self, version: u64) {
        if !self.must_sync && self.gaps.is_empty() {
            self.version = self.version.max(version);
        }
    }

    fn take(&mut self, frame: &ServerFrame<'static>) {
        match frame {
            ServerFrame::Deliver(deliver) => {
                let key = (deliver.channel_id.to_string(), deliver.channel_type);
                for message in &deliver.messages {
                    let top = self.conversations.get(&key).map_or(0, Conversation::top);
                    if message.message_seq > 0 && message.message_seq <= top {
                        continue;
                    }
                    self.take_message(&key, message);
                    if top > 0 && message.message_seq > top + 1 {
                        self.gaps.push((key.clone(), top + 1, message.message_seq - 1));
                    }
                }
            }
            ServerFrame::Gap(gap) => {
                let key = (gap.channel_id.to_string(), gap.channel_type);
                self.gaps.push((key, gap.first_missing_seq, gap.head_seq));
            }
            ServerFrame::Event(Event::Conversation(event)) => {
                let key = (event.channel_id.to_string(), event.channel_type);
                let conversation = self.conversations.entry(key).or_default();
                if event.version > conversation.version {
                    conversation.version = event.version;
                    conversation.base = (event.unread, event.last_msg_seq);
                    if event.is_deleted {
                        conversation.drop_to(event.read_to_msg_seq);
                    }
                }
                self.saw_version(event.version);
            }
            ServerFrame::Event(Event::Member(event)) => {
                let key = (event.channel_id.to_string(), event.channel_type);
                let conversation = self.conversations.entry(key.clone()).or_default();
                if event.left.iter().any(|uid| uid == "u") && event.version > conversation.version {
                    *conversation = Conversation { version: event.version, ..Conversation::default() };
                    self.gaps.retain(|(gap, ..)| *gap != key);
                    self.saw_version(event.version);
                }
                if event.joined.iter().any(|uid| uid == "u") {
                    self.must_sync = true;
                }
            }
            ServerFrame::Event(Event::Resync(_)) => self.must_sync = true,
            _ => {}
        }
    }

    /// Connects and resumes, inline or by the verb, with cursors or without, in pages of any size.
    async fn connect(&mut self, server: &Server, rng: &mut StdRng) {
        let token = server.user("u").await;
        let inline = rng.random_bool(0.5);
        let with_cursors = rng.random_bool(0.5);
        let resume = Resume {
            version: self.version,
            cursors: if with_cursors { self.cursors() } else { Vec::new() },
            msg_count: if with_cursors && rng.random_bool(0.3) { 2 } else { 1_000 },
            rows_max: rng.random_range(0..4),
            only_unread: false,
        };
        let asked = resume.clone();
        let client = Client::connect(server, &token, Encoding::MessagePack, |c| {
            c.resume = inline.then_some(resume);
        })
        .await;
        let synced = client.connected.as_ref().and_then(|c| c.synced.clone());
        self.client = Some(client);
        // What was to be fetched is in the answer: cursors, or everything since the version.
        self.must_sync = true;
        self.pages(asked, synced).await;
    }

    fn cursors(&self) -> Vec<protocol::native::Cursor<'static>> {
        let gapless = |key: &&Key| !self.gaps.iter().any(|(gap, ..)| gap == *key);
        let held = self.conversations.keys().filter(gapless).filter(|key| self.conversations[*key].whole);
        held.map(|key| cursor(&key.0, key.1, self.conversations[key].top())).filter(|c| c.last_msg_seq > 0).collect()
    }

    async fn pages(&mut self, asked: Resume<'static>, first: Option<Synced<'static>>) {
        let mut first_page = true;
        let mut answer = first;
        loop {
            let synced = match answer.take() {
                Some(synced) => synced,
                None => self.ask(&asked, None).await,
            };
            self.take_synced(&synced, first_page);
            first_page = false;
            if !synced.more {
                return;
            }
            answer = Some(self.ask(&asked, synced.page_after).await);
        }
    }

    async fn ask(
        &mut self,
        asked: &Resume<'static>,
        page_after: Option<std::borrow::Cow<'static, str>>,
    ) -> Synced<'static> {
        let client = self.client.as_mut().expect("online");
        let answer = client.sync(|s| {
            s.version = asked.version;
            s.cursors = asked.cursors.clone();
            s.msg_count = asked.msg_count;
            s.rows_max = asked.rows_max;
            s.page_after = page_after;
        });
        answer.await.expect("synced")
    }

    /// Asks for what is missing until nothing is.
    async fn heal(&mut self, rng: &mut StdRng) {
        while self.must_sync || !self.gaps.is_empty() {
            for (key, first, last) in std::mem::take(&mut self.gaps) {
                let client = self.client.as_mut().expect("online");
                if client.history(&key.0, key.1, first, last).await.is_ok() {
                    for message in client.whole_history(&key.0, key.1, first, last).await {
                        self.take_message(&key, &message);
                    }
                }
            }
            if self.must_sync {
                let asked = Resume {
                    version: self.version,
                    msg_count: 1_000,
                    rows_max: rng.random_range(0..4),
                    ..Resume::default()
                };
                self.pages(asked, None).await;
            }
        }
    }
}

struct World {
    server: Server,
    rng: StdRng,
    peers: Vec<Client>,
    laptop: Client,
    replica: Replica,
    member: BTreeSet<&'static str>,
}

impl World {
    async fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let tight = rng.random_bool(0.4);
        let server = Server::on_disk_with(|c| {
            if tight {
                c.outbox.entries_max = 3;
                c.outbox.bytes_max = 2_000;
            }
        })
        .await;
        for id in GROUPS {
            server.group(id, &PEERS).await;
        }
        let mut peers = Vec::new();
        for uid in PEERS {
            peers.push(server.connect(uid).await);
        }
        let laptop = server.connect("u").await;
        let mut world = Self { server, rng, peers, laptop, replica: Replica::default(), member: BTreeSet::new() };
        world.replica.connect(&world.server, &mut world.rng).await;
        world
    }

    fn channel(&mut self) -> Option<Key> {
        match self.rng.random_range(0..6) {
            0 => Some(("a".into(), 1)),
            1 => Some(("b".into(), 1)),
            2 => Some(("u".into(), 1)),
            n => {
                let id = GROUPS[n - 3];
                self.member.contains(id).then(|| (id.to_owned(), 2))
            }
        }
    }

    async fn peer_sends(&mut self) {
        let who = self.rng.random_range(0..PEERS.len());
        let (channel_id, channel_type) = match self.rng.random_range(0..4) {
            0 => ("u", 1),
            n => (GROUPS[n - 1], 2),
        };
        let count = self.rng.random_range(1..8);
        let mut last = 0;
        for _ in 0..count {
            let peer = &mut self.peers[who];
            let mut send = peer.message(channel_id, channel_type, b"hello");
            send.red_dot = self.rng.random_bool(0.8);
            send.sync_once = self.rng.random_bool(0.1);
            send.expire = if self.rng.random_bool(0.1) { 1 } else { 0 };
            last = send.client_seq;
            peer.feed(&ClientFrame::Send(send)).await;
        }
        self.peers[who].flush().await;
        self.peers[who].outcome(last).await.expect("acked");
        self.peers[who].pending().await;
    }

    /// A change by one of the user's own devices.
    async fn user_does(&mut self) {
        let Some((channel_id, channel_type)) = self.channel() else { return };
        let by_replica = self.replica.client.is_some() && self.rng.random_bool(0.5);
        let what = self.rng.random_range(0..5);
        let number = self.rng.random_range(0..12);
        let Self { replica, laptop, .. } = self;
        let client = if by_replica { replica.client.as_mut().expect("online") } else { laptop };
        let client_seq = client.seq();
        let id = || channel_id.clone().into();
        let frame = match what {
            0 => ClientFrame::Read(Read { client_seq, channel_id: id(), channel_type, message_seq: number }),
            1 | 2 => {
                let unread = (number / 2) as i64;
                ClientFrame::SetUnread(SetUnread { client_seq, channel_id: id(), channel_type, unread })
            }
            3 => ClientFrame::DeleteConversation(DeleteConversation { client_seq, channel_id: id(), channel_type }),
            _ => {
                let ack = client.say(&channel_id, channel_type, b"from u").await;
                if by_replica {
                    let key = (channel_id.clone(), channel_type);
                    let message = MessageItem {
                        message_seq: ack.message_seq,
                        message_id: ack.message_id,
                        from_uid: "u".into(),
                        client_msg_no: ack.client_msg_no.clone(),
                        timestamp: ack.timestamp,
                        payload: b"from u"[..].into(),
                        ..MessageItem::default()
                    };
                    let top = replica.conversations.get(&key).map_or(0, Conversation::top);
                    replica.take_message(&key, &message);
                    if ack.message_seq > top + 1 {
                        // An ack may pass deliveries of its channel that still wait.
                        replica.gaps.push((key, top + 1, ack.message_seq - 1));
                    }
                }
                return;
            }
        };
        client.ask_done(client_seq, frame).await.expect("done");
    }

    async fn members_change(&mut self) {
        let id = GROUPS[self.rng.random_range(0..GROUPS.len())];
        let hub = self.server.app.hub().clone();
        if self.member.remove(id) {
            hub.remove_members(group(id), vec![self.server.uid("u")]).await.expect("removed");
        } else {
            self.member.insert(id);
            hub.add_members(group(id), vec![self.server.uid("u")], false).await.expect("added");
        }
    }

    /// Reads everything up to now: a message of a peer tells where that is.
    async fn catch_up(&mut self) {
        if self.replica.client.is_none() {
            self.replica.connect(&self.server, &mut self.rng).await;
        }
        let ack = self.peers[0].say("u", 1, b"barrier").await;
        let key = ("a".to_owned(), 1);
        loop {
            let there = self.replica.conversations.get(&key).is_some_and(|c| c.top() >= ack.message_seq)
                || self.replica.gaps.iter().any(|(gap, _, last)| *gap == key && *last >= ack.message_seq);
            if there {
                break;
            }
            let frame = self.replica.client.as_mut().expect("online").next().await;
            self.replica.take(&frame);
        }
        // What was written before and kept aside by a request.
        for frame in self.replica.client.as_mut().expect("online").pending().await {
            self.replica.take(&frame);
        }
        self.replica.heal(&mut self.rng).await;
    }

    async fn check(&mut self, what: &str) {
        self.catch_up().await;
        let mut fresh = BTreeMap::new();
        let rows_max = self.rng.random_range(0..3);
        let mut page_after = None;
        loop {
            let after = page_after.take();
            let answer = self.laptop.sync(|s| {
                s.msg_count = 1_000;
                s.rows_max = rows_max;
                s.page_after = after;
            });
            let synced = answer.await.expect("synced");
            for row in synced.rows {
                fresh.insert((row.channel_id.to_string(), row.channel_type), row);
            }
            if !synced.more {
                break;
            }
            page_after = synced.page_after;
        }
        for (key, row) in &fresh {
            let Some(mine) = self.replica.conversations.get(key) else { panic!("{what}: {key:?} is missing") };
            assert_eq!(mine.unread(), row.unread, "{what}: unread of {key:?}: {mine:?}\n{row:?}");
            assert_eq!(mine.last(), row.last_msg_seq, "{what}: last of {key:?}");
            for message in &row.recents {
                assert!(mine.held.contains_key(&message.message_seq), "{what}: {key:?} {}", message.message_seq);
            }
        }
        for (key, mine) in &self.replica.conversations {
            assert!(fresh.contains_key(key) || mine.last() == 0, "{what}: {key:?} should be gone: {mine:?}");
        }
    }

    async fn restart(mut self) -> Self {
        self.replica.client = None;
        let server = self.server.restart().await;
        let mut peers = Vec::new();
        for uid in PEERS {
            peers.push(server.connect(uid).await);
        }
        let laptop = server.connect("u").await;
        Self { server, peers, laptop, ..self }
    }
}

async fn run(seed: u64, steps: usize) {
    eprintln!("seed {seed}");
    let mut world = World::new(seed).await;
    for step in 0..steps {
        match world.rng.random_range(0..100) {
            0..40 => world.peer_sends().await,
            40..64 => world.user_does().await,
            64..70 => world.members_change().await,
            70..73 => {
                let hub = world.server.app.hub().clone();
                hub.expire(clock::now_ms() + 5_000, 1_000).await.expect("expired");
            }
            73..81 => {
                // Cut off in the midst: some frames were read, others were not.
                let reads = world.rng.random_range(0..4);
                if let Some(mut client) = world.replica.client.take() {
                    let frames = client.pending().await;
                    for frame in frames.iter().take(reads) {
                        world.replica.take(frame);
                    }
                }
            }
            81..89 => {
                if world.replica.client.is_none() {
                    world.replica.connect(&world.server, &mut world.rng).await;
                }
            }
            89..98 => world.check(&format!("seed {seed} step {step}")).await,
            _ => world = world.restart().await,
        }
        // The laptop's copies are of no interest.
        world.laptop.pending().await;
    }
    world.check(&format!("seed {seed} at the end")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_stream_land_where_a_fresh_snapshot_is() {
    if let Some(seed) = std::env::var("CHINWAG_SEED").ok().and_then(|seed| seed.parse().ok()) {
        return run(seed, 120).await;
    }
    let cases = std::env::var("CHINWAG_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(10);
    for _ in 0..cases {
        run(rand::random::<u32>().into(), 120).await;
    }
}
