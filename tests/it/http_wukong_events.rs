//! Events of messages over WuKongIM's HTTP API: what its own tests of streams ask, in the same order, and beyond: who may,
//! repeats, restarts, messages that are over, private lanes, pages, and requests that are wrong.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::{Answer, Caller};

/// Sends a message that is to be streamed; the answer.
pub async fn base(root: &Caller, from: &str, channel_id: &str, channel_type: u8, name: &str) -> Value {
    let body = json!({
        "header": {"no_persist": 0, "red_dot": 1, "sync_once": 0}, "client_msg_no": name, "is_stream": 1,
        "from_uid": from, "channel_id": channel_id, "channel_type": channel_type, "payload": "aGVsbG8=",
    });
    root.done("/message/send", body).await["data"].clone()
}

/// An event of `name`, sent by u1 to u2, with what `more` says.
fn event(name: &str, id: &str, event_type: &str, more: Value) -> Value {
    let mut body = json!({
        "channel_id": "u2", "channel_type": 1, "from_uid": "u1", "client_msg_no": name, "event_id": id,
        "event_type": event_type,
    });
    body.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    body
}

fn delta(name: &str, id: &str, text: &str) -> Value {
    event(name, id, "stream.delta", json!({"payload": {"kind": "text", "delta": text}}))
}

async fn taken(caller: &Caller, body: Value) -> Value {
    let answer = caller.done("/message/event", body).await;
    assert_eq!(answer["status"], 200);
    answer["data"].clone()
}

fn refused(answer: &Answer) -> (u16, &str, &str) {
    let text = |field: &str| answer.json[field].as_str().unwrap_or_default();
    (answer.status.as_u16(), text("code"), text("field"))
}

/// The message of a name as `login_uid` syncs it.
async fn synced(caller: &Caller, login_uid: &str, peer: &str, name: &str, more: Value) -> Value {
    let mut body = json!({
        "login_uid": login_uid, "channel_id": peer, "channel_type": 1, "start_message_seq": 0, "end_message_seq": 0,
        "limit": 20, "pull_mode": 0, "stream_v2": 1, "include_event_meta": 1,
    });
    body.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    let page = caller.done("/channel/messagesync", body).await;
    let messages = page["messages"].as_array().expect("messages");
    messages.iter().find(|message| message["client_msg_no"] == name).expect("the message").clone()
}

async fn events(caller: &Caller, name: &str, more: Value) -> Value {
    let mut body = json!({"channel_id": "u2", "channel_type": 1, "from_uid": "u1", "client_msg_no": name});
    body.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
    caller.done("/message/eventsync", body).await["data"].clone()
}

