//! The built server as a process of its own: alone with what its test says, on free ports, found by its banner, and gone with
//! its test.

#![allow(dead_code, reason = "every test binary uses its part")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// How long a start or an end may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The binary in a directory, with nothing from this test's environment that it would heed.
pub fn chinwag(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chinwag"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CHINWAG_")) {
        command.env_remove(name);
    }
    // Its default is one port for all of this machine.
    command.env("CHINWAG_WUKONG_TCP_LISTEN", "").current_dir(dir);
    command
}

/// A server over a data directory on free ports, not started yet. `log_level`: of what it says on stderr.
pub fn server(dir: &Path, data: &Path, log_level: &str) -> Command {
    let mut command = chinwag(dir);
    command.arg("serve").arg("--data-dir").arg(data).args(["--log-level", log_level]);
    command.args(["--listen-socket", "127.0.0.1:0", "--listen-http", "127.0.0.1:0"]);
    command
}

/// A running server. Killed when it is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// `ws://…`
    pub socket: String,
    /// `http://…`
    pub http: String,
}

impl Process {
    /// Starts a server and waits until it listens.
    ///
    /// # Errors
    /// It ended, or said nothing in time.
    pub fn start(mut command: Command) -> Result<Self> {
        let child = command.stdout(Stdio::piped()).spawn().context("the server cannot be started")?;
        let mut process = Self { child, socket: String::new(), http: String::new() };
        let lines = BufReader::new(process.child.stdout.take().context("no stdout")?).lines();
        let (tell, told) = std::sync::mpsc::sync_channel(8);
        // Reads on to the end, so that the server never waits for its stdout.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let url = line.split_whitespace().nth(1).filter(|word| word.contains("://"));
                // Nobody listens any more once both were found.
                let _ = url.map(|url| tell.send(url.to_owned()));
            }
        });
        while process.socket.is_empty() || process.http.is_empty() {
            match told.recv_timeout(PATIENCE) {
                Ok(url) if url.starts_with("ws://") => process.socket = url,
                Ok(url) if url.starts_with("http://") => process.http = url,
                Ok(_) => {}
                Err(_) => bail!("no banner; ended: {:?}", process.child.try_wait()),
            }
        }
        Ok(process)
    }

    /// As [`Process::start`], for tests with other work to do meanwhile.
    ///
    /// # Errors
    /// As there.
    pub async fn started(command: Command) -> Result<Self> {
        tokio::task::spawn_blocking(move || Self::start(command)).await?
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Kills it, and waits for that.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end.
    ///
    /// # Errors
    /// It is not there to be asked.
    pub fn terminate(&self) -> Result<()> {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id())?).context("a pid")?;
        Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
    }

    /// Asks it to end, and waits for that.
    ///
    /// # Errors
    /// It does not end in time.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.terminate()?;
        let begun = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            ensure!(begun.elapsed() < PATIENCE, "no end after SIGTERM");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}
