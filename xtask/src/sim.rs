//! `cargo xtask sim`: the CUDA tests on the simulator, which stands in for the driver as `libcuda.so.1`, and the
//! share of the shipped entry points that they executed. Needs no GPU and no driver. `cargo xtask sim <op>`: those
//! of one op, with its kernels as the working tree has them.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::kernels::KernelFile;
use crate::toolkit::{self, Toolkit};
use crate::{cargo, exec, kernels, root, target_dir};

/// When asynchronous copies land, and the order in which warps run. A copy that lands at once shows
/// a buffer overwritten too early, one that lands late a missing wait: neither shows both.
const SCHEDULES: &[(&str, &str)] = &[("eager", "1"), ("deferred", "2"), ("deferred", "3")];

/// The schedule under which kernels that stride over their grid get a single block, so that their
/// loops repeat.
const CAPPED: usize = 2;

/// The name under which programs open the driver.
const LIBRARY: &str = "libcuda.so.1";

/// The crate whose CUDA tests run under every schedule; those of the others run under the first.
pub const KERNELS: &str = "ltm-kernels";

/// Builds the simulator and the tests, runs them, and fails unless every entry point was executed.
pub fn run() -> Result<()> {
    let simulator = Simulator::prepare()?;
    let programs = test_programs(&[])?;
    ensure!(!programs.is_empty(), "no crate has a `cuda` test: crates/<crate>/tests/cuda.rs");
    oracle(&simulator.toolkit)?;
    run_programs(&simulator, &programs, &kernels::files(&root())?, None)
}

/// As [`run`], of one op: its entry points, and the tests of the kernels whose names contain it. The kernels are
/// read from the working tree, so that nothing is built again after one was edited.
pub fn run_op(op: &str) -> Result<()> {
    let files = kernels::files_of(&root(), op)?;
    let simulator = Simulator::prepare()?;
    let program = match kept_program()? {
        Some(program) => program,
        None => {
            let start = SystemTime::now();
            let mut programs = test_programs(&[])?;
            programs.retain(|program| program.package == KERNELS);
            let program = programs.pop().context("the kernels have no `cuda` test")?;
            let mut kept = fs::File::create(kept_path())?;
            write!(kept, "{}", program.path.display())?;
            // What was edited during the build may not be in it.
            kept.set_modified(start)?;
            program
        }
    };
    run_programs(&simulator, &[program], &files, Some(op))
}

/// Where the path of the kernels' test program is kept.
fn kept_path() -> PathBuf {
    target_dir().join("sim/kernels-test-program")
}

/// The kernels' test program, unless a source of it was changed since its path was kept.
fn kept_program() -> Result<Option<TestProgram>> {
    let Ok(path) = fs::read_to_string(kept_path()) else { return Ok(None) };
    let folder = root().join("crates").join(KERNELS);
    let program = TestProgram { package: KERNELS.into(), path: path.into(), folder };
    let kept = fs::metadata(kept_path())?.modified()?;
    let rooms = [
        program.folder.join("src"),
        program.folder.join("tests"),
        root().join("crates/ltm-testkit/src"),
    ];
    let mut sources = vec![root().join("Cargo.lock"), program.folder.join("Cargo.toml")];
    for room in rooms {
        files_below(&room, &mut sources)?;
    }
    let changed = |path: &PathBuf| Ok::<_, std::io::Error>(fs::metadata(path)?.modified()? > kept);
    for path in &sources {
        if changed(path)? {
            return Ok(None);
        }
    }
    Ok(program.path.exists().then_some(program))
}

/// Adds every file below a folder.
fn files_below(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files_below(&path, found)?;
        } else {
            found.push(path);
        }
    }
    Ok(())
}

