//! What the server counts, and its Prometheus text.
//!
//! Owns every metric and its name. Refuses to know who counts: rooms get an [`Metrics`] and increment. Invariant: labels
//! have few values (a shard, a refusal code, a route class, a status class), never a uid, a channel or an address.
//!
//! Counters are atomics and cheap, but shared between cores: hot loops add up locally and call `inc_by` once per turn.

use std::fmt::Write as _;
use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use crate::store::StoreStats;

/// Label of a connection shard.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabel {
    shard: u32,
}

/// Label of a refusal: [`crate::domain::refusal::Refusal::code`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabel {
    code: &'static str,
}

/// Labels of an HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HttpLabel {
    /// Class of the route: `conversation`, `user`, `channel`, `message`, `admin`, `ops`, `unknown`.
    route: &'static str,
    /// `2xx`, `4xx`, …
    status: &'static str,
}

/// Labels of a webhook endpoint, which an operator named, and one of its three events.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WebhookLabel {
    endpoint: String,
    event: &'static str,
}

/// What is counted of webhooks.
#[derive(Debug, Default)]
struct Webhooks {
    calls: Family<WebhookLabel, Counter>,
    calls_failed: Family<WebhookLabel, Counter>,
    parked: Family<WebhookLabel, Counter>,
    lag_messages: Family<WebhookLabel, Gauge>,
    lag_seconds: Family<WebhookLabel, Gauge>,
    position: Family<WebhookLabel, Gauge>,
}

/// Every metric of the server. Cheap to clone behind its `Arc`; all methods of the fields take `&self`.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    /// Open sockets, authenticated or not.
    pub connections: Gauge,
    shard_connections: Family<ShardLabel, Gauge>,
    /// Authenticated connections.
    pub sessions: Gauge,
    /// Connections that authenticated.
    pub connects: Counter,
    /// Sends taken from any wire, before rules apply.
    pub sends: Counter,
    /// Acks given, of any durability.
    pub acks: Counter,
    /// Sends answered with the outcome of an earlier one (stored-once).
    pub duplicates: Counter,
    /// Messages put into a session's outbox.
    pub deliveries: Counter,
    /// Frames written to sockets.
    pub frames_written: Counter,
    /// Bytes written to sockets; a second late, as [`Metrics::bytes_read`] and [`Metrics::frames_written`] are.
    pub bytes_written: Counter,
    /// Bytes read from sockets.
    pub bytes_read: Counter,
    /// Lots committed.
    pub lots: Counter,
    /// Lots that failed, with everything behind them reloaded.
    pub lots_failed: Counter,
    /// Records per committed lot.
    pub lot_records: Histogram,
    /// Microseconds from a lot's seal to its fdatasync.
    pub commit_us: Histogram,
    /// Bytes waiting in all outboxes.
    pub outbox_bytes: Gauge,
    /// Gap notices sent in place of a dropped backlog.
    pub gaps: Counter,
    /// Connections closed because their peer does not read.
    pub slow_closes: Counter,
    refusals: Family<CodeLabel, Counter>,
    /// Rows answered to conversation/sync.
    pub sync_rows: Counter,
    http_requests: Family<HttpLabel, Counter>,
    /// Milliseconds per HTTP request, from head to the answer's head.
    pub http_ms: Histogram,
    webhooks: Webhooks,
    store: StoreGauges,
    ready: Gauge,
}

/// Figures that the store keeps itself, copied when somebody looks.
#[derive(Debug, Default)]
struct StoreGauges {
    channels: Gauge,
    log_bytes: Gauge,
    log_bytes_since_checkpoint: Gauge,
    dirty_rows: Gauge,
    cache_bytes: Gauge,
    cache_bytes_max: Gauge,
    checkpoints: Gauge,
    writable: Gauge,
    lots_failed: Gauge,
    view_renewals: Gauge,
    write_wait_ms: Gauge,
}

