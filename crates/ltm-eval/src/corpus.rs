//! What is scored by protocols, and by which, where nobody says otherwise. Scores nothing itself: that is
//! [`evaluate`](ltm_train::evaluate).

use std::collections::BTreeMap;

use ltm_train::data::{Batches, Limit};
use ltm_train::{Config, chain};
use ltm_vi::{Protocol, Task, suits};

/// The cheap protocols that apply to a model, with [`Protocol::DEFAULT_SAMPLES`].
pub fn default_protocols(config: &Config) -> Vec<Protocol> {
    let samples = Protocol::DEFAULT_SAMPLES;
    let mut protocols = ltm_train::eval::protocols(config, samples);
    if protocols.iter().any(|protocol| matches!(protocol, Protocol::Elbo { .. })) {
        protocols.push(Protocol::Iwae { samples });
    }
    protocols
}

/// The tokens of a file from which a sample of its rows is drawn.
pub const SAMPLED_TOKENS: u64 = 1 << 24;

/// The part of a file of documents that `sequences` of its rows are drawn from (0 for all), for
/// [`load`](ltm_train::data::load): [`SAMPLED_TOKENS`], or as many as that many rows hold where these are more.
pub fn sampled_part(config: &Config, sequences: u64) -> Limit {
    match sequences {
        0 => Limit::None,
        rows => Limit::Tokens(rows.saturating_mul(config.train.seq_len as u64).max(SAMPLED_TOKENS)),
    }
}

/// The requested protocols that apply to a point, and why the others do not. The protocols of the point's own
/// evaluations are added where it has no latents or none of the requested ones applies.
pub(crate) fn suitable(
    asked: &[Protocol],
    config: &Config,
    val: &Batches,
) -> (Vec<Protocol>, BTreeMap<String, String>) {
    let t = val.options().seq_len;
    let (mut suitable, mut left_out) = (Vec::new(), BTreeMap::new());
    for protocol in asked {
        let applies = suits(&config.model, &config.infer, Task::Score(*protocol));
        match applies.and_then(|()| protocol.check(t)) {
            Err(error) => {
                left_out.insert(protocol.to_string(), chain(&error));
            }
            Ok(()) => suitable.push(*protocol),
        }
    }
    if suitable.is_empty() || config.model.n_latents == 0 {
        let own = ltm_train::eval::protocols(config, config.train.eval_samples);
        suitable.extend(own.into_iter().filter(|protocol| !asked.contains(protocol)));
    }
    (suitable, left_out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tiny::config;

    #[test]
    fn protocols_and_parts_follow_from_the_model_and_its_rows() {
        let names = |n_latents| {
            let all = default_protocols(&config(n_latents));
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(names(4), ["reconstruction", "elbo-fitted-noise", "elbo:8", "iwae:8"]);
        assert_eq!(names(0), ["autoregressive"]);
        let config = config(4);
        assert_eq!(sampled_part(&config, 0), Limit::None);
        assert_eq!(sampled_part(&config, 3), Limit::Tokens(SAMPLED_TOKENS));
        let rows = SAMPLED_TOKENS / 24 + 1;
        assert_eq!(sampled_part(&config, rows), Limit::Tokens(24 * rows));
    }
}
