//! Which types a plan computes in.

use ltm_kernels::{DType, Device};

use crate::{Error, Kind, Result};

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

    /// Refuses a precision that `device` does not compute in. On the CPU floats and activations are
    /// `f32` or `f64`, and matrix-product weights have the activations' type or, next to activations
    /// of `f32`, are `bf16`. On CUDA floats are `f32`, activations `f32` or `bf16`, and matrix-product
    /// weights have the activations' type.
    ///
    /// # Errors
    /// [`Error::Precision`].
    pub fn check(self, device: &Device) -> Result<()> {
        use DType::{BF16, F32, F64};
        let Self { float, activation, matmul_weight } = self;
        let same = matmul_weight == activation;
        let fits = match device {
            Device::Cpu => {
                let computes = |dtype| matches!(dtype, F32 | F64);
                let mixed = (activation, matmul_weight) == (F32, BF16);
                computes(float) && computes(activation) && (same || mixed)
            }
            _ => float == F32 && matches!(activation, F32 | BF16) && same,
        };
        match fits {
            true => Ok(()),
            false => Err(Error::Precision { precision: self, device: device.to_string() }),
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
    fn a_precision_that_cannot_run_is_refused_by_name() {
        for fine in [Precision::F32, Precision::F64, Precision::MIXED_PRODUCTS] {
            assert!(fine.check(&Device::Cpu).is_ok(), "{fine:?}");
        }
        let integers = Precision { float: DType::I32, ..Precision::F32 };
        let doubled = Precision { matmul_weight: DType::F64, ..Precision::F32 };
        for wrong in [Precision::MIXED, integers, doubled] {
            let refused = wrong.check(&Device::Cpu);
            let Err(Error::Precision { precision, device }) = refused else {
                panic!("{wrong:?} is not refused")
            };
            assert_eq!((precision, device.as_str()), (wrong, "cpu"));
        }
        let message = Precision::MIXED.check(&Device::Cpu).expect_err("refused above").to_string();
        assert!(
            message.starts_with("cpu does not compute with floats of f32, activations of bf16")
        );
    }
}
