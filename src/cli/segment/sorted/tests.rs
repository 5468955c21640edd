use std::collections::{BTreeMap, BTreeSet};

use super::super::super::objects::fake::Fake;
use super::*;

fn keys<'a>(prefix: &str, names: impl IntoIterator<Item = &'a str>) -> BTreeSet<String> {
    names.into_iter().map(|name| format!("{prefix}/{name}")).collect()
}

fn url(text: &str) -> Url {
    Url::parse(Path::new(text)).unwrap()
}

fn sorted(store: Fake, local: &[&str], compared: bool) -> (Sorted, Arc<PassedOver>) {
    let store: Arc<dyn Store> = Arc::new(store);
    let place = |name: &&str| Input { path: name.into(), place: name.into(), stream: false, url: None };
    let counts = Arc::default();
    let out = url("s3://b/out");
    let compared = compared.then(|| (Arc::clone(&store), vec![Emit::Mask, Emit::Overlay]));
    let prefixes = vec![(url("s3://b/in"), store)];
    let local = local.iter().map(place).collect();
    (Sorted::new(local, prefixes, out.to_string(), Some(&out), compared, &counts), counts)
}

/// The stems below the output prefix, by place.
fn stems(sorted: Sorted) -> Vec<(String, String)> {
    let named = |placed: Placed| {
        let stem = placed.stem.to_string_lossy().strip_prefix("s3://b/out/").unwrap().to_owned();
        (placed.input.place.to_string_lossy().into_owned(), stem)
    };
    sorted.map(|placed| named(placed.unwrap())).collect()
}

