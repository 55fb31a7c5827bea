//! Torn ends, damage and marks: what opening cuts, names and refuses (store.md section 2).

use std::fs;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// A log of a few lots in one directory, closed cleanly, and the boundaries in it.
struct Sample {
    dir: tempfile::TempDir,
    marks: Vec<LogMark>,
    records: Vec<(Version, Place, Record)>,
}

fn sample() -> Sample {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut log, _) = open(dir.path());
    let mut marks = vec![log.end()];
    for records in [
        vec![user("u"), text(1, 1, b"one")],
        vec![text(1, 2, b"two"), text(2, 1, b"uno"), text(1, 3, b"three")],
        vec![text(2, 2, b"dos"), user("v")],
    ] {
        append(&mut log, records);
        marks.push(log.end());
    }
    let records = records(&log);
    log.close().expect("close");
    Sample { dir, marks, records }
}

fn without_watermark(dir: &Path) {
    fs::remove_file(dir.join(files::WATERMARK_NAME)).expect("remove");
}

/// Puts the watermark back to a mark, as a power cut does that takes its last writes.
fn set_watermark(dir: &Path, mark: &LogMark) {
    fs::write(dir.join(files::WATERMARK_NAME), layout::encode_slot(mark)).expect("write");
}

#[test]
fn a_torn_last_lot_is_cut_at_every_length_and_kept_beside() {
    let sample = sample();
    let (before, end) = (sample.marks[2], sample.marks[3]);
    let bytes = fs::read(segment_path(sample.dir.path(), 1)).expect("read");
    assert_eq!(bytes.len(), end.position.offset as usize);
    let kept = before.position.offset as usize;
    for cut_at in kept + 1..bytes.len() {
        for filler in [None, Some(0_u8), Some(0xa5)] {
            let dir = copy_dir(sample.dir.path());
            set_watermark(dir.path(), &before);
            let mut torn = bytes[..cut_at].to_vec();
            if let Some(filler) = filler {
                torn.resize(bytes.len(), filler);
            }
            fs::write(segment_path(dir.path(), 1), &torn).expect("write");
            let (mut log, report) = open(dir.path());
            if torn == bytes {
                assert!(report.cut.is_none());
                continue;
            }
            let cut = report.cut.unwrap_or_else(|| panic!("not cut at {cut_at}, {filler:?}"));
            assert_eq!(cut.at, before.position);
            let beside = fs::read(&cut.file).expect("read");
            assert!(torn[kept..].starts_with(&beside) && torn[kept + beside.len()..].iter().all(|&byte| byte == 0));
            assert_eq!(cut.bytes, beside.len() as u64);
            assert_eq!(log.end(), before);
            assert_eq!(records(&log)[..], sample.records[..5]);
            append(&mut log, [text(2, 2, b"again")]);
            log.close().expect("close");
            let (log, report) = open(dir.path());
            assert!(report.cut.is_none() && report.findings.is_empty(), "{report:?}");
            assert_eq!(records(&log).len(), 6);
        }
    }
}

#[test]
fn a_whole_last_lot_above_the_watermark_is_kept_and_from_then_on_protected() {
    let sample = sample();
    set_watermark(sample.dir.path(), &sample.marks[2]);
    let (log, report) = open(sample.dir.path());
    assert!(report.cut.is_none());
    assert_eq!(log.end(), sample.marks[3]);
    drop(log);
    // Its loss is no torn end any more.
    let file = fs::OpenOptions::new().write(true).open(segment_path(sample.dir.path(), 1)).expect("open");
    file.set_len(u64::from(sample.marks[2].position.offset)).expect("truncate");
    assert_eq!(refused(sample.dir.path(), None).kind, FindingKind::AckedLotsGone);
}

