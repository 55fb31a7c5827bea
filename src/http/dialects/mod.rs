//! One folder per API document, each with its source, its JSON field for field, and its conversions. A dialect never names
//! another; what two share is a word of the domain, a verb of the hub, or one of the few readers here.
//!
//! Owns what several documents leave open in the same way and design.md section 7 answers once: who calls when the body names
//! nobody ([`Caller`]), the retry key that is a header ([`IdempotencyKey`]), ids as numbers or text, lists as arrays or one
//! text with commas, and times as milliseconds or ISO 8601. How a refusal is said is a row of [`crate::voices`].

use std::fmt;
use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName};
use protocol::ids::{ChannelKey, ClientMsgNo, MessageId, Uid, Version};
use serde::de::{Deserializer, Error, SeqAccess, Visitor};

use super::HttpState;
use super::extract::{Acting, Auth, Needs};
use super::problem::Problem;
use crate::domain::refusal::Refusal;

pub mod chats;
pub mod conversation;
pub mod m3o;
pub mod relation;
pub mod threads;

/// Names the user a back end's API key acts for, where the document has no place for it. A user may leave it out.
pub const ACTING_UID: HeaderName = HeaderName::from_static("x-chinwag-uid");
/// The sender's name for a message, where the document has no field for it. The same idempotency space as `client_msg_no`
/// (CHECKLIST section 6, 1).
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Who calls a dialect whose bodies name no caller: a user by an own token (header `token` or `Authorization: Bearer`), or a
/// back end by an API key and the header [`ACTING_UID`]. Extracting it answers 401 without a known credential.
#[derive(Debug, Clone)]
pub struct Caller {
    auth: Auth,
    named: String,
}

impl FromRequestParts<Arc<HttpState>> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let auth = Auth::from_request_parts(parts, state).await?;
        let named = header_text(&parts.headers, &ACTING_UID)?.unwrap_or_default().to_owned();
        Ok(Self { auth, named })
    }
}

impl Caller {
    /// The user the request acts for. `needs` is what an API key must be allowed.
    ///
    /// # Errors
    /// As [`Auth::acting_for`]; `Invalid` naming the header for a key that names nobody.
    pub async fn acting(&self, state: &HttpState, needs: Needs) -> Result<Acting, Problem> {
        self.auth.acting_for(state, "x-chinwag-uid", &self.named, needs).await
    }

    /// The user alone, for routes where a key has no rights of its own beyond naming the user.
    ///
    /// # Errors
    /// As [`Caller::acting`].
    pub async fn uid(&self, state: &HttpState, needs: Needs) -> Result<Uid, Problem> {
        Ok(self.acting(state, needs).await?.uid().clone())
    }

    /// The credential, for routes that take keys only.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.auth
    }
}

/// The header [`IDEMPOTENCY_KEY`], when there is one.
#[derive(Debug, Clone)]
pub struct IdempotencyKey(Option<ClientMsgNo>);

impl<S: Send + Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let text = header_text(&parts.headers, &IDEMPOTENCY_KEY)?.unwrap_or_default();
        client_msg_no("idempotency-key", text).map(Self)
    }
}

impl IdempotencyKey {
    /// The key alone, for documents without a field of their own.
    #[must_use]
    pub fn into_inner(self) -> Option<ClientMsgNo> {
        self.0
    }

    /// The key, or the document's own field (`sendUuid`, `client_id`) where the header is not given.
    ///
    /// # Errors
    /// `Invalid`: the field is none, or both are given and differ.
    pub fn or_field(self, field: &'static str, text: &str) -> Result<Option<ClientMsgNo>, Problem> {
        match (self.0, client_msg_no(field, text)?) {
            (Some(header), Some(own)) if header != own => {
                Err(Refusal::invalid(field, "differs from the header idempotency-key").into())
            }
            (header, own) => Ok(header.or(own)),
        }
    }
}

/// A sender's name for a message; an empty text is none.
///
/// # Errors
/// `Invalid` naming the field: too long, or a control character.
pub fn client_msg_no(field: &'static str, text: &str) -> Result<Option<ClientMsgNo>, Problem> {
    if text.is_empty() {
        return Ok(None);
    }
    Ok(Some(ClientMsgNo::new(text).map_err(|e| Refusal::invalid(field, e))?))
}

/// A header as trimmed text.
///
/// # Errors
/// `Malformed` naming the header when it is no visible ASCII.
pub fn header_text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Problem> {
    match headers.get(name).map(axum::http::HeaderValue::to_str) {
        None => Ok(None),
        Some(Ok(text)) => Ok(Some(text.trim())),
        Some(Err(e)) => Err(Problem::malformed(name.as_str(), e)),
    }
}

