//! A network on its device, behind a door that does not name the backend.

use std::sync::{Mutex, PoisonError};

use crate::backend::{Backend, Confidence, OpTime};
use crate::error::Result;
use crate::model::{Model, Network, Parameters};
use crate::pixels::{IdsMut, Input, Normalization, Pixels, Size};
use crate::timing::timed;

/// What a photo goes through ahead of the network.
#[derive(Clone, Copy, Debug)]
pub(super) struct Preparation {
    pub(super) normalization: Normalization,
    pub(super) size: Size,
}

/// What is wanted of one photo's logits, at `size` (height, width).
pub(super) struct Wanted<'a> {
    pub(super) size: (usize, usize),
    pub(super) ids: Option<IdsMut<'a>>,
    /// Only along with the ids.
    pub(super) confidence: Option<Confidence<'a>>,
    /// `[classes, height, width]`.
    pub(super) logits: Option<&'a mut [f32]>,
}

/// Milliseconds of all photos: ahead of the network, in it, and behind it. On a GPU what is behind is part of the network's.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Spent {
    pub(super) prepare: f64,
    pub(super) model: f64,
    pub(super) argmax: f64,
}

/// What can be computed and left on the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    Mask,
    Logits,
}

/// Inputs on the device, to be run again and again.
pub(super) trait Uploaded {
    /// Runs the network, and gives each photo what is wanted of it.
    fn run(&self, wanted: &mut [Wanted<'_>]) -> Result<Spent>;

    /// Runs the network, and leaves what it is for in the device's own memory; `false`, and nothing done, where that is the host's.
    fn compute(&self, product: Product) -> Result<bool>;
}

pub(super) trait Engine: Send + Sync {
    /// Runs `work` on the device's threads.
    fn enter(&self, work: &mut (dyn FnMut() + Send));

    /// Prepares photos of one size, runs the network on them, and gives each what is wanted of it.
    fn run(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent>;

    /// Takes inputs of one size to the device.
    fn upload(&self, inputs: &[Input]) -> Result<Box<dyn Uploaded + '_>>;

    /// [`Backend::profile`].
    fn profile(&self, on: bool) -> Vec<OpTime>;

    /// [`Backend::peak_flops`].
    fn peak_flops(&self) -> Option<f64>;
}

/// A backend and a network that is on it.
pub(super) struct Loaded<B: Backend> {
    backend: B,
    network: Network<B>,
    preparation: Preparation,
    /// Batches of inputs whose memory the next batch takes.
    spares: Mutex<Vec<Vec<Input>>>,
}

impl<B: Backend> Loaded<B> {
    pub(super) fn new(
        backend: B,
        model: &Model,
        parameters: &mut dyn Parameters,
        preparation: Preparation,
    ) -> Result<Self> {
        let network = Network::load(&backend, model, parameters)?;
        Ok(Self { backend, network, preparation, spares: Mutex::default() })
    }

    fn tensor(&self, inputs: &[Input]) -> Result<B::Tensor> {
        let (height, width) = inputs.first().map_or((0, 0), |input| (input.height, input.width));
        let shape = [inputs.len(), 3, height, width];
        match inputs {
            [one] => self.backend.upload(&one.data, shape),
            many => self.backend.upload(&many.iter().flat_map(|input| &input.data).copied().collect::<Vec<_>>(), shape),
        }
    }

    /// Prepares photos and runs the network on them, on the device's threads.
    fn run_prepared(&self, inputs: &mut Vec<Input>, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let Preparation { normalization, size } = &self.preparation;
        let (prepared, prepare) = timed(|| {
            inputs.resize_with(photos.len(), Input::default);
            inputs.iter_mut().zip(photos).try_for_each(|(input, photo)| input.refill(photo, normalization, *size))
        });
        prepared?;
        let (tensor, upload) = timed(|| self.tensor(inputs));
        let Spent { model, argmax, .. } = self.forward(tensor?, wanted)?;
        Ok(Spent { prepare, model: upload + model, argmax })
    }

    /// Runs the network on `photos`, which it uses up.
    fn forward(&self, photos: B::Tensor, wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let [_, _, height, width] = self.backend.shape(&photos);
        let (logits, model) = timed(|| self.network.forward(&self.backend, photos));
        let logits = logits?;
        let (done, argmax) = timed(|| read_out(&self.backend, &logits, (height, width), wanted));
        done.map(|()| Spent { prepare: 0.0, model, argmax })
    }
}

/// Gives each photo what is wanted of its logits, which are those of an input of `size` (height, width).
pub(super) fn read_out<B: Backend>(
    backend: &B,
    logits: &B::Tensor,
    size: (usize, usize),
    wanted: &mut [Wanted<'_>],
) -> Result<()> {
    let resized = resized(backend, logits, size, wanted.iter().map(|wanted| wanted.size))?;
    for (image, wanted) in wanted.iter_mut().enumerate() {
        let logits = resized.as_ref().filter(|_| wanted.size != size).unwrap_or(logits);
        if let Some(ids) = wanted.ids.take() {
            backend.argmax(logits, image, wanted.size, ids, wanted.confidence.take())?;
        }
        if let Some(full) = &mut wanted.logits {
            backend.upsample(logits, image, wanted.size, full)?;
        }
    }
    Ok(())
}

/// The logits at their input's size, where a photo of another size wants them.
///
/// PaddleSeg goes back in two steps where the photo was resized first: from 1/8 to the input's size, and from there to the photo's. Two
/// bilinear steps are not one, so we take both.
pub(super) fn resized<B: Backend>(
    backend: &B,
    logits: &B::Tensor,
    size: (usize, usize),
    mut wanted: impl Iterator<Item = (usize, usize)>,
) -> Result<Option<B::Tensor>> {
    if wanted.all(|wanted| wanted == size) { Ok(None) } else { backend.resize(logits, size.0, size.1).map(Some) }
}

impl<B: Backend> Engine for Loaded<B> {
    fn enter(&self, work: &mut (dyn FnMut() + Send)) {
        self.backend.run(work);
    }

    fn run(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let spares = || self.spares.lock().unwrap_or_else(PoisonError::into_inner);
        let mut inputs = spares().pop().unwrap_or_default();
        // All of it on the device's threads, which are woken once.
        let spent = self.backend.run(|| self.run_prepared(&mut inputs, photos, wanted));
        spares().push(inputs);
        spent
    }

    fn upload(&self, inputs: &[Input]) -> Result<Box<dyn Uploaded + '_>> {
        Ok(Box::new(OnDevice { engine: self, tensor: self.tensor(inputs)? }))
    }

    fn profile(&self, on: bool) -> Vec<OpTime> {
        self.backend.profile(on)
    }

    fn peak_flops(&self) -> Option<f64> {
        self.backend.peak_flops()
    }
}

struct OnDevice<'a, B: Backend> {
    engine: &'a Loaded<B>,
    tensor: B::Tensor,
}

impl<B: Backend> Uploaded for OnDevice<'_, B> {
    fn run(&self, wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let Self { engine, tensor } = self;
        engine.backend.run(|| engine.forward(tensor.clone(), wanted))
    }

    fn compute(&self, _: Product) -> Result<bool> {
        Ok(false)
    }
}
