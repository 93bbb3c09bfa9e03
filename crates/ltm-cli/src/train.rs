//! `ltm train`: a run from a configuration file, with progress, signals and a report at the end.

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use indicatif::{HumanDuration, ProgressBar};
use ltm_eval::baselines::{Baseline, BaselineComparison};
use ltm_eval::samples::{Continuation, samples};
use ltm_eval::suites::stories::{Story, are_stories, marked, reach};
use ltm_model::Attention;
use ltm_train::data::{Split, storyworld};
use ltm_train::resume::Changes;
use ltm_train::{
    Checkpoint, Config, Error, Evaluation, Group, Next, Observer, Run, Start, StepReport, Summary,
    chain,
};

use crate::Pace;
use crate::device_args::DeviceArgs;
use crate::output::{OutputError, plus_minus, usage};
use crate::signals::Signals;

/// Arguments of `train`.
#[derive(clap::Args)]
#[command(after_help = "Signals:
  Ctrl-C, SIGTERM, SIGHUP  finish the step, save a checkpoint and print the command that resumes;
                           exit status 130, 143, 129. An evaluation is stopped, and made when the run
                           is resumed. A second signal quits immediately.
  SIGUSR1                  save a checkpoint and continue.")]
pub struct Args {
    /// Configuration file (TOML)
    config: PathBuf,
    /// Override a value of the configuration, such as `--set train.steps=100`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Continue from the newest checkpoint in the run's folder
    ///
    /// On the same kind of device and in the same precision, the result equals that of an uninterrupted run bit for
    /// bit. With a larger `train.steps` the learning-rate schedule is stretched; `--set train.schedule_steps=N` keeps
    /// the old one.
    #[arg(long)]
    resume: bool,
    /// With --resume: continue although the training data differs from that of the checkpoint
    #[arg(long, requires = "resume")]
    accept_changed_data: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// Do not print samples at the end
    #[arg(long)]
    no_samples: bool,
    /// Then train the same decoder without latents, with the same window and with the full context, and compare
    ///
    /// The three scores are of the same texts, exact or a bound from above that counts the cost of the latents. The
    /// baselines take the same steps on the same batches, in RUN/baselines, and far less time.
    #[arg(long)]
    compare: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut config = Config::load(&args.config, &args.set)?;
    args.device.apply(&mut config.run);
    if args.compare {
        Baseline::check(&config).map_err(|error| usage(format!("--compare: {error}")))?;
    }
    let signals = Signals::listen()?;
    let group = crate::group::join(&mut config.run.device)?;
    let start = match (args.resume, args.accept_changed_data) {
        (false, _) => Start::Fresh,
        (true, false) => Start::Resume,
        (true, true) => Start::ResumeOnChangedData,
    };
    let mut run = Run::in_group(config, start, group.clone()).map_err(with_hint)?;
    let config = run.config().clone();
    if !group.is_first() {
        return follow(run, &args, &group, &signals);
    }
    note!(
        "{} parameters, {} latent vectors of {}; {}",
        config.model.param_count(),
        config.model.n_latents,
        config.model.dim,
        config.run.dir.display()
    );
    for error in run.ignored() {
        note!("ignored an incomplete checkpoint: {}", chain(error));
    }
    note_changes(&config, run.changes());
    let bar = crate::progress_bar(0, "step {pos}/{len} {msg}");
    let mut observer = Progress { bar, pace: Pace::default(), signals: &signals, asked: false };
    let summary = run.run(&mut observer);
    observer.bar.finish_and_clear();
    let summary = summary?;
    let plots = ltm_eval::charts::draw(&config.run.dir)?;
    if !summary.finished {
        // The exit status is that of the signal, also when standard output is closed.
        let _ = report_stop(&summary, &args);
        group.leave()?;
        return Ok(signals.exit_code());
    }
    report(&config, &summary, &plots, &args)?;
    if !args.compare {
        group.leave()?;
        return Ok(ExitCode::SUCCESS);
    }
    let compared = compare(&config, &group, &signals)?;
    group.leave()?;
    match compared {
        true => Ok(ExitCode::SUCCESS),
        false => {
            let _ = outln!("to go on: {}", command(&args));
            Ok(signals.exit_code())
        }
    }
}

