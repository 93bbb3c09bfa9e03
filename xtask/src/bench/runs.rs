//! A kept run: a folder `benches/runs/<date>-<what>-<processor>/` with command, machine, raw lines and summary. Runs no bench.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;

use super::turns::{cpu_features, cpu_name, memory_gib};
use crate::root;

/// Writes a new folder, named by `what` was measured; the second of a day on a processor has the suffix `-2`.
pub fn save(what: &str, lines: &[Value], summary: &str) -> Result<()> {
    let words: Vec<_> = std::env::args().skip(1).filter(|word| word != "--save").collect();
    let command = format!("cargo xtask {}", words.join(" "));
    let name = format!("{}-{what}-{}", output("date", &["+%F"]), slug(&cpu_name()));
    let names = std::iter::once(name.clone()).chain((2..).map(|i| format!("{name}-{i}")));
    let mut folders = names.map(|name| root().join("benches/runs").join(name));
    let folder = folders.find(|folder| !folder.exists()).expect("there is always another number");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let readme = format!(
        "# {command}\n\nCommit {}.\n{} ({}), {} cores, {} GiB.\n{}.\n{}.\n",
        output("git", &["describe", "--always", "--dirty"]),
        cpu_name(),
        cpu_features(),
        std::thread::available_parallelism().map_or(0, usize::from),
        memory_gib(),
        output("uname", &["-sr"]),
        output("rustc", &["--version"]),
    );
    let raw: String = lines.iter().map(|line| format!("{line}\n")).collect();
    for (file, text) in
        [("README.md", readme.as_str()), ("raw.jsonl", &raw), ("summary.md", summary)]
    {
        fs::write(folder.join(file), text).with_context(|| folder.display().to_string())?;
    }
    note!("kept in {}", folder.display());
    Ok(())
}

/// What a program prints, or `unknown` where it is missing or fails.
fn output(program: &str, args: &[&str]) -> String {
    match Command::new(program).args(args).current_dir(root()).output() {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().into()
        }
        _ => "unknown".into(),
    }
}

/// A processor's name as part of a folder's: `Intel(R) Xeon(R) Processor` is `intel-xeon`.
fn slug(name: &str) -> String {
    let model = name.split('@').next().unwrap_or(name).replace("(R)", " ").replace("(TM)", " ");
    let model = model.to_lowercase();
    let words = model.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !["", "processor", "cpu"].contains(word));
    words.collect::<Vec<_>>().join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_processors_name_makes_a_folder() {
        assert_eq!(slug("Intel(R) Xeon(R) Processor"), "intel-xeon");
        assert_eq!(slug("AMD EPYC 9B14 @ 2.6GHz"), "amd-epyc-9b14");
    }
}
