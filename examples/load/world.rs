//! What was sent, acked and delivered, and whether all of it is right.
//!
//! Owns the books: per channel which message has which seq, per connection and channel how far it has received. Refuses
//! to know time limits and pacing. Proved here, for every message: it is acked once; its seq is its channel's next; a
//! sender's messages keep their order; every online member gets it once, in order, with every byte as it was sent, or is
//! told of a gap and finds it in the history.
//!
//! A frame that goes to a thousand members is checked whole once and compared byte for byte for the rest.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, Result, bail, ensure};
use hdrhistogram::Histogram;
use protocol::native::{self, ClientFrame, Durability, ServerFrame};

use crate::args::{Args, Level};
use crate::fleet::Crew;
use crate::frames::{self, Incoming, MSG_NO_BYTES, SendTemplate};
use crate::payload::{Named, Payloads};
use crate::plan::{CHANNEL_DIGITS, GROUP, Plan};
use crate::raw::{self, Frame, Link};

mod wukong;

/// The default client's receipts: at most one per channel in this time.
const RECEIPT_NS: u64 = 1_000_000_000;
/// Frames of a channel kept for comparing.
const MEMOS: u64 = 512;
/// From so many readers on, keeping a channel's frames pays.
const MEMO_READERS: u64 = 4;
/// Channels of a connection that are tried by comparing before the frame is read.
const MEMO_SEATS: usize = 8;
/// Messages asked for in one `history`.
const HISTORY_PAGE: u32 = 500;
/// Requests other than sends are numbered from here.
const OTHER_REQUESTS: u64 = 1 << 40;
/// Faults told in words; all are counted.
const FAULTS_TOLD: usize = 10;
/// Unsent bytes of one connection that show the server has stopped reading.
const BACKLOG_BYTES_MAX: usize = 64 << 20;

/// What went wrong, counted by kind.
#[derive(Debug, Default, Clone, serde::Serialize)]
pub struct Faults {
    /// Acked or delivered to others, but missing somewhere.
    pub lost: u64,
    /// Came twice.
    pub duplicates: u64,
    /// Came in another order than its seq or its sender's.
    pub disorder: u64,
    /// Came with other bytes, or as another message than its seq was acked for.
    pub corrupt: u64,
    /// The first few in words.
    pub told: Vec<String>,
}

impl Faults {
    /// Whether nothing is wrong.
    pub fn none(&self) -> bool {
        self.lost + self.duplicates + self.disorder + self.corrupt == 0
    }

    fn tell(&mut self, text: String) {
        if self.told.len() < FAULTS_TOLD {
            self.told.push(text);
        }
    }
}

/// Counters of the whole run.
#[derive(Debug, Default, Clone, Copy, serde::Serialize)]
pub struct Counts {
    /// Sends written.
    pub sent: u64,
    /// Sends acked.
    pub acked: u64,
    /// Sends refused for a while (`busy` and the like).
    pub refused: u64,
    /// Messages received by members other than their sender, live or by history.
    pub delivered: u64,
    /// Those of them that a gap notice sent to the history.
    pub by_history: u64,
    /// Gap notices.
    pub gaps: u64,
    /// Receipts written.
    pub receipts: u64,
    /// Deliver frames.
    pub deliver_frames: u64,
    /// Reads that brought something.
    pub reads: u64,
}

/// A send under way.
struct Slot {
    intended_ns: u64,
    seat: u32,
    done: bool,
}

/// What a connection that sends has under way.
#[derive(Default)]
pub struct Sender {
    slots: VecDeque<Slot>,
    /// client_seq of the first slot.
    first: u64,
    /// Sends without an ack.
    pub in_flight: usize,
    /// Seats to send on, in turn.
    turn: usize,
    /// Nothing is sent before this time.
    pub held_until_ns: u64,
    /// Is in the list of those that may send.
    pub hungry: bool,
}

/// One connection's membership in one channel.
struct Seat {
    channel: u32,
    /// Received up to here.
    last: u64,
    /// Messages of others received.
    others: u64,
    /// Own messages acked.
    own: u64,
    may_send: bool,
    receipt_due: bool,
    /// Holes being filled by history.
    filling: u32,
}

