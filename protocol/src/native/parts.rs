//! Parts of frames: bytes, numbers, bounded lists, words. Each is a serde adapter used by field attributes.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serializer;
use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// `true`, for `skip_serializing_if` and defaults.
pub(super) fn yes() -> bool {
    true
}

/// Whether a value is its type's default, so that it can be left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Whether a flag that defaults to `true` is `true`.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes fields by reference")]
pub(super) fn is_true(value: &bool) -> bool {
    *value
}

/// Opaque bytes: MessagePack bin, JSON standard base64 with padding.
pub(super) mod bytes {
    use super::*;

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            // The library's `Display` goes through the formatting machinery and costs five times this.
            serializer.serialize_str(&STANDARD.encode(bytes))
        } else {
            serializer.serialize_bytes(bytes)
        }
    }

    struct BytesVisitor;

    impl<'de> Visitor<'de> for BytesVisitor {
        type Value = Cow<'de, [u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes (MessagePack bin)")
        }

        fn visit_borrowed_bytes<E: Error>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
            Ok(Cow::Borrowed(bytes))
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            Ok(Cow::Owned(bytes.to_vec()))
        }
    }

    struct Base64Visitor;

    impl<'de> Visitor<'de> for Base64Visitor {
        type Value = Cow<'de, [u8]>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes as a string of standard base64")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            STANDARD
                .decode(text)
                .map(Cow::Owned)
                .map_err(|error| E::custom(format_args!("not standard base64: {error}")))
        }
    }

    pub(in super::super) fn borrowed<'de: 'a, 'a, D>(deserializer: D) -> Result<Cow<'a, [u8]>, D::Error>
    where
        D: Deserializer<'de>,
    {
        if deserializer.is_human_readable() {
            deserializer.deserialize_str(Base64Visitor)
        } else {
            deserializer.deserialize_bytes(BytesVisitor)
        }
    }

    pub(in super::super) fn owned<'de, 'a, D>(deserializer: D) -> Result<Cow<'a, [u8]>, D::Error>
    where
        D: Deserializer<'de>,
    {
        borrowed(deserializer).map(|bytes| Cow::Owned(bytes.into_owned()))
    }
}

/// The whole number a float stands for. Some JavaScript encoders of MessagePack write every integer above 2^32 as a
/// float, so floats without a fraction are numbers here.
pub(super) fn integral(number: f64) -> Option<u64> {
    #[allow(clippy::cast_precision_loss, reason = "2^53 - 1 is exact")]
    let max = super::NUMBER_MAX as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "checked whole and in range")]
    (number.fract() == 0.0 && (0.0..=max).contains(&number)).then_some(number as u64)
}

/// Numbers of the wire: integers, or floats without a fraction.
pub(super) mod number {
    use super::*;

    struct NumberVisitor<T>(PhantomData<T>);

    impl<T: TryFrom<i128>> Visitor<'_> for NumberVisitor<T> {
        type Value = T;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a whole number within its range")
        }

        fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
            T::try_from(i128::from(number))
                .map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(number), &"a number within its range"))
        }

        fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
            T::try_from(i128::from(number))
                .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(number), &"a number within its range"))
        }

        fn visit_f64<E: Error>(self, number: f64) -> Result<T, E> {
            let whole = integral(number.abs()).map(i128::from);
            let signed = whole.map(|whole| if number < 0.0 { -whole } else { whole });
            signed.and_then(|signed| T::try_from(signed).ok()).ok_or_else(|| {
                E::invalid_value(serde::de::Unexpected::Float(number), &"a whole number within its range")
            })
        }
    }

    pub(in super::super) fn deserialize<'de, D, T>(deserializer: D) -> Result<T, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<i128>,
    {
        deserializer.deserialize_any(NumberVisitor(PhantomData))
    }

    pub(in super::super) fn option<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        D: Deserializer<'de>,
        T: TryFrom<i128>,
    {
        struct OptionVisitor<T>(PhantomData<T>);

        impl<'de, T: TryFrom<i128>> Visitor<'de> for OptionVisitor<T> {
            type Value = Option<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number within its range, or nothing")
            }

            fn visit_none<E: Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
                Ok(None)
            }

            fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
                deserialize(deserializer).map(Some)
            }
        }

        deserializer.deserialize_option(OptionVisitor(PhantomData))
    }

    /// For `client_seq`, which JSON has to give back without losing digits.
    pub(in super::super) fn safe<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let number: u64 = deserialize(deserializer)?;
        if number > super::super::NUMBER_MAX {
            return Err(D::Error::invalid_value(serde::de::Unexpected::Unsigned(number), &"a number below 2^53"));
        }
        Ok(number)
    }
}

/// Reads a list of at most `MAX` items; a longer one fails at item `MAX + 1`, and nothing is reserved for lengths the
/// bytes only claim.
pub(super) fn bounded<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    struct Bounded<T, const MAX: usize>(PhantomData<T>);

    impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Bounded<T, MAX> {
        type Value = Vec<T>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX} items")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
            let mut items = Vec::new();
            while let Some(item) = seq.next_element()? {
                if items.len() == MAX {
                    return Err(A::Error::invalid_length(MAX + 1, &self));
                }
                items.push(item);
            }
            Ok(items)
        }
    }

    deserializer.deserialize_seq(Bounded::<T, MAX>(PhantomData))
}

/// A closed set of words that may grow: a word this side does not know decodes to `Unknown`.
macro_rules! words {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $(#[$variant_meta:meta])* $variant:ident = $word:literal, )* }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name {
            $( $(#[$variant_meta])* $variant, )*
            /// A word this side does not know. Never sent.
            Unknown,
        }

        impl $name {
            /// The word of the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                    Self::Unknown => "unknown",
                }
            }

            /// Reads the word of the wire.
            #[must_use]
            pub fn from_wire(word: &str) -> Self {
                match word {
                    $( $word => Self::$variant, )*
                    _ => Self::Unknown,
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str($crate::native::parts::WordVisitor(Self::from_wire))
            }
        }
    };
}

pub(super) use words;

pub(super) struct WordVisitor<T>(pub(super) fn(&str) -> T);

impl<T> Visitor<'_> for WordVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        Ok((self.0)(word))
    }
}
