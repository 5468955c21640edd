//! The definition of the attention, on packed keys.

use super::CrossAttend;
use crate::floats_mut;

pub(super) fn cross_attend(CrossAttend { x, keys, residual, mut out, scratch }: CrossAttend) {
    let (channels, count) = (keys.channels(), keys.keys());
    let scores = &mut floats_mut(scratch)[..count];
    for row in out.rows() {
        for column in 0..out.layout().width {
            for (j, score) in scores.iter_mut().enumerate() {
                *score = keys.bias()[j / 16].0[j % 16];
                for ch in 0..channels {
                    *score += keys.key(j, ch) * keys.query(x.at(ch, row, column), ch);
                }
            }
            let greatest = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            for score in scores.iter_mut() {
                *score = (*score - greatest).exp();
            }
            let sum: f32 = scores.iter().sum();
            for block in out.blocks() {
                let mut mean = [0.0; 16];
                for (j, weight) in scores.iter().enumerate() {
                    for (mean, value) in mean.iter_mut().zip(keys.value(j, block)) {
                        *mean += keys.element().round(weight / sum) * value;
                    }
                }
                let pixel = column * 16..column * 16 + 16;
                if let Some(residual) = residual {
                    for (mean, value) in mean.iter_mut().zip(&residual.row(block, row)[pixel.clone()]) {
                        *mean += value;
                    }
                }
                out.row_mut(block, row)[pixel].copy_from_slice(&mean);
            }
        }
    }
}
