//! Inference of a batch's latents: the trait of all methods, and what a configuration stands for. Each method has a
//! file of its own.

mod adamw;
mod langevin;
mod schedule;

use std::sync::Arc;

pub use adamw::AdamW;
pub use langevin::Langevin;

use crate::{FastStep, InferConfig, InferKey, Latents, Method, Problem, Result, Start, StartKind};

/// Called with every fast step; an error, such as [`Error::Stopped`](crate::Error::Stopped), ends the fit.
pub type Observer<'o> = dyn FnMut(&FastStep) -> Result<()> + 'o;

/// A method that infers the latents of a batch.
///
/// A method is a value: what it returns depends on its arguments alone.
pub trait Fit: Send + Sync {
    /// Infers the latents of `problem`, beginning at `start`, with random numbers under `key`, and reports each step
    /// to `observer`.
    ///
    /// # Errors
    /// [`Error::Unsuitable`](crate::Error::Unsuitable) for a model that the method cannot fit, those of
    /// [`Problem::start`] and [`Problem::gradient`], and whatever the observer returns.
    fn fit(
        &self,
        problem: &mut Problem<'_>,
        start: &Start,
        key: InferKey,
        observer: &mut Observer<'_>,
    ) -> Result<Latents>;
}

/// A method with the start of its fits: how latents are inferred.
#[derive(Clone)]
pub struct Inference {
    fit: Arc<dyn Fit>,
    start: Start,
}

impl Inference {
    /// This method, from this start.
    pub fn new(fit: impl Fit + 'static, start: Start) -> Self {
        Self { fit: Arc::new(fit), start }
    }

    /// What a configuration stands for at `progress` of training, from 0 to 1, which moves the rate from `lr` to
    /// `lr_end` and the weight of the KL over `kl_hold` and `kl_warmup`. With `infer.start = "given"` it begins where there
    /// is nothing to begin with; whoever has kept posteriors starts [from](Self::from) them.
    ///
    /// # Errors
    /// Those of [`InferConfig::validate`].
    pub fn at(infer: &InferConfig, progress: f64) -> Result<Self> {
        Self::weighted(infer, progress, infer.kl_weight_at(progress))
    }

    /// As [`at`](Self::at) with this weight of the KL.
    ///
    /// # Errors
    /// Those of [`InferConfig::validate`].
    pub fn weighted(infer: &InferConfig, progress: f64, kl_weight: f64) -> Result<Self> {
        infer.validate()?;
        let start = match infer.start {
            StartKind::Drawn => Start::Drawn(infer.initial()),
            StartKind::Prior => Start::Prior,
            StartKind::Encoder => Start::Encoder,
            StartKind::Given => Start::EncoderOrPrior,
        };
        Ok(match infer.method {
            Method::Variational => {
                Self::new(AdamW { kl_weight, ..AdamW::new(infer, progress) }, start)
            }
            Method::Langevin => Self::new(Langevin::new(infer, progress), start),
        })
    }

    /// What a configuration stands for when a model is trained: the rates of the end of training and the KL in full.
    /// Every fit for a score, a text or a probe is one of these.
    ///
    /// # Errors
    /// Those of [`InferConfig::validate`].
    pub fn finished(infer: &InferConfig) -> Result<Self> {
        Self::at(infer, 1.0)
    }

    /// Where fits begin.
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The same method from another start.
    pub fn from(&self, start: Start) -> Self {
        Self { fit: self.fit.clone(), start }
    }

    /// Infers the latents of a problem under `key`; [`Latents::None`] for a model without latents.
    ///
    /// # Errors
    /// Those of [`Fit::fit`].
    pub fn infer(
        &self,
        problem: &mut Problem<'_>,
        key: InferKey,
        observer: &mut Observer<'_>,
    ) -> Result<Latents> {
        if problem.extents().n_latents == 0 {
            return Ok(Latents::None);
        }
        self.fit.fit(problem, &self.start, key, observer)
    }
}
