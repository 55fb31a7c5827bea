//! What a sync costs a user with 100, 10,000 and 100,000 conversations, when nothing changed for them, when 10
//! conversations changed, and when everything is asked for: time, CPU, reads of the view and of the log, bytes of the native
//! answer. `cargo bench --bench sync`, shorter with `-- --quick` (up to 10,000 conversations).
//!
//! The store is the durable one and was closed and opened again before the first sync, which is printed apart: it finds
//! nothing in memory. "Nothing changed" means that as many other channels changed since. Each of the 10 changed
//! conversations has many unread messages. Counts of reads are exact and repeat; times are medians of rounds.

mod common;
#[path = "../examples/common/procfs.rs"]
mod procfs;

use std::borrow::Cow;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chinwag::domain::message::MessageFlags;
use chinwag::hub::conversations::{SyncAnswer, SyncRequest, sync};
use chinwag::store::durable::{DurableStore, StoreOptions};
use chinwag::store::{ChannelNo, Commit, MessageRecord, Record, Store};
use common::{Plan, Random, median};
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, MessageSeq, Uid, Version};
use protocol::native::{self, Encoding, ServerFrame};

const CHANGED: usize = 10;
const PAYLOAD_BYTES: usize = 128;
const LOT: usize = 1_024;

struct Scene {
    channels: Vec<(ChannelNo, u64)>,
    random: Random,
    counter: u64,
}

impl Scene {
    fn message(&mut self, at: usize) -> Result<Commit> {
        let (channel, head) = &mut self.channels[at];
        *head += 1;
        self.counter += 1;
        Ok(Commit::from(Record::Message(MessageRecord {
            extras: None,
            channel: *channel,
            message_seq: MessageSeq::new(*head).context("a seq from 1")?,
            from_uid: Uid::new("somebody")?,
            client_msg_no: ClientMsgNo::new(&format!("{:032x}", self.counter))?,
            flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
            setting: 0,
            topic: String::new(),
            expire_s: 0,
            payload: Bytes::from(self.random.bytes(PAYLOAD_BYTES)),
        })))
    }

    fn messages(&mut self, store: &dyn Store, of: impl Iterator<Item = usize>) -> Result<()> {
        let mut lot = Vec::with_capacity(LOT);
        for at in of {
            lot.push(self.message(at)?);
            if lot.len() == LOT {
                store.commit(&lot, &mut |_| {})?;
                lot.clear();
            }
        }
        if !lot.is_empty() {
            store.commit(&lot, &mut |_| {})?;
        }
        Ok(())
    }

    /// `own` conversations of the asker with a message each, and as many channels of others.
    fn new(store: &dyn Store, own: usize, asker: &Uid) -> Result<Self> {
        let mut scene = Self { channels: Vec::with_capacity(own * 2), random: Random(0x5eed), counter: 0 };
        let mut lot = Vec::with_capacity(LOT);
        for i in 0..own * 2 {
            let channel = store.reserve_channel_no();
            let key = ChannelKey::named(&format!("conversation-{i}"), ChannelType::Group)?;
            let uids = vec![if i < own { asker.clone() } else { Uid::new("another")? }, Uid::new("somebody")?];
            lot.push(Commit::from(Record::ChannelCreated { channel, key }));
            lot.push(Commit::from(Record::MembersAdded { channel, join_floor: 0, uids }));
            scene.channels.push((channel, 0));
            if lot.len() >= LOT || i + 1 == own * 2 {
                store.commit(&lot, &mut |_| {})?;
                lot.clear();
            }
        }
        scene.messages(store, 0..own * 2)?;
        Ok(scene)
    }
}

fn open(dir: &Path) -> Result<DurableStore> {
    Ok(DurableStore::open(StoreOptions::new(dir))?.0)
}

