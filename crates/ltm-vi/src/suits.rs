//! Which method of inference, model and use go together. Computes nothing.

use crate::{Error, Extents, InferConfig, Method, Protocol, Result, SlowGradient, StartKind};

/// What latents are inferred for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Nothing in particular: whether the method can infer the model's latents at all.
    Infer,
    /// To train the weights.
    Train(SlowGradient),
    /// To score texts.
    Score(Protocol),
    /// To predict from fresh samples of a posterior, by the suite of this name.
    Predict(&'static str),
    /// To write texts again with latents fitted to them.
    Rethink {
        /// Whether a score chooses the text.
        by_score: bool,
    },
}

/// Checks that a configuration of inference suits a model and what it is used for.
///
/// # Errors
/// [`Error::Unsuitable`] naming what does not fit, and what would.
pub fn suits(model: impl Into<Extents>, infer: &InferConfig, task: Task) -> Result<()> {
    let model = model.into();
    let has_latents = model.n_latents > 0;
    let langevin = infer.method == Method::Langevin;
    if infer.start == StartKind::Encoder && !model.has_encoder && has_latents {
        return Err(no_encoder());
    }
    match task {
        Task::Infer => infers(&model, infer),
        Task::Train(slow_gradient) => {
            infers(&model, infer)?;
            if infer.start == StartKind::Given && infer.steps == 0 {
                return Err(no_fit_to_keep());
            }
            if infer.start == StartKind::Given && infer.rank > 0 {
                return Err(no_columns_to_keep(infer.rank));
            }
            match slow_gradient == SlowGradient::Trajectory && (langevin || model.has_encoder) {
                true => Err(no_trajectory()),
                false => Ok(()),
            }
        }
        Task::Score(protocol) => {
            scores(&model, protocol)?;
            let needs_density = protocol != Protocol::Reconstruction && has_latents;
            match needs_density && langevin {
                true => Err(no_density(protocol.name())),
                false => Ok(()),
            }
        }
        Task::Predict(name) if has_latents && langevin => Err(no_density(name)),
        Task::Predict(_) => Ok(()),
        Task::Rethink { .. } if !has_latents => Err(no_rethinking()),
        Task::Rethink { by_score: true } if langevin => Err(no_choice()),
        Task::Rethink { .. } => infers(&model, infer),
    }
}

fn infers(model: &Extents, infer: &InferConfig) -> Result<()> {
    match (infer.method, infer.start) {
        (_, StartKind::Encoder) if !model.has_encoder => Err(no_encoder()),
        (_, StartKind::Given) if model.n_latents == 0 => {
            Err(no_posterior("a model without latents (model.n_latents = 0)"))
        }
        (Method::Langevin, StartKind::Given) => {
            Err(no_posterior("infer.method = \"langevin\", which ends with a sample"))
        }
        (Method::Langevin, _) if model.n_latents == 0 => {
            let expected = "`variational` for a model without latents (model.n_latents = 0)";
            Err(Error::Unsuitable {
                what: "infer.method",
                expected: expected.into(),
                found: "langevin".into(),
            })
        }
        _ => Ok(()),
    }
}

/// Whether a protocol applies to a model.
pub(crate) fn scores(model: &Extents, protocol: Protocol) -> Result<()> {
    let n_latents = model.n_latents;
    let exact =
        matches!(protocol, Protocol::Autoregressive | Protocol::AutoregressiveOverlap { .. });
    let either = matches!(
        protocol,
        Protocol::Prequential { .. }
            | Protocol::PrequentialShuffled { .. }
            | Protocol::PrequentialOverlap { .. }
    );
    let masked = matches!(protocol, Protocol::MaskedDiffusion { .. });
    let expected = match (model.mask_id, masked) {
        (Some(_), true) => return Ok(()),
        (Some(_), false) => {
            "does not apply to bidirectional attention; use `masked-diffusion`".into()
        }
        (None, true) => "needs a model with attention = \"bidirectional\"".into(),
        (None, false) if either || exact == (n_latents == 0) => return Ok(()),
        (None, false) if n_latents == 0 => {
            "needs a model with latents; use `autoregressive` or `prequential` for one without"
                .into()
        }
        (None, false) => format!(
            "needs a model without latents, found {n_latents}; use `prequential`, which is comparable with it"
        ),
    };
    Err(Error::Unsuitable { what: "protocol", expected, found: protocol.name().into() })
}

