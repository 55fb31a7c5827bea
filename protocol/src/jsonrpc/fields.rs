//! Fields of parameters and results in either spelling, and the values they hold.

use std::borrow::Cow;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, Visitor};
use serde_json::value::RawValue;

/// A string, borrowed when nothing in it is escaped.
#[derive(Debug, Default)]
pub(super) struct Text<'a>(pub Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

/// A message_id: decimal text, as it is 64 bits wide; a plain number is taken too.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageId(pub i64);

impl<'de> Deserialize<'de> for MessageId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = MessageId;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a message id as decimal text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<MessageId, E> {
                text.parse().map(MessageId).map_err(|_| E::custom("not the decimal text of a 64-bit number"))
            }

            fn visit_i64<E: Error>(self, number: i64) -> Result<MessageId, E> {
                Ok(MessageId(number))
            }

            fn visit_u64<E: Error>(self, number: u64) -> Result<MessageId, E> {
                i64::try_from(number).map(MessageId).map_err(|_| E::custom("more than 63 bits"))
            }
        }

        deserializer.deserialize_any(IdVisitor)
    }
}

/// Declares an object whose fields are read in either spelling, the first one first; `null` is as good as absent.
macro_rules! either_spelling {
    ($name:ident { $($field:ident: $type:ty = $camel:literal $(| $snake:literal)*,)* }) => {
        #[derive(Debug, Default)]
        pub(super) struct $name<'a> {
            $(pub $field: Option<$type>,)*
            marker: std::marker::PhantomData<&'a ()>,
        }

        impl<'de: 'a, 'a> serde::Deserialize<'de> for $name<'a> {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields<'a>(std::marker::PhantomData<&'a ()>);

                impl<'de: 'a, 'a> serde::de::Visitor<'de> for Fields<'a> {
                    type Value = $name<'a>;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str("an object")
                    }

                    fn visit_map<M: serde::de::MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                        use serde::de::Error as _;

                        $(let mut $field: (Option<$type>, bool) = (None, false);)*
                        while let Some(key) = map.next_key::<$crate::jsonrpc::fields::Text<'_>>()? {
                            match &*key.0 {
                                $($camel => {
                                    let value = map.next_value::<Option<$type>>();
                                    let value = value.map_err(|e| M::Error::custom(format_args!("{}: {e}", $camel)))?;
                                    if value.is_some() {
                                        $field = (value, true);
                                    }
                                })*
                                $($($snake => {
                                    let value = map.next_value::<Option<$type>>();
                                    let value = value.map_err(|e| M::Error::custom(format_args!("{}: {e}", $snake)))?;
                                    if value.is_some() && !$field.1 {
                                        $field.0 = value;
                                    }
                                })*)*
                                _ => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                }
                            }
                        }
                        Ok($name { $($field: $field.0,)* marker: std::marker::PhantomData })
                    }
                }

                deserializer.deserialize_map(Fields(std::marker::PhantomData))
            }
        }
    };
}
pub(super) use either_spelling;

/// Whether bytes are one JSON value. Neither recurses nor builds it.
pub(super) fn is_json(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(|text| serde_json::from_str::<IgnoredAny>(text).is_ok())
}

/// What a payload says (wukongim-wire.md 11): a string that is JSON text is that text, another string is base64, any other
/// value is its own text.
pub(super) fn payload(raw: &RawValue) -> Result<Cow<'_, [u8]>, String> {
    let text = raw.get();
    if !text.starts_with('"') {
        return Ok(Cow::Borrowed(text.as_bytes()));
    }
    let Text(text) = serde_json::from_str(text).map_err(|error| format!("payload: {error}"))?;
    if is_json(text.as_bytes()) {
        return Ok(match text {
            Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
            Cow::Owned(text) => Cow::Owned(text.into_bytes()),
        });
    }
    STANDARD
        .decode(text.as_bytes())
        .map(Cow::Owned)
        .map_err(|error| format!("payload: neither JSON text nor standard base64: {error}"))
}
