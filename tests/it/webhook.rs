//! Webhooks: shapes, order, repeats, what a dead or slow endpoint costs, what an operator may do, and who is offline
//! (wukongim-http.md sections 1.1, 8.1, 10; section 15, 28, 29, 32, 35).

use std::collections::BTreeSet;
use std::io::Read as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chinwag::config::Config;
use chinwag::credentials::Credentials;
use chinwag::domain::channel::Standing;
use chinwag::domain::message::{Draft, Durability, MessageFlags};
use chinwag::domain::namespace::Namespace;
use chinwag::webhook::call;
use protocol::ids::{ChannelKey, DeviceFlag};
use protocol::native::Encoding;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Client, PATIENCE, Server, until};
use crate::hook_receiver::Receiver;
use crate::http::Caller;

const SECRET: &str = "a signing key of the tests";

/// Tells `receiver` at once of `events`, with short waits.
fn tells(receiver: &Receiver, events: &str) -> impl FnOnce(&mut Config) {
    let (url, events) = (receiver.url(), events.to_owned());
    move |config| {
        config.webhook.url = url;
        config.webhook.events = events;
        config.webhook.secret = SECRET.to_owned();
        config.webhook.push_interval_ms = 0;
        config.webhook.retry_max_ms = 100;
    }
}

fn ids(messages: &[Value]) -> Vec<u64> {
    messages.iter().map(|message| message["message_id"].as_u64().expect("an id")).collect()
}

fn payload_of(message: &Value) -> String {
    let bytes = STANDARD.decode(message["payload"].as_str().expect("a payload")).expect("base64");
    String::from_utf8(bytes).expect("text")
}

/// Connects with a token of this level: 0 slave, 1 master.
async fn connect(server: &Server, uid: &str, flag: u8, level: u8) -> Client {
    let token = format!("token-of-{uid}-{flag}");
    let hash = Credentials::open(&server.config.data_dir).expect("credentials").hash(&token);
    server.app.hub().set_token(server.uid(uid), DeviceFlag(flag), level, hash).await.expect("token is set");
    Client::connect(server, &token, Encoding::MessagePack, |connect| connect.device_flag = flag).await
}

/// Until an endpoint's position is behind everything.
async fn told_all(root: &Caller, name: &str, event: &str) {
    let begun = tokio::time::Instant::now();
    while stream(root, name, event).await["lag_messages"] != json!(0) {
        assert!(begun.elapsed() < PATIENCE, "in vain waited for {name} to be told of everything");
        tokio::task::yield_now().await;
    }
}

