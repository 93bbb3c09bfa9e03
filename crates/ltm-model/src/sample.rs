//! Choosing the next token from logits: a pure function of its arguments. Draws no random numbers.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// How tokens are chosen: temperature first, then top-k, then top-p.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SampleConfig {
    /// Divisor of the logits; 0 takes the highest-probability token.
    pub temperature: f64,
    /// Top-k sampling: keep the `top_k` highest-probability tokens; 0 keeps all.
    pub top_k: usize,
    /// Nucleus sampling: keep the smallest set of highest-probability tokens whose total probability is at
    /// least this; 1 keeps all.
    pub top_p: f64,
}

impl SampleConfig {
    /// Greedy decoding: always the highest-probability token.
    pub const GREEDY: Self = Self { temperature: 0.0, top_k: 0, top_p: 1.0 };

    /// Checks every field.
    ///
    /// # Errors
    /// [`Error::Config`] for the first field that breaks its rule.
    pub fn validate(&self) -> Result<()> {
        let check = |field, holds, expected: &str, found: f64| {
            if holds {
                Ok(())
            } else {
                Err(Error::Config { field, expected: expected.into(), found: found.to_string() })
            }
        };
        let temperature = self.temperature;
        let holds = temperature >= 0.0 && temperature.is_finite();
        check("temperature", holds, "0 or more, and finite", temperature)?;
        let holds = self.top_p > 0.0 && self.top_p <= 1.0;
        check("top_p", holds, "more than 0 and at most 1", self.top_p)
    }
}

/// Chooses a token: the one whose share of the cumulative distribution contains `uniform`, a
/// number in `[0, 1)`. Of equal logits the lower token ranks first. A logit of minus infinity
/// excludes its token.
///
/// # Errors
/// [`Error::Config`] for a configuration that breaks its rules, [`Error::Argument`] for a
/// `uniform` outside `[0, 1)` or no logits at all, [`Error::Logits`] when a logit is NaN or plus
/// infinity, or when every token is excluded.
pub fn sample(logits: &[f32], config: &SampleConfig, uniform: f64) -> Result<usize> {
    config.validate()?;
    if !(0.0..1.0).contains(&uniform) {
        let expected = "at least 0 and less than 1".into();
        return Err(Error::Argument { arg: "uniform", expected, found: uniform.to_string() });
    }
    let best = most_likely(logits)?;
    if config.temperature == 0.0 {
        return Ok(best);
    }
    let weight = |token: usize| {
        ((f64::from(logits[token]) - f64::from(logits[best])) / config.temperature).exp()
    };

    // Without a filter nothing needs sorting: the tokens keep their order.
    let mut tokens: Vec<usize> = (0..logits.len()).collect();
    let by_rank = |&a: &usize, &b: &usize| logits[b].total_cmp(&logits[a]).then(a.cmp(&b));
    if (1..tokens.len()).contains(&config.top_k) {
        tokens.select_nth_unstable_by(config.top_k - 1, by_rank);
        tokens.truncate(config.top_k);
        // The selection leaves an unspecified order.
        tokens.sort_unstable_by(by_rank);
    }
    let mut weights: Vec<f64> = tokens.iter().map(|&token| weight(token)).collect();
    let mut mass: f64 = weights.iter().sum();
    if tokens.len() == logits.len() && config.top_p < 1.0 {
        // Tokens below this have less mass together than is left out, so they need no sorting.
        let least = (1.0 - config.top_p) * mass / tokens.len() as f64;
        tokens.retain(|&token| weights[token] >= least);
        tokens.sort_unstable_by(by_rank);
        weights = tokens.iter().map(|&token| weights[token]).collect();
    }
    if config.top_p < 1.0 {
        let kept = first_past(&weights, config.top_p * mass, |sum, target| sum >= target);
        tokens.truncate(kept + 1);
        mass = weights[..=kept].iter().sum();
    }
    Ok(tokens[first_past(&weights[..tokens.len()], uniform * mass, |sum, target| sum > target)])
}

/// The first token of the largest logit.
fn most_likely(logits: &[f32]) -> Result<usize> {
    let mut best = None;
    for (token, &found) in logits.iter().enumerate() {
        if found.is_nan() || found == f32::INFINITY {
            return Err(Error::Logits { token, found });
        }
        // Written so that -0 and 0 tie, and minus infinity never wins.
        if found > best.map_or(f32::NEG_INFINITY, |best: usize| logits[best]) {
            best = Some(token);
        }
    }
    best.ok_or_else(|| match logits.first() {
        Some(&found) => Error::Logits { token: 0, found },
        None => Error::Argument {
            arg: "logits",
            expected: "at least one number".into(),
            found: "none".into(),
        },
    })
}

