//! What was read, written as an export (docs/export.md), which the import of the store's care takes in like any other.
//!
//! Owns which lines are written, and when they are said to have happened. Refuses to know where the answers came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use protocol::ids::ChannelKey;
use serde_json::{Value, json};

use super::{Migration, Plan, SYSTEM_UID, Token};
use crate::clock;
use crate::credentials::{Credentials, PEPPER_FILE};
use crate::store::care::export::{CREDENTIALS, INDEX, SERVER};

/// Members of one line.
const MEMBERS_PER_LINE: usize = 10_000;
/// More missing seqs in a row than this are taken for a mistake.
const HOLES_MAX: u64 = 1_000_000;

impl Migration<'_> {
    /// Writes what was read as an export.
    pub(super) fn write_export(&mut self, plans: &BTreeMap<ChannelKey, Plan>) -> anyhow::Result<PathBuf> {
        let dir = self.staging.export()?;
        let now_ms = clock::now_ms();
        let cut = self.write_server(&dir, now_ms)?;
        if !self.tokens.is_empty() {
            write_tokens(&self.staging.dir, &dir, &self.tokens, now_ms)?;
        }
        let mut index = Vec::new();
        for (number, (key, plan)) in plans.iter().enumerate() {
            let name = format!("{number:010}.ndjson");
            let mut out = Lines::create(&dir.join(&name))?;
            let raw = self.staging.channel_path(key);
            let first = first_line(&raw)?.map(|line| time_of(&line)).unwrap_or(now_ms);
            out.put(&json!({
                "kind": "channel", "number": number, "channel_id": key.channel_id(),
                "channel_type": key.channel_type().to_wire(), "timestamp_ms": first,
            }))?;
            if let Some(spec) = &plan.spec {
                out.put(&json!({
                    "kind": "settings", "ban": spec.ban != 0, "disband": spec.disband != 0,
                    "send_ban": spec.send_ban != 0, "large": spec.large != 0,
                    "allow_stranger": spec.allow_stranger != 0, "timestamp_ms": first,
                }))?;
            }
            let members: Vec<&String> = plan.members.iter().collect();
            for uids in members.chunks(MEMBERS_PER_LINE) {
                out.put(&json!({"kind": "members_added", "join_floor": 0, "uids": uids, "timestamp_ms": first}))?;
            }
            for (list, uids) in [("deny", &plan.denied), ("allow", &plan.allowed)] {
                let uids: Vec<&String> = uids.iter().collect();
                for uids in uids.chunks(MEMBERS_PER_LINE) {
                    out.put(&json!({"kind": "listed", "list": list, "on": true, "uids": uids, "timestamp_ms": first}))?;
                }
            }
            let last = out.copy(&raw)?;
            let head = last.as_deref().map(seq_of).transpose()?.unwrap_or(0);
            let at = last.as_deref().map_or(first, time_of);
            for (uid, read) in &plan.seen {
                let read = (*read).min(head);
                out.put(&json!({"kind": "read", "uid": uid, "message_seq": read, "timestamp_ms": at}))?;
            }
            let pair = key.pair().map(|(a, b)| [a.as_str().to_owned(), b.as_str().to_owned()]);
            let unseen = pair.iter().flatten().chain(&plan.members).filter(|uid| !plan.seen.contains_key(*uid));
            for uid in unseen.filter(|uid| *uid != SYSTEM_UID).collect::<BTreeSet<_>>() {
                // Deleted, or not among the newest: WuKongIM does not show it to the user.
                if head > 0 && cut.get(uid) == Some(&false) {
                    let line = json!({"kind": "conversation_deleted", "uid": uid, "delete_floor": head});
                    out.put_at(line, at)?;
                } else if head > 0 {
                    out.put_at(json!({"kind": "read", "uid": uid, "message_seq": head}), at)?;
                }
            }
            out.end()?;
            writeln!(index, "{}", json!({"file": name, "head_seq": head}))?;
            self.tell("writing the export", number + 1, plans.len());
        }
        // Last: without it nothing is whole.
        fs::write(dir.join(INDEX), index).context("cannot write the list of channels")?;
        Ok(dir)
    }

    /// Writes users, whom they block and know, and system users. Returns of each user whether conversations were left out.
    fn write_server(&self, dir: &Path, now_ms: u64) -> anyhow::Result<BTreeMap<String, bool>> {
        let (people, _) = self.staging.people()?;
        let mut server = Lines::create(&dir.join(SERVER))?;
        let mut cut = BTreeMap::new();
        for person in people {
            server.put_at(json!({"kind": "user", "uid": person.uid}), now_ms)?;
            let lists = &person.lists;
            for peer in lists.denied.iter().chain(&lists.allowed).collect::<BTreeSet<_>>() {
                let line = json!({
                    "kind": "relation", "uid": person.uid, "peer": peer, "contact": lists.allowed.contains(peer),
                    "blocked": lists.denied.contains(peer),
                });
                server.put_at(line, now_ms)?;
            }
            cut.insert(person.uid, person.is_cut);
        }
        for uid in &self.system_users {
            server.put_at(json!({"kind": "system_user", "uid": uid, "on": true}), now_ms)?;
        }
        server.end()?;
        Ok(cut)
    }
}

