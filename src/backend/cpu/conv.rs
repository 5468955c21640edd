//! Convolutions: chooses the algorithm of a layer and how to split it.

use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use rtformer_kernels as kernels;
use rtformer_kernels::{ConvShape, Element, Input, Isa, Layout, PackedConv, PackedWinograd, Prologue, ShapeError};

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
    packed: Arc<Packing>,
    prologue: Option<(Norm, bool)>,
}

/// The weights of a convolution, packed for its algorithm.
pub(super) enum Packed {
    Direct(PackedConv),
    Winograd(PackedWinograd),
}

/// Weights that a thread of the pool packs while the next layers are read from the file. Whoever needs them first packs them, or waits
/// until they are packed.
pub(super) struct Packing {
    packed: OnceLock<Result<Packed, ShapeError>>,
    /// Taken when packing starts.
    todo: Mutex<Option<Todo>>,
}

/// What to pack, and how.
struct Todo {
    winograd: bool,
    shape: ConvShape,
    lanes: usize,
    element: Element,
    l2: usize,
    weight: Vec<f32>,
    bias: Vec<f32>,
}

impl Packing {
    pub(super) fn packed(&self) -> Result<&Packed, ShapeError> {
        let packed = self.packed.get_or_init(|| match self.todo.lock().take() {
            Some(todo) => todo.pack(),
            // Only if packing panicked before.
            None => Err(ShapeError { op: "pack", what: "layers to pack", got: "0".into(), want: "1".into() }),
        });
        packed.as_ref().map_err(Clone::clone)
    }
}

impl Todo {
    fn pack(self) -> Result<Packed, ShapeError> {
        let Self { winograd, shape, lanes, element, l2, weight, bias } = self;
        let bias = Some(&bias[..]);
        Ok(if winograd {
            Packed::Winograd(PackedWinograd::pack(shape, &weight, bias, element)?.for_l2(l2))
        } else {
            Packed::Direct(PackedConv::pack(shape, &weight, bias, lanes, element)?.for_l2(l2))
        })
    }
}

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

    /// Packs a layer's parameters for its algorithm and for products of `element`.
    pub(super) fn pack(&self, layer: ConvLayer, element: Element) -> Result<Conv> {
        let folded = layer.fold()?;
        let shape = layer.shape();
        // The photo is planar: its three channels in a block of sixteen would take five times the memory.
        // Also, three channels do not form pairs for bf16.
        let (lanes, element) = if layer.reads_photo { (1, Element::F32) } else { (16, element) };
        shape.check().map_err(|e| Error::Backend { operation: "pack", reason: format!("`{}`: {e}", layer.name) })?;
        let todo = Todo {
            winograd: self.takes_winograd(&shape, lanes),
            shape,
            lanes,
            element,
            l2: self.l2,
            weight: folded.weight,
            bias: folded.bias,
        };
        let packed = Arc::new(Packing { packed: OnceLock::new(), todo: Mutex::new(Some(todo)) });
        self.packing.lock().push(Arc::clone(&packed));
        let later = Arc::clone(&packed);
        // Whoever uses the layer gets the error.
        self.workers().spawn(move || drop(later.packed()));
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
            let packed = conv.packed.packed().map_err(|error| Failure::from(error).named("conv"))?;
            let split = match packed {
                Packed::Direct(_) => Split::BOTH,
                // A piece reads the weights of its blocks and the tiles of its rows. If there are more weights than tiles, split blocks.
                Packed::Winograd(packed) => {
                    let tiles = h.div_ceil(kernels::WINOGRAD_TILE) * w.div_ceil(kernels::WINOGRAD_TILE);
                    // Weights that are much larger than the L2 cache are read once per piece.
                    let pieces = if packed.bytes() > 2 * self.l2 { 1 } else { Split::TILES.pieces };
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
                    match packed {
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
