//! From records to owners: which of them a record changes.
//!
//! Refuses to know how an owner keeps what it is told.

use std::sync::atomic::Ordering;

use protocol::ids::{ChannelType, Uid, Version};

use super::server::Due;
use super::{View, implied_members};
use crate::domain::message::Extras;
use crate::store::log::Place;
use crate::store::{ChannelNo, CredentialHash, Record, Result};

impl View {
    /// Applies one record. Records of one owner must come in order; a record that is applied already changes nothing.
    ///
    /// # Errors
    /// I/O or damage while loading what the record changes. The view must not be used any further then.
    pub fn apply(&self, version: Version, place: Place, record: &Record) -> Result<()> {
        let ctx = self.ctx();
        match record {
            Record::ChannelCreated { channel, key } => {
                self.names.pin(key, channel.0);
                if key.channel_type() == ChannelType::Person {
                    self.persons.write().insert(channel.0);
                }
                let fresh = self.with(*channel, |state| {
                    let fresh = state.key().is_none();
                    state.create(&ctx, version, key)?;
                    Ok(fresh)
                })?;
                if fresh {
                    self.channel_count.fetch_add(1, Ordering::Relaxed);
                } else {
                    self.names.unpin(key);
                }
                self.next_channel.fetch_max(channel.0.saturating_add(1), Ordering::Relaxed);
                for uid in implied_members(key) {
                    self.with_user(&uid, |user| user.join(&ctx, version, channel.0, 0))?;
                }
            }
            Record::ChannelSettings { channel, settings } => {
                self.with(*channel, |state| {
                    state.set(version, settings);
                    Ok(())
                })?;
                self.recency.touch(channel.0, version.get());
            }
            Record::Message(m) => {
                let first = self.with(m.channel, |state| state.append(&ctx, version, place, m))?;
                self.recency.touch(m.channel.0, version.get());
                let replaying = self.replaying.load(Ordering::Relaxed);
                if first || (replaying && self.senders_told.lock().insert(m.from_uid.clone())) {
                    self.with_user(&m.from_uid, |user| {
                        user.has_sent();
                        Ok(())
                    })?;
                }
                self.refer(m.channel, m.message_seq.get(), m.extras.as_deref());
                if m.expire_s > 0 {
                    let due_ms = version.unix_ms() + u64::from(m.expire_s) * 1_000;
                    let due = Due { due_ms, no: m.channel.0, seq: m.message_seq.get() };
                    self.server.lock().add_due(version.get(), due);
                }
            }
            Record::MembersAdded { channel, join_floor, uids } => {
                self.with(*channel, |state| state.add_members(&ctx, version, *join_floor, uids))?;
                for uid in uids {
                    self.with_user(uid, |user| user.join(&ctx, version, channel.0, *join_floor))?;
                }
            }
            Record::MembersRemoved { channel, delete_floor, uids } => {
                self.with(*channel, |state| state.remove_members(&ctx, version, uids))?;
                for uid in uids {
                    self.with_user(uid, |user| user.leave(&ctx, version, channel.0, *delete_floor))?;
                }
            }
            #[cfg(feature = "seeded-bugs")]
            Record::ReadPosition { .. } if crate::seeded::now_and_then(crate::seeded::Bug::LoseReadPosition) => {}
            Record::ReadPosition { channel, uid, seq } => {
                self.with_user(uid, |user| user.read(&ctx, version, channel.0, *seq))?;
            }
            Record::ConversationDeleted { channel, uid, delete_floor } => {
                self.with_user(uid, |user| user.delete(&ctx, version, channel.0, *delete_floor))?;
            }
            Record::MessagesExpired { channel, seqs } => {
                self.with(*channel, |state| state.expire(&ctx, version, seqs))?;
                self.recency.touch(channel.0, version.get());
            }
            Record::UserCreated { uid } => self.with_user(uid, |user| {
                user.create(version);
                Ok(())
            })?,
            Record::UserToken { uid, device_flag, device_level, token } => {
                self.apply_token(version, uid, device_flag.0, *device_level, *token)?;
            }
            Record::ApiKey(key) => self.server.lock().set_key(version.get(), key),
            Record::Alias { alias, channel } => {
                if self.alias_row(alias)?.is_none_or(|(_, known)| known < version.get()) {
                    self.with(*channel, |state| {
                        if state.name_alias(version, alias) {
                            self.aliases.pin(alias, (channel.0, version.get()));
                        }
                        Ok(())
                    })?;
                }
            }
            Record::MessageRevoked { channel, seq, .. } => {
                let changed = self.with(*channel, |state| state.revoke(&ctx, version, *seq))?;
                self.touch_if(changed, *channel, version);
            }
            Record::MessageEdited { channel, seq, extras, .. } => {
                let extras = extras.as_deref();
                let changed = self.with(*channel, |state| state.edit(&ctx, version, place, *seq, extras))?;
                self.touch_if(changed, *channel, version);
                self.refer(*channel, *seq, extras);
            }
            Record::MessageReacted { channel, seq, uid, reaction } => {
                let changed = self.with(*channel, |state| state.react(&ctx, version, *seq, uid, *reaction))?;
                self.touch_if(changed, *channel, version);
            }
            Record::MessageEvent { channel, seq, lane } => {
                let number = lane.number;
                let changed = self.with(*channel, |state| state.happen(&ctx, version, place, *seq, number))?;
                self.touch_if(changed, *channel, version);
            }
            Record::MemberRole { channel, uid, role } => {
                self.with(*channel, |state| state.set_role(&ctx, version, uid, *role))?;
            }
            Record::ChannelProfile { channel, profile } => {
                self.with(*channel, |state| {
                    state.set_profile(version, profile);
                    Ok(())
                })?;
                self.recency.touch(channel.0, version.get());
            }
            Record::ConversationFlags { channel, uid, flags } => {
                self.with_user(uid, |user| user.flag(&ctx, version, channel.0, *flags))?;
            }
            Record::UserSettings { uid, settings } => self.with_user(uid, |user| {
                user.set(version, *settings);
                Ok(())
            })?,
            Record::Relation { uid, peer, relation } => {
                self.with_user(uid, |user| user.relate(&ctx, version, peer, *relation))?;
            }
            Record::ChannelListed { channel, list, on, uids } => {
                self.with(*channel, |state| state.list(&ctx, version, *list, *on, uids))?;
            }
            Record::SystemUser { uid, on } => self.registers.write().set_system_user(version, uid, *on),
            Record::CommandsRead { uid, position, message_id } => self.with_user(uid, |user| {
                user.read_commands(version, *position, *message_id);
                Ok(())
            })?,
            Record::AddressBlocked { address, on } => self.registers.write().set_address(version, *address, *on),
            Record::File(file) => self.files.set(&self.db, version, &file.file_id, Some(file))?,
            Record::FileRemoved { file_id } => self.files.set(&self.db, version, file_id, None)?,
            Record::Break { kept, until } => {
                let mut server = self.server.lock();
                server.add_break(kept.get(), until.get());
                *self.breaks.write() = server.breaks().to_vec();
            }
        }
        Ok(())
    }

