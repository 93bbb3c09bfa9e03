//! `cargo xtask bench roofline`: what the processor and the memory can do at most, as a table and for other benches.

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::{cargo, exec, target_dir};

/// The two roofs that an op on the CPU stays under, with this many threads.
pub struct Peak {
    pub threads: u64,
    /// The best multiply-add rate of `f32`.
    pub gflop_s: f64,
    /// The better of copy and triad.
    pub gb_s: f64,
}

/// Measures and prints the peaks of one thread and of all.
pub fn run() -> Result<()> {
    outln!("{}", table(&measure()?).trim_end())?;
    Ok(())
}

/// Measures the peak of all threads.
pub fn peak() -> Result<Peak> {
    let lines = measure()?;
    let line = lines.last().context("the roofline bench printed nothing")?;
    let rates = line["gflop_s"].as_object().into_iter().flatten();
    let of_f32 = rates.filter(|(name, _)| name.starts_with("f32"));
    let best = |values: &mut dyn Iterator<Item = f64>| values.fold(0.0, f64::max);
    let bandwidths = ["copy_gb_s", "triad_gb_s"].map(|name| line[name].as_f64().unwrap_or(0.0));
    Ok(Peak {
        threads: line["threads"].as_u64().unwrap_or(0),
        gflop_s: best(&mut of_f32.filter_map(|(_, rate)| rate.as_f64())),
        gb_s: best(&mut bandwidths.into_iter()),
    })
}

/// A line for one thread and one for all.
fn measure() -> Result<Vec<Value>> {
    exec(&mut cargo(["build", "--release", "--package", "ltm-bench", "--bin", "roofline"]))?;
    let program = target_dir().join("release/roofline");
    let output = std::process::Command::new(&program).output();
    let output = output.with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr).trim());
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    lines.lines().map(|line| serde_json::from_str(line).context("the roofline bench")).collect()
}

/// The lines as Markdown, a column a number of threads.
fn table(lines: &[Value]) -> String {
    let mut text = String::from("| peak |");
    let row = |name: &str, unit: &str, read: &dyn Fn(&Value) -> Option<f64>| {
        let rates = lines.iter().map(|line| format!(" {:.1} |", read(line).unwrap_or(0.0)));
        format!("| {name}, {unit} |{}\n", rates.collect::<String>())
    };
    for line in lines {
        let plural = if line["threads"] == 1 { "" } else { "s" };
        text += &format!(" {} thread{plural} |", line["threads"]);
    }
    text += &format!("\n| --- |{}\n", " --- |".repeat(lines.len()));
    let units = lines.first().and_then(|line| line["gflop_s"].as_object());
    for name in units.into_iter().flat_map(|units| units.keys()) {
        text += &row(name, "GFLOP/s", &|line| line["gflop_s"][name.as_str()].as_f64());
    }
    text += &row("copy", "GB/s", &|line| line["copy_gb_s"].as_f64());
    text + &row("triad", "GB/s", &|line| line["triad_gb_s"].as_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_column_for_each_number_of_threads() {
        let line = |threads: u64| {
            let rate = 100.0 * threads as f64;
            json!({ "threads": threads, "gflop_s": { "f32": rate }, "copy_gb_s": 20.0, "triad_gb_s": 15.5 })
        };
        let text = table(&[line(1), line(2)]);
        assert!(
            text.starts_with("| peak | 1 thread | 2 threads |\n| --- | --- | --- |\n"),
            "{text}"
        );
        assert!(text.contains("| f32, GFLOP/s | 100.0 | 200.0 |\n"), "{text}");
        assert!(text.ends_with("| triad, GB/s | 15.5 | 15.5 |\n"), "{text}");
    }
}
