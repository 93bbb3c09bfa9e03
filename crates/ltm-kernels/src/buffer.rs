//! Typed memory on one device. Knows lengths and types, never shapes.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::{Device, Error, Result};

/// The element types a [`Buffer`] can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DType {
    /// IEEE single precision.
    F32,
    /// IEEE double precision: gradient checks run in it.
    F64,
    /// Token ids, targets and positions.
    I32,
}

/// A Rust type that a [`Buffer`] can hold.
pub trait Element: bytemuck::Pod + PartialEq + Send + Sync + std::fmt::Debug + 'static {
    /// The matching run-time tag.
    const DTYPE: DType;
    /// The type's name in messages.
    const NAME: &'static str;
    #[doc(hidden)]
    fn slice(storage: &Storage) -> Option<&[Self]>;
    #[doc(hidden)]
    fn slice_mut(storage: &mut Storage) -> Option<&mut [Self]>;
    #[doc(hidden)]
    fn wrap(data: Vec<Self>) -> Storage;
}

/// A floating-point [`Element`]: the CPU implementations are written once over it.
pub trait Float:
    Element
    + PartialOrd
    + Default
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::MulAssign
    + std::iter::Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Negative infinity: the start of a running maximum.
    const NEG_INFINITY: Self;
    /// Rounds a double to this type.
    fn from_f64(x: f64) -> Self;
    /// Widens to a double, exactly.
    fn to_f64(self) -> f64;
    /// e to the power of `self`.
    fn exp(self) -> Self;
    /// Natural logarithm.
    fn ln(self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// The larger of two numbers; a NaN on either side is lost, as in `f32::max`.
    fn max(self, other: Self) -> Self;
}

#[doc(hidden)]
#[derive(Clone, Debug)]
pub enum Storage {
    F32(Vec<f32>),
    F64(Vec<f64>),
    I32(Vec<i32>),
}

macro_rules! element {
    ($type:ty, $variant:ident) => {
        impl Element for $type {
            const DTYPE: DType = DType::$variant;
            const NAME: &'static str = stringify!($type);
            fn slice(storage: &Storage) -> Option<&[Self]> {
                match storage {
                    Storage::$variant(data) => Some(data),
                    _ => None,
                }
            }
            fn slice_mut(storage: &mut Storage) -> Option<&mut [Self]> {
                match storage {
                    Storage::$variant(data) => Some(data),
                    _ => None,
                }
            }
            fn wrap(data: Vec<Self>) -> Storage {
                Storage::$variant(data)
            }
        }
    };
}
element!(f32, F32);
element!(f64, F64);
element!(i32, I32);

