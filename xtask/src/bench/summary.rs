//! The lines of a step bench as Markdown: medians with their spread, ratios within a round. Runs nothing.

use serde_json::Value;

/// A round in one line: seconds of ours and of the peer.
pub fn round(line: &Value) -> String {
    let cell = |who: &str, what: &str| match line[who][what]["seconds"].as_f64() {
        Some(seconds) => format!(" {who} {what} {seconds:.3} s"),
        None => String::new(),
    };
    let cells = ["iteration", "slow"].map(|what| cell("ours", what) + &cell("peer", what));
    format!("  round {}:{}", line["round"], cells.concat())
}

/// Every table that the lines allow.
pub fn table(lines: &[Value]) -> String {
    let of_kind = |kind: &'static str| lines.iter().filter(move |line| line["kind"] == kind);
    let mut text = String::new();
    let mut fast_steps = 1.0;
    for setup in of_kind("setup") {
        fast_steps = setup["fast_steps"].as_f64().unwrap_or(1.0);
        text += &format!(
            "{}: B = {}, T = {}, {fast_steps} fast steps and a slow one, {} on our side, {} threads.\n",
            setup["model"].as_str().unwrap_or("?"),
            setup["b"],
            setup["t"],
            setup["precision"].as_str().unwrap_or("?"),
            setup["threads"],
        );
    }
    for peer in of_kind("peer").take(1) {
        let is = |key: &str| peer["is"][key].as_str().unwrap_or("?").to_owned();
        text += &format!("The peer is {} with {}.\n", is("peer"), is("cpu"));
    }
    text += &of_kind("profile").map(profile).collect::<String>();
    if of_kind("round").next().is_some() {
        text += "\nSeconds as median [10th–90th percentile]; the ratio is the peer's over ours, within a round; \
                 `others` is the share of the cores that other processes held.\n\n\
                 | peer | what | ours | peer | ratio | others |\n| --- | --- | --- | --- | --- | --- |\n";
    }
    for memory in of_kind("memory") {
        let rounds: Vec<_> =
            of_kind("round").filter(|line| line["variant"] == memory["variant"]).collect();
        let variant = memory["variant"].as_str().unwrap_or("");
        for what in ["fast step", "slow step", "iteration"] {
            text += &times(variant, what, fast_steps, &rounds);
        }
        let gib = |who: &str| match memory[who].as_f64() {
            Some(bytes) => format!("{:.2} GiB", bytes / f64::from(1 << 30)),
            None => String::new(),
        };
        let ratio = match (memory["peer"].as_f64(), memory["ours"].as_f64()) {
            (Some(peer), Some(ours)) => format!("{:.2}", peer / ours),
            _ => String::new(),
        };
        let (ours, peer) = (gib("ours"), gib("peer"));
        text += &format!("| {variant} | peak memory | {ours} | {peer} | {ratio} | |\n");
    }
    for check in of_kind("check") {
        text += &format!(
            "\nChecked {}: loss and all gradients are ours, at most {:.1e} apart (`{}`, {:.1e} allowed).\n",
            check["variant"].as_str().unwrap_or("?"),
            check["distance"].as_f64().unwrap_or(f64::NAN),
            check["worst"].as_str().unwrap_or("?"),
            check["allowed"].as_f64().unwrap_or(f64::NAN),
        );
    }
    text
}

/// A row: what takes how long, on both sides.
fn times(variant: &str, what: &str, fast_steps: f64, rounds: &[&Value]) -> String {
    let seconds = |line: &Value, who: &str| {
        let read = |what: &str| line[who][what]["seconds"].as_f64();
        match what {
            "iteration" => read("iteration"),
            "slow step" => read("slow"),
            _ => Some((read("iteration")? - read("slow")?) / fast_steps),
        }
    };
    let column = |who| rounds.iter().filter_map(|line| seconds(line, who)).collect::<Vec<_>>();
    let ratios: Vec<_> = rounds
        .iter()
        .filter_map(|line| Some(seconds(line, "peer")? / seconds(line, "ours")?))
        .collect();
    let turns = ["ours", "peer"].map(|who| {
        let key = if what == "slow step" { "slow" } else { "iteration" };
        rounds.iter().filter_map(move |line| line[who][key]["others"].as_f64())
    });
    let others: Vec<_> = turns.into_iter().flatten().collect();
    let cell = |values: &[f64], digits: usize| match spread(values) {
        Some([low, middle, high]) => format!("{middle:.digits$} [{low:.digits$}–{high:.digits$}]"),
        None => String::new(),
    };
    let others = spread(&others).map(|[_, middle, _]| format!("{:.0} %", 100.0 * middle));
    format!(
        "| {variant} | {what} | {} | {} | {} | {} |\n",
        cell(&column("ours"), 3),
        cell(&column("peer"), 3),
        cell(&ratios, 2),
        others.unwrap_or_default(),
    )
}

