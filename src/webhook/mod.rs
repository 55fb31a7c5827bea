//! Webhooks: back ends are told of messages and sessions by HTTP calls (wukongim-http.md section 10).
//!
//! Owns endpoints, how far each was told, the calls and their repeats. Knows the hub's handle and the domain's words; refuses
//! to know the store, the API listener, and how a message is shown (it is given that).
//!
//! Invariants:
//! - **at least once, in channel order**: what comes from the log (msg.notify, msg.offline) is followed by a cursor per
//!   endpoint and event; it passes a message only when that was answered with 200, parked or skipped.
//! - **slows nobody**: the committer and the shards only wake whoever waits. What waits lies in the log, not in memory; memory
//!   per endpoint is a page of places, one batch, and a bounded queue of sessions.
//! - **best effort for sessions**: user.onlinestatus comes from memory and says so.
//!
//! Page: `docs/webhooks.md`. Why a file and no record: `docs/decisions/0019-webhooks.md`.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;
use protocol::ids::Version;
use tokio::runtime::{Handle, Runtime};
use tokio::task::JoinHandle;

use crate::config;
use crate::domain::message::Message;
use crate::domain::refusal::Refusal;
use crate::hub::Hub;
use crate::metrics::Metrics;

mod body;
pub mod call;
mod cursor;
mod disk;
pub mod endpoint;
mod notify;
mod offline;
mod presence;

use call::{Client, Target};
pub use cursor::Failing;
use cursor::{Cursor, Lag, State};
pub use disk::DeadLetter;
use disk::Disk;
use endpoint::{CONFIG_NAME, EndpointSpec, Event};
use presence::{OnlineStatus, QueueStatus, SessionQueue, Watchers};

/// Most endpoints.
pub const ENDPOINTS_MAX: usize = 32;

/// How a message is shown: as the API shows it to its sender, so that the channel_id of a person channel is the receiver
/// (section 15, 35).
pub type ShowMessage = fn(&Message) -> serde_json::Value;

/// What every worker works with.
#[derive(Debug)]
struct Context {
    hub: Hub,
    metrics: Arc<Metrics>,
    client: OnceLock<Client>,
    disk: Disk,
    show: ShowMessage,
    retry_max: Duration,
}

impl Context {
    /// Made at the first call, which reads the system's certificates.
    fn client(&self) -> &Client {
        self.client.get_or_init(Client::with_system_roots)
    }
}

/// One endpoint at work.
#[derive(Debug)]
struct Running {
    spec: EndpointSpec,
    cursors: Vec<Arc<Cursor>>,
    sessions: Option<Arc<SessionQueue>>,
    stop: tokio::sync::watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

/// The handle of the room. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Webhooks {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    context: Arc<Context>,
    config: config::Webhook,
    watchers: Arc<Watchers>,
    running: Mutex<BTreeMap<String, Running>>,
    /// Made with the first endpoint. Its own, because looking up a name takes a blocking thread for as long as it takes, and
    /// those of the server answer questions to the store.
    runtime: Mutex<Option<Runtime>>,
    /// Endpoints are made and removed one after the other; `true`: the server drains, nothing is made any more.
    changing: tokio::sync::Mutex<bool>,
}

/// What an operator sees of one event of an endpoint.
#[derive(Debug, Clone)]
pub struct StreamStatus {
    /// Which.
    pub event: Event,
    /// Of a logged event: how far it is.
    pub logged: Option<LoggedStatus>,
    /// Changes of sessions that wait, and those given up; 0 for logged events.
    pub waiting: u64,
    /// See `waiting`.
    pub dropped: u64,
    /// Calls since the start.
    pub attempts: u64,
    /// Calls that did not count.
    pub failures: u64,
    /// Messages or changes told since the start.
    pub told: u64,
    /// Why it does not get on, when it does not.
    pub failing: Option<Failing>,
}

/// How far a logged event is.
#[derive(Debug, Clone)]
pub struct LoggedStatus {
    /// Everything up to here is done.
    pub position: Version,
    /// The log's last version.
    pub head: Version,
    /// Messages behind the position that were counted.
    pub lag_messages: u64,
    /// There are more than were counted.
    pub lag_is_more: bool,
    /// How old the first of them is, in milliseconds; 0: there is none.
    pub lag_ms: u64,
    /// An operator stopped it.
    pub paused: bool,
    /// Its position was lost: nothing is told until an operator says from where.
    pub lost: Option<String>,
}

/// What an operator sees of an endpoint.
#[derive(Debug, Clone)]
pub struct EndpointStatus {
    /// What it is.
    pub spec: EndpointSpec,
    /// In the order of [`Event::ALL`].
    pub streams: Vec<StreamStatus>,
}

