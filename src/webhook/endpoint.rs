//! An endpoint: what an operator says about it, checked once.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config;
use crate::domain::namespace::Namespace;
use crate::domain::refusal::Refusal;
use crate::hub::follow::Absent;

/// The name of the endpoint that the configuration makes.
pub const CONFIG_NAME: &str = "config";
/// Longest name of an endpoint, in bytes: it is part of file names and of labels.
pub const NAME_BYTES_MAX: usize = 40;
/// Stands for the query of an address that is shown.
const HIDDEN_QUERY: &str = "?…";
/// Longest address, in bytes.
const URL_BYTES_MAX: usize = 2_000;
/// Shortest and longest signing key, in bytes.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 16..=500;
/// Most keys that sign beside the present one.
pub const OLD_KEYS_MAX: usize = 3;

/// What an endpoint may be told of (wukongim-http.md section 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Event {
    /// Every stored message.
    #[serde(rename = "msg.notify")]
    Notify,
    /// A stored message, with who was offline.
    #[serde(rename = "msg.offline")]
    Offline,
    /// Sessions that came and went.
    #[serde(rename = "user.onlinestatus")]
    OnlineStatus,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Notify, Self::Offline, Self::OnlineStatus];

    /// Its name in addresses, files, labels and settings.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Notify => "msg.notify",
            Self::Offline => "msg.offline",
            Self::OnlineStatus => "user.onlinestatus",
        }
    }

    /// The event of this name.
    ///
    /// # Errors
    /// `Invalid` about `events`.
    pub fn of(name: &str) -> Result<Self, Refusal> {
        let found = Self::ALL.into_iter().find(|event| event.name() == name);
        found.ok_or_else(|| {
            let all = Self::ALL.map(Self::name).join(", ");
            Refusal::invalid("events", format_args!("holds {name:?}, which is none of {all}"))
        })
    }

    /// Whether it is derived from the log, so that it has a position there and survives everything.
    #[must_use]
    pub fn is_logged(self) -> bool {
        self != Self::OnlineStatus
    }
}

/// A signing key that was replaced and signs beside its successor, so that a receiver changes over when it likes.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OldKey {
    /// The key.
    pub secret: String,
    /// Unix milliseconds from which on it signs no more; `None`: as long as it is named.
    #[serde(default)]
    pub until_ms: Option<u64>,
}

impl OldKey {
    /// Whether it signs a call made at this time, Unix milliseconds.
    #[must_use]
    pub fn signs_at(&self, now_ms: u64) -> bool {
        self.until_ms.is_none_or(|until| now_ms < until)
    }
}

/// What is to be different about an endpoint; `None`: it stays as it is. Of a number `Some(None)`: what the configuration says.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// As [`EndpointSpec::url`].
    pub url: Option<String>,
    /// As [`EndpointSpec::events`].
    pub events: Option<Vec<Event>>,
    /// As [`EndpointSpec::batch_max`].
    pub batch_max: Option<Option<usize>>,
    /// As [`EndpointSpec::batch_bytes_max`].
    pub batch_bytes_max: Option<Option<usize>>,
    /// As [`EndpointSpec::push_interval_ms`].
    pub push_interval_ms: Option<Option<u64>>,
    /// As [`EndpointSpec::timeout_ms`].
    pub timeout_ms: Option<Option<u64>>,
}

/// What an endpoint is, as it is stored. Absent numbers are those of the configuration.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// What it is called: 1 to 40 of `a-z`, `0-9`, `-`.
    pub name: String,
    /// `http://…` or `https://…`.
    pub url: String,
    /// What it is told of; at least one, each once.
    pub events: Vec<Event>,
    /// The key its calls are signed with; `None`: they are not.
    #[serde(default)]
    pub secret: Option<String>,
    /// Keys before it that sign too, oldest first; at most [`OLD_KEYS_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub old_keys: Vec<OldKey>,
    /// The namespace whose events it is told of; `None`: the default one.
    #[serde(default)]
    pub namespace: Option<String>,
    /// Messages or lines per call.
    #[serde(default)]
    pub batch_max: Option<usize>,
    /// About the bytes of messages per call.
    #[serde(default)]
    pub batch_bytes_max: Option<usize>,
    /// Shortest time between calls that are not full, in milliseconds.
    #[serde(default)]
    pub push_interval_ms: Option<u64>,
    /// Longest call, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
}

