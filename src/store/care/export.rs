//! Export as NDJSON, one file per channel: the history, a line per durable change, for whoever wants the data without this
//! server, and for `import`.
//!
//! ```text
//! DIR/channels.ndjson       a line per channel: its file, name, messages, digest; written last: without it nothing is whole
//! DIR/0000000042.ndjson     a line "channel", a line per change, a line "end"
//! DIR/server.ndjson         users, settings, relations, files
//! DIR/breaks.ndjson         versions that are answered with reset
//! DIR/credentials.ndjson    keyed hashes of tokens and API keys; with credentials.pepper and root.key beside it
//! DIR/files/                contents of files
//! DIR/export.state          only while it is not whole: how far it is
//! ```
//! Owns the files and their making; `lines` owns the JSON. Everything comes from one walk through the log, up to its
//! watermark while a server runs, so memory holds a few numbers per channel and a bounded buffer.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use protocol::ids::{ClientMsgNo, Uid, Version};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::backup::SECRETS;
use super::check::copy_contents;
use super::pace::Pace;
use super::{FILE_MODE, Progress, Tell, hold, lines, make_dir, read_format, refused, sync_dir, write_file};
use crate::domain::message::{Digest, chain_digest};
use crate::domain::refusal::ErrorKind;
use crate::store::log::inspect::Inspection;
use crate::store::log::{LogPosition, LotEntry, LotView};
use crate::store::{Record, Result, StoreError};

/// The list of channels, written last.
pub const INDEX: &str = "channels.ndjson";
/// Users, their settings, relations, files. The order of the files that are no channel's is that of equal times in an import.
pub const SERVER: &str = "server.ndjson";
pub(super) const BREAKS: &str = "breaks.ndjson";
/// Keyed hashes of tokens and API keys; the key is beside it.
pub const CREDENTIALS: &str = "credentials.ndjson";
const STATE: &str = "export.state";
const PART: &str = ".part";
/// Lines wait in memory for their files up to this many bytes.
const BUFFER_BYTES: usize = 64 << 20;
/// After this much log it is noted how far the export is.
const STATE_EVERY: u64 = 256 << 20;

/// How an export is made.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExportOptions {
    /// Bytes of log read per second at most; `None`: as fast as it goes.
    pub bytes_per_second: Option<u64>,
    /// Leave out hashes of tokens and keys, the pepper and the root key. Users with tokens stay known.
    pub without_credentials: bool,
}

/// What an export wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExportReport {
    /// Channels, a file each.
    pub channels: u64,
    /// Messages in them.
    pub messages: u64,
    /// Messages of which only the seq is left, because their record is damaged.
    pub damaged: u64,
    /// Version of the last change in it.
    pub version: Version,
    /// A server was running: it holds what was acked when the export began.
    pub beside_a_server: bool,
}

/// One file in the making.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Sink {
    name: String,
    /// Of a channel: its id and type.
    channel: Option<(String, u8)>,
    lines: u64,
    /// Bytes in the file.
    bytes: u64,
    messages: u64,
    head_seq: u64,
    digest: Digest,
    damaged: u64,
    #[serde(skip)]
    buffer: Vec<u8>,
}

/// How far an export is: what lies in its files, to the byte.
#[derive(Debug, Serialize, Deserialize)]
struct State {
    format: u32,
    log_id: [u8; 16],
    without_credentials: bool,
    /// Segment and offset behind the last lot that is in it.
    at: (u32, u32),
    version: u64,
    sinks: BTreeMap<u64, Sink>,
}

/// Keys of the sinks that are no channel's; channels follow.
const SERVER_SINK: u64 = 0;
const BREAKS_SINK: u64 = 1;
const CREDENTIALS_SINK: u64 = 2;
const FIRST_CHANNEL: u64 = 3;
const FORMAT: u32 = 1;

/// Writes every channel of a data directory, or of a backup, into `target`, made when it is not there. A server may be
/// running. Called again after an interruption it goes on where it was.
///
/// # Errors
/// The log is damaged, named; the disk.
pub fn export(data_dir: &Path, target: &Path, options: ExportOptions, tell: Tell<'_>) -> Result<ExportReport> {
    run(data_dir, target, options, STATE_EVERY, tell)
}

