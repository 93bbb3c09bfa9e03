//! How much memory training takes at its peak, known from the configuration alone. Allocates nothing by extents.

use ltm_kernels::Device;
use ltm_vi::{SlowGradient, StartKind, Training, training_counts};

use crate::Result;
use crate::config::Config;

/// Bytes that training holds at its peak, by what they are for.
///
/// With `P` bytes for one copy of the weights in single precision, [`total`](Self::total) is the sum of
///
/// - the weights, `P`, and a copy while a checkpoint is written, `P`;
/// - AdamW's two moments of each weight, `2P`;
/// - with `infer.start = "given"` the posteriors of the rows that are visited, `2·L·Z·C·4` bytes each, on the host;
/// - the gradient sum over micro-batches, `P`, and with `slow_gradient = "trajectory"` that over fast steps, `P`;
/// - one micro-batch with its posterior and the moments of the fast loop's AdamW;
/// - activations and gradients of activations and weights in the fast and in the slow plan, where each value has a
///   buffer from the operation that writes it to the last one that reads it;
/// - whichever is larger of evaluation (a program for scoring, which shares the weights: a batch, a fast and a scoring
///   plan) and writing a checkpoint (the optimiser's file, `4P`, or that of the posteriors).
///
/// The executable, the tokenizer (140 MB for a `tokenizer.json` of 150,000 tokens), packing space of matrix products and
/// the allocator's own overhead come on top.
/// Largest resident sizes measured on a CPU, against the estimate: `configs/quickstart.toml` 83 MB (69 MB),
/// `configs/ltm-small.toml` with one sequence of 512 tokens 1.78 GB (1.74 GB), with two of 1024 2.21 GB (2.17 GB): at
/// most 1.03 times the estimate, plus 15 MB (`benches/runs/2026-11-30-training-memory-amd-epyc`). On CUDA all but the copies for
/// checkpoints is device memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// The weights and their copy.
    pub weights: usize,
    /// AdamW's moments of the weights.
    pub optimizer: usize,
    /// The posteriors of rows, under `infer.start = "given"`; for a corpus in a folder at most this.
    pub posteriors: usize,
    /// Gradient sums.
    pub gradients: usize,
    /// A micro-batch, its posterior and the moments of the fast loop.
    pub batch: usize,
    /// The fast and the slow plan.
    pub activations: usize,
    /// Evaluation, or writing a checkpoint.
    pub evaluation: usize,
}

impl Memory {
    /// All of it.
    pub fn total(&self) -> usize {
        self.weights
            + self.optimizer
            + self.posteriors
            + self.gradients
            + self.batch
            + self.activations
            + self.evaluation
    }
}

/// Estimates the peak memory of training by `config`.
///
/// # Errors
/// [`Error::Infer`](crate::Error::Infer) for a configuration that cannot be traced.
pub fn estimate(config: &Config) -> Result<Memory> {
    let train = &config.train;
    let training = config.training();
    let precision = config.run.precision_on_paper();
    let count = |slow: Training| {
        training_counts(&config.model, train.batch, train.seq_len, &Device::Cpu, precision, slow)
    };
    let (training, scoring) = (count(training)?, count(SlowGradient::None.into())?);
    let weights = training.weight_bytes;
    let [fast, _, slow, encoder] = training.plan_bytes;
    let scoring_plans: usize = scoring.plan_bytes.iter().sum();
    let evaluation = scoring.batch_bytes + scoring_plans;
    let row = 8 * config.model.n_latents * config.model.dim;
    let posteriors = match config.infer.start {
        StartKind::Given => row.saturating_mul(rows_visited(config)),
        StartKind::Drawn | StartKind::Prior | StartKind::Encoder => 0,
    };
    Ok(Memory {
        weights: 2 * weights,
        optimizer: 2 * weights,
        posteriors,
        gradients: weights,
        batch: training.batch_bytes,
        activations: fast + slow + encoder,
        // The bytes to write, and the file made of them.
        evaluation: evaluation.max(4 * weights).max(posteriors.saturating_mul(2)),
    })
}

