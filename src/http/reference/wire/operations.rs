//! JSON of operations (wukongim-http.md section 7).

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::http::extract::{flag, null_is_zero};

/// `GET /route`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RouteQuery {
    /// 0 or 1. 1: only `tcp_addr`.
    #[serde(default, deserialize_with = "flag")]
    #[param(value_type = u8)]
    pub intranet: bool,
}

/// Where clients connect; empty: not offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClientRoute {
    /// `host:port`.
    pub tcp_addr: String,
    /// `ws://host:port`.
    pub ws_addr: String,
    /// `wss://host:port`.
    pub wss_addr: String,
}

/// Where some users connect.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct ClientRoutes {
    /// Echoed.
    pub uids: Vec<String>,
    /// `host:port`.
    pub tcp_addr: String,
    /// `ws://host:port`.
    pub ws_addr: String,
    /// `wss://host:port`.
    pub wss_addr: String,
}

/// `GET /varz`: what a server is and has done since it began.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Varz {
    /// Always `0`.
    pub server_id: String,
    /// `chinwag`.
    pub server_name: &'static str,
    /// Of this build.
    pub version: &'static str,
    /// Sessions online.
    pub connections: usize,
    /// Such as `1h2m3s`.
    pub uptime: String,
    /// Threads: what there is in their place; 0: not known.
    pub goroutine: u64,
    /// Resident memory in bytes; 0: not known.
    pub mem: u64,
    /// Percent of one core, since it began; 0: not known.
    pub cpu: f64,
    /// Messages taken.
    pub in_msgs: u64,
    /// Messages put into outboxes.
    pub out_msgs: u64,
    /// Bytes read from sockets; a second late.
    pub in_bytes: u64,
    /// Bytes written to sockets; a second late.
    pub out_bytes: u64,
    /// Connections closed because their peer does not read.
    pub slow_clients: u64,
    /// Work taken and not answered.
    pub retry_queue: usize,
    /// As `/route`.
    pub tcp_addr: String,
    /// As `/route`.
    pub ws_addr: String,
    /// As `/route`.
    pub wss_addr: String,
    /// 0: there is no manager.
    pub manager_on: u8,
    /// Empty: see `version`.
    pub commit: &'static str,
    /// Empty.
    pub commit_date: &'static str,
    /// Empty.
    pub tree_state: &'static str,
    /// Where the HTTP API is configured to listen.
    pub api_url: String,
    /// Empty: there is no manager.
    pub manager_uid: &'static str,
    /// 1: a key is needed.
    pub manager_token_on: u8,
    /// Always 0: conversations are no cache.
    pub conversation_cache_count: u64,
}

/// `GET /varz/setting`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct VarzSetting {
    /// Logging.
    pub logger: VarzLogger,
    /// 1: `/metrics` speaks OpenMetrics.
    pub prometheus_on: u8,
    /// 0: there are no stress routes.
    pub stress_on: u8,
}

/// `logger` of [`VarzSetting`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct VarzLogger {
    /// Always 0.
    pub trace_on: u8,
    /// Always 0.
    pub loki_on: u8,
}

/// `GET /connz`.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ConnzQuery {
    /// Only sessions of this user.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// Passed over.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub offset: u64,
    /// 0 means 20; at most 1,000.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub limit: u64,
}

/// A session. Counts begin with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct ConnzConnection {
    /// Its number, never used twice in a process.
    pub id: u64,
    /// The user.
    pub uid: String,
    /// The client's address; behind a trusted proxy the one it tells.
    pub ip: String,
    /// The client's port; 0: a proxy told an address without one.
    pub port: u16,
    /// When the client was last heard, RFC 3339.
    pub last_activity: String,
    /// How long it has been there, such as `1h2m3s`.
    pub uptime: String,
    /// How long the client has been silent, such as `12s`.
    pub idle: String,
    /// Bytes that wait for its socket, about.
    pub pending_bytes: u64,
    /// Messages it sent.
    pub in_msgs: u64,
    /// Messages it was sent.
    pub out_msgs: u64,
    /// Bytes of the payloads it sent.
    pub in_msg_bytes: u64,
    /// About the bytes of the messages it was sent.
    pub out_msg_bytes: u64,
    /// Packets, or frames, it sent.
    pub in_packets: u64,
    /// Packets, or frames, it was sent.
    pub out_packets: u64,
    /// Bytes read from its socket.
    pub in_packet_bytes: u64,
    /// Bytes written to its socket.
    pub out_packet_bytes: u64,
    /// `APP`, `WEB`, `PC` or the number of the device kind.
    pub device: String,
    /// The device.
    pub device_id: String,
    /// Version of WKProto; 0: another protocol.
    pub version: u8,
    /// Not told.
    pub proxy_type_format: &'static str,
    /// One node: 0.
    pub leader_id: u64,
    /// One node: 0.
    pub node_id: u64,
}

/// The answer of `GET /connz`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Connz {
    /// In order of `id`.
    pub connections: Vec<ConnzConnection>,
    /// The time of the answer, RFC 3339.
    pub now: String,
    /// How many there are.
    pub total: usize,
    /// Echoed.
    pub offset: u64,
    /// Echoed, or what it means.
    pub limit: usize,
}

/// `POST /conn/remove` and `POST /conn/kick`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct ConnectionNamed {
    /// The user.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub uid: String,
    /// `id` of `/connz`.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub conn_id: u64,
}

/// `POST /system/ip/blacklist_add` and `POST /system/ip/blacklist_remove`.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub struct Addresses {
    /// IPv4 or IPv6 addresses.
    #[serde(default, deserialize_with = "null_is_zero")]
    pub ips: Vec<String>,
}
