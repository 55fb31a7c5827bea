//! Import of an export into an empty directory: seqs, ids, versions and times stay what they were.
//!
//! Owns the directory `DIR.importing` beside the target: the log is written there in order of version, merged from all files
//! with bounded memory, then the view is made, everything is read back and compared with what the export says, and only then
//! it gets its name. An import that was interrupted is begun again from its first line.
//!
//! Lines without a version (only `timestamp_ms`: written by something else than an export) get one: max(last + 1, their
//! time). A hole becomes an expired message without sender and content, so that its seq stays taken.
//!
//! A break is committed behind everything, as a restore does: what clients saw of the source beyond the export is answered
//! with `reset`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use protocol::ids::{ChannelKey, ClientMsgNo, MessageSeq, Uid, Version};
use serde::Deserialize;

use super::backup::SECRETS;
use super::check::{CheckReport, check_made, copy_contents, write_format};
use super::export::{BREAKS, CREDENTIALS, INDEX, SERVER};
use super::lines::{self, BadField, Line, Stamp};
use super::merge::{RawLine, bad_line, merge, not_an_export};
use super::rebuild::make_view;
use super::restore::{commit_break, is_worse};
use super::staging::Staging;
use super::{Progress, Tell, make_dir, refused, write_file};
use crate::clock;
use crate::domain::message::{Digest, MessageFlags, chain_digest};
use crate::store::log::inspect::Inspection;
use crate::store::log::{Log, LogOptions};
use crate::store::view::{self, View};
use crate::store::{ChannelNo, Commit, MessageRecord, Record, Result, StoreError};

/// A lot is written once it has this many records, or bytes of lines.
const LOT: (usize, usize) = (4_096, 4 << 20);
/// Channel numbers are dense, since tables are indexed with them; an export has gaps of failed commits at most.
const NUMBER_GAPS_MAX: usize = 1_000_000;
/// Memory for owners of the view while it is compared.
const VIEW_CACHE: u64 = 64 << 20;

/// What an import made.
#[derive(Debug, Clone)]
pub struct ImportReport {
    /// Channels.
    pub channels: u64,
    /// Messages, holes included.
    pub messages: u64,
    /// Messages of which only the seq was there: they are shown as expired.
    pub holes: u64,
    /// Whether there were hashes of tokens and keys, and the pepper they are worth something with.
    pub credentials: bool,
    /// The last version imported.
    pub version: Version,
    /// Versions above it up to here are answered with `reset`.
    pub broken_until: Version,
    /// Everything imported, read back and compared.
    pub check: CheckReport,
}

/// A line of the list of channels.
#[derive(Debug, Deserialize)]
struct Listed {
    file: String,
    messages: Option<u64>,
    head_seq: Option<u64>,
    digest: Option<String>,
}

/// One file on its way into the log.
#[derive(Debug)]
struct FileState {
    path: PathBuf,
    /// What the list says; `None`: it is a file of the server.
    listed: Option<Listed>,
    channel: Option<ChannelNo>,
    key: Option<ChannelKey>,
    head_seq: u64,
    /// As the export counts it: a hole has neither sender nor name.
    told: Digest,
    /// Of what is written.
    digest: Digest,
    holes: Vec<u64>,
}

