//! `ltm parity`: this build compared with recorded values of another implementation.

mod limits;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context, ensure};
use ltm_autodiff::{AdamWState, Precision};
use ltm_kernels::ops::adamw::AdamW;
use ltm_kernels::{Buffer, Device};
use ltm_model::{
    Decoder, DeviceWeights, Forward, ModelConfig, SampleConfig, Tap, Weights, param_table, sample,
};
use ltm_train::step::{clip_scale, global_norm};
use ltm_vi::fit::AdamW as FastAdamW;
use ltm_vi::{
    Batch, Gaussian, InferKey, Inference, Latents, Noise, Posterior, Program, SlowGradient, Start,
};
use safetensors::tensor::{Dtype, SafeTensors};
use serde::Deserialize;

use self::limits::Limits;
use crate::device_args::PrecisionArg;
use crate::output::OutputError;

/// Arguments of `parity`.
#[derive(clap::Args)]
#[command(
    after_help = "Prints the relative error of each quantity and its limit. Exit status 1 if one exceeds its limit.

Example:
  ltm parity crates/ltm-model/tests/fixtures/tiny.safetensors"
)]
pub struct Args {
    /// Safetensors files of recorded values, with hyperparameters in the metadata key `config`
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Device: `cpu`, `cuda` (the first GPU) or `cuda:N`
    #[arg(long, default_value = "cpu")]
    device: String,
    /// Arithmetic precision, which determines the limits
    #[arg(long, value_enum, default_value = "f32")]
    precision: PrecisionArg,
}

/// The metadata `config` of a fixture; other keys are notes.
#[derive(Deserialize)]
struct Recorded {
    dim: usize,
    n_layers: usize,
    n_heads: usize,
    n_kv_heads: usize,
    vocab_size: usize,
    max_seq_len: usize,
    window_size: usize,
    n_latents: usize,
    batch: usize,
    ffn_hidden: usize,
    norm_eps: f64,
    rope_theta: f64,
    fast_betas: [f64; 2],
    fast_eps: f64,
    fast_weight_decay: f64,
    fast_lrs: Vec<f64>,
    #[serde(default)]
    nelbo_trajectory: Vec<f64>,
    slow_lr: f64,
    slow_betas: [f64; 2],
    slow_weight_decay: f64,
    grad_clip: f64,
}

/// A fixture in memory.
struct Fixture {
    config: Recorded,
    floats: HashMap<String, Vec<f32>>,
    ints: HashMap<String, Vec<i32>>,
}

/// One compared quantity.
struct Row {
    name: String,
    error: f64,
    limit: f64,
}

impl Row {
    /// Written so that NaN misses.
    fn misses(&self) -> bool {
        !(self.error <= self.limit)
    }
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let device: Device = args.device.parse()?;
    let precision = match args.precision {
        PrecisionArg::F32 => Precision::F32,
        PrecisionArg::Mixed => Precision::mixed(&device),
    };
    let (mut missed, mut printed) = (0, Ok(()));
    for path in &args.files {
        let fixture = read(path)?;
        let rows =
            compare(&fixture, &device, precision).with_context(|| path.display().to_string())?;
        missed += rows.iter().filter(|row| row.misses()).count();
        // A reader that leaves early does not hide a later miss.
        printed = printed.and_then(|()| print_rows(path, &rows));
    }
    if missed > 0 {
        return Ok(ExitCode::FAILURE);
    }
    printed?;
    Ok(ExitCode::SUCCESS)
}

fn print_rows(path: &Path, rows: &[Row]) -> Result<(), OutputError> {
    outln!("{}\n{:<48}  {:>10}  {:>8}", path.display(), "quantity", "error", "limit")?;
    for row in rows {
        let verdict = if row.misses() { "  EXCEEDED" } else { "" };
        outln!("{:<48}  {:>10.3e}  {:>8.1e}{verdict}", row.name, row.error, row.limit)?;
    }
    let misses = rows.iter().filter(|row| row.misses()).count();
    let worst = rows.iter().map(|row| row.error).fold(0.0, f64::max);
    outln!("{} quantities, {misses} exceed their limit, largest error {worst:.3e}\n", rows.len())
}

