//! What a user has decided about others: strangers, contacts, blocked users (design.md section 7).

use protocol::ids::Uid;

/// Sends of a back end that names no sender come from this user, who is always a system user (wukongim-http.md 3.4).
pub const SYSTEM_UID: &str = "____system";

/// Whether this is the built-in system user, in any namespace.
#[must_use]
pub fn is_built_in(uid: &Uid) -> bool {
    uid.bare() == SYSTEM_UID
}

/// What becomes of a first message from a stranger: a sender who is no contact and to whom this user never wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Strangers {
    /// It arrives like any other.
    #[default]
    Allow = 0,
    /// It arrives as a message request, until it is accepted or answered.
    Quarantine = 1,
    /// It is refused and nothing is stored (13301).
    Block = 2,
}

impl Strangers {
    /// Reads the number of the disk.
    #[must_use]
    pub fn from_stored(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Allow),
            1 => Some(Self::Quarantine),
            2 => Some(Self::Block),
            _ => None,
        }
    }

    /// Reads the stable word of wires.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        match code {
            "allow" => Some(Self::Allow),
            "quarantine" => Some(Self::Quarantine),
            "block" => Some(Self::Block),
            _ => None,
        }
    }

    /// The stable word of wires.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Quarantine => "quarantine",
            Self::Block => "block",
        }
    }
}

/// A user's settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct UserSettings {
    /// About strangers.
    pub strangers: Strangers,
}

/// What a user is to another, from the other's view. One-sided: each decides for oneself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Relation {
    /// A contact: never a stranger.
    pub contact: bool,
    /// Blocked: may not write to the one who blocked.
    pub blocked: bool,
}

/// What the recipient of a person channel lets a sender do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reception {
    /// Messages arrive.
    Open,
    /// The first message makes the conversation a message request for the recipient.
    Request,
    /// The recipient has blocked this sender.
    Blocked,
    /// The recipient refuses strangers and the sender is one.
    StrangerRefused,
    /// Nobody may write to the recipient.
    Banned,
    /// Only contacts may write to the recipient and the sender is none.
    NotListed,
}

/// What is known of the recipient of a person channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recipient {
    /// A system user: anybody may write.
    pub is_system: bool,
    /// Banned: nobody may.
    pub banned: bool,
    /// Only contacts may.
    pub contacts_only: bool,
    /// The recipient's own settings.
    pub settings: UserSettings,
    /// What the sender is to the recipient.
    pub relation: Relation,
    /// The recipient has written in the channel, or has accepted it.
    pub corresponded: bool,
}

/// Judges a sender by what holds of the recipient: the order of wukongim-http.md section 9 (v2, and v1 for bans), then what
/// the recipient decided about strangers.
#[must_use]
pub fn reception(recipient: Recipient) -> Reception {
    let Recipient { is_system, banned, contacts_only, settings, relation, corresponded } = recipient;
    if is_system {
        return Reception::Open;
    }
    if banned {
        return Reception::Banned;
    }
    if relation.blocked {
        return Reception::Blocked;
    }
    if relation.contact {
        return Reception::Open;
    }
    if contacts_only {
        return Reception::NotListed;
    }
    if corresponded {
        return Reception::Open;
    }
    match settings.strangers {
        Strangers::Allow => Reception::Open,
        Strangers::Quarantine => Reception::Request,
        Strangers::Block => Reception::StrangerRefused,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_write_to_whom() {
        let contact = Relation { contact: true, blocked: false };
        let both = Relation { contact: true, blocked: true };
        for (strangers, relation, corresponded, expected) in [
            (Strangers::Allow, Relation::default(), false, Reception::Open),
            (Strangers::Quarantine, Relation::default(), false, Reception::Request),
            (Strangers::Block, Relation::default(), false, Reception::StrangerRefused),
            (Strangers::Block, Relation::default(), true, Reception::Open),
            (Strangers::Block, contact, false, Reception::Open),
            (Strangers::Quarantine, contact, false, Reception::Open),
            (Strangers::Allow, both, true, Reception::Blocked),
        ] {
            let settings = UserSettings { strangers };
            let judged = reception(Recipient { settings, relation, corresponded, ..Recipient::default() });
            assert_eq!(judged, expected, "{strangers:?} {relation:?} {corresponded}");
        }
        let blocked = Relation { contact: false, blocked: true };
        let none = Relation::default();
        for (is_system, banned, contacts_only, relation, corresponded, expected) in [
            (true, true, true, blocked, false, Reception::Open),
            (false, true, true, blocked, true, Reception::Banned),
            (false, false, true, both, true, Reception::Blocked),
            (false, false, true, none, true, Reception::NotListed),
            (false, false, true, contact, false, Reception::Open),
            (false, false, false, none, false, Reception::Open),
        ] {
            let settings = UserSettings::default();
            let recipient = Recipient { is_system, banned, contacts_only, settings, relation, corresponded };
            assert_eq!(reception(recipient), expected, "{recipient:?}");
        }
    }
}