/// Imports the export in `source` into `data_dir`, which must be absent or empty.
///
/// # Errors
/// The target is not empty; the export is not whole; a line that cannot be, with file, line and field; what was made is not
/// what the export says; I/O. The target is as it was then.
pub fn import(source: &Path, data_dir: &Path, tell: Tell<'_>) -> Result<ImportReport> {
    let files = list(source)?;
    let made = Staging::begin("import", data_dir, ".importing")?;
    let staging = made.dir.clone();
    clear(&staging)?;
    let log_dir = staging.join("log");
    let total = files.iter().filter_map(|file| fs::metadata(&file.path).ok()).map(|meta| meta.len()).sum();
    let (log, _) = Log::open(&log_dir, LogOptions::default(), None)?;
    let mut import = Import {
        files,
        log,
        lot: Vec::new(),
        lot_bytes: 0,
        last: Version::ZERO,
        numbers: HashMap::new(),
        names: HashMap::new(),
        keeps_credentials: source.join(SECRETS[0]).is_file(),
    };
    let paths: Vec<PathBuf> = import.files.iter().map(|file| file.path.clone()).collect();
    let mut done = 0;
    merge(&paths, &staging.join("spool"), &mut |line| {
        done += line.text.len() as u64 + 1;
        tell(Progress { phase: "log", done, total, counted: false });
        import.take(line)
    })?;
    import.write_lot()?;
    let Import { files, log, last, .. } = import;
    log.close()?;
    if last == Version::ZERO {
        return Err(refused("import", format_args!("{} holds nothing", source.display())));
    }
    must_be_whole(&files)?;
    let (mut log, broken_until) = commit_break(&log_dir, None, last)?;
    expire_holes(&mut log, &files)?;
    copy_contents(&source.join("files"), &staging.join("files"), &mut |_| {
        tell(Progress { phase: "files", done: 0, total: 0, counted: false });
    })?;
    let credentials = copy_secrets(source, &staging)?;
    make_view(&staging, log, tell)?;
    write_format(&staging)?;
    let check = check_made(&staging, tell)?;
    if let Some(found) = check.findings.iter().find(|found| is_worse(found)) {
        return Err(StoreError::damaged("verify import", found));
    }
    compare(&staging, &files)?;
    made.publish()?;
    let channels = files.iter().filter(|file| file.channel.is_some());
    Ok(ImportReport {
        channels: channels.clone().count() as u64,
        messages: channels.clone().map(|file| file.head_seq).sum(),
        holes: channels.map(|file| file.holes.len() as u64).sum(),
        credentials,
        version: last,
        broken_until,
        check,
    })
}

/// Takes away what an earlier try made. Contents of files stay: each has its name only when it is whole.
fn clear(staging: &Path) -> Result<()> {
    for name in ["log", "view", "spool"] {
        let path = staging.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("import", path.display(), error));
            }
            _ => {}
        }
    }
    make_dir(&staging.join("log"))
}

/// The files of an export: those of the server that are there, and the listed channels'.
fn list(source: &Path) -> Result<Vec<FileState>> {
    let index = source.join(INDEX);
    let text = match fs::read_to_string(&index) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let detail = format_args!("{} has no {INDEX}: it is no export, or not whole", source.display());
            return Err(refused("import", detail));
        }
        Err(error) => return Err(StoreError::io("import", index.display(), error)),
    };
    let file = |path, listed| FileState {
        path,
        listed,
        channel: None,
        key: None,
        head_seq: 0,
        told: Digest::default(),
        digest: Digest::default(),
        holes: Vec::new(),
    };
    let mut files = Vec::new();
    for name in [SERVER, BREAKS, CREDENTIALS] {
        let path = source.join(name);
        if path.is_file() {
            files.push(file(path, None));
        }
    }
    for (number, line) in (1..).zip(text.lines()) {
        let listed: Listed = serde_json::from_str(line).map_err(|error| bad_line(&index, number, error))?;
        let path = source.join(&listed.file);
        if Path::new(&listed.file).file_name().is_none_or(|name| name != listed.file.as_str()) || !path.is_file() {
            let what = format_args!("field \"file\" names {:?}, which is no file beside it", listed.file);
            return Err(bad_line(&index, number, what));
        }
        files.push(file(path, Some(listed)));
    }
    Ok(files)
}

struct Import {
    files: Vec<FileState>,
    log: Log,
    lot: Vec<(Version, Record)>,
    lot_bytes: usize,
    /// The last version given.
    last: Version,
    /// Which file made a channel number, and a channel name.
    numbers: HashMap<u32, u32>,
    names: HashMap<ChannelKey, u32>,
    /// Whether there is the pepper of the hashes.
    keeps_credentials: bool,
}

impl Import {
    fn take(&mut self, line: RawLine) -> Result<()> {
        let bytes = line.text.len();
        let (version, record) = self.read(&line).map_err(|what| {
            let path = self.files.get(line.file as usize).map(|file| file.path.as_path());
            bad_line(path.unwrap_or(Path::new("")), line.number, what)
        })?;
        self.last = version;
        let record = match record {
            // Hashes are worth nothing without the pepper, and a server does not start with them.
            Record::ApiKey(_) if !self.keeps_credentials => return Ok(()),
            Record::UserToken { uid, .. } if !self.keeps_credentials => Record::UserCreated { uid },
            record => record,
        };
        self.lot.push((version, record));
        self.lot_bytes += bytes;
        if self.lot.len() >= LOT.0 || self.lot_bytes >= LOT.1 { self.write_lot() } else { Ok(()) }
    }

    fn write_lot(&mut self) -> Result<()> {
        let sealed = self.log.seal_at(&self.lot)?;
        self.log.write(&sealed)?;
        self.lot.clear();
        self.lot_bytes = 0;
        Ok(())
    }

