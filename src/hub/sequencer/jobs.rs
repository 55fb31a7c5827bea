//! What lanes ask the store, on threads that may block.

use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, Uid};

use crate::domain::channel::{Sender, Standing};
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
        /// What decisions about the sender are cached under; see [`KnownSender`].
        sender_policy: u64,
        /// What the recipient's decisions are cached under; see [`Reception`].
        policy: u64,
        /// Only contacts may write to users.
        contacts_only: bool,
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
        /// As in `Load`.
        contacts_only: bool,
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
    /// What is known of this sender?
    Sender {
        /// The channel's type.
        channel_type: ChannelType,
        /// The channel, where it exists.
        channel: Option<ChannelNo>,
        /// The user.
        uid: Uid,
        /// As `sender_policy` in `Load`.
        policy: u64,
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
        /// What is known of the sender.
        sender: Option<(Uid, KnownSender)>,
        /// What the recipient of a person channel lets the sender do.
        received: Option<Reception>,
    },
    /// To `Receive`.
    Received(Reception),
    /// To `Extras`.
    Extras(Result<Option<Box<Extras>>, Refusal>),
    /// To `Sender`.
    Sender(Uid, KnownSender),
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
            Self::Load { key, sender, sender_policy, policy, contacts_only } => {
                let channel = store.channel_no(key)?;
                let peer = sender.as_ref().and_then(|(sender, _)| Some((peer_of(key, sender)?, sender)));
                let received = match peer {
                    Some((peer, sender)) => {
                        let received =
                            drafts::receive(store, channel, (&Uid::from_stored(peer), sender), false, *contacts_only)?;
                        Some(Reception { sender: sender.clone(), policy: *policy, received })
                    }
                    None => None,
                };
                let sender = match sender {
                    Some((uid, Standing::Client | Standing::Checked)) => {
                        let sender = drafts::sender(store, key.channel_type(), channel, uid)?;
                        Some((uid.clone(), KnownSender { policy: *sender_policy, sender }))
                    }
                    Some((_, Standing::Trusted)) | None => None,
                };
                let Some(channel) = channel else {
                    return Ok(JobAnswer::Loaded { info: None, sender, received });
                };
                let info = store.channel(channel)?.map(Box::new);
                store.warm(channel)?;
                Ok(JobAnswer::Loaded { info, sender, received })
            }
            Self::Receive { channel, recipient, sender, wrote, policy, contacts_only } => {
                let received = drafts::receive(store, *channel, (recipient, sender), *wrote, *contacts_only)?;
                Ok(JobAnswer::Received(Reception { sender: sender.clone(), policy: *policy, received }))
            }
            Self::Extras { key, channel, from_uid, standing, extras } => {
                let place = Place { key, channel: *channel, from_uid, standing: *standing };
                Ok(JobAnswer::Extras(drafts::check_extras(store, place, extras, &[])?))
            }
            Self::Sender { channel_type, channel, uid, policy } => {
                let sender = drafts::sender(store, *channel_type, *channel, uid)?;
                Ok(JobAnswer::Sender(uid.clone(), KnownSender { policy: *policy, sender }))
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

/// What is known of a sender, as long as nothing new was decided.
#[derive(Debug, Clone, Copy)]
pub struct KnownSender {
    /// What decisions about the sender were cached under before they were read. What the channel itself decided (members,
    /// lists) needs none: the lane makes those changes, and forgets.
    pub policy: u64,
    /// What is known.
    pub sender: Sender,
}

/// The other user of a person channel; `None` for a note to self and every other type.
pub(super) fn peer_of<'a>(key: &'a ChannelKey, sender: &Uid) -> Option<&'a str> {
    if !key.is_pair_of(sender) {
        return None;
    }
    Some(key.id_for(sender.as_str())).filter(|peer| *peer != sender.as_str())
}
