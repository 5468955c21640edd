//! The encoder: the stem and `layer1` to `layer3`, which only convolve.

use super::block::{End, Stage};
use super::{Config, Observer};
use crate::backend::{Activation, Backend, Epilogue};
use crate::error::Result;
use crate::model::parts::{Parts, Plan};

/// The stem and three stages of residual blocks.
pub(super) struct Encoder<B: Backend> {
    stem: [B::Conv; 2],
    layer1: Stage<B>,
    layer2: Stage<B>,
    layer3: Stage<B>,
}

impl<B: Backend> Encoder<B> {
    pub(super) fn load(parts: &mut Parts<'_, B>, config: &Config) -> Result<Self> {
        let c = config.base_channels;
        let [blocks1, blocks2, blocks3] = config.blocks();
        Ok(Self {
            stem: [
                parts.conv(&Plan::new("conv1.0", 3, c, 3).photo().stride(2).bias().norm_after("conv1.1"))?,
                parts.conv(&Plan::new("conv1.3", c, c, 3).stride(2).bias().norm_after("conv1.4"))?,
            ],
            layer1: Stage::load(parts, "layer1", [c, c], blocks1, 1, End::Relu)?,
            layer2: Stage::load(parts, "layer2", [c, 2 * c], blocks2, 2, End::Raw)?,
            layer3: Stage::load(parts, "layer3", [2 * c, 4 * c], blocks3, 2, End::Raw)?,
        })
    }

    /// `[n, 3, h, w]` → `x2 [n, 2c, h/8, w/8]` and `x3 [n, 4c, h/16, w/16]`, both before their ReLU.
    pub(super) fn forward(&self, b: &B, photo: B::Tensor, see: Observer<'_, B>) -> Result<(B::Tensor, B::Tensor)> {
        let mut look = |name, x: B::Tensor| see(name, &x).map(|()| x);
        let x0 = look("stem", self.stem(b, photo)?)?; // c, 1/4
        let x1 = look("x1", self.layer1.forward(b, x0)?)?; // c, 1/4
        let x2 = look("x2", self.layer2.forward(b, x1)?)?; // 2c, 1/8
        let x3 = look("x3", self.layer3.forward(b, b.relu(&x2)?)?)?; // 4c, 1/16
        Ok((x2, x3))
    }

    /// `[n, 3, h, w]` → `[n, c, h/4, w/4]`. The map between the two convolutions is the network's largest. Neither it
    /// nor the photo is kept.
    fn stem(&self, b: &B, photo: B::Tensor) -> Result<B::Tensor> {
        let half = b.conv(&self.stem[0], &photo, Epilogue::activate(Activation::Relu))?;
        drop(photo);
        b.conv(&self.stem[1], &half, Epilogue::activate(Activation::Relu))
    }
}
