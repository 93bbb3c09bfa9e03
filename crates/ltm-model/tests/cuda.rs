//! The traced model on CUDA against the numbers recorded from the published one: on a GPU, or on the
//! simulator where its library stands in for the driver. Without `LTM_DEVICE=cuda` it is skipped.

mod fixture;

use fixture::parity::{check_forward, check_latent_gradients, check_weight_gradients};
use ltm_kernels::Device;
use ltm_testkit::cuda_device;

/// As on the CPU.
const TOL: f64 = 2e-5;

fn device() -> Option<Device> {
    let name = cuda_device()?;
    Some(name.parse().expect("LTM_DEVICE names a device that can be opened"))
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

#[test]
fn a_pass_over_whole_texts_gives_the_recorded_logits() {
    let Some(device) = device() else { return };
    for fixture in [fixture::tiny(), fixture::gqa()] {
        check_forward(fixture, &device, TOL);
    }
}
