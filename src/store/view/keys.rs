//! The layout: which key spaces there are and how their keys look. One tree; the first byte is the space; numbers are
//! big-endian.
//!
//! ```text
//! #m                        the mark: the log prefix that is completely in the view
//! #s                        the sum over all other rows
//! #e                        expiry: version applied
//! c type id                 name -> channel number                              (owner: the channel)
//! a alias                   alias -> channel number, version                    (owner: the channel)
//! h no                      head of a channel                                   (owner: the channel)
//! i no page8                full index page: 64 messages                        (owner: the channel)
//! p no bucket4 part         people of a channel: members and senders            (owner: the channel)
//! s no kind len uid lvl p8  page of a person's set: own (0) and own dead (1) countable seqs, seqs that name the person (2),
//!                           own seqs that mention all (3)
//! x no lvl page8            page of the channel's set of dead countable seqs
//! q no lvl page8            page of the channel's set of live seqs that mention all
//! C no lvl page8            page of the channel's set of commands
//! o no bucket4 part         profile of a channel                                (owner: the channel)
//! g no                      heads of what changed in messages                   (owner: the channel)
//! m no bucket4 part         edits and reactions by seq                          (owner: the channel)
//! j no seq8 bucket4 part    reactions to one message, when they are many        (owner: the channel)
//! n no page4                changes of messages, by version                     (owner: the channel)
//! r no run4 page4           page of an idempotency run                          (immutable)
//! f no run4 page4           page of a run's filter                              (immutable)
//! u len uid                 head of a user                                      (owner: the user)
//! v len uid bucket4 part    conversation states of a user                       (owner: the user)
//! l len uid page4           channel numbers of a user, in order of arrival      (owner: the user)
//! y len uid page4           own changes of a user, by version                   (owner: the user)
//! z len uid bucket4 part    what others are to a user                           (owner: the user)
//! t hash                    who holds a token                                   (written with the user that changed it)
//! k key_id                  API key                                             (owner: the server)
//! S uid                     whether a user is a system user                     (owner: the registers)
//! A address                 whether an address is blocked                       (owner: the registers)
//! b kept8                   break                                               (owner: the server)
//! e minute8 page4           messages that fall due in a minute                  (owner: the server)
//! d file_id                 a file, and the first messages that carry it        (owner: itself)
//! w len file_id no4 seq8    another message that carries the file               (immutable)
//! ```

use protocol::ids::{ChannelKey, Uid};

/// Makes the first part of a key, when one is needed: most questions are answered from memory and need none.
pub type Prefix<'a> = &'a dyn Fn() -> Vec<u8>;

pub const MARK: &[u8] = b"#m";
pub const SUM: &[u8] = b"#s";
pub const EXPIRY_HEAD: &[u8] = b"#e";

pub const NAME: u8 = b'c';
pub const ALIAS: u8 = b'a';
pub const HEAD: u8 = b'h';
pub const INDEX: u8 = b'i';
pub const PEOPLE: u8 = b'p';
pub const SENDER_SET: u8 = b's';
pub const DEAD_SET: u8 = b'x';
pub const ALL_SET: u8 = b'q';
pub const COMMANDS: u8 = b'C';
pub const PROFILE: u8 = b'o';
pub const ALTERED_HEAD: u8 = b'g';
pub const ALTERED: u8 = b'm';
pub const REACTIONS: u8 = b'j';
pub const ALTERED_LOG: u8 = b'n';
pub const RUN: u8 = b'r';
pub const FILTER: u8 = b'f';
pub const USER: u8 = b'u';
pub const STATES: u8 = b'v';
pub const LIST: u8 = b'l';
pub const CHANGES: u8 = b'y';
pub const RELATIONS: u8 = b'z';
pub const TOKEN: u8 = b't';
pub const API_KEY: u8 = b'k';
pub const SYSTEM_USER: u8 = b'S';
pub const ADDRESS: u8 = b'A';
pub const BREAK: u8 = b'b';
pub const EXPIRY: u8 = b'e';
pub const FILE: u8 = b'd';
pub const REFERENCE: u8 = b'w';

/// `space no`.
pub fn channel(space: u8, no: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(16);
    key.push(space);
    key.extend_from_slice(&no.to_be_bytes());
    key
}

/// `space len uid`: no user's key is a prefix of another's.
pub fn user(space: u8, uid: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(uid.len() + 8);
    key.push(space);
    key.push(uid.len().min(255) as u8);
    key.extend_from_slice(uid.as_bytes());
    key
}

/// `prefix page4`.
pub fn page4(prefix: &[u8], page: u32) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 5);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&page.to_be_bytes());
    key
}

/// `prefix page8`.
pub fn page8(prefix: &[u8], page: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 8);
    key.extend_from_slice(prefix);
    key.extend_from_slice(&page.to_be_bytes());
    key
}

/// `prefix bucket4 part`.
pub fn bucket(prefix: &[u8], bucket: u32, part: u8) -> Vec<u8> {
    let mut key = page4(prefix, bucket);
    key.push(part);
    key
}

/// `prefix level page8`.
pub fn set_page(prefix: &[u8], level: u8, page: u64) -> Vec<u8> {
    let mut key = Vec::with_capacity(prefix.len() + 9);
    key.extend_from_slice(prefix);
    key.push(level);
    key.extend_from_slice(&page.to_be_bytes());
    key
}

/// Prefix of a sender's set.
pub fn sender_set(no: u32, kind: u8, uid: &Uid) -> Vec<u8> {
    let mut key = channel(SENDER_SET, no);
    key.push(kind);
    key.push(uid.as_str().len().min(255) as u8);
    key.extend_from_slice(uid.as_str().as_bytes());
    key
}

/// Page of a run or of its filter.
pub fn run_page(space: u8, no: u32, run: u32, page: u32) -> Vec<u8> {
    let mut key = channel(space, no);
    key.extend_from_slice(&run.to_be_bytes());
    key.extend_from_slice(&page.to_be_bytes());
    key
}

/// Name of a channel.
pub fn name(key: &ChannelKey) -> Vec<u8> {
    let id = key.channel_id().as_bytes();
    let mut out = Vec::with_capacity(id.len() + 2);
    out.push(NAME);
    out.push(key.channel_type().to_wire());
    out.extend_from_slice(id);
    out
}

/// `space bytes`.
pub fn named(space: u8, name: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(name.len() + 1);
    out.push(space);
    out.extend_from_slice(name);
    out
}
