//! `ltm sweep`: a grid of runs under one budget, resumable.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::Context;
use indicatif::ProgressBar;
use ltm_train::sweep::{Point, RESULTS_FILE, SweepObserver};
use ltm_train::{Observer, StepReport, Sweep, flops};
use serde_json::Value;

use crate::Pace;
use crate::device_args::DeviceArgs;
use crate::output::OutputError;

/// Arguments of `sweep`.
#[derive(clap::Args)]
#[command(after_help = "A sweep's file, with every key it may have:

  base = \"../quickstart.toml\"       # beside this file; or tables [base.run], [base.data], ...
  dir = \"runs/my-sweep\"
  protocols = [\"elbo-fitted-noise\", \"elbo:8\", \"iwae:8\"]   # those that do not suit a point are left out
  eval_sequences = 256              # of the validation split; 0 for all
  [budget]                          # one of them; without, train.steps stands
  tokens = 500_000                  # or steps, or flops: slow steps follow
  [set]                             # for every point
  \"train.seq_len\" = 64
  [[grid]]                          # every combination of the lists is a point
  \"model.n_latents\" = [6, 24]
  \"infer.steps\" = [4, 16, 64]
  [[grid]]                          # several grids make one sweep
  name = \"small-window\"             # goes before the names of its points
  base = \"other.toml\"               # a base of its own
  \"model.window\" = 4                # a single value is set and not varied

Results go to results.jsonl in the sweep's folder, a line a point; `ltm report` draws them.
Points that have a line are skipped, so the same command goes on with an interrupted sweep.")]
pub struct Args {
    /// The sweep's TOML file
    file: PathBuf,
    /// Replace a value in every point, such as `--set train.lr=1e-3`
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Show the points and what they would cost, and run nothing
    #[arg(long)]
    list: bool,
    /// Score points anew that have results already; what is trained stays
    #[arg(long, conflicts_with = "list")]
    rescore: bool,
    /// Train points anew that failed
    #[arg(long, conflicts_with_all = ["list", "rescore"])]
    retry: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the results as JSON, a line a point
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut sweep = Sweep::load(&args.file, &args.set)?;
    for Point { config, placed, .. } in &mut sweep.points {
        args.device.apply(&mut config.run);
        args.device.apply(&mut placed.run);
    }
    if args.list {
        return list(&sweep);
    }
    let stop = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&stop);
    ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        note!("\nfinishing the step, then saving; once more to leave at once");
    })
    .context("cannot listen for Ctrl-C")?;
    if args.rescore || args.retry {
        sweep.forget(args.retry)?;
    }
    let bars = crate::output::progress_bars();
    let all = sweep.points.len() as u64;
    let points = bars.add(crate::progress_bar(all, "point {pos}/{len} {msg}"));
    let inner = bars.add(crate::progress_bar(0, "{pos}/{len} {msg}"));
    let mut observer = Progress { points, inner, pace: Pace::default() };
    let summary = sweep.run(&stop, &mut observer);
    observer.inner.finish_and_clear();
    observer.points.finish_and_clear();
    let summary = summary?;
    if args.json {
        summary.results.iter().try_for_each(|line| outln!("{line}"))?;
    } else {
        print_table(&summary.results)?;
        outln!("\nresults     {}", sweep.dir.join(RESULTS_FILE).display())?;
    }
    if summary.finished {
        note!("to draw them: ltm report {}", sweep.dir.display());
    } else {
        let set: String = args.set.iter().map(|set| format!(" --set '{set}'")).collect();
        let device = args.device.as_typed();
        note!("stopped; to go on: ltm sweep {}{set}{device}", args.file.display());
    }
    Ok(ExitCode::SUCCESS)
}

fn list(sweep: &Sweep) -> anyhow::Result<ExitCode> {
    let width = sweep.points.iter().map(|point| point.name.len()).max().unwrap_or(0).max(5);
    outln!(
        "{:width$}  {:>10}  {:>7}  {:>13}  {:>14}",
        "point",
        "parameters",
        "steps",
        "GFLOP a token",
        "training FLOPs"
    )?;
    for point in &sweep.points {
        let flops = flops::count(&point.config)?;
        let steps = point.config.train.steps;
        outln!(
            "{:width$}  {:>10}  {steps:>7}  {:>13.4}  {:>14.3e}",
            point.name,
            point.config.model.param_count(),
            1e-9 * flops.per_token,
            flops.per_slow_step * steps as f64,
        )?;
    }
    Ok(ExitCode::SUCCESS)
}

/// One bar over points, one within.
struct Progress {
    points: ProgressBar,
    inner: ProgressBar,
    pace: Pace,
}

impl Observer for Progress {
    fn started(&mut self, done: u64, steps: u64) {
        self.pace = Pace::default();
        self.inner.set_length(steps);
        self.inner.set_position(done);
    }

    fn stepped(&mut self, report: &StepReport, seconds: f64) {
        self.inner.set_position(report.step);
        let eta = self.pace.eta(&self.inner, seconds);
        let bound = report.bound().map_or(String::new(), |bound| format!(" bound {bound:.3}"));
        self.inner.set_message(format!("training: loss {:.3}{bound} ETA {eta}", report.loss));
    }
}

impl SweepObserver for Progress {
    fn point_started(&mut self, point: &Point, done: usize, _all: usize) {
        self.points.set_position(done as u64);
        self.points.set_message(point.name.clone());
    }

    fn scoring(&mut self, done: u64, all: u64) {
        self.inner.set_length(all);
        self.inner.set_position(done);
        self.inner.set_message("batches scored");
    }

    fn point_finished(&mut self, line: &Value) {
        self.points.inc(1);
        let text = format!("{}: {}", name(line), outcome(line));
        self.points.suspend(|| note!("{text}"));
    }
}

fn name(line: &Value) -> &str {
    line["name"].as_str().unwrap_or_default()
}

/// Every number of a point with its protocol, or why there is none.
fn outcome(line: &Value) -> String {
    if let Some(error) = line["error"].as_str() {
        return format!("failed: {error}");
    }
    let mut parts = Vec::new();
    for (protocol, numbers) in line["evaluation"].as_object().into_iter().flatten() {
        if let Some(nats) = numbers["nats_per_token"].as_f64() {
            let error = numbers["standard_error"].as_f64().unwrap_or(f64::NAN);
            parts.push(format!("{protocol} {nats:.4} ± {error:.4}"));
        }
    }
    parts.join("  ")
}

fn print_table(results: &[Value]) -> Result<(), OutputError> {
    let width = results.iter().map(|line| name(line).len()).max().unwrap_or(0).max(5);
    outln!("{:width$}  nats per token by protocol", "point")?;
    for line in results {
        outln!("{:width$}  {}", name(line), outcome(line))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_outcome_names_protocol_and_error() {
        let line = json!({ "evaluation": {
            "elbo:8": { "nats_per_token": 1.5, "standard_error": 0.25 }, "note": 3,
        }});
        assert_eq!(outcome(&line), "elbo:8 1.5000 ± 0.2500");
        assert_eq!(outcome(&json!({ "error": "diverged" })), "failed: diverged");
    }
}
