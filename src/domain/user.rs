//! What a user has decided about others: strangers, contacts, blocked users (design.md section 7).

/// The user that speaks for the server itself (wukongim-http.md 3.4), as a bare uid.
pub const SYSTEM_UID: &str = "____system";

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
}

/// Judges a sender by what the recipient decided. `corresponded`: the recipient has written in the channel, or has accepted
/// it.
#[must_use]
pub fn reception(settings: UserSettings, relation: Relation, corresponded: bool) -> Reception {
    if relation.blocked {
        return Reception::Blocked;
    }
    if relation.contact || corresponded {
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
            let judged = reception(UserSettings { strangers }, relation, corresponded);
            assert_eq!(judged, expected, "{strangers:?} {relation:?} {corresponded}");
        }
    }
}
