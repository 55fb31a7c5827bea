//! Proves that wrong bytes are told apart: malformed (close), a wrong field or an unknown kind (answered), and that
//! nothing panics.

use chinwag_protocol::close::CloseReason;
use chinwag_protocol::error::WireError;
use chinwag_protocol::native::{ClientFrame, Encoding, Event, ServerFrame, decode_client, decode_server};

fn json(text: &str) -> Result<ClientFrame<'_>, WireError> {
    decode_client(Encoding::Json, text.as_bytes())
}

#[test]
fn an_unknown_kind_is_named_and_keeps_its_number() {
    let unknown = |kind: &str, client_seq| Err(WireError::UnknownFrame { kind: kind.to_owned(), client_seq });
    assert_eq!(json(r#"{"teleport":{"where":[1,{"a":null}],"client_seq":7}}"#), unknown("teleport", Some(7)));
    assert_eq!(json(r#"{"teleport":[1,2,3]}"#), unknown("teleport", None));
    assert_eq!(json(r#"{"teleport":{"client_seq":"x"}}"#), unknown("teleport", None));
    let msgpack = rmp_serde::to_vec_named(&serde_json::json!({"teleport": {"client_seq": 7, "x": [1, 2.5, null]}}));
    let msgpack = msgpack.expect("encodes");
    assert_eq!(decode_client(Encoding::MessagePack, &msgpack), unknown("teleport", Some(7)));
    assert_eq!(json(r#"{"teleport":1}"#).expect_err("unknown").close_reason(), None);
}

#[test]
fn a_wrong_field_is_named_and_the_connection_stays() {
    let check = |text: &str, kind: &str, client_seq, field: &str, reason: &str| {
        let error = json(text).expect_err(text);
        assert_eq!((error.refused_code(), error.close_reason()), (Some("invalid"), None), "{text}");
        assert_eq!(error.client_seq(), client_seq, "{text}");
        let WireError::Field { kind: k, field: f, reason: r, .. } = error else { panic!("{text}: {error}") };
        assert_eq!((k.as_str(), f.as_str()), (kind, field), "{text}");
        assert!(r.contains(reason), "{text}: {r}");
    };
    check(
        r#"{"send":{"client_seq":3,"channel_type":2,"payload":""}}"#,
        "send",
        Some(3),
        "channel_id",
        "missing field `channel_id`",
    );
    check(
        r#"{"send":{"client_seq":3,"channel_id":"g","channel_type":"2","payload":""}}"#,
        "send",
        Some(3),
        "channel_type",
        "whole number",
    );
    check(
        r#"{"sync":{"client_seq":4,"cursors":[{"channel_id":"a","channel_type":1,"last_msg_seq":1},{"channel_id":1}]}}"#,
        "sync",
        Some(4),
        "cursors[1].channel_id",
        "string",
    );
    check(r#"{"read":{"client_seq":9007199254740992}}"#, "read", None, "client_seq", "2^53");
    check(r#"{"send":[1,"g",2]}"#, "send", None, "", "a map of named fields");
}

#[test]
fn malformed_bytes_close() {
    for text in ["", "{", "[]", "1", "{}", r#"{"ping":{}}x"#, r#"{"ping":{},"pong":{}}"#, r#"{"ping":{}"#, "\"ping\""] {
        let error = json(text).expect_err(text);
        assert_eq!(error.close_reason(), Some(CloseReason::ProtocolError), "{text}: {error}");
    }
    let ping = [0x81, 0xa4, b'p', b'i', b'n', b'g', 0x80];
    assert!(decode_client(Encoding::MessagePack, &ping).is_ok());
    for bytes in [&ping[..6], &[], &[0xc1], &[0x80], &[0x90], b"\xa4ping", &[&ping[..], &[0xc4]].concat()] {
        let error = decode_client(Encoding::MessagePack, bytes).expect_err("malformed");
        assert_eq!(error.close_reason(), Some(CloseReason::ProtocolError), "{bytes:02x?}: {error}");
    }
}

#[test]
fn an_unknown_event_is_ignorable() {
    let frame = decode_server(Encoding::Json, br#"{"event":{"fireworks":{"colour":"red"}}}"#).expect("decodes");
    assert!(matches!(frame, ServerFrame::Event(Event::Unknown(_))));
}
