//! The write halves of a shard and the flusher that drains outboxes into them.
//!
//! Owns one [`Writer`] per slot, bytes that a socket took only in part, and the dirty-list flusher: after a turn, every slot
//! that became dirty is written in one go (control first, then what waits live), so the busier a shard is the more goes into
//! one write. Only a socket that would block gets a task of its own, to say when it is writable again.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::rc::Rc;

use bytes::{Buf, Bytes};
use protocol::close::CloseReason;
use protocol::native::Encoding;
use tokio::net::tcp::OwnedWriteHalf;

use super::native::{self, Viewer};
use super::{Context, GatewayLimits};
use crate::hub::outbox::Control;
use crate::hub::sessions::SessionId;
use crate::hub::shard::Shard;

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

/// A session's write half.
pub struct Writer {
    write: Rc<OwnedWriteHalf>,
    session: SessionId,
    encoding: Encoding,
    viewer: Viewer,
    pending: VecDeque<Bytes>,
    blocked: bool,
    last_read_ms: u64,
    asked: bool,
    /// Since when it has been closing while its socket takes nothing.
    closing_since_ms: Option<u64>,
}

/// The write halves of a shard, by slot.
#[derive(Default)]
pub struct Writers {
    by_slot: Vec<Option<Box<Writer>>>,
    scratch: Vec<u8>,
}

