//! Finding single messages, and what a user keeps of one channel, as back ends ask for it (wukongim-http.md 5.4, 6.5).

use protocol::ids::{ChannelKey, ClientMsgNo, MessageId, Uid};

use super::conversations::{readable, refuse};
use super::{Hub, Reader};
use crate::domain::message::{Message, fingerprint};
use crate::domain::refusal::Refusal;
use crate::domain::user::SYSTEM_UID;
use crate::store::{ChannelInfo, Probe, SeqRange, Store};

/// Messages looked up at once.
pub const LOOK_UPS_MAX: usize = 1_000;
/// Payload bytes of one answer, about: what comes behind is left out.
const ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What names a message of a known channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// Its place.
    Seq(u64),
    /// Its id.
    Id(MessageId),
    /// Its sender's name for it, of whichever sender is a member or a system user.
    Name(ClientMsgNo),
}

/// What a user keeps of a channel, for who shows messages of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OwnView {
    /// Seq of the user's own last message; 0: none.
    pub own_seq: u64,
    /// Messages up to here were deleted from the user's view.
    pub deleted_to: u64,
}

fn at(store: &dyn Store, info: &ChannelInfo, seq: u64) -> Result<Option<Message>, Refusal> {
    if seq == 0 || seq > info.head_seq {
        return Ok(None);
    }
    let range = SeqRange { first: seq, last: seq, limit: 1, bytes_max: usize::MAX, newest_first: false };
    Ok(store.messages(info.channel, range).map_err(refuse)?.pop())
}

/// No read for senders who certainly never used the name.
fn named(
    store: &dyn Store,
    info: &ChannelInfo,
    senders: &[Uid],
    name: &ClientMsgNo,
) -> Result<Option<Message>, Refusal> {
    for sender in senders {
        if store.probe(info.channel, fingerprint(sender, name)) == Probe::Absent {
            continue;
        }
        let found = store.message_by_client_msg_no(info.channel, sender, name).map_err(refuse)?;
        if let Some(found) = found {
            return at(store, info, found.message_seq.get());
        }
    }
    Ok(None)
}

impl Hub {
    /// Messages of a channel, in the order asked for; who is not found is left out. Names cost a look at every member's
    /// fingerprint, in memory.
    ///
    /// # Errors
    /// `TooMany`; `NotMember` for a user who is not one; the store.
    pub async fn look_up(&self, reader: Reader, key: ChannelKey, wanted: Vec<Wanted>) -> Result<Vec<Message>, Refusal> {
        if wanted.len() > LOOK_UPS_MAX {
            return Err(Refusal::TooMany { what: "messages", max: LOOK_UPS_MAX });
        }
        self.ask(move |store| {
            let info = match readable(store, &reader, &key) {
                Ok(Some((info, _))) => info,
                Ok(None) | Err(Refusal::ChannelNotFound) => return Ok(Vec::new()),
                Err(refusal) => return Err(refusal),
            };
            let mut senders = Vec::new();
            if wanted.iter().any(|wanted| matches!(wanted, Wanted::Name(_))) {
                store.warm(info.channel).map_err(refuse)?;
                senders = store.members(info.channel).map_err(refuse)?;
                senders.push(Uid::from_stored(SYSTEM_UID));
                senders.extend(store.system_users());
            }
            let mut found: Vec<Message> = Vec::new();
            let mut bytes = 0;
            for wanted in wanted {
                let message = match wanted {
                    Wanted::Seq(seq) => at(store, &info, seq)?,
                    Wanted::Id(id) => {
                        store.message_by_id(id).map_err(refuse)?.filter(|message| message.channel == info.key)
                    }
                    Wanted::Name(name) => named(store, &info, &senders, &name)?,
                };
                let Some(message) = message else { continue };
                bytes += message.content_bytes();
                if bytes > ANSWER_BYTES_MAX && !found.is_empty() {
                    break;
                }
                found.push(message);
            }
            Ok(found)
        })
        .await
    }

    /// What a user keeps of a channel; of one nobody has begun, nothing.
    ///
    /// # Errors
    /// `NotMember`, the store.
    pub async fn own_view(&self, uid: Uid, key: ChannelKey) -> Result<OwnView, Refusal> {
        self.ask(move |store| {
            let Some((info, state)) = readable(store, &Reader::User(uid.clone()), &key)? else {
                return Ok(OwnView::default());
            };
            let own = store.last_own(info.channel, &uid).map_err(refuse)?;
            Ok(OwnView { own_seq: own.seq, deleted_to: state.delete_floor })
        })
        .await
    }
}
