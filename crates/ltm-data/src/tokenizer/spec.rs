//! How sidecars and checkpoints record a tokenizer. Opens and encodes nothing.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::hash::short;

/// The name of Hugging Face's tokenizer files, a copy of which is kept next to a sidecar and in a checkpoint.
pub const TOKENIZER_FILE: &str = "tokenizer.json";

/// What sidecars and checkpoints record of a tokenizer: `{"name": "gpt2"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "name", rename_all = "lowercase", deny_unknown_fields)]
pub enum TokenizerSpec {
    /// [`Bytes`](super::Bytes).
    Bytes,
    /// GPT-2's byte-pair encoding.
    Gpt2,
    /// [`Gpt2Subset`](super::Gpt2Subset).
    #[serde(rename = "gpt2-subset")]
    Gpt2Subset {
        /// The kept ids of GPT-2's.
        ids: Vec<u32>,
    },
    /// [`Words`](super::Words).
    Words {
        /// The words in the order of their ids.
        vocabulary: Vec<String>,
    },
    /// A Hugging Face `tokenizer.json`. In a sidecar written by hand, `{"name": "json"}` next to a [`TOKENIZER_FILE`] is
    /// enough.
    Json {
        /// The file, relative to the folder of the record.
        #[serde(default = "tokenizer_file")]
        file: PathBuf,
        /// SHA-256 of the file in hexadecimal digits, which the file must have.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sha256: Option<String>,
        /// The token that ends documents, as the file spells it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        separator: Option<String>,
    },
    /// A tokenizer of a program, which gives it again when it opens the corpus.
    Other {
        /// Its [fingerprint](super::Tokenizer::fingerprint).
        fingerprint: String,
    },
}

fn tokenizer_file() -> PathBuf {
    TOKENIZER_FILE.into()
}

impl std::fmt::Display for TokenizerSpec {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes => f.write_str("bytes"),
            Self::Gpt2 => f.write_str("gpt2"),
            Self::Gpt2Subset { ids } => write!(f, "gpt2 with {} of its tokens", ids.len()),
            Self::Words { .. } => f.write_str("words"),
            Self::Json { sha256: None, .. } => f.write_str(TOKENIZER_FILE),
            Self::Json { sha256: Some(sha256), .. } => {
                write!(f, "{TOKENIZER_FILE} {}", short(sha256))
            }
            Self::Other { fingerprint } => f.write_str(fingerprint),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spec_is_stable() {
        let words = TokenizerSpec::Words { vocabulary: ["the", "."].map(String::from).into() };
        let file = TokenizerSpec::Json {
            file: tokenizer_file(),
            sha256: Some("ab12".into()),
            separator: Some("</s>".into()),
        };
        for (spec, text) in [
            (TokenizerSpec::Bytes, r#"{"name":"bytes"}"#),
            (TokenizerSpec::Gpt2, r#"{"name":"gpt2"}"#),
            (words, r#"{"name":"words","vocabulary":["the","."]}"#),
            (file, r#"{"name":"json","file":"tokenizer.json","sha256":"ab12","separator":"</s>"}"#),
            (
                TokenizerSpec::Other { fingerprint: "own 1".into() },
                r#"{"name":"other","fingerprint":"own 1"}"#,
            ),
        ] {
            assert_eq!(serde_json::to_string(&spec).expect("serialises"), text);
            let read: TokenizerSpec = serde_json::from_str(text).expect("parses");
            assert_eq!(read, spec);
        }
        let short = TokenizerSpec::Json { file: tokenizer_file(), sha256: None, separator: None };
        assert_eq!(serde_json::from_str::<TokenizerSpec>(r#"{"name":"json"}"#).ok(), Some(short));
        assert!(serde_json::from_str::<TokenizerSpec>(r#"{"name":"gpt3"}"#).is_err());
    }
}
