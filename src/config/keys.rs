//! Every configuration key: unit, range and why. The table that `config show`, `config.example.toml`, the environment and
//! the checks of ranges are made from. Its defaults are those of [`super::Config`]; a test keeps both sets of keys equal.

/// What a key's value looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Flag,
    /// A whole number from `min` to `max`, both included.
    Number {
        /// Smallest value.
        min: u64,
        /// Largest value.
        max: u64,
    },
    /// `address:port`.
    Address,
    /// `address:port`, or the empty text: off.
    AddressOrOff,
    /// Free text.
    Text,
    /// One of a few words.
    Word(&'static [&'static str]),
    /// Text that is never shown, and never taken from the file.
    Secret,
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted name, as in the file: `listen.socket`.
    pub name: &'static str,
    /// What its value looks like.
    pub kind: Kind,
    /// Unit of a number, or what a text names.
    pub unit: &'static str,
    /// Why it exists and why its default is what it is. One or two sentences.
    pub why: &'static str,
}

impl Key {
    /// Its environment variable: `CHINWAG_LISTEN_SOCKET`.
    #[must_use]
    pub fn env_name(&self) -> String {
        format!("{ENV_PREFIX}{}", self.name.replace('.', "_").to_uppercase())
    }

    /// Its range, for people.
    #[must_use]
    pub fn range(&self) -> String {
        match self.kind {
            Kind::Flag => "true or false".into(),
            Kind::Number { min, max } => format!("{} to {}", super::grouped(min.into()), super::grouped(max.into())),
            Kind::Address => "address:port".into(),
            Kind::AddressOrOff => "address:port, or empty: off".into(),
            Kind::Text => self.unit.into(),
            Kind::Word(words) => words.join(" or "),
            Kind::Secret => "text of at least 24 characters, environment only".into(),
        }
    }
}

/// What environment variables of the server begin with.
pub const ENV_PREFIX: &str = "CHINWAG_";
/// The variable that names the file itself, and so is no key.
pub const ENV_CONFIG_FILE: &str = "CHINWAG_CONFIG";

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

const fn number(name: &'static str, min: u64, max: u64, unit: &'static str, why: &'static str) -> Key {
    Key { name, kind: Kind::Number { min, max }, unit, why }
}

const fn key(name: &'static str, kind: Kind, unit: &'static str, why: &'static str) -> Key {
    Key { name, kind, unit, why }
}

