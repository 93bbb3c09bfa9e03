#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod elbo;
mod engine;
mod error;
pub mod estimators;
mod fast_loop;
mod generate;
mod latent_use;
mod masked_diffusion;
mod posterior;
mod prequential;
pub mod probe;
mod protocol;
mod schedule;
mod scores;

pub use config::{InferConfig, Method, Noise, Schedule};
pub use elbo::{score_batch, score_batch_after};
pub use engine::{Engine, FastStep, SlowGradient, TrainingCounts, training_counts};
pub use error::{Error, Result};
pub use generate::{GenerateOptions, Generation, LatentSource, generate, generate_many};
pub use latent_use::{LatentUse, MeanVariance};
pub use masked_diffusion::{Masked, mask_batch};
pub use posterior::{InferKey, Posterior};
pub use protocol::Protocol;
pub use scores::{Estimate, Scores};

// What the signatures above take and return.
pub use ltm_autodiff::{self, NodeCount, Precision};
pub use ltm_kernels::{self, Buffer, Cost, Device};
pub use ltm_model::{self, Attention, Decoder, ModelConfig, SampleConfig, Weights};
