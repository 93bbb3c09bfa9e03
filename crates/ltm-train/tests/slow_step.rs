//! The slow step against plain numbers: averaging over unequal micro-batches, padding, clipping, decay, rates
//! and random keys, by loops in double precision. Only the gradient of one micro-batch comes from a program,
//! in double precision too; `ltm-vi` and `ltm-model` hold that to differences and to recorded numbers.

use std::path::Path;
use std::sync::Arc;

use ltm_autodiff::{AdamWState, Graph, Precision, Value, ops};
use ltm_kernels::{Buffer, DType, Device};
use ltm_model::{DeviceWeights, ParamSpec, Part, Weights, param_table};
use ltm_testkit::{Tol, assert_close, relative_frobenius};
use ltm_train::data::{Batch, Split};
use ltm_train::{Checkpoint, Config, Error, Run, SlowLearner, Start, StepReport, run_data};
use ltm_vi::{Cut, Density, InferKey, Inference, Prior, Program, Sequences, TracedGaussian};

/// Running means in single precision, after sums of about a hundred terms, through three fast steps.
const TOL: f64 = 1e-3;

/// An update divides by the root of the squares, which enlarges the rounding of gradients near 0.
const UPDATE_TOL: f64 = 5e-3;

const SEQ_LEN: usize = 8;

fn config(set: &[&str]) -> Config {
    let set = [
        &[
            "model.max_seq_len=8",
            "train.seq_len=8",
            "train.steps=5",
            "train.warmup=2",
            "train.lr=1e-2",
            "train.lr_min=1e-3",
            // Large enough for decay to be a part of an update that no rounding hides.
            "train.weight_decay=0.5",
            // A step depends on the gradient's size, not on its sign alone.
            "infer.eps=0.1",
            "infer.init_mu_std=0.5",
            "infer.lr=0.1",
            "infer.lr_end=0.9",
        ],
        set,
    ]
    .concat();
    let set: Vec<String> = set.iter().map(ToString::to_string).collect();
    Config::parse(include_str!("tiny.toml"), Path::new("tiny.toml"), &set).expect("good")
}

/// Rows of these numbers of scored tokens; the rest is padding.
fn batch(first: usize, scored: [usize; 2]) -> Batch {
    let token = |i: usize| (first + 7 * i + i * i) as i32 % 20;
    let mut targets = vec![-1; 2 * SEQ_LEN];
    for (row, scored) in scored.into_iter().enumerate() {
        for t in 0..scored {
            targets[row * SEQ_LEN + t] = token(row * SEQ_LEN + t + 1);
        }
    }
    Batch {
        tokens: (0..2 * SEQ_LEN).map(token).collect(),
        targets,
        context: vec![0; 2],
        numbers: vec![0, 1],
        documents: vec![None; 2],
        rows: scored.iter().filter(|scored| **scored > 0).count(),
        scored: scored.iter().sum(),
    }
}

/// Two micro-batches of 13 and 3 tokens; the second has a row of padding.
fn micro_batches(step: u64) -> [Batch; 2] {
    let first = 20 * step as usize;
    [batch(first, [8, 5]), batch(first + 9, [3, 0])]
}

/// Weights large enough for the latents to matter.
fn weights(config: &Config) -> Weights {
    let mut weights = Weights::init(&config.model, 5).expect("a good model");
    let of_decoder = |spec: &ParamSpec| spec.part == Part::Decoder;
    let decoder = param_table(&config.model).iter().filter(|spec| of_decoder(spec)).count();
    let numbers = weights.params[..decoder].iter_mut().flatten();
    numbers.for_each(|x| *x *= if *x == 1.0 { 1.0 } else { 5.0 });
    weights
}

/// `N(mean, std²)` for each number of a sequence's latents.
#[derive(Clone, Copy, PartialEq)]
struct Normal {
    mean: f64,
    std: f64,
}

const STANDARD: Normal = Normal { mean: 0.0, std: 1.0 };

impl Normal {
    fn plain_kl(self, mu: f64, log_var: f64) -> f64 {
        let var = self.std * self.std;
        ((log_var.exp() + (mu - self.mean).powi(2)) / var - 1.0 - log_var + var.ln()) / 2.0
    }
}

