//! Vectors that may be too large for the host: an error where `vec!` would abort the process.

use crate::{Error, Result};

/// `len` zeros.
pub(crate) fn zeros<T: bytemuck::Zeroable>(len: usize) -> Result<Vec<T>> {
    bytemuck::allocation::try_zeroed_vec(len).map_err(|()| out_of_memory::<T>(len))
}

/// `f` of every element.
pub(crate) fn collect<T: Copy, U>(data: &[T], f: impl Fn(T) -> U) -> Result<Vec<U>> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(data.len()).map_err(|_| out_of_memory::<U>(data.len()))?;
    copy.extend(data.iter().map(|&x| f(x)));
    Ok(copy)
}

fn out_of_memory<T>(len: usize) -> Error {
    Error::OutOfMemory { device: "cpu".into(), size_bytes: len.saturating_mul(size_of::<T>()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let expected = |size_bytes| Error::OutOfMemory { device: "cpu".into(), size_bytes };
        assert_eq!(zeros::<f32>(usize::MAX), Err(expected(usize::MAX)));
        assert_eq!(zeros::<f64>(1 << 59), Err(expected(1 << 62)));
        assert_eq!(collect(&[(); 1 << 62], |()| 0i16), Err(expected(1 << 63)));
        assert_eq!(collect(&[1u8, 2], f32::from), Ok(vec![1.0, 2.0]));
    }
}
