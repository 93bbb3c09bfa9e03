//! Sequences to fit, score and train on, checked once. Knows no model but its vocabulary.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::argument;
use crate::{Extents, Result};

/// `B` sequences of `T` tokens and the targets to predict. It cannot be changed, so what was computed of it stays
/// true.
#[derive(Debug)]
pub struct Batch {
    b: usize,
    t: usize,
    tokens: Vec<i32>,
    targets: Vec<i32>,
    context: Vec<usize>,
    read: Vec<usize>,
    vocab_size: usize,
    /// A number that no other batch has.
    id: u64,
}

impl Batch {
    /// The target of a position that is not scored.
    pub const IGNORED: i32 = -1;

    /// A batch of `b` sequences for a model: `tokens (B,T)` and the `targets (B,T)` to predict, -1 where a position is
    /// not scored.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when `tokens` is not a positive multiple of `b`, or there are more or
    /// fewer targets; [`Error::Kernel`](crate::Error::Kernel) for a token, or a target other than -1, outside the
    /// vocabulary.
    pub fn new(
        model: impl Into<Extents>,
        b: usize,
        tokens: &[i32],
        targets: &[i32],
    ) -> Result<Self> {
        let vocab_size = model.into().vocab_size;
        if b == 0 || tokens.is_empty() || !tokens.len().is_multiple_of(b) {
            let expected = format!("a positive multiple of the {b} sequences");
            return Err(argument("tokens", expected, tokens.len()));
        }
        check_indices("embedding", vocab_size, tokens)?;
        let t = tokens.len() / b;
        let (tokens, targets) = (tokens.to_vec(), targets.to_vec());
        let (context, read) = (vec![0; b], vec![t; b]);
        let batch =
            Self { b, t, tokens, targets: Vec::new(), context, read, vocab_size, id: new_id() };
        batch.with_targets(&targets)
    }

    /// The same tokens with other targets.
    ///
    /// # Errors
    /// Those of [`new`](Self::new).
    pub fn with_targets(&self, targets: &[i32]) -> Result<Self> {
        let len = self.b * self.t;
        if targets.len() != len {
            return Err(argument("targets", format!("{len} entries, B·T"), targets.len()));
        }
        check_indices("cross_entropy", self.vocab_size, targets)?;
        let (tokens, targets) = (self.tokens.clone(), targets.to_vec());
        let (context, read) = (self.context.clone(), self.read.clone());
        Ok(Self { tokens, targets, context, read, id: new_id(), ..*self })
    }

    /// The same batch, whose rows' first `context` targets are already known: these are not scored, but latents may be
    /// fitted to them. For protocols whose windows overlap.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when there is not one number per row, or one exceeds a row.
    pub fn with_context(self, context: &[usize]) -> Result<Self> {
        self.check_lengths("context", context)?;
        Ok(Self { context: context.to_vec(), ..self })
    }

    /// The same batch, of whose rows an encoder reads the first `read` targets only: the rest is to be predicted from
    /// them.
    ///
    /// # Errors
    /// [`Error::Argument`](crate::Error::Argument) when there is not one number per row, or one exceeds a row.
    pub fn with_read(self, read: &[usize]) -> Result<Self> {
        self.check_lengths("read", read)?;
        Ok(Self { read: read.to_vec(), id: new_id(), ..self })
    }

    fn check_lengths(&self, arg: &'static str, lengths: &[usize]) -> Result<()> {
        let Self { b, t, .. } = self;
        if lengths.len() != *b {
            return Err(argument(arg, format!("{b} numbers, one per row"), lengths.len()));
        }
        match lengths.iter().find(|length| *length > t) {
            Some(length) => {
                Err(argument(arg, format!("at most {t}, the targets of a row"), length))
            }
            None => Ok(()),
        }
    }

    /// The targets that an encoder reads; -1 for the others.
    pub(crate) fn readable(&self) -> Vec<i32> {
        let mut readable = self.targets.clone();
        for (row, read) in readable.chunks_mut(self.t).zip(&self.read) {
            row[*read..].fill(Self::IGNORED);
        }
        readable
    }

