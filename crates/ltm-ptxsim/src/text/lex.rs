//! Splits PTX text into tokens, in one pass. Knows characters; must not know grammar.

use super::error::ParseError;

/// Maximum length of a text: positions are stored in 32 bits.
const MAX_TEXT_BYTES: usize = 1 << 30;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name, a directive, an opcode with its modifiers, or a number.
    Word,
    /// A quoted string, with its quotes.
    Quoted,
    /// Any other character.
    Punct(u8),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Token {
    pub kind: Kind,
    /// The line it starts on, from 1.
    pub line: u32,
    pub start: u32,
    pub end: u32,
}

impl Token {
    pub fn text<'t>(&self, ptx: &'t str) -> &'t str {
        &ptx[self.start as usize..self.end as usize]
    }
}

fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%' | b'.')
}

/// Splits a text into tokens; comments and white space separate them.
pub(super) fn tokens(ptx: &str) -> Result<Vec<Token>, ParseError> {
    if ptx.len() > MAX_TEXT_BYTES {
        let reason = format!("the text has {} bytes, at most {MAX_TEXT_BYTES} are read", ptx.len());
        return Err(ParseError { line: 1, text: String::new(), reason });
    }
    let bytes = ptx.as_bytes();
    let mut tokens = Vec::with_capacity(bytes.len() / 6);
    let (mut at, mut line) = (0, 1);
    let find = |from: usize, wanted: &[u8]| {
        let rest = bytes.get(from..).unwrap_or_default();
        rest.windows(wanted.len()).position(|window| window == wanted).map(|i| from + i)
    };
    while at < bytes.len() {
        let start = at;
        let first_line = line;
        let rest = &bytes[at..];
        let kind = match rest {
            [b'\n', ..] => {
                line += 1;
                at += 1;
                continue;
            }
            // `@@` lines are an old debug format.
            [b'/', b'/', ..] | [b'@', b'@', ..] => {
                at = find(at, b"\n").unwrap_or(bytes.len());
                continue;
            }
            [b'/', b'*', ..] => {
                let end = find(at + 2, b"*/").map_or(bytes.len(), |end| end + 2);
                line += bytes[at..end].iter().filter(|byte| **byte == b'\n').count() as u32;
                at = end;
                continue;
            }
            [byte, ..] if byte.is_ascii_whitespace() || *byte == 0 => {
                at += 1;
                continue;
            }
            [b'"', ..] => {
                at += 1;
                loop {
                    match bytes.get(at) {
                        Some(b'\\') => at += 2,
                        Some(b'"') => break,
                        Some(b'\n') | None => {
                            let text = String::from_utf8_lossy(&bytes[start..at.min(bytes.len())]);
                            return Err(ParseError {
                                line,
                                text: text.into_owned(),
                                reason: "this string has no closing quote".into(),
                            });
                        }
                        Some(_) => at += 1,
                    }
                }
                at += 1;
                Kind::Quoted
            }
            [byte, ..] if in_word(*byte) => {
                at = word_end(bytes, at);
                Kind::Word
            }
            [byte, ..] if byte.is_ascii() => {
                at += 1;
                Kind::Punct(*byte)
            }
            _ => {
                let c = ptx[at..].chars().next().unwrap_or_default();
                let reason = "this character is not part of PTX".into();
                return Err(ParseError { line, text: c.to_string(), reason });
            }
        };
        let token = Token { kind, line: first_line, start: start as u32, end: at as u32 };
        tokens.push(token);
    }
    Ok(tokens)
}

/// The end of the word that starts at `start`.
fn word_end(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    let number = bytes[start].is_ascii_digit();
    let prefixed =
        number && matches!(bytes.get(start + 1), Some(b'x' | b'X' | b'f' | b'F' | b'd' | b'D'));
    loop {
        match bytes.get(at..).unwrap_or_default() {
            [byte, ..] if in_word(*byte) => at += 1,
            // `shared::cta`, as part of an opcode.
            [b':', b':', next, ..] if !number && in_word(*next) => at += 2,
            // The sign of a decimal exponent.
            [b'+' | b'-', digit, ..]
                if number
                    && !prefixed
                    && digit.is_ascii_digit()
                    && matches!(bytes[at - 1], b'e' | b'E') =>
            {
                at += 1;
            }
            _ => return at,
        }
    }
}
