//! The thread that makes units: what is on disk at start, full blocks as they come, holes and edited units in between,
//! small units into larger ones, and the sweeping of files.
//!
//! It is the only writer of catalog and files. Full blocks come first; what was missing longer is paced, half of the time
//! at most, so that an index made anew leaves the server its core.

use std::collections::VecDeque;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use foldhash::HashSet;

use super::catalog::Catalog;
use super::files::{self, Edit, Entry, Files, Mark, NewUnit};
use super::query::READ_BYTES;
use super::unit::{BLOCK_SEQS, Contents, Identity, UnitReader, UnitRef, blocks_of};
use super::{SearchIndex, Source};
use crate::domain::content::{fold, search_text};
use crate::domain::message::MessageState;
use crate::store::{ChannelNo, SeqRange, StoreError, quiet};

/// Pairs of window and message of one unit, at most (16 MiB while it is made): a unit with more is made smaller, and one
/// of the smallest has fewer.
pub const PAIRS_MAX: usize = 2 << 20;
/// Units whose bodies are larger together stay as they are.
const MERGE_BYTES_MAX: u64 = 6 << 20;
/// How often a mark is written while anything changes: what a start need not look at again.
const MARK_INTERVAL: Duration = Duration::from_secs(1);
/// How long nothing is tried after the disk refused.
const RETRY: Duration = Duration::from_secs(10);
/// Fewer missing blocks than this are lag; more are an index being made again, which is paced.
const PACED_BLOCKS: u32 = 64;
/// Longest pause for pacing.
const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
enum StepError {
    #[error("the store: {0}")]
    Store(#[from] StoreError),
    #[error("the index's files: {0}")]
    Files(#[from] io::Error),
}

struct Builder<'a> {
    index: &'a SearchIndex,
    source: &'a dyn Source,
    files: Files,
    /// Channels whose blocks just filled, and when.
    fresh: VecDeque<(u32, Instant)>,
    /// Channels to look through.
    backlog: VecDeque<u32>,
    in_backlog: HashSet<u32>,
    /// Units that complete a larger one: joined once no full block waits.
    joins: VecDeque<(u32, UnitRef)>,
    /// Edits in the catalog that are in no file yet.
    unwritten: Vec<Edit>,
    /// Every edit up to here is in the catalog.
    mark: Mark,
    /// The tail segment does not begin as it should.
    must_roll: bool,
    /// The mark last written.
    written: Option<Mark>,
    written_at: Instant,
}

impl SearchIndex {
    /// Makes and keeps the index until [`SearchIndex::stop`]: the body of its thread. Returns at once when it is off, after
    /// removing what there was.
    pub fn run(&self, source: &dyn Source) {
        quiet::run_in_background();
        if !self.options.on {
            if let Err(error) = files::remove(&self.dir) {
                tracing::warn!(%error, dir = %self.dir.display(), "the search index was not removed");
            }
            return;
        }
        let mut builder = Builder::new(self, source);
        if let Err(error) = builder.load() {
            tracing::warn!(%error, dir = %self.dir.display(), "the search index cannot be used, it is made anew");
            builder.begin_anew();
        }
        while self.wait(builder.patience()) {
            if let Err(error) = builder.turn() {
                tracing::warn!(%error, "the search index falls behind, searches read messages instead");
                self.pause(RETRY);
            }
        }
        builder.take_inbox();
        if let Err(error) = builder.write_mark() {
            tracing::warn!(%error, "the search index was not marked, the next start looks at more of the log");
        }
    }

    /// Waits for work. `false`: stop.
    fn wait(&self, patience: Option<Duration>) -> bool {
        let mut inbox = self.inbox.lock();
        if patience != Some(Duration::ZERO) {
            let idle = |inbox: &mut super::Inbox| {
                !inbox.stop && inbox.full.is_empty() && inbox.edits.is_empty() && !inbox.overflowed
            };
            match patience {
                Some(patience) => drop(self.wake.wait_while_for(&mut inbox, idle, patience)),
                None => self.wake.wait_while(&mut inbox, idle),
            }
            self.wake.wait_while_for(&mut inbox, |inbox| !inbox.stop, self.options.gather);
        }
        !inbox.stop
    }

    /// Does nothing for a while, or until the end.
    fn pause(&self, time: Duration) {
        self.wake.wait_while_for(&mut self.inbox.lock(), |inbox| !inbox.stop, time);
    }
}

impl<'a> Builder<'a> {
    fn new(index: &'a SearchIndex, source: &'a dyn Source) -> Self {
        Self {
            index,
            source,
            files: Files::new(index.dir.clone(), index.opened_at.log_id, index.options.segment_bytes_max),
            fresh: VecDeque::new(),
            backlog: VecDeque::new(),
            in_backlog: HashSet::default(),
            joins: VecDeque::new(),
            unwritten: Vec::new(),
            mark: Mark { log: index.opened_at, complete: false, sum: 0 },
            must_roll: false,
            written: None,
            written_at: Instant::now(),
        }
    }

