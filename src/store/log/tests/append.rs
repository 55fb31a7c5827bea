//! Writing, reopening, rolling, failing, reading.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::store::record::tests::record;

#[test]
fn a_new_log_is_empty_and_reopens() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (log, report) = open(dir.path());
    assert!(report.created);
    assert_eq!(log.end().version, Version::ZERO);
    let id = log.log_id();
    log.close().expect("close");
    let (log, report) = open(dir.path());
    assert!(!report.created && report.cut.is_none() && report.findings.is_empty(), "{report:?}");
    assert_eq!(log.log_id(), id);
    assert!(lots(&log).is_empty());
}

#[test]
fn versions_follow_the_clock_and_never_fall() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut log, _) = open(dir.path());
    let two = Commit { records: [user("a"), user("b")].into_iter().collect() };
    let sealed = log.seal(&[two, user("c").into()], NOW);
    assert_eq!(sealed.versions, [Version::new(NOW), Version::new(NOW + 2)]);
    assert_eq!(log.write(&sealed).expect("write").version, Version::new(NOW + 2));
    // The clock stands still, falls, and is absurd.
    assert_eq!(append(&mut log, [user("d")]).versions, [Version::new(NOW + 3)]);
    let sealed = log.seal(&lot([user("e")]), 5);
    assert_eq!(sealed.versions, [Version::new(NOW + 4)]);
    // A lot that was sealed and not written does not give its version back.
    let sealed = log.seal(&lot([user("f")]), u64::MAX);
    assert_eq!(sealed.versions, [Version::new(NOW + 5)]);
    log.write(&sealed).expect("write");
    drop(log);
    let (mut log, _) = open(dir.path());
    assert_eq!(log.end().version, Version::new(NOW + 5));
    assert_eq!(log.seal(&lot([user("g")]), NOW).versions, [Version::new(NOW + 6)]);
    assert_eq!(records(&log).len(), 5);
}

#[test]
fn an_empty_lot_writes_nothing_and_an_old_seal_is_refused() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut log, _) = open(dir.path());
    let end = log.end();
    let sealed = log.seal(&[], NOW);
    assert_eq!(log.write(&sealed).expect("write"), end);
    let first = log.seal(&lot([user("a")]), NOW);
    let second = log.seal(&lot([user("b")]), NOW);
    assert!(log.write(&first).is_err());
    log.write(&second).expect("write");
    assert!(log.write(&second).is_err());
    assert_eq!(records(&log).len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Any records, in any lots, over any segments, with any reopening: they come back in order, from scan, by place and by
    /// version, and every boundary opens as a known mark.
    #[test]
    fn what_is_written_comes_back(
        history in vec((vec(record(), 1..8), any::<bool>(), any::<bool>()), 1..20),
        small in any::<bool>(),
    ) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let options = LogOptions { segment_bytes_max: if small { 16 << 10 } else { 256 << 20 }, ..unsynced() };
        let (mut log, _) = Log::open(dir.path(), options.clone(), None).expect("open");
        let mut expected = Vec::new();
        let mut marks = vec![log.end()];
        for (written, reopen, clean) in history {
            let sealed = log.seal(&lot(written.clone()), NOW);
            marks.push(log.write(&sealed).expect("write"));
            for ((record, version), place) in written.into_iter().zip(&sealed.versions).zip(&sealed.places) {
                expected.push((*version, *place, record));
            }
            if reopen {
                if clean { log.close().expect("close") } else { drop(log) }
                let (reopened, report) = Log::open(dir.path(), options.clone(), marks.last()).expect("reopen");
                prop_assert!(report.cut.is_none() && report.findings.is_empty(), "{:?}", report);
                log = reopened;
            }
        }
        prop_assert_eq!(records(&log), expected.clone());
        let reader = log.reader();
        for (version, place, record) in &expected {
            prop_assert_eq!(reader.place_of(*version)?, Some(*place));
            prop_assert_eq!(reader.read_record(*place).expect("read"), (*version, record.clone()));
            let located = reader.locate(*version)?.expect("there");
            prop_assert_eq!((located.kind, located.channel, located.seq), (record.kind().to_stored(), record.channel(), record.seq()));
        }
        prop_assert_eq!(reader.place_of(log.end().version.plus(1))?, None);
        prop_assert_eq!(reader.place_of(Version::new(1))?, None);
        drop(log);
        for mark in marks {
            let (log, report) = Log::open(dir.path(), options.clone(), Some(&mark)).expect("open at a mark");
            prop_assert!(report.cut.is_none() && report.findings.is_empty(), "{:?}", report);
            let behind = log.reader().scan(mark.position).map(|lot| lot.expect("sound").records.len()).sum::<usize>();
            prop_assert_eq!(behind, expected.iter().filter(|(version, ..)| *version > mark.version).count());
            prop_assert_eq!(report.lots_verified > 0, behind > 0);
        }
    }
}

