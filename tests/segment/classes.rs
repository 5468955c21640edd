//! `--classes`, `--merge`, `--emit binary`, `--legend`, `--flip` and `--scales`.

use std::collections::BTreeMap;
use std::path::Path;

use super::rtformer;

/// The embedded network's mask of a street with these flags.
fn mask(flags: &[&str]) -> (Vec<u8>, serde_json::Value) {
    let out = tempfile::tempdir().unwrap();
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/street/0016E5_07959.jpg");
    let mut command = rtformer(&["segment", "--emit", "mask", "--json"]);
    let output = command.arg(&photo).arg("-o").arg(out.path()).args(flags).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut decoder = png::Decoder::new(std::io::BufReader::new(
        std::fs::File::open(out.path().join("0016E5_07959.mask.png")).unwrap(),
    ));
    decoder.set_transformations(png::Transformations::IDENTITY);
    let mut reader = decoder.read_info().unwrap();
    let mut ids = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut ids).unwrap();
    (ids, serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn classes_are_merged_and_dropped_after_the_network_decided() {
    let (all, _) = mask(&[]);
    let (merged, json) =
        mask(&["--merge", "vehicle=car,bicyclist", "--merge", "way=sidewalk,road", "--classes", "vehicle,way,sky"]);
    // sky building pole road sidewalk tree sign fence car pedestrian bicyclist
    let new = BTreeMap::from([(0, 0), (3, 4), (4, 4), (8, 8), (10, 8)]);
    let want: Vec<u8> = all.iter().map(|id| new.get(id).copied().unwrap_or(255)).collect();
    assert!(merged == want, "the mask is not the mapped one");
    let names: Vec<_> =
        json["classes"].as_array().unwrap().iter().map(|class| class["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"way") && names.contains(&"vehicle") && !names.contains(&"building"), "{names:?}");
    let dropped = want.iter().map(|id| u32::from(*id == 255)).sum::<u32>();
    let dropped = f64::from(dropped) / want.len() as f64;
    assert!((json["rejected"].as_f64().unwrap() - dropped).abs() < 1e-9);

    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/street/0016E5_07959.jpg");
    for (flags, want) in [
        (&["--classes", "cars"][..], "there is no class `cars`; the classes are sky, building"),
        (&["--merge", "car"], "expected something like vehicle=car,truck,bus"),
        (&["--legend", "--emit", "mask"], "--legend is written below overlays"),
        (&["--scales", "0"], "invalid scale 0: expected 0.1 to 4"),
    ] {
        let output = rtformer(&["segment"]).arg(&photo).args(["-o", "none"]).args(flags).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && error.contains(want), "{flags:?}: {error}");
    }
}

#[test]
fn every_class_has_a_binary_picture() {
    let out = tempfile::tempdir().unwrap();
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/street/0016E5_07959.jpg");
    let run = |more: &[&str]| {
        let flags = ["--emit", "binary,overlay", "--merge", "road user=car,bicyclist,pedestrian", "--legend", "-o"];
        let output = rtformer(&["segment"]).arg(&photo).args(flags).arg(out.path()).args(more).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    assert_eq!(run(&[]).0, Some(0));
    let (ids, _) = mask(&["--merge", "road user=car,bicyclist,pedestrian"]);
    let names = ["sky", "building", "pole", "road", "sidewalk", "tree", "sign", "fence", "road-user"];
    for (id, name) in (0_u8..).zip(names) {
        let picture = image::open(out.path().join(format!("0016E5_07959.{name}.binary.png"))).unwrap().into_luma8();
        let want: Vec<u8> = ids.iter().map(|seen| if *seen == id { 255 } else { 0 }).collect();
        assert!(picture.as_raw() == &want, "{name}");
    }
    let files = std::fs::read_dir(out.path()).unwrap().count();
    assert_eq!(files, names.len() + 1);
    let overlay = image::open(out.path().join("0016E5_07959.overlay.png")).unwrap();
    assert!(overlay.width() == 480 && overlay.height() > 360 + 16, "{:?}", overlay.height());

    // All outputs count for --resume, and other classes are other settings.
    let (code, said) = run(&["--resume"]);
    assert!(code == Some(0) && said.contains("1 photo done before"), "{said}");
    std::fs::remove_file(out.path().join("0016E5_07959.road.binary.png")).unwrap();
    let (_, said) = run(&["--resume"]);
    assert!(said.contains("1 photo in"), "{said}");
    let (_, said) = run(&["--resume", "--flip"]);
    assert!(said.contains("replaced outputs"), "{said}");
    // The outputs are not photos.
    let output = rtformer(&["segment"]).arg(out.path()).args(["--dry-run"]).output().unwrap();
    assert!(!String::from_utf8_lossy(&output.stdout).contains("binary"), "{output:?}");
}

#[test]
fn versions_of_a_photo_are_averaged() {
    let (plain, _) = mask(&[]);
    let (one, json) = mask(&["--scales", "1"]);
    let differ = plain.iter().zip(&one).filter(|(a, b)| a != b).count();
    assert!(differ * 1000 < plain.len(), "one version at its own size is the photo: {differ} pixels differ");
    assert_eq!(json["source"]["augmentation"], "scales 1");
    let (several, json) = mask(&["--flip", "--scales", "0.75,1.25"]);
    let differ = plain.iter().zip(&several).filter(|(a, b)| a != b).count();
    assert!(differ > 100 && differ * 5 < plain.len(), "{differ} pixels differ");
    assert_eq!(json["source"]["augmentation"], "flip, scales 0.75,1.25");
}

/// Filled by the even-odd rule at the pixels' centres, the outlines are the mask.
#[test]
fn outlines_cover_the_mask() {
    let out = tempfile::tempdir().unwrap();
    let photo = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/street/0016E5_07959.jpg");
    let run = |tolerance: &str| {
        let flags = ["--emit", "polygons,rle", "--overwrite", "--tolerance", tolerance, "-o"];
        let output = rtformer(&["segment"]).arg(&photo).args(flags).arg(out.path()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        ["polygons.geojson", "polygons.coco.json", "rle.json"].map(|kind| -> serde_json::Value {
            let file = std::fs::read(out.path().join(format!("0016E5_07959.{kind}"))).unwrap();
            serde_json::from_slice(&file).unwrap()
        })
    };
    let [geojson, coco, rle] = run("0");
    let (ids, _) = mask(&[]);
    let (width, height) = (480, 360);
    let mut drawn = vec![255; width * height];
    let mut pixels = 0;
    for feature in geojson["features"].as_array().unwrap() {
        let rings: Vec<Vec<[f64; 2]>> = serde_json::from_value(feature["geometry"]["coordinates"].clone()).unwrap();
        for y in 0..height {
            // Where edges cross the middle of the row, from left to right.
            let middle = y as f64 + 0.5;
            let edges = rings.iter().flat_map(|ring| ring.windows(2));
            let mut crossed: Vec<f64> =
                edges.filter(|edge| (edge[0][1] > middle) != (edge[1][1] > middle)).map(|edge| edge[0][0]).collect();
            crossed.sort_by(f64::total_cmp);
            for span in crossed.chunks(2) {
                drawn[y * width..][span[0] as usize..span[1] as usize]
                    .fill(feature["properties"]["id"].as_u64().unwrap() as u8);
            }
        }
        pixels += feature["properties"]["pixels"].as_u64().unwrap();
    }
    assert!(drawn == ids, "the outlines are not those of the mask");
    assert_eq!(pixels as usize, width * height);
    let areas = |json: &serde_json::Value| -> u64 {
        json["annotations"].as_array().unwrap().iter().map(|one| one["area"].as_u64().unwrap()).sum()
    };
    assert_eq!((areas(&coco), areas(&rle)), (pixels, pixels));
    assert_eq!(coco["annotations"].as_array().unwrap().len(), geojson["features"].as_array().unwrap().len());

    let corners = |json: &serde_json::Value| json.to_string().matches("],[").count();
    let [fewer, _, same] = run("1.5");
    assert!(corners(&fewer) * 2 < corners(&geojson), "{} of {}", corners(&fewer), corners(&geojson));
    assert_eq!((&fewer["tolerance"], same), (&1.5.into(), rle));
}
