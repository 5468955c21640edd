//! The launch of a convolution on a GPU: an implicit GEMM of output pixels by output channels.

use super::{Activation, ConvShape};
use crate::ShapeError;
use crate::gpu::{
    CHANNEL_STRIDE, Capabilities, Device, GpuElement, GpuError, GpuMaps, GpuShape, GpuVector, Launch, MatrixUnits,
};

const OP: &str = "conv";

params! {
    /// Parameters of `conv` and its twins.
    pub struct ConvParams {
        n: u32, h: u32, w: u32, in_c: u32, in_cs: u32, out_h: u32, out_w: u32, out_c: u32, out_cs: u32, window: u32, stride: u32,
        flags: u32,
    }
}

/// The prologue is enabled.
pub const PROLOGUE: u32 = 1;
/// The prologue ends with a ReLU.
pub const PROLOGUE_RELU: u32 = 1 << 1;
/// The residual is present.
pub const RESIDUAL: u32 = 1 << 2;
/// Shift of the activation: 0 for none, 1 for ReLU, 2 for GELU.
pub const ACTIVATION: u32 = 3;

/// A kernel that computes convolutions, and the part of the output that one of its blocks computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// The entry without its element suffix.
    pub(crate) name: &'static str,
    /// Output pixels per block, consecutive within an image.
    pixels: u32,
    /// Output channels per block.
    channels: u32,
    /// Threads per block.
    threads: u32,
}

impl Kernel {
    /// Plain multiply-adds; available on every device, for both elements.
    pub(crate) const PLAIN: Self = Self { name: "conv", pixels: 64, channels: 64, threads: 256 };
    /// Tensor cores, in f16: the largest tile.
    pub(crate) const TENSOR_LARGE: Self = Self { name: "conv_mma_128x64", pixels: 128, channels: 64, threads: 256 };
    /// Tensor cores, in f16: half the pixels of the largest tile.
    pub(crate) const TENSOR_SMALL: Self = Self { name: "conv_mma_64x64", pixels: 64, channels: 64, threads: 128 };
    /// Tensor cores, in f16: half the channels of the largest tile.
    pub(crate) const TENSOR_NARROW: Self = Self { name: "conv_mma_128x32", pixels: 128, channels: 32, threads: 128 };
    /// Metal's simdgroup matrices, for both elements.
    pub(crate) const SIMDGROUP: Self = Self { name: "conv_mma", pixels: 64, channels: 64, threads: 256 };
    /// Metal's simdgroup matrices with half the channels.
    pub(crate) const SIMDGROUP_NARROW: Self = Self { name: "conv_mma_narrow", pixels: 128, channels: 32, threads: 256 };

    /// The kernel for a convolution on a device.
    pub(crate) fn choose(device: Capabilities, element: GpuElement, conv: &ConvParams) -> Self {
        match (device.matrix_units, element) {
            (MatrixUnits::None, _) | (MatrixUnits::TensorCores, GpuElement::F32) => Self::PLAIN,
            (MatrixUnits::TensorCores, GpuElement::F16) if conv.out_cs <= Self::TENSOR_NARROW.channels => {
                Self::TENSOR_NARROW
            }
            // The largest tile that still gives every multiprocessor two blocks reads inputs least often.
            (MatrixUnits::TensorCores, GpuElement::F16)
                if Self::TENSOR_LARGE.blocks(conv) >= device.multiprocessors.saturating_mul(2) =>
            {
                Self::TENSOR_LARGE
            }
            (MatrixUnits::TensorCores, GpuElement::F16) => Self::TENSOR_SMALL,
            (MatrixUnits::Simdgroups, _) if conv.out_cs <= Self::SIMDGROUP_NARROW.channels => Self::SIMDGROUP_NARROW,
            (MatrixUnits::Simdgroups, _) => Self::SIMDGROUP,
        }
    }

    /// The number of blocks that compute a convolution.
    fn blocks(self, conv: &ConvParams) -> u32 {
        conv.n * (conv.out_h * conv.out_w).div_ceil(self.pixels) * conv.out_cs.div_ceil(self.channels)
    }
}

/// A convolution's parameters in device memory.
#[derive(Debug)]
pub struct GpuConv<B> {
    shape: ConvShape,
    element: GpuElement,
    weight: B,
    bias: GpuVector<B>,
    prologue: Option<(GpuNorm<B>, bool)>,
}

