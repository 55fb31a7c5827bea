//! Bytes of rows: one version byte, then varints, big-endian fixed numbers and length-prefixed text.

use std::fmt;

/// Version of the row format, the first byte of every value. A view of another one is made anew from the log.
///
/// 1: the first. 2: messages can be revoked, edited and reacted to; roles, profiles, mentions, flags, relations, files.
/// 3: lists, system users, commands. 4: messages have lanes of events.
pub const ROW_VERSION: u8 = 4;
/// No value is longer than this; larger things are cut into several rows. (sled keeps nodes above 128 KiB, which hold up
/// to 16 values, in files of their own that its flush does not cover.)
pub const ROW_BYTES_MAX: usize = 4096;

/// A value is not what the layout says. The caller adds which row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the row does not have the layout of its key space")
    }
}

impl std::error::Error for Malformed {}

/// Writes a row.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    /// A row: begins with the version byte.
    pub fn row() -> Self {
        Self(vec![ROW_VERSION])
    }

    /// A part of a row.
    pub fn part() -> Self {
        Self(Vec::new())
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    pub fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    pub fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push((number as u8) | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    /// A difference: small in both directions.
    pub fn zigzag(&mut self, number: i64) {
        self.varint(((number << 1) ^ (number >> 63)) as u64);
    }

    pub fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub fn bytes(&mut self, bytes: &[u8]) {
        self.varint(bytes.len() as u64);
        self.raw(bytes);
    }

    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }
}

/// Reads a row.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads a value: checks its version byte.
    pub fn row(value: &'a [u8]) -> Result<Self, Malformed> {
        match value.split_first() {
            Some((&ROW_VERSION, rest)) => Ok(Self(rest)),
            _ => Err(Malformed),
        }
    }

    /// Reads a part of a value.
    pub fn part(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn rest(&self) -> &'a [u8] {
        self.0
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        let (&first, rest) = self.0.split_first().ok_or(Malformed)?;
        self.0 = rest;
        Ok(first)
    }

    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut number = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(Malformed)
    }

    /// A varint that is a length of something in this row: at most `max`.
    pub fn count(&mut self, max: usize) -> Result<usize, Malformed> {
        usize::try_from(self.varint()?).ok().filter(|&n| n <= max).ok_or(Malformed)
    }

    pub fn varint32(&mut self) -> Result<u32, Malformed> {
        u32::try_from(self.varint()?).map_err(|_| Malformed)
    }

    pub fn zigzag(&mut self) -> Result<i64, Malformed> {
        let number = self.varint()?;
        Ok(((number >> 1) as i64) ^ -((number & 1) as i64))
    }

    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        if len > self.0.len() {
            return Err(Malformed);
        }
        let (taken, rest) = self.0.split_at(len);
        self.0 = rest;
        Ok(taken)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.raw(N)?.try_into().map_err(|_| Malformed)
    }

    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_be_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.count(self.0.len())?;
        self.raw(len)
    }

    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_text_come_back() {
        let mut w = Writer::row();
        for n in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            w.varint(n);
        }
        for n in [0, 1, -1, 63, -64, i64::MAX, i64::MIN] {
            w.zigzag(n);
        }
        w.text("ünï");
        w.u32(7);
        w.u64(8);
        let bytes = w.finish();
        let mut r = Reader::row(&bytes).expect("version");
        for n in [0, 1, 127, 128, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(r.varint(), Ok(n));
        }
        for n in [0, 1, -1, 63, -64, i64::MAX, i64::MIN] {
            assert_eq!(r.zigzag(), Ok(n));
        }
        assert_eq!((r.text(), r.u32(), r.u64()), (Ok("ünï"), Ok(7), Ok(8)));
        assert!(r.is_empty());
        assert_eq!(r.u8(), Err(Malformed));
        assert!(Reader::row(&[9, 1]).is_err());
    }
}
