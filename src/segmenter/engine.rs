//! A network on its device, behind a door that does not name the backend.

use crate::backend::{Backend, Confidence, OpTime};
use crate::error::Result;
use crate::model::{Config, Parameters, RtFormer};
use crate::pixels::{IdsMut, Input};
use crate::timing::timed;

/// What is wanted of one photo's logits, at `size` (height, width).
pub(super) struct Wanted<'a> {
    pub(super) size: (usize, usize),
    pub(super) ids: Option<IdsMut<'a>>,
    pub(super) confidence: Option<Confidence<'a>>,
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
    /// Runs the network, and gives each photo of the batch what is wanted of it.
    fn run(&self, wanted: &mut [Wanted<'_>]) -> Result<Spent>;
}

pub(super) trait Engine: Send + Sync {
    /// Takes a batch of inputs of one size to the device.
    fn upload(&self, inputs: &[&Input]) -> Result<Box<dyn Uploaded + '_>>;

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
}

impl<B: Backend> Engine for Loaded<B> {
    fn upload(&self, inputs: &[&Input]) -> Result<Box<dyn Uploaded + '_>> {
        let (height, width) = inputs.first().map_or((0, 0), |input| (input.height, input.width));
        let shape = [inputs.len(), 3, height, width];
        let tensor = match inputs {
            [one] => self.backend.upload(&one.data, shape)?,
            many => {
                self.backend.upload(&many.iter().flat_map(|input| &input.data).copied().collect::<Vec<_>>(), shape)?
            }
        };
        Ok(Box::new(OnDevice { engine: self, tensor }))
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
        let Loaded { backend, network } = self.engine;
        let (logits, model) = timed(|| backend.run(|| network.forward(backend, &self.tensor)));
        let logits = logits?;
        let (done, argmax) = timed(|| self.read_out(&logits, wanted));
        done.map(|()| Spent { model, argmax })
    }
}

impl<B: Backend> OnDevice<'_, B> {
    /// Gives each photo what is wanted of its logits.
    fn read_out(&self, logits: &B::Tensor, wanted: &mut [Wanted<'_>]) -> Result<()> {
        let backend = &self.engine.backend;
        let [_, _, height, width] = backend.shape(&self.tensor);
        // PaddleSeg goes back in two steps where the photo was resized first: from 1/8 to the input's size, and from there to the
        // photo's. Two bilinear steps are not one, so we take both.
        let resized = if wanted.iter().all(|wanted| wanted.size == (height, width)) {
            None
        } else {
            Some(backend.run(|| backend.resize(logits, height, width))?)
        };
        for (image, wanted) in wanted.iter_mut().enumerate() {
            let logits = resized.as_ref().filter(|_| wanted.size != (height, width)).unwrap_or(logits);
            if let Some(ids) = wanted.ids.take() {
                backend.argmax(logits, image, wanted.size, ids, wanted.confidence.take())?;
            }
            if let Some(full) = &mut wanted.logits {
                backend.upsample(logits, image, wanted.size, full)?;
            }
        }
        Ok(())
    }
}
