//! The sessions and what each of them still waits for.
//!
//! Owns the counting: connected, acked, delivered, synced. Refuses to know when things are done.

use std::borrow::Cow;

use anyhow::{Context, Error, Result, bail, ensure};
use protocol::native::{self, ClientFrame, Durability, Resume, ServerFrame, Synced};
use protocol::wukong::{Cipher, Reason};

use crate::fleet::Crew;
use crate::frames::{self, Incoming, MSG_NO_BYTES, SendTemplate};
use crate::raw::{self, Link};
use crate::wukong::{Keys, Protocol, Said};

/// Bytes of every message.
const PAYLOAD: &[u8; 32] = b"one message of an idle session..";
/// client_seq of the first sync; later ones follow.
const SYNC_SEQ: u64 = 1 << 40;

#[derive(Default)]
struct Session {
    ready: bool,
    said: bool,
    acked: bool,
    heard: usize,
    version: Option<u64>,
    rows: usize,
    /// Of a session of WuKongIM's.
    cipher: Option<Box<Cipher>>,
}

/// What answers to a sync mean now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// A session learns the version it would come back with.
    Present,
    /// A session that was cut off learns what changed.
    ComingBack,
}

/// Everybody.
pub struct Crowd {
    users: Vec<(String, String)>,
    groups: Vec<String>,
    groups_each: usize,
    group_size: usize,
    sessions: Vec<Session>,
    ready: usize,
    said: usize,
    synced: usize,
    known: usize,
    write_seq: u32,
    written: usize,
    phase: Phase,
    run_tag: u64,
    /// `None`: native.
    keys: Option<Keys>,
    /// Own messages acked.
    pub acks: u64,
    /// Messages of others received.
    pub deliveries: u64,
    /// Conversations that syncs of the last storm listed.
    pub rows: u64,
}

