//! A network on its device, behind an interface that does not name the backend.

use super::adaptive::{Plan, Policy};
use super::scene::Features;
use crate::backend::{Areas, Backend, Confidence, OpTime};
use crate::error::{Error, Result};
use crate::memory;
use crate::model::{Model, Network, Parameters};
use crate::pixels::{Extent, IdsMut, Input, Pixels, Preparation};
use crate::timing::timed;

/// The requested outputs of one photo, at `size` (height, width).
pub(super) struct Wanted<'a> {
    pub(super) size: (usize, usize),
    pub(super) ids: Option<IdsMut<'a>>,
    /// Only together with `ids`.
    pub(super) confidence: Option<Confidence<'a>>,
    /// `[classes, height, width]`.
    pub(super) logits: Option<&'a mut [f32]>,
    /// Set to the input of the network's head.
    pub(super) features: Option<&'a mut Features>,
}

/// Milliseconds for all photos: before, in and after the network. On a GPU, the time after the network is part of `model`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Spent {
    pub(super) prepare: f64,
    pub(super) model: f64,
    pub(super) argmax: f64,
    /// The multiplications, as a share of the full network's.
    pub(super) share: f64,
}

impl Default for Spent {
    fn default() -> Self {
        Self { prepare: 0.0, model: 0.0, argmax: 0.0, share: 1.0 }
    }
}

/// A result that can be computed and left on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    Mask,
    Logits,
}

/// Inputs on the device, on which the network can run repeatedly.
pub(super) trait Uploaded {
    /// Runs the network, and writes the requested outputs of each photo.
    fn run(&self, wanted: &mut [Wanted<'_>]) -> Result<Spent>;

    /// Runs the network, and leaves the product in the device's own memory. If the device uses the host's memory, does nothing and returns
    /// `false`.
    fn compute(&self, product: Product) -> Result<bool>;
}

/// A network on a device.
pub(super) trait Engine: Send + Sync {
    /// Runs `work` on the device's threads.
    fn enter(&self, work: &mut (dyn FnMut() + Send));

    /// Prepares photos of one size, runs the network on them as `plan` says, and writes the requested outputs of each.
    fn run(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>], plan: &Plan) -> Result<Spent>;

    /// Copies inputs of one size to the device.
    fn upload(&self, inputs: &[Input]) -> Result<Box<dyn Uploaded + '_>>;

    /// [`Backend::profile`].
    fn profile(&self, on: bool) -> Vec<OpTime>;

    /// [`Backend::peak_flops`].
    fn peak_flops(&self) -> Option<f64>;

    /// [`Network::has_exact_encoder`].
    fn has_exact_encoder(&self) -> bool;
}

/// A backend, and a network on it.
pub(super) struct Loaded<B: Backend> {
    backend: B,
    network: Network<B>,
    preparation: Preparation,
}

impl<B: Areas> Loaded<B> {
    /// `exits`: with the auxiliary head.
    pub(super) fn new(
        backend: B,
        model: &Model,
        parameters: &mut dyn Parameters,
        preparation: Preparation,
        exits: bool,
    ) -> Result<Self> {
        let mut network = Network::load(&backend, model, parameters)?;
        if exits {
            network = network.with_auxiliary(&backend, model, parameters)?;
        }
        backend.finish_packing()?;
        Ok(Self { backend, network, preparation })
    }

    /// Prepares photos and runs the network on them, on the device's threads.
    fn run_photos(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>], plan: &Plan) -> Result<Spent> {
        let Some(first) = photos.first() else { return Ok(Spent::default()) };
        // With tiles, photos come one by one: see `Segmenter::together`.
        let preparation = plan.policy.preparation(self.preparation, first);
        let extent = preparation.extent(first.width(), first.height())?;
        let (input, prepare) = timed(|| self.backend.prepare(photos, &preparation));
        let spent = match plan.policy {
            Policy::Full => self.forward(input?, extent, wanted)?,
            Policy::Tiles { threshold } => self.climb(input?, extent, wanted, plan, threshold)?,
            Policy::Size { .. } => {
                let pixels = |extent: Extent| (extent.full.0 * extent.full.1) as f64;
                let share = pixels(extent) / pixels(self.preparation.extent(first.width(), first.height())?);
                Spent { share, ..self.forward(input?, extent, wanted)? }
            }
        };
        Ok(Spent { prepare, ..spent })
    }

