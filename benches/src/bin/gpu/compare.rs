//! Two devices' records of the kernel suite against each other. Knows what a record looks like, no kernel.
//!
//! Both ran the same kernels on the same inputs, and each result was held to the reference within a tolerance
//! `abs + rel·|x|`: `abs` bounds the roundings inside a sum, `rel` the last one, when the result is stored.
//! Most roundings are one and the same on both, and cancel in the difference. Those that are not, in approximate
//! functions and within tensor cores, are among those that `abs` counts, and together may not exceed it.
//! A last rounding may go one way here and the other way there, so that `rel` is used twice. Hence
//!
//! `|device − simulator| <= abs + 2·rel·|simulator|`,
//!
//! and results whose tolerance is zero have the same bits.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use ltm_bench::outln;
use serde::Deserialize;

/// The two records.
#[derive(Args)]
pub struct Options {
    /// What the simulator computed: the LTM_DUMP of the kernel suite.
    simulator: PathBuf,
    /// What the device computed.
    device: PathBuf,
}

/// One checked result.
#[derive(Deserialize)]
struct Record {
    case: String,
    abs: f64,
    rel: f64,
    /// `None` is a number that JSON does not have.
    values: Vec<Option<f64>>,
}

/// Prints how close they are; fails when a case is missing or too far off.
pub fn run(options: &Options) -> Result<()> {
    let read = |path: &Path| {
        let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
        records(&text).with_context(|| path.display().to_string())
    };
    outln!("{}", compare(&read(&options.simulator)?, &read(&options.device)?)?)?;
    Ok(())
}

/// Records by case and, where a case was checked more than once, by how often before.
type Records = BTreeMap<(String, usize), Record>;

fn records(text: &str) -> Result<Records> {
    let mut records = Records::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for line in text.lines() {
        let record: Record = serde_json::from_str(line).with_context(|| format!("in `{line}`"))?;
        let times = seen.entry(record.case.clone()).or_default();
        records.insert((record.case.clone(), *times), record);
        *times += 1;
    }
    Ok(records)
}

/// One line on how close two records are.
fn compare(simulator: &Records, device: &Records) -> Result<String> {
    ensure!(!simulator.is_empty(), "the simulator's record is empty");
    for (one, other, whose) in
        [(simulator, device, "the device"), (device, simulator, "the simulator")]
    {
        if let Some((case, times)) = one.keys().find(|key| !other.contains_key(*key)) {
            bail!("{whose} has no record {times} of `{case}`");
        }
    }
    let (mut numbers, mut equal) = (0, 0);
    let mut worst = (0.0, "none differs");
    let mut failed = Vec::new();
    for (key, expected) in simulator {
        let actual = &device[key];
        let (found, wanted) = (actual.values.len(), expected.values.len());
        ensure!(found == wanted, "`{}` has {found} and {wanted} numbers", expected.case);
        let mut of_case = 0.0f64;
        for (actual, expected_value) in actual.values.iter().zip(&expected.values) {
            numbers += 1;
            equal += usize::from(actual == expected_value);
            let share = share_used(*actual, *expected_value, expected.abs, expected.rel);
            of_case = of_case.max(share);
        }
        if of_case > worst.0 {
            worst = (of_case, &expected.case);
        }
        if of_case > 1.0 {
            failed.push(format!("{of_case:.3} times the bound: {}", expected.case));
        }
    }
    ensure!(failed.is_empty(), "too far from the simulator:\n{}", failed.join("\n"));
    let (share, case) = worst;
    let cases = simulator.len();
    let same = 100.0 * equal as f64 / numbers as f64;
    Ok(format!(
        "{cases} cases, {numbers} numbers, {same:.2} % the same bits; the worst uses {share:.3} of its bound: {case}"
    ))
}

/// The distance as a share of what is allowed: infinite where only one is a number.
fn share_used(actual: Option<f64>, expected: Option<f64>, abs: f64, rel: f64) -> f64 {
    if actual == expected {
        return 0.0; // also where nothing is allowed, and where neither is a number
    }
    let (Some(actual), Some(expected)) = (actual, expected) else { return f64::INFINITY };
    (actual - expected).abs() / (abs + 2.0 * rel * expected.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the comparison says of two records of one case.
    fn check(simulator: &str, device: &str) -> Result<String> {
        let line = |values: &str| {
            records(&format!(r#"{{"case":"sum","abs":0.5,"rel":0.25,"values":{values}}}"#))
        };
        compare(&line(simulator)?, &line(device)?)
    }

    #[test]
    fn the_bound_is_one_sum_and_two_roundings() {
        let close = check("[1.0, null, 2.0, 3.0]", "[1.0, null, 2.0, 2.0]").expect("it is close");
        assert_eq!(
            close,
            "1 cases, 4 numbers, 75.00 % the same bits; the worst uses 0.500 of its bound: sum"
        );
        let far = check("[-2.0]", "[-3.6]").expect_err("1.5 is allowed").to_string();
        assert_eq!(far, "too far from the simulator:\n1.067 times the bound: sum");
        assert!(check("[0.0]", "[null]").is_err());
        assert!(check("[null]", "[0.0]").is_err());
        assert!(check("[0.0]", "[0.0, 0.0]").is_err());
    }

    #[test]
    fn exact_results_have_the_same_bits() {
        assert_eq!(share_used(Some(0.1), Some(0.1), 0.0, 0.0), 0.0);
        assert_eq!(share_used(Some(0.1 + f64::EPSILON), Some(0.1), 0.0, 0.0), f64::INFINITY);
    }

    #[test]
    fn both_have_every_case() {
        let line =
            |case: &str| format!("{{\"case\":\"{case}\",\"abs\":0,\"rel\":0,\"values\":[]}}\n");
        let read = |text: String| records(&text).expect("whole lines");
        let (one, two) = (read(line("a")), read(line("a") + &line("a")));
        let missing = compare(&one, &two).expect_err("one is missing").to_string();
        assert_eq!(missing, "the simulator has no record 1 of `a`");
        assert!(compare(&two, &one).is_err());
        assert!(compare(&read(String::new()), &read(String::new())).is_err());
        assert!(records("half a line").is_err());
    }
}
