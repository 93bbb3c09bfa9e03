//! The estimators on a linear decoder with Gaussian noise, where likelihood, posterior and every gap
//! have a closed form. Knows no graph.

use ltm_kernels::ops::philox::{self, PhiloxKey};
use ltm_kernels::{Buffer, DType, Device};
use ltm_vi::Posterior;
use ltm_vi::estimators::{self, Sampled};

/// `x_i = A_i·z + NOISE·e_i` with `z` and `e` standard normal.
///
/// The columns of the first two rows, and of the first four, are orthogonal, so that what was seen up
/// to there leaves a diagonal posterior; the fifth correlates it.
const A: [[f64; 2]; 5] = [[1.0, 0.5], [0.5, -1.0], [0.8, 0.4], [-0.4, 0.8], [0.9, 0.7]];
const NOISE: f64 = 0.7;
const X: [f64; 5] = [1.2, -0.4, 0.9, 0.3, -0.5];

/// `-log N(x; mean, variance)`.
fn normal_nll(x: f64, mean: f64, variance: f64) -> f64 {
    0.5 * ((x - mean).powi(2) / variance + (std::f64::consts::TAU * variance).ln())
}

/// `-log p(x_i|z)` summed over the entries `seen`.
fn nll(seen: std::ops::Range<usize>, z: [f64; 2]) -> f64 {
    seen.map(|i| normal_nll(X[i], A[i][0] * z[0] + A[i][1] * z[1], NOISE * NOISE)).sum()
}

/// A symmetric matrix `[[a, b], [b, c]]`.
#[derive(Clone, Copy)]
struct Symmetric {
    a: f64,
    b: f64,
    c: f64,
}

impl Symmetric {
    fn det(self) -> f64 {
        self.a * self.c - self.b * self.b
    }

    /// `vᵀ M v`.
    fn form(self, v: [f64; 2]) -> f64 {
        self.a * v[0] * v[0] + 2.0 * self.b * v[0] * v[1] + self.c * v[1] * v[1]
    }

    /// `M⁻¹ v`.
    fn solve(self, v: [f64; 2]) -> [f64; 2] {
        [self.c * v[0] - self.b * v[1], self.a * v[1] - self.b * v[0]].map(|x| x / self.det())
    }
}

/// The exact posterior of the first `n` entries: its precision `I + AᵀA/NOISE²`, and its mean.
fn posterior(n: usize) -> (Symmetric, [f64; 2]) {
    let sum = |f: &dyn Fn(usize) -> f64| (0..n).map(f).sum::<f64>() / (NOISE * NOISE);
    let precision = Symmetric {
        a: 1.0 + sum(&|i| A[i][0] * A[i][0]),
        b: sum(&|i| A[i][0] * A[i][1]),
        c: 1.0 + sum(&|i| A[i][1] * A[i][1]),
    };
    (precision, precision.solve([sum(&|i| A[i][0] * X[i]), sum(&|i| A[i][1] * X[i])]))
}

/// `-log p` of the first `n` entries, by Bayes' rule at `z`, whichever it is.
fn exact_at(n: usize, z: [f64; 2]) -> f64 {
    let (precision, mean) = posterior(n);
    let prior = z.map(|z| normal_nll(z, 0.0, 1.0)).iter().sum::<f64>();
    let quadratic = precision.form([z[0] - mean[0], z[1] - mean[1]]);
    let after = 0.5 * (quadratic - precision.det().ln()) + std::f64::consts::TAU.ln();
    nll(0..n, z) + prior - after
}

fn exact(n: usize) -> f64 {
    exact_at(n, [0.0; 2])
}

/// `N(mu, diag(std²))`.
#[derive(Clone, Copy, Debug)]
struct Q {
    mu: [f64; 2],
    std: [f64; 2],
}

/// Off the mean, and too wide or too narrow in each direction: the posterior's deviations are 0.39 and
/// 0.41. The weights of the first two have a variance, those of the last have none.
const WRONG: [Q; 3] =
    [Q { mu: [0.6, 0.1], std: [0.6, 0.35] }, LIGHT_TAILED, Q { mu: [0.9, 0.2], std: [0.2, 0.25] }];
/// Too wide everywhere, so that no weight is much above the mean.
const LIGHT_TAILED: Q = Q { mu: [0.2, 0.4], std: [0.5, 0.7] };

impl Q {
    fn numbers(self) -> ([f32; 2], [f32; 2]) {
        (self.mu.map(|x| x as f32), self.std.map(|x| (2.0 * x.ln()) as f32))
    }

    /// `KL(q || prior)`, by the code that scores use.
    fn kl(self) -> f64 {
        let (mu, log_var) = self.numbers();
        let noise = vec![0.0; 2];
        let posterior = Posterior { mu: mu.into(), log_var: log_var.into(), noise, factor: None };
        posterior.kl(1).unwrap()[0]
    }

