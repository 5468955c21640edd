//! A network on its device, behind a door that does not name the backend.

use crate::backend::{Backend, OpTime};
use crate::error::Result;
use crate::model::{Config, Parameters, RtFormer};
use crate::pixels::{IdsMut, Input};
use crate::timing::timed;

/// What is wanted of one photo's logits, at `size` (height, width).
pub(super) struct Wanted<'a> {
    pub(super) size: (usize, usize),
    pub(super) ids: Option<IdsMut<'a>>,
    pub(super) confidence: Option<&'a mut [f32]>,
    /// `[classes, height, width]`.
    pub(super) logits: Option<&'a mut [f32]>,
}

/// Milliseconds of the network, and of what comes behind it.
#[derive(Clone, Copy, Default)]
pub(super) struct Spent {
    pub(super) model: f64,
    pub(super) argmax: f64,
}

/// An input on the device, to be run again and again.
pub(super) trait Uploaded {
    /// Runs the network, and gives the photo what is wanted of it.
    fn run(&self, wanted: Wanted<'_>) -> Result<Spent>;
}

pub(super) trait Engine: Send + Sync {
    /// Runs `work` on the device's threads.
    fn enter(&self, work: &mut (dyn FnMut() + Send));

    /// Runs the network on a batch of inputs of one size, and gives each photo what is wanted of it.
    fn run(&self, inputs: &[&Input], wanted: &mut [Wanted<'_>]) -> Result<Spent>;

    /// Takes an input to the device.
    fn upload(&self, input: &Input) -> Result<Box<dyn Uploaded + '_>>;

    /// [`Backend::profile`].
    fn profile(&self, on: bool) -> Vec<OpTime>;

    /// [`Backend::peak_flops`].
    fn peak_flops(&self) -> Option<f64>;
}

/// A backend and a network that is on it.
pub(super) struct Loaded<B: Backend> {
    backend: B,
    network: RtFormer<B>,
}

impl<B: Backend> Loaded<B> {
    pub(super) fn new(backend: B, config: &Config, parameters: &mut dyn Parameters) -> Result<Self> {
        let network = RtFormer::load(&backend, config, parameters)?;
        Ok(Self { backend, network })
    }

    fn tensor(&self, inputs: &[&Input]) -> Result<B::Tensor> {
        let (height, width) = inputs.first().map_or((0, 0), |input| (input.height, input.width));
        let shape = [inputs.len(), 3, height, width];
        match inputs {
            [one] => self.backend.upload(&one.data, shape),
            many => self.backend.upload(&many.iter().flat_map(|input| &input.data).copied().collect::<Vec<_>>(), shape),
        }
    }

    /// Runs the network on `photos`, which it uses up.
    fn forward(&self, photos: B::Tensor, wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let [_, _, height, width] = self.backend.shape(&photos);
        let (logits, model) = timed(|| self.network.forward(&self.backend, photos));
        let logits = logits?;
        let (done, argmax) = timed(|| self.read_out(&logits, (height, width), wanted));
        done.map(|()| Spent { model, argmax })
    }

    /// Gives each photo what is wanted of its logits, which are those of an input of `size` (height, width).
    fn read_out(&self, logits: &B::Tensor, size: (usize, usize), wanted: &mut [Wanted<'_>]) -> Result<()> {
        let backend = &self.backend;
        // PaddleSeg goes back in two steps where the photo was resized first: from 1/8 to the input's size, and from there to the
        // photo's. Two bilinear steps are not one, so we take both.
        let resized = if wanted.iter().all(|wanted| wanted.size == size) {
            None
        } else {
            Some(backend.resize(logits, size.0, size.1)?)
        };
        for (image, wanted) in wanted.iter_mut().enumerate() {
            let logits = resized.as_ref().filter(|_| wanted.size != size).unwrap_or(logits);
            if let Some(ids) = wanted.ids.take() {
                backend.argmax(logits, image, wanted.size, ids, wanted.confidence.as_deref_mut())?;
            }
            if let Some(full) = &mut wanted.logits {
                backend.upsample(logits, image, wanted.size, full)?;
            }
        }
        Ok(())
    }
}

impl<B: Backend> Engine for Loaded<B> {
    fn enter(&self, work: &mut (dyn FnMut() + Send)) {
        self.backend.run(work);
    }

    fn run(&self, inputs: &[&Input], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        self.backend.run(|| self.forward(self.tensor(inputs)?, wanted))
    }

    fn upload(&self, input: &Input) -> Result<Box<dyn Uploaded + '_>> {
        Ok(Box::new(OnDevice { engine: self, tensor: self.tensor(&[input])? }))
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
    fn run(&self, wanted: Wanted<'_>) -> Result<Spent> {
        let Self { engine, tensor } = self;
        engine.backend.run(|| engine.forward(tensor.clone(), &mut [wanted]))
    }
}
