//! The operations in plain candle calls: slow, but the definition of correct results.

use candle_core::{D, Device, Tensor};
use candle_nn::ops::softmax;

use super::areas::place;
use super::times::Times;
use super::{Activation, Area, Areas, Backend, Confidence, Epilogue, OpTime, Window, check_upload, common_extent};
use crate::error::{Error, Result};
use crate::memory;
use crate::pixels::{Extent, IdsMut, Input, Pixels, Preparation};
use crate::weights::fold::{Affine, BatchNorm, Before, ConvLayer};

/// Runs on the CPU with candle.
///
/// If not folded, it computes every norm separately. Comparing both forms proves that folding is correct.
///
/// ```
/// use rtformer::backend::{Backend, Reference};
/// use rtformer::weights::fold::BatchNorm;
///
/// let (weight, bias, mean, variance) = (vec![2.0], vec![1.0], vec![3.0], vec![4.0]);
/// let norm = BatchNorm { weight, bias, mean, variance, epsilon: 0.0 };
/// for b in [Reference::folded(), Reference::unfolded()] {
///     let (x, norm) = (b.upload(&[5.0], [1, 1, 1, 1])?, b.pack_norm(norm.clone())?);
///     assert_eq!(b.download(&b.max_pool_to(&x, &norm, 1)?)?, [3.0]); // (5 - 3) / sqrt(4) * 2 + 1
/// }
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Debug)]
pub struct Reference {
    folded: bool,
    times: Times,
}

/// A convolution with the norms that are not folded into it.
///
/// ```
/// # use rtformer::backend::{Backend, Reference};
/// # use rtformer::weights::fold::ConvLayer;
/// # let layer = ConvLayer {
/// #     name: "double".into(),
/// #     in_channels: 1,
/// #     out_channels: 1,
/// #     kernel: 1,
/// #     stride: 1,
/// #     reads_photo: false,
/// #     weight: vec![2.0],
/// #     bias: None,
/// #     before: None,
/// #     after: None,
/// # };
/// let conv: <Reference as Backend>::Conv = Reference::unfolded().pack_conv(layer)?;
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Conv {
    name: String,
    before: Option<(Norm, bool)>,
    weight: Tensor,
    bias: Option<Tensor>,
    after: Option<Norm>,
    stride: usize,
    padding: usize,
}

/// A norm, as written or as one affine map. Each tensor has the shape `[1, c, 1, 1]`.
///
/// ```
/// # use rtformer::backend::{Backend, Reference};
/// # use rtformer::weights::fold::BatchNorm;
/// let (weight, bias, mean, variance) = (vec![2.0], vec![1.0], vec![3.0], vec![4.0]);
/// let norm = BatchNorm { weight, bias, mean, variance, epsilon: 0.0 };
/// let as_written: <Reference as Backend>::Norm = Reference::unfolded().pack_norm(norm)?;
/// # Ok::<(), rtformer::Error>(())
/// ```
pub enum Norm {
    /// Mean, standard deviation, weight, bias.
    Written([Tensor; 4]),
    /// Scale, shift.
    Affine([Tensor; 2]),
}

impl Norm {
    fn written(norm: &BatchNorm) -> candle_core::Result<Self> {
        let sigma: Vec<f32> = norm.variance.iter().map(|v| (v + norm.epsilon).sqrt()).collect();
        Ok(Self::Written([channels(&norm.mean)?, channels(&sigma)?, channels(&norm.weight)?, channels(&norm.bias)?]))
    }

    fn affine(affine: &Affine) -> candle_core::Result<Self> {
        Ok(Self::Affine([channels(&affine.scale)?, channels(&affine.shift)?]))
    }

    fn apply(&self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Written([mean, sigma, weight, bias]) => {
                x.broadcast_sub(mean)?.broadcast_div(sigma)?.broadcast_mul(weight)?.broadcast_add(bias)
            }
            Self::Affine([scale, shift]) => x.broadcast_mul(scale)?.broadcast_add(shift),
        }
    }
}

