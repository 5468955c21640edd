//! Files of every kind, generated here: their decoded pixels, and the errors for files that are not images.

use std::io::Write;

use image::{GrayAlphaImage, GrayImage, ImageEncoder, RgbaImage};

use super::*;

mod damage;
mod orientation;

const SIZE: (u32, u32) = (5, 3);

/// Red, green, blue and alpha of the picture in the files. All pixels and all channels differ.
fn pixel(x: u32, y: u32) -> [u8; 4] {
    let step = (y * SIZE.0 + x) as u8;
    [17 * step, 255 - 16 * step, 7 + 9 * step, 40 + 5 * step]
}

fn rgba() -> RgbaImage {
    RgbaImage::from_fn(SIZE.0, SIZE.1, |x, y| image::Rgba(pixel(x, y)))
}

fn rgb() -> RgbImage {
    RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| image::Rgb(*pixel(x, y).first_chunk().unwrap()))
}

/// The red channel.
fn grey() -> GrayImage {
    GrayImage::from_fn(SIZE.0, SIZE.1, |x, y| image::Luma([pixel(x, y)[0]]))
}

fn grey_alpha() -> GrayAlphaImage {
    GrayAlphaImage::from_fn(SIZE.0, SIZE.1, |x, y| image::LumaA([pixel(x, y)[0], pixel(x, y)[3]]))
}

/// 16-bit samples: the high byte is the 8-bit sample, and the low byte would round it up.
fn deep(samples: &[u8]) -> Vec<u16> {
    samples.iter().map(|&high| u16::from_be_bytes([high, 0xcd])).collect()
}

fn deep_picture(image: &DynamicImage) -> DynamicImage {
    let (w, h) = (image.width(), image.height());
    let data = deep(image.as_bytes());
    match image {
        DynamicImage::ImageLuma8(_) => image::ImageBuffer::from_raw(w, h, data).map(DynamicImage::ImageLuma16),
        DynamicImage::ImageLumaA8(_) => image::ImageBuffer::from_raw(w, h, data).map(DynamicImage::ImageLumaA16),
        DynamicImage::ImageRgb8(_) => image::ImageBuffer::from_raw(w, h, data).map(DynamicImage::ImageRgb16),
        _ => image::ImageBuffer::from_raw(w, h, data).map(DynamicImage::ImageRgba16),
    }
    .unwrap()
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

/// A PNG from the `png` crate, for kinds that `image` does not write.
fn png(color: png::ColorType, depth: png::BitDepth, palette: &[u8], transparent: &[u8], data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, SIZE.0, SIZE.1);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if !palette.is_empty() {
        encoder.set_palette(palette.to_vec());
    }
    if !transparent.is_empty() {
        encoder.set_trns(transparent.to_vec());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(data).unwrap();
    writer.finish().unwrap();
    file
}

/// A GIF whose first frame is the picture; the second is black.
fn gif() -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new(&mut file);
    let opaque = DynamicImage::ImageRgb8(rgb()).into_rgba8();
    let black = RgbaImage::from_pixel(SIZE.0, SIZE.1, image::Rgba([0, 0, 0, 255]));
    encoder.encode_frames([opaque, black].map(image::Frame::new)).unwrap();
    drop(encoder);
    file
}

fn header_and(header: &str, samples: &[u8]) -> Vec<u8> {
    [header.as_bytes(), samples].concat()
}

fn plain(header: &str, samples: &[u8]) -> Vec<u8> {
    samples.iter().fold(header.to_owned(), |text, sample| format!("{text}{sample} ")).into_bytes()
}

