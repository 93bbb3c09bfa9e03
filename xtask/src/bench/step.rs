//! `cargo xtask bench step`: whole iterations of training, ours and a peer's turn by turn in one run, after both have
//! shown that they compute the same gradients. Knows commands and numbers, never a model.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use super::{peers, runs, summary, turns::Program};
use crate::flags::{PEER_VARIANTS, Step};
use crate::{cargo, exec, root, target_dir};

/// Builds and starts our side, then profiles it or times it against each variant of the peer.
pub fn run(step: &Step) -> Result<()> {
    exec(&mut cargo(["build", "--release", "--package", "ltm-bench", "--bin", "step"]))?;
    let mut ours = start(step)?;

    let mut lines = vec![json!({
        "kind": "setup", "model": step.model.name, "b": step.batch, "t": step.tokens,
        "fast_steps": step.fast_steps, "precision": step.precision, "threads": step.threads,
    })];
    if step.profile {
        let profile = ours.ask(&format!("profile {}", step.fast_steps))?;
        lines.push(json!({ "kind": "profile", "ops": profile }));
    } else if step.peer {
        against_torch(step, &mut ours, &mut lines)?;
    } else {
        turns(step, &mut ours, None, "", &mut lines)?;
    }
    let table = summary::table(&lines);
    outln!("{}", table.trim_end())?;
    if step.save { runs::save(&what(step), &lines, &table) } else { Ok(()) }
}

/// What is measured, as part of a folder's name; of the shape only what differs from the model's.
fn what(step: &Step) -> String {
    let Step { model, precision, .. } = step;
    let mut words = vec!["step".into(), model.name.into()];
    for (letter, extent, default) in [
        ("b", step.batch, model.batch),
        ("t", step.tokens, model.tokens),
        ("s", step.fast_steps, model.fast_steps),
    ] {
        words.extend((extent != default).then(|| format!("{letter}{extent}")));
    }
    words.push(precision.clone());
    if step.profile {
        words.push("by-op".into());
    } else if step.peer {
        words.push("against-pytorch".into());
        words.extend(step.variant.as_ref().map(|variant| variant.replace('_', "-")));
    }
    words.join("-")
}

fn start(step: &Step) -> Result<Program> {
    let mut command = Command::new(target_dir().join("release/step"));
    command.arg(root().join(step.model.config));
    command.args([step.batch, step.tokens].map(|extent| extent.to_string()));
    command.arg(&step.precision);
    command.env("RAYON_NUM_THREADS", step.threads.to_string());
    Program::start("our program", &mut command)
}

/// Every variant asked for, each in a process of its own.
fn against_torch(step: &Step, ours: &mut Program, lines: &mut Vec<Value>) -> Result<()> {
    let python = peers::torch()?;
    let folder = target_dir().join("peers/step");
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    // What a comparison leaves in a process is no part of the memory that training takes.
    let mut judge = start(step)?;
    judge.ask(&format!("inputs {}", folder.display()))?;
    for variant in PEER_VARIANTS {
        if step.variant.as_ref().is_some_and(|wanted| wanted != variant) {
            continue;
        }
        note!("PyTorch, {variant}");
        let mut command = Command::new(&python);
        command.arg(root().join("benches/peers/torch_ltm.py")).arg(&folder);
        command.arg(variant).arg(step.threads.to_string());
        // Compiled code stays with the environment that made it.
        command.env("TORCHINDUCTOR_CACHE_DIR", target_dir().join("peers/inductor"));
        let mut peer = Program::start("the peer", &mut command)?;
        lines.push(json!({ "kind": "peer", "variant": variant, "is": peer.greeting }));
        lines.push(compare(step, &mut judge, &mut peer, variant, &folder)?);
        turns(step, ours, Some(&mut peer), variant, lines)?;
    }
    Ok(())
}

/// Fails unless the peer's loss and every gradient are ours, up to rounding.
fn compare(
    step: &Step,
    judge: &mut Program,
    peer: &mut Program,
    variant: &str,
    folder: &Path,
) -> Result<Value> {
    let file = folder.join("gradients.safetensors");
    peer.ask(&format!("gradients {}", file.display()))?;
    let answer = judge.ask(&format!("compare {}", file.display()))?;
    fs::remove_file(&file).with_context(|| file.display().to_string())?;
    // Roundings of random sign add up like the root of their number. Products in bf16 are summed in
    // f32, so there only what is stored between two ops counts.
    let rounds = variant.ends_with("bf16") || step.precision == "mixed";
    let (eps, roundings) =
        if rounds { (1.0 / 128.0, "stored") } else { (f64::from(f32::EPSILON), "summed") };
    let allowed = eps * answer[roundings].as_f64().context("our program states its roundings")?;
    let distances = answer["distances"].as_object().context("our program states the distances")?;
    let distance = |value: &Value| value.as_f64().unwrap_or(f64::NAN);
    let (mut worst, mut largest) = ("", 0.0);
    for (name, value) in distances {
        let distance = distance(value);
        ensure!(
            distance <= allowed,
            "{variant} computes something else: `{name}` is off by {distance:.1e}, {allowed:.1e} is allowed",
        );
        if distance >= largest {
            (worst, largest) = (name, distance);
        }
    }
    Ok(json!({
        "kind": "check", "variant": variant, "worst": worst, "distance": largest, "allowed": allowed,
        "mu": distances.get("mu"), "log_var": distances.get("log_var"), "loss": distances.get("loss"),
    }))
}

/// A round to warm up, then `rounds` of: a whole iteration each, then each an iteration without fast steps.
fn turns(
    step: &Step,
    ours: &mut Program,
    mut peer: Option<&mut Program>,
    variant: &str,
    lines: &mut Vec<Value>,
) -> Result<()> {
    let whole = format!("iterate {}", step.fast_steps);
    for round in 0..=step.rounds {
        let mut line = json!({ "kind": "round", "variant": variant, "round": round });
        for (what, command) in [("iteration", whole.as_str()), ("slow", "iterate 0")] {
            line["ours"][what] = ours.turn(command)?;
            if let Some(peer) = &mut peer {
                line["peer"][what] = peer.turn(command)?;
            }
        }
        if round == 0 {
            ours.reset_peak();
            peer.iter().for_each(|peer| peer.reset_peak());
        } else {
            note!("{}", summary::round(&line));
            lines.push(line);
        }
    }
    let peer = peer.and_then(|peer| peer.peak_bytes());
    lines.push(
        json!({ "kind": "memory", "variant": variant, "ours": ours.peak_bytes(), "peer": peer }),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::what;
    use crate::flags::{Verb, parse};

    #[test]
    fn a_kept_run_is_named_by_what_it_measures() {
        for (line, name) in [
            ("", "step-small-f32"),
            ("--model medium --fast-steps 1 --profile", "step-medium-s1-f32-by-op"),
            ("--precision mixed --peer torch", "step-small-mixed-against-pytorch"),
            (
                "--batch 4 --tokens 512 --peer torch --variant frozen_bf16",
                "step-small-b4-t512-f32-against-pytorch-frozen-bf16",
            ),
        ] {
            let words = ["bench", "step"].into_iter().chain(line.split_whitespace());
            let Ok(Verb::Step(step)) = parse(words.map(String::from)) else { panic!("{line}") };
            assert_eq!(what(&step), name);
        }
    }
}