impl Reference {
    /// Folds the norms into the convolutions, like every fast backend.
    pub fn folded() -> Self {
        Self { folded: true, times: Times::default() }
    }

    /// Computes every norm as written.
    pub fn unfolded() -> Self {
        Self { folded: false, times: Times::default() }
    }

    /// Runs a candle expression and records its time if a profile is on.
    fn op<T>(&self, name: &'static str, work: impl FnOnce() -> candle_core::Result<T>) -> Result<T> {
        self.named_op(name, name, 0.0, work)
    }

    fn named_op<T>(
        &self,
        op: &'static str,
        name: &str,
        flops: f64,
        work: impl FnOnce() -> candle_core::Result<T>,
    ) -> Result<T> {
        self.times.timed(name, flops, work).map_err(|e| Error::Backend { operation: op, reason: e.to_string() })
    }
}

impl Backend for Reference {
    type Tensor = Tensor;
    type Conv = Conv;
    type Norm = Norm;

    fn profile(&self, on: bool) -> Vec<OpTime> {
        self.times.record(on)
    }

    fn pack_conv(&self, layer: ConvLayer) -> Result<Conv> {
        let folded = self.folded.then(|| layer.fold()).transpose()?;
        self.op("pack", || {
            let kernel = (layer.out_channels, layer.in_channels, layer.kernel, layer.kernel);
            let (before, weight, bias, after) = if let Some(folded) = &folded {
                let before = folded.prologue.as_ref().map(|(affine, relu)| Norm::affine(affine).map(|n| (n, *relu)));
                (before, &folded.weight, Some(&folded.bias), None)
            } else {
                let before = layer.before.as_ref().map(|Before { norm, relu }| Norm::written(norm).map(|n| (n, *relu)));
                (before, &layer.weight, layer.bias.as_ref(), layer.after.as_ref())
            };
            Ok(Conv {
                before: before.transpose()?,
                weight: Tensor::from_slice(weight, kernel, &Device::Cpu)?,
                bias: bias.map(|bias| channels(bias)).transpose()?,
                after: after.map(Norm::written).transpose()?,
                stride: layer.stride,
                padding: layer.padding(),
                name: layer.name.clone(),
            })
        })
    }

    fn pack_norm(&self, norm: BatchNorm) -> Result<Norm> {
        self.op("pack", || if self.folded { Norm::affine(&norm.affine()) } else { Norm::written(&norm) })
    }

