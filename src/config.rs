//! One typed tree of settings: file, then environment, then flags; checked once, here.
//!
//! Owns every key ([`keys::KEYS`]), its default ([`Config::default`]) and its range. Refuses to know who uses a value: rooms
//! get their part by value. Invariants: a key nobody knows stops the start, in the file and in the environment; a
//! [`Config`] that exists is within its ranges, but for one built by hand in a test.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use figment::providers::{Format, Serialized, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use serde::{Deserialize, Serialize};

use crate::proxies::Proxies;

pub mod keys;
pub mod webhook;
mod wukong;

use keys::{ENV_CONFIG_FILE, ENV_PREFIX, KEYS, Key, Kind};
pub use webhook::Webhook;
pub use wukong::{External, Wukong};

/// File that is read when no other is named and it exists in the working directory.
pub const DEFAULT_FILE: &str = "chinwag.toml";

/// All settings. What each means, its unit and range: [`keys::KEYS`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where everything durable lives.
    pub data_dir: PathBuf,
    /// Allows listening beyond loopback without TLS.
    pub insecure: bool,
    /// Connection shards; 0: one per core. See [`Config::shard_count`].
    pub shards: usize,
    /// Longest wait of a shutdown.
    pub drain_timeout_ms: u64,
    /// Listeners.
    pub listen: Listen,
    /// Logging.
    pub log: Log,
    /// Credentials given from outside.
    pub auth: Auth,
    /// Limits of what clients and back ends may ask.
    pub limits: Limits,
    /// Life of a connection.
    pub session: Session,
    /// What waits for a socket.
    pub outbox: Outbox,
    /// What waits for the committer.
    pub lane: Lane,
    /// Lots.
    pub commit: Commit,
    /// Conversations.
    pub conversation: Conversation,
    /// What may become of messages.
    pub messages: Messages,
    /// Files that messages carry.
    pub files: Files,
    /// The durable store.
    pub store: Store,
    /// Search in message texts.
    pub search: Search,
    /// The HTTP API.
    pub http: Http,
    /// The dialect of relation.txt.
    pub relation: Relation,
    /// WuKongIM's protocols.
    pub wukong: Wukong,
    /// Where clients are told to connect.
    pub external: External,
    /// Calls to back ends.
    pub webhook: Webhook,
}

/// Listeners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// WebSocket clients.
    pub socket: SocketAddr,
    /// HTTP API.
    pub http: SocketAddr,
    /// Connections the kernel holds before they are accepted.
    pub backlog: u32,
    /// Addresses and blocks, with commas between, whose word about a client's address is taken; empty: nobody's.
    pub trusted_proxies: String,
    /// Whether connections of trusted proxies to the sockets begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

impl Listen {
    /// Whose word about a client's address is taken.
    ///
    /// # Errors
    /// One sentence that names the key and the entry.
    pub fn proxies(&self) -> Result<Proxies, ConfigError> {
        Proxies::parse(&self.trusted_proxies).map_err(|entry| {
            ConfigError::new(format_args!(
                "listen.trusted_proxies holds {entry}, which is no address and no block such as 10.0.0.0/8"
            ))
        })
    }
}

/// Logging.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// A filter of `tracing_subscriber`.
    pub level: String,
    /// `text` or `json`.
    pub format: String,
}

/// Credentials given from outside.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Auth {
    /// File of the root key; empty: none. See [`Auth::root_key_file`].
    pub root_key_file: PathBuf,
    /// The root key; empty: none.
    pub root_key: String,
}

impl Auth {
    /// The file that holds the root key, when one is named.
    #[must_use]
    pub fn root_key_file(&self) -> Option<&Path> {
        (!self.root_key_file.as_os_str().is_empty()).then_some(self.root_key_file.as_path())
    }
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let root_key = if self.root_key.is_empty() { "" } else { "(set)" };
        f.debug_struct("Auth").field("root_key_file", &self.root_key_file).field("root_key", &root_key).finish()
    }
}