/// Size of the answer as the native wire writes it.
fn answer_bytes(answer: &SyncAnswer, asker: &Uid) -> Result<usize> {
    let rows = answer.rows.iter().map(|row| native::Row {
        channel_id: Cow::Borrowed(row.channel.id_for(asker.as_str())),
        channel_type: row.channel.channel_type().to_wire(),
        unread: row.unread,
        timestamp: row.timestamp_s * 1_000,
        last_msg_seq: row.last_msg_seq,
        last_client_msg_no: Cow::Borrowed(&row.last_client_msg_no),
        version: row.version.get(),
        read_to_msg_seq: row.read_to_msg_seq,
        deleted_to_msg_seq: row.deleted_to_msg_seq,
        is_deleted: row.is_deleted,
        reset: row.reset,
        complete: row.complete,
        first_seq: row.first_seq,
        changed: row.changed.iter().map(|(seq, _)| *seq).collect(),
        changed_more: row.changed_more,
        mentions: row.mentions,
        pinned: row.pinned,
        muted: row.muted,
        request: row.request,
        recents: row
            .recents
            .iter()
            .map(|message| native::MessageItem {
                message_seq: message.message_seq.get(),
                message_id: message.message_id.get(),
                from_uid: Cow::Borrowed(message.from_uid.as_str()),
                client_msg_no: Cow::Borrowed(message.client_msg_no.as_str()),
                timestamp: message.timestamp_ms(),
                payload: Cow::Borrowed(&message.payload),
                red_dot: message.flags.red_dot,
                ..native::MessageItem::default()
            })
            .collect(),
    });
    let synced = native::Synced {
        client_seq: 1,
        version: answer.version.get(),
        reset: answer.reset,
        more: false,
        page_after: None,
        rows: rows.collect(),
    };
    let mut bytes = Vec::new();
    native::encode_server(Encoding::MessagePack, &ServerFrame::Synced(synced), &mut bytes)?;
    Ok(bytes.len())
}

fn measure(
    store: &dyn Store,
    plan: Plan,
    own: usize,
    what: &str,
    request: &SyncRequest,
    rows_expected: usize,
    cold: bool,
) -> Result<()> {
    let (rounds, cell) = if cold { (1, Duration::ZERO) } else { (plan.rounds, plan.cell) };
    let mut per_sync = Vec::new();
    let (mut reads, mut bytes, mut syncs) = ((0, 0), 0, 0u32);
    let cpu = procfs::Process::own().cpu()?;
    for _ in 0..rounds {
        let mut times = Vec::new();
        let round = Instant::now();
        while round.elapsed() < cell || times.is_empty() {
            let before = store.read_counts();
            let started = Instant::now();
            let answer = sync(store, request).map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            times.push(started.elapsed().as_secs_f64() * 1e6);
            let after = store.read_counts();
            reads = (after.view - before.view, after.log - before.log);
            anyhow::ensure!(answer.rows.len() == rows_expected, "{} rows, {rows_expected} changed", answer.rows.len());
            bytes = answer_bytes(&answer, &request.uid)?;
            syncs += 1;
        }
        per_sync.push(median(times));
    }
    let cpu = (procfs::Process::own().cpu()? - cpu).as_secs_f64() * 1e6 / f64::from(syncs);
    let first = if cold { "first after restart" } else { "" };
    let cpu = if cold { String::new() } else { format!("{cpu:.1}") };
    println!(
        "{own:>8} {what:<22} {first:<20} {:>12.1} {cpu:>12} {:>8} {:>8} {bytes:>12}",
        median(per_sync),
        reads.0,
        reads.1
    );
    Ok(())
}

fn main() -> Result<()> {
    let Some(plan) = Plan::from_args(5, Duration::from_millis(200)) else { return Ok(()) };
    let sizes: &[usize] = if plan.rounds == 1 { &[100, 10_000] } else { &[100, 10_000, 100_000] };
    println!(
        "{:>8} {:<22} {:<20} {:>12} {:>12} {:>8} {:>8} {:>12}",
        "rows", "asked", "", "us", "cpu us", "view", "log", "bytes"
    );
    for own in sizes.iter().copied() {
        let dir = common::scratch_dir()?;
        let asker = Uid::new("asker")?;
        let since = |version: Version| SyncRequest { version, ..SyncRequest::full(asker.clone(), 1) };
        let store = open(dir.path())?;
        let mut scene = Scene::new(&store, own, &asker)?;
        let before_others = store.version();
        scene.messages(&store, own..own * 2)?;
        drop(store);

        let store = open(dir.path())?;
        measure(&store, plan, own, "nothing changed", &since(before_others), 0, true)?;
        measure(&store, plan, own, "nothing changed", &since(before_others), 0, false)?;
        let before_own = store.version();
        // As many unread in each as there are conversations, so that counting one by one would show.
        let unread = own.clamp(1_000, 10_000);
        scene.messages(&store, (0..CHANGED * unread).map(|i| i % CHANGED * (own / CHANGED)))?;
        drop(store);

        let store = open(dir.path())?;
        let what = format!("{CHANGED} changed, {unread} unread");
        measure(&store, plan, own, &what, &since(before_own), CHANGED, true)?;
        measure(&store, plan, own, &what, &since(before_own), CHANGED, false)?;
        drop(store);

        let store = open(dir.path())?;
        measure(&store, plan, own, "everything", &since(Version::ZERO), own, true)?;
        measure(&store, plan, own, "everything", &since(Version::ZERO), own, false)?;
    }
    Ok(())
}
