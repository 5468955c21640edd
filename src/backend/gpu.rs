//! The contract on the GPU kernels, for every device that launches them: CUDA, Metal, and their emulation.

use std::sync::Arc;

use rtformer_kernels::gpu::argmax::GpuIds;
use rtformer_kernels::gpu::conv::{GpuConv, GpuEpilogue, GpuNorm};
use rtformer_kernels::gpu::{
    Device, GpuElement, GpuError, GpuMaps, GpuShape, argmax, concat, conv, cross_attend, ea_norm, pack, pointwise,
    pool, resize_add,
};

use super::times::Times;
use super::{Backend, Confidence, Epilogue, OpTime, Window};
use crate::error::{Error, Result};
use crate::pixels::IdsMut;
use crate::weights::fold::{Affine, BatchNorm, ConvLayer};

/// Runs on a GPU.
///
/// Maps are NHWC in f32 or f16, sums always f32. Work is queued on the device, and waited for when something is read back.
pub struct Gpu<D: Device> {
    device: D,
    /// By which it was asked for.
    name: String,
    element: GpuElement,
    times: Times,
}

/// A convolution on the device, and what it is called.
pub struct Conv<B> {
    name: String,
    conv: GpuConv<B>,
}

impl<D: Device> Gpu<D> {
    /// The kernels on `device`, which was asked for as `name`, with maps stored as `element`.
    pub fn new(device: D, name: impl Into<String>, element: GpuElement) -> Self {
        Self { device, name: name.into(), element, times: Times::default() }
    }

    /// What the device calls itself.
    pub fn device_name(&self) -> String {
        self.device.name()
    }

    /// What a refusal of the device means.
    fn error(&self, operation: &'static str) -> impl FnOnce(GpuError) -> Error {
        let device = self.name.clone();
        move |e| match e {
            GpuError::Missing(_) | GpuError::OutOfMemory { .. } | GpuError::Driver { .. } | GpuError::Lost(_) => {
                Error::Device { device, reason: e.to_string() }
            }
            GpuError::Shape(_) | GpuError::Kernel { .. } => Error::Backend { operation, reason: e.to_string() },
        }
    }

    /// Runs `work`, and notes how long the device was busy with it when a profile is on.
    fn timed<T>(
        &self,
        operation: &'static str,
        name: &str,
        flops: f64,
        work: impl FnOnce() -> Result<T, GpuError>,
    ) -> Result<T> {
        if !self.times.recording() {
            return work().map_err(self.error(operation));
        }
        self.device.finish().map_err(self.error(operation))?;
        let finished = || work().and_then(|done| self.device.finish().map(|()| done));
        self.times.timed(name, flops, finished).map_err(self.error(operation))
    }

