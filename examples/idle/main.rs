//! Many idle sessions: what each costs in memory and to connect, and how fast all come back after a cut.
//!
//! Users get tokens and groups over HTTP first. Blocks of `--group-size` users share `--groups` groups. Then all connect,
//! at most `--connecting` at once, and each sends one message to its first group; every session has to get the messages of
//! its block. With `--storm` all connections are dropped at once, one more user writes to every group, and all come back,
//! each with a sync from the version it had: the clock stops when everybody is connected and has every changed
//! conversation.

#[path = "../common/backend.rs"]
mod backend;
mod crowd;
#[path = "../common/fleet.rs"]
mod fleet;
#[path = "../common/frames.rs"]
mod frames;
#[path = "../common/msgpack.rs"]
mod msgpack;
#[path = "../common/procfs.rs"]
mod procfs;
#[path = "../common/raw.rs"]
mod raw;
#[path = "../common/wukong.rs"]
mod wukong;

use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use backend::{Backend, NewChannel};
use clap::Parser;
use crowd::Crowd;
use fleet::{Fleet, TURN_MAX};
use indicatif::ProgressBar;
use procfs::Process;
use serde::Serialize;
use wukong::Protocol;

/// Idle connections: memory of each, CPU of a connect, and the storm after a cut.
#[derive(Debug, Parser)]
#[command(name = "idle", version)]
struct Args {
    /// What is spoken.
    #[arg(long, value_enum, default_value_t = Protocol::Native)]
    protocol: Protocol,
    /// Where the server's sockets listen; ws://127.0.0.1:5200, for wukong-tcp tcp://127.0.0.1:5100, when left out.
    #[arg(long)]
    server: Option<String>,
    /// Where the server's HTTP listens.
    #[arg(long, default_value = "http://127.0.0.1:5001")]
    http: String,
    /// The server's data directory, for its root key.
    #[arg(long, default_value = "./data")]
    data_dir: PathBuf,
    /// Begins every uid and group; random when left out.
    #[arg(long)]
    prefix: Option<String>,
    /// Users and groups are there already.
    #[arg(long, requires = "prefix")]
    no_setup: bool,
    /// Sessions.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Groups of each user.
    #[arg(long)]
    groups: Option<usize>,
    /// Members of a group.
    #[arg(long, default_value_t = 10)]
    group_size: usize,
    /// Connects under way at once.
    #[arg(long, default_value_t = 512)]
    connecting: usize,
    /// Drop all and come back (10 groups each unless --groups says otherwise).
    #[arg(long)]
    storm: bool,
    /// Storms, one after the other.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
    /// Seconds to stay idle before memory is read.
    #[arg(long, default_value_t = 1.0)]
    hold: f64,
    /// Longest wait of each phase, seconds.
    #[arg(long, default_value_t = 60.0)]
    limit: f64,
    /// The server's process: its memory and CPU are what this tool is for.
    #[arg(long)]
    server_pid: Option<u32>,
    /// One JSON object on standard output instead of text.
    #[arg(long)]
    json: bool,
}

/// One storm.
#[derive(Debug, Serialize)]
struct Storm {
    all_back_s: f64,
    all_synced_s: f64,
    rows: u64,
    server_cpu_us_per_session: Option<f64>,
}

/// The result.
#[derive(Debug, Serialize)]
struct Report {
    prefix: String,
    connections: usize,
    groups_each: usize,
    connected_in_s: f64,
    connects_per_s: f64,
    server_cpu_us_per_connect: Option<f64>,
    own_cpu_us_per_connect: f64,
    server_rss_empty_bytes: Option<u64>,
    server_rss_connected_bytes: Option<u64>,
    server_rss_after_messages_bytes: Option<u64>,
    server_rss_bytes_per_connection: Option<f64>,
    acks: u64,
    deliveries: u64,
    storms: Vec<Storm>,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} sessions, each in {} groups", self.connections, self.groups_each)?;
        write!(f, "  connect     {:.2} s, {:.0} /s", self.connected_in_s, self.connects_per_s)?;
        if let Some(cpu) = self.server_cpu_us_per_connect {
            write!(f, "; server {cpu:.1} us each")?;
        }
        writeln!(f, "; this tool {:.1} us each", self.own_cpu_us_per_connect)?;
        writeln!(f, "  one message {} acked, {} delivered", self.acks, self.deliveries)?;
        if let (Some(empty), Some(now), Some(each)) =
            (self.server_rss_empty_bytes, self.server_rss_after_messages_bytes, self.server_rss_bytes_per_connection)
        {
            let mb = |bytes: u64| bytes as f64 / 1e6;
            writeln!(f, "  memory      {:.1} MB empty, {:.1} MB now: {each:.0} B per session", mb(empty), mb(now))?;
        }
        for storm in &self.storms {
            write!(
                f,
                "  storm       all back after {:.3} s, all synced after {:.3} s, {} conversations",
                storm.all_back_s, storm.all_synced_s, storm.rows
            )?;
            match storm.server_cpu_us_per_session {
                Some(cpu) => writeln!(f, "; server {cpu:.1} us per session")?,
                None => writeln!(f)?,
            }
        }
        Ok(())
    }
}

