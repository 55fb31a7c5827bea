//! What a process has used, from `/proc`: CPU time and resident memory.

// Each example uses a part of the shared modules.
#![allow(dead_code)]

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// A process to watch.
#[derive(Debug, Clone)]
pub struct Process {
    path: String,
}

impl Process {
    /// The process with this id.
    ///
    /// # Errors
    /// There is no such process.
    pub fn with_pid(pid: u32) -> Result<Self> {
        let process = Self { path: format!("/proc/{pid}") };
        process.cpu().with_context(|| format!("no process {pid} to watch"))?;
        Ok(process)
    }

    /// This process itself.
    pub fn own() -> Self {
        Self { path: "/proc/self".to_owned() }
    }

    /// User and system CPU time of all its threads, finished ones included. Steps of 10 ms.
    ///
    /// # Errors
    /// The process is gone.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("{}/stat", self.path))?;
        // The command name in parentheses may hold spaces and parentheses: fields are counted from its end.
        let (_, fields) = stat.rsplit_once(')').context("unexpected shape of /proc stat")?;
        let mut fields = fields.split_ascii_whitespace().skip(11);
        let mut ticks = || -> Result<u64> { Ok(fields.next().context("short /proc stat")?.parse()?) };
        let sum = ticks()? + ticks()?;
        let per_second = rustix::param::clock_ticks_per_second().max(1);
        Ok(Duration::from_nanos(sum * (1_000_000_000 / per_second)))
    }

    /// Resident memory in bytes.
    ///
    /// # Errors
    /// The process is gone.
    pub fn rss(&self) -> Result<u64> {
        let statm = fs::read_to_string(format!("{}/statm", self.path))?;
        let pages: u64 = statm.split_ascii_whitespace().nth(1).context("short /proc statm")?.parse()?;
        Ok(pages * rustix::param::page_size() as u64)
    }
}
