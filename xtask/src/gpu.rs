//! `cargo xtask gpu`: one folder, `target/gpu`, with everything to verify and measure on a machine with a GPU, which needs
//! no Rust: the CUDA tests, the recorded numbers of the published model, the GPU bench, a filled kernel cache, what the
//! simulator computed, the simulator's library, and `run.sh`, which runs them in parts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::sim::{KERNELS, Simulator, TestProgram, test_programs};
use crate::{cargo, exec, root, target_dir};

/// Files of `benches/gpu/` that are copied into the folder.
const SCRIPTS: &[&str] = &["run.sh", "peers.py"];

/// The recorded numbers.
const FIXTURES: &str = "crates/ltm-model/tests/fixtures";

/// Its CUDA test starts the `ltm` command, as `run.sh` does itself.
const COMMAND: &str = "ltm-cli";

/// Names under which programs open the driver; the first is tried first, so a real driver must not win it.
const DRIVER_NAMES: [&str; 2] = ["libcuda.so", "libcuda.so.1"];

/// The capability whose kernels are compiled in advance.
const COMPILED_FOR: &str = "9.0";

/// The folder is to be sent to another machine; about 15 MB of it are compiled kernels.
const MOST_BYTES: u64 = 64_000_000;

/// Builds the folder from nothing and prints its size.
pub fn run() -> Result<()> {
    let mut simulator = Simulator::prepare()?;
    let mut tests = test_programs(&["--release"])?;
    tests.retain(|test| test.package != COMMAND);
    let kernels = tests.iter().find(|test| test.package == KERNELS);
    let kernels = kernels.with_context(|| format!("{KERNELS} has no `cuda` test"))?;
    // The whole workspace's features, as for the tests: nothing is compiled twice.
    exec(&mut cargo(["build", "--release", "--workspace", "--bin", "gpu", "--bin", "ltm"]))?;

    let folder = target_dir().join("gpu");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
    }
    for part in ["tests", "sim", "fixtures"] {
        fs::create_dir_all(folder.join(part)).with_context(|| folder.display().to_string())?;
    }
    for test in &tests {
        copy_stripped(&test.path, &folder.join("tests").join(&test.package))?;
    }
    for program in ["gpu", "ltm"] {
        copy_stripped(&target_dir().join("release").join(program), &folder.join(program))?;
    }
    for name in DRIVER_NAMES {
        copy_stripped(&simulator.library(), &folder.join("sim").join(name))?;
    }
    for script in SCRIPTS {
        copy(&root().join("benches/gpu").join(script), &folder.join(script))?;
    }
    for fixture in files(&root().join(FIXTURES))? {
        copy(&fixture, &folder.join("fixtures").join(fixture.file_name().unwrap_or_default()))?;
    }
    simulator.report = folder.join("sim/report.jsonl");
    dump(&simulator, kernels, &folder.join("sim/kernels.jsonl"))?;
    fs::remove_file(&simulator.report)?;
    let mut compile = Command::new(folder.join("gpu"));
    simulator.stand_in(&mut compile);
    compile.env("LTM_KERNEL_CACHE", folder.join("kernel-cache"));
    exec(compile.args(["compile", COMPILED_FOR]))?;
    fs::write(folder.join("commit"), commit())?;

    let bytes = size(&folder)?;
    ensure!(bytes <= MOST_BYTES, "{} has {bytes} bytes, at most {MOST_BYTES}", folder.display());
    note!(
        "{}: {:.1} MB; copy it to the machine with a GPU and run ./run.sh there",
        folder.display(),
        bytes as f64 / 1e6
    );
    Ok(())
}

/// Runs the kernel suite on the simulator and keeps its results, to compare the device's with.
fn dump(simulator: &Simulator, kernels: &TestProgram, to: &Path) -> Result<()> {
    let mut command = Command::new(&kernels.path);
    simulator.stand_in(&mut command);
    exec(command.arg("--quiet").env("LTM_DUMP", to).current_dir(&kernels.folder))
}

/// The files of a folder, in order of name.
fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.retain(|path| path.is_file());
    files.sort();
    Ok(files)
}

/// The commit that was built, with a mark when the tree differed from it.
fn commit() -> String {
    let describe =
        Command::new("git").args(["describe", "--always", "--dirty"]).current_dir(root()).output();
    match describe {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into(),
        _ => "unknown\n".into(),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

/// Copies a program or library without its debug information.
fn copy_stripped(from: &Path, to: &Path) -> Result<()> {
    copy(from, to)?;
    exec(Command::new("strip").arg("--strip-unneeded").arg(to))
}

fn size(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { size(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::process::Output;

    use tempfile::TempDir;

    use super::*;

    /// The bench: `rope` prints a line and fails; `slow` is interrupted while the file `wait` exists.
    const GPU: &str = r##"#!/bin/sh
case "$*" in
"kernels --list") printf 'adamw\nrope\nslow\n' ;;
*slow) [ ! -e wait ] || { kill -TERM $PPID; exit 143; }; echo '{"line":"slow"}' ;;
*rope) echo '{"line":"rope"}'; echo 'sticky error' >&2; exit 1 ;;
compare*) cat "$2" "$3"; echo "1 of 1 results compared" ;;
summary*) echo "# Summary"; cat "$2" ;;
*) echo '{"line":"'"$1"'"}' ;;
esac
"##;

    /// A test program with two modules and a test in none.
    const TESTS: &str = r##"#!/bin/sh
