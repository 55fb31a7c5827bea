//! Proves ack-means-stored, one-order and stored-once against SIGKILL: a real server on one data directory that grows is
//! killed at random moments, under load from concurrent senders, during checkpoints and while it starts. After each kill:
//! what was acked is stored exactly once, with its seq, id and payload; every channel is 1, 2, 3 …; what was read before is
//! still there; retries of acked messages are recognised; a read position answered with success holds.
//!
//! `cargo test --test crash -- --rounds 200 --seed 7`, or CHINWAG_CRASH_ROUNDS and CHINWAG_CRASH_SEED.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use futures_util::{SinkExt, StreamExt};
use protocol::native::{
    ClientFrame, Connect, Durability, Encoding, History, MessageItem, Read, Send, ServerFrame, Sync, decode_server,
    encode_client,
};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

mod process;

use process::Process;

const SENDERS: usize = 6;
const GROUPS: usize = 4;
const IN_FLIGHT: usize = 48;
const PATIENCE: Duration = Duration::from_secs(30);
const ROUNDS: u32 = 20;

/// A channel as the senders name it: a group, or the pair (sender, peer).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Channel {
    Group(usize),
    Pair(String, String),
}

impl Channel {
    fn seen_by(&self, uid: &str) -> (String, u8) {
        match self {
            Self::Group(n) => (format!("g{n}"), 2),
            Self::Pair(a, b) => (if a == uid { b.clone() } else { a.clone() }, 1),
        }
    }

    fn member(&self) -> String {
        match self {
            Self::Group(_) => "s0".into(),
            Self::Pair(a, _) => a.clone(),
        }
    }
}

/// One message as its sender knows it.
#[derive(Debug, Clone)]
struct Sent {
    channel: Channel,
    from: String,
    /// Seq and id, once acked as `disk`.
    acked: Option<(u64, u64)>,
}

/// Everything that must hold across kills. Names are unique, so they key it.
#[derive(Default)]
struct Ledger {
    sent: BTreeMap<String, Sent>,
    /// Per channel: the ids and names read and verified so far, by seq.
    verified: HashMap<Channel, Vec<(u64, String)>>,
    /// The reader's positions in g0: the last answered and the one asked for behind it.
    read: (u64, u64),
}

/// A payload is made from its name, so that it need not be kept.
fn payload(name: &str) -> Vec<u8> {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in name.bytes() {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    }
    let mut rng = StdRng::seed_from_u64(hash);
    let len = if rng.random_bool(0.05) { rng.random_range(0..20_000) } else { rng.random_range(0..600) };
    (0..len).map(|_| rng.random()).collect()
}

fn command(dir: &Path, tight: bool) -> Command {
    let mut command = process::server(dir, &dir.join("data"), "warn");
    if tight {
        // Kills meet checkpoints and new segments.
        command.args(["--set", "store.checkpoint_interval_ms=100"]);
        command.args(["--set", "store.checkpoint_log_bytes_max=1048576", "--set", "store.segment_bytes_max=1048576"]);
    }
    command
}

struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    next_seq: u64,
}

impl Client {
    async fn connect(server: &str, key: &str, uid: &str) -> Result<Self> {
        let mut request = server.into_client_request()?;
        request.headers_mut().insert("Sec-WebSocket-Protocol", Encoding::MessagePack.subprotocol().parse()?);
        let (socket, _) = tokio_tungstenite::connect_async(request).await?;
        let mut client = Self { socket, next_seq: 0 };
        let connect = Connect {
            token: key.into(),
            uid: Some(uid.into()),
            device_id: "".into(),
            device_flag: 0,
            client: None,
            resume: None,
        };
        client.send(&ClientFrame::Connect(connect)).await?;
        match client.next().await? {
            ServerFrame::Connected(_) => Ok(client),
            other => bail!("expected connected, got {other:?}"),
        }
    }

