//! The kernel table: every file of `kernels/` with its text, its entry points and the needs of its contract. Must not
//! know launches.
//!
//! The build script writes the table from the contracts. A symbol reads `<op>_<pass>[_<part>]_<dtype>_v<rung>`.

#[cfg(feature = "cuda")]
pub(crate) mod folder;

include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// A kernel file: one rung of an op.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct File {
    /// Its path from `kernels/`.
    pub name: &'static str,
    /// Its text.
    pub text: &'static str,
    /// The op, as named in `ops/`.
    pub op: &'static str,
    /// The rung: 1 is the naive one.
    pub rung: u32,
    /// The conditions of a call, such as `[P1] C % 8 == 0`.
    pub needs: &'static [&'static str],
    /// The names of its entry points.
    pub symbols: &'static [&'static str],
}

impl File {
    /// Whether one of its entry points belongs to this pass (`fwd`, `bwd`, …).
    pub fn has_pass(&self, pass: &str) -> bool {
        let start = format!("{}_{pass}_", self.op);
        self.symbols.iter().any(|symbol| symbol.starts_with(&start))
    }
}

/// The rungs that an op has for a pass, lowest first.
pub fn rungs(op: &str, pass: &str) -> Vec<u32> {
    let files = FILES.iter().filter(|file| file.op == op && file.has_pass(pass));
    let mut rungs: Vec<_> = files.map(|file| file.rung).collect();
    rungs.sort_unstable();
    rungs.dedup();
    rungs
}

/// The file of this name.
pub fn file(name: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.name == name)
}

/// The file that has an entry point, and the entry point's name.
pub fn find(symbol: &str) -> Option<(&'static File, &'static str)> {
    FILES.iter().find_map(|file| {
        let symbol = file.symbols.iter().find(|known| **known == symbol)?;
        Some((file, *symbol))
    })
}
