//! Conversion between floating-point types.

mod cpu;
mod cuda;
pub mod reference;

use crate::shape::{check_len, on_float};
use crate::{Buffer, Cost, DType, Device, Result};

const OP: &str = "cast";

/// What [`fwd`] costs on `n` elements: a copy.
pub fn cost(n: usize) -> Cost {
    Cost::new(0, 2 * n)
}

/// `out[i] = x[i]`, rounded to nearest, ties to even. Equal types copy. The CPU casts between `f32` and
/// `f64`, and from `f32` to `bf16`; CUDA between `f32` and `bf16`.
///
/// # Shapes
/// Both of one length.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) when the lengths differ; [`Error::DType`](crate::Error::DType) for an
/// integer buffer.
pub fn fwd(device: &Device, out: &mut Buffer, x: &Buffer) -> Result<()> {
    check_len(OP, "x", x.len(), out.len())?;
    match device {
        Device::Cuda(context) => cuda::fwd(context, out, x),
        Device::Cpu if out.dtype() == DType::BF16 => {
            cpu::round(out.as_mut_slice()?, x.as_slice()?);
            Ok(())
        }
        Device::Cpu => on_float!(out.dtype(), T => on_float!(x.dtype(), S => {
            reference::fwd::<T, S>(out.as_mut_slice()?, x.as_slice()?);
            Ok(())
        })),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;
    use crate::ops::testing::{f32s, f64s, out32, out64};

    const CPU: &Device = &Device::Cpu;

    #[test]
    fn rounds_to_nearest_and_widens_exactly() {
        // Half of the spacing above 1 is a tie; any more goes up.
        let (tie, above) = (1.0 + 2f64.powi(-24), 1.0 + 2f64.powi(-24) + 2f64.powi(-40));
        let (mut narrow, mut wide) = (out32(3), out64(3));
        fwd(CPU, &mut narrow, &f64s(&[tie, above, f64::INFINITY])).expect("shapes agree");
        fwd(CPU, &mut wide, &narrow).expect("shapes agree");
        let expected = [1.0, 1.0 + 2f64.powi(-23), f64::INFINITY];
        assert_eq!(wide.to_f64().expect("on the CPU"), expected);
    }

    #[test]
    fn rounds_to_bf16_with_ties_to_even() {
        // 8 binary digits: half of the spacing above 1 is a tie, and so is the next half.
        let (spacing, tie) = (2f64.powi(-7), 2f64.powi(-8));
        let mut narrow = Buffer::zeros(CPU, DType::BF16, 3).expect("the CPU holds bf16");
        fwd(CPU, &mut narrow, &f32s(&[1.0 + tie, 1.0 + 3.0 * tie, -0.5])).expect("shapes agree");
        assert_eq!(narrow.to_f64().expect("on the CPU"), [1.0, 1.0 + 2.0 * spacing, -0.5]);
        assert!(matches!(fwd(CPU, &mut narrow, &out64(3)), Err(Error::DType { .. })));
    }

    #[test]
    fn equal_types_copy() {
        let x = [1.5, -0.0, 3.0];
        let (mut narrow, mut wide) = (out32(3), out64(3));
        fwd(CPU, &mut narrow, &f32s(&x)).expect("shapes agree");
        fwd(CPU, &mut wide, &f64s(&x)).expect("shapes agree");
        assert_eq!(narrow.to_f64().expect("on the CPU"), x);
        assert_eq!(wide.to_f64().expect("on the CPU"), x);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let refused = fwd(CPU, &mut out32(2), &out64(3));
        assert!(matches!(refused, Err(Error::Shape { arg: "x", .. })));
        let integers = Buffer::from_vec(vec![1i32; 2]);
        assert!(matches!(fwd(CPU, &mut out32(2), &integers), Err(Error::DType { .. })));
    }
}
