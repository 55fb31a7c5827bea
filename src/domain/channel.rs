//! A channel's settings and who may do what in it.

use protocol::ids::{ChannelType, Version};

use super::refusal::Refusal;

/// Settings of a channel (wukongim-http.md 4.1). All off for an implicit channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelSettings {
    /// Nobody may send.
    pub ban: bool,
    /// Ended: nobody may send, members are gone.
    pub disband: bool,
    /// On a user's own channel: this user may not send anywhere. Stored for all.
    pub send_ban: bool,
    /// Stored and returned only.
    pub large: bool,
    /// Stored and returned only (a later issue reads it).
    pub allow_stranger: bool,
}

/// One user's membership in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// Messages up to this seq came before the user joined: never unread.
    pub join_floor: u64,
    /// Version of the record that made the user a member.
    pub since: Version,
}

/// Who asks, for the rules of sending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// A client, or a back end with a user's own credential: every rule applies.
    Client,
    /// A back end with an API key: only ban and disband apply (wukongim-http.md section 15, 4).
    Trusted,
}

/// Whether a send is allowed: the order of wukongim-http.md section 9 (v2), as far as lists exist.
///
/// # Errors
/// `ChannelBanned`, `ChannelDisbanded`, `NotMember`, `ChannelNotFound` (a named group that was never created).
pub fn authorise_send(
    channel_type: ChannelType,
    exists: bool,
    settings: &ChannelSettings,
    is_member: bool,
    standing: Standing,
) -> Result<(), Refusal> {
    if settings.ban {
        return Err(Refusal::ChannelBanned);
    }
    if settings.disband {
        return Err(Refusal::ChannelDisbanded);
    }
    match (channel_type, standing) {
        (ChannelType::Person | ChannelType::CustomerService, _) => Ok(()),
        (ChannelType::Group, Standing::Trusted) if exists => Ok(()),
        (ChannelType::Group, Standing::Trusted) => Err(Refusal::ChannelNotFound),
        (ChannelType::Group, Standing::Client) if is_member => Ok(()),
        (ChannelType::Group, Standing::Client) => Err(Refusal::NotMember),
    }
}
