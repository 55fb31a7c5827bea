//! Accepting a loss: the log is cut before the first damage that stops a start, and everything behind it is kept aside.
//!
//! Owns what is moved in which order. While it runs the format file is no number, so that no server starts on half a repair;
//! begun again, it goes on. Nothing is deleted: what is cut lies in `DATA/lost-N` afterwards.
//!
//! A backup, restored, loses less whenever it reaches further than the cut: the report says where the cut lies.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use protocol::ids::Version;

use super::check::{CheckReport, VIEW_CACHE, ViewCopy, check_made, copy_view, write_format};
use super::rebuild::make_view;
use super::restore::commit_break;
use super::trace::name_of;
use super::{Found, FoundRun, Part, Tell, hold_to_write, make_dir, read_format, refused, sync_dir, write_file};
use crate::clock;
use crate::store::log::inspect::{Inspection, Walked, file_name};
use crate::store::log::{Finding, FindingKind, LogMark, LotEntry, LotView};
use crate::store::view::{self, View};
use crate::store::{ChannelNo, Record, Result, StoreError};

/// First word of the format file while a repair runs; the highest version known follows.
const REPAIRING: &str = "repairing";

/// What is lost, or would be.
#[derive(Debug, Clone, Default)]
pub struct RepairReport {
    /// What stops a start; none: there is nothing to repair.
    pub findings: Vec<Found>,
    /// Where the log is cut: everything up to there is kept. `None`: nothing can be kept.
    pub kept: Option<LogMark>,
    /// Messages behind the cut that can be named, per channel in runs.
    pub messages: Vec<FoundRun>,
    /// Records of other kinds behind the cut that can be read: members, settings, read positions, keys.
    pub other_records: u64,
    /// Whole segments that are taken out of the log.
    pub segments: Vec<u32>,
    /// Only with the loss accepted: where the lost part lies, up to which version is answered with `reset`, what is left.
    pub done: Option<Repaired>,
}

/// A loss that was accepted.
#[derive(Debug, Clone)]
pub struct Repaired {
    /// The lost part.
    pub aside: PathBuf,
    /// Versions up to here that lie behind the cut are answered with `reset`.
    pub broken_until: Version,
    /// What is left, read back and compared.
    pub check: CheckReport,
}

/// Says what stops a start of `data_dir` and what accepting it would lose; with `accept` also does it: cuts, keeps aside,
/// commits a break, makes the view anew and verifies.
///
/// # Errors
/// A server has the directory; nothing at all could be kept; the disk.
pub fn repair(data_dir: &Path, accept: bool, tell: Tell<'_>) -> Result<RepairReport> {
    let pending = pending(data_dir)?;
    if pending.is_none() {
        read_format(data_dir)?;
    }
    let _lock = hold_to_write(data_dir)?;
    let log_dir = data_dir.join("log");
    let mut report = RepairReport::default();
    let mut lost = Lost::default();
    let mut aside = None;
    let inspection = loop {
        let error = match Inspection::open(&log_dir) {
            Ok(inspection) => break inspection,
            Err(error) => error,
        };
        // A header that cannot be read, or a gap: no segment from there on continues what lies before.
        let Some((found, number)) = header_finding(&error) else { return Err(error) };
        report.findings.push(found.into());
        let beyond = segments_from(&log_dir, number)?;
        lost.read_segments(&log_dir, &beyond);
        report.segments.extend(&beyond);
        if number <= 1 {
            lost.tell(&mut report);
            return Ok(report);
        }
        if !accept || beyond.is_empty() {
            break Inspection::open_segments(&log_dir, 1, Some(number - 1))?;
        }
        guard(data_dir, pending.unwrap_or_default().max(Version::new(clock::now_us())))?;
        let aside = aside_dir(data_dir, &mut aside)?;
        take_out(&log_dir, &aside, &beyond)?;
    };
    // Asked of a copy: sled writes when it is opened, and nothing may change before the loss is accepted.
    let copied = copy_view(data_dir, tell)?.filter(|copied| copied.view.mark().log_id == inspection.log_id());
    let mark = copied.as_ref().map(|copied| copied.view.mark());
    let known: Vec<(&str, LogMark)> = mark.iter().map(|mark| ("view's mark", *mark)).collect();
    let walked = inspection.walk(&known, &mut |_| Ok(()))?;
    report.findings.extend(stopping(&walked).cloned().map(Found::from));
    let Some(kept) = walked.sound else { return Ok(report) };
    report.kept = Some(kept);
    lost.name(&walked);
    let mut heads = BTreeMap::new();
    inspection.walk(&[], &mut |lot| {
        if lot.position < kept.position {
            lost.keep(lot, &mut heads);
        } else {
            lost.take(lot);
        }
        Ok(())
    })?;
    if let Some(copied) = copied {
        lost.by_view(copied, &inspection, &heads)?;
    }
    lost.tell(&mut report);
    report.segments.extend(inspection.segments()?.iter().map(|span| span.number));
    report.segments.retain(|number| *number > kept.position.segment);
    report.segments.sort_unstable();
    report.segments.dedup();
    if (report.findings.is_empty() && pending.is_none()) || !accept {
        return Ok(report);
    }

    // From here on the directory changes. Every mark known goes into the break before its file is moved.
    let view_dir = view::directory(data_dir);
    let marks = [mark, inspection.watermark()].into_iter().flatten().map(|mark| mark.version);
    let known = marks.chain(pending).chain(lost.highest).max().unwrap_or_default();
    guard(data_dir, known)?;
    let aside = aside_dir(data_dir, &mut aside)?;
    cut(&log_dir, &aside, &kept, &segments_from(&log_dir, kept.position.segment.saturating_add(1))?)?;
    if view_dir.exists() {
        view::set_aside(&view_dir)?;
    }
    for (from, name) in [(log_dir.join("watermark"), "watermark"), (data_dir.join("search"), "search")] {
        if from.exists() {
            rename(&from, &aside.join(name))?;
        }
    }
    sync_dir(&log_dir)?;
    let (log, broken_until) = commit_break(&log_dir, None, known)?;
    make_view(data_dir, log, tell)?;
    let check = check_made(data_dir, tell)?;
    write_format(data_dir)?;
    report.done = Some(Repaired { aside, broken_until, check });
    Ok(report)
}

