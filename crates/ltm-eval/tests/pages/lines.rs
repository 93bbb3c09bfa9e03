//! Lines of a run's files, as training writes them.

use std::fs;
use std::path::Path;

use serde_json::{Map, Value, json};

/// Writes one JSON object per line.
pub fn write_lines(path: &Path, lines: &[Value]) {
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(path, text).expect("writable");
}

/// A slow step's line in `metrics.jsonl`, of 40 tokens.
pub fn step(step: u64, loss: f64, kl: Option<f64>) -> Value {
    json!({
        "bound_fitted_noise": kl.map(|kl| loss + kl), "fast_lr": 0.3, "grad_norm": 0.5, "kl": kl,
        "loss": loss, "lr": 0.001, "step": step, "tokens": 40,
    })
}

/// An evaluation's line in `metrics.jsonl`: nats per token by protocol.
pub fn evaluation(step: u64, scores: &[(&str, f64)]) -> Value {
    let score = |(protocol, nats): &(&str, f64)| (protocol.to_string(), score(*nats));
    json!({ "eval": scores.iter().map(score).collect::<Map<_, _>>(), "step": step })
}

/// A score of four sequences.
pub fn score(nats_per_token: f64) -> Value {
    json!({
        "bits_per_byte": 1.5, "bytes": 40, "mean_sequence_perplexity": 2.0,
        "nats_per_token": nats_per_token, "perplexity": nats_per_token.exp(), "sampling_error": 0.0,
        "sequences": 4, "standard_error": 0.125, "tokens": 10,
    })
}

/// Tokens of the scored sequences.
pub const TOKENS: [f64; 4] = [2.0, 3.0, 2.0, 3.0];

/// Nats of the sequences that are `per_token` together. All share a part that pairs lose; the difference of two runs
/// whose `own` differ by `n` has a standard error of `n` hundredths, sqrt(2·d²·4/3)/10.
pub fn nats(per_token: f64, own: f64) -> [f64; 4] {
    let own = own * 0.00375_f64.sqrt();
    let [shared, scatter] = [[0.3, -0.3, -0.3, 0.3], [1.0, 0.0, 0.0, -1.0]];
    std::array::from_fn(|i| per_token * TOKENS[i] + shared[i] + own * scatter[i])
}
