//! `import wukongim`: reads a running WuKongIM through its public HTTP API, writes what it has as an export, and imports that.
//!
//! Owns what is asked in which order and what becomes of the answers. `source` knows the API, `staging` the files, the
//! store's care the export format and the import. What cannot be read, and why, is in docs/wukong-migration.md.
//!
//! Invariants: a seq is never renumbered, a missing one is a hole; what was read once is not read again, so a second run
//! fetches what is new; nothing is guessed without the outcome saying so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, Uid};
use serde::Deserialize;
use serde_json::{Value, json};

use self::source::{Message, Source, key_of};
use self::staging::{Person, Seen, Staging};
use super::care::{Shown, print_import};
use super::{Exit, Failure};
use crate::clock;
use crate::config::Config;
use crate::store::care::Progress;
use crate::store::care::export::{INDEX, SERVER};
use crate::store::care::import::import;

mod source;
mod staging;

/// WuKongIM looks at a user's newest 1,000 conversations, as it is shipped (`conversation.userMaxCount`), and leaves some of
/// them out. From so many on there may be others.
const ROWS_SHOWN: usize = 900;
/// More missing seqs in a row than this are taken for a mistake.
const HOLES_MAX: u64 = 1_000_000;
/// Members of one line.
const MEMBERS_PER_LINE: usize = 10_000;
/// The sender of messages without one: WuKongIM's own system user.
const SYSTEM_UID: &str = "____system";

#[derive(Debug, Args)]
pub(super) struct WukongimArgs {
    /// WuKongIM's HTTP API, such as http://127.0.0.1:5001
    #[arg(long, value_name = "URL")]
    from: String,
    /// WuKongIM's manager token, when it has one
    #[arg(long, value_name = "TOKEN", env = "WUKONGIM_MANAGER_TOKEN", hide_env_values = true)]
    token: Option<String>,
    /// Users, a uid per line; peers and members found on the way are added
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Groups and customer service channels, one per line, as the JSON that POST /channel takes
    #[arg(long, value_name = "FILE")]
    channels: Option<PathBuf>,
    /// Take a user who has a conversation with a group that --channels does not name for a member of it
    #[arg(long)]
    members_from_conversations: bool,
    /// Read only, import later: the next run fetches what is new
    #[arg(long)]
    download_only: bool,
}

/// A channel as its back end knows it: what POST /channel takes (wukongim-http.md 4.1).
#[derive(Debug, Default, Clone, Deserialize)]
struct Spec {
    channel_id: String,
    channel_type: u8,
    #[serde(default)]
    subscribers: Option<Vec<String>>,
    #[serde(default)]
    ban: u8,
    #[serde(default)]
    disband: u8,
    #[serde(default)]
    send_ban: u8,
    #[serde(default)]
    large: u8,
    #[serde(default)]
    allow_stranger: u8,
}

/// What is known of a channel.
#[derive(Debug, Default)]
struct Plan {
    spec: Option<Spec>,
    members: BTreeSet<String>,
    /// Users who have a conversation with it, and how far they read.
    seen: BTreeMap<String, u64>,
}

/// What a run read and what it could not take over.
#[derive(Debug, Default)]
struct Told {
    users: usize,
    found: usize,
    channels: usize,
    messages: u64,
    requests_saved: u64,
    other_types: BTreeMap<u8, u64>,
    without_members: Vec<String>,
    allow_lists: Vec<String>,
    renamed: u64,
    ahead: u64,
    streams: u64,
    cut_users: u64,
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { users, found, channels, messages, requests_saved, .. } = self;
        writeln!(f, "read: {users} users ({found} of them found on the way), {channels} channels")?;
        writeln!(f, "read: {messages} messages now, {requests_saved} by earlier runs")?;
        let list = |names: &[String]| -> String {
            let shown: Vec<&str> = names.iter().take(20).map(String::as_str).collect();
            let more = names.len().saturating_sub(shown.len());
            if more > 0 { format!("{} and {more} more", shown.join(", ")) } else { shown.join(", ") }
        };
        for (number, count) in &self.other_types {
            writeln!(
                f,
                "left out: {count} conversations with channels of type {number}, which this server does not have"
            )?;
        }
        if !self.without_members.is_empty() {
            let names = list(&self.without_members);
            writeln!(f, "without members, since --channels does not name them: {names}")?;
        }
        if !self.allow_lists.is_empty() {
            writeln!(f, "allow lists are not taken over, set them again: {}", list(&self.allow_lists))?;
        }
        if self.renamed > 0 {
            writeln!(f, "{} messages had no client_msg_no that can be kept: named after their id", self.renamed)?;
        }
        if self.ahead > 0 {
            writeln!(f, "{} messages were sent in the future: stored as of now", self.ahead)?;
        }
        if self.streams > 0 {
            writeln!(f, "{} messages had streamed text beside their payload: only the payload is kept", self.streams)?;
        }
        if self.cut_users > 0 {
            let count = self.cut_users;
            writeln!(f, "{count} users have as many conversations as WuKongIM shows: others of theirs count as read")?;
        }
        Ok(())
    }
}

