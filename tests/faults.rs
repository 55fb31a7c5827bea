//! Disks that fail, files that are not what was written, clocks that are wrong. After each: what was acked is there and
//! right, or what is wrong is named and refused or shown as a hole; and what a disk stopped goes on when the disk does,
//! without a restart. No wrong answer, no seq given twice.
//!
//! CHINWAG_FLIPS=1000 for more flips of each file, CHINWAG_FLIPS_SEED=N to repeat a run.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chinwag::domain::refusal::ErrorKind;
use chinwag::store::durable::{DurableStore, StoreOptions};
use chinwag::store::log::seam::{FileFaults, FileOp};
use chinwag::store::{ChannelNo, Commit, Record, SeqRange, Store};
use parking_lot::{Condvar, Mutex};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

mod world;

use world::{Acked, open, options, text_of, uid};

/// Flips of each file in a run without CHINWAG_FLIPS.
const FLIPS: u64 = 200;
const PATIENCE: Duration = Duration::from_secs(60);
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// What fails now.
type Rule = Box<dyn Fn(FileOp, &Path) -> io::Result<()> + Send>;

#[derive(Default)]
struct Disk {
    rule: Mutex<Option<Rule>>,
    clock_us: AtomicU64,
    /// Larger writes find no room; 0: all find some.
    room: AtomicU64,
    /// Syncs of segments wait while this is set.
    slow: AtomicBool,
    waiting: Mutex<u64>,
    woken: Condvar,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

impl Disk {
    fn fails(&self, rule: impl Fn(FileOp, &Path) -> io::Result<()> + Send + 'static) {
        *self.rule.lock() = Some(Box::new(rule));
    }

    fn works(&self) {
        *self.rule.lock() = None;
        self.room.store(0, Ordering::SeqCst);
        self.slow.store(false, Ordering::SeqCst);
        self.woken.notify_all();
    }
}

impl FileFaults for Disk {
    fn check(&self, op: FileOp, path: &Path) -> io::Result<()> {
        if op == FileOp::Sync && in_log(path) && self.slow.load(Ordering::SeqCst) {
            let mut waiting = self.waiting.lock();
            *waiting += 1;
            self.woken.notify_all();
            while self.slow.load(Ordering::SeqCst) {
                self.woken.wait_for(&mut waiting, Duration::from_millis(50));
            }
        }
        self.rule.lock().as_ref().map_or(Ok(()), |rule| rule(op, path))
    }

    fn check_write(&self, path: &Path, bytes: usize) -> io::Result<()> {
        let room = self.room.load(Ordering::SeqCst);
        if room > 0 && bytes as u64 > room { error(ENOSPC) } else { self.check(FileOp::Write, path) }
    }

    fn skips_syncs(&self) -> bool {
        true
    }

    fn clock_us(&self) -> Option<u64> {
        match self.clock_us.load(Ordering::SeqCst) {
            0 => None,
            us => Some(us),
        }
    }
}

fn in_log(path: &Path) -> bool {
    path.to_string_lossy().contains("/log")
}

fn in_view(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("view"))
}

fn error(code: i32) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(code))
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A store with some history, its disk and what was acked.
fn begin(dir: &Path, seed: u64) -> (DurableStore, Arc<Disk>, Acked) {
    let disk = Arc::new(Disk::default());
    let store = open(dir, Some(disk.clone())).expect("store opens");
    let mut acked = Acked::new();
    work(&store, &mut acked, seed, 30);
    store.checkpoint().expect("checkpoint");
    work(&store, &mut acked, seed + 1, 10);
    (store, disk, acked)
}

fn work(store: &DurableStore, acked: &mut Acked, seed: u64, lots: u32) {
    let mut rng = StdRng::seed_from_u64(seed);
    for _ in 0..lots {
        let lot = acked.random_lot(&mut rng);
        acked.commit(store, lot).unwrap_or_else(|(error, _)| panic!("{}", text_of(&error)));
    }
}

/// The commit is refused, may be tried again, and nothing of it is there.
fn refused(store: &DurableStore, acked: &mut Acked) {
    let lot = acked.message(1, 50);
    let (error, _) = acked.commit(store, lot).expect_err("refused");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", text_of(&error));
    assert_eq!(acked.compare(store), Ok(0));
}

fn segments(dir: &Path) -> usize {
    let files = std::fs::read_dir(dir.join("log")).expect("log").flatten();
    files.filter(|file| file.file_name().to_string_lossy().ends_with(".log")).count()
}