/// Runs test programs under every schedule, those of one op or all, and fails unless the entry points of `files`
/// were executed.
fn run_programs(
    simulator: &Simulator,
    programs: &[TestProgram],
    files: &[KernelFile],
    op: Option<&str>,
) -> Result<()> {
    let striding = striding(files);
    if simulator.report.exists() {
        fs::remove_file(&simulator.report)?;
    }
    for program in programs {
        let schedules = if program.package == KERNELS { SCHEDULES } else { &SCHEDULES[..1] };
        for (i, (copies, seed)) in schedules.iter().enumerate() {
            let cap = if i == CAPPED { ", one block per grid-stride loop" } else { "" };
            note!("{}: copies {copies}, seed {seed}{cap}", program.package);
            let mut command = Command::new(&program.path);
            simulator.stand_in(&mut command);
            command.env("PTXSIM_ASYNC", copies).env("PTXSIM_SEED", seed);
            if let Some(op) = op {
                command.arg(op).env("LTM_KERNELS_DIR", root().join("kernels"));
            }
            if i == CAPPED && !striding.is_empty() {
                command.env("PTXSIM_GRID_CAP", format!("1:{}", striding.join(",")));
            }
            command.current_dir(&program.folder).env("CARGO_MANIFEST_DIR", &program.folder);
            exec(&mut command)?;
        }
    }
    let report = read_report(&simulator.report)?;
    repeated(&striding, &report)?;
    coverage(&shipped(files), &executed(&report)?)
}

/// NVIDIA's assembler, which no other stage needs; the folder `target/ptxas` is named by nothing else.
const PTXAS_WHEEL: &str = "nvidia-cuda-nvcc==13.0.88";

/// Compares the simulator with NVIDIA's assembler, where it is found or can be installed.
fn oracle(toolkit: &Toolkit) -> Result<()> {
    let Some(ptxas) = ptxas(toolkit) else {
        note!("skipped: no ptxas, and `python3 -m pip install {PTXAS_WHEEL}` fails");
        return Ok(());
    };
    let mut test = cargo(["test", "--workspace", "--test", "oracle"]);
    exec(test.env("PTXSIM_PTXAS", ptxas).env("PTXSIM_NVDISASM", &toolkit.nvdisasm))
}

/// Next to the disassembler, on `PATH`, installed before, or installed now.
fn ptxas(toolkit: &Toolkit) -> Option<PathBuf> {
    let on_path = std::env::var_os("PATH").unwrap_or_default();
    let folder = target_dir().join("ptxas");
    let installed = folder.join("nvidia/cu13/bin/ptxas");
    let found = std::iter::once(toolkit.nvdisasm.with_file_name("ptxas"))
        .chain(std::env::split_paths(&on_path).map(|at| at.join("ptxas")))
        .chain([installed.clone()])
        .find(|path| path.is_file());
    if found.is_some() {
        return found;
    }
    let aside = folder.with_extension(format!("{}.tmp", std::process::id()));
    let mut pip = toolkit::pip_install(&aside);
    pip.arg(PTXAS_WHEEL);
    if exec(&mut pip).is_err() || fs::rename(&aside, &folder).is_err() {
        // Whether another process was faster shows below.
        let _ = fs::remove_dir_all(&aside);
    }
    installed.is_file().then_some(installed)
}

/// Entries whose contract shares out elements among a limited number of blocks: `min(ceil(n/256), 2^14)`.
fn striding(files: &[KernelFile]) -> Vec<String> {
    let mut names = Vec::new();
    for file in files {
        names.extend(striding_entries(&file.contract.launch, &file.contract.entries));
    }
    names
}

/// Of a file's entries, those whose grid is limited. Where a contract has several grids, each stands
/// after the word that its entries' names hold.
fn striding_entries(launch: &str, entries: &[String]) -> Vec<String> {
    let mut names = Vec::new();
    for part in launch.split(';').map(str::trim).filter(|part| part.contains("(min(ceil(")) {
        let label = part.split_once(": grid").map(|(label, _)| label);
        names.extend(
            entries.iter().filter(|name| label.is_none_or(|label| name.contains(label))).cloned(),
        );
    }
    names
}

/// Fails unless each of these had fewer blocks than its launch asked for, so that its loop repeated.
fn repeated(striding: &[String], report: &str) -> Result<()> {
    let mut capped = BTreeSet::new();
    for line in report.lines().filter(|line| !line.is_empty()) {
        let launch: Value = serde_json::from_str(line).with_context(|| format!("in `{line}`"))?;
        if launch["capped"] == true {
            capped.extend(launch["kernel"].as_str().map(str::to_owned));
        }
    }
    let never: Vec<_> = striding.iter().filter(|name| !capped.contains(*name)).cloned().collect();
    ensure!(
        never.is_empty(),
        "no launch makes the loop of these kernels repeat: {}",
        never.join(" ")
    );
    Ok(())
}

