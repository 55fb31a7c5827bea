//! Export as NDJSON, one file per channel, for whoever wants the data without this server.
//!
//! ```text
//! DIR/channels.ndjson       a line per channel: its file, name, messages, digest; written last
//! DIR/0000000042.ndjson     a line "channel", a line "member" each, a line "message" each, a line "end"
//! ```
//! Owns the JSON. A file has its name only when it is whole, so an export that was interrupted is begun again over the old one.

use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Part, Progress, Tell, make_dir, read_format};
use crate::domain::message::{Message, MessageState};
use crate::store::durable::{DurableStore, StoreOptions};
use crate::store::search::SearchOptions;
use crate::store::{ChannelInfo, ChannelNo, Result, SeqRange, Store, StoreError};

/// Messages and payload bytes read at once.
const PAGE: (usize, usize) = (500, 8 << 20);

/// What an export wrote.
#[derive(Debug, Clone, Copy, Default)]
pub struct ExportReport {
    /// Channels, a file each.
    pub channels: u64,
    /// Messages in them.
    pub messages: u64,
    /// Messages without a payload because their record is damaged.
    pub damaged: u64,
}

/// Writes every channel of a data directory that no server has into `target`, made when it is not there.
///
/// # Errors
/// A server has the directory, it cannot be opened, the disk.
pub fn export(data_dir: &Path, target: &Path, tell: Tell<'_>) -> Result<ExportReport> {
    read_format(data_dir)?;
    make_dir(target)?;
    let search = SearchOptions { on: false, ..SearchOptions::default() };
    let (store, _) = DurableStore::open(StoreOptions { search, ..StoreOptions::new(data_dir) })?;
    let all = store.stats().channels;
    let mut report = ExportReport::default();
    let mut index = Part::begin(&target.join("channels.ndjson"))?;
    // Numbers are dense but for those of commits that failed.
    for number in 0..u32::MAX {
        if report.channels == all {
            break;
        }
        let Some(info) = store.channel(ChannelNo(number))? else { continue };
        tell(Progress { phase: "channels", done: report.channels << 20, total: all << 20 });
        let name = format!("{number:010}.ndjson");
        let (messages, damaged) = channel(&store, &info, &target.join(&name))?;
        report.channels += 1;
        report.messages += messages;
        report.damaged += damaged;
        let mut line = head(&info);
        line["file"] = json!(name);
        line["messages"] = json!(messages);
        write_line(&mut index, &line)?;
    }
    index.finish()?;
    Ok(report)
}

fn write_line(part: &mut Part, line: &Value) -> Result<()> {
    let mut text = line.to_string();
    text.push('\n');
    part.write(text.as_bytes())
}

fn head(info: &ChannelInfo) -> Value {
    json!({
        "channel_id": info.key.channel_id(), "channel_type": info.key.channel_type().to_wire(),
        "head_seq": info.head_seq, "digest": digest(info),
    })
}

fn digest(info: &ChannelInfo) -> String {
    info.digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes one channel. Returns its messages, and how many of them are damaged.
fn channel(store: &DurableStore, info: &ChannelInfo, path: &Path) -> Result<(u64, u64)> {
    let mut part = Part::begin(path)?;
    let mut line = head(info);
    let settings = &info.settings;
    line["kind"] = json!("channel");
    line["created"] = json!(info.created.get());
    line["settings"] = json!({
        "ban": settings.ban, "disband": settings.disband, "send_ban": settings.send_ban, "large": settings.large,
        "allow_stranger": settings.allow_stranger,
    });
    if let Some(profile) = store.profile(info.channel)? {
        line["profile"] = json!({
            "name": profile.name, "icon": profile.icon, "description": profile.description, "project": profile.project,
            "creator": profile.creator.as_ref().map(|uid| uid.as_str().to_owned()),
        });
    }
    write_line(&mut part, &line)?;
    for (uid, membership) in store.memberships(info.channel)? {
        let state = store.conversation_state(info.channel, &uid)?.unwrap_or_default();
        let member = json!({
            "kind": "member", "uid": uid.as_str(), "role": membership.role as u8, "since": membership.since.get(),
            "join_floor": membership.join_floor, "read_seq": state.read_seq, "delete_floor": state.delete_floor,
        });
        write_line(&mut part, &member)?;
    }
    let (mut next, mut damaged) = (1, 0);
    while next <= info.head_seq {
        let range =
            SeqRange { first: next, last: info.head_seq, limit: PAGE.0, bytes_max: PAGE.1, newest_first: false };
        let messages = store.messages(info.channel, range)?;
        if messages.is_empty() {
            let detail = format_args!("channel number {}: no message from seq {next} on", info.channel.0);
            return Err(StoreError::damaged("export", detail));
        }
        for message in messages {
            next = message.message_seq.get() + 1;
            damaged += u64::from(message.state == MessageState::Damaged);
            write_line(&mut part, &message_line(&message))?;
        }
    }
    let end = json!({"kind": "end", "messages": info.head_seq, "digest": digest(info)});
    write_line(&mut part, &end)?;
    part.finish()?;
    Ok((info.head_seq, damaged))
}

fn message_line(message: &Message) -> Value {
    let flags = message.flags;
    let mut line = json!({
        "kind": "message", "message_seq": message.message_seq.get(), "message_id": message.message_id.get(),
        "timestamp_ms": message.timestamp_ms(), "from_uid": message.from_uid.as_str(),
        "client_msg_no": message.client_msg_no.as_str(), "red_dot": flags.red_dot, "sync_once": flags.sync_once,
        "setting": message.setting, "topic": message.topic, "expire_s": message.expire_s,
        "state": message.state.code().unwrap_or("live"), "payload": STANDARD.encode(&message.payload),
    });
    if let Some(extras) = &message.extras {
        line["extras"] = json!({
            "reply_to": extras.reply_to.map(|id| id.get()), "mention_all": extras.mention_all,
            "mentions": extras.mentions.iter().map(|uid| uid.as_str()).collect::<Vec<_>>(),
            "files": extras.files.iter().map(|id| id.as_str()).collect::<Vec<_>>(),
        });
    }
    if message.edited.get() > 0 {
        line["edited"] = json!(message.edited.get());
    }
    if !message.reactions.is_empty() {
        let reacted = message.reactions.iter();
        line["reactions"] = reacted.map(|r| json!({"uid": r.uid.as_str(), "reaction": r.reaction.code()})).collect();
    }
    line
}
