//! Where it runs: the operations that the network is made of, and the contract that every device keeps.
//!
//! Tensors are `[n, c, h, w]` in meaning; how a backend lays them out is its own affair. Every operation leaves its inputs as they
//! were, except where it takes them by value. Results are within 1e-4 relative error of [`Reference`] (max |a-b| over max |b|).

mod cpu;
mod reference;

pub use cpu::{Cpu, Maps};
pub use reference::Reference;

use crate::error::Result;
use crate::pixels::IdsMut;
use crate::weights::fold::{BatchNorm, ConvLayer};

/// What a convolution does to each output before it stores it: `activation(conv + bias + residual)`.
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

/// An average pool's window; the zero border counts, so it always divides by `kernel * kernel`.
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
#[derive(Clone, Debug)]
pub struct OpTime {
    /// The layer's name, or the operation's where it has no parameters.
    pub name: String,
    /// Milliseconds.
    pub milliseconds: f64,
    /// Floating-point operations, two for a multiply-add; 0 where it only moves memory.
    pub flops: f64,
}

/// A device that the network runs on.
pub trait Backend: Send + Sync {
    /// A feature map `[n, c, h, w]` on the device. Cloning it shares it.
    type Tensor: Clone + Send + Sync;
    /// A convolution whose parameters are on the device.
    type Conv: Send + Sync;
    /// A norm whose parameters are on the device.
    type Norm: Send + Sync;

    /// Runs `work` with this backend's threads.
    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        work()
    }

    /// Begins (`true`) or ends to record each operation's time; ending gives what was recorded.
    fn profile(&self, on: bool) -> Vec<OpTime>;

    /// The most floating-point operations a second that this device can do, measured; `None` where nobody knows.
    fn peak_flops(&self) -> Option<f64> {
        None
    }

    /// Takes a convolution's parameters to the device.
    fn pack_conv(&self, layer: ConvLayer) -> Result<Self::Conv>;

    /// Takes a norm's parameters to the device.
    fn pack_norm(&self, norm: BatchNorm) -> Result<Self::Norm>;

    /// `[n, 3, h, w]` contiguous f32 → device.
    fn upload(&self, data: &[f32], shape: [usize; 4]) -> Result<Self::Tensor>;

    /// Device → contiguous f32 `[n, c, h, w]`.
    fn download(&self, x: &Self::Tensor) -> Result<Vec<f32>>;

    /// `[n, c, h, w]`.
    fn shape(&self, x: &Self::Tensor) -> [usize; 4];

    /// The convolution with its norms, its zero padding of half a window, and the epilogue.
    fn conv(&self, conv: &Self::Conv, x: &Self::Tensor, epilogue: Epilogue<'_, Self::Tensor>) -> Result<Self::Tensor>;

    /// `max(x, 0)`.
    fn relu(&self, x: &Self::Tensor) -> Result<Self::Tensor>;

    /// `a + b`, of one shape.
    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor>;

    /// `x` at `height` by `width`: bilinear, half-pixel centres, edges clamped.
    fn resize(&self, x: &Self::Tensor, height: usize, width: usize) -> Result<Self::Tensor>;

    /// `x` resized to the size of `base`, plus `base`.
    fn resize_add(&self, x: &Self::Tensor, base: &Self::Tensor) -> Result<Self::Tensor>;

    /// Average pool; `None` is one window over the whole map.
    fn avg_pool(&self, x: &Self::Tensor, window: Option<Window>) -> Result<Self::Tensor>;

    /// `norm(x)`, then adaptive max pool to `side` by `side`; window `i` over length `L` is `floor(i*L/side) .. ceil((i+1)*L/side)`.
    fn max_pool_to(&self, x: &Self::Tensor, norm: &Self::Norm, side: usize) -> Result<Self::Tensor>;

    /// Grouped double normalization: softmax over the pixels of each channel, then every pixel divided by its sum over the
    /// channels of its group (plus 1e-6).
    fn ea_norm(&self, x: Self::Tensor, groups: usize) -> Result<Self::Tensor>;

    /// Cross-resolution attention with its residual: `x + softmax(norm(x) · keys / side) · values`, keys `[side², c]` and values
    /// `[side², c]` being the two halves of `kv` `[n, 2c, side, side]`.
    fn cross_attend(&self, x: &Self::Tensor, norm: &Self::Norm, kv: &Self::Tensor) -> Result<Self::Tensor>;

    /// Channels side by side.
    fn concat(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor>;

    /// For image `image`: bilinear logits at `size` (height, width), the class of the greatest (the lowest on a tie) into `ids`, and
    /// its softmax probability into `confidence`.
    fn argmax(
        &self,
        logits: &Self::Tensor,
        image: usize,
        size: (usize, usize),
        ids: IdsMut<'_>,
        confidence: Option<&mut [f32]>,
    ) -> Result<()>;

    /// For image `image`: bilinear logits at `size` (height, width) into `out`, `[classes, height, width]`.
    fn upsample(&self, logits: &Self::Tensor, image: usize, size: (usize, usize), out: &mut [f32]) -> Result<()>;
}