/// Every lossless format and kind of pixel: the reason, the file, the decoded picture.
fn exact() -> Vec<(&'static str, Vec<u8>, RgbImage)> {
    use ImageFormat::{Bmp, Png, Tiff, WebP};
    use png::{BitDepth as Bits, ColorType as Color};

    let (rgb, grey) = (rgb(), grey());
    let repeated = DynamicImage::ImageLuma8(grey.clone()).into_rgb8();
    let deep = |image: DynamicImage| deep_picture(&image);
    let big = |samples: &[u8]| self::deep(samples).iter().flat_map(|s| s.to_be_bytes()).collect::<Vec<_>>();
    // Palette indices: one colour per pixel, and pictures of two, four and sixteen colours.
    let own: Vec<u8> = (0..15).collect();
    let colors = |ids: [[usize; 5]; 3]| {
        RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| image::Rgb(rgb.as_chunks::<3>().0[ids[y as usize][x as usize]]))
    };
    let [two, four] = [[[0, 1, 1, 0, 1], [1, 1, 0, 0, 0], [0, 0, 0, 0, 1]], [[0, 1, 2, 3, 3], [3, 2, 1, 0, 0], [2; 5]]];
    let levels = |scale: usize, ids: [[usize; 5]; 3]| {
        RgbImage::from_fn(SIZE.0, SIZE.1, |x, y| image::Rgb([(ids[y as usize][x as usize] * scale) as u8; 3]))
    };
    let packed2 = [0b0110_1000, 0b1100_0000, 0b0000_1000];
    let packed4 = [0b0001_1011, 0b1100_0000, 0b1110_0100, 0, 0b1010_1010, 0b1000_0000];
    let nibbles = [0x01, 0x23, 0x40, 0x56, 0x78, 0x90, 0xab, 0xcd, 0xe0];
    let (la, rgba) = (grey_alpha(), rgba());
    let pam = |depth: usize, tuple: &str, max: u32| {
        format!("P7\nWIDTH 5\nHEIGHT 3\nDEPTH {depth}\nMAXVAL {max}\nTUPLTYPE {tuple}\nENDHDR\n")
    };
    vec![
        ("PNG of RGB", encoded(rgb.clone(), Png), rgb.clone()),
        ("PNG of RGBA, alpha dropped", encoded(rgba.clone(), Png), rgb.clone()),
        ("PNG of grey, repeated", encoded(grey.clone(), Png), repeated.clone()),
        ("PNG of grey and alpha", encoded(la.clone(), Png), repeated.clone()),
        ("PNG of 16-bit RGB keeps the high byte", encoded(deep(rgb.clone().into()), Png), rgb.clone()),
        ("PNG of 16-bit RGBA", encoded(deep(rgba.clone().into()), Png), rgb.clone()),
        ("PNG of 16-bit grey", encoded(deep(grey.clone().into()), Png), repeated.clone()),
        ("PNG of 16-bit grey and alpha", encoded(deep(la.clone().into()), Png), repeated.clone()),
        ("PNG with a palette", png(Color::Indexed, Bits::Eight, &rgb, &[], &own), rgb.clone()),
        ("PNG with a transparent palette", png(Color::Indexed, Bits::Eight, &rgb, &[0, 9, 200], &own), rgb.clone()),
        ("PNG of 16 colours", png(Color::Indexed, Bits::Four, &rgb, &[], &nibbles), rgb.clone()),
        ("PNG of 4 colours", png(Color::Indexed, Bits::Two, &rgb.as_raw()[..12], &[], &packed4), colors(four)),
        ("PNG of 2 colours", png(Color::Indexed, Bits::One, &rgb.as_raw()[..6], &[], &packed2), colors(two)),
        ("PNG of black and white", png(Color::Grayscale, Bits::One, &[], &[], &packed2), levels(255, two)),
        ("PNG of 4 greys", png(Color::Grayscale, Bits::Two, &[], &[], &packed4), levels(85, four)),
        ("PNG of 16 greys", png(Color::Grayscale, Bits::Four, &[], &[], &nibbles), {
            levels(17, [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
        }),
        ("PNG with a transparent colour", png(Color::Rgb, Bits::Eight, &[], &[0, 0, 0, 255, 0, 7], &rgb), rgb.clone()),
        ("WebP of RGB", encoded(rgb.clone(), WebP), rgb.clone()),
        ("WebP of RGBA", encoded(rgba.clone(), WebP), rgb.clone()),
        ("WebP of grey", webp(&grey, image::ExtendedColorType::L8), repeated.clone()),
        ("WebP of grey and alpha", webp(&la, image::ExtendedColorType::La8), repeated.clone()),
        ("animated WebP, its first frame", animated_webp(), rgb.clone()),
        ("BMP of RGB with padded rows", encoded(rgb.clone(), Bmp), rgb.clone()),
        ("BMP of RGBA", encoded(rgba.clone(), Bmp), rgb.clone()),
        ("BMP of grey, a palette", encoded(grey.clone(), Bmp), repeated.clone()),
        ("TIFF of RGB", encoded(rgb.clone(), Tiff), rgb.clone()),
        ("TIFF of RGBA", encoded(rgba.clone(), Tiff), rgb.clone()),
        ("TIFF of grey", encoded(grey.clone(), Tiff), repeated.clone()),
        ("TIFF of 16-bit grey", encoded(deep(grey.clone().into()), Tiff), repeated.clone()),
        ("TIFF of 16-bit RGB", encoded(deep(rgb.clone().into()), Tiff), rgb.clone()),
        ("TIFF of 16-bit RGBA", encoded(deep(rgba.clone().into()), Tiff), rgb.clone()),
        ("GIF, its first frame", gif(), rgb.clone()),
        ("PPM", header_and("P6\n5 3\n255\n", &rgb), rgb.clone()),
        ("PPM with a comment", header_and("P6\n# a camera\n5 3 255\n", &rgb), rgb.clone()),
        ("PPM of 16 bits", header_and("P6 5 3 65535\n", &big(&rgb)), rgb.clone()),
        ("plain PPM", plain("P3 5 3 255\n", &rgb), rgb.clone()),
        ("PGM", header_and("P5 5 3 255\n", &grey), repeated.clone()),
        ("PGM of 16 bits", header_and("P5 5 3 65535\n", &big(&grey)), repeated.clone()),
        ("plain PGM", plain("P2 5 3 255\n", &grey), repeated.clone()),
        ("PGM of 4 greys, scaled", header_and("P5 5 3 3\n", four.as_flattened().map_u8().as_slice()), levels(85, four)),
        // In a PBM, 1 is black.
        ("PBM", header_and("P4 5 3\n", &packed2.map(|row: u8| !row)), levels(255, two)),
        ("plain PBM", plain("P1 5 3\n", &two.as_flattened().map_u8().map(|bit| 1 - bit)), levels(255, two)),
        ("PAM of RGB", header_and(&pam(3, "RGB", 255), &rgb), rgb.clone()),
        ("PAM of RGBA", header_and(&pam(4, "RGB_ALPHA", 255), &rgba), rgb.clone()),
        ("PAM of grey", header_and(&pam(1, "GRAYSCALE", 255), &grey), repeated.clone()),
        ("PAM of grey and alpha", header_and(&pam(2, "GRAYSCALE_ALPHA", 255), &la), repeated.clone()),
        ("PAM of 16-bit RGBA", header_and(&pam(4, "RGB_ALPHA", 65535), &big(&rgba)), rgb.clone()),
    ]
}

/// Ids as bytes.
trait MapU8 {
    fn map_u8(&self) -> [u8; 15];
}

impl MapU8 for [usize] {
    fn map_u8(&self) -> [u8; 15] {
        std::array::from_fn(|i| self[i] as u8)
    }
}

fn webp(samples: &[u8], color: image::ExtendedColorType) -> Vec<u8> {
    let mut file = Vec::new();
    image::codecs::webp::WebPEncoder::new_lossless(&mut file).write_image(samples, SIZE.0, SIZE.1, color).unwrap();
    file
}

/// A RIFF chunk.
fn riff(tag: [u8; 4], data: &[u8]) -> Vec<u8> {
    let padding = if data.len().is_multiple_of(2) { &[][..] } else { &[0] };
    [&tag, &(data.len() as u32).to_le_bytes()[..], data, padding].concat()
}

/// A WebP of two frames: the picture, then black.
fn animated_webp() -> Vec<u8> {
    let frame = |image: RgbImage| {
        let still = encoded(image, ImageFormat::WebP);
        // Position (0, 0), size minus one, 100 ms, no blending; then the chunk of the still picture.
        let head = [0, 0, 0, 0, 0, 0, SIZE.0 as u8 - 1, 0, 0, SIZE.1 as u8 - 1, 0, 0, 100, 0, 0, 2];
        riff(*b"ANMF", &[&head[..], &still[12..]].concat())
    };
    let extended = riff(*b"VP8X", &[2, 0, 0, 0, SIZE.0 as u8 - 1, 0, 0, SIZE.1 as u8 - 1, 0, 0]);
    let frames = [frame(rgb()), frame(RgbImage::new(SIZE.0, SIZE.1))].concat();
    riff(*b"RIFF", &[&b"WEBP"[..], &extended, &riff(*b"ANIM", &[0; 6]), &frames].concat())
}

fn decode_all(bytes: &[u8]) -> Result<Image> {
    Image::decode(bytes, "a file", &Limits::default())
}

#[test]
fn every_kind_of_file_is_decoded_exactly() {
    for (why, file, want) in exact() {
        let got = decode_all(&file).unwrap_or_else(|e| panic!("{why}: {e}"));
        assert_eq!(got.rgb(), &want, "{why}");
        assert_eq!((got.width(), got.height(), got.name()), (SIZE.0, SIZE.1, Path::new("a file")), "{why}");
    }
}

#[test]
fn a_jpeg_is_decoded_up_to_rounding() {
    let flat = |color: [u8; 3]| RgbImage::from_pixel(21, 10, image::Rgb(color));
    let cases = [
        ("RGB", encoded(flat([200, 60, 90]), ImageFormat::Jpeg), [200, 60, 90]),
        ("black", encoded(flat([0; 3]), ImageFormat::Jpeg), [0; 3]),
        ("white", encoded(flat([255; 3]), ImageFormat::Jpeg), [255; 3]),
        ("grey", encoded(DynamicImage::ImageRgb8(flat([77; 3])).into_luma8(), ImageFormat::Jpeg), [77; 3]),
    ];
    for (why, file, want) in cases {
        let image = decode_all(&file).unwrap();
        assert_eq!((image.width(), image.height()), (21, 10), "{why}");
        for pixel in image.rgb().pixels() {
            assert!(pixel.0.iter().zip(want).all(|(&got, want)| got.abs_diff(want) <= 2), "{why}: {pixel:?}");
        }
    }
}

#[test]
fn the_content_decides_not_the_name() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["photo.jpg", "photo.tiff", "photo.txt", "photo", "photo.safetensors", ".png"] {
        let path = folder.path().join(name);
        std::fs::write(&path, encoded(rgb(), ImageFormat::Png)).unwrap();
        let image = Image::open(&path).unwrap();
        assert_eq!((image.rgb(), image.name()), (&rgb(), path.as_path()), "{name}");
        assert!(image.decode_ms() > 0.0);
        assert_eq!(image.into_rgb(), rgb());
    }
}

