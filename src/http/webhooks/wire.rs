//! What the administration of webhooks reads and writes, field for field.

use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::http::extract::null_is_zero;
use crate::webhook::endpoint::Event;
use crate::webhook::{DeadLetter, EndpointStatus, StreamStatus};

/// One event of an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookStream {
    /// `msg.notify`, `msg.offline` or `user.onlinestatus`.
    pub event: &'static str,
    /// Version (= message_id) of the last message that is done. Absent for `user.onlinestatus`, which is not of the log.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Version of the log's end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<u64>,
    /// Messages behind the position; changes that wait for `user.onlinestatus`.
    pub lag_messages: u64,
    /// `true`: there are more than were counted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub lag_is_more: bool,
    /// Age of the first message behind the position, in milliseconds.
    pub lag_ms: u64,
    /// An operator stopped it.
    pub paused: bool,
    /// The position could not be read at the start, and why: nothing is told until a rewind says from where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lost: Option<String>,
    /// Changes of sessions that were given up since the start.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dropped: Option<u64>,
    /// Calls since the start.
    pub attempts: u64,
    /// Calls that were not answered with 200.
    pub failures: u64,
    /// Messages or changes told since the start.
    pub told: u64,
    /// Why it does not get on. Absent: it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing: Option<WebhookFailing>,
}

/// Why an endpoint does not get on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookFailing {
    /// Since when, Unix milliseconds.
    pub since_ms: u64,
    /// Attempts in a row that failed.
    pub attempts: u32,
    /// The last reason.
    pub error: String,
    /// When it is tried again, Unix milliseconds.
    pub next_ms: u64,
}

/// A signing key that was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookOldKey {
    /// When it signs no more, Unix milliseconds. Absent: when the configuration names it no more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
}

/// An endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookBody {
    /// What it is called; `config`: the configuration's.
    pub name: String,
    /// Where calls go; a query is not shown.
    pub url: String,
    /// What it is told of.
    pub events: Vec<&'static str>,
    /// Whether its calls are signed.
    pub signed: bool,
    /// Keys before the present one that sign too.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub old_keys: Vec<WebhookOldKey>,
    /// The namespace it is told of.
    pub namespace: Option<String>,
    /// Messages or lines per call. Absent, as for those below: what the configuration says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_max: Option<usize>,
    /// About the bytes of messages per call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub batch_bytes_max: Option<usize>,
    /// Shortest time between calls that are not full.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub push_interval_ms: Option<u64>,
    /// Longest call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
    /// Each of its events.
    pub streams: Vec<WebhookStream>,
}

/// All endpoints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookList {
    /// 200.
    pub status: u16,
    /// By name.
    pub webhooks: Vec<WebhookBody>,
}

/// One endpoint and, when that was made just now, its signing key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookAnswer {
    /// 200.
    pub status: u16,
    /// The endpoint.
    #[serde(flatten)]
    pub webhook: WebhookBody,
    /// The signing key. It is shown now and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
}

/// What a new endpoint is to be.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookCreate {
    /// What it is called: 1 to 40 of `a-z`, `0-9`, `-`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub name: String,
    /// `http://…` or `https://…`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub url: String,
    /// Some of `msg.notify`, `msg.offline`, `user.onlinestatus`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub events: Vec<String>,
    /// The key to sign calls with, 16 to 500 bytes. Absent: one is made.
    #[serde(default)]
    pub secret: Option<String>,
    /// The namespace it is told of. Absent: the default one.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Messages above this version are told; 0: all that the log holds. Absent: what comes from now on.
    #[serde(default)]
    pub from_version: Option<u64>,
    /// Messages or lines per call. Absent, as for those below: what the configuration says.
    #[serde(default)]
    pub batch_max: Option<usize>,
    /// About the bytes of messages per call.
    #[serde(default)]
    pub batch_bytes_max: Option<usize>,
    /// Shortest time between calls that are not full.
    #[serde(default)]
    pub push_interval_ms: Option<u64>,
    /// Longest call.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

/// What is to be different about an endpoint. What is absent stays as it is.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookEdit {
    /// `http://…` or `https://…`, whole: an address that was shown lacks its query.
    #[serde(default)]
    pub url: Option<String>,
    /// Some of `msg.notify`, `msg.offline`, `user.onlinestatus`.
    #[serde(default)]
    pub events: Option<Vec<String>>,
    /// Of an event it was not told of before, messages above this version are told; 0: all that the log holds. Absent: what
    /// comes from now on.
    #[serde(default)]
    pub from_version: Option<u64>,
    /// Messages or lines per call. `null`, as for those below: what the configuration says.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<usize>)]
    pub batch_max: Option<Option<usize>>,
    /// About the bytes of messages per call.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<usize>)]
    pub batch_bytes_max: Option<Option<usize>>,
    /// Shortest time between calls that are not full.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>)]
    pub push_interval_ms: Option<Option<u64>>,
    /// Longest call.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>)]
    pub timeout_ms: Option<Option<u64>>,
}

