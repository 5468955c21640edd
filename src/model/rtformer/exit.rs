//! Adaptive inference: stops at `x3_` with the auxiliary head, and computes the rest only in rectangles.

use super::attention::FromLow;
use super::head::Head;
use super::{Config, RtFormer};
use crate::backend::{Area, Areas, Backend};
use crate::error::{Error, Result};
use crate::model::ladder::{Patch, Step};
use crate::model::parts::{Parameters, Parts};

/// What the rest of the network takes from the low branch, at the size of `x3_`: `[n, 2c, h/8, w/8]` each, and the keys and values of
/// both blocks.
struct Context<T> {
    block4: FromLow<T>,
    block5: FromLow<T>,
    x6: T,
}

impl<B: Backend> RtFormer<B> {
    /// Also loads the auxiliary head, `seghead_extra.*`, which [`climb`](Self::climb) needs.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn with_auxiliary(self, backend: &B, config: &Config, parameters: &mut dyn Parameters) -> Result<Self> {
        let parts = &mut Parts::new(backend, parameters);
        let (high, inner) = (2 * config.base_channels, config.head_channels);
        let auxiliary = Head::load(parts, "seghead_extra", high, inner, config.num_classes)?;
        Ok(Self { auxiliary: Some(auxiliary), ..self })
    }
}

impl<B: Areas> RtFormer<B> {
    /// As [`forward`](Self::forward), but asks `decide` what to do with the auxiliary head's logits, `[1, classes, h/8, w/8]`. If it
    /// decides on [`Step::Full`], the result is that of `forward`, bit for bit.
    ///
    /// In patches, the high branch and the head run at full resolution. What they take from the low branch comes from maps of half
    /// the height and width, so that it costs a quarter; of the high branch, these use only what the low branch added to it.
    ///
    /// # Errors
    /// [`Error::Config`] without the auxiliary head, and the errors of the backend.
    pub fn climb(&self, b: &B, x: B::Tensor, decide: &mut dyn FnMut(&B::Tensor) -> Result<Step>) -> Result<B::Tensor> {
        let Some(auxiliary) = &self.auxiliary else {
            return Err(Error::Config("adaptive inference needs the auxiliary head, which was not loaded".into()));
        };
        self.stages(b, x, &mut |_, _| Ok(()), &mut |x3_, x3| {
            let early = auxiliary.forward(b, x3_)?;
            match decide(&early)? {
                Step::Full => Ok(None),
                Step::Exit => Ok(Some(early)),
                Step::Refine(patches) => {
                    let context = self.context(b, x3_, x3)?;
                    let paste = |early, patch: &Patch| self.refine(b, early, x3_, &context, patch);
                    patches.iter().try_fold(early, paste).map(Some)
                }
            }
        })
    }

    /// The low branch of both blocks and DAPPM, at half the height and width.
    fn context(&self, b: &B, x3_: &B::Tensor, x3: &B::Tensor) -> Result<Context<B::Tensor>> {
        let half = |x: &B::Tensor| {
            let [_, _, h, w] = b.shape(x);
            b.resize(x, (h.div_ceil(2), w.div_ceil(2)))
        };
        let (x3_half, x3_half_low) = (half(x3_)?, half(x3)?); // 2c, 1/16; 4c, 1/32

        let low = self.layer4.low(b, &x3_half_low)?; // 8c, 1/64
        let block4 = self.layer4.for_high(b, &low)?;
        let x4_half = b.resize_add(&block4.sum, &x3_half)?; // without attention and MLP
        let x4 = b.relu(&self.layer4.inject(b, &x4_half, low)?)?;

        let low = self.layer5.low(b, &x4)?;
        let block5 = self.layer5.for_high(b, &low)?;
        let x5_half = b.resize_add(&block5.sum, &b.relu(&x4_half)?)?;
        let x6 = self.spp.forward(b, &self.layer5.inject(b, &x5_half, low)?)?; // 2c, 1/64

        let [_, _, h, w] = b.shape(x3_);
        let full = |from: FromLow<B::Tensor>| b.resize(&from.sum, (h, w)).map(|sum| FromLow { sum, ..from });
        Ok(Context { block4: full(block4)?, block5: full(block5)?, x6: b.resize(&x6, (h, w))? })
    }

    /// Replaces the patch's logits in `early` by those of the high branch and the head.
    fn refine(
        &self,
        b: &B,
        early: B::Tensor,
        x3_: &B::Tensor,
        context: &Context<B::Tensor>,
        patch: &Patch,
    ) -> Result<B::Tensor> {
        let crop = |x: &B::Tensor| b.crop(x, patch.seen);
        let Context { block4, block5, x6 } = context;
        let x4_ = self.layer4.high(b, &b.add(&crop(&block4.sum)?, &crop(x3_)?)?, &block4.kv)?;
        let x5_ = self.layer5.high(b, &b.add(&crop(&block5.sum)?, &b.relu(&x4_)?)?, &block5.kv)?;
        let logits = self.head.forward(b, &b.concat(&[&x5_, &crop(x6)?])?)?;
        let Area { top, left, .. } = patch.kept;
        let inner = Area { top: top - patch.seen.top, left: left - patch.seen.left, ..patch.kept };
        b.paste(early, &b.crop(&logits, inner)?, (top, left))
    }
}
