//! The one way into a shard from other threads.
//!
//! Owns a queue that any thread may push to and one shard takes from as a whole. Bounds: drafts are refused by
//! [`Inbox::has_room`] at the sender; what the committer pushes is bounded by the drafts it answers, and administrative
//! requests by the HTTP listener's own limit of requests at work.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A multi-producer, single-consumer queue, emptied in one go so that a turn of the shard sees everything that waits.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: Mutex<Vec<T>>,
    len: AtomicUsize,
    filled: Notify,
    entries_max: usize,
}

impl<T> Inbox<T> {
    /// An empty inbox that calls itself full from `entries_max` entries on.
    pub fn new(entries_max: usize) -> Self {
        Self { queue: Mutex::new(Vec::new()), len: AtomicUsize::new(0), filled: Notify::new(), entries_max }
    }

    /// Whether a new draft may still be pushed. What must arrive (outcomes, membership) is pushed regardless.
    pub fn has_room(&self) -> bool {
        self.len.load(Ordering::Relaxed) < self.entries_max
    }

    /// Adds one entry and wakes the shard when it may sleep.
    pub fn push(&self, item: T) {
        let was_empty = {
            let mut queue = self.queue.lock();
            queue.push(item);
            self.len.store(queue.len(), Ordering::Relaxed);
            queue.len() == 1
        };
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Adds many entries at once, in order, and leaves `items` empty.
    pub fn append(&self, items: &mut Vec<T>) {
        if items.is_empty() {
            return;
        }
        let was_empty = {
            let mut queue = self.queue.lock();
            let was_empty = queue.is_empty();
            queue.append(items);
            self.len.store(queue.len(), Ordering::Relaxed);
            was_empty
        };
        if was_empty {
            self.filled.notify_one();
        }
    }

    /// Swaps everything that waits into `into`, which must be empty.
    pub fn take(&self, into: &mut Vec<T>) {
        debug_assert!(into.is_empty());
        let mut queue = self.queue.lock();
        std::mem::swap(&mut *queue, into);
        self.len.store(0, Ordering::Relaxed);
    }

    /// Waits until something was pushed since the last [`Inbox::take`].
    pub async fn filled(&self) {
        self.filled.notified().await;
    }
}