/// The one channel that several fields of a request name: all that are given must agree (design.md section 7).
///
/// # Errors
/// `Invalid` naming both fields of a clash, or all fields when none is given.
pub fn one_target(given: &[(&'static str, Option<ChannelKey>)]) -> Result<ChannelKey, Problem> {
    let mut found: Option<(&'static str, &ChannelKey)> = None;
    for (field, key) in given {
        match (found, key) {
            (Some((first, one)), Some(key)) if one != key => {
                return Err(Refusal::invalid(first, format_args!("and {field} name different chats")).into());
            }
            (None, Some(key)) => found = Some((field, key)),
            _ => {}
        }
    }
    found.map(|(_, key)| key.clone()).ok_or_else(|| {
        let fields: Vec<&str> = given.iter().map(|(field, _)| *field).collect();
        Refusal::invalid(given.first().map_or("body", |(field, _)| *field), missing(&fields)).into()
    })
}

fn missing(fields: &[&str]) -> String {
    match fields {
        [] | [_] => "is needed".to_owned(),
        [_, others @ ..] => format!("is needed, or {}", others.join(" or ")),
    }
}

/// A message id as a JSON number or text, without losing digits; `null`, absent and empty are none. For serde's
/// `deserialize_with`, together with `default`.
///
/// # Errors
/// No whole number from 0 to 2^64 - 1.
pub fn message_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<MessageId>, D::Error> {
    struct Id;
    impl<'de> Visitor<'de> for Id {
        type Value = Option<MessageId>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a message id as a number or as text")
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(Version::new(number)))
        }
        fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
            Err(E::custom(format_args!("{number} is no message id")))
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            match text.trim() {
                "" => Ok(None),
                text if text.bytes().all(|b| b.is_ascii_digit()) => {
                    text.parse().map(|number| Some(Version::new(number))).map_err(E::custom)
                }
                text => Err(E::custom(format_args!("{text:?} is no message id"))),
            }
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Id)
}

/// Texts as an array or as one text with commas (CHECKLIST A6, E9); `null`, absent and empty are none. For serde's
/// `deserialize_with`, together with `default`.
///
/// # Errors
/// An entry that is no text.
pub fn texts<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct Texts;
    impl<'de> Visitor<'de> for Texts {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array of texts, or one text with commas")
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Self::Value, A::Error> {
            let mut texts = Vec::new();
            while let Some(text) = array.next_element()? {
                texts.push(text);
            }
            Ok(texts)
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }
        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }
    }
    deserializer.deserialize_any(Texts)
}

/// A moment as Unix milliseconds (number or text), or as ISO 8601 with an offset (`2026-07-01T10:00:00.5Z`); `null`, absent
/// and empty are none. For serde's `deserialize_with`, together with `default`.
///
/// # Errors
/// Neither, or before 1970.
pub fn millis<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    struct Moment;
    impl<'de> Visitor<'de> for Moment {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Unix milliseconds, or a time as 2026-07-01T10:00:00Z")
        }
        fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number))
        }
        fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
            Err(E::custom(format_args!("{number} is before 1970")))
        }
        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            match text.trim() {
                "" => Ok(None),
                text if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().map(Some).map_err(E::custom),
                text => iso_millis(text).map(Some).ok_or_else(|| {
                    E::custom(format_args!("{text:?} is neither Unix milliseconds nor a time as 2026-07-01T10:00:00Z"))
                }),
            }
        }
        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
        fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }
    }
    deserializer.deserialize_any(Moment)
}

/// RFC 3339, the profile of ISO 8601 for the net, to Unix milliseconds; what is finer is cut. A `+` that a query string made
/// a space is read as `+`.
fn iso_millis(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let number = |from: usize, digits: usize| -> Option<i64> {
        let part = bytes.get(from..from + digits)?;
        part.iter().all(u8::is_ascii_digit).then(|| part.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    };
    let is = |at: usize, any: &[u8]| bytes.get(at).is_some_and(|b| any.contains(b));
    if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":") && is(16, b":")) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 2)?, number(8, 2)?);
    let (hour, minute, second) = (number(11, 2)?, number(14, 2)?, number(17, 2)?);
    let leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let days_in_month = match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if !(1..=days_in_month).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut at = 19;
    let mut milli = 0;
    if is(at, b".") {
        let digits = bytes[at + 1..].iter().take_while(|b| b.is_ascii_digit()).count();
        for i in 0..3 {
            milli = milli * 10 + if i < digits { i64::from(bytes[at + 1 + i] - b'0') } else { 0 };
        }
        at += 1 + digits;
        if digits == 0 {
            return None;
        }
    }
    let offset_minutes = match bytes.get(at)? {
        b'Z' | b'z' if bytes.len() == at + 1 => 0,
        sign @ (b'+' | b' ' | b'-') if bytes.len() == at + 6 && is(at + 3, b":") => {
            let (hours, minutes) = (number(at + 1, 2)?, number(at + 4, 2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    // Days since 1970 by the civil calendar, years beginning in March so that the leap day is the last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days =
        y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400) + (m * 153 + 2) / 5 + day - 1 - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute - offset_minutes) * 60 + second;
    u64::try_from(seconds * 1_000 + milli).ok()
}

#[cfg(test)]
mod tests;
