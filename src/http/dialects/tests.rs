//! The shared readers.

use serde::Deserialize;

use super::*;
use crate::http::extract::parse;

#[derive(Debug, Deserialize)]
struct Sample {
    #[serde(default, deserialize_with = "message_id")]
    id: Option<MessageId>,
    #[serde(default, deserialize_with = "texts")]
    users: Vec<String>,
    #[serde(default, deserialize_with = "millis")]
    at: Option<u64>,
}

fn read(json: &str) -> Result<Sample, Problem> {
    parse::<Sample>(json.as_bytes())
}

#[test]
fn ids_keep_their_digits_as_number_and_as_text() {
    for (json, id) in [
        ("{}", None),
        (r#"{"id":null}"#, None),
        (r#"{"id":""}"#, None),
        (r#"{"id":1579047130798100481}"#, Some(1_579_047_130_798_100_481)),
        (r#"{"id":"1579047130798100481"}"#, Some(1_579_047_130_798_100_481)),
        (r#"{"id":18446744073709551615}"#, Some(u64::MAX)),
        (r#"{"id":0}"#, Some(0)),
    ] {
        assert_eq!(read(json).expect(json).id, id.map(Version::new), "{json}");
    }
    for json in [
        r#"{"id":-1}"#,
        r#"{"id":1.5}"#,
        r#"{"id":1e3}"#,
        r#"{"id":"x"}"#,
        r#"{"id":"+1"}"#,
        r#"{"id":18446744073709551616}"#,
        r#"{"id":"18446744073709551616"}"#,
        r#"{"id":true}"#,
        r#"{"id":[1]}"#,
    ] {
        assert_eq!(read(json).expect_err(json).field(), Some("id"), "{json}");
    }
}

#[test]
fn lists_are_arrays_or_one_text() {
    for json in [r#"{"users":["a","b"]}"#, r#"{"users":"a,b"}"#, r#"{"users":" a , b ,"}"#] {
        assert_eq!(read(json).expect(json).users, ["a", "b"], "{json}");
    }
    for json in ["{}", r#"{"users":null}"#, r#"{"users":[]}"#, r#"{"users":""}"#] {
        assert!(read(json).expect(json).users.is_empty(), "{json}");
    }
    assert_eq!(read(r#"{"users":["a",7]}"#).expect_err("a number").field(), Some("users[1]"));
    assert_eq!(read(r#"{"users":7}"#).expect_err("a number").field(), Some("users"));
}

#[test]
fn times_are_milliseconds_or_iso() {
    for (json, at) in [
        ("{}", None),
        (r#"{"at":null}"#, None),
        (r#"{"at":1657611272123}"#, Some(1_657_611_272_123)),
        (r#"{"at":"1657611272123"}"#, Some(1_657_611_272_123)),
        (r#"{"at":"1970-01-01T00:00:00Z"}"#, Some(0)),
        (r#"{"at":"2022-07-12T07:34:32.123456Z"}"#, Some(1_657_611_272_123)),
        (r#"{"at":"2022-07-12T10:34:32.12+03:00"}"#, Some(1_657_611_272_120)),
        (r#"{"at":"2022-07-12T02:04:32.1-05:30"}"#, Some(1_657_611_272_100)),
        (r#"{"at":"2022-07-12t10:34:32 03:00"}"#, Some(1_657_611_272_000)),
        (r#"{"at":"2024-02-29T23:59:60Z"}"#, Some(1_709_251_200_000)),
        (r#"{"at":"2100-03-01T00:00:00Z"}"#, Some(4_107_542_400_000)),
    ] {
        assert_eq!(read(json).expect(json).at, at, "{json}");
    }
    for text in [
        "now",
        "2022-07-12",
        "2022-07-12T07:34:32",
        "2023-02-29T00:00:00Z",
        "2022-13-01T00:00:00Z",
        "2022-00-01T00:00:00Z",
        "2022-01-00T00:00:00Z",
        "2022-01-01T24:00:00Z",
        "2022-01-01T00:00:00.Z",
        "2022-01-01T00:00:00Zx",
        "2022-01-01T00:00:00+3",
        "2022-01-01T00:00:00+99:00",
        "1969-12-31T23:59:59Z",
        "2022-01-01T00:00:00ß",
    ] {
        let json = format!(r#"{{"at":"{text}"}}"#);
        assert_eq!(read(&json).expect_err(text).field(), Some("at"), "{text}");
    }
    assert!(read(r#"{"at":-1}"#).is_err());
}

#[test]
fn the_header_and_the_field_are_one_key() {
    let header = |text: &str| IdempotencyKey(client_msg_no("idempotency-key", text).expect("valid"));
    for (given, field, key) in [("", "", None), ("a", "", Some("a")), ("", "b", Some("b")), ("c", "c", Some("c"))] {
        let found = header(given).or_field("sendUuid", field).expect("no clash");
        assert_eq!(found.as_ref().map(ClientMsgNo::as_str), key);
    }
    let clash = header("a").or_field("sendUuid", "b").expect_err("a clash");
    assert_eq!(clash.field(), Some("sendUuid"));
    assert_eq!(header("").or_field("sendUuid", "a\u{7}").expect_err("control").field(), Some("sendUuid"));
}

#[test]
fn targets_agree_or_the_clash_is_named() {
    let key = |id: &str| ChannelKey::named(id, protocol::ids::ChannelType::Group).expect("a group");
    let (a, b) = (key("a"), key("b"));
    assert_eq!(one_target(&[("chatId", None), ("groupUUID", Some(a.clone()))]), Ok(a.clone()));
    assert_eq!(one_target(&[("chatId", Some(a.clone())), ("groupUUID", Some(a.clone()))]), Ok(a.clone()));
    let clash = one_target(&[("chatId", Some(a)), ("userUUID", None), ("groupUUID", Some(b))]).expect_err("a clash");
    assert_eq!(clash.text(), "chatId and groupUUID name different chats");
    assert_eq!(clash.status().as_u16(), 400);
    let none = one_target(&[("chatId", None), ("groupUUID", None)]).expect_err("none");
    assert_eq!((none.field(), none.text().as_str()), (Some("chatId"), "chatId is needed, or groupUUID"));
}
