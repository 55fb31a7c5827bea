//! Proves ack-means-stored against power cuts, through the seam under the store's file calls: a simulated disk knows which
//! bytes and names were synced. At a cut the rest is dropped, or a random part of it is kept, torn at 512 bytes and in any
//! order; names made, moved or removed since their directory's last sync may or may not be. Then the store starts from what
//! is left, and perhaps the power goes again while it does. sled writes its own files: of the view a cut leaves what was
//! there at the moment, an older copy, a damaged one, or none.
//!
//! CHINWAG_POWER_CUTS=5000 for more than the default, CHINWAG_POWER_SEED=N for one seed alone.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use chinwag::domain::refusal::ErrorKind;
use chinwag::store::Store;
use chinwag::store::log::seam::{FileChange, FileFaults, FileOp};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

mod world;

use world::{Acked, Doubt, open, text_of};

/// Cuts of a run without CHINWAG_POWER_CUTS.
const CUTS: u64 = 150;
const SECTOR: usize = 512;
const HOUR_US: u64 = 3_600_000_000;

/// A write or a length that is not synced.
#[derive(Debug, Clone)]
enum Pending {
    Write(u64, Vec<u8>),
    Length(u64),
}

#[derive(Debug, Clone, Default)]
struct File {
    synced: Vec<u8>,
    pending: Vec<Pending>,
    /// Written, and called clean by the system after a failed sync: no later sync makes it durable, and it may be there.
    forgotten: Vec<Pending>,
}

#[derive(Debug, Clone, PartialEq)]
enum Node {
    Dir,
    File(usize),
}

/// A name that is not synced.
#[derive(Debug, Clone)]
enum Naming {
    Add(PathBuf, Node),
    /// From, to, and what has the name: that goes with it, whatever else is kept.
    Move(PathBuf, PathBuf, Node),
    Remove(PathBuf),
}

impl Naming {
    fn dir(&self) -> Option<&Path> {
        match self {
            Self::Add(path, _) | Self::Move(_, path, _) | Self::Remove(path) => path.parent(),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Add(path, node) => drop(names.insert(path.clone(), node.clone())),
            Self::Move(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), node.clone());
            }
            Self::Remove(path) => drop(names.remove(path)),
        }
    }
}

/// What a cut does with what was not synced.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Drop,
    Keep,
    Tear,
}

#[derive(Debug)]
struct State {
    root: PathBuf,
    files: Vec<File>,
    inodes: HashMap<u64, usize>,
    names: BTreeMap<PathBuf, Node>,
    naming: Vec<Naming>,
    events: u64,
    /// At which event the power goes.
    cut_at: u64,
    rng: StdRng,
    /// Where to write what is left; `None` once it is written.
    left: Option<PathBuf>,
    cut: Cut,
    clock_us: u64,
    /// Syncs of segments do nothing, and say that they did.
    lies: bool,
    /// Some syncs of segments fail, some in a row.
    fails: bool,
    failing: u32,
}

/// The simulated disk.
#[derive(Debug)]
struct Disk(Mutex<State>);

impl Disk {
    /// A disk on which everything in `root` is synced; the power goes at event `cut_at` and what is left goes to `left`.
    fn new(root: &Path, left: &Path, cut_at: u64, clock_us: u64, mut rng: StdRng) -> Arc<Self> {
        let cut = [Cut::Drop, Cut::Keep, Cut::Tear, Cut::Tear][rng.random_range(0..4)];
        let mut state = State {
            root: root.to_owned(),
            files: Vec::new(),
            inodes: HashMap::new(),
            names: BTreeMap::new(),
            naming: Vec::new(),
            events: 0,
            cut_at,
            rng,
            left: Some(left.to_owned()),
            cut,
            clock_us,
            lies: false,
            fails: false,
            failing: 0,
        };
        state.take_in(root);
        Arc::new(Self(Mutex::new(state)))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no panic under it")
    }

    fn is_off(&self) -> bool {
        self.state().left.is_none()
    }

    /// The power goes now, unless it has.
    fn cut(&self) {
        let mut state = self.state();
        if state.left.is_some() {
            state.go_off();
        }
    }
}

impl State {
    fn take_in(&mut self, dir: &Path) {
        let Ok(entries) = std::fs::read_dir(dir) else { return };
        self.names.insert(dir.to_owned(), Node::Dir);
        for entry in entries {
            let path = entry.expect("entry").path();
            if path.is_dir() {
                if !is_view(&path) {
                    self.take_in(&path);
                }
                continue;
            }
            let synced = std::fs::read(&path).expect("read");
            self.inodes.insert(std::fs::metadata(&path).expect("metadata").ino(), self.files.len());
            self.names.insert(path, Node::File(self.files.len()));
            self.files.push(File { synced, ..File::default() });
        }
    }

