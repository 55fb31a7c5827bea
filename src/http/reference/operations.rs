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
use crate::hub::sessions::{Online, SessionId, Traffic};

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

/// Processor time of this process since it began, in seconds, where the system tells it in the way of Linux; 0 elsewhere.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name, which may hold anything, `utime` and `stime` are fields 12 and 13, in the hundredths that Linux has
    // told since it began, whatever its own clock does (proc_pid_stat(5)).
    let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
    let ticks = fields.split_ascii_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() as f64 / 100.0
}

/// Threads of this process, where the system tells it in the way of Linux; 0 elsewhere.
fn threads() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let threads = status.lines().find_map(|line| line.strip_prefix("Threads:"));
    threads.and_then(|threads| threads.trim().parse().ok()).unwrap_or(0)
}

/// Such as `1h2m3s`; days and years before them where there are some.
fn words_of(seconds: u64) -> String {
    let days = seconds / 86_400;
    let parts = [(days / 365, 'y'), (days % 365, 'd'), (seconds / 3_600 % 24, 'h'), (seconds / 60 % 60, 'm')];
    let begun = parts.into_iter().skip_while(|(count, _)| *count == 0);
    let mut words: String = begun.map(|(count, unit)| format!("{count}{unit}")).collect();
    words.push_str(&format!("{}s", seconds % 60));
    words
}

/// Unix milliseconds as RFC 3339 has them, in UTC: how WuKongIM's v2 says times here.
fn moment_of(ms: u64) -> String {
    let (days, in_day) = (ms / 86_400_000, ms % 86_400_000);
    // The civil calendar in years that begin in March, so that the leap day is the last, of eras of 400 years.
    let day = days + 719_468;
    let (era, in_era) = (day / 146_097, day % 146_097);
    let year_of_era = (in_era - in_era / 1_460 + in_era / 36_524 - in_era / 146_096) / 365;
    let in_year = in_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * in_year + 2) / 153;
    let day = in_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (in_day / 3_600_000, in_day / 60_000 % 60, in_day / 1_000 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{:03}Z", in_day % 1_000)
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
        goroutine: threads(),
        mem: resident_bytes(),
        // As `ps` says it: of one core, over the whole life.
        cpu: (processor_seconds() / state.began.elapsed().as_secs_f64().max(0.01) * 1_000.0).round() / 10.0,
        in_msgs: metrics.sends.get(),
        out_msgs: metrics.deliveries.get(),
        in_bytes: metrics.bytes_read.get(),
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
    let places: Vec<_> = sessions.iter().map(|online| online.place).collect();
    let mut traffic = watcher.0.hub.traffic(&places).await;
    let now_ms = clock::now_ms();
    // One that has gone meanwhile is left out.
    let connections = sessions.iter().filter_map(|online| {
        let traffic = traffic.remove(&online.place.session)?;
        Some(connection_of(online, &traffic, now_ms))
    });
    let connections = connections.collect();
    Ok(Json(wire::Connz { connections, now: moment_of(now_ms), total, offset: query.offset, limit }))
}

fn connection_of(online: &Online, traffic: &Traffic, now_ms: u64) -> wire::ConnzConnection {
    let Traffic { session, client, version, began_ms, heard_ms, pending_bytes, received, sent } = traffic;
    let since = |ms: u64| words_of(now_ms.saturating_sub(ms) / 1_000);
    wire::ConnzConnection {
        id: session.0,
        uid: online.uid.as_str().to_owned(),
        ip: client.map_or_else(String::new, |client| client.ip().to_canonical().to_string()),
        port: client.map_or(0, |client| client.port()),
        last_activity: moment_of(*heard_ms),
        uptime: since(*began_ms),
        idle: since(*heard_ms),
        pending_bytes: *pending_bytes as u64,
        in_msgs: received.messages.into(),
        out_msgs: sent.messages.into(),
        in_msg_bytes: received.message_bytes,
        out_msg_bytes: sent.message_bytes,
        in_packets: received.packets.into(),
        out_packets: sent.packets.into(),
        in_packet_bytes: received.bytes,
        out_packet_bytes: sent.bytes,
        device: device_name(online.device_flag),
        device_id: online.device_id.to_string(),
        version: *version,
        proxy_type_format: "",
        leader_id: 0,
        node_id: 0,
    }
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
