//! The objective of a fit and of a slow step as a graph: the one place where it is traced. Knows no device, no
//! batch and no optimiser.

use ltm_autodiff::{Graph, Kind, Result, UpdateRate, Value, grad, ops};
use ltm_model::encoder::{Encoded, EncoderInputs};
use ltm_model::{ParamSpec, Part};

use crate::low_rank::TracedFactor;
use crate::prior::TracedGaussian;
use crate::{Likelihood, Prior};

/// Which weight gradients are traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowGradient {
    /// None, for evaluation.
    None,
    /// At the final sample only: Algorithm 1 of the paper. An encoder, where there is one, has a bound of its own: at its
    /// own sample, with the decoder held fixed.
    Final,
    /// At the encoder's sample, of decoder and encoder together: a variational autoencoder.
    Joint,
    /// At the final sample, and summed over all fast steps: what the published code does, which
    /// never clears the decoder's gradients inside the loop.
    Trajectory,
}

/// What a graph is traced for: training by a loss, or evaluation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Training {
    /// Which weight gradients are traced.
    pub gradient: SlowGradient,
    /// The KL of each layer's latents that costs nothing, in nats (Kingma et al. 2016): below it the objective of fits and
    /// of the encoder does not pull a posterior towards the prior. Reported KL are in full.
    pub free_bits: f64,
    /// Whether the slow step is importance-weighted: see [`Slow::sample_weight`].
    pub importance: bool,
    /// Columns of each layer's [`Factor`](crate::Factor) that the graph has inputs for. A program that is given a posterior
    /// with more or fewer is traced again for it.
    pub rank: usize,
}

impl From<SlowGradient> for Training {
    /// By one sample of independent numbers, and every nat of KL counts.
    fn from(gradient: SlowGradient) -> Self {
        Self { gradient, free_bits: 0.0, importance: false, rank: 0 }
    }
}

impl Training {
    /// The part of a KL that counts.
    fn counted(self, g: &mut Graph, kl: Value) -> Result<Value> {
        if self.free_bits == 0.0 {
            return Ok(kl);
        }
        let above = ops::affine(g, kl, 1.0, -self.free_bits)?;
        ops::relu(g, above)
    }
}

/// A traced model for `B` sequences of `T` tokens.
#[derive(Debug)]
pub struct Objective {
    /// One input per parameter.
    pub weights: Vec<Value>,
    /// Input `(B,T)`.
    pub tokens: Value,
    /// Input `(B·T)`.
    pub targets: Value,
    /// Negative log-likelihood of each target at the sample, `(B·T)`.
    pub nll: Value,
    /// The posterior and what is minimised over it; `None` for a model without latents.
    pub latents: Option<LatentObjective>,
    /// The encoder, of a model that has one.
    pub encoder: Option<Encoder>,
    /// What the weights' gradients are of; `None` without any.
    pub slow: Option<Slow>,
}

/// What a fit minimises, `bound = sum(nll) + sum(kl_weight · kl)`, and its gradient.
#[derive(Debug)]
pub struct LatentObjective {
    /// Input `(B,L·Z,C)`: means.
    pub mu: Value,
    /// Input `(B,L·Z,C)`: logarithms of the variances.
    pub log_var: Value,
    /// Input `(B,L·Z,C)`: standard normal noise of the sample.
    pub noise: Value,
    /// Inputs of the factor, where the posterior has one.
    pub factor: Option<TracedFactor>,
    /// KL from the prior of each layer of a sequence, `(B·L)`.
    pub kl: Value,
    /// Input `(B·L)`: the weight of each KL.
    pub kl_weight: Value,
    /// The negative bound by one sample, one number.
    pub bound: Value,
    /// Gradient of the bound by `mu`.
    pub dmu: Value,
    /// Gradient of the bound by `log_var`.
    pub dlog_var: Value,
    /// Gradient of the bound by the factor's columns.
    pub dcolumns: Option<Value>,
    /// Gradients of the bound by each weight, for [`SlowGradient::Trajectory`].
    pub dweights: Vec<Value>,
}

