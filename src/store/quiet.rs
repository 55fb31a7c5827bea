//! Which reads are counted. [`super::ReadCounts`] is what questions cost; what the store's own threads read in the
//! background answers nobody and would make every figure of a test depend on timing.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static BACKGROUND: Cell<bool> = const { Cell::new(false) };
}

/// From now on reads of this thread are not counted.
pub fn run_in_background() {
    BACKGROUND.set(true);
}

/// Counts one read, unless this thread works in the background.
pub fn count(reads: &AtomicU64) {
    if !BACKGROUND.get() {
        reads.fetch_add(1, Ordering::Relaxed);
    }
}