/// The findings a start refuses.
fn stopping(walked: &Walked) -> impl Iterator<Item = &Finding> {
    walked.findings.iter().filter(|finding| finding.stops_start())
}

/// The highest version known to a repair that was interrupted.
fn pending(data_dir: &Path) -> Result<Option<Version>> {
    let path = data_dir.join("format");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text
            .strip_prefix(REPAIRING)
            .map(|rest| Version::new(rest.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)))),
        // `read_format` says what it is.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(StoreError::io("read format", path.display(), error)),
    }
}

/// Keeps servers away until the repair is done.
fn guard(data_dir: &Path, known: Version) -> Result<()> {
    write_file(&data_dir.join("format"), format!("{REPAIRING} {known}: run chinwag repair again\n").as_bytes())
}

fn header_finding(error: &StoreError) -> Option<(Finding, u32)> {
    let finding = std::error::Error::source(error)?.downcast_ref::<Finding>()?;
    if matches!(finding.kind, FindingKind::Io | FindingKind::NewerFormat) {
        return None;
    }
    let number = finding.file.file_stem()?.to_str()?.parse().ok()?;
    Some((finding.clone(), number))
}

/// Numbers of the segments from one on that are there, highest first.
fn segments_from(log_dir: &Path, number: u32) -> Result<Vec<u32>> {
    let io = |error| StoreError::io("read log", log_dir.display(), error);
    let mut numbers = Vec::new();
    for entry in fs::read_dir(log_dir).map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let found = name.to_str().and_then(|name| name.strip_suffix(".log")?.parse::<u32>().ok());
        numbers.extend(found.filter(|found| *found >= number && name == *file_name(*found)));
    }
    numbers.sort_unstable_by(|a, b| b.cmp(a));
    Ok(numbers)
}

fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(|error| StoreError::io("keep aside", from.display(), error))
}

fn aside_dir(data_dir: &Path, made: &mut Option<PathBuf>) -> Result<PathBuf> {
    if let Some(dir) = made {
        return Ok(dir.clone());
    }
    let free = (1..u32::MAX).map(|n| data_dir.join(format!("lost-{n}"))).find(|dir| !dir.exists());
    let dir = free.ok_or_else(|| refused("repair", "there are too many lost-N directories"))?;
    make_dir(&dir)?;
    sync_dir(data_dir)?;
    Ok(made.insert(dir).clone())
}

/// Moves segments out of the log, highest first, so that what is left is a prefix at any moment.
fn take_out(log_dir: &Path, aside: &Path, numbers: &[u32]) -> Result<()> {
    for number in numbers {
        rename(&log_dir.join(file_name(*number)), &aside.join(file_name(*number)))?;
    }
    sync_dir(aside)?;
    sync_dir(log_dir)
}

/// Cuts the log behind `kept`.
fn cut(log_dir: &Path, aside: &Path, kept: &LogMark, beyond: &[u32]) -> Result<()> {
    take_out(log_dir, aside, beyond)?;
    let path = log_dir.join(file_name(kept.position.segment));
    let at = u64::from(kept.position.offset);
    let io = |error| StoreError::io("cut log", path.display(), error);
    let bytes = fs::metadata(&path).map_err(io)?.len();
    if bytes > at {
        let mut part = Part::begin(&aside.join(format!("{}.from-{at}", file_name(kept.position.segment))))?;
        let mut skipped = 0;
        super::read_pieces(&path, u64::MAX, &mut |piece| {
            let skip = usize::try_from(at - skipped).unwrap_or(usize::MAX).min(piece.len());
            skipped += skip as u64;
            part.write(&piece[skip..])
        })?;
        part.finish()?;
        let file = File::options().write(true).open(&path).map_err(io)?;
        file.set_len(at).and_then(|()| file.sync_all()).map_err(io)?;
    }
    Ok(())
}

