//! The types of elements. Must not know what holds them.

/// The element types a [`Buffer`](crate::Buffer) can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE double precision: gradient checks run in it.
    F64,
    /// bfloat16: activations on CUDA, and weights of matrix products.
    BF16,
    /// Token ids, targets and positions.
    I32,
}

impl DType {
    /// Bytes of one element.
    pub fn size_bytes(self) -> usize {
        match self {
            Self::F64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::BF16 => 2,
        }
    }
}

impl std::fmt::Display for DType {
    /// The type's name in kernel symbols.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F64 => "f64",
            Self::BF16 => "bf16",
            Self::I32 => "i32",
        })
    }
}
