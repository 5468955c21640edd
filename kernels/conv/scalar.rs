//! The definition of a convolution.

use super::{Activation, Conv};

pub(super) fn conv(Conv { packed, input, mut out, epilogue, .. }: Conv) {
    let (shape, element) = (packed.shape(), packed.element());
    for block in out.blocks() {
        for row in out.rows() {
            for column in 0..out.layout().width {
                let mut sum = *packed.bias(block);
                for channel in 0..shape.in_channels {
                    for tap in 0..shape.kernel * shape.kernel {
                        // The index starts at the halo, so less padding means a larger offset.
                        let y = row * shape.stride + tap / shape.kernel + 1 - shape.padding;
                        let x = column * shape.stride + tap % shape.kernel + 1 - shape.padding;
                        let value = element.round(input.padded(channel, y, x));
                        for (sum, weight) in sum.iter_mut().zip(packed.weight(block, channel, tap)) {
                            *sum += weight * value;
                        }
                    }
                }
                if let Some(residual) = epilogue.residual {
                    for (sum, value) in sum.iter_mut().zip(&residual.row(block, row)[column * 16..]) {
                        *sum += value;
                    }
                }
                for (value, sum) in out.row_mut(block, row)[column * 16..].iter_mut().zip(sum) {
                    *value = activate(sum, epilogue.activation);
                }
            }
        }
    }
}

pub(crate) fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
    }
}