impl Writers {
    /// Gives a session its write half; from now on its outbox is drained.
    pub fn install(
        &mut self,
        at: u32,
        write: OwnedWriteHalf,
        session: SessionId,
        encoding: Encoding,
        viewer: Viewer,
        now_ms: u64,
    ) {
        let at = at as usize;
        if self.by_slot.len() <= at {
            self.by_slot.resize_with(at + 1, || None);
        }
        self.by_slot[at] = Some(Box::new(Writer {
            write: Rc::new(write),
            session,
            encoding,
            viewer,
            pending: VecDeque::new(),
            blocked: false,
            last_read_ms: now_ms,
            asked: false,
            closing_since_ms: None,
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

    /// Notes that a session's socket said something.
    pub fn heard(&mut self, at: u32, now_ms: u64) {
        if let Some(Some(writer)) = self.by_slot.get_mut(at as usize) {
            writer.last_read_ms = now_ms;
            writer.asked = false;
        }
    }

    /// Asks sessions that have been silent and closes those that stay so; ends those whose last words nobody takes.
    pub fn check_idle(&mut self, shard: &mut Shard, now_ms: u64, limits: &GatewayLimits) {
        for at in 0..self.by_slot.len() {
            let Some(Some(writer)) = self.by_slot.get_mut(at) else { continue };
            if writer.closing_since_ms.is_some_and(|since| now_ms.saturating_sub(since) > CLOSE_GRACE_MS) {
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
                shard.answer(at as u32, writer.session, Control::Raw(native::ping(writer.encoding)));
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

/// Bytes to write, with how many live entries are done once they are.
struct Piece {
    bytes: Bytes,
    live_entries: usize,
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
    let Writers { by_slot, scratch } = &mut *writers;
    let Some(Some(writer)) = by_slot.get_mut(at as usize) else { return };
    let mut shard = context.shard.borrow_mut();
    if writer.blocked {
        if !may_wait(writer, &mut shard, at) {
            end(&mut shard, by_slot, at);
        }
        return;
    }
    match flush(writer, &mut shard, at, scratch) {
        Flushed::All => {
            let closing = shard.slot(at, writer.session).and_then(|slot| slot.closing);
            if let Some(reason) = closing {
                // Best effort: a socket that takes no more learns it from the end of the stream.
                let _ = writer.write.try_write(&native::closing(writer.encoding, reason));
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
            writer.closing_since_ms.get_or_insert(now_ms);
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
        let place = crate::hub::sessions::SessionPlace { session: writer.session, shard: shard.index(), slot: at };
        shard.leave(&place);
        shard.finish_turn();
    }
}

fn flush(writer: &mut Writer, shard: &mut Shard, at: u32, scratch: &mut Vec<u8>) -> Flushed {
    loop {
        match write_pending(writer) {
            Ok(true) => {}
            Ok(false) => return Flushed::Blocked,
            Err(_) => return Flushed::Gone,
        }
        let Some(slot) = shard.slot(at, writer.session) else { return Flushed::Gone };
        let pieces = gather(writer, slot, scratch);
        if pieces.is_empty() {
            shard.written(at, 0);
            // Telling gaps makes the slot dirty again; its notices go out with the next round of the flusher.
            return Flushed::All;
        }
        let total: usize = pieces.iter().map(|piece| piece.bytes.len()).sum();
        let written = {
            let mut slices = [IoSlice::new(&[]); PIECES_MAX];
            for (slice, piece) in slices.iter_mut().zip(&pieces) {
                *slice = IoSlice::new(&piece.bytes);
            }
            writer.write.try_write_vectored(&slices[..pieces.len()])
        };
        let written = match written {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
            Err(_) => return Flushed::Gone,
        };
        let live_entries = settle(writer, pieces, written);
        shard.written(at, live_entries);
        if written < total {
            return Flushed::Blocked;
        }
    }
}

/// Writes what an earlier write left over. `false`: there is still some.
fn write_pending(writer: &mut Writer) -> io::Result<bool> {
    while let Some(front) = writer.pending.front_mut() {
        match writer.write.try_write(front) {
            Ok(written) => {
                front.advance(written);
                if front.is_empty() {
                    writer.pending.pop_front();
                } else {
                    return Ok(false);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    if writer.pending.capacity() > 0 {
        writer.pending = VecDeque::new();
    }
    Ok(true)
}

/// Encodes what goes into the next write. Control entries leave the outbox here, live ones stay until they are written,
/// so that a reader that takes nothing holds no more than its bound.
fn gather(writer: &Writer, slot: &mut crate::hub::shard::Slot, scratch: &mut Vec<u8>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    let mut gathered = 0;
    scratch.clear();
    while gathered + scratch.len() < WRITE_BYTES_MAX
        && let Some(control) = slot.outbox.pop_control()
    {
        native::append_control(writer.encoding, &writer.viewer, control, scratch);
    }
    if !scratch.is_empty() {
        gathered += scratch.len();
        pieces.push(Piece { bytes: Bytes::copy_from_slice(scratch), live_entries: 0 });
        scratch.clear();
    }
    let mut copied = 0;
    for live in slot.outbox.live() {
        if gathered + scratch.len() >= WRITE_BYTES_MAX || pieces.len() + 2 > PIECES_MAX {
            break;
        }
        let bytes = native::live(writer.encoding, &writer.viewer, live);
        if bytes.len() < COPY_BYTES_MAX {
            scratch.extend_from_slice(&bytes);
            copied += 1;
            continue;
        }
        if copied > 0 {
            gathered += scratch.len();
            pieces.push(Piece { bytes: Bytes::copy_from_slice(scratch), live_entries: copied });
            scratch.clear();
            copied = 0;
        }
        gathered += bytes.len();
        pieces.push(Piece { bytes, live_entries: 1 });
    }
    if copied > 0 {
        // A single entry is written from where it is shared.
        pieces.push(Piece { bytes: Bytes::copy_from_slice(scratch), live_entries: copied });
        scratch.clear();
    }
    pieces
}

/// Sorts out a write that may have taken only part: returns how many live entries are done.
fn settle(writer: &mut Writer, pieces: Vec<Piece>, written: usize) -> usize {
    let mut rest = written;
    let mut live_entries = 0;
    for mut piece in pieces {
        let len = piece.bytes.len();
        if rest >= len {
            rest -= len;
            live_entries += piece.live_entries;
        } else if rest > 0 {
            // Its first bytes are out, so the rest must follow whatever happens to the outbox.
            piece.bytes.advance(rest);
            rest = 0;
            live_entries += piece.live_entries;
            writer.pending.push_back(piece.bytes);
        } else if piece.live_entries == 0 {
            writer.pending.push_back(piece.bytes);
        }
    }
    live_entries
}