/// Limits of what clients and back ends may ask.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    /// Largest payload anywhere.
    pub payload_bytes_max: usize,
    /// Largest WebSocket message from a client.
    pub frame_bytes_max: usize,
    /// Unanswered sends of one connection.
    pub in_flight_max: usize,
    /// Unanswered payload bytes of one connection.
    pub in_flight_bytes_max: usize,
    /// Open sockets.
    pub connections_max: usize,
    /// Sessions of one user.
    pub connections_per_user_max: usize,
    /// Person channels.
    pub person: PersonLimits,
    /// Groups.
    pub group: ChannelLimits,
    /// Customer service channels.
    pub customer_service: ChannelLimits,
}

impl Limits {
    /// Largest payload in a channel of this type: the smaller of the type's limit and the one for all.
    #[must_use]
    pub fn payload_bytes_max_of(&self, channel_type: protocol::ids::ChannelType) -> usize {
        use protocol::ids::ChannelType;
        let of_type = match channel_type {
            ChannelType::Person => self.person.payload_bytes_max,
            ChannelType::Group => self.group.payload_bytes_max,
            ChannelType::CustomerService => self.customer_service.payload_bytes_max,
        };
        of_type.min(self.payload_bytes_max)
    }
}

/// Limits of person channels.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PersonLimits {
    /// Largest payload.
    pub payload_bytes_max: usize,
    /// Messages of one channel on their way at once.
    pub in_flight_max: usize,
}

/// Limits of channels with members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelLimits {
    /// Largest payload.
    pub payload_bytes_max: usize,
    /// Messages of one channel on their way at once.
    pub in_flight_max: usize,
    /// Most members.
    pub members_max: usize,
}

/// Life of a connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Session {
    /// From accept to the connect frame.
    pub connect_timeout_ms: u64,
    /// Silence after which a session is dead.
    pub idle_timeout_ms: u64,
    /// How often clients ping.
    pub heartbeat_ms: u64,
}

/// What waits for a socket.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outbox {
    /// Waiting deliveries of one session, in bytes.
    pub bytes_max: usize,
    /// The same in entries.
    pub entries_max: usize,
    /// Waiting acks, replies and notices of one session.
    pub control_bytes_max: usize,
    /// A socket that took nothing for this long is closed.
    pub slow_close_ms: u64,
    /// Shortest time between two flushes of a busy shard.
    pub flush_interval_us: u64,
    /// The kernel's share per socket.
    pub not_sent_low_water_bytes: u32,
}

/// What waits for the committer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lane {
    /// Waiting sends of one lane.
    pub entries_max: usize,
    /// Their payload bytes.
    pub bytes_max: usize,
}

/// Lots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Commit {
    /// Records per lot.
    pub lot_records_max: usize,
    /// Bytes per lot.
    pub lot_bytes_max: usize,
}

/// Conversations.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversation {
    /// Whether they are offered.
    pub on: bool,
    /// Recents per row when a sync does not say.
    pub msg_count_default: usize,
    /// Most recents per row.
    pub msg_count_max: usize,
    /// Payload bytes of recents per answer.
    pub recents_bytes_max: usize,
}

/// What may become of messages.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Messages {
    /// How long a sender may revoke.
    pub revoke_within_s: u64,
    /// How long a sender may edit.
    pub edit_within_s: u64,
    /// Users with a reaction to one message.
    pub reactions_max: usize,
}

/// Files that messages carry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Files {
    /// Whether they are offered.
    pub on: bool,
    /// Largest file.
    pub bytes_max: u64,
    /// Media types taken, with commas between; empty: any. See [`Files::type_list`].
    pub types: String,
    /// Age at which a file that no message carries is collected.
    pub orphan_after_s: u64,
}

impl Files {
    /// The media types taken, in lower case: `image/png`, or `image/*` for all of a kind. Empty: any.
    #[must_use]
    pub fn type_list(&self) -> Vec<String> {
        let types = self.types.split(',').map(|given| given.trim().to_ascii_lowercase());
        types.filter(|given| !given.is_empty()).collect()
    }
}

