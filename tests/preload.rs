//! The real binary on a disk that fails, as an operator meets it, and under power cuts: what was not synced is gone
//! (`preload/disk.c`). Without a C compiler there is nothing to preload, and the test says so.
//!
//! CHINWAG_PRELOAD_CUTS=100 for more cuts.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

#[path = "preload/disk.rs"]
mod disk;
mod process;

use disk::{restore, shim, take_in};
use process::Process;

const PATIENCE: Duration = Duration::from_secs(60);
const CUTS: u32 = 8;

struct Server {
    process: Process,
    key: String,
    log: PathBuf,
}

/// Starts the binary over the shim.
fn start(dir: &Path, data: &Path, shim: &Path, shadow: Option<&Path>) -> Result<Server> {
    let mut command = process::server(dir, data, "warn");
    command.args(["--set", "store.checkpoint_interval_ms=100", "--set", "store.checkpoint_log_bytes_max=1048576"]);
    command.args(["--set", "store.segment_bytes_max=1048576"]);
    command.env("LD_PRELOAD", shim).env("DISK_DATA", data).env("DISK_CONTROL", dir.join("control"));
    if let Some(shadow) = shadow {
        command.env("DISK_SHADOW", shadow);
    }
    let log = dir.join("stderr");
    command.stderr(std::fs::OpenOptions::new().create(true).append(true).open(&log)?);
    let process = Process::start(command).with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
    let key = std::fs::read_to_string(data.join("root.key"))?.trim().to_owned();
    Ok(Server { process, key, log })
}

impl Server {
    async fn post(&self, path: &str, body: Value) -> Result<(u16, Value)> {
        let request =
            reqwest::Client::new().post(format!("{}{path}", self.process.http)).header("token", &self.key).json(&body);
        let response = tokio::time::timeout(PATIENCE, request.send()).await??;
        let status = response.status().as_u16();
        Ok((status, response.json().await.unwrap_or(Value::Null)))
    }

    async fn get(&self, path: &str) -> Result<(u16, String)> {
        let request = reqwest::Client::new().get(format!("{}{path}", self.process.http)).header("token", &self.key);
        let response = request.send().await?;
        Ok((response.status().as_u16(), response.text().await?))
    }

    /// Sends a message; its seq, or the refusal.
    async fn send(&self, name: &str) -> Result<Result<u64, (u16, Value)>> {
        let body = json!({ "from_uid": "alice", "channel_id": "g", "channel_type": 2, "client_msg_no": name,
                           "payload": STANDARD.encode(name) });
        let (status, body) = self.post("/message/send", body).await?;
        let seq = body["message_seq"].as_u64().or_else(|| body["data"]["message_seq"].as_u64());
        Ok(if status == 200 { Ok(seq.with_context(|| format!("no seq in {body}"))?) } else { Err((status, body)) })
    }

    /// Names by seq, all of them.
    async fn history(&self) -> Result<Vec<String>> {
        let mut names = Vec::new();
        loop {
            let body = json!({ "login_uid": "alice", "channel_id": "g", "channel_type": 2, "limit": 500, "pull_mode": 1,
                               "start_message_seq": names.len() + 1, "end_message_seq": 0 });
            let (status, page) = self.post("/channel/messagesync", body).await?;
            ensure!(status == 200, "history: {status} {page}");
            for message in page["messages"].as_array().context("messages")? {
                ensure!(message["message_seq"] == names.len() + 1, "{message} behind {} messages", names.len());
                let name = message["client_msg_no"].as_str().context("a name")?;
                ensure!(message["payload"] == STANDARD.encode(name), "payload of {name}");
                names.push(name.to_owned());
            }
            if page["more"] != 1 {
                return Ok(names);
            }
        }
    }

