//! The kernel table: every CUDA entry point, the file it stands in, and whether it is what
//! production runs. Knows names and texts, no launch.
//!
//! A symbol reads `<op>_<pass>[_<part>]_<dtype>_v<rung>`; its file lies in the op's folder.

/// One entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The entry's name in the compiled module.
    pub symbol: &'static str,
    /// Its file, relative to `kernels/`.
    pub file: &'static str,
    /// Whether calls take it when its needs hold. The others are lower rungs, kept to compare with
    /// and for calls that no higher rung serves.
    pub production: bool,
}

impl Kernel {
    /// The op, as named in `ops/`.
    pub fn op(&self) -> &'static str {
        self.file.split_once('/').map_or(self.file, |(op, _)| op)
    }

    /// The rung: 1 is the naive one.
    ///
    /// # Panics
    /// When the symbol does not end in `_v<rung>`, which a test excludes.
    pub fn rung(&self) -> u32 {
        let (_, rung) = self.symbol.rsplit_once("_v").expect("a symbol ends in its rung");
        rung.parse().expect("a rung is a number")
    }
}

/// The rungs that an op has for a pass (`fwd`, `bwd`, …), lowest first.
pub fn rungs(op: &str, pass: &str) -> Vec<u32> {
    let start = format!("{op}_{pass}_");
    let mut rungs: Vec<_> =
        KERNELS.iter().filter(|k| k.symbol.starts_with(&start)).map(Kernel::rung).collect();
    rungs.sort_unstable();
    rungs.dedup();
    rungs
}

/// The row of an entry point.
pub fn find(symbol: &str) -> Option<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.symbol == symbol)
}

/// The text of a file of `kernels/`.
pub fn source(file: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}

/// Embeds files of `kernels/` by name.
macro_rules! texts {
    ($($file:literal,)*) => {
        &[$(($file, include_str!(concat!("../kernels/", $file)))),*]
    };
}

/// A row of [`KERNELS`] that calls take.
const fn production(symbol: &'static str, file: &'static str) -> Kernel {
    Kernel { symbol, file, production: true }
}

/// A row of [`KERNELS`] of a lower rung.
const fn ladder(symbol: &'static str, file: &'static str) -> Kernel {
    Kernel { symbol, file, production: false }
}

/// What kernels share, by the names under which they include it.
pub static HEADERS: &[(&str, &str)] =
    texts!["common/mma.cuh", "common/reduce.cuh", "common/types.cuh",];

/// Every kernel file, in order of name.
static SOURCES: &[(&str, &str)] = texts![];

/// Every entry point, op by op, lowest rung first.
#[rustfmt::skip]
pub static KERNELS: &[Kernel] = &[
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_whole() {
        let mut symbols = std::collections::BTreeSet::new();
        for kernel in KERNELS {
            assert!(symbols.insert(kernel.symbol), "{} stands twice", kernel.symbol);
            assert!(kernel.rung() >= 1);
            assert!(kernel.symbol.starts_with(&format!("{}_", kernel.op())), "{kernel:?}");
            let text =
                source(kernel.file).unwrap_or_else(|| panic!("{} is not embedded", kernel.file));
            assert!(text.contains(kernel.symbol), "{} is not in {}", kernel.symbol, kernel.file);
        }
        for (file, _) in SOURCES {
            assert!(KERNELS.iter().any(|kernel| kernel.file == *file), "{file} has no row");
        }
    }
}