impl std::fmt::Debug for EndpointSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let url = self.shown_url();
        f.debug_struct("EndpointSpec")
            .field("name", &self.name)
            .field("url", &url)
            .field("events", &self.events)
            .finish_non_exhaustive()
    }
}

impl EndpointSpec {
    /// The endpoint of the configuration, when it names one. `keys`: the signing key, wherever it was given, and those
    /// before it that sign too.
    #[must_use]
    pub fn of_config(config: &config::Webhook, keys: Vec<String>) -> Option<Self> {
        let events = config.event_list();
        let mut keys = keys.into_iter();
        let secret = keys.next();
        let spec = Self {
            name: CONFIG_NAME.to_owned(),
            url: config.url.clone(),
            events: Event::ALL.into_iter().filter(|event| events.iter().any(|name| name == event.name())).collect(),
            secret,
            old_keys: keys.map(|secret| OldKey { secret, until_ms: None }).collect(),
            namespace: (!config.namespace.is_empty()).then(|| config.namespace.clone()),
            batch_max: None,
            batch_bytes_max: None,
            push_interval_ms: None,
            timeout_ms: None,
        };
        (!spec.url.is_empty()).then_some(spec)
    }

    /// Checks everything that can be checked without calling it.
    ///
    /// # Errors
    /// `Invalid`, naming the field.
    pub fn check(&self) -> Result<(), Refusal> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if self.name.is_empty() || self.name.len() > NAME_BYTES_MAX || !self.name.chars().all(is_plain) {
            return Err(Refusal::invalid("name", format_args!("is not 1 to {NAME_BYTES_MAX} of a-z, 0-9 and -")));
        }
        if self.url.len() > URL_BYTES_MAX {
            return Err(Refusal::TooLarge { field: "url", bytes: self.url.len(), max: URL_BYTES_MAX });
        }
        if self.url.ends_with(HIDDEN_QUERY) {
            return Err(Refusal::invalid("url", "is as it is shown, without its query: give the whole address"));
        }
        let parsed: Result<http::Uri, _> = self.url.parse();
        let has_host = |uri: &http::Uri| uri.host().is_some_and(|host| !host.is_empty());
        match parsed {
            Ok(uri) if matches!(uri.scheme_str(), Some("http" | "https")) && has_host(&uri) => {
                if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                    return Err(Refusal::invalid("url", "holds a user or password: calls are signed instead"));
                }
            }
            _ => return Err(Refusal::invalid("url", "is not an http:// or https:// address")),
        }
        if self.events.is_empty() {
            return Err(Refusal::invalid("events", "is empty: name at least one"));
        }
        if self
            .secret
            .iter()
            .chain(self.old_keys.iter().map(|key| &key.secret))
            .any(|key| !SECRET_BYTES.contains(&key.len()))
        {
            let (min, max) = (SECRET_BYTES.start(), SECRET_BYTES.end());
            return Err(Refusal::invalid("secret", format_args!("is not {min} to {max} bytes")));
        }
        if self.old_keys.len() > OLD_KEYS_MAX {
            return Err(Refusal::TooMany { what: "signing keys beside the present one", max: OLD_KEYS_MAX });
        }
        if let Some(namespace) = &self.namespace {
            Namespace::new(namespace)?;
        }
        let in_range = |field: &'static str, value: Option<u64>, key: &'static str| {
            let range = config::keys::find(key).map(|key| key.kind);
            match (value, range) {
                (Some(value), Some(config::keys::Kind::Number { min, max })) if !(min..=max).contains(&value) => {
                    Err(Refusal::invalid(field, format_args!("is not {min} to {max}")))
                }
                _ => Ok(()),
            }
        };
        in_range("batch_max", self.batch_max.map(|n| n as u64), "webhook.batch_max")?;
        in_range("batch_bytes_max", self.batch_bytes_max.map(|n| n as u64), "webhook.batch_bytes_max")?;
        in_range("push_interval_ms", self.push_interval_ms, "webhook.push_interval_ms")?;
        in_range("timeout_ms", self.timeout_ms, "webhook.timeout_ms")
    }

    /// The address without its query, which may hold a credential.
    #[must_use]
    pub fn shown_url(&self) -> String {
        match self.url.split_once('?') {
            Some((before, _)) => format!("{before}{HIDDEN_QUERY}"),
            None => self.url.clone(),
        }
    }

    /// Becomes what is asked for. To be checked after that.
    pub fn change(&mut self, change: Change) {
        let Change { url, events, batch_max, batch_bytes_max, push_interval_ms, timeout_ms } = change;
        self.url = url.unwrap_or_else(|| std::mem::take(&mut self.url));
        self.events = events.unwrap_or_else(|| std::mem::take(&mut self.events));
        self.batch_max = batch_max.unwrap_or(self.batch_max);
        self.batch_bytes_max = batch_bytes_max.unwrap_or(self.batch_bytes_max);
        self.push_interval_ms = push_interval_ms.unwrap_or(self.push_interval_ms);
        self.timeout_ms = timeout_ms.unwrap_or(self.timeout_ms);
    }

    /// Signs with another key from now on, and with the present one too until then (Unix milliseconds). Asked for the key it
    /// has it stays as it is: a request that is made twice changes nothing more.
    pub fn rotate(&mut self, secret: String, old_until_ms: u64) {
        if self.secret.as_ref() == Some(&secret) {
            return;
        }
        self.old_keys.retain(|old| old.secret != secret);
        let before = self.secret.replace(secret);
        self.old_keys.extend(before.map(|secret| OldKey { secret, until_ms: Some(old_until_ms) }));
    }

    /// Forgets the keys that sign no more at this time, Unix milliseconds.
    pub fn forget_old_keys(&mut self, now_ms: u64) {
        self.old_keys.retain(|key| key.signs_at(now_ms));
    }

    /// What holds for its calls.
    #[must_use]
    pub fn terms(&self, config: &config::Webhook) -> Terms {
        Terms {
            batch_max: self.batch_max.unwrap_or(config.batch_max).max(1),
            batch_bytes_max: self.batch_bytes_max.unwrap_or(config.batch_bytes_max),
            push_interval: Duration::from_millis(self.push_interval_ms.unwrap_or(config.push_interval_ms)),
            timeout: Duration::from_millis(self.timeout_ms.unwrap_or(config.timeout_ms)),
            retry_max: Duration::from_millis(config.retry_max_ms),
            dead_after_attempts: config.dead_after_attempts,
            parallel_max: config.parallel_max.max(1),
            absent: if config.offline_when == "no_session" { Absent::NoSession } else { Absent::NoMaster },
            uids_per_call_max: config.uids_per_call_max.max(1),
            compress_above: config.compress_above,
            sessions_queue_max: config.sessions_queue_max.max(1),
        }
    }
}

