//! Photos in tiles, compared with a blend of the same tiles in memory that is written here from the documented formulas.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use image::RgbImage;
use rtformer::pixels::{IndexedPicture, Mask, RowReader, render};
use rtformer::{Builder, Image, Segmenter, Tiling};

const TINY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/golden/tiny.safetensors");
const STREET: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/street/0016E5_07959.jpg");

/// A part of a street photo, so that all tiles differ.
fn photo(width: u32, height: u32) -> RgbImage {
    let street = Image::open(STREET).unwrap().into_rgb();
    RgbImage::from_fn(width, height, |x, y| *street.get_pixel(x % street.width(), y % street.height()))
}

/// The side, the starts and the weights of the tiles along a side of a photo; see the documentation of `Tiling`.
fn axis(length: usize, tile: usize, overlap: usize) -> (usize, Vec<usize>, Vec<Vec<f32>>) {
    if length <= tile {
        return (length, vec![0], vec![vec![1.0; length]]);
    }
    let n = (length - overlap).div_ceil(tile - overlap);
    let side = ((length + (n - 1) * overlap).div_ceil(n).div_ceil(32) * 32).min(tile);
    let starts: Vec<usize> = (0..n).map(|i| i * (length - side) / (n - 1)).collect();
    let window = |i: usize, p: usize| {
        let (first, last, centre) = (starts[i], starts[i] + side, p as f64 + 0.5);
        let mut weight = 1.0_f64;
        if i > 0 && p < starts[i - 1] + side {
            weight = weight.min((centre - first as f64) / (starts[i - 1] + side - first) as f64);
        }
        if i + 1 < n && p >= starts[i + 1] {
            weight = weight.min((last as f64 - centre) / (last - starts[i + 1]) as f64);
        }
        if (first..last).contains(&p) { weight } else { 0.0 }
    };
    let sums: Vec<f64> = (0..length).map(|p| (0..n).map(|i| window(i, p)).sum()).collect();
    let weights = (0..n).map(|i| (starts[i]..starts[i] + side).map(|p| (window(i, p) / sums[p]) as f32).collect());
    (side, starts.clone(), weights.collect())
}

/// Blended logits `[classes, rows, width]` of some of the photo's rows, whose pixels `pixel` gives.
fn blended(
    builder: &Builder,
    (width, height): (u32, u32),
    pixel: &dyn Fn(u32, u32) -> [u8; 3],
    tiling: Tiling,
    rows: std::ops::Range<usize>,
) -> Vec<f32> {
    let segmenter = builder.clone().logits(true).build().unwrap();
    let classes = segmenter.model().num_classes();
    let (wide, across) = (width as usize, axis(width as usize, tiling.width as usize, tiling.overlap as usize));
    let down = axis(height as usize, tiling.height as usize, tiling.overlap as usize);
    let mut sums = vec![0.0_f32; classes * rows.len() * wide];
    for (top, weights_y) in down.1.iter().zip(&down.2).filter(|(top, _)| **top < rows.end && *top + down.0 > rows.start)
    {
        let mut line = vec![0.0_f32; sums.len()]; // a row of tiles
        for (left, weights_x) in across.1.iter().zip(&across.2) {
            let tile = RgbImage::from_fn(across.0 as u32, down.0 as u32, |x, y| {
                image::Rgb(pixel(*left as u32 + x, *top as u32 + y))
            });
            let scene = segmenter.segment(&tile).unwrap();
            let logits = scene.logits().unwrap();
            for class in 0..classes {
                for y in (*top..top + down.0).filter(|y| rows.contains(y)) {
                    let from = &logits[(class * down.0 + y - top) * across.0..][..across.0];
                    let to = &mut line[(class * rows.len() + y - rows.start) * wide + left..][..across.0];
                    for ((to, from), x) in to.iter_mut().zip(from).zip(weights_x) {
                        *to += from * (weights_y[y - top] * x);
                    }
                }
            }
        }
        sums.iter_mut().zip(line).for_each(|(sum, value)| *sum += value);
    }
    sums
}

/// The first class of the largest logit.
fn largest(logits: &[f32], pixels: usize) -> Vec<u8> {
    let best = |p: usize| {
        let classes = (0..logits.len() / pixels).rev(); // of equal ones, `max_by` takes the last
        classes.max_by(|a, b| logits[a * pixels + p].total_cmp(&logits[b * pixels + p])).unwrap()
    };
    (0..pixels).map(|p| best(p) as u8).collect()
}

