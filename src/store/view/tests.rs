//! The structures of rows against plain collections, through snapshots and reloads.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use protocol::ids::Version;

use super::codec::{ROW_BYTES_MAX, Reader, Writer};
use super::db::{Db, Ledger, Row};
use super::seqset::SeqSet;
use super::table::Table;
use crate::domain::conversation::ConversationState;

fn empty() -> (tempfile::TempDir, Db, Ledger) {
    let dir = tempfile::tempdir().expect("dir");
    let db = Db::open(&dir.path().join("view"), 1 << 20, None).expect("open");
    (dir, db, Ledger::new(7, 0))
}

fn write(db: &Db, ledger: &mut Ledger, rows: Vec<Row>) {
    assert!(rows.iter().flat_map(|(_, value)| value).all(|value| value.len() <= ROW_BYTES_MAX));
    ledger.apply(db, rows).expect("apply");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    /// In any order, dense and sparse, over several leaves and nodes.
    #[test]
    fn a_seq_set_ranks_as_a_plain_set(
        rounds in prop::collection::vec((prop::collection::vec(1..40_000u64, 0..1_500), any::<bool>(), 1..3u64), 1..6),
    ) {
        let (_dir, db, mut ledger) = empty();
        let prefix = || b"x1".to_vec();
        let (mut set, mut plain) = (SeqSet::default(), BTreeSet::new());
        for (seqs, far, step) in rounds {
            for seq in seqs {
                let seq = if far { seq * 3_000 } else { seq * step };
                prop_assert_eq!(set.insert(&db, &prefix, seq).expect("insert"), plain.insert(seq));
                prop_assert!(!set.insert(&db, &prefix, seq).expect("insert"));
            }
            let mut rows = Vec::new();
            set.snapshot(&prefix(), &mut rows);
            write(&db, &mut ledger, rows);
            set.settle();
            let mut w = Writer::part();
            set.put(&mut w);
            set = SeqSet::take(&mut Reader::part(&w.finish())).expect("head");
            prop_assert_eq!(set.count(), plain.len() as u64);
            for probe in plain.iter().step_by(37).flat_map(|&seq| [seq - 1, seq, seq + 1]).chain([0, u64::MAX >> 12]) {
                prop_assert_eq!(set.rank(&db, &prefix, probe).expect("rank"), plain.range(..=probe).count() as u64);
            }
        }
    }

    #[test]
    fn a_table_holds_what_a_plain_map_holds(
        rounds in prop::collection::vec(prop::collection::vec((0..3_000u32, 0..1u64 << 50), 0..1_200), 1..5),
    ) {
        let (_dir, db, mut ledger) = empty();
        let prefix = || b"v1".to_vec();
        let mut table = Table::<u32, ConversationState>::new(7);
        let mut plain = BTreeMap::new();
        for round in rounds {
            for (key, number) in round {
                let (state, absent) = table.entry(&db, &prefix, &key).expect("entry");
                // Every fifth becomes empty, which is as good as gone.
                let value = if number % 5 == 0 { 0 } else { number };
                *state = ConversationState { read_version: Version::new(value), ..ConversationState::default() };
                let known = if value == 0 { plain.remove(&key).is_some() } else { plain.insert(key, value).is_some() };
                prop_assert!(!(known && absent), "{} was there", key);
            }
            let mut rows = Vec::new();
            table.snapshot(&prefix(), &mut rows);
            write(&db, &mut ledger, rows);
            let mut w = Writer::part();
            table.put_head(&mut w);
            table = Table::take_head(&mut Reader::part(&w.finish()), 7).expect("head");
            for (key, value) in &plain {
                let found = table.get(&db, &prefix, key).expect("get").map(|state| state.read_version.get());
                prop_assert_eq!(found, Some(*value));
            }
            prop_assert!(table.get(&db, &prefix, &9_999).expect("get").is_none());
            let mut all = BTreeMap::new();
            let cold = table.for_each_hot(|key, state| all.extend([(*key, state.read_version.get())]));
            cold.for_each::<u32, ConversationState>(&db, &prefix, |key, state| {
                all.extend([(*key, state.read_version.get())]);
            })
            .expect("scan");
            prop_assert_eq!(&all, &plain);
        }
    }
}
