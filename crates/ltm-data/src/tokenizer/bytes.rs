//! One id per byte.

use super::{Tokenizer, TokenizerSpec, join};
use crate::Result;

/// One id per byte, then the separator: 257 ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes;

impl Tokenizer for Bytes {
    fn encode(&self, text: &str) -> Result<Vec<u32>> {
        Ok(text.bytes().map(u32::from).collect())
    }

    fn decode(&self, tokens: &[u32]) -> String {
        join(tokens, self.separator(), |id| Some(vec![u8::try_from(id).ok()?].into()))
    }

    fn vocab_size(&self) -> usize {
        257
    }

    fn separator(&self) -> u32 {
        256
    }

    fn fingerprint(&self) -> String {
        "bytes".into()
    }

    fn text_bytes(&self, _before: u32, token: u32) -> usize {
        usize::from(u8::try_from(token).is_ok())
    }

    fn cuts_at_white_space(&self) -> bool {
        true
    }

    fn spec(&self) -> TokenizerSpec {
        TokenizerSpec::Bytes
    }
}
