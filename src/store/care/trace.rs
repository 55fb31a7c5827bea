//! What a log says about channels, gathered lot by lot: seqs, digests, places, files.
//!
//! Owns what one pass over all records proves without a view: seqs contiguous, channels made before they are used, digests.
//! With a view it also compares every index page, as it passes.

use std::path::Path;

use foldhash::HashMap;
use protocol::ids::{ChannelKey, ClientMsgNo, FileId, Uid, Version};

use super::{Found, FoundRun, Severity};
use crate::domain::file::ContentHash;
use crate::domain::message::{Digest, chain_digest};
use crate::store::log::{LogMark, LotEntry, LotView, Place};
use crate::store::view::View;
use crate::store::{ChannelNo, Record, Result};

/// Messages of an index page.
const PAGE_SEQS: u64 = 64;
/// No more findings than this are kept: beyond it one more helps nobody.
pub const FOUND_MAX: usize = 1_000;

/// One channel as the log tells it.
#[derive(Debug)]
pub struct ChannelTrace {
    /// Its name.
    pub key: ChannelKey,
    /// Seq of its last message.
    pub head_seq: u64,
    /// Digest over all messages.
    pub digest: Digest,
    /// Seq of its last message before the view's mark.
    head_at_mark: u64,
    /// Version that made it.
    created: Version,
    /// Place and digest of the messages of the last index page.
    page: Vec<(Place, Digest)>,
}

/// See the module's head.
#[derive(Debug)]
pub struct Trace<'a> {
    /// The view to compare with, and its mark.
    view: Option<(&'a View, LogMark)>,
    /// What a finding about the log, and one about the view, names as its file.
    log_dir: String,
    view_dir: String,
    /// By dense number.
    pub channels: HashMap<u32, ChannelTrace>,
    /// Contents of files that were not collected, with their sizes.
    pub files: HashMap<FileId, (ContentHash, u64)>,
    /// Everything found.
    pub found: Vec<Found>,
    /// Findings beyond [`FOUND_MAX`].
    pub found_more: u64,
    /// Records seen.
    pub records: u64,
    /// Messages seen, holes among them.
    pub messages: u64,
    /// Damaged messages.
    pub holes: u64,
    /// Index pages compared.
    pub pages: u64,
    /// Version of the last record.
    pub version: Version,
}

/// A channel's name for people.
pub fn name_of(key: &ChannelKey) -> String {
    format!("{}:{}", key.channel_id(), key.channel_type().to_wire())
}

