//! Packets to bytes, appended to a buffer the caller reuses.

use super::error::PacketError;
use super::packets::*;
use super::words::{Flags, Kind, Setting};
use super::{BODY_BYTES_MAX, STR_BYTES_MAX, Version};

/// Appends a packet in the layout of the session's version. Fields the version or the setting has no place for are left
/// out.
///
/// # Errors
/// A string or body beyond its limit, a position beyond [`Version::seq_max`], a packet of unknown type. `out` is then as
/// it was.
pub fn encode(version: Version, packet: &Packet<'_>, out: &mut Vec<u8>) -> Result<(), PacketError> {
    let start = out.len();
    let result = match packet {
        Packet::Ping | Packet::Pong => {
            let kind = if *packet == Packet::Ping { Kind::Ping } else { Kind::Pong };
            out.push(kind.number() << 4);
            return Ok(());
        }
        Packet::Unknown { number } => return Err(PacketError::NotWritten { number: *number }),
        Packet::Connect(connect) => framed(out, Kind::Connect, Flags::default(), |out| connect.write(out)),
        Packet::ConnAck(connack) => {
            let flags = Flags { no_persist: connack.server_version.is_some(), ..Flags::default() };
            framed(out, Kind::ConnAck, flags, |out| connack.write(version, out))
        }
        Packet::Send(send) => framed(out, Kind::Send, send.flags, |out| send.write(version, out)),
        Packet::SendAck(ack) => framed(out, Kind::SendAck, ack.flags, |out| ack.write(version, out)),
        Packet::Recv(recv) => framed(out, Kind::Recv, recv.flags, |out| recv.write(version, out)),
        Packet::RecvAck(ack) => framed(out, Kind::RecvAck, ack.flags, |out| {
            out.extend_from_slice(&ack.message_id.to_be_bytes());
            put_seq(version, ack.message_seq, out)
        }),
        Packet::Disconnect(disconnect) => framed(out, Kind::Disconnect, Flags::default(), |out| {
            out.push(disconnect.reason.0);
            put_str("text", &disconnect.text, out)
        }),
        Packet::Sub(sub) => framed(out, Kind::Sub, Flags::default(), |out| sub.write(out)),
        Packet::SubAck(ack) => framed(out, Kind::SubAck, Flags::default(), |out| ack.write(out)),
        Packet::Event(event) => framed(out, Kind::Event, Flags::default(), |out| event.write(out)),
    };
    if result.is_err() {
        out.truncate(start);
    }
    result
}

/// Appends a remaining length (wukongim-wire.md 1.2). 0 is no byte at all, and no packet needs it.
pub fn encode_length(mut length: usize, out: &mut Vec<u8>) {
    while length > 0 {
        #[allow(clippy::cast_possible_truncation, reason = "seven bits")]
        let group = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { group | 0x80 } else { group });
    }
}

/// Writes head and body; a body longer than one byte can tell is moved, most are not.
fn framed(
    out: &mut Vec<u8>,
    kind: Kind,
    flags: Flags,
    body: impl FnOnce(&mut Vec<u8>) -> Result<(), PacketError>,
) -> Result<(), PacketError> {
    out.extend_from_slice(&[kind.number() << 4 | flags.bits(), 0]);
    let start = out.len();
    body(out)?;
    let length = out.len() - start;
    if length > BODY_BYTES_MAX {
        return Err(PacketError::TooLarge { bytes: length, max: BODY_BYTES_MAX });
    }
    if length < 0x80 {
        #[allow(clippy::cast_possible_truncation, reason = "below 128")]
        {
            out[start - 1] = length as u8;
        }
        return Ok(());
    }
    let mut bytes = Vec::with_capacity(4);
    encode_length(length, &mut bytes);
    out.splice(start - 1..start, bytes);
    Ok(())
}

/// Appends a string.
pub(super) fn put_str(field: &'static str, text: &str, out: &mut Vec<u8>) -> Result<(), PacketError> {
    let length = u16::try_from(text.len()).ok().filter(|_| text.len() <= STR_BYTES_MAX);
    let Some(length) = length else {
        return Err(PacketError::StringTooLong { field, bytes: text.len(), max: STR_BYTES_MAX });
    };
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(text.as_bytes());
    Ok(())
}

/// Appends a position in the version's width.
pub(super) fn put_seq(version: Version, seq: u64, out: &mut Vec<u8>) -> Result<(), PacketError> {
    if version.has_wide_seq() {
        out.extend_from_slice(&seq.to_be_bytes());
    } else {
        let narrow = u32::try_from(seq).map_err(|_| PacketError::SeqTooWide { seq })?;
        out.extend_from_slice(&narrow.to_be_bytes());
    }
    Ok(())
}

