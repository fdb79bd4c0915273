//! PEM, the text form of keys and certificates (RFC 7468).

use std::fmt;

use pem_rfc7468::Decoder;
use zeroize::Zeroizing;

/// A block of a PEM text, with its first and last line.
#[derive(Clone, Copy)]
pub(crate) struct Block<'p> {
    pub(crate) label: &'p str,
    text: &'p str,
}

/// Why a text is not PEM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InvalidPem {
    /// There is no block of the expected kind.
    NoBlock,
    /// A line starts with white space.
    Indented,
    /// Line ends were replaced by the two characters `\n`.
    EscapedLineEnds,
    /// A block has no end, another end, or is not base64.
    Malformed,
}

impl fmt::Display for InvalidPem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoBlock => "is not PEM: it has no line `-----BEGIN …-----`",
            Self::Indented => {
                "is not valid PEM: a line starts with white space, which must be removed"
            }
            Self::EscapedLineEnds => {
                "is not valid PEM: it has `\\n` as two characters, which must be line ends"
            }
            Self::Malformed => "is not valid PEM: it is cut off, or was changed",
        })
    }
}

/// The blocks of a text, in their order. Text between them is ignored (RFC 7468 §2).
pub(crate) fn blocks(pem: &str) -> Result<Vec<Block<'_>>, InvalidPem> {
    if pem.contains("-----\\n") || pem.contains("-----\\r\\n") {
        return Err(InvalidPem::EscapedLineEnds);
    }
    let mut blocks = Vec::new();
    // Label and position of the block that has begun.
    let mut begun: Option<(&str, usize)> = None;
    let mut end = 0;
    for line in pem.split_inclusive('\n') {
        let start = end;
        end += line.len();
        let content = line.trim();
        let is_indented = line.starts_with([' ', '\t']);
        if is_indented && (begun.is_some() || content.starts_with("-----BEGIN ")) {
            return Err(InvalidPem::Indented);
        }
        match begun {
            None => {
                let label = boundary(content, "-----BEGIN ");
                begun = label.map(|label| (label, start));
            }
            Some((label, begin)) => {
                let Some(last) = boundary(content, "-----END ") else {
                    continue;
                };
                let text = pem.get(begin..end).ok_or(InvalidPem::Malformed)?;
                if last != label {
                    return Err(InvalidPem::Malformed);
                }
                blocks.push(Block {
                    label,
                    text: text.trim_end(),
                });
                begun = None;
            }
        }
    }
    match (begun, blocks.is_empty()) {
        (Some(_), _) => Err(InvalidPem::Malformed),
        (None, true) => Err(InvalidPem::NoBlock),
        (None, false) => Ok(blocks),
    }
}

/// The label of a line that begins or ends a block.
fn boundary<'l>(line: &'l str, prefix: &str) -> Option<&'l str> {
    line.strip_prefix(prefix)?.strip_suffix("-----")
}

impl Block<'_> {
    /// Whether it is a private key of any format.
    pub(crate) fn is_private_key(&self) -> bool {
        self.label.ends_with("PRIVATE KEY")
    }

    /// Whether it has headers that say that it is encrypted (RFC 1421 §4.6).
    pub(crate) fn is_encrypted(&self) -> bool {
        self.label == "ENCRYPTED PRIVATE KEY" || self.text.contains("\nProc-Type: 4,ENCRYPTED")
    }

    /// The DER that the block contains, in a buffer that is zeroized on drop. No copy remains.
    pub(crate) fn decode(&self) -> Result<Zeroizing<Vec<u8>>, InvalidPem> {
        let malformed = |_| InvalidPem::Malformed;
        let mut decoder = Decoder::new_detect_wrap(self.text.as_bytes()).map_err(malformed)?;
        let mut der = Zeroizing::new(vec![0; decoder.remaining_len()]);
        decoder.decode(&mut der).map_err(malformed)?;
        if !decoder.is_finished() {
            return Err(InvalidPem::Malformed);
        }
        Ok(der)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(pem: &str) -> Result<Vec<(&str, Vec<u8>)>, InvalidPem> {
        let blocks = blocks(pem)?.into_iter();
        blocks
            .map(|block| Ok((block.label, block.decode()?.to_vec())))
            .collect()
    }

    #[test]
    fn blocks_are_found_between_other_text_and_with_any_line_ends() {
        let one = "-----BEGIN A-----\nAQID\n-----END A-----\n";
        let two = "-----BEGIN B C-----\r\nBAUG\r\n-----END B C-----";
        assert_eq!(decoded(one).unwrap(), [("A", vec![1, 2, 3])]);
        assert_eq!(decoded(two).unwrap(), [("B C", vec![4, 5, 6])]);
        let both = format!("Subject: x\n\n{one}\n{two}\n  \n");
        assert_eq!(
            decoded(&both).unwrap(),
            [("A", vec![1, 2, 3]), ("B C", vec![4, 5, 6])]
        );
    }

    #[test]
    fn lines_of_every_usual_length_are_decoded() {
        let bytes: Vec<u8> = (0..=255).collect();
        let base64 = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &bytes);
        for width in [64, 76, 1000] {
            let lines: Vec<&str> = base64
                .as_bytes()
                .chunks(width)
                .map(|line| std::str::from_utf8(line).unwrap())
                .collect();
            let pem = format!("-----BEGIN A-----\n{}\n-----END A-----\n", lines.join("\n"));
            assert_eq!(decoded(&pem).unwrap(), [("A", bytes.clone())], "{width}");
        }
    }

    #[test]
    fn what_is_not_pem_is_an_error_that_says_why() {
        for (pem, expected) in [
            ("", InvalidPem::NoBlock),
            ("AQID", InvalidPem::NoBlock),
            ("-----END A-----\n", InvalidPem::NoBlock),
            (
                "  -----BEGIN A-----\n  AQID\n  -----END A-----\n",
                InvalidPem::Indented,
            ),
            (
                "-----BEGIN A-----\n\tAQID\n-----END A-----\n",
                InvalidPem::Indented,
            ),
            (
                "-----BEGIN A-----\\nAQID\\n-----END A-----\\n",
                InvalidPem::EscapedLineEnds,
            ),
            ("-----BEGIN A-----\nAQID\n", InvalidPem::Malformed),
            (
                "-----BEGIN A-----\nAQID\n-----END B-----\n",
                InvalidPem::Malformed,
            ),
            (
                "-----BEGIN A-----\nAQ*D\n-----END A-----\n",
                InvalidPem::Malformed,
            ),
            (
                "-----BEGIN A-----\nAQID\n-----BEGIN A-----\nAQID\n-----END A-----\n",
                InvalidPem::Malformed,
            ),
        ] {
            assert_eq!(decoded(pem).unwrap_err(), expected, "{pem}");
        }
    }
}
