//! Bugs on purpose, so that the history checker (`tests/history`) can be seen to find them.
//!
//! A checker that never complained proves nothing. With the feature `seeded-bugs` the environment variable SEEDED_BUG (no
//! setting, so without CHINWAG_ before it) names one defect, and the place where it would be made asks here. Without the
//! feature nothing of it is compiled; with it, a build without debug assertions is refused, so that no release can have it.
//! Refuses to know what the places do.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

#[cfg(not(debug_assertions))]
compile_error!("`seeded-bugs` is for tests only: this build would lose messages on purpose");

/// How often a bug of one moment is made.
const EVERY: u64 = 7;

/// A defect, by the word that selects it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// `skip-fdatasync`: lots are acked before they are on the disk.
    SkipFdatasync,
    /// `forget-dedupe-after-restart`: names stored before this process started are not recognised.
    ForgetDedupe,
    /// `swap-two-messages`: two messages of a lot are stored in each other's place.
    SwapTwoMessages,
    /// `drop-one-delivery`: a session is not told of a message.
    DropOneDelivery,
    /// `lose-read-position`: a position that was answered with success is not kept.
    LoseReadPosition,
    /// `reuse-version`: a change gets the version of the one before.
    ReuseVersion,
}

static SELECTED: LazyLock<Option<Bug>> = LazyLock::new(|| {
    let word = std::env::var("SEEDED_BUG").ok()?;
    let bug = match word.as_str() {
        "skip-fdatasync" => Bug::SkipFdatasync,
        "forget-dedupe-after-restart" => Bug::ForgetDedupe,
        "swap-two-messages" => Bug::SwapTwoMessages,
        "drop-one-delivery" => Bug::DropOneDelivery,
        "lose-read-position" => Bug::LoseReadPosition,
        "reuse-version" => Bug::ReuseVersion,
        other => {
            tracing::error!(bug = other, "SEEDED_BUG names no bug");
            return None;
        }
    };
    tracing::warn!(bug = word, "this server is broken on purpose");
    Some(bug)
});
static STARTED_US: LazyLock<u64> = LazyLock::new(crate::clock::now_us);
static ASKED: AtomicU64 = AtomicU64::new(0);

/// Whether this is the bug to make.
#[must_use]
pub fn is(bug: Bug) -> bool {
    LazyLock::force(&STARTED_US);
    *SELECTED == Some(bug)
}

/// Whether to make it this time: every seventh.
#[must_use]
pub fn now_and_then(bug: Bug) -> bool {
    is(bug) && ASKED.fetch_add(1, Ordering::Relaxed) % EVERY == EVERY - 1
}

/// When this was first asked anything: about when the process started, Unix microseconds.
#[must_use]
pub fn started_us() -> u64 {
    *STARTED_US
}