    /// The record of a line and its version.
    fn read(&mut self, line: &RawLine) -> Result<(Version, Record), BadField> {
        let count = self.files.len();
        let file = self.files.get_mut(line.file as usize).ok_or_else(|| BadField::new("file", "is not known"))?;
        let (stamp, said) = lines::read(&line.text, file.channel)?;
        let version = match stamp {
            Stamp::Version(version) if version > self.last => version,
            Stamp::Version(version) => {
                let what = format_args!("{version} was given already ({} is the last one)", self.last);
                return Err(BadField::new("version", what));
            }
            Stamp::Time(_) => Version::new(line.key).max(self.last.plus(1)),
        };
        if version > Version::MAX {
            return Err(BadField::new("version", "is above 2^53 - 1"));
        }
        match said {
            Line::Record(Record::ChannelCreated { channel, key }) => {
                if file.listed.is_none() {
                    return Err(BadField::new("kind", "\"channel\" has no place in this file"));
                }
                if channel.0 as usize > count + NUMBER_GAPS_MAX {
                    return Err(BadField::new("number", format_args!("is far above the {count} files")));
                }
                if self.numbers.insert(channel.0, line.file).is_some() {
                    return Err(BadField::new("number", format_args!("{} is another channel's, too", channel.0)));
                }
                if self.names.insert(key.clone(), line.file).is_some() {
                    return Err(BadField::new("channel_id", "is another file's, too"));
                }
                (file.channel, file.key) = (Some(channel), Some(key.clone()));
                Ok((version, Record::ChannelCreated { channel, key }))
            }
            Line::Record(record) if file.listed.is_none() => {
                let is_break = matches!(record, Record::Break { .. });
                let is_credential = matches!(record, Record::UserToken { .. } | Record::ApiKey(_));
                let name = file.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
                match name {
                    BREAKS if is_break => {}
                    CREDENTIALS if is_credential => {}
                    SERVER if !is_break && !is_credential => {}
                    _ => return Err(BadField::new("kind", "has no place in this file")),
                }
                Ok((version, record))
            }
            Line::Record(record) => {
                if file.channel.is_none() {
                    return Err(BadField::new("kind", "is not \"channel\", which a channel's file begins with"));
                }
                file.check(version, &record)?;
                Ok((version, record))
            }
            Line::Hole { seq } => {
                let (channel, record) = file.hole(seq)?;
                file.told = chain_digest(&file.told, seq, version, &record.from_uid, &nameless(), &[]);
                let (from, name) = (&record.from_uid, &record.client_msg_no);
                file.digest = chain_digest(&file.digest, seq, version, from, name, &[]);
                file.holes.push(seq);
                debug_assert_eq!(channel, record.channel);
                Ok((version, Record::Message(record)))
            }
            Line::End { .. } => Err(BadField::new("kind", "\"end\" is not the last line")),
        }
    }
}

fn nameless() -> ClientMsgNo {
    ClientMsgNo::from_stored("")
}

impl FileState {
    fn next_seq(&mut self, seq: u64) -> Result<(), BadField> {
        if seq != self.head_seq + 1 {
            let what = format_args!("is {seq}, after {} it must be {}", self.head_seq, self.head_seq + 1);
            return Err(BadField::new("message_seq", what));
        }
        self.head_seq = seq;
        Ok(())
    }

    /// Checks what a record refers to.
    fn check(&mut self, version: Version, record: &Record) -> Result<(), BadField> {
        match record {
            Record::Message(m) => {
                let seq = m.message_seq.get();
                self.next_seq(seq)?;
                let digest = |before| chain_digest(before, seq, version, &m.from_uid, &m.client_msg_no, &m.payload);
                (self.told, self.digest) = (digest(&self.told), digest(&self.digest));
                Ok(())
            }
            Record::MessageRevoked { seq, .. }
            | Record::MessageEdited { seq, .. }
            | Record::MessageReacted { seq, .. }
            | Record::MessageEvent { seq, .. } => self.known("message_seq", *seq),
            Record::MessagesExpired { seqs, .. } => self.known("message_seqs", seqs.last().copied().unwrap_or(0)),
            Record::ReadPosition { seq, .. } => self.known("message_seq", *seq),
            Record::MembersAdded { join_floor, .. } => self.known("join_floor", *join_floor),
            Record::MembersRemoved { delete_floor, .. } | Record::ConversationDeleted { delete_floor, .. } => {
                self.known("delete_floor", *delete_floor)
            }
            _ => Ok(()),
        }
    }