pub(super) fn run(config: &Config, args: &WukongimArgs) -> Result<Exit, Failure> {
    let data_dir = &config.data_dir;
    let is_free = match fs::read_dir(data_dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) => error.kind() == std::io::ErrorKind::NotFound,
    };
    if !is_free {
        return Err(Failure::new(Exit::Start, format_args!("nothing was read: {} is not empty", data_dir.display())));
    }
    let source = Source::new(&args.from, args.token.clone())?;
    let staging = Staging::open(data_dir, args.from.trim_end_matches('/'))?;
    let mut shown = Shown::new();
    let mut migration = Migration { args, source, staging, told: Told::default(), shown: &mut shown };
    let plans = migration.read()?;
    let export = if args.download_only { None } else { Some(migration.write_export(&plans)?) };
    let Migration { staging, told, .. } = migration;
    drop(shown);
    print!("{told}");
    let Some(export) = export else {
        staging.end_round()?;
        println!("nothing was imported yet: what was read lies in {}", staging.dir.display());
        return Ok(Exit::Success);
    };
    let mut shown = Shown::new();
    let report = import(&export, data_dir, &mut |progress| shown.tell(progress));
    drop(shown);
    let report = report.map_err(|e| super::care::failed("nothing was imported", e))?;
    staging.end_round()?;
    print_import(config, &report);
    println!("what was read lies in {}; remove it when it is of no more use", staging.dir.display());
    Ok(Exit::Success)
}

struct Migration<'a> {
    args: &'a WukongimArgs,
    source: Source,
    staging: Staging,
    told: Told,
    shown: &'a mut Shown,
}

