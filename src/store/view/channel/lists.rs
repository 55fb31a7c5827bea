//! A channel's deny and allow list, and its commands: what stands in the people table and in a set beside it.

use protocol::ids::{Uid, Version};

use super::{ChannelState, ColdBuckets, keys};
use crate::domain::channel::{ChannelList, Listing};
use crate::store::Result;
use crate::store::view::Context;
use crate::store::view::db::Db;
use crate::store::view::people::Person;

impl ChannelState {
    /// Puts users on a list, or takes them off it.
    pub fn list(
        &mut self,
        ctx: &Context<'_>,
        version: Version,
        list: ChannelList,
        on: bool,
        uids: &[Uid],
    ) -> Result<()> {
        if !self.begin(version) {
            return Ok(());
        }
        let no = self.no;
        let prefix = || keys::channel(keys::PEOPLE, no);
        for uid in uids {
            let was = self.people.get(ctx.db, &prefix, uid)?.is_some_and(|person| person.listing.on(list));
            if was == on {
                continue;
            }
            let (person, _) = self.people.entry(ctx.db, &prefix, uid)?;
            person.listing = person.listing.with(list, on);
            let count = &mut self.listed_counts[list as usize];
            *count = if on { *count + 1 } else { count.saturating_sub(1) };
        }
        Ok(())
    }

    /// See [`crate::store::Store::listing`].
    pub fn listing(&mut self, db: &Db, uid: &Uid) -> Result<Listing> {
        if self.listed_counts == [0, 0] {
            return Ok(Listing::default());
        }
        let no = self.no;
        let person = self.people.get(db, &|| keys::channel(keys::PEOPLE, no), uid)?;
        Ok(person.map_or(Listing::default(), |person| person.listing))
    }

    /// Seqs of commands above `floor` that are not over, ascending, the first `max`.
    pub fn commands_after(&mut self, db: &Db, floor: u64, max: usize) -> Result<Vec<u64>> {
        let no = self.no;
        let prefix = || keys::channel(keys::COMMANDS, no);
        let mut found = Vec::new();
        let mut floor = floor.min(self.head_seq);
        let mut before = self.commands.rank(db, &prefix, floor)?;
        while found.len() < max && before < self.commands.count() {
            // The lowest seq that has one more command up to it.
            let (mut low, mut high) = (floor, self.head_seq);
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                match self.commands.rank(db, &prefix, middle)? > before {
                    true => high = middle,
                    false => low = middle,
                }
            }
            if self.locate(db, high)?.is_some_and(|located| !located.is_over()) {
                found.push(high);
            }
            (floor, before) = (high, before + 1);
        }
        Ok(found)
    }
}

/// Finds who is on a list among the people in memory, and the buckets the others are in.
pub fn hot_listed(state: &ChannelState, list: ChannelList, listed: &mut Vec<Uid>) -> ColdBuckets {
    state.people.for_each_hot(|uid, person| listed.extend(on_list(uid, person, list)))
}

/// Adds those of cold buckets.
pub fn cold_listed(db: &Db, no: u32, cold: &ColdBuckets, list: ChannelList, listed: &mut Vec<Uid>) -> Result<()> {
    cold.for_each::<Uid, Person>(db, &|| keys::channel(keys::PEOPLE, no), |uid, person| {
        listed.extend(on_list(uid, person, list));
    })
}

fn on_list(uid: &Uid, person: &Person, list: ChannelList) -> Option<Uid> {
    person.listing.on(list).then(|| uid.clone())
}
