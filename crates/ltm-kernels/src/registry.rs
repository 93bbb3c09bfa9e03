//! The kernel table: every CUDA entry point, its file, and whether it is used in production. Knows
//! names and source text; must not know launches.
//!
//! A symbol reads `<op>_<pass>[_<part>]_<dtype>_v<rung>`; its file is in the op's folder.

/// One entry point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// The entry's name in the compiled module.
    pub symbol: &'static str,
    /// Its file, relative to `kernels/`.
    pub file: &'static str,
    /// Whether ops use it when its `needs` are met. The others are lower rungs, kept for comparison
    /// and for calls that no higher rung supports.
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

/// The table row of an entry point.
pub fn find(symbol: &str) -> Option<&'static Kernel> {
    KERNELS.iter().find(|kernel| kernel.symbol == symbol)
}

/// The text of a file in `kernels/`.
pub fn source(file: &str) -> Option<&'static str> {
    SOURCES.iter().find(|(name, _)| *name == file).map(|(_, text)| *text)
}

/// Embeds files of `kernels/` by name.
macro_rules! texts {
    ($($file:literal,)*) => {
        &[$(($file, include_str!(concat!("../kernels/", $file)))),*]
    };
}

/// A row of [`KERNELS`] that is used in production.
const fn production(symbol: &'static str, file: &'static str) -> Kernel {
    Kernel { symbol, file, production: true }
}

/// A row of [`KERNELS`] for a lower rung.
const fn ladder(symbol: &'static str, file: &'static str) -> Kernel {
    Kernel { symbol, file, production: false }
}

/// Headers that kernels include, with their text.
pub static HEADERS: &[(&str, &str)] = texts![
    "adamw/math.cuh",
    "binary/math.cuh",
    "common/attention_lanes.cuh",
    "common/attention_mask.cuh",
    "common/attention_rows.cuh",
    "common/attention_tile.cuh",
    "common/gemm_tile.cuh",
    "common/gemm_write.cuh",
    "common/map.cuh",
    "common/mma.cuh",
    "common/philox.cuh",
    "common/reduce.cuh",
    "common/strides.cuh",
    "common/tile_order.cuh",
    "common/types.cuh",
    "rms_norm/row.cuh",
    "unary/math.cuh",
];

