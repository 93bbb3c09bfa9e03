//! A trained model beside the same decoder without latents, under protocols that may be compared. Trains nothing
//! itself: it says what to train, and reads the scores.

use std::path::PathBuf;

use ltm_train::config::{Config, RowKind, SlowGradientKind};
use ltm_train::data::storyworld;
use ltm_train::metrics::{Line, METRICS_FILE, ProtocolScore, read};
use ltm_train::run_data::{self, corpus_dir};
use ltm_vi::{InferConfig, Method, Protocol};

use crate::{Error, Result};

/// What a model with latents is compared with: its own decoder without them, trained on the same batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// With the same window.
    Window,
    /// Every token sees the whole text before it.
    Full,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Window, Self::Full];

    /// What it is called in a table.
    pub fn label(self) -> &'static str {
        match self {
            Self::Window => "without latents",
            Self::Full => "without, full context",
        }
    }

    /// The folder of its run, within that of the model.
    pub fn dir(self, config: &Config) -> PathBuf {
        config.run.dir.join("baselines").join(match self {
            Self::Window => "window",
            Self::Full => "full-context",
        })
    }

    /// Refuses a model that cannot be compared with its baselines, before anything is trained.
    ///
    /// # Errors
    /// [`Error::Field`] for a model without latents or whose latents have no bound, and for data without a validation
    /// split; those of opening the data.
    pub fn check(config: &Config) -> Result<()> {
        if config.model.n_latents == 0 {
            return Err(Error::field("model.n_latents", "above 0 for a comparison", 0));
        }
        if config.infer.method == Method::Langevin {
            let expected = "`variational` for a comparison: it has a bound";
            return Err(Error::field("infer.method", expected, "langevin"));
        }
        let splits = match &config.data.path {
            None => config.data.val_documents > 0,
            Some(_) => run_data::open_val(config, None)?.is_some(),
        };
        match splits {
            true => Ok(()),
            false => {
                let (field, expected) = match config.data.path {
                    None => ("data.val_documents", "above 0 for a comparison"),
                    Some(_) => (
                        "data.path",
                        "a corpus with a validation split for a comparison (`ltm data prepare --val-fraction`)",
                    ),
                };
                Err(Error::field(field, expected, "none"))
            }
        }
    }

    /// The configuration that trains it: `config` without latents, on the corpus of `config`'s run.
    pub fn config(self, config: &Config) -> Config {
        let mut baseline = config.clone();
        baseline.run.dir = self.dir(config);
        let generated = config.data.path.is_none();
        baseline.data.path = Some(corpus_dir(config));
        if generated {
            baseline.data.rows = Some(RowKind::Documents);
        }
        baseline.model.n_latents = 0;
        (baseline.model.encoder_width, baseline.model.prior_layers) = (0, 0);
        baseline.model.map_layers = 0;
        if self == Self::Full {
            baseline.model.window = config.model.max_seq_len;
        }
        baseline.infer = InferConfig { steps: 0, ..InferConfig::published() };
        let train = &mut baseline.train;
        (train.slow_gradient, train.fast_steps) = (SlowGradientKind::Final, None);
        (train.importance_samples, train.prefix_weight, train.eval_every) = (1, 0.0, 0);
        baseline
    }
}

/// One row of a comparison.
#[derive(Clone, Debug, PartialEq)]
pub struct ComparedScore {
    /// What was scored.
    pub label: &'static str,
    /// The protocol, as it is written; `entropy` for the truth.
    pub protocol: String,
    /// Nats per token.
    pub nats: f64,
    /// Their standard error over rows.
    pub error: f64,
}

/// A model beside its baselines. All numbers are `-log p` of the same texts, exact or a bound from above, so that they
/// may be compared: the cost of the latents is part of the bound.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineComparison {
    /// The model, with the bound that was computed at the end of its training.
    pub latents: ComparedScore,
    /// Its decoder without latents, with the same window.
    pub window: ComparedScore,
    /// The same, seeing the whole text.
    pub full: ComparedScore,
    /// The entropy of a corpus that has a known one.
    pub truth: Option<ComparedScore>,
    /// Words that a token of the first two sees.
    pub window_tokens: usize,
    /// Latent vectors of a text.
    pub n_latents: usize,
}

impl BaselineComparison {
    /// Reads the last scores of the run of `config` and of its [baselines](Baseline).
    ///
    /// # Errors
    /// [`Error::Train`] when a run's metrics cannot be read, [`Error::Field`] when one has no score that may be
    /// compared.
    pub fn read(config: &Config) -> Result<Self> {
        let of = |baseline: Baseline| {
            let dir = baseline.dir(config);
            last_score(baseline.label(), dir, |p| p == Protocol::Autoregressive)
        };
        let bound = |protocol| matches!(protocol, Protocol::Elbo { .. });
        let truth = match config.data.path {
            Some(_) => None,
            None => {
                let entropy =
                    storyworld::true_entropy(config.run.seed, storyworld::ENTROPY_DOCUMENTS)
                        .map_err(ltm_train::Error::from)?;
                Some(ComparedScore {
                    label: "truth",
                    protocol: "entropy".into(),
                    nats: entropy.nats_per_token,
                    error: entropy.nats_per_token_se,
                })
            }
        };
        Ok(Self {
            latents: last_score("with latents", config.run.dir.clone(), bound)?,
            window: of(Baseline::Window)?,
            full: of(Baseline::Full)?,
            truth,
            window_tokens: config.model.window,
            n_latents: config.model.n_latents,
        })
    }

