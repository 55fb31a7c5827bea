//! Online sessions: who is connected, on which device, in which shard.
//!
//! Owns the process-wide registry (uid to sessions) and session ids. A [`SessionId`] is never reused in a process and
//! fences every removal: what is told to a session that has gone meets nobody. No guard of the map lives across a call out,
//! so whoever watches may hear of two changes in another order than they happened: each carries its number.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use protocol::ids::{DeviceFlag, Uid};
use smallvec::SmallVec;

/// Names a session for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Where a session is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionPlace {
    /// The session.
    pub session: SessionId,
    /// Its shard.
    pub shard: u16,
    /// Its slot there.
    pub slot: u32,
}

/// The device of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its kind.
    pub flag: DeviceFlag,
    /// 0 slave, 1 master (wukongim-http.md 3.1).
    pub level: u8,
    /// Its name.
    pub id: Arc<str>,
}

impl Device {
    fn is(&self, other: &Self) -> bool {
        self.flag == other.flag && self.id == other.id
    }
}

/// A session came or went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionChange {
    /// Counts all changes of all users, in the order they happened for each of them.
    pub order: u64,
    /// Whose.
    pub uid: Uid,
    /// Its device kind.
    pub device_flag: DeviceFlag,
    /// Which.
    pub session: SessionId,
    /// It came; else it went.
    pub online: bool,
    /// Sessions the user has on this device kind now.
    pub of_device: usize,
    /// Sessions the user has now.
    pub of_user: usize,
}

/// Who is told of every session that comes or goes, on a shard's thread: it must return at once.
pub trait SessionWatcher: Send + Sync {
    /// A session came or went.
    fn session_changed(&self, change: SessionChange);
}

#[derive(Debug, Clone)]
struct Entry {
    place: SessionPlace,
    device: Device,
}

impl Entry {
    /// This session as a change, with the counts of `entries`.
    fn changed(&self, order: u64, uid: &Uid, online: bool, entries: &[Entry]) -> SessionChange {
        let device_flag = self.device.flag;
        SessionChange {
            order,
            uid: uid.clone(),
            device_flag,
            session: self.place.session,
            online,
            of_device: entries.iter().filter(|e| e.device.flag == device_flag).count(),
            of_user: entries.len(),
        }
    }
}

/// What a new session meant for the others of its user.
#[derive(Debug, Default)]
pub struct Entered {
    /// Sessions of the same device, to be kicked.
    pub kicked: SmallVec<[SessionPlace; 1]>,
    /// The user was offline before.
    pub first: bool,
}

/// The registry of online sessions.
pub struct Sessions {
    by_uid: DashMap<Uid, SmallVec<[Entry; 1]>, foldhash::fast::RandomState>,
    next: AtomicU64,
    count: AtomicUsize,
    changes: AtomicU64,
    watcher: OnceLock<Arc<dyn SessionWatcher>>,
}

impl std::fmt::Debug for Sessions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sessions").field("count", &self.count).finish_non_exhaustive()
    }
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            by_uid: DashMap::with_hasher(foldhash::fast::RandomState::default()),
            next: AtomicU64::new(1),
            count: AtomicUsize::new(0),
            changes: AtomicU64::new(1),
            watcher: OnceLock::new(),
        }
    }
}

impl Sessions {
    /// A session id nobody had before.
    pub fn next_id(&self) -> SessionId {
        SessionId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Sessions online.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }

    /// Has `watcher` told of every session from now on. Only the first one is.
    pub fn watch(&self, watcher: Arc<dyn SessionWatcher>) {
        let _ = self.watcher.set(watcher);
    }

