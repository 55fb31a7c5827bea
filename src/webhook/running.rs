//! One endpoint at work: per event what it is told from, its worker, and what holds for the worker's calls now.
//!
//! Owns the tasks. Refuses to know files other than through cursors, and who may change an endpoint. Invariant: an endpoint
//! that is changed keeps its cursors, so nothing is told twice or left out for it; its workers read what holds before each
//! call.

use std::sync::Arc;
use std::time::Duration;

use protocol::ids::Version;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Context;
use super::call::Target;
use super::cursor::Cursor;
use super::endpoint::{EndpointSpec, Event, Terms};
use super::notify::Notify;
use super::offline::Offline;
use super::presence::{OnlineStatus, SessionQueue, Watchers};
use crate::config;

/// What holds for the calls of one event.
#[derive(Debug, Clone)]
struct Settings {
    target: Target,
    terms: Terms,
}

/// What holds for the calls of one event now, for its worker.
#[derive(Debug, Clone)]
pub(super) struct Live(watch::Receiver<Settings>);

impl Live {
    /// Where calls go.
    pub fn target(&self) -> Target {
        self.0.borrow().target.clone()
    }

    /// How they are made.
    pub fn terms(&self) -> Terms {
        self.0.borrow().terms.clone()
    }

    /// Returns when something was changed since the last time; never once its endpoint is gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

/// What an event is told from.
#[derive(Debug)]
enum Source {
    Log(Arc<Cursor>),
    Sessions(Arc<SessionQueue>, watch::Sender<bool>),
}

/// One event of an endpoint.
#[derive(Debug)]
pub(super) struct Stream {
    event: Event,
    source: Source,
    settings: watch::Sender<Settings>,
    task: JoinHandle<()>,
}

/// What an endpoint is to be, with everything done that can fail.
#[derive(Debug)]
pub(super) struct Plan {
    /// What it is to be.
    pub spec: EndpointSpec,
    settings: Vec<(Event, Settings)>,
    /// Of logged events that it is newly told of.
    cursors: Vec<Arc<Cursor>>,
    sessions_queue_max: usize,
}

impl Plan {
    /// Prepares what `spec` says. `there`: events it is told of already; the positions of others are read, or begin at `from`.
    ///
    /// # Errors
    /// An address that is none, or a position that cannot be kept.
    pub async fn new(
        context: &Arc<Context>,
        config: &config::Webhook,
        spec: EndpointSpec,
        there: &[Event],
        from: Version,
    ) -> anyhow::Result<Self> {
        let terms = spec.terms(config);
        let (mut settings, mut cursors) = (Vec::new(), Vec::new());
        for event in Event::ALL.into_iter().filter(|event| spec.events.contains(event)) {
            let target = Target::new(&spec, event, terms.timeout)?;
            settings.push((event, Settings { target, terms: terms.clone() }));
            if event.is_logged() && !there.contains(&event) {
                let (context, name) = (context.clone(), spec.name.clone());
                let opened = tokio::task::spawn_blocking(move || Cursor::open(&context, &name, event, from)).await??;
                cursors.push(Arc::new(opened));
            }
        }
        Ok(Self { spec, settings, cursors, sessions_queue_max: terms.sessions_queue_max })
    }
}

/// One endpoint at work.
#[derive(Debug)]
pub(super) struct Running {
    /// What it is.
    pub spec: EndpointSpec,
    streams: Vec<Stream>,
}

impl Running {
    /// Starts the workers of a new endpoint.
    pub fn begin(plan: Plan, context: &Arc<Context>, watchers: &Watchers, runtime: &Handle) -> Self {
        let mut running = Self { spec: plan.spec.clone(), streams: Vec::new() };
        running.become_planned(plan, context, watchers, runtime);
        running
    }

