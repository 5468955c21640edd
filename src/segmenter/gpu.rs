//! A network on a GPU: frames that are recorded, and several of them under way.
//!
//! A lane is a queue of the device, with what was recorded on it. Photos that come together go through two lanes in turns: while the
//! device computes one lane's, the other's are copied. Threads that share a segmenter have a lane each.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rayon::prelude::*;
use rtformer_kernels::gpu::argmax::Found;
use rtformer_kernels::gpu::prepare::{PixelLayout, Table};
use rtformer_kernels::gpu::{Device, Frame, GpuMaps, GpuShape, Io};

use super::engine::{Engine, Preparation, Product, Spent, Uploaded, Wanted, read_out, resized};
use crate::backend::{Backend, Fault, Gpu, Marks, OpTime};
use crate::error::{Error, Result};
use crate::model::{Model, Network, Parameters};
use crate::pixels::{IdsMut, Input, PixelFormat, Pixels};
use crate::timing::timed;

/// Photos go through the network together until they have so many pixels: fewer would not keep a large GPU busy, and more would only
/// make their copies wait for each other.
const TOGETHER: usize = 1 << 20;
/// Lanes of photos that come together: one whose photos are copied, one whose photos are computed.
const LANES: usize = 2;
/// Sizes (and what is wanted) that a lane remembers how to do; each holds the maps of a frame.
const PLANS: usize = 4;
/// Bytes that a thread copies at a time.
const COPY: usize = 1 << 18;

/// A network on a GPU.
pub(super) struct OnGpu<D: Device> {
    /// Those that nobody uses.
    lanes: Mutex<Vec<Lane<D>>>,
    gpu: Gpu<D>,
    network: Network<Gpu<D>>,
    table: Table<D::Buffer>,
    preparation: Preparation,
    classes: usize,
    /// Operations' times, while a profile is on.
    times: Mutex<Option<Vec<OpTime>>>,
}

/// A queue, and what it knows how to do.
struct Lane<D: Device> {
    /// The last is the one that was used last.
    plans: Vec<Plan<D>>,
    gpu: Gpu<D>,
    /// Where photos are resized.
    input: Input,
}

/// What a frame is made of: everything that what is launched depends on.
#[derive(Clone, Debug, PartialEq)]
struct Key {
    /// `[n, 3, height, width]`, the network's input.
    shape: GpuShape,
    /// Of photos that are prepared on the device; the others come as planes of floats.
    format: Option<PixelFormat>,
    wanted: Vec<Readout>,
    profiled: bool,
}

/// What is wanted of one photo.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Readout {
    size: (usize, usize),
    /// Whether ids are of 16 bits, where they are wanted.
    wide: Option<bool>,
    temperature: Option<f32>,
    /// Of so many classes.
    logits: Option<usize>,
}

struct Plan<D: Device> {
    key: Key,
    frame: Frame<D>,
    marks: Option<Marks<D>>,
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

    /// Bytes of each output: ids, confidence, logits, those that are wanted.
    fn outputs(self) -> impl Iterator<Item = usize> {
        let pixels = self.size.0 * self.size.1;
        let ids = self.wide.map(|wide| if wide { 2 * pixels } else { pixels });
        let confidence = self.wide.and(self.temperature).map(|_| size_of::<f32>() * pixels);
        [ids, confidence, self.logits.map(|classes| size_of::<f32>() * classes * pixels)].into_iter().flatten()
    }
}

impl Key {
    /// Bytes of the photos, or of their planes.
    fn input(&self) -> usize {
        let bytes = self.format.map_or(3 * size_of::<f32>(), PixelFormat::channels);
        self.shape.n * self.shape.pixels() * bytes
    }

    fn outputs(&self) -> Vec<usize> {
        self.wanted.iter().flat_map(|wanted| wanted.outputs()).collect()
    }
}

