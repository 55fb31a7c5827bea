//! The durable store: the log is the truth, the view is the database over it.
//!
//! Owns the data directory (its lock and its format number), the order of log and view in a commit, when checkpoints happen,
//! and what a start does. Refuses to know how either lies on disk.
//!
//! Invariants:
//! - **log-first**: a record is applied to the view only after the lot that holds it is on disk.
//! - **all-or-nothing**: a commit that fails leaves no trace in the view. When applying fails after the lot is on disk, the
//!   lot is durable and the store refuses reads and commits until the view is replaced (`renew`), which replays it.
//! - **resumes**: what a failing disk stopped goes on when the disk does, without a restart: the log by a new segment, the
//!   view by being replaced. The keeper's thread tries, ever more slowly; every commit tries the log, too.
//! - **one-owner**: one process has a data directory open.
//!
//! ```text
//! DATA/format   number of the format, text
//! DATA/lock     locked while open
//! DATA/log/     segments and watermark
//! DATA/view/    sled; view.bad-N: set aside by a start that rebuilt it; view.next: one being made while the server runs
//! DATA/search/  the search index, made again whenever it cannot be used
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use protocol::ids::{ChannelKey, ClientMsgNo, DeviceFlag, FileId, Uid, Version};

use self::directory::DataDirectory;
use self::health::{Health, Part, Waiting};
use self::lot::check_lot;
use super::log::seam::FileFaults;
use super::log::{self, Log, LogMark, LogOptions, LogReader, LotEntry};
use super::search::{self, SearchIndex, SearchOptions, SearchStats};
use super::view::{self, Verified, View};
use super::{
    ApiKey, ChannelInfo, ChannelNo, Commit, CredentialHash, Logged, MessageChanges, Probe, ReadCounts, Result,
    SeqRange, Store, StoreError, StoreHealth, StoreStats, VersionStanding,
};
use crate::clock;
use crate::domain::channel::{ChannelList, ChannelProfile, Listing, Membership};
use crate::domain::conversation::{ConversationState, LastOwn};
use crate::domain::file::{ContentHash, FileInfo};
use crate::domain::message::{Digest, Message};
use crate::domain::refusal::ErrorKind;
use crate::domain::user::{Relation, UserSettings};

mod directory;
mod health;
mod lot;
mod renew;

/// How long nothing is committed before the log's watermark is synced (store.md section 2).
const WATERMARK_IDLE: Duration = Duration::from_secs(1);
/// How often the thread of checkpoints looks.
const TICK: Duration = Duration::from_millis(250);
/// A log this many times longer than a checkpoint should leave it makes commits wait for the checkpoint.
const BACKLOG_TIMES: u64 = 4;
/// A write that takes longer than this is told to the operator.
const WAIT_LONG: Duration = Duration::from_secs(5);
/// How long the keeper waits for a lot that is being written.
const WATERMARK_WAIT: Duration = Duration::from_millis(500);

/// Where and how large.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// The data directory; made when absent.
    pub data_dir: PathBuf,
    /// Bytes of memory for owners of the view that have no changes. Default 256 MiB.
    pub cache_bytes_max: u64,
    /// Bytes of memory sled may use for its pages. Default 128 MiB.
    pub view_cache_bytes: u64,
    /// A checkpoint begins once this much log is not covered by one. Default 32 MiB.
    pub checkpoint_log_bytes_max: u64,
    /// A checkpoint begins when changes are this old. Default 10 s.
    pub checkpoint_interval: Duration,
    /// A segment of the log never grows beyond this. Default 256 MiB.
    pub segment_bytes_max: u32,
    /// What makes operations fail, in tests.
    #[doc(hidden)]
    pub faults: Option<Arc<dyn FileFaults>>,
    /// The search index.
    pub search: SearchOptions,
}

impl StoreOptions {
    /// The defaults in a directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cache_bytes_max: 256 << 20,
            view_cache_bytes: 128 << 20,
            checkpoint_log_bytes_max: 32 << 20,
            checkpoint_interval: Duration::from_secs(10),
            segment_bytes_max: LogOptions::default().segment_bytes_max,
            faults: None,
            search: SearchOptions::default(),
        }
    }
}

