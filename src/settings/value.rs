//! What a value can be, as a configuration library passes it on.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Unexpected, Visitor};

/// A text, or an array of texts.
pub(super) enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// A text: numbers and `true` are texts, too.
pub(super) struct Text(pub(super) String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match OneOrMany::deserialize(deserializer)? {
            OneOrMany::One(text) => Ok(Self(text)),
            OneOrMany::Many(_) => Err(D::Error::invalid_type(Unexpected::Seq, &"a text")),
        }
    }
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrManyVisitor)
    }
}

struct OneOrManyVisitor;

impl<'de> Visitor<'de> for OneOrManyVisitor {
    type Value = OneOrMany;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(text.to_owned()))
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(value.to_string()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(value.to_string()))
    }

    fn visit_i128<E: Error>(self, value: i128) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(value.to_string()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(value.to_string()))
    }

    fn visit_u128<E: Error>(self, value: u128) -> Result<OneOrMany, E> {
        Ok(OneOrMany::One(value.to_string()))
    }

    /// `1.10` has become 1.1, so that what was written is unknown. The number may be a secret.
    fn visit_f64<E: Error>(self, _value: f64) -> Result<OneOrMany, E> {
        Err(E::custom(
            "must be a text or a whole number: put a text that looks like a number in quotes",
        ))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<OneOrMany, A::Error> {
        let mut texts = Vec::new();
        while let Some(Text(text)) = elements.next_element()? {
            texts.push(text);
        }
        Ok(OneOrMany::Many(texts))
    }
}