    fn prepare(&self, photos: &[Pixels<'_>], preparation: &Preparation) -> Result<Tensor> {
        let (height, width) = common_extent(photos, preparation)?.full;
        let shape = (photos.len(), 3, height, width);
        self.times.timed("prepare", 0.0, || {
            let what = || format!("{} inputs of {width}x{height} pixels", photos.len());
            let mut data = memory::filled(photos.len() * 3 * height * width, 0.0, what)?;
            for (to, photo) in data.chunks_exact_mut(3 * height * width).zip(photos) {
                to.copy_from_slice(&Input::prepare(photo, preparation)?.data);
            }
            let made = Tensor::from_vec(data, shape, &Device::Cpu);
            made.map_err(|e| Error::Backend { operation: "prepare", reason: e.to_string() })
        })
    }

    fn upload(&self, data: &[f32], shape: [usize; 4]) -> Result<Tensor> {
        check_upload(data, shape)?;
        self.op("upload", || Tensor::from_slice(data, &shape[..], &Device::Cpu))
    }

    fn download(&self, x: &Tensor) -> Result<Vec<f32>> {
        self.op("download", || x.flatten_all()?.to_vec1())
    }

    fn shape(&self, x: &Tensor) -> [usize; 4] {
        x.dims4().map_or([0; 4], |(n, c, h, w)| [n, c, h, w])
    }

    fn conv(&self, conv: &Conv, x: &Tensor, epilogue: Epilogue<'_, Tensor>) -> Result<Tensor> {
        let flops = {
            let ([n, c, h, w], [o, _, k, _]) = (self.shape(x), self.shape(&conv.weight));
            2.0 * [n, c, o, k, k, h.div_ceil(conv.stride), w.div_ceil(conv.stride)]
                .map(|d| d as f64)
                .iter()
                .product::<f64>()
        };
        self.named_op("conv", &conv.name, flops, || {
            let mut x = match &conv.before {
                Some((norm, relu)) => {
                    let x = norm.apply(x)?;
                    if *relu { x.relu()? } else { x }
                }
                None => x.clone(),
            };
            x = x.conv2d(&conv.weight, conv.padding, conv.stride, 1, 1)?;
            if let Some(bias) = &conv.bias {
                x = x.broadcast_add(bias)?;
            }
            if let Some(norm) = &conv.after {
                x = norm.apply(&x)?;
            }
            if let Some(residual) = epilogue.residual {
                x = (x + residual)?;
            }
            match epilogue.activation {
                Activation::None => Ok(x),
                Activation::Relu => x.relu(),
                Activation::Gelu => x.gelu_erf(),
            }
        })
    }

    fn relu(&self, x: &Tensor) -> Result<Tensor> {
        self.op("relu", || x.relu())
    }

    fn add(&self, a: &Tensor, b: &Tensor) -> Result<Tensor> {
        self.op("add", || a + b)
    }

    fn resize(&self, x: &Tensor, size: impl Into<Extent>) -> Result<Tensor> {
        self.op("resize", || bilinear(x, size))
    }

    fn resize_add(&self, x: &Tensor, base: &Tensor) -> Result<Tensor> {
        let [_, _, h, w] = self.shape(base);
        self.op("resize_add", || bilinear(x, (h, w))? + base)
    }

    fn avg_pool(&self, x: &Tensor, window: Option<Window>) -> Result<Tensor> {
        self.op("avg_pool", || match window {
            Some(Window { kernel, stride, padding }) => x
                .pad_with_zeros(2, padding, padding)?
                .pad_with_zeros(3, padding, padding)?
                .avg_pool2d_with_stride((kernel, kernel), (stride, stride)),
            None => x.mean_keepdim(D::Minus1)?.mean_keepdim(D::Minus2),
        })
    }

    fn max_pool_to(&self, x: &Tensor, norm: &Norm, side: usize) -> Result<Tensor> {
        self.op("max_pool_to", || {
            let x = norm.apply(x)?;
            let pool = |x: &Tensor, dim: usize| {
                let length = x.dim(dim)?;
                let windows = (0..side).map(|i| {
                    let (start, end) = (i * length / side, ((i + 1) * length).div_ceil(side));
                    x.narrow(dim, start, end - start)?.max_keepdim(dim)
                });
                Tensor::cat(&windows.collect::<candle_core::Result<Vec<_>>>()?, dim)
            };
            pool(&pool(&x, 2)?, 3)
        })
    }

    fn ea_norm(&self, x: Tensor, groups: usize) -> Result<Tensor> {
        self.op("ea_norm", || {
            let (n, c, h, w) = x.dims4()?;
            let x = softmax(&x.reshape((n, groups, c / groups, h * w))?, D::Minus1)?;
            x.broadcast_div(&(x.sum_keepdim(2)? + 1e-6)?)?.reshape((n, c, h, w))
        })
    }

    fn cross_attend(&self, x: &Tensor, norm: &Norm, kv: &Tensor) -> Result<Tensor> {
        self.op("cross_attend", || {
            let (n, c, h, w) = x.dims4()?;
            let side = kv.dim(2)?;
            let queries = norm.apply(x)?.reshape((n, c, h * w))?;
            let keys = kv.narrow(1, 0, c)?.reshape((n, c, side * side))?.transpose(1, 2)?.contiguous()?;
            let values = kv.narrow(1, c, c)?.reshape((n, c, side * side))?;
            let scores = (keys.matmul(&queries)? / side as f64)?; // n, side², hw
            let weights = softmax(&scores, 1)?;
            values.contiguous()?.matmul(&weights)?.reshape((n, c, h, w))? + x
        })
    }

    fn concat(&self, parts: &[&Tensor]) -> Result<Tensor> {
        self.op("concat", || Tensor::cat(parts, 1))
    }

    fn argmax(
        &self,
        logits: &Tensor,
        image: usize,
        size: impl Into<Extent>,
        ids: IdsMut<'_>,
        confidence: Option<Confidence<'_>>,
    ) -> Result<()> {
        self.op("argmax", || {
            let full = bilinear(&logits.narrow(0, image, 1)?, size)?;
            let best: Vec<u32> = full.argmax(1)?.flatten_all()?.to_vec1()?;
            match ids {
                IdsMut::U8(ids) => ids.iter_mut().zip(&best).for_each(|(id, &best)| *id = best as u8),
                IdsMut::U16(ids) => ids.iter_mut().zip(&best).for_each(|(id, &best)| *id = best as u16),
            }
            if let Some(confidence) = confidence {
                let cooled = (full / f64::from(confidence.temperature))?;
                let top: Vec<f32> = softmax(&cooled, 1)?.max(1)?.flatten_all()?.to_vec1()?;
                confidence.values.copy_from_slice(&top);
            }
            Ok(())
        })
    }

    fn upsample(&self, logits: &Tensor, image: usize, size: impl Into<Extent>, out: &mut [f32]) -> Result<()> {
        let full = self.op("upsample", || bilinear(&logits.narrow(0, image, 1)?, size))?;
        out.copy_from_slice(&self.download(&full)?);
        Ok(())
    }
}

impl Areas for Reference {
    fn crop(&self, x: &Tensor, area: Area) -> Result<Tensor> {
        area.check("crop", self.shape(x))?;
        self.op("crop", || x.narrow(2, area.top, area.height)?.narrow(3, area.left, area.width)?.contiguous())
    }