/// The encoder in the graph.
#[derive(Debug)]
pub struct Encoder {
    /// Input: the batch's targets, and `V` where a position is not scored.
    pub inputs: EncoderInputs,
    /// Input `(B·L)`: the weight of each KL in the bound that trains the encoder.
    pub kl_weight: Value,
    /// What it predicts.
    pub encoded: Encoded,
}

/// The loss of a slow step and its gradients: `sum(token_weight · nll) + sum(prior_kl_weight · kl)` at the latents, and for
/// the encoder's weights the bound at the encoder's sample, `sum(token_weight · nll) + sum(encoder_kl_weight · kl)`.
///
/// A learned prior therefore learns by the KL that the posteriors were fitted with, at the weight that it has there: it
/// rests while that weight is 0.
#[derive(Debug)]
pub struct Slow {
    /// Input `(B·T)`: the weight of each target.
    pub token_weight: Value,
    /// Input `(B·T)`: the weight of each target in the bound of an encoder beside a fit.
    pub encoder_token_weight: Option<Value>,
    /// Input `(B·L)`: the weight of each KL in the loss of a learned prior, where the posterior is that of a fit.
    pub prior_kl_weight: Option<Value>,
    /// Input `(B)`: the importance of each sequence's sample for its encoder, of an importance-weighted step with an
    /// encoder. With the same weights in `token_weight` the gradients of the encoder are doubly reparametrised (Tucker et
    /// al. 2019): `importance²` times the path derivative, while those of the decoder have `importance` once.
    pub sample_weight: Option<Value>,
    /// Negative log-likelihood of each target, `(B·T)`.
    pub nll: Value,
    /// KL of each layer of a sequence, `(B·L)`; `None` without latents.
    pub kl: Option<Value>,
    /// One gradient per weight.
    pub gradients: Vec<Value>,
}

/// Traces the objective for `b` sequences of `t` tokens.
///
/// # Errors
/// Those of the operations, such as for a configuration that is not valid.
pub fn trace(
    g: &mut Graph,
    likelihood: &dyn Likelihood,
    prior: &dyn Prior,
    [b, t]: [usize; 2],
    training: Training,
) -> Result<Objective> {
    let extents = likelihood.extents();
    let rows = b * extents.n_layers;
    let input = |spec: &ParamSpec, g: &mut Graph| {
        g.input(&spec.name, &spec.shape, Kind::Float, UpdateRate::Weights)
    };
    let params = likelihood.params();
    let weights: Vec<Value> = params.iter().map(|spec| input(spec, g)).collect();
    let tokens = g.input("tokens", &[b, t], Kind::Int, UpdateRate::Batch);
    let targets = g.input("targets", &[b * t], Kind::Int, UpdateRate::Batch);
    let shape = [b, extents.n_latents, extents.dim];
    let posterior = (extents.n_latents > 0).then(|| {
        ["mu", "log_var", "noise"].map(|name| g.input(name, &shape, Kind::Float, UpdateRate::Step))
    });
    let factor = (extents.n_latents > 0 && training.rank > 0).then(|| {
        TracedFactor::inputs(g, [rows, training.rank, extents.latent_len() / extents.n_layers])
    });
    let z = match (posterior, factor) {
        (Some(inputs), Some(factor)) => Some(factor.sample(g, inputs)?),
        (Some([mu, log_var, noise]), None) => Some(ops::reparam(g, mu, log_var, noise)?),
        (None, _) => None,
    };
    let nll = likelihood.nll(g, &weights, tokens, targets, z)?;

    let latents = match (posterior, z) {
        (Some([mu, log_var, noise]), Some(z)) => {
            let q = TracedGaussian { mu, log_var, z };
            let kl = match factor {
                Some(factor) => factor.kl(g, prior, &weights, q)?,
                None => prior.kl(g, &weights, q, rows)?,
            };
            let kl_weight = g.input("kl_weight", &[rows], Kind::Float, UpdateRate::Batch);
            let ones = ops::fill(g, &[b * t], 1.0);
            let sum_nll = ops::dot(g, nll, ones)?;
            let counted = training.counted(g, kl)?;
            let sum_kl = ops::dot(g, counted, kl_weight)?;
            let bound = ops::add(g, sum_nll, sum_kl)?;
            let mut wrt = vec![mu, log_var];
            wrt.extend(factor.map(|factor| factor.columns));
            let moved = wrt.len();
            if training.gradient == SlowGradient::Trajectory {
                wrt.extend(&weights);
            }
            let mut gradients = grad(g, bound, &wrt)?;
            let dweights = gradients.split_off(moved);
            let (dmu, dlog_var) = (gradients[0], gradients[1]);
            let dcolumns = gradients.get(2).copied();
            let all = LatentObjective {
                mu,
                log_var,
                noise,
                factor,
                kl,
                kl_weight,
                bound,
                dmu,
                dlog_var,
                dcolumns,
                dweights,
            };
            Some(all)
        }
        _ => None,
    };
    let encoder = match extents.has_encoder {
        true => Encoder::trace(g, likelihood, &weights, [b, t])?,
        false => None,
    };
    let at_latents = Objective { weights, tokens, targets, nll, latents, encoder, slow: None };
    let slow = match training.gradient {
        SlowGradient::None => None,
        SlowGradient::Final | SlowGradient::Trajectory => {
            Some(at_latents.slow(g, likelihood, prior, &params, training)?)
        }
        SlowGradient::Joint => Some(at_latents.joint(g, likelihood, prior, training)?),
    };
    Ok(Objective { slow, ..at_latents })
}

