//! The arguments of a compiled kernel, as declared in its PTX. Must not know the driver or any op.

use super::launch::Arg;
use crate::{Error, Result};

/// The type of an argument, as far as PTX declares it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parameter {
    size_bytes: usize,
    /// `None` if PTX declares untyped bits.
    is_float: Option<bool>,
}

impl Parameter {
    /// Parses a declaration such as `.param .u64 .ptr .align 1 name_param_0`.
    fn parse(declaration: &str) -> Option<Self> {
        let mut words = declaration.split_whitespace();
        let ty = words.by_ref().find(|word| *word != ".param")?;
        let (class, bits) = ty.strip_prefix('.')?.split_at_checked(1)?;
        let is_float = match class {
            "f" => Some(true),
            "s" | "u" => Some(false),
            "b" => None,
            _ => return None,
        };
        // A structure is declared as an array of bytes; none of our kernels takes one.
        let is_array = declaration.contains('[');
        let size_bytes = bits.parse::<usize>().ok().filter(|_| !is_array)? / 8;
        Some(Self { size_bytes, is_float })
    }

    fn takes(self, arg: &Arg) -> bool {
        let (size_bytes, is_float) = match arg {
            Arg::Ptr(_) | Arg::I64(_) => (8, false),
            Arg::I32(_) | Arg::U32(_) => (4, false),
            Arg::F32(_) => (4, true),
            Arg::F64(_) => (8, true),
        };
        self.size_bytes == size_bytes && self.is_float.is_none_or(|float| float == is_float)
    }
}

/// The arguments of the entry `symbol` of a PTX module.
pub(super) fn of(symbol: &str, ptx: &[u8]) -> Result<Vec<Parameter>> {
    let refuse = |reason: String| Error::Cuda { call: format!("find kernel {symbol}"), reason };
    let text = String::from_utf8_lossy(ptx);
    let list = text.split(".entry").find_map(|entry| {
        let (name, rest) = entry.split_once('(')?;
        (name.trim() == symbol).then(|| rest.split(')').next()).flatten()
    });
    let list = list.ok_or_else(|| refuse("its module has no entry of this name".into()))?;
    let declarations = list.split(',').map(str::trim).filter(|text| !text.is_empty());
    declarations
        .map(|text| {
            Parameter::parse(text)
                .ok_or_else(|| refuse(format!("no launch passes an argument like `{text}`")))
        })
        .collect()
}

/// Fails if the arguments differ from the signature in number or type.
pub(super) fn check(symbol: &str, parameters: &[Parameter], args: &[Arg]) -> Result<()> {
    let refuse = |reason| Err(Error::Cuda { call: format!("launch {symbol}"), reason });
    if args.len() != parameters.len() {
        let (expected, got) = (parameters.len(), args.len());
        return refuse(format!("the kernel takes {expected} arguments, got {got}"));
    }
    match parameters.iter().zip(args).position(|(parameter, arg)| !parameter.takes(arg)) {
        None => Ok(()),
        Some(i) => {
            let (expected, got) = (parameters[i], args[i]);
            refuse(format!("argument {i} must be {expected:?}, got {got:?}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PTX: &[u8] = b".version 8.0\n.target sm_90a\n\
        .visible .entry sum_v10(\n\t.param .u32 sum_v10_param_0\n)\n{ ret; }\n\
        .visible .entry sum_v1(\n\t.param .u64 .ptr .align 1 sum_v1_param_0,\n\
        \t.param .u32 sum_v1_param_1,\n\t.param .f32 sum_v1_param_2,\n\
        \t.param .b64 sum_v1_param_3\n)\n.maxntid 256\n{ ret; }\n\
        .visible .entry none() { ret; }\n\
        .entry structure(.param .align 8 .b8 structure_param_0[16]) { ret; }\n\0";

    #[test]
    fn arguments_of_the_wrong_number_or_type_are_refused() {
        let sum = of("sum_v1", PTX).expect("the entry exists");
        let [ptr, n, x] = [Arg::Ptr(1), Arg::I32(2), Arg::F32(3.0)];
        for right in [[ptr, n, x, Arg::F64(4.0)], [Arg::I64(1), Arg::U32(2), x, Arg::I64(4)]] {
            assert_eq!(check("sum_v1", &sum, &right), Ok(()));
        }
        let refused = |args: &[Arg]| match check("sum_v1", &sum, args) {
            Err(Error::Cuda { call, reason }) if call == "launch sum_v1" => reason,
            other => panic!("expected a refusal, got {other:?}"),
        };
        assert_eq!(refused(&[ptr, n, x]), "the kernel takes 4 arguments, got 3");
        assert_eq!(refused(&[ptr, n, x, ptr, n]), "the kernel takes 4 arguments, got 5");
        assert!(refused(&[n, n, x, ptr]).starts_with("argument 0"));
        assert!(refused(&[ptr, x, x, ptr]).starts_with("argument 1"));
        assert!(refused(&[ptr, n, n, ptr]).starts_with("argument 2"));
        assert!(refused(&[ptr, n, x, n]).starts_with("argument 3"));
        assert_eq!(of("none", PTX), Ok(vec![]));
        assert_eq!(of("sum_v10", PTX).map(|parameters| parameters.len()), Ok(1));
    }

    #[test]
    fn what_no_launch_passes_is_refused() {
        assert!(matches!(of("sum", PTX), Err(Error::Cuda { .. })));
        assert!(matches!(of("structure", PTX), Err(Error::Cuda { .. })));
    }
}