impl<D: Device> OnGpu<D> {
    pub(super) fn new(
        gpu: Gpu<D>,
        model: &Model,
        parameters: &mut dyn Parameters,
        preparation: Preparation,
    ) -> Result<Self> {
        let network = Network::load(&gpu, model, parameters)?;
        let table = gpu.table(&preparation.normalization.tables()?)?;
        // The lanes are to see the parameters.
        gpu.finish()?;
        let (lanes, times, classes) = (Mutex::default(), Mutex::default(), model.num_classes());
        Ok(Self { lanes, gpu, network, table, preparation, classes, times })
    }

    fn lanes(&self) -> MutexGuard<'_, Vec<Lane<D>>> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn times(&self) -> MutexGuard<'_, Option<Vec<OpTime>>> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A lane that nobody uses.
    fn lane(&self) -> Result<Lane<D>> {
        let idle = self.lanes().pop();
        match idle {
            Some(lane) => Ok(lane),
            None => Ok(Lane { plans: Vec::new(), gpu: self.gpu.fork()?, input: Input::default() }),
        }
    }

    /// Runs photos of one size through the network, so many together, on several lanes.
    fn run_together(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>], together: usize) -> Result<Spent> {
        let mut spent = Spent::default();
        let mut flying = VecDeque::with_capacity(LANES);
        let land = |(mut lane, wanted): (Lane<D>, &mut [Wanted<'_>]), spent: &mut Spent| {
            let (landed, model) = timed(|| self.land(&mut lane, wanted));
            spent.model += model;
            landed.map(|()| lane)
        };
        for (photos, wanted) in photos.chunks(together).zip(wanted.chunks_mut(together)) {
            let first = if flying.len() == LANES { flying.pop_front() } else { None };
            let mut lane = first.map_or_else(|| self.lane(), |first| land(first, &mut spent))?;
            spent.prepare += self.take_off(&mut lane, photos, wanted)?;
            flying.push_back((lane, wanted));
        }
        for last in flying {
            let lane = land(last, &mut spent)?;
            self.lanes().push(lane);
        }
        Ok(spent)
    }

    /// Starts photos on a lane; how long it took to hand them over.
    fn take_off(&self, lane: &mut Lane<D>, photos: &[Pixels<'_>], wanted: &[Wanted<'_>]) -> Result<f64> {
        let Some(first) = photos.first() else { return Ok(0.0) };
        let (width, height) = Input::checked_size(first, self.preparation.size)?;
        let native = (width, height) == (first.width(), first.height());
        let same = photos.iter().all(|photo| photo.format() == first.format());
        let key = Key {
            shape: GpuShape { n: photos.len(), channels: 3, height: height as usize, width: width as usize },
            format: (native && same).then(|| first.format()),
            wanted: wanted.iter().map(Readout::of).collect(),
            profiled: self.times().is_some(),
        };
        let Lane { plans, gpu, input } = lane;
        let plan = Plan::find(plans, gpu, key)?;
        let (filled, prepare) = timed(|| self.fill(plan, gpu, input, photos));
        filled?;
        self.start(plan, gpu)?;
        Ok(prepare)
    }

    /// Copies photos to where the device takes them from.
    fn fill(&self, plan: &mut Plan<D>, gpu: &Gpu<D>, input: &mut Input, photos: &[Pixels<'_>]) -> Result<()> {
        let to = plan.frame.input(0).map_err(|e| gpu.fault(e))?;
        let each = to.len() / photos.len();
        for (to, photo) in to.chunks_exact_mut(each).zip(photos) {
            if plan.key.format.is_some() {
                let row = each / photo.height() as usize;
                let rows = to.par_chunks_exact_mut(row).enumerate().with_min_len(COPY.div_ceil(row));
                rows.for_each(|(y, to)| to.copy_from_slice(photo.row(y as u32)));
            } else {
                let Preparation { normalization, size } = &self.preparation;
                input.refill(photo, normalization, *size)?;
                let floats = to.as_chunks_mut().0.par_iter_mut().zip(&input.data).with_min_len(COPY);
                floats.for_each(|(to, from): (&mut [u8; 4], &f32)| *to = from.to_ne_bytes());
            }
        }
        Ok(())
    }

    /// Starts what a plan is for.
    fn start(&self, plan: &mut Plan<D>, gpu: &Gpu<D>) -> Result<()> {
        let Plan { key, frame, marks } = plan;
        let started = frame.start(|io| -> Result<(), Fault> {
            if key.profiled {
                gpu.begin_marks()?;
            }
            gpu.copy_in(&io, key.input())?;
            let x = match key.format {
                Some(format) => {
                    let layout = PixelLayout { bytes: format.channels(), offsets: format.offsets() };
                    gpu.prepare(io.input(0), layout, &self.table, key.shape)?
                }
                None => gpu.pack(io.input(0), key.shape)?,
            };
            let logits = self.network.forward(gpu, x)?;
            read_out_to(gpu, &logits, key, &io)?;
            gpu.copy_out(&io, key.outputs().iter().sum())?;
            if key.profiled {
                *marks = gpu.end_marks();
            }
            Ok(())
        });
        started.map_err(|fault| gpu.fault(fault))
    }

    /// Waits for what was started on a lane, and gives each photo what is wanted of it.
    fn land(&self, lane: &mut Lane<D>, wanted: &mut [Wanted<'_>]) -> Result<()> {
        let Some(plan) = lane.plans.last_mut() else { return Ok(()) };
        plan.frame.wait().map_err(|e| lane.gpu.fault(e))?;
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
        if let (Some(marks), Some(times)) = (&plan.marks, &mut *self.times()) {
            times.extend(lane.gpu.times(marks)?);
        }
        Ok(())
    }
}

impl<D: Device> Plan<D> {
    /// The plan for a key, which is then the last; one that was not used for long makes room for it.
    fn find<'a>(plans: &'a mut Vec<Self>, gpu: &Gpu<D>, key: Key) -> Result<&'a mut Self> {
        let plan = if let Some(known) = plans.iter().position(|plan| plan.key == key) {
            plans.remove(known)
        } else {
            if plans.len() == PLANS {
                plans.remove(0);
                // Or a folder of photos of many sizes would fill the device.
                gpu.trim()?;
            }
            let frame = gpu.frame(&[key.input()], &key.outputs())?;
            Self { key, frame, marks: None }
        };
        plans.push(plan);
        let last = plans.len() - 1;
        Ok(&mut plans[last])
    }
}

