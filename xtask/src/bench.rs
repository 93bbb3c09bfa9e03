//! `cargo xtask bench [op]`: times the ops on the CPU or a GPU, or counts what they do on the simulator.

mod peers;
pub mod roofline;
mod runs;
mod shares;
pub mod step;
mod summary;
mod turns;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::flags::{Bench, Machine};
use crate::sim::{Simulator, read_report};
use crate::{cargo, exec, root, target_dir, toolkit};

/// Runs every op, or those whose name matches the filter: on the CPU a case may follow (`matmul/fwd`).
pub fn run(bench: &Bench) -> Result<()> {
    match bench.machine {
        Machine::Cpu => on_the_cpu(bench.op.as_deref()),
        Machine::Sim => on_the_simulator(bench),
        Machine::Cuda => {
            let mut command = gpu(bench)?;
            command.env("LD_LIBRARY_PATH", toolkit::find()?.library_path());
            exec(&mut command)
        }
    }
}

fn on_the_cpu(filter: Option<&str>) -> Result<()> {
    let mut args = vec!["bench", "--package", "ltm-bench", "--bench", "ops"];
    if let Some(filter) = filter {
        // Criterion says nothing when a filter matches nothing.
        let op = filter.split('/').next().unwrap_or(filter);
        let ops = benched_ops()?;
        ensure!(
            ops.iter().any(|known| known == op),
            "no bench for `{op}`; there are: {}",
            ops.join(" ")
        );
        args.extend(["--", filter]);
    }
    let peak = roofline::peak()?;
    let started = std::time::SystemTime::now();
    exec(&mut cargo(args))?;
    print!("\n{}", shares::table(&target_dir().join("criterion"), &peak, started)?);
    Ok(())
}

/// Checks the small shapes and prints what each kernel did; a simulator has no times.
fn on_the_simulator(bench: &Bench) -> Result<()> {
    let mut simulator = Simulator::prepare()?;
    simulator.report = target_dir().join("sim/bench.jsonl");
    if simulator.report.exists() {
        std::fs::remove_file(&simulator.report)?;
    }
    let mut command = gpu(bench)?;
    simulator.stand_in(&mut command);
    let outcome = exec(command.arg("--once"));
    print!("{}", counters(&read_report(&simulator.report)?)?);
    outcome
}

/// The GPU bench, built, with the arguments that both ways of running it share.
fn gpu(bench: &Bench) -> Result<Command> {
    exec(&mut cargo(["build", "--release", "--package", "ltm-bench", "--bin", "gpu"]))?;
    let mut command = Command::new(target_dir().join("release/gpu"));
    command.arg("kernels").args(&bench.op);
    if let Some(rung) = bench.rung {
        command.args(["--rung", &rung.to_string()]);
    }
    Ok(command)
}

/// The counters of a simulator's report: a paragraph a kernel, summed over its launches.
fn counters(report: &str) -> Result<String> {
    let mut kernels: BTreeMap<String, (u64, BTreeMap<String, u64>)> = BTreeMap::new();
    let mut held: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in report.lines().filter(|line| !line.is_empty()) {
        let launch: Value = serde_json::from_str(line).with_context(|| format!("in `{line}`"))?;
        let name = launch["kernel"].as_str().with_context(|| format!("no kernel in `{line}`"))?;
        held.entry(name.to_owned()).or_default().extend(occupancy(&launch["occupancy"]));
        let (launches, sums) = kernels.entry(name.to_owned()).or_default();
        *launches += 1;
        for (counter, value) in launch["counters"].as_object().into_iter().flatten() {
            *sums.entry(counter.clone()).or_default() += value.as_u64().unwrap_or(0);
        }
    }
    let mut text = String::new();
    for (name, (launches, sums)) in kernels {
        text += &format!("{name}: {launches} launches\n");
        for (counter, sum) in sums.iter().filter(|(_, sum)| **sum > 0) {
            text += &format!("  {counter:<28} {sum:>14}\n");
        }
        held.get(&name).into_iter().flatten().for_each(|held| text += &format!("  {held}\n"));
    }
    Ok(text)
}

/// What a multiprocessor holds of a launch, where the report tells.
fn occupancy(held: &Value) -> Option<String> {
    let (blocks, warps) = (held["blocks"].as_u64()?, held["warps"].as_u64()?);
    let (percent, limit) = (100.0 * held["share"].as_f64()?, held["limit"].as_str()?);
    Some(format!("occupancy {blocks} blocks, {warps} warps, {percent:.0} %, limited by {limit}"))
}

/// The ops with a file in `benches/ops/`, in order of name.
fn benched_ops() -> Result<Vec<String>> {
    let folder = root().join("benches/ops");
    let entries = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut ops = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if let Some(op) = path.file_stem().and_then(|stem| stem.to_str())
            && op != "main"
        {
            ops.push(op.to_owned());
        }
    }
    ops.sort();
    Ok(ops)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_summed_over_launches() {
        let held = r#""occupancy":{"blocks":2,"warps":16,"share":0.25,"limit":"threads"}"#;
        let first = format!(r#"{{"kernel":"a",{held},"counters":{{"sectors":3,"flops":0}}}}"#);
        let report = format!(
            r#"{first}
{{"kernel":"a",{held},"counters":{{"sectors":4,"flops":0}}}}
"#
        );
        let text = counters(&report).expect("the report is whole");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "a: 2 launches");
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["sectors", "7"]);
        assert_eq!(lines[2], "  occupancy 2 blocks, 16 warps, 25 %, limited by threads");
        assert_eq!(lines.len(), 3, "a counter of 0 is left out, and nothing is told twice");
        assert!(counters("not json").is_err());
    }
}
