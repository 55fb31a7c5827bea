//! Care of a data directory by its operator: check, rebuild, repair, backup, restore, export, import.
//!
//! Owns the offline verbs and the layout of a backup. Refuses to know how a segment or a row lies on disk (`log::inspect`,
//! `view`) and how a person is told (the command line).
//!
//! Invariants:
//! - **look-only**: a check changes no byte of the data directory; it opens a copy of the view.
//! - **one-owner**: every verb but a backup holds the data directory's lock, or is refused because a server does.
//! - **again**: every verb that was interrupted can be begun again and comes to the same end.
//! - **told**: no verb says done before what it made was read back and compared.

use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::log::{Finding, FindingKind, LogMark};
use super::{Result, StoreError};
use crate::domain::refusal::ErrorKind;

pub mod backup;
pub mod check;
pub mod export;
pub mod import;
pub mod lines;
mod manifest;
mod merge;
mod pace;
pub mod rebuild;
pub mod repair;
pub mod restore;
mod staging;
mod trace;
mod webhooks;

/// Format of the data directory these verbs know.
const FORMAT: u32 = 1;
/// Data directories and backups hold everybody's messages.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;
/// Bytes are copied and hashed in pieces of this size.
const PIECE: usize = 256 << 10;

/// How far a verb is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What is being done, in a word or two.
    pub phase: &'static str,
    /// Bytes done, or things.
    pub done: u64,
    /// Bytes or things in all; 0 when that is not known.
    pub total: u64,
    /// Things are counted, not bytes.
    pub counted: bool,
}

/// Takes progress; called often, so it decides itself what to show.
pub type Tell<'a> = &'a mut dyn FnMut(Progress);

/// What a finding costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Something acked is gone or contradicts itself; a start refuses it.
    Damage,
    /// A message cannot be read; its seq stays taken, everything else goes on.
    Hole,
    /// It is made from something else and can be made again: a footer, the watermark, the view.
    Derived,
}

/// Something is not what was written.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Found {
    /// What it costs.
    pub severity: Severity,
    /// The file or directory.
    pub file: String,
    /// Byte offset in it, when it is one place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// The messages it concerns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<FoundRun>,
    /// What is wrong.
    pub detail: String,
}

/// Consecutive messages of a channel.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct FoundRun {
    /// The channel's dense number.
    pub channel_number: u32,
    /// Its name (`id:type`), when it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
    /// First seq.
    pub first_seq: u64,
    /// Last seq.
    pub last_seq: u64,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Damage => "damage",
            Severity::Hole => "hole",
            Severity::Derived => "derived",
        };
        write!(f, "[{severity}] {}", self.file)?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset}")?;
        }
        write!(f, ": {}", self.detail)?;
        for (i, run) in self.messages.iter().enumerate() {
            let lead = if i == 0 { "; messages:" } else { "," };
            match &run.channel {
                Some(name) => write!(f, "{lead} channel {name} (number {})", run.channel_number)?,
                None => write!(f, "{lead} channel number {}", run.channel_number)?,
            }
            write!(f, " seq {}", run.first_seq)?;
            if run.last_seq > run.first_seq {
                write!(f, " to {}", run.last_seq)?;
            }
        }
        Ok(())
    }
}

impl From<Finding> for Found {
    fn from(finding: Finding) -> Self {
        let versions = finding.versions.map(|(first, last)| format!("; lot of versions {first} to {last}"));
        let run = |run: &super::log::SeqRun| FoundRun {
            channel_number: run.channel.0,
            channel: None,
            first_seq: run.first_seq,
            last_seq: run.first_seq.saturating_add(run.count.saturating_sub(1)),
        };
        let severity = match finding.kind {
            FindingKind::Message => Severity::Hole,
            FindingKind::Footer | FindingKind::Watermark => Severity::Derived,
            _ => Severity::Damage,
        };
        Self {
            severity,
            file: finding.file.display().to_string(),
            offset: Some(finding.offset),
            messages: finding.messages.iter().map(run).collect(),
            detail: format!("{}{}", finding.detail, versions.unwrap_or_default()),
        }
    }
}

/// A mark as people read it.
pub(crate) fn shown(mark: &LogMark) -> String {
    let at = mark.position;
    format!("version {} (segment {}, offset {})", mark.version, at.segment, at.offset)
}

fn refused(operation: &'static str, detail: impl fmt::Display) -> StoreError {
    StoreError { operation, kind: ErrorKind::Conflict, detail: detail.to_string(), source: None }
}

