//! What operators and bootstrapping clients ask of WuKongIM: where to connect, what the server does, who is connected, which
//! addresses are blocked. Health, readiness and metrics are `http::ops`'s.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use protocol::close::CloseReason;
use protocol::ids::{DeviceFlag, Uid};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::{Admin, Answer, Watcher, at_most, done, wire};
use crate::clock;
use crate::domain::refusal::Refusal;
use crate::http::HttpState;
use crate::http::envelope::{Done, ErrorBody};
use crate::http::extract::{Auth, Body, QueryOrBody};
use crate::http::problem::Problem;
use crate::hub::listings::REGISTER_MAX;
use crate::hub::sessions::SessionId;

/// Uids in one question for addresses.
const ROUTE_UIDS_MAX: usize = 10_000;
/// Sessions of a page of `/connz` when the request names no number, and most of them.
const CONNZ_LIMITS: (usize, usize) = (20, 1_000);

/// The routes of this file.
pub fn routes() -> OpenApiRouter<Arc<HttpState>> {
    OpenApiRouter::new()
        .routes(routes!(route))
        .routes(routes!(route_batch))
        .routes(routes!(varz))
        .routes(routes!(varz_setting))
        .routes(routes!(connz))
        .routes(routes!(connection_remove))
        .routes(routes!(connection_kick))
        .routes(routes!(addresses))
        .routes(routes!(addresses_block))
        .routes(routes!(addresses_unblock))
}

/// Where clients are told to connect: what the configuration says, else the listeners themselves.
fn route_of(state: &HttpState) -> wire::ClientRoute {
    let external = &state.external;
    let given = |text: &String| (!text.is_empty()).then(|| text.clone());
    let tcp = || state.wukong.tcp_listen.map_or_else(String::new, |address| address.to_string());
    wire::ClientRoute {
        tcp_addr: given(&external.tcp_addr).unwrap_or_else(tcp),
        ws_addr: given(&external.ws_addr).unwrap_or_else(|| format!("ws://{}", state.socket_addr)),
        wss_addr: external.wss_addr.clone(),
    }
}

/// Where clients connect.
///
/// From `external.*` of the configuration, else where the server listens; the same for all users. Needs any credential.
#[utoipa::path(
    get, path = "/route", tag = "operations", params(wire::RouteQuery),
    responses((status = 200, body = wire::ClientRoute), (status = "default", body = ErrorBody))
)]
async fn route(
    State(state): State<Arc<HttpState>>,
    _auth: Auth,
    QueryOrBody(query): QueryOrBody<wire::RouteQuery>,
) -> Json<wire::ClientRoute> {
    let mut route = route_of(&state);
    if query.intranet {
        (route.ws_addr, route.wss_addr) = (String::new(), String::new());
    }
    Json(route)
}

/// Where several users connect.
///
/// Needs any credential.
#[utoipa::path(
    post, path = "/route/batch", tag = "operations", request_body = Vec<String>,
    responses((status = 200, body = Vec<wire::ClientRoutes>), (status = "default", body = ErrorBody))
)]
async fn route_batch(
    State(state): State<Arc<HttpState>>,
    _auth: Auth,
    Body(uids): Body<Option<Vec<String>>>,
) -> Result<Json<Vec<wire::ClientRoutes>>, Problem> {
    let uids = uids.unwrap_or_default();
    at_most("uids", &uids, ROUTE_UIDS_MAX)?;
    for (i, uid) in uids.iter().enumerate() {
        Uid::new(uid).map_err(|error| Problem::malformed(format!("[{i}]"), error))?;
    }
    let wire::ClientRoute { tcp_addr, ws_addr, wss_addr } = route_of(&state);
    Ok(Json(vec![wire::ClientRoutes { uids, tcp_addr, ws_addr, wss_addr }]))
}

/// Resident memory in bytes, where the system tells it in the way of Linux; 0 elsewhere.
fn resident_bytes() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok());
    pages.map_or(0, |pages| pages.saturating_mul(4_096))
}

/// Such as `1h2m3s`.
fn words_of(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m{seconds}s"),
        (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

/// What the server is and has done since it began.
///
/// `/metrics` knows more. Needs an API key with the scope read.
#[utoipa::path(
    get, path = "/varz", tag = "operations",
    responses((status = 200, body = wire::Varz), (status = "default", body = ErrorBody))
)]
async fn varz(watcher: Watcher) -> Json<wire::Varz> {
    let state = &watcher.0;
    let (metrics, route) = (&state.metrics, route_of(state));
    Json(wire::Varz {
        server_id: "0".to_owned(),
        server_name: "chinwag",
        version: env!("CARGO_PKG_VERSION"),
        connections: state.hub.shared().sessions.count(),
        uptime: words_of(state.began.elapsed().as_secs()),
        goroutine: 0,
        mem: resident_bytes(),
        cpu: 0,
        in_msgs: metrics.sends.get(),
        out_msgs: metrics.deliveries.get(),
        in_bytes: 0,
        out_bytes: metrics.bytes_written.get(),
        slow_clients: metrics.slow_closes.get(),
        retry_queue: state.hub.pending(),
        tcp_addr: route.tcp_addr,
        ws_addr: route.ws_addr,
        wss_addr: route.wss_addr,
        manager_on: 0,
        commit: "",
        commit_date: "",
        tree_state: "",
        api_url: format!("http://{}", state.http_addr),
        manager_uid: "",
        manager_token_on: u8::from(!state.wukong.api_open),
        conversation_cache_count: 0,
    })
}

