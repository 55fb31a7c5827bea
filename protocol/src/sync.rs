//! The cursors of `conversation/sync`: what the client has of each channel, as text or as an array.
//!
//! Text: `channel_id:channel_type:last_msg_seq`, joined by `|` (conversation.txt). Channel ids may hold both separators
//! (`visitor|customer`), so the text alone does not always tell where an entry ends: an entry is split at its last two colons,
//! a piece without two is joined to the next, and where a longer join names a channel the user has, the join wins
//! (design.md section 5). Who has which channel is not known here; [`CursorText::resolve`] asks.
//!
//! Invariant: nothing is skipped silently. What does not parse is listed in [`CursorError`].

use std::fmt;

use serde::de::{self, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::ids::CHANNEL_ID_BYTES_MAX;

/// How many malformed parts an error lists; the rest is counted.
const LISTED_MAX: usize = 20;
/// How many bytes of a malformed part an error repeats.
const LISTED_BYTES_MAX: usize = 300;
/// How many longer joins are asked about in one text where the short reading names a channel the user has. Beyond it the
/// short reading stands: both readings name channels then, and a look-up each would make long texts dear.
const JOINS_OVER_KNOWN_MAX: usize = 1_024;
/// How many longer joins are asked about in one text where the short reading names nothing the user has.
const JOINS_OVER_UNKNOWN_MAX: usize = 4_096;

/// What a client has of one channel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// As the client knows it: the peer's uid for a person channel.
    pub channel_id: String,
    /// The number of the wire; one the server does not know is ignored, not refused.
    pub channel_type: u8,
    /// The last seq the client has; 0: none.
    pub last_msg_seq: u64,
}

/// The field `last_msg_seqs`: the document's text, or an array of [`Cursor`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursors {
    /// `id:type:seq|id:type:seq`.
    Text(String),
    /// `[{channel_id, channel_type, last_msg_seq}]`.
    List(Vec<Cursor>),
}

impl Cursors {
    /// Whether no cursor is given at all: the same as leaving the field out.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::Text(text) => text.is_empty(),
            Self::List(list) => list.is_empty(),
        }
    }
}

impl<'de> Deserialize<'de> for Cursors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Cursors;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text of channel_id:channel_type:last_msg_seq joined by |, or an array of such objects")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Cursors, E> {
                Ok(Cursors::Text(text.to_owned()))
            }

            fn visit_string<E: de::Error>(self, text: String) -> Result<Cursors, E> {
                Ok(Cursors::Text(text))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Cursors, A::Error> {
                let mut list = Vec::new();
                while let Some(cursor) = seq.next_element()? {
                    list.push(cursor);
                }
                Ok(Cursors::List(list))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Cursors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(list) => list.serialize(serializer),
        }
    }
}

/// One reading of a part of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CursorRef<'a> {
    /// As the client knows it.
    pub channel_id: &'a str,
    /// The number of the wire, 1 to 255.
    pub channel_type: u8,
    /// The last seq the client has.
    pub last_msg_seq: u64,
}

impl Cursor {
    /// The same, borrowed.
    #[must_use]
    pub fn as_ref(&self) -> CursorRef<'_> {
        CursorRef { channel_id: &self.channel_id, channel_type: self.channel_type, last_msg_seq: self.last_msg_seq }
    }
}

/// The parts of `last_msg_seqs` that do not parse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CursorError {
    /// The first malformed parts, each cut to a readable length.
    pub parts: Vec<String>,
    /// How many there are in all.
    pub count: usize,
}

impl fmt::Display for CursorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "has {} malformed of channel_id:channel_type:last_msg_seq:", self.count)?;
        for (place, part) in self.parts.iter().enumerate() {
            write!(f, "{} {part:?}", if place == 0 { "" } else { "," })?;
        }
        if self.count > self.parts.len() {
            f.write_str(", …")?;
        }
        Ok(())
    }
}

impl std::error::Error for CursorError {}

impl CursorError {
    fn none() -> Self {
        Self { parts: Vec::new(), count: 0 }
    }

