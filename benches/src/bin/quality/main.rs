//! A training of `cargo xtask bench quality`: `quality CONFIG KEY=VALUE…` reads a command a line and answers each with a line
//! of JSON. Knows no other training and no clock.
//!
//! `train N` takes up to `N` slow steps, `evaluate` scores the validation split by `elbo:8`.
//! `RAYON_NUM_THREADS` sets the threads.

#![forbid(unsafe_code)]

use std::io::BufRead;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use ltm_bench::outln;
use ltm_train::data::Split;
use ltm_train::{Config, Trainer, evaluate, run_data};
use ltm_vi::Protocol;
use serde_json::{Value, json};

fn main() -> Result<()> {
    let args: Vec<_> = std::env::args().skip(1).collect();
    let [config, overrides @ ..] = args.as_slice() else {
        bail!("usage: quality CONFIG KEY=VALUE…")
    };
    let config = Config::load(Path::new(config), overrides)?;
    let [train, val] = [Split::Train, Split::Val].map(|split| run_data::open(&config, split));
    let mut trainer = Trainer::new(config, train?, Some(val?))?;
    let (threads, steps) = (rayon::current_num_threads(), trainer.config().train.steps);
    outln!("{}", json!({ "threads": threads, "steps": steps }))?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = match line.split_once(' ') {
            Some(("train", steps)) => {
                take(&mut trainer, steps.parse().context("`train` takes a number")?)?
            }
            None if line == "evaluate" => bound(&trainer)?,
            _ => bail!("unknown command `{line}`"),
        };
        outln!("{answer}")?;
    }
    Ok(())
}

fn take(trainer: &mut Trainer, steps: u64) -> Result<Value> {
    for _ in 0..steps {
        if trainer.is_finished() {
            break;
        }
        let report = trainer.step()?;
        ensure!(report.loss.is_finite(), "the loss of step {} is {}", report.step, report.loss);
    }
    Ok(json!({ "step": trainer.steps_taken(), "finished": trainer.is_finished() }))
}

fn bound(trainer: &Trainer) -> Result<Value> {
    let (config, learner) = (trainer.config(), trainer.learner());
    let batches = trainer.val_batches().expect("opened above");
    let protocols = [Protocol::Elbo { samples: 8 }];
    let rows = config.train.eval_sequences;
    let scored =
        evaluate(config, learner.device_weights(), batches, &protocols, rows, &mut |_, _| ())?;
    let [elbo] = &scored.estimates[..] else { bail!("one protocol, one estimate") };
    Ok(json!({ "elbo": elbo.mean_nats_per_token, "standard_error": elbo.standard_error }))
}
