//! What identifies a corpus: its tokenizer, its files, their sizes and a hash of their content. A run records it, so that
//! other data under the same path are noticed.

use serde::{Deserialize, Serialize};

use super::difference::Difference;
use super::hash::short;
use super::meta::Shard;
use super::stories;
use super::tokenizer::Tokenizer;

/// Differing files that [`Fingerprint::differences`] names one by one.
const NAMED: usize = 3;

/// What one split of a corpus consists of; see [`Corpus::fingerprint`](super::Corpus::fingerprint).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// The tokenizer's [fingerprint](Tokenizer::fingerprint).
    pub tokenizer: String,
    /// The parameters of a generated corpus, where they are known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storyworld: Option<stories::Parameters>,
    /// The files in order, each with its hash.
    pub shards: Vec<Shard>,
}

impl Fingerprint {
    pub(super) fn new(
        tokenizer: &dyn Tokenizer,
        storyworld: Option<stories::Parameters>,
        shards: Vec<Shard>,
    ) -> Self {
        Self { tokenizer: tokenizer.fingerprint(), storyworld, shards }
    }

    /// Tokens in all files.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().map(|shard| shard.tokens).sum()
    }

    /// How `new` differs from this corpus; empty when both give the same batches. The parameters of a generated corpus
    /// count only where both are known, and the first files that differ are named, the others counted.
    pub fn differences(&self, new: &Self) -> Vec<Difference> {
        let mut found = Vec::new();
        found.extend(Difference::of("tokenizer", &self.tokenizer, &new.tokenizer));
        if let (Some(old), Some(new)) = (&self.storyworld, &new.storyworld) {
            found.extend(old.differences(new));
        }
        found.extend(Difference::of("tokens", self.tokens(), new.tokens()));
        found.extend(Difference::of("files", self.shards.len(), new.shards.len()));
        let pairs = self.shards.iter().zip(&new.shards);
        let mut differing = pairs.filter(|(old, new)| old != new);
        for (old, new) in differing.by_ref().take(NAMED) {
            found.extend(Difference::of(&old.file, describe(old, new), describe(new, old)));
        }
        let rest = differing.count();
        found.extend(Difference::of("other files with other content", 0, rest));
        found
    }
}

/// A file as far as it is not like `other`.
fn describe(shard: &Shard, other: &Shard) -> String {
    let mut text = String::new();
    if shard.file != other.file {
        text += &format!("{}, ", shard.file);
    }
    text += &format!("{} tokens", shard.tokens);
    if let Some(hash) = shard.sha256.as_ref().filter(|_| shard.sha256 != other.sha256) {
        text += &format!(", SHA-256 {}", short(hash));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::hash::sha256;
    use super::super::storyworld;
    use super::super::tokenizer::Bytes;
    use super::*;

    fn shard(file: &str, tokens: u64, content: &str) -> Shard {
        Shard { file: file.into(), tokens, sha256: Some(sha256(content.as_bytes())) }
    }

    #[test]
    fn differences_are_listed_as_old_and_new() {
        let stories = |seed| storyworld::Parameters { seed, documents: 8, val_documents: 2 };
        let old = Fingerprint::new(
            &*storyworld::tokenizer(),
            Some(stories(1)),
            vec![shard("train-000.bin", 10, "a")],
        );
        assert_eq!(old.differences(&old), []);
        let unknown = Fingerprint { storyworld: None, ..old.clone() };
        assert_eq!(old.differences(&unknown), [], "an older sidecar of the same content");
        let new = Fingerprint::new(
            &Bytes,
            Some(stories(2)),
            vec![shard("train-000.bin", 10, "b"), shard("train-001.bin", 3, "c")],
        );
        let lines: Vec<String> = old.differences(&new).iter().map(ToString::to_string).collect();
        assert!(lines[0].starts_with("tokenizer: words ") && lines[0].ends_with("→ bytes"));
        assert_eq!(lines[1..4], ["storyworld.seed: 1 → 2", "tokens: 10 → 13", "files: 1 → 2"]);
        assert_eq!(
            lines[4],
            "train-000.bin: 10 tokens, SHA-256 ca978112ca1b → 10 tokens, SHA-256 3e23e8160039"
        );
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn many_differing_files_are_counted() {
        let shards = |content: &str| (0..9).map(|i| shard(&format!("{i}"), 1, content)).collect();
        let [old, new] = ["a", "b"].map(|c| Fingerprint::new(&Bytes, None, shards(c)));
        let found = old.differences(&new);
        assert_eq!(found.len(), NAMED + 1);
        assert_eq!(found[NAMED].to_string(), "other files with other content: 0 → 6");
    }
}