#[test]
fn tiles_are_blended_as_documented() {
    let cases = [
        (150, 70, "64x64+16"), // two rows of tiles
        (97, 131, "64x48+8"),  // odd sides, and the last tile is not a multiple of 32
        (200, 131, "64x64+0"), // no overlap
        (130, 40, "64x64+32"), // the largest overlap, one row of tiles
        (33, 170, "48x40+20"), // one column of tiles
        (60, 50, "64x64+16"),  // one tile
        (300, 37, "33x32+16"), // tiles that share pixels with more than their neighbours
    ];
    for (width, height, tiling) in cases {
        let (photo, tiling) = (photo(width, height), tiling.parse::<Tiling>().unwrap());
        let name = format!("{width}x{height} in {tiling}");
        let embedded = Some(Segmenter::builder()).filter(|_| width == 97);
        for builder in std::iter::once(Segmenter::builder().weights(TINY)).chain(embedded) {
            let want = blended(&builder, (width, height), &|x, y| photo.get_pixel(x, y).0, tiling, 0..height as usize);
            let tiled = builder.clone().tile(tiling).logits(true).confidence(true).build().unwrap();
            let scene = tiled.segment(&photo).unwrap();
            let got = scene.logits().unwrap();
            assert_eq!(got.len(), want.len(), "{name}");
            let size = want.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
            let off = got.iter().zip(&want).fold(0.0_f32, |most, (a, b)| most.max((a - b).abs()));
            assert!(off <= 1e-5 * size, "{name}: off by {off} of {size}");
            let ids = scene.mask().ids_u8().unwrap();
            let pixels = ids.len();
            assert_eq!(ids, largest(got, pixels), "{name}");
            let different = ids.iter().zip(largest(&want, pixels)).filter(|(a, b)| **a != *b).count();
            assert!(different <= pixels / 1000, "{name}: {different} of {pixels}");
            for (p, confidence) in scene.confidence().unwrap().iter().enumerate().step_by(7) {
                let all = (0..got.len() / pixels).map(|class| (got[class * pixels + p] / tiled.temperature()).exp());
                let sum: f32 = all.sum();
                let chosen = (got[usize::from(ids[p]) * pixels + p] / tiled.temperature()).exp() / sum;
                assert!((confidence - chosen).abs() < 1e-5, "{name}: {confidence} for {chosen}");
            }

            // By strips, the same.
            let strips = builder.confidence(true).build().unwrap();
            let (mut all, mut confidences) = (Vec::new(), Vec::new());
            let timings = strips.segment_strips(&mut RowReader::from(photo.clone()), &tiling, &mut |strip| {
                assert_eq!(strip.top as usize * width as usize, all.len(), "{name}");
                assert_eq!(strip.photo.row(0), &photo.as_raw()[3 * all.len()..][..3 * width as usize], "{name}");
                all.extend_from_slice(strip.mask.ids_u8().unwrap());
                confidences.extend_from_slice(strip.confidence.unwrap());
                Ok(())
            });
            assert!(timings.unwrap().model > 0.0);
            assert_eq!((&all[..], &confidences[..]), (ids, scene.confidence().unwrap()), "{name}");
        }
    }
}

/// A photo that is one tile has the mask of the whole photo.
#[test]
fn one_tile_is_the_whole_photo() {
    let photo = photo(150, 70);
    let tiling = "150x70+0".parse().unwrap();
    for builder in [Segmenter::builder().weights(TINY), Segmenter::builder().reject_below(0.7)] {
        let whole = builder.clone().build().unwrap().segment(&photo).unwrap();
        let tiled = builder.clone().tile(tiling).build().unwrap();
        assert_eq!(tiled.segment(&photo).unwrap().mask(), whole.mask());
        let mut mask = Mask::new(0, 0, 5);
        tiled.segment_into(&photo, &mut mask).unwrap();
        assert_eq!(&mask, whole.mask());
    }
}

#[test]
fn what_tiles_cannot_give_is_refused() {
    let tiling: Tiling = "64x64+16".parse().unwrap();
    let builder = || Segmenter::builder().tile(tiling);
    let wrong = [
        builder().size("64x64".parse().unwrap()),
        builder().features(true),
        builder().tile(Tiling { overlap: 33, ..tiling }),
    ];
    for builder in wrong {
        let error = builder.build().unwrap_err().to_string();
        assert!(error.contains("tiles"), "{error}");
    }
    let sized = Segmenter::builder().size("64x64".parse().unwrap()).build().unwrap();
    let mut reader = RowReader::from(photo(64, 64));
    assert!(sized.segment_strips(&mut reader, &tiling, &mut |_| Ok(())).unwrap_err().to_string().contains("size"));
}

