//! What a back end decides about who may write: lists of channels and users, system users, blocked addresses.
//!
//! A channel's lists are changed in its lane, like its members. A user's lists are the user's relations: who is blocked is the
//! deny list, who is a contact the allow list (docs/decisions/0017-lists-and-relations.md).

use std::net::IpAddr;

use protocol::ids::{ChannelKey, Uid};
use smallvec::SmallVec;

use super::administration::{AdminOp, ListChange};
use super::people::RELATIONS_MAX;
use super::{Hub, conversations};
use crate::domain::channel::ChannelList;
use crate::domain::refusal::Refusal;
use crate::domain::user::{Relation, is_built_in};
use crate::store::{Commit, Record};

/// System users and blocked addresses there may be: they lie in memory.
pub const REGISTER_MAX: usize = 10_000;

/// Whose list it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ListOwner {
    /// A channel that is no person channel.
    Channel(ChannelKey),
    /// A user.
    User(Uid),
}

fn is_listed(relation: Relation, list: ChannelList) -> bool {
    match list {
        ChannelList::Deny => relation.blocked,
        ChannelList::Allow => relation.contact,
    }
}

fn listed_as(relation: Relation, list: ChannelList, on: bool) -> Relation {
    match list {
        ChannelList::Deny => Relation { blocked: on, ..relation },
        ChannelList::Allow => Relation { contact: on, ..relation },
    }
}

/// The relations that change.
fn plan_relations(
    uid: &Uid,
    before: &[(Uid, Relation)],
    list: ChannelList,
    how: ListChange,
    peers: &[Uid],
) -> Result<SmallVec<[Record; 1]>, Refusal> {
    let mut changes = std::collections::BTreeMap::new();
    if how == ListChange::Set {
        let listed = before.iter().filter(|(_, relation)| is_listed(*relation, list));
        changes.extend(listed.map(|(peer, relation)| (peer, listed_as(*relation, list, false))));
    }
    // A list never holds its owner: one may always write to oneself.
    for peer in peers.iter().filter(|peer| *peer != uid) {
        let found = before.binary_search_by(|(known, _)| known.cmp(peer)).ok();
        let relation = found.map_or(Relation::default(), |at| before[at].1);
        changes.insert(peer, listed_as(relation, list, how != ListChange::Remove));
    }
    let known = |peer: &Uid| before.binary_search_by(|(known, _)| known.cmp(peer)).map(|at| before[at].1);
    let new = changes.keys().filter(|peer| known(peer).is_err()).count();
    if before.len() + new > RELATIONS_MAX && new > 0 && how != ListChange::Remove {
        return Err(Refusal::TooMany { what: "relations", max: RELATIONS_MAX });
    }
    let changed = changes.into_iter().filter(|(peer, relation)| known(peer).unwrap_or_default() != *relation);
    Ok(changed.map(|(peer, relation)| Record::Relation { uid: uid.clone(), peer: peer.clone(), relation }).collect())
}

impl Hub {
    /// Changes a list. Who is on it already, or is not, is skipped; a channel that is not there is made.
    ///
    /// # Errors
    /// `TooMany`, the store.
    pub async fn change_list(
        &self,
        owner: ListOwner,
        list: ChannelList,
        how: ListChange,
        uids: Vec<Uid>,
    ) -> Result<(), Refusal> {
        match owner {
            ListOwner::Channel(key) => self.administer(key, AdminOp::List { list, how, uids }).await.map(drop),
            ListOwner::User(uid) => {
                self.refuse_draining()?;
                let _decision = self.shared.decisions.of(&uid).lock().await;
                let before = self.relations(uid.clone()).await?;
                let records = plan_relations(&uid, &before, list, how, &uids)?;
                if records.is_empty() {
                    return Ok(());
                }
                self.commit(None, Commit { records }, (0, 0)).await.map(drop)
            }
        }
    }

    /// Who is on a list, ordered by uid.
    ///
    /// # Errors
    /// The store.
    pub async fn listed(&self, owner: ListOwner, list: ChannelList) -> Result<Vec<Uid>, Refusal> {
        self.ask(move |store| match owner {
            ListOwner::Channel(key) => match store.channel_no(&key).map_err(conversations::refuse)? {
                Some(channel) => store.listed(channel, list).map_err(conversations::refuse),
                None => Ok(Vec::new()),
            },
            ListOwner::User(uid) => {
                let relations = store.relations(&uid).map_err(conversations::refuse)?;
                let listed = relations.into_iter().filter(|(_, relation)| is_listed(*relation, list));
                Ok(listed.map(|(peer, _)| peer).collect())
            }
        })
        .await
    }