/// Reads out what is wanted into a frame's outputs.
fn read_out_to<D: Device>(gpu: &Gpu<D>, logits: &Arc<GpuMaps<D::Buffer>>, key: &Key, io: &Io<'_, D>) -> Result<()> {
    let size = (key.shape.height, key.shape.width);
    let resized = resized(gpu, logits, size, key.wanted.iter().map(|wanted| wanted.size))?;
    let mut outputs = (0..key.outputs().len()).map(|i| io.output(i));
    for (image, wanted) in key.wanted.iter().enumerate() {
        let logits = resized.as_ref().filter(|_| wanted.size != size).unwrap_or(logits);
        if let Some((wide, ids)) = wanted.wide.zip(outputs.by_ref().next()) {
            let confidence = wanted.temperature.and_then(|temperature| Some((outputs.next()?, temperature)));
            gpu.argmax_to(logits, image, wanted.size, &Found { ids, wide, confidence })?;
        }
        if let Some(out) = wanted.logits.and_then(|_| outputs.next()) {
            gpu.upsample_to(logits, image, wanted.size, out)?;
        }
    }
    Ok(())
}

/// Copies on several threads: one does not fill a machine's memory bus.
fn copy(to: &mut [u8], from: &[u8]) {
    to.par_chunks_mut(COPY).zip(from.par_chunks(COPY)).for_each(|(to, from)| to.copy_from_slice(from));
}

/// The same of numbers, which are bytes on the device's side.
fn copy_numbers<const N: usize, T: Send>(to: &mut [T], from: &[u8], number: fn([u8; N]) -> T) {
    let from = from.as_chunks().0;
    to.par_iter_mut().zip(from).with_min_len(COPY / N).for_each(|(to, from)| *to = number(*from));
}