struct Conn {
    seats: Vec<Seat>,
    ready: bool,
    stalled: bool,
    sender: Option<Sender>,
    queued: bool,
    refused: u64,
    /// Of a session of WuKongIM's that encrypts.
    cipher: Option<Box<protocol::wukong::Cipher>>,
}

/// A frame that was checked once.
struct Memo {
    first: u64,
    last: u64,
    bytes: Vec<u8>,
    intended_ns: Vec<u64>,
}

struct Channel {
    base: u64,
    /// By seq - base - 1: sender + 1 and counter, 0 for unknown.
    table: Vec<u64>,
    acked: u64,
    template: SendTemplate,
    /// Online members besides the sender of a message.
    readers: u64,
    memos: Vec<Option<Memo>>,
}

struct Fill {
    conn: u32,
    seat: u32,
    next: u64,
    last: u64,
    read_back: bool,
}

/// The books.
pub struct World {
    plan: Plan,
    tokens: Vec<String>,
    payloads: Payloads,
    run_tag: u32,
    conns: Vec<Conn>,
    channels: Vec<Channel>,
    fills: HashMap<u64, Fill>,
    next_request: u64,
    started: Instant,
    receipts_due: VecDeque<(u64, u32, u32)>,
    /// Latencies count for messages meant to be sent from here on.
    pub measure_from_ns: u64,
    /// Latencies count for messages meant to be sent before.
    pub measure_until_ns: u64,
    /// Counters.
    pub counts: Counts,
    /// Deliveries all sends ask for.
    pub expected: u64,
    /// From intended send to ack, microseconds.
    pub ack_us: Histogram<u64>,
    /// From intended send to each delivery, microseconds.
    pub delivery_us: Histogram<u64>,
    /// What is wrong.
    pub faults: Faults,
    /// Sessions open.
    pub ready: usize,
    /// Senders that may send.
    pub hungry: Vec<u32>,
    /// Connections with queued output.
    pub queued: Vec<u32>,
    /// Shortest heartbeat a server asked for, seconds.
    pub heartbeat_s: u32,
    /// Messages compared by reading back.
    pub read_back: u64,
    /// `None`: native.
    speech: Option<wukong::Speech>,
}

fn histogram() -> Result<Histogram<u64>> {
    // One microsecond to ten minutes, three digits.
    Histogram::new_with_bounds(1, 600_000_000, 3).context("making a histogram")
}

impl World {
    /// The books of a run that has not begun.
    ///
    /// # Errors
    /// A template cannot be made.
    pub fn new(args: &Args, plan: Plan, key: &str) -> Result<Self> {
        let durability = match args.durability {
            Level::Memory => Durability::Memory,
            Level::Disk => Durability::Disk,
        };
        let total = plan.connections();
        let (senders, reading) = (plan.senders, plan.senders + plan.receivers);
        let mut conns: Vec<Conn> = (0..total)
            .map(|i| Conn {
                seats: Vec::new(),
                ready: false,
                stalled: i >= reading,
                sender: (i < senders).then(|| Sender { first: 1, ..Sender::default() }),
                queued: false,
                refused: 0,
                cipher: None,
            })
            .collect();
        let mut channels = Vec::with_capacity(plan.channels.len());
        for (at, channel) in plan.channels.iter().enumerate() {
            let members = channel.senders.iter().map(|c| (c, true)).chain(channel.receivers.iter().map(|c| (c, false)));
            let mut online = 0;
            for (conn, may_send) in members {
                let Some(conn) = conns.get_mut(*conn as usize).filter(|conn| !conn.stalled) else { continue };
                online += 1;
                conn.seats.push(Seat {
                    channel: at as u32,
                    last: channel.base,
                    others: 0,
                    own: 0,
                    may_send,
                    receipt_due: false,
                    filling: 0,
                });
            }
            channels.push(Channel {
                base: channel.base,
                table: Vec::new(),
                acked: 0,
                template: SendTemplate::new(&channel.id, GROUP, args.payload, durability)?,
                readers: online - 1,
                memos: if online > MEMO_READERS { (0..MEMOS).map(|_| None).collect() } else { Vec::new() },
            });
        }
        let tokens = plan.users.iter().map(|user| plan.token(key, user)).collect();
        let started = Instant::now();
        let tag = blake3::hash(format!("{}{}{:?}", plan.prefix, plan.seed, chinwag::clock::now_us()).as_bytes());
        let run_tag = u32::from_be_bytes([tag.as_bytes()[0], tag.as_bytes()[1], tag.as_bytes()[2], tag.as_bytes()[3]]);
        Ok(Self {
            tokens,
            payloads: Payloads::new(plan.seed ^ u64::from(run_tag), args.payload),
            run_tag,
            conns,
            channels,
            fills: HashMap::new(),
            next_request: OTHER_REQUESTS,
            started,
            receipts_due: VecDeque::new(),
            measure_from_ns: u64::MAX,
            measure_until_ns: u64::MAX,
            counts: Counts::default(),
            expected: 0,
            ack_us: histogram()?,
            delivery_us: histogram()?,
            faults: Faults::default(),
            ready: 0,
            hungry: Vec::new(),
            queued: Vec::new(),
            heartbeat_s: u32::MAX,
            read_back: 0,
            speech: wukong::Speech::new(args)?,
            plan,
        })
    }

