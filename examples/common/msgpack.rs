//! Walks MessagePack in place: what the load tools read millions of times a second without building values.
//!
//! Owns the reading of markers and lengths. Refuses to know frames. Every method answers `None` on bytes that are not
//! what was asked for or that end too early; nothing panics on foreign bytes.

// Each example uses a part of the shared modules.
#![allow(dead_code)]

/// How deep [`Cursor::skip`] follows nested values.
const DEPTH_MAX: u32 = 32;

/// A place in MessagePack bytes.
#[derive(Clone, Copy)]
pub struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// Starts at the first byte.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        if self.rest.len() < n {
            return None;
        }
        let (head, tail) = self.rest.split_at(n);
        self.rest = tail;
        Some(head)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, tail) = self.rest.split_first()?;
        self.rest = tail;
        Some(*first)
    }

    fn be(&mut self, n: usize) -> Option<u64> {
        Some(self.take(n)?.iter().fold(0, |sum, b| sum << 8 | u64::from(*b)))
    }

    /// The number of entries of a map.
    pub fn map(&mut self) -> Option<usize> {
        match self.byte()? {
            marker @ 0x80..=0x8f => Some(usize::from(marker & 0x0f)),
            0xde => self.be(2).map(|n| n as usize),
            0xdf => self.be(4).map(|n| n as usize),
            _ => None,
        }
    }

    /// The number of items of an array.
    pub fn array(&mut self) -> Option<usize> {
        match self.byte()? {
            marker @ 0x90..=0x9f => Some(usize::from(marker & 0x0f)),
            0xdc => self.be(2).map(|n| n as usize),
            0xdd => self.be(4).map(|n| n as usize),
            _ => None,
        }
    }

    /// The bytes of a string or a binary.
    pub fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = match self.byte()? {
            marker @ 0xa0..=0xbf => usize::from(marker & 0x1f),
            0xd9 | 0xc4 => self.be(1)? as usize,
            0xda | 0xc5 => self.be(2)? as usize,
            0xdb | 0xc6 => self.be(4)? as usize,
            _ => return None,
        };
        self.take(length)
    }

    /// A number that is not negative.
    pub fn uint(&mut self) -> Option<u64> {
        match self.byte()? {
            marker @ 0x00..=0x7f => Some(u64::from(marker)),
            0xcc | 0xd0 => self.be(1),
            0xcd | 0xd1 => self.be(2),
            0xce | 0xd2 => self.be(4),
            0xcf | 0xd3 => self.be(8),
            _ => None,
        }
    }

    /// A boolean.
    pub fn boolean(&mut self) -> Option<bool> {
        match self.byte()? {
            0xc2 => Some(false),
            0xc3 => Some(true),
            _ => None,
        }
    }

    /// Steps over one value of any kind.
    pub fn skip(&mut self) -> Option<()> {
        self.skip_within(DEPTH_MAX)
    }

    fn skip_within(&mut self, depth: u32) -> Option<()> {
        let depth = depth.checked_sub(1)?;
        let fixed = match *self.rest.first()? {
            0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => 1,
            0xcc | 0xd0 => 2,
            0xcd | 0xd1 | 0xd4 => 3,
            0xd5 => 4,
            0xce | 0xd2 | 0xca => 5,
            0xd6 => 6,
            0xcf | 0xd3 | 0xcb => 9,
            0xd7 => 10,
            0xd8 => 18,
            0x80..=0x8f | 0xde | 0xdf => {
                for _ in 0..self.map()? {
                    self.skip_within(depth)?;
                    self.skip_within(depth)?;
                }
                return Some(());
            }
            0x90..=0x9f | 0xdc | 0xdd => {
                for _ in 0..self.array()? {
                    self.skip_within(depth)?;
                }
                return Some(());
            }
            0xc7 => usize::from(*self.rest.get(1)?) + 3,
            _ => return self.bytes().map(|_| ()),
        };
        self.take(fixed).map(|_| ())
    }
}
