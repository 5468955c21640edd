//! Splits streams of every kind, read at once and byte by byte.

use std::io::{self, Cursor};

use image::{DynamicImage, GrayImage, ImageFormat, RgbImage};

use super::*;
use crate::pixels::Image;

/// Yields one byte at a time, like a slow camera.
struct Dribble<'a>(&'a [u8]);

impl Read for Dribble<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let end = to.len().min(1);
        self.0.read(&mut to[..end])
    }
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut file = Cursor::new(Vec::new());
    image.into().write_to(&mut file, format).unwrap();
    file.into_inner()
}

fn noise(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 37 + y * 101) as u8, (x * y * 13) as u8, (y * 7) as u8]))
}

fn jpeg(width: u32) -> Vec<u8> {
    encoded(noise(width, 9), ImageFormat::Jpeg)
}

fn png(width: u32) -> Vec<u8> {
    encoded(noise(width, 9), ImageFormat::Png)
}

/// Inserts a segment after the start marker of a JPEG.
fn with_segment(jpeg: &[u8], marker: u8, data: &[u8]) -> Vec<u8> {
    let length = (data.len() as u16 + 2).to_be_bytes();
    [&jpeg[..2], &[0xff, marker], &length, data, &jpeg[2..]].concat()
}

/// A multi-picture file: two pictures, the first with the index, the second `gap` bytes after it.
fn mpo(first: &[u8], gap: usize, second: &[u8]) -> Vec<u8> {
    let index = |size: u32, offset: u32| {
        let long = |value: u32| value.to_be_bytes().to_vec();
        let field = |tag: u16, kind: u16, count: u32, value: u32| {
            [&tag.to_be_bytes()[..], &kind.to_be_bytes(), &count.to_be_bytes(), &value.to_be_bytes()].concat()
        };
        let parts = [
            b"MPF\0MM\0*".to_vec(),
            long(8),
            3u16.to_be_bytes().to_vec(),
            field(0xb000, 7, 4, u32::from_be_bytes(*b"0100")),
            field(0xb001, 4, 1, 2),
            field(0xb002, 7, 32, 50),
            long(0),
            [long(0), long(0), long(0), long(0)].concat(), // the first picture's offset is always 0
            [long(0), long(size), long(offset), long(0)].concat(),
        ];
        with_segment(first, 0xe2, &parts.concat())
    };
    let length = index(0, 0).len();
    // Offsets count from the byte-order mark of the index: after SOI, APP2, its length and "MPF\0".
    let offset = length + gap - 10;
    [index(second.len() as u32, offset as u32), vec![0; gap], second.to_vec()].concat()
}

/// The bytes of the pictures. Checks that they do not depend on the lengths of the reads.
fn split(stream: &[u8]) -> Vec<Vec<u8>> {
    let limits = Limits::default();
    let whole: Result<Vec<_>> = Pictures::new(stream, "-", &limits).collect();
    let dribbled: Result<Vec<_>> = Pictures::new(Dribble(stream), "-", &limits).collect();
    let whole = whole.unwrap();
    assert!(whole == dribbled.unwrap(), "reading one byte at a time gives other pictures");
    whole
}

#[test]
fn a_stream_is_split_into_its_pictures() {
    let grey = GrayImage::from_fn(5, 3, |x, y| image::Luma([(50 * x + y) as u8]));
    let thumbnail = with_segment(&jpeg(40), 0xe1, &[b"Exif\0\0", &jpeg(3)[..]].concat());
    let pam = b"P7\nWIDTH 2\nHEIGHT 1\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\nP5 1 1".to_vec();
    let deep = b"P7\n# deep\nWIDTH 1\nHEIGHT 1\nDEPTH 1\nMAXVAL 65535\nENDHDR\nP7".to_vec();
    let cases: [(&str, Vec<Vec<u8>>); 12] = [
        ("one JPEG", vec![jpeg(8)]),
        ("JPEGs", vec![jpeg(8), jpeg(300), jpeg(17)]),
        ("a thumbnail has its own end marker", vec![thumbnail.clone(), thumbnail]),
        ("restarts, escaped bytes and fill bytes do not end a picture", {
            let scan = b"\xff\xd8\xff\xda\0\x02ab\xff\0\xff\xd0\xff\xd7\xff\xff\xd9".to_vec();
            vec![scan, jpeg(8)]
        }),
        ("PNGs", vec![png(8), png(300), png(17)]),
        (
            "binary PNM, whose samples may look like another picture",
            vec![
                b"P5 4 2 255\nP5 1 1 2".to_vec(),
                b"P6\n# width\n1 1\n255\n\xff\xd8\xff".to_vec(),
                b"P5 2 1 65535 P6 3".to_vec(),
                b"P4 9 2\nabcd".to_vec(),
            ],
        ),
        ("PNM from an encoder", vec![encoded(grey.clone(), ImageFormat::Pnm), encoded(noise(7, 7), ImageFormat::Pnm)]),
        (
            "plain PNM, with and without white space",
            vec![
                b"P1 3 2\n010\n1 1 1\n".to_vec(),
                b"P2 2 2 9\n1 2\n3 4\n".to_vec(),
                b"P3 1 1 255\n1 20 255\n".to_vec(),
            ],
        ),
        ("PAM", vec![pam.clone(), deep, pam]),
        ("mixed formats", vec![jpeg(8), png(8), b"P5 1 1 9\n\x01".to_vec(), jpeg(9)]),
        ("another format takes the whole stream", vec![[encoded(grey.clone(), ImageFormat::Bmp), jpeg(8)].concat()]),
        ("a picture longer than a read", vec![encoded(noise(300, 200), ImageFormat::Pnm), png(900), jpeg(3000)]),
    ];
    for (why, pictures) in cases {
        let got = split(&pictures.concat());
        assert_eq!(got.len(), pictures.len(), "{why}");
        for (got, want) in got.iter().zip(&pictures) {
            assert!(got == want, "{why}: {} bytes, wanted {}", got.len(), want.len());
        }
    }
}

