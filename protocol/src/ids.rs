//! Identifiers and small numbers of the wire, each checked where it is made and trusted afterwards.
//!
//! Sources: design.md section 2 (numbers and names), wukongim-http.md sections 4 and 8 (channel types, person channels).

use std::fmt;
use std::num::NonZeroU64;
use std::sync::Arc;

/// Longest uid in bytes. Two of them and a separator fit a channel id.
pub const UID_BYTES_MAX: usize = 120;
/// Longest channel id in bytes.
pub const CHANNEL_ID_BYTES_MAX: usize = 255;
/// Longest client_msg_no in bytes (clients use 32 to 36).
pub const CLIENT_MSG_NO_BYTES_MAX: usize = 128;
/// Longest device id in bytes.
pub const DEVICE_ID_BYTES_MAX: usize = 128;
/// Longest topic in bytes.
pub const TOPIC_BYTES_MAX: usize = 255;
/// Separates a namespace from the bare id inside the core. Edges refuse control characters, so nobody can type it.
pub const NAMESPACE_SEPARATOR: char = '\u{1f}';

/// What is wrong with an identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The identifier is empty.
    #[error("is empty")]
    Empty,
    /// The identifier is longer than its limit.
    #[error("is {bytes} bytes long, at most {max} are allowed")]
    TooLong {
        /// Bytes given.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The identifier holds a character it must not hold.
    #[error("holds the forbidden character {0:?}")]
    Character(char),
    /// A person channel id is not one of its pair's.
    #[error("is not a person channel of two uids")]
    NotAPair,
    /// The channel type is none the server knows.
    #[error("is not a known channel type")]
    ChannelType,
}

fn check(text: &str, max: usize, forbidden: &[char]) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > max {
        return Err(IdError::TooLong { bytes: text.len(), max });
    }
    match text.chars().find(|c| c.is_control() || forbidden.contains(c)) {
        Some(c) => Err(IdError::Character(c)),
        None => Ok(()),
    }
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Takes text that was checked before it was stored.
            #[must_use]
            pub fn from_stored(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// A user. No control characters and none of `@ # &` (design.md section 2).
    Uid
}

impl Uid {
    /// Checks and takes a uid.
    ///
    /// # Errors
    /// Empty, longer than [`UID_BYTES_MAX`], a control character, or one of `@ # &`.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check(text, UID_BYTES_MAX, &['@', '#', '&'])?;
        Ok(Self(Arc::from(text)))
    }

    /// Checks a uid as an edge gives it and puts its namespace before it. `None` is the default namespace, without a
    /// prefix.
    ///
    /// # Errors
    /// As [`Uid::new`]; the limit is for prefix and uid together.
    pub fn in_namespace(namespace: Option<&str>, bare: &str) -> Result<Self, IdError> {
        let Some(namespace) = namespace else { return Self::new(bare) };
        check(bare, UID_BYTES_MAX.saturating_sub(namespace.len() + NAMESPACE_SEPARATOR.len_utf8()), &['@', '#', '&'])?;
        Ok(Self(Arc::from(format!("{namespace}{NAMESPACE_SEPARATOR}{bare}"))))
    }

    /// The namespace; `None`: the default one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        split_namespace(&self.0).0
    }

    /// The uid without its namespace, as edges show it.
    #[must_use]
    pub fn bare(&self) -> &str {
        split_namespace(&self.0).1
    }
}

/// An id as (namespace, bare id).
fn split_namespace(id: &str) -> (Option<&str>, &str) {
    match id.split_once(NAMESPACE_SEPARATOR) {
        Some((namespace, bare)) => (Some(namespace), bare),
        None => (None, id),
    }
}

text_id! {
    /// The id of a channel, as stored: canonical for person channels.
    ChannelId
}

text_id! {
    /// A sender's name for a message: the dedupe key within (channel, sender).
    ClientMsgNo
}

impl ClientMsgNo {
    /// Checks and takes a client_msg_no.
    ///
    /// # Errors
    /// Empty, longer than [`CLIENT_MSG_NO_BYTES_MAX`], or a control character.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check(text, CLIENT_MSG_NO_BYTES_MAX, &[])?;
        Ok(Self(Arc::from(text)))
    }
}

text_id! {
    /// A device of a user.
    DeviceId
}

impl DeviceId {
    /// Checks and takes a device id.
    ///
    /// # Errors
    /// Empty, longer than [`DEVICE_ID_BYTES_MAX`], or a control character.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check(text, DEVICE_ID_BYTES_MAX, &[])?;
        Ok(Self(Arc::from(text)))
    }
}

text_id! {
    /// A file that messages may carry: the lowercase hyphenated uuid an upload answered.
    FileId
}

