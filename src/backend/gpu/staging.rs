//! Copies photos to a GPU: as bytes that a kernel normalises with a table, or as an input that the host prepared.

use rayon::prelude::*;
use rtformer_kernels::gpu::{Device, GpuMaps, GpuShape};
use rtformer_kernels::pack::gpu as pack;
use rtformer_kernels::prepare::gpu::{self as prepare, PixelLayout};

use super::{Arc, Gpu, Table};
use crate::backend::common_extent;
use crate::error::Result;
use crate::pixels::{Extent, Input, PixelFormat, Pixels, Preparation};

/// The minimum number of bytes that a thread copies.
const COPY: usize = 1 << 18;

/// The data to copy to the device for a batch of photos.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Staging {
    /// Number of photos.
    pub(crate) count: usize,
    /// The size of the network's input.
    pub(crate) extent: Extent,
    /// `Some` if the photos' bytes are copied; `None` if the host resizes the photos and copies planes of floats.
    format: Option<PixelFormat>,
}

impl Staging {
    pub(crate) fn of(photos: &[Pixels<'_>], preparation: &Preparation) -> Result<Self> {
        let extent = common_extent(photos, preparation)?;
        let format = photos.first().map(Pixels::format).filter(|format| {
            let native = |photo: &Pixels<'_>| extent.kept == (photo.height() as usize, photo.width() as usize);
            photos.iter().all(|photo| photo.format() == *format && native(photo))
        });
        Ok(Self { count: photos.len(), extent, format })
    }

    /// The shape of the network's input, `[n, 3, height, width]`.
    pub(crate) fn shape(&self) -> GpuShape {
        let (height, width) = self.extent.full;
        GpuShape { n: self.count, channels: 3, height, width }
    }

    /// The number of bytes to copy.
    pub(crate) fn bytes(&self) -> usize {
        let ((height, width), pixel) = match self.format {
            Some(format) => (self.extent.kept, format.channels()),
            None => (self.extent.full, 3 * size_of::<f32>()),
        };
        self.count * height * width * pixel
    }

    /// Writes the photos to `to`, which has [`bytes`](Self::bytes) bytes. Reuses the memory of `input`.
    pub(crate) fn fill(
        &self,
        photos: &[Pixels<'_>],
        preparation: &Preparation,
        input: &mut Input,
        to: &mut [u8],
    ) -> Result<()> {
        let each = (self.bytes() / self.count.max(1)).max(1);
        for (to, photo) in to.chunks_exact_mut(each).zip(photos) {
            if let Some(format) = self.format {
                let row = self.extent.kept.1 * format.channels();
                let rows = to.par_chunks_exact_mut(row).enumerate().with_min_len(COPY.div_ceil(row));
                rows.for_each(|(y, to)| to.copy_from_slice(photo.row(y as u32)));
            } else {
                input.refill(photo, preparation)?;
                let floats = to.as_chunks_mut().0.par_iter_mut().zip(&input.data).with_min_len(COPY);
                floats.for_each(|(to, from): (&mut [u8; 4], &f32)| *to = from.to_ne_bytes());
            }
        }
        Ok(())
    }
}

impl<D: Device> Gpu<D> {
    /// Output of [`Staging::fill`] in device memory → the network's input.
    pub(crate) fn prepare_staged(
        &self,
        staged: &D::Buffer,
        staging: &Staging,
        table: &Table<D::Buffer>,
    ) -> Result<Arc<GpuMaps<D::Buffer>>> {
        let read = staging.bytes() as f64;
        let Some(format) = staging.format else {
            return self.op("pack", read, || pack::pack_from(&self.device, staged, staging.shape(), self.element));
        };
        let layout = PixelLayout { bytes: format.channels(), offsets: format.offsets() };
        let Staging { count, extent, .. } = *staging;
        self.op("normalise", read, || {
            prepare::prepare(&self.device, staged, layout, table, count, extent, self.element)
        })
    }
}
