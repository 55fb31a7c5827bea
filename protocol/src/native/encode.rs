//! Frames to bytes, appended to a buffer the caller reuses.

use std::cell::Cell;

use serde::{Serialize, Serializer};

use super::{Ack, ClientFrame, Encoding, MessageItem, ServerFrame};
use crate::error::WireError;

/// Appends a client's frame. For clients, examples and tests.
///
/// # Errors
/// [`WireError::Encode`]; `out` is then as it was.
pub fn encode_client(encoding: Encoding, frame: &ClientFrame<'_>, out: &mut Vec<u8>) -> Result<(), WireError> {
    encode(encoding, frame, out)
}

/// Appends a server's frame.
///
/// # Errors
/// [`WireError::Encode`]; `out` is then as it was.
pub fn encode_server(encoding: Encoding, frame: &ServerFrame<'_>, out: &mut Vec<u8>) -> Result<(), WireError> {
    encode(encoding, frame, out)
}

/// Appends an `ack` frame, as [`encode_server`] would, from a borrowed body.
///
/// # Errors
/// [`WireError::Encode`]; `out` is then as it was.
pub fn encode_ack(encoding: Encoding, ack: &Ack<'_>, out: &mut Vec<u8>) -> Result<(), WireError> {
    #[derive(Serialize)]
    struct Frame<'a> {
        ack: &'a Ack<'a>,
    }

    encode(encoding, &Frame { ack }, out)
}

/// Appends a `deliver` frame, as [`encode_server`] would, without collecting the messages first. `channel_id` is as
/// the receiver sees it: for a person channel the peer's uid.
///
/// # Errors
/// [`WireError::Encode`]; `out` is then as it was.
pub fn encode_deliver<'a>(
    encoding: Encoding,
    channel_id: &str,
    channel_type: u8,
    messages: impl ExactSizeIterator<Item = MessageItem<'a>>,
    out: &mut Vec<u8>,
) -> Result<(), WireError> {
    #[derive(Serialize)]
    struct Frame<B> {
        deliver: B,
    }

    #[derive(Serialize)]
    struct Body<'a, M> {
        channel_id: &'a str,
        channel_type: u8,
        messages: M,
    }

    let messages = Once(Cell::new(Some(messages)));
    encode(encoding, &Frame { deliver: Body { channel_id, channel_type, messages } }, out)
}

/// An iterator as a list; serialised once.
struct Once<I>(Cell<Option<I>>);

impl<I> Serialize for Once<I>
where
    I: ExactSizeIterator<Item: Serialize>,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.take() {
            Some(items) => serializer.collect_seq(items),
            None => Err(serde::ser::Error::custom("serialised twice")),
        }
    }
}

fn encode<T: Serialize>(encoding: Encoding, value: &T, out: &mut Vec<u8>) -> Result<(), WireError> {
    let start = out.len();
    let result = match encoding {
        Encoding::MessagePack => value
            .serialize(&mut rmp_serde::Serializer::new(&mut *out).with_struct_map())
            .map_err(|error| error.to_string()),
        Encoding::Json => serde_json::to_writer(&mut *out, value).map_err(|error| error.to_string()),
    };
    result.map_err(|reason| {
        out.truncate(start);
        WireError::Encode { reason }
    })
}
