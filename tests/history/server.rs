//! The real binary as a process: started on a disk that can be made to fail, killed, and found again by its clients.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::disk;
use crate::process::{self, Process};

/// How long anything may take before a round fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Where clients find the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// `host:port` of the sockets.
    pub socket: String,
    /// URL of the HTTP API.
    pub http: String,
    pub key: String,
    /// Which process since the round began.
    pub generation: u32,
}

/// What the server runs on.
#[derive(Debug, Clone)]
pub struct Ground {
    dir: PathBuf,
    data: PathBuf,
    /// The preloaded disk; `None`: the machine's own.
    shim: Option<PathBuf>,
    /// Whether only what was synced outlives the process.
    power: bool,
    generation: u32,
    /// A seeded bug, where the binary has them.
    bug: Option<String>,
    settings: Vec<String>,
}

impl Ground {
    /// An empty directory. `shim` is needed where the disk fails or the power is cut.
    pub fn new(
        dir: &Path,
        shim: Option<PathBuf>,
        power: bool,
        bug: Option<String>,
        settings: Vec<String>,
    ) -> Result<Self> {
        let data = dir.join("data-0");
        std::fs::create_dir(&data)?;
        let ground = Self { dir: dir.to_owned(), data, shim, power, generation: 0, bug, settings };
        ground.disk("ok")?;
        Ok(ground)
    }

    /// Makes the disk so: `ok`, `full`, `eio`, `nosync`.
    pub fn disk(&self, state: &str) -> Result<()> {
        // By rename: the shim reads it at any time.
        let made = self.dir.join("control.new");
        std::fs::write(&made, state)?;
        Ok(std::fs::rename(made, self.dir.join("control"))?)
    }

    fn shadow(&self) -> PathBuf {
        self.dir.join(format!("shadow-{}", self.generation))
    }

    /// What the server says of itself.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }

    /// Starts the binary. An error is what it said instead.
    pub async fn start(&mut self) -> Result<Server> {
        self.generation += 1;
        let mut command = process::server(&self.dir, &self.data, "warn");
        for setting in &self.settings {
            command.args(["--set", setting]);
        }
        if let Some(bug) = &self.bug {
            command.env("SEEDED_BUG", bug);
        }
        if let Some(shim) = &self.shim {
            command.env("LD_PRELOAD", shim).env("DISK_DATA", &self.data).env("DISK_CONTROL", self.dir.join("control"));
            if self.power {
                let shadow = self.shadow();
                std::fs::create_dir(&shadow)?;
                // What is there now was synced.
                disk::take_in(&self.data, &shadow)?;
                command.env("DISK_SHADOW", shadow);
            }
        }
        let log = self.dir.join("stderr");
        let stderr = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        command.stderr(stderr);
        let started = Process::started(command).await;
        let process = started.with_context(|| format!("the server said: {}", tail(&self.log())))?;
        let key = std::fs::read_to_string(self.data.join("root.key"))?.trim().to_owned();
        let socket = process.socket.trim_start_matches("ws://").trim_end_matches('/').to_owned();
        let http = process.http.trim_end_matches('/').to_owned();
        let address = Address { socket, http, key, generation: self.generation };
        Ok(Server { process, address })
    }

    /// Asks the server to end, and waits until it did.
    pub async fn stop(&mut self, mut server: Server) -> Result<()> {
        server.process.terminate()?;
        let ended = async {
            while !server.has_ended() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ended).await.context("no end after SIGTERM")?;
        self.kill(server)
    }

    /// Kills the server; with the power goes what was not synced.
    pub fn kill(&mut self, mut server: Server) -> Result<()> {
        use std::os::unix::fs::MetadataExt;
        server.process.kill()?;
        if self.power {
            let next = self.dir.join(format!("data-{}", self.generation));
            disk::restore(&self.shadow(), std::fs::metadata(&self.data)?.ino(), &next)?;
            self.data = next;
        }
        Ok(())
    }
}

/// The last lines of a text.
pub fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// A running process. Nothing outlives the test.
#[derive(Debug)]
pub struct Server {
    process: Process,
    address: Address,
}

impl Server {
    pub fn address(&self) -> Address {
        self.address.clone()
    }

    /// Whether the process ended by itself.
    pub fn has_ended(&mut self) -> bool {
        self.process.ended().is_some()
    }
}
