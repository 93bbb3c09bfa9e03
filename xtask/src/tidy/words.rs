//! The rule on words: documents and documentation comments use the terms of `docs/notation.md`, and none of these.

/// What a reader has to read twice, and what to write in its place.
const AVOIDED: &[(&str, &str)] = &[
    ("foretell", "predict"),
    ("foretells", "predicts"),
    ("foretold", "predicted"),
    ("likeliest", "most likely"),
    ("anew", "again"),
    ("for want of", "because there is no"),
    ("when left out", "[default: …]"),
    ("be gone on with", "continue"),
    ("parted by", "separated by"),
    ("a line each", "one line per …"),
    ("an object a line", "one object per line"),
    ("nats a", "nats per"),
    ("bits a", "bits per"),
    ("in truth", "valid"),
    ("honest", "valid"),
    ("honestly", "with a valid bound"),
];

/// Whether the rule reads this file, and whether all of it or only its documentation comments.
fn scope(path: &str) -> Option<bool> {
    if path.starts_with("benches/runs/") || path == "xtask/src/tidy/words.rs" {
        return None; // kept as they were, and this list
    }
    if path.ends_with(".md") || is_command(path) {
        return Some(true);
    }
    path.ends_with(".rs").then_some(false)
}

/// Files of the `ltm` command, whose strings are messages.
fn is_command(path: &str) -> bool {
    path.starts_with("crates/ltm-cli/") && path.ends_with(".rs")
}

/// Reports every avoided word of a file.
pub fn avoided(path: &str, text: &str, report: &mut impl FnMut(usize, String)) {
    let Some(is_whole) = scope(path) else { return };
    for (i, line) in text.lines().enumerate() {
        let start = line.trim_start();
        if !is_whole && !start.starts_with("///") && !start.starts_with("//!") {
            continue;
        }
        let lower = line.to_lowercase();
        for (word, better) in AVOIDED {
            if has(&lower, word) {
                report(i + 1, format!("`{word}`: write `{better}` or the like"));
            }
        }
    }
}

/// Whether a line has these words, and not as a part of others.
fn has(line: &str, words: &str) -> bool {
    let is_letter = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    line.match_indices(words).any(|(at, _)| {
        let (before, after) = (&line[..at], &line[at + words.len()..]);
        !is_letter(before.chars().next_back()) && !is_letter(after.chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::check;

    #[test]
    fn avoided_words_are_found() {
        let found =
            check(&[("docs/a.md", "Nats per token.\nThe model foretells, in nats a token.\n")]);
        assert_eq!(
            found,
            [
                "docs/a.md:2: `foretells`: write `predicts` or the like",
                "docs/a.md:2: `nats a`: write `nats per` or the like"
            ]
        );
        let planted = "//! A.\n/// Fitted anew.\nfn f() {} // anew\n";
        assert_eq!(check(&[("crates/ltm-vi/src/a.rs", planted)]).len(), 1);
        assert_eq!(check(&[("crates/ltm-cli/src/a.rs", planted)]).len(), 2);
        for fine in ["nats are units", "a canewood", "renewed"] {
            assert_eq!(check(&[("docs/a.md", &format!("{fine}\n"))]), [""; 0]);
        }
        assert_eq!(check(&[("benches/runs/a/summary.md", "honest\n")]), [""; 0]);
    }
}