fn segment(input: &Path, out: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rtformer"));
    command.args(["segment", "--out"]).arg(out).arg(input).args(more).stdin(Stdio::null()).output().unwrap()
}

fn said(output: &Output) -> (i32, String) {
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn the_program_writes_the_pictures_of_the_blended_tiles() {
    let folder = tempfile::tempdir().unwrap();
    let (photo, out) = (photo(150, 131), folder.path().join("out"));
    photo.save(folder.path().join("a.png")).unwrap();
    let emit = "mask,overlay,binary,confidence";
    let done =
        segment(&folder.path().join("a.png"), &out, &["--tile", "64x64+16", "--emit", emit, "--classes", "road,sky"]);
    let (code, text) = said(&done);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("a.png: 150x131 in 9 tiles of at most 64x64+16, at most "), "{text}");

    let classes = rtformer::Classes { keep: vec!["road".into(), "sky".into()], ..Default::default() };
    let builder = Segmenter::builder().tile("64x64+16".parse().unwrap()).classes(classes).confidence(true);
    let scene = builder.build().unwrap().segment(&photo).unwrap();
    let picture = |name: &str| image::open(out.join(format!("a.{name}.png"))).unwrap();
    let mut mask = Vec::new();
    IndexedPicture::new(scene.mask(), &rtformer::pixels::Palette::new(Vec::new())).write_to(&mut mask).unwrap();
    let indices = |bytes: &[u8]| {
        let mut reader = png::Decoder::new(std::io::Cursor::new(bytes)).read_info().unwrap();
        let mut ids = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut ids).unwrap();
        ids
    };
    assert_eq!(indices(&fs::read(out.join("a.mask.png")).unwrap()), indices(&mask));
    assert_eq!(picture("overlay").into_rgb8(), scene.overlay(&photo, 0.5));
    assert_eq!(picture("road.binary").into_luma8(), render::binary(scene.mask(), 3));
    let confidence = render::confidence_picture(scene.confidence().unwrap(), 150, 131);
    assert_eq!(picture("confidence").into_luma8(), confidence);

    // Outputs record how they were made.
    let again = |more: &[&str]| {
        let flags = ["--emit", emit, "--classes", "road,sky", "--resume"];
        said(&segment(&folder.path().join("a.png"), &out, &[&flags, more].concat()))
    };
    let (code, text) = again(&["--tile", "64x64+16"]);
    assert!(code == 0 && text.contains("nothing left to do"), "{text}");
    let (code, text) = again(&["--tile", "64x64+8"]);
    assert!(code == 0 && text.contains("1 replaced outputs"), "{text}");
    let (code, text) = again(&["--memory", "500MB"]);
    assert!(code == 0 && text.contains("150x131 in 1 tile, at most "), "{text}");
}

#[test]
fn the_programs_mistakes_name_the_flag_or_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.png");
    photo(96, 64).save(&path).unwrap();
    let cases: [(&[&str], i32, &str); 9] = [
        (&["--tile", "64"], 2, "invalid tiles `64`: expected WxH or WxH+OVERLAP"),
        (&["--tile", "64x64+40"], 2, "an overlap of at most half of the shorter side"),
        (&["--tile", "64x64", "--emit", "mask,logits"], 2, "--tile writes pictures only"),
        (&["--memory", "1GB", "--emit", "json"], 2, "--memory writes pictures only"),
        (&["--tile", "64x64", "--size", "64x64"], 2, "--tile cuts photos at their own size"),
        (&["--tile", "64x64", "--memory", "1GB"], 2, "cannot be used with"),
        (&["--tile", "64x64", "--json"], 2, "cannot be used with"),
        (&["--memory", "1 ton"], 2, "is not a size"),
        (&["--memory", "20MB"], 1, "a.png: 96x64 pixels need at least "),
    ];
    for (flags, want, text) in cases {
        let (code, said) = said(&segment(&path, &folder.path().join("out"), flags));
        assert!(code == want && said.contains(text), "{flags:?}: {code}, {said}");
    }
    assert!(fs::read_dir(folder.path().join("out")).unwrap().next().is_none(), "nothing is written");
    // A damaged file leaves nothing, and the others are done.
    let bytes = fs::read(&path).unwrap();
    fs::write(folder.path().join("b.png"), &bytes[..bytes.len() / 2]).unwrap();
    let (code, said) =
        said(&segment(folder.path(), &folder.path().join("out"), &["--tile", "64x64+16", "--emit", "mask"]));
    assert!(code == 1 && said.contains("b.png: this PNG file is"), "{said}");
    let files: Vec<PathBuf> =
        fs::read_dir(folder.path().join("out")).unwrap().map(|file| file.unwrap().path()).collect();
    assert_eq!(files, [folder.path().join("out/a.mask.png")]);
}

