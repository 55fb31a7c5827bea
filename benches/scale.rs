//! What the derived state costs at size: looking for repeats, unread counts and a start after a crash, with ten million
//! messages in one channel and in 100,000. `cargo bench --bench scale`, one million with `-- --quick`.
//!
//! With `CHINWAG_SCALE_DIR=DIR` it only fills that data directory, as a crash leaves it, for a server to be started on.
//!
//! Every answer is compared with what was stored; a wrong one ends the run. A start is measured on a store that was left as
//! a crash leaves it, with the system's page cache as it is.

mod common;
#[path = "../examples/common/procfs.rs"]
mod procfs;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use chinwag::domain::message::{MessageFlags, fingerprint};
use chinwag::store::durable::{DurableStore, StoreOptions};
use chinwag::store::{ChannelNo, Commit, MessageRecord, Probe, Record, Store};
use common::{Plan, Random, median};
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageSeq, Uid};

const LOT: u64 = 1_024;
const PAYLOAD_BYTES: usize = 32;
const ASKED: u64 = 2_000;
/// Every fifth message is the asker's own, every seventh silent; every eleventh is revoked or expired.
const OWN: u64 = 5;
const SILENT: u64 = 7;
const GONE: u64 = 11;

fn client_msg_no(channel: ChannelNo, seq: u64) -> Result<ClientMsgNo> {
    Ok(ClientMsgNo::new(&format!("{:08x}-{seq:016x}", channel.0))?)
}

/// Who wrote a message: `asker`, or one of the others.
fn sender(seq: u64, others: u64) -> Result<Uid> {
    Ok(Uid::new(&if seq.is_multiple_of(OWN) { "asker".to_owned() } else { format!("user{}", seq % others) })?)
}

fn message(channel: ChannelNo, seq: u64, others: u64, random: &mut Random) -> Result<Record> {
    Ok(Record::Message(MessageRecord {
        extras: None,
        channel,
        message_seq: MessageSeq::new(seq).context("a seq from 1")?,
        from_uid: sender(seq, others)?,
        client_msg_no: client_msg_no(channel, seq)?,
        flags: MessageFlags { red_dot: !seq.is_multiple_of(SILENT), ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: Bytes::from(random.bytes(PAYLOAD_BYTES)),
    }))
}

fn open(dir: &Path) -> Result<DurableStore> {
    // The index of texts has a bench of its own.
    let mut options = StoreOptions::new(dir);
    options.search.on = false;
    Ok(DurableStore::open(options)?.0)
}

/// Stores `messages`, in turn to each of `channels`.
fn fill(store: &DurableStore, channels: u64, others: u64, messages: u64) -> Result<Vec<ChannelNo>> {
    let mut random = Random(0x5ca1e);
    let mut made = Vec::new();
    let mut lot = Vec::new();
    for n in 0..channels {
        let channel = store.reserve_channel_no();
        let key = ChannelKey::named(&format!("scale-{n}"), ChannelType::Group)?;
        lot.push(Commit::from(Record::ChannelCreated { channel, key }));
        made.push(channel);
        if lot.len() as u64 == LOT || n + 1 == channels {
            store.commit(&std::mem::take(&mut lot), &mut |_| {})?;
        }
    }
    for n in 0..messages {
        lot.push(Commit::from(message(made[(n % channels) as usize], n / channels + 1, others, &mut random)?));
        if lot.len() as u64 == LOT || n + 1 == messages {
            store.commit(&std::mem::take(&mut lot), &mut |_| {})?;
        }
    }
    Ok(made)
}

fn micros(took: Duration) -> f64 {
    took.as_secs_f64() * 1e6
}

fn shown(what: &str, mut took: Vec<f64>, reads: f64) {
    took.sort_by(f64::total_cmp);
    let p99 = took.get(took.len() * 99 / 100).copied().unwrap_or(0.0);
    println!("  {what:<48} p50 {:>10.1} us   p99 {p99:>10.1} us   view reads {reads:>6.1} each", median(took.clone()));
}

/// Asks for repeats of stored messages and for new ones, as a sequencer does: memory first, then the store.
fn repeats(store: &DurableStore, what: &str, channels: &[ChannelNo], each: u64, others: u64) -> Result<()> {
    let mut random = Random(7);
    for stored in [true, false] {
        let (mut took, mut asked_store) = (Vec::new(), 0);
        let before = store.read_counts().view;
        for _ in 0..ASKED {
            let channel = channels[(random.next() % channels.len() as u64) as usize];
            let seq = random.next() % each + if stored { 1 } else { each + 1 };
            let (from, number) = (sender(seq, others)?, client_msg_no(channel, seq)?);
            let started = Instant::now();
            let probe = store.probe(channel, fingerprint(&from, &number));
            let found = match probe {
                Probe::Ask => store.message_by_client_msg_no(channel, &from, &number)?,
                Probe::Absent => None,
            };
            took.push(micros(started.elapsed()));
            asked_store += u64::from(probe == Probe::Ask);
            ensure!(
                found.map(|m| m.message_seq.get()) == stored.then_some(seq),
                "a wrong answer about {channel:?} {seq}"
            );
        }
        let reads = (store.read_counts().view - before) as f64 / ASKED as f64;
        let kind = if stored { "repeats" } else { "new ones" };
        shown(&format!("{what}, {kind}, {} of {ASKED} asked the store", asked_store), took, reads);
    }
    Ok(())
}

/// Counts of unread, and positions for one, against a plain count.
fn unread(store: &DurableStore, channel: ChannelNo, last: u64) -> Result<()> {
    let asker = Uid::new("asker")?;
    let gone: Vec<u64> = (1..=last).step_by(GONE as usize).collect();
    for (n, part) in gone.chunks(1_000).enumerate() {
        // By turns, half of the gone are revoked and half have expired.
        if n % 2 == 0 {
            store.commit(&[Commit::from(Record::MessagesExpired { channel, seqs: part.to_vec() })], &mut |_| {})?;
            continue;
        }
        let revoked = part.iter().map(|&seq| Commit::from(Record::MessageRevoked { channel, seq, by: None }));
        store.commit(&revoked.collect::<Vec<_>>(), &mut |_| {})?;
    }
    let counts = |seq: u64| !seq.is_multiple_of(OWN) && !seq.is_multiple_of(SILENT) && !(seq - 1).is_multiple_of(GONE);
    let mut below = vec![0_u64; last as usize + 1];
    for seq in 1..=last {
        below[seq as usize] = below[seq as usize - 1] + u64::from(counts(seq));
    }
    let all = below[last as usize];
    let mut random = Random(11);
    for warm in [false, true] {
        let state = if warm { "rows in the view" } else { "behind the changes, before a checkpoint" };
        if warm {
            store.checkpoint()?;
        }
        let (mut counted, mut placed) = (Vec::new(), Vec::new());
        let before = store.read_counts().view;
        for _ in 0..ASKED {
            let floor = random.next() % (last + 1);
            let started = Instant::now();
            let found = store.countable_after(channel, &asker, floor)?;
            counted.push(micros(started.elapsed()));
            ensure!(found == (all - below[floor as usize], last), "unread after {floor}: {found:?}");
        }
        let between = store.read_counts().view;
        for _ in 0..ASKED {
            let wanted = random.next() % (all + 1);
            let started = Instant::now();
            let (position, count, _) = store.position_for_unread(channel, &asker, wanted, 0)?;
            placed.push(micros(started.elapsed()));
            ensure!(
                count == wanted && all - below[position as usize] == wanted,
                "setUnread {wanted}: {position}, {count}"
            );
        }
        let after = store.read_counts().view;
        shown(&format!("unread of {last}, {state}"), counted, (between - before) as f64 / ASKED as f64);
        shown(&format!("setUnread, {state}"), placed, (after - between) as f64 / ASKED as f64);
    }
    Ok(())
}

fn directory_bytes(dir: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += if meta.is_dir() { directory_bytes(&entry.path())? } else { meta.len() };
    }
    Ok(bytes)
}

