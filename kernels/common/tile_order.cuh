// Which tile of a matrix a block computes.
#pragma once

// Blocks are numbered down bands of 8 tile rows: blocks that run at the same time then share panels of
// both factors in the L2 cache.
struct TileOrder {
    int row, column;
    __device__ __forceinline__ TileOrder(int block, int tile_rows, int tile_columns) {
        int band = block / (8 * tile_columns), in_band = block - band * 8 * tile_columns;
        int height = tile_rows - band * 8 < 8 ? tile_rows - band * 8 : 8;
        row = band * 8 + in_band % height;
        column = in_band / height;
    }
};