fn read(path: &Path) -> anyhow::Result<Fixture> {
    let name = || path.display().to_string();
    let bytes = std::fs::read(path).with_context(name)?;
    let file = SafeTensors::deserialize(&bytes).with_context(name)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).with_context(name)?;
    let config = header.metadata().as_ref().and_then(|map| map.get("config"));
    let config = config
        .with_context(|| format!("{}: expected a metadata key `config`, found none", name()))?;
    let config =
        serde_json::from_str(config).with_context(|| format!("{}: metadata `config`", name()))?;
    let (mut floats, mut ints) = (HashMap::new(), HashMap::new());
    for (key, view) in file.tensors() {
        let (words, _) = view.data().as_chunks::<4>();
        match view.dtype() {
            Dtype::F32 => {
                floats.insert(key, words.iter().map(|w| f32::from_le_bytes(*w)).collect());
            }
            Dtype::I32 => {
                ints.insert(key, words.iter().map(|w| i32::from_le_bytes(*w)).collect());
            }
            other => anyhow::bail!("{}: `{key}` is {other:?}, expected F32 or I32", name()),
        }
    }
    Ok(Fixture { config, floats, ints })
}

impl Fixture {
    fn floats(&self, name: &str) -> anyhow::Result<&[f32]> {
        Ok(self.floats.get(name).with_context(|| format!("tensor `{name}` is missing"))?)
    }

    fn ints(&self, name: &str) -> anyhow::Result<&[i32]> {
        Ok(self.ints.get(name).with_context(|| format!("tensor `{name}` is missing"))?)
    }
}

/// The relative Frobenius error `|found - expected| / |expected|`; infinite for other lengths.
fn frobenius(found: &[f64], expected: &[f64]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let square = |x: f64| x * x;
    let diff: f64 = found.iter().zip(expected).map(|(a, b)| square(a - b)).sum();
    let norm: f64 = expected.iter().map(|b| square(*b)).sum();
    if norm > 0.0 { (diff / norm).sqrt() } else { diff.sqrt() }
}

/// Collects rows; recorded quantities that were not recorded are left out, and those that this build
/// does not know are a miss.
struct Rows<'a> {
    fixture: &'a Fixture,
    limits: Limits,
    rows: Vec<Row>,
}

impl Rows<'_> {
    fn add(&mut self, name: &str, found: &[f64]) {
        if let Some(expected) = self.fixture.floats.get(name) {
            let limit = self.limits.of(name, expected);
            let expected: Vec<f64> = expected.iter().map(|x| f64::from(*x)).collect();
            let error = frobenius(found, &expected);
            self.rows.push(Row { name: name.into(), error, limit });
        }
    }

    fn add_f32(&mut self, name: &str, found: &[f32]) {
        let found: Vec<f64> = found.iter().map(|x| f64::from(*x)).collect();
        self.add(name, &found);
    }
}