    fn file(&mut self, inode: u64) -> &mut File {
        let at = *self.inodes.get(&inode).expect("a file that was made or taken in");
        &mut self.files[at]
    }

    /// Counts an event; the power may go at it.
    fn event(&mut self) {
        self.events += 1;
        if self.events == self.cut_at && self.left.is_some() {
            self.go_off();
        }
    }

    fn go_off(&mut self) {
        let Some(left) = self.left.take() else { return };
        let (cut, root) = (self.cut, self.root.clone());
        let keeps = |rng: &mut StdRng| match cut {
            Cut::Drop => false,
            Cut::Keep => true,
            Cut::Tear => rng.random_bool(0.5),
        };
        let mut names = self.names.clone();
        for naming in &self.naming {
            if keeps(&mut self.rng) {
                naming.apply(&mut names);
            }
        }
        std::fs::create_dir_all(&left).expect("directory");
        let place = |path: &Path| left.join(path.strip_prefix(&root).expect("below the root"));
        // Directories before what is in them. A file whose directory is gone is gone.
        for (path, node) in &names {
            let at = place(path);
            match node {
                Node::Dir => drop(std::fs::create_dir(&at)),
                Node::File(number) => {
                    let mut bytes = self.files[*number].synced.clone();
                    let file = &self.files[*number];
                    for pending in file.forgotten.iter().chain(&file.pending) {
                        match pending {
                            Pending::Length(length) if keeps(&mut self.rng) => bytes.resize(*length as usize, 0),
                            Pending::Length(_) => {}
                            Pending::Write(at, written) => {
                                keep_sectors(&mut bytes, *at, written, || keeps(&mut self.rng))
                            }
                        }
                    }
                    let _ = std::fs::write(&at, bytes);
                }
            }
        }
        leave_view(&mut self.rng, &root, &left);
    }
}

/// Writes the sectors of a write that are kept; what is kept behind one that is not finds zeros before it.
fn keep_sectors(bytes: &mut Vec<u8>, at: u64, written: &[u8], mut keeps: impl FnMut() -> bool) {
    let mut from = 0;
    while from < written.len() {
        let start = at as usize + from;
        let to = (from + SECTOR - start % SECTOR).min(written.len());
        if keeps() {
            let end = start + (to - from);
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(&written[from..to]);
        }
        from = to;
    }
}

fn is_view(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("view"))
}

fn copy_files(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("directory");
    let Ok(entries) = std::fs::read_dir(from) else { return };
    for entry in entries.flatten() {
        if entry.path().is_file() {
            // sled may be taking a file away.
            let _ = std::fs::copy(entry.path(), to.join(entry.file_name()));
        }
    }
}

/// Copies the view as it was when it was last synced, beside the data directory.
fn keep_older_view(root: &Path) {
    let older = root.with_extension("older-view");
    let _ = std::fs::remove_dir_all(&older);
    copy_files(&root.join("view"), &older);
}

/// What a cut leaves of sled's files.
fn leave_view(rng: &mut StdRng, root: &Path, left: &Path) {
    let (now, older, to) = (root.join("view"), root.with_extension("older-view"), left.join("view"));
    match rng.random_range(0..10) {
        0 => {}
        1..5 if older.exists() => copy_files(&older, &to),
        how if now.exists() => {
            copy_files(&now, &to);
            if how >= 8 {
                let path = to.join("db");
                let Ok(mut bytes) = std::fs::read(&path) else { return };
                for _ in 0..rng.random_range(1..4) {
                    if bytes.is_empty() {
                        break;
                    }
                    let at = rng.random_range(0..bytes.len()) / SECTOR * SECTOR;
                    let end = bytes.len().min(at + SECTOR);
                    bytes[at..end].fill(0);
                }
                std::fs::write(&path, bytes).expect("write");
            }
        }
        _ => {}
    }
}

impl FileFaults for Disk {
    fn check(&self, op: FileOp, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.event();
        if state.left.is_none() {
            return Err(io::Error::other("the power is off"));
        }
        let of_log = op == FileOp::Sync && state.fails && path.extension() == Some("log".as_ref());
        if of_log && state.failing == 0 && state.rng.random_bool(0.03) {
            state.failing = state.rng.random_range(1..5);
        }
        if of_log && state.failing > 0 {
            state.failing -= 1;
            // A new segment is synced before it has its name.
            let made = std::fs::metadata(path).or_else(|_| std::fs::metadata(path.with_extension("log.new")))?;
            let file = state.file(made.ino());
            let clean = std::mem::take(&mut file.pending);
            file.forgotten.extend(clean);
            return Err(io::Error::from_raw_os_error(5));
        }
        Ok(())
    }

