//! A session's keys: agreement in CONNECT and CONNACK, AES of payloads, the keyed hash of SEND and RECV
//! (wukongim-wire.md 4).
//!
//! What the scheme is worth: it hides payloads from somebody who only listens, as X25519 is not authenticated and the IV
//! never changes. TLS is what protects a connection. None of it is used anywhere else.
//!
//! ```text
//! secret   = X25519(server private, client public)                           32 bytes
//! aes key  = first 16 characters of lowerhex(MD5(base64(secret)))            as ASCII
//! iv       = salt, 16 characters                                             as ASCII, for every message
//! wire     = base64(AES-128-CBC-PKCS7(plain))                                the payload on the wire
//! msg_key  = lowerhex(MD5(base64(AES-128-CBC-PKCS7(sign))))
//! sign     = SEND: client_seq client_msg_no channel_id channel_type wire
//!            RECV: message_id message_seq client_msg_no timestamp from_uid channel_id channel_type wire
//! ```

use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{Array, BlockModeDecrypt, BlockModeEncrypt, InnerIvInit, KeyInit};
use aes::{Aes128Dec, Aes128Enc};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use x25519_dalek::{PublicKey, StaticSecret};

use super::packets::{Recv, Send};

/// Bytes of a salt, which is the IV.
pub const SALT_BYTES: usize = 16;
const BLOCK: usize = 16;
/// Ciphertext worked on at once: a multiple of block and base64 group, so that no piece but the last is padded.
const PIECE: usize = 384;
const PIECE_TEXT: usize = PIECE / 3 * 4;

/// A msg_key: 32 lower-case hex digits.
pub type MsgKey = [u8; 32];

/// What is wrong with a client_key or salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is none: refused with reason 21, unless encryption is off.
    #[error("is empty")]
    Empty,
    /// It is not the base64 of 32 bytes.
    #[error("is not the base64 of 32 bytes")]
    Malformed,
    /// A point of low order: the secret would be known to everybody.
    #[error("is a point of low order")]
    Weak,
    /// The salt is shorter than [`SALT_BYTES`].
    #[error("has {bytes} bytes of salt, at least 16 are needed")]
    Salt {
        /// Bytes given.
        bytes: usize,
    },
}

/// Why a payload stays closed. SENDACK answers both with reason 9 (wukongim-wire.md 4.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// msg_key is not the one of this packet under this key: changed on the way, or made under another connection's key.
    #[error("msg_key does not fit")]
    MsgKey,
    /// The payload is no base64 of whole blocks, or its padding is wrong.
    #[error("the payload cannot be decrypted")]
    Payload,
}

/// One side's private key of one connection.
pub struct ServerSecret(StaticSecret);

impl ServerSecret {
    /// Takes 32 random bytes. Wiped when dropped.
    #[must_use]
    pub fn from_random(random: [u8; 32]) -> Self {
        Self(StaticSecret::from(random))
    }

    /// The public key in standard base64, 44 characters: server_key, or a client's client_key.
    #[must_use]
    pub fn public_key(&self) -> String {
        STANDARD.encode(PublicKey::from(&self.0))
    }

    /// The cipher both sides have then. Costs about 50 µs.
    ///
    /// # Errors
    /// [`KeyError`] of the other side's key or the salt.
    pub fn agree(&self, other_key: &str, salt: &str) -> Result<Cipher, KeyError> {
        if other_key.is_empty() {
            return Err(KeyError::Empty);
        }
        // 32 bytes are 44 characters; the library wants room for the 33 bytes these could stand for.
        let mut decoded = [0_u8; 33];
        let public: [u8; 32] = match STANDARD.decode_slice(other_key, &mut decoded) {
            Ok(32) => decoded[..32].try_into().map_err(|_| KeyError::Malformed)?,
            _ => return Err(KeyError::Malformed),
        };
        let secret = self.0.diffie_hellman(&PublicKey::from(public));
        if !secret.was_contributory() {
            return Err(KeyError::Weak);
        }
        let digest = hex(Md5::digest(STANDARD.encode(secret.as_bytes())).into());
        let mut key = [0; 16];
        key.copy_from_slice(&digest[..16]);
        Cipher::new(key, salt)
    }
}

impl std::fmt::Debug for ServerSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ServerSecret(..)")
    }
}

/// A salt of random bytes: 16 of `[0-9A-Za-z]`. It is no secret, so that a few letters are likelier does not matter.
#[must_use]
pub fn salt_of(random: [u8; SALT_BYTES]) -> String {
    const LETTERS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    random.iter().map(|byte| char::from(LETTERS[usize::from(*byte) % LETTERS.len()])).collect()
}

/// A session's cipher: 208 bytes, nothing on the heap, and no method but the payload ones allocates.
#[derive(Clone)]
pub struct Cipher {
    schedule: Aes128Enc,
    key: [u8; 16],
    iv: [u8; BLOCK],
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(..)")
    }
}

impl Cipher {
    /// From the AES key and the salt, whose first 16 bytes are the IV.
    ///
    /// # Errors
    /// [`KeyError::Salt`].
    pub fn new(key: [u8; 16], salt: &str) -> Result<Self, KeyError> {
        let salt = salt.as_bytes();
        let Some(iv) = salt.first_chunk() else { return Err(KeyError::Salt { bytes: salt.len() }) };
        Ok(Self { schedule: Aes128Enc::new(&key.into()), key, iv: *iv })
    }

    /// Bytes [`Cipher::encrypt`] makes of so many: whole blocks, at least one byte of padding, in base64.
    #[must_use]
    pub fn wire_bytes(plain: usize) -> usize {
        let blocks = (plain / BLOCK + 1) * BLOCK;
        blocks.div_ceil(3) * 4
    }

