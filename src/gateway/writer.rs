//! The write halves of a shard and the flusher that drains outboxes into them.
//!
//! Owns one [`Writer`] per slot, bytes that a socket took only in part, and the dirty-list flusher: after a turn, every slot
//! that became dirty is written in one go (control first, then what waits live), so the busier a shard is the more goes into
//! one write. Counts what each connection has carried, in plain numbers that only the shard's thread touches. Only a socket that would block gets a task of its own, to say when it is writable again.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::ops::Range;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use protocol::close::CloseReason;
use smallvec::SmallVec;
use tokio::net::tcp::OwnedWriteHalf;

use super::native::Viewer;
use super::wire::Wire;
use super::{Context, GatewayLimits};
use crate::hub::outbox::{Control, Live};
use crate::hub::sessions::{Passed, SessionId, SessionPlace, Traffic};
use crate::hub::shard::Shard;
use crate::metrics::Metrics;

/// Pieces of one vectored write.
const PIECES_MAX: usize = 64;
/// Bytes gathered for one write: beyond some 64 KiB a larger write no longer costs less per byte.
const WRITE_BYTES_MAX: usize = 128 * 1024;
/// Encoded entries smaller than this are copied together; larger ones are written from where they are shared.
const COPY_BYTES_MAX: usize = 2_048;
/// Slots flushed before the shard's other tasks get a turn.
const SLOTS_PER_TURN: usize = 256;
/// How long a session that is closed may take to read what waits for it and why it ends.
const CLOSE_GRACE_MS: u64 = 1_000;

/// How long a kicked client of WuKongIM may take to read why (wukongim-wire.md 3.8).
const LINGER: Duration = Duration::from_secs(2);
/// Bytes copied together before the next piece begins: what a write that took nothing of a piece leaves in the outbox.
const PIECE_BYTES_MAX: usize = 16 * 1024;
/// What the shared buffer may keep between writes.
const SCRATCH_KEPT_BYTES: usize = 4 * WRITE_BYTES_MAX;

/// A session's write half.
pub(super) struct Writer {
    write: Rc<OwnedWriteHalf>,
    session: SessionId,
    wire: Wire,
    viewer: Viewer,
    /// What a write took in part. Few sockets ever block, so the others pay for no queue.
    #[expect(clippy::box_collection, reason = "8 bytes instead of 32 in every session")]
    pending: Option<Box<VecDeque<Bytes>>>,
    blocked: bool,
    asked: bool,
    began_s: u32,
    last_read_ms: u64,
    /// Since when it has been closing while its socket takes nothing.
    closing_since_ms: Option<NonZeroU64>,
    /// Who the proxy at the other end speaks for.
    client: Option<Box<SocketAddr>>,
    received: Passed,
    sent: Passed,
}

// Every idle session pays for it.
const _: () = assert!(size_of::<Writer>() <= 136);

/// The write halves of a shard, by slot.
#[derive(Default)]
pub(super) struct Writers {
    by_slot: Vec<Option<Box<Writer>>>,
    gathered: Gathered,
    unpublished: Unpublished,
}

/// What was read and written since the server's metrics were told: they are shared between threads, these are not.
#[derive(Default)]
struct Unpublished {
    bytes_read: u64,
    bytes_written: u64,
    frames_written: u64,
}

impl Writers {
    /// Gives a session its write half; from now on its outbox is drained. `client`: who a proxy speaks for.
    pub fn install(
        &mut self,
        at: u32,
        write: OwnedWriteHalf,
        session: SessionId,
        (wire, viewer): (Wire, Viewer),
        client: Option<SocketAddr>,
        now_ms: u64,
    ) {
        let at = at as usize;
        if self.by_slot.len() <= at {
            self.by_slot.resize_with(at + 1, || None);
        }
        self.by_slot[at] = Some(Box::new(Writer {
            write: Rc::new(write),
            session,
            wire,
            viewer,
            pending: None,
            blocked: false,
            asked: false,
            began_s: u32::try_from(now_ms / 1_000).unwrap_or(u32::MAX),
            last_read_ms: now_ms,
            closing_since_ms: None,
            client: client.map(Box::new),
            received: Passed::default(),
            sent: Passed::default(),
        }));
    }

    /// Takes a session's write half away.
    pub fn remove(&mut self, at: u32, session: SessionId) {
        if let Some(writer) = self.by_slot.get_mut(at as usize)
            && writer.as_ref().is_some_and(|w| w.session == session)
        {
            *writer = None;
        }
    }

    /// Notes that a session's socket said something, and what.
    pub fn heard(&mut self, at: u32, now_ms: u64, passed: Passed) {
        self.unpublished.bytes_read += passed.bytes;
        if let Some(Some(writer)) = self.by_slot.get_mut(at as usize) {
            writer.last_read_ms = now_ms;
            writer.asked = false;
            writer.received.add(passed);
        }
    }

