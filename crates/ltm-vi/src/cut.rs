//! Texts cut at a random place, so that a model learns to infer latents from the beginning of a text and to write on
//! from them. Knows no model.

use crate::key::Purpose;
use crate::{Batch, InferKey, Result};

/// The share of texts that are cut before their first token.
const NOTHING_READ: f64 = 0.25;

/// A batch whose rows are cut.
#[derive(Debug)]
pub struct Cut {
    /// What was read: the targets before each cut, to infer latents from.
    pub known: Batch,
    /// The whole batch, of which an encoder reads what is before the cuts.
    pub rest: Batch,
    /// Whether each target `(B·T)` is read or predicted: before the cut, or in the block after it.
    pub counted: Vec<bool>,
}

impl Cut {
    /// Cuts each row at a random place, before its first target for a quarter of the rows, and predicts the `block`
    /// targets after it.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when `key` has fewer numbers than rows.
    pub fn new(batch: Batch, key: InferKey, block: usize) -> Result<Self> {
        let [b, t] = batch.shape();
        let mut known = batch.targets().to_vec();
        let mut counted = vec![false; b * t];
        let mut read = Vec::with_capacity(b);
        for row in 0..b {
            let targets = &mut known[row * t..(row + 1) * t];
            let len = targets.iter().rposition(|id| *id >= 0).map_or(0, |last| last + 1);
            let draw = key.generator(row, Purpose::Prefix, 0)?;
            let cut = match draw.uniform(0) < NOTHING_READ || len < 2 {
                true => 0,
                false => 1 + draw.below(1, len as u64 - 1) as usize,
            };
            for at in 0..(cut + block).min(len) {
                counted[row * t + at] = targets[at] >= 0;
            }
            targets[cut..].fill(Batch::IGNORED);
            read.push(cut);
        }
        let known = batch.with_targets(&known)?;
        Ok(Self { known, rest: batch.with_read(&read)?, counted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Sequences;
    use ltm_model::ModelConfig;

    #[test]
    fn rows_are_cut_anywhere_and_often_before_the_first_token() {
        let config = ModelConfig { vocab_size: 50, ..ModelConfig::ltm_small() };
        let (b, t, len) = (400, 12, 10);
        let row: Vec<i32> = (0..t).map(|i| if i < len { i } else { -1 }).collect();
        let (targets, tokens) = (row.repeat(b), vec![0; b * t as usize]);
        let key = InferKey { seed: 1, step: 2, sequences: Sequences::From(0) };
        let batch = || Batch::new(&config, b, &tokens, &targets).unwrap();
        let cut = Cut::new(batch(), key, 4).unwrap();
        let mut counts = [0; 12];
        for row in 0..b {
            let range = row * t as usize..(row + 1) * t as usize;
            let known = &cut.known.targets()[range.clone()];
            let at = known.iter().filter(|id| **id >= 0).count();
            counts[at] += 1;
            assert_eq!(&cut.rest.readable()[range.clone()], known);
            let counted: Vec<_> =
                (0..).zip(&cut.counted[range]).filter(|(_, c)| **c).map(|(i, _)| i).collect();
            assert_eq!(counted, (0..(at + 4).min(len as usize)).collect::<Vec<_>>());
        }
        assert_eq!(cut.rest.targets(), targets);
        // A quarter of 400, and a ninth of the rest each: five standard deviations.
        assert!((57..=143).contains(&counts[0]), "{counts:?}");
        assert!(counts[1..10].iter().all(|n| (8..=60).contains(n)), "{counts:?}");
        assert_eq!(counts[10..], [0, 0]);
        let again = Cut::new(batch(), key, 4).unwrap();
        assert_eq!(again.known.targets(), cut.known.targets());
        let other = Cut::new(batch(), InferKey { step: 3, ..key }, 4).unwrap();
        assert_ne!(other.known.targets(), cut.known.targets());
    }
}
