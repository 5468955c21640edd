//! Runs the program on photos as cameras, phones and downloads leave them.

use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data");

/// Runs `segment` with the tiny weights; returns its exit code and standard error.
fn segment(input: &Path, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
    command.args(["segment", "--weights", &format!("{DATA}/golden/tiny.safetensors"), "--overwrite", "--emit", "mask"]);
    command.env("RUST_BACKTRACE", "1").stdin(Stdio::null()).args(more);
    let Output { status, stderr, .. } = command.arg(input).output().unwrap();
    (status.code().unwrap(), String::from_utf8(stderr).unwrap())
}

#[test]
fn every_photo_in_a_folder_is_segmented_or_reported() {
    let folder = tempfile::tempdir().unwrap();
    let photos = folder.path().join("photos");
    fs::create_dir(&photos).unwrap();
    let jpeg = fs::read(format!("{DATA}/jpeg/420-restarts.jpg")).unwrap();
    let planes = fs::read(format!("{DATA}/field/rgb-planar-tiled.tif")).unwrap();
    let pam =
        [&b"P7\nWIDTH 64\nHEIGHT 64\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n"[..], &[90; 64 * 64 * 3]].concat();
    let half = [&jpeg[..1200], b"\xff\xd9"].concat();
    // Name, bytes, and the expected message: "" if it is segmented, `None` if it is not a photo and not mentioned.
    let files: [(&str, &[u8], Option<&str>); 17] = [
        ("IMG_0001.JPG", &jpeg, Some("")),
        ("no-extension", &jpeg, Some("")),
        ("stereo.MPO", &[&jpeg[..], &jpeg].concat(), Some("")),
        ("pam.pam", &pam, Some("")),
        ("IMG_0002.HEIC", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", Some("is a HEIC image, which is not supported")),
        ("a.avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", Some("is an AVIF image")),
        ("b.jp2", b"\0\0\0\x0cjP  \r\n\x87\n", Some("is a JPEG 2000 image")),
        ("c.NEF", b"MM\0*\0\0\0\x08\0\0", Some("is a camera's raw file")),
        ("d.jpg", b"version https://git-lfs.github.com/spec/v1\n", Some("is a Git LFS pointer")),
        ("e.png", b"<!DOCTYPE html><title>404</title>", Some("is a web page (a server's error page?)")),
        ("half.jpg", &half, Some("this JPEG file's picture data ends too early")),
        ("planes.tif", &planes, Some("is a tiled TIFF with separate colour planes")),
        ("notes.txt", b"IMG_0001.JPG is the best", None),
        ("labels.json", b"{}", None),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0", None),
        ("clip.mp4", b"\0\0\0\x18ftypmp42", None),
        ("Makefile", b"all:", None),
    ];
    for (name, bytes, _) in &files {
        fs::write(photos.join(name), bytes).unwrap();
    }
    let out = folder.path().join("out");
    let (code, said) = segment(&photos, &["--out", out.to_str().unwrap()]);
    assert_eq!(code, 1, "{said}");
    for (name, _, want) in &files {
        let line = said.lines().find(|line| line.contains(&format!("{name}:"))).unwrap_or_default();
        assert!(
            line.contains(want.unwrap_or("")) && line.is_empty() == want.is_none_or(str::is_empty),
            "{name}: {said}"
        );
    }
    assert_eq!(said.lines().filter(|line| line.starts_with("error: ")).count(), 8, "{said}");
    assert!(said.contains("4 photos in ") && said.contains(", 8 failed"), "{said}");
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
}

#[test]
fn twelve_bit_cameras_are_detected_and_their_photos_can_be_scaled() {
    let folder = tempfile::tempdir().unwrap();
    let (camera, out) = (format!("{DATA}/field/gray12in16.png"), folder.path().to_str().unwrap());
    let (code, said) = segment(camera.as_ref(), &["--out", out]);
    assert!(code == 0 && said.contains("gray12in16.png: its 16-bit samples use only 12 bits"), "{said}");
    assert!(said.contains("use --depth 12"), "{said}");
    let dark = fs::read(folder.path().join("gray12in16.mask.png")).unwrap();
    let (code, said) = segment(camera.as_ref(), &["--out", out, "--depth", "12"]);
    assert!(code == 0 && !said.contains("warning"), "{said}");
    assert_ne!(fs::read(folder.path().join("gray12in16.mask.png")).unwrap(), dark);
    let (code, said) = segment(camera.as_ref(), &["--out", out, "--depth", "10"]);
    assert!(code == 1 && said.contains("but 10 bits hold at most 1023"), "{said}");
    let (code, said) = segment(camera.as_ref(), &["--out", out, "--depth", "7"]);
    assert!(
        code == 2 && said.contains("invalid depth `7`: expected `auto` or a number of bits from 8 to 16"),
        "{said}"
    );
}

/// A photo of floats and one of 16 bits, both with the range from 100 to 355, are the same photo as the one of 8 bits that they were made from.
#[test]
fn deep_photos_have_a_range() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().to_str().unwrap();
    let photo = image::open(format!("{DATA}/golden/photo.png")).unwrap().into_rgb8();
    let (width, height) = photo.dimensions();
    let floats = photo.as_raw().iter().map(|value| f32::from(*value) + 100.0).collect();
    image::Rgb32FImage::from_raw(width, height, floats).unwrap().save(folder.path().join("float.tif")).unwrap();
    let wide = photo.as_raw().iter().map(|value| u16::from(*value) + 100).collect();
    image::ImageBuffer::<image::Rgb<u16>, Vec<u16>>::from_raw(width, height, wide)
        .unwrap()
        .save(folder.path().join("wide.tif"))
        .unwrap();
    photo.save(folder.path().join("plain.png")).unwrap();
    let mask = |name: &str| image::open(folder.path().join(format!("{name}.mask.png"))).unwrap().into_rgb8();
    for name in ["plain.png", "wide.tif", "float.tif"] {
        let (code, said) = segment(&folder.path().join(name), &["--out", out, "--depth", "100..355"]);
        assert_eq!(code, 0, "{name}: {said}");
    }
    assert_eq!((mask("wide"), mask("float")), (mask("plain"), mask("plain")));
    let (code, said) = segment(&folder.path().join("float.tif"), &["--out", out]);
    assert!(code == 1 && said.contains("whose range is unknown; name it as the depth, such as --depth 0..1"), "{said}");
    for wrong in ["3..3", "5..1", "0..inf", "..9", "nan..1"] {
        let (code, said) = segment(&folder.path().join("float.tif"), &["--out", out, "--depth", wrong]);
        assert!(code == 2 && said.contains("or a range such as 0..4095"), "{wrong}: {said}");
    }
}
