//! Native frames for the load tools: templates that are filled in, and readers that build no values.
//!
//! Owns the hand-walked forms of `ack` and `deliver`, which arrive millions of times; everything rare goes through the
//! protocol crate's decoder. Shapes: docs/wire.md.

// Each example uses a part of the shared modules.
#![allow(dead_code)]

use std::borrow::Cow;

use anyhow::{Context, Result, ensure};
use protocol::native::{self, ClientFrame, ClientInfo, Connect, Durability, Encoding, Resume, ServerFrame};

use crate::msgpack::Cursor;
use crate::raw::push_frame;

/// Length of a client_msg_no made here.
pub const MSG_NO_BYTES: usize = 24;
/// WebSocket opcode of a binary message.
const BINARY: u8 = 2;
/// Stands in a template where client_seq goes; encoded as a 32-bit number, as all that replace it.
const CLIENT_SEQ_MARK: u64 = 0xfeed_beef;

/// What a frame of the server says.
pub enum Incoming<'a> {
    /// A message was taken.
    Ack {
        /// The request's number.
        client_seq: u64,
        /// Its place in the channel.
        message_seq: u64,
        /// It was stored before.
        duplicate: bool,
    },
    /// Messages of one channel.
    Deliver(Deliver<'a>),
    /// Anything else.
    Other(Box<ServerFrame<'static>>),
    /// A kind of a later protocol, to be ignored.
    Unknown,
}

/// A `deliver` frame, not yet walked.
pub struct Deliver<'a> {
    /// The channel's id.
    pub channel_id: &'a [u8],
    /// The channel's type.
    pub channel_type: u8,
    /// How many messages.
    pub count: usize,
    items: Cursor<'a>,
}

/// A message of a `deliver` frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Item<'a> {
    /// Its place in the channel.
    pub message_seq: u64,
    /// The content.
    pub payload: &'a [u8],
}

impl<'a> Deliver<'a> {
    /// The next message; `None` after the last.
    ///
    /// # Errors
    /// The bytes are no message.
    pub fn next(&mut self) -> Result<Option<Item<'a>>> {
        if self.count == 0 {
            return Ok(None);
        }
        self.count -= 1;
        read_item(&mut self.items).context("a malformed message in a deliver frame").map(Some)
    }
}

fn read_item<'a>(cursor: &mut Cursor<'a>) -> Option<Item<'a>> {
    let mut item = Item::default();
    for _ in 0..cursor.map()? {
        match cursor.bytes()? {
            b"message_seq" => item.message_seq = cursor.uint()?,
            b"payload" => item.payload = cursor.bytes()?,
            _ => cursor.skip()?,
        }
    }
    Some(item)
}

fn read_deliver<'a>(cursor: &mut Cursor<'a>) -> Option<Deliver<'a>> {
    let mut deliver = Deliver { channel_id: &[], channel_type: 0, count: 0, items: *cursor };
    let fields = cursor.map()?;
    for field in 1..=fields {
        match cursor.bytes()? {
            b"channel_id" => deliver.channel_id = cursor.bytes()?,
            b"channel_type" => deliver.channel_type = u8::try_from(cursor.uint()?).ok()?,
            b"messages" => {
                deliver.items = *cursor;
                deliver.count = deliver.items.array()?;
                // The server writes the messages last, so that this walk over all of them does not happen.
                if field < fields {
                    cursor.skip()?;
                }
            }
            _ => cursor.skip()?,
        }
    }
    Some(deliver)
}

fn read_ack<'a>(cursor: &mut Cursor<'a>) -> Option<Incoming<'a>> {
    let (mut client_seq, mut message_seq, mut duplicate) = (None, 0, false);
    for _ in 0..cursor.map()? {
        match cursor.bytes()? {
            b"client_seq" => client_seq = Some(cursor.uint()?),
            b"message_seq" => message_seq = cursor.uint()?,
            b"duplicate" => duplicate = cursor.boolean()?,
            _ => cursor.skip()?,
        }
    }
    Some(Incoming::Ack { client_seq: client_seq?, message_seq, duplicate })
}