/// The durable store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Store {
    /// Memory for caches.
    pub cache_bytes_max: u64,
    /// Log bytes that begin a checkpoint.
    pub checkpoint_log_bytes_max: u64,
    /// Time that begins a checkpoint.
    pub checkpoint_interval_ms: u64,
    /// Size of a log file.
    pub segment_bytes_max: u64,
}

/// Search in message texts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Whether an index is kept.
    pub on: bool,
}

/// The HTTP API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    /// Open connections.
    pub connections_max: usize,
    /// Largest body.
    pub body_bytes_max: usize,
    /// Longest request.
    pub request_timeout_ms: u64,
}

/// The dialect of relation.txt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Relation {
    /// Whether refusals have an HTTP status of their own.
    pub http_errors: bool,
}

impl Default for Config {
    fn default() -> Self {
        const KIB: usize = 1024;
        const MIB: usize = 1024 * KIB;
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self {
            data_dir: "./data".into(),
            insecure: false,
            shards: 0,
            drain_timeout_ms: 10_000,
            listen: Listen {
                socket: loopback(5200),
                http: loopback(5001),
                backlog: 4096,
                trusted_proxies: String::new(),
                proxy_protocol: false,
            },
            log: Log { level: "info".into(), format: "text".into() },
            auth: Auth { root_key_file: PathBuf::new(), root_key: String::new() },
            limits: Limits {
                payload_bytes_max: 64 * KIB,
                frame_bytes_max: MIB,
                in_flight_max: 4096,
                in_flight_bytes_max: 8 * MIB,
                connections_max: 200_000,
                connections_per_user_max: 64,
                person: PersonLimits { payload_bytes_max: 64 * KIB, in_flight_max: 65_536 },
                group: ChannelLimits { payload_bytes_max: 64 * KIB, in_flight_max: 65_536, members_max: 100_000 },
                customer_service: ChannelLimits {
                    payload_bytes_max: 64 * KIB,
                    in_flight_max: 65_536,
                    members_max: 1_000,
                },
            },
            session: Session { connect_timeout_ms: 10_000, idle_timeout_ms: 180_000, heartbeat_ms: 60_000 },
            outbox: Outbox {
                bytes_max: 256 * KIB,
                entries_max: 1024,
                control_bytes_max: MIB,
                slow_close_ms: 30_000,
                flush_interval_us: 0,
                not_sent_low_water_bytes: 16_384,
            },
            lane: Lane { entries_max: 65_536, bytes_max: 64 * MIB },
            commit: Commit { lot_records_max: 1024, lot_bytes_max: MIB },
            conversation: Conversation {
                on: true,
                msg_count_default: 20,
                msg_count_max: 1_000,
                recents_bytes_max: 32 * MIB,
            },
            messages: Messages { revoke_within_s: 120, edit_within_s: 86_400, reactions_max: 10_000 },
            files: Files { on: true, bytes_max: 100 * MIB as u64, types: String::new(), orphan_after_s: 86_400 },
            store: Store {
                cache_bytes_max: 128 * MIB as u64,
                checkpoint_log_bytes_max: 32 * MIB as u64,
                checkpoint_interval_ms: 10_000,
                segment_bytes_max: 256 * MIB as u64,
            },
            search: Search { on: true },
            http: Http { connections_max: 4096, body_bytes_max: 4 * MIB, request_timeout_ms: 30_000 },
            relation: Relation { http_errors: false },
            wukong: Wukong::default(),
            external: External::default(),
            webhook: Webhook::default(),
        }
    }
}

