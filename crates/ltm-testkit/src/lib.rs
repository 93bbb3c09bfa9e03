#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod close;
mod gradcheck;
mod rng;

pub use close::{Tol, assert_close, relative_frobenius};
pub use gradcheck::gradcheck;
pub use rng::seeded;
