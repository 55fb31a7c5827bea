//! Restoring a backup into an empty directory, whole or up to a version.
//!
//! Owns the directory `DIR.restoring` beside the target: everything is made there, verified, and renamed at the end, so a
//! server can never start on half a restore. Begun again, it goes on with the segments that are there already.
//!
//! A restored log goes on in other ways than the one it was copied from, so a break is committed: versions a client may have
//! seen beyond what was kept are answered with `reset`, and none of them is given again.

use std::fs::{self, File};
use std::path::Path;

use protocol::ids::Version;

use super::backup::SECRETS;
use super::check::{CheckReport, check_made, copy_contents, write_format};
use super::manifest::{HeldSegment, Manifest};
use super::rebuild::make_view;
use super::staging::Staging;
use super::webhooks::copy_webhooks;
use super::{
    Found, Part, Progress, Severity, Tell, hash_file, make_dir, read_format, read_pieces, refused, sync_dir, write_file,
};
use crate::clock;
use crate::store::log::inspect::{Inspection, file_name};
use crate::store::log::{Log, LogMark, LogOptions, LogPosition};
use crate::store::view;
use crate::store::{Commit, Record, Result, StoreError};

/// What a restore made.
#[derive(Debug, Clone)]
pub struct RestoreReport {
    /// What the backup holds.
    pub held: LogMark,
    /// The last version kept: that of the last lot that ends at or below the version asked for.
    pub kept: Version,
    /// Versions above `kept` up to here are answered with `reset`; the next one lies above.
    pub broken_until: Version,
    /// Everything restored, read back and compared.
    pub check: CheckReport,
}

/// Restores `backup` into `data_dir`, which must be absent or empty. `until`: keep what has this version at most, in whole
/// lots (what one fdatasync made durable).
///
/// # Errors
/// The backup is none, damaged or newer; the target is not empty; `until` lies before everything; I/O. The target is as it
/// was then, and what was made lies in `DIR.restoring` for the next try.
pub fn restore(backup: &Path, data_dir: &Path, until: Option<Version>, tell: Tell<'_>) -> Result<RestoreReport> {
    let Some(manifest) = Manifest::read(backup)? else {
        return Err(refused("restore", format_args!("{} holds no backup", backup.display())));
    };
    read_format(backup)?;
    let held = manifest.end()?;
    let made = Staging::begin("restore", data_dir, ".restoring")?;
    let staging = made.dir.clone();
    let log_dir = staging.join("log");
    make_dir(&log_dir)?;
    clear(&staging, &log_dir, &manifest)?;
    copy_segments(backup, &log_dir, &manifest, tell)?;
    copy_contents(&backup.join("files"), &staging.join("files"), &mut |_| {
        tell(Progress { phase: "files", done: 0, total: 0, counted: false });
    })?;
    for name in SECRETS {
        match fs::read(backup.join(name)) {
            Ok(secret) => write_file(&staging.join(name), &secret)?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io("restore", backup.join(name).display(), error)),
        }
    }
    copy_webhooks(backup, &staging)?;
    let kept = cut(&log_dir, &held, until, tell)?;
    let (log, broken_until) = commit_break(&log_dir, Some(kept), held.version)?;
    make_view(&staging, log, tell)?;
    write_format(&staging)?;
    let check = check_made(&staging, tell)?;
    if let Some(found) = check.findings.iter().find(|found| is_worse(found)) {
        return Err(StoreError::damaged("verify restore", found));
    }
    made.publish()?;
    Ok(RestoreReport { held, kept: kept.version, broken_until, check })
}

/// Whether a finding about what was just made means that it is not what it was made of.
pub(super) fn is_worse(found: &Found) -> bool {
    !(found.severity == Severity::Hole || found.file.ends_with(".log") && found.severity == Severity::Derived)
}

/// Takes away what an earlier try made behind the copies: the view, the watermark, segments of its break. A segment that is
/// there with the manifest's bytes stays.
fn clear(staging: &Path, log_dir: &Path, manifest: &Manifest) -> Result<()> {
    let view_dir = view::directory(staging);
    if view_dir.exists() {
        fs::remove_dir_all(&view_dir).map_err(|error| StoreError::io("restore", view_dir.display(), error))?;
    }
    let io = |error| StoreError::io("restore", log_dir.display(), error);
    for entry in fs::read_dir(log_dir).map_err(io)? {
        let entry = entry.map_err(io)?;
        let name = entry.file_name();
        let bytes = entry.metadata().map_err(io)?.len();
        let is_held = |held: &HeldSegment| name == *file_name(held.number) && held.closed && held.bytes == bytes;
        if !manifest.segments.iter().any(is_held) {
            fs::remove_file(entry.path()).map_err(io)?;
        }
    }
    Ok(())
}