/// Trains as one of the other processes, which print nothing.
fn follow(mut run: Run, args: &Args, group: &Group, signals: &Signals) -> anyhow::Result<ExitCode> {
    let config = run.config().clone();
    let mut finished = run.run(&mut Follower { signals })?.finished;
    drop(run);
    if finished && args.compare {
        for baseline in Baseline::ALL {
            let config = baseline.config(&config);
            let mut run = Run::in_group(config, Start::FreshOrResume, group.clone())?;
            finished = run.run(&mut Follower { signals })?.finished;
            if !finished {
                break;
            }
        }
    }
    group.clone().leave()?;
    Ok(if finished { ExitCode::SUCCESS } else { signals.exit_code() })
}

/// The observer of a process that prints nothing: only signals matter.
struct Follower<'a> {
    signals: &'a Signals,
}

impl Observer for Follower<'_> {
    fn started(&mut self, _done: u64, _steps: u64) -> Next {
        self.signals.next()
    }

    fn stepped(&mut self, _report: &StepReport, _seconds: f64) -> Next {
        self.signals.next()
    }

    fn evaluating(&mut self, _done: u64, _all: u64) -> Next {
        self.signals.next()
    }

    fn evaluated(&mut self, _step: u64, _evaluation: &Evaluation) -> Next {
        self.signals.next()
    }
}

/// Trains the baselines that are not trained yet, and prints how the model stands beside them; false after a stop.
fn compare(config: &Config, group: &Group, signals: &Signals) -> anyhow::Result<bool> {
    for baseline in Baseline::ALL {
        let baseline_config = baseline.config(config);
        let mut run = Run::in_group(baseline_config, Start::FreshOrResume, group.clone())?;
        let bar = crate::progress_bar(0, "{prefix} step {pos}/{len} {msg}");
        bar.set_prefix(baseline.label());
        let mut observer = Progress { bar, pace: Pace::default(), signals, asked: false };
        let summary = run.run(&mut observer);
        observer.bar.finish_and_clear();
        if !summary?.finished {
            return Ok(false);
        }
    }
    let comparison = BaselineComparison::read(config)?;
    let plot = config.run.dir.join("plots").join("comparison.svg");
    comparison.draw(&plot)?;
    outln!("\nnats per token, lower is better:")?;
    let most = comparison.rows().map(|row| row.nats).fold(0.0, f64::max);
    for row in comparison.rows() {
        let bar = "█".repeat((30.0 * row.nats / most) as usize);
        let score = plus_minus((row.nats, row.error), 4);
        outln!("  {:22} {score:16} {bar} {}", row.label, row.protocol)?;
    }
    outln!("{}", comparison.summary())?;
    outln!("plot        {}", plot.display())?;
    Ok(true)
}

/// An error of the library with the option that helps.
fn with_hint(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::RunExists { .. } => "add --resume to continue it",
        Error::NothingToResume { .. } => "omit --resume to start a new run",
        Error::DataChanged { .. } => {
            "restore the data, or add --accept-changed-data to continue on the changed data"
        }
        _ => return error.into(),
    };
    anyhow::anyhow!("{error}; {hint}")
}

/// What is printed when a device cannot record the fast steps.
pub const NOT_RECORDED: &str =
    "the device cannot record the fast steps and runs them one by one, which is slower";

/// Prints how a resumed run differs from its checkpoint.
fn note_changes(config: &Config, changes: &Changes) {
    for change in changes.keys.iter().chain(&changes.data) {
        note!("changed since the checkpoint: {change}");
    }
    if changes.dropped_posteriors > 0 {
        note!(
            "the posteriors of {} rows are dropped, because the data has changed",
            changes.dropped_posteriors
        );
    }
    let Some(jump) = &changes.jump else { return };
    let steps = config.train.schedule_steps();
    let [after, before] = [jump.after, jump.before].map(|rate| format!("{rate:.3e}"));
    if after == before {
        return;
    }
    note!("the learning rate of step {} is {after} instead of {before}", jump.step);
    if steps != jump.schedule_steps {
        note!(
            "because the schedule now spans {steps} steps instead of {old}; add --set train.schedule_steps={old} to keep \
             the old schedule",
            old = jump.schedule_steps
        );
    }
}

