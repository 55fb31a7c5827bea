//! One round: a server of its own, clients on several wires, faults while they are busy, an end at which everybody comes to
//! rest, and the history of it all.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::task::JoinSet;

use crate::desk::{Desk, Phase};
use crate::http::{self, Caller};
use crate::native::{Habit, Life, Session};
use crate::record::{Answer, Channel, History, What};
use crate::server::{Ground, PATIENCE, Server, tail};

/// Who adds and removes the guest.
pub const KEEPER: &str = "ann";
/// Who is a member of the groups only at times.
pub const GUEST: &str = "guest";

const SENDERS: [&str; 3] = [KEEPER, "ben", "cem"];
/// Reads, and never writes.
const READER: &str = "rea";
/// Reads nothing for a while now and then.
const SLOW: &str = "slo";

/// What happens to the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Faults {
    /// kill -9, sometimes SIGTERM.
    Kills,
    /// The disk fills, fails writes, fails syncs, and works again; kill -9.
    Disk,
    /// Only what was synced outlives the process.
    Power,
}

/// Adds up what a round saw, so that a run that saw nothing does not pass for one that proves something.
pub fn summary(history: &History) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for event in &history.events {
        let kind = match event {
            What::Fault(_) => "faults",
            What::Started => "starts",
            What::Asked { .. } => "asks",
            What::Answered { answer: Answer::Stored { duplicate: true, .. }, .. } => "duplicates",
            What::Answered { answer: Answer::Stored { .. }, .. } => "acks",
            What::Answered { answer: Answer::Refused { .. }, .. } => "refusals",
            What::Answered { answer: Answer::Unknown, .. } => "unknown",
            What::Answered { answer: Answer::Synced { .. }, .. } => "syncs",
            What::Answered { answer: Answer::Put { .. }, .. } => "positions",
            What::Connected { .. } => "sessions",
            What::Delivered { .. } => "deliveries",
            What::Gap { .. } => "gaps",
            What::Moved { .. } => "events",
            What::Settled { .. } => "settled",
            _ => continue,
        };
        *counts.entry(kind).or_default() += 1;
    }
    let counts: Vec<String> = counts.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    counts.join(", ")
}

fn channels() -> Vec<Channel> {
    vec![
        Channel::Group("g0".into()),
        Channel::Group("g1".into()),
        Channel::pair("ann", "ben"),
        Channel::pair("ben", "cem"),
    ]
}

fn members() -> BTreeMap<Channel, BTreeSet<String>> {
    let everybody = || SENDERS.iter().chain([&READER, &SLOW]).map(|uid| (*uid).to_owned()).collect();
    let of = |channel: Channel| match &channel {
        Channel::Group(_) => (channel, everybody()),
        Channel::Pair(a, b) => {
            let both = [a.clone(), b.clone()].into();
            (channel, both)
        }
    };
    channels().into_iter().map(of).collect()
}

fn habit(user: &str, stalls: bool, sends: bool, pace_ms: u64) -> Habit {
    let channels = members().into_iter().filter(|(_, of)| of.contains(user)).map(|(channel, _)| channel).collect();
    Habit { user: user.into(), channels, sends, reads: !stalls, stalls, pace_ms }
}

struct Round {
    desk: Arc<Desk>,
    ground: Ground,
    server: Option<Server>,
}

impl Round {
    /// Starts the server. `false`: it refuses, which is an event, not an error of the round.
    async fn start(&mut self) -> Result<bool> {
        match self.ground.start().await {
            Ok(server) => {
                self.desk.record(What::Started);
                self.desk.server.send_replace(Some(server.address()));
                self.server = Some(server);
                Ok(true)
            }
            Err(error) => {
                self.desk.record(What::NotStarted(format!("{error:#}")));
                Ok(false)
            }
        }
    }

    /// Ends the process: killed, or drained.
    async fn end(&mut self, gently: bool) -> Result<()> {
        let mut server = self.server.take().context("a server")?;
        ensure!(!server.has_ended(), "the server ended by itself: {}", tail(&self.ground.log()));
        self.desk.record(What::Fault(if gently { "SIGTERM" } else { "kill" }.into()));
        self.desk.server.send_replace(None);
        if gently { self.ground.stop(server).await } else { self.ground.kill(server) }
    }

    fn disk(&self, state: &str) -> Result<()> {
        self.desk.record(What::Fault(format!("disk {state}")));
        self.ground.disk(state)
    }

