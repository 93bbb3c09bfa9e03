#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod config;
mod error;
pub mod eval;
pub mod flops;
pub mod json;
pub mod memory;
pub mod metrics;
pub mod observer;
pub mod posteriors;
pub mod resume;
pub mod run;
pub mod run_data;
pub mod run_record;
pub mod step;
pub mod trained;
pub mod trainer;

pub use checkpoint::Checkpoint;
pub use config::Config;
pub use error::{Error, Result, chain};
pub use eval::{Evaluation, evaluate};
pub use observer::{Next, Observer};
pub use posteriors::Posteriors;
pub use run::{Run, Start, Summary};
pub use step::{SlowLearner, StepReport};
pub use trained::Trained;
pub use trainer::Trainer;

// What the signatures above take and return.
pub use ltm_collective::{self, Group};
pub use ltm_data as data;
pub use ltm_files::{self, FolderLock};
pub use {ltm_autodiff, ltm_kernels, ltm_model, ltm_vi};
