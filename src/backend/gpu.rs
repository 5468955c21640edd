//! Implements [`Backend`] with the GPU kernels, for every device that launches them: CUDA, Metal, and their emulation.

mod staging;

use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use rtformer_kernels::argmax::gpu::{self as argmax, Found, GpuIds};
use rtformer_kernels::concat::gpu as concat;
use rtformer_kernels::conv::gpu::{self as conv, GpuConv, GpuEpilogue, GpuNorm};
use rtformer_kernels::cross_attend::gpu as cross_attend;
use rtformer_kernels::ea_norm::gpu as ea_norm;
use rtformer_kernels::gpu::{Device, Frame, GpuElement, GpuError, GpuMaps, GpuShape, Io};
use rtformer_kernels::pack::gpu as pack;
use rtformer_kernels::pointwise::gpu as pointwise;
use rtformer_kernels::pool::gpu as pool;
use rtformer_kernels::resize_add::gpu as resize_add;

pub(crate) use rtformer_kernels::prepare::gpu::Table;
pub(crate) use staging::Staging;

use super::{Backend, Confidence, Epilogue, OpTime, Window, check_upload};
use crate::error::{Error, Result};
use crate::memory;
use crate::pixels::{Extent, IdsMut, Input, Pixels, Preparation};
use crate::weights::fold::{Affine, BatchNorm, ConvLayer};

/// Runs on a GPU.
///
/// Maps are NHWC in f32 or f16; sums are always f32. Operations queue work on the device; reading a result back waits for it.
pub struct Gpu<D: Device> {
    device: D,
    /// The name with which it was requested, such as `cuda:0`.
    name: String,
    element: GpuElement,
    /// `Some` while a profile is on.
    marks: Mutex<Option<Marks<D>>>,
}

/// A convolution on the device, and its layer's name.
pub struct Conv<B> {
    name: String,
    conv: GpuConv<B>,
}

/// Timestamps between the operations of a queue.
pub(crate) struct Marks<D: Device> {
    begin: D::Stamp,
    /// Each operation with its end; its duration is not known yet.
    operations: Vec<(OpTime, D::Stamp)>,
}

/// An error of a frame's work: of the GPU, or already translated.
pub(crate) enum Fault {
    Gpu(GpuError),
    Named(Error),
}

impl From<GpuError> for Fault {
    fn from(error: GpuError) -> Self {
        Self::Gpu(error)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Named(error)
    }
}

/// The size of the maps in bytes.
fn bytes<B>(maps: &GpuMaps<B>) -> f64 {
    (maps.shape().len() * maps.element().bytes()) as f64
}

impl<D: Device> Gpu<D> {
    /// Runs the kernels on `device`, with maps stored as `element`. Errors name the device `name`.
    pub fn new(device: D, name: impl Into<String>, element: GpuElement) -> Self {
        Self { device, name: name.into(), element, marks: Mutex::default() }
    }

    /// The device's own name, such as the model of the GPU.
    pub fn device_name(&self) -> String {
        self.device.name()
    }

    /// Opens another queue of the same device.
    pub(crate) fn fork(&self) -> Result<Self> {
        let device = self.device.fork().map_err(self.error("fork"))?;
        Ok(Self::new(device, self.name.clone(), self.element))
    }

    /// Waits for all work of this queue.
    pub(crate) fn finish(&self) -> Result<()> {
        self.device.finish().map_err(self.error("finish"))
    }

    /// Frees the unused memory of this queue.
    pub(crate) fn trim(&self) -> Result<()> {
        self.device.trim().map_err(self.error("trim"))
    }

    /// A frame on this queue; `inputs` and `outputs` are sizes in bytes.
    pub(crate) fn frame(&self, inputs: &[usize], outputs: &[usize]) -> Result<Frame<D>> {
        Frame::new(&self.device, inputs, outputs).map_err(self.error("frame"))
    }

    /// Allocates `bytes` of device memory.
    pub(crate) fn buffer(&self, bytes: usize) -> Result<D::Buffer> {
        self.device.buffer(bytes).map_err(self.error("buffer"))
    }

    /// Translates a frame's fault.
    pub(crate) fn fault(&self, fault: impl Into<Fault>) -> Error {
        match fault.into() {
            Fault::Gpu(error) => self.error("frame")(error),
            Fault::Named(error) => error,
        }
    }

