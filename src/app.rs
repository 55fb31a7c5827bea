//! The only composition root: what is built in which order, and drained in which.
//!
//! Build: data directory → store → hub → committer → webhooks → sockets → HTTP. Drain: stop accepting, refuse new drafts,
//! empty lanes, last commit, close sessions with a reason, end HTTP, end webhook calls, last checkpoint.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use crate::clock;
use crate::config::Config;
use crate::credentials::{Credentials, RootKeySource};
use crate::gateway::{self, Doors, Gateway, GatewayLimits};
use crate::http::{HttpServer, HttpState, message};
use crate::hub::committer::{self, CommitLimits};
use crate::hub::files::{FileLimits, Files};
use crate::hub::messages::MessageLimits;
use crate::hub::outbox::OutboxLimits;
use crate::hub::sequencer::LaneLimits;
use crate::hub::streams::IDLE_MS;
use crate::hub::{ChannelTypeLimits, Hub, HubLimits};
use crate::metrics::Metrics;
use crate::store::Store;
use crate::store::durable::{DurableStore, StoreOptions};
use crate::store::search::SearchOptions;
use crate::webhook::{Show, Webhooks};

/// How often overdue messages are looked for; the promise is at most 60 s late.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(5);
/// Channels expired in one go.
const EXPIRY_CHANNELS_MAX: usize = 256;
/// How often files that no message carries are looked for: a scan of their rows.
const COLLECT_INTERVAL: Duration = Duration::from_secs(3_600);
/// Files collected in one go.
const COLLECT_FILES_MAX: usize = 256;
/// Users one session may watch.
const WATCHES_MAX: usize = 1_000;
/// Rows of one native sync page.
const ROWS_MAX: usize = 500;
/// Messages of one native history page.
const HISTORY_MAX: usize = 1_000;
/// Lanes of one shard kept in memory: some 500 bytes each when idle.
const LANES_MAX: usize = 100_000;
/// Events that may wait for a shard: each connection's in-flight cap bounds what one client adds, this what all do.
const INBOX_ENTRIES_MAX: usize = 262_144;

/// A running server.
#[derive(Debug)]
pub struct App {
    hub: Hub,
    store: Arc<dyn Store>,
    gateway: Gateway,
    http: HttpServer,
    webhooks: Webhooks,
    committer: std::thread::JoinHandle<()>,
    expiry: tokio::task::JoinHandle<()>,
    collector: tokio::task::JoinHandle<()>,
    root_key: RootKeySource,
    drain_timeout: Duration,
}

/// What a drain did.
#[derive(Debug, Clone)]
pub struct DrainReport {
    /// Whether everything ended by itself within the time.
    pub clean: bool,
    /// Sessions when it began.
    pub sessions: usize,
    /// Sessions that were told and closed.
    pub sessions_closed: usize,
    /// Drafts that were still waiting for their commit when the time was over.
    pub drafts_left: usize,
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} sessions told and closed", self.sessions_closed, self.sessions)?;
        match (self.clean, self.drafts_left) {
            (true, _) => f.write_str(", everything taken was stored"),
            (false, 0) => f.write_str(", some requests were cut off"),
            (false, left) => write!(f, ", {left} drafts had no outcome yet"),
        }
    }
}

