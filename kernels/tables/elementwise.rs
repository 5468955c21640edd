//! Operations on each pixel alone.

use super::{Row, download, shape, stored, upload};
use crate::Extent;
use crate::concat::gpu as concat;
use crate::gpu::{Device, GpuElement, GpuShape};
use crate::pack::gpu as pack;
use crate::pointwise::gpu as pointwise;
use crate::prepare::gpu as prepare;
use crate::testing::noise;

const SHAPES: [GpuShape; 6] = [
    shape(1, 1, 1, 1),   // the smallest map
    shape(2, 3, 5, 7),   // the photo's channels; two images
    shape(1, 8, 16, 16), // no padding; one block exactly
    shape(1, 17, 3, 33), // one channel in the last eight
    shape(3, 9, 1, 257), // one pixel in the second block
    shape(2, 64, 9, 11),
];

/// `pack` and `unpack`.
pub fn packs<D: Device>(device: &D, element: GpuElement) {
    for shape in SHAPES {
        let _row = Row::of(device, element, shape);
        let plain = noise(shape.n * shape.channels * shape.pixels(), 1);
        let packed = pack::pack(device, &plain, shape, element).expect("the shapes fit");
        assert_eq!(download(device, &packed), stored(element, plain));
        let mut back = vec![f32::NAN; shape.n * shape.channels * shape.pixels()];
        pack::unpack(device, &packed, &mut back).expect("the shapes fit");
        assert_eq!(back, download(device, &packed));
    }
}

/// `prepare`, which is exact.
pub fn preparations<D: Device>(device: &D, element: GpuElement) {
    let layouts = [
        (1, [0, 0, 0]), // grey
        (3, [0, 1, 2]),
        (3, [2, 1, 0]), // BGR, as cameras have it
        (4, [0, 1, 2]), // with an alpha, which nobody looks at
        (4, [2, 1, 0]),
    ];
    let of = |n, full, kept| (n, Extent { full, kept });
    let sizes = [
        of(1, (1, 1), (1, 1)),     // the smallest photo
        of(1, (16, 16), (16, 16)), // one block exactly, and every value once
        of(3, (1, 257), (1, 257)), // three pixels in the last block; images begin in the middle of one
        of(1, (5, 103), (5, 103)), // some rows, three pixels in the last block
        of(1, (8, 8), (5, 8)),     // padded below
        of(2, (4, 32), (4, 17)),   // padded beside, two images
        of(3, (8, 16), (3, 5)),    // both
    ];
    let values = noise(3 * 256, 1);
    let values: [[f32; 256]; 3] = std::array::from_fn(|i| std::array::from_fn(|j| values[256 * i + j]));
    let table = prepare::Table::new(device, &values).expect("there is memory");
    for ((bytes, offsets), (n, size)) in layouts.into_iter().flat_map(|layout| sizes.map(|size| (layout, size))) {
        let layout = prepare::PixelLayout { bytes, offsets };
        let _row = Row::of(device, element, (layout, n, size));
        let photo = size.kept.0 * size.kept.1;
        // The bytes of a pixel differ, and so do neighbours' and images'.
        let pixels: Vec<_> =
            (0..n * photo).flat_map(|pixel| (0..bytes).map(move |byte| (pixel + 85 * byte) as u8)).collect();
        let mut buffer = device.buffer(pixels.len()).expect("there is memory");
        device.write(&mut buffer, &pixels).expect("it is that long");
        let got = prepare::prepare(device, &buffer, layout, &table, n, size, element).expect("the shapes fit");
        let images = pixels.chunks(photo * bytes);
        let want = images.flat_map(|image| crate::prepare::scalar::prepare(image, layout, &values, size)).collect();
        assert_eq!(download(device, &got), stored(element, want));
    }
}

/// `relu` and `add`.
pub fn pointwise_operations<D: Device>(device: &D, element: GpuElement) {
    for shape in SHAPES {
        let _row = Row::of(device, element, shape);
        let values = |seed| stored(element, noise(shape.n * shape.channels * shape.pixels(), seed));
        let (a, b) = (values(1), values(2));
        let (x, y) = (upload(device, element, &a, shape), upload(device, element, &b, shape));
        let want: Vec<_> = a.iter().map(|v| v.max(0.0)).collect();
        assert_eq!(download(device, &pointwise::relu(device, &x).expect("the shapes fit")), want);
        let want = stored(element, a.iter().zip(&b).map(|(a, b)| a + b).collect());
        assert_eq!(download(device, &pointwise::add(device, &x, &y).expect("the shapes fit")), want);
    }
}

/// `concat`.
pub fn concatenations<D: Device>(device: &D, element: GpuElement) {
    let rows: [(usize, usize, usize, &[usize]); 7] = [
        (1, 1, 1, &[1]),
        (2, 3, 5, &[16, 8]),
        (1, 4, 9, &[3, 5]),    // no padding behind both
        (2, 3, 7, &[5, 6, 1]), // four of padding
        (1, 2, 3, &[3, 8]),    // five of padding, behind a part that has none
        (1, 2, 33, &[17, 8, 24, 2]),
        (1, 16, 16, &[24, 24, 24, 24, 24]), // DAPPM's five views
    ];
    for (n, height, width, widths) in rows {
        let _row = Row::of(device, element, (n, height, width, widths));
        let pixels = height * width;
        let parts: Vec<_> = widths
            .iter()
            .enumerate()
            .map(|(i, &channels)| stored(element, noise(n * channels * pixels, i as u64)))
            .collect();
        let mut want = Vec::new();
        for image in 0..n {
            for (part, &channels) in parts.iter().zip(widths) {
                want.extend_from_slice(&part[image * channels * pixels..][..channels * pixels]);
            }
        }
        let maps: Vec<_> = parts
            .iter()
            .zip(widths)
            .map(|(part, &channels)| upload(device, element, part, shape(n, channels, height, width)))
            .collect();
        let got = concat::concat(device, &maps.iter().collect::<Vec<_>>()).expect("the shapes fit");
        assert_eq!(download(device, &got), want);
    }
}
