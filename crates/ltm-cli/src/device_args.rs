//! Device and precision, and the model that verbs load: arguments that verbs share.

use std::path::PathBuf;

use clap::ValueEnum;
use ltm_train::Checkpoint;
use ltm_train::config::{PrecisionKind, RunConfig};

use crate::output::usage;

/// Overrides of `run.device` and `run.precision`, for training.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// Device: `cpu`, `cuda` (the first GPU) or `cuda:N` [default: `run.device` of the configuration]
    #[arg(long, display_order = 901)]
    device: Option<String>,
    /// Arithmetic precision of training [default: `run.precision` of the configuration, or with --device the device's own:
    /// f32 on the CPU, mixed on CUDA]; evaluations compute in `run.eval_precision`, f32 by default
    #[arg(long, value_enum, display_order = 902)]
    precision: Option<PrecisionArg>,
}

/// Arithmetic precision.
#[derive(Clone, Copy, ValueEnum)]
pub enum PrecisionArg {
    /// 32-bit floating point
    F32,
    /// bf16 with f32 weights and accumulation: activations and matrix products on CUDA, matrix products only on the CPU
    Mixed,
}

impl From<PrecisionArg> for PrecisionKind {
    fn from(precision: PrecisionArg) -> Self {
        match precision {
            PrecisionArg::F32 => Self::F32,
            PrecisionArg::Mixed => Self::Mixed,
        }
    }
}

impl DeviceArgs {
    /// The arguments as they were typed, each after a space.
    pub fn as_typed(&self) -> String {
        let device = self.device.iter().map(|device| format!(" --device {device}"));
        let precision = self.precision.iter().filter_map(ValueEnum::to_possible_value);
        device.chain(precision.map(|value| format!(" --precision {}", value.get_name()))).collect()
    }

    /// Overrides a run's configuration.
    pub fn apply(&self, run: &mut RunConfig) {
        if let Some(device) = &self.device {
            run.device = device.clone();
            // The run's precision belongs to the run's device.
            run.precision = None;
        }
        if let Some(precision) = self.precision {
            run.precision = Some(precision.into());
        }
    }
}

/// A trained model.
#[derive(clap::Args)]
pub struct RunArgs {
    /// Run folder (its newest checkpoint is used) or checkpoint folder
    #[arg(value_name = "RUN")]
    path: PathBuf,
    /// Override a value of the run's configuration, such as `infer.steps=64`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE", display_order = 900)]
    set: Vec<String>,
}

impl RunArgs {
    /// Reads the checkpoint and overrides its configuration.
    pub fn load(&self) -> anyhow::Result<Checkpoint> {
        let mut checkpoint = Checkpoint::load(&self.path)?;
        if !self.set.is_empty() {
            let config = checkpoint.configured(&self.set)?;
            if config.model != checkpoint.config.model {
                return Err(usage("--set cannot change `model`: its weights are already trained"));
            }
            checkpoint.config = config;
        }
        Ok(checkpoint)
    }
}

/// A trained model and what computes it, as most verbs load it.
#[derive(clap::Args)]
pub struct CheckpointArgs {
    #[command(flatten)]
    run: RunArgs,
    /// Device: `cpu`, `cuda` (the first GPU) or `cuda:N` [default: `run.device` of the configuration]
    #[arg(long, display_order = 901)]
    device: Option<String>,
    /// Arithmetic precision [default: `run.eval_precision` of the configuration, which is f32 on every device unless set]
    #[arg(long, value_enum, display_order = 902)]
    precision: Option<PrecisionArg>,
}

impl CheckpointArgs {
    /// Reads the checkpoint and overrides its configuration.
    pub fn load(&self) -> anyhow::Result<Checkpoint> {
        let mut checkpoint = self.run.load()?;
        let run = &mut checkpoint.config.run;
        if let Some(device) = &self.device {
            run.device.clone_from(device);
        }
        if let Some(precision) = self.precision {
            run.eval_precision = Some(precision.into());
        }
        Ok(checkpoint)
    }
}
