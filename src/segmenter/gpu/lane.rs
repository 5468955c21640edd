//! One queue of the device, with its recorded frames.

use std::sync::Arc;

use rayon::prelude::*;
use rtformer_kernels::argmax::gpu::Found;
use rtformer_kernels::gpu::{Device, Frame, GpuMaps, Io};

use super::OnGpu;
use crate::backend::{Fault, Gpu, Marks, OpTime, Staging};
use crate::error::Result;
use crate::pixels::{IdsMut, Input, Pixels};
use crate::segmenter::engine::{Wanted, resized, source};
use crate::timing::timed;

/// The number of plans that a lane keeps. Each is for one size and set of outputs, and holds the maps of a frame.
pub(super) const PLANS: usize = 4;
/// The number of bytes that a thread copies at a time.
const COPY: usize = 1 << 18;

/// A queue, and its plans.
pub(super) struct Lane<D: Device> {
    /// The least recently used plan is the first.
    pub(super) plans: Vec<Plan<D>>,
    gpu: Gpu<D>,
    /// A buffer in which photos are resized.
    input: Input,
}

/// A recorded frame, and the key that it is for.
pub(super) struct Plan<D: Device> {
    key: Key,
    frame: Frame<D>,
    marks: Option<Marks<D>>,
}

/// Everything that a recorded frame depends on.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    staging: Staging,
    wanted: Vec<Readout>,
    profiled: bool,
}

/// The requested outputs of one photo.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Readout {
    size: (usize, usize),
    /// Whether ids have 16 bits; `None` if ids are not requested.
    wide: Option<bool>,
    temperature: Option<f32>,
    /// The number of classes; `None` if logits are not requested.
    logits: Option<usize>,
}

impl Readout {
    fn of(wanted: &Wanted<'_>) -> Self {
        let pixels = wanted.size.0 * wanted.size.1;
        Self {
            size: wanted.size,
            wide: wanted.ids.as_ref().map(|ids| matches!(ids, IdsMut::U16(_))),
            temperature: wanted.confidence.as_ref().map(|confidence| confidence.temperature),
            logits: wanted.logits.as_ref().map(|logits| logits.len() / pixels.max(1)),
        }
    }

    /// The number of bytes of each requested output, in the order ids, confidence, logits.
    fn outputs(self) -> impl Iterator<Item = usize> {
        let pixels = self.size.0 * self.size.1;
        let ids = self.wide.map(|wide| if wide { 2 * pixels } else { pixels });
        let confidence = self.wide.and(self.temperature).map(|_| size_of::<f32>() * pixels);
        [ids, confidence, self.logits.map(|classes| size_of::<f32>() * classes * pixels)].into_iter().flatten()
    }
}

impl Key {
    fn outputs(&self) -> Vec<usize> {
        self.wanted.iter().flat_map(|wanted| wanted.outputs()).collect()
    }
}

impl<D: Device> Lane<D> {
    pub(super) fn new(gpu: Gpu<D>) -> Self {
        Self { plans: Vec::new(), gpu, input: Input::default() }
    }

    /// Starts photos. Returns the milliseconds that it took to prepare them.
    pub(super) fn take_off(&mut self, engine: &OnGpu<D>, photos: &[Pixels<'_>], wanted: &[Wanted<'_>]) -> Result<f64> {
        let key = Key {
            staging: Staging::of(photos, &engine.preparation)?,
            wanted: wanted.iter().map(Readout::of).collect(),
            profiled: engine.times.lock().is_some(),
        };
        let Self { plans, gpu, input } = self;
        let plan = Plan::find(plans, gpu, key)?;
        let (filled, prepare) = timed(|| {
            let to = plan.frame.input(0).map_err(|e| gpu.fault(e))?;
            plan.key.staging.fill(photos, &engine.preparation, input, to)
        });
        filled?;
        if let Some(times) = &mut *engine.times.lock() {
            let bytes = plan.key.staging.bytes() as f64;
            times.push(OpTime { name: "prepare".into(), milliseconds: prepare, flops: 0.0, bytes });
        }
        plan.start(engine, gpu)?;
        Ok(prepare)
    }

