//! Configuration of the fast learner: method, steps, rates, noise and the start of the posterior. Knows no
//! model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::argument;
use crate::{Error, Result};

/// How the latents of a sequence are inferred.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A Gaussian posterior, fitted by AdamW on its mean and log-variance (Kong et al. 2025).
    #[default]
    Variational,
    /// One sample of the posterior, by the unadjusted Langevin algorithm: each step moves the latents by
    /// `-lr·dU + sqrt(2·lr)·N(0,I)` with `U(z) = -log p(x|z) - log p(z)`. It has no density, and therefore no
    /// bound.
    Langevin,
}

/// Where the fit of a sequence begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum StartKind {
    /// Drawn as in the published code: means around 0 (`init_mu_std`), log-variances around `init_log_var_mean`.
    #[default]
    Drawn,
    /// The prior's mean and variance, where the KL is 0.
    Prior,
    /// The posterior that the model's encoder predicts in one pass: a learned start, and with `steps = 0` a variational
    /// autoencoder. Needs a model with `encoder_width`, which are trained with the decoder.
    Encoder,
    /// The posterior that the same sequence's last fit in training ended with, so that 1 or 2 fast steps per visit are
    /// enough. Where there is none (a first visit, a prefix, every score of a text), the encoder's posterior, or the prior
    /// for a model without an encoder. AdamW's running means are not kept: each fit begins with new ones. While the KL has
    /// no weight (`kl_hold`), kept posteriors move far from the prior and return slowly. Needs `data.rows = "documents"`.
    Given,
}

/// The learning rate within one fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// The same rate at every fast step.
    Constant,
    /// Half a cosine, from the rate down towards `final_ratio` times the rate.
    #[default]
    Cosine,
}

/// The unit of a mean's gradient and step in a fit by AdamW.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Units {
    /// That of the latents, as in the published code.
    #[default]
    Latent,
    /// The posterior's own standard deviation: a step moves a mean by about `lr` of them, and `eps` is compared with
    /// gradients that do not grow with the length of the text. So the same rates suit short texts and long ones, wide
    /// starts and narrow ones.
    Posterior,
}

/// The noise of a fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Noise {
    /// One draw for all fast steps, as in the published code. The fit can then hide information in the noise that
    /// the KL does not account for.
    Fixed,
    /// A new draw at every fast step, and one more for the sample after the last.
    #[default]
    Fresh,
}

/// Configuration of the fast loop: AdamW on the mean and log-variance of each sequence's posterior, or another
/// [`Method`].
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct InferConfig {
    /// How the latents of a sequence are inferred.
    #[serde(default)]
    pub method: Method,
    /// Where the fit of a sequence begins.
    #[serde(default)]
    pub start: StartKind,
    /// Fast steps `S` per sequence; 0 leaves the posterior at its start.
    #[serde(default = "default_steps")]
    pub steps: usize,
    /// Learning rate of the posterior at the beginning of training; Langevin's step size.
    #[serde(default = "default_lr")]
    pub lr: f64,
    /// Learning rate of the posterior at the end of training, approached linearly over the slow steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lr_end: Option<f64>,
    /// The learning rate within one fit.
    #[serde(default)]
    pub schedule: Schedule,
    /// Value towards which the cosine schedule falls, as a fraction of the rate.
    #[serde(default = "default_final_ratio")]
    pub final_ratio: f64,
    /// Decay rate of the gradient's running mean.
    #[serde(default = "default_beta1")]
    pub beta1: f64,
    /// Decay rate of the squared gradient's running mean.
    #[serde(default = "default_beta2")]
    pub beta2: f64,
    /// Constant that AdamW adds to the root of the squared gradient's running mean.
    #[serde(default = "default_eps")]
    pub eps: f64,
    /// Decoupled weight decay, on mean, log-variance and columns alike.
    #[serde(default)]
    pub weight_decay: f64,
    /// The unit of a mean's gradient and step.
    #[serde(default)]
    pub units: Units,
    /// The noise of a fit.
    #[serde(default)]
    pub noise: Noise,
    /// Columns of each layer by which a fitted posterior correlates the layer's latents: its covariance is diagonal plus of
    /// this rank, at most 4. 0 is a posterior of independent numbers, as in the published code. Every fit begins with
    /// small columns. Langevin dynamics and training from kept posteriors (`given`) refuse it.
    #[serde(default)]
    pub rank: usize,
    /// Steps of a window: the fit of a sequence ends when the mean bound of a window is no lower than that of the window
    /// before; 0 takes all `steps`.
    #[serde(default)]
    pub stop_window: usize,
    /// Standard deviation of a drawn start's means around 0, or of Langevin's initial sample.
    #[serde(default = "default_init_mu_std")]
    pub init_mu_std: f64,
    /// Mean of a drawn start's log-variances; 0 is that of the prior.
    #[serde(default)]
    pub init_log_var_mean: f64,
    /// Standard deviation of a drawn start's log-variances.
    #[serde(default)]
    pub init_log_var_std: f64,
    /// KL of each layer's latents of a sequence that costs nothing in the objective of training, in nats (Kingma et al.
    /// 2016); 0 counts every nat. Scores are not affected.
    #[serde(default)]
    pub free_bits: f64,
    /// KL of a sequence's latents, in nats, that training aims at: the weight of the KL falls while the KL is below it and
    /// rises again, up to 1, while it is above, so that latents that would be given up are kept. Scores are not affected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kl_target: Option<f64>,
    /// Fraction of training in which the KL has no weight in the objective, before `kl_warmup`: the decoder first
    /// learns to read its latents, and then what they cost. Scores are not affected.
    #[serde(default)]
    pub kl_hold: f64,
    /// Fraction of training, after `kl_hold`, over which the weight of the KL in the objective rises from 0 to 1, so
    /// that the decoder learns to use its latents (Bowman et al. 2016); 0 is no warm-up. Scores are not affected.
    #[serde(default)]
    pub kl_warmup: f64,
}

