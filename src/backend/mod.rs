//! Where it runs: the operations that the network is made of, and the contract that every device keeps.
//!
//! Tensors are `[n, c, h, w]` in meaning; how a backend lays them out is its own affair. Every operation leaves its inputs as they
//! were, except where it takes them by value. Results are within 1e-4 relative error of [`Reference`] (max |a-b| over max |b|).

mod cpu;
mod cuda;
mod gpu;
#[cfg(target_os = "macos")]
mod metal;
mod reference;
mod times;

pub use cpu::{Algorithm, Cpu, Maps};
pub use cuda::cuda;
pub(crate) use cuda::{cuda_numbers, has_cuda};
pub use gpu::Gpu;
pub(crate) use gpu::{Fault, Marks, Staging, Table};
#[cfg(target_os = "macos")]
pub use metal::metal;
pub use reference::Reference;

use crate::error::{Error, Result};
use crate::pixels::{Extent, IdsMut, Pixels, Preparation};
use crate::weights::fold::{BatchNorm, ConvLayer};

/// What a convolution does to each output before it stores it: `activation(conv + bias + residual)`.
///
/// ```
/// use rtformer::backend::{Activation, Epilogue};
///
/// let around = vec![1.0_f32]; // whatever the backend's tensor is
/// let epilogue = Epilogue { activation: Activation::Relu, ..Epilogue::residual(&around) };
/// assert_eq!(epilogue.residual, Some(&around));
/// assert!(Epilogue::<Vec<f32>>::activate(Activation::Gelu).residual.is_none());
/// ```
#[derive(Debug)]
pub struct Epilogue<'a, T> {
    /// Added to the output; of the output's shape.
    pub residual: Option<&'a T>,
    /// Applied last.
    pub activation: Activation,
}

impl<T> Default for Epilogue<'_, T> {
    fn default() -> Self {
        Self { residual: None, activation: Activation::None }
    }
}

impl<'a, T> Epilogue<'a, T> {
    /// Only an activation.
    pub fn activate(activation: Activation) -> Self {
        Self { residual: None, activation }
    }

    /// Only a residual.
    pub fn residual(residual: &'a T) -> Self {
        Self { residual: Some(residual), activation: Activation::None }
    }
}

pub use rtformer_kernels::conv::Activation;
pub use rtformer_kernels::gpu::GpuElement;
pub use rtformer_kernels::{Confidence, Element, Isa};

/// An average pool's window; the zero border counts, so it always divides by `kernel * kernel`.
///
/// ```
/// # use rtformer::backend::{Backend, Reference, Window};
/// # let b = Reference::folded();
/// let x = b.upload(&[1.0; 16], [1, 1, 4, 4])?;
/// let pooled = b.avg_pool(&x, Some(Window { kernel: 3, stride: 2, padding: 1 }))?;
/// assert_eq!(b.shape(&pooled), [1, 1, 2, 2]);
/// assert!((b.download(&pooled)?[0] - 4.0 / 9.0).abs() < 1e-6, "five of the corner's nine are zeros of the border");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the window.
    pub kernel: usize,
    /// Step of the window.
    pub stride: usize,
    /// Zeros around the input.
    pub padding: usize,
}

/// One operation's time, for profiles.
///
/// ```
/// # use rtformer::backend::{Backend, Reference};
/// let b = Reference::folded();
/// b.profile(true);
/// let x = b.upload(&[-1.0], [1, 1, 1, 1])?;
/// b.relu(&x)?;
/// for time in b.profile(false) {
///     assert!(["upload", "relu"].contains(&time.name.as_str()));
///     assert!(time.milliseconds >= 0.0 && time.flops == 0.0);
/// }
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OpTime {
    /// The layer's name, or the operation's where it has no parameters.
    pub name: String,
    /// Milliseconds.
    pub milliseconds: f64,
    /// Floating-point operations, two for a multiply-add; 0 where it only moves memory.
    pub flops: f64,
    /// Bytes that have to be read and written at the least; 0 where nobody counts them, as on the CPU.
    pub bytes: f64,
}

