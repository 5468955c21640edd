//! Implements [`Backend`] with the CPU kernels: channel-blocked maps from a pool of buffers, split over rayon's threads.

mod areas;
mod buffers;
mod concat;
mod conv;
mod failure;
mod readout;
mod split;
mod threads;
mod workers;

use std::borrow::Cow;
use std::sync::Arc;

use parking_lot::Mutex;
use rtformer_kernels as kernels;
use rtformer_kernels::{Caches, Element, Isa, Lanes, Layout, ShapeError};

pub use buffers::Maps;
pub use conv::Algorithm;
pub use threads::Threads;

use buffers::Buffers;
use conv::{Conv, Packing};
use failure::Failure;
use readout::Readout;
use split::Split;
use workers::Workers;

use super::{Backend, Confidence, Epilogue, OpTime, Window, check_upload, common_extent};
use crate::error::{Error, Result};
use crate::pixels::{Extent, IdsMut, Pixels, Preparation, Rows};
use crate::process::PerProcess;
use crate::weights::fold::{Affine, BatchNorm, ConvLayer};

/// Runs on the CPU with vector instructions.
///
/// Masks and logits are bit-identical for any number of threads and any batch size: a kernel computes every output with the
/// same sequence of operations however its map is split, and the photos of a batch do not affect each other.
///
/// ```
/// use rtformer::backend::{Backend, Cpu, Isa};
///
/// let cpu = Cpu::new(Isa::best(), 2)?;
/// assert_eq!((cpu.isa(), cpu.threads()), (Isa::best(), 2));
/// let x = cpu.upload(&[0.5; 3 * 4 * 4], [1, 3, 4, 4])?;
/// assert_eq!(cpu.shape(&x), [1, 3, 4, 4]);
/// # Ok::<(), rtformer::Error>(())
/// ```
pub struct Cpu {
    isa: Isa,
    /// The element type of products in convolutions and attention. Maps are always f32.
    element: Element,
    algorithm: Algorithm,
    /// Bytes of the L2 cache from which the block sizes follow.
    l2: usize,
    threads: usize,
    workers: PerProcess<Workers>,
    /// Layers that are being packed.
    packing: Mutex<Vec<Arc<Packing>>>,
}

/// `scale * x + shift`, with one scale and one shift per channel.
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
    /// Scale and shift as plain channels, for the attention's keys.
    affine: Affine,
    scale: Vec<Lanes>,
    shift: Vec<Lanes>,
}

impl Cpu {
    /// The maximum number of threads of a backend.
    pub const MOST_THREADS: usize = 1024;

