//! The learned prior: its density is that of its samples, its graph computes the same numbers, and its gradients are
//! differences of them.

mod tiny;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, ModelConfig, Part, Weights, param_table};
use ltm_vi::{
    Batch, Density, Gaussian, GenerateOptions, InferConfig, InferKey, Inference, LatentSource,
    LatentUse, Posterior, Program, SampleConfig, Sequences, SlowGradient, StandardNormal, Start,
    generate, prior_of,
};
use tiny::CONFIG;

const FLOW: ModelConfig = ModelConfig { prior_layers: 3, ..CONFIG };
const KEY: InferKey<'_> = InferKey { seed: 2, step: 3, sequences: Sequences::From(0) };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];
/// Numbers of one layer's latents, and of all.
const PART: usize = 16;
const ALL: usize = 32;

/// Weights whose prior is far from where it starts.
fn trained() -> Weights {
    let mut weights = Weights::init(&FLOW, 5).unwrap();
    for (i, (values, spec)) in weights.params.iter_mut().zip(param_table(&FLOW)).enumerate() {
        for (j, x) in values.iter_mut().enumerate() {
            match spec.part {
                Part::Prior => *x += 0.3 * ((i * 31 + j * 7) as f32).sin(),
                _ => *x *= if *x == 1.0 { 1.0 } else { 10.0 },
            }
        }
    }
    weights
}

fn on_cpu(weights: &Weights) -> DeviceWeights {
    DeviceWeights::new(&FLOW, weights, &Device::Cpu, Precision::F64).unwrap()
}

struct Case {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
}

fn case() -> Case {
    let (cpu, f64, slow) = (Device::Cpu, Precision::F64, SlowGradient::Final);
    Case {
        program: Program::new(&FLOW, 2, 5, &cpu, f64, slow).unwrap(),
        weights: on_cpu(&trained()),
        batch: Batch::new(&FLOW, 2, &TOKENS, &TARGETS).unwrap(),
    }
}

/// Numbers of about one.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| 1.4 * ((seed * 1000 + i * 37) as f32).sin()).collect()
}

fn posterior() -> Posterior {
    let log_var = numbers(2 * ALL, 2).iter().map(|x| x - 1.0).collect();
    Posterior { mu: numbers(2 * ALL, 1), log_var, noise: numbers(2 * ALL, 3), factor: None }
}

fn on_device(posterior: &Posterior) -> Gaussian {
    Gaussian::new(posterior, &Device::Cpu, Precision::F64.float).unwrap()
}

