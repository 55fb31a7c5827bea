//! The index over the memory model: whatever is sent, edited, revoked, restarted, lost or damaged, a search finds what the
//! model's plain scan finds.

use std::fs;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageSeq, Uid};

use super::*;
use crate::domain::content::fold;
use crate::domain::message::MessageFlags;
use crate::store::log::LogPosition;
use crate::store::memory::MemoryStore;
use crate::store::{MessageRecord, SearchFound, SearchQuery, Store, StoreError};

const LOG_ID: [u8; 16] = [3; 16];

/// The model with what a log adds to it.
struct Model {
    store: MemoryStore,
    edits: Mutex<Vec<(ChannelNo, u64, Version)>>,
    mark: Mutex<LogMark>,
    /// Messages read, in all.
    read: AtomicU64,
}

impl Source for Model {
    fn head_seq(&self, channel: ChannelNo) -> Result<u64> {
        Ok(self.store.channel(channel)?.map_or(0, |info| info.head_seq))
    }

    fn messages(&self, channel: ChannelNo, range: SeqRange) -> Result<Vec<Message>> {
        let messages = self.store.messages(channel, range)?;
        self.read.fetch_add(messages.len() as u64, Ordering::Relaxed);
        Ok(messages)
    }

    fn mark(&self) -> LogMark {
        *self.mark.lock()
    }

    fn changed_after(&self, since: Version) -> Result<Vec<ChannelNo>> {
        Ok(self.store.recently_changed(since, usize::MAX).expect("the ring holds all"))
    }

    fn edits_after(&self, mark: &LogMark, until: Version, tell: &mut dyn FnMut(ChannelNo, u64, Version)) -> Result<()> {
        if mark.log_id != LOG_ID {
            return Err(StoreError::damaged("scan", "another log"));
        }
        for &(channel, seq, version) in self.edits.lock().iter() {
            if version > mark.version && version <= until {
                tell(channel, seq, version);
            }
        }
        Ok(())
    }
}

struct Fixture {
    dir: tempfile::TempDir,
    options: SearchOptions,
    model: Arc<Model>,
    index: Arc<SearchIndex>,
    thread: Option<JoinHandle<()>>,
    channels: Vec<(ChannelNo, u64)>,
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Fixture {
    fn new(channels: usize, options: SearchOptions) -> Self {
        let position = LogPosition { segment: 1, offset: 1 };
        let mark = LogMark { log_id: LOG_ID, position, version: Version::ZERO, chain: [0; 16] };
        let model = Model {
            store: MemoryStore::new(),
            edits: Mutex::default(),
            mark: Mutex::new(mark),
            read: AtomicU64::new(0),
        };
        let dir = tempfile::tempdir().expect("dir");
        let index = Arc::new(SearchIndex::new(dir.path().join("search"), options, mark));
        let mut fixture = Self { dir, options, model: Arc::new(model), index, thread: None, channels: Vec::new() };
        fixture.start();
        for i in 0..channels {
            let channel = fixture.model.store.reserve_channel_no();
            let key = ChannelKey::named(&format!("c{i}"), ChannelType::Group).expect("id");
            fixture.commit(vec![Record::ChannelCreated { channel, key }]);
            fixture.channels.push((channel, 0));
        }
        fixture
    }

    fn start(&mut self) {
        let mark = self.model.mark();
        self.index = Arc::new(SearchIndex::new(self.files(), self.options, mark));
        let (index, model) = (Arc::clone(&self.index), Arc::clone(&self.model));
        self.thread = Some(std::thread::spawn(move || index.run(&*model)));
    }

    fn stop(&mut self) {
        self.index.stop();
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the builder does not panic");
        }
    }

    fn files(&self) -> PathBuf {
        self.dir.path().join("search")
    }

    fn segments(&self) -> Vec<PathBuf> {
        let Ok(entries) = fs::read_dir(self.files()) else { return Vec::new() };
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
        paths.sort();
        paths
    }

