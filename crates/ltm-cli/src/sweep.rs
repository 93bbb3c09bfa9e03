//! `ltm sweep`: a grid of runs under one budget, resumable.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::ExitCode;

use indicatif::ProgressBar;
use ltm_eval::measured::Measured;
use ltm_eval::sweep::{Point, PointResult, RESULTS_FILE, Seeds, SweepObserver};
use ltm_eval::{Error, Sweep};
use ltm_train::metrics::ProtocolScore;
use ltm_train::{Next, Observer, StepReport, chain, flops};

use crate::Pace;
use crate::device_args::DeviceArgs;
use crate::output::{OutputError, plus_minus};
use crate::signals::Signals;
use crate::train::{NOT_RECORDED, operand, quoted, resume_command};

/// Arguments of `sweep`.
#[derive(clap::Args)]
#[command(after_help = "The sweep's file, with every key:

  base = \"../quickstart.toml\"       # a file relative to this one; or tables [base.run], [base.data], ...
  dir = \"runs/my-sweep\"             # results and one run per point
  protocols = [\"elbo-fitted-noise\", \"elbo:8\", \"iwae:8\"]   # those that do not apply to a point are skipped
  eval_sequences = 256              # validation sequences to score, 0 for all [default: 256]
  seeds = 3                         # or [1, 2, 3]: train every point with each [default: its own run.seed]
  [budget]                          # one of steps, tokens and flops [default: train.steps of the base]
  tokens = 500_000                  # converted to slow steps
  [set]                             # applies to every point
  \"train.seq_len\" = 64
  [[grid]]                          # one point per combination of the lists
  \"model.n_latents\" = [6, 24]
  \"infer.steps\" = [4, 16, 64]
  [[grid]]                          # a sweep may have several grids
  name = \"small-window\"             # prefix of its points' names
  base = \"other.toml\"               # replaces the base above
  \"model.window\" = 4                # a single value applies to every point of the grid

Results are written to results.jsonl in the sweep's folder, one line per point; `ltm report DIR` draws them.
Points that have a line are skipped, so the same command continues an interrupted sweep, and more --seeds add runs to
a finished one. A report gives a verdict on differences between settings that were trained with several seeds.")]
pub struct Args {
    /// Sweep file (TOML)
    file: PathBuf,
    /// Override a value in every point, such as `--set train.lr=1e-3`; repeatable
    #[arg(long = "set", value_name = "SECTION.KEY=VALUE")]
    set: Vec<String>,
    /// Train every point with this many seeds, from its own on, or with these, such as `1,2,3` [default: `seeds` of the file]
    #[arg(long, value_name = "COUNT|LIST")]
    seeds: Option<Seeds>,
    /// List the points and their cost without running them
    #[arg(long)]
    list: bool,
    /// Score all points again without training them again
    #[arg(long, conflicts_with = "list")]
    rescore: bool,
    /// Train failed points again
    #[arg(long, conflicts_with_all = ["list", "rescore"])]
    retry: bool,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print the results as JSON, one line per point
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    let mut sweep = Sweep::load(&args.file, &args.set, args.seeds.as_ref())?;
    for Point { config, placed, .. } in &mut sweep.points {
        args.device.apply(&mut config.run);
        args.device.apply(&mut placed.run);
    }
    if args.list {
        return list(&sweep);
    }
    let signals = Signals::listen()?;
    // The device of a process is that of all its points.
    let mut device =
        sweep.points.first().map_or("cpu".into(), |point| point.placed.run.device.clone());
    let group = crate::group::join(&mut device)?;
    if group.size() > 1 {
        for Point { placed, .. } in &mut sweep.points {
            if placed.run.device == "cuda" {
                placed.run.device.clone_from(&device);
            }
        }
    }
    if (args.rescore || args.retry) && group.is_first() {
        sweep.forget(args.retry)?;
    }
    let bars = crate::output::progress_bars();
    let all = sweep.points.len() as u64;
    let points = bars.add(crate::progress_bar(all, "point {pos}/{len} {msg}"));
    let inner = bars.add(crate::progress_bar(0, "{pos}/{len} {msg}"));
    let mut observer = Progress { points, inner, pace: Pace::default(), signals: &signals };
    let summary = sweep.run_in(&group, &mut observer);
    observer.inner.finish_and_clear();
    observer.points.finish_and_clear();
    let summary = summary.map_err(with_hint)?;
    let is_first = group.is_first();
    group.leave()?;
    if !is_first {
        return Ok(if summary.finished { ExitCode::SUCCESS } else { signals.exit_code() });
    }
    if !summary.finished {
        // The exit status is that of the signal, also when standard output is closed.
        let _ = report_results(&sweep, &summary.results, args.json);
        let seeds = args.seeds.as_ref().map(|seeds| ["--seeds".to_string(), seeds.to_string()]);
        let more: Vec<&str> = seeds.iter().flatten().map(String::as_str).collect();
        let command = resume_command("sweep", &args.file, &args.set, &args.device, &more);
        note!("stopped; to go on: {command}");
        return Ok(signals.exit_code());
    }
    report_results(&sweep, &summary.results, args.json)?;
    let dir = operand(&sweep.dir);
    note!("next        {}", quoted([OsStr::new("ltm"), OsStr::new("report"), &dir]));
    Ok(ExitCode::SUCCESS)
}

/// An error of the library with the option that helps.
fn with_hint(error: Error) -> anyhow::Error {
    match error {
        Error::SweepChanged { only_scores: true, .. } => {
            anyhow::anyhow!("{error}; or add --rescore to score all points again")
        }
        error => error.into(),
    }
}

fn report_results(sweep: &Sweep, results: &[PointResult], json: bool) -> Result<(), OutputError> {
    if json {
        return results.iter().try_for_each(|result| outln!("{}", result.json()));
    }
    print_table(results)?;
    outln!("\nresults     {}", sweep.dir.join(RESULTS_FILE).display())
}

fn list(sweep: &Sweep) -> anyhow::Result<ExitCode> {
    let width = sweep.points.iter().map(|point| point.name.len()).max().unwrap_or(0).max(5);
    outln!(
        "{:width$}  {:>10}  {:>7}  {:>13}  {:>14}",
        "point",
        "parameters",
        "steps",
        "GFLOP/token",
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

/// One bar for the points, one for the steps of a point.
struct Progress<'a> {
    points: ProgressBar,
    inner: ProgressBar,
    pace: Pace,
    signals: &'a Signals,
}

impl Observer for Progress<'_> {
    fn started(&mut self, done: u64, steps: u64) -> Next {
        self.pace = Pace::default();
        self.inner.set_length(steps);
        self.inner.set_position(done);
        self.signals.next()
    }

    fn not_recorded(&mut self, error: &ltm_vi::Error) {
        let text = format!("note: {NOT_RECORDED}: {}", chain(error));
        self.points.suspend(|| note!("{text}"));
    }

    fn stepped(&mut self, report: &StepReport, seconds: f64) -> Next {
        self.inner.set_position(report.step);
        let eta = self.pace.eta(&self.inner, seconds);
        let bound = report.bound().map_or(String::new(), |bound| format!(" bound {bound:.3}"));
        self.inner.set_message(format!("training: loss {:.3}{bound} ETA {eta}", report.loss));
        self.signals.next()
    }

    fn evaluating(&mut self, _done: u64, _all: u64) -> Next {
        self.signals.next()
    }
}

impl SweepObserver for Progress<'_> {
    fn point_started(&mut self, point: &Point, done: usize, _all: usize) -> Next {
        self.points.set_position(done as u64);
        self.points.set_message(point.name.clone());
        self.signals.next()
    }

    fn scoring(&mut self, done: u64, all: u64) -> Next {
        self.inner.set_length(all);
        self.inner.set_position(done);
        self.inner.set_message("batches scored");
        self.signals.next()
    }

    fn point_finished(&mut self, result: &PointResult) {
        self.points.inc(1);
        let text = format!("{}: {}", result.point.name, outcome(&result.outcome));
        self.points.suspend(|| note!("{text}"));
    }
}

