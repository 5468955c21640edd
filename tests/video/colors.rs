//! Colours through a pipe of y4m, as in the README, in both ranges and both matrices.

use std::io::Write;
use std::process::Stdio;
use std::thread;

use super::*;

/// What FFmpeg's conversions are off by, in grey levels, and ours.
const ROUNDING: u8 = 4;

#[test]
fn a_pattern_passes_with_its_colors() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let pattern = folder.path().join("pattern.png");
    // Patches of one colour each, in a frame of odd width.
    let picture = image::RgbImage::from_fn(81, 48, |x, y| {
        let (column, row) = ((x / 16) as u8, (y / 16) as u8);
        image::Rgb([column * 51, 255 - row * 100, 40 + (column * 83) % 200])
    });
    picture.save(&pattern).unwrap();
    for (range, matrix, name) in
        [("tv", "bt601", "limited"), ("tv", "bt709", "limited"), ("pc", "bt601", "full"), ("pc", "bt709", "full")]
    {
        let exact = "flags=accurate_rnd+full_chroma_int+full_chroma_inp";
        let filter = format!("scale=out_color_matrix={matrix}:out_range={range}:{exact},format=yuv444p");
        let sent = ffmpeg(&["-i", text(&pattern), "-vf", &filter, "-f", "yuv4mpegpipe", "-strict", "-1", "-"]).stdout;
        let arguments = ["-o", "-", "--view", "side-by-side", "--alpha", "1", "--matrix", matrix, "--range", name];
        let mut child = video("-").args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let writer = thread::spawn(move || stdin.write_all(&sent).unwrap());
        let received = child.wait_with_output().unwrap();
        writer.join().unwrap();
        assert!(received.status.success());
        let (stream, back) = (folder.path().join("back.y4m"), folder.path().join("back.png"));
        fs::write(&stream, received.stdout).unwrap();
        let filter = format!("scale=in_color_matrix={matrix}:in_range={range}:{exact},format=rgb24");
        ffmpeg(&["-i", text(&stream), "-vf", &filter, "-frames:v", "1", text(&back)]);
        let back = image::open(&back).unwrap().to_rgb8();
        assert_eq!(back.dimensions(), (162, 48));
        for (x, y, want) in picture.enumerate_pixels() {
            let got = back.get_pixel(x, y);
            let near = got.0.iter().zip(want.0).all(|(a, b)| a.abs_diff(b) <= ROUNDING);
            assert!(near, "{range}, {matrix}, ({x}, {y}): {:?} became {:?}", want.0, got.0);
        }
        // The right half has the classes' colours.
        let mask = run(video(text(&stream)).args(["--json", "--matrix", matrix]));
        assert_eq!(code(&mask), 0, "{}", stderr(&mask));
        let palette = [[0, 0, 0], [37, 91, 151], [74, 182, 46], [111, 17, 197], [148, 108, 92]];
        for x in 81..162 {
            let got = back.get_pixel(x, 20).0;
            let known =
                palette.iter().any(|color| color.iter().zip(got).all(|(a, b)| b.abs_diff(*a as u8) <= ROUNDING));
            assert!(known, "{range}, {matrix}: {got:?} is no class's colour");
        }
    }
}

/// The pipe of the README, with what y4m says about itself.
#[test]
fn a_pipe_keeps_frames_and_range() {
    if !has_ffmpeg() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (file, out) = (folder.path().join("clip.mp4"), folder.path().join("out.mp4"));
    clip(&file, 7, &[]);
    let mut decoder = Command::new("ffmpeg")
        .args(["-v", "error", "-nostdin", "-i", text(&file), "-f", "yuv4mpegpipe", "-"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut ours =
        video("-").args(["-o", "-"]).stdin(decoder.stdout.take().unwrap()).stdout(Stdio::piped()).spawn().unwrap();
    let encoder = Command::new("ffmpeg")
        .args(["-v", "error", "-i", "-", "-pix_fmt", "yuv420p", text(&out)])
        .stdin(ours.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(decoder.wait().unwrap().success() && ours.wait().unwrap().success() && encoder.success());
    assert_eq!(probe(&out, "stream=width,height,nb_read_frames"), ["96,72,7"]);
    for (said, want) in [("", "LIMITED"), (" XCOLORRANGE=FULL", "FULL")] {
        let stream = folder.path().join("in.y4m");
        let text_of = String::from_utf8_lossy(&y4m(32, 16, 0)).replace(" C420\n", &format!("{said} C420\n"));
        fs::write(&stream, [text_of.as_bytes(), &y4m(32, 16, 1)[y4m(32, 16, 0).len()..]].concat()).unwrap();
        let output = run(video(text(&stream)).args(["-o", "-"]));
        assert!(
            String::from_utf8_lossy(&output.stdout[..60]).contains(&format!("XCOLORRANGE={want}")),
            "{}",
            stderr(&output)
        );
    }
}
