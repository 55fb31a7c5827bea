//! What clients ask for, as the hub's words.

use std::borrow::Cow;

use bytes::Bytes;
use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, FileId, IdError, MessageId, Uid, Version};
use protocol::native;
use protocol::sync::{Cursor, Cursors};

use crate::domain::message::{Draft, Durability, Extras, FILES_MAX, MENTIONS_MAX, MessageFlags};
use crate::domain::refusal::Refusal;
use crate::gateway::GatewayLimits;
use crate::hub::ChannelNo;
use crate::hub::conversations::{Page, PageAfter, SyncRequest};

// The wire's bounds, applied while a list is read, are the rules' own.
const _: () = assert!(native::MENTIONS_MAX == MENTIONS_MAX && native::FILES_MAX == FILES_MAX);

fn page_after_of(text: &str) -> Result<PageAfter, Refusal> {
    let bad = || Refusal::invalid("page_after", "is not what an answer gave");
    let mut parts = text.split('.');
    let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok()).ok_or_else(bad);
    let (version, order, channel) = (number()?, number()?, number()?);
    let channel = u32::try_from(channel).map_err(|_| bad())?;
    if parts.next().is_some() {
        return Err(bad());
    }
    Ok(PageAfter { version: Version::new(version), order: Version::new(order), channel: ChannelNo(channel) })
}

/// An id's fault as a refusal that names the field.
pub fn bad_id(field: &'static str) -> impl FnOnce(IdError) -> Refusal {
    move |error| Refusal::invalid(field, error)
}

/// The channel a client means.
///
/// # Errors
/// `Invalid`, naming channel_id or channel_type.
pub fn channel_of(asker: &Uid, channel_id: &str, channel_type: u8) -> Result<ChannelKey, Refusal> {
    let channel_type = ChannelType::from_wire(channel_type).map_err(bad_id("channel_type"))?;
    ChannelKey::seen_by(asker, channel_id, channel_type).map_err(bad_id("channel_id"))
}

/// A `send` as a draft. The payload is copied once: the frame lies in a buffer that all connections share.
///
/// # Errors
/// `Invalid`, naming the field.
pub fn draft_of(from_uid: &Uid, send: &native::Send<'_>) -> Result<Draft, Refusal> {
    let channel = channel_of(from_uid, &send.channel_id, send.channel_type)?;
    let client_msg_no = match &*send.client_msg_no {
        "" => None,
        text => Some(ClientMsgNo::new(text).map_err(bad_id("client_msg_no"))?),
    };
    let durability = match send.durability {
        native::Durability::Memory => Durability::Memory,
        native::Durability::Disk => Durability::Disk,
        native::Durability::Replicated => Durability::Replicated,
        native::Durability::Unknown => return Err(Refusal::DurabilityNotOffered),
    };
    let flags = MessageFlags { no_persist: send.no_persist, red_dot: send.red_dot, sync_once: send.sync_once };
    Ok(Draft {
        channel,
        from_uid: from_uid.clone(),
        client_msg_no,
        flags,
        setting: send.setting,
        topic: send.topic.clone().into_owned(),
        expire_s: send.expire,
        payload: Bytes::copy_from_slice(&send.payload),
        extras: extras_of(send.reply_to, &send.mentions, send.mention_all, &send.files)?,
        durability,
    })
}

