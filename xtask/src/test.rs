//! `cargo xtask test`: every check in a row, the cheapest first; the first failure ends it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{cargo, exec, package, tidy};

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
    Stage { name: "test", run: || exec(&mut cargo(["test", "--workspace"])) },
    Stage {
        name: "doc",
        run: || exec(cargo(["doc", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings")),
    },
    Stage { name: "package", run: package::run },
];

/// Runs the stages and prints a summary, whichever way it ends.
pub fn run() -> Result<()> {
    run_stages(STAGES)
}

fn run_stages(stages: &[Stage]) -> Result<()> {
    let start = Instant::now();
    let mut summary = Vec::new();
    let mut outcome = Ok(());
    for (i, stage) in stages.iter().enumerate() {
        if outcome.is_err() {
            summary.push(format!("  {:<9}not run", stage.name));
            continue;
        }
        eprintln!("\n==> [{}/{}] {}", i + 1, stages.len(), stage.name);
        let stage_start = Instant::now();
        outcome = (stage.run)().with_context(|| format!("stage `{}`", stage.name));
        let verdict = if outcome.is_ok() { "ok" } else { "FAILED" };
        let took = seconds(stage_start.elapsed());
        eprintln!("<== {} {verdict} in {took}", stage.name);
        summary.push(format!("  {:<9}{verdict:<8}{took:>9}", stage.name));
    }
    eprintln!("\n{}\n  {:<17}{:>9}", summary.join("\n"), "total", seconds(start.elapsed()));
    outcome
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
        let error = run_stages(&[fine, broken, never]).expect_err("a stage fails");
        assert_eq!(format!("{error:#}"), "stage `broken`: planted");
    }
}
