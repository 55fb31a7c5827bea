//! Tenants: which namespace a request speaks in, and what lies in it (design.md section 2).
//!
//! Owns the choice of a namespace and the way of an id in and out of it. Refuses to know headers and envelopes. Invariants:
//! a credential bound to a namespace names nothing outside it; the default namespace has no prefix, so ids of servers
//! without tenants are what they always were.

use std::sync::Arc;

use protocol::ids::{ChannelKey, IdError, NAMESPACE_SEPARATOR, Uid};

use super::refusal::Refusal;

/// Longest namespace, in bytes. A prefix of ids, so it takes room from them.
pub const NAMESPACE_BYTES_MAX: usize = 60;

/// A tenant of the server, or the default one.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Namespace(Option<Arc<str>>);

impl Namespace {
    /// The default one: ids without a prefix.
    pub const DEFAULT: Self = Self(None);

    /// Checks and takes the name of a namespace.
    ///
    /// # Errors
    /// `Invalid` about `namespace`: empty, longer than [`NAMESPACE_BYTES_MAX`], a control character, or one of `@ # &`.
    pub fn new(name: &str) -> Result<Self, Refusal> {
        let forbidden = |c: char| c.is_control() || "@#&".contains(c);
        if name.is_empty() || name.len() > NAMESPACE_BYTES_MAX || name.chars().any(forbidden) {
            let what = format!("is not 1 to {NAMESPACE_BYTES_MAX} bytes without control characters and @ # &");
            return Err(Refusal::invalid("namespace", what));
        }
        Ok(Self(Some(Arc::from(name))))
    }

    /// The one a user lives in.
    #[must_use]
    pub fn of(uid: &Uid) -> Self {
        Self(uid.namespace().map(Arc::from))
    }

    /// The one a request speaks in: `asked` is what it names, `bound` what its credential is bound to. A credential that is
    /// not bound chooses; naming none means the default one.
    ///
    /// # Errors
    /// `Forbidden`: bound to another one. `Invalid`: not a namespace.
    pub fn chosen(bound: Option<&str>, asked: Option<&str>) -> Result<Self, Refusal> {
        match (bound, asked) {
            (Some(bound), Some(asked)) if bound != asked => {
                Err(Refusal::Forbidden { action: "name another namespace: it is bound to its own" })
            }
            (Some(name), _) | (None, Some(name)) => Self::new(name),
            (None, None) => Ok(Self::DEFAULT),
        }
    }

    /// Its name; `None`: the default one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }

    /// A user of this namespace by the bare uid.
    ///
    /// # Errors
    /// As [`Uid::in_namespace`].
    pub fn uid(&self, bare: &str) -> Result<Uid, IdError> {
        Uid::in_namespace(self.name(), bare)
    }

    /// Whether a channel lies in it.
    #[must_use]
    pub fn holds(&self, key: &ChannelKey) -> bool {
        key.namespace() == self.name()
    }

    /// The id of a group of this namespace, as the core stores it.
    #[must_use]
    pub fn channel_id(&self, bare: &str) -> String {
        match self.name() {
            Some(name) => format!("{name}{NAMESPACE_SEPARATOR}{bare}"),
            None => bare.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::ids::ChannelType;

    use super::*;

    #[test]
    fn a_bound_credential_names_its_own_namespace_only() {
        let acme = Namespace::new("acme").expect("valid");
        for (bound, asked, expected) in [
            (None, None, Ok(Namespace::DEFAULT)),
            (None, Some("acme"), Ok(acme.clone())),
            (Some("acme"), None, Ok(acme.clone())),
            (Some("acme"), Some("acme"), Ok(acme.clone())),
            (Some("acme"), Some("other"), Err("forbidden")),
            (Some("acme"), Some("Acme"), Err("forbidden")),
            (None, Some(""), Err("invalid")),
            (None, Some("a\u{1f}b"), Err("invalid")),
            (None, Some("a@b"), Err("invalid")),
        ] {
            assert_eq!(Namespace::chosen(bound, asked).map_err(|r| r.code()), expected, "{bound:?} {asked:?}");
        }
        assert!(Namespace::new(&"x".repeat(NAMESPACE_BYTES_MAX)).is_ok());
        assert!(Namespace::new(&"x".repeat(NAMESPACE_BYTES_MAX + 1)).is_err());
    }

    #[test]
    fn ids_go_in_and_out() {
        let acme = Namespace::new("acme").expect("valid");
        let (john, anon) = (acme.uid("John").expect("uid"), Namespace::DEFAULT.uid("John").expect("uid"));
        assert_eq!((john.as_str(), john.bare(), anon.as_str()), ("acme\u{1f}John", "John", "John"));
        assert_eq!((Namespace::of(&john), Namespace::of(&anon)), (acme.clone(), Namespace::DEFAULT));
        let pair = ChannelKey::person(&john, &acme.uid("Barry").expect("uid"));
        assert!(acme.holds(&pair) && !Namespace::DEFAULT.holds(&pair));
        let group = ChannelKey::named_in(acme.name(), "g", ChannelType::Group).expect("a group");
        assert_eq!(group.channel_id(), acme.channel_id("g"));
        assert!(acme.holds(&group) && Namespace::DEFAULT.channel_id("g") == "g");
    }
}
