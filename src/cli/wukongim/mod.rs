//! `import wukongim`: reads a running WuKongIM through its public HTTP API, writes what it has as an export, and imports that.
//!
//! Owns what is asked in which order and what becomes of the answers. `source` knows the API, `catalogue` what v2 lists of
//! itself, `staging` the files, `export` what is written, the store's care the export format and the import. What cannot be
//! read, and why, is in docs/wukong-migration.md.
//!
//! Invariants: a seq is never renumbered, a missing one is a hole; what was read once is not read again, so a second run
//! fetches what is new; nothing is guessed without the outcome saying so.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, Uid};
use serde::Deserialize;
use serde_json::{Value, json};

use self::export::{holes, seq_of, time_ms};
use self::source::{Header, Message, Source, key_of};
use self::staging::{Lists, Person, Seen, Staging};
use super::care::{Shown, print_import};
use super::{Exit, Failure};
use crate::clock;
use crate::config::Config;
use crate::credentials::CREDENTIAL_BYTES_MAX;
use crate::store::care::Progress;
use crate::store::care::import::import;

mod catalogue;
mod export;
mod source;
mod staging;

/// WuKongIM looks at a user's newest 1,000 conversations, as it is shipped (`conversation.userMaxCount`), and leaves some of
/// them out. From so many on there may be others.
const ROWS_SHOWN: usize = 900;
/// The kind of stored conversations with messages, not commands.
const CHAT: u8 = 0;
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
    /// Users, a uid per line, beside those v2 lists; peers and members found on the way are added
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,
    /// Groups and customer service channels, one per line, as the JSON that POST /channel takes, beside those v2 lists
    #[arg(long, value_name = "FILE")]
    channels: Option<PathBuf>,
    /// Take a user who has a conversation with a group that --channels does not name for a member of it
    #[arg(long)]
    members_from_conversations: bool,
    /// Take the tokens of v2's users over, so that clients keep theirs
    #[arg(long)]
    tokens: bool,
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
    denied: BTreeSet<String>,
    allowed: BTreeSet<String>,
    /// Users who have a conversation with it, and how far they read.
    seen: BTreeMap<String, u64>,
}

/// A user's token.
struct Token {
    uid: String,
    device_flag: u8,
    device_level: u8,
    token: String,
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
    is_listed: bool,
    lists: u64,
    system_users: usize,
    tokens: usize,
    tokens_left: u64,
    /// Names that this server does not take.
    strange: BTreeSet<String>,
    headless: u64,
    renamed: u64,
    ahead: u64,
    streams: u64,
    cut_users: u64,
}

