//! Operations on windows of pixels, and on all of them.

use super::{Row, download, each_image, norm, owned, shape, stored, tolerance, upload};
use crate::ea_norm::gpu as ea_norm;
use crate::gpu::{Device, GpuElement, GpuShape};
use crate::pool::gpu as pool;
use crate::resize_add::gpu as resize_add;
use crate::testing::{assert_close, noise};
use crate::{Extent, Isa, Lanes, ea_group_l1, ea_softmax};

/// `resize` and `resize_add`.
pub fn resizes<D: Device>(device: &D, element: GpuElement) {
    let rows = [
        (shape(1, 1, 1, 1), (1, 1)), // the smallest map
        (shape(2, 3, 1, 1), (5, 7)), // one pixel to any size: DAPPM's global view
        (shape(1, 5, 2, 3), (4, 6)), // the usual factors ...
        (shape(1, 17, 4, 8), (32, 64)),
        (shape(1, 9, 12, 15), (45, 60)), // ... an unusual one, 360x480
        (shape(2, 16, 9, 70), (4, 23)),  // smaller
        (shape(1, 2, 5, 6), (5, 131)),   // one direction
        (shape(1, 8, 3, 4), (1, 257)),   // one more than a block
    ];
    for (from, (height, width)) in rows {
        let _row = Row::of(device, element, (from, height, width));
        let to = GpuShape { height, width, ..from };
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let base = stored(element, noise(to.n * to.channels * to.pixels(), 2));
        let (small, large) = (upload(device, element, &x, from), upload(device, element, &base, to));
        let want = |add: bool| {
            each_image(from.n, to, |image, out| {
                let (x, base) = (owned(&x, image, from), owned(&base, image, to));
                crate::resize_add(Isa::Scalar, x.map(), add.then(|| base.map()), out.view()).expect("the shapes fit");
            })
        };
        let got = resize_add::resize(device, &small, (height, width)).expect("the shapes fit");
        let whole = download(device, &got);
        assert_close(&whole, &want(false), tolerance(element));
        // A part of the result is the whole, cropped.
        let kept = (height.div_ceil(2), width - width / 3);
        let part = resize_add::resize(device, &small, Extent { full: (height, width), kept }).expect("the shapes fit");
        let rows = whole.chunks(height * width).flat_map(|plane| plane.chunks(width).take(kept.0));
        assert_eq!(download(device, &part), rows.flat_map(|row| row[..kept.1].to_vec()).collect::<Vec<_>>());
        let outside = Extent { full: (height, width), kept: (height + 1, width) };
        assert!(resize_add::resize(device, &small, outside).is_err());
        let got = resize_add::resize_add(device, &small, &large).expect("the shapes fit");
        assert_close(&download(device, &got), &want(true), tolerance(element));
    }
}

