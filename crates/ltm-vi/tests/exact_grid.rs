//! Bounds and codes of a real model whose two-dimensional latent is integrated on a grid, so that
//! `-log p(x)` is known for every sequence there is.

use std::f64::consts::TAU;
use std::sync::LazyLock;

use ltm_autodiff::Precision;
use ltm_kernels::Device;
use ltm_model::{DeviceWeights, ModelConfig, Part, Weights, param_table};
use ltm_testkit::{Tol, assert_close};
use ltm_vi::{
    Batch, Gaussian, InferConfig, InferKey, Inference, Latents, Noise, Posterior, Program,
    Protocol, Schedule, Scores, Sequences, SlowGradient, score,
};

const V: usize = 3;
const T: usize = 3;
/// Sequences there are.
const ALL: usize = V.pow(T as u32);
/// The norms' constant is large, so that the likelihood is smooth in the latent and a coarse grid exact.
const CONFIG: ModelConfig = ModelConfig {
    dim: 2,
    n_layers: 1,
    n_heads: 1,
    n_kv_heads: 1,
    vocab_size: V,
    max_seq_len: T,
    window: T,
    n_latents: 1,
    ffn_hidden: 4,
    norm_eps: 1.0,
    rope_theta: 10_000.0,
    attention: ltm_model::Attention::Causal,
    encoder_width: 0,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
};

/// A model and a batch.
struct Case {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
}

fn case(batch: Batch) -> Case {
    case_of(&CONFIG, batch)
}

/// With the same decoder whatever the prior is.
fn case_of(config: &ModelConfig, batch: Batch) -> Case {
    let (cpu, f64, slow) = (Device::Cpu, Precision::F64, SlowGradient::None);
    let mut weights = Weights::init(config, 3).unwrap();
    for (values, spec) in weights.params.iter_mut().zip(param_table(config)) {
        for (i, x) in values.iter_mut().enumerate() {
            match spec.part {
                Part::Prior => *x += 0.4 * (1.7 * (i + spec.len()) as f32).sin(),
                // Large enough for the latents to matter; the norms' gains stay 1.
                _ => *x *= if *x == 1.0 { 1.0 } else { 60.0 },
            }
        }
    }
    let [b, t] = batch.shape();
    Case {
        program: Program::new(config, b, t, &cpu, f64, slow).unwrap(),
        weights: DeviceWeights::new(config, &weights, &cpu, f64).unwrap(),
        batch,
    }
}

/// Sequence number `index`, and what the model reads before each of its tokens.
fn sequence(index: usize) -> (Vec<i32>, Vec<i32>) {
    let targets: Vec<i32> = (0..T).map(|i| (index / V.pow(i as u32) % V) as i32).collect();
    let tokens = [&[0], &targets[..T - 1]].concat();
    (tokens, targets)
}

/// All sequences in one batch, and with `copies`, all of them again and again.
fn all(copies: usize) -> Batch {
    let (tokens, targets): (Vec<_>, Vec<_>) = (0..ALL * copies).map(|i| sequence(i % ALL)).unzip();
    Batch::new(&CONFIG, ALL * copies, &tokens.concat(), &targets.concat()).unwrap()
}

/// Of `N(mu, diag(exp(log_var)))`.
fn density(z: [f64; 2], mu: [f64; 2], log_var: [f64; 2]) -> f64 {
    let log = |i: usize| -0.5 * ((z[i] - mu[i]).powi(2) / log_var[i].exp() + log_var[i]);
    (log(0) + log(1)).exp() / TAU
}

/// Points of a square grid on the latent's plane, with their weights and the likelihood there.
struct Grid {
    step: f64,
    points: Vec<[f32; 2]>,
    /// `-log p(x|z)`, a row of all sequences for each point.
    nll: Vec<Vec<f64>>,
}

impl Grid {
    /// Out to 6 standard deviations, beyond which 4e-9 of the prior lies. Steps are powers of two, so
    /// that single precision holds the points.
    fn new(step: f64) -> Self {
        let side = (6.0 / step) as i32;
        let axis = || (-side..=side).map(|i| (f64::from(i) * step) as f32);
        let points: Vec<[f32; 2]> = axis().flat_map(|x| axis().map(move |y| [x, y])).collect();
        let copies = 97;
        let mut case = case(all(copies));
        let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
        let mut nll = Vec::new();
        for some in points.chunks(copies) {
            let mut z: Vec<f32> = some.iter().flat_map(|z| z.repeat(ALL)).collect();
            z.resize(ALL * copies * 2, 0.0);
            let tokens = problem.token_nll_at(&z).unwrap();
            let rows: Vec<f64> = tokens.chunks(T).map(|row| row.iter().sum()).collect();
            nll.extend(rows.chunks(ALL).take(some.len()).map(<[f64]>::to_vec));
        }
        Self { step, points, nll }
    }

