//! Posteriors of diagonal plus low-rank covariance: gradients, divergences and densities against dense double precision,
//! and a model whose own posterior is one.

mod tiny;

use std::sync::Arc;

use ltm_autodiff::{Graph, Precision, Result, Value, ops};
use ltm_kernels::Device;
use ltm_kernels::ops::philox::{Philox, PhiloxKey};
use ltm_model::{DeviceWeights, Init, ModelConfig, ParamSpec, Part, Weights, param_table};
use ltm_vi::{
    Batch, Extents, Factor, Gaussian, InferConfig, InferKey, Inference, Latents, Likelihood,
    Method, Noise, Posterior, Program, Protocol, Schedule, Scores, Sequences, SlowGradient,
    StandardNormal, Start, Training, Units, score,
};
use tiny::CONFIG;

const KEY: InferKey = InferKey { seed: 2, step: 3, sequences: Sequences::From(0) };
const TOKENS: [i32; 10] = [0, 1, 2, 3, 4, 0, 5, 6, 7, 8];
const TARGETS: [i32; 10] = [1, 2, 3, 4, 5, 5, 6, 7, 8, -1];
/// Two sequences of two layers.
const LAYERS: usize = 4;
/// Numbers of a layer's latents.
const LEN: usize = 16;

fn uniforms(stream: u64) -> impl FnMut() -> f64 {
    let numbers = Philox::new(PhiloxKey { seed: 9, stream, step: 0 });
    let mut at = 0;
    move || {
        at += 1;
        2.0 * numbers.uniform(at) - 1.0
    }
}

/// A posterior of two sequences with `rank` columns of about this size.
fn posterior(rank: usize, size: f64, stream: u64) -> Posterior {
    let mut next = uniforms(stream);
    let mut numbers = |len: usize, scale: f64, shift: f64| -> Vec<f32> {
        (0..len).map(|_| (shift + scale * next()) as f32).collect()
    };
    let n = LAYERS * LEN;
    Posterior {
        mu: numbers(n, 1.5, 0.2),
        log_var: numbers(n, 2.0, -1.5),
        noise: numbers(n, 1.5, 0.0),
        factor: (rank > 0).then(|| Factor {
            columns: numbers(n * rank, size, 0.0),
            noise: numbers(LAYERS * rank, 1.5, 0.0),
        }),
    }
}

/// A matrix by rows.
type Matrix = Vec<Vec<f64>>;

/// The covariance `diag(s²) + U·Uᵀ` of one layer.
fn covariance(q: &Posterior, layer: usize) -> Matrix {
    let range = layer * LEN..(layer + 1) * LEN;
    let variance: Vec<f64> = q.log_var[range].iter().map(|x| f64::from(*x).exp()).collect();
    let mut all = vec![vec![0.0; LEN]; LEN];
    for (i, variance) in variance.iter().enumerate() {
        all[i][i] = *variance;
    }
    let Some(Factor { columns, .. }) = &q.factor else { return all };
    let rank = columns.len() / q.mu.len();
    for column in columns.chunks(LEN).skip(layer * rank).take(rank) {
        for i in 0..LEN {
            for j in 0..LEN {
                let product = f64::from(column[i]) * f64::from(column[j]);
                all[i][j] += product * (variance[i] * variance[j]).sqrt();
            }
        }
    }
    all
}

/// The lower triangle `L` with `L·Lᵀ` the matrix.
fn cholesky(matrix: &Matrix) -> Matrix {
    let n = matrix.len();
    let mut lower = vec![vec![0.0; n]; n];
    for i in 0..n {
        for j in 0..=i {
            let known: f64 = (0..j).map(|k| lower[i][k] * lower[j][k]).sum();
            let entry: f64 = matrix[i][j] - known;
            lower[i][j] = if i == j { entry.sqrt() } else { entry / lower[j][j] };
        }
    }
    lower
}

fn log_det(matrix: &Matrix) -> f64 {
    cholesky(matrix).iter().enumerate().map(|(i, row)| 2.0 * row[i].ln()).sum()
}

