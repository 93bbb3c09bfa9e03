//! One bench per op at the shapes of a 512-wide model: each op is checked, then timed.
//! `cargo xtask bench [op]` runs it.

mod adamw;
mod arrays;
mod attention;
mod cross_entropy;
mod matmul;
mod rms_norm;
mod rope;
mod swiglu;

use anyhow::{Result, anyhow, bail, ensure};
use criterion::Criterion;
use ltm_bench::Shape;

/// Checks the op, then times it: at a shape of the user's, or at its own.
type Bench = fn(&mut Criterion, Option<&Shape>) -> Result<()>;

/// The ops with their benches.
#[rustfmt::skip]
const BENCHES: &[(&[&str], Bench)] = &[
    (&["matmul"], matmul::bench),
    (&["attention"], attention::bench),
    (&["cross_entropy"], cross_entropy::bench),
    (&["rms_norm"], rms_norm::bench),
    (&["swiglu"], swiglu::bench),
    (&["rope"], rope::bench),
    (&["adamw"], adamw::bench),
    (arrays::OPS, arrays::bench),
];

/// Names a shape for the one op that is benched, such as `m=1024,n=768,k=768`.
const SHAPE: &str = "LTM_BENCH_SHAPE";

fn main() -> Result<()> {
    let shape = std::env::var(SHAPE).ok().map(|shape| shape.parse());
    let shape: Option<Shape> =
        shape.transpose().map_err(|mistake: String| anyhow!("--shape: {mistake}"))?;
    // The filter comes first; criterion reads it too.
    let filter = std::env::args().nth(1).filter(|word| !word.starts_with('-'));
    let op = filter.as_ref().and_then(|filter| filter.split('/').next());
    ensure!(shape.is_none() || op.is_some(), "a shape is that of one op: name it");
    let is_wanted = |ops: &[&str]| op.is_none_or(|op| ops.contains(&op));
    let wanted: Vec<_> = BENCHES.iter().filter(|(ops, _)| is_wanted(ops)).collect();
    // The filter of `cargo test` may be meant for other programs.
    if wanted.is_empty() && std::env::args().any(|word| word == "--bench") {
        let known: Vec<_> = BENCHES.iter().flat_map(|(ops, _)| *ops).copied().collect();
        bail!("no bench for `{}`; there are: {}", op.unwrap_or_default(), known.join(" "));
    }
    let mut criterion = ltm_bench::criterion();
    for (_, bench) in wanted {
        bench(&mut criterion, shape.as_ref())?;
    }
    criterion.final_summary();
    Ok(())
}
