//! Arithmetic: one function per instruction and type, applied to all lanes of a warp. Knows values; must not know
//! registers, memory or where the values come from.

mod compare;
mod convert;
mod float;
mod integer;
mod lanes;
mod mma;
mod rounding;

use crate::report::Class;

pub(crate) use compare::comparison;
pub(crate) use convert::Convert;
pub(crate) use float::{f, half_sum};
pub(crate) use integer::{Carried, bfi, carry, lop3, shf};
pub(crate) use lanes::{Alu, Compare, Lanes, sign_extend};
pub(crate) use mma::Mma;

/// Looks up an arithmetic opcode: its implementation, class and flop count per lane. `None` if the
/// opcode or any modifier is unknown, since a modifier cannot be ignored.
pub(crate) fn find(opcode: &str) -> Option<(Alu, Class, u64)> {
    let parts: Vec<&str> = opcode.split('.').collect();
    let [base, modifiers @ .., ty] = parts.as_slice() else { return None };
    match *ty {
        "f32" => return float::single(base, modifiers),
        "f64" => return float::double(base, modifiers),
        "f16" | "bf16" | "f16x2" | "bf16x2" => return float::half(base, modifiers, ty),
        _ => {}
    }
    Some((integer::find(base, modifiers, ty)?, Class::Integer, 0))
}

/// Number of source operands of an instruction that [`find`] knows.
pub(crate) fn operands(opcode: &str) -> usize {
    match opcode.split('.').next().unwrap_or_default() {
        "neg" | "not" | "cnot" | "abs" | "popc" | "clz" | "brev" | "bfind" | "sqrt" | "rcp"
        | "rsqrt" | "ex2" | "lg2" | "sin" | "cos" | "tanh" => 1,
        "mad" | "fma" | "bfe" | "prmt" | "dp4a" | "mad24" | "slct" | "sad" => 3,
        _ => 2,
    }
}