    fn add(&mut self, part: &str) {
        self.count += 1;
        if self.parts.len() < LISTED_MAX {
            let mut end = part.len().min(LISTED_BYTES_MAX);
            while !part.is_char_boundary(end) {
                end -= 1;
            }
            self.parts.push(part[..end].to_owned());
        }
    }
}

/// The text cut at its bars, each piece looked at once.
#[derive(Debug, Clone)]
pub struct CursorText<'a> {
    text: &'a str,
    pieces: Vec<Piece>,
    /// For each piece the first one at or after it that is not open.
    closing: Vec<Option<usize>>,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    /// Where it begins in the text.
    start: usize,
    /// Where it ends.
    end: usize,
    ending: Ending,
}

/// What a piece's last two colons say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It has fewer than two: the entry goes on in the next piece.
    Open,
    /// An entry may end here; its channel_id ends at this offset of the text.
    Entry { id_end: usize, channel_type: u8, last_msg_seq: u64 },
    /// Two colons, but not with a channel type and a seq behind them.
    Malformed,
}

/// Digits only: `parse` alone would take a plus sign.
fn number<T: std::str::FromStr>(digits: &str) -> Option<T> {
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

fn ending(piece: &str, start: usize) -> Ending {
    let Some((rest, seq)) = piece.rsplit_once(':') else { return Ending::Open };
    let Some((id, channel_type)) = rest.rsplit_once(':') else { return Ending::Open };
    match (number::<u8>(channel_type), number::<u64>(seq)) {
        (Some(channel_type @ 1..), Some(last_msg_seq)) => {
            Ending::Entry { id_end: start + id.len(), channel_type, last_msg_seq }
        }
        _ => Ending::Malformed,
    }
}

/// Why a text could not be resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResolveError<E> {
    /// Parts of it do not parse.
    Malformed(CursorError),
    /// The caller's question failed.
    Asked(E),
}

impl<'a> CursorText<'a> {
    /// Cuts the text. Linear; nothing is refused yet, because a piece that makes no sense alone may in a join.
    #[must_use]
    pub fn new(text: &'a str) -> Self {
        let mut pieces = Vec::new();
        let mut start = 0;
        for piece in text.split('|') {
            let end = start + piece.len();
            pieces.push(Piece { start, end, ending: ending(piece, start) });
            start = end + 1;
        }
        let mut closing = vec![None; pieces.len()];
        let mut next = None;
        for (place, piece) in pieces.iter().enumerate().rev() {
            if piece.ending != Ending::Open {
                next = Some(place);
            }
            closing[place] = next;
        }
        Self { text, pieces, closing }
    }