#[test]
fn files_that_are_not_images_are_named() {
    let zip = b"PK\x03\x04\x14\0\0\0\0\0\0\0!\0";
    let lfs = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
    let denied = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>AccessDenied</Code></Error>";
    let cases: [(&str, &[u8], &str); 35] = [
        ("nothing", b"", "is empty"),
        ("a byte", b"\xff", "is not an image in a supported format (JPEG, PNG"),
        ("zeros", &[0; 64], "is not an image"),
        ("text", b"Dear all,\nplease find the photos attached.\n", "is not an image"),
        ("an archive", zip, "is a ZIP archive, not a photo; unpack it first"),
        (
            "a phone's photo",
            b"\0\0\0\x24ftypheic\0\0\0\0mif1heic",
            "is a HEIC image, which is not supported; convert it",
        ),
        ("a HEIC of another brand", b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", "is a HEIC image"),
        ("AVIF", b"\0\0\0\x20ftypavif\0\0\0\0avifmif1", "is an AVIF image"),
        ("an AVIF of another brand", b"\0\0\0\x1cftypmif1\0\0\0\0mif1avifmiaf", "is an AVIF image"),
        ("an animated AVIF", b"\0\0\0\x20ftypavis\0\0\0\0avis", "is an AVIF image"),
        ("a Canon raw file", b"\0\0\0\x18ftypcrx \0\0\0\x01", "is a camera's raw file"),
        ("a Panasonic raw file", b"IIU\0\x18\0\0\0", "is a camera's raw file"),
        ("an Olympus raw file", b"IIRO\x08\0\0\0", "is a camera's raw file"),
        ("an MP4 video", b"\0\0\0\x20ftypisom\0\0\x02\0", "is a video, not a photo"),
        ("a Matroska video", b"\x1aE\xdf\xa3\x01\0\0", "is a video"),
        ("an AVI video", b"RIFF\0\0\0\0AVI LIST", "is a video"),
        ("JPEG XL", b"\xff\x0a\x00\x01", "a JPEG XL image"),
        ("JPEG XL in a box", b"\0\0\0\x0cJXL \r\n\x87\n", "a JPEG XL image"),
        ("JPEG 2000", b"\0\0\0\x0cjP  \r\n\x87\n", "a JPEG 2000 image"),
        ("JPEG XR", b"II\xbc\x01\x20\0\0\0", "a JPEG XR image"),
        ("an icon", b"\0\0\x01\0\x01\0\x10\x10", "a Windows icon"),
        ("Photoshop", b"8BPS\0\x01", "a Photoshop document"),
        ("OpenEXR", b"\x76\x2f\x31\x01\x02\0\0\0", "an OpenEXR image"),
        ("Radiance", b"#?RADIANCE\n", "a Radiance HDR image"),
        ("QOI", b"qoif\0\0\0\x01", "a QOI image"),
        ("a texture", b"DDS \x7c\0\0\0", "a DirectDraw texture"),
        ("a document", b"%PDF-1.7", "a PDF document"),
        ("a drawing", b"<svg xmlns=", "an SVG drawing"),
        ("a drawing with an XML declaration", b"<?xml version=\"1.0\"?>\n<!-- - --><svg xmlns=", "an SVG drawing"),
        (
            "a server's error page",
            b"<!DOCTYPE html><title>404</title>",
            "is a web page (a server's error page?), not a photo; download",
        ),
        ("an error page in another style", b"\xef\xbb\xbf\r\n<HTML><head>", "is a web page"),
        (
            "a storage server's error",
            denied,
            "is an XML document (a server's error message?), not a photo; download it again",
        ),
        ("an API's error", b"{\"error\": \"expired\"}", "is a JSON document (a server's error message?)"),
        ("a Git LFS pointer", lfs, "is a Git LFS pointer, not a photo; fetch the photo with `git lfs pull`"),
        ("a missing brand", b"\0\0\0\x18ftyp", "is a video"),
    ];
    for (why, file, want) in cases {
        let text = Image::decode(file, "some/photo.jpg", &Limits::default()).unwrap_err().to_string();
        assert!(text.starts_with("some/photo.jpg: ") && text.contains(want), "{why}: {text}");
    }
}

#[test]
fn a_long_file_that_is_not_an_image_is_not_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("backup.jpg");
    std::fs::File::create(&path).unwrap().set_len(1 << 40).unwrap(); // a sparse file of a terabyte
    let text = Image::open(&path).unwrap_err().to_string();
    assert!(text.contains("is not an image"), "{text}");
    std::fs::write(&path, encoded(rgb(), ImageFormat::Png)).unwrap();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
    let text = Image::open(&path).unwrap_err().to_string();
    assert!(text.contains("is longer than 2147483648 bytes, which is the limit"), "{text}");
}