fn run(
    data_dir: &Path,
    target: &Path,
    options: ExportOptions,
    state_every: u64,
    tell: Tell<'_>,
) -> Result<ExportReport> {
    read_format(data_dir)?;
    let lock = match hold(data_dir) {
        Ok(lock) => Some(lock),
        Err(error) if error.kind() == ErrorKind::Conflict => None,
        Err(error) => return Err(error),
    };
    make_dir(target)?;
    if target.join("log").exists() {
        return Err(refused("export", format_args!("{} is a data directory or a backup", target.display())));
    }
    let log_dir = data_dir.join("log");
    let mut inspection = Inspection::open(&log_dir)?;
    if lock.is_none() {
        let Some(end) = inspection.watermark() else {
            let detail = format_args!("{} has no sound watermark: stop the server first", log_dir.display());
            return Err(StoreError::damaged("export", detail));
        };
        inspection = inspection.bounded(&end);
    }
    let contents = |tell: Tell<'_>| -> Result<()> {
        copy_contents(&data_dir.join("files"), &target.join("files"), &mut |_| {
            tell(Progress { phase: "files", done: 0, total: 0, counted: false });
        })
        .map(|_| ())
    };
    // First: a content that is collected while the log is read was carried by no message. And again for what came since.
    contents(tell)?;
    let mut export = Export::begin(target, &inspection, options)?;
    let mut pace = Pace::new(options.bytes_per_second);
    let total = inspection.segments()?.iter().map(|span| span.end.map_or(span.bytes, u64::from)).sum();
    let (mut done, mut noted) = (0, 0);
    let walked = inspection.walk(&[], &mut |lot| {
        let bytes = u64::from(lot.end.offset - lot.position.offset);
        done += bytes;
        tell(Progress { phase: "log", done, total, counted: false });
        pace.spend(bytes);
        if export.has(lot.position) {
            noted = done;
            return Ok(());
        }
        export.take(lot)?;
        if done - noted >= state_every {
            noted = done;
            export.note()?;
        }
        Ok(())
    })?;
    if let Some(finding) = walked.findings.into_iter().find(crate::store::log::Finding::stops_start) {
        return Err(finding.into());
    }
    contents(tell)?;
    if !options.without_credentials {
        for name in SECRETS {
            match fs::read(data_dir.join(name)) {
                Ok(secret) => write_file(&target.join(name), &secret)?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::io("export", data_dir.join(name).display(), error)),
            }
        }
    }
    let report = export.finish(tell)?;
    Ok(ExportReport { beside_a_server: lock.is_none(), ..report })
}

struct Export {
    target: PathBuf,
    state: State,
    /// Where an earlier try was.
    resumed_at: LogPosition,
    buffered: usize,
    keeps_credentials: bool,
}

impl Export {
    /// Goes on with what an earlier try of the same log left, or begins.
    fn begin(target: &Path, inspection: &Inspection, options: ExportOptions) -> Result<Self> {
        let log_id = inspection.log_id();
        let without_credentials = options.without_credentials;
        let fresh =
            || State { format: FORMAT, log_id, without_credentials, at: (0, 0), version: 0, sinks: BTreeMap::new() };
        let text = match fs::read(target.join(STATE)) {
            Ok(text) => Some(text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io("export", target.join(STATE).display(), error)),
        };
        let left = text.and_then(|text| serde_json::from_slice::<State>(&text).ok());
        let left = left.filter(|left| {
            (left.format, left.log_id, left.without_credentials) == (FORMAT, log_id, without_credentials)
        });
        let mut export = Self {
            target: target.to_owned(),
            resumed_at: LogPosition::default(),
            buffered: 0,
            keeps_credentials: !without_credentials,
            state: left.unwrap_or_else(fresh),
        };
        if export.cut_files().is_err() {
            // Files are not what the state says, say after a power cut: from the beginning.
            export.state = fresh();
            export.cut_files()?;
        }
        export.resumed_at = LogPosition { segment: export.state.at.0, offset: export.state.at.1 };
        if export.state.sinks.is_empty() {
            for (key, name) in [(SERVER_SINK, SERVER), (BREAKS_SINK, BREAKS), (CREDENTIALS_SINK, CREDENTIALS)] {
                export.state.sinks.insert(key, Sink { name: name.to_owned(), ..Sink::default() });
            }
        }
        Ok(export)
    }

