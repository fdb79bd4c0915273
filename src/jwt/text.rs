//! Strings of a payload, stored as ranges of it, so that a context copies none of them.

use std::borrow::Cow;

/// A string of a payload.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// A range of the payload: start and end.
    Range(u32, u32),
    /// A string with escapes, unescaped.
    Owned(Box<str>),
}

impl Text {
    /// Stores `text` as a range if it is a slice of `payload`.
    fn of(payload: &str, text: &str) -> Self {
        let start = text.as_ptr().addr().wrapping_sub(payload.as_ptr().addr());
        let end = start.wrapping_add(text.len());
        let is_slice = payload
            .get(start..end)
            .is_some_and(|slice| std::ptr::eq(slice, text));
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if is_slice => Self::Range(start, end),
            _ => Self::Owned(text.into()),
        }
    }

    pub(crate) fn get<'a>(&'a self, payload: &'a str) -> &'a str {
        match self {
            Self::Range(start, end) => {
                let range = usize::try_from(*start).ok().zip(usize::try_from(*end).ok());
                range
                    .and_then(|(start, end)| payload.get(start..end))
                    .unwrap_or_default()
            }
            Self::Owned(text) => text,
        }
    }
}

/// Zero or more strings. One string, the usual case, needs no allocation.
#[derive(Clone, Debug)]
pub(crate) enum Texts {
    None,
    One(Text),
    Many(Box<[Text]>),
}

impl Texts {
    pub(super) fn of(payload: &str, strings: Option<&Strings<'_>>) -> Self {
        let Some(strings) = strings else {
            return Self::None;
        };
        let mut all = strings.iter().map(|one| Text::of(payload, one));
        match (all.next(), all.next()) {
            (None, _) => Self::None,
            (Some(one), None) => Self::One(one),
            (Some(first), Some(second)) => {
                Self::Many([first, second].into_iter().chain(all).collect())
            }
        }
    }

    pub(crate) fn iter<'a>(&'a self, payload: &'a str) -> impl Iterator<Item = &'a str> {
        let (one, many) = match self {
            Self::None => (None, &[][..]),
            Self::One(one) => (Some(one), &[][..]),
            Self::Many(many) => (None, &**many),
        };
        one.into_iter().chain(many).map(|text| text.get(payload))
    }
}

/// Stores an optional string of `payload`.
pub(super) fn text(payload: &str, text: Option<&Cow<'_, str>>) -> Option<Text> {
    text.map(|text| Text::of(payload, text))
}

/// A string or an array of strings. The elements of an array are found again only when they are
/// used, so that an array takes no more memory than a string until the token is validated.
#[derive(Debug, Default)]
pub(super) struct Strings<'a> {
    /// The payload from the first string without escapes to the end of the last one: `orders`, or
    /// `orders", "billing`.
    plain: Option<&'a str>,
    /// The strings with escapes, unescaped.
    escaped: Vec<Box<str>>,
    /// How many of `escaped` come before the first string without escapes.
    leading: usize,
    is_array: bool,
}

impl<'a> Strings<'a> {
    /// An empty array.
    pub(super) fn array() -> Self {
        Self {
            is_array: true,
            ..Self::default()
        }
    }

    /// Whether the claim is an array rather than a single string.
    pub(super) fn is_array(&self) -> bool {
        self.is_array
    }

    /// Adds the next string of the claim.
    pub(super) fn push(&mut self, payload: &'a str, one: Cow<'a, str>) {
        match (one, self.plain) {
            (Cow::Owned(one), _) => self.escaped.push(one.into()),
            (Cow::Borrowed(one), Some(first)) => self.plain = Some(up_to(payload, first, one)),
            (Cow::Borrowed(one), None) => {
                (self.plain, self.leading) = (Some(one), self.escaped.len())
            }
        }
    }

    /// The strings in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let mut escaped = self.escaped.iter().map(|one| &**one);
        let (mut leading, mut rest) = (self.leading, self.plain);
        std::iter::from_fn(move || {
            let Some(json) = rest.filter(|_| leading == 0) else {
                leading = leading.saturating_sub(1);
                return escaped.next();
            };
            let (one, behind) = split_string(json);
            rest = behind.split_once('"').map(|(_, next)| next);
            if one.contains('\\') {
                escaped.next()
            } else {
                Some(one)
            }
        })
    }
}

/// The payload from the start of `first` to the end of `last`.
fn up_to<'a>(payload: &'a str, first: &'a str, last: &'a str) -> &'a str {
    let offset = |text: &str| text.as_ptr().addr().wrapping_sub(payload.as_ptr().addr());
    payload
        .get(offset(first)..offset(last).wrapping_add(last.len()))
        .unwrap_or(last)
}

/// Splits a string, without its opening quotation mark, from the rest of the document.
fn split_string(json: &str) -> (&str, &str) {
    let mut escaped = false;
    let ends = |byte: &u8| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    };
    let end = json.as_bytes().iter().position(ends);
    end.and_then(|end| Some((json.get(..end)?, json.get(end + 1..)?)))
        .unwrap_or((json, ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_of_the_payload_is_stored_as_a_range_and_another_string_is_copied() {
        let payload = r#"{"sub":"app"}"#.to_owned();
        let here = payload.get(8..11).unwrap();
        let text = Text::of(&payload, here);
        assert!(matches!(text, Text::Range(8, 11)));
        assert_eq!(text.get(&payload), "app");
        let elsewhere = Text::of(&payload, "app");
        assert!(matches!(elsewhere, Text::Owned(_)));
        assert_eq!(elsewhere.get(&payload), "app");
    }

    #[test]
    fn strings_are_read_from_the_payload_and_those_with_escapes_are_copied() {
        let of = |payload: &str| {
            let mut strings = Strings::default();
            let mut offset = 0;
            // Like serde: strings without escapes are borrowed, others are copied.
            for one in serde_json::from_str::<Vec<String>>(payload).unwrap() {
                let json = serde_json::to_string(&one).unwrap();
                let start = offset + payload[offset..].find(&json).unwrap();
                offset = start + json.len();
                let is_plain = !json.contains('\\');
                strings.push(
                    payload,
                    if is_plain {
                        payload[start + 1..offset - 1].into()
                    } else {
                        one.into()
                    },
                );
            }
            strings.iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(of("[]"), [""; 0]);
        assert_eq!(of(r#"[""]"#), [""]);
        assert_eq!(of(r#"["a"]"#), ["a"]);
        assert_eq!(of(r#"["", "", "a", ""]"#), ["", "", "a", ""]);
        assert_eq!(of(r#"["a" ,  "b,]","c"]"#), ["a", "b,]", "c"]);
        assert_eq!(
            of(r#"["\"x\"","a","\\","\\\"","b","c\n"]"#),
            ["\"x\"", "a", "\\", "\\\"", "b", "c\n"]
        );
        assert_eq!(of(r#"["\n","\t"]"#), ["\n", "\t"]);
    }
}