/// What a start found and did.
#[derive(Debug, Clone, Default)]
pub struct OpenReport {
    /// What the log says.
    pub log: log::OpenReport,
    /// Why the view was made anew from the log, when it was; `None` at the first start, too.
    pub view_rebuilt: Option<String>,
    /// Where the unusable view lies now.
    pub view_set_aside: Option<PathBuf>,
    /// Records replayed from the log into the view.
    pub records_replayed: u64,
    /// Damaged messages met in the replay: holes.
    pub holes: u64,
    /// Milliseconds spent verifying the view, opening and checking the log, and replaying.
    pub view_ms: u64,
    /// See `view_ms`.
    pub log_ms: u64,
    /// See `view_ms`.
    pub replay_ms: u64,
}

/// The store of a server. Dropping it takes a last checkpoint and closes the log.
#[derive(Debug)]
pub struct DurableStore {
    inner: Arc<Inner>,
    keeper: Option<JoinHandle<()>>,
    indexer: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Inner {
    options: StoreOptions,
    /// Replaced as a whole when it can no longer be used.
    view: RwLock<Arc<View>>,
    /// Replaced views that may still be read.
    retired: Mutex<Vec<Arc<View>>>,
    health: Health,
    reader: LogReader,
    search: SearchIndex,
    writer: Mutex<Writer>,
    /// Version of the last record that reads see.
    version: AtomicU64,
    /// The prefix of the log that is applied to the view.
    applied: Mutex<LogMark>,
    /// Bytes of the log when the last checkpoint began.
    covered_bytes: AtomicU64,
    /// Applying failed: memory is behind the log.
    broken: AtomicBool,
    /// A test ended the store as a crash would.
    abandoned: AtomicBool,
    /// The commit that is going on: milliseconds from `opened` on, plus one; 0: none.
    writing_since: AtomicU64,
    opened: Instant,
    /// The last lot could not be written; kept apart from `health`, whose lock the writing path does without.
    log_fails: AtomicBool,
    lots_failed: AtomicU64,
    renewals: AtomicU64,
    lots: AtomicU64,
    checkpoints: AtomicU64,
    signal: Mutex<Signal>,
    wake: Condvar,
    /// One checkpoint at a time.
    checkpointing: Mutex<()>,
    /// Its lock is held as long as the store is open.
    directory: DataDirectory,
}

#[derive(Debug)]
struct Writer {
    /// `None` once closed.
    log: Option<Log>,
}

#[derive(Debug, Default)]
struct Signal {
    stop: bool,
    checkpoint_wanted: bool,
}

/// What the clock says, Unix microseconds, unless a test says something else.
fn now_us(faults: Option<&Arc<dyn FileFaults>>) -> u64 {
    faults.and_then(|faults| faults.clock_us()).unwrap_or_else(clock::now_us)
}

fn unavailable(operation: &'static str, detail: impl std::fmt::Display) -> StoreError {
    StoreError { operation, kind: ErrorKind::Unavailable, detail: detail.to_string(), source: None }
}

fn ms_since(start: Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Says why a view cannot be used and moves it out of the way.
fn give_up_view(path: &Path, why: &str, report: &mut OpenReport) -> Result<()> {
    let aside = view::set_aside(path)?;
    tracing::warn!(why, set_aside = %aside.display(), "the view is made anew from the log");
    report.view_rebuilt = Some(why.to_owned());
    report.view_set_aside = Some(aside);
    Ok(())
}

/// The error and its causes, for a line of the log.
fn chain_of(error: &StoreError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl DurableStore {
    /// Opens or creates the store in a data directory: locks it, verifies the view, opens the log, replays what the view
    /// lacks. A view that cannot be used is set aside and made anew.
    ///
    /// # Errors
    /// `Conflict`: in use, or written by a newer build. `Internal`: the log is damaged; the text names the finding.
    /// `Unavailable`: I/O.
    pub fn open(options: StoreOptions) -> Result<(Self, OpenReport)> {
        let directory = DataDirectory::open(&options.data_dir, options.faults.clone())?;
        let log_dir = options.data_dir.join("log");
        directory.check_log(&log_dir)?;
        renew::sweep(&options.data_dir)?;
        let mut report = OpenReport::default();

        let start = Instant::now();
        let view_dir = view::directory(&options.data_dir);
        let mut verified = match view::open_verified(&view_dir, options.view_cache_bytes, options.faults.clone()) {
            Ok(verified) => verified,
            Err(error) if error.kind() == ErrorKind::Conflict => return Err(error),
            Err(error) => {
                give_up_view(&view_dir, &chain_of(&error), &mut report)?;
                None
            }
        };
        report.view_ms = ms_since(start);

        let start = Instant::now();
        let known = verified.as_ref().map(Verified::mark);
        let log_options = LogOptions { segment_bytes_max: options.segment_bytes_max, faults: options.faults.clone() };
        let (log, log_report) = Log::open(&log_dir, log_options, known.as_ref())?;
        directory.settle()?;
        report.log = log_report;
        report.log_ms = ms_since(start);
        let end = log.end();
        if verified.as_ref().is_some_and(|verified| verified.mark().log_id != end.log_id) {
            drop(verified.take());
            give_up_view(&view_dir, "it belongs to another log", &mut report)?;
        }

        let start = Instant::now();
        let reader = log.reader();
        let verified = match verified {
            Some(verified) => verified,
            None => make_view(&view_dir, end, &options)?,
        };
        let from = verified.mark();
        let view = View::new(verified, reader.clone(), options.cache_bytes_max);
        // The lots behind a damaged last one tell its digest; the log's own mark is the one to trust.
        replay(&view, &reader, from, &options, &mut report)?;
        if from.position != end.position || known.is_none() {
            // A view that was just built, or a long replay, need not be done again.
            let long = report.records_replayed > 100_000;
            if known.is_none() || long {
                view.checkpoint(Some(end))?;
            }
        }
        report.replay_ms = ms_since(start);

        let covered = if view.dirty_count() == 0 { reader.bytes() } else { reader.bytes().saturating_sub(1) };
        let inner = Arc::new(Inner {
            search: SearchIndex::new(search::directory(&options.data_dir), options.search, end),
            options,
            view: RwLock::new(Arc::new(view)),
            retired: Mutex::default(),
            health: Health::default(),
            reader,
            writer: Mutex::new(Writer { log: Some(log) }),
            version: AtomicU64::new(end.version.get()),
            applied: Mutex::new(end),
            covered_bytes: AtomicU64::new(covered),
            broken: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            writing_since: AtomicU64::new(0),
            opened: Instant::now(),
            log_fails: AtomicBool::new(false),
            lots_failed: AtomicU64::new(0),
            renewals: AtomicU64::new(0),
            lots: AtomicU64::new(0),
            checkpoints: AtomicU64::new(0),
            signal: Mutex::default(),
            wake: Condvar::new(),
            checkpointing: Mutex::new(()),
            directory,
        });
        let keeper = {
            let inner = Arc::clone(&inner);
            std::thread::Builder::new()
                .name("store-keeper".to_owned())
                .spawn(move || inner.keep())
                .map_err(|e| StoreError::io("start thread", "store-keeper", e))?
        };
        let indexer = {
            let inner = Arc::clone(&inner);
            std::thread::Builder::new()
                .name("store-search".to_owned())
                .spawn(move || inner.search.run(&*inner))
                .map_err(|e| StoreError::io("start thread", "store-search", e))
        };
        let mut store = Self { inner, keeper: Some(keeper), indexer: None };
        store.indexer = Some(indexer?);
        Ok((store, report))
    }

    /// Figures of the search index.
    #[must_use]
    pub fn search_stats(&self) -> SearchStats {
        self.inner.search.stats()
    }

    fn stop(&mut self) {
        self.inner.signal.lock().stop = true;
        self.inner.wake.notify_all();
        self.inner.search.stop();
        if let Some(indexer) = self.indexer.take()
            && indexer.join().is_err()
        {
            tracing::error!("the search index's thread has panicked");
        }
        if let Some(keeper) = self.keeper.take()
            && keeper.join().is_err()
        {
            tracing::error!("the checkpoint thread has panicked");
        }
    }

    /// Closes the store as a crash would: no checkpoint, no clean end. For tests.
    #[doc(hidden)]
    pub fn abandon(mut self) {
        self.stop();
        self.inner.abandoned.store(true, Ordering::Release);
    }
}

impl Drop for DurableStore {
    fn drop(&mut self) {
        self.stop();
        if self.inner.abandoned.load(Ordering::Acquire) {
            return;
        }
        if !self.inner.broken.load(Ordering::Acquire)
            && let Err(error) = self.inner.checkpoint()
        {
            tracing::error!(error = chain_of(&error), "the last checkpoint failed, the next start replays the log");
        }
        if let Some(log) = self.inner.writer.lock().log.take()
            && let Err(error) = log.close()
        {
            tracing::error!(error = chain_of(&error), "the log did not close cleanly, the next start checks it");
        }
    }
}

/// Makes an empty view; half of one is worth nothing.
fn make_view(path: &Path, end: LogMark, options: &StoreOptions) -> Result<Verified> {
    let made = Verified::create(path, end, options.view_cache_bytes, options.faults.clone());
    if made.is_err() {
        let _ = std::fs::remove_dir_all(path);
    }
    made
}

/// Applies everything behind `from` to the view, and returns what is applied then.
fn replay(
    view: &View,
    reader: &LogReader,
    from: LogMark,
    options: &StoreOptions,
    report: &mut OpenReport,
) -> Result<LogMark> {
    let mut applied = from;
    view.set_replaying(true);
    let mut bytes_at_checkpoint = 0u64;
    let mut bytes = 0u64;
    for lot in reader.scan(from.position) {
        let lot = lot?;
        for entry in &lot.records {
            match entry {
                LotEntry::Record { version, place, record } => view.apply(*version, *place, record)?,
                LotEntry::DamagedMessage { version, place, channel, seq } => {
                    tracing::error!(
                        channel.number = channel.0,
                        message_seq = seq,
                        "message is damaged, it is a hole now"
                    );
                    report.holes += 1;
                    view.apply_hole(*version, *place, *channel, *seq)?;
                }
            }
        }
        report.records_replayed += lot.records.len() as u64;
        applied = LogMark { log_id: from.log_id, position: lot.end, version: lot.last_version, chain: lot.chain };
        bytes += u64::from(lot.end.offset.saturating_sub(lot.position.offset));
        // A rebuild of a large log must not gather all of it in memory. The mark stays: a crash begins again.
        if bytes - bytes_at_checkpoint > options.checkpoint_log_bytes_max.max(1 << 20) * 2 {
            view.checkpoint(None)?;
            bytes_at_checkpoint = bytes;
        }
    }
    view.set_replaying(false);
    Ok(applied)
}

impl Inner {
    fn view(&self) -> Arc<View> {
        Arc::clone(&self.view.read())
    }

    /// Asks the view. A row that is not what was written makes the view be verified, and made again from the log.
    fn read<T>(&self, question: impl FnOnce(&View) -> Result<T>) -> Result<T> {
        self.check_usable()?;
        question(&self.view()).inspect_err(|error| self.suspect(error))
    }

    /// A row that is not what was written makes the view be verified.
    fn suspect(&self, error: &StoreError) {
        if view::is_damage(error) {
            self.health.went_wrong(Part::View, error);
        }
    }

    fn check_usable(&self) -> Result<()> {
        if self.broken.load(Ordering::Acquire) {
            return Err(unavailable("use store", "a stored lot could not be applied; the view is being made again"));
        }
        Ok(())
    }

    fn commit(&self, lot: &[Commit], sealed: &mut dyn FnMut(&[Version])) -> Result<Vec<Version>> {
        self.check_usable()?;
        // Also what it waits for before its own write: a checkpoint, the watermark.
        let _waiting = Waiting::begin(&self.writing_since, ms_since(self.opened) + 1);
        self.make_room()?;
        let mut writer = self.writer.lock();
        let Some(log) = writer.log.as_mut() else { return Err(unavailable("commit", "the store is closed")) };
        // Whoever replaced the view did it before this lock was taken.
        self.check_usable()?;
        let view = self.view();
        check_lot(&view, lot).inspect_err(|error| self.suspect(error))?;
        // The version after a break lies above it.
        let now_us = now_us(self.options.faults.as_ref());
        let written = log.seal(lot, now_us.max(view.break_end().saturating_add(1)));
        sealed(&written.versions);
        let outcome = log.write(&written);
        let mark = match outcome {
            Ok(mark) => mark,
            Err(error) => {
                self.lots_failed.fetch_add(1, Ordering::Relaxed);
                if error.kind() == ErrorKind::Unavailable {
                    self.log_fails.store(true, Ordering::Relaxed);
                    self.health.went_wrong(Part::Log, &error);
                }
                return Err(error);
            }
        };
        if self.log_fails.swap(false, Ordering::Relaxed) {
            self.health.is_well(Part::Log);
        }
        let mut places = written.places.iter();
        for (commit, first) in lot.iter().zip(&written.versions) {
            for (step, record) in (0..).zip(&commit.records) {
                let Some(place) = places.next() else { continue };
                if let Err(error) = view.apply(first.plus(step), *place, record) {
                    self.broken.store(true, Ordering::Release);
                    self.health.went_wrong(Part::View, &error);
                    return Ok(written.versions);
                }
            }
        }
        #[cfg(feature = "seeded-bugs")]
        let written = seeded_version(written, self.applied.lock().version);
        // Before the mark: whoever reads it knows that the index was told of everything up to it.
        self.search.committed(lot, &written.versions);
        *self.applied.lock() = mark;
        self.version.store(mark.version.get(), Ordering::Release);
        self.lots.fetch_add(1, Ordering::Relaxed);
        drop(writer);
        if self.uncovered() >= self.options.checkpoint_log_bytes_max || view.is_crowded(1.25) {
            let mut signal = self.signal.lock();
            if !signal.checkpoint_wanted {
                signal.checkpoint_wanted = true;
                self.wake.notify_all();
            }
        }
        Ok(written.versions)
    }

    fn uncovered(&self) -> u64 {
        self.reader.bytes().saturating_sub(self.covered_bytes.load(Ordering::Relaxed))
    }

    /// Memory holds what no checkpoint has taken, so a log far ahead waits for one, as does a memory too full of changed
    /// rows; after a failed one it is refused.
    fn make_room(&self) -> Result<()> {
        if self.view().has_failed() {
            return Err(unavailable("commit", "the view could not be written; it is being replaced"));
        }
        let far_ahead = self.uncovered() > BACKLOG_TIMES * self.options.checkpoint_log_bytes_max;
        if far_ahead || self.view().is_crowded(2.0) {
            self.checkpoint()?;
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<()> {
        let _one = self.checkpointing.lock();
        let view = self.view();
        if view.has_failed() {
            return Err(unavailable("checkpoint", "an earlier one failed; the view is being replaced"));
        }
        let bytes = self.reader.bytes();
        let mark = *self.applied.lock();
        if view.dirty_count() > 0 || bytes > self.covered_bytes.load(Ordering::Relaxed) {
            if let Err(error) = view.checkpoint(Some(mark)) {
                self.health.went_wrong(Part::View, &error);
                return Err(error);
            }
            self.covered_bytes.store(bytes, Ordering::Relaxed);
            self.checkpoints.fetch_add(1, Ordering::Relaxed);
        }
        self.sync_watermark();
        Ok(())
    }

    /// The watermark only protects what is durable already, so it waits for no slow write, and says itself what fails.
    fn sync_watermark(&self) {
        if let Some(mut writer) = self.writer.try_lock_for(WATERMARK_WAIT)
            && let Some(log) = writer.log.as_mut()
            && let Err(error) = log.sync_watermark()
        {
            tracing::debug!(error = chain_of(&error), "the watermark was not synced");
        }
    }

    /// The keeper's thread: checkpoints when they are due, the watermark when nothing happens, and what a failing disk has
    /// stopped.
    fn keep(&self) {
        let mut last_checkpoint = Instant::now();
        let mut seen = (self.version.load(Ordering::Acquire), Instant::now());
        let mut watermark = seen.0;
        loop {
            let wanted = {
                let mut signal = self.signal.lock();
                if !signal.stop && !signal.checkpoint_wanted {
                    self.wake.wait_for(&mut signal, TICK);
                }
                if signal.stop {
                    return;
                }
                std::mem::take(&mut signal.checkpoint_wanted)
            };
            self.recover();
            let view = self.view();
            let due = last_checkpoint.elapsed() >= self.options.checkpoint_interval && view.dirty_count() > 0;
            if (wanted || due) && !view.has_failed() && !self.broken.load(Ordering::Acquire) {
                if let Err(error) = self.checkpoint() {
                    tracing::debug!(error = chain_of(&error), "checkpoint failed");
                }
                last_checkpoint = Instant::now();
            }
            drop(view);
            let version = self.version.load(Ordering::Acquire);
            if version != seen.0 {
                seen = (version, Instant::now());
            } else if version != watermark && seen.1.elapsed() >= WATERMARK_IDLE {
                watermark = version;
                self.sync_watermark();
            }
        }
    }

    /// Tries to put right what is wrong, when it is time to.
    fn recover(&self) {
        self.retire();
        self.note_wait();
        if self.health.is_try_due(Part::Log)
            && let Some(mut writer) = self.writer.try_lock_for(WATERMARK_WAIT)
            && let Some(log) = writer.log.as_mut()
        {
            match log.resume() {
                Ok(()) => {
                    self.log_fails.store(false, Ordering::Relaxed);
                    self.health.is_well(Part::Log);
                }
                Err(error) => self.health.went_wrong(Part::Log, &error),
            }
        }
        if self.health.is_try_due(Part::View) {
            match self.try_renew() {
                Ok(()) => self.health.is_well(Part::View),
                Err(error) => self.health.went_wrong(Part::View, &error),
            }
        }
    }

    /// Says that a lot waits for long, or that none does any more. Whoever asks for the health says it too: the keeper may be
    /// at the same slow disk.
    fn note_wait(&self) {
        if self.write_wait() >= WAIT_LONG {
            let why = format!("a lot has waited for longer than {} s", WAIT_LONG.as_secs());
            self.health.note(Part::Wait, why, "a lot is being written");
        } else {
            self.health.is_well(Part::Wait);
        }
    }

    /// How long the lot that is being committed has waited.
    fn write_wait(&self) -> Duration {
        match self.writing_since.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => Duration::from_millis(ms_since(self.opened).saturating_sub(since - 1)),
        }
    }
}

/// The lot's first change seems to be of the version of the one before.
#[cfg(feature = "seeded-bugs")]
fn seeded_version(mut written: log::SealedLot, before: Version) -> log::SealedLot {
    if crate::seeded::now_and_then(crate::seeded::Bug::ReuseVersion) {
        written.versions[0] = before;
    }
    written
}

impl Store for DurableStore {
    fn commit(&self, lot: &[Commit], sealed: &mut dyn FnMut(&[Version])) -> Result<Vec<Version>> {
        self.inner.commit(lot, sealed)
    }

    fn version(&self) -> Version {
        Version::new(self.inner.version.load(Ordering::Acquire))
    }

    fn version_standing(&self, version: Version) -> VersionStanding {
        self.inner.view().version_standing(version, self.version())
    }

    fn reserve_channel_no(&self) -> ChannelNo {
        self.inner.view().reserve_channel_no()
    }

    fn channel_no(&self, key: &ChannelKey) -> Result<Option<ChannelNo>> {
        self.inner.read(|view| view.channel_no(key))
    }

    fn channel(&self, channel: ChannelNo) -> Result<Option<ChannelInfo>> {
        self.inner.read(|view| view.channel(channel))
    }

    fn alias(&self, alias: &str) -> Result<Option<ChannelNo>> {
        self.inner.read(|view| view.alias(alias))
    }

    fn membership(&self, channel: ChannelNo, uid: &Uid) -> Result<Option<Membership>> {
        self.inner.read(|view| view.membership(channel, uid))
    }

    fn members(&self, channel: ChannelNo) -> Result<Vec<Uid>> {
        self.inner.read(|view| view.members(channel))
    }

    fn listing(&self, channel: ChannelNo, uid: &Uid) -> Result<Listing> {
        self.inner.read(|view| view.listing(channel, uid))
    }

    fn listed(&self, channel: ChannelNo, list: ChannelList) -> Result<Vec<Uid>> {
        self.inner.read(|view| view.listed(channel, list))
    }

    fn commands_after(&self, channel: ChannelNo, floor: u64, max: usize) -> Result<Vec<u64>> {
        self.inner.read(|view| view.commands_after(channel, floor, max))
    }

    fn commands_read(&self, uid: &Uid) -> Result<(u64, Version)> {
        self.inner.read(|view| view.commands_read(uid))
    }

    fn is_system_user(&self, uid: &Uid) -> bool {
        self.inner.view().is_system_user(uid)
    }

    fn system_users(&self) -> Vec<Uid> {
        self.inner.view().system_users()
    }

    fn is_address_blocked(&self, address: std::net::IpAddr) -> bool {
        self.inner.view().is_address_blocked(address)
    }

    fn blocked_addresses(&self) -> Vec<std::net::IpAddr> {
        self.inner.view().blocked_addresses()
    }

    fn digest(&self, channel: ChannelNo, seq: u64) -> Result<Option<Digest>> {
        self.inner.read(|view| view.digest(channel, seq))
    }

    fn probe(&self, channel: ChannelNo, fingerprint: u64) -> Probe {
        self.inner.view().probe(channel, fingerprint)
    }

    fn warm(&self, channel: ChannelNo) -> Result<()> {
        self.inner.read(|view| view.warm(channel))
    }

    fn message_by_client_msg_no(
        &self,
        channel: ChannelNo,
        from_uid: &Uid,
        client_msg_no: &ClientMsgNo,
    ) -> Result<Option<Message>> {
        self.inner.read(|view| view.message_by_client_msg_no(channel, from_uid, client_msg_no))
    }

    fn messages(&self, channel: ChannelNo, range: SeqRange) -> Result<Vec<Message>> {
        self.inner.read(|view| view.messages(channel, range))
    }

    fn memberships(&self, channel: ChannelNo) -> Result<Vec<(Uid, Membership)>> {
        self.inner.read(|view| view.memberships(channel))
    }

    fn profile(&self, channel: ChannelNo) -> Result<Option<ChannelProfile>> {
        self.inner.read(|view| view.profile(channel))
    }

    fn message_changes(&self, channel: ChannelNo, since: Version, max: usize) -> Result<MessageChanges> {
        self.inner.read(|view| view.message_changes(channel, since, max))
    }

    fn search(&self, channel: ChannelNo, query: &super::SearchQuery) -> Result<super::SearchFound> {
        self.inner.check_usable()?;
        self.inner.search.search(&*self.inner, channel, query)
    }
    fn mentions_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<u64> {
        self.inner.read(|view| view.mentions_after(channel, uid, floor))
    }

    fn user_settings(&self, uid: &Uid) -> Result<UserSettings> {
        self.inner.read(|view| view.user_settings(uid))
    }

    fn relation(&self, uid: &Uid, peer: &Uid) -> Result<Relation> {
        self.inner.read(|view| view.relation(uid, peer))
    }

    fn relations(&self, uid: &Uid) -> Result<Vec<(Uid, Relation)>> {
        self.inner.read(|view| view.relations(uid))
    }

    fn file(&self, file_id: &FileId) -> Result<Option<FileInfo>> {
        self.inner.read(|view| view.file(file_id))
    }

    fn file_references(&self, file_id: &FileId, max: usize) -> Result<Vec<(ChannelNo, u64)>> {
        self.inner.read(|view| view.file_references(file_id, max))
    }

    fn unused_files(&self, before: Version, max: usize) -> Result<Vec<FileInfo>> {
        self.inner.read(|view| view.unused_files(before, max))
    }

    fn has_content(&self, content: &ContentHash) -> Result<bool> {
        self.inner.read(|view| view.has_content(content))
    }

    fn message_by_id(&self, message_id: Version) -> Result<Option<Message>> {
        self.inner.read(|view| view.message_by_id(message_id))
    }

    fn logged_after(&self, after: Version, max: usize) -> Result<Logged> {
        self.inner.check_usable()?;
        self.inner.reader.messages_after(after, self.version(), max)
    }

    fn countable_after(&self, channel: ChannelNo, uid: &Uid, floor: u64) -> Result<(u64, u64)> {
        self.inner.read(|view| view.countable_after(channel, uid, floor))
    }

    fn position_for_unread(
        &self,
        channel: ChannelNo,
        uid: &Uid,
        unread: u64,
        floor_min: u64,
    ) -> Result<(u64, u64, u64)> {
        self.inner.read(|view| view.position_for_unread(channel, uid, unread, floor_min))
    }

    fn last_own(&self, channel: ChannelNo, uid: &Uid) -> Result<LastOwn> {
        self.inner.read(|view| view.last_own(channel, uid))
    }

    fn conversation_state(&self, channel: ChannelNo, uid: &Uid) -> Result<Option<ConversationState>> {
        self.inner.read(|view| view.conversation_state(channel, uid))
    }

    fn channels_of(&self, uid: &Uid) -> Result<Vec<ChannelNo>> {
        self.inner.read(|view| view.channels_of(uid))
    }

    fn group_channels_of(&self, uid: &Uid) -> Result<Vec<ChannelNo>> {
        self.inner.read(|view| view.group_channels_of(uid))
    }

    fn channel_count_of(&self, uid: &Uid) -> Result<u64> {
        self.inner.read(|view| view.channel_count_of(uid))
    }

    fn own_changes(&self, uid: &Uid, since: Version) -> Result<Vec<ChannelNo>> {
        self.inner.read(|view| view.own_changes(uid, since))
    }

    fn changed_among(&self, of: &[ChannelNo], since: Version) -> Vec<ChannelNo> {
        self.inner.view().changed_among(of, since)
    }

    fn recently_changed(&self, since: Version, max: usize) -> Option<Vec<ChannelNo>> {
        self.inner.view().recently_changed(since, max)
    }

    fn user_known(&self, uid: &Uid) -> Result<bool> {
        self.inner.read(|view| view.user_known(uid))
    }

    fn token_owners(&self, token: &CredentialHash) -> Result<Vec<(Uid, DeviceFlag, u8)>> {
        self.inner.read(|view| view.token_owners(token))
    }

    fn api_key(&self, secret: &CredentialHash) -> Option<ApiKey> {
        self.inner.view().api_key(secret)
    }

    fn api_keys(&self) -> Vec<ApiKey> {
        self.inner.view().api_keys()
    }

    fn expiry_due(&self, now_ms: u64, max: usize) -> Result<Vec<(ChannelNo, Vec<u64>)>> {
        self.inner.read(|view| view.expiry_due(now_ms, max))
    }

    fn checkpoint(&self) -> Result<()> {
        self.inner.check_usable()?;
        self.inner.checkpoint()
    }

    fn read_counts(&self) -> ReadCounts {
        ReadCounts { view: self.inner.view().reads(), log: self.inner.reader.reads() }
    }

    fn stats(&self) -> StoreStats {
        StoreStats {
            channels: self.inner.view().channel_count(),
            log_bytes: self.inner.reader.bytes(),
            log_bytes_since_checkpoint: self.inner.uncovered(),
            dirty_rows: self.inner.view().dirty_count(),
            cache_bytes: self.inner.view().cache_bytes().0,
            cache_bytes_max: self.inner.view().cache_bytes().1,
            checkpoints: self.inner.checkpoints.load(Ordering::Relaxed),
            lots: self.inner.lots.load(Ordering::Relaxed),
            lots_failed: self.inner.lots_failed.load(Ordering::Relaxed),
            view_renewals: self.inner.renewals.load(Ordering::Relaxed),
            write_wait_ms: u64::try_from(self.inner.write_wait().as_millis()).unwrap_or(u64::MAX),
            unwritable: !self.health().writable,
        }
    }

    fn health(&self) -> StoreHealth {
        let readable = !self.inner.broken.load(Ordering::Acquire);
        self.inner.note_wait();
        self.inner.health.report(readable, readable && !self.inner.view().has_failed())
    }
}

mod searching;
#[cfg(test)]
mod tests;