#[test]
fn samples_with_few_significant_bits_are_detected_and_scaled() {
    let png = |samples: [u16; 15]| {
        encoded(
            DynamicImage::ImageLuma16(image::ImageBuffer::from_raw(5, 3, samples.to_vec()).unwrap()),
            ImageFormat::Png,
        )
    };
    let up_to = |highest: u16| png(std::array::from_fn(|i| if i == 7 { highest } else { 5 }));
    let pgm = |max: u32, sample: [u8; 2]| header_and(&format!("P5 1 1 {max}\n"), &sample);
    let rgba = DynamicImage::ImageRgba16(image::ImageBuffer::from_fn(5, 3, |_, _| image::Rgba([900, 8, 7, 65535])));
    let cases = [
        ("the full range", up_to(65535), None, 255),
        ("a quarter of the range may be a dark photo", up_to(16384), None, 64),
        ("14 bits", up_to(16383), Some(14), 63),
        ("12 bits", up_to(4095), Some(12), 15),
        ("10 bits", up_to(1023), Some(10), 3),
        ("8 bits", up_to(255), Some(8), 0),
        ("all black is black at any depth", png([0; 15]), None, 0),
        ("alpha is not counted", encoded(rgba, ImageFormat::Png), Some(10), 3),
        ("8-bit files are not affected", encoded(GrayImage::new(5, 3), ImageFormat::Png), None, 0),
        ("a PNM that states the full range may hold 12 bits", pgm(65535, [0x0f, 0xff]), Some(12), 15),
        ("a PNM that states 12 bits is scaled", pgm(4095, [0x0f, 0xff]), None, 255),
        ("a PNM that states 12 bits and is dark", pgm(4095, [0, 0xff]), None, 15),
    ];
    for (why, file, want, brightest) in &cases {
        let image = decode_all(file).unwrap();
        let got = image.rgb().pixels().map(|pixel| pixel.0[0]).max().unwrap();
        assert_eq!((image.likely_depth(), got), (*want, *brightest), "{why}");
        if let Some(bits) = image.likely_depth() {
            let scaled = Decoder { depth: Depth::Bits(bits), ..Decoder::default() }.decode(file, "a file").unwrap();
            let got = scaled.rgb().pixels().map(|pixel| pixel.0[0]).max().unwrap();
            assert!(scaled.likely_depth().is_none() && got >= 225, "{why}: {got} at a depth of {bits}");
        }
    }
    let twelve = Decoder { depth: Depth::Bits(12), ..Decoder::default() };
    let text = twelve.decode(&up_to(4096), "a file").unwrap_err().to_string();
    assert!(text.contains("has samples of up to 4096, but 12 bits hold at most 4095"), "{text}");
    assert_eq!(twelve.decode(&cases[8].1, "a file").unwrap().rgb(), &RgbImage::new(5, 3));
    assert!(twelve.decode(&pgm(4095, [0x0f, 0xff]), "a file").is_ok(), "the range that the file states is used");
    let street = Image::open(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/field/gray12in16.png")).unwrap();
    assert_eq!(street.likely_depth(), Some(12));
}

#[test]
fn a_tiff_on_which_the_decoder_panics_is_rejected() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/field/rgb-planar-tiled.tif");
    let text = Image::open(path).unwrap_err().to_string();
    assert!(text.contains("is a tiled TIFF with separate colour planes, which is not supported"), "{text}");
}

