//! The measures of latents as files have them.

use ltm_vi::LatentUse;
use serde::{Deserialize, Serialize};

use crate::json::{nan, null_as_nan, nulls_as_nan};

/// The numbers of [`LatentUse`]. A number that an earlier version did not write is NaN, and a list empty.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LatentNumbers {
    /// Sequences whose latents were fitted.
    #[serde(default)]
    pub sequences: u64,
    /// KL of each layer from the prior, in nats per sequence.
    #[serde(default, deserialize_with = "nulls_as_nan")]
    pub kl_per_layer_nats_per_sequence: Vec<f64>,
    /// KL of each latent vector from the prior, in nats per sequence; empty where the prior is learned.
    #[serde(default, deserialize_with = "nulls_as_nan")]
    pub kl_per_latent_nats_per_sequence: Vec<f64>,
    /// What the latents are worth: see [`LatentUse::worth`].
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub worth_nats_per_token: f64,
    /// Its standard error over sequences.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub worth_standard_error: f64,
    /// How far the fitted bound is above that of the prior: see [`LatentUse::above_prior`].
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub bound_above_prior_nats_per_token: f64,
    /// Its standard error over sequences.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub bound_above_prior_standard_error: f64,
    /// Rows that were fitted twice, for the variances.
    #[serde(default)]
    pub refitted_sequences: u64,
    /// Variance of posterior means over texts.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub mean_signal_variance: f64,
    /// Their variance over fits of one text.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub mean_noise_variance: f64,
    /// The share of the former in the sum of both.
    #[serde(default = "nan", deserialize_with = "null_as_nan")]
    pub mean_signal_share: f64,
}

impl From<&LatentUse> for LatentNumbers {
    fn from(latents: &LatentUse) -> Self {
        let (worth_nats_per_token, worth_standard_error) = latents.worth();
        let (bound_above_prior_nats_per_token, bound_above_prior_standard_error) =
            latents.above_prior();
        let variance = latents.mean_variance();
        Self {
            sequences: latents.sequences() as u64,
            kl_per_layer_nats_per_sequence: latents.kl_per_layer(),
            kl_per_latent_nats_per_sequence: latents.kl_per_latent(),
            worth_nats_per_token,
            worth_standard_error,
            bound_above_prior_nats_per_token,
            bound_above_prior_standard_error,
            refitted_sequences: latents.refitted() as u64,
            mean_signal_variance: variance.signal,
            mean_noise_variance: variance.noise,
            mean_signal_share: variance.share(),
        }
    }
}
