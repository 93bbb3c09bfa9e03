//! Evaluation protocols: how a number of nats per token is defined, and which models it applies to. Scores
//! nothing.

use serde::{Deserialize, Serialize};

use crate::error::argument;
use crate::{Error, Result};

/// The definition of a number of nats per token, or a perplexity. Numbers of different protocols are not
/// comparable, except exact ones and valid bounds on them: see the bias of each.
///
/// Every protocol gives nats, divided by the scored tokens of the corpus, with a standard error over
/// sequences and, where latents are sampled, the part of it that is due to sampling.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Protocol {
    /// `-log p(x|z)` at the last sample of the fit, which has seen `x`. Not a bound, because the KL is not
    /// counted: one term of a bound, and a measure of what the latents encode.
    Reconstruction,
    /// Reconstruction plus KL, at the last noise of the fit, one sample. With
    /// [`Noise::Fixed`](crate::Noise) it is the number of the paper and not a bound: the fit has seen the
    /// noise and can encode information in it, so the number can be below `-log p(x)`.
    ElboFittedNoise,
    /// The evidence lower bound, `E_q[-log p(x|z)] + KL`: the KL exactly, the expectation as a mean
    /// over fresh samples, unbiased. In expectation never below `-log p(x)`, and above it by the KL
    /// of `q` from the true posterior. The latents have seen `x`; the KL accounts for that.
    Elbo {
        /// Samples per sequence.
        samples: usize,
    },
    /// The importance-weighted bound `-log mean_k p(x,z_k)/q(z_k)` over fresh samples (Burda et al.
    /// 2016). In expectation never below `-log p(x)`, never above the evidence lower bound, and tighter with
    /// more samples. The standard error is to first order, and too small where a few samples have most of
    /// the weight.
    Iwae {
        /// Samples per sequence.
        samples: usize,
    },
    /// Next-block prediction. A row is split into blocks of `stride` targets; for each block the latents
    /// are fitted to the targets before it alone (for a row's first block they come from the prior), and
    /// the block's nats are `-log mean_s p(block | z_s, tokens before it)` over fresh samples `z_s` of
    /// that fit.
    ///
    /// The samples do not depend on the block, so this is the code length of a normalised
    /// distribution: it is comparable with [`Autoregressive`](Self::Autoregressive), which it equals for a
    /// model without latents, and in expectation it is never below the entropy of the data. Fewer samples
    /// make it longer in expectation. It takes one fit per block.
    Prequential {
        /// Targets of a block.
        stride: usize,
        /// Samples per block.
        samples: usize,
    },
    /// As [`Prequential`](Self::Prequential) with the latents of another row: each block is predicted from latents fitted
    /// to as much of the row half a batch away. Such latents know nothing of the text, unless that row is another part of
    /// it. A row that is alone in its batch has latents from the prior.
    PrequentialShuffled {
        /// Targets of a block.
        stride: usize,
        /// Samples per block.
        samples: usize,
    },
    /// As [`Prequential`](Self::Prequential), in overlapping windows: each begins `stride` tokens after
    /// the previous one and only its last `stride` targets are scored (all of the first window's), so that
    /// every block has the longest context that a row holds. Comparable with
    /// [`AutoregressiveOverlap`](Self::AutoregressiveOverlap) of the same stride.
    PrequentialOverlap {
        /// Targets of a block, and the distance between windows.
        stride: usize,
        /// Samples per block.
        samples: usize,
    },
    /// `-log p(x)` of a model without latents, exact: no sampling, no bias. A row's first tokens have little
    /// context.
    Autoregressive,
    /// As [`Autoregressive`](Self::Autoregressive), in overlapping windows: each begins `stride` tokens
    /// after the previous one and only its last `stride` targets are scored (all of the first window's),
    /// so that each token is scored once. Also exact, for a predictor with a longer context.
    AutoregressiveOverlap {
        /// The distance between windows.
        stride: usize,
    },
    /// The bound of a masked diffusion model, `E_t[ 1/t · sum over hidden of -log p ]` (Sahoo et al.
    /// 2024), as a mean over random masks, stratified by the share of masked positions. A bound on
    /// `-log p` of a text and its padding, which is never below that of the text.
    MaskedDiffusion {
        /// Masks per sequence.
        samples: usize,
    },
}

impl Protocol {
    /// The default number of samples.
    pub const DEFAULT_SAMPLES: usize = 8;

    /// The largest number of samples.
    pub const MOST_SAMPLES: usize = 1 << 20;

