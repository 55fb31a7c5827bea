//! Index pages of a channel: where each message lies, the channel's digest up to it, its fingerprint, and five bitmaps.
//!
//! ```text
//! version u8 | base varint | countable u64 | expired u64 | revoked u64 | altered u64 | mentions u64 | count u8
//!   | count x (segment u32, offset u32, digest 16, fingerprint u64)
//! ```
//! `base` is the number of countable messages before the page; a bit of `countable` says that the message counts as unread
//! when it is neither revoked nor expired, and never changes. The other bits are set once and never taken back: over by
//! time, taken back, edited or reacted to (the table of changes knows how), mentions somebody or did before an edit.
//!
//! Invariant: a full page may be in the view ahead of the channel's head (it is written first), so a bit may be set before
//! its record is applied again. Whoever decides by one must come to the same end either way.

use super::codec::{Malformed, Reader, Writer};
use crate::domain::message::Digest;
use crate::store::log::Place;

/// Messages of a page: one bit each in a word.
pub const PAGE_SEQS: u64 = 64;

/// What the index knows of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub place: Place,
    pub digest: Digest,
    pub fingerprint: u64,
}

/// A page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexPage {
    pub base: u64,
    pub countable: u64,
    pub expired: u64,
    pub revoked: u64,
    pub altered: u64,
    pub mentions: u64,
    pub entries: Vec<Entry>,
}

/// Number of the page a seq (at least 1) is in.
pub fn page_of(seq: u64) -> u64 {
    (seq - 1) / PAGE_SEQS
}

/// Position of a seq (at least 1) in its page.
pub fn slot_of(seq: u64) -> usize {
    ((seq - 1) % PAGE_SEQS) as usize
}

impl IndexPage {
    /// Countable messages up to and including slot `slot`.
    pub fn countable_to(&self, slot: usize) -> u64 {
        self.base + u64::from((self.countable << (63 - slot)).count_ones())
    }

    /// Countable messages up to the page's end.
    pub fn countable_total(&self) -> u64 {
        self.base + u64::from(self.countable.count_ones())
    }

    pub fn is_countable(&self, slot: usize) -> bool {
        self.countable >> slot & 1 == 1
    }

    pub fn is_expired(&self, slot: usize) -> bool {
        self.expired >> slot & 1 == 1
    }

    /// Whether anything became of it since it was stored, mentions left aside.
    pub fn is_touched(&self, slot: usize) -> bool {
        (self.expired | self.revoked | self.altered) >> slot & 1 == 1
    }

    pub fn is_revoked(&self, slot: usize) -> bool {
        self.revoked >> slot & 1 == 1
    }

    pub fn is_altered(&self, slot: usize) -> bool {
        self.altered >> slot & 1 == 1
    }

    pub fn has_mentions(&self, slot: usize) -> bool {
        self.mentions >> slot & 1 == 1
    }

    pub fn put(&self, w: &mut Writer) {
        w.varint(self.base);
        w.u64(self.countable);
        w.u64(self.expired);
        w.u64(self.revoked);
        w.u64(self.altered);
        w.u64(self.mentions);
        w.u8(self.entries.len() as u8);
        for entry in &self.entries {
            w.u32(entry.place.segment);
            w.u32(entry.place.offset);
            w.raw(&entry.digest);
            w.u64(entry.fingerprint);
        }
    }

    pub fn take(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let (base, countable) = (r.varint()?, r.u64()?);
        let (expired, revoked, altered, mentions) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let count = usize::from(r.u8()?);
        if count > PAGE_SEQS as usize {
            return Err(Malformed);
        }
        let mut entries = Vec::with_capacity(count);
        for _ in 0..count {
            let place = Place { segment: r.u32()?, offset: r.u32()? };
            entries.push(Entry { place, digest: r.array()?, fingerprint: r.u64()? });
        }
        Ok(Self { base, countable, expired, revoked, altered, mentions, entries })
    }

    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::row();
        self.put(&mut w);
        w.finish()
    }

    pub fn decode(row: &[u8]) -> Result<Self, Malformed> {
        Self::take(&mut Reader::row(row)?)
    }
}