    /// Copies the normalised value of each byte, for red, green and blue, to the device.
    pub(crate) fn table(&self, values: &[[f32; 256]; 3]) -> Result<Table<D::Buffer>> {
        Table::new(&self.device, values).map_err(self.error("prepare"))
    }

    /// As [`Backend::argmax`], but leaves the result in device memory.
    pub(crate) fn argmax_to(
        &self,
        logits: &GpuMaps<D::Buffer>,
        image: usize,
        size: impl Into<Extent>,
        found: &Found<'_, D::Buffer>,
    ) -> Result<()> {
        let of = |buffer| self.device.len(buffer) as f64;
        let written = of(found.ids) + found.confidence.map_or(0.0, |(sure, _)| of(sure));
        let moved = bytes(logits) / logits.shape().n as f64 + written;
        self.timed("argmax", "argmax", [0.0, moved], || argmax::argmax_to(&self.device, logits, image, size, found))
    }

    /// As [`Backend::upsample`], but leaves the result in device memory.
    pub(crate) fn upsample_to(
        &self,
        logits: &GpuMaps<D::Buffer>,
        image: usize,
        size: impl Into<Extent>,
        out: &D::Buffer,
    ) -> Result<()> {
        let moved = bytes(logits) / logits.shape().n as f64 + self.device.len(out) as f64;
        self.timed("upsample", "upsample", [0.0, moved], || argmax::upsample_to(&self.device, logits, image, size, out))
    }

    /// Copies a frame's inputs to the device.
    pub(crate) fn copy_in(&self, io: &Io<'_, D>, bytes: usize) -> Result<()> {
        self.timed("copy in", "copy in", [0.0, bytes as f64], || io.copy_in())
    }

    /// Copies a frame's outputs back to the host.
    pub(crate) fn copy_out(&self, io: &Io<'_, D>, bytes: usize) -> Result<()> {
        self.timed("copy out", "copy out", [0.0, bytes as f64], || io.copy_out())
    }

    fn marks(&self) -> MutexGuard<'_, Option<Marks<D>>> {
        self.marks.lock()
    }

    /// Starts recording timestamps between operations.
    pub(crate) fn begin_marks(&self) -> Result<()> {
        let begin = self.device.stamp().map_err(self.error("profile"))?;
        *self.marks() = Some(Marks { begin, operations: Vec::new() });
        Ok(())
    }

    /// Stops recording and returns the timestamps.
    pub(crate) fn end_marks(&self) -> Option<Marks<D>> {
        self.marks().take()
    }

    /// The time that the device spent on each operation. Call it after the queue has finished.
    pub(crate) fn times(&self, marks: &Marks<D>) -> Result<Vec<OpTime>> {
        let begins = std::iter::once(&marks.begin).chain(marks.operations.iter().map(|(_, end)| end));
        let times = begins.zip(&marks.operations).map(|(begin, (operation, end))| {
            Ok(OpTime { milliseconds: self.device.between(begin, end)?, ..operation.clone() })
        });
        times.collect::<Result<_, _>>().map_err(self.error("profile"))
    }

    /// Translates an error of the device.
    fn error(&self, operation: &'static str) -> impl FnOnce(GpuError) -> Error {
        let device = self.name.clone();
        move |e| match e {
            GpuError::Missing(_) | GpuError::Driver { .. } | GpuError::Lost(_) => {
                Error::Device { device, reason: e.to_string() }
            }
            GpuError::OutOfMemory { .. } => Error::DeviceMemory { device, reason: e.to_string() },
            GpuError::Shape(_) | GpuError::Kernel { .. } => Error::Backend { operation, reason: e.to_string() },
        }
    }

    /// Runs `work` of `flops` floating-point operations and `bytes` moved; records its end while a profile is on.
    fn timed<T>(
        &self,
        operation: &'static str,
        name: &str,
        [flops, bytes]: [f64; 2],
        work: impl FnOnce() -> Result<T, GpuError>,
    ) -> Result<T> {
        let done = work().map_err(self.error(operation))?;
        if let Some(marks) = &mut *self.marks() {
            let end = self.device.stamp().map_err(self.error(operation))?;
            marks.operations.push((OpTime { name: name.to_owned(), milliseconds: 0.0, flops, bytes }, end));
        }
        Ok(done)
    }

    /// Runs an operation that reads `read` bytes and creates maps.
    fn op(
        &self,
        operation: &'static str,
        read: f64,
        work: impl FnOnce() -> Result<GpuMaps<D::Buffer>, GpuError>,
    ) -> Result<Arc<GpuMaps<D::Buffer>>> {
        self.named(operation, operation, 0.0, read, work)
    }

    /// As [`op`](Self::op), with a name and `flops` floating-point operations.
    fn named(
        &self,
        operation: &'static str,
        name: &str,
        flops: f64,
        read: f64,
        work: impl FnOnce() -> Result<GpuMaps<D::Buffer>, GpuError>,
    ) -> Result<Arc<GpuMaps<D::Buffer>>> {
        let done = work().map_err(self.error(operation))?;
        let moved = read + bytes(&done);
        self.timed(operation, name, [flops, moved], || Ok(Arc::new(done)))
    }

    fn norm(&self, affine: &Affine) -> Result<GpuNorm<D::Buffer>, GpuError> {
        GpuNorm::new(&self.device, &affine.scale, &affine.shift)
    }
}