    /// Goes on as planned; what failed is tried again at once. Returns the events it is not told of any more, to be ended.
    #[must_use]
    pub fn change(&mut self, plan: Plan, context: &Arc<Context>, watchers: &Watchers, runtime: &Handle) -> Vec<Stream> {
        let gone = self.streams.extract_if(.., |stream| !plan.spec.events.contains(&stream.event)).collect();
        self.become_planned(plan, context, watchers, runtime);
        gone
    }

    fn become_planned(&mut self, plan: Plan, context: &Arc<Context>, watchers: &Watchers, runtime: &Handle) {
        let Plan { spec, settings, cursors, sessions_queue_max } = plan;
        for (event, now) in settings {
            if let Some(stream) = self.streams.iter().find(|stream| stream.event == event) {
                stream.settings.send_replace(now);
                if let Source::Log(cursor) = &stream.source {
                    cursor.again();
                }
                continue;
            }
            let (settings, live) = watch::channel(now);
            let (context, live, namespace) = (context.clone(), Live(live), spec.namespace.clone());
            let cursor = cursors.iter().find(|cursor| cursor.event == event).cloned();
            let (source, task) = match (event, cursor) {
                (Event::OnlineStatus, _) => {
                    let queue = Arc::new(SessionQueue::new(namespace, sessions_queue_max));
                    let (stop, stopped) = watch::channel(false);
                    let worker =
                        OnlineStatus { context, queue: queue.clone(), live, name: spec.name.clone(), stop: stopped };
                    watchers.add(queue.clone());
                    (Source::Sessions(queue, stop), runtime.spawn(worker.run()))
                }
                (Event::Notify, Some(cursor)) => {
                    let worker = Notify { context, cursor: cursor.clone(), live, namespace };
                    (Source::Log(cursor), runtime.spawn(worker.run()))
                }
                (Event::Offline, Some(cursor)) => {
                    let worker = Offline { context, cursor: cursor.clone(), live, namespace };
                    (Source::Log(cursor), runtime.spawn(worker.run()))
                }
                // A plan has a cursor for every logged event that was not there.
                (Event::Notify | Event::Offline, None) => continue,
            };
            self.streams.push(Stream { event, source, settings, task });
        }
        self.streams.sort_by_key(|stream| stream.event);
        self.spec = spec;
    }

    /// Its cursors, in the order of [`Event::ALL`].
    pub fn cursors(&self) -> impl Iterator<Item = &Arc<Cursor>> {
        self.streams.iter().filter_map(|stream| match &stream.source {
            Source::Log(cursor) => Some(cursor),
            Source::Sessions(..) => None,
        })
    }

    /// Its queue of sessions, when it is told of them.
    pub fn sessions(&self) -> Option<&Arc<SessionQueue>> {
        self.streams.iter().find_map(|stream| match &stream.source {
            Source::Sessions(queue, _) => Some(queue),
            Source::Log(_) => None,
        })
    }

    /// What is left when it goes, to be ended.
    pub fn into_streams(self) -> Vec<Stream> {
        self.streams
    }
}

/// Lets calls in flight end, up to `deadline`, and writes positions.
pub(super) async fn end(mut streams: Vec<Stream>, context: &Context, watchers: &Watchers, deadline: Instant) {
    for stream in &streams {
        match &stream.source {
            Source::Log(cursor) => cursor.stop(),
            Source::Sessions(queue, stop) => {
                watchers.remove(queue);
                stop.send_replace(true);
            }
        }
    }
    for stream in &mut streams {
        if tokio::time::timeout_at(deadline, &mut stream.task).await.is_err() {
            stream.task.abort();
            let _ = (&mut stream.task).await;
        }
        if let Source::Log(cursor) = &stream.source
            && let Err(error) = cursor.keep(context).await
        {
            tracing::warn!(
                event = stream.event.name(),
                %error,
                "a webhook's position was not written; a restart repeats calls"
            );
        }
    }
}

/// How long an event's calls in flight may take to end when it is told no more.
pub(super) const LAST_CALLS: Duration = Duration::from_secs(1);