/// Who is in which group.
struct Plan {
    users: Vec<String>,
    writer: String,
    groups: Vec<NewChannel>,
}

impl Plan {
    fn new(prefix: &str, connections: usize, groups: usize, group_size: usize) -> Self {
        let users: Vec<String> = (0..connections).map(|i| format!("{prefix}-u{i}")).collect();
        let writer = format!("{prefix}-w");
        let mut channels = Vec::new();
        for (block, members) in users.chunks(group_size).enumerate() {
            for g in 0..groups {
                let mut subscribers = members.to_vec();
                subscribers.push(writer.clone());
                let channel_id = format!("{prefix}-g{}", block * groups + g);
                channels.push(NewChannel { channel_id, channel_type: 2, subscribers });
            }
        }
        Self { users, writer, groups: channels }
    }
}

fn token(key: &str, uid: &str) -> String {
    blake3::keyed_hash(blake3::hash(key.as_bytes()).as_bytes(), uid.as_bytes()).to_hex()[..32].to_owned()
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    ensure!(args.connections > 0 && args.group_size > 0 && args.connecting > 0, "nothing to do");
    ensure!(args.protocol == Protocol::Native || !args.storm, "--storm asks native syncs");
    let key = backend::need_root_key(&args.data_dir)?;
    let prefix = match &args.prefix {
        Some(prefix) => prefix.clone(),
        None => format!("i{}", &backend::random_token()?[..6]),
    };
    eprintln!("prefix {prefix}");
    let groups_each = args.groups.unwrap_or(if args.storm { 10 } else { 5 });
    let plan = Plan::new(&prefix, args.connections, groups_each, args.group_size);
    let mut users: Vec<(String, String)> = plan.users.iter().map(|uid| (uid.clone(), token(&key, uid))).collect();
    users.push((plan.writer.clone(), token(&key, &plan.writer)));
    if !args.no_setup {
        let backend = Backend::new(&args.http, &key)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let bar = ProgressBar::new((users.len() + plan.groups.len()) as u64);
        runtime.block_on(async {
            backend.set_tokens(&users, || bar.inc(1)).await.context("making tokens")?;
            backend.create_channels(&plan.groups, || bar.inc(1)).await.context("making groups")
        })?;
        bar.finish_and_clear();
    }
    let watched = args.server_pid.map(Process::with_pid).transpose()?;
    let report = run(&args, prefix, groups_each, &plan, users, watched.as_ref())?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        print!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}

