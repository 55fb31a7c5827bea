//! Bodies to packets. Nothing is allocated; what follows the last field is ignored, as other implementations do.

use std::borrow::Cow;

use super::cutter::RawPacket;
use super::error::PacketError;
use super::packets::*;
use super::words::{Flags, Kind, Reason, Setting};
use super::{STR_BYTES_MAX, Version};

/// Decodes a packet that was cut from a stream, by the session's version; CONNECT is the same in all of them.
///
/// # Errors
/// The body does not fit the layout. Packets of unknown type are [`Packet::Unknown`] instead.
pub fn decode<'a>(version: Version, raw: &RawPacket<'a>) -> Result<Packet<'a>, PacketError> {
    let number = raw.number();
    let Some(kind) = Kind::from_number(number) else { return Ok(Packet::Unknown { number }) };
    let flags = Flags::from_bits(raw.first);
    let mut body = Body { bytes: raw.body, at: 0 };
    Ok(match kind {
        Kind::Connect => Packet::Connect(connect(&mut body)?),
        Kind::ConnAck => Packet::ConnAck(connack(version, flags, &mut body)?),
        Kind::Send => Packet::Send(send(version, flags, &mut body)?),
        Kind::SendAck => Packet::SendAck(sendack(version, flags, &mut body)?),
        Kind::Recv => Packet::Recv(recv(version, flags, &mut body)?),
        Kind::RecvAck => {
            let message_id = body.i64("message_id")?;
            Packet::RecvAck(RecvAck { flags, message_id, message_seq: body.seq(version)? })
        }
        Kind::Ping => Packet::Ping,
        Kind::Pong => Packet::Pong,
        Kind::Disconnect => {
            Packet::Disconnect(Disconnect { reason: Reason(body.u8("reason")?), text: body.str("text")? })
        }
        Kind::Sub => Packet::Sub(Sub {
            setting: Setting(body.u8("setting")?),
            sub_no: body.str("sub_no")?,
            channel_id: body.str("channel_id")?,
            channel_type: body.u8("channel_type")?,
            action: body.u8("action")?,
            param: body.str("param")?,
        }),
        Kind::SubAck => Packet::SubAck(SubAck {
            sub_no: body.str("sub_no")?,
            channel_id: body.str("channel_id")?,
            channel_type: body.u8("channel_type")?,
            action: body.u8("action")?,
            reason: Reason(body.u8("reason")?),
        }),
        Kind::Event => Packet::Event(Event {
            id: body.str("id")?,
            event_type: body.str("type")?,
            timestamp: body.i64("timestamp")?,
            data: body.rest(),
        }),
    })
}

fn connect<'a>(body: &mut Body<'a>) -> Result<Connect<'a>, PacketError> {
    Ok(Connect {
        version: body.u8("version")?,
        device_flag: body.u8("device_flag")?,
        device_id: body.str("device_id")?,
        uid: body.str("uid")?,
        token: body.str("token")?,
        client_timestamp: body.i64("client_timestamp")?,
        client_key: body.str("client_key")?,
    })
}

fn connack<'a>(version: Version, flags: Flags, body: &mut Body<'a>) -> Result<ConnAck<'a>, PacketError> {
    // In CONNACK the bit of noPersist says that the version is told.
    let server_version = if flags.no_persist { Some(body.u8("server_version")?) } else { None };
    Ok(ConnAck {
        server_version,
        time_diff: body.i64("time_diff")?,
        reason: Reason(body.u8("reason")?),
        server_key: body.str("server_key")?,
        salt: body.str("salt")?,
        node_id: if server_version.map_or(version, Version::negotiate).has_node_id() {
            body.u64("node_id")?
        } else {
            0
        },
    })
}