    /// The integral of `f(z, -log p(x|z))` for sequence `x`, by the trapezoidal rule.
    fn integral(&self, x: usize, f: impl Fn([f64; 2], f64) -> f64) -> f64 {
        let of = |(z, nll): (&[f32; 2], &Vec<f64>)| f(z.map(f64::from), nll[x]);
        self.points.iter().zip(&self.nll).map(of).sum::<f64>() * self.step * self.step
    }

    /// `p(x)` for every sequence.
    fn probabilities(&self) -> Vec<f64> {
        let prior = |z| density(z, [0.0; 2], [0.0; 2]);
        (0..ALL).map(|x| self.integral(x, |z, nll| prior(z) * (-nll).exp())).collect()
    }

    /// `E_q[-log p(x|z)] + KL` for every sequence at its posterior: what `elbo` estimates.
    fn bounds(&self, posterior: &Posterior) -> Vec<f64> {
        let of = |(x, kl): (usize, f64)| {
            let pair = |numbers: &[f32]| [0, 1].map(|i| f64::from(numbers[2 * x + i]));
            let q = |z| density(z, pair(&posterior.mu), pair(&posterior.log_var));
            let mass = self.integral(x, |z, _| q(z));
            // Times the largest cost, 1e-5 of the mass is far below any standard error here.
            assert!((mass - 1.0).abs() <= 1e-5, "the grid holds {mass} of the posterior of {x}");
            self.integral(x, |z, nll| q(z) * nll) + kl
        };
        posterior.kl(ALL).unwrap().into_iter().enumerate().map(of).collect()
    }
}

static GRID: LazyLock<Grid> = LazyLock::new(|| Grid::new(0.125));
/// `-log p(x)` of every sequence.
static EXACT: LazyLock<Vec<f64>> =
    LazyLock::new(|| GRID.probabilities().iter().map(|p| -p.ln()).collect());

/// The mean over sequences as the model draws them, to hold against [`entropy`].
fn expectation(nats: &[f64]) -> f64 {
    EXACT.iter().zip(nats).map(|(exact, nats)| (-exact).exp() * nats).sum()
}

fn entropy() -> f64 {
    expectation(&EXACT)
}

/// From the prior, at a constant rate.
fn infer(noise: Noise) -> InferConfig {
    InferConfig {
        steps: 60,
        lr: 0.1,
        lr_end: None,
        schedule: Schedule::Constant,
        weight_decay: 0.0,
        noise,
        init_mu_std: 0.0,
        init_log_var_mean: 0.0,
        init_log_var_std: 0.0,
        ..InferConfig::published()
    }
}

fn key(seed: u64) -> InferKey<'static> {
    InferKey { seed, step: 0, sequences: Sequences::From(0) }
}

/// All sequences, fitted.
fn fitted(infer: &InferConfig) -> (Case, Latents) {
    let mut case = case(all(1));
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let inference = Inference::finished(infer).unwrap();
    let latents = inference.infer(&mut problem, key(0), &mut |_| Ok(())).unwrap();
    (case, latents)
}

fn posterior(latents: &Latents) -> Posterior {
    latents.gaussian().unwrap().to_host().unwrap()
}

fn scored(case: &mut Case, latents: &Latents, protocol: Protocol, seed: u64) -> Scores {
    let inference = Inference::finished(&infer(Noise::Fresh)).unwrap();
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    score(&mut problem, protocol, latents, &inference, key(seed)).unwrap()
}

/// The mean, and its standard error.
fn mean(x: &[f64]) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (mean, (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt())
}

