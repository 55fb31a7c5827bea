//! Persistent sockets: from bytes to frames and back.

pub mod websocket;
