use png::{BitDepth, ColorType};

use super::*;

type Rgb = [u8; 3];

/// Train ids, or a part of the error text.
type Want = Result<&'static [u16], &'static str>;

/// Data set, file name, file, kind, first id, ids to ignore, result.
type FormatCase = (&'static str, &'static str, Vec<u8>, LabelKind, Option<u16>, &'static [u16], Want);

/// A PNG file. An indexed one has a palette of a single colour, which gives no information.
fn png(color: ColorType, depth: BitDepth, size: (u32, u32), data: &[u8]) -> Vec<u8> {
    painted(color, depth, size, data, &vec![[7; 3]; 1 << (depth as usize).min(8)], &[])
}

fn painted(
    color: ColorType,
    depth: BitDepth,
    (width, height): (u32, u32),
    data: &[u8],
    palette: &[Rgb],
    transparency: &[u8],
) -> Vec<u8> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette(palette.concat());
        if !transparency.is_empty() {
            encoder.set_trns(transparency.to_vec());
        }
    }
    encoder.write_header().unwrap().write_image_data(data).unwrap();
    file
}

fn open(name: &str, file: &[u8], dataset: &Dataset) -> Result<LabelImage> {
    open_as(name, file, dataset, &LabelFormat::default())
}

fn open_as(name: &str, file: &[u8], dataset: &Dataset, format: &LabelFormat) -> Result<LabelImage> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, file).unwrap();
    LabelImage::open_as(path, dataset, format)
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
fn numbers_of_each_data_set_become_train_ids() {
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
fn colours_of_classes_become_train_ids() {
    let rgb = png(ColorType::Rgb, BitDepth::Eight, (3, 1), &[128, 64, 128, 0, 0, 0, 0, 128, 192]);
    assert_eq!(open("a_L.png", &rgb, &named("camvid")).unwrap().ids(), [3, 255, 10]);
    let rgba = png(ColorType::Rgba, BitDepth::Eight, (2, 1), &[128, 128, 128, 255, 128, 0, 0, 0]);
    assert_eq!(open("a_L.png", &rgba, &named("camvid")).unwrap().ids(), [0, 1]);

    let mut black = named("camvid");
    black.classes[4].color = [0, 0, 0];
    assert_eq!(open("a_L.png", &rgb, &black).unwrap().ids(), [3, 4, 10], "black is a class here");
}

/// `CamVid`'s colours, in an order that is not the data set's.
fn shuffled() -> Vec<Rgb> {
    let classes = named("camvid").classes;
    (0..11).map(|i| classes[i * 4 % 11].color).collect()
}

fn in_order() -> Vec<Rgb> {
    named("camvid").classes.iter().map(|class| class.color).collect()
}

/// Colours that no data set has, `n` of them.
fn foreign(n: u8) -> Vec<Rgb> {
    (0..n).map(|i| [i, 201, 17]).collect()
}

fn voc(n: u8) -> Vec<Rgb> {
    let channel =
        |i: u8, first: u8| (0..3).filter(|k| first + 3 * k < 8).map(|k| (i >> (first + 3 * k) & 1) << (7 - k)).sum();
    (0..n).map(|i| [channel(i, 0), channel(i, 1), channel(i, 2)]).collect()
}

#[test]
fn a_palette_tells_numbers_from_colours() {
    const SKY: Rgb = [128, 128, 128];
    const BUILDING: Rgb = [128, 0, 0];
    const ROAD: Rgb = [128, 64, 128];
    const TREE: Rgb = [128, 128, 0];
    const BLACK: Rgb = [0; 3];
    const WHITE: Rgb = [255; 3];
    let padded = |colors: Vec<Rgb>, with: Rgb| [colors, vec![with; 256]].concat()[..256].to_vec();
    let grey: Vec<Rgb> = (0..=255).map(|value| [value; 3]).collect();
    let name = "a.png";
    // File name, palette, indices.
    let cases: Vec<(&str, Vec<Rgb>, &[u8], Want)> = vec![
        // Numbers. The data set's palette in order, in the sizes that programs write; both readings agree.
        (name, in_order(), &[0, 10, 3], Ok(&[0, 10, 3])),
        (name, padded(in_order(), BLACK), &[0, 10, 255, 11], Ok(&[0, 10, 255, 255])),
        (name, padded(in_order(), WHITE), &[0, 10, 255], Ok(&[0, 10, 255])),
        // A palette that gives no information: one colour, grey values, VOC's colour map, or a program's own.
        (name, vec![BLACK; 256], &[0, 10, 3], Ok(&[0, 10, 3])),
        (name, vec![BUILDING; 16], &[0, 10, 3], Ok(&[0, 10, 3])), // a class's colour by chance
        (name, grey.clone(), &[0, 10, 3], Ok(&[0, 10, 3])),
        (name, grey.clone(), &[0], Ok(&[0])),
        (name, voc(255), &[0, 1, 3, 7], Ok(&[0, 1, 3, 7])), // these four are CamVid's colours by chance
        (name, voc(12), &[0, 1, 2, 10], Ok(&[0, 1, 2, 10])),
        (name, foreign(12), &[0, 10, 3, 11], Ok(&[0, 10, 3, 255])),
        (name, [vec![BLACK, ROAD], foreign(9)].concat(), &[0, 1, 5, 10], Ok(&[0, 1, 5, 10])), // one class's colour by chance
        (name, foreign(13), &[12], Err("id 12 at (0, 0)")),
        (name, padded(in_order(), BLACK), &[0, 12], Err("id 12 at (1, 0)")), // padding does not make it ignored
        // Evenly spaced grey values give no information either.
        (name, (0..12).map(|i| [i * 23; 3]).collect(), &[0, 1, 5], Ok(&[0, 1, 5])),
        (name, vec![BLACK, WHITE], &[0, 1], Ok(&[0, 1])),
        // Grey values and VOC's colours in another order, as optimisers write them: their places in the ramp are the numbers.
        (name, [1, 255, 10, 0].map(|value| [value; 3]).to_vec(), &[0, 1, 2, 3], Ok(&[1, 255, 10, 0])),
        (name, vec![BLACK, [5; 3]], &[0, 1], Ok(&[0, 5])),
        (name, voc(12).into_iter().rev().chain([[224, 224, 192]]).collect(), &[0, 1, 11, 12], Ok(&[255, 10, 0, 255])),
        (name, [3, 12, 5].map(|value| [value; 3]).to_vec(), &[0, 1, 2], Err("has id 12 at (1, 0)")),
        ("a_labelTrainIds.png", [3, 4].map(|value| [value; 3]).to_vec(), &[0, 1], Ok(&[3, 4])),
        // Colours. Another order, as optimisers write it.
        (name, shuffled(), &[0, 1, 2, 10], Ok(&[0, 4, 8, 7])),
        (name, shuffled(), &[3], Ok(&[1])),
        (name, padded(shuffled(), BLACK), &[1, 2, 200], Ok(&[4, 8, 255])),
        (name, padded(shuffled(), WHITE), &[1, 2, 10], Ok(&[4, 8, 7])), // unused entries of one colour are padding
        // A subset, as quantisers write it, with or without void.
        (name, vec![SKY, ROAD, TREE], &[0, 1, 2], Ok(&[0, 3, 5])),
        (name, vec![BLACK, ROAD, TREE], &[0, 1, 2], Ok(&[255, 3, 5])),
        (name, vec![BLACK, ROAD, TREE], &[0], Ok(&[255])), // also if only void is used
        // The original 32 colours.
        (name, vec![[192, 0, 128], [128, 0, 192], [64, 128, 192]], &[0, 1, 2], Ok(&[1, 3, 8])),
        // Unused entries with other colours, and indices that cannot be classes.
        (name, [foreign(20), shuffled()].concat(), &[20, 21], Ok(&[0, 4])),
        // Most used colours are classes' colours; one is unknown.
        (
            name,
            [shuffled(), foreign(1)].concat(),
            &[1, 2, 3, 11],
            Err("[0, 201, 17] at (3, 0), which no class of `camvid` has"),
        ),
        (name, [shuffled()[1..5].to_vec(), vec![WHITE]].concat(), &[0, 1, 2, 4], Err("[255, 255, 255] at (3, 0)")),
        // Both readings are possible and differ.
        (name, vec![BLACK, BUILDING], &[0, 1], Err("index 0 is `sky` by its number and ignored by its colour")),
        (name, vec![BUILDING], &[0], Err("the label kind: auto|index|color|train-id|label-id")),
        (
            name,
            [shuffled(), foreign(3)].concat(),
            &[1, 2],
            Err("index 1 is `building` by its number and `sidewalk` by its colour"),
        ),
        // The name implies numbers, the palette implies colours.
        ("a_labelTrainIds.png", shuffled(), &[1, 2], Err("the label kind")),
        ("a_labelTrainIds.png", in_order(), &[1, 2], Ok(&[1, 2])),
        // Indices beyond the palette can be numbers, not colours.
        (name, in_order(), &[1, 2, 255], Ok(&[1, 2, 255])),
        (name, vec![BLACK, ROAD, TREE], &[1, 2, 9], Err("has index 9, but its palette has only 3 colours")),
    ];
    let camvid = named("camvid");
    for (name, palette, data, want) in cases {
        let file = painted(ColorType::Indexed, BitDepth::Eight, (data.len() as u32, 1), data, &palette, &[0, 128]);
        let got = open(name, &file, &camvid).map(|labels| labels.ids().to_vec()).map_err(|error| error.to_string());
        match (&got, want) {
            (Ok(ids), Ok(want)) => assert_eq!(ids, want, "{palette:?}"),
            (Err(text), Err(want)) => assert!(text.contains(want) && text.contains(name), "{text}"),
            _ => panic!("{palette:?} {data:?}: {got:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn colours_are_found_at_every_depth() {
    use BitDepth::{Eight, Four, One, Two};
    let cases: [(BitDepth, &[u8], &[u16]); 4] = [
        (One, &[0b0110_0000], &[4, 8, 8]),
        (Two, &[0b0001_1000], &[4, 8, 1]),
        (Four, &[0x02, 0x90], &[4, 1, 7]),
        (Eight, &[0, 1, 9], &[4, 8, 7]),
    ];
    for (depth, data, want) in cases {
        let palette = &shuffled()[1..][..10.min(1 << depth as usize)];
        let file = painted(ColorType::Indexed, depth, (3, 1), data, palette, &[255, 0]);
        assert_eq!(open("a.png", &file, &named("camvid")).unwrap().ids(), want, "{depth:?}");
    }
}

#[test]
fn a_class_without_a_colour_of_its_own_is_a_number() {
    let mut twins = named("camvid");
    twins.classes[4].color = twins.classes[3].color;
    let palette: Vec<_> = twins.classes.iter().map(|class| class.color).collect();
    let file = painted(ColorType::Indexed, BitDepth::Eight, (3, 1), &[3, 4, 0], &palette, &[]);
    assert_eq!(open("a.png", &file, &twins).unwrap().ids(), [3, 4, 0]);
    // Black is a class's colour and also pads the palette.
    let mut black = named("camvid");
    black.classes[4].color = [0; 3];
    let palette: Vec<_> = (0..256).map(|id| black.classes.get(id).map_or([0; 3], |class| class.color)).collect();
    let file = painted(ColorType::Indexed, BitDepth::Eight, (3, 1), &[3, 4, 255], &palette, &[]);
    assert_eq!(open("a.png", &file, &black).unwrap().ids(), [3, 4, 255]);
}

#[test]
fn our_own_masks_are_labels() {
    use crate::pixels::{IdsMut, IndexedPicture, Mask, Palette};
    for dataset in Dataset::names().map(named) {
        let mut mask = Mask::new(4, 1, dataset.classes.len());
        if let IdsMut::U8(ids) = mask.ids_mut() {
            ids.copy_from_slice(&[0, 3, 10, 255]);
        }
        let mut file = Vec::new();
        let palette = Palette::new(dataset.classes.iter().map(|class| class.color).collect());
        IndexedPicture::new(&mask, &palette).write_to(&mut file).unwrap();
        assert_eq!(open("street.mask.png", &file, &dataset).unwrap().ids(), [0, 3, 10, 255], "{}", dataset.name);
    }
}

#[test]
fn a_format_says_what_the_samples_are() {
    use LabelKind::{Auto, Color, Index, LabelId, TrainId};
    let grey = |data: &[u8]| png(ColorType::Grayscale, BitDepth::Eight, (data.len() as u32, 1), data);
    let wide = |data: &[u8]| png(ColorType::Grayscale, BitDepth::Sixteen, (data.len() as u32 / 2, 1), data);
    let rgb = png(ColorType::Rgb, BitDepth::Eight, (1, 1), &[128, 64, 128]);
    let mixed = painted(ColorType::Indexed, BitDepth::Eight, (3, 1), &[0, 1, 2], &shuffled(), &[]);
    let short = painted(ColorType::Indexed, BitDepth::Eight, (2, 1), &[1, 9], &shuffled()[..3], &[]);
    let binary = painted(ColorType::Indexed, BitDepth::Eight, (2, 1), &[0, 1], &[[0; 3], [128, 0, 0]], &[]);
    let cases: Vec<FormatCase> = vec![
        // A kind decides if the palette is ambiguous, or overrules the palette.
        ("camvid", "a.png", binary.clone(), Index, None, &[], Ok(&[0, 1])),
        ("camvid", "a.png", binary.clone(), TrainId, None, &[], Ok(&[0, 1])),
        ("camvid", "a.png", binary, Color, None, &[], Ok(&[255, 1])),
        ("camvid", "a.png", mixed.clone(), Index, None, &[], Ok(&[0, 1, 2])),
        ("camvid", "a_labelTrainIds.png", mixed.clone(), Color, None, &[], Ok(&[0, 4, 8])),
        ("camvid", "a.png", short, Color, None, &[], Err("index 9, but its palette has only 3 colours")),
        // A kind also overrules the file name.
        ("cityscapes", "a_labelIds.png", grey(&[7, 0]), TrainId, None, &[], Ok(&[7, 0])),
        ("cityscapes", "a.png", grey(&[7, 0]), LabelId, None, &[], Ok(&[0, 255])),
        ("cityscapes", "a.labelid.png", grey(&[7, 0]), Auto, None, &[], Ok(&[0, 255])), // as `segment` names them
        ("ade20k", "a.png", grey(&[1, 0, 150]), LabelId, None, &[], Ok(&[0, 255, 149])),
        ("ade20k", "ADE_1.png", grey(&[1, 0]), TrainId, None, &[], Ok(&[1, 0])),
        ("camvid", "a.png", grey(&[1]), LabelId, None, &[], Err("the classes of data set `camvid` have none")),
        ("cityscapes", "a.png", grey(&[70, 153, 0]), Color, None, &[], Ok(&[2, 5, 255])),
        ("camvid", "a.png", wide(&[0, 1]), Color, None, &[], Err("16-bit grey")),
        ("camvid", "a.png", rgb.clone(), Color, None, &[], Ok(&[3])),
        ("camvid", "a.png", rgb.clone(), Index, None, &[], Err("holds Rgb colours")),
        // Numbers that start at another value: lower numbers are ignored, and 255 is still ignored.
        ("camvid", "a.png", grey(&[1, 11, 0, 12, 255]), Auto, Some(1), &[], Ok(&[0, 10, 255, 255, 255])),
        ("camvid", "a.png", grey(&[1, 13]), Auto, Some(1), &[], Err("id 13 at (1, 0)")),
        ("cityscapes", "a.png", wide(&[3, 232, 3, 231, 3, 250]), Index, Some(1000), &[], Ok(&[0, 255, 18])),
        ("cityscapes", "a.png", grey(&[255, 254]), Auto, Some(255), &[], Ok(&[0, 255])), // 255 is a class here
        ("ade20k", "ADE_1.png", grey(&[1, 0]), Auto, Some(0), &[], Ok(&[1, 0])),
        ("camvid", "a.png", rgb.clone(), Auto, Some(1), &[], Err("leave out the first id")),
        ("camvid", "a.png", mixed.clone(), Auto, Some(0), &[], Err("the label kind")),
        // Numbers to ignore, as stored, including a class's number.
        ("camvid", "a.png", grey(&[0, 99, 4, 3]), Auto, None, &[99, 4], Ok(&[0, 255, 255, 3])),
        ("camvid", "a.png", grey(&[1, 5, 2]), Auto, Some(1), &[5], Ok(&[0, 255, 1])),
        ("cityscapes", "a_labelIds.png", grey(&[7, 26]), Auto, None, &[26], Ok(&[0, 255])),
        ("camvid", "a.png", wide(&[255, 255, 0, 2]), Auto, None, &[65535], Ok(&[255, 2])),
        ("camvid", "a.png", rgb, Auto, None, &[4], Err("leave out the first id and the ignore id")),
        // Contradictions.
        (
            "camvid",
            "a.png",
            grey(&[1]),
            TrainId,
            Some(1),
            &[],
            Err("the label kind train-id cannot be combined with a first id"),
        ),
        ("camvid", "a.png", grey(&[1]), LabelId, Some(1), &[], Err("the label kind label-id cannot be")),
        ("camvid", "a.png", mixed, Color, None, &[1], Err("the label kind color cannot be combined with an ignore id")),
    ];
    for (dataset, name, file, kind, first_id, ignore_ids, want) in cases {
        let format = LabelFormat { kind, first_id, ignore_ids: ignore_ids.to_vec() };
        let got = open_as(name, &file, &named(dataset), &format).map(|labels| labels.ids().to_vec());
        match (got.map_err(|error| error.to_string()), want) {
            (Ok(ids), Ok(want)) => assert_eq!(ids, want, "{dataset} {name} {format:?}"),
            (Err(text), Err(want)) => assert!(text.contains(want), "{text}"),
            (got, want) => panic!("{dataset} {name} {format:?}: {got:?}, wanted {want:?}"),
        }
    }
}

#[test]
fn a_size_that_differs_is_explained() {
    let labels = LabelImage::new("a_L.png", 3, 2, vec![0; 6]).unwrap();
    assert!(labels.check_size("a.jpg", 3, 2).is_ok());
    let cases = [
        ((2, 3), "a_L.png: is 3x2, but a.jpg is 2x3: photos are rotated by their EXIF orientation"),
        ((6, 4), "a_L.png: is 3x2, but a.jpg is 6x4: scale the photo"),
    ];
    for ((width, height), want) in cases {
        let text = labels.check_size("a.jpg", width, height).unwrap_err().to_string();
        assert!(text.starts_with(want), "{text}");
    }
}

#[test]
fn files_that_are_not_label_images_fail_with_a_reason() {
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
        ("a.png", Vec::new(), &camvid, &["not a PNG"]),
        ("a.png", b"GIF89a".to_vec(), &camvid, &["not a PNG"]),
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
fn damaged_files_do_not_panic() {
    let whole = png(ColorType::Indexed, BitDepth::Four, (7, 5), &[0x12; 20]);
    let camvid = named("camvid");
    let numbers = Numbers::new(Path::new("a.png"), &camvid, &LabelFormat::default()).unwrap();
    let decode = |file: &[u8]| {
        [LabelKind::Auto, LabelKind::Color].map(|kind| decode(file, &Limits::default(), &camvid, kind, &numbers))
    };
    for at in 0..whole.len() {
        let _ = decode(&whole[..at]);
        for value in [0, 1, 0x7f, 0xff] {
            let mut file = whole.clone();
            file[at] = value;
            let _ = decode(&file);
        }
    }
}