/// All keys, in the order of the file.
pub const KEYS: &[Key] = &[
    key(
        "data_dir",
        Kind::Text,
        "directory",
        "Log, view, root key and pepper live here; one server at a time. Back up the whole directory.",
    ),
    key(
        "insecure",
        Kind::Flag,
        "",
        "Allows listening beyond this machine without TLS: credentials then cross the network readable. Only behind a proxy that ends TLS.",
    ),
    number("shards", 0, 1024, "threads", "Connection shards, each one thread with its own listener. 0: one per core."),
    number(
        "drain_timeout_ms",
        0,
        600_000,
        "ms",
        "How long a shutdown waits for sends in flight and for sockets to take their last bytes.",
    ),
    key("listen.socket", Kind::Address, "address:port", "Where WebSocket clients connect. Port 0 takes any free one."),
    key("listen.http", Kind::Address, "address:port", "Where the HTTP API listens. Port 0 takes any free one."),
    number(
        "listen.backlog",
        16,
        65_535,
        "connections",
        "Connections the kernel holds until they are accepted; the kernel's somaxconn caps it. Large, so that thousands may reconnect at once.",
    ),
    key(
        "listen.trusted_proxies",
        Kind::Text,
        "addresses and blocks such as 10.0.0.0/8, with commas between; empty: none",
        "Proxies whose word about a client's address is taken: X-Forwarded-For over HTTP and in WebSocket upgrades. Nobody else's is, this machine's neither unless it is listed.",
    ),
    key(
        "listen.proxy_protocol",
        Kind::Flag,
        "",
        "Whether connections of trusted proxies to listen.socket and wukong.tcp_listen begin with a header of the PROXY protocol, version 1 or 2. Then each must; of others none is read.",
    ),
    key(
        "log.level",
        Kind::Text,
        "filter",
        "error, warn, info, debug or trace, or a filter by module such as `info,chinwag::hub=debug`.",
    ),
    key("log.format", Kind::Word(&["text", "json"]), "", "text for people, json for log collectors."),
    key(
        "auth.root_key_file",
        Kind::Text,
        "file",
        "A file that holds the root key, in place of the one made in data_dir at the first start. Empty: none.",
    ),
    key(
        "auth.root_key",
        Kind::Secret,
        "",
        "The root key itself, in place of the one in data_dir. Environment only, so that it is not left in a file others read.",
    ),
    number(
        "limits.payload_bytes_max",
        1,
        16 * MIB,
        "bytes",
        "Largest message payload of any channel type. Larger things belong in an object store, with a link sent.",
    ),
    number(
        "limits.frame_bytes_max",
        4 * KIB,
        64 * MIB,
        "bytes",
        "Largest WebSocket message taken from a client, refused before memory is set aside. Leaves room for base64 and several sends per frame.",
    ),
    number(
        "limits.in_flight_max",
        1,
        1_000_000,
        "sends",
        "Sends of one connection that wait for their acks; beyond it the server stops reading from that socket.",
    ),
    number(
        "limits.in_flight_bytes_max",
        64 * KIB,
        GIB,
        "bytes",
        "Payload bytes of one connection that wait for their acks; beyond it the server stops reading from that socket.",
    ),
    number(
        "limits.connections_max",
        1,
        10_000_000,
        "connections",
        "Open sockets of the server; more are refused at once. The process's file descriptor limit caps it too.",
    ),
    number(
        "limits.connections_per_user_max",
        1,
        100_000,
        "connections",
        "Sessions one user may hold at once, over all devices.",
    ),
    number(
        "limits.person.payload_bytes_max",
        1,
        16 * MIB,
        "bytes",
        "Largest payload in person channels; the smaller of this and the limit for all holds.",
    ),
    number(
        "limits.person.in_flight_max",
        1,
        16_777_216,
        "messages",
        "Messages of one person channel that wait or are on their way to disk; beyond it senders are told to come back.",
    ),
    number(
        "limits.group.payload_bytes_max",
        1,
        16 * MIB,
        "bytes",
        "Largest payload in groups; the smaller of this and the limit for all holds.",
    ),
    number(
        "limits.group.in_flight_max",
        1,
        16_777_216,
        "messages",
        "Messages of one group that wait or are on their way to disk; beyond it senders are told to come back.",
    ),
    number(
        "limits.group.members_max",
        2,
        10_000_000,
        "members",
        "Members of one group. A message costs nothing per member to store, but one delivery per member online.",
    ),
    number(
        "limits.customer_service.payload_bytes_max",
        1,
        16 * MIB,
        "bytes",
        "Largest payload in customer service channels; the smaller of this and the limit for all holds.",
    ),
    number(
        "limits.customer_service.in_flight_max",
        1,
        16_777_216,
        "messages",
        "Messages of one customer service channel that wait or are on their way to disk; beyond it senders are told to come back.",
    ),
    number(
        "limits.customer_service.members_max",
        1,
        10_000_000,
        "members",
        "Members of one customer service channel: the visitor and those who answer.",
    ),
    number(
        "session.connect_timeout_ms",
        100,
        600_000,
        "ms",
        "From accepting a socket to its connect frame; then it is closed. Keeps silent sockets from holding memory.",
    ),
    number(
        "session.idle_timeout_ms",
        1_000,
        86_400_000,
        "ms",
        "A session that sent nothing for this long, pings included, is closed as dead.",
    ),
    number(
        "session.heartbeat_ms",
        500,
        86_400_000,
        "ms",
        "How often clients are told to ping. A third of the idle timeout, so that two lost pings are survived.",
    ),
    number(
        "outbox.bytes_max",
        16 * KIB,
        GIB,
        "bytes",
        "What may wait for one session that reads slowly; beyond it the backlog is dropped and a gap notice sent. Sessions of WuKongIM's protocols, which have no such notice and are closed instead, may have four times as much.",
    ),
    number(
        "outbox.entries_max",
        16,
        1_000_000,
        "entries",
        "As bytes_max, counted in entries: small messages cost memory beside their bytes.",
    ),
    number(
        "outbox.control_bytes_max",
        4 * KIB,
        GIB,
        "bytes",
        "What may wait of acks, replies and notices of one session; kept apart so that a flood of messages cannot hold up an ack.",
    ),
    number(
        "outbox.slow_close_ms",
        1_000,
        3_600_000,
        "ms",
        "A session whose socket took no byte for this long, with bytes waiting, is closed as slow.",
    ),
    number(
        "outbox.flush_interval_us",
        0,
        5_000,
        "us",
        "Shortest time between two flushes of a busy shard: joins more messages per write. 0: flush at the end of every turn.",
    ),
    number(
        "outbox.not_sent_low_water_bytes",
        KIB,
        16 * MIB,
        "bytes",
        "What the kernel may hold unsent per socket before it says full. 16 KiB: a stalled reader holds 37 KB instead of 4.2 MB, at no cost for the others.",
    ),
    number(
        "lane.entries_max",
        16,
        1_000_000,
        "sends",
        "Sends that wait in one channel lane for the committer; beyond it they are refused with retry_after_ms.",
    ),
    number("lane.bytes_max", 64 * KIB, 4 * GIB, "bytes", "As entries_max, counted in payload bytes."),
    number(
        "commit.lot_records_max",
        1,
        65_536,
        "records",
        "Records per lot, one write and one fdatasync each. Beyond about 1,024 throughput gains little and the wait of each send grows.",
    ),
    number(
        "commit.lot_bytes_max",
        64 * KIB,
        64 * MIB,
        "bytes",
        "Bytes per lot. 1 MiB takes 0.3 to 0.6 ms to write and sync on a local disk; larger lots only lengthen the wait.",
    ),
    key(
        "conversation.on",
        Kind::Flag,
        "",
        "Recent conversations: sync, unread, delete. Off: those calls answer feature_off.",
    ),
    number(
        "conversation.msg_count_default",
        0,
        1_000,
        "messages",
        "Recent messages per conversation when a sync does not say: about one screen.",
    ),
    number(
        "conversation.msg_count_max",
        1,
        1_000,
        "messages",
        "Most recent messages per conversation that a sync may ask for.",
    ),
    number(
        "conversation.recents_bytes_max",
        64 * KIB,
        GIB,
        "bytes",
        "Payload bytes of recents in one sync; rows beyond it carry none and are never left out.",
    ),
    number(
        "messages.revoke_within_s",
        0,
        31_536_000,
        "s",
        "How long a sender may take a message back; admins of a group and back ends may any time. 0: senders may not.",
    ),
    number(
        "messages.edit_within_s",
        0,
        31_536_000,
        "s",
        "How long a sender may replace what a message says; back ends may any time. 0: senders may not.",
    ),
    number(
        "messages.reactions_max",
        0,
        1_000_000,
        "users",
        "Users with a reaction to one message: all of them travel with it. 0: no reactions.",
    ),
    key(
        "files.on",
        Kind::Flag,
        "",
        "Upload of files that messages carry. Off: uploads answer feature_off, what is there stays readable.",
    ),
    number(
        "files.bytes_max",
        KIB,
        100 * GIB,
        "bytes",
        "Largest file. It is written to data_dir as it comes, never held in memory.",
    ),
    key(
        "files.types",
        Kind::Text,
        "media types",
        "Media types taken, with commas between, such as `image/*,application/pdf`. Empty: any. What a file says it is, is not checked against its content.",
    ),
    number(
        "files.orphan_after_s",
        60,
        31_536_000,
        "s",
        "Age at which a file that no message carries is removed: senders upload first and send then.",
    ),
    number(
        "store.cache_bytes_max",
        4 * MIB,
        1024 * GIB,
        "bytes",
        "Memory for rows of the view and idempotency filters. Idle rows leave beyond it; changed ones wait for a checkpoint, which begins early at 1.25 times this, and which sends wait for at twice.",
    ),
    number(
        "store.checkpoint_log_bytes_max",
        MIB,
        4 * GIB,
        "bytes",
        "A checkpoint begins when this much log is not yet in the view: bounds replay after a crash.",
    ),
    number(
        "store.checkpoint_interval_ms",
        100,
        3_600_000,
        "ms",
        "A checkpoint begins at the latest after this time, when anything changed.",
    ),
    number(
        "store.segment_bytes_max",
        MIB,
        4 * GIB,
        "bytes",
        "Size at which the log begins a new file. Smaller files are sooner closed, checked and ready to be backed up.",
    ),
    key(
        "search.on",
        Kind::Flag,
        "",
        "An index of message texts, made in the background. Off: it is removed, and a search reads messages, newest first, as far as one request may.",
    ),
    number(
        "http.connections_max",
        1,
        1_000_000,
        "connections",
        "Open HTTP connections; more wait until one ends. Back ends keep a few each.",
    ),
    number("http.body_bytes_max", KIB, 256 * MIB, "bytes", "Largest request body of the HTTP API; beyond it 413."),
    number(
        "http.request_timeout_ms",
        100,
        600_000,
        "ms",
        "How long a request may take before it is answered 503; what it began may still be carried out.",
    ),
    key(
        "relation.http_errors",
        Kind::Flag,
        "",
        "Whether refusals under /api/v1 (but /api/v1/chat) have a 4xx or 5xx status; else 200 with their code in the body.",
    ),
    key(
        "wukong.tcp_listen",
        Kind::AddressOrOff,
        "address:port",
        "Where WuKongIM's clients connect over TCP; those over WebSocket use listen.socket. Port 0 takes any free one. Empty: off.",
    ),
    key(
        "wukong.encryption",
        Kind::Flag,
        "",
        "WuKongIM's payload encryption, which its JavaScript clients need. Off: a CONNECT without a key is taken and payloads travel as they are. It is no protection of a connection, TLS is.",
    ),
    key(
        "wukong.token_auth",
        Kind::Flag,
        "",
        "Whether WuKongIM's clients need their token. Off, as is WuKongIM's own default: anybody connects as any user, so only on loopback or with insecure.",
    ),
    key(
        "wukong.api_open",
        Kind::Flag,
        "",
        "Whether WuKongIM's HTTP routes take requests without a key, as WuKongIM does by default: anybody is admin there, so only on loopback or with insecure.",
    ),
    key(
        "wukong.api_send_checks",
        Kind::Flag,
        "",
        "Whether sends with an API key are checked like a client's, as in WuKongIM v3. Off, as in v2: they are held to ban and disband only.",
    ),
    key(
        "wukong.whitelist_off_of_person",
        Kind::Flag,
        "",
        "Whether anybody may write to a user (WuKongIM's whitelistOffOfPerson). Off: only who is on the user's whitelist, which are the user's contacts, unless the user's own channel has allow_stranger.",
    ),
    key(
        "wukong.api_errors_400",
        Kind::Flag,
        "",
        "Whether every error of WuKongIM's HTTP routes is an HTTP 400, as WuKongIM's are, for back ends that look for that number. Off: errors have their own status, such as 401, 413 and 429.",
    ),
    key(
        "wukong.blank_system_uid",
        Kind::Flag,
        "",
        "Whether messages of ____system come to WuKongIM's clients, routes and msg.notify with an empty from_uid (to clients in person channels with an empty channel_id too), as WuKongIM v2's do.",
    ),
    key(
        "external.tcp_addr",
        Kind::Text,
        "host:port, or empty",
        "What /route tells WuKongIM's clients for TCP. Empty: wukong.tcp_listen.",
    ),
    key(
        "external.ws_addr",
        Kind::Text,
        "a ws:// address, or empty",
        "What /route tells WuKongIM's clients for WebSocket. Empty: listen.socket.",
    ),
    key(
        "external.wss_addr",
        Kind::Text,
        "a wss:// address, or empty",
        "What /route tells WuKongIM's clients for WebSocket behind TLS: the proxy that ends it. Empty: none.",
    ),
    key(
        "webhook.url",
        Kind::Text,
        "http:// or https:// address",
        "Endpoint of a back end that is told of messages and sessions. Empty: none; more can be made by the admin API. Any address is called, this machine's too.",
    ),
    key(
        "webhook.events",
        Kind::Text,
        "events",
        "What it is told of, with commas between: msg.notify, msg.offline, user.onlinestatus.",
    ),
    key(
        "webhook.secret_file",
        Kind::Text,
        "file",
        "A file that holds the key its calls are signed with (HMAC-SHA256). Up to three more lines: keys before it, which sign too. Empty: none, the calls are not signed.",
    ),
    key(
        "webhook.ca_file",
        Kind::Text,
        "file",
        "A file with authorities in PEM, such as a company's own, whose certificates https endpoints may have, besides the system's. Empty: none.",
    ),
    key(
        "webhook.secret",
        Kind::Secret,
        "",
        "The signing key itself. Environment only, so that it is not left in a file others read.",
    ),
    key("webhook.namespace", Kind::Text, "namespace", "The tenant whose events it is told of. Empty: the default one."),
    number(
        "webhook.batch_max",
        1,
        1_000,
        "messages",
        "Messages per call of msg.notify, and lines per call of user.onlinestatus. 100 as in WuKongIM.",
    ),
    number(
        "webhook.batch_bytes_max",
        KIB,
        64 * MIB,
        "bytes",
        "About the bytes of messages per call; a larger message goes alone. In base64 they take a third more.",
    ),
    number(
        "webhook.push_interval_ms",
        0,
        60_000,
        "ms",
        "Calls that are not full are at least this far apart, so that a busy server makes full ones. 500 as in WuKongIM; 0 tells at once.",
    ),
    number("webhook.timeout_ms", 100, 600_000, "ms", "Longest call, from connecting to the answer's head."),
    number(
        "webhook.retry_max_ms",
        100,
        3_600_000,
        "ms",
        "Longest wait between two attempts. The first is half a second; each is twice the one before, with chance in it.",
    ),
    number(
        "webhook.dead_after_attempts",
        0,
        1_000_000,
        "attempts",
        "Answers other than 200 to a call with one message, after which that message is parked where the admin API shows it. 0: it is tried for ever.",
    ),
    number(
        "webhook.parallel_max",
        1,
        256,
        "calls",
        "Calls of msg.offline at once, per endpoint: one message each, messages of one channel one after the other.",
    ),
    key(
        "webhook.offline_when",
        Kind::Word(&["no_master", "no_session"]),
        "",
        "Who is offline to msg.offline: who has no session on a master device (as in WuKongIM; device_level of /user/token), or no session at all.",
    ),
    number(
        "webhook.uids_per_call_max",
        1,
        1_000_000,
        "users",
        "Uids per call of msg.offline; a larger group makes several calls.",
    ),
    number(
        "webhook.compress_above",
        0,
        1_000_000,
        "users",
        "More uids than this go compressed (gzip, base64). 0: never. WuKongIM's channel.subscriberCompressOfCount.",
    ),
    number(
        "webhook.sessions_queue_max",
        100,
        10_000_000,
        "sessions",
        "Changes of sessions that may wait for one endpoint; beyond it the oldest are dropped and counted.",
    ),
];

/// The key of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.name == name)
}
