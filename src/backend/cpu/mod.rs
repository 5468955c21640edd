//! The contract on our own kernels: channel-blocked maps from a pool of buffers, split over rayon's threads.

mod buffers;
mod concat;
mod readout;

use rayon::{ThreadPool, ThreadPoolBuilder};
use rtformer_kernels as kernels;
use rtformer_kernels::{
    ConvShape, Element, Input, Isa, Lanes, Layout, MapMut, PackedConv, PackedWinograd, Prologue, ShapeError,
};

pub use buffers::Maps;

use buffers::{Blank, Buffers};
use readout::Readout;

use super::times::Times;
use super::{Backend, Confidence, Epilogue, OpTime, Window};
use crate::error::{Error, Result};
use crate::pixels::IdsMut;
use crate::weights::fold::{Affine, BatchNorm, ConvLayer};

/// Runs on the CPU's vector units.
///
/// Masks and logits are the same bits for any number of threads and any batch: a kernel computes every output by the same sequence
/// of operations however its map is split, and photos of a batch never meet.
///
/// ```
/// use rtformer::backend::{Backend, Cpu, Isa};
///
/// let cpu = Cpu::new(Isa::best(), 2)?;
/// assert_eq!((cpu.isa(), cpu.threads()), (Isa::best(), 2));
/// let photo = cpu.upload(&[0.5; 3 * 4 * 4], [1, 3, 4, 4])?;
/// assert_eq!(cpu.shape(&photo), [1, 3, 4, 4]);
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Cpu {
    isa: Isa,
    /// What convolutions multiply; maps are f32 all the same.
    element: Element,
    algorithm: Algorithm,
    pool: ThreadPool,
    buffers: Buffers,
    times: Times,
}

/// How 3x3 convolutions of stride 1 are computed.
///
/// ```
/// # use rtformer::backend::{Algorithm, Cpu, Isa};
/// let plain = Cpu::new(Isa::best(), 1)?.algorithm(Algorithm::Direct);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Algorithm {
    /// By whichever is the faster for the layer's shape.
    #[default]
    Fastest,
    /// As they are defined.
    Direct,
    /// By Winograd's F(4x4, 3x3), with a quarter of the multiplications.
    Winograd,
}

/// `scale * x + shift`, a channel each.
///
/// ```
/// # use rtformer::backend::{Backend, Cpu};
/// # use rtformer::weights::fold::BatchNorm;
/// # let cpu = Cpu::new(rtformer::backend::Isa::best(), 1)?;
/// let (weight, bias, mean, variance) = (vec![2.0], vec![1.0], vec![3.0], vec![4.0]);
/// let norm: <Cpu as Backend>::Norm = cpu.pack_norm(BatchNorm { weight, bias, mean, variance, epsilon: 0.0 })?;
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Norm {
    /// As plain channels, for the attention's keys.
    affine: Affine,
    scale: Vec<Lanes>,
    shift: Vec<Lanes>,
}

/// A packed convolution and what is to be done ahead of it.
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
    packed: Packed,
    prologue: Option<(Norm, bool)>,
}

/// A convolution's weights, for the algorithm that is the faster.
enum Packed {
    Direct(PackedConv),
    Winograd(PackedWinograd),
}

/// Views that a kernel may be given in parallel: only some kernels can see a part of the blocks or of the rows.
#[derive(Clone, Copy)]
struct Split {
    /// Rows stay together in groups of so many; all of them where it is 0.
    rows: usize,
    blocks: bool,
    /// Whether pieces have some blocks of all rows before they have some rows: where the weights are more to read than the input.
    blocks_first: bool,
    /// Several a thread, so that one which the system holds up delays the others little.
    pieces: usize,
}

impl Split {
    const ROWS: Self = Self { rows: 1, blocks: false, blocks_first: false, pieces: 4 };
    const BLOCKS: Self = Self { rows: 0, blocks: true, ..Self::ROWS };
    const BOTH: Self = Self { rows: 1, blocks: true, ..Self::ROWS };
    const TILES: Self = Self { rows: kernels::WINOGRAD_TILE, ..Self::BOTH };
}