#[test]
fn segments_roll_and_never_exceed_their_size() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = LogOptions { segment_bytes_max: 300 << 10, ..unsynced() };
    let (mut log, _) = Log::open(dir.path(), options.clone(), None).expect("open");
    let mut sealed = Vec::new();
    for seq in 1..=400 {
        sealed.push(append(&mut log, [text(1, seq, &[7; 3_000]), text(2, seq, b"small")]));
    }
    let segments = log.end().position.segment;
    assert!(segments > 4, "{segments} segments");
    for number in 1..=segments {
        let bytes = std::fs::metadata(segment_path(dir.path(), number)).expect("file").len();
        assert!(bytes <= 300 << 10, "segment {number} has {bytes} bytes");
    }
    for reopened in [false, true] {
        if reopened {
            drop(log);
            let mark;
            (log, mark) = {
                let (log, report) = Log::open(dir.path(), options.clone(), None).expect("open");
                assert!(report.findings.is_empty(), "{report:?}");
                let end = log.end();
                (log, end)
            };
            // With the mark at the end only footers tell of closed segments.
            drop(log);
            let (again, report) = Log::open(dir.path(), options.clone(), Some(&mark)).expect("open");
            assert_eq!(report.lots_verified, 0);
            log = again;
        }
        let reader = log.reader();
        for lot in &sealed {
            for (version, place) in lot.versions.iter().zip(&lot.places) {
                assert_eq!(reader.place_of(*version).expect("look-up"), Some(*place));
            }
        }
        assert_eq!(lots(&log).len(), 400);
    }
}

#[test]
fn a_segment_leaves_room_for_its_footer() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = LogOptions { segment_bytes_max: 4 << 10, ..unsynced() };
    let (mut log, _) = Log::open(dir.path(), options, None).expect("open");
    for n in 0..300 {
        append(&mut log, [user(&format!("user-{n}"))]);
    }
    let last = log.end().position.segment;
    assert!(last > 5, "{last} segments");
    for number in 1..=last {
        let bytes = std::fs::metadata(segment_path(dir.path(), number)).expect("file").len();
        assert!(bytes <= 4 << 10, "segment {number} has {bytes} bytes");
        assert!(bytes > 3 << 10 || number == last, "segment {number} has only {bytes} bytes");
    }
}

#[test]
fn look_ups_read_a_bounded_part_of_a_large_segment() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut log, _) = open(dir.path());
    let mut all = Vec::new();
    for seq in 1..=64 {
        all.push(append(&mut log, (0..8).map(|channel| text(channel, seq, &[1; 2_000]))));
    }
    let segment = log.reader();
    // More than ten table entries' worth.
    assert!(segment.bytes() > 640 << 10);
    for lot in &all {
        assert_eq!(segment.place_of(lot.versions[3]).expect("look-up"), Some(lot.places[3]));
    }
}

#[test]
fn a_lot_that_fits_no_segment_is_refused_and_nothing_else_is() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = LogOptions { segment_bytes_max: 8 << 10, ..unsynced() };
    let (mut log, _) = Log::open(dir.path(), options, None).expect("open");
    append(&mut log, [text(1, 1, b"first")]);
    let sealed = log.seal(&lot([text(1, 2, &[0; 9_000])]), NOW);
    let error = log.write(&sealed).expect_err("too large");
    assert_eq!(error.kind(), crate::domain::refusal::ErrorKind::TooLarge);
    append(&mut log, [text(1, 2, b"second")]);
    assert_eq!(records(&log).len(), 2);
}

#[test]
fn messages_are_read_by_place_and_neighbours_together() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut log, _) = open(dir.path());
    let long = vec![9; 20_000];
    let mut wanted = Vec::new();
    for seq in 1..=30 {
        let payload: &[u8] = if seq == 15 { &long } else { b"hello" };
        wanted.push((seq, append(&mut log, [text(5, seq, payload)]).places[0]));
    }
    let reader = log.reader();
    let (version, message) = reader.read_message(wanted[14].1, ChannelNo(5), 15).expect("read");
    assert_eq!((version, &message.payload[..]), (Version::new(NOW + 14), &long[..]));
    let before = reader.reads();
    wanted.reverse();
    let answers = reader.read_messages(ChannelNo(5), &wanted);
    // Two runs of neighbours around the long one, which ends the first run without fitting into its read and so takes two more.
    assert!(reader.reads() - before <= 4, "{} reads", reader.reads() - before);
    for ((seq, _), answer) in wanted.iter().zip(answers) {
        assert_eq!(answer.expect("read").1.message_seq.get(), *seq);
    }
    assert!(reader.read_messages(ChannelNo(5), &[]).is_empty());
}