    /// Runs the network on one input of this extent as far as the plan needs it.
    fn climb(
        &self,
        input: B::Tensor,
        extent: Extent,
        wanted: &mut [Wanted<'_>],
        plan: &Plan,
        threshold: f32,
    ) -> Result<Spent> {
        let mut share = 1.0;
        let (logits, model) = timed(|| {
            self.network.climb(&self.backend, input, &mut |early| {
                let (step, work) = plan.decide(&self.backend, early, extent, threshold)?;
                share = work;
                Ok(step)
            })
        });
        let logits = logits?;
        let (done, argmax) = timed(|| read_out(&self.backend, &logits, extent, wanted));
        done.map(|()| Spent { prepare: 0.0, model, argmax, share })
    }

    /// Runs the network on inputs of this extent, and frees them.
    fn forward(&self, inputs: B::Tensor, extent: Extent, wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let (logits, model) = timed(|| forward(&self.backend, &self.network, inputs, wanted));
        let logits = logits?;
        let (done, argmax) = timed(|| read_out(&self.backend, &logits, extent, wanted));
        done.map(|()| Spent { model, argmax, ..Spent::default() })
    }

    /// Runs `work` on the device's threads. If a frame needs too much memory, the backend releases
    /// what it keeps, so that the next frame can use all of the memory.
    fn on_threads<R: Send>(&self, work: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        self.backend.ready()?;
        let done = self.backend.run(work);
        if matches!(done, Err(Error::OutOfMemory { .. })) {
            self.backend.release();
        }
        done
    }
}

/// Runs the network, and writes the features of each photo that wants them. Returns the logits.
pub(super) fn forward<B: Backend>(
    backend: &B,
    network: &Network<B>,
    inputs: B::Tensor,
    wanted: &mut [Wanted<'_>],
) -> Result<B::Tensor> {
    if wanted.iter().all(|wanted| wanted.features.is_none()) {
        return network.forward(backend, inputs);
    }
    let (logits, features) = network.forward_with_features(backend, inputs)?;
    let [_, channels, height, width] = backend.shape(&features);
    let values = backend.download(&features)?;
    let photos = values.chunks_exact((channels * height * width).max(1));
    for (wanted, values) in wanted.iter_mut().zip(photos) {
        if let Some(features) = &mut wanted.features {
            **features = Features { channels, height, width, values: values.to_vec() };
        }
    }
    Ok(logits)
}

/// Writes the requested masks, confidences and logits of each photo. `logits` are those of inputs of the extent `input`.
pub(super) fn read_out<B: Backend>(
    backend: &B,
    logits: &B::Tensor,
    input: Extent,
    wanted: &mut [Wanted<'_>],
) -> Result<()> {
    let resized = resized(backend, logits, input, wanted.iter().map(|wanted| wanted.size))?;
    for (image, wanted) in wanted.iter_mut().enumerate() {
        let (logits, size) = source(logits, resized.as_ref(), input, wanted.size);
        if let Some(ids) = wanted.ids.take() {
            backend.argmax(logits, image, size, ids, wanted.confidence.take())?;
        }
        if let Some(full) = &mut wanted.logits {
            backend.upsample(logits, image, size, full)?;
        }
    }
    Ok(())
}

/// The logits at the input's size without the padding, if a photo has another size.
///
/// If the photo was resized first, PaddleSeg resizes logits in two steps: from 1/8 to the input's size, and from there to the photo's. Two
/// bilinear steps give different values than one, so both are done here.
pub(super) fn resized<B: Backend>(
    backend: &B,
    logits: &B::Tensor,
    input: Extent,
    mut wanted: impl Iterator<Item = (usize, usize)>,
) -> Result<Option<B::Tensor>> {
    if wanted.all(|wanted| wanted == input.kept) { Ok(None) } else { backend.resize(logits, input).map(Some) }
}

/// The logits from which a photo of the size `wanted` is read, and the extent to read: those at 1/8, or those at the input's size.
pub(super) fn source<'a, T>(
    logits: &'a T,
    resized: Option<&'a T>,
    input: Extent,
    wanted: (usize, usize),
) -> (&'a T, Extent) {
    match resized {
        Some(resized) if wanted != input.kept => (resized, wanted.into()),
        _ => (logits, input),
    }
}

/// The inputs' floats, concatenated, with their shape and their extent.
///
/// # Errors
/// [`Error::OutOfMemory`].
pub(super) fn joined(inputs: &[Input]) -> Result<(Vec<f32>, [usize; 4], Extent)> {
    let extent = inputs.first().map_or_else(Extent::default, Input::extent);
    let (height, width) = extent.full;
    let what = || format!("{} inputs of {width}x{height} pixels", inputs.len());
    let mut floats = memory::room(inputs.iter().map(|input| input.data.len()).sum(), what)?;
    inputs.iter().for_each(|input| floats.extend_from_slice(&input.data));
    Ok((floats, [inputs.len(), 3, height, width], extent))
}

impl<B: Areas> Engine for Loaded<B> {
    fn enter(&self, work: &mut (dyn FnMut() + Send)) {
        self.backend.run(work);
    }

    fn run(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>], plan: &Plan) -> Result<Spent> {
        // Everything runs on the device's threads, so that they wake up only once.
        self.on_threads(|| self.run_photos(photos, wanted, plan))
    }

    fn upload(&self, inputs: &[Input]) -> Result<Box<dyn Uploaded + '_>> {
        let (floats, shape, extent) = joined(inputs)?;
        Ok(Box::new(OnDevice { engine: self, tensor: self.backend.upload(&floats, shape)?, extent }))
    }

    fn profile(&self, on: bool) -> Vec<OpTime> {
        self.backend.profile(on)
    }

    fn peak_flops(&self) -> Option<f64> {
        self.backend.peak_flops()
    }

    fn has_exact_encoder(&self) -> bool {
        self.network.has_exact_encoder()
    }
}

struct OnDevice<'a, B: Backend> {
    engine: &'a Loaded<B>,
    tensor: B::Tensor,
    extent: Extent,
}

impl<B: Areas> Uploaded for OnDevice<'_, B> {
    fn run(&self, wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let Self { engine, tensor, extent } = self;
        engine.on_threads(|| engine.forward(tensor.clone(), *extent, wanted))
    }

    fn compute(&self, _: Product) -> Result<bool> {
        Ok(false)
    }
}
