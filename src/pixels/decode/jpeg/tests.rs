//! JPEGs with complete and incomplete data.

use super::*;
use crate::pixels::{Image, Limits};

fn file(name: &str) -> Vec<u8> {
    let data = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/");
    std::fs::read(format!("{data}{name}")).unwrap()
}

/// One file per structure; each is checked by different code.
const STRUCTURES: [&str; 7] = [
    "street/0016E5_07959.jpg",  // from a camera
    "jpeg/420-restarts.jpg",    // chroma of half size, so units have six blocks; restart markers
    "jpeg/422-optimized.jpg",   // its own tables
    "jpeg/progressive-420.jpg", // ten scans; runs of blocks without coefficients, refinement
    "jpeg/progressive-grey-restarts.jpg",
    "jpeg/cmyk.jpg",           // four components
    "jpeg/separate-scans.jpg", // sequential, one scan per component
];

fn decoded(bytes: &[u8]) -> Result<Image, String> {
    Image::decode(bytes, "a file", &Limits::default()).map_err(|error| error.to_string())
}

/// The start and the end of the data of the longest scan.
fn longest_scan(bytes: &[u8]) -> (usize, usize) {
    let mut segments = Segments::new(bytes);
    let mut longest = (0, 0);
    while let Some(segment) = segments.advance().unwrap() {
        let start = bytes.len() - segment.behind.len();
        let end = start + next_marker(segment.behind).unwrap().0;
        if segment.marker == SCAN && end - start > longest.1 - longest.0 {
            longest = (start, end);
        }
    }
    longest
}

/// Replaces a range of bytes.
fn with(bytes: &[u8], range: std::ops::Range<usize>, between: &[u8]) -> Vec<u8> {
    [&bytes[..range.start], between, &bytes[range.end..]].concat()
}

#[test]
fn a_scan_that_lacks_data_is_an_error() {
    for name in STRUCTURES {
        let whole = file(name);
        let (start, end) = longest_scan(&whole);
        let (middle, tenth) = (start.midpoint(end), (end - start) / 10);
        let cases = [
            ("the first half, then the end marker", with(&whole, middle..whole.len(), b"\xff\xd9")),
            ("all but the last tenth, then the end marker", with(&whole, end - tenth..whole.len(), b"\xff\xd9")),
            ("without the middle", with(&whole, middle - tenth..middle + tenth, b"")),
            ("a hole of zeros", with(&whole, middle - 2 * tenth..middle + 2 * tenth, &vec![0; 4 * tenth])),
            ("more data than the picture needs", with(&whole, end..end, &whole[start..end])),
        ];
        for (why, damaged) in cases {
            let error = decoded(&damaged).map(|_| ()).expect_err(&format!("{name}, {why}: no error"));
            assert!(error.contains("this JPEG file") && error.contains("copy it again"), "{name}, {why}: {error}");
        }
    }
}

#[test]
fn a_complete_scan_with_harmless_extra_bytes_is_decoded() {
    for name in STRUCTURES {
        let whole = file(name);
        let want = decoded(&whole).unwrap_or_else(|error| panic!("{name}: {error}"));
        let end = whole.len() - 2;
        let cases = [
            ("stray bytes before the end marker", with(&whole, end..end, b"\x12\x34\x56")),
            ("fill bytes before the end marker", with(&whole, end..end, b"\xff\xff\xff")),
            ("padding before the end marker", with(&whole, end..end, &[0; 300])),
            ("padding after the end marker", [&whole[..], &[0; 300]].concat()),
            ("another picture after the end marker", [&whole[..], &whole].concat()),
            ("a thumbnail", {
                let thumbnail = file("jpeg/cmyk.jpg");
                let length = (thumbnail.len() as u16 + 2).to_be_bytes();
                with(&whole, 2..2, &[b"\xff\xe1", &length[..], &thumbnail].concat())
            }),
        ];
        for (why, file) in cases {
            let got = decoded(&file).unwrap_or_else(|error| panic!("{name}, {why}: {error}"));
            assert!(got.rgb() == want.rgb(), "{name}, {why}: other pixels");
        }
    }
}

#[test]
fn a_missing_component_is_an_error() {
    let whole = file("jpeg/separate-scans.jpg");
    let last = whole.windows(2).rposition(|marker| marker == [0xff, SCAN]).unwrap();
    let error = decoded(&with(&whole, last..whole.len(), b"\xff\xd9")).map(|_| ()).unwrap_err();
    assert!(error.contains("lacks a part of its picture data"), "{error}");
}

