//! Splits Rust into tokens, without comments, strings and characters. Knows no grammar.

/// A name or a number, `::`, or another character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token<'t> {
    pub text: &'t str,
    /// Its line, from 1.
    pub line: usize,
}

/// The tokens of a file. A lifetime is its name, after a character `'`.
pub fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(first) = rest.chars().next() {
        let word = rest.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(rest.len());
        let (bytes, is_code) = match first {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (block_comment(rest), false),
            '"' => (string(rest), false),
            '\'' if character(rest) > 0 => (character(rest), false),
            ':' if rest.starts_with("::") => (2, true),
            _ if word > 0 && raw_string(&rest[..word], &rest[word..]) > 0 => {
                (word + raw_string(&rest[..word], &rest[word..]), false)
            }
            _ if word > 0 => (word, true),
            c => (c.len_utf8(), !c.is_whitespace()),
        };
        let (token, after) = rest.split_at(bytes);
        if is_code {
            found.push(Token { text: token, line });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    found
}

/// Bytes of the comment that the text begins with; comments nest.
fn block_comment(text: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            (depth, at) = (depth + 1, at + 2);
        } else if rest.starts_with(b"*/") {
            (depth, at) = (depth - 1, at + 2);
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Bytes of the string that the text begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// Bytes of the character that the text begins with; 0 if it is a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[3..].find('\'').map_or(0, |at| at + 4),
        _ => chars.next().map_or(0, |(at, c)| if c == '\'' { at + 1 } else { 0 }),
    }
}

/// Bytes of the raw string after the prefix `r` or `br`, without the prefix; 0 if there is none.
fn raw_string(prefix: &str, text: &str) -> usize {
    let hashes = text.bytes().take_while(|byte| *byte == b'#').count();
    if !["r", "br", "cr"].contains(&prefix) || !text[hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[hashes + 1..].find(&end).map_or(text.len(), |at| hashes + 1 + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::tokens;

    fn check(text: &str, expected: &str) {
        let found: Vec<_> = tokens(text).iter().map(|token| token.text).collect();
        assert_eq!(found.join(" "), expected, "{text}");
    }

    #[test]
    fn code_without_its_text() {
        check("use a::{b, c_1 as d};", "use a :: { b , c_1 as d } ;");
        check("f(\"x \\\" y\", 'c', '\\'', '\"', b\"z\") // end", "f ( , , , , b )");
        check("r#\"a \" b\"# r\"c\" e", "e");
        check("a /* b /* c */ d */ e", "a e");
        check("fn f<'a>(x: &'a str) {}", "fn f < ' a > ( x : & ' a str ) { }");
        check("“é” 'é' x", "“ é ” x");
    }

    #[test]
    fn lines_count_from_one() {
        let lines: Vec<_> = tokens("a\n\"\n\"\n/*\n*/ b").iter().map(|token| token.line).collect();
        assert_eq!(lines, [1, 5]);
    }
}
