//! The devices that run the network: the [`Backend`] trait with the network's operations, and its implementations.
//!
//! Tensors have the logical shape `[n, c, h, w]`; each backend chooses its memory layout. Operations do not change their
//! inputs, unless they take them by value. Results are within 1e-4 relative error of [`Reference`] (max |a-b| over max |b|).

mod areas;
mod cpu;
mod cuda;
mod gpu;
#[cfg(target_os = "macos")]
mod metal;
mod reference;
mod times;

pub use areas::{Area, Areas};
pub use cpu::{Algorithm, Cpu, Maps, Threads};
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

/// What a convolution applies to each output before storing it: `activation(conv + bias + residual)`.
///
/// ```
/// use rtformer::backend::{Activation, Epilogue};
///
/// let around = vec![1.0_f32]; // stands for a backend's tensor
/// let epilogue = Epilogue { activation: Activation::Relu, ..Epilogue::residual(&around) };
/// assert_eq!(epilogue.residual, Some(&around));
/// assert!(Epilogue::<Vec<f32>>::activate(Activation::Gelu).residual.is_none());
/// ```
#[derive(Debug)]
pub struct Epilogue<'a, T> {
    /// Added to the output; has the output's shape.
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
pub use rtformer_kernels::{Caches, Confidence, Element, Isa};

/// The window of an average pool. Zeros of the padding count: the sum is always divided by `kernel * kernel`.
///
/// ```
/// # use rtformer::backend::{Backend, Reference, Window};
/// # let b = Reference::folded();
/// let x = b.upload(&[1.0; 16], [1, 1, 4, 4])?;
/// let pooled = b.avg_pool(&x, Some(Window { kernel: 3, stride: 2, padding: 1 }))?;
/// assert_eq!(b.shape(&pooled), [1, 1, 2, 2]);
/// assert!((b.download(&pooled)?[0] - 4.0 / 9.0).abs() < 1e-6, "five of the nine values in the corner are padding");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Side of the window in pixels.
    pub kernel: usize,
    /// Step of the window in pixels.
    pub stride: usize,
    /// Pixels of zeros on each side of the input.
    pub padding: usize,
}

/// The time of one operation in a profile.
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
    /// The layer's name, or the operation's name if it has no parameters.
    pub name: String,
    /// Duration in milliseconds.
    pub milliseconds: f64,
    /// Floating-point operations; a multiply-add counts as two. 0 if the operation only moves memory.
    pub flops: f64,
    /// The minimum number of bytes to read and write; 0 if not counted, as on the CPU.
    pub bytes: f64,
}

