//! Frames out of bytes: incremental, in place, without a buffer while nothing is incomplete.
//!
//! ```text
//!  0               1               2 … 3 or 2 … 9        4 bytes     the rest
//! +-+---+-------+ +-+-------------+ +------------------+ +--------+ +----------------+
//! |F|RSV|opcode | |M| length 7    | | length 16 or 64, | | mask   | | masked payload |
//! |I|000|       | |1|             | | big-endian       | | key    | |                |
//! |N|   |       | | |             | |                  | |        | |                |
//! +-+---+-------+ +-+-------------+ +------------------+ +--------+ +----------------+
//! ```
//! RFC 6455 section 5.2.

use std::borrow::Cow;

use protocol::close::CloseReason;

use super::{Opcode, mask};

/// Longest header of a client's frame.
const HEAD_BYTES_MAX: usize = 14;
/// Longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;
/// First reservation for an incomplete message; it doubles with what really arrives.
const FIRST_RESERVE_BYTES: usize = 1_024;

/// What a reader accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReadLimits {
    /// Largest message in bytes, all its fragments together.
    pub message_bytes_max: usize,
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message. Borrowed from the chunk when it lay there in one piece.
    Message {
        /// Text is checked to be UTF-8.
        text: bool,
        /// Its bytes, unmasked.
        payload: Cow<'a, [u8]>,
    },
    /// To be answered by a pong with the same bytes.
    Ping(Cow<'a, [u8]>),
    /// An answer, asked for or not.
    Pong(Cow<'a, [u8]>),
    /// The client ends. Answer with a close frame; nothing that follows is to be read.
    Close {
        /// Its code; `None` when it gave none.
        code: Option<u16>,
        /// Its reason, UTF-8, at most 123 bytes.
        reason: String,
    },
}

/// The bytes break RFC 6455 or a limit: close with this and read no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Violation {
    /// Names the close code: 1002, 1007 or 1009.
    pub reason: CloseReason,
    /// One sentence for the log and the close frame.
    pub text: &'static str,
}

impl Violation {
    const fn protocol(text: &'static str) -> Self {
        Self { reason: CloseReason::ProtocolError, text }
    }

    const NOT_UTF8: Self = Self { reason: CloseReason::NotUtf8, text: "text is not UTF-8" };
    const TOO_LARGE: Self = Self { reason: CloseReason::TooLarge, text: "the message is larger than the limit" };
}

/// Reads one connection's frames. One pointer large, and null while nothing is incomplete.
///
/// ```
/// use chinwag::gateway::websocket::{FrameReader, ReadLimits};
///
/// let mut reader = FrameReader::new();
/// let limits = ReadLimits { message_bytes_max: 1 << 20 };
/// let mut chunk = *b"\x81\x82\0\0\0\0hi\x89\x80\0\0"; // "hi", and a ping that is cut
/// let mut at = 0;
/// loop {
///     let (used, event) = reader.next(&mut chunk[at..], &limits).expect("well formed");
///     at += used;
///     match event {
///         Some(event) => println!("{event:?}"),
///         None => break, // all is used, read more
///     }
/// }
/// assert_eq!(at, chunk.len());
/// ```
#[derive(Debug, Default)]
pub struct FrameReader {
    partial: Option<Box<Partial>>,
}

/// What is kept between two chunks.
#[derive(Debug, Default)]
struct Partial {
    /// First bytes of a header that is not whole.
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    /// The frame whose payload is not whole, and how many bytes of it have come.
    frame: Option<(Head, usize)>,
    /// Payload of an incomplete control frame.
    control: Vec<u8>,
    /// The message begun by a frame without FIN, or whose only frame is not whole.
    message: Vec<u8>,
    /// Whether that message is text; `None`: no fragmented message is open.
    fragmented: Option<bool>,
    /// Bytes the caller put aside ([`FrameReader::park`]).
    parked: Parked,
}

impl Partial {
    fn is_idle(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.fragmented.is_none() && self.parked.is_empty()
    }
}

/// Bytes put aside by [`FrameReader::park`], read from the front.
#[derive(Debug, Default)]
pub struct Parked {
    bytes: Vec<u8>,
    at: usize,
}

impl Parked {
    /// Whether all is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    /// What is still to be read: the chunk for [`FrameReader::next`].
    #[must_use]
    pub fn rest(&mut self) -> &mut [u8] {
        &mut self.bytes[self.at..]
    }

    /// Tells how many bytes of [`Parked::rest`] were used.
    pub fn advance(&mut self, used: usize) {
        self.at = (self.at + used).min(self.bytes.len());
    }
}

/// A frame's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Head {
    fin: bool,
    opcode: Opcode,
    len: usize,
    key: [u8; 4],
}