/// The store works, also after a crash.
fn goes_on(dir: &Path, store: DurableStore, acked: &mut Acked) {
    assert_eq!(acked.compare(&store), Ok(0));
    work(&store, acked, 99, 10);
    store.checkpoint().expect("checkpoint");
    work(&store, acked, 98, 5);
    assert_eq!(acked.compare(&store), Ok(0));
    store.abandon();
    let store = open(dir, None).unwrap_or_else(|error| panic!("{}", text_of(&error)));
    assert_eq!(acked.compare(&store), Ok(0));
    work(&store, acked, 97, 3);
}

#[test]
fn a_full_disk_refuses_and_goes_on_by_itself_once_there_is_room() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, disk, mut acked) = begin(dir.path(), 1);
    let before = segments(dir.path());
    // There is room for the header of a segment, but for no more.
    disk.room.store(130, Ordering::SeqCst);
    for _ in 0..50 {
        refused(&store, &mut acked);
    }
    assert_eq!(segments(dir.path()), before, "a full disk is not filled with segments");
    assert!(
        !dir.path()
            .join("log")
            .read_dir()
            .expect("log")
            .flatten()
            .any(|f| f.path().extension() == Some("new".as_ref()))
    );
    let health = store.health();
    assert!(!health.writable && health.readable, "{health:?}");
    let problem = health.problem.expect("a problem");
    assert!(problem.contains("the log cannot be written: No space left on device"), "{problem}");
    assert_eq!(store.stats().lots_failed, 50);
    assert!(store.stats().unwritable);
    disk.works();
    // Nobody sends: the store finds out by itself.
    wait_until("the store is writable again", || store.health().problem.is_none());
    assert!(store.health().writable);
    goes_on(dir.path(), store, &mut acked);
}

#[test]
fn writes_and_syncs_that_fail_are_refused_and_the_next_is_taken() {
    for op in [FileOp::Write, FileOp::Sync] {
        let dir = tempfile::tempdir().expect("dir");
        let (store, disk, mut acked) = begin(dir.path(), 2);
        for _ in 0..5 {
            // The lot's own write or sync fails, everything else works: the next segment begins at once.
            let left = AtomicU64::new(1);
            disk.fails(move |asked, path| {
                let hit = asked == op && in_log(path) && path.extension() == Some("log".as_ref());
                if hit && left.swap(0, Ordering::SeqCst) == 1 { error(EIO) } else { Ok(()) }
            });
            refused(&store, &mut acked);
            work(&store, &mut acked, 5, 2);
            assert!(store.health().writable);
        }
        disk.works();
        goes_on(dir.path(), store, &mut acked);
    }
}

#[test]
fn every_file_operation_that_fails_for_a_while_is_survived() {
    for op in [FileOp::Open, FileOp::Write, FileOp::Sync, FileOp::Rename, FileOp::Truncate] {
        for skip in [0, 1, 3, 8] {
            let dir = tempfile::tempdir().expect("dir");
            let (store, disk, mut acked) = begin(dir.path(), 3);
            let seen = AtomicU64::new(0);
            disk.fails(
                move |asked, _| {
                    if asked == op && seen.fetch_add(1, Ordering::SeqCst) >= skip { error(EIO) } else { Ok(()) }
                },
            );
            let mut rng = StdRng::seed_from_u64(4);
            for n in 0..40 {
                let lot = acked.random_lot(&mut rng);
                if let Err((error, _)) = acked.commit(&store, lot) {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{}", text_of(&error));
                }
                if n % 10 == 9 {
                    let _ = store.checkpoint();
                }
                assert_eq!(acked.compare(&store), Ok(0), "{op:?} {skip}");
            }
            disk.works();
            wait_until("the store works again", || store.health().problem.is_none());
            goes_on(dir.path(), store, &mut acked);
        }
    }
}

#[test]
fn a_view_that_cannot_be_written_is_replaced_when_its_disk_works() {
    for op in [FileOp::Write, FileOp::Sync] {
        let dir = tempfile::tempdir().expect("dir");
        let (store, disk, mut acked) = begin(dir.path(), 6);
        disk.fails(move |asked, path| if asked == op && in_view(path) { error(ENOSPC) } else { Ok(()) });
        assert!(store.checkpoint().is_err());
        refused(&store, &mut acked);
        let health = store.health();
        assert!(!health.writable && health.readable, "{health:?}");
        // Numbers that were given before hold afterwards.
        let reserved = store.reserve_channel_no();
        assert_eq!(store.stats().view_renewals, 0);
        disk.works();
        wait_until("the view is replaced", || store.health().problem.is_none());
        assert_eq!(store.stats().view_renewals, 1);
        assert!(store.reserve_channel_no() > reserved);
        assert!(!dir.path().join("view.next").exists());
        goes_on(dir.path(), store, &mut acked);
    }
}

