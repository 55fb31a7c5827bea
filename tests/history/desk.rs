//! What the clients of a round share: the record, where the server is, what is still to be sent, and when to stop.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::record::{Answer, Ask, At, Channel, Via, What};
use crate::server::Address;

/// How far a round is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Clients do things.
    Busy,
    /// Clients only finish what they began.
    Finish,
    /// Clients wait until they were told of these messages (ids by seq), and end.
    Settle(HashMap<Channel, Vec<u64>>),
}

/// A message that has a name, and perhaps no outcome yet.
#[derive(Debug, Clone)]
pub struct Letter {
    pub channel: Channel,
    pub name: String,
}

/// See the module.
pub struct Desk {
    events: Mutex<Vec<What>>,
    next: AtomicU64,
    /// Per user: messages without an outcome. Whoever of the user's clients comes first sends them again.
    open: Mutex<HashMap<String, Vec<Letter>>>,
    /// Per user: some that were acked.
    acked: Mutex<HashMap<String, Vec<Letter>>>,
    /// Where the server is; `None`: nowhere now.
    pub server: watch::Sender<Option<Address>>,
    pub phase: watch::Sender<Phase>,
}

/// Acked messages kept per user for late retries.
const ACKED_MAX: usize = 64;

impl Desk {
    pub fn new() -> Self {
        Self {
            events: Mutex::default(),
            next: AtomicU64::new(1),
            open: Mutex::default(),
            acked: Mutex::default(),
            server: watch::Sender::new(None),
            phase: watch::Sender::new(Phase::Busy),
        }
    }

    pub fn record(&self, what: What) {
        self.events.lock().push(what);
    }

    /// A number that is used once.
    pub fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub fn ask(&self, user: &str, via: Via, ask: Ask) -> u64 {
        let op = self.number();
        self.record(What::Asked { op, user: user.to_owned(), via, ask });
        op
    }

    pub fn answer(&self, op: u64, answer: Answer) {
        self.record(What::Answered { op, answer });
    }

    pub fn take_events(&self) -> Vec<What> {
        std::mem::take(&mut self.events.lock())
    }

    /// Ids by seq of the whole histories that were read since an event.
    pub fn whole_histories(&self, since: At) -> Vec<(Channel, Vec<u64>)> {
        let events = self.events.lock();
        let mut asked: HashMap<u64, &Channel> = HashMap::new();
        let mut read = Vec::new();
        for event in &events[since..] {
            match event {
                What::Asked { op, ask: Ask::History { channel, whole: true, .. }, .. } => {
                    asked.insert(*op, channel);
                }
                What::Answered { op, answer: Answer::Page { messages } } => {
                    if let Some(channel) = asked.get(op) {
                        read.push(((*channel).clone(), messages.iter().map(|message| message.id).collect()));
                    }
                }
                _ => {}
            }
        }
        read
    }

    pub fn len(&self) -> At {
        self.events.lock().len()
    }

    /// To be sent again.
    pub fn put_back(&self, user: &str, letter: Letter) {
        self.open.lock().entry(user.to_owned()).or_default().push(letter);
    }

    /// The oldest that is to be sent again.
    pub fn take_open(&self, user: &str) -> Option<Letter> {
        let mut open = self.open.lock();
        let letters = open.get_mut(user)?;
        if letters.is_empty() { None } else { Some(letters.remove(0)) }
    }

    pub fn was_acked(&self, user: &str, letter: Letter, dice: usize) {
        let mut acked = self.acked.lock();
        let letters = acked.entry(user.to_owned()).or_default();
        if letters.len() < ACKED_MAX {
            letters.push(letter);
        } else {
            letters[dice % ACKED_MAX] = letter;
        }
    }

    /// One that was acked at some time.
    pub fn some_acked(&self, user: &str, dice: usize) -> Option<Letter> {
        let acked = self.acked.lock();
        let letters = acked.get(user)?;
        letters.get(dice.checked_rem(letters.len())?).cloned()
    }
}

/// A payload is made from its name.
pub fn payload(name: &str) -> Vec<u8> {
    let mut state = digest(name.as_bytes());
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let len = if next() % 40 == 0 { next() % 9_000 } else { next() % 500 };
    let mut bytes = name.as_bytes().to_vec();
    bytes.extend((0..len).map(|_| next() as u8));
    bytes
}

/// FNV-1a.
pub fn digest(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3))
}