    /// Adds what was read and written since the last time to the server's metrics.
    pub fn publish(&mut self, metrics: &Metrics) {
        let Unpublished { bytes_read, bytes_written, frames_written } = std::mem::take(&mut self.unpublished);
        metrics.bytes_read.inc_by(bytes_read);
        metrics.bytes_written.inc_by(bytes_written);
        metrics.frames_written.inc_by(frames_written);
    }

    /// What sessions have carried; those that have gone are left out.
    pub fn describe(&self, shard: &mut Shard, places: &[SessionPlace]) -> Vec<Traffic> {
        let here = places.iter().filter_map(|place| {
            let writer = self.by_slot.get(place.slot as usize)?.as_ref().filter(|w| w.session == place.session)?;
            let waiting = shard.slot(place.slot, place.session).map_or(0, |slot| slot.outbox.live_bytes());
            let begun = writer.pending.iter().flat_map(|pending| pending.iter()).map(Bytes::len).sum::<usize>();
            Some(Traffic {
                session: writer.session,
                client: writer.client.as_deref().copied().or_else(|| writer.write.peer_addr().ok()),
                version: writer.wire.version(),
                began_ms: u64::from(writer.began_s) * 1_000,
                heard_ms: writer.last_read_ms,
                pending_bytes: waiting + begun,
                received: writer.received,
                sent: writer.sent,
            })
        });
        here.collect()
    }

    /// Asks sessions that have been silent and closes those that stay so; ends those whose last words nobody takes.
    pub fn check_idle(&mut self, shard: &mut Shard, now_ms: u64, limits: &GatewayLimits) {
        for at in 0..self.by_slot.len() {
            let Some(Some(writer)) = self.by_slot.get_mut(at) else { continue };
            if writer.closing_since_ms.is_some_and(|since| now_ms.saturating_sub(since.get()) > CLOSE_GRACE_MS) {
                end(shard, &mut self.by_slot, at as u32);
                continue;
            }
            let silent_ms = now_ms.saturating_sub(writer.last_read_ms);
            if silent_ms > limits.idle_timeout_ms {
                if let Some(slot) = shard.slot(at as u32, writer.session) {
                    slot.closing.get_or_insert(CloseReason::IdleTimeout);
                }
                shard.mark_dirty(at as u32);
            } else if silent_ms > limits.heartbeat_ms + limits.heartbeat_ms / 2 && !writer.asked {
                writer.asked = true;
                if let Some(question) = writer.wire.question() {
                    shard.answer(at as u32, writer.session, Control::Raw(question));
                }
            }
        }
    }
}

/// What a flush of one slot came to.
enum Flushed {
    /// Everything is written.
    All,
    /// The socket takes no more for now.
    Blocked,
    /// The connection is over.
    Gone,
}

/// What goes into one write. Kept between writes: a write of one frame must not cost an allocation.
#[derive(Default)]
struct Gathered {
    /// Small frames, encoded or copied behind one another.
    scratch: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: usize,
    /// Answers and notices among them.
    controls: u32,
}

/// Bytes to write, with how many live entries are done once they are.
struct Piece {
    bytes: PieceBytes,
    live_entries: usize,
}

enum PieceBytes {
    /// Of the scratch.
    Copied(Range<usize>),
    /// Where all receivers share them.
    Shared(Bytes),
}

impl Gathered {
    fn clear(&mut self) {
        self.scratch.clear();
        self.scratch.shrink_to(SCRATCH_KEPT_BYTES);
        self.pieces.clear();
        self.bytes = 0;
        self.controls = 0;
    }

    fn push(&mut self, bytes: PieceBytes, live_entries: usize) {
        self.bytes += match &bytes {
            PieceBytes::Copied(range) => range.len(),
            PieceBytes::Shared(bytes) => bytes.len(),
        };
        self.pieces.push(Piece { bytes, live_entries });
    }

    fn slice<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        match &piece.bytes {
            PieceBytes::Copied(range) => &self.scratch[range.clone()],
            PieceBytes::Shared(bytes) => bytes,
        }
    }

    fn write(&self, socket: &OwnedWriteHalf) -> io::Result<usize> {
        if self.bytes == 0 {
            // Nothing of it has a form in this wire.
            return Ok(0);
        }
        if let [only] = &self.pieces[..] {
            return socket.try_write(self.slice(only));
        }
        let slices: SmallVec<[IoSlice<'_>; 8]> =
            self.pieces.iter().map(|piece| IoSlice::new(self.slice(piece))).collect();
        socket.try_write_vectored(&slices)
    }
}

