//! A channel's settings and who may do what in it.

use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, Uid, Version};

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

/// What a member may do in a group beyond writing. Each may do all the one before may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum Role {
    /// Write, read, invite nobody.
    #[default]
    Member = 0,
    /// Also: add and remove members, change the profile, revoke anybody's messages.
    Admin = 1,
    /// Also: give and take roles, disband.
    Owner = 2,
}

impl Role {
    /// Reads the number of wires and disk.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Member),
            1 => Some(Self::Admin),
            2 => Some(Self::Owner),
            _ => None,
        }
    }

    /// The stable word of wires and pages.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Member => "member",
            Self::Admin => "admin",
            Self::Owner => "owner",
        }
    }
}

/// Longest name of a channel's profile in bytes.
pub const PROFILE_NAME_BYTES_MAX: usize = 255;
/// Longest icon (a link or a file id) in bytes.
pub const PROFILE_ICON_BYTES_MAX: usize = 1024;
/// Longest description in bytes.
pub const PROFILE_DESCRIPTION_BYTES_MAX: usize = 1024;

/// How a group presents itself. Empty texts mean "none".
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ChannelProfile {
    /// What members call it.
    pub name: String,
    /// A link or a file id.
    pub icon: String,
    /// What it is for.
    pub description: String,
    /// The project a group belongs to (`group` of threads.txt); empty: made by users for themselves.
    pub project: String,
    /// Who made it; `None`: a back end.
    pub creator: Option<Uid>,
}

/// One user's membership in a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Membership {
    /// What the member may do.
    pub role: Role,
    /// Messages up to this seq came before the user joined: never unread.
    pub join_floor: u64,
    /// Version of the record that made the user a member.
    pub since: Version,
}

/// The space of chat ids (uuid v5).
const CHAT_IDS: uuid::Uuid = uuid::uuid!("6c1d4a53-2b57-5d2e-9d0e-6f9b5f4ad0c1");

/// The uuid that every dialect calls a channel by, lowercase and hyphenated: a group named by a uuid keeps it, every other
/// channel has a uuid v5 of its type and stored id (design.md section 2, Channels).
#[must_use]
pub fn chat_id(key: &ChannelKey) -> String {
    if key.channel_type() == ChannelType::Group
        && let Ok(uuid) = uuid::Uuid::try_parse(key.channel_id())
    {
        return uuid.hyphenated().to_string();
    }
    let name = format!("{}:{}", key.channel_type().to_wire(), key.channel_id());
    uuid::Uuid::new_v5(&CHAT_IDS, name.as_bytes()).hyphenated().to_string()
}

/// The chat id of "the same users": any order, each once (m3o.txt; design.md section 2). Two users have their person
/// channel's instead.
#[must_use]
pub fn set_id(uids: &[Uid]) -> String {
    let mut names: Vec<&str> = uids.iter().map(Uid::as_str).collect();
    names.sort_unstable();
    names.dedup();
    // No uid holds this character unless as the end of its namespace, which all of one set share.
    let name = format!("set:{}", names.join("\u{1e}"));
    uuid::Uuid::new_v5(&CHAT_IDS, name.as_bytes()).hyphenated().to_string()
}

/// The chat id of a group that `owner` makes of these users in a request with a name of its own: the same name and users,
/// in any order, name the same group again.
#[must_use]
pub fn named_set_id(owner: &Uid, name: &ClientMsgNo, uids: &[Uid]) -> String {
    let mut all = uids.to_vec();
    all.push(owner.clone());
    let name = format!("named:{owner}\u{1e}{name}\u{1e}{}", set_id(&all));
    uuid::Uuid::new_v5(&CHAT_IDS, name.as_bytes()).hyphenated().to_string()
}

/// The chat id of a project's group (`group` of threads.txt): one per project.
#[must_use]
pub fn project_id(project: &str) -> String {
    uuid::Uuid::new_v5(&CHAT_IDS, format!("project:{project}").as_bytes()).hyphenated().to_string()
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
