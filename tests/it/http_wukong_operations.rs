//! Addresses, figures, connections and blocked addresses over WuKongIM's HTTP API; and that a route that is not here says so in
//! the reference's shape.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{Server, until};
use crate::http::Caller;

#[tokio::test(flavor = "multi_thread")]
async fn clients_are_told_where_to_connect() {
    let server = Server::on_memory_with(|config| {
        config.wukong.tcp_listen = Some("127.0.0.1:5100".parse().expect("address"));
    })
    .await;
    let (root, bob) = (Caller::root(&server), Caller::user(&server, "bob").await);
    let own =
        json!({"tcp_addr": "127.0.0.1:5100", "ws_addr": format!("ws://{}", server.app.socket_addr()), "wss_addr": ""});
    assert_eq!(root.get("/route").await.json, own);
    assert_eq!(bob.get("/route?uid=bob").await.json, own);
    let intranet = root.get("/route?intranet=1").await.json;
    assert_eq!(intranet, json!({"tcp_addr": "127.0.0.1:5100", "ws_addr": "", "wss_addr": ""}));
    let batch = root.done("/route/batch", json!(["a", "b"])).await;
    assert_eq!((&batch[0]["uids"], &batch[0]["ws_addr"]), (&json!(["a", "b"]), &own["ws_addr"]));

    let server = Server::on_memory_with(|config| {
        config.wukong.tcp_listen = None;
        config.external.ws_addr = "ws://chat.example:5200".to_owned();
        config.external.wss_addr = "wss://chat.example/ws".to_owned();
    })
    .await;
    let told = Caller::root(&server).get("/route").await.json;
    let expected = json!({"tcp_addr": "", "ws_addr": "ws://chat.example:5200", "wss_addr": "wss://chat.example/ws"});
    assert_eq!(told, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_and_connections_are_shown_and_connections_closed() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let mut clients = Vec::new();
    for uid in ["alice", "bob", "carol"] {
        clients.push(server.connect(uid).await);
    }
    root.send("alice", "bob", 1, "x").await;
    let varz = root.get("/varz?show=conn").await.json;
    assert_eq!(
        (&varz["connections"], &varz["in_msgs"], &varz["server_name"]),
        (&json!(3), &json!(1), &json!("chinwag"))
    );
    assert!(varz["uptime"].as_str().is_some_and(|text| text.ends_with('s')), "{varz}");
    let setting = root.get("/varz/setting").await.json;
    assert_eq!(setting["logger"], json!({"trace_on": 0, "loki_on": 0}));
    for path in ["/health", "/healthz", "/readyz"] {
        assert_eq!(root.raw("GET", path, &[], "").await.json["status"], "ok", "{path}");
    }

    let page = root.get("/connz?offset=1&limit=1").await.json;
    assert_eq!((&page["total"], &page["offset"], &page["limit"]), (&json!(3), &json!(1), &json!(1)));
    let uids = |page: &Value| -> Vec<String> {
        let rows = page["connections"].as_array().expect("connections");
        rows.iter().filter_map(|row| row["uid"].as_str().map(str::to_owned)).collect()
    };
    assert_eq!(uids(&page), ["bob"]);
    assert_eq!(uids(&root.get("/connz").await.json), ["alice", "bob", "carol"]);
    let bobs = root.get("/connz?uid=bob").await.json;
    assert_eq!((&bobs["total"], &bobs["connections"][0]["device"]), (&json!(1), &json!("APP")));
    let kick = json!({"uid": "bob", "conn_id": bobs["connections"][0]["id"], "node_id": 0});
    root.done("/conn/kick", kick.clone()).await;
    root.done("/conn/remove", kick).await;
    until("bob is gone", || server.app.hub().online(&[server.uid("bob")]).is_empty()).await;
    assert_eq!(uids(&root.get("/connz").await.json), ["alice", "carol"]);
    let refused = root.post("/conn/kick", json!({"uid": "bob"})).await;
    assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!("conn_id")));
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_addresses_get_nothing() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    root.done("/system/ip/blacklist_add", json!({"ips": ["10.1.2.3", "::ffff:10.1.2.4", "2001:db8::1"]})).await;
    root.done("/system/ip/blacklist_remove", json!({"ips": ["2001:db8::1"]})).await;
    assert_eq!(root.get("/system/ip/blacklist").await.json, json!(["10.1.2.3", "10.1.2.4"]));
    let from = async |address: &str| {
        let headers = [("token", root.credential()), ("x-forwarded-for", address)];
        root.raw("GET", "/varz", &headers, "").await
    };
    let refused = from("10.1.2.3, 192.0.2.1").await;
    assert_eq!((refused.status, refused.bytes.len()), (StatusCode::FORBIDDEN, 0));
    assert_eq!(from("192.0.2.1, 10.1.2.3").await.status, StatusCode::OK, "the caller's own comes first");
    for (ip, field) in [("127.0.0.1", "ips[0]"), ("::1", "ips[0]"), ("nonsense", "ips[0]"), ("10.0.0.0/8", "ips[0]")] {
        let refused = root.post("/system/ip/blacklist_add", json!({"ips": [ip]})).await;
        assert_eq!((refused.status, &refused.json["field"]), (StatusCode::BAD_REQUEST, &json!(field)), "{ip}");
    }
    // The sockets themselves: this machine cannot be blocked over HTTP, but the rule is the hub's.
    server.app.hub().set_blocked_addresses(vec!["127.0.0.1".parse().expect("address")], true).await.expect("blocked");
    let addr = server.app.http_addr();
    let answer = tokio::task::spawn_blocking(move || {
        use std::io::{Read, Write};
        let mut socket = std::net::TcpStream::connect(addr).expect("a connection");
        socket.set_read_timeout(Some(crate::harness::PATIENCE)).expect("a time limit");
        let _ = socket.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    });
    let answer = answer.await.expect("an answer");
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 403"), "{answer}");
    let upgrade = tokio_tungstenite::connect_async(format!("ws://{}/", server.app.socket_addr())).await;
    assert!(upgrade.is_err(), "closed without a word");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_route_that_is_not_here_says_so() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let refused = chinwag::http::reference::table::ROUTES
        .iter()
        .filter(|route| route.support == chinwag::http::reference::table::Support::Refused);
    for route in refused {
        let method = if route.method == "*" { "GET" } else { route.method };
        for path in [route.path.to_owned(), route.path.replace("/*", ""), route.path.replace('*', "a/b")] {
            let answer = root.call(method, &path, Some(json!({}))).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}");
            let (status, code) = (&answer.json["status"], &answer.json["code"]);
            assert_eq!((status, code), (&json!(400), &json!("not_supported")), "{path}");
            assert!(answer.json["msg"].as_str().is_some_and(|text| text.contains(route.note)), "{}", answer.json);
        }
    }
}