impl fmt::Debug for dyn Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl App {
    /// Opens the data directory and starts everything. Must be called inside a multi-threaded runtime; its blocking threads
    /// ask the store.
    ///
    /// # Errors
    /// Whatever keeps the server from starting, in words for its operator.
    pub async fn start(config: Config) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&config.data_dir)
            .with_context(|| format!("cannot create data_dir {}", config.data_dir.display()))?;
        let opened = config.clone();
        let store = tokio::task::spawn_blocking(move || open_store(&opened)).await??;
        Self::start_with(config, Arc::new(store)).await
    }

    /// Starts everything over a store that is open already: tests use the model.
    ///
    /// # Errors
    /// As [`App::start`].
    pub async fn start_with(config: Config, store: Arc<dyn Store>) -> anyhow::Result<Self> {
        let credentials = Arc::new(Credentials::open(&config.data_dir)?);
        let metrics = Metrics::new();
        let shards = match config.shards {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given,
        };
        let blocking = tokio::runtime::Handle::current();
        let now_s = clock::now_us() / 1_000_000;
        let files = files_of(&config);
        let asked = store.clone();
        let files = tokio::task::spawn_blocking(move || files.recover(&*asked).map(|()| files))
            .await?
            .with_context(|| format!("files below data_dir = {} cannot be read", config.data_dir.display()))?;
        let hub = Hub::new(store.clone(), shards, hub_limits(&config), files, metrics.clone(), blocking, now_s);
        let committer = {
            let shared = hub.shared().clone();
            std::thread::Builder::new().name("committer".into()).spawn(move || {
                let work = std::panic::AssertUnwindSafe(|| {
                    committer::run(&*shared.store, &shared.queue, &shared.shards, &shared.metrics);
                });
                if std::panic::catch_unwind(work).is_err() {
                    tracing::error!("the committer panicked, its state may be wrong: the process ends");
                    std::process::abort();
                }
            })?
        };
        match Self::listen(&config, &hub, credentials, metrics).await {
            Ok(Listening { root_key, gateway, http, webhooks }) => {
                let expiry = tokio::spawn(expire(hub.clone()));
                let orphan_after_ms = config.files.orphan_after_s.saturating_mul(1_000);
                let collector = tokio::spawn(collect_files(hub.clone(), orphan_after_ms));
                let drain_timeout = Duration::from_millis(config.drain_timeout_ms);
                Ok(Self { hub, store, gateway, http, webhooks, committer, expiry, collector, root_key, drain_timeout })
            }
            Err(error) => {
                // What was begun is ended, so that whoever can go on finds the data directory free.
                hub.shared().queue.close();
                let _ = tokio::task::spawn_blocking(move || committer.join()).await;
                Err(error)
            }
        }
    }

    async fn listen(
        config: &Config,
        hub: &Hub,
        credentials: Arc<Credentials>,
        metrics: Arc<Metrics>,
    ) -> anyhow::Result<Listening> {
        let root_key = credentials.ensure_root(&config.auth, &config.data_dir, hub).await?;
        let keys = signing_keys(&config.webhook)?;
        let notify = if config.wukong.blank_system_uid { message::to_sender_or_blank } else { message::to_sender };
        let show = Show { notify, offline: message::to_sender };
        let webhooks = Webhooks::new(hub.clone(), &config.webhook, &config.data_dir, metrics.clone(), show);
        webhooks.start(keys).await?;
        let bind = |key: &str, addr| {
            gateway::bind(addr, config.listen.backlog).map_err(|error| match error.kind() {
                std::io::ErrorKind::AddrInUse => anyhow::anyhow!("{key} = {addr} is in use by another process"),
                _ => anyhow::anyhow!("{key} = {addr} cannot be bound: {error}"),
            })
        };
        let doors = Doors {
            websocket: bind("listen.socket", config.listen.socket)?,
            wukong_tcp: config.wukong.tcp_listen.map(|addr| bind("wukong.tcp_listen", addr)).transpose()?,
        };
        let gateway =
            Gateway::start(doors, hub.clone(), credentials.clone(), gateway_limits(config), config.listen.proxies()?)?;
        // With the ports that were taken for 0.
        let mut bound = config.clone();
        bound.listen.socket = gateway.addr();
        bound.wukong.tcp_listen = gateway.wukong_addr();
        let state = HttpState::new(hub.clone(), credentials, metrics, webhooks.clone(), &bound, root_key.clone());
        let http = HttpServer::bind(config.listen.http, config.listen.backlog, Arc::new(state)).await?;
        Ok(Listening { root_key, gateway, http, webhooks })
    }

    /// Where sockets listen.
    pub fn socket_addr(&self) -> SocketAddr {
        self.gateway.addr()
    }

    /// Where WuKongIM's clients connect over TCP; `None`: nowhere.
    pub fn wukong_addr(&self) -> Option<SocketAddr> {
        self.gateway.wukong_addr()
    }

    /// Where the HTTP API listens.
    pub fn http_addr(&self) -> SocketAddr {
        self.http.addr()
    }

    /// Where the root key came from.
    pub fn root_key(&self) -> &RootKeySource {
        &self.root_key
    }

    /// The hub, for tests and commands.
    pub fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Ends everything in order and says what became of it.
    pub async fn drain(self) -> DrainReport {
        let deadline = tokio::time::Instant::now() + self.drain_timeout;
        self.gateway.stop_accepting();
        self.hub.begin_drain();
        self.expiry.abort();
        self.collector.abort();
        // Empty lanes: what was taken before the drain began gets its outcome.
        while self.hub.pending() > 0 && tokio::time::Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // What was only pushed of streamed answers is kept, too.
        let _ = tokio::time::timeout_at(deadline, self.hub.sweep_streams(clock::now_ms(), 0)).await;
        let drafts_left = self.hub.pending();
        self.hub.shared().queue.close();
        let committer = self.committer;
        let _ = tokio::task::spawn_blocking(move || committer.join()).await;
        let left = deadline.saturating_duration_since(tokio::time::Instant::now()).max(Duration::from_millis(500));
        // Side by side, so that a socket whose peer does not answer its close leaves HTTP requests their time.
        let (closed, http_ended) = tokio::join!(self.gateway.close_sessions(left), self.http.drain(left));
        // Last, so that back ends hear of the sessions that were closed.
        let left = deadline.saturating_duration_since(tokio::time::Instant::now()).max(Duration::from_millis(500));
        self.webhooks.drain(left).await;
        let store = self.store;
        let checkpoint = tokio::task::spawn_blocking(move || store.checkpoint()).await;
        let stored = match checkpoint {
            Ok(Ok(())) => true,
            Ok(Err(error)) => {
                tracing::error!(%error, "the last checkpoint failed; the next start replays the log");
                false
            }
            Err(_) => false,
        };
        DrainReport {
            clean: stored && http_ended && drafts_left == 0 && closed.closed == closed.sessions,
            sessions: closed.sessions,
            sessions_closed: closed.closed,
            drafts_left,
        }
    }
}