impl Crowd {
    /// Nobody is connected yet. The last of `users` is the writer.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn new(
        users: Vec<(String, String)>,
        groups: Vec<String>,
        groups_each: usize,
        group_size: usize,
        protocol: Protocol,
    ) -> Result<Self> {
        let (mut tag, mut private) = ([0; 8], [0; 32]);
        getrandom::fill(&mut tag).context("random bytes from the operating system")?;
        getrandom::fill(&mut private).context("random bytes from the operating system")?;
        Ok(Self {
            sessions: users.iter().map(|_| Session::default()).collect(),
            users,
            groups,
            groups_each,
            group_size,
            ready: 0,
            said: 0,
            synced: 0,
            known: 0,
            write_seq: 0,
            written: 0,
            phase: Phase::Present,
            run_tag: u64::from_ne_bytes(tag),
            keys: (protocol != Protocol::Native).then(|| Keys::new(private, protocol)),
            acks: 0,
            deliveries: 0,
            rows: 0,
        })
    }

    fn writer(&self) -> usize {
        self.users.len() - 1
    }

    /// Sessions open now, the writer's included.
    pub fn ready(&self) -> usize {
        self.ready
    }

    fn msg_no(&self, who: usize, count: u32) -> [u8; MSG_NO_BYTES] {
        let mut no = [b'0'; MSG_NO_BYTES];
        let text = format!("{:08x}{who:08x}{count:08x}", self.run_tag as u32);
        no.copy_from_slice(&text.as_bytes()[..MSG_NO_BYTES]);
        no
    }

    /// Queues the session's one message, to its first group.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn say(&mut self, index: usize, link: &mut Link) -> Result<()> {
        let group = &self.groups[index / self.group_size * self.groups_each];
        if let Some(keys) = &self.keys {
            let cipher = self.sessions[index].cipher.as_deref();
            let msg_no = self.msg_no(index, 0);
            keys.send(cipher, 1, std::str::from_utf8(&msg_no)?, group, PAYLOAD, link.out())?;
            self.sessions[index].said = true;
            return Ok(());
        }
        let template = SendTemplate::new(group, 2, PAYLOAD.len(), Durability::Disk)?;
        template.push(link.out(), 1, &self.msg_no(index, 0), PAYLOAD, &[]);
        self.sessions[index].said = true;
        Ok(())
    }

    /// How many messages of others a session gets when everybody says one thing.
    fn others(&self, index: usize) -> usize {
        let block = index / self.group_size;
        self.group_size.min(self.writer() - block * self.group_size) - 1
    }

    /// Whether every message is acked and has arrived everywhere.
    pub fn all_said(&self) -> bool {
        self.said == self.writer()
    }

    /// From here on answers to [`Crowd::ask_version`] are counted.
    pub fn begin_asking(&mut self) {
        self.phase = Phase::Present;
        self.known = 0;
    }

    /// Asks for the current version without rows' messages.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn ask_version(&mut self, link: &mut Link) -> Result<()> {
        let sync = native::Sync {
            client_seq: SYNC_SEQ,
            version: 0,
            last_msg_seqs: None,
            cursors: Vec::new(),
            msg_count: 0,
            only_unread: false,
            page_after: None,
            rows_max: 0,
        };
        frames::push(link.out(), &ClientFrame::Sync(sync))
    }

    /// Whether every session knows its version.
    pub fn all_know_version(&self) -> bool {
        self.known == self.writer()
    }

    /// All sessions but the writer's were dropped.
    pub fn gone(&mut self) {
        let writer = self.writer();
        for session in &mut self.sessions[..writer] {
            *session = Session { version: session.version, ..Session::default() };
        }
        self.ready = usize::from(self.sessions[writer].ready);
        (self.synced, self.rows) = (0, 0);
        self.phase = Phase::ComingBack;
    }

    /// Queues one message of the writer to every group.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn write_everywhere(&mut self, link: &mut Link) -> Result<()> {
        self.written = 0;
        for group in &self.groups {
            self.write_seq += 1;
            let template = SendTemplate::new(group, 2, PAYLOAD.len(), Durability::Disk)?;
            template.push(link.out(), self.write_seq, &self.msg_no(self.writer(), self.write_seq), PAYLOAD, &[]);
        }
        Ok(())
    }

    /// Whether the writer's messages are all stored.
    pub fn all_written(&self) -> bool {
        self.written == self.groups.len()
    }

    /// Whether everybody has every changed conversation.
    pub fn all_synced(&self) -> bool {
        self.synced == self.writer()
    }

    /// A sentence for a phase that did not end.
    pub fn what_is_missing(&self) -> String {
        let total = self.writer();
        if self.phase == Phase::ComingBack {
            let fewest = self.sessions[..total].iter().map(|session| session.rows).min().unwrap_or(0);
            return format!("only {} of {total} sessions are synced; one has {fewest} conversations", self.synced);
        }
        let acked = self.sessions[..total].iter().filter(|session| session.acked).count();
        let lag = (0..total).find(|index| self.sessions[*index].heard < self.others(*index));
        let lag = lag.map(|i| format!("session {i} heard {} of {}", self.sessions[i].heard, self.others(i)));
        format!("only {acked} of {total} messages are acked; {}", lag.unwrap_or_default())
    }

    fn settle(&mut self, index: usize) {
        let session = &self.sessions[index];
        if session.acked && session.heard == self.others(index) {
            self.said += 1;
        }
    }

    fn synced(&mut self, index: usize, link: &mut Link, synced: &Synced<'_>) -> Result<()> {
        let session = &mut self.sessions[index];
        match self.phase {
            Phase::Present if !synced.more => {
                session.version = Some(synced.version);
                self.known += 1;
            }
            Phase::Present => {}
            Phase::ComingBack => {
                ensure!(!synced.reset, "session {index}: the server did not know the version of before");
                session.rows += synced.rows.len();
                self.rows += synced.rows.len() as u64;
                if !synced.more {
                    ensure!(
                        session.rows == self.groups_each,
                        "session {index}: {} conversations changed, {} were synced",
                        self.groups_each,
                        session.rows
                    );
                    self.synced += 1;
                }
            }
        }
        if let (true, Some(after)) = (synced.more, &synced.page_after) {
            let sync = native::Sync {
                client_seq: SYNC_SEQ,
                version: synced.version,
                last_msg_seqs: None,
                cursors: Vec::new(),
                msg_count: 0,
                only_unread: false,
                page_after: Some(Cow::Borrowed(after)),
                rows_max: 0,
            };
            frames::push(link.out(), &ClientFrame::Sync(sync))?;
        }
        Ok(())
    }
}