/// A device that the network runs on.
///
/// ```
/// use rtformer::backend::{Backend, Cpu, Isa, Reference};
///
/// fn there_and_back<B: Backend>(b: &B) -> rtformer::Result<Vec<f32>> {
///     let photo = b.upload(&[0.25; 3 * 2 * 2], [1, 3, 2, 2])?;
///     assert_eq!(b.shape(&photo), [1, 3, 2, 2]);
///     b.download(&photo)
/// }
/// assert_eq!(there_and_back(&Reference::folded())?, there_and_back(&Cpu::new(Isa::best(), 1)?)?);
/// # Ok::<(), rtformer::Error>(())
/// ```
pub trait Backend: Send + Sync {
    /// A feature map `[n, c, h, w]` on the device. Cloning it shares it.
    type Tensor: Clone + Send + Sync;
    /// A convolution whose parameters are on the device.
    type Conv: Send + Sync;
    /// A norm whose parameters are on the device.
    type Norm: Send + Sync;

    /// Runs `work` with this backend's threads.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// assert_eq!(Reference::folded().run(|| 1 + 1), 2);
    /// ```
    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    /// Begins (`true`) or ends to record each operation's time; ending gives what was recorded.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// assert!(b.profile(true).is_empty(), "nothing was recorded so far");
    /// b.upload(&[0.0], [1, 1, 1, 1])?;
    /// assert_eq!(b.profile(false).len(), 1);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn profile(&self, on: bool) -> Vec<OpTime>;

    /// The most floating-point operations a second that this device can do, measured; `None` where nobody knows.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// assert_eq!(Reference::folded().peak_flops(), None);
    /// ```
    fn peak_flops(&self) -> Option<f64> {
        None
    }

    /// Takes a convolution's parameters to the device.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # use rtformer::weights::fold::ConvLayer;
    /// # let b = Reference::folded();
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
    /// let conv = b.pack_conv(layer)?; // once, when the network is loaded
    /// let doubled = b.conv(&conv, &b.upload(&[3.0], [1, 1, 1, 1])?, Default::default())?;
    /// assert_eq!(b.download(&doubled)?, [6.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn pack_conv(&self, layer: ConvLayer) -> Result<Self::Conv>;

    /// Takes a norm's parameters to the device.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # use rtformer::weights::fold::BatchNorm;
    /// # let b = Reference::folded();
    /// let (weight, bias, mean, variance) = (vec![2.0], vec![1.0], vec![3.0], vec![4.0]);
    /// let norm = b.pack_norm(BatchNorm { weight, bias, mean, variance, epsilon: 0.0 })?;
    /// let pooled = b.max_pool_to(&b.upload(&[5.0], [1, 1, 1, 1])?, &norm, 1)?;
    /// assert_eq!(b.download(&pooled)?, [3.0]); // (5 - 3) / sqrt(4) * 2 + 1
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn pack_norm(&self, norm: BatchNorm) -> Result<Self::Norm>;

