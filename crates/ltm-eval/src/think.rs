//! The posterior of one text, fast step by fast step.

use std::path::Path;

use ltm_files::write_whole;
use ltm_model::DeviceWeights;
use ltm_train::Config;
use ltm_vi::estimators::Sampled;
use ltm_vi::fit::Observer;
use ltm_vi::{
    Batch, FastStep, InferKey, Inference, Latents, Method, ModelConfig, Posterior, Problem,
    Program, Protocol, Sequences, SlowGradient, Start, score,
};
use safetensors::tensor::{Dtype, TensorView};

use crate::text::check_length;
use crate::{Error, Result};

/// How the posterior of a text was fitted.
#[derive(Clone, Debug)]
pub struct Fitted {
    /// Every fast step, measured before its update, and the fitted posterior as a last step with the rate 0.
    pub steps: Vec<FastStep>,
    /// The fitted posterior, `(L·Z,C)`.
    pub posterior: Posterior,
    /// Its KL from the prior, in nats: what the latents cost.
    pub kl: f64,
    /// The bound at the posterior by [`SAMPLES`] fresh samples, in nats, the KL included.
    pub bound: Sampled,
    /// The same at the prior, which knows nothing of the text.
    pub prior_bound: Sampled,
}

/// Fresh samples of each bound: one alone, as a fast step has it, says little of a text.
pub const SAMPLES: usize = 16;

/// Fits the posterior of a text: its tokens after the separator that documents begin with. `on_step` is called with
/// every fast step, and its error ends the fit.
///
/// # Errors
/// [`Error::Field`] for a model without latents, another method than `variational`, and a text of no token or more than
/// the context holds; those of [`Inference::infer`], such as `on_step`'s.
pub fn think(
    config: &Config,
    weights: &DeviceWeights,
    tokens: &[i32],
    seed: u64,
    on_step: &mut Observer<'_>,
) -> Result<Fitted> {
    OneText::new(config, tokens)?.fit(config, weights, seed, on_step)
}

/// A text as the only sequence of a program.
pub(crate) struct OneText {
    program: Program,
    batch: Batch,
}

impl OneText {
    /// The errors are those of [`think`].
    pub(crate) fn new(config: &Config, tokens: &[i32]) -> Result<Self> {
        let Config { model, infer, .. } = config;
        if model.n_latents == 0 {
            return Err(no_latents());
        }
        if infer.method != Method::Variational {
            let expected = "\"variational\", which fits a posterior step by step";
            return Err(Error::field("infer.method", expected, "another method"));
        }
        check_length("text", tokens, model.max_seq_len)?;
        let t = tokens.len() - 1;
        let (device, precision) = config.run.compute_evaluation()?;
        let program = Program::new(model, 1, t, &device, precision, SlowGradient::None)?;
        let batch = Batch::new(model, 1, &tokens[..t], &tokens[1..])?;
        Ok(Self { program, batch })
    }

    /// What the random numbers of a fit of a text are a function of.
    pub(crate) fn key(seed: u64) -> InferKey<'static> {
        InferKey { seed, step: 0, sequences: Sequences::From(0) }
    }

    /// With the weights of the model.
    pub(crate) fn problem<'a>(&'a mut self, weights: &'a DeviceWeights) -> Result<Problem<'a>> {
        Ok(self.program.problem(weights, &self.batch)?)
    }

    /// As [`think`].
    pub(crate) fn fit(
        &mut self,
        config: &Config,
        weights: &DeviceWeights,
        seed: u64,
        on_step: &mut Observer<'_>,
    ) -> Result<Fitted> {
        let problem = &mut self.problem(weights)?;
        let (infer, key) = (&config.infer, Self::key(seed));
        let mut steps = Vec::with_capacity(infer.steps + 1);
        let inference = Inference::finished(infer)?;
        let latents = inference.infer(problem, key, &mut |step| {
            on_step(step)?;
            steps.push(step.clone());
            Ok(())
        })?;
        let nll: f64 = problem.token_nll(&latents)?.iter().sum();
        let bound_at = |problem: &mut Problem<'_>, latents: &Latents| -> Result<Sampled> {
            let protocol = Protocol::Elbo { samples: SAMPLES };
            let scores = score(problem, protocol, latents, &inference, key)?;
            Ok(Sampled { nats: scores.nats[0], variance: scores.variance[0] })
        };
        let prior = problem.start(&Start::Prior, key)?.into();
        let prior_bound = bound_at(problem, &prior)?;
        let fitted_bound = bound_at(problem, &latents)?;
        let Latents::Gaussian(posterior) = latents else {
            unreachable!("the method is variational")
        };
        let kl_per_layer = problem.kl(&posterior, key)?;
        let posterior = posterior.to_host()?;
        let kl = kl_per_layer.iter().sum();
        steps.push(FastStep { step: infer.steps, lr: 0.0, nll, kl_per_layer, bound: nll + kl });
        Ok(Fitted { steps, posterior, kl, bound: fitted_bound, prior_bound })
    }
}

impl Fitted {
    /// How far the bound is above that at the prior, in nats, where that is more than two standard errors of the samples: a
    /// fit is to lower it.
    pub fn above_prior(&self) -> Option<f64> {
        let above = self.bound.nats - self.prior_bound.nats;
        let error = (self.bound.variance + self.prior_bound.variance).sqrt();
        (above > 2.0 * error).then_some(above)
    }

