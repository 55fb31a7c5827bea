//! Backups: copies of the log's closed segments and of the open one's acked prefix, while a server runs or not.
//!
//! Owns what is copied in which order. Reads only files that are never changed in place below the watermark, so it needs
//! neither the lock nor the server's help. The order makes any moment a sound backup: contents of files first (a record
//! names only contents that are there), segments under other names, verified, renamed, and the manifest last.
//!
//! Later runs copy what is new: a closed segment is copied once. A backup whose last mark the log does not hold belongs to
//! another history (an earlier restore, an accepted loss) and is refused, since it would lose what only it has.

use std::fs::{self, File};
use std::path::Path;

use super::check::{copy_contents, write_format};
use super::manifest::{HeldSegment, Manifest};
use super::pace::Pace;
use super::webhooks::copy_webhooks;
use super::{
    Part, Progress, Tell, hash_file, make_dir, read_format, read_pieces, refused, shown, sync_dir, write_file,
};
use crate::clock;
use crate::store::log::inspect::{Inspection, SegmentSpan, file_name, verify_segment, write_watermark};
use crate::store::log::{Finding, LogMark};
use crate::store::{Result, StoreError};

/// Secrets beside the log: stored credentials are useless without the first; the second is the root key, unless it was moved
/// to a safe place.
pub(super) const SECRETS: [&str; 2] = ["credentials.pepper", "root.key"];

/// How a backup is taken.
#[derive(Debug, Clone, Copy, Default)]
pub struct BackupOptions {
    /// Bytes read per second at most; `None`: as fast as it goes.
    pub bytes_per_second: Option<u64>,
    /// Copy also segments that hold damaged messages (their seqs stay holes), instead of refusing.
    pub accept_holes: bool,
}

/// What a backup holds and what this run added.
#[derive(Debug, Clone, Default)]
pub struct BackupReport {
    /// The prefix it holds.
    pub end: Option<LogMark>,
    /// Segments it holds.
    pub segments: u64,
    /// Segments copied by this run.
    pub segments_copied: u64,
    /// Contents of files copied by this run.
    pub files_copied: u64,
    /// Bytes copied by this run.
    pub bytes_copied: u64,
    /// Damaged messages that were accepted.
    pub holes: Vec<Finding>,
    /// Secrets that were copied.
    pub secrets: Vec<&'static str>,
}

/// Takes a backup of `data_dir` into `backup`, made when it is not there. A server may be running.
///
/// # Errors
/// `backup` holds another history, or is in use by another backup; damage in what is copied, named; I/O. What `backup` held
/// before it still holds.
pub fn backup(data_dir: &Path, backup: &Path, options: BackupOptions, tell: Tell<'_>) -> Result<BackupReport> {
    read_format(data_dir)?;
    make_dir(backup)?;
    let _lock = lock(backup)?;
    let held = Manifest::read(backup)?;
    if held.is_none() && backup.join("view").exists() {
        return Err(refused("back up", format_args!("{} is a data directory, no backup", backup.display())));
    }
    let mut report = BackupReport::default();
    let mut pace = Pace::new(options.bytes_per_second);
    // First: a content that is collected after this was carried by no message. And again at the end, for what came since.
    copy_files(data_dir, backup, &mut report, &mut pace)?;

    let log_dir = data_dir.join("log");
    let inspection = Inspection::open(&log_dir)?;
    let Some(end) = inspection.watermark() else {
        let dir = log_dir.display();
        let detail =
            format_args!("{dir} has no sound watermark, so how far it was acked is not known: see `chinwag check`");
        return Err(StoreError::damaged("back up", detail));
    };
    let spans: Vec<SegmentSpan> =
        inspection.segments()?.into_iter().filter(|span| span.number <= end.position.segment).collect();
    let held_segments = match &held {
        Some(manifest) if inspection.holds(&manifest.end()?)? => manifest.segments.clone(),
        Some(manifest) => {
            let detail = format_args!(
                "{} ends at {}, which is not in this log: it holds another history; use another directory",
                backup.display(),
                shown(&manifest.end()?)
            );
            return Err(refused("back up", detail));
        }
        None => Vec::new(),
    };
    let target = backup.join("log");
    make_dir(&target)?;
    let wanted = |span: &SegmentSpan| match span.number == end.position.segment {
        true => u64::from(end.position.offset),
        false => span.bytes,
    };
    let is_held = |span: &SegmentSpan| {
        let number = usize::try_from(span.number).unwrap_or(usize::MAX);
        held_segments.get(number.wrapping_sub(1)).filter(|held| held.closed || held.bytes == wanted(span))
    };
    let total = spans.iter().filter(|span| is_held(span).is_none()).map(wanted).sum();
    let mut segments = Vec::with_capacity(spans.len());
    let mut done = 0;
    for (index, span) in spans.iter().enumerate() {
        if let Some(held) = is_held(span) {
            segments.push(held.clone());
            continue;
        }
        let closed = span.number < end.position.segment;
        let (lots_end, chain) = match (closed, spans.get(index + 1)) {
            (true, Some(next)) => (span.end.unwrap_or(0), next.chain_before),
            _ => (end.position.offset, end.chain),
        };
        let copied = Copy {
            from: &log_dir,
            to: &target,
            name: file_name(span.number),
            bytes: wanted(span),
            lots_end,
            chain,
            holes: options.accept_holes,
        };
        let blake3 = copied.run(&mut report, &mut pace, &mut |piece| {
            done += piece;
            tell(Progress { phase: "log", done, total, counted: false });
        })?;
        segments.push(HeldSegment { number: span.number, bytes: wanted(span), blake3, closed });
        report.segments_copied += 1;
    }
    copy_files(data_dir, backup, &mut report, &mut pace)?;
    for name in SECRETS {
        match fs::read(data_dir.join(name)) {
            Ok(secret) => {
                write_file(&backup.join(name), &secret)?;
                report.secrets.push(name);
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("back up", data_dir.join(name).display(), error)),
        }
    }
    copy_webhooks(data_dir, backup)?;
    write_format(backup)?;
    let io = |error| StoreError::io("write watermark", target.display(), error);
    write_watermark(&target, &end).map_err(io)?;
    report.segments = segments.len() as u64;
    report.end = Some(end);
    Manifest::new(&end, clock::now_ms(), segments).write(backup)?;
    sync_dir(backup)?;
    Ok(report)
}