    /// Reads what is on disk and what the log says since.
    fn load(&mut self) -> Result<(), StepError> {
        let end = self.index.opened_at;
        let mut catalog = Catalog::default();
        let mut edits = Vec::new();
        let (mut last, mut complete, mut newest, mut begun) = (None, None, 0, 0);
        let mut whole = false;
        self.files.load(&mut |segment, entry| match entry {
            Entry::Unit(channel, unit) => {
                newest = newest.max(unit.as_of);
                catalog.put(channel, unit);
            }
            Entry::Edits(more) => edits.extend(more),
            Entry::Mark(mark) => {
                whole = mark.sum == catalog.sum();
                if mark.complete {
                    complete = Some(mark.log.version);
                }
                last = Some(mark);
                begun = segment;
            }
        })?;
        let Some(last) = last else {
            self.begin_anew();
            return Ok(());
        };
        let another = last.log.version == end.version && last.log != end;
        if another || last.log.version > end.version || newest > end.version.get() {
            return Err(
                StoreError::damaged("read search index", "it is not of this log, or of more than it holds").into()
            );
        }
        if !whole {
            // An older unit, whose edits are forgotten, may stand in for a lost one.
            return Err(StoreError::damaged("read search index", "units are missing").into());
        }
        self.source.edits_after(&last.log, end.version, &mut |channel, seq, version| {
            edits.push((channel.0, seq, version.get()));
        })?;
        self.files.cut_tail()?;
        self.must_roll = begun != self.files.tail();
        edits.sort_unstable_by_key(|edit| edit.2);
        edits.retain(|edit| catalog.edit(*edit));
        self.unwritten = edits.into_iter().filter(|edit| edit.2 > last.log.version.get()).collect();
        catalog.segments = self.files.segments();
        *self.index.catalog.write() = catalog;
        // Whoever sees that it is ready sees what is missing, too.
        self.look_through(complete.unwrap_or_default());
        self.index.ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Forgets everything and starts from nothing.
    fn begin_anew(&mut self) {
        let mark = self.source.mark();
        {
            let mut catalog = self.index.catalog.write();
            let mut inbox = self.index.inbox.lock();
            *catalog = Catalog::default();
            // What is read from now on has these edits already.
            inbox.edits.clear();
            inbox.overflowed = false;
        }
        if let Err(error) = self.files.clear() {
            tracing::warn!(%error, "files of the old search index were left behind");
        }
        self.unwritten.clear();
        self.written = None;
        self.must_roll = true;
        self.mark = Mark { log: mark, complete: false, sum: 0 };
        self.look_through(protocol::ids::Version::ZERO);
        self.index.ready.store(true, Ordering::Release);
    }

    fn look_through(&mut self, since: protocol::ids::Version) {
        match self.source.changed_after(since) {
            Ok(channels) => channels.into_iter().for_each(|channel| self.push_backlog(channel.0)),
            Err(error) => tracing::warn!(%error, "channels without a search index are found when they change"),
        }
    }

    fn push_backlog(&mut self, channel: u32) {
        if self.in_backlog.insert(channel) {
            self.backlog.push_back(channel);
            self.count_work();
        }
    }

    fn count_work(&self) {
        let count = self.backlog.len() + self.fresh.len() + self.joins.len();
        self.index.in_work.store(count as u64, Ordering::Relaxed);
    }

    /// How long to wait when nothing new comes; `None`: for ever.
    fn patience(&self) -> Option<Duration> {
        if !self.backlog.is_empty() || !self.fresh.is_empty() || !self.joins.is_empty() {
            return Some(Duration::ZERO);
        }
        let mark = self.source.mark();
        let news = self.written.is_none_or(|written| written.log != mark || !written.complete);
        (news || !self.unwritten.is_empty()).then_some(MARK_INTERVAL)
    }

    /// Takes what has come, makes what it asks for, and a step of what is missing longer.
    fn turn(&mut self) -> Result<(), StepError> {
        self.take_inbox();
        if !self.unwritten.is_empty() {
            self.make_room(0)?;
            self.write_edits()?;
        }
        while let Some(&(channel, since)) = self.fresh.front() {
            if self.step(channel)?.is_some() {
                self.push_backlog(channel);
            }
            self.fresh.pop_front();
            self.count_work();
            let lag = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
            self.index.lag_max_us.fetch_max(lag, Ordering::Relaxed);
        }
        if let Some(&(channel, unit)) = self.joins.front() {
            self.join(channel, unit)?;
            self.joins.pop_front();
            self.count_work();
        } else if let Some(&channel) = self.backlog.front() {
            let started = Instant::now();
            let missing = self.step(channel)?;
            self.backlog.pop_front();
            self.in_backlog.remove(&channel);
            self.count_work();
            if missing.is_some() {
                self.push_backlog(channel);
            }
            if missing.is_some_and(|missing| missing > PACED_BLOCKS) || self.backlog.len() > PACED_BLOCKS as usize {
                self.index.pause(started.elapsed().min(PAUSE_MAX));
            }
        }
        self.sweep()?;
        if self.written_at.elapsed() >= MARK_INTERVAL {
            self.write_mark()?;
        }
        Ok(())
    }

    fn take_inbox(&mut self) {
        // The mark first: the inbox then holds every edit up to it.
        let mark = self.source.mark();
        let mut catalog = self.index.catalog.write();
        let mut inbox = self.index.inbox.lock();
        if inbox.overflowed {
            drop((inbox, catalog));
            tracing::warn!("more messages were edited at once than the search index can take, it is made anew");
            self.begin_anew();
            return;
        }
        let edits = std::mem::take(&mut inbox.edits);
        inbox.queued.clear();
        self.fresh.append(&mut inbox.full);
        // Before anybody can see the inbox empty.
        self.count_work();
        drop(inbox);
        self.mark = Mark { log: mark, complete: false, sum: catalog.sum() };
        for edit in edits {
            if catalog.edit(edit) {
                self.unwritten.push(edit);
            }
        }
        drop(catalog);
        let edited: HashSet<u32> = self.unwritten.iter().map(|edit| edit.0).collect();
        edited.into_iter().for_each(|channel| self.push_backlog(channel));
        self.count_work();
    }

    /// Makes the next unit a channel wants. The answer: how many blocks no unit covers,
    /// when there is more to do.
    fn step(&mut self, channel: u32) -> Result<Option<u32>, StepError> {
        let done = self.step_or_fail(channel);
        match done {
            Err(StepError::Store(error)) => {
                // Its messages are read by searches; the next block of the channel, or the next start, tries again.
                tracing::warn!(channel.number = channel, %error, "the search index leaves messages out");
                Ok(None)
            }
            done => done,
        }
    }

    fn step_or_fail(&mut self, channel: u32) -> Result<Option<u32>, StepError> {
        let full = self.source.head_seq(ChannelNo(channel))? / BLOCK_SEQS;
        let full = u32::try_from(full).unwrap_or(u32::MAX);
        let Some((first, level, missing)) = self.index.catalog.read().wanted(channel, full) else { return Ok(None) };
        let (mut first, mut level) = (first, level);
        let new = loop {
            match self.contents(channel, first, level)? {
                Some(new) => break new,
                // Too much for one unit: its newest part first.
                None => {
                    first += blocks_of(level) - blocks_of(level - 1);
                    level -= 1;
                }
            }
        };
        let unit = self.put(&new)?;
        let left = missing.saturating_sub(blocks_of(level));
        if self.index.catalog.read().siblings(channel, &unit, MERGE_BYTES_MAX).is_some() {
            self.joins.push_back((channel, unit));
            self.count_work();
        }
        let more = self.index.catalog.read().wanted(channel, full).is_some();
        Ok(more.then_some(left))
    }

    /// Makes one unit of a unit and its siblings, and again of that one.
    fn join(&mut self, channel: u32, mut unit: UnitRef) -> Result<(), StepError> {
        while let Some(units) = { self.index.catalog.read().siblings(channel, &unit, MERGE_BYTES_MAX) } {
            match self.merged(channel, &units) {
                Some(new) => unit = self.put(&new)?,
                None => break,
            }
        }
        Ok(())
    }

    /// Reads the texts of a unit. `None`: too many pairs, and a smaller one is possible.
    fn contents(&self, channel: u32, first: u32, level: u8) -> Result<Option<NewUnit>, StepError> {
        let as_of = self.source.mark().version.get();
        let first_seq = u64::from(first) * BLOCK_SEQS + 1;
        let last_seq = first_seq - 1 + u64::from(blocks_of(level)) * BLOCK_SEQS;
        let mut contents = Contents::default();
        let mut next = first_seq;
        while next <= last_seq {
            let limit = BLOCK_SEQS as usize;
            let range = SeqRange { first: next, last: last_seq, limit, bytes_max: READ_BYTES, newest_first: false };
            let messages = self.source.messages(ChannelNo(channel), range)?;
            let Some(last) = messages.last() else {
                let detail = format!("channel number {channel} has no message {next}");
                return Err(StoreError::damaged("read texts", detail).into());
            };
            let behind = last.message_seq.get() + 1;
            for message in messages {
                let place = (message.message_seq.get() - first_seq) as u16;
                let live = message.state == MessageState::Live;
                let Some(text) = search_text(&message.payload).filter(|_| live) else { continue };
                if !self.index.grams.add(&fold(&text), place, &mut contents.pairs) {
                    contents.wide.push(place);
                }
            }
            if level > 0 && contents.pairs.len() > 2 * PAIRS_MAX {
                contents.finish();
                if contents.pairs.len() > PAIRS_MAX {
                    return Ok(None);
                }
            }
            next = behind;
        }
        self.index.messages_indexed.fetch_add(last_seq + 1 - first_seq, Ordering::Relaxed);
        Ok(Some(encoded(channel, first, level, as_of, contents)))
    }

    /// One unit of the next level in place of these. `None`: one of them is damaged, and given up now.
    fn merged(&self, channel: u32, units: &[UnitRef]) -> Option<NewUnit> {
        let front = units.first()?;
        let mut contents = Contents::default();
        for unit in units {
            let shift = ((unit.first - front.first) * BLOCK_SEQS as u32) as u16;
            let file = self.index.catalog.read().segments.get(&unit.segment).cloned();
            let read = file
                .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
                .and_then(|file| UnitReader::open_whole(&file, channel, unit)?.gather(shift, &mut contents));
            if let Err(error) = read {
                self.index.report_damage(ChannelNo(channel), unit, &error);
                return None;
            }
        }
        let as_of = units.iter().map(|unit| unit.as_of).min()?;
        Some(encoded(channel, front.first, front.level + 1, as_of, contents))
    }

    fn put(&mut self, new: &NewUnit) -> Result<UnitRef, StepError> {
        self.make_room(new.body.len())?;
        let unit = self.files.append_unit(new)?;
        self.index.catalog.write().put(new.channel, unit);
        Ok(unit)
    }

    /// Begins a segment when the present one is full.
    fn make_room(&mut self, bytes: usize) -> Result<(), StepError> {
        if !self.must_roll && !self.files.is_full(bytes) {
            return Ok(());
        }
        let (edits, sum) = {
            let catalog = self.index.catalog.read();
            (catalog.all_edits(), catalog.sum())
        };
        self.files.roll(&edits, &Mark { sum, ..self.mark })?;
        self.must_roll = false;
        self.unwritten.clear();
        self.index.catalog.write().segments = self.files.segments();
        Ok(())
    }

    fn write_edits(&mut self) -> Result<(), StepError> {
        self.files.append_edits(&self.unwritten)?;
        self.unwritten.clear();
        Ok(())
    }

    /// Writes how far everything is.
    fn write_mark(&mut self) -> Result<(), StepError> {
        self.written_at = Instant::now();
        let (units, sum) = {
            let catalog = self.index.catalog.read();
            (catalog.units(), catalog.sum())
        };
        let complete = self.fresh.is_empty() && self.backlog.is_empty();
        let mark = Mark { complete, sum, ..self.mark };
        if self.written == Some(mark) || (units == 0 && self.files.tail() == 0) {
            self.written = Some(mark);
            return Ok(());
        }
        self.make_room(0)?;
        self.write_edits()?;
        self.files.append_mark(&mark)?;
        self.written = Some(mark);
        Ok(())
    }

    /// Moves what is in use out of the file that wastes most, and deletes it.
    fn sweep(&mut self) -> Result<(), StepError> {
        let tail = self.files.tail();
        let Some(number) = self.index.catalog.read().wasteful(tail, self.index.options.waste_bytes_max) else {
            return Ok(());
        };
        let (units, file) = {
            let catalog = self.index.catalog.read();
            (catalog.in_segment(number), catalog.segments.get(&number).cloned())
        };
        for (channel, unit) in units {
            let mut body = vec![0; unit.bytes as usize];
            let read = file.as_ref().is_some_and(|file| file.read_exact_at(&mut body, u64::from(unit.offset)).is_ok());
            if read {
                // Its own checksums move with it.
                self.put(&NewUnit { channel, unit, body })?;
            } else if self.index.catalog.write().drop_unit(channel, &unit) {
                self.push_backlog(channel);
            }
        }
        self.files.sync()?;
        self.index.catalog.write().forget_segment(number);
        self.files.delete(number)?;
        Ok(())
    }
}

fn encoded(channel: u32, first: u32, level: u8, as_of: u64, mut contents: Contents) -> NewUnit {
    contents.finish();
    let (body, bucket_bits) = contents.encode(Identity { channel, first, as_of });
    let wide = !contents.wide.is_empty();
    let unit = UnitRef { first, level, bucket_bits, wide, segment: 0, offset: 0, bytes: 0, as_of };
    NewUnit { channel, unit, body }
}
