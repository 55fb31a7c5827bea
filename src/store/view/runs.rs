//! Idempotency of a channel: which fingerprints it has stored, and at which seqs.
//!
//! The newest fingerprints (those no run covers) come from the index pages and lie in one map in memory. At checkpoints
//! every full [`RUN_SEQS`] older ones become an immutable sorted run with a filter; four runs of a level are merged into
//! one of the next. Runs are sorted by a keyed hash of the fingerprint, so nobody can aim at one page.
//!
//! ```text
//! run page     version u8 | count varint | count x (hash u64, seq varint)      page = hash * pages >> 64
//! filter page  version u8 | 63 blocks of 512 bits                             page = hash * filter pages >> 64
//! ```

use std::collections::hash_map::Entry;
use std::sync::Arc;

use foldhash::HashMap;
use smallvec::SmallVec;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::codec::{Malformed, ROW_VERSION, Reader, Writer};
use super::db::{BATCH_ROWS_MAX, Db, Ledger, Row};
use super::{damaged_row, keys};
use crate::store::Result;

/// Messages of a run of level 0, and the least number that stays outside of runs once there is one.
pub const RUN_SEQS: u64 = 4_096;
/// Runs of a level that are merged into one of the next.
const FAN_IN: usize = 4;
/// Runs of this level (4 million messages) are not merged again: a merge is one piece of work of a checkpoint.
const LEVEL_MAX: u8 = 5;
/// Mean entries of a run page. At 8 to 18 bytes each a row would have to hold 8 standard deviations more to pass 4 KiB.
const PAGE_ENTRIES: u64 = 128;
const BLOCKS: u64 = 63;
const BLOCK_BYTES: usize = 64;
const FILTER_BYTES: usize = 1 + BLOCKS as usize * BLOCK_BYTES;
/// Entries per filter page: 16 bits each.
const FILTER_ENTRIES: u64 = 2_016;
/// Bits set per entry, all in one block.
const PROBES: u32 = 6;

/// An immutable run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    id: u32,
    level: u8,
    count: u64,
    pages: u32,
    filter_pages: u32,
}

fn page_of(hash: u64, pages: u32) -> u32 {
    ((u128::from(hash) * u128::from(pages)) >> 64) as u32
}

/// The bits of a hash in its filter page: (byte, mask) each.
fn bits(hash: u64) -> impl Iterator<Item = (usize, u8)> {
    // The page took the high bits; block and bits come from a second mix.
    let mixed = hash.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (hash >> 29);
    let mixed = mixed.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let block = ((mixed >> 32) * BLOCKS) >> 32;
    let (mut bit, step) = (mixed as u32 & 0xffff, (mixed as u32 >> 16) | 1);
    (0..PROBES).map(move |_| {
        bit = bit.wrapping_add(step);
        let at = bit % (BLOCK_BYTES as u32 * 8);
        (1 + block as usize * BLOCK_BYTES + at as usize / 8, 1 << (at % 8))
    })
}

/// What the channel's head keeps, and what memory holds of it.
#[derive(Debug)]
pub struct Runs {
    seed: u64,
    /// Messages up to here are in runs; a multiple of [`RUN_SEQS`].
    covered: u64,
    next_run: u32,
    /// Replaced as a whole at checkpoints.
    runs: Vec<Run>,
    /// Fingerprint to seq of all messages above `covered`; `None` until loaded.
    fresh: Option<Fresh>,
    filters: HashMap<(u32, u32), Arc<[u8]>>,
}

#[derive(Debug, Default)]
struct Fresh {
    seqs: HashMap<u64, u64>,
    /// Further seqs of a fingerprint that two messages share.
    twins: Vec<(u64, u64)>,
}

impl Fresh {
    fn insert(&mut self, fingerprint: u64, seq: u64) {
        if let Some(&first) = self.seqs.get(&fingerprint) {
            if first != seq {
                self.twins.push((fingerprint, seq));
            }
        } else {
            self.seqs.insert(fingerprint, seq);
        }
    }
}

/// Seqs whose records decide.
pub type Candidates = SmallVec<[u64; 2]>;