/// Drains outboxes of dirty slots, as long as the shard lives.
pub(super) async fn flusher(context: Rc<Context>) {
    let mut dirty = Vec::new();
    loop {
        context.flush.notified().await;
        if !context.limits.flush_interval.is_zero() {
            tokio::time::sleep(context.limits.flush_interval).await;
        }
        loop {
            context.shard.borrow_mut().take_dirty(&mut dirty);
            if dirty.is_empty() {
                break;
            }
            let mut count = 0;
            for at in dirty.drain(..) {
                flush_slot(&context, at);
                count += 1;
                if count % SLOTS_PER_TURN == 0 {
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

fn flush_slot(context: &Rc<Context>, at: u32) {
    let mut writers = context.writers.borrow_mut();
    let Writers { by_slot, gathered, unpublished } = &mut *writers;
    let Some(Some(writer)) = by_slot.get_mut(at as usize) else { return };
    let mut shard = context.shard.borrow_mut();
    if let Some(slot) = shard.slot(at, writer.session)
        && !slot.hears_gaps
        && slot.outbox.lagging_since_ms().is_some()
        && slot.closing.is_none()
    {
        // What it missed has no word in its wire: its client connects again and syncs (docs/decisions).
        slot.closing = Some(CloseReason::Slow);
        context.hub.metrics().slow_closes.inc();
    }
    if writer.blocked {
        if !may_wait(writer, &mut shard, at) {
            end(&mut shard, by_slot, at);
        }
        return;
    }
    let before = writer.sent;
    let flushed = flush(writer, &mut shard, at, gathered);
    unpublished.bytes_written += writer.sent.bytes - before.bytes;
    unpublished.frames_written += u64::from(writer.sent.packets - before.packets);
    match flushed {
        Flushed::All => {
            let closing = shard.slot(at, writer.session).and_then(|slot| slot.closing);
            if let Some(reason) = closing {
                // Best effort: a socket that takes no more learns it from the end of the stream.
                let _ = writer.write.try_write(&writer.wire.closing(reason));
                if writer.wire.lingers(reason) {
                    let write = writer.write.clone();
                    tokio::task::spawn_local(async move {
                        tokio::time::sleep(LINGER).await;
                        drop(write);
                    });
                }
                end(&mut shard, by_slot, at);
            }
        }
        Flushed::Blocked => {
            if !may_wait(writer, &mut shard, at) {
                end(&mut shard, by_slot, at);
                return;
            }
            writer.blocked = true;
            let (write, session, context) = (writer.write.clone(), writer.session, context.clone());
            tokio::task::spawn_local(async move {
                let _ = write.writable().await;
                drop(write);
                if let Some(Some(writer)) = context.writers.borrow_mut().by_slot.get_mut(at as usize)
                    && writer.session == session
                {
                    writer.blocked = false;
                    context.shard.borrow_mut().mark_dirty(at);
                }
            });
        }
        Flushed::Gone => end(&mut shard, by_slot, at),
    }
}

/// Whether a session whose socket takes nothing may wait for it. One that is closing may for a while, so that acks and the
/// reason still reach a reader that is only behind; one closed because it does not read may not.
fn may_wait(writer: &mut Writer, shard: &mut Shard, at: u32) -> bool {
    let now_ms = shard.now_ms();
    match shard.slot(at, writer.session).map(|slot| slot.closing) {
        None | Some(Some(CloseReason::Slow | CloseReason::IdleTimeout)) => false,
        Some(Some(_)) => {
            writer.closing_since_ms = writer.closing_since_ms.or(NonZeroU64::new(now_ms));
            true
        }
        Some(None) => true,
    }
}

/// Ends a session: the slot goes, its reader is woken and finds it gone.
fn end(shard: &mut Shard, by_slot: &mut [Option<Box<Writer>>], at: u32) {
    if let Some(place) = by_slot.get_mut(at as usize)
        && let Some(writer) = place.take()
    {
        if let Some(slot) = shard.slot(at, writer.session)
            && let Some(reader) = slot.reader.take()
        {
            reader.wake();
        }
        let place = SessionPlace { session: writer.session, shard: shard.index(), slot: at };
        shard.leave(&place);
        shard.finish_turn();
    }
}

fn flush(writer: &mut Writer, shard: &mut Shard, at: u32, gathered: &mut Gathered) -> Flushed {
    loop {
        if writer.pending.is_some() {
            match write_pending(writer) {
                Ok(true) => {}
                Ok(false) => return Flushed::Blocked,
                Err(_) => return Flushed::Gone,
            }
        }
        let Some(slot) = shard.slot(at, writer.session) else { return Flushed::Gone };
        gather(writer, slot, gathered);
        if gathered.pieces.is_empty() {
            // Everything has drained; what was dropped meanwhile is told now.
            if shard.written(at, 0) {
                continue;
            }
            return Flushed::All;
        }
        let written = match gathered.write(&writer.write) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return Flushed::Gone,
        };
        let live_entries = settle(writer, gathered, written);
        let mut passed = Passed { packets: gathered.controls, bytes: written as u64, ..Passed::default() };
        slot.outbox.live().take(live_entries).for_each(|live| count(live, &writer.wire, &mut passed));
        writer.sent.add(passed);
        let more = shard.written(at, live_entries);
        if written < gathered.bytes {
            return Flushed::Blocked;
        }
        if !more {
            return Flushed::All;
        }
    }
}

/// Counts a live entry that was written.
fn count(live: &Live, wire: &Wire, passed: &mut Passed) {
    match live {
        Live::Delivery(delivery) => {
            let messages = u32::try_from(delivery.messages.len()).unwrap_or(u32::MAX);
            passed.add(Passed { messages, message_bytes: delivery.bytes as u64, packets: messages, bytes: 0 });
        }
        Live::Happening(_) => passed.packets += u32::from(wire.tells_streams()),
        // Other wires have no word for them.
        Live::Change(_) | Live::Signal(_) | Live::Presence(_) => {
            passed.packets += u32::from(matches!(wire, Wire::Native(_)));
        }
    }
}

/// Writes what an earlier write left over. `false`: there is still some.
fn write_pending(writer: &mut Writer) -> io::Result<bool> {
    let Some(pending) = &mut writer.pending else { return Ok(true) };
    while let Some(front) = pending.front_mut() {
        match writer.write.try_write(front) {
            Ok(written) => {
                writer.sent.add(Passed { bytes: written as u64, ..Passed::default() });
                front.advance(written);
                if front.is_empty() {
                    pending.pop_front();
                } else {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    writer.pending = None;
    Ok(true)
}

/// Encodes what goes into the next write. Control entries leave the outbox here, live ones stay until they are written,
/// so that a reader that takes nothing holds no more than its bound.
fn gather(writer: &Writer, slot: &mut crate::hub::shard::Slot, gathered: &mut Gathered) {
    gathered.clear();
    while gathered.scratch.len() < WRITE_BYTES_MAX
        && let Some(control) = slot.outbox.pop_control()
    {
        gathered.controls += 1;
        if let Err(reason) = writer.wire.append_control(&writer.viewer, control, &mut gathered.scratch) {
            slot.closing.get_or_insert(reason);
        }
    }
    if !gathered.scratch.is_empty() {
        gathered.push(PieceBytes::Copied(0..gathered.scratch.len()), 0);
    }
    let alone = gathered.pieces.is_empty() && slot.outbox.live().len() == 1;
    let (mut copied, mut from) = (0, gathered.scratch.len());
    for live in slot.outbox.live() {
        let unsent = gathered.scratch.len() - from;
        if gathered.bytes + unsent >= WRITE_BYTES_MAX || gathered.pieces.len() + 2 > PIECES_MAX {
            break;
        }
        if unsent >= PIECE_BYTES_MAX {
            gathered.push(PieceBytes::Copied(from..gathered.scratch.len()), copied);
            (copied, from) = (0, gathered.scratch.len());
        }
        let Some(bytes) = writer.wire.live(&writer.viewer, live, &mut gathered.scratch) else {
            copied += 1;
            continue;
        };
        if bytes.len() < COPY_BYTES_MAX && !alone {
            gathered.scratch.extend_from_slice(&bytes);
            copied += 1;
            continue;
        }
        if copied > 0 {
            gathered.push(PieceBytes::Copied(from..gathered.scratch.len()), copied);
            (copied, from) = (0, gathered.scratch.len());
        }
        gathered.push(PieceBytes::Shared(bytes), 1);
    }
    if copied > 0 {
        gathered.push(PieceBytes::Copied(from..gathered.scratch.len()), copied);
    }
}

/// Sorts out a write that may have taken only part: returns how many live entries are done.
fn settle(writer: &mut Writer, gathered: &Gathered, written: usize) -> usize {
    if written == gathered.bytes {
        return gathered.pieces.iter().map(|piece| piece.live_entries).sum();
    }
    let mut rest = written;
    let mut live_entries = 0;
    for piece in &gathered.pieces {
        let bytes = gathered.slice(piece);
        if rest >= bytes.len() {
            rest -= bytes.len();
            live_entries += piece.live_entries;
            continue;
        }
        // Once its first bytes are out the rest must follow, whatever happens to the outbox; so must control entries,
        // which have left it.
        if rest > 0 || piece.live_entries == 0 {
            writer.pending.get_or_insert_default().push_back(match &piece.bytes {
                PieceBytes::Copied(_) => Bytes::copy_from_slice(&bytes[rest..]),
                PieceBytes::Shared(bytes) => bytes.slice(rest..),
            });
            live_entries += piece.live_entries;
        }
        rest = 0;
    }
    live_entries
}