    /// Creates a backend for `isa` with its own threads; 0 threads means [`Threads::of_this_process`].
    ///
    /// ```
    /// # use rtformer::backend::{Cpu, Isa};
    /// let refused = Cpu::new(Isa::best(), 100_000).err().map(|error| error.to_string());
    /// assert_eq!(refused.as_deref(), Some("device `cpu`: cannot use 100000 threads; the maximum is 1024"));
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] for more than [`MOST_THREADS`](Self::MOST_THREADS), or if the system cannot start the threads.
    pub fn new(isa: Isa, threads: usize) -> Result<Self> {
        let refused = |reason| Error::Device { device: "cpu".into(), reason };
        if threads > Self::MOST_THREADS {
            return Err(refused(format!("cannot use {threads} threads; the maximum is {}", Self::MOST_THREADS)));
        }
        let threads = if threads == 0 { Threads::of_this_process().number } else { threads };
        let (workers, threads) = Workers::start(threads).map_err(refused)?;
        Ok(Self {
            isa,
            element: Element::F32,
            algorithm: Algorithm::Fastest,
            l2: Caches::of_this_machine().l2,
            threads,
            workers: PerProcess::new(workers),
            packing: Mutex::default(),
        })
    }

    /// Multiplies in bf16 and sums in f32, in convolutions and attention. Softmax, resizing and the maps between layers stay
    /// f32.
    ///
    /// A layer's error is 0.24 % of its output (root mean square, uncorrelated inputs), with Winograd 1.1 % and for any filters at most
    /// 2 %. Random networks amplify it by more than trained ones, so that [`RtFormer::load`](crate::model::RtFormer::load) leaves their
    /// encoder in f32: `benches/README.md`.
    ///
    /// ```
    /// # use rtformer::backend::{Cpu, Isa};
    /// let refused = Cpu::new(Isa::best(), 1)?.bf16().is_err();
    /// assert_eq!(refused, !Isa::best().multiplies(rtformer::backend::Element::Bf16));
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] if the instruction set has no bf16 products.
    pub fn bf16(self) -> Result<Self> {
        if self.isa.multiplies(Element::Bf16) {
            return Ok(Self { element: Element::Bf16, ..self });
        }
        let reason = format!(
            "precision bf16 needs AVX512-BF16 (Intel since Cooper Lake, AMD since Zen 4), the instruction set in use is {}; use f32",
            self.isa.name()
        );
        Err(Error::Device { device: "cpu".into(), reason })
    }

    /// Selects the algorithm for layers that are packed from now on.
    pub fn algorithm(self, algorithm: Algorithm) -> Self {
        Self { algorithm, ..self }
    }

    /// Chooses block sizes for an L2 cache of this many bytes instead of this machine's, for layers that are packed from now on.
    /// Results are bit-identical for all sizes.
    ///
    /// ```
    /// # use rtformer::backend::{Cpu, Isa};
    /// assert!(Cpu::new(Isa::best(), 1)?.l2_cache(512 << 10).is_ok());
    /// assert!(Cpu::new(Isa::best(), 1)?.l2_cache(512).is_err());
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Device`] for less than 64 KB or more than 64 MB.
    pub fn l2_cache(self, bytes: usize) -> Result<Self> {
        if Caches::PLAUSIBLE_L2.contains(&bytes) {
            return Ok(Self { l2: bytes, ..self });
        }
        let reason = format!("an L2 cache of {bytes} bytes is not plausible; expected 64K to 64M");
        Err(Error::Device { device: "cpu".into(), reason })
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The number of threads in use.
    pub fn threads(&self) -> usize {
        self.threads
    }

    fn norm(affine: Affine) -> Norm {
        Norm { scale: Lanes::from_channels(&affine.scale), shift: Lanes::from_channels(&affine.shift), affine }
    }

    /// The maps with `lanes` interleaved channels; repacked if they have another number.
    fn with_lanes<'a>(&self, x: &'a Maps, lanes: usize) -> Result<Cow<'a, Maps>> {
        if x.layout().lanes == lanes {
            return Ok(Cow::Borrowed(x));
        }
        let layout = Layout { lanes, ..x.layout() };
        let packed = self.fill("repack", x.count(), layout, Split::BOTH, |i, out| kernels::repack(x.image(i)?, out));
        packed.map(Cow::Owned)
    }

    /// The maps in blocks of sixteen channels. All kernels read these, except the first convolution, which reads the photo.
    fn blocked<'a>(&self, x: &'a Maps) -> Result<Cow<'a, Maps>> {
        self.with_lanes(x, 16)
    }

    /// Runs `work` and records its duration if a profile is on.
    fn timed<T>(&self, name: &str, flops: f64, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.workers.entered().times.timed(name, flops, work)
    }

    fn buffers(&self) -> &Buffers {
        &self.workers.entered().buffers
    }

    /// The threads of this process.
    fn workers(&self) -> &Workers {
        self.workers.enter(|| Workers::restart(self.threads))
    }
}

impl Backend for Cpu {
    type Tensor = Maps;
    type Conv = Conv;
    type Norm = Norm;

    fn run<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        self.workers().run(work)
    }

    fn ready(&self) -> Result<()> {
        self.workers().ready().map_err(|reason| Error::Device { device: "cpu".into(), reason })
    }

    fn finish_packing(&self) -> Result<()> {
        let packing = std::mem::take(&mut *self.packing.lock());
        // From the end, because the threads start with the first.
        packing.iter().rev().try_for_each(|layer| layer.packed().map(drop).map_err(failed("pack")))
    }

    fn profile(&self, on: bool) -> Vec<OpTime> {
        self.workers.entered().times.record(on)
    }

    /// Measures all threads at once with multiply-adds only.
    fn peak_flops(&self) -> Option<f64> {
        self.run(|| Some(rayon::broadcast(|_| kernels::peak_flops(self.isa)).into_iter().sum()))
    }

    fn pack_conv(&self, layer: ConvLayer) -> Result<Conv> {
        self.pack(layer, self.element)
    }

    fn rounds_products(&self) -> bool {
        self.element != Element::F32
    }

    fn pack_conv_exact(&self, layer: ConvLayer) -> Result<Conv> {
        self.pack(layer, Element::F32)
    }

    fn pack_norm(&self, norm: BatchNorm) -> Result<Norm> {
        Ok(Self::norm(norm.affine()))
    }

    fn prepare(&self, photos: &[Pixels<'_>], preparation: &Preparation) -> Result<Maps> {
        let (height, width) = common_extent(photos, preparation)?.full;
        let layout = Layout::planar(3, height, width);
        self.buffers().begin(photos.len(), layout);
        self.timed("prepare", 0.0, || {
            let rows = Rows::new(preparation, &photos[0], self.buffers().columns())?;
            let kept = rows.extent().kept;
            let made = self.run(|| {
                self.fill("prepare", photos.len(), layout, Split::ROWS, |i, out| {
                    kernels::fill_planes(out, kept, |y, planes| rows.write(&photos[i], y, planes))
                })
            });
            self.buffers().keep_columns(rows.into_columns());
            made
        })
    }

    fn upload(&self, data: &[f32], shape: [usize; 4]) -> Result<Maps> {
        check_upload(data, shape)?;
        let [n, c, h, w] = shape;
        // Blocks of sixteen channels would take five times the memory of a photo's three planes.
        let layout = Layout { lanes: if c <= 3 { 1 } else { 16 }, ..Layout::blocked(c, h, w) };
        self.buffers().begin(n, layout);
        let image = c * h * w;
        self.timed("upload", 0.0, || {
            self.run(|| {
                self.fill("upload", n, layout, Split::BOTH, |i, out| {
                    kernels::pack_nchw(&data[i * image..][..image], out)
                })
            })
        })
    }

    fn download(&self, x: &Maps) -> Result<Vec<f32>> {
        let [n, c, h, w] = self.shape(x);
        let mut data = vec![0.0; n * c * h * w];
        for (i, image) in data.chunks_exact_mut(c * h * w).enumerate() {
            x.image(i).and_then(|map| kernels::unpack_nchw(map, image)).map_err(failed("download"))?;
        }
        Ok(data)
    }

    fn shape(&self, x: &Maps) -> [usize; 4] {
        let Layout { channels, height, width, .. } = x.layout();
        [x.count(), channels, height, width]
    }

    fn conv(&self, conv: &Conv, x: &Maps, epilogue: Epilogue<'_, Maps>) -> Result<Maps> {
        self.convolve(conv, x, &epilogue)
    }

    fn relu(&self, x: &Maps) -> Result<Maps> {
        let x = &*self.blocked(x)?;
        self.timed("relu", 0.0, || {
            self.fill("relu", x.count(), x.layout(), Split::BOTH, |i, out| kernels::relu(self.isa, x.image(i)?, out))
        })
    }

    fn add(&self, a: &Maps, b: &Maps) -> Result<Maps> {
        let (a, b) = (&*self.blocked(a)?, &*self.blocked(b)?);
        self.timed("add", 0.0, || {
            self.fill("add", a.count(), a.layout(), Split::BOTH, |i, out| {
                kernels::add(self.isa, a.image(i)?, b.image(i)?, out)
            })
        })
    }

    fn resize(&self, x: &Maps, size: impl Into<Extent>) -> Result<Maps> {
        let (x, Extent { full, kept: (height, width) }) = (&*self.blocked(x)?, size.into());
        let layout = Layout::blocked(x.layout().channels, height, width);
        self.timed("resize", 0.0, || {
            self.fill("resize", x.count(), layout, Split::BOTH, |i, out| {
                kernels::resize(self.isa, x.image(i)?, full, out)
            })
        })
    }

    fn resize_add(&self, x: &Maps, base: &Maps) -> Result<Maps> {
        let (x, base) = (&*self.blocked(x)?, &*self.blocked(base)?);
        self.timed("resize_add", 0.0, || {
            self.fill("resize_add", x.count(), base.layout(), Split::BOTH, |i, out| {
                kernels::resize_add(self.isa, x.image(i)?, Some(base.image(i)?), out)
            })
        })
    }

    fn avg_pool(&self, x: &Maps, window: Option<Window>) -> Result<Maps> {
        let x = &*self.blocked(x)?;
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
        let x = &*self.blocked(x)?;
        let layout = Layout::blocked(x.layout().channels, side, side);
        self.timed("max_pool_to", 0.0, || {
            self.fill("max_pool_to", x.count(), layout, Split::BOTH, |i, out| {
                kernels::max_pool_to(self.isa, x.image(i)?, &norm.scale, &norm.shift, out)
            })
        })
    }

    fn ea_norm(&self, x: Maps, groups: usize) -> Result<Maps> {
        self.timed("ea_norm", 0.0, || {
            // Repacked maps are not shared, so `thaw` writes them in place, like maps that the caller gave up.
            let packed = if x.layout().lanes == 16 { x } else { self.blocked(&x)?.into_owned() };
            let mut x = self.buffers().thaw(packed)?;
            self.fill_blank("ea_softmax", &mut x, Split::BLOCKS, |_, view| kernels::ea_softmax(self.isa, view))?;
            self.fill_blank("ea_group_l1", &mut x, Split::ROWS, |_, view| {
                kernels::ea_group_l1(self.isa, view, groups)
            })?;
            Ok(x.freeze())
        })
    }

    fn cross_attend(&self, x: &Maps, norm: &Norm, kv: &Maps) -> Result<Maps> {
        let (x, kv) = (&*self.blocked(x)?, &*self.blocked(kv)?);
        let Layout { channels, height, width, .. } = x.layout();
        let keys = kv.layout().height * kv.layout().width;
        let flops = 4.0 * [x.count(), channels, height, width, keys].map(|d| d as f64).iter().product::<f64>();
        self.timed("cross_attend", flops, || {
            let mut packed = self.buffers().keys(x.count());
            for (i, keys) in packed.iter_mut().enumerate() {
                let pack = |kv| keys.pack(kv, &norm.affine.scale, &norm.affine.shift, self.element);
                kv.image(i).and_then(pack).map_err(failed("cross_attend"))?;
            }
            let out = self.fill("cross_attend", x.count(), x.layout(), Split::ROWS, |i, out| -> Result<_, Failure> {
                let x = x.image(i)?;
                let mut scratch = self.buffers().scratch(packed[i].scratch_len(x.layout()))?;
                Ok(kernels::cross_attend(self.isa, x, &packed[i], Some(x), out, &mut scratch)?)
            });
            self.buffers().keep_keys(packed);
            out
        })
    }

    fn concat(&self, parts: &[&Maps]) -> Result<Maps> {
        let Some(first) = parts.first() else {
            return Err(Error::Backend { operation: "concat", reason: "expected at least one map, got none".into() });
        };
        if parts.iter().any(|part| part.layout().lanes != 16) {
            let blocked = parts.iter().map(|part| self.blocked(part)).collect::<Result<Vec<_>>>()?;
            return self.concat(&blocked.iter().map(|part| &**part).collect::<Vec<_>>());
        }
        let channels = parts.iter().map(|part| part.layout().channels).sum();
        let layout = Layout { channels, lanes: 16, ..first.layout() };
        self.timed("concat", 0.0, || {
            let mut out = self.buffers().blank(first.count(), layout)?;
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
        size: impl Into<Extent>,
        ids: IdsMut<'_>,
        confidence: Option<Confidence<'_>>,
    ) -> Result<()> {
        let (logits, size) = (&*self.blocked(logits)?, size.into());
        let readout = Readout { isa: self.isa, logits, image, size };
        self.timed("argmax", 0.0, || {
            let done = self.run(|| match ids {
                IdsMut::U8(ids) => readout.argmax(self.pieces(Split::ROWS), 0..size.kept.0, ids, confidence),
                IdsMut::U16(ids) => readout.argmax(self.pieces(Split::ROWS), 0..size.kept.0, ids, confidence),
            });
            done.map_err(failed("argmax"))
        })
    }

    fn upsample(&self, logits: &Maps, image: usize, size: impl Into<Extent>, out: &mut [f32]) -> Result<()> {
        let (logits, size) = (&*self.blocked(logits)?, size.into());
        let readout = Readout { isa: self.isa, logits, image, size };
        self.timed("upsample", 0.0, || {
            let done = self.run(|| readout.upsample(self.pieces(Split::ROWS), out));
            done.map_err(failed("upsample"))
        })
    }

    fn release(&self) {
        self.buffers().release();
    }
}

/// Translates a shape error of `operation`.
fn failed(operation: &'static str) -> impl FnOnce(ShapeError) -> Error {
    move |error| Failure::from(error).named(operation)
}