    fn part(&self, name: &str) -> PathBuf {
        self.target.join(format!("{name}{PART}"))
    }

    /// Cuts every file to what the state says of it and removes those it does not know.
    fn cut_files(&self) -> Result<()> {
        let io = |error| StoreError::io("export", self.target.display(), error);
        let mut known: BTreeMap<PathBuf, u64> =
            self.state.sinks.values().map(|sink| (self.part(&sink.name), sink.bytes)).collect();
        for entry in fs::read_dir(&self.target).map_err(io)? {
            let path = entry.map_err(io)?.path();
            if !path.to_str().is_some_and(|path| path.ends_with(".ndjson.part")) {
                continue;
            }
            match known.remove(&path) {
                None => fs::remove_file(&path).map_err(io)?,
                Some(bytes) => {
                    let file = OpenOptions::new().write(true).open(&path).map_err(io)?;
                    if file.metadata().map_err(io)?.len() < bytes {
                        return Err(StoreError::damaged("export", path.display()));
                    }
                    file.set_len(bytes).map_err(io)?;
                }
            }
        }
        match known.values().any(|bytes| *bytes > 0) {
            true => Err(StoreError::damaged("export", self.target.display())),
            false => Ok(()),
        }
    }

    fn has(&self, lot: LogPosition) -> bool {
        lot < self.resumed_at
    }

    fn take(&mut self, lot: &LotView) -> Result<()> {
        for entry in &lot.records {
            match entry {
                LotEntry::Record { version, record, .. } => self.record(*version, record)?,
                LotEntry::DamagedMessage { version, channel, seq, .. } => {
                    let sink = self.sink(u64::from(channel.0) + FIRST_CHANNEL)?;
                    (sink.messages, sink.head_seq, sink.damaged) = (sink.messages + 1, *seq, sink.damaged + 1);
                    let (nobody, nothing) = (Uid::from_stored(""), ClientMsgNo::from_stored(""));
                    sink.digest = chain_digest(&sink.digest, *seq, *version, &nobody, &nothing, &[]);
                    self.line(u64::from(channel.0) + FIRST_CHANNEL, &lines::write_hole(*version, *seq))?;
                }
            }
        }
        self.state.at = (lot.end.segment, lot.end.offset);
        self.state.version = lot.last_version.get();
        Ok(())
    }

    fn record(&mut self, version: Version, record: &Record) -> Result<()> {
        let key = match record {
            Record::ChannelCreated { channel, key } => {
                let name = format!("{:010}.ndjson", channel.0);
                let named = Some((key.channel_id().to_owned(), key.channel_type().to_wire()));
                let at = u64::from(channel.0) + FIRST_CHANNEL;
                self.state.sinks.insert(at, Sink { name, channel: named, ..Sink::default() });
                at
            }
            Record::UserToken { uid, .. } if !self.keeps_credentials => {
                // Who had a token is known, with or without it.
                let known = lines::write(version, &Record::UserCreated { uid: uid.clone() });
                return self.line(SERVER_SINK, &known);
            }
            Record::ApiKey(_) if !self.keeps_credentials => return Ok(()),
            Record::UserToken { .. } | Record::ApiKey(_) => CREDENTIALS_SINK,
            Record::Break { .. } => BREAKS_SINK,
            record => record.channel().map_or(SERVER_SINK, |channel| u64::from(channel.0) + FIRST_CHANNEL),
        };
        if let Record::Message(m) = record {
            let sink = self.sink(key)?;
            let seq = m.message_seq.get();
            (sink.messages, sink.head_seq) = (sink.messages + 1, seq);
            sink.digest = chain_digest(&sink.digest, seq, version, &m.from_uid, &m.client_msg_no, &m.payload);
        }
        self.line(key, &lines::write(version, record))
    }

    fn sink(&mut self, key: u64) -> Result<&mut Sink> {
        let unknown = || StoreError::damaged("export", "a record of a channel that no record made");
        self.state.sinks.get_mut(&key).ok_or_else(unknown)
    }

