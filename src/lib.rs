//! Chinwag: a real-time WebSocket messaging server.
//!
//! The rooms in reading order; an arrow in ARCHITECTURE.md points at what is imported.

pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod credentials;
pub mod domain;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod proxies;
#[cfg(feature = "seeded-bugs")]
pub mod seeded;
pub mod store;
pub mod voices;
pub mod webhook;