impl<D: Device> Engine for OnGpu<D> {
    fn enter(&self, work: &mut (dyn FnMut() + Send)) {
        work();
    }

    fn run(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let Some(first) = photos.first() else { return Ok(Spent::default()) };
        let (width, height) = self.preparation.size.of(first.width(), first.height());
        let together = (TOGETHER / (width as usize * height as usize).max(1)).max(1);
        match self.run_together(photos, wanted, together) {
            Err(Error::DeviceMemory { .. }) => {
                // What other sizes need is freed, and fewer photos are under way.
                self.lanes().clear();
                self.run_together(photos, wanted, 1)
            }
            other => other,
        }
    }

    fn upload(&self, inputs: &[Input]) -> Result<Box<dyn Uploaded + '_>> {
        let gpu = self.gpu.fork()?;
        let (height, width) = inputs.first().map_or((0, 0), |input| (input.height, input.width));
        let planes: Vec<_> = inputs.iter().flat_map(|input| &input.data).copied().collect();
        let x = gpu.upload(&planes, [inputs.len(), 3, height, width])?;
        Ok(Box::new(OnDevice { engine: self, here: Mutex::new(Here { mask: None, logits: None, x, gpu }) }))
    }

    fn profile(&self, on: bool) -> Vec<OpTime> {
        std::mem::replace(&mut *self.times(), on.then(Vec::new)).unwrap_or_default()
    }

    fn peak_flops(&self) -> Option<f64> {
        None
    }
}

/// Inputs on the device, and what is computed of them.
struct OnDevice<'a, D: Device> {
    engine: &'a OnGpu<D>,
    here: Mutex<Here<D>>,
}

struct Here<D: Device> {
    mask: Option<Computed<D>>,
    logits: Option<Computed<D>>,
    x: Arc<GpuMaps<D::Buffer>>,
    gpu: Gpu<D>,
}

/// A product's work, and where it is left, photo by photo.
struct Computed<D: Device> {
    frame: Frame<D>,
    out: Vec<D::Buffer>,
}

impl<D: Device> OnDevice<'_, D> {
    fn here(&self) -> MutexGuard<'_, Here<D>> {
        self.here.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<D: Device> Uploaded for OnDevice<'_, D> {
    fn run(&self, wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let here = self.here();
        let GpuShape { height, width, .. } = here.x.shape();
        let (done, model) = timed(|| {
            let logits = self.engine.network.forward(&here.gpu, Arc::clone(&here.x))?;
            read_out(&here.gpu, &logits, (height, width), wanted)
        });
        done.map(|()| Spent { model, ..Spent::default() })
    }

    fn compute(&self, product: Product) -> Result<bool> {
        let Here { mask, logits, x, gpu } = &mut *self.here();
        let GpuShape { n, height, width, .. } = x.shape();
        let (size, classes) = ((height, width), self.engine.classes);
        let wide = classes > 256;
        let (computed, bytes) = match product {
            Product::Mask => (mask, height * width * if wide { 2 } else { 1 }),
            Product::Logits => (logits, height * width * classes * size_of::<f32>()),
        };
        if computed.is_none() {
            let out = (0..n).map(|_| gpu.buffer(bytes)).collect::<Result<_>>()?;
            *computed = Some(Computed { frame: gpu.frame(&[], &[])?, out });
        }
        let Some(Computed { frame, out }) = computed else { return Ok(false) };
        let started = frame.start(|_| -> Result<(), Fault> {
            let logits = self.engine.network.forward(gpu, Arc::clone(x))?;
            for (image, out) in out.iter().enumerate() {
                match product {
                    Product::Mask => {
                        gpu.argmax_to(&logits, image, size, &Found { ids: out, wide, confidence: None })?;
                    }
                    Product::Logits => gpu.upsample_to(&logits, image, size, out)?,
                }
            }
            Ok(())
        });
        started.map_err(|fault| gpu.fault(fault))?;
        frame.wait().map_err(|e| gpu.fault(e)).map(|()| true)
    }
}