/// Fresh samples or a bound need a density, and there is only a sample.
pub(crate) fn no_density(protocol: &str) -> Error {
    let expected = "needs the density of the latents, and Langevin dynamics gives only a sample; use \
                    `reconstruction`, or fit a Gaussian to the same weights with infer.method = \"variational\"";
    Error::Unsuitable { what: "protocol", expected: expected.into(), found: protocol.into() }
}

/// A model has no latents to fit to what it wrote.
pub(crate) fn no_rethinking() -> Error {
    let expected = "omitted for a model without latents, which has nothing to fit to what it wrote";
    Error::Unsuitable { what: "rethink", expected: expected.into(), found: "n_latents = 0".into() }
}

/// Rounds are to be chosen by a bound, and there is only a sample.
pub(crate) fn no_choice() -> Error {
    let expected = "last, because the score that chooses the best round needs a density of the latents, and Langevin \
                    dynamics gives only a sample; or fit a Gaussian with infer.method = \"variational\"";
    Error::Unsuitable { what: "rethink.keep", expected: expected.into(), found: "best".into() }
}

/// A start at the encoder's posterior, of a model without one.
pub(crate) fn no_encoder() -> Error {
    Error::Unsuitable {
        what: "infer.start",
        expected: "`prior` or `drawn` for a model without an encoder, or a model.encoder_width of at least 1".into(),
        found: "encoder".into(),
    }
}

/// Posteriors are to be kept, and fits do not end with any.
fn no_posterior(why: &str) -> Error {
    let expected = format!("`prior` or `drawn` for {why}: there is no posterior to keep");
    Error::Unsuitable { what: "infer.start", expected, found: "given".into() }
}

/// Posteriors are to be kept, and no step would ever change one.
fn no_fit_to_keep() -> Error {
    let expected =
        "at least 1 for infer.start = \"given\", which goes on from visit to visit".into();
    Error::Unsuitable { what: "train.fast_steps", expected, found: "0".into() }
}

/// Posteriors are to be kept, and columns are not kept with them.
fn no_columns_to_keep(rank: usize) -> Error {
    let expected =
        "0 to train with infer.start = \"given\", which keeps means and log-variances".into();
    Error::Unsuitable { what: "infer.rank", expected, found: rank.to_string() }
}

pub(crate) fn no_latents() -> Error {
    Error::Unsuitable {
        what: "model",
        expected: "one with latents".into(),
        found: "n_latents = 0".into(),
    }
}

