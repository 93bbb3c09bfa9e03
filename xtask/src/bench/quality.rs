//! `cargo xtask bench quality`: how long two trainings take to the same valid bound, turn by turn in one run. Knows
//! commands and numbers, never a model.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{runs, turns::Program};
use crate::flags::Quality;
use crate::{cargo, exec, root, target_dir};

/// The training to compare with, and the one that should take less time.
const TRAININGS: [Training; 2] = [
    Training { name: "16 fast steps from the prior", config: "configs/sweeps/fitted.toml" },
    Training { name: "from an encoder", config: "configs/quickstart.toml" },
];

/// The same stories for both, those of the quickstart.
const SAME: [&str; 3] =
    ["data.documents=60000", "data.val_documents=256", "train.eval_sequences=256"];

struct Training {
    name: &'static str,
    config: &'static str,
}

/// Trains both, each to its own end, and scores both after every turn, off the clock.
pub fn run(quality: &Quality) -> Result<()> {
    exec(&mut cargo(["build", "--release", "--package", "ltm-bench", "--bin", "quality"]))?;
    let mut programs = Vec::new();
    for (i, training) in TRAININGS.iter().enumerate() {
        programs.push(start(
            training,
            &target_dir().join(format!("quality/{i}")),
            quality.threads,
        )?);
    }
    let mut lines = Vec::new();
    for turn in 1..=quality.turns {
        for (program, training) in programs.iter_mut().zip(&TRAININGS) {
            let steps =
                program.greeting["steps"].as_u64().context("a training states its steps")?;
            let time = program.turn(&format!("train {}", steps.div_ceil(quality.turns)))?;
            let score = program.ask("evaluate")?;
            let line =
                json!({ "training": training.name, "turn": turn, "time": time, "score": score });
            note!("{}", told(&line));
            lines.push(line);
        }
    }
    let table = summary(&lines);
    outln!("{}", table.trim_end())?;
    if quality.save { runs::save("quality", &lines, &table) } else { Ok(()) }
}

fn start(training: &Training, dir: &Path, threads: usize) -> Result<Program> {
    let mut command = Command::new(target_dir().join("release/quality"));
    command.arg(root().join(training.config)).arg(format!("run.dir={}", dir.display())).args(SAME);
    command.env("RAYON_NUM_THREADS", threads.to_string());
    Program::start(training.name, &mut command)
}

fn told(line: &Value) -> String {
    let (turn, seconds, elbo) = (&line["turn"], &line["time"]["seconds"], &line["score"]["elbo"]);
    let training = line["training"].as_str().unwrap_or_default();
    format!("turn {turn} of {training}: {seconds:.1} s, elbo:8 {elbo:.4}")
}

/// The course of one training: seconds of training so far, and the bound there.
fn course(lines: &[Value], training: &str) -> Vec<(f64, f64)> {
    let mut seconds = 0.0;
    let own = lines.iter().filter(|line| line["training"] == training);
    own.map(|line| {
        let number = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
        seconds += number(&line["time"]["seconds"]);
        (seconds, number(&line["score"]["elbo"]))
    })
    .collect()
}

/// The first turn's end from which on a course stays at most at `bound`: one turn below it may be noise.
fn reached(course: &[(f64, f64)], bound: f64) -> Option<f64> {
    let below = course.iter().rev().take_while(|(_, elbo)| *elbo <= bound);
    below.last().map(|(seconds, _)| *seconds)
}

/// Both courses, and the time in which the second reaches the first's last bound.
fn summary(lines: &[Value]) -> String {
    let [base, other] = TRAININGS.map(|training| course(lines, training.name));
    let mut table = format!(
        "| turn | {}: seconds | elbo:8 | {}: seconds | elbo:8 |\n| --- | --- | --- | --- | --- |\n",
        TRAININGS[0].name, TRAININGS[1].name
    );
    for (turn, ((a, b), (c, d))) in base.iter().zip(&other).enumerate() {
        table += &format!("| {} | {a:.0} | {b:.4} | {c:.0} | {d:.4} |\n", turn + 1);
    }
    let Some((whole, bound)) = base.last() else { return table };
    table += &match reached(&other, *bound) {
        Some(seconds) => format!(
            "\n{}: {bound:.4} after {whole:.0} s. {}: as low after {seconds:.0} s, {:.2} of that.\n",
            TRAININGS[0].name,
            TRAININGS[1].name,
            seconds / whole
        ),
        None => format!("\n{}: never as low as {bound:.4}.\n", TRAININGS[1].name),
    };
    table + "\nSeconds of training alone, without evaluations.\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(training: usize, seconds: f64, elbo: f64) -> Value {
        let name = TRAININGS[training].name;
        json!({ "training": name, "time": { "seconds": seconds }, "score": { "elbo": elbo } })
    }

    #[test]
    fn the_time_to_a_bound_is_that_of_the_first_turn_below_it() {
        let mut lines =
            vec![line(0, 30.0, 1.0), line(1, 6.0, 1.2), line(0, 30.0, 0.9), line(1, 6.0, 0.9)];
        let table = summary(&lines);
        assert!(table.contains("| 2 | 60 | 0.9000 | 12 | 0.9000 |"), "{table}");
        assert!(table.contains("after 12 s, 0.20 of that"), "{table}");
        lines.pop();
        assert!(summary(&lines).contains("never as low as 0.9000"));
        lines[1]["score"]["elbo"] = f64::NAN.into();
        assert!(summary(&lines).contains("never"), "NaN is no bound");
    }
}