/// Words as a shell reads them back.
pub fn quoted<W: AsRef<OsStr>>(words: impl IntoIterator<Item = W>) -> String {
    words.into_iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

fn quote(word: &OsStr) -> String {
    if let Some(word) = word.to_str() {
        return shlex::try_quote(word).map_or(word.into(), String::from);
    }
    // Bytes that are not UTF-8 are escaped, because the command prints UTF-8 only.
    let mut text = String::from("$'");
    for chunk in word.as_encoded_bytes().utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '\'' | '\\' => text.extend(['\\', c]),
                _ if c.is_ascii_control() => text += &format!("\\x{:02x}", u32::from(c)),
                _ => text.push(c),
            }
        }
        for byte in chunk.invalid() {
            text += &format!("\\x{byte:02x}");
        }
    }
    text + "'"
}

/// A path that is not taken for an option.
pub fn operand(path: &Path) -> OsString {
    if path.as_os_str().as_encoded_bytes().starts_with(b"-") {
        return Path::new(".").join(path).into_os_string();
    }
    path.into()
}

/// The shell command that continues `ltm VERB FILE`, from any folder: relative paths, also those in FILE, are
/// relative to the current one.
pub fn resume_command(
    verb: &str,
    file: &Path,
    set: &[String],
    device: &DeviceArgs,
    more: &[&str],
) -> String {
    let mut words = vec![OsString::from("ltm"), OsString::from(verb), operand(file)];
    for set in set {
        words.push(OsString::from("--set"));
        words.push(OsString::from(set));
    }
    for word in device.as_typed().split_whitespace().chain(more.iter().copied()) {
        words.push(OsString::from(word));
    }
    let command = quoted(&words);
    match std::env::current_dir() {
        Ok(dir) => format!("cd {} && {command}", quoted([dir])),
        Err(_) => command,
    }
}

/// The bar, and lines for what should stay on the screen.
struct Progress<'a> {
    bar: ProgressBar,
    pace: Pace,
    signals: &'a Signals,
    /// Whether a signal has asked for the next checkpoint.
    asked: bool,
}

impl Progress<'_> {
    /// A line that stays; on stderr whether there is a terminal or not.
    fn line(&self, text: &str) {
        self.bar.suspend(|| note!("{text}"));
    }

    /// What signals have asked for.
    fn next(&mut self) -> Next {
        let next = self.signals.next();
        self.asked |= next == Next::Save;
        next
    }
}

impl Observer for Progress<'_> {
    fn started(&mut self, done: u64, steps: u64) -> Next {
        self.bar.set_length(steps);
        self.bar.set_position(done);
        if done > 0 {
            self.line(&format!("resuming after step {done} of {steps}"));
        }
        self.next()
    }

    fn stepped(&mut self, report: &StepReport, seconds: f64) -> Next {
        self.bar.set_position(report.step);
        let eta = self.pace.eta(&self.bar, seconds);
        let bound = report.bound().map_or(String::new(), |bound| format!(" bound {bound:.3}"));
        self.bar.set_message(format!(
            "loss {:.3}{bound} {:.0} tokens/s ETA {eta}",
            report.loss,
            report.tokens as f64 / seconds,
        ));
        self.next()
    }

    fn not_recorded(&mut self, error: &ltm_vi::Error) {
        self.line(&format!("note: {NOT_RECORDED}: {}", chain(error)));
    }

    fn evaluating(&mut self, done: u64, all: u64) -> Next {
        self.bar.set_message(format!("scoring the validation split, {done}/{all}"));
        self.next()
    }

    fn evaluated(&mut self, step: u64, evaluation: &Evaluation) -> Next {
        let mut text = format!("step {step}:");
        for e in &evaluation.estimates {
            let score = plus_minus((e.mean_nats_per_token, e.standard_error), 4);
            text += &format!("  {} {score}", e.protocol);
        }
        self.line(&text);
        self.next()
    }

    fn saved(&mut self, dir: &Path) {
        if std::mem::take(&mut self.asked) {
            self.line(&format!("saved {}", dir.display()));
        }
    }
}

fn report_stop(summary: &Summary, args: &Args) -> Result<(), OutputError> {
    outln!("stopped after step {}, saved {}", summary.step, summary.checkpoint.display())?;
    outln!("to go on: {}", command(args))
}