/// What serves, besides the hub.
struct Listening {
    root_key: RootKeySource,
    gateway: Gateway,
    http: HttpServer,
    webhooks: Webhooks,
}

/// The signing keys of the configuration's webhook endpoint, wherever they were given: the present one first.
fn signing_keys(config: &crate::config::Webhook) -> anyhow::Result<Vec<String>> {
    let text = match config.secret_file() {
        Some(path) => std::fs::read_to_string(path)
            .with_context(|| format!("webhook.secret_file = {} cannot be read", path.display()))?,
        None => config.secret.clone(),
    };
    let keys: Vec<String> = text.lines().map(str::trim).filter(|key| !key.is_empty()).map(str::to_owned).collect();
    anyhow::ensure!(!keys.is_empty() || config.secret_file().is_none(), "webhook.secret_file is empty");
    Ok(keys)
}

async fn expire(hub: Hub) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        hub.sweep_streams(clock::now_ms(), IDLE_MS).await;
        // What is overdue after a downtime is worked off in capped lots.
        while matches!(hub.expire(clock::now_ms(), EXPIRY_CHANNELS_MAX).await, Ok(EXPIRY_CHANNELS_MAX..)) {}
    }
}

async fn collect_files(hub: Hub, orphan_after_ms: u64) {
    let mut ticks = tokio::time::interval(COLLECT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let before_ms = clock::now_ms().saturating_sub(orphan_after_ms);
        while matches!(hub.collect_files(before_ms, COLLECT_FILES_MAX).await, Ok(COLLECT_FILES_MAX..)) {}
    }
}