    /// The name, without numbers.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Reconstruction => "reconstruction",
            Self::ElboFittedNoise => "elbo-fitted-noise",
            Self::Elbo { .. } => "elbo",
            Self::Iwae { .. } => "iwae",
            Self::Prequential { .. } => "prequential",
            Self::PrequentialShuffled { .. } => "prequential-shuffled",
            Self::PrequentialOverlap { .. } => "prequential-overlap",
            Self::Autoregressive => "autoregressive",
            Self::AutoregressiveOverlap { .. } => "autoregressive-overlap",
            Self::MaskedDiffusion { .. } => "masked-diffusion",
        }
    }

    /// The distance between windows, for a protocol whose windows overlap.
    pub fn overlap(&self) -> Option<usize> {
        match self {
            Self::PrequentialOverlap { stride, .. } | Self::AutoregressiveOverlap { stride } => {
                Some(*stride)
            }
            _ => None,
        }
    }

    /// Whether the latents must have been fitted to the whole row before it is scored.
    pub fn needs_fit(&self) -> bool {
        matches!(
            self,
            Self::Reconstruction | Self::ElboFittedNoise | Self::Elbo { .. } | Self::Iwae { .. }
        )
    }

    /// Checks the protocol's numbers, for rows of `t` targets. Whether it applies to a model is decided by
    /// [`suits`](crate::suits).
    ///
    /// # Errors
    /// [`Error::Argument`] for no samples, more than [`MOST_SAMPLES`](Self::MOST_SAMPLES), or a stride that is not in
    /// `1..=t`.
    pub fn check(&self, t: usize) -> Result<()> {
        let samples = match self {
            Self::Elbo { samples } | Self::Iwae { samples } | Self::MaskedDiffusion { samples } => {
                Some(*samples)
            }
            Self::Prequential { samples, .. }
            | Self::PrequentialShuffled { samples, .. }
            | Self::PrequentialOverlap { samples, .. } => Some(*samples),
            _ => None,
        };
        if samples == Some(0) {
            return Err(argument("samples", "at least 1", 0));
        }
        if let Some(samples) = samples.filter(|samples| *samples > Self::MOST_SAMPLES) {
            return Err(argument("samples", format!("at most {}", Self::MOST_SAMPLES), samples));
        }
        match self {
            Self::Prequential { stride, .. }
            | Self::PrequentialShuffled { stride, .. }
            | Self::PrequentialOverlap { stride, .. }
            | Self::AutoregressiveOverlap { stride }
                if !(1..=t).contains(stride) =>
            {
                Err(argument("stride", format!("in 1..={t}, the tokens of a row"), stride))
            }
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for Protocol {
    /// The name followed by its numbers, as it is parsed.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())?;
        match self {
            Self::Reconstruction | Self::ElboFittedNoise | Self::Autoregressive => Ok(()),
            Self::Elbo { samples } | Self::Iwae { samples } | Self::MaskedDiffusion { samples } => {
                write!(f, ":{samples}")
            }
            Self::Prequential { stride, samples }
            | Self::PrequentialShuffled { stride, samples }
            | Self::PrequentialOverlap { stride, samples } => write!(f, ":{stride}:{samples}"),
            Self::AutoregressiveOverlap { stride } => write!(f, ":{stride}"),
        }
    }
}

impl From<Protocol> for String {
    fn from(protocol: Protocol) -> Self {
        protocol.to_string()
    }
}

impl TryFrom<String> for Protocol {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl std::str::FromStr for Protocol {
    type Err = Error;

    /// Parses `reconstruction`, `elbo-fitted-noise`, `elbo[:SAMPLES]`, `iwae[:SAMPLES]`,
    /// `prequential:STRIDE[:SAMPLES]`, `prequential-shuffled:STRIDE[:SAMPLES]`, `prequential-overlap:STRIDE[:SAMPLES]`,
    /// `autoregressive`, `autoregressive-overlap:STRIDE` and `masked-diffusion[:MASKS]`.
    ///
    /// # Errors
    /// [`Error::UnknownProtocol`] for another name, [`Error::Argument`] for missing, surplus, malformed or zero numbers
    /// and for more than [`MOST_SAMPLES`](Self::MOST_SAMPLES).
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(':');
        let name = parts.next().unwrap_or_default();
        let form = match name {
            "reconstruction" | "elbo-fitted-noise" | "autoregressive" => name,
            "elbo" => "elbo[:SAMPLES]",
            "iwae" => "iwae[:SAMPLES]",
            "prequential" => "prequential:STRIDE[:SAMPLES]",
            "prequential-shuffled" => "prequential-shuffled:STRIDE[:SAMPLES]",
            "prequential-overlap" => "prequential-overlap:STRIDE[:SAMPLES]",
            "autoregressive-overlap" => "autoregressive-overlap:STRIDE",
            "masked-diffusion" => "masked-diffusion[:MASKS]",
            _ => return Err(Error::UnknownProtocol { name: text.into() }),
        };
        let first = match name {
            "elbo" | "iwae" => "samples",
            "masked-diffusion" => "masks",
            _ => "stride",
        };
        let misplaced = || argument("protocol", format!("`{form}`"), format!("`{text}`"));
        if parts.clone().count() > form.matches(':').count() {
            return Err(misplaced());
        }
        let mut numbers = Vec::new();
        for part in parts {
            let arg = if numbers.is_empty() { first } else { "samples" };
            let most = if arg == "stride" { usize::MAX } else { Self::MOST_SAMPLES };
            match part.parse::<usize>() {
                Ok(number) if (1..=most).contains(&number) => numbers.push(number),
                _ => {
                    let expected = match arg {
                        "stride" => String::from("a whole number of at least 1"),
                        _ => format!("a whole number from 1 to {most}"),
                    };
                    return Err(argument(arg, expected, format!("`{part}` in `{text}`")));
                }
            }
        }
        let samples = |i: usize| numbers.get(i).copied().unwrap_or(Self::DEFAULT_SAMPLES);
        match (name, numbers.as_slice()) {
            ("reconstruction", []) => Ok(Self::Reconstruction),
            ("elbo-fitted-noise", []) => Ok(Self::ElboFittedNoise),
            ("elbo", [] | [_]) => Ok(Self::Elbo { samples: samples(0) }),
            ("iwae", [] | [_]) => Ok(Self::Iwae { samples: samples(0) }),
            ("prequential", &[stride] | &[stride, _]) => {
                Ok(Self::Prequential { stride, samples: samples(1) })
            }
            ("prequential-shuffled", &[stride] | &[stride, _]) => {
                Ok(Self::PrequentialShuffled { stride, samples: samples(1) })
            }
            ("prequential-overlap", &[stride] | &[stride, _]) => {
                Ok(Self::PrequentialOverlap { stride, samples: samples(1) })
            }
            ("autoregressive", []) => Ok(Self::Autoregressive),
            ("autoregressive-overlap", &[stride]) => Ok(Self::AutoregressiveOverlap { stride }),
            ("masked-diffusion", [] | [_]) => Ok(Self::MaskedDiffusion { samples: samples(0) }),
            _ => Err(misplaced()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Protocol; 10] = [
        Protocol::Reconstruction,
        Protocol::ElboFittedNoise,
        Protocol::Elbo { samples: 3 },
        Protocol::Iwae { samples: 64 },
        Protocol::Prequential { stride: 16, samples: 4 },
        Protocol::PrequentialShuffled { stride: 9, samples: 2 },
        Protocol::PrequentialOverlap { stride: 5, samples: 2 },
        Protocol::Autoregressive,
        Protocol::AutoregressiveOverlap { stride: 7 },
        Protocol::MaskedDiffusion { samples: 16 },
    ];

    #[test]
    fn names_parse_back() {
        for protocol in ALL {
            assert_eq!(protocol.to_string().parse::<Protocol>().unwrap(), protocol);
        }
        let samples = Protocol::DEFAULT_SAMPLES;
        for (text, expected) in [
            ("elbo", Protocol::Elbo { samples }),
            ("prequential:32", Protocol::Prequential { stride: 32, samples }),
        ] {
            assert_eq!(text.parse::<Protocol>().unwrap(), expected);
        }
        for wrong in ["", "ELBO", "elbow:2", ":8"] {
            let error = wrong.parse::<Protocol>().unwrap_err().to_string();
            for protocol in ALL {
                assert!(error.contains(protocol.name()), "{wrong}: {error}");
            }
        }
        for (wrong, parts) in [
            ("elbo:0", ["`samples`", "from 1 to 1048576, found `0`"]),
            ("elbo:1:x", ["`elbo[:SAMPLES]`", "found `elbo:1:x`"]),
            ("elbo:1048577", ["`samples`", "1 to 1048576"]),
            ("iwae:", ["`samples`", "found ``"]),
            ("iwae:x", ["`samples`", "found `x`"]),
            ("reconstruction:x", ["`reconstruction`", "found `reconstruction:x`"]),
            ("prequential", ["`prequential:STRIDE[:SAMPLES]`", "found `prequential`"]),
            ("prequential:0", ["`stride`", "at least 1, found `0`"]),
            ("prequential:8:0", ["`samples`", "found `0`"]),
            ("prequential:8:1:1", ["`prequential:STRIDE[:SAMPLES]`", "8:1:1"]),
            ("autoregressive:8", ["`autoregressive`", "8"]),
            ("autoregressive-overlap", ["`autoregressive-overlap:STRIDE`", "found"]),
            ("masked-diffusion:-1", ["`masks`", "found `-1`"]),
        ] {
            let error = wrong.parse::<Protocol>().unwrap_err().to_string();
            assert!(parts.iter().all(|part| error.contains(part)), "{wrong}: {error}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (wrong, part) in [
            (Protocol::Elbo { samples: 0 }, "samples"),
            (Protocol::Prequential { stride: 17, samples: 1 }, "1..=16"),
            (Protocol::PrequentialOverlap { stride: 0, samples: 1 }, "stride"),
        ] {
            let error = wrong.check(16).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
        ALL.iter().for_each(|protocol| protocol.check(16).unwrap());
    }
}