    /// How far the mean of the posterior of all entries is from this one's.
    fn shift(self, mean: [f64; 2]) -> [f64; 2] {
        [mean[0] - self.mu[0], mean[1] - self.mu[1]]
    }

    /// `KL(q || posterior of all entries)`.
    fn gap(self) -> f64 {
        let (precision, mean) = posterior(5);
        let [s, t] = self.std.map(|std| std * std);
        let trace = precision.a * s + precision.c * t;
        let logs = (s * t * precision.det()).ln();
        0.5 * (trace + precision.form(self.shift(mean)) - 2.0 - logs)
    }

    /// The variance of the weight `p(z|x)/q(z)` of a sample of `q`, which has mean 1: the integral of
    /// `p(z|x)²/q(z)`, a Gaussian of precision `2Λ - diag(std²)⁻¹`, less 1.
    fn weight_variance(self) -> f64 {
        let (precision, mean) = posterior(5);
        let [r, s] = self.std.map(|std| 1.0 / (std * std));
        let left =
            Symmetric { a: 2.0 * precision.a - r, b: 2.0 * precision.b, c: 2.0 * precision.c - s };
        assert!(left.a > 0.0 && left.det() > 0.0, "{self:?} has weights without a variance");
        let shift = self.shift(mean);
        let pull = [r * shift[0], s * shift[1]];
        let solved = left.solve(pull);
        let exponent = pull[0] * (solved[0] + shift[0]) + pull[1] * (solved[1] + shift[1]);
        precision.det() / (r * s * left.det()).sqrt() * (0.5 * exponent).exp() - 1.0
    }
}

/// Of samples of `q`, `-log p` of the entries `seen` and `log p(z) - log q(z)`: `samples` of each of
/// `replications`.
fn draw(
    q: Q,
    seen: std::ops::Range<usize>,
    replications: usize,
    samples: usize,
) -> Vec<(Vec<f64>, Vec<f64>)> {
    let mut noise = Buffer::zeros(&Device::Cpu, DType::F32, replications * samples * 2).unwrap();
    let key = PhiloxKey { seed: 11, stream: samples as u64, step: 0 };
    philox::normal(&Device::Cpu, &mut noise, key, 0.0, 1.0).unwrap();
    let (mu, log_var) = q.numbers();
    let z = |noise: &[f32]| {
        [0, 1].map(|i| f64::from(mu[i]) + f64::from(noise[i]) * (f64::from(log_var[i]) / 2.0).exp())
    };
    let replication = |noise: &[f32]| {
        let both = |noise| {
            (nll(seen.clone(), z(noise)), estimators::log_ratio(&mu, &log_var, noise).unwrap())
        };
        noise.chunks(2).map(both).unzip()
    };
    noise.as_slice::<f32>().unwrap().chunks(2 * samples).map(replication).collect()
}

/// The mean, and its standard error.
fn mean(x: impl IntoIterator<Item = f64>) -> (f64, f64) {
    let x: Vec<f64> = x.into_iter().collect();
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    (mean, (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / (n - 1.0) / n).sqrt())
}

/// That a mean is what it is said to be, within four standard errors.
#[track_caller]
fn check_mean(what: &str, (found, error): (f64, f64), expected: f64) {
    assert!((found - expected).abs() <= 4.0 * error, "{what}: {found} +- {error}, not {expected}");
}

#[test]
fn the_closed_form_is_right() {
    // Bayes' rule gives one number at every z only if the posterior is the right one.
    for n in 1..=5 {
        let (there, here) = (exact_at(n, [0.7, -1.3]), exact(n));
        assert!((there - here).abs() <= 1e-12, "{n}: {there} is not {here}");
    }
    let variance = A[0][0] * A[0][0] + A[0][1] * A[0][1] + NOISE * NOISE;
    let first = normal_nll(X[0], 0.0, variance);
    assert!((exact(1) - first).abs() <= 1e-12, "{} is not {first}", exact(1));
}

#[test]
fn the_bound_misses_by_the_divergence_from_the_posterior() {
    for q in WRONG {
        let elbo = draw(q, 0..5, 4000, 8);
        let elbo = elbo.iter().map(|(nll, _)| estimators::nelbo(nll, q.kl()).nats);
        check_mean(&format!("elbo of {q:?}"), mean(elbo), exact(5) + q.gap());
    }
}

#[test]
fn the_variance_of_the_bound_is_as_stated() {
    for q in WRONG {
        let truth = exact(5) + q.gap();
        let estimate = |(nll, _): &(Vec<f64>, Vec<f64>)| estimators::nelbo(nll, q.kl());
        let estimates = |replications, samples| -> Vec<Sampled> {
            draw(q, 0..5, replications, samples).iter().map(estimate).collect()
        };
        // The stated variance and the squared miss have the same mean, by pairs. Few samples, so that
        // dividing by their number instead of one less would show.
        let excess = estimates(8000, 3);
        let excess = excess.iter().map(|e| e.variance - (e.nats - truth).powi(2));
        check_mean(&format!("stated variance less squared miss, {q:?}"), mean(excess), 0.0);
        let estimates = estimates(2000, 64);
        // Student's t of 63 degrees lies within 2 in 95.0 % of cases; the skew of a squared normal takes
        // less than a point from that, and four standard errors of 2000 trials are two points.
        let within = |e: &Sampled| (e.nats - truth).abs() <= 2.0 * e.variance.sqrt();
        let share = estimates.iter().filter(|e| within(e)).count() as f64 / 2000.0;
        assert!((0.92..=0.97).contains(&share), "{share} of {q:?} lie within two standard errors");
    }
}