    /// Sequences `B` and tokens `T` of each.
    pub fn shape(&self) -> [usize; 2] {
        [self.b, self.t]
    }

    /// The tokens, `(B,T)`.
    pub fn tokens(&self) -> &[i32] {
        &self.tokens
    }

    /// The targets, `(B,T)`.
    pub fn targets(&self) -> &[i32] {
        &self.targets
    }

    /// Known targets at the beginning of each row.
    pub fn context(&self) -> &[usize] {
        &self.context
    }

    /// Number of targets of each row that are predicted, known ones included.
    pub fn scored_tokens(&self) -> Vec<usize> {
        let scored = |row: &[i32]| row.iter().filter(|target| **target >= 0).count();
        self.targets.chunks(self.t).map(scored).collect()
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    pub(crate) fn vocab_size(&self) -> usize {
        self.vocab_size
    }
}

fn new_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// Refuses tokens, and targets other than -1, outside the vocabulary, which a device would turn into NaN.
fn check_indices(op: &'static str, limit: usize, indices: &[i32]) -> Result<()> {
    let ignored = |x: i32| x == Batch::IGNORED && op == "cross_entropy";
    let outside = |x: &i32| !(ignored(*x) || usize::try_from(*x).is_ok_and(|x| x < limit));
    match indices.iter().position(outside) {
        Some(position) => {
            let got = i64::from(indices[position]);
            Err(ltm_kernels::Error::Index { op, position, got, limit }.into())
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use ltm_model::ModelConfig;

    #[test]
    fn a_batch_is_checked_once() {
        let config = ModelConfig { vocab_size: 5, ..ModelConfig::ltm_small() };
        let new = |b, tokens: &[i32], targets: &[i32]| Batch::new(&config, b, tokens, targets);
        let good = new(2, &[0, 1, 2, 4], &[1, -1, 4, 0]).unwrap();
        assert_eq!((good.shape(), good.scored_tokens()), ([2, 2], vec![1, 2]));
        for (refused, arg) in [
            (new(0, &[], &[]), "tokens"),
            (new(2, &[0; 3], &[0; 3]), "tokens"),
            (new(2, &[0; 4], &[0; 3]), "targets"),
            (good.with_targets(&[0; 5]), "targets"),
            (new(2, &[0; 4], &[0; 4]).unwrap().with_context(&[0]), "context"),
            (new(2, &[0; 4], &[0; 4]).unwrap().with_context(&[0, 3]), "context"),
            (new(2, &[0; 4], &[0; 4]).unwrap().with_read(&[0]), "read"),
            (new(2, &[0; 4], &[0; 4]).unwrap().with_read(&[0, 3]), "read"),
        ] {
            match refused {
                Err(Error::Argument { arg: found, .. }) => assert_eq!(found, arg),
                other => panic!("{other:?}"),
            }
        }
        for (tokens, targets) in
            [([0, 0, 0, 5], [0; 4]), ([0, -1, 0, 0], [0; 4]), ([0; 4], [0, -2, 0, 0])]
        {
            let refused = new(2, &tokens, &targets);
            let index = matches!(refused, Err(Error::Kernel(ltm_kernels::Error::Index { .. })));
            assert!(index, "{tokens:?} {targets:?}");
        }
        let read = new(2, &[0, 1, 2, 4], &[1, -1, 4, 0]).unwrap().with_read(&[2, 1]).unwrap();
        assert_eq!(read.readable(), [1, -1, 4, -1]);
        assert_eq!((read.targets(), good.readable()), (good.targets(), good.targets().to_vec()));
        // Other targets are another batch, of the same tokens.
        let other = good.with_targets(&[-1; 4]).unwrap();
        assert_ne!(other.id(), good.id());
        assert_eq!(other.tokens(), good.tokens());
    }
}
