//! `ltm think`: the posterior of one text, fast step by fast step.

use std::path::PathBuf;
use std::process::ExitCode;

use ltm_vi::{Batch, FastStep, InferKey, Inference, Latents, Method, Program, SlowGradient};
use safetensors::tensor::{Dtype, TensorView};

use crate::device_args::CheckpointArgs;
use crate::generate::check_new;
use crate::output::{OutputError, number, usage};

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
    /// Print one JSON object per fast step
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    if let Some(path) = &args.save {
        check_new(path)?;
    }
    let checkpoint = args.model.load()?;
    let (device, precision) = checkpoint.config.run.compute()?;
    let model = &checkpoint.config.model;
    anyhow::ensure!(
        model.n_latents > 0,
        "the model has no latents: train one with model.n_latents > 0"
    );
    let tokens = crate::generate::encode(&*checkpoint.tokenizer, &args.text)?;
    let t = tokens.len() - 1;
    if t == 0 {
        return Err(usage("--text is empty: expected at least one token"));
    }
    let context = model.max_seq_len;
    anyhow::ensure!(t <= context, "--text has {t} tokens, more than the context of {context}");
    let mut infer = checkpoint.config.infer;
    infer.steps = args.steps.unwrap_or(infer.steps);
    anyhow::ensure!(
        infer.method == Method::Variational,
        "expected infer.method = \"variational\", which fits a posterior step by step"
    );
    let weights = checkpoint.config.on_device(&checkpoint.weights)?;
    let mut program = Program::new(model, 1, t, &device, precision, SlowGradient::None)?;
    let batch = Batch::new(model, 1, &tokens[..t], &tokens[1..])?;
    let mut problem = program.problem(&weights, &batch)?;
    let key = InferKey { seed: args.seed, step: 0, first_sequence: 0 };
    let mut steps = Vec::new();
    let bar = crate::progress_bar(infer.steps as u64, "fast step {pos}/{len}, ETA {eta}");
    let latents = Inference::finished(&infer)?.infer(&mut problem, key, &mut |step| {
        steps.push(step.clone());
        bar.inc(1);
        Ok(())
    })?;
    bar.finish_and_clear();
    let nll: f64 = problem.token_nll(&latents)?.iter().sum();
    let Latents::Gaussian(posterior) = latents else { unreachable!("the method is variational") };
    let posterior = posterior.to_host()?;
    let kl_per_layer = posterior.kl(model.n_layers)?;
    let bound = nll + kl_per_layer.iter().sum::<f64>();
    steps.push(FastStep { step: infer.steps, lr: 0.0, nll, kl_per_layer, bound });

    if let Some(path) = &args.save {
        let shape = [model.n_latents, model.dim];
        let z = posterior.sample()?;
        let tensors = [("mu", &posterior.mu), ("log_var", &posterior.log_var), ("z", &z)]
            .map(|(name, values)| (name, values.iter().flat_map(|x| x.to_le_bytes()).collect()));
        let views = tensors
            .iter()
            .map(|(name, bytes): &(&str, Vec<u8>)| {
                Ok((*name, TensorView::new(Dtype::F32, shape.to_vec(), bytes)?))
            })
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        ltm_files::write_whole(path, &safetensors::serialize(views, None)?)?;
        note!("wrote mu, log_var and z to {}", path.display());
    }
    if args.json {
        for FastStep { step, lr, nll, kl_per_layer, bound } in &steps {
            let line = serde_json::json!({
                "step": step, "lr": lr, "nll": nll, "kl_per_layer": kl_per_layer, "bound": bound,
            });
            outln!("{line}")?;
        }
    } else {
        print_table(&steps, t)?;
        print_plot(&steps, t)?;
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
