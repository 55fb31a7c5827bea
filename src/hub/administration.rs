//! Changes of a channel: what a back end's request means as records (wukongim-http.md section 4, recommendations 20 to 22).

use std::collections::HashSet;

use protocol::ids::{ChannelKey, ChannelType, Uid};

use crate::domain::channel::ChannelSettings;
use crate::domain::refusal::Refusal;
use crate::store::{ChannelInfo, Record, Store, StoreError};

/// A change of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminOp {
    /// Creates or updates: settings when given, members added, or replaced when `reset`.
    Put {
        /// All settings; `None` leaves them.
        settings: Option<ChannelSettings>,
        /// Members to add.
        members: Vec<Uid>,
        /// Remove everybody else.
        reset: bool,
    },
    /// Takes members away. Who is none is skipped.
    RemoveMembers {
        /// Who.
        uids: Vec<Uid>,
    },
    /// Ends the channel: members go, messages stay, sends are refused until it is put again.
    Disband,
}

/// The records of a change, in order; none when nothing changes. Blocking.
///
/// # Errors
/// The outer result is the store's; the inner one the rules': members of a person channel, too many members, a channel
/// that does not exist.
pub fn plan_admin(
    store: &dyn Store,
    key: &ChannelKey,
    info: Option<&ChannelInfo>,
    head_seq: u64,
    op: &AdminOp,
    members_max: usize,
) -> Result<Result<Vec<Record>, Refusal>, StoreError> {
    let mut records = Vec::new();
    match op {
        AdminOp::Put { settings, members, reset } => {
            if key.channel_type() == ChannelType::Person && !members.is_empty() {
                return Ok(Err(Refusal::invalid("subscribers", "cannot be given for a person channel")));
            }
            let channel = match info {
                Some(info) => info.channel,
                None => {
                    let channel = store.reserve_channel_no();
                    records.push(Record::ChannelCreated { channel, key: key.clone() });
                    channel
                }
            };
            if let Some(settings) = settings
                && info.map(|i| i.settings).unwrap_or_default() != *settings
            {
                records.push(Record::ChannelSettings { channel, settings: *settings });
            }
            let wanted: HashSet<&Uid> = members.iter().collect();
            let mut removed = Vec::new();
            if *reset && info.is_some() {
                removed = store.members(channel)?;
                removed.retain(|uid| !wanted.contains(uid));
            }
            let mut added = Vec::new();
            let mut seen = HashSet::new();
            for uid in members {
                if seen.insert(uid) && (info.is_none() || store.membership(channel, uid)?.is_none()) {
                    added.push(uid.clone());
                }
            }
            let count = info.map_or(0, |i| i.member_count) as usize + added.len() - removed.len();
            if count > members_max && !added.is_empty() {
                return Ok(Err(Refusal::TooMany { what: "members", max: members_max }));
            }
            if !removed.is_empty() {
                records.push(Record::MembersRemoved { channel, delete_floor: head_seq, uids: removed });
            }
            if !added.is_empty() {
                records.push(Record::MembersAdded { channel, join_floor: head_seq, uids: added });
            }
        }
        AdminOp::RemoveMembers { uids } => {
            let Some(info) = info else { return Ok(Err(Refusal::ChannelNotFound)) };
            let mut removed = Vec::new();
            let mut seen = HashSet::new();
            for uid in uids {
                if seen.insert(uid) && store.membership(info.channel, uid)?.is_some() {
                    removed.push(uid.clone());
                }
            }
            if !removed.is_empty() {
                records.push(Record::MembersRemoved { channel: info.channel, delete_floor: head_seq, uids: removed });
            }
        }
        AdminOp::Disband => {
            let Some(info) = info else { return Ok(Ok(records)) };
            let settings = ChannelSettings { disband: true, ..info.settings };
            if settings != info.settings {
                records.push(Record::ChannelSettings { channel: info.channel, settings });
            }
            let members = store.members(info.channel)?;
            if !members.is_empty() {
                records.push(Record::MembersRemoved { channel: info.channel, delete_floor: head_seq, uids: members });
            }
        }
    }
    Ok(Ok(records))
}