/// `L⁻¹·x` with the lower triangle `L`.
fn solve(lower: &Matrix, x: &[f64]) -> Vec<f64> {
    let mut solved: Vec<f64> = Vec::new();
    for (row, x) in lower.iter().zip(x) {
        let known: f64 = row.iter().zip(&solved).map(|(a, b)| a * b).sum();
        solved.push((x - known) / row[solved.len()]);
    }
    solved
}

/// `KL(q || N(0, I))` of one layer.
fn dense_kl(q: &Posterior, layer: usize) -> f64 {
    let covariance = covariance(q, layer);
    let trace: f64 = (0..LEN).map(|i| covariance[i][i]).sum();
    let mu = &q.mu[layer * LEN..(layer + 1) * LEN];
    let square: f64 = mu.iter().map(|x| f64::from(*x).powi(2)).sum();
    0.5 * (trace + square - LEN as f64 - log_det(&covariance))
}

/// `log p(z) - log q(z)` of one layer.
fn dense_log_ratio(q: &Posterior, layer: usize, z: &[f32]) -> f64 {
    let covariance = covariance(q, layer);
    let range = layer * LEN..(layer + 1) * LEN;
    let off = z[range.clone()].iter().zip(&q.mu[range.clone()]);
    let off: Vec<f64> = off.map(|(z, mu)| f64::from(*z) - f64::from(*mu)).collect();
    let form: f64 = solve(&cholesky(&covariance), &off).iter().map(|x| x * x).sum();
    let square: f64 = z[range].iter().map(|z| f64::from(*z).powi(2)).sum();
    0.5 * (form + log_det(&covariance) - square)
}

struct Case {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
}

fn case(config: &ModelConfig, training: impl Into<Training>) -> Case {
    let (cpu, f64) = (Device::Cpu, Precision::F64);
    let mut weights = Weights::init(config, 5).unwrap();
    for (values, spec) in weights.params.iter_mut().zip(param_table(config)) {
        for (i, x) in values.iter_mut().enumerate() {
            match spec.part {
                Part::Prior => *x += 0.1 * (i as f32).sin(),
                _ => *x *= if *x == 1.0 { 1.0 } else { 15.0 },
            }
        }
    }
    Case {
        program: Program::new(config, 2, 5, &cpu, f64, training).unwrap(),
        weights: DeviceWeights::new(config, &weights, &cpu, f64).unwrap(),
        batch: Batch::new(config, 2, &TOKENS, &TARGETS).unwrap(),
    }
}

fn on_device(q: &Posterior) -> Gaussian {
    Gaussian::new(q, &Device::Cpu, Precision::F64.float).unwrap()
}

#[track_caller]
fn check_close(what: &str, found: f64, expected: f64, relative: f64) {
    let allowed = relative * (1.0 + expected.abs());
    assert!((found - expected).abs() <= allowed, "{what}: {found} is not {expected}");
}

/// By central differences, under a prior with a closed form of the KL and under one without.
#[test]
fn the_gradient_is_that_of_the_objective() {
    let flow = ModelConfig { prior_layers: 3, ..CONFIG };
    for (config, rank, kl_weight) in
        [(CONFIG, 1, 1.0), (CONFIG, 2, 0.25), (CONFIG, 4, 1.0), (flow, 3, 1.0)]
    {
        let mut case = case(&config, SlowGradient::None);
        let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
        let q = on_device(&posterior(rank, 0.6, 1));
        let at = problem.gradient(&q, kl_weight).unwrap();
        let gradients = [at.dmu, at.dlog_var, at.dcolumns.expect("there are columns")];
        let gradients = gradients.map(|gradient| gradient.to_f64().unwrap());
        assert_eq!(gradients[2].len(), rank * LAYERS * LEN);
        let step = 1e-5;
        for (which, gradient) in gradients.iter().enumerate() {
            for i in [0, 13, 47, gradient.len() - 1] {
                let mut objective = |step: f64| {
                    let mut moved = q.try_clone().unwrap();
                    let columns = &mut moved.factor.as_mut().unwrap().columns;
                    let numbers = [&mut moved.mu, &mut moved.log_var, columns];
                    for (at, numbers) in numbers.into_iter().enumerate() {
                        if at == which {
                            numbers.as_mut_slice::<f64>().unwrap()[i] += step;
                        }
                    }
                    let at = problem.gradient(&moved, kl_weight).unwrap();
                    at.nll.iter().sum::<f64>() + kl_weight * at.kl.iter().sum::<f64>()
                };
                let slope = (objective(step) - objective(-step)) / (2.0 * step);
                check_close(&format!("rank {rank}, {which}, {i}"), gradient[i], slope, 1e-7);
            }
        }
    }
}