    fn seq(&mut self) -> u64 {
        self.next_seq += 1;
        self.next_seq
    }

    async fn send(&mut self, frame: &ClientFrame<'_>) -> Result<()> {
        let mut bytes = Vec::new();
        encode_client(Encoding::MessagePack, frame, &mut bytes)?;
        Ok(self.socket.send(Message::binary(bytes)).await?)
    }

    async fn next(&mut self) -> Result<ServerFrame<'static>> {
        loop {
            let message = tokio::time::timeout(PATIENCE, self.socket.next()).await.context("no frame in time")?;
            match message.context("end of stream")?? {
                Message::Binary(bytes) => return Ok(decode_server(Encoding::MessagePack, &bytes)?),
                Message::Close(_) => bail!("closed"),
                _ => {}
            }
        }
    }

    async fn message(
        &mut self,
        channel: &Channel,
        uid: &str,
        name: &str,
        bytes: Vec<u8>,
        level: Durability,
    ) -> Result<u64> {
        let client_seq = self.seq();
        let (channel_id, channel_type) = channel.seen_by(uid);
        let send = Send {
            client_seq,
            channel_id: channel_id.into(),
            channel_type,
            client_msg_no: name.to_owned().into(),
            payload: bytes.into(),
            durability: level,
            ..Send::default()
        };
        self.send(&ClientFrame::Send(send)).await?;
        Ok(client_seq)
    }

    /// Sends and waits: seq, id, duplicate; or the code of the refusal.
    async fn ask(
        &mut self,
        channel: &Channel,
        uid: &str,
        name: &str,
        bytes: Vec<u8>,
    ) -> Result<Result<(u64, u64, bool), String>> {
        let asked = self.message(channel, uid, name, bytes, Durability::Disk).await?;
        loop {
            match self.next().await? {
                ServerFrame::Ack(ack) if ack.client_seq == asked => {
                    return Ok(Ok((ack.message_seq, ack.message_id, ack.duplicate)));
                }
                ServerFrame::Refused(no) if no.client_seq == asked => return Ok(Err(no.code.into_owned())),
                _ => {}
            }
        }
    }

    async fn history(&mut self, channel: &Channel, uid: &str, mut first: u64) -> Result<Vec<MessageItem<'static>>> {
        let mut all = Vec::new();
        let (channel_id, channel_type) = channel.seen_by(uid);
        loop {
            let client_seq = self.seq();
            let history = History {
                client_seq,
                channel_id: channel_id.clone().into(),
                channel_type,
                first_seq: first,
                last_seq: 0,
                limit: 1_000,
                newest_first: false,
            };
            self.send(&ClientFrame::History(history)).await?;
            let page = loop {
                match self.next().await? {
                    ServerFrame::Messages(page) if page.client_seq == client_seq => break page,
                    ServerFrame::Refused(no) if no.client_seq == client_seq => bail!("history refused: {no:?}"),
                    _ => {}
                }
            };
            first = page.messages.last().map_or(first, |m| m.message_seq + 1);
            all.extend(page.messages);
            if !page.more {
                return Ok(all);
            }
        }
    }
}

