//! A search of one channel: units from the newest to the oldest, what they leave over verified on the texts, and what no
//! unit covers read.

use std::sync::Arc;

use super::catalog::Snapshot;
use super::unit::{UnitError, UnitReader, UnitRef};
use super::{SearchIndex, Source};
use crate::domain::content::{fold, search_text};
use crate::domain::message::{Message, MessageState};
use crate::store::{ChannelNo, Result, SearchFound, SearchQuery, SeqRange};

/// Messages read together where no unit covers them.
const SCAN_MESSAGES: usize = 64;
/// Payload bytes read together.
pub(super) const READ_BYTES: usize = 4 << 20;
/// Candidates this near are read in one go: they share an index page, and mostly a read of the log.
const JOIN_SEQS: u64 = 64;
/// Fewer candidates than one in this many messages are read each by itself.
const JOIN_SPARSE: u64 = 8;

/// What a search has done so far.
struct Search<'a> {
    source: &'a dyn Source,
    channel: ChannelNo,
    query: &'a SearchQuery,
    found: SearchFound,
    /// Texts and units read.
    looked: usize,
}

/// Windows of the pattern, the rarest so far first.
struct Windows {
    /// Hash, places seen, units asked.
    hashes: Vec<(u32, u64, u64)>,
}

impl Windows {
    /// Places whose messages may hold the pattern, ascending.
    fn candidates(&mut self, reader: &mut UnitReader<'_>, wide: bool) -> Result<Vec<u16>, UnitError> {
        let mut candidates: Option<Vec<u16>> = None;
        for (hash, places_seen, asked) in &mut self.hashes {
            let places = reader.places(*hash)?;
            *places_seen += places.len() as u64;
            *asked += 1;
            let left = match candidates {
                None => places,
                Some(left) => intersection(left, &places),
            };
            let done = left.is_empty();
            candidates = Some(left);
            if done {
                break;
            }
        }
        self.hashes.sort_by_key(|(_, seen, asked)| seen * 16 / (*asked).max(1));
        let mut candidates = candidates.unwrap_or_default();
        if wide {
            candidates.extend(reader.wide()?);
            candidates.sort_unstable();
        }
        Ok(candidates)
    }
}

/// What is in both; both ascending.
fn intersection(mut left: Vec<u16>, right: &[u16]) -> Vec<u16> {
    let mut right = right.iter().copied().peekable();
    left.retain(|place| {
        while right.next_if(|other| other < place).is_some() {}
        right.peek() == Some(place)
    });
    left
}

impl Search<'_> {
    /// Whether the search ends before `seq`; then the answer says so.
    fn stops_before(&mut self, seq: u64) -> bool {
        let stops = self.found.messages.len() >= self.query.limit || self.looked >= self.query.scan_max;
        if stops {
            self.found.resume = Some(seq);
        }
        stops
    }

    /// Takes a message when its text holds the pattern.
    fn verify(&mut self, message: Message) {
        self.looked += 1;
        let text = if message.state == MessageState::Live { search_text(&message.payload) } else { None };
        if text.is_some_and(|text| fold(&text).contains(&self.query.pattern)) {
            self.found.messages.push(message);
        }
    }

    /// Reads every text from `from` down to `to`. `false`: the search is over.
    fn scan(&mut self, mut from: u64, to: u64) -> Result<bool> {
        while from >= to {
            if self.stops_before(from) {
                return Ok(false);
            }
            let limit = SCAN_MESSAGES.min(self.query.scan_max - self.looked);
            let range = SeqRange { first: to, last: from, limit, bytes_max: READ_BYTES, newest_first: true };
            let messages = self.source.messages(self.channel, range)?;
            if messages.is_empty() {
                break;
            }
            for message in messages {
                if self.stops_before(from) {
                    return Ok(false);
                }
                from = message.message_seq.get() - 1;
                self.verify(message);
            }
        }
        Ok(true)
    }

    /// Reads candidates, ascending in `seqs`, from the last one down. `false`: the search is over.
    fn candidates(&mut self, seqs: &[u64]) -> Result<bool> {
        let mut rest = seqs;
        while let Some(&last) = rest.last() {
            if self.stops_before(last) {
                return Ok(false);
            }
            let near = rest.iter().rev().take_while(|&&seq| last - seq < JOIN_SEQS).count();
            let first = rest.get(rest.len() - near).copied().unwrap_or(last);
            let dense = near as u64 * JOIN_SPARSE >= last + 1 - first;
            let (first, taken) = if dense { (first, near) } else { (last, 1) };
            let (before, wanted) = rest.split_at(rest.len() - taken);
            let limit = JOIN_SEQS as usize;
            let range = SeqRange { first, last, limit, bytes_max: READ_BYTES, newest_first: true };
            let messages = self.source.messages(self.channel, range)?;
            let mut reached = last + 1;
            for message in messages {
                let seq = message.message_seq.get();
                reached = seq;
                if wanted.binary_search(&seq).is_err() {
                    continue;
                }
                if self.stops_before(seq) {
                    return Ok(false);
                }
                self.verify(message);
            }
            // Those that did not fit into one read are still to come.
            let unread = wanted.partition_point(|&seq| seq < reached);
            rest = if unread < wanted.len() { &rest[..before.len() + unread] } else { before };
        }
        Ok(true)
    }
}

