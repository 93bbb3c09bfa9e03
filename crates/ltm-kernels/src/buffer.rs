//! Typed memory on one device. Knows lengths and types; must not know shapes.

use std::sync::atomic::{AtomicU64, Ordering};

use half::bf16;

use crate::cuda::{Arg, Context, DeviceBuffer};
use crate::host::{self, collect};
use crate::{DType, Device, Error, Result};

/// A Rust type that a [`Buffer`] can hold.
pub trait Element: bytemuck::Pod + PartialEq + Send + Sync + std::fmt::Debug + 'static {
    /// The corresponding [`DType`].
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

/// A floating-point [`Element`]; the CPU implementations are generic over it.
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
    /// Negative infinity: the initial value of a running maximum.
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
    /// Hyperbolic tangent.
    fn tanh(self) -> Self;
    /// `self · factor + term`, rounded once.
    fn mul_add(self, factor: Self, term: Self) -> Self;
    /// The larger of two numbers; a NaN operand is ignored, as in `f32::max`.
    fn max(self, other: Self) -> Self;
}

#[doc(hidden)]
#[derive(Debug)]
pub enum Storage {
    F32(Vec<f32>),
    F64(Vec<f64>),
    BF16(Vec<bf16>),
    I32(Vec<i32>),
    #[allow(private_interfaces)]
    Cuda(DeviceBuffer),
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
element!(bf16, BF16);
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
            fn tanh(self) -> Self {
                self.tanh()
            }
            #[inline(always)]
            fn mul_add(self, factor: Self, term: Self) -> Self {
                self.mul_add(factor, term)
            }
            fn max(self, other: Self) -> Self {
                self.max(other)
            }
        }
    };
}
float!(f32);
float!(f64);

/// A contiguous array of elements of one type on one device.
#[derive(Debug)]
pub struct Buffer {
    storage: Storage,
}

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

impl Buffer {
    /// A buffer of `len` zeros. The CPU supports every type; CUDA supports `f32`, `bf16` and `i32`.
    ///
    /// # Errors
    /// [`Error::DType`] when the device does not support the type; [`Error::OutOfMemory`] when it
    /// has too little free memory.
    pub fn zeros(device: &Device, dtype: DType, len: usize) -> Result<Self> {
        match (device, dtype) {
            (Device::Cpu, DType::F32) => host::zeros::<f32>(len).map(Self::from_vec),
            (Device::Cpu, DType::F64) => host::zeros::<f64>(len).map(Self::from_vec),
            (Device::Cpu, DType::I32) => host::zeros::<i32>(len).map(Self::from_vec),
            (Device::Cpu, DType::BF16) => host::zeros::<bf16>(len).map(Self::from_vec),
            (Device::Cuda(_), DType::F64) => {
                Err(Error::DType { expected: "f32, bf16 or i32 on CUDA", got: dtype })
            }
            (Device::Cuda(context), _) => {
                let storage = Storage::Cuda(DeviceBuffer::zeros(context, dtype, len)?);
                count_allocation(len);
                Ok(Self { storage })
            }
        }
    }

    /// Takes over a vector's memory; the buffer is on the CPU.
    pub fn from_vec<T: Element>(data: Vec<T>) -> Self {
        count_allocation(data.len());
        Self { storage: T::wrap(data) }
    }

