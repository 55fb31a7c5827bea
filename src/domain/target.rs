//! Where a request goes that may name its channel in several ways (design.md section 7, "several targets").

use std::collections::BTreeSet;

use protocol::ids::{ChannelKey, Uid};

use super::refusal::Refusal;

/// The one channel that every name means, each given with the field it stood in; `None` for no name.
///
/// # Errors
/// `Invalid` about the later of two fields that name different channels; its text has both.
pub fn agree(named: &[(&'static str, ChannelKey)]) -> Result<Option<ChannelKey>, Refusal> {
    let Some(((first_field, first), rest)) = named.split_first() else { return Ok(None) };
    match rest.iter().find(|(_, key)| key != first) {
        Some((field, _)) => Err(clash(field, first_field)),
        None => Ok(Some(first.clone())),
    }
}

/// Whether a channel with these members is the one of `sender` and `users`, whatever their order and repeats.
#[must_use]
pub fn is_set_of(members: &[Uid], sender: &Uid, users: &[Uid]) -> bool {
    let have: BTreeSet<&Uid> = members.iter().collect();
    have == users.iter().chain([sender]).collect()
}

/// The refusal of two fields that contradict each other.
#[must_use]
pub fn clash(field: &'static str, other: &str) -> Refusal {
    Refusal::invalid(field, format_args!("names another channel than {other}"))
}

#[cfg(test)]
mod tests {
    use protocol::ids::ChannelType;

    use super::*;

    fn uid(text: &str) -> Uid {
        Uid::from_stored(text)
    }

    #[test]
    fn names_that_agree_are_one_and_others_are_named_both() {
        let person = ChannelKey::person(&uid("a"), &uid("b"));
        let group = ChannelKey::from_stored("g", ChannelType::Group);
        assert_eq!(agree(&[]), Ok(None));
        assert_eq!(agree(&[("x", group.clone())]), Ok(Some(group.clone())));
        assert_eq!(agree(&[("x", person.clone()), ("y", person.clone())]), Ok(Some(person.clone())));
        for (named, field, other) in [
            (vec![("x", person.clone()), ("y", group.clone())], "y", "x"),
            (vec![("x", group.clone()), ("y", group.clone()), ("z", person.clone())], "z", "x"),
        ] {
            let refusal = agree(&named).expect_err("a clash");
            assert_eq!(refusal.field(), Some(field));
            assert!(refusal.to_string().contains(field) && refusal.to_string().contains(other), "{refusal}");
        }
    }

    #[test]
    fn a_set_is_its_members_in_any_order() {
        let of = |names: &[&str]| names.iter().map(|name| uid(name)).collect::<Vec<_>>();
        for (members, users, is) in [
            (&["a", "b", "c"][..], &["c", "b"][..], true),
            (&["a", "b", "c"], &["a", "b", "c", "b"], true),
            (&["a", "b", "c"], &["b"], false),
            (&["a", "b"], &["b", "c"], false),
            (&["a"], &[], true),
            (&["b"], &["b"], false),
        ] {
            assert_eq!(is_set_of(&of(members), &uid("a"), &of(users)), is, "{members:?} {users:?}");
        }
    }
}
