//! Training on texts in memory, without a folder: an observer stops it, then the model is scored and writes a text.
//! `cargo run -p ltm-train --example from_memory`.

use std::path::Path;
use std::sync::Arc;

use ltm_train::data::{Bytes, Corpus, Order, SharedTokenizer};
use ltm_train::ltm_model::SampleConfig;
use ltm_train::ltm_vi::{GenerateOptions, Inference, LatentSource, generate};
use ltm_train::run_data::open_corpus;
use ltm_train::{Config, Next, Observer, Result, StepReport, Trainer};

const CONFIG: &str = "
[model]
dim = 32
n_layers = 2
n_heads = 2
max_seq_len = 24
window = 24
n_latents = 4
[infer]
steps = 4
[train]
steps = 2000
batch = 8
lr = 1e-2
";

const TEXTS: [&str; 4] = ["the cat sat down", "the dog ran away", "the cat ran away", "a dog sat"];

/// Stops once the loss is low enough.
struct UntilLearnt;

impl Observer for UntilLearnt {
    fn stepped(&mut self, report: &StepReport, _seconds: f64) -> Next {
        if report.step.is_multiple_of(20) {
            println!("step {}: {:.2} nats per token", report.step, report.loss);
        }
        if report.loss < 0.7 { Next::Stop } else { Next::Continue }
    }
}

/// Trains, scores and generates.
pub fn main() -> Result<()> {
    let tokenizer: SharedTokenizer = Arc::new(Bytes);
    let config = Config::parse_for(&*tokenizer, CONFIG, Path::new("from_memory.rs"), &[])?;
    // Any iterator over texts will do, and any tokenizer, also one's own.
    let corpus = |texts: &[&str]| Corpus::from_documents(tokenizer.clone(), texts);
    let order = Order::Shuffled { seed: config.run.seed };
    let train = open_corpus(&config, corpus(&TEXTS)?, order)?;
    let val = open_corpus(&config, corpus(&["the dog sat down"])?, Order::Sequential)?;

    let mut trainer = Trainer::new(config, train, Some(val))?;
    trainer.run(&mut UntilLearnt)?;
    println!("stopped after step {}", trainer.steps_taken());
    let evaluation = trainer.evaluate(&mut ())?.expect("there are validation batches");
    for e in &evaluation.estimates {
        println!("{}: {:.2} nats per token", e.protocol, e.mean_nats_per_token);
    }

    let config = trainer.config();
    let (_, precision) = config.run.compute()?;
    let options = GenerateOptions {
        max_tokens: 24,
        sample: SampleConfig { temperature: 0.5, top_k: 0, top_p: 1.0 },
        latents: LatentSource::Prior,
        refit: None,
        rethink: None,
        seed: 1,
        stop: Some(tokenizer.separator() as i32),
        precision,
    };
    let (weights, inference) =
        (trainer.learner().device_weights(), Inference::finished(&config.infer)?);
    let start = [tokenizer.separator() as i32];
    let written = generate(&config.model, weights, &inference, &start, &options)?;
    let ids: Vec<u32> = written.tokens.iter().map(|&id| id as u32).collect();
    println!("generated: {}", tokenizer.decode(&ids).trim_end());
    Ok(())
}
