//! The lines of many files in one order: by time, and within a file as they lie.
//!
//! Owns which files are open at once. More files than that are merged in groups first, into files in a spool directory, so
//! memory is bounded by the number of open files and their longest lines, whatever the number of channels.
//!
//! Invariants: a file's lines come in their order, each once; a file without its last line `end` is an error, and so is a
//! version that does not lie above the one before it in the same file.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::make_dir;
use crate::domain::refusal::ErrorKind;
use crate::store::{Result, StoreError};

/// Files open at once.
const OPEN_MAX: usize = 256;
/// Bytes read ahead of each.
const AHEAD: usize = 32 << 10;
/// Longest line: a payload of tens of MiB, or a membership of millions.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// A line on its way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RawLine {
    /// Unix microseconds, never falling within a file.
    pub key: u64,
    /// Which of the files.
    pub file: u32,
    /// From 1.
    pub number: u64,
    /// Without its newline.
    pub text: String,
}

/// What orders a line, and what must be known of the last one.
#[derive(Deserialize)]
struct Head {
    kind: Option<String>,
    version: Option<u64>,
    message_id: Option<u64>,
    timestamp_ms: Option<u64>,
    lines: Option<u64>,
}

/// An error that names file and line.
pub(super) fn bad_line(path: &Path, number: u64, what: impl std::fmt::Display) -> StoreError {
    not_an_export(format_args!("{}: line {number}: {what}", path.display()))
}

/// What was given is not what an export is.
pub(super) fn not_an_export(detail: impl std::fmt::Display) -> StoreError {
    StoreError { operation: "read export", kind: ErrorKind::Invalid, detail: detail.to_string(), source: None }
}

/// Where lines come from.
struct Source {
    path: PathBuf,
    reader: BufReader<File>,
    /// `None`: lines merged before, with their keys in front.
    file: Option<u32>,
    number: u64,
    key: u64,
    /// The last line's version, when it had one.
    version: u64,
}

impl Source {
    fn open(path: &Path, file: Option<u32>) -> Result<Self> {
        let opened = File::open(path).map_err(|error| StoreError::io("read export", path.display(), error))?;
        let reader = BufReader::with_capacity(AHEAD, opened);
        Ok(Self { path: path.to_owned(), reader, file, number: 0, key: 0, version: 0 })
    }

    fn next_text(&mut self) -> Result<Option<String>> {
        let mut bytes = Vec::new();
        let mut limited = std::io::Read::take(&mut self.reader, LINE_BYTES_MAX);
        let read = limited.read_until(b'\n', &mut bytes);
        let read = read.map_err(|error| StoreError::io("read export", self.path.display(), error))?;
        if read == 0 {
            return Ok(None);
        }
        self.number += 1;
        let bad = |what: &str| Err(bad_line(&self.path, self.number, what));
        if bytes.pop() != Some(b'\n') {
            return bad(if read as u64 == LINE_BYTES_MAX { "it is longer than 64 MiB" } else { "it does not end" });
        }
        String::from_utf8(bytes).map(Some).or_else(|_| bad("it is not UTF-8"))
    }

    /// The next line; `None`: the end, which was as it must be.
    fn next(&mut self) -> Result<Option<RawLine>> {
        let text = self.next_text()?;
        match self.file {
            Some(file) => self.next_of_export(file, text),
            None => text.map(|text| self.merged_before(&text)).transpose(),
        }
    }

    fn next_of_export(&mut self, file: u32, text: Option<String>) -> Result<Option<RawLine>> {
        let Some(text) = text else {
            return Err(bad_line(&self.path, self.number + 1, "it has no line \"end\": it is not whole"));
        };
        let bad = |what: &dyn std::fmt::Display| Err(bad_line(&self.path, self.number, what));
        let head: Head = match serde_json::from_str(&text) {
            Ok(head) => head,
            Err(error) => return bad(&format_args!("it is no line of an export: {error}")),
        };
        if head.kind.as_deref() == Some("end") {
            if head.lines != Some(self.number - 1) {
                return bad(&format_args!("field \"lines\" is not {}, the lines before it", self.number - 1));
            }
            return match self.next_text()? {
                None => Ok(None),
                Some(_) => Err(bad_line(&self.path, self.number, "nothing may follow the line \"end\"")),
            };
        }
        if let Some(version) = head.version.or(head.message_id) {
            if version <= self.version {
                return bad(&format_args!("version {version} does not lie above {} before it", self.version));
            }
            self.version = version;
            self.key = self.key.max(version);
        } else {
            self.key = self.key.max(head.timestamp_ms.unwrap_or(0).saturating_mul(1_000));
        }
        Ok(Some(RawLine { key: self.key, file, number: self.number, text }))
    }

    fn merged_before(&self, text: &str) -> Result<RawLine> {
        let mut parts = text.splitn(4, '\t');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (key, file, line) = (number(), number().and_then(|file| u32::try_from(file).ok()), number());
        match (key, file, line, parts.next()) {
            (Some(key), Some(file), Some(number), Some(text)) => {
                Ok(RawLine { key, file, number, text: text.to_owned() })
            }
            _ => Err(StoreError::damaged("merge export", self.path.display())),
        }
    }
}

/// Hands on every line of `files` in order of time; equal times in order of the files. `spool`: a directory for what is
/// merged in between, taken away at the end.
///
/// # Errors
/// What is wrong in a file, with its line; I/O; what `each` says.
pub(super) fn merge(files: &[PathBuf], spool: &Path, each: &mut dyn FnMut(RawLine) -> Result<()>) -> Result<()> {
    merge_groups(files, spool, OPEN_MAX, each)
}