/// What lies behind the cut, as far as directories, footers, segments behind a gap and the view tell.
#[derive(Debug, Default)]
struct Lost {
    /// Runs of seqs per channel number, in no order.
    seqs: BTreeMap<u32, Vec<(u64, u64)>>,
    /// Records of other kinds.
    others: u64,
    /// The highest version met.
    highest: Option<Version>,
    /// Names of channels.
    names: BTreeMap<u32, String>,
}

impl Lost {
    /// Notes the names of channels, and the seqs of their last messages, in what is kept.
    fn keep(&mut self, lot: &LotView, heads: &mut BTreeMap<u32, u64>) {
        for entry in &lot.records {
            match entry {
                LotEntry::DamagedMessage { channel, seq, .. } => {
                    heads.insert(channel.0, *seq);
                }
                LotEntry::Record { record: Record::Message(message), .. } => {
                    heads.insert(message.channel.0, message.message_seq.get());
                }
                LotEntry::Record { record, .. } => self.note_name(record),
            }
        }
    }

    fn note_name(&mut self, record: &Record) {
        if let Record::ChannelCreated { channel, key } = record {
            self.names.insert(channel.0, name_of(key));
        }
    }

    fn take(&mut self, lot: &LotView) {
        self.highest = self.highest.max(Some(lot.last_version));
        for entry in &lot.records {
            let (channel, seq) = match entry {
                LotEntry::DamagedMessage { channel, seq, .. } => (Some(*channel), *seq),
                LotEntry::Record { record, .. } => {
                    self.note_name(record);
                    (record.channel(), record.seq())
                }
            };
            match (channel, seq) {
                (Some(channel), 1..) => {
                    let runs = self.seqs.entry(channel.0).or_default();
                    match runs.last_mut() {
                        Some((_, last)) if *last + 1 == seq => *last = seq,
                        _ => runs.push((seq, seq)),
                    }
                }
                _ => self.others += 1,
            }
        }
    }

    /// Messages that findings name.
    fn name(&mut self, walked: &Walked) {
        for run in stopping(walked).flat_map(|finding| &finding.messages) {
            let last = run.first_seq.saturating_add(run.count.saturating_sub(1));
            self.seqs.entry(run.channel.0).or_default().push((run.first_seq, last));
        }
    }

    /// Reads what segments behind a gap hold, each for itself; what cannot be read tells nothing.
    fn read_segments(&mut self, log_dir: &Path, numbers: &[u32]) {
        for number in numbers.iter().rev() {
            let Ok(segment) = Inspection::open_segments(log_dir, *number, Some(*number)) else { continue };
            let walked = segment.walk(&[], &mut |lot| {
                self.take(lot);
                Ok(())
            });
            if let Ok(walked) = walked {
                self.name(&walked);
            }
        }
    }

    /// Messages the view knows beyond what is kept: also those nobody can read any more.
    fn by_view(&mut self, copied: ViewCopy, kept: &Inspection, heads: &BTreeMap<u32, u64>) -> Result<()> {
        let ViewCopy { view, scratch: _scratch } = copied;
        let view = View::new(view, kept.reader(), VIEW_CACHE);
        let (count, mut met) = (view.channel_count(), 0);
        for number in 0..u32::MAX {
            if met == count {
                break;
            }
            let Some(info) = view.channel(ChannelNo(number))? else { continue };
            met += 1;
            self.names.entry(number).or_insert_with(|| name_of(&info.key));
            let head = heads.get(&number).copied().unwrap_or(0);
            if info.head_seq > head {
                self.seqs.entry(number).or_default().push((head + 1, info.head_seq));
            }
        }
        Ok(())
    }

    /// Writes it into the report, joined to runs.
    fn tell(&self, report: &mut RepairReport) {
        report.other_records = self.others;
        for (channel_number, runs) in &self.seqs {
            let mut runs = runs.clone();
            runs.sort_unstable();
            let mut joined: Vec<(u64, u64)> = Vec::new();
            for (first, last) in runs {
                match joined.last_mut() {
                    Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                    _ => joined.push((first, last)),
                }
            }
            report.messages.extend(joined.into_iter().map(|(first_seq, last_seq)| FoundRun {
                channel_number: *channel_number,
                channel: self.names.get(channel_number).cloned(),
                first_seq,
                last_seq,
            }));
        }
    }
}
