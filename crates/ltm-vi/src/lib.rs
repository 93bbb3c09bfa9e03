#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod config;
mod elbo;
mod engine;
mod error;
mod fast_loop;
mod generate;
mod latent_use;
mod posterior;
pub mod probe;
mod schedule;

pub use config::{InferConfig, Noise, Schedule};
pub use elbo::{Estimate, Protocol, Scores, score_batch};
pub use engine::{Engine, FastStep, SlowGradient, TrainingCounts};
pub use error::{Error, Result};
pub use generate::{GenerateOptions, Generation, LatentSource, generate};
pub use latent_use::LatentUse;
pub use posterior::{InferKey, Posterior};