impl Config {
    /// Connection shards to run: `shards`, or one per core this process may use.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        match self.shards {
            0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            n => n,
        }
    }

    /// What hangs together between keys. [`load`] has called it; tests that build a `Config` by hand may.
    ///
    /// # Errors
    /// One sentence that names the keys.
    pub fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: String| Err(ConfigError { text });
        for (key, address) in [("listen.socket", self.listen.socket), ("listen.http", self.listen.http)] {
            if !address.ip().is_loopback() && !self.insecure {
                return fail(format!(
                    "{key} is {address}, which others can reach, and this server does not speak TLS: listen on \
                     127.0.0.1 behind a proxy that ends TLS, or accept that credentials cross the network readable \
                     with --insecure (insecure = true)"
                ));
            }
        }
        if self.listen.socket == self.listen.http && self.listen.socket.port() != 0 {
            return fail(format!("listen.socket and listen.http are both {}: they need two ports", self.listen.http));
        }
        if self.listen.proxies()?.is_empty() && self.listen.proxy_protocol {
            return fail(
                "listen.proxy_protocol is true, but listen.trusted_proxies is empty: nobody's header would be read"
                    .into(),
            );
        }
        if !self.auth.root_key.is_empty() && self.auth.root_key_file().is_some() {
            return fail("auth.root_key and auth.root_key_file are both given: give one".into());
        }
        // A payload travels with its names (at most some 1.2 KiB), in JSON as base64 (4/3).
        let in_json = self.limits.payload_bytes_max / 3 * 4 + 2048;
        for (key, room) in [
            ("limits.frame_bytes_max", self.limits.frame_bytes_max),
            ("http.body_bytes_max", self.http.body_bytes_max),
            ("limits.in_flight_bytes_max", self.limits.in_flight_bytes_max),
            ("outbox.bytes_max", self.outbox.bytes_max),
            ("lane.bytes_max", self.lane.bytes_max),
            ("commit.lot_bytes_max", self.commit.lot_bytes_max),
        ] {
            if room < in_json {
                return fail(format!(
                    "{key} is {room}, too small for one payload of limits.payload_bytes_max = {}: at least {in_json}",
                    self.limits.payload_bytes_max
                ));
            }
        }
        if let Some(given) = self.files.type_list().iter().find(|given| !is_media_type(given)) {
            return fail(format!("files.types holds {given}, which is no media type such as image/png or image/*"));
        }
        if self.session.heartbeat_ms >= self.session.idle_timeout_ms {
            return fail(format!(
                "session.heartbeat_ms is {}, which is not below session.idle_timeout_ms = {}: sessions would die between two pings",
                self.session.heartbeat_ms, self.session.idle_timeout_ms
            ));
        }
        if self.conversation.msg_count_default > self.conversation.msg_count_max {
            return fail(format!(
                "conversation.msg_count_default is {}, above conversation.msg_count_max = {}",
                self.conversation.msg_count_default, self.conversation.msg_count_max
            ));
        }
        self.webhook.check()?;
        self.wukong.check(self)
    }

    /// The text of `config.example.toml`: every key with its default, unit, range, variable and why.
    #[must_use]
    pub fn example() -> String {
        let values = flatten(&to_dict(&Self::default()));
        let mut text = String::from(
            "# Every setting of Chinwag with its default. A file `chinwag.toml` in the working directory is read, or the\n\
             # one named by --config or CHINWAG_CONFIG. Environment variables win over the file, flags win over both.\n\
             # A key that does not exist stops the start.\n",
        );
        let mut section = "";
        for key in KEYS {
            let (table, leaf) = key.name.rsplit_once('.').unwrap_or(("", key.name));
            if table != section {
                let _ = write!(text, "\n[{table}]\n");
                section = table;
            }
            text.push('\n');
            for line in wrap(key.why, 112) {
                let _ = writeln!(text, "# {line}");
            }
            let unit = match key.kind {
                Kind::Number { .. } => format!("Unit: {}. ", key.unit),
                _ => String::new(),
            };
            let _ = writeln!(text, "# {unit}Range: {}. Environment: {}", key.range(), key.env_name());
            if key.kind == Kind::Secret {
                continue;
            }
            let value = values.get(key.name).map(value_text).unwrap_or_default();
            let _ = writeln!(text, "{leaf} = {value}");
        }
        text
    }
}

