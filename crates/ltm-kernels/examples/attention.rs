//! Runs `attention` alone: no model, no graph, just buffers.
//!
//! Every query equals every key, so a token attends evenly to what it may see, and what it may see is a window:
//! with the position of each token as its value, the outputs are the means of those positions.

use ltm_kernels::ops::attention::{self, AttentionDims, Mask};
use ltm_kernels::{Buffer, DType, Device, Result};

fn main() -> Result<()> {
    let device = Device::Cpu;
    // One sequence of 8 tokens, 2 query heads that share 1 key/value head of width 4, a window of 3 tokens.
    let window = 3;
    let dims = AttentionDims { b: 1, t: 8, t_k: 8, h: 2, g: 1, d: 4, mask: Mask::Window(window) };

    let q = Buffer::from_vec(vec![1f32; dims.t * dims.h * dims.d]);
    let k = Buffer::from_vec(vec![1f32; dims.t * dims.g * dims.d]);
    let positions = (0..dims.t).flat_map(|t| vec![t as f32; dims.g * dims.d]);
    let v = Buffer::from_vec(positions.collect());

    let mut out = Buffer::zeros(&device, DType::F32, dims.t * dims.h * dims.d)?;
    let mut lse = Buffer::zeros(&device, DType::F32, dims.t * dims.h)?;
    let scale = 1.0 / (dims.d as f64).sqrt();
    attention::fwd(&device, &mut out, &mut lse, &q, &k, &v, scale, dims)?;

    println!("token  sees   mean position  keys seen (exp(lse - score))");
    let (out, lse) = (out.to_f32().expect("on the CPU"), lse.to_f32().expect("on the CPU"));
    for t in 0..dims.t {
        let first = (t + 1).saturating_sub(window);
        let mean = out[t * dims.h * dims.d];
        let seen = (lse[t * dims.h] - scale as f32 * dims.d as f32).exp();
        println!("{t:>5}  {first}..={t}  {mean:>13.3}  {seen:.3}");
    }
    Ok(())
}

#[test]
fn runs() {
    main().expect("a good example");
}
