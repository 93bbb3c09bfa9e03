//! LAMBADA for `ltm eval`, and the request that all test sets share.

use std::path::Path;

use ltm_eval::suites::lambada;
use ltm_train::data::{ReadOptions, Tokenizer};
use ltm_train::{Checkpoint, Config};
use serde_json::json;

use crate::files::Reading;
use crate::output::plus_minus;

/// A request to score a test set.
pub struct Request<'a> {
    pub checkpoint: &'a Checkpoint,
    /// The run's configuration with its overrides.
    pub config: &'a Config,
    pub file: &'a Path,
    pub read: ReadOptions,
    /// Items to score; 0 for all.
    pub limit: u64,
    /// Samples of the latents.
    pub samples: usize,
    pub json: bool,
}

impl Request<'_> {
    fn tokenizer(&self) -> &dyn Tokenizer {
        &*self.checkpoint.tokenizer
    }
}

/// Predicts the last words of a LAMBADA file.
pub fn lambada(request: &Request<'_>) -> anyhow::Result<()> {
    let Request { checkpoint, config, file, read, limit, samples, json } = request;
    let mut reading = Reading::new();
    let found =
        lambada::read(&[file.into()], config, request.tokenizer(), read, *limit, &mut |notice| {
            reading.see(notice);
        });
    reading.finish();
    let (passages, skipped) = found?;
    let bar = crate::progress_bar(0, "passage {pos}/{len} ETA {eta}");
    let mut progress = |done, all| {
        bar.set_length(all);
        bar.set_position(done);
    };
    let weights = config.on_device(&checkpoint.weights)?;
    let scores = lambada::evaluate(config, &weights, &passages, *samples, &mut progress);
    bar.finish_and_clear();
    let scores = scores?;
    if *json {
        let file = json!({ "path": file.display().to_string(), "skipped": skipped });
        let numbers = json!({ "lambada": scores.to_json(), "file": file });
        outln!("{}", serde_json::to_string_pretty(&numbers)?)?;
        return Ok(());
    }
    outln!("checkpoint {}, data {}", checkpoint.dir.display(), file.display())?;
    if skipped > 0 {
        outln!("malformed records skipped   {skipped}")?;
    }
    outln!()?;
    outln!("LAMBADA                     {}", scores.protocol())?;
    outln!("nats per word               {}", plus_minus(scores.nats_per_word(), 4))?;
    outln!("word perplexity             {}", plus_minus(scores.word_perplexity(), 4))?;
    outln!("accuracy                    {}", plus_minus(scores.accuracy(), 4))?;
    outln!("passages                    {}", scores.words.len())?;
    let context = config.model.max_seq_len;
    outln!("truncated passages          {}, to their last {context} tokens", scores.cut())?;
    Ok(())
}