#[test]
fn a_place_that_is_not_the_message_is_damage_not_another_message() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut log, _) = open(dir.path());
    let places = append(&mut log, [text(1, 1, b"a"), text(2, 1, b"b"), user("x")]).places;
    let reader = log.reader();
    let end = log.end().position;
    let wrong = [
        (places[0], 1, 2),
        (places[0], 2, 1),
        (places[2], 1, 1),
        (Place { segment: 1, offset: places[0].offset + 1 }, 1, 1),
        (Place { segment: 1, offset: 0 }, 1, 1),
        (Place { segment: 1, offset: end.offset }, 1, 1),
        (Place { segment: 2, offset: places[0].offset }, 1, 1),
        (Place { segment: 0, offset: 0 }, 1, 1),
        (Place { segment: u32::MAX, offset: u32::MAX }, 1, 1),
    ];
    for (place, channel, seq) in wrong {
        let read = reader.read_message(place, ChannelNo(channel), seq);
        assert!(matches!(read, Err(ReadError::Damaged(_))), "{place:?}: {read:?}");
    }
    let mixed = reader.read_messages(ChannelNo(1), &[(1, places[1]), (1, places[0])]);
    assert!(matches!(mixed[..], [Err(ReadError::Damaged(_)), Ok(_)]), "{mixed:?}");
}

#[test]
fn after_a_failed_write_or_sync_the_lot_never_appears_and_a_new_segment_begins() {
    for op in [FileOp::Write, FileOp::Sync] {
        let dir = tempfile::tempdir().expect("temporary directory");
        let faults = Arc::new(FailOn::default());
        let options = LogOptions { faults: Some(faults.clone()), ..unsynced() };
        let (mut log, _) = Log::open(dir.path(), options, None).expect("open");
        append(&mut log, [text(1, 1, b"kept")]);
        let kept = std::fs::read(segment_path(dir.path(), 1)).expect("read");
        faults.plan(op, 0);
        let sealed = log.seal(&lot([text(1, 2, b"lost")]), NOW);
        assert!(log.write(&sealed).is_err());
        let left = std::fs::read(segment_path(dir.path(), 1)).expect("read");
        assert_eq!(left == kept, op == FileOp::Write, "only the lot whose sync failed lies there");
        assert_eq!(log.end().version, Version::new(NOW));
        assert_eq!(records(&log).len(), 1);
        let retry = append(&mut log, [text(1, 2, b"retry")]);
        assert_eq!(retry.places[0].segment, 2);
        assert!(retry.versions[0] > sealed.versions[0]);
        assert_eq!(std::fs::read(segment_path(dir.path(), 1)).expect("read"), left, "the failed segment was touched");
        let before = records(&log);
        drop(log);
        // A failed fdatasync leaves a lot behind that reads well; the next header says that it is none.
        let (mut log, report) = open(dir.path());
        assert!(report.cut.is_none(), "{report:?}");
        assert_eq!(records(&log), before);
        assert_eq!(before.len(), 2);
        assert_eq!(log.reader().place_of(retry.versions[0]).expect("look-up"), Some(retry.places[0]));
        append(&mut log, [text(1, 3, b"on")]);
    }
}

#[test]
fn when_no_segment_can_be_begun_each_write_tries_again() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let faults = Arc::new(FailOn::default());
    let options = LogOptions { faults: Some(faults.clone()), ..unsynced() };
    let (mut log, _) = Log::open(dir.path(), options, None).expect("open");
    append(&mut log, [text(1, 1, b"kept")]);
    faults.plan(FileOp::Sync, 0);
    // Of the new segment: its opening, at once after the failure; then, each in a write of its own, its sync, its rename, the
    // directory's sync.
    for (op, after) in [(FileOp::Open, 0), (FileOp::Sync, 0), (FileOp::Rename, 0), (FileOp::Sync, 1)] {
        faults.plan(op, after);
        let sealed = log.seal(&lot([text(1, 2, b"lost")]), NOW);
        assert!(log.write(&sealed).is_err(), "{op:?}");
        assert_eq!(records(&log).len(), 1);
    }
    append(&mut log, [text(1, 2, b"retry")]);
    assert_eq!(records(&log).len(), 2);
    drop(log);
    let (log, _) = open(dir.path());
    assert_eq!(records(&log).len(), 2);
}

#[test]
fn a_watermark_that_cannot_be_written_fails_no_lot() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let faults = Arc::new(FailOn::default());
    let options = LogOptions { faults: Some(faults.clone()), ..unsynced() };
    let (mut log, _) = Log::open(dir.path(), options, None).expect("open");
    faults.plan(FileOp::Write, 1);
    append(&mut log, [text(1, 1, b"kept")]);
    log.sync_watermark().expect("sync");
    assert_eq!(records(&log).len(), 1);
}

#[test]
fn a_scan_goes_on_with_what_is_written_later() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = LogOptions { segment_bytes_max: 4 << 10, ..unsynced() };
    let (mut log, _) = Log::open(dir.path(), options, None).expect("open");
    let mut scan = log.reader().scan(log.end().position);
    assert!(scan.next().is_none());
    for seq in 1..=20 {
        append(&mut log, [text(1, seq, &[3; 500])]);
        let lot = scan.next().expect("a lot").expect("sound");
        assert_eq!((lot.end, lot.chain), (log.end().position, log.end().chain));
        assert!(scan.next().is_none());
    }
    assert!(log.end().position.segment > 2);
}