impl Runs {
    /// Of a channel without messages: everything is known.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            covered: 0,
            next_run: 0,
            runs: Vec::new(),
            fresh: Some(Fresh::default()),
            filters: HashMap::default(),
        }
    }

    pub fn put(&self, w: &mut Writer) {
        w.varint(self.covered);
        w.varint(u64::from(self.next_run));
        w.varint(self.runs.len() as u64);
        for run in &self.runs {
            w.varint(u64::from(run.id));
            w.u8(run.level);
            w.varint(run.count);
            w.varint(u64::from(run.pages));
            w.varint(u64::from(run.filter_pages));
        }
    }

    pub fn take(r: &mut Reader<'_>, seed: u64) -> Result<Self, Malformed> {
        let (covered, next_run) = (r.varint()?, r.varint32()?);
        let runs = (0..r.count(1_024)?)
            .map(|_| {
                let run = Run {
                    id: r.varint32()?,
                    level: r.u8()?,
                    count: r.varint()?,
                    pages: r.varint32()?,
                    filter_pages: r.varint32()?,
                };
                if run.pages == 0 || run.filter_pages == 0 { Err(Malformed) } else { Ok(run) }
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { seed, covered, next_run, runs, fresh: None, filters: HashMap::default() })
    }

    pub fn covered(&self) -> u64 {
        self.covered
    }

    pub fn is_loaded(&self) -> bool {
        self.fresh.is_some()
    }

    /// Takes the fingerprints of all messages above `covered`.
    pub fn load(&mut self, fingerprints: impl Iterator<Item = (u64, u64)>) {
        let mut fresh = Fresh::default();
        fingerprints.for_each(|(fingerprint, seq)| fresh.insert(fingerprint, seq));
        self.fresh = Some(fresh);
    }

    /// A message was appended.
    pub fn push(&mut self, fingerprint: u64, seq: u64) {
        if let Some(fresh) = &mut self.fresh {
            fresh.insert(fingerprint, seq);
        }
    }

    fn hash(&self, fingerprint: u64) -> u64 {
        xxh3_64_with_seed(&fingerprint.to_be_bytes(), self.seed)
    }

    /// Whether the fingerprint is certainly absent, from memory alone.
    pub fn is_absent(&self, fingerprint: u64) -> bool {
        let Some(fresh) = &self.fresh else { return false };
        if fresh.seqs.contains_key(&fingerprint) {
            return false;
        }
        let hash = self.hash(fingerprint);
        self.runs.iter().all(|run| match self.filters.get(&(run.id, page_of(hash, run.filter_pages))) {
            Some(page) => bits(hash).any(|(byte, mask)| page[byte] & mask == 0),
            None => false,
        })
    }

    /// Loads all filter pages when they fit into `bytes_max`; else they come one by one, as fingerprints need them.
    pub fn warm_filters(&mut self, db: &Db, no: u32, bytes_max: usize) -> Result<()> {
        let pages: usize = self.runs.iter().map(|run| run.filter_pages as usize).sum();
        if pages * FILTER_BYTES > bytes_max {
            return Ok(());
        }
        for at in 0..self.runs.len() {
            for page in 0..self.runs[at].filter_pages {
                self.load_filter(db, no, self.runs[at].id, page)?;
            }
        }
        Ok(())
    }

    fn load_filter(&mut self, db: &Db, no: u32, run: u32, page: u32) -> Result<()> {
        if let Entry::Vacant(free) = self.filters.entry((run, page)) {
            let key = keys::run_page(keys::FILTER, no, run, page);
            let row = db.get(&key)?.filter(|row| row.len() == FILTER_BYTES && row[0] == ROW_VERSION);
            let row = row.ok_or_else(|| damaged_row(&key, Malformed))?;
            free.insert(Arc::from(&*row));
        }
        Ok(())
    }

    /// Seqs at which the fingerprint may be stored. `load` must have been called. Filter pages beyond `bytes_max` make room for
    /// those it needs.
    pub fn candidates(&mut self, db: &Db, no: u32, fingerprint: u64, bytes_max: usize) -> Result<Candidates> {
        let mut found = Candidates::new();
        if let Some(fresh) = &self.fresh {
            found.extend(fresh.seqs.get(&fingerprint).copied());
            found.extend(fresh.twins.iter().filter(|(f, _)| *f == fingerprint).map(|(_, seq)| *seq));
        }
        let hash = self.hash(fingerprint);
        if (self.filters.len() + self.runs.len()) * FILTER_BYTES > bytes_max {
            self.filters.clear();
        }
        for at in 0..self.runs.len() {
            let run = self.runs[at];
            self.load_filter(db, no, run.id, page_of(hash, run.filter_pages))?;
        }
        for run in &self.runs {
            let Some(filter) = self.filters.get(&(run.id, page_of(hash, run.filter_pages))) else { continue };
            if bits(hash).all(|(byte, mask)| filter[byte] & mask != 0) {
                let page = read_run_page(db, no, run, page_of(hash, run.pages))?;
                let from = page.partition_point(|(h, _)| *h < hash);
                found.extend(page[from..].iter().take_while(|(h, _)| *h == hash).map(|(_, seq)| *seq));
            }
        }
        Ok(found)
    }

    /// Whether a run is to be made of the oldest messages no run covers, given the channel's head.
    pub fn wants_run(&self, head_seq: u64) -> bool {
        head_seq.saturating_sub(self.covered) >= 2 * RUN_SEQS
    }

    /// What a checkpoint needs to build runs without the channel's lock: only checkpoints change runs.
    pub fn plan(&self) -> Plan {
        Plan {
            seed: self.seed,
            covered: self.covered,
            next_run: self.next_run,
            runs: self.runs.clone(),
            gone: Vec::new(),
        }
    }

    /// Takes over what a plan has written. Rows of `Plan::gone` may go once the head is written.
    pub fn install(&mut self, plan: &Plan) {
        self.covered = plan.covered;
        self.next_run = plan.next_run;
        self.runs.clone_from(&plan.runs);
        let alive: Vec<u32> = self.runs.iter().map(|run| run.id).collect();
        self.filters.retain(|(run, _), _| alive.contains(run));
        if let Some(fresh) = &mut self.fresh {
            let covered = plan.covered;
            fresh.seqs.retain(|_, seq| *seq > covered);
            // A twin whose first has gone into a run becomes a first.
            let twins = std::mem::take(&mut fresh.twins);
            twins.into_iter().filter(|(_, seq)| *seq > covered).for_each(|(f, seq)| fresh.insert(f, seq));
        }
    }

    pub fn weight(&self) -> usize {
        self.fresh.as_ref().map_or(0, |f| f.seqs.capacity() * 18) + self.filters.len() * (FILTER_BYTES + 48)
    }
}