fn run(
    args: &Args,
    prefix: String,
    groups_each: usize,
    plan: &Plan,
    users: Vec<(String, String)>,
    watched: Option<&Process>,
) -> Result<Report> {
    let sessions = args.connections;
    let limit = Duration::try_from_secs_f64(args.limit).context("--limit")?;
    let cpu = || watched.map(Process::cpu).transpose();
    let rss = || watched.map(Process::rss).transpose();
    let url = args.server.as_deref().unwrap_or(args.protocol.default_url());
    let mut fleet = Fleet::new(url, args.protocol.subprotocol(), sessions + 1)?;
    let groups = plan.groups.iter().map(|group| group.channel_id.clone()).collect();
    let mut crowd = Crowd::new(users, groups, groups_each, args.group_size, args.protocol)?;
    let bar = ProgressBar::new(sessions as u64);

    let empty = rss()?;
    let (cpu_before, own_before, started) = (cpu()?, Process::own().cpu()?, Instant::now());
    fleet.connect_all(0..sessions, args.connecting, limit, &mut crowd, Crowd::ready, |done| {
        bar.set_position(done as u64)
    })?;
    let connected_in = started.elapsed();
    let per_session = |after: Option<Duration>, before: Option<Duration>| {
        after.zip(before).map(|(after, before)| (after - before).as_secs_f64() * 1e6 / sessions as f64)
    };
    let server_cpu_us_per_connect = per_session(cpu()?, cpu_before);
    let own_cpu = (Process::own().cpu()? - own_before).as_secs_f64();
    let connected = rss()?;

    // Each says one thing; done when all of it is acked and has arrived.
    for index in 0..sessions {
        let link = fleet.link(index).context("a session is gone")?;
        crowd.say(index, link)?;
        fleet.flush(index, &mut crowd)?;
    }
    let deadline = Instant::now() + limit;
    while !crowd.all_said() {
        ensure!(Instant::now() < deadline, "{}", crowd.what_is_missing());
        fleet.turn(TURN_MAX, &mut crowd)?;
    }
    let hold = Instant::now() + Duration::try_from_secs_f64(args.hold).context("--hold")?;
    while Instant::now() < hold {
        fleet.turn(TURN_MAX, &mut crowd)?;
    }
    let after = rss()?;

    let mut storms = Vec::new();
    for _ in 0..if args.storm { args.rounds } else { 0 } {
        storms.push(storm(args, limit, &mut fleet, &mut crowd, watched)?);
    }
    bar.finish_and_clear();
    Ok(Report {
        prefix,
        connections: sessions,
        groups_each,
        connected_in_s: connected_in.as_secs_f64(),
        connects_per_s: sessions as f64 / connected_in.as_secs_f64(),
        server_cpu_us_per_connect,
        own_cpu_us_per_connect: own_cpu * 1e6 / sessions as f64,
        server_rss_empty_bytes: empty,
        server_rss_connected_bytes: connected,
        server_rss_after_messages_bytes: after,
        server_rss_bytes_per_connection: after
            .zip(empty)
            .map(|(after, empty)| (after as f64 - empty as f64) / sessions as f64),
        acks: crowd.acks,
        deliveries: crowd.deliveries,
        storms,
    })
}

fn storm(
    args: &Args,
    limit: Duration,
    fleet: &mut Fleet,
    crowd: &mut Crowd,
    watched: Option<&Process>,
) -> Result<Storm> {
    let sessions = args.connections;
    // Everybody learns the version to come back with, as a client that was online knows it.
    crowd.begin_asking();
    for index in 0..sessions {
        let link = fleet.link(index).context("a session is gone")?;
        crowd.ask_version(link)?;
        fleet.flush(index, crowd)?;
    }
    let deadline = Instant::now() + limit;
    while !crowd.all_know_version() {
        ensure!(Instant::now() < deadline, "not everybody's sync was answered");
        fleet.turn(TURN_MAX, crowd)?;
    }
    for index in 0..sessions {
        fleet.drop_link(index);
    }
    crowd.gone();
    // The writer's session stays open behind the others.
    if fleet.link(sessions).is_none() {
        fleet.connect_all(sessions..sessions + 1, 1, limit, crowd, Crowd::ready, |_| {})?;
    }
    let link = fleet.link(sessions).context("the writer is gone")?;
    crowd.write_everywhere(link)?;
    fleet.flush(sessions, crowd)?;
    let deadline = Instant::now() + limit;
    while !crowd.all_written() {
        ensure!(Instant::now() < deadline, "the writer's messages were not acked");
        fleet.turn(TURN_MAX, crowd)?;
    }
    let cpu_before = watched.map(Process::cpu).transpose()?;
    let started = Instant::now();
    fleet.connect_all(0..sessions, args.connecting, limit, crowd, Crowd::ready, |_| {})?;
    let all_back = started.elapsed();
    let deadline = Instant::now() + limit;
    while !crowd.all_synced() {
        ensure!(Instant::now() < deadline, "{}", crowd.what_is_missing());
        fleet.turn(TURN_MAX, crowd)?;
    }
    let all_synced = started.elapsed();
    let cpu = watched.map(Process::cpu).transpose()?.zip(cpu_before);
    Ok(Storm {
        all_back_s: all_back.as_secs_f64(),
        all_synced_s: all_synced.as_secs_f64(),
        rows: crowd.rows,
        server_cpu_us_per_session: cpu.map(|(after, before)| (after - before).as_secs_f64() * 1e6 / sessions as f64),
    })
}
