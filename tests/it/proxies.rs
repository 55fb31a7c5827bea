//! Proves: behind proxies a client's address is what trusted ones say, over HTTP, in WebSocket upgrades and in the header of
//! the PROXY protocol; nobody else is believed, and what is no header is closed.

use protocol::native::{Encoding, ServerFrame};
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::harness::{Server, until};
use crate::http::Caller;
use crate::raw::{Raw, connect, message, upgrade_request};
use crate::wukong::client::{Hello, Way, Wk, token};

const MP: Encoding = Encoding::MessagePack;
/// The client that these tests block.
const BLOCKED: &str = "203.0.113.9";
/// Another.
const CLIENT: &str = "198.51.100.1";

/// A server that trusts these proxies, with or without the PROXY protocol, and blocks [`BLOCKED`].
async fn server(trusted: &str, proxy_protocol: bool) -> Server {
    let server = Server::on_memory_with(|config| {
        config.listen.trusted_proxies = trusted.to_owned();
        config.listen.proxy_protocol = proxy_protocol;
        config.check().expect("good settings");
    })
    .await;
    Caller::root(&server).done("/system/ip/blacklist_add", json!({"ips": [BLOCKED]})).await;
    server
}

/// Where `/connz` says that a user is; `Null`: it is not online.
async fn shown(server: &Server, uid: &str) -> (Value, Value) {
    let page = Caller::root(server).get(&format!("/connz?uid={uid}")).await.json;
    (page["connections"][0]["ip"].clone(), page["connections"][0]["port"].clone())
}

/// A version 1 header.
fn line(client: &str) -> Vec<u8> {
    let family = if client.contains(':') { "TCP6" } else { "TCP4" };
    format!("PROXY {family} {client} {client} 4711 80\r\n").into_bytes()
}

/// A version 2 header, with an extension.
fn binary(client: &str) -> Vec<u8> {
    let address: std::net::IpAddr = client.parse().expect("an address");
    let (family, octets) = match address {
        std::net::IpAddr::V4(address) => (0x11, address.octets().to_vec()),
        std::net::IpAddr::V6(address) => (0x21, address.octets().to_vec()),
    };
    let body = [&octets[..], &octets, &[0x12, 0x67, 0, 80], &[4, 0, 2, 0, 0]].concat();
    let length = u8::try_from(body.len()).expect("short");
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, family, 0, length], &body].concat()
}

/// Upgrades behind `first` with these headers and connects; the session, unless the socket was closed without a word.
async fn native(server: &Server, first: &[u8], headers: &str, user: &str) -> Option<Raw> {
    let request = String::from_utf8(upgrade_request(Some(MP.subprotocol()))).expect("text");
    let request = request.replace("\r\n\r\n", &format!("\r\n{headers}\r\n"));
    let hello = message(MP, &connect(&server.user(user).await));
    let mut raw = Raw::open(server).await;
    raw.write(&[first, request.as_bytes(), &hello].concat()).await;
    if raw.buffer.is_empty() && !raw.more().await {
        return None;
    }
    let head = raw.head().await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    match raw.next(MP).await {
        Some(ServerFrame::Connected(_)) => Some(raw),
        other => panic!("connected was expected: {other:?}"),
    }
}