fn default_steps() -> usize {
    16
}

fn default_lr() -> f64 {
    0.3
}

fn default_final_ratio() -> f64 {
    0.1
}

/// Spread of a drawn start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Initial {
    /// Standard deviation of the means around 0.
    pub mu_std: f64,
    /// Mean of the log-variances.
    pub log_var_mean: f64,
    /// Standard deviation of the log-variances.
    pub log_var_std: f64,
}

/// The most columns of a layer: their determinants are unrolled in the graph.
const MAX_RANK: usize = 4;

/// The most fast steps: tables on a device have a row for each.
const MAX_STEPS: usize = 1_000_000;

fn default_beta1() -> f64 {
    0.9
}

fn default_beta2() -> f64 {
    0.999
}

fn default_eps() -> f64 {
    1e-8
}

fn default_init_mu_std() -> f64 {
    0.01
}

impl InferConfig {
    /// The published configuration: 16 steps, rate 0.3 to 0.34, one noise for all steps.
    pub fn published() -> Self {
        Self {
            method: Method::Variational,
            start: StartKind::Drawn,
            steps: 16,
            lr: 0.3,
            lr_end: Some(0.34),
            schedule: Schedule::Cosine,
            final_ratio: default_final_ratio(),
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            weight_decay: 0.01,
            units: Units::Latent,
            noise: Noise::Fixed,
            rank: 0,
            stop_window: 0,
            init_mu_std: 0.01,
            init_log_var_mean: -5.0,
            init_log_var_std: 0.1,
            free_bits: 0.0,
            kl_target: None,
            kl_hold: 0.0,
            kl_warmup: 0.0,
        }
    }

    /// Whether the encoder's posterior is final: a variational autoencoder.
    pub fn is_amortised(&self) -> bool {
        self.start == StartKind::Encoder && self.steps == 0
    }

    /// The rank of the posteriors that fits end with: that of a start, 0, where no step follows.
    pub fn fitted_rank(&self) -> usize {
        if self.steps == 0 { 0 } else { self.rank }
    }

