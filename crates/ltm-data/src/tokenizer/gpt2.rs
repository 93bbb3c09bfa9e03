//! GPT-2's byte-pair encoding.

use super::{Tokenizer, TokenizerSpec, join};
use crate::Result;

/// Longer runs of white space are split off before GPT-2's pre-tokenizer sees them: it backtracks over a run, which takes
/// stack for each character.
const WHITE_SPACE_RUN: usize = 1 << 10;

/// GPT-2's id of the end of a document.
pub(super) const SEPARATOR: u32 = 50256;

/// GPT-2's byte-pair encoding: 50257 ids, and an unused one that the published models have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpt2;

impl Tokenizer for Gpt2 {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let gpt2 = tiktoken_rs::r50k_base_singleton();
        let mut ids = Vec::new();
        let mut start = 0; // of the text that is not encoded yet
        let mut run = 0; // where the white space before `at` starts
        let mut last = 0; // the start of the character before `at`
        for (at, c) in text.char_indices() {
            if !c.is_whitespace() {
                if at - run > WHITE_SPACE_RUN {
                    // GPT-2 takes a run of white space up to its last character, which goes with what follows.
                    ids.extend(gpt2.encode_ordinary(&text[start..last]));
                    start = last;
                }
                run = at + c.len_utf8();
            }
            last = at;
        }
        ids.extend(gpt2.encode_ordinary(&text[start..]));
        Ok(ids)
    }

    fn decode(&self, tokens: &[u32]) -> String {
        join(tokens, SEPARATOR, |id| Some(bytes_of(id)?.into()))
    }

    fn vocab_size(&self) -> usize {
        50258
    }

    fn separator(&self) -> u32 {
        SEPARATOR
    }

    fn fingerprint(&self) -> String {
        "gpt2".into()
    }

    fn text_bytes(&self, _before: u32, token: u32) -> usize {
        if token == SEPARATOR { 0 } else { bytes_of(token).map_or(0, |bytes| bytes.len()) }
    }

    fn cuts_at_white_space(&self) -> bool {
        true
    }

    fn spec(&self) -> TokenizerSpec {
        TokenizerSpec::Gpt2
    }
}

/// The bytes of an id that GPT-2 has.
pub(super) fn bytes_of(id: u32) -> Option<Vec<u8>> {
    tiktoken_rs::r50k_base_singleton().decode_bytes(&[id]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_runs_of_white_space_give_the_ids_of_the_whole_text() {
        let whole = |text: &str| tiktoken_rs::r50k_base_singleton().encode_ordinary(text);
        for run in [" ", "\n", "\r\n", "\t ", "\u{2003}", " \u{85}"] {
            for around in ["x_y", "_y", "x_", "'s_'s 1_2", "x_\u{301}y_ "] {
                // Longer than is split off, shorter than what the pre-tokenizer can take.
                for length in [WHITE_SPACE_RUN - 1, WHITE_SPACE_RUN, WHITE_SPACE_RUN + 7] {
                    let text = around.replace('_', &run.repeat(length));
                    let found = Gpt2.encode(&text).expect("any text");
                    assert_eq!(found, whole(&text), "{around} {run:?} {length}");
                }
            }
        }
    }

    #[test]
    fn a_million_blanks_are_encoded() {
        for run in [" ", "\n"] {
            let text = format!("x{}y", run.repeat(1_000_000));
            let ids = Gpt2.encode(&text).expect("any text");
            assert_eq!(Gpt2.decode(&ids), text);
        }
    }
}
