//! A cursor: how far one endpoint was told of one logged event, and what an operator may do about it.
//!
//! Owns the position and its file. Refuses to know what a call looks like ([`super::notify`], [`super::offline`]).
//! Invariants: the position rises only over messages that were answered with 200, need no telling, or were parked or skipped;
//! what an operator moves wins over work begun before. The file is written at most once a second while
//! messages are told, and before an operator is answered: a crash repeats what the file does not say.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use protocol::ids::Version;
use tokio::sync::watch;

use super::Context;
use super::disk::{DeadLetter, DiskError, Kept};
use super::endpoint::Event;
use crate::clock;
use crate::domain::message::Message;
use crate::domain::refusal::Refusal;
use crate::hub::LoggedMessage;

/// How often the position is written while it moves.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Entries of the log read ahead, 24 bytes each.
const AHEAD: usize = 4_096;
/// Messages counted at once for a lag; the next question counts on.
pub const LAG_COUNTED_MAX: u64 = 100_000;
/// Places read at a time to count.
const COUNT_PAGE: usize = 8_192;
/// Most parked messages; beyond it the stream waits for an operator.
pub const DEAD_MAX: usize = 10_000;

/// Why a stream does not get on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failing {
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Attempts in a row that failed.
    pub attempts: u32,
    /// The last reason.
    pub error: String,
    /// When the next attempt is made, Unix milliseconds.
    pub next_ms: u64,
}

/// What is known of a stream.
#[derive(Debug, Clone)]
pub struct State {
    /// Everything up to here is done.
    pub position: Version,
    /// An operator stopped it.
    pub paused: bool,
    /// What does not get on: by the message, or zero for all that come next. Cleared when that went well.
    pub failing: BTreeMap<Version, Failing>,
    /// Calls made since the start.
    pub attempts: u64,
    /// Calls that did not count.
    pub failures: u64,
    /// Messages told since the start.
    pub told: u64,
    /// The position file could not be used: nothing is told until an operator says from where.
    pub lost: Option<String>,
    /// How often an operator moved the position.
    moved: u64,
    /// Messages were told since the file was written.
    unwritten: bool,
    written_at: Instant,
}

/// One endpoint's way through the log for one event.
#[derive(Debug)]
pub struct Cursor {
    /// Of which event.
    pub event: Event,
    name: String,
    state: Mutex<State>,
    /// Another with everything an operator does; `None`: the server drains.
    turn: watch::Sender<Option<Turn>>,
    /// One writer of its files at a time.
    writing: tokio::sync::Mutex<()>,
    counted: tokio::sync::Mutex<Option<Counted>>,
}

/// How far behind a stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lag {
    /// Messages that were counted.
    pub messages: u64,
    /// There are more.
    pub is_more: bool,
    /// How old the first of them is, in milliseconds; 0: there is none.
    pub age_ms: u64,
}

/// What was counted last, and when: messages up to `reached` that were not told.
#[derive(Debug, Clone, Copy)]
struct Counted {
    moved: u64,
    told: u64,
    reached: Version,
    count: u64,
}

/// A stretch of work between two things an operator did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    number: u64,
    /// How often the position was moved before it.
    moved: u64,
}

/// What a worker holds between two looks at its cursor.
#[derive(Debug, Default)]
pub struct Ahead {
    /// Messages that are not told yet, oldest first.
    pub queue: VecDeque<LoggedMessage>,
    /// The log was looked at up to here.
    reached: Version,
    /// There is more behind it.
    more: bool,
    /// The turn it was read in.
    turn: Option<Turn>,
}

impl Ahead {
    /// Whether everything that was in the log is in the queue.
    #[must_use]
    pub fn is_all(&self) -> bool {
        !self.more
    }

    /// The first messages: at most `max`, of about `bytes_max` together, at least one when there is one.
    #[must_use]
    pub fn first(&self, max: usize, bytes_max: usize) -> Vec<LoggedMessage> {
        let mut bytes = 0;
        let fits = |message: &&LoggedMessage| {
            let is_first = bytes == 0;
            bytes += (message.bytes as usize).max(1);
            is_first || bytes <= bytes_max
        };
        self.queue.iter().take(max).take_while(fits).copied().collect()
    }
}