    /// Copies to `device`, keeping the type.
    ///
    /// # Errors
    /// Those of [`Buffer::zeros`], and [`Error::Cuda`].
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        if self.device() == *device {
            return self.try_clone();
        }
        let mut copy = Self::zeros(device, self.dtype(), self.len())?;
        match self.dtype() {
            DType::I32 => copy.write_i32(&self.to_i32()?)?,
            _ => copy.write_f32(&self.to_f32()?)?,
        }
        Ok(copy)
    }

    /// Copies on the same device. There is no `Clone`, because the copy can fail.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the device has too little free memory.
    pub fn try_clone(&self) -> Result<Self> {
        let storage = match &self.storage {
            Storage::F32(data) => Storage::F32(collect(data, |x| x)?),
            Storage::F64(data) => Storage::F64(collect(data, |x| x)?),
            Storage::BF16(data) => Storage::BF16(collect(data, |x| x)?),
            Storage::I32(data) => Storage::I32(collect(data, |x| x)?),
            Storage::Cuda(buffer) => Storage::Cuda(buffer.try_clone()?),
        };
        count_allocation(self.len());
        Ok(Self { storage })
    }

    /// An empty buffer, which allocates nothing: a placeholder while the real one is borrowed
    /// mutably.
    pub fn empty() -> Self {
        Self { storage: Storage::F32(Vec::new()) }
    }

    /// Number of non-empty buffers this process has allocated so far, for tests.
    pub fn allocations() -> u64 {
        ALLOCATIONS.load(Ordering::Relaxed)
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        match &self.storage {
            Storage::F32(data) => data.len(),
            Storage::F64(data) => data.len(),
            Storage::BF16(data) => data.len(),
            Storage::I32(data) => data.len(),
            Storage::Cuda(buffer) => buffer.len(),
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
            Storage::BF16(_) => DType::BF16,
            Storage::I32(_) => DType::I32,
            Storage::Cuda(buffer) => buffer.dtype(),
        }
    }

    /// The device that holds the elements.
    pub fn device(&self) -> Device {
        match &self.storage {
            Storage::Cuda(buffer) => Device::Cuda(buffer.context()),
            _ => Device::Cpu,
        }
    }

    /// Size of the elements, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.len() * self.dtype().size_bytes()
    }

    /// The elements as a slice, without a copy (CPU only).
    ///
    /// # Errors
    /// [`Error::DType`] when the buffer holds another type, [`Error::WrongDevice`] when it is on
    /// another device.
    pub fn as_slice<T: Element>(&self) -> Result<&[T]> {
        T::slice(&self.storage).ok_or_else(|| self.not_a_slice_of(T::NAME))
    }

    /// The elements as a mutable slice, without a copy (CPU only).
    ///
    /// # Errors
    /// As [`Buffer::as_slice`].
    pub fn as_mut_slice<T: Element>(&mut self) -> Result<&mut [T]> {
        let refused = self.not_a_slice_of(T::NAME);
        T::slice_mut(&mut self.storage).ok_or(refused)
    }

    /// Copies floats into the buffer, rounding them to its type.
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
            Storage::BF16(own) => {
                own.iter_mut().zip(data).for_each(|(own, x)| *own = bf16::from_f32(*x));
            }
            Storage::Cuda(buffer) => match buffer.dtype() {
                DType::F32 => buffer.upload(data)?,
                DType::BF16 => {
                    buffer.upload(&collect(data, |x| bf16::from_f32(x).to_bits())?)?;
                }
                got => return Err(Error::DType { expected: "f32 or bf16", got }),
            },
            Storage::I32(_) => {
                return Err(Error::DType { expected: "a float", got: DType::I32 });
            }
        }
        Ok(())
    }

    /// Copies integers into the buffer.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lengths differ, [`Error::DType`] for a float buffer.
    pub fn write_i32(&mut self, data: &[i32]) -> Result<()> {
        self.check_len(data.len())?;
        match &mut self.storage {
            Storage::Cuda(buffer) if buffer.dtype() == DType::I32 => buffer.upload(data)?,
            _ => self.as_mut_slice::<i32>()?.copy_from_slice(data),
        }
        Ok(())
    }

    /// Copies all elements of a buffer of the same length on the same device; does not allocate.
    ///
    /// # Errors
    /// [`Error::Shape`] when the lengths differ, [`Error::DType`] when the types do,
    /// [`Error::WrongDevice`] when the devices do.
    pub fn copy_from(&mut self, other: &Buffer) -> Result<()> {
        self.check_len(other.len())?;
        self.copy_range(0, other, 0, other.len())
    }

    /// Copies elements `from..from + len` of `other`, on the same device, to `to..to + len`; does
    /// not allocate.
    ///
    /// # Errors
    /// As [`Buffer::copy_from`]; [`Error::Shape`] when a range exceeds its buffer.
    pub fn copy_range(&mut self, to: usize, other: &Buffer, from: usize, len: usize) -> Result<()> {
        for (arg, start, whole) in [("to", to, self.len()), ("from", from, other.len())] {
            if start.checked_add(len).is_none_or(|end| end > whole) {
                let expected = start.saturating_add(len);
                return Err(Error::Shape { op: "copy", arg, expected, got: whole });
            }
        }
        let (to_end, from_end) = (to + len, from + len);
        let (own, device) = (self.dtype(), self.device());
        match (&mut self.storage, &other.storage) {
            (Storage::F32(own), Storage::F32(data)) => {
                own[to..to_end].copy_from_slice(&data[from..from_end]);
            }
            (Storage::F64(own), Storage::F64(data)) => {
                own[to..to_end].copy_from_slice(&data[from..from_end]);
            }
            (Storage::BF16(own), Storage::BF16(data)) => {
                own[to..to_end].copy_from_slice(&data[from..from_end]);
            }
            (Storage::I32(own), Storage::I32(data)) => {
                own[to..to_end].copy_from_slice(&data[from..from_end]);
            }
            _ if device != other.device() => {
                let (expected, got) = (device.to_string(), other.device().to_string());
                return Err(Error::WrongDevice { expected, got });
            }
            (Storage::Cuda(buffer), Storage::Cuda(data)) if own == data.dtype() => {
                buffer.copy_range(to, data, from, len)?;
            }
            _ => return Err(Error::DType { expected: "the same type", got: other.dtype() }),
        }
        Ok(())
    }

    /// All elements as `f32`, from any type and device. Waits for the device.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] when the host has too little memory; [`Error::Cuda`] when work on the
    /// device failed.
    pub fn to_f32(&self) -> Result<Vec<f32>> {
        match &self.storage {
            Storage::F32(data) => collect(data, |x| x),
            Storage::F64(data) => collect(data, |x| x as f32),
            Storage::BF16(data) => collect(data, bf16::to_f32),
            Storage::I32(data) => collect(data, |x| x as f32),
            Storage::Cuda(buffer) => match buffer.dtype() {
                DType::BF16 => {
                    collect(&buffer.download::<u16>()?, |bits| bf16::from_bits(bits).to_f32())
                }
                DType::I32 => collect(&buffer.download::<i32>()?, |x| x as f32),
                _ => buffer.download(),
            },
        }
    }

    /// All elements as `f64`, from any type and device. Waits for the device.
    ///
    /// # Errors
    /// As [`Buffer::to_f32`].
    pub fn to_f64(&self) -> Result<Vec<f64>> {
        match &self.storage {
            Storage::F64(data) => collect(data, |x| x),
            Storage::I32(data) => collect(data, f64::from),
            _ => collect(&self.to_f32()?, f64::from),
        }
    }

    /// All elements of an integer buffer, from any device. Waits for the device.
    ///
    /// # Errors
    /// [`Error::DType`] for a float buffer; otherwise those of [`Buffer::to_f32`].
    pub fn to_i32(&self) -> Result<Vec<i32>> {
        match &self.storage {
            Storage::Cuda(buffer) if buffer.dtype() == DType::I32 => buffer.download(),
            Storage::I32(data) => collect(data, |x| x),
            _ => Err(Error::DType { expected: "i32", got: self.dtype() }),
        }
    }

    /// The address of the elements in a device's memory, for a library that works on a
    /// [`SideStream`](crate::cuda::SideStream); `None` on the CPU and without elements.
    #[cfg(feature = "cuda")]
    pub fn address(&self) -> Option<u64> {
        match &self.storage {
            Storage::Cuda(buffer) => Some(buffer.address()).filter(|address| *address != 0),
            _ => None,
        }
    }

    /// The address of the elements, checked to be of type `dtype` and on `context`'s device, as an
    /// argument of a kernel that reads them.
    pub(crate) fn arg(&self, context: &Context, dtype: DType) -> Result<Arg> {
        match &self.storage {
            Storage::Cuda(buffer) if buffer.context().ordinal() == context.ordinal() => {
                if buffer.dtype() != dtype {
                    let expected = match dtype {
                        DType::F32 => "f32",
                        DType::F64 => "f64",
                        DType::BF16 => "bf16",
                        DType::I32 => "i32",
                    };
                    return Err(Error::DType { expected, got: buffer.dtype() });
                }
                Ok(buffer.arg())
            }
            _ => Err(Error::WrongDevice {
                expected: format!("cuda:{}", context.ordinal()),
                got: self.device().to_string(),
            }),
        }
    }

    /// As [`Buffer::arg`], for a kernel that writes them.
    pub(crate) fn arg_mut(&mut self, context: &Context, dtype: DType) -> Result<Arg> {
        self.arg(context, dtype)
    }

    fn not_a_slice_of(&self, expected: &'static str) -> Error {
        match &self.storage {
            Storage::Cuda(_) => {
                Error::WrongDevice { expected: "cpu".into(), got: self.device().to_string() }
            }
            _ => Error::DType { expected, got: self.dtype() },
        }
    }

    fn check_len(&self, got: usize) -> Result<()> {
        crate::shape::check_len("buffer", "data", got, self.len())
    }
}

fn count_allocation(len: usize) {
    if len > 0 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::I32] {
            for len in [1 << 60, isize::MAX as usize, usize::MAX] {
                let refused = Buffer::zeros(&Device::Cpu, dtype, len).map(|buffer| buffer.len());
                let size_bytes = len.saturating_mul(dtype.size_bytes());
                let device = "cpu".to_owned();
                assert_eq!(refused, Err(Error::OutOfMemory { device, size_bytes }), "{dtype}");
            }
        }
    }

    #[test]
    fn zeros_are_zero_in_every_type() {
        for dtype in [DType::F32, DType::F64, DType::BF16, DType::I32] {
            let buffer = Buffer::zeros(&Device::Cpu, dtype, 3).expect("a small buffer fits");
            assert_eq!((buffer.dtype(), buffer.to_f64()), (dtype, Ok(vec![0.0; 3])));
            let copy = buffer.try_clone().expect("a small buffer fits");
            assert_eq!((copy.dtype(), copy.len()), (dtype, 3));
        }
    }
}
