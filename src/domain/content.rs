//! What a payload says: the shape that dialects write payloads in and read any payload as, and the text that search looks in.
//!
//! The core never looks into a payload, and sockets may send any bytes. Dialects that speak of texts and types write them in
//! WuKongIM's convention (a JSON object with `type` and `content`, wukongim-http.md section 5), so that its SDKs show them,
//! and read every payload, whoever sent it, as one. Invariant: encoding depends on the request alone, so that a retry has
//! the same bytes.

use bytes::Bytes;
use serde_json::{Map, Value};

use super::message::Extras;

/// `type` of a text in WuKongIM's convention.
const TYPE_TEXT: u64 = 1;
/// `type` of everything that has a `kind` of its own; above the SDKs' own numbers.
const TYPE_OTHER: u64 = 1000;
/// The kind of texts.
pub const KIND_TEXT: &str = "text";
/// The kind of payloads that are neither text nor JSON in the convention; their body is base64.
pub const KIND_BINARY: &str = "binary";

/// A payload as dialects speak of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Content {
    /// `text`, or a word of the dialect that sent it (`docId`, `link`, `card`, …).
    pub kind: String,
    /// A text, or any JSON the sender gave in its place.
    pub body: Value,
    /// A subject line (m3o).
    pub subject: Option<String>,
}

impl Content {
    /// A text.
    #[must_use]
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: KIND_TEXT.into(), body: Value::String(text.into()), subject: None }
    }

    /// The payload that says this. What it refers to is repeated in it, for clients that know payloads only.
    #[must_use]
    pub fn encode(&self, extras: Option<&Extras>) -> Bytes {
        let mut object = Map::new();
        if self.kind == KIND_TEXT {
            object.insert("type".into(), TYPE_TEXT.into());
        } else {
            object.insert("type".into(), TYPE_OTHER.into());
            object.insert("kind".into(), self.kind.as_str().into());
        }
        object.insert("content".into(), self.body.clone());
        if let Some(subject) = &self.subject {
            object.insert("subject".into(), subject.as_str().into());
        }
        if let Some(extras) = extras {
            if let Some(reply_to) = extras.reply_to {
                object.insert("reply".into(), serde_json::json!({ "message_id": reply_to.get().to_string() }));
            }
            if !extras.mentions.is_empty() || extras.mention_all {
                let uids: Vec<&str> = extras.mentions.iter().map(protocol::ids::Uid::as_str).collect();
                let mention = serde_json::json!({ "all": u8::from(extras.mention_all), "uids": uids });
                object.insert("mention".into(), mention);
            }
            if !extras.files.is_empty() {
                let files: Vec<&str> = extras.files.iter().map(protocol::ids::FileId::as_str).collect();
                object.insert("files".into(), files.into());
            }
        }
        Bytes::from(Value::Object(object).to_string())
    }

    /// Reads any payload. An empty one is an empty text.
    #[must_use]
    pub fn decode(payload: &[u8]) -> Self {
        if payload.first() == Some(&b'{')
            && let Ok(Value::Object(mut object)) = serde_json::from_slice::<Value>(payload)
            && let Some(body) = object.remove("content")
        {
            let kind = match (object.get("kind").and_then(Value::as_str), object.get("type").and_then(Value::as_u64)) {
                (Some(kind), _) => kind.to_owned(),
                (None, None | Some(TYPE_TEXT)) => KIND_TEXT.to_owned(),
                (None, Some(number)) => number.to_string(),
            };
            let subject = object.get("subject").and_then(Value::as_str).map(str::to_owned);
            return Self { kind, body, subject };
        }
        match std::str::from_utf8(payload) {
            Ok(text) => Self::text(text),
            Err(_) => {
                use base64::Engine as _;
                let body = base64::engine::general_purpose::STANDARD.encode(payload);
                Self { kind: KIND_BINARY.into(), body: Value::String(body), subject: None }
            }
        }
    }

    /// The body where one text is wanted: as it is, or as JSON.
    #[must_use]
    pub fn body_text(&self) -> String {
        match &self.body {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            other => other.to_string(),
        }
    }
}

/// The text search looks in: the body (and the subject before it, on a line of its own), or nothing of a binary payload.
#[must_use]
pub fn search_text(payload: &[u8]) -> Option<String> {
    if payload.first() != Some(&b'{') {
        return std::str::from_utf8(payload).ok().map(str::to_owned);
    }
    let content = Content::decode(payload);
    if content.kind == KIND_BINARY {
        return None;
    }
    let text = content.body_text();
    Some(match content.subject {
        Some(subject) if !subject.is_empty() => format!("{subject}\n{text}"),
        _ => text,
    })
}

/// Folds a text so that two texts that people take for equal compare equal: case, and Turkish dotted and dotless i, which
/// all become `i`. No character has a meaning of its own.
#[must_use]
pub fn fold(text: &str) -> String {
    let mut folded = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            'I' | 'İ' | 'ı' | 'i' => folded.push('i'),
            // What is left of a decomposed `İ`, and of `i̇`, its lower case.
            '\u{307}' if folded.ends_with('i') => {}
            'ß' | 'ẞ' => folded.push_str("ss"),
            'ς' => folded.push('σ'),
            c if c.is_ascii() => folded.push(c.to_ascii_lowercase()),
            c => folded.extend(c.to_lowercase()),
        }
    }
    folded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_payload_reads_as_content() {
        for (payload, kind, body) in [
            (&br#"{"type":1,"content":"hi"}"#[..], "text", "hi"),
            (br#"{"content":"hi"}"#, "text", "hi"),
            (br#"{"type":1000,"kind":"link","content":"https://a"}"#, "link", "https://a"),
            (br#"{"type":6,"content":{"lat":1}}"#, "6", r#"{"lat":1}"#),
            (b"plain", "text", "plain"),
            (b"", "text", ""),
            (br#"{"no":"content"}"#, "text", r#"{"no":"content"}"#),
            (b"{broken", "text", "{broken"),
            (b"\xff\x00", "binary", "/wA="),
        ] {
            let content = Content::decode(payload);
            assert_eq!((content.kind.as_str(), content.body_text().as_str()), (kind, body));
        }
    }

    #[test]
    fn what_is_encoded_decodes_to_itself() {
        let subject = Content { subject: Some("Hello".into()), ..Content::text("Hey 😀 Barry") };
        let json = Content { kind: "location".into(), body: serde_json::json!({ "lat": 1.5 }), subject: None };
        for content in [Content::text(""), subject, json] {
            assert_eq!(Content::decode(&content.encode(None)), content);
        }
    }

    #[test]
    fn folding_makes_alike_what_people_take_for_alike() {
        for (a, b) in [
            ("İSTANBUL", "istanbul"),
            ("ISPARTA", "ısparta"),
            ("i\u{307}zmir", "İzmir"),
            ("Straße", "STRASSE"),
            ("ΣΊΣΥΦΟΣ", "σίσυφος"),
            ("100%_.*", "100%_.*"),
        ] {
            assert_eq!(fold(a), fold(b), "{a} {b}");
        }
        assert_ne!(fold("a.c"), fold("abc"));
    }
}