impl Metrics {
    /// A fresh set with every name registered.
    #[must_use]
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::with_prefix("chinwag"),
            connections: Gauge::default(),
            shard_connections: Family::default(),
            sessions: Gauge::default(),
            connects: Counter::default(),
            sends: Counter::default(),
            acks: Counter::default(),
            duplicates: Counter::default(),
            deliveries: Counter::default(),
            frames_written: Counter::default(),
            bytes_written: Counter::default(),
            bytes_read: Counter::default(),
            lots: Counter::default(),
            lots_failed: Counter::default(),
            // 1 … 1,024: the default cap of a lot is 1,024 records.
            lot_records: Histogram::new(exponential_buckets(1.0, 2.0, 11)),
            // 32 us … 262 ms: an fdatasync takes 90 us on a good disk and some ms on a slow one.
            commit_us: Histogram::new(exponential_buckets(32.0, 2.0, 14)),
            outbox_bytes: Gauge::default(),
            gaps: Counter::default(),
            slow_closes: Counter::default(),
            refusals: Family::default(),
            sync_rows: Counter::default(),
            http_requests: Family::default(),
            http_ms: Histogram::new(exponential_buckets(0.25, 2.0, 14)),
            webhooks: Webhooks::default(),
            store: StoreGauges::default(),
            ready: Gauge::default(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("build", "The running build", Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]));
        r.register("connections", "Open sockets, authenticated or not", self.connections.clone());
        r.register("shard_connections", "Open sockets of each connection shard", self.shard_connections.clone());
        r.register("sessions", "Authenticated connections", self.sessions.clone());
        r.register("connects", "Connections that authenticated", self.connects.clone());
        r.register("sends", "Sends taken from any wire", self.sends.clone());
        r.register("acks", "Acks given", self.acks.clone());
        r.register("duplicates", "Sends answered with the outcome of an earlier one", self.duplicates.clone());
        r.register("deliveries", "Messages put into outboxes", self.deliveries.clone());
        r.register("frames_written", "Frames written to sockets", self.frames_written.clone());
        r.register_with_unit("read", "Bytes read from sockets", Unit::Bytes, self.bytes_read.clone());
        r.register_with_unit("written", "Bytes written to sockets", Unit::Bytes, self.bytes_written.clone());
        r.register("commit_lots", "Lots committed", self.lots.clone());
        r.register("commit_lots_failed", "Lots that failed", self.lots_failed.clone());
        r.register("commit_lot_records", "Records per committed lot", self.lot_records.clone());
        r.register("commit_us", "Microseconds from seal to fdatasync of a lot", self.commit_us.clone());
        r.register_with_unit("outbox", "Bytes waiting in outboxes", Unit::Bytes, self.outbox_bytes.clone());
        r.register("gaps", "Gap notices sent in place of a dropped backlog", self.gaps.clone());
        r.register("slow_closes", "Connections closed because their peer does not read", self.slow_closes.clone());
        r.register("refusals", "Refusals by code, of every wire", self.refusals.clone());
        r.register("sync_rows", "Rows answered to conversation/sync", self.sync_rows.clone());
        r.register("http_requests", "HTTP requests by route class and status class", self.http_requests.clone());
        r.register("http_ms", "Milliseconds per HTTP request", self.http_ms.clone());
        let w = &self.webhooks;
        r.register("webhook_calls", "Calls of webhook endpoints", w.calls.clone());
        r.register("webhook_calls_failed", "Calls of webhook endpoints that did not count", w.calls_failed.clone());
        r.register("webhook_parked", "Messages parked because an endpoint does not take them", w.parked.clone());
        r.register("webhook_lag_messages", "Messages an endpoint is not told of yet", w.lag_messages.clone());
        r.register("webhook_lag_seconds", "Age of the first message an endpoint is not told of", w.lag_seconds.clone());
        r.register("webhook_position", "Version up to which an endpoint was told", w.position.clone());
        r.register("store_channels", "Channels that exist", self.store.channels.clone());
        r.register_with_unit("store_log", "Bytes of the log on disk", Unit::Bytes, self.store.log_bytes.clone());
        r.register_with_unit(
            "store_log_since_checkpoint",
            "Log bytes that no checkpoint covers yet",
            Unit::Bytes,
            self.store.log_bytes_since_checkpoint.clone(),
        );
        r.register("store_dirty_rows", "Changed rows that no checkpoint covers yet", self.store.dirty_rows.clone());
        r.register_with_unit("store_cache", "Rows of the view in memory", Unit::Bytes, self.store.cache_bytes.clone());
        r.register_with_unit(
            "store_cache_max",
            "Beyond it idle rows leave the memory",
            Unit::Bytes,
            self.store.cache_bytes_max.clone(),
        );
        r.register("store_checkpoints", "Checkpoints taken since the start", self.store.checkpoints.clone());
        r.register(
            "store_writable",
            "1 when changes can be stored, 0 when they are refused",
            self.store.writable.clone(),
        );
        r.register(
            "store_lots_unwritten",
            "Lots refused since the start because the disk did not take them",
            self.store.lots_failed.clone(),
        );
        r.register("store_view_renewals", "Views replaced while running", self.store.view_renewals.clone());
        r.register(
            "store_write_wait_ms",
            "How long the lot being written has waited",
            self.store.write_wait_ms.clone(),
        );
        r.register("ready", "1 when the server would answer /readyz with 200", self.ready.clone());
    }

    /// The gauge of one shard's open sockets. Fetch it once per shard and keep it: the look-up takes a lock.
    #[must_use]
    pub fn shard_connections(&self, shard: usize) -> Gauge {
        let shard = u32::try_from(shard).unwrap_or(u32::MAX);
        self.shard_connections.get_or_create(&ShardLabel { shard }).clone()
    }

    /// Counts a refusal by its code ([`crate::domain::refusal::Refusal::code`]).
    pub fn refused(&self, code: &'static str) {
        self.refusals.get_or_create(&CodeLabel { code }).inc();
    }

    /// Counts an HTTP answer. `route` is a class, not a path.
    pub fn http_answered(&self, route: &'static str, status: u16) {
        let status = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        self.http_requests.get_or_create(&HttpLabel { route, status }).inc();
    }

    /// Counts a call of a webhook endpoint.
    pub fn webhook_called(&self, endpoint: &str, event: &'static str, failed: bool) {
        let label = WebhookLabel { endpoint: endpoint.to_owned(), event };
        self.webhooks.calls.get_or_create(&label).inc();
        // Both exist from the first call on, so that a rate of failures can be asked for.
        self.webhooks.calls_failed.get_or_create(&label).inc_by(u64::from(failed));
    }

    /// Counts a parked message.
    pub fn webhook_parked(&self, endpoint: &str, event: &'static str) {
        self.webhooks.parked.get_or_create(&WebhookLabel { endpoint: endpoint.to_owned(), event }).inc();
    }

    /// Notes where an endpoint stands: messages behind its position (or sessions that wait), seconds, version.
    pub fn webhook_stands(
        &self,
        endpoint: &str,
        event: &'static str,
        lag_messages: u64,
        lag_seconds: u64,
        position: u64,
    ) {
        let label = WebhookLabel { endpoint: endpoint.to_owned(), event };
        let gauges = [
            (&self.webhooks.lag_messages, lag_messages),
            (&self.webhooks.lag_seconds, lag_seconds),
            (&self.webhooks.position, position),
        ];
        for (gauge, value) in gauges {
            gauge.get_or_create(&label).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
    }

    /// Forgets an endpoint.
    pub fn webhook_removed(&self, endpoint: &str, events: &[&'static str]) {
        for &event in events {
            let label = WebhookLabel { endpoint: endpoint.to_owned(), event };
            let Webhooks { calls, calls_failed, parked, lag_messages, lag_seconds, position } = &self.webhooks;
            for family in [calls, calls_failed, parked] {
                family.remove(&label);
            }
            for family in [lag_messages, lag_seconds, position] {
                family.remove(&label);
            }
        }
    }

    /// The Prometheus text (OpenMetrics 1.0), with the store's figures of this moment.
    #[must_use]
    pub fn render(&self, store: &StoreStats, ready: bool) -> String {
        let set = |gauge: &Gauge, value: u64| {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        };
        set(&self.store.channels, store.channels);
        set(&self.store.log_bytes, store.log_bytes);
        set(&self.store.log_bytes_since_checkpoint, store.log_bytes_since_checkpoint);
        set(&self.store.dirty_rows, store.dirty_rows);
        set(&self.store.cache_bytes, store.cache_bytes);
        set(&self.store.cache_bytes_max, store.cache_bytes_max);
        set(&self.store.checkpoints, store.checkpoints);
        set(&self.store.writable, u64::from(!store.unwritable));
        set(&self.store.lots_failed, store.lots_failed);
        set(&self.store.view_renewals, store.view_renewals);
        set(&self.store.write_wait_ms, store.write_wait_ms);
        self.ready.set(i64::from(ready));
        let mut text = String::with_capacity(16 * 1024);
        if encode(&mut text, &self.registry).is_err() {
            // Writing into a String cannot fail; an encoder that says so leaves what it wrote, marked as cut.
            let _ = writeln!(text, "# the encoder failed");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_holds_what_was_counted() {
        let metrics = Metrics::new();
        metrics.sends.inc_by(3);
        metrics.refused("not_member");
        metrics.http_answered("conversation", 200);
        metrics.http_answered("conversation", 503);
        metrics.shard_connections(1).inc();
        metrics.lot_records.observe(7.0);
        let text = metrics.render(&StoreStats { channels: 5, ..StoreStats::default() }, true);
        for line in [
            "chinwag_sends_total 3",
            "chinwag_refusals_total{code=\"not_member\"} 1",
            "chinwag_http_requests_total{route=\"conversation\",status=\"2xx\"} 1",
            "chinwag_http_requests_total{route=\"conversation\",status=\"5xx\"} 1",
            "chinwag_shard_connections{shard=\"1\"} 1",
            "chinwag_commit_lot_records_bucket{le=\"8.0\"} 1",
            "chinwag_store_channels 5",
            "chinwag_store_writable 1",
            "chinwag_outbox_bytes 0",
            "chinwag_ready 1",
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line:?} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }

    #[test]
    fn the_operators_page_names_metrics_that_exist() {
        let metrics = Metrics::new();
        metrics.refused("x");
        metrics.http_answered("ops", 200);
        let _ = metrics.shard_connections(0);
        metrics.webhook_called("x", "msg.notify", true);
        metrics.webhook_parked("x", "msg.notify");
        metrics.webhook_stands("x", "msg.notify", 1, 1, 1);
        let text = metrics.render(&StoreStats::default(), true);
        let page = include_str!("../docs/operations.md");
        let named: Vec<&str> = page.split('`').filter(|word| word.starts_with("chinwag_")).collect();
        assert!(named.len() > 20, "the page names metrics in backquotes");
        for name in named {
            let there = text.lines().any(|line| line.starts_with(name) && !line.starts_with('#'));
            assert!(there, "{name} is on the page, but not in\n{text}");
        }
    }
}