    fn op(
        &self,
        operation: &'static str,
        work: impl FnOnce() -> Result<GpuMaps<D::Buffer>, GpuError>,
    ) -> Result<Arc<GpuMaps<D::Buffer>>> {
        self.timed(operation, operation, 0.0, work).map(Arc::new)
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
        self.times.record(on)
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

    fn upload(&self, data: &[f32], [n, channels, height, width]: [usize; 4]) -> Result<Self::Tensor> {
        let shape = GpuShape { n, channels, height, width };
        let want = n * channels * height * width;
        if want == 0 || data.len() != want {
            return Err(Error::Input(format!(
                "the input has {} floats, {n}x{channels}x{height}x{width} needs {want}, and some",
                data.len()
            )));
        }
        self.op("upload", || pack::pack(&self.device, data, shape, self.element))
    }

    fn download(&self, x: &Self::Tensor) -> Result<Vec<f32>> {
        let mut data = vec![0.0; self.shape(x).iter().product()];
        self.timed("download", "download", 0.0, || pack::unpack(&self.device, x, &mut data))?;
        Ok(data)
    }

    fn shape(&self, x: &Self::Tensor) -> [usize; 4] {
        let GpuShape { n, channels, height, width } = x.shape();
        [n, channels, height, width]
    }

    fn conv(&self, conv: &Self::Conv, x: &Self::Tensor, epilogue: Epilogue<'_, Self::Tensor>) -> Result<Self::Tensor> {
        let flops = 2.0 * x.shape().n as f64 * conv.conv.shape().macs(x.shape().height, x.shape().width) as f64;
        let epilogue = GpuEpilogue { residual: epilogue.residual.map(|maps| &**maps), activation: epilogue.activation };
        self.timed("conv", &conv.name, flops, || conv::conv(&self.device, &conv.conv, x, &epilogue)).map(Arc::new)
    }

    fn relu(&self, x: &Self::Tensor) -> Result<Self::Tensor> {
        self.op("relu", || pointwise::relu(&self.device, x))
    }

    fn add(&self, a: &Self::Tensor, b: &Self::Tensor) -> Result<Self::Tensor> {
        self.op("add", || pointwise::add(&self.device, a, b))
    }

    fn resize(&self, x: &Self::Tensor, height: usize, width: usize) -> Result<Self::Tensor> {
        self.op("resize", || resize_add::resize(&self.device, x, (height, width)))
    }

    fn resize_add(&self, x: &Self::Tensor, base: &Self::Tensor) -> Result<Self::Tensor> {
        self.op("resize_add", || resize_add::resize_add(&self.device, x, base))
    }

    fn avg_pool(&self, x: &Self::Tensor, window: Option<Window>) -> Result<Self::Tensor> {
        match window {
            Some(Window { kernel, stride, padding }) => {
                self.op("avg_pool", || pool::avg_pool(&self.device, x, [kernel, stride, padding]))
            }
            None => self.op("global_avg_pool", || pool::global_avg_pool(&self.device, x)),
        }
    }

    fn max_pool_to(&self, x: &Self::Tensor, norm: &Self::Norm, side: usize) -> Result<Self::Tensor> {
        self.op("max_pool_to", || pool::max_pool_to(&self.device, x, norm, side))
    }

    fn ea_norm(&self, x: Self::Tensor, groups: usize) -> Result<Self::Tensor> {
        self.op("ea_norm", || {
            // In place where nobody else holds it; else in a copy, which is what one part side by side is.
            let mut x = Arc::try_unwrap(x).or_else(|shared| concat::concat(&self.device, &[&*shared]))?;
            ea_norm::ea_norm(&self.device, &mut x, groups)?;
            Ok(x)
        })
    }

    fn cross_attend(&self, x: &Self::Tensor, norm: &Self::Norm, kv: &Self::Tensor) -> Result<Self::Tensor> {
        let (GpuShape { n, channels, height, width }, keys) = (x.shape(), kv.shape().pixels());
        let flops = 4.0 * [n, channels, height, width, keys].map(|d| d as f64).iter().product::<f64>();
        let work = || cross_attend::cross_attend(&self.device, x, norm, kv);
        self.timed("cross_attend", "cross_attend", flops, work).map(Arc::new)
    }

    fn concat(&self, parts: &[&Self::Tensor]) -> Result<Self::Tensor> {
        let parts: Vec<_> = parts.iter().map(|part| &***part).collect();
        self.op("concat", || concat::concat(&self.device, &parts))
    }

    fn argmax(
        &self,
        logits: &Self::Tensor,
        image: usize,
        size: (usize, usize),
        ids: IdsMut<'_>,
        confidence: Option<Confidence<'_>>,
    ) -> Result<()> {
        let ids = match ids {
            IdsMut::U8(ids) => GpuIds::U8(ids),
            IdsMut::U16(ids) => GpuIds::U16(ids),
        };
        self.timed("argmax", "argmax", 0.0, || argmax::argmax(&self.device, logits, image, size, ids, confidence))
    }

    fn upsample(&self, logits: &Self::Tensor, image: usize, size: (usize, usize), out: &mut [f32]) -> Result<()> {
        self.timed("upsample", "upsample", 0.0, || argmax::upsample(&self.device, logits, image, size, out))
    }
}