/// Weight gradients of a trajectory of fast steps, where there is none.
pub(crate) fn no_trajectory() -> Error {
    let expected =
        "final, because only infer.method = \"variational\" without an encoder has a trajectory"
            .into();
    Error::Unsuitable { what: "train.slow_gradient", expected, found: "trajectory".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Noise;
    use ltm_model::{Attention, ModelConfig};

    #[test]
    fn every_combination_is_decided_here() {
        let plain = ModelConfig::ltm_small();
        let baseline = ModelConfig { n_latents: 0, ..plain };
        let masked = ModelConfig { attention: Attention::Bidirectional, ..baseline };
        let encoder = ModelConfig { encoder_width: 12, ..plain };
        let (elbo, exact) = (Protocol::Elbo { samples: 2 }, Protocol::Autoregressive);
        let (code, reconstruction) =
            (Protocol::Prequential { stride: 4, samples: 1 }, Protocol::Reconstruction);
        let masks = Protocol::MaskedDiffusion { samples: 2 };
        let variational = InferConfig { noise: Noise::Fresh, ..InferConfig::published() };
        let langevin = InferConfig { method: Method::Langevin, ..variational };
        let encoded = InferConfig { start: StartKind::Encoder, ..variational };
        let check = |model: &ModelConfig, infer, task, refused: Option<&str>| {
            let found = suits(model, infer, task).err().map(|error| error.to_string());
            let expected = refused.is_some();
            assert_eq!(found.is_some(), expected, "{infer:?} {task:?}: {found:?}");
            let part = refused.unwrap_or_default();
            let message = found.unwrap_or_default();
            assert!(message.contains(part), "{message} has no {part}");
        };
        let score = |model: &ModelConfig, infer, protocol, refused| {
            check(model, infer, Task::Score(protocol), refused);
        };
        score(&plain, &variational, elbo, None);
        score(&plain, &variational, exact, Some("`autoregressive` needs a model without latents"));
        score(&baseline, &variational, elbo, Some("`elbo` needs a model with latents"));
        score(&baseline, &variational, exact, None);
        for model in [&plain, &baseline] {
            score(model, &variational, code, None);
            score(model, &variational, masks, Some("bidirectional"));
        }
        score(&masked, &variational, masks, None);
        score(&masked, &variational, exact, Some("use `masked-diffusion`"));
        score(&plain, &langevin, reconstruction, None);
        for protocol in [elbo, code, Protocol::ElboFittedNoise, Protocol::Iwae { samples: 1 }] {
            score(&plain, &langevin, protocol, Some("infer.method = \"variational\""));
        }
        score(&baseline, &langevin, code, None);
        score(&plain, &encoded, elbo, Some("`infer.start` must be `prior` or `drawn`"));
        score(&encoder, &encoded, elbo, None);
        score(&encoder, &variational, elbo, None);
        check(&plain, &langevin, Task::Predict("last-word"), Some("`last-word` needs the density"));
        check(&baseline, &langevin, Task::Predict("last-word"), None);
        let rethink = |by_score| Task::Rethink { by_score };
        check(&plain, &variational, rethink(true), None);
        check(&plain, &langevin, rethink(true), Some("`rethink.keep` must be last"));
        check(&plain, &langevin, rethink(false), None);
        check(&baseline, &variational, rethink(false), Some("`rethink` must be omitted"));
        check(&plain, &encoded, rethink(false), Some("`infer.start` must be"));
        let train = |model: &ModelConfig, infer, slow, refused| {
            check(model, infer, Task::Train(slow), refused);
        };
        use SlowGradient::{Final, Joint, Trajectory};
        train(&plain, &variational, Trajectory, None);
        train(&plain, &langevin, Final, None);
        train(
            &plain,
            &langevin,
            Trajectory,
            Some("`train.slow_gradient` must be final, because only"),
        );
        train(&baseline, &langevin, Final, Some("without latents"));
        train(&encoder, &encoded, Final, None);
        train(&encoder, &encoded, Joint, None);
        train(&encoder, &encoded, Trajectory, Some("train.slow_gradient"));
        train(&encoder, &variational, Final, None);
        train(&encoder, &langevin, Final, None);
        let given = InferConfig { start: StartKind::Given, ..variational };
        for model in [&plain, &encoder] {
            train(model, &given, Final, None);
            score(model, &given, elbo, None);
        }
        train(&plain, &given, Trajectory, None);
        train(&baseline, &given, Final, Some("without latents (model.n_latents = 0): there is no"));
        let sampled = InferConfig { start: StartKind::Given, ..langevin };
        train(
            &plain,
            &sampled,
            Final,
            Some("`infer.start` must be `prior` or `drawn` for infer.me"),
        );
        let still = InferConfig { steps: 0, ..given };
        let low_rank = InferConfig { rank: 1, ..given };
        train(&plain, &low_rank, Final, Some("`infer.rank` must be 0"));
        score(&plain, &low_rank, elbo, None);
        train(&plain, &still, Final, Some("`train.fast_steps` must be at least 1"));
        score(&plain, &still, elbo, None);
        train(&plain, &encoded, Final, Some("a model.encoder_width of at least 1"));
        train(&baseline, &encoded, Final, Some("a model.encoder_width of at least 1"));
    }
}
