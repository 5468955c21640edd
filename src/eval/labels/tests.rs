use super::*;

fn png(color: ColorType, depth: BitDepth, (width, height): (u32, u32), data: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette(vec![7; 3 << (depth as usize)]); // all one colour: the indices must not be taken for it
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    file
}

fn open(name: &str, file: &[u8], dataset: &Dataset) -> Result<LabelImage> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, file).unwrap();
    LabelImage::open(path, dataset)
}

fn named(name: &str) -> Dataset {
    Dataset::named(name).unwrap()
}

#[test]
fn numbers_of_every_width_are_ids_and_never_colours() {
    use BitDepth::{Eight, Four, One, Sixteen, Two};
    use ColorType::{Grayscale, Indexed};
    let cases: [(ColorType, BitDepth, &[u8], &[u16]); 7] = [
        (Grayscale, Eight, &[0, 18, 255, 7, 1, 2], &[0, 18, 255, 7, 1, 2]),
        (Indexed, Eight, &[0, 18, 255, 7, 1, 2], &[0, 18, 255, 7, 1, 2]),
        (Grayscale, Sixteen, &[0, 0, 0, 18, 0, 255, 0, 7, 0, 1, 0, 2], &[0, 18, 255, 7, 1, 2]),
        (Indexed, Four, &[0x0f, 0x10, 0x23, 0x40], &[0, 15, 1, 2, 3, 4]), // rows end on a byte
        (Indexed, Two, &[0b0001_1000, 0b1100_0100], &[0, 1, 2, 3, 0, 1]),
        (Grayscale, One, &[0b0100_0000, 0b1010_0000], &[0, 1, 0, 1, 0, 1]),
        (Indexed, One, &[0b1110_0000, 0b0000_0000], &[1, 1, 1, 0, 0, 0]),
    ];
    for (color, depth, data, want) in cases {
        let labels = open("a.png", &png(color, depth, (3, 2), data), &named("cityscapes")).unwrap();
        assert_eq!((labels.width(), labels.height(), labels.ids()), (3, 2, want), "{color:?} {depth:?}");
    }
}

#[test]
fn a_data_sets_own_numbers_become_train_ids() {
    let cases: [(&str, &str, &[u8], &[u16]); 6] = [
        ("cityscapes", "x_gtFine_labelIds.png", &[7, 33, 0, 9, 255], &[0, 18, 255, 255, 255]),
        ("cityscapes", "x_gtFine_labelTrainIds.png", &[7, 18, 0, 9, 255], &[7, 18, 0, 9, 255]),
        ("ade20k", "ADE_val_00000001.png", &[0, 1, 150, 2, 255], &[255, 0, 149, 1, 255]),
        ("ade20k", "mine.png", &[0, 1, 149, 2, 255], &[0, 1, 149, 2, 255]),
        ("camvid", "0001TP_006690.png", &[0, 10, 11, 3, 255], &[0, 10, 255, 3, 255]),
        ("camvid", "0001TP_006690_L.png", &[0, 10, 11, 3, 255], &[0, 10, 255, 3, 255]),
    ];
    for (dataset, name, data, want) in cases {
        let file = png(ColorType::Grayscale, BitDepth::Eight, (5, 1), data);
        assert_eq!(open(name, &file, &named(dataset)).unwrap().ids(), want, "{dataset} {name}");
    }
}

#[test]
fn colours_are_read_where_they_are_the_classes_own() {
    let rgb = png(ColorType::Rgb, BitDepth::Eight, (3, 1), &[128, 64, 128, 0, 0, 0, 0, 128, 192]);
    assert_eq!(open("a_L.png", &rgb, &named("camvid")).unwrap().ids(), [3, 255, 10]);
    let rgba = png(ColorType::Rgba, BitDepth::Eight, (2, 1), &[128, 128, 128, 255, 128, 0, 0, 0]);
    assert_eq!(open("a_L.png", &rgba, &named("camvid")).unwrap().ids(), [0, 1]);

    let mut black = named("camvid");
    black.classes[4].color = [0, 0, 0];
    assert_eq!(open("a_L.png", &rgb, &black).unwrap().ids(), [3, 4, 10], "black is a class here");
}

#[test]
fn what_is_no_label_image_is_refused_with_a_reason() {
    use BitDepth::{Eight, Sixteen};
    let grey = |data: &[u8]| png(ColorType::Grayscale, Eight, (2, 2), data);
    let whole = grey(&[1; 4]);
    let (mut flipped, middle) = (whole.clone(), whole.len() - 20);
    flipped[middle] ^= 0xff;
    let mut twins = named("camvid");
    twins.classes[4].color = twins.classes[3].color;
    let rgb = png(ColorType::Rgb, Eight, (1, 2), &[128, 64, 128, 9, 8, 7]);
    let camvid = named("camvid");
    let cases: [(&str, Vec<u8>, &Dataset, &[&str]); 11] = [
        ("a.png", Vec::new(), &camvid, &["no PNG"]),
        ("a.png", b"GIF89a".to_vec(), &camvid, &["no PNG"]),
        ("a.png", whole[..whole.len() / 2].to_vec(), &camvid, &["damaged"]),
        ("a.png", flipped, &camvid, &["damaged"]),
        ("a.png", grey(&[1, 1, 1, 12]), &camvid, &["id 12 at (1, 1)", "0 to 10", "255"]),
        ("a.png", png(ColorType::Grayscale, Sixteen, (1, 1), &[1, 0]), &camvid, &["id 256 at (0, 0)"]),
        ("x_gtFine_labelIds.png", grey(&[7; 4]), &camvid, &["label ids", "`camvid`", "_labelTrainIds"]),
        ("a_L.png", rgb.clone(), &camvid, &["[9, 8, 7] at (0, 1)", "`camvid`"]),
        ("a_L.png", rgb, &twins, &["`road` and `sidewalk`"]),
        ("a.png", png(ColorType::Rgb, Sixteen, (1, 1), &[0; 6]), &camvid, &["Sixteen-bit Rgb"]),
        ("a.png", png(ColorType::GrayscaleAlpha, Eight, (1, 1), &[0; 2]), &camvid, &["GrayscaleAlpha"]),
    ];
    for (name, file, dataset, words) in cases {
        let text = open(name, &file, dataset).unwrap_err().to_string();
        assert!(words.iter().chain(&[name]).all(|word| text.contains(word)), "{text}");
    }
    let missing = LabelImage::open("nowhere/a.png", &camvid).unwrap_err();
    assert!(matches!(missing, Error::Read { .. }), "{missing}");
    assert!(LabelImage::new("a.png", 2, 2, vec![0; 3]).unwrap_err().to_string().contains("3 ids for 2x2"));
}

#[test]
fn no_damage_makes_it_panic() {
    let whole = png(ColorType::Indexed, BitDepth::Four, (7, 5), &[0x12; 20]);
    let camvid = named("camvid");
    let meaning = Meaning::of(Path::new("a.png"), &camvid).unwrap();
    for at in 0..whole.len() {
        let _ = decode(&whole[..at], &Limits::default(), &camvid, &meaning);
        for value in [0, 1, 0x7f, 0xff] {
            let mut file = whole.clone();
            file[at] = value;
            let _ = decode(&file, &Limits::default(), &camvid, &meaning);
        }
    }
}
