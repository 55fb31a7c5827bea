//! What lanes ask the store, on threads that may block.

use protocol::ids::{ChannelKey, ClientMsgNo, Uid};

use crate::domain::channel::Standing;
use crate::domain::message::{Extras, Message};
use crate::domain::refusal::Refusal;
use crate::hub::administration::{AdminOp, plan_admin};
use crate::hub::drafts::{self, Place, Received};
use crate::store::{ChannelInfo, ChannelNo, Record, Store, StoreError};

/// A question to the store that may need the disk.
#[derive(Debug)]
pub enum Job {
    /// Load a channel, with the standing of whoever asked first.
    Load {
        /// The channel.
        key: ChannelKey,
        /// The sender to look up, and as whom.
        sender: Option<(Uid, Standing)>,
        /// What the recipient's decisions are cached under; see [`Reception`].
        policy: u64,
    },
    /// Does the recipient of a person channel let the sender write?
    Receive {
        /// The channel, where it exists.
        channel: Option<ChannelNo>,
        /// Who is written to.
        recipient: Uid,
        /// Who writes.
        sender: Uid,
        /// The recipient has written here, durable or not.
        wrote: bool,
        /// As in `Load`.
        policy: u64,
    },
    /// Is what a draft refers to there?
    Extras {
        /// The channel's name.
        key: ChannelKey,
        /// The channel, where it exists.
        channel: Option<ChannelNo>,
        /// The sender.
        from_uid: Uid,
        /// As whom.
        standing: Standing,
        /// What it refers to.
        extras: Box<Extras>,
    },
    /// Is this user a member?
    Membership {
        /// The channel.
        channel: ChannelNo,
        /// The user.
        uid: Uid,
    },
    /// Is this name stored?
    Find {
        /// The channel.
        channel: ChannelNo,
        /// The sender.
        from_uid: Uid,
        /// The name.
        client_msg_no: ClientMsgNo,
    },
    /// What does this change of a channel mean?
    Admin {
        /// The channel.
        key: ChannelKey,
        /// As it stands; `None`: it does not exist.
        info: Option<Box<ChannelInfo>>,
        /// Last seq given out.
        head_seq: u64,
        /// The change.
        op: AdminOp,
        /// Members a channel may have.
        members_max: usize,
    },
}

/// The answer to a [`Job`].
#[derive(Debug)]
pub enum JobAnswer {
    /// To `Load`.
    Loaded {
        /// The channel, when it exists.
        info: Option<Box<ChannelInfo>>,
        /// The sender's membership.
        sender: Option<(Uid, bool)>,
        /// What the recipient of a person channel lets the sender do.
        received: Option<Reception>,
    },
    /// To `Receive`.
    Received(Reception),
    /// To `Extras`.
    Extras(Result<Option<Box<Extras>>, Refusal>),
    /// To `Membership`.
    Member(Uid, bool),
    /// To `Find`.
    Found(Option<Box<Message>>),
    /// To `Admin`.
    Planned(Result<Vec<Record>, Refusal>),
}

impl Job {
    /// Asks the store. Blocking.
    ///
    /// # Errors
    /// What the store says.
    pub fn run(&self, store: &dyn Store) -> Result<JobAnswer, StoreError> {
        match self {
            Self::Load { key, sender, policy } => {
                let channel = store.channel_no(key)?;
                let received = match sender {
                    Some((sender, Standing::Client)) => match peer_of(key, sender) {
                        Some(peer) => Some(receive(store, channel, &Uid::from_stored(peer), sender, false, *policy)?),
                        None => None,
                    },
                    _ => None,
                };
                let Some(channel) = channel else {
                    return Ok(JobAnswer::Loaded { info: None, sender: None, received });
                };
                let info = store.channel(channel)?.map(Box::new);
                store.warm(channel)?;
                let sender = match sender {
                    Some((uid, _)) => Some((uid.clone(), store.membership(channel, uid)?.is_some())),
                    None => None,
                };
                Ok(JobAnswer::Loaded { info, sender, received })
            }
            Self::Receive { channel, recipient, sender, wrote, policy } => {
                Ok(JobAnswer::Received(receive(store, *channel, recipient, sender, *wrote, *policy)?))
            }
            Self::Extras { key, channel, from_uid, standing, extras } => {
                let place = Place { key, channel: *channel, from_uid, standing: *standing };
                Ok(JobAnswer::Extras(drafts::check_extras(store, place, extras, &[])?))
            }
            Self::Membership { channel, uid } => {
                Ok(JobAnswer::Member(uid.clone(), store.membership(*channel, uid)?.is_some()))
            }
            Self::Find { channel, from_uid, client_msg_no } => {
                let found = store.message_by_client_msg_no(*channel, from_uid, client_msg_no)?;
                // Once answered from the disk, the next ones should be answered from memory.
                store.warm(*channel)?;
                Ok(JobAnswer::Found(found.map(Box::new)))
            }
            Self::Admin { key, info, head_seq, op, members_max } => {
                Ok(JobAnswer::Planned(plan_admin(store, key, info.as_deref(), *head_seq, op, *members_max)?))
            }
        }
    }
}

/// A job and the lane that waits for it.
#[derive(Debug)]
pub struct LaneJob {
    /// Slot of the lane.
    pub lane: u32,
    /// Fences the slot.
    pub lane_id: u64,
    /// The question.
    pub job: Job,
}

/// What a recipient lets a sender do, as long as nothing new was decided.
#[derive(Debug, Clone)]
pub struct Reception {
    /// Who writes.
    pub sender: Uid,
    /// What the recipient's decisions were cached under ([`crate::hub::committer::Policies`]) before they were read: under
    /// another number they are read again.
    pub policy: u64,
    /// What was decided.
    pub received: Received,
}

fn receive(
    store: &dyn Store,
    channel: Option<ChannelNo>,
    recipient: &Uid,
    sender: &Uid,
    wrote: bool,
    policy: u64,
) -> Result<Reception, StoreError> {
    let received = drafts::receive(store, channel, recipient, sender, wrote)?;
    Ok(Reception { sender: sender.clone(), policy, received })
}

/// The other user of a person channel; `None` for a note to self and every other type.
pub(super) fn peer_of<'a>(key: &'a ChannelKey, sender: &Uid) -> Option<&'a str> {
    if !key.is_pair_of(sender) {
        return None;
    }
    Some(key.id_for(sender.as_str())).filter(|peer| *peer != sender.as_str())
}
