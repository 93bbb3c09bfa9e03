//! The importance-weighted slow step against differences of the bound in double precision.

mod tiny;

use std::sync::Arc;

use ltm_autodiff::Precision;
use ltm_kernels::ops::elementwise;
use ltm_kernels::ops::philox::{self, PhiloxKey};
use ltm_kernels::{Buffer, DType, Device};
use ltm_model::{DeviceWeights, ModelConfig, Part, Weights, param_table};
use ltm_vi::{
    Batch, Density, Error, Gaussian, InferKey, Latents, Posterior, Program, Sequences,
    SlowGradient, Start, Training, Weighted,
};
use tiny::CONFIG;

const KEY: InferKey<'_> = InferKey { seed: 2, step: 3, sequences: Sequences::From(0) };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];
const SAMPLES: usize = 3;
const TOKEN_WEIGHT: f32 = 0.25;
const KL_WEIGHT: f64 = 0.6;

fn config() -> ModelConfig {
    ModelConfig { encoder_width: 12, init_std: 0.3, prior_layers: 2, ..CONFIG }
}

struct Case {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
}

fn case(gradient: SlowGradient) -> Case {
    let (config, cpu, f64) = (config(), Device::Cpu, Precision::F64);
    let mut weights = Weights::init(&config, 5).unwrap();
    // Wide posteriors, so that samples differ in their weights.
    let log_var = param_table(&config).iter().position(|spec| spec.name == "encoder.log_var.bias");
    weights.params[log_var.unwrap()].fill(-0.5);
    // And a prior that is not the standard normal.
    for (values, spec) in weights.params.iter_mut().zip(param_table(&config)) {
        if spec.part == Part::Prior {
            values.iter_mut().enumerate().for_each(|(i, x)| *x += 0.2 * (1.0 + i as f32).sin());
        }
    }
    let training = Training { importance: true, ..gradient.into() };
    Case {
        program: Program::new(&config, 2, 5, &cpu, f64, training).unwrap(),
        weights: DeviceWeights::new(&config, &weights, &cpu, f64).unwrap(),
        batch: Batch::new(&config, 2, &TOKENS, &TARGETS).unwrap(),
    }
}

/// Mean, log-variance and noise of each sample in double precision.
struct Samples {
    mu: Vec<f64>,
    log_var: Vec<f64>,
    noise: Vec<Vec<f64>>,
}

impl Samples {
    fn z(&self, sample: usize) -> Vec<f64> {
        let of = |i: usize| self.mu[i] + self.noise[sample][i] * (self.log_var[i] / 2.0).exp();
        (0..self.mu.len()).map(of).collect()
    }

    /// `log p(z) - log q(z)` for each row, up to a constant, at `z` under this density.
    fn log_ratio(&self, prior: &dyn Density, z: &[f64]) -> Vec<f64> {
        let of = |i: usize| {
            let off = (z[i] - self.mu[i]).powi(2) * (-self.log_var[i]).exp();
            0.5 * (off + self.log_var[i])
        };
        let n = z.len() / 2;
        let rows = (0..2).map(|row| row * n..(row + 1) * n);
        rows.map(|row| prior.log_density(&z[row.clone()]) + row.map(of).sum::<f64>()).collect()
    }
}

impl Case {
    fn encoded(&mut self) -> Gaussian {
        let mut problem = self.program.problem(&self.weights, &self.batch).unwrap();
        problem.start(&Start::Encoder, KEY).unwrap()
    }

    fn samples(&mut self, q: &Gaussian) -> Samples {
        let noise = (0..SAMPLES).map(noise).collect();
        Samples { mu: q.mu.to_f64().unwrap(), log_var: q.log_var.to_f64().unwrap(), noise }
    }

    fn prior(&mut self) -> Arc<dyn Density> {
        self.program.problem(&self.weights, &self.batch).unwrap().prior().unwrap()
    }

    /// `-log p(x|z)` of each row.
    fn nll(&mut self, z: Vec<f64>) -> Vec<f64> {
        let mut problem = self.program.problem(&self.weights, &self.batch).unwrap();
        let nll = problem.token_nll(&Latents::Sample(Buffer::from_vec(z))).unwrap();
        nll.chunks(5).map(|row| row.iter().sum()).collect()
    }

