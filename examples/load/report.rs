//! What a run found, for people and as JSON.

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::args::Args;
use crate::world::{Counts, Faults, World};

/// A moment of the run.
#[derive(Debug, Clone)]
pub struct Mark {
    /// The books' clock.
    pub at_ns: u64,
    /// Counters then.
    pub counts: Counts,
    /// CPU this process had used.
    pub own_cpu: Duration,
    /// CPU the server had used.
    pub server_cpu: Option<Duration>,
    /// The server's memory.
    pub server_rss: Option<u64>,
}

/// Latencies from the intended send time, milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Latency {
    count: u64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
}

impl Latency {
    fn of(histogram: &Histogram<u64>) -> Self {
        let ms = |us: u64| us as f64 / 1e3;
        Self {
            count: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.5)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            p999_ms: ms(histogram.value_at_quantile(0.999)),
            max_ms: ms(histogram.max()),
        }
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50_ms, p99_ms, p999_ms, max_ms, .. } = self;
        write!(f, "p50 {p50_ms:.3}  p99 {p99_ms:.3}  p99.9 {p999_ms:.3}  max {max_ms:.3} ms")
    }
}

/// The result.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    prefix: String,
    seed: u64,
    mode: String,
    connections: usize,
    channels: usize,
    members_online: u64,
    payload_bytes: usize,
    measured_s: f64,
    acks_per_s: f64,
    deliveries_per_s: f64,
    ack: Latency,
    delivery: Latency,
    total: Counts,
    frames_per_read: f64,
    deliveries_per_frame: f64,
    own_cpu_share: f64,
    server_cpu_share: Option<f64>,
    server_cpu_us_per_ack: Option<f64>,
    server_cpu_ns_per_delivery: Option<f64>,
    server_rss_bytes: Option<u64>,
    server_rss_growth_bytes: Option<i64>,
    stalled: usize,
    read_back: u64,
    faults: Faults,
}

impl Report {
    /// Puts it together: rates and CPU between the marks, everything else over the whole run.
    pub fn new(args: &Args, prefix: String, seed: u64, world: &World, (begin, end): (Mark, Mark), ended: Mark) -> Self {
        let seconds = (end.at_ns - begin.at_ns).max(1) as f64 / 1e9;
        let acks = end.counts.acked - begin.counts.acked;
        let deliveries = end.counts.delivered - begin.counts.delivered;
        let frames = end.counts.deliver_frames - begin.counts.deliver_frames;
        let reads = end.counts.reads - begin.counts.reads;
        let server_cpu = end.server_cpu.zip(begin.server_cpu).map(|(end, begin)| (end - begin).as_secs_f64());
        let own_cpu = (end.own_cpu - begin.own_cpu).as_secs_f64();
        let mode = match args.rate {
            Some(rate) => format!("open loop, {rate}/s"),
            None => format!("closed loop, {} x {} in flight", args.connections, args.in_flight),
        };
        Self {
            prefix,
            seed,
            mode,
            connections: args.connections,
            channels: world.channel_count(),
            members_online: world.readers() + 1,
            payload_bytes: args.payload,
            measured_s: seconds,
            acks_per_s: acks as f64 / seconds,
            deliveries_per_s: deliveries as f64 / seconds,
            ack: Latency::of(&world.ack_us),
            delivery: Latency::of(&world.delivery_us),
            total: world.counts,
            frames_per_read: (frames + acks) as f64 / reads.max(1) as f64,
            deliveries_per_frame: deliveries as f64 / frames.max(1) as f64,
            own_cpu_share: own_cpu / seconds,
            server_cpu_share: server_cpu.map(|cpu| cpu / seconds),
            server_cpu_us_per_ack: server_cpu.map(|cpu| cpu * 1e6 / acks.max(1) as f64),
            server_cpu_ns_per_delivery: server_cpu.map(|cpu| cpu * 1e9 / deliveries.max(1) as f64),
            server_rss_bytes: ended.server_rss,
            server_rss_growth_bytes: ended
                .server_rss
                .zip(begin.server_rss)
                .map(|(end, begin)| end as i64 - begin as i64),
            stalled: args.stalled,
            read_back: world.read_back,
            faults: world.faults.clone(),
        }
    }

    /// Whether nothing was lost, doubled, disordered or changed.
    pub fn is_sound(&self) -> bool {
        self.faults.none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{}; {} channels of {} online; {} B payloads; {:.1} s measured",
            self.mode, self.channels, self.members_online, self.payload_bytes, self.measured_s
        )?;
        writeln!(f, "  acks        {:>12.0} /s   {}", self.acks_per_s, self.ack)?;
        if self.total.delivered > 0 {
            writeln!(f, "  deliveries  {:>12.0} /s   {}", self.deliveries_per_s, self.delivery)?;
            writeln!(
                f,
                "              {:.1} per frame, {:.1} frames per read; {} gap notices, {} fetched by history, {} receipts",
                self.deliveries_per_frame,
                self.frames_per_read,
                self.total.gaps,
                self.total.by_history,
                self.total.receipts
            )?;
        }
        if self.total.refused > 0 {
            writeln!(f, "  refused     {:>12} for a while", self.total.refused)?;
        }
        write!(f, "  cpu         load {:.2}", self.own_cpu_share)?;
        if let (Some(share), Some(ack), Some(delivery)) =
            (self.server_cpu_share, self.server_cpu_us_per_ack, self.server_cpu_ns_per_delivery)
        {
            write!(f, ", server {share:.2}: {ack:.2} us per ack")?;
            if self.total.delivered > 0 {
                write!(f, ", {delivery:.0} ns per delivery")?;
            }
        }
        if let (Some(rss), Some(growth)) = (self.server_rss_bytes, self.server_rss_growth_bytes) {
            write!(f, "; server memory {:.1} MB ({:+.1})", rss as f64 / 1e6, growth as f64 / 1e6)?;
        }
        writeln!(f)?;
        if self.own_cpu_share > 0.95 {
            writeln!(f, "  note        this tool was at its own limit: the server may do more")?;
        }
        let Counts { sent, acked, delivered, .. } = self.total;
        writeln!(f, "  verified    {sent} sent, {acked} acked, {delivered} delivered, {} read back", self.read_back)?;
        let Faults { lost, duplicates, disorder, corrupt, told } = &self.faults;
        if self.is_sound() {
            return write!(f, "  sound       nothing lost, doubled, disordered or changed");
        }
        write!(f, "  FAULTS      {lost} lost, {duplicates} doubled, {disorder} disordered, {corrupt} changed")?;
        told.iter().try_for_each(|text| write!(f, "\n              {text}"))
    }
}