impl<D: Device> Backend for Gpu<D> {
    type Tensor = Arc<GpuMaps<D::Buffer>>;
    type Conv = Conv<D::Buffer>;
    type Norm = GpuNorm<D::Buffer>;

    fn profile(&self, on: bool) -> Vec<OpTime> {
        // If the device fails here, return no times: its next operation reports the error.
        let marks = self.end_marks();
        let times = marks.and_then(|marks| self.finish().and_then(|()| self.times(&marks)).ok());
        if on {
            let _ = self.begin_marks();
        }
        times.unwrap_or_default()
    }

    fn pack_conv(&self, layer: ConvLayer) -> Result<Self::Conv> {
        let folded = layer.fold()?;
        let shape = layer.shape();
        let packed = || {
            let prologue = folded.prologue.as_ref().map(|(affine, relu)| self.norm(affine).map(|norm| (norm, *relu)));
            GpuConv::new(&self.device, shape, &folded.weight, &folded.bias, prologue.transpose()?, self.element)
        };
        let conv = packed().map_err(|e| match self.error("pack")(e) {
            Error::Backend { operation, reason } => {
                Error::Backend { operation, reason: format!("`{}`: {reason}", layer.name) }
            }
            other => other,
        })?;
        Ok(Conv { conv, name: layer.name })
    }

    fn pack_norm(&self, norm: BatchNorm) -> Result<Self::Norm> {
        self.norm(&norm.affine()).map_err(self.error("pack"))
    }

