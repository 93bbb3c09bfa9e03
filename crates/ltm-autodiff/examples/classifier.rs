//! A classifier of points on two spirals: a layer of GELUs and an output layer, trained by AdamW.

use ltm_autodiff::ltm_kernels::ops::adamw::AdamW;
use ltm_autodiff::ltm_kernels::ops::philox::{Philox, PhiloxKey};
use ltm_autodiff::ltm_kernels::{DType, Device};
use ltm_autodiff::{
    AdamWState, Graph, Kind, Plan, Precision, Result, Store, UpdateRate, grad, ops,
};

const POINTS: usize = 200;
const HIDDEN: usize = 32;
const CLASSES: usize = 2;

/// Trains it and prints its progress.
pub fn main() -> Result<()> {
    for (step, loss, accuracy) in train(&Device::Cpu, 300)? {
        println!("step {step:>3}  loss {loss:.4} nats  accuracy {accuracy:.3}");
    }
    Ok(())
}

/// Trains for `steps` steps; returns step, loss and accuracy every 50 steps and at the end.
pub fn train(device: &Device, steps: usize) -> Result<Vec<(usize, f64, f64)>> {
    // The model, traced once.
    let mut g = Graph::new();
    let mut weight = |name, shape: &[usize]| g.input(name, shape, Kind::Float, UpdateRate::Weights);
    let params =
        [weight("w1", &[HIDDEN, 4]), weight("b1", &[HIDDEN]), weight("w2", &[CLASSES, HIDDEN])];
    let [w1, b1, w2] = params;
    let x = g.input("x", &[POINTS, 4], Kind::Float, UpdateRate::Batch);
    let labels = g.input("labels", &[POINTS], Kind::Int, UpdateRate::Batch);

    let hidden = ops::linear(&mut g, x, w1)?;
    let hidden = ops::add(&mut g, hidden, b1)?;
    let hidden = ops::gelu(&mut g, hidden)?;
    let nll = ops::cross_entropy(&mut g, hidden, w2, labels)?;
    let loss = ops::mean_all(&mut g, nll)?;
    let logits = ops::linear(&mut g, hidden, w2)?;
    let probabilities = ops::softmax(&mut g, logits)?;
    let gradients = grad(&mut g, loss, &params)?;

    // Its inputs.
    let random = Philox::new(PhiloxKey { seed: 1, stream: 0, step: 0 });
    let (mut points, mut classes) = (Vec::new(), Vec::new());
    for i in 0..POINTS {
        let class = i % CLASSES;
        let angle = 5.0 * random.uniform(i as u64);
        let turned = angle + std::f64::consts::PI * class as f64;
        let (px, py) = (angle / 5.0 * turned.cos(), angle / 5.0 * turned.sin());
        points.extend([px, py, px * px, py * py].map(|x| 2.0 * x as f32));
        classes.push(class as i32);
    }
    let mut store = Store::new(&g, device, Precision::F32)?;
    store.write_f32(x, &points)?;
    store.write_i32(labels, &classes)?;
    let mut moments = Vec::new();
    for (stream, param) in (1..).zip(params) {
        let random = Philox::new(PhiloxKey { seed: 1, stream, step: 0 });
        let n = g.spec(param).len();
        let start: Vec<_> = (0..n as u64).map(|i| random.uniform(i) as f32 - 0.5).collect();
        store.write_f32(param, &start)?;
        moments.push(AdamWState::new(device, DType::F32, n)?);
    }

    // A step is one run of the plan and one update per weight.
    let outputs = [&gradients[..], &[loss, probabilities]].concat();
    let mut plan = Plan::new(&g, device, Precision::F32, &outputs)?;
    let adamw = AdamW { lr: 0.03, beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.0 };
    let mut log = Vec::new();
    for step in 0..=steps {
        plan.run(&store)?;
        if step % 50 == 0 || step == steps {
            let p = plan.output(probabilities)?.to_f64()?;
            let right = |(p, class): &(&[f64], &i32)| p[**class as usize] > 0.5;
            let right = p.chunks(CLASSES).zip(&classes).filter(right).count();
            let loss = plan.output(loss)?.to_f64()?[0];
            log.push((step, loss, right as f64 / POINTS as f64));
        }
        for ((param, gradient), moments) in params.iter().zip(&gradients).zip(&mut moments) {
            let gradient = plan.output(*gradient)?;
            moments.update(device, store.get_mut(*param)?, gradient, 1.0, adamw)?;
        }
    }
    Ok(log)
}
