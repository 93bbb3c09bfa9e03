#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod close;
mod device;
mod gradcheck;
mod rng;

pub use close::{Tol, assert_close, relative_frobenius};
pub use device::cuda_device;
pub use gradcheck::gradcheck;
pub use rng::seeded;