    /// The entry made of the pieces `first` to `last`, when one can end there.
    fn reading(&self, first: usize, last: usize) -> Option<CursorRef<'a>> {
        match self.pieces[last].ending {
            Ending::Entry { id_end, channel_type, last_msg_seq } => {
                let channel_id = &self.text[self.pieces[first].start..id_end];
                Some(CursorRef { channel_id, channel_type, last_msg_seq })
            }
            Ending::Open | Ending::Malformed => None,
        }
    }

    /// Decides every entry, from the left. `has` answers whether a reading names a channel the user has; it is asked only
    /// where the text has more than one reading. Empty pieces (a bar too many) are passed over unless a join with them
    /// names such a channel. One channel may come more than once: the caller takes the largest seq.
    ///
    /// # Errors
    /// The malformed parts, or the first error of `has`.
    pub fn resolve<E>(
        &self,
        mut has: impl FnMut(&CursorRef<'a>) -> Result<bool, E>,
    ) -> Result<Vec<CursorRef<'a>>, ResolveError<E>> {
        let mut entries = Vec::new();
        let mut malformed = CursorError::none();
        let (mut over_known, mut over_unknown) = (JOINS_OVER_KNOWN_MAX, JOINS_OVER_UNKNOWN_MAX);
        let mut first = 0;
        while first < self.pieces.len() {
            let start = self.pieces[first].start;
            let is_empty = self.pieces[first].end == start;
            let Some(short_last) = self.closing[first] else {
                let rest = &self.text[start..];
                if rest.bytes().any(|b| b != b'|') {
                    malformed.add(rest);
                }
                break;
            };
            let short = self.reading(first, short_last).filter(|entry| !entry.channel_id.is_empty());
            let longer: Vec<usize> = (short_last + 1..self.pieces.len())
                .take_while(|i| self.pieces[*i].start - start <= CHANNEL_ID_BYTES_MAX)
                .filter(|i| self.pieces[*i].ending != Ending::Open)
                .collect();
            let mut taken = None;
            if !longer.is_empty() {
                let short_known = match &short {
                    Some(entry) => has(entry).map_err(ResolveError::Asked)?,
                    None => false,
                };
                let budget = if short_known { &mut over_known } else { &mut over_unknown };
                for last in longer.into_iter().rev() {
                    let Some(entry) = self.reading(first, last) else { continue };
                    if entry.channel_id.len() > CHANNEL_ID_BYTES_MAX || *budget == 0 {
                        continue;
                    }
                    *budget -= 1;
                    if has(&entry).map_err(ResolveError::Asked)? {
                        taken = Some((entry, last));
                        break;
                    }
                }
            }
            if taken.is_none() && is_empty {
                let named = match &short {
                    Some(entry) if entry.channel_id.len() <= CHANNEL_ID_BYTES_MAX && over_unknown > 0 => {
                        over_unknown -= 1;
                        has(entry).map_err(ResolveError::Asked)?
                    }
                    _ => false,
                };
                if !named {
                    first += 1;
                    continue;
                }
            }
            match taken.or(short.map(|entry| (entry, short_last))) {
                Some((entry, last)) => {
                    entries.push(entry);
                    first = last + 1;
                }
                None => {
                    malformed.add(&self.text[start..self.pieces[short_last].end]);
                    first = short_last + 1;
                }
            }
        }
        if malformed.count > 0 { Err(ResolveError::Malformed(malformed)) } else { Ok(entries) }
    }
}

