//! Golden exchanges of the HTTP dialects: what is sent and what comes back, field for field. `tests/vectors/<dialect>/` has
//! the same scenarios for every dialect, a file each: a list of `{as, method, path, headers, body, status, answer, why}`.
//!
//! A text `$name` in an answer stands for a value nobody can know before (an id, a time): the first one is remembered, later
//! ones must equal it. In a request a text that is `$name` and no more becomes that value, a number too; within a longer text,
//! a path or a header it becomes the value's text. Fields that an answer has and its vector has not are faults. `as` names who
//! calls, see [`World::credential`]; absent: nobody, without a credential. `$app_key` is known from the start: the key of an
//! application. `why` is for who reads it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::Caller;

const DIALECTS: [&str; 5] = ["chats", "threads", "conversation", "relation", "m3o"];
/// What every dialect plays. One that has no place for a step plays what it can and says in `why` what that shows.
const SCENARIOS: [&str; 6] = ["history", "refusals", "retry", "send_group", "send_private", "unread"];
/// The fields of a step.
const FIELDS: [&str; 8] = ["as", "method", "path", "headers", "body", "status", "answer", "why"];

/// What is known so far, by name.
type Known = BTreeMap<String, Value>;

fn scenarios(dialect: &str) -> Vec<(String, Vec<Value>)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(dialect);
    let mut paths: Vec<PathBuf> = std::fs::read_dir(dir).expect("vectors").map(|e| e.expect("entry").path()).collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).expect("text");
        let steps = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (path.file_stem().and_then(|s| s.to_str()).expect("a name").to_owned(), steps)
    };
    paths.iter().filter(|path| path.extension().is_some_and(|e| e == "json")).map(read).collect()
}

/// Puts remembered values into a text of a request.
fn filled(text: &str, known: &Known) -> String {
    let mut text = text.to_owned();
    // Longer names first: one may begin another.
    let mut names: Vec<&String> = known.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        let value = known[name].as_str().map_or_else(|| known[name].to_string(), str::to_owned);
        text = text.replace(&format!("${name}"), &value);
    }
    assert!(!text.contains('$'), "{text}: a name that no answer gave");
    text
}

/// Puts remembered values into a body.
fn filled_json(body: &Value, known: &Known) -> Value {
    match body {
        Value::String(text) => match text.strip_prefix('$').and_then(|name| known.get(name)) {
            Some(value) => value.clone(),
            None => filled(text, known).into(),
        },
        Value::Array(items) => items.iter().map(|item| filled_json(item, known)).collect(),
        Value::Object(fields) => fields.iter().map(|(key, value)| (key.clone(), filled_json(value, known))).collect(),
        other => other.clone(),
    }
}

/// Compares an answer with its vector, remembers what the vector names, and lists what differs.
fn compare(at: &str, expected: &Value, got: &Value, known: &mut Known, faults: &mut Vec<String>) {
    match (expected, got) {
        (Value::String(name), Value::Null) if name.starts_with('$') => faults.push(format!("{at}: {name} is null")),
        (Value::String(name), got) if name.starts_with('$') => {
            let known = known.entry(name[1..].to_owned()).or_insert_with(|| got.clone());
            if known != got {
                faults.push(format!("{at}: {name} was {known}, is {got}"));
            }
        }
        (Value::Object(expected), Value::Object(got)) => {
            for key in expected.keys().chain(got.keys().filter(|key| !expected.contains_key(*key))) {
                match (expected.get(key), got.get(key)) {
                    (Some(e), Some(g)) => compare(&format!("{at}.{key}"), e, g, known, faults),
                    (Some(_), None) => faults.push(format!("{at}.{key} is missing")),
                    (None, _) => faults.push(format!("{at}.{key} is there")),
                }
            }
        }
        (Value::Array(expected), Value::Array(got)) if expected.len() == got.len() => {
            for (i, (e, g)) in expected.iter().zip(got).enumerate() {
                compare(&format!("{at}[{i}]"), e, g, known, faults);
            }
        }
        (expected, got) if expected == got => {}
        (expected, got) => faults.push(format!("{at}: expected {expected}, is {got}")),
    }
}

/// A server of a scenario's own and who calls it.
struct World {
    root: Caller,
    credentials: BTreeMap<&'static str, String>,
    _server: Server,
}

