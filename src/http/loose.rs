//! Fields as clients of several documents write them: a number or its digits, a list or its items joined by commas, a query
//! laid over a body. What none of that explains is refused and named.

use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use protocol::ids::Version;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde_json::{Map, Value};

use super::HttpState;
use super::extract::{parse, read_body};
use super::problem::Problem;

/// Query and body of a GET as one object: a body is accepted, and where both have a field the query wins (design.md section
/// 7). Values of a query are texts, so fields are read by the functions of this file.
pub struct Merged<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Arc<HttpState>> for Merged<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &Arc<HttpState>) -> Result<Self, Problem> {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let body = read_body(request, state.body_bytes_max).await?;
        merge(&query, &body).map(Merged)
    }
}

fn merge<T: DeserializeOwned>(query: &str, body: &[u8]) -> Result<T, Problem> {
    let mut object = if body.trim_ascii().is_empty() { Map::new() } else { parse::<Map<String, Value>>(body)? };
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        object.insert(name.into_owned(), Value::String(value.into_owned()));
    }
    serde_path_to_error::deserialize(Value::Object(object)).map_err(|e| {
        let path = e.path().to_string();
        Problem::malformed(if path == "." { "query".to_owned() } else { path }, e.into_inner())
    })
}

/// A text; absent, `null` and empty are none.
pub fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    Ok(text.filter(|text| !text.is_empty()))
}

/// The id of a message as a text of digits or as a number; absent, `null` and empty are none.
pub fn message_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Version>, D::Error> {
    match number(deserializer, "the id of a message")? {
        None => Ok(None),
        Some(id) => Ok(Some(Version::new(id))),
    }
}

/// A count: at least 1, as a number or its digits; absent, `null` and empty are none.
pub fn at_least_one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match number(deserializer, "a whole number of at least 1")? {
        Some(0) => Err(D::Error::custom("is 0, not a whole number of at least 1")),
        other => Ok(other),
    }
}

/// A count that may be 0, as a number or its digits; absent, `null` and empty are none.
pub fn count<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    number(deserializer, "a whole number of at least 0")
}

fn number<'de, D: Deserializer<'de>>(deserializer: D, what: &'static str) -> Result<Option<u64>, D::Error> {
    struct Number(&'static str);
    impl<'de> Visitor<'de> for Number {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
            Ok(Some(number))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<Self::Value, E> {
            let wrong = |_| E::custom(format_args!("is {number}, not {}", self.0));
            u64::try_from(number).map(Some).map_err(wrong)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            match text.trim() {
                "" => Ok(None),
                // `parse` alone would take a sign too.
                digits if digits.bytes().all(|b| b.is_ascii_digit()) => {
                    digits.parse().map(Some).map_err(|_| E::custom(format_args!("is {digits}, not {}", self.0)))
                }
                other => Err(E::custom(format_args!("is {other:?}, not {}", self.0))),
            }
        }
    }
    deserializer.deserialize_any(Number(what))
}

/// A list of texts, or one text of items joined by commas; blank items are skipped; absent and `null` are an empty list.
pub fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = Vec<String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of texts, or texts joined by commas")
        }

        fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
            Ok(Vec::new())
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            Ok(text.split(',').map(str::trim).filter(|item| !item.is_empty()).map(str::to_owned).collect())
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element::<String>()? {
                if !item.is_empty() {
                    list.push(item);
                }
            }
            Ok(list)
        }
    }
    deserializer.deserialize_any(List)
}

/// A moment in Unix milliseconds: a number or its digits, or ISO 8601 (an instant, a date and time, or a date, both taken as
/// UTC); absent, `null` and empty are none.
pub fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    match Value::deserialize(deserializer)? {
        Value::Null => Ok(None),
        Value::Number(number) => {
            let ms = number.as_u64().ok_or_else(|| D::Error::custom(format_args!("is {number}, {A_MOMENT}")))?;
            Ok(Some(ms))
        }
        Value::String(text) if text.trim().is_empty() => Ok(None),
        Value::String(text) => match moment_of(text.trim()) {
            Some(ms) => Ok(Some(ms)),
            None => Err(D::Error::custom(format_args!("is {text:?}, {A_MOMENT}"))),
        },
        _ => Err(D::Error::custom(A_MOMENT)),
    }
}

const A_MOMENT: &str = "not a moment: Unix milliseconds, or ISO 8601";

