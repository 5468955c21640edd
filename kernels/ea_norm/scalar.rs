//! The definitions of the two normalizations.

use super::{EaGroupL1, EaSoftmax};

pub(super) fn ea_softmax(EaSoftmax { mut x }: EaSoftmax) {
    for block in x.blocks() {
        let real = x.layout().real_lanes(block);
        let mut greatest = [f32::NEG_INFINITY; 16];
        for row in x.rows() {
            for (i, &value) in x.row_mut(block, row).iter().enumerate() {
                greatest[i % 16] = greatest[i % 16].max(value);
            }
        }
        let mut sum = [0.0; 16];
        for row in x.rows() {
            for (i, value) in x.row_mut(block, row).iter_mut().enumerate() {
                *value = (*value - greatest[i % 16]).exp();
                sum[i % 16] += f64::from(*value);
            }
        }
        for row in x.rows() {
            for (i, value) in x.row_mut(block, row).iter_mut().enumerate() {
                *value = if i % 16 < real { (f64::from(*value) / sum[i % 16]) as f32 } else { 0.0 };
            }
        }
    }
}

pub(super) fn ea_group_l1(EaGroupL1 { mut x, group }: EaGroupL1) {
    let channels = x.layout().channels;
    for row in x.rows() {
        for column in 0..x.layout().width {
            for first in (0..channels).step_by(group) {
                let sum: f32 = (first..first + group).map(|c| x.row_mut(c / 16, row)[column * 16 + c % 16]).sum();
                for c in first..first + group {
                    x.row_mut(c / 16, row)[column * 16 + c % 16] /= sum + 1e-6;
                }
            }
        }
    }
}
