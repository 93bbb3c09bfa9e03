//! One model, to be looked into: fits of texts, and texts of latents.

use std::sync::Arc;

use ltm_model::{Decoder, DeviceWeights};
use ltm_train::Config;
use ltm_train::data::SharedTokenizer;
use ltm_vi::fit::{AdamW, Observer};
use ltm_vi::probe::decode_greedily;
use ltm_vi::{Density, FastStep, Inference, Posterior, prior_of};
use serde::Serialize;

use super::change::Sources;
use super::tokens::{Token, pieces, predict};
use super::{Change, Changed};
use crate::Result;
use crate::text::{decode, encode};
use crate::think::{Fitted, OneText, SAMPLES};

/// Fast steps after which the text is decoded, at most.
const MOST_DECODED: usize = 16;

/// A model with a decoder of its own.
pub struct Explorer {
    config: Config,
    weights: DeviceWeights,
    tokenizer: SharedTokenizer,
    decoder: Decoder,
    prior: Arc<dyn Density>,
    /// Its mean, `(L·Z,C)`.
    prior_mean: Vec<f32>,
}

/// What the latents of a text are, how they came to be, and what they do.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Exploration {
    /// The text.
    pub text: String,
    /// The seed of the fit.
    pub seed: u64,
    /// Every fast step, and the fitted posterior as the last.
    pub steps: Vec<Frame>,
    /// The posterior's means, `(L·Z,C)`.
    pub mu: Vec<f32>,
    /// The logarithms of its variances, `(L·Z,C)`; with `infer.rank` those of the independent part.
    pub log_var: Vec<f32>,
    /// KL of each latent, in nats; `None` where those of a layer have only one together.
    pub kl_per_latent: Option<Vec<f64>>,
    /// KL of each layer's latents, in nats.
    pub kl_per_layer: Vec<f64>,
    /// What the latents cost and save.
    pub ledger: Ledger,
    /// Every token.
    pub tokens: Vec<Token>,
    /// The text that is decoded greedily at the means.
    pub decoded: String,
}

/// A fast step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Frame {
    /// Its index, from 0; that of the fitted posterior is the number of steps.
    pub step: usize,
    /// Its learning rate.
    pub lr: f64,
    /// Nats of the text at one sample, before the step.
    pub nll: f64,
    /// KL of each layer's latents, in nats.
    pub kl_per_layer: Vec<f64>,
    /// Both together: the negative ELBO by one sample.
    pub bound: f64,
    /// The text that is decoded greedily at the means, before the step; `None` for some steps of a long fit.
    pub decoded: Option<String>,
}

/// What the latents of a text cost and what they save, in nats.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Ledger {
    /// What the numbers are by: a valid bound, `elbo`.
    pub protocol: &'static str,
    /// Samples of the posterior.
    pub samples: usize,
    /// Nats of the text with latents of the prior's mean, which know nothing of it.
    pub without: f64,
    /// Mean nats of the text over samples of the posterior.
    pub with: f64,
    /// The standard error of that mean, and so of `saved` and `bound`.
    pub standard_error: f64,
    /// What the latents cost: the KL of the posterior from the prior.
    pub cost: f64,
    /// What they save: `without - with`.
    pub saved: f64,
    /// `with + cost`: in expectation never below `-log p` of the text.
    pub bound: f64,
}

impl Explorer {
    /// With the weights of a model whose posteriors can be fitted.
    ///
    /// # Errors
    /// [`Error::Infer`](crate::Error::Infer) for weights of another model, [`Error::Field`](crate::Error::Field) for a model
    /// without latents.
    pub fn new(config: Config, weights: DeviceWeights, tokenizer: SharedTokenizer) -> Result<Self> {
        let model = config.model;
        if model.n_latents == 0 {
            return Err(crate::think::no_latents());
        }
        let decoder = Decoder::with_weights(model, weights.clone(), 1)?;
        let prior = prior_of(&model).density(&weights)?;
        let [prior_mean, _] = prior.moments(model.n_latents * model.dim);
        Ok(Self { config, weights, tokenizer, decoder, prior, prior_mean })
    }

    /// The model's configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The model's weights.
    pub fn weights(&self) -> &DeviceWeights {
        &self.weights
    }

    /// The model's tokenizer.
    pub fn tokenizer(&self) -> &SharedTokenizer {
        &self.tokenizer
    }