impl FileId {
    /// Checks and takes a file id.
    ///
    /// # Errors
    /// Empty, longer than 36 bytes, or a character no uuid has.
    pub fn new(text: &str) -> Result<Self, IdError> {
        check(text, 36, &[])?;
        match text.chars().find(|c| !matches!(c, '0'..='9' | 'a'..='f' | '-')) {
            Some(c) => Err(IdError::Character(c)),
            None => Ok(Self(Arc::from(text))),
        }
    }
}

/// What kind of channel (wukongim-http.md section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum ChannelType {
    /// Two users, or one with oneself; implicit.
    Person = 1,
    /// Members by list.
    Group = 2,
    /// `visitor|customer`; anybody may write, the visitor is an implied member.
    CustomerService = 3,
}

impl ChannelType {
    /// Reads the number of the wire.
    ///
    /// # Errors
    /// Any number but 1, 2, 3.
    pub fn from_wire(number: u8) -> Result<Self, IdError> {
        match number {
            1 => Ok(Self::Person),
            2 => Ok(Self::Group),
            3 => Ok(Self::CustomerService),
            _ => Err(IdError::ChannelType),
        }
    }

    /// The number of the wire.
    #[must_use]
    pub fn to_wire(self) -> u8 {
        self as u8
    }
}

/// Names a channel. A person channel exists in canonical form only: the uid with the greater CRC-32 (IEEE) first, on
/// equal checksums the lexicographically greater one (wukongim-http.md 8.1). Both are taken of the bare uids, so a pair has
/// the same order in every namespace; each uid then carries its namespace (`ns␟b@ns␟a`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChannelKey {
    channel_id: ChannelId,
    channel_type: ChannelType,
}

impl ChannelKey {
    /// The person channel of two users (the same user twice: a note to self).
    #[must_use]
    pub fn person(a: &Uid, b: &Uid) -> Self {
        let rank = |uid: &Uid| crc32fast::hash(uid.bare().as_bytes());
        let a_first = (rank(a), a.bare(), a.as_str()) >= (rank(b), b.bare(), b.as_str());
        let (first, second) = if a_first { (a, b) } else { (b, a) };
        Self { channel_id: ChannelId(Arc::from(format!("{first}@{second}"))), channel_type: ChannelType::Person }
    }

    /// A channel named by its id: every type but person.
    ///
    /// # Errors
    /// Empty, longer than [`CHANNEL_ID_BYTES_MAX`], a control character, one of `@ # &`, or the person type.
    pub fn named(channel_id: &str, channel_type: ChannelType) -> Result<Self, IdError> {
        if channel_type == ChannelType::Person {
            return Err(IdError::NotAPair);
        }
        check(channel_id, CHANNEL_ID_BYTES_MAX, &['@', '#', '&'])?;
        Ok(Self { channel_id: ChannelId(Arc::from(channel_id)), channel_type })
    }

    /// A channel of a namespace, named by its bare id: every type but person. `None` is the default namespace.
    ///
    /// # Errors
    /// As [`ChannelKey::named`]; the limit is for prefix and id together.
    pub fn named_in(namespace: Option<&str>, channel_id: &str, channel_type: ChannelType) -> Result<Self, IdError> {
        let Some(namespace) = namespace else { return Self::named(channel_id, channel_type) };
        let key = Self::named(channel_id, channel_type)?;
        let id = format!("{namespace}{NAMESPACE_SEPARATOR}{}", key.channel_id);
        if id.len() > CHANNEL_ID_BYTES_MAX {
            return Err(IdError::TooLong { bytes: id.len(), max: CHANNEL_ID_BYTES_MAX });
        }
        Ok(Self { channel_id: ChannelId(Arc::from(id)), channel_type })
    }

    /// The channel a user means by (channel_id, channel_type): for a person channel the id is the peer's uid, or the
    /// canonical id of a pair the user belongs to. A user of a namespace names bare ids and reaches nothing outside it.
    ///
    /// # Errors
    /// As [`ChannelKey::named`] and [`Uid::new`]; a canonical id that is not the asker's is [`IdError::NotAPair`].
    pub fn seen_by(asker: &Uid, channel_id: &str, channel_type: ChannelType) -> Result<Self, IdError> {
        let namespace = asker.namespace();
        if channel_type != ChannelType::Person {
            return Self::named_in(namespace, channel_id, channel_type);
        }
        let uid = |bare: &str| Uid::in_namespace(namespace, bare);
        match channel_id.split_once('@') {
            None => Ok(Self::person(asker, &uid(channel_id)?)),
            Some((a, b)) => {
                let (a, b) = (uid(a)?, uid(b)?);
                if a != *asker && b != *asker {
                    return Err(IdError::NotAPair);
                }
                Ok(Self::person(&a, &b))
            }
        }
    }