/// `kind/name` or `kind/*`.
fn is_media_type(text: &str) -> bool {
    let is_word = |word: &str| {
        !word.is_empty() && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-' | '_'))
    };
    text.split_once('/').is_some_and(|(kind, name)| is_word(kind) && (name == "*" || is_word(name)))
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("never empty");
        if !last.is_empty() && last.len() + 1 + word.len() > width {
            lines.push(word.to_owned());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

/// Why the settings cannot be used: one sentence that names the key, its value, and where it was said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ConfigError {
    text: String,
}

impl ConfigError {
    fn new(text: impl fmt::Display) -> Self {
        Self { text: text.to_string() }
    }
}

/// Where settings are looked for.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file that must exist; `None`: [`DEFAULT_FILE`], if it exists.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `CHINWAG_` are ignored.
    pub env: Vec<(String, String)>,
    /// Flags: (key, value, the flag as typed).
    pub flags: Vec<(String, String, String)>,
}

impl Sources {
    /// The process's environment with these flags and file.
    #[must_use]
    pub fn of_process(file: Option<PathBuf>, flags: Vec<(String, String, String)>) -> Self {
        let env = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(ENV_PREFIX))
            .collect();
        Self { file, env, flags }
    }
}

/// Settings that passed every check, and where each was said.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The settings.
    pub config: Config,
    /// Key → `default`, `file <path>`, `environment <name>` or `flag <as typed>`.
    pub origins: BTreeMap<&'static str, String>,
}

/// One layer of settings on its way into figment.
struct Layer {
    name: &'static str,
    dict: Dict,
}

impl Provider for Layer {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.name)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        Ok(Profile::Default.collect(self.dict.clone()))
    }
}

/// Reads, merges and checks the settings.
///
/// # Errors
/// The first thing wrong, in one sentence: an unreadable file, an unknown key or variable, a value outside its range, or
/// values that contradict each other.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    let mut origins: BTreeMap<&'static str, String> = KEYS.iter().map(|k| (k.name, "default".to_owned())).collect();

    let mut file_dict = Dict::new();
    if let Some((path, text)) = read_file(sources)? {
        let origin = format!("file {}", path.display());
        let tree: Dict = Toml::from_str(&text).map_err(|e| {
            let line = e.span().map_or(0, |span| text[..span.start.min(text.len())].matches('\n').count() + 1);
            ConfigError::new(format_args!("{origin} is not TOML: line {line}: {}", e.message().replace('\n', ", ")))
        })?;
        for (name, value) in flatten(&tree) {
            let key =
                known(&name).map_err(|hint| ConfigError::new(format_args!("{origin}: unknown key {name}{hint}")))?;
            if key.kind == Kind::Secret {
                return Err(ConfigError::new(format_args!(
                    "{origin}: {name} may not be in the file, others may read it: use {}",
                    key.env_name()
                )));
            }
            check_value(key, &value, &origin)?;
            origins.insert(key.name, origin.clone());
        }
        file_dict = tree;
    }

    let mut env_dict = Dict::new();
    for (name, text) in &sources.env {
        if name == ENV_CONFIG_FILE || !name.starts_with(ENV_PREFIX) {
            continue;
        }
        let key = KEYS.iter().find(|k| k.env_name() == *name).ok_or_else(|| {
            ConfigError::new(format_args!(
                "unknown environment variable {name}: names that begin with {ENV_PREFIX} are settings, see `chinwag config show`"
            ))
        })?;
        let origin = format!("environment {name}");
        let value = parse_text(key, text, &origin)?;
        insert(&mut env_dict, key.name, value);
        origins.insert(key.name, origin);
    }

    let mut flag_dict = Dict::new();
    for (name, text, flag) in &sources.flags {
        let origin = format!("flag {flag}");
        let key = known(name).map_err(|hint| ConfigError::new(format_args!("{origin}: unknown key {name}{hint}")))?;
        if key.kind == Kind::Secret {
            return Err(ConfigError::new(format_args!(
                "{origin}: {name} may not be a flag, others on this machine can list it: use {}",
                key.env_name()
            )));
        }
        let value = parse_text(key, text, &origin)?;
        insert(&mut flag_dict, key.name, value);
        origins.insert(key.name, origin);
    }

    let config: Config = Figment::from(Serialized::defaults(Config::default()))
        .merge(Layer { name: "file", dict: file_dict })
        .merge(Layer { name: "environment", dict: env_dict })
        .merge(Layer { name: "flags", dict: flag_dict })
        .extract()
        .map_err(|e| ConfigError::new(format_args!("{}: {}", e.path.join("."), e.kind)))?;
    config.check()?;
    Ok(Loaded { config, origins })
}

