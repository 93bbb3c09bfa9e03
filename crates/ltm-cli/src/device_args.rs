//! Where to compute: the arguments that verbs share.

use clap::ValueEnum;
use ltm_train::config::{PrecisionKind, RunConfig};

/// Where to compute, in place of what the run's configuration says.
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// cpu, cuda (the first GPU) or cuda:N; as the run says when left out
    #[arg(long)]
    device: Option<String>,
    /// What to compute in; when left out as the run says, or f32 on the CPU and mixed on CUDA
    #[arg(long, value_enum)]
    precision: Option<PrecisionArg>,
}

/// What to compute in.
#[derive(Clone, Copy, ValueEnum)]
pub enum PrecisionArg {
    /// Single precision
    F32,
    /// 16 bits (bf16) with sums and weights in single precision: on CUDA for activations and products, on the CPU for
    /// products alone
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
    /// The arguments as they were typed, a space before each.
    pub fn as_typed(&self) -> String {
        let device = self.device.iter().map(|device| format!(" --device {device}"));
        let precision = self.precision.iter().filter_map(ValueEnum::to_possible_value);
        device.chain(precision.map(|value| format!(" --precision {}", value.get_name()))).collect()
    }

    /// Puts what was asked for into a run's configuration.
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
