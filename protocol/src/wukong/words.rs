//! Small words of packets: the bits of the header, the setting byte, packet types and reason codes.

use std::ops::BitOr;

/// The low half of a packet's first byte (wukongim-wire.md 1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags {
    /// Sent before.
    pub dup: bool,
    /// A command: for one device only, not a conversation's message.
    pub sync_once: bool,
    /// Counts as unread.
    pub red_dot: bool,
    /// Is not stored.
    pub no_persist: bool,
}

impl Flags {
    /// Reads the low four bits.
    #[must_use]
    pub fn from_bits(bits: u8) -> Self {
        Self { dup: bits & 8 != 0, sync_once: bits & 4 != 0, red_dot: bits & 2 != 0, no_persist: bits & 1 != 0 }
    }

    /// The low four bits.
    #[must_use]
    pub fn bits(self) -> u8 {
        u8::from(self.dup) << 3
            | u8::from(self.sync_once) << 2
            | u8::from(self.red_dot) << 1
            | u8::from(self.no_persist)
    }
}

/// The setting byte of SEND, RECV and SUB (wukongim-wire.md 1.5). Unknown bits are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Setting(pub u8);

impl Setting {
    /// The sender wants to know who read it.
    pub const RECEIPT: Self = Self(0x80);
    /// Encrypted end to end by the clients.
    pub const SIGNAL: Self = Self(0x20);
    /// The payload is raw bytes and msg_key is empty.
    pub const NO_ENCRYPT: Self = Self(0x10);
    /// A topic is present.
    pub const TOPIC: Self = Self(0x08);
    /// Where version 2 of the npm package has its own stream fields (wukongim-wire.md 1.5).
    pub const NPM_STREAM: Self = Self(0x04);
    /// Versions 2 to 4: stream fields are present.
    pub const STREAM: Self = Self(0x02);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Without the bits of `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Setting {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// The high half of a packet's first byte (wukongim-wire.md 1.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// First packet of a client.
    Connect = 1,
    /// Its answer.
    ConnAck = 2,
    /// A client's message.
    Send = 3,
    /// Its answer.
    SendAck = 4,
    /// A message for a client.
    Recv = 5,
    /// A client has it.
    RecvAck = 6,
    /// Is the server there?
    Ping = 7,
    /// It is.
    Pong = 8,
    /// The server ends the session.
    Disconnect = 9,
    /// A client wants a data channel, or no longer.
    Sub = 10,
    /// Its answer.
    SubAck = 11,
    /// Something happened that is no message.
    Event = 12,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Connect,
        Self::ConnAck,
        Self::Send,
        Self::SendAck,
        Self::Recv,
        Self::RecvAck,
        Self::Ping,
        Self::Pong,
        Self::Disconnect,
        Self::Sub,
        Self::SubAck,
        Self::Event,
    ];

    /// The type of a number; `None`: 0 and 13 to 15, which nobody uses.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number).wrapping_sub(1)).copied()
    }

    /// The number.
    #[must_use]
    pub fn number(self) -> u8 {
        self as u8
    }
}

/// How a request ended: CONNACK, SENDACK, DISCONNECT, SUBACK and JSON-RPC's error code (wukongim-wire.md 14). 128 to 255
/// are a deployment's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Reason(pub u8);

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $number:literal $word:literal,)*) => {
        impl Reason {
            $($(#[$doc])* pub const $name: Self = Self($number);)*

            /// Its name as WuKongIM writes it, `"ReasonAuthFail"`; `"ReasonUnknown"` for numbers without one.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self.0 {
                    $($number => concat!("Reason", $word),)*
                    _ => "ReasonUnknown",
                }
            }
        }
    };
}

reasons! {
    /// It worked.
    SUCCESS = 1 "Success",
    /// Wrong or no token.
    AUTH_FAIL = 2 "AuthFail",
    /// The sender is no member.
    SUBSCRIBER_NOT_EXIST = 3 "SubscriberNotExist",
    /// The sender is on the channel's black list.
    IN_BLACKLIST = 4 "InBlacklist",
    /// No such channel.
    CHANNEL_NOT_EXIST = 5 "ChannelNotExist",
    /// The user is on another node.
    USER_NOT_ON_NODE = 6 "UserNotOnNode",
    /// The sender is offline.
    SENDER_OFFLINE = 7 "SenderOffline",
    /// The msg_key does not fit.
    MSG_KEY_ERROR = 8 "MsgKeyError",
    /// The payload cannot be read; also answered when the msg_key does not fit (wukongim-wire.md 4.4).
    PAYLOAD_DECODE_ERROR = 9 "PayloadDecodeError",
    /// It could not be handed to its node.
    FORWARD_SEND_PACKET_ERROR = 10 "ForwardSendPacketError",
    /// The sender must not.
    NOT_ALLOW_SEND = 11 "NotAllowSend",
    /// The user connected elsewhere.
    CONNECT_KICK = 12 "ConnectKick",
    /// The sender is not on the channel's white list.
    NOT_IN_WHITELIST = 13 "NotInWhitelist",
    /// The token could not be looked up.
    QUERY_TOKEN_ERROR = 14 "QueryTokenError",
    /// The server failed.
    SYSTEM_ERROR = 15 "SystemError",
    /// The channel id is wrong.
    CHANNEL_ID_ERROR = 16 "ChannelIDError",
    /// The node could not be found.
    NODE_MATCH_ERROR = 17 "NodeMatchError",
    /// It is another node.
    NODE_NOT_MATCH = 18 "NodeNotMatch",
    /// The user or channel is banned.
    BAN = 19 "Ban",
    /// These header flags are not supported.
    NOT_SUPPORT_HEADER = 20 "NotSupportHeader",
    /// CONNECT has no client_key.
    CLIENT_KEY_IS_EMPTY = 21 "ClientKeyIsEmpty",
    /// Too many.
    RATE_LIMIT = 22 "RateLimit",
    /// This type of channel is not supported.
    NOT_SUPPORT_CHANNEL_TYPE = 23 "NotSupportChannelType",
    /// The channel is disbanded.
    DISBAND = 24 "Disband",
    /// The channel or member is muted.
    SEND_BAN = 25 "SendBan",
    /// The channel is being deleted.
    CHANNEL_DELETING = 26 "ChannelDeleting",
    /// The session's version cannot say it.
    PROTOCOL_UPGRADE_REQUIRED = 27 "ProtocolUpgradeRequired",
    /// The same client_msg_no with another payload.
    IDEMPOTENCY_CONFLICT = 28 "IdempotencyConflict",
    /// The channel has no position left.
    MESSAGE_SEQ_EXHAUSTED = 29 "MessageSeqExhausted",
}