#[test]
fn a_view_whose_copy_is_no_view_is_made_from_the_log() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, disk, mut acked) = begin(dir.path(), 7);
    disk.fails(|op, path| if op == FileOp::Sync && in_view(path) { error(EIO) } else { Ok(()) });
    assert!(store.checkpoint().is_err());
    // What lies on the disk is damaged, too.
    let path = dir.path().join("view/db");
    let mut bytes = std::fs::read(&path).expect("read");
    let half = bytes.len() / 2;
    bytes[64..half].fill(0);
    std::fs::write(&path, &bytes).expect("write");
    disk.works();
    wait_until("the view is made", || store.health().writable);
    goes_on(dir.path(), store, &mut acked);
}

/// What a replacement made and gives up is dropped on its way, and sled panics there when its last sync fails.
#[test]
fn a_replacement_that_panics_is_tried_again() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, disk, mut acked) = begin(dir.path(), 9);
    disk.fails(|op, path| if op == FileOp::Sync && in_view(path) { error(EIO) } else { Ok(()) });
    assert!(store.checkpoint().is_err());
    let panics = std::sync::atomic::AtomicU32::new(2);
    disk.fails(move |op, path| {
        let next = op == FileOp::Sync && path.ends_with("view.next");
        if next && panics.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            panic!("a last sync failed");
        }
        Ok(())
    });
    wait_until("the view is replaced", || store.health().writable);
    goes_on(dir.path(), store, &mut acked);
}

#[test]
fn reads_that_fail_are_refused_one_by_one() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, disk, mut acked) = begin(dir.path(), 8);
    let range = SeqRange { first: 1, last: 5, limit: 5, bytes_max: 1 << 20, newest_first: false };
    disk.fails(|op, path| if op == FileOp::Read && in_log(path) { error(EIO) } else { Ok(()) });
    let refused = store.messages(ChannelNo(1), range).expect_err("the log cannot be read");
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    // What memory and the view answer goes on, and so do sends.
    assert!(store.channel(ChannelNo(1)).expect("read").is_some());
    let lot = acked.message(1, 20);
    acked.commit(&store, lot).expect("writing needs no reading");
    disk.works();
    assert_eq!(acked.compare(&store), Ok(0));
    goes_on(dir.path(), store, &mut acked);
}

#[test]
fn a_lot_that_is_stored_but_cannot_be_applied_stops_reads_until_the_view_is_replaced() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, disk, mut acked) = begin(dir.path(), 9);
    store.checkpoint().expect("checkpoint");
    drop(store);
    // Cold: applying must read the user's row, which no check before did.
    let store = open(dir.path(), Some(disk.clone())).expect("store opens");
    disk.fails(|op, path| if op == FileOp::Read && in_view(path) { error(EIO) } else { Ok(()) });
    let lot: Vec<Commit> = vec![Record::UserCreated { uid: uid(0) }.into()];
    acked.commit(&store, lot).expect("it is in the log");
    let health = store.health();
    assert!(!health.writable && !health.readable, "{health:?}");
    assert_eq!(store.user_known(&uid(0)).expect_err("behind the log").kind(), ErrorKind::Unavailable);
    disk.works();
    wait_until("the view is replaced", || store.health().writable);
    assert!(store.user_known(&uid(0)).expect("read"));
    goes_on(dir.path(), store, &mut acked);
}

#[test]
fn a_slow_disk_makes_senders_wait_and_nobody_else() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, disk, mut acked) = begin(dir.path(), 10);
    disk.slow.store(true, Ordering::SeqCst);
    let before = store.version();
    let lot = acked.message(1, 30);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| store.commit(&lot, &mut |_| {}));
        wait_until("the lot is at its sync", || *disk.waiting.lock() > 0);
        assert_eq!(acked.compare(&store), Ok(0), "reads go on and see nothing of it");
        wait_until("the operator is told", || store.health().problem.is_some());
        let problem = store.health().problem.expect("a problem");
        assert!(problem.contains("the disk is slow"), "{problem}");
        assert!(store.stats().write_wait_ms >= 5_000);
        assert!(!sender.is_finished());
        disk.works();
        let versions = sender.join().expect("no panic").expect("stored");
        assert!(versions[0] > before);
        acked.add(lot.clone(), versions[0]);
    });
    wait_until("nothing is wrong", || store.health().problem.is_none());
    goes_on(dir.path(), store, &mut acked);
}