/// What a message refers to. The wire has bounded the lists; repeats collapse.
///
/// # Errors
/// `Invalid`, naming the field.
pub fn extras_of(
    reply_to: u64,
    mentions: &[Cow<'_, str>],
    mention_all: bool,
    files: &[Cow<'_, str>],
) -> Result<Option<Box<Extras>>, Refusal> {
    if reply_to == 0 && mentions.is_empty() && !mention_all && files.is_empty() {
        return Ok(None);
    }
    let mut extras = Extras { mention_all, ..Extras::default() };
    if reply_to > native::NUMBER_MAX {
        return Err(Refusal::invalid("reply_to", "is not a message_id"));
    }
    if reply_to > 0 {
        extras.reply_to = Some(MessageId::new(reply_to));
    }
    for text in mentions {
        let uid = Uid::new(text).map_err(bad_id("mentions"))?;
        if !extras.mentions.contains(&uid) {
            extras.mentions.push(uid);
        }
    }
    for text in files {
        let file = FileId::new(text).map_err(bad_id("files"))?;
        if !extras.files.contains(&file) {
            extras.files.push(file);
        }
    }
    Ok(extras.boxed())
}

/// Users a request names.
///
/// # Errors
/// `Invalid`, naming the field; an empty list too.
pub fn uids_of(field: &'static str, texts: &[Cow<'_, str>]) -> Result<Vec<Uid>, Refusal> {
    if texts.is_empty() {
        return Err(Refusal::invalid(field, "is empty"));
    }
    texts.iter().map(|text| Uid::new(text).map_err(bad_id(field))).collect()
}

/// What a client asks a sync for, from either frame that has it.
pub struct SyncAsked<'a> {
    /// Highest version it has seen.
    pub version: u64,
    /// Cursors as text.
    pub last_msg_seqs: Option<&'a str>,
    /// Cursors as a list.
    pub cursors: &'a [native::Cursor<'a>],
    /// Newest messages of a row.
    pub msg_count: i64,
    /// Only rows with unread.
    pub only_unread: bool,
    /// Where the page before ended.
    pub page_after: Option<&'a str>,
    /// Rows of a page; 0: the server's.
    pub rows_max: u32,
}

/// Bytes of recents in one native page: pages are many, so each stays small beside a socket's buffers.
const PAGE_RECENTS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A native sync: always with tombstones, always paged.
///
/// # Errors
/// `Invalid`, naming the field.
pub fn sync_of(uid: &Uid, asked: &SyncAsked<'_>, limits: &GatewayLimits) -> Result<SyncRequest, Refusal> {
    let cursors = match (asked.last_msg_seqs, asked.cursors) {
        (Some(text), []) => Some(Cursors::Text(text.to_owned())),
        (Some(_), _) => return Err(Refusal::invalid("cursors", "cannot be given beside last_msg_seqs")),
        (None, []) => None,
        (None, list) => Some(Cursors::List(
            list.iter()
                .map(|cursor| Cursor {
                    channel_id: cursor.channel_id.clone().into_owned(),
                    channel_type: cursor.channel_type,
                    last_msg_seq: cursor.last_msg_seq,
                })
                .collect(),
        )),
    };
    let rows_max = match asked.rows_max as usize {
        0 => limits.rows_max,
        wanted => wanted.min(limits.rows_max),
    };
    Ok(SyncRequest {
        version: Version::new(asked.version),
        cursors,
        recents_bytes_max: PAGE_RECENTS_BYTES_MAX,
        with_deleted: true,
        only_unread: asked.only_unread,
        page: Page::Rows { after: asked.page_after.map(page_after_of).transpose()?, rows_max },
        ..SyncRequest::full(uid.clone(), SyncRequest::msg_count_of(asked.msg_count)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_refers_to_is_checked_and_collapsed() {
        let extras = |reply_to, mentions: &[&'static str], all, files: &[&'static str]| {
            let list = |texts: &[&'static str]| texts.iter().map(|text| Cow::Borrowed(*text)).collect::<Vec<_>>();
            extras_of(reply_to, &list(mentions), all, &list(files))
        };
        assert_eq!(extras(0, &[], false, &[]), Ok(None));
        let found = extras(7, &["bob", "eve", "bob"], true, &["ab-1", "ab-1"]).expect("valid").expect("some");
        let names: Vec<&str> = found.mentions.iter().map(Uid::as_str).collect();
        assert_eq!((found.reply_to, names, found.mention_all), (Some(MessageId::new(7)), vec!["bob", "eve"], true));
        assert_eq!(found.files.len(), 1);
        for (reply_to, mentions, files, field) in [
            (native::NUMBER_MAX + 1, &[][..], &[][..], "reply_to"),
            (0, &["a@b"], &[], "mentions"),
            (0, &[""], &[], "mentions"),
            (0, &[], &["../etc"], "files"),
        ] {
            let refusal = extras(reply_to, mentions, false, files).expect_err(field);
            assert_eq!(refusal.field(), Some(field));
        }
    }
}
