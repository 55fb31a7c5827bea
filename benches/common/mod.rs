//! What the benches share: when to run, how long, medians, and random bytes with a printed seed.

// Each bench uses a part of it.
#![allow(dead_code)]

use std::path::PathBuf;
use std::time::Duration;

/// How a bench was asked to run.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// Interleaved rounds; figures are their medians.
    pub rounds: usize,
    /// Time of one cell in one round.
    pub cell: Duration,
}

impl Plan {
    /// Reads the arguments; `None` when the bench is only to prove that it starts (`cargo test --benches`).
    pub fn from_args(rounds: usize, cell: Duration) -> Option<Self> {
        let arguments: Vec<String> = std::env::args().collect();
        if !arguments.iter().any(|argument| argument == "--bench") {
            println!("not asked to measure: run it with `cargo bench`");
            return None;
        }
        let quick = arguments.iter().any(|argument| argument == "--quick");
        Some(if quick { Self { rounds: 1, cell: cell / 4 } } else { Self { rounds, cell } })
    }
}

/// The median; of an even number of values the upper one, 0 of none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}

/// A directory on the disk the build lives on: a temporary directory may be memory, where fdatasync costs nothing.
pub fn scratch_dir() -> std::io::Result<tempfile::TempDir> {
    let base = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    std::fs::create_dir_all(&base)?;
    tempfile::Builder::new().prefix("bench").tempdir_in(base)
}

/// Random bytes that repeat with their seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// The next number.
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    /// So many bytes.
    pub fn bytes(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(length + 8);
        while bytes.len() < length {
            bytes.extend_from_slice(&self.next().to_le_bytes());
        }
        bytes.truncate(length);
        bytes
    }
}