fn compare(fixture: &Fixture, device: &Device, precision: Precision) -> anyhow::Result<Vec<Row>> {
    let c = &fixture.config;
    let config = ModelConfig {
        dim: c.dim,
        n_layers: c.n_layers,
        n_heads: c.n_heads,
        n_kv_heads: c.n_kv_heads,
        vocab_size: c.vocab_size,
        max_seq_len: c.max_seq_len,
        window: c.window_size,
        n_latents: c.n_latents,
        ffn_hidden: c.ffn_hidden,
        norm_eps: c.norm_eps,
        rope_theta: c.rope_theta,
        attention: ltm_model::Attention::Causal,
        encoder_layers: 0,
    };
    let (b, tokens, targets) = (c.batch, fixture.ints("tokens")?, fixture.ints("targets")?);
    ensure!(
        b > 0 && tokens.len().is_multiple_of(b),
        "`tokens`: expected a positive multiple of the batch size {b}, found {}",
        tokens.len()
    );
    let t = tokens.len() / b;
    let specs = param_table(&config);
    let params =
        specs.iter().map(|spec| Ok(fixture.floats(&format!("param.{}", spec.name))?.to_vec()));
    let weights = Weights { params: params.collect::<anyhow::Result<_>>()? };
    weights.check(&config)?;
    let start = Posterior {
        mu: fixture.floats("mu0")?.to_vec(),
        log_var: fixture.floats("log_var0")?.to_vec(),
        noise: fixture.floats("eps")?.to_vec(),
    };
    let limits = Limits::new(fixture, precision)?;
    let mut rows = Rows { fixture, limits, rows: Vec::new() };
    let mut weights = DeviceWeights::new(&config, &weights, device, precision)?;
    logits(&mut rows, &config, &weights, &start, precision)?;

    let slow = SlowGradient::Trajectory;
    let mut program = Program::new(&config, b, t, device, precision, slow)?;
    let batch = Batch::new(&config, b, tokens, targets)?;
    let mut problem = program.problem(&weights, &batch)?;
    let q = Arc::new(Gaussian::new(&start, device, precision.float)?);
    let sums = |nll: &[f64]| nll.chunks(t).map(|nll| nll.iter().sum()).collect::<Vec<f64>>();
    let at = problem.gradient(&q, 1.0)?;
    rows.add("grad_mu0", &at.dmu.to_f64()?);
    rows.add("grad_log_var0", &at.dlog_var.to_f64()?);
    rows.add("nll0", &sums(&at.nll));
    rows.add("kl0", &start.kl(b)?);

    // With one noise for all steps, the first steps of a fit are a shorter fit.
    let all = c.fast_lrs.len();
    let recorded = |steps: &usize| {
        let names = ["mu", "log_var"].map(|name| format!("{name}_step{steps}"));
        *steps == all || names.iter().any(|name| fixture.floats.contains_key(name))
    };
    let key = InferKey { seed: 0, step: 0, first_sequence: 0 };
    let (mut bounds, mut latents) = (Vec::new(), Latents::None);
    for steps in (1..=all).filter(recorded) {
        let fit = FastAdamW {
            rates: c.fast_lrs[..steps].to_vec(),
            beta1: c.fast_betas[0],
            beta2: c.fast_betas[1],
            eps: c.fast_eps,
            weight_decay: c.fast_weight_decay,
            noise: Noise::Fixed,
            kl_weight: 1.0,
        };
        bounds.clear();
        latents =
            Inference::new(fit, Start::Given(q.clone())).infer(&mut problem, key, &mut |step| {
                bounds.push(step.bound);
                Ok(())
            })?;
        let posterior = latents.gaussian().context("AdamW fits a posterior")?.to_host()?;
        rows.add_f32(&format!("mu_step{steps}"), &posterior.mu);
        rows.add_f32(&format!("log_var_step{steps}"), &posterior.log_var);
    }
    if !c.nelbo_trajectory.is_empty() {
        let error = frobenius(&bounds, &c.nelbo_trajectory);
        let name = "nelbo_trajectory";
        let limit = rows.limits.of(name, &[]);
        rows.rows.push(Row { name: name.into(), error, limit });
    }
    let posterior = match &latents {
        Latents::Gaussian(fitted) => fitted.to_host()?,
        Latents::None | Latents::Sample(_) => {
            latents = Gaussian::new(&start, device, precision.float)?.into();
            start
        }
    };
    let z = posterior.sample()?;
    rows.add_f32("z_final", &z);
    let nll = sums(&problem.token_nll(&latents)?);
    let nelbo: Vec<f64> = nll.iter().zip(posterior.kl(b)?).map(|(nll, kl)| nll + kl).collect();
    rows.add("final_nelbo", &[nelbo.iter().sum()]);
    let perplexity = nelbo.iter().map(|nelbo| (nelbo / t as f64).exp()).sum::<f64>() / b as f64;
    rows.add("final_ppl_mean", &[perplexity]);

    let scored: usize = batch.scored_tokens().iter().sum();
    let share = 1.0 / scored.max(1) as f64;
    let slow = problem.weight_gradients(&latents, &vec![share as f32; b * t], 1.0)?;
    rows.add("slow_loss", &[slow.nll.iter().sum::<f64>() * share]);
    let gradients: Vec<Buffer> =
        slow.gradients.into_iter().map(Buffer::try_clone).collect::<Result<_, _>>()?;
    for (spec, sum) in specs.iter().zip(program.trajectory_gradients()) {
        rows.add(&format!("fast_leak_grad.{}", spec.name), &sum.to_f64()?);
    }
    for (spec, gradient) in specs.iter().zip(&gradients) {
        rows.add(&format!("slow_grad.{}", spec.name), &gradient.to_f64()?);
    }
    let norm = global_norm(&gradients)?;
    rows.add("slow_grad_norm", &[norm]);
    for (i, (spec, gradient)) in specs.iter().zip(&gradients).enumerate() {
        let options = AdamW {
            lr: c.slow_lr,
            beta1: c.slow_betas[0],
            beta2: c.slow_betas[1],
            eps: 1e-8,
            weight_decay: if spec.decay { c.slow_weight_decay } else { 0.0 },
        };
        let mut state = AdamWState::new(device, precision.float, spec.len())?;
        let scale = clip_scale(norm, c.grad_clip);
        let weight = weights.param_mut(i)?;
        state.update(device, weight, gradient, scale, options)?;
        rows.add(&format!("param_after.{}", spec.name), &weight.to_f64()?);
    }
    greedy(&mut rows, &config, &weights, &z)?;
    let mut rows = rows.rows;
    rows.extend(unknown(fixture, &rows));
    Ok(rows)
}

