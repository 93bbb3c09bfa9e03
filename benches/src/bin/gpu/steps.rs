//! Whole steps of the published models on a CUDA device: the fast step, the slow step, and a training step of both.
//! Knows programs, no kernel.

use anyhow::{Context as _, Result, bail, ensure};
use clap::Args;
use ltm_autodiff::{AdamWState, Precision};
use ltm_bench::{note, tokens};
use ltm_kernels::cuda::Context;
use ltm_kernels::ops::adamw::AdamW;
use ltm_kernels::ops::elementwise;
use ltm_kernels::{Buffer, Cost, Device, Error};
use ltm_model::{DeviceWeights, ModelConfig, Weights, param_table};
use ltm_testkit::relative_frobenius;
use ltm_train::step::{clip_scale, global_norm};
use ltm_vi::{Batch, InferConfig, InferKey, Inference, Latents, Program, Sequences, SlowGradient};

use crate::bench::{Bench, Measured};
use crate::clock::{Often, Sample, quantiles, times};
use crate::record::{Record, Step, StepTimes, rounded};

/// How the steps are run.
#[derive(Args)]
pub struct Options {
    /// Compare a toy model's steps with the CPU's and time nothing: what a simulator can do
    #[arg(long)]
    once: bool,
    /// Only this model: ltm-small, ltm-medium or ltm-large
    #[arg(long)]
    model: Option<String>,
    /// Only this precision: mixed or f32
    #[arg(long)]
    precision: Option<String>,
    #[command(flatten)]
    measured: Measured,
}

/// Names and precisions of plans, and how far a toy model's steps may be from the CPU's.
///
/// A fit divides gradients by their size, so that in f32 roundings of 1e-7 grow from step to step. With bf16
/// activations about 100 roundings of 1/256 enter a gradient, which add in quadrature.
const PRECISIONS: &[(&str, Precision, f64)] =
    &[("mixed", Precision::MIXED, 10.0 / 256.0), ("f32", Precision::F32, 1e-4)];

/// Sequences and tokens of a batch.
const BATCH: [usize; 2] = [16, 1024];
const TOY_BATCH: [usize; 2] = [2, 5];

const TOY: ModelConfig = ModelConfig {
    dim: 16,
    n_layers: 2,
    n_heads: 2,
    n_kv_heads: 1,
    vocab_size: 61,
    max_seq_len: 6,
    window: 3,
    n_latents: 4,
    ffn_hidden: 32,
    norm_eps: 1e-5,
    rope_theta: 10_000.0,
    attention: ltm_model::Attention::Causal,
    encoder_width: 0,
    init_std: 0.02,
    prior_layers: 0,
    map_layers: 0,
};

const ADAMW: AdamW = AdamW { lr: 4e-4, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

/// The first call compiles and records.
const OFTEN: Often = Often { warm_up: 1, samples: 20, most_ms: 20_000.0, least_samples: 3 };

/// Runs the steps and prints one line for each.
pub fn run(options: &Options) -> Result<()> {
    let device = Device::cuda(0)?;
    if options.once {
        return check(&device);
    }
    let Device::Cuda(context) = device else { bail!("expected a CUDA device, found {device}") };
    let models = [
        ("ltm-small", ModelConfig::ltm_small()),
        ("ltm-medium", ModelConfig::ltm_medium()),
        ("ltm-large", ModelConfig::ltm_large()),
    ];
    let chosen =
        |wanted: &Option<String>, name: &str| wanted.as_deref().is_none_or(|wanted| wanted == name);
    let models: Vec<_> =
        models.into_iter().filter(|(name, _)| chosen(&options.model, name)).collect();
    let precisions: Vec<_> =
        PRECISIONS.iter().filter(|(name, ..)| chosen(&options.precision, name)).collect();
    ensure!(
        !models.is_empty(),
        "expected ltm-small, ltm-medium or ltm-large, found {:?}",
        options.model
    );
    ensure!(!precisions.is_empty(), "expected mixed or f32, found {:?}", options.precision);
    let bench = Bench::new(&device, &options.measured)?;
    for (name, precision, _) in precisions {
        for (model, config) in &models {
            let timed = Learner::new(config, BATCH, &device, *precision)
                .and_then(|learner| time(learner, context));
            match timed {
                Ok(timed) => timed
                    .iter()
                    .try_for_each(|step| Record::Step(line(model, name, step, &bench)).print())?,
                // A model that does not fit this device does not stop the others.
                Err(error) if is_out_of_memory(&error) => {
                    note!("{model} {name}: not run: {error:#}");
                }
                Err(error) => return Err(error.context(format!("{model} {name}"))),
            }
        }
    }
    Ok(())
}

fn is_out_of_memory(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| matches!(cause.downcast_ref(), Some(Error::OutOfMemory { .. })))
}

/// A model that learns: what a training run does between two batches.
struct Learner {
    program: Program,
    weights: DeviceWeights,
    batch: Batch,
    /// Those of the last fit.
    latents: Latents,
    device: Device,
    token_weight: Vec<f32>,
    /// The gradient, as a run sums it over micro-batches.
    sums: Vec<Buffer>,
    moments: Vec<AdamWState>,
}

impl Learner {
    fn new(
        config: &ModelConfig,
        [b, t]: [usize; 2],
        device: &Device,
        precision: Precision,
    ) -> Result<Self> {
        let program = Program::new(config, b, t, device, precision, SlowGradient::Final)?;
        let weights = DeviceWeights::new(config, &Weights::init(config, 1)?, device, precision)?;
        let ids = |seed| tokens(seed, b * t, config.vocab_size).to_i32();
        let batch = Batch::new(config, b, &ids(1)?, &ids(2)?)?;
        let (mut sums, mut moments) = (Vec::new(), Vec::new());
        for spec in param_table(config) {
            sums.push(Buffer::zeros(device, precision.float, spec.len())?);
            moments.push(AdamWState::new(device, precision.float, spec.len())?);
        }
        let token_weight = vec![1.0 / (b * t) as f32; b * t];
        let (device, latents) = (*device, Latents::None);
        Ok(Self { program, weights, batch, latents, device, token_weight, sums, moments })
    }