    /// The rows, the worst baseline first.
    pub fn rows(&self) -> impl Iterator<Item = &ComparedScore> {
        [&self.window, &self.latents, &self.full].into_iter().chain(&self.truth)
    }

    /// What the numbers say, in a few words.
    pub fn summary(&self) -> String {
        let Self { latents, window, full, truth, window_tokens, n_latents } = self;
        let saved = window.nats - latents.nats;
        let error = window.error.hypot(latents.error);
        let (with, without) = (latents.nats, window.nats);
        let mut text = if saved > 2.0 * error {
            format!(
                "Through a window of {window_tokens} tokens, {n_latents} latent vectors save {saved:.3} of {without:.3} \
                 nats per token, their own cost included"
            )
        } else if saved < -2.0 * error {
            format!(
                "The latents do not pay: {with:.3} nats per token with them, {without:.3} without"
            )
        } else {
            format!(
                "The latents make no difference beyond the error: {with:.3} nats per token with them, \
                 {without:.3} without"
            )
        };
        let than = if latents.nats < full.nats { "more" } else { "less" };
        text += &format!("; with the full context and no latents it is {:.3}, {than}", full.nats);
        if let Some(truth) = truth {
            text += &format!("; no model can do better than {:.3}", truth.nats);
        }
        text + ". One training seed each."
    }

    /// Draws the rows as bars.
    ///
    /// # Errors
    /// Those of [`charts::bars`](crate::charts::bars).
    #[cfg(feature = "charts")]
    pub fn draw(&self, path: &std::path::Path) -> Result<()> {
        let bar = |row: &ComparedScore| crate::charts::Bar {
            name: format!("{} ({})", row.label, row.protocol),
            value: row.nats,
            error: row.error,
        };
        let bars: Vec<_> = self.rows().map(bar).collect();
        crate::charts::bars(path, "Cost of a text", "nats per token", &bars)?;
        Ok(())
    }
}

/// The last score in a run's metrics by a protocol that `suits`.
fn last_score(
    label: &'static str,
    run: PathBuf,
    suits: impl Fn(Protocol) -> bool,
) -> Result<ComparedScore> {
    let lines = read(&run.join(METRICS_FILE))?;
    let is_suitable = |(name, _): &(&String, &ProtocolScore)| name.parse().is_ok_and(&suits);
    let found = lines.iter().rev().find_map(|line| match line {
        Line::Evaluation(line) => line.eval.iter().find(is_suitable),
        Line::Step(_) => None,
    });
    let Some((protocol, score)) = found else {
        let expected = format!("a run in {} with a score that may be compared", run.display());
        return Err(Error::field("baselines", expected, "none"));
    };
    let (nats, error) = (score.nats_per_token, score.standard_error);
    Ok(ComparedScore { label, protocol: protocol.clone(), nats, error })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ltm_train::data::{Bytes, PrepareOptions, prepare};

    use super::*;

    fn comparison(latents: f64) -> BaselineComparison {
        let row = |label, nats| ComparedScore {
            label,
            protocol: "autoregressive".into(),
            nats,
            error: 0.004,
        };
        BaselineComparison {
            latents: row("with latents", latents),
            window: row("without latents", 0.9),
            full: row("without, full context", 0.7),
            truth: Some(row("truth", 0.474)),
            window_tokens: 4,
            n_latents: 2,
        }
    }

    fn quickstart(overrides: &[&str]) -> Config {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/quickstart.toml");
        let overrides: Vec<String> = overrides.iter().map(|set| (*set).into()).collect();
        Config::load(&path, &overrides).expect("a good configuration")
    }

    #[test]
    fn a_baseline_has_nothing_of_the_latents() {
        let all = ["model.prior_layers=2", "model.map_layers=1", "train.importance_samples=4"];
        let config = quickstart(&all);
        Baseline::check(&config).expect("it can be compared");
        for baseline in Baseline::ALL {
            let found = baseline.config(&config);
            found.validate().expect("a model without latents");
            let decoder = config.model.vocab_size * config.model.dim;
            assert!((decoder..10 * decoder).contains(&found.model.param_count()));
        }
    }

    #[test]
    fn what_cannot_be_compared_is_refused_at_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (file, out) = (folder.path().join("a.txt"), folder.path().join("corpus"));
        std::fs::write(&file, "some text").expect("writable");
        let options = PrepareOptions {
            val_fraction: 0.0,
            ..PrepareOptions::new(out.clone(), std::sync::Arc::new(Bytes))
        };
        prepare(&[file], &options, &mut |_| ()).expect("one split");
        let refused = |config: &Config| Baseline::check(config).expect_err("refused").to_string();
        let mut config = quickstart(&["data.val_documents=0"]);
        assert!(refused(&config).contains("data.val_documents"));
        config.data.path = Some(out);
        assert!(refused(&config).contains("validation split"));
        let without = [
            "model.n_latents=0",
            "model.encoder_width=0",
            "infer.start=prior",
            "train.prefix_weight=0",
        ];
        assert!(refused(&quickstart(&without)).contains("model.n_latents"));
    }

    #[test]
    fn the_summary_is_what_the_numbers_say() {
        let says = |latents, part: &str| {
            let text = comparison(latents).summary();
            assert!(text.contains(part), "{text}");
        };
        says(0.65, "2 latent vectors save 0.250 of 0.900 nats per token");
        says(0.65, "with the full context and no latents it is 0.700, more");
        says(0.8, "0.700, less; no model can do better than 0.474");
        says(0.905, "no difference beyond the error");
        says(0.95, "do not pay: 0.950 nats per token with them, 0.900 without");
    }
}
