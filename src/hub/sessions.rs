//! Online sessions: who is connected, on which device, in which shard.
//!
//! Owns the process-wide registry (uid to sessions) and session ids. A [`SessionId`] is never reused in a process and
//! fences every removal: what is told to a session that has gone meets nobody. No guard of the map lives across a call out,
//! so whoever watches may hear of two changes in another order than they happened: each carries its number.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use dashmap::DashMap;
use protocol::close::CloseReason;
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

/// The device a session is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its kind.
    pub flag: DeviceFlag,
    /// Its name among those of its kind.
    pub id: Arc<str>,
    /// Whether its token has WuKongIM's device level 1 (wukongim-http.md 3.1).
    pub master: bool,
    /// Whether it is the only one of its kind: sessions on others end. What WuKongIM's protocols do with a master.
    pub alone: bool,
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

/// A session as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Online {
    /// Where it is.
    pub place: SessionPlace,
    /// Its user.
    pub uid: Uid,
    /// Its device kind.
    pub device_flag: DeviceFlag,
    /// Its device.
    pub device_id: Arc<str>,
}

/// What has passed in one direction of a session's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Passed {
    /// Messages: sent by its client, delivered to it.
    pub messages: u32,
    /// Bytes of their payloads, and outwards of the names around them, about.
    pub message_bytes: u64,
    /// Frames or packets of any kind.
    pub packets: u32,
    /// Bytes of the socket.
    pub bytes: u64,
}

impl Passed {
    /// Adds what has passed since.
    pub fn add(&mut self, more: Self) {
        self.messages = self.messages.saturating_add(more.messages);
        self.message_bytes = self.message_bytes.saturating_add(more.message_bytes);
        self.packets = self.packets.saturating_add(more.packets);
        self.bytes = self.bytes.saturating_add(more.bytes);
    }
}

/// A session's connection as operators see it. Counts begin with the session and stop at their largest value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// Whose.
    pub session: SessionId,
    /// The client's address, which a trusted proxy may have told; port 0 where it told none. `None`: it has hung up.
    pub client: Option<SocketAddr>,
    /// Version of WKProto; 0: another protocol.
    pub version: u8,
    /// When it began, Unix milliseconds.
    pub began_ms: u64,
    /// When its client was last heard, Unix milliseconds.
    pub heard_ms: u64,
    /// Bytes that wait for its socket, about.
    pub pending_bytes: usize,
    /// From its client.
    pub received: Passed,
    /// To its client.
    pub sent: Passed,
}

/// What a new session meant for the others of its user.
#[derive(Debug, Default)]
pub struct Entered {
    /// Sessions to be kicked, and why: of the same device, or of one that gives way to a master.
    pub kicked: SmallVec<[(SessionPlace, CloseReason); 1]>,
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

