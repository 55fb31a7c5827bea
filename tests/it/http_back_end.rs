//! What a back end does around conversations: tokens, channels, sends with every refusal, history; and that a user's own
//! credential is held to a client's rules where an API key is trusted.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::Server;
use crate::http::Caller;

fn send(from: &str, channel_id: &str, channel_type: u8) -> Value {
    json!({"from_uid": from, "channel_id": channel_id, "channel_type": channel_type, "payload": "eA=="})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_over_http_reaches_sockets() {
    let server = Server::on_memory().await;
    let mut bob = server.connect("bob").await;
    Caller::root(&server).send("alice", "bob", 1, "x").await;
    assert_eq!(bob.delivered().await, [("alice".to_owned(), 1, b"x".to_vec())]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeat_gets_the_first_outcome_also_after_a_restart() {
    let server = Server::on_disk().await;
    let root = Caller::root(&server);
    let mut body = send("alice", "bob", 1);
    body["client_msg_no"] = json!("m1");
    let first = root.done("/message/send", body.clone()).await;
    assert_eq!((&first["reason"], &first["message_seq"], &first["duplicate"]), (&json!(1), &json!(1), &json!(false)));
    assert_eq!(first["data"]["message_id"], first["message_id"]);
    let server = server.restart().await;
    let root = Caller::root(&server);
    let again = root.done("/message/send", body.clone()).await;
    assert_eq!((&again["message_id"], &again["duplicate"]), (&first["message_id"], &json!(true)));
    body["payload"] = json!("eHg=");
    let conflict = root.post("/message/send", body).await;
    assert_eq!((conflict.status, &conflict.json["code"]), (StatusCode::CONFLICT, &json!("client_msg_no_conflict")));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_a_channels_rules_are_reasons() {
    let server = Server::on_memory().await;
    let (root, eve) = (Caller::root(&server), Caller::user(&server, "eve").await);
    let reason = async |caller: &Caller, body: Value| {
        let answer = caller.done("/message/send", body).await;
        assert_eq!(answer["status"], if answer["reason"] == 1 { json!(200) } else { answer["reason"].clone() });
        answer["reason"].clone()
    };
    assert_eq!(reason(&root, send("alice", "g", 2)).await, 5, "no such group");
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice"]})).await;
    assert_eq!(reason(&root, send("eve", "g", 2)).await, 1, "a back end is trusted");
    assert_eq!(reason(&eve, send("eve", "g", 2)).await, 3, "a user must be a member");
    root.done("/channel/subscriber_add", json!({"channel_id": "g", "subscribers": ["eve"]})).await;
    assert_eq!(reason(&eve, send("", "g", 2)).await, 1, "from_uid is one's own");
    root.done("/channel/subscriber_remove", json!({"channel_id": "g", "subscribers": ["eve"]})).await;
    assert_eq!(reason(&eve, send("eve", "g", 2)).await, 3);
    root.done("/channel/info", json!({"channel_id": "g", "channel_type": 2, "ban": 1})).await;
    assert_eq!(reason(&root, send("alice", "g", 2)).await, 19, "banned for back ends too");
    root.done("/channel/info", json!({"channel_id": "g", "channel_type": 2})).await;
    root.done("/channel/delete", json!({"channel_id": "g", "channel_type": 2})).await;
    assert_eq!(reason(&root, send("alice", "g", 2)).await, 24, "disbanded");

    let forged = eve.post("/message/send", send("alice", "bob", 1)).await;
    assert_eq!((forged.status, &forged.json["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")));
    let mut large = send("alice", "bob", 1);
    large["payload"] = json!("AAAA".repeat(30_000));
    let refused = root.post("/message/send", large).await;
    assert_eq!((refused.status, &refused.json["field"]), (StatusCode::PAYLOAD_TOO_LARGE, &json!("payload")));
}

#[tokio::test(flavor = "multi_thread")]
async fn members_are_added_and_replaced_only_on_request() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let put =
        |reset: u8, who: &[&str]| json!({"channel_id": "g", "channel_type": 2, "reset": reset, "subscribers": who});
    root.done("/channel", put(0, &["alice"])).await;
    root.done("/channel", put(0, &["bob"])).await;
    root.send("alice", "g", 2, "x").await;
    let listed = async |uid: &str| {
        let rows = root.done("/conversation/sync", json!({"uid": uid})).await;
        rows.as_array().is_some_and(|rows| !rows.is_empty())
    };
    assert!(listed("alice").await && listed("bob").await, "added");
    root.done("/channel", put(1, &["bob"])).await;
    assert!(!listed("alice").await && listed("bob").await, "replaced");
    for (body, field) in [
        (json!({"channel_id": "g", "channel_type": 9}), "channel_type"),
        (json!({"channel_id": "", "channel_type": 2}), "channel_id"),
        (json!({"channel_id": "g", "channel_type": 2, "subscribers": ["a@b"]}), "subscribers[0]"),
        (json!({"channel_id": "g", "channel_type": 2, "ban": true}), "ban"),
        (json!({"channel_id": "alice", "channel_type": 1, "subscribers": ["bob"]}), "subscribers"),
    ] {
        let refused = root.post("/channel", body).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!(field)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn history_pages_as_the_reference_and_for_members_only() {
    let server = Server::on_memory().await;
    let (root, eve) = (Caller::root(&server), Caller::user(&server, "eve").await);
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice"]})).await;
    for _ in 0..5 {
        root.send("alice", "g", 2, "x").await;
    }
    let page = async |start: u64, end: u64, limit: u32, pull_mode: u8| {
        let body = json!({"login_uid": "alice", "channel_id": "g", "channel_type": 2, "start_message_seq": start,
                          "end_message_seq": end, "limit": limit, "pull_mode": pull_mode});
        let page = root.done("/channel/messagesync", body).await;
        let messages = page["messages"].as_array().expect("messages");
        let seqs: Vec<u64> = messages.iter().filter_map(|m| m["message_seq"].as_u64()).collect();
        (seqs, page["more"].clone())
    };
    assert_eq!(page(0, 0, 2, 0).await, (vec![4, 5], json!(1)), "the newest");
    assert_eq!(page(3, 0, 2, 0).await, (vec![2, 3], json!(1)), "towards older, start included");
    assert_eq!(page(3, 1, 9, 0).await, (vec![2, 3], json!(0)), "end excluded");
    assert_eq!(page(2, 0, 2, 1).await, (vec![2, 3], json!(1)), "towards newer");
    assert_eq!(page(2, 4, 9, 1).await, (vec![2, 3], json!(0)));
    let name = json!({"channel_id": "g", "channel_type": 2, "limit": 5});
    let refused = eve.post("/channel/messagesync", name).await;
    assert_eq!((refused.status, &refused.json["code"]), (StatusCode::FORBIDDEN, &json!("not_member")));
}

#[tokio::test(flavor = "multi_thread")]
async fn presence_and_signing_out() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    root.done("/user/token", json!({"uid": "bob", "token": "t1", "device_flag": 1})).await;
    assert_eq!(root.done("/user/onlinestatus", json!(["bob", "alice"])).await, json!([]));
    let _alice = server.connect("alice").await;
    let online = root.done("/user/onlinestatus", json!(["bob", "alice"])).await;
    assert_eq!(online, json!([{"uid": "alice", "device_flag": 0, "online": 1}]));
    let bob = Caller::with(&server, "t1");
    bob.done("/conversation/sync", json!({})).await;
    root.done("/user/device_quit", json!({"uid": "bob", "device_flag": -1})).await;
    assert_eq!(bob.post("/conversation/sync", json!({})).await.status, StatusCode::UNAUTHORIZED);
    let metrics = root.get("/metrics").await;
    assert!(metrics.json.as_str().is_some_and(|text| text.contains("chinwag_sessions 1")));
    assert_eq!(root.get("/readyz").await.json, json!({"status": "ok"}));
}
