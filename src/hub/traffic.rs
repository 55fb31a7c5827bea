//! What connections have carried: asked of the shards, whose threads count without sharing.

use std::collections::HashMap;

use tokio::sync::oneshot;

use super::Hub;
use super::sessions::{SessionId, SessionPlace, Traffic};
use super::shard::ShardEvent;

impl Hub {
    /// What these sessions have carried. Sessions that have gone, or whose shard ends, are left out.
    pub async fn traffic(&self, places: &[SessionPlace]) -> HashMap<SessionId, Traffic> {
        let mut answers = Vec::new();
        for (index, shard) in self.shared.shards.iter().enumerate() {
            let places: Vec<_> = places.iter().filter(|place| usize::from(place.shard) == index).copied().collect();
            if !places.is_empty() {
                let (reply, answer) = oneshot::channel();
                shard.inbox.push(ShardEvent::Describe { places, reply });
                answers.push(answer);
            }
        }
        let mut all = HashMap::new();
        for answer in answers {
            all.extend(answer.await.unwrap_or_default().into_iter().map(|traffic| (traffic.session, traffic)));
        }
        all
    }
}
