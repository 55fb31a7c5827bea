//! Addresses, figures, connections and blocked addresses over WuKongIM's HTTP API; and that a route that is not here says so in
//! the reference's shape.

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::harness::{PATIENCE, Server, until};
use crate::http::Caller;
use crate::wukong::client::{Way, Wk};
use crate::wukong::rpc::Rpc;

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
async fn connections_show_what_they_carried() {
    let server = Server::on_memory().await;
    let root = Caller::root(&server);
    let mut native = server.connect("native").await;
    let mut wk = Wk::connect(&server, 5, Way::Tcp, "wk").await;
    let mut rpc = Rpc::connect(&server, "rpc", 0x81).await;
    server.group("g", &["native", "wk", "rpc"]).await;
    native.say("g", 2, b"12345").await;
    wk.recv().await;
    rpc.next().await;
    wk.send("", "g", 2, b"1234567").await;
    native.deliver().await;
    rpc.next().await;
    // What was answered was counted before; RECVACK may still be under way.
    assert_eq!(wk.pending().await, []);
    rpc.ask(&json!({"method": "ping", "id": "p"})).await;
    let page = root.get("/connz").await.json;
    let of = |uid: &str| -> Value {
        let rows = page["connections"].as_array().expect("connections");
        rows.iter().find(|row| row["uid"] == uid).cloned().expect("is online")
    };
    let moment = |text: &Value| {
        let text = text.as_str().expect("a text");
        assert!(text.len() == 24 && text.starts_with("20") && text.ends_with('Z') && &text[10..11] == "T", "{text}");
    };
    for (uid, version, ours, theirs, bytes) in [("native", 0, 1, 1, 5), ("wk", 5, 1, 1, 7), ("rpc", 0, 0, 2, 0)] {
        let row = of(uid);
        let counts = [&row["in_msgs"], &row["out_msgs"], &row["version"], &row["in_msg_bytes"]];
        assert_eq!(counts, [&json!(ours), &json!(theirs), &json!(version), &json!(bytes)], "{row}");
        assert_eq!((&row["ip"], &row["pending_bytes"]), (&json!("127.0.0.1"), &json!(0)), "{row}");
        assert!(row["port"].as_u64().is_some_and(|port| port > 0), "{row}");
        for bytes in ["in_packet_bytes", "out_packet_bytes", "out_msg_bytes", "out_packets"] {
            assert!(row[bytes].as_u64().is_some_and(|n| n > 0), "{bytes}: {row}");
        }
        moment(&row["last_activity"]);
        for span in ["uptime", "idle"] {
            assert!(row[span].as_str().is_some_and(|text| text.ends_with('s')), "{row}");
        }
    }
    moment(&page["now"]);
    let local = wk.raw.stream.local_addr().expect("an address");
    assert_eq!((&of("wk")["port"], &of("wk")["in_packets"]), (&json!(local.port()), &json!(3)), "SEND, RECVACK, PING");
    // A second late.
    let mut varz = Value::Null;
    let begun = tokio::time::Instant::now();
    while !["in_bytes", "out_bytes"].iter().all(|key| varz[key].as_u64().is_some_and(|n| n > 0)) {
        assert!(begun.elapsed() < PATIENCE, "{varz}");
        varz = root.get("/varz").await.json;
    }
    assert!(varz["goroutine"].as_u64().is_some_and(|n| n > 1) && varz["cpu"].is_f64(), "{varz}");
    assert!(varz["mem"].as_u64().is_some_and(|n| n > 1 << 20), "{varz}");
    let metrics = root.raw("GET", "/metrics", &[("token", root.credential())], "").await;
    let text = String::from_utf8(metrics.bytes).expect("text");
    for name in ["chinwag_read_bytes_total", "chinwag_written_bytes_total", "chinwag_frames_written_total"] {
        let counted = text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        assert!(counted.is_some_and(|n| n > 0), "{name}: {counted:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn blocked_addresses_get_nothing() {
    let server = Server::on_memory_with(|config| config.listen.trusted_proxies = "127.0.0.1".to_owned()).await;
    let root = Caller::root(&server);
    root.done("/system/ip/blacklist_add", json!({"ips": ["10.1.2.3", "::ffff:10.1.2.4", "2001:db8::1"]})).await;
    root.done("/system/ip/blacklist_remove", json!({"ips": ["2001:db8::1"]})).await;
    assert_eq!(root.get("/system/ip/blacklist").await.json, json!(["10.1.2.3", "10.1.2.4"]));
    let from = async |address: &str| {
        let headers = [("token", root.credential()), ("x-forwarded-for", address)];
        root.raw("GET", "/varz", &headers, "").await
    };
    let refused = from("192.0.2.1, 10.1.2.3").await;
    assert_eq!((refused.status, refused.bytes.len()), (StatusCode::FORBIDDEN, 0));
    assert_eq!(from("10.1.2.3, 192.0.2.1").await.status, StatusCode::OK, "the proxy has written the last one");
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
