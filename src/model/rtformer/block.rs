//! The residual stages of the backbone, and the MLP of the RTFormer block.

use crate::backend::{Activation, Backend, Epilogue};
use crate::error::Result;
use crate::model::parts::{MLP_EPSILON, Parts, Plan};

/// A residual block: two 3x3 convolutions and a shortcut.
struct BasicBlock<B: Backend> {
    conv1: B::Conv,
    conv2: B::Conv,
    /// A strided 1x1 convolution on the shortcut, if the shape changes.
    downsample: Option<B::Conv>,
    last: Activation,
}

impl<B: Backend> BasicBlock<B> {
    fn load(
        parts: &mut Parts<'_, B>,
        name: &str,
        channels: [usize; 2],
        stride: usize,
        downsample: bool,
        last: Activation,
    ) -> Result<Self> {
        let [c, d] = channels;
        let of = |part: &str| format!("{name}.{part}");
        let (conv1, bn1, conv2, bn2) = (of("conv1"), of("bn1"), of("conv2"), of("bn2"));
        Ok(Self {
            conv1: parts.conv(&Plan::new(&conv1, c, d, 3).stride(stride).norm_after(&bn1))?,
            conv2: parts.conv(&Plan::new(&conv2, d, d, 3).norm_after(&bn2))?,
            downsample: if downsample {
                let (conv, norm) = (of("downsample.0"), of("downsample.1"));
                Some(parts.conv(&Plan::new(&conv, c, d, 1).stride(stride).norm_after(&norm))?)
            } else {
                None
            },
            last,
        })
    }

    fn forward(&self, b: &B, x: &B::Tensor) -> Result<B::Tensor> {
        let inner = b.conv(&self.conv1, x, Epilogue::activate(Activation::Relu))?;
        let around = self.downsample.as_ref().map(|conv| b.conv(conv, x, Epilogue::default())).transpose()?;
        let residual = Some(around.as_ref().unwrap_or(x));
        b.conv(&self.conv2, &inner, Epilogue { residual, activation: self.last })
    }
}

/// How a stage of residual blocks ends.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// As in PaddleSeg: no ReLU after the last block, unless it is the only block.
    Raw,
    /// With the ReLU that every consumer of the stage would apply. It runs once, in the epilogue.
    Relu,
}

/// A sequence of residual blocks. The first may halve the map.
pub(super) struct Stage<B: Backend>(Vec<BasicBlock<B>>);

impl<B: Backend> Stage<B> {
    pub(super) fn load(
        parts: &mut Parts<'_, B>,
        name: &str,
        channels: [usize; 2],
        count: usize,
        stride: usize,
        end: End,
    ) -> Result<Self> {
        let [c, d] = channels;
        let blocks = (0..count).map(|i| {
            let raw = i + 1 == count && count > 1 && end == End::Raw;
            let last = if raw { Activation::None } else { Activation::Relu };
            let (channels, stride) = if i == 0 { ([c, d], stride) } else { ([d, d], 1) };
            let downsample = stride != 1 || channels[0] != channels[1];
            BasicBlock::load(parts, &format!("{name}.{i}"), channels, stride, downsample, last)
        });
        Ok(Self(blocks.collect::<Result<_>>()?))
    }

    pub(super) fn forward(&self, b: &B, mut x: B::Tensor) -> Result<B::Tensor> {
        for block in &self.0 {
            x = block.forward(b, &x)?;
        }
        Ok(x)
    }
}

/// Pre-norm residual MLP of two 3x3 convolutions: `x + conv(GELU(conv(norm(x))))`.
pub(super) struct Mlp<B: Backend> {
    conv1: B::Conv,
    conv2: B::Conv,
}

impl<B: Backend> Mlp<B> {
    pub(super) fn load(parts: &mut Parts<'_, B>, name: &str, channels: usize) -> Result<Self> {
        let of = |part: &str| format!("{name}.{part}");
        let (norm, conv1, conv2) = (of("norm"), of("conv1"), of("conv2"));
        Ok(Self {
            // The norm cannot fold: this conv pads with zeros after it, so a folded shift would be wrong along the border.
            conv1: parts.conv(&Plan::new(&conv1, channels, channels, 3).bias().norm_before(&norm, MLP_EPSILON))?,
            conv2: parts.conv(&Plan::new(&conv2, channels, channels, 3).bias())?,
        })
    }

    /// `[n, c, h, w]` → the same shape.
    pub(super) fn forward(&self, b: &B, x: &B::Tensor) -> Result<B::Tensor> {
        let inner = b.conv(&self.conv1, x, Epilogue::activate(Activation::Gelu))?;
        b.conv(&self.conv2, &inner, Epilogue::residual(x))
    }
}
