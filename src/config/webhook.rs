//! Settings of webhooks: the endpoint that the configuration names, and what holds for all endpoints.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// The names of events, as `webhook.events` lists them (wukongim-http.md section 10).
pub const EVENTS: [&str; 3] = ["msg.notify", "msg.offline", "user.onlinestatus"];

/// Calls to back ends.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to; empty: no endpoint of the configuration.
    pub url: String,
    /// Events, with commas between. See [`Webhook::event_list`].
    pub events: String,
    /// File with the signing key; empty: none.
    pub secret_file: PathBuf,
    /// File with authorities in PEM that sign endpoints' certificates, besides the system's; empty: none.
    pub ca_file: PathBuf,
    /// The signing key; empty: none.
    pub secret: String,
    /// The namespace whose events are sent; empty: the default one.
    pub namespace: String,
    /// Messages, or changes of sessions, per call.
    pub batch_max: usize,
    /// About the bytes of messages per call.
    pub batch_bytes_max: usize,
    /// How long a call waits for more.
    pub push_interval_ms: u64,
    /// Longest call.
    pub timeout_ms: u64,
    /// Longest wait between two attempts.
    pub retry_max_ms: u64,
    /// Attempts after which a message alone is parked; 0: never.
    pub dead_after_attempts: u32,
    /// Calls of msg.offline at once, per endpoint.
    pub parallel_max: usize,
    /// Who is offline: `no_master` or `no_session`.
    pub offline_when: String,
    /// Uids per call of msg.offline.
    pub uids_per_call_max: usize,
    /// More uids than this are compressed; 0: never.
    pub compress_above: usize,
    /// Changes of sessions that wait for one endpoint.
    pub sessions_queue_max: usize,
}

impl Webhook {
    /// The events asked for, without repeats; unknown words too.
    #[must_use]
    pub fn event_list(&self) -> Vec<String> {
        let mut events: Vec<String> = Vec::new();
        for event in self.events.split(',').map(str::trim).filter(|event| !event.is_empty()) {
            if !events.iter().any(|known| known == event) {
                events.push(event.to_owned());
            }
        }
        events
    }

    /// The file that holds the signing key, when one is named.
    #[must_use]
    pub fn secret_file(&self) -> Option<&Path> {
        (!self.secret_file.as_os_str().is_empty()).then_some(self.secret_file.as_path())
    }

    /// The file with further authorities, when one is named.
    #[must_use]
    pub fn ca_file(&self) -> Option<&Path> {
        (!self.ca_file.as_os_str().is_empty()).then_some(self.ca_file.as_path())
    }

    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let fail = |text: String| Err(ConfigError::new(text));
        if let Some(unknown) = self.event_list().iter().find(|event| !EVENTS.contains(&event.as_str())) {
            return fail(format!("webhook.events holds {unknown}, which is none of {}", EVENTS.join(", ")));
        }
        if !self.url.is_empty() && !["http://", "https://"].iter().any(|scheme| self.url.starts_with(scheme)) {
            return fail(format!("webhook.url is {:?}, which begins neither with http:// nor with https://", self.url));
        }
        if !self.url.is_empty() && self.event_list().is_empty() {
            return fail("webhook.url is given, but webhook.events is empty: nothing would be sent".into());
        }
        if !self.secret.is_empty() && self.secret_file().is_some() {
            return fail("webhook.secret and webhook.secret_file are both given: give one".into());
        }
        Ok(())
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            url: String::new(),
            events: EVENTS.join(","),
            secret_file: PathBuf::new(),
            ca_file: PathBuf::new(),
            secret: String::new(),
            namespace: String::new(),
            batch_max: 100,
            batch_bytes_max: 1 << 20,
            push_interval_ms: 500,
            timeout_ms: 5_000,
            retry_max_ms: 60_000,
            dead_after_attempts: 0,
            parallel_max: 8,
            offline_when: "no_master".into(),
            uids_per_call_max: 10_000,
            compress_above: 0,
            sessions_queue_max: 100_000,
        }
    }
}

impl fmt::Debug for Webhook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.secret.is_empty() { "" } else { "(set)" };
        f.debug_struct("Webhook")
            .field("url", &self.url)
            .field("events", &self.events)
            .field("secret_file", &self.secret_file)
            .field("ca_file", &self.ca_file)
            .field("secret", &secret)
            .finish_non_exhaustive()
    }
}
