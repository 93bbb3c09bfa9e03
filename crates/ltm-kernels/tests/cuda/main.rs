//! The kernels on the CPU and on the device that `LTM_DEVICE=cuda` opens: a GPU, or the simulator where its library stands
//! in for the driver.
//!
//! `walk.rs` takes every rung of the kernel table through the calls that each op's file contributes, and compares it with
//! the reference; what else an op promises is tested in its file.

mod adamw;
mod attention;
mod binary;
mod cast;
mod cross_entropy;
mod device;
mod elementwise;
mod embedding;
mod gaussian_kl;
mod harness;
mod matmul;
mod philox;
mod reduce;
mod reparam;
mod rms_norm;
mod rope;
mod slice;
mod softmax;
mod strided;
mod swiglu;
mod unary;
mod walk;

#[test]
fn every_entry_point_is_walked() {
    walk::assert_complete(&[
        adamw::subject(),
        attention::subject(),
        binary::subject(),
        cast::subject(),
        cross_entropy::subject(),
        elementwise::subject(),
        embedding::subject(),
        gaussian_kl::subject(),
        matmul::subject(),
        philox::subject(),
        reduce::subject(),
        reparam::subject(),
        rms_norm::subject(),
        rope::subject(),
        slice::subject(),
        softmax::subject(),
        strided::subject(),
        swiglu::subject(),
        unary::subject(),
    ]);
}
