//! The one tree in sled. Owns opening, reading, batches, the sum over all rows, and what "durable" means for sled.
//!
//! Knows no layout beyond the sum's own row. sled may panic on a damaged file; here that is an error like any other.

use std::collections::BTreeMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use super::keys;
use crate::domain::refusal::ErrorKind;
use crate::store::log::seam::{FileFaults, FileOp};
use crate::store::{Result, StoreError};

/// A row to write; `None` takes it away.
pub type Row = (Vec<u8>, Option<Vec<u8>>);
/// Takes (key, value).
pub type EachRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<()>;
/// Takes (key, value) and says whether to go on.
pub type WhileRow<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<bool>;
/// A value as read.
pub type Value = sled::IVec;

/// How long an ending sled of this process may keep its lock.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(10);
/// A flush that takes longer is looked after; then again after twice as long.
const FLUSH_WAIT: Duration = Duration::from_secs(1);
/// sled holds a process-wide lock while a batch applies, so batches are capped (an owner's rows that change in place go
/// together whatever their number).
pub const BATCH_ROWS_MAX: usize = 256;

/// The tree.
#[derive(Debug)]
pub struct Db {
    tree: sled::Db,
    /// sled's data file through a handle of our own: its `flush` ends in sync_file_range, which is no barrier
    /// (evidence/storage.md section 2).
    file: File,
    path: PathBuf,
    reads: AtomicU64,
    /// What makes operations fail, in tests.
    faults: Option<Arc<dyn FileFaults>>,
}

fn ask(faults: Option<&Arc<dyn FileFaults>>, op: FileOp, operation: &'static str, path: &Path) -> Result<()> {
    faults.map_or(Ok(()), |faults| faults.check(op, path)).map_err(|e| StoreError::io(operation, path.display(), e))
}

fn failed(operation: &'static str, path: &Path, source: sled::Error) -> StoreError {
    match source {
        sled::Error::Io(source) => StoreError::io(operation, path.display(), source),
        source => {
            let detail = path.display().to_string();
            StoreError { operation, kind: ErrorKind::Internal, detail, source: Some(Box::new(source)) }
        }
    }
}

/// Runs a call of sled; a panic in it is damage.
fn guarded<T>(
    operation: &'static str,
    path: &Path,
    call: impl FnOnce() -> std::result::Result<T, sled::Error>,
) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(failed(operation, path, error)),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("no message");
            Err(StoreError::damaged(operation, format_args!("{}: sled panicked: {what}", path.display())))
        }
    }
}

/// Opens sled, waiting for its lock: the data directory is ours, so who holds it is a part of sled of this process that
/// is still ending.
fn open_tree(config: &sled::Config, path: &Path) -> Result<sled::Db> {
    let start = Instant::now();
    loop {
        match guarded("open view", path, || config.open()) {
            Err(error) if is_locked(&error) => {
                if start.elapsed() > LOCK_WAIT_MAX {
                    return Err(StoreError { kind: ErrorKind::Conflict, ..error });
                }
                std::thread::park_timeout(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

fn is_locked(error: &StoreError) -> bool {
    // sled makes an error of its own of it that has the text but not the kind of the system's.
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.is_some_and(|text| text.contains("could not acquire lock"))
}

impl Db {
    /// Opens or creates the tree in `path`.
    ///
    /// # Errors
    /// I/O, or anything sled finds wrong, a panic included. `Conflict`: something else has it open.
    pub fn open(path: &Path, cache_bytes: u64, faults: Option<Arc<dyn FileFaults>>) -> Result<Self> {
        ask(faults.as_ref(), FileOp::Open, "open view", path)?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            // Nothing is durable before our own fdatasync, so a background flush would be work without a promise.
            .flush_every_ms(None);
        let tree = open_tree(&config, path)?;
        let data = path.join("db");
        let file = File::open(&data).map_err(|e| StoreError::io("open view", data.display(), e))?;
        // sled syncs no directory. Without their names its files are gone after a power cut, and all is read from the log.
        if faults.as_ref().is_none_or(|faults| !faults.skips_syncs()) {
            for dir in [Some(path), path.parent()].into_iter().flatten().filter(|dir| !dir.as_os_str().is_empty()) {
                let synced = File::open(dir).and_then(|dir| dir.sync_all());
                synced.map_err(|e| StoreError::io("open view", dir.display(), e))?;
            }
        }
        Ok(Self { tree, file, path: path.to_owned(), reads: AtomicU64::new(0), faults })
    }

    /// One row.
    ///
    /// # Errors
    /// I/O or damage.
    pub fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        crate::store::quiet::count(&self.reads);
        ask(self.faults.as_ref(), FileOp::Read, "read view", &self.path)?;
        guarded("read view", &self.path, || self.tree.get(key))
    }

    /// One row, not counted: for care, not for a question.
    ///
    /// # Errors
    /// I/O or damage.
    pub fn get_uncounted(&self, key: &[u8]) -> Result<Option<Value>> {
        guarded("read view", &self.path, || self.tree.get(key))
    }

    /// All rows of a prefix, in key order, as one range scan.
    ///
    /// # Errors
    /// I/O, damage, or what `each` says.
    pub fn scan_prefix(&self, prefix: &[u8], each: EachRow<'_>) -> Result<()> {
        crate::store::quiet::count(&self.reads);
        ask(self.faults.as_ref(), FileOp::Read, "scan view", &self.path)?;
        let mut rows = self.tree.scan_prefix(prefix);
        while let Some((key, value)) = guarded("scan view", &self.path, || rows.next().transpose())? {
            each(&key, &value)?;
        }
        Ok(())
    }

    /// As [`Db::scan_prefix`], until `each` says that it has seen enough (`false`).
    ///
    /// # Errors
    /// As [`Db::scan_prefix`].
    pub fn scan_while(&self, prefix: &[u8], each: WhileRow<'_>) -> Result<()> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        ask(self.faults.as_ref(), FileOp::Read, "scan view", &self.path)?;
        let mut rows = self.tree.scan_prefix(prefix);
        while let Some((key, value)) = guarded("scan view", &self.path, || rows.next().transpose())? {
            if !each(&key, &value)? {
                break;
            }
        }
        Ok(())
    }

    /// Every row.
    ///
    /// # Errors
    /// As [`Db::scan_prefix`].
    pub fn scan_all(&self, each: EachRow<'_>) -> Result<()> {
        let mut rows = self.tree.iter();
        while let Some((key, value)) = guarded("scan view", &self.path, || rows.next().transpose())? {
            each(&key, &value)?;
        }
        Ok(())
    }

    /// Makes everything applied so far durable.
    ///
    /// # Errors
    /// I/O.
    pub fn sync(&self) -> Result<()> {
        ask(self.faults.as_ref(), FileOp::Sync, "sync view", &self.path)?;
        self.flush()?;
        self.file.sync_data().map_err(|e| StoreError::io("sync view", self.path.display(), e))
    }

    /// sled's flush, which waits for ever when a write of sled's own threads fails at the wrong moment: the error is noted,
    /// but who waits is not woken. Another flush that meets the error wakes them.
    fn flush(&self) -> Result<()> {
        let (done, ended) = std::sync::mpsc::sync_channel::<()>(1);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut pause = FLUSH_WAIT;
                while ended.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                    scope.spawn(|| drop(guarded("flush view", &self.path, || self.tree.flush())));
                    pause *= 2;
                }
            });
            let flushed = guarded("flush view", &self.path, || self.tree.flush());
            drop(done);
            flushed.map(drop)
        })
    }

    /// The directory has another name now.
    pub fn moved_to(&mut self, path: &Path) {
        path.clone_into(&mut self.path);
    }

    /// Lets go of the files; sled panics when its last sync fails.
    pub fn discard(self) {
        let Self { tree, path, .. } = self;
        if let Err(error) = guarded("close view", &path, || {
            drop(tree);
            Ok(())
        }) {
            tracing::debug!(%error, "sled did not close well");
        }
    }

    /// Row look-ups and range scans so far.
    pub fn reads(&self) -> u64 {
        self.reads.load(Ordering::Relaxed)
    }
}

