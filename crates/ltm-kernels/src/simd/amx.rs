//! Products of bf16 matrices on the tile registers of x86 processors (AMX). Knows strided slices;
//! `simd::product` decides whether to use them.
//!
//! A 32×32 block of the result consists of four tiles of sums. For every 32 steps of the inner
//! extent, two tiles of `a` and two of `b` are loaded and each pair is multiplied. A tile has 16
//! rows of 64 bytes. In a tile of `a` a row holds 32 numbers, which are rounded to bf16 when
//! packed; in a tile of `b` a row holds two consecutive steps for each of 16 columns.
#![expect(unsafe_code, reason = "instructions that only some processors have")]

use std::arch::asm;
use std::arch::x86_64::*;
use std::cell::Cell;
use std::sync::OnceLock;

use half::bf16;
use rayon::prelude::*;

use super::gemm::{Mat, MatMut, Threads, Write};

/// Rows of a tile, and columns of a tile of sums.
const ROWS: usize = 16;
/// Inner steps per tile.
const STEPS: usize = 32;
/// Size of a tile, in bytes.
const TILE: usize = 1024;
/// Rows and columns of a block of the result.
const BLOCK: usize = 2 * ROWS;
/// Maximum rows per task; they all reuse the same packed columns of `b`.
const TASK_ROWS: usize = 512;

