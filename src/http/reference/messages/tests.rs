//! Conversions of `/message/send`: what is taken, what is refused, what is answered.

use protocol::ids::{ClientMsgNo, MessageSeq, Version};

use super::*;

fn draft(json: &str) -> Result<Draft, Problem> {
    let body = crate::http::extract::parse::<wire::MessageSend>(json.as_bytes())?;
    draft_of(Uid::from_stored("alice"), body)
}

#[test]
fn a_send_becomes_a_draft() {
    let draft = draft(
        r#"{"header":{"red_dot":1,"sync_once":0,"no_persist":0},"client_msg_no":"c1","from_uid":"alice","channel_id":"bob",
            "channel_type":1,"expire":60,"setting":129,"topic":"t","payload":"eyJ0eXBlIjoxfQ==","subscribers":null,
            "tag_key":"ignored"}"#,
    )
    .expect("valid");
    assert_eq!(draft.channel, ChannelKey::person(&Uid::from_stored("alice"), &Uid::from_stored("bob")));
    assert_eq!(draft.client_msg_no.expect("given").as_str(), "c1");
    assert_eq!(draft.flags, MessageFlags { red_dot: true, ..MessageFlags::default() });
    assert_eq!((draft.expire_s, draft.setting, draft.topic.as_str()), (60, 129, "t"));
    assert_eq!(draft.payload.as_ref(), b"{\"type\":1}");
    assert_eq!(draft.durability, Durability::Disk);
}

#[test]
fn a_send_without_a_name_and_padding_is_taken() {
    let draft = draft(r#"{"channel_id":"g","channel_type":2,"payload":"eA"}"#).expect("valid");
    assert!(draft.client_msg_no.is_none());
    assert_eq!(draft.payload.as_ref(), b"x");
}

#[test]
fn refusals_name_the_field() {
    for (json, field) in [
        (r#"{"channel_id":"g","channel_type":2}"#, "payload"),
        (r#"{"channel_id":"g","channel_type":2,"payload":"*"}"#, "payload"),
        (r#"{"channel_type":2,"payload":"eA=="}"#, "channel_id"),
        (r#"{"channel_id":"g","payload":"eA=="}"#, "channel_type"),
        (r#"{"channel_id":"a@b","channel_type":2,"payload":"eA=="}"#, "channel_id"),
        (r#"{"channel_id":7,"channel_type":2,"payload":"eA=="}"#, "channel_id"),
        (r#"{"channel_id":"g","channel_type":2,"payload":"eA==","client_msg_no":"a\u0000"}"#, "client_msg_no"),
        (r#"{"channel_id":"g","channel_type":2,"payload":"eA==","header":{"red_dot":true}}"#, "header.red_dot"),
        (r#"{"channel_id":"g","channel_type":2,"payload":"eA==","setting":256}"#, "setting"),
        (r#"{"channel_id":"g","channel_type":2,"payload":"eA==","expire":-1}"#, "expire"),
        (r#"{"channel_id":"g","channel_type":2,"payload":"eA==","stream_no":"s"}"#, "stream_no"),
    ] {
        assert_eq!(draft(json).expect_err(json).field(), Some(field), "{json}");
    }
    let long = format!(r#"{{"channel_id":"g","channel_type":2,"payload":"eA==","topic":"{}"}}"#, "t".repeat(256));
    assert_eq!(draft(&long).expect_err("too long").code(), "too_large");
}

#[test]
fn the_answer_has_all_three_forms() {
    let sent = Sent {
        message_id: Version::new(1_657_611_272_123_456),
        message_seq: MessageSeq::new(7),
        client_msg_no: ClientMsgNo::from_stored("c1"),
        timestamp_ms: 1_657_611_272_123,
        level: Durability::Disk,
        duplicate: false,
    };
    assert_eq!(
        serde_json::to_value(sent_body(&sent)).expect("serializes"),
        serde_json::json!({
            "status": 200,
            "data": {"message_id": 1_657_611_272_123_456_u64, "message_idstr": "1657611272123456",
                     "client_msg_no": "c1", "message_seq": 7},
            "message_id": 1_657_611_272_123_456_u64, "message_idstr": "1657611272123456", "message_seq": 7,
            "client_msg_no": "c1", "reason": 1, "duplicate": false,
        })
    );
    assert_eq!(sent_body(&Sent { message_seq: None, ..sent }).message_seq, 0);
}

#[test]
fn rules_refuse_with_reason_codes_and_everything_else_with_a_status() {
    for (refusal, reason) in [
        (Refusal::NotMember, 3),
        (Refusal::ChannelNotFound, 5),
        (Refusal::Denied, 4),
        (Refusal::NotListed, 13),
        (Refusal::ChannelBanned, 19),
        (Refusal::ChannelDisbanded, 24),
        (Refusal::SendBanned, 25),
    ] {
        assert_eq!(voices::of(&refusal).wukong_send_reason(), Some(reason));
        let body = serde_json::to_value(refused_body(&refusal, reason, "c1".into())).expect("serializes");
        assert_eq!(
            (&body["status"], &body["reason"], &body["message_id"]),
            (&reason.into(), &reason.into(), &0.into())
        );
        assert_eq!(body["code"], refusal.code());
        assert!(body.get("data").is_none());
    }
    for refusal in [
        Refusal::Busy { retry_after_ms: 5 },
        Refusal::ClientMsgNoConflict { message_seq: 1 },
        Refusal::TooLarge { field: "payload", bytes: 2, max: 1 },
        Refusal::Internal,
    ] {
        assert_eq!(voices::of(&refusal).wukong_send_reason(), None);
    }
}
