//! Fits in units of the posterior's own standard deviation, against plain double precision.

mod tiny;

use ltm_autodiff::Precision;
use ltm_kernels::{DType, Device};
use ltm_model::{DeviceWeights, Weights};
use ltm_vi::fit::{AdamW, Fit};
use ltm_vi::{
    Batch, Gaussian, InferKey, Noise, Posterior, Program, Sequences, SlowGradient, Start, Units,
};
use std::sync::Arc;
use tiny::CONFIG;

const KEY: InferKey = InferKey { seed: 2, step: 3, sequences: Sequences::From(0) };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];
const EPS: f64 = 0.5;
const BETAS: [f64; 2] = [0.5, 0.9];

/// Mean and log-variance after each step by the formulas, from the gradients that `Problem` computes.
#[test]
fn steps_are_those_of_adam_in_standardised_coordinates() {
    let (cpu, f64) = (Device::Cpu, Precision::F64);
    let mut weights = Weights::init(&CONFIG, 5).unwrap();
    weights.params.iter_mut().flatten().for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 5.0 });
    let mut program = Program::new(&CONFIG, 2, 5, &cpu, f64, SlowGradient::None).unwrap();
    let weights = DeviceWeights::new(&CONFIG, &weights, &cpu, f64).unwrap();
    let batch = Batch::new(&CONFIG, 2, &TOKENS, &TARGETS).unwrap();
    let mut problem = program.problem(&weights, &batch).unwrap();
    let n = 2 * CONFIG.n_latents * CONFIG.dim;
    let wave = |scale: f32, shift: f32| (0..n).map(|i| shift + scale * (i as f32).sin()).collect();
    let start = Posterior {
        mu: wave(1.0, 0.2),
        log_var: wave(1.5, -2.0),
        noise: wave(1.2, 0.1),
        factor: None,
    };
    let rates = vec![0.3, 0.2, 0.1];
    let fit = AdamW {
        rates: rates.clone(),
        beta1: BETAS[0],
        beta2: BETAS[1],
        eps: EPS,
        weight_decay: 0.0,
        units: Units::Posterior,
        noise: Noise::Fixed,
        rank: 0,
        stop_window: 0,
        kl_weight: 0.7,
    };
    let gaussian = |q: &Posterior| Gaussian::new(q, &cpu, DType::F64).unwrap();
    let given = Start::Given(Arc::new(gaussian(&start)));
    let latents = fit.fit(&mut problem, &given, KEY, &mut |_| Ok(())).unwrap();
    let found = latents.gaussian().unwrap();

    let wide = |x: &[f32]| x.iter().map(|x| f64::from(*x)).collect::<Vec<_>>();
    let (mut mu, mut log_var) = (wide(&start.mu), wide(&start.log_var));
    let mut state = [vec![[0.0; 2]; n], vec![[0.0; 2]; n]];
    for (step, lr) in (1..).zip(&rates) {
        let mut q = gaussian(&start);
        q.mu.as_mut_slice::<f64>().unwrap().copy_from_slice(&mu);
        q.log_var.as_mut_slice::<f64>().unwrap().copy_from_slice(&log_var);
        let at = problem.gradient(&q, 0.7).unwrap();
        let (dmu, dlog_var) = (at.dmu.to_f64().unwrap(), at.dlog_var.to_f64().unwrap());
        let adam = |[m, v]: &mut [f64; 2], g: f64| {
            *m = BETAS[0] * *m + (1.0 - BETAS[0]) * g;
            *v = BETAS[1] * *v + (1.0 - BETAS[1]) * g * g;
            let [m, v] = [*m / (1.0 - BETAS[0].powi(step)), *v / (1.0 - BETAS[1].powi(step))];
            lr * m / (v.sqrt() + EPS)
        };
        for i in 0..n {
            let s = (log_var[i] / 2.0).exp();
            mu[i] -= s * adam(&mut state[0][i], s * dmu[i]);
            log_var[i] -= adam(&mut state[1][i], dlog_var[i]);
        }
    }
    for (found, expected) in [(&found.mu, &mu), (&found.log_var, &log_var)] {
        for (found, expected) in found.to_f64().unwrap().iter().zip(expected) {
            assert!(
                (found - expected).abs() <= 1e-10 * (1.0 + expected.abs()),
                "{found} {expected}"
            );
        }
    }
}

/// A row that stops early keeps its posterior, and the batch stops when all have.
#[test]
fn a_fit_ends_when_it_no_longer_helps() {
    let (cpu, f64) = (Device::Cpu, Precision::F64);
    let weights = Weights::init(&CONFIG, 5).unwrap();
    let mut program = Program::new(&CONFIG, 2, 5, &cpu, f64, SlowGradient::None).unwrap();
    let weights = DeviceWeights::new(&CONFIG, &weights, &cpu, f64).unwrap();
    let batch = Batch::new(&CONFIG, 2, &TOKENS, &TARGETS).unwrap();
    let mut problem = program.problem(&weights, &batch).unwrap();
    let mut fit = |rates: Vec<f64>, stop_window| {
        let (beta1, beta2, eps, weight_decay) = (0.0, 0.0, 1.0, 0.0);
        let (units, noise) = (Units::Latent, Noise::Fixed);
        let fit = AdamW {
            rates,
            beta1,
            beta2,
            eps,
            weight_decay,
            units,
            noise,
            rank: 0,
            stop_window,
            kl_weight: 1.0,
        };
        let mut steps = 0;
        let mut observer = |_: &ltm_vi::FastStep| {
            steps += 1;
            Ok(())
        };
        let start =
            Start::Drawn(ltm_vi::Initial { mu_std: 2.0, log_var_mean: 0.0, log_var_std: 0.0 });
        let latents = fit.fit(&mut problem, &start, KEY, &mut observer).unwrap();
        (latents.gaussian().unwrap().to_host().unwrap(), steps)
    };
    // Four steps that help, and from then on none at all: the window of steps 5 and 6 is better than that before,
    // the one of steps 7 and 8 is not.
    let rates = [vec![0.3; 4], vec![0.0; 8]].concat();
    let (rested, steps) = fit(rates.clone(), 2);
    assert_eq!(steps, 8);
    assert_eq!(rested.mu, fit(rates, 0).0.mu);
    // Steps that only harm end after the second window.
    let (_, steps) = fit(vec![50.0; 12], 3);
    assert_eq!(steps, 6);
}
