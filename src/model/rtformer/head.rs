//! The segmentation head.

use crate::backend::{Activation, Backend, Epilogue};
use crate::error::Result;
use crate::model::parts::{Parts, Plan};

/// A 3x3 convolution and the classifier.
pub(super) struct Head<B: Backend> {
    conv1: B::Conv,
    conv2: B::Conv,
}

impl<B: Backend> Head<B> {
    pub(super) fn load(
        parts: &mut Parts<'_, B>,
        name: &str,
        channels: usize,
        inner: usize,
        classes: usize,
    ) -> Result<Self> {
        let of = |part: &str| format!("{name}.{part}");
        let (bn1, conv1, bn2, conv2) = (of("bn1"), of("conv1"), of("bn2"), of("conv2"));
        Ok(Self {
            // The second norm and its ReLU are between the two convolutions. After the first, they fold and fuse at no cost.
            conv1: parts.conv(&Plan::new(&conv1, channels, inner, 3).norm_relu_before(&bn1).norm_after(&bn2))?,
            conv2: parts.conv(&Plan::new(&conv2, inner, classes, 1).bias())?,
        })
    }

    /// `[n, 4c, h/8, w/8]` → `[n, classes, h/8, w/8]`.
    pub(super) fn forward(&self, b: &B, x: &B::Tensor) -> Result<B::Tensor> {
        let inner = b.conv(&self.conv1, x, Epilogue::activate(Activation::Relu))?;
        b.conv(&self.conv2, &inner, Epilogue::default())
    }
}
