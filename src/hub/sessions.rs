//! Online sessions: who is connected, on which device, in which shard.
//!
//! Owns the process-wide registry (uid to sessions) and session ids. A [`SessionId`] is never reused in a process and
//! fences every removal: what is told to a session that has gone meets nobody. No guard of the map lives across a call out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

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
#[derive(Debug, Clone)]
pub struct Device {
    /// Its kind.
    pub flag: DeviceFlag,
    /// Its name among those of its kind.
    pub id: Arc<str>,
    /// The only one of its kind: sessions on others end. WuKongIM's device level 1.
    pub master: bool,
}

#[derive(Debug, Clone)]
struct Entry {
    place: SessionPlace,
    device_flag: DeviceFlag,
    device_id: Arc<str>,
}

/// A session as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Online {
    /// The session.
    pub session: SessionId,
    /// Its user.
    pub uid: Uid,
    /// Its device kind.
    pub device_flag: DeviceFlag,
    /// Its device.
    pub device_id: Arc<str>,
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
#[derive(Debug)]
pub struct Sessions {
    by_uid: DashMap<Uid, SmallVec<[Entry; 1]>, foldhash::fast::RandomState>,
    next: AtomicU64,
    count: AtomicUsize,
}

impl Default for Sessions {
    fn default() -> Self {
        Self {
            by_uid: DashMap::with_hasher(foldhash::fast::RandomState::default()),
            next: AtomicU64::new(1),
            count: AtomicUsize::new(0),
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

    /// Registers a session. An older one of the same (device_flag, device_id), and when the device is a master every one of
    /// its flag, leaves the registry and is named in the answer. `None`: the user has `per_user_max` sessions on other devices already.
    pub fn enter(&self, uid: &Uid, place: SessionPlace, device: &Device, per_user_max: usize) -> Option<Entered> {
        let mut entries = self.by_uid.entry(uid.clone()).or_default();
        let mut entered = Entered { first: entries.is_empty(), ..Entered::default() };
        let kick = |e: &Entry| match (e.device_flag == device.flag, e.device_id == device.id) {
            (true, true) => Some(CloseReason::SameDevice),
            (true, false) if device.master => Some(CloseReason::OtherDevice),
            _ => None,
        };
        if entries.iter().filter(|e| kick(e).is_none()).count() >= per_user_max {
            return None;
        }
        entries.retain(|e| {
            let reason = kick(e);
            entered.kicked.extend(reason.map(|reason| (e.place, reason)));
            reason.is_none()
        });
        entries.push(Entry { place, device_flag: device.flag, device_id: device.id.clone() });
        self.count.fetch_add(1, Ordering::Relaxed);
        self.count.fetch_sub(entered.kicked.len(), Ordering::Relaxed);
        Some(entered)
    }

    /// Takes a session out. Returns whether its user is offline now; `None` when it was not registered (any more).
    pub fn leave(&self, uid: &Uid, session: SessionId) -> Option<bool> {
        let mut left = None;
        self.by_uid.remove_if_mut(uid, |_, entries| {
            let before = entries.len();
            entries.retain(|e| e.place.session != session);
            if entries.len() < before {
                left = Some(entries.is_empty());
            }
            entries.is_empty()
        });
        if left.is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
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
            .map(|entries| entries.iter().map(|e| (e.place, e.device_flag)).collect())
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
            let (device_flag, device_id) = (entry.device_flag, entry.device_id.clone());
            Some(Online { session, device_flag, device_id, uid: uid.clone() })
        });
        (page.collect(), total)
    }

    /// Whether the user has a session.
    pub fn is_online(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, master: bool) -> Device {
        Device { flag: DeviceFlag(0), id: id.into(), master }
    }

    #[test]
    fn the_same_device_replaces_and_ids_fence_removal() {
        let sessions = Sessions::default();
        let uid = Uid::new("u").expect("uid");
        let place = |n: u32| SessionPlace { session: sessions.next_id(), shard: 0, slot: n };
        let (a, b) = (place(1), place(2));
        let entered = sessions.enter(&uid, a, &device("phone", false), 1).expect("room");
        assert!(entered.first && entered.kicked.is_empty());
        let entered = sessions.enter(&uid, b, &device("phone", false), 1).expect("same device");
        assert_eq!(entered.kicked.as_slice(), &[(a, CloseReason::SameDevice)]);
        assert!(!entered.first);
        let web = Device { flag: DeviceFlag(1), ..device("web", true) };
        assert!(sessions.enter(&uid, place(3), &web, 1).is_none());
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
        let web = Device { flag: DeviceFlag(1), ..device("x", false) };
        for (place, device) in [(a, device("x", false)), (b, device("y", false)), (c, web)] {
            assert!(sessions.enter(&uid, place, &device, 3).expect("room").kicked.is_empty());
        }
        let entered = sessions.enter(&uid, place(4), &device("y", true), 2).expect("the kicked do not count");
        assert_eq!(entered.kicked.as_slice(), &[(a, CloseReason::OtherDevice), (b, CloseReason::SameDevice)]);
        assert_eq!(sessions.count(), 2);
    }
}