fn merge_groups(
    files: &[PathBuf],
    spool: &Path,
    open_max: usize,
    each: &mut dyn FnMut(RawLine) -> Result<()>,
) -> Result<()> {
    let mut sources: Vec<(PathBuf, Option<u32>)> = files.iter().cloned().zip((0..).map(Some)).collect();
    let io = |error| StoreError::io("merge export", spool.display(), error);
    remove_spool(spool)?;
    let mut made = 0;
    while sources.len() > open_max {
        make_dir(spool)?;
        let mut merged = Vec::with_capacity(sources.len() / open_max + 1);
        for group in sources.chunks(open_max) {
            let path = spool.join(format!("{made:06}"));
            made += 1;
            let mut out = BufWriter::new(File::create(&path).map_err(io)?);
            merge_open(group, &mut |line| {
                let RawLine { key, file, number, text } = line;
                writeln!(out, "{key}\t{file}\t{number}\t{text}").map_err(io)
            })?;
            out.flush().map_err(io)?;
            for (path, _) in group.iter().filter(|(_, file)| file.is_none()) {
                fs::remove_file(path).map_err(io)?;
            }
            merged.push((path, None));
        }
        sources = merged;
    }
    merge_open(&sources, each)?;
    remove_spool(spool)
}

pub(super) fn remove_spool(spool: &Path) -> Result<()> {
    match fs::remove_dir_all(spool) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(StoreError::io("merge export", spool.display(), error))
        }
        _ => Ok(()),
    }
}

fn merge_open(sources: &[(PathBuf, Option<u32>)], each: &mut dyn FnMut(RawLine) -> Result<()>) -> Result<()> {
    let mut open = Vec::with_capacity(sources.len());
    let mut heads = BinaryHeap::with_capacity(sources.len());
    for (path, file) in sources {
        let mut source = Source::open(path, *file)?;
        if let Some(line) = source.next()? {
            heads.push(Reverse((line, open.len())));
        }
        open.push(source);
    }
    while let Some(Reverse((line, at))) = heads.pop() {
        each(line)?;
        if let Some(next) = open[at].next()? {
            heads.push(Reverse((next, at)));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
        let path = dir.join(name);
        fs::write(&path, text).expect("written");
        path
    }

    fn merged(files: &[PathBuf], spool: &Path, open_max: usize) -> Result<Vec<(u64, u32, u64)>> {
        let mut found = Vec::new();
        merge_groups(files, spool, open_max, &mut |line| {
            found.push((line.key, line.file, line.number));
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn lines_come_by_time_however_few_files_may_be_open() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = Vec::new();
        let mut expected = Vec::new();
        for file in 0..40_u32 {
            let mut text = String::new();
            for line in 1..=u64::from(file % 7) {
                let version = line * 100 + u64::from(file * 31 % 41);
                text.push_str(&format!("{{\"kind\":\"read\",\"version\":{version},\"uid\":\"a\\\\tb\"}}\n"));
                expected.push((version, file, line));
            }
            text.push_str(&format!("{{\"kind\":\"end\",\"lines\":{}}}\n", file % 7));
            files.push(write(dir.path(), &file.to_string(), &text));
        }
        expected.sort_unstable();
        let spool = dir.path().join("spool");
        for open_max in [2, 3, 7, 40, 100] {
            assert_eq!(merged(&files, &spool, open_max).expect("merged"), expected, "{open_max} open");
            assert!(!spool.exists());
        }
    }

    #[test]
    fn times_never_fall_within_a_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let end = "{\"kind\":\"end\",\"lines\":3}\n";
        let at = |ms: u64| format!("{{\"kind\":\"read\",\"timestamp_ms\":{ms}}}\n");
        let one = write(dir.path(), "one", &format!("{}{}{}{end}", at(5), at(3), at(6)));
        let two = write(dir.path(), "two", &format!("{}{}{}{end}", at(4), at(5), at(5)));
        let found = merged(&[one, two], &dir.path().join("spool"), 9).expect("merged");
        let expected = [(4, 1, 1), (5, 0, 1), (5, 0, 2), (5, 1, 2), (5, 1, 3), (6, 0, 3)];
        assert_eq!(found, expected.map(|(ms, file, line)| (ms * 1_000, file, line)));
    }

    #[test]
    fn a_file_that_is_not_whole_is_named_with_its_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let line = |version: u64| format!("{{\"kind\":\"read\",\"version\":{version}}}\n");
        let end = |lines: u64| format!("{{\"kind\":\"end\",\"lines\":{lines}}}\n");
        for (text, said) in [
            (line(1), "line 2: it has no line \"end\""),
            (String::new(), "line 1: it has no line \"end\""),
            (format!("{}{}", line(1), end(2)), "line 2: field \"lines\" is not 1"),
            (format!("{}{}{}", line(1), end(1), line(2)), "line 3: nothing may follow"),
            (format!("{}{}{}", line(2), line(2), end(2)), "line 2: version 2 does not lie above 2"),
            (format!("{}{{\"kind\"", line(2)), "line 2: it does not end"),
            (format!("{}rubbish\n", line(2)), "line 2: it is no line of an export"),
            ("{\"kind\":\"read\",\"version\":-1}\n".to_owned(), "line 1: it is no line of an export"),
        ] {
            let file = write(dir.path(), "some.ndjson", &text);
            let error = merged(&[file], &dir.path().join("spool"), 9).expect_err("refused").to_string();
            assert!(error.contains("some.ndjson") && error.contains(said), "{error} for {said}");
        }
    }
}
