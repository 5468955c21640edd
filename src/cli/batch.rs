//! How many photos go through the network together.

use rtformer::Segmenter;

/// How many photos are given to the network together: what was asked for, or what the device is fast with. On a GPU the copies of one
/// overlap with the computation of another; on a CPU one photo keeps every core busy.
pub(super) fn size(asked: Option<u16>, segmenter: &Segmenter) -> u16 {
    asked.unwrap_or(if segmenter.device().is_gpu() { 8 } else { 1 })
}
