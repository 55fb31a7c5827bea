//! `check`, `rebuild`, `repair`, `backup`, `restore`, `export`, `import`: care of a data directory, with progress on stderr and the outcome on stdout.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use protocol::ids::Version;

use super::wukongim::{self, WukongimArgs};
use super::{Exit, Failure};
use crate::config::Config;
use crate::domain::refusal::ErrorKind;
use crate::store::StoreError;
use crate::store::care::backup::{BackupOptions, BackupReport, backup};
use crate::store::care::check::{CheckReport, check};
use crate::store::care::export::{ExportOptions, export};
use crate::store::care::import::{ImportReport, import};
use crate::store::care::rebuild::rebuild;
use crate::store::care::repair::{RepairReport, repair};
use crate::store::care::restore::restore;
use crate::store::care::{Progress, Tell};

/// How often progress is shown where it can be overwritten, and where each line stays.
const SHOWN_EVERY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The report as JSON
    #[arg(long)]
    json: bool,
    /// Where a copy of the view is made for the time of the check [default: the system's temporary directory]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct BackupArgs {
    /// Where to: an absent or empty directory, or an earlier backup of the same server
    #[arg(value_name = "DIR")]
    backup: PathBuf,
    /// Read no more than this many bytes per second
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_second: Option<u64>,
    /// Copy segments with damaged messages, too, instead of refusing; their seqs stay holes
    #[arg(long)]
    accept_holes: bool,
}

#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    /// Where to: a file per channel
    #[arg(value_name = "DIR")]
    target: PathBuf,
    /// Read no more than this many bytes of log per second
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    bytes_per_second: Option<u64>,
    /// Leave out hashes of tokens and keys, the pepper and the root key
    #[arg(long)]
    without_credentials: bool,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(super) struct ImportArgs {
    /// What `chinwag export` wrote; the target is --data-dir
    #[arg(value_name = "DIR", required = true)]
    source: Option<PathBuf>,
    #[command(subcommand)]
    other: Option<ImportFrom>,
}

#[derive(Debug, Subcommand)]
enum ImportFrom {
    /// Read a running WuKongIM through its HTTP API and import that; run again, it goes on where it was
    Wukongim(WukongimArgs),
}

#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    /// Do it; without this the command only says what would be lost
    #[arg(long)]
    accept_loss: bool,
}

#[derive(Debug, Args)]
pub(super) struct RestoreArgs {
    /// The backup; the target is --data-dir
    #[arg(value_name = "BACKUP")]
    backup: PathBuf,
    /// Keep only what was stored up to this version (a message_id is one)
    #[arg(long, value_name = "VERSION")]
    until_version: Option<u64>,
}

/// Shows progress on stderr: one line that is overwritten on a terminal, else a line every few seconds.
pub(super) struct Shown {
    terminal: bool,
    last: Instant,
    dirty: bool,
}

impl Shown {
    pub(super) fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), last: Instant::now(), dirty: false }
    }

    pub(super) fn tell(&mut self, progress: Progress) {
        let every = if self.terminal { SHOWN_EVERY.0 } else { SHOWN_EVERY.1 };
        if self.last.elapsed() < every {
            return;
        }
        self.last = Instant::now();
        let Progress { phase, done, total, counted } = progress;
        let line = match total {
            0 => phase.to_owned(),
            total if counted => format!("{phase}: {done} of {total}"),
            total => format!("{phase}: {} of {} MiB ({} %)", done >> 20, total >> 20, done * 100 / total),
        };
        let mut stderr = std::io::stderr().lock();
        // Nobody may be looking.
        let _ = if self.terminal { write!(stderr, "\r\x1b[K{line}") } else { writeln!(stderr, "{line}") };
        let _ = stderr.flush();
        self.dirty = self.terminal;
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        if self.dirty {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// Runs with progress shown.
fn with_progress<T>(run: impl FnOnce(Tell<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
    let mut shown = Shown::new();
    run(&mut |progress| shown.tell(progress))
}

/// What keeps a verb from beginning is about the start, anything later a failure.
pub(super) fn failed(what: &str, error: StoreError) -> Failure {
    let exit = if error.kind() == ErrorKind::Conflict { Exit::Start } else { Exit::Failed };
    Failure::new(exit, format_args!("{what}: {:#}", anyhow::Error::from(error)))
}

pub(super) fn run_check(config: &Config, args: &CheckArgs) -> Result<Exit, Failure> {
    let report = with_progress(|tell| check(&config.data_dir, args.scratch.as_deref(), tell));
    // 2, not 1: a script must tell "could not look" from "looked and found".
    let report = report.map_err(|e| {
        Failure::new(Exit::Usage, format_args!("it could not be checked: {:#}", anyhow::Error::from(e)))
    })?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report).context("cannot print the report")?);
    } else {
        print!("{}", check_text(&report));
    }
    Ok(if report.sound { Exit::Success } else { Exit::Failed })
}

