//! A configuration as a person reads it: every key with its value, its meaning and its default.

use std::fmt::Write as _;

use super::Config;
use super::keys::{Kind, of_section, sections};

/// Columns of an explained configuration.
const WIDTH: usize = 100;

impl Config {
    /// The configuration as a file's text with every key there is: one that is not set is a comment. With
    /// `explain`, each key has its meaning and its default before it.
    pub fn to_annotated_toml(&self, explain: bool) -> String {
        let table = toml::Table::try_from(self).expect("a configuration is made of plain values");
        let mut text = String::new();
        for (idx, section) in sections().into_iter().enumerate() {
            let between = if idx == 0 { "" } else { "\n" };
            let _ = writeln!(text, "{between}[{section}]");
            for key in of_section(section) {
                if explain {
                    let default = format!("Default: {}.", key.default_text());
                    for paragraph in key.meaning.split("\n\n").chain([default.as_str()]) {
                        comment(&mut text, paragraph);
                    }
                    if let Kind::Choice(choices) = &key.kind {
                        for (name, meaning) in choices {
                            comment(&mut text, &format!("- {name}: {meaning}"));
                        }
                    }
                }
                let _ = match table.get(section).and_then(|section| section.get(key.name)) {
                    Some(value) => writeln!(text, "{} = {value}", key.name),
                    None => {
                        writeln!(text, "# {} is not set; default: {}", key.name, key.default_text())
                    }
                };
            }
        }
        text
    }
}