    /// Photos of one size → the network's input `[n, 3, h, w]` on the device: resized, normalised and padded as `preparation` says.
    ///
    /// The result equals [`upload`](Self::upload) of each photo's [`Input`](crate::pixels::Input) bit for bit (on a GPU in f16,
    /// rounded).
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # use rtformer::pixels::{Normalization, Preparation};
    /// # let b = Reference::folded();
    /// let preparation = Preparation::new(Normalization { mean: [0.5; 3], std: [0.5; 3] });
    /// let photo = image::RgbImage::from_pixel(2, 1, image::Rgb([255, 0, 255]));
    /// let input = b.prepare(&[(&photo).into()], &Preparation { pad_multiple: 2, ..preparation })?;
    /// assert_eq!(b.shape(&input), [1, 3, 2, 2]);
    /// assert_eq!(b.download(&input)?, [1.0, 1.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] for no photo, or for photos of different sizes; otherwise as
    /// [`Input::prepare`](crate::pixels::Input::prepare).
    fn prepare(&self, photos: &[Pixels<'_>], preparation: &Preparation) -> Result<Self::Tensor>;

    /// `[n, c, h, w]` contiguous f32 → device.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let x = b.upload(&[0.5; 3 * 4 * 8], [1, 3, 4, 8])?;
    /// assert_eq!(b.shape(&x), [1, 3, 4, 8]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] unless `data` is as long as the shape says, and not empty.
    fn upload(&self, data: &[f32], shape: [usize; 4]) -> Result<Self::Tensor>;

    /// Device → contiguous f32 `[n, c, h, w]`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let photo = b.upload(&[0.25, 0.5, 0.75], [1, 3, 1, 1])?;
    /// assert_eq!(b.download(&photo)?, [0.25, 0.5, 0.75]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn download(&self, x: &Self::Tensor) -> Result<Vec<f32>>;

    /// `[n, c, h, w]`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let two = b.upload(&[0.0; 2 * 3 * 4], [2, 3, 2, 2])?;
    /// assert_eq!(b.shape(&two), [2, 3, 2, 2]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn shape(&self, x: &Self::Tensor) -> [usize; 4];

    /// The convolution with its norms, its zero padding of half a window, and the epilogue.
    ///
    /// ```
    /// # use rtformer::backend::{Activation, Backend, Epilogue, Reference};
    /// # use rtformer::weights::fold::ConvLayer;
    /// # let b = Reference::folded();
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
    /// let conv = b.pack_conv(layer)?; // one 1x1 tap of 2
    /// let x = b.upload(&[1.0, -3.0], [1, 1, 1, 2])?;
    /// let y = b.conv(&conv, &x, Epilogue::activate(Activation::Relu))?;
    /// assert_eq!(b.download(&y)?, [2.0, 0.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn conv(&self, conv: &Self::Conv, x: &Self::Tensor, epilogue: Epilogue<'_, Self::Tensor>) -> Result<Self::Tensor>;

    /// `max(x, 0)`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let x = b.upload(&[1.0, -3.0], [1, 1, 1, 2])?;
    /// assert_eq!(b.download(&b.relu(&x)?)?, [1.0, 0.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn relu(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// `a + b`, of one shape.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let x = b.upload(&[1.0, -3.0], [1, 1, 1, 2])?;
    /// assert_eq!(b.download(&b.add(&x, &x)?)?, [2.0, -6.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// `x` at `size` (height, width): bilinear, half-pixel centres, edges clamped. Of an [`Extent`], `x` is scaled to the full size, and
    /// the result is the kept part.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let x = b.upload(&[0.0, 1.0], [1, 1, 1, 2])?;
    /// assert_eq!(b.download(&b.resize(&x, (1, 4))?)?, [0.0, 0.25, 0.75, 1.0]);
    /// let part = rtformer::pixels::Extent { full: (1, 4), kept: (1, 3) };
    /// assert_eq!(b.download(&b.resize(&x, part)?)?, [0.0, 0.25, 0.75]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn resize(&self, x: &Self::Tensor, size: impl Into<Extent>) -> Result<Self::Tensor>;

    /// `x` resized to the size of `base`, plus `base`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let (x, base) = (b.upload(&[0.0, 1.0], [1, 1, 1, 2])?, b.upload(&[10.0; 4], [1, 1, 1, 4])?);
    /// assert_eq!(b.download(&b.resize_add(&x, &base)?)?, [10.0, 10.25, 10.75, 11.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn resize_add(&self, x: &Self::Tensor, base: &Self::Tensor) -> Result<Self::Tensor>;

    /// Average pool; `None` is one window over the whole map.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let x = b.upload(&[1.0, 2.0, 3.0, 6.0], [1, 1, 2, 2])?;
    /// assert_eq!(b.download(&b.avg_pool(&x, None)?)?, [3.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn avg_pool(&self, x: &Self::Tensor, window: Option<Window>) -> Result<Self::Tensor>;

    /// `norm(x)`, then adaptive max pool to `side` by `side`; window `i` over length `L` is `floor(i*L/side) .. ceil((i+1)*L/side)`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # use rtformer::weights::fold::BatchNorm;
    /// # let b = Reference::folded();
    /// let (weight, bias, mean, variance) = (vec![-1.0], vec![0.0], vec![0.0], vec![1.0]);
    /// let norm = b.pack_norm(BatchNorm { weight, bias, mean, variance, epsilon: 0.0 })?;
    /// let x = b.upload(&[1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2])?;
    /// assert_eq!(b.download(&b.max_pool_to(&x, &norm, 1)?)?, [-1.0], "a negative scale makes the least the greatest");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn max_pool_to(&self, x: &Self::Tensor, norm: &Self::Norm, side: usize) -> Result<Self::Tensor>;

    /// Grouped double normalization: softmax over the pixels of each channel, then every pixel divided by its sum over the
    /// channels of its group (plus 1e-6).
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let logits = b.upload(&[0.0; 4], [1, 2, 1, 2])?; // two channels of two pixels, one group
    /// let weights = b.download(&b.ea_norm(logits, 1)?)?;
    /// assert!(weights.iter().all(|w| (w - 0.5).abs() < 1e-5));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn ea_norm(&self, x: Self::Tensor, groups: usize) -> Result<Self::Tensor>;

    /// Cross-resolution attention with its residual: `x + softmax(norm(x) · keys / side) · values`, keys `[side², c]` and values
    /// `[side², c]` being the two halves of `kv` `[n, 2c, side, side]`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # use rtformer::weights::fold::BatchNorm;
    /// # let b = Reference::folded();
    /// # let (weight, bias, mean, variance) = (vec![1.0], vec![0.0], vec![0.0], vec![1.0]);
    /// # let norm = b.pack_norm(BatchNorm { weight, bias, mean, variance, epsilon: 0.0 })?;
    /// let x = b.upload(&[1.0, 2.0], [1, 1, 1, 2])?;
    /// let kv = b.upload(&[7.0, 10.0], [1, 2, 1, 1])?; // one key, 7, and its value, 10
    /// assert_eq!(b.download(&b.cross_attend(&x, &norm, &kv)?)?, [11.0, 12.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn cross_attend(&self, x: &Self::Tensor, norm: &Self::Norm, kv: &Self::Tensor) -> Result<Self::Tensor>;

    /// Channels side by side.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let (one, two) = (b.upload(&[1.0], [1, 1, 1, 1])?, b.upload(&[2.0], [1, 1, 1, 1])?);
    /// let both = b.concat(&[&one, &two])?;
    /// assert_eq!((b.shape(&both), b.download(&both)?), ([1, 2, 1, 1], vec![1.0, 2.0]));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn concat(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor>;

    /// For image `image`: bilinear logits at `size` (height, width), the class of the greatest (the lowest on a tie) into `ids`, and
    /// the softmax probability of its logits divided by the temperature into `confidence`. Of an [`Extent`], logits are scaled to the
    /// full size, and the kept part is read out.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # use rtformer::pixels::{IdsMut, Mask};
    /// # let b = Reference::folded();
    /// let logits = b.upload(&[0.0, 1.0], [1, 2, 1, 1])?; // two classes, one pixel
    /// let mut mask = Mask::new(2, 2, 2);
    /// b.argmax(&logits, 0, (2, 2), mask.ids_mut(), None)?;
    /// assert_eq!(mask.counts(), [0, 4]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn argmax(
        &self,
        logits: &Self::Tensor,
        image: usize,
        size: impl Into<Extent>,
        ids: IdsMut<'_>,
        confidence: Option<Confidence<'_>>,
    ) -> Result<()>;

    /// For image `image`: bilinear logits at `size` (height, width) into `out`, `[classes, height, width]`. Of an [`Extent`], logits are
    /// scaled to the full size, and `out` is the kept part.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let logits = b.upload(&[0.0, 1.0], [1, 1, 1, 2])?;
    /// let mut full = [f32::NAN; 4];
    /// b.upsample(&logits, 0, (1, 4), &mut full)?;
    /// assert_eq!(full, [0.0, 0.25, 0.75, 1.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn upsample(&self, logits: &Self::Tensor, image: usize, size: impl Into<Extent>, out: &mut [f32]) -> Result<()>;

    /// Gives memory that no tensor uses back to the system. By default a backend keeps none.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// Reference::folded().release();
    /// ```
    fn release(&self) {}
}

/// What photos that are prepared together become.
fn common_extent(photos: &[Pixels<'_>], preparation: &Preparation) -> Result<Extent> {
    let size = |photo: &Pixels<'_>| (photo.width(), photo.height());
    let Some((width, height)) = photos.first().map(size) else {
        return Err(Error::Input("no photo to prepare; expected at least one".into()));
    };
    if let Some((w, h)) = photos.iter().map(size).find(|other| *other != (width, height)) {
        return Err(Error::Input(format!("photos of {width}x{height} and {w}x{h} pixels cannot be prepared together")));
    }
    preparation.extent(width, height)
}

/// `Ok` if `data` is as long as the shape says, and not empty.
fn check_upload(data: &[f32], [n, c, h, w]: [usize; 4]) -> Result<()> {
    let want = [c, h, w].into_iter().try_fold(n, usize::checked_mul);
    if want.is_some_and(|want| want > 0 && data.len() == want) {
        return Ok(());
    }
    Err(Error::Input(format!("expected as many floats as {n}x{c}x{h}x{w} has, at least one; got {}", data.len())))
}
