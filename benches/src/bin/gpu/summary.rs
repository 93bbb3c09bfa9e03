//! A run's lines as Markdown tables. Knows the lines, measures nothing.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use ltm_bench::outln;

use crate::record::{Kernel, Peer, Record, Roofline, Step, Times};

/// The run's files.
#[derive(Args)]
pub struct Options {
    /// `raw.jsonl`, and others of the same run
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Prints the tables of a run.
pub fn run(options: &Options) -> Result<()> {
    let mut lines = String::new();
    for file in &options.files {
        let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
        // A process that was killed may have left half a line at the end.
        lines += text.rfind('\n').map_or("", |end| &text[..=end]);
    }
    outln!("{}", summary(&lines)?.trim_end())?;
    Ok(())
}

fn summary(lines: &str) -> Result<String> {
    let (mut devices, mut kernels, mut steps, mut peers) = (vec![], vec![], vec![], vec![]);
    let mut missing = BTreeMap::new();
    for line in lines.lines() {
        let record = serde_json::from_str(line).with_context(|| format!("in `{line}`"))?;
        match record {
            Record::Device(record) => devices.push(record),
            Record::Kernel(record) => kernels.push(record),
            Record::Step(record) => steps.push(record),
            Record::Peer(record) => peers.push(record),
            Record::Missing(record) => drop(missing.insert(record.what, record.why)),
        }
    }
    let mut text = String::from("# Summary\n");
    devices.iter().for_each(|device| text += &device_lines(device));
    if !kernels.is_empty() {
        text += "\n## Kernels\n\n";
        text += &table(
            &[
                "op",
                "case",
                "dtype",
                "rung",
                "shape",
                "ms",
                "p10–p90",
                "GB/s",
                "TFLOP/s",
                "of roofline",
                "× lowest rung",
                "× cuBLASLt",
                "× PyTorch",
            ],
            kernels.iter().map(|kernel| kernel_row(kernel, &peers)),
        );
    }
    if !steps.is_empty() {
        text += "\n## Steps\n\n";
        text += &table(
            &[
                "model",
                "step",
                "precision",
                "B×T",
                "ms",
                "p10–p90",
                "tokens/s",
                "GFLOP",
                "MFU",
                "× PyTorch",
                "plans, MB",
            ],
            steps.iter().map(|step| step_row(step, &peers)),
        );
    }
    if !peers.is_empty() {
        text += "\n## PyTorch\n\n";
        text +=
            &table(&["op", "case", "dtype", "what", "ms", "p10–p90"], peers.iter().map(peer_row));
    }
    if !missing.is_empty() {
        text += "\n## Not compared\n\n";
        missing.iter().for_each(|(what, why)| text += &format!("- {what}: {why}\n"));
    }
    Ok(text)
}

fn device_lines(device: &Roofline) -> String {
    let rate =
        |rate: Option<f64>| rate.map_or("not measured".into(), |rate| format!("{rate:.1} TFLOP/s"));
    let Roofline { name, architecture, multiprocessors, copy_gb_s, bf16_tflop_s, f32_tflop_s } =
        device;
    format!(
        "\n- device: {name}, {architecture}, {multiprocessors} multiprocessors\n- copy of 256 MiB: {copy_gb_s:.0} GB/s\n\
         - cuBLASLt, large products: bf16 {}, f32 {}\n",
        rate(*bf16_tflop_s),
        rate(*f32_tflop_s)
    )
}

fn kernel_row(kernel: &Kernel, peers: &[Peer]) -> Vec<String> {
    let Kernel { op, case, dtype, rung, shape: [x, y, z], times } = kernel;
    let mut row: Vec<String> =
        vec![op.clone(), case.clone(), dtype.clone(), rung.clone(), format!("{x}×{y}×{z}")];
    if let Some(of) = times {
        row.extend(time_cells(&of.times));
        row.push(format!("{:.1}", of.gb_s));
        row.push(format!("{:.2}", of.tflop_s));
        row.push(format!("{:.1} %", 100.0 * of.share_of_roofline));
        row.push(format!("{:.2}", of.times_lowest_rung));
        row.push(of.times_cublaslt.map_or(String::new(), |ratio| format!("{ratio:.2}")));
        row.push(ratio_to_peers([op, case, dtype], &of.times, peers));
    }
    row
}

fn step_row(step: &Step, peers: &[Peer]) -> Vec<String> {
    let Step { model, step, precision, batch: [b, t], times } = step;
    let mut row: Vec<String> =
        vec![model.clone(), step.clone(), precision.clone(), format!("{b}×{t}")];
    if let Some(of) = times {
        row.extend(time_cells(&of.times));
        row.push(format!("{:.0}", of.tokens_s));
        row.push(format!("{:.1}", of.gflop));
        row.push(of.mfu.map_or(String::new(), |mfu| format!("{:.1} %", 100.0 * mfu)));
        row.push(ratio_to_peers([model, step, precision], &of.times, peers));
        row.push(format!("{:.0}", of.plan_mb));
    }
    row
}

/// How many times faster than the fastest peer of the same name and type, and which that is.
fn ratio_to_peers(name: [&String; 3], own: &Times, peers: &[Peer]) -> String {
    let same = peers.iter().filter(|peer| [&peer.op, &peer.case, &peer.dtype] == name);
    let timed = same.filter_map(|peer| Some((peer, peer.times?.median_ms)));
    let fastest = timed.min_by(|(_, a), (_, b)| a.total_cmp(b));
    fastest.map_or(String::new(), |(peer, ms)| format!("{:.2} ({})", ms / own.median_ms, peer.peer))
}

fn peer_row(peer: &Peer) -> Vec<String> {
    let mut row = vec![peer.op.clone(), peer.case.clone(), peer.dtype.clone(), peer.peer.clone()];
    match (&peer.times, &peer.refused) {
        (Some(times), _) => row.extend(time_cells(times)),
        (None, refused) => row.push(refused.clone().unwrap_or_default()),
    }
    row
}

fn time_cells(times: &Times) -> [String; 2] {
    [format!("{:.4}", times.median_ms), format!("{:.4}–{:.4}", times.p10_ms, times.p90_ms)]
}

/// A Markdown table; cells that a row lacks are empty, columns that all rows lack are omitted.
fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let rows: Vec<_> = rows.collect();
    let is_used = |column: &usize| {
        rows.iter().any(|row| row.get(*column).is_some_and(|cell| !cell.is_empty()))
    };
    let used: Vec<_> = (0..heads.len()).filter(is_used).collect();
    let mut text = String::new();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        text.push('|');
        cells.for_each(|cell| write!(text, " {cell} |").expect("a String takes all"));
        text.push('\n');
    };
    line(&mut used.iter().map(|column| heads[*column]));
    line(&mut used.iter().map(|_| "---"));
    for row in &rows {
        line(&mut used.iter().map(|column| row.get(*column).map_or("", String::as_str)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_become_tables() {
        let lines = r#"{"kind":"device","name":"none","architecture":"sm_80","multiprocessors":4,"copy_gb_s":100.0,"bf16_tflop_s":null,"f32_tflop_s":null}
{"kind":"kernel","op":"rope","case":"fwd","dtype":"bf16","rung":"v2","shape":[2,35,8],"median_ms":2.0,"p10_ms":1.0,"p90_ms":3.0,"samples":30,"gb_s":50.0,"tflop_s":0.5,"share_of_roofline":0.5,"times_lowest_rung":4.0}
{"kind":"peer","op":"rope","case":"fwd","dtype":"bf16","peer":"eager","median_ms":5.0,"p10_ms":5.0,"p90_ms":5.0,"samples":30}
{"kind":"peer","op":"rope","case":"fwd","dtype":"f32","peer":"eager","refused":"RuntimeError"}
{"kind":"missing","what":"cuBLASLt","why":"libcublasLt was not found"}
"#;
        let text = summary(lines).expect("the lines are whole");
        for expected in [
            "- cuBLASLt, large products: bf16 not measured, f32 not measured",
            "| op | case | dtype | rung | shape | ms | p10–p90 | GB/s | TFLOP/s | of roofline | × lowest rung | × PyTorch |",
            "| rope | fwd | bf16 | v2 | 2×35×8 | 2.0000 | 1.0000–3.0000 | 50.0 | 0.50 | 50.0 % | 4.00 | 2.50 (eager) |",
            "| rope | fwd | f32 | eager | RuntimeError |  |",
            "- cuBLASLt: libcublasLt was not found",
        ] {
            assert!(text.lines().any(|line| line == expected), "no `{expected}` in\n{text}");
        }
        assert!(!text.contains("## Steps"));
    }

    #[test]
    fn what_was_only_checked_has_no_times() {
        let line = r#"{"kind":"kernel","op":"rope","case":"fwd","dtype":"bf16","rung":"v2","shape":[2,35,8]}"#;
        let text = summary(line).expect("the line is whole");
        assert!(text.ends_with("| rope | fwd | bf16 | v2 | 2×35×8 |\n"), "{text}");
        assert!(summary("{}").is_err());
    }
}
