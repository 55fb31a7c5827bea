//! What the dialect makes of messages that other wires sent, and of what a request says.

use bytes::Bytes;
use protocol::ids::{ClientMsgNo, MessageSeq};
use serde_json::json;

use super::*;
use crate::domain::message::MessageState;

fn message(payload: &[u8], state: MessageState) -> Message {
    let (alice, bob) = (Uid::from_stored("alice"), Uid::from_stored("bob"));
    Message {
        channel: ChannelKey::person(&alice, &bob),
        message_seq: MessageSeq::new(7).expect("not zero"),
        message_id: Version::new(1_657_615_272_000_001),
        from_uid: alice,
        client_msg_no: ClientMsgNo::from_stored("c7"),
        flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: Bytes::copy_from_slice(payload),
        extras: None,
        edited: Version::ZERO,
        reactions: Vec::new(),
        lanes: Vec::new(),
        state,
    }
}

fn shown(payload: &[u8], state: MessageState) -> Value {
    let shown = message_of("chat", &message(payload, state), &Attached::default());
    serde_json::to_value(shown).expect("serializes")
}

#[test]
fn whatever_a_socket_sent_is_shown() {
    for (payload, kind, content) in [
        (&br#"{"type":1,"content":"hi"}"#[..], "text", json!("hi")),
        (br#"{"type":2,"content":{"url":"x"}}"#, "2", json!({"url": "x"})),
        (br#"{"type":1000,"kind":"link","content":"https://a"}"#, "link", json!("https://a")),
        (b"plain", "text", json!("plain")),
        (b"", "text", json!("")),
        (b"\xff\x00", "binary", json!("/wA=")),
    ] {
        let shown = shown(payload, MessageState::Live);
        assert_eq!((&shown["type"], &shown["content"]), (&json!(kind), &content), "{payload:?}");
        assert_eq!((&shown["id"], &shown["createdAt"]), (&json!("1657615272000001"), &json!(1_657_615_272_000_u64)));
        assert_eq!(shown.get("state"), None);
    }
}

#[test]
fn what_is_gone_says_why_and_nothing_else() {
    for (state, word) in
        [(MessageState::Revoked, "revoked"), (MessageState::Expired, "expired"), (MessageState::Damaged, "damaged")]
    {
        let shown = shown(b"", state);
        assert_eq!((&shown["state"], &shown["content"]), (&json!(word), &Value::Null));
    }
}

#[test]
fn what_is_said_comes_back_as_it_was_said() {
    for content in [json!("a"), json!({"b": [1, null, "😀"]}), json!([]), json!(0), json!(false), json!(" ")] {
        for kind in KINDS {
            let said = wire::Said { kind: Some(kind.into()), content: Some(content.clone()), ..wire::Said::default() };
            let payload = content_of(&said, None, false).expect("valid").encode(None);
            let shown = shown(&payload, MessageState::Live);
            assert_eq!((&shown["type"], &shown["content"]), (&json!(kind), &content));
        }
    }
    let unchanged = wire::Said { content: Some(json!("x")), ..wire::Said::default() };
    assert_eq!(content_of(&unchanged, Some("2"), false).expect("an edit keeps any kind").kind, "2");
}

#[test]
fn no_last_message_is_an_empty_object() {
    assert_eq!(serde_json::to_value(wire::LastMessage::None {}).expect("serializes"), json!({}));
}

#[test]
fn the_same_name_and_users_make_the_same_group() {
    let uid = Uid::from_stored;
    let name = ClientMsgNo::from_stored("k");
    let id = |owner: &str, name: &ClientMsgNo, users: &[&str]| {
        let caller = AsUser { uid: uid(owner), marks_read: true };
        let users: Vec<Uid> = users.iter().map(|user| uid(user)).collect();
        discussion_of(&caller, Some(name), &users).channel_id
    };
    assert_eq!(id("a", &name, &["b", "c"]), id("a", &name, &["c", "b", "a"]));
    let others =
        [id("a", &name, &["b"]), id("b", &name, &["a", "c"]), id("a", &ClientMsgNo::from_stored("l"), &["b", "c"])];
    assert!(others.iter().all(|other| *other != id("a", &name, &["b", "c"])));
    let caller = AsUser { uid: uid("a"), marks_read: true };
    assert_eq!(discussion_of(&caller, None, &[uid("b")]).channel_id, None, "a new one each time");
}
