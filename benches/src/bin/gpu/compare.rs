//! Compares the kernel suite's results on two devices. Knows what a record looks like, no kernel.
//!
//! Both devices ran the same kernels on the same inputs, and each result was compared with the reference within a
//! tolerance `abs + rel·|x|`: `abs` bounds the roundings inside a sum, `rel` the last one, when the result is stored.
//! Most roundings are the same on both devices and cancel in the difference. Those that are not (in approximate
//! functions and within tensor cores) are among those that `abs` counts, and together may not exceed it.
//! The last rounding can go up on one device and down on the other, so `rel` is used twice. Hence
//!
//! `|device − simulator| <= abs + 2·rel·|simulator|`,
//!
//! and results whose tolerance is zero have the same bits.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use clap::Args;
use ltm_bench::outln;
use serde::Deserialize;

/// The records to compare.
#[derive(Args)]
pub struct Options {
    /// Results on the simulator: the file that LTM_DUMP named when it ran the kernel suite
    simulator: PathBuf,
    /// Results on the device, in one file or several
    #[arg(required = true)]
    device: Vec<PathBuf>,
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

/// Prints every case that differs too much or that only one side has, and a summary in the last line.
///
/// Fails if there is such a case.
pub fn run(options: &Options) -> Result<()> {
    let read = |path: &PathBuf| {
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let simulator = records(&read(&options.simulator)?)
        .with_context(|| options.simulator.display().to_string())?;
    let device = options.device.iter().map(read).collect::<Result<String>>()?;
    let comparison = compare(&simulator, &records(&device).context("the device's results")?)?;
    for fault in &comparison.faults {
        outln!("{fault}")?;
    }
    outln!("{}", comparison.summary)?;
    let faults = comparison.faults.len();
    ensure!(faults == 0, "{faults} results are missing or differ too much from the simulator's");
    Ok(())
}

/// Records by case and, where a case was checked several times, by their position among these.
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

/// How close two devices' results are.
#[derive(Debug, Default)]
struct Comparison {
    /// A line for each result that is missing, of another length, or too far off.
    faults: Vec<String>,
    summary: String,
}

/// Compares what both sides have; a missing result does not end the comparison of the others.
fn compare(simulator: &Records, device: &Records) -> Result<Comparison> {
    ensure!(!simulator.is_empty(), "the simulator's results are empty");
    let mut faults = Vec::new();
    for (one, other, whose) in
        [(simulator, device, "the device"), (device, simulator, "the simulator")]
    {
        let missing = one.keys().filter(|key| !other.contains_key(*key));
        faults.extend(missing.map(|(case, i)| format!("{whose} has no result {i} of `{case}`")));
    }
    let (mut cases, mut numbers, mut equal) = (0, 0, 0);
    let mut worst = (0.0, "none differs");
    for (key, expected) in simulator {
        let Some(actual) = device.get(key) else { continue };
        cases += 1;
        let (found, wanted) = (actual.values.len(), expected.values.len());
        if found != wanted {
            faults.push(format!(
                "`{}`: {found} numbers on the device, {wanted} on the simulator",
                expected.case
            ));
            continue;
        }
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
            faults.push(format!("`{}`: {of_case:.3} times the bound", expected.case));
        }
    }
    let (share, case) = worst;
    let total = simulator.len();
    let same = if numbers == 0 { 0.0 } else { 100.0 * equal as f64 / numbers as f64 };
    let summary = format!(
        "{cases} of {total} results compared, {numbers} numbers, {same:.2} % bit-identical; \
         largest difference: {share:.3} of its bound ({case}); {} faults",
        faults.len()
    );
    Ok(Comparison { faults, summary })
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

    fn check(simulator: &str, device: &str) -> Comparison {
        let line = |values: &str| {
            records(&format!(r#"{{"case":"sum","abs":0.5,"rel":0.25,"values":{values}}}"#))
                .expect("a whole line")
        };
        compare(&line(simulator), &line(device)).expect("the simulator's results are not empty")
    }

    #[test]
    fn the_bound_is_one_sum_and_two_roundings() {
        let close = check("[1.0, null, 2.0, 3.0]", "[1.0, null, 2.0, 2.0]");
        assert_eq!(
            close.summary,
            "1 of 1 results compared, 4 numbers, 75.00 % bit-identical; \
             largest difference: 0.500 of its bound (sum); 0 faults"
        );
        // `abs + 2·rel·2` allows 1.5.
        assert_eq!(check("[-2.0]", "[-3.6]").faults, ["`sum`: 1.067 times the bound"]);
        for (simulator, device) in [("[0.0]", "[null]"), ("[null]", "[0.0]"), ("[0.0]", "[0, 0]")] {
            assert_eq!(check(simulator, device).faults.len(), 1, "{simulator} and {device}");
        }
    }

    #[test]
    fn exact_results_have_the_same_bits() {
        assert_eq!(share_used(Some(0.1), Some(0.1), 0.0, 0.0), 0.0);
        assert_eq!(share_used(Some(0.1 + f64::EPSILON), Some(0.1), 0.0, 0.0), f64::INFINITY);
    }

    #[test]
    fn a_missing_result_does_not_hide_the_others() {
        let line = |case: &str, value| {
            format!("{{\"case\":\"{case}\",\"abs\":1,\"rel\":0,\"values\":[{value}]}}\n")
        };
        let read = |text: String| records(&text).expect("whole lines");
        let simulator = read(line("a", 0) + &line("b", 0) + &line("c", 0) + &line("c", 0));
        let device = read(line("b", 9) + &line("c", 0) + &line("d", 0));
        let found = compare(&simulator, &device).expect("both have results");
        assert_eq!(
            found.faults,
            [
                "the device has no result 0 of `a`",
                "the device has no result 1 of `c`",
                "the simulator has no result 0 of `d`",
                "`b`: 9.000 times the bound",
            ]
        );
        assert!(
            found.summary.starts_with("2 of 4 results compared, 2 numbers"),
            "{}",
            found.summary
        );
        assert!(compare(&read(String::new()), &device).is_err());
        let none = compare(&simulator, &read(String::new())).expect("the simulator has results");
        assert_eq!(none.faults.len(), 4);
        assert!(records("half a line").is_err());
    }
}