impl Cursor {
    /// The cursor of an endpoint, from its file; a new one begins at `from`. A position above the log's end is of a log
    /// that was restored to an earlier state: everything the log holds was told.
    pub fn open(context: &Context, name: &str, event: Event, from: Version) -> Result<Self, DiskError> {
        let end = context.hub.version();
        let (kept, lost) = match context.disk.kept(name, event) {
            Ok(Some(kept)) => (kept, None),
            Ok(None) => {
                let kept = Kept { position: from.min(end), paused: false };
                context.disk.keep(name, event, kept)?;
                (kept, None)
            }
            Err(error) => {
                tracing::error!(endpoint = name, event = event.name(), %error, "how far this endpoint was told is not known");
                (Kept { position: end, paused: false }, Some(error.to_string()))
            }
        };
        if kept.position > end {
            tracing::warn!(
                endpoint = name,
                event = event.name(),
                position = kept.position.get(),
                end = end.get(),
                "this endpoint was told of more than the log holds; it goes on from the log's end"
            );
        }
        let state = State {
            position: kept.position.min(end),
            paused: kept.paused,
            failing: BTreeMap::new(),
            attempts: 0,
            failures: 0,
            told: 0,
            lost,
            moved: 0,
            unwritten: false,
            written_at: Instant::now(),
        };
        Ok(Self {
            event,
            name: name.to_owned(),
            state: Mutex::new(state),
            turn: watch::channel(Some(Turn { number: 0, moved: 0 })).0,
            writing: tokio::sync::Mutex::default(),
            counted: tokio::sync::Mutex::default(),
        })
    }

    /// What is known now.
    pub fn state(&self) -> State {
        self.state.lock().clone()
    }

    /// Begins the end: calls in flight are answered, nothing new is begun.
    pub fn stop(&self) {
        self.turn.send_replace(None);
    }

    /// The present turn; `None`: the server drains.
    pub fn turn(&self) -> Option<Turn> {
        *self.turn.borrow()
    }

    /// Returns when `turn` is over.
    pub async fn over(&self, turn: Option<Turn>) {
        let mut turns = self.turn.subscribe();
        // The sender lives as long as `self`.
        let _ = turns.wait_for(|now| *now != turn || now.is_none()).await;
    }

    fn next_turn(&self, moved: u64) {
        self.turn.send_modify(|turn| *turn = turn.map(|turn| Turn { number: turn.number + 1, moved }));
    }

    /// Moves the position, forth or back. A stream that had lost it goes on.
    ///
    /// # Errors
    /// The position could not be written; it holds until the next start.
    pub async fn seek(&self, context: &Context, to: Version) -> Result<Version, Refusal> {
        let to = to.min(context.hub.version());
        {
            let mut state = self.state.lock();
            state.position = to;
            state.failing.clear();
            state.lost = None;
            state.moved += 1;
            self.next_turn(state.moved);
        }
        self.keep(context).await.map_err(refuse)?;
        Ok(to)
    }

    /// Stops or goes on.
    ///
    /// # Errors
    /// It could not be written; it holds until the next start.
    pub async fn pause(&self, context: &Context, paused: bool) -> Result<(), Refusal> {
        self.state.lock().paused = paused;
        self.again();
        self.keep(context).await.map_err(refuse)
    }

    /// What was tried in vain is tried again at once: the endpoint is not what it was.
    pub fn again(&self) {
        let mut state = self.state.lock();
        state.failing.clear();
        self.next_turn(state.moved);
    }

    /// Writes the position.
    ///
    /// # Errors
    /// I/O.
    pub async fn keep(&self, context: &Context) -> Result<(), DiskError> {
        let _one = self.writing.lock().await;
        let kept = {
            let mut state = self.state.lock();
            state.unwritten = false;
            state.written_at = Instant::now();
            if state.lost.is_some() {
                return Ok(());
            }
            Kept { position: state.position, paused: state.paused }
        };
        let (disk, name, event) = (context.disk.clone(), self.name.clone(), self.event);
        let written = tokio::task::spawn_blocking(move || disk.keep(&name, event, kept)).await;
        let written = written.unwrap_or(Ok(()));
        if written.is_err() {
            self.state.lock().unwritten = true;
        }
        written
    }

    /// Writes the position when it has moved and it is time to.
    async fn keep_if_due(&self, context: &Context) {
        let due = {
            let state = self.state.lock();
            state.unwritten && state.written_at.elapsed() >= KEEP_INTERVAL
        };
        if due && let Err(error) = self.keep(context).await {
            tracing::warn!(endpoint = self.name, %error, "the position was not written; a restart repeats calls");
        }
    }

