//! The walk over the kernel table: every rung of an op against its reference, on the CPU and on CUDA. Must not know any op.

use std::collections::BTreeSet;
use std::fmt::Debug;

use ltm_kernels::cuda::with_rung;
use ltm_kernels::registry::{self, FILES, File};
use ltm_kernels::{DType, Device, Error, Result};
use ltm_testkit::{Tol, assert_close};

use crate::harness::{check_values, device};

/// What an op contributes to the walk: a case for each of its passes.
pub struct Subject {
    pub op: &'static str,
    pub cases: Vec<Box<dyn Pass>>,
}

/// The calls of one pass.
pub struct Case<D: 'static> {
    /// As the symbols of the kernel table begin after the op: `fwd`, `bwd`, …
    pub pass: &'static str,
    /// Types and extents: 1, odd ones, one past a tile, the widest that the needs allow, and for every need one that
    /// does not meet it.
    pub calls: Vec<(DType, D)>,
    /// Whether a call meets a need, which is given in the contract's words. Panics for a need that it does not know.
    pub holds: fn(&str, DType, &D) -> bool,
    /// Makes the inputs, calls the op and reads its results.
    pub run: fn(&Device, DType, &D) -> Results,
    /// What the results must be, and how closely. A result that is the input of another one is passed as the device
    /// rounded it.
    pub expected: fn(DType, &D, &[Vec<f64>]) -> Vec<Expected>,
}

/// The results of a call, or its refusal.
pub type Results = Result<Vec<Vec<f64>>>;

/// A result's name, its value by the reference, and its tolerance.
pub type Expected = (&'static str, Vec<f64>, Tol);

/// A [`Case`] of any dims.
pub trait Pass {
    fn pass(&self) -> &'static str;
    /// The rungs that its calls are for: all of the pass.
    fn rungs(&self, op: &str) -> Vec<u32> {
        registry::rungs(op, self.pass())
    }
    /// Compares the CPU's implementation with the reference.
    fn walk_cpu(&self, op: &str);
    /// Compares a rung with the reference; each call is accepted or refused as the contracts say. Adds the needs that
    /// were refused.
    fn walk_rung(&self, op: &str, rung: u32, device: &Device, refused: &mut BTreeSet<Need>);
}

/// A case for one rung, where its calls would take the others too long, or its tolerance is its own.
struct OfRung<D: 'static> {
    rung: u32,
    case: Case<D>,
}

/// A file and one of its needs.
pub type Need = (&'static str, &'static str);

/// Every dims with both types of activations.
pub fn both<D: Copy>(dims: impl IntoIterator<Item = D>) -> Vec<(DType, D)> {
    dims.into_iter().flat_map(|dims| [(DType::F32, dims), (DType::BF16, dims)]).collect()
}

/// Every dims in `f32`.
pub fn f32_alone<D>(dims: impl IntoIterator<Item = D>) -> Vec<(DType, D)> {
    dims.into_iter().map(|dims| (DType::F32, dims)).collect()
}

/// [`Case::holds`] of a pass without needs.
pub fn no_needs<D: Debug>(need: &str, _: DType, dims: &D) -> bool {
    panic!("`{need}` is a new need: its case has to tell whether {dims:?} meets it")
}

impl Subject {
    /// Walks all rungs of the op; every need is refused by some call.
    pub fn walk(&self) {
        self.walk_except(&[]);
    }

    /// As [`Self::walk`]. The needs that are `too_large` are unmet only by buffers that exceed a device's memory.
    pub fn walk_except(&self, too_large: &[Need]) {
        self.cases.iter().for_each(|case| case.walk_cpu(self.op));
        let Some(device) = device() else { return };
        let mut refused = BTreeSet::new();
        for case in &self.cases {
            let rungs = case.rungs(self.op);
            assert!(!rungs.is_empty(), "no kernel has the name {}_{}_…", self.op, case.pass());
            for rung in rungs {
                case.walk_rung(self.op, rung, &device, &mut refused);
            }
        }
        let files = FILES.iter().filter(|file| file.op == self.op);
        let needs = files.flat_map(|file| file.needs.iter().map(|need| (file.name, *need)));
        let not_shown: Vec<_> = needs.filter(|need| !refused.contains(need)).collect();
        assert_eq!(not_shown, too_large, "no call shows that the needs on the left are refused");
    }
}

