//! A value that may be longer than a row, cut into parts: `u8 how many parts`, then its share of the bytes, each a row. The
//! keys of the parts differ in their last byte.

use super::codec::{Malformed, ROW_BYTES_MAX, Reader, Writer};
use super::damaged_row;
use super::db::{Db, Row};
use crate::store::Result;

/// A row holds at most this much of the value.
const PART_BYTES_MAX: usize = ROW_BYTES_MAX - 16;

/// Rows of a value; parts it had before (`before`) and has no more are taken away. Returns how many it has now. A value
/// longer than 255 parts (a megabyte) does not come up: its owners bound it far below.
pub fn write(key: &dyn Fn(u8) -> Vec<u8>, bytes: &[u8], before: u8, rows: &mut Vec<Row>) -> u8 {
    let count = bytes.len().div_ceil(PART_BYTES_MAX).clamp(1, 255) as u8;
    for part in 0..count {
        let from = usize::from(part) * PART_BYTES_MAX;
        let mut w = Writer::row();
        w.u8(count);
        w.raw(bytes.get(from..(from + PART_BYTES_MAX).min(bytes.len())).unwrap_or_default());
        rows.push((key(part), Some(w.finish())));
    }
    rows.extend((count..before).map(|part| (key(part), None)));
    count
}

/// The value and how many parts it has; `None`: there is none.
pub fn read(db: &Db, key: &dyn Fn(u8) -> Vec<u8>) -> Result<Option<(Vec<u8>, u8)>> {
    let take = |part: u8, bytes: &mut Vec<u8>| -> Result<Option<u8>> {
        let key = key(part);
        let Some(row) = db.get(&key)? else {
            // Only the first part may be missing: then there is no value.
            return if part == 0 { Ok(None) } else { Err(damaged_row(&key, Malformed)) };
        };
        let decode = || -> Result<(u8, &[u8]), Malformed> {
            let mut r = Reader::row(&row)?;
            Ok((r.u8()?, r.rest()))
        };
        let (count, share) = decode().map_err(|m| damaged_row(&key, m))?;
        bytes.extend_from_slice(share);
        Ok(Some(count))
    };
    let mut bytes = Vec::new();
    let Some(count) = take(0, &mut bytes)? else { return Ok(None) };
    for part in 1..count {
        take(part, &mut bytes)?;
    }
    Ok(Some((bytes, count)))
}