fn send<'a>(version: Version, flags: Flags, body: &mut Body<'a>) -> Result<Send<'a>, PacketError> {
    let setting = Setting(body.u8("setting")?);
    let streams = version.has_stream() && setting.has(Setting::STREAM);
    Ok(Send {
        flags,
        setting,
        client_seq: body.u32("client_seq")?,
        client_msg_no: body.str("client_msg_no")?,
        stream_no: if streams { body.str("stream_no")? } else { Cow::Borrowed("") },
        channel_id: body.str("channel_id")?,
        channel_type: body.u8("channel_type")?,
        expire: if version.has_expire() { body.u32("expire")? } else { 0 },
        msg_key: body.str("msg_key")?,
        topic: if setting.has(Setting::TOPIC) { body.str("topic")? } else { Cow::Borrowed("") },
        payload: body.rest(),
    })
}

fn sendack<'a>(version: Version, flags: Flags, body: &mut Body<'a>) -> Result<SendAck<'a>, PacketError> {
    Ok(SendAck {
        flags,
        message_id: body.i64("message_id")?,
        client_seq: body.u32("client_seq")?,
        message_seq: body.seq(version)?,
        reason: Reason(body.u8("reason")?),
        client_msg_no: if body.is_empty() { Cow::Borrowed("") } else { body.str("client_msg_no")? },
    })
}

fn recv<'a>(version: Version, flags: Flags, body: &mut Body<'a>) -> Result<Recv<'a>, PacketError> {
    let setting = Setting(body.u8("setting")?);
    let streams = version.has_stream() && setting.has(Setting::STREAM);
    Ok(Recv {
        flags,
        setting,
        msg_key: body.str("msg_key")?,
        from_uid: body.str("from_uid")?,
        channel_id: body.str("channel_id")?,
        channel_type: body.u8("channel_type")?,
        expire: if version.has_expire() { body.u32("expire")? } else { 0 },
        client_msg_no: body.str("client_msg_no")?,
        stream: if streams {
            Stream { flag: body.u8("stream_flag")?, no: body.str("stream_no")?, id: body.u64("stream_id")? }
        } else {
            Stream::default()
        },
        message_id: body.i64("message_id")?,
        message_seq: body.seq(version)?,
        timestamp: i32::from_be_bytes(body.array("timestamp")?),
        topic: if setting.has(Setting::TOPIC) { body.str("topic")? } else { Cow::Borrowed("") },
        payload: body.rest(),
    })
}

/// A body that is read field by field.
struct Body<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Body<'a> {
    fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn take(&mut self, field: &'static str, need: usize) -> Result<&'a [u8], PacketError> {
        let left = &self.bytes[self.at..];
        let Some(taken) = left.get(..need) else {
            return Err(PacketError::Truncated { field, offset: self.at, need, have: left.len() });
        };
        self.at += need;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], PacketError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(field, N)?);
        Ok(array)
    }

    fn u8(&mut self, field: &'static str) -> Result<u8, PacketError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    fn u32(&mut self, field: &'static str) -> Result<u32, PacketError> {
        self.array(field).map(u32::from_be_bytes)
    }

    fn u64(&mut self, field: &'static str) -> Result<u64, PacketError> {
        self.array(field).map(u64::from_be_bytes)
    }

    fn i64(&mut self, field: &'static str) -> Result<i64, PacketError> {
        self.array(field).map(i64::from_be_bytes)
    }

    fn seq(&mut self, version: Version) -> Result<u64, PacketError> {
        if version.has_wide_seq() { self.u64("message_seq") } else { self.u32("message_seq").map(u64::from) }
    }

    fn str(&mut self, field: &'static str) -> Result<Cow<'a, str>, PacketError> {
        let bytes = usize::from(u16::from_be_bytes(self.array(field)?));
        if bytes > STR_BYTES_MAX {
            return Err(PacketError::StringTooLong { field, bytes, max: STR_BYTES_MAX });
        }
        let offset = self.at;
        let text = self.take(field, bytes)?;
        std::str::from_utf8(text).map(Cow::Borrowed).map_err(|_| PacketError::NotUtf8 { field, offset })
    }

    fn rest(&mut self) -> Cow<'a, [u8]> {
        let rest = &self.bytes[self.at..];
        self.at = self.bytes.len();
        Cow::Borrowed(rest)
    }
}