impl Migration<'_> {
    fn tell(&mut self, phase: &'static str, done: usize, total: usize) {
        self.shown.tell(Progress { phase, done: done as u64, total: total as u64, counted: true });
    }

    /// Reads everything that was not read before.
    fn read(&mut self) -> anyhow::Result<BTreeMap<ChannelKey, Plan>> {
        let mut plans: BTreeMap<ChannelKey, Plan> = BTreeMap::new();
        let mut wanted: BTreeSet<String> = BTreeSet::new();
        if let Some(path) = &self.args.users {
            read_lines(path, &mut |line| {
                let uid = Uid::new(line.trim()).map_err(|error| anyhow!("the uid {error}"))?;
                wanted.insert(uid.as_str().to_owned());
                Ok(())
            })?;
        }
        if let Some(path) = &self.args.channels {
            read_lines(path, &mut |line| {
                let (key, spec) = spec_of(line)?;
                let plan = plans.entry(key).or_default();
                for uid in spec.subscribers.iter().flatten() {
                    Uid::new(uid).map_err(|error| anyhow!("subscribers: {uid:?} {error}"))?;
                    plan.members.insert(uid.clone());
                    wanted.insert(uid.clone());
                }
                plan.spec = Some(spec);
                Ok(())
            })?;
        }
        ensure!(!wanted.is_empty(), "WuKongIM lists no users: name some with --users, or members with --channels");
        self.read_people(wanted, &mut plans)?;
        self.read_channels(&plans)?;
        Ok(plans)
    }

    /// Reads the conversations of everybody wanted, and of every peer that turns up.
    fn read_people(&mut self, wanted: BTreeSet<String>, plans: &mut BTreeMap<ChannelKey, Plan>) -> anyhow::Result<()> {
        let named = wanted.len();
        let (people, mut journal) = self.staging.people()?;
        let known: BTreeMap<String, Person> = people.into_iter().map(|person| (person.uid.clone(), person)).collect();
        let mut queue: VecDeque<String> = wanted.iter().cloned().collect();
        let mut met = wanted;
        let mut done = 0;
        while let Some(uid) = queue.pop_front() {
            let asked;
            let person = match known.get(&uid) {
                Some(person) => person,
                None => {
                    asked = self.read_person(&uid)?;
                    let mut line = serde_json::to_vec(&asked)?;
                    line.push(b'\n');
                    journal.append(&line)?;
                    &asked
                }
            };
            self.told.cut_users += u64::from(person.is_cut);
            for seen in &person.rows {
                let Ok(channel_type) = ChannelType::from_wire(seen.channel_type) else {
                    *self.told.other_types.entry(seen.channel_type).or_default() += 1;
                    continue;
                };
                let key = ChannelKey::from_stored(&seen.id, channel_type);
                if let Some((a, b)) = key.pair() {
                    for peer in [a, b] {
                        if met.insert(peer.as_str().to_owned()) {
                            queue.push_back(peer.as_str().to_owned());
                        }
                    }
                }
                plans.entry(key).or_default().seen.insert(uid.clone(), seen.read);
            }
            done += 1;
            self.tell("users", done, met.len());
        }
        (self.told.users, self.told.found) = (met.len(), met.len() - named);
        for (key, plan) in plans.iter_mut().filter(|(key, _)| key.channel_type() == ChannelType::Group) {
            if plan.spec.is_some() {
                continue;
            }
            if self.args.members_from_conversations {
                plan.members = plan.seen.keys().cloned().collect();
            } else {
                self.told.without_members.push(key.channel_id().to_owned());
            }
        }
        Ok(())
    }

    fn read_person(&self, uid: &str) -> anyhow::Result<Person> {
        let asker = Uid::new(uid).map_err(|error| anyhow!("uid {uid:?} {error}"))?;
        let rows = self.source.conversations(uid)?;
        let is_cut = rows.len() >= ROWS_SHOWN;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            // v1 tells only how many are unread.
            let read = row.readed_to_msg_seq.unwrap_or(row.last_msg_seq.saturating_sub(row.unread));
            let key = key_of(&asker, &row.channel_id, row.channel_type).context("POST /conversation/sync")?;
            let id = match key {
                Some(key) => key.channel_id().to_owned(),
                None => row.channel_id,
            };
            found.push(Seen { id, channel_type: row.channel_type, read });
        }
        Ok(Person { uid: uid.to_owned(), is_cut, rows: found })
    }

    fn read_channels(&mut self, plans: &BTreeMap<ChannelKey, Plan>) -> anyhow::Result<()> {
        for (done, (key, plan)) in plans.iter().enumerate() {
            self.read_channel(key, plan).with_context(|| format!("channel {}", name_of(key)))?;
            if key.channel_type() == ChannelType::Group && self.source.allowed(key)? > 0 {
                self.told.allow_lists.push(key.channel_id().to_owned());
            }
            self.told.channels += 1;
            self.tell("channels", done + 1, plans.len());
        }
        Ok(())
    }

    /// Appends the messages of a channel that are not there yet, and holes for those the source skips.
    fn read_channel(&mut self, key: &ChannelKey, plan: &Plan) -> anyhow::Result<()> {
        let (mut file, last) = self.staging.channel(key)?;
        let mut head = last.as_deref().map(seq_of).transpose()?.unwrap_or(0);
        self.told.requests_saved += head;
        let looker = match key.pair() {
            Some((a, _)) => a.as_str().to_owned(),
            // v3 wants a member.
            None => plan.seen.keys().chain(&plan.members).next().map_or(SYSTEM_UID, String::as_str).to_owned(),
        };
        loop {
            let page = self.source.messages(&looker, key, head + 1)?;
            let messages = page.messages.unwrap_or_default();
            if messages.is_empty() {
                break;
            }
            let mut lines = Vec::new();
            for message in messages {
                let seq = message.message_seq;
                ensure!(seq > head, "message_seq {seq} came after {head}: messages must ascend");
                holes(&mut lines, head + 1, seq, message.timestamp)?;
                let line = self.line(&message).with_context(|| format!("message_seq {seq}"))?;
                writeln!(lines, "{line}")?;
                self.told.messages += 1;
                head = seq;
            }
            file.append(&lines)?;
            if page.more == 0 {
                break;
            }
        }
        // What is missing at the end: the next message must not get one of these seqs.
        if let Some(max) = self.source.max_seq(key)?.filter(|max| *max > head) {
            let mut lines = Vec::new();
            holes(&mut lines, head + 1, max + 1, 0)?;
            file.append(&lines)?;
        }
        Ok(())
    }

    /// A message as a line of the export format.
    fn line(&mut self, message: &Message) -> anyhow::Result<Value> {
        let from_uid = if message.from_uid.is_empty() { SYSTEM_UID } else { &message.from_uid };
        Uid::new(from_uid).map_err(|error| anyhow!("from_uid {from_uid:?} {error}"))?;
        let payload = message.payload.as_deref().unwrap_or_default();
        let payload = STANDARD.decode(payload).context("payload is no base64")?;
        let client_msg_no = match ClientMsgNo::new(&message.client_msg_no) {
            Ok(_) => message.client_msg_no.clone(),
            Err(_) => {
                self.told.renamed += 1;
                match &message.message_id {
                    Some(id) => format!("wukongim-{id}"),
                    None => format!("wukongim-seq-{}", message.message_seq),
                }
            }
        };
        self.told.streams += u64::from(message.stream_data.as_ref().is_some_and(|text| !text.is_empty()));
        let (at, now) = (time_ms(message.timestamp), clock::now_ms());
        self.told.ahead += u64::from(at > now);
        Ok(json!({
            "kind": "message", "message_seq": message.message_seq, "from_uid": from_uid, "client_msg_no": client_msg_no,
            "timestamp_ms": at.min(now), "red_dot": message.header.red_dot != 0,
            "sync_once": message.header.sync_once != 0, "setting": message.setting, "topic": message.topic,
            "expire_s": message.expire, "payload": STANDARD.encode(payload),
        }))
    }

    /// Writes what was read as an export.
    fn write_export(&mut self, plans: &BTreeMap<ChannelKey, Plan>) -> anyhow::Result<PathBuf> {
        let dir = self.staging.export()?;
        let (people, _) = self.staging.people()?;
        let cut: BTreeMap<String, bool> = people.into_iter().map(|person| (person.uid, person.is_cut)).collect();
        let now_ms = clock::now_ms();
        let mut server = Lines::create(&dir.join(SERVER))?;
        for uid in cut.keys() {
            server.put(&json!({"kind": "user", "uid": uid, "timestamp_ms": now_ms}))?;
        }
        server.end()?;
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
            let last = out.copy(&raw)?;
            let head = last.as_deref().map(seq_of).transpose()?.unwrap_or(0);
            let at = last.as_deref().map_or(first, time_of);
            for (uid, read) in &plan.seen {
                let read = (*read).min(head);
                out.put(&json!({"kind": "read", "uid": uid, "message_seq": read, "timestamp_ms": at}))?;
            }
            let pair = key.pair().map(|(a, b)| [a.as_str().to_owned(), b.as_str().to_owned()]);
            let unseen = pair.iter().flatten().chain(&plan.members).filter(|uid| !plan.seen.contains_key(*uid));
            for uid in unseen.collect::<BTreeSet<_>>() {
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
}

fn name_of(key: &ChannelKey) -> String {
    format!("{}:{}", key.channel_id(), key.channel_type().to_wire())
}

/// Unix seconds as milliseconds; what cannot be is the beginning of time.
fn time_ms(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000).max(1)
}