    async fn until_ready(&self) -> Result<()> {
        let address = self.server.as_ref().context("a server")?.address();
        let client = reqwest::Client::new();
        let ready = async {
            loop {
                let asked = client.get(format!("{}/readyz", address.http)).send().await;
                if asked.is_ok_and(|answer| answer.status().is_success()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, ready).await.context("the server does not become ready again")
    }
}

/// Runs a round in `dir`.
pub async fn run(dir: &Path, shim: Option<PathBuf>, faults: Faults, bug: Option<String>, seed: u64) -> Result<History> {
    let mut rng = StdRng::seed_from_u64(seed);
    // Little room, so that who reads nothing for a while is soon behind.
    let room = ["limits.payload_bytes_max=10240", "outbox.bytes_max=16384", "outbox.entries_max=64"];
    let mut settings: Vec<String> = room.into_iter().map(str::to_owned).collect();
    if rng.random_bool(0.5) {
        // Kills meet checkpoints and new segments.
        settings.extend(["store.checkpoint_interval_ms=100".into(), "store.segment_bytes_max=1048576".into()]);
    }
    let shim = if faults == Faults::Kills { None } else { shim };
    let power = faults == Faults::Power;
    let desk = Arc::new(Desk::new());
    let ground = Ground::new(dir, shim, power, bug, settings)?;
    let mut round = Round { desk: desk.clone(), ground, server: None };
    let mut history = History { members: members(), events: Vec::new() };
    let went = conduct(&mut round, faults, &mut rng).await;
    history.events = desk.take_events();
    // A server that does not start any more ends the round; the checker says what that means.
    if history.events.iter().any(|event| matches!(event, What::NotStarted(_))) {
        return Ok(history);
    }
    went.with_context(|| format!("the server said: {}", tail(&round.ground.log())))?;
    Ok(history)
}

async fn conduct(round: &mut Round, faults: Faults, rng: &mut StdRng) -> Result<()> {
    let desk = round.desk.clone();
    if !round.start().await? {
        bail!("the first start was refused: {:?}", desk.take_events());
    }
    let address = round.server.as_ref().context("a server")?.address();
    let root = Caller::new(&desk, &address, KEEPER)?;
    let everybody: Vec<&str> = SENDERS.iter().copied().chain([READER, SLOW]).collect();
    for group in ["g0", "g1"] {
        root.group(group, &everybody).await?;
    }
    let mut clients: JoinSet<Result<()>> = JoinSet::new();
    let (tell, mut finished) = tokio::sync::mpsc::channel(64);
    let mut count = 0;
    let sockets = SENDERS.iter().map(|user| habit(user, false, true, 12)).chain([
        // A second device, and users who only read.
        habit("ben", false, false, 15),
        habit(READER, false, false, 10),
        habit(SLOW, true, false, 10),
        habit(GUEST, false, false, 50),
    ]);
    for habit in sockets {
        let life = Life { desk: desk.clone(), habit, seed: rng.random(), finished: tell.clone() };
        clients.spawn(async move {
            life.live().await;
            Ok(())
        });
        count += 1;
    }
    for user in [KEEPER, "cem"] {
        let (desk, tell, seed) = (desk.clone(), tell.clone(), u64::from(rng.random::<u32>()));
        clients.spawn(http::live(desk, habit(user, false, true, 8), seed, tell));
        count += 1;
    }
    drop(tell);
    busy(round, faults, rng).await?;
    if round.server.is_none() {
        return Ok(());
    }
    round.until_ready().await?;
    desk.phase.send_replace(Phase::Finish);
    let mut done: Vec<String> = Vec::new();
    while done.len() < count {
        match tokio::time::timeout(PATIENCE, finished.recv()).await {
            Ok(Some(who)) => done.push(who),
            Ok(None) | Err(_) => bail!("only {done:?} of {count} clients came to their end"),
        }
    }
    // What there is to be told of. Nobody changes anything any more.
    let mut heads: HashMap<Channel, Vec<u64>> = HashMap::new();
    let mark = desk.len();
    let mut watcher =
        Session::open(&desk, &round.server.as_ref().context("a server")?.address(), "ben", None, None).await?;
    for channel in channels().into_iter().filter(|channel| members()[channel].contains("ben")) {
        watcher.history(&channel, 1, true).await?;
    }
    watcher.answers().await?;
    watcher.end();
    for (channel, ids) in desk.whole_histories(mark) {
        heads.insert(channel, ids);
    }
    desk.phase.send_replace(Phase::Settle(heads));
    while let Some(ended) = tokio::time::timeout(PATIENCE, clients.join_next()).await.context("clients do not end")? {
        ended??;
    }
    round.end(false).await?;
    if !round.start().await? {
        return Ok(());
    }
    desk.record(What::Quiet);
    finale(round).await
}

/// Clients are busy while things go wrong.
async fn busy(round: &mut Round, faults: Faults, rng: &mut StdRng) -> Result<()> {
    for _ in 0..rng.random_range(2..=4) {
        tokio::time::sleep(Duration::from_millis(rng.random_range(150..600))).await;
        if faults == Faults::Disk && rng.random_bool(0.8) {
            let state = ["full", "eio", "nosync"][rng.random_range(0..3)];
            round.disk(state)?;
            tokio::time::sleep(Duration::from_millis(rng.random_range(30..400))).await;
            if rng.random_bool(0.7) {
                round.disk("ok")?;
                round.until_ready().await?;
                continue;
            }
        }
        round.end(rng.random_bool(0.2)).await?;
        round.disk("ok")?;
        if !round.start().await? {
            return Ok(());
        }
    }
    tokio::time::sleep(Duration::from_millis(rng.random_range(100..300))).await;
    Ok(())
}

/// Everybody reads everything.
async fn finale(round: &Round) -> Result<()> {
    let desk = &round.desk;
    let address = round.server.as_ref().context("a server")?.address();
    for user in SENDERS.iter().copied().chain([READER, SLOW]) {
        let mut session = Session::open(desk, &address, user, None, None).await?;
        session.sync(0, 5).await?;
        let mut caller = Caller::new(desk, &address, user)?;
        caller.sync(0, 3).await;
        let of_user = members().into_iter().filter(|(_, of)| of.contains(user));
        for (channel, _) in of_user {
            session.history(&channel, 1, true).await?;
            if matches!(channel, Channel::Group(_)) {
                session.members(&channel).await?;
            }
            if user != SLOW {
                caller.history(&channel, 1, true).await?;
            }
        }
        session.answers().await?;
        session.end();
    }
    Ok(())
}