fn check_text(report: &CheckReport) -> String {
    let mut text = String::new();
    for found in &report.findings {
        text.push_str(&format!("found: {found}\n"));
    }
    if report.findings_more > 0 {
        text.push_str(&format!("found: {} more\n", report.findings_more));
    }
    for note in &report.notes {
        text.push_str(&format!("note: {note}\n"));
    }
    let CheckReport { segments, lots, records, channels, messages, files, view_pages, .. } = report;
    let view =
        if report.view_compared { format!("{view_pages} index pages of the view") } else { "no view".to_owned() };
    text.push_str(&format!(
        "{segments} segments, {lots} lots, {records} records; {channels} channels, {messages} messages; {view}; \
         {files} files; version {}\n",
        report.version
    ));
    let count = report.findings.len() as u64 + report.findings_more;
    text.push_str(&if report.sound { "sound\n".to_owned() } else { format!("{count} findings\n") });
    text
}

pub(super) fn run_rebuild(config: &Config) -> Result<Exit, Failure> {
    let report = with_progress(|tell| rebuild(&config.data_dir, tell)).map_err(|e| failed("cannot rebuild", e))?;
    if let Some(aside) = &report.set_aside {
        println!("the old view lies in {}; remove it when it is of no more use", aside.display());
    }
    println!("{} records applied", report.records);
    print!("{}", check_text(&report.check));
    Ok(if report.check.sound { Exit::Success } else { Exit::Failed })
}

pub(super) fn run_backup(config: &Config, args: &BackupArgs) -> Result<Exit, Failure> {
    let options = BackupOptions { bytes_per_second: args.bytes_per_second, accept_holes: args.accept_holes };
    let report = with_progress(|tell| backup(&config.data_dir, &args.backup, options, tell));
    let report = report.map_err(|e| failed("the backup was not taken", e))?;
    let BackupReport { segments, segments_copied, files_copied, bytes_copied, .. } = report;
    for finding in &report.holes {
        println!("found: {finding}");
    }
    println!(
        "{segments} segments, {segments_copied} of them and {files_copied} files copied now ({bytes_copied} bytes)"
    );
    if !report.secrets.is_empty() {
        println!("it holds secrets ({}): keep it as safe as the data directory", report.secrets.join(", "));
    }
    let end = report.end.context("a backup without an end")?;
    println!("{} holds everything up to version {}", args.backup.display(), end.version);
    Ok(if report.holes.is_empty() { Exit::Success } else { Exit::Failed })
}

pub(super) fn run_restore(config: &Config, args: &RestoreArgs) -> Result<Exit, Failure> {
    let until = args.until_version.map(Version::new);
    let report = with_progress(|tell| restore(&args.backup, &config.data_dir, until, tell));
    let report = report.map_err(|e| failed("nothing was restored", e))?;
    print!("{}", check_text(&report.check));
    println!("the backup holds everything up to version {}, kept up to {}", report.held.version, report.kept);
    println!("versions up to {} are answered with reset: clients sync anew", report.broken_until);
    println!("restored into {}", config.data_dir.display());
    Ok(Exit::Success)
}