    fn order(&self) -> u64 {
        self.changes.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a session. An older one of the same (device kind, name) leaves the registry and is named in the
    /// answer. `None`: the user has `per_user_max` sessions on other devices already.
    pub fn enter(&self, uid: &Uid, place: SessionPlace, device: Device, per_user_max: usize) -> Option<Entered> {
        let mut changes: SmallVec<[SessionChange; 2]> = SmallVec::new();
        let entered = {
            let mut entries = self.by_uid.entry(uid.clone()).or_default();
            let mut entered = Entered { first: entries.is_empty(), ..Entered::default() };
            if entries.iter().filter(|e| !e.device.is(&device)).count() >= per_user_max {
                return None;
            }
            let mut gone: SmallVec<[Entry; 1]> = SmallVec::new();
            entries.retain(|e| {
                let old = e.device.is(&device);
                if old {
                    entered.kicked.push(e.place);
                    gone.push(e.clone());
                }
                !old
            });
            let new = Entry { place, device };
            entries.push(new.clone());
            if self.watcher.get().is_some() {
                // The one that came first: nobody sees a user leave who only came again.
                changes.push(new.changed(self.order(), uid, true, &entries));
                changes.extend(gone.iter().map(|old| old.changed(self.order(), uid, false, &entries)));
            }
            entered
        };
        self.count.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_sub(entered.kicked.len(), Ordering::Relaxed);
        self.tell(changes);
        Some(entered)
    }

    fn tell(&self, changes: impl IntoIterator<Item = SessionChange>) {
        if let Some(watcher) = self.watcher.get() {
            changes.into_iter().for_each(|change| watcher.session_changed(change));
        }
    }

    /// Takes a session out. Returns whether its user is offline now; `None` when it was not registered (any more).
    pub fn leave(&self, uid: &Uid, session: SessionId) -> Option<bool> {
        let (mut left, mut change) = (None, None);
        self.by_uid.remove_if_mut(uid, |_, entries| {
            if let Some(at) = entries.iter().position(|e| e.place.session == session) {
                let gone = entries.remove(at);
                left = Some(entries.is_empty());
                if self.watcher.get().is_some() {
                    change = Some(gone.changed(self.order(), uid, false, entries));
                }
            }
            entries.is_empty()
        });
        if left.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
        self.tell(change);
        left
    }

    /// Where a user's sessions are.
    pub fn places(&self, uid: &str) -> SmallVec<[SessionPlace; 4]> {
        self.by_uid.get(uid).map(|entries| entries.iter().map(|e| e.place).collect()).unwrap_or_default()
    }

    /// A user's sessions with their device kinds.
    pub fn devices(&self, uid: &str) -> SmallVec<[(SessionPlace, DeviceFlag); 4]> {
        self.by_uid
            .get(uid)
            .map(|entries| entries.iter().map(|e| (e.place, e.device.flag)).collect())
            .unwrap_or_default()
    }

    /// Whether the user has a session on a master device.
    pub fn has_master(&self, uid: &str) -> bool {
        self.by_uid.get(uid).is_some_and(|entries| entries.iter().any(|e| e.device.level == 1))
    }

    /// Whether the user has a session.
    pub fn is_online(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid)
    }
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    fn device(flag: u8, level: u8, id: &str) -> Device {
        Device { flag: DeviceFlag(flag), level, id: id.into() }
    }

    #[test]
    fn the_same_device_replaces_and_ids_fence_removal() {
        let sessions = Sessions::default();
        let uid = Uid::new("u").expect("uid");
        let place = |n: u32| SessionPlace { session: sessions.next_id(), shard: 0, slot: n };
        let (a, b) = (place(1), place(2));
        let entered = sessions.enter(&uid, a, device(0, 1, "phone"), 1).expect("room");
        assert!(entered.first && entered.kicked.is_empty() && sessions.has_master("u"));
        let entered = sessions.enter(&uid, b, device(0, 0, "phone"), 1).expect("same device");
        assert_eq!(entered.kicked.as_slice(), &[a]);
        assert!(!entered.first && !sessions.has_master("u"));
        assert!(sessions.enter(&uid, place(3), device(1, 0, "web"), 1).is_none());
        assert_eq!(sessions.leave(&uid, a.session), None);
        assert_eq!(sessions.count(), 1);
        assert_eq!(sessions.leave(&uid, b.session), Some(true));
        assert!(!sessions.is_online("u"));
        assert_eq!(sessions.count(), 0);
    }

    #[derive(Default)]
    struct Heard(Mutex<Vec<String>>);

    impl SessionWatcher for Heard {
        fn session_changed(&self, c: SessionChange) {
            let text = format!("{}-{}-{}-{}-{}", c.uid, c.device_flag.0, u8::from(c.online), c.of_device, c.of_user);
            self.0.lock().push(text);
        }
    }

    #[test]
    fn who_watches_hears_each_session_with_the_counts_behind_it() {
        let (sessions, heard) = (Sessions::default(), Arc::new(Heard::default()));
        sessions.watch(heard.clone());
        let uid = Uid::new("u-1").expect("uid");
        let place = |n: u32| SessionPlace { session: sessions.next_id(), shard: 0, slot: n };
        let (a, b, c) = (place(1), place(2), place(3));
        sessions.enter(&uid, a, device(0, 1, "phone"), 9).expect("room");
        sessions.enter(&uid, b, device(1, 0, "web"), 9).expect("room");
        sessions.enter(&uid, c, device(0, 1, "phone"), 9).expect("room");
        sessions.leave(&uid, a.session);
        sessions.leave(&uid, c.session);
        sessions.leave(&uid, b.session);
        let expected = ["u-1-0-1-1-1", "u-1-1-1-1-2", "u-1-0-1-1-2", "u-1-0-0-1-2", "u-1-0-0-0-1", "u-1-1-0-0-0"];
        assert_eq!(*heard.0.lock(), expected);
    }
}
