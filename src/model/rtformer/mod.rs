//! RTFormer ([arXiv:2210.07124](https://arxiv.org/abs/2210.07124)), as described in the paper.
//!
//! Names follow PaddleSeg's `rtformer.py`, so that every parameter is found under its name in a checkpoint. `x1` … `x6` are the
//! paper's feature maps, and a trailing underscore marks the high-resolution branch.

mod attention;
mod block;
mod config;
mod dappm;
mod encoder;
mod exit;
mod head;
mod rounding;
mod work;

pub use config::{Config, Variant};

use attention::{RtFormerBlock, Widths};
use block::{End, Stage};
use dappm::Dappm;
use encoder::Encoder;
use head::Head;

use crate::backend::{Backend, Epilogue};
use crate::error::Result;
use crate::model::parts::{Parameters, Parts};

/// RTFormer with its parameters on a device.
///
/// ```
/// use rtformer::Config;
/// use rtformer::backend::{Backend, Reference};
/// use rtformer::model::{Noise, RtFormer};
///
/// let b = Reference::folded();
/// let small = Config { base_channels: 8, ..Config::slim(19) };
/// let network = RtFormer::load(&b, &small, &mut Noise::new(7))?;
/// let photo = b.upload(&[0.0; 3 * 48 * 64], [1, 3, 48, 64])?;
/// assert_eq!(b.shape(&network.forward(&b, photo)?), [1, 19, 6, 8]);
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct RtFormer<B: Backend> {
    encoder: Encoder<B>,
    /// Whether the backend rounds products, but not those of the encoder.
    exact_encoder: bool,
    compression3: B::Conv,
    layer3_: Stage<B>,
    layer4: RtFormerBlock<B>,
    layer5: RtFormerBlock<B>,
    spp: Dappm<B>,
    head: Head<B>,
    /// The auxiliary head on `x3_`, where adaptive inference may stop.
    auxiliary: Option<Head<B>>,
}

impl<B: Backend> RtFormer<B> {
    /// Copies every parameter that the configuration needs to the device.
    ///
    /// On a [backend that rounds products](Backend::rounds_products), the encoder (the stem and `layer1` to `layer3`) multiplies in f32 if
    /// its rounding would change the logits of a noise photo by more than 2 % (root mean square). Finding that out takes two frames of
    /// 256x128, and the encoder's weights are packed twice.
    ///
    /// # Errors
    /// The errors of `parameters`, such as a missing tensor or an unexpected shape, and the errors of the backend.
    pub fn load(backend: &B, config: &Config, parameters: &mut dyn Parameters) -> Result<Self> {
        let parts = &mut Parts::new(backend, parameters);
        let c = config.base_channels;
        let widths = |low| Widths { high: 2 * c, low, heads: config.num_heads, cross_size: config.cross_size };
        let (encoder, exact) = Encoder::load_for(parts, config)?;
        let network = Self {
            encoder,
            exact_encoder: false,
            compression3: parts.norm_relu_conv("compression3", 4 * c, 2 * c, 1)?,
            layer3_: Stage::load(parts, "layer3_", [2 * c, 2 * c], 1, 1, End::Relu)?,
            layer4: RtFormerBlock::load(parts, "layer4", widths([4 * c, 8 * c]), config.use_injection[0])?,
            layer5: RtFormerBlock::load(parts, "layer5", widths([8 * c, 8 * c]), config.use_injection[1])?,
            spp: Dappm::load(parts, "spp", 8 * c, config.spp_channels, 2 * c)?,
            head: Head::load(parts, "seghead", 4 * c, 2 * config.head_channels, config.num_classes)?,
            auxiliary: None,
        };
        match exact {
            Some(exact) => network.limit_rounding(backend, exact),
            None => Ok(network),
        }
    }

    /// Whether the encoder multiplies in f32 on a backend that rounds products; see [`load`](Self::load).
    pub fn has_exact_encoder(&self) -> bool {
        self.exact_encoder
    }