/// One sender: keeps sends in flight until the server is gone.
async fn sender(
    server: String,
    key: String,
    uid: String,
    round: u32,
    seed: u64,
    ledger: Arc<Mutex<Ledger>>,
) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut client = Client::connect(&server, &key, &uid).await?;
    let mut in_flight: HashMap<u64, (String, Durability)> = HashMap::new();
    let mut last_seq: HashMap<Channel, (u64, u64)> = HashMap::new();
    for n in 0_u64.. {
        let name = format!("{uid}-{round}-{n}");
        let channel = if rng.random_bool(0.7) {
            Channel::Group(rng.random_range(0..GROUPS))
        } else {
            let peer = format!("s{}", rng.random_range(0..SENDERS));
            Channel::Pair(uid.clone().min(peer.clone()), uid.clone().max(peer))
        };
        let level = if rng.random_bool(0.1) { Durability::Memory } else { Durability::Disk };
        let sent = Sent { channel: channel.clone(), from: uid.clone(), acked: None };
        ledger.lock().expect("no panic under it").sent.insert(name.clone(), sent);
        let client_seq = client.message(&channel, &uid, &name, payload(&name), level).await?;
        in_flight.insert(client_seq, (name, level));
        while in_flight.len() >= IN_FLIGHT {
            match client.next().await? {
                ServerFrame::Ack(ack) => {
                    let Some((name, level)) = in_flight.remove(&ack.client_seq) else { continue };
                    ensure!(!ack.duplicate, "{name} is called a duplicate");
                    if level == Durability::Disk {
                        let mut ledger = ledger.lock().expect("no panic under it");
                        let sent = ledger.sent.get_mut(&name).context("sent")?;
                        sent.acked = Some((ack.message_seq, ack.message_id));
                        let last = last_seq.entry(sent.channel.clone()).or_default();
                        ensure!(ack.client_seq > last.0 && ack.message_seq > last.1, "acks of a channel out of order");
                        *last = (ack.client_seq, ack.message_seq);
                    }
                }
                ServerFrame::Refused(no) => {
                    ensure!(no.retry_after_ms.is_some(), "refused: {no:?}");
                    in_flight.remove(&no.client_seq);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// A member who never sends and reads on in g0.
async fn reader(server: String, key: String, ledger: Arc<Mutex<Ledger>>) -> Result<()> {
    let mut client = Client::connect(&server, &key, "reader").await?;
    loop {
        let client_seq = client.seq();
        let asked = {
            let mut ledger = ledger.lock().expect("no panic under it");
            ledger.read.1 = ledger.read.0 + 1;
            ledger.read.1
        };
        let read = Read { client_seq, channel_id: "g0".into(), channel_type: 2, message_seq: asked };
        client.send(&ClientFrame::Read(read)).await?;
        loop {
            match client.next().await? {
                ServerFrame::Done(done) if done.client_seq == client_seq => {
                    let now = done.read_to_msg_seq.unwrap_or(0);
                    ledger.lock().expect("no panic under it").read = (now, now);
                    break;
                }
                ServerFrame::Refused(no) if no.client_seq == client_seq => bail!("read refused: {no:?}"),
                _ => {}
            }
        }
    }
}

/// Checks what a restarted server holds against the ledger.
async fn verify(server: &Process, key: &str, ledger: &mut Ledger, rng: &mut StdRng, whole: bool) -> Result<()> {
    let channels: HashSet<Channel> = ledger.sent.values().map(|sent| sent.channel.clone()).collect();
    let mut stored: HashMap<String, (u64, u64)> = HashMap::new();
    let mut clients: HashMap<String, Client> = HashMap::new();
    for channel in &channels {
        let uid = channel.member();
        if !clients.contains_key(&uid) {
            clients.insert(uid.clone(), Client::connect(&server.socket, key, &uid).await?);
        }
        let client = clients.get_mut(&uid).context("connected")?;
        let verified = ledger.verified.entry(channel.clone()).or_default();
        let known = verified.len() as u64;
        let first = if whole { 1 } else { rng.random_range(known.saturating_sub(50)..=known) + 1 };
        let messages = client.history(channel, &uid, first).await?;
        for (i, message) in messages.iter().enumerate() {
            let (seq, name) = (message.message_seq, message.client_msg_no.to_string());
            ensure!(seq == first + i as u64, "{channel:?}: seq {seq} where {} belongs", first + i as u64);
            ensure!(*message.payload == *payload(&name), "{channel:?} {seq}: payload of {name} differs");
            let sent = ledger.sent.get(&name).with_context(|| format!("{name} was never sent"))?;
            ensure!(sent.channel == *channel && sent.from == message.from_uid, "{name} is in the wrong place");
            match verified.get(seq as usize - 1) {
                Some(before) => ensure!(*before == (message.message_id, name.clone()), "{channel:?} {seq} has changed"),
                None => verified.push((message.message_id, name.clone())),
            }
        }
        ensure!(
            verified.len() as u64 == first - 1 + messages.len() as u64,
            "{channel:?}: what was read before is gone"
        );
        for (i, (id, name)) in verified.iter().enumerate() {
            ensure!(stored.insert(name.clone(), (i as u64 + 1, *id)).is_none(), "{name} is stored twice");
        }
    }
    let acked = ledger.sent.iter().filter_map(|(name, sent)| Some((name, sent.acked?)));
    for (name, outcome) in acked {
        ensure!(
            stored.get(name) == Some(&outcome),
            "{name} was acked as {outcome:?}, stored is {:?}",
            stored.get(name)
        );
    }
    // Retries: a sample of all rounds, and whatever had no outcome.
    let names: Vec<String> = ledger.sent.keys().cloned().collect();
    let open = names.iter().filter(|name| ledger.sent[*name].acked.is_none()).cloned();
    let sample: Vec<String> = (0..60).map(|_| names[rng.random_range(0..names.len())].clone()).chain(open).collect();
    for name in sample {
        let (channel, from) = (ledger.sent[&name].channel.clone(), ledger.sent[&name].from.clone());
        if !clients.contains_key(&from) {
            clients.insert(from.clone(), Client::connect(&server.socket, key, &from).await?);
        }
        let client = clients.get_mut(&from).context("connected")?;
        let outcome = client.ask(&channel, &from, &name, payload(&name)).await?;
        let (seq, id, duplicate) = outcome.map_err(|code| anyhow::anyhow!("retry of {name} refused: {code}"))?;
        match stored.get(&name) {
            Some(first) => {
                ensure!(duplicate && (seq, id) == *first, "retry of {name}: {first:?}, then {:?}", (seq, id))
            }
            None => {
                ensure!(!duplicate, "{name} is called a duplicate and was not stored");
                stored.insert(name.clone(), (seq, id));
                let verified = ledger.verified.entry(channel.clone()).or_default();
                ensure!(seq == verified.len() as u64 + 1, "{channel:?}: {seq} behind {}", verified.len());
                verified.push((id, name.clone()));
            }
        }
        ledger.sent.get_mut(&name).context("sent")?.acked = Some((seq, id));
        if rng.random_bool(0.1) {
            let mut other = payload(&name);
            other.push(1);
            let code = client.ask(&channel, &from, &name, other).await?.err();
            ensure!(code.as_deref() == Some("client_msg_no_conflict"), "{name} with another payload: {code:?}");
        }
    }
    let mut client = Client::connect(&server.socket, key, "reader").await?;
    let client_seq = client.seq();
    let sync = Sync {
        client_seq,
        version: 0,
        last_msg_seqs: None,
        cursors: Vec::new(),
        msg_count: 0,
        only_unread: false,
        page_after: None,
        rows_max: 0,
    };
    client.send(&ClientFrame::Sync(sync)).await?;
    loop {
        if let ServerFrame::Synced(synced) = client.next().await? {
            let row = synced.rows.iter().find(|row| row.channel_id == "g0").context("the reader's row")?;
            let (done, asked) = ledger.read;
            let read = row.read_to_msg_seq;
            ensure!(read == done || read == asked, "read position {read}, answered {done}, asked {asked}");
            let head = ledger.verified[&Channel::Group(0)].len() as u64;
            ensure!(row.unread == head - read, "unread {} with head {head} and read {read}", row.unread);
            ledger.read = (read, read);
            return Ok(());
        }
    }
}

async fn make_groups(server: &Process, key: &str) -> Result<()> {
    let mut members: Vec<String> = (0..SENDERS).map(|n| format!("s{n}")).collect();
    members.push("reader".into());
    for n in 0..GROUPS {
        let body = serde_json::json!({ "channel_id": format!("g{n}"), "channel_type": 2, "subscribers": members });
        let request = reqwest::Client::new().post(format!("{}/channel", server.http)).header("token", key).json(&body);
        let response = request.send().await?;
        ensure!(response.status().is_success(), "POST /channel: {}", response.status());
    }
    Ok(())
}

async fn run(rounds: u32, seed: u64) -> Result<()> {
    let mut rng = StdRng::seed_from_u64(seed);
    let dir = tempfile::tempdir()?;
    let ledger = Arc::new(Mutex::new(Ledger::default()));
    let mut key = String::new();
    for round in 1..=rounds {
        let begun = Instant::now();
        let tight = rng.random_bool(0.6);
        if round > 1 && rng.random_bool(0.3) {
            // Killed while it starts, replays or rebuilds.
            let mut child = command(dir.path(), tight).stdout(Stdio::null()).spawn()?;
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..150))).await;
            child.kill()?;
            child.wait()?;
        }
        let mut server = Process::started(command(dir.path(), tight)).await?;
        if round == 1 {
            key = std::fs::read_to_string(dir.path().join("data/root.key"))?.trim().to_owned();
            make_groups(&server, &key).await?;
        } else {
            let mut held = std::mem::take(&mut *ledger.lock().expect("no panic under it"));
            verify(&server, &key, &mut held, &mut rng, round.is_multiple_of(7)).await?;
            *ledger.lock().expect("no panic under it") = held;
        }
        let verified_ms = begun.elapsed().as_millis();
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..SENDERS {
            let (socket, key) = (server.socket.clone(), key.clone());
            tasks.spawn(sender(socket, key, format!("s{n}"), round, rng.random(), ledger.clone()));
        }
        tasks.spawn(reader(server.socket.clone(), key.clone(), ledger.clone()));
        tokio::time::sleep(Duration::from_millis(rng.random_range(20..700))).await;
        server.kill()?;
        while let Some(ended) = tasks.join_next().await {
            // Each ends because the server is gone; what it found wrong before is told apart.
            let error = ended?.err().map(|error| format!("{error:#}")).unwrap_or_default();
            for wrong in ["duplicate", "out of order", "refused", "no frame in time"] {
                ensure!(!error.contains(wrong), "round {round}: {error}");
            }
        }
        let (sent, acked) = {
            let ledger = ledger.lock().expect("no panic under it");
            (ledger.sent.len(), ledger.sent.values().filter(|sent| sent.acked.is_some()).count())
        };
        println!("round {round}: tight {tight}, {sent} sent, {acked} acked, verified after {verified_ms} ms");
    }
    let mut server = Process::started(command(dir.path(), true)).await?;
    let mut held = std::mem::take(&mut *ledger.lock().expect("no panic under it"));
    verify(&server, &key, &mut held, &mut rng, true).await?;
    let status = server.stop()?;
    ensure!(status.success(), "after SIGTERM: {status}");
    let total: usize = held.verified.values().map(Vec::len).sum();
    println!("{total} messages in {} channels are all there, once", held.verified.len());
    Ok(())
}

fn main() -> Result<()> {
    let mut rounds = std::env::var("CHINWAG_CRASH_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(ROUNDS);
    let mut seed = std::env::var("CHINWAG_CRASH_SEED").ok().and_then(|n| n.parse().ok());
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--rounds" => rounds = args.next().context("--rounds N")?.parse()?,
            "--seed" => seed = Some(args.next().context("--seed N")?.parse()?),
            "--list" => return Ok(()),
            flag if flag.starts_with('-') => {}
            // A filter of `cargo test NAME` that means other tests.
            filter if !"crash".contains(filter) => return Ok(()),
            _ => {}
        }
    }
    let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("crash: {rounds} rounds, seed {seed}");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(run(rounds, seed)).with_context(|| format!("seed {seed}"))
}