/// A WKProto session over TCP behind `first`, which is cut in two at `cut`.
async fn packets(server: &Server, first: &[u8], cut: usize, user: &str) -> Option<Wk> {
    let token = token(server, user, 1, 0).await;
    let hello = Hello::new(5, Way::Tcp, user, &token);
    let mut client = Wk::open(server, 5, Way::Tcp).await;
    let (connect, secret) = hello.packet();
    let all = [first, &connect].concat();
    client.raw.write(&all[..cut]).await;
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
    client.raw.write(&all[cut..]).await;
    match client.finish(&secret).await {
        Ok(()) => Some(client),
        Err(None) => None,
        Err(Some(reason)) => panic!("{reason:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_addresses_are_believed_from_trusted_proxies_only() {
    let forwarded = |list: &str| format!("X-Forwarded-For: {list}\r\n");
    for (trusted, list, ip) in [
        ("127.0.0.0/8", CLIENT, Some(CLIENT)),
        ("127.0.0.1", &*format!("{BLOCKED}, {CLIENT}"), Some(CLIENT)),
        ("127.0.0.1,10.0.0.0/8", &format!("{CLIENT}, 10.1.2.3"), Some(CLIENT)),
        ("127.0.0.1", "2001:db8::5", Some("2001:db8::5")),
        ("127.0.0.1", BLOCKED, None),
        ("127.0.0.1", &format!("{CLIENT},{BLOCKED}"), None),
        ("127.0.0.1", "nonsense", Some("127.0.0.1")),
        // Nobody is trusted, or another: this machine is not by itself.
        ("", BLOCKED, Some("127.0.0.1")),
        ("10.0.0.0/8", BLOCKED, Some("127.0.0.1")),
    ] {
        let server = server(trusted, false).await;
        let raw = native(&server, b"", &forwarded(list), "u").await;
        assert_eq!(raw.is_some(), ip.is_some(), "{trusted} {list}");
        if let Some(ip) = ip {
            let port = if ip == "127.0.0.1" {
                json!(raw.as_ref().expect("is there").stream.local_addr().expect("an address").port())
            } else {
                json!(0)
            };
            assert_eq!(shown(&server, "u").await, (json!(ip), port), "{trusted} {list}");
        }
        let root = Caller::root(&server);
        let headers = [("token", root.credential()), ("x-forwarded-for", list)];
        let over_http = root.raw("GET", "/varz", &headers, "").await.status;
        assert_eq!(over_http.as_u16(), if ip.is_some() { 200 } else { 403 }, "{trusted} {list}");
    }
    // Over several lines, as proxies that add one of their own write them.
    let server = server("127.0.0.1", false).await;
    let lines = format!("{}{}", forwarded(CLIENT), forwarded(BLOCKED));
    assert!(native(&server, b"", &lines, "u").await.is_none());
    until("all have gone", || server.app.hub().metrics().connections.get() == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_protocol_is_read_from_trusted_proxies() {
    let server = server("127.0.0.1", true).await;
    for client in [CLIENT, "2001:db8::5"] {
        for header in [line(client), binary(client)] {
            let _raw = native(&server, &header, "", "n").await.expect("is let in");
            assert_eq!(shown(&server, "n").await, (json!(client), json!(4711)));
            for cut in [1, 5, header.len() - 1, header.len(), header.len() + 3] {
                let _client = packets(&server, &header, cut, "w").await.expect("is let in");
                assert_eq!(shown(&server, "w").await, (json!(client), json!(4711)), "cut at {cut}");
            }
        }
    }
    for header in [line(BLOCKED), binary(BLOCKED)] {
        assert!(native(&server, &header, "", "b").await.is_none());
        assert!(packets(&server, &header, 4, "b").await.is_none());
    }
    // A proxy that speaks for itself is the client.
    let own = native(&server, b"PROXY UNKNOWN\r\n", "", "o").await.expect("is let in");
    let port = own.stream.local_addr().expect("an address").port();
    assert_eq!(shown(&server, "o").await, (json!("127.0.0.1"), json!(port)));
    // The address that the header names is no trusted proxy, so what its client wrote is not believed.
    let spoofed = format!("X-Forwarded-For: {BLOCKED}\r\n");
    let _raw = native(&server, &line(CLIENT), &spoofed, "s").await.expect("is let in");
    assert_eq!(shown(&server, "s").await.0, json!(CLIENT));
    // Behind two proxies it is.
    let forwarded = format!("X-Forwarded-For: {CLIENT}\r\n");
    let _raw = native(&server, &line("127.0.0.1"), &forwarded, "t").await.expect("is let in");
    assert_eq!(shown(&server, "t").await, (json!(CLIENT), json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_header_is_closed() {
    let server = server("127.0.0.1", true).await;
    let tcp = server.app.wukong_addr().expect("the TCP listener is on");
    let upgrade = upgrade_request(Some(MP.subprotocol()));
    let endless = [b"PROXY UNKNOWN ", &[b'x'; 200][..]].concat();
    let huge = [&b"\r\n\r\n\0\r\nQUIT\n"[..], &[0x21, 0x11, 0xff, 0xff]].concat();
    let wrong = binary(CLIENT).into_iter().map(|byte| if byte == 0x21 { 0x51 } else { byte }).collect::<Vec<_>>();
    for bytes in [&upgrade[..], b"PROXY TCP4 x y 1 2\r\n", b"PROXX", &endless, &huge, &wrong, b"\x10\x05hello"] {
        for addr in [server.app.socket_addr(), tcp] {
            let stream = TcpStream::connect(addr).await.expect("connects");
            let mut raw = Raw { stream, buffer: Vec::new() };
            raw.write(bytes).await;
            assert_eq!(raw.rest().await, b"", "{}", String::from_utf8_lossy(bytes));
        }
    }
    until("all have gone", || server.app.hub().metrics().connections.get() == 0).await;
    // From who is not trusted a header is what it is: no request, no packet.
    let server = self::server("10.0.0.0/8", true).await;
    let mut raw = Raw::open(&server).await;
    raw.write(&[&line(CLIENT)[..], &upgrade].concat()).await;
    assert!(raw.head().await.starts_with("HTTP/1.1 400"));
    assert!(packets(&server, &line(CLIENT), 3, "w").await.is_none());
    assert!(native(&server, b"", "", "n").await.is_some());
    assert!(packets(&server, b"", 3, "w").await.is_some());
}