#[test]
fn a_clock_that_jumps_breaks_no_order() {
    const HOUR: u64 = 3_600_000_000;
    let dir = tempfile::tempdir().expect("dir");
    let disk = Arc::new(Disk::default());
    let mut acked = Acked::new();
    let noon = 1_700_000_000_000_000;
    for (n, now) in [noon, noon - HOUR, noon + HOUR, noon, noon + 2 * HOUR, 1, u64::MAX, noon].into_iter().enumerate() {
        disk.clock_us.store(now, Ordering::SeqCst);
        let store = open(dir.path(), Some(disk.clone())).expect("store opens");
        assert_eq!(acked.compare(&store), Ok(0));
        work(&store, &mut acked, n as u64, 4);
        // And while it runs.
        disk.clock_us.store(now.saturating_sub(HOUR).max(1), Ordering::SeqCst);
        work(&store, &mut acked, n as u64 + 50, 4);
        assert_eq!(acked.compare(&store), Ok(0));
        if n % 2 == 0 { store.abandon() } else { drop(store) }
    }
    assert!(acked.model.version().get() < noon + 3 * HOUR);
}

/// Files of a data directory that a server reads.
fn files_of(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files_of(&path));
        } else if path.file_name() != Some("lock".as_ref()) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn copy_dir(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory");
    for entry in std::fs::read_dir(from).expect("directory").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_dir(&path, &to);
        } else {
            std::fs::copy(&path, &to).expect("copy");
        }
    }
}

/// A small stopped store; `clean`: after a last checkpoint, else with lots behind it and the view's mark older.
fn stopped(dir: &Path, clean: bool) -> Acked {
    let (store, _, mut acked) = begin(dir, 20);
    work(&store, &mut acked, 21, 8);
    if clean {
        drop(store);
    } else {
        // The watermark was synced and protects the last lot.
        store.abandon();
    }
    acked
}

/// Starts from a directory in which `file` is not what was written. `Ok(what)`: everything is right, or named.
fn outcome(dir: &Path, file: &Path, acked: &Acked) -> Result<&'static str, String> {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let store = match open(dir, None) {
        Ok(store) => store,
        Err(error) => {
            let text = text_of(&error);
            // The file, or the one whose promise it breaks.
            let named = [name.as_str(), "watermark", "view's mark", ".log at ", "log at 0", "format"];
            return if named.iter().any(|name| text.contains(name)) { Ok("refused") } else { Err(text) };
        }
    };
    match acked.compare(&store)? {
        0 => {}
        _ if !file.starts_with(dir.join("log")) => return Err("holes, but the log is sound".to_owned()),
        _ => {
            acked.again().commit(&store, acked.message(1, 9)).map_err(|(error, _)| text_of(&error))?;
            return Ok("hole");
        }
    }
    acked.again().commit(&store, acked.message(1, 9)).map_err(|(error, _)| text_of(&error))?;
    Ok("right")
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn a_flipped_bit_in_any_file_is_named_or_harmless() {
    let flips = number("CHINWAG_FLIPS").unwrap_or(FLIPS);
    let seed = number("CHINWAG_FLIPS_SEED").unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("flips: CHINWAG_FLIPS_SEED={seed}");
    let mut rng = StdRng::seed_from_u64(seed);
    for clean in [true, false] {
        let base = tempfile::tempdir().expect("dir");
        let acked = stopped(base.path(), clean);
        let files = files_of(base.path());
        let mut counts = std::collections::BTreeMap::<String, u64>::new();
        for file in &files {
            let relative = file.strip_prefix(base.path()).expect("below");
            let bytes = std::fs::read(file).expect("read");
            // Half of all segments of both stores together would be thousands of starts: a segment gets its share.
            let is_segment = relative.extension() == Some("log".as_ref());
            let share = if is_segment { flips / segments(base.path()) as u64 + 1 } else { flips / 2 };
            for _ in 0..share.min(bytes.len() as u64 * 8) {
                let dir = tempfile::tempdir().expect("dir");
                copy_dir(base.path(), dir.path());
                let mut damaged = bytes.clone();
                let (at, bit) = (rng.random_range(0..damaged.len()), rng.random_range(0..8));
                damaged[at] ^= 1 << bit;
                let path = dir.path().join(relative);
                std::fs::write(&path, &damaged).expect("write");
                let what = outcome(dir.path(), &path, &acked).unwrap_or_else(|why| {
                    panic!("seed {seed}, clean {clean}, {} bit {bit} of byte {at}: {why}", relative.display())
                });
                let kind = relative.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
                *counts.entry(format!("{kind}: {what}")).or_default() += 1;
            }
        }
        println!("clean {clean}: {counts:?}");
    }
}

