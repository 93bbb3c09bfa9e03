#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod close;
mod device;
mod folders;
mod gradcheck;
mod rng;

pub use close::{Tol, assert_close, relative_frobenius};
pub use device::cuda_device;
pub use folders::copy_folder;
pub use gradcheck::gradcheck;
pub use rng::seeded;