impl Connect<'_> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PacketError> {
        out.extend_from_slice(&[self.version, self.device_flag]);
        put_str("device_id", &self.device_id, out)?;
        put_str("uid", &self.uid, out)?;
        put_str("token", &self.token, out)?;
        out.extend_from_slice(&self.client_timestamp.to_be_bytes());
        put_str("client_key", &self.client_key, out)
    }
}

impl ConnAck<'_> {
    fn write(&self, version: Version, out: &mut Vec<u8>) -> Result<(), PacketError> {
        out.extend(self.server_version);
        out.extend_from_slice(&self.time_diff.to_be_bytes());
        out.push(self.reason.0);
        put_str("server_key", &self.server_key, out)?;
        put_str("salt", &self.salt, out)?;
        if self.server_version.map_or(version, Version::negotiate).has_node_id() {
            out.extend_from_slice(&self.node_id.to_be_bytes());
        }
        Ok(())
    }
}

impl Send<'_> {
    fn write(&self, version: Version, out: &mut Vec<u8>) -> Result<(), PacketError> {
        out.push(self.setting.0);
        out.extend_from_slice(&self.client_seq.to_be_bytes());
        put_str("client_msg_no", &self.client_msg_no, out)?;
        if version.has_stream() && self.setting.has(Setting::STREAM) {
            put_str("stream_no", &self.stream_no, out)?;
        }
        put_str("channel_id", &self.channel_id, out)?;
        out.push(self.channel_type);
        if version.has_expire() {
            out.extend_from_slice(&self.expire.to_be_bytes());
        }
        put_str("msg_key", &self.msg_key, out)?;
        if self.setting.has(Setting::TOPIC) {
            put_str("topic", &self.topic, out)?;
        }
        out.extend_from_slice(&self.payload);
        Ok(())
    }
}

impl SendAck<'_> {
    fn write(&self, version: Version, out: &mut Vec<u8>) -> Result<(), PacketError> {
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&self.client_seq.to_be_bytes());
        put_seq(version, self.message_seq, out)?;
        out.push(self.reason.0);
        if self.client_msg_no.is_empty() { Ok(()) } else { put_str("client_msg_no", &self.client_msg_no, out) }
    }
}

impl Recv<'_> {
    fn write(&self, version: Version, out: &mut Vec<u8>) -> Result<(), PacketError> {
        out.push(self.setting.0);
        put_str("msg_key", &self.msg_key, out)?;
        self.write_behind_key(version, self.setting, out)?;
        out.extend_from_slice(&self.payload);
        Ok(())
    }

    /// What stands between msg_key and payload, under the setting that is written: equal for all who see the message alike.
    pub(super) fn write_behind_key(
        &self,
        version: Version,
        setting: Setting,
        out: &mut Vec<u8>,
    ) -> Result<(), PacketError> {
        put_str("from_uid", &self.from_uid, out)?;
        put_str("channel_id", &self.channel_id, out)?;
        out.push(self.channel_type);
        if version.has_expire() {
            out.extend_from_slice(&self.expire.to_be_bytes());
        }
        put_str("client_msg_no", &self.client_msg_no, out)?;
        if version.has_stream() && setting.has(Setting::STREAM) {
            out.push(self.stream.flag);
            put_str("stream_no", &self.stream.no, out)?;
            out.extend_from_slice(&self.stream.id.to_be_bytes());
        }
        out.extend_from_slice(&self.message_id.to_be_bytes());
        put_seq(version, self.message_seq, out)?;
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        if setting.has(Setting::TOPIC) {
            put_str("topic", &self.topic, out)?;
        }
        Ok(())
    }
}

impl Sub<'_> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PacketError> {
        out.push(self.setting.0);
        put_str("sub_no", &self.sub_no, out)?;
        put_str("channel_id", &self.channel_id, out)?;
        out.extend_from_slice(&[self.channel_type, self.action]);
        put_str("param", &self.param, out)
    }
}

impl SubAck<'_> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PacketError> {
        put_str("sub_no", &self.sub_no, out)?;
        put_str("channel_id", &self.channel_id, out)?;
        out.extend_from_slice(&[self.channel_type, self.action, self.reason.0]);
        Ok(())
    }
}

impl Event<'_> {
    fn write(&self, out: &mut Vec<u8>) -> Result<(), PacketError> {
        put_str("id", &self.id, out)?;
        put_str("type", &self.event_type, out)?;
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.data);
        Ok(())
    }
}
