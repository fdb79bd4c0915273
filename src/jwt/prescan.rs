//! A prescan of the first members of a JSON object, before it is parsed.
//!
//! Used only to reject early. Stops at the first member that is not a plain string, unsigned
//! integer or literal: at an escape, white space, a nested object, or invalid JSON. A token that
//! passes is parsed strictly. The prescan neither allocates nor creates errors, which is half of
//! the cost of a rejection.

use memchr::memchr2;

/// The number of members, and of strings in one array, that are scanned.
const MAX_ITEMS: usize = 32;

/// A plain value. Text is not checked to be UTF-8.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Plain<'j> {
    Text(&'j [u8]),
    /// A JSON number without sign, fraction, exponent or leading zero.
    Number(u64),
    /// An array of strings, or a literal.
    Other,
}

/// The first plain members of an object, in order.
pub(super) fn members(json: &[u8]) -> impl Iterator<Item = (&[u8], Plain<'_>)> {
    let mut rest = json;
    (0..MAX_ITEMS).map_while(move |_| {
        let (b'{' | b',', member) = rest.split_first()? else {
            return None;
        };
        let (name, value) = text(member)?;
        let (value, end) = plain(value.strip_prefix(b":")?)?;
        rest = end;
        Some((name, value))
    })
}

/// Splits off a plain value.
fn plain(json: &[u8]) -> Option<(Plain<'_>, &[u8])> {
    match json.first()? {
        b'"' => text(json).map(|(text, rest)| (Plain::Text(text), rest)),
        b'[' => texts(json).map(|rest| (Plain::Other, rest)),
        b'0'..=b'9' => number(json).map(|(number, rest)| (Plain::Number(number), rest)),
        _ => {
            let names = [b"true".as_slice(), b"false", b"null"];
            names
                .iter()
                .find_map(|name| Some((Plain::Other, json.strip_prefix(*name)?)))
        }
    }
}

/// Splits off an unsigned integer.
fn number(json: &[u8]) -> Option<(u64, &[u8])> {
    if let [b'0', b'0'..=b'9', ..] = json {
        return None;
    }
    let (mut number, mut rest) = (0_u64, json);
    while let Some((digit @ b'0'..=b'9', next)) = rest.split_first() {
        number = number.checked_mul(10)?.checked_add((digit - b'0').into())?;
        rest = next;
    }
    // A fraction or an exponent would change the value.
    matches!(rest, [b',' | b'}', ..]).then_some((number, rest))
}

/// Splits off a string without escapes.
fn text(json: &[u8]) -> Option<(&[u8], &[u8])> {
    let json = json.strip_prefix(b"\"")?;
    let (text, rest) = json.split_at_checked(memchr2(b'"', b'\\', json)?)?;
    Some((text, rest.strip_prefix(b"\"")?))
}

/// The rest after an array of strings without escapes.
fn texts(json: &[u8]) -> Option<&[u8]> {
    let mut json = json.strip_prefix(b"[")?;
    if let Some(rest) = json.strip_prefix(b"]") {
        return Some(rest);
    }
    for _ in 0..MAX_ITEMS {
        let (_, rest) = text(json)?;
        match rest.strip_prefix(b",") {
            Some(next) => json = next,
            None => return rest.strip_prefix(b"]"),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(json: &str) -> Vec<(&str, Plain<'_>)> {
        members(json.as_bytes())
            .map(|(name, value)| (std::str::from_utf8(name).unwrap(), value))
            .collect()
    }

    #[test]
    fn plain_members_are_found() {
        let json = concat!(
            r#"{"iss":"https://as.example","exp":1700000000,"aud":["a","b"],"#,
            r#""c":[],"d":true,"e":null,"f":"","g":0}"#
        );
        assert_eq!(
            scan(json),
            [
                ("iss", Plain::Text(b"https://as.example")),
                ("exp", Plain::Number(1_700_000_000)),
                ("aud", Plain::Other),
                ("c", Plain::Other),
                ("d", Plain::Other),
                ("e", Plain::Other),
                ("f", Plain::Text(b"")),
                ("g", Plain::Number(0)),
            ]
        );
    }

    #[test]
    fn prescan_stops_at_the_first_non_scalar() {
        for end in [
            r#"{"a":1,"b":"\u0061"}"#,
            r#"{"a":1,"b\n":"a"}"#,
            r#"{"a":1, "b":"a"}"#,
            r#"{"a":1,"b" :"a"}"#,
            r#"{"a":1,"b": "a"}"#,
            r#"{"a":1,"b":{}}"#,
            r#"{"a":1,"b":[1]}"#,
            r#"{"a":1,"b":["a",["b"]]}"#,
            r#"{"a":1,"b":["a" ,"b"]}"#,
            r#"{"a":1,"b":-1}"#,
            r#"{"a":1,"b":1.5}"#,
            r#"{"a":1,"b":1e9}"#,
            r#"{"a":1,"b":1 }"#,
            r#"{"a":1,"b":01}"#,
            r#"{"a":1,"b":99999999999999999999}"#,
            r#"{"a":1,"b":12"#,
            r#"{"a":1,"b":"x"#,
            r#"{"a":1,"b":["x"#,
            r#"{"a":1,"b":tru}"#,
            r#"{"a":1,"b""#,
            r#"{"a":1}{"b":1}"#,
            r#"{"a":1}"#,
        ] {
            assert_eq!(scan(end), [("a", Plain::Number(1))], "{end}");
        }
        for nothing in ["", "{", "{}", "[]", " {\"a\":1}", r#""a":1}"#, "null"] {
            assert_eq!(scan(nothing), [], "{nothing}");
        }
    }

    #[test]
    fn prescan_stops_after_32_items() {
        assert_eq!(
            scan(&format!("{{{}}}", r#""":1,"#.repeat(MAX_ITEMS + 9))).len(),
            MAX_ITEMS
        );
        let array = |len| format!(r#"{{"a":[{}"x"],"b":1}}"#, r#""","#.repeat(len - 1));
        assert_eq!(scan(&array(MAX_ITEMS)).len(), 2);
        assert_eq!(scan(&array(MAX_ITEMS + 1)), []);
    }

    #[test]
    fn text_may_be_non_ascii() {
        assert_eq!(scan(r#"{"ä":"€"}"#), [("ä", Plain::Text("€".as_bytes()))]);
    }
}