    fn paste(&self, x: Tensor, patch: &Tensor, at: (usize, usize)) -> Result<Tensor> {
        let [n, c, _, _] = self.shape(&x);
        let Area { top, left, height, width } = place(self.shape(&x), self.shape(patch), at)?;
        self.op("paste", || x.slice_assign(&[0..n, 0..c, top..top + height, left..left + width], patch))
    }
}

/// `[c]` → `[1, c, 1, 1]`.
fn channels(values: &[f32]) -> candle_core::Result<Tensor> {
    Tensor::from_slice(values, (1, values.len(), 1, 1), &Device::Cpu)
}

/// Bilinear interpolation is linear and separable: multiply by one matrix from the left and by one from the right.
fn bilinear(x: &Tensor, size: impl Into<Extent>) -> candle_core::Result<Tensor> {
    let Extent { full: (height, width), kept } = size.into();
    let (n, c, h, w) = x.dims4()?;
    let rows = interpolation(h, height)?.broadcast_left((n, c))?.contiguous()?;
    let columns = interpolation(w, width)?.t()?.broadcast_left((n, c))?.contiguous()?;
    let full = rows.matmul(&x.contiguous()?)?.matmul(&columns)?;
    full.narrow(2, 0, kept.0)?.narrow(3, 0, kept.1)?.contiguous()
}

/// `[to, from]`: the two weights of each output, with half-pixel centres and clamped edges.
fn interpolation(from: usize, to: usize) -> candle_core::Result<Tensor> {
    let ratio = from as f32 / to as f32;
    let mut weights = vec![0f32; to * from];
    for (i, row) in weights.chunks_exact_mut(from).enumerate() {
        let source = (ratio * (i as f32 + 0.5) - 0.5).max(0.0);
        let near = (source as usize).min(from - 1);
        let far = (near + 1).min(from - 1);
        row[near] += 1.0 - (source - near as f32);
        row[far] += source - near as f32;
    }
    Tensor::from_vec(weights, (to, from), &Device::Cpu)
}