    fn gradients(&mut self, q: &Gaussian) -> (Weighted, Vec<Vec<f64>>) {
        let zeros = |len| Buffer::zeros(&Device::Cpu, DType::F64, len).unwrap();
        let mut sums: Vec<_> =
            param_table(&config()).iter().map(|spec| zeros(spec.len())).collect();
        let mut problem = self.program.problem(&self.weights, &self.batch).unwrap();
        let weight = [TOKEN_WEIGHT; 10];
        let mut handed = 0;
        let mut take = |param: usize, gradient: &Buffer| {
            handed += 1;
            Ok(elementwise::add_assign(&Device::Cpu, &mut sums[param], gradient)?)
        };
        let found = problem
            .each_importance_gradient(q, SAMPLES, KEY, &weight, KL_WEIGHT, &mut take)
            .unwrap();
        assert_eq!(handed, SAMPLES * sums.len(), "every weight's gradient, sample by sample");
        (found, sums.iter().map(|sum| sum.to_f64().unwrap()).collect())
    }

    fn nudge(&mut self, param: usize, at: usize, by: f64) {
        self.weights.param_mut(param).unwrap().as_mut_slice::<f64>().unwrap()[at] += by;
    }
}

/// The noise that the step draws: sequence by sequence, from streams of its own.
fn noise(sample: usize) -> Vec<f64> {
    let n = CONFIG.n_latents * CONFIG.dim;
    let row = |row: u64| {
        let key = PhiloxKey { seed: KEY.seed, stream: 0x7468_6f30 << 32, step: row };
        let [low, high, ..] = philox::Philox::new(key).u32x4(0);
        let seed = (u64::from(high) << 32) | u64::from(low);
        let stream = (0x7468_6f39 << 32) + sample as u64;
        let mut numbers = Buffer::zeros(&Device::Cpu, DType::F32, n).unwrap();
        let key = PhiloxKey { seed, stream, step: KEY.step };
        philox::normal(&Device::Cpu, &mut numbers, key, 0.0, 1.0).unwrap();
        numbers.to_f64().unwrap()
    };
    [row(0), row(1)].concat()
}

/// Log-weights of each row's samples.
fn log_weights(case: &mut Case, samples: &Samples) -> [Vec<f64>; 2] {
    let mut rows = [vec![], vec![]];
    for sample in 0..SAMPLES {
        let z = samples.z(sample);
        let ratio = samples.log_ratio(&*case.prior(), &z);
        for (row, nll) in case.nll(z).into_iter().enumerate() {
            rows[row].push(KL_WEIGHT * ratio[row] - nll);
        }
    }
    rows
}

fn normalised(log_weights: &[f64]) -> Vec<f64> {
    let max = log_weights.iter().fold(f64::MIN, |max, w| max.max(*w));
    let total: f64 = log_weights.iter().map(|w| (w - max).exp()).sum();
    log_weights.iter().map(|w| (w - max).exp() / total).collect()
}

fn check(name: &str, found: f64, slope: f64) {
    assert!((found - slope).abs() <= 1e-6 * (1.0 + slope.abs()), "{name}: {found} {slope}");
}

fn largest(gradient: &[f64]) -> usize {
    let all = gradient.iter().enumerate();
    all.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap().0
}

const STEP: f64 = 1e-5;

