//! `ltm probe`: what thoughts carry, by changing them.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use ltm_model::Decoder;
use ltm_train::data::Split;
use ltm_train::metrics::{Axis, Chart, Mark, Series};
use ltm_train::{Checkpoint, trainer};
use ltm_vi::probe::{
    LayerReconstruction, Thought, between, decode_greedily, progressive, swap_layer,
};
use ltm_vi::{Engine, InferKey, SlowGradient};

use crate::device_args::DeviceArgs;

/// What to find out.
#[derive(Subcommand)]
pub enum Verb {
    /// Tell validation texts from the thoughts of the first 0, 1, … layers: tokens guessed and nats, by layer
    ///
    /// Thoughts are the means of the fitted posterior; those of the later layers are 0, the prior's mean. A token
    /// counts as guessed when it is the likeliest one, given the true ones before it. Two charts go to the run's
    /// folder.
    Layers(LayersArgs),
    /// Walk from one text's thought to another's, and write what each point on the way says
    Between(BetweenArgs),
    /// Exchange the thoughts of one layer after the other between two texts
    Swap(SwapArgs),
}

/// Arguments of `layers`.
#[derive(clap::Args)]
pub struct LayersArgs {
    /// A run's folder (its newest checkpoint) or a checkpoint's
    checkpoint: PathBuf,
    /// Validation sequences; 0 for all
    #[arg(long, default_value_t = 64)]
    sequences: u64,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Two texts and a model.
#[derive(clap::Args)]
pub struct Texts {
    /// A run's folder (its newest checkpoint) or a checkpoint's
    checkpoint: PathBuf,
    /// The first text
    #[arg(long)]
    from: String,
    /// The second text
    #[arg(long)]
    to: String,
    /// The most tokens to write at each point
    #[arg(long, default_value_t = 64)]
    max_tokens: usize,
    /// Seed of the fits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print JSON, a line a point
    #[arg(long)]
    json: bool,
}

/// Arguments of `between`.
#[derive(clap::Args)]
pub struct BetweenArgs {
    #[command(flatten)]
    texts: Texts,
    /// Points on the way, both ends included
    #[arg(long, default_value_t = 5)]
    steps: usize,
}

/// Arguments of `swap`.
#[derive(clap::Args)]
pub struct SwapArgs {
    #[command(flatten)]
    texts: Texts,
    /// Only this layer, from 1; each in turn when left out
    #[arg(long)]
    layer: Option<usize>,
}

pub fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Layers(args) => layers(args)?,
        Verb::Between(args) => {
            anyhow::ensure!(args.steps >= 2, "--steps is {}: both ends make 2", args.steps);
            let last = args.steps - 1;
            let mut pair = Pair::new(&args.texts)?;
            for step in 0..args.steps {
                let share = step as f32 / last as f32;
                let z = between(&pair.from.z, &pair.to.z, share);
                pair.show(&args.texts, &format!("{:.0} %", 100.0 * share), &z)?;
            }
        }
        Verb::Swap(args) => {
            let mut pair = Pair::new(&args.texts)?;
            let n_layers = pair.checkpoint.config.model.n_layers;
            let layers = match args.layer {
                Some(layer) => {
                    let known = (1..=n_layers).contains(&layer);
                    anyhow::ensure!(known, "--layer is {layer}, the model has 1 to {n_layers}");
                    layer..layer + 1
                }
                None => 1..n_layers + 1,
            };
            let (from, to) = (pair.from.z.clone(), pair.to.z.clone());
            pair.show(&args.texts, "from", &from)?;
            pair.show(&args.texts, "to", &to)?;
            let model = pair.checkpoint.config.model;
            for layer in layers {
                for (name, own, other) in [("from", &from, &to), ("to", &to, &from)] {
                    let z = swap_layer(&model, own, other, layer - 1)?;
                    pair.show(&args.texts, &format!("{name}, layer {layer} of the other"), &z)?;
                }
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn layers(args: LayersArgs) -> anyhow::Result<()> {
    let mut checkpoint = Checkpoint::load(&args.checkpoint)?;
    args.device.apply(&mut checkpoint.config.run);
    let config = &checkpoint.config;
    let model = &config.model;
    anyhow::ensure!(model.n_latents > 0, "the model has no latents to probe");
    let val = trainer::open(config, Split::Val)?;
    let (device, precision) = config.run.compute()?;
    let (b, t) = (config.train.batch, config.train.seq_len);
    let mut engine = Engine::new(model, b, t, &device, precision, SlowGradient::None)?;
    engine.set_weights(&checkpoint.weights)?;
    let mut decoder = Decoder::new(*model, &checkpoint.weights, device, b)?;
    let rows = if args.sequences == 0 { val.rows() } else { args.sequences.min(val.rows()) };
    let batches = rows.div_ceil(b as u64);
    let bar = crate::progress_bar(batches, "batch {pos}/{len} ETA {eta}");
    let mut scores = vec![LayerReconstruction::default(); model.n_layers + 1];
    for index in 0..batches {
        let mut batch = val.batch(index)?;
        let first_sequence = index * b as u64;
        // The last batch may reach past the rows asked for.
        let kept = (rows - first_sequence).min(b as u64) as usize * t;
        batch.targets[kept..].fill(-1);
        let key = InferKey { seed: config.run.seed, step: u64::MAX, first_sequence };
        engine.set_batch(&batch.tokens, &batch.targets)?;
        engine.infer(&config.infer, 1.0, key, &mut |_| Ok(()))?;
        let found = progressive(&mut engine, &mut decoder, &batch.tokens, &batch.targets)?;
        scores.iter_mut().zip(found).for_each(|(scores, found)| scores.extend(found));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.json {
        for (layers, scores) in scores.iter().enumerate() {
            let ((nats, nats_error), (share, share_error)) =
                (scores.nats_per_token(), scores.accuracy());
            let line = serde_json::json!({
                "layers": layers, "nats_per_token": nats, "nats_error": nats_error,
                "accuracy": share, "accuracy_error": share_error, "sequences": scores.tokens.len(),
            });
            outln!("{line}")?;
        }
        return Ok(());
    }
    outln!(
        "{:>6}  {:>18}  {:>20}   {rows} sequences",
        "layers",
        "tokens guessed, %",
        "NLL, nats per token"
    )?;
    for (layers, scores) in scores.iter().enumerate() {
        let ((nats, nats_error), (share, share_error)) =
            (scores.nats_per_token(), scores.accuracy());
        let share = format!("{:.2} ± {:.2}", 100.0 * share, 100.0 * share_error);
        outln!("{layers:>6}  {share:>18}  {:>20}", format!("{nats:.4} ± {nats_error:.4}"))?;
    }
    for path in draw(&config.run.dir, &scores)? {
        outln!("plot    {}", path.display())?;
    }
    Ok(())
}

/// Two charts over the number of layers, in the run's folder.
fn draw(run_dir: &Path, scores: &[LayerReconstruction]) -> anyhow::Result<Vec<PathBuf>> {
    let dir = run_dir.join(trainer::PLOTS);
    std::fs::create_dir_all(&dir)?;
    let mut paths = Vec::new();
    for (file, y_label, scale, of) in [
        (
            "layers-accuracy.svg",
            "tokens guessed, %",
            100.0,
            LayerReconstruction::accuracy as fn(&LayerReconstruction) -> (f64, f64),
        ),
        ("layers-nll.svg", "NLL, nats per token", 1.0, LayerReconstruction::nats_per_token),
    ] {
        let mark = |(layers, scores): (usize, &LayerReconstruction)| {
            let (y, error) = of(scores);
            Mark { x: layers as f64, y: scale * y, error: scale * error }
        };
        let marks = scores.iter().enumerate().map(mark).collect();
        let chart = Chart {
            title: "Progressive reconstruction".into(),
            x_label: "layers whose thoughts are given".into(),
            y_label: y_label.into(),
            axis: Axis::Values((0..scores.len()).map(|layers| layers as f64).collect()),
            series: vec![Series { name: "validation".into(), marks, dots: true }],
            levels: Vec::new(),
            size: (540, 360),
        };
        let path = dir.join(file);
        chart.write(&path)?;
        paths.push(path);
    }
    Ok(paths)
}

/// Two texts with their thoughts, and a decoder for what lies between.
struct Pair {
    checkpoint: Checkpoint,
    from: Thought,
    to: Thought,
    decoder: Decoder,
    shown: bool,
}

impl Pair {
    fn new(texts: &Texts) -> anyhow::Result<Self> {
        let mut checkpoint = Checkpoint::load(&texts.checkpoint)?;
        texts.device.apply(&mut checkpoint.config.run);
        let Checkpoint { config, weights, state, .. } = &checkpoint;
        let (device, precision) = config.run.compute()?;
        let fit = |text: &str| -> anyhow::Result<Thought> {
            let tokens = crate::generate::encode(&state.tokenizer, text)?;
            let (model, infer) = (&config.model, &config.infer);
            Ok(Thought::fit(weights, model, infer, &tokens, texts.seed, &device, precision)?)
        };
        let (from, to) = (fit(&texts.from)?, fit(&texts.to)?);
        let decoder = Decoder::new(config.model, weights, device, 1)?;
        Ok(Self { checkpoint, from, to, decoder, shown: false })
    }

    /// Both texts' nats at `z`, and what is written from there.
    fn show(&mut self, texts: &Texts, name: &str, z: &[f32]) -> anyhow::Result<()> {
        let tokenizer = &self.checkpoint.state.tokenizer;
        let separator = i32::from(tokenizer.separator());
        let context = self.checkpoint.config.model.max_seq_len;
        let from = self.from.nats_per_token_at(z)?;
        let to = self.to.nats_per_token_at(z)?;
        let tokens = decode_greedily(
            &mut self.decoder,
            context,
            z,
            &[separator],
            texts.max_tokens,
            separator,
        )?;
        let text = crate::generate::decode(tokenizer, &tokens);
        if texts.json {
            let line =
                serde_json::json!({ "at": name, "nll_from": from, "nll_to": to, "text": text });
            outln!("{line}")?;
            return Ok(());
        }
        if !self.shown {
            outln!(
                "{:<26}  {:>8}  {:>8}  written greedily",
                "NLL, nats per token, at",
                "from",
                "to"
            )?;
            self.shown = true;
        }
        outln!("{name:<26}  {from:>8.4}  {to:>8.4}  {text}")?;
        Ok(())
    }
}