/// The bound at the encoder's sample.
struct EncodedBound {
    nll: Value,
    kl: Value,
    sample_weight: Option<Value>,
    bound: Value,
}

/// `z`, a sample of the encoder, as a value whose gradient is multiplied by an input `(B)`; also returns that input. It
/// must be the sample at the latents in the store, which is where the encoder's posterior is put.
fn weighted_path(g: &mut Graph, latents: &LatentObjective, z: Value) -> Result<(Value, Value)> {
    let b = g.shape(z)[0];
    let weight = g.input("sample_weight", &[b], Kind::Float, UpdateRate::Step);
    let by_row = ops::reshape(g, weight, &[b, 1, 1])?;
    let LatentObjective { mu, log_var, noise, .. } = *latents;
    let stored = ops::reparam(g, mu, log_var, noise)?;
    let path = ops::sub(g, z, stored)?;
    let path = ops::mul(g, path, by_row)?;
    Ok((ops::add(g, stored, path)?, weight))
}

/// `log q(z) - log p(z)` of each of `rows` parts, up to a constant, for the density of the latents in the store: its
/// gradient is through `z` alone (Roeder et al. 2017).
fn path_divergence(
    g: &mut Graph,
    prior: &dyn Prior,
    weights: &[Value],
    latents: &LatentObjective,
    z: Value,
) -> Result<Value> {
    let rows = g.shape(latents.kl).iter().product();
    let LatentObjective { mu, log_var, .. } = *latents;
    let shape = g.shape(z).to_vec();
    let nothing = ops::fill(g, &shape, 0.0);
    // Without spread it is -log p at the mean, up to a constant: see `Prior::kl`.
    let minus_log_p = prior.kl(g, weights, TracedGaussian { mu: z, log_var: nothing, z }, rows)?;
    let off = ops::sub(g, z, mu)?;
    let square = ops::mul(g, off, off)?;
    let precision = ops::scale(g, log_var, -1.0)?;
    let precision = ops::exp(g, precision)?;
    let square = ops::mul(g, square, precision)?;
    let len = shape.iter().product::<usize>() / rows;
    let square = ops::reshape(g, square, &[rows, len])?;
    let square = ops::sum(g, square, &[1])?;
    let square = ops::reshape(g, square, &[rows])?;
    let log_q = ops::scale(g, square, -0.5)?;
    ops::add(g, log_q, minus_log_p)
}

