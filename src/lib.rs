//! Chinwag: a real-time WebSocket messaging server.

pub mod domain;
pub mod metrics;
pub mod store;