pub(super) fn run_export(config: &Config, args: &ExportArgs) -> Result<Exit, Failure> {
    let ExportArgs { target, bytes_per_second, without_credentials } = args;
    let options = ExportOptions { bytes_per_second: *bytes_per_second, without_credentials: *without_credentials };
    let report = with_progress(|tell| export(&config.data_dir, target, options, tell));
    let report = report.map_err(|e| failed("the export was not made", e))?;
    println!("{} channels, {} messages", report.channels, report.messages);
    if report.beside_a_server {
        println!("a server is running: it holds what was acked when it began, up to version {}", report.version);
    }
    if report.damaged > 0 {
        println!("{} messages are damaged: only their seqs are in it", report.damaged);
    }
    if !without_credentials {
        println!("it holds secrets (credentials): keep it as safe as the data directory");
    }
    Ok(Exit::Success)
}

pub(super) fn run_import(config: &Config, args: &ImportArgs) -> Result<Exit, Failure> {
    if let Some(ImportFrom::Wukongim(args)) = &args.other {
        return wukongim::run(config, args);
    }
    let source = args.source.as_ref().context("what is to be imported?")?;
    let report = with_progress(|tell| import(source, &config.data_dir, tell));
    print_import(config, &report.map_err(|e| failed("nothing was imported", e))?);
    Ok(Exit::Success)
}

pub(super) fn print_import(config: &Config, report: &ImportReport) {
    print!("{}", check_text(&report.check));
    println!("{} channels, {} messages, up to version {}", report.channels, report.messages, report.version);
    if report.holes > 0 {
        println!("{} messages were not in it: their seqs are taken, they are shown as expired", report.holes);
    }
    if !report.credentials {
        println!("no credentials in it: the first start makes a root key, users need new tokens");
    }
    println!("versions up to {} are answered with reset: clients sync anew", report.broken_until);
    println!("imported into {}", config.data_dir.display());
}

pub(super) fn run_repair(config: &Config, args: &RepairArgs) -> Result<Exit, Failure> {
    let report = with_progress(|tell| repair(&config.data_dir, args.accept_loss, tell));
    let report = report.map_err(|e| failed("not repaired", e))?;
    print!("{}", repair_text(&report));
    let Some(repaired) = &report.done else {
        if report.findings.is_empty() {
            println!("nothing stops a start: there is nothing to repair");
            return Ok(Exit::Success);
        }
        let advice = match report.kept {
            Some(_) => "a backup that reaches further loses less; `chinwag repair --accept-loss` cuts",
            None => "restore a backup",
        };
        println!("nothing was changed: {advice}");
        return Ok(Exit::Failed);
    };
    println!("what was cut lies in {}", repaired.aside.display());
    println!("versions up to {} are answered with reset: clients sync anew", repaired.broken_until);
    print!("{}", check_text(&repaired.check));
    Ok(if repaired.check.sound { Exit::Success } else { Exit::Failed })
}

fn repair_text(report: &RepairReport) -> String {
    let mut text: String = report.findings.iter().map(|found| format!("found: {found}\n")).collect();
    if let Some(kept) = report.kept.filter(|_| !report.findings.is_empty()) {
        let at = kept.position;
        text.push_str(&format!(
            "kept: up to version {} (segment {}, offset {})\n",
            kept.version, at.segment, at.offset
        ));
    }
    for run in &report.messages {
        let (no, first, last) = (run.channel_number, run.first_seq, run.last_seq);
        let name = run.channel.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
        text.push_str(&format!("lost: channel number {no} seq {first} to {last}{name}\n"));
    }
    if report.other_records > 0 {
        let count = report.other_records;
        text.push_str(&format!("lost: {count} changes of members, settings, positions or keys\n"));
    }
    for number in &report.segments {
        text.push_str(&format!("lost: all of segment {number}\n"));
    }
    text
}
