//! How callers name channels and members, as the core takes them: shared by all routes that use WuKongIM's words.

use std::collections::HashSet;

use protocol::ids::{ChannelKey, ChannelType, Uid};

use super::problem::Problem;
use crate::domain::refusal::Refusal;

/// Reads (channel_id, channel_type) as this user means it: the peer, or the canonical id of an own pair.
///
/// # Errors
/// `Invalid` naming the field.
pub fn channel_seen_by(uid: &Uid, channel_id: &str, channel_type: u8) -> Result<ChannelKey, Refusal> {
    let channel_type = channel_type_of(channel_type)?;
    ChannelKey::seen_by(uid, channel_id, channel_type).map_err(|e| Refusal::invalid("channel_id", e))
}

/// Reads a channel_type.
///
/// # Errors
/// `Invalid`: none the server knows.
pub fn channel_type_of(number: u8) -> Result<ChannelType, Refusal> {
    ChannelType::from_wire(number).map_err(|_| {
        Refusal::invalid("channel_type", format_args!("is {number}, not 1 (person), 2 (group) or 3 (customer service)"))
    })
}

/// Reads a channel as a back end names it: a person channel by one uid (that user's own channel) or by its canonical id.
///
/// # Errors
/// `Invalid` naming the field.
pub fn channel_by_name(channel_id: &str, channel_type: ChannelType) -> Result<ChannelKey, Refusal> {
    let named = match (channel_type, channel_id.split_once('@')) {
        (ChannelType::Person, Some((a, b))) => Uid::new(a).and_then(|a| Ok(ChannelKey::person(&a, &Uid::new(b)?))),
        (ChannelType::Person, None) => Uid::new(channel_id).map(|uid| ChannelKey::person(&uid, &uid)),
        _ => ChannelKey::named(channel_id, channel_type),
    };
    named.map_err(|e| Refusal::invalid("channel_id", e))
}

/// Checks a list of members; the error says which entry. Repeats are dropped, the order kept.
///
/// # Errors
/// `Malformed` naming the entry.
pub fn members_of(subscribers: &[String]) -> Result<Vec<Uid>, Problem> {
    users_of("subscribers", subscribers)
}

/// Checks a list of users that stood in `field`; the error says which entry. Repeats are dropped, the order kept.
///
/// # Errors
/// `Malformed` naming the entry.
pub fn users_of(field: &str, users: &[String]) -> Result<Vec<Uid>, Problem> {
    let mut seen = HashSet::with_capacity(users.len());
    let mut uids = Vec::with_capacity(users.len());
    for (i, text) in users.iter().enumerate() {
        let uid = Uid::new(text).map_err(|e| Problem::malformed(format!("{field}[{i}]"), e))?;
        if seen.insert(uid.clone()) {
            uids.push(uid);
        }
    }
    Ok(uids)
}

/// As [`users_of`], for a list that must name somebody.
///
/// # Errors
/// As [`users_of`]; `Invalid` for an empty list.
pub fn some_users_of(field: &'static str, users: &[String]) -> Result<Vec<Uid>, Problem> {
    let users = users_of(field, users)?;
    if users.is_empty() {
        return Err(Refusal::invalid(field, "is needed").into());
    }
    Ok(users)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_are_named_by_peers_pairs_and_ids() {
        let (alice, bob) = (Uid::from_stored("alice"), Uid::from_stored("bob"));
        let pair = ChannelKey::person(&alice, &bob);
        assert_eq!(channel_seen_by(&alice, "bob", 1), Ok(pair.clone()));
        assert_eq!(channel_by_name(pair.channel_id(), ChannelType::Person), Ok(pair.clone()));
        assert_eq!(channel_by_name("bob@alice", ChannelType::Person), Ok(pair.clone()));
        assert_eq!(channel_by_name("alice@bob", ChannelType::Person), Ok(pair));
        assert_eq!(channel_by_name("alice", ChannelType::Person), Ok(ChannelKey::person(&alice, &alice)));
        assert_eq!(channel_by_name("g1", ChannelType::Group).expect("a group").channel_id(), "g1");
        for (channel_id, channel_type, field) in
            [("", 2, "channel_id"), ("a#b", 2, "channel_id"), ("g", 0, "channel_type"), ("g", 9, "channel_type")]
        {
            let refusal = channel_seen_by(&alice, channel_id, channel_type).expect_err("must be refused");
            assert_eq!(refusal.field(), Some(field));
        }
        assert_eq!(channel_seen_by(&alice, "bob@eve", 1).expect_err("not hers").field(), Some("channel_id"));
    }

    #[test]
    fn members_are_checked_one_by_one_and_once() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(members_of(&list(&["b", "a", "b"])).expect("valid").len(), 2);
        assert_eq!(members_of(&list(&["a", ""])).expect_err("blank").field(), Some("subscribers[1]"));
        assert_eq!(members_of(&list(&["x@y"])).expect_err("pair").field(), Some("subscribers[0]"));
    }
}
