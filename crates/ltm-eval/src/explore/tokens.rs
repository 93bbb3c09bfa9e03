//! What each token of a text costs with its latents and without, and what the model would rather have written.

use ltm_model::Decoder;
use ltm_train::data::Tokenizer;
use serde::Serialize;

use crate::Result;
use crate::text::decode;

/// Candidates of a prediction that are kept.
const MOST: usize = 5;

/// A token of a text, predicted from the true tokens before it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Token {
    /// What it adds to the text.
    pub text: String,
    /// With the latents at the posterior's mean.
    pub with: Predicted,
    /// With the latents at the prior's mean, which know nothing of the text.
    pub without: Predicted,
}

/// How a token was predicted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Predicted {
    /// Nats of the token.
    pub nll: f64,
    /// The tokens of the highest probability, the highest first.
    pub top: Vec<Candidate>,
}

/// A token that may come next.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Candidate {
    /// Its text; the separator ends a text.
    pub text: String,
    /// Its probability.
    pub p: f64,
}

/// Predicts every token of a text, whose first is the separator, at latents `z (L·Z,C)`. `decoder` is one for a single
/// sequence.
pub(super) fn predict(
    decoder: &mut Decoder,
    tokenizer: &dyn Tokenizer,
    tokens: &[i32],
    z: &[f32],
) -> Result<Vec<Predicted>> {
    decoder.set_latents(z)?;
    let mut predicted = Vec::with_capacity(tokens.len().saturating_sub(1));
    for (at, pair) in tokens.windows(2).enumerate() {
        let logits =
            if at == 0 { decoder.prefill(&pair[..1])? } else { decoder.step(&pair[..1])? };
        predicted.push(Predicted::of(logits, pair[1] as usize, tokenizer));
    }
    Ok(predicted)
}

impl Predicted {
    fn of(logits: &[f32], token: usize, tokenizer: &dyn Tokenizer) -> Self {
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
        let log_p = |id: usize| f64::from(logits[id] - max) - sum.ln();
        let mut ids: Vec<usize> = (0..logits.len()).collect();
        // Of equal logits the lower token ranks first, as when one is chosen.
        ids.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
        let candidate = |id: &usize| {
            let is_end = *id == tokenizer.separator() as usize;
            let text = if is_end { "⏹".into() } else { decode(tokenizer, &[*id as i32]) };
            Candidate { text, p: log_p(*id).exp() }
        };
        let top = ids.iter().take(MOST).map(candidate).collect();
        Self { nll: -log_p(token), top }
    }
}

/// The text of tokens, whose first is the separator, in parts: what each of the others adds.
pub(super) fn pieces(tokenizer: &dyn Tokenizer, tokens: &[i32]) -> Vec<String> {
    let text = decode(tokenizer, tokens.get(1..).unwrap_or_default());
    let mut start = 0;
    let piece = |pair: &[i32]| {
        let end = start + tokenizer.text_bytes(pair[0] as u32, pair[1] as u32);
        let piece = text.get(start..end);
        start = end;
        // A token of a part of a character has no text of its own.
        piece.map_or_else(|| decode(tokenizer, &pair[1..]), String::from)
    };
    tokens.windows(2).map(piece).collect()
}

#[cfg(test)]
mod tests {
    use ltm_train::data::{Bytes, storyworld};

    use super::*;

    #[test]
    fn candidates_are_ranked_and_their_probabilities_are_of_all_tokens() {
        let mut logits = [0.0; 257];
        (logits[97], logits[256], logits[98]) = (4.0, 5.0, 4.0);
        let found = Predicted::of(&logits, 97, &Bytes);
        let texts: Vec<&str> = found.top.iter().map(|candidate| candidate.text.as_str()).collect();
        assert_eq!(texts[..3], ["⏹", "a", "b"]);
        assert_eq!(found.top.len(), MOST);
        let sum = 5.0_f64.exp() + 2.0 * 4.0_f64.exp() + 254.0;
        assert!((found.top[1].p - 4.0_f64.exp() / sum).abs() <= 1e-12, "{found:?}");
        assert!((found.nll + found.top[1].p.ln()).abs() <= 1e-12, "{found:?}");
    }

    #[test]
    fn pieces_make_up_the_text() {
        let tokenizer = storyworld::tokenizer();
        let tokens = crate::text::encode(&*tokenizer, "tom went to the lake .").expect("words");
        let found = pieces(&*tokenizer, &tokens);
        assert_eq!((found.len(), found[0].as_str(), found[1].as_str()), (6, "tom", " went"));
        assert_eq!(found.concat(), decode(&*tokenizer, &tokens[1..]));
        // Half of a character cannot be cut off.
        let tokens = crate::text::encode(&Bytes, "é!").expect("bytes");
        let found = pieces(&Bytes, &tokens);
        assert_eq!(found, ["\u{fffd}", "\u{fffd}", "!"]);
    }
}