impl<D: Debug> Pass for Case<D> {
    fn pass(&self) -> &'static str {
        self.pass
    }

    fn walk_cpu(&self, op: &str) {
        for (dtype, dims) in self.calls.iter().filter(|(dtype, _)| *dtype == DType::F32) {
            let results = (self.run)(&Device::Cpu, *dtype, dims);
            let results =
                results.unwrap_or_else(|error| panic!("{op} on the CPU, {dims:?}: {error}"));
            for (i, (what, expected, tol)) in self.expect(*dtype, dims, &results).iter().enumerate()
            {
                println!("{op} {what} on the CPU {dims:?}");
                assert_close(&results[i], expected, *tol);
            }
        }
    }

    fn walk_rung(&self, op: &str, rung: u32, device: &Device, refused: &mut BTreeSet<Need>) {
        let of_rung = |file: &&File| file.op == op && file.rung == rung && file.has_pass(self.pass);
        let files: Vec<_> = FILES.iter().filter(of_rung).collect();
        let mut taken = 0;
        for (dtype, dims) in &self.calls {
            let name = format!("{op} {} v{rung} {dtype} {dims:?}", self.pass);
            let needs =
                files.iter().flat_map(|file| file.needs.iter().map(|need| (file.name, *need)));
            let unmet: Vec<_> =
                needs.filter(|(_, need)| !(self.holds)(need, *dtype, dims)).collect();
            let has_type = files.iter().any(|file| has_type(file, *dtype));
            let run = || with_rung(rung, || (self.run)(device, *dtype, dims));
            match run() {
                Err(Error::Unsupported { op: by, need, .. }) if by == op => {
                    let named = unmet.iter().find(|(_, unmet)| *unmet == need);
                    assert!(named.is_some() || !has_type, "{name} is refused by `{need}`");
                    refused.extend(named);
                }
                Err(error) => panic!("{name}: {error}"),
                Ok(results) => {
                    assert!(unmet.is_empty(), "{name} is accepted against {unmet:?}");
                    self.compare(op, rung, *dtype, dims, &results);
                    let again = run().expect("it was accepted above");
                    assert!(is_same(&results, &again), "{name}: same input, other bits");
                    taken += 1;
                }
            }
        }
        assert!(taken > 0, "no call of {op} {} is accepted by v{rung}", self.pass);
    }
}

impl<D: Debug> Pass for OfRung<D> {
    fn pass(&self) -> &'static str {
        self.case.pass
    }

    fn rungs(&self, _: &str) -> Vec<u32> {
        vec![self.rung]
    }

    fn walk_cpu(&self, op: &str) {
        self.case.walk_cpu(op);
    }

    fn walk_rung(&self, op: &str, rung: u32, device: &Device, refused: &mut BTreeSet<Need>) {
        self.case.walk_rung(op, rung, device, refused);
    }
}

impl<D: Debug> Case<D> {
    /// The case for this rung alone.
    pub fn of_rung(self, rung: u32) -> Box<dyn Pass> {
        Box::new(OfRung { rung, case: self })
    }

    fn expect(&self, dtype: DType, dims: &D, results: &[Vec<f64>]) -> Vec<Expected> {
        let expected = (self.expected)(dtype, dims, results);
        assert_eq!(expected.len(), results.len(), "each result has a reference");
        expected
    }

    fn compare(&self, op: &str, rung: u32, dtype: DType, dims: &D, results: &[Vec<f64>]) {
        for (i, (what, expected, tol)) in self.expect(dtype, dims, results).iter().enumerate() {
            let case = format!("{op} {what} v{rung} {dtype} {dims:?}").replace('"', "'");
            check_values(&case, &results[i], expected, *tol);
        }
    }
}

/// Whether a file has an entry point for this type.
fn has_type(file: &File, dtype: DType) -> bool {
    let end = format!("_{dtype}_v{}", file.rung);
    file.symbols.iter().any(|symbol| symbol.ends_with(&end))
}

/// Whether all bits agree; a NaN is one of its own bits.
fn is_same(a: &[Vec<f64>], b: &[Vec<f64>]) -> bool {
    let bits = |results: &[Vec<f64>]| -> Vec<Vec<u64>> {
        results.iter().map(|result| result.iter().map(|x| x.to_bits()).collect()).collect()
    };
    bits(a) == bits(b)
}

/// Every entry point of the table belongs to a pass of a subject, and to a rung that the pass walks.
pub fn assert_complete(subjects: &[Subject]) {
    let is_walked = |file: &File, symbol: &str| {
        let cases = subjects.iter().filter(|subject| subject.op == file.op);
        cases.flat_map(|subject| &subject.cases).any(|case| {
            symbol.starts_with(&format!("{}_{}_", file.op, case.pass()))
                && case.rungs(file.op).contains(&file.rung)
        })
    };
    let symbols =
        FILES.iter().flat_map(|file| file.symbols.iter().map(move |symbol| (file, *symbol)));
    let without: Vec<_> = symbols
        .filter(|(file, symbol)| !is_walked(file, symbol))
        .map(|(_, symbol)| symbol)
        .collect();
    assert!(without.is_empty(), "no case walks these entry points: {without:?}");
}
