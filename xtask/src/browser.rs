//! `cargo xtask browser`: the explorer, driven in headless Chromium. Trains a small model, writes its page, and runs a
//! script that clicks, exports and takes screenshots.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::{cargo, exec, root, target_dir};

/// Drives the browser, which the system provides.
const DRIVER: &str = "playwright-core@1.65.1";

/// Names under which the browser goes.
const BROWSERS: &[&str] = &["chromium", "chromium-browser", "google-chrome"];

/// Steps after which the latents of the quickstart's model say something.
const STEPS: &str = "train.steps=400";

/// Runs the script. Without a browser, or where its driver cannot be installed, the stage is skipped, with a word.
pub fn run() -> Result<()> {
    let folder = target_dir().join("browser");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let chromium = match ready(&folder) {
        Ok(chromium) => chromium,
        Err(error) => {
            note!("browser skipped: {error:#}");
            return Ok(());
        }
    };
    let (run, page) = (folder.join("run"), folder.join("page.html"));
    if run.exists() {
        fs::remove_dir_all(&run).with_context(|| run.display().to_string())?;
    }
    if page.exists() {
        fs::remove_file(&page).with_context(|| page.display().to_string())?;
    }
    let ltm = || cargo(["run", "--quiet", "--package", "ltm-cli", "--"]);
    let dir = format!("run.dir={}", run.display());
    let set = ["--set", &dir, "--set", STEPS, "--set", "data.documents=20000"];
    exec(ltm().args(["train", "configs/quickstart.toml"]).args(set))?;
    exec(ltm().arg("explore").arg(&run).arg("--out").arg(&page))?;
    let script = root().join("xtask/src/browser/explorer.mjs");
    let mut node = Command::new("node");
    exec(node.arg(script).arg(&page).arg(&folder).arg(chromium).current_dir(&folder))?;
    note!("screenshots are in {}", folder.display());
    Ok(())
}

/// The browser, with its driver installed in a folder.
fn ready(folder: &Path) -> Result<PathBuf> {
    let chromium = env::var_os("LTM_CHROMIUM").map(PathBuf::from).or_else(|| {
        let path = env::var_os("PATH")?;
        let names = |dir: PathBuf| BROWSERS.iter().map(move |name| dir.join(name));
        env::split_paths(&path).flat_map(names).find(|file| file.is_file())
    });
    let chromium = chromium.with_context(|| {
        format!("none of {} is installed, and LTM_CHROMIUM names none", BROWSERS.join(", "))
    })?;
    let done = folder.join("installed");
    if fs::read_to_string(&done).is_ok_and(|found| found == DRIVER) {
        return Ok(chromium);
    }
    note!("installing {DRIVER} into {}", folder.display());
    let mut npm = Command::new("npm");
    npm.args(["install", "--no-save", "--no-audit", "--no-fund", "--prefix"]).arg(folder);
    let status = npm.arg(DRIVER).stdout(Stdio::null()).status();
    let status = status.context("npm, which comes with Node.js, is needed")?;
    ensure!(status.success(), "npm cannot install {DRIVER}");
    fs::write(&done, DRIVER).with_context(|| done.display().to_string())?;
    Ok(chromium)
}
