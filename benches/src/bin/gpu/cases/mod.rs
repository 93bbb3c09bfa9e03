//! The cases: each op's buffers and call at a small shape, to check it, and at a model's, to time it.
//!
//! The full shapes are those of ltm-small in a batch of 16 sequences of 1024 tokens: 512 wide, 8 heads of 64, a window
//! of 256, 8 latents a layer, a feed-forward layer of 1376.

mod arrays;
mod attention;
mod latents;
mod products;
mod rows;

use crate::spec::Case;

/// Tokens of the full shapes.
const TOKENS: usize = 16 * 1024;
/// The model's width, its feed-forward layer's, its vocabulary.
const WIDTH: usize = 512;
const HIDDEN: usize = 1376;
const VOCABULARY: usize = 50258;
/// Row length of the logits in memory: the vocabulary, padded as the output layer pads it.
const LOGITS_PITCH: usize = VOCABULARY.next_multiple_of(64);

/// Every case, op by op.
pub fn all() -> Vec<Case> {
    [products::cases(), attention::cases(), rows::cases(), arrays::cases(), latents::cases()]
        .into_iter()
        .flatten()
        .collect()
}

/// The names of a case's extents in `--shape`; `None` where it has no others than its own.
pub fn extents(case: &Case) -> Option<&'static [&'static str]> {
    match (case.op, case.name) {
        ("matmul", _) => Some(&["m", "n", "k"]),
        ("cross_entropy", _) => Some(&["n", "c", "v"]),
        ("attention", "fwd_window" | "bwd_window") => Some(&["b", "t", "w"]),
        ("attention", _) => Some(&["b", "t", "t_k"]),
        ("rope", "table") => Some(&["t", "d"]),
        ("rope", _) => Some(&["b", "t", "d"]),
        ("embedding", _) => Some(&["n", "v", "c"]),
        ("strided", "transpose") => Some(&["rows", "c"]),
        ("strided", _) => Some(&["b", "t", "c"]),
        ("reduce", "sum_groups") => Some(&["groups", "n"]),
        ("reduce", "dot") => Some(&["rows", "n"]),
        ("reduce", _) => Some(&["rows", "c"]),
        ("slice", _) => Some(&["b", "rows", "c"]),
        ("swiglu", _) => Some(&["rows", "f"]),
        ("rms_norm" | "elementwise" | "cast" | "unary" | "binary" | "softmax", _) => {
            Some(&["rows", "c"])
        }
        ("reparam" | "gaussian_kl" | "philox" | "adamw", _) => Some(&["rows", "n"]),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use ltm_kernels::registry;

    use super::*;

    /// Entry points without a timed case: parts of others, and the two that run on one thread.
    const UNTIMED: &[&str] = &[
        "elementwise_increment_i32_v1",
        "elementwise_record_f32_v1",
        "reduce_first_non_finite_f32_v1",
        "reduce_first_non_finite_f32_v2",
        "reduce_first_total_i64_v1",
        "reduce_first_total_i64_v2",
        "reduce_total_f64_v1",
        "reduce_total_f64_v2",
    ];

    #[test]
    fn every_pass_of_the_kernel_table_has_a_case() {
        let starts: BTreeSet<_> =
            all().iter().map(|case| format!("{}_{}_", case.op, case.pass)).collect();
        for symbol in registry::FILES.iter().flat_map(|file| file.symbols) {
            let is_timed = starts.iter().any(|start| symbol.starts_with(start));
            assert_ne!(is_timed, UNTIMED.contains(symbol), "{symbol}");
        }
    }

    #[test]
    fn names_tell_cases_apart() {
        let cases = all();
        let names: BTreeSet<_> = cases.iter().map(|case| (case.op, case.name)).collect();
        assert_eq!(names.len(), cases.len());
        for case in cases {
            assert!(!registry::rungs(case.op, case.pass).is_empty(), "{}/{}", case.op, case.pass);
        }
    }
}