#[test]
fn divergences_and_densities_are_those_of_the_dense_covariance() {
    let mut case = case(&CONFIG, SlowGradient::None);
    // With nothing to explain the importance-weighted bound by one sample is its log ratio.
    case.batch = case.batch.with_targets(&[-1; 10]).unwrap();
    let inference = Inference::finished(&InferConfig::published()).unwrap();
    for rank in 1..=4 {
        for (stream, size) in [0.05, 0.5, 2.0].into_iter().enumerate() {
            let q = posterior(rank, size, stream as u64);
            let what = format!("rank {rank}, columns of {size}");
            let expected: Vec<f64> = (0..LAYERS).map(|layer| dense_kl(&q, layer)).collect();
            let device = on_device(&q);
            let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
            let of_graph = problem.gradient(&device, 1.0).unwrap().kl;
            let of_host = problem.kl(&device, KEY).unwrap();
            for (i, expected) in expected.iter().enumerate() {
                check_close(&what, of_graph[i], *expected, 1e-12);
                // Marginal variances are in single precision there.
                check_close(&what, of_host[i], *expected, 1e-6);
            }
            assert_eq!(q.kl(LAYERS).unwrap(), of_host);
            let whole = q.kl(2).unwrap();
            check_close(&what, whole[0], expected[0] + expected[1], 1e-6);
            assert!(q.kl(2 * LAYERS).unwrap_err().to_string().contains("whole layers"));

            let z = q.fresh_sample(&CONFIG, KEY, 0).unwrap();
            let protocol = Protocol::Iwae { samples: 1 };
            let found =
                score(&mut problem, protocol, &device.into(), &inference, KEY).unwrap().nats;
            for (row, found) in found.iter().enumerate() {
                let layers = [2 * row, 2 * row + 1];
                let ratio: f64 = layers.map(|layer| dense_log_ratio(&q, layer, &z)).iter().sum();
                check_close(&what, *found, -ratio, 1e-5);
            }
        }
    }
}

/// The sample's covariance, from its noise: `z` is linear in it.
#[test]
fn samples_have_the_stated_covariance() {
    let q = posterior(2, 0.7, 4);
    let at = |numbers: Vec<f32>, columns: Vec<f32>| {
        let factor = q.factor.as_ref().map(|factor| Factor { noise: columns, ..factor.clone() });
        Posterior { noise: numbers, factor, ..q.clone() }.sample().unwrap()
    };
    let (n, c) = (LAYERS * LEN, LAYERS * 2);
    let unit = |len: usize, i: usize| -> Vec<f32> {
        (0..len).map(|j| if i == j { 1.0 } else { 0.0 }).collect()
    };
    let mut directions: Vec<Vec<f32>> = (0..n).map(|i| at(unit(n, i), vec![0.0; c])).collect();
    directions.extend((0..c).map(|i| at(vec![0.0; n], unit(c, i))));
    for layer in 0..LAYERS {
        let expected = covariance(&q, layer);
        for i in 0..LEN {
            for j in 0..n {
                let product = |z: &Vec<f32>| {
                    let at = layer * LEN + i;
                    f64::from(z[at] - q.mu[at]) * f64::from(z[j] - q.mu[j])
                };
                let found: f64 = directions.iter().map(product).sum();
                let inside = j / LEN == layer;
                let expected = if inside { expected[i][j % LEN] } else { 0.0 };
                check_close("covariance", found, expected, 1e-5);
            }
        }
    }
}