/// What stands in the body, `null` too.
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

/// How a signing key is replaced.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookRotate {
    /// The new key, 16 to 500 bytes; naming the present one changes nothing. Absent: one is made.
    #[serde(default)]
    pub secret: Option<String>,
    /// How long the present key signs too, at most 30 days; 0: no more, as for a key that others know. Absent: a day.
    #[serde(default)]
    pub overlap_ms: Option<u64>,
}

/// Which of an endpoint's events.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookWhich {
    /// `msg.notify` or `msg.offline`. Absent: both.
    #[serde(default)]
    pub event: Option<String>,
}

/// Where to move to.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookRewind {
    /// `msg.notify` or `msg.offline`. Absent: both.
    #[serde(default)]
    pub event: Option<String>,
    /// Messages above this version are told, again if they were. 0: all that the log holds; above its end: none of them.
    pub version: u64,
}

/// What to leave out.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct WebhookSkip {
    /// `msg.notify` or `msg.offline`. Absent: both.
    #[serde(default)]
    pub event: Option<String>,
    /// How many messages are not told, at most 10,000.
    pub messages: usize,
}

/// A message that an endpoint would not take.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookDead {
    /// `msg.notify` or `msg.offline`.
    pub event: &'static str,
    /// Its id, which is its version.
    pub message_id: u64,
    /// Its channel, as its sender knows it.
    pub channel_id: String,
    /// 1 person, 2 group, 3 customer service.
    pub channel_type: u8,
    /// Its place there.
    pub message_seq: u64,
    /// Attempts made.
    pub attempts: u32,
    /// Why the last one did not count.
    pub error: String,
    /// When it was parked, Unix milliseconds.
    pub parked_at_ms: u64,
}

/// What was parked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookDeadList {
    /// 200.
    pub status: u16,
    /// By event, oldest first.
    pub dead: Vec<WebhookDead>,
}

/// Nothing but that it was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct WebhookDone {
    /// 200.
    pub status: u16,
}

fn stream(status: &StreamStatus) -> WebhookStream {
    let logged = status.logged.as_ref();
    WebhookStream {
        event: status.event.name(),
        position: logged.map(|logged| logged.position.get()),
        head: logged.map(|logged| logged.head.get()),
        lag_messages: logged.map_or(status.waiting, |logged| logged.lag_messages),
        lag_is_more: logged.is_some_and(|logged| logged.lag_is_more),
        lag_ms: logged.map_or(0, |logged| logged.lag_ms),
        paused: logged.is_some_and(|logged| logged.paused),
        lost: logged.and_then(|logged| logged.lost.clone()),
        dropped: logged.is_none().then_some(status.dropped),
        attempts: status.attempts,
        failures: status.failures,
        told: status.told,
        failing: status.failing.as_ref().map(|failing| WebhookFailing {
            since_ms: failing.since_ms,
            attempts: failing.attempts,
            error: failing.error.clone(),
            next_ms: failing.next_ms,
        }),
    }
}

/// An endpoint as it is shown.
pub(super) fn shown(endpoint: &EndpointStatus) -> WebhookBody {
    let spec = &endpoint.spec;
    WebhookBody {
        name: spec.name.clone(),
        url: spec.shown_url(),
        events: spec.events.iter().map(|event| event.name()).collect(),
        signed: spec.secret.is_some(),
        old_keys: spec.old_keys.iter().map(|key| WebhookOldKey { until_ms: key.until_ms }).collect(),
        namespace: spec.namespace.clone(),
        batch_max: spec.batch_max,
        batch_bytes_max: spec.batch_bytes_max,
        push_interval_ms: spec.push_interval_ms,
        timeout_ms: spec.timeout_ms,
        streams: endpoint.streams.iter().map(stream).collect(),
    }
}

/// A parked message as it is shown.
pub(super) fn dead((event, letter): (Event, DeadLetter)) -> WebhookDead {
    WebhookDead {
        event: event.name(),
        message_id: letter.message_id,
        channel_id: letter.channel_id,
        channel_type: letter.channel_type,
        message_seq: letter.message_seq,
        attempts: letter.attempts,
        error: letter.error,
        parked_at_ms: letter.parked_at_ms,
    }
}
