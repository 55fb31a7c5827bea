//! The document's shapes: what a sync is asked, what it answers, in one piece and streamed.

use http_body_util::BodyExt;
use protocol::ids::{ChannelKey, ClientMsgNo, MessageSeq};
use protocol::sync::Cursors;

use super::*;
use crate::config::Config;
use crate::domain::message::{Message, MessageFlags, MessageState};

fn request(json: &str) -> Result<SyncRequest, Problem> {
    let body = crate::http::extract::parse::<wire::Sync>(json.as_bytes())?;
    request_of(&Config::default().conversation, Uid::from_stored("alice"), body)
}

#[test]
fn the_documents_request_is_taken() {
    let asked = request(r#"{"uid":"alice","version":1234,"last_msg_seqs":"xxx:2:123|xxx:1:3434","msg_count":20}"#)
        .expect("the document's own example");
    assert_eq!(asked.version, Version::new(1234));
    assert_eq!(asked.msg_count, 20);
    assert!(matches!(asked.cursors, Some(Cursors::Text(ref text)) if text == "xxx:2:123|xxx:1:3434"));
    assert!(!asked.with_deleted && !asked.only_unread && asked.page == Page::All);
}

#[test]
fn defaults_caps_and_additions() {
    let asked = request("{}").expect("valid");
    assert_eq!((asked.version, asked.msg_count, asked.cursors.is_none()), (Version::ZERO, 20, true));
    assert_eq!(request(r#"{"msg_count":0}"#).expect("valid").msg_count, 0);
    assert_eq!(request(r#"{"msg_count":5000000000}"#).expect("valid").msg_count, 1_000);
    for none in [r#"{"last_msg_seqs":""}"#, r#"{"last_msg_seqs":null}"#, r#"{"last_msg_seqs":[]}"#] {
        assert!(request(none).expect("valid").cursors.is_none(), "{none}");
    }
    let array = r#"{"last_msg_seqs":[{"channel_id":"g","channel_type":2,"last_msg_seq":5}]}"#;
    assert!(matches!(request(array).expect("valid").cursors, Some(Cursors::List(list)) if list.len() == 1));
    let asked = request(
        r#"{"with_deleted":1,"only_unread":1,"exclude_channel_types":[1,9],"page":2,"page_size":900,"larges":null}"#,
    )
    .expect("valid");
    assert!(asked.with_deleted && asked.only_unread);
    assert_eq!(asked.exclude_channel_types, [ChannelType::Person]);
    assert_eq!(asked.page, Page::Number { page: 2, page_size: 500 });
    assert_eq!(request(r#"{"page":1}"#).expect("valid").page, Page::Number { page: 1, page_size: 100 });
    // WuKongIM v2's nanoseconds: the hub answers them as unknown.
    assert!(request(r#"{"version":1657615272000000000}"#).is_ok());
}

#[test]
fn refusals_name_the_field() {
    for (json, field) in [
        (r#"{"version":-1}"#, "version"),
        (r#"{"version":"1"}"#, "version"),
        (r#"{"msg_count":-1}"#, "msg_count"),
        (r#"{"uid":1}"#, "uid"),
        (r#"{"with_deleted":true}"#, "with_deleted"),
        (r#"{"last_msg_seqs":7}"#, "last_msg_seqs"),
        (r#"{"last_msg_seqs":[{"channel_id":5,"channel_type":2,"last_msg_seq":5}]}"#, "last_msg_seqs"),
    ] {
        let problem = request(json).expect_err(json);
        assert!(problem.field().is_some_and(|f| f.starts_with(field)), "{json}: {problem:?}");
    }
}

fn row(peer: &str, payload: Bytes) -> SyncRow {
    let (alice, peer) = (Uid::from_stored("alice"), Uid::from_stored(peer));
    let channel = ChannelKey::person(&alice, &peer);
    let message = Message {
        extras: None,
        edited: Version::ZERO,
        reactions: Vec::new(),
        lanes: Vec::new(),
        channel: channel.clone(),
        message_seq: MessageSeq::new(7).expect("not zero"),
        message_id: Version::new(1_657_615_272_000_001),
        from_uid: peer,
        client_msg_no: ClientMsgNo::from_stored("c7"),
        flags: MessageFlags { red_dot: true, ..MessageFlags::default() },
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload,
        state: MessageState::Live,
    };
    SyncRow {
        channel,
        unread: 1,
        timestamp_s: 1_657_615_272,
        last_msg_seq: 7,
        last_client_msg_no: "c7".into(),
        version: Version::new(1_657_615_272_000_001),
        read_to_msg_seq: 6,
        deleted_to_msg_seq: 0,
        is_deleted: false,
        reset: false,
        complete: true,
        first_seq: 7,
        recents: vec![message],
        changed: Vec::new(),
        changed_more: false,
        pinned: false,
        muted: false,
        request: false,
        mentions: 0,
    }
}

async fn answered(rows: Vec<SyncRow>, reset: bool) -> (axum::http::HeaderMap, usize, serde_json::Value) {
    let answer = SyncAnswer { version: Version::new(99), reset, rows, more: None };
    let (parts, mut body) = answer_of(Uid::from_stored("alice"), answer, false).into_parts();
    let (mut bytes, mut chunks) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        bytes.extend_from_slice(&frame.expect("infallible").into_data().expect("data"));
        chunks += 1;
    }
    (parts.headers, chunks, serde_json::from_slice(&bytes).expect("JSON"))
}

#[tokio::test]
async fn a_row_has_the_shape_of_the_document() {
    let (headers, _, json) = answered(vec![row("bob", Bytes::from_static(b"hi"))], false).await;
    assert_eq!((headers[&VERSION_HEADER].as_bytes(), headers[&RESET_HEADER].as_bytes()), (&b"99"[..], &b"0"[..]));
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(
        json,
        serde_json::json!([{
            "channel_id": "bob", "channel_type": 1, "unread": 1, "timestamp": 1_657_615_272_u64, "last_msg_seq": 7,
            "last_client_msg_no": "c7", "offset_msg_seq": 0, "readed_to_msg_seq": 6, "deleted_to_msg_seq": 0,
            "version": 1_657_615_272_000_001_u64, "complete": 1, "first_msg_seq": 7,
            "recents": [{
                "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0}, "setting": 0,
                "message_id": 1_657_615_272_000_001_u64, "message_idstr": "1657615272000001", "client_msg_no": "c7",
                "message_seq": 7, "from_uid": "bob", "channel_id": "bob", "channel_type": 1, "expire": 0,
                "timestamp": 1_657_615_272_u64, "payload": "aGk=",
            }],
        }])
    );
}

#[tokio::test]
async fn nothing_changed_is_an_empty_array() {
    let (headers, chunks, json) = answered(Vec::new(), true).await;
    assert_eq!((json, chunks, headers[&RESET_HEADER].as_bytes()), (serde_json::json!([]), 1, &b"1"[..]));
}

#[tokio::test]
async fn tombstones_and_resets_show_only_where_they_are() {
    let gone = SyncRow { is_deleted: true, unread: 0, recents: Vec::new(), ..row("bob", Bytes::new()) };
    let ahead = SyncRow { reset: true, ..row("carol", Bytes::new()) };
    let (_, _, json) = answered(vec![gone, ahead], false).await;
    assert_eq!((&json[0]["is_deleted"], json[0].get("reset")), (&1.into(), None));
    assert_eq!((&json[1]["reset"], json[1].get("is_deleted")), (&1.into(), None));
    assert_eq!(json[0]["recents"], serde_json::json!([]));
}

#[tokio::test]
async fn large_answers_come_in_pieces_and_are_one_array() {
    let rows = (0..500).map(|i| row(&format!("u{i}"), Bytes::from(vec![b'x'; 2_000]))).collect();
    let (_, chunks, json) = answered(rows, false).await;
    let array = json.as_array().expect("an array");
    assert!(chunks > 10, "{chunks} pieces");
    assert_eq!(array.len(), 500);
    assert!((0..500).all(|i| array[i]["channel_id"] == format!("u{i}")));
}
