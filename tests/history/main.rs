//! The history checker: clients on several wires against the real binary while it is killed, its disk fails or the power is
//! cut; everything they asked and were told is recorded, and `checker` proves the promises over the record.
//!
//! CHINWAG_HISTORY_ROUNDS=200 CHINWAG_HISTORY_SEED=7 cargo test --test history -- --nocapture
//!
//! With the feature `seeded-bugs` (src/seeded.rs) it proves itself: each bug must be found, by the promise it breaks.

mod checker;
mod desk;
#[path = "../preload/disk.rs"]
mod disk;
mod http;
mod native;
#[path = "../process/mod.rs"]
mod process;
mod record;
mod round;
mod server;

use std::fmt::Write as _;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use checker::Violation;
use record::History;
use round::Faults;

/// Rounds in CI.
const ROUNDS: u64 = 6;
/// Rounds within which a seeded bug must have been found.
const BUG_ROUNDS: u64 = 8;

fn seed() -> u64 {
    let given = std::env::var("CHINWAG_HISTORY_SEED").ok().and_then(|seed| seed.parse().ok());
    given.unwrap_or_else(|| u64::from(rand::random::<u32>()))
}

/// Runs a round and checks it.
fn round(faults: Faults, bug: Option<&str>, seed: u64) -> Result<(History, Vec<Violation>)> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let dir = tempfile::tempdir()?;
    let shim = disk::shim(dir.path());
    let faults = if shim.is_none() { Faults::Kills } else { faults };
    let history = runtime.block_on(round::run(dir.path(), shim, faults, bug.map(str::to_owned), seed))?;
    let violations = checker::check(&history);
    Ok((history, violations))
}

/// Writes a history down to look at.
fn keep(history: &History, seed: u64) -> Result<PathBuf> {
    let mut text = String::new();
    for (at, event) in history.events.iter().enumerate() {
        writeln!(text, "{at} {event:?}")?;
    }
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("history-{seed}.txt"));
    std::fs::write(&path, text)?;
    Ok(path)
}

fn told(violations: &[Violation]) -> String {
    let mut text = String::new();
    for violation in violations.iter().take(12) {
        let _ = write!(text, "\n  {violation}");
    }
    text
}

#[test]
fn every_promise_holds_over_recorded_histories() -> Result<()> {
    let rounds = std::env::var("CHINWAG_HISTORY_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let first = seed();
    for n in 0..rounds {
        let seed = first + n;
        let faults = [Faults::Kills, Faults::Disk, Faults::Power][(seed % 3) as usize];
        let again =
            format!("CHINWAG_HISTORY_ROUNDS=1 CHINWAG_HISTORY_SEED={seed} cargo test --test history every_promise");
        let begun = std::time::Instant::now();
        let (history, violations) = round(faults, None, seed).with_context(|| again.clone())?;
        println!("seed {seed}, {faults:?}, {} ms: {}", begun.elapsed().as_millis(), round::summary(&history));
        if !violations.is_empty() {
            let kept = keep(&history, seed)?;
            let (count, found) = (violations.len(), told(&violations));
            anyhow::bail!("{count} broken promises, the history is in {}{found}\n{again}", kept.display());
        }
        ensure!(history.events.len() > 100, "hardly anything happened\n{again}");
    }
    Ok(())
}

/// Each seeded bug, the faults it shows under, and the promise it breaks.
const BUGS: &[(&str, Faults, &str)] = &[
    ("skip-fdatasync", Faults::Power, checker::ACK_MEANS_STORED),
    ("forget-dedupe-after-restart", Faults::Kills, checker::STORED_ONCE),
    ("swap-two-messages", Faults::Kills, checker::ONE_ORDER),
    ("drop-one-delivery", Faults::Kills, checker::DELIVERED_OR_TOLD),
    ("lose-read-position", Faults::Kills, checker::ACK_MEANS_STORED),
    ("reuse-version", Faults::Kills, checker::VERSION),
];

#[test]
fn each_seeded_bug_is_found() -> Result<()> {
    if !cfg!(feature = "seeded-bugs") {
        eprintln!("SKIPPED: the binary has no bugs to find; cargo test --features seeded-bugs --test history");
        return Ok(());
    }
    let only = std::env::var("SEEDED_BUG").ok();
    let first = seed();
    for (bug, faults, promise) in BUGS.iter().filter(|(bug, ..)| only.as_deref().is_none_or(|only| only == *bug)) {
        if *faults != Faults::Kills && disk::shim(tempfile::tempdir()?.path()).is_none() {
            eprintln!("SKIPPED: {bug} shows when the power goes, which needs the shim");
            continue;
        }
        let mut found = None;
        for seed in first..first + BUG_ROUNDS {
            let (history, violations) =
                round(*faults, Some(bug), seed).with_context(|| format!("{bug}, seed {seed}"))?;
            if let Some(violation) = violations.iter().find(|violation| violation.promise == *promise) {
                println!("{bug}, seed {seed}: {} broken promises, among them {violation}", violations.len());
                found = Some(());
                break;
            }
            println!("{bug}, seed {seed}: not found in {}{}", round::summary(&history), told(&violations));
        }
        found.with_context(|| format!("{bug} was not found in {BUG_ROUNDS} rounds from seed {first}"))?;
    }
    Ok(())
}
