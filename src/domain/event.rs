//! Events of a message: streamed answers, as WuKongIM v2 and v3 have them (wukongim-http.md 5.6).
//!
//! A message has lanes, named by event keys; what happens in a lane is merged into one state, and that is what is kept and
//! shown. Owns the words of events, what each does to its lane, and who may see a lane. Refuses to know which messages are
//! streamed now, what is on disk and who is online.
//!
//! Invariants: a lane that has ended changes no more; merging depends on the lane and the event alone; no lane is shown to
//! whom its visibility leaves out.

use bytes::Bytes;
use protocol::ids::Uid;
use serde_json::{Map, Value};

use super::refusal::Refusal;

/// Lane of events that name none.
pub const KEY_DEFAULT: &str = "main";
/// Lane of `stream.finish`: while a message has it, all of the message is over.
pub const KEY_FINISH: &str = "__finish__";
/// Longest event_id, in bytes.
pub const EVENT_ID_BYTES_MAX: usize = 128;
/// Longest event_type, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 64;
/// Longest event_key, in bytes.
pub const EVENT_KEY_BYTES_MAX: usize = 128;
/// Lanes of one message, that of [`KEY_FINISH`] included.
pub const LANES_MAX: usize = 32;

/// `kind` of contents whose deltas are texts to be joined.
const KIND_TEXT: &str = "text";
/// `kind` of contents whose `data` is shown as it is.
const KIND_BINARY: &str = "binary";

/// How a lane stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum LaneStatus {
    /// More may come.
    #[default]
    Open = 0,
    /// Complete.
    Closed = 1,
    /// Ended by an error.
    Error = 2,
    /// Ended before it was complete.
    Cancelled = 3,
}

impl LaneStatus {
    /// The word of wires.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
            Self::Error => "error",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the word of wires.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        [Self::Open, Self::Closed, Self::Error, Self::Cancelled].into_iter().find(|status| status.code() == code)
    }

    /// Reads the stored number.
    #[must_use]
    pub fn from_stored(number: u8) -> Option<Self> {
        [Self::Open, Self::Closed, Self::Error, Self::Cancelled].into_iter().find(|status| *status as u8 == number)
    }

    /// Whether nothing changes any more.
    #[must_use]
    pub fn is_over(self) -> bool {
        self != Self::Open
    }
}

/// Who sees a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Visibility {
    /// Every member.
    #[default]
    Public = 0,
    /// The message's sender, and back ends that ask for it.
    Private = 1,
    /// As private: WuKongIM tells the two apart by the word only.
    Restricted = 2,
}

impl Visibility {
    /// The word of wires.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::Public => "public",
            Self::Private => "private",
            Self::Restricted => "restricted",
        }
    }

    /// Reads the word of wires.
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        [Self::Public, Self::Private, Self::Restricted].into_iter().find(|visibility| visibility.code() == code)
    }

    /// Reads the stored number.
    #[must_use]
    pub fn from_stored(number: u8) -> Option<Self> {
        [Self::Public, Self::Private, Self::Restricted].into_iter().find(|visibility| *visibility as u8 == number)
    }

    /// Whether every member sees it.
    #[must_use]
    pub fn is_public(self) -> bool {
        self == Self::Public
    }
}

/// What events of a lane came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Lane {
    /// Which of the message's lanes it is, from 0, in the order they were first stored.
    pub number: u8,
    /// Its name, at most [`EVENT_KEY_BYTES_MAX`].
    pub key: String,
    /// How it stands.
    pub status: LaneStatus,
    /// msg_event_seq of its last stored event; 0: none is stored.
    pub seq: u64,
    /// Its last event.
    pub event_id: String,
    /// The last event's type, in lower case.
    pub event_type: String,
    /// Who sees it.
    pub visibility: Visibility,
    /// When the last event happened, Unix milliseconds, as its sender says.
    pub occurred_at_ms: u64,
    /// Why it ended, as its sender numbers reasons.
    pub end_reason: u8,
    /// The error it ended with; empty: none was told.
    pub error: String,
    /// The merged content, as JSON; empty: there is none.
    pub snapshot: Bytes,
}

impl Lane {
    /// About the bytes it takes where it is kept or shown.
    #[must_use]
    pub fn bytes(&self) -> usize {
        64 + self.key.len() + self.event_id.len() + self.event_type.len() + self.error.len() + self.snapshot.len()
    }

    /// Whether `viewer` sees it, in a message of `from_uid`.
    #[must_use]
    pub fn is_shown_to(&self, from_uid: &Uid, viewer: &str) -> bool {
        self.visibility.is_public() || from_uid.as_str() == viewer
    }

    /// The text, or the bytes, of its content, for clients that know nothing of snapshots (`stream_data`).
    #[must_use]
    pub fn plain(&self) -> Vec<u8> {
        if let Ok(Value::Object(mut object)) = serde_json::from_slice(&self.snapshot) {
            let field = match object.get("kind").and_then(Value::as_str) {
                Some(KIND_TEXT) => "text",
                Some(KIND_BINARY) => "data",
                _ => "",
            };
            match object.remove(field) {
                Some(Value::String(text)) => return text.into_bytes(),
                _ if field == "text" => return Vec::new(),
                _ => {}
            }
        }
        self.snapshot.to_vec()
    }
}

