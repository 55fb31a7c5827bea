//! The `conversation` document over HTTP: sync in full and in increments, setUnread, clearUnread, delete, and who may ask
//! (rows C1 to C15 of the acceptance list).

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::Caller;

fn row<'a>(rows: &'a Value, channel_id: &str) -> &'a Value {
    let rows = rows.as_array().expect("an array");
    rows.iter().find(|row| row["channel_id"] == channel_id).unwrap_or(&Value::Null)
}

fn max_version(rows: &Value) -> u64 {
    rows.as_array().expect("an array").iter().filter_map(|row| row["version"].as_u64()).max().unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_keeps_the_maximum_version_learns_every_change_once() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"]})).await;
    assert_eq!(root.done("/conversation/sync", json!({"uid": "bob"})).await, json!([]), "an empty group is not listed");
    let first = root.send("alice", "g", 2, "one").await;
    root.send("alice", "bob", 1, "two").await;

    let full = root.post("/conversation/sync", json!({"uid": "bob", "version": 0, "msg_count": 5})).await;
    let rows = &full.json;
    assert_eq!(rows.as_array().map(Vec::len), Some(2));
    assert_eq!(rows[0]["channel_id"], "alice", "newest first, the peer names a person channel");
    assert_eq!((&row(rows, "g")["unread"], &row(rows, "g")["last_msg_seq"]), (&json!(1), &json!(1)));
    let message = &row(rows, "g")["recents"][0];
    assert_eq!((&message["message_id"], &message["payload"]), (&first["message_id"], &json!("b25l")));
    assert_eq!(full.version, Some(max_version(rows)));
    assert_eq!(full.reset.as_deref(), Some("0"));

    let version = max_version(rows);
    assert!(version < 1 << 53);
    let increment = |version: u64| json!({"uid": "bob", "version": version, "msg_count": 5});
    assert_eq!(root.done("/conversation/sync", increment(version)).await, json!([]), "nothing changed");

    root.done("/conversations/setUnread", json!({"uid": "bob", "channel_id": "g", "channel_type": 2, "unread": 0}))
        .await;
    let rows = root.done("/conversation/sync", increment(version)).await;
    assert_eq!(
        (rows.as_array().map(Vec::len), &rows[0]["unread"]),
        (Some(1), &json!(0)),
        "reading elsewhere is a change"
    );
    assert!(max_version(&rows) > version);

    // WuKongIM v2's nanoseconds are none of ours: everything again, and said so.
    let reset = root.post("/conversation/sync", increment(1_657_615_272_000_000_000)).await;
    assert_eq!((reset.json.as_array().map(Vec::len), reset.reset.as_deref()), (Some(2), Some("1")));
}

