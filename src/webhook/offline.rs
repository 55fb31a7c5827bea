//! msg.offline: a message and who of its channel was not there when the cursor passed it.
//!
//! One message per call, as the reference has it; a large group makes several. Messages of one channel go one after the
//! other, channels side by side. Who is offline is asked right before each attempt.
//! Nothing is sent for a message that nobody missed, nor for one that was taken back or has expired meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use protocol::ids::Version;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::call::{Failure, backoff, chance};
use super::cursor::{Ahead, Cursor, Turn};
use super::endpoint::Event;
use super::running::Live;
use super::{Context, body};
use crate::clock;
use crate::domain::message::{Message, MessageState};
use crate::hub::{ChannelNo, LoggedMessage};

/// Messages whose calls are under way or waiting for each other, at most.
const WINDOW_MAX: usize = 256;

/// The worker of one endpoint.
#[derive(Clone)]
pub(super) struct Offline {
    pub context: Arc<Context>,
    pub cursor: Arc<Cursor>,
    pub live: Live,
    pub namespace: Option<String>,
}

/// Which messages of a window are over; the position follows the first ones.
struct Window {
    messages: Vec<LoggedMessage>,
    over: Vec<bool>,
    /// How many from the front the position has passed.
    passed: usize,
}

impl Offline {
    /// Tells until the server drains.
    pub async fn run(self) {
        let mut ahead = Ahead::default();
        while let Some(turn) = self.cursor.next(&self.context, &mut ahead).await {
            let turn = Some(turn);
            let batch = ahead.first(WINDOW_MAX, self.live.terms().batch_bytes_max);
            let messages = match self.context.hub.messages_of(batch.clone()).await {
                Ok(messages) => {
                    self.cursor.is_well(Version::ZERO);
                    messages
                }
                Err(refusal) => {
                    let wait = backoff(1, self.live.terms().retry_max, chance());
                    self.cursor.failed(Version::ZERO, 1, &format_args!("the messages cannot be read: {refusal}"), wait);
                    self.cursor.wait(turn, wait).await;
                    continue;
                }
            };
            let window = self.tell(turn, batch, messages).await;
            // What is over behind something that is not is left out of the next window of this turn.
            let mut over = window.over.into_iter();
            ahead.queue.retain(|_| !over.next().unwrap_or(false));
        }
    }

    /// Makes the calls of a window, until all are over or the turn ends.
    async fn tell(&self, turn: Option<Turn>, batch: Vec<LoggedMessage>, messages: Vec<Message>) -> Window {
        let window =
            Arc::new(Mutex::new(Window { over: vec![false; batch.len()], messages: batch.clone(), passed: 0 }));
        let mut lanes: BTreeMap<ChannelNo, Vec<(usize, Message)>> = BTreeMap::new();
        for (i, (logged, message)) in batch.into_iter().zip(messages).enumerate() {
            lanes.entry(logged.channel).or_default().push((i, message));
        }
        let permits = Arc::new(Semaphore::new(self.live.terms().parallel_max));
        let mut tasks = JoinSet::new();
        for (_, lane) in lanes {
            let (worker, window, permits) = (self.clone(), window.clone(), permits.clone());
            tasks.spawn(async move {
                for (i, message) in lane {
                    if !worker.tell_one(turn, &message, &permits).await {
                        return;
                    }
                    worker.passed(turn, &window, i);
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a call of msg.offline panicked");
            }
        }
        let mut window = window.lock();
        std::mem::replace(&mut *window, Window { messages: Vec::new(), over: Vec::new(), passed: 0 })
    }

    /// Message `i` of the window is over.
    fn passed(&self, turn: Option<Turn>, window: &Mutex<Window>, i: usize) {
        let mut window = window.lock();
        window.over[i] = true;
        let before = window.passed;
        while window.over.get(window.passed) == Some(&true) {
            window.passed += 1;
        }
        if window.passed > before {
            self.cursor.advance(turn, window.messages[window.passed - 1].version, window.passed - before);
        }
    }

    /// Tells of one message. `false`: the turn ended before that was done.
    async fn tell_one(&self, turn: Option<Turn>, message: &Message, permits: &Semaphore) -> bool {
        if message.state != MessageState::Live || message.channel.namespace() != self.namespace.as_deref() {
            return true;
        }
        let mut absent = None;
        let (mut failures, mut answered, mut told) = (0, 0, 0);
        let shown = (self.context.show.offline)(message);
        loop {
            // A failed call gives its permit back while it waits, so that one channel holds up no other.
            let outcome = {
                let Ok(_permit) = permits.acquire().await else { return false };
                if self.cursor.turn() != turn {
                    return false;
                }
                // Behind a first call the others of this message must speak of the same users.
                if told == 0 {
                    let (key, from) = (message.channel.clone(), message.from_uid.clone());
                    absent = self.context.hub.absent(key, from, self.live.terms().absent).await.ok();
                }
                match &absent {
                    Some(uids) => {
                        let mut outcome = Ok(());
                        for chunk in uids.chunks(self.live.terms().uids_per_call_max).skip(told) {
                            if self.cursor.turn() != turn {
                                return false;
                            }
                            let uids: Vec<&str> = chunk.iter().map(|uid| uid.bare()).collect();
                            outcome = match body::offline(&shown, &uids, self.live.terms().compress_above) {
                                Ok(body) => self.call(body).await,
                                Err(error) => Err(Failure::Unreachable(error.to_string())),
                            };
                            if outcome.is_err() {
                                break;
                            }
                            told += 1;
                        }
                        outcome
                    }
                    None => Err(Failure::Unreachable("the members cannot be read".to_owned())),
                }
            };
            let failure = match outcome {
                Ok(()) => {
                    self.cursor.is_well(message.message_id);
                    return true;
                }
                Err(failure) => failure,
            };
            failures += 1;
            answered += u32::from(failure.may_be_the_content());
            let max = self.live.terms().dead_after_attempts;
            if max > 0
                && answered >= max
                && self.cursor.park(&self.context, message, answered, &failure.to_string()).await
            {
                self.cursor.is_well(message.message_id);
                return true;
            }
            let wait = backoff(failures, self.live.terms().retry_max, chance());
            self.cursor.failed(message.message_id, failures, &failure, wait);
            if !self.cursor.wait(turn, wait).await {
                return false;
            }
        }
    }

    async fn call(&self, body: bytes::Bytes) -> Result<(), Failure> {
        let now_s = clock::now_ms() / 1_000;
        let outcome = self.context.client().call(&self.live.target(), Event::Offline, body, now_s).await;
        self.cursor.called(&self.context, outcome.is_err());
        outcome
    }
}
