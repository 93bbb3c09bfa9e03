//! `ltm probe`: interventions on the latents.

use std::process::ExitCode;

use clap::Subcommand;
use ltm_eval::probe::{self, Found, Pair, Place};
use ltm_train::data::Split;
use ltm_train::run_data;

use crate::device_args::CheckpointArgs;
use crate::output::{as_option, number, plus_minus};

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
        Verb::Between(args) => generate_at(&args.texts, |pair| pair.between(args.steps))?,
        Verb::Swap(args) => generate_at(&args.texts, |pair| pair.swapped(args.layer))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn layers(args: LayersArgs) -> anyhow::Result<()> {
    let checkpoint = args.model.load()?;
    let config = &checkpoint.config;
    let val = run_data::open(config, Split::Val)?;
    let weights = config.on_device(&checkpoint.weights)?;
    let bar = crate::progress_bar(0, "batch {pos}/{len}, ETA {eta}");
    let scores = probe::reconstruct(config, &weights, &val, args.sequences, &mut |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let scores = scores?;
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
    let plots = probe::draw(&config.run.dir, &scores)?;
    outln!(
        "{:>6}  {:>18}  {:>20}   {} sequences",
        "layers",
        "accuracy, %",
        "NLL, nats per token",
        scores[0].tokens.len()
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

/// Fits two texts and prints what is generated at places that their latents give.
fn generate_at(
    texts: &Texts,
    places: impl FnOnce(&Pair<'_>) -> ltm_eval::Result<Vec<Place>>,
) -> anyhow::Result<()> {
    let checkpoint = texts.model.load()?;
    let (config, tokenizer) = (&checkpoint.config, &*checkpoint.tokenizer);
    let weights = config.on_device(&checkpoint.weights)?;
    let pair = Pair::fit(config, &weights, tokenizer, [&texts.from, &texts.to], texts.seed);
    let mut pair = pair.map_err(as_option)?;
    let places = places(&pair).map_err(as_option)?;
    if !texts.json {
        outln!(
            "{:<26}  {:>8}  {:>8}  generated, most likely tokens",
            "NLL, nats per token, at",
            "from",
            "to"
        )?;
    }
    for place in &places {
        let found = pair.at(place, texts.max_tokens)?;
        if texts.json {
            outln!("{}", serde_json::to_string(&found)?)?;
            continue;
        }
        let Found { at, nll_from, nll_to, text } = found;
        let [from, to] = [nll_from, nll_to].map(|nats| number(nats, 4));
        outln!("{at:<26}  {from:>8}  {to:>8}  {text}")?;
    }
    Ok(())
}
