//! What making messages durable costs: lots of different sizes into the durable store and the memory model, to one channel
//! and to many, with the look for repeats that idempotency needs; beside it, in the same rounds, the disk's own limit:
//! append and fdatasync of as many bytes. `cargo bench --bench commit`, shorter with `-- --quick`.
//!
//! Figures are medians of interleaved rounds. CPU is this process's, the store's checkpoints included; steps of 10 ms
//! over all rounds of a line.

mod common;
#[path = "../examples/common/procfs.rs"]
mod procfs;

use std::fs::File;
use std::io::Write as _;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use chinwag::domain::message::{MessageFlags, fingerprint};
use chinwag::store::durable::{DurableStore, StoreOptions};
use chinwag::store::memory::MemoryStore;
use chinwag::store::{ChannelNo, Commit, MessageRecord, Probe, Record, Store};
use common::{Plan, Random, median};
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageSeq, Uid};

const LOTS: [usize; 5] = [1, 16, 64, 256, 1_024];
const CHANNELS_MANY: usize = 10_000;
const PAYLOAD_BYTES: usize = 128;
/// Bytes of a message's record and its share of the lot beside the payload, for the raw line.
const RECORD_OVERHEAD_BYTES: usize = 96;

struct Target {
    name: &'static str,
    store: Box<dyn Store>,
    channels: Vec<(ChannelNo, u64)>,
    turn: usize,
    sent: u64,
    sender: Uid,
    random: Random,
}

impl Target {
    fn new(name: &'static str, store: Box<dyn Store>, channels: usize, seed: u64) -> Result<Self> {
        let mut made = Vec::with_capacity(channels);
        let mut lot = Vec::new();
        for i in 0..channels {
            let channel = store.reserve_channel_no();
            let key = ChannelKey::named(&format!("bench-{i}"), ChannelType::Group)?;
            lot.push(Commit::from(Record::ChannelCreated { channel, key }));
            made.push((channel, 0));
            if lot.len() == 1_024 || i + 1 == channels {
                store.commit(&lot, &mut |_| {})?;
                lot.clear();
            }
        }
        for (channel, _) in &made {
            store.warm(*channel)?;
        }
        Ok(Self { name, store, channels: made, turn: 0, sent: 0, sender: Uid::new("sender")?, random: Random(seed) })
    }

    /// Numbers and looks at a lot as the sequencer does.
    fn lot(&mut self, size: usize) -> Result<Vec<Commit>> {
        let mut lot = Vec::with_capacity(size);
        for _ in 0..size {
            self.turn = (self.turn + 1) % self.channels.len();
            let (channel, head) = &mut self.channels[self.turn];
            self.sent += 1;
            let client_msg_no = ClientMsgNo::new(&format!("{:032x}", self.sent))?;
            let repeat = self.store.probe(*channel, fingerprint(&self.sender, &client_msg_no));
            if repeat == Probe::Ask {
                let found = self.store.message_by_client_msg_no(*channel, &self.sender, &client_msg_no)?;
                ensure!(found.is_none(), "a new message was taken for a repeat");
            }
            *head += 1;
            lot.push(Commit::from(Record::Message(MessageRecord {
                extras: None,
                channel: *channel,
                message_seq: MessageSeq::new(*head).context("a seq from 1")?,
                from_uid: self.sender.clone(),
                client_msg_no,
                flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
                setting: 0,
                topic: String::new(),
                expire_s: 0,
                payload: Bytes::from(self.random.bytes(PAYLOAD_BYTES)),
            })));
        }
        Ok(lot)
    }
}

#[derive(Default)]
struct Line {
    per_second: Vec<f64>,
    lot_us: Vec<f64>,
    cpu: Duration,
    messages: u64,
}

impl Line {
    fn measure(&mut self, cell: Duration, size: usize, mut lot: impl FnMut() -> Result<Duration>) -> Result<()> {
        let cpu = procfs::Process::own().cpu()?;
        let (mut lots, mut spent) = (Vec::new(), Duration::ZERO);
        while spent < cell || lots.is_empty() {
            let took = lot()?;
            spent += took;
            lots.push(took.as_secs_f64() * 1e6);
        }
        let messages = (lots.len() * size) as f64;
        self.messages += messages as u64;
        self.per_second.push(messages / spent.as_secs_f64());
        self.lot_us.push(median(lots));
        self.cpu += procfs::Process::own().cpu()? - cpu;
        Ok(())
    }
}

fn main() -> Result<()> {
    let Some(plan) = Plan::from_args(5, Duration::from_millis(300)) else { return Ok(()) };
    let seed = 0x5eed;
    let dir = common::scratch_dir()?;
    let durable = |name: &str| -> Result<Box<dyn Store>> {
        Ok(Box::new(DurableStore::open(StoreOptions::new(dir.path().join(name)))?.0))
    };
    let mut targets = [
        Target::new("memory,  1 channel", Box::new(MemoryStore::new()), 1, seed)?,
        Target::new("memory,  10,000 channels", Box::new(MemoryStore::new()), CHANNELS_MANY, seed)?,
        Target::new("durable, 1 channel", durable("one")?, 1, seed)?,
        Target::new("durable, 10,000 channels", durable("many")?, CHANNELS_MANY, seed)?,
    ];
    println!("{} B payloads, seed {seed:#x}, {} rounds of {:?}", PAYLOAD_BYTES, plan.rounds, plan.cell);
    let mut raw = File::create(dir.path().join("raw"))?;
    let bytes = Random(seed).bytes((PAYLOAD_BYTES + RECORD_OVERHEAD_BYTES) * LOTS[LOTS.len() - 1]);
    let mut lines: Vec<Vec<Line>> = Vec::new();
    lines.resize_with(targets.len() + 1, || LOTS.iter().map(|_| Line::default()).collect());
    for _ in 0..plan.rounds {
        for (at, size) in LOTS.into_iter().enumerate() {
            for (target, lines) in targets.iter_mut().zip(&mut lines) {
                lines[at].measure(plan.cell, size, || {
                    let started = Instant::now();
                    let lot = target.lot(size)?;
                    target.store.commit(&lot, &mut |_| {})?;
                    Ok(started.elapsed())
                })?;
            }
            lines[targets.len()][at].measure(plan.cell, size, || {
                let started = Instant::now();
                raw.write_all(&bytes[..(PAYLOAD_BYTES + RECORD_OVERHEAD_BYTES) * size])?;
                raw.sync_data()?;
                Ok(started.elapsed())
            })?;
        }
    }
    let names = targets.iter().map(|target| target.name).chain(["append + fdatasync"]);
    println!("{:<26} {:>6} {:>12} {:>12} {:>12} {:>8}", "", "lot", "messages/s", "lot p50 us", "cpu us/msg", "of raw");
    for (name, of_target) in names.zip(&lines) {
        for (at, line) in of_target.iter().enumerate() {
            let (rate, limit) = (median(line.per_second.clone()), median(lines[targets.len()][at].per_second.clone()));
            println!(
                "{name:<26} {:>6} {rate:>12.0} {:>12.1} {:>12.2} {:>8.2}",
                LOTS[at],
                median(line.lot_us.clone()),
                line.cpu.as_secs_f64() * 1e6 / line.messages.max(1) as f64,
                rate / limit
            );
        }
    }
    Ok(())
}
