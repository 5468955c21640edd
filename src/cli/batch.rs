//! The number of photos that go through the network together.

use rtformer::Segmenter;

/// The number of photos that go through the network together: the requested number, or a default that is fast on the device. On a GPU,
/// the copies of one photo overlap with the computation of another. On a CPU, one photo keeps every core busy.
pub(super) fn size(asked: Option<u16>, segmenter: &Segmenter) -> u16 {
    asked.unwrap_or(if segmenter.device().is_gpu() { 8 } else { 1 })
}
