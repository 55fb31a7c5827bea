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
use rustls::pki_types::CertificateDer;
use tokio::runtime::{Handle, Runtime};
use tokio::time::Instant;

use crate::clock;
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
mod running;

use call::Client;
pub use cursor::Failing;
use cursor::{Cursor, Lag, State};
pub use disk::DeadLetter;
use disk::Disk;
use endpoint::{CONFIG_NAME, Change, EndpointSpec, Event};
use presence::{QueueStatus, Watchers};
use running::{LAST_CALLS, Plan, Running};

/// Most endpoints.
pub const ENDPOINTS_MAX: usize = 32;

/// How a message is shown: as the API shows it to its sender, so that the channel_id of a person channel is the receiver
/// (section 15, 35).
pub type ShowMessage = fn(&Message) -> serde_json::Value;

/// How messages are shown to each event that tells of them.
#[derive(Debug, Clone, Copy)]
pub struct Show {
    /// msg.notify: WuKongIM v2 can be told to name no system user there.
    pub notify: ShowMessage,
    /// msg.offline.
    pub offline: ShowMessage,
}

/// What every worker works with.
#[derive(Debug)]
struct Context {
    hub: Hub,
    metrics: Arc<Metrics>,
    client: OnceLock<Client>,
    /// Of `webhook.ca_file`, beside the system's.
    authorities: OnceLock<Vec<CertificateDer<'static>>>,
    disk: Disk,
    show: Show,
    retry_max: Duration,
}

impl Context {
    /// Made at the first call, which reads the system's certificates.
    fn client(&self) -> &Client {
        self.client.get_or_init(|| Client::new(self.authorities.get().map_or(&[], Vec::as_slice)))
    }
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
    pub fn new(hub: Hub, config: &config::Webhook, data_dir: &Path, metrics: Arc<Metrics>, show: Show) -> Self {
        let disk = Disk::new(data_dir);
        let retry_max = Duration::from_millis(config.retry_max_ms);
        let (client, authorities) = (OnceLock::new(), OnceLock::new());
        let context = Arc::new(Context { hub, metrics, client, authorities, disk, show, retry_max });
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

    /// Starts all endpoints: the configuration's and those made by the admin API. `keys`: the signing key of the former, and
    /// those before it that sign too.
    ///
    /// # Errors
    /// An endpoint of the configuration that cannot be called, or files that cannot be used.
    pub async fn start(&self, keys: Vec<String>) -> anyhow::Result<()> {
        let context = &self.inner.context;
        if let Some(file) = self.inner.config.ca_file() {
            // Only the first start of a process finds it empty.
            let _ = context.authorities.set(call::authorities_of(file)?);
        }
        let disk = context.disk.clone();
        let mut specs = tokio::task::spawn_blocking(move || disk.endpoints()).await??;
        specs.retain(|spec| spec.name != CONFIG_NAME);
        if let Some(spec) = EndpointSpec::of_config(&self.inner.config, keys) {
            spec.check().map_err(|refusal| anyhow::anyhow!("the endpoint of webhook.url: {refusal}"))?;
            specs.push(spec);
        }
        context.hub.shared().sessions.watch(self.inner.watchers.clone());
        for spec in specs {
            let name = spec.name.clone();
            let plan = Plan::new(context, &self.inner.config, spec, &[], context.hub.version()).await;
            let plan = plan.map_err(|error| error.context(format!("webhook endpoint {name}")))?;
            self.begin(plan, &self.inner.runtime()?);
        }
        Ok(())
    }

    /// Starts the workers of a new endpoint.
    fn begin(&self, plan: Plan, runtime: &Handle) {
        let running = Running::begin(plan, &self.inner.context, &self.inner.watchers, runtime);
        let spec = &running.spec;
        tracing::info!(
            endpoint = spec.name,
            url = spec.shown_url(),
            signed = spec.secret.is_some(),
            "webhook endpoint"
        );
        self.inner.running.lock().insert(spec.name.clone(), running);
    }

    /// Ends all endpoints: calls in flight get their answers within `left`, positions are written.
    pub async fn drain(&self, left: Duration) {
        let deadline = Instant::now() + left;
        let mut changing = self.inner.changing.lock().await;
        *changing = true;
        let running = std::mem::take(&mut *self.inner.running.lock());
        let mut ends = tokio::task::JoinSet::new();
        for (_, running) in running {
            let inner = self.inner.clone();
            let streams = running.into_streams();
            ends.spawn(async move { running::end(streams, &inner.context, &inner.watchers, deadline).await });
        }
        while ends.join_next().await.is_some() {}
        if let Some(runtime) = self.inner.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }

    /// Leave to change which endpoints there are or what one is: one after the other, and not while the server drains.
    async fn leave_to_change(&self) -> Result<tokio::sync::MutexGuard<'_, bool>, Refusal> {
        let draining = self.inner.changing.lock().await;
        if *draining {
            return Err(Refusal::Draining { retry_after_ms: 2_000 });
        }
        Ok(draining)
    }

    /// Makes an endpoint. It is told from `from` on; `None`: of what comes from now on.
    ///
    /// # Errors
    /// `Invalid` or `TooMany`, or it could not be stored.
    pub async fn create(&self, spec: EndpointSpec, from: Option<Version>) -> Result<EndpointStatus, Refusal> {
        spec.check()?;
        let _leave = self.leave_to_change().await?;
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
        let plan = Plan::new(&self.inner.context, &self.inner.config, spec, &[], from).await;
        let plan = plan.map_err(|error| cannot_be(&name, &error))?;
        let runtime = self.inner.runtime().map_err(|error| cannot_be(&name, &error.into()))?;
        self.put_endpoints(Some(&plan.spec)).await?;
        self.begin(plan, &runtime);
        self.status_of(&name).await
    }

