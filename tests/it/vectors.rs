//! Plays the golden exchanges of `tests/vectors/{relation,m3o}`: requests a client makes, and the answer to each, field for
//! field.
//!
//! In a vector `"${name}"` stands for a value that the server makes: its first sight in an answer takes it, every later one
//! must be equal, and in requests it is filled in, also inside a longer text.

use std::collections::HashMap;

use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::Caller;

type Known = HashMap<String, Value>;

fn name_of(text: &str) -> Option<&str> {
    text.strip_prefix("${")?.strip_suffix('}')
}

fn fill(template: &Value, known: &Known) -> Value {
    match template {
        Value::String(text) => match name_of(text) {
            Some(name) => known.get(name).unwrap_or_else(|| panic!("${{{name}}} is not known yet")).clone(),
            None => known
                .iter()
                .fold(text.clone(), |text, (name, value)| {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    text.replace(&format!("${{{name}}}"), &value)
                })
                .into(),
        },
        Value::Array(items) => items.iter().map(|item| fill(item, known)).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), fill(value, known))).collect(),
        other => other.clone(),
    }
}

fn compare(at: &str, expected: &Value, got: &Value, known: &mut Known) {
    match (expected, got) {
        (Value::String(text), got) if name_of(text).is_some() => {
            let name = name_of(text).expect("checked").to_owned();
            let first = known.entry(name).or_insert_with(|| got.clone());
            assert_eq!(first, got, "{at}");
        }
        (Value::Object(expected), Value::Object(got)) => {
            let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(expected), names(got), "{at}: fields");
            for (key, value) in expected {
                compare(&format!("{at}.{key}"), value, &got[key], known);
            }
        }
        (Value::Array(expected), Value::Array(got)) => {
            assert_eq!(expected.len(), got.len(), "{at}: {got:?}");
            for (i, (expected, got)) in expected.iter().zip(got).enumerate() {
                compare(&format!("{at}[{i}]"), expected, got, known);
            }
        }
        (expected, got) => assert_eq!(expected, got, "{at}"),
    }
}

/// Plays every vector of a folder, each against a server of its own.
pub async fn play(folder: &str) {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(folder);
    let mut paths: Vec<_> =
        std::fs::read_dir(dir).expect("vectors").map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    assert!(!paths.is_empty());
    for path in paths {
        let text = std::fs::read_to_string(&path).expect("a vector");
        let vector: Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let server = Server::on_memory().await;
        let root = Caller::root(&server);
        let app = root.done("/admin/keys", json!({"name": "app", "scopes": ["send", "read"]})).await;
        let mut known = Known::from([("app_key".to_owned(), app["key"].clone())]);
        for user in vector["users"].as_array().expect("users") {
            let user = user.as_str().expect("a uid");
            known.insert(format!("token_{user}"), server.user(user).await.into());
        }
        for (i, step) in vector["steps"].as_array().expect("steps").iter().enumerate() {
            let at = format!("{} step {i}", path.display());
            let request = fill(&step["request"], &known);
            let bearer = request["bearer"].as_str().expect("a bearer");
            let mut caller = Caller::with(&server, bearer);
            for (name, value) in request["headers"].as_object().into_iter().flatten() {
                caller = caller.header(name, value.as_str().expect("a text"));
            }
            let answer = caller.post(request["path"].as_str().expect("a path"), request["body"].clone()).await;
            assert_eq!(json!(answer.status.as_u16()), step["status"], "{at}: {}", answer.json);
            compare(&at, &step["answer"], &answer.json, &mut known);
        }
    }
}
