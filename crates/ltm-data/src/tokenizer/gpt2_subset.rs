//! GPT-2's encoding with part of its vocabulary, for small corpora: rare tokens are written in shorter ones.

use std::collections::HashMap;

use super::gpt2::{SEPARATOR, bytes_of};
use super::{Gpt2, Tokenizer, TokenizerSpec, join};
use crate::hash::{sha256, short};
use crate::{Error, Result};

/// GPT-2's ids below this one are the single bytes.
const BYTES: u32 = 256;

/// GPT-2's encoding with part of its vocabulary, renumbered: the id of a kept token is its place among them, and the
/// separator is the last id.
///
/// A token that is not kept is written in the longest kept tokens that begin what is left of it. The single bytes are
/// always kept, so every text has ids and comes back from them unchanged.
///
/// ```
/// use ltm_data::{Gpt2Subset, Tokenizer};
///
/// // The single bytes, and one word of GPT-2's: " world" is 995.
/// let tokenizer = Gpt2Subset::new((0..256).chain([995]).collect())?;
/// assert_eq!(tokenizer.vocab_size(), 258);
/// let ids = tokenizer.encode("hi world, hi worlds")?;
/// // ` worlds`, another token of GPT-2's, is written as ` world` and `s`.
/// assert_eq!(ids.iter().filter(|id| **id == 256).count(), 2);
/// assert_eq!(tokenizer.decode(&ids), "hi world, hi worlds");
/// # Ok::<(), ltm_data::Error>(())
/// ```
#[derive(Clone)]
pub struct Gpt2Subset {
    /// GPT-2's ids in ascending order.
    kept: Vec<u32>,
    /// The id of each kept token's bytes.
    ids: HashMap<Vec<u8>, u32>,
    longest: usize,
}

impl std::fmt::Debug for Gpt2Subset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Gpt2Subset({} tokens)", self.kept.len())
    }
}

impl Gpt2Subset {
    /// Keeps these ids of GPT-2's, in ascending order and with those of all single bytes (0 to 255), without the
    /// separator.
    ///
    /// # Errors
    /// [`Error::Field`] for another list.
    pub fn new(kept: Vec<u32>) -> Result<Self> {
        let bad = |found| {
            let expected = "0 to 255 and then ascending ids below 50256";
            Err(Error::field("ids", expected, found))
        };
        if let Some(pair) = kept.windows(2).find(|pair| pair[0] >= pair[1]) {
            return bad(format!("{} before {}", pair[0], pair[1]));
        }
        match (kept.get(BYTES as usize - 1), kept.last()) {
            (Some(last), _) if *last != BYTES - 1 => return bad(format!("{last} at 255")),
            (_, Some(last)) if *last >= SEPARATOR => return bad(last.to_string()),
            (Some(_), Some(_)) => {}
            _ => return bad(format!("{} ids", kept.len())),
        }
        let bytes = kept.iter().map(|id| bytes_of(*id).expect("an id below the separator"));
        let ids: HashMap<_, _> = bytes.zip(0..).collect();
        let longest = ids.keys().map(Vec::len).max().unwrap_or(1);
        Ok(Self { kept, ids, longest })
    }

    /// Keeps the ids that occur at least `least` times, where `counts` has the occurrences of each of GPT-2's ids.
    pub fn frequent(counts: &[u64], least: u64) -> Self {
        let is_kept = |id: u32| {
            id < BYTES || counts.get(id as usize).is_some_and(|count| *count >= least.max(1))
        };
        Self::new((0..SEPARATOR).filter(|id| is_kept(*id)).collect()).expect("ascending ids")
    }

    /// Writes a token in kept ones.
    fn spell(&self, token: &[u8], ids: &mut Vec<u32>) {
        let mut rest = token;
        while !rest.is_empty() {
            let longest = rest.len().min(self.longest);
            let (length, id) = (1..=longest)
                .rev()
                .find_map(|length| Some((length, *self.ids.get(&rest[..length])?)))
                .expect("single bytes are kept");
            ids.push(id);
            rest = &rest[length..];
        }
    }

    /// The bytes of an id; none of the separator and of ids past the vocabulary.
    fn bytes_of(&self, id: u32) -> Option<Vec<u8>> {
        bytes_of(*self.kept.get(id as usize)?)
    }
}