    /// Whether a back end has banned a user: nobody may write to the user, and nothing is open to it. Two rows, read on the
    /// caller's thread.
    ///
    /// # Errors
    /// The store.
    pub fn is_banned(&self, uid: &Uid) -> Result<bool, Refusal> {
        let own = super::drafts::own_settings(&*self.shared.store, uid).map_err(conversations::refuse)?;
        Ok(own.ban)
    }

    /// What every edge asks before it lets in who comes as this user. A session that is there already stays.
    ///
    /// # Errors
    /// `UserBanned`, the store.
    pub fn refuse_banned(&self, uid: &Uid) -> Result<(), Refusal> {
        if self.is_banned(uid)? { Err(Refusal::UserBanned) } else { Ok(()) }
    }

    /// Makes users system users, or takes that away. The built-in one stays what it is.
    ///
    /// # Errors
    /// `TooMany`, the store.
    pub async fn set_system_users(&self, uids: Vec<Uid>, on: bool) -> Result<(), Refusal> {
        self.refuse_draining()?;
        let store = &self.shared.store;
        let changed: Vec<Uid> =
            uids.into_iter().filter(|uid| !is_built_in(uid) && store.is_system_user(uid) != on).collect();
        if on && store.system_users().len() + changed.len() > REGISTER_MAX {
            return Err(Refusal::TooMany { what: "system users", max: REGISTER_MAX });
        }
        let records = changed.into_iter().map(|uid| Record::SystemUser { uid, on }).collect();
        self.commit_some(records).await
    }

    /// All system users but the built-in one, ordered by uid.
    pub fn system_users(&self) -> Vec<Uid> {
        self.shared.store.system_users()
    }

    /// Refuses connections from addresses, or takes them again. Those that are open stay.
    ///
    /// # Errors
    /// `TooMany`, the store.
    pub async fn set_blocked_addresses(&self, addresses: Vec<IpAddr>, on: bool) -> Result<(), Refusal> {
        self.refuse_draining()?;
        let store = &self.shared.store;
        let addresses = addresses.into_iter().map(|address| address.to_canonical());
        let changed: Vec<IpAddr> = addresses.filter(|address| store.is_address_blocked(*address) != on).collect();
        if on && store.blocked_addresses().len() + changed.len() > REGISTER_MAX {
            return Err(Refusal::TooMany { what: "addresses", max: REGISTER_MAX });
        }
        let records = changed.into_iter().map(|address| Record::AddressBlocked { address, on }).collect();
        self.commit_some(records).await
    }

    /// All blocked addresses, in order.
    pub fn blocked_addresses(&self) -> Vec<IpAddr> {
        self.shared.store.blocked_addresses()
    }

    /// Whether a connection from this address is to be refused. No I/O.
    pub fn is_address_blocked(&self, address: IpAddr) -> bool {
        self.shared.store.is_address_blocked(address.to_canonical())
    }

    async fn commit_some(&self, records: SmallVec<[Record; 1]>) -> Result<(), Refusal> {
        if records.is_empty() {
            return Ok(());
        }
        self.commit(None, Commit { records }, (0, 0)).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_lists_are_relations() {
        let uid = |name: &str| Uid::from_stored(name);
        let relation = |contact, blocked| Relation { contact, blocked };
        let before = [(uid("b"), relation(true, false)), (uid("c"), relation(false, true))];
        for (list, how, peers, expected) in [
            (
                ChannelList::Deny,
                ListChange::Add,
                vec!["b", "c", "d", "a"],
                vec![("b", (true, true)), ("d", (false, true))],
            ),
            (ChannelList::Deny, ListChange::Set, vec!["d"], vec![("c", (false, false)), ("d", (false, true))]),
            (ChannelList::Deny, ListChange::Set, vec![], vec![("c", (false, false))]),
            (ChannelList::Deny, ListChange::Remove, vec!["b", "c", "x"], vec![("c", (false, false))]),
            (ChannelList::Allow, ListChange::Set, vec!["b"], vec![]),
            (ChannelList::Allow, ListChange::Add, vec!["c"], vec![("c", (true, true))]),
        ] {
            let peers: Vec<Uid> = peers.into_iter().map(uid).collect();
            let records = plan_relations(&uid("a"), &before, list, how, &peers).expect("planned");
            let planned: Vec<Record> = records.into_vec();
            let expected: Vec<Record> = expected
                .into_iter()
                .map(|(peer, (contact, blocked))| Record::Relation {
                    uid: uid("a"),
                    peer: uid(peer),
                    relation: relation(contact, blocked),
                })
                .collect();
            assert_eq!(planned, expected, "{list:?} {how:?} {peers:?}");
        }
        let many: Vec<Uid> = (0..RELATIONS_MAX).map(|n| uid(&format!("u{n}"))).collect();
        let refused = plan_relations(&uid("a"), &before, ChannelList::Deny, ListChange::Add, &many);
        assert_eq!(refused.expect_err("too many").code(), "too_many");
    }
}