impl Head {
    /// Reads a header and judges it as soon as its bytes are there; `None`: more bytes are needed. `open` is the
    /// fragmented message so far: whether there is one, and its bytes.
    fn parse(bytes: &[u8], open: Option<usize>, limits: &ReadLimits) -> Result<Option<(Self, usize)>, Violation> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::protocol("a reserved bit is set, no extension was negotiated"));
        }
        let Some(opcode) = Opcode::from_wire(first & 0x0f) else {
            return Err(Violation::protocol("the opcode is reserved"));
        };
        let fin = first & 0x80 != 0;
        if opcode.is_control() && !fin {
            return Err(Violation::protocol("a control frame is fragmented"));
        }
        match (opcode, open) {
            (Opcode::Continuation, None) => return Err(Violation::protocol("a continuation without a beginning")),
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(Violation::protocol("a new message inside of a fragmented one"));
            }
            _ => {}
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        if second & 0x80 == 0 {
            return Err(Violation::protocol("the frame is not masked"));
        }
        let (len, len_end) = match second & 0x7f {
            126 => {
                let Some(&wide) = bytes.get(2..).and_then(<[u8]>::first_chunk::<2>) else { return Ok(None) };
                (u64::from(u16::from_be_bytes(wide)), 4)
            }
            127 => {
                let Some(&wide) = bytes.get(2..).and_then(<[u8]>::first_chunk::<8>) else { return Ok(None) };
                (u64::from_be_bytes(wide), 10)
            }
            small => (u64::from(small), 2),
        };
        if opcode.is_control() && (len > CONTROL_BYTES_MAX || len_end > 2) {
            return Err(Violation::protocol("a control frame is longer than 125 bytes"));
        }
        if (len_end == 4 && len < 126) || (len_end == 10 && len <= u64::from(u16::MAX)) {
            return Err(Violation::protocol("the length is not in its shortest form"));
        }
        if len >> 63 != 0 {
            return Err(Violation::protocol("the length has its highest bit set"));
        }
        if !opcode.is_control()
            && len > (limits.message_bytes_max - open.unwrap_or(0).min(limits.message_bytes_max)) as u64
        {
            return Err(Violation::TOO_LARGE);
        }
        let Some(&key) = bytes.get(len_end..).and_then(<[u8]>::first_chunk::<4>) else { return Ok(None) };
        let len = usize::try_from(len).map_err(|_| Violation::TOO_LARGE)?;
        Ok(Some((Self { fin, opcode, len, key }, len_end + 4)))
    }
}

