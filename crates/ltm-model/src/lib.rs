#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod blocks;
mod config;
mod decode;
mod device_weights;
pub mod encoder;
mod error;
mod forward;
mod inputs;
mod latent_map;
pub mod model;
mod params;
mod sample;
mod weight_file;
mod weights;

pub use config::{Attention, ModelConfig};
pub use decode::Decoder;
pub use device_weights::DeviceWeights;
pub use error::{Error, Result};
pub use forward::{Forward, Tap};
pub use params::{
    AttentionParams, CouplingParams, EncoderParams, FeedForwardParams, Init, LayerParams,
    ModelParams, NormedParams, ParamSpec, Part, param_table,
};
pub use sample::{SampleConfig, sample};
pub use weight_file::WeightFile;
pub use weights::Weights;

// What the signatures above take and return.
pub use ltm_autodiff::{self, Graph, Value};
pub use ltm_kernels::{self, Device};
pub use safetensors::SafeTensorError;