    fn line(&mut self, key: u64, line: &Value) -> Result<()> {
        let sink = self.sink(key)?;
        let before = sink.buffer.len();
        // Writing to memory does not fail.
        let _ = writeln!(sink.buffer, "{line}");
        sink.lines += 1;
        let added = sink.buffer.len() - before;
        self.buffered += added;
        if self.buffered >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<()> {
        let target = &self.target;
        for sink in self.state.sinks.values_mut().filter(|sink| !sink.buffer.is_empty()) {
            let path = target.join(format!("{}{PART}", sink.name));
            let io = |error| StoreError::io("export", path.display(), error);
            let opened = OpenOptions::new().append(true).create(true).mode(FILE_MODE).open(&path);
            opened.and_then(|mut file| file.write_all(&sink.buffer)).map_err(io)?;
            sink.bytes += sink.buffer.len() as u64;
            sink.buffer = Vec::new();
        }
        self.buffered = 0;
        Ok(())
    }

    /// Makes durable what is there, in one go: a sync per file would take minutes with 100,000 channels.
    fn sync(&self) -> Result<()> {
        let io = |error| StoreError::io("export", self.target.display(), error);
        let dir = File::open(&self.target).map_err(io)?;
        rustix::fs::syncfs(&dir).map_err(|error| io(error.into()))
    }

    /// Notes how far it is.
    fn note(&mut self) -> Result<()> {
        self.flush()?;
        self.sync()?;
        let text = serde_json::to_vec(&self.state).map_err(|e| StoreError::damaged("export", e))?;
        write_file(&self.target.join(STATE), &text)
    }

    /// Ends every file, gives all their names and writes the list of channels.
    fn finish(mut self, tell: Tell<'_>) -> Result<ExportReport> {
        let mut report = ExportReport { version: Version::new(self.state.version), ..ExportReport::default() };
        let mut index = Vec::new();
        let keys: Vec<u64> = self.state.sinks.keys().copied().collect();
        for key in keys {
            let sink = self.sink(key)?;
            let mut end = json!({"kind": "end", "lines": sink.lines});
            if let Some((id, channel_type)) = sink.channel.clone() {
                let digest: String = sink.digest.iter().map(|byte| format!("{byte:02x}")).collect();
                (end["messages"], end["digest"]) = (json!(sink.messages), json!(digest));
                let line = json!({
                    "file": sink.name, "channel_id": id, "channel_type": channel_type, "head_seq": sink.head_seq,
                    "messages": sink.messages, "damaged": sink.damaged, "digest": digest,
                });
                index.extend_from_slice(format!("{line}\n").as_bytes());
                report.channels += 1;
                report.messages += sink.messages;
                report.damaged += sink.damaged;
            }
            self.line(key, &end)?;
        }
        self.flush()?;
        self.sync()?;
        let io = |error| StoreError::io("export", self.target.display(), error);
        // From here on what an earlier export left is not whole any more.
        for name in [INDEX, STATE] {
            match fs::remove_file(self.target.join(name)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(io(error)),
                _ => {}
            }
        }
        sync_dir(&self.target)?;
        self.remove_old()?;
        let all = self.state.sinks.len() as u64;
        for (done, sink) in (0..).zip(self.state.sinks.values()) {
            tell(Progress { phase: "naming", done, total: all, counted: true });
            fs::rename(self.part(&sink.name), self.target.join(&sink.name)).map_err(io)?;
        }
        sync_dir(&self.target)?;
        write_file(&self.target.join(INDEX), &index)?;
        Ok(report)
    }

    /// Removes files of an earlier export that this one has not.
    fn remove_old(&self) -> Result<()> {
        let io = |error| StoreError::io("export", self.target.display(), error);
        let secrets = if self.keeps_credentials { &[][..] } else { &SECRETS[..] };
        for entry in fs::read_dir(&self.target).map_err(io)? {
            let entry = entry.map_err(io)?;
            let name = entry.file_name();
            let is_ours = name.to_str().is_some_and(|name| {
                let stem = name.strip_suffix(".ndjson");
                stem.is_some_and(|stem| stem.len() == 10 && stem.bytes().all(|byte| byte.is_ascii_digit()))
            });
            if is_ours || secrets.iter().any(|secret| name == **secret) {
                fs::remove_file(entry.path()).map_err(io)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use protocol::ids::{ChannelType, MessageSeq};

    use super::*;
    use crate::domain::message::MessageFlags;
    use crate::store::durable::{DurableStore, StoreOptions};
    use crate::store::{Commit, MessageRecord, Store};
    use protocol::ids::ChannelKey;

    fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(dir).expect("readable").map(|entry| entry.expect("entry").path());
        let files = entries.filter(|path| path.is_file());
        files.map(|path| (path.strip_prefix(dir).expect("inside").into(), fs::read(&path).expect("reads"))).collect()
    }

    /// A store with `count` lots of messages in three channels.
    fn fill(dir: &Path, count: u64) {
        let (store, _) = DurableStore::open(StoreOptions::new(dir)).expect("opens");
        let mut heads = Vec::new();
        for name in ["a", "b", "c"] {
            let channel = store.reserve_channel_no();
            let key = ChannelKey::named(name, ChannelType::Group).expect("a name");
            store.commit(&[Record::ChannelCreated { channel, key }.into()], &mut |_| {}).expect("committed");
            heads.push((channel, 0));
        }
        for n in 0..count {
            let (channel, head) = &mut heads[n as usize % 3];
            *head += 1;
            let record = Record::Message(MessageRecord {
                channel: *channel,
                message_seq: MessageSeq::new(*head).expect("from 1"),
                from_uid: Uid::from_stored("alice"),
                client_msg_no: ClientMsgNo::from_stored(&format!("n{n}")),
                flags: MessageFlags::default(),
                setting: 0,
                topic: String::new(),
                expire_s: 0,
                payload: bytes::Bytes::from(vec![b'x'; 100]),
                extras: None,
            });
            store.commit(&[Commit::from(record)], &mut |_| {}).expect("committed");
        }
    }

    #[test]
    fn an_interrupted_export_goes_on_where_it_was() {
        let dir = tempfile::tempdir().expect("a directory");
        let (data, whole, target) = (dir.path().join("data"), dir.path().join("whole"), dir.path().join("target"));
        fill(&data, 90);
        export(&data, &whole, ExportOptions::default(), &mut |_| {}).expect("exported");
        for stop_at in [3, 20, 50, 92] {
            let mut lots = 0;
            let interrupted = catch_unwind(AssertUnwindSafe(|| {
                let tell = &mut |progress: Progress| {
                    lots += u32::from(progress.phase == "log");
                    assert!(lots < stop_at, "as a kill would");
                };
                run(&data, &target, ExportOptions::default(), 2_000, tell)
            }));
            assert!(interrupted.is_err() && !target.join(INDEX).exists());
            assert_eq!(target.join(STATE).exists(), stop_at > 10, "stopped at {stop_at}");
            if stop_at == 92 {
                // What reached a file behind the last note is cut away.
                let mut part =
                    OpenOptions::new().append(true).open(target.join("0000000001.ndjson.part")).expect("opened");
                part.write_all(b"{\"kind\":").expect("written");
            }
            if stop_at == 50 {
                // Files that are not what the state says: from the beginning.
                fs::write(target.join("0000000001.ndjson.part"), "x").expect("written");
            }
            export(&data, &target, ExportOptions::default(), &mut |_| {}).expect("exported");
            assert_eq!(files(&target), files(&whole), "stopped at {stop_at}");
            fs::remove_file(target.join(INDEX)).expect("removed");
        }
    }

    #[test]
    fn an_export_of_another_log_takes_nothing_over() {
        let dir = tempfile::tempdir().expect("a directory");
        let (one, two) = (dir.path().join("one"), dir.path().join("two"));
        let (whole, target) = (dir.path().join("whole"), dir.path().join("target"));
        fill(&one, 30);
        fill(&two, 60);
        export(&two, &whole, ExportOptions::default(), &mut |_| {}).expect("exported");
        let _ = catch_unwind(AssertUnwindSafe(|| {
            let mut lots = 0;
            let tell = &mut |progress: Progress| {
                lots += u32::from(progress.phase == "log");
                assert!(lots < 30, "as a kill would");
            };
            run(&one, &target, ExportOptions::default(), 1_000, tell)
        }));
        assert!(target.join(STATE).exists());
        export(&two, &target, ExportOptions::default(), &mut |_| {}).expect("exported");
        assert_eq!(files(&target), files(&whole));
    }
}
