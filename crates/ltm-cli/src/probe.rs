//! `ltm probe`: interventions on the latents.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Subcommand;
use ltm_eval::charts::{Axis, Chart, Mark, PLOTS, Series};
use ltm_model::Decoder;
use ltm_train::data::Split;
use ltm_train::{Checkpoint, run_data};
use ltm_vi::probe::{
    LayerReconstruction, Thought, between, decode_greedily, progressive, swap_layer,
};
use ltm_vi::{Batch, InferKey, Inference, Program, SlowGradient};

use crate::device_args::CheckpointArgs;
use crate::output::{number, plus_minus, usage};

/// The verbs of `probe`.
#[derive(Subcommand)]
pub enum Verb {
    /// Reconstruct validation texts from the latents of the first 0, 1, … layers: accuracy and NLL per layer
    ///
    /// Latents are the means of the fitted posterior; those of later layers are set to 0, the mean of the prior. Each
    /// token is predicted from the true tokens before it and counts as correct when it is the most likely one. Two
    /// charts are written to the run's folder.
    Layers(LayersArgs),
    /// Interpolate between the latents of two texts and generate from each point
    Between(BetweenArgs),
    /// Exchange the latents of two texts, one layer at a time, and generate from each exchange
    Swap(SwapArgs),
}

/// Arguments of `layers`.
#[derive(clap::Args)]
pub struct LayersArgs {
    #[command(flatten)]
    model: CheckpointArgs,
    /// Number of validation sequences; 0 uses all
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    sequences: u64,
    /// Print one JSON object per number of layers
    #[arg(long)]
    json: bool,
}

/// Two texts and a model.
#[derive(clap::Args)]
pub struct Texts {
    #[command(flatten)]
    model: CheckpointArgs,
    /// First text
    #[arg(long, value_name = "TEXT")]
    from: String,
    /// Second text
    #[arg(long, value_name = "TEXT")]
    to: String,
    /// Maximum number of tokens to generate at each point
    #[arg(long, value_name = "COUNT", default_value_t = 64)]
    max_tokens: usize,
    /// Seed of the two fits
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object per point
    #[arg(long)]
    json: bool,
}

/// Arguments of `between`.
#[derive(clap::Args)]
pub struct BetweenArgs {
    #[command(flatten)]
    texts: Texts,
    /// Number of points, both ends included; at least 2
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    steps: usize,
}

/// Arguments of `swap`.
#[derive(clap::Args)]
pub struct SwapArgs {
    #[command(flatten)]
    texts: Texts,
    /// Exchange only this layer, counted from 1 [default: each layer in turn]
    #[arg(long)]
    layer: Option<usize>,
}

