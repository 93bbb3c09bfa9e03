//! The tokenizers of Hugging Face's models, read from their `tokenizer.json` by the `tokenizers` library.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use tokenizers::AddedToken;

use super::{END_OF_TEXT, TOKENIZER_FILE, Tokenizer, TokenizerSpec, check};
use crate::guard::guarded;
use crate::hash::{sha256, short};
use crate::{Error, Result};

/// Tokens that end documents, the usual one first.
const SEPARATORS: [&str; 10] = [
    END_OF_TEXT,
    "<|end_of_text|>",
    "<|endofdocument|>",
    "</s>",
    "<eos>",
    "[EOS]",
    "<|eot_id|>",
    "<|im_end|>",
    "<end_of_turn>",
    "[SEP]",
];

/// Bytes of a file that is read; the largest vocabularies have a tenth of them.
const LONGEST_FILE: u64 = 1 << 28;

/// The bytes of an id that the vocabulary does not have.
const NO_TOKEN: u32 = u32::MAX;

/// A tokenizer read from a Hugging Face `tokenizer.json`.
///
/// Special tokens in a text are encoded as the text that they are, no token is added at its ends, and truncation and
/// padding of the file are ignored: a text's ids are those of its characters alone. In memory it takes about 25 times
/// the size of its file: 140 MB for 150,000 tokens.
pub struct TokenizerJson {
    inner: tokenizers::Tokenizer,
    /// The file, as it was read.
    content: Vec<u8>,
    sha256: String,
    separator: u32,
    separator_text: String,
    /// Bytes that each id adds to a text, or [`NO_TOKEN`]; 0 where only the decoded text tells.
    bytes: Vec<u32>,
}

impl std::fmt::Debug for TokenizerJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenizerJson({})", self.fingerprint())
    }
}

/// What this module reads of the file itself.
#[derive(Deserialize)]
struct Outline {
    #[serde(default)]
    decoder: Value,
}

impl TokenizerJson {
    /// Reads a file. Its token `separator` ends documents; when `None`, the first of a list of usual ones that the
    /// vocabulary has, such as `<|endoftext|>` or `</s>`.
    ///
    /// # Errors
    /// [`Error::File`] naming the file when it cannot be read, is not a tokenizer, or has no such token.
    pub fn load(path: &Path, separator: Option<&str>) -> Result<Self> {
        let mut content = Vec::new();
        let file = File::open(path).map_err(Error::io(path, "open"))?;
        file.take(LONGEST_FILE + 1).read_to_end(&mut content).map_err(Error::io(path, "read"))?;
        if content.len() as u64 > LONGEST_FILE {
            let expected = format!("at most {} MiB of a {TOKENIZER_FILE}", LONGEST_FILE >> 20);
            return Err(Error::content(path, "size", expected, "more"));
        }
        Self::from_bytes(content, path, separator)
    }

    /// As [`TokenizerJson::load`], with the file's content given; errors name `path`.
    ///
    /// # Errors
    /// [`Error::File`] when `content` is not a tokenizer or has no such token.
    pub fn from_bytes(content: Vec<u8>, path: &Path, separator: Option<&str>) -> Result<Self> {
        let bad = |found| Error::content(path, "content", "a Hugging Face tokenizer.json", found);
        let json = ltm_files::without_bom(&content);
        let outline: Outline =
            serde_json::from_slice(json).map_err(|error| bad(error.to_string()))?;
        let mut inner = guarded(|| tokenizers::Tokenizer::from_bytes(json)).map_err(bad)?;
        let vocabulary = inner.get_vocab(true);
        let (text, id) = find_separator(&vocabulary, separator, path)?;
        guarded(|| {
            inner.with_truncation(None)?;
            // Special tokens are not searched in texts: the separator is to be one of them.
            inner.add_special_tokens([AddedToken::from(text.clone(), true)])
        })
        .map_err(bad)?;
        inner.with_padding(None);
        inner.set_encode_special_tokens(true);
        let rule = ByteRule::of(&outline.decoder);
        let size = vocabulary.values().max().map_or(0, |last| *last as usize + 1);
        // A list of ids, some of which may be missing; a damaged file may have any.
        if size > 2 * vocabulary.len() + (1 << 16) {
            let found = format!("{} tokens with ids up to {}", vocabulary.len(), size - 1);
            return Err(Error::content(path, "vocabulary", "ids that follow each other", found));
        }
        let mut bytes = vec![NO_TOKEN; size];
        for (token, id) in &vocabulary {
            bytes[*id as usize] = rule.bytes(token);
        }
        let sha256 = sha256(&content);
        let found = Self { inner, content, sha256, separator: id, separator_text: text, bytes };
        check(&found)?;
        Ok(found)
    }