impl World {
    async fn new() -> Self {
        let server = Server::on_memory().await;
        let root = Caller::root(&server);
        let app = root.done("/admin/keys", json!({"name": "app", "scopes": ["send", "read"]})).await;
        let mut credentials = BTreeMap::from([
            ("root", root.credential().to_owned()),
            ("app", app["key"].as_str().expect("a key").to_owned()),
            ("impostor", "nobody-has-this".to_owned()),
        ]);
        for user in ["alice", "bob", "carol"] {
            credentials.insert(user, server.user(user).await);
        }
        Self { root, credentials, _server: server }
    }

    /// Of `alice`, `bob` and `carol` a token of one's own, of `root` a back end's key that may do all, of `app` one that may
    /// send and read, of `impostor` one that the server never saw.
    fn credential(&self, who: &str) -> &str {
        self.credentials.get(who).unwrap_or_else(|| panic!("nobody is called {who}"))
    }

    async fn play(&self, at: &str, dialect: &str, steps: &[Value]) -> Vec<String> {
        let (mut known, mut faults) =
            (Known::from([("app_key".to_owned(), self.credential("app").into())]), Vec::new());
        for (i, step) in steps.iter().enumerate() {
            let fields = step.as_object().unwrap_or_else(|| panic!("{at}[{i}] is no step"));
            let stray = fields.keys().find(|field| !FIELDS.contains(&field.as_str()));
            assert_eq!(stray, None, "{at}[{i}] has a field that says nothing");
            let method = step["method"].as_str().unwrap_or_else(|| panic!("{at}[{i}] has no method"));
            let path = filled(step["path"].as_str().unwrap_or_default(), &known);
            let body = fields.get("body").map(|body| filled_json(body, &known).to_string()).unwrap_or_default();
            let mut headers: Vec<(String, String)> = Vec::new();
            if let Some(who) = step["as"].as_str() {
                let credential = self.credential(who);
                headers.push(match dialect {
                    "chats" => ("token".to_owned(), credential.to_owned()),
                    _ => ("authorization".to_owned(), format!("Bearer {credential}")),
                });
            }
            for (name, value) in step["headers"].as_object().into_iter().flatten() {
                headers.push((name.clone(), filled(value.as_str().unwrap_or_default(), &known)));
            }
            let headers: Vec<(&str, &str)> =
                headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            let answer = self.root.raw(method, &path, &headers, body).await;
            let at = format!("{at}[{i}] {method} {path}");
            if step["status"] != answer.status.as_u16() {
                faults.push(format!("{at}: status {}, {}", answer.status, answer.json));
            }
            compare(&at, &step["answer"], &answer.json, &mut known, &mut faults);
        }
        faults
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exchange_is_as_its_vector_has_it() {
    let mut faults = Vec::new();
    for dialect in DIALECTS {
        for (scenario, steps) in scenarios(dialect) {
            faults.extend(World::new().await.play(&format!("{dialect}/{scenario}"), dialect, &steps).await);
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
}

#[test]
fn every_dialect_plays_the_same_scenarios() {
    for dialect in DIALECTS {
        let named: Vec<String> = scenarios(dialect)
            .into_iter()
            .map(|(name, steps)| {
                assert!(!steps.is_empty(), "{dialect}/{name} plays nothing");
                name
            })
            .collect();
        assert_eq!(named, SCENARIOS, "{dialect}");
    }
}

#[test]
fn the_comparison_sees_what_differs() {
    let check = |expected: Value, got: Value, faults: usize| {
        let (mut known, mut found) = (Known::new(), Vec::new());
        compare("", &expected, &got, &mut known, &mut found);
        assert_eq!(found.len(), faults, "{expected} {got}: {found:?}");
    };
    check(json!({"a": "$x", "b": "$x"}), json!({"a": 1, "b": 1}), 0);
    check(json!({"a": "$x", "b": "$x"}), json!({"a": 1, "b": 2}), 1);
    check(json!({"a": "$x"}), json!({"a": null}), 1);
    check(json!({"a": 1}), json!({"a": 1, "b": 2}), 1);
    check(json!({"a": 1, "b": 2}), json!({"a": 1}), 1);
    check(json!([1, 2]), json!([1]), 1);
}

#[test]
fn a_request_is_filled_with_what_is_known() {
    let known = Known::from([("m".to_owned(), json!(7)), ("m2".to_owned(), json!("x"))]);
    let got = filled_json(&json!({"a": "$m", "b": ["$m2", "$m-$m2"], "c": null}), &known);
    assert_eq!(got, json!({"a": 7, "b": ["x", "7-x"], "c": null}));
}