    /// The prior's mean, `(L·Z,C)`: latents that say nothing.
    pub fn prior_mean(&self) -> &[f32] {
        &self.prior_mean
    }

    /// A sample of the prior, `(L·Z,C)`.
    ///
    /// # Errors
    /// [`Error::Infer`](crate::Error::Infer) when memory runs out.
    pub fn prior_sample(&self, seed: u64) -> Result<Vec<f32>> {
        let zeros = vec![0.0; self.prior_mean.len()];
        let standard =
            Posterior { mu: zeros.clone(), log_var: zeros.clone(), noise: zeros, factor: None };
        let noise = standard.fresh_sample(&self.config.model, OneText::key(seed), 0)?;
        let noise: Vec<f64> = noise.iter().map(|x| f64::from(*x)).collect();
        Ok(self.prior.sample(&noise).iter().map(|x| *x as f32).collect())
    }

    /// The text that is decoded greedily from latents `z (L·Z,C)`, to its end or that of the context.
    ///
    /// # Errors
    /// [`Error::Infer`](crate::Error::Infer) for latents of another length, or a number that is not finite.
    pub fn decode(&mut self, z: &[f32]) -> Result<String> {
        let (context, separator) =
            (self.config.model.max_seq_len, self.tokenizer.separator() as i32);
        let tokens =
            decode_greedily(&mut self.decoder, context, z, &[separator], context, separator)?;
        Ok(decode(&*self.tokenizer, &tokens))
    }

    /// Nats of a text at latents `z (L·Z,C)`.
    ///
    /// # Errors
    /// Those of [`explore`](Self::explore) and [`decode`](Self::decode).
    pub fn nll(&self, text: &str, z: &[f32]) -> Result<f64> {
        let tokens = encode(&*self.tokenizer, text)?;
        let mut one = OneText::new(&self.config, &tokens)?;
        Ok(one.problem(&self.weights)?.token_nll_at(z)?.iter().sum())
    }

    /// Fits a text and looks at what its latents do. `on_step` is called with every fast step, and its error ends the fit.
    ///
    /// # Errors
    /// Those of [`think`](crate::think::think) and of the tokenizer.
    pub fn explore(
        &mut self,
        text: &str,
        seed: u64,
        on_step: &mut Observer<'_>,
    ) -> Result<Exploration> {
        let tokens = encode(&*self.tokenizer, text)?;
        let mut one = OneText::new(&self.config, &tokens)?;
        let fitted = one.fit(&self.config, &self.weights, seed, on_step)?;
        let Fitted { kl, bound, posterior, .. } = &fitted;
        let Posterior { mu, log_var, factor, .. } = posterior;
        let without: f64 = one.problem(&self.weights)?.token_nll_at(&self.prior_mean)?.iter().sum();
        let with = bound.nats - kl;
        let ledger = Ledger {
            protocol: "elbo",
            samples: SAMPLES,
            without,
            with,
            standard_error: bound.variance.sqrt(),
            cost: *kl,
            saved: without - with,
            bound: bound.nats,
        };
        let dim = self.config.model.dim;
        let latents = mu.chunks(dim).zip(log_var.chunks(dim));
        let of_latent = |(mu, log_var)| self.prior.exact_kl(mu, log_var);
        let kl_per_latent =
            factor.is_none().then(|| latents.map(of_latent).collect::<Option<_>>()).flatten();
        let predicted = [&mu[..], &self.prior_mean]
            .map(|z| predict(&mut self.decoder, &*self.tokenizer, &tokens, z));
        let [with, without] = predicted;
        let predicted = with?.into_iter().zip(without?);
        let pieces = pieces(&*self.tokenizer, &tokens).into_iter();
        let token = |(text, (with, without))| Token { text, with, without };
        let (mu, log_var) = (mu.clone(), log_var.clone());
        Ok(Exploration {
            text: text.into(),
            seed,
            tokens: pieces.zip(predicted).map(token).collect(),
            decoded: self.decode(&mu)?,
            kl_per_layer: fitted.steps.last().map_or(Vec::new(), |step| step.kl_per_layer.clone()),
            steps: self.frames(&mut one, seed, fitted.steps)?,
            mu,
            log_var,
            kl_per_latent,
            ledger,
        })
    }