/// Every kernel file, in order of name.
static SOURCES: &[(&str, &str)] = texts![
    "adamw/fwd_v1_naive.cu",
    "adamw/fwd_v2_vec8.cu",
    "attention/bwd_v1_naive.cu",
    "attention/bwd_v2_shared_rows.cu",
    "attention/bwd_v3_tensor_cores.cu",
    "attention/bwd_v4_split_queries.cu",
    "attention/fwd_v1_naive.cu",
    "attention/fwd_v2_shared_keys.cu",
    "attention/fwd_v3_tensor_cores.cu",
    "attention/fwd_v4_split_keys.cu",
    "binary/fwd_v1_naive.cu",
    "binary/fwd_v2_vec8.cu",
    "cast/fwd_v1_naive.cu",
    "cast/fwd_v2_vec8.cu",
    "cross_entropy/fwd_v1_naive.cu",
    "cross_entropy/fwd_v2_online_rows.cu",
    "cross_entropy/fwd_v3_statistics_in_product.cu",
    "elementwise/fwd_v1_naive.cu",
    "elementwise/fwd_v2_vec8.cu",
    "elementwise/steps_v1_naive.cu",
    "embedding/bwd_v1_naive.cu",
    "embedding/bwd_v2_owned_rows.cu",
    "embedding/fwd_v1_naive.cu",
    "embedding/fwd_v2_vec8.cu",
    "gaussian_kl/bwd_v1_naive.cu",
    "gaussian_kl/bwd_v2_vec8.cu",
    "gaussian_kl/fwd_v1_naive.cu",
    "gaussian_kl/fwd_v2_block_per_row.cu",
    "matmul/fwd_v1_naive.cu",
    "matmul/fwd_v2_register_tiles.cu",
    "matmul/fwd_v2_sum_splits.cu",
    "matmul/fwd_v3_tensor_cores.cu",
    "philox/normal_v1_naive.cu",
    "philox/normal_v2_pair_per_thread.cu",
    "reduce/fwd_v1_naive.cu",
    "reduce/fwd_v2_tree.cu",
    "reduce/sum_axis_v1_naive.cu",
    "reduce/sum_axis_v2_block_columns.cu",
    "reparam/bwd_v1_naive.cu",
    "reparam/bwd_v2_vec8.cu",
    "reparam/fwd_v1_naive.cu",
    "reparam/fwd_v2_vec8.cu",
    "rms_norm/bwd_v1_naive.cu",
    "rms_norm/bwd_v2_row_in_registers.cu",
    "rms_norm/bwd_v3_block_per_row.cu",
    "rms_norm/fwd_v1_naive.cu",
    "rms_norm/fwd_v2_row_in_registers.cu",
    "rms_norm/fwd_v3_block_per_row.cu",
    "rope/fwd_v1_naive.cu",
    "rope/fwd_v2_vec8.cu",
    "rope/table_v1_naive.cu",
    "slice/bwd_v1_naive.cu",
    "slice/bwd_v2_vec8.cu",
    "slice/fwd_v1_naive.cu",
    "slice/fwd_v2_vec8.cu",
    "slice/place_v1_naive.cu",
    "slice/place_v2_vec8.cu",
    "softmax/bwd_v1_naive.cu",
    "softmax/bwd_v2_warp_per_row.cu",
    "softmax/fwd_v1_naive.cu",
    "softmax/fwd_v2_warp_per_row.cu",
    "strided/fwd_v1_naive.cu",
    "strided/fwd_v2_vec8.cu",
    "swiglu/bwd_v1_naive.cu",
    "swiglu/bwd_v2_vec8.cu",
    "swiglu/fwd_v1_naive.cu",
    "swiglu/fwd_v2_vec8.cu",
    "unary/bwd_v1_naive.cu",
    "unary/bwd_v2_vec8.cu",
    "unary/fwd_v1_naive.cu",
    "unary/fwd_v2_vec8.cu",
];

