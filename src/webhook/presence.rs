//! user.onlinestatus: sessions that came and went.
//!
//! Best effort, as in the reference: what waits is in memory, bounded, and lost with the process; the sessions of a process
//! that was killed are never said to have gone. Changes of one session become its last one. A call that fails five times is
//! given up, so that what the endpoint then hears is of now.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::Context;
use super::body;
use super::call::{Failure, backoff, chance};
use super::cursor::Failing;
use super::endpoint::Event;
use super::running::Live;
use crate::clock;
use crate::hub::sessions::{SessionChange, SessionId, SessionWatcher};

/// Failures after which a call is given up (wukongim-http.md section 10).
const ATTEMPTS_MAX: u32 = 5;

/// Everybody who wants to hear of sessions.
#[derive(Debug, Default)]
pub struct Watchers(RwLock<Vec<Arc<SessionQueue>>>);

impl Watchers {
    pub(super) fn add(&self, queue: Arc<SessionQueue>) {
        self.0.write().push(queue);
    }

    pub(super) fn remove(&self, queue: &Arc<SessionQueue>) {
        self.0.write().retain(|known| !Arc::ptr_eq(known, queue));
    }
}

impl SessionWatcher for Watchers {
    fn session_changed(&self, change: SessionChange) {
        for queue in self.0.read().iter() {
            queue.push(&change);
        }
    }
}

/// What waits for one endpoint.
#[derive(Debug)]
pub struct SessionQueue {
    namespace: Option<String>,
    max: usize,
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    lines: BTreeMap<u64, SessionChange>,
    of_session: HashMap<SessionId, u64>,
    status: QueueStatus,
}

/// What is known of a queue.
#[derive(Debug, Clone, Default)]
pub struct QueueStatus {
    /// Changes that wait.
    pub waiting: usize,
    /// Changes given up since the start: too many waited, or their call failed too often.
    pub dropped: u64,
    /// Changes told since the start.
    pub told: u64,
    /// Calls made since the start.
    pub attempts: u64,
    /// Calls that did not count.
    pub failures: u64,
    /// Why it does not get on, when it does not.
    pub failing: Option<Failing>,
}

impl SessionQueue {
    pub(super) fn new(namespace: Option<String>, max: usize) -> Self {
        Self { namespace, max, waiting: Mutex::default(), filled: Notify::new() }
    }

    /// What is known now.
    #[must_use]
    pub fn status(&self) -> QueueStatus {
        let waiting = self.waiting.lock();
        QueueStatus { waiting: waiting.lines.len(), ..waiting.status.clone() }
    }

    fn push(&self, change: &SessionChange) {
        if change.uid.namespace() != self.namespace.as_deref() {
            return;
        }
        let mut waiting = self.waiting.lock();
        match waiting.of_session.get(&change.session).copied() {
            Some(newer) if newer > change.order => return,
            Some(older) => drop(waiting.lines.remove(&older)),
            None if waiting.lines.len() >= self.max => {
                if let Some((_, oldest)) = waiting.lines.pop_first() {
                    waiting.of_session.remove(&oldest.session);
                    waiting.status.dropped += 1;
                }
            }
            None => {}
        }
        waiting.of_session.insert(change.session, change.order);
        waiting.lines.insert(change.order, change.clone());
        drop(waiting);
        self.filled.notify_one();
    }

    fn is_empty(&self) -> bool {
        self.waiting.lock().lines.is_empty()
    }

    fn take(&self, max: usize) -> Vec<SessionChange> {
        let mut waiting = self.waiting.lock();
        let mut taken = Vec::new();
        while taken.len() < max
            && let Some((_, change)) = waiting.lines.pop_first()
        {
            waiting.of_session.remove(&change.session);
            taken.push(change);
        }
        taken
    }
}

/// The worker of one endpoint.
pub(super) struct OnlineStatus {
    pub context: Arc<Context>,
    pub queue: Arc<SessionQueue>,
    pub live: Live,
    pub name: String,
    pub stop: tokio::sync::watch::Receiver<bool>,
}

