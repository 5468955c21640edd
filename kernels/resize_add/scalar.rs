//! The definition of `resize_add`.

use super::ResizeAdd;

pub(super) fn resize_add(ResizeAdd { small, add, mut out, vertical, horizontal }: ResizeAdd) {
    let mix = |a: f32, b: f32, weight: f32| a + weight * (b - a);
    for block in out.blocks() {
        for row in out.rows() {
            let y = vertical.tap(row);
            let (above, below) = (small.row(block, y.first), small.row(block, y.second));
            for (i, out) in out.row_mut(block, row).iter_mut().enumerate() {
                let (x, lane) = (horizontal.tap(i / 16), i % 16);
                let (left, right) = (x.first * 16 + lane, x.second * 16 + lane);
                let left = mix(above[left], below[left], y.weight);
                let right = mix(above[right], below[right], y.weight);
                *out = mix(left, right, x.weight) + add.map_or(0.0, |add| add.row(block, row)[i]);
            }
        }
    }
}
