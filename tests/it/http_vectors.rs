//! Golden exchanges of the HTTP dialects: what is sent and what comes back, field for field. `tests/vectors/<dialect>/` has
//! a file per scenario, the same names in every dialect: a list of `{as, method, path, headers, body, status, answer}`.
//!
//! A text `$name` in an answer stands for a value nobody can know before (an id, a time): the first one is remembered, later
//! ones must equal it, and `$name` in a request is replaced by it. Fields that an answer has and its vector has not are
//! faults; `$root_key` is known from the beginning. `as` names a user with a token of one's own; `root` is a back end's key; absent: no credential.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::Server;
use crate::http::Caller;

/// Every document.
const DIALECTS: [&str; 5] = ["chats", "conversation", "m3o", "relation", "threads"];
/// Every story, told in the words of each. Where a document has no word for it (m3o knows no unread), another dialect tells
/// what became of it.
const SCENARIOS: [&str; 6] = ["history", "refusals", "retry", "send_group", "send_private", "unread"];

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

/// Puts remembered values into a request.
fn filled(text: &str, known: &BTreeMap<String, Value>) -> String {
    let mut text = text.to_owned();
    // Longer names first: one may begin another.
    let mut names: Vec<&String> = known.keys().collect();
    names.sort_by_key(|name| std::cmp::Reverse(name.len()));
    for name in names {
        let value = match &known[name] {
            Value::String(value) => value.clone(),
            other => other.to_string(),
        };
        text = text.replace(&format!("${name}"), &value);
    }
    text
}

/// Compares an answer with its vector, remembers what the vector names, and lists what differs.
fn compare(at: &str, expected: &Value, got: &Value, known: &mut BTreeMap<String, Value>, faults: &mut Vec<String>) {
    match (expected, got) {
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

async fn run(dialect: &str, scenario: &str, steps: &[Value]) -> Vec<String> {
    let server = Server::on_memory().await;
    let mut callers = BTreeMap::from([("root", Caller::root(&server))]);
    for user in ["alice", "bob", "carol"] {
        callers.insert(user, Caller::user(&server, user).await);
    }
    let root_key = Value::from(callers["root"].credential());
    let (mut known, mut faults) = (BTreeMap::from([("root_key".to_owned(), root_key)]), Vec::new());
    for (i, step) in steps.iter().enumerate() {
        let text = |field: &str| step[field].as_str().unwrap_or_default().to_owned();
        let (who, method, path) = (text("as"), text("method"), filled(&text("path"), &known));
        let body = match &step["body"] {
            Value::Null => String::new(),
            body => filled(&body.to_string(), &known),
        };
        let caller = callers.get(who.as_str());
        let credential = caller.map(|c| c.credential().to_owned()).unwrap_or_default();
        let bearer = format!("Bearer {credential}");
        let mut headers: Vec<(&str, &str)> = Vec::new();
        if caller.is_some() {
            headers.push(if dialect == "chats" { ("token", &credential) } else { ("authorization", &bearer) });
        }
        let more = step["headers"].as_object().cloned().unwrap_or_default();
        let filled_in = |(name, value): (String, Value)| (name, filled(value.as_str().unwrap_or_default(), &known));
        let more: Vec<(String, String)> = more.into_iter().map(filled_in).collect();
        headers.extend(more.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let answer = callers["root"].raw(&method, &path, &headers, body).await;
        let at = format!("{dialect}/{scenario}[{i}] {method} {path}");
        if step["status"] != answer.status.as_u16() {
            faults.push(format!("{at}: status {}, {}", answer.status, answer.json));
        }
        compare(&at, &step["answer"], &answer.json, &mut known, &mut faults);
    }
    faults
}

#[tokio::test(flavor = "multi_thread")]
async fn every_exchange_is_as_its_vector_has_it() {
    let mut faults = Vec::new();
    let mut names: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for dialect in DIALECTS {
        for (scenario, steps) in scenarios(dialect) {
            faults.extend(run(dialect, &scenario, &steps).await);
            names.entry(dialect).or_default().push(scenario);
        }
    }
    assert!(faults.is_empty(), "\n{}\n", faults.join("\n"));
    for dialect in DIALECTS {
        assert_eq!(names[dialect], SCENARIOS, "the same scenarios everywhere: {dialect}");
    }
}

#[test]
fn the_comparison_sees_what_differs() {
    let check = |expected: Value, got: Value, faults: usize| {
        let (mut known, mut found) = (BTreeMap::new(), Vec::new());
        compare("", &expected, &got, &mut known, &mut found);
        assert_eq!(found.len(), faults, "{expected} {got}: {found:?}");
    };
    check(serde_json::json!({"a": "$x", "b": "$x"}), serde_json::json!({"a": 1, "b": 1}), 0);
    check(serde_json::json!({"a": "$x", "b": "$x"}), serde_json::json!({"a": 1, "b": 2}), 1);
    check(serde_json::json!({"a": 1}), serde_json::json!({"a": 1, "b": 2}), 1);
    check(serde_json::json!({"a": 1, "b": 2}), serde_json::json!({"a": 1}), 1);
    check(serde_json::json!([1, 2]), serde_json::json!([1]), 1);
    assert!(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/chats").is_dir());
}
