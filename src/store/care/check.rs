//! Checking a data directory: everything is read, nothing is changed.
//!
//! Owns the order of the parts (log, view, contents of files) and the copy of the view: opening sled writes, so what is
//! opened is a copy in a scratch directory, taken away afterwards.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::trace::{FOUND_MAX, Trace};
use super::{Found, Progress, Severity, Tell, hash_file, hold, make_dir, read_format, read_pieces, write_file};
use crate::store::blobs::Blobs;
use crate::store::log::LogMark;
use crate::store::log::inspect::Inspection;
use crate::store::view::{self, Verified, View};
use crate::store::{Result, StoreError};

/// Memory for owners of the view while it is compared.
pub(super) const VIEW_CACHE: u64 = 64 << 20;

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CheckReport {
    /// Nothing is wrong.
    pub sound: bool,
    /// What is wrong, at most 1,000.
    pub findings: Vec<Found>,
    /// Findings beyond those.
    pub findings_more: u64,
    /// What is worth knowing and no fault.
    pub notes: Vec<String>,
    /// Segments of the log.
    pub segments: u64,
    /// Lots gone through.
    pub lots: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Messages among those, holes included.
    pub messages: u64,
    /// Damaged messages: their seqs stay taken.
    pub holes: u64,
    /// Channels.
    pub channels: u64,
    /// Version of the last record.
    pub version: u64,
    /// Whether there was a view that could be compared.
    pub view_compared: bool,
    /// Index pages compared with the log.
    pub view_pages: u64,
    /// Contents of files read and hashed.
    pub files: u64,
}

/// Which view is compared.
enum ViewAt<'a> {
    /// A copy of the data directory's, made in this directory.
    Copy(&'a Path),
    /// The data directory's own: the caller has just made it.
    InPlace,
}

/// A scratch directory, taken away when it is dropped.
pub(super) struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        // What stays is in the system's directory for such things.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Reads everything in a data directory, or in a backup, and compares it: every lot, record, checksum, chain and footer of
/// the log, the watermark, seqs, digests, the view's sum, heads and index pages, contents of files. `scratch`: where the copy
/// of the view is made, as large as the view; the system's temporary directory when `None`.
///
/// # Errors
/// It cannot be checked: a server has it, it is none or newer, or the disk does not answer. Damage is in the value.
pub fn check(data_dir: &Path, scratch: Option<&Path>, tell: Tell<'_>) -> Result<CheckReport> {
    read_format(data_dir)?;
    let _lock = hold(data_dir)?;
    let scratch = scratch.map_or_else(std::env::temp_dir, Path::to_owned);
    run(data_dir, &ViewAt::Copy(&scratch), tell)
}

/// As [`check`], with the view opened where it lies. The caller holds the lock and has just made the view.
pub(super) fn check_made(data_dir: &Path, tell: Tell<'_>) -> Result<CheckReport> {
    run(data_dir, &ViewAt::InPlace, tell)
}

