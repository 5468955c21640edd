//! Newest-only, smoothing and the flip rate.

use std::io::Write;
use std::process::Stdio;

use super::*;

#[test]
fn frames_that_arrive_too_fast_are_dropped_and_counted() {
    // The frames arrive as fast as the pipe takes them, and the network sees each at four times its size, which takes much longer.
    let frames = y4m(480, 360, 40);
    let mut child = video("-")
        .args(["--realtime", "--json", "--size", "960x720"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let writer = std::thread::spawn(move || stdin.write_all(&frames).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    let rows = lines(&output);
    let numbers: Vec<_> = rows.iter().map(|row| row["frame"].as_u64().unwrap()).collect();
    assert_eq!(numbers.last(), Some(&40), "the last frame is never dropped");
    assert!(numbers.is_sorted() && numbers.len() < 40, "{numbers:?}");
    let mut before = 0;
    for row in &rows {
        let (number, dropped) = (row["frame"].as_u64().unwrap(), row["dropped"].as_u64().unwrap());
        assert_eq!(number, before + 1 + dropped, "every frame is shown or counted");
        before = number;
        assert!(row["age_ms"].as_f64().unwrap() > 0.0);
    }
    let total = rows.last().unwrap()["dropped_total"].as_u64().unwrap();
    assert_eq!(total as usize, 40 - numbers.len());
    assert!(stderr(&output).contains(&format!("{total} dropped")), "{}", stderr(&output));
}

#[test]
fn smoothing_halves_the_flips_of_a_noisy_still() {
    let folder = tempfile::tempdir().unwrap();
    let photo = image::open(format!("{STREET}/0016E5_07959.jpg"))
        .unwrap()
        .resize_exact(96, 72, image::imageops::FilterType::Triangle)
        .to_rgb8();
    let mut state = 1_u64;
    for n in 0..12 {
        let mut noisy = photo.clone();
        for value in noisy.iter_mut() {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            *value = value.saturating_add_signed((state >> 61) as i8 - 3); // -3 to 4
        }
        noisy.save(folder.path().join(format!("{n}.png"))).unwrap();
    }
    let rate = |more: &[&str]| {
        let output = run(video(text(folder.path())).arg("--json").args(more));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let rows = lines(&output);
        assert!(rows[0]["flip_rate"].is_null() && stderr(&output).contains("flip rate"));
        rows[1..].iter().map(|row| row["flip_rate"].as_f64().unwrap()).sum::<f64>() / 11.0
    };
    let (plain, smooth) = (rate(&[]), rate(&["--smooth", "0.8"]));
    assert!(plain > 0.0 && smooth < 0.5 * plain, "{plain} became {smooth}");
    assert_eq!(rate(&["--smooth", "0"]), plain, "a strength of 0 changes nothing");
}

#[test]
fn a_result_is_reused_until_a_block_changes() {
    // Noise, then a bright square, then noise again.
    let (width, height) = (96, 72);
    let mut bytes = format!("YUV4MPEG2 W{width} H{height} F10:1 Cmono XCOLORRANGE=FULL\n").into_bytes();
    for frame in 0..9_u32 {
        bytes.extend(b"FRAME\n");
        bytes.extend((0..width * height).map(|i: u32| {
            let (x, y) = (i % width, i / width);
            let noise = (i.wrapping_mul(2_654_435_761) ^ frame.wrapping_mul(97_531)).wrapping_mul(2_246_822_519) >> 29;
            let square = (3..6).contains(&frame) && (40..56).contains(&x) && (24..40).contains(&y);
            if square { 250 } else { (x + y + noise) as u8 }
        }));
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("fixed.y4m");
    fs::write(&file, bytes).unwrap();
    let digests = |more: &[&str]| {
        let output = run(video(text(&file)).arg("--json").args(more));
        assert_eq!(code(&output), 0, "{}", stderr(&output));
        let rows = lines(&output);
        let reused: Vec<_> = rows.iter().map(|row| row["reused"].as_bool().unwrap()).collect();
        let free = rows.iter().all(|row| row["timings"]["model_ms"].as_f64().unwrap() > 0.0 || row["reused"] == true);
        assert!(free, "{rows:?}");
        (rows.iter().map(|row| row["digest"].to_string()).collect::<Vec<_>>(), reused, stderr(&output))
    };
    let (own, reused, text) = digests(&[]);
    assert!(!reused.contains(&true) && !text.contains("reused"), "{text}");
    let (kept, reused, text) = digests(&["--reuse"]);
    assert_eq!(reused, [false, true, true, false, true, true, false, true, true]);
    assert!(text.contains("66.7 % reused"), "{text}");
    for (i, digest) in kept.iter().enumerate() {
        assert_eq!(*digest, own[i / 3 * 3], "frame {}", i + 1);
    }
}