    /// Registers a session. An older one of the same (device_flag, device_id), and when the device is to be alone every one
    /// of its flag, leaves the registry and is named in the answer. `None`: the user has `per_user_max` sessions on other devices already.
    pub fn enter(&self, uid: &Uid, place: SessionPlace, device: &Device, per_user_max: usize) -> Option<Entered> {
        let kick = |e: &Entry| match (e.device.flag == device.flag, e.device.id == device.id) {
            (true, true) => Some(CloseReason::SameDevice),
            (true, false) if device.alone => Some(CloseReason::OtherDevice),
            _ => None,
        };
        let mut changes: SmallVec<[SessionChange; 2]> = SmallVec::new();
        let entered = {
            let mut entries = self.by_uid.entry(uid.clone()).or_default();
            let mut entered = Entered { first: entries.is_empty(), ..Entered::default() };
            if entries.iter().filter(|e| kick(e).is_none()).count() >= per_user_max {
                return None;
            }
            let mut gone: SmallVec<[Entry; 1]> = SmallVec::new();
            entries.retain(|e| {
                let reason = kick(e);
                if let Some(reason) = reason {
                    entered.kicked.push((e.place, reason));
                    gone.push(e.clone());
                }
                reason.is_none()
            });
            let new = Entry { place, device: device.clone() };
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

    /// Sessions in order of their ids, at most `limit` behind the first `offset`, and how many there are: of a user, or of all
    /// (`None`). Looks at every session.
    pub fn page(&self, uid: Option<&Uid>, offset: usize, limit: usize) -> (Vec<Online>, usize) {
        let mut ids: Vec<(SessionId, Uid)> = Vec::new();
        let mut take = |uid: &Uid, entries: &SmallVec<[Entry; 1]>| {
            ids.extend(entries.iter().map(|entry| (entry.place.session, uid.clone())));
        };
        match uid {
            Some(uid) => drop(self.by_uid.get(uid.as_str()).map(|entries| take(uid, &entries))),
            None => self.by_uid.iter().for_each(|found| take(found.key(), found.value())),
        }
        ids.sort_unstable();
        let total = ids.len();
        let page = ids.into_iter().skip(offset).take(limit).filter_map(|(session, uid)| {
            let entries = self.by_uid.get(uid.as_str())?;
            let entry = entries.iter().find(|entry| entry.place.session == session)?;
            let (device_flag, device_id) = (entry.device.flag, entry.device.id.clone());
            Some(Online { place: entry.place, device_flag, device_id, uid: uid.clone() })
        });
        (page.collect(), total)
    }

    /// Whether the user has a session on a master device.
    pub fn has_master(&self, uid: &str) -> bool {
        self.by_uid.get(uid).is_some_and(|entries| entries.iter().any(|e| e.device.master))
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

    fn device(flag: u8, master: bool, id: &str) -> Device {
        Device { flag: DeviceFlag(flag), id: id.into(), master, alone: false }
    }

    #[test]
    fn the_same_device_replaces_and_ids_fence_removal() {
        let sessions = Sessions::default();
        let uid = Uid::new("u").expect("uid");
        let place = |n: u32| SessionPlace { session: sessions.next_id(), shard: 0, slot: n };
        let (a, b) = (place(1), place(2));
        let entered = sessions.enter(&uid, a, &device(0, true, "phone"), 1).expect("room");
        assert!(entered.first && entered.kicked.is_empty() && sessions.has_master("u"));
        let entered = sessions.enter(&uid, b, &device(0, false, "phone"), 1).expect("same device");
        assert_eq!(entered.kicked.as_slice(), &[(a, CloseReason::SameDevice)]);
        assert!(!entered.first && !sessions.has_master("u"));
        assert!(sessions.enter(&uid, place(3), &device(1, false, "web"), 1).is_none());
        assert_eq!(sessions.leave(&uid, a.session), None);
        assert_eq!(sessions.count(), 1);
        assert_eq!(sessions.leave(&uid, b.session), Some(true));
        assert!(!sessions.is_online("u"));
        assert_eq!(sessions.count(), 0);
    }

    #[test]
    fn a_master_is_the_only_one_of_its_flag() {
        let sessions = Sessions::default();
        let uid = Uid::new("u").expect("uid");
        let place = |n: u32| SessionPlace { session: sessions.next_id(), shard: 0, slot: n };
        let (a, b, c) = (place(1), place(2), place(3));
        let web = Device { flag: DeviceFlag(1), ..device(0, false, "x") };
        for (place, device) in [(a, device(0, false, "x")), (b, device(0, false, "y")), (c, web)] {
            assert!(sessions.enter(&uid, place, &device, 3).expect("room").kicked.is_empty());
        }
        let entered = sessions
            .enter(&uid, place(4), &Device { alone: true, ..device(0, true, "y") }, 2)
            .expect("the kicked do not count");
        assert_eq!(entered.kicked.as_slice(), &[(a, CloseReason::OtherDevice), (b, CloseReason::SameDevice)]);
        assert_eq!(sessions.count(), 2);
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
        sessions.enter(&uid, a, &device(0, true, "phone"), 9).expect("room");
        sessions.enter(&uid, b, &device(1, false, "web"), 9).expect("room");
        sessions.enter(&uid, c, &device(0, true, "phone"), 9).expect("room");
        sessions.leave(&uid, a.session);
        sessions.leave(&uid, c.session);
        sessions.leave(&uid, b.session);
        let expected = ["u-1-0-1-1-1", "u-1-1-1-1-2", "u-1-0-1-1-2", "u-1-0-0-1-2", "u-1-0-0-0-1", "u-1-1-0-0-0"];
        assert_eq!(*heard.0.lock(), expected);
    }
}
