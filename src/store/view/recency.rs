//! When each channel last changed for its members: a dense array, and all channels in order of that change.
//!
//! The order is a linked list over dense numbers, so it never forgets: "what changed after V" is answered exactly, in
//! proportion to the answer, also right after a start and also when one channel changes a million times.
//! 8 bytes per channel for the versions and 8 for the links.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

const CHUNK: usize = 1 << 16;
const CHUNKS: usize = 1 << 16;
const NONE: u32 = u32::MAX;

type Chunk = Box<[AtomicU64]>;

/// See the module's head.
pub struct Recency {
    /// Version of the last change, by channel number; 0: none.
    changed: Vec<OnceLock<Chunk>>,
    order: Mutex<Order>,
}

impl std::fmt::Debug for Recency {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Recency")
    }
}

struct Order {
    /// (towards newer, towards older), by channel number.
    links: Vec<(u32, u32)>,
    newest: u32,
}

impl Order {
    fn touch(&mut self, no: u32, was_in: bool) {
        if self.newest == no {
            return;
        }
        let at = no as usize;
        if self.links.len() <= at {
            self.links.resize(at + 1, (NONE, NONE));
        }
        if was_in {
            let (newer, older) = self.links[at];
            // It is not the newest, so something newer exists.
            self.links[newer as usize].1 = older;
            if older != NONE {
                self.links[older as usize].0 = newer;
            }
        }
        self.links[at] = (NONE, self.newest);
        if self.newest != NONE {
            self.links[self.newest as usize].0 = no;
        }
        self.newest = no;
    }
}

impl Recency {
    /// Takes every channel's last change, in any order.
    pub fn new(mut changes: Vec<(u64, u32)>) -> Self {
        let recency = Self {
            changed: (0..CHUNKS).map(|_| OnceLock::new()).collect(),
            order: Mutex::new(Order { links: Vec::new(), newest: NONE }),
        };
        changes.sort_unstable();
        changes.into_iter().for_each(|(version, no)| recency.touch(no, version));
        recency
    }

    fn cell(&self, no: u32) -> Option<&AtomicU64> {
        self.changed[no as usize / CHUNK].get().map(|chunk| &chunk[no as usize % CHUNK])
    }

    /// The channel changed. A version that is not newer than the known one changes nothing.
    pub fn touch(&self, no: u32, version: u64) {
        let chunk = self.changed[no as usize / CHUNK].get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(0)).collect());
        let mut order = self.order.lock();
        let before = chunk[no as usize % CHUNK].load(Ordering::Relaxed);
        if version > before {
            chunk[no as usize % CHUNK].store(version, Ordering::Release);
            order.touch(no, before > 0);
        }
    }

    fn changed(&self, no: u32) -> u64 {
        self.cell(no).map_or(0, |cell| cell.load(Ordering::Acquire))
    }

    /// Those of `of` that changed after `since`.
    pub fn among<T: Copy>(&self, of: &[T], no: impl Fn(T) -> u32, since: u64) -> Vec<T> {
        of.iter().copied().filter(|&item| self.changed(no(item)) > since).collect()
    }

    /// Every channel that changed after `since`, newest first; `None`: more than `max`.
    pub fn after(&self, since: u64, max: usize) -> Option<Vec<u32>> {
        let order = self.order.lock();
        let mut found = Vec::new();
        let mut at = order.newest;
        while at != NONE && self.changed(at) > since {
            if found.len() == max {
                return None;
            }
            found.push(at);
            at = order.links[at as usize].1;
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_come_newest_first_and_once() {
        let recency = Recency::new(vec![(5, 2), (3, 1), (9, 70_000)]);
        assert_eq!(recency.after(0, 9), Some(vec![70_000, 2, 1]));
        assert_eq!(recency.after(4, 9), Some(vec![70_000, 2]));
        assert_eq!(recency.after(9, 0), Some(vec![]));
        assert_eq!(recency.after(0, 2), None);
        recency.touch(1, 10);
        recency.touch(2, 11);
        recency.touch(2, 12);
        recency.touch(0, 13);
        recency.touch(70_000, 9);
        assert_eq!(recency.after(0, 9), Some(vec![0, 2, 1, 70_000]));
        assert_eq!(recency.among(&[0u32, 1, 2, 3, 70_000], |no| no, 10), vec![0, 2]);
    }
}