#[test]
fn bytes_between_and_after_pictures_are_skipped() {
    // Reason, stream, pictures.
    type Case<'a> = (&'static str, Vec<u8>, Vec<&'a [u8]>);
    let (a, b) = (jpeg(8), jpeg(9));
    let part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 600\r\n\r\n";
    let video = [&b"\0\0\0\x18ftypmp42\0\0\0\0"[..], &[7; 9000], b"\xff\xd8\xff\xe0junk"].concat();
    let (png_a, png_b) = (png(8), png(9));
    let stereo = mpo(&a, 5, &b);
    let near = mpo(&a, 0, &b);
    let indexed = a.len() + 90; // the length of the first picture with its index
    let (claims, profile) = (with_segment(&a, 0xe2, b"MPF\0MM"), with_segment(&a, 0xe2, b"ICC_PROFILE\0"));
    let empty: &[u8] = &[];
    let cases: [Case; 17] = [
        ("blank lines", [&a, &b"\n\n"[..], &b].concat(), vec![&a, &b]),
        ("padding", [&a, &[0; 512][..], &b].concat(), vec![&a, &b]),
        ("a multipart stream", [part, &a[..], b"\r\n", part, &b, b"\r\n"].concat(), vec![&a, &b]),
        ("a motion photo's video", [&a[..], &video].concat(), vec![&a]),
        ("a few bytes", [&a[..], b"tail"].concat(), vec![&a]),
        ("text that mentions a format", [&a[..], b"in P5 or P6 format"].concat(), vec![&a]),
        ("three bytes of a JPEG in junk are not a JPEG", [&a[..], b"junk \xff\xd8\xff\x00\x01\x02"].concat(), vec![&a]),
        ("a stereo picture's second view", near.clone(), vec![&near[..indexed]]),
        ("the picture after a stereo picture", [&stereo, &b[..]].concat(), vec![&stereo[..indexed], &b]),
        ("an unreadable index takes the rest of the stream", [&claims, &b[..]].concat(), vec![&claims]),
        ("a colour profile is not an index", [&profile, &b[..]].concat(), vec![&profile, &b]),
        ("an empty stream is one item", vec![], vec![empty]),
        ("a stream without a picture is one item", b"<!DOCTYPE html>".to_vec(), vec![b"<!DOCTYPE html>"]),
        ("a JPEG without its end, then a JPEG", [&a[..a.len() - 2], &b].concat(), vec![&a[..a.len() - 2], &b]),
        ("a PNG without its end, then a PNG", [&png_a[..60], &png_b].concat(), vec![&png_a[..60], &png_b]),
        ("a JPEG without its end, then a PNG", [&a[..60], &png_b].concat(), vec![&a[..60], &png_b]),
        ("a truncated picture", [&a[..], &b[..b.len() / 2]].concat(), vec![&a, &b[..b.len() / 2]]),
    ];
    for (why, stream, want) in cases {
        let got = split(&stream);
        let lengths = (got.iter().map(Vec::len).collect::<Vec<_>>(), want.iter().map(|p| p.len()).collect::<Vec<_>>());
        assert!(got == want, "{why}: pictures of {:?} bytes, wanted {:?}", lengths.0, lengths.1);
    }
}

#[test]
fn decoding_a_truncated_picture_is_an_error() {
    for whole in [jpeg(30), png(30), encoded(noise(30, 9), ImageFormat::Pnm)] {
        let stream = [&whole[..], &whole[..whole.len() - 20]].concat();
        let decoded: Vec<_> =
            split(&stream).iter().map(|picture| Image::decode(picture, "-", &Limits::default()).is_ok()).collect();
        assert_eq!(decoded, [true, false]);
    }
}

#[test]
fn a_stream_that_cannot_be_read_or_is_too_long_ends_with_an_error() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("the pipe broke"))
        }
    }
    fn behind(next: impl Read + 'static) -> Box<dyn Read> {
        Box::new(Cursor::new(jpeg(8)).chain(next))
    }
    let ppm = encoded(noise(200, 300), ImageFormat::Pnm);
    let limits = Limits { max_alloc: 100_000, ..Limits::default() };
    let cases: [(Box<dyn Read>, &str); 3] = [
        (behind(Broken), "stdin: cannot be read: the pipe broke"),
        (behind(Cursor::new(ppm)), "stdin: picture 2 is longer than 100000 bytes"),
        (behind(io::repeat(b'7')), ""), // endless junk is not read to its end
    ];
    for (reader, want) in cases {
        let mut pictures = Pictures::new(reader, "stdin", &limits);
        assert_eq!(pictures.next().unwrap().unwrap(), jpeg(8));
        match pictures.next() {
            Some(second) => assert!(second.unwrap_err().to_string().starts_with(want), "{want}"),
            None => assert_eq!(want, ""),
        }
        assert!(pictures.next().is_none(), "{want}: something follows the error");
    }
}