/// `scale * x + shift` per channel, in device memory.
#[derive(Debug)]
pub struct GpuNorm<B> {
    /// One factor per channel.
    pub scale: GpuVector<B>,
    /// One offset per channel.
    pub shift: GpuVector<B>,
}

impl<B> GpuNorm<B> {
    /// Uploads a norm to the device.
    ///
    /// - errors: [`ShapeError`] if the lengths differ, otherwise those of the device
    pub fn new<D: Device<Buffer = B>>(device: &D, scale: &[f32], shift: &[f32]) -> Result<Self, GpuError> {
        ShapeError::check("norm", "length of the shift", shift.len(), scale.len())?;
        Ok(Self { scale: GpuVector::new(device, scale)?, shift: GpuVector::new(device, shift)? })
    }

    pub(crate) fn check(&self, op: &'static str, channels: usize) -> Result<(), ShapeError> {
        ShapeError::check(op, "channels of the norm", self.scale.len(), channels)
    }
}

/// What happens to a sum before it is stored: first the residual is added, then the activation is applied.
#[derive(Debug)]
pub struct GpuEpilogue<'a, B> {
    /// Has the output's shape.
    pub residual: Option<&'a GpuMaps<B>>,
    /// Applied last.
    pub activation: Activation,
}

impl<B> GpuConv<B> {
    /// Uploads a convolution to the device.
    ///
    /// - `weight`: `[out, in, ky, kx]`, stored as `element` in the order `[ky][kx][in][out]`, channels padded with zeros
    /// - `bias`: `[out]`; `prologue`: norm of the input channels, and whether a ReLU follows
    /// - errors: [`ShapeError`] if a length differs or no kernel supports the window or stride, otherwise those of the device
    pub fn new<D: Device<Buffer = B>>(
        device: &D,
        shape: ConvShape,
        weight: &[f32],
        bias: &[f32],
        prologue: Option<(GpuNorm<B>, bool)>,
        element: GpuElement,
    ) -> Result<Self, GpuError> {
        shape.check()?;
        let ConvShape { in_channels, out_channels, kernel, .. } = shape;
        let (taps, reduced) = (kernel * kernel, in_channels.saturating_mul(kernel * kernel));
        ShapeError::check(OP, "length of the weight", weight.len(), out_channels.saturating_mul(reduced))?;
        ShapeError::check(OP, "length of the bias", bias.len(), out_channels)?;
        if let Some((norm, _)) = &prologue {
            norm.check(OP, in_channels)?;
        }
        let (in_cs, out_cs) =
            (in_channels.next_multiple_of(CHANNEL_STRIDE), out_channels.next_multiple_of(CHANNEL_STRIDE));
        let mut packed = vec![0.0; taps * in_cs * out_cs];
        for (i, value) in weight.iter().enumerate() {
            let (out, input, tap) = (i / reduced, i / taps % in_channels, i % taps);
            packed[(tap * in_cs + input) * out_cs + out] = *value;
        }
        let mut buffer = device.buffer(packed.len() * element.bytes())?;
        device.write(&mut buffer, &element.encode(&packed))?;
        Ok(Self { shape, element, weight: buffer, bias: GpuVector::new(device, bias)?, prologue })
    }

    /// The convolution's shape.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }
}

/// Convolves.
///
/// - `x`: `[n, in_channels, h, w]` → `[n, out_channels, ..]` of [`ConvShape::out_size`], with the weights' element
/// - accuracy: in f32 within `1e-5` of the definition, relative to the largest output; in f16 inputs, weights and output are
///   rounded to 11 bits
/// - errors: [`ShapeError`] if a shape or element differs from these, otherwise those of the device
pub fn conv<D: Device>(
    device: &D,
    conv: &GpuConv<D::Buffer>,
    x: &GpuMaps<D::Buffer>,
    epilogue: &GpuEpilogue<'_, D::Buffer>,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    let capabilities = device.capabilities();
    conv_by(device, |params| Kernel::choose(capabilities, conv.element, params), conv, x, epilogue)
}

