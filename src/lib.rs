//! Chinwag: a real-time WebSocket messaging server.

pub mod domain;
pub mod gateway;
pub mod store;
