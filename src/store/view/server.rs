//! Rows of the server as a whole: API keys, breaks, and what falls due when.
//!
//! Expiry is packed per minute: pages are written once and never again; what of them is still to do is decided by the
//! channels, so a page read twice does no harm, and a minute's rows go when nothing is left in it.

use std::collections::BTreeMap;

use super::codec::{Malformed, ROW_BYTES_MAX, Reader, Writer};
use super::db::{Db, Row};
use super::{damaged_row, keys};
use crate::domain::identity::Scopes;
use crate::store::{ApiKey, CredentialHash, Result};

const MINUTE_MS: u64 = 60_000;
/// No more entries are looked at in one call once this many were.
const DUE_MAX: usize = 65_536;

/// A message that falls due.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Due {
    pub due_ms: u64,
    pub no: u32,
    pub seq: u64,
}

#[derive(Debug, Default)]
struct Minute {
    /// Pages in the view.
    pages: u32,
    /// Not in the view yet.
    open: Vec<Due>,
}

/// Rows of the server in memory.
#[derive(Debug, Default)]
pub struct ServerState {
    keys: BTreeMap<String, (ApiKey, u64)>,
    keys_dirty: Vec<String>,
    /// (kept, until).
    breaks: Vec<(u64, u64)>,
    breaks_dirty: Vec<(u64, u64)>,
    expiry_applied: u64,
    minutes: BTreeMap<u64, Minute>,
    minutes_dirty: Vec<u64>,
    rows_gone: Vec<Vec<u8>>,
}

fn minute_page(minute: u64, page: u32) -> Vec<u8> {
    keys::page4(&keys::page8(&[keys::EXPIRY], minute), page)
}

fn encode_key(key: &ApiKey, version: u64) -> Vec<u8> {
    let mut w = Writer::row();
    w.varint(version);
    w.text(&key.name);
    w.raw(&key.secret);
    w.u8(u8::from(key.scopes.admin) | u8::from(key.scopes.send) << 1 | u8::from(key.scopes.read) << 2);
    w.u8(u8::from(key.revoked) | u8::from(key.namespace.is_some()) << 1);
    if let Some(namespace) = &key.namespace {
        w.text(namespace);
    }
    w.finish()
}

fn decode_key(key_id: &[u8], row: &[u8]) -> Result<(ApiKey, u64), Malformed> {
    let key_id = std::str::from_utf8(key_id).map_err(|_| Malformed)?.to_owned();
    let mut r = Reader::row(row)?;
    let version = r.varint()?;
    let name = r.text()?.to_owned();
    let secret = r.array()?;
    let (scopes, flags) = (r.u8()?, r.u8()?);
    let scopes = Scopes { admin: scopes & 1 != 0, send: scopes & 2 != 0, read: scopes & 4 != 0 };
    let namespace = if flags & 2 != 0 { Some(r.text()?.to_owned()) } else { None };
    Ok((ApiKey { key_id, name, secret, scopes, namespace, revoked: flags & 1 != 0 }, version))
}

impl ServerState {
    /// Takes a row of the scan at start.
    pub fn take_row(&mut self, key: &[u8], row: &[u8]) -> Result<(), Malformed> {
        let page = |key: &[u8]| -> Result<(u64, u32), Malformed> {
            let mut r = Reader::part(&key[1..]);
            Ok((r.u64()?, r.u32()?))
        };
        if key == keys::EXPIRY_HEAD {
            self.expiry_applied = Reader::row(row)?.varint()?;
            return Ok(());
        }
        match key[0] {
            keys::API_KEY => {
                let (api_key, version) = decode_key(&key[1..], row)?;
                self.keys.insert(api_key.key_id.clone(), (api_key, version));
            }
            keys::BREAK => {
                let kept = Reader::part(&key[1..]).u64()?;
                self.breaks.push((kept, Reader::row(row)?.varint()?));
            }
            keys::EXPIRY => {
                let (minute, page) = page(key)?;
                let minute = self.minutes.entry(minute).or_default();
                minute.pages = minute.pages.max(page + 1);
            }
            _ => {}
        }
        Ok(())
    }

    pub fn set_key(&mut self, version: u64, key: &ApiKey) {
        if self.keys.get(&key.key_id).is_none_or(|(_, known)| *known < version) {
            self.keys.insert(key.key_id.clone(), (key.clone(), version));
            self.keys_dirty.push(key.key_id.clone());
        }
    }

    pub fn key_of(&self, secret: &CredentialHash) -> Option<ApiKey> {
        self.keys.values().find(|(key, _)| key.secret == *secret).map(|(key, _)| key.clone())
    }

    pub fn keys(&self) -> Vec<ApiKey> {
        self.keys.values().map(|(key, _)| key.clone()).collect()
    }