/// A pixel of a photo of any size: a street photo that is repeated, brighter and darker.
#[cfg(target_os = "linux")]
fn large(street: &RgbImage) -> impl Fn(u32, u32) -> [u8; 3] {
    move |x, y| {
        let (across, down) = (x / street.width(), y / street.height());
        let shade = (across * 7 + down * 13) % 64;
        street.get_pixel(x % street.width(), y % street.height()).0.map(|value| value.saturating_sub(shade as u8))
    }
}

/// The largest resident memory of a running process so far, in bytes.
#[cfg(target_os = "linux")]
fn peak(process: u32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok().map(|kilobytes| 1024 * kilobytes)
}

/// `make tiles`: a photo of 20,000 x 20,000 pixels needs less than 1 GB, and what was said before. Bands of its mask equal a blend in memory: the top, the
/// bottom, and rows that two rows of tiles share. `SIDE=3000` tries it on a smaller photo.
#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes minutes; run `make tiles`"]
fn a_photo_of_400_megapixels_needs_less_than_a_gigabyte() {
    let side: u32 = std::env::var("SIDE").map_or(20_000, |side| side.parse().unwrap());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (path, out) = (folder.path().join("large.png"), folder.path().join("out"));
    let street = Image::open(STREET).unwrap().into_rgb();
    let pixel = large(&street);
    let mut picture = render::PictureWriter::rgb(fs::File::create(&path).unwrap(), (side, side), None).unwrap();
    for y in 0..side {
        picture.write(&(0..side).flat_map(|x| pixel(x, y)).collect::<Vec<u8>>()).unwrap();
    }
    picture.finish().unwrap();

    let started = std::time::Instant::now();
    let mut program = Command::new(env!("CARGO_BIN_EXE_rtformer"));
    let program =
        program.arg("segment").arg(&path).args(["--tile", "2048x1024+256", "--emit", "mask", "--out"]).arg(&out);
    let mut child = program.stderr(Stdio::piped()).spawn().unwrap();
    let mut resident = 0;
    while child.try_wait().unwrap().is_none() {
        resident = resident.max(peak(child.id()).unwrap_or(0));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let seconds = started.elapsed().as_secs_f64();
    let (code, text) = said(&child.wait_with_output().unwrap());
    assert_eq!(code, 0, "{text}");
    let stated = text.split("at most ").last().unwrap().split(' ').next().unwrap().parse::<u64>().unwrap();
    let length = fs::metadata(&path).unwrap().len() / 1_000_000;
    println!(
        "{side}x{side}, a file of {length} MB: {seconds:.0} s, {} MB resident, {stated} MB stated",
        resident / 1_000_000
    );
    println!("{}", text.lines().find(|line| line.contains("tiles")).unwrap());
    assert!(resident > 100_000_000 && resident < 1_000_000_000, "{resident}");
    assert!(resident < 1_000_000 * stated, "{resident}: {text}");

    let mask = image::open(out.join("large.mask.png")).err(); // too large for the default limits of `image`
    assert!(mask.is_some() || side < 20_000);
    let mut reader = png::Decoder::new(std::io::BufReader::new(fs::File::open(out.join("large.mask.png")).unwrap()));
    reader.set_transformations(png::Transformations::IDENTITY);
    let mut reader = reader.read_info().unwrap();
    assert_eq!(reader.info().size(), (side, side));
    let mut ids = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut ids).unwrap();
    let tiling: Tiling = "2048x1024+256".parse().unwrap();
    let starts = axis(side as usize, 1024, 256).1;
    let middle = starts[starts.len() / 2];
    let side = side as usize;
    let mut classes = std::collections::BTreeSet::new();
    for rows in [0..40, middle - 20..middle + 40, middle + 200..middle + 300, side - 40..side] {
        let logits = blended(&Segmenter::builder(), (side as u32, side as u32), &pixel, tiling, rows.clone());
        let want = largest(&logits, side * rows.len());
        let got = &ids[rows.start * side..rows.end * side];
        classes.extend(got.iter().copied());
        let different = got.iter().zip(&want).filter(|(a, b)| a != b).count();
        println!("rows {rows:?}: {different} of {} pixels differ", want.len());
        assert_eq!(different, 0, "{rows:?}");
    }
    assert!(classes.len() > 5, "{classes:?}: the comparison must be of something");
}
