//! Changes of a channel's deny and allow list (wukongim-http.md 4.5).

use std::collections::HashSet;

use protocol::ids::{ChannelKey, ChannelType, Uid};

use super::{ListChange, created};
use crate::domain::channel::ChannelList;
use crate::domain::refusal::Refusal;
use crate::store::{ChannelInfo, Record, Store, StoreError};

/// The records of a change; none when nothing changes. A channel that is not there is made when somebody is listed.
pub(super) fn plan_list(
    store: &dyn Store,
    key: &ChannelKey,
    info: Option<&ChannelInfo>,
    (list, how): (ChannelList, ListChange),
    uids: &[Uid],
    listed_max: usize,
) -> Result<Result<Vec<Record>, Refusal>, StoreError> {
    if key.channel_type() == ChannelType::Person {
        return Ok(Err(Refusal::invalid("channel_type", "is person, whose lists are the user's relations")));
    }
    let before: HashSet<Uid> = match info {
        Some(info) => store.listed(info.channel, list)?.into_iter().collect(),
        None => HashSet::new(),
    };
    let named: HashSet<&Uid> = uids.iter().collect();
    let mut seen = HashSet::new();
    let (mut added, mut removed) = (Vec::new(), Vec::new());
    match how {
        ListChange::Add | ListChange::Set => {
            added.extend(uids.iter().filter(|uid| !before.contains(*uid) && seen.insert(*uid)).cloned());
        }
        ListChange::Remove => {
            removed.extend(uids.iter().filter(|uid| before.contains(*uid) && seen.insert(*uid)).cloned());
        }
    }
    if how == ListChange::Set {
        removed.extend(before.iter().filter(|uid| !named.contains(uid)).cloned());
        removed.sort_unstable();
    }
    if before.len() + added.len() - removed.len() > listed_max && !added.is_empty() {
        return Ok(Err(Refusal::TooMany { what: "listed users", max: listed_max }));
    }
    let mut records = Vec::new();
    let channel = match info {
        Some(info) => info.channel,
        None if added.is_empty() => return Ok(Ok(records)),
        None => {
            let channel = store.reserve_channel_no();
            records.extend(created(channel, key));
            channel
        }
    };
    for (on, uids) in [(false, removed), (true, added)] {
        if !uids.is_empty() {
            records.push(Record::ChannelListed { channel, list, on, uids });
        }
    }
    Ok(Ok(records))
}
