//! Strict JSON objects: unique names, limited depth and size.
//!
//! RFC 7515 §4 and RFC 7519 §4 let a parser reject duplicate names or use the last. Two parsers
//! that differ in this see different tokens, so duplicates are rejected.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::error::TokenError;

/// The deepest nesting of objects and arrays.
const MAX_DEPTH: u32 = 32;

/// Up to this number of names, each is compared with each. More are sorted, which bounds the work.
const FEW_NAMES: usize = 16;

/// The name under which serde_json passes numbers with its feature `arbitrary_precision`.
const SERDE_NUMBER: &str = "$serde_json::private::Number";

/// Limits on the members and elements of a document. They bound the work for a token whose
/// signature is not verified yet, and grow with the longest accepted token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SizeLimits {
    /// Members and elements of all objects and arrays below the outermost object.
    elements: usize,
    /// Members of one object, plus those of the enclosing objects so far.
    names: usize,
    /// Strings in one array claim: `aud`, `scope` or `scp`.
    strings: usize,
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
        Self {
            elements: Self::DEFAULT.elements.max(bytes / 8),
            names: Self::DEFAULT.names.max(bytes / 64),
            strings: Self::DEFAULT.strings.max(bytes / 16),
        }
    }
}

/// A type that is read from the members of a JSON object.
pub(super) trait FromMembers<'de>: Default {
    /// Reads the value of the member `name`.
    fn read<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        value: MemberValue<'_, 'de, A>,
    ) -> Result<(), A::Error>;
}

/// A check of the members so far, after the one with this name was read. Its error ends the parse.
pub(super) type Check<'c, T> = &'c dyn Fn(&str, &T) -> Result<(), TokenError>;

/// Parses a JSON object strictly, in one pass. A value of a wrong type, a duplicate name and too
/// deep nesting give the error `wrong_content`.
pub(super) fn parse<'de, T: FromMembers<'de>>(
    text: &'de str,
    limits: SizeLimits,
    wrong_content: TokenError,
    check: Check<'_, T>,
) -> Result<T, TokenError> {
    let mut state = ParseState {
        text,
        limits,
        elements: 0,
        names: Vec::with_capacity(FEW_NAMES),
        error: None,
    };
    let mut json = serde_json::Deserializer::from_str(text);
    let mut object = T::default();
    let parsed = json
        .deserialize_map(ObjectVisitor(&mut state, &mut object, check))
        .and_then(|()| json.end());
    match (state.error, parsed) {
        (Some(error), _) => Err(error),
        (None, Ok(())) => Ok(object),
        (None, Err(error)) if error.is_data() => Err(wrong_content),
        (None, Err(_)) => Err(TokenError::Malformed),
    }
}

/// The state of parsing one document.
struct ParseState<'de> {
    text: &'de str,
    limits: SizeLimits,
    /// Members and elements below the outermost object so far.
    elements: usize,
    /// The names of the objects being parsed, those of the innermost object last.
    names: Vec<Cow<'de, str>>,
    /// The reason for ending the parse, if it is a particular one. The document is not accepted.
    error: Option<TokenError>,
}

impl<'de> ParseState<'de> {
    fn fail<E: Error>(&mut self, error: TokenError, message: &str) -> E {
        self.error = Some(error);
        E::custom(message)
    }

    /// The error for more members, elements or strings than the limits allow.
    fn too_many<E: Error>(&mut self) -> E {
        self.fail(TokenError::TooManyMembers, "too many members")
    }

    /// Counts a member or an element below the outermost object.
    fn count<E: Error>(&mut self) -> Result<(), E> {
        self.elements += 1;
        if self.elements > self.limits.elements {
            return Err(self.too_many());
        }
        Ok(())
    }

    /// Adds an element of an array of strings.
    fn add_string<E: Error>(
        &mut self,
        strings: &mut Vec<Cow<'de, str>>,
        string: Cow<'de, str>,
    ) -> Result<(), E> {
        if strings.len() >= self.limits.strings {
            return Err(self.too_many());
        }
        strings.push(string);
        Ok(())
    }

