//! A tokenizer as a file of Hugging Face's `tokenizers` library, for programs that read no other form. Encodes nothing.

use serde_json::{Map, Value, json};

use super::{END_OF_TEXT, Tokenizer, TokenizerSpec};
use crate::{Error, Result};

/// The content of a `tokenizer.json` with the ids of `tokenizer`, whose separator is the special token
/// [`END_OF_TEXT`]. A tokenizer that was read from such a file gives that file, unchanged.
///
/// One thing has no form there: a [`Gpt2Subset`](super::Gpt2Subset) writes a token that it does not keep in kept ones. The
/// file has such tokens with ids after the separator's, and whoever uses it replaces each by the longest kept tokens that
/// begin what is left of it.
///
/// ```
/// use ltm_data::{Bytes, tokenizer::portable};
///
/// let file = portable(&Bytes)?;
/// assert!(String::from_utf8_lossy(&file).contains(r#""content":"<|endoftext|>""#));
/// # Ok::<(), ltm_data::Error>(())
/// ```
///
/// # Errors
/// [`Error::Field`] for a tokenizer of the program's own.
pub fn portable(tokenizer: &dyn Tokenizer) -> Result<Vec<u8>> {
    if let Some(file) = tokenizer.file() {
        return Ok(file.to_vec());
    }
    let separator = tokenizer.separator();
    let file = match tokenizer.spec() {
        TokenizerSpec::Bytes => {
            let vocabulary = (0..=255).map(|byte| (spelled(&[byte]), byte.into())).collect();
            byte_level(separator, vocabulary, &[], false)
        }
        TokenizerSpec::Words { vocabulary } => words(separator, vocabulary),
        #[cfg(feature = "gpt2")]
        TokenizerSpec::Gpt2 => gpt2::file(separator, &[]),
        #[cfg(feature = "gpt2")]
        TokenizerSpec::Gpt2Subset { ids } => gpt2::file(separator, &ids),
        other => {
            let expected = "bytes, gpt2, words or a tokenizer.json, which other programs can use";
            return Err(Error::field("tokenizer", expected, other));
        }
    };
    Ok(serde_json::to_vec(&file).expect("plain data serialises"))
}

/// The character for a byte in the spelling of byte-level tokenizers: printable ones are themselves.
fn character(byte: u8) -> char {
    let is_printable = |byte: &u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    match is_printable(&byte) {
        true => char::from(byte),
        false => {
            let before = (0..byte).filter(|byte| !is_printable(byte)).count();
            char::from_u32(256 + before as u32).expect("a letter of Latin Extended-A")
        }
    }
}

fn spelled(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| character(*byte)).collect()
}

/// A byte-level BPE, whose texts are split like GPT-2's where `splits`.
fn byte_level(
    separator: u32,
    vocabulary: Map<String, Value>,
    merges: &[[String; 2]],
    splits: bool,
) -> Value {
    let byte_level = json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": splits
    });
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
        "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": vocabulary, "merges": merges
    });
    file(separator, Value::Null, byte_level.clone(), byte_level, model)
}

