//! Endpoints of webhooks that are changed while they work: another address, other events and limits, another key; the position
//! stays, and no receiver is left without a signature it can check.

use chinwag::webhook::call;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, until};
use crate::hook_receiver::{Call, Receiver};
use crate::http::Caller;

/// Makes the endpoint `crm`, told of everything the log holds; returns its key.
async fn make(root: &Caller, receiver: &Receiver, events: &[&str]) -> String {
    let body = json!({
        "name": "crm", "url": receiver.url(), "events": events, "from_version": 0, "push_interval_ms": 0,
    });
    let made = root.ok("POST", "/admin/webhooks", Some(body)).await;
    made["secret"].as_str().expect("a key").to_owned()
}

async fn sends(root: &Caller, count: usize) -> Vec<u64> {
    let mut sent = Vec::new();
    for n in 0..count {
        sent.push(root.send("alice", "bob", 1, &n.to_string()).await["message_id"].as_u64().expect("an id"));
    }
    sent
}

fn told(receiver: &Receiver) -> Vec<u64> {
    receiver.notified().iter().map(|message| message["message_id"].as_u64().expect("an id")).collect()
}

/// Which of these keys have signed a call, in the order of the header; a signature by none of them fails the test.
fn signers<'a>(call: &Call, keys: &[&'a str]) -> Vec<&'a str> {
    let at = call.headers[call::TIMESTAMP_HEADER].to_str().expect("text").parse().expect("seconds");
    let header = call.headers[call::SIGNATURE_HEADER].to_str().expect("text");
    let by = |signature: &str| {
        let made =
            |key: &&&str| format!("v1={}", call::signature(key.as_bytes(), at, &call.event, &call.raw)) == signature;
        *keys.iter().find(made).expect("a key we know")
    };
    header.split(',').map(by).collect()
}

