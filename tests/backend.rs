//! Runs the documented examples of `trait Backend` on every backend: the reference, the CPU with each instruction set, and the emulated
//! GPU kernels in both languages.

use rtformer::backend::{Activation, Backend, Confidence, Cpu, Epilogue, Gpu, GpuElement, Isa, Reference, Window};
use rtformer::pixels::{Extent, IdsMut, Input, Mask, Normalization, PixelFormat, Pixels, Preparation, Size};
use rtformer::weights::fold::{BatchNorm, Before, ConvLayer};
use rtformer_kernels::gpu::emulated::Emulated;

const HALF: Normalization = Normalization { mean: [0.5; 3], std: [0.5; 3] };

/// A 1x1 convolution from one channel to one.
fn doubling(before: Option<Before>) -> ConvLayer {
    let (name, weight) = ("double".into(), vec![2.0]);
    let (in_channels, out_channels, kernel, stride) = (1, 1, 1, 1);
    ConvLayer {
        name,
        in_channels,
        out_channels,
        kernel,
        stride,
        reads_photo: false,
        weight,
        bias: None,
        before,
        after: None,
    }
}

fn norm(weight: f32, bias: f32, mean: f32, variance: f32) -> BatchNorm {
    let (weight, bias, mean, variance) = (vec![weight], vec![bias], vec![mean], vec![variance]);
    BatchNorm { weight, bias, mean, variance, epsilon: 0.0 }
}

fn close(got: &[f32], want: &[f32]) {
    assert_eq!(got.len(), want.len(), "{got:?}");
    assert!(got.iter().zip(want).all(|(a, b)| (a - b).abs() < 1e-5), "got {got:?}, expected {want:?}");
}

/// The examples of the trait, in order.
fn examples<B: Backend>(b: &B) {
    assert_eq!(b.run(|| 1 + 1), 2);
    let up = |data: &[f32], shape| b.upload(data, shape).unwrap();
    let down = |x: &B::Tensor| b.download(x).unwrap();

    // Maps with any number of channels survive a round trip; each image of a batch keeps its position.
    for shape in [[1, 3, 2, 2], [2, 1, 1, 1], [2, 3, 4, 5], [1, 17, 3, 2], [3, 16, 1, 1], [1, 33, 2, 9]] {
        let data: Vec<f32> = (0..shape.iter().product()).map(|i: usize| i as f32).collect();
        let x = up(&data, shape);
        assert_eq!((b.shape(&x), down(&x)), (shape, data));
    }
    for (data, shape) in [(&[0.0; 3][..], [1, 1, 2, 2]), (&[0.0; 4], [1, 1, 1, 5]), (&[], [0, 3, 2, 2])] {
        assert!(matches!(b.upload(data, shape), Err(rtformer::Error::Input(_))), "{shape:?}");
    }

    let conv = b.pack_conv(doubling(None)).unwrap();
    close(&down(&b.conv(&conv, &up(&[3.0], [1, 1, 1, 1]), Epilogue::default()).unwrap()), &[6.0]);
    let x = up(&[1.0, -3.0], [1, 1, 1, 2]);
    close(&down(&b.conv(&conv, &x, Epilogue::activate(Activation::Relu)).unwrap()), &[2.0, 0.0]);
    close(&down(&b.conv(&conv, &x, Epilogue::residual(&x)).unwrap()), &[3.0, -9.0]);
    let before = Some(Before { norm: norm(2.0, 1.0, 3.0, 4.0), relu: true });
    let prologue = b.pack_conv(doubling(before)).unwrap();
    close(&down(&b.conv(&prologue, &x, Epilogue::default()).unwrap()), &[0.0, 0.0]);

    close(&down(&b.relu(&x).unwrap()), &[1.0, 0.0]);
    close(&down(&b.add(&x, &x).unwrap()), &[2.0, -6.0]);

    let x = up(&[0.0, 1.0], [1, 1, 1, 2]);
    close(&down(&b.resize(&x, (1, 4)).unwrap()), &[0.0, 0.25, 0.75, 1.0]);
    close(&down(&b.resize(&x, Extent { full: (1, 4), kept: (1, 3) }).unwrap()), &[0.0, 0.25, 0.75]);
    let base = up(&[10.0; 4], [1, 1, 1, 4]);
    close(&down(&b.resize_add(&x, &base).unwrap()), &[10.0, 10.25, 10.75, 11.0]);

    let pooled = b.avg_pool(&up(&[1.0; 16], [1, 1, 4, 4]), Some(Window { kernel: 3, stride: 2, padding: 1 })).unwrap();
    assert_eq!(b.shape(&pooled), [1, 1, 2, 2]);
    close(&down(&pooled)[..1], &[4.0 / 9.0]);
    let x = up(&[1.0, 2.0, 3.0, 6.0], [1, 1, 2, 2]);
    close(&down(&b.avg_pool(&x, None).unwrap()), &[3.0]);

    let scaled = b.pack_norm(norm(2.0, 1.0, 3.0, 4.0)).unwrap();
    close(&down(&b.max_pool_to(&up(&[5.0], [1, 1, 1, 1]), &scaled, 1).unwrap()), &[3.0]);
    let negative = b.pack_norm(norm(-1.0, 0.0, 0.0, 1.0)).unwrap();
    close(&down(&b.max_pool_to(&x, &negative, 1).unwrap()), &[-1.0]);

    let logits = up(&[0.0; 4], [1, 2, 1, 2]);
    close(&down(&b.ea_norm(logits.clone(), 1).unwrap()), &[0.5; 4]);
    close(&down(&logits), &[0.0; 4]); // another caller's map is unchanged
    let plain = b.pack_norm(norm(1.0, 0.0, 0.0, 1.0)).unwrap();
    let (x, kv) = (up(&[1.0, 2.0], [1, 1, 1, 2]), up(&[7.0, 10.0], [1, 2, 1, 1]));
    close(&down(&b.cross_attend(&x, &plain, &kv).unwrap()), &[11.0, 12.0]);

    let (one, two) = (up(&[1.0], [1, 1, 1, 1]), up(&[2.0], [1, 1, 1, 1]));
    let both = b.concat(&[&one, &two]).unwrap();
    assert_eq!((b.shape(&both), down(&both)), ([1, 2, 1, 1], vec![1.0, 2.0]));

    let logits = up(&[0.0, 1.0], [1, 2, 1, 1]);
    let (mut mask, mut sure) = (Mask::new(2, 2, 2), [0.0; 4]);
    let confidence = Confidence { values: &mut sure, temperature: 1.0 };
    b.argmax(&logits, 0, (2, 2), mask.ids_mut(), Some(confidence)).unwrap();
    assert_eq!(mask.counts(), [0, 4]);
    close(&sure, &[1.0 / (1.0 + (-1.0_f32).exp()); 4]);
    let logits = up(&[0.0, 1.0], [1, 1, 1, 2]);
    let mut full = [f32::NAN; 4];
    b.upsample(&logits, 0, (1, 4), &mut full).unwrap();
    close(&full, &[0.0, 0.25, 0.75, 1.0]);
    let mut part = [f32::NAN; 3];
    b.upsample(&logits, 0, Extent { full: (1, 4), kept: (1, 3) }, &mut part).unwrap();
    assert_eq!(part, full[..3]);
    let mut ids = [9; 3];
    b.argmax(&logits, 0, Extent { full: (1, 4), kept: (1, 3) }, IdsMut::U8(&mut ids), None).unwrap();
    assert_eq!(ids, [0; 3]);
    b.release();
    close(&down(&logits), &[0.0, 1.0]);
}

