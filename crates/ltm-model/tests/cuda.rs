//! The traced model on CUDA against the numbers recorded from the published one: on a GPU, or on the
//! simulator where its library stands in for the driver. Without `LTM_DEVICE=cuda` it is skipped.

mod fixture;

use std::io::Write;

use fixture::parity::{check_latent_gradients, check_weight_gradients};
use ltm_kernels::Device;

/// As on the CPU, with sums in another order and the fast exponential on one side.
const TOL: f64 = 1e-4;

fn device() -> Option<Device> {
    match std::env::var("LTM_DEVICE") {
        Ok(name) if name.starts_with("cuda") => {
            Some(name.parse().expect("LTM_DEVICE names a device that can be opened"))
        }
        _ => {
            // Past the test harness, which would keep it to itself.
            let _ = writeln!(std::io::stderr(), "skipped: no CUDA device");
            None
        }
    }
}

#[test]
fn latent_gradients_are_the_recorded_ones() {
    let Some(device) = device() else { return };
    for fixture in [fixture::tiny(), fixture::gqa()] {
        check_latent_gradients(fixture, &device, TOL);
    }
}

#[test]
fn weight_gradients_are_the_recorded_ones() {
    let Some(device) = device() else { return };
    for fixture in [fixture::tiny(), fixture::gqa()] {
        check_weight_gradients(fixture, &device, TOL);
    }
}