    /// The channel changed for its members, if that is news.
    fn touch_if(&self, changed: bool, channel: ChannelNo, version: Version) {
        if changed {
            self.recency.touch(channel.0, version.get());
        }
    }

    /// Files know who carries them, whether the channel has applied the record before or not.
    fn refer(&self, channel: ChannelNo, seq: u64, extras: Option<&Extras>) {
        if let Some(extras) = extras {
            self.files.refer(&extras.files, (channel.0, seq));
        }
    }

    /// Applies a message whose record is damaged: a hole.
    ///
    /// # Errors
    /// As [`View::apply`].
    pub fn apply_hole(&self, version: Version, place: Place, channel: ChannelNo, seq: u64) -> Result<()> {
        self.with(channel, |state| state.append_hole(version, place, seq))?;
        self.recency.touch(channel.0, version.get());
        Ok(())
    }

    fn apply_token(
        &self,
        version: Version,
        uid: &Uid,
        flag: u8,
        level: u8,
        token: Option<CredentialHash>,
    ) -> Result<()> {
        self.with_user(uid, |user| {
            let Some(held) = user.set_token(version, flag, level, token) else { return Ok(()) };
            // The user's state lists each as dirty, once per pin.
            for hash in [held, token].into_iter().flatten() {
                let mut owners = self.token_row(&hash)?;
                owners.retain(|(owner, f, _)| owner != uid || *f != flag);
                if token == Some(hash) {
                    owners.push((uid.clone(), flag, level));
                }
                self.tokens.pin(&hash, owners);
            }
            Ok(())
        })
    }
}
