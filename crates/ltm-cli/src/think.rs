//! `ltm think`: the posterior of one text, fast step by fast step.

use std::path::PathBuf;
use std::process::ExitCode;

use ltm_eval::text::encode;
use ltm_eval::think::{Fitted, SAMPLES, think};
use ltm_vi::FastStep;

use crate::device_args::CheckpointArgs;
use crate::generate::check_new;
use crate::output::{OutputError, as_option, number};

/// Arguments of `think`.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ltm think runs/quickstart --text \"one sunny morning , tom went to the river\"
  ltm think runs/quickstart --text \"tom went home\" --steps 64 --save posterior.safetensors")]
pub struct Args {
    #[command(flatten)]
    model: CheckpointArgs,
    /// Text to fit the posterior to
    #[arg(long)]
    text: String,
    /// Number of fast steps [default: `infer.steps` of the configuration]
    #[arg(long, value_name = "COUNT")]
    steps: Option<usize>,
    /// Write `mu`, `log_var` and a sample `z`, each (latent vectors, width), to this new safetensors file
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Seed of the initial posterior and of the noise
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Print one JSON object per fast step, and one with the bounds at the posterior and at the prior
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.save {
        check_new(path)?;
    }
    let mut checkpoint = args.model.load()?;
    let infer = &mut checkpoint.config.infer;
    infer.steps = args.steps.unwrap_or(infer.steps);
    let config = &checkpoint.config;
    let weights = config.on_device(&checkpoint.weights)?;
    let tokens = encode(&*checkpoint.tokenizer, &args.text)?;
    let all = config.infer.steps as u64;
    let bar = crate::progress_bar(all, "fast step {pos}/{len}, ETA {eta}");
    let mut on_step = |_: &FastStep| {
        bar.inc(1);
        Ok(())
    };
    let fitted = think(config, &weights, &tokens, args.seed, &mut on_step);
    bar.finish_and_clear();
    let fitted = fitted.map_err(as_option)?;
    if let Some(path) = &args.save {
        fitted.save(path, &config.model)?;
        note!("wrote mu, log_var and z to {}", path.display());
    }
    if args.json {
        for FastStep { step, lr, nll, kl_per_layer, bound } in &fitted.steps {
            let line = serde_json::json!({
                "step": step, "lr": lr, "nll": nll, "kl_per_layer": kl_per_layer, "bound": bound,
            });
            outln!("{line}")?;
        }
        let Fitted { kl, bound, prior_bound, .. } = &fitted;
        let line = serde_json::json!({
            "samples": SAMPLES, "kl": kl, "mean_bound": bound.nats, "prior_bound": prior_bound.nats,
        });
        outln!("{line}")?;
    } else {
        let t = tokens.len() - 1;
        print_table(&fitted.steps, t)?;
        print_plot(&fitted.steps, t)?;
        let Fitted { kl, bound, prior_bound, .. } = &fitted;
        let [bound, prior] = [bound.nats, prior_bound.nats];
        outln!(
            "\nthe latents cost {kl:.2} nats (KL) and save {:.2}: {bound:.2} instead of {prior:.2} at the prior, by \
             {SAMPLES} samples each",
            prior - (bound - kl)
        )?;
    }
    if let Some(nats) = fitted.above_prior() {
        note!(
            "warning: the bound is {nats:.2} nats above that of the prior, so the fit does harm: try a smaller \
             --set infer.lr, or train the model for longer"
        );
    }
    Ok(ExitCode::SUCCESS)
}

/// Nats per token, one row per step; the last row is the fitted posterior.
fn print_table(steps: &[FastStep], t: usize) -> Result<(), OutputError> {
    let n_layers = steps.first().map_or(0, |step| step.kl_per_layer.len());
    let layers: String =
        (1..=n_layers).map(|layer| format!("  {:>8}", format!("KL {layer}"))).collect();
    outln!(
        "{:>4}  {:>8}  {:>9}  {:>9}{layers}   nats per token, {t} tokens",
        "step",
        "rate",
        "bound",
        "nll"
    )?;
    let per_token = 1.0 / t as f64;
    for step in steps {
        let (bound, nll) = (step.bound * per_token, step.nll * per_token);
        let layers: String = step
            .kl_per_layer
            .iter()
            .map(|kl| format!("  {:>8}", number(kl * per_token, 4)))
            .collect();
        let [bound, nll] = [bound, nll].map(|nats| number(nats, 4));
        outln!("{:>4}  {:>8.4}  {bound:>9}  {nll:>9}{layers}", step.step, step.lr)?;
    }
    Ok(())
}

/// The ELBO over the steps, drawn with characters.
fn print_plot(steps: &[FastStep], t: usize) -> Result<(), OutputError> {
    const HEIGHT: usize = 10;
    const WIDTH: usize = 64;
    let bounds: Vec<f64> = steps.iter().map(|step| step.bound / t as f64).collect();
    let (min, max) = bounds
        .iter()
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), b| (min.min(*b), max.max(*b)));
    if !(min < max) {
        return Ok(());
    }
    let columns = WIDTH.min(4 * bounds.len());
    let mut rows = vec![vec![' '; columns]; HEIGHT];
    for column in 0..columns {
        let bound = bounds[column * bounds.len() / columns];
        let height = (bound - min) / (max - min) * (HEIGHT - 1) as f64;
        rows[HEIGHT - 1 - height.round() as usize][column] = '•';
    }
    outln!("\nbound, nats per token")?;
    for (row, cells) in rows.iter().enumerate() {
        let value = max - (max - min) * row as f64 / (HEIGHT - 1) as f64;
        outln!("{value:>9.3} ┤{}", cells.iter().collect::<String>().trim_end())?;
    }
    outln!("{:>9} └{}", "", "─".repeat(columns))?;
    outln!("{:>10} step 0 to {}", "", steps.len() - 1)
}
