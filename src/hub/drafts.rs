//! What only the store can say about a message before it is stored: whether its recipient lets the sender write, and whether
//! what it refers to is there.
//!
//! Plain functions over `&dyn Store` that may do I/O: lanes ask them on threads that may block, in the order of the lane's
//! drafts. The rules are `domain`'s ([`crate::domain::user::reception`]).

use std::collections::HashSet;

use protocol::ids::{ChannelKey, ChannelType, FileId, Uid};

use super::conversations::members_by_name;
use crate::domain::channel::{ChannelSettings, Sender, Standing};
use crate::domain::conversation::ConversationFlags;
use crate::domain::message::{Extras, FILES_MAX, MENTIONS_MAX};
use crate::domain::refusal::Refusal;
use crate::domain::user::{Reception, Recipient, Strangers, is_built_in, reception};
use crate::store::{ChannelNo, Store, StoreError};

/// What a recipient lets a sender do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// The verdict.
    pub reception: Reception,
    /// The recipient's flags from the sender's next message on, where that makes the conversation a request.
    pub mark: Option<ConversationFlags>,
}

impl Received {
    /// Arrives like any other.
    pub const OPEN: Self = Self { reception: Reception::Open, mark: None };

    /// Whether the sender may write. A trusted back end is held to a ban only.
    ///
    /// # Errors
    /// `ChannelBanned`, `Blocked`, `NotListed`, `StrangerRefused`.
    pub fn verdict(&self, standing: Standing) -> Result<(), Refusal> {
        match self.reception {
            Reception::Banned => Err(Refusal::ChannelBanned),
            _ if standing == Standing::Trusted => Ok(()),
            Reception::Open | Reception::Request => Ok(()),
            Reception::Blocked => Err(Refusal::Blocked),
            Reception::NotListed => Err(Refusal::NotListed),
            Reception::StrangerRefused => Err(Refusal::StrangerRefused),
        }
    }
}

/// Whether a user is a system user. No I/O.
pub fn is_system(store: &dyn Store, uid: &Uid) -> bool {
    is_built_in(uid) || store.is_system_user(uid)
}

/// Settings of a user's own channel: what a back end decided about the user. Two rows at most.
///
/// # Errors
/// What the store says.
pub fn own_settings(store: &dyn Store, uid: &Uid) -> Result<ChannelSettings, StoreError> {
    let own = match store.channel_no(&ChannelKey::person(uid, uid))? {
        Some(channel) => store.channel(channel)?,
        None => None,
    };
    Ok(own.map(|info| info.settings).unwrap_or_default())
}

/// What is known of a sender. Four rows at most.
///
/// # Errors
/// What the store says.
pub fn sender(
    store: &dyn Store,
    channel_type: ChannelType,
    channel: Option<ChannelNo>,
    uid: &Uid,
) -> Result<Sender, StoreError> {
    let mut sender = Sender {
        is_system: is_system(store, uid),
        send_banned: own_settings(store, uid)?.send_ban,
        ..Sender::default()
    };
    if let (ChannelType::Group, Some(channel)) = (channel_type, channel) {
        sender.is_member = store.membership(channel, uid)?.is_some();
        sender.listing = store.listing(channel, uid)?;
    }
    Ok(sender)
}

/// Judges the sender of a person channel by what the recipient decided, and a back end about the recipient. `wrote`: the
/// recipient has written there, whether or not it is durable yet. `contacts_only`: unless the recipient's own channel allows
/// strangers. Five rows where strangers are welcome, two more where they are not.
///
/// # Errors
/// What the store says.
pub fn receive(
    store: &dyn Store,
    channel: Option<ChannelNo>,
    (recipient, sender): (&Uid, &Uid),
    wrote: bool,
    contacts_only: bool,
) -> Result<Received, StoreError> {
    if is_system(store, recipient) {
        return Ok(Received::OPEN);
    }
    let own = own_settings(store, recipient)?;
    let settings = store.user_settings(recipient)?;
    let relation = store.relation(recipient, sender)?;
    let asked = settings.strangers != Strangers::Allow && !relation.contact && !relation.blocked && !wrote;
    let (mut corresponded, mut flags) = (wrote, ConversationFlags::default());
    if asked && let Some(channel) = channel {
        flags = store.conversation_state(channel, recipient)?.map(|state| state.flags).unwrap_or_default();
        corresponded = flags.accepted || store.last_own(channel, recipient)?.seq > 0;
    }
    let reception = reception(Recipient {
        is_system: false,
        banned: own.ban,
        contacts_only: contacts_only && !own.allow_stranger,
        settings,
        relation,
        corresponded,
    });
    let is_new = reception == Reception::Request && !flags.request;
    Ok(Received { reception, mark: is_new.then_some(ConversationFlags { request: true, ..flags }) })
}

