//! A channel's settings and who may do what in it.

use protocol::ids::{ChannelKey, ChannelType, ClientMsgNo, Uid, Version};

use super::refusal::Refusal;

/// Settings of a channel (wukongim-http.md 4.1). All off for an implicit channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ChannelSettings {
    /// Nobody may send. On a user's own channel: nobody may write to this user.
    pub ban: bool,
    /// Ended: nobody may send, members are gone.
    pub disband: bool,
    /// On a user's own channel (the note to self): this user may not send anywhere. Stored for all.
    pub send_ban: bool,
    /// Stored and returned only.
    pub large: bool,
    /// On a user's own channel: where only contacts may write, strangers may write to this user. Stored for all.
    pub allow_stranger: bool,
}

/// One of a channel's two lists of users (black and white lists, wukongim-http.md 4.5). A person channel has none: who is
/// blocked by a user and who is a contact is the user's relations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ChannelList {
    /// Who is on it may not send.
    Deny = 0,
    /// While anybody is on it, only who is on it may send.
    Allow = 1,
}

impl ChannelList {
    /// The stable word of exports.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }

    /// Reads the stable word.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        [Self::Deny, Self::Allow].into_iter().find(|list| list.code() == code)
    }
}

/// On which lists of a channel a user is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Listing {
    /// On the deny list.
    pub denied: bool,
    /// On the allow list.
    pub allowed: bool,
}

impl Listing {
    /// Whether the user is on neither.
    #[must_use]
    pub fn is_none(self) -> bool {
        self == Self::default()
    }

    /// The listing after a change of one list.
    #[must_use]
    pub fn with(self, list: ChannelList, on: bool) -> Self {
        match list {
            ChannelList::Deny => Self { denied: on, ..self },
            ChannelList::Allow => Self { allowed: on, ..self },
        }
    }

    /// Whether the user is on a list.
    #[must_use]
    pub fn on(self, list: ChannelList) -> bool {
        match list {
            ChannelList::Deny => self.denied,
            ChannelList::Allow => self.allowed,
        }
    }
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

    /// Reads the stable word of wires.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        [Self::Member, Self::Admin, Self::Owner].into_iter().find(|role| role.code() == code)
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

/// Who wants to change a channel or what lies in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Actor {
    /// A back end with an API key.
    Trusted,
    /// A member, who may do what the role says.
    Member(Role),
    /// No member.
    Outsider,
}

impl Actor {
    /// Whether the actor may do what an admin may.
    #[must_use]
    pub fn is_admin(self) -> bool {
        match self {
            Self::Trusted => true,
            Self::Member(role) => role >= Role::Admin,
            Self::Outsider => false,
        }
    }

    fn unless_admin(self, action: &'static str) -> Result<(), Refusal> {
        match self {
            Self::Outsider => Err(Refusal::NotMember),
            actor if actor.is_admin() => Ok(()),
            Self::Trusted | Self::Member(_) => Err(Refusal::Forbidden { action }),
        }
    }
}

/// Whether the actor may replace the profile.
///
/// # Errors
/// `NotMember`, `Forbidden`.
pub fn authorise_profile(actor: Actor) -> Result<(), Refusal> {
    actor.unless_admin("change the profile")
}

/// Whether the actor may add members. `led`: the group has an owner or admins; one without belongs to all its members.
///
/// # Errors
/// `NotMember`, `Forbidden`.
pub fn authorise_invite(actor: Actor, led: bool) -> Result<(), Refusal> {
    match actor {
        Actor::Member(_) if !led => Ok(()),
        actor => actor.unless_admin("add members"),
    }
}

/// Whether the actor may remove another member, who has this role. Removing oneself is leaving, which anybody may.
///
/// # Errors
/// `NotMember`, `Forbidden`.
pub fn authorise_expel(actor: Actor, target: Role) -> Result<(), Refusal> {
    actor.unless_admin("remove members")?;
    match actor {
        Actor::Member(role) if role < Role::Owner && role <= target => {
            Err(Refusal::Forbidden { action: "remove a member of this role" })
        }
        _ => Ok(()),
    }
}

/// Whether the actor may set roles. An owner gives ownership away by making another the owner, not by laying it down: a
/// group that has an owner keeps one.
///
/// # Errors
/// `NotMember`, `Forbidden`, `Invalid`.
pub fn authorise_role(actor: Actor, about_oneself: bool, role: Role) -> Result<(), Refusal> {
    match actor {
        Actor::Trusted => Ok(()),
        Actor::Outsider => Err(Refusal::NotMember),
        Actor::Member(Role::Owner) if about_oneself && role != Role::Owner => {
            Err(Refusal::invalid("role", "an owner makes another member the owner"))
        }
        Actor::Member(Role::Owner) => Ok(()),
        Actor::Member(Role::Admin | Role::Member) => Err(Refusal::Forbidden { action: "set roles" }),
    }
}

