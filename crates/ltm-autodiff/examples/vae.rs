//! A variational autoencoder of points in eight dimensions that lie on a curve: two latents suffice.
//!
//! Kingma and Welling 2014: the encoder gives a posterior `N(mu, exp(log_var))`, a sample of it is decoded, and the
//! negative bound `-log p(x|z) + KL(q(z|x) ‖ N(0,1))` is minimised; `p(x|z)` is Gaussian of standard deviation 0.1.

use ltm_autodiff::ltm_kernels::ops::adamw::AdamW;
use ltm_autodiff::ltm_kernels::ops::philox::{self, PhiloxKey};
use ltm_autodiff::ltm_kernels::{DType, Device};
use ltm_autodiff::{
    AdamWState, Graph, Kind, Plan, Precision, Result, Store, UpdateRate, Value, grad, ops,
};

const POINTS: usize = 64;
const WIDTH: usize = 8;
const HIDDEN: usize = 16;
const LATENTS: usize = 2;
const STD: f64 = 0.1;

/// Trains it and prints its progress.
pub fn main() -> Result<()> {
    for (step, nll, kl) in train(&Device::Cpu, 600)? {
        println!("step {step:>3}  NLL {nll:>8.3}  KL {kl:.3} nats per point");
    }
    Ok(())
}

/// Trains for `steps` steps; returns step, NLL and KL in nats per point every 100 steps and at the end. The NLL
/// omits its constant, `WIDTH/2 · log(2π STD²)`.
pub fn train(device: &Device, steps: usize) -> Result<Vec<(usize, f64, f64)>> {
    let mut g = Graph::new();
    let mut weight = |name, shape: &[usize]| g.input(name, shape, Kind::Float, UpdateRate::Weights);
    let params = [
        weight("encoder.w", &[HIDDEN, WIDTH]),
        weight("encoder.b", &[HIDDEN]),
        weight("posterior.w", &[2 * LATENTS, HIDDEN]),
        weight("decoder.w", &[HIDDEN, LATENTS]),
        weight("decoder.b", &[HIDDEN]),
        weight("mean.w", &[WIDTH, HIDDEN]),
    ];
    let x = g.input("x", &[POINTS, WIDTH], Kind::Float, UpdateRate::Batch);
    let noise = g.input("noise", &[POINTS, LATENTS], Kind::Float, UpdateRate::Step);

    let hidden = layer(&mut g, x, params[0], params[1])?;
    let posterior = ops::linear(&mut g, hidden, params[2])?;
    let mu = ops::narrow(&mut g, posterior, 1, 0, LATENTS)?;
    let log_var = ops::narrow(&mut g, posterior, 1, LATENTS, LATENTS)?;
    let z = ops::reparam(&mut g, mu, log_var, noise)?;
    let hidden = layer(&mut g, z, params[3], params[4])?;
    let mean = ops::linear(&mut g, hidden, params[5])?;

    let error = ops::sub(&mut g, x, mean)?;
    let square = ops::mul(&mut g, error, error)?;
    let square = ops::sum(&mut g, square, &[1])?;
    let square = ops::mean_all(&mut g, square)?;
    let nll = ops::scale(&mut g, square, 0.5 / (STD * STD))?;
    let kl = ops::gaussian_kl(&mut g, mu, log_var, POINTS)?;
    let kl = ops::mean_all(&mut g, kl)?;
    let nelbo = ops::add(&mut g, nll, kl)?;
    let gradients = grad(&mut g, nelbo, &params)?;

    let mut store = Store::new(&g, device, Precision::F32)?;
    let angle = |i: usize| std::f64::consts::TAU * i as f64 / POINTS as f64;
    let wave = |i: usize| (0..WIDTH).map(move |d| (angle(i) + 0.8 * d as f64).sin() as f32);
    store.write_f32(x, &(0..POINTS).flat_map(wave).collect::<Vec<_>>())?;
    let mut moments = Vec::new();
    for (stream, param) in (1..).zip(params) {
        let key = PhiloxKey { seed: 7, stream, step: 0 };
        philox::normal(device, store.get_mut(param)?, key, 0.0, 0.3)?;
        moments.push(AdamWState::new(device, DType::F32, g.spec(param).len())?);
    }

    let mut plan = Plan::new(&g, device, Precision::F32, &[&gradients[..], &[nll, kl]].concat())?;
    let adamw = AdamW { lr: 0.01, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let mut log = Vec::new();
    for step in 0..=steps {
        let key = PhiloxKey { seed: 7, stream: 0, step: step as u64 };
        philox::normal(device, store.get_mut(noise)?, key, 0.0, 1.0)?;
        plan.run(&store)?;
        if step % 100 == 0 || step == steps {
            let number = |value| Ok::<_, ltm_autodiff::Error>(plan.output(value)?.to_f64()?[0]);
            log.push((step, number(nll)?, number(kl)?));
        }
        for ((param, gradient), moments) in params.iter().zip(&gradients).zip(&mut moments) {
            let gradient = plan.output(*gradient)?;
            moments.update(device, store.get_mut(*param)?, gradient, 1.0, adamw)?;
        }
    }
    Ok(log)
}

/// `tanh(x Wᵀ + b)`.
fn layer(g: &mut Graph, x: Value, w: Value, b: Value) -> Result<Value> {
    let y = ops::linear(g, x, w)?;
    let y = ops::add(g, y, b)?;
    ops::tanh(g, y)
}
