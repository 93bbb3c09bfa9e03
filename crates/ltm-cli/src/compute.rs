//! Where to compute: the arguments that verbs share.

use clap::ValueEnum;
use ltm_train::config::{PrecisionKind, RunConfig};

/// Where to compute, in place of what the run's configuration says.
#[derive(clap::Args)]
pub struct Compute {
    /// cpu, cuda (the first GPU) or cuda:N; as the run says when left out
    #[arg(long)]
    device: Option<String>,
    /// Type of the activations; when left out as the run says, or what suits --device
    #[arg(long, value_enum)]
    precision: Option<Activations>,
}

/// The type of activations.
#[derive(Clone, Copy, ValueEnum)]
pub enum Activations {
    /// Single precision: what the CPU has
    F32,
    /// 16 bits (bf16) with sums and weights in single precision: faster, on CUDA only
    Mixed,
}

impl From<Activations> for PrecisionKind {
    fn from(activations: Activations) -> Self {
        match activations {
            Activations::F32 => Self::F32,
            Activations::Mixed => Self::Mixed,
        }
    }
}

impl Compute {
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