/// Lines for the seqs from `first` up to before `end`, which the source does not have.
fn holes(lines: &mut Vec<u8>, first: u64, end: u64, timestamp: i64) -> anyhow::Result<()> {
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

fn seq_of(line: &str) -> anyhow::Result<u64> {
    let line: Value = serde_json::from_str(line).context("a staged line is damaged")?;
    line["message_seq"].as_u64().context("a staged line has no message_seq")
}

fn time_of(line: &str) -> u64 {
    serde_json::from_str::<Value>(line).ok().and_then(|line| line["timestamp_ms"].as_u64()).unwrap_or(1)
}

/// A channel of --channels.
fn spec_of(line: &str) -> anyhow::Result<(ChannelKey, Spec)> {
    let mut json = serde_json::Deserializer::from_str(line);
    let spec: Spec = serde_path_to_error::deserialize(&mut json)?;
    let channel_type = ChannelType::from_wire(spec.channel_type).ok();
    let channel_type = channel_type.filter(|channel_type| *channel_type != ChannelType::Person);
    let channel_type =
        channel_type.context("channel_type: only groups (2) and customer service (3) are listed here")?;
    let key = ChannelKey::named(&spec.channel_id, channel_type).map_err(|error| anyhow!("channel_id {error}"))?;
    Ok((key, spec))
}

/// Hands on the lines of an operator's file, empty ones left out; errors name file and line.
fn read_lines(path: &Path, each: &mut dyn FnMut(&str) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    for (number, line) in (1..).zip(BufReader::new(file).lines()) {
        let at = || format!("{}: line {number}", path.display());
        let line = line.with_context(at)?;
        if !line.trim().is_empty() {
            each(&line).with_context(at)?;
        }
    }
    Ok(())
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