fn run(data_dir: &Path, at: &ViewAt<'_>, tell: Tell<'_>) -> Result<CheckReport> {
    let mut report = CheckReport::default();
    let log_dir = data_dir.join("log");
    let inspection = match Inspection::open(&log_dir) {
        Ok(inspection) => inspection,
        Err(error) => {
            // A finding about the headers: nothing behind it can be told apart. Anything else is the disk.
            let Some(finding) = finding_of(&error) else { return Err(error) };
            report.findings.push(finding);
            report.notes.push("the rest was not checked: without its headers the log cannot be read".to_owned());
            return Ok(report);
        }
    };
    let (verified, _scratch) = open_view(data_dir, at, &mut report, tell)?;
    let mark = verified.as_ref().map(Verified::mark).filter(|mark| mark.log_id == inspection.log_id());
    if verified.is_some() && mark.is_none() {
        let file = view::directory(data_dir).display().to_string();
        let detail = "it belongs to another log: the next start makes it anew".to_owned();
        report.findings.push(Found { severity: Severity::Derived, file, offset: None, messages: Vec::new(), detail });
    }
    let view = verified.filter(|_| mark.is_some()).map(|found| View::new(found, inspection.reader(), VIEW_CACHE));
    report.view_compared = view.is_some();

    let spans = inspection.segments()?;
    report.segments = spans.len() as u64;
    let total = spans.iter().map(|span| span.end.map_or(span.bytes, u64::from)).sum();
    let mut trace = Trace::new(data_dir, view.as_ref().zip(mark));
    let before = std::mem::take(&mut report.findings);
    before.into_iter().for_each(|found| trace.find(found));
    let known: Vec<(&str, LogMark)> = mark.iter().map(|mark| ("view's mark", *mark)).collect();
    let mut done = 0;
    let walked = inspection.walk(&known, &mut |lot| {
        done += u64::from(lot.end.offset - lot.position.offset);
        tell(Progress { phase: "log", done, total, counted: false });
        trace.take(lot)
    })?;
    trace.finish()?;
    for finding in walked.findings {
        trace.find(finding.into());
    }
    check_files(data_dir, &mut trace, &mut report, tell)?;
    report.notes.extend(walked.notes);
    (report.lots, report.bytes) = (walked.lots, walked.bytes);
    (report.records, report.messages, report.holes) = (trace.records, trace.messages, trace.holes);
    (report.channels, report.version) = (trace.channels.len() as u64, trace.version.get());
    (report.view_pages, report.findings_more) = (trace.pages, trace.found_more);
    report.findings = trace.found;
    report.sound = report.findings.is_empty();
    debug_assert!(report.findings.len() <= FOUND_MAX);
    Ok(report)
}

fn finding_of(error: &StoreError) -> Option<Found> {
    use crate::store::log::{Finding, FindingKind};
    let finding = std::error::Error::source(error)?.downcast_ref::<Finding>()?;
    (finding.kind != FindingKind::Io).then(|| finding.clone().into())
}