/// The shell command that continues this one.
fn command(args: &Args) -> String {
    let no_samples = args.no_samples.then_some("--no-samples");
    let compare = args.compare.then_some("--compare");
    // A checkpoint from before the first step still records the data from before the change.
    let accept = args.accept_changed_data.then_some("--accept-changed-data");
    let options = no_samples.into_iter().chain(compare).chain(["--resume"]).chain(accept);
    let more: Vec<&str> = options.collect();
    resume_command("train", &args.config, &args.set, &args.device, &more)
}

fn report(
    config: &Config,
    summary: &Summary,
    plots: &[PathBuf],
    args: &Args,
) -> anyhow::Result<()> {
    let generated = config.data.path.is_none();
    if generated {
        let entropy = storyworld::true_entropy(config.run.seed, storyworld::ENTROPY_DOCUMENTS)?;
        let (nats, error) = (entropy.nats_per_token, entropy.nats_per_token_se);
        outln!("true entropy                {nats:.4} ± {error:.4} nats per token")?;
    }
    if let Some(evaluation) = &summary.evaluation {
        crate::eval::print_table(evaluation, config)?;
        crate::eval::warn_of_prior(evaluation);
    }
    // A masked diffusion model does not write token by token.
    if !args.no_samples && config.model.attention == Attention::Causal {
        print_samples(config, &summary.checkpoint)?;
    }
    let Summary { corpus, corpus_tokens, tokens, seconds, .. } = summary;
    let time = HumanDuration(std::time::Duration::from_secs_f64(*seconds));
    outln!("\ncorpus      {}, {corpus_tokens} training tokens", corpus.display())?;
    outln!(
        "trained     {} steps on {tokens} tokens in total; this session took {time}",
        summary.step
    )?;
    outln!("checkpoint  {}", summary.checkpoint.display())?;
    for plot in plots {
        outln!("plot        {}", plot.display())?;
    }
    let run = operand(&config.run.dir);
    for verb in ["eval", "generate", "report"] {
        let label = if verb == "eval" { "next" } else { "" };
        outln!("{label:12}{}", quoted([OsStr::new("ltm"), OsStr::new(verb), &run]))?;
    }
    Ok(())
}

/// A sample without a prompt, and continuations of two validation texts.
fn print_samples(config: &Config, checkpoint: &Path) -> anyhow::Result<()> {
    let checkpoint = Checkpoint::load(checkpoint)?;
    let weights = config.on_device(&checkpoint.weights)?;
    let val = ltm_train::run_data::open(config, Split::Val).ok();
    let tokenizer = &*checkpoint.tokenizer;
    let samples = samples(config, &weights, tokenizer, val.as_ref(), 2)?;
    let reach = reach(&config.model);
    let shown = |given: &str, written: &str| -> anyhow::Result<String> {
        if !are_stories(tokenizer) {
            return Ok(written.into());
        }
        let tokens = tokenizer.encode(&format!("{given} {written}"))?;
        let given = tokenizer.encode(given)?.len();
        Ok(marked(&Story { tokens, given }, reach))
    };
    outln!("\nunconditional sample:\n  {}", shown("", &samples.from_nothing)?)?;
    for Continuation { given, written } in &samples.continuations {
        outln!("\nprompt:\n  {given}\ncontinuation:\n  {}", shown(given, written)?)?;
    }
    if are_stories(tokenizer) {
        let from = if config.model.n_latents > 0 {
            "which only the latents carry"
        } else {
            "out of sight"
        };
        outln!("\n*kept* and ~contradicted~: facts from more than {reach} words before, {from}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_survive_a_shell() {
        let words = ["a", "it's", "two words", "$HOME", "", "-x"];
        assert_eq!(shlex::split(&quoted(words)).expect("words"), words);
        assert_eq!(operand(Path::new("-x.toml")), Path::new(".").join("-x.toml"));
        assert_eq!(operand(Path::new("a/-x.toml")), "a/-x.toml");
    }

    #[cfg(unix)]
    #[test]
    fn bytes_that_are_not_utf8_are_escaped() {
        use std::os::unix::ffi::OsStrExt as _;
        let word = OsStr::from_bytes(b"bad-\xff it's\n");
        assert_eq!(quoted([word]), r"$'bad-\xff it\'s\x0a'");
    }
}