#[test]
fn a_shorter_log_than_the_watermark_or_the_mark_is_refused() {
    let sample = sample();
    for zeros in [false, true] {
        for keep in
            [layout::SEGMENT_HEADER, sample.marks[1].position.offset as usize, sample.marks[2].position.offset as usize]
        {
            for by_mark in [false, true] {
                let dir = copy_dir(sample.dir.path());
                let path = segment_path(dir.path(), 1);
                let mut bytes = fs::read(&path).expect("read");
                if zeros {
                    bytes[keep..].fill(0);
                } else {
                    bytes.truncate(keep);
                }
                fs::write(&path, bytes).expect("write");
                let mark = by_mark.then(|| {
                    without_watermark(dir.path());
                    sample.marks[3]
                });
                let finding = refused(dir.path(), mark.as_ref());
                // Zeros below the view's mark are met while its prefix is walked.
                let expected = [FindingKind::AckedLotsGone, FindingKind::Lot];
                assert!(expected[..1 + usize::from(by_mark && zeros)].contains(&finding.kind), "{finding:?}");
                if finding.kind == FindingKind::AckedLotsGone {
                    assert!(finding.detail.contains("acked data is gone"), "{finding}");
                }
            }
        }
    }
}

#[test]
fn a_log_without_segments_is_not_made_anew_under_a_mark() {
    let sample = sample();
    fs::remove_file(segment_path(sample.dir.path(), 1)).expect("remove");
    assert_eq!(refused(sample.dir.path(), None).kind, FindingKind::AckedLotsGone);
    without_watermark(sample.dir.path());
    assert_eq!(refused(sample.dir.path(), Some(&sample.marks[1])).kind, FindingKind::AckedLotsGone);
    assert!(open(sample.dir.path()).1.created);
}

#[test]
fn marks_must_name_a_prefix_of_this_log() {
    let sample = sample();
    for mark in &sample.marks {
        let (log, report) = Log::open(sample.dir.path(), unsynced(), Some(mark)).expect("open");
        assert!(report.findings.is_empty());
        assert_eq!(log.end(), sample.marks[3]);
    }
    let second = sample.marks[2];
    let mut wrong = vec![];
    wrong.push((LogMark { chain: [1; 16], ..second }, FindingKind::MarkMismatch));
    wrong.push((LogMark { version: second.version.plus(1), ..second }, FindingKind::MarkMismatch));
    wrong.push((LogMark { log_id: [1; 16], ..second }, FindingKind::ForeignLog));
    let at = |offset| LogPosition { segment: 1, offset };
    wrong.push((LogMark { position: at(second.position.offset + 1), ..second }, FindingKind::MarkMismatch));
    wrong.push((LogMark { position: at(second.position.offset - 1), ..second }, FindingKind::MarkMismatch));
    wrong.push((LogMark { position: at(1), ..second }, FindingKind::MarkMismatch));
    let end = sample.marks[3].position.offset;
    wrong.push((LogMark { position: at(end + 1), ..second }, FindingKind::AckedLotsGone));
    wrong.push((LogMark { position: LogPosition { segment: 2, offset: 128 }, ..second }, FindingKind::AckedLotsGone));
    wrong.push((LogMark { chain: [1; 16], ..sample.marks[3] }, FindingKind::MarkMismatch));
    for (mark, expected) in wrong {
        let by_view = refused(sample.dir.path(), Some(&mark));
        assert_eq!(by_view.kind, expected, "{mark:?}: {by_view}");
        let dir = copy_dir(sample.dir.path());
        set_watermark(dir.path(), &mark);
        let by_watermark = refused(dir.path(), None);
        assert_eq!(by_watermark.kind, expected, "{mark:?}: {by_watermark}");
    }
}

/// Offset behind a segment's last lot.
fn end_of(log: &Log, segment: u32) -> u32 {
    let ends = lots_or_damage(log).filter(|lot| lot.end.segment == segment).map(|lot| lot.end.offset);
    ends.max().unwrap_or(layout::FIRST_LOT)
}

fn lots_or_damage(log: &Log) -> impl Iterator<Item = LotView> {
    log.reader().scan(LogPosition::default()).map_while(Result::ok)
}

