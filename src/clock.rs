//! The one place that reads the wall clock.

use std::time::{SystemTime, UNIX_EPOCH};

/// Unix microseconds; 0 when the clock stands before 1970.
#[expect(clippy::disallowed_methods, reason = "this is the place")]
pub fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// Unix milliseconds.
pub fn now_ms() -> u64 {
    now_us() / 1_000
}