/// Checks the array form as strictly as the text.
///
/// # Errors
/// Lists entries without a channel_id or with channel_type 0.
pub fn check_list(list: &[Cursor]) -> Result<(), CursorError> {
    let mut malformed = CursorError::none();
    for cursor in list.iter().filter(|cursor| cursor.channel_id.is_empty() || cursor.channel_type == 0) {
        malformed.add(&format!("{}:{}:{}", cursor.channel_id, cursor.channel_type, cursor.last_msg_seq));
    }
    if malformed.count > 0 { Err(malformed) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    type Entry = (&'static str, u8, u64);

    fn resolve(text: &str, known: &[(&str, u8)]) -> Result<Vec<(String, u8, u64)>, Vec<String>> {
        let has = |entry: &CursorRef<'_>| Ok::<_, Infallible>(known.contains(&(entry.channel_id, entry.channel_type)));
        match CursorText::new(text).resolve(has) {
            Ok(list) => Ok(list.iter().map(|c| (c.channel_id.to_owned(), c.channel_type, c.last_msg_seq)).collect()),
            Err(ResolveError::Malformed(error)) => Err(error.parts),
            Err(ResolveError::Asked(never)) => match never {},
        }
    }

    fn check(text: &str, known: &[(&str, u8)], expected: Result<&[Entry], &[&str]>) {
        let expected = match expected {
            Ok(list) => Ok(list.iter().map(|(id, ty, seq)| ((*id).to_owned(), *ty, *seq)).collect::<Vec<_>>()),
            Err(parts) => Err(parts.iter().map(|part| (*part).to_owned()).collect::<Vec<_>>()),
        };
        assert_eq!(resolve(text, known), expected, "{text:?} known {known:?}");
    }

    #[test]
    fn texts_as_the_document_writes_them() {
        check("", &[], Ok(&[]));
        check("xxx:2:123|xxx:1:3434", &[], Ok(&[("xxx", 2, 123), ("xxx", 1, 3434)]));
        check("a:1:0", &[], Ok(&[("a", 1, 0)]));
        check("a:2:1|a:2:7", &[], Ok(&[("a", 2, 1), ("a", 2, 7)]));
        check("a:9:18446744073709551615", &[], Ok(&[("a", 9, u64::MAX)]));
    }

    #[test]
    fn ids_with_separators() {
        check("visitor|customer:3:5", &[], Ok(&[("visitor|customer", 3, 5)]));
        check("a:2:1|visitor|customer:3:5|b:1:2", &[], Ok(&[("a", 2, 1), ("visitor|customer", 3, 5), ("b", 1, 2)]));
        check("urn:room:7:2:9", &[], Ok(&[("urn:room:7", 2, 9)]));
        check("x:y|z:2:9", &[], Ok(&[("x:y|z", 2, 9)]));
    }

    #[test]
    fn a_longer_join_wins_where_the_user_has_that_channel() {
        check("a:2:1|b:3:5", &[], Ok(&[("a", 2, 1), ("b", 3, 5)]));
        check("a:2:1|b:3:5", &[("a:2:1|b", 3)], Ok(&[("a:2:1|b", 3, 5)]));
        check("a:2:1|b:3:5", &[("a:2:1|b", 3), ("a", 2), ("b", 3)], Ok(&[("a:2:1|b", 3, 5)]));
        check("a:2:1|b:3:5", &[("a:2:1|b", 2)], Ok(&[("a", 2, 1), ("b", 3, 5)]));
        check("a:2:1|b:3:5|c:1:1", &[("a:2:1|b", 3), ("b:3:5|c", 1)], Ok(&[("a:2:1|b", 3, 5), ("c", 1, 1)]));
        check("a:2:1|b:3:5|c:1:1", &[("a:2:1|b", 3), ("a:2:1|b:3:5|c", 1)], Ok(&[("a:2:1|b:3:5|c", 1, 1)]));
        check("x:y:z|b:3:5", &[("x:y:z|b", 3)], Ok(&[("x:y:z|b", 3, 5)]));
        check(":2:1|b:3:5", &[(":2:1|b", 3)], Ok(&[(":2:1|b", 3, 5)]));
    }

    #[test]
    fn what_does_not_parse_is_listed() {
        check("abc", &[], Err(&["abc"]));
        check("a:2", &[], Err(&["a:2"]));
        check("a:x:3|b:2:5|c:2:y|d", &[], Err(&["a:x:3", "c:2:y", "d"]));
        check("a:2:-1", &[], Err(&["a:2:-1"]));
        check("a:2:+1", &[], Err(&["a:2:+1"]));
        check("a:2:", &[], Err(&["a:2:"]));
        check("a::1", &[], Err(&["a::1"]));
        check("a:0:1", &[], Err(&["a:0:1"]));
        check("a:256:1", &[], Err(&["a:256:1"]));
        check("a:2:18446744073709551616", &[], Err(&["a:2:18446744073709551616"]));
        check(":2:1", &[], Err(&[":2:1"]));
        check("a:2:1|tail", &[], Err(&["tail"]));
    }

    #[test]
    fn a_bar_too_many_is_passed_over() {
        check("a:2:1|", &[], Ok(&[("a", 2, 1)]));
        check("|a:2:1", &[], Ok(&[("a", 2, 1)]));
        check("a:2:1||b:2:3", &[], Ok(&[("a", 2, 1), ("b", 2, 3)]));
        check("a:2:1||b:2:3", &[("|b", 2)], Ok(&[("a", 2, 1), ("|b", 2, 3)]));
        check("|||", &[], Ok(&[]));
    }

    #[test]
    fn errors_stay_short() {
        let text = vec![format!("{}:x:y", "é".repeat(400)); 50].join("|");
        let error = CursorText::new(&text).resolve(|_| Ok::<_, ()>(false)).expect_err("malformed");
        let ResolveError::Malformed(error) = error else { panic!("nothing was asked that failed") };
        assert_eq!((error.count, error.parts.len()), (50, LISTED_MAX));
        assert!(error.to_string().len() < 20_000);
        let two = CursorError { parts: vec!["a".into(), "b".into()], count: 2 };
        assert_eq!(two.to_string(), "has 2 malformed of channel_id:channel_type:last_msg_seq: \"a\", \"b\"");
    }

    #[test]
    fn both_forms_come_from_json() {
        let text: Cursors = serde_json::from_str("\"a:2:1\"").expect("text");
        assert_eq!(text, Cursors::Text("a:2:1".into()));
        let json = r#"[{"channel_id":"a|b:1:2","channel_type":3,"last_msg_seq":7}]"#;
        let list: Cursors = serde_json::from_str(json).expect("array");
        let cursor = Cursor { channel_id: "a|b:1:2".into(), channel_type: 3, last_msg_seq: 7 };
        assert_eq!(list, Cursors::List(vec![cursor.clone()]));
        assert_eq!(serde_json::to_string(&list).expect("json"), json);
        let packed = rmp_serde::to_vec_named(&list).expect("packs");
        assert_eq!(rmp_serde::from_slice::<Cursors>(&packed).expect("unpacks"), list);
        let error = serde_json::from_str::<Cursors>("7").expect_err("neither");
        assert!(error.to_string().contains("joined by |"), "{error}");
        assert_eq!(check_list(std::slice::from_ref(&cursor)), Ok(()));
        let nameless = Cursor { channel_id: String::new(), ..cursor };
        assert_eq!(check_list(&[nameless]).expect_err("nameless").parts, [":3:7"]);
    }

    #[test]
    fn many_ambiguous_entries_ask_a_bounded_number_of_times() {
        let text = vec!["a:2:1"; 50_000].join("|");
        let mut asked = 0;
        let entries = CursorText::new(&text).resolve(|_| {
            asked += 1;
            Ok::<_, Infallible>(false)
        });
        assert_eq!(entries.expect("parses").len(), 50_000);
        assert!(asked <= 50_000 + JOINS_OVER_KNOWN_MAX + JOINS_OVER_UNKNOWN_MAX, "{asked}");
        let bars = format!("{}a:2:1", "|".repeat(500_000));
        let entries = CursorText::new(&bars).resolve(|_| Ok::<_, Infallible>(false)).expect("parses");
        assert_eq!(entries.len(), 1, "and in linear time");
    }

    proptest! {
        #[test]
        fn what_the_user_has_is_found_again(
            entries in prop::collection::vec(("[ab:|12]{1,6}", 1_u8..4, 0_u64..30), 1..6),
        ) {
            // With every listed channel known and only those, the text means them or a join that is one of them: whatever
            // is returned spells the text again, bar for bar.
            let text = entries.iter().map(|(id, ty, seq)| format!("{id}:{ty}:{seq}")).collect::<Vec<_>>().join("|");
            let has = |entry: &CursorRef<'_>| {
                Ok::<_, Infallible>(entries.iter().any(|(id, ty, _)| id == entry.channel_id && *ty == entry.channel_type))
            };
            if let Ok(found) = CursorText::new(&text).resolve(has) {
                let spelled: Vec<_> =
                    found.iter().map(|c| format!("{}:{}:{}", c.channel_id, c.channel_type, c.last_msg_seq)).collect();
                let bare = |text: &str| text.split('|').filter(|p| !p.is_empty()).collect::<Vec<_>>().join("|");
                prop_assert_eq!(bare(&spelled.join("|")), bare(&text));
            }
        }

        #[test]
        fn any_text_is_answered(text in ".{0,200}") {
            let _ = CursorText::new(&text).resolve(|c| Ok::<_, Infallible>(c.channel_id.len() % 2 == 0));
        }

        #[test]
        fn any_text_of_separators_is_answered(text in "[a:|0-9]{0,60}") {
            let _ = CursorText::new(&text).resolve(|c| Ok::<_, Infallible>(c.channel_id.len() % 2 == 0));
        }
    }
}
