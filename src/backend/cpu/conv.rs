//! Convolutions: chooses the algorithm of a layer and how to split it.

use rtformer_kernels as kernels;
use rtformer_kernels::{ConvShape, Element, Input, Isa, Layout, PackedConv, PackedWinograd, Prologue};

use super::failure::Failure;
use super::split::Split;
use super::{Cpu, Maps, Norm};
use crate::backend::Epilogue;
use crate::error::{Error, Result};
use crate::weights::fold::ConvLayer;

/// The algorithm for 3x3 convolutions of stride 1.
///
/// ```
/// # use rtformer::backend::{Algorithm, Cpu, Isa};
/// let plain = Cpu::new(Isa::best(), 1)?.algorithm(Algorithm::Direct);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// The faster algorithm for the layer's shape.
    #[default]
    Fastest,
    /// By definition.
    Direct,
    /// Winograd's F(4x4, 3x3), which needs a quarter of the multiplications.
    Winograd,
}

/// A packed convolution and its prologue.
///
/// ```
/// # use rtformer::backend::{Backend, Cpu};
/// # use rtformer::weights::fold::ConvLayer;
/// # let cpu = Cpu::new(rtformer::backend::Isa::best(), 1)?;
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
/// let conv: <Cpu as Backend>::Conv = cpu.pack_conv(layer)?;
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Conv {
    name: String,
    shape: ConvShape,
    /// Interleaved channels in the maps that it reads.
    lanes: usize,
    packed: Packed,
    prologue: Option<(Norm, bool)>,
}

/// The weights of a convolution, packed for its algorithm.
enum Packed {
    Direct(PackedConv),
    Winograd(PackedWinograd),
}

/// Bytes of transformed weights that stay in the L2 cache while tiles are processed.
const LARGE_WEIGHTS: usize = 1 << 20;

impl Cpu {
    fn takes_winograd(&self, shape: &ConvShape, lanes: usize) -> bool {
        let wanted = match self.algorithm {
            // Scalar code always uses the definition. With few channels, the transforms cost more than they save.
            Algorithm::Fastest => self.isa != Isa::Scalar && shape.in_channels.min(shape.out_channels) >= 16,
            Algorithm::Direct => false,
            Algorithm::Winograd => true,
        };
        wanted && lanes == 16 && PackedWinograd::can(shape)
    }

    /// Packs a layer's parameters for its algorithm.
    pub(super) fn pack(&self, layer: ConvLayer) -> Result<Conv> {
        let folded = layer.fold()?;
        let shape = layer.shape();
        // The photo is planar: its three channels in a block of sixteen would take five times the memory.
        // Also, three channels do not form pairs for bf16.
        let (lanes, element) = if layer.reads_photo { (1, Element::F32) } else { (16, self.element) };
        let bias = Some(&folded.bias[..]);
        let packed = if self.takes_winograd(&shape, lanes) {
            PackedWinograd::pack(shape, &folded.weight, bias, element).map(Packed::Winograd)
        } else {
            PackedConv::pack(shape, &folded.weight, bias, lanes, element).map(Packed::Direct)
        };
        let packed =
            packed.map_err(|e| Error::Backend { operation: "pack", reason: format!("`{}`: {e}", layer.name) })?;
        Ok(Conv {
            name: layer.name,
            shape,
            lanes,
            packed,
            prologue: folded.prologue.map(|(affine, relu)| (Self::norm(affine), relu)),
        })
    }

    /// Computes the convolution with its norms and the epilogue.
    pub(super) fn convolve(&self, conv: &Conv, x: &Maps, epilogue: &Epilogue<'_, Maps>) -> Result<Maps> {
        let shape = conv.shape;
        let x = &*self.with_lanes(x, conv.lanes)?;
        let residual = epilogue.residual.map(|maps| self.blocked(maps)).transpose()?;
        let (h, w) = shape.out_size(x.layout().height, x.layout().width);
        let macs = [x.count(), shape.in_channels, shape.out_channels, shape.kernel * shape.kernel, h, w];
        let flops = 2.0 * macs.map(|d| d as f64).iter().product::<f64>();
        self.timed(&conv.name, flops, || {
            let prologue = conv.prologue.as_ref().map(|(norm, relu)| Prologue {
                scale: &norm.scale,
                shift: &norm.shift,
                relu: *relu,
            });
            let split = match &conv.packed {
                Packed::Direct(_) => Split::BOTH,
                // A piece reads the weights of its blocks and the tiles of its rows. If there are more weights than tiles, split blocks.
                Packed::Winograd(packed) => {
                    let tiles = h.div_ceil(kernels::WINOGRAD_TILE) * w.div_ceil(kernels::WINOGRAD_TILE);
                    // Weights that do not fit into the cache are read once per piece.
                    let pieces = if packed.bytes() > LARGE_WEIGHTS { 1 } else { Split::TILES.pieces };
                    Split { pieces, blocks_first: tiles < shape.out_channels, ..Split::TILES }
                }
            };
            self.fill(
                "conv",
                x.count(),
                Layout::blocked(shape.out_channels, h, w),
                split,
                |i, out| -> Result<(), Failure> {
                    let residual = residual.as_ref().map(|maps| maps.image(i)).transpose()?;
                    let epilogue = kernels::Epilogue { residual, activation: epilogue.activation };
                    let input = Input { map: x.image(i)?, prologue };
                    match &conv.packed {
                        Packed::Direct(packed) => {
                            let mut scratch = self.buffers().scratch(kernels::conv::scratch_len(packed, &input))?;
                            Ok(kernels::conv(self.isa, packed, input, out, epilogue, &mut scratch)?)
                        }
                        Packed::Winograd(packed) => {
                            let mut scratch = self.buffers().scratch(packed.scratch_len())?;
                            Ok(kernels::winograd(self.isa, packed, input, out, epilogue, &mut scratch)?)
                        }
                    }
                },
            )
        })
    }
}