impl Prior for Normal {
    /// In the units of the prior it is the standard normal.
    fn kl(
        &self,
        g: &mut Graph,
        _weights: &[Value],
        q: TracedGaussian,
        rows: usize,
    ) -> ltm_autodiff::Result<Value> {
        let mu = ops::affine(g, q.mu, 1.0 / self.std, -self.mean / self.std)?;
        let log_var = ops::affine(g, q.log_var, 1.0, -2.0 * self.std.ln())?;
        ops::gaussian_kl(g, mu, log_var, rows)
    }

    fn density(&self, _weights: &DeviceWeights) -> ltm_vi::Result<Arc<dyn Density>> {
        Ok(Arc::new(*self))
    }
}

impl Density for Normal {
    fn log_density(&self, z: &[f64]) -> f64 {
        let log = |z: &f64| ((z - self.mean) / self.std).powi(2) + 2.0 * self.std.ln();
        -0.5 * z.iter().map(|z| log(z) + std::f64::consts::TAU.ln()).sum::<f64>()
    }

    fn sample(&self, noise: &[f64]) -> Vec<f64> {
        noise.iter().map(|noise| self.mean + self.std * noise).collect()
    }

    fn moments(&self, len: usize) -> [Vec<f32>; 2] {
        [self.mean, 2.0 * self.std.ln()].map(|x| vec![x as f32; len])
    }
}

/// Plain AdamW in double precision, and what a step reports.
struct Plain {
    program: Program,
    prior: Normal,
    weights: Vec<Vec<f64>>,
    m: Vec<Vec<f64>>,
    v: Vec<Vec<f64>>,
}

impl Plain {
    fn new(config: &Config, prior: Normal, weights: &Weights) -> Self {
        let slow = config.training();
        let (device, precision, shape) = (Device::Cpu, Precision::F64, [2, SEQ_LEN]);
        let model = Arc::new(config.model);
        let program = Program::of(model, Arc::new(prior), shape, &device, precision, slow);
        let program = program.expect("traced");
        let double = |x: &Vec<f32>| x.iter().map(|x| f64::from(*x)).collect();
        let weights: Vec<Vec<f64>> = weights.params.iter().map(double).collect();
        let zeros: Vec<Vec<f64>> = weights.iter().map(|w| vec![0.0; w.len()]).collect();
        Self { program, prior, weights, m: zeros.clone(), v: zeros }
    }

