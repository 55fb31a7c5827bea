//! The siblings of `/conversation/sync` and v3's list (wukongim-http.md 6.5, 6.6): one case per route, and that all say the
//! same of one conversation.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::Caller;

fn ids(rows: &Value) -> Vec<&str> {
    rows.as_array().expect("rows").iter().filter_map(|row| row["channel_id"].as_str()).collect()
}

fn seqs(messages: &Value) -> Vec<u64> {
    messages.as_array().expect("messages").iter().filter_map(|m| m["message_seq"].as_u64()).collect()
}

/// bob has three messages of alice, of which he read one, two in the group g, and wrote to carol.
async fn filled() -> (Server, Caller) {
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"]})).await;
    for n in 1..=3 {
        root.send("alice", "bob", 1, &format!("a{n}")).await;
    }
    for n in 1..=2 {
        root.send("alice", "g", 2, &format!("g{n}")).await;
    }
    root.send("bob", "carol", 1, "c1").await;
    let read = json!({"uid": "bob", "channel_id": "alice", "channel_type": 1, "message_seq": 1});
    root.done("/conversations/clearUnread", read).await;
    (server, root)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_route_says_the_same_of_a_conversation() {
    let (_server, root) = filled().await;
    let rows = root.done("/conversation/sync", json!({"uid": "bob", "msg_count": 1})).await;
    assert_eq!(ids(&rows), ["carol", "g", "alice"]);

    let v1 = root.get("/conversations?uid=bob").await.json;
    assert_eq!(ids(&v1), ids(&rows));
    let v3 = root.done("/conversation/list", json!({"uid": "bob"})).await;
    assert_eq!(ids(&v3["conversations"]), ids(&rows));
    assert_eq!((&v3["done"], &v3["next_cursor"], &v3["reset_required"]), (&json!(true), &json!(""), &json!(false)));
    let channels: Vec<Value> = ids(&rows)
        .into_iter()
        .map(|id| json!({"channel_id": id, "channel_type": if id == "g" { 2 } else { 1 }}))
        .collect();
    let by_channels = json!({"uid": "bob", "channels": channels, "msg_count": 1});
    let v2 = root.done("/conversation/syncByChannels", by_channels.clone()).await;
    let again = root.done("/conversation/retry", by_channels).await;
    for (i, row) in rows.as_array().expect("rows").iter().enumerate() {
        for other in [&v1[i], &v2[i], &v3["conversations"][i], &again["conversations"][i]] {
            assert_eq!((&other["channel_id"], &other["unread"]), (&row["channel_id"], &row["unread"]), "{other}");
        }
        for last in [&v1[i]["last_message"], &v3["conversations"][i]["last_message"], &v2[i]["recents"][0]] {
            assert_eq!(last["message_id"], row["recents"][0]["message_id"], "{last}");
        }
        for field in ["last_msg_seq", "timestamp", "readed_to_msg_seq", "last_client_msg_no", "complete"] {
            assert_eq!(v2[i][field], row[field], "{field} of {}", row["channel_id"]);
        }
        assert_eq!(v3["conversations"][i]["read_seq"], row["readed_to_msg_seq"]);
    }
    let named = root.done("/conversation/channels", json!({"uid": "bob"})).await;
    assert!(ids(&named).contains(&"g") && ids(&named).iter().filter(|id| id.contains('@')).count() == 2, "{named}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_and_rows_come_for_every_channel_asked_for() {
    let (_server, root) = filled().await;
    let body = json!({"uid": "bob", "msg_count": 2, "channels": [
        {"channel_id": "alice", "channel_type": 1, "last_msg_seq": 1},
        {"channel_id": "g", "channel_type": 2},
        {"channel_id": "nowhere", "channel_type": 2},
        {"channel_id": "carol", "channel_type": 1},
    ]});
    let found = root.done("/conversation/syncMessages", body.clone()).await;
    assert_eq!(ids(&found), ["alice", "g", "nowhere", "carol"]);
    let of: Vec<Vec<u64>> = (0..4).map(|i| seqs(&found[i]["messages"])).collect();
    assert_eq!(of, [vec![3, 2], vec![2, 1], vec![], vec![1]], "newest first, above the cursor");
    assert_eq!((&found[3]["user_last_msg_seq"], &found[0]["user_last_msg_seq"]), (&json!(1), &json!(0)));
    let rows = root.done("/conversation/syncByChannels", body).await;
    assert_eq!(ids(&rows), ["alice", "g", "nowhere", "carol"]);
    assert_eq!((seqs(&rows[0]["recents"]), &rows[0]["complete"]), (vec![3, 2], &json!(0)));
    assert_eq!((&rows[2]["unread"], &rows[2]["last_msg_seq"], &rows[2]["recents"]), (&json!(0), &json!(0), &json!([])));

    // What was deleted is shown by none of them; what comes after is.
    let alice = json!({"uid": "bob", "channel_id": "alice", "channel_type": 1});
    root.done("/conversations/delete", alice.clone()).await;
    root.send("alice", "bob", 1, "a4").await;
    let one = json!({"uid": "bob", "channels": [{"channel_id": "alice", "channel_type": 1}]});
    let found = root.done("/conversation/syncMessages", one.clone()).await;
    assert_eq!(seqs(&found[0]["messages"]), [4]);
    let rows = root.done("/conversation/syncByChannels", one.clone()).await;
    assert_eq!((seqs(&rows[0]["recents"]), &rows[0]["unread"]), (vec![4], &json!(1)));
    let rows = root.done("/conversation/retry", one).await;
    assert_eq!(
        (&rows["conversations"][0]["deleted_to_seq"], &rows["conversations"][0]["unread"]),
        (&json!(3), &json!(1))
    );
    let gone = json!({"uid": "bob", "channels": [{"channel_id": "nowhere", "channel_type": 2}]});
    let gone = root.done("/conversation/retry", gone).await;
    assert_eq!(gone["deletes"], json!([{"channel_id": "nowhere", "channel_type": 2}]));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_list_of_v3_comes_in_pages_and_goes_on_where_it_ended() {
    let (_server, root) = filled().await;
    let mut seen = Vec::new();
    let mut cursor = String::new();
    let coverage = loop {
        let page = root.done("/conversation/list", json!({"uid": "bob", "limit": 1, "cursor": cursor})).await;
        seen.extend(ids(&page["conversations"]).into_iter().map(str::to_owned));
        assert!(seen.len() <= 3, "{seen:?}");
        if page["done"] == true {
            break page["coverage"].as_u64().expect("coverage");
        }
        cursor = page["next_cursor"].as_str().expect("a cursor").to_owned();
    };
    assert_eq!(seen, ["carol", "g", "alice"]);
    let since = json!({"uid": "bob", "completed_coverage": coverage});
    let page = root.done("/conversation/list", since.clone()).await;
    assert_eq!((&page["conversations"], &page["deletes"]), (&json!([]), &json!([])), "nothing changed");
    root.done("/conversations/delete", json!({"uid": "bob", "channel_id": "alice", "channel_type": 1})).await;
    root.send("alice", "g", 2, "g3").await;
    let page = root.done("/conversation/list", since).await;
    assert_eq!(ids(&page["conversations"]), ["g"]);
    assert_eq!(page["deletes"], json!([{"channel_id": "alice", "channel_type": 1}]));
    for cursor in ["x", "!!!", "AQ", "AgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"] {
        let refused = root.post("/conversation/list", json!({"uid": "bob", "cursor": cursor})).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!("cursor")), "{cursor}");
    }
    root.done("/conversations/activate", json!({"uid": "bob", "channel_id": "g", "channel_type": 2})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_of_them_are_off_with_the_feature() {
    let server = Server::on_memory_with(|config| config.conversation.on = false).await;
    let root = Caller::root(&server);
    for path in ["list", "retry", "channels", "syncMessages", "syncByChannels"] {
        let refused = root.post(&format!("/conversation/{path}"), json!({"uid": "bob"})).await;
        assert_eq!((refused.status, &refused.json["code"]), (StatusCode::BAD_REQUEST, &json!("feature_off")), "{path}");
    }
    assert_eq!(root.get("/conversations?uid=bob").await.json["code"], "feature_off");
}