/// Where a message lies, or will.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Its channel's name.
    pub key: &'a ChannelKey,
    /// Its channel; `None`: it is created with the message.
    pub channel: Option<ChannelNo>,
    /// Its sender.
    pub from_uid: &'a Uid,
    /// What the sender may do.
    pub standing: Standing,
}

/// Checks what a message refers to, and takes away what says nothing: repeats, the sender's own mention, mentions of who is
/// no member. `held`: files the message carries already (an edit). Rows in proportion to what it names, at most one log
/// read.
///
/// # Errors
/// The outer result is the store's; the inner one the rules': `Invalid` naming `reply_to` or `files`, `TooMany`.
pub fn check_extras(
    store: &dyn Store,
    place: Place<'_>,
    extras: &Extras,
    held: &[FileId],
) -> Result<Result<Option<Box<Extras>>, Refusal>, StoreError> {
    if let Some(reply_to) = extras.reply_to {
        // Whoever may write here may read here, and a revoked message may still be answered.
        let answered = match place.channel {
            Some(_) => store.message_by_id(reply_to)?,
            None => None,
        };
        if answered.is_none_or(|message| message.channel != *place.key) {
            return Ok(Err(Refusal::invalid("reply_to", "names no message of this channel")));
        }
    }
    let mut seen = HashSet::new();
    let others: Vec<&Uid> = extras.mentions.iter().filter(|uid| *uid != place.from_uid && seen.insert(*uid)).collect();
    if others.len() > MENTIONS_MAX {
        return Ok(Err(Refusal::TooMany { what: "mentions", max: MENTIONS_MAX }));
    }
    let mut mentions = Vec::with_capacity(others.len());
    for uid in others {
        if is_member(store, place, uid)? {
            mentions.push(uid.clone());
        }
    }
    let mut seen = HashSet::new();
    let files: Vec<FileId> = extras.files.iter().filter(|file| seen.insert(*file)).cloned().collect();
    if files.len() > FILES_MAX {
        return Ok(Err(Refusal::TooMany { what: "files", max: FILES_MAX }));
    }
    for file_id in files.iter().filter(|file_id| !held.contains(file_id)) {
        let own = |uploader: Option<Uid>| uploader.as_ref() == Some(place.from_uid);
        let file = store.file(file_id)?;
        // Not told apart: that a file exists is its readers' to know.
        if !file.is_some_and(|file| place.standing == Standing::Trusted || own(file.record.uploader)) {
            return Ok(Err(Refusal::invalid("files", "names a file the sender did not upload")));
        }
    }
    Ok(Ok(Extras { reply_to: extras.reply_to, mentions, mention_all: extras.mention_all, files }.boxed()))
}

fn is_member(store: &dyn Store, place: Place<'_>, uid: &Uid) -> Result<bool, StoreError> {
    match (place.key.channel_type(), place.channel) {
        (ChannelType::Person, _) => Ok(place.key.is_pair_of(uid)),
        // By name first: the channel may be one whose first message is still on its way.
        _ if members_by_name(place.key).iter().any(|(member, _)| member == uid) => Ok(true),
        (_, None) => Ok(false),
        (_, Some(channel)) => Ok(store.membership(channel, uid)?.is_some()),
    }
}

#[cfg(test)]
mod tests;