macro_rules! float {
    ($type:ty) => {
        impl Float for $type {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            const NEG_INFINITY: Self = <$type>::NEG_INFINITY;
            fn from_f64(x: f64) -> Self {
                x as $type
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn exp(self) -> Self {
                self.exp()
            }
            fn ln(self) -> Self {
                self.ln()
            }
            fn sqrt(self) -> Self {
                self.sqrt()
            }
            fn max(self, other: Self) -> Self {
                self.max(other)
            }
        }
    };
}
float!(f32);
float!(f64);

/// A contiguous run of elements of one type on one device.
#[derive(Clone, Debug)]
pub struct Buffer {
    storage: Storage,
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

impl Buffer {
    /// `len` zeros.
    ///
    /// # Errors
    /// None on the CPU; on other devices, when memory runs out.
    pub fn zeros(device: &Device, dtype: DType, len: usize) -> Result<Self> {
        match (device, dtype) {
            (Device::Cpu, DType::F32) => Ok(Self::from_vec(vec![0f32; len])),
            (Device::Cpu, DType::F64) => Ok(Self::from_vec(vec![0f64; len])),
            (Device::Cpu, DType::I32) => Ok(Self::from_vec(vec![0i32; len])),
        }
    }

    /// Takes over a vector's memory, on the CPU.
    pub fn from_vec<T: Element>(data: Vec<T>) -> Self {
        if !data.is_empty() {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        Self { storage: T::wrap(data) }
    }

    /// No elements and no memory: what stands in a buffer's place while it is borrowed.
    pub fn empty() -> Self {
        Self { storage: Storage::F32(Vec::new()) }
    }

    /// How many non-empty buffers this process has ever allocated: a test's probe.
    pub fn allocations() -> u64 {
        ALLOCATIONS.load(Ordering::Relaxed)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::F32(data) => data.len(),
            Storage::F64(data) => data.len(),
            Storage::I32(data) => data.len(),
        }
    }

    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        match &self.storage {
            Storage::F32(_) => DType::F32,
            Storage::F64(_) => DType::F64,
            Storage::I32(_) => DType::I32,
        }
    }

    /// Bytes of memory held.
    pub fn size_bytes(&self) -> usize {
        match self.dtype() {
            DType::F32 | DType::I32 => 4 * self.len(),
            DType::F64 => 8 * self.len(),
        }
    }

    /// The elements, read in place (CPU).
    ///
    /// # Errors
    /// [`Error::DType`] when the buffer holds another type.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        T::slice(&self.storage).ok_or(Error::DType { expected: T::NAME, got: self.dtype() })
    }

    /// The elements, changed in place (CPU).
    ///
    /// # Errors
    /// [`Error::DType`] when the buffer holds another type.
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        let got = self.dtype();
        T::slice_mut(&mut self.storage).ok_or(Error::DType { expected: T::NAME, got })
    }

    /// Copies floats in, rounding to the buffer's type.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lengths differ, [`Error::DType`] for an integer buffer.
    pub fn write_f32(&mut self, data: &[f32]) -> Result<()> {
        self.check_len(data.len())?;
        match &mut self.storage {
            Storage::F32(own) => own.copy_from_slice(data),
            Storage::F64(own) => {
                own.iter_mut().zip(data).for_each(|(own, x)| *own = f64::from(*x));
            }
            Storage::I32(_) => {
                return Err(Error::DType { expected: "f32 or f64", got: DType::I32 });
            }
        }
        Ok(())
    }

    /// Copies integers in.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lengths differ, [`Error::DType`] for a float buffer.
    pub fn write_i32(&mut self, data: &[i32]) -> Result<()> {
        self.check_len(data.len())?;
        self.as_mut_slice::<i32>()?.copy_from_slice(data);
        Ok(())
    }

    /// Copies another buffer's elements in, without allocating.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lengths differ, [`Error::DType`] when the types do.
    pub fn copy_from(&mut self, other: &Buffer) -> Result<()> {
        self.check_len(other.len())?;
        match (&mut self.storage, &other.storage) {
            (Storage::F32(own), Storage::F32(data)) => own.copy_from_slice(data),
            (Storage::F64(own), Storage::F64(data)) => own.copy_from_slice(data),
            (Storage::I32(own), Storage::I32(data)) => own.copy_from_slice(data),
            _ => return Err(Error::DType { expected: "the same type", got: other.dtype() }),
        }
        Ok(())
    }

    /// All elements as `f32`, whatever the buffer's type.
    pub fn to_f32(&self) -> Vec<f32> {
        match &self.storage {
            Storage::F32(data) => data.clone(),
            Storage::F64(data) => data.iter().map(|&x| x as f32).collect(),
            Storage::I32(data) => data.iter().map(|&x| x as f32).collect(),
        }
    }

    /// All elements as `f64`, whatever the buffer's type.
    pub fn to_f64(&self) -> Vec<f64> {
        match &self.storage {
            Storage::F32(data) => data.iter().map(|&x| f64::from(x)).collect(),
            Storage::F64(data) => data.clone(),
            Storage::I32(data) => data.iter().map(|&x| f64::from(x)).collect(),
        }
    }

    fn check_len(&self, got: usize) -> Result<()> {
        crate::shape::check_len("buffer", "data", got, self.len())
    }
}