/// [`conv`] with the kernel that `choose` selects.
///
/// - errors: as [`conv`], and an error of the device if it lacks that kernel
pub(crate) fn conv_by<D: Device>(
    device: &D,
    choose: impl FnOnce(&ConvParams) -> Kernel,
    conv: &GpuConv<D::Buffer>,
    x: &GpuMaps<D::Buffer>,
    epilogue: &GpuEpilogue<'_, D::Buffer>,
) -> Result<GpuMaps<D::Buffer>, GpuError> {
    let (shape, input) = (conv.shape, x.shape());
    x.check(OP, "input", GpuShape { channels: shape.in_channels, ..input }, conv.element)?;
    let (height, width) = shape.out_size(input.height, input.width);
    let output = GpuShape { n: input.n, channels: shape.out_channels, height, width };
    if let Some(residual) = epilogue.residual {
        residual.check(OP, "residual", output, conv.element)?;
    }
    let activation = match epilogue.activation {
        Activation::None => 0,
        Activation::Relu => 1,
        Activation::Gelu => 2,
    };
    let prologue = conv.prologue.as_ref().map_or(0, |(_, relu)| PROLOGUE | if *relu { PROLOGUE_RELU } else { 0 });
    let params = ConvParams {
        n: input.n as u32,
        h: input.height as u32,
        w: input.width as u32,
        in_c: shape.in_channels as u32,
        in_cs: input.stride() as u32,
        out_h: height as u32,
        out_w: width as u32,
        out_c: shape.out_channels as u32,
        out_cs: output.stride() as u32,
        window: shape.kernel as u32,
        stride: shape.stride as u32,
        flags: prologue | epilogue.residual.map_or(0, |_| RESIDUAL) | activation << ACTIVATION,
    };
    let out = GpuMaps::blank(device, OP, output, conv.element)?;
    let (scale, shift) = conv
        .prologue
        .as_ref()
        .map_or((conv.bias.buffer(), conv.bias.buffer()), |(norm, _)| (norm.scale.buffer(), norm.shift.buffer()));
    let residual = epilogue.residual.unwrap_or(x).buffer();
    let kernel = choose(&params);
    let grid = [
        output.pixels().div_ceil(kernel.pixels as usize) as u32,
        output.stride().div_ceil(kernel.channels as usize) as u32,
        input.n as u32,
    ];
    let launch = Launch {
        kernel: kernel.name,
        element: conv.element,
        grid,
        block: [kernel.threads, 1, 1],
        buffers: &[x.buffer(), &conv.weight, conv.bias.buffer(), scale, shift, residual, out.buffer()],
        params: &params.bytes(),
    };
    // SAFETY: the shapes were checked against the buffers, and maps and vectors allocate as much as their shapes say. The kernel
    // reads pixels inside the map, and weights and channels below their strides. It writes only pixels and channels of the output,
    // whose buffer is new.
    unsafe { device.launch(&launch)? };
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn convolutions_use_the_largest_tile_that_keeps_the_gpu_busy() {
        let device = |multiprocessors, matrix_units| Capabilities { multiprocessors, matrix_units };
        let hopper = device(132, MatrixUnits::TensorCores);
        let conv = |out_w, out_cs| ConvParams { n: 1, out_h: 128, out_w, out_cs, ..ConvParams::default() };
        let name = |device, element, conv| Kernel::choose(device, element, &conv).name;
        assert_eq!(name(hopper, GpuElement::F32, conv(256, 64)), "conv", "tensor cores have no exact f32 product");
        assert_eq!(name(hopper, GpuElement::F16, conv(256, 32)), "conv_mma_128x32");
        assert_eq!(name(hopper, GpuElement::F16, conv(256, 256)), "conv_mma_128x64");
        assert_eq!(name(hopper, GpuElement::F16, conv(64, 64)), "conv_mma_64x64");
        let (mac, plain) = (device(0, MatrixUnits::Simdgroups), Capabilities::default());
        for element in [GpuElement::F32, GpuElement::F16] {
            assert_eq!(name(mac, element, conv(256, 32)), "conv_mma_narrow");
            assert_eq!(name(mac, element, conv(256, 40)), "conv_mma");
            assert_eq!(name(plain, element, conv(256, 256)), "conv", "nothing is known about the device");
        }
        // A batch uses another kernel than its images, and must compute the same result: the table `batches` has such a convolution.
        let small = |n| ConvParams { n, out_h: 9, out_w: 13, out_cs: 40, ..ConvParams::default() };
        let one = device(1, MatrixUnits::TensorCores);
        let chosen = [1, 3].map(|n| Kernel::choose(one, GpuElement::F16, &small(n)));
        assert_eq!(chosen, [Kernel::TENSOR_SMALL, Kernel::TENSOR_LARGE]);
    }
}