    /// Raises the position over `told` messages, which were told in this turn or need no telling. What was answered before
    /// a pause or a drain counts. `false`: the position was moved meanwhile.
    pub fn advance(&self, turn: Option<Turn>, to: Version, told: usize) -> bool {
        let mut state = self.state.lock();
        if turn.is_none_or(|turn| turn.moved != state.moved) {
            return false;
        }
        state.position = state.position.max(to);
        state.told += told as u64;
        state.unwritten |= told > 0;
        true
    }

    /// Counts a call.
    pub fn called(&self, context: &Context, failed: bool) {
        context.metrics.webhook_called(&self.name, self.event.name(), failed);
        let mut state = self.state.lock();
        state.attempts += 1;
        state.failures += u64::from(failed);
    }

    /// What `about` says went well: a message, or zero for all that come next.
    pub fn is_well(&self, about: Version) {
        let mut state = self.state.lock();
        if state.failing.remove(&about).is_some() && state.failing.is_empty() {
            tracing::info!(endpoint = self.name, event = self.event.name(), "endpoint takes events again");
        }
    }

    /// Notes a failure and how long it waits. The operator's log hears of the first.
    pub fn failed(&self, about: Version, attempts: u32, error: &dyn std::fmt::Display, wait: Duration) {
        let now_ms = clock::now_ms();
        let error = error.to_string();
        let mut state = self.state.lock();
        if state.failing.is_empty() {
            tracing::warn!(
                endpoint = self.name,
                event = self.event.name(),
                error,
                "endpoint does not take events, trying again"
            );
        }
        let since_ms = state.failing.get(&about).map_or(now_ms, |failing| failing.since_ms);
        let next_ms = now_ms.saturating_add(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX));
        state.failing.insert(about, Failing { since_ms, attempts, error, next_ms });
    }

    /// How far behind it is. Counts what came since the last time, and at most [`LAG_COUNTED_MAX`] messages at once, so that
    /// asking often costs little however far behind it is.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn lag(&self, context: &Context) -> Result<Lag, Refusal> {
        let mut counted = self.counted.lock().await;
        let (position, told, moved) = {
            let state = self.state.lock();
            (state.position, state.told, state.moved)
        };
        let mut now = match *counted {
            Some(last) if last.moved == moved && last.reached >= position => {
                Counted { count: last.count.saturating_sub(told - last.told), told, ..last }
            }
            _ => Counted { moved, told, reached: position, count: 0 },
        };
        let limit = now.count.saturating_add(LAG_COUNTED_MAX);
        let mut more = true;
        while more && now.count < limit {
            let page = context.hub.logged_after(now.reached, COUNT_PAGE).await?;
            now.count += page.messages.len() as u64;
            now.reached = page.reached;
            more = page.more;
        }
        *counted = Some(now);
        drop(counted);
        let first = context.hub.logged_after(position, 1).await?.messages.first().map(|message| message.version);
        let age_ms = first.map_or(0, |first| clock::now_ms().saturating_sub(first.unix_ms()));
        Ok(Lag { messages: now.count, is_more: more, age_ms })
    }

    /// Waits, unless the turn ends before. `false`: it has ended.
    pub async fn wait(&self, turn: Option<Turn>, time: Duration) -> bool {
        tokio::select! {
            biased;
            () = self.over(turn) => false,
            () = tokio::time::sleep(time) => true,
        }
    }

    /// Waits until there is something to tell and `ahead` holds it. Returns the turn it belongs to; `None`: the server drains.
    pub async fn next(&self, context: &Context, ahead: &mut Ahead) -> Option<Turn> {
        let mut attempts = 0;
        loop {
            let turn = self.turn();
            turn?;
            let state = self.state();
            if ahead.turn != turn {
                *ahead = Ahead { reached: state.position, more: true, turn, ..Ahead::default() };
                attempts = 0;
            }
            self.keep_if_due(context).await;
            if state.paused || state.lost.is_some() {
                self.over(turn).await;
                continue;
            }
            if !ahead.queue.is_empty() {
                return turn;
            }
            match context.hub.logged_after(ahead.reached, AHEAD).await {
                Ok(page) => {
                    if attempts > 0 {
                        self.is_well(Version::ZERO);
                        attempts = 0;
                    }
                    ahead.queue = page.messages.into();
                    ahead.reached = page.reached;
                    ahead.more = page.more;
                }
                Err(refusal) => {
                    attempts += 1;
                    let wait = super::call::backoff(attempts, context.retry_max, super::call::chance());
                    self.failed(Version::ZERO, attempts, &format_args!("the log cannot be read: {refusal}"), wait);
                    self.wait(turn, wait).await;
                    continue;
                }
            }
            if ahead.queue.is_empty() {
                self.advance(turn, ahead.reached, 0);
                if !ahead.more {
                    self.idle(context, turn, ahead.reached).await;
                }
            }
        }
    }

    /// Takes what was stored since the log was looked at, as far as there is room.
    pub async fn read_on(&self, context: &Context, ahead: &mut Ahead) {
        if ahead.more || ahead.queue.len() >= AHEAD {
            return;
        }
        // An error is met again, and told, once the queue is empty.
        if let Ok(page) = context.hub.logged_after(ahead.reached, AHEAD - ahead.queue.len()).await {
            ahead.queue.extend(page.messages);
            ahead.reached = page.reached;
            ahead.more = page.more;
        }
    }

    /// Waits for the committer, the operator, or the time to write the position.
    async fn idle(&self, context: &Context, turn: Option<Turn>, reached: Version) {
        let unwritten = self.state.lock().unwritten;
        let due = async {
            match unwritten {
                true => tokio::time::sleep(KEEP_INTERVAL).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.over(turn) => {}
            () = context.hub.committed_after(reached) => {}
            () = due => {}
        }
    }

    /// Parks a message. `false`: it could not be, and so is not over.
    pub async fn park(&self, context: &Context, message: &Message, attempts: u32, error: &str) -> bool {
        let letter = DeadLetter {
            message_id: message.message_id.get(),
            channel_id: message.channel.id_for(message.from_uid.as_str()).to_owned(),
            channel_type: message.channel.channel_type().to_wire(),
            message_seq: message.message_seq.get(),
            attempts,
            error: error.to_owned(),
            parked_at_ms: clock::now_ms(),
        };
        let parked = self.change_dead(context, move |dead| {
            // A crash between parking and the position's file parks it once more.
            dead.retain(|known| known.message_id != letter.message_id);
            if dead.len() >= DEAD_MAX {
                return Err(format!("{DEAD_MAX} messages are parked: look at them and clear them"));
            }
            dead.push(letter);
            Ok(())
        });
        match parked.await {
            Ok(Ok(())) => {
                context.metrics.webhook_parked(&self.name, self.event.name());
                tracing::warn!(
                    endpoint = self.name,
                    event = self.event.name(),
                    message.id = message.message_id.get(),
                    error,
                    "message parked"
                );
                true
            }
            Ok(Err(full)) => {
                tracing::warn!(endpoint = self.name, full, "message not parked");
                false
            }
            Err(error) => {
                tracing::warn!(endpoint = self.name, %error, "message not parked");
                false
            }
        }
    }

    /// What was parked, oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub async fn dead(&self, context: &Context) -> Result<Vec<DeadLetter>, Refusal> {
        let _one = self.writing.lock().await;
        let (disk, name, event) = (context.disk.clone(), self.name.clone(), self.event);
        let read = tokio::task::spawn_blocking(move || disk.dead(&name, event)).await;
        read.unwrap_or(Ok(Vec::new())).map_err(refuse)
    }

    /// Forgets what was parked and returns how much that was.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub async fn clear_dead(&self, context: &Context) -> Result<usize, Refusal> {
        self.change_dead(context, |dead| std::mem::take(dead).len()).await.map_err(refuse)
    }

    async fn change_dead<T: Send + 'static>(
        &self,
        context: &Context,
        change: impl FnOnce(&mut Vec<DeadLetter>) -> T + Send + 'static,
    ) -> Result<T, DiskError> {
        let _one = self.writing.lock().await;
        let (disk, name, event) = (context.disk.clone(), self.name.clone(), self.event);
        let changed = tokio::task::spawn_blocking(move || {
            let mut dead = disk.dead(&name, event)?;
            let answer = change(&mut dead);
            disk.put_dead(&name, event, dead)?;
            Ok(answer)
        });
        match changed.await {
            Ok(changed) => changed,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

/// What cannot be written or read is the operator's to see in the log, the caller hears that it was not done.
fn refuse(error: DiskError) -> Refusal {
    tracing::error!(%error, "a file of webhooks cannot be used");
    Refusal::Internal
}
