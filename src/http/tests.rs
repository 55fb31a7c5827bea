//! The edge: voices, limits, ids, credentials, and that every route is in the document.

use axum::body::Body as HttpBody;
use axum::http::StatusCode;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW};
use axum::routing::get;
use http_body_util::BodyExt;
use tower::ServiceExt;

use super::*;
use crate::domain::identity::Scopes;
use crate::hub::ApiKey;
use crate::hub::testing::hub_over_memory;

const ROOT: &str = "cw_root_of_the_tests_0123456789";
const READER: &str = "cw_reader_of_the_tests_0123456789";
const BOUND: &str = "cw_bound_of_the_tests_0123456789";

async fn state_with(change: impl FnOnce(&mut Config)) -> Arc<HttpState> {
    let mut config = Config::default();
    change(&mut config);
    let (hub, credentials) = (hub_over_memory(), Arc::new(Credentials::with_pepper([1; 32])));
    hub.put_key(credentials.root_key(ROOT)).await.expect("stored");
    let key = |text: &str, namespace: Option<&str>, scopes| ApiKey {
        key_id: text.to_owned(),
        name: text.to_owned(),
        secret: credentials.hash(text),
        scopes,
        namespace: namespace.map(str::to_owned),
        revoked: false,
    };
    hub.put_key(key(READER, None, Scopes { read: true, ..Scopes::default() })).await.expect("stored");
    let all = Scopes { admin: true, send: true, read: true };
    hub.put_key(key(BOUND, Some("tenant"), all)).await.expect("stored");
    let metrics = Metrics::new();
    let (data_dir, to_sender) = (&config.data_dir, super::message::to_sender as fn(&_) -> _);
    let show = crate::webhook::Show { notify: to_sender, offline: to_sender };
    let webhooks = crate::webhook::Webhooks::new(hub.clone(), &config.webhook, data_dir, metrics.clone(), show);
    Arc::new(HttpState::new(hub, credentials, metrics, webhooks, &config, RootKeySource::Environment))
}

struct Answer {
    status: StatusCode,
    headers: axum::http::HeaderMap,
    json: serde_json::Value,
}

async fn call(router: &Router, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let mut request = Request::builder().method(method).uri(path);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(HttpBody::from(body.to_owned())).expect("a request");
    let response = router.clone().oneshot(request).await.expect("infallible");
    let (parts, body) = response.into_parts();
    let bytes = body.collect().await.expect("a body").to_bytes();
    let json = serde_json::from_slice(&bytes).unwrap_or(serde_json::Value::Null);
    Answer { status: parts.status, headers: parts.headers, json }
}

