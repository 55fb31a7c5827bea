//! What happened, as clients saw it: the vocabulary of a history.
//!
//! Owns nothing but data. Events lie in one order: an ask is recorded before its first byte is sent, an answer after its
//! last byte was read, so what lies before another event happened before it for everybody. Payloads are kept as digests.

use std::collections::{BTreeMap, BTreeSet};

/// Place of an event in its history.
pub type At = usize;

/// A channel, however a client calls it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Channel {
    /// By its id.
    Group(String),
    /// By its two users, in order.
    Pair(String, String),
}

impl Channel {
    pub fn pair(a: &str, b: &str) -> Self {
        Self::Pair(a.min(b).to_owned(), a.max(b).to_owned())
    }

    /// How `uid` calls it.
    pub fn seen_by(&self, uid: &str) -> (String, u8) {
        match self {
            Self::Group(id) => (id.clone(), 2),
            Self::Pair(a, b) => (if a == uid { b.clone() } else { a.clone() }, 1),
        }
    }

    /// What `uid` means.
    pub fn of(uid: &str, channel_id: &str, channel_type: u8) -> Self {
        if channel_type == 1 { Self::pair(uid, channel_id) } else { Self::Group(channel_id.to_owned()) }
    }
}

/// A message as somebody was shown it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    pub seq: u64,
    pub id: u64,
    pub from: String,
    pub name: String,
    pub payload: u64,
}

/// A row of a sync.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub channel: Channel,
    pub version: u64,
    pub unread: u64,
    pub read_to: u64,
    pub last: u64,
    /// Newest first.
    pub recents: Vec<Seen>,
}

/// How something was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// On a native session.
    Session(u64),
    /// Over HTTP, which dialect.
    Http(&'static str),
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    Send {
        channel: Channel,
        name: String,
        payload: u64,
        disk: bool,
    },
    Read {
        channel: Channel,
        seq: u64,
    },
    SetUnread {
        channel: Channel,
        unread: u64,
    },
    /// Everything that changed after a version, with so many recents.
    Sync {
        since: u64,
        recents: u64,
    },
    /// Messages from a seq on; `whole`: to the end, page by page.
    History {
        channel: Channel,
        first: u64,
        whole: bool,
    },
    /// Make a user a member, or none any more.
    Membership {
        channel: Channel,
        uid: String,
        member: bool,
    },
    /// Who is a member.
    Members {
        channel: Channel,
    },
}

impl Ask {
    pub fn channel(&self) -> Option<&Channel> {
        match self {
            Self::Send { channel, .. }
            | Self::Read { channel, .. }
            | Self::SetUnread { channel, .. }
            | Self::History { channel, .. }
            | Self::Membership { channel, .. }
            | Self::Members { channel } => Some(channel),
            Self::Sync { .. } => None,
        }
    }
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Stored {
        seq: u64,
        id: u64,
        disk: bool,
        duplicate: bool,
    },
    /// A read position, as it is now.
    Put {
        version: u64,
        unread: u64,
        read_to: u64,
    },
    Synced {
        version: u64,
        reset: bool,
        rows: Vec<Row>,
    },
    Page {
        messages: Vec<Seen>,
    },
    Changed,
    Members(BTreeSet<String>),
    /// `later`: it may succeed when asked again.
    Refused {
        code: String,
        later: bool,
    },
    /// The connection ended first.
    Unknown,
}

/// One event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Something was done to the server or its disk.
    Fault(String),
    /// A server process is up; whatever was asked before and has no answer will never be done.
    Started,
    /// A start was refused.
    NotStarted(String),
    /// From here on nothing changes any more; whole histories read from here on are what is stored.
    Quiet,
    Asked {
        op: u64,
        user: String,
        via: Via,
        ask: Ask,
    },
    Answered {
        op: u64,
        answer: Answer,
    },
    Connecting {
        session: u64,
        user: String,
    },
    /// The session is open; it is told of everything after this version.
    Connected {
        session: u64,
        version: u64,
    },
    Delivered {
        session: u64,
        channel: Channel,
        messages: Vec<Seen>,
    },
    Gap {
        session: u64,
        channel: Channel,
        first: u64,
        head: u64,
    },
    /// Read elsewhere.
    Moved {
        session: u64,
        channel: Channel,
        version: u64,
        unread: u64,
        read_to: u64,
        last: u64,
    },
    /// Changes were not told: the session has to sync.
    Resync {
        session: u64,
    },
    /// The session was waited for until nothing more came.
    Settled {
        session: u64,
    },
    Ended {
        session: u64,
    },
}

/// Everything that happened in one round.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Who is a member of what from beginning to end.
    pub members: BTreeMap<Channel, BTreeSet<String>>,
    pub events: Vec<What>,
}
