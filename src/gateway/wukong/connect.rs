//! How a session of WuKongIM's protocols begins: who may connect, and the answer.
//!
//! A failure CONNACK makes the SDKs give up until a person acts (wukongim-wire.md 3.5), so only what a person must mend is
//! answered with one: a wrong token, a ban, a missing key. What passes by itself closes the connection, and they come back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use protocol::close::CloseReason;
use protocol::ids::{DeviceFlag, DeviceId, Uid};
use protocol::wukong::{Cipher, ConnAck, Connect, KeyError, Packet, Reason, Version};

use super::keys::salt;
use super::{Session, reason_of};
use crate::clock;
use crate::domain::identity::Identity;
use crate::domain::refusal::{ErrorKind, Refusal};
use crate::gateway::Context;
use crate::gateway::handshake::{Entered, join};
use crate::gateway::native::bad_id;
use crate::hub::sessions::Device;
use crate::voices;

/// Largest body of a CONNECT in bytes: a credential of 4 KiB, names, a key.
pub const CONNECT_BYTES_MAX: usize = 16 * 1024;
/// The node that CONNACK names: this server is one.
const NODE_ID: u64 = 1;

/// Why a CONNECT is no session.
pub enum Denied {
    /// Answered with this reason, then closed.
    Answer(Reason),
    /// Closed without an answer.
    Close(CloseReason),
}

/// A user who may connect.
pub struct Admitted {
    /// Registered, and in its groups.
    pub entered: Entered,
    /// The user.
    pub uid: Uid,
    /// On a master device.
    pub master: bool,
}

/// Checks a CONNECT and registers its session (wukongim-wire.md 3.7 and 3.8).
///
/// # Errors
/// Why not.
pub async fn admit(context: &Rc<Context>, connect: &Connect<'_>) -> Result<Admitted, Denied> {
    let proven = proven(context, connect).map_err(|refusal| denied(context, refusal))?;
    enter(context, proven).await
}

/// Registers the session of a user whose token was right.
async fn enter(context: &Rc<Context>, (uid, device): (Uid, Device)) -> Result<Admitted, Denied> {
    let (entered, _) = join(context, &uid, &device).await.map_err(|refusal| denied(context, refusal))?;
    Ok(Admitted { entered, uid, master: device.master })
}

/// A refusal, counted, as what it means for the client.
fn denied(context: &Context, refusal: Refusal) -> Denied {
    context.hub.metrics().refused(refusal.code());
    if refusal == Refusal::UserBanned {
        return Denied::Answer(reason_of(&refusal));
    }
    match refusal.kind() {
        ErrorKind::Unauthenticated | ErrorKind::Forbidden | ErrorKind::NotFound | ErrorKind::Invalid => {
            Denied::Answer(Reason::AUTH_FAIL)
        }
        ErrorKind::Conflict
        | ErrorKind::TooLarge
        | ErrorKind::RateLimited
        | ErrorKind::Unavailable
        | ErrorKind::Internal => Denied::Close(voices::of(&refusal).close),
    }
}

/// Who connects, on which device.
fn proven(context: &Context, connect: &Connect<'_>) -> Result<(Uid, Device), Refusal> {
    let named = Uid::new(&connect.uid).map_err(bad_id("uid"))?;
    let id: Arc<str> = match &*connect.device_id {
        // A device without a name is a device of its own: nothing replaces it.
        "" => uuid::Uuid::new_v4().to_string().into(),
        text => DeviceId::new(text).map_err(bad_id("device_id"))?.as_str().into(),
    };
    let (uid, master) = if context.limits.wukong_token_auth { known(context, named, connect)? } else { (named, false) };
    Ok((uid, Device { flag: DeviceFlag(connect.device_flag), id, master, alone: master }))
}

/// The user whose token of this device kind it is, and whether that device is a master. An API key that may do anything
/// connects as any user of its namespace, as over the native protocol.
fn known(context: &Context, named: Uid, connect: &Connect<'_>) -> Result<(Uid, bool), Refusal> {
    let credentials = &context.credentials;
    match credentials.identify(&context.hub, &connect.token, Some(&named))? {
        Identity::Key { scopes, namespace, .. } if scopes.admin => {
            let uid = Uid::in_namespace(namespace.as_deref(), named.as_str()).map_err(bad_id("uid"))?;
            Ok((uid, false))
        }
        Identity::Key { .. } => Err(Refusal::Forbidden { action: "connect as a user" }),
        // A user of a namespace names itself without it, as all edges show it.
        Identity::User { uid, .. } if uid.bare() == named.as_str() => {
            let owners = context.hub.token_owners(&credentials.hash(&connect.token))?;
            let of_device = |(owner, flag, _): &(Uid, DeviceFlag, u8)| *owner == uid && flag.0 == connect.device_flag;
            let level = owners.into_iter().find(of_device).map(|(_, _, level)| level);
            level.map(|level| (uid, level == 1)).ok_or(Refusal::CredentialUnknown)
        }
        Identity::User { .. } => Err(Refusal::Forbidden { action: "connect as this user" }),
    }
}