pub fn run(verb: Verb) -> anyhow::Result<ExitCode> {
    match verb {
        Verb::Layers(args) => layers(args)?,
        Verb::Between(args) => {
            if args.steps < 2 {
                return Err(usage(format!("--steps: expected at least 2, found {}", args.steps)));
            }
            let last = args.steps - 1;
            let mut pair = Pair::new(&args.texts)?;
            for step in 0..args.steps {
                let share = step as f32 / last as f32;
                let z = between(&pair.from.z, &pair.to.z, share)?;
                pair.show(&args.texts, &format!("{:.0} %", 100.0 * share), &z)?;
            }
        }
        Verb::Swap(args) => {
            let mut pair = Pair::new(&args.texts)?;
            let n_layers = pair.checkpoint.config.model.n_layers;
            let layers = match args.layer {
                Some(layer) => {
                    if !(1..=n_layers).contains(&layer) {
                        let expected = format!("--layer: expected 1 to {n_layers}, found {layer}");
                        return Err(usage(expected));
                    }
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
    let checkpoint = args.model.load()?;
    let config = &checkpoint.config;
    let model = &config.model;
    anyhow::ensure!(
        model.n_latents > 0,
        "the model has no latents: train one with model.n_latents > 0"
    );
    let val = run_data::open(config, Split::Val)?;
    let (device, precision) = config.run.compute()?;
    let (b, t) = (config.train.batch, config.train.seq_len);
    let weights = config.on_device(&checkpoint.weights)?;
    let inference = Inference::finished(&config.infer)?;
    let mut program = Program::new(model, b, t, &device, precision, SlowGradient::None)?;
    let mut decoder = Decoder::with_weights(*model, weights.clone(), b)?;
    let rows = if args.sequences == 0 { val.rows() } else { args.sequences.min(val.rows()) };
    let batches = rows.div_ceil(b as u64);
    let bar = crate::progress_bar(batches, "batch {pos}/{len}, ETA {eta}");
    let mut scores = vec![LayerReconstruction::default(); model.n_layers + 1];
    for index in 0..batches {
        let mut batch = val.batch(index)?;
        let first_sequence = index * b as u64;
        // The last batch may reach past the rows asked for.
        let kept = (rows - first_sequence).min(b as u64) as usize * t;
        batch.targets[kept..].fill(-1);
        let key = InferKey { seed: config.run.seed, step: u64::MAX, first_sequence };
        let batch = Batch::new(model, b, &batch.tokens, &batch.targets)?;
        let mut problem = program.problem(&weights, &batch)?;
        let mu = inference.infer(&mut problem, key, &mut |_| Ok(()))?.center()?;
        let found = progressive(&mut problem, model, &mut decoder, &mu)?;
        scores.iter_mut().zip(found).for_each(|(scores, found)| scores.extend(found));
        bar.inc(1);
    }
    bar.finish_and_clear();
    if args.json {
        for (layers, scores) in scores.iter().enumerate() {
            let ((nats, nats_error), (share, share_error)) =
                (scores.nats_per_token()?, scores.accuracy()?);
            let line = serde_json::json!({
                "layers": layers, "nats_per_token": nats, "nats_error": nats_error,
                "accuracy": share, "accuracy_error": share_error, "sequences": scores.tokens.len(),
            });
            outln!("{line}")?;
        }
        return Ok(());
    }
    // Before anything is printed: a reader that leaves ends the command.
    let plots = draw(&config.run.dir, &scores)?;
    outln!(
        "{:>6}  {:>18}  {:>20}   {rows} sequences",
        "layers",
        "accuracy, %",
        "NLL, nats per token"
    )?;
    for (layers, scores) in scores.iter().enumerate() {
        let ((nats, nats_error), (share, share_error)) =
            (scores.nats_per_token()?, scores.accuracy()?);
        let share = plus_minus((100.0 * share, 100.0 * share_error), 2);
        outln!("{layers:>6}  {share:>18}  {:>20}", plus_minus((nats, nats_error), 4))?;
    }
    for path in plots {
        outln!("plot    {}", path.display())?;
    }
    Ok(())
}

/// Two charts over the number of layers, in the run's folder.
fn draw(run_dir: &Path, scores: &[LayerReconstruction]) -> anyhow::Result<Vec<PathBuf>> {
    let dir = run_dir.join(PLOTS);
    std::fs::create_dir_all(&dir)?;
    let mut paths = Vec::new();
    for (file, y_label, scale, of) in [
        (
            "layers-accuracy.svg",
            "accuracy, %",
            100.0,
            LayerReconstruction::accuracy as fn(&LayerReconstruction) -> ltm_vi::Result<(f64, f64)>,
        ),
        ("layers-nll.svg", "NLL, nats per token", 1.0, LayerReconstruction::nats_per_token),
    ] {
        let mark = |(layers, scores): (usize, &LayerReconstruction)| -> ltm_vi::Result<Mark> {
            let (y, error) = of(scores)?;
            Ok(Mark { x: layers as f64, y: scale * y, error: scale * error })
        };
        let marks = scores.iter().enumerate().map(mark).collect::<ltm_vi::Result<_>>()?;
        let chart = Chart {
            title: "Progressive reconstruction".into(),
            x_label: "layers whose latents are used".into(),
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

/// Two texts with their latents, and a decoder.
struct Pair {
    checkpoint: Checkpoint,
    from: Thought,
    to: Thought,
    decoder: Decoder,
    shown: bool,
}

impl Pair {
    fn new(texts: &Texts) -> anyhow::Result<Self> {
        let checkpoint = texts.model.load()?;
        let Checkpoint { config, weights, tokenizer, .. } = &checkpoint;
        let (_, precision) = config.run.compute()?;
        let model = &config.model;
        anyhow::ensure!(
            model.n_latents > 0,
            "the model has no latents: train one with model.n_latents > 0"
        );
        let weights = config.on_device(weights)?;
        let inference = Inference::finished(&config.infer)?;
        let fit = |name: &str, text: &str| -> anyhow::Result<Thought> {
            let tokens = crate::generate::encode(&**tokenizer, text)?;
            let (t, context) = (tokens.len() - 1, model.max_seq_len);
            if t == 0 {
                return Err(usage(format!("{name} is empty: expected at least one token")));
            }
            anyhow::ensure!(
                t <= context,
                "{name} has {t} tokens, more than the context of {context}"
            );
            Ok(Thought::fit(&weights, model, &inference, &tokens, texts.seed, precision)?)
        };
        let (from, to) = (fit("--from", &texts.from)?, fit("--to", &texts.to)?);
        let decoder = Decoder::with_weights(config.model, weights, 1)?;
        Ok(Self { checkpoint, from, to, decoder, shown: false })
    }

    /// The NLL of both texts at `z`, and the text generated there.
    fn show(&mut self, texts: &Texts, name: &str, z: &[f32]) -> anyhow::Result<()> {
        let tokenizer = &*self.checkpoint.tokenizer;
        let separator = tokenizer.separator() as i32;
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
                "{:<26}  {:>8}  {:>8}  generated, most likely tokens",
                "NLL, nats per token, at",
                "from",
                "to"
            )?;
            self.shown = true;
        }
        let [from, to] = [from, to].map(|nats| number(nats, 4));
        outln!("{name:<26}  {from:>8}  {to:>8}  {text}")?;
        Ok(())
    }
}
