//! What is wrong with the store now, and the one line in the log when that changes.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::store::{StoreError, StoreHealth};

/// First pause between attempts to put something right.
const PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// What was right for this long begins with the first pause again.
const CALM: Duration = Duration::from_secs(10);

/// A lot that is being committed, for as long as this lives.
#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    /// Since when, in the owner's own count; 0 is nobody.
    pub fn begin(since: &'a AtomicU64, now: u64) -> Self {
        since.store(now, Ordering::Relaxed);
        Self(since)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// What can be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Lots cannot be written to the log.
    Log,
    /// The view cannot be written, is damaged, or is behind the log.
    View,
    /// A write has waited for the disk for long.
    Wait,
}

const PARTS: [Part; 3] = [Part::Log, Part::View, Part::Wait];

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Log => "the log cannot be written",
            Self::View => "the view cannot be used",
            Self::Wait => "the disk is slow",
        })
    }
}

#[derive(Debug, Default)]
struct Trouble {
    /// Since when, and why; `None`: it is well.
    now: Option<(Instant, String)>,
    /// How often it failed since then.
    times: u64,
    pause: Duration,
    next_try: Option<Instant>,
    ended: Option<Instant>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub struct Health {
    parts: Mutex<[Trouble; 3]>,
}

impl Health {
    /// Notes a failure; the first one of a row is an error line.
    pub fn went_wrong(&self, part: Part, error: &StoreError) {
        self.note(part, cause_of(error), &super::chain_of(error));
    }

    /// As [`Health::went_wrong`], without an error.
    pub fn note(&self, part: Part, why: String, detail: &str) {
        let mut parts = self.parts.lock();
        let trouble = &mut parts[part as usize];
        trouble.times += 1;
        if trouble.now.is_some() {
            tracing::debug!(detail, times = trouble.times, "{part} still");
            return;
        }
        let now = Instant::now();
        if trouble.ended.is_none_or(|ended| now.duration_since(ended) > CALM) {
            trouble.pause = PAUSE_MIN;
        }
        trouble.next_try = Some(now + trouble.pause);
        trouble.now = Some((now, why));
        trouble.times = 1;
        tracing::error!(detail, "{part}");
    }

    /// Notes that it is well; a warning line when it was not.
    pub fn is_well(&self, part: Part) {
        let mut parts = self.parts.lock();
        let trouble = &mut parts[part as usize];
        let Some((since, _)) = trouble.now.take() else { return };
        trouble.ended = Some(Instant::now());
        let after_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::warn!(after_ms, times = trouble.times, "no longer: {part}");
    }

    /// Whether it is wrong and time to try to put it right. Each `true` doubles the pause to the next.
    pub fn is_try_due(&self, part: Part) -> bool {
        let mut parts = self.parts.lock();
        let trouble = &mut parts[part as usize];
        let now = Instant::now();
        if trouble.now.is_none() || trouble.next_try.is_some_and(|at| at > now) {
            return false;
        }
        trouble.pause = (trouble.pause * 2).min(PAUSE_MAX);
        trouble.next_try = Some(now + trouble.pause);
        true
    }

    /// As told to others. `readable`: what is stored can be read; `view_takes`: so that more can be added to it.
    pub fn report(&self, readable: bool, view_takes: bool) -> StoreHealth {
        let parts = self.parts.lock();
        let of = |part: Part| {
            let (since, why) = parts[part as usize].now.as_ref()?;
            Some(format!("{part}: {why}, since {} s", since.elapsed().as_secs()))
        };
        let problems: Vec<String> = PARTS.into_iter().filter_map(of).collect();
        StoreHealth {
            writable: parts[Part::Log as usize].now.is_none() && view_takes,
            readable,
            problem: (!problems.is_empty()).then(|| problems.join("; ")),
        }
    }
}

/// The innermost cause when it is the system's, which names no user, channel or path.
fn cause_of(error: &StoreError) -> String {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return io.to_string();
        }
        cause = error.source();
    }
    "the server's log says why".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_said_until_it_is_right_and_names_no_path() {
        let health = Health::default();
        assert_eq!(health.report(true, true), StoreHealth::well());
        let full = || StoreError::io("append lot", "/somewhere/0000000001.log", std::io::Error::from_raw_os_error(28));
        health.went_wrong(Part::Log, &full());
        health.went_wrong(Part::Log, &full());
        let report = health.report(true, true);
        assert!(!report.writable && report.readable, "{report:?}");
        let problem = report.problem.expect("a problem");
        assert!(problem.starts_with("the log cannot be written: No space left on device"), "{problem}");
        assert!(!problem.contains("somewhere"), "{problem}");
        health.is_well(Part::Log);
        assert_eq!(health.report(true, true), StoreHealth::well());
        // Slowness alone stops nothing.
        health.note(Part::Wait, "a lot waits".into(), "");
        assert!(health.report(true, true).writable && health.report(true, true).problem.is_some());
        assert!(!health.report(false, false).writable);
    }
}
