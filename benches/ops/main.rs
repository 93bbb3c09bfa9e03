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

fn main() -> anyhow::Result<()> {
    let mut criterion = ltm_bench::criterion();
    for bench in [
        matmul::bench,
        attention::bench,
        cross_entropy::bench,
        rms_norm::bench,
        swiglu::bench,
        rope::bench,
        adamw::bench,
        arrays::bench,
    ] {
        bench(&mut criterion)?;
    }
    criterion.final_summary();
    Ok(())
}