/// The simulator's library, and what a program needs to take it for the driver.
pub struct Simulator {
    folder: PathBuf,
    toolkit: Toolkit,
    /// Where every launch leaves a line of JSON.
    pub report: PathBuf,
}

impl Simulator {
    /// Builds it and puts it where a loader takes it for the driver.
    pub fn prepare() -> Result<Self> {
        let toolkit = toolkit::find()?;
        exec(&mut cargo(["build", "--release", "--package", "ltm-ptxsim", "--lib"]))?;
        let folder = target_dir().join("sim");
        fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let built = target_dir().join("release/libltm_ptxsim.so");
        // A program that has the old library open keeps it.
        let aside = folder.join(format!("libcuda.{}.tmp", std::process::id()));
        fs::copy(&built, &aside).with_context(|| built.display().to_string())?;
        fs::rename(&aside, folder.join(LIBRARY))?;
        Ok(Self { report: folder.join("report.jsonl"), folder, toolkit })
    }

    /// The library's file.
    pub fn library(&self) -> PathBuf {
        self.folder.join(LIBRARY)
    }

    /// Lets a command find the simulator where it looks for the driver, and the compiler.
    pub fn stand_in(&self, command: &mut Command) {
        let mut path = OsString::from(&self.folder);
        path.push(":");
        path.push(self.toolkit.library_path());
        command.env("LD_LIBRARY_PATH", path).env("LTM_DEVICE", "cuda");
        command.env("PTXSIM_REPORT", &self.report);
        command.env("LTM_KERNEL_CACHE", target_dir().join("kernel-cache"));
    }
}

/// A built test program.
pub struct TestProgram {
    pub package: String,
    pub path: PathBuf,
    /// The package's folder, in which cargo would run it.
    pub folder: PathBuf,
}

/// Builds the `cuda` test of every crate that has one: in the workspace's features and, without more
/// `options`, the profile of `cargo test`, so that what that built is used again.
pub fn test_programs(options: &[&str]) -> Result<Vec<TestProgram>> {
    let mut build = cargo(["test", "--workspace", "--test", "cuda", "--no-run"]);
    build.args(options).arg("--message-format=json-render-diagnostics").stderr(Stdio::inherit());
    let output = build.output().context("cannot start cargo")?;
    ensure!(output.status.success(), "the CUDA tests do not build");
    programs(&String::from_utf8_lossy(&output.stdout))
}

/// The test programs that cargo's messages name.
fn programs(messages: &str) -> Result<Vec<TestProgram>> {
    let mut found = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line)?;
        let (Some(path), Some(manifest)) =
            (message["executable"].as_str(), message["manifest_path"].as_str())
        else {
            continue;
        };
        if message["target"]["name"] == "cuda" && message["target"]["kind"][0] == "test" {
            let folder = Path::new(manifest).parent().context("a manifest lies in a folder")?;
            let package = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.push(TestProgram { package, path: path.into(), folder: folder.to_owned() });
        }
    }
    found.sort_by(|a, b| a.folder.cmp(&b.folder));
    Ok(found)
}