/// Every entry point, op by op, lowest rung first.
#[rustfmt::skip]
pub static KERNELS: &[Kernel] = &[
    ladder("cross_entropy_fwd_f32_v1", "cross_entropy/fwd_v1_naive.cu"),
    ladder("cross_entropy_fwd_bf16_v1", "cross_entropy/fwd_v1_naive.cu"),
    production("cross_entropy_fwd_f32_v2", "cross_entropy/fwd_v2_online_rows.cu"),
    production("cross_entropy_fwd_bf16_v2", "cross_entropy/fwd_v2_online_rows.cu"),
    production("cross_entropy_fwd_logits_large_bf16_v3", "cross_entropy/fwd_v3_statistics_in_product.cu"),
    production("cross_entropy_fwd_logits_small_bf16_v3", "cross_entropy/fwd_v3_statistics_in_product.cu"),
    production("cross_entropy_fwd_rows_bf16_v3", "cross_entropy/fwd_v3_statistics_in_product.cu"),
    ladder("matmul_fwd_f32_v1", "matmul/fwd_v1_naive.cu"),
    ladder("matmul_fwd_bf16_v1", "matmul/fwd_v1_naive.cu"),
    ladder("matmul_fwd_f32out_bf16_v1", "matmul/fwd_v1_naive.cu"),
    production("matmul_fwd_large_f32_v2", "matmul/fwd_v2_register_tiles.cu"),
    production("matmul_fwd_large_bf16_v2", "matmul/fwd_v2_register_tiles.cu"),
    production("matmul_fwd_large_f32out_bf16_v2", "matmul/fwd_v2_register_tiles.cu"),
    production("matmul_fwd_small_f32_v2", "matmul/fwd_v2_register_tiles.cu"),
    production("matmul_fwd_small_bf16_v2", "matmul/fwd_v2_register_tiles.cu"),
    production("matmul_fwd_small_f32out_bf16_v2", "matmul/fwd_v2_register_tiles.cu"),
    production("matmul_fwd_sum_f32_v2", "matmul/fwd_v2_sum_splits.cu"),
    production("matmul_fwd_sum_bf16_v2", "matmul/fwd_v2_sum_splits.cu"),
    production("matmul_fwd_nn_large_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_nn_large_f32out_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_nn_small_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_nn_small_f32out_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_nt_large_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_nt_large_f32out_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_nt_small_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_nt_small_f32out_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_tn_large_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_tn_large_f32out_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_tn_small_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_tn_small_f32out_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_tt_large_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_tt_large_f32out_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_tt_small_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    production("matmul_fwd_tt_small_f32out_bf16_v3", "matmul/fwd_v3_tensor_cores.cu"),
    ladder("attention_fwd_f32_v1", "attention/fwd_v1_naive.cu"),
    ladder("attention_fwd_bf16_v1", "attention/fwd_v1_naive.cu"),
    production("attention_fwd_d64_f32_v2", "attention/fwd_v2_shared_keys.cu"),
    production("attention_fwd_d64_bf16_v2", "attention/fwd_v2_shared_keys.cu"),
    production("attention_fwd_d128_f32_v2", "attention/fwd_v2_shared_keys.cu"),
    production("attention_fwd_d128_bf16_v2", "attention/fwd_v2_shared_keys.cu"),
    production("attention_fwd_d32_bf16_v3", "attention/fwd_v3_tensor_cores.cu"),
    production("attention_fwd_d64_bf16_v3", "attention/fwd_v3_tensor_cores.cu"),
    production("attention_fwd_d128_bf16_v3", "attention/fwd_v3_tensor_cores.cu"),
    production("attention_fwd_d64_f32_v4", "attention/fwd_v4_split_keys.cu"),
    production("attention_fwd_d64_bf16_v4", "attention/fwd_v4_split_keys.cu"),
    production("attention_fwd_d128_f32_v4", "attention/fwd_v4_split_keys.cu"),
    production("attention_fwd_d128_bf16_v4", "attention/fwd_v4_split_keys.cu"),
    production("attention_bwd_delta_f32_v1", "attention/bwd_v1_naive.cu"),
    production("attention_bwd_delta_bf16_v1", "attention/bwd_v1_naive.cu"),
    ladder("attention_bwd_dq_f32_v1", "attention/bwd_v1_naive.cu"),
    ladder("attention_bwd_dq_bf16_v1", "attention/bwd_v1_naive.cu"),
    ladder("attention_bwd_dkv_f32_v1", "attention/bwd_v1_naive.cu"),
    ladder("attention_bwd_dkv_bf16_v1", "attention/bwd_v1_naive.cu"),
    production("attention_bwd_dq_d64_f32_v2", "attention/bwd_v2_shared_rows.cu"),
    production("attention_bwd_dq_d64_bf16_v2", "attention/bwd_v2_shared_rows.cu"),
    production("attention_bwd_dq_d128_f32_v2", "attention/bwd_v2_shared_rows.cu"),
    production("attention_bwd_dq_d128_bf16_v2", "attention/bwd_v2_shared_rows.cu"),
    production("attention_bwd_dkv_d64_f32_v2", "attention/bwd_v2_shared_rows.cu"),
    production("attention_bwd_dkv_d64_bf16_v2", "attention/bwd_v2_shared_rows.cu"),
    production("attention_bwd_dkv_d128_f32_v2", "attention/bwd_v2_shared_rows.cu"),
    production("attention_bwd_dkv_d128_bf16_v2", "attention/bwd_v2_shared_rows.cu"),
    production("attention_bwd_dq_d32_bf16_v3", "attention/bwd_v3_tensor_cores.cu"),
    production("attention_bwd_dkv_d32_bf16_v3", "attention/bwd_v3_tensor_cores.cu"),
    production("attention_bwd_dq_d64_bf16_v3", "attention/bwd_v3_tensor_cores.cu"),
    production("attention_bwd_dkv_d64_bf16_v3", "attention/bwd_v3_tensor_cores.cu"),
    production("attention_bwd_dq_d128_bf16_v3", "attention/bwd_v3_tensor_cores.cu"),
    production("attention_bwd_dkv_d128_bf16_v3", "attention/bwd_v3_tensor_cores.cu"),
    production("attention_bwd_sum_f32_v4", "attention/bwd_v4_split_queries.cu"),
    production("attention_bwd_sum_bf16_v4", "attention/bwd_v4_split_queries.cu"),
    production("attention_bwd_dkv_d64_f32_v4", "attention/bwd_v4_split_queries.cu"),
    production("attention_bwd_dkv_d64_bf16_v4", "attention/bwd_v4_split_queries.cu"),
    production("attention_bwd_dkv_d128_f32_v4", "attention/bwd_v4_split_queries.cu"),
    production("attention_bwd_dkv_d128_bf16_v4", "attention/bwd_v4_split_queries.cu"),
    ladder("adamw_fwd_f32_v1", "adamw/fwd_v1_naive.cu"),
    ladder("adamw_fwd_scheduled_f32_v1", "adamw/fwd_v1_naive.cu"),
    production("adamw_fwd_f32_v2", "adamw/fwd_v2_vec8.cu"),
    production("adamw_fwd_scheduled_f32_v2", "adamw/fwd_v2_vec8.cu"),
    ladder("cast_fwd_bf16_bf16_v1", "cast/fwd_v1_naive.cu"),
    ladder("cast_fwd_bf16_f32_v1", "cast/fwd_v1_naive.cu"),
    ladder("cast_fwd_f32_bf16_v1", "cast/fwd_v1_naive.cu"),
    ladder("cast_fwd_f32_f32_v1", "cast/fwd_v1_naive.cu"),
    production("cast_fwd_bf16_bf16_v2", "cast/fwd_v2_vec8.cu"),
    production("cast_fwd_bf16_f32_v2", "cast/fwd_v2_vec8.cu"),
    production("cast_fwd_f32_bf16_v2", "cast/fwd_v2_vec8.cu"),
    production("cast_fwd_f32_f32_v2", "cast/fwd_v2_vec8.cu"),
    ladder("elementwise_add_bf16_v1", "elementwise/fwd_v1_naive.cu"),
    ladder("elementwise_add_f32_v1", "elementwise/fwd_v1_naive.cu"),
    ladder("elementwise_axpy_bf16_v1", "elementwise/fwd_v1_naive.cu"),
    ladder("elementwise_axpy_f32_v1", "elementwise/fwd_v1_naive.cu"),
    ladder("elementwise_fill_bf16_v1", "elementwise/fwd_v1_naive.cu"),
    ladder("elementwise_fill_f32_v1", "elementwise/fwd_v1_naive.cu"),
    production("elementwise_increment_i32_v1", "elementwise/steps_v1_naive.cu"),
    ladder("elementwise_outer_scale_bf16_v1", "elementwise/fwd_v1_naive.cu"),
    ladder("elementwise_outer_scale_f32_v1", "elementwise/fwd_v1_naive.cu"),
    production("elementwise_record_f32_v1", "elementwise/steps_v1_naive.cu"),
    ladder("elementwise_scale_rows_bf16_v1", "elementwise/fwd_v1_naive.cu"),
    ladder("elementwise_scale_rows_f32_v1", "elementwise/fwd_v1_naive.cu"),
    production("elementwise_add_bf16_v2", "elementwise/fwd_v2_vec8.cu"),
    production("elementwise_add_f32_v2", "elementwise/fwd_v2_vec8.cu"),
    production("elementwise_axpy_bf16_v2", "elementwise/fwd_v2_vec8.cu"),
    production("elementwise_axpy_f32_v2", "elementwise/fwd_v2_vec8.cu"),
    production("elementwise_fill_bf16_v2", "elementwise/fwd_v2_vec8.cu"),
    production("elementwise_fill_f32_v2", "elementwise/fwd_v2_vec8.cu"),
    production("elementwise_outer_scale_bf16_v2", "elementwise/fwd_v2_vec8.cu"),
    production("elementwise_outer_scale_f32_v2", "elementwise/fwd_v2_vec8.cu"),
    production("elementwise_scale_rows_bf16_v2", "elementwise/fwd_v2_vec8.cu"),
    production("elementwise_scale_rows_f32_v2", "elementwise/fwd_v2_vec8.cu"),
    ladder("embedding_bwd_bf16_v1", "embedding/bwd_v1_naive.cu"),
    ladder("embedding_bwd_f32_v1", "embedding/bwd_v1_naive.cu"),
    ladder("embedding_fwd_bf16_v1", "embedding/fwd_v1_naive.cu"),
    ladder("embedding_fwd_f32_v1", "embedding/fwd_v1_naive.cu"),
    production("embedding_bwd_bf16_v2", "embedding/bwd_v2_owned_rows.cu"),
    production("embedding_bwd_f32_v2", "embedding/bwd_v2_owned_rows.cu"),
    production("embedding_fwd_bf16_v2", "embedding/fwd_v2_vec8.cu"),
    production("embedding_fwd_f32_v2", "embedding/fwd_v2_vec8.cu"),
    ladder("gaussian_kl_bwd_f32_v1", "gaussian_kl/bwd_v1_naive.cu"),
    ladder("gaussian_kl_fwd_f32_v1", "gaussian_kl/fwd_v1_naive.cu"),
    production("gaussian_kl_bwd_f32_v2", "gaussian_kl/bwd_v2_vec8.cu"),
    production("gaussian_kl_fwd_f32_v2", "gaussian_kl/fwd_v2_block_per_row.cu"),
    ladder("philox_normal_f32_v1", "philox/normal_v1_naive.cu"),
    ladder("philox_normal_rows_f32_v1", "philox/normal_v1_naive.cu"),
    production("philox_normal_f32_v2", "philox/normal_v2_pair_per_thread.cu"),
    production("philox_normal_rows_f32_v2", "philox/normal_v2_pair_per_thread.cu"),
    ladder("reduce_dot_f32_v1", "reduce/fwd_v1_naive.cu"),
    ladder("reduce_dot_total_f32_v1", "reduce/fwd_v1_naive.cu"),
    ladder("reduce_first_non_finite_f32_v1", "reduce/fwd_v1_naive.cu"),
    ladder("reduce_first_total_i64_v1", "reduce/fwd_v1_naive.cu"),
    ladder("reduce_sum_groups_f32_v1", "reduce/fwd_v1_naive.cu"),
    ladder("reduce_total_f64_v1", "reduce/fwd_v1_naive.cu"),
    production("reduce_dot_f32_v2", "reduce/fwd_v2_tree.cu"),
    production("reduce_dot_total_f32_v2", "reduce/fwd_v2_tree.cu"),
    production("reduce_first_non_finite_f32_v2", "reduce/fwd_v2_tree.cu"),
    production("reduce_first_total_i64_v2", "reduce/fwd_v2_tree.cu"),
    production("reduce_sum_groups_f32_v2", "reduce/fwd_v2_tree.cu"),
    production("reduce_total_f64_v2", "reduce/fwd_v2_tree.cu"),
    ladder("reparam_bwd_f32_v1", "reparam/bwd_v1_naive.cu"),
    ladder("reparam_fwd_f32_v1", "reparam/fwd_v1_naive.cu"),
    production("reparam_bwd_f32_v2", "reparam/bwd_v2_vec8.cu"),
    production("reparam_fwd_f32_v2", "reparam/fwd_v2_vec8.cu"),
    ladder("rms_norm_bwd_bf16_v1", "rms_norm/bwd_v1_naive.cu"),
    ladder("rms_norm_bwd_f32_v1", "rms_norm/bwd_v1_naive.cu"),
    ladder("rms_norm_bwd_inverse_bf16_v1", "rms_norm/bwd_v1_naive.cu"),
    ladder("rms_norm_bwd_inverse_f32_v1", "rms_norm/bwd_v1_naive.cu"),
    ladder("rms_norm_bwd_weight_bf16_v1", "rms_norm/bwd_v1_naive.cu"),
    ladder("rms_norm_bwd_weight_f32_v1", "rms_norm/bwd_v1_naive.cu"),
    ladder("rms_norm_fwd_add_bf16_v1", "rms_norm/fwd_v1_naive.cu"),
    ladder("rms_norm_fwd_add_f32_v1", "rms_norm/fwd_v1_naive.cu"),
    ladder("rms_norm_fwd_bf16_v1", "rms_norm/fwd_v1_naive.cu"),
    ladder("rms_norm_fwd_f32_v1", "rms_norm/fwd_v1_naive.cu"),
    production("rms_norm_bwd_bf16_v2", "rms_norm/bwd_v2_row_in_registers.cu"),
    production("rms_norm_bwd_f32_v2", "rms_norm/bwd_v2_row_in_registers.cu"),
    production("rms_norm_bwd_partials_f32_v2", "rms_norm/bwd_v2_row_in_registers.cu"),
    production("rms_norm_bwd_weight_bf16_v2", "rms_norm/bwd_v2_row_in_registers.cu"),
    production("rms_norm_bwd_weight_f32_v2", "rms_norm/bwd_v2_row_in_registers.cu"),
    production("rms_norm_fwd_add_bf16_v2", "rms_norm/fwd_v2_row_in_registers.cu"),
    production("rms_norm_fwd_add_f32_v2", "rms_norm/fwd_v2_row_in_registers.cu"),
    production("rms_norm_fwd_bf16_v2", "rms_norm/fwd_v2_row_in_registers.cu"),
    production("rms_norm_fwd_f32_v2", "rms_norm/fwd_v2_row_in_registers.cu"),
    production("rms_norm_bwd_bf16_v3", "rms_norm/bwd_v3_block_per_row.cu"),
    production("rms_norm_bwd_f32_v3", "rms_norm/bwd_v3_block_per_row.cu"),
    production("rms_norm_bwd_weight_bf16_v3", "rms_norm/bwd_v3_block_per_row.cu"),
    production("rms_norm_bwd_weight_f32_v3", "rms_norm/bwd_v3_block_per_row.cu"),
    production("rms_norm_fwd_add_bf16_v3", "rms_norm/fwd_v3_block_per_row.cu"),
    production("rms_norm_fwd_add_f32_v3", "rms_norm/fwd_v3_block_per_row.cu"),
    production("rms_norm_fwd_bf16_v3", "rms_norm/fwd_v3_block_per_row.cu"),
    production("rms_norm_fwd_f32_v3", "rms_norm/fwd_v3_block_per_row.cu"),
    ladder("rope_fwd_bf16_v1", "rope/fwd_v1_naive.cu"),
    ladder("rope_fwd_f32_v1", "rope/fwd_v1_naive.cu"),
    production("rope_table_f32_v1", "rope/table_v1_naive.cu"),
    production("rope_fwd_bf16_v2", "rope/fwd_v2_vec8.cu"),
    production("rope_fwd_f32_v2", "rope/fwd_v2_vec8.cu"),
    ladder("slice_bwd_bf16_v1", "slice/bwd_v1_naive.cu"),
    ladder("slice_bwd_f32_v1", "slice/bwd_v1_naive.cu"),
    ladder("slice_fwd_bf16_v1", "slice/fwd_v1_naive.cu"),
    ladder("slice_fwd_f32_v1", "slice/fwd_v1_naive.cu"),
    production("slice_bwd_bf16_v2", "slice/bwd_v2_vec8.cu"),
    production("slice_bwd_f32_v2", "slice/bwd_v2_vec8.cu"),
    production("slice_fwd_bf16_v2", "slice/fwd_v2_vec8.cu"),
    production("slice_fwd_f32_v2", "slice/fwd_v2_vec8.cu"),
    ladder("swiglu_bwd_bf16_v1", "swiglu/bwd_v1_naive.cu"),
    ladder("swiglu_bwd_f32_v1", "swiglu/bwd_v1_naive.cu"),
    ladder("swiglu_fwd_bf16_v1", "swiglu/fwd_v1_naive.cu"),
    ladder("swiglu_fwd_f32_v1", "swiglu/fwd_v1_naive.cu"),
    production("swiglu_bwd_bf16_v2", "swiglu/bwd_v2_vec8.cu"),
    production("swiglu_bwd_f32_v2", "swiglu/bwd_v2_vec8.cu"),
    production("swiglu_fwd_bf16_v2", "swiglu/fwd_v2_vec8.cu"),
    production("swiglu_fwd_f32_v2", "swiglu/fwd_v2_vec8.cu"),
    ladder("binary_fwd_f32_v1", "binary/fwd_v1_naive.cu"),
    ladder("binary_fwd_bf16_v1", "binary/fwd_v1_naive.cu"),
    production("binary_fwd_f32_v2", "binary/fwd_v2_vec8.cu"),
    production("binary_fwd_bf16_v2", "binary/fwd_v2_vec8.cu"),
    ladder("reduce_sum_axis_f32_v1", "reduce/sum_axis_v1_naive.cu"),
    ladder("reduce_sum_axis_bf16_v1", "reduce/sum_axis_v1_naive.cu"),
    ladder("reduce_sum_axis_f32out_bf16_v1", "reduce/sum_axis_v1_naive.cu"),
    production("reduce_sum_axis_f32_v2", "reduce/sum_axis_v2_block_columns.cu"),
    production("reduce_sum_axis_bf16_v2", "reduce/sum_axis_v2_block_columns.cu"),
    production("reduce_sum_axis_f32out_bf16_v2", "reduce/sum_axis_v2_block_columns.cu"),
    ladder("slice_place_f32_v1", "slice/place_v1_naive.cu"),
    ladder("slice_place_bf16_v1", "slice/place_v1_naive.cu"),
    production("slice_place_f32_v2", "slice/place_v2_vec8.cu"),
    production("slice_place_bf16_v2", "slice/place_v2_vec8.cu"),
    ladder("softmax_bwd_f32_v1", "softmax/bwd_v1_naive.cu"),
    ladder("softmax_bwd_bf16_v1", "softmax/bwd_v1_naive.cu"),
    production("softmax_bwd_f32_v2", "softmax/bwd_v2_warp_per_row.cu"),
    production("softmax_bwd_bf16_v2", "softmax/bwd_v2_warp_per_row.cu"),
    ladder("softmax_fwd_f32_v1", "softmax/fwd_v1_naive.cu"),
    ladder("softmax_fwd_bf16_v1", "softmax/fwd_v1_naive.cu"),
    production("softmax_fwd_f32_v2", "softmax/fwd_v2_warp_per_row.cu"),
    production("softmax_fwd_bf16_v2", "softmax/fwd_v2_warp_per_row.cu"),
    ladder("strided_fwd_f32_v1", "strided/fwd_v1_naive.cu"),
    ladder("strided_fwd_bf16_v1", "strided/fwd_v1_naive.cu"),
    production("strided_fwd_f32_v2", "strided/fwd_v2_vec8.cu"),
    production("strided_fwd_bf16_v2", "strided/fwd_v2_vec8.cu"),
    ladder("unary_bwd_f32_v1", "unary/bwd_v1_naive.cu"),
    ladder("unary_bwd_bf16_v1", "unary/bwd_v1_naive.cu"),
    production("unary_bwd_f32_v2", "unary/bwd_v2_vec8.cu"),
    production("unary_bwd_bf16_v2", "unary/bwd_v2_vec8.cu"),
    ladder("unary_fwd_f32_v1", "unary/fwd_v1_naive.cu"),
    ladder("unary_fwd_bf16_v1", "unary/fwd_v1_naive.cu"),
    production("unary_fwd_f32_v2", "unary/fwd_v2_vec8.cu"),
    production("unary_fwd_bf16_v2", "unary/fwd_v2_vec8.cu"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_whole() {
        let mut symbols = std::collections::BTreeSet::new();
        for kernel in KERNELS {
            assert!(symbols.insert(kernel.symbol), "{} is listed twice", kernel.symbol);
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