/// Who becomes the owner when the owner goes: the oldest admin, else the oldest member. `rest`: who stays, in order of
/// joining.
#[must_use]
pub fn heir<'a>(rest: impl IntoIterator<Item = (&'a Uid, Role)>) -> Option<&'a Uid> {
    let mut oldest = None;
    for (uid, role) in rest {
        if role >= Role::Admin {
            return Some(uid);
        }
        oldest = oldest.or(Some(uid));
    }
    oldest
}

/// Whether the actor may take a message back: its sender before `within_s` seconds have passed, admins and back ends any time.
///
/// # Errors
/// `NotMember`, `Forbidden` (another's message), `TooLate`.
pub fn authorise_revoke(actor: Actor, is_own: bool, age_s: u64, within_s: u64) -> Result<(), Refusal> {
    match actor {
        Actor::Outsider => Err(Refusal::NotMember),
        actor if actor.is_admin() => Ok(()),
        _ if !is_own => Err(Refusal::Forbidden { action: "revoke another's message" }),
        _ if age_s >= within_s => Err(Refusal::TooLate { action: "revoke", within_s }),
        _ => Ok(()),
    }
}

/// Whether the actor may replace what a message says: its sender before `within_s` seconds have passed, back ends any time. An admin may
/// take words back, not put them into another's mouth.
///
/// # Errors
/// `NotMember`, `Forbidden` (another's message), `TooLate`.
pub fn authorise_edit(actor: Actor, is_own: bool, age_s: u64, within_s: u64) -> Result<(), Refusal> {
    match actor {
        Actor::Outsider => Err(Refusal::NotMember),
        Actor::Trusted => Ok(()),
        Actor::Member(_) if !is_own => Err(Refusal::Forbidden { action: "edit another's message" }),
        Actor::Member(_) if age_s >= within_s => Err(Refusal::TooLate { action: "edit", within_s }),
        Actor::Member(_) => Ok(()),
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

impl ChannelProfile {
    /// Checks its lengths.
    ///
    /// # Errors
    /// `TooLarge` naming the field.
    pub fn check(&self) -> Result<(), Refusal> {
        for (field, text, max) in [
            ("name", &self.name, PROFILE_NAME_BYTES_MAX),
            ("icon", &self.icon, PROFILE_ICON_BYTES_MAX),
            ("description", &self.description, PROFILE_DESCRIPTION_BYTES_MAX),
            ("project", &self.project, PROFILE_NAME_BYTES_MAX),
        ] {
            if text.len() > max {
                return Err(Refusal::TooLarge { field, bytes: text.len(), max });
            }
        }
        Ok(())
    }
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

/// The alias a channel needs so that its chat id finds it; `None` where its own id is that already.
#[must_use]
pub fn alias_of(key: &ChannelKey) -> Option<String> {
    let alias = chat_id(key);
    (key.channel_type() != ChannelType::Group || alias != key.channel_id()).then_some(alias)
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

/// The channel of commands to exactly these users: one per set.
#[must_use]
pub fn command_channel(uids: &[Uid]) -> ChannelKey {
    let id = uuid::Uuid::new_v5(&CHAT_IDS, format!("commands:{}", set_id(uids)).as_bytes());
    ChannelKey::from_stored(&id.hyphenated().to_string(), ChannelType::Group)
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
    /// A back end with an API key whose sends are checked like a client's (`wukong.api_send_checks`): what a client may not
    /// know, it may.
    Checked,
}

/// What is known of who sends to a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Sender {
    /// A system user: held to ban and disband only.
    pub is_system: bool,
    /// May not send anywhere.
    pub send_banned: bool,
    /// A member of the channel.
    pub is_member: bool,
    /// On its lists.
    pub listing: Listing,
}

/// What is known of a channel somebody sends to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target<'a> {
    /// Its type.
    pub channel_type: ChannelType,
    /// It was created.
    pub exists: bool,
    /// Its settings.
    pub settings: &'a ChannelSettings,
    /// Its allow list is not empty.
    pub has_allow_list: bool,
}

/// Whether a send is allowed by the channel: the order of wukongim-http.md section 9 (v2). What the recipient of a person
/// channel allows comes after it ([`crate::domain::user::reception`]).
///
/// # Errors
/// `SendBanned`, `ChannelBanned`, `ChannelDisbanded`, `Denied`, `NotMember`, `NotListed`, `ChannelNotFound` (a named group
/// that was never created).
pub fn authorise_send(target: Target<'_>, sender: Sender, standing: Standing) -> Result<(), Refusal> {
    if sender.send_banned && standing != Standing::Trusted {
        return Err(Refusal::SendBanned);
    }
    if target.settings.ban {
        return Err(Refusal::ChannelBanned);
    }
    if target.settings.disband {
        return Err(Refusal::ChannelDisbanded);
    }
    if target.channel_type != ChannelType::Group {
        return Ok(());
    }
    let is_client = standing == Standing::Client && !sender.is_system;
    if !target.exists && !is_client {
        return Err(Refusal::ChannelNotFound);
    }
    if standing == Standing::Trusted || sender.is_system {
        return Ok(());
    }
    if sender.listing.denied {
        return Err(Refusal::Denied);
    }
    if !sender.is_member {
        return Err(Refusal::NotMember);
    }
    if target.has_allow_list && !sender.listing.allowed {
        return Err(Refusal::NotListed);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMBER: Actor = Actor::Member(Role::Member);
    const ADMIN: Actor = Actor::Member(Role::Admin);
    const OWNER: Actor = Actor::Member(Role::Owner);

    fn code(verdict: Result<(), Refusal>) -> &'static str {
        verdict.map_or_else(|refusal| refusal.code(), |()| "ok")
    }

    #[test]
    fn who_may_change_the_profile_and_invite() {
        for (actor, profile, invite, invite_to_all) in [
            (Actor::Outsider, "not_member", "not_member", "not_member"),
            (MEMBER, "forbidden", "forbidden", "ok"),
            (ADMIN, "ok", "ok", "ok"),
            (OWNER, "ok", "ok", "ok"),
            (Actor::Trusted, "ok", "ok", "ok"),
        ] {
            assert_eq!(code(authorise_profile(actor)), profile, "{actor:?}");
            assert_eq!(code(authorise_invite(actor, true)), invite, "{actor:?}");
            assert_eq!(code(authorise_invite(actor, false)), invite_to_all, "{actor:?}");
        }
    }

    #[test]
    fn who_may_remove_whom() {
        let targets = [Role::Member, Role::Admin, Role::Owner];
        for (actor, expected) in [
            (Actor::Outsider, ["not_member"; 3]),
            (MEMBER, ["forbidden"; 3]),
            (ADMIN, ["ok", "forbidden", "forbidden"]),
            (OWNER, ["ok"; 3]),
            (Actor::Trusted, ["ok"; 3]),
        ] {
            assert_eq!(targets.map(|target| code(authorise_expel(actor, target))), expected, "{actor:?}");
        }
    }

    #[test]
    fn roles_are_the_owners_to_give() {
        for (actor, about_oneself, role, expected) in [
            (Actor::Outsider, false, Role::Admin, "not_member"),
            (MEMBER, false, Role::Admin, "forbidden"),
            (ADMIN, true, Role::Owner, "forbidden"),
            (OWNER, false, Role::Admin, "ok"),
            (OWNER, false, Role::Owner, "ok"),
            (OWNER, true, Role::Member, "invalid"),
            (OWNER, true, Role::Owner, "ok"),
            (Actor::Trusted, false, Role::Member, "ok"),
        ] {
            let verdict = code(authorise_role(actor, about_oneself, role));
            assert_eq!(verdict, expected, "{actor:?} {about_oneself} {role:?}");
        }
    }

    #[test]
    fn who_may_take_back_and_edit_what() {
        for (actor, is_own, age_s, revoke, edit) in [
            (Actor::Outsider, true, 0, "not_member", "not_member"),
            (MEMBER, true, 119, "ok", "ok"),
            (MEMBER, true, 120, "too_late", "too_late"),
            (MEMBER, false, 0, "forbidden", "forbidden"),
            (ADMIN, false, 9_999, "ok", "forbidden"),
            (ADMIN, true, 9_999, "ok", "too_late"),
            (OWNER, false, 0, "ok", "forbidden"),
            (Actor::Trusted, false, 9_999, "ok", "ok"),
        ] {
            assert_eq!(code(authorise_revoke(actor, is_own, age_s, 120)), revoke, "{actor:?} {is_own} {age_s}");
            assert_eq!(code(authorise_edit(actor, is_own, age_s, 120)), edit, "{actor:?} {is_own} {age_s}");
        }
    }

    #[test]
    fn ownership_goes_to_the_oldest_admin_else_the_oldest_member() {
        let (a, b, c) = (Uid::from_stored("a"), Uid::from_stored("b"), Uid::from_stored("c"));
        let (member, admin) = (Role::Member, Role::Admin);
        assert_eq!(heir([(&a, member), (&b, admin), (&c, admin)]), Some(&b));
        assert_eq!(heir([(&a, member), (&c, member)]), Some(&a));
        assert_eq!(heir([]), None);
    }

    #[test]
    fn a_chat_id_is_the_groups_own_uuid_or_made_from_its_name() {
        let uuid = "6f9b5f4a-2b57-4d2e-9d0e-6c1d4a53d0c1";
        let own = ChannelKey::from_stored(uuid, ChannelType::Group);
        assert_eq!((chat_id(&own).as_str(), alias_of(&own)), (uuid, None));
        let upper = ChannelKey::from_stored(&uuid.to_uppercase(), ChannelType::Group);
        assert_eq!(alias_of(&upper).as_deref(), Some(uuid));
        let (a, b) = (Uid::from_stored("a"), Uid::from_stored("b"));
        let pair = ChannelKey::person(&a, &b);
        assert_eq!(alias_of(&pair), Some(chat_id(&ChannelKey::person(&b, &a))));
        assert_ne!(chat_id(&pair), chat_id(&ChannelKey::from_stored(pair.channel_id(), ChannelType::Group)));
    }
}