    /// Until nothing waits any more.
    fn settle(&self) {
        let started = Instant::now();
        loop {
            let stats = self.index.stats();
            if stats.ready && stats.channels_waiting == 0 {
                return;
            }
            assert!(started.elapsed() < Duration::from_secs(60), "{stats:?}");
            std::thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn commit(&self, records: Vec<Record>) {
        let lot: Vec<Commit> = records.into_iter().map(Commit::from).collect();
        let versions = self.model.store.commit(&lot, &mut |_| {}).expect("commit");
        for (commit, &version) in lot.iter().zip(&versions) {
            if let Some(Record::MessageEdited { channel, seq, .. }) = commit.records.first() {
                self.model.edits.lock().push((*channel, *seq, version));
            }
        }
        self.index.committed(&lot, &versions);
        let mut mark = self.model.mark.lock();
        mark.version = self.model.store.version();
        mark.position.offset += 1;
    }

    fn send(&mut self, channel: usize, texts: impl IntoIterator<Item = String>) {
        let (no, head) = &mut self.channels[channel];
        let mut records = Vec::new();
        for text in texts {
            *head += 1;
            records.push(Record::Message(MessageRecord {
                channel: *no,
                message_seq: MessageSeq::new(*head).expect("seq"),
                from_uid: Uid::from_stored("u"),
                client_msg_no: ClientMsgNo::from_stored(&format!("{}-{head}", no.0)),
                flags: MessageFlags::default(),
                setting: 0,
                topic: String::new(),
                expire_s: 0,
                payload: Bytes::from(text),
                extras: None,
            }));
        }
        if !records.is_empty() {
            self.commit(records);
        }
    }

    fn edit(&self, channel: usize, seq: u64, text: &str) {
        let (channel, _) = self.channels[channel];
        let payload = Bytes::from(text.to_owned());
        self.commit(vec![Record::MessageEdited { channel, seq, by: None, payload, extras: None }]);
    }

    fn revoke(&self, channel: usize, seq: u64) {
        let (channel, _) = self.channels[channel];
        self.commit(vec![Record::MessageRevoked { channel, seq, by: None }]);
    }

    fn query(pattern: &str) -> SearchQuery {
        SearchQuery { pattern: fold(pattern), first: 1, last: u64::MAX, limit: 1_000_000, scan_max: 1_000_000 }
    }

    fn search(&self, channel: usize, query: &SearchQuery) -> SearchFound {
        self.index.search(&*self.model, self.channels[channel].0, query).expect("search")
    }

    fn seqs(&self, channel: usize, pattern: &str) -> Vec<u64> {
        let found = self.search(channel, &Self::query(pattern));
        assert_eq!(found.resume, None);
        found.messages.iter().map(|message| message.message_seq.get()).collect()
    }

    /// Pages through a search; returns all seqs and asserts what every page promises.
    fn paged(&self, channel: usize, query: &SearchQuery) -> Vec<u64> {
        let mut query = query.clone();
        let mut seqs = Vec::new();
        loop {
            let found = self.search(channel, &query);
            assert!(found.messages.len() <= query.limit);
            seqs.extend(found.messages.iter().map(|message| message.message_seq.get()));
            let Some(resume) = found.resume else { return seqs };
            assert!(resume >= query.first && resume < query.last.min(self.channels[channel].1 + 1));
            assert!(found.messages.iter().all(|message| message.message_seq.get() > resume));
            query.last = resume;
        }
    }

    fn expected(&self, channel: usize, query: &SearchQuery) -> Vec<u64> {
        let query = SearchQuery { limit: usize::MAX, scan_max: usize::MAX, ..query.clone() };
        let found = self.model.store.search(self.channels[channel].0, &query).expect("search");
        found.messages.iter().map(|message| message.message_seq.get()).collect()
    }
}

fn small() -> SearchOptions {
    SearchOptions {
        segment_bytes_max: 64 << 10,
        waste_bytes_max: 64 << 10,
        gather: Duration::ZERO,
        ..SearchOptions::default()
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn of<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }

    fn text(&mut self) -> String {
        let words = (0..self.below(6)).map(|_| self.of(WORDS)).collect::<Vec<_>>();
        let text = words.join(self.of(&[" ", "", "\n"]));
        match self.below(8) {
            0 => format!(r#"{{"type":1,"content":{}}}"#, serde_json::Value::from(text)),
            _ => text,
        }
    }
}

const WORDS: &[&str] = &[
    "İstanbul",
    "ISPARTA",
    "ısı",
    "güzel",
    "Çok",
    "%",
    "_",
    ".*",
    "a%b",
    "100%",
    "😀😀😀",
    "👩‍👩‍👧",
    "hello",
    "HELLO",
    "lo",
    "ß",
    "Straße",
    "i̇zmir",
    "ağaç",
    "日本語",
    "x",
];

#[test]
fn searches_equal_the_models_whatever_happens_to_the_index() {
    let seeds: Vec<u64> = match std::env::var("SEARCH_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (0..6).collect(),
    };
    for seed in seeds {
        println!("seed {seed}");
        scenario(seed);
    }
}

fn scenario(seed: u64) {
    let mut random = Random(seed);
    let mut fixture = Fixture::new(3, small());
    let mut copy: Option<Vec<(PathBuf, Vec<u8>)>> = None;
    let texts: Vec<String> = (0..4_000).map(|_| random.text()).collect();
    fixture.send(0, texts);
    for _ in 0..60 {
        let channel = random.below(3) as usize;
        let head = fixture.channels[channel].1;
        match random.below(16) {
            0..=4 => {
                let count = random.below(if channel == 0 { 400 } else { 90 });
                let texts: Vec<String> = (0..count).map(|_| random.text()).collect();
                fixture.send(channel, texts);
            }
            5..=6 if head > 0 => {
                for _ in 0..=random.below(20) {
                    fixture.edit(channel, 1 + random.below(head), &random.text());
                }
            }
            7 if head > 0 => fixture.revoke(channel, 1 + random.below(head)),
            8 => fixture.settle(),
            9 => {
                fixture.stop();
                fixture.start();
            }
            10 => {
                copy = Some(
                    fixture.segments().into_iter().map(|path| (path.clone(), fs::read(path).expect("read"))).collect(),
                );
            }
            11 => {
                // As after a crash, or when an older copy was put back.
                let Some(copy) = &copy else { continue };
                fixture.stop();
                fixture.segments().iter().for_each(|path| fs::remove_file(path).expect("remove"));
                // A step below may have taken the directory away.
                fs::create_dir_all(fixture.files()).expect("make");
                copy.iter().for_each(|(path, bytes)| fs::write(path, bytes).expect("write"));
                fixture.start();
            }
            12 => {
                let segments = fixture.segments();
                if segments.is_empty() {
                    continue;
                }
                let running = random.below(2) == 0;
                if !running {
                    fixture.stop();
                }
                let path = &segments[random.below(segments.len() as u64) as usize];
                // It may have been swept up meanwhile.
                if let Ok(file) = fs::OpenOptions::new().read(true).write(true).open(path) {
                    use std::os::unix::fs::FileExt;
                    let mut byte = [0];
                    let at = random.below(file.metadata().expect("length").len().max(1));
                    if file.read_exact_at(&mut byte, at).is_ok() {
                        file.write_all_at(&[byte[0] ^ 1 << random.below(8)], at).expect("write");
                    }
                }
                if !running {
                    fixture.start();
                }
            }
            13 => {
                fixture.stop();
                let segments = fixture.segments();
                match random.below(3) {
                    0 => fs::remove_dir_all(fixture.files()).unwrap_or_default(),
                    _ if segments.is_empty() => {}
                    _ => {
                        let path = &segments[random.below(segments.len() as u64) as usize];
                        fs::remove_file(path).expect("remove");
                    }
                }
                fixture.start();
            }
            _ => {}
        }
        for _ in 0..3 {
            let channel = random.below(3) as usize;
            let head = fixture.channels[channel].1;
            let word = random.of(WORDS);
            let pattern = match random.below(3) {
                0 => word.to_owned(),
                1 => format!("{word}{}", random.of(WORDS)),
                _ => word.chars().skip(1).collect(),
            };
            if fold(&pattern).is_empty() {
                continue;
            }
            let bounded = random.below(2) == 0;
            let query = SearchQuery {
                pattern: fold(&pattern),
                first: if bounded { 1 + random.below(head + 1) } else { 1 },
                last: if bounded { random.below(head + 5) } else { u64::MAX },
                limit: 1 + random.below(40) as usize,
                scan_max: 1 + random.below(300) as usize,
            };
            assert_eq!(fixture.paged(channel, &query), fixture.expected(channel, &query), "seed {seed} {query:?}");
            let whole = SearchQuery { limit: usize::MAX, scan_max: usize::MAX, ..query };
            assert_eq!(fixture.paged(channel, &whole), fixture.expected(channel, &whole), "seed {seed} {whole:?}");
        }
    }
}

fn numbered(from: u64, count: u64) -> impl Iterator<Item = String> {
    (from..from + count).map(|i| format!("message number {i} of this channel"))
}

#[test]
fn a_search_reads_candidates_and_what_no_unit_covers_only() {
    let mut fixture = Fixture::new(1, small());
    fixture.send(0, numbered(1, 5_000));
    fixture.settle();
    let stats = fixture.index.stats();
    assert_eq!((stats.units, stats.messages_indexed), (1 + 1 + 6, 5_000 - 8), "{stats:?}");
    let read = |pattern: &str| {
        let before = fixture.model.read.load(Ordering::Relaxed);
        let seqs = fixture.seqs(0, pattern);
        (seqs, fixture.model.read.load(Ordering::Relaxed) - before)
    };
    assert_eq!(read("absent"), (vec![], 8));
    let (seqs, messages) = read("number 1234 ");
    assert_eq!(seqs, [1_234]);
    assert!(messages < 30, "{messages}");
    // A common one stops at the limit.
    let before = fixture.model.read.load(Ordering::Relaxed);
    let found = fixture.search(0, &SearchQuery { limit: 20, ..Fixture::query("message") });
    assert_eq!((found.messages.len(), found.resume), (20, Some(4_980)));
    assert!(fixture.model.read.load(Ordering::Relaxed) - before <= 128);
    // A pattern shorter than a window reads texts, within the bound.
    let found = fixture.search(0, &SearchQuery { scan_max: 100, ..Fixture::query("zz") });
    assert_eq!((found.messages.len(), found.resume), (0, Some(4_900)));
}

#[test]
fn what_was_committed_is_found_at_once_and_what_was_edited_by_its_new_text_only() {
    let mut fixture = Fixture::new(1, small());
    for i in 0..200 {
        fixture.send(0, [format!("needle-{i}-")]);
        assert_eq!(fixture.seqs(0, &format!("needle-{i}-")), [i + 1]);
    }
    fixture.settle();
    for i in (0..192).step_by(13) {
        fixture.edit(0, i + 1, &format!("pin-{i}-"));
        assert_eq!(fixture.seqs(0, &format!("PIN-{i}-")), [i + 1]);
        assert!(fixture.seqs(0, &format!("needle-{i}-")).is_empty());
        fixture.revoke(0, i + 2);
        assert!(fixture.seqs(0, &format!("needle-{}-", i + 1)).is_empty());
    }
    // Also when only the log knows of the edits.
    fixture.stop();
    let marked: Vec<_> =
        fixture.segments().into_iter().map(|path| (path.clone(), fs::read(path).expect("read"))).collect();
    fixture.start();
    fixture.settle();
    fixture.edit(0, 20, "thimble");
    fixture.stop();
    marked.iter().for_each(|(path, bytes)| fs::write(path, bytes).expect("write"));
    fixture.start();
    assert_eq!(fixture.seqs(0, "thimble"), [20]);
    fixture.settle();
    assert_eq!(fixture.seqs(0, "thimble"), [20]);
}

#[test]
fn a_start_uses_what_is_there_and_makes_what_is_not() {
    let mut fixture = Fixture::new(2, small());
    fixture.send(0, numbered(1, 1_000));
    fixture.send(1, numbered(1, 63));
    fixture.settle();
    fixture.stop();
    fixture.start();
    fixture.settle();
    assert_eq!(fixture.index.stats().messages_indexed, 0, "everything was there");
    assert_eq!(fixture.seqs(0, "number 77 "), [77]);
    // Blocks that filled while nobody looked.
    fixture.stop();
    fixture.send(1, numbered(64, 2));
    fixture.start();
    fixture.settle();
    assert_eq!(fixture.index.stats().messages_indexed, 64);
    fixture.stop();
    fs::remove_dir_all(fixture.files()).expect("remove");
    fixture.start();
    fixture.settle();
    assert_eq!(fixture.index.stats().messages_indexed, 960 + 64);
    // Off: nothing stays, and searches read.
    fixture.stop();
    fixture.options.on = false;
    fixture.start();
    assert_eq!(fixture.seqs(0, "number 77 "), [77]);
    fixture.stop();
    assert!(fixture.segments().is_empty());
    assert_eq!(fixture.index.stats().units, 0);
}

#[test]
fn an_index_of_another_log_or_of_a_longer_one_is_not_used() {
    let mut fixture = Fixture::new(1, small());
    fixture.send(0, numbered(1, 200));
    fixture.settle();
    fixture.stop();
    let later = *fixture.model.mark.lock();
    // The log that the index knows ended later than this one does.
    let earlier = LogMark { version: Version::new(later.version.get() - 1), ..later };
    *fixture.model.mark.lock() = earlier;
    fixture.start();
    fixture.settle();
    assert_eq!(fixture.index.stats().messages_indexed, 192);
    fixture.stop();
    // It ends at the same version, with other bytes.
    *fixture.model.mark.lock() = LogMark { chain: [1; 16], ..earlier };
    fixture.start();
    fixture.settle();
    assert_eq!(fixture.index.stats().messages_indexed, 192);
}

#[test]
fn damage_found_by_a_search_is_made_again() {
    let mut fixture = Fixture::new(1, SearchOptions { gather: Duration::ZERO, ..SearchOptions::default() });
    fixture.send(0, numbered(1, 640));
    fixture.settle();
    fixture.stop();
    for path in fixture.segments() {
        let mut bytes = fs::read(&path).expect("read");
        // Bodies only: what the first windows' buckets hold.
        let (at, _) = (200..bytes.len() - 4)
            .map(|at| (at, u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])))
            .find(|(_, word)| *word == 0)
            .unwrap_or((400, 0));
        bytes[at + 1] ^= 0x40;
        fs::write(&path, bytes).expect("write");
    }
    fixture.start();
    fixture.settle();
    for i in 1..=640 {
        assert_eq!(fixture.seqs(0, &format!("number {i} ")), [i]);
    }
    fixture.settle();
    assert_eq!(fixture.index.stats().units, 3);
}

#[test]
fn replaced_units_are_swept_up() {
    let mut fixture = Fixture::new(1, small());
    for i in 0..128 {
        fixture.send(0, numbered(1 + i * 64, 64));
        fixture.settle();
    }
    let live = fixture.index.catalog.read().snapshot(0, 1, u64::MAX).units;
    assert_eq!(live.len(), 2);
    let live: u64 = live.iter().map(|unit| u64::from(unit.bytes)).sum();
    let started = Instant::now();
    loop {
        let on_disk: u64 = fixture.segments().iter().filter_map(|path| Some(fs::metadata(path).ok()?.len())).sum();
        // Live, as much waste again, and the file that is written to.
        if on_disk <= 2 * live + 3 * (64 << 10) {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{on_disk} bytes for {live}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert_eq!(fixture.seqs(0, "number 8000 "), [8_000]);
}

#[test]
fn many_edits_make_a_unit_again() {
    let mut fixture = Fixture::new(1, small());
    fixture.send(0, numbered(1, 512));
    fixture.settle();
    (1..=40).for_each(|seq| fixture.edit(0, seq, "changed"));
    let started = Instant::now();
    // Edits that come while a unit is read are kept although the unit may have them; so many never stay.
    while fixture.index.stats().edits >= 16 {
        assert!(started.elapsed() < Duration::from_secs(20), "{:?}", fixture.index.stats());
        std::thread::park_timeout(Duration::from_millis(1));
    }
    assert_eq!(fixture.seqs(0, "changed").len(), 40);
}

#[test]
fn long_texts_are_found_and_units_stay_small() {
    let mut fixture = Fixture::new(1, SearchOptions { gather: Duration::ZERO, ..SearchOptions::default() });
    let mut random = Random(9);
    let mut words = |count: u64| {
        let letters =
            |random: &mut Random| (0..6).map(|_| char::from(b'a' + random.below(26) as u8)).collect::<String>();
        (0..count).map(|_| letters(&mut random)).collect::<Vec<_>>().join(" ")
    };
    let texts: Vec<String> =
        (0..128).map(|i| format!("{} needle-{i}-", words(if i % 64 == 5 { 9_000 } else { 400 }))).collect();
    fixture.send(0, texts);
    fixture.settle();
    for i in [0, 5, 69, 127] {
        assert_eq!(fixture.seqs(0, &format!("needle-{i}-")), [i + 1]);
    }
}

#[test]
fn an_older_unit_never_stands_in_for_a_lost_one() {
    let waste_bytes_max = 1 << 30;
    let mut fixture = Fixture::new(1, SearchOptions { segment_bytes_max: 8 << 10, waste_bytes_max, ..small() });
    let first = |fixture: &Fixture| fixture.index.catalog.read().snapshot(0, 1, 1).units[0];
    fixture.send(0, numbered(1, 64));
    fixture.settle();
    let older = first(&fixture);
    // Others lie beside it, so that its file stays, and the newer one lies in another.
    let mut sent = 64;
    let fill = |fixture: &mut Fixture, sent: &mut u64, segment: u32| {
        let started = Instant::now();
        while *fixture.index.catalog.read().segments.keys().last().expect("a segment") <= segment {
            fixture.send(0, numbered(*sent + 1, 64));
            fixture.settle();
            *sent += 64;
            assert!(started.elapsed() < Duration::from_secs(20) && *sent < 512, "{sent}");
        }
    };
    fill(&mut fixture, &mut sent, older.segment);
    (1..=2).for_each(|seq| fixture.edit(0, seq, "an apple"));
    let started = Instant::now();
    while first(&fixture).segment == older.segment {
        assert!(started.elapsed() < Duration::from_secs(20));
        std::thread::park_timeout(Duration::from_millis(1));
    }
    let newer = first(&fixture).segment;
    fill(&mut fixture, &mut sent, newer);
    fixture.stop();
    assert!(fixture.files().join(format!("{:08}.seg", older.segment)).exists());
    fs::remove_file(fixture.files().join(format!("{newer:08}.seg"))).expect("remove");
    fixture.start();
    assert_eq!(fixture.seqs(0, "an apple"), [2, 1]);
    fixture.settle();
    assert_eq!(fixture.seqs(0, "an apple"), [2, 1]);
}
