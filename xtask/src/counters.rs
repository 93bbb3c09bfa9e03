//! The simulator's report of launches as a table: a kernel's waste in one line. Reads JSON, runs nothing.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::{Map, Value};

/// Classes of instructions, in the order in which they are printed.
const CLASSES: &[&str] = &[
    "integer",
    "f32",
    "f64",
    "half",
    "special",
    "mma",
    "global",
    "shared",
    "local",
    "async_copy",
    "warp",
    "barrier",
    "control",
];

/// Counters with their own column; other counters of a report follow the classes.
const COLUMNS: &[&str] = &[
    "active_lanes",
    "divergent_branches",
    "sectors",
    "ideal_sectors",
    "shared_wavefronts",
    "ideal_wavefronts",
];

/// A kernel's counters, summed over its launches.
#[derive(Default)]
struct Kernel {
    launches: u64,
    sums: BTreeMap<String, u64>,
    /// Of the last launch: what a multiprocessor holds of it.
    occupancy: Option<String>,
}

impl Kernel {
    fn sum(&self, counter: &str) -> u64 {
        self.sums.get(counter).copied().unwrap_or(0)
    }

    fn instructions(&self) -> u64 {
        CLASSES.iter().map(|class| self.sum(class)).sum()
    }
}

/// The table: two lines a kernel, the second with its instructions by class.
pub fn table(report: &str) -> Result<String> {
    let mut text = format!(
        "{:<44} {:>8} {:>12} {:>6} {:>18} {:>18} {:>9}  {}\n",
        "kernel",
        "launches",
        "instructions",
        "lanes",
        "sectors",
        "bank passes",
        "diverged",
        "occupancy"
    );
    for (name, kernel) in kernels(report)? {
        text += &line(&name, &kernel);
        text += &details(&kernel);
    }
    text += "lanes: of 32 in a warp; sectors and bank passes: how many, and how many times the least for the bytes that all \
             lanes ask for, below 1 where lanes ask for the same\n";
    Ok(text)
}

fn kernels(report: &str) -> Result<BTreeMap<String, Kernel>> {
    let mut kernels: BTreeMap<String, Kernel> = BTreeMap::new();
    for line in report.lines().filter(|line| !line.is_empty()) {
        let launch: Value = serde_json::from_str(line).with_context(|| format!("in `{line}`"))?;
        let name = launch["kernel"].as_str().with_context(|| format!("no kernel in `{line}`"))?;
        let kernel = kernels.entry(name.to_owned()).or_default();
        kernel.launches += 1;
        for (counter, value) in launch["counters"].as_object().into_iter().flatten() {
            *kernel.sums.entry(counter.clone()).or_default() += value.as_u64().unwrap_or(0);
        }
        if let Some(fields) = launch["occupancy"].as_object() {
            kernel.occupancy = Some(occupancy(fields));
        }
    }
    Ok(kernels)
}

/// The share of warps and what limits it, or the fields as they come.
fn occupancy(fields: &Map<String, Value>) -> String {
    let known = fields.get("share").and_then(Value::as_f64);
    match (known, fields.get("limit").and_then(Value::as_str)) {
        (Some(share), Some(limit)) => format!("{:.0} % ({limit})", 100.0 * share),
        _ => fields.iter().map(|(key, value)| format!("{key} {value} ")).collect(),
    }
}

fn line(name: &str, kernel: &Kernel) -> String {
    let instructions = kernel.instructions();
    let lanes = share(kernel.sum("active_lanes"), 32 * instructions);
    let sectors = times(kernel.sum("sectors"), kernel.sum("ideal_sectors"));
    let passes = times(kernel.sum("shared_wavefronts"), kernel.sum("ideal_wavefronts"));
    let diverged = kernel.sum("divergent_branches");
    let occupancy = kernel.occupancy.as_deref().unwrap_or("-");
    let launches = kernel.launches;
    format!(
        "{name:<44} {launches:>8} {instructions:>12} {lanes:>6} {sectors:>18} {passes:>18} {diverged:>9}  {occupancy}\n"
    )
}

fn details(kernel: &Kernel) -> String {
    let instructions = kernel.instructions();
    let mut parts: Vec<_> = CLASSES
        .iter()
        .filter(|class| kernel.sum(class) > 0)
        .map(|class| format!("{class} {}", share(kernel.sum(class), instructions)))
        .collect();
    let is_told = |counter: &str| CLASSES.contains(&counter) || COLUMNS.contains(&counter);
    let others = kernel.sums.iter().filter(|(counter, sum)| !is_told(counter) && **sum > 0);
    parts.extend(others.map(|(counter, sum)| format!("{counter} {sum}")));
    format!("    {}\n", parts.join(", "))
}

fn share(part: u64, whole: u64) -> String {
    if whole == 0 { "-".into() } else { format!("{:.0} %", 100.0 * part as f64 / whole as f64) }
}

fn times(count: u64, ideal: u64) -> String {
    if ideal == 0 { "-".into() } else { format!("{count} ×{:.2}", count as f64 / ideal as f64) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kernel_is_told_in_two_lines() {
        let report = r#"{"kernel":"a","counters":{"integer":30,"f32":10,"f64":0,"active_lanes":640,"sectors":6,"ideal_sectors":4,"flops":7}}
{"kernel":"a","occupancy":{"share":0.5,"limit":"registers"},"counters":{"integer":30,"f32":10,"active_lanes":640,"sectors":6,"ideal_sectors":4,"flops":7}}

{"kernel":"b","occupancy":null,"counters":{}}
"#;
        let text = table(report).expect("the report is whole");
        let lines: Vec<Vec<_>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(
            lines[1],
            ["a", "2", "80", "50", "%", "12", "×1.50", "-", "0", "50", "%", "(registers)"]
        );
        assert_eq!(lines[2].join(" "), "integer 75 %, f32 25 %, flops 14");
        assert_eq!(lines[3], ["b", "1", "0", "-", "-", "-", "0", "-"]);
        assert!(table("not json").is_err());
        assert!(table("{\"counters\":{}}").is_err());
    }

    #[test]
    fn occupancy_of_another_form_is_told_as_it_comes() {
        let fields = serde_json::json!({ "blocks": 2 });
        assert_eq!(occupancy(fields.as_object().expect("an object")), "blocks 2 ");
    }
}
