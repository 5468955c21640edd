//! The definitions of the pointwise operations.

use super::{Add, Relu};

pub(super) fn relu(Relu { x, mut out }: Relu) {
    for block in out.blocks() {
        for row in out.rows() {
            for (out, x) in out.row_mut(block, row).iter_mut().zip(x.row(block, row)) {
                *out = x.max(0.0);
            }
        }
    }
}

pub(super) fn add(Add { a, b, mut out }: Add) {
    for block in out.blocks() {
        for row in out.rows() {
            let (a, b) = (a.row(block, row), b.row(block, row));
            for (i, out) in out.row_mut(block, row).iter_mut().enumerate() {
                *out = a[i] + b[i];
            }
        }
    }
}
