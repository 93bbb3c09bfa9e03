//! `ltm train`: a run from a configuration file, watched and stoppable.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use indicatif::ProgressBar;
use ltm_model::Attention;
use ltm_train::data::{Split, storyworld};
use ltm_train::{Checkpoint, Config, Evaluation, Observer, Start, StepReport, Summary, Trainer};
use ltm_vi::{GenerateOptions, LatentSource};

use crate::Pace;
use crate::device_args::DeviceArgs;

/// Arguments of `train`.
#[derive(clap::Args)]
pub struct Args {
    /// The TOML file
    config: PathBuf,
    /// Replace a value, such as `--set train.steps=100` or `--set data.path=my-corpus`
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Go on from the newest checkpoint in the run's folder, on the same kind of device bit for bit as if it had
    /// never stopped
    #[arg(long)]
    resume: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print no samples at the end
    #[arg(long)]
    no_samples: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(&args.config, &args.set)?;
    args.device.apply(&mut config.run);
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note!("\nfinishing the step, then saving; once more to leave at once");
    })
    .context("cannot listen for Ctrl-C")?;

    let start = if args.resume { Start::Resume } else { Start::Fresh };
    let mut trainer = Trainer::new(config, start)?;
    let config = trainer.config().clone();
    note!(
        "{} parameters, {} latent vectors of {}; {}",
        config.model.param_count(),
        config.model.n_latents,
        config.model.dim,
        config.run.dir.display()
    );
    let bar = crate::progress_bar(0, "step {pos}/{len} {msg}");
    let mut observer = Progress { bar, pace: Pace::default() };
    let summary = trainer.run(&stop, &mut observer);
    observer.bar.finish_and_clear();
    let summary = summary?;
    report(&config, &summary, &args)?;
    Ok(ExitCode::SUCCESS)
}

/// The bar, and lines for what should stay on the screen.
struct Progress {
    bar: ProgressBar,
    pace: Pace,
}

impl Progress {
    /// A line that stays; on stderr whether there is a terminal or not.
    fn line(&self, text: &str) {
        self.bar.suspend(|| note!("{text}"));
    }
}

impl Observer for Progress {
    fn started(&mut self, done: u64, steps: u64) {
        self.bar.set_length(steps);
        self.bar.set_position(done);
        if done > 0 {
            self.line(&format!("going on after step {done} of {steps}"));
        }
    }

    fn stepped(&mut self, report: &StepReport, seconds: f64) {
        self.bar.set_position(report.step);
        let eta = self.pace.eta(&self.bar, seconds);
        let bound = report.bound().map_or(String::new(), |bound| format!(" bound {bound:.3}"));
        self.bar.set_message(format!(
            "loss {:.3}{bound} {:.0} tokens/s ETA {eta}",
            report.loss,
            report.tokens as f64 / seconds,
        ));
    }

    fn evaluating(&mut self, done: u64, all: u64) {
        self.bar.set_message(format!("scoring the validation split, {done}/{all}"));
    }

    fn evaluated(&mut self, step: u64, evaluation: &Evaluation) {
        let mut text = format!("step {step}:");
        for e in &evaluation.estimates {
            let (mean, error) = (e.mean_nats_per_token, e.standard_error);
            text += &format!("  {} {mean:.4} ± {error:.4}", e.protocol);
        }
        self.line(&text);
    }
}

fn report(config: &Config, summary: &Summary, args: &Args) -> anyhow::Result<()> {
    if !summary.finished {
        outln!("stopped after step {}, saved {}", summary.step, summary.checkpoint.display())?;
        let set: String = args.set.iter().map(|set| format!(" --set '{set}'")).collect();
        let device = args.device.as_typed();
        outln!("to go on: ltm train {}{set}{device} --resume", args.config.display())?;
        return Ok(());
    }
    let generated = config.data.path.is_none();
    if generated {
        let entropy = storyworld::true_entropy(config.run.seed, storyworld::ENTROPY_DOCUMENTS)?;
        let (nats, error) = (entropy.nats_per_token, entropy.nats_per_token_se);
        outln!("true entropy                {nats:.4} ± {error:.4} nats per token")?;
    }
    if let Some(evaluation) = &summary.evaluation {
        crate::eval::print_table(evaluation, config)?;
    }
    // A masked diffusion model does not write token by token.
    if !args.no_samples && config.model.attention == Attention::Causal {
        print_samples(config, &summary.checkpoint)?;
    }
    outln!("\ncheckpoint  {}", summary.checkpoint.display())?;
    for plot in &summary.plots {
        outln!("plot        {}", plot.display())?;
    }
    Ok(())
}

/// One sample from nothing, and two continuations of validation texts.
fn print_samples(config: &Config, checkpoint: &Path) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::load(checkpoint)?;
    let tokenizer = &checkpoint.state.tokenizer;
    let separator = i32::from(tokenizer.separator());
    let (device, precision) = config.run.compute()?;
    let options = GenerateOptions {
        max_tokens: config.model.max_seq_len.min(160),
        sample: crate::generate::SAMPLE,
        latents: LatentSource::Prior,
        seed: config.run.seed,
        stop: Some(separator),
        device,
        precision,
    };
    let show = |tokens: &[i32]| crate::generate::decode(tokenizer, tokens);
    let write = |prompt: &[i32], options: &GenerateOptions| {
        ltm_vi::generate(&checkpoint.weights, &config.model, &config.infer, prompt, options)
    };
    outln!("\nwritten from nothing:\n  {}", show(&write(&[separator], &options)?.tokens))?;
    let Ok(val) = ltm_train::trainer::open(config, Split::Val) else { return Ok(()) };
    for index in 0..2_u64 {
        let batch = val.batch(index / config.train.batch as u64)?;
        let t = config.train.seq_len;
        let row = &batch.tokens[index as usize % config.train.batch * t..][..t];
        // A prompt of a third of the text: enough to fit thoughts to, and something left to say.
        let end = row.iter().skip(1).position(|token| *token == separator).map_or(t, |i| i + 1);
        let prompt = &row[..(end / 3).max(2).min(t)];
        let options = GenerateOptions {
            latents: LatentSource::Prompt,
            seed: options.seed.wrapping_add(index),
            ..options
        };
        let continuation = write(prompt, &options)?.tokens;
        outln!("\ngiven:\n  {}\nwritten:\n  {}", show(&prompt[1..]), show(&continuation))?;
    }
    Ok(())
}