fn read_file(sources: &Sources) -> Result<Option<(PathBuf, String)>, ConfigError> {
    let named = sources.file.clone().or_else(|| {
        let variable = sources.env.iter().find(|(name, _)| name == ENV_CONFIG_FILE);
        variable.filter(|(_, path)| !path.is_empty()).map(|(_, path)| PathBuf::from(path))
    });
    let must_exist = named.is_some();
    let path = named.unwrap_or_else(|| PathBuf::from(DEFAULT_FILE));
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(Some((path, text))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound && !must_exist => Ok(None),
        Err(e) => Err(ConfigError::new(format_args!("cannot read the configuration file {}: {e}", path.display()))),
    }
}

/// The key of this name, or what to say about its absence.
fn known(name: &str) -> Result<&'static Key, String> {
    if let Some(key) = keys::find(name) {
        return Ok(key);
    }
    let leaf = |n: &str| n.rsplit('.').next().unwrap_or_default().to_owned();
    let near = KEYS.iter().find(|k| leaf(k.name) == leaf(name));
    Err(match near {
        Some(key) => format!(", did you mean {}?", key.name),
        None => ", see `chinwag config show` for all keys".to_owned(),
    })
}

fn out_of_range(key: &Key, shown: impl fmt::Display, origin: &str) -> ConfigError {
    let unit = if key.unit.is_empty() { String::new() } else { format!(" ({})", key.unit) };
    ConfigError::new(format_args!("{} is {shown} ({origin}), but its range is {}{unit}", key.name, key.range()))
}

/// Whether a value of the file suits its key.
fn check_value(key: &Key, value: &Value, origin: &str) -> Result<(), ConfigError> {
    let fits = match key.kind {
        Kind::Flag => value.to_bool().is_some(),
        Kind::Number { min, max } => {
            integer(value).and_then(|n| u64::try_from(n).ok()).is_some_and(|n| (min..=max).contains(&n))
        }
        Kind::Address => value.as_str().is_some_and(|t| t.parse::<SocketAddr>().is_ok()),
        Kind::AddressOrOff => value.as_str().is_some_and(|t| t.is_empty() || t.parse::<SocketAddr>().is_ok()),
        Kind::Text => value.as_str().is_some(),
        Kind::Word(words) => value.as_str().is_some_and(|t| words.contains(&t)),
        Kind::Secret => value.as_str().is_some_and(|t| t.len() >= 24),
    };
    // `log.level` is free text to the eye and a filter to the logger.
    let fits = fits && (key.name != "log.level" || value.as_str().is_some_and(filter_is_valid));
    if fits {
        return Ok(());
    }
    Err(out_of_range(key, if key.kind == Kind::Secret { "too short".into() } else { value_text(value) }, origin))
}

fn filter_is_valid(text: &str) -> bool {
    !text.trim().is_empty() && tracing_subscriber::EnvFilter::try_new(text).is_ok()
}