/// Index of the first entry at which the running sum is past `target`; should rounding keep it
/// from getting there, of the last entry above 0.
fn first_past(weights: &[f64], target: f64, past: impl Fn(f64, f64) -> bool) -> usize {
    let mut sum = 0.0;
    let mut last = 0;
    for (i, &weight) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0.0) {
        (sum, last) = (sum + weight, i);
        if past(sum, target) {
            break;
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: SampleConfig = SampleConfig { temperature: 1.0, top_k: 0, top_p: 1.0 };
    /// Probabilities 0.1, 0.4, 0.2, 0.3.
    const LOGITS: [f64; 4] = [0.1, 0.4, 0.2, 0.3];

    /// Sampling over an even grid of uniforms must give each token its probability.
    fn check(config: SampleConfig, expected: [f64; 4]) {
        const DRAWS: usize = 10_000;
        let logits = LOGITS.map(|p| p.ln() as f32);
        let mut counts = [0usize; 4];
        for i in 0..DRAWS {
            counts[sample(&logits, &config, (i as f64 + 0.5) / DRAWS as f64).unwrap()] += 1;
        }
        for (count, expected) in counts.iter().zip(expected) {
            // On a grid a share is off by at most one draw, and f32 logits by less.
            let diff = (*count as f64 / DRAWS as f64 - expected).abs();
            assert!(diff <= 1.5 / DRAWS as f64, "{config:?} gave {counts:?}");
        }
    }

    #[test]
    fn shares_are_the_filtered_probabilities() {
        check(ALL, LOGITS);
        check(SampleConfig { top_k: 2, ..ALL }, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        check(SampleConfig { top_k: 4, ..ALL }, LOGITS);
        check(SampleConfig { top_k: 9, ..ALL }, LOGITS);
        check(SampleConfig { top_p: 0.39, ..ALL }, [0.0, 1.0, 0.0, 0.0]);
        check(SampleConfig { top_p: 0.6, ..ALL }, [0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0]);
        check(SampleConfig { top_p: 0.85, ..ALL }, [0.0, 4.0 / 9.0, 2.0 / 9.0, 3.0 / 9.0]);
        // Of the two that top-k keeps, the first has 4/7 of the probability.
        check(SampleConfig { top_k: 2, top_p: 0.5, ..ALL }, [0.0, 1.0, 0.0, 0.0]);
        let squares = LOGITS.map(|p| p * p / 0.3);
        check(SampleConfig { temperature: 0.5, ..ALL }, squares);
        check(SampleConfig { temperature: 1e-300, ..ALL }, [0.0, 1.0, 0.0, 0.0]);
        check(SampleConfig::GREEDY, [0.0, 1.0, 0.0, 0.0]);
    }

    #[test]
    fn ties_go_to_the_lower_token() {
        let logits = [1.0, 3.0, 3.0, 3.0];
        assert_eq!(sample(&logits, &SampleConfig::GREEDY, 0.9).unwrap(), 1);
        let config = SampleConfig { top_k: 2, ..ALL };
        assert_eq!(sample(&logits, &config, 0.49).unwrap(), 1);
        assert_eq!(sample(&logits, &config, 0.99).unwrap(), 2);
        let config = SampleConfig { top_p: 1e-9, ..ALL };
        assert_eq!(sample(&logits, &config, 0.99).unwrap(), 1);
    }

    #[test]
    fn excluded_tokens_are_never_chosen() {
        // Even where the sum of the weights falls short of the target by rounding.
        assert_eq!(first_past(&[0.5, 0.0], 1.0, |sum, target| sum > target), 0);
        let logits = [f32::NEG_INFINITY, 0.0, f32::NEG_INFINITY];
        for config in [ALL, SampleConfig::GREEDY, SampleConfig { top_k: 2, ..ALL }] {
            for uniform in [0.0, 1.0 - f64::EPSILON / 2.0] {
                assert_eq!(sample(&logits, &config, uniform).unwrap(), 1);
            }
        }
    }

    #[test]
    fn refusals_name_the_cause() {
        for logits in [[0.0, f32::NAN], [0.0, f32::INFINITY]] {
            for config in [ALL, SampleConfig::GREEDY] {
                let result = sample(&logits, &config, 0.5);
                assert!(matches!(result, Err(Error::Logits { token: 1, .. })), "{result:?}");
            }
        }
        assert!(sample(&[f32::NEG_INFINITY; 3], &ALL, 0.5).is_err());
        assert!(sample(&[], &ALL, 0.5).is_err());
        for uniform in [1.0, -0.1, f64::NAN] {
            assert!(sample(&[0.0], &ALL, uniform).is_err());
        }
        for (expected, config) in [
            ("temperature", SampleConfig { temperature: -1.0, ..ALL }),
            ("temperature", SampleConfig { temperature: f64::NAN, ..ALL }),
            ("temperature", SampleConfig { temperature: f64::INFINITY, ..ALL }),
            ("top_p", SampleConfig { top_p: 0.0, ..ALL }),
            ("top_p", SampleConfig { top_p: 1.1, ..ALL }),
            ("top_p", SampleConfig { top_p: f64::NAN, ..ALL }),
        ] {
            match sample(&[0.0], &config, 0.5) {
                Err(Error::Config { field, .. }) => assert_eq!(field, expected),
                other => panic!("{config:?} gave {other:?}"),
            }
        }
    }
}
