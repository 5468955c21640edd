//! Inputs that stay on the device, and the results that are computed from them.

use std::sync::Arc;

use parking_lot::Mutex;
use rtformer_kernels::argmax::gpu::Found;
use rtformer_kernels::gpu::{Device, Frame, GpuMaps};

use super::OnGpu;
use crate::backend::{Backend, Fault, Gpu};
use crate::error::Result;
use crate::pixels::{Extent, Input};
use crate::segmenter::engine::{Product, Spent, Uploaded, Wanted, joined, read_out};
use crate::timing::timed;

/// Inputs on the device.
pub(super) struct OnDevice<'a, D: Device> {
    engine: &'a OnGpu<D>,
    extent: Extent,
    here: Mutex<Here<D>>,
}

struct Here<D: Device> {
    mask: Option<Computed<D>>,
    logits: Option<Computed<D>>,
    x: Arc<GpuMaps<D::Buffer>>,
    gpu: Gpu<D>,
}

/// The recorded work for a product, and the buffers with its result for each photo.
struct Computed<D: Device> {
    frame: Frame<D>,
    out: Vec<D::Buffer>,
}

impl<'a, D: Device> OnDevice<'a, D> {
    pub(super) fn new(engine: &'a OnGpu<D>, inputs: &[Input]) -> Result<Self> {
        let gpu = engine.gpu.fork()?;
        let (floats, shape, extent) = joined(inputs)?;
        let x = gpu.upload(&floats, shape)?;
        Ok(Self { engine, extent, here: Mutex::new(Here { mask: None, logits: None, x, gpu }) })
    }
}

impl<D: Device> Uploaded for OnDevice<'_, D> {
    fn run(&self, wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let here = self.here.lock();
        let (done, model) = timed(|| {
            let logits = self.engine.network.forward(&here.gpu, Arc::clone(&here.x))?;
            read_out(&here.gpu, &logits, self.extent, wanted)
        });
        done.map(|()| Spent { model, ..Spent::default() })
    }

    fn compute(&self, product: Product) -> Result<bool> {
        let Here { mask, logits, x, gpu } = &mut *self.here.lock();
        let (classes, (height, width)) = (self.engine.classes, self.extent.kept);
        let wide = classes > 256;
        let (computed, bytes) = match product {
            Product::Mask => (mask, height * width * if wide { 2 } else { 1 }),
            Product::Logits => (logits, height * width * classes * size_of::<f32>()),
        };
        if computed.is_none() {
            let out = (0..x.shape().n).map(|_| gpu.buffer(bytes)).collect::<Result<_>>()?;
            *computed = Some(Computed { frame: gpu.frame(&[], &[])?, out });
        }
        let Some(Computed { frame, out }) = computed else { return Ok(false) };
        let started = frame.start(|_| -> Result<(), Fault> {
            let logits = self.engine.network.forward(gpu, Arc::clone(x))?;
            for (image, out) in out.iter().enumerate() {
                match product {
                    Product::Mask => {
                        let found = Found { ids: out, wide, confidence: None };
                        gpu.argmax_to(&logits, image, self.extent, &found)?;
                    }
                    Product::Logits => gpu.upsample_to(&logits, image, self.extent, out)?,
                }
            }
            Ok(())
        });
        started.map_err(|fault| gpu.fault(fault))?;
        frame.wait().map_err(|e| gpu.fault(e)).map(|()| true)
    }
}