/// Writes hashes of tokens, under a key that the made data directory takes over. The key stays with what was staged, so a
/// later run makes the same hashes.
fn write_tokens(staging: &Path, dir: &Path, tokens: &[Token], now_ms: u64) -> anyhow::Result<()> {
    let credentials = Credentials::open(staging).context("cannot make the key of tokens")?;
    let mut out = Lines::create(&dir.join(CREDENTIALS))?;
    for Token { uid, device_flag, device_level, token } in tokens {
        let hash: String = credentials.hash(token).iter().map(|byte| format!("{byte:02x}")).collect();
        let line = json!({
            "kind": "token", "uid": uid, "device_flag": device_flag, "device_level": device_level, "hash": hash,
        });
        out.put_at(line, now_ms)?;
    }
    out.end()?;
    fs::copy(staging.join(PEPPER_FILE), dir.join(PEPPER_FILE)).context("cannot copy the key of tokens")?;
    Ok(())
}

/// Unix seconds as milliseconds; what cannot be is the beginning of time.
pub(super) fn time_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000).max(1)
}

/// Lines for the seqs from `first` up to before `end`, which the source does not have.
///
/// # Errors
/// They are too many.
pub(super) fn holes(lines: &mut Vec<u8>, first: u64, end: u64, timestamp: i64) -> anyhow::Result<()> {
    let count = end.saturating_sub(first);
    if count > HOLES_MAX {
        bail!("{count} messages are missing from message_seq {first} on: that cannot be right");
    }
    let at = time_ms(timestamp).min(clock::now_ms());
    for seq in first..end {
        writeln!(lines, "{}", json!({"kind": "hole", "message_seq": seq, "timestamp_ms": at}))?;
    }
    Ok(())
}

/// The seq of a staged line.
///
/// # Errors
/// It is damaged.
pub(super) fn seq_of(line: &str) -> anyhow::Result<u64> {
    let line: Value = serde_json::from_str(line).context("a staged line is damaged")?;
    line["message_seq"].as_u64().context("a staged line has no message_seq")
}

/// When a staged line says it happened.
fn time_of(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).ok().and_then(|line| line["timestamp_ms"].as_u64()).unwrap_or(1)
}

fn first_line(path: &Path) -> anyhow::Result<Option<String>> {
    let mut line = String::new();
    match File::open(path) {
        Ok(file) => BufReader::new(file).read_line(&mut line)?,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    Ok(Some(line).filter(|line| !line.is_empty()))
}

/// A file of an export in the making.
struct Lines {
    out: BufWriter<File>,
    count: u64,
}

impl Lines {
    fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(Self { out: BufWriter::new(file), count: 0 })
    }

    fn put(&mut self, line: &Value) -> anyhow::Result<()> {
        self.count += 1;
        writeln!(self.out, "{line}").context("cannot write the export")
    }

    fn put_at(&mut self, mut line: Value, at_ms: u64) -> anyhow::Result<()> {
        line["timestamp_ms"] = json!(at_ms);
        self.put(&line)
    }

    /// Copies the lines of a staged file; returns the last one.
    fn copy(&mut self, from: &Path) -> anyhow::Result<Option<String>> {
        let mut from = BufReader::new(File::open(from).with_context(|| format!("cannot read {}", from.display()))?);
        let (mut line, mut last) = (String::new(), None);
        while from.read_line(&mut line)? > 0 {
            self.out.write_all(line.as_bytes())?;
            self.count += 1;
            last = Some(std::mem::take(&mut line));
        }
        Ok(last)
    }

    fn end(mut self) -> anyhow::Result<()> {
        writeln!(self.out, "{}", json!({"kind": "end", "lines": self.count}))?;
        self.out.flush().context("cannot write the export")
    }
}