impl Cpu {
    /// `threads` of 0 takes as many as the machine has cores.
    ///
    /// # Errors
    /// [`Error::Device`] when the system gives no threads.
    pub fn new(isa: Isa, threads: usize) -> Result<Self> {
        let pool = ThreadPoolBuilder::new().num_threads(threads).thread_name(|i| format!("rtformer-{i}")).build();
        let pool =
            pool.map_err(|e| Error::Device { device: "cpu".into(), reason: format!("no {threads} threads: {e}") })?;
        Ok(Self {
            isa,
            element: Element::F32,
            algorithm: Algorithm::Fastest,
            buffers: Buffers::new(pool.current_num_threads()),
            pool,
            times: Times::default(),
        })
    }

    /// The same with products in bf16, summed in f32: convolutions and attention. Softmax, resizing and what is kept between layers
    /// stay f32.
    ///
    /// ```
    /// # use rtformer::backend::{Cpu, Isa};
    /// let refused = Cpu::new(Isa::best(), 1)?.bf16().is_err();
    /// assert_eq!(refused, !Isa::best().multiplies(rtformer::backend::Element::Bf16));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] where the instruction set has no products of bf16.
    pub fn bf16(self) -> Result<Self> {
        if self.isa.multiplies(Element::Bf16) {
            return Ok(Self { element: Element::Bf16, ..self });
        }
        let reason = format!(
            "precision bf16 needs AVX512-BF16 (Intel since Cooper Lake, AMD since Zen 4), which {} here has not; use f32",
            self.isa.name()
        );
        Err(Error::Device { device: "cpu".into(), reason })
    }

    /// The same with another choice of algorithm, for layers that are packed from now on.
    pub fn algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The number of threads in use.
    pub fn threads(&self) -> usize {
        self.pool.current_num_threads()
    }

