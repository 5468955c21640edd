//! Limits the peak memory of a large frame, including the weights.
#![cfg(target_os = "linux")]

use image::RgbImage;
use rtformer::pixels::Mask;
use rtformer::{Device, Segmenter, Variant, bench};

/// Other engines need 540 to 970 MB for this frame.
const MOST_KB: usize = 350_000;

/// The peak memory of this process so far.
fn peak_kb() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux provides the process status");
    let line =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the status contains the peak memory");
    line.trim().trim_end_matches(" kB").parse().expect("the value is a number of kilobytes")
}

// A separate binary, so that the memory of other tests does not count.
#[test]
fn a_frame_of_two_megapixels_stays_below_350_mb() {
    let segmenter =
        bench::random(Variant::Slim, Segmenter::builder().device(Device::Cpu)).expect("random weights load");
    if segmenter.instruction_set() == "scalar" {
        println!("skipped: the scalar definitions would take minutes for a frame of this size");
        return;
    }
    let photo = RgbImage::from_fn(2048, 1024, |x, y| image::Rgb([x as u8, y as u8, (x ^ y) as u8]));
    let mut mask = Mask::new(0, 0, segmenter.model().num_classes());
    for frame in 1..=2 {
        segmenter.segment_into(&photo, &mut mask).expect("the frame fits");
        let peak = peak_kb();
        println!("frame {frame}: {peak} kB peak so far");
        assert!(peak <= MOST_KB, "frame {frame}: {peak} kB");
    }
}