/// That `elbo` is the bound that the grid gives, within four standard errors, and the bound no better
/// than the likelihood.
fn check_elbo(case: &mut Case, latents: &Latents) -> Vec<f64> {
    let bounds = GRID.bounds(&posterior(latents));
    let elbo = scored(case, latents, Protocol::Elbo { samples: 400 }, 1);
    for x in 0..ALL {
        let (nats, error) = (elbo.nats[x], elbo.variance[x].sqrt());
        let (bound, exact) = (bounds[x], EXACT[x]);
        assert!((nats - bound).abs() <= 4.0 * error, "{x}: {nats} +- {error}, not {bound}");
        assert!(bound >= exact && nats >= exact - 4.0 * error, "{x}: {nats}, {bound}, {exact}");
    }
    bounds
}

#[test]
fn the_grid_is_fine_enough() {
    let (coarse, fine) = (Grid::new(0.25).probabilities(), GRID.probabilities());
    assert_close(&coarse, &fine, Tol { abs: 0.0, rel: 1e-6 });
    // All sequences together; 4e-9 of the prior lies outside.
    let total: f64 = fine.iter().sum();
    assert!((total - 1.0).abs() <= 1e-8, "{total}");
    // The latent decides much: each sequence under its own best latent, they would add up to 1 if it
    // decided nothing.
    let best = |x: usize| GRID.nll.iter().map(|nll| nll[x]).fold(f64::INFINITY, f64::min);
    let best: f64 = (0..ALL).map(|x| (-best(x)).exp()).sum();
    assert!(best >= 2.5, "{best}");
}

#[test]
fn bounds_lie_between_the_likelihood_and_each_other() {
    let (mut case, latents) = fitted(&infer(Noise::Fresh));
    check_elbo(&mut case, &latents);
    // Twice as wide, so that the weights have tails light enough for a standard error.
    let mut wide = posterior(&latents);
    wide.log_var.iter_mut().for_each(|log_var| *log_var = (*log_var + 2f32.ln()).min(0.0));
    let wide = Gaussian::new(&wide, &Device::Cpu, Precision::F64.float).unwrap().into();
    let bound = expectation(&check_elbo(&mut case, &wide));
    let mut before = bound;
    for samples in [2, 16] {
        let mut iwae = |seed| scored(&mut case, &wide, Protocol::Iwae { samples }, seed);
        let scores: Vec<Scores> = (2..102).map(&mut iwae).collect();
        for x in 0..ALL {
            let weights: Vec<f64> = scores.iter().map(|s| (EXACT[x] - s.nats[x]).exp()).collect();
            let (weight, error) = mean(&weights);
            assert!((weight - 1.0).abs() <= 4.0 * error, "{x}: {weight} +- {error}, not 1");
        }
        let all: Vec<f64> = scores.iter().map(|s| expectation(&s.nats)).collect();
        let (nats, error) = mean(&all);
        assert!(
            nats + 4.0 * error < before,
            "{samples} samples: {nats} +- {error}, not under {before}"
        );
        assert!(nats >= entropy() - 4.0 * error, "{samples} samples: {nats} +- {error}");
        before = nats;
    }
    let left = (before - entropy()) / (bound - entropy());
    assert!(left <= 0.2, "16 samples leave {left} of the gap");
}

/// Each key gives one distribution over all sequences, which costs more on average than the true one,
/// without any sampling error, but not much more.
#[test]
fn the_prequential_code_is_near_the_entropy_and_never_under_it() {
    let one = |x| {
        let (tokens, targets) = sequence(x);
        Batch::new(&CONFIG, 1, &tokens, &targets).unwrap()
    };
    let mut case = case(one(0));
    // Samples of the prior miss by about half the variance of a sequence's weight over their number; a
    // fit misses more, by what a Gaussian cannot hold.
    for (stride, samples, most) in [(1, 64, 0.05), (3, 4, 0.5), (3, 256, 0.005)] {
        let protocol = Protocol::Prequential { stride, samples };
        let of = |x| {
            case.batch = one(x);
            scored(&mut case, &Latents::None, protocol, 0).nats[0]
        };
        let nats: Vec<f64> = (0..ALL).map(of).collect();
        let excess = expectation(&nats) - entropy();
        assert!((0.0..=most).contains(&excess), "{protocol}: {excess}");
    }
}