    /// Changes what an endpoint is; its positions stay. An event it is newly told of begins at `from`, `None`: with what
    /// comes from now on; of one it is not told of any more everything kept is removed. What failed is tried again at once.
    ///
    /// # Errors
    /// `NotFound`; `Invalid`, also for the configuration's; it could not be stored, and is as it was.
    pub async fn change(&self, name: &str, change: Change, from: Option<Version>) -> Result<EndpointStatus, Refusal> {
        self.change_spec(name, from, |spec| spec.change(change)).await
    }

    /// Signs an endpoint's calls with another key, beside which the present one signs too until `old_until_ms`, Unix
    /// milliseconds.
    ///
    /// # Errors
    /// As [`Webhooks::change`]; `TooMany` when too many older ones still sign.
    pub async fn rotate(&self, name: &str, secret: String, old_until_ms: u64) -> Result<EndpointStatus, Refusal> {
        self.change_spec(name, None, |spec| spec.rotate(secret, old_until_ms)).await
    }

    /// Ends the time of an endpoint's older keys: calls are signed with the present one only.
    ///
    /// # Errors
    /// As [`Webhooks::change`].
    pub async fn retire(&self, name: &str) -> Result<EndpointStatus, Refusal> {
        self.change_spec(name, None, |spec| spec.old_keys.clear()).await
    }

    async fn change_spec(
        &self,
        name: &str,
        from: Option<Version>,
        change: impl FnOnce(&mut EndpointSpec) + Send,
    ) -> Result<EndpointStatus, Refusal> {
        let _leave = self.leave_to_change().await?;
        let Inner { context, config, watchers, .. } = &*self.inner;
        let before = self.inner.running.lock().get(name).map(|running| running.spec.clone()).ok_or_else(not_found)?;
        if name == CONFIG_NAME {
            return Err(Refusal::invalid("name", "is the configuration's endpoint: change it there"));
        }
        let mut spec = before.clone();
        change(&mut spec);
        spec.forget_old_keys(clock::now_ms());
        spec.check()?;
        let differs = |one: &EndpointSpec, other: &EndpointSpec| -> Vec<Event> {
            one.events.iter().copied().filter(|event| !other.events.contains(event)).collect()
        };
        let (added, gone) = (differs(&spec, &before), differs(&before, &spec));
        // What was left of an event when it was told before is not this one's.
        let of = name.to_owned();
        self.on_disk(move |disk| disk.forget_events(&of, &added)).await?;
        let from = from.unwrap_or_else(|| context.hub.version());
        let plan =
            Plan::new(context, config, spec, &before.events, from).await.map_err(|error| cannot_be(name, &error))?;
        let runtime = self.inner.runtime().map_err(|error| cannot_be(name, &error.into()))?;
        // Positions first, then what the endpoint is, then its workers: a crash between them leaves the old or the new one.
        self.put_endpoints(Some(&plan.spec)).await?;
        let ended = match self.inner.running.lock().get_mut(name) {
            Some(running) => running.change(plan, context, watchers, &runtime),
            None => return Err(not_found()),
        };
        if !gone.is_empty() {
            running::end(ended, context, watchers, Instant::now() + LAST_CALLS).await;
            context.metrics.webhook_removed(name, &gone.iter().map(|event| event.name()).collect::<Vec<_>>());
            let of = name.to_owned();
            self.on_disk(move |disk| disk.forget_events(&of, &gone)).await?;
        }
        self.status_of(name).await
    }

    /// Removes an endpoint and everything kept of it.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` for the configuration's; it could not be stored.
    pub async fn remove(&self, name: &str) -> Result<(), Refusal> {
        let _leave = self.leave_to_change().await?;
        if name == CONFIG_NAME {
            return Err(Refusal::invalid("name", "is the configuration's endpoint: take webhook.url away there"));
        }
        let Some(running) = self.inner.running.lock().remove(name) else { return Err(not_found()) };
        let Inner { context, watchers, .. } = &*self.inner;
        context.metrics.webhook_removed(name, &Event::ALL.map(Event::name));
        // Its calls in flight may end; it was not asked to be told any more.
        running::end(running.into_streams(), context, watchers, Instant::now() + LAST_CALLS).await;
        self.put_endpoints(None).await?;
        let name = name.to_owned();
        self.on_disk(move |disk| disk.forget(&name)).await
    }

    /// Writes what the endpoints are, with one that is new or `changed`.
    async fn put_endpoints(&self, changed: Option<&EndpointSpec>) -> Result<(), Refusal> {
        let mut specs: BTreeMap<String, EndpointSpec> = {
            let running = self.inner.running.lock();
            running.iter().map(|(name, running)| (name.clone(), running.spec.clone())).collect()
        };
        specs.extend(changed.map(|spec| (spec.name.clone(), spec.clone())));
        specs.remove(CONFIG_NAME);
        self.on_disk(move |disk| disk.put_endpoints(specs.into_values().collect())).await
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
        let (mut spec, cursors, sessions) = {
            let running = self.inner.running.lock();
            let found = running.get(name).ok_or_else(not_found)?;
            let cursors: Vec<_> = found.cursors().cloned().collect();
            (found.spec.clone(), cursors, found.sessions().cloned())
        };
        spec.forget_old_keys(clock::now_ms());
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
        let cursors: Vec<_> = found.cursors().filter(wanted).cloned().collect();
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

/// Says in the operator's log why an endpoint cannot be what it was asked to be.
fn cannot_be(name: &str, error: &anyhow::Error) -> Refusal {
    tracing::error!(endpoint = name, error = format!("{error:#}"), "the endpoint cannot be made or changed");
    Refusal::Internal
}

fn not_found() -> Refusal {
    Refusal::NotFound { what: "webhook endpoint" }
}