    /// Adds a name of the innermost object.
    fn add_name<E: Error>(&mut self, name: Cow<'de, str>) -> Result<(), E> {
        if self.names.len() >= self.limits.names {
            return Err(self.too_many());
        }
        // serde_json interprets such a name when the value is deserialized later.
        if name.starts_with("$serde_json::private::") {
            return Err(E::custom("reserved member name"));
        }
        self.names.push(name);
        Ok(())
    }

    /// Ends the innermost object, whose names start at this index. Fails if one is not unique.
    fn end_object<E: Error>(&mut self, start: usize) -> Result<(), E> {
        let names = self.names.get_mut(start..).unwrap_or_default();
        let has_duplicate = if names.len() <= FEW_NAMES {
            let mut pairs = names.iter().enumerate();
            pairs.any(|(index, name)| names.iter().take(index).any(|earlier| earlier == name))
        } else {
            names.sort_unstable();
            names.windows(2).any(|pair| pair.first() == pair.last())
        };
        if has_duplicate {
            return Err(E::custom("duplicate member"));
        }
        self.names.truncate(start);
        Ok(())
    }

    /// Whether this borrowed name is serde_json's for a number, not a name in the document. A name
    /// in the document lies within its text.
    fn is_serde_number(&self, name: &'de str) -> bool {
        name == SERDE_NUMBER && !self.text.as_bytes().as_ptr_range().contains(&name.as_ptr())
    }
}

/// A string, usually a member name. It is borrowed unless it has escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub(crate) struct StrKey<'a>(#[serde(borrow)] pub(crate) Cow<'a, str>);

/// Reads the members of the outermost object.
struct ObjectVisitor<'s, 'de, T>(&'s mut ParseState<'de>, &'s mut T, Check<'s, T>);

impl<'de, T: FromMembers<'de>> Visitor<'de> for ObjectVisitor<'_, 'de, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let Self(state, object, check) = self;
        while let Some(StrKey(name)) = map.next_key()? {
            let value = MemberValue {
                state,
                map: &mut map,
            };
            object.read(&name, value)?;
            if let Err(error) = check(&name, object) {
                // `parse` returns it. An error of serde costs more: it has a text and a position.
                state.error = Some(error);
                return Ok(());
            }
            state.add_name(name)?;
        }
        state.end_object(0)
    }
}

/// The value of one member of the outermost object, to be read by its type.
pub(super) struct MemberValue<'s, 'de, A> {
    state: &'s mut ParseState<'de>,
    map: &'s mut A,
}

impl<'de, A: MapAccess<'de>> MemberValue<'_, 'de, A> {
    /// Reads a string.
    pub(super) fn string(self) -> Result<Cow<'de, str>, A::Error> {
        Ok(self.map.next_value::<StrKey<'de>>()?.0)
    }

    /// Reads a string, or `null`, which counts as absent.
    pub(super) fn optional_string(self) -> Result<Option<Cow<'de, str>>, A::Error> {
        let string = self.map.next_value::<Option<StrKey<'de>>>()?;
        Ok(string.map(|StrKey(string)| string))
    }

    /// Reads a number.
    pub(super) fn number(self) -> Result<f64, A::Error> {
        self.map.next_value()
    }

    /// Reads a string or an array of strings.
    pub(super) fn strings(self) -> Result<Value<'de>, A::Error> {
        let strings = self.optional_strings()?;
        strings.ok_or_else(|| A::Error::custom("neither a string nor an array of strings"))
    }

    /// Reads a string or an array of strings, or `null`, which counts as absent.
    pub(super) fn optional_strings(self) -> Result<Option<Value<'de>>, A::Error> {
        match self.value(Arrays::OfStrings)? {
            Value::Null => Ok(None),
            strings @ (Value::String(_) | Value::Strings(_)) => Ok(Some(strings)),
            Value::Object | Value::Other => {
                Err(A::Error::custom("neither a string nor an array of strings"))
            }
        }
    }

    /// Reads a value of any type. Returns it if it is a string or an array of strings.
    pub(super) fn strings_or_other(self) -> Result<Option<Value<'de>>, A::Error> {
        let value = self.value(Arrays::OfAny)?;
        Ok(matches!(value, Value::String(_) | Value::Strings(_)).then_some(value))
    }

    /// Reads a value of any type. Returns it if it is a string.
    pub(super) fn string_or_other(self) -> Result<Option<Cow<'de, str>>, A::Error> {
        Ok(match self.any()? {
            Value::String(string) => Some(string),
            _ => None,
        })
    }

    /// Reads a value of any type, without the elements of an array.
    pub(super) fn any(self) -> Result<Value<'de>, A::Error> {
        self.value(Arrays::Skipped)
    }

    fn value(self, arrays: Arrays) -> Result<Value<'de>, A::Error> {
        self.map.next_value_seed(ValueSeed {
            state: self.state,
            depth: 1,
            arrays,
        })
    }
}