    fn is_text(&self, id: u32) -> bool {
        id != self.separator && self.bytes.get(id as usize).is_some_and(|n| *n != NO_TOKEN)
    }
}

fn find_separator(
    vocabulary: &std::collections::HashMap<String, u32>,
    asked: Option<&str>,
    path: &Path,
) -> Result<(String, u32)> {
    let candidates = asked.map_or(SEPARATORS.to_vec(), |asked| vec![asked]);
    let found = candidates.iter().find_map(|text| Some((*text, *vocabulary.get(*text)?)));
    found.map(|(text, id)| (text.into(), id)).ok_or_else(|| {
        let expected = match asked {
            Some(asked) => format!("the token `{asked}`, which ends documents"),
            None => format!(
                "a token that ends documents: {}, or another one given explicitly",
                SEPARATORS.join(", ")
            ),
        };
        let found = format!("none among {} tokens", vocabulary.len());
        Error::content(path, "vocabulary", expected, found)
    })
}

/// How the bytes of a token are found.
enum ByteRule {
    /// Each character of a token is a byte, as GPT-2 spells them.
    ByteLevel,
    /// Bytes are tokens such as `<0x0A>`; those of others are found by decoding.
    ByteFallback,
    /// By decoding.
    Decoded,
}

impl ByteRule {
    fn of(decoder: &Value) -> Self {
        let steps = match decoder["decoders"].as_array() {
            Some(steps) => steps.clone(),
            None => vec![decoder.clone()],
        };
        let has = |kind: &str| steps.iter().any(|step| step["type"] == kind);
        match () {
            () if has("ByteLevel") => Self::ByteLevel,
            () if has("ByteFallback") => Self::ByteFallback,
            () => Self::Decoded,
        }
    }

    /// The bytes of a token; 0 where only the decoded text tells.
    fn bytes(&self, token: &str) -> u32 {
        match self {
            Self::ByteLevel if token.chars().all(is_byte_level) => token.chars().count() as u32,
            Self::ByteLevel => token.len() as u32,
            Self::ByteFallback if is_byte_token(token) => 1,
            Self::ByteFallback | Self::Decoded => 0,
        }
    }
}

/// Whether GPT-2's byte-level spelling has this character for a byte.
fn is_byte_level(c: char) -> bool {
    matches!(c, '!'..='~' | '\u{A1}'..='\u{AC}' | '\u{AE}'..='\u{FF}' | '\u{100}'..='\u{143}')
}

/// Whether this is the token of a single byte, such as `<0x0A>`.
fn is_byte_token(token: &str) -> bool {
    let digits = token.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && u8::from_str_radix(digits, 16).is_ok())
}

