//! What the compiler makes of a text, and the driver loads.

/// A compiled kernel file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Machine code for the architecture.
    pub cubin: Vec<u8>,
    /// The same kernels as NUL-terminated PTX, for a driver that cannot load the machine code.
    pub ptx: Vec<u8>,
    /// Whether it came from the cache.
    pub is_cached: bool,
}