/// Reads the text of a variable or flag as its key wants it.
fn parse_text(key: &Key, text: &str, origin: &str) -> Result<Value, ConfigError> {
    let value = match key.kind {
        Kind::Flag => match text {
            "true" | "1" | "on" => Value::from(true),
            "false" | "0" | "off" => Value::from(false),
            _ => return Err(out_of_range(key, format_args!("{text:?}"), origin)),
        },
        Kind::Number { .. } => match text.replace('_', "").parse::<u64>() {
            Ok(number) => Value::from(number),
            Err(_) => return Err(out_of_range(key, format_args!("{text:?}"), origin)),
        },
        // Whitespace around a secret comes from files and `echo`, never from the secret.
        Kind::Secret => Value::from(text.trim()),
        Kind::Address | Kind::AddressOrOff | Kind::Text | Kind::Word(_) => Value::from(text),
    };
    check_value(key, &value, origin)?;
    Ok(value)
}

fn to_dict(config: &Config) -> Dict {
    match Value::serialize(config) {
        Ok(Value::Dict(_, dict)) => dict,
        // A struct of plain fields serializes into a dictionary.
        _ => Dict::new(),
    }
}

/// Dotted names of all leaves.
fn flatten(dict: &Dict) -> BTreeMap<String, Value> {
    let mut leaves = BTreeMap::new();
    for (name, value) in dict {
        match value {
            Value::Dict(_, inner) => {
                leaves.extend(flatten(inner).into_iter().map(|(rest, v)| (format!("{name}.{rest}"), v)));
            }
            leaf => {
                leaves.insert(name.clone(), leaf.clone());
            }
        }
    }
    leaves
}

fn insert(dict: &mut Dict, name: &str, value: Value) {
    match name.split_once('.') {
        None => {
            dict.insert(name.to_owned(), value);
        }
        Some((table, rest)) => {
            let inner = dict.entry(table.to_owned()).or_insert_with(|| Value::from(Dict::new()));
            if let Value::Dict(_, inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// A value as TOML shows it; numbers of five digits and more in groups of three.
fn value_text(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, _) => match (integer(value), value.to_num().and_then(|n| n.to_f64())) {
            (Some(number), _) => grouped(number),
            (None, Some(number)) => number.to_string(),
            (None, None) => "a number".into(),
        },
        Value::Array(_, _) => "a list".into(),
        Value::Dict(_, _) => "a table".into(),
        other => format!("{other:?}"),
    }
}

/// The whole number a value is. figment keeps signed and unsigned ones apart.
fn integer(value: &Value) -> Option<i128> {
    let number = value.to_num()?;
    number.to_i128().or_else(|| number.to_u128().and_then(|n| i128::try_from(n).ok()))
}

fn grouped(number: i128) -> String {
    let digits = number.unsigned_abs().to_string();
    let sign = if number < 0 { "-" } else { "" };
    if digits.len() < 5 {
        return format!("{sign}{digits}");
    }
    let mut text = String::from(sign);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// One line of `config show`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shown {
    /// Dotted name.
    pub key: &'static str,
    /// The value in force, as TOML; a secret is only said to be set.
    pub value: String,
    /// Where it was said.
    pub origin: String,
    /// Its environment variable.
    pub env: String,
    /// Its unit.
    pub unit: &'static str,
    /// Its range.
    pub range: String,
    /// Why it exists.
    pub why: &'static str,
}

impl Loaded {
    /// Every key with its value, in the order of the file.
    #[must_use]
    pub fn show(&self) -> Vec<Shown> {
        let values = flatten(&to_dict(&self.config));
        KEYS.iter()
            .map(|key| {
                let value = values.get(key.name).map(value_text).unwrap_or_default();
                let value = match key.kind {
                    Kind::Secret if value == "\"\"" => "(not set)".into(),
                    Kind::Secret => "(set)".into(),
                    _ => value,
                };
                Shown {
                    key: key.name,
                    value,
                    origin: self.origins.get(key.name).cloned().unwrap_or_default(),
                    env: key.env_name(),
                    unit: key.unit,
                    range: key.range(),
                    why: key.why,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