    /// Step number `step`: loss, KL and gradient's norm.
    fn step(&mut self, config: &Config, batches: &[Batch], step: u64) -> [f64; 3] {
        // In double precision: rounded ones would be another path.
        let rounded = Weights::init(&config.model, 5).unwrap();
        let mut weights =
            DeviceWeights::new(&config.model, &rounded, &Device::Cpu, Precision::F64).unwrap();
        for (i, weight) in self.weights.iter().enumerate() {
            let buffer = weights.param_mut(i).expect("a weight");
            buffer.as_mut_slice::<f64>().expect("doubles").copy_from_slice(weight);
        }
        let (mut nats, mut kl, mut tokens) = (0.0, 0.0, 0.0);
        let mut sums: Vec<Vec<f64>> = self.weights.iter().map(|w| vec![0.0; w.len()]).collect();
        let (mut trajectory, mut ahead, mut predicted) = (sums.clone(), sums.clone(), 0.0);
        for (index, batch) in batches.iter().enumerate() {
            let first_sequence = 2 * index as u64;
            let key = InferKey {
                seed: config.run.seed,
                step,
                sequences: Sequences::From(first_sequence),
            };
            let progress = step as f64 / (config.train.steps - 1) as f64;
            let rows = ltm_vi::Batch::new(&config.model, 2, &batch.tokens, &batch.targets);
            let rows = rows.expect("good ids");
            let mut problem = self.program.problem(&weights, &rows).expect("they fit");
            let inference = Inference::at(&config.infer, progress).expect("a good configuration");
            let latents = inference.infer(&mut problem, key, &mut |_| Ok(())).expect("fitted");
            let posterior = latents.gaussian().expect("a density").to_host().expect("on the CPU");
            let numbers = posterior.mu.len() / 2;
            for row in 0..batch.rows {
                for i in row * numbers..(row + 1) * numbers {
                    let (mu, log_var) =
                        (f64::from(posterior.mu[i]), f64::from(posterior.log_var[i]));
                    kl += self.prior.plain_kl(mu, log_var);
                }
            }
            let nll = problem.token_nll(&latents).expect("scored");
            for (target, nll) in batch.targets.iter().zip(nll) {
                if *target >= 0 {
                    nats += nll;
                    tokens += 1.0;
                }
            }
            let ones = vec![1.0; 2 * SEQ_LEN];
            let slow = problem.weight_gradients(&latents, &ones, 1.0).expect("gradients");
            for (sum, gradient) in sums.iter_mut().zip(slow.gradients) {
                for (sum, x) in sum.iter_mut().zip(gradient.to_f64().expect("on the CPU")) {
                    *sum += x;
                }
            }
            for (sum, gradient) in trajectory.iter_mut().zip(self.program.trajectory_gradients()) {
                for (sum, x) in sum.iter_mut().zip(gradient.to_f64().expect("on the CPU")) {
                    *sum += x;
                }
            }
            if config.train.prefix_weight == 0.0 {
                continue;
            }
            let cut = Cut::new(rows, key, config.train.prefix_block).expect("good lengths");
            let mut problem = self.program.problem(&weights, &cut.known).expect("they fit");
            let latents = inference.infer(&mut problem, key, &mut |_| Ok(())).expect("fitted");
            let mut problem = self.program.problem(&weights, &cut.rest).expect("they fit");
            let mask: Vec<f32> = cut.counted.iter().map(|counts| f32::from(*counts)).collect();
            predicted += f64::from(mask.iter().sum::<f32>());
            let slow = problem.weight_gradients(&latents, &mask, 1.0).expect("gradients");
            for (sum, gradient) in ahead.iter_mut().zip(slow.gradients) {
                for (sum, x) in sum.iter_mut().zip(gradient.to_f64().expect("on the CPU")) {
                    *sum += config.train.prefix_weight * x;
                }
            }
        }
        let mut norm = 0.0;
        for ((sum, trajectory), ahead) in sums.iter_mut().zip(&trajectory).zip(&ahead) {
            for ((sum, trajectory), ahead) in sum.iter_mut().zip(trajectory).zip(ahead) {
                *sum = *sum / tokens + trajectory + ahead / f64::max(predicted, 1.0);
                norm += *sum * *sum;
            }
        }
        let norm = f64::sqrt(norm);
        let train = &config.train;
        let scale = if norm > train.clip { train.clip / norm } else { 1.0 };
        let lr = plain_lr(config, step);
        let [beta1, beta2] = train.betas;
        for (i, spec) in param_table(&config.model).iter().enumerate() {
            let decay = if spec.shape.len() == 2 { train.weight_decay } else { 0.0 };
            for (j, sum) in sums[i].iter().enumerate() {
                let g = sum * scale;
                let (w, m, v) = (&mut self.weights[i][j], &mut self.m[i][j], &mut self.v[i][j]);
                *m = beta1 * *m + (1.0 - beta1) * g;
                *v = beta2 * *v + (1.0 - beta2) * g * g;
                let m_hat = *m / (1.0 - beta1.powi(step as i32 + 1));
                let v_hat = *v / (1.0 - beta2.powi(step as i32 + 1));
                *w -= lr * decay * *w + lr * m_hat / (v_hat.sqrt() + 1e-8);
            }
        }
        [nats / tokens, kl / tokens, norm]
    }
}

/// 2 steps up to 1e-2, then half a cosine over the 2 after the first of 3 down to 1e-3.
fn plain_lr(config: &Config, step: u64) -> f64 {
    assert_eq!((config.train.warmup, config.train.steps), (2, 5));
    [5e-3, 1e-2, 1e-2, 5.5e-3, 1e-3][step as usize]
}