/// Runs being built by a checkpoint.
#[derive(Debug)]
pub struct Plan {
    seed: u64,
    pub covered: u64,
    next_run: u32,
    runs: Vec<Run>,
    gone: Vec<Run>,
}

impl Plan {
    /// Makes a run of the next [`RUN_SEQS`] fingerprints and merges what is due; writes the rows.
    pub fn add(&mut self, db: &Db, ledger: &mut Ledger, no: u32, fingerprints: &[u64]) -> Result<()> {
        let mut entries: Vec<(u64, u64)> = (self.covered + 1..)
            .zip(fingerprints)
            .map(|(seq, f)| (xxh3_64_with_seed(&f.to_be_bytes(), self.seed), seq))
            .collect();
        entries.sort_unstable();
        let run = self.write(db, ledger, no, 0, entries.len() as u64, entries.into_iter().map(Ok))?;
        self.runs.push(run);
        self.covered += fingerprints.len() as u64;
        for level in 0..LEVEL_MAX {
            let due: Vec<Run> = self.runs.iter().filter(|run| run.level == level).copied().collect();
            if due.len() < FAN_IN {
                break;
            }
            let count = due.iter().map(|run| run.count).sum();
            let merged = Merge::new(db, no, &due);
            let run = self.write(db, ledger, no, level + 1, count, merged)?;
            self.runs.retain(|run| run.level != level);
            self.runs.push(run);
            self.gone.extend(due);
        }
        Ok(())
    }