/// `avg_pool`, `global_avg_pool` and `max_pool_to`.
pub fn pools<D: Device>(device: &D, element: GpuElement) {
    let windows = [
        (shape(1, 1, 1, 1), [5, 2, 2]), // less than a window
        (shape(2, 3, 7, 5), [5, 2, 2]), // odd
        (shape(1, 17, 12, 15), [9, 4, 4]),
        (shape(1, 33, 12, 15), [17, 8, 8]), // a window larger than the map
        (shape(1, 8, 32, 33), [17, 8, 8]),
        (shape(1, 5, 6, 6), [2, 2, 0]),   // no border
        (shape(1, 2, 17, 16), [3, 1, 1]), // a pixel in many windows; more than a block
        (shape(1, 4, 9, 7), [1, 3, 0]),   // pixels in none
        (shape(1, 1, 3, 40), [7, 1, 3]),  // larger than the map in one direction
    ];
    for (from, [kernel, stride, padding]) in windows {
        let _row = Row::of(device, element, (from, kernel, stride, padding));
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let maps = upload(device, element, &x, from);
        let got = pool::avg_pool(device, &maps, [kernel, stride, padding]).expect("the window fits");
        let want = each_image(from.n, got.shape(), |image, out| {
            let x = owned(&x, image, from);
            crate::avg_pool(Isa::Scalar, x.map(), kernel, stride, padding, out.view()).expect("the shapes fit");
        });
        assert_close(&download(device, &got), &want, tolerance(element));
    }

    // Fewer pixels than parts, some more, and many; channels past a block.
    for from in [shape(1, 1, 1, 1), shape(2, 3, 2, 5), shape(1, 33, 7, 9), shape(1, 72, 5, 31)] {
        let _row = Row::of(device, element, ("global", from));
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let got = pool::global_avg_pool(device, &upload(device, element, &x, from)).expect("the shapes fit");
        let want = each_image(from.n, got.shape(), |image, out| {
            crate::global_avg_pool(Isa::Scalar, owned(&x, image, from).map(), out.view()).expect("the shapes fit");
        });
        let error = download(device, &got).iter().zip(&want).fold(0.0f32, |e, (a, b)| e.max((a - b).abs()));
        assert!(error < tolerance(element), "{error}");
    }

    let adaptive = [
        (shape(1, 1, 1, 1), 1),
        (shape(2, 3, 12, 12), 12),  // every window is one pixel
        (shape(1, 17, 13, 31), 12), // windows overlap
        (shape(1, 33, 5, 7), 12),   // fewer pixels than windows
        (shape(1, 8, 24, 40), 17),  // more than a block
    ];
    for (from, side) in adaptive {
        let _row = Row::of(device, element, (from, side));
        let x = stored(element, noise(from.n * from.channels * from.pixels(), 1));
        let (on_device, scale, shift) = norm(device, from.channels, 2);
        let maps = upload(device, element, &x, from);
        let got = pool::max_pool_to(device, &maps, &on_device, side).expect("the shapes fit");
        let (scale, shift) = (Lanes::from_channels(&scale), Lanes::from_channels(&shift));
        let want = each_image(from.n, got.shape(), |image, out| {
            let x = owned(&x, image, from);
            crate::max_pool_to(Isa::Scalar, x.map(), &scale, &shift, out.view()).expect("the shapes fit");
        });
        assert_close(&download(device, &got), &want, tolerance(element));
    }
}

/// `ea_norm`.
pub fn normalizations<D: Device>(device: &D, element: GpuElement) {
    let rows = [
        (shape(1, 1, 1, 1), 1), // the smallest map
        (shape(2, 3, 2, 5), 3), // every channel its own group
        (shape(1, 5, 7, 3), 1),
        (shape(1, 16, 9, 7), 2),   // one pixel less than a block of the second kernel
        (shape(1, 17, 5, 13), 17), // one more; two splits
        (shape(2, 33, 5, 4), 3),   // groups across eights
        (shape(1, 144, 6, 7), 8),  // groups of 18
        (shape(1, 40, 33, 65), 1), // as many splits as there are; a group of more than a simdgroup
        (shape(1, 320, 2, 3), 1),  // a group of more than a block
    ];
    for (shape, groups) in rows {
        let _row = Row::of(device, element, (shape, groups));
        let mut x = noise(shape.n * shape.channels * shape.pixels(), 7);
        for v in &mut x {
            *v *= 10.0;
        }
        x[0] = 60.0; // one far above the others, as trained networks have them
        let x = stored(element, x);
        let mut maps = upload(device, element, &x, shape);
        ea_norm::ea_norm(device, &mut maps, groups).expect("the shapes fit");
        let want = each_image(shape.n, shape, |image, out| {
            *out = owned(&x, image, shape);
            ea_softmax(Isa::Scalar, out.view()).expect("the view is whole");
            ea_group_l1(Isa::Scalar, out.view(), groups).expect("the view is whole");
        });
        assert_close(&download(device, &maps), &want, tolerance(element));
    }
}
