//! Our side of `cargo xtask bench step`: `step CONFIG B T PRECISION` reads a command a line and answers each with a line of
//! JSON, as the peers in `benches/peers/` do. Knows no peer and no clock.
//!
//! `inputs FOLDER` writes a peer's inputs, `compare FILE` compares a peer's gradients with ours, `iterate S`
//! takes `S` fast steps and one slow step, `profile S` tells where their time goes.
//! `RAYON_NUM_THREADS` sets the threads.

#![forbid(unsafe_code)]

mod compare;
mod inputs;
mod profile;

use std::io::BufRead;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use inputs::Inputs;
use ltm_bench::outln;
use ltm_train::SlowLearner;
use serde_json::{Value, json};

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [config, b, t, precision] = args.as_slice() else {
        bail!("usage: step CONFIG B T PRECISION")
    };
    let number = |text: &str| text.parse().with_context(|| format!("`{text}` is not a number"));
    let inputs = Inputs::new(Path::new(config), number(b)?, number(t)?, precision)?;
    let mut learner = None;
    let mut iterations = 0;
    outln!("{}", json!({ "peer": "ours", "threads": rayon::current_num_threads() }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let (command, argument) = line.split_once(' ').context("a command has an argument")?;
        let answer = match command {
            "inputs" => inputs.write(Path::new(argument)).map(|()| json!({}))?,
            "compare" => compare::gradients(&inputs, Path::new(argument))?,
            "iterate" => {
                let learner = match &mut learner {
                    Some(learner) => learner,
                    empty => empty.insert(SlowLearner::new(&inputs.config, &inputs.weights()?)?),
                };
                iterations += 1;
                iterate(&inputs, learner, number(argument)?, iterations)?
            }
            "profile" => profile::table(&inputs, number(argument)?)?,
            other => bail!("unknown command `{other}`"),
        };
        outln!("{answer}")?;
    }
    Ok(())
}

/// One step of the product's own learner on the batch, with a new fit.
fn iterate(inputs: &Inputs, learner: &mut SlowLearner, steps: usize, step: u64) -> Result<Value> {
    let mut config = inputs.config.clone();
    config.infer.steps = steps;
    let report = learner.step(&config, std::slice::from_ref(&inputs.batch), step)?;
    ensure!(report.loss.is_finite(), "the loss is {}", report.loss);
    Ok(json!({ "loss": report.loss }))
}
