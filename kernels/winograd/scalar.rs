//! The definition, tile by tile, channel by channel.

use super::{PATCH, POINTS, TILE, Winograd};
use crate::conv::activate;

/// `B' d`: what six neighbouring inputs are at the six points.
fn forward([d0, d1, d2, d3, d4, d5]: [f32; PATCH]) -> [f32; PATCH] {
    [
        4.0 * d0 - 5.0 * d2 + d4,
        (d4 - 4.0 * d2) + (d3 - 4.0 * d1),
        (d4 - 4.0 * d2) - (d3 - 4.0 * d1),
        (d4 - d2) + 2.0 * (d3 - d1),
        (d4 - d2) - 2.0 * (d3 - d1),
        4.0 * d1 - 5.0 * d3 + d5,
    ]
}

/// `A' m`: the four outputs of sums at the six points.
fn backward([m0, m1, m2, m3, m4, m5]: [f32; PATCH]) -> [f32; TILE] {
    [
        m0 + (m1 + m2) + (m3 + m4),
        (m1 - m2) + 2.0 * (m3 - m4),
        (m1 + m2) + 4.0 * (m3 + m4),
        (m1 - m2) + 8.0 * (m3 - m4) + m5,
    ]
}

pub(super) fn winograd(mut call: Winograd) {
    let (grid, rows) = (call.grid(), call.out.rows());
    let (input, output) = (call.x.layout(), call.out.layout());
    let channels = input.channels;
    for (row, column) in (0..grid.len()).map(|tile| grid.corner(tile)) {
        // `[channels][36]`
        let patches: Vec<[f32; POINTS]> = (0..channels)
            .map(|channel| {
                let at = |y: usize, x: usize| {
                    // One up and one left of the outputs; what is outside the map is zero.
                    let (y, x) = ((row + y).wrapping_sub(1), (column + x).wrapping_sub(1));
                    if y < input.height && x < input.width { call.x.at(channel, y, x) } else { 0.0 }
                };
                let columns: [_; PATCH] = std::array::from_fn(|x| forward(std::array::from_fn(|y| at(y, x))));
                let both: [_; PATCH] = std::array::from_fn(|y| forward(std::array::from_fn(|x| columns[x][y])));
                std::array::from_fn(|point| both[point / PATCH][point % PATCH])
            })
            .collect();
        for block in call.out.blocks() {
            for lane in 0..16 {
                let mut sums = [0.0; POINTS];
                for (point, sum) in sums.iter_mut().enumerate() {
                    let weights = &call.packed.weights[(point * output.blocks() + block) * channels..][..channels];
                    *sum = patches.iter().zip(weights).map(|(patch, weights)| patch[point] * weights.0[lane]).sum();
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
