//! The development commands, one file per verb. Knows paths and commands, never a crate of the workspace.

#[macro_use]
#[path = "../../crates/ltm-cli/src/output/stream.rs"]
mod output;

mod bench;
mod browser;
#[path = "../../crates/ltm-kernels/src/registry/contract.rs"]
mod contract;
mod counters;
mod flags;
#[path = "../../crates/ltm-kernels/src/registry/folder.rs"]
mod folder;
mod gpu;
mod hf;
mod kernels;
mod mpi;
mod nvrtc;
#[path = "../../crates/ltm-ptxsim/src/device/occupancy.rs"]
#[expect(dead_code, reason = "the report has the share alone")]
mod occupancy;
mod package;
mod ptx;
mod python;
mod report;
mod serve;
mod sim;
mod targets;
mod test;
mod tidy;
mod toolkit;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};
use flags::Verb;

fn main() -> ExitCode {
    let verb = match flags::parse(std::env::args().skip(1)) {
        Ok(verb) => verb,
        Err(mistake) => {
            note!("error: {mistake}\n\n{}", flags::help());
            return ExitCode::from(2);
        }
    };
    let outcome = match verb {
        Verb::Help => outln!("{}", flags::help()).map_err(Into::into),
        Verb::Test { long } => test::run(long),
        Verb::Requests => serve::requests(),
        Verb::Clients => serve::clients(),
        Verb::Tidy => tidy::run(),
        Verb::Package => package::run(),
        Verb::Targets => targets::run(),
        Verb::Hf => hf::run(),
        Verb::Browser => browser::run(),
        Verb::Gpu => gpu::run(),
        Verb::Ptx(op) => ptx::run(op.as_deref()),
        Verb::Sim(None) => sim::run(),
        Verb::Sim(Some(op)) => sim::run_op(&op),
        Verb::Bench(bench) => bench::run(&bench),
        Verb::Step(step) => bench::step::run(&step),
        Verb::Quality(quality) => bench::quality::run(&quality),
        Verb::Load(load) => bench::load::run(&load),
        Verb::Roofline => bench::roofline::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            note!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The top of the workspace, as cargo names it at run time: two checkouts may share one target folder,
/// and then this program may have been built from the other.
fn root() -> PathBuf {
    let xtask = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or(env!("CARGO_MANIFEST_DIR").into());
    Path::new(&xtask).parent().expect("xtask is a folder of the workspace").to_owned()
}

/// Where cargo builds to.
fn target_dir() -> PathBuf {
    root().join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or("target".into()))
}

/// The cargo that runs this program, to be run from the top of the workspace.
fn cargo<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Shows a command, runs it with its output passed through, and fails unless it succeeds.
fn exec(command: &mut Command) -> Result<()> {
    let program = Path::new(command.get_program()).file_stem().unwrap_or_default();
    let args = command.get_args().collect::<Vec<_>>().join(OsStr::new(" "));
    let shown = format!("{} {}", program.display(), args.display());
    note!("$ {shown}");
    let status = command.status().with_context(|| format!("cannot start `{shown}`"))?;
    ensure!(status.success(), "`{shown}` failed ({status})");
    Ok(())
}