/// What holds for the calls of one endpoint.
#[derive(Debug, Clone)]
pub struct Terms {
    /// Messages or lines per call.
    pub batch_max: usize,
    /// About the bytes of messages per call.
    pub batch_bytes_max: usize,
    /// Shortest time between calls that are not full.
    pub push_interval: Duration,
    /// Longest call.
    pub timeout: Duration,
    /// Longest wait between two attempts.
    pub retry_max: Duration,
    /// Attempts after which a message alone is parked; 0: never.
    pub dead_after_attempts: u32,
    /// Calls of msg.offline at once.
    pub parallel_max: usize,
    /// Who is offline.
    pub absent: Absent,
    /// Uids per call of msg.offline.
    pub uids_per_call_max: usize,
    /// More uids than this are compressed; 0: never.
    pub compress_above: usize,
    /// Changes of sessions that wait.
    pub sessions_queue_max: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> EndpointSpec {
        let config = config::Webhook { url: "https://example.test/hook?key=x".into(), ..config::Webhook::default() };
        EndpointSpec::of_config(&config, Vec::new()).expect("a url makes an endpoint")
    }

    #[test]
    fn what_is_wrong_with_an_endpoint_is_named() {
        assert!(EndpointSpec::of_config(&config::Webhook::default(), Vec::new()).is_none());
        spec().check().expect("sound");
        type Wrong = fn(&mut EndpointSpec);
        let wrong: [(&str, Wrong); 13] = [
            ("name", |s| s.name.clear()),
            ("name", |s| s.name = "A".into()),
            ("name", |s| s.name = "../x".into()),
            ("url", |s| s.url = "ftp://example.test".into()),
            ("url", |s| s.url = "http://".into()),
            ("url", |s| s.url = "/hook".into()),
            ("url", |s| s.url = "http://u:p@example.test/".into()),
            ("url", |s| s.url = s.shown_url()),
            ("events", |s| s.events.clear()),
            ("secret", |s| s.secret = Some("short".into())),
            ("namespace", |s| s.namespace = Some("a@b".into())),
            ("batch_max", |s| s.batch_max = Some(0)),
            ("timeout_ms", |s| s.timeout_ms = Some(1)),
        ];
        for (field, change) in wrong {
            let mut spec = spec();
            change(&mut spec);
            let refusal = spec.check().expect_err(field);
            assert!(
                matches!(&refusal, Refusal::Invalid { field: named, .. } if *named == field),
                "{field}: {refusal:?}"
            );
        }
    }