case "$1" in
--list) printf 'a::one: test\na::two: test\nb::one: test\nalone: test\n\n4 tests, 0 benchmarks\n' ;;
*) echo "$*" >>calls; echo '{}' >>"$LTM_DUMP" ;;
esac
"##;

    fn program(path: &Path, text: &str) {
        fs::write(path, text).expect("a temporary folder can be written");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(path, mode).expect("the file was written above");
    }

    /// A folder as `cargo xtask gpu` makes it, with small programs in place of the real ones.
    fn folder() -> TempDir {
        let folder = TempDir::new().expect("a temporary folder can be made");
        let path = folder.path();
        for part in ["tests", "sim", "fixtures"] {
            fs::create_dir(path.join(part)).expect("the folder is empty");
        }
        let script = root().join("benches/gpu/run.sh");
        program(&path.join("run.sh"), &read(&script));
        program(&path.join("gpu"), GPU);
        program(&path.join("ltm"), "#!/bin/sh\n");
        program(&path.join("tests/ltm-kernels"), TESTS);
        for (file, text) in
            [("commit", "abc\n"), ("sim/kernels.jsonl", ""), ("fixtures/a.safetensors", "")]
        {
            fs::write(path.join(file), text).expect("a temporary folder can be written");
        }
        folder
    }

    fn read(path: &Path) -> String {
        fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    fn run_script(folder: &TempDir, args: &[&str]) -> Output {
        let mut script = Command::new(folder.path().join("run.sh"));
        script.args(["--sim", "--out", "out"]).args(args).output().expect("bash is installed")
    }

    fn states(folder: &TempDir) -> Vec<(String, String)> {
        let output = run_script(folder, &["--list"]);
        let text = String::from_utf8(output.stdout).expect("the list is text");
        let state = |line: &str| line.split_once(' ').map(|(a, b)| (a.into(), b.trim().into()));
        text.lines().filter_map(state).collect()
    }

    #[test]
    fn a_failed_part_stops_no_other() {
        let folder = folder();
        let output = run_script(&folder, &[]);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        for (part, state) in states(&folder) {
            let is_rope = part == "kernels-rope";
            assert_eq!(state.starts_with("FAILED, status 1"), is_rope, "{part}: {state}");
            assert_eq!(state.starts_with("passed"), !is_rope, "{part}: {state}");
        }
        let out = folder.path().join("out");
        let lines = ["device", "kernels", "rope", "slow", "steps"]
            .map(|x| format!("{{\"line\":\"{x}\"}}\n"));
        assert_eq!(read(&out.join("raw.jsonl")), lines.concat());
        assert!(read(&out.join("summary.md")).ends_with(&lines.concat()));
        let readme = read(&out.join("README.md"));
        assert!(readme.contains("| kernels-rope | FAILED, status 1 ("), "{readme}");
        assert!(readme.contains("- device and simulator: 1 of 1 results compared"), "{readme}");
        assert!(String::from_utf8_lossy(&output.stdout).contains("sticky error"), "{output:?}");
        // Each group of tests ran in its own process.
        assert_eq!(read(&folder.path().join("calls")), "a::\n--exact alone\nb::\n");
    }

    #[test]
    fn an_interrupted_run_goes_on_where_it_stopped() {
        let folder = folder();
        fs::write(folder.path().join("wait"), "").expect("a temporary folder can be written");
        let output = run_script(&folder, &[]);
        assert_eq!(output.status.code(), Some(143), "{output:?}");
        let readme = read(&folder.path().join("out/README.md"));
        assert!(readme.contains("| kernels-slow | not run |"), "{readme}");
        let calls = read(&folder.path().join("calls"));

        fs::remove_file(folder.path().join("wait")).expect("written above");
        let output = run_script(&folder, &[]);
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.starts_with("kernels-slow: passed"), "only what was left: {text}");
        assert!(text.contains("1 failed, 0 left to run"), "{text}");
        assert_eq!(read(&folder.path().join("calls")), calls, "no test ran twice");

        // A named part runs again, alone; a comparison of replaced results is void.
        run_script(&folder, &["test-ltm-kernels-b"]);
        assert_eq!(read(&folder.path().join("calls")), calls + "b::\n");
        assert!(states(&folder).contains(&("compare".into(), "not run".into())));
        // Results of two builds are not mixed.
        fs::write(folder.path().join("commit"), "def\n")
            .expect("a temporary folder can be written");
        assert_eq!(run_script(&folder, &[]).status.code(), Some(2));
    }

    #[test]
    fn a_time_limit_leaves_parts_to_run() {
        let folder = folder();
        program(
            &folder.path().join("gpu"),
            &GPU.replace("summary*)", "device*) exec sleep 60 ;;\nsummary*)"),
        );
        let output = run_script(&folder, &["--limit", "1"]);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        assert!(
            String::from_utf8_lossy(&output.stdout).contains("0 failed, 11 left to run"),
            "{output:?}"
        );
    }

    #[test]
    fn wrong_options_are_refused() {
        let folder = folder();
        for args in [
            &["--limit", "0"][..],
            &["--limit"],
            &["--limit", "1h"],
            &["--fast"],
            &["no-such-part"],
        ] {
            let output = run_script(&folder, args);
            assert_eq!(output.status.code(), Some(2), "{args:?}: {output:?}");
            assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: "), "{output:?}");
        }
        // Without a device nothing else runs, and the next run checks again.
        program(
            &folder.path().join("gpu"),
            &GPU.replace("summary*)", "device*) exit 1 ;;\nsummary*)"),
        );
        assert_eq!(run_script(&folder, &[]).status.code(), Some(1));
        assert!(states(&folder).iter().all(|(_, state)| state == "not run"));
    }
}