    /// Waits for the photos that were started, and writes the requested outputs of each.
    pub(super) fn land(&mut self, engine: &OnGpu<D>, wanted: &mut [Wanted<'_>]) -> Result<()> {
        let Some(plan) = self.plans.last_mut() else { return Ok(()) };
        plan.frame.wait().map_err(|e| self.gpu.fault(e))?;
        let mut outputs = plan.frame.outputs();
        for wanted in wanted {
            if let Some(ids) = &mut wanted.ids
                && let Some(found) = outputs.next()
            {
                match ids {
                    IdsMut::U8(ids) => copy(ids, found),
                    IdsMut::U16(ids) => copy_numbers(ids, found, u16::from_ne_bytes),
                }
                if let Some((confidence, found)) = wanted.confidence.as_mut().and_then(|c| Some((c, outputs.next()?))) {
                    copy_numbers(confidence.values, found, f32::from_ne_bytes);
                }
            }
            if let Some((logits, found)) = wanted.logits.as_mut().and_then(|logits| Some((logits, outputs.next()?))) {
                copy_numbers(logits, found, f32::from_ne_bytes);
            }
        }
        drop(outputs);
        if let (Some(marks), Some(times)) = (&plan.marks, &mut *engine.times.lock()) {
            times.extend(self.gpu.times(marks)?);
        }
        Ok(())
    }
}

impl<D: Device> Plan<D> {
    /// The plan for a key, which becomes the last. If the lane is full, the least recently used plan is removed.
    fn find<'a>(plans: &'a mut Vec<Self>, gpu: &Gpu<D>, key: Key) -> Result<&'a mut Self> {
        let plan = if let Some(known) = plans.iter().position(|plan| plan.key == key) {
            plans.remove(known)
        } else {
            if plans.len() == PLANS {
                plans.remove(0);
                // Otherwise, a folder of photos of many sizes would fill the device's memory.
                gpu.trim()?;
            }
            let frame = gpu.frame(&[key.staging.bytes()], &key.outputs())?;
            Self { key, frame, marks: None }
        };
        plans.push(plan);
        let last = plans.len() - 1;
        Ok(&mut plans[last])
    }

    /// Starts the frame.
    fn start(&mut self, engine: &OnGpu<D>, gpu: &Gpu<D>) -> Result<()> {
        let Self { key, frame, marks } = self;
        let started = frame.start(|io| -> Result<(), Fault> {
            if key.profiled {
                gpu.begin_marks()?;
            }
            gpu.copy_in(&io, key.staging.bytes())?;
            let x = gpu.prepare_staged(io.input(0), &key.staging, &engine.table)?;
            let logits = engine.network.forward(gpu, x)?;
            read_out_to(gpu, &logits, key, &io)?;
            gpu.copy_out(&io, key.outputs().iter().sum())?;
            if key.profiled {
                *marks = gpu.end_marks();
            }
            Ok(())
        });
        started.map_err(|fault| gpu.fault(fault))
    }
}

/// Writes the requested outputs to a frame's output buffers.
fn read_out_to<D: Device>(gpu: &Gpu<D>, logits: &Arc<GpuMaps<D::Buffer>>, key: &Key, io: &Io<'_, D>) -> Result<()> {
    let input = key.staging.extent;
    let resized = resized(gpu, logits, input, key.wanted.iter().map(|wanted| wanted.size))?;
    let mut outputs = (0..key.outputs().len()).map(|i| io.output(i));
    for (image, wanted) in key.wanted.iter().enumerate() {
        let (logits, size) = source(logits, resized.as_ref(), input, wanted.size);
        if let Some((wide, ids)) = wanted.wide.zip(outputs.by_ref().next()) {
            let confidence = wanted.temperature.and_then(|temperature| Some((outputs.next()?, temperature)));
            gpu.argmax_to(logits, image, size, &Found { ids, wide, confidence })?;
        }
        if let Some(out) = wanted.logits.and_then(|_| outputs.next()) {
            gpu.upsample_to(logits, image, size, out)?;
        }
    }
    Ok(())
}

/// Copies on several threads, because one thread does not saturate the memory bus.
fn copy(to: &mut [u8], from: &[u8]) {
    to.par_chunks_mut(COPY).zip(from.par_chunks(COPY)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// The same as [`copy`] for numbers, which the device returns as bytes.
fn copy_numbers<const N: usize, T: Send>(to: &mut [T], from: &[u8], number: fn([u8; N]) -> T) {
    let from = from.as_chunks().0;
    to.par_iter_mut().zip(from).with_min_len(COPY / N).for_each(|(to, from)| *to = number(*from));
}