/// Five steps; what the last one reports.
fn check(set: &[&str], prior: Normal, clips: impl Fn(f64) -> bool) -> StepReport {
    let config = config(set);
    let start = weights(&config);
    let mut learner = if prior == STANDARD {
        SlowLearner::new(&config, &start)
    } else {
        SlowLearner::of(&config, Arc::new(config.model), Arc::new(prior), &start)
    }
    .expect("a learner");
    let mut plain = Plain::new(&config, prior, &start);
    let mut last = None;
    let table = param_table(&config.model);
    for step in 0..5 {
        let before = plain.weights.clone();
        let batches = micro_batches(step);
        let report = learner.step(&config, &batches, step).expect("a step");
        let [loss, kl, norm] = plain.step(&config, &batches, step);
        assert!(clips(norm), "{set:?}: step {step} has the norm {norm}");
        let found = [report.loss, report.kl.expect("a density"), report.grad_norm];
        assert_close(&found, &[loss, kl, norm], Tol { abs: 0.0, rel: 1e-4 });
        assert_close(&[report.lr], &[plain_lr(&config, step)], Tol { abs: 0.0, rel: 1e-12 });
        assert_eq!((report.step, report.tokens), (step + 1, 16));
        assert_close(&[report.bound().unwrap()], &[loss + kl], Tol { abs: 0.0, rel: 1e-4 });
        let (found, moments) = (learner.weights().expect("weights"), learner.moments());
        for (i, spec) in table.iter().enumerate() {
            let update = |weights: &[f64]| -> Vec<f64> {
                weights.iter().zip(&before[i]).map(|(w, before)| w - before).collect()
            };
            let double: Vec<f64> = found.params[i].iter().map(|x| f64::from(*x)).collect();
            let numbers = |buffer: &Buffer| buffer.to_f64().expect("on the CPU");
            for (what, found, expected, tol) in [
                ("update", update(&double), update(&plain.weights[i]), UPDATE_TOL),
                ("mean", numbers(&moments[i].m), plain.m[i].clone(), TOL),
                ("square", numbers(&moments[i].v), plain.v[i].clone(), TOL),
            ] {
                let distance = relative_frobenius(&found, &expected);
                let name = &spec.name;
                assert!(distance <= tol, "{set:?}: step {step}, {what} of `{name}`: {distance:e}");
            }
        }
        // Both go on from the same weights, so that rounding does not accumulate.
        plain.weights = found
            .params
            .iter()
            .map(|values| values.iter().map(|x| f64::from(*x)).collect())
            .collect();
        last = Some(report);
    }
    last.expect("five steps")
}

#[test]
fn a_step_with_a_clip_that_bites_is_the_plain_one() {
    check(&["train.clip=0.1"], STANDARD, |norm| norm > 0.1);
}

#[test]
fn a_step_without_clipping_is_the_plain_one() {
    check(&["train.clip=inf", "infer.kl_warmup=0.6"], STANDARD, |_| true);
}

#[test]
fn a_step_along_the_trajectory_is_the_plain_one() {
    check(&["train.slow_gradient=trajectory"], STANDARD, |_| true);
}

/// A second loss on what follows a prefix: read by a fit, by an encoder, and by an encoder and a fit.
#[test]
fn a_step_that_reads_on_is_the_plain_one() {
    let reads = ["train.prefix_weight=0.7", "train.prefix_block=3"];
    let encoder =
        ["model.encoder_width=12", "infer.start=encoder", "infer.noise=fresh", "train.clip=inf"];
    check(&reads, STANDARD, |_| true);
    check(&[&encoder[..], &["infer.steps=0"]].concat(), STANDARD, |_| true);
    check(&[&encoder[..], &reads, &["infer.steps=0"]].concat(), STANDARD, |_| true);
    check(&[&encoder[..], &reads, &["infer.steps=2"]].concat(), STANDARD, |_| true);
}

/// The fit minimises the divergence from the learner's own prior, the report counts it, and along the trajectory the
/// weights follow its latents.
#[test]
fn a_step_under_a_prior_of_ones_own_is_the_plain_one() {
    let own = Normal { mean: 0.8, std: 0.5 };
    for set in [&[][..], &["train.slow_gradient=trajectory"]] {
        let found = check(set, own, |_| true);
        let standard = check(set, STANDARD, |_| true);
        let kl = |report: StepReport| report.kl.expect("a density");
        assert!((kl(found) / kl(standard) - 1.0).abs() > 0.1, "{found:?} as under {standard:?}");
        assert_ne!(found.loss, standard.loss);
    }
}