/// What an event does to its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Adds to the content; not stored.
    Delta,
    /// Replaces the content.
    Snapshot,
    /// Ends the lane.
    End(LaneStatus),
    /// Ends the message's stream: every lane that is open.
    Finish,
    /// Is told and numbered, and changes no content: `stream.open` and words of the application's own.
    Told,
}

/// An event on its way to its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Its name: the same twice is the same event.
    pub id: String,
    /// Its type as given.
    pub given_type: String,
    /// Its type in lower case.
    pub event_type: String,
    /// Its lane.
    pub key: String,
    /// Who sees the lane from now on; `None`: as before.
    pub visibility: Option<Visibility>,
    /// When it happened, Unix milliseconds.
    pub occurred_at_ms: u64,
    /// What it says, as JSON; empty: nothing.
    pub payload: Bytes,
}

fn name(field: &'static str, text: &str, max: usize) -> Result<String, Refusal> {
    let text = text.trim();
    if text.len() > max {
        return Err(Refusal::TooLarge { field, bytes: text.len(), max });
    }
    if text.chars().any(char::is_control) {
        return Err(Refusal::invalid(field, "has a control character"));
    }
    Ok(text.to_owned())
}

impl NewEvent {
    /// Reads the words of a request. White space around them is left out, as WuKongIM does it.
    ///
    /// # Errors
    /// `Invalid`, `TooLarge` naming the field.
    pub fn new(
        (id, event_type, key): (&str, &str, &str),
        visibility: &str,
        occurred_at_ms: u64,
        payload: Bytes,
    ) -> Result<Self, Refusal> {
        let id = name("event_id", id, EVENT_ID_BYTES_MAX)?;
        let given_type = name("event_type", event_type, EVENT_TYPE_BYTES_MAX)?;
        let mut key = name("event_key", key, EVENT_KEY_BYTES_MAX)?;
        for (field, text) in [("event_id", &id), ("event_type", &given_type)] {
            if text.is_empty() {
                return Err(Refusal::invalid(field, "is needed"));
            }
        }
        let visibility = match visibility.trim() {
            "" => None,
            word => Some(
                Visibility::from_code(&word.to_ascii_lowercase())
                    .ok_or_else(|| Refusal::invalid("visibility", "is not public, private or restricted"))?,
            ),
        };
        let event_type = given_type.to_ascii_lowercase();
        let finishes = effect_of(&event_type) == Effect::Finish;
        if key == KEY_FINISH && !finishes {
            return Err(Refusal::invalid("event_key", "is that of stream.finish"));
        }
        if finishes {
            key = KEY_FINISH.to_owned();
        } else if key.is_empty() {
            key = KEY_DEFAULT.to_owned();
        }
        Ok(Self { id, given_type, event_type, key, visibility, occurred_at_ms, payload })
    }

    /// What it does.
    #[must_use]
    pub fn effect(&self) -> Effect {
        effect_of(&self.event_type)
    }
}

fn effect_of(event_type: &str) -> Effect {
    match event_type {
        "stream.delta" => Effect::Delta,
        "stream.snapshot" => Effect::Snapshot,
        "stream.close" => Effect::End(LaneStatus::Closed),
        "stream.error" => Effect::End(LaneStatus::Error),
        "stream.cancel" => Effect::End(LaneStatus::Cancelled),
        "stream.finish" => Effect::Finish,
        _ => Effect::Told,
    }
}

/// The content of a lane while it grows.
#[derive(Debug, Clone, PartialEq, Default)]
enum Content {
    #[default]
    None,
    /// A text, with what else the snapshot it goes on from had.
    Text { text: String, beside: Map<String, Value> },
    /// Anything else.
    Whole(Bytes),
}

impl Content {
    fn of(snapshot: &Bytes) -> Self {
        if snapshot.is_empty() {
            return Self::None;
        }
        match serde_json::from_slice(snapshot) {
            Ok(Value::Object(mut beside)) if beside.get("kind").and_then(Value::as_str) == Some(KIND_TEXT) => {
                match beside.remove("text") {
                    Some(Value::String(text)) => Self::Text { text, beside },
                    _ => Self::Whole(snapshot.clone()),
                }
            }
            _ => Self::Whole(snapshot.clone()),
        }
    }

    fn bytes(&self) -> usize {
        match self {
            Self::None => 0,
            // What stands beside a text came in one payload, and the text is nearly all of it.
            Self::Text { text, beside } => text.len() + 24 + beside.len() * 32,
            Self::Whole(bytes) => bytes.len(),
        }
    }

    fn snapshot(&self) -> Bytes {
        match self {
            Self::None => Bytes::new(),
            Self::Text { text, beside } => {
                let mut object = beside.clone();
                object.insert("kind".into(), KIND_TEXT.into());
                object.insert("text".into(), text.as_str().into());
                Value::Object(object).to_string().into()
            }
            Self::Whole(bytes) => bytes.clone(),
        }
    }