#[test]
fn a_file_that_is_short_or_missing_is_named_or_made_again() {
    for clean in [true, false] {
        let base = tempfile::tempdir().expect("dir");
        let acked = stopped(base.path(), clean);
        let mut rng = StdRng::seed_from_u64(30);
        for file in files_of(base.path()) {
            let relative = file.strip_prefix(base.path()).expect("below");
            let bytes = std::fs::read(&file).expect("read");
            for cut in [
                None,
                Some(0),
                Some(bytes.len() / 2),
                Some(bytes.len().saturating_sub(1)),
                Some(rng.random_range(0..bytes.len())),
            ] {
                let dir = tempfile::tempdir().expect("dir");
                copy_dir(base.path(), dir.path());
                let path = dir.path().join(relative);
                match cut {
                    None => std::fs::remove_file(&path).expect("remove"),
                    Some(length) => std::fs::write(&path, &bytes[..length]).expect("write"),
                }
                outcome(dir.path(), &path, &acked)
                    .unwrap_or_else(|why| panic!("clean {clean}, {} cut to {cut:?}: {why}", relative.display()));
            }
        }
        // Whole directories.
        for name in ["log", "view"] {
            let dir = tempfile::tempdir().expect("dir");
            copy_dir(base.path(), dir.path());
            std::fs::remove_dir_all(dir.path().join(name)).expect("remove");
            let what =
                outcome(dir.path(), &dir.path().join(name), &acked).unwrap_or_else(|why| panic!("{name}: {why}"));
            assert_eq!(what, if name == "log" { "refused" } else { "right" });
        }
        // All but the format: nothing is left that could tell, but that something was there.
        let dir = tempfile::tempdir().expect("dir");
        copy_dir(base.path(), dir.path());
        for name in ["log", "view"] {
            std::fs::remove_dir_all(dir.path().join(name)).expect("remove");
        }
        let error = open(dir.path(), None).expect_err("the log is gone");
        assert!(text_of(&error).contains("the log is not there"), "{}", text_of(&error));
    }
}

#[test]
fn an_older_copy_put_back_is_replayed_or_refused() {
    let dir = tempfile::tempdir().expect("dir");
    let (store, _, mut acked) = begin(dir.path(), 40);
    drop(store);
    let older = tempfile::tempdir().expect("dir");
    copy_dir(dir.path(), older.path());
    let store = open(dir.path(), None).expect("store opens");
    work(&store, &mut acked, 41, 20);
    drop(store);
    // An older view is only further to replay.
    let with_view = tempfile::tempdir().expect("dir");
    copy_dir(dir.path(), with_view.path());
    std::fs::remove_dir_all(with_view.path().join("view")).expect("remove");
    copy_dir(&older.path().join("view"), &with_view.path().join("view"));
    let store = open(with_view.path(), None).unwrap_or_else(|error| panic!("{}", text_of(&error)));
    assert_eq!(acked.compare(&store), Ok(0));
    drop(store);
    // An older log lacks what the view knows of.
    let with_log = tempfile::tempdir().expect("dir");
    copy_dir(dir.path(), with_log.path());
    std::fs::remove_dir_all(with_log.path().join("log")).expect("remove");
    copy_dir(&older.path().join("log"), &with_log.path().join("log"));
    let error = open(with_log.path(), None).expect_err("acked lots are gone");
    assert!(text_of(&error).contains("acked data is gone"), "{}", text_of(&error));
    // So does one whose segments alone are older.
    std::fs::copy(dir.path().join("log/watermark"), with_log.path().join("log/watermark")).expect("copy");
    std::fs::remove_dir_all(with_log.path().join("view")).expect("remove");
    let error = open(with_log.path(), None).expect_err("acked lots are gone");
    assert!(text_of(&error).contains("acked data is gone"), "{}", text_of(&error));
}

#[test]
fn a_first_start_that_was_cut_short_is_a_first_start() {
    // The format's file was made but not written: older builds did that first.
    let dir = tempfile::tempdir().expect("dir");
    std::fs::write(dir.path().join("format"), "").expect("write");
    let store = DurableStore::open(StoreOptions { ..options(dir.path(), None) }).expect("store opens").0;
    let mut acked = Acked::new();
    work(&store, &mut acked, 1, 3);
    drop(store);
    assert_eq!(std::fs::read_to_string(dir.path().join("format")).expect("read"), "1\n");
    // What an interrupted replacement of the view left is not looked at.
    std::fs::create_dir(dir.path().join("view.next")).expect("directory");
    let store = open(dir.path(), None).expect("store opens");
    assert_eq!(acked.compare(&store), Ok(0));
    assert!(!dir.path().join("view.next").exists());
}