impl<'a> Trace<'a> {
    /// `view`: what to compare with, and its mark.
    pub fn new(data_dir: &Path, view: Option<(&'a View, LogMark)>) -> Self {
        Self {
            view,
            log_dir: data_dir.join("log").display().to_string(),
            view_dir: crate::store::view::directory(data_dir).display().to_string(),
            channels: HashMap::default(),
            files: HashMap::default(),
            found: Vec::new(),
            found_more: 0,
            records: 0,
            messages: 0,
            holes: 0,
            pages: 0,
            version: Version::ZERO,
        }
    }

    /// Notes a finding, with the names of its channels.
    pub fn find(&mut self, mut found: Found) {
        if self.found.len() >= FOUND_MAX {
            self.found_more += 1;
            return;
        }
        for run in found.messages.iter_mut().filter(|run| run.channel.is_none()) {
            run.channel = self.channels.get(&run.channel_number).map(|channel| name_of(&channel.key));
        }
        self.found.push(found);
    }

    fn find_in_log(&mut self, place: Place, runs: Vec<FoundRun>, detail: String) {
        let file = format!("{}/{}", self.log_dir, crate::store::log::inspect::file_name(place.segment));
        let (severity, offset) = (Severity::Damage, Some(u64::from(place.offset)));
        self.find(Found { severity, file, offset, messages: runs, detail });
    }

    fn find_in_view(&mut self, no: u32, first_seq: u64, last_seq: u64, detail: String) {
        let messages = vec![FoundRun { channel_number: no, channel: None, first_seq, last_seq }];
        let file = self.view_dir.clone();
        self.find(Found { severity: Severity::Derived, file, offset: None, messages, detail });
    }

    /// Takes a lot.
    ///
    /// # Errors
    /// The view cannot be read.
    pub fn take(&mut self, lot: &LotView) -> Result<()> {
        for entry in &lot.records {
            self.records += 1;
            match entry {
                LotEntry::Record { version, place, record } => self.record(*version, *place, record)?,
                LotEntry::DamagedMessage { version, place, channel, seq } => {
                    self.holes += 1;
                    self.hole(*version, *place, *channel, *seq)?;
                }
            }
        }
        self.version = lot.last_version;
        Ok(())
    }

    fn record(&mut self, version: Version, place: Place, record: &Record) -> Result<()> {
        match record {
            Record::ChannelCreated { channel, key } => {
                let fresh = ChannelTrace {
                    key: key.clone(),
                    head_seq: 0,
                    digest: Digest::default(),
                    head_at_mark: 0,
                    created: version,
                    page: Vec::new(),
                };
                if self.channels.insert(channel.0, fresh).is_some() {
                    let detail = format!("channel number {} is made twice", channel.0);
                    self.find_in_log(place, Vec::new(), detail);
                }
                return Ok(());
            }
            Record::Message(m) => {
                let digest = |before: &Digest| {
                    let seq = m.message_seq.get();
                    chain_digest(before, seq, version, &m.from_uid, &m.client_msg_no, &m.payload)
                };
                return self.message(version, place, m.channel, m.message_seq.get(), &digest);
            }
            Record::File(file) => {
                self.files.insert(file.file_id.clone(), (file.content, file.size));
            }
            Record::FileRemoved { file_id } => {
                self.files.remove(file_id);
            }
            _ => {}
        }
        let Some(channel) = record.channel() else { return Ok(()) };
        let Some(trace) = self.channels.get(&channel.0) else {
            let detail = format!("a record of channel number {}, which no record made", channel.0);
            self.find_in_log(place, Vec::new(), detail);
            return Ok(());
        };
        let seq = match record {
            Record::MessageRevoked { seq, .. }
            | Record::MessageEdited { seq, .. }
            | Record::MessageReacted { seq, .. }
            | Record::MessageEvent { seq, .. } => *seq,
            Record::MessagesExpired { seqs, .. } => seqs.last().copied().unwrap_or(0),
            _ => 0,
        };
        if seq > trace.head_seq {
            let run = FoundRun { channel_number: channel.0, channel: None, first_seq: seq, last_seq: seq };
            let detail = format!("a change of a message beyond the channel's head {}", trace.head_seq);
            self.find_in_log(place, vec![run], detail);
        }
        Ok(())
    }

    /// A damaged message: its digest is what the view remembers, or that of a hole when it remembers none.
    fn hole(&mut self, version: Version, place: Place, channel: ChannelNo, seq: u64) -> Result<()> {
        let remembered = match &self.view {
            Some((view, _)) => view.digest(channel, seq)?,
            None => None,
        };
        let digest = |before: &Digest| {
            remembered.unwrap_or_else(|| {
                let (nobody, nothing) = (Uid::from_stored(""), ClientMsgNo::from_stored(""));
                chain_digest(before, seq, version, &nobody, &nothing, &[])
            })
        };
        self.message(version, place, channel, seq, &digest)
    }

    fn message(
        &mut self,
        version: Version,
        place: Place,
        channel: ChannelNo,
        seq: u64,
        digest: &dyn Fn(&Digest) -> Digest,
    ) -> Result<()> {
        self.messages += 1;
        let no = channel.0;
        let Some(trace) = self.channels.get_mut(&no) else {
            let run = FoundRun { channel_number: no, channel: None, first_seq: seq, last_seq: seq };
            self.find_in_log(place, vec![run], "a message of a channel that no record made".to_owned());
            return Ok(());
        };
        let expected = trace.head_seq + 1;
        if seq != expected {
            // What is missing makes every digest behind it another one, so comparing ends here for this channel.
            trace.head_seq = seq;
            trace.page.clear();
            let (first_seq, last_seq) = if seq > expected { (expected, seq - 1) } else { (seq, seq) };
            let run = FoundRun { channel_number: no, channel: None, first_seq, last_seq };
            let what = if seq > expected { "messages are missing before seq" } else { "a second message has seq" };
            self.find_in_log(place, vec![run], format!("{what} {seq}"));
            return Ok(());
        }
        trace.digest = digest(&trace.digest);
        trace.head_seq = seq;
        if self.view.as_ref().is_some_and(|(_, mark)| version <= mark.version) {
            trace.head_at_mark = seq;
        }
        if self.view.is_some() {
            trace.page.push((place, trace.digest));
            if seq.is_multiple_of(PAGE_SEQS) {
                let page = std::mem::take(&mut trace.page);
                self.compare_page(no, seq, &page)?;
                if let Some(trace) = self.channels.get_mut(&no) {
                    trace.page = page;
                    trace.page.clear();
                }
            }
        }
        Ok(())
    }

    /// Compares the page that ends at `last` with the view's, as far as the view has it.
    fn compare_page(&mut self, no: u32, last: u64, page: &[(Place, Digest)]) -> Result<()> {
        let Some((view, _)) = self.view else { return Ok(()) };
        // A gap was met in it, which is a finding already.
        let whole = page.len() as u64 == (last - 1) % PAGE_SEQS + 1;
        if last == 0 || !whole {
            return Ok(());
        }
        let number = (last - 1) / PAGE_SEQS;
        let first = number * PAGE_SEQS + 1;
        let held = match view.index_page(ChannelNo(no), number) {
            Ok(held) => held,
            Err(error) => {
                self.find_in_view(no, first, last, format!("an index page cannot be read: {error}"));
                return Ok(());
            }
        };
        self.pages += u64::from(!held.is_empty());
        let differs = held.iter().zip(page).position(|(held, found)| held != found);
        if let Some(at) = differs {
            let seq = first + at as u64;
            let what = if held[at].0 == page[at].0 { "digest" } else { "place" };
            let detail = format!("the index has another {what} from this seq on than the log");
            self.find_in_view(no, seq, last, detail);
        }
        Ok(())
    }

    /// Compares what is left once the whole log was taken: last pages, heads, names, and channels only one side knows.
    ///
    /// # Errors
    /// The view cannot be read.
    pub fn finish(&mut self) -> Result<()> {
        let Some((view, mark)) = self.view else { return Ok(()) };
        let mut numbers: Vec<u32> = self.channels.keys().copied().collect();
        numbers.sort_unstable();
        for no in &numbers {
            let no = *no;
            let Some(trace) = self.channels.get_mut(&no) else { continue };
            let page = std::mem::take(&mut trace.page);
            let (head, key, created) = (trace.head_seq, trace.key.clone(), trace.created);
            let at_mark = trace.head_at_mark;
            if !page.is_empty() {
                self.compare_page(no, head, &page)?;
            }
            let Some(info) = view.channel(ChannelNo(no))? else {
                if created <= mark.version {
                    self.find_in_view(no, 1, at_mark, "the channel is not in the view".to_owned());
                }
                continue;
            };
            if info.key != key || view.channel_no(&key)?.is_some_and(|found| found.0 != no) {
                let (logged, held) = (name_of(&key), name_of(&info.key));
                let detail = format!("the channel's name is {logged} in the log and {held} in the view");
                self.find_in_view(no, 1, head, detail);
            }
            if info.head_seq > head {
                let detail = format!("the view knows seqs up to {}, the log up to {head}", info.head_seq);
                self.find_in_view(no, head + 1, info.head_seq, detail);
            } else if info.head_seq < at_mark {
                let detail = format!("the view's mark covers seqs up to {at_mark}, its head is {}", info.head_seq);
                self.find_in_view(no, info.head_seq + 1, at_mark, detail);
            }
        }
        let known = view.channel_count();
        if known > numbers.len() as u64 {
            let detail = format!("the view has {known} channels, the log made {}", numbers.len());
            let file = self.view_dir.clone();
            self.find(Found { severity: Severity::Derived, file, offset: None, messages: Vec::new(), detail });
        }
        Ok(())
    }
}