fn lock(backup: &Path) -> Result<File> {
    let path = backup.join("lock");
    let io = |error| StoreError::io("lock backup", path.display(), error);
    let file = File::options().create(true).truncate(false).write(true).open(&path).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(refused("back up", format_args!("{} is in use by another chinwag process", backup.display())))
        }
        Err(std::fs::TryLockError::Error(error)) => Err(io(error)),
    }
}

fn copy_files(data_dir: &Path, backup: &Path, report: &mut BackupReport, pace: &mut Pace) -> Result<()> {
    let (count, bytes) = copy_contents(&data_dir.join("files"), &backup.join("files"), &mut |b| pace.spend(b))?;
    report.files_copied += count;
    report.bytes_copied += bytes;
    Ok(())
}

/// One segment on its way.
struct Copy<'a> {
    from: &'a Path,
    to: &'a Path,
    name: String,
    /// How many bytes of the file.
    bytes: u64,
    /// Where its lots end, and the digest there.
    lots_end: u32,
    chain: [u8; 16],
    holes: bool,
}

impl Copy<'_> {
    /// Copies, verifies what was written, and gives it its name. Returns its hash.
    fn run(&self, report: &mut BackupReport, pace: &mut Pace, told: &mut dyn FnMut(u64)) -> Result<String> {
        let mut part = Part::begin(&self.to.join(&self.name))?;
        let mut hasher = blake3::Hasher::new();
        let read = read_pieces(&self.from.join(&self.name), self.bytes, &mut |piece| {
            hasher.update(piece);
            part.write(piece)?;
            pace.spend(piece.len() as u64);
            told(piece.len() as u64);
            Ok(())
        })?;
        part.sync()?;
        if read < self.bytes {
            let detail = format!("{} is shorter than its lots", self.from.join(&self.name).display());
            return Err(StoreError::damaged("back up", detail));
        }
        let made_as = part.made_at.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let mut holes = Vec::new();
        let verified = verify_segment(self.to, &made_as, self.lots_end, &mut |finding| {
            holes.push(finding.clone());
            if self.holes { Ok(()) } else { Err(finding) }
        });
        // Findings name the file that is damaged, not the copy of it.
        let source = self.from.join(&self.name);
        let renamed = |finding: Finding| Finding { file: source.clone(), ..finding };
        let mark = verified.map_err(renamed)?;
        if holes.is_empty() && mark.chain != self.chain {
            let detail = format_args!("{} does not end as what follows it says", source.display());
            return Err(StoreError::damaged("back up", detail));
        }
        // Hashed again from what lies there: the manifest vouches for the copy.
        let (hash, _) = hash_file(&part.made_at, self.bytes)?;
        if hash != hasher.finalize() {
            let detail = format_args!("{} was not copied as it is", source.display());
            return Err(StoreError::damaged("back up", detail));
        }
        part.finish()?;
        report.holes.extend(holes.into_iter().map(renamed));
        report.bytes_copied += read;
        Ok(hash.to_hex().to_string())
    }
}
