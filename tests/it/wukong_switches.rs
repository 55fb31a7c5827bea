//! Settings for programs that depend on what WuKongIM does otherwise (wukongim-http.md section 15, 2 and 29; wukongim-wire.md
//! part D, 13).

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, until};
use crate::hook_receiver::Receiver;
use crate::http::Caller;
use crate::wukong::client::{KINDS, Wk};
use crate::wukong::rpc::Rpc;

#[tokio::test(flavor = "multi_thread")]
async fn every_error_of_wukongs_routes_is_a_400_where_that_is_set() {
    for set in [false, true] {
        let server = Server::on_memory_with(|config| config.wukong.api_errors_400 = set).await;
        let (root, nobody) = (Caller::root(&server), Caller::with(&server, "nobody's"));
        let alice = Caller::user(&server, "alice").await;
        let own = |status: u16| if set { 400 } else { status };
        let no_key = nobody.post("/channel", json!({"channel_id": "g", "channel_type": 2})).await;
        let no_right = alice.post("/user/systemuids_add", json!({"uids": ["alice"]})).await;
        let malformed = root.post("/channel", json!({"channel_id": "g", "channel_type": 99})).await;
        let not_here = root.post("/cluster/nodes", json!({})).await;
        for (answer, status) in [(no_key, own(401)), (no_right, own(403)), (malformed, 400), (not_here, 400)] {
            assert_eq!((answer.status.as_u16(), &answer.json["status"]), (status, &json!(status)), "{}", answer.json);
            assert!(answer.json["msg"].is_string() && answer.json["msg"] == answer.json["error"], "{}", answer.json);
        }
        // Other routes keep their numbers, and success is success.
        assert_eq!(nobody.get("/admin/keys").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(root.get("/no/such/route").await.status, StatusCode::NOT_FOUND);
        root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice"]})).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_system_user_is_nobody_where_that_is_set() {
    for set in [false, true] {
        let receiver = Receiver::start().await;
        let url = receiver.url();
        let server = Server::on_memory_with(|config| {
            config.wukong.blank_system_uid = set;
            config.webhook.url = url;
            config.webhook.push_interval_ms = 0;
        })
        .await;
        let root = Caller::root(&server);
        root.done("/channel", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["alice", "bob"]})).await;
        let mut sessions = Vec::new();
        for (n, (version, way)) in KINDS.into_iter().enumerate() {
            sessions.push(Wk::connect(&server, version, way, &format!("bob{n}")).await);
        }
        let (mut bob, mut rpc) = (server.connect("bob").await, Rpc::connect(&server, "rpc", 0x81).await);
        let system = if set { "" } else { "____system" };
        let said = |channel_id: &str, channel_type: u8| json!({"channel_id": channel_id, "channel_type": channel_type, "payload": "eA=="});
        for (n, session) in sessions.iter_mut().enumerate() {
            root.done("/message/send", said(&format!("bob{n}"), 1)).await;
            let got = session.recv().await;
            assert_eq!((&*got.from_uid, &*got.channel_id, got.channel_type), (system, system, 1));
        }
        root.done("/message/send", said("rpc", 1)).await;
        let got = rpc.next().await;
        assert_eq!((&got["params"]["fromUid"], &got["params"]["channelId"]), (&json!(system), &json!(system)), "{got}");
        // A group keeps its name, other senders theirs, and native clients see who it was.
        root.done("/channel/subscriber_add", json!({"channel_id": "g", "channel_type": 2, "subscribers": ["bob0"]}))
            .await;
        root.done("/message/send", said("g", 2)).await;
        root.send("alice", "g", 2, "hi").await;
        for from_uid in [system, "alice"] {
            let got = sessions[0].recv().await;
            assert_eq!((&*got.from_uid, &*got.channel_id), (from_uid, "g"));
        }
        assert_eq!(&*bob.deliver().await.messages[0].from_uid, "____system");
        // Routes: the conversation keeps its name, as a client could not open it otherwise.
        let rows = root.done("/conversation/sync", json!({"uid": "bob0", "version": 0, "msg_count": 5})).await;
        let row = rows.as_array().expect("rows").iter().find(|row| row["channel_type"] == 1).expect("the conversation");
        assert_eq!((&row["channel_id"], &row["recents"][0]["from_uid"]), (&json!("____system"), &json!(system)));
        let asked = json!({"login_uid": "bob0", "channel_id": "____system", "channel_type": 1, "limit": 5});
        assert_eq!(root.done("/channel/messagesync", asked).await["messages"][0]["from_uid"], system);
        // msg.notify names nobody, msg.offline whom it was.
        let count = KINDS.len() + 3;
        until("all are told", || receiver.notified().len() == count).await;
        let system_ones = |told: &[Value]| told.iter().filter(|message| message["from_uid"] == system).count();
        assert_eq!(system_ones(&receiver.notified()), count - 1);
        until("who was offline is told", || !receiver.calls("msg.offline").is_empty()).await;
        assert!(receiver.calls("msg.offline").iter().all(|call| call.json["from_uid"] != ""));
    }
}
