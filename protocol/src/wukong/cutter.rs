//! Bytes of a connection to packets, wherever they were split or joined (wukongim-wire.md 1.1, 1.2, 3.2).

use super::error::PacketError;
use super::words::Kind;

/// Most bytes before a body: the first byte and four of the remaining length.
pub const HEAD_BYTES_MAX: usize = 5;
/// A buffer larger than this is given back after its packet, so that quiet sessions hold none.
const KEPT_BYTES_MAX: usize = 4 * 1_024;

/// A packet whose end is known and whose body was not looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RawPacket<'a> {
    /// Type and flags.
    pub first: u8,
    /// All behind the remaining length.
    pub body: &'a [u8],
    /// Bytes the packet took.
    pub bytes: usize,
}

impl RawPacket<'_> {
    /// The type's number.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.first >> 4
    }
}

/// Where the packet at the front of `bytes` has its body and its end; `None` until its head is there.
fn head(bytes: &[u8], body_bytes_max: usize) -> Result<Option<(usize, usize)>, PacketError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    if matches!(Kind::from_number(first >> 4), Some(Kind::Ping | Kind::Pong)) {
        return Ok(Some((1, 1)));
    }
    let mut length = 0_usize;
    for (at, byte) in bytes[1..].iter().take(HEAD_BYTES_MAX - 1).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if length > body_bytes_max {
            return Err(PacketError::TooLarge { bytes: length, max: body_bytes_max });
        }
        if byte & 0x80 == 0 {
            let start = at + 2;
            return Ok(Some((start, start + length)));
        }
    }
    if bytes.len() < HEAD_BYTES_MAX { Ok(None) } else { Err(PacketError::LengthTooWide) }
}

/// The packet at the front of `bytes`; `None` while it is incomplete.
///
/// # Errors
/// [`PacketError::TooLarge`] as soon as the length is known to exceed `body_bytes_max`, [`PacketError::LengthTooWide`].
pub fn cut(bytes: &[u8], body_bytes_max: usize) -> Result<Option<RawPacket<'_>>, PacketError> {
    let Some((start, end)) = head(bytes, body_bytes_max)? else { return Ok(None) };
    Ok(bytes.get(start..end).map(|body| RawPacket { first: bytes[0], body, bytes: end }))
}

/// Cuts a connection's bytes into packets, whatever the pieces they come in: TCP segments, or payloads of WebSocket
/// messages, which are one stream too. Whole packets are lent from the piece itself; only the torn end of a piece is
/// copied. Holds at most the limit and [`HEAD_BYTES_MAX`], allocated as bytes come and not as they are claimed.
#[derive(Debug)]
pub struct Cutter {
    held: Vec<u8>,
    /// What is held was lent out as a packet and goes with the next call.
    lent: bool,
    body_bytes_max: usize,
}

impl Cutter {
    /// One per connection; `body_bytes_max` at most [`super::BODY_BYTES_MAX`].
    #[must_use]
    pub fn new(body_bytes_max: usize) -> Self {
        Self { held: Vec::new(), lent: false, body_bytes_max: body_bytes_max.min(super::BODY_BYTES_MAX) }
    }

    /// The next packet of what is held and `piece`, which is advanced by what was taken. `None`: the piece is used up.
    ///
    /// # Errors
    /// As [`cut`]. The stream cannot be read on: the same error comes again.
    pub fn next<'s, 'p: 's>(&'s mut self, piece: &mut &'p [u8]) -> Result<Option<RawPacket<'s>>, PacketError> {
        if self.lent {
            self.lent = false;
            self.held.clear();
            if self.held.capacity() > KEPT_BYTES_MAX {
                self.held = Vec::new();
            }
        }
        if self.held.is_empty()
            && let Some(packet) = cut(piece, self.body_bytes_max)?
        {
            *piece = &piece[packet.bytes..];
            return Ok(Some(packet));
        }
        let (start, end) = loop {
            match head(&self.held, self.body_bytes_max)? {
                Some((start, end)) => {
                    self.take(piece, end);
                    if self.held.len() < end {
                        return Ok(None);
                    }
                    break (start, end);
                }
                None if piece.is_empty() => return Ok(None),
                None => self.take(piece, self.held.len() + 1),
            }
        };
        self.lent = true;
        Ok(Some(RawPacket { first: self.held[0], body: &self.held[start..end], bytes: end }))
    }

    /// Bytes held for a packet that is not complete.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        if self.lent { 0 } else { self.held.len() }
    }

    /// Bytes allocated.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.held.capacity()
    }

    /// Moves bytes of the piece to the held ones until there are `end`.
    fn take(&mut self, piece: &mut &[u8], end: usize) {
        let (taken, rest) = piece.split_at(piece.len().min(end - self.held.len()));
        let need = self.held.len() + taken.len();
        if need > self.held.capacity() {
            // Doubling, but never beyond the packet's end.
            let capacity = need.max(self.held.capacity() * 2).min(end.max(HEAD_BYTES_MAX));
            self.held.reserve_exact(capacity - self.held.len());
        }
        self.held.extend_from_slice(taken);
        *piece = rest;
    }
}
