//! The fast loop as one recorded CUDA graph against the same fit on the CPU. Without
//! `LTM_DEVICE=cuda` it is skipped.

mod tiny;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, ModelConfig, Part, Weights, param_table};
use ltm_testkit::{cuda_device, relative_frobenius};
use ltm_vi::{
    Batch, FastStep, InferConfig, InferKey, Inference, Latents, Noise, Posterior, Program,
    Sequences, SlowGradient, Units,
};
use tiny::CONFIG;

const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];

/// Both sides compute in f32; eight steps of Adam, which divides by the gradient's size, carry a
/// rounding of 1e-7 from step to step.
const TOL: f64 = 1e-4;

fn device() -> Option<Device> {
    let name = cuda_device()?;
    Some(name.parse().expect("LTM_DEVICE names a device that can be opened"))
}

struct Case {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
}

fn case(device: &Device, slow: SlowGradient, config: &ModelConfig) -> Case {
    let mut weights = Weights::init(config, 5).unwrap();
    for (values, spec) in weights.params.iter_mut().zip(param_table(config)) {
        for (i, x) in values.iter_mut().enumerate() {
            match spec.part {
                Part::Prior => *x += 0.1 * (i as f32).sin(),
                _ => *x *= if *x == 1.0 { 1.0 } else { 5.0 },
            }
        }
    }
    Case {
        program: Program::new(config, 2, 5, device, Precision::F32, slow).unwrap(),
        weights: DeviceWeights::new(config, &weights, device, Precision::F32).unwrap(),
        batch: Batch::new(config, 2, &TOKENS, &TARGETS).unwrap(),
    }
}

fn fit(case: &mut Case, infer: &InferConfig, step: u64) -> (Vec<FastStep>, Latents) {
    let key = InferKey { seed: 2, step, sequences: Sequences::From(0) };
    let mut steps = Vec::new();
    let mut observer = |step: &FastStep| {
        steps.push(step.clone());
        Ok(())
    };
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let inference = Inference::at(infer, 0.5).unwrap();
    let latents = inference.infer(&mut problem, key, &mut observer).unwrap();
    (steps, latents)
}

fn posterior(latents: &Latents) -> Posterior {
    latents.gaussian().expect("a Gaussian is fitted").to_host().unwrap()
}

fn check(what: &str, found: &[f64], expected: &[f64]) {
    let distance = relative_frobenius(found, expected);
    assert!(distance <= TOL, "{what}: relative distance {distance:e}");
}

fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

#[test]
fn a_recorded_fit_is_the_fit_on_the_cpu() {
    let Some(device) = device() else { return };
    let flow = ModelConfig { prior_layers: 3, ..CONFIG };
    let mapped = ModelConfig { map_layers: 1, ..CONFIG };
    for (noise, units, stop_window, slow, config, rank) in [
        (Noise::Fixed, Units::Latent, 0, SlowGradient::Final, CONFIG, 0),
        (Noise::Fresh, Units::Posterior, 3, SlowGradient::Final, CONFIG, 0),
        (Noise::Fresh, Units::Latent, 0, SlowGradient::Trajectory, CONFIG, 0),
        (Noise::Fresh, Units::Latent, 0, SlowGradient::Final, flow, 0),
        (Noise::Fresh, Units::Latent, 0, SlowGradient::Final, mapped, 0),
        (Noise::Fresh, Units::Latent, 3, SlowGradient::Final, CONFIG, 2),
        (Noise::Fresh, Units::Posterior, 0, SlowGradient::Final, flow, 1),
    ] {
        let infer = InferConfig {
            noise,
            units,
            rank,
            stop_window,
            steps: 8,
            weight_decay: 0.0,
            ..InferConfig::published()
        };
        let mut cases = [Device::Cpu, device].map(|device| case(&device, slow, &config));
        // The second fit is replayed from its first step on; before the third the weights are moved, in place, and
        // before the fourth they are copied, so that a recording of their old memory would show.
        let mut kept = Vec::new();
        for fit_idx in 0..4 {
            if fit_idx >= 2 {
                for case in &mut cases {
                    if fit_idx == 3 {
                        kept.push(case.weights.clone());
                    }
                    let moved: Vec<f32> = case.weights.params()[3]
                        .to_f32()
                        .unwrap()
                        .iter()
                        .map(|x| 1.5 * x)
                        .collect();
                    case.weights.param_mut(3).unwrap().write_f32(&moved).unwrap();
                }
            }
            let [(expected, on_cpu), (found, on_cuda)] =
                cases.each_mut().map(|case| fit(case, &infer, fit_idx));
            assert_eq!(found.len(), expected.len());
            let bounds = |steps: &[FastStep]| steps.iter().map(|s| s.bound).collect::<Vec<_>>();
            check("bounds", &bounds(&found), &bounds(&expected));
            assert_eq!(found.last().unwrap().lr, expected.last().unwrap().lr);
            let [expected, found] = [&on_cpu, &on_cuda].map(posterior);
            check("mu", &widened(&found.mu), &widened(&expected.mu));
            check("log_var", &widened(&found.log_var), &widened(&expected.log_var));
            check("noise", &widened(&found.noise), &widened(&expected.noise));
            assert_eq!(found.rank(), rank);
            if let (Some(found), Some(expected)) = (&found.factor, &expected.factor) {
                check("columns", &widened(&found.columns), &widened(&expected.columns));
                check("column noise", &widened(&found.noise), &widened(&expected.noise));
            }
            let [expected, found] = cases.each_ref().map(|case| {
                let sums = case.program.trajectory_gradients().iter();
                sums.flat_map(|g| g.to_f64().unwrap()).collect::<Vec<_>>()
            });
            if slow == SlowGradient::Trajectory {
                check("trajectory", &found, &expected);
            }
            let [cpu, cuda] = &mut cases;
            let [expected, found] = [(cpu, &on_cpu), (cuda, &on_cuda)].map(|(case, latents)| {
                let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
                let nll = problem.token_nll(latents).unwrap();
                let slow = problem.weight_gradients(latents, &[0.1; 10], 1.0).unwrap();
                let kl = slow.kl.clone().expect("a density");
                let all = slow.gradients.iter().flat_map(|g| g.to_f64().unwrap());
                [nll, kl, all.collect::<Vec<_>>()]
            });
            for (what, (found, expected)) in
                ["nll", "kl", "slow gradients"].into_iter().zip(found.iter().zip(&expected))
            {
                check(what, found, expected);
            }
        }
    }
}

#[test]
fn same_bits_twice() {
    let Some(device) = device() else { return };
    let infer = InferConfig { noise: Noise::Fresh, steps: 3, ..InferConfig::published() };
    let run = || {
        let mut case = case(&device, SlowGradient::None, &CONFIG);
        let first = posterior(&fit(&mut case, &infer, 0).1);
        // Recorded or replayed, a fit under one key is one fit.
        assert_eq!(posterior(&fit(&mut case, &infer, 0).1), first);
        first
    };
    assert_eq!(run(), run());
}