    /// Texts are joined; anything else replaces what is not a text.
    fn add(&mut self, payload: &Bytes) {
        if payload.is_empty() {
            return;
        }
        let delta = match serde_json::from_slice(payload) {
            Ok(Value::Object(mut object)) if object.get("kind").and_then(Value::as_str) == Some(KIND_TEXT) => {
                object.remove("delta")
            }
            _ => None,
        };
        match (delta, &mut *self) {
            (Some(Value::String(delta)), Self::Text { text, .. }) => text.push_str(&delta),
            (Some(Value::String(delta)), _) => *self = Self::Text { text: delta, beside: Map::new() },
            (_, Self::Text { .. }) => {}
            _ => *self = Self::Whole(payload.clone()),
        }
    }
}

/// What an ending event carries in its payload.
#[derive(Debug, Default)]
struct Ending {
    end_reason: u8,
    error: String,
    snapshot: Option<Bytes>,
}

impl Ending {
    fn of(payload: &[u8]) -> Self {
        let Ok(Value::Object(object)) = serde_json::from_slice(payload) else { return Self::default() };
        let end_reason = match object.get("end_reason") {
            Some(Value::Number(number)) => number.as_u64().and_then(|number| u8::try_from(number).ok()),
            Some(Value::String(text)) => text.parse().ok(),
            _ => None,
        };
        let error = match object.get("error") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
        };
        let snapshot = object.get("snapshot").filter(|snapshot| !snapshot.is_null());
        let snapshot = snapshot.map(|snapshot| snapshot.to_string().into());
        Self { end_reason: end_reason.unwrap_or_default(), error, snapshot }
    }
}

/// A lane while its message is streamed: what is stored of it, and what came since.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Growing {
    /// Its state but for the snapshot.
    state: Lane,
    content: Content,
    /// Deltas came since it was stored.
    ahead: bool,
}

impl Growing {
    /// A lane nothing was heard of.
    #[must_use]
    pub fn new(number: u8, key: &str) -> Self {
        let state = Lane { number, key: key.to_owned(), ..Lane::default() };
        Self { state, content: Content::None, ahead: false }
    }

    /// A lane as it was stored.
    #[must_use]
    pub fn resume(lane: &Lane) -> Self {
        let state = Lane { snapshot: Bytes::new(), ..lane.clone() };
        Self { state, content: Content::of(&lane.snapshot), ahead: false }
    }

    /// Everything but its content.
    #[must_use]
    pub fn state(&self) -> &Lane {
        &self.state
    }

    /// The lane as it is kept and shown.
    #[must_use]
    pub fn lane(&self) -> Lane {
        Lane { snapshot: self.content.snapshot(), ..self.state.clone() }
    }

    /// Whether deltas came since it was stored.
    #[must_use]
    pub fn is_ahead(&self) -> bool {
        self.ahead
    }

    /// As it is, stored under a number: for who must forget it.
    #[must_use]
    pub fn kept(&self, seq: u64) -> Self {
        Self { state: Lane { seq, ..self.state.clone() }, ahead: false, ..self.clone() }
    }

    /// About the bytes it takes, cheaply.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.state.bytes() + self.content.bytes()
    }

    /// Whether an event of this name was the last one.
    #[must_use]
    pub fn ended_with(&self, event_id: &str) -> bool {
        self.state.event_id == event_id
    }

    /// Merges an event. `seq`: the number it is stored under; `None`: it is a delta. One that is over stays as it is.
    pub fn take(&mut self, event: &NewEvent, seq: Option<u64>) {
        if self.state.status.is_over() {
            return;
        }
        match event.effect() {
            Effect::Delta => self.content.add(&event.payload),
            Effect::Snapshot => self.content = Content::of(&event.payload),
            Effect::End(status) => self.end(status, &event.payload),
            Effect::Finish => self.end(LaneStatus::Closed, &event.payload),
            Effect::Told => {}
        }
        self.note(event, seq);
    }

    /// Ends with its message: nothing the finishing event says is about this lane.
    pub fn finish(&mut self, event: &NewEvent, seq: u64) {
        if !self.state.status.is_over() {
            self.state.status = LaneStatus::Closed;
            self.note(&NewEvent { visibility: None, ..event.clone() }, Some(seq));
        }
    }

    /// A snapshot the event carries is the whole: what was heard before it may have gaps (a restart).
    fn end(&mut self, status: LaneStatus, payload: &[u8]) {
        let Ending { end_reason, error, snapshot } = Ending::of(payload);
        if let Some(snapshot) = snapshot {
            self.content = Content::Whole(snapshot);
        }
        self.state.status = status;
        self.state.end_reason = end_reason;
        if status == LaneStatus::Error {
            self.state.error = error;
        }
    }

    fn note(&mut self, event: &NewEvent, seq: Option<u64>) {
        self.state.event_id.clone_from(&event.id);
        self.state.event_type.clone_from(&event.event_type);
        self.state.occurred_at_ms = event.occurred_at_ms;
        self.state.visibility = event.visibility.unwrap_or(self.state.visibility);
        self.state.seq = seq.unwrap_or(self.state.seq);
        self.ahead = seq.is_none();
    }
}

#[cfg(test)]
mod tests;