/// A paragraph as comment lines.
fn comment(text: &mut String, paragraph: &str) {
    let mut line = String::from("#");
    for word in paragraph.split_whitespace() {
        if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > WIDTH {
            let _ = writeln!(text, "{line}");
            line = "#".into();
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(text, "{line}");
}

const INTRODUCTION: &str = "# Configuration

A run is described by a TOML file with the sections below.
Every key can be overridden on the command line: `--set train.steps=100`.
`ltm config show FILE --explain` prints a file with every default filled in and each key explained, `ltm config check FILE` checks it, and `ltm config schema` prints a JSON Schema for editors.
An unknown key is an error.
A minimal file sets the data, the model's size and the number of steps:

```toml
[data]
corpus = \"storyworld\"

[model]
dim = 64
n_layers = 2
n_heads = 4
max_seq_len = 96
window = 16
n_latents = 4

[train]
steps = 1000
```

Learning rates are per step, lengths and positions are in tokens, log-likelihoods in nats.
This page is generated from the source code by `ltm config reference`; a test keeps it up to date.
";

/// The reference of every key as Markdown: `docs/configuration.md`.
pub fn reference() -> String {
    let mut text = String::from(INTRODUCTION);
    for section in sections() {
        let _ = writeln!(text, "\n## `[{section}]`");
        for key in of_section(section) {
            let _ = writeln!(text, "\n### `{}`\n", key.full_name());
            let _ = writeln!(text, "{}\n", sentences(&key.meaning));
            let kind = match &key.kind {
                Kind::Choice(_) => "one of the strings below".into(),
                kind => kind.to_string(),
            };
            let default = match key.default_text().as_str() {
                "required" => "Required.".into(),
                default => format!("Default: {default}."),
            };
            let _ = writeln!(text, "Value: {kind}.\n{default}");
            if let Kind::Choice(choices) = &key.kind {
                text.push('\n');
                for (name, meaning) in choices {
                    let _ =
                        writeln!(text, "- `{name}`: {}", sentences(meaning).replace('\n', "\n  "));
                }
            }
        }
    }
    text
}

/// Text with one sentence per line.
fn sentences(text: &str) -> String {
    text.replace(". ", ".\n")
}

#[cfg(test)]
mod tests {
    use super::super::keys::keys;
    use super::*;
    use std::path::Path;

    #[test]
    fn every_key_is_shown_and_the_text_reads_back() {
        let text = include_str!("../../tests/tiny.toml");
        let config = Config::parse(text, Path::new("tiny.toml"), &[]).expect("good");
        for explain in [false, true] {
            let shown = config.to_annotated_toml(explain);
            let again = Config::parse(&shown, Path::new("shown.toml"), &[]).expect("reads back");
            assert_eq!(again, config);
            for key in keys() {
                let [set, not] =
                    [format!("\n{} = ", key.name), format!("\n# {} is not set", key.name)];
                assert!(shown.contains(&set) || shown.contains(&not), "{} in\n{shown}", key.name);
                let first: Vec<&str> = key.meaning.split_whitespace().take(4).collect();
                assert_eq!(shown.contains(&format!("\n# {}", first.join(" "))), explain);
            }
            assert!(shown.lines().all(|line| line.chars().count() <= WIDTH), "{shown}");
        }
    }

    #[test]
    fn a_comment_line_takes_as_many_words_as_fit() {
        let word = |letter: &str, length: usize| letter.repeat(length);
        for (words, lines) in [
            // `# `, a word, a space and a word of 100 columns together, and of one more.
            (vec![word("x", 48), word("ÿ", 49)], 1),
            (vec![word("x", 49), word("ÿ", 49)], 2),
            (vec![word("x", 200), word("y", 1)], 2),
            (vec![], 1),
        ] {
            let mut text = String::new();
            comment(&mut text, &words.join("  \n"));
            assert_eq!(text.lines().count(), lines, "{text}");
            let found: Vec<&str> = text.split_whitespace().filter(|word| *word != "#").collect();
            assert_eq!(found, words);
            assert!(text.lines().all(|line| line.starts_with('#')) && text.ends_with('\n'));
        }
    }

    #[test]
    fn sections_are_apart_and_every_key_has_its_default_and_choices() {
        let text = include_str!("../../tests/tiny.toml");
        let config = Config::parse(text, Path::new("tiny.toml"), &[]).expect("good");
        let shown = config.to_annotated_toml(false);
        assert!(shown.starts_with("[run]\ndir = \"runs/tiny\"\nseed = 1\n"), "{shown}");
        assert_eq!(shown.matches("\n\n[").count(), 4, "{shown}");
        let parts = [
            "\n\n[data]\n# path is not set; default: none: one of",
            "\n# schedule_steps is not set; default: `train.steps`\n",
            "\nnoise = \"fresh\"\n",
        ];
        assert!(parts.iter().all(|part| shown.contains(part)), "{shown}");
        let shown = config.to_annotated_toml(true);
        let parts =
            ["\n# Default: `\"fresh\"`.\n# - fixed: ", "\n# - fresh: ", "\n# Default: required.\n"];
        for part in parts {
            assert!(shown.contains(part), "`{part}` is not in\n{shown}");
        }
    }

    #[test]
    fn the_reference_has_a_chapter_per_key() {
        let text = reference();
        for key in keys() {
            let heading = format!("\n### `{}`\n\n", key.full_name());
            let (_, rest) = text.split_once(&heading).expect(&heading);
            let chapter = rest.split("\n#").next().expect("its text");
            let (meaning, values) = chapter.split_once("\n\nValue: ").expect("its values");
            assert_eq!(meaning.replace('\n', " "), key.meaning.replace("\n\n", "  "), "{heading}");
            assert!(!meaning.contains(". "), "one sentence per line: {meaning}");
            let default = match key.default_text().as_str() {
                "required" => "\nRequired.\n".to_string(),
                default => format!("\nDefault: {default}.\n"),
            };
            assert!(values.contains(&default), "{values}");
            match &key.kind {
                Kind::Choice(choices) => {
                    assert!(values.starts_with("one of the strings below.\n"), "{values}");
                    let listed = values.lines().filter(|line| line.starts_with("- `"));
                    assert!(listed.count() == choices.len(), "{values}");
                }
                kind => assert!(values.starts_with(&format!("{kind}.\n")), "{values}"),
            }
        }
        assert_eq!(text.matches("\n### ").count(), keys().len());
    }
}