#[test]
fn listed_photos_are_named_like_files() {
    type Names<'a> = &'a [&'a str];
    type Stems<'a> = &'a [(&'a str, &'a str)];
    let cases: [(Names<'_>, Names<'_>, Stems<'_>, (usize, usize)); 6] = [
        (&["b.jpg", "a/c.png"], &[], &[("a/c.png", "a/c"), ("b.jpg", "b")], (0, 0)),
        (&["a.jpg", "a.png", "a.x.png"], &[], &[("a.jpg", "a.jpg"), ("a.png", "a.png"), ("a.x.png", "a.x")], (0, 0)),
        // Not photos: text, hidden names, outputs beside their photo or each other. A mask alone is a photo.
        (
            &["a.png", "a.mask.png", "b.mask.png", "c.mask.png", "c.json", "notes.txt", ".x/d.png", "e/.d.png"],
            &[],
            &[("a.png", "a"), ("b.mask.png", "b.mask")],
            (1, 2),
        ),
        // Merged with files. A file that is named is a photo, even if it has the name of an output.
        (
            &["a.jpg", "b.jpg"],
            &["a.jpg", "b.mask.png", "c"],
            &[("a.jpg", "a.jpg"), ("a.jpg", "a.jpg-2"), ("b.jpg", "b"), ("b.mask.png", "b.mask"), ("c", "c")],
            (0, 0),
        ),
        (&["c.png", "c-1.png"], &["c"], &[("c-1.png", "c-1"), ("c", "c"), ("c.png", "c.png")], (0, 0)),
        (&["a.heic"], &[], &[("a.heic", "a")], (0, 0)), // cannot be decoded, and is not skipped silently
    ];
    for (listed, local, want, (other, outputs)) in cases {
        let store = Fake::of(keys("in", listed.iter().copied()));
        let (sorted, counts) = sorted(store, local, false);
        let got = stems(sorted);
        let want: Vec<_> = want.iter().map(|(place, stem)| (place.to_string(), stem.to_string())).collect();
        assert_eq!(got, want, "{listed:?} {local:?}");
        let passed = (counts.other.load(Ordering::SeqCst), counts.outputs.load(Ordering::SeqCst));
        assert_eq!(passed, (other, outputs), "{listed:?}");
    }
}

/// Random names of few letters and many dots, so that all kinds of groups occur.
#[test]
fn groups_agree_with_names_and_comparisons_of_all_photos_at_once() {
    let mut state = 1_u64;
    let mut random = |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    for round in 0..300 {
        let mut name = |endings: &[&str]| {
            let length = 1 + random(5);
            let letters: String = (0..length).map(|_| [".", "a", "b", "-", "k", "z"][random(6) as usize]).collect();
            let folder = ["", "", "a/", "a.b/", "z/"][random(5) as usize];
            let name = letters.trim_start_matches('.');
            format!(
                "{folder}{}{}",
                if name.is_empty() { "n" } else { name },
                endings[random(endings.len() as u64) as usize]
            )
        };
        let photos: BTreeSet<String> = (0..30).map(|_| name(&[".jpg", ".png", ".gif"])).collect();
        let outputs: BTreeSet<String> =
            (0..60).map(|_| name(&[".mask.png", ".overlay.png", ".jpg.mask.png", ".json"])).collect();
        let mut all = keys("in", photos.iter().map(String::as_str));
        all.extend(keys("out", outputs.iter().map(String::as_str)));
        let (sorted, _) = sorted(Fake::of(all), &[], true);
        let got: Vec<_> = sorted.map(Result::unwrap).collect();

        let want: BTreeMap<_, _> = {
            let places: Vec<_> = got.iter().map(|placed| placed.input.place.as_path()).collect();
            places.iter().copied().zip(super::super::super::stems::stems(Path::new("s3://b/out"), &places)).collect()
        };
        assert!(got.is_sorted_by(|a, b| a.input.place.as_os_str() <= b.input.place.as_os_str()), "round {round}");
        assert!(got.len() > 10, "round {round}: {got:?}");
        for placed in &got {
            assert_eq!(placed.stem, want[placed.input.place.as_path()], "round {round}");
            let exists =
                |emit: &Emit| outputs.contains(&emit.path(&placed.stem).to_string_lossy()["s3://b/out/".len()..]);
            let wanted: Vec<_> = [Emit::Mask, Emit::Overlay].into_iter().filter(|emit| exists(emit)).collect();
            let found: Vec<_> = placed.existing.iter().flatten().map(|output| output.emit).collect();
            assert_eq!(found, wanted, "round {round}: {}", placed.stem.display());
        }
    }
}

#[test]
fn listings_are_read_as_photos_are_needed() {
    let names: Vec<_> = (0..5000).map(|i| format!("frame.{i:06}.jpg")).collect();
    let masks: Vec<_> = (0..5000).map(|i| format!("frame.{i:06}.mask.png")).collect();
    let mut all = keys("in", names.iter().map(String::as_str));
    all.extend(keys("out", masks.iter().map(String::as_str)));
    let drawn = Arc::default();
    let (mut sorted, _) = sorted(Fake { drawn: Arc::clone(&drawn), ..Fake::of(all) }, &[], true);
    for taken in 1..=100 {
        let placed = sorted.next().unwrap().unwrap();
        assert_eq!(placed.existing.unwrap().len(), 1, "only masks exist");
        assert!(drawn.load(Ordering::SeqCst) <= 2 * taken + 4, "{taken}");
        assert!(sorted.outputs.as_ref().unwrap().held.len() <= 1 && sorted.ahead.len() <= 1);
    }
}

#[test]
fn a_group_that_is_too_large_fails_alone() {
    let names: Vec<_> = (0..=LARGEST).map(|i| format!("run.d/{i:06}.jpg")).collect();
    let all = names.iter().map(String::as_str).chain(["run.bmp", "run.z.png", "s.png"]);
    let (sorted, _) = sorted(Fake::of(keys("in", all)), &[], false);
    let (placed, failures): (Vec<_>, Vec<_>) = sorted.partition(Result::is_ok);
    let failures: Vec<_> = failures.into_iter().map(Result::unwrap_err).collect();
    assert_eq!((placed.len(), failures.len()), (LARGEST + 3, 1));
    assert!(failures[0].path.ends_with("run.bmp") && failures[0].reason.contains("`run.`"), "{failures:?}");
}

#[test]
fn a_listing_that_breaks_off_is_a_failure() {
    for (names, fails, want) in [
        (&["a.png", "b.png", "c.png"][..], Some(2), "broken"),
        (&["notes.txt"], None, "holds no images"),
        (&[], None, "holds no objects"),
    ] {
        let (sorted, _) = sorted(Fake { fails, ..Fake::of(keys("in", names.iter().copied())) }, &[], false);
        let (placed, failures): (Vec<_>, Vec<_>) = sorted.partition(Result::is_ok);
        assert_eq!((placed.len(), failures.len()), (fails.unwrap_or(0), 1), "{want}");
        let failure = failures.into_iter().next().unwrap().unwrap_err();
        assert!(failure.reason.contains(want), "{}", failure.reason);
    }
}
