//! The definition of a convolution.

use super::{Activation, Conv};

pub(super) fn conv(Conv { conv, x, mut out, epilogue }: Conv) {
    let shape = conv.shape();
    let (input, strides) = (x.layout(), (x.layout().row_stride(), x.layout().lanes));
    for block in out.blocks() {
        for row in out.rows() {
            for column in 0..out.layout().width {
                let mut sum = *conv.bias(block);
                for channel in 0..shape.in_channels {
                    for tap in 0..shape.kernel * shape.kernel {
                        let (ky, kx) = (tap / shape.kernel, tap % shape.kernel);
                        // Rows and columns of the memory start with the halo: one less padding is one more offset.
                        let (y, x_) = (row * shape.stride + ky + 1 - shape.padding, column * shape.stride + kx + 1 - shape.padding);
                        let pixel = channel / input.lanes * input.block_stride() + y * strides.0 + x_ * strides.1;
                        let value = x.data()[pixel + channel % input.lanes];
                        for (sum, weight) in sum.iter_mut().zip(conv.weight(block, channel, tap)) {
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

fn activate(x: f32, activation: Activation) -> f32 {
    match activation {
        Activation::None => x,
        Activation::Relu => x.max(0.0),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erff(x * std::f32::consts::FRAC_1_SQRT_2)),
    }
}