fn copy_segments(backup: &Path, log_dir: &Path, manifest: &Manifest, tell: Tell<'_>) -> Result<()> {
    let total = manifest.segments.iter().map(|held| held.bytes).sum();
    let mut done = 0;
    for held in &manifest.segments {
        let (from, to) = (backup.join("log").join(file_name(held.number)), log_dir.join(file_name(held.number)));
        if to.is_file() && hash_file(&to, u64::MAX)?.0.to_hex().as_str() == held.blake3 {
            done += held.bytes;
            continue;
        }
        let mut part = Part::begin(&to)?;
        let mut hasher = blake3::Hasher::new();
        let read = read_pieces(&from, held.bytes, &mut |piece| {
            hasher.update(piece);
            part.write(piece)?;
            done += piece.len() as u64;
            tell(Progress { phase: "copying the log", done, total, counted: false });
            Ok(())
        })?;
        if read != held.bytes || hasher.finalize().to_hex().as_str() != held.blake3 {
            let detail = format_args!("{} is not what the manifest says", from.display());
            return Err(StoreError::damaged("restore", detail));
        }
        part.finish()?;
    }
    Ok(())
}

/// Goes through the copied log and cuts it behind the last lot that may stay. Returns the mark there.
fn cut(log_dir: &Path, held: &LogMark, until: Option<Version>, tell: Tell<'_>) -> Result<LogMark> {
    let inspection = Inspection::open(log_dir)?;
    let mut kept: Option<LogMark> = None;
    let total = inspection.segments()?.iter().map(|span| span.bytes).sum();
    let mut done = 0;
    let walked = inspection.walk(&[("manifest", *held)], &mut |lot| {
        done += u64::from(lot.end.offset - lot.position.offset);
        tell(Progress { phase: "verifying the log", done, total, counted: false });
        if until.is_none_or(|until| lot.last_version <= until) {
            kept = Some(LogMark { position: lot.end, version: lot.last_version, chain: lot.chain, ..*held });
        }
        Ok(())
    })?;
    use crate::store::log::FindingKind;
    let harmless = |kind| matches!(kind, FindingKind::Watermark | FindingKind::Message | FindingKind::Footer);
    if let Some(finding) = walked.findings.into_iter().find(|finding| !harmless(finding.kind)) {
        return Err(finding.into());
    }
    let Some(kept) = kept else {
        let detail = match until {
            Some(until) => format!("nothing in the backup has version {until} or a lower one"),
            None => "the backup holds no lot".to_owned(),
        };
        return Err(refused("restore", detail));
    };
    let LogPosition { segment, offset } = kept.position;
    let io = |error| StoreError::io("cut restored log", log_dir.display(), error);
    for span in inspection.segments()?.iter().rev().take_while(|span| span.number > segment) {
        fs::remove_file(log_dir.join(file_name(span.number))).map_err(io)?;
    }
    if kept.position != held.position {
        let file = File::options().write(true).open(log_dir.join(file_name(segment))).map_err(io)?;
        file.set_len(u64::from(offset)).and_then(|()| file.sync_all()).map_err(io)?;
    }
    sync_dir(log_dir)?;
    Ok(kept)
}

/// Commits the break as the log's next lot, with a version above everything it covers. `kept`: where the log must end.
pub(super) fn commit_break(log_dir: &Path, kept: Option<LogMark>, known: Version) -> Result<(Log, Version)> {
    let (mut log, _) = Log::open(log_dir, LogOptions::default(), None)?;
    let end = log.end();
    if kept.is_some_and(|kept| end.version != kept.version || end.chain != kept.chain) {
        return Err(StoreError::damaged("commit break", "the log does not end where it was cut"));
    }
    let until = Version::new(clock::now_us()).max(known).max(end.version);
    let record = Record::Break { kept: end.version, until };
    let sealed = log.seal(&[Commit::from(record)], until.get().saturating_add(1));
    log.write(&sealed)?;
    log.sync_watermark()?;
    Ok((log, until))
}