    /// Nanoseconds since the books were opened.
    pub fn clock(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    /// What connection `index` has under way.
    pub fn sender(&mut self, index: usize) -> Option<&mut Sender> {
        self.conns[index].sender.as_mut()
    }

    /// Sends without an ack.
    pub fn in_flight(&self) -> usize {
        self.conns.iter().filter_map(|conn| conn.sender.as_ref()).map(|sender| sender.in_flight).sum()
    }

    /// Deliveries sent for and not received.
    pub fn deliveries_open(&self) -> u64 {
        self.expected.saturating_sub(self.counts.delivered)
    }

    /// Readers of a message of the first channel; all channels are alike.
    pub fn readers(&self) -> u64 {
        self.channels[0].readers
    }

    /// Queues one message of connection `index`, meant to be sent at `intended_ns`.
    ///
    /// # Errors
    /// The server has stopped reading this connection.
    pub fn send(&mut self, index: usize, link: &mut Link, intended_ns: u64) -> Result<()> {
        let conn = &mut self.conns[index];
        let sender = conn.sender.as_mut().context("a connection that does not send")?;
        let seats = conn.seats.len();
        let Some(offset) = (0..seats).find(|offset| conn.seats[(sender.turn + offset) % seats].may_send) else {
            return Ok(());
        };
        let at = (sender.turn + offset) % seats;
        sender.turn = (at + 1) % seats;
        let channel_at = conn.seats[at].channel;
        let channel = &self.channels[channel_at as usize];
        let client_seq = sender.first + sender.slots.len() as u64;
        let client_seq = u32::try_from(client_seq).context("too many messages on one connection")?;
        sender.slots.push_back(Slot { intended_ns, seat: at as u32, done: false });
        sender.in_flight += 1;
        let named = Named { intended_ns, sender: index as u32, counter: client_seq };
        self.expected += channel.readers;
        if self.speech.is_some() {
            self.say_send(channel_at, named, link)?;
        } else {
            let (msg_no, payloads) = (msg_no(self.run_tag, named), &self.payloads);
            channel.template.push(link.out(), client_seq, &msg_no, &payloads.head(named), payloads.body(named));
        }
        ensure!(link.backlog() < BACKLOG_BYTES_MAX, "the server has stopped reading connection {index}");
        self.counts.sent += 1;
        self.queue(index);
        Ok(())
    }

    fn queue(&mut self, index: usize) {
        if !std::mem::replace(&mut self.conns[index].queued, true) {
            self.queued.push(index as u32);
        }
    }

    /// Connections with queued output, to be flushed; the list is empty afterwards.
    pub fn take_queued(&mut self, into: &mut Vec<u32>) {
        into.clear();
        std::mem::swap(into, &mut self.queued);
        for index in &*into {
            self.conns[*index as usize].queued = false;
        }
    }

    /// The next receipt that is due, as a finished frame for its connection.
    ///
    /// # Errors
    /// It cannot be encoded.
    pub fn next_receipt(&mut self, now: u64, out: &mut Vec<u8>) -> Result<Option<usize>> {
        let Some((due, conn, seat)) = self.receipts_due.front().copied() else { return Ok(None) };
        if due > now {
            return Ok(None);
        }
        self.receipts_due.pop_front();
        let seat = &mut self.conns[conn as usize].seats[seat as usize];
        seat.receipt_due = false;
        let receipt = native::Receipt {
            channel_id: Cow::Borrowed(&self.plan.channels[seat.channel as usize].id),
            channel_type: GROUP,
            message_seq: seat.last,
        };
        frames::push(out, &ClientFrame::Receipt(receipt))?;
        self.counts.receipts += 1;
        self.queue(conn as usize);
        Ok(Some(conn as usize))
    }

    fn channel_index(&self, id: &[u8]) -> Option<u32> {
        let (_, digits) = id.split_last_chunk::<CHANNEL_DIGITS>()?;
        let mut index = 0u32;
        for digit in digits {
            index = index * 10 + u32::from(digit.wrapping_sub(b'0')).min(9);
        }
        let plan = self.plan.channels.get(index as usize)?;
        (plan.id.as_bytes() == id).then_some(index)
    }

    fn seat_index(&self, conn: usize, channel: u32) -> Option<usize> {
        // Seats are made channel by channel, so they are sorted.
        self.conns[conn].seats.binary_search_by_key(&channel, |seat| seat.channel).ok()
    }

    fn owe_receipt(&mut self, conn: usize, seat: usize, now: u64) {
        let due = &mut self.conns[conn].seats[seat].receipt_due;
        if !*due {
            *due = true;
            self.receipts_due.push_back((now + RECEIPT_NS, conn as u32, seat as u32));
        }
    }

    fn measured(&self, intended_ns: u64) -> bool {
        (self.measure_from_ns..self.measure_until_ns).contains(&intended_ns)
    }

    /// Notes that `seq` of a channel is this sender's message; all sources have to agree.
    fn note(&mut self, channel: u32, seq: u64, sender: u32, counter: u32) {
        let id = &self.plan.channels[channel as usize].id;
        let books = &mut self.channels[channel as usize];
        let entry = u64::from(sender + 1) << 32 | u64::from(counter);
        let Some(place) = seq.checked_sub(books.base + 1).map(|place| place as usize) else {
            self.faults.disorder += 1;
            return self.faults.tell(format!("{id}: seq {seq} is not above {}, the head before the run", books.base));
        };
        // No honest seq is further ahead than everything under way.
        if place > books.table.len() + (1 << 22) {
            self.faults.lost += 1;
            return self.faults.tell(format!("{id}: seq {seq} is far beyond {} messages", books.table.len()));
        }
        if place >= books.table.len() {
            books.table.resize(place + 1, 0);
        }
        match books.table[place] {
            0 => books.table[place] = entry,
            known if known == entry => {}
            known => {
                self.faults.corrupt += 1;
                self.faults.tell(format!(
                    "{id}: seq {seq} is message {counter} of sender {sender} and also {} of {}",
                    known as u32,
                    (known >> 32) - 1
                ));
            }
        }
    }

    fn ack(&mut self, conn: usize, client_seq: u64, message_seq: u64, duplicate: bool, now: u64) -> Result<()> {
        let books = &mut self.conns[conn];
        let sender = books.sender.as_mut().context("an ack on a connection that sends nothing")?;
        let place = client_seq.checked_sub(sender.first).map(|place| place as usize);
        let Some(slot) = place.and_then(|place| sender.slots.get_mut(place)).filter(|slot| !slot.done) else {
            self.faults.duplicates += 1;
            self.faults.tell(format!("connection {conn}: an ack for {client_seq}, which is not under way"));
            return Ok(());
        };
        slot.done = true;
        let (intended_ns, seat) = (slot.intended_ns, slot.seat as usize);
        sender.in_flight -= 1;
        while sender.slots.front().is_some_and(|slot| slot.done) {
            sender.slots.pop_front();
            sender.first += 1;
        }
        if !std::mem::replace(&mut sender.hungry, true) {
            self.hungry.push(conn as u32);
        }
        let seat = &mut books.seats[seat];
        seat.own += 1;
        let channel = seat.channel;
        if duplicate {
            self.faults.duplicates += 1;
            self.faults.tell(format!("connection {conn}: {client_seq} was acked as a duplicate"));
        }
        self.counts.acked += 1;
        self.channels[channel as usize].acked += 1;
        self.note(channel, message_seq, conn as u32, client_seq as u32);
        if self.measured(intended_ns) {
            self.ack_us.saturating_record((now.saturating_sub(intended_ns)) / 1_000);
        }
        Ok(())
    }

    fn refused(&mut self, conn: usize, refused: &native::Refused<'_>, now: u64) -> Result<()> {
        let Some(wait_ms) = refused.retry_after_ms.filter(|_| refused.client_seq > 0) else {
            bail!("connection {conn}: refused: {} ({})", refused.text, refused.code);
        };
        if refused.client_seq >= OTHER_REQUESTS {
            bail!("connection {conn}: history was refused: {} ({})", refused.text, refused.code);
        }
        let books = &mut self.conns[conn];
        let sender = books.sender.as_mut().context("a refusal on a connection that sends nothing")?;
        let place = refused.client_seq.checked_sub(sender.first).map(|place| place as usize);
        let slot = place.and_then(|place| sender.slots.get_mut(place)).context("a refusal of an unknown send")?;
        slot.done = true;
        let channel = books.seats[slot.seat as usize].channel;
        sender.in_flight -= 1;
        sender.held_until_ns = now + u64::from(wait_ms) * 1_000_000;
        if !std::mem::replace(&mut sender.hungry, true) {
            self.hungry.push(conn as u32);
        }
        books.refused += 1;
        self.counts.refused += 1;
        self.expected -= self.channels[channel as usize].readers;
        Ok(())
    }

    /// One received message, live (`fill` false) or by history. Tells when it was meant to be sent, if it counts.
    fn item(&mut self, conn: usize, seat: usize, seq: u64, payload: &[u8], now: u64, live: bool) -> Option<u64> {
        let named = self.payloads.check(payload);
        self.arrived(conn, seat, seq, named, now, live)
    }

    /// As [`World::item`], of a payload that was checked: `None` for one with other bytes.
    fn arrived(
        &mut self,
        conn: usize,
        seat: usize,
        seq: u64,
        named: Option<Named>,
        now: u64,
        live: bool,
    ) -> Option<u64> {
        let channel = self.conns[conn].seats[seat].channel;
        let books = &mut self.conns[conn].seats[seat];
        if live {
            if seq <= books.last {
                self.faults.duplicates += 1;
                let id = &self.plan.channels[channel as usize].id;
                self.faults.tell(format!("{id}: seq {seq} came to connection {conn} after {}", books.last));
                return None;
            }
            // A sender's own messages are not delivered to it; its holes are counted at the end.
            if seq != books.last + 1 && !books.may_send {
                self.faults.lost += 1;
                let id = &self.plan.channels[channel as usize].id;
                self.faults.tell(format!(
                    "{id}: seq {seq} came to connection {conn} after {} without a gap notice",
                    books.last
                ));
            }
            books.last = seq;
        }
        let Some(named) = named else {
            self.faults.corrupt += 1;
            let id = &self.plan.channels[channel as usize].id;
            self.faults.tell(format!("{id}: seq {seq} came to connection {conn} with other bytes"));
            return None;
        };
        self.note(channel, seq, named.sender, named.counter);
        let books = &mut self.conns[conn].seats[seat];
        if named.sender as usize == conn {
            return None;
        }
        books.others += 1;
        self.counts.delivered += 1;
        if self.measured(named.intended_ns) {
            self.delivery_us.saturating_record(now.saturating_sub(named.intended_ns) / 1_000);
        }
        Some(named.intended_ns)
    }

    fn deliver(&mut self, conn: usize, mut deliver: frames::Deliver<'_>, whole: &[u8], now: u64) -> Result<()> {
        let Some(channel) = self.channel_index(deliver.channel_id) else {
            // Somebody else's traffic to the same user.
            return Ok(());
        };
        let seat = self.seat_index(conn, channel).context("a delivery to who is not a member")?;
        self.counts.deliver_frames += 1;
        let pure = !self.conns[conn].seats[seat].may_send && !self.channels[channel as usize].memos.is_empty();
        let before = self.conns[conn].seats[seat].last;
        let (mut intended, mut next, mut sound) = (Vec::new(), before, pure);
        while let Some(item) = deliver.next()? {
            let known = self.item(conn, seat, item.message_seq, item.payload, now, true);
            next += 1;
            sound &= item.message_seq == next && known.is_some();
            if let (true, Some(ns)) = (sound, known) {
                intended.push(ns);
            }
        }
        self.owe_receipt(conn, seat, now);
        if sound && next > before {
            let memo = Memo { first: before + 1, last: next, bytes: whole.to_vec(), intended_ns: intended };
            let place = ((before + 1) % MEMOS) as usize;
            self.channels[channel as usize].memos[place] = Some(memo);
        }
        Ok(())
    }

    /// Whether the bytes begin with a frame that was checked for another reader and is this one's next.
    fn compare(&mut self, conn: usize, bytes: &[u8], now: u64) -> Option<usize> {
        let seats = self.conns[conn].seats.len();
        if seats > MEMO_SEATS {
            return None;
        }
        for at in 0..seats {
            let seat = &mut self.conns[conn].seats[at];
            if seat.may_send {
                continue;
            }
            let memos = &self.channels[seat.channel as usize].memos;
            if memos.is_empty() {
                continue;
            }
            let Some(memo) = &memos[((seat.last + 1) % MEMOS) as usize] else { continue };
            if memo.first != seat.last + 1 || !bytes.starts_with(&memo.bytes) {
                continue;
            }
            seat.last = memo.last;
            seat.others += memo.intended_ns.len() as u64;
            self.counts.delivered += memo.intended_ns.len() as u64;
            self.counts.deliver_frames += 1;
            for intended in &memo.intended_ns {
                if (self.measure_from_ns..self.measure_until_ns).contains(intended) {
                    self.delivery_us.saturating_record(now.saturating_sub(*intended) / 1_000);
                }
            }
            let used = memo.bytes.len();
            self.owe_receipt(conn, at, now);
            return Some(used);
        }
        None
    }

    fn gap(&mut self, conn: usize, link: &mut Link, gap: &native::Gap<'_>) -> Result<()> {
        let Some(channel) = self.channel_index(gap.channel_id.as_bytes()) else { return Ok(()) };
        let seat = self.seat_index(conn, channel).context("a gap notice to who is not a member")?;
        self.counts.gaps += 1;
        let books = &mut self.conns[conn].seats[seat];
        if gap.first_missing_seq > books.last + 1 && !books.may_send {
            self.faults.lost += 1;
            self.faults.tell(format!(
                "{}: a gap notice from {} to connection {conn}, which has {}",
                gap.channel_id, gap.first_missing_seq, books.last
            ));
        }
        let next = books.last + 1;
        if gap.head_seq < next {
            return Ok(());
        }
        books.last = gap.head_seq;
        books.filling += 1;
        let fill = Fill { conn: conn as u32, seat: seat as u32, next, last: gap.head_seq, read_back: false };
        self.ask_history(link, fill)
    }

    fn ask_history(&mut self, link: &mut Link, fill: Fill) -> Result<()> {
        let seat = &self.conns[fill.conn as usize].seats[fill.seat as usize];
        self.next_request += 1;
        let history = native::History {
            client_seq: self.next_request,
            channel_id: Cow::Borrowed(&self.plan.channels[seat.channel as usize].id),
            channel_type: GROUP,
            first_seq: fill.next,
            last_seq: fill.last,
            limit: HISTORY_PAGE,
            newest_first: false,
        };
        frames::push(link.out(), &ClientFrame::History(history))?;
        self.queue(fill.conn as usize);
        self.fills.insert(self.next_request, fill);
        Ok(())
    }

    fn history(&mut self, link: &mut Link, messages: &native::Messages<'_>, now: u64) -> Result<()> {
        let Some(mut fill) = self.fills.remove(&messages.client_seq) else { return Ok(()) };
        let (conn, seat) = (fill.conn as usize, fill.seat as usize);
        for item in &messages.messages {
            if item.message_seq != fill.next {
                self.faults.lost += 1;
                self.faults.tell(format!(
                    "{}: history has {} where {} belongs",
                    messages.channel_id, item.message_seq, fill.next
                ));
            }
            fill.next = item.message_seq + 1;
            if fill.read_back {
                self.read_back += 1;
                match self.payloads.check(&item.payload) {
                    Some(named) => {
                        let channel = self.conns[conn].seats[seat].channel;
                        self.note(channel, item.message_seq, named.sender, named.counter);
                    }
                    None => {
                        self.faults.corrupt += 1;
                        self.faults.tell(format!("{}: {} reads back changed", messages.channel_id, item.message_seq));
                    }
                }
            } else if self.item(conn, seat, item.message_seq, &item.payload, now, false).is_some() {
                self.counts.by_history += 1;
            }
        }
        if fill.next <= fill.last && !messages.messages.is_empty() {
            return self.ask_history(link, fill);
        }
        if fill.next <= fill.last {
            self.faults.lost += fill.last + 1 - fill.next;
            self.faults.tell(format!("{}: history ends before {}", messages.channel_id, fill.next));
        }
        if !fill.read_back {
            self.conns[conn].seats[seat].filling -= 1;
        }
        Ok(())
    }

    /// Asks for every message of channel `at` on the connection of its first sender.
    ///
    /// # Errors
    /// The request cannot be encoded.
    pub fn start_read_back(&mut self, at: usize, link: &mut Link) -> Result<()> {
        let conn = self.plan.channels[at].senders[0] as usize;
        let Some(seat) = self.seat_index(conn, at as u32) else { return Ok(()) };
        let books = &self.channels[at];
        let (next, last) = (books.base + 1, books.base + books.table.len() as u64);
        if next > last {
            return Ok(());
        }
        self.ask_history(link, Fill { conn: conn as u32, seat: seat as u32, next, last, read_back: true })
    }

    /// The connection that reads channel `at` back.
    pub fn reader_of(&self, at: usize) -> usize {
        self.plan.channels[at].senders[0] as usize
    }

    /// How many channels there are.
    pub fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// Histories under way.
    pub fn fills_open(&self) -> usize {
        self.fills.len()
    }

    /// Messages of a channel that a seat has not received.
    fn missing(&self, seat: &Seat) -> u64 {
        (self.channels[seat.channel as usize].acked - seat.own).saturating_sub(seat.others)
    }

    /// Whether every reader has everything.
    pub fn all_received(&self) -> bool {
        self.fills.is_empty()
            && self.conns.iter().flat_map(|conn| &conn.seats).all(|seat| self.missing(seat) == 0 && seat.filling == 0)
    }

    /// The last look at the books, when nothing is under way any more.
    pub fn close(&mut self) {
        for (index, conn) in self.conns.iter().enumerate() {
            if let Some(sender) = &conn.sender
                && sender.in_flight > 0
            {
                self.faults.lost += sender.in_flight as u64;
                self.faults.tell(format!("connection {index}: {} sends were never acked", sender.in_flight));
            }
            for seat in &conn.seats {
                let missing = self.missing(seat);
                let id = &self.plan.channels[seat.channel as usize].id;
                if missing > 0 {
                    self.faults.lost += missing;
                    self.faults.tell(format!("{id}: connection {index} misses {missing}, its last is {}", seat.last));
                }
                let due = self.channels[seat.channel as usize].acked - seat.own;
                if seat.others > due {
                    self.faults.duplicates += seat.others - due;
                    self.faults
                        .tell(format!("{id}: connection {index} got {} more than were acked", seat.others - due));
                }
            }
        }
        for (plan, channel) in self.plan.channels.iter().zip(&self.channels) {
            let holes = channel.table.iter().filter(|entry| **entry == 0).count() as u64;
            if holes > 0 || channel.table.len() as u64 != channel.acked {
                self.faults.lost += holes.max(1);
                self.faults.tell(format!(
                    "{}: {} acked, but seqs reach {} with {holes} holes",
                    plan.id,
                    channel.acked,
                    channel.table.len()
                ));
            }
            let mut newest: HashMap<u64, u64> = HashMap::new();
            for (place, entry) in channel.table.iter().enumerate().filter(|(_, entry)| **entry != 0) {
                let (sender, counter) = (entry >> 32, entry & 0xffff_ffff);
                if newest.insert(sender, counter).is_some_and(|before| before >= counter) {
                    self.faults.disorder += 1;
                    let seq = channel.base + 1 + place as u64;
                    self.faults.tell(format!("{}: seq {seq} is out of its sender's order", plan.id));
                }
            }
        }
    }

    fn frame(&mut self, conn: usize, link: &mut Link, frame: Frame<'_>, whole: &[u8], now: u64) -> Result<()> {
        match frame.opcode {
            2 => {}
            8 => {
                let (code, reason) = frame.close_reason();
                bail!("the server closed connection {conn}: {code} {reason}");
            }
            9 => {
                raw::push_frame(link.out(), 10, frame.payload);
                return Ok(());
            }
            10 => return Ok(()),
            other => bail!("connection {conn}: a frame with opcode {other}"),
        }
        match frames::read(frame.payload)? {
            Incoming::Ack { client_seq, message_seq, duplicate } => {
                self.ack(conn, client_seq, message_seq, duplicate, now)
            }
            Incoming::Deliver(deliver) => self.deliver(conn, deliver, whole, now),
            Incoming::Unknown => Ok(()),
            Incoming::Other(other) => match *other {
                ServerFrame::Connected(connected) => {
                    ensure!(!self.conns[conn].ready, "connection {conn} was connected twice");
                    self.conns[conn].ready = true;
                    self.ready += 1;
                    self.heartbeat_s = self.heartbeat_s.min(connected.heartbeat_s.max(1));
                    Ok(())
                }
                ServerFrame::Ping(_) => frames::push(link.out(), &ClientFrame::Pong(native::Pong {})),
                ServerFrame::Refused(refused) => self.refused(conn, &refused, now),
                ServerFrame::Gap(gap) => self.gap(conn, link, &gap),
                ServerFrame::Messages(messages) => self.history(link, &messages, now),
                ServerFrame::Closing(closing) => {
                    bail!("the server closes connection {conn}: {} {}", closing.code, closing.reason)
                }
                _ => Ok(()),
            },
        }
    }

    /// Connections that have to be kept alive by pings.
    pub fn reading(&self) -> usize {
        self.plan.senders + self.plan.receivers
    }
}

impl Crew for World {
    fn opened(&mut self, index: usize, link: &mut Link) -> Result<()> {
        if self.speech.is_some() {
            return self.say_connect(index, link);
        }
        frames::push(link.out(), &frames::connect(&self.plan.users[index], &self.tokens[index], "load", None))
    }

