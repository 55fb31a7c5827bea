//! What users decide: about strangers, contacts, blocked users, and about their own conversations.
//!
//! A decision is read, changed and committed under the user's own lock ([`super::Shared::decisions`]), so that two devices
//! that change different sides of one relation at once both win. Lanes that cached what a decision means ask again: the
//! committer says so before the decision is answered ([`super::committer::Policies`]).

use protocol::ids::{ChannelKey, Uid, Version};

use super::Hub;
use super::conversations::{self, Standing, standing};
use crate::domain::conversation::ConversationFlags;
use crate::domain::refusal::Refusal;
use crate::domain::user::{Relation, UserSettings};
use crate::store::Record;

/// Users one user may have relations with: they are read as a whole.
pub const RELATIONS_MAX: usize = 10_000;

/// A change of a conversation's flags; `None` leaves a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlagsChange {
    /// Keep it on top.
    pub pinned: Option<bool>,
    /// No notifications.
    pub muted: Option<bool>,
    /// `true` accepts a message request: the peer is no stranger any more.
    pub accepted: Option<bool>,
}

/// A change of a relation; `None` leaves a side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RelationChange {
    /// Make or unmake a contact.
    pub contact: Option<bool>,
    /// Block or unblock.
    pub blocked: Option<bool>,
}

impl FlagsChange {
    /// The flags after it.
    fn apply(self, before: ConversationFlags) -> ConversationFlags {
        let accepted = self.accepted.unwrap_or(before.accepted);
        ConversationFlags {
            pinned: self.pinned.unwrap_or(before.pinned),
            muted: self.muted.unwrap_or(before.muted),
            request: before.request && !accepted,
            accepted,
        }
    }
}

impl RelationChange {
    /// The relation after it.
    fn apply(self, before: Relation) -> Relation {
        Relation { contact: self.contact.unwrap_or(before.contact), blocked: self.blocked.unwrap_or(before.blocked) }
    }
}

impl Hub {
    /// Whether every one of these users is known (design.md section 2, Users).
    ///
    /// # Errors
    /// `NotFound { what: "user" }`, the store.
    pub async fn require_known(&self, uids: Vec<Uid>) -> Result<(), Refusal> {
        self.ask(move |store| {
            for uid in &uids {
                if !store.user_known(uid).map_err(conversations::refuse)? {
                    return Err(Refusal::NotFound { what: "user" });
                }
            }
            Ok(())
        })
        .await
    }

    /// Makes a user known without a token; a known one is fine.
    ///
    /// # Errors
    /// The store.
    pub async fn create_user(&self, uid: Uid) -> Result<(), Refusal> {
        self.refuse_draining()?;
        let asked = uid.clone();
        if self.ask(move |store| store.user_known(&asked).map_err(conversations::refuse)).await? {
            return Ok(());
        }
        self.commit(None, Record::UserCreated { uid }.into(), (0, 0)).await.map(drop)
    }

    /// A user's settings.
    ///
    /// # Errors
    /// The store.
    pub async fn user_settings(&self, uid: Uid) -> Result<UserSettings, Refusal> {
        self.ask(move |store| store.user_settings(&uid).map_err(conversations::refuse)).await
    }

    /// Replaces a user's settings.
    ///
    /// # Errors
    /// The store.
    pub async fn put_user_settings(&self, uid: Uid, settings: UserSettings) -> Result<(), Refusal> {
        self.refuse_draining()?;
        let _decision = self.shared.decisions.of(&uid).lock().await;
        if self.user_settings(uid.clone()).await? == settings {
            return Ok(());
        }
        self.commit(None, Record::UserSettings { uid, settings }.into(), (0, 0)).await.map(drop)
    }

    /// Everybody who is anything to a user.
    ///
    /// # Errors
    /// The store.
    pub async fn relations(&self, uid: Uid) -> Result<Vec<(Uid, Relation)>, Refusal> {
        self.ask(move |store| store.relations(&uid).map_err(conversations::refuse)).await
    }

    /// Changes what `peer` is to `uid`; answers what it is now.
    ///
    /// # Errors
    /// `Invalid` about oneself, `TooMany` relations, the store.
    pub async fn put_relation(&self, uid: Uid, peer: Uid, change: RelationChange) -> Result<Relation, Refusal> {
        self.refuse_draining()?;
        if uid == peer {
            return Err(Refusal::invalid("uid", "is one's own"));
        }
        let _decision = self.shared.decisions.of(&uid).lock().await;
        let asked = (uid.clone(), peer.clone());
        let (before, now) = self
            .ask(move |store| {
                let (uid, peer) = asked;
                let before = store.relation(&uid, &peer).map_err(conversations::refuse)?;
                let now = change.apply(before);
                if before == Relation::default()
                    && now != before
                    && store.relations(&uid).map_err(conversations::refuse)?.len() >= RELATIONS_MAX
                {
                    return Err(Refusal::TooMany { what: "relations", max: RELATIONS_MAX });
                }
                Ok((before, now))
            })
            .await?;
        if now != before {
            self.commit(None, Record::Relation { uid, peer, relation: now }.into(), (0, 0)).await?;
        }
        Ok(now)
    }

    /// Changes a conversation's flags; other devices learn of it. Where nothing changes the version of now is answered.
    ///
    /// # Errors
    /// `NotMember`; `ChannelNotFound` for a conversation nobody has begun; the store.
    pub async fn set_flags(&self, uid: Uid, key: ChannelKey, change: FlagsChange) -> Result<Version, Refusal> {
        self.refuse_draining()?;
        let _decision = self.shared.decisions.of(&uid).lock().await;
        let asked = (uid.clone(), key.clone());
        let planned = self
            .ask(move |store| {
                let (uid, key) = asked;
                let (info, state) = match standing(store, &uid, &key).map_err(conversations::refuse)? {
                    Standing::Member { info, state } => (info, state),
                    Standing::Unborn => return Err(Refusal::ChannelNotFound),
                    Standing::Outside => return Err(Refusal::NotMember),
                };
                let own = store.last_own(info.channel, &uid).map_err(conversations::refuse)?;
                // An answered request is none any more, and is stored as none from the next decision on.
                let before = ConversationFlags { request: state.is_request(own), ..state.flags };
                let now = change.apply(before);
                Ok((now != state.flags && now != before).then_some((info.channel, now)))
            })
            .await?;
        let Some((channel, flags)) = planned else { return Ok(self.shared.store.version()) };
        self.commit(Some(key), Record::ConversationFlags { channel, uid, flags }.into(), (0, 0)).await
    }
}
