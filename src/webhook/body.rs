//! The bodies of calls, exactly as the reference has them (wukongim-http.md section 10).
//!
//! A message's own shape comes from whoever shows messages elsewhere ([`super::ShowMessage`]), so that there is one.

use std::io::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use serde_json::Value;

use crate::hub::sessions::SessionChange;

/// The body of msg.notify: an array of messages.
///
/// # Errors
/// None for values that came from JSON.
pub fn notify(messages: &[Value]) -> serde_json::Result<Bytes> {
    serde_json::to_vec(messages).map(Bytes::from)
}

#[derive(Serialize)]
struct Offline<'a> {
    #[serde(flatten)]
    message: &'a Value,
    to_uids: &'a [&'a str],
    #[serde(skip_serializing_if = "Option::is_none")]
    compress: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    compress_to_uids: Option<String>,
    source_id: u64,
}

/// The body of msg.offline: a message and who was offline, as bare uids. More uids than `compress_above` (0: never) go as
/// base64 of a complete gzip of their JSON array.
///
/// # Errors
/// None for a message that is a JSON object.
pub fn offline(message: &Value, uids: &[&str], compress_above: usize) -> serde_json::Result<Bytes> {
    let plain = Offline { message, to_uids: uids, compress: None, compress_to_uids: None, source_id: 0 };
    let body = if compress_above > 0 && uids.len() > compress_above {
        let packed = gzip(&serde_json::to_vec(uids)?).map_err(serde_json::Error::io)?;
        let compress_to_uids = Some(STANDARD.encode(packed));
        serde_json::to_vec(&Offline { to_uids: &[], compress: Some("gzip"), compress_to_uids, ..plain })
    } else {
        serde_json::to_vec(&plain)
    };
    body.map(Bytes::from)
}

/// With its trailer: v1 and v2 of the reference cut it off (section 15, 28).
fn gzip(bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(bytes)?;
    packer.finish()
}

/// One line of user.onlinestatus: `uid-deviceFlag-online-connId-deviceOnlineCount-totalOnlineCount`, with the bare uid.
#[must_use]
pub fn status_line(change: &SessionChange) -> String {
    let SessionChange { device_flag, session, of_device, of_user, .. } = change;
    format!("{}-{}-{}-{}-{of_device}-{of_user}", change.uid.bare(), device_flag.0, u8::from(change.online), session.0)
}

/// The body of user.onlinestatus: an array of lines.
///
/// # Errors
/// None for texts.
pub fn online_status(lines: &[String]) -> serde_json::Result<Bytes> {
    serde_json::to_vec(lines).map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use protocol::ids::{DeviceFlag, Uid};
    use serde_json::json;

    use super::*;
    use crate::hub::sessions::SessionId;

    #[test]
    fn bodies_have_the_shapes_of_the_reference() {
        let message = json!({"message_id": 7, "channel_id": "bob"});
        assert_eq!(notify(&[message.clone(), message.clone()]).expect("json"), json!([message, message]).to_string());
        let read = |body: Bytes| serde_json::from_slice::<Value>(&body).expect("json");
        assert_eq!(
            read(offline(&message, &["a", "b"], 2).expect("json")),
            json!({"message_id": 7, "channel_id": "bob", "to_uids": ["a", "b"], "source_id": 0})
        );
        let packed = read(offline(&message, &["a", "b", "c"], 2).expect("json"));
        assert_eq!((&packed["to_uids"], &packed["compress"]), (&json!([]), &json!("gzip")));
        let bytes = STANDARD.decode(packed["compress_to_uids"].as_str().expect("text")).expect("base64");
        let mut text = String::new();
        // The reader checks the trailer: length and checksum of the whole.
        flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).expect("a complete gzip");
        assert_eq!(text, r#"["a","b","c"]"#);
        let cut = &bytes[..bytes.len() - 1];
        assert!(flate2::read::GzDecoder::new(cut).read_to_string(&mut String::new()).is_err());
    }

    #[test]
    fn a_line_is_parsed_from_the_right() {
        let change = SessionChange {
            order: 1,
            uid: Uid::from_stored("acme\u{1f}u-1"),
            device_flag: DeviceFlag(1),
            session: SessionId(17),
            online: true,
            of_device: 1,
            of_user: 2,
        };
        assert_eq!(status_line(&change), "u-1-1-1-17-1-2");
    }
}