const FIT: InferConfig = InferConfig {
    method: Method::Variational,
    start: ltm_vi::StartKind::Prior,
    steps: 5,
    lr: 0.1,
    lr_end: None,
    schedule: Schedule::Cosine,
    final_ratio: 0.0,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.0,
    units: Units::Latent,
    noise: Noise::Fresh,
    rank: 2,
    stop_window: 0,
    init_mu_std: 0.0,
    init_log_var_mean: 0.0,
    init_log_var_std: 0.0,
    free_bits: 0.0,
    kl_target: None,
    kl_hold: 0.0,
    kl_warmup: 0.0,
};

impl Case {
    fn fit(&mut self, infer: &InferConfig, start: Option<Start>) -> Latents {
        let mut problem = self.program.problem(&self.weights, &self.batch).unwrap();
        let inference = Inference::finished(infer).unwrap();
        let start = start.unwrap_or_else(|| inference.start().clone());
        inference.from(start).infer(&mut problem, KEY, &mut |_| Ok(())).unwrap()
    }

    fn score(&mut self, protocol: Protocol, latents: &Latents, infer: &InferConfig) -> Scores {
        let mut problem = self.program.problem(&self.weights, &self.batch).unwrap();
        let inference = Inference::finished(infer).unwrap();
        score(&mut problem, protocol, latents, &inference, KEY).unwrap()
    }
}

fn host(latents: &Latents) -> Posterior {
    latents.gaussian().expect("a Gaussian is fitted").to_host().unwrap()
}

/// Whatever ranks a program has served before, and whatever it was traced for.
#[test]
fn fits_of_any_rank_share_a_program() {
    let rank = |rank| InferConfig { rank, ..FIT };
    let alone = |infer: &InferConfig| host(&case(&CONFIG, SlowGradient::None).fit(infer, None));
    let expected = [rank(0), rank(1), rank(2)].map(|infer| alone(&infer));
    assert_eq!(expected.each_ref().map(Posterior::rank), [0, 1, 2]);
    assert_ne!(expected[0].mu, expected[1].mu);
    let mut shared = case(&CONFIG, Training { rank: 2, ..SlowGradient::Final.into() });
    for at in [2, 0, 1, 1, 2] {
        assert_eq!(host(&shared.fit(&rank(at), None)), expected[at], "rank {at}");
    }
    // Independent numbers are scored as ever by a program with columns.
    let q = Latents::from(on_device(&expected[0]));
    let elbo = Protocol::Elbo { samples: 3 };
    let found = shared.score(elbo, &q, &FIT);
    let expected = case(&CONFIG, SlowGradient::None).score(elbo, &q, &FIT);
    assert_eq!(found.nats, expected.nats);
    let still = InferConfig { steps: 0, ..FIT };
    assert_eq!(host(&shared.fit(&still, None)).rank(), 0);
}

#[test]
fn fits_go_on_from_columns_and_stop_with_them() {
    let mut case = case(&CONFIG, SlowGradient::None);
    let first = case.fit(&FIT, None);
    let Latents::Gaussian(q) = &first else { panic!("{first:?}") };
    let given = || Some(Start::Given(Arc::new(q.try_clone().unwrap())));
    // A step that moves nothing keeps the given columns, and other ranks have columns of their own.
    let rest = InferConfig { steps: 1, lr: 0.0, noise: Noise::Fixed, ..FIT };
    assert_eq!(host(&case.fit(&rest, given())), host(&first));
    let other = host(&case.fit(&InferConfig { rank: 1, ..rest }, given()));
    assert_eq!((other.rank(), &other.mu), (1, &host(&first).mu));
    assert_eq!(host(&case.fit(&InferConfig { rank: 0, ..rest }, given())).rank(), 0);
    // Where every sequence stops at once, columns are those of the first windows.
    let stops = InferConfig { stop_window: 1, lr: 100.0, steps: 9, ..FIT };
    let all = InferConfig { stop_window: 0, ..stops };
    let [stopped, all] = [stops, all].map(|infer| host(&case.fit(&infer, None)));
    assert_ne!(stopped.factor.unwrap().columns, all.factor.unwrap().columns);
}