    /// The namespace it belongs to, of a person channel that of its two users; `None`: the default one.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        split_namespace(self.channel_id.as_str()).0
    }

    /// Takes a key that was checked before it was stored.
    #[must_use]
    pub fn from_stored(channel_id: &str, channel_type: ChannelType) -> Self {
        Self { channel_id: ChannelId::from_stored(channel_id), channel_type }
    }

    /// The stored id.
    #[must_use]
    pub fn channel_id(&self) -> &str {
        self.channel_id.as_str()
    }

    /// The type.
    #[must_use]
    pub fn channel_type(&self) -> ChannelType {
        self.channel_type
    }

    /// The two users of a person channel, in canonical order; `None` for other types.
    #[must_use]
    pub fn pair(&self) -> Option<(Uid, Uid)> {
        if self.channel_type != ChannelType::Person {
            return None;
        }
        let (a, b) = self.channel_id.as_str().split_once('@')?;
        Some((Uid::from_stored(a), Uid::from_stored(b)))
    }

    /// Whether `uid` is one of a person channel's two users.
    #[must_use]
    pub fn is_pair_of(&self, uid: &Uid) -> bool {
        self.channel_type == ChannelType::Person
            && self.channel_id.as_str().split_once('@').is_some_and(|(a, b)| a == uid.as_str() || b == uid.as_str())
    }

    /// The channel_id as `asker` sees it: the peer's uid for a person channel, else the stored id; in the asker's own
    /// namespace without its prefix.
    #[must_use]
    pub fn id_for<'a>(&'a self, asker: &str) -> &'a str {
        let id = match (self.channel_type, self.channel_id.as_str().split_once('@')) {
            (ChannelType::Person, Some((a, b))) => {
                if a == asker {
                    b
                } else {
                    a
                }
            }
            _ => self.channel_id.as_str(),
        };
        match (split_namespace(asker).0, split_namespace(id)) {
            (Some(own), (Some(namespace), bare)) if own == namespace => bare,
            _ => id,
        }
    }

    /// The visitor of a customer service channel `visitor|customer`: an implied member.
    #[must_use]
    pub fn visitor(&self) -> Option<Uid> {
        if self.channel_type != ChannelType::CustomerService {
            return None;
        }
        let (visitor, _) = self.channel_id.as_str().split_once('|')?;
        Uid::new(visitor).ok()
    }
}

/// Position of a message in its channel: from 1, without gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageSeq(NonZeroU64);

impl MessageSeq {
    /// The first message of a channel.
    pub const FIRST: Self = Self(NonZeroU64::MIN);

    /// `None` for 0, which means "no message" on the wire.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        NonZeroU64::new(number).map(Self)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0.get()
    }
}

impl fmt::Display for MessageSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// A point in the server's commit order: a hybrid clock in microseconds, below 2^53. 0 means "before everything".
/// A stored message's id is the version of its own record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Version(u64);

impl Version {
    /// Before everything.
    pub const ZERO: Self = Self(0);
    /// The largest version: JavaScript's largest exact integer.
    pub const MAX: Self = Self((1 << 53) - 1);

    /// Takes a number of the wire or the disk.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The version `steps` later.
    #[must_use]
    pub fn plus(self, steps: u64) -> Self {
        Self(self.0 + steps)
    }

