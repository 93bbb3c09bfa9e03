//! `ldmatrix` and `stmatrix`: matrices of 8 × 8 elements between shared memory and a warp's fragments. Knows only
//! their layout.

use super::block::Block;
use super::warp::Warp;
use crate::memory::{Space, place};
use crate::program::Reg;
use crate::report::Trouble;

impl Block<'_> {
    pub(crate) fn load_matrix(
        &mut self,
        warp: &mut Warp,
        d: &[Reg],
        transposed: bool,
        address: Reg,
        offset: i64,
    ) -> Result<(), Trouble> {
        let addresses = Self::addresses(warp, address, offset);
        for (i, d) in d.iter().enumerate() {
            let mut matrix = [[0u16; 8]; 8];
            for (row, values) in matrix.iter_mut().enumerate() {
                let lane = 8 * i + row;
                let (_, at) = place(Space::Shared, addresses[lane]);
                let bytes = self.shared.read_together(at, 16, warp.index, lane)?;
                for (value, pair) in values.iter_mut().zip(bytes.chunks_exact(2)) {
                    *value = u16::from_le_bytes([pair[0], pair[1]]);
                }
            }
            let out = std::array::from_fn(|lane| {
                let (row, column) = (lane / 4, lane % 4 * 2);
                let at = |k: usize| {
                    if transposed { matrix[column + k][row] } else { matrix[row][column + k] }
                };
                u64::from(at(0)) | u64::from(at(1)) << 16
            });
            warp.set(*d, &out, u32::MAX);
            self.count(Space::Shared, &addresses, 16, 0xff << (8 * i));
        }
        Ok(())
    }

    pub(crate) fn store_matrix(
        &mut self,
        warp: &mut Warp,
        s: &[Reg],
        transposed: bool,
        address: Reg,
        offset: i64,
    ) -> Result<(), Trouble> {
        let addresses = Self::addresses(warp, address, offset);
        self.shared.begin_store();
        for (i, s) in s.iter().enumerate() {
            let values = *warp.get(*s);
            for row in 0..8 {
                let mut bytes = [0; 16];
                for column in 0..8 {
                    let (r, c) = if transposed { (column, row) } else { (row, column) };
                    let value = (values[r * 4 + c / 2] >> (16 * (c % 2))) as u16;
                    bytes[2 * column..2 * column + 2].copy_from_slice(&value.to_le_bytes());
                }
                let lane = 8 * i + row;
                let (_, at) = place(Space::Shared, addresses[lane]);
                self.shared.write_together(at, &bytes, warp.index, lane)?;
            }
        }
        Ok(())
    }
}
