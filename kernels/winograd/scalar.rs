//! The definition, one tile and one channel at a time.

use super::{FAR, FAR_SQUARED, NEAR, NEAR_SQUARED, PATCH, POINTS, SQUARES, TILE, Winograd};
use crate::conv::activate;

/// `B' d`: transforms six neighbouring inputs to their values at the six points. It rounds exactly like the vector
/// form, so that in bf16 both multiply the same numbers.
fn forward([d0, d1, d2, d3, d4, d5]: [f32; PATCH]) -> [f32; PATCH] {
    let (even1, odd1) = (d2.mul_add(-FAR_SQUARED, d4), d1.mul_add(-FAR_SQUARED, d3));
    let (even2, odd2) = (d2.mul_add(-NEAR_SQUARED, d4), d1.mul_add(-NEAR_SQUARED, d3));
    [
        d2.mul_add(-SQUARES, d0 + d4),
        odd1.mul_add(NEAR, even1),
        odd1.mul_add(-NEAR, even1),
        odd2.mul_add(FAR, even2),
        odd2.mul_add(-FAR, even2),
        d3.mul_add(-SQUARES, d1 + d5),
    ]
}

/// `A' m`: transforms the sums at the six points to four outputs.
fn backward([m0, m1, m2, m3, m4, m5]: [f32; PATCH]) -> [f32; TILE] {
    let (sum1, difference1, sum2, difference2) = (m1 + m2, m1 - m2, m3 + m4, m3 - m4);
    [
        m0 + FAR * sum1 + NEAR * sum2,
        difference1 + difference2,
        NEAR * sum1 + FAR * sum2,
        NEAR_SQUARED * difference1 + FAR_SQUARED * difference2 + m5,
    ]
}

pub(super) fn winograd(mut call: Winograd) {
    let (grid, rows) = (call.grid(), call.out.rows());
    let (output, element) = (call.out.layout(), call.packed.element);
    let (channels, words) = (call.packed.shape.in_channels, call.packed.words());
    for (row, column) in (0..grid.len()).map(|tile| grid.corner(tile)) {
        // `[channels][36]`
        let patches: Vec<[f32; POINTS]> = (0..channels)
            .map(|channel| {
                // One row up and one column left of the outputs, where the halo has its zero.
                let at = |y: usize, x: usize| call.input.padded(channel, row + y, column + x);
                let columns: [_; PATCH] = std::array::from_fn(|x| forward(std::array::from_fn(|y| at(y, x))));
                let both: [_; PATCH] = std::array::from_fn(|y| forward(std::array::from_fn(|x| columns[x][y])));
                std::array::from_fn(|point| element.round(both[point / PATCH][point % PATCH]))
            })
            .collect();
        for block in call.out.blocks() {
            for lane in 0..16 {
                let mut sums = [0.0; POINTS];
                for (point, sum) in sums.iter_mut().enumerate() {
                    let weights = &call.packed.weights[(point * output.blocks() + block) * words..][..words];
                    let weight =
                        |channel: usize| element.get(weights[channel / element.channels_per_word()].0[lane], channel);
                    *sum = patches.iter().enumerate().map(|(channel, patch)| patch[point] * weight(channel)).sum();
                }
                let columns: [_; PATCH] =
                    std::array::from_fn(|x| backward(std::array::from_fn(|y| sums[y * PATCH + x])));
                for y in (0..TILE).filter(|y| rows.contains(&(row + y))) {
                    let outputs = backward(std::array::from_fn(|x| columns[x][y]));
                    for (x, sum) in outputs.into_iter().enumerate().take(output.width - column) {
                        let at = (column + x) * 16 + lane;
                        let residual = call.epilogue.residual.map_or(0.0, |map| map.row(block, row + y)[at]);
                        let sum = sum + call.packed.bias[block].0[lane] + residual;
                        call.out.row_mut(block, row + y)[at] = activate(sum, call.epilogue.activation);
                    }
                }
            }
        }
    }
}