#[test]
fn decoder_and_prior_follow_the_bound_itself() {
    for gradient in [SlowGradient::Joint, SlowGradient::Final] {
        let mut case = case(gradient);
        let q = case.encoded();
        let (found, gradients) = case.gradients(&q);
        let samples = case.samples(&q);
        let bound = |case: &mut Case| -> f64 {
            let of = |row: &Vec<f64>| {
                let max = row.iter().fold(f64::MIN, |max, w| max.max(*w));
                -(max + (row.iter().map(|w| (w - max).exp()).sum::<f64>() / 3.0).ln())
            };
            f64::from(TOKEN_WEIGHT) * log_weights(case, &samples).iter().map(of).sum::<f64>()
        };
        let weights = log_weights(&mut case, &samples).map(|row| normalised(&row));
        let nll = (0..SAMPLES).map(|sample| case.nll(samples.z(sample)));
        let nll: Vec<Vec<f64>> = nll.collect();
        for (row, found) in found.nll.iter().enumerate() {
            let mean = nll.iter().map(|rows| rows[row]).sum::<f64>() / SAMPLES as f64;
            check("the mean over samples", *found, mean);
        }
        for weights in &weights {
            let effective = 1.0 / weights.iter().map(|w| w * w).sum::<f64>();
            assert!((1.05..2.95).contains(&effective), "the samples weigh {weights:?}");
        }
        for (i, spec) in param_table(&config()).iter().enumerate() {
            if spec.part == Part::Encoder {
                continue;
            }
            let at = largest(&gradients[i]);
            case.nudge(i, at, STEP);
            let above = bound(&mut case);
            case.nudge(i, at, -2.0 * STEP);
            let slope = (above - bound(&mut case)) / (2.0 * STEP);
            case.nudge(i, at, STEP);
            check(&spec.name, gradients[i][at], slope);
            assert!(slope != 0.0);
        }
    }
}

/// `sum_k w_k² d/dphi [-log p(x|z_k) + kl_weight·(log q(z_k) - log p(z_k))]` with the density held fixed.
#[test]
fn the_encoder_follows_its_samples_doubly_weighted() {
    let mut case = case(SlowGradient::Joint);
    let q = case.encoded();
    let (_, gradients) = case.gradients(&q);
    let fixed = case.samples(&q);
    let weights = log_weights(&mut case, &fixed).map(|row| normalised(&row));
    let loss = |case: &mut Case| -> f64 {
        let q = case.encoded();
        let moved = case.samples(&q);
        let prior = case.prior();
        let mut loss = 0.0;
        let mut add = |sample: usize| {
            let z = moved.z(sample);
            let ratio = fixed.log_ratio(&*prior, &z);
            for (row, nll) in case.nll(z).into_iter().enumerate() {
                loss += weights[row][sample].powi(2) * (nll - KL_WEIGHT * ratio[row]);
            }
        };
        (0..SAMPLES).for_each(&mut add);
        f64::from(TOKEN_WEIGHT) * loss
    };
    for (i, spec) in param_table(&config()).iter().enumerate() {
        if spec.part != Part::Encoder {
            continue;
        }
        let at = largest(&gradients[i]);
        case.nudge(i, at, STEP);
        let above = loss(&mut case);
        case.nudge(i, at, -2.0 * STEP);
        let slope = (above - loss(&mut case)) / (2.0 * STEP);
        case.nudge(i, at, STEP);
        check(&spec.name, gradients[i][at], slope);
        assert!(slope != 0.0, "{} is not moved", spec.name);
    }
}

#[test]
fn what_it_is_not_made_for_is_refused() {
    let mut case = case(SlowGradient::Joint);
    let q = case.encoded();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let mut add = |samples, weight: &[f32]| {
        problem
            .each_importance_gradient(&q, samples, KEY, weight, 1.0, &mut |_, _| Ok(()))
            .unwrap_err()
    };
    assert!(matches!(add(0, &[0.1; 10]), Error::Argument { arg: "samples", .. }));
    assert!(matches!(add(2, &[0.1; 9]), Error::Argument { arg: "token_weight", .. }));
    let refuse = &mut |_: usize, _: &Buffer| -> Result<(), Error> {
        let (expected, found) = (String::new(), String::new());
        Err(Error::Argument { arg: "take", expected, found })
    };
    let refused = problem.each_importance_gradient(&q, 2, KEY, &[0.1; 10], 1.0, refuse);
    assert!(matches!(refused, Err(Error::Argument { arg: "take", .. })), "the caller's own error");
    let (cpu, f64) = (Device::Cpu, Precision::F64);
    case.program = Program::new(&config(), 2, 5, &cpu, f64, SlowGradient::Joint).unwrap();
    let posterior: Posterior = q.to_host().unwrap();
    let q = Gaussian::new(&posterior, &cpu, DType::F64).unwrap();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let refused = problem.each_importance_gradient(&q, 2, KEY, &[0.1; 10], 1.0, &mut |_, _| Ok(()));
    assert!(matches!(refused, Err(Error::NoSlowGradient)));
}