#[test]
fn a_failed_call_changes_nothing() {
    let config = config(&[]);
    let mut learner = SlowLearner::new(&config, &weights(&config)).expect("a learner");
    learner.step(&config, &micro_batches(0), 0).expect("a step");
    let state = |learner: &SlowLearner| {
        let moments = learner.moments().iter();
        let moments: Vec<_> = moments
            .map(|one| (one.m.to_f32().unwrap(), one.v.to_f32().unwrap(), one.step))
            .collect();
        (learner.weights().unwrap(), moments)
    };
    let before = state(&learner);
    let padding = [batch(0, [0, 0]), batch(3, [0, 0])];
    for (batches, part) in [(&[][..], "0 without"), (&padding, "2 without")] {
        let error = learner.step(&config, batches, 1).expect_err("nothing to learn from");
        let text = error.to_string();
        assert!(text.contains("`batches`") && text.contains(part), "{text}");
    }
    let mut foreign = micro_batches(1);
    foreign[1].tokens[0] = 100_000;
    assert!(learner.step(&config, &foreign, 1).is_err());
    let mut short = micro_batches(1);
    short[1].targets.pop();
    assert!(learner.step(&config, &short, 1).is_err());
    let table = param_table(&config.model);
    let zeros = |spec: &ltm_model::ParamSpec| {
        AdamWState::new(&Device::Cpu, DType::F32, spec.len()).expect("memory")
    };
    let mut moments: Vec<_> = table.iter().map(zeros).collect();
    moments[table.len() - 1].m = Buffer::from_vec(vec![0.0_f32; 3]);
    match learner.set_moments(moments) {
        Err(Error::Field { field, expected, .. }) => {
            assert!(field == "optimizer" && expected.contains("norm.weight"), "{expected}");
        }
        other => panic!("{other:?}"),
    }
    assert!(learner.set_moments(Vec::new()).is_err());
    assert!(state(&learner) == before, "a failed call changed weights or optimiser");
}

/// Step `s` of a run reads micro-batches `s · micro_batches` and those after it, each once.
#[test]
fn micro_batches_do_not_overlap_between_steps() {
    let temp = tempfile::tempdir().expect("a temporary folder");
    let dir = format!("run.dir='{}'", temp.path().join("run").display());
    let set = [dir.as_str(), "train.steps=3", "train.micro_batches=2", "train.eval_every=0"];
    let mut config = config(&set);
    config.train.eval_sequences = 1;
    config.train.checkpoint_every = 3;
    let mut run = Run::new(config.clone(), Start::Fresh).expect("a run");
    let end = run.run(&mut ()).expect("trained");
    let trained = Checkpoint::load(&end.checkpoint).expect("saved").weights;

    let start = Weights::init(&config.model, config.run.seed).expect("a good model");
    let mut learner = SlowLearner::new(&config, &start).expect("a learner");
    let data = run_data::open(&config, Split::Train).expect("the run's data");
    let mut reports: Vec<StepReport> = Vec::new();
    for step in 0..3 {
        let batches = [2 * step, 2 * step + 1].map(|index| data.batch(index).expect("a batch"));
        reports.push(learner.step(&config, &batches, step).expect("a step"));
    }
    assert!(learner.weights().expect("weights") == trained);
    assert_ne!(reports[0].loss, reports[1].loss);
}

/// The weight of the KL falls while the KL is below its target, and rises to 1 while it is above.
#[test]
fn the_weight_of_the_kl_follows_its_target() {
    let balance = |set: &[&str]| {
        let config = config(set);
        let mut learner = SlowLearner::new(&config, &weights(&config)).expect("a learner");
        (0..3)
            .map(|step| {
                learner.step(&config, &micro_batches(step), step).expect("a step");
                f64::from(learner.kl_balance())
            })
            .collect::<Vec<_>>()
    };
    let low = balance(&["infer.kl_target=1e6"]);
    for (step, found) in (1..).zip(&low) {
        assert_close(&[*found], &[(-0.01 * f64::from(step)).exp()], Tol { abs: 0.0, rel: 1e-4 });
    }
    assert_eq!(balance(&["infer.kl_target=1e-3"]), [1.0; 3]);
    assert_eq!(balance(&[]), [1.0; 3]);
    let config = config(&["infer.kl_target=1e6"]);
    let mut learner = SlowLearner::new(&config, &weights(&config)).expect("a learner");
    assert!(learner.set_kl_balance(0.0).is_err() && learner.set_kl_balance(f32::NAN).is_err());
    learner.set_kl_balance(0.5).expect("in range");
    // The weight counts: another step than with the whole KL.
    let mut whole = SlowLearner::new(&config, &weights(&config)).expect("a learner");
    for learner in [&mut learner, &mut whole] {
        learner.step(&config, &micro_batches(0), 0).expect("a step");
    }
    assert_ne!(learner.weights().expect("weights"), whole.weights().expect("weights"));
}