/// The code of a first block is that of samples of the prior for any rank of the fits of other rows.
#[test]
fn rows_without_a_prefix_keep_the_prior() {
    let mut case = case(&CONFIG, SlowGradient::None);
    case.batch = case.batch.with_context(&[0, 2]).unwrap();
    let protocol = Protocol::PrequentialOverlap { stride: 5, samples: 3 };
    let [independent, low_rank] = [0, 2].map(|rank| {
        let infer = InferConfig { rank, ..FIT };
        case.score(protocol, &Latents::None, &infer).nats
    });
    assert_eq!(independent[0], low_rank[0]);
    assert_ne!(independent[1], low_rank[1]);
}

#[test]
fn what_has_no_columns_refuses_them() {
    let joint = Training { rank: 1, ..SlowGradient::Joint.into() };
    let (cpu, f64) = (Device::Cpu, Precision::F64);
    let encoder = ModelConfig { encoder_width: 12, ..CONFIG };
    let refused = Program::new(&encoder, 2, 5, &cpu, f64, joint).err().unwrap().to_string();
    assert!(refused.contains("`rank` must be 0"), "{refused}");
    let langevin = InferConfig { method: Method::Langevin, ..FIT };
    let refused = langevin.validate().unwrap_err().to_string();
    assert!(refused.contains("`infer.rank` must be 0"), "{refused}");
    let good = posterior(2, 0.5, 1);
    let factor = |columns: usize, noise: usize| {
        let factor = Factor { columns: vec![0.0; columns], noise: vec![0.0; noise] };
        Posterior { factor: Some(factor), ..good.clone() }
    };
    for (wrong, arg) in [
        (factor(3, 8), "`factor.columns`"),
        (factor(127, 8), "`factor.columns`"),
        (factor(128, 1), "`factor.noise`"),
        (factor(128, 9), "`factor.noise`"),
    ] {
        let refused = Gaussian::new(&wrong, &cpu, f64.float).unwrap_err().to_string();
        assert!(refused.contains(arg), "{refused}");
        assert!(wrong.sample().is_err() && wrong.kl(2).is_err());
    }
    // Right in itself, and of another number of layers than the model.
    let mut case = case(&CONFIG, SlowGradient::None);
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let refused = problem.gradient(&on_device(&factor(128, 16)), 1.0).err().unwrap().to_string();
    assert!(refused.contains("`factor.noise` must be 8 numbers"), "{refused}");
}

/// Four numbers `z` and four observations `x = A·z + e`, whose posterior has the covariance `diag(VARIANCE) + U·Uᵀ`.
struct Linear;

const N: usize = 4;
const VARIANCE: [f64; N] = [0.1, 0.15, 0.08, 0.2];
const U: [f64; N] = [0.5, -0.4, 0.5, 0.3];
const X: [f64; N] = [1.2, -0.4, 0.9, 0.3];

/// The posterior's covariance.
fn true_covariance() -> Matrix {
    let entry = |i: usize, j: usize| U[i] * U[j] + if i == j { VARIANCE[i] } else { 0.0 };
    (0..N).map(|i| (0..N).map(|j| entry(i, j)).collect()).collect()
}

fn inverse(matrix: &Matrix) -> Matrix {
    let lower = cholesky(matrix);
    let unit = |i: usize| (0..N).map(|j| if i == j { 1.0 } else { 0.0 }).collect::<Vec<_>>();
    // The columns of L⁻¹.
    let half: Matrix = (0..N).map(|i| solve(&lower, &unit(i))).collect();
    let dot = |i: usize, j: usize| half[i].iter().zip(&half[j]).map(|(a, b)| a * b).sum();
    (0..N).map(|i| (0..N).map(|j| dot(i, j)).collect()).collect()
}

/// `A` with `Aᵀ·A` the posterior's precision less that of the prior, by rows.
fn observed() -> Matrix {
    let mut precision = inverse(&true_covariance());
    (0..N).for_each(|i| precision[i][i] -= 1.0);
    let lower = cholesky(&precision);
    (0..N).map(|i| (0..N).map(|j| lower[j][i]).collect()).collect()
}

