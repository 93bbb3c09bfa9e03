//! `cargo xtask bench [op]`: times the ops on the CPU or a GPU, or counts what they do on the simulator.

pub mod load;
mod peers;
pub mod quality;
pub mod roofline;
mod runs;
mod shares;
pub mod step;
mod summary;
mod turns;

use std::process::Command;

use anyhow::Result;

use crate::flags::{Bench, Machine};
use crate::sim::{Simulator, read_report};
use crate::{cargo, counters, exec, target_dir, toolkit};

/// Runs every op, or those whose name matches the filter: on the CPU a case may follow (`matmul/fwd`).
pub fn run(bench: &Bench) -> Result<()> {
    match bench.machine {
        Machine::Cpu => on_the_cpu(bench),
        Machine::Sim => on_the_simulator(bench),
        Machine::Cuda => {
            let mut command = gpu(bench)?;
            command.env("LD_LIBRARY_PATH", toolkit::find()?.library_path());
            exec(&mut command)
        }
    }
}

fn on_the_cpu(bench: &Bench) -> Result<()> {
    let mut args = vec!["bench", "--package", "ltm-bench", "--bench", "ops"];
    if let Some(filter) = bench.op.as_deref() {
        args.extend(["--", filter]);
    }
    let peak = roofline::peak()?;
    let started = std::time::SystemTime::now();
    let mut ops = cargo(args);
    // Criterion reads the program's arguments and would refuse it.
    ops.envs(bench.shape.as_ref().map(|shape| ("LTM_BENCH_SHAPE", shape)));
    exec(&mut ops)?;
    let shares = shares::table(&target_dir().join("criterion"), &peak, started)?;
    outln!("\n{}", shares.trim_end())?;
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
    let counters = counters::table(&read_report(&simulator.report)?)?;
    outln!("\n{}", counters.trim_end())?;
    outcome
}

/// The GPU bench, built, with the arguments that both ways of running it share.
fn gpu(bench: &Bench) -> Result<Command> {
    exec(&mut cargo(["build", "--release", "--package", "ltm-bench", "--bin", "gpu"]))?;
    let mut command = Command::new(target_dir().join("release/gpu"));
    command.arg("kernels").args(&bench.op);
    if let Some(shape) = &bench.shape {
        command.args(["--shape", shape]);
    }
    if let Some(rung) = bench.rung {
        command.args(["--rung", &rung.to_string()]);
    }
    Ok(command)
}
