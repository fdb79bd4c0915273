//! Strict JSON objects: no duplicate names, bounded depth and size.
//!
//! RFC 7515 §4 and RFC 7519 §4 let a parser refuse duplicate names or take the last; two
//! parsers that choose differently see two tokens, so they are refused.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use smallvec::SmallVec;

use super::TokenError;

/// Objects and arrays may be nested this deep.
const MAX_DEPTH: u32 = 32;

/// Names of one object that are kept on the stack.
const NAMES_ON_STACK: usize = 256;

/// Under this name serde_json hands on a number, where its feature `arbitrary_precision` is on.
const SERDE_NUMBER: &str = "$serde_json::private::Number";

/// How many members and elements a document may have. They bound the work for a token whose
/// signature is not verified yet, and grow with the longest token that is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeLimits {
    /// Members and elements below the outermost object, in all its objects and arrays together.
    elements: u32,
    /// Members of one object, with those that the objects around it have so far.
    names: usize,
    /// Strings of one claim: of `aud`, `scope`, `scp` or `amr`.
    strings: u32,
}

impl SizeLimits {
    /// Tokens of up to 16 KiB.
    pub(crate) const DEFAULT: Self = Self {
        elements: 2048,
        names: 256,
        strings: 1024,
    };

    /// Tokens of up to `bytes`.
    pub(crate) fn for_tokens_of(bytes: usize) -> Self {
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

/// What is counted and kept while one document is read; on the stack, for most documents that are
/// sent to be refused are not worth an allocation.
#[derive(Debug)]
pub(crate) struct ParseState<'de> {
    text: &'de str,
    limits: SizeLimits,
    /// Members and elements met so far, below the outermost object.
    elements: Cell<u32>,
    /// The names of the objects that are being read, those of the innermost last.
    names: RefCell<SmallVec<[Cow<'de, str>; NAMES_ON_STACK]>>,
    /// What is wrong with the document, where the parser's error does not say.
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

    /// Strings that one claim may have.
    pub(super) fn max_strings(&self) -> u32 {
        self.limits.strings
    }

    /// The defect that an error of the parser stands for; `otherwise` where that is all there is.
    pub(super) fn error_or(&self, fallback: TokenError) -> TokenError {
        self.error.get().unwrap_or(fallback)
    }

    /// Ends the reading: it has more members, elements or strings than the limits allow.
    pub(super) fn too_many<E: Error>(&self) -> E {
        self.error.set(Some(TokenError::TooManyMembers));
        E::custom("too many members")
    }

    /// Whether serde_json hands a number on under this borrowed name. One of the document lies
    /// within its text.
    fn is_serde_number(&self, name: &'de str) -> bool {
        name == SERDE_NUMBER && !self.text.as_bytes().as_ptr_range().contains(&name.as_ptr())
    }

    /// The same numbers are good whatever feature serde_json is built with.
    fn check_serde_number<E: Error>(&self, number: &str) -> Result<(), E> {
        if number.parse().is_ok_and(f64::is_finite) {
            return Ok(());
        }
        self.error.set(Some(TokenError::Malformed));
        Err(E::custom("number out of range"))
    }
}

/// The name of a member; borrowed unless it is written with escapes.
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

/// The names seen in one object, kept to find duplicates.
///
/// Few objects have two names of the same length that begin and end alike: where none has, no two
/// names need to be compared.
#[derive(Debug)]
pub(crate) struct UniqueKeys<'d, 'de> {
    state: &'d ParseState<'de>,
    /// Where its names begin among those of the document.
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

    /// Notes a name; refuses too many of them.
    pub(crate) fn insert<E: Error>(&mut self, name: Cow<'de, str>) -> Result<(), E> {
        let mut names = self.state.names.borrow_mut();
        if names.len() >= self.state.limits.names {
            return Err(self.state.too_many());
        }
        // serde_json gives such a name a meaning of its own when a value is read later.
        if name.starts_with("$serde_json::private::") {
            return Err(E::custom("a name that is not data"));
        }
        let (word, bit) = Self::fingerprint(name.as_bytes());
        if let Some(word) = self.bitmap.get_mut(word) {
            self.maybe_duplicate |= *word & bit != 0;
            *word |= bit;
        }
        names.push(name);
        Ok(())
    }

    /// One of 256 bits, the same for the same name.
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

    /// Refuses duplicates, once all names are known: sorting bounds the work that many
    /// names can cause.
    pub(crate) fn check<E: Error>(self) -> Result<(), E> {
        let mut names = self.state.names.borrow_mut();
        if self.maybe_duplicate {
            let own = names.get_mut(self.start..).unwrap_or_default();
            own.sort_unstable();
            if own.windows(2).any(|pair| matches!(pair, [a, b] if a == b)) {
                return Err(E::custom("duplicate member"));
            }
        }
        names.truncate(self.start);
        Ok(())
    }
}

/// Numbers may have so many characters.
const MAX_NUMBER: usize = 64;

/// Whether a document has a number that is longer than any real one.
///
/// A run of that length covers one of the stretches between every 32nd byte as a whole; only where
/// one is covered is the document read to tell numbers from strings.
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

/// Reads any value and forgets it: well-formed, not too deep, not too many.
///
/// Unlike `IgnoredAny` it looks at every string and number, so that nothing passes here that
/// would fail when the claim is read later.
#[derive(Debug)]
pub(crate) struct StrictIgnored<'d, 'de> {
    depth: u32,
    state: &'d ParseState<'de>,
}

impl<'d, 'de> StrictIgnored<'d, 'de> {
    /// Skips members of the outermost object.
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
        keys.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_grow_with_the_longest_token() {
        assert_eq!(SizeLimits::for_tokens_of(16 * 1024), SizeLimits::DEFAULT);
        assert_eq!(SizeLimits::for_tokens_of(0), SizeLimits::DEFAULT);
        let SizeLimits {
            elements,
            names,
            strings,
        } = SizeLimits::for_tokens_of(64 * 1024);
        assert_eq!((elements, names, strings), (4 * 2048, 4 * 256, 4 * 1024));
        let SizeLimits { elements, .. } = SizeLimits::for_tokens_of(usize::MAX);
        assert_eq!(elements, u32::MAX);
    }

    #[test]
    fn a_long_number_is_found_wherever_it_starts_and_a_long_string_is_not_one() {
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
