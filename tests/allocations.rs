//! After the first frame of a size, a frame asks the allocator for nothing.

use image::RgbImage;
use rtformer::pixels::Mask;
use rtformer::{Builder, Device, Segmenter, Size};
use rtformer_kernels::testing::{CountingAllocator, noise};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator::new();

/// Enters the segmenter's threads once: rayon's queue for that, a linked list of blocks, takes a new block every 63rd time.
const FRAMES: usize = 40;

// One test: another one beside it would allocate meanwhile.
#[test]
fn a_frame_after_the_first_allocates_nothing() {
    let photo = |width: u32, height: u32| {
        let bytes = noise((width * height * 3) as usize, 1).iter().map(|v| (127.0 + 127.0 * v) as u8).collect();
        RgbImage::from_raw(width, height, bytes).expect("three bytes a pixel")
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
        assert!(frame() > 0, "{name}: the first frame has to ask for memory, or nothing is counted");
        let counts: Vec<_> = (0..FRAMES).map(|_| frame()).collect();
        let asked: Vec<_> = counts.iter().enumerate().filter(|(_, count)| **count > 0).collect();
        assert!(matches!(asked[..], [] | [(_, 1)]), "{name}: frames that allocated, and how often: {asked:?}");
    }
}
