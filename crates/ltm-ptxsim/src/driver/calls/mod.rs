//! The exported functions: one file per chapter of the driver manual. Each checks its arguments and calls the object
//! that they name. Must not know how objects work.

mod capture;
mod context;
mod device;
mod error;
mod event;
mod graph;
mod launch;
mod library;
mod memory;
mod module;
mod occupancy;
mod stream;
mod symbols;