/// The most rows that training visits: no more than its batches have, and of generated stories, which a row of the
/// usual length holds whole, no more than there are.
fn rows_visited(config: &Config) -> usize {
    let train = &config.train;
    let visits = train.steps as f64 * (train.micro_batches * train.batch) as f64;
    let there_are = match config.data.path {
        Some(_) => f64::INFINITY,
        None => config.data.documents as f64,
    };
    visits.min(there_are) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn quickstart(overrides: &[&str]) -> Memory {
        let text = include_str!("../tests/tiny.toml");
        let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
        let config = Config::parse(text, Path::new("tiny.toml"), &overrides).expect("good");
        estimate(&config).expect("traced")
    }

    #[test]
    fn memory_grows_with_what_is_asked_for() {
        let base = quickstart(&[]);
        let text = include_str!("../tests/tiny.toml");
        let config = Config::parse(text, Path::new("tiny.toml"), &[]).expect("good");
        let params: usize =
            ltm_model::param_table(&config.model).iter().map(|spec| spec.len()).sum();
        let copy = 4 * params;
        assert_eq!(
            (base.weights, base.optimizer, base.gradients),
            (2 * copy, 2 * copy, copy),
            "one copy of {params} parameters is {copy} bytes"
        );
        let larger = quickstart(&["train.batch=4"]);
        assert_eq!(larger.weights, base.weights);
        let ratio = larger.activations as f64 / base.activations as f64;
        assert!((1.2..=2.0).contains(&ratio), "{ratio}");
        let trajectory = quickstart(&["train.slow_gradient=trajectory"]);
        assert!(trajectory.batch >= base.batch + base.gradients, "{trajectory:?} {base:?}");
        let mixed = quickstart(&["run.device=cuda"]);
        assert!(mixed.activations < base.activations, "{mixed:?} {base:?}");
    }

    #[test]
    fn the_total_is_the_sum_and_evaluation_or_saving_is_its_last_part() {
        let base = quickstart(&[]);
        let copy = base.gradients;
        let parts = [
            base.weights,
            base.optimizer,
            base.gradients,
            base.batch,
            base.activations,
            base.evaluation,
        ];
        assert_eq!(base.total(), parts.iter().sum::<usize>());
        // Saving writes the optimiser's file of four copies; scoring large batches takes more.
        let single = quickstart(&["train.batch=1", "train.seq_len=8"]);
        assert_eq!(single.evaluation, 4 * copy);
        let [some, more] = ["train.batch=8", "train.batch=16"].map(|set| quickstart(&[set]));
        assert!(some.evaluation > 4 * copy, "{some:?}");
        let ratio = more.evaluation as f64 / some.evaluation as f64;
        assert!((1.6..=2.0).contains(&ratio), "{ratio}");
        // An encoder has activations and weights of its own.
        let encoder = ["model.encoder_width=12", "infer.start=encoder", "infer.steps=0"];
        let overrides = encoder.map(String::from);
        let text = include_str!("../tests/tiny.toml");
        let config = Config::parse(text, Path::new("tiny.toml"), &overrides).expect("good");
        let [fast, _, slow, own] = training_counts(
            &config.model,
            config.train.batch,
            config.train.seq_len,
            &Device::Cpu,
            config.run.precision_on_paper(),
            SlowGradient::Joint,
        )
        .expect("traced")
        .plan_bytes;
        let encoder = quickstart(&encoder);
        assert!(own > 0 && encoder.weights > base.weights);
        assert_eq!(encoder.activations, fast + slow + own, "held at the same time");
    }

    #[test]
    fn posteriors_of_rows_take_two_numbers_per_latent_number() {
        assert_eq!(quickstart(&[]).posteriors, 0);
        // Six steps of two micro-batches of two rows, and then more than there are stories.
        let row = 2 * 4 * 4 * 16;
        for (steps, rows) in [("train.steps=6", 24), ("train.steps=600", 64)] {
            let kept = quickstart(&["infer.start=given", steps]);
            assert_eq!(kept.posteriors, rows * row, "{steps}");
        }
    }

    #[test]
    fn extents_are_counted_and_not_allocated() {
        let absurd =
            ["model.dim=8192", "model.max_seq_len=65536", "train.batch=512", "train.seq_len=65536"];
        assert!(quickstart(&absurd).total() > 1 << 42);
    }
}
