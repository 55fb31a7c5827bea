//! Who asks: what a credential proves (design.md section 7).

use protocol::ids::{DeviceFlag, Uid};

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Scopes {
    /// Everything: users, channels, keys.
    pub admin: bool,
    /// Send messages for any user.
    pub send: bool,
    /// Read any user's conversations and history.
    pub read: bool,
}

/// The holder of a credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// A back end with an API key.
    Key {
        /// Public id of the key.
        key_id: String,
        /// What it may do.
        scopes: Scopes,
        /// The only namespace it may name; `None`: any.
        namespace: Option<String>,
    },
    /// A user with an own token: every rule of a client applies.
    User {
        /// The user.
        uid: Uid,
        /// The device kind the token was set for.
        device_flag: DeviceFlag,
        /// 0 slave, 1 master (wukongim-http.md 3.1).
        device_level: u8,
    },
}
