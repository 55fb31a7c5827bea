//! The bytes of a small log against the drawings of docs/storage.md, read with nothing but those offsets.

use super::*;

/// Reads little-endian numbers at offsets of a file.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn number(&self, at: usize, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, i| number | u64::from(self.0[at + i]) << (8 * i))
    }

    fn id(&self, at: usize) -> [u8; 16] {
        std::array::from_fn(|i| self.0[at + i])
    }

    /// An unsigned LEB128 number; moves on.
    fn varint(&self, at: &mut usize) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.0[*at];
            *at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return number;
            }
        }
    }
}

fn digest(before: [u8; 16], lot: &[u8]) -> [u8; 16] {
    let mut bytes = before.to_vec();
    bytes.extend_from_slice(lot);
    let hash = blake3::hash(&bytes);
    std::array::from_fn(|i| hash.as_bytes()[i])
}

#[test]
fn a_segment_is_what_the_drawings_say() {
    let dir = tempfile::tempdir().expect("temporary directory");
    // The second lot does not fit beside the first one and a footer.
    let options = LogOptions { segment_bytes_max: 900, ..unsynced() };
    let (mut log, _) = Log::open(dir.path(), options, None).expect("open");
    let first = [text(3, 1, b"one"), text(3, 2, b"two"), user("bob")];
    let sealed = append(&mut log, first.clone());
    let version = sealed.versions[0].get();
    // Versions left out between records of one lot.
    let gapped = [(Version::new(version + 10), text(3, 3, &[b'x'; 300])), (Version::new(version + 15), user("carol"))];
    let sealed = log.seal_at(&gapped).expect("sealed");
    log.write(&sealed).expect("write");
    log.close().expect("closed");

    let one = std::fs::read(segment_path(dir.path(), 1)).expect("reads");
    let two = std::fs::read(segment_path(dir.path(), 2)).expect("reads");
    let (a, b) = (Bytes(&one), Bytes(&two));

    // Segment headers.
    let log_id = a.id(16);
    for (bytes, number) in [(&one, 1), (&two, 2)] {
        let header = Bytes(bytes);
        assert_eq!(&bytes[..8], b"CHWGLOG\n");
        assert_eq!(header.number(8, 4), u64::from(crc32c::crc32c(&bytes[12..128])));
        assert_eq!((header.number(12, 2), header.number(14, 2), header.number(32, 4)), (1, 0, number));
        assert_eq!(header.id(16), log_id);
        assert!(bytes[64..128].iter().all(|byte| *byte == 0));
    }
    assert_eq!((a.number(36, 4), a.number(40, 8), a.id(48)), (0, 0, [0; 16]));

    // What the id makes.
    let keys = blake3::derive_key("chinwag log format 1", &log_id);
    let (lot_magic, footer_magic) = (&keys[..8], &keys[8..16]);
    let seed = Bytes(&keys).number(16, 4) as u32;
    let crc = |bytes: &[u8]| u64::from(crc32c::crc32c_append(seed, bytes));

    // Lots: header, directory, records.
    let lots = [
        (&one, 1, vec![version, version + 1, version + 2], [0; 16]),
        (&two, 2, vec![version + 10, version + 15], digest([0; 16], &one[128..b.number(36, 4) as usize])),
    ];
    let mut directories = Vec::new();
    for (file, segment, versions, chain_before) in lots {
        let lot = Bytes(&file[128..]);
        assert_eq!(&lot.0[..8], lot_magic);
        let (directory_bytes, records_bytes) = (lot.number(44, 4) as usize, lot.number(48, 4) as usize);
        assert_eq!(lot.number(8, 4), crc(&lot.0[12..72]));
        assert_eq!(lot.number(12, 4), crc(&lot.0[72..72 + directory_bytes]));
        assert_eq!((lot.number(16, 4), lot.number(20, 4)), (segment, 128));
        assert_eq!((lot.number(24, 8), lot.number(32, 8)), (versions[0], versions[versions.len() - 1]));
        assert_eq!((lot.number(40, 4), lot.number(52, 2), lot.number(54, 2)), (versions.len() as u64, 1, 0));
        assert_eq!(lot.id(56), chain_before);
        directories.push(lot.0[72..72 + directory_bytes].to_vec());

        let (mut at, mut record, mut given, mut next) = (72, 72 + directory_bytes, 0, versions[0]);
        while at < 72 + directory_bytes {
            let kind = lot.0[at];
            at += 1;
            let channel = lot.varint(&mut at);
            let seq = if kind == 1 { lot.varint(&mut at) } else { 0 };
            assert_eq!(channel, if kind == 1 { 3 + 1 } else { 0 }, "channel number + 1, or none");
            next += lot.varint(&mut at);
            for i in 0..lot.varint(&mut at) {
                let bytes = lot.varint(&mut at) as usize;
                // A record: its head, then its body.
                let whole = Bytes(&lot.0[record..record + bytes]);
                assert_eq!(whole.number(0, 4), crc(&whole.0[4..]));
                assert_eq!(whole.number(4, 4) as usize, bytes - 17);
                assert_eq!((whole.0[8], whole.0[9], whole.number(10, 7)), (kind, 1, next));
                assert_eq!(next, versions[given]);
                if kind == 1 {
                    assert_eq!((u64::from(whole.0[17]), u64::from(whole.0[18])), (3, seq + i), "v channel, v seq");
                    assert_eq!(&whole.0[19..25], b"\x05alice", "s from_uid");
                } else {
                    assert_eq!(whole.0[17] as usize, bytes - 18, "s uid");
                }
                (record, given, next) = (record + bytes, given + 1, next + 1);
            }
        }
        assert_eq!((given, record), (versions.len(), 72 + directory_bytes + records_bytes));
    }

    // The second header says where the first segment ends; the footer lies there.
    let end = b.number(36, 4) as usize;
    let chain = digest([0; 16], &one[128..end]);
    assert_eq!((b.number(40, 8), b.id(48)), (version + 2, chain));
    let footer = Bytes(&one[end..]);
    assert_eq!(&footer.0[..8], footer_magic);
    let (table_bytes, directories_bytes) = (footer.number(32, 4) as usize, footer.number(36, 4) as usize);
    let (table, rest) = footer.0[80..].split_at(table_bytes);
    assert_eq!(rest.len(), directories_bytes, "nothing behind it");
    assert_eq!(footer.number(8, 4), crc(&footer.0[12..80]));
    assert_eq!((footer.number(12, 4), footer.number(16, 4)), (crc(table), crc(rest)));
    assert_eq!((footer.number(20, 2), footer.number(22, 2)), (1, 0));
    assert_eq!((footer.number(24, 4), footer.number(28, 4)), (1, end as u64));
    assert_eq!((footer.number(40, 4), footer.number(44, 4)), (1, 1), "lots, entries of the table");
    assert_eq!((footer.number(48, 8), footer.number(56, 8), footer.id(64)), (0, version + 2, chain));
    let mut at = 0;
    let table = Bytes(table);
    assert_eq!((table.varint(&mut at), table.varint(&mut at)), (version, 128), "first version, offset");
    let mut at = 0;
    let rest = Bytes(rest);
    assert_eq!((rest.varint(&mut at), rest.varint(&mut at)), (128, version), "offset, first version");
    assert_eq!(rest.varint(&mut at) as usize, directories[0].len());
    assert_eq!(&rest.0[at..], directories[0]);

    // The watermark: two slots, the newer one at the log's end.
    let watermark = std::fs::read(dir.path().join("watermark")).expect("reads");
    assert_eq!(watermark.len(), 8_192);
    let mut ends = Vec::new();
    for at in [0, 4_096] {
        let slot = Bytes(&watermark[at..at + 64]);
        assert_eq!(&slot.0[..8], b"CHWGMARK");
        assert_eq!(slot.number(8, 4), u64::from(crc32c::crc32c(&slot.0[12..])));
        assert_eq!((slot.number(12, 2), slot.number(14, 2), slot.id(16)), (1, 0, log_id));
        ends.push((slot.number(32, 4), slot.number(36, 4), slot.number(40, 8), slot.id(48)));
    }
    ends.sort_unstable();
    let last = (2, two.len() as u64, version + 15, digest(chain, &two[128..]));
    assert_eq!(ends, [(1, end as u64, version + 2, chain), last]);
}

#[test]
fn versions_given_elsewhere_must_rise() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let (mut log, _) = open(dir.path());
    let at = |versions: &[u64]| -> Vec<(Version, Record)> {
        versions.iter().map(|version| (Version::new(*version), user("bob"))).collect()
    };
    let sealed = log.seal_at(&at(&[5, 6, 9])).expect("sealed");
    log.write(&sealed).expect("written");
    for versions in [&[9][..], &[8], &[10, 10], &[11, 10], &[Version::MAX.get() + 1]] {
        assert!(log.seal_at(&at(versions)).is_err(), "{versions:?}");
    }
    let sealed = log.seal_at(&at(&[10, Version::MAX.get()])).expect("sealed");
    log.write(&sealed).expect("written");
    let found: Vec<u64> = records(&log).iter().map(|(version, ..)| version.get()).collect();
    assert_eq!(found, [5, 6, 9, 10, Version::MAX.get()]);
    log.close().expect("closed");
    let (log, report) = open(dir.path());
    assert_eq!((log.end().version, records(&log).len()), (Version::MAX, 5), "{report:?}");
}