fn widened(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// `log |det|` of a square matrix by elimination.
fn log_det(mut rows: Vec<Vec<f64>>) -> f64 {
    let n = rows.len();
    let mut log = 0.0;
    for i in 0..n {
        let pivot = (i..n).max_by(|a, b| rows[*a][i].abs().total_cmp(&rows[*b][i].abs())).unwrap();
        rows.swap(i, pivot);
        log += rows[i][i].abs().ln();
        for j in i + 1..n {
            let factor = rows[j][i] / rows[i][i];
            let (above, below) = rows.split_at_mut(j);
            below[0].iter_mut().zip(&above[i]).for_each(|(x, y)| *x -= factor * y);
        }
    }
    log
}

#[test]
fn the_density_is_that_of_the_samples() {
    let density = prior_of(&FLOW).density(&on_cpu(&trained())).unwrap();
    let u = widened(&numbers(ALL, 4));
    let step = 1e-5;
    let columns = (0..ALL).map(|i| {
        let at = |by: f64| {
            let mut u = u.clone();
            u[i] += by;
            density.sample(&u)
        };
        at(step).iter().zip(at(-step)).map(|(a, b)| (a - b) / (2.0 * step)).collect::<Vec<_>>()
    });
    let jacobian = log_det(columns.collect());
    let z = density.sample(&u);
    let expected = StandardNormal.log_density(&u) - jacobian;
    let found = density.log_density(&z);
    assert!((found - expected).abs() <= 1e-7, "{found} {expected}");
    assert!((found - StandardNormal.log_density(&z)).abs() > 1.0, "it is the standard normal");
    // The other way from a layer's latents, the layers by themselves.
    let mut other = z.clone();
    other[PART..].fill(0.5);
    let one = |z: &[f64]| density.log_density(z);
    let mut first = z.clone();
    first[..PART].fill(-0.3);
    let mut both = other.clone();
    both[..PART].fill(-0.3);
    let difference = (one(&z) - one(&first)) - (one(&other) - one(&both));
    assert!(difference.abs() <= 1e-10, "{difference}");
    // Its mean is the latents of no noise.
    let [mean, log_var] = density.moments(ALL);
    let expected = density.sample(&[0.0; ALL]);
    assert!(mean.iter().zip(expected).all(|(a, b)| f64::from(*a) == f64::from(b as f32)));
    assert!(log_var.iter().all(|x| x.abs() <= 8.0) && log_var.iter().any(|x| *x != 0.0));
}

#[test]
fn an_untrained_one_is_the_standard_normal() {
    let density = prior_of(&FLOW).density(&on_cpu(&Weights::init(&FLOW, 5).unwrap())).unwrap();
    let Posterior { mu, log_var, noise, .. } = posterior();
    let [mu, log_var, noise] = [&mu[..ALL], &log_var[..ALL], &noise[..ALL]];
    let z = widened(mu);
    assert_eq!(density.sample(&z), z);
    assert_eq!(density.moments(ALL), StandardNormal.moments(ALL));
    for (found, expected) in [
        (density.log_density(&z), StandardNormal.log_density(&z)),
        (density.log_ratio(mu, log_var, noise), StandardNormal.log_ratio(mu, log_var, noise)),
    ] {
        assert!((found - expected).abs() <= 1e-12 * expected.abs(), "{found} {expected}");
    }
    assert_eq!(density.exact_kl(mu, log_var), None);
}

#[test]
fn the_graph_has_the_numbers_of_the_host() {
    let mut case = case();
    let q = posterior();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let found = problem.gradient(&on_device(&q), 1.0).unwrap().kl;
    let density = problem.prior().unwrap();
    let entropy = |row: usize| -> f64 {
        let of = |x: &f32| 0.5 * (1.0 + std::f64::consts::TAU.ln() + f64::from(*x));
        q.log_var[row * ALL..(row + 1) * ALL].iter().map(of).sum()
    };
    let minus_log_p = |q: &Posterior, row: usize| {
        let z = |i: usize| {
            let [mu, log_var, noise] = [q.mu[i], q.log_var[i], q.noise[i]].map(f64::from);
            mu + noise * (log_var / 2.0).exp()
        };
        let z: Vec<f64> = (row * ALL..(row + 1) * ALL).map(z).collect();
        -density.log_density(&z)
    };
    for row in 0..2 {
        let ours: f64 = found[2 * row..2 * row + 2].iter().sum();
        let expected = minus_log_p(&q, row) - entropy(row);
        assert!((ours - expected).abs() <= 1e-9 * expected.abs(), "{ours} {expected}");
    }
    // Of layers, each by itself: the last layer of the first sequence moves alone.
    let mut moved = q.clone();
    moved.mu[PART..ALL].iter_mut().for_each(|x| *x += 0.5);
    let after = problem.gradient(&on_device(&moved), 1.0).unwrap().kl;
    assert_eq!([after[0], after[2], after[3]], [found[0], found[2], found[3]]);
    let expected = minus_log_p(&moved, 0) - minus_log_p(&q, 0);
    assert!((after[1] - found[1] - expected).abs() <= 1e-9 * expected.abs());
}

const STEP: f64 = 1e-5;

fn check(name: &str, found: f64, slope: f64) {
    assert!((found - slope).abs() <= 1e-6 * (1.0 + slope.abs()), "{name}: {found} {slope}");
}

#[test]
fn gradients_of_a_fit_are_differences_of_its_objective() {
    let mut case = case();
    let q = on_device(&posterior());
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let kl_weight = 0.7;
    let found = problem.gradient(&q, kl_weight).unwrap();
    let [dmu, dlog_var] = [found.dmu, found.dlog_var].map(|x| x.to_f64().unwrap());
    for at in [0, 5, PART + 3, ALL, 2 * ALL - 1] {
        let mut bound = |by: [f64; 2]| {
            let mut q = q.try_clone().unwrap();
            q.mu.as_mut_slice::<f64>().unwrap()[at] += by[0];
            q.log_var.as_mut_slice::<f64>().unwrap()[at] += by[1];
            let found = problem.gradient(&q, kl_weight).unwrap();
            found.nll.iter().sum::<f64>() + kl_weight * found.kl.iter().sum::<f64>()
        };
        let slope = (bound([STEP, 0.0]) - bound([-STEP, 0.0])) / (2.0 * STEP);
        check("mu", dmu[at], slope);
        let slope = (bound([0.0, STEP]) - bound([0.0, -STEP])) / (2.0 * STEP);
        check("log_var", dlog_var[at], slope);
    }
}

/// Each sequence by the mean weight of its scored tokens: 0.25 for the first, 0.5 for the second.
#[test]
fn its_weights_follow_the_weighted_kl_and_those_of_the_decoder_do_not() {
    let mut case = case();
    let (q, kl_weight) = (on_device(&posterior()), 0.6);
    let token_weight = [0.25, 0.25, 0.25, 0.25, 0.25, 0.5, 0.5, 0.5, 0.5, 9.0];
    let latents = q.try_clone().unwrap().into();
    let gradients = |case: &mut Case, kl_weight| -> Vec<Vec<f64>> {
        let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
        let slow = problem.weight_gradients(&latents, &token_weight, kl_weight).unwrap();
        slow.gradients.iter().map(|g| g.to_f64().unwrap()).collect()
    };
    let (found, without) = (gradients(&mut case, kl_weight), gradients(&mut case, 0.0));
    for (i, spec) in param_table(&FLOW).iter().enumerate() {
        if spec.part == Part::Decoder {
            assert_eq!(found[i], without[i], "{}", spec.name);
            continue;
        }
        assert!(without[i].iter().all(|x| *x == 0.0), "{}", spec.name);
        let all = found[i].iter().enumerate();
        let (at, _) = all.max_by(|a, b| a.1.abs().total_cmp(&b.1.abs())).unwrap();
        let mut loss = |by: f64| {
            case.weights.param_mut(i).unwrap().as_mut_slice::<f64>().unwrap()[at] += by;
            let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
            let kl = problem.gradient(&q, 1.0).unwrap().kl;
            kl_weight * (0.25 * (kl[0] + kl[1]) + 0.5 * (kl[2] + kl[3]))
        };
        let slope = (loss(STEP) - loss(-2.0 * STEP)) / (2.0 * STEP);
        loss(STEP);
        check(&spec.name, found[i][at], slope);
        assert!(slope != 0.0, "{} is not moved", spec.name);
    }
}

#[test]
fn reported_kl_agree_with_each_other() {
    let mut case = case();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let narrow = Posterior { log_var: vec![-12.0; 2 * ALL], ..posterior() };
    let q = on_device(&narrow);
    let (kl, one) = (problem.kl(&q, KEY).unwrap(), problem.gradient(&q, 1.0).unwrap().kl);
    // A narrow posterior's KL hardly depends on the sample.
    assert_eq!(kl.len(), 4);
    for (kl, one) in kl.iter().zip(&one) {
        assert!((kl - one).abs() <= 0.01 * one, "{kl} {one}");
    }
    assert_eq!(problem.kl(&q, KEY).unwrap(), kl);
    let mut used = LatentUse::new(&FLOW);
    let infer = InferConfig { steps: 4, ..InferConfig::published() };
    let inference = Inference::finished(&infer).unwrap();
    let q = used.fit(&mut problem, &inference, KEY, &[]).unwrap();
    let kl = problem.kl(&q, KEY).unwrap();
    let expected = [(kl[0] + kl[2]) / 2.0, (kl[1] + kl[3]) / 2.0];
    assert_eq!(used.kl_per_layer(), expected);
    assert!(used.kl_per_latent().is_empty());
}

/// A fit from the prior, and a text from nothing.
#[test]
fn starts_and_texts_are_of_the_learned_prior() {
    let mut case = case();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let density = problem.prior().unwrap();
    let start = problem.start(&Start::Prior, KEY).unwrap().to_host().unwrap();
    let [mean, log_var] = density.moments(ALL);
    assert_eq!((start.mu, start.log_var), (mean.repeat(2), log_var.repeat(2)));

    let options = GenerateOptions {
        max_tokens: 2,
        sample: SampleConfig::GREEDY,
        stop: None,
        latents: LatentSource::Prior,
        seed: 4,
        refit: None,
        rethink: None,
        precision: Precision::F32,
    };
    let inference = Inference::finished(&InferConfig::published()).unwrap();
    let z = |config: &ModelConfig, weights: &Weights| {
        let cpu = Device::Cpu;
        let weights = DeviceWeights::new(config, weights, &cpu, Precision::F32).unwrap();
        generate(config, &weights, &inference, &[0, 3], &options).unwrap().z
    };
    let noise = z(&CONFIG, &Weights::init(&CONFIG, 5).unwrap());
    let expected = density.sample(&widened(&noise));
    let found = z(&FLOW, &trained());
    assert!(found.iter().zip(expected).all(|(a, b)| *a == b as f32));
}