/// Removes all segments of one kind.
fn without(bytes: &[u8], unwanted: u8) -> Vec<u8> {
    let mut kept = bytes[..2].to_vec();
    let mut at = 2;
    while bytes[at + 1] != SCAN {
        let end = at + 2 + usize::from(u16::from_be_bytes([bytes[at + 2], bytes[at + 3]]));
        if bytes[at + 1] != unwanted {
            kept.extend(&bytes[at..end]);
        }
        at = end;
    }
    kept.extend(&bytes[at..]);
    kept
}

#[test]
fn a_frame_without_tables_uses_the_standard_tables() {
    let whole = file("jpeg/420-restarts.jpg"); // written with the standard tables
    let bare = without(&whole, HUFFMAN_TABLES);
    assert!(bare.len() < whole.len() - 400 && outline(&bare).unwrap().lacks_tables);
    assert!(decoded(&bare).unwrap().rgb() == decoded(&whole).unwrap().rgb());
    // An unmodified frame of a camera; its first half is detected as incomplete, as with tables.
    let camera = file("field/no-dht.jpg");
    let photo = decoded(&camera).unwrap();
    assert!(photo.rgb().pixels().any(|pixel| pixel.0.iter().any(|value| value.abs_diff(128) > 64)));
    let half = with(&camera, camera.len() / 2..camera.len(), b"\xff\xd9");
    assert!(decoded(&half).map(|_| ()).unwrap_err().contains("ends too early"));
    // There are no standard tables for progressive files.
    let bare = without(&file("jpeg/progressive-420.jpg"), HUFFMAN_TABLES);
    assert!(decoded(&bare).map(|_| ()).unwrap_err().contains("lacks Huffman tables"));
    // A file with its own tables is not changed.
    assert!(!outline(&file("jpeg/422-optimized.jpg")).unwrap().lacks_tables);
}

#[test]
fn unsupported_jpegs_are_named_and_not_called_damaged() {
    let whole = file("jpeg/420-restarts.jpg");
    let frame = whole.windows(2).position(|marker| marker == [0xff, BASELINE]).unwrap();
    let cases = [
        (BASELINE, 12, "a JPEG with 12 bits per sample"),
        (PROGRESSIVE, 12, "a JPEG with 12 bits per sample"),
        (0xc3, 8, "a lossless JPEG"),
        (0xc5, 8, "a hierarchical JPEG"),
        (0xc9, 8, "a JPEG with arithmetic coding"),
        (0xca, 8, "a JPEG with arithmetic coding"),
        (0xcb, 8, "a lossless JPEG"),
        (0xf7, 8, "a JPEG-LS image"),
    ];
    for (marker, bits, want) in cases {
        let mut file = whole.clone();
        (file[frame + 1], file[frame + 4]) = (marker, bits);
        let error = decoded(&file).map(|_| ()).unwrap_err();
        assert!(error.starts_with(&format!("a file: is {want}, which is not supported; convert it")), "{error}");
    }
}

#[test]
fn the_outline_needs_an_end_marker() {
    let cases: [(&str, &[u8], bool); 14] = [
        ("only start and end", b"\xff\xd8\xff\xd9", true),
        ("no end", b"\xff\xd8", false),
        ("half an end", b"\xff\xd8\xff", false),
        ("a segment", b"\xff\xd8\xff\xe0\0\x04ab\xff\xd9", true),
        ("an end inside a segment, as in a thumbnail", b"\xff\xd8\xff\xe1\0\x06\xff\xd8\xff\xd9", false),
        ("the end of a thumbnail, then the file's own", b"\xff\xd8\xff\xe1\0\x06\xff\xd8\xff\xd9\xff\xd9", true),
        ("a segment longer than the file", b"\xff\xd8\xff\xe0\xff\xffab\xff\xd9", false),
        ("a segment without its length", b"\xff\xd8\xff\xe0\0", false),
        ("a length below the minimum of 2", b"\xff\xd8\xff\xe0\0\0\xff\xd9", true),
        ("a scan with an escaped byte", b"\xff\xd8\xff\xda\0\x02ab\xff\0cd\xff\xd9", true),
        ("a scan with restarts", b"\xff\xd8\xff\xda\0\x02ab\xff\xd0cd\xff\xd7ef\xff\xd9", true),
        ("a truncated scan", b"\xff\xd8\xff\xda\0\x02ab\xff\0cd", false),
        ("fill bytes", b"\xff\xd8\xff\xff\xff\xe0\0\x02\xff\xff\xd9", true),
        ("stray bytes between segments, and a tail", b"\xff\xd8\xff\xe0\0\x02xyz\xff\xd9tail", true),
    ];
    for (why, file, whole) in cases {
        let found = outline(file);
        assert_eq!(found.is_ok(), whole, "{why}: {found:?}");
    }
}