/// Every answer that is no success has all fields of the envelope, and its id in header and body.
fn check_envelope(answer: &Answer, status: u16, code: &str, field: Option<&str>) {
    assert_eq!(answer.status.as_u16(), status, "{}", answer.json);
    assert_eq!(answer.json["status"], status, "{}", answer.json);
    assert_eq!(answer.json["code"], code, "{}", answer.json);
    assert_eq!(answer.json["field"].as_str(), field, "{}", answer.json);
    assert!(answer.json["msg"].as_str().is_some_and(|m| !m.is_empty()), "{}", answer.json);
    assert_eq!(answer.json["msg"], answer.json["error"]);
    let request_id = answer.headers.get(REQUEST_ID).and_then(|v| v.to_str().ok()).expect("an id");
    assert_eq!(answer.json["request_id"], request_id);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn what_failed_has_one_envelope() {
    let router = router(state_with(|config| config.http.body_bytes_max = 1024).await);
    let root = ("authorization", format!("Bearer {ROOT}"));
    let root = [(root.0, root.1.as_str())];

    check_envelope(&call(&router, "GET", "/nope", &[], "").await, 404, "no_such_path", None);
    let answer = call(&router, "GET", "/conversation/sync", &root, "").await;
    check_envelope(&answer, 405, "method_not_allowed", None);
    assert_eq!(answer.headers[ALLOW], "POST");

    let long = format!("{{\"uid\":\"{}\"}}", "x".repeat(1024));
    check_envelope(&call(&router, "POST", "/conversation/sync", &root, &long).await, 413, "too_large", Some("body"));
    check_envelope(&call(&router, "POST", "/conversation/sync", &root, "{").await, 400, "invalid", Some("body"));
    check_envelope(
        &call(&router, "POST", "/conversation/sync", &root, r#"{"uid":5}"#).await,
        400,
        "invalid",
        Some("uid"),
    );
    check_envelope(&call(&router, "POST", "/conversation/sync", &root, "").await, 400, "invalid", Some("uid"));
    check_envelope(
        &call(&router, "POST", "/conversation/sync", &root, r#"{"uid":"a@b"}"#).await,
        400,
        "invalid",
        Some("uid"),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn credentials_open_what_they_should() {
    let router = router(state_with(|_| {}).await);
    let sync = |headers: Vec<(&'static str, String)>| {
        let router = router.clone();
        async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
            call(&router, "POST", "/conversation/sync", &headers, r#"{"uid":"a","version":-1}"#).await
        }
    };
    let answer = sync(vec![]).await;
    check_envelope(&answer, 401, "credential_missing", None);
    assert!(answer.headers.contains_key("www-authenticate"));
    check_envelope(&sync(vec![("token", "unknown".into())]).await, 401, "credential_unknown", None);
    check_envelope(&sync(vec![("Authorization", "Basic abc".into())]).await, 400, "invalid", Some("authorization"));
    check_envelope(&sync(vec![("token", BOUND.into())]).await, 403, "forbidden", None);
    // Known and allowed: the request itself is wrong.
    for headers in [("token", ROOT.to_owned()), ("TOKEN", READER.into()), ("authorization", format!("bEARER {ROOT}"))] {
        check_envelope(&sync(vec![headers]).await, 400, "invalid", Some("version"));
    }
    // A reader reads.
    let reader = [("token", READER)];
    for (path, body) in [
        ("/conversations/setUnread", r#"{"uid":"a","channel_id":"b","channel_type":1}"#),
        ("/message/send", r#"{"from_uid":"a","channel_id":"b","channel_type":1,"payload":"eA=="}"#),
        ("/channel", r#"{"channel_id":"b","channel_type":2}"#),
        ("/user/token", r#"{"uid":"a","token":"t"}"#),
        ("/admin/keys", r#"{"name":"n","scopes":["read"]}"#),
    ] {
        check_envelope(&call(&router, "POST", path, &reader, body).await, 403, "forbidden", None);
    }
    assert_eq!(call(&router, "GET", "/metrics", &reader, "").await.status, StatusCode::OK);
    check_envelope(&call(&router, "GET", "/metrics", &[], "").await, 401, "credential_missing", None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_route_but_the_harmless_wants_a_credential() {
    let router = router(state_with(|config| config.relation.http_errors = true).await);
    let open = ["/health", "/healthz", "/readyz", "/openapi.json", "/docs"];
    for (path, method) in documented() {
        // Names an application, which opens nothing.
        let answer = call(&router, &method, &path.replace(['{', '}'], ""), &[("apikey", ROOT)], "{}").await;
        if open.contains(&path.as_str()) {
            assert_ne!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}");
            continue;
        }
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {path}: {}", answer.json);
        assert!(answer.headers.contains_key("www-authenticate"), "{method} {path}");
        if class_of(&path) == "relation" {
            assert_eq!(answer.json["code"], "10101", "{method} {path}");
        } else if class_of(&path) == "m3o" {
            assert!(answer.json["Id"].as_str().is_some_and(|id| id.ends_with(".Unauthorized")), "{method} {path}");
        }
    }
}

fn documented() -> Vec<(String, String)> {
    let document = openapi();
    let paths = document["paths"].as_object().expect("paths");
    let of_path = |(path, item): (&String, &serde_json::Value)| {
        let methods = item.as_object().expect("methods").keys();
        methods.map(|method| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
    };
    paths.iter().flat_map(of_path).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn every_route_is_documented_and_every_documented_route_is_there() {
    let documented = documented();
    for (path, method) in [
        ("/conversation/sync", "POST"),
        ("/conversations/setUnread", "POST"),
        ("/conversations/delete", "POST"),
        ("/conversations/clearUnread", "POST"),
        ("/conversation/unread/explain", "GET"),
        ("/conversation/unread/explain", "POST"),
        ("/user/token", "POST"),
        ("/user/device_quit", "POST"),
        ("/user/onlinestatus", "POST"),
        ("/channel", "POST"),
        ("/channel/info", "POST"),
        ("/channel/delete", "POST"),
        ("/channel/subscriber_add", "POST"),
        ("/channel/subscriber_remove", "POST"),
        ("/channel/subscriber_remove_all", "POST"),
        ("/message/send", "POST"),
        ("/channel/messagesync", "POST"),
        ("/chats", "GET"),
        ("/chats/messages", "GET"),
        ("/chats/messages", "POST"),
        ("/chats/messages/{id}", "PATCH"),
        ("/chats/messages/{id}", "DELETE"),
        ("/chats/groups", "POST"),
        ("/chats/groups/{id}", "GET"),
        ("/chats/groups/{id}", "PATCH"),
        ("/chats/groups/{id}/users", "POST"),
        ("/chats/groups/{id}/users/{userId}", "PUT"),
        ("/chats/groups/{id}/users/{userId}", "DELETE"),
        ("/api/v1/chat/threads", "GET"),
        ("/api/v1/chat/threads", "POST"),
        ("/api/v1/chat/threads/{threadId}", "GET"),
        ("/api/v1/chat/threads/{threadId}", "PATCH"),
        ("/api/v1/chat/threads/{threadId}/access", "POST"),
        ("/api/v1/chat/threads/{threadId}/users", "POST"),
        ("/api/v1/chat/threads/{threadId}/users/{userId}", "DELETE"),
        ("/api/v1/chat/threads/{threadId}/messages", "GET"),
        ("/api/v1/chat/messages", "POST"),
        ("/api/v1/chat/messages/{messageId}", "GET"),
        ("/api/v1/chat/messages/{messageId}", "PATCH"),
        ("/api/v1/chat/messages/{messageId}", "DELETE"),
        ("/api/v1/chat/messages/{messageId}/like", "PUT"),
        ("/api/v1/chat/messages/{messageId}/like", "DELETE"),
        ("/api/v1/chat/messages/{messageId}/dislike", "PUT"),
        ("/api/v1/chat/messages/{messageId}/dislike", "DELETE"),
        ("/api/v1/files", "POST"),
        ("/api/v1/files/{id}", "GET"),
        ("/api/v1/files/{id}/info", "GET"),
        ("/admin/keys", "GET"),
        ("/admin/keys", "POST"),
        ("/admin/keys/{key_id}/rotate", "POST"),
        ("/admin/keys/{key_id}/revoke", "POST"),
        ("/health", "GET"),
        ("/healthz", "GET"),
        ("/readyz", "GET"),
        ("/metrics", "GET"),
        ("/openapi.json", "GET"),
        ("/docs", "GET"),
    ] {
        assert!(documented.contains(&(path.to_owned(), method.to_owned())), "{method} {path} is not documented");
    }
    let router = router(state_with(|_| {}).await);
    for (path, method) in &documented {
        assert_ne!(class_of(path), "unknown", "{path} has no class for metrics");
        let answer = call(&router, method, &path.replace("{key_id}", "x"), &[("token", ROOT)], "{}").await;
        assert_ne!(answer.json["code"], "no_such_path", "{method} {path}");
        assert_ne!(answer.json["code"], "method_not_allowed", "{method} {path}");
    }
    // Routes are added through `routes!` only, which documents them; a bare `.route(` would not be.
    for source in [
        include_str!("mod.rs"),
        include_str!("ops.rs"),
        include_str!("admin.rs"),
        include_str!("reference/mod.rs"),
        include_str!("dialects/chats/mod.rs"),
        include_str!("dialects/conversation/mod.rs"),
        include_str!("dialects/threads/mod.rs"),
        include_str!("files.rs"),
    ] {
        assert!(!source.contains(".route("), "a route that no document knows");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn request_ids_go_in_and_out() {
    let router = router(state_with(|_| {}).await);
    let answer = call(&router, "GET", "/healthz", &[("x-request-id", "abc-1")], "").await;
    assert_eq!(answer.headers[REQUEST_ID], "abc-1");
    let endless = "x".repeat(REQUEST_ID_BYTES_MAX + 1);
    for bad in ["", "a b", endless.as_str()] {
        let answer = call(&router, "GET", "/healthz", &[("x-request-id", bad)], "").await;
        let id = answer.headers[REQUEST_ID].to_str().expect("text").to_owned();
        assert!(id != bad && id.len() == 32, "{id}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn browsers_of_any_origin_may_call() {
    let router = router(state_with(|_| {}).await);
    let preflight = [
        ("origin", "https://example.org"),
        ("access-control-request-method", "POST"),
        ("access-control-request-headers", "token,content-type"),
    ];
    let answer = call(&router, "OPTIONS", "/conversation/sync", &preflight, "").await;
    assert!(answer.status.is_success());
    assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*");
    assert_eq!(answer.headers["access-control-allow-headers"], "token,content-type");
    let answer = call(&router, "GET", "/nope", &[("origin", "https://example.org")], "").await;
    assert_eq!(answer.headers[ACCESS_CONTROL_ALLOW_ORIGIN], "*", "refusals can be read too");
}

/// A router with routes that misbehave, under the same edge.
async fn misbehaving(timeout_ms: u64) -> Router {
    let state = state_with(|config| config.http.request_timeout_ms = timeout_ms).await;
    let routes = Router::new()
        .route("/panic", get(async || -> Response { panic!("a defect") }))
        .route("/sleep", get(std::future::pending::<Response>));
    under_edge(routes, &state).with_state(state)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn panics_and_endless_handlers_are_answered() {
    let router = misbehaving(100).await;
    check_envelope(&call(&router, "GET", "/panic", &[], "").await, 500, "internal", None);
    let answer = call(&router, "GET", "/sleep", &[], "").await;
    check_envelope(&answer, 503, "timed_out", None);
    assert_eq!(answer.json["retry_after_ms"], 1_000);
    assert_eq!(answer.headers["retry-after"], "1");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn conversations_can_be_switched_off() {
    let router = router(state_with(|config| config.conversation.on = false).await);
    for path in
        ["/conversation/sync", "/conversations/setUnread", "/conversations/clearUnread", "/conversations/delete"]
    {
        let answer = call(&router, "POST", path, &[("token", ROOT)], "{}").await;
        check_envelope(&answer, 400, "feature_off", None);
        assert!(answer.json["msg"].as_str().is_some_and(|m| m.contains("conversation.on")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn keys_are_made_listed_rotated_and_revoked() {
    let state = state_with(|_| {}).await;
    let router = router(state.clone());
    let root = [("token", ROOT)];
    let made = call(&router, "POST", "/admin/keys", &root, r#"{"name":"shop","scopes":["send"]}"#).await;
    assert_eq!(made.status, StatusCode::OK);
    let (id, key) = (made.json["key_id"].as_str().expect("id"), made.json["key"].as_str().expect("key"));
    assert!(state.credentials.identify(&state.hub, key, None).is_ok());

    let list = call(&router, "GET", "/admin/keys", &root, "").await;
    assert_eq!(list.json["keys"][0]["key_id"], "root");
    assert!(!list.json.to_string().contains(key), "secrets are not listed");

    let rotated = call(&router, "POST", &format!("/admin/keys/{id}/rotate"), &root, "").await;
    let new = rotated.json["key"].as_str().expect("key");
    assert!(state.credentials.identify(&state.hub, key, None).is_err());
    assert!(state.credentials.identify(&state.hub, new, None).is_ok());

    assert_eq!(call(&router, "POST", &format!("/admin/keys/{id}/revoke"), &root, "").await.status, StatusCode::OK);
    assert!(state.credentials.identify(&state.hub, new, None).is_err());
    let answer = call(&router, "POST", &format!("/admin/keys/{id}/rotate"), &root, "").await;
    check_envelope(&answer, 400, "invalid", Some("key_id"));

    let answer = call(&router, "POST", "/admin/keys/nosuch/revoke", &root, "").await;
    check_envelope(&answer, 404, "not_found", None);
    let answer = call(&router, "POST", "/admin/keys/root/revoke", &root, "").await;
    check_envelope(&answer, 400, "invalid", Some("key_id"));
    let answer = call(&router, "POST", "/admin/keys/root/rotate", &root, "").await;
    check_envelope(&answer, 400, "invalid", Some("key_id"));
    for (body, field) in [
        (r#"{"scopes":["send"]}"#, "name"),
        (r#"{"name":"x"}"#, "scopes"),
        (r#"{"name":"x","scopes":["all"]}"#, "scopes"),
        (r#"{"name":"x","scopes":["send"],"namespace":"a@b"}"#, "namespace"),
    ] {
        check_envelope(&call(&router, "POST", "/admin/keys", &root, body).await, 400, "invalid", Some(field));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_drain_ends_idle_connections_and_says_so() {
    let state = state_with(|_| {}).await;
    let server = HttpServer::bind(([127, 0, 0, 1], 0).into(), 16, state.clone()).await.expect("bound");
    let addr = server.addr();
    let second = HttpServer::bind(addr, 16, state).await.expect_err("must be refused").to_string();
    assert!(second.contains(&addr.to_string()) && second.contains("in use"), "{second}");

    let mut idle = tokio::net::TcpStream::connect(addr).await.expect("connected");
    let request = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut idle, request).await.expect("written");
    let mut first = [0; 12];
    tokio::io::AsyncReadExt::read_exact(&mut idle, &mut first).await.expect("answered");
    assert_eq!(&first, b"HTTP/1.1 200");
    assert!(server.drain(Duration::from_secs(10)).await, "an idle connection does not hold up a drain");
    let mut rest = Vec::new();
    tokio::io::AsyncReadExt::read_to_end(&mut idle, &mut rest).await.expect("ended");
    assert!(tokio::net::TcpStream::connect(addr).await.is_err());
}