    async fn until_ready(&self) -> Result<()> {
        let begun = Instant::now();
        loop {
            let (status, body) = self.get("/readyz").await?;
            if status == 200 {
                return Ok(());
            }
            ensure!(begun.elapsed() < PATIENCE, "not ready: {body}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn group(server: &Server) -> Result<()> {
    let body = json!({ "channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"] });
    let (status, body) = server.post("/channel", body).await?;
    ensure!(status == 200, "POST /channel: {status} {body}");
    Ok(())
}

/// Names of the same seqs as acked.
fn check(names: &[String], acked: &HashMap<String, u64>) -> Result<()> {
    for (name, seq) in acked {
        let found = names.get(*seq as usize - 1);
        ensure!(found == Some(name), "{name} was acked with seq {seq}, there is {found:?} of {}", names.len());
    }
    Ok(())
}

#[tokio::test]
async fn a_disk_that_fails_and_recovers_needs_no_restart() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(shim) = shim(dir.path()) else { return Ok(()) };
    let control = dir.path().join("control");
    std::fs::write(&control, "ok")?;
    let server = start(dir.path(), &dir.path().join("data"), &shim, None)?;
    group(&server).await?;
    let mut acked = HashMap::new();
    let mut sent = 0;
    for fault in ["full", "eio", "nosync", "full", "nosync"] {
        for _ in 0..40 {
            let name = format!("m{sent}");
            sent += 1;
            let seq = server.send(&name).await?.map_err(|no| anyhow::anyhow!("refused: {no:?}"))?;
            acked.insert(name, seq);
        }
        let before = server.history().await?;
        check(&before, &acked)?;
        std::fs::write(&control, fault)?;
        // Long enough for checkpoints to fail, too.
        let begun = Instant::now();
        let mut refused = 0;
        while begun.elapsed() < Duration::from_millis(1_500) {
            let name = format!("m{sent}");
            sent += 1;
            match server.send(&name).await? {
                Err((status, body)) => {
                    ensure!(status == 503 && body.to_string().contains("retry_after_ms"), "{fault}: {status} {body}");
                    refused += 1;
                }
                Ok(seq) => ensure!(acked.insert(name, seq).is_none() && refused == 0, "{fault}: taken after a refusal"),
            }
            ensure!(server.history().await? == before, "{fault}: readers go on");
        }
        ensure!(refused > 0, "{fault}: nothing was refused");
        let (status, body) = server.get("/readyz").await?;
        ensure!(status == 503 && body.contains("cannot be"), "{fault}: readyz {status} {body}");
        let (_, metrics) = server.get("/metrics").await?;
        ensure!(metrics.lines().any(|line| line == "chinwag_store_writable 0"), "{fault}: {metrics}");
        std::fs::write(&control, "ok")?;
        server.until_ready().await?;
    }
    let seq = server.send("last").await?.map_err(|no| anyhow::anyhow!("refused: {no:?}"))?;
    acked.insert("last".into(), seq);
    let names = server.history().await?;
    check(&names, &acked)?;
    ensure!(names.len() == acked.len(), "{} stored, {} acked", names.len(), acked.len());
    // One line when it begins, one when it ends, of the log and of the view: not one per refusal.
    let text = std::fs::read_to_string(&server.log)?;
    let lines = text.lines().filter(|line| line.contains("ERROR chinwag")).count();
    ensure!((1..=10).contains(&lines), "{lines} error lines:\n{text}");
    ensure!(!text.contains("request failed"), "a refusal that says when to try again is no line:\n{text}");
    // Killed while it fails, and started on a disk that works.
    std::fs::write(&control, "nosync")?;
    let mut refused = 0;
    while refused < 20 {
        refused += u32::from(server.send(&format!("never-{refused}")).await?.is_err());
    }
    drop(server);
    std::fs::write(&control, "ok")?;
    let again = start(dir.path(), &dir.path().join("data"), &shim, None)?;
    let after = again.history().await?;
    // The first refused one may be there, like one whose ack was lost.
    ensure!(after.starts_with(&names) && after.len() <= names.len() + 1, "{} became {}", names.len(), after.len());
    Ok(())
}

#[tokio::test]
async fn what_was_acked_survives_power_cuts_of_the_real_binary() -> Result<()> {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir()?;
    let Some(shim) = shim(dir.path()) else { return Ok(()) };
    std::fs::write(dir.path().join("control"), "ok")?;
    let cuts = std::env::var("CHINWAG_PRELOAD_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(CUTS);
    let mut acked = HashMap::new();
    let mut before: Vec<String> = Vec::new();
    let mut data = dir.path().join("data-0");
    std::fs::create_dir(&data)?;
    for round in 0..cuts {
        let shadow = dir.path().join(format!("shadow-{round}"));
        std::fs::create_dir(&shadow)?;
        // What is there now was synced: the shadow begins with it.
        take_in(&data, &shadow)?;
        let mut server = start(dir.path(), &data, &shim, Some(&shadow))?;
        if round == 0 {
            group(&server).await?;
        }
        let names = server.history().await?;
        check(&names, &acked)?;
        ensure!(names.starts_with(&before), "what was read before is gone");
        before = names;
        let until = Duration::from_millis(150 + u64::from(rand::random::<u8>()) * 3);
        let begun = Instant::now();
        for n in 0.. {
            if begun.elapsed() > until {
                break;
            }
            let name = format!("m{round}-{n}");
            let seq = server.send(&name).await?.map_err(|no| anyhow::anyhow!("refused: {no:?}"))?;
            acked.insert(name, seq);
        }
        server.process.kill()?;
        let next = dir.path().join(format!("data-{}", round + 1));
        restore(&shadow, std::fs::metadata(&data)?.ino(), &next)?;
        data = next;
    }
    let server = start(dir.path(), &data, &shim, None)?;
    let names = server.history().await?;
    check(&names, &acked)?;
    println!("{cuts} cuts, {} messages acked and there", acked.len());
    Ok(())
}