/// Every record that comes back is the one written, or a hole where a message was.
fn served_is_sound(log: &Log, expected: &[(Version, Place, Record)]) -> Result<usize, Finding> {
    let mut holes = 0;
    let mut expected = expected.iter();
    for lot in log.reader().scan(LogPosition::default()) {
        for entry in lot?.records {
            let written = expected.next().expect("no more than was written");
            match entry {
                LotEntry::Record { version, place, record } => assert_eq!(&(version, place, record), written),
                LotEntry::DamagedMessage { version, place, channel, seq } => {
                    let Record::Message(message) = &written.2 else { panic!("a hole where no message was") };
                    assert_eq!((version, place), (written.0, written.1));
                    assert_eq!((channel, seq), (message.channel, message.message_seq.get()));
                    let read = log.reader().read_message(place, channel, seq);
                    assert!(matches!(read, Err(ReadError::Damaged(_))));
                    holes += 1;
                }
            }
        }
    }
    assert!(expected.next().is_none(), "records are missing");
    Ok(holes)
}

#[test]
fn a_flip_of_any_byte_is_named_or_a_hole() {
    let sample = sample();
    let path = segment_path(sample.dir.path(), 1);
    let sound = fs::read(&path).expect("read");
    let (mut named, mut holes) = (0, 0);
    let known = [None, Some(sample.marks[0]), Some(sample.marks[2]), Some(sample.marks[3])];
    for at in 0..sound.len() {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        for known in &known {
            fs::write(&path, &bytes).expect("write");
            match Log::open(sample.dir.path(), unsynced(), known.as_ref()) {
                Err(error) => {
                    let finding = finding(&error);
                    // Nothing is missing, so nobody may be told that it is.
                    assert_ne!(finding.kind, FindingKind::AckedLotsGone, "a flip at {at}: {finding}");
                    assert!(!finding.detail.is_empty());
                    named += 1;
                }
                Ok((log, report)) => {
                    // The watermark covers all of it, so nothing is ever cut.
                    assert!(report.cut.is_none(), "cut after a flip at {at}: {report:?}");
                    match served_is_sound(&log, &sample.records) {
                        Ok(found) => {
                            assert!(found > 0, "a flip at {at} was not seen");
                            holes += 1;
                        }
                        // Before the view's mark opening looks at headers only; the scan names it.
                        Err(finding) => {
                            assert!(known.is_some(), "{finding}");
                            named += 1;
                        }
                    }
                }
            }
        }
    }
    assert!(named > 0 && holes > 0, "{named} named, {holes} holes");
}

#[test]
fn a_flip_in_the_very_last_lot_above_the_watermark_looks_torn() {
    // The known limit of docs/storage.md: only a lot whose watermark never reached the disk.
    let sample = sample();
    let path = segment_path(sample.dir.path(), 1);
    let sound = fs::read(&path).expect("read");
    for at in sample.marks[2].position.offset as usize..sound.len() {
        let dir = copy_dir(sample.dir.path());
        set_watermark(dir.path(), &sample.marks[2]);
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        fs::write(segment_path(dir.path(), 1), &bytes).expect("write");
        let (log, report) = open(dir.path());
        assert!(report.cut.is_some());
        assert_eq!(records(&log)[..], sample.records[..5]);
    }
    // In an earlier lot it is damage although the watermark lies below it: a later lot follows.
    for at in sample.marks[1].position.offset as usize..sample.marks[2].position.offset as usize {
        let dir = copy_dir(sample.dir.path());
        set_watermark(dir.path(), &sample.marks[0]);
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        fs::write(segment_path(dir.path(), 1), &bytes).expect("write");
        match Log::open(dir.path(), unsynced(), None) {
            Ok((log, report)) => {
                assert!(report.cut.is_none(), "cut after a flip at {at}");
                assert!(served_is_sound(&log, &sample.records).expect("sound") > 0);
            }
            Err(error) => assert!(finding(&error).detail.contains("a later lot"), "{error}"),
        }
    }
}