    fn note(&self, change: FileChange<'_>) {
        let mut state = self.state();
        if state.left.is_none() {
            return;
        }
        match change {
            FileChange::DirMade { path } => {
                let naming = Naming::Add(path.to_owned(), Node::Dir);
                // The root's own name is not in question.
                if path == state.root { naming.apply(&mut state.names) } else { state.naming.push(naming) }
            }
            FileChange::Made { path, inode } => {
                let number = state.files.len();
                state.files.push(File::default());
                state.inodes.insert(inode, number);
                state.naming.push(Naming::Add(path.to_owned(), Node::File(number)));
            }
            FileChange::Written { inode, at, bytes } => {
                let file = state.file(inode);
                // What is written again is dirty again.
                let end = at + bytes.len() as u64;
                file.forgotten.retain(|old| match old {
                    Pending::Write(from, old) => *from >= end || from + old.len() as u64 <= at,
                    Pending::Length(_) => true,
                });
                file.pending.push(Pending::Write(at, bytes.to_vec()));
            }
            FileChange::Truncated { inode, bytes } => state.file(inode).pending.push(Pending::Length(bytes)),
            FileChange::Synced { inode } if state.lies && state.file(inode).synced.starts_with(b"CHWGLOG") => {}
            FileChange::Synced { inode } => {
                let file = state.file(inode);
                for pending in std::mem::take(&mut file.pending) {
                    match pending {
                        Pending::Length(length) => file.synced.resize(length as usize, 0),
                        Pending::Write(at, written) => keep_sectors(&mut file.synced, at, &written, || true),
                    }
                }
            }
            FileChange::Renamed { from, to } => {
                let mut names = state.names.clone();
                state.naming.iter().for_each(|naming| naming.apply(&mut names));
                let node = names.remove(from).expect("what is renamed has been made");
                state.naming.push(Naming::Move(from.to_owned(), to.to_owned(), node));
            }
            FileChange::Removed { path } => state.naming.push(Naming::Remove(path.to_owned())),
            FileChange::DirSynced { path } => {
                let naming = std::mem::take(&mut state.naming);
                let (done, open): (Vec<_>, Vec<_>) = naming.into_iter().partition(|n| n.dir() == Some(path));
                done.iter().for_each(|naming| naming.apply(&mut state.names));
                state.naming = open;
            }
        }
        state.event();
    }

    fn skips_syncs(&self) -> bool {
        true
    }

    fn clock_us(&self) -> Option<u64> {
        let mut state = self.state();
        state.clock_us += 1_000;
        Some(state.clock_us)
    }
}

/// What a run of cuts did, for the last line.
#[derive(Debug, Default)]
struct Done {
    cuts: u64,
    while_starting: u64,
    kills: u64,
    acked: u64,
}

