//! The definitions of the pools.

use super::{AvgPool, GlobalAvgPool, MaxPoolTo, adaptive_window};

pub(super) fn avg_pool(mut pool: AvgPool) {
    let (height, width) = pool.x.layout().size();
    let share = pool.share();
    for block in pool.out.blocks() {
        for row in pool.out.rows() {
            for column in 0..pool.out.layout().width {
                let mut sum = [0.0; 16];
                for y in pool.window(row, height) {
                    for x in pool.window(column, width) {
                        for (sum, value) in sum.iter_mut().zip(&pool.x.row(block, y)[x * 16..]) {
                            *sum += value;
                        }
                    }
                }
                let out = &mut pool.out.row_mut(block, row)[column * 16..][..16];
                out.copy_from_slice(&sum.map(|sum| sum * share));
            }
        }
    }
}

pub(super) fn global_avg_pool(GlobalAvgPool { x, mut out }: GlobalAvgPool) {
    let (height, width) = x.layout().size();
    for block in out.blocks() {
        for row in out.rows() {
            let mut sum = [0.0; 16];
            for y in 0..height {
                for (i, &value) in x.row(block, y).iter().enumerate() {
                    sum[i % 16] += f64::from(value);
                }
            }
            out.row_mut(block, row).copy_from_slice(&sum.map(|sum| (sum / (height * width) as f64) as f32));
        }
    }
}

pub(super) fn max_pool_to(MaxPoolTo { x, scale, shift, mut out }: MaxPoolTo) {
    let ((height, width), (out_height, out_width)) = (x.layout().size(), out.layout().size());
    for block in out.blocks() {
        for row in out.rows() {
            for (i, out) in out.row_mut(block, row).iter_mut().enumerate() {
                let (column, lane) = (i / 16, i % 16);
                *out = f32::NEG_INFINITY;
                for y in adaptive_window(row, out_height, height) {
                    for x_ in adaptive_window(column, out_width, width) {
                        let value = x.row(block, y)[x_ * 16 + lane];
                        *out = out.max(value * scale[block].0[lane] + shift[block].0[lane]);
                    }
                }
            }
        }
    }
}
