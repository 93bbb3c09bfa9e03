#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod batch;
mod calibrate;
mod config;
mod counts;
mod cut;
mod divergence;
mod error;
pub mod estimators;
mod factor;
pub mod fit;
mod fitter;
mod flow;
mod generate;
mod importance;
mod key;
mod latent_use;
mod latents;
mod likelihood;
mod low_rank;
pub mod objective;
mod own_units;
mod posterior;
mod prior;
pub mod probe;
mod problem;
mod program;
mod protocol;
mod score;
mod start;
mod suits;
mod tables;
#[cfg(test)]
#[path = "../tests/tiny/mod.rs"]
mod tiny;
mod weight_grad;

pub use batch::Batch;
pub use config::{InferConfig, Initial, Method, Noise, Schedule, StartKind, Units};
pub use counts::{TrainingCounts, training_counts};
pub use cut::Cut;
pub use error::{Error, Result};
pub use factor::Factor;
pub use fit::{Fit, Inference};
pub use fitter::{LatentSource, Prompt};
pub use flow::{Flow, prior_of};
pub use generate::{
    Draw, GenerateOptions, Generation, Generator, Keep, Next, Pool, Rethink, RethinkStart, Round,
    RoundScore, generate, generate_many,
};
pub use importance::Weighted;
pub use key::{InferKey, Sequences};
pub use latent_use::{BatchUse, LatentUse, MeanVariance};
pub use latents::{Gaussian, Latents};
pub use likelihood::{Extents, Likelihood};
pub use low_rank::TracedFactor;
pub use objective::{SlowGradient, Training};
pub use posterior::Posterior;
pub use prior::{Density, Prior, StandardNormal, TracedGaussian};
pub use problem::{FastStep, Gradient, Problem};
pub use program::{Program, Programs};
pub use protocol::Protocol;
pub use score::{Estimate, Masked, Predictor, Scores, mask_batch, score};
pub use start::Start;
pub use suits::{Task, suits};
pub use weight_grad::{SlowLoss, TakeGradient, WeightGradients};

// What the signatures above take and return.
pub use ltm_autodiff::{self, NodeCount, Precision};
pub use ltm_kernels::{self, Buffer, Cost, Device};
pub use ltm_model::{self, Attention, Decoder, DeviceWeights, ModelConfig, SampleConfig, Weights};