#[test]
fn flips_over_several_segments_are_named_or_holes() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let options = LogOptions { segment_bytes_max: 1 << 10, ..unsynced() };
    let (mut log, _) = Log::open(dir.path(), options.clone(), None).expect("open");
    for seq in 1..=8 {
        append(&mut log, [text(1, seq, &[seq as u8; 100]), user("u")]);
    }
    let expected = records(&log);
    let end = log.end();
    assert!(end.position.segment > 2);
    log.close().expect("close");
    let mut footers = 0;
    for number in 1..=end.position.segment {
        let path = segment_path(dir.path(), number);
        let sound = fs::read(&path).expect("read");
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 0x04;
            for known in [None, Some(end)] {
                fs::write(&path, &bytes).expect("write");
                let Ok((log, report)) = Log::open(dir.path(), options.clone(), known.as_ref()) else { continue };
                assert!(report.cut.is_none(), "cut after a flip at {at} of {number}");
                let footer = report.findings.iter().any(|finding| finding.kind == FindingKind::Footer);
                footers += usize::from(footer);
                match served_is_sound(&log, &expected) {
                    Ok(holes) => {
                        // Directories of a footer are read only when a lot needs them.
                        let in_footer = number < end.position.segment && at as u32 >= end_of(&log, number);
                        assert!(holes > 0 || footer || in_footer, "a flip at {at} of {number} was not seen");
                    }
                    Err(finding) => assert!(known.is_some(), "{finding}"),
                }
                for (version, place, _) in &expected {
                    match log.reader().place_of(*version) {
                        Ok(found) => assert_eq!(found, Some(*place)),
                        Err(error) => assert!(known.is_some(), "{error}"),
                    }
                }
            }
        }
        fs::write(&path, &sound).expect("write");
    }
    assert!(footers > 0);
}

#[test]
fn a_flip_in_the_watermark_takes_one_slot_at_most() {
    let sample = sample();
    let path = sample.dir.path().join(files::WATERMARK_NAME);
    // Two lots later, so that both slots are new.
    let sound = fs::read(&path).expect("read");
    for slot in [0, 4_096] {
        for at in slot..slot + layout::SLOT {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).expect("write");
            let (log, report) = open(sample.dir.path());
            assert!(report.findings.is_empty(), "{report:?}");
            assert_eq!(records(&log), sample.records);
        }
    }
}

#[test]
fn segments_that_are_missing_foreign_or_shuffled_are_named() {
    let build = || {
        let dir = tempfile::tempdir().expect("temporary directory");
        let options = LogOptions { segment_bytes_max: 1 << 10, ..unsynced() };
        let (mut log, _) = Log::open(dir.path(), options, None).expect("open");
        for seq in 1..=16 {
            append(&mut log, [text(1, seq, &[1; 100])]);
        }
        assert!(log.end().position.segment >= 4);
        dir
    };
    let one = build();
    let other = build();
    let with = |change: &dyn Fn(&Path)| {
        let dir = copy_dir(one.path());
        change(dir.path());
        refused(dir.path(), None)
    };
    let missing = with(&|dir| fs::remove_file(segment_path(dir, 2)).expect("remove"));
    assert_eq!(missing.kind, FindingKind::SegmentMissing);
    assert!(missing.file.ends_with("0000000002.log"));
    let first = with(&|dir| fs::remove_file(segment_path(dir, 1)).expect("remove"));
    assert_eq!(first.kind, FindingKind::SegmentMissing);
    let foreign = with(&|dir| {
        fs::copy(segment_path(other.path(), 2), segment_path(dir, 2)).expect("copy");
    });
    assert_eq!(foreign.kind, FindingKind::ForeignLog);
    let foreign = with(&|dir| {
        fs::copy(other.path().join(files::WATERMARK_NAME), dir.join(files::WATERMARK_NAME)).expect("copy");
    });
    assert_eq!(foreign.kind, FindingKind::ForeignLog);
    let shuffled = with(&|dir| {
        fs::copy(segment_path(dir, 3), segment_path(dir, 2)).expect("copy");
    });
    assert_eq!(shuffled.kind, FindingKind::SegmentHeader);
    let short = with(&|dir| {
        let file = fs::OpenOptions::new().write(true).open(segment_path(dir, 2)).expect("open");
        file.set_len(200).expect("truncate");
    });
    assert_eq!(short.kind, FindingKind::SegmentChain);
    let last = with(&|dir| {
        let numbers: Vec<u32> = (1..).take_while(|&n| segment_path(dir, n).exists()).collect();
        fs::remove_file(segment_path(dir, *numbers.last().expect("segments"))).expect("remove");
    });
    assert_eq!(last.kind, FindingKind::AckedLotsGone);
}