fn run(name: &str, channels: u64, others: u64, messages: u64) -> Result<()> {
    let dir = common::scratch_dir()?;
    let store = open(dir.path())?;
    println!("{messages} messages in {name}");
    let started = Instant::now();
    let made = fill(&store, channels, others, messages)?;
    let filled = started.elapsed();
    println!(
        "  stored in {:.1} s, {:.0}/s; memory {} MB, rows {} of {} MB",
        filled.as_secs_f64(),
        messages as f64 / filled.as_secs_f64(),
        procfs::Process::own().rss()? >> 20,
        store.stats().cache_bytes >> 20,
        store.stats().cache_bytes_max >> 20,
    );
    let each = messages / channels;
    repeats(&store, "as stored", &made, each, others)?;
    store.abandon();
    let started = Instant::now();
    let store = open(dir.path())?;
    println!(
        "  start after a crash: {:.2} s; memory {} MB",
        started.elapsed().as_secs_f64(),
        procfs::Process::own().rss()? >> 20
    );
    repeats(&store, "after the start", &made, each, others)?;
    let cold = &made[..made.len().min(ASKED as usize)];
    let mut warmed = Vec::new();
    for &channel in cold {
        let started = Instant::now();
        store.warm(channel)?;
        warmed.push(micros(started.elapsed()));
    }
    shown("a channel's first send: rows, newest run, filters", warmed, 0.0);
    repeats(&store, "warm", cold, each, others)?;
    if channels == 1 {
        unread(&store, made[0], each.min(messages))?;
    }
    store.checkpoint()?;
    let stats = store.stats();
    drop(store);
    println!(
        "  memory {} MB, rows {} of {} MB; log {} B, view {} B per message\n",
        procfs::Process::own().rss()? >> 20,
        stats.cache_bytes >> 20,
        stats.cache_bytes_max >> 20,
        directory_bytes(&dir.path().join("log"))? / messages,
        directory_bytes(&dir.path().join("view"))? / messages,
    );
    Ok(())
}

fn main() -> Result<()> {
    let Some(plan) = Plan::from_args(2, Duration::ZERO) else { return Ok(()) };
    let messages = if plan.rounds == 1 { 1_000_000 } else { 10_000_000 };
    if let Some(dir) = std::env::var_os("CHINWAG_SCALE_DIR") {
        let store = open(Path::new(&dir))?;
        fill(&store, 100_000, 3, messages)?;
        store.abandon();
        return Ok(());
    }
    run("100,000 channels of four senders", 100_000, 3, messages)?;
    run("one channel of a thousand senders", 1, 1_000, messages)
}