#[cfg(test)]
mod tests {
    use image::{Rgb, RgbImage, Rgba, RgbaImage};
    use rtformer_kernels::gpu::GpuElement;
    use rtformer_kernels::gpu::emulated::Emulated;

    use super::*;
    use crate::Segmenter;
    use crate::backend::Confidence;
    use crate::pixels::{Mask, Normalization, Size};
    use crate::segmenter::builder::Builder;
    use crate::weights::Weights;

    const TINY: &str = "tests/data/golden/tiny.safetensors";

    fn emulated(size: Size) -> Option<OnGpu<Emulated>> {
        Emulated::cuda().map(|device| engine(device, size))
    }

    fn engine(device: Emulated, size: Size) -> OnGpu<Emulated> {
        let gpu = Gpu::new(device, "emulated", GpuElement::F32);
        let weights = Weights::open(TINY).unwrap();
        let (model, dataset) = (Model::of(&weights).unwrap(), weights.dataset().unwrap());
        let preparation = Preparation { normalization: Normalization { mean: dataset.mean, std: dataset.std }, size };
        OnGpu::new(gpu, &model, &mut weights.reader("tiny"), preparation).unwrap()
    }

    fn photo(seed: u32) -> RgbImage {
        RgbImage::from_fn(40, 33, |x, y| Rgb([x * 5 + seed, y * 7, x * y + seed * 3].map(|v| v as u8)))
    }

