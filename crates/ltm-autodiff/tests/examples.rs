//! The examples do on the CPU what they say.
#![expect(dead_code, reason = "the examples' own `main`")]

#[path = "../examples/classifier.rs"]
mod classifier;
#[path = "../examples/custom_operation.rs"]
mod custom_operation;
#[path = "../examples/gpt.rs"]
mod gpt;
#[path = "../examples/vae.rs"]
mod vae;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_testkit::{Tol, assert_close, gradcheck};

const CPU: &Device = &Device::Cpu;

#[test]
fn the_classifier_separates_the_spirals() {
    let log = classifier::train(CPU, 300).expect("the CPU trains it");
    let (_, first, _) = log[0];
    let &(step, loss, accuracy) = log.last().expect("the last step is reported");
    assert!(step == 300 && loss < 0.25 * first && accuracy > 0.95, "{log:?}");
}

#[test]
fn the_autoencoder_finds_the_curve() {
    let log = vae::train(CPU, 600).expect("the CPU trains it");
    let bound = |(_, nll, kl): (usize, f64, f64)| nll + kl;
    let (first, last) = (bound(log[0]), bound(*log.last().expect("the last step is reported")));
    // Without latents the best mean is 0, whose squared error is 1/2 per dimension: 8/4 / 0.01 nats.
    assert!(first > 100.0 && last < 20.0, "{log:?}");
    assert!(log.last().expect("as above").2 > 1.0, "the latents carry the point: {log:?}");
}

#[test]
fn the_gpt_learns_its_verse() {
    let (losses, text) = gpt::train(CPU, 150, "hold inf", 12).expect("the CPU trains it");
    assert!(losses[0] > 3.0 && losses[149] < 0.7, "{} {}", losses[0], losses[149]);
    assert_eq!(text, "hold infinity in the");
}

#[test]
fn the_custom_operation_and_its_gradient() {
    let x = [-50.0, -2.0, -0.5, 0.0, 0.25, 3.0, 100.0].map(|x: f32| x);
    let wide: Vec<_> = x.iter().map(|&x| f64::from(x)).collect();
    let (y, slope) = custom_operation::run(CPU, Precision::F64, &x).expect("the CPU has f64");
    let expected: Vec<_> = wide.iter().map(|x| x.max(0.0) + (-x.abs()).exp().ln_1p()).collect();
    assert_close(&y, &expected, Tol { abs: 0.0, rel: f64::EPSILON });
    let sum = |x: &[f64]| x.iter().map(|x| x.max(0.0) + (-x.abs()).exp().ln_1p()).sum();
    gradcheck(sum, &wide[1..6], &slope[1..6], Tol { abs: 1e-7, rel: 1e-7 });
    let (narrow, _) = custom_operation::run(CPU, Precision::F32, &x).expect("the CPU has f32");
    assert_close(&narrow, &y, Tol { abs: 0.0, rel: 4.0 * f64::from(f32::EPSILON) });
}
