//! Chinwag: a real-time WebSocket messaging server.

pub mod domain;
pub mod hub;
pub mod store;
