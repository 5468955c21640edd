//! The launch of a convolution on a GPU: an implicit GEMM of output pixels by output channels.

use super::{Activation, ConvShape};
use crate::ShapeError;
use crate::gpu::{CHANNEL_STRIDE, Device, GpuElement, GpuError, GpuMaps, GpuShape, GpuVector, Launch};

const OP: &str = "conv";

params! {
    /// Parameters of `conv` and its twins.
    pub struct ConvParams {
        n: u32, h: u32, w: u32, in_c: u32, in_cs: u32, out_h: u32, out_w: u32, out_c: u32, out_cs: u32, window: u32, stride: u32,
        flags: u32,
    }
}

/// There is a prologue.
pub const PROLOGUE: u32 = 1;
/// A ReLU ends the prologue.
pub const PROLOGUE_RELU: u32 = 1 << 1;
/// There is a residual.
pub const RESIDUAL: u32 = 1 << 2;
/// Shift of the activation: 0 for none, 1 for ReLU, 2 for GELU.
pub const ACTIVATION: u32 = 3;

/// A kernel that computes convolutions, and the part of the output that one of its blocks computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConvKernel {
    /// The entry without its element.
    pub name: &'static str,
    /// Output pixels of a block, consecutive ones of an image.
    pub pixels: u32,
    /// Output channels of a block.
    pub channels: u32,
    /// Threads of a block.
    pub threads: u32,
}

impl ConvKernel {
    /// On plain multiply-adds; every device has it, for either element.
    pub const PLAIN: Self = Self { name: "conv", pixels: 64, channels: 64, threads: 256 };
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

/// `scale * x + shift`, a channel each, in device memory.
#[derive(Debug)]
pub struct GpuNorm<B> {
    /// A factor a channel.
    pub scale: GpuVector<B>,
    /// A summand a channel.
    pub shift: GpuVector<B>,
}

impl<B> GpuNorm<B> {
    /// Takes a norm to the device.
    ///
    /// - errors: [`ShapeError`] when the lengths differ, else what the device says
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
    /// Of the output's shape.
    pub residual: Option<&'a GpuMaps<B>>,
    /// Applied last.
    pub activation: Activation,
}

impl<B> GpuConv<B> {
    /// Takes a convolution to the device.
    ///
    /// - `weight`: `[out, in, ky, kx]`, stored as `element` in the order `[ky][kx][in][out]`, channels padded with zeros
    /// - `bias`: `[out]`; `prologue`: norm of the input channels, and whether a ReLU follows
    /// - errors: [`ShapeError`] when a length differs, or for a window or stride that there is no kernel for, else what the device says
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

    /// What it is, apart from its weights.
    pub fn shape(&self) -> ConvShape {
        self.shape
    }
}

/// Convolves.
///
/// - `x`: `[n, in_channels, h, w]` → `[n, out_channels, ..]` of [`ConvShape::out_size`], stored as the weights are
/// - accuracy: in f32 within `1e-5` of the definition, relative to the greatest output; in f16 inputs, weights and output are
///   rounded to 11 bits
/// - errors: [`ShapeError`] when a shape or element differs from these, else what the device says
pub fn conv<D: Device>(
    device: &D,
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
    let kernel = device.conv_kernel(conv.element, &params);
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
    // SAFETY: the shapes were checked against the buffers, which maps and vectors made as long as their shapes say; the kernel
    // reads pixels inside of the map, weights and channels below their strides, and writes pixels and channels of the output
    // alone, whose buffer is new.
    unsafe { device.launch(&launch)? };
    Ok(out)
}