fn text(text: &str) -> Value {
    json!({"kind": "text", "text": text})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_synced_as_its_clients_expect() {
    for server in [Server::on_memory().await, Server::on_disk().await] {
        let root = Caller::root(&server);
        let sent = base(&root, "u1", "u2", 1, "m1").await;
        assert!(sent["message_id"].as_u64().is_some_and(|id| id > 0), "{sent}");
        assert!(synced(&root, "u1", "u2", "m1", json!({})).await.get("event_meta").is_none(), "nothing happened yet");
        // Deltas are not stored, and answered without message_id and message_seq.
        let answer = taken(&root, delta("m1", "e1", "你好，")).await;
        let expected = json!({
            "client_msg_no": "m1", "event_key": "main", "event_id": "e1", "msg_event_seq": 0, "stream_status": "open",
            "channel_id": "u2", "channel_type": 1, "from_uid": "u1",
        });
        assert_eq!(answer, expected);
        taken(&root, delta("m1", "e2", "事件流")).await;
        // What is open is shown, to both.
        for (login_uid, peer) in [("u1", "u2"), ("u2", "u1")] {
            let shown = synced(&root, login_uid, peer, "m1", json!({})).await;
            assert_eq!(shown["setting"], 2);
            let lane = json!({"event_key": "main", "status": "open", "snapshot": text("你好，事件流")});
            let meta = json!({
                "has_events": true, "completed": false, "event_count": 1, "open_event_count": 1, "events": [lane],
            });
            assert_eq!(shown["event_meta"], meta);
            assert_eq!(shown["stream_data"], STANDARD.encode("你好，事件流"));
            assert!(shown.get("end").is_none());
        }
        assert_eq!(events(&root, "m1", json!({})).await["events"], json!([]), "nothing is stored");
        // Types in any case.
        let closed = taken(&root, event("m1", "e3", "STREAM.CLOSE", json!({"payload": {"end_reason": 3}}))).await;
        assert_eq!((&closed["msg_event_seq"], &closed["stream_status"]), (&json!(1), &json!("closed")));
        let page = events(&root, "m1", json!({"event_key": "main", "limit": 10, "from_msg_event_seq": 0})).await;
        assert_eq!((&page["next_msg_event_seq"], &page["more"]), (&json!(1), &json!(0)));
        assert_eq!((&page["client_msg_no"], &page["filtered_by_event_key"]), (&json!("m1"), &json!("main")));
        let first = &page["events"][0];
        assert_eq!((&first["msg_event_seq"], &first["event_id"]), (&json!(1), &json!("e3")));
        assert_eq!((&first["event_type"], &first["visibility"]), (&json!("stream.close"), &json!("public")));
        assert_eq!(first["payload"], text("你好，事件流"), "the projection, not what the event said");
        let finished = taken(&root, event("m1", "e4", "stream.finish", json!({"event_key": "main"}))).await;
        assert_eq!((&finished["event_key"], &finished["msg_event_seq"]), (&json!("__finish__"), &json!(2)));
        assert_eq!(finished["stream_status"], "closed");
        let shown = synced(&root, "u2", "u1", "m1", json!({})).await;
        assert_eq!((&shown["end"], &shown["end_reason"]), (&json!(1), &json!(3)));
        assert_eq!(shown["event_sync_hint"], json!({"client_msg_no": "m1", "from_msg_event_seq": 0}));
        let meta = &shown["event_meta"];
        assert_eq!((&meta["completed"], &meta["event_version"]), (&json!(true), &json!(1)));
        assert_eq!(meta["events"].as_array().map(Vec::len), Some(1), "without the lane of the end");
        let basic = synced(&root, "u2", "u1", "m1", json!({"event_summary_mode": "basic"})).await;
        assert!(basic["event_meta"]["events"][0].get("snapshot").is_none());
        assert_eq!(basic["stream_data"], shown["stream_data"]);
        // Wherever messages are shown: conversations and look-ups.
        let rows = root.done("/conversation/sync", json!({"uid": "u2", "msg_count": 5})).await;
        assert_eq!(rows[0]["recents"][0]["event_meta"], *meta);
        let found = root
            .done("/message", json!({"login_uid": "u2", "channel_id": "u1", "channel_type": 1, "client_msg_no": "m1"}))
            .await;
        assert_eq!(found["event_meta"], *meta);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_comes_to_its_state() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let tool = json!({"kind": "tool_call", "tool": "weather"});
    let d = "stream.delta";
    for (n, (events_of, status, snapshot, error)) in [
        (vec![(d, tool.clone()), ("stream.close", json!({"end_reason": 0}))], "closed", tool.clone(), ""),
        (vec![("stream.error", json!({"error": "timeout"}))], "error", Value::Null, "timeout"),
        (vec![("stream.cancel", Value::Null)], "cancelled", Value::Null, ""),
        (vec![("stream.snapshot", tool.clone()), ("stream.open", json!({"tool": "x"}))], "open", tool.clone(), ""),
        (vec![(d, json!({"kind": "text", "delta": "a"})), ("agent.step", tool.clone())], "open", text("a"), ""),
        (vec![("stream.close", json!({"snapshot": text("all")}))], "closed", text("all"), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("m{n}");
        base(&root, "u1", "u2", 1, &name).await;
        let mut answer = Value::Null;
        for (at, (event_type, payload)) in events_of.iter().enumerate() {
            let more = json!({"payload": payload, "headers": {"schema": "v1"}, "message_id": 7, "occurred_at": 5});
            answer = taken(&root, event(&name, &format!("e{at}"), event_type, more)).await;
        }
        assert_eq!(answer["stream_status"], status, "{events_of:?}");
        let lane = synced(&root, "u1", "u2", &name, json!({})).await["event_meta"]["events"][0].clone();
        assert_eq!(
            (&lane["snapshot"], lane["error"].as_str().unwrap_or_default()),
            (&snapshot, error),
            "{events_of:?}"
        );
        let stored = events(&root, &name, json!({})).await["events"][0].clone();
        let expected = match (snapshot.is_null(), error) {
            (true, "") => json!({"status": status, "end_reason": 0}),
            (true, error) => json!({"status": status, "end_reason": 0, "error": error}),
            (false, _) => snapshot,
        };
        assert_eq!((&stored["payload"], &stored["occurred_at"]), (&expected, &json!(5)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn repeats_and_what_is_late_change_nothing() {
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    base(&root, "u1", "u2", 1, "m").await;
    for body in [delta("m", "e1", "a"), delta("m", "e1", "a"), delta("m", "e2", "b"), delta("m", "e1", "a")] {
        assert_eq!(taken(&root, body).await["stream_status"], "open");
    }
    let close = event("m", "e3", "stream.close", json!({}));
    let first = taken(&root, close.clone()).await;
    let version = server.app.hub().version();
    assert_eq!(taken(&root, close.clone()).await, first);
    // A lane that is over stays as it is, and says how it ended.
    for late in [delta("m", "e9", "late"), event("m", "e8", "stream.error", json!({"payload": {"error": "late"}}))] {
        assert_eq!(taken(&root, late).await, first);
    }
    assert_eq!(server.app.hub().version(), version, "nothing was stored");
    let server = server.restart().await;
    let root = Caller::root(&server);
    assert_eq!(taken(&root, close).await, first);
    let meta = synced(&root, "u2", "u1", "m", json!({})).await["event_meta"].clone();
    assert_eq!(meta["events"][0]["snapshot"], text("ab"));
    assert_eq!(meta["event_version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_stored_is_there_after_a_restart() {
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    base(&root, "u1", "u2", 1, "m").await;
    let on = |key: &str, mut body: Value| {
        body["event_key"] = key.into();
        body
    };
    taken(&root, on("plan", event("m", "p1", "stream.snapshot", json!({"payload": text("one")})))).await;
    taken(&root, on("plan", delta("m", "p2", " and two"))).await;
    taken(&root, delta("m", "e1", "Hel")).await;
    taken(&root, on("tool", delta("m", "t1", "done"))).await;
    let closed = taken(&root, on("tool", event("m", "t2", "stream.close", json!({})))).await;
    assert_eq!(closed["msg_event_seq"], 2);
    let server = server.restart().await;
    let root = Caller::root(&server);
    let meta = synced(&root, "u2", "u1", "m", json!({})).await["event_meta"].clone();
    let lanes: Vec<_> = meta["events"].as_array().expect("lanes").iter().map(|lane| &lane["snapshot"]).collect();
    assert_eq!(lanes, [&text("Hel"), &text("one and two"), &text("done")], "a stop loses no delta");
    // The sender goes on, and numbers do; what was said before the stop is known.
    taken(&root, delta("m", "e1", "Hel")).await;
    taken(&root, delta("m", "e2", "lo")).await;
    let closed = taken(&root, event("m", "e3", "stream.close", json!({}))).await;
    assert_eq!((&closed["msg_event_seq"], &closed["event_key"]), (&json!(5), &json!("main")));
    let finished = taken(&root, event("m", "e4", "stream.finish", json!({}))).await;
    assert_eq!(finished["msg_event_seq"], 7, "the open lane took a number too");
    let server = server.restart().await;
    let root = Caller::root(&server);
    let shown = synced(&root, "u2", "u1", "m", json!({})).await;
    assert_eq!((&shown["end"], &shown["stream_data"]), (&json!(1), &json!(STANDARD.encode("Hello"))));
    let meta = &shown["event_meta"];
    assert_eq!((&meta["completed"], meta.get("open_event_count")), (&json!(true), None));
    let page = events(&root, "m", json!({"limit": 2})).await;
    let seqs = |page: &Value| -> Vec<u64> {
        page["events"].as_array().expect("events").iter().filter_map(|event| event["msg_event_seq"].as_u64()).collect()
    };
    assert_eq!((seqs(&page), &page["more"], &page["next_msg_event_seq"]), (vec![2, 5], &json!(1), &json!(5)));
    let rest = events(&root, "m", json!({"limit": 2, "from_msg_event_seq": 5})).await;
    assert_eq!((seqs(&rest), &rest["more"], &rest["next_msg_event_seq"]), (vec![6, 7], &json!(0), &json!(7)));
    assert_eq!(events(&root, "m", json!({"from_msg_event_seq": 7})).await["next_msg_event_seq"], 7);
    assert_eq!(seqs(&events(&root, "m", json!({"event_key": "plan"})).await), [6]);
    assert_eq!(seqs(&events(&root, "unheard of", json!({})).await), [0; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_found_without_its_sender() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let without = |mut body: Value| {
        body.as_object_mut().expect("object").remove("from_uid");
        body
    };
    // As it was sent with is_stream; and a system user's without.
    base(&root, "u1", "u2", 1, "noted").await;
    assert_eq!(taken(&root, without(delta("noted", "e1", "x"))).await["from_uid"], "u1");
    base(&root, "", "u2", 1, "system").await;
    assert_eq!(taken(&root, without(delta("system", "e1", "x"))).await["from_uid"], "____system");
    // In a group by its members.
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"]})).await;
    root.done(
        "/message/send",
        json!({"from_uid": "bob", "channel_id": "g", "channel_type": 2, "payload": "eA==", "client_msg_no": "n"}),
    )
    .await;
    let in_group = json!({"channel_id": "g", "channel_type": 2});
    for from_uid in ["", "bob", "alice", "____system"] {
        let mut body = event("n", &format!("by {from_uid}"), "stream.delta", in_group.clone());
        body["from_uid"] = from_uid.into();
        assert_eq!(taken(&root, body).await["from_uid"], "bob", "{from_uid}");
    }
    let answer = root.post("/message/event", event("nobody's", "e", "stream.delta", in_group)).await;
    assert_eq!(refused(&answer), (404, "not_found", ""));
    let answer = root.post("/message/event", without(delta("nobody's", "e", "x"))).await;
    assert_eq!(refused(&answer), (404, "not_found", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn only_its_sender_and_back_ends_may() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let (u1, u2, eve) =
        (Caller::user(&server, "u1").await, Caller::user(&server, "u2").await, Caller::user(&server, "eve").await);
    base(&root, "u1", "u2", 1, "m").await;
    assert_eq!(taken(&u1, delta("m", "e1", "mine")).await["stream_status"], "open");
    let mut own = delta("m", "e2", "x");
    own["from_uid"] = "".into();
    taken(&u1, own.clone()).await;
    // The peer may read, not write, whichever side it names the pair from.
    let answer = u2.post("/message/event", delta("m", "e3", "x")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.json);
    own["channel_id"] = "u1".into();
    let answer = u2.post("/message/event", own).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.json);
    taken(&u1, event("m", "e4", "stream.close", json!({}))).await;
    for body in [
        json!({"channel_id": "u1", "channel_type": 1, "client_msg_no": "m"}),
        json!({"channel_id": "u1", "channel_type": 1, "client_msg_no": "m", "from_uid": "u1"}),
        json!({"channel_id": "u2", "channel_type": 1, "client_msg_no": "m", "from_uid": "u1"}),
        json!({"channel_id": "u1", "channel_type": 1, "client_msg_no": "m", "from_uid": "u2"}),
    ] {
        let page = u2.done("/message/eventsync", body.clone()).await;
        assert_eq!(page["data"]["events"][0]["payload"], text("minex"), "{body}");
    }
    // Strangers learn nothing.
    let answer = eve.post("/message/event", delta("m", "e5", "x")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    let body = json!({"channel_id": "u2", "channel_type": 1, "client_msg_no": "m", "from_uid": "u1"});
    let page = eve.done("/message/eventsync", body).await;
    assert_eq!(page["data"]["events"], json!([]), "her own channel with u2 has no such message");
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["u1"]})).await;
    base(&root, "u1", "g", 2, "in g").await;
    for path in ["/message/event", "/message/eventsync"] {
        let mut body = delta("in g", "e", "x");
        (body["channel_id"], body["channel_type"], body["from_uid"]) = ("g".into(), 2.into(), "".into());
        let answer = eve.post(path, body).await;
        assert_eq!((answer.status, &answer.json["code"]), (StatusCode::FORBIDDEN, &json!("not_member")), "{path}");
    }
    // Nor may one write events where one may not write messages.
    root.done("/channel/blacklist_add", json!({"channel_id": "u2", "channel_type": 1, "uids": ["u1"]})).await;
    base(&root, "u1", "u2", 1, "blocked").await;
    let answer = u1.post("/message/event", delta("blocked", "e", "x")).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.json);
    taken(&root, delta("blocked", "e", "x")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_that_are_not_public_are_the_senders() {
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    let (u1, u2) = (Caller::user(&server, "u1").await, Caller::user(&server, "u2").await);
    base(&root, "u1", "u2", 1, "m").await;
    for (key, visibility) in [("thoughts", "private"), ("cost", "Restricted"), ("main", "public")] {
        let mut body = delta("m", "e1", key);
        (body["event_key"], body["visibility"]) = (key.into(), visibility.into());
        taken(&root, body).await;
    }
    let keys = |message: &Value| -> Vec<String> {
        let lanes = message["event_meta"]["events"].as_array().expect("lanes").iter();
        lanes.map(|lane| lane["event_key"].as_str().expect("a key").to_owned()).collect()
    };
    for open in [true, false] {
        for caller in [&root, &u2] {
            assert_eq!(keys(&synced(caller, "u2", "u1", "m", json!({})).await), ["main"], "open: {open}");
        }
        assert_eq!(keys(&synced(&root, "u1", "u2", "m", json!({})).await), ["cost", "main", "thoughts"]);
        // Ending them says nothing about who sees them.
        taken(&root, event("m", "end", "stream.finish", json!({"visibility": "public"}))).await;
    }
    let count = async |caller: &Caller, include_private: u8, from_uid: &str| {
        let body = json!({"channel_id": if from_uid == "u1" { "u2" } else { "u1" }, "channel_type": 1,
            "from_uid": from_uid, "client_msg_no": "m", "include_private": include_private});
        caller.done("/message/eventsync", body).await["data"]["events"].as_array().map_or(0, Vec::len)
    };
    for (caller, include_private, from_uid, expected) in
        [(&root, 0, "u1", 2), (&root, 1, "u1", 4), (&u1, 0, "u1", 2), (&u1, 1, "u1", 4), (&u2, 1, "u2", 2)]
    {
        assert_eq!(count(caller, include_private, from_uid).await, expected, "{include_private} {from_uid}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_over_takes_and_shows_nothing() {
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    let sent = base(&root, "u1", "u2", 1, "m").await;
    taken(&root, delta("m", "e1", "secret")).await;
    taken(&root, event("m", "s1", "stream.snapshot", json!({"event_key": "side", "payload": text("secret")}))).await;
    let key = protocol::ids::ChannelKey::person(&server.uid("u1"), &server.uid("u2"));
    let seq = sent["message_seq"].as_u64().expect("a seq");
    server.app.hub().revoke(chinwag::hub::Reader::Trusted, key, seq).await.expect("revoked");
    for body in [delta("m", "e2", "x"), event("m", "e3", "stream.close", json!({}))] {
        let answer = root.post("/message/event", body).await;
        assert_eq!(refused(&answer), (404, "message_gone", ""));
    }
    let shown = synced(&root, "u2", "u1", "m", json!({})).await;
    assert_eq!((&shown["state"], shown.get("event_meta"), shown.get("stream_data")), (&json!("revoked"), None, None));
    assert_eq!(events(&root, "m", json!({"include_private": 1})).await["events"], json!([]));
    let answer = root.post("/message/event", delta("m", "e4", "x")).await;
    assert_eq!(refused(&answer), (404, "message_gone", ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_requests_are_a_4xx_that_names_the_field() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    base(&root, "u1", "u2", 1, "m").await;
    let with = |field: &str, value: Value| {
        let mut body = delta("m", "e", "x");
        body[field] = value;
        body
    };
    let long = "x".repeat(100_000);
    let version = server.app.hub().version();
    for (field, value, expected) in [
        ("channel_id", json!(""), 400),
        ("channel_id", json!("  "), 400),
        ("channel_id", json!(7), 400),
        ("channel_id", json!(long), 400),
        ("channel_type", json!(0), 400),
        ("channel_type", json!(9), 400),
        ("client_msg_no", json!(""), 400),
        ("client_msg_no", json!(long), 400),
        ("client_msg_no", json!("a\u{0}"), 400),
        ("event_id", json!(""), 400),
        ("event_id", json!(null), 400),
        ("event_id", json!(long), 413),
        ("event_id", json!("a\u{1}b"), 400),
        ("event_type", json!(" "), 400),
        ("event_type", json!(7), 400),
        ("event_type", json!(long), 413),
        ("event_key", json!("__finish__"), 400),
        ("event_key", json!(long), 413),
        ("visibility", json!("everybody"), 400),
        ("visibility", json!(1), 400),
        ("occurred_at", json!(-1), 400),
        ("occurred_at", json!(1e300), 400),
        ("occurred_at", json!(i64::MAX), 400),
        ("from_uid", json!("a@b"), 400),
        ("from_uid", json!(long), 400),
        ("message_id", json!({}), 400),
        ("payload", json!({"kind": "text", "delta": long}), 413),
    ] {
        let shown: String = value.to_string().chars().take(30).collect();
        let answer = root.post("/message/event", with(field, value)).await;
        let (status, _, told) = refused(&answer);
        assert_eq!((status, told), (expected, field), "{field} = {shown}: {}", answer.json);
    }
    for (field, value) in [
        ("channel_id", json!("")),
        ("client_msg_no", json!("")),
        ("limit", json!(-1)),
        ("limit", json!("x")),
        ("from_msg_event_seq", json!(-1)),
        ("include_private", json!(2)),
        ("include_private", json!(true)),
    ] {
        let answer = root.post("/message/eventsync", with(field, value.clone())).await;
        assert_eq!((answer.status.as_u16(), &answer.json["field"]), (400, &json!(field)), "{value}");
    }
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    let body = format!("{{\"payload\":{deep}}}");
    let answer = root.raw("POST", "/message/event", &[("token", root.credential())], body).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    for limit in [json!(u32::MAX), json!(0)] {
        assert_eq!(root.post("/message/eventsync", with("limit", limit)).await.status, StatusCode::OK);
    }
    assert_eq!(server.app.hub().version(), version, "none of it was stored");
    assert!(synced(&root, "u1", "u2", "m", json!({})).await.get("event_meta").is_none(), "nor is open");
}

#[tokio::test(flavor = "multi_thread")]
async fn too_much_for_one_message_is_refused_and_the_rest_stays() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    base(&root, "u1", "u2", 1, "m").await;
    for n in 0..31 {
        let mut body = delta("m", "e", "x");
        body["event_key"] = format!("k{n}").into();
        taken(&root, body).await;
    }
    let answer = root.post("/message/event", delta("m", "e", "x")).await;
    assert_eq!((answer.status.as_u16(), &answer.json["code"]), (413, &json!("too_many")), "{}", answer.json);
    taken(&root, event("m", "f", "stream.finish", json!({}))).await;
    let meta = synced(&root, "u1", "u2", "m", json!({})).await["event_meta"].clone();
    assert_eq!((&meta["event_count"], meta.get("open_event_count")), (&json!(31), None));
    base(&root, "u1", "u2", 1, "long").await;
    let part = "y".repeat(60_000);
    let mut held = 0;
    let refusal = loop {
        let answer = root.post("/message/event", delta("long", &format!("e{held}"), &part)).await;
        match answer.status {
            StatusCode::OK => held += 1,
            _ => break answer,
        }
    };
    assert_eq!((refusal.status.as_u16(), held), (413, 17), "{}", refusal.json);
    taken(&root, event("long", "c", "stream.close", json!({}))).await;
    let shown = synced(&root, "u1", "u2", "long", json!({})).await;
    assert_eq!(shown["stream_data"].as_str().map(str::len), Some(held * 80_000));
}