/// 10th percentile, median and 90th percentile, by nearest rank; `None` of nothing.
fn spread(values: &[f64]) -> Option<[f64; 3]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)? as f64;
    Some([0.1, 0.5, 0.9].map(|share| sorted[(last * share).round() as usize]))
}

/// Shares of a fast and of a slow step by kind of op.
fn profile(line: &Value) -> String {
    let mut text = String::new();
    for (part, name) in [("fast", "Fast steps"), ("slow", "Slow step, gradients alone")] {
        let mut ops: Vec<_> = line["ops"][part].as_array().into_iter().flatten().collect();
        let number = |op: &Value, key: &str| op[key].as_f64().unwrap_or(0.0);
        ops.sort_by(|a, b| number(b, "seconds").total_cmp(&number(a, "seconds")));
        let total: f64 = ops.iter().map(|op| number(op, "seconds")).sum();
        text +=
            &format!("\n{name}, {total:.3} s:\n\n| op | calls | share | ms | GFLOP/s | GB/s |\n");
        text += "| --- | --- | --- | --- | --- | --- |\n";
        for op in ops.into_iter().filter(|op| number(op, "seconds") > 0.0) {
            let seconds = number(op, "seconds");
            text += &format!(
                "| {} | {} | {:.1} % | {:.2} | {:.1} | {:.1} |\n",
                op["op"].as_str().unwrap_or("?"),
                op["runs"],
                100.0 * seconds / total,
                1e3 * seconds,
                number(op, "flops") / seconds / 1e9,
                number(op, "bytes") / seconds / 1e9,
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn line(ours: [f64; 2], peer: [f64; 2]) -> Value {
        let side = |[whole, slow]: [f64; 2]| {
            json!({
                "iteration": { "seconds": whole, "others": 0.5 },
                "slow": { "seconds": slow, "others": 0.0 },
            })
        };
        json!({ "kind": "round", "variant": "v", "round": 1, "ours": side(ours), "peer": side(peer) })
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let lines = [
            json!({ "kind": "setup", "model": "small", "fast_steps": 4, "precision": "f32", "threads": 2, "b": 2, "t": 8 }),
            line([5.0, 1.0], [10.0, 3.0]),
            line([50.0, 10.0], [50.0, 10.0]),
            line([5.0, 1.0], [10.0, 3.0]),
            json!({ "kind": "memory", "variant": "v", "ours": 1u64 << 30, "peer": 3u64 << 30 }),
        ];
        let text = table(&lines);
        let row = |what: &str| {
            let row = text.lines().find(|line| line.contains(what)).expect(what);
            row.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(row("| fast step")[3..5], ["1.000 [1.000–10.000]", "1.750 [1.750–10.000]"]);
        assert_eq!(row("| iteration")[5], "2.00 [1.00–2.00]");
        assert_eq!(row("| slow step")[5..7], ["3.00 [1.00–3.00]", "0 %"]);
        assert_eq!(row("| peak memory")[3..6], ["1.00 GiB", "3.00 GiB", "3.00"]);
    }

    #[test]
    fn ours_alone_leaves_the_peer_empty() {
        let mut alone = line([5.0, 1.0], [0.0; 2]);
        alone.as_object_mut().expect("made above").remove("peer");
        let memory = json!({ "kind": "memory", "variant": "v", "ours": null, "peer": null });
        let text = table(&[alone.clone(), memory]);
        assert!(text.contains("| v | iteration | 5.000 [5.000–5.000] |  |  | 50 % |"), "{text}");
        assert_eq!(round(&alone), "  round 1: ours iteration 5.000 s ours slow 1.000 s");
    }
}
