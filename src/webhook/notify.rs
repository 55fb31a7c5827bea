//! msg.notify: stored messages, in the order they were stored, up to a bound per call, one call at a time.
//!
//! A call that failed is made again with the same messages. When the endpoint goes on refusing what it answers, calls get
//! smaller, down to the one message it cannot take; what it takes lets them grow again.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::ids::Version;
use tokio::time::Instant;

use super::call::{Failure, backoff, chance};
use super::cursor::{Ahead, Cursor};
use super::endpoint::Event;
use super::running::Live;
use super::{Context, body};
use crate::clock;
use crate::domain::message::Message;
use crate::hub::LoggedMessage;

/// Answers other than 200 after which a call is made with half of the messages.
const SPLIT_AFTER: u32 = 3;

/// The worker of one endpoint.
pub(super) struct Notify {
    pub context: Arc<Context>,
    pub cursor: Arc<Cursor>,
    pub live: Live,
    pub namespace: Option<String>,
}

/// What failed so far of the messages at the front.
#[derive(Default)]
struct Trouble {
    /// Failures in a row.
    failures: u32,
    /// Of those, with an endpoint that was there, since the number of messages changed.
    answered: u32,
}

impl Notify {
    /// Tells until the server drains.
    pub async fn run(self) {
        let mut ahead = Ahead::default();
        let mut size = self.live.terms().batch_max;
        let mut trouble = Trouble::default();
        let mut last_call: Option<Instant> = None;
        let mut begun_in = None;
        while let Some(turn) = self.cursor.next(&self.context, &mut ahead).await {
            let turn = Some(turn);
            if begun_in != turn {
                (size, trouble, begun_in) = (self.live.terms().batch_max, Trouble::default(), turn);
            }
            let is_full = ahead.queue.len() >= size || !ahead.is_all();
            if let Some(wait) = last_call.map(|at| self.live.terms().push_interval.saturating_sub(at.elapsed()))
                && !is_full
                && wait > Duration::ZERO
                && trouble.failures == 0
            {
                if self.cursor.wait(turn, wait).await {
                    // More may have come; the same messages stay at the front.
                    self.cursor.read_on(&self.context, &mut ahead).await;
                } else {
                    continue;
                }
            }
            let batch = ahead.first(size, self.live.terms().batch_bytes_max);
            last_call = Some(Instant::now());
            let failure = match self.tell(&batch).await {
                Ok(()) => {
                    let Some(last) = batch.last() else { continue };
                    if self.cursor.advance(turn, last.version, batch.len()) {
                        ahead.queue.drain(..batch.len());
                        self.cursor.is_well(Version::ZERO);
                        (trouble, size) = (Trouble::default(), (size * 2).min(self.live.terms().batch_max));
                    }
                    continue;
                }
                Err(failure) => failure,
            };
            trouble.failures += 1;
            trouble.answered += u32::from(failure.may_be_the_content());
            // The next call is made with the same messages.
            size = batch.len().max(1);
            let max = self.live.terms().dead_after_attempts;
            if size == 1 && max > 0 && trouble.answered >= max && self.park(&batch, trouble.answered, &failure).await {
                if let Some(last) = batch.last()
                    && self.cursor.advance(turn, last.version, 1)
                {
                    ahead.queue.drain(..1);
                    self.cursor.is_well(Version::ZERO);
                    trouble = Trouble::default();
                }
                continue;
            }
            if size > 1 && trouble.answered >= SPLIT_AFTER {
                (size, trouble.answered) = (size.div_ceil(2), 0);
            }
            let wait = backoff(trouble.failures, self.live.terms().retry_max, chance());
            self.cursor.failed(Version::ZERO, trouble.failures, &failure, wait);
            self.cursor.wait(turn, wait).await;
        }
    }

    async fn messages(&self, batch: &[LoggedMessage]) -> Result<Vec<Message>, Failure> {
        let read = self.context.hub.messages_of(batch.to_vec()).await;
        let mut messages =
            read.map_err(|refusal| Failure::Unreachable(format!("the messages cannot be read: {refusal}")))?;
        messages.retain(|message| message.channel.namespace() == self.namespace.as_deref());
        Ok(messages)
    }

    async fn tell(&self, batch: &[LoggedMessage]) -> Result<(), Failure> {
        let messages = self.messages(batch).await?;
        if messages.is_empty() {
            return Ok(());
        }
        let shown: Vec<_> = messages.iter().map(self.context.show.notify).collect();
        let body = body::notify(&shown).map_err(|error| Failure::Unreachable(error.to_string()))?;
        self.call(body).await
    }

    async fn call(&self, body: Bytes) -> Result<(), Failure> {
        let now_s = clock::now_ms() / 1_000;
        let outcome = self.context.client().call(&self.live.target(), Event::Notify, body, now_s).await;
        self.cursor.called(&self.context, outcome.is_err());
        outcome
    }

    async fn park(&self, batch: &[LoggedMessage], attempts: u32, failure: &Failure) -> bool {
        match self.messages(batch).await.as_deref() {
            Ok([message]) => self.cursor.park(&self.context, message, attempts, &failure.to_string()).await,
            _ => false,
        }
    }
}
