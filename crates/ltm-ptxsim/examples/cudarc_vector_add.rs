//! A program written for a GPU: adds two vectors with cudarc. Nothing in it knows the simulator.
//!
//! On the simulator:
//! ```sh
//! cargo build -p ltm-ptxsim --lib --example cudarc_vector_add
//! ln -sf libltm_ptxsim.so target/debug/libcuda.so.1
//! LD_LIBRARY_PATH=target/debug target/debug/examples/cudarc_vector_add
//! ```
#![allow(unsafe_code)]

use cudarc::driver::{CudaContext, DriverError, LaunchConfig, PushKernelArg};
use cudarc::nvrtc::Ptx;

/// Adds two vectors and prints the first and last sums.
pub fn main() -> Result<(), DriverError> {
    let context = CudaContext::new(0)?;
    let stream = context.default_stream();
    let module = context.load_module(Ptx::from_src(include_str!("../tests/kernels.ptx")))?;
    let add = module.load_function("add")?;

    let a: Vec<f32> = (0..1000).map(|i| i as f32).collect();
    let b = vec![0.5f32; a.len()];
    let (a, b) = (stream.clone_htod(&a)?, stream.clone_htod(&b)?);
    let mut out = stream.alloc_zeros::<f32>(a.len())?;
    let n = a.len() as u32;
    let mut launch = stream.launch_builder(&add);
    launch.arg(&mut out).arg(&a).arg(&b).arg(&n);
    // SAFETY: the arguments are those of `add`, and all vectors have n elements.
    unsafe { launch.launch(LaunchConfig::for_num_elems(n)) }?;

    let sums = stream.clone_dtoh(&out)?;
    println!("{}: {:?} ... {:?}", context.name()?, &sums[..3], &sums[sums.len() - 3..]);
    Ok(())
}