    fn known(&self, field: &str, seq: u64) -> Result<(), BadField> {
        if seq <= self.head_seq {
            return Ok(());
        }
        Err(BadField::new(field, format_args!("is {seq}, the channel has {} messages before this line", self.head_seq)))
    }

    /// The message that takes a hole's seq.
    fn hole(&mut self, seq: u64) -> Result<(ChannelNo, MessageRecord), BadField> {
        let wrong = || BadField::new("kind", "is not \"channel\", which a channel's file begins with");
        let channel = self.channel.ok_or_else(wrong)?;
        self.next_seq(seq)?;
        let message_seq = MessageSeq::new(seq).ok_or_else(|| BadField::new("message_seq", "is 0"))?;
        let record = MessageRecord {
            channel,
            message_seq,
            from_uid: Uid::from_stored(""),
            // Each its own: equal names would all lie in one page of the table of names.
            client_msg_no: ClientMsgNo::from_stored(&format!("{}{seq}", lines::HOLE_NAME)),
            flags: MessageFlags::default(),
            setting: 0,
            topic: String::new(),
            expire_s: 0,
            payload: bytes::Bytes::new(),
            extras: None,
        };
        Ok((channel, record))
    }
}

/// Every channel is as the list says, as far as it says something.
fn must_be_whole(files: &[FileState]) -> Result<()> {
    for file in files {
        let Some(listed) = &file.listed else { continue };
        let wrong = |what: &str, told: &str, found: &str| {
            let detail = format_args!("{}: {what} {found}, {INDEX} says {told}", file.path.display());
            Err(not_an_export(detail))
        };
        if file.channel.is_none() {
            return wrong("it makes", "it is a channel", "no channel");
        }
        for (what, told) in [("messages", listed.messages), ("head_seq", listed.head_seq)] {
            if let Some(told) = told.filter(|told| *told != file.head_seq) {
                return wrong(what, &told.to_string(), &file.head_seq.to_string());
            }
        }
        let digest: String = file.told.iter().map(|byte| format!("{byte:02x}")).collect();
        if let Some(told) = listed.digest.as_ref().filter(|told| **told != digest) {
            return wrong("digest", told, &digest);
        }
    }
    Ok(())
}

fn expire_holes(log: &mut Log, files: &[FileState]) -> Result<()> {
    for file in files {
        let Some(channel) = file.channel else { continue };
        for seqs in file.holes.chunks(LOT.0) {
            let record = Record::MessagesExpired { channel, seqs: seqs.to_vec() };
            let sealed = log.seal(&[Commit::from(record)], clock::now_us());
            log.write(&sealed)?;
        }
    }
    log.sync_watermark()
}

fn copy_secrets(source: &Path, staging: &Path) -> Result<bool> {
    let mut has_pepper = false;
    for name in SECRETS {
        let (from, to) = (source.join(name), staging.join(name));
        match fs::read(&from) {
            Ok(secret) => write_file(&to, &secret)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                // What an earlier try copied from a source that had it.
                let _ = fs::remove_file(&to);
                continue;
            }
            Err(error) => return Err(StoreError::io("import", from.display(), error)),
        }
        has_pepper |= name == SECRETS[0];
    }
    let has_hashes = source.join(CREDENTIALS).is_file();
    Ok(has_pepper && has_hashes)
}

/// Compares the made view's channels with what was read.
fn compare(staging: &Path, files: &[FileState]) -> Result<()> {
    let inspection = Inspection::open(&staging.join("log"))?;
    let verified = view::open_verified(&view::directory(staging), VIEW_CACHE, None)?;
    let verified = verified.ok_or_else(|| StoreError::damaged("verify import", "there is no view"))?;
    let view = View::new(verified, inspection.reader(), VIEW_CACHE);
    let known: BTreeMap<u32, &FileState> =
        files.iter().filter_map(|file| file.channel.map(|channel| (channel.0, file))).collect();
    for (number, file) in &known {
        let found = view.channel(ChannelNo(*number))?;
        let is_same = found.is_some_and(|info| {
            info.head_seq == file.head_seq && info.digest == file.digest && Some(&info.key) == file.key.as_ref()
        });
        if !is_same {
            let detail = format_args!("the channel of {} is not what was read", file.path.display());
            return Err(StoreError::damaged("verify import", detail));
        }
    }
    if view.channel_count() != known.len() as u64 {
        return Err(StoreError::damaged("verify import", "there are other channels than were read"));
    }
    Ok(())
}
