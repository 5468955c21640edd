//! A network on a GPU. Frames are recorded once and replayed; several run at a time.
//!
//! A lane is a queue of the device with the frames recorded on it. The photos of a batch alternate between two lanes: while the
//! device computes those of one lane, those of the other are copied. Threads that share a segmenter have a lane each.

mod lane;
mod resident;

use std::collections::VecDeque;

use parking_lot::Mutex;
use rtformer_kernels::gpu::Device;

use super::adaptive::Plan;
use super::engine::{Engine, Spent, Uploaded, Wanted, forward, read_out};
use crate::backend::{Backend, Gpu, OpTime, Table};
use crate::error::{Error, Result};
use crate::model::{Model, Network, Parameters};
use crate::pixels::{Extent, Input, Pixels, Preparation};
use crate::timing::timed;
use lane::Lane;

/// Pixels of the photos that go through the network together. Fewer would not keep a large GPU busy, and more would only make their
/// copies wait for each other.
const TOGETHER: usize = 1 << 20;
/// Lanes that a batch uses: the photos of one are copied while those of the other are computed.
const LANES: usize = 2;

/// A network on a GPU.
pub(super) struct OnGpu<D: Device> {
    /// Lanes that are not in use.
    lanes: Mutex<Vec<Lane<D>>>,
    gpu: Gpu<D>,
    network: Network<Gpu<D>>,
    table: Table<D::Buffer>,
    preparation: Preparation,
    classes: usize,
    /// The times of operations, while profiling is on.
    times: Mutex<Option<Vec<OpTime>>>,
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
        // Wait until the parameters are on the device, so that all lanes see them.
        gpu.finish()?;
        let (lanes, times, classes) = (Mutex::default(), Mutex::default(), model.num_classes());
        Ok(Self { lanes, gpu, network, table, preparation, classes, times })
    }

    /// A lane that is not in use, or a new one.
    fn lane(&self) -> Result<Lane<D>> {
        let idle = self.lanes.lock().pop();
        idle.map_or_else(|| Ok(Lane::new(self.gpu.fork()?)), Ok)
    }

    /// Runs photos of one size through the network, step by step, for outputs that are not recorded: the features.
    fn run_plainly(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>], extent: Extent) -> Result<Spent> {
        let (input, prepare) = timed(|| self.gpu.prepare(photos, &self.preparation));
        let input = input?;
        let (done, model) = timed(|| {
            let logits = forward(&self.gpu, &self.network, input, wanted)?;
            read_out(&self.gpu, &logits, extent, wanted)
        });
        done.map(|()| Spent { prepare, model, ..Spent::default() })
    }

    /// Runs photos of one size through the network, `together` at a time, on several lanes.
    fn run_together(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>], together: usize) -> Result<Spent> {
        let mut spent = Spent::default();
        let mut flying = VecDeque::with_capacity(LANES);
        let land = |(mut lane, wanted): (Lane<D>, &mut [Wanted<'_>]), spent: &mut Spent| {
            let (landed, model) = timed(|| lane.land(self, wanted));
            spent.model += model;
            landed.map(|()| lane)
        };
        for (photos, wanted) in photos.chunks(together).zip(wanted.chunks_mut(together)) {
            let first = if flying.len() == LANES { flying.pop_front() } else { None };
            let mut lane = first.map_or_else(|| self.lane(), |first| land(first, &mut spent))?;
            spent.prepare += lane.take_off(self, photos, wanted)?;
            flying.push_back((lane, wanted));
        }
        for last in flying {
            let lane = land(last, &mut spent)?;
            self.lanes.lock().push(lane);
        }
        Ok(spent)
    }
}

impl<D: Device> Engine for OnGpu<D> {
    fn enter(&self, work: &mut (dyn FnMut() + Send)) {
        work();
    }

    /// The plan is always the full network.
    fn run(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>], _: &Plan) -> Result<Spent> {
        let Some(first) = photos.first() else { return Ok(Spent::default()) };
        let extent = self.preparation.extent(first.width(), first.height())?;
        if wanted.iter().any(|wanted| wanted.features.is_some()) {
            return self.run_plainly(photos, wanted, extent);
        }
        let (height, width) = extent.full;
        match self.run_together(photos, wanted, (TOGETHER / (width * height)).max(1)) {
            Err(Error::DeviceMemory { .. }) => {
                // Free the memory of other sizes, and run one photo at a time.
                self.lanes.lock().clear();
                self.run_together(photos, wanted, 1)
            }
            other => other,
        }
    }

    fn upload(&self, inputs: &[Input]) -> Result<Box<dyn Uploaded + '_>> {
        Ok(Box::new(resident::OnDevice::new(self, inputs)?))
    }

    fn profile(&self, on: bool) -> Vec<OpTime> {
        std::mem::replace(&mut *self.times.lock(), on.then(Vec::new)).unwrap_or_default()
    }

    fn peak_flops(&self) -> Option<f64> {
        None
    }

    fn has_exact_encoder(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