    /// The spread of a fit's start.
    pub fn initial(&self) -> Initial {
        Initial {
            mu_std: self.init_mu_std,
            log_var_mean: self.init_log_var_mean,
            log_var_std: self.init_log_var_std,
        }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] for the first field that breaks its rule.
    pub fn validate(&self) -> Result<()> {
        let check = |field, holds, expected, found| {
            if holds { Ok(()) } else { Err(Error::Config { field, expected, found }) }
        };
        let steps = self.steps as f64;
        check("steps", self.steps <= MAX_STEPS, "at most 1000000", steps)?;
        check("rank", self.rank <= MAX_RANK, "at most 4", self.rank as f64)?;
        let least_0 = |field, found: f64| {
            check(field, found >= 0.0 && found.is_finite(), "at least 0 and finite", found)
        };
        let unit = |field, found| check(field, (0.0..1.0).contains(&found), "in 0..1", found);
        least_0("lr", self.lr)?;
        least_0("lr_end", self.lr_end.unwrap_or(self.lr))?;
        let ratio = self.final_ratio;
        check("final_ratio", (0.0..=1.0).contains(&ratio), "in 0..=1", ratio)?;
        unit("beta1", self.beta1)?;
        unit("beta2", self.beta2)?;
        let eps = self.eps;
        check("eps", eps > 0.0 && eps.is_finite(), "above 0 and finite", eps)?;
        least_0("weight_decay", self.weight_decay)?;
        least_0("init_mu_std", self.init_mu_std)?;
        let mean = self.init_log_var_mean;
        check("init_log_var_mean", mean.abs() <= 50.0, "in -50..=50", mean)?;
        let std = self.init_log_var_std;
        check("init_log_var_std", (0.0..=10.0).contains(&std), "in 0..=10", std)?;
        least_0("free_bits", self.free_bits)?;
        let target = self.kl_target.unwrap_or(1.0);
        check("kl_target", target > 0.0 && target.is_finite(), "above 0 and finite", target)?;
        let (hold, share) = (self.kl_hold, self.kl_warmup);
        check("kl_hold", (0.0..=1.0).contains(&hold), "in 0..=1", hold)?;
        check("kl_warmup", (0.0..=1.0).contains(&share), "in 0..=1", share)?;
        let whole = hold + share;
        check("kl_warmup", whole <= 1.0, "at most 1 together with kl_hold", whole)?;
        if self.units == Units::Posterior && self.weight_decay > 0.0 {
            let expected = "0 for `infer.units = \"posterior\"`";
            return Err(argument("infer.weight_decay", expected, self.weight_decay));
        }
        if self.method == Method::Langevin && self.noise != Noise::Fresh {
            let expected = "`fresh` for `infer.method = \"langevin\"`, which draws at every step";
            return Err(argument("infer.noise", expected, "fixed"));
        }
        if self.method == Method::Langevin && self.rank > 0 {
            let expected = "0 for `infer.method = \"langevin\"`, which has no density";
            return Err(argument("infer.rank", expected, self.rank));
        }
        let aim = self.kl_target.unwrap_or(0.0);
        for (key, share) in
            [("infer.kl_hold", hold), ("infer.kl_warmup", share), ("infer.kl_target", aim)]
        {
            if self.method == Method::Langevin && share > 0.0 {
                let expected =
                    "0 for `infer.method = \"langevin\"`, which samples under the whole prior";
                return Err(argument(key, expected, share));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_name_the_field() {
        let good = InferConfig::published();
        good.validate().unwrap();
        let cases = [
            ("lr", InferConfig { lr: -1.0, ..good }),
            ("lr_end", InferConfig { lr_end: Some(f64::NAN), ..good }),
            ("final_ratio", InferConfig { final_ratio: 1.5, ..good }),
            ("beta1", InferConfig { beta1: 1.0, ..good }),
            ("beta2", InferConfig { beta2: f64::NAN, ..good }),
            ("eps", InferConfig { eps: 0.0, ..good }),
            ("weight_decay", InferConfig { weight_decay: f64::INFINITY, ..good }),
            ("init_mu_std", InferConfig { init_mu_std: -0.1, ..good }),
            ("init_log_var_mean", InferConfig { init_log_var_mean: f64::NAN, ..good }),
            ("init_log_var_std", InferConfig { init_log_var_std: -0.1, ..good }),
            ("init_log_var_std", InferConfig { init_log_var_std: 1e30, ..good }),
            ("free_bits", InferConfig { free_bits: f64::NAN, ..good }),
            ("kl_target", InferConfig { kl_target: Some(0.0), ..good }),
            ("kl_hold", InferConfig { kl_hold: -0.1, ..good }),
            ("kl_warmup", InferConfig { kl_warmup: 1.1, ..good }),
            ("kl_warmup", InferConfig { kl_hold: 0.6, kl_warmup: 0.6, ..good }),
            ("kl_warmup", InferConfig { kl_warmup: f64::NAN, ..good }),
            ("steps", InferConfig { steps: usize::MAX, ..good }),
            ("rank", InferConfig { rank: 5, ..good }),
        ];
        for (expected, config) in cases {
            match config.validate() {
                Err(Error::Config { field, .. }) => assert_eq!(field, expected),
                other => panic!("{config:?} gave {other:?}"),
            }
        }
        let fixed = InferConfig { method: Method::Langevin, ..good };
        assert!(matches!(fixed.validate(), Err(Error::Argument { arg: "infer.noise", .. })));
        let langevin = InferConfig { noise: Noise::Fresh, ..fixed };
        langevin.validate().unwrap();
        let warmed = InferConfig { kl_warmup: 0.1, ..langevin };
        assert!(matches!(warmed.validate(), Err(Error::Argument { arg: "infer.kl_warmup", .. })));
        InferConfig { kl_warmup: 0.1, ..good }.validate().unwrap();
    }
}