    /// Streams sorted entries into pages and filter pages.
    fn write(
        &mut self,
        db: &Db,
        ledger: &mut Ledger,
        no: u32,
        level: u8,
        count: u64,
        entries: impl Iterator<Item = Result<(u64, u64)>>,
    ) -> Result<Run> {
        let run = Run {
            id: self.next_run,
            level,
            count,
            pages: count.div_ceil(PAGE_ENTRIES) as u32,
            filter_pages: count.div_ceil(FILTER_ENTRIES) as u32,
        };
        self.next_run += 1;
        let mut rows: Vec<Row> = Vec::new();
        let (mut page, mut page_no) = (Vec::<(u64, u64)>::new(), 0);
        let (mut filter, mut filter_no) = (vec![0; FILTER_BYTES], 0);
        filter[0] = ROW_VERSION;
        for entry in entries {
            let (hash, seq) = entry?;
            while page_of(hash, run.pages) > page_no {
                rows.push(run_row(no, run.id, page_no, &page));
                page.clear();
                page_no += 1;
            }
            while page_of(hash, run.filter_pages) > filter_no {
                rows.push((keys::run_page(keys::FILTER, no, run.id, filter_no), Some(filter.clone())));
                filter[1..].fill(0);
                filter_no += 1;
            }
            page.push((hash, seq));
            bits(hash).for_each(|(byte, mask)| filter[byte] |= mask);
            if rows.len() >= BATCH_ROWS_MAX {
                ledger.apply(db, std::mem::take(&mut rows))?;
            }
        }
        while page_no < run.pages {
            rows.push(run_row(no, run.id, page_no, &page));
            page.clear();
            page_no += 1;
        }
        while filter_no < run.filter_pages {
            rows.push((keys::run_page(keys::FILTER, no, run.id, filter_no), Some(filter.clone())));
            filter[1..].fill(0);
            filter_no += 1;
        }
        ledger.apply_in_batches(db, rows)?;
        Ok(run)
    }

    /// Rows of runs that were merged away.
    pub fn gone(&self, no: u32) -> Vec<Row> {
        let mut rows = Vec::new();
        for run in &self.gone {
            rows.extend((0..run.pages).map(|page| (keys::run_page(keys::RUN, no, run.id, page), None)));
            rows.extend((0..run.filter_pages).map(|page| (keys::run_page(keys::FILTER, no, run.id, page), None)));
        }
        rows
    }
}

fn run_row(no: u32, run: u32, page: u32, entries: &[(u64, u64)]) -> Row {
    let key = keys::run_page(keys::RUN, no, run, page);
    let mut w = Writer::row();
    w.varint(entries.len() as u64);
    for (hash, seq) in entries {
        w.u64(*hash);
        w.varint(*seq);
    }
    (key, Some(w.finish()))
}

fn read_run_page(db: &Db, no: u32, run: &Run, page: u32) -> Result<Vec<(u64, u64)>> {
    let key = keys::run_page(keys::RUN, no, run.id, page);
    let row = db.get(&key)?;
    let decode = |row: &[u8]| -> Result<Vec<(u64, u64)>, Malformed> {
        let mut r = Reader::row(row)?;
        (0..r.count(super::codec::ROW_BYTES_MAX)?).map(|_| Ok((r.u64()?, r.varint()?))).collect()
    };
    row.as_deref().ok_or(Malformed).and_then(decode).map_err(|m| damaged_row(&key, m))
}

/// Entries of several runs in order of hash, a page of each in memory.
struct Merge<'a> {
    db: &'a Db,
    no: u32,
    sources: Vec<Source>,
}

struct Source {
    run: Run,
    next_page: u32,
    /// Descending, the next at the end.
    entries: Vec<(u64, u64)>,
}

impl<'a> Merge<'a> {
    fn new(db: &'a Db, no: u32, runs: &[Run]) -> Self {
        let sources = runs.iter().map(|&run| Source { run, next_page: 0, entries: Vec::new() }).collect();
        Self { db, no, sources }
    }

    fn step(&mut self) -> Result<Option<(u64, u64)>> {
        for source in &mut self.sources {
            while source.entries.is_empty() && source.next_page < source.run.pages {
                source.entries = read_run_page(self.db, self.no, &source.run, source.next_page)?;
                source.entries.reverse();
                source.next_page += 1;
            }
        }
        let least = self.sources.iter_mut().filter(|s| !s.entries.is_empty()).min_by_key(|s| s.entries.last().copied());
        Ok(least.and_then(|source| source.entries.pop()))
    }
}

impl Iterator for Merge<'_> {
    type Item = Result<(u64, u64)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step().transpose()
    }
}
