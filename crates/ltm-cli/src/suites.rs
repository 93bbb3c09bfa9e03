//! Test sets with a protocol of their own, for `ltm eval`: files in, numbers out.

use std::path::Path;

use ltm_train::data::{ReadOptions, Tokenizer};
use ltm_train::suites::lambada;
use ltm_train::{Checkpoint, Config};
use serde_json::json;

use crate::files::Reading;

/// What a test set is asked for.
pub struct Request<'a> {
    pub checkpoint: &'a Checkpoint,
    /// The run's configuration with what was set over it.
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
    fn tokenizer(&self) -> &Tokenizer {
        &self.checkpoint.state.tokenizer
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
    let scores = lambada::evaluate(config, &checkpoint.weights, &passages, *samples, &mut progress);
    bar.finish_and_clear();
    let scores = scores?;
    if *json {
        let file = json!({ "path": file, "skipped": skipped });
        let numbers = json!({ "lambada": scores.to_json(), "file": file });
        outln!("{}", serde_json::to_string_pretty(&numbers)?)?;
        return Ok(());
    }
    outln!("checkpoint {}, data {}", checkpoint.dir.display(), file.display())?;
    if skipped > 0 {
        outln!("malformed parts left out    {skipped}")?;
    }
    let with_error = |(value, error): (f64, f64)| match value {
        // A model that knows little has perplexities past counting.
        1e6.. => format!("{value:.3e} ± {error:.3e}"),
        _ => format!("{value:.4} ± {error:.4}"),
    };
    outln!()?;
    outln!("LAMBADA                     {}", scores.protocol())?;
    outln!("nats per word               {}", with_error(scores.nats_per_word()))?;
    outln!("word perplexity             {}", with_error(scores.word_perplexity()))?;
    outln!("accuracy                    {}", with_error(scores.accuracy()))?;
    outln!("passages                    {}", scores.words.len())?;
    let context = config.model.max_seq_len;
    outln!(
        "cut to the context          {} passages, to their last {context} tokens",
        scores.cut()
    )?;
    Ok(())
}