/// An input of the weight of each target.
fn token_weight(g: &mut Graph, targets: Value, name: &str) -> Value {
    let shape = g.shape(targets).to_vec();
    g.input(name, &shape, Kind::Float, UpdateRate::Batch)
}

impl Encoder {
    fn trace(
        g: &mut Graph,
        likelihood: &dyn Likelihood,
        weights: &[Value],
        [b, t]: [usize; 2],
    ) -> Result<Option<Self>> {
        let extents = likelihood.extents();
        let rows = b * extents.n_layers;
        let text = g.input("text", &[b, t], Kind::Int, UpdateRate::Batch);
        let present = g.input("present", &[b, t], Kind::Float, UpdateRate::Batch);
        let inputs = EncoderInputs { text, present };
        let kl_weight = g.input("encoder_kl_weight", &[rows], Kind::Float, UpdateRate::Batch);
        let encoded = likelihood.encode(g, weights, inputs)?;
        Ok(encoded.map(|encoded| Self { inputs, kl_weight, encoded }))
    }
}

impl LatentObjective {
    /// What shapes the posterior around its mean, each with its gradient: log-variances, and columns where it has any.
    pub(crate) fn spread(&self) -> Vec<[Value; 2]> {
        let columns = self.factor.zip(self.dcolumns);
        let columns = columns.map(|(factor, dcolumns)| [factor.columns, dcolumns]);
        [[self.log_var, self.dlog_var]].into_iter().chain(columns).collect()
    }

    /// The inputs that a fit moves: means, log-variances and columns.
    pub(crate) fn parameters(&self) -> Vec<Value> {
        std::iter::once(self.mu).chain(self.spread().into_iter().map(|[input, _]| input)).collect()
    }
}

impl Objective {
    /// The slow step at given latents: each part of the weights has the gradient of its own loss.
    fn slow(
        &self,
        g: &mut Graph,
        likelihood: &dyn Likelihood,
        prior: &dyn Prior,
        params: &[ParamSpec],
        training: Training,
    ) -> Result<Slow> {
        let token_weight = token_weight(g, self.targets, "token_weight");
        let mut loss = ops::dot(g, self.nll, token_weight)?;
        let mut prior_kl_weight = None;
        let has_prior = params.iter().any(|spec| spec.part == Part::Prior);
        if let (Some(latents), true) = (&self.latents, has_prior) {
            let shape = g.shape(latents.kl).to_vec();
            let weight = g.input("prior_kl_weight", &shape, Kind::Float, UpdateRate::Batch);
            let counted = training.counted(g, latents.kl)?;
            let sum_kl = ops::dot(g, counted, weight)?;
            loss = ops::add(g, loss, sum_kl)?;
            prior_kl_weight = Some(weight);
        }
        let of = |is_encoder: bool| {
            let weights = self.weights.iter().zip(params);
            let part = weights.filter(|(_, spec)| (spec.part == Part::Encoder) == is_encoder);
            part.map(|(w, _)| *w).collect::<Vec<_>>()
        };
        let mut fitted = grad(g, loss, &of(false))?.into_iter();
        let (mut encoder, mut encoder_token_weight) = (Vec::new().into_iter(), None);
        if self.encoder.is_some() {
            // Its samples are not those that importance is computed of.
            let training = Training { importance: false, ..training };
            let of_encoder = self::token_weight(g, self.targets, "encoder_token_weight");
            let EncodedBound { bound, .. } =
                self.encoded(g, likelihood, prior, of_encoder, training)?;
            encoder = grad(g, bound, &of(true))?.into_iter();
            encoder_token_weight = Some(of_encoder);
        }
        let mut gradient = |spec: &ParamSpec| match spec.part {
            Part::Decoder | Part::Prior => fitted.next(),
            Part::Encoder => encoder.next(),
        };
        let gradients = params.iter().map(|spec| gradient(spec).expect("one for each")).collect();
        Ok(Slow {
            token_weight,
            encoder_token_weight,
            prior_kl_weight,
            sample_weight: None,
            nll: self.nll,
            kl: self.latents.as_ref().map(|latents| latents.kl),
            gradients,
        })
    }