    /// The wall clock this version stands for, in Unix milliseconds.
    #[must_use]
    pub fn unix_ms(self) -> u64 {
        self.0 / 1_000
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Unique in the server and growing with commit order: the version of the message's record.
pub type MessageId = Version;

/// Kind of device (wukongim-http.md 3.1): 0 app, 1 web, 2 pc; other values are kept as given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct DeviceFlag(pub u8);

#[cfg(test)]
mod tests {
    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::new(text).expect("valid uid")
    }

    #[test]
    fn uids_are_checked() {
        assert!(Uid::new("Ünïcode-😀").is_ok());
        assert_eq!(Uid::new(""), Err(IdError::Empty));
        assert_eq!(Uid::new("a@b"), Err(IdError::Character('@')));
        assert_eq!(Uid::new("a\u{1f}b"), Err(IdError::Character('\u{1f}')));
        assert!(matches!(Uid::new(&"x".repeat(UID_BYTES_MAX + 1)), Err(IdError::TooLong { .. })));
    }

    #[test]
    fn a_pair_has_one_channel_seen_from_both_sides() {
        let (a, b) = (uid("alice"), uid("bob"));
        let key = ChannelKey::person(&a, &b);
        assert_eq!(key, ChannelKey::person(&b, &a));
        assert_eq!(key.id_for("alice"), "bob");
        assert_eq!(key.id_for("bob"), "alice");
        assert_eq!(ChannelKey::seen_by(&a, "bob", ChannelType::Person), Ok(key.clone()));
        assert_eq!(ChannelKey::seen_by(&a, key.channel_id(), ChannelType::Person), Ok(key.clone()));
        assert_eq!(ChannelKey::seen_by(&uid("eve"), key.channel_id(), ChannelType::Person), Err(IdError::NotAPair));
        let own = ChannelKey::person(&a, &a);
        assert_eq!(own.channel_id(), "alice@alice");
        assert_eq!(own.id_for("alice"), "alice");
    }

    #[test]
    fn ids_without_a_namespace_stay_as_they_were() {
        // Written out by the rule before namespaces: CRC-32 of the whole uid, then the text.
        for (a, b, id) in
            [("alice", "bob", "alice@bob"), ("u1", "u2", "u1@u2"), ("张三", "李四", "张三@李四"), ("x", "x", "x@x")]
        {
            let (x, y) = (crc32fast::hash(a.as_bytes()), crc32fast::hash(b.as_bytes()));
            let before = if x > y || (x == y && a >= b) { format!("{a}@{b}") } else { format!("{b}@{a}") };
            assert_eq!(ChannelKey::person(&uid(a), &uid(b)).channel_id(), before);
            assert_eq!(ChannelKey::person(&uid(b), &uid(a)).channel_id(), before);
            assert!(before == id || before == id.split('@').rev().collect::<Vec<_>>().join("@"));
        }
        // Two texts of one checksum: the greater text comes first (wukongim-http.md 8.1).
        assert_eq!(crc32fast::hash(b"plumless"), crc32fast::hash(b"buckeroo"));
        assert_eq!(ChannelKey::person(&uid("buckeroo"), &uid("plumless")).channel_id(), "plumless@buckeroo");
        assert_eq!(uid("alice").namespace(), None);
        assert_eq!(Uid::in_namespace(None, "alice"), Ok(uid("alice")));
    }

    #[test]
    fn a_pair_has_the_order_of_its_bare_uids_in_every_namespace() {
        for (a, b) in [("alice", "bob"), ("u1", "u2"), ("plumless", "buckeroo"), ("John", "JohnBarry")] {
            let bare = ChannelKey::person(&uid(a), &uid(b));
            for namespace in ["acme", "zzz", "Ünï"] {
                let named = |text| Uid::in_namespace(Some(namespace), text).expect("valid");
                let key = ChannelKey::person(&named(a), &named(b));
                assert_eq!(key, ChannelKey::person(&named(b), &named(a)));
                let prefix = format!("{namespace}{NAMESPACE_SEPARATOR}");
                assert_eq!(key.channel_id().replace(&prefix, ""), bare.channel_id());
                assert_eq!(key.channel_id().matches(&prefix).count(), 2);
                assert_eq!(key.namespace(), Some(namespace));
                assert_eq!((key.id_for(named(a).as_str()), key.id_for(named(b).as_str())), (b, a));
                assert_eq!(ChannelKey::seen_by(&named(a), b, ChannelType::Person), Ok(key.clone()));
                assert_eq!(ChannelKey::seen_by(&named(a), bare.channel_id(), ChannelType::Person), Ok(key.clone()));
                assert_ne!(key, bare);
            }
        }
    }

    #[test]
    fn nobody_names_what_lies_in_another_namespace() {
        let tenant = Uid::in_namespace(Some("acme"), "alice").expect("valid");
        assert_eq!((tenant.namespace(), tenant.bare(), tenant.as_str()), (Some("acme"), "alice", "acme\u{1f}alice"));
        let group = ChannelKey::seen_by(&tenant, "g1", ChannelType::Group).expect("a group");
        assert_eq!((group.channel_id(), group.id_for(tenant.as_str())), ("acme\u{1f}g1", "g1"));
        assert_eq!(group.id_for("alice"), "acme\u{1f}g1");
        let sneaky = "other\u{1f}bob";
        for (asker, id, channel_type) in [
            (&tenant, sneaky, ChannelType::Person),
            (&tenant, sneaky, ChannelType::Group),
            (&uid("alice"), sneaky, ChannelType::Person),
            (&uid("alice"), "acme\u{1f}g1", ChannelType::Group),
        ] {
            assert_eq!(ChannelKey::seen_by(asker, id, channel_type), Err(IdError::Character(NAMESPACE_SEPARATOR)));
        }
        assert_eq!(Uid::in_namespace(Some("acme"), sneaky), Err(IdError::Character(NAMESPACE_SEPARATOR)));
        let longest = UID_BYTES_MAX - "acme".len() - 1;
        let long = Uid::in_namespace(Some("acme"), &"x".repeat(longest)).expect("fits");
        assert!(ChannelKey::person(&long, &long).channel_id().len() <= CHANNEL_ID_BYTES_MAX);
        assert!(Uid::in_namespace(Some("acme"), &"x".repeat(longest + 1)).is_err());
    }
}
