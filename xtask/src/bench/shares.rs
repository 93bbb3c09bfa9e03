//! What the CPU benches of this run reached: a line a case, with its share of the machine's roofline. Reads what
//! criterion leaves in its folder, runs nothing.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context, Result};
use serde_json::Value;

use super::roofline::Peak;

/// What criterion measured of one case.
struct Case {
    name: String,
    seconds: f64,
    flops: f64,
    bytes: f64,
}

/// The cases that criterion wrote since `started`, as Markdown.
///
/// A share is the time that the case takes at least, at the peak of `f32` multiply-adds or at the memory's bandwidth,
/// whichever is longer, over the time that it took. It passes 100 % where the data stays in a cache.
pub fn table(folder: &Path, peak: &Peak, started: SystemTime) -> Result<String> {
    let mut cases = Vec::new();
    for op in entries(folder)? {
        for case in entries(&op)? {
            let (benchmark, estimates) =
                (case.join("new/benchmark.json"), case.join("new/estimates.json"));
            let written = fs::metadata(&estimates).and_then(|file| file.modified());
            if written.is_ok_and(|written| written >= started) {
                cases.push(read(&benchmark, &estimates)?);
            }
        }
    }
    cases.sort_by(|a, b| a.name.cmp(&b.name));
    let mut text = format!(
        "{} threads: {:.0} GFLOP/s of f32, {:.1} GB/s\n\n\
         | case | ms | GFLOP/s | GB/s | share of roofline | bound by |\n| --- | --- | --- | --- | --- | --- |\n",
        peak.threads, peak.gflop_s, peak.gb_s
    );
    for Case { name, seconds, flops, bytes } in cases {
        let (gflop_s, gb_s) = (flops / seconds / 1e9, bytes / seconds / 1e9);
        let (arithmetic, memory) = (gflop_s / peak.gflop_s, gb_s / peak.gb_s);
        let bound = if arithmetic >= memory { "arithmetic" } else { "memory" };
        text += &format!(
            "| {name} | {:.3} | {gflop_s:.1} | {gb_s:.1} | {:.0} % | {bound} |\n",
            1e3 * seconds,
            100.0 * arithmetic.max(memory),
        );
    }
    Ok(text)
}

/// The folders in a folder; none where it is not there.
fn entries(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    Ok(paths.into_iter().filter(|path| path.is_dir()).collect())
}

/// One case from criterion's two files: times are in nanoseconds, operations are its elements.
fn read(benchmark: &Path, estimates: &Path) -> Result<Case> {
    let json = |path: &Path| -> Result<Value> {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        serde_json::from_str(&text).with_context(|| path.display().to_string())
    };
    let (benchmark, estimates) = (json(benchmark)?, json(estimates)?);
    let number = |value: &Value, what: &str| {
        value.as_f64().with_context(|| format!("criterion's files have no {what}"))
    };
    let cost = &benchmark["throughput"]["ElementsAndBytes"];
    Ok(Case {
        name: benchmark["full_id"].as_str().context("criterion's files have no full_id")?.into(),
        seconds: 1e-9 * number(&estimates["median"]["point_estimate"], "median")?,
        flops: number(&cost["elements"], "operations")?,
        bytes: number(&cost["bytes"], "bytes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_is_held_to_the_nearer_roof() {
        let top = std::env::temp_dir().join(format!("xtask-shares-{}", std::process::id()));
        let write = |case: &str, elements: u64, bytes: u64| {
            let new = top.join("op").join(case).join("new");
            fs::create_dir_all(&new).expect("a temporary folder can be made");
            let benchmark = format!(
                r#"{{"full_id":"op/{case}","throughput":{{"ElementsAndBytes":{{"elements":{elements},"bytes":{bytes}}}}}}}"#
            );
            fs::write(new.join("benchmark.json"), benchmark).expect("a file can be written");
            let estimates = r#"{"median":{"point_estimate":1e6}}"#; // a millisecond
            fs::write(new.join("estimates.json"), estimates).expect("a file can be written");
        };
        write("a", 50_000_000, 1_000_000);
        write("b", 1_000_000, 4_000_000);
        let peak = Peak { threads: 1, gflop_s: 100.0, gb_s: 10.0 };
        let long_ago = SystemTime::UNIX_EPOCH;
        let text = table(&top, &peak, long_ago).expect("both cases are whole");
        assert!(text.contains("| op/a | 1.000 | 50.0 | 1.0 | 50 % | arithmetic |"), "{text}");
        assert!(text.contains("| op/b | 1.000 | 1.0 | 4.0 | 40 % | memory |"), "{text}");
        let later = SystemTime::now() + std::time::Duration::from_secs(60);
        assert!(!table(&top, &peak, later).expect("no case is new").contains("op/a"));
        fs::remove_dir_all(&top).expect("what was made can be removed");
    }
}