    fn input(&mut self, index: usize, link: &mut Link, bytes: &[u8]) -> Result<usize> {
        let now = self.clock();
        self.counts.reads += 1;
        if self.speech.is_some() {
            return self.packets(index, link, bytes, now);
        }
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            if let Some(n) = self.compare(index, rest, now) {
                used += n;
                continue;
            }
            let Some((frame, tail)) = raw::split_frame(rest)? else { break };
            let length = rest.len() - tail.len();
            self.frame(index, link, frame, &rest[..length], now)?;
            used += length;
        }
        Ok(used)
    }

    fn lost(&mut self, index: usize, cause: Error) -> Result<()> {
        if self.conns[index].stalled && self.conns[index].ready {
            return Ok(());
        }
        Err(cause.context(format!("connection {index} was lost")))
    }
}

/// A name that no other message of any run has.
fn msg_no(run_tag: u32, named: Named) -> [u8; MSG_NO_BYTES] {
    let mut text = [0; MSG_NO_BYTES];
    let words = [run_tag, named.sender, named.counter];
    for (word, place) in words.iter().zip(text.as_chunks_mut::<8>().0) {
        for (nibble, digit) in place.iter_mut().enumerate() {
            *digit = b"0123456789abcdef"[(word >> (28 - 4 * nibble) & 0xf) as usize];
        }
    }
    text
}

/// A duration of the books' clock.
pub fn ns(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
