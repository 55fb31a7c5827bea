//! The search index: which blocks of messages may hold a text. Derived state, made behind the commit's back.
//!
//! Owns its directory (`files`), units of three-character windows (`grams`, `unit`), what of them is in memory (`catalog`),
//! the thread that makes them (`builder`) and searches (`query`). Refuses to decide what matches: every hit is verified on
//! the text as it is now. Knows the store only as a [`Source`].
//!
//! Invariants:
//! - **never-wrong**: a search looks at every message committed before it began: through a unit, through the list of
//!   messages edited since their unit was made, or by reading it. Damage, loss and lag of the index cost reads only.
//! - **off-the-ack-path**: a commit adds a channel's number to a queue when it fills a block, and its edits; nothing else.
//! - **bounded**: in memory about 32 bytes per unit and 24 per edit not yet taken up; a unit in the making at most
//!   `builder::PAIRS_MAX` pairs.
//!
//! Page: `docs/storage.md`; why so: `docs/decisions/0013-search-index.md`.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use foldhash::HashSet;
use parking_lot::{Condvar, Mutex, RwLock};
use protocol::ids::Version;

use self::catalog::{Catalog, Snapshot};
use self::files::Edit;
use self::grams::Grams;
use self::unit::{BLOCK_SEQS, UnitError, UnitRef};
use super::log::LogMark;
use super::{ChannelNo, Commit, Record, Result, SeqRange};
use crate::domain::message::Message;

mod builder;
mod catalog;
mod files;
mod grams;
mod query;
#[cfg(test)]
mod tests;
mod unit;

/// Edits that wait for the builder; more of them and the index is made anew, rather than grow without bound.
const EDITS_WAITING_MAX: usize = 1 << 20;

/// What the index reads the store through.
pub trait Source: Sync {
    /// Seq of the channel's last message; 0: none, or no channel.
    fn head_seq(&self, channel: ChannelNo) -> Result<u64>;
    /// As [`super::Store::messages`].
    fn messages(&self, channel: ChannelNo, range: SeqRange) -> Result<Vec<Message>>;
    /// Every record up to this mark is seen by reads, and [`SearchIndex::committed`] was told of it.
    fn mark(&self) -> LogMark;
    /// Channels that changed after `since`; zero: all with a message.
    fn changed_after(&self, since: Version) -> Result<Vec<ChannelNo>>;
    /// Tells every edit behind a mark up to `until`: (channel, seq, version).
    ///
    /// # Errors
    /// The mark is none of this log, or what lies behind it cannot be read.
    fn edits_after(&self, mark: &LogMark, until: Version, tell: &mut dyn FnMut(ChannelNo, u64, Version)) -> Result<()>;
}

/// How large, and whether at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SearchOptions {
    /// Without it nothing is indexed, and what was is removed: a search reads texts.
    pub on: bool,
    /// A file of the index never grows beyond this. Default 64 MiB.
    pub segment_bytes_max: u64,
    /// Replaced units are swept up once there are this many bytes of them, and more than of live ones. Default 32 MiB.
    pub waste_bytes_max: u64,
    /// How long the builder lets full blocks gather: a few at once make a larger unit directly. Default 50 ms.
    pub gather: Duration,
}

impl Default for SearchOptions {
    fn default() -> Self {
        Self { on: true, segment_bytes_max: 64 << 20, waste_bytes_max: 32 << 20, gather: Duration::from_millis(50) }
    }
}

/// Figures of the index.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SearchStats {
    /// What is on disk is known and in use.
    pub ready: bool,
    /// Units in use.
    pub units: u64,
    /// Messages edited since their unit was made.
    pub edits: u64,
    /// Channels with full blocks that no unit covers yet.
    pub channels_waiting: u64,
    /// How long the one that has waited longest has.
    pub lag: Duration,
    /// The longest wait since the last call of [`SearchIndex::stats`].
    pub lag_max: Duration,
    /// Messages read for units since open.
    pub messages_indexed: u64,
    /// Units found damaged since open.
    pub damaged: u64,
}

/// What waits for the builder.
#[derive(Debug, Default)]
struct Inbox {
    /// Channels with a block that filled, and when.
    full: VecDeque<(u32, Instant)>,
    queued: HashSet<u32>,
    edits: Vec<Edit>,
    /// Edits were lost: the index cannot be trusted any more.
    overflowed: bool,
    stop: bool,
}

impl Inbox {
    fn push_full(&mut self, channel: u32) {
        if self.queued.insert(channel) {
            self.full.push_back((channel, Instant::now()));
        }
    }
}