/// `prepare` equals `upload` of each photo's `Input`, bit for bit.
fn prepared<B: Backend>(b: &B) {
    let photo = image::RgbImage::from_pixel(2, 1, image::Rgb([255, 0, 255]));
    let input = b.prepare(&[(&photo).into()], &Preparation { pad_multiple: 2, ..Preparation::new(HALF) }).unwrap();
    assert_eq!(b.shape(&input), [1, 3, 2, 2]);
    assert_eq!(b.download(&input).unwrap(), [1.0, 1.0, 0.0, 0.0, -1.0, -1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);

    let normalization = Normalization { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    let photos = [1, 2, 3].map(|seed| {
        image::RgbaImage::from_fn(21, 13, |x, y| {
            image::Rgba([x * 5 + seed, y * 7, x * y + seed * 3, 9].map(|v| v as u8))
        })
    });
    let padded_rows: Vec<u8> =
        photos[0].rows().flat_map(|row| row.flat_map(|p| p.0).chain([7; 5]).collect::<Vec<_>>()).collect();
    let strided = Pixels::new(&padded_rows, 21, 13, 4 * 21 + 5, PixelFormat::Rgba8).unwrap();
    let other_order = image::DynamicImage::ImageRgba8(photos[1].clone()).to_rgb8();
    let batches = [
        photos.each_ref().map(Pixels::from).to_vec(),
        vec![strided, (&photos[1]).into()],
        vec![(&photos[0]).into(), (&other_order).into()], // two byte orders
    ];
    for size in [Size::Native, Size::Exact { width: 30, height: 10 }, Size::Within { width: 16, height: 16 }] {
        for pad_multiple in [1, 8] {
            let preparation = Preparation { normalization, size, pad_multiple };
            for photos in &batches {
                let inputs: Vec<_> = photos.iter().map(|photo| Input::prepare(photo, &preparation).unwrap()).collect();
                let want: Vec<f32> = inputs.iter().flat_map(|input| input.data.clone()).collect();
                let got = b.prepare(photos, &preparation).unwrap();
                assert_eq!(
                    b.shape(&got),
                    [photos.len(), 3, inputs[0].height, inputs[0].width],
                    "{size}, {pad_multiple}"
                );
                assert!(b.download(&got).unwrap() == want, "{size}, padded to {pad_multiple}");
            }
        }
    }
    let small = image::RgbImage::new(3, 2);
    let refused = |photos: &[Pixels<'_>]| b.prepare(photos, &Preparation::new(HALF)).err().unwrap().to_string();
    assert!(refused(&[]).contains("at least one photo"));
    assert!(refused(&[(&small).into(), (&photos[0]).into()]).contains("3x2 and 21x13"));
}

fn all<B: Backend>(b: &B) {
    examples(b);
    prepared(b);
}

#[test]
fn the_reference() {
    all(&Reference::folded());
    all(&Reference::unfolded());
}

#[test]
fn the_cpu_with_each_instruction_set() {
    for isa in Isa::available() {
        for threads in [1, 3] {
            all(&Cpu::new(isa, threads).unwrap());
        }
    }
}

#[test]
fn emulated_gpus() {
    for device in [Emulated::cuda(), Emulated::metal()].into_iter().flatten() {
        all(&Gpu::new(device, "emulated", GpuElement::F32));
    }
}
