//! Which types a plan computes in.

use ltm_kernels::{DType, Device};

use crate::Kind;

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
    /// Activations and matrix-product weights of 16 bits, all else in single precision. On CUDA only.
    pub const MIXED: Self =
        Self { float: DType::F32, activation: DType::BF16, matmul_weight: DType::BF16 };
    /// Products of 16 bits, all else in single precision: activations are rounded where they meet a
    /// matrix-product weight. On the CPU only.
    pub const MIXED_PRODUCTS: Self =
        Self { float: DType::F32, activation: DType::F32, matmul_weight: DType::BF16 };

    /// What a device has of 16 bits.
    pub fn mixed(device: &Device) -> Self {
        match device {
            Device::Cpu => Self::MIXED_PRODUCTS,
            _ => Self::MIXED,
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