impl Told {
    /// Leaves out what is no uid here. Its own routes take any text for a uid of a list.
    fn keep_uids(&mut self, uids: &mut Vec<String>) {
        uids.retain(|uid| {
            let is_uid = Uid::new(uid).is_ok();
            if !is_uid {
                self.strange.insert(uid.clone());
            }
            is_uid
        });
    }
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
                "left out: {count} conversations and channels of type {number}, which this server does not have"
            )?;
        }
        if !self.without_members.is_empty() {
            let names = list(&self.without_members);
            writeln!(f, "without members, since --channels does not name them: {names}")?;
        }
        let Self { lists, system_users, tokens, .. } = self;
        writeln!(
            f,
            "read: {lists} users on lists of channels and of users, {system_users} system users, {tokens} tokens"
        )?;
        if !self.is_listed {
            writeln!(f, "this WuKongIM does not list users, channels, members and deny lists: set deny lists again")?;
        }
        if !self.strange.is_empty() {
            let names: Vec<String> = self.strange.iter().map(|name| format!("{name:?}")).collect();
            writeln!(f, "left out, since this server does not take such names: {}", list(&names))?;
        }
        if self.tokens_left > 0 {
            writeln!(f, "{} tokens are empty, too long or of unknown devices: left out", self.tokens_left)?;
        }
        if self.headless > 0 {
            let count = self.headless;
            writeln!(f, "{count} messages came first, without header flags, as v2 tells them: they count as unread")?;
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
    let told = Told::default();
    let (system_users, tokens) = (Vec::new(), Vec::new());
    let mut migration = Migration { args, source, staging, told, shown: &mut shown, system_users, tokens };
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
    system_users: Vec<String>,
    tokens: Vec<Token>,
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
        self.told.is_listed = self.source.has_catalogue()?;
        if self.told.is_listed {
            self.read_catalogue(&mut wanted, &mut plans)?;
        }
        ensure!(!wanted.is_empty(), "this WuKongIM lists no users: name some with --users, or members with --channels");
        self.system_users = self.source.system_users()?;
        self.told.keep_uids(&mut self.system_users);
        self.told.system_users = self.system_users.len();
        self.read_people(wanted, &mut plans)?;
        self.read_channels(&mut plans)?;
        Ok(plans)
    }

    /// Reads which users and channels there are, and the channels' members. What --channels says of a channel stands.
    fn read_catalogue(
        &mut self,
        wanted: &mut BTreeSet<String>,
        plans: &mut BTreeMap<ChannelKey, Plan>,
    ) -> anyhow::Result<()> {
        let mut users = self.source.listed_users()?;
        self.told.keep_uids(&mut users);
        wanted.extend(users);
        let channels = self.source.listed_channels()?;
        let count = channels.len();
        for (done, listed) in channels.into_iter().enumerate() {
            let Ok(channel_type) = ChannelType::from_wire(listed.channel_type) else {
                *self.told.other_types.entry(listed.channel_type).or_default() += 1;
                continue;
            };
            let spec = Spec { ban: listed.ban, disband: listed.disband, ..Spec::default() };
            if channel_type == ChannelType::Person {
                // What a back end set of a user, such as a ban, is kept in the user's channel with oneself.
                if (spec.ban, spec.disband) != (0, 0) {
                    let uid =
                        Uid::new(&listed.channel_id).map_err(|error| anyhow!("/cluster/channels: uid {error}"))?;
                    plans.entry(ChannelKey::person(&uid, &uid)).or_default().spec = Some(spec);
                }
                continue;
            }
            // Its routes that set a channel's flags take any name; its sends do not.
            let Ok(key) = ChannelKey::named(&listed.channel_id, channel_type) else {
                self.told.strange.insert(listed.channel_id);
                continue;
            };
            let plan = plans.entry(key.clone()).or_default();
            if plan.spec.as_ref().is_none_or(|spec| spec.subscribers.is_none()) {
                match self.source.subscribers(&key)? {
                    Some(mut members) => {
                        self.told.keep_uids(&mut members);
                        plan.members = members.into_iter().collect();
                        wanted.extend(plan.members.iter().cloned());
                    }
                    None => self.told.without_members.push(key.channel_id().to_owned()),
                }
            }
            plan.spec.get_or_insert(spec);
            self.tell("members", done + 1, count);
        }
        if self.args.tokens {
            self.read_tokens()?;
        }
        Ok(())
    }

    fn read_tokens(&mut self) -> anyhow::Result<()> {
        for device in self.source.devices()? {
            let is_token = !device.token.is_empty() && device.token.len() <= CREDENTIAL_BYTES_MAX;
            match u8::try_from(device.device_flag) {
                Ok(device_flag) if is_token && Uid::new(&device.uid).is_ok() => self.tokens.push(Token {
                    uid: device.uid,
                    device_flag,
                    device_level: device.device_level,
                    token: device.token,
                }),
                _ => self.told.tokens_left += 1,
            }
        }
        self.told.tokens = self.tokens.len();
        Ok(())
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
            if person.has_system {
                // Never shown among a user's conversations.
                let (user, system) = (Uid::from_stored(&uid), Uid::from_stored(SYSTEM_UID));
                plans.entry(ChannelKey::person(&user, &system)).or_default();
            }
            self.told.lists += (person.lists.denied.len() + person.lists.allowed.len()) as u64;
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

    fn read_person(&mut self, uid: &str) -> anyhow::Result<Person> {
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
        if is_cut && self.told.is_listed {
            let known: BTreeSet<(u8, String)> = found.iter().map(|seen| (seen.channel_type, seen.id.clone())).collect();
            for row in self.source.stored_rows(uid)? {
                let is_known = known.contains(&(row.channel_type, row.channel_id.clone()));
                let is_systems = ChannelKey::from_stored(&row.channel_id, ChannelType::Person)
                    .pair()
                    .is_some_and(|(a, b)| a.as_str() == SYSTEM_UID || b.as_str() == SYSTEM_UID);
                if row.kind == CHAT && !is_known && !is_systems {
                    let (id, read) = (row.channel_id, row.readed_to_msg_seq);
                    found.push(Seen { id, channel_type: row.channel_type, read });
                }
            }
        }
        let system = ChannelKey::person(&asker, &Uid::from_stored(SYSTEM_UID));
        let has_system = uid != SYSTEM_UID && self.source.max_seq(&system)?.is_some_and(|seq| seq > 0);
        let lists = self.read_lists(uid, ChannelType::Person)?;
        Ok(Person { uid: uid.to_owned(), is_cut, rows: found, lists, has_system })
    }

    /// Who is on the lists of a channel, or of a user (type person, the bare uid).
    fn read_lists(&mut self, id: &str, channel_type: ChannelType) -> anyhow::Result<Lists> {
        let mut denied = match self.told.is_listed {
            true => self.source.denied(id, channel_type)?.unwrap_or_default(),
            false => Vec::new(),
        };
        let mut allowed = self.source.allowed(id, channel_type)?;
        self.told.keep_uids(&mut denied);
        self.told.keep_uids(&mut allowed);
        Ok(Lists { denied, allowed })
    }

    fn read_channels(&mut self, plans: &mut BTreeMap<ChannelKey, Plan>) -> anyhow::Result<()> {
        let count = plans.len();
        for (done, (key, plan)) in plans.iter_mut().enumerate() {
            self.read_channel(key, plan).with_context(|| format!("channel {}", name_of(key)))?;
            if key.channel_type() == ChannelType::Group {
                let lists = self.read_lists(key.channel_id(), ChannelType::Group)?;
                self.told.lists += (lists.denied.len() + lists.allowed.len()) as u64;
                (plan.denied, plan.allowed) = (lists.denied.into_iter().collect(), lists.allowed.into_iter().collect());
            }
            self.told.channels += 1;
            self.tell("channels", done + 1, count);
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
        // Asked before the messages: what comes in between is no hole.
        let max = self.source.max_seq(key)?.unwrap_or(0);
        loop {
            // v2.2.5 forgets the header flags of each page's first message: the last known one is read again as that, and the
            // channel's first is looked up.
            let page = self.source.messages(&looker, key, head.max(1))?;
            let (mut lines, known) = (Vec::new(), head);
            for (nth, mut message) in page.messages.unwrap_or_default().into_iter().enumerate() {
                let seq = message.message_seq;
                if nth == 0 && seq == known {
                    continue;
                }
                if nth == 0 && message.header == Header::default() {
                    message.header = match self.source.header(&looker, key, &message)? {
                        Some(header) => header,
                        None => {
                            self.told.headless += 1;
                            Header { red_dot: 1, sync_once: 0 }
                        }
                    };
                }
                ensure!(seq > head, "message_seq {seq} came after {head}: messages must ascend");
                holes(&mut lines, head + 1, seq, message.timestamp)?;
                let line = self.line(&message).with_context(|| format!("message_seq {seq}"))?;
                writeln!(lines, "{line}")?;
                self.told.messages += 1;
                head = seq;
            }
            file.append(&lines)?;
            if page.more == 0 || head == known {
                break;
            }
        }
        // What is missing at the end: the next message must not get one of these seqs.
        if max > head {
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
}

fn name_of(key: &ChannelKey) -> String {
    format!("{}:{}", key.channel_id(), key.channel_type().to_wire())
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