    pub fn add_break(&mut self, kept: u64, until: u64) {
        if !self.breaks.contains(&(kept, until)) {
            self.breaks.push((kept, until));
            self.breaks_dirty.push((kept, until));
        }
    }

    pub fn breaks(&self) -> &[(u64, u64)] {
        &self.breaks
    }

    pub fn is_dirty(&self) -> bool {
        !(self.keys_dirty.is_empty()
            && self.breaks_dirty.is_empty()
            && self.minutes_dirty.is_empty()
            && self.rows_gone.is_empty())
    }

    /// A stored message falls due.
    pub fn add_due(&mut self, version: u64, due: Due) {
        if version <= self.expiry_applied {
            return;
        }
        self.expiry_applied = version;
        let number = due.due_ms / MINUTE_MS;
        let minute = self.minutes.entry(number).or_default();
        if minute.open.is_empty() {
            self.minutes_dirty.push(number);
        }
        minute.open.push(due);
    }

    /// What fell due up to `now_ms` and is still to do, ascending by time: at most about `max` channels' worth, whole
    /// minutes. `is_done` tells what the channel has expired already.
    pub fn due(
        &mut self,
        db: &Db,
        now_ms: u64,
        max: usize,
        mut is_done: impl FnMut(u32, u64) -> Result<bool>,
    ) -> Result<Vec<Due>> {
        let mut found: Vec<Due> = Vec::new();
        let mut channels = foldhash::HashSet::default();
        let mut finished = Vec::new();
        for (&number, minute) in self.minutes.range(..=now_ms / MINUTE_MS) {
            if channels.len() >= max || found.len() >= DUE_MAX {
                break;
            }
            let mut left = false;
            let mut entries = minute.open.clone();
            for page in 0..minute.pages {
                let key = minute_page(number, page);
                match db.get(&key)? {
                    Some(row) => read_due(&row, number, &mut entries).map_err(|m| damaged_row(&key, m))?,
                    // On its way into the view: the next call finds it.
                    None => left = true,
                }
            }
            for due in entries {
                if due.due_ms > now_ms {
                    left = true;
                } else if !is_done(due.no, due.seq)? {
                    left = true;
                    channels.insert(due.no);
                    found.push(due);
                }
            }
            if !left {
                finished.push(number);
            }
        }
        for number in finished {
            if let Some(minute) = self.minutes.remove(&number) {
                self.rows_gone.extend((0..minute.pages).map(|page| minute_page(number, page)));
            }
        }
        found.sort_unstable();
        Ok(found)
    }

    /// All changed rows, to be written in one batch.
    pub fn snapshot(&mut self) -> Vec<Row> {
        let mut rows: Vec<Row> = std::mem::take(&mut self.rows_gone).into_iter().map(|key| (key, None)).collect();
        for key_id in std::mem::take(&mut self.keys_dirty) {
            if let Some((key, version)) = self.keys.get(&key_id) {
                rows.push((keys::named(keys::API_KEY, key_id.as_bytes()), Some(encode_key(key, *version))));
            }
        }
        for (kept, until) in std::mem::take(&mut self.breaks_dirty) {
            let mut w = Writer::row();
            w.varint(until);
            rows.push((keys::page8(&[keys::BREAK], kept), Some(w.finish())));
        }
        for number in std::mem::take(&mut self.minutes_dirty) {
            let Some(minute) = self.minutes.get_mut(&number) else { continue };
            for row in write_due(number, &std::mem::take(&mut minute.open)) {
                rows.push((minute_page(number, minute.pages), Some(row)));
                minute.pages += 1;
            }
        }
        if !rows.is_empty() {
            let mut w = Writer::row();
            w.varint(self.expiry_applied);
            rows.push((keys::EXPIRY_HEAD.to_vec(), Some(w.finish())));
        }
        rows
    }
}

/// Pages of `number` entries: (channel varint, seq varint, milliseconds into the minute varint) each.
fn write_due(number: u64, open: &[Due]) -> Vec<Vec<u8>> {
    let mut rows = Vec::new();
    let mut w = Writer::row();
    for due in open {
        if w.len() > ROW_BYTES_MAX - 20 {
            rows.push(std::mem::replace(&mut w, Writer::row()).finish());
        }
        w.varint(u64::from(due.no));
        w.varint(due.seq);
        w.varint(due.due_ms - number * MINUTE_MS);
    }
    if w.len() > 1 {
        rows.push(w.finish());
    }
    rows
}

fn read_due(row: &[u8], number: u64, into: &mut Vec<Due>) -> Result<(), Malformed> {
    let mut r = Reader::row(row)?;
    while !r.is_empty() {
        let (no, seq, offset) = (r.varint32()?, r.varint()?, r.varint()?);
        into.push(Due { due_ms: number * MINUTE_MS + offset, no, seq });
    }
    Ok(())
}