/// Takes the data directory's lock without making anything; `None`: nobody ever opened the directory, so there is none.
///
/// # Errors
/// `Conflict`: a server has it. I/O.
fn hold(data_dir: &Path) -> Result<Option<File>> {
    let path = data_dir.join("lock");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open lock", path.display(), error)),
    };
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            let dir = data_dir.display();
            Err(refused("open data directory", format_args!("{dir} is in use by a running server: stop it first")))
        }
        Err(TryLockError::Error(error)) => Err(StoreError::io("lock data directory", path.display(), error)),
    }
}

/// Checks that a directory is a data directory (or a backup, which is laid out like one) of a format this build knows.
///
/// # Errors
/// It is none, or it is newer. I/O.
fn read_format(data_dir: &Path) -> Result<()> {
    let path = data_dir.join("format");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(refused("open data directory", format_args!("{} is no data directory", data_dir.display())));
        }
        Err(error) => return Err(StoreError::io("read format", path.display(), error)),
    };
    match text.trim().parse::<u32>() {
        Ok(number) if number <= FORMAT => Ok(()),
        Ok(number) => {
            let dir = data_dir.display();
            let detail = format_args!("{dir} has format {number}, this build knows up to {FORMAT}: use a newer build");
            Err(refused("open data directory", detail))
        }
        Err(_) => Err(StoreError::damaged("read format", format_args!("{} is not a number", path.display()))),
    }
}

/// As [`hold`] for who changes something: the lock is made when there is none.
///
/// # Errors
/// As [`hold`].
fn hold_to_write(data_dir: &Path) -> Result<File> {
    loop {
        if let Some(lock) = hold(data_dir)? {
            return Ok(lock);
        }
        let path = data_dir.join("lock");
        let made = OpenOptions::new().create(true).truncate(false).write(true).mode(FILE_MODE).open(&path);
        made.map_err(|error| StoreError::io("make lock", path.display(), error))?;
    }
}

fn make_dir(dir: &Path) -> Result<()> {
    let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
    made.map_err(|error| StoreError::io("make directory", dir.display(), error))
}

fn sync_dir(dir: &Path) -> Result<()> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let synced = File::open(dir).and_then(|file| file.sync_all());
    synced.map_err(|error| StoreError::io("sync directory", dir.display(), error))
}

/// Where bytes go: a file that gets its name only when all of it is on disk.
struct Part {
    file: File,
    /// Where it is written until then.
    made_at: std::path::PathBuf,
    path: std::path::PathBuf,
}

impl Part {
    fn begin(path: &Path) -> Result<Self> {
        let mut name = path.file_name().map(std::ffi::OsStr::to_owned).unwrap_or_default();
        name.push(".part");
        let made_at = path.with_file_name(name);
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE_MODE).open(&made_at);
        let file = opened.map_err(|error| StoreError::io("make file", made_at.display(), error))?;
        Ok(Self { file, made_at, path: path.to_owned() })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| StoreError::io("write", self.made_at.display(), error))
    }

    fn sync(&self) -> Result<()> {
        self.file.sync_all().map_err(|error| StoreError::io("sync", self.made_at.display(), error))
    }

    /// Gives it its name, durably.
    fn finish(self) -> Result<()> {
        self.sync()?;
        let renamed = fs::rename(&self.made_at, &self.path);
        renamed.map_err(|error| StoreError::io("name file", self.path.display(), error))?;
        self.path.parent().map_or(Ok(()), sync_dir)
    }
}

/// Writes a whole small file durably under its name.
fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut part = Part::begin(path)?;
    part.write(bytes)?;
    part.finish()
}

/// Passes the first `limit` bytes of a file (all of it when there are fewer) on in pieces. Returns how many there were.
fn read_pieces(path: &Path, limit: u64, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<u64> {
    let io = |error| StoreError::io("read", path.display(), error);
    let mut file = File::open(path).map_err(io)?.take(limit);
    let mut buffer = vec![0; PIECE];
    let mut read = 0;
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(read),
            Ok(count) => {
                read += count as u64;
                each(&buffer[..count])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(io(error)),
        }
    }
}

/// BLAKE3 of the first `limit` bytes of a file, and how many there were.
fn hash_file(path: &Path, limit: u64) -> Result<(blake3::Hash, u64)> {
    let mut hasher = blake3::Hasher::new();
    let read = read_pieces(path, limit, &mut |piece| {
        hasher.update(piece);
        Ok(())
    })?;
    Ok((hasher.finalize(), read))
}
