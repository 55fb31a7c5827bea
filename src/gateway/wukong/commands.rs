//! Commands that a master device has, of WKProto and of JSON-RPC: its RECVACK takes them from the user's queue
//! (wukongim-wire.md 3.9).
//!
//! Owns what a session has acknowledged and the hub was not told of yet, within a bound.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;

use protocol::ids::MessageId;
use protocol::wukong::RecvAck;

use crate::gateway::Context;
use crate::gateway::seat::Seat;

/// Acknowledged commands that may wait for the hub; further ones stay in the user's queue.
const RECEIVED_MAX: usize = 1_000;

/// Commands that a session has acknowledged. Sessions on slave devices have none of it: theirs do not count for the user.
pub(in crate::gateway) type Commands = Rc<RefCell<Received>>;

/// What was acknowledged.
#[derive(Debug, Default)]
pub(in crate::gateway) struct Received {
    /// Those the hub was not told of.
    waiting: BTreeSet<MessageId>,
    /// Somebody is telling the hub.
    telling: bool,
}

/// Notes an acknowledgement; that of a stored command takes it from the user's queue. One request to the hub is under way
/// per session: what is heard meanwhile is the next.
pub(in crate::gateway) fn received(context: &Context, seat: &Seat, commands: Option<&Commands>, ack: &RecvAck) {
    let Some(commands) = commands.filter(|_| ack.flags.sync_once && !ack.flags.no_persist) else { return };
    let Some(message_id) = u64::try_from(ack.message_id).ok().filter(|id| *id <= MessageId::MAX.get()) else { return };
    let mut received = commands.borrow_mut();
    if received.waiting.len() >= RECEIVED_MAX
        || !received.waiting.insert(MessageId::new(message_id))
        || received.telling
    {
        return;
    }
    received.telling = true;
    let (hub, uid, commands) = (context.hub.clone(), seat.uid.clone(), commands.clone());
    tokio::task::spawn_local(async move {
        loop {
            let waiting = std::mem::take(&mut commands.borrow_mut().waiting);
            if waiting.is_empty() {
                commands.borrow_mut().telling = false;
                return;
            }
            if let Err(refusal) = hub.take_received(uid.clone(), waiting).await {
                // The client is told nothing: they stay in the queue, and are there at the next sync.
                tracing::debug!(%refusal, "acknowledged commands were not stored");
            }
        }
    });
}