    /// Writes `mu`, `log_var` and the sample `z`, each `(L·Z,C)`, to a safetensors file; with `infer.rank` also the `columns`
    /// `(L,R,Z·C)` of the posterior's [`Factor`](ltm_vi::Factor).
    ///
    /// # Errors
    /// [`Error::File`] when it cannot be written.
    pub fn save(&self, path: &Path, model: &ModelConfig) -> Result<()> {
        let Posterior { mu, log_var, factor, .. } = &self.posterior;
        let shape = vec![model.n_latents, model.dim];
        let z = self.posterior.sample()?;
        let mut tensors =
            vec![("mu", mu, shape.clone()), ("log_var", log_var, shape.clone()), ("z", &z, shape)];
        if let Some(factor) = factor {
            let len = model.n_latents * model.dim / model.n_layers;
            let shape = vec![model.n_layers, self.posterior.rank(), len];
            tensors.push(("columns", &factor.columns, shape));
        }
        let tensors: Vec<_> = tensors
            .into_iter()
            .map(|(name, values, shape)| {
                (name, values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>(), shape)
            })
            .collect();
        let refused = |error| {
            Error::content(
                path,
                "the posterior's tensors",
                "numbers of their shapes",
                format!("{error}"),
            )
        };
        let views = tensors
            .iter()
            .map(|(name, bytes, shape)| {
                Ok((*name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(refused)?))
            })
            .collect::<Result<Vec<_>>>()?;
        Ok(write_whole(path, &safetensors::serialize(views, None).map_err(refused)?)?)
    }
}

/// The error for a model without latents where there must be some.
pub(crate) fn no_latents() -> Error {
    Error::field("model.n_latents", "a model with latents, trained with more than 0", 0)
}

#[cfg(test)]
mod tests {
    use ltm_train::data::Bytes;

    use super::*;
    use crate::text::encode;
    use crate::tiny::{config, weights};

    fn tokens(text: &str) -> Vec<i32> {
        encode(&Bytes, text).expect("bytes")
    }

    #[test]
    fn the_last_step_is_the_fitted_posterior() {
        let config = config(4);
        let mut seen = Vec::new();
        let mut on_step = |step: &FastStep| {
            seen.push(step.bound);
            Ok(())
        };
        let fitted =
            think(&config, &weights(&config), &tokens("a dog"), 7, &mut on_step).expect("fitted");
        let bounds: Vec<f64> = fitted.steps.iter().map(|step| step.bound).collect();
        assert_eq!(bounds[..3], seen[..]);
        assert!(bounds[3] < bounds[0], "{bounds:?}");
        let kl = fitted.posterior.kl(2).expect("two layers");
        assert_eq!(fitted.steps[3].kl_per_layer, kl);
        assert_eq!(fitted.kl, kl.iter().sum::<f64>());
        // The samples' mean is about the single sample of the last step.
        let (mean, error) = (fitted.bound.nats, fitted.bound.variance.sqrt());
        assert!((mean - bounds[3]).abs() <= 5.0 * 4.0 * error, "{mean} {error} {bounds:?}");
        let sampled = |nats| Sampled { nats, variance: 0.5 };
        let at =
            |nats| Fitted { bound: sampled(nats), prior_bound: sampled(7.0), ..fitted.clone() };
        assert_eq!(
            [5.0, 8.9, 9.1].map(|nats| at(nats).above_prior().is_some()),
            [false, false, true]
        );

        let dir = tempfile::tempdir().expect("a temporary folder");
        let path = dir.path().join("z.safetensors");
        fitted.save(&path, &config.model).expect("written");
        let bytes = std::fs::read(&path).expect("there");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a file of tensors");
        let mu = file.tensor("mu").expect("there");
        let expected: Vec<u8> = fitted.posterior.mu.iter().flat_map(|x| x.to_le_bytes()).collect();
        assert_eq!((mu.shape(), mu.data()), (&[4, 16][..], &expected[..]));
        assert!(file.tensor("columns").is_err());

        let mut correlated = config.clone();
        correlated.infer.rank = 3;
        let fitted = think(&correlated, &weights(&config), &tokens("a dog"), 7, &mut |_| Ok(()));
        let fitted = fitted.expect("fitted");
        let path = dir.path().join("columns.safetensors");
        fitted.save(&path, &config.model).expect("written");
        let bytes = std::fs::read(&path).expect("there");
        let file = safetensors::SafeTensors::deserialize(&bytes).expect("a file of tensors");
        assert_eq!(file.tensor("columns").expect("there").shape(), [2, 3, 32]);
        assert_eq!(fitted.kl, fitted.posterior.kl(2).expect("two layers").iter().sum::<f64>());
    }

    #[test]
    fn an_error_of_the_observer_ends_the_fit() {
        let (config, mut seen) = (config(4), 0);
        let mut on_step = |_: &FastStep| {
            seen += 1;
            if seen == 2 { Err(ltm_vi::Error::Stopped) } else { Ok(()) }
        };
        let stopped = think(&config, &weights(&config), &tokens("a dog"), 7, &mut on_step);
        assert!(matches!(stopped, Err(Error::Infer(ltm_vi::Error::Stopped))), "{stopped:?}");
        assert_eq!(seen, 2);
    }

    #[test]
    fn what_cannot_be_fitted_is_refused_by_its_name() {
        let (with, without) = (config(4), config(0));
        let mut langevin = config(4);
        langevin.infer.method = Method::Langevin;
        for (config, text, field) in [
            (&with, "", "text"),
            (&with, &*"x".repeat(25), "text"),
            (&without, "a dog", "model.n_latents"),
            (&langevin, "a dog", "infer.method"),
        ] {
            let refused = think(config, &weights(config), &tokens(text), 7, &mut |_| Ok(()));
            let Err(Error::Field { field: found, .. }) = refused else { panic!("{refused:?}") };
            assert_eq!(found, field);
        }
        let longest = tokens(&"x".repeat(24));
        think(&with, &weights(&with), &longest, 7, &mut |_| Ok(())).expect("it fits");
    }
}
