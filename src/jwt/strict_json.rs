//! Strict JSON objects: unique names, limited depth and size.
//!
//! RFC 7515 §4 and RFC 7519 §4 let a parser reject duplicate names or use the last. Two parsers
//! that differ in this see different tokens, so duplicates are rejected.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::error::TokenError;

/// The deepest nesting of objects and arrays.
const MAX_DEPTH: u32 = 32;

/// The number of names that are stored on the stack.
const NAMES_ON_STACK: usize = 256;

/// The name under which serde_json passes numbers with its feature `arbitrary_precision`.
const SERDE_NUMBER: &str = "$serde_json::private::Number";

/// Limits on the members and elements of a document. They bound the work for a token whose
/// signature is not verified yet, and grow with the longest accepted token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeLimits {
    /// Members and elements of all objects and arrays below the outermost object.
    elements: u32,
    /// Members of one object, plus those of the enclosing objects so far.
    names: usize,
    /// Strings in one array claim: `aud`, `scope`, `scp` or `amr`.
    strings: u32,
}

impl SizeLimits {
    /// For tokens of up to 16 KiB.
    pub(crate) const DEFAULT: Self = Self {
        elements: 2048,
        names: 256,
        strings: 1024,
    };

    /// For tokens of up to `bytes`.
    pub(crate) fn for_max_token_len(bytes: usize) -> Self {
        let Self {
            elements,
            names,
            strings,
        } = Self::DEFAULT;
        let one_per = |size: usize| u32::try_from(bytes / size).unwrap_or(u32::MAX);
        Self {
            elements: elements.max(one_per(8)),
            names: names.max(bytes / 64),
            strings: strings.max(one_per(16)),
        }
    }
}

/// The state of parsing one document. It is on the stack, so that a rejected document costs no
/// allocation.
#[derive(Debug)]
pub(crate) struct ParseState<'de> {
    text: &'de str,
    limits: SizeLimits,
    /// Members and elements below the outermost object so far.
    elements: Cell<u32>,
    /// The names of the objects being parsed, those of the innermost object last.
    names: RefCell<SmallVec<[Cow<'de, str>; NAMES_ON_STACK]>>,
    /// The reason for a parser error that was raised here.
    error: Cell<Option<TokenError>>,
}

impl<'de> ParseState<'de> {
    pub(crate) fn new(text: &'de str, limits: SizeLimits) -> Self {
        let (elements, names, error) = (Cell::default(), RefCell::default(), Cell::default());
        Self {
            text,
            limits,
            elements,
            names,
            error,
        }
    }

    pub(super) fn text(&self) -> &'de str {
        self.text
    }

    /// The number of strings that an array claim may have.
    pub(super) fn max_strings(&self) -> u32 {
        self.limits.strings
    }

    /// The reason for a parser error, or `fallback` if it was raised by the parser itself.
    pub(super) fn error_or(&self, fallback: TokenError) -> TokenError {
        self.error.get().unwrap_or(fallback)
    }

    /// The error for more members, elements or strings than the limits allow.
    pub(super) fn too_many<E: Error>(&self) -> E {
        self.error.set(Some(TokenError::TooManyMembers));
        E::custom("too many members")
    }

    /// Whether this borrowed name is serde_json's for a number, not a name in the document. A name
    /// in the document lies within its text.
    fn is_serde_number(&self, name: &'de str) -> bool {
        name == SERDE_NUMBER && !self.text.as_bytes().as_ptr_range().contains(&name.as_ptr())
    }

    /// Accepts the same numbers as serde_json without `arbitrary_precision`.
    fn check_serde_number<E: Error>(&self, number: &str) -> Result<(), E> {
        if number.parse().is_ok_and(f64::is_finite) {
            return Ok(());
        }
        self.error.set(Some(TokenError::Malformed));
        Err(E::custom("number out of range"))
    }
}

/// A string, usually a member name. It is borrowed unless it has escapes.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct StrKey<'de>(pub(crate) Cow<'de, str>);

impl<'de> Deserialize<'de> for StrKey<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct StrKeyVisitor;

        impl<'de> Visitor<'de> for StrKeyVisitor {
            type Value = StrKey<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(StrKey(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(StrKey(Cow::Owned(name.to_owned())))
            }
        }

        deserializer.deserialize_str(StrKeyVisitor)
    }
}

/// Detects duplicate names in one object.
///
/// Each name sets one of 256 bits, chosen by its length and three of its bytes. Names are compared
/// only if a bit was set twice, which is rare.
#[derive(Debug)]
pub(crate) struct UniqueKeys<'d, 'de> {
    state: &'d ParseState<'de>,
    /// Index of the object's first name in `ParseState::names`.
    start: usize,
    bitmap: [u64; 4],
    maybe_duplicate: bool,
}

impl<'d, 'de> UniqueKeys<'d, 'de> {
    pub(crate) fn new(state: &'d ParseState<'de>) -> Self {
        let start = state.names.borrow().len();
        Self {
            state,
            start,
            bitmap: [0; 4],
            maybe_duplicate: false,
        }
    }

    /// Adds a name. Fails if there are too many.
    pub(crate) fn insert<E: Error>(&mut self, name: Cow<'de, str>) -> Result<(), E> {
        let mut names = self.state.names.borrow_mut();
        if names.len() >= self.state.limits.names {
            return Err(self.state.too_many());
        }
        // serde_json interprets such a name when the value is deserialized later.
        if name.starts_with("$serde_json::private::") {
            return Err(E::custom("reserved member name"));
        }
        let (word, bit) = Self::fingerprint(name.as_bytes());
        if let Some(word) = self.bitmap.get_mut(word) {
            self.maybe_duplicate |= *word & bit != 0;
            *word |= bit;
        }
        names.push(name);
        Ok(())
    }