/// Reads one frame of the server.
///
/// # Errors
/// The bytes are no frame.
pub fn read(bytes: &[u8]) -> Result<Incoming<'_>> {
    let mut cursor = Cursor::new(bytes);
    let one = cursor.map();
    ensure!(one == Some(1), "a frame is not a map of one kind: {:02x?}", &bytes[..bytes.len().min(16)]);
    match cursor.bytes().context("a frame without a kind")? {
        b"ack" => read_ack(&mut cursor).context("a malformed ack"),
        b"deliver" => read_deliver(&mut cursor).map(Incoming::Deliver).context("a malformed deliver frame"),
        _ => match native::decode_server(Encoding::MessagePack, bytes) {
            Ok(frame) => Ok(Incoming::Other(Box::new(frame))),
            Err(protocol::error::WireError::UnknownFrame { .. }) => Ok(Incoming::Unknown),
            Err(e) => Err(e).context("a malformed frame"),
        },
    }
}

/// Appends one client frame as a masked WebSocket message.
///
/// # Errors
/// The frame cannot be encoded.
pub fn push(out: &mut Vec<u8>, frame: &ClientFrame<'_>) -> Result<()> {
    let mut body = Vec::with_capacity(128);
    native::encode_client(Encoding::MessagePack, frame, &mut body)?;
    push_frame(out, BINARY, &body);
    Ok(())
}

/// The first frame of a session.
pub fn connect<'a>(uid: &'a str, token: &'a str, device_id: &'a str, resume: Option<Resume<'a>>) -> ClientFrame<'a> {
    ClientFrame::Connect(Connect {
        token: Cow::Borrowed(token),
        uid: Some(Cow::Borrowed(uid)),
        device_id: Cow::Borrowed(device_id),
        device_flag: 0,
        client: Some(ClientInfo { name: "load".into(), version: env!("CARGO_PKG_VERSION").into() }),
        resume,
    })
}

/// A `send` frame to one channel, ready but for what changes from message to message.
pub struct SendTemplate {
    body: Vec<u8>,
    client_seq_at: usize,
    msg_no_at: usize,
    payload_at: usize,
    payload_bytes: usize,
}

impl SendTemplate {
    /// A template for messages of `payload_bytes` to a channel.
    ///
    /// # Errors
    /// The encoding does not hold the fields as expected.
    pub fn new(channel_id: &str, channel_type: u8, payload_bytes: usize, durability: Durability) -> Result<Self> {
        let mark = [b'~'; MSG_NO_BYTES];
        // Its first byte differs from the rest: the length in front of it may end in any byte, and must not look like it.
        let mut payload = vec![0xa5; payload_bytes];
        if let Some(first) = payload.first_mut() {
            *first = b'!';
        }
        let frame = ClientFrame::Send(native::Send {
            client_seq: CLIENT_SEQ_MARK,
            channel_id: Cow::Borrowed(channel_id),
            channel_type,
            client_msg_no: String::from_utf8_lossy(&mark),
            payload: Cow::Borrowed(&payload),
            durability,
            ..native::Send::default()
        });
        let mut body = Vec::new();
        native::encode_client(Encoding::MessagePack, &frame, &mut body)?;
        let find = |needle: &[u8]| {
            body.windows(needle.len()).position(|window| window == needle).context("a field is not in the encoding")
        };
        let (client_seq_at, msg_no_at) = (find(&(CLIENT_SEQ_MARK as u32).to_be_bytes())?, find(&mark)?);
        let payload_at = find(&payload)?;
        Ok(Self { client_seq_at, msg_no_at, payload_at, payload_bytes, body })
    }

    /// Appends a masked `send`: `head` and then `body` are the payload.
    pub fn push(&self, out: &mut Vec<u8>, client_seq: u32, msg_no: &[u8; MSG_NO_BYTES], head: &[u8], body: &[u8]) {
        debug_assert_eq!(head.len() + body.len(), self.payload_bytes);
        let mut frame = [0; 1_024];
        let mut large;
        let bytes: &mut [u8] = if self.body.len() <= frame.len() {
            let bytes = &mut frame[..self.body.len()];
            bytes.copy_from_slice(&self.body);
            bytes
        } else {
            large = self.body.clone();
            &mut large
        };
        bytes[self.client_seq_at..][..4].copy_from_slice(&client_seq.to_be_bytes());
        bytes[self.msg_no_at..][..MSG_NO_BYTES].copy_from_slice(msg_no);
        bytes[self.payload_at..][..head.len()].copy_from_slice(head);
        bytes[self.payload_at + head.len()..][..body.len()].copy_from_slice(body);
        push_frame(out, BINARY, bytes);
    }
}
