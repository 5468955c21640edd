//! The rings of random masks, and simplified rings.

use super::*;

fn noise(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    *seed >> 33
}

/// Pixels inside rings, by the even-odd rule at their centres: an independent way to fill.
fn filled(rings: &[&[Corner]], width: u32, height: u32) -> Vec<bool> {
    let centre = |x: u32, y: u32| (f64::from(x) + 0.5, f64::from(y) + 0.5);
    let hit = |x, y| {
        let (px, py) = centre(x, y);
        let crossed = rings.iter().flat_map(|ring| ring.iter().zip(ring.iter().cycle().skip(1))).filter(|(a, b)| {
            let ((ax, ay), (bx, by)) = ((f64::from(a.0), f64::from(a.1)), (f64::from(b.0), f64::from(b.1)));
            (ay > py) != (by > py) && px > (bx - ax) * (py - ay) / (by - ay) + ax
        });
        crossed.count() % 2 == 1
    };
    (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).map(|(x, y)| hit(x, y)).collect()
}

#[test]
fn areas_cover_exactly_the_pixels() {
    let mut seed = 7;
    for case in 0..300 {
        let (width, height) = (1 + noise(&mut seed) as u32 % 9, 1 + noise(&mut seed) as u32 % 9);
        let share = noise(&mut seed) % 10;
        let pixels: Vec<bool> = (0..width * height).map(|_| noise(&mut seed) % 10 < share).collect();
        let set = |x: i32, y: i32| pixels[(y as u32 * width + x as u32) as usize];
        let areas = trace(width, height, set);
        let rings: Vec<&[Corner]> =
            areas.iter().flat_map(|area| area.holes.iter().chain([&area.outline])).map(Vec::as_slice).collect();
        assert_eq!(filled(&rings, width, height), pixels, "{case}: {areas:?}");
        for area in &areas {
            assert!(doubled(&area.outline) > 0 && area.holes.iter().all(|hole| doubled(hole) < 0));
            let own: Vec<&[Corner]> = area.holes.iter().chain([&area.outline]).map(Vec::as_slice).collect();
            let ring = slit(&area.outline, &area.holes);
            assert_eq!(filled(&[&ring], width, height), filled(&own, width, height), "{case}: {ring:?}");
        }
        // Connected by their sides: a flood fill finds as many.
        assert_eq!(areas.len(), flood(width, height, &pixels), "{case}");
    }
}

fn flood(width: u32, height: u32, pixels: &[bool]) -> usize {
    let (w, h) = (width as i32, height as i32);
    let mut seen = vec![false; pixels.len()];
    let mut count = 0;
    for start in 0..pixels.len() {
        if !pixels[start] || seen[start] {
            continue;
        }
        count += 1;
        let mut todo = vec![start];
        seen[start] = true;
        while let Some(at) = todo.pop() {
            let (x, y) = (at as i32 % w, at as i32 / w);
            for (x, y) in [(x + 1, y), (x - 1, y), (x, y + 1), (x, y - 1)] {
                let next = (y * w + x) as usize;
                if x >= 0 && y >= 0 && x < w && y < h && pixels[next] && !seen[next] {
                    seen[next] = true;
                    todo.push(next);
                }
            }
        }
    }
    count
}

#[test]
fn simplified_rings_stay_within_the_tolerance() {
    // A staircase along a diagonal, and back along two straight sides.
    let mut ring: Vec<Corner> = (0..40).flat_map(|i| [(i, i), (i + 1, i)]).collect();
    ring.extend([(40, 40), (0, 40)]);
    for tolerance in [0.0, 0.5, 0.75, 2.0] {
        let got = simplified(&ring, tolerance);
        for corner in &ring {
            let near =
                got.iter().zip(got.iter().cycle().skip(1)).map(|(a, b)| off(*corner, *a, *b)).fold(f64::MAX, f64::min);
            assert!(near <= tolerance, "{tolerance}: {corner:?} is {near} away");
        }
        assert_eq!(got.len() < 8, tolerance > 0.71, "{tolerance}: {got:?}");
    }
}

/// The masks and texts of `tests/data/golden/coco.json`, which pycocotools encoded.
#[test]
fn run_lengths_equal_those_of_pycocotools() {
    #[derive(serde::Deserialize)]
    struct Case {
        width: u32,
        height: u32,
        ids: String,
        counts: String,
    }
    let text = std::fs::read_to_string("tests/data/golden/coco.json").unwrap();
    let cases: Vec<Case> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 20);
    for Case { width, height, ids, counts } in cases {
        let ids = ids.bytes().map(|id| id - b'0').collect::<Vec<_>>();
        let mask = Mask::from_ids(width, height, 5, ids).unwrap();
        let runs = run_lengths(&mask, 1);
        assert_eq!(super::counts(&runs), counts, "{width}x{height}: {runs:?}");
        assert_eq!(runs.iter().sum::<u32>(), width * height);
    }
}
