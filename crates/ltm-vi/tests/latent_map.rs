//! Inference through a map of the latents: gradients of fits and of slow steps against differences in double precision.

mod tiny;

use ltm_autodiff::Precision;
use ltm_kernels::{DType, Device};
use ltm_model::{DeviceWeights, ModelConfig, Weights, param_table};
use ltm_vi::{
    Batch, Gaussian, InferConfig, InferKey, Latents, Posterior, Program, Sequences, SlowGradient,
};

const MAPPED: ModelConfig = ModelConfig { map_layers: 1, init_std: 0.3, ..tiny::CONFIG };
const KEY: InferKey = InferKey { seed: 2, step: 3, sequences: Sequences::From(0) };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];

/// Weights of a map that is no longer the identity.
fn weights() -> DeviceWeights {
    let mut weights = Weights::init(&MAPPED, 5).unwrap();
    for (spec, params) in param_table(&MAPPED).iter().zip(&mut weights.params) {
        if spec.name.starts_with("map.") && params.iter().all(|x| *x == 0.0) {
            params.iter_mut().zip(0u8..).for_each(|(x, i)| *x = 0.3 * f32::from(i).sin());
        }
    }
    DeviceWeights::new(&MAPPED, &weights, &Device::Cpu, Precision::F64).unwrap()
}

fn posterior() -> Gaussian {
    let infer = InferConfig { init_mu_std: 1.0, ..InferConfig::published() };
    let start = Posterior::initial(&MAPPED, &infer, 2, KEY).unwrap();
    Gaussian::new(&start, &Device::Cpu, DType::F64).unwrap()
}

fn program(slow: SlowGradient) -> Program {
    Program::new(&MAPPED, 2, 5, &Device::Cpu, Precision::F64, slow).unwrap()
}

fn batch() -> Batch {
    Batch::new(&MAPPED, 2, &TOKENS, &TARGETS).unwrap()
}

#[test]
fn gradients_of_a_fit_are_differences_of_its_objective() {
    let (weights, batch, mut program) = (weights(), batch(), program(SlowGradient::None));
    let mut problem = program.problem(&weights, &batch).unwrap();
    let q = posterior();
    let at = problem.gradient(&q, 1.0).unwrap();
    let gradients = [at.dmu.to_f64().unwrap(), at.dlog_var.to_f64().unwrap()];
    let step = 1e-5;
    for (which, gradient) in gradients.iter().enumerate() {
        for i in [0, 13, 31, 32, 63] {
            let mut objective = |by: f64| {
                let mut moved = q.try_clone().unwrap();
                let numbers = if which == 0 { &mut moved.mu } else { &mut moved.log_var };
                numbers.as_mut_slice::<f64>().unwrap()[i] += by;
                let at = problem.gradient(&moved, 1.0).unwrap();
                at.nll.iter().sum::<f64>() + at.kl.iter().sum::<f64>()
            };
            let slope = (objective(step) - objective(-step)) / (2.0 * step);
            let found = gradient[i];
            assert!((found - slope).abs() <= 1e-6 * (1.0 + slope.abs()), "{i}: {found} {slope}");
        }
    }
}

#[test]
fn gradients_of_a_slow_step_are_differences_of_the_likelihood() {
    let (mut weights, batch, mut program) = (weights(), batch(), program(SlowGradient::Final));
    let latents = Latents::from(posterior());
    let mut problem = program.problem(&weights, &batch).unwrap();
    let slow = problem.weight_gradients(&latents, &[1.0; 10], 1.0).unwrap();
    let gradients: Vec<Vec<f64>> = slow.gradients.iter().map(|g| g.to_f64().unwrap()).collect();
    let step = 1e-5;
    let mut of_map = 0;
    for (i, (spec, gradient)) in param_table(&MAPPED).iter().zip(&gradients).enumerate() {
        let at = 7 % gradient.len();
        let mut loss = |by: f64| -> f64 {
            weights.param_mut(i).unwrap().as_mut_slice::<f64>().unwrap()[at] += by;
            let mut problem = program.problem(&weights, &batch).unwrap();
            problem.token_nll(&latents).unwrap().iter().sum()
        };
        let slope = (loss(step) - loss(-2.0 * step)) / (2.0 * step);
        loss(step);
        let found = gradient[at];
        let name = &spec.name;
        assert!((found - slope).abs() <= 1e-6 * (1.0 + slope.abs()), "{name}: {found} {slope}");
        of_map += usize::from(name.starts_with("map.") && found != 0.0);
    }
    assert_eq!(of_map, 9, "every weight of the map has a gradient");
}