    /// Fits the batch in `steps` fast steps; returns the last bound.
    fn fit(&mut self, steps: usize) -> Result<f64> {
        let infer = InferConfig { steps, ..InferConfig::published() };
        let key = InferKey { seed: 1, step: 0, sequences: Sequences::From(0) };
        let mut bound = f64::NAN;
        let mut problem = self.program.problem(&self.weights, &self.batch)?;
        self.latents = Inference::at(&infer, 0.0)?.infer(&mut problem, key, &mut |step| {
            bound = step.bound;
            Ok(())
        })?;
        Ok(bound)
    }

    /// One slow step: gradient, clipping, AdamW on every weight.
    fn slow_step(&mut self) -> Result<()> {
        for sum in &mut self.sums {
            elementwise::fill(&self.device, sum, 0.0)?;
        }
        let mut problem = self.program.problem(&self.weights, &self.batch)?;
        let slow = problem.weight_gradients(&self.latents, &self.token_weight, 1.0)?;
        slow.add_to(&mut self.sums)?;
        let scale = clip_scale(global_norm(&self.sums)?, 1.0);
        for (i, (moments, sum)) in self.moments.iter_mut().zip(&self.sums).enumerate() {
            moments.update(&self.device, self.weights.param_mut(i)?, sum, scale, ADAMW)?;
        }
        Ok(())
    }
}

/// One kind of step, timed.
struct Timed {
    step: &'static str,
    sample: Sample,
    cost: Cost,
    plan_bytes: usize,
}

fn time(mut learner: Learner, context: &'static Context) -> Result<Vec<Timed>> {
    let mut measure = |body: &mut dyn FnMut(&mut Learner) -> Result<()>| -> Result<Vec<f64>> {
        times(OFTEN, || {
            let mut outcome = Ok(());
            let elapsed_ms = context.elapsed_ms(|| {
                outcome = body(&mut learner);
                Ok(())
            })?;
            outcome.map(|()| elapsed_ms)
        })
    };
    let steps = InferConfig::published().steps;
    // The host prepares each fit while the device waits. Two lengths have that in common, and what a longer fit takes
    // more is steps alone.
    let short = measure(&mut |learner| learner.fit(steps).map(drop))?;
    let long = measure(&mut |learner| learner.fit(3 * steps).map(drop))?;
    let one = |(short, long): (&f64, &f64)| (long - short) / (2 * steps) as f64;
    let fast = quantiles(short.iter().zip(&long).map(one).collect());
    let slow = quantiles(measure(&mut Learner::slow_step)?);
    let both = quantiles(measure(&mut |learner| {
        learner.fit(steps)?;
        learner.slow_step()
    })?);
    let [fast_cost, slow_cost] = learner.program.plan_costs();
    let fast_cost = fast_cost.context("the fast loop has run, so it has a plan")?;
    let slow_cost = slow_cost.context("the slow step has run, so it has a plan")?;
    let of_both = Cost {
        flops: steps as u64 * fast_cost.flops + slow_cost.flops,
        bytes: steps as u64 * fast_cost.bytes + slow_cost.bytes,
    };
    let timed = [
        ("fast_step", fast, fast_cost),
        ("slow_step", slow, slow_cost),
        ("fit_and_slow_step", both, of_both),
    ];
    let plan_bytes = learner.program.plan_bytes();
    Ok(timed.map(|(step, sample, cost)| Timed { step, sample, cost, plan_bytes }).into())
}

fn line(model: &str, precision: &str, timed: &Timed, bench: &Bench) -> Step {
    let Timed { step, sample, cost, plan_bytes } = timed;
    let gflop = cost.flops as f64 / 1e9;
    // Of the rate that the device's tensor cores reach, whatever the step computes in.
    let mfu = bench.roofline.bf16_tflop_s.map(|rate| gflop / sample.median / rate);
    Step {
        model: model.into(),
        step: (*step).into(),
        precision: precision.into(),
        batch: BATCH,
        times: Some(StepTimes {
            times: (*sample).into(),
            tokens_s: rounded((BATCH[0] * BATCH[1]) as f64 / sample.median * 1e3, 1.0),
            gflop: rounded(gflop, 1e3),
            mfu: mfu.map(|mfu| rounded(mfu, 1e4)),
            plan_mb: rounded(*plan_bytes as f64 / 1e6, 10.0),
        }),
    }
}

/// A fit, a slow step and another fit of a toy model, against the CPU's.
fn check(device: &Device) -> Result<()> {
    for (name, precision, allowed) in PRECISIONS {
        let run = |device, precision| -> Result<Vec<f64>> {
            let mut learner = Learner::new(&TOY, TOY_BATCH, device, precision)?;
            let first = learner.fit(3)?;
            learner.slow_step()?;
            let second = learner.fit(3)?;
            Ok(vec![first, second, global_norm(&learner.sums)?])
        };
        let distance =
            relative_frobenius(&run(device, *precision)?, &run(&Device::Cpu, Precision::F32)?);
        ensure!(distance <= *allowed, "{name}: off by {distance:.2e} of {allowed:.2e}");
        let (step, model) = ("fit_and_slow_step".into(), "toy".into());
        let precision = (*name).into();
        Record::Step(Step { model, step, precision, batch: TOY_BATCH, times: None }).print()?;
    }
    Ok(())
}