/// The published protocol. One noise for all steps makes the sample `mu + noise·exp(log_var/2)` a point
/// that the fit can steer, to where `x` is most likely, while the KL charges as if the sample could have
/// fallen anywhere in a wide `q`: mean and deviation share the way, and neither goes far.
#[test]
fn a_fitted_noise_can_claim_more_than_the_likelihood() {
    let (mut case, latents) = fitted(&infer(Noise::Fixed));
    let claimed = scored(&mut case, &latents, Protocol::ElboFittedNoise, 0).nats;
    let excess = expectation(&claimed) - entropy();
    assert!(excess <= -0.4, "{excess}");
    // Not for a few: most of the sequences seem likelier than they are.
    let under = (0..ALL).filter(|x| claimed[*x] < EXACT[*x] - 0.05).count();
    assert!(under >= 18, "{under} of {ALL}");
    // With fresh noise the same posterior is no better than the truth, and a poor one for its trouble.
    let bounds = check_elbo(&mut case, &latents);
    assert!(expectation(&bounds) >= entropy() + 0.4, "{}", expectation(&bounds));
}

/// A learned prior is one: its density is that of its samples, and no bound beats the evidence under it.
#[test]
fn a_learned_prior_has_an_evidence_that_no_bound_beats() {
    let flow = ModelConfig { prior_layers: 3, ..CONFIG };
    let mut case = case_of(&flow, all(1));
    let mut problem = case.program.problem(&case.weights, &case.batch).unwrap();
    let prior = problem.prior().unwrap();
    let p = |z: [f64; 2]| prior.log_density(&z).exp();
    let moment = |f: &dyn Fn([f64; 2]) -> f64| GRID.integral(0, |z, _| p(z) * f(z));
    let mass = moment(&|_| 1.0);
    assert!((mass - 1.0).abs() <= 1e-5, "{mass}");
    // It is far from the standard normal, and from any Gaussian with independent numbers.
    let [x, y, xx, yy, xy] = [
        moment(&|z| z[0]),
        moment(&|z| z[1]),
        moment(&|z| z[0] * z[0]),
        moment(&|z| z[1] * z[1]),
        moment(&|z| z[0] * z[1]),
    ];
    let correlation = (xy - x * y) / ((xx - x * x) * (yy - y * y)).sqrt();
    assert!(x.abs() + y.abs() >= 0.3 && correlation.abs() >= 0.2, "{x} {y} {correlation}");
    let exact: Vec<f64> =
        (0..ALL).map(|x| -GRID.integral(x, |z, nll| p(z) * (-nll).exp()).ln()).collect();
    let total: f64 = exact.iter().map(|nats| (-nats).exp()).sum();
    assert!((total - 1.0).abs() <= 1e-5, "{total}");

    let inference = Inference::finished(&infer(Noise::Fresh)).unwrap();
    let latents = inference.infer(&mut problem, key(0), &mut |_| Ok(())).unwrap();
    // Twice as wide, for light tails of the weights.
    let mut q = posterior(&latents);
    q.log_var.iter_mut().for_each(|log_var| *log_var += 2f32.ln());
    let latents = Gaussian::new(&q, &Device::Cpu, Precision::F64.float).unwrap().into();
    let mut nats =
        |protocol, seed| score(&mut problem, protocol, &latents, &inference, key(seed)).unwrap();
    let elbo = nats(Protocol::Elbo { samples: 400 }, 1);
    let iwae = nats(Protocol::Iwae { samples: 2000 }, 1);
    for x in 0..ALL {
        let pair = |numbers: &[f32]| [0, 1].map(|i| f64::from(numbers[2 * x + i]));
        let q = |z| density(z, pair(&q.mu), pair(&q.log_var));
        let bound = GRID.integral(x, |z, nll| {
            let q = q(z);
            if q == 0.0 { 0.0 } else { q * (nll + q.ln() - prior.log_density(&z)) }
        });
        let error = elbo.variance[x].sqrt();
        assert!((elbo.nats[x] - bound).abs() <= 4.0 * error, "{x}: {} {bound}", elbo.nats[x]);
        assert!(bound >= exact[x], "{x}: {bound} {}", exact[x]);
        let error = iwae.variance[x].sqrt();
        let off = iwae.nats[x] - exact[x];
        assert!(error <= 0.05 && off.abs() <= 5.0 * error, "{x}: {off} +- {error}");
    }
    // The code of a first block has samples of the prior itself, and not of a Gaussian like it.
    let code = nats(Protocol::Prequential { stride: 3, samples: 4000 }, 2);
    for (x, exact) in exact.iter().enumerate() {
        let (off, error) = (code.nats[x] - exact, code.variance[x].sqrt());
        assert!(error <= 0.05 && off.abs() <= 5.0 * error, "{x}: {off} +- {error}");
    }
}