#[test]
fn a_segment_whose_successor_was_never_made_goes_on_in_the_next() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let faults = std::sync::Arc::new(FailOn::default());
    let options = LogOptions { segment_bytes_max: 1 << 10, faults: Some(faults.clone()) };
    let (mut log, _) = Log::open(dir.path(), options.clone(), None).expect("open");
    let mut seq = 0;
    faults.plan(FileOp::Rename, 0);
    loop {
        seq += 1;
        let sealed = log.seal(&lot([text(1, seq, &[1; 100])]), NOW);
        if log.write(&sealed).is_err() {
            break;
        }
    }
    let end = log.end();
    drop(log);
    let (mut log, report) = Log::open(dir.path(), options, None).expect("open");
    assert!(report.cut.is_none() && report.findings.is_empty(), "{report:?}");
    assert_eq!(log.end(), end);
    assert_eq!(append(&mut log, [text(1, seq, b"on")]).places[0].segment, 2);
    drop(log);
    let (log, report) = open(dir.path());
    assert!(report.findings.is_empty(), "{report:?}");
    assert_eq!(records(&log).len() as u64, seq);
}

#[test]
fn a_payload_that_imitates_a_lot_is_a_payload() {
    // A copy of this very log's lots, header and keyed checksums included, as a message; then the lot behind it is torn.
    let sample = sample();
    let copied = fs::read(segment_path(sample.dir.path(), 1)).expect("read");
    let (mut log, _) = open(sample.dir.path());
    let before = log.end();
    append(&mut log, [text(3, 1, &copied)]);
    let end = log.end();
    log.close().expect("close");
    let path = segment_path(sample.dir.path(), 1);
    let whole = fs::read(&path).expect("read");
    for at in [before.position.offset as usize, before.position.offset as usize + layout::LOT_HEADER, whole.len() - 1] {
        let dir = copy_dir(sample.dir.path());
        set_watermark(dir.path(), &before);
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(segment_path(dir.path(), 1), bytes).expect("write");
        let (log, report) = open(dir.path());
        assert_eq!(report.cut.expect("cut").at, before.position);
        assert_eq!(log.end(), before);
    }
    assert_eq!(open(sample.dir.path()).0.end(), end);
}

#[test]
fn damage_names_the_messages_it_hits() {
    let sample = sample();
    let path = segment_path(sample.dir.path(), 1);
    let mut bytes = fs::read(&path).expect("read");
    // The middle of (1, 2)'s record: a hole, and the start goes on.
    bytes[sample.records[2].1.offset as usize + 20] ^= 1;
    fs::write(&path, &bytes).expect("write");
    let (_, report) = open(sample.dir.path());
    let [hole] = &report.findings[..] else { panic!("{report:?}") };
    assert_eq!(hole.kind, FindingKind::Message);
    assert_eq!(hole.messages, [SeqRun { channel: ChannelNo(1), first_seq: 2, count: 1 }]);
    assert!(hole.to_string().contains("channel number 1 seq 2"), "{hole}");
    // A user's record stops the start.
    bytes[sample.records[0].1.offset as usize + 18] ^= 1;
    fs::write(&path, &bytes).expect("write");
    let stopped = refused(sample.dir.path(), None);
    assert_eq!(stopped.kind, FindingKind::Record);
    assert_eq!(stopped.offset, u64::from(sample.records[0].1.offset));
}