/// The operand of `ldtilecfg`.
#[repr(C, align(64))]
struct Shapes {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

/// Configures all eight tiles with full size.
static SHAPES: Shapes = Shapes {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Proof that the processor has AMX bf16 tiles and AVX-512 bf16 vectors, and that the system lets
/// this process use them. Only [`detect`](Self::detect) creates one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Available(());

impl Available {
    /// Queries the processor and the system; the answer is cached.
    pub(super) fn detect() -> Option<Self> {
        static ANSWER: OnceLock<bool> = OnceLock::new();
        let answer = ANSWER.get_or_init(|| {
            let vectors =
                is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16");
            vectors && has_tiles()
        });
        answer.then_some(Self(()))
    }
}

/// Whether Linux supports tiles and grants their use. Their register state is large, so a process
/// must request it.
#[cfg(target_os = "linux")]
fn has_tiles() -> bool {
    // The standard macro's AMX feature names are not stable.
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    if !processor.contains(" amx_bf16") {
        return false;
    }
    // `arch_prctl`, its operation to request a part of the register state, and the number of the
    // tile data.
    let [arch_prctl, request, tile_data] = [158i64, 0x1023, 18];
    let refused: i64;
    // SAFETY: the call takes two numbers, touches no memory of ours and changes no register but rax,
    // rcx and r11; a system that does not know it returns an error.
    unsafe {
        asm!("syscall", inlateout("rax") arch_prctl => refused, in("rdi") request,
            in("rsi") tile_data, out("rcx") _, out("r11") _, options(nostack));
    }
    refused == 0
}

#[cfg(not(target_os = "linux"))]
fn has_tiles() -> bool {
    false
}

/// One row of a tile, so that tiles are aligned to 64 bytes.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; 64]);

thread_local! {
    /// Memory for tiles, reused between calls. It is taken out while in use: while a thread waits
    /// for its tasks, rayon may run another product on it.
    static TILES: Cell<Vec<Line>> = const { Cell::new(Vec::new()) };
}

/// Calls `body` with memory for `n` tiles; its content is unspecified.
fn with_tiles<R>(n: usize, body: impl FnOnce(&mut [Line]) -> R) -> R {
    let (mut tiles, len) = (TILES.take(), n * ROWS);
    if tiles.len() < len {
        tiles.resize(len, Line([0; 64]));
    }
    let result = body(&mut tiles[..len]);
    TILES.set(tiles);
    result
}

/// A pointer shared by tasks that write disjoint blocks.
#[derive(Clone, Copy)]
struct Shared(*mut f32);

// SAFETY: the tasks of `gemm` write disjoint blocks.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// The pointer to element `offset`.
    ///
    /// # Safety
    /// The element is in the matrix.
    unsafe fn at(self, offset: usize) -> *mut f32 {
        // SAFETY: the caller's.
        unsafe { self.0.add(offset) }
    }
}

/// `c = round(a) b`, or `c += round(a) b`, of extents `m,n,k`, with `a` in rows of adjacent elements.
///
/// Every element is summed in the same order, however the work is divided.
///
/// # Safety
/// Every element of each matrix is in its slice, and rows of `c` do not overlap.
pub(super) unsafe fn gemm(
    available: Available,
    c: MatMut<'_, f32>,
    a: Mat<'_, f32>,
    b: Mat<'_, bf16>,
    write: Write,
    [m, n, k]: [usize; 3],
    threads: Threads,
) {
    let depth = k.div_ceil(STEPS);
    let (row_stride, c) = (c.row_stride, Shared(c.data.as_mut_ptr()));
    with_tiles(m.next_multiple_of(BLOCK) / ROWS * depth, |a_tiles| {
        let pack = |(i, tiles): (usize, &mut [Line])| {
            for (step, tile) in tiles.chunks_exact_mut(ROWS).enumerate() {
                // SAFETY: the processor has the instructions; rows from `i * ROWS` on, as many as there
                // are, and steps from `step * STEPS` on lie in `a`.
                unsafe { pack_a(tile, &a, [i * ROWS, step * STEPS], [m, k]) };
            }
        };
        match threads {
            Threads::Pool => a_tiles.par_chunks_mut(ROWS * depth).enumerate().for_each(pack),
            Threads::One => a_tiles.chunks_mut(ROWS * depth).enumerate().for_each(pack),
        }
        let a_tiles = &*a_tiles;
        let rows = m.div_ceil(m.div_ceil(TASK_ROWS)).next_multiple_of(BLOCK);
        let row_tasks = m.div_ceil(rows);
        let task = |task: usize| {
            let (i, j) = (task % row_tasks * rows, task / row_tasks * BLOCK);
            let (rows, columns) = (rows.min(m - i), BLOCK.min(n - j));
            with_tiles(2 * depth, |b_tiles| {
                for (t, tile) in b_tiles.chunks_exact_mut(ROWS).enumerate() {
                    let (column, step) = (j + t / depth * ROWS, t % depth * STEPS);
                    // SAFETY: as for `a`, with columns in the place of rows.
                    unsafe { pack_b(tile, &b, [step, column], [k, n]) };
                }
                let _tiles = Configured::new(available);
                for i in (i..i + rows).step_by(BLOCK) {
                    let a = a_tiles[i * depth..].as_ptr();
                    let extents = [BLOCK.min(m - i), columns];
                    // SAFETY: the tiles of two rows of tiles, and of two columns, were packed; row `i`
                    // and column `j` exist, so the block is in `c`, and no other task has it.
                    unsafe {
                        let c = c.at(i * row_stride + j);
                        block(c, row_stride, a, b_tiles.as_ptr(), depth, extents, write);
                    }
                }
            });
        };
        let tasks = row_tasks * n.div_ceil(BLOCK);
        match threads {
            Threads::Pool => (0..tasks).into_par_iter().for_each(task),
            Threads::One => (0..tasks).for_each(task),
        }
    });
}

/// The tile configuration of this thread; released when dropped.
pub(super) struct Configured;

impl Configured {
    /// Requires the proof, since on any other processor the instruction would abort the process.
    pub(super) fn new(_: Available) -> Self {
        // SAFETY: the argument proves that the processor has the instruction; it reads the 64 bytes.
        unsafe {
            asm!("ldtilecfg [{shapes}]", shapes = in(reg) &raw const SHAPES,
                options(nostack, preserves_flags));
        }
        Self
    }
}

impl Drop for Configured {
    fn drop(&mut self) {
        // SAFETY: gives back what `new` took.
        unsafe { asm!("tilerelease", options(nostack, preserves_flags)) };
    }
}

/// Computes the first `rows` and `columns` of a block of the result.
///
/// # Safety
/// The tiles have their shapes; `a` and `b` point to two runs of `depth` tiles each, and the block is
/// in the result.
#[target_feature(enable = "avx512f")]
unsafe fn block(
    c: *mut f32,
    row_stride: usize,
    a: *const Line,
    b: *const Line,
    depth: usize,
    [rows, columns]: [usize; 2],
    write: Write,
) {
    let mut sums = [Line([0; 64]); 4 * ROWS];
    // SAFETY: the loads stay within the runs, the stores within `sums`; the rest is the caller's promise.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            "2:",
            "tileloadd tmm4, [{a0} + {row}]",
            "tileloadd tmm6, [{b0} + {row}]",
            "tileloadd tmm7, [{b1} + {row}]",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tileloadd tmm5, [{a1} + {row}]",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "add {a0}, {tile}",
            "add {a1}, {tile}",
            "add {b0}, {tile}",
            "add {b1}, {tile}",
            "dec {depth}",
            "jnz 2b",
            "tilestored [{sums} + {row}], tmm0",
            "tilestored [{sums} + {row} + {tile}], tmm1",
            "tilestored [{sums} + {row} + 2 * {tile}], tmm2",
            "tilestored [{sums} + {row} + 3 * {tile}], tmm3",
            a0 = inout(reg) a => _,
            a1 = inout(reg) a.add(ROWS * depth) => _,
            b0 = inout(reg) b => _,
            b1 = inout(reg) b.add(ROWS * depth) => _,
            depth = inout(reg) depth => _,
            row = in(reg) 64usize,
            tile = const TILE,
            sums = in(reg) sums.as_mut_ptr(),
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
    for i in 0..rows {
        for (half, first) in (0..columns).step_by(ROWS).enumerate() {
            let mask = first_lanes(columns - first);
            let sums = &sums[(2 * (i / ROWS) + half) * ROWS + i % ROWS];
            // SAFETY: row `i` and the masked columns lie in the result.
            unsafe {
                let c = c.add(i * row_stride + first);
                let mut sum = _mm512_load_ps(sums.0.as_ptr().cast());
                if write == Write::Accumulate {
                    sum = _mm512_add_ps(sum, _mm512_maskz_loadu_ps(mask, c));
                }
                _mm512_mask_storeu_ps(c, mask, sum);
            }
        }
    }
}

/// A mask of the first `n` of 16 lanes, or all if `n` is larger.
fn first_lanes(n: usize) -> __mmask16 {
    if n >= 16 { !0 } else { (1 << n) - 1 }
}

/// Rounds 16 rows by 32 columns of `a` into a tile, padding with zeros past the end of `a`.
///
/// # Safety
/// The processor has AVX-512 with bf16; `a` has rows and columns up to `end`.
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
unsafe fn pack_a(tile: &mut [Line], a: &Mat<'_, f32>, [row, column]: [usize; 2], end: [usize; 2]) {
    let columns = end[1] - column;
    let masks = [first_lanes(columns), first_lanes(columns.saturating_sub(16))];
    for (i, line) in tile.iter_mut().enumerate() {
        let mut halves = [_mm512_setzero_ps(); 2];
        if row + i < end[0] {
            let from = a.data.as_ptr().wrapping_add((row + i) * a.row_stride + column);
            for (half, (to, mask)) in halves.iter_mut().zip(masks).enumerate() {
                // SAFETY: the mask ends with the row.
                *to = unsafe { _mm512_maskz_loadu_ps(mask, from.wrapping_add(16 * half)) };
            }
        }
        let rounded = _mm512_cvtne2ps_pbh(halves[1], halves[0]);
        // SAFETY: both are 64 bytes of plain numbers.
        line.0 = unsafe { std::mem::transmute::<__m512bh, [u8; 64]>(rounded) };
    }
}

/// Packs 32 rows by 16 columns of `b` into a tile, padding with zeros past the end of `b`: row `p`
/// of the tile holds rows `2 p` and `2 p + 1` of each column next to each other.
///
/// # Safety
/// The processor has AVX-512 with bf16; `b` has rows and columns up to `end`.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn pack_b(tile: &mut [Line], b: &Mat<'_, bf16>, [row, column]: [usize; 2], end: [usize; 2]) {
    let (rows, columns) = (STEPS.min(end[0] - row), end[1].saturating_sub(column).min(ROWS));
    let first = b.data.as_ptr().wrapping_add(row * b.row_stride + column * b.col_stride);
    let from = first.cast::<i16>();
    if b.row_stride == 1 {
        // If a column's elements are adjacent, a column is a row of pairs, and the tile is the
        // transpose.
        let mask: __mmask32 = if rows == STEPS { !0 } else { (1 << rows) - 1 };
        let mut x = [_mm512_setzero_si512(); ROWS];
        for (j, x) in x.iter_mut().enumerate().take(columns) {
            // SAFETY: the mask ends with the column.
            *x = unsafe { _mm512_maskz_loadu_epi16(mask, from.wrapping_add(j * b.col_stride)) };
        }
        for (line, x) in tile.iter_mut().zip(transpose(x)) {
            // SAFETY: both are 64 bytes of plain numbers.
            line.0 = unsafe { std::mem::transmute::<__m512i, [u8; 64]>(x) };
        }
        return;
    }
    assert_eq!(b.col_stride, 1, "one of the strides of b must be 1");
    let mask = first_lanes(columns);
    for (p, line) in tile.iter_mut().enumerate() {
        let half = |row: usize| {
            let mask = if row < rows { mask } else { 0 };
            // SAFETY: the mask ends with the row, and is empty past the last.
            let numbers =
                unsafe { _mm256_maskz_loadu_epi16(mask, from.wrapping_add(row * b.row_stride)) };
            _mm512_cvtepu16_epi32(numbers)
        };
        let pairs = _mm512_or_si512(half(2 * p), _mm512_slli_epi32::<16>(half(2 * p + 1)));
        // SAFETY: both are 64 bytes of plain numbers.
        line.0 = unsafe { std::mem::transmute::<__m512i, [u8; 64]>(pairs) };
    }
}

