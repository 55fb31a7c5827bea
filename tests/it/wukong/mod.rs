//! Proves: WuKongIM's clients of versions 2, 5 and 6 work unchanged over WebSocket and TCP, and its Easy SDKs over JSON-RPC,
//! among themselves and with native clients. Clients are built from the protocol crate's other side.

mod begin;
mod chat;
pub mod client;
mod hostile;
mod replay;
pub mod rpc;
mod stream;