impl Tokenizer for Gpt2Subset {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for token in Gpt2.encode(text)? {
            match self.kept.binary_search(&token) {
                Ok(id) => ids.push(id as u32),
                Err(_) => self.spell(&bytes_of(token).expect("a token of a text"), &mut ids),
            }
        }
        Ok(ids)
    }

    fn decode(&self, tokens: &[u32]) -> String {
        join(tokens, self.separator(), |id| Some(self.bytes_of(id)?.into()))
    }

    fn vocab_size(&self) -> usize {
        self.kept.len() + 1
    }

    fn separator(&self) -> u32 {
        self.kept.len() as u32
    }

    fn fingerprint(&self) -> String {
        let ids: Vec<u8> = self.kept.iter().flat_map(|id| id.to_le_bytes()).collect();
        format!("gpt2-subset {}", short(&sha256(&ids)))
    }

    fn text_bytes(&self, _before: u32, token: u32) -> usize {
        self.bytes_of(token).map_or(0, |bytes| bytes.len())
    }

    fn cuts_at_white_space(&self) -> bool {
        true
    }

    fn spec(&self) -> TokenizerSpec {
        TokenizerSpec::Gpt2Subset { ids: self.kept.clone() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn bytes_and(more: &[u32]) -> Gpt2Subset {
        Gpt2Subset::new((0..BYTES).chain(more.iter().copied()).collect()).expect("a good list")
    }

    #[test]
    fn kept_tokens_are_gpt2s_and_others_are_spelled_in_the_longest_kept() {
        // `Hello` is 15496, `,` 11 (a byte), ` world` 995, `!` 0; `Hell` is 28254.
        let text = "Hello, world!";
        let all = bytes_and(&[995, 15496]);
        assert_eq!(all.encode(text).expect("any text"), [257, 11, 256, 0]);
        let spelled = bytes_and(&[995, 28254]);
        let o = Gpt2.encode("o").expect("a byte")[0];
        assert_eq!(spelled.encode(text).expect("any text"), [257, o, 11, 256, 0]);
        assert_eq!(spelled.decode(&[257, o, 11, 256, 0, 258]), "Hello, world!<|endoftext|>");
    }

    #[test]
    fn ids_that_occur_often_are_kept() {
        let mut counts = vec![0; 50258];
        (counts[300], counts[301], counts[50256]) = (5, 4, 99);
        let found = Gpt2Subset::frequent(&counts, 5);
        assert_eq!(found.kept, (0..BYTES).chain([300]).collect::<Vec<_>>());
        // An id that never occurs is not kept even then.
        assert_eq!(Gpt2Subset::frequent(&counts, 0).kept.len(), 258);
    }

    #[test]
    fn other_lists_are_refused() {
        for (ids, part) in [
            (vec![], "0 ids"),
            ((1..257).collect(), "256 at 255"),
            ((0..256).chain([300, 300]).collect(), "300 before 300"),
            ((0..256).chain([50256]).collect(), "found 50256"),
        ] {
            let error = Gpt2Subset::new(ids).expect_err("refused").to_string();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_record_gives_the_same_tokenizer() {
        let tokenizer = bytes_and(&[995, 15496]);
        let text = serde_json::to_string(&tokenizer.spec()).expect("serialises");
        assert!(text.starts_with(r#"{"name":"gpt2-subset","ids":[0,1,"#), "{text}");
        let spec: TokenizerSpec = serde_json::from_str(&text).expect("parses");
        let opened = spec.open(std::path::Path::new("")).expect("opens");
        assert_eq!(opened.fingerprint(), tokenizer.fingerprint());
        assert_ne!(opened.fingerprint(), bytes_and(&[995]).fingerprint());
    }

    proptest! {
        #[test]
        fn any_text_comes_back(
            text in ".{0,200}",
            kept in proptest::collection::btree_set(BYTES..SEPARATOR, 0..2000),
        ) {
            let kept: Vec<u32> = kept.into_iter().collect();
            let tokenizer = bytes_and(&kept);
            let ids = tokenizer.encode(&text).expect("any text");
            prop_assert_eq!(tokenizer.decode(&ids), text.as_str());
            prop_assert!(ids.iter().all(|id| *id < tokenizer.separator()));
            let bytes: usize = ids.iter().map(|id| tokenizer.text_bytes(0, *id)).sum();
            prop_assert_eq!(bytes, text.len());
        }
    }
}