/// A closed list of words: lower-cased, split at white space, trailing punctuation split off.
fn words(separator: u32, vocabulary: Vec<String>) -> Value {
    let ids = vocabulary.into_iter().zip(0u32..).map(|(word, id)| (word, id.into()));
    let vocabulary: Map<String, Value> = ids.collect();
    let marks = json!({
        "type": "Split", "pattern": { "Regex": "[.,!?](?=[.,!?]*$)" }, "behavior": "Isolated",
        "invert": false
    });
    let pre =
        json!({ "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, marks] });
    // A space before every token but punctuation, and none at the beginning.
    let spaced =
        json!({ "type": "Replace", "pattern": { "Regex": "^(?![.,!?]$)" }, "content": " " });
    let decoder = json!({ "type": "Sequence", "decoders": [
        spaced, { "type": "Fuse" }, { "type": "Strip", "content": " ", "start": 1, "stop": 0 }
    ] });
    // No word has this text, so that unknown words are refused.
    let unknown = "<an unknown word>";
    let model = json!({ "type": "WordLevel", "vocab": vocabulary, "unk_token": unknown });
    file(separator, json!({ "type": "Lowercase" }), pre, decoder, model)
}

fn file(
    separator: u32,
    normalizer: Value,
    pre_tokenizer: Value,
    decoder: Value,
    model: Value,
) -> Value {
    let separator = json!({
        "id": separator, "content": END_OF_TEXT, "single_word": false, "lstrip": false, "rstrip": false,
        "normalized": false, "special": true
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [separator],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null,
        "decoder": decoder, "model": model
    })
}

#[cfg(feature = "gpt2")]
mod gpt2 {
    use std::collections::HashMap;

    use serde_json::{Map, Value};

    use super::super::gpt2::{SEPARATOR, bytes_of};
    use super::{byte_level, spelled};

    /// GPT-2's encoding; with `kept` ids only these have the ids before the separator, in their order.
    pub(super) fn file(separator: u32, kept: &[u32]) -> Value {
        let tokens: Vec<Vec<u8>> =
            (0..SEPARATOR).map(|id| bytes_of(id).expect("an id below the separator")).collect();
        let mut next = separator;
        let mut renumbered = |id: u32| match kept.binary_search(&id) {
            _ if kept.is_empty() => id,
            Ok(place) => place as u32,
            Err(_) => {
                next += 1;
                next
            }
        };
        let vocabulary: Map<String, Value> = (0..SEPARATOR)
            .zip(&tokens)
            .map(|(id, token)| (spelled(token), renumbered(id).into()))
            .collect();
        let ranks: HashMap<&[u8], u32> =
            tokens.iter().zip(0..).map(|(token, rank)| (token.as_slice(), rank)).collect();
        let long = tokens.iter().zip(0..).filter(|(token, _)| token.len() > 1);
        let merges: Vec<[String; 2]> =
            long.map(|(token, rank)| last_merge(token, rank, &ranks)).collect();
        byte_level(separator, vocabulary, &merges, true)
    }

    /// The two tokens whose merge gives `token`: what merges of lower ranks leave of it.
    fn last_merge(token: &[u8], rank: u32, ranks: &HashMap<&[u8], u32>) -> [String; 2] {
        let mut ends: Vec<usize> = (0..=token.len()).collect();
        while ends.len() > 3 {
            let merged = ends.windows(3).enumerate().filter_map(|(at, part)| {
                let found = *ranks.get(&token[part[0]..part[2]])?;
                (found < rank).then_some((found, at + 1))
            });
            let (_, at) = merged.min().expect("a token is made by merges of lower ranks");
            ends.remove(at);
        }
        [spelled(&token[..ends[1]]), spelled(&token[ends[1]..])]
    }
}

#[cfg(all(test, feature = "gpt2", feature = "tokenizer-json"))]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::tokenizer::{Bytes, Gpt2, Gpt2Subset, TokenizerJson, json_tests, of_stories};
    use crate::{Words, stories};

    /// The tokenizer read back from its portable form.
    fn read_back(tokenizer: &dyn Tokenizer) -> TokenizerJson {
        let file = portable(tokenizer).expect("portable");
        TokenizerJson::from_bytes(file, Path::new("tokenizer.json"), None).expect("a tokenizer")
    }

    /// The file gives the ids and the texts of the tokenizer.
    fn check(tokenizer: &dyn Tokenizer, texts: &[&str]) {
        let file = read_back(tokenizer);
        assert_eq!(file.separator(), tokenizer.separator());
        for text in texts {
            let ids = tokenizer.encode(text).expect("a text of the vocabulary");
            assert_eq!(file.encode(text).expect("the same"), ids, "{text:?}");
            assert_eq!(file.decode(&ids), tokenizer.decode(&ids), "{text:?}");
        }
    }

    const TEXTS: [&str; 6] = [
        "Hello, world! It's 1234 o'clock.",
        "naïve <|endoftext|> 東京\n\n  tabs\tand 'quotes' don't 🙂",
        "",
        "  leading and trailing   ",
        "unbelievably internationalization antidisestablishmentarianism",
        "\0\u{7f}\u{ad}é\r\n",
    ];

    #[test]
    fn bytes_and_gpt2_have_the_same_ids() {
        check(&Bytes, &TEXTS);
        check(&Gpt2, &TEXTS);
        // GPT-2's first merges, as published: the file's order is theirs.
        let file: Value =
            serde_json::from_slice(&portable(&Gpt2).expect("portable")).expect("JSON");
        assert_eq!(file["model"]["merges"][0], json!(["Ġ", "t"]));
        assert_eq!(file["model"]["merges"][2], json!(["h", "e"]));
        assert_eq!(file["model"]["vocab"]["Ġworld"], 995);
        assert_eq!(file["model"]["merges"].as_array().map(Vec::len), Some(50_000));
    }

    #[test]
    fn words_are_split_joined_and_refused_alike() {
        let own = ["the", "cat", ",", ".", "!", "a.b", "sat"].map(String::from);
        let own = Words::new(own.into()).expect("a good list");
        check(&own, &["The cat sat.", "the , cat,,!. a.b. \n sat", ". the", "a.b"]);
        let error = read_back(&own).encode("the dog").expect_err("no dog").to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
        let tokenizer = of_stories();
        for index in 0..20 {
            let tokens = stories::tokens(7, index);
            let text = tokenizer.decode(&tokens[..tokens.len() - 1]);
            check(&*tokenizer, &[&text]);
        }
    }

    #[test]
    fn tokens_that_are_not_kept_have_ids_after_the_separator() {
        // ` world`, `Hello`: as in `Hello, worlds`, whose last token is not kept.
        let kept: Vec<u32> = (0..256).chain([995, 15496]).collect();
        let tokenizer = Gpt2Subset::new(kept).expect("a good list");
        let file = read_back(&tokenizer);
        let ids = file.encode("Hello, worlds").expect("any text");
        assert_eq!(ids[..2], [257, 11]);
        assert!(ids[2] > tokenizer.separator(), "{ids:?}");
        assert_eq!(file.decode(&ids), "Hello, worlds");
        assert_eq!(file.encode("Hello world").expect("any text"), [257, 256]);
        assert_eq!(file.vocab_size(), 50_257);
    }

    #[test]
    fn a_file_is_itself_and_a_program_s_own_is_refused() {
        let content = json_tests::byte_level(&[("t", "h")], &[END_OF_TEXT]);
        let path = Path::new("tokenizer.json");
        let read = TokenizerJson::from_bytes(content.clone(), path, None).expect("a tokenizer");
        assert_eq!(portable(&read).expect("itself"), content);

        #[derive(Debug)]
        struct Own;
        impl Tokenizer for Own {
            fn encode(&self, _: &str) -> Result<Vec<u32>> {
                Ok(Vec::new())
            }
            fn decode(&self, _: &[u32]) -> String {
                String::new()
            }
            fn vocab_size(&self) -> usize {
                2
            }
            fn separator(&self) -> u32 {
                1
            }
            fn fingerprint(&self) -> String {
                "own 1".into()
            }
        }
        let error = portable(&Own).expect_err("refused").to_string();
        assert!(error.contains("found own 1"), "{error}");
    }
}