impl FrameReader {
    /// A reader at the beginning of a connection's frames.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads on to the next event. Returns how many bytes of `chunk` were used and the event; without an event all are
    /// used. Bytes are unmasked in place, so used bytes of the chunk are no longer what was received. The caller may
    /// stop between any two calls and go on later with the unused rest, see [`FrameReader::park`].
    ///
    /// # Errors
    /// A [`Violation`]: close, and do not call again.
    pub fn next<'a>(
        &mut self,
        chunk: &'a mut [u8],
        limits: &ReadLimits,
    ) -> Result<(usize, Option<Event<'a>>), Violation> {
        let mut rest = chunk;
        let mut used = 0;
        loop {
            let (head, done) = match self.partial.as_ref().and_then(|partial| partial.frame) {
                Some(open) => open,
                None => match self.read_head(rest, limits)? {
                    (head_used, None) => return Ok((used + head_used, None)),
                    (head_used, Some(head)) => {
                        used += head_used;
                        rest = &mut rest[head_used..];
                        (head, 0)
                    }
                },
            };
            let take = (head.len - done).min(rest.len());
            let (piece, behind) = rest.split_at_mut(take);
            rest = behind;
            used += take;
            mask(piece, head.key, done);
            if take < head.len - done {
                self.keep(head, done + take, piece);
                return Ok((used, None));
            }
            if let Some(event) = self.finish(head, done, piece)? {
                return Ok((used, Some(event)));
            }
        }
    }

    /// Puts aside bytes that were received but are not to be read yet, because the connection has as many requests in
    /// flight as it may. Copies them behind what is parked already.
    pub fn park(&mut self, unused: &[u8]) {
        if !unused.is_empty() {
            self.partial.get_or_insert_default().parked.bytes.extend_from_slice(unused);
        }
    }

    /// Takes the bytes put aside, to be read before anything newer; `None`: nothing is parked.
    #[must_use]
    pub fn unpark(&mut self) -> Option<Parked> {
        let parked = std::mem::take(&mut self.partial.as_mut()?.parked);
        self.rest_if_idle();
        (!parked.is_empty()).then_some(parked)
    }

    /// Puts back what is left of parked bytes, without copying it, in front of anything parked since.
    pub fn repark(&mut self, mut parked: Parked) {
        if parked.is_empty() {
            return;
        }
        let slot = &mut self.partial.get_or_insert_default().parked;
        parked.bytes.extend_from_slice(&slot.bytes[slot.at..]);
        *slot = parked;
    }

    /// Bytes of memory this reader holds beside itself, for the shard's accounts.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.partial.as_ref().map_or(0, |partial| {
            size_of::<Partial>()
                + partial.message.capacity()
                + partial.control.capacity()
                + partial.parked.bytes.capacity()
        })
    }

    /// Reads a header, with what an earlier chunk had of it. Returns the bytes used.
    fn read_head(&mut self, chunk: &[u8], limits: &ReadLimits) -> Result<(usize, Option<Head>), Violation> {
        let open = self.partial.as_ref().and_then(|partial| partial.fragmented.map(|_| partial.message.len()));
        let kept = self.partial.as_ref().map_or(0, |partial| partial.head_len);
        if kept == 0 {
            if let Some((head, len)) = Head::parse(chunk, open, limits)? {
                return Ok((len, Some(head)));
            }
            if chunk.is_empty() {
                return Ok((0, None));
            }
        }
        let partial = self.partial.get_or_insert_default();
        let copied = chunk.len().min(HEAD_BYTES_MAX - kept);
        partial.head[kept..kept + copied].copy_from_slice(&chunk[..copied]);
        match Head::parse(&partial.head[..kept + copied], open, limits)? {
            Some((head, len)) => {
                partial.head_len = 0;
                Ok((len - kept, Some(head)))
            }
            None => {
                partial.head_len = kept + copied;
                Ok((copied, None))
            }
        }
    }

    /// Keeps a piece of a frame that is not whole.
    fn keep(&mut self, head: Head, done: usize, piece: &[u8]) {
        let partial = self.partial.get_or_insert_default();
        let total = head.len - done + piece.len();
        let buffer = if head.opcode.is_control() { &mut partial.control } else { &mut partial.message };
        append(buffer, piece, total);
        partial.frame = Some((head, done));
    }

    /// A frame is whole: `piece` is its last piece, `done` bytes of it were kept before.
    fn finish<'a>(&mut self, head: Head, done: usize, piece: &'a [u8]) -> Result<Option<Event<'a>>, Violation> {
        if let Some(partial) = self.partial.as_mut() {
            partial.frame = None;
        }
        let event = if head.opcode.is_control() {
            let payload = match self.partial.as_mut() {
                Some(partial) if done > 0 => {
                    let mut payload = std::mem::take(&mut partial.control);
                    payload.extend_from_slice(piece);
                    Cow::Owned(payload)
                }
                _ => Cow::Borrowed(piece),
            };
            Some(control(head.opcode, payload)?)
        } else {
            self.finish_data(head, done, piece)?
        };
        self.rest_if_idle();
        Ok(event)
    }

    fn finish_data<'a>(&mut self, head: Head, done: usize, piece: &'a [u8]) -> Result<Option<Event<'a>>, Violation> {
        let began = self.partial.as_ref().and_then(|partial| partial.fragmented);
        if head.fin && began.is_none() && done == 0 {
            return message(head.opcode == Opcode::Text, Cow::Borrowed(piece)).map(Some);
        }
        let partial = self.partial.get_or_insert_default();
        let text = began.unwrap_or(head.opcode == Opcode::Text);
        // Amortised growth: a client may send a message one byte to a fragment.
        partial.message.extend_from_slice(piece);
        if !head.fin {
            partial.fragmented = Some(text);
            return Ok(None);
        }
        partial.fragmented = None;
        message(text, Cow::Owned(std::mem::take(&mut partial.message))).map(Some)
    }

    fn rest_if_idle(&mut self) {
        if self.partial.as_ref().is_some_and(|partial| partial.is_idle()) {
            self.partial = None;
        }
    }
}

/// Appends to a message of which `total` more bytes (the piece included) are announced. Grows by doubling what has
/// really arrived, and exactly to the announced size once that is nearer.
fn append(buffer: &mut Vec<u8>, piece: &[u8], total: usize) {
    let needed = buffer.len() + piece.len();
    if needed > buffer.capacity() {
        let doubled = (2 * needed).max(FIRST_RESERVE_BYTES);
        let capacity = doubled.min(buffer.len() + total).max(needed);
        buffer.reserve_exact(capacity - buffer.len());
    }
    buffer.extend_from_slice(piece);
}

fn message(text: bool, payload: Cow<'_, [u8]>) -> Result<Event<'_>, Violation> {
    if text && std::str::from_utf8(&payload).is_err() {
        return Err(Violation::NOT_UTF8);
    }
    Ok(Event::Message { text, payload })
}

fn control(opcode: Opcode, payload: Cow<'_, [u8]>) -> Result<Event<'_>, Violation> {
    match opcode {
        Opcode::Ping => Ok(Event::Ping(payload)),
        Opcode::Pong => Ok(Event::Pong(payload)),
        _ => close(&payload),
    }
}

fn close(payload: &[u8]) -> Result<Event<'static>, Violation> {
    let Some((&code, reason)) = payload.split_first_chunk::<2>() else {
        if payload.is_empty() {
            return Ok(Event::Close { code: None, reason: String::new() });
        }
        return Err(Violation::protocol("a close frame with half a code"));
    };
    let code = u16::from_be_bytes(code);
    // RFC 6455 section 7.4 and the registry: 1004 is reserved, 1005, 1006 and 1015 never travel.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Violation::protocol("a close code that must not be sent"));
    }
    match std::str::from_utf8(reason) {
        Ok(reason) => Ok(Event::Close { code: Some(code), reason: reason.to_owned() }),
        Err(_) => Err(Violation { text: "a close reason is not UTF-8", ..Violation::NOT_UTF8 }),
    }
}