/// Which of WuKongIM's extras are on.
///
/// Needs an API key with the scope read.
#[utoipa::path(
    get, path = "/varz/setting", tag = "operations",
    responses((status = 200, body = wire::VarzSetting), (status = "default", body = ErrorBody))
)]
async fn varz_setting(_watcher: Watcher) -> Json<wire::VarzSetting> {
    let logger = wire::VarzLogger { trace_on: 0, loki_on: 0 };
    Json(wire::VarzSetting { logger, prometheus_on: 1, stress_on: 0 })
}

fn device_name(flag: DeviceFlag) -> String {
    match flag.0 {
        0 => "APP".to_owned(),
        1 => "WEB".to_owned(),
        2 => "PC".to_owned(),
        other => other.to_string(),
    }
}

/// Who is connected.
///
/// In pages, in order of the sessions' numbers. Needs an API key with the scope read.
#[utoipa::path(
    get, path = "/connz", tag = "operations", params(wire::ConnzQuery),
    responses((status = 200, body = wire::Connz), (status = "default", body = ErrorBody))
)]
async fn connz(
    watcher: Watcher,
    QueryOrBody(query): QueryOrBody<wire::ConnzQuery>,
) -> Result<Json<wire::Connz>, Problem> {
    let uid = match query.uid.as_str() {
        "" => None,
        uid => Some(Uid::new(uid).map_err(|error| Refusal::invalid("uid", error))?),
    };
    let limit = match usize::try_from(query.limit).unwrap_or(usize::MAX) {
        0 => CONNZ_LIMITS.0,
        limit => limit.min(CONNZ_LIMITS.1),
    };
    let offset = usize::try_from(query.offset).unwrap_or(usize::MAX);
    let (sessions, total) = watcher.0.hub.shared().sessions.page(uid.as_ref(), offset, limit);
    let connections = sessions.into_iter().map(|online| wire::ConnzConnection {
        id: online.session.0,
        uid: online.uid.as_str().to_owned(),
        device: device_name(online.device_flag),
        device_id: online.device_id.to_string(),
        ..wire::ConnzConnection::default()
    });
    let now = clock::now_ms().to_string();
    Ok(Json(wire::Connz { connections: connections.collect(), now, total, offset: query.offset, limit }))
}

fn close(admin: &Admin, body: &wire::ConnectionNamed) -> Answer {
    let uid = Uid::new(&body.uid).map_err(|error| Refusal::invalid("uid", error))?;
    if body.conn_id == 0 {
        return Err(Refusal::invalid("conn_id", "is needed").into());
    }
    // One that has gone is gone already.
    admin.hub().close_sessions(&uid, Some(SessionId(body.conn_id)), CloseReason::KickedByAdmin);
    done()
}

/// Closes a connection.
///
/// The client may connect again. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/conn/remove", tag = "operations", request_body = wire::ConnectionNamed,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn connection_remove(admin: Admin, Body(body): Body<wire::ConnectionNamed>) -> Answer {
    close(&admin, &body)
}

/// Closes a connection and says so to its client.
///
/// Here the same as `/conn/remove`: a client is always told why. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/conn/kick", tag = "operations", request_body = wire::ConnectionNamed,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn connection_kick(admin: Admin, Body(body): Body<wire::ConnectionNamed>) -> Answer {
    close(&admin, &body)
}

/// Which addresses are blocked.
///
/// Needs an API key with the scope read.
#[utoipa::path(
    get, path = "/system/ip/blacklist", tag = "operations",
    responses((status = 200, body = Vec<String>), (status = "default", body = ErrorBody))
)]
async fn addresses(watcher: Watcher) -> Json<Vec<String>> {
    Json(watcher.0.hub.blocked_addresses().iter().map(IpAddr::to_string).collect())
}

fn addresses_of(body: &wire::Addresses) -> Result<Vec<IpAddr>, Problem> {
    at_most("ips", &body.ips, REGISTER_MAX)?;
    let mut addresses = Vec::with_capacity(body.ips.len());
    for (i, text) in body.ips.iter().enumerate() {
        let address: IpAddr = text.trim().parse().map_err(|error| Problem::malformed(format!("ips[{i}]"), error))?;
        let address = address.to_canonical();
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// Refuses connections from addresses.
///
/// Sockets from there are closed without a word, HTTP callers get 403. Connections that are open stay. This machine's own
/// addresses are refused: nobody could undo it. Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/system/ip/blacklist_add", tag = "operations", request_body = wire::Addresses,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn addresses_block(admin: Admin, Body(body): Body<wire::Addresses>) -> Answer {
    let addresses = addresses_of(&body)?;
    if let Some(i) = addresses.iter().position(|address| address.is_loopback() || address.is_unspecified()) {
        return Err(Problem::malformed(format!("ips[{i}]"), "is this machine's own address"));
    }
    admin.hub().set_blocked_addresses(addresses, true).await?;
    done()
}

/// Takes connections from addresses again.
///
/// Needs an API key with the scope admin.
#[utoipa::path(
    post, path = "/system/ip/blacklist_remove", tag = "operations", request_body = wire::Addresses,
    responses((status = 200, body = Done), (status = "default", body = ErrorBody))
)]
async fn addresses_unblock(admin: Admin, Body(body): Body<wire::Addresses>) -> Answer {
    admin.hub().set_blocked_addresses(addresses_of(&body)?, false).await?;
    done()
}
