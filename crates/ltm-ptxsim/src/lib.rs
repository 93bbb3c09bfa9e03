#![doc = include_str!("../README.md")]

// The chapters, in reading order: each uses only those before it.
mod device;
mod driver;
mod memory;
mod options;
mod program;
mod report;
mod run;
mod text;
mod values;

pub use device::{DeviceModel, Multiprocessor, Occupancy, Resource};
pub use memory::{Memory, MemoryError};
pub use options::{AsyncCopies, LaunchConfig, Options, Output};
pub use program::{Entry, Module, Param, Program};
pub use report::{Class, Counters, Fault, FaultKind, OtherAccess};
pub use run::launch;
pub use text::ParseError;
