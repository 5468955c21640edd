use super::*;

#[test]
fn files_in_folders_are_photos_by_name_then_by_content() {
    let folder = tempfile::tempdir().unwrap();
    let jpeg: &[u8] = b"\xff\xd8\xff\xe0\0\x10JFIF";
    let heic: &[u8] = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic";
    let cases: [(&str, &[u8], bool); 22] = [
        ("a.jpg", b"", true), // the content is checked when the file is decoded
        ("A.JPEG", jpeg, true),
        ("stereo.MPO", jpeg, true),
        ("pam.pam", b"", true),
        ("phone.HEIC", heic, true),
        ("lfs.heic", b"version https://git-lfs.github.com/spec/v1\n", true),
        ("a.avif", b"", true),
        ("b.jp2", b"", true),
        ("c.jxl", b"", true),
        ("d.NEF", b"", true),
        ("no-extension", jpeg, true),
        ("no-extension-heic", heic, true),
        ("photo.jpg_large", jpeg, true), // an unknown extension
        ("photo.2024-01-01", jpeg, true),
        ("notes.txt", b"Dear all", false),
        ("labels.json", b"{\"a\": 1}", false),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0", false),
        ("desktop.ini", b"[.ShellClassInfo]", false),
        ("clip.mp4", b"\0\0\0\x18ftypmp42", false),
        ("clip", b"\0\0\0\x18ftypmp42", false),
        ("Makefile", b"all:\n", false),
        ("empty", b"", false),
    ];
    for (name, content, want) in cases {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        assert_eq!(is_photo(&path).unwrap(), want, "{name}");
    }
    assert!(is_photo(&folder.path().join("gone")).is_err());
    assert!(!is_photo(folder.path()).unwrap());
}

#[test]
fn a_signature_without_a_header_is_enough_to_refuse_a_file() {
    let cases: [(&[u8], bool); 8] = [
        (b"\xff\xd8\xff\xe0\0\x10JFIF", false),
        (b"\xff\xd8\xff\xff\xff\xe0\0\x10JFIF", false), // fill bytes
        (b"\xff\xd8\xff\xd9", false),                   // too short to tell
        (b"\xff\xd8\xff\xdb\0\x43\0", false),
        (b"\xff\xd8\xff\xe0\0\0\0\0", true), // zeros
        (b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR", false),
        (b"\x89PNG\r\n\x1a\n", false), // too short to tell
        (b"\x89PNG\r\n\x1a\n\0\0\0\0\0\0\0\0", true),
    ];
    for (start, damaged) in cases {
        let got = kind(start, Path::new("a"));
        assert_eq!(
            matches!(&got, Kind::Unreadable(reason) if reason.contains("is damaged")),
            damaged,
            "{start:?}: {got:?}"
        );
    }
}

/// A TIFF whose directory holds these fields, each a 32-bit number.
fn tiff(fields: &[(u16, u32)]) -> Vec<u8> {
    let mut file = [&b"II*\0"[..], &8u32.to_le_bytes(), &(fields.len() as u16).to_le_bytes()].concat();
    for (tag, value) in fields {
        file.extend([&tag.to_le_bytes()[..], &4u16.to_le_bytes(), &1u32.to_le_bytes(), &value.to_le_bytes()].concat());
    }
    file
}

#[test]
fn raw_files_are_not_mistaken_for_tiffs() {
    let raw = |bytes: &[u8], name: &str| match kind(bytes, Path::new(name)) {
        Kind::Unreadable(reason) => reason.contains("a camera's raw file"),
        Kind::Picture(_) => false,
        Kind::Other(reason) => panic!("{name}: {reason}"),
    };
    let plain = tiff(&[(256, 10), (257, 10)]);
    let cases: [(&str, Vec<u8>, bool); 8] = [
        ("scan.tif", plain.clone(), false),
        ("no name", tiff(&[(NEW, 0), (tiff::SUB_IFDS, 99)]), false), // a pyramid: its first picture has full resolution
        ("photo.nef", plain.clone(), true),
        ("photo.ARW", plain.clone(), true),
        ("photo.tif", tiff(&[(tiff::DNG_VERSION, 0x0401)]), true),
        ("photo.tif", tiff(&[(NEW, 1), (tiff::SUB_IFDS, 99)]), true), // a thumbnail first, the photo in another directory
        ("photo", [&b"II*\0\x10\0\0\0CR\x02\0"[..], &[0; 20]].concat(), true),
        ("photo", [&b"FUJIFILMCCD-RAW "[..], &[0; 20]].concat(), true),
    ];
    for (name, file, want) in cases {
        assert_eq!(raw(&file, name), want, "{name}: {file:02x?}");
    }
    assert_eq!(tiff::field(&plain, 257), Some(10));
    assert_eq!(tiff::field(&plain[..30], 257), None, "cut short");
    assert_eq!(tiff::field(b"II*\0\xff\xff\xff\xff", 257), None, "a directory past the end");
}

const NEW: u16 = tiff::NEW_SUBFILE_TYPE;