async fn shown(root: &Caller) -> Value {
    root.ok("GET", "/admin/webhooks/crm", None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_moves_goes_on_where_it_was_told() {
    let (mut old, new) = (Receiver::start().await, Receiver::start().await);
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    let mut sent = sends(&root, 3).await;
    make(&root, &old, &["msg.notify"]).await;
    until("told", || told(&old) == sent).await;
    while shown(&root).await["streams"][0]["lag_messages"] != 0 {
        tokio::task::yield_now().await;
    }
    old.stop();
    let kept = sends(&root, 3).await;
    while shown(&root).await["streams"][0]["failing"].is_null() {
        tokio::task::yield_now().await;
    }
    // Waits between attempts are long by now or soon; what is changed is tried at once.
    let changed = root
        .ok("PATCH", "/admin/webhooks/crm", Some(json!({"url": format!("{}?k=1", new.url()), "batch_max": 2})))
        .await;
    assert_eq!((&changed["url"], &changed["batch_max"]), (&json!(format!("{}?…", new.url())), &json!(2)));
    assert_eq!((&changed["push_interval_ms"], &changed["secret"]), (&json!(0), &Value::Null));
    until("the rest is told where it is now", || told(&new) == kept).await;
    assert_eq!(new.calls("")[0].query, "k=1&event=msg.notify");
    assert!(new.calls("").iter().all(|call| call.json.as_array().is_some_and(|messages| messages.len() <= 2)));
    assert_eq!(told(&old), sent);

    // Another event begins with what comes, or where it is asked to; one that is gone is told no more.
    sent.extend(kept);
    let body = json!({"events": ["msg.offline"], "from_version": sent[3], "batch_max": null});
    let changed = root.ok("PATCH", "/admin/webhooks/crm", Some(body)).await;
    assert_eq!((&changed["events"], &changed["batch_max"]), (&json!(["msg.offline"]), &Value::Null));
    let offline = || -> Vec<u64> {
        new.calls("msg.offline").iter().map(|call| call.json["message_id"].as_u64().expect("an id")).collect()
    };
    until("the events behind that version", || offline() == sent[4..]).await;
    root.ok("PATCH", "/admin/webhooks/crm", Some(json!({"events": ["msg.notify", "msg.offline"]}))).await;
    let last = sends(&root, 1).await;
    until("what comes from now on", || told(&new).len() == 4 && offline().len() == 3).await;
    assert_eq!(told(&new)[3..], last);

    // What was changed is so after a restart.
    let server = server.restart().await;
    let root = Caller::root(&server);
    assert_eq!(shown(&root).await["events"], json!(["msg.notify", "msg.offline"]));
    sends(&root, 1).await;
    until("told after the restart", || told(&new).len() == 5 && offline().len() == 4).await;

    for (method, path, body, field) in [
        ("PATCH", "/admin/webhooks/crm", json!({"url": "ftp://b"}), "url"),
        ("PATCH", "/admin/webhooks/crm", json!({"url": shown(&root).await["url"]}), "url"),
        ("PATCH", "/admin/webhooks/crm", json!({"events": []}), "events"),
        ("PATCH", "/admin/webhooks/crm", json!({"batch_max": 0}), "batch_max"),
        ("POST", "/admin/webhooks/crm/rotate", json!({"secret": "short"}), "secret"),
        ("POST", "/admin/webhooks/crm/rotate", json!({"overlap_ms": 1u64 << 40}), "overlap_ms"),
    ] {
        let refused = root.call(method, path, Some(body)).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!(field)), "{path}");
    }
    assert_eq!(root.call("PATCH", "/admin/webhooks/none", Some(json!({}))).await.status, StatusCode::NOT_FOUND);
    assert_eq!(shown(&root).await["url"], json!(format!("{}?…", new.url())), "what was refused changed nothing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_replaced_without_a_call_that_a_receiver_cannot_check() {
    let receiver = Receiver::start().await;
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    let first = make(&root, &receiver, &["msg.notify"]).await;
    // The keys that have signed the call of the next message.
    let signed = async |root: &Caller, keys: &[&str]| -> Vec<String> {
        let before = receiver.calls("").len();
        sends(root, 1).await;
        let calls = receiver.until("told", "msg.notify", |calls| calls.len() > before).await;
        signers(&calls[before], keys).into_iter().map(str::to_owned).collect()
    };
    assert_eq!(signed(&root, &[&first]).await, [first.as_str()]);
    let begun = chinwag::clock::now_ms();
    let rotated = root.done("/admin/webhooks/crm/rotate", json!({})).await;
    let second = rotated["secret"].as_str().expect("a key").to_owned();
    let until_ms = rotated["old_keys"][0]["until_ms"].as_u64().expect("a time");
    assert!((begun + 86_400_000..begun + 86_500_000).contains(&until_ms), "a day, {until_ms}");
    let both = [second.as_str(), first.as_str()];
    assert_eq!(signed(&root, &both).await, both);
    // Asked again for a key it has, nothing changes; over a restart neither.
    let again = root.done("/admin/webhooks/crm/rotate", json!({"secret": second, "overlap_ms": 0})).await;
    assert_eq!(again["old_keys"], rotated["old_keys"]);
    let server = server.restart().await;
    let root = Caller::root(&server);
    assert_eq!(signed(&root, &both).await, both);
    assert_eq!(shown(&root).await["secret"], Value::Null, "shown once");

    let retired = root.done("/admin/webhooks/crm/retire", json!({})).await;
    assert_eq!(retired["old_keys"], Value::Null);
    assert_eq!(signed(&root, &both).await, [second.as_str()]);
    // A key others know is gone at once, on disk too.
    let third = root.done("/admin/webhooks/crm/rotate", json!({"overlap_ms": 0})).await["secret"].clone();
    let third = third.as_str().expect("a key");
    assert_eq!(signed(&root, &[&first, &second, third]).await, [third]);
    let file = std::fs::read_to_string(server.config.data_dir.join("webhooks/endpoints.json")).expect("there");
    assert!(file.contains(third) && !file.contains(&second) && !file.contains(&first));

    for _ in 0..3 {
        root.done("/admin/webhooks/crm/rotate", json!({})).await;
    }
    let refused = root.post("/admin/webhooks/crm/rotate", json!({})).await;
    assert!(refused.status.is_client_error(), "{}", refused.status);
    root.done("/admin/webhooks/crm/retire", json!({})).await;
    root.done("/admin/webhooks/crm/rotate", json!({})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_configurations_endpoint_is_changed_in_the_configuration() {
    let receiver = Receiver::start().await;
    let dir = tempfile::tempdir().expect("directory");
    let (new, old) = ("the new key of the file", "the key that was before it");
    let file = dir.path().join("keys");
    std::fs::write(&file, format!("{new}\n{old}\n")).expect("written");
    let (url, secret_file) = (receiver.url(), file.clone());
    let server = Server::on_memory_with(|config| {
        (config.webhook.url, config.webhook.secret_file) = (url, secret_file);
        config.webhook.events = "msg.notify".into();
    })
    .await;
    let root = Caller::root(&server);
    sends(&root, 1).await;
    let calls = receiver.until("told", "msg.notify", |calls| calls.len() == 1).await;
    assert_eq!(signers(&calls[0], &[new, old]), [new, old]);
    assert_eq!(root.ok("GET", "/admin/webhooks/config", None).await["old_keys"], json!([{}]));
    for (method, path) in [
        ("PATCH", "/admin/webhooks/config"),
        ("POST", "/admin/webhooks/config/rotate"),
        ("POST", "/admin/webhooks/config/retire"),
    ] {
        let refused = root.call(method, path, Some(json!({}))).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!("name")), "{path}");
    }
}