/// Opens the durable store of a configuration. Also for commands that work on the data directory of a stopped server.
///
/// # Errors
/// The directory is in use, damaged, from a newer build, or cannot be read.
pub fn open_store(config: &Config) -> anyhow::Result<DurableStore> {
    let options = StoreOptions {
        cache_bytes_max: config.store.cache_bytes_max,
        checkpoint_log_bytes_max: config.store.checkpoint_log_bytes_max,
        checkpoint_interval: Duration::from_millis(config.store.checkpoint_interval_ms),
        segment_bytes_max: u32::try_from(config.store.segment_bytes_max).unwrap_or(u32::MAX),
        search: SearchOptions { on: config.search.on, ..SearchOptions::default() },
        ..StoreOptions::new(&config.data_dir)
    };
    let (store, report) = DurableStore::open(options)
        .map_err(anyhow::Error::from)
        .with_context(|| format!("data_dir = {} cannot be opened", config.data_dir.display()))?;
    tracing::info!(
        records_replayed = report.records_replayed,
        view_rebuilt = report.view_rebuilt.as_deref().unwrap_or(""),
        "store open"
    );
    Ok(store)
}

/// Where files lie and what may be uploaded, of a configuration.
pub(crate) fn files_of(config: &Config) -> Files {
    let Config { data_dir, files, .. } = config;
    let limits = FileLimits { on: files.on, bytes_max: files.bytes_max, types: files.type_list() };
    Files::new(data_dir.join("files"), limits)
}

pub(crate) fn hub_limits(config: &Config) -> HubLimits {
    use protocol::ids::ChannelType;
    let of = |channel_type| ChannelTypeLimits { payload_bytes_max: config.limits.payload_bytes_max_of(channel_type) };
    HubLimits {
        person: of(ChannelType::Person),
        group: of(ChannelType::Group),
        customer_service: of(ChannelType::CustomerService),
        connections_per_user_max: config.limits.connections_per_user_max,
        inbox_entries_max: INBOX_ENTRIES_MAX,
        lanes: LaneLimits {
            entries_max: config.lane.entries_max,
            bytes_max: config.lane.bytes_max,
            lanes_max: LANES_MAX,
            person_in_flight_max: config.limits.person.in_flight_max,
            group_in_flight_max: config.limits.group.in_flight_max,
            customer_service_in_flight_max: config.limits.customer_service.in_flight_max,
            group_members_max: config.limits.group.members_max,
            customer_service_members_max: config.limits.customer_service.members_max,
            contacts_only: !config.wukong.whitelist_off_of_person,
        },
        commit: CommitLimits {
            lot_records_max: config.commit.lot_records_max,
            lot_bytes_max: config.commit.lot_bytes_max,
            queue_bytes_max: config.lane.bytes_max,
        },
        outbox: OutboxLimits { bytes_max: config.outbox.bytes_max, entries_max: config.outbox.entries_max },
        slow_close_ms: config.outbox.slow_close_ms,
        watches_max: WATCHES_MAX,
        messages: MessageLimits {
            revoke_within_s: config.messages.revoke_within_s,
            edit_within_s: config.messages.edit_within_s,
            reactions_max: config.messages.reactions_max,
            contacts_only: !config.wukong.whitelist_off_of_person,
        },
    }
}

fn gateway_limits(config: &Config) -> GatewayLimits {
    GatewayLimits {
        frame_bytes_max: config.limits.frame_bytes_max,
        payload_bytes_max: config.limits.payload_bytes_max,
        in_flight_max: u32::try_from(config.limits.in_flight_max).unwrap_or(u32::MAX),
        connections_max: config.limits.connections_max,
        connect_timeout: Duration::from_millis(config.session.connect_timeout_ms),
        idle_timeout_ms: config.session.idle_timeout_ms,
        heartbeat_ms: config.session.heartbeat_ms,
        not_sent_low_water_bytes: config.outbox.not_sent_low_water_bytes,
        flush_interval: Duration::from_micros(config.outbox.flush_interval_us),
        // A control entry is an ack of some 100 bytes on average.
        control_entries_max: (config.outbox.control_bytes_max / 100).max(64),
        rows_max: ROWS_MAX,
        history_max: HISTORY_MAX,
        wukong_encryption: config.wukong.encryption,
        wukong_token_auth: config.wukong.token_auth,
        wukong_blank_system: config.wukong.blank_system_uid,
        proxy_protocol: config.listen.proxy_protocol,
    }
}
