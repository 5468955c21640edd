//! A network on a GPU: frames that are recorded, and several of them under way.
//!
//! A lane is a queue of the device, with what was recorded on it. Photos that come together go through two lanes in turns: while the
//! device computes one lane's, the other's are copied. Threads that share a segmenter have a lane each.

mod lane;
mod resident;

use std::collections::VecDeque;

use parking_lot::Mutex;
use rtformer_kernels::gpu::Device;

use super::engine::{Engine, Spent, Uploaded, Wanted};
use crate::backend::{Gpu, OpTime, Table};
use crate::error::{Error, Result};
use crate::model::{Model, Network, Parameters};
use crate::pixels::{Input, Pixels, Preparation};
use crate::timing::timed;
use lane::Lane;

/// Photos go through the network together until they have so many pixels: fewer would not keep a large GPU busy, and more would only
/// make their copies wait for each other.
const TOGETHER: usize = 1 << 20;
/// Lanes of photos that come together: one whose photos are copied, one whose photos are computed.
const LANES: usize = 2;

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

    /// A lane that nobody uses.
    fn lane(&self) -> Result<Lane<D>> {
        let idle = self.lanes.lock().pop();
        idle.map_or_else(|| Ok(Lane::new(self.gpu.fork()?)), Ok)
    }

    /// Runs photos of one size through the network, so many together, on several lanes.
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

    fn run(&self, photos: &[Pixels<'_>], wanted: &mut [Wanted<'_>]) -> Result<Spent> {
        let Some(first) = photos.first() else { return Ok(Spent::default()) };
        let (height, width) = self.preparation.extent(first.width(), first.height())?.full;
        match self.run_together(photos, wanted, (TOGETHER / (width * height)).max(1)) {
            Err(Error::DeviceMemory { .. }) => {
                // What other sizes need is freed, and fewer photos are under way.
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
}

#[cfg(test)]
mod tests;