#[test]
fn importance_weights_tighten_the_bound_to_the_likelihood() {
    for q in &WRONG[..2] {
        let mut before = (f64::INFINITY, 0.0);
        for samples in [1, 4, 16, 64] {
            let what = format!("{samples} samples of {q:?}");
            let draws = draw(*q, 0..5, 3000, samples);
            let iwae = |(nll, ratio): &(Vec<f64>, Vec<f64>)| estimators::iwae(nll, ratio).unwrap();
            let estimates: Vec<Sampled> = draws.iter().map(iwae).collect();
            let weights: Vec<f64> = estimates.iter().map(|e| (exact(5) - e.nats).exp()).collect();
            check_mean(&format!("p(x) from {what}"), mean(weights.iter().copied()), 1.0);
            // Since the weight's mean is 1, this has the mean of -log(weight) with less noise.
            let gap = mean(weights.iter().map(|w| w - 1.0 - w.ln()));
            let error = f64::hypot(gap.1, before.1);
            assert!(gap.0 + 4.0 * error < before.0, "{what}: {gap:?} is no less than {before:?}");
            before = gap;
            if samples == 1 {
                check_mean(&format!("the gap of {what}"), gap, q.gap());
            }
            // To first order the gap is half the variance of the mean weight, which is what an estimate
            // states. The next order is a few times 1/64 of that where weights have light tails.
            if samples == 64 && q.mu == LIGHT_TAILED.mu {
                let half = q.weight_variance() / 2.0 / 64.0;
                let stated = mean(estimates.iter().map(|e| e.variance / 2.0));
                for (found, error) in [gap, stated] {
                    let allowed = 4.0 * error + 0.05 * half;
                    assert!((found - half).abs() <= allowed, "{what}: {found}, not {half}");
                }
            }
        }
    }
}

/// With the exact posterior every sample gives the likelihood itself.
#[test]
fn the_exact_posterior_leaves_no_gap_and_no_variance() {
    let (precision, mu) = posterior(4);
    assert!(precision.b.abs() <= 1e-12, "the posterior of four entries is diagonal");
    let q = Q { mu, std: [precision.a, precision.c].map(|p| p.powf(-0.5)) };
    for (nll, ratio) in draw(q, 0..4, 50, 4) {
        let Sampled { nats, variance } = estimators::iwae(&nll, &ratio).unwrap();
        // Mean and log-variance are single precision, 6e-8 off, and samples lie within five deviations:
        // the weights' logarithms are off by less than 25 times that.
        assert!((nats - exact(4)).abs() <= 2e-6, "{nats} is not {}", exact(4));
        assert!(variance <= 4e-12, "{variance}");
    }
    // The bound itself keeps the noise of its likelihood, around the same number.
    let elbo = draw(q, 0..4, 4000, 8);
    let elbo = elbo.iter().map(|(nll, _)| estimators::nelbo(nll, q.kl()).nats);
    check_mean("elbo of the posterior", mean(elbo), exact(4));
}

/// What is predicted by samples of the posterior of the entries before it costs, over many samples, what
/// the chain rule says.
#[test]
fn prediction_is_the_chain_rule() {
    let (precision, mu) = posterior(2);
    assert!(precision.b.abs() <= 1e-12, "the posterior of two entries is diagonal");
    let q = Q { mu, std: [precision.a, precision.c].map(|p| p.powf(-0.5)) };
    let prior = Q { mu: [0.0; 2], std: [1.0; 2] };
    for (q, seen, expected) in [(q, 2..5, exact(5) - exact(2)), (prior, 0..2, exact(2))] {
        let mut before = f64::INFINITY;
        for samples in [1, 8, 64] {
            let what = format!("{seen:?} from {samples} samples");
            let draws = draw(q, seen.clone(), 3000, samples);
            let costs: Vec<f64> =
                draws.iter().map(|(nll, _)| estimators::predictive(nll).nats).collect();
            check_mean(&what, mean(costs.iter().map(|nats| (expected - nats).exp())), 1.0);
            let (cost, error) = mean(costs);
            assert!(cost + 4.0 * error >= expected, "{what}: {cost} is below {expected}");
            assert!(cost < before, "{what}: {cost} is no less than {before}");
            before = cost;
        }
        // To first order half the variance of the mean of 64 weights, each of which varies by about 3.
        assert!(before - expected <= 0.05, "{before} is not near {expected}");
    }
}
