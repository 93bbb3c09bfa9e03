//! Which types a plan computes in.

use ltm_kernels::DType;

use crate::Kind;

/// The types of both kinds of floats: one graph runs in any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Of [`Kind::Float`], and of working memory.
    pub float: DType,
    /// Of [`Kind::Activation`].
    pub activation: DType,
}

impl Precision {
    /// Single precision everywhere: the default on the CPU.
    pub const F32: Self = Self { float: DType::F32, activation: DType::F32 };
    /// Double precision everywhere: what gradients are checked in. On the CPU only.
    pub const F64: Self = Self { float: DType::F64, activation: DType::F64 };
    /// Activations of 16 bits with sums, weights and latents in single precision. On CUDA only.
    pub const MIXED: Self = Self { float: DType::F32, activation: DType::BF16 };

    /// The type of a value of this kind.
    pub fn dtype(self, kind: Kind) -> DType {
        match kind {
            Kind::Float => self.float,
            Kind::Activation => self.activation,
            Kind::Int => DType::I32,
        }
    }
}