#[test]
fn files_that_cannot_be_opened_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let none = folder.path().join("none.jpg");
    assert!(matches!(Image::open(&none), Err(Error::Read { path, .. }) if path == none));
    assert!(matches!(Image::open(folder.path()), Err(Error::Read { path, .. }) if path == folder.path()));
    // A file longer than the limit is not read.
    let long = folder.path().join("long.ppm");
    std::fs::File::create(&long).unwrap().write_all(&header_and("P6 5 3 255\n", &rgb())).unwrap();
    let limits = Limits { max_alloc: 55, ..Limits::default() };
    let text = Image::open_with(&long, &limits).unwrap_err().to_string();
    assert!(text.contains("long.ppm: is longer than 55 bytes"), "{text}");
}

#[test]
fn float_files_are_rejected_because_their_range_is_unknown() {
    let file = encoded(DynamicImage::ImageRgb32F(image::Rgb32FImage::new(2, 2)), ImageFormat::Tiff);
    assert!(decode_all(&file).unwrap_err().to_string().contains("floating-point samples"));
    // In memory, `image` defines the range as 0 to 1.
    let floats = image::Rgb32FImage::from_pixel(1, 1, image::Rgb([0.0, 0.5, 2.0]));
    assert_eq!(to_rgb(&DynamicImage::ImageRgb32F(floats)).as_raw(), &[0, 128, 255]);
    let floats = image::Rgba32FImage::from_pixel(1, 1, image::Rgba([-1.0, f32::NAN, 1.0, 0.5]));
    assert_eq!(to_rgb(&DynamicImage::ImageRgba32F(floats)).as_raw(), &[0, 0, 255]);
}

