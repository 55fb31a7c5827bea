//! Maps of one key, `{"kind": {…}}`: the shape of frames and events, with unknown kinds told apart from malformed bytes.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// What a map of one key turned out to be.
pub(super) enum Tagged<T> {
    Known(T),
    Unknown { kind: String, client_seq: Option<u64> },
}

/// Longest unknown kind that is told back.
const KIND_BYTES_MAX: usize = 64;

/// Reads the key: one of the known kinds without allocating, else its text.
pub(super) struct KindSeed(pub(super) &'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KindSeed {
    type Value = Result<&'static str, String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KindSeed {
    type Value = Result<&'static str, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the kind of a frame as a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        match self.0.iter().find(|kind| **kind == text) {
            Some(kind) => Ok(Ok(kind)),
            None => Ok(Err(text[..text.floor_char_boundary(KIND_BYTES_MAX)].to_owned())),
        }
    }
}

/// Accepts a map only: a positional array would make the order of our fields part of the wire.
pub(super) struct MapOnly<T>(PhantomData<T>);

impl<T> MapOnly<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for MapOnly<T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for MapOnly<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map of named fields")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

/// Whatever lies under an unknown kind; keeps its `client_seq`.
pub(super) struct Peek(pub(super) Option<u64>);

impl<'de> Deserialize<'de> for Peek {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PeekVisitor)
    }
}

struct PeekVisitor;

impl<'de> Visitor<'de> for PeekVisitor {
    type Value = Peek;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Peek, A::Error> {
        let mut found = None;
        while let Some(key) = map.next_key_seed(KindSeed(&["client_seq"]))? {
            if key.is_ok() {
                found = map.next_value::<Peek>()?.0;
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(Peek(found))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Peek, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Peek(None))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Peek, E> {
        Ok(Peek((number <= super::NUMBER_MAX).then_some(number)))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Peek, E> {
        Ok(Peek(None))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Peek, E> {
        Ok(Peek(super::parts::integral(number)))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Peek, E> {
        Ok(Peek(None))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Peek, E> {
        Ok(Peek(None))
    }

    fn visit_bytes<E: Error>(self, _: &[u8]) -> Result<Peek, E> {
        Ok(Peek(None))
    }

    fn visit_unit<E: Error>(self) -> Result<Peek, E> {
        Ok(Peek(None))
    }

    fn visit_none<E: Error>(self) -> Result<Peek, E> {
        Ok(Peek(None))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Peek, D::Error> {
        Peek::deserialize(deserializer)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Peek, D::Error> {
        // MessagePack extension types arrive here.
        IgnoredAny::deserialize(deserializer).map(|_| Peek(None))
    }
}

/// An enum of frames: one variant per kind, encoded as a map of one key, decoded as [`Tagged`].
macro_rules! tagged {
    (
        [$de:lifetime $(: $outlives:lifetime)?]
        $(#[$meta:meta])*
        pub enum $name:ident<$lt:lifetime> {
            $( $(#[$variant_meta:meta])* $variant:ident($body:ty) = $kind:literal, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize)]
        pub enum $name<$lt> {
            $( $(#[$variant_meta])* #[serde(rename = $kind)] $variant($body), )*
        }

        impl $name<'_> {
            /// Every kind this side knows, as the wire spells it.
            pub const KINDS: &'static [&'static str] = &[$($kind),*];

            /// The kind, as the wire spells it.
            #[must_use]
            pub fn kind(&self) -> &'static str {
                match self {
                    $( Self::$variant(_) => $kind, )*
                }
            }
        }

        impl<$de $(: $outlives)?, $lt> serde::Deserialize<$de> for $crate::native::tagged::Tagged<$name<$lt>> {
            fn deserialize<D: serde::Deserializer<$de>>(deserializer: D) -> Result<Self, D::Error> {
                struct OneKey<$lt>(std::marker::PhantomData<&$lt ()>);

                impl<$de $(: $outlives)?, $lt> serde::de::Visitor<$de> for OneKey<$lt> {
                    type Value = $crate::native::tagged::Tagged<$name<$lt>>;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("a map of one key, the kind")
                    }

                    fn visit_map<A: serde::de::MapAccess<$de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                        use serde::de::Error;
                        use $crate::native::tagged::{KindSeed, MapOnly, Peek, Tagged};
                        let value = match map.next_key_seed(KindSeed($name::KINDS))? {
                            None => return Err(A::Error::custom("an empty map, expected one key, the kind")),
                            $( Some(Ok($kind)) => {
                                Tagged::Known($name::$variant(map.next_value_seed(MapOnly::<$body>::new())?))
                            } )*
                            Some(Ok(kind)) => Tagged::Unknown { kind: kind.to_owned(), client_seq: None },
                            Some(Err(kind)) => Tagged::Unknown { kind, client_seq: map.next_value::<Peek>()?.0 },
                        };
                        match map.next_key::<serde::de::IgnoredAny>()? {
                            None => Ok(value),
                            Some(_) => Err(A::Error::custom("more than one key in a frame")),
                        }
                    }
                }

                deserializer.deserialize_map(OneKey(std::marker::PhantomData))
            }
        }
    };
}

pub(super) use tagged;
