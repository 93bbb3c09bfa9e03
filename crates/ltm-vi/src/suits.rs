//! Which method of inference, model and use go together. Computes nothing.

use crate::{Error, Extents, Method, Protocol, Result, SlowGradient};

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
}

/// Checks that a method of inference suits a model and what it is used for.
///
/// # Errors
/// [`Error::Unsuitable`] naming what does not fit, and what would.
pub fn suits(model: impl Into<Extents>, method: Method, task: Task) -> Result<()> {
    let model = model.into();
    let has_latents = model.n_latents > 0;
    if method == Method::Amortised && !model.has_encoder && has_latents {
        return Err(no_encoder());
    }
    match task {
        Task::Infer => infers(&model, method),
        Task::Train(slow_gradient) => {
            infers(&model, method)?;
            trains(&model, method, slow_gradient)
        }
        Task::Score(protocol) => {
            scores(&model, protocol)?;
            let needs_density = protocol != Protocol::Reconstruction && has_latents;
            match needs_density && method == Method::Langevin {
                true => Err(no_density(protocol.name())),
                false => Ok(()),
            }
        }
        Task::Predict(name) if has_latents && method == Method::Langevin => Err(no_density(name)),
        Task::Predict(_) => Ok(()),
    }
}

fn infers(model: &Extents, method: Method) -> Result<()> {
    match method {
        Method::Amortised if !model.has_encoder => Err(no_encoder()),
        Method::Langevin if model.n_latents == 0 => Err(another_method(
            "`variational` for a model without latents (model.n_latents = 0)",
            method,
        )),
        _ => Ok(()),
    }
}

fn trains(model: &Extents, method: Method, slow_gradient: SlowGradient) -> Result<()> {
    if model.has_encoder && method != Method::Amortised {
        let expected =
            "amortised, because no other method trains the encoder of `model.encoder_layers`";
        return Err(another_method(expected, method));
    }
    match slow_gradient == SlowGradient::Trajectory && method != Method::Variational {
        true => Err(no_trajectory()),
        false => Ok(()),
    }
}

/// Whether a protocol applies to a model.
pub(crate) fn scores(model: &Extents, protocol: Protocol) -> Result<()> {
    let n_latents = model.n_latents;
    let exact =
        matches!(protocol, Protocol::Autoregressive | Protocol::AutoregressiveOverlap { .. });
    let either =
        matches!(protocol, Protocol::Prequential { .. } | Protocol::PrequentialOverlap { .. });
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

pub(crate) fn no_encoder() -> Error {
    let expected =
        "another method for a model without an encoder, or model.encoder_layers of at least 1";
    another_method(expected, Method::Amortised)
}

fn another_method(expected: &str, method: Method) -> Error {
    let found = format!("{method:?}").to_lowercase();
    Error::Unsuitable { what: "infer.method", expected: expected.into(), found }
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
    let expected = "final, because only infer.method = \"variational\" has a trajectory".into();
    Error::Unsuitable { what: "train.slow_gradient", expected, found: "trajectory".into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ltm_model::{Attention, ModelConfig};

    #[test]
    fn every_combination_is_decided_here() {
        let plain = ModelConfig::ltm_small();
        let baseline = ModelConfig { n_latents: 0, ..plain };
        let masked = ModelConfig { attention: Attention::Bidirectional, ..baseline };
        let encoder = ModelConfig { encoder_layers: 1, ..plain };
        let (elbo, exact) = (Protocol::Elbo { samples: 2 }, Protocol::Autoregressive);
        let (code, reconstruction) =
            (Protocol::Prequential { stride: 4, samples: 1 }, Protocol::Reconstruction);
        let masks = Protocol::MaskedDiffusion { samples: 2 };
        use Method::{Amortised, Langevin, Variational};
        let check = |model: &ModelConfig, method, task, refused: Option<&str>| {
            let found = suits(model, method, task).err().map(|error| error.to_string());
            let expected = refused.is_some();
            assert_eq!(found.is_some(), expected, "{method:?} {task:?}: {found:?}");
            let part = refused.unwrap_or_default();
            let message = found.unwrap_or_default();
            assert!(message.contains(part), "{message} has no {part}");
        };
        let score = |model: &ModelConfig, method, protocol, refused| {
            check(model, method, Task::Score(protocol), refused);
        };
        score(&plain, Variational, elbo, None);
        score(&plain, Variational, exact, Some("`autoregressive` needs a model without latents"));
        score(&baseline, Variational, elbo, Some("`elbo` needs a model with latents"));
        score(&baseline, Variational, exact, None);
        for model in [&plain, &baseline] {
            score(model, Variational, code, None);
            score(model, Variational, masks, Some("bidirectional"));
        }
        score(&masked, Variational, masks, None);
        score(&masked, Variational, exact, Some("use `masked-diffusion`"));
        score(&plain, Langevin, reconstruction, None);
        for protocol in [elbo, code, Protocol::ElboFittedNoise, Protocol::Iwae { samples: 1 }] {
            score(&plain, Langevin, protocol, Some("infer.method = \"variational\""));
        }
        score(&baseline, Langevin, code, None);
        score(&plain, Amortised, elbo, Some("`infer.method` must be another method"));
        score(&encoder, Amortised, elbo, None);
        check(&plain, Langevin, Task::Predict("last-word"), Some("`last-word` needs the density"));
        check(&baseline, Langevin, Task::Predict("last-word"), None);
        let train = |model: &ModelConfig, method, slow, refused| {
            check(model, method, Task::Train(slow), refused);
        };
        use SlowGradient::{Final, Trajectory};
        train(&plain, Variational, Trajectory, None);
        train(&plain, Langevin, Final, None);
        train(
            &plain,
            Langevin,
            Trajectory,
            Some("`train.slow_gradient` must be final, because only"),
        );
        train(&baseline, Langevin, Final, Some("without latents"));
        train(&encoder, Amortised, Final, None);
        train(&encoder, Amortised, Trajectory, Some("train.slow_gradient"));
        train(&encoder, Variational, Final, Some("no other method trains the encoder"));
        train(&baseline, Amortised, Final, Some("model.encoder_layers of at least 1"));
    }
}