impl Crowd {
    /// Works off whole packets of WuKongIM's; returns how many bytes they took.
    fn packets(&mut self, index: usize, link: &mut Link, bytes: &[u8]) -> Result<usize> {
        let mut used = 0;
        while let Some((said, length)) = self.keys.as_ref().context("a native run")?.next(&bytes[used..], link.out())? {
            used += length;
            let session = &mut self.sessions[index];
            match said {
                Said::Open(cipher) => {
                    session.cipher = cipher.map(Box::new);
                    session.ready = true;
                    self.ready += 1;
                }
                Said::Ack(ack) => {
                    ensure!(ack.reason == Reason::SUCCESS, "session {index}: SENDACK says {}", ack.reason.name());
                    session.acked = true;
                    self.acks += 1;
                    self.settle(index);
                }
                Said::Recv(recv) => {
                    let mut payload = Vec::new();
                    let is_sound = match &session.cipher {
                        Some(cipher) => cipher.open_recv(&recv, &mut payload).is_ok() && payload == PAYLOAD,
                        None => *recv.payload == *PAYLOAD,
                    };
                    ensure!(is_sound, "session {index}: a RECV does not open");
                    session.heard += 1;
                    self.deliveries += 1;
                    self.settle(index);
                    self.keys.as_ref().context("a native run")?.recvack(&recv, link.out())?;
                }
                Said::Other => {}
            }
        }
        Ok(used)
    }
}

impl Crew for Crowd {
    fn opened(&mut self, index: usize, link: &mut Link) -> Result<()> {
        let (uid, token) = &self.users[index];
        if let Some(keys) = &self.keys {
            return keys.connect(uid, token, link.out());
        }
        let resume = match self.sessions[index].version {
            Some(version) if self.phase == Phase::ComingBack => {
                Some(Resume { version, msg_count: 1, ..Resume::default() })
            }
            _ => None,
        };
        frames::push(link.out(), &frames::connect(uid, token, "idle", resume))
    }

    fn input(&mut self, index: usize, link: &mut Link, bytes: &[u8]) -> Result<usize> {
        if self.keys.is_some() {
            return self.packets(index, link, bytes);
        }
        let mut used = 0;
        while let Some((frame, tail)) = raw::split_frame(&bytes[used..])? {
            used = bytes.len() - tail.len();
            match frame.opcode {
                2 => {}
                9 => {
                    raw::push_frame(link.out(), 10, frame.payload);
                    continue;
                }
                8 => {
                    let (code, reason) = frame.close_reason();
                    bail!("the server closed session {index}: {code} {reason}");
                }
                _ => continue,
            }
            match frames::read(frame.payload)? {
                Incoming::Ack { .. } if index == self.writer() => self.written += 1,
                Incoming::Ack { .. } => {
                    self.acks += 1;
                    self.sessions[index].acked = true;
                    self.settle(index);
                }
                Incoming::Deliver(deliver) if self.phase == Phase::Present => {
                    self.deliveries += deliver.count as u64;
                    self.sessions[index].heard += deliver.count;
                    self.settle(index);
                }
                Incoming::Deliver(_) | Incoming::Unknown => {}
                Incoming::Other(other) => match *other {
                    ServerFrame::Connected(connected) => {
                        self.sessions[index].ready = true;
                        self.ready += 1;
                        if let Some(synced) = connected.synced {
                            self.synced(index, link, &synced)?;
                        }
                    }
                    ServerFrame::Synced(synced) => self.synced(index, link, &synced)?,
                    ServerFrame::Ping(_) => frames::push(link.out(), &ClientFrame::Pong(native::Pong {}))?,
                    ServerFrame::Refused(refused) => {
                        bail!("session {index}: refused: {} ({})", refused.text, refused.code)
                    }
                    ServerFrame::Closing(closing) => {
                        bail!("the server closes session {index}: {} {}", closing.code, closing.reason)
                    }
                    _ => {}
                },
            }
        }
        Ok(used)
    }

    fn lost(&mut self, index: usize, cause: Error) -> Result<()> {
        Err(cause.context(format!("session {index} was lost")))
    }
}