/// Logits of all positions at the sample of the start.
fn logits(
    rows: &mut Rows<'_>,
    config: &ModelConfig,
    weights: &DeviceWeights,
    start: &Posterior,
    precision: Precision,
) -> anyhow::Result<()> {
    let tokens = rows.fixture.ints("tokens")?;
    let b = rows.fixture.config.batch;
    let taps = [Tap::Logits(config.n_layers)];
    let mut forward = Forward::new(*config, weights.clone(), precision, &taps)?;
    let logits = forward.run(b, tokens, &start.sample()?)?.remove(0);
    let logits: Vec<f64> = logits.into_iter().map(f64::from).collect();
    rows.add("logits", &logits);
    Ok(())
}

/// Greedy decoding from the first quarter of the tokens, which must be the same to the last token.
fn greedy(
    rows: &mut Rows<'_>,
    config: &ModelConfig,
    weights: &DeviceWeights,
    z: &[f32],
) -> anyhow::Result<()> {
    let Some(expected) = rows.fixture.ints.get("greedy_after") else { return Ok(()) };
    let b = rows.fixture.config.batch;
    let tokens = rows.fixture.ints("tokens")?;
    let (t, len) = (tokens.len() / b, expected.len() / b);
    let prompt_len = (t / 4).max(1);
    let mut found: Vec<Vec<i32>> =
        tokens.chunks(t).map(|row| row[..prompt_len.min(len)].to_vec()).collect();
    let mut decoder = Decoder::with_weights(*config, weights.clone(), b)?;
    decoder.set_latents(z)?;
    decoder.prefill(&found.concat())?;
    while found[0].len() < len {
        let logits = decoder.logits().context("the prompt was read")?;
        let next = logits
            .chunks(config.vocab_size)
            .map(|logits| Ok(sample(logits, &SampleConfig::GREEDY, 0.0)? as i32))
            .collect::<anyhow::Result<Vec<_>>>()?;
        for (row, token) in found.iter_mut().zip(&next) {
            row.push(*token);
        }
        if found[0].len() < len {
            decoder.step(&next)?;
        }
    }
    let wrong = found.concat().iter().zip(expected).filter(|(a, b)| a != b).count();
    rows.rows.push(Row {
        name: "greedy_after (tokens wrong)".into(),
        error: wrong as f64,
        limit: 0.0,
    });
    Ok(())
}

/// Recorded tensors that were neither read nor compared: a miss each, so that nothing passes unseen.
fn unknown(fixture: &Fixture, rows: &[Row]) -> Vec<Row> {
    let read = |name: &str| {
        ["mu0", "log_var0", "eps"].contains(&name)
            || name.starts_with("param.")
            || rows.iter().any(|row| row.name == name)
    };
    let mut names: Vec<&String> = fixture.floats.keys().filter(|name| !read(name)).collect();
    names.sort();
    let row =
        |name: &String| Row { name: format!("{name} (unknown)"), error: f64::NAN, limit: 0.0 };
    names.into_iter().map(row).collect()
}
