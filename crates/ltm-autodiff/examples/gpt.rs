//! A GPT of two layers over bytes, trained on one verse and asked to continue it.

use ltm_autodiff::ltm_kernels::ops::adamw::AdamW;
use ltm_autodiff::ltm_kernels::ops::philox::{self, PhiloxKey};
use ltm_autodiff::ltm_kernels::{DType, Device};
use ltm_autodiff::ops::{self, Mask};
use ltm_autodiff::{
    AdamWState, Graph, Kind, Plan, Precision, Result, Store, UpdateRate, Value, grad,
};

const TEXT: &str = "to see a world in a grain of sand and a heaven in a wild flower \
    hold infinity in the palm of your hand and eternity in an hour ";
const VOCABULARY: usize = 128;
const T: usize = 32;
const C: usize = 32;
const HEADS: usize = 4;
const LAYERS: usize = 2;
const EPS: f64 = 1e-5;

/// Trains it, prints its progress, and lets it continue a prompt.
pub fn main() -> Result<()> {
    let (losses, text) = train(&Device::Cpu, 300, "to see", 60)?;
    for (step, loss) in losses.iter().enumerate().step_by(50) {
        println!("step {step:>3}  {loss:.3} nats per byte");
    }
    println!("{text}");
    Ok(())
}

/// The weights, and the graph that they are inputs of.
struct Model {
    g: Graph,
    params: Vec<Value>,
}

impl Model {
    fn weight(&mut self, shape: &[usize]) -> Value {
        let value = self.g.input("weight", shape, Kind::Float, UpdateRate::Weights);
        self.params.push(value);
        value
    }

    fn linear(&mut self, x: Value, to: usize) -> Result<Value> {
        let from = self.g.shape(x)[2];
        let w = self.weight(&[to, from]);
        ops::linear(&mut self.g, x, w)
    }

    /// `x + attention(norm(x))`, then `x + mlp(norm(x))`.
    fn block(&mut self, x: Value, table: Value) -> Result<Value> {
        let h = self.norm(x)?;
        let [q, k, v] = [self.linear(h, C)?, self.linear(h, C)?, self.linear(h, C)?];
        let [q, k] = [q, k].map(|x| ops::rope(&mut self.g, x, table, HEADS));
        let h = ops::attention(&mut self.g, q?, k?, v, HEADS, HEADS, Mask::Window(T))?;
        let h = self.linear(h, C)?;
        let x = ops::add(&mut self.g, x, h)?;
        let h = self.norm(x)?;
        let h = self.linear(h, 4 * C)?;
        let h = ops::gelu(&mut self.g, h)?;
        let h = self.linear(h, C)?;
        ops::add(&mut self.g, x, h)
    }

    fn norm(&mut self, x: Value) -> Result<Value> {
        let ones = ops::fill(&mut self.g, &[C], 1.0);
        ops::rms_norm(&mut self.g, x, ones, EPS)
    }
}

/// Trains for `steps` steps on all windows of the text, then continues `prompt` by `n` bytes, always the most
/// probable. Returns the losses in nats per byte, and the text.
pub fn train(device: &Device, steps: usize, prompt: &str, n: usize) -> Result<(Vec<f64>, String)> {
    let text: Vec<i32> = TEXT.bytes().map(i32::from).collect();
    let b = 4;
    let mut model = Model { g: Graph::new(), params: Vec::new() };
    let tokens = model.g.input("tokens", &[b, T], Kind::Int, UpdateRate::Batch);
    let targets = model.g.input("targets", &[b * T], Kind::Int, UpdateRate::Batch);
    let embedding = model.weight(&[VOCABULARY, C]);
    let positions = ops::positions(&mut model.g, T, 1)?;
    let table = ops::rope_table(&mut model.g, positions, 1e4, C / HEADS)?;
    let mut x = ops::embedding(&mut model.g, embedding, tokens)?;
    for _ in 0..LAYERS {
        x = model.block(x, table)?;
    }
    let x = model.norm(x)?;
    let nll = ops::cross_entropy(&mut model.g, x, embedding, targets)?;
    let loss = ops::mean_all(&mut model.g, nll)?;
    let logits = ops::linear(&mut model.g, x, embedding)?;
    let Model { mut g, params } = model;
    let gradients = grad(&mut g, loss, &params)?;

    let mut store = Store::new(&g, device, Precision::F32)?;
    let mut moments = Vec::new();
    for (stream, &param) in (1..).zip(&params) {
        let key = PhiloxKey { seed: 3, stream, step: 0 };
        philox::normal(device, store.get_mut(param)?, key, 0.0, 0.15)?;
        moments.push(AdamWState::new(device, DType::F32, g.spec(param).len())?);
    }
    let adamw = AdamW { lr: 3e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.01 };
    let mut plan = Plan::new(&g, device, Precision::F32, &[&gradients[..], &[loss]].concat())?;
    let mut losses = Vec::new();
    for step in 0..steps {
        let starts = (0..b).map(|i| (step * b + i) * 11 % (text.len() - T));
        let windows: Vec<_> = starts.map(|start| &text[start..=start + T]).collect();
        store.write_i32(
            tokens,
            &windows.iter().flat_map(|w| &w[..T]).copied().collect::<Vec<_>>(),
        )?;
        store.write_i32(
            targets,
            &windows.iter().flat_map(|w| &w[1..]).copied().collect::<Vec<_>>(),
        )?;
        plan.run(&store)?;
        losses.push(plan.output(loss)?.to_f64()?[0]);
        for ((param, gradient), moments) in params.iter().zip(&gradients).zip(&mut moments) {
            let gradient = plan.output(*gradient)?;
            moments.update(device, store.get_mut(*param)?, gradient, 1.0, adamw)?;
        }
    }

    // The last T bytes at the start of a window; what follows them is not seen.
    let mut plan = Plan::new(&g, device, Precision::F32, &[logits])?;
    let mut written: Vec<i32> = prompt.bytes().map(i32::from).collect();
    for _ in 0..n {
        let seen = &written[written.len().saturating_sub(T)..];
        let mut window = vec![0; b * T];
        window[..seen.len()].copy_from_slice(seen);
        store.write_i32(tokens, &window)?;
        plan.run(&store)?;
        let logits = plan.output(logits)?.to_f32()?;
        let row = &logits[(seen.len() - 1) * VOCABULARY..][..VOCABULARY];
        let best = (0..VOCABULARY).max_by(|&i, &j| row[i].total_cmp(&row[j]));
        written.push(best.map_or(0, |byte| byte as i32));
    }
    Ok((losses, written.iter().map(|&byte| char::from(byte as u8)).collect()))
}