/// Every number of a point with its protocol, or why there is none.
fn outcome(outcome: &Result<Measured, String>) -> String {
    let measured = match outcome {
        Ok(measured) => measured,
        Err(error) => return format!("failed: {error}"),
    };
    let part = |(protocol, score): (&String, &ProtocolScore)| {
        format!("{protocol} {}", plus_minus((score.nats_per_token, score.standard_error), 4))
    };
    measured.evaluation.iter().map(part).collect::<Vec<_>>().join("  ")
}

fn print_table(results: &[PointResult]) -> Result<(), OutputError> {
    let width = results.iter().map(|result| result.point.name.len()).max().unwrap_or(0).max(5);
    outln!("{:width$}  nats per token by protocol", "point")?;
    for PointResult { point, outcome: found, .. } in results {
        outln!("{:width$}  {}", point.name, outcome(found))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_names_protocol_and_error() {
        let evaluation = "{ \"evaluation\": {
            \"elbo:8\": { \"nats_per_token\": 1.5, \"standard_error\": 0.25 },
            \"iwae:8\": { \"nats_per_token\": null, \"standard_error\": null }
        }}";
        let measured = serde_json::from_str(evaluation).expect("numbers");
        assert_eq!(outcome(&Ok(measured)), "elbo:8 1.5000 ± 0.2500  iwae:8 n/a");
        assert_eq!(outcome(&Err("diverged".into())), "failed: diverged");
    }
}
