//! Registers of the server: short lists that are asked all the time and changed seldom, in memory as a whole. System users and
//! blocked addresses.
//!
//! Invariants: an entry remembers the version that set it, so a replay never goes back; what was taken off a register stays as
//! a row that says so.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use protocol::ids::{Uid, Version};

use super::codec::{Malformed, Reader, Writer};
use super::db::Row;
use super::keys;

/// What the registers hold.
#[derive(Debug, Default)]
pub struct Registers {
    /// By row key: (version, on).
    rows: BTreeMap<Vec<u8>, (u64, bool)>,
    dirty: BTreeSet<Vec<u8>>,
    system_users: BTreeSet<Uid>,
    addresses: BTreeSet<IpAddr>,
}

impl Registers {
    /// Takes a row of the scan at start.
    pub fn take_row(&mut self, key: &[u8], row: &[u8]) -> Result<(), Malformed> {
        let mut r = Reader::row(row)?;
        let (version, on) = (r.varint()?, r.u8()? != 0);
        let name = std::str::from_utf8(key.get(1..).unwrap_or_default()).map_err(|_| Malformed)?;
        match key.first() {
            Some(&keys::SYSTEM_USER) => self.show_user(&Uid::from_stored(name), on),
            _ => self.show_address(name.parse().map_err(|_| Malformed)?, on),
        }
        self.rows.insert(key.to_vec(), (version, on));
        Ok(())
    }

    fn show_user(&mut self, uid: &Uid, on: bool) {
        match on {
            true => self.system_users.insert(uid.clone()),
            false => self.system_users.remove(uid),
        };
    }

    fn show_address(&mut self, address: IpAddr, on: bool) {
        match on {
            true => self.addresses.insert(address),
            false => self.addresses.remove(&address),
        };
    }

    /// `false`: it was applied before.
    fn set(&mut self, version: Version, key: Vec<u8>, on: bool) -> bool {
        if self.rows.get(&key).is_some_and(|(known, _)| *known >= version.get()) {
            return false;
        }
        self.dirty.insert(key.clone());
        self.rows.insert(key, (version.get(), on));
        true
    }

    pub fn set_system_user(&mut self, version: Version, uid: &Uid, on: bool) {
        if self.set(version, keys::named(keys::SYSTEM_USER, uid.as_str().as_bytes()), on) {
            self.show_user(uid, on);
        }
    }

    pub fn set_address(&mut self, version: Version, address: IpAddr, on: bool) {
        if self.set(version, keys::named(keys::ADDRESS, address.to_string().as_bytes()), on) {
            self.show_address(address, on);
        }
    }

    pub fn is_system_user(&self, uid: &Uid) -> bool {
        self.system_users.contains(uid)
    }

    pub fn system_users(&self) -> Vec<Uid> {
        self.system_users.iter().cloned().collect()
    }

    pub fn is_address_blocked(&self, address: IpAddr) -> bool {
        self.addresses.contains(&address)
    }

    pub fn addresses(&self) -> Vec<IpAddr> {
        self.addresses.iter().copied().collect()
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// All changed rows, to be written in one batch.
    pub fn snapshot(&mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        for key in std::mem::take(&mut self.dirty) {
            let Some((version, on)) = self.rows.get(&key) else { continue };
            let mut w = Writer::row();
            w.varint(*version);
            w.u8(u8::from(*on));
            rows.push((key, Some(w.finish())));
        }
        rows
    }
}