#[test]
fn limits_are_exact() {
    let ppm = header_and("P6 5 3 255\n", &rgb());
    let all = Limits::default();
    let cases = [
        ("its own side", ppm.clone(), Limits { max_side: 5, ..all }, None),
        (
            "one less",
            ppm.clone(),
            Limits { max_side: 4, ..all },
            Some("5x3 is too large, the limit is 4 pixels per side"),
        ),
        ("its own pixels", ppm.clone(), Limits { max_pixels: 15, ..all }, None),
        ("one less", ppm.clone(), Limits { max_pixels: 14, ..all }, Some("5x3 is too large, the limit is 14 pixels;")),
        ("its own bytes", ppm.clone(), Limits { max_alloc: 45, ..all }, None),
        ("one less", ppm, Limits { max_alloc: 44, ..all }, Some("5x3 needs")),
        ("grey and the converted RGB", header_and("P5 5 3 255\n", &grey()), Limits { max_alloc: 60, ..all }, None),
        ("one less", header_and("P5 5 3 255\n", &grey()), Limits { max_alloc: 59, ..all }, Some("5x3 needs")),
        ("no pixels", b"P6 0 3 255\n".to_vec(), all, Some("0x3 has no pixels")),
    ];
    for (why, file, limits, want) in cases {
        match (Image::decode(&file, "a file", &limits), want) {
            (Ok(_), None) => {}
            (Err(error), Some(want)) => assert!(error.to_string().contains(want), "{why}: {error}"),
            (got, want) => panic!("{why}: {got:?}, wanted {want:?}"),
        }
    }
}