    /// The word and the bit of a name in `bitmap`.
    fn fingerprint(name: &[u8]) -> (usize, u64) {
        let byte = |at: usize| usize::from(name.get(at).copied().unwrap_or(0));
        let (first, second) = (byte(0), byte(1));
        let last = byte(name.len().wrapping_sub(1));
        let mixed = name.len().wrapping_mul(29)
            ^ first.wrapping_mul(7)
            ^ second.wrapping_mul(13)
            ^ last.wrapping_mul(37);
        (mixed >> 6 & 3, 1 << (mixed & 63))
    }

    /// Fails if a name is not unique. Names are sorted once, at the end, which bounds the work for
    /// many names.
    pub(crate) fn finish<E: Error>(self) -> Result<(), E> {
        let mut names = self.state.names.borrow_mut();
        if self.maybe_duplicate {
            let names_of_object = names.get_mut(self.start..).unwrap_or_default();
            names_of_object.sort_unstable();
            if names_of_object
                .windows(2)
                .any(|pair| matches!(pair, [a, b] if a == b))
            {
                return Err(E::custom("duplicate member"));
            }
        }
        names.truncate(self.start);
        Ok(())
    }
}

/// The longest number, in characters.
const MAX_NUMBER: usize = 64;

/// Whether a document has a number of more than 64 characters.
///
/// Any run of 64 number characters fully covers at least one aligned 32-byte chunk, so chunks are
/// checked first. Only if one matches is the document scanned.
pub(crate) fn has_long_number(json: &[u8]) -> bool {
    let is_number_char = |byte: &u8| matches!(byte, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
    let has_candidate = json
        .chunks_exact(MAX_NUMBER / 2)
        .any(|chunk| chunk.iter().all(is_number_char));
    if !has_candidate {
        return false;
    }
    let (mut in_string, mut escaped, mut run) = (false, false, 0_usize);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            _ => {}
        }
        run = if !in_string && is_number_char(byte) {
            run + 1
        } else {
            0
        };
        if run > MAX_NUMBER {
            return true;
        }
    }
    false
}

/// Parses and ignores a value, within the limits on depth and size.
///
/// Unlike `IgnoredAny` it parses every string and number, so that no value passes here that fails
/// when the claim is deserialized later.
#[derive(Debug)]
pub(crate) struct StrictIgnored<'d, 'de> {
    depth: u32,
    state: &'d ParseState<'de>,
}

impl<'d, 'de> StrictIgnored<'d, 'de> {
    /// Ignores a member of the outermost object.
    pub(crate) fn top_level(state: &'d ParseState<'de>) -> Self {
        Self { depth: 1, state }
    }

    fn inner<E: Error>(&self) -> Result<Self, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deep"));
        }
        Ok(Self {
            depth: self.depth + 1,
            state: self.state,
        })
    }

    fn count<E: Error>(&self) -> Result<(), E> {
        let ParseState {
            elements, limits, ..
        } = self.state;
        elements.set(elements.get() + 1);
        if elements.get() > limits.elements {
            Err(self.state.too_many())
        } else {
            Ok(())
        }
    }
}

impl<'de> DeserializeSeed<'de> for StrictIgnored<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictIgnored<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while seq.next_element_seed(self.inner()?)?.is_some() {
            self.count()?;
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut keys = UniqueKeys::new(self.state);
        while let Some(StrKey(key)) = map.next_key()? {
            if matches!(key, Cow::Borrowed(key) if self.state.is_serde_number(key)) {
                let StrKey(number) = map.next_value()?;
                return self.state.check_serde_number(&number);
            }
            self.count()?;
            map.next_value_seed(self.inner()?)?;
            keys.insert(key)?;
        }
        keys.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_the_longest_accepted_token() {
        assert_eq!(
            SizeLimits::for_max_token_len(16 * 1024),
            SizeLimits::DEFAULT
        );
        assert_eq!(SizeLimits::for_max_token_len(0), SizeLimits::DEFAULT);
        let SizeLimits {
            elements,
            names,
            strings,
        } = SizeLimits::for_max_token_len(64 * 1024);
        assert_eq!((elements, names, strings), (4 * 2048, 4 * 256, 4 * 1024));
        let SizeLimits { elements, .. } = SizeLimits::for_max_token_len(usize::MAX);
        assert_eq!(elements, u32::MAX);
    }

    #[test]
    fn long_numbers_are_found_at_any_offset_and_long_strings_are_ignored() {
        for offset in 0..70 {
            let padding = " ".repeat(offset);
            for (digits, long) in [(64, false), (65, true), (300, true)] {
                let number = "1".repeat(digits);
                assert_eq!(
                    has_long_number(format!("{{{padding}\"x\":{number}}}").as_bytes()),
                    long,
                    "{offset} {digits}"
                );
                assert!(!has_long_number(
                    format!("{{{padding}\"x\":\"{number}\"}}").as_bytes()
                ));
                assert!(!has_long_number(
                    format!("{{{padding}\"x\":\"\\\" {number}\"}}").as_bytes()
                ));
            }
            assert!(has_long_number(
                format!("{{{padding}\"x\":1.{}}}", "0".repeat(100)).as_bytes()
            ));
        }
    }
}
