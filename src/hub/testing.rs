//! A hub for unit tests of the rooms around it: over the model of the store, with a committer and without sockets.

use std::sync::Arc;

use super::{Hub, committer};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store::memory::MemoryStore;

/// A hub whose commits are answered. Shards do not run: what needs a channel's lane waits for ever. Call it inside a
/// multi-threaded runtime; the committer's thread ends with the process.
pub(crate) fn hub_over_memory() -> Hub {
    let data_dir = std::env::temp_dir().join(format!("chinwag-{}", uuid::Uuid::new_v4().simple()));
    let config = Config { data_dir, ..Config::default() };
    let (limits, files) = (crate::app::hub_limits(&config), crate::app::files_of(&config));
    let blocking = tokio::runtime::Handle::current();
    let hub = Hub::new(Arc::new(MemoryStore::new()), 1, limits, files, Metrics::new(), blocking, 0);
    let shared = hub.shared().clone();
    std::thread::spawn(move || committer::run(&*shared.store, &shared.queue, &shared.shards, &shared.metrics));
    hub
}