/// Opens and verifies the view. What is wrong with it is a finding; that there is none is a note.
fn open_view(
    data_dir: &Path,
    at: &ViewAt<'_>,
    report: &mut CheckReport,
    tell: Tell<'_>,
) -> Result<(Option<Verified>, Option<Scratch>)> {
    let dir = view::directory(data_dir);
    if !dir.is_dir() {
        report.notes.push("there is no view: a start makes it from the log".to_owned());
        return Ok((None, None));
    }
    let (opened_at, scratch) = match at {
        ViewAt::InPlace => (dir.clone(), None),
        ViewAt::Copy(scratch) => {
            let name = format!("chinwag-check-{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
            let copy = Scratch(scratch.join(name));
            copy_dir(&dir, &copy.0, tell)?;
            (copy.0.clone(), Some(copy))
        }
    };
    match view::open_verified(&opened_at, VIEW_CACHE, None) {
        Ok(verified) => Ok((verified, scratch)),
        Err(error) => {
            let file = dir.display().to_string();
            let mut detail = format!("{}: {}", error.operation, error.detail);
            if let Some(cause) = std::error::Error::source(&error) {
                detail = format!("{detail}: {cause}");
            }
            let detail = detail.replace(&opened_at.display().to_string(), &file);
            let detail = format!("{detail} (no message is lost: `chinwag rebuild`, or the next start, makes it anew)");
            report.findings.push(Found {
                severity: Severity::Derived,
                file,
                offset: None,
                messages: Vec::new(),
                detail,
            });
            Ok((None, scratch))
        }
    }
}

/// A copy of the view of a data directory, verified; taken away when it is dropped.
pub(super) struct ViewCopy {
    /// The copy.
    pub view: Verified,
    /// Where it lies.
    pub scratch: Option<Scratch>,
}

/// Copies and verifies the view; `None`: there is none that can be used.
pub(super) fn copy_view(data_dir: &Path, tell: Tell<'_>) -> Result<Option<ViewCopy>> {
    let mut ignored = CheckReport::default();
    let (verified, scratch) = open_view(data_dir, &ViewAt::Copy(&std::env::temp_dir()), &mut ignored, tell)?;
    Ok(verified.map(|view| ViewCopy { view, scratch }))
}

fn copy_dir(from: &Path, to: &Path, tell: Tell<'_>) -> Result<()> {
    make_dir(to)?;
    let io = |error| StoreError::io("copy view", from.display(), error);
    for entry in fs::read_dir(from).map_err(io)? {
        let entry = entry.map_err(io)?;
        let target = to.join(entry.file_name());
        if entry.file_type().map_err(io)?.is_dir() {
            copy_dir(&entry.path(), &target, tell)?;
        } else {
            tell(Progress { phase: "copying the view", done: 0, total: 0, counted: false });
            fs::copy(entry.path(), &target).map_err(io)?;
        }
    }
    Ok(())
}

/// Contents of files that some record names and none took away: there, of their size, and what their name says.
fn check_files(data_dir: &Path, trace: &mut Trace<'_>, report: &mut CheckReport, tell: Tell<'_>) -> Result<()> {
    let blobs = Blobs::new(data_dir.join("files"));
    let mut contents: Vec<_> = trace.files.values().copied().collect();
    contents.sort_unstable();
    contents.dedup_by_key(|(content, _)| *content);
    let total = contents.iter().map(|(_, size)| size).sum();
    let mut done = 0;
    for (content, size) in contents {
        tell(Progress { phase: "files", done, total, counted: false });
        let path = blobs.path(&content);
        let found = |detail: String| Found {
            severity: Severity::Damage,
            file: path.display().to_string(),
            offset: None,
            messages: Vec::new(),
            detail,
        };
        if !path.is_file() {
            trace.find(found("the content of a file is not there".to_owned()));
            continue;
        }
        let (hash, read) = hash_file(&path, u64::MAX)?;
        if hash != content || read != size {
            trace.find(found(format!("the content of a file is not what was uploaded ({read} of {size} bytes)")));
        }
        report.files += 1;
        done += size;
    }
    Ok(())
}

/// Copies the contents in `from` that `to` lacks, each under its name only when its hash is that name. Returns how many
/// were copied and their bytes.
pub(super) fn copy_contents(from: &Path, to: &Path, pace: &mut dyn FnMut(u64)) -> Result<(u64, u64)> {
    let (mut count, mut copied) = (0, 0);
    let source = Blobs::new(from);
    let target = Blobs::new(to);
    let homes = match fs::read_dir(from) {
        Ok(homes) => homes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok((0, 0)),
        Err(error) => return Err(StoreError::io("read files", from.display(), error)),
    };
    for home in homes {
        let home = home.map_err(|error| StoreError::io("read files", from.display(), error))?;
        let name = home.file_name();
        // Homes are named by the first byte; what is being uploaded has no record yet.
        if name.len() != 2 {
            continue;
        }
        let io = |error| StoreError::io("read files", home.path().display(), error);
        for entry in fs::read_dir(home.path()).map_err(io)? {
            let entry = entry.map_err(io)?;
            let Some(hash) = entry.file_name().to_str().and_then(|name| blake3::Hash::from_hex(name).ok()) else {
                continue;
            };
            let path = target.path(hash.as_bytes());
            if path.is_file() {
                continue;
            }
            let bytes = copy_content(&source.path(hash.as_bytes()), &path, hash, pace)?;
            count += u64::from(bytes.is_some());
            copied += bytes.unwrap_or(0);
        }
    }
    Ok((count, copied))
}

/// `None`: it was collected meanwhile.
fn copy_content(from: &Path, to: &Path, hash: blake3::Hash, pace: &mut dyn FnMut(u64)) -> Result<Option<u64>> {
    if let Some(home) = to.parent() {
        make_dir(home)?;
    }
    let mut part = super::Part::begin(to)?;
    let mut hasher = blake3::Hasher::new();
    let read = read_pieces(from, u64::MAX, &mut |piece| {
        hasher.update(piece);
        part.write(piece)?;
        pace(piece.len() as u64);
        Ok(())
    });
    match read {
        Err(_) if !from.exists() => {
            let _ = fs::remove_file(&part.made_at);
            Ok(None)
        }
        Err(error) => Err(error),
        Ok(read) if hasher.finalize() == hash => part.finish().map(|()| Some(read)),
        Ok(_) => {
            let _ = fs::remove_file(&part.made_at);
            Err(StoreError::damaged("copy file", format_args!("{} is not what was uploaded", from.display())))
        }
    }
}

/// Writes the format file of a directory that is to be a data directory.
pub(super) fn write_format(dir: &Path) -> Result<()> {
    write_file(&dir.join("format"), format!("{}\n", super::FORMAT).as_bytes())
}