fn moment_of(text: &str) -> Option<u64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    // A `+` that nobody encoded arrives from a query as a space; the only one a moment can have there is its offset's.
    let text = match text.split_once('T') {
        Some((date, time)) => format!("{date}T{}", time.replace(' ', "+")),
        None => text.to_owned(),
    };
    let instant = text.parse::<jiff::Timestamp>().or_else(|_| {
        let civil = text.parse::<jiff::civil::DateTime>()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).map(|zoned| zoned.timestamp())
    });
    u64::try_from(instant.ok()?.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Sample {
        #[serde(deserialize_with = "text")]
        name: Option<String>,
        #[serde(deserialize_with = "message_id")]
        id: Option<Version>,
        #[serde(deserialize_with = "at_least_one")]
        limit: Option<u64>,
        #[serde(deserialize_with = "count")]
        skip: Option<u64>,
        #[serde(deserialize_with = "list")]
        users: Vec<String>,
        #[serde(deserialize_with = "moment")]
        at: Option<u64>,
    }

    fn read(query: &str, body: &str) -> Sample {
        merge(query, body.as_bytes()).unwrap_or_else(|problem| panic!("{query} {body}: {problem:?}"))
    }

    #[test]
    fn a_query_lies_over_a_body_field_by_field() {
        let both = read("limit=5&name=q", r#"{"limit":9,"skip":2,"name":"b","more":[1]}"#);
        assert_eq!((both.limit, both.skip, both.name.as_deref()), (Some(5), Some(2), Some("q")));
        assert_eq!(read("", ""), Sample::default());
        assert_eq!(read("name=&limit=&skip=&id=&at=&users=", "{}"), Sample::default());
        assert_eq!(read("", r#"{"name":null,"limit":null,"id":null,"users":null,"at":null}"#), Sample::default());
    }

    #[test]
    fn numbers_come_as_digits_too() {
        assert_eq!(read("id=1579047130798100481", "").id, Some(Version::new(1_579_047_130_798_100_481)));
        assert_eq!(read("", r#"{"id":1579047130798100481}"#).id, Some(Version::new(1_579_047_130_798_100_481)));
        assert_eq!(read("", r#"{"id":"12"}"#).id, Some(Version::new(12)));
        assert_eq!(read("limit=007&skip=0", "").limit, Some(7));
    }

    #[test]
    fn lists_come_in_two_forms() {
        let expected = ["a", "b"].map(str::to_owned);
        for body in [r#"{"users":["a","b",""]}"#, r#"{"users":"a, b,"}"#] {
            assert_eq!(read("", body).users, expected, "{body}");
        }
        assert_eq!(read("users=a,b", "").users, expected);
    }

    #[test]
    fn moments_are_milliseconds_or_iso() {
        for (text, ms) in [
            ("0", 0),
            ("1657615272123", 1_657_615_272_123),
            ("1970-01-01T00:00:01Z", 1_000),
            ("1970-01-01T00:00:01.5z", 1_500),
            ("1970-01-01T02:00:01+02:00", 1_000),
            ("1970-01-01T00:00:01", 1_000),
            ("1970-01-02", 86_400_000),
        ] {
            assert_eq!(moment_of(text), Some(ms), "{text}");
            assert_eq!(read("", &format!(r#"{{"at":"{text}"}}"#)).at, Some(ms), "{text}");
        }
        assert_eq!(read("at=1970-01-01T02:00:01+02:00", "").at, Some(1_000), "a plus that nobody encoded");
        assert_eq!(read("", r#"{"at":12}"#).at, Some(12));
        assert_eq!(moment_of("1969-12-31T00:00:00Z"), None);
    }

    #[test]
    fn what_is_none_of_it_is_refused_and_named() {
        for (query, body, field) in [
            ("limit=0", "", "limit"),
            ("limit=-1", "", "limit"),
            ("limit=NaN", "", "limit"),
            ("limit=1.5", "", "limit"),
            ("limit=99999999999999999999", "", "limit"),
            ("", r#"{"limit":-1}"#, "limit"),
            ("", r#"{"limit":0}"#, "limit"),
            ("", r#"{"limit":2.5}"#, "limit"),
            ("skip=%2B1", "", "skip"),
            ("id=abc", "", "id"),
            ("", r#"{"id":{}}"#, "id"),
            ("at=yesterday", "", "at"),
            ("", r#"{"at":-1}"#, "at"),
            ("", r#"{"at":[]}"#, "at"),
            ("", r#"{"users":5}"#, "users"),
            ("", r#"{"users":["a",5]}"#, "users[1]"),
            ("", r#"{"name":5}"#, "name"),
            ("", "[]", "body"),
            ("", "limit=5", "body"),
        ] {
            match merge::<Sample>(query, body.as_bytes()) {
                Err(problem) => assert_eq!(problem.field(), Some(field), "{query} {body}: {problem:?}"),
                Ok(sample) => panic!("{query} {body}: {sample:?}"),
            }
        }
    }
}