impl Tokenizer for TokenizerJson {
    /// A word of the text that is the separator, in a vocabulary of whole words, is omitted.
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoded = guarded(|| self.inner.encode_fast(text, false));
        let encoded = encoded
            .map_err(|reason| Error::Encode { tokenizer: self.spec().to_string(), reason })?;
        let ids = encoded.get_ids().iter().copied();
        Ok(ids.filter(|id| *id != self.separator).collect())
    }

    fn decode(&self, tokens: &[u32]) -> String {
        let mut text = String::new();
        for run in tokens.chunk_by(|a, b| self.is_text(*a) && self.is_text(*b)) {
            match run {
                [id, ..] if self.is_text(*id) => {
                    let decoded = guarded(|| self.inner.decode(run, false));
                    text += decoded.as_deref().unwrap_or("\u{FFFD}");
                }
                [id] if *id == self.separator => text += END_OF_TEXT,
                _ => text.push('\u{FFFD}'),
            }
        }
        text
    }

    fn vocab_size(&self) -> usize {
        self.bytes.len()
    }

    fn separator(&self) -> u32 {
        self.separator
    }

    fn fingerprint(&self) -> String {
        format!("{TOKENIZER_FILE} {} {}", short(&self.sha256), self.separator_text)
    }

    fn text_bytes(&self, before: u32, token: u32) -> usize {
        if !self.is_text(token) {
            return 0;
        }
        match self.bytes[token as usize] {
            // A token after one that is a part of a character is counted as after none.
            0 if self.is_text(before) && self.bytes[before as usize] == 0 => {
                let after = self.decode(&[before, token]).len();
                after.saturating_sub(self.decode(&[before]).len())
            }
            0 if self.is_text(before) => {
                // With a neighbour, so that a decoder that strips the start of a text leaves this token whole.
                let neighbour = self.decode(&[token, token]).len();
                neighbour - self.decode(&[token]).len()
            }
            0 => self.decode(&[token]).len(),
            bytes => bytes as usize,
        }
    }

    fn spec(&self) -> TokenizerSpec {
        TokenizerSpec::Json {
            file: TOKENIZER_FILE.into(),
            sha256: Some(self.sha256.clone()),
            separator: Some(self.separator_text.clone()),
        }
    }

    fn file(&self) -> Option<&[u8]> {
        Some(&self.content)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// A byte-level BPE of these merges after the 256 bytes, then the special tokens.
    pub(crate) fn byte_level(merges: &[(&str, &str)], special: &[&str]) -> Vec<u8> {
        let bytes: Vec<char> = ('\0'..='\u{143}').filter(|c| is_byte_level(*c)).collect();
        assert_eq!(bytes.len(), 256, "each byte has a character");
        let mut vocabulary = serde_json::Map::new();
        let merged = merges.iter().map(|(a, b)| format!("{a}{b}"));
        for token in bytes.iter().map(char::to_string).chain(merged) {
            let id = vocabulary.len();
            vocabulary.insert(token, id.into());
        }
        let added: Vec<Value> = special
            .iter()
            .enumerate()
            .map(|(i, token)| {
                json!({
                    "id": vocabulary.len() + i, "content": token, "single_word": false,
                    "lstrip": false, "rstrip": false, "normalized": false, "special": true
                })
            })
            .collect();
        let byte_level = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
        });
        let merges: Vec<String> = merges.iter().map(|(a, b)| format!("{a} {b}")).collect();
        let file = json!({
            "version": "1.0",
            "truncation": {
                "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0
            },
            "padding": null,
            "added_tokens": added,
            "normalizer": null,
            "pre_tokenizer": byte_level,
            "post_processor": byte_level,
            "decoder": byte_level,
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
                "vocab": vocabulary, "merges": merges
            }
        });
        serde_json::to_vec(&file).expect("plain data")
    }

    /// A vocabulary of whole words `w0 … w{n-1}`, then `<|endoftext|>`.
    pub(crate) fn word_level(n: usize) -> Vec<u8> {
        let mut vocabulary: serde_json::Map<String, Value> =
            (0..n).map(|i| (format!("w{i}"), i.into())).collect();
        vocabulary.insert(END_OF_TEXT.into(), n.into());
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": null, "pre_tokenizer": { "type": "WhitespaceSplit" },
            "post_processor": null, "decoder": null,
            "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "none" }
        });
        serde_json::to_vec(&file).expect("plain data")
    }

    fn load(content: Vec<u8>) -> Result<TokenizerJson> {
        TokenizerJson::from_bytes(content, Path::new("a/tokenizer.json"), None)
    }

    fn bytes(tokenizer: &TokenizerJson, ids: &[u32]) -> usize {
        let before = [tokenizer.separator()].into_iter().chain(ids.iter().copied());
        before.zip(ids).map(|(before, id)| tokenizer.text_bytes(before, *id)).sum()
    }

    #[test]
    fn a_byte_level_file_encodes_by_its_merges_without_truncation_or_special_tokens() {
        let merges = [("t", "h"), ("th", "e"), ("Ġ", "the")];
        let found = load(byte_level(&merges, &["<|im_end|>", END_OF_TEXT])).expect("good");
        assert_eq!((found.vocab_size(), found.separator()), (261, 260));
        let ids = found.encode("the the").expect("any text");
        assert_eq!(ids, [257, 258]);
        let text = "naïve <|endoftext|> 東京\n\n  the\t🙂 <|im_end|>";
        let ids = found.encode(text).expect("any text");
        assert!(ids.len() > 10 && ids.iter().all(|id| *id < 259), "text alone: {ids:?}");
        assert_eq!(found.decode(&ids), text);
        assert_eq!(bytes(&found, &ids), text.len());
        assert_eq!(found.decode(&[257, 260, 999, 257]), "the<|endoftext|>\u{FFFD}the");
        assert_eq!(found.decode(&[259]), "<|im_end|>");
    }

    #[test]
    fn words_beyond_16_bits_have_ids() {
        let found = load(word_level(70_000)).expect("good");
        assert_eq!((found.vocab_size(), found.separator()), (70_001, 70_000));
        let ids = found.encode("w69999 w1 <|endoftext|> w65536").expect("words");
        assert_eq!(ids, [69_999, 1, 65_536], "never the separator");
        assert_eq!(found.decode(&ids), "w69999 w1 w65536");
        assert_eq!(bytes(&found, &ids), "w69999 w1 w65536".len());
        let error = found.encode("w70000").expect_err("no such word").to_string();
        assert!(error.contains("tokenizer.json") && error.contains("UNK"), "{error}");
    }

    #[test]
    fn bytes_of_a_sentencepiece_vocabulary_are_those_of_the_text() {
        let pieces = ["<unk>", "</s>", "▁a", "▁b", "b", "▁"];
        let mut vocabulary: Vec<Value> = pieces.iter().map(|piece| json!([piece, -1.0])).collect();
        vocabulary.extend((0..=255).map(|byte| json!([format!("<0x{byte:02X}>"), -9.0])));
        let file = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
            "normalizer": { "type": "Sequence", "normalizers": [
                { "type": "Prepend", "prepend": "▁" },
                { "type": "Replace", "pattern": { "String": " " }, "content": "▁" }
            ] },
            "pre_tokenizer": null, "post_processor": null,
            "decoder": { "type": "Sequence", "decoders": [
                { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
                { "type": "ByteFallback" }, { "type": "Fuse" },
                { "type": "Strip", "content": " ", "start": 1, "stop": 0 }
            ] },
            "model": { "type": "Unigram", "unk_id": 0, "byte_fallback": true, "vocab": vocabulary }
        });
        let found = load(serde_json::to_vec(&file).expect("plain data")).expect("good");
        assert_eq!(found.separator(), 1);
        for text in ["a b", "a bb b", "a é a", "b東b b"] {
            let ids = found.encode(text).expect("any text");
            assert_eq!(found.decode(&ids), text);
            assert_eq!(bytes(&found, &ids), text.len(), "{text}: {ids:?}");
        }
    }

    #[test]
    fn the_separator_is_the_one_asked_for_and_part_of_the_identity() {
        let content = byte_level(&[], &["<|im_end|>", END_OF_TEXT]);
        let path = Path::new("a/tokenizer.json");
        let of = |separator| TokenizerJson::from_bytes(content.clone(), path, separator);
        let (usual, other) = (of(None).expect("usual"), of(Some("<|im_end|>")).expect("there"));
        assert_eq!((usual.separator(), other.separator()), (257, 256));
        assert_ne!(usual.fingerprint(), other.fingerprint());
        let error = of(Some("</s>")).expect_err("not there").to_string();
        assert!(error.starts_with("a/tokenizer.json: vocabulary: expected the token `</s>`"));
    }

    #[test]
    fn bad_files_are_refused_by_name() {
        let good = byte_level(&[("t", "h")], &[END_OF_TEXT]);
        for (content, part) in [
            (b"{".to_vec(), "expected a Hugging Face tokenizer.json, found EOF"),
            (b"{}".to_vec(), "expected a Hugging Face tokenizer.json, found"),
            (b"[1, 2]".to_vec(), "expected a Hugging Face tokenizer.json, found"),
            (good[..good.len() / 2].to_vec(), "expected a Hugging Face tokenizer.json, found EOF"),
            (byte_level(&[("no", "such")], &[END_OF_TEXT]), "content: expected"),
            (byte_level(&[], &[]), "vocabulary: expected a token that ends documents: <|endoft"),
        ] {
            let error = load(content).expect_err("bad").to_string();
            assert!(error.starts_with("a/tokenizer.json: ") && error.contains(part), "{error}");
        }
        let far = String::from_utf8(word_level(2))
            .expect("text")
            .replace("\"w1\":1", "\"w1\":4000000000");
        let error = load(far.into_bytes()).expect_err("too far").to_string();
        assert!(error.contains("expected ids that follow each other, found 3 tokens"), "{error}");
        let error = TokenizerJson::load(Path::new("/no/such.json"), None).expect_err("absent");
        assert!(error.to_string().contains("/no/such.json: cannot open"), "{error}");
    }
}
