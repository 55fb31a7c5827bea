//! Bytes to frames. The common path is one pass of the library's decoder; what is wrong is found out only once
//! something is.

use std::fmt;

use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

use super::tagged::{KindSeed, Peek, Tagged};
use super::{ClientFrame, DEPTH_MAX, Encoding, ServerFrame};
use crate::error::WireError;

/// Decodes a client's frame; text and bytes are borrowed from `bytes` where the encoding allows. The caller has
/// compared the size of the message with its own limit.
///
/// # Errors
/// [`WireError::Malformed`] and [`WireError::TooDeep`] (close), [`WireError::UnknownFrame`] and [`WireError::Field`]
/// (answer with `refused`, the connection stays).
pub fn decode_client(encoding: Encoding, bytes: &[u8]) -> Result<ClientFrame<'_>, WireError> {
    decode(encoding, bytes)
}

/// Decodes a server's frame into owned parts. For clients, examples and tests.
///
/// # Errors
/// As [`decode_client`]. A client ignores frames of unknown kinds.
pub fn decode_server(encoding: Encoding, bytes: &[u8]) -> Result<ServerFrame<'static>, WireError> {
    decode(encoding, bytes)
}

fn decode<'de, T>(encoding: Encoding, bytes: &'de [u8]) -> Result<T, WireError>
where
    Tagged<T>: Deserialize<'de>,
{
    let decoded = match encoding {
        Encoding::MessagePack => decode_msgpack(bytes),
        Encoding::Json => {
            json_depth(bytes)?;
            decode_json(bytes)
        }
    };
    match decoded {
        Ok(Tagged::Known(frame)) => Ok(frame),
        Ok(Tagged::Unknown { kind, client_seq }) => Err(WireError::UnknownFrame { kind, client_seq }),
        Err(reason) => Err(diagnose::<T>(encoding, bytes, reason)),
    }
}

fn msgpack_decoder(bytes: &[u8]) -> rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'_, [u8]>> {
    let mut decoder = rmp_serde::Deserializer::from_read_ref(bytes);
    // The library refuses the level that uses its number up.
    decoder.set_max_depth(DEPTH_MAX + 1);
    decoder
}

fn decode_msgpack<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    let mut decoder = msgpack_decoder(bytes);
    let value = T::deserialize(&mut decoder).map_err(|error| error.to_string())?;
    // The decoder does not tell its position; only at the end does the next marker fail to be read.
    match IgnoredAny::deserialize(&mut decoder) {
        Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(value),
        _ => Err("bytes follow the frame".to_owned()),
    }
}

fn decode_json<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Finds out whether the bytes are malformed or a field is wrong.
#[cold]
fn diagnose<'de, T>(encoding: Encoding, bytes: &'de [u8], reason: String) -> WireError
where
    Tagged<T>: Deserialize<'de>,
{
    let outline: Result<Outline, String> = match encoding {
        Encoding::MessagePack => match msgpack_walk(bytes) {
            Ok(()) => decode_msgpack(bytes),
            Err(error) => return error,
        },
        Encoding::Json => decode_json(bytes),
    };
    let Ok(Outline { kind, client_seq }) = outline else {
        return WireError::Malformed { offset: 0, reason };
    };
    let (path, reason) = match encoding {
        Encoding::MessagePack => {
            let mut decoder = msgpack_decoder(bytes);
            faulty_path::<Tagged<T>, _>(&mut decoder, reason)
        }
        Encoding::Json => faulty_path::<Tagged<T>, _>(&mut serde_json::Deserializer::from_slice(bytes), reason),
    };
    // The path starts with the kind, which the caller has anyway. A missing field has no path of its own.
    let mut field = path.strip_prefix(kind.as_str()).map_or("", |rest| rest.trim_start_matches('.')).to_owned();
    if let Some(missing) = reason.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
        if !field.is_empty() {
            field.push('.');
        }
        field.push_str(missing);
    }
    WireError::Field { kind, client_seq, field, reason }
}

fn faulty_path<'de, T, D>(decoder: D, reason: String) -> (String, String)
where
    T: Deserialize<'de>,
    D: serde::Deserializer<'de>,
    D::Error: std::fmt::Display,
{
    match serde_path_to_error::deserialize::<D, T>(decoder) {
        Ok(_) => (String::new(), reason),
        Err(error) => (error.path().to_string(), error.inner().to_string()),
    }
}

/// The kind and number of any well-formed frame.
struct Outline {
    kind: String,
    client_seq: Option<u64>,
}