#[tokio::test(flavor = "multi_thread")]
async fn cursors_narrow_recents_and_what_does_not_parse_is_named() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    for text in ["one", "two", "three"] {
        root.send("alice", "bob", 1, text).await;
    }
    let ask = |cursors: Value| json!({"uid": "bob", "version": 0, "msg_count": 9, "last_msg_seqs": cursors});
    let seqs = |rows: &Value| -> Vec<u64> {
        let recents = rows[0]["recents"].as_array().cloned().unwrap_or_default();
        recents.iter().filter_map(|m| m["message_seq"].as_u64()).collect()
    };
    let array = json!([{"channel_id": "alice", "channel_type": 1, "last_msg_seq": 1}]);
    for cursors in [json!("alice:1:1"), array] {
        assert_eq!(seqs(&root.done("/conversation/sync", ask(cursors)).await), [3, 2]);
    }
    assert_eq!(root.done("/conversation/sync", ask(json!("alice:1:3"))).await, json!([]));
    let ahead = root.done("/conversation/sync", ask(json!("alice:1:99"))).await;
    assert!(ahead == json!([]) || ahead[0]["reset"] == 1, "{ahead}");
    let refused = root.post("/conversation/sync", ask(json!("alice:1:x"))).await;
    assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!("last_msg_seqs")));
    assert!(refused.json["msg"].as_str().is_some_and(|m| m.contains("alice:1:x")), "{}", refused.json);
    let none = root.done("/conversation/sync", json!({"uid": "bob", "msg_count": 0})).await;
    assert_eq!((&none[0]["recents"], &none[0]["unread"]), (&json!([]), &json!(3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn unread_goes_up_and_down_exactly_and_explains_itself() {
    let server = Server::on_memory().await;
    let (root, bob) = (Caller::root(&server), Caller::user(&server, "bob").await);
    for _ in 0..5 {
        root.send("alice", "bob", 1, "x").await;
    }
    let name = |unread: i64| json!({"uid": "bob", "channel_id": "alice", "channel_type": 1, "unread": unread});
    for (wanted, got) in [(0, 0), (3, 3), (5, 5), (9, 5), (1, 1)] {
        let changed = bob.done("/conversations/setUnread", name(wanted)).await;
        assert_eq!((&changed["status"], &changed["unread"]), (&json!(200), &json!(got)));
        let rows = root.done("/conversation/sync", json!({"uid": "bob"})).await;
        assert_eq!(rows[0]["unread"], got, "wanted {wanted}");
        let explained = bob.get("/conversation/unread/explain?channel_id=alice&channel_type=1").await.json;
        assert_eq!(explained["unread"], got);
        let counted = explained["messages"].as_array().expect("messages").iter().filter(|m| m["counted"] == 1).count();
        assert_eq!(counted, got as usize);
    }
    let refused = bob.post("/conversations/setUnread", name(-1)).await;
    assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!("unread")));
    let name = json!({"channel_id": "alice", "channel_type": 1});
    assert_eq!(bob.done("/conversations/clearUnread", name).await["unread"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_conversation_leaves_a_tombstone_and_comes_back_with_what_is_new() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    root.send("alice", "bob", 1, "old").await;
    let version = max_version(&root.done("/conversation/sync", json!({"uid": "bob"})).await);
    let name = json!({"uid": "bob", "channel_id": "alice", "channel_type": 1});
    for _ in 0..2 {
        root.done("/conversations/delete", name.clone()).await;
    }
    assert_eq!(root.done("/conversation/sync", json!({"uid": "bob"})).await, json!([]));
    assert_eq!(
        root.done("/conversation/sync", json!({"uid": "bob", "version": version})).await,
        json!([]),
        "old clients"
    );
    let told = root.done("/conversation/sync", json!({"uid": "bob", "version": version, "with_deleted": 1})).await;
    assert_eq!((&told[0]["is_deleted"], &told[0]["unread"], &told[0]["recents"]), (&json!(1), &json!(0), &json!([])));
    assert!(
        !row(&root.done("/conversation/sync", json!({"uid": "alice"})).await, "bob").is_null(),
        "others keep theirs"
    );

    root.send("alice", "bob", 1, "new").await;
    let rows = root.done("/conversation/sync", json!({"uid": "bob"})).await;
    assert_eq!((&rows[0]["unread"], rows[0]["recents"].as_array().map(Vec::len)), (&json!(1), Some(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn users_see_and_change_their_own_conversations_only() {
    let server = Server::on_memory().await;
    let (root, bob) = (Caller::root(&server), Caller::user(&server, "bob").await);
    root.send("alice", "bob", 1, "x").await;
    assert_eq!(bob.done("/conversation/sync", json!({})).await.as_array().map(Vec::len), Some(1));
    for (path, body) in [
        ("/conversation/sync", json!({"uid": "alice"})),
        ("/conversations/setUnread", json!({"uid": "alice", "channel_id": "bob", "channel_type": 1})),
        ("/conversations/delete", json!({"uid": "alice", "channel_id": "bob", "channel_type": 1})),
        ("/conversations/clearUnread", json!({"uid": "alice", "channel_id": "bob", "channel_type": 1})),
        ("/conversation/unread/explain", json!({"uid": "alice", "channel_id": "bob", "channel_type": 1})),
    ] {
        let refused = bob.post(path, body.clone()).await;
        assert_eq!((refused.status, &refused.json["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{path}");
        let stranger = Caller::with(&server, "nobody-has-this").post(path, body).await;
        assert_eq!(stranger.status, StatusCode::UNAUTHORIZED, "{path}");
    }
    // A token that two users hold works only where the request names one of them.
    for uid in ["carol", "dave"] {
        root.done("/user/token", json!({"uid": uid, "token": "shared-token"})).await;
    }
    let shared = Caller::with(&server, "shared-token");
    let unnamed = shared.post("/conversation/sync", json!({})).await;
    assert_eq!((unnamed.status, &unnamed.json["field"]), (StatusCode::BAD_REQUEST, &json!("uid")));
    assert_eq!(shared.done("/conversation/sync", json!({"uid": "dave"})).await, json!([]));
    assert_eq!(shared.post("/conversation/sync", json!({"uid": "bob"})).await.status, StatusCode::FORBIDDEN);
}