    /// The steps with the texts of their means. A fit that stops after some of its steps has the same posterior there.
    fn frames(&mut self, one: &mut OneText, seed: u64, steps: Vec<FastStep>) -> Result<Vec<Frame>> {
        let (infer, last) = (self.config.infer, steps.len() - 1);
        let start = Inference::finished(&infer)?.start().clone();
        let every = last.div_ceil(MOST_DECODED).max(1);
        let frame = |step: FastStep| -> Result<Frame> {
            let FastStep { step, lr, nll, kl_per_layer, bound } = step;
            let decoded = if step % every == 0 || step == last {
                let mut fit = AdamW::new(&infer, 1.0);
                fit.rates.truncate(step);
                let inference = Inference::new(fit, start.clone());
                let mut problem = one.problem(&self.weights)?;
                let latents = inference.infer(&mut problem, OneText::key(seed), &mut |_| Ok(()))?;
                Some(self.decode(&latents.center()?)?)
            } else {
                None
            };
            Ok(Frame { step, lr, nll, kl_per_layer, bound, decoded })
        };
        steps.into_iter().map(frame).collect()
    }

    /// Every [`Change`] of every latent, and of all together, of the text at place `own` among those explored.
    /// `progress(done, all)` counts them.
    ///
    /// # Errors
    /// [`Error::Field`](crate::Error::Field) when there is no such place, and those of the fit.
    pub fn changes(
        &mut self,
        explored: &[Exploration],
        own: usize,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Vec<Changed>> {
        let Some(Exploration { text, seed, mu, .. }) = explored.get(own) else {
            let expected = format!("below {}, the number of texts", explored.len());
            return Err(crate::Error::field("own", expected, own));
        };
        let tokens = encode(&*self.tokenizer, text)?;
        let mut one = OneText::new(&self.config, &tokens)?;
        let sample = self.prior_sample(*seed)?;
        let texts: Vec<&[f32]> = explored.iter().map(|text| &text.mu[..]).collect();
        let (model, prior) = (self.config.model, self.prior_mean.clone());
        let latents = (0..model.n_latents).map(Some).chain([None]);
        let pairs = latents.flat_map(|l| Change::all(own, texts.len()).map(move |c| (l, c)));
        let pairs: Vec<(Option<usize>, Change)> = pairs.collect();
        let from = Sources { prior: &prior, sample: &sample, texts: &texts };
        let mut changed = Vec::with_capacity(pairs.len());
        for (latent, change) in &pairs {
            let z = change.apply(mu, *latent, model.dim, &from);
            let nll = one.problem(&self.weights)?.token_nll_at(&z)?.iter().sum();
            let text = self.decode(&z)?;
            changed.push(Changed { latent: *latent, change: *change, text, nll });
            progress(changed.len() as u64, pairs.len() as u64);
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use ltm_testkit::{Tol, assert_close};
    use ltm_train::data::Bytes;
    use ltm_vi::Method;

    use super::*;
    use crate::Error;
    use crate::think::think;
    use crate::tiny::{config, weights};

    fn explorer(n_latents: usize) -> Result<Explorer> {
        let config = config(n_latents);
        let weights = weights(&config);
        Explorer::new(config, weights, Arc::new(Bytes))
    }

    #[test]
    fn an_exploration_agrees_with_the_fit_and_with_itself() {
        let mut explorer = explorer(4).expect("a model with latents");
        let mut seen = 0;
        let found = explorer
            .explore("a dog", 7, &mut |_| {
                seen += 1;
                Ok(())
            })
            .expect("fitted");
        let (config, weights) = (config(4), explorer.weights().clone());
        let tokens = encode(&Bytes, "a dog").expect("bytes");
        let fitted = think(&config, &weights, &tokens, 7, &mut |_| Ok(())).expect("fitted");
        assert_eq!((&found.mu, seen), (&fitted.posterior.mu, config.infer.steps));
        // The ledger is that of the elbo.
        let Ledger { without, with, cost, saved, bound, standard_error, .. } = found.ledger;
        assert_eq!((bound, cost), (fitted.bound.nats, fitted.kl));
        assert_close(&[with + cost, with + saved], &[bound, without], Tol { abs: 1e-9, rel: 0.0 });
        assert_eq!(standard_error, fitted.bound.variance.sqrt());
        // What the decoder finds token by token is what the problem finds at once.
        let sum = |of: fn(&Token) -> f64| found.tokens.iter().map(of).sum::<f64>();
        assert_close(&[sum(|token| token.without.nll)], &[without], Tol { abs: 1e-3, rel: 0.0 });
        let mut one = OneText::new(&config, &tokens).expect("a text");
        let mut problem = one.problem(&weights).expect("its weights");
        let at_mean: Vec<f64> = found.tokens.iter().map(|token| token.with.nll).collect();
        let expected = problem.token_nll_at(&found.mu).expect("scored");
        assert_close(&at_mean, &expected, Tol { abs: 1e-3, rel: 0.0 });
        // Latents and layers have the same KL.
        let per_latent = found.kl_per_latent.as_ref().expect("a closed form");
        assert_eq!(per_latent.len(), 4);
        let layers: Vec<f64> = per_latent.chunks(2).map(|layer| layer.iter().sum()).collect();
        assert_close(&layers, &found.kl_per_layer, Tol { abs: 1e-9, rel: 0.0 });
        // The last step is the fitted posterior, and the first the start of the fit.
        let decoded = |frame: &Frame| frame.decoded.clone().expect("decoded");
        assert_eq!(found.steps.len(), config.infer.steps + 1);
        assert_eq!(decoded(found.steps.last().expect("some")), found.decoded);
        assert_eq!(found.decoded, explorer.decode(&found.mu).expect("decoded"));
        let start = Inference::finished(&config.infer).expect("good");
        let start = problem.start(start.start(), OneText::key(7)).expect("a start");
        let start = start.mu.to_f32().expect("on the host");
        assert_eq!(decoded(&found.steps[0]), explorer.decode(&start).expect("decoded"));
        assert_ne!(start, found.mu);
        assert_eq!(found.tokens.iter().map(|token| &*token.text).collect::<String>(), "a dog");
    }

    #[test]
    fn a_changed_latent_is_decoded_and_scored() {
        let mut explorer = explorer(4).expect("a model with latents");
        let texts = ["a dog", "the cat"];
        let explored =
            texts.map(|text| explorer.explore(text, 7, &mut |_| Ok(())).expect("fitted"));
        let found = explorer.changes(&explored, 0, &mut |_, _| ()).expect("changed");
        assert_eq!(found.len(), 5 * 5, "five changes of four latents, and of all");
        let of = |latent, change| {
            let is = |found: &&Changed| (found.latent, found.change) == (latent, change);
            found.iter().find(is).expect("there")
        };
        // All at the prior is what the ledger calls without.
        let prior = of(None, Change::Prior);
        assert_close(&[prior.nll], &[explored[0].ledger.without], Tol { abs: 1e-9, rel: 0.0 });
        let nothing = explorer.decode(&[0.0; 64]).expect("decoded");
        assert_eq!(prior.text, nothing);
        // All of the other text is the other text.
        let swapped = of(None, Change::Swap { with: 1 });
        assert_eq!(swapped.text, explored[1].decoded);
        // One is neither.
        let one = of(Some(2), Change::Prior);
        let mut z = explored[0].mu.clone();
        z[32..48].fill(0.0);
        assert_eq!(one.text, explorer.decode(&z).expect("decoded"));
        assert_eq!(one.nll, explorer.nll("a dog", &z).expect("scored"));
        assert!(one.nll != prior.nll && one.nll != of(Some(1), Change::Prior).nll);
        assert!(explorer.changes(&explored, 2, &mut |_, _| ()).is_err());
    }

    #[test]
    fn samples_of_the_prior_are_of_their_seed() {
        let explorer = explorer(4).expect("a model with latents");
        let of = |seed| explorer.prior_sample(seed).expect("drawn");
        assert_eq!(of(1), of(1));
        assert_ne!(of(1), of(2));
        let square = of(1).iter().map(|x| x * x).sum::<f32>() / 64.0;
        assert!((0.5..1.6).contains(&square), "{square}");
    }

    #[test]
    fn what_cannot_be_explored_is_refused_by_its_name() {
        let field = |error: Error| match error {
            Error::Field { field, .. } => field,
            other => panic!("{other}"),
        };
        assert_eq!(explorer(0).err().map(field).as_deref(), Some("model.n_latents"));
        let mut with = explorer(4).expect("a model with latents");
        let refused = with.explore("", 0, &mut |_| Ok(())).map_err(field);
        assert_eq!(refused.err().as_deref(), Some("text"));
        with.config.infer.method = Method::Langevin;
        let refused = with.explore("a", 0, &mut |_| Ok(())).map_err(field);
        assert_eq!(refused.err().as_deref(), Some("infer.method"));
        assert!(with.decode(&[0.0; 3]).is_err());
    }
}
