//! The lines of a run folder's `raw.jsonl`, as they are written and read. Knows their fields, not how they are measured.

use ltm_bench::outln;
use serde::{Deserialize, Serialize};

use crate::clock::Sample;

/// One line.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Record {
    Device(Roofline),
    Kernel(Kernel),
    Step(Step),
    Peer(Peer),
    Missing(Missing),
}

impl Record {
    /// Writes the line to stdout.
    pub fn print(&self) -> anyhow::Result<()> {
        outln!("{}", serde_json::to_string(self)?)?;
        Ok(())
    }
}

/// What the device can do at best, measured in the same run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Roofline {
    pub name: String,
    pub architecture: String,
    pub multiprocessors: u32,
    /// Bytes read and written per second by a copy of 256 MiB, in units of 1e9.
    pub copy_gb_s: f64,
    /// The rates of cuBLASLt's large square products; `None` without that library.
    pub bf16_tflop_s: Option<f64>,
    pub f32_tflop_s: Option<f64>,
}

/// One rung of an op at one shape; without times it was only checked.
#[derive(Serialize, Deserialize)]
pub struct Kernel {
    pub op: String,
    pub case: String,
    pub dtype: String,
    pub rung: String,
    pub shape: [usize; 3],
    #[serde(flatten)]
    pub times: Option<KernelTimes>,
}

/// Times of a rung, and what they are compared with.
#[derive(Serialize, Deserialize)]
pub struct KernelTimes {
    #[serde(flatten)]
    pub times: Times,
    pub gb_s: f64,
    pub tflop_s: f64,
    /// The least time that the roofline allows (the larger of bytes over bandwidth and operations over rate) over the
    /// measured time.
    pub share_of_roofline: f64,
    /// How many times faster than the lowest rung.
    pub times_lowest_rung: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cublaslt_ms: Option<f64>,
    /// How many times faster than cuBLASLt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub times_cublaslt: Option<f64>,
}

/// A whole step of a model.
#[derive(Serialize, Deserialize)]
pub struct Step {
    pub model: String,
    pub step: String,
    pub precision: String,
    pub batch: [usize; 2],
    #[serde(flatten)]
    pub times: Option<StepTimes>,
}

/// Times of a step, and what they mean.
#[derive(Serialize, Deserialize)]
pub struct StepTimes {
    #[serde(flatten)]
    pub times: Times,
    pub tokens_s: f64,
    pub gflop: f64,
    /// Model FLOPs utilisation: the step's rate over the dense rate; `None` without cuBLASLt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mfu: Option<f64>,
    pub plan_mb: f64,
}

/// The same case in PyTorch.
#[derive(Serialize, Deserialize)]
pub struct Peer {
    pub op: String,
    pub case: String,
    pub dtype: String,
    /// What ran there, such as `F.linear`.
    pub peer: String,
    #[serde(flatten)]
    pub times: Option<Times>,
    /// Why it did not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
}

/// Something to compare with that this machine does not have.
#[derive(Serialize, Deserialize)]
pub struct Missing {
    /// Such as `cuBLASLt` or `PyTorch`.
    pub what: String,
    pub why: String,
}

/// Quantiles in milliseconds.
#[derive(Clone, Copy, Serialize, Deserialize)]
pub struct Times {
    pub median_ms: f64,
    pub p10_ms: f64,
    pub p90_ms: f64,
    pub samples: usize,
}

impl From<Sample> for Times {
    fn from(Sample { p10, median, p90, samples }: Sample) -> Self {
        let [median_ms, p10_ms, p90_ms] = [median, p10, p90].map(|ms| rounded(ms, 1e5));
        Self { median_ms, p10_ms, p90_ms, samples }
    }
}

/// To one part of `unit`.
pub fn rounded(x: f64, unit: f64) -> f64 {
    (x * unit).round() / unit
}