    /// Masks, confidences and logits of photos of one size.
    fn everything(engine: &OnGpu<Emulated>, photos: &[Pixels<'_>], together: usize) -> Vec<(Mask, Vec<f32>, Vec<f32>)> {
        let [w, h] = [photos[0].width(), photos[0].height()];
        let pixels = (w * h) as usize;
        let blank = || (Mask::new(w, h, 5), vec![0.0; pixels], vec![0.0; 5 * pixels]);
        let mut results: Vec<_> = photos.iter().map(|_| blank()).collect();
        let wanted = results.iter_mut().map(|(mask, confidence, logits)| Wanted {
            size: (h as usize, w as usize),
            ids: Some(mask.ids_mut()),
            confidence: Some(Confidence { values: confidence, temperature: 1.5 }),
            logits: Some(logits),
        });
        engine.run_together(photos, &mut wanted.collect::<Vec<_>>(), together).unwrap();
        results
    }

    fn cpu(size: Size) -> Segmenter {
        Builder::default().weights(TINY).device(crate::Device::Cpu).size(size).logits(true).build().unwrap()
    }

    /// One after the other, in pairs, on two lanes: as each alone, and as on the CPU.
    fn are_as_each_alone_and_as_on_the_cpu(device: &Emulated) {
        for size in [Size::Native, Size::Exact { width: 32, height: 24 }] {
            let engine = engine(device.clone(), size);
            let photos: Vec<_> = (0..5).map(photo).collect();
            let pixels: Vec<Pixels<'_>> = photos.iter().map(Into::into).collect();
            let alone: Vec<_> =
                pixels.iter().flat_map(|one| everything(&engine, std::slice::from_ref(one), 1)).collect();
            // Lanes and plans are known from the second time on.
            for together in [1, 2, 1, 5] {
                assert!(everything(&engine, &pixels, together) == alone, "{together} together at {size}");
            }
            let cpu = cpu(size);
            for (photo, (mask, _, logits)) in photos.iter().zip(&alone) {
                let scene = cpu.segment(photo).unwrap();
                let want = scene.logits().unwrap();
                let greatest = want.iter().fold(0.0, |most: f32, v| most.max(v.abs()));
                assert!(logits.iter().zip(want).all(|(a, b)| (a - b).abs() <= 1e-4 * greatest), "{size}");
                let same = mask.iter().zip(scene.mask().iter()).filter(|(a, b)| a == b).count();
                assert!(same + 3 >= 40 * 33, "{size}: {same} pixels of 1320");
            }
        }
    }

    #[test]
    fn photos_that_come_together_on_cuda_are_as_each_alone_and_as_on_the_cpu() {
        let Some(device) = &Emulated::cuda() else { return };
        are_as_each_alone_and_as_on_the_cpu(device);
    }

    #[test]
    fn photos_that_come_together_on_metal_are_as_each_alone_and_as_on_the_cpu() {
        let Some(device) = &Emulated::metal() else { return };
        are_as_each_alone_and_as_on_the_cpu(device);
    }

    #[test]
    fn every_order_of_bytes_is_the_same_photo() {
        let Some(engine) = emulated(Size::Native) else { return };
        let rgb = photo(3);
        let want = everything(&engine, &[(&rgb).into()], 1);
        let rgba = RgbaImage::from_fn(40, 33, |x, y| Rgba([rgb[(x, y)][0], rgb[(x, y)][1], rgb[(x, y)][2], 77]));
        assert!(everything(&engine, &[(&rgba).into()], 1) == want);
        // Rows with padding behind them, blue first.
        let mut frame = vec![9; 33 * 130];
        for (y, row) in frame.chunks_mut(130).enumerate() {
            for x in 0..40 {
                let Rgb([r, g, b]) = rgb[(x as u32, y as u32)];
                row[3 * x..3 * x + 3].copy_from_slice(&[b, g, r]);
            }
        }
        let bgr = Pixels::new(&frame, 40, 33, 130, PixelFormat::Bgr8).unwrap();
        assert!(everything(&engine, std::slice::from_ref(&bgr), 1) == want);
        assert!(everything(&engine, &[bgr, (&rgb).into()], 2) == [want.clone(), want].concat(), "two orders together");
    }

    #[test]
    fn threads_have_lanes_and_lanes_have_few_plans() {
        let Some(engine) = emulated(Size::Native) else { return };
        let sizes: Vec<_> = (0..7).map(|i| RgbImage::from_pixel(16 + 8 * i, 16, Rgb([90, 40, 200]))).collect();
        let want: Vec<_> = sizes.iter().map(|photo| everything(&engine, &[photo.into()], 1)).collect();
        assert!(engine.lanes().iter().all(|lane| lane.plans.len() == PLANS));
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for (photo, want) in sizes.iter().zip(&want) {
                        assert!(everything(&engine, &[photo.into()], 1) == *want);
                    }
                });
            }
        });
        assert!((1..=3).contains(&engine.lanes().len()));
    }

    #[test]
    fn a_profile_has_every_operation_and_its_bytes() {
        let Some(engine) = emulated(Size::Native) else { return };
        let photo = photo(1);
        for run in 0..3 {
            engine.profile(true);
            everything(&engine, &[(&photo).into()], 1);
            let operations = engine.profile(false);
            let names: Vec<_> = operations.iter().map(|operation| operation.name.as_str()).collect();
            assert_eq!((names[0], names[1], names[2]), ("copy in", "normalise", "conv1.0"), "run {run}");
            assert_eq!(names.last(), Some(&"copy out"));
            assert!(operations.iter().all(|operation| operation.bytes > 0.0 && operation.milliseconds >= 0.0));
        }
        assert!(engine.profile(false).is_empty());
    }

    #[test]
    fn what_is_resident_is_computed_again_and_again() {
        let Some(engine) = emulated(Size::Native) else { return };
        let normalization = &engine.preparation.normalization;
        let inputs = [0, 1].map(|seed| Input::prepare(&(&photo(seed)).into(), normalization, Size::Native).unwrap());
        let resident = engine.upload(&inputs).unwrap();
        for _ in 0..3 {
            assert!(resident.compute(Product::Mask).unwrap() && resident.compute(Product::Logits).unwrap());
        }
        let (mut mask, alone) = (Mask::new(40, 33, 5), everything(&engine, &[(&photo(0)).into()], 1));
        resident
            .run(&mut [Wanted { size: (33, 40), ids: Some(mask.ids_mut()), confidence: None, logits: None }])
            .unwrap();
        assert_eq!(mask, alone[0].0);
    }
}