    fn prepare(&self, photos: &[Pixels<'_>], preparation: &Preparation) -> Result<Self::Tensor> {
        let staging = Staging::of(photos, preparation)?;
        let table = self.table(&preparation.normalization.tables()?)?;
        let mut bytes = memory::filled(staging.bytes(), 0, || format!("the bytes of {} photos", photos.len()))?;
        staging.fill(photos, preparation, &mut Input::default(), &mut bytes)?;
        let copied = || {
            let mut buffer = self.device.buffer(bytes.len())?;
            self.device.write(&mut buffer, &bytes).map(|()| buffer)
        };
        self.prepare_staged(&copied().map_err(self.error("prepare"))?, &staging, &table)
    }

    fn upload(&self, data: &[f32], [n, channels, height, width]: [usize; 4]) -> Result<Self::Tensor> {
        let shape = GpuShape { n, channels, height, width };
        check_upload(data, [n, channels, height, width])?;
        self.op("upload", size_of_val(data) as f64, || pack::pack(&self.device, data, shape, self.element))
    }

    fn download(&self, x: &Self::Tensor) -> Result<Vec<f32>> {
        let mut data = vec![0.0; self.shape(x).iter().product()];
        self.timed("download", "download", [0.0, 2.0 * bytes(x)], || pack::unpack(&self.device, x, &mut data))?;
        Ok(data)
    }

    fn shape(&self, x: &Self::Tensor) -> [usize; 4] {
        let GpuShape { n, channels, height, width } = x.shape();
        [n, channels, height, width]
    }

    fn conv(&self, conv: &Self::Conv, x: &Self::Tensor, epilogue: Epilogue<'_, Self::Tensor>) -> Result<Self::Tensor> {
        let flops = 2.0 * x.shape().n as f64 * conv.conv.shape().macs(x.shape().height, x.shape().width) as f64;
        let epilogue = GpuEpilogue { residual: epilogue.residual.map(|maps| &**maps), activation: epilogue.activation };
        let shape = conv.conv.shape();
        let weights = shape.kernel * shape.kernel * shape.in_channels * shape.out_channels * self.element.bytes();
        let read = bytes(x) + weights as f64 + epilogue.residual.map_or(0.0, bytes);
        self.named("conv", &conv.name, flops, read, || conv::conv(&self.device, &conv.conv, x, &epilogue))
    }

    fn relu(&self, x: &Self::Tensor) -> Result<Self::Tensor> {
        self.op("relu", bytes(x), || pointwise::relu(&self.device, x))
    }

    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor> {
        self.op("add", bytes(a) + bytes(b), || pointwise::add(&self.device, a, b))
    }

    fn resize(&self, x: &Self::Tensor, size: impl Into<Extent>) -> Result<Self::Tensor> {
        self.op("resize", bytes(x), || resize_add::resize(&self.device, x, size))
    }

    fn resize_add(&self, x: &Self::Tensor, base: &Self::Tensor) -> Result<Self::Tensor> {
        self.op("resize_add", bytes(x) + bytes(base), || resize_add::resize_add(&self.device, x, base))
    }

    fn avg_pool(&self, x: &Self::Tensor, window: Option<Window>) -> Result<Self::Tensor> {
        match window {
            Some(Window { kernel, stride, padding }) => {
                self.op("avg_pool", bytes(x), || pool::avg_pool(&self.device, x, [kernel, stride, padding]))
            }
            None => self.op("global_avg_pool", bytes(x), || pool::global_avg_pool(&self.device, x)),
        }
    }

    fn max_pool_to(&self, x: &Self::Tensor, norm: &Self::Norm, side: usize) -> Result<Self::Tensor> {
        self.op("max_pool_to", bytes(x), || pool::max_pool_to(&self.device, x, norm, side))
    }

    fn ea_norm(&self, x: Self::Tensor, groups: usize) -> Result<Self::Tensor> {
        // Read once for the statistics and once for the normalization.
        let read = 2.0 * bytes(&x);
        self.op("ea_norm", read, || {
            // In place if not shared, else in a copy: the concatenation of one part.
            let mut x = Arc::try_unwrap(x).or_else(|shared| concat::concat(&self.device, &[&*shared]))?;
            ea_norm::ea_norm(&self.device, &mut x, groups)?;
            Ok(x)
        })
    }

    fn cross_attend(&self, x: &Self::Tensor, norm: &Self::Norm, kv: &Self::Tensor) -> Result<Self::Tensor> {
        let (GpuShape { n, channels, height, width }, keys) = (x.shape(), kv.shape().pixels());
        let flops = 4.0 * [n, channels, height, width, keys].map(|d| d as f64).iter().product::<f64>();
        let work = || cross_attend::cross_attend(&self.device, x, norm, kv);
        self.named("cross_attend", "cross_attend", flops, bytes(x) + bytes(kv), work)
    }

    fn concat(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor> {
        let parts: Vec<_> = parts.iter().map(|part| &***part).collect();
        let read = parts.iter().map(|part| bytes(part)).sum();
        self.op("concat", read, || concat::concat(&self.device, &parts))
    }

    fn argmax(
        &self,
        logits: &Self::Tensor,
        image: usize,
        size: impl Into<Extent>,
        ids: IdsMut<'_>,
        confidence: Option<Confidence<'_>>,
    ) -> Result<()> {
        let ids = match ids {
            IdsMut::U8(ids) => GpuIds::U8(ids),
            IdsMut::U16(ids) => GpuIds::U16(ids),
        };
        self.timed("argmax", "argmax", [0.0, bytes(logits)], || {
            argmax::argmax(&self.device, logits, image, size, ids, confidence)
        })
    }

    fn upsample(&self, logits: &Self::Tensor, image: usize, size: impl Into<Extent>, out: &mut [f32]) -> Result<()> {
        self.timed("upsample", "upsample", [0.0, bytes(logits)], || {
            argmax::upsample(&self.device, logits, image, size, out)
        })
    }
}
