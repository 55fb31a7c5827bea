//! The same books over WuKongIM's packets.
//!
//! Each connection has a key, so nothing can be compared with what another got: every `--open-every`-th RECV is opened and
//! proved byte for byte, of the others the order and the names are.

use anyhow::{Context, Result, bail};
use protocol::native;
use protocol::wukong::{Packet, SendAck};

use super::{World, msg_no};
use crate::args::Args;
use crate::payload::Named;
use crate::raw::{self, Link};
use crate::wukong::{Keys, Protocol, Said, is_busy};

/// How long a sender holds back when the server is busy.
const BUSY_MS: u32 = 5;
/// How often the SDKs ping, seconds.
const PING_S: u32 = 60;

/// What all connections share.
pub struct Speech {
    keys: Keys,
    open_every: u64,
    recvack: bool,
    received: u64,
    opened: Vec<u8>,
}

impl Speech {
    /// `None`: the run is a native one.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn new(args: &Args) -> Result<Option<Self>> {
        if args.protocol == Protocol::Native {
            return Ok(None);
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random).context("random bytes from the operating system")?;
        Ok(Some(Self {
            keys: Keys::new(random, args.protocol),
            open_every: args.open_every.max(1),
            recvack: !args.no_recvack,
            received: 0,
            opened: Vec::new(),
        }))
    }
}

impl World {
    /// Queues CONNECT.
    pub(super) fn say_connect(&mut self, index: usize, link: &mut Link) -> Result<()> {
        let speech = self.speech.as_ref().context("a native run")?;
        speech.keys.connect(&self.plan.users[index], &self.tokens[index], link.out())
    }

    /// Queues a SEND.
    pub(super) fn say_send(&mut self, channel: u32, named: Named, link: &mut Link) -> Result<()> {
        let speech = self.speech.as_ref().context("a native run")?;
        let cipher = self.conns[named.sender as usize].cipher.as_deref();
        let mut payload = self.payloads.head(named).to_vec();
        payload.extend_from_slice(self.payloads.body(named));
        let msg_no = msg_no(self.run_tag, named);
        let group = &self.plan.channels[channel as usize].id;
        speech.keys.send(cipher, named.counter, std::str::from_utf8(&msg_no)?, group, &payload, link.out())
    }

    /// Queues what keeps a session alive.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn ping(&self, link: &mut Link) -> Result<()> {
        match &self.speech {
            Some(speech) => speech.keys.push(&Packet::Ping, link.out()),
            None => {
                raw::push_frame(link.out(), 9, b"");
                Ok(())
            }
        }
    }

    /// Works off whole packets; returns how many bytes they took.
    pub(super) fn packets(&mut self, conn: usize, link: &mut Link, bytes: &[u8], now: u64) -> Result<usize> {
        let mut used = 0;
        while used < bytes.len() {
            let speech = self.speech.as_ref().context("a native run")?;
            let next = speech.keys.next(&bytes[used..], link.out());
            let Some((said, length)) = next.with_context(|| format!("connection {conn}"))? else { break };
            match said {
                Said::Open(cipher) => {
                    self.conns[conn].cipher = cipher.map(Box::new);
                    self.conns[conn].ready = true;
                    self.ready += 1;
                    self.heartbeat_s = PING_S;
                }
                Said::Ack(ack) => self.sendack(conn, &ack, now)?,
                Said::Recv(recv) => self.recv(conn, &recv, link, now)?,
                Said::Other => {}
            }
            used += length;
        }
        Ok(used)
    }

    fn sendack(&mut self, conn: usize, ack: &SendAck<'_>, now: u64) -> Result<()> {
        let client_seq = ack.client_seq.into();
        if ack.reason == protocol::wukong::Reason::SUCCESS {
            return self.ack(conn, client_seq, ack.message_seq, false, now);
        }
        if !is_busy(ack.reason) {
            bail!("connection {conn}: SENDACK says {}", ack.reason.name());
        }
        let text = ack.reason.name();
        let refused = native::Refused {
            client_seq,
            code: text.into(),
            text: text.into(),
            field: None,
            retry_after_ms: Some(BUSY_MS),
        };
        self.refused(conn, &refused, now)
    }

    fn recv(&mut self, conn: usize, recv: &protocol::wukong::Recv<'_>, link: &mut Link, now: u64) -> Result<()> {
        let Some(channel) = self.channel_index(recv.channel_id.as_bytes()) else { return Ok(()) };
        let seat = self.seat_index(conn, channel).context("a RECV to who is not a member")?;
        self.counts.deliver_frames += 1;
        let speech = self.speech.as_mut().context("a native run")?;
        if speech.recvack {
            speech.keys.recvack(recv, link.out())?;
            self.counts.receipts += 1;
        }
        speech.received += 1;
        if speech.received % speech.open_every != 0 {
            let named = self.named(&recv.client_msg_no);
            self.arrived(conn, seat, recv.message_seq, named, now, true);
            return Ok(());
        }
        let mut opened = std::mem::take(&mut speech.opened);
        opened.clear();
        let sound = match &self.conns[conn].cipher {
            Some(cipher) => cipher.open_recv(recv, &mut opened).is_ok(),
            None => {
                opened.extend_from_slice(&recv.payload);
                true
            }
        };
        let named = sound.then(|| self.payloads.check(&opened)).flatten();
        self.arrived(conn, seat, recv.message_seq, named, now, true);
        if let Some(speech) = &mut self.speech {
            speech.opened = opened;
        }
        Ok(())
    }

    /// Which message a client_msg_no of this run names. When it was sent is in its payload only.
    fn named(&self, msg_no: &str) -> Option<Named> {
        let word = |at: usize| u32::from_str_radix(msg_no.get(at..at + 8)?, 16).ok();
        (word(0)? == self.run_tag).then_some(())?;
        Some(Named { intended_ns: u64::MAX, sender: word(8)?, counter: word(16)? })
    }
}