/// A simulator's report; none when nothing was launched.
pub fn read_report(path: &Path) -> Result<String> {
    if !path.exists() {
        return Ok(String::new());
    }
    fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// The kernels that a report names.
fn executed(report: &str) -> Result<BTreeSet<String>> {
    let name = |line: &str| -> Result<String> {
        let launch: Value = serde_json::from_str(line).with_context(|| format!("in `{line}`"))?;
        let name = launch["kernel"].as_str().with_context(|| format!("no kernel in `{line}`"))?;
        Ok(name.to_owned())
    };
    report.lines().filter(|line| !line.is_empty()).map(name).collect()
}

/// The entry points of these files, op by op.
fn shipped(files: &[KernelFile]) -> BTreeMap<String, Vec<String>> {
    let mut entries: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files {
        let contract = &file.contract;
        entries.entry(contract.op.clone()).or_default().extend(contract.entries.clone());
    }
    entries
}

/// Prints the table and fails below 100 %.
fn coverage(shipped: &BTreeMap<String, Vec<String>>, executed: &BTreeSet<String>) -> Result<()> {
    outln!("{:<18} {:>8} {:>8}", "op", "executed", "shipped")?;
    let mut missing = Vec::new();
    let mut total = 0;
    for (op, entries) in shipped {
        let without: Vec<_> = entries.iter().filter(|entry| !executed.contains(*entry)).collect();
        outln!("{op:<18} {:>8} {:>8}", entries.len() - without.len(), entries.len())?;
        total += entries.len();
        missing.extend(without);
    }
    outln!("{:<18} {:>8} {total:>8}", "all", total - missing.len())?;
    let names: Vec<_> = missing.iter().map(|name| name.as_str()).collect();
    ensure!(names.is_empty(), "{} kernels were never executed: {}", names.len(), names.join(" "));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_programs_among_cargos_messages() {
        let messages = concat!(
            r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/ltm-vi/Cargo.toml","target":{"kind":["test"],"name":"cuda"},"executable":"/t/deps/cuda-2"}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/ltm-vi/Cargo.toml","target":{"kind":["lib"],"name":"ltm_vi"},"executable":null}"#,
            "\n",
            r#"{"reason":"compiler-artifact","manifest_path":"/w/crates/ltm-kernels/Cargo.toml","target":{"kind":["test"],"name":"cuda"},"executable":"/t/deps/cuda-1"}"#,
            "\n",
            r#"{"reason":"build-finished","success":true}"#,
            "\n",
        );
        let found = programs(messages).expect("the messages are JSON");
        let names: Vec<_> = found.iter().map(|p| (p.package.as_str(), p.path.as_path())).collect();
        assert_eq!(
            names,
            [("ltm-kernels", Path::new("/t/deps/cuda-1")), ("ltm-vi", Path::new("/t/deps/cuda-2"))]
        );
        assert_eq!(found[1].folder, Path::new("/w/crates/ltm-vi"));
    }

    #[test]
    fn entries_that_stride_over_their_grid() {
        let entries = ["a_increment_v1", "a_record_v1"].map(str::to_owned);
        let check = |launch: &str, expected: &[&str]| {
            assert_eq!(striding_entries(launch, &entries), expected, "{launch}");
        };
        check("grid (min(ceil(n/256), 2^14)), block (256)", &["a_increment_v1", "a_record_v1"]);
        check(
            "increment: grid (1); record: grid (min(ceil(n/256), 2^14)); block (256)",
            &["a_record_v1"],
        );
        check("grid (rows), block (256)", &[]);
        let files = kernels::files(&root()).expect("the kernels can be read");
        let all = striding(&files);
        assert!(all.iter().any(|name| name.starts_with("swiglu_fwd")), "{all:?}");
    }

    #[test]
    fn a_loop_that_never_repeats_is_named() {
        let report = "{\"kernel\":\"a\",\"capped\":true}\n{\"kernel\":\"b\",\"capped\":false}\n";
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(repeated(&names(&["a"]), report).is_ok());
        let error = repeated(&names(&["a", "b"]), report).expect_err("b never repeats");
        assert!(error.to_string().ends_with(": b"), "{error}");
    }

    #[test]
    fn a_kernel_that_never_ran_is_named() {
        let report = "{\"kernel\":\"a_f32_v1\",\"grid\":[1,1,1]}\n{\"kernel\":\"a_f32_v1\"}\n";
        let executed = executed(report).expect("the report is whole");
        let shipped = |entries: &[&str]| {
            BTreeMap::from([("a".to_owned(), entries.iter().map(ToString::to_string).collect())])
        };
        assert!(coverage(&shipped(&["a_f32_v1"]), &executed).is_ok());
        let error = coverage(&shipped(&["a_f32_v1", "a_bf16_v1"]), &executed)
            .expect_err("one kernel never ran");
        assert_eq!(error.to_string(), "1 kernels were never executed: a_bf16_v1");
        assert!(super::executed("{\"grid\":1}\n").is_err());
    }
}
