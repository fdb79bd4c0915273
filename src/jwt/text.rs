//! Strings of a payload, kept as places in it: what a context holds costs no copy.

use std::borrow::Cow;

/// A string of a payload.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    /// From here to there, as it stands in the payload.
    Place(u32, u32),
    /// It was written with escapes.
    Owned(Box<str>),
}

impl Text {
    /// Where `text`, which was read from `payload`, stands in it.
    fn of(payload: &str, text: &str) -> Self {
        let start = text.as_ptr().addr().wrapping_sub(payload.as_ptr().addr());
        let end = start.wrapping_add(text.len());
        let stands_there = payload
            .get(start..end)
            .is_some_and(|there| std::ptr::eq(there, text));
        match (u32::try_from(start), u32::try_from(end)) {
            (Ok(start), Ok(end)) if stands_there => Self::Place(start, end),
            _ => Self::Owned(text.into()),
        }
    }

    pub(crate) fn get<'a>(&'a self, payload: &'a str) -> &'a str {
        match self {
            // It was found there.
            Self::Place(start, end) => {
                let place = usize::try_from(*start).ok().zip(usize::try_from(*end).ok());
                place
                    .and_then(|(start, end)| payload.get(start..end))
                    .unwrap_or_default()
            }
            Self::Owned(text) => text,
        }
    }
}

/// One string or several; seldom more than one, so that is not worth an allocation.
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

pub(super) fn place(payload: &str, text: Option<&Cow<'_, str>>) -> Option<Text> {
    text.map(|text| Text::of(payload, text))
}

/// A string or an array of strings, as it was read: most are looked at only if the token is good,
/// so that until then an array takes no more memory than a string.
#[derive(Debug, Default)]
pub(super) struct Strings<'a> {
    /// The payload from the first string without escapes to the end of the last, with what is
    /// between them: `orders`, or `orders", "billing`.
    plain: Option<&'a str>,
    /// Those that were written with escapes, which have to be undone to be read.
    escaped: Vec<Box<str>>,
    /// How many of these came before the first without.
    leading: usize,
    is_array: bool,
}

impl<'a> Strings<'a> {
    /// An array, still empty.
    pub(super) fn array() -> Self {
        Self {
            is_array: true,
            ..Self::default()
        }
    }

    /// Whether the claim is an array, not a single string.
    pub(super) fn is_array(&self) -> bool {
        self.is_array
    }

    /// Those of an array come one after the other.
    pub(super) fn push(&mut self, payload: &'a str, one: Cow<'a, str>) {
        match (one, self.plain) {
            (Cow::Owned(one), _) => self.escaped.push(one.into()),
            (Cow::Borrowed(one), Some(first)) => self.plain = Some(up_to(payload, first, one)),
            (Cow::Borrowed(one), None) => {
                (self.plain, self.leading) = (Some(one), self.escaped.len())
            }
        }
    }

    /// In the order in which they stand there.
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

/// The payload from the start of one of its strings to the end of another.
fn up_to<'a>(payload: &'a str, first: &'a str, last: &'a str) -> &'a str {
    let offset = |text: &str| text.as_ptr().addr().wrapping_sub(payload.as_ptr().addr());
    payload
        .get(offset(first)..offset(last).wrapping_add(last.len()))
        .unwrap_or(last)
}

/// Parts a string of a document, whose first quotation mark is left out, from what is behind it.
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
    fn a_string_is_found_where_it_stands_and_another_is_kept() {
        let payload = r#"{"sub":"app"}"#.to_owned();
        let here = payload.get(8..11).unwrap();
        let text = Text::of(&payload, here);
        assert!(matches!(text, Text::Place(8, 11)));
        assert_eq!(text.get(&payload), "app");
        let elsewhere = Text::of(&payload, "app");
        assert!(matches!(elsewhere, Text::Owned(_)));
        assert_eq!(elsewhere.get(&payload), "app");
    }

    #[test]
    fn strings_are_read_from_the_payload_and_those_with_escapes_are_kept() {
        let of = |payload: &str| {
            let mut strings = Strings::default();
            let mut offset = 0;
            // As serde has them: without escapes from the payload, with escapes as copies.
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
