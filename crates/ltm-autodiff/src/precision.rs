//! Kinds of values, and which types a plan computes them in. Knows no graph.

use ltm_kernels::{DType, Device};

/// Floats or indices. A plan's [`Precision`] gives each kind of float its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Floats in full precision: weights, latents, statistics, losses, and the gradients of all these.
    Float,
    /// Floats that flow through the model and may be narrower. [`ops::cast`](crate::ops::cast) converts
    /// between kinds.
    Activation,
    /// Matrices that activations are multiplied with, cast from weights in full precision.
    MatmulWeight,
    /// `i32` token ids, targets or positions.
    Int,
}

/// The type of each kind of floats: one graph runs in any precision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Precision {
    /// Of [`Kind::Float`], and of working memory.
    pub float: DType,
    /// Of [`Kind::Activation`].
    pub activation: DType,
    /// Of [`Kind::MatmulWeight`].
    pub matmul_weight: DType,
}

impl Precision {
    /// Single precision everywhere: the default on the CPU.
    pub const F32: Self =
        Self { float: DType::F32, activation: DType::F32, matmul_weight: DType::F32 };
    /// Double precision everywhere: what gradients are checked in. On the CPU only.
    pub const F64: Self =
        Self { float: DType::F64, activation: DType::F64, matmul_weight: DType::F64 };
    /// Activations and matrix-product weights of 16 bits, everything else in single precision. On CUDA only.
    pub const MIXED: Self =
        Self { float: DType::F32, activation: DType::BF16, matmul_weight: DType::BF16 };
    /// Products of 16 bits, everything else in single precision: activations are rounded where they meet a
    /// matrix-product weight. On the CPU only.
    pub const MIXED_PRODUCTS: Self =
        Self { float: DType::F32, activation: DType::F32, matmul_weight: DType::BF16 };

    /// The precision with 16 bits that a device has.
    pub fn mixed(device: &Device) -> Self {
        match device {
            Device::Cpu => Self::MIXED_PRODUCTS,
            _ => Self::MIXED,
        }
    }

    /// Whether `device` computes in this precision. On the CPU floats and activations are
    /// `f32` or `f64`, and matrix-product weights have the activations' type or, next to activations
    /// of `f32`, are `bf16`. On CUDA floats are `f32`, activations `f32` or `bf16`, and matrix-product
    /// weights have the activations' type.
    pub fn fits(self, device: &Device) -> bool {
        use DType::{BF16, F32, F64};
        let Self { float, activation, matmul_weight } = self;
        let same = matmul_weight == activation;
        match device {
            Device::Cpu => {
                let computes = |dtype| matches!(dtype, F32 | F64);
                let mixed = (activation, matmul_weight) == (F32, BF16);
                computes(float) && computes(activation) && (same || mixed)
            }
            _ => float == F32 && matches!(activation, F32 | BF16) && same,
        }
    }

    /// The type of a value of this kind.
    pub fn dtype(self, kind: Kind) -> DType {
        match kind {
            Kind::Float => self.float,
            Kind::Activation => self.activation,
            Kind::MatmulWeight => self.matmul_weight,
            Kind::Int => DType::I32,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cpu_computes_in() {
        for fine in [Precision::F32, Precision::F64, Precision::MIXED_PRODUCTS] {
            assert!(fine.fits(&Device::Cpu), "{fine:?}");
        }
        let integers = Precision { float: DType::I32, ..Precision::F32 };
        let doubled = Precision { matmul_weight: DType::F64, ..Precision::F32 };
        for wrong in [Precision::MIXED, integers, doubled] {
            assert!(!wrong.fits(&Device::Cpu), "{wrong:?}");
        }
    }
}
