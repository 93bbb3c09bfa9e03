//! The sidecar of a corpus folder. Knows nothing of the shards' bytes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use ltm_files::without_bom;
use serde::{Deserialize, Serialize};

use super::stories;
use super::tokenizer::{SharedTokenizer, TokenizerSpec};
use crate::{Error, Result, Split};

/// The sidecar's name in a corpus folder.
pub const META_FILE: &str = "meta.json";

/// The sidecar `meta.json`. For shards written by other programs, `{"tokenizer": {"name": "gpt2"}}` is enough.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Meta {
    /// What the ids mean.
    pub tokenizer: TokenizerSpec,
    /// The tokenizer's number of ids, for readers that do not know it.
    pub vocab_size: Option<usize>,
    /// The id that ends a document, likewise.
    pub separator: Option<u32>,
    /// The training split.
    pub train: Option<SplitMeta>,
    /// The validation split.
    pub val: Option<SplitMeta>,
    /// The files the text came from.
    #[serde(default)]
    pub sources: Vec<String>,
    /// Malformed records that were skipped.
    #[serde(default)]
    pub skipped: u64,
    /// The parameters of a generated corpus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storyworld: Option<stories::Parameters>,
}

/// The sidecar's description of one split of a corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitMeta {
    /// Documents, each ended by the separator.
    pub documents: u64,
    /// Tokens, separators included.
    pub tokens: u64,
    /// Bytes of text, separators excluded: nats per token become bits per byte through it.
    pub bytes: u64,
    /// The files in order.
    pub shards: Vec<Shard>,
}

/// One file of a corpus.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Its name in the corpus folder.
    pub file: String,
    /// Its tokens.
    pub tokens: u64,
    /// SHA-256 of the file in hexadecimal digits; sidecars written before it was recorded do not have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

impl Meta {
    /// Reads the sidecar of `dir`; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be read or is not a sidecar.
    pub fn read(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join(META_FILE);
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(&path, "read")(error)),
        };
        let meta: Self = serde_json::from_slice(without_bom(&json)).map_err(|error| {
            Error::content(&path, "content", "a corpus sidecar", error.to_string())
        })?;
        Ok(Some(meta))
    }

    /// The tokenizer of the corpus in `dir`, of which this is the sidecar. `given` is taken where it is the recorded one.
    ///
    /// # Errors
    /// Those of [`TokenizerSpec::open`]; [`Error::File`] when it is another one than `given` or than the sidecar
    /// describes.
    pub fn tokenizer(
        &self,
        dir: &Path,
        given: Option<&SharedTokenizer>,
    ) -> Result<SharedTokenizer> {
        let another = |given: &SharedTokenizer| {
            let found = format!("a corpus of the tokenizer {}", self.tokenizer);
            Error::content(dir, "tokenizer", given.spec().to_string(), found)
        };
        let tokenizer = match (given, &self.tokenizer) {
            (Some(given), recorded) if given.spec() == *recorded => Arc::clone(given),
            (Some(given), TokenizerSpec::Other { .. }) => return Err(another(given)),
            (_, recorded) => recorded.open(dir)?,
        };
        if let Some(given) = given.filter(|given| given.fingerprint() != tokenizer.fingerprint()) {
            return Err(another(given));
        }
        let (vocab_size, separator) = (tokenizer.vocab_size(), tokenizer.separator() as usize);
        for (what, recorded, is) in [
            ("vocab_size", self.vocab_size, vocab_size),
            ("separator", self.separator.map(|id| id as usize), separator),
        ] {
            if let Some(recorded) = recorded.filter(|&recorded| recorded != is) {
                let expected = format!("{is}, that of the tokenizer {}", self.tokenizer);
                let path = dir.join(META_FILE);
                return Err(Error::content(&path, what, expected, recorded.to_string()));
            }
        }
        Ok(tokenizer)
    }

    /// The sidecar's description of `split`.
    pub fn split(&self, split: Split) -> Option<&SplitMeta> {
        match split {
            Split::Train => self.train.as_ref(),
            Split::Val => self.val.as_ref(),
        }
    }
}
