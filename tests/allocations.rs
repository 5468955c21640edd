//! After the first frame of a size, a frame makes no allocations.

use image::RgbImage;
use rtformer::pixels::Mask;
use rtformer::{Builder, Device, Segmenter, Size};
use rtformer_kernels::testing::{CountingAllocator, noise};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Each frame enters the thread pool once. Rayon's queue for this is a linked list of blocks that allocates a block for
/// every 63rd entry, so this many frames may see one allocation.
const FRAMES: usize = 40;

// Only one test, because a test running in parallel would allocate too.
#[test]
fn a_frame_after_the_first_allocates_nothing() {
    let photo = |width: u32, height: u32| {
        let bytes = noise((width * height * 3) as usize, 1).iter().map(|v| (127.0 + 127.0 * v) as u8).collect();
        RgbImage::from_raw(width, height, bytes).expect("three bytes per pixel")
    };
    let cpu = || Segmenter::builder().device(Device::Cpu);
    let cases: [(&str, Builder, RgbImage); 5] = [
        ("one thread", cpu().threads(1), photo(160, 96)),
        ("two threads", cpu().threads(2), photo(160, 96)),
        ("five threads, an odd size", cpu().threads(5), photo(161, 99)),
        ("uncertain pixels rejected", cpu().threads(2).reject_below(0.5), photo(96, 64)),
        ("resized", cpu().threads(2).size(Size::Exact { width: 128, height: 64 }), photo(200, 90)),
    ];
    for (name, builder, photo) in cases {
        let segmenter = builder.build().expect("the embedded weights load");
        let mut mask = Mask::new(0, 0, segmenter.model().num_classes());
        let mut frame = || {
            let before = ALLOCATOR.count();
            segmenter.segment_into(&photo, &mut mask).expect("a photo of a few pixels");
            ALLOCATOR.count() - before
        };
        assert!(frame() > 0, "{name}: the first frame must allocate, otherwise the counter does not work");
        let counts: Vec<_> = (0..FRAMES).map(|_| frame()).collect();
        let asked: Vec<_> = counts.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        assert!(matches!(asked[..], [] | [(_, 1)]), "{name}: frames that allocated, and their allocations: {asked:?}");
    }
}