impl Inner {
    fn runtime(&self) -> std::io::Result<Handle> {
        let mut runtime = self.runtime.lock();
        if let Some(runtime) = runtime.as_ref() {
            return Ok(runtime.handle().clone());
        }
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let made =
            builder.worker_threads(1).max_blocking_threads(8).thread_name("chinwag-hooks").enable_all().build()?;
        Ok(runtime.insert(made).handle().clone())
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // Dropped as it is it would wait for its threads, which async code must not.
        if let Some(runtime) = self.runtime.get_mut().take() {
            runtime.shutdown_background();
        }
    }
}

impl Webhooks {
    /// Without an endpoint yet. Nothing is read or begun.
    pub fn new(hub: Hub, config: &config::Webhook, data_dir: &Path, metrics: Arc<Metrics>, show: ShowMessage) -> Self {
        let disk = Disk::new(data_dir);
        let retry_max = Duration::from_millis(config.retry_max_ms);
        let context = Arc::new(Context { hub, metrics, client: OnceLock::new(), disk, show, retry_max });
        let inner = Inner {
            context,
            config: config.clone(),
            watchers: Arc::default(),
            running: Mutex::default(),
            runtime: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Starts all endpoints: the configuration's and those made by the admin API. `secret`: the signing key of the former.
    ///
    /// # Errors
    /// An endpoint of the configuration that cannot be called, or files that cannot be used.
    pub async fn start(&self, secret: Option<String>) -> anyhow::Result<()> {
        let context = &self.inner.context;
        let disk = context.disk.clone();
        let mut specs = tokio::task::spawn_blocking(move || disk.endpoints()).await??;
        specs.retain(|spec| spec.name != CONFIG_NAME);
        if let Some(spec) = EndpointSpec::of_config(&self.inner.config, secret) {
            spec.check().map_err(|refusal| anyhow::anyhow!("the endpoint of webhook.url: {refusal}"))?;
            specs.push(spec);
        }
        context.hub.shared().sessions.watch(self.inner.watchers.clone());
        for spec in specs {
            let name = spec.name.clone();
            let begun = self.begin(spec, context.hub.version()).await;
            begun.map_err(|error| error.context(format!("webhook endpoint {name}")))?;
        }
        Ok(())
    }

    /// Opens the cursors of an endpoint and starts its workers.
    async fn begin(&self, spec: EndpointSpec, from: Version) -> anyhow::Result<()> {
        let inner = &self.inner;
        let terms = spec.terms(&inner.config);
        let runtime = inner.runtime()?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let mut running = Running { spec, cursors: Vec::new(), sessions: None, stop, tasks: Vec::new() };
        let spec = &running.spec;
        for event in Event::ALL.into_iter().filter(|event| spec.events.contains(event)) {
            let target = Target::new(&spec.url, event, spec.secret.as_deref(), terms.timeout)?;
            let (context, terms, namespace) = (inner.context.clone(), terms.clone(), spec.namespace.clone());
            if event == Event::OnlineStatus {
                let queue = Arc::new(SessionQueue::new(namespace, terms.sessions_queue_max));
                running.sessions = Some(queue.clone());
                let (name, stop) = (spec.name.clone(), stopped.clone());
                let worker = OnlineStatus { context, queue, target, terms, name, stop };
                running.tasks.push(runtime.spawn(worker.run()));
                continue;
            }
            let (opened, name) = (context.clone(), spec.name.clone());
            let cursor =
                tokio::task::spawn_blocking(move || Cursor::open(&opened, &name, event, from)).await?.map(Arc::new)?;
            running.cursors.push(cursor.clone());
            running.tasks.push(if event == Event::Notify {
                runtime.spawn(notify::Notify { context, cursor, target, terms, namespace }.run())
            } else {
                runtime.spawn(offline::Offline { context, cursor, target, terms, namespace }.run())
            });
        }
        if let Some(queue) = &running.sessions {
            inner.watchers.add(queue.clone());
        }
        tracing::info!(
            endpoint = running.spec.name,
            url = running.spec.shown_url(),
            signed = running.spec.secret.is_some(),
            "webhook endpoint"
        );
        inner.running.lock().insert(running.spec.name.clone(), running);
        Ok(())
    }

    /// Lets an endpoint finish its calls, up to `deadline`, and writes its positions.
    async fn end(&self, mut running: Running, deadline: tokio::time::Instant) {
        let context = &self.inner.context;
        if let Some(queue) = &running.sessions {
            self.inner.watchers.remove(queue);
        }
        running.stop.send_replace(true);
        running.cursors.iter().for_each(|cursor| cursor.stop());
        for task in &mut running.tasks {
            if tokio::time::timeout_at(deadline, &mut *task).await.is_err() {
                task.abort();
                let _ = task.await;
            }
        }
        for cursor in &running.cursors {
            if let Err(error) = cursor.keep(context).await {
                tracing::warn!(endpoint = running.spec.name, %error, "the position was not written; a restart repeats calls");
            }
        }
    }

    /// Ends all endpoints: calls in flight get their answers within `left`, positions are written.
    pub async fn drain(&self, left: Duration) {
        let deadline = tokio::time::Instant::now() + left;
        let mut changing = self.inner.changing.lock().await;
        *changing = true;
        let running = std::mem::take(&mut *self.inner.running.lock());
        let mut ends = tokio::task::JoinSet::new();
        for (_, running) in running {
            let webhooks = self.clone();
            ends.spawn(async move { webhooks.end(running, deadline).await });
        }
        while ends.join_next().await.is_some() {}
        if let Some(runtime) = self.inner.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    /// Makes an endpoint. It is told from `from` on; `None`: of what comes from now on.
    ///
    /// # Errors
    /// `Invalid` or `TooMany`, or it could not be stored.
    pub async fn create(&self, spec: EndpointSpec, from: Option<Version>) -> Result<EndpointStatus, Refusal> {
        spec.check()?;
        let draining = self.inner.changing.lock().await;
        if *draining {
            return Err(Refusal::Draining { retry_after_ms: 2_000 });
        }
        if spec.name == CONFIG_NAME {
            return Err(Refusal::invalid("name", "is the name of the configuration's endpoint"));
        }
        {
            let running = self.inner.running.lock();
            if running.contains_key(&spec.name) {
                return Err(Refusal::invalid("name", "is taken"));
            }
            if running.len() >= ENDPOINTS_MAX {
                return Err(Refusal::TooMany { what: "webhook endpoints", max: ENDPOINTS_MAX });
            }
        }
        let (name, from) = (spec.name.clone(), from.unwrap_or_else(|| self.inner.context.hub.version()));
        // What an endpoint of this name left behind a crash is not this one's.
        self.on_disk(move |disk| disk.forget(&name)).await?;
        let name = spec.name.clone();
        self.begin(spec, from).await.map_err(|error| {
            tracing::error!(endpoint = name, %error, "the endpoint cannot be made");
            Refusal::Internal
        })?;
        self.put_endpoints().await?;
        self.status_of(&name).await
    }

    /// Removes an endpoint and everything kept of it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for the configuration's; it could not be stored.
    pub async fn remove(&self, name: &str) -> Result<(), Refusal> {
        let draining = self.inner.changing.lock().await;
        if *draining {
            return Err(Refusal::Draining { retry_after_ms: 2_000 });
        }
        if name == CONFIG_NAME {
            return Err(Refusal::invalid("name", "is the configuration's endpoint: take webhook.url away there"));
        }
        let Some(running) = self.inner.running.lock().remove(name) else { return Err(not_found()) };
        self.inner.context.metrics.webhook_removed(name, &Event::ALL.map(Event::name));
        // Its calls in flight may end; it was not asked to be told any more.
        self.end(running, tokio::time::Instant::now() + Duration::from_secs(1)).await;
        self.put_endpoints().await?;
        let name = name.to_owned();
        self.on_disk(move |disk| disk.forget(&name)).await
    }

    async fn put_endpoints(&self) -> Result<(), Refusal> {
        let specs = {
            let running = self.inner.running.lock();
            running.values().map(|running| running.spec.clone()).filter(|spec| spec.name != CONFIG_NAME).collect()
        };
        self.on_disk(move |disk| disk.put_endpoints(specs)).await
    }

    async fn on_disk(
        &self,
        work: impl FnOnce(&Disk) -> Result<(), disk::DiskError> + Send + 'static,
    ) -> Result<(), Refusal> {
        let disk = self.inner.context.disk.clone();
        let done = tokio::task::spawn_blocking(move || work(&disk)).await;
        let done = done.map_err(|_| Refusal::Internal)?;
        done.map_err(|error| {
            tracing::error!(%error, "a file of webhooks cannot be used");
            Refusal::Internal
        })
    }

    /// All endpoints by name, with where they are.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn status(&self) -> Result<Vec<EndpointStatus>, Refusal> {
        let names: Vec<String> = self.inner.running.lock().keys().cloned().collect();
        let mut all = Vec::with_capacity(names.len());
        for name in names {
            match self.status_of(&name).await {
                // Removed meanwhile.
                Err(Refusal::NotFound { .. }) => {}
                found => all.push(found?),
            }
        }
        Ok(all)
    }

    /// One endpoint, with where it is.
    ///
    /// # Errors
    /// `NotFound`, or the log cannot be read.
    pub async fn status_of(&self, name: &str) -> Result<EndpointStatus, Refusal> {
        let (spec, cursors, sessions) = {
            let running = self.inner.running.lock();
            let found = running.get(name).ok_or_else(not_found)?;
            (found.spec.clone(), found.cursors.clone(), found.sessions.clone())
        };
        let mut streams = Vec::new();
        for cursor in cursors {
            let State { position, paused, failing, attempts, failures, told, lost, .. } = cursor.state();
            let Lag { messages: lag_messages, is_more: lag_is_more, age_ms: lag_ms } =
                cursor.lag(&self.inner.context).await?;
            let failing = failing.into_values().next();
            let head = self.inner.context.hub.version();
            let logged = LoggedStatus { position, head, lag_messages, lag_is_more, lag_ms, paused, lost };
            let (event, logged) = (cursor.event, Some(logged));
            streams.push(StreamStatus { event, logged, waiting: 0, dropped: 0, attempts, failures, told, failing });
        }
        if let Some(queue) = sessions {
            let QueueStatus { waiting, dropped, told, attempts, failures, failing } = queue.status();
            let (event, waiting) = (Event::OnlineStatus, waiting as u64);
            streams.push(StreamStatus { event, logged: None, waiting, dropped, attempts, failures, told, failing });
        }
        Ok(EndpointStatus { spec, streams })
    }

    /// Copies lags and positions into the metrics.
    pub async fn refresh_metrics(&self) {
        let metrics = &self.inner.context.metrics;
        let Ok(all) = self.status().await else { return };
        for endpoint in all {
            for stream in endpoint.streams {
                let (lag, lag_ms, position) = stream.logged.map_or((stream.waiting, 0, 0), |logged| {
                    (logged.lag_messages, logged.lag_ms, logged.position.get())
                });
                metrics.webhook_stands(&endpoint.spec.name, stream.event.name(), lag, lag_ms / 1_000, position);
            }
        }
    }

    /// The cursors of an endpoint an operator means: those of one event, or all.
    fn cursors(&self, name: &str, event: Option<Event>) -> Result<Vec<Arc<Cursor>>, Refusal> {
        let running = self.inner.running.lock();
        let found = running.get(name).ok_or_else(not_found)?;
        let wanted = |cursor: &&Arc<Cursor>| event.is_none_or(|event| cursor.event == event);
        let cursors: Vec<_> = found.cursors.iter().filter(wanted).cloned().collect();
        if cursors.is_empty() {
            return Err(Refusal::invalid("event", "is none that this endpoint follows in the log"));
        }
        Ok(cursors)
    }

    /// Moves an endpoint's positions to a version, back or forth; above the log's end means its end. What lies behind it is
    /// told, again if it was before.
    ///
    /// # Errors
    /// `NotFound`, `Invalid` event, or it could not be written.
    pub async fn seek(&self, name: &str, event: Option<Event>, to: Version) -> Result<(), Refusal> {
        for cursor in self.cursors(name, event)? {
            cursor.seek(&self.inner.context, to).await?;
        }
        Ok(())
    }

    /// Moves an endpoint's positions over the next `count` messages, which are not told.
    ///
    /// # Errors
    /// As [`Webhooks::seek`], and the log cannot be read.
    pub async fn skip(&self, name: &str, event: Option<Event>, count: usize) -> Result<(), Refusal> {
        for cursor in self.cursors(name, event)? {
            let page = self.inner.context.hub.logged_after(cursor.state().position, count).await?;
            if let Some(last) = page.messages.last() {
                cursor.seek(&self.inner.context, last.version).await?;
            }
        }
        Ok(())
    }

    /// Stops or goes on.
    ///
    /// # Errors
    /// As [`Webhooks::seek`].
    pub async fn pause(&self, name: &str, event: Option<Event>, paused: bool) -> Result<(), Refusal> {
        for cursor in self.cursors(name, event)? {
            cursor.pause(&self.inner.context, paused).await?;
        }
        Ok(())
    }

    /// What was parked, oldest first, with the event it was of.
    ///
    /// # Errors
    /// `NotFound`, or the file cannot be read.
    pub async fn dead(&self, name: &str) -> Result<Vec<(Event, DeadLetter)>, Refusal> {
        let mut all = Vec::new();
        for cursor in self.cursors(name, None)? {
            let dead = cursor.dead(&self.inner.context).await?;
            all.extend(dead.into_iter().map(|letter| (cursor.event, letter)));
        }
        Ok(all)
    }

    /// Forgets what was parked and returns how much that was.
    ///
    /// # Errors
    /// As [`Webhooks::dead`].
    pub async fn clear_dead(&self, name: &str) -> Result<usize, Refusal> {
        let mut count = 0;
        for cursor in self.cursors(name, None)? {
            count += cursor.clear_dead(&self.inner.context).await?;
        }
        Ok(count)
    }
}

fn not_found() -> Refusal {
    Refusal::NotFound { what: "webhook endpoint" }
}
