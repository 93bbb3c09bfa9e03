//! Every CUDA rung against its op's reference, on the device that `LTM_DEVICE=cuda` opens: a GPU, or
//! the simulator where its library stands in for the driver.

mod arrays;
mod attention;
mod cross_entropy;
mod device;
mod elementwise;
mod embedding;
mod harness;
mod latents;
mod matmul;
mod rms_norm;
mod rope;
mod swiglu;