impl SearchIndex {
    /// See [`crate::store::Store::search`].
    pub fn search(&self, source: &dyn Source, channel: ChannelNo, query: &SearchQuery) -> Result<SearchFound> {
        let (first, last) = (query.first.max(1), query.last.min(source.head_seq(channel)?));
        let mut search = Search { source, channel, query, found: SearchFound::default(), looked: 0 };
        if first > last {
            return Ok(search.found);
        }
        let mut windows =
            Windows { hashes: self.grams.of_pattern(&query.pattern).into_iter().map(|hash| (hash, 0, 0)).collect() };
        let snapshot =
            if windows.hashes.is_empty() { Snapshot::default() } else { self.snapshot(channel, first, last) };
        let mut next = last;
        for unit in snapshot.units.iter().rev() {
            if unit.last_seq() < next && !search.scan(next, unit.last_seq() + 1)? {
                return Ok(search.found);
            }
            next = next.min(unit.last_seq());
            if search.stops_before(next) {
                return Ok(search.found);
            }
            let lowest = unit.first_seq().max(first);
            let go_on = match self.seqs_of(&snapshot, channel, unit, &mut windows, lowest, next) {
                Some(seqs) => {
                    let go_on = search.candidates(&seqs)?;
                    // Counted behind its candidates, so that the smallest bound gets on, too.
                    search.looked += 1;
                    go_on
                }
                // It is not what was written: it will be made again, and until then its messages are read.
                None => search.scan(next, lowest)?,
            };
            if !go_on {
                return Ok(search.found);
            }
            next = lowest - 1;
        }
        if next >= first {
            search.scan(next, first)?;
        }
        Ok(search.found)
    }

    /// Candidates of a unit between two seqs, with the messages edited since it was made.
    fn seqs_of(
        &self,
        snapshot: &Snapshot,
        channel: ChannelNo,
        unit: &UnitRef,
        windows: &mut Windows,
        lowest: u64,
        highest: u64,
    ) -> Option<Vec<u64>> {
        let mut read = || {
            let missing = || std::io::Error::from(std::io::ErrorKind::NotFound);
            let file = snapshot.segments.get(&unit.segment).map(Arc::as_ref).ok_or_else(missing)?;
            windows.candidates(&mut UnitReader::open(file, channel.0, unit)?, unit.wide)
        };
        match read() {
            Ok(places) => {
                let first = unit.first_seq();
                let mut seqs: Vec<u64> = places.into_iter().map(|place| first + u64::from(place)).collect();
                let from = snapshot.edited.partition_point(|&seq| seq < first);
                let to = snapshot.edited.partition_point(|&seq| seq <= unit.last_seq());
                if from < to {
                    seqs.extend(&snapshot.edited[from..to]);
                    seqs.sort_unstable();
                    seqs.dedup();
                }
                seqs.retain(|seq| (lowest..=highest).contains(seq));
                Some(seqs)
            }
            Err(error) => {
                self.report_damage(channel, unit, &error);
                None
            }
        }
    }
}
