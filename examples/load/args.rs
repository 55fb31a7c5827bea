//! What a run is asked to be.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::wukong::Protocol;

/// A load generator: sends, receives and verifies every message.
///
/// Open loop with --rate, closed loop with --in-flight. Latencies count from the moment a message was meant to be sent,
/// so a backlog counts. Exits with 1 on any loss, duplicate, disorder or changed byte.
#[derive(Debug, Clone, Parser)]
#[command(name = "load", version)]
pub struct Args {
    /// What is spoken.
    #[arg(long, value_enum, default_value_t = Protocol::Native)]
    pub protocol: Protocol,
    /// Where the server's sockets listen; ws://127.0.0.1:5200, for wukong-tcp tcp://127.0.0.1:5100, when left out.
    #[arg(long)]
    pub server: Option<String>,
    /// WuKongIM's packets: decrypt and compare every so many deliveries; of the others names and order are checked.
    #[arg(long, default_value_t = 1)]
    pub open_every: u64,
    /// WuKongIM's packets: do not acknowledge each delivery, which its SDKs do.
    #[arg(long)]
    pub no_recvack: bool,
    /// Where the server's HTTP listens: users, tokens and channels are made through it.
    #[arg(long, default_value = "http://127.0.0.1:5001")]
    pub http: String,
    /// The server's data directory, for its root key.
    #[arg(long, default_value = "./data")]
    pub data_dir: PathBuf,
    /// Begins every uid and channel of the run; random when left out.
    #[arg(long)]
    pub prefix: Option<String>,
    /// Make users and channels, then stop; run later with the same arguments and --no-setup.
    #[arg(long)]
    pub setup_only: bool,
    /// Users and channels are there already.
    #[arg(long, requires = "prefix", conflicts_with = "setup_only")]
    pub no_setup: bool,
    /// Connections that send.
    #[arg(long, default_value_t = 100)]
    pub connections: usize,
    /// Closed loop: messages a connection has under way.
    #[arg(long, default_value_t = 8)]
    pub in_flight: usize,
    /// Open loop: messages per second of all connections together.
    #[arg(long, conflicts_with = "in_flight")]
    pub rate: Option<f64>,
    /// Channels.
    #[arg(long)]
    pub channels: Option<usize>,
    /// Members of each channel, senders included.
    #[arg(long)]
    pub members: Option<usize>,
    /// Users who receive without sending; shared by the channels.
    #[arg(long)]
    pub receivers: Option<usize>,
    /// The receivers do not connect.
    #[arg(long)]
    pub offline: bool,
    /// Few wide channels: every sender sends to every channel (default 1 of 1,000 members, 4 senders), and a message is
    /// under way until its deliveries have arrived as well as its ack.
    #[arg(long)]
    pub fanout: bool,
    /// Members that connect and never read.
    #[arg(long, default_value_t = 0)]
    pub stalled: usize,
    /// Bytes of a payload, random.
    #[arg(long, default_value_t = 128)]
    pub payload: usize,
    /// Seconds of sending that are measured.
    #[arg(long, default_value_t = 10.0)]
    pub duration: f64,
    /// Seconds of sending before.
    #[arg(long, default_value_t = 1.0)]
    pub warm_up: f64,
    /// Stop after this many messages, if that is sooner.
    #[arg(long)]
    pub messages: Option<u64>,
    /// How sure an ack has to be.
    #[arg(long, value_enum, default_value_t = Level::Disk)]
    pub durability: Level,
    /// Seconds that may pass after sending until everything has arrived.
    #[arg(long, default_value_t = 30.0)]
    pub drain: f64,
    /// Connects under way at once.
    #[arg(long, default_value_t = 200)]
    pub connecting: usize,
    /// Read every message back by history at the end and compare.
    #[arg(long)]
    pub read_back: bool,
    /// The server's process, to tell its CPU per ack and delivery.
    #[arg(long)]
    pub server_pid: Option<u32>,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    pub json: bool,
    /// Seed of payloads; random when left out, printed always.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// Levels of an ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Level {
    /// Numbered.
    Memory,
    /// fdatasync done.
    Disk,
}
