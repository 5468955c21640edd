//! Photo in, scene out: the one place where everything meets.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::model::Config;
use crate::pixels::{IndexedPicture, Input, Mask, Palette, Pixels, Size};
use crate::timing::Timings;
use crate::weights::Dataset;

/// Where the network runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Device {
    #[default]
    Auto,
    Cpu,
    Cuda(usize),
    Metal,
    /// stock candle operations: slow, plain, the definition of right
    Reference,
}
impl Device {
    pub fn auto() -> Self { Self::Auto }
}
impl FromStr for Device {
    type Err = Error;
    fn from_str(_: &str) -> Result<Self> { todo!() }
}
impl fmt::Display for Device {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result { todo!() }
}

/// In which arithmetic the network runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Precision {
    #[default]
    F32,
}
impl FromStr for Precision {
    type Err = Error;
    fn from_str(_: &str) -> Result<Self> { todo!() }
}
impl fmt::Display for Precision {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result { todo!() }
}

/// Options; all have defaults (embedded weights, auto device, native size, all cores, mask only).
#[derive(Clone, Debug, Default)]
pub struct Builder {}
impl Builder {
    /// a file; without it the embedded default weights
    pub fn weights(self, _path: impl Into<PathBuf>) -> Self { todo!() }
    pub fn device(self, _: Device) -> Self { todo!() }
    pub fn precision(self, _: Precision) -> Self { todo!() }
    /// 0 = all cores
    pub fn threads(self, _: usize) -> Self { todo!() }
    pub fn size(self, _: Size) -> Self { todo!() }
    /// also give each pixel's confidence
    pub fn confidence(self, _: bool) -> Self { todo!() }
    /// also give full-size logits
    pub fn logits(self, _: bool) -> Self { todo!() }
    /// pixels whose top probability is below become the ignore id
    pub fn reject_below(self, _: f32) -> Self { todo!() }
    pub fn build(self) -> Result<Segmenter> { todo!() }
}

/// RTFormer, its weights, and the device that they are on. `Send + Sync`.
pub struct Segmenter {}
impl Segmenter {
    pub fn builder() -> Builder { todo!() }
    pub fn open(_path: impl AsRef<Path>, _device: Device) -> Result<Self> { todo!() }
    pub fn embedded(_device: Device) -> Result<Self> { todo!() }
    /// random weights of a named variant ("slim", "base"), for benchmarks
    pub fn random(_variant: &str, _builder: Builder) -> Result<Self> { todo!() }

    pub fn segment<'a>(&self, _photo: impl Into<Pixels<'a>>) -> Result<Scene> { todo!() }
    /// any mix of sizes; results in the photos' order
    pub fn segment_batch(&self, _photos: &[Pixels<'_>]) -> Result<Vec<Scene>> { todo!() }
    /// reuses `mask`'s memory
    pub fn segment_into<'a>(&self, _photo: impl Into<Pixels<'a>>, _mask: &mut Mask) -> Result<Timings> { todo!() }

    pub fn dataset(&self) -> &Dataset { todo!() }
    pub fn config(&self) -> &Config { todo!() }
    pub fn palette(&self) -> &Palette { todo!() }
    /// the device taken: "cpu", "reference"
    pub fn device(&self) -> Device { todo!() }
    /// why, when it was `auto`
    pub fn device_reason(&self) -> &str { todo!() }
    /// "avx512", "avx2", "scalar" or "-"
    pub fn instruction_set(&self) -> &str { todo!() }
    pub fn threads(&self) -> usize { todo!() }
    pub fn precision(&self) -> Precision { todo!() }
    /// the weights' path, or "embedded"
    pub fn weights_name(&self) -> &Path { todo!() }
    /// "RTFormer-Slim"
    pub fn variant(&self) -> String { todo!() }

    /// For benchmarks: the normalised input uploaded once, so that the network can be run on it again and again.
    pub fn resident(&self, _input: &Input) -> Result<Resident<'_>> { todo!() }
    /// One frame, layer by layer.
    pub fn profile(&self, _input: &Input) -> Result<Vec<LayerTime>> { todo!() }
    /// The input that `photo` becomes.
    pub fn prepare<'a>(&self, _photo: impl Into<Pixels<'a>>) -> Result<Input> { todo!() }
}
impl fmt::Display for Segmenter {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result { todo!() }
}

/// One layer's share of a frame.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LayerTime {
    /// e.g. "layer1.0.conv1"
    pub name: String,
    pub milliseconds: f64,
    /// floating-point operations (2 per multiply-add); 0 where it moves memory only
    pub flops: f64,
}

/// An input on the device.
pub struct Resident<'a> { _segmenter: &'a Segmenter }
impl Resident<'_> {
    /// network and full-size bilinear logits [classes, height, width] into `out` (reused)
    pub fn logits(&self, _out: &mut Vec<f32>) -> Result<()> { todo!() }
    /// network and fused upsample + argmax
    pub fn mask(&self, _mask: &mut Mask) -> Result<()> { todo!() }
}

/// A segmented photo.
#[derive(Clone, Debug)]
pub struct Scene {}
/// A class's part of a scene.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClassShare { pub id: u16, pub name: String, pub color: [u8; 3], pub share: f64 }
impl Scene {
    pub fn mask(&self) -> &Mask { todo!() }
    pub fn into_mask(self) -> Mask { todo!() }
    /// classes that occur, largest share first (share of all pixels)
    pub fn classes(&self) -> Vec<ClassShare> { todo!() }
    pub fn palette(&self) -> IndexedPicture<'_> { todo!() }
    pub fn overlay<'a>(&self, _photo: impl Into<Pixels<'a>>, _alpha: f32) -> image::RgbImage { todo!() }
    /// [height * width], when asked for
    pub fn confidence(&self) -> Option<&[f32]> { todo!() }
    pub fn mean_confidence(&self) -> Option<f64> { todo!() }
    /// [classes, height, width], when asked for
    pub fn logits(&self) -> Option<&[f32]> { todo!() }
    pub fn timings(&self) -> Timings { todo!() }
}
