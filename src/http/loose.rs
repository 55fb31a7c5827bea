//! A query laid over a body, and fields that come from either: a count is a number or its digits, an empty text is none. What
//! none of that explains is refused and named. Ids, lists and times are read by [`super::dialects`].

use std::fmt;
use std::sync::Arc;

use axum::extract::{FromRequest, Request};
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, Error, Visitor};
use serde_json::{Map, Value};

use super::HttpState;
use super::extract::{check_query, parse, read_body};
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
    check_query(query)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default)]
    struct Sample {
        #[serde(deserialize_with = "text")]
        name: Option<String>,
        #[serde(deserialize_with = "at_least_one")]
        limit: Option<u64>,
        #[serde(deserialize_with = "count")]
        skip: Option<u64>,
        #[serde(deserialize_with = "super::super::dialects::texts")]
        users: Vec<String>,
    }

    fn read(query: &str, body: &str) -> Sample {
        merge(query, body.as_bytes()).unwrap_or_else(|problem| panic!("{query} {body}: {problem:?}"))
    }

    #[test]
    fn a_query_lies_over_a_body_field_by_field() {
        let both = read("limit=5&name=q", r#"{"limit":9,"skip":2,"name":"b","more":[1]}"#);
        assert_eq!((both.limit, both.skip, both.name.as_deref()), (Some(5), Some(2), Some("q")));
        assert_eq!(read("", ""), Sample::default());
        assert_eq!(read("name=&limit=&skip=&users=", "{}"), Sample::default());
        assert_eq!(read("", r#"{"name":null,"limit":null,"users":null}"#), Sample::default());
    }

    #[test]
    fn numbers_come_as_digits_too() {
        let both = read("limit=007&skip=0", "");
        assert_eq!((both.limit, both.skip), (Some(7), Some(0)));
        assert_eq!(read("", r#"{"limit":"12","skip":3}"#).limit, Some(12));
        assert_eq!(read("users=a,b", "").users, ["a", "b"].map(str::to_owned));
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