async fn stream(root: &Caller, name: &str, event: &str) -> Value {
    let answer = root.ok("GET", &format!("/admin/webhooks/{name}"), None).await;
    let streams = answer["streams"].as_array().expect("streams").clone();
    streams.into_iter().find(|stream| stream["event"] == event).expect("the event")
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_messages_are_told_in_the_shape_of_the_reference_and_signed() {
    let receiver = Receiver::start().await;
    let server = Server::on_memory_with(tells(&receiver, "msg.notify")).await;
    let root = Caller::root(&server);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"]})).await;
    let first = root.send("alice", "bob", 1, "one").await;
    root.done(
        "/message/send",
        json!({"header": {"no_persist": 1}, "from_uid": "alice", "channel_id": "bob", "channel_type": 1, "payload": "eA=="}),
    )
    .await;
    let second = root.send("bob", "g", 2, "two").await;
    until("both are told", || receiver.notified().len() == 2).await;
    let told = receiver.notified();
    let timestamp = told[0]["timestamp"].as_u64().expect("seconds");
    assert!(timestamp.abs_diff(chinwag::clock::now_ms() / 1_000) < 60);
    assert_eq!(
        told[0],
        json!({
            "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0},
            "setting": 0,
            "message_id": first["message_id"],
            "message_idstr": first["message_id"].to_string(),
            "client_msg_no": first["client_msg_no"],
            "message_seq": 1,
            "from_uid": "alice",
            // The receiver, not the pair (section 15, 35).
            "channel_id": "bob",
            "channel_type": 1,
            "expire": 0,
            "timestamp": timestamp,
            "payload": "b25l",
        })
    );
    assert_eq!((&told[1]["channel_id"], &told[1]["message_id"]), (&json!("g"), &second["message_id"]));
    for call in receiver.calls("") {
        assert_eq!(call.query, "event=msg.notify");
        assert_eq!(call.headers["content-type"], "application/json");
        let at = call.headers[call::TIMESTAMP_HEADER].to_str().expect("text").parse().expect("seconds");
        let expected = format!("v1={}", call::signature(SECRET.as_bytes(), at, "msg.notify", &call.raw));
        assert_eq!(call.headers[call::SIGNATURE_HEADER], expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_endpoint_refuses_or_misses_is_told_again_in_order() {
    let mut receiver = Receiver::start().await;
    let change = tells(&receiver, "msg.notify");
    let server = Server::on_disk_with(|config| {
        change(config);
        config.webhook.batch_max = 7;
        config.webhook.timeout_ms = 300;
    })
    .await;
    let root = Caller::root(&server);
    // 500, a redirect that must not be followed, 201: none of them is success.
    let mut answers = vec![500, 302, 201].into_iter();
    receiver.script(move |_, _| answers.next().unwrap_or(200));
    let mut sent = Vec::new();
    for n in 0..10 {
        sent.push(root.send("alice", "bob", 1, &n.to_string()).await["message_id"].as_u64().expect("id"));
    }
    until("refused calls are made again", || ids(&receiver.notified()) == sent).await;
    let failed = receiver.calls("msg.notify").iter().filter(|call| call.status != 200).count();
    assert_eq!(failed, 3);
    // No answer in time.
    receiver.hold(true);
    for n in 10..20 {
        sent.push(root.send("alice", "bob", 1, &n.to_string()).await["message_id"].as_u64().expect("id"));
    }
    receiver.waiting(2).await;
    receiver.hold(false);
    until("calls that timed out are made again", || {
        let told: BTreeSet<u64> = ids(&receiver.notified()).into_iter().collect();
        told.len() == sent.len()
    })
    .await;
    // Nobody there.
    receiver.stop();
    for n in 20..40 {
        sent.push(root.send("alice", "bob", 1, &n.to_string()).await["message_id"].as_u64().expect("id"));
    }
    let failing = async || stream(&root, "config", "msg.notify").await["failing"].clone();
    while failing().await.is_null() {
        tokio::task::yield_now().await;
    }
    receiver.listen().await;
    until("what came while nobody was there is told", || {
        let told: BTreeSet<u64> = ids(&receiver.notified()).into_iter().collect();
        told.len() == sent.len()
    })
    .await;
    // At least once, and the first time of each in order.
    let mut told = Vec::new();
    for id in ids(&receiver.notified()) {
        if !told.contains(&id) {
            told.push(id);
        }
    }
    assert_eq!(told, sent);
    let calls = receiver.calls("msg.notify");
    assert!(calls.iter().all(|call| call.json.as_array().is_some_and(|messages| messages.len() <= 7)));
    while !failing().await.is_null() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_server_goes_on_where_it_was() {
    let receiver = Receiver::start().await;
    let server = Server::on_disk_with(tells(&receiver, "msg.notify,msg.offline")).await;
    let mut sent = Vec::new();
    for n in 0..5 {
        let sends = Caller::root(&server).send("alice", "bob", 1, &n.to_string()).await;
        sent.push(sends["message_id"].as_u64().expect("id"));
    }
    until("told", || receiver.notified().len() == 5 && receiver.calls("msg.offline").len() == 5).await;
    let server = server.restart().await;
    receiver.hold(true);
    let sends = Caller::root(&server).send("alice", "bob", 1, "last").await;
    sent.push(sends["message_id"].as_u64().expect("id"));
    receiver.waiting(2).await;
    // The calls in flight get their answers, and the positions are written behind them.
    let draining = tokio::spawn(server.restart());
    receiver.hold(false);
    let server = draining.await.expect("restarts");
    let root = Caller::root(&server);
    for event in ["msg.notify", "msg.offline"] {
        let stream = stream(&root, "config", event).await;
        assert_eq!((&stream["lag_messages"], &stream["attempts"]), (&json!(0), &json!(0)), "{stream}");
    }
    assert_eq!(ids(&receiver.notified()), sent, "nothing is missing, and after a drain nothing comes twice");
    let offline: Vec<Value> = receiver.calls("msg.offline").into_iter().map(|call| call.json).collect();
    assert_eq!(ids(&offline), sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_does_not_answer_slows_no_message() {
    let receiver = Receiver::start().await;
    receiver.hold(true);
    let change = tells(&receiver, "msg.notify,msg.offline,user.onlinestatus");
    let server = Server::on_disk_with(|config| {
        change(config);
        config.webhook.timeout_ms = 600_000;
    })
    .await;
    let (mut alice, mut bob) = (server.connect("alice").await, server.connect("bob").await);
    alice.say("bob", 1, b"0").await;
    receiver.waiting(3).await;
    // All three are stuck in their calls; whatever comes now is stored, acked and delivered all the same.
    for n in 1..300 {
        alice.say("bob", 1, n.to_string().as_bytes()).await;
    }
    let mut seqs = Vec::new();
    while seqs.len() < 300 {
        seqs.extend(bob.delivered().await.into_iter().map(|(_, seq, _)| seq));
    }
    assert_eq!(seqs, (1..=300).collect::<Vec<u64>>());
    assert!(receiver.calls("").is_empty(), "no call was answered meanwhile");
    let root = Caller::root(&server);
    let lagging = stream(&root, "config", "msg.notify").await;
    assert_eq!(lagging["lag_messages"], 300, "{lagging}");
    receiver.hold(false);
    until("all is told", || receiver.notified().len() == 300 && receiver.calls("msg.offline").len() == 300).await;
    assert!(receiver.calls("msg.notify").len() < 10, "what waited is told in full calls");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_moves_and_stops_an_endpoint() {
    let receiver = Receiver::start().await;
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    for n in 0..5 {
        root.send("alice", "bob", 1, &n.to_string()).await;
    }
    let body = json!({
        "name": "crm", "url": format!("{}?tenant=7", receiver.url()), "events": ["msg.notify"], "from_version": 0,
        "push_interval_ms": 0,
    });
    let made = root.ok("POST", "/admin/webhooks", Some(body.clone())).await;
    let secret = made["secret"].as_str().expect("a key").to_owned();
    assert_eq!((&made["signed"], &made["url"]), (&json!(true), &json!(format!("{}?…", receiver.url()))));
    until("all that the log holds is told", || receiver.notified().len() == 5).await;
    let call = receiver.calls("")[0].clone();
    assert_eq!(call.query, "tenant=7&event=msg.notify");
    let at = call.headers[call::TIMESTAMP_HEADER].to_str().expect("text").parse().expect("seconds");
    let expected = call::signature(secret.as_bytes(), at, "msg.notify", &call.raw);
    assert_eq!(call.headers[call::SIGNATURE_HEADER], format!("v1={expected}"));
    let first = ids(&receiver.notified());
    // The receiver has answered; the endpoint has still to hear it.
    told_all(&root, "crm", "msg.notify").await;

    root.done("/admin/webhooks/crm/pause", json!({})).await;
    let sixth = root.send("alice", "bob", 1, "5").await["message_id"].as_u64().expect("id");
    let server = server.restart().await;
    let root = Caller::root(&server);
    let paused = stream(&root, "crm", "msg.notify").await;
    assert_eq!((&paused["paused"], &paused["lag_messages"]), (&json!(true), &json!(1)), "{paused}");
    assert!(paused["lag_ms"].is_u64() && paused["position"] == first[4] && paused["head"].as_u64() >= Some(sixth));
    root.done("/admin/webhooks/crm/rewind", json!({"version": first[1]})).await;
    root.done("/admin/webhooks/crm/skip", json!({"event": "msg.notify", "messages": 1})).await;
    root.done("/admin/webhooks/crm/resume", json!({"event": "msg.notify"})).await;
    let all: Vec<u64> = first.iter().chain(&first[3..]).chain([&sixth]).copied().collect();
    until("from where it was moved to", || ids(&receiver.notified()) == all).await;

    told_all(&root, "crm", "msg.notify").await;
    let metrics = root.get("/metrics").await;
    let metrics = metrics.json.as_str().expect("text");
    for line in [
        "chinwag_webhook_lag_messages{endpoint=\"crm\",event=\"msg.notify\"} 0",
        "chinwag_webhook_calls_failed_total{endpoint=\"crm\",event=\"msg.notify\"} 0",
    ] {
        assert!(metrics.lines().any(|l| l == line), "no {line} in\n{metrics}");
    }
    for (path, body, field) in [
        ("/admin/webhooks", body, "name"),
        ("/admin/webhooks", json!({"name": "b", "url": "file:///x", "events": ["msg.notify"]}), "url"),
        ("/admin/webhooks", json!({"name": "b", "url": receiver.url(), "events": ["msg.sent"]}), "events"),
        ("/admin/webhooks/crm/skip", json!({"messages": 0}), "messages"),
        ("/admin/webhooks/crm/pause", json!({"event": "user.onlinestatus"}), "event"),
    ] {
        let refused = root.post(path, body).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!(field)), "{path}");
    }
    let user = Caller::user(&server, "alice").await;
    assert_eq!(user.get("/admin/webhooks").await.status, StatusCode::FORBIDDEN);
    root.ok("DELETE", "/admin/webhooks/crm", None).await;
    assert_eq!(root.get("/admin/webhooks/crm").await.status, StatusCode::NOT_FOUND);
    let server = server.restart().await;
    assert_eq!(Caller::root(&server).get("/admin/webhooks").await.json["webhooks"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_nobody_takes_is_found_alone_and_parked_only_when_that_is_wanted() {
    for park in [true, false] {
        let receiver = Receiver::start().await;
        receiver.script(|_, json| {
            let messages = json.as_array().cloned().unwrap_or_else(|| vec![json.clone()]);
            if messages.iter().any(|message| payload_of(message) == "poison") { 422 } else { 200 }
        });
        let change = tells(&receiver, "msg.notify,msg.offline");
        let server = Server::on_disk_with(|config| {
            change(config);
            config.webhook.dead_after_attempts = if park { 4 } else { 0 };
            config.webhook.retry_max_ms = 100;
        })
        .await;
        let root = Caller::root(&server);
        root.done("/admin/webhooks/config/pause", json!({})).await;
        for n in 0..20 {
            root.send("alice", "bob", 1, if n == 11 { "poison" } else { "sound" }).await;
        }
        // Messages of another channel do not wait for the one that has trouble.
        root.send("alice", "carol", 1, "sound").await;
        root.done("/admin/webhooks/config/resume", json!({})).await;
        let told = |event: &str| receiver.calls(event).iter().filter(|call| call.status == 200).count();
        if park {
            until("everything else is told", || receiver.notified().len() == 20 && told("msg.offline") == 20).await;
            let mut dead = json!([]);
            while dead.as_array().map(Vec::len) < Some(2) {
                dead = root.get("/admin/webhooks/config/dead").await.json["dead"].clone();
            }
            assert_eq!((&dead[0]["event"], &dead[1]["event"]), (&json!("msg.notify"), &json!("msg.offline")));
            for letter in dead.as_array().expect("two") {
                assert_eq!((&letter["message_seq"], &letter["channel_id"]), (&json!(12), &json!("bob")));
                assert!(letter["attempts"].as_u64() >= Some(4));
                assert!(letter["error"].as_str().expect("text").contains("422"));
            }
            root.ok("DELETE", "/admin/webhooks/config/dead", None).await;
            assert_eq!(root.get("/admin/webhooks/config/dead").await.json["dead"], json!([]));
        } else {
            until("what lies before it, and other channels", || {
                receiver.notified().len() == 11 && told("msg.offline") == 12
            })
            .await;
            let alone = |call: &crate::hook_receiver::Call| call.json.as_array().map(Vec::len) == Some(1);
            let refused = move |calls: &[crate::hook_receiver::Call]| {
                calls.iter().filter(|call| call.status == 422 && alone(call)).count() > 6
            };
            receiver.until("it is tried again and again, alone", "msg.notify", refused).await;
            assert_eq!(root.get("/admin/webhooks/config/dead").await.json["dead"], json!([]));
            root.done("/admin/webhooks/config/skip", json!({"messages": 1})).await;
            until("an operator skips it", || receiver.notified().len() >= 20 && told("msg.offline") >= 20).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_master_device_online_is_offline() {
    let receiver = Receiver::start().await;
    let change = tells(&receiver, "msg.offline");
    let server = Server::on_memory_with(|config| {
        change(config);
        config.webhook.uids_per_call_max = 3;
        config.webhook.compress_above = 2;
    })
    .await;
    let root = Caller::root(&server);
    let members = ["sender", "master", "slave", "both", "away", "____system"];
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": members})).await;
    let _sender = connect(&server, "sender", 0, 0).await;
    let _master = connect(&server, "master", 0, 1).await;
    let _slave = connect(&server, "slave", 1, 0).await;
    let both = (connect(&server, "both", 1, 0).await, connect(&server, "both", 0, 1).await);
    root.send("sender", "g", 2, "one").await;
    let calls = receiver.until("told", "msg.offline", |calls| calls.len() == 1).await;
    assert_eq!(calls[0].query, "event=msg.offline");
    let mut uids: Vec<String> = serde_json::from_value(calls[0].json["to_uids"].clone()).expect("uids");
    uids.sort();
    assert_eq!(uids, ["away", "slave"]);
    assert_eq!((&calls[0].json["channel_id"], &calls[0].json["compress"]), (&json!("g"), &Value::Null));
    assert_eq!(calls[0].json["payload"], "b25l");

    // Two calls for four users, three of them compressed.
    drop(both);
    until("both is away", || !server.app.hub().presence_of(server.uid("both")).online).await;
    root.done("/channel/subscriber_add", json!({"channel_id": "g", "subscribers": ["more"]})).await;
    root.send("sender", "g", 2, "two").await;
    let calls = receiver.until("told", "msg.offline", |calls| calls.len() == 3).await;
    let mut uids = Vec::new();
    for call in &calls[1..] {
        let mut listed: Vec<String> = serde_json::from_value(call.json["to_uids"].clone()).expect("uids");
        if call.json["compress"] == "gzip" {
            assert!(listed.is_empty());
            let packed = STANDARD.decode(call.json["compress_to_uids"].as_str().expect("text")).expect("base64");
            let mut text = String::new();
            flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).expect("a complete gzip");
            listed = serde_json::from_str(&text).expect("an array");
            assert_eq!(listed.len(), 3);
        }
        uids.extend(listed);
    }
    uids.sort();
    assert_eq!(uids, ["away", "both", "more", "slave"]);

    // Nobody missed it, it is not stored, it was taken back: nothing is told.
    root.send("away", "master", 1, "seen").await;
    root.done(
        "/message/send",
        json!({"header": {"no_persist": 1}, "from_uid": "master", "channel_id": "away", "channel_type": 1, "payload": "eA=="}),
    )
    .await;
    root.send("master", "master", 1, "a note to oneself").await;
    root.send("slave", "away", 1, "last").await;
    let calls = receiver.until("told", "msg.offline", |calls| calls.len() == 4).await;
    assert_eq!((payload_of(&calls[3].json), &calls[3].json["to_uids"]), ("last".to_owned(), &json!(["away"])));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_come_and_go_are_lines_with_their_counts() {
    let receiver = Receiver::start().await;
    let server = Server::on_memory_with(tells(&receiver, "user.onlinestatus")).await;
    let lines = || -> Vec<String> {
        let calls = receiver.calls("user.onlinestatus");
        calls.iter().flat_map(|call| serde_json::from_value::<Vec<String>>(call.json.clone()).expect("lines")).collect()
    };
    let first = connect(&server, "u-1", 0, 1).await;
    until("it came", || lines().len() == 1).await;
    let second = connect(&server, "u-1", 1, 0).await;
    until("another came", || lines().len() == 2).await;
    let session = |client: &Client| client.connected.as_ref().expect("connected").session_id;
    let (one, two) = (session(&first), session(&second));
    drop(first);
    until("the first went", || lines().len() == 3).await;
    drop(second);
    until("the other went", || lines().len() == 4).await;
    let expected = [
        format!("u-1-0-1-{one}-1-1"),
        format!("u-1-1-1-{two}-1-2"),
        format!("u-1-0-0-{one}-0-1"),
        format!("u-1-1-0-{two}-0-0"),
    ];
    assert_eq!(lines(), expected);
    // A drain tells of the sessions it closes.
    let third = connect(&server, "u-2", 0, 1).await;
    until("it came", || lines().len() == 5).await;
    let last = format!("u-2-0-0-{}-0-0", session(&third));
    server.app.drain().await;
    assert_eq!(lines().last(), Some(&last));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_hears_of_its_own_namespace_only() {
    let receiver = Receiver::start().await;
    let change = tells(&receiver, "msg.notify,msg.offline");
    let server = Server::on_memory_with(|config| {
        change(config);
        config.webhook.namespace = "acme".into();
    })
    .await;
    Caller::root(&server).send("alice", "bob", 1, "of the default one").await;
    let acme = Namespace::new("acme").expect("a namespace");
    let (alice, bob) = (acme.uid("alice").expect("uid"), acme.uid("bob").expect("uid"));
    let draft = Draft {
        channel: ChannelKey::person(&alice, &bob),
        from_uid: alice,
        client_msg_no: None,
        flags: MessageFlags::default(),
        setting: 0,
        topic: String::new(),
        expire_s: 0,
        payload: "of the tenant".into(),
        extras: None,
        durability: Durability::Disk,
    };
    server.app.hub().send(draft, Standing::Trusted).await.expect("sent");
    until("told", || receiver.notified().len() == 1 && receiver.calls("msg.offline").len() == 1).await;
    let told = receiver.notified();
    assert_eq!((payload_of(&told[0]).as_str(), &told[0]["from_uid"]), ("of the tenant", &json!("alice")));
    assert_eq!(receiver.calls("msg.offline")[0].json["to_uids"], json!(["bob"]));
}