/// A device that runs the network.
///
/// Besides the errors that each method lists, every method fails with [`Error::Backend`] if shapes do not fit together, with
/// [`Error::OutOfMemory`] or [`Error::DeviceMemory`] if memory runs out, and with [`Error::Device`] if the device fails.
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
    /// A convolution with its parameters on the device.
    type Conv: Send + Sync;
    /// A norm with its parameters on the device.
    type Norm: Send + Sync;

    /// Runs `work` on this backend's threads.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// assert_eq!(Reference::folded().run(|| 1 + 1), 2);
    /// ```
    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    /// Checks that this process can run the backend, and starts its threads if it was forked from the process that made the backend.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// assert!(Reference::folded().ready().is_ok());
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] if the threads cannot be started.
    fn ready(&self) -> Result<()> {
        Ok(())
    }

    /// Waits until the layers that were packed so far can be used, because a backend may pack them on other threads meanwhile. Call it
    /// after loading a network, in the process that loaded it.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Cpu, Isa};
    /// assert!(Cpu::new(Isa::best(), 1)?.finish_packing().is_ok());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Backend`] for a layer that could not be packed.
    fn finish_packing(&self) -> Result<()> {
        Ok(())
    }

    /// Starts (`true`) or stops recording the time of each operation; returns what was recorded so far.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// assert!(b.profile(true).is_empty(), "nothing recorded so far");
    /// b.upload(&[0.0], [1, 1, 1, 1])?;
    /// assert_eq!(b.profile(false).len(), 1);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn profile(&self, on: bool) -> Vec<OpTime>;

    /// The measured peak of this device in floating-point operations per second; `None` if unknown.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// assert_eq!(Reference::folded().peak_flops(), None);
    /// ```
    fn peak_flops(&self) -> Option<f64> {
        None
    }

    /// Copies the parameters of a convolution to the device.
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

    /// Whether [`pack_conv`](Self::pack_conv)'s convolutions multiply in bf16, whose 8 bits change the logits of some networks too much.
    /// A backend that returns `true` also implements [`pack_conv_exact`](Self::pack_conv_exact). f16 has 11 bits and needs neither.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// assert!(!Reference::folded().rounds_products());
    /// ```
    fn rounds_products(&self) -> bool {
        false
    }

    /// As [`pack_conv`](Self::pack_conv), but the convolution multiplies in f32 on a backend that
    /// [rounds products](Self::rounds_products).
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Cpu, Isa};
    /// # use rtformer::weights::fold::ConvLayer;
    /// # let layer = ConvLayer {
    /// #     name: "near one".into(),
    /// #     in_channels: 16,
    /// #     out_channels: 1,
    /// #     kernel: 1,
    /// #     stride: 1,
    /// #     reads_photo: false,
    /// #     weight: vec![1.001 / 16.0; 16],
    /// #     bias: None,
    /// #     before: None,
    /// #     after: None,
    /// # };
    /// let b = Cpu::new(Isa::Scalar, 1)?.bf16()?;
    /// let (rounded, exact) = (b.pack_conv(layer.clone())?, b.pack_conv_exact(layer)?); // 16 weights with a sum of 1.001
    /// let ones = b.upload(&[1.0; 16], [1, 16, 1, 1])?;
    /// let sum = |conv| b.download(&b.conv(conv, &ones, Default::default())?);
    /// assert_eq!(sum(&rounded)?, [1.0], "bf16 has 8 bits");
    /// assert!((sum(&exact)?[0] - 1.001).abs() < 1e-6);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn pack_conv_exact(&self, layer: ConvLayer) -> Result<Self::Conv> {
        self.pack_conv(layer)
    }

    /// Copies the parameters of a norm to the device.
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

    /// `n` photos of one size → the network's input `[n, 3, h, w]`, resized, normalised and padded as `preparation` says.
    ///
    /// The result equals [`upload`](Self::upload) of each photo's [`Input`](crate::pixels::Input) bit for bit (rounded to f16
    /// on a GPU in f16).
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
    /// [`Error::Input`] if there is no photo or if the photos differ in size; otherwise as
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
    /// [`Error::Input`] if `data` is empty or does not have the length of the shape.
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

    /// The shape `[n, c, h, w]`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let two = b.upload(&[0.0; 2 * 3 * 4], [2, 3, 2, 2])?;
    /// assert_eq!(b.shape(&two), [2, 3, 2, 2]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn shape(&self, x: &Self::Tensor) -> [usize; 4];

    /// Convolution with its norms, zero padding of half a window, and the epilogue: `[n, in, h, w]` →
    /// `[n, out, ceil(h / stride), ceil(w / stride)]`.
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

    /// `a + b`, both of the same shape.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let x = b.upload(&[1.0, -3.0], [1, 1, 1, 2])?;
    /// assert_eq!(b.download(&b.add(&x, &x)?)?, [2.0, -6.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// Resizes `x` to `size` (height, width): bilinear, half-pixel centres, edges clamped. For an [`Extent`], scales `x` to the
    /// full size and returns the kept part.
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

    /// Resizes `x` to the size of `base` and adds `base`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let (x, base) = (b.upload(&[0.0, 1.0], [1, 1, 1, 2])?, b.upload(&[10.0; 4], [1, 1, 1, 4])?);
    /// assert_eq!(b.download(&b.resize_add(&x, &base)?)?, [10.0, 10.25, 10.75, 11.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn resize_add(&self, x: &Self::Tensor, base: &Self::Tensor) -> Result<Self::Tensor>;

    /// Average pool. `None` averages the whole map: `[n, c, h, w]` → `[n, c, 1, 1]`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # let b = Reference::folded();
    /// let x = b.upload(&[1.0, 2.0, 3.0, 6.0], [1, 1, 2, 2])?;
    /// assert_eq!(b.download(&b.avg_pool(&x, None)?)?, [3.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn avg_pool(&self, x: &Self::Tensor, window: Option<Window>) -> Result<Self::Tensor>;

    /// `norm(x)`, then an adaptive max pool to `[n, c, side, side]`. Window `i` over length `L` is
    /// `floor(i*L/side) .. ceil((i+1)*L/side)`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # use rtformer::weights::fold::BatchNorm;
    /// # let b = Reference::folded();
    /// let (weight, bias, mean, variance) = (vec![-1.0], vec![0.0], vec![0.0], vec![1.0]);
    /// let norm = b.pack_norm(BatchNorm { weight, bias, mean, variance, epsilon: 0.0 })?;
    /// let x = b.upload(&[1.0, 2.0, 3.0, 4.0], [1, 1, 2, 2])?;
    /// assert_eq!(b.download(&b.max_pool_to(&x, &norm, 1)?)?, [-1.0], "with a negative scale, the smallest value wins");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn max_pool_to(&self, x: &Self::Tensor, norm: &Self::Norm, side: usize) -> Result<Self::Tensor>;

    /// Grouped double normalization: softmax over the pixels of each channel, then division of every pixel by its sum over the
    /// channels of its group plus 1e-6.
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

    /// Cross-resolution attention with its residual: `x + softmax(norm(x) · keys / side) · values`. The keys `[side², c]` and the
    /// values `[side², c]` are the two halves of `kv` `[n, 2c, side, side]`.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// # use rtformer::weights::fold::BatchNorm;
    /// # let b = Reference::folded();
    /// # let (weight, bias, mean, variance) = (vec![1.0], vec![0.0], vec![0.0], vec![1.0]);
    /// # let norm = b.pack_norm(BatchNorm { weight, bias, mean, variance, epsilon: 0.0 })?;
    /// let x = b.upload(&[1.0, 2.0], [1, 1, 1, 2])?;
    /// let kv = b.upload(&[7.0, 10.0], [1, 2, 1, 1])?; // one key (7) and its value (10)
    /// assert_eq!(b.download(&b.cross_attend(&x, &norm, &kv)?)?, [11.0, 12.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    fn cross_attend(&self, x: &Self::Tensor, norm: &Self::Norm, kv: &Self::Tensor) -> Result<Self::Tensor>;

    /// Concatenates channels: `[n, c1, h, w]`, `[n, c2, h, w]`, … → `[n, c1 + c2 + …, h, w]`.
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

    /// Resizes the logits of image `image` to `size` (height, width), bilinear. Writes the class with the largest logit to `ids`
    /// (the lowest class on a tie), and its softmax probability to `confidence`, from logits divided by the temperature. For an
    /// [`Extent`], scales the logits to the full size and writes the kept part.
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

    /// Resizes the logits of image `image` to `size` (height, width), bilinear, and writes them to `out`
    /// `[classes, height, width]`. For an [`Extent`], scales the logits to the full size and writes the kept part.
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

    /// Returns memory that no tensor uses to the system. The default does nothing.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Reference};
    /// Reference::folded().release();
    /// ```
    fn release(&self) {}
}

/// The input size of photos that are prepared together.
fn common_extent(photos: &[Pixels<'_>], preparation: &Preparation) -> Result<Extent> {
    let size = |photo: &Pixels<'_>| (photo.width(), photo.height());
    let Some((width, height)) = photos.first().map(size) else {
        return Err(Error::Input("expected at least one photo to prepare, got none".into()));
    };
    if let Some((w, h)) = photos.iter().map(size).find(|other| *other != (width, height)) {
        return Err(Error::Input(format!("expected photos of one size, got {width}x{height} and {w}x{h} pixels")));
    }
    preparation.extent(width, height)
}

/// `Ok` if `data` has the length of the shape and is not empty.
fn check_upload(data: &[f32], [n, c, h, w]: [usize; 4]) -> Result<()> {
    let want = [c, h, w].into_iter().try_fold(n, usize::checked_mul);
    if want.is_some_and(|want| want > 0 && data.len() == want) {
        return Ok(());
    }
    Err(Error::Input(format!("expected as many floats as {n}x{c}x{h}x{w} has, at least one; got {}", data.len())))
}
