//! Runs the body of a test with the simulator's library as its `libcuda.so.1`.
//!
//! The loader reads its search path when a process starts, so the test starts itself again with the
//! path set. Must not know what the tests do.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Set in the process that runs the body.
const CHILD: &str = "PTXSIM_TEST_CHILD";

/// A folder that holds the library under the names that a program may ask for.
fn library_folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let executable = std::env::current_exe().expect("the test knows its own path");
        let beside = executable.parent().expect("a file has a folder");
        let built = [beside.join("libltm_ptxsim.so"), beside.join("../libltm_ptxsim.so")];
        let library =
            built.iter().find(|path| path.exists()).expect("cargo builds the cdylib first");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(std::process::id().to_string());
        std::fs::create_dir_all(&folder).expect("the test's folder can be made");
        for name in ["libcuda.so", "libcuda.so.1"] {
            let link = folder.join(name);
            let _ = std::fs::remove_file(&link);
            std::os::unix::fs::symlink(library, link).expect("the test's folder takes a link");
        }
        folder
    })
}

/// Runs `body` as test `name` of this executable in a process of its own, on the simulator, with
/// these variables set. Returns what that process printed; in the process itself, nothing.
pub fn on_simulator(name: &str, variables: &[(&str, &str)], body: impl FnOnce()) -> Option<String> {
    if std::env::var_os(CHILD).is_some() {
        body();
        return None;
    }
    let mut command = Command::new(std::env::current_exe().expect("the test knows its own path"));
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("PTXSIM_") {
            command.env_remove(variable);
        }
    }
    let output = command
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .env("LD_LIBRARY_PATH", library_folder())
        .env("PTXSIM_THREADS", "1")
        .envs(variables.iter().copied())
        .output()
        .expect("the test starts itself");
    let printed =
        [output.stdout, output.stderr].map(|one| String::from_utf8_lossy(&one).into_owned());
    let printed = printed.concat();
    assert!(output.status.success(), "{name} on the simulator:\n{printed}");
    assert!(printed.contains("1 passed"), "{name} is not the test's full name:\n{printed}");
    Some(printed)
}