/// One row's share of the sum.
pub fn row_hash(seed: u64, key: &[u8], value: &[u8]) -> u128 {
    xxh3_128_with_seed(value, xxh3_64_with_seed(key, seed))
}

/// The writing side: keeps the order-independent sum over all rows and writes it in every batch. sled has opened cleanly
/// with rows missing or rolled back after one flipped bit; the sum is what notices.
#[derive(Debug)]
pub struct Ledger {
    seed: u64,
    sum: u128,
    /// How many batches still succeed.
    #[cfg(test)]
    pub batches_left: Option<usize>,
}

impl Ledger {
    /// `sum` over all rows but its own.
    pub fn new(seed: u64, sum: u128) -> Self {
        Self {
            seed,
            sum,
            #[cfg(test)]
            batches_left: None,
        }
    }

    /// The sum over all rows but its own.
    pub fn sum(&self) -> u128 {
        self.sum
    }

    /// Applies rows as one atomic batch. When a key stands in it twice, the later one holds.
    ///
    /// # Errors
    /// I/O or damage; the sum in memory is then as before.
    pub fn apply(&mut self, db: &Db, rows: Vec<Row>) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        #[cfg(test)]
        if let Some(left) = &mut self.batches_left {
            *left = left.checked_sub(1).ok_or_else(|| StoreError::damaged("write view", "a test said so"))?;
        }
        ask(db.faults.as_ref(), FileOp::Write, "write view", &db.path)?;
        let mut sum = self.sum;
        let mut batch = sled::Batch::default();
        // In key order sled touches each of its nodes once.
        for (key, value) in rows.into_iter().collect::<BTreeMap<_, _>>() {
            if let Some(old) = db.get_uncounted(&key)? {
                sum = sum.wrapping_sub(row_hash(self.seed, &key, &old));
            }
            match value {
                Some(value) => {
                    sum = sum.wrapping_add(row_hash(self.seed, &key, &value));
                    batch.insert(key, value);
                }
                None => batch.remove(key),
            }
        }
        batch.insert(keys::SUM, sum_row(sum));
        guarded("write view", &db.path, || db.tree.apply_batch(batch))?;
        self.sum = sum;
        Ok(())
    }

    /// Applies rows that may become durable apart, in batches of at most [`BATCH_ROWS_MAX`].
    ///
    /// # Errors
    /// As [`Ledger::apply`].
    pub fn apply_in_batches(&mut self, db: &Db, rows: Vec<Row>) -> Result<()> {
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            self.apply(db, rows.by_ref().take(BATCH_ROWS_MAX).collect())?;
        }
        Ok(())
    }
}

/// Value of the sum's row.
pub fn sum_row(sum: u128) -> Vec<u8> {
    let mut value = vec![super::codec::ROW_VERSION];
    value.extend_from_slice(&sum.to_be_bytes());
    value
}
