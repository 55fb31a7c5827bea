//! Users and channels over WuKongIM's HTTP API, one case per route; and who is let in: a key in either header, a user for
//! oneself, nobody, or anybody where the configuration says so.

use reqwest::StatusCode;
use serde_json::json;

use crate::harness::Server;
use crate::http::Caller;

#[tokio::test(flavor = "multi_thread")]
async fn a_banned_user_gets_no_token() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let token = json!({"uid": "bob", "token": "t1"});
    root.done("/channel/info", json!({"channel_id": "bob", "channel_type": 1, "ban": 1})).await;
    assert_eq!(root.done("/user/token", token.clone()).await, json!({"status": 19}));
    let refused = Caller::with(&server, "t1").post("/conversation/sync", json!({})).await;
    assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    root.done("/channel/info", json!({"channel_id": "bob", "channel_type": 1})).await;
    assert_eq!(root.done("/user/token", token).await, json!({"status": 200}));
    Caller::with(&server, "t1").done("/conversation/sync", json!({})).await;
    let refused = root.post("/user/token", json!({"uid": "____system", "token": "x"})).await;
    assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!("uid")));
}

#[tokio::test(flavor = "multi_thread")]
async fn nulls_and_empty_lists_are_nothing() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    for list in [json!([]), json!(null)] {
        assert_eq!(root.done("/user/onlinestatus", list.clone()).await, json!([]));
        assert_eq!(root.done("/user/systemuids_add", json!({"uids": list})).await, json!({"status": 200}));
    }
    root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": null, "ban": null})).await;
    root.done("/channel/subscriber_remove", json!({"channel_id": "nowhere", "subscribers": ["a"]})).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_temporary_channel_has_the_members_it_was_given_last() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let (alice, bob) = (Caller::user(&server, "alice").await, Caller::user(&server, "bob").await);
    let set = |uids: &[&str]| json!({"channel_id": "t", "uids": uids});
    let may = async |caller: &Caller, uid: &str| {
        let body = json!({"from_uid": uid, "channel_id": "t", "channel_type": 2, "payload": "eA=="});
        caller.done("/message/send", body).await["reason"] == 1
    };
    root.done("/tmpchannel/subscriber_set", set(&["alice"])).await;
    assert!(may(&alice, "alice").await && !may(&bob, "bob").await);
    root.done("/tmpchannel/subscriber_set", set(&["bob"])).await;
    assert!(!may(&alice, "alice").await && may(&bob, "bob").await);
    root.done("/channel/subscriber_remove_all", json!({"channel_id": "t", "channel_type": 2})).await;
    assert!(!may(&bob, "bob").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_let_in_without_a_credential_unless_the_api_is_open() {
    let closed = Server::on_memory().await;
    let nobody = Caller::root(&closed);
    for (method, path) in [("POST", "/user/token"), ("GET", "/route"), ("POST", "/message/sync"), ("GET", "/varz")] {
        let refused = nobody.raw(method, path, &[], "{}").await;
        assert_eq!((refused.status, &refused.json["status"]), (StatusCode::UNAUTHORIZED, &json!(401)), "{path}");
    }

    let open = Server::on_memory_with(|config| config.wukong.api_open = true).await;
    let anybody = Caller::root(&open);
    let token = json!({"uid": "bob", "token": "t1"}).to_string();
    assert_eq!(anybody.raw("POST", "/user/token", &[], token).await.json, json!({"status": 200}));
    let send = json!({"from_uid": "alice", "channel_id": "bob", "channel_type": 1, "payload": "eA=="}).to_string();
    assert_eq!(anybody.raw("POST", "/message/send", &[], send).await.json["reason"], 1);
    assert_eq!(anybody.raw("GET", "/user/systemuids", &[], "").await.json, json!([]));
    // Who has a credential is held to it, and what is not WuKongIM's stays closed.
    let wrong = anybody.raw("GET", "/user/systemuids", &[("token", "nobody-has-this")], "").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let user = anybody.raw("GET", "/user/systemuids", &[("token", "t1")], "").await;
    assert_eq!(user.status, StatusCode::FORBIDDEN);
    for path in ["/admin/keys", "/chats", "/files/x"] {
        let refused = anybody.raw("GET", path, &[], "").await;
        assert!(refused.status.is_client_error(), "{path}: {}", refused.status);
        assert_ne!(refused.status, StatusCode::OK, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn users_act_for_themselves_only_and_administer_nothing() {
    let server = Server::on_memory().await;
    let (root, bob) = (Caller::root(&server), Caller::user(&server, "bob").await);
    root.send("alice", "bob", 1, "x").await;
    let named = |uid: &str| json!({"uid": uid, "login_uid": uid, "channel_id": "alice", "channel_type": 1});
    for path in [
        "/message/sync",
        "/channel/messagesync",
        "/messages",
        "/conversation/channels",
        "/conversation/list",
        "/conversation/retry",
        "/conversation/syncMessages",
        "/conversations/activate",
        "/message/cmd/bind",
    ] {
        bob.done(path, named("bob")).await;
        bob.done(path, named("")).await;
        let refused = bob.post(path, named("carol")).await;
        assert_eq!((refused.status, &refused.json["code"]), (StatusCode::FORBIDDEN, &json!("forbidden")), "{path}");
    }
    for path in [
        "/channel",
        "/channel/info",
        "/channel/delete",
        "/channel/subscriber_add",
        "/channel/whitelist_set",
        "/user/systemuids_add",
        "/tmpchannel/subscriber_set",
        "/conn/kick",
        "/system/ip/blacklist_add",
    ] {
        assert_eq!(bob.post(path, json!({})).await.status, StatusCode::FORBIDDEN, "{path}");
    }
    for path in ["/user/systemuids", "/channel/whitelist?channel_id=g", "/varz", "/connz", "/system/ip/blacklist"] {
        assert_eq!(bob.get(path).await.status, StatusCode::FORBIDDEN, "{path}");
    }
}