impl OnlineStatus {
    /// Tells until the server drains and nothing waits.
    pub async fn run(mut self) {
        let mut last_call: Option<Instant> = None;
        loop {
            if self.queue.is_empty() {
                if *self.stop.borrow() {
                    return;
                }
                tokio::select! {
                    () = self.queue.filled.notified() => {}
                    _ = self.stop.wait_for(|stop| *stop) => {}
                }
                continue;
            }
            if let Some(at) = last_call
                && self.queue.status().waiting < self.live.terms().batch_max
            {
                let wait = self.live.terms().push_interval.saturating_sub(at.elapsed());
                tokio::select! {
                    () = tokio::time::sleep(wait) => {}
                    _ = self.stop.wait_for(|stop| *stop) => {}
                }
            }
            last_call = Some(Instant::now());
            let changes = self.queue.take(self.live.terms().batch_max);
            self.tell(&changes).await;
        }
    }

    async fn tell(&mut self, changes: &[SessionChange]) {
        let lines: Vec<String> = changes.iter().map(body::status_line).collect();
        let Ok(body) = body::online_status(&lines) else { return };
        for attempt in 1..=ATTEMPTS_MAX {
            let now_ms = clock::now_ms();
            let outcome = self
                .context
                .client()
                .call(&self.live.target(), Event::OnlineStatus, body.clone(), now_ms / 1_000)
                .await;
            self.context.metrics.webhook_called(&self.name, Event::OnlineStatus.name(), outcome.is_err());
            let wait = backoff(attempt, self.live.terms().retry_max, chance());
            match self.note(changes.len() as u64, attempt, outcome, wait, now_ms) {
                Some(()) if attempt < ATTEMPTS_MAX => {}
                _ => return,
            }
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // The endpoint is not what it was.
                () = self.live.changed() => {}
                // A server that ends tries once more, at once.
                _ = self.stop.wait_for(|stop| *stop) => {}
            }
        }
    }

    /// Notes what became of a call. `Some`: it failed.
    fn note(
        &self,
        count: u64,
        attempt: u32,
        outcome: Result<(), Failure>,
        wait: std::time::Duration,
        now_ms: u64,
    ) -> Option<()> {
        let mut waiting = self.queue.waiting.lock();
        let status = &mut waiting.status;
        status.attempts += 1;
        let Err(failure) = outcome else {
            status.told += count;
            status.failing = None;
            return None;
        };
        status.failures += 1;
        if attempt == ATTEMPTS_MAX {
            status.dropped += count;
            tracing::warn!(endpoint = self.name, error = %failure, count, "changes of sessions were not told");
        }
        let since_ms = status.failing.as_ref().map_or(now_ms, |failing| failing.since_ms);
        let next_ms = now_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        status.failing = Some(Failing { since_ms, attempts: attempt, error: failure.to_string(), next_ms });
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use protocol::ids::{DeviceFlag, Uid};

    use super::*;

    fn change(order: u64, session: u64, online: bool) -> SessionChange {
        SessionChange {
            order,
            uid: Uid::from_stored("u"),
            device_flag: DeviceFlag(0),
            session: SessionId(session),
            online,
            of_device: 0,
            of_user: 0,
        }
    }

    #[test]
    fn a_session_waits_once_in_the_order_of_its_last_change() {
        let queue = SessionQueue::new(None, 3);
        queue.push(&change(1, 1, true));
        queue.push(&change(2, 2, true));
        queue.push(&change(3, 1, false));
        // Told late by another thread.
        queue.push(&change(1, 1, true));
        let taken: Vec<_> = queue.take(10).into_iter().map(|c| (c.session.0, c.online)).collect();
        assert_eq!(taken, [(2, true), (1, false)]);
        for n in 1..=5 {
            queue.push(&change(n, n, true));
        }
        assert_eq!((queue.status().waiting, queue.status().dropped), (3, 2));
        assert_eq!(queue.take(2).iter().map(|c| c.session.0).collect::<Vec<_>>(), [3, 4]);
        assert_eq!(queue.take(2).len(), 1);
        queue.push(&SessionChange { uid: Uid::from_stored("acme\u{1f}u"), ..change(9, 9, true) });
        assert!(queue.is_empty());
    }
}
