//! RECV for many receivers: what is equal for all of them is made once, the rest per session.
//!
//! ```text
//! head: first byte · remaining length · setting · str length 32   once
//! msg_key                                                         per session
//! from_uid … topic                                                once
//! payload                                                         per session
//! ```
//!
//! Equal are all sessions of one RECV layout ([`Version::recv_layout`]) that see the message alike: the same channel_id
//! and flags. A person channel has two such views, the peer's and the sender's own other devices'.

use super::crypto::{Cipher, MsgKey, recv_sign};
use super::encode::encode_length;
use super::error::PacketError;
use super::packets::Recv;
use super::words::{Flags, Kind, Setting};
use super::{BODY_BYTES_MAX, Version};

/// A message ready to be sealed for sessions of one RECV layout and one view.
#[derive(Debug, Clone)]
pub struct PreparedRecv {
    /// First byte, remaining length, setting and the length of a msg_key; `sealed` of them for sessions under a cipher,
    /// then those for sessions without.
    heads: Vec<u8>,
    sealed: usize,
    /// What stands between msg_key and payload.
    middle: Vec<u8>,
    /// What is signed before the payload.
    sign: Vec<u8>,
    plain: Vec<u8>,
    wire_bytes: usize,
}

impl PreparedRecv {
    /// Takes a message as its receivers shall see it, with its payload in the clear. msg_key and stream are not looked
    /// at. Bits of the setting that would make a client misread the packet are set right: NO_ENCRYPT is cleared, TOPIC is
    /// set when there is one, and before version 5 no stream is announced (wukongim-wire.md 6.5; part D, 16).
    ///
    /// # Errors
    /// A string or the packet beyond its limit, or a position beyond [`Version::seq_max`].
    pub fn new(version: Version, recv: &Recv<'_>) -> Result<Self, PacketError> {
        let mut setting = recv.setting.without(Setting::NO_ENCRYPT);
        if version.recv_layout() < Version::negotiate(5).recv_layout() {
            setting = setting.without(Setting::STREAM | Setting::NPM_STREAM);
        }
        if !recv.topic.is_empty() {
            setting = setting | Setting::TOPIC;
        }
        let mut middle = Vec::with_capacity(96 + recv.topic.len());
        recv.write_behind_key(version, setting, &mut middle)?;
        let mut sign = Vec::with_capacity(96);
        recv_sign(recv, &mut sign);
        let wire_bytes = Cipher::wire_bytes(recv.payload.len());
        let mut heads = Vec::with_capacity(16);
        put_head(recv.flags, setting, size_of::<MsgKey>(), middle.len() + wire_bytes, &mut heads)?;
        let sealed = heads.len();
        put_head(recv.flags, setting, 0, middle.len() + recv.payload.len(), &mut heads)?;
        Ok(Self { heads, sealed, middle, sign, plain: recv.payload.to_vec(), wire_bytes })
    }

    /// Bytes [`PreparedRecv::seal`] appends.
    #[must_use]
    pub fn sealed_bytes(&self) -> usize {
        self.sealed + size_of::<MsgKey>() + self.middle.len() + self.wire_bytes
    }

    /// Bytes [`PreparedRecv::plain`] appends.
    #[must_use]
    pub fn plain_bytes(&self) -> usize {
        self.heads.len() - self.sealed + self.middle.len() + self.plain.len()
    }

    /// Bytes allocated, for budgets.
    #[must_use]
    pub fn allocated_bytes(&self) -> usize {
        self.heads.capacity() + self.middle.capacity() + self.sign.capacity() + self.plain.capacity()
    }

    /// Appends the packet for one session under its cipher. Allocates nothing but room in `out`.
    pub fn seal(&self, cipher: &Cipher, out: &mut Vec<u8>) {
        out.reserve(self.sealed_bytes());
        out.extend_from_slice(&self.heads[..self.sealed]);
        let key_at = out.len();
        out.extend_from_slice(&[0; size_of::<MsgKey>()]);
        out.extend_from_slice(&self.middle);
        let wire_at = out.len();
        cipher.encrypt(&self.plain, out);
        let key = cipher.key_of([self.sign.as_slice(), &out[wire_at..]]);
        out[key_at..key_at + key.len()].copy_from_slice(&key);
    }

    /// Appends the packet for sessions without encryption: equal for all of them.
    pub fn plain(&self, out: &mut Vec<u8>) {
        out.reserve(self.plain_bytes());
        out.extend_from_slice(&self.heads[self.sealed..]);
        out.extend_from_slice(&self.middle);
        out.extend_from_slice(&self.plain);
    }
}

/// Appends what stands before msg_key's text; `behind` are the bytes behind it.
fn put_head(flags: Flags, setting: Setting, key: usize, behind: usize, out: &mut Vec<u8>) -> Result<(), PacketError> {
    let length = size_of::<Setting>() + size_of::<u16>() + key + behind;
    if length > BODY_BYTES_MAX {
        return Err(PacketError::TooLarge { bytes: length, max: BODY_BYTES_MAX });
    }
    out.push(Kind::Recv.number() << 4 | flags.bits());
    encode_length(length, out);
    out.push(setting.0);
    #[allow(clippy::cast_possible_truncation, reason = "0 or 32")]
    out.extend_from_slice(&(key as u16).to_be_bytes());
    Ok(())
}