    /// Plain features `[n, c, h, w]` in the layout of the network's own maps; [`upload`](Backend::upload) is for photos.
    ///
    /// ```
    /// # use rtformer::backend::{Backend, Cpu};
    /// # let cpu = Cpu::new(rtformer::backend::Isa::best(), 1)?;
    /// let x = cpu.upload_features(&[1.0, -2.0], [1, 1, 1, 2])?;
    /// assert_eq!(cpu.download(&cpu.relu(&x)?)?, [1.0, 0.0]);
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Input`] when `data` has another length.
    pub fn upload_features(&self, data: &[f32], shape: [usize; 4]) -> Result<Maps> {
        let [_, c, h, w] = shape;
        self.upload_as(data, shape, Layout::blocked(c, h, w))
    }

    fn upload_as(&self, data: &[f32], [n, c, h, w]: [usize; 4], layout: Layout) -> Result<Maps> {
        let image = c * h * w;
        if image == 0 || data.len() != n * image {
            let want = n * image;
            return Err(Error::Input(format!(
                "the input has {} floats, {n}x{c}x{h}x{w} needs {want}, and some",
                data.len()
            )));
        }
        self.fill("upload", n, layout, Split::BOTH, |i, out| kernels::pack_nchw(&data[i * image..][..image], out))
    }

    /// Into how many pieces work is split.
    fn pieces(&self, split: Split) -> usize {
        if self.threads() == 1 { 1 } else { split.pieces * self.threads() }
    }

    fn takes_winograd(&self, shape: &ConvShape, lanes: usize) -> bool {
        let wanted = match self.algorithm {
            // The scalar definition stays the plain one; a few channels are not worth the transforms.
            Algorithm::Fastest => self.isa != Isa::Scalar && shape.in_channels.min(shape.out_channels) >= 16,
            Algorithm::Direct => false,
            Algorithm::Winograd => true,
        };
        wanted && lanes == 16 && PackedWinograd::can(shape)
    }

    fn norm(affine: Affine) -> Norm {
        Norm { scale: Lanes::from_channels(&affine.scale), shift: Lanes::from_channels(&affine.shift), affine }
    }

    /// Makes a batch of maps: `work` fills the view it is given of one image; views are disjoint and come in parallel.
    fn fill(
        &self,
        op: &'static str,
        count: usize,
        layout: Layout,
        split: Split,
        work: impl Fn(usize, MapMut<'_>) -> Result<(), ShapeError> + Sync,
    ) -> Result<Maps> {
        let mut blank = self.buffers.blank(count, layout)?;
        self.fill_blank(op, &mut blank, split, work)?;
        Ok(blank.freeze())
    }

    fn fill_blank(
        &self,
        op: &'static str,
        blank: &mut Blank,
        split: Split,
        work: impl Fn(usize, MapMut<'_>) -> Result<(), ShapeError> + Sync,
    ) -> Result<()> {
        let pieces = self.pieces(split);
        let layout = blank.layout();
        for (image, floats) in blank.images_mut().enumerate() {
            let filled =
                MapMut::new(floats, layout).and_then(|map| in_pieces(map, pieces, split, &|view| work(image, view)));
            filled.map_err(|e| Error::Backend { operation: op, reason: e.to_string() })?;
        }
        Ok(())
    }

    /// Notes how long `work` took, when a profile is on.
    fn timed<T>(&self, name: &str, flops: f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.times.timed(name, flops, work)
    }
}

impl Backend for Cpu {
    type Tensor = Maps;
    type Conv = Conv;
    type Norm = Norm;

    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.pool.install(work)
    }

    fn profile(&self, on: bool) -> Vec<OpTime> {
        self.times.record(on)
    }

    /// What all threads do at once when they do nothing but multiply and add.
    fn peak_flops(&self) -> Option<f64> {
        Some(self.pool.broadcast(|_| kernels::peak_flops(self.isa)).into_iter().sum())
    }

    fn pack_conv(&self, layer: ConvLayer) -> Result<Conv> {
        let folded = layer.fold()?;
        let shape = layer.shape();
        // The photo is planar: with its three channels in a block of sixteen, it would take five times the memory.
        // Its three channels make no pairs for bf16 either.
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
            packed,
            prologue: folded.prologue.map(|(affine, relu)| (Self::norm(affine), relu)),
        })
    }

    fn pack_norm(&self, norm: BatchNorm) -> Result<Norm> {
        Ok(Self::norm(norm.affine()))
    }

    fn upload(&self, data: &[f32], shape: [usize; 4]) -> Result<Maps> {
        let [_, c, h, w] = shape;
        let layout = Layout::planar(c, h, w);
        self.buffers.begin(shape[0], layout);
        self.timed("upload", 0.0, || self.run(|| self.upload_as(data, shape, layout)))
    }

    fn download(&self, x: &Maps) -> Result<Vec<f32>> {
        let [n, c, h, w] = self.shape(x);
        let mut data = vec![0.0; n * c * h * w];
        for (i, image) in data.chunks_exact_mut(c * h * w).enumerate() {
            let unpacked = x.image(i).and_then(|map| kernels::unpack_nchw(map, image));
            unpacked.map_err(|e| Error::Backend { operation: "download", reason: e.to_string() })?;
        }
        Ok(data)
    }

    fn shape(&self, x: &Maps) -> [usize; 4] {
        let Layout { channels, height, width, .. } = x.layout();
        [x.count(), channels, height, width]
    }

    fn conv(&self, conv: &Conv, x: &Maps, epilogue: Epilogue<'_, Maps>) -> Result<Maps> {
        let shape = conv.shape;
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
                // A piece reads the weights of its blocks and the tiles of its rows: more weights than tiles are better shared out.
                Packed::Winograd(packed) => {
                    let tiles = h.div_ceil(kernels::WINOGRAD_TILE) * w.div_ceil(kernels::WINOGRAD_TILE);
                    // Weights that do not fit into a cache are read once a piece.
                    let pieces = if packed.bytes() > LARGE_WEIGHTS { 1 } else { Split::TILES.pieces };
                    Split { pieces, blocks_first: tiles < shape.out_channels, ..Split::TILES }
                }
            };
            self.fill("conv", x.count(), Layout::blocked(shape.out_channels, h, w), split, |i, out| {
                let residual = epilogue.residual.map(|maps| maps.image(i)).transpose()?;
                let epilogue = kernels::Epilogue { residual, activation: epilogue.activation };
                let input = Input { map: x.image(i)?, prologue };
                match &conv.packed {
                    Packed::Direct(packed) => {
                        let mut scratch = self.buffers.scratch(kernels::conv::scratch_len(packed, &input));
                        kernels::conv(self.isa, packed, input, out, epilogue, &mut scratch)
                    }
                    Packed::Winograd(packed) => {
                        let mut scratch = self.buffers.scratch(packed.scratch_len());
                        kernels::winograd(self.isa, packed, input, out, epilogue, &mut scratch)
                    }
                }
            })
        })
    }

    fn relu(&self, x: &Maps) -> Result<Maps> {
        self.timed("relu", 0.0, || {
            self.fill("relu", x.count(), x.layout(), Split::BOTH, |i, out| kernels::relu(self.isa, x.image(i)?, out))
        })
    }

    fn add(&self, a: &Maps, b: &Maps) -> Result<Maps> {
        self.timed("add", 0.0, || {
            self.fill("add", a.count(), a.layout(), Split::BOTH, |i, out| {
                kernels::add(self.isa, a.image(i)?, b.image(i)?, out)
            })
        })
    }

    fn resize(&self, x: &Maps, height: usize, width: usize) -> Result<Maps> {
        let layout = Layout::blocked(x.layout().channels, height, width);
        self.timed("resize", 0.0, || {
            self.fill("resize", x.count(), layout, Split::BOTH, |i, out| {
                kernels::resize_add(self.isa, x.image(i)?, None, out)
            })
        })
    }

    fn resize_add(&self, x: &Maps, base: &Maps) -> Result<Maps> {
        self.timed("resize_add", 0.0, || {
            self.fill("resize_add", x.count(), base.layout(), Split::BOTH, |i, out| {
                kernels::resize_add(self.isa, x.image(i)?, Some(base.image(i)?), out)
            })
        })
    }

    fn avg_pool(&self, x: &Maps, window: Option<Window>) -> Result<Maps> {
        let Layout { channels, height, width, .. } = x.layout();
        self.timed("avg_pool", 0.0, || match window {
            Some(Window { kernel, stride, padding }) => {
                let out = |side: usize| (side + 2 * padding - kernel) / stride + 1;
                let layout = Layout::blocked(channels, out(height), out(width));
                self.fill("avg_pool", x.count(), layout, Split::BOTH, |i, out| {
                    kernels::avg_pool(self.isa, x.image(i)?, kernel, stride, padding, out)
                })
            }
            None => {
                self.fill("global_avg_pool", x.count(), Layout::blocked(channels, 1, 1), Split::BLOCKS, |i, out| {
                    kernels::global_avg_pool(self.isa, x.image(i)?, out)
                })
            }
        })
    }

    fn max_pool_to(&self, x: &Maps, norm: &Norm, side: usize) -> Result<Maps> {
        let layout = Layout::blocked(x.layout().channels, side, side);
        self.timed("max_pool_to", 0.0, || {
            self.fill("max_pool_to", x.count(), layout, Split::BOTH, |i, out| {
                kernels::max_pool_to(self.isa, x.image(i)?, &norm.scale, &norm.shift, out)
            })
        })
    }

    fn ea_norm(&self, x: Maps, groups: usize) -> Result<Maps> {
        self.timed("ea_norm", 0.0, || {
            let mut x = self.buffers.thaw(x)?;
            self.fill_blank("ea_softmax", &mut x, Split::BLOCKS, |_, view| kernels::ea_softmax(self.isa, view))?;
            self.fill_blank("ea_group_l1", &mut x, Split::ROWS, |_, view| {
                kernels::ea_group_l1(self.isa, view, groups)
            })?;
            Ok(x.freeze())
        })
    }

    fn cross_attend(&self, x: &Maps, norm: &Norm, kv: &Maps) -> Result<Maps> {
        let Layout { channels, height, width, .. } = x.layout();
        let keys = kv.layout().height * kv.layout().width;
        let flops = 4.0 * [x.count(), channels, height, width, keys].map(|d| d as f64).iter().product::<f64>();
        self.timed("cross_attend", flops, || {
            let failed = |e: ShapeError| Error::Backend { operation: "cross_attend", reason: e.to_string() };
            let mut packed = self.buffers.keys(x.count());
            for (i, keys) in packed.iter_mut().enumerate() {
                let pack = |kv| keys.pack(kv, &norm.affine.scale, &norm.affine.shift, self.element);
                kv.image(i).and_then(pack).map_err(failed)?;
            }
            let out = self.fill("cross_attend", x.count(), x.layout(), Split::ROWS, |i, out| {
                let x = x.image(i)?;
                let mut scratch = self.buffers.scratch(packed[i].scratch_len(x.layout()));
                kernels::cross_attend(self.isa, x, &packed[i], Some(x), out, &mut scratch)
            });
            self.buffers.keep_keys(packed);
            out
        })
    }

    fn concat(&self, parts: &[&Maps]) -> Result<Maps> {
        let Some(first) = parts.first() else {
            return Err(Error::Backend { operation: "concat", reason: "nothing to put side by side".into() });
        };
        let channels = parts.iter().map(|part| part.layout().channels).sum();
        let layout = Layout { channels, ..first.layout() };
        self.timed("concat", 0.0, || {
            let mut out = self.buffers.blank(first.count(), layout)?;
            for (i, out) in out.images_mut().enumerate() {
                concat::concat(parts.iter().map(|part| (part.floats(i), part.layout())), out, layout);
            }
            Ok(out.freeze())
        })
    }

    fn argmax(
        &self,
        logits: &Maps,
        image: usize,
        size: (usize, usize),
        ids: IdsMut<'_>,
        confidence: Option<Confidence<'_>>,
    ) -> Result<()> {
        let readout = Readout { isa: self.isa, logits, image, size };
        self.timed("argmax", 0.0, || {
            let done = self.run(|| match ids {
                IdsMut::U8(ids) => readout.argmax(self.pieces(Split::ROWS), 0..size.0, ids, confidence),
                IdsMut::U16(ids) => readout.argmax(self.pieces(Split::ROWS), 0..size.0, ids, confidence),
            });
            done.map_err(|e| Error::Backend { operation: "argmax", reason: e.to_string() })
        })
    }

    fn upsample(&self, logits: &Maps, image: usize, size: (usize, usize), out: &mut [f32]) -> Result<()> {
        let readout = Readout { isa: self.isa, logits, image, size };
        self.timed("upsample", 0.0, || {
            let done = self.run(|| readout.upsample(self.pieces(Split::ROWS), out));
            done.map_err(|e| Error::Backend { operation: "upsample", reason: e.to_string() })
        })
    }
}

/// Bytes of transformed weights that stay in a second-level cache while tiles pass by.
const LARGE_WEIGHTS: usize = 1 << 20;

/// Halves a view again and again until there are `pieces`, and gives each to `work`, in parallel.
fn in_pieces(
    view: MapMut<'_>,
    pieces: usize,
    split: Split,
    work: &(impl Fn(MapMut<'_>) -> Result<(), ShapeError> + Sync),
) -> Result<(), ShapeError> {
    let (rows, blocks) = (view.rows(), view.blocks());
    let by_rows = pieces > 1 && split.rows > 0 && rows.len() > split.rows;
    let by_blocks = pieces > 1 && split.blocks && blocks.len() > 1;
    let (first, last) = if by_rows && !(by_blocks && split.blocks_first) {
        view.split_rows((rows.start + rows.len() / 2).next_multiple_of(split.rows))
    } else if by_blocks {
        view.split_blocks(blocks.start + blocks.len() / 2)
    } else {
        return work(view);
    };
    let (first, last) =
        rayon::join(|| in_pieces(first, pieces / 2, split, work), || in_pieces(last, pieces / 2, split, work));
    first.and(last)
}