#[test]
fn a_sound_lot_of_another_history_is_named() {
    // What a restored or misplaced block would bring: same log, same place, same size, every checksum right.
    let one = tempfile::tempdir().expect("temporary directory");
    let (mut log, _) = open(one.path());
    append(&mut log, [text(1, 1, b"common")]);
    let from = log.end().position.offset as usize;
    log.close().expect("close");
    let two = copy_dir(one.path());
    let (mut log, _) = open(two.path());
    append(&mut log, [text(1, 2, b"theirs")]);
    let to = log.end().position.offset as usize;
    drop(log);
    let theirs = fs::read(segment_path(two.path(), 1)).expect("read");
    let (mut log, _) = open(one.path());
    append(&mut log, [text(1, 2, b"ours--")]);
    let mark = log.end();
    append(&mut log, [text(1, 3, b"ours")]);
    let path = segment_path(one.path(), 1);
    let mut bytes = fs::read(&path).expect("read");
    bytes[from..to].copy_from_slice(&theirs[from..to]);
    fs::write(&path, bytes).expect("write");
    let scanned: Vec<_> = log.reader().scan(LogPosition::default()).collect();
    let last = scanned.last().expect("lots").as_ref().expect_err("not sound");
    assert_eq!((last.kind, scanned.len()), (FindingKind::Chain, 3));
    drop(log);
    // Both slots of the watermark and the view's mark know better; so does the lot behind, alone.
    assert_eq!(refused(one.path(), None).kind, FindingKind::MarkMismatch);
    without_watermark(one.path());
    assert_eq!(refused(one.path(), Some(&mark)).kind, FindingKind::MarkMismatch);
    assert_eq!(refused(one.path(), None).kind, FindingKind::Chain);
}

#[test]
fn interrupted_makings_are_swept_and_other_files_left_alone() {
    let sample = sample();
    fs::write(sample.dir.path().join("0000000002.log.new"), b"half").expect("write");
    fs::write(sample.dir.path().join("notes.txt"), b"mine").expect("write");
    let (log, _) = open(sample.dir.path());
    assert_eq!(records(&log), sample.records);
    assert!(!sample.dir.path().join("0000000002.log.new").exists());
    assert!(sample.dir.path().join("notes.txt").exists());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Random bytes anywhere, behind true headers or not: opening and scanning never panic.
    #[test]
    fn random_bytes_never_panic(tail in vec(any::<u8>(), 0..400), from in 0..300_usize, lots in any::<bool>()) {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (mut log, _) = open(dir.path());
        if lots {
            append(&mut log, [text(1, 1, b"x")]);
        }
        drop(log);
        let path = segment_path(dir.path(), 1);
        let mut bytes = fs::read(&path).expect("read");
        bytes.truncate(from);
        bytes.extend(tail);
        fs::write(&path, bytes).expect("write");
        if from % 2 == 0 {
            without_watermark(dir.path());
        }
        if let Ok((log, _)) = Log::open(dir.path(), unsynced(), None) {
            let _ = log.reader().scan(LogPosition::default()).count();
            let _ = log.reader().place_of(Version::new(NOW));
        }
    }

    /// Decoders of everything the log reads take any bytes, also with a right checksum.
    #[test]
    fn decoders_never_panic(bytes in vec(any::<u8>(), 0..300), numbers in any::<[u64; 2]>(), counts in any::<[u32; 2]>()) {
        let keys = layout::Keys::new(&[7; 16]);
        let position = LogPosition { segment: 1, offset: 128 };
        let _ = layout::SegmentHeader::decode(&bytes);
        let _ = layout::decode_slot(&bytes);
        let _ = layout::decode_record(&keys, &bytes);
        let _ = layout::Footer::decode(&keys, &bytes, position);
        let mut lot = vec![0; layout::LOT_HEADER];
        lot.extend(&bytes);
        let versions = (Version::new(numbers[0]), Version::new(numbers[1]));
        let directory = (counts[1] as usize).min(bytes.len()) as u32;
        layout::LotHeader::seal(&keys, &mut lot, position, versions, counts[0] % 40, directory, &[0; 16]);
        if let Ok(header) = layout::LotHeader::decode(&keys, &lot, position) {
            let _ = header.directory(&keys, &bytes[..directory as usize]);
        }
    }
}
