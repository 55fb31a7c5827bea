//! Keeping to a number of bytes per second beside a server at work.
//!
//! Owns the sum; what has to wait is decided by a pure function of bytes and time, so tests need no clock.

use std::time::{Duration, Instant};

/// Shorter than this, sleeping costs more than it evens out.
const WORTH_SLEEPING: Duration = Duration::from_millis(1);

/// Bytes spent so far against a rate.
#[derive(Debug)]
pub(super) struct Pace {
    per_second: Option<u64>,
    begun: Instant,
    bytes: u64,
}

impl Pace {
    /// `None` or 0: as fast as it goes.
    pub(super) fn new(per_second: Option<u64>) -> Self {
        Self { per_second: per_second.filter(|rate| *rate > 0), begun: Instant::now(), bytes: 0 }
    }

    /// Notes bytes that were read and waits until the rate allows them.
    #[expect(clippy::disallowed_methods, reason = "a rate is kept by letting time pass")]
    pub(super) fn spend(&mut self, bytes: u64) {
        if let Some(wait) = self.wait_after(bytes, self.begun.elapsed()) {
            std::thread::sleep(wait);
        }
    }

    /// How long to wait after these bytes, `elapsed` after the beginning; `None`: not worth it.
    fn wait_after(&mut self, bytes: u64, elapsed: Duration) -> Option<Duration> {
        self.bytes = self.bytes.saturating_add(bytes);
        let per_second = self.per_second?;
        let due = Duration::from_secs_f64(self.bytes as f64 / per_second as f64);
        Some(due.saturating_sub(elapsed)).filter(|wait| *wait > WORTH_SLEEPING)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_kept_at_every_moment() {
        for (rate, piece, work_us) in
            [(1_000_u64, 300_u64, 0_u64), (20_000_000, 262_144, 900), (7, 3, 50_000), (u64::MAX, 1 << 40, 10)]
        {
            let mut pace = Pace::new(Some(rate));
            let (mut now, mut bytes) = (Duration::ZERO, 0);
            for _ in 0..1_000 {
                now += Duration::from_micros(work_us);
                bytes += piece;
                now += pace.wait_after(piece, now).unwrap_or_default();
                let allowed = (now + WORTH_SLEEPING).as_secs_f64() * rate as f64;
                assert!(bytes as f64 <= allowed + 1.0, "{bytes} bytes after {now:?} at {rate} per second");
            }
            // And no more is waited than the rate, or the work itself, asks for.
            let (by_rate, by_work) = (bytes as f64 / rate as f64, work_us as f64 * 1e-3);
            assert!(now.as_secs_f64() <= by_rate.max(by_work) + work_us as f64 * 1e-6 + 1e-6, "{now:?} at {rate}");
        }
    }

    #[test]
    fn without_a_rate_nothing_waits() {
        for rate in [None, Some(0)] {
            assert_eq!(Pace::new(rate).wait_after(u64::MAX, Duration::ZERO), None);
        }
    }
}