/// The transpose of 16 rows of 16 numbers.
#[target_feature(enable = "avx512f")]
fn transpose(mut x: [__m512i; 16]) -> [__m512i; 16] {
    // Interleave adjacent rows, then pairs of rows, within each quarter of a register.
    let mut y = x;
    for i in (0..16).step_by(2) {
        y[i] = _mm512_unpacklo_epi32(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_epi32(x[i], x[i + 1]);
    }
    for i in (0..16).step_by(4) {
        for half in 0..2 {
            x[i + 2 * half] = _mm512_unpacklo_epi64(y[i + half], y[i + half + 2]);
            x[i + 2 * half + 1] = _mm512_unpackhi_epi64(y[i + half], y[i + half + 2]);
        }
    }
    // Now `x[4 g + c]` holds columns `c, c + 4, c + 8, c + 12` of row group `g`, one per quarter;
    // exchange the quarters.
    const EVEN: i32 = 0b10_00_10_00;
    const ODD: i32 = 0b11_01_11_01;
    for c in 0..4 {
        let (g0, g1, g2, g3) = (x[c], x[4 + c], x[8 + c], x[12 + c]);
        let even01 = _mm512_shuffle_i32x4::<EVEN>(g0, g1);
        let odd01 = _mm512_shuffle_i32x4::<ODD>(g0, g1);
        let even23 = _mm512_shuffle_i32x4::<EVEN>(g2, g3);
        let odd23 = _mm512_shuffle_i32x4::<ODD>(g2, g3);
        y[c] = _mm512_shuffle_i32x4::<EVEN>(even01, even23);
        y[4 + c] = _mm512_shuffle_i32x4::<EVEN>(odd01, odd23);
        y[8 + c] = _mm512_shuffle_i32x4::<ODD>(even01, even23);
        y[12 + c] = _mm512_shuffle_i32x4::<ODD>(odd01, odd23);
    }
    y
}
