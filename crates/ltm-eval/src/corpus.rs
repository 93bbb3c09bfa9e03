//! What is scored by protocols, and by which, where nobody says otherwise. Scores nothing itself: that is
//! [`evaluate`](ltm_train::evaluate).

use ltm_train::Config;
use ltm_train::data::{Limit, Rows};
use ltm_vi::Protocol;

/// The cheap protocols that apply to a model, with [`Protocol::DEFAULT_SAMPLES`].
pub fn default_protocols(config: &Config) -> Vec<Protocol> {
    let samples = Protocol::DEFAULT_SAMPLES;
    let mut protocols = ltm_train::eval::protocols(config, samples);
    if protocols.iter().any(|protocol| matches!(protocol, Protocol::Elbo { .. })) {
        protocols.push(Protocol::Iwae { samples });
    }
    protocols
}

/// The part of a file of documents that has `sequences` rows (0 for all), for [`load`](ltm_train::data::load).
pub fn enough(config: &Config, sequences: u64) -> Limit {
    match (sequences, config.data.row_kind()) {
        (0, _) => Limit::None,
        (_, Rows::Documents) => Limit::Documents(sequences),
        (_, Rows::Windows) => Limit::Tokens(sequences.saturating_mul(config.train.seq_len as u64)),
    }
}

#[cfg(test)]
mod tests {
    use ltm_train::config::RowKind;

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
        let mut config = config(4);
        assert_eq!(enough(&config, 0), Limit::None);
        for (rows, expected) in
            [(RowKind::Documents, Limit::Documents(3)), (RowKind::Windows, Limit::Tokens(72))]
        {
            config.data.rows = Some(rows);
            assert_eq!(enough(&config, 3), expected);
        }
    }
}