    /// The slow step of a variational autoencoder.
    fn joint(
        &self,
        g: &mut Graph,
        likelihood: &dyn Likelihood,
        prior: &dyn Prior,
        training: Training,
    ) -> Result<Slow> {
        let token_weight = token_weight(g, self.targets, "token_weight");
        let (encoder_token_weight, prior_kl_weight) = (None, None);
        let EncodedBound { nll, kl, sample_weight, bound } =
            self.encoded(g, likelihood, prior, token_weight, training)?;
        let gradients = grad(g, bound, &self.weights)?;
        Ok(Slow {
            token_weight,
            encoder_token_weight,
            prior_kl_weight,
            sample_weight,
            nll,
            kl: Some(kl),
            gradients,
        })
    }

    /// The bound at the encoder's sample, which has the latents' noise.
    fn encoded(
        &self,
        g: &mut Graph,
        likelihood: &dyn Likelihood,
        prior: &dyn Prior,
        token_weight: Value,
        training: Training,
    ) -> Result<EncodedBound> {
        let (Some(encoder), Some(latents)) = (&self.encoder, &self.latents) else {
            let reason = "the gradient of a joint bound needs a model with an encoder".into();
            return Err(ltm_autodiff::Error::Shape { op: "encoder", reason });
        };
        let Encoder { encoded: Encoded { mu, log_var, .. }, kl_weight, .. } = *encoder;
        let rows = g.shape(kl_weight).iter().product();
        let z = ops::reparam(g, mu, log_var, latents.noise)?;
        let (z, kl, divergence, sample_weight) = if training.importance {
            let (z, weight) = weighted_path(g, latents, z)?;
            (z, latents.kl, path_divergence(g, prior, &self.weights, latents, z)?, Some(weight))
        } else {
            let kl = prior.kl(g, &self.weights, TracedGaussian { mu, log_var, z }, rows)?;
            (z, kl, training.counted(g, kl)?, None)
        };
        let nll = likelihood.nll(g, &self.weights, self.tokens, self.targets, Some(z))?;
        let sum_nll = ops::dot(g, nll, token_weight)?;
        let sum_kl = ops::dot(g, divergence, kl_weight)?;
        let bound = ops::add(g, sum_nll, sum_kl)?;
        Ok(EncodedBound { nll, kl, sample_weight, bound })
    }

    /// What a fast step computes.
    pub(crate) fn fast_outputs(&self) -> Vec<Value> {
        let mut outputs = vec![self.nll];
        if let Some(latents) = &self.latents {
            outputs.extend([latents.kl, latents.dmu, latents.dlog_var]);
            outputs.extend(latents.dcolumns);
            outputs.extend(&latents.dweights);
        }
        outputs
    }

    /// What a slow step computes; nothing without weight gradients.
    pub(crate) fn slow_outputs(&self) -> Vec<Value> {
        let Some(slow) = &self.slow else { return Vec::new() };
        slow.gradients.iter().copied().chain([slow.nll]).chain(slow.kl).collect()
    }

    /// What the encoder computes; nothing without one.
    pub(crate) fn encoder_outputs(&self) -> Vec<Value> {
        self.encoder.iter().flat_map(|e| [e.encoded.mu, e.encoded.log_var]).collect()
    }
}