/// A WKProto session that was admitted.
pub struct Opened {
    /// Who.
    pub admitted: Admitted,
    /// Its keys.
    pub session: Session,
    /// CONNACK as it travels.
    pub answer: Vec<u8>,
}

/// Checks the token, agrees on keys, admits the user and makes the answer; on a failure that is answered, the answer alone.
///
/// # Errors
/// The failure CONNACK as it travels, or why the connection is closed without.
pub async fn open(context: &Rc<Context>, framed: bool, connect: &Connect<'_>) -> Result<Opened, Refused> {
    let version = Version::negotiate(connect.version);
    let denied = |denied| Refused::of(version, framed, connect, denied);
    // The token first: who has none costs no agreement on keys.
    let proven = proven(context, connect).map_err(|refusal| denied(self::denied(context, refusal)))?;
    let encrypted = context.limits.wukong_encryption;
    let keys = if encrypted { Some(agree(context, version, connect).map_err(denied)?) } else { None };
    let admitted = enter(context, proven).await.map_err(denied)?;
    let now_ms = clock::now_ms();
    let (cipher, server_key, salt) = match keys {
        Some((cipher, server_key, salt)) => (Some(cipher), server_key, salt),
        None => (None, String::new(), String::new()),
    };
    let mut session = Session::new(version, cipher, framed, now_ms);
    session.blank_system = context.limits.wukong_blank_system;
    session.commands = admitted.master.then(Default::default);
    let ack = connack(version, connect, Reason::SUCCESS, &server_key, &salt);
    let mut answer = Vec::new();
    session.append(&Packet::ConnAck(ack), &mut answer);
    context.hub.metrics().connects.inc();
    Ok(Opened { admitted, session, answer })
}

/// What a CONNECT that failed is told.
pub enum Refused {
    /// These bytes, then the end.
    Told(Vec<u8>),
    /// The end.
    Closed(CloseReason),
}

impl Refused {
    fn of(version: Version, framed: bool, connect: &Connect<'_>, denied: Denied) -> Self {
        match denied {
            Denied::Close(reason) => Self::Closed(reason),
            Denied::Answer(reason) => {
                let session = Session::new(version, None, framed, 0);
                let mut out = Vec::new();
                session.append(&Packet::ConnAck(connack(version, connect, reason, "", "")), &mut out);
                out.extend_from_slice(&session.closing(CloseReason::BadCredential));
                Self::Told(out)
            }
        }
    }
}

/// CONNACK's fields, also for JSON-RPC.
pub fn connack<'a>(
    version: Version,
    connect: &Connect<'_>,
    reason: Reason,
    server_key: &'a str,
    salt: &'a str,
) -> ConnAck<'a> {
    ConnAck {
        server_version: version.is_told().then_some(version.get()),
        time_diff: wire_ms(clock::now_ms()).saturating_sub(connect.client_timestamp),
        reason,
        server_key: server_key.into(),
        salt: salt.into(),
        node_id: NODE_ID,
    }
}

fn wire_ms(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// Agrees on the session's keys: the cipher, our public key and the salt.
fn agree(context: &Context, version: Version, connect: &Connect<'_>) -> Result<(Cipher, String, String), Denied> {
    let (pair, salt) = context.keys.pair(Instant::now()).and_then(|pair| Ok((pair, salt()?))).map_err(|error| {
        tracing::error!(%error, "no randomness for a session's key");
        Denied::Close(CloseReason::Internal)
    })?;
    let cipher = pair.secret.agree(&connect.client_key, &salt).map_err(|error| {
        // Reason 21 is of version 6 (wukongim-wire.md 3.7 and 4.1).
        let reason = match error {
            KeyError::Empty if version.has_wide_seq() => Reason::CLIENT_KEY_IS_EMPTY,
            KeyError::Empty | KeyError::Malformed | KeyError::Weak | KeyError::Salt { .. } => Reason::AUTH_FAIL,
        };
        Denied::Answer(reason)
    })?;
    Ok((cipher, pair.public.clone(), salt))
}
