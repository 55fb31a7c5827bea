//! What the dialect makes of rows and of messages that other wires sent.

use bytes::Bytes;
use protocol::ids::ClientMsgNo;
use serde_json::json;

use super::*;
use crate::domain::conversation::ConversationFlags;
use crate::domain::message::Reacted;

fn row(key: ChannelKey, profile: Option<ChannelProfile>) -> ChatRow {
    ChatRow {
        chat_id: chat_id(&key),
        key,
        profile,
        members: vec![Uid::from_stored("alice"), Uid::from_stored("bob")],
        member_count: 2,
        unread: 3,
        mentions: 0,
        last_message: None,
        head_seq: 0,
        created_ms: 5,
        activity_ms: 7,
        access_ms: 0,
        read_to_msg_seq: 0,
        flags: ConversationFlags::default(),
        is_request: false,
        version: Version::ZERO,
    }
}

#[test]
fn threads_have_the_types_of_the_document() {
    let group = |id: &str| ChannelKey::named(id, ChannelType::Group).expect("valid");
    let profile = |name: &str, project: &str| {
        Some(ChannelProfile { name: name.into(), project: project.into(), ..ChannelProfile::default() })
    };
    let person = ChannelKey::person(&Uid::from_stored("alice"), &Uid::from_stored("bob"));
    for (key, profile, kind, group_of, name) in [
        (person, None, "personal", None, None),
        (group("g"), profile("team", ""), "custom", None, Some("team")),
        (group("g"), None, "custom", None, Some("g")),
        (group("g"), profile("", "p"), "group", Some("p"), None),
        (group("g"), profile("P", "p"), "group", Some("p"), Some("P")),
    ] {
        let thread = thread_of(&row(key, profile), &Attached::default());
        assert_eq!((thread.kind, thread.group.as_deref(), thread.name.as_deref()), (kind, group_of, name));
        assert_eq!((thread.new_activity_count, thread.activity, thread.created_at), (3, 7, 5));
    }
}

#[test]
fn messages_of_other_wires_are_texts_here() {
    for (payload, content) in [
        (&br#"{"type":1,"content":"hi"}"#[..], "hi"),
        (br#"{"type":1000,"kind":"location","content":{"lat":1}}"#, r#"{"lat":1}"#),
        (b"plain \xf0\x9f\x98\x80", "plain 😀"),
        (b"", ""),
        (b"\xff", "/w=="),
    ] {
        let draft = Draft {
            channel: ChannelKey::named("g", ChannelType::Group).expect("valid"),
            from_uid: Uid::from_stored("alice"),
            client_msg_no: None,
            flags: MessageFlags::default(),
            setting: 0,
            topic: String::new(),
            expire_s: 0,
            payload: Bytes::copy_from_slice(payload),
            extras: Extras { reply_to: Some(Version::new(9)), ..Extras::default() }.boxed(),
            durability: Durability::Disk,
        };
        let sent = Sent {
            message_id: Version::new(1_657_615_272_000_001),
            message_seq: MessageSeq::new(4),
            client_msg_no: ClientMsgNo::from_stored("c"),
            timestamp_ms: 1_657_615_272_000,
            level: Durability::Disk,
            duplicate: false,
        };
        let reacted = |uid: &str, reaction| Reacted { uid: Uid::from_stored(uid), reaction };
        let reactions =
            vec![reacted("z", Reaction::Like), reacted("y", Reaction::Dislike), reacted("a", Reaction::Like)];
        let message = Message { reactions, ..stored(draft, &sent) };
        let shown = serde_json::to_value(message_of("t", &message, &Attached::default())).expect("serializes");
        let expected = json!({
            "_id": "1657615272000001", "thread": "t", "from": "alice", "content": content, "files": [],
            "likes": ["z", "a"], "dislikes": ["y"], "replyTo": "9", "createdAt": 1_657_615_272_000_u64,
        });
        assert_eq!(shown, expected);
    }
}

#[test]
fn a_project_has_one_thread() {
    assert_eq!(project_id("p"), project_id("p"));
    assert_ne!(project_id("p"), project_id("q"));
}