    /// `[n, 3, h, w]`, normalised RGB → logits `[n, classes, ceil(h/8), ceil(w/8)]`.
    ///
    /// # Errors
    /// The errors of the backend.
    pub fn forward(&self, b: &B, x: B::Tensor) -> Result<B::Tensor> {
        self.observe(b, x, &mut |_, _| Ok(()))
    }

    /// [`forward`](Self::forward), but calls `see` with each stage's name and result.
    ///
    /// # Errors
    /// The errors of the backend and of `see`.
    pub fn observe(&self, b: &B, x: B::Tensor, see: Observer<'_, B>) -> Result<B::Tensor> {
        self.stages(b, x, see, &mut |_, _| Ok(None))
    }

    /// The network. `exit` gets `x3_` and `x3`; if it returns logits, the rest does not run.
    #[rustfmt::skip] // The aligned comments give the size of each map.
    fn stages(&self, b: &B, x: B::Tensor, see: Observer<'_, B>, exit: Exit<'_, B>) -> Result<B::Tensor> {
        let (x2, x3) = self.encoder.forward(b, x, see)?;                            // 2c, 1/8; 4c, 1/16
        let mut look = |name, x: B::Tensor| see(name, &x).map(|()| x);
        let up = b.conv(&self.compression3, &x3, Epilogue::default())?;             // 2c, 1/16
        let x3_ = b.relu(&b.resize_add(&up, &x2)?)?;                                // 2c, 1/8
        drop((up, x2));
        let x3_ = look("x3_", self.layer3_.forward(b, x3_)?)?;                      // 2c, 1/8

        let x3 = b.relu(&x3)?;
        if let Some(logits) = exit(&x3_, &x3)? { return Ok(logits) }
        let (x4_, x4) = self.layer4.forward(b, x3_, x3)?;                           // 2c, 1/8; 8c, 1/32
        let (x4_, x4) = (look("x4_", x4_)?, look("x4", x4)?);
        let (x4_, x4) = (b.relu(&x4_)?, b.relu(&x4)?);
        let (x5_, x5) = self.layer5.forward(b, x4_, x4)?;                           // 2c, 1/8; 8c, 1/32
        let (x5_, x5) = (look("x5_", x5_)?, look("x5", x5)?);

        let x6 = look("x6", self.spp.forward(b, &x5)?)?;                            // 2c, 1/32
        let [_, _, h, w] = b.shape(&x5_);
        let x6 = b.resize(&x6, (h, w))?;                                            // 2c, 1/8
        let features = look("features", b.concat(&[&x5_, &x6])?)?;                  // 4c, 1/8
        look("logits8", self.head.forward(b, &features)?)                           // classes, 1/8
    }
}

/// A callback that receives `x3_` and `x3`, both after their ReLU, and may return the final logits.
type Exit<'a, B> =
    &'a mut dyn FnMut(&<B as Backend>::Tensor, &<B as Backend>::Tensor) -> Result<Option<<B as Backend>::Tensor>>;

/// A callback that receives each stage's name and result.
///
/// ```
/// use rtformer::backend::{Backend, Reference};
/// use rtformer::model::{Noise, Observer, RtFormer};
/// # use rtformer::Config;
///
/// # let b = Reference::folded();
/// # let small = Config { base_channels: 8, ..Config::slim(19) };
/// # let network = RtFormer::load(&b, &small, &mut Noise::new(7))?;
/// # let photo = b.upload(&[0.0; 3 * 48 * 64], [1, 3, 48, 64])?;
/// let mut stages = Vec::new();
/// let see: Observer<'_, Reference> = &mut |name, map| {
///     stages.push((name, b.shape(map)));
///     Ok(())
/// };
/// network.observe(&b, photo, see)?;
/// assert_eq!(stages[0], ("stem", [1, 8, 12, 16]));
/// assert_eq!(stages.last(), Some(&("logits8", [1, 19, 6, 8])));
/// # Ok::<(), rtformer::Error>(())
/// ```
pub type Observer<'a, B> = &'a mut dyn FnMut(&'static str, &<B as Backend>::Tensor) -> Result<()>;
