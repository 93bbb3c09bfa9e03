//! A learned prior: affine couplings that map standard normal noise `u` to the latents `z` of a layer, so that
//! `log p(z) = log N(u; 0, I) - log |dz/du|`. Knows no decoder and no posterior but through its sample.
//!
//! A coupling leaves one half of the numbers as it is and scales and shifts the other half by functions of the first,
//! `b·exp(s(a)) + t(a)`; the next one exchanges the halves (Dinh, Sohl-Dickstein and Bengio 2017). The logarithm of a scale is
//! within ±[`MOST_LOG_SCALE`], so that no step of training can let a density explode. Everything is computed in full
//! precision.

use std::f64::consts::TAU;
use std::sync::Arc;

use ltm_autodiff::{self, Graph, Value, ops};
use ltm_model::{CouplingParams, DeviceWeights, ModelConfig, ModelParams, param_table};

use crate::prior::{Density, TracedGaussian};
use crate::{Error, Prior, Result, StandardNormal};

/// The largest logarithm of a coupling's scale.
const MOST_LOG_SCALE: f64 = 2.0;

/// Most parts of one concatenation.
const PARTS: usize = 8;

/// The prior of a model: the standard normal, or with `prior_layers` couplings a [`Flow`].
pub fn prior_of(config: &ModelConfig) -> Arc<dyn Prior> {
    match config.prior_layers {
        0 => Arc::new(StandardNormal),
        _ => Arc::new(Flow { config: *config }),
    }
}

/// The learned prior of each layer's latents by itself, whose parameters are among the
/// [model's](ltm_model::ModelParams::prior).
#[derive(Clone, Copy, Debug)]
pub struct Flow {
    config: ModelConfig,
}

/// Which half the coupling number `idx` changes: the second, then the first, and so on.
fn moves_second(idx: usize) -> bool {
    idx.is_multiple_of(2)
}

impl Flow {
    /// Numbers of a layer's latents, `Z·C`.
    fn part_len(&self) -> usize {
        self.config.latents_per_layer() * self.config.dim
    }

    /// `-log p` of the latents `z (B,Z·C)` of a layer up to `log(2π)/2` per number, as what each number adds through its noise,
    /// `u²/2 (B,Z·C)`, and the logarithms of the scales, `(B,Z·C/2)`.
    fn cost(
        g: &mut Graph,
        couplings: &[CouplingParams<usize>],
        weights: &[Value],
        z: Value,
    ) -> ltm_autodiff::Result<[Value; 2]> {
        let half = g.shape(z)[1] / 2;
        let mut first = ops::narrow(g, z, 1, 0, half)?;
        let mut second = ops::narrow(g, z, 1, half, half)?;
        let shape = g.shape(first).to_vec();
        let mut log_scales = ops::fill(g, &shape, 0.0);
        for (idx, coupling) in couplings.iter().enumerate().rev() {
            let (kept, moved) = match moves_second(idx) {
                true => (first, &mut second),
                false => (second, &mut first),
            };
            let weights = coupling.map(|idx| weights[idx]);
            let hidden = ops::linear(g, kept, weights.hidden)?;
            let hidden = ops::add(g, hidden, weights.hidden_bias)?;
            let hidden = ops::tanh(g, hidden)?;
            let out = ops::linear(g, hidden, weights.out)?;
            let out = ops::add(g, out, weights.out_bias)?;
            let log_scale = ops::narrow(g, out, 1, 0, half)?;
            let log_scale = ops::scale(g, log_scale, 1.0 / MOST_LOG_SCALE)?;
            let log_scale = ops::tanh(g, log_scale)?;
            let log_scale = ops::scale(g, log_scale, MOST_LOG_SCALE)?;
            let shift = ops::narrow(g, out, 1, half, half)?;
            let inverse = ops::scale(g, log_scale, -1.0)?;
            let inverse = ops::exp(g, inverse)?;
            let shifted = ops::sub(g, *moved, shift)?;
            *moved = ops::mul(g, shifted, inverse)?;
            log_scales = ops::add(g, log_scales, log_scale)?;
        }
        let u = ops::concat(g, &[first, second], 1)?;
        let square = ops::mul(g, u, u)?;
        Ok([ops::scale(g, square, 0.5)?, log_scales])
    }
}

impl Prior for Flow {
    /// `log q - log p` at the sample, with the mean of `log q`, the entropy of `q`, in closed form: for a narrow `q` that varies
    /// less.
    fn kl(
        &self,
        g: &mut Graph,
        weights: &[Value],
        q: TracedGaussian,
        rows: usize,
    ) -> ltm_autodiff::Result<Value> {
        let (layers, len) = (self.config.n_layers, self.part_len());
        let shape = g.shape(q.z).to_vec();
        let table = param_table(&self.config).len();
        let fits = shape.iter().product::<usize>() == rows * len && shape[0] * layers == rows;
        if !fits || weights.len() != table {
            let reason = format!(
                "needs {table} weights, a row for each of {layers} layers and {len} numbers in each, found {} weights, \
                 {rows} rows and latents {shape:?}",
                weights.len()
            );
            return Err(ltm_autodiff::Error::Shape { op: "flow", reason });
        }
        let (b, latents) = (shape[0], self.config.latents_per_layer());
        let mut parts = Vec::with_capacity(layers);
        for (layer, couplings) in ModelParams::indices(&self.config).prior.iter().enumerate() {
            let part = |g: &mut Graph, x| {
                let part = ops::narrow(g, x, 1, layer * latents, latents)?;
                ops::reshape(g, part, &[b, len])
            };
            let (z, log_var) = (part(g, q.z)?, part(g, q.log_var)?);
            let [squares, log_scales] = Self::cost(g, couplings, weights, z)?;
            let entropy = ops::affine(g, log_var, 0.5, 0.5)?;
            let numbers = ops::sub(g, squares, entropy)?;
            let (numbers, log_scales) =
                (ops::sum(g, numbers, &[1])?, ops::sum(g, log_scales, &[1])?);
            parts.push(ops::add(g, numbers, log_scales)?);
        }
        while parts.len() > 1 {
            let some = parts.chunks(PARTS).map(|some| ops::concat(g, some, 1));
            parts = some.collect::<ltm_autodiff::Result<_>>()?;
        }
        ops::reshape(g, parts[0], &[rows])
    }