/// One seed: some lives of a store, each ended by a power cut. The error says what was wrong.
fn run(seed: u64, lies: bool, done: &mut Done) -> Result<(), String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir().expect("dir");
    let mut acked = Acked::new();
    // Lots refused or unanswered since the last one that was taken: at most one of them is there.
    let mut doubts: Vec<Doubt> = Vec::new();
    let lives = rng.random_range(1..4);
    let mut clock_us = 1_700_000_000_000_000 + rng.random_range(0..HOUR_US);
    for life in 0..=lives {
        let root = dir.path().join(format!("life-{life}"));
        let left = dir.path().join(format!("life-{}", life + 1));
        if life == lives {
            let store = open(&root, None).map_err(|e| format!("the last start: {}", text_of(&e)))?;
            let holes = settle(&mut acked, &store, std::mem::take(&mut doubts))?;
            let next = acked.message(0, 10);
            acked.commit(&store, next).map_err(|(error, _)| format!("after the last start: {}", text_of(&error)))?;
            done.acked += acked.messages;
            return if holes == 0 { acked.compare(&store).map(drop) } else { Err(format!("{holes} holes")) };
        }
        // The clock is an hour off now and then, both ways.
        clock_us = match rng.random_range(0..4) {
            0 => clock_us + HOUR_US,
            1 => clock_us - HOUR_US,
            _ => clock_us + 60_000_000,
        };
        let cut_at = if rng.random_bool(0.25) { rng.random_range(1..60) } else { rng.random_range(60..900) };
        let disk = Disk::new(&root, &left, cut_at, clock_us, StdRng::seed_from_u64(rng.random()));
        disk.state().lies = lies;
        done.cuts += 1;
        let faults: Arc<dyn FileFaults> = disk.clone();
        let opened = open(&root, Some(faults.clone()));
        // A disk that fails while starting refuses the start, and that is all.
        let fails = rng.random_bool(0.5);
        disk.state().fails = fails;
        let mut store = match opened {
            Ok(store) => store,
            Err(error) if disk.is_off() => {
                // A first start that got nowhere leaves nothing that could be wrong.
                done.while_starting += 1;
                drop(error);
                continue;
            }
            Err(error) => return Err(format!("life {life}: start refused: {}", text_of(&error))),
        };
        let holes = match settle(&mut acked, &store, std::mem::take(&mut doubts)) {
            Ok(holes) => holes,
            // Reads fail once the power is off.
            Err(_) if disk.is_off() => return Ok(()),
            Err(why) => return Err(format!("life {life}: {why}")),
        };
        if holes > 0 {
            return Err(format!("life {life}: {holes} holes"));
        }
        if rng.random_bool(0.2) {
            // What was answered since the start must not have been hanging in the air.
            disk.cut();
        }
        while !disk.is_off() {
            if rng.random_bool(if doubts.is_empty() { 0.01 } else { 0.4 }) {
                // The process alone dies: what it wrote is in the cache, synced or not.
                store.abandon();
                disk.state().fails = false;
                store = match open(&root, Some(faults.clone())) {
                    Ok(store) => store,
                    Err(_) if disk.is_off() => return Ok(()),
                    Err(error) => return Err(format!("life {life}: start after a kill refused: {}", text_of(&error))),
                };
                match settle(&mut acked, &store, std::mem::take(&mut doubts)) {
                    Ok(0) => {}
                    Err(_) if disk.is_off() => return Ok(()),
                    other => return Err(format!("life {life}, after a kill: {other:?}")),
                }
                done.kills += 1;
                disk.state().fails = fails;
                if rng.random_bool(0.5) {
                    disk.cut();
                }
                continue;
            }
            if rng.random_bool(0.06) {
                if store.checkpoint().is_ok() && !disk.is_off() {
                    keep_older_view(&root);
                }
                continue;
            }
            let lot = acked.random_lot(&mut rng);
            match acked.commit(&store, lot) {
                // Whatever failed before lies behind the end of a segment that is closed.
                Ok(_) => doubts.clear(),
                Err((error, _)) if !disk.is_off() && error.kind() != ErrorKind::Unavailable => {
                    return Err(format!("life {life}: refused: {}", text_of(&error)));
                }
                Err((_, lot)) => doubts.push(lot),
            }
        }
        disk.cut();
        store.abandon();
    }
    Ok(())
}

/// The store has what was acked, or that and one whole lot of those in doubt; which is then acked.
fn settle(acked: &mut Acked, store: &impl Store, doubts: Vec<Doubt>) -> Result<u64, String> {
    let alone = acked.compare(store);
    let Err(mut why) = alone else { return alone };
    for (lot, first) in doubts {
        let Some(first) = first else { continue };
        let mut with = acked.again();
        with.add(lot, first);
        match with.compare(store) {
            Ok(holes) => {
                *acked = with;
                return Ok(holes);
            }
            Err(also) => why = format!("{why}; with a lot in doubt: {also}"),
        }
    }
    Err(why)
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

#[test]
fn what_was_acked_survives_power_cuts() {
    if let Some(seed) = number("CHINWAG_POWER_SEED") {
        let mut done = Done::default();
        run(seed, false, &mut done).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        println!("seed {seed}: {done:?}");
        return;
    }
    let cuts = number("CHINWAG_POWER_CUTS").unwrap_or(CUTS);
    let first: u64 = u64::from(rand::random::<u32>()) << 20;
    println!("power cuts: seeds from {first} on");
    let mut done = Done::default();
    let mut seed = first;
    while done.cuts < cuts {
        run(seed, false, &mut done).unwrap_or_else(|why| {
            panic!("{why}\nCHINWAG_POWER_SEED={seed} cargo test --test power_cut what_was_acked -- --nocapture")
        });
        seed += 1;
    }
    println!("{done:?} in {} seeds, nothing acked lost", seed - first);
}

/// The test of the test: a disk that calls a lot synced and forgets it is found out.
#[test]
fn a_disk_that_lies_about_its_syncs_is_found_out() {
    let found = (0..60).filter(|&seed| run(seed, true, &mut Done::default()).is_err()).count();
    assert!(found > 10, "only {found} of 60 seeds noticed lost lots");
}
