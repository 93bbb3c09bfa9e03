//! Splits outputs of shape (B, rows, …) into blocks of rows, one parallel task per block. Must not
//! know any op.
//!
//! Blocks have a fixed size and never cross a sequence, so results do not depend on the number of
//! threads.

use std::ops::Range;

use crate::Float;

/// What can be split into blocks: [`Rows`], a pair, or an optional output.
pub(crate) trait Split: Send + Sized {
    /// Splits off the first `rows` rows; returns them and the rest.
    fn split(self, rows: usize) -> (Self, Self);
}

/// An output whose rows have `width` elements.
pub(crate) struct Rows<'a, T> {
    pub(crate) data: &'a mut [T],
    pub(crate) width: usize,
}

impl<T: Float> Split for Rows<'_, T> {
    fn split(self, rows: usize) -> (Self, Self) {
        let width = self.width;
        let (head, tail) = self.data.split_at_mut(rows * width);
        (Self { data: head, width }, Self { data: tail, width })
    }
}

impl<X: Split> Split for Option<X> {
    fn split(self, rows: usize) -> (Self, Self) {
        self.map(|x| x.split(rows)).unzip()
    }
}

impl<X: Split, Y: Split> Split for (X, Y) {
    fn split(self, rows: usize) -> (Self, Self) {
        let ((x_head, x_tail), (y_head, y_tail)) = (self.0.split(rows), self.1.split(rows));
        ((x_head, y_head), (x_tail, y_tail))
    }
}

/// Calls `task(b, rows, outputs)` for every block of at most `block` rows of each sequence's
/// `n_rows`; `outputs` holds only those rows.
pub(crate) fn for_each_block<X: Split>(
    n_sequences: usize,
    n_rows: usize,
    block: usize,
    outputs: X,
    task: impl Fn(usize, Range<usize>, X) + Sync,
) {
    let blocks = 0..n_sequences * n_rows.div_ceil(block);
    halve(blocks, n_rows, block, outputs, &task);
}

fn halve<X: Split>(
    blocks: Range<usize>,
    n_rows: usize,
    block: usize,
    outputs: X,
    task: &(impl Fn(usize, Range<usize>, X) + Sync),
) {
    let per_sequence = n_rows.div_ceil(block);
    let place = |i: usize| (i / per_sequence, i % per_sequence * block);
    if blocks.len() <= 1 {
        let (b, first) = place(blocks.start);
        return task(b, first..n_rows.min(first + block), outputs);
    }
    let middle = blocks.start + blocks.len() / 2;
    let row = |i: usize| place(i).0 * n_rows + place(i).1;
    let (head, tail) = outputs.split(row(middle) - row(blocks.start));
    rayon::join(
        || halve(blocks.start..middle, n_rows, block, head, task),
        || halve(middle..blocks.end, n_rows, block, tail, task),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_visited_once_and_knows_its_place() {
        for (n_sequences, n_rows, block) in [(1, 1, 1), (3, 10, 4), (2, 8, 4), (5, 3, 16)] {
            let mut x = vec![0f64; 2 * n_sequences * n_rows];
            let mut y = vec![0f64; n_sequences * n_rows];
            let outputs = (
                Rows { data: &mut x, width: 2 },
                (Some(Rows { data: &mut y, width: 1 }), None::<Rows<f64>>),
            );
            for_each_block(n_sequences, n_rows, block, outputs, |b, rows, (x, (y, none))| {
                assert!(rows.len() <= block && none.is_none());
                assert_eq!(x.data.len(), 2 * rows.len());
                for (y, row) in y.expect("wanted").data.iter_mut().zip(rows) {
                    *y += (b * n_rows + row + 1) as f64;
                }
            });
            assert!(y.iter().enumerate().all(|(i, y)| *y == (i + 1) as f64));
        }
    }
}