    fn density(&self, weights: &DeviceWeights) -> Result<Arc<dyn Density>> {
        weights.check(&param_table(&self.config))?;
        let read = |idx: usize| Ok::<_, Error>(weights.params()[idx].to_f64()?);
        let coupling = |params: &CouplingParams<usize>| {
            let &CouplingParams { hidden, hidden_bias, out, out_bias } = params;
            Ok(Coupling {
                hidden: read(hidden)?,
                hidden_bias: read(hidden_bias)?,
                out: read(out)?,
                out_bias: read(out_bias)?,
            })
        };
        let layer = |params: &Vec<_>| params.iter().map(coupling).collect::<Result<Vec<_>>>();
        let layers = ModelParams::indices(&self.config).prior;
        let layers = layers.iter().map(layer).collect::<Result<_>>()?;
        Ok(Arc::new(FlowDensity { layers, len: self.part_len() }))
    }
}

/// The flow at given weights.
struct FlowDensity {
    layers: Vec<Vec<Coupling>>,
    /// Numbers of a layer's latents.
    len: usize,
}

/// The weights of one coupling.
struct Coupling {
    hidden: Vec<f64>,
    hidden_bias: Vec<f64>,
    out: Vec<f64>,
    out_bias: Vec<f64>,
}

/// `W x + b`.
fn affine(weight: &[f64], bias: &[f64], x: &[f64]) -> Vec<f64> {
    let dot = |row: &[f64]| row.iter().zip(x).map(|(w, x)| w * x).sum::<f64>();
    weight.chunks(x.len()).zip(bias).map(|(row, bias)| dot(row) + bias).collect()
}

impl Coupling {
    /// The logarithm of the scale of each number of the other half, and its shift.
    fn scales_and_shifts(&self, kept: &[f64]) -> [Vec<f64>; 2] {
        let mut hidden = affine(&self.hidden, &self.hidden_bias, kept);
        hidden.iter_mut().for_each(|x| *x = x.tanh());
        let mut log_scales = affine(&self.out, &self.out_bias, &hidden);
        let shifts = log_scales.split_off(kept.len());
        log_scales.iter_mut().for_each(|s| *s = MOST_LOG_SCALE * (*s / MOST_LOG_SCALE).tanh());
        [log_scales, shifts]
    }
}

/// The half of a layer's latents that coupling `idx` reads, and the half that it changes.
fn halves(x: &mut [f64], idx: usize) -> (&mut [f64], &mut [f64]) {
    let (first, second) = x.split_at_mut(x.len() / 2);
    if moves_second(idx) { (first, second) } else { (second, first) }
}

impl FlowDensity {
    /// Maps noise to latents in place; `log_scale` is called with each number's place and the logarithm of its scale.
    fn forward(&self, noise: &mut [f64], mut log_scale: impl FnMut(usize, f64)) {
        for (layer, (part, couplings)) in noise.chunks_mut(self.len).zip(&self.layers).enumerate() {
            for (idx, coupling) in couplings.iter().enumerate() {
                let (kept, moved) = halves(part, idx);
                let [log_scales, shifts] = coupling.scales_and_shifts(kept);
                let start = layer * self.len + if moves_second(idx) { self.len / 2 } else { 0 };
                for (i, (x, (s, t))) in
                    moved.iter_mut().zip(log_scales.iter().zip(shifts)).enumerate()
                {
                    *x = *x * s.exp() + t;
                    log_scale(start + i, *s);
                }
            }
        }
    }
}

impl Density for FlowDensity {
    fn log_density(&self, z: &[f64]) -> f64 {
        let mut u = z.to_vec();
        let mut log_density = 0.0;
        for (part, couplings) in u.chunks_mut(self.len).zip(&self.layers) {
            for (idx, coupling) in couplings.iter().enumerate().rev() {
                let (kept, moved) = halves(part, idx);
                let [log_scales, shifts] = coupling.scales_and_shifts(kept);
                for (x, (s, t)) in moved.iter_mut().zip(log_scales.iter().zip(shifts)) {
                    *x = (*x - t) * (-s).exp();
                    log_density -= s;
                }
            }
        }
        log_density - 0.5 * u.iter().map(|u| u * u + TAU.ln()).sum::<f64>()
    }

    fn sample(&self, noise: &[f64]) -> Vec<f64> {
        let mut z = noise.to_vec();
        self.forward(&mut z, |_, _| ());
        z
    }

    /// The latents of no noise, and the scale that each number is given on the way there.
    fn moments(&self, len: usize) -> [Vec<f32>; 2] {
        let (mut mean, mut log_var) = (vec![0.0; len], vec![0.0; len]);
        self.forward(&mut mean, |at, log_scale| log_var[at] += 2.0 * log_scale);
        [mean, log_var].map(|numbers| numbers.iter().map(|x| *x as f32).collect())
    }
}
