//! Text as a model reads it, and as it is read by people.

use ltm_train::data::Tokenizer;

use crate::{Error, Result};

/// The tokens of a text after the separator that documents begin with.
///
/// # Errors
/// Those of the tokenizer: a closed vocabulary may lack a word.
pub fn encode(tokenizer: &dyn Tokenizer, text: &str) -> Result<Vec<i32>> {
    let ids = tokenizer.encode(text)?;
    Ok([tokenizer.separator()].into_iter().chain(ids).map(|id| id as i32).collect())
}

/// Tokens as text, without a separator at the end.
pub fn decode(tokenizer: &dyn Tokenizer, tokens: &[i32]) -> String {
    let ids: Vec<u32> = tokens.iter().map(|token| *token as u32).collect();
    tokenizer.decode(ids.strip_suffix(&[tokenizer.separator()]).unwrap_or(&ids))
}

/// Refuses tokens that are only a separator, or more than a context holds after it.
pub(crate) fn check_length(name: &str, tokens: &[i32], context: usize) -> Result<()> {
    match tokens.len().saturating_sub(1) {
        0 => Err(Error::field(name, "at least one token", "none")),
        t if t > context => {
            Err(Error::field(name, format!("at most {context} tokens, the context"), t))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use ltm_train::data::Bytes;

    use super::*;

    #[test]
    fn a_text_begins_with_a_separator_and_ends_without_one() {
        let separator = Bytes.separator() as i32;
        let tokens = encode(&Bytes, "ab").expect("bytes");
        assert_eq!(tokens, [separator, 97, 98]);
        assert_eq!(decode(&Bytes, &[97, 98, separator]), "ab");
        assert_eq!(decode(&Bytes, &tokens[1..]), "ab");
    }
}