/// A JSON value that was parsed strictly.
#[derive(Debug)]
pub(super) enum Value<'de> {
    Null,
    String(Cow<'de, str>),
    /// An array of strings.
    Strings(Vec<Cow<'de, str>>),
    /// An object, whose members are not kept.
    Object,
    /// A number, a boolean, or an array that is not kept.
    Other,
}

impl<'de> Value<'de> {
    /// The string, or the strings of the array.
    pub(super) fn strings(&self) -> &[Cow<'de, str>] {
        match self {
            Self::String(string) => std::slice::from_ref(string),
            Self::Strings(strings) => strings,
            Self::Null | Self::Object | Self::Other => &[],
        }
    }
}

/// Parses a value within the limits on depth and size.
///
/// Unlike `IgnoredAny` it parses every string and number, so that no value passes here that fails
/// when the claim is deserialized later.
struct ValueSeed<'s, 'de> {
    state: &'s mut ParseState<'de>,
    depth: u32,
    arrays: Arrays,
}

/// How an array is read.
#[derive(Clone, Copy)]
enum Arrays {
    /// Nothing is kept.
    Skipped,
    /// Its elements must be strings, which are kept.
    OfStrings,
    /// Its elements are kept if all are strings.
    OfAny,
}

impl<'de> ValueSeed<'_, 'de> {
    /// For an element or a member of this value.
    fn inner<E: Error>(&mut self) -> Result<ValueSeed<'_, 'de>, E> {
        if self.depth >= MAX_DEPTH {
            return Err(E::custom("nested too deep"));
        }
        Ok(ValueSeed {
            state: self.state,
            depth: self.depth + 1,
            arrays: Arrays::Skipped,
        })
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_, 'de> {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_, 'de> {
    type Value = Value<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_borrowed_str<E>(self, string: &'de str) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Borrowed(string)))
    }

    fn visit_str<E>(self, string: &str) -> Result<Self::Value, E> {
        Ok(Value::String(Cow::Owned(string.to_owned())))
    }

    fn visit_bool<E>(self, _: bool) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_i64<E>(self, _: i64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Self::Value, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut strings = Vec::new();
        match self.arrays {
            Arrays::OfStrings => {
                while let Some(StrKey(string)) = seq.next_element()? {
                    self.state.add_string(&mut strings, string)?;
                }
                return Ok(Value::Strings(strings));
            }
            Arrays::OfAny => loop {
                match seq.next_element_seed(self.inner()?)? {
                    Some(Value::String(string)) => self.state.add_string(&mut strings, string)?,
                    Some(_) => {
                        self.state.count()?;
                        break;
                    }
                    None => return Ok(Value::Strings(strings)),
                }
            },
            Arrays::Skipped => {}
        }
        while seq.next_element_seed(self.inner()?)?.is_some() {
            self.state.count()?;
        }
        Ok(Value::Other)
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        let start = self.state.names.len();
        while let Some(StrKey(name)) = map.next_key()? {
            if matches!(name, Cow::Borrowed(name) if self.state.is_serde_number(name)) {
                let StrKey(number) = map.next_value()?;
                // Accepts the same numbers as serde_json without `arbitrary_precision`.
                if !number.parse().is_ok_and(f64::is_finite) {
                    return Err(self
                        .state
                        .fail(TokenError::Malformed, "number out of range"));
                }
                return Ok(Value::Other);
            }
            self.state.count()?;
            map.next_value_seed(self.inner()?)?;
            self.state.add_name(name)?;
        }
        self.state.end_object(start)?;
        Ok(Value::Object)
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
