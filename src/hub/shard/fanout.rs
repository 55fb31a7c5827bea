//! Fan-out: from what happened to the outboxes of the members online in this shard.

use std::sync::Arc;

use protocol::ids::{ChannelKey, ChannelType, Uid, Version};
use slab::Slab;

use super::{Shard, Slot, mark, remove_from};
use crate::hub::Shared;
use crate::hub::delivery::{Change, Delivery, Happening, Signal};
use crate::hub::outbox::Live;
use crate::store::ChannelNo;

impl Shard {
    /// Queues a delivery for every member online here. Returns how many messages went into outboxes.
    pub(super) fn deliver(&mut self, delivery: &Arc<Delivery>) -> u64 {
        let Self { slots, channels, dirty, shared, now_ms, outbox_bytes, .. } = self;
        let mut delivered = 0;
        let mut to = |at: u32| {
            let Some(slot) = slots.get(at as usize) else { return };
            #[cfg(feature = "seeded-bugs")]
            if crate::seeded::now_and_then(crate::seeded::Bug::DropOneDelivery) {
                return;
            }
            let copy = if !delivery.has_origin(slot.session) {
                delivery.clone()
            } else {
                match delivery.without(slot.session) {
                    Some(rest) => Arc::new(rest),
                    None => return,
                }
            };
            delivered += copy.messages.len() as u64;
            push_live(slots, dirty, at, Live::Delivery(copy), shared, *now_ms, outbox_bytes);
        };
        match delivery.key.channel_type() {
            ChannelType::Person => local_sessions_of_pair(shared, self.index, &delivery.key, &mut to),
            ChannelType::Group | ChannelType::CustomerService => {
                let members = delivery.channel.and_then(|channel| channels.get(&channel));
                for at in members.into_iter().flatten() {
                    to(*at);
                }
            }
        }
        delivered
    }

    /// Queues a signal for every member online here, but not where it came from.
    pub(super) fn signal(&mut self, signal: &Arc<Signal>) {
        let Self { slots, channels, dirty, shared, now_ms, outbox_bytes, .. } = self;
        let mut to = |at: u32| {
            if slots.get(at as usize).is_some_and(|slot| Some(slot.session) != signal.origin) {
                push_live(slots, dirty, at, Live::Signal(signal.clone()), shared, *now_ms, outbox_bytes);
            }
        };
        match signal.key.channel_type() {
            ChannelType::Person => local_sessions_of_pair(shared, self.index, &signal.key, &mut to),
            ChannelType::Group | ChannelType::CustomerService => {
                let members = signal.channel.and_then(|channel| channels.get(&channel));
                for at in members.into_iter().flatten() {
                    to(*at);
                }
            }
        }
    }

    /// Queues what happened to a stream for every member online here who may see its lane: the session a message came from
    /// too, for an answer is mostly written by another program than the one that shows it.
    pub(super) fn happened(&mut self, happening: &Arc<Happening>) {
        let Self { slots, channels, dirty, shared, now_ms, outbox_bytes, .. } = self;
        let mut to = |at: u32| {
            if slots.get(at as usize).is_some_and(|slot| happening.is_for(&slot.uid)) {
                push_live(slots, dirty, at, Live::Happening(happening.clone()), shared, *now_ms, outbox_bytes);
            }
        };
        let base = &happening.base;
        match base.key.channel_type() {
            ChannelType::Person => local_sessions_of_pair(shared, self.index, &base.key, &mut to),
            ChannelType::Group | ChannelType::CustomerService => {
                channels.get(&base.channel).into_iter().flatten().for_each(|at| to(*at));
            }
        }
    }

    /// Queues a change for whom it is about.
    pub(super) fn change(&mut self, change: &Arc<Change>) {
        match &**change {
            Change::Joined { channel, uids, version, .. } => self.membership(*channel, uids, true, *version, change),
            Change::Left { channel, uids, version, .. } => self.membership(*channel, uids, false, *version, change),
            Change::Conversation { uid, .. } => {
                let Self { slots, dirty, shared, now_ms, outbox_bytes, .. } = self;
                for place in shared.sessions.places(uid.as_str()) {
                    if place.shard == self.index {
                        push_live(
                            slots,
                            dirty,
                            place.slot,
                            Live::Change(change.clone()),
                            shared,
                            *now_ms,
                            outbox_bytes,
                        );
                    }
                }
            }
            Change::Happened(happening) => self.happened(happening),
            Change::MessagesChanged { channel, key, .. }
            | Change::MessageChanged { channel, key, .. }
            | Change::Channel { channel, key, .. } => {
                let Self { slots, channels, dirty, shared, now_ms, outbox_bytes, .. } = self;
                let mut to =
                    |at: u32| push_live(slots, dirty, at, Live::Change(change.clone()), shared, *now_ms, outbox_bytes);
                match key.channel_type() {
                    ChannelType::Person => local_sessions_of_pair(shared, self.index, key, &mut to),
                    ChannelType::Group | ChannelType::CustomerService => {
                        channels.get(channel).into_iter().flatten().for_each(|at| to(*at));
                    }
                }
            }
        }
    }

    fn membership(&mut self, channel: ChannelNo, uids: &[Uid], joined: bool, version: Version, change: &Arc<Change>) {
        let Self { slots, channels, dirty, shared, now_ms, outbox_bytes, .. } = self;
        for uid in uids {
            for place in shared.sessions.places(uid.as_str()) {
                if place.shard != self.index {
                    continue;
                }
                let Some(slot) = slots.get_mut(place.slot as usize).filter(|s| s.session == place.session) else {
                    continue;
                };
                if let Some(joining) = &mut slot.joining {
                    joining.changes.push((channel, joined, version));
                    continue;
                }
                let known = slot.groups.iter().position(|group| *group == channel);
                match (joined, known) {
                    (true, None) => {
                        slot.groups.push(channel);
                        channels.entry(channel).or_default().push(place.slot);
                    }
                    (false, Some(i)) => {
                        slot.groups.swap_remove(i);
                        remove_from(channels, &channel, place.slot);
                    }
                    (true, Some(_)) | (false, None) => {}
                }
                push_live(slots, dirty, place.slot, Live::Change(change.clone()), shared, *now_ms, outbox_bytes);
            }
        }
    }
}

/// Queues an entry for one session, unless it is not begun or ends.
pub(super) fn push_live(
    slots: &mut Slab<Slot>,
    dirty: &mut Vec<u32>,
    at: u32,
    live: Live,
    shared: &Shared,
    now_ms: u64,
    outbox_bytes: &mut i64,
) {
    let Some(slot) = slots.get_mut(at as usize) else { return };
    if slot.joining.is_some() || slot.closing.is_some() {
        return;
    }
    let before = slot.outbox.live_bytes();
    let limits = shared.limits.outbox;
    slot.outbox.push_live(live, &if slot.hears_gaps { limits } else { limits.without_notices() }, now_ms);
    *outbox_bytes += slot.outbox.live_bytes() as i64 - before as i64;
    mark(dirty, at, slot);
}

fn local_sessions_of_pair(shared: &Shared, shard: u16, key: &ChannelKey, to: &mut dyn FnMut(u32)) {
    let Some((first, second)) = key.channel_id().split_once('@') else { return };
    for uid in [first, second] {
        for place in shared.sessions.places(uid) {
            if place.shard == shard {
                to(place.slot);
            }
        }
        if first == second {
            break;
        }
    }
}
