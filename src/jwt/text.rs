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
        let stands_there = payload.get(start..end).is_some_and(|there| std::ptr::eq(there, text));
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
                place.and_then(|(start, end)| payload.get(start..end)).unwrap_or_default()
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
        match strings {
            None => Self::None,
            Some(Strings::One(one)) => Self::One(Text::of(payload, one)),
            Some(Strings::Many(many)) => Self::Many(many.iter().map(|one| Text::of(payload, one)).collect()),
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

/// A string or an array of strings, as it was read.
#[derive(Debug)]
pub(super) enum Strings<'a> {
    One(Cow<'a, str>),
    Many(Vec<Cow<'a, str>>),
}

impl<'a> Strings<'a> {
    pub(super) fn iter(&self) -> impl Iterator<Item = &str> {
        let (one, many) = match self {
            Self::One(one) => (Some(one), &[][..]),
            Self::Many(many) => (None, &**many),
        };
        one.into_iter().chain(many).map(|text| &**text)
    }

    /// From an array, element by element.
    pub(super) fn collect<E>(mut next: impl FnMut() -> Result<Option<Cow<'a, str>>, E>) -> Result<Self, E> {
        let Some(first) = next()? else { return Ok(Self::Many(Vec::new())) };
        let Some(second) = next()? else { return Ok(Self::One(first)) };
        let mut many = vec![first, second];
        while let Some(one) = next()? {
            many.push(one);
        }
        Ok(Self::Many(many))
    }
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
}