    /// Appends a payload as it stands on the wire. Allocates nothing but room in `out`.
    pub fn encrypt(&self, plain: &[u8], out: &mut Vec<u8>) {
        out.reserve(Self::wire_bytes(plain.len()));
        self.pieces([plain], |text| out.extend_from_slice(text));
    }

    /// Appends what a payload says. `out` is as it was on failure.
    ///
    /// # Errors
    /// [`OpenError::Payload`].
    pub fn decrypt(&self, wire: &[u8], out: &mut Vec<u8>) -> Result<(), OpenError> {
        let start = out.len();
        let opened = self.decrypt_at(start, wire, out);
        out.truncate(opened.map_or(start, |plain| start + plain));
        opened.map(drop)
    }

    fn decrypt_at(&self, start: usize, wire: &[u8], out: &mut Vec<u8>) -> Result<usize, OpenError> {
        // Whole blocks in base64 are whole groups; three quarters of them hold what comes out.
        out.resize(start + wire.len() / 4 * 3 + 3, 0);
        let bytes = STANDARD.decode_slice(wire, &mut out[start..]).map_err(|_| OpenError::Payload)?;
        let schedule = Aes128Dec::new(&self.key.into());
        let decryptor = cbc::Decryptor::inner_iv_init(&schedule, &self.iv.into());
        let plain =
            decryptor.decrypt_padded::<Pkcs7>(&mut out[start..start + bytes]).map_err(|_| OpenError::Payload)?;
        Ok(plain.len())
    }

    /// The msg_key of a SEND with these fields and this payload.
    #[must_use]
    pub fn send_key(&self, send: &Send<'_>) -> MsgKey {
        let (mut seq, mut channel_type) = (itoa::Buffer::new(), itoa::Buffer::new());
        self.key_of([
            seq.format(send.client_seq).as_bytes(),
            send.client_msg_no.as_bytes(),
            send.channel_id.as_bytes(),
            channel_type.format(send.channel_type).as_bytes(),
            &send.payload,
        ])
    }

    /// The msg_key of a RECV with these fields and this payload.
    #[must_use]
    pub fn recv_key(&self, recv: &Recv<'_>) -> MsgKey {
        let mut sign = Vec::new();
        recv_sign(recv, &mut sign);
        self.key_of([sign.as_slice(), &recv.payload])
    }

    /// Checks a SEND and appends what its payload says: the server's way in.
    ///
    /// # Errors
    /// [`OpenError`]; `out` is then as it was.
    pub fn open_send(&self, send: &Send<'_>, out: &mut Vec<u8>) -> Result<(), OpenError> {
        same_key(&self.send_key(send), &send.msg_key)?;
        self.decrypt(&send.payload, out)
    }

    /// Checks a RECV and appends what its payload says: the client's way in.
    ///
    /// # Errors
    /// [`OpenError`]; `out` is then as it was.
    pub fn open_recv(&self, recv: &Recv<'_>, out: &mut Vec<u8>) -> Result<(), OpenError> {
        same_key(&self.recv_key(recv), &recv.msg_key)?;
        self.decrypt(&recv.payload, out)
    }

    /// The msg_key of a signed text given in parts.
    pub(super) fn key_of<const N: usize>(&self, parts: [&[u8]; N]) -> MsgKey {
        let mut hash = Md5::new();
        self.pieces(parts, |text| hash.update(text));
        hex(hash.finalize().into())
    }

    /// Encrypts parts as one text and gives its base64 away piece by piece, from buffers on the stack.
    fn pieces<const N: usize>(&self, parts: [&[u8]; N], mut take: impl FnMut(&[u8])) {
        let mut encryptor = cbc::Encryptor::inner_iv_init(&self.schedule, &self.iv.into());
        let mut buffer = [0_u8; PIECE];
        let mut text = [0_u8; PIECE_TEXT];
        let mut filled = 0;
        let mut give = |piece: &mut [u8]| {
            let (blocks, _) = Array::slice_as_chunks_mut(piece);
            encryptor.encrypt_blocks(blocks);
            let length = STANDARD.encode_slice(&*piece, &mut text).expect("four thirds of a piece fit");
            take(&text[..length]);
        };
        for mut part in parts {
            while !part.is_empty() {
                let (now, later) = part.split_at(part.len().min(PIECE - filled));
                buffer[filled..filled + now.len()].copy_from_slice(now);
                filled += now.len();
                part = later;
                if filled == PIECE {
                    give(&mut buffer);
                    filled = 0;
                }
            }
        }
        // PKCS#7: each byte of the padding is its length, 1 to 16.
        let end = (filled / BLOCK + 1) * BLOCK;
        #[allow(clippy::cast_possible_truncation, reason = "1 to 16")]
        buffer[filled..end].fill((end - filled) as u8);
        give(&mut buffer[..end]);
    }
}

/// What is signed of a RECV before its payload: equal for all who see the message alike.
pub(super) fn recv_sign(recv: &Recv<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(recv.message_id).as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(recv.message_seq).as_bytes());
    out.extend_from_slice(recv.client_msg_no.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(recv.timestamp).as_bytes());
    out.extend_from_slice(recv.from_uid.as_bytes());
    out.extend_from_slice(recv.channel_id.as_bytes());
    out.extend_from_slice(itoa::Buffer::new().format(recv.channel_type).as_bytes());
}

/// Compares in the same time wherever the difference is.
fn same_key(made: &MsgKey, given: &str) -> Result<(), OpenError> {
    let given = given.as_bytes();
    let differs = made.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    if given.len() == made.len() && differs == 0 { Ok(()) } else { Err(OpenError::MsgKey) }
}

fn hex(digest: [u8; 16]) -> MsgKey {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 32];
    for (pair, byte) in text.chunks_exact_mut(2).zip(digest) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}