impl<'de> Deserialize<'de> for Outline {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneKey;

        impl<'de> Visitor<'de> for OneKey {
            type Value = Outline;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of one key, the kind")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Outline, A::Error> {
                let Some(kind) = map.next_key_seed(KindSeed(&[]))? else {
                    return Err(A::Error::custom("an empty map"));
                };
                let kind = kind.map_or_else(|text| text, str::to_owned);
                let client_seq = map.next_value::<Peek>()?.0;
                match map.next_key::<IgnoredAny>()? {
                    None => Ok(Outline { kind, client_seq }),
                    Some(_) => Err(A::Error::custom("more than one key")),
                }
            }
        }

        deserializer.deserialize_map(OneKey)
    }
}

/// Refuses JSON that is nested too deep, without recursion. Brackets inside of strings do not count.
fn json_depth(bytes: &[u8]) -> Result<(), WireError> {
    // Nearly every frame has fewer brackets in all; this count is done many bytes at a time.
    if bytes.iter().filter(|byte| matches!(byte, b'{' | b'[')).count() <= DEPTH_MAX {
        return Ok(());
    }
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in bytes {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > DEPTH_MAX {
                    return Err(WireError::TooDeep { max: DEPTH_MAX });
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

/// Walks one MessagePack value without recursion or allocation and says where it breaks.
fn msgpack_walk(bytes: &[u8]) -> Result<(), WireError> {
    let mut offset = 0_usize;
    let mut open = [0_u64; DEPTH_MAX];
    let mut depth = 0_usize;
    loop {
        let (skip, children) = msgpack_value(&bytes[offset..])
            .map_err(|reason| WireError::Malformed { offset, reason: reason.to_owned() })?;
        offset += skip;
        if let Some(children) = children {
            if depth == DEPTH_MAX {
                return Err(WireError::TooDeep { max: DEPTH_MAX });
            }
            if children > 0 {
                open[depth] = children;
                depth += 1;
                continue;
            }
        }
        while depth > 0 {
            open[depth - 1] -= 1;
            if open[depth - 1] > 0 {
                break;
            }
            depth -= 1;
        }
        if depth == 0 {
            break;
        }
    }
    if offset < bytes.len() {
        return Err(WireError::Malformed { offset, reason: "bytes follow the frame".to_owned() });
    }
    Ok(())
}

/// Length of a value without its children, and how many children it has; `None`: it is no map or list.
fn msgpack_value(bytes: &[u8]) -> Result<(usize, Option<u64>), &'static str> {
    const CUT: &str = "the bytes end inside of a value";
    let (&marker, rest) = bytes.split_first().ok_or(CUT)?;
    let length = |width: usize| -> Result<usize, &'static str> {
        let bytes = rest.get(..width).ok_or(CUT)?;
        Ok(bytes.iter().fold(0_usize, |sum, byte| (sum << 8) | usize::from(*byte)))
    };
    let (size, children) = match marker {
        0x00..=0x7f | 0xe0..=0xff | 0xc0 | 0xc2 | 0xc3 => (1, None),
        0xc1 => return Err("the byte 0xc1 is not MessagePack"),
        0x80..=0x8f => (1, Some(u64::from(marker & 0x0f) * 2)),
        0x90..=0x9f => (1, Some(u64::from(marker & 0x0f))),
        0xa0..=0xbf => (1 + usize::from(marker & 0x1f), None),
        0xc4 | 0xd9 => (2 + length(1)?, None),
        0xc5 | 0xda => (3 + length(2)?, None),
        0xc6 | 0xdb => (5 + length(4)?, None),
        0xc7 => (3 + length(1)?, None),
        0xc8 => (4 + length(2)?, None),
        0xc9 => (6 + length(4)?, None),
        0xcc | 0xd0 => (2, None),
        0xcd | 0xd1 => (3, None),
        0xce | 0xd2 | 0xca => (5, None),
        0xcf | 0xd3 | 0xcb => (9, None),
        0xd4 => (3, None),
        0xd5 => (4, None),
        0xd6 => (6, None),
        0xd7 => (10, None),
        0xd8 => (18, None),
        0xdc => (3, Some(length(2)? as u64)),
        0xdd => (5, Some(length(4)? as u64)),
        0xde => (3, Some(length(2)? as u64 * 2)),
        0xdf => (5, Some(length(4)? as u64 * 2)),
    };
    if size > bytes.len() {
        return Err(CUT);
    }
    Ok((size, children))
}