    #[test]
    fn a_query_is_not_shown() {
        assert_eq!(spec().shown_url(), "https://example.test/hook?…");
        assert!(!format!("{:?}", spec()).contains("key=x"));
    }

    #[test]
    fn a_change_leaves_what_it_does_not_name() {
        let mut spec = EndpointSpec { batch_max: Some(7), timeout_ms: Some(900), ..spec() };
        let before = spec.clone();
        spec.change(Change::default());
        assert!(spec == before);
        spec.change(Change {
            url: Some("http://b.test".into()),
            events: Some(vec![Event::Offline]),
            batch_max: Some(None),
            push_interval_ms: Some(Some(5)),
            ..Change::default()
        });
        assert_eq!((spec.url.as_str(), spec.events.as_slice()), ("http://b.test", &[Event::Offline][..]));
        assert_eq!((spec.batch_max, spec.push_interval_ms, spec.timeout_ms), (None, Some(5), Some(900)));
    }

    #[test]
    fn a_key_that_was_replaced_signs_until_its_time() {
        let key = |n: u8| format!("the key with number {n}");
        let mut spec = EndpointSpec { secret: Some(key(1)), ..spec() };
        let held = |spec: &EndpointSpec, now_ms| -> Vec<String> {
            let old = spec.old_keys.iter().filter(|old| old.signs_at(now_ms)).map(|old| old.secret.clone());
            spec.secret.iter().cloned().chain(old).collect()
        };
        spec.rotate(key(2), 100);
        assert_eq!((held(&spec, 99), held(&spec, 100)), (vec![key(2), key(1)], vec![key(2)]));
        spec.rotate(key(2), 500);
        assert_eq!(held(&spec, 100), [key(2)], "the same request once more");
        spec.rotate(key(3), 200);
        assert_eq!(held(&spec, 99), [key(3), key(1), key(2)]);
        spec.rotate(key(1), 200);
        assert_eq!(held(&spec, 1_000), [key(1)], "a key that is taken again is not old");
        assert_eq!(held(&spec, 99), [key(1), key(2), key(3)]);
        spec.rotate(key(4), 200);
        spec.check().expect("three old keys");
        spec.rotate(key(5), 200);
        assert!(matches!(spec.check(), Err(Refusal::TooMany { .. })));
        spec.forget_old_keys(200);
        assert!(spec.old_keys.is_empty());
    }
}
