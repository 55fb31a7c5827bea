//! Frames of the server: never masked, never fragmented, a header of two to ten bytes in front of the payload.

use bytes::Bytes;

use super::{Opcode, mask};

/// Header bytes guessed in front of a payload whose length is not known yet: right for 126 to 65,535 bytes.
const HEAD_GUESS_BYTES: usize = 4;

/// A frame's header (FIN set, not masked) and how many of its bytes count.
#[must_use]
pub fn head(opcode: Opcode, payload_len: usize) -> ([u8; 10], usize) {
    let mut head = [0; 10];
    head[0] = 0x80 | opcode as u8;
    if payload_len < 126 {
        head[1] = u8::try_from(payload_len).expect("below 126");
        (head, 2)
    } else if let Ok(short) = u16::try_from(payload_len) {
        head[1] = 126;
        head[2..4].copy_from_slice(&short.to_be_bytes());
        (head, 4)
    } else {
        head[1] = 127;
        head[2..10].copy_from_slice(&(payload_len as u64).to_be_bytes());
        (head, 10)
    }
}

/// Appends one frame to `out`; `encode` appends its payload. Many frames in a row make one joined write.
///
/// # Errors
/// Those of `encode`; `out` is then as it was.
pub fn append_frame<E>(
    opcode: Opcode,
    out: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD_GUESS_BYTES]);
    let body = out.len();
    if let Err(error) = encode(out) {
        out.truncate(start);
        return Err(error);
    }
    let payload_len = out.len() - body;
    let (head, head_len) = head(opcode, payload_len);
    if head_len > HEAD_GUESS_BYTES {
        out.resize(start + head_len + payload_len, 0);
    }
    if head_len != HEAD_GUESS_BYTES {
        out.copy_within(body..body + payload_len, start + head_len);
        out.truncate(start + head_len + payload_len);
    }
    out[start..start + head_len].copy_from_slice(&head[..head_len]);
    Ok(())
}

/// One frame as shared bytes of exactly its size; `scratch` is reused between calls and its content lost.
///
/// # Errors
/// Those of `encode`.
pub fn frame_with<E>(
    opcode: Opcode,
    scratch: &mut Vec<u8>,
    encode: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<Bytes, E> {
    scratch.clear();
    append_frame(opcode, scratch, encode)?;
    Ok(Bytes::copy_from_slice(scratch))
}

/// One frame of a payload that is there already.
#[must_use]
pub fn frame(opcode: Opcode, payload: &[u8]) -> Bytes {
    let (head, head_len) = head(opcode, payload.len());
    let mut out = Vec::with_capacity(head_len + payload.len());
    out.extend_from_slice(&head[..head_len]);
    out.extend_from_slice(payload);
    Bytes::from(out)
}

/// A close frame. The reason is cut to the 123 bytes that fit.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(123)];
    let mut payload = Vec::with_capacity(2 + reason.len());
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(reason.as_bytes());
    frame(Opcode::Close, &payload)
}

/// Appends one frame as a client sends it, masked with `key`: for load generators and tests.
pub fn append_masked_frame(opcode: Opcode, key: [u8; 4], payload: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    let (head, head_len) = head(opcode, payload.len());
    out.extend_from_slice(&head[..head_len]);
    out[start + 1] |= 0x80;
    out.extend_from_slice(&key);
    let body = out.len();
    out.extend_from_slice(payload);
    mask(&mut out[body..], key, 0);
}