/// See the module's head.
#[derive(Debug)]
pub struct SearchIndex {
    options: SearchOptions,
    dir: PathBuf,
    grams: Grams,
    /// The log's end when the store was opened: nothing of the index can be newer.
    opened_at: LogMark,
    catalog: RwLock<Catalog>,
    /// The catalog holds what is on disk.
    ready: AtomicBool,
    inbox: Mutex<Inbox>,
    wake: Condvar,
    /// Channels taken from the inbox that are not done.
    in_work: AtomicU64,
    lag_max_us: AtomicU64,
    messages_indexed: AtomicU64,
    damaged: AtomicU64,
}

/// Where the index lies in a data directory.
pub fn directory(data_dir: &Path) -> PathBuf {
    data_dir.join("search")
}

impl SearchIndex {
    /// The index of a log that ends at `end`; reads nothing yet. Units are used once [`SearchIndex::run`] has read them.
    #[must_use]
    pub fn new(dir: PathBuf, options: SearchOptions, end: LogMark) -> Self {
        Self {
            options,
            dir,
            grams: Grams::new(&end.log_id),
            opened_at: end,
            catalog: RwLock::default(),
            ready: AtomicBool::new(false),
            inbox: Mutex::default(),
            wake: Condvar::new(),
            in_work: AtomicU64::new(0),
            lag_max_us: AtomicU64::new(0),
            messages_indexed: AtomicU64::new(0),
            damaged: AtomicU64::new(0),
        }
    }

    /// Told of every lot once its records are seen by reads and before its commit returns. `versions`: of the first record
    /// of each commit.
    pub fn committed(&self, lot: &[Commit], versions: &[Version]) {
        if !self.options.on {
            return;
        }
        let mut inbox = None;
        for (commit, first) in lot.iter().zip(versions) {
            for (step, record) in (0..).zip(&commit.records) {
                match record {
                    Record::Message(message) if message.message_seq.get().is_multiple_of(BLOCK_SEQS) => {
                        inbox.get_or_insert_with(|| self.inbox.lock()).push_full(message.channel.0);
                    }
                    Record::MessageEdited { channel, seq, .. } => {
                        let inbox = inbox.get_or_insert_with(|| self.inbox.lock());
                        if inbox.edits.len() < EDITS_WAITING_MAX {
                            inbox.edits.push((channel.0, *seq, first.plus(step).get()));
                        } else {
                            inbox.overflowed = true;
                        }
                    }
                    _ => {}
                }
            }
        }
        if inbox.is_some() {
            self.wake.notify_one();
        }
    }

    /// Lets [`SearchIndex::run`] return soon.
    pub fn stop(&self) {
        self.inbox.lock().stop = true;
        self.wake.notify_all();
    }

    /// Figures.
    #[must_use]
    pub fn stats(&self) -> SearchStats {
        let (waiting, oldest) = {
            let inbox = self.inbox.lock();
            (inbox.full.len() as u64, inbox.full.front().map(|(_, since)| since.elapsed()))
        };
        let catalog = self.catalog.read();
        let lag = oldest.unwrap_or_default();
        SearchStats {
            ready: self.ready.load(Ordering::Acquire),
            units: catalog.units(),
            edits: catalog.edits(),
            channels_waiting: waiting + self.in_work.load(Ordering::Relaxed),
            lag,
            lag_max: lag.max(Duration::from_micros(self.lag_max_us.swap(0, Ordering::Relaxed))),
            messages_indexed: self.messages_indexed.load(Ordering::Relaxed),
            damaged: self.damaged.load(Ordering::Relaxed),
        }
    }

    /// The channel as searches see it. An edit on its way from the inbox to the catalog is met in one of them: the inbox
    /// is read first, and emptied only with the catalog locked.
    fn snapshot(&self, channel: ChannelNo, first: u64, last: u64) -> Snapshot {
        let fresh: Vec<u64> = {
            let inbox = self.inbox.lock();
            if inbox.overflowed {
                return Snapshot::default();
            }
            inbox.edits.iter().filter(|edit| edit.0 == channel.0).map(|edit| edit.1).collect()
        };
        let catalog = self.catalog.read();
        if !self.ready.load(Ordering::Acquire) {
            return Snapshot::default();
        }
        let mut snapshot = catalog.snapshot(channel.0, first, last);
        drop(catalog);
        if !fresh.is_empty() {
            snapshot.edited.extend(fresh);
            snapshot.edited.sort_unstable();
            snapshot.edited.dedup();
        }
        snapshot
    }

    /// Gives a unit up, so that it is made again.
    fn report_damage(&self, channel: ChannelNo, unit: &UnitRef, error: &UnitError) {
        if !self.catalog.write().drop_unit(channel.0, unit) {
            return;
        }
        self.damaged.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(
            channel.number = channel.0,
            segment = unit.segment,
            offset = unit.offset,
            %error,
            "a unit of the search index cannot be used, it is made again"
        );
        self.inbox.lock().push_full(channel.0);
        self.wake.notify_one();
    }
}
