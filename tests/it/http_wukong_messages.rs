//! Sending, looking up and command messages over WuKongIM's HTTP API: one case per route, with the shapes of wukongim-http.md
//! section 5.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::Caller;

fn texts(messages: &Value) -> Vec<String> {
    use base64::Engine;
    let decode = |m: &Value| {
        let payload = m["payload"].as_str().expect("a payload");
        let bytes = base64::engine::general_purpose::STANDARD.decode(payload).expect("base64");
        String::from_utf8(bytes).expect("text")
    };
    messages.as_array().expect("messages").iter().map(decode).collect()
}

fn seqs(messages: &Value) -> Vec<u64> {
    messages.as_array().expect("messages").iter().filter_map(|m| m["message_seq"].as_u64()).collect()
}

fn base64(text: &str) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_goes_to_each_in_an_own_conversation() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    root.done("/channel/info", json!({"channel_id": "carol", "channel_type": 1, "ban": 1})).await;
    let body = json!({"header": {"red_dot": 1}, "from_uid": "alice", "subscribers": ["a#b", "bob", "carol", "dave", "bob"],
                      "payload": base64("hello")});
    let answer = root.done("/message/sendbatch", body).await;
    assert_eq!(answer["fail_uids"], json!(["a#b", "carol"]), "one that is none holds up nobody else's");
    assert_eq!(answer["reason"].as_array().map(Vec::len), Some(2));
    for uid in ["bob", "dave"] {
        let rows = root.done("/conversation/sync", json!({"uid": uid})).await;
        assert_eq!((&rows[0]["channel_id"], &rows[0]["unread"]), (&json!("alice"), &json!(1)), "{uid}");
    }
    for (body, field) in [
        (json!({"subscribers": ["b"], "payload": "eA=="}), "from_uid"),
        (json!({"from_uid": "a", "subscribers": [], "payload": "eA=="}), "subscribers"),
        (json!({"from_uid": "a", "subscribers": ["b"]}), "payload"),
    ] {
        let refused = root.post("/message/sendbatch", body).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!(field)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_v3_sends_and_what_streams_are_is_understood() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let sent = root
        .done(
            "/message/send",
            json!({"sender_uid": "alice", "channel_id": "bob", "channel_type": 1, "payload": "eA==",
                   "device_id": "d", "setting": 0, "topic": "t", "sync_once": 1, "tag_key": ""}),
        )
        .await;
    assert_eq!((&sent["reason"], &sent["status"]), (&json!(1), &json!(200)));
    let queue = root.done("/message/sync", json!({"uid": "bob"})).await;
    assert_eq!((&queue[0]["from_uid"], &queue[0]["header"]["sync_once"]), (&json!("alice"), &json!(1)));
    let body = json!({"channel_id": "bob", "channel_type": 1, "payload": "eA==", "stream_no": "s"});
    let refused = root.post("/message/send", body).await;
    assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!("stream_no")));
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_are_found_by_seq_id_and_name() {
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    let (bob, eve) = (Caller::user(&server, "bob").await, Caller::user(&server, "eve").await);
    let mut ids = Vec::new();
    for n in 1..=5 {
        let body = json!({"from_uid": "alice", "channel_id": "bob", "channel_type": 1, "payload": base64(&format!("m{n}")),
                          "client_msg_no": format!("no-{n}")});
        ids.push(root.done("/message/send", body).await["message_id"].clone());
    }
    let named = json!({"login_uid": "bob", "channel_id": "alice", "channel_type": 1});
    let with = |more: Value| {
        let mut body = named.clone();
        body.as_object_mut().expect("object").extend(more.as_object().expect("object").clone());
        body
    };
    let wanted = with(json!({"message_seqs": [3, 99, 1], "message_ids": [ids[4], ids[1].to_string()],
                             "client_msg_nos": ["no-2", "nobody-said-this"]}));
    for caller in [&root, &bob] {
        let page = caller.done("/messages", wanted.clone()).await;
        assert_eq!(texts(&page["messages"]), ["m3", "m1", "m5", "m2", "m2"]);
        assert_eq!((&page["more"], &page["start_message_seq"]), (&json!(0), &json!(0)));
        assert_eq!(page["messages"][0]["channel_id"], "alice", "the peer of who asks");
        let one = caller.done("/message", with(json!({"message_id": ids[3]}))).await;
        assert_eq!(one["message_seq"], 4);
        let one = caller.done("/message", with(json!({"client_msg_no": "no-5"}))).await;
        assert_eq!(one["message_idstr"], ids[4].to_string());
        assert_eq!(caller.done("/message", with(json!({"client_msg_no": "none"}))).await, json!({"status": 404}));
    }
    // By the canonical id, as a back end that knows nobody's view; and by peer and login_uid.
    let pair = protocol::ids::ChannelKey::person(&server.uid("alice"), &server.uid("bob"));
    let pair = pair.channel_id();
    for query in [format!("channel_id={pair}"), "channel_id=alice&login_uid=bob".to_owned()] {
        let get = async |path: &str, more: &str| root.get(&format!("{path}?{query}&channel_type=1{more}")).await.json;
        assert_eq!(get("/message/byclientmsgno", "&client_msg_no=no-3").await["message_seq"], 3);
        assert_eq!(get("/message/byclientmsgno", "&client_msg_no=x").await, json!({"status": 404}));
        assert_eq!(get("/channel/max_message_seq", "").await, json!({"message_seq": 5}));
        assert_eq!(get("/channel/last_message", "").await["client_msg_no"], "no-5");
    }
    let named_by = json!({"channel_id": pair, "channel_type": 1, "client_msg_no": "no-3", "message_seqs": [3]});
    assert_eq!(root.done("/message", named_by.clone()).await["message_seq"], 3, "nobody's view");
    assert_eq!(texts(&root.done("/messages", named_by.clone()).await["messages"]), ["m3"]);
    assert_eq!(
        eve.post("/messages", named_by).await.status,
        StatusCode::BAD_REQUEST,
        "a pair of others is no channel of hers"
    );
    assert_eq!(bob.get("/channel/max_message_seq?channel_id=alice&channel_type=1").await.json["message_seq"], 5);
    let nothing = root.get("/channel/last_message?channel_id=nowhere&channel_type=2").await.json;
    assert_eq!(nothing, json!({"status": 404}));
    assert_eq!(root.get("/channel/max_message_seq?channel_id=nowhere&channel_type=2").await.json["message_seq"], 0);
    assert_eq!(eve.get("/channel/last_message?channel_id=nowhere&channel_type=2").await.status, StatusCode::FORBIDDEN);
    let refused = root.post("/message", named.clone()).await;
    assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!("message_id")));
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_several_channels_come_in_one_answer() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let bob = Caller::user(&server, "bob").await;
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice"]})).await;
    for n in 1..=3 {
        root.send("alice", "bob", 1, &format!("b{n}")).await;
        root.send("alice", "g", 2, &format!("g{n}")).await;
    }
    let body = json!({"login_uid": "bob", "items": [
        {"channel_id": "alice", "channel_type": 1, "limit": 2},
        {"channel_id": "g", "channel_type": 2, "start_message_seq": 2, "limit": 9, "pull_mode": 1},
        {"channel_id": "x@y", "channel_type": 1},
        {"channel_id": "g", "channel_type": 9},
    ]});
    let items = root.done("/channel/messagesyncbatch", body.clone()).await["items"].clone();
    assert_eq!((seqs(&items[0]["messages"]), &items[0]["more"]), (vec![2, 3], &json!(1)));
    assert_eq!((seqs(&items[1]["messages"]), &items[1]["start_message_seq"]), (vec![2, 3], &json!(2)));
    assert!(items[0].get("error").is_none() && items[2]["error"].is_string() && items[3]["error"].is_string());
    let items = bob.done("/channel/messagesyncbatch", body).await["items"].clone();
    assert_eq!(seqs(&items[0]["messages"]), [2, 3]);
    assert_eq!((&items[1]["messages"], items[1]["error"].is_string()), (&json!([]), true), "no member");
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_are_one_queue_per_user_until_they_are_taken() {
    let server = Server::on_disk().await;
    let (root, bob) = (Caller::root(&server), Caller::user(&server, "bob").await);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"]})).await;
    let command = async |root: &Caller, channel: (&str, u8), text: &str, sync_once: u8| {
        let body = json!({"header": {"sync_once": sync_once}, "from_uid": "alice", "channel_id": channel.0,
                          "channel_type": channel.1, "payload": base64(text)});
        root.done("/message/send", body).await
    };
    command(&root, ("bob", 1), "c1", 1).await;
    command(&root, ("bob", 1), "said", 0).await;
    command(&root, ("g", 2), "c2", 1).await;
    command(&root, ("bob", 1), "c3", 1).await;
    let queue = async |root: &Caller, uid: &str, limit: i64| {
        let answer = root.done("/message/sync", json!({"uid": uid, "message_seq": 0, "limit": limit})).await;
        texts(&answer).into_iter().zip(seqs(&answer)).collect::<Vec<_>>()
    };
    let expected = [("c1", 1), ("c2", 2), ("c3", 3)].map(|(text, seq)| (text.to_owned(), seq));
    assert_eq!(queue(&root, "bob", 0).await, expected);
    assert_eq!(queue(&bob, "", 2).await, expected[..2], "the oldest first");
    assert_eq!(queue(&root, "alice", 9).await, expected, "the sender's other devices too");
    let shown = root.done("/message/sync", json!({"uid": "bob", "limit": 1})).await;
    assert_eq!((&shown[0]["channel_id"], &shown[0]["header"]["sync_once"]), (&json!("alice"), &json!(1)));

    bob.done("/message/syncack", json!({"last_message_seq": 2})).await;
    assert_eq!(queue(&root, "bob", 9).await, expected[2..]);
    root.done("/message/syncack", json!({"uid": "bob", "last_message_seq": 1})).await;
    assert_eq!(queue(&root, "bob", 9).await, expected[2..], "never backwards");
    command(&root, ("g", 2), "c4", 1).await;
    let server = server.restart().await;
    let root = Caller::root(&server);
    let left = [("c3".to_owned(), 3), ("c4".to_owned(), 4)];
    assert_eq!(queue(&root, "bob", 9).await, left, "also after a restart");
    root.done("/message/syncack", json!({"uid": "bob", "last_message_seq": 99})).await;
    assert_eq!(queue(&root, "bob", 9).await, []);
    command(&root, ("bob", 1), "c5", 1).await;
    assert_eq!(queue(&root, "bob", 9).await, [("c5".to_owned(), 5)]);
    assert_eq!(queue(&root, "alice", 9).await.len(), 5, "each has an own queue");

    root.done("/message/syncack", json!({"uid": "bob", "last_message_seq": 5})).await;

    // What a socket acknowledges moves the same queue.
    let sent = command(&root, ("bob", 1), "c6", 1).await;
    let id = protocol::ids::Version::new(sent["message_id"].as_u64().expect("an id"));
    let next = command(&root, ("bob", 1), "c6b", 1).await["message_id"].as_u64().expect("an id");
    let next = protocol::ids::Version::new(next);
    server.app.hub().take_received(server.uid("bob"), [next].into()).await.expect("taken");
    assert_eq!(queue(&root, "bob", 9).await.len(), 2, "nobody has the one before it");
    server.app.hub().take_received(server.uid("bob"), [id, next].into()).await.expect("taken");
    assert_eq!(queue(&root, "bob", 9).await, []);
    // A new member begins with an empty queue, and who left has nothing of the channel any more.
    root.done("/channel/subscriber_add", json!({"channel_id": "g", "subscribers": ["carol"]})).await;
    assert_eq!(queue(&root, "carol", 9).await, []);
    command(&root, ("g", 2), "c7", 1).await;
    assert_eq!(queue(&root, "carol", 9).await, [("c7".to_owned(), 1)]);
    root.done("/channel/subscriber_remove", json!({"channel_id": "g", "subscribers": ["carol"]})).await;
    assert_eq!(queue(&root, "carol", 9).await, []);
    for (path, body, field) in [
        ("/message/sync", json!({"uid": "bob", "limit": -1}), "limit"),
        ("/message/sync", json!({"limit": 1}), "uid"),
        ("/message/syncack", json!({"uid": "bob"}), "last_message_seq"),
    ] {
        let refused = root.post(path, body).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!(field)));
    }
    for path in ["/message/cmd/bind", "/message/cmd/unbind"] {
        root.done(path, json!({"uid": "bob", "channel_id": "g", "channel_type": 2})).await;
        let refused = root.post(path, json!({"uid": "bob", "channel_id": "g", "channel_type": 0})).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!("channel_type")));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_means_what_the_user_was_told() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    for group in ["g", "h"] {
        root.done("/channel", json!({"channel_id": group, "channel_type": 2, "subscribers": ["bob"]})).await;
    }
    for (group, text) in [("g", "one"), ("h", "two"), ("h", "three")] {
        let body = json!({"header": {"sync_once": 1}, "channel_id": group, "channel_type": 2, "payload": base64(text)});
        root.done("/message/send", body).await;
    }
    let queue = async || texts(&root.done("/message/sync", json!({"uid": "bob"})).await);
    assert_eq!(queue().await, ["one", "two", "three"]);
    // One goes away before what was answered is acknowledged: 2 is still "two".
    root.done("/channel/subscriber_remove", json!({"channel_id": "g", "subscribers": ["bob"]})).await;
    root.done("/message/syncack", json!({"uid": "bob", "last_message_seq": 2})).await;
    assert_eq!(queue().await, ["three"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_goes_to_exactly_the_users_it_names() {
    let server = Server::on_memory().await;
    let (root, alice) = (Caller::root(&server), Caller::user(&server, "alice").await);
    let mut bob = server.connect("bob").await;
    let to = |uids: &[&str], no_persist: u8, text: &str| json!({"header": {"sync_once": 1, "no_persist": no_persist}, "subscribers": uids, "payload": base64(text)});
    root.done("/message/send", to(&["bob", "carol"], 0, "kept")).await;
    root.done("/message/send", to(&["carol", "bob"], 1, "passing")).await;
    assert_eq!(bob.delivered().await[0].2, b"kept");
    assert_eq!(bob.delivered().await[0].2, b"passing");
    for (uid, expected) in [("bob", vec!["kept"]), ("carol", vec!["kept"]), ("dave", vec![])] {
        let queue = root.done("/message/sync", json!({"uid": uid})).await;
        assert_eq!(texts(&queue), expected, "{uid}");
        assert_eq!(root.done("/conversation/sync", json!({"uid": uid})).await, json!([]), "no conversation");
    }
    let mut named = to(&["bob"], 0, "x");
    named["channel_id"] = json!("g");
    for (body, field) in [
        (named, "channel_id"),
        (json!({"subscribers": ["bob"], "payload": "eA=="}), "header.sync_once"),
        (to(&["bob", "a@b"], 0, "x"), "subscribers[1]"),
    ] {
        let refused = root.post("/message/send", body).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!(field)));
    }
    assert_eq!(alice.post("/message/send", to(&["bob"], 0, "x")).await.status, StatusCode::FORBIDDEN);
}