/// `-log p(x)`: `x` is distributed as `N(0, I + A·Aᵀ)`.
fn exact() -> f64 {
    let a = observed();
    let dot = |i: usize, j: usize| a[i].iter().zip(&a[j]).map(|(a, b)| a * b).sum::<f64>();
    let one = |i: usize, j: usize| if i == j { 1.0 } else { 0.0 };
    let covariance: Matrix =
        (0..N).map(|i| (0..N).map(|j| dot(i, j) + one(i, j)).collect()).collect();
    let form: f64 = solve(&cholesky(&covariance), &X).iter().map(|x| x * x).sum();
    0.5 * (form + log_det(&covariance) + N as f64 * std::f64::consts::TAU.ln())
}

impl Likelihood for Linear {
    fn extents(&self) -> Extents {
        Extents {
            n_latents: N,
            dim: 1,
            n_layers: 1,
            vocab_size: 2,
            max_seq_len: N,
            mask_id: None,
            has_encoder: false,
        }
    }

    fn params(&self) -> Vec<ParamSpec> {
        let init = Init::Normal { std: 1.0 };
        let spec = |name: &str, shape: &[usize]| ParamSpec {
            name: name.into(),
            shape: shape.into(),
            init,
            decay: false,
            part: Part::Decoder,
        };
        vec![spec("a", &[N, N]), spec("x", &[1, N])]
    }

    fn nll(
        &self,
        g: &mut Graph,
        weights: &[Value],
        _tokens: Value,
        _targets: Value,
        z: Option<Value>,
    ) -> Result<Value> {
        let z = z.expect("there are latents");
        let b = g.shape(z)[0];
        let z = ops::reshape(g, z, &[b, N])?;
        let mean = ops::linear(g, z, weights[0])?;
        let off = ops::sub(g, weights[1], mean)?;
        let square = ops::mul(g, off, off)?;
        let nll = ops::affine(g, square, 0.5, 0.5 * std::f64::consts::TAU.ln())?;
        ops::reshape(g, nll, &[b * N])
    }
}

#[test]
fn a_posterior_of_low_rank_is_found_and_leaves_no_gap() {
    let (cpu, f64, none) = (Device::Cpu, Precision::F64, SlowGradient::None);
    let flat = |matrix: Matrix| matrix.concat().iter().map(|x| *x as f32).collect::<Vec<_>>();
    let weights = Weights { params: vec![flat(observed()), X.map(|x| x as f32).to_vec()] };
    let weights = DeviceWeights::of(&Linear.params(), &weights, &cpu, f64).unwrap();
    let batch = Batch::new(Linear.extents(), 1, &[0; N], &[0; N]).unwrap();
    let (prior, linear) = (Arc::new(StandardNormal), Arc::new(Linear));
    let mut program = Program::of(linear, prior, [1, N], &cpu, f64, none).unwrap();
    let mut problem = program.problem(&weights, &batch).unwrap();
    let bounds = [0, 1, 2].map(|rank| {
        let infer = InferConfig { rank, steps: 4000, lr: 0.04, ..FIT };
        let inference = Inference::finished(&infer).unwrap();
        let latents = inference.infer(&mut problem, KEY, &mut |_| Ok(())).unwrap();
        [Protocol::Elbo { samples: 20_000 }, Protocol::Iwae { samples: 8 }].map(|protocol| {
            let scores = score(&mut problem, protocol, &latents, &inference, KEY).unwrap();
            (scores.nats[0] - exact(), scores.variance[0].sqrt())
        })
    });
    // The best independent numbers miss by their divergence from the posterior: half of the logarithm of the product of
    // the precision's diagonal over its determinant.
    let precision = inverse(&true_covariance());
    let diagonal: f64 = (0..N).map(|i| precision[i][i].ln()).sum();
    let gap = 0.5 * (diagonal - log_det(&precision));
    assert!(gap > 0.5, "{gap} would prove nothing");
    let [[independent, _], [one, iwae_of_one], [two, _]] = bounds;
    assert!((independent.0 - gap).abs() <= 4.0 * independent.1 + 0.01, "{bounds:?}, not {gap}");
    for (found, error) in [one, two] {
        assert!(found.abs() <= 4.0 * error + 0.01, "{bounds:?}");
    }
    // With the exact posterior every sample's weight is the likelihood itself.
    let (found, error) = iwae_of_one;
    assert!(found.abs() <= 4.0 * error + 0.005 && error <= 0.05, "{bounds:?}");
}
