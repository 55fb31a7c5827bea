//! What a lot must be before a byte of it is written: the caller numbered it rightly.

use protocol::ids::ChannelKey;

use crate::domain::refusal::ErrorKind;
use crate::store::view::View;
use crate::store::{ChannelNo, Commit, Record, Result, StoreError};

fn out_of_order(detail: impl std::fmt::Display) -> StoreError {
    StoreError { operation: "commit", kind: ErrorKind::Internal, detail: detail.to_string(), source: None }
}

/// Refuses what no correct caller commits, before anything is written. Loads the channels it changes, too, so that
/// most of what applying could fail at has failed before.
pub fn check_lot(view: &View, lot: &[Commit]) -> Result<()> {
    let mut heads: foldhash::HashMap<ChannelNo, u64> = foldhash::HashMap::default();
    let mut names: foldhash::HashSet<&ChannelKey> = foldhash::HashSet::default();
    if lot.is_empty() || lot.iter().any(|commit| commit.records.is_empty()) {
        return Err(out_of_order("a lot or a commit without records"));
    }
    for record in lot.iter().flat_map(|commit| &commit.records) {
        if let Record::ChannelCreated { channel, key } = record {
            let taken = heads.contains_key(channel) || view.head_seq(*channel)?.is_some();
            if taken || !names.insert(key) || view.channel_no(key)?.is_some() {
                return Err(out_of_order(format_args!("channel {key:?} or its number {} exists", channel.0)));
            }
            heads.insert(*channel, 0);
            continue;
        }
        let Some(channel) = record.channel() else { continue };
        let head = match heads.entry(channel) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(free) => match view.head_seq(channel)? {
                Some(head) => free.insert(head),
                None => return Err(out_of_order(format_args!("channel number {} does not exist", channel.0))),
            },
        };
        if let Record::Message(message) = record {
            if message.message_seq.get() != *head + 1 {
                let seq = message.message_seq;
                let detail = format_args!("message_seq {seq} after head {head} of channel number {}", channel.0);
                return Err(out_of_order(detail));
            }
            *head += 1;
        }
    }
    Ok(())
}
