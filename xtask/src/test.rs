//! `cargo xtask test`: every check, the cheapest first; the first failure ends it.

use std::io::{BufRead, BufReader, IsTerminal};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::flags::Load;
use crate::{bench, browser, cargo, exec, hf, mpi, package, ptx, serve, sim, targets, tidy};

struct Stage {
    name: &'static str,
    run: fn() -> Result<()>,
}

const STAGES: &[Stage] = &[
    Stage { name: "tidy", run: tidy::run },
    Stage { name: "fmt", run: || exec(&mut cargo(["fmt", "--all", "--check"])) },
    Stage {
        name: "clippy",
        run: || {
            exec(&mut cargo(["clippy", "--workspace", "--all-targets", "--", "-D", "warnings"]))
        },
    },
    Stage { name: "ptx", run: || ptx::run(None) },
    Stage { name: "test", run: tests },
    Stage { name: "sim", run: sim::run },
    Stage {
        name: "doc",
        run: || exec(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")),
    },
    Stage { name: "targets", run: targets::run },
    Stage { name: "package", run: package::run },
];

/// Stages of `--long`, after the others: they take minutes, or packages that are not always at hand.
const LONG_STAGES: &[Stage] = &[
    Stage { name: "requests", run: serve::requests },
    Stage { name: "clients", run: serve::clients },
    Stage { name: "load", run: || bench::load::run(&Load::default()) },
    Stage { name: "hf", run: hf::run },
    Stage { name: "browser", run: browser::run },
];

/// Runs the stages, with `long` also those that take minutes, and prints a summary, also after a failure.
pub fn run(long: bool) -> Result<()> {
    let long = if long { LONG_STAGES } else { &[] };
    run_stages(&STAGES.iter().chain(long).collect::<Vec<_>>())
}

fn run_stages(stages: &[&Stage]) -> Result<()> {
    let start = Instant::now();
    let mut summary = Vec::new();
    let mut outcome = Ok(());
    for (i, stage) in stages.iter().enumerate() {
        if outcome.is_err() {
            summary.push(format!("  {:<9}not run", stage.name));
            continue;
        }
        note!("\n==> [{}/{}] {}", i + 1, stages.len(), stage.name);
        let stage_start = Instant::now();
        outcome = (stage.run)().with_context(|| format!("stage `{}`", stage.name));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        let took = seconds(stage_start.elapsed());
        note!("<== {} {verdict} in {took}", stage.name);
        summary.push(format!("  {:<9}{verdict:<8}{took:>9}", stage.name));
    }
    note!("\n{}\n  {:<17}{:>9}", summary.join("\n"), "total", seconds(start.elapsed()));
    outcome
}

/// All tests, those of several processes too where there is an MPI or one can be installed.
fn tests() -> Result<()> {
    let mut command = cargo(["test", "--workspace"]);
    match mpi::mpiexec() {
        Ok(mpiexec) => drop(command.env(mpi::VARIABLE, mpiexec)),
        Err(error) => note!("the tests of several processes are skipped: {error:#}"),
    }
    exec_counting_skips(&mut command)
}

/// Runs tests with their output passed through, and counts those that were skipped because there is no device.
fn exec_counting_skips(command: &mut Command) -> Result<()> {
    command.stderr(Stdio::piped());
    if std::io::stderr().is_terminal() {
        command.env("CARGO_TERM_COLOR", "always");
    }
    let mut child = command.spawn().context("cannot start cargo")?;
    let stderr = child.stderr.take().context("stderr was asked for")?;
    let mut skips = 0;
    for line in BufReader::new(stderr).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        if line.starts_with("skipped:") {
            skips += 1;
        } else {
            note!("{line}");
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "the tests failed ({status})");
    if skips > 0 {
        note!("{skips} tests skipped: no CUDA device; the stage `sim` runs them");
    }
    Ok(())
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1} s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stops_at_the_first_failure() {
        let fine = Stage { name: "fine", run: || Ok(()) };
        let broken = Stage { name: "broken", run: || anyhow::bail!("planted") };
        let never = Stage { name: "never", run: || unreachable!("runs after a failure") };
        let error = run_stages(&[&fine, &broken, &never]).expect_err("a stage fails");
        assert_eq!(format!("{error:#}"), "stage `broken`: planted");
    }
}
