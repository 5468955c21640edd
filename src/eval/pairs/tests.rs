use super::*;

fn folder(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in files {
        let path = folder.path().join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, "").unwrap();
    }
    folder
}

fn relative(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap().to_string_lossy().replace('\\', "/")
}

#[test]
fn every_layout_is_found() {
    struct Case {
        files: &'static [&'static str],
        folders: (&'static str, &'static str),
        suffix: Option<&'static str>,
        pairs: &'static [(&'static str, &'static str)],
        alone: usize,
    }
    const CITY: &str = "i/val/ulm/ulm_0_leftImg8bit.png";
    let cases = [
        // Plain: subfolders mirror each other, the extension may differ, hidden files and other files are skipped.
        Case {
            files: &[
                "i/a.jpg",
                "i/s/b.JPEG",
                "i/.c.png",
                "i/notes.txt",
                "i/lone.png",
                "l/a.png",
                "l/s/b.png",
                "l/d.png",
            ],
            folders: ("i", "l"),
            suffix: None,
            pairs: &[("i/a.jpg", "l/a.png"), ("i/s/b.JPEG", "l/s/b.png")],
            alone: 1,
        },
        // A label in another subfolder belongs to another photo.
        Case {
            files: &["i/x/a.png", "i/y/a.png", "l/y/a.png"],
            folders: ("i", "l"),
            suffix: None,
            pairs: &[("i/y/a.png", "l/y/a.png")],
            alone: 1,
        },
        // CamVid, in two folders and in one.
        Case {
            files: &["i/p.png", "l/p_L.png"],
            folders: ("i", "l"),
            suffix: None,
            pairs: &[("i/p.png", "l/p_L.png")],
            alone: 0,
        },
        Case {
            files: &["p.png", "p_L.png"],
            folders: ("", ""),
            suffix: None,
            pairs: &[("p.png", "p_L.png")],
            alone: 0,
        },
        Case {
            files: &["p.jpg", "p.png", "q.jpg"],
            folders: ("", "."),
            suffix: None,
            pairs: &[("p.jpg", "p.png")],
            alone: 1,
        },
        // Cityscapes: train ids before label ids; colours and instances are skipped.
        Case {
            files: &[CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png", "l/val/ulm/ulm_0_gtFine_color.png"],
            folders: ("i", "l"),
            suffix: None,
            pairs: &[(CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png")],
            alone: 0,
        },
        Case {
            files: &[CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png", "l/val/ulm/ulm_0_gtFine_labelTrainIds.png"],
            folders: ("i", "l"),
            suffix: None,
            pairs: &[(CITY, "l/val/ulm/ulm_0_gtFine_labelTrainIds.png")],
            alone: 0,
        },
        // Cityscapes' root folder for both, and folders of different depth.
        Case {
            files: &[CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png", "l/val/ulm/ulm_0_gtFine_color.png"],
            folders: ("", ""),
            suffix: None,
            pairs: &[(CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png")],
            alone: 0,
        },
        Case {
            files: &[CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png"],
            folders: ("i/val/ulm", "l"),
            suffix: None,
            pairs: &[(CITY, "l/val/ulm/ulm_0_gtFine_labelIds.png")],
            alone: 0,
        },
        // Labels inside the photos' folder are not photos.
        Case {
            files: &["a.jpg", "labels/a.png"],
            folders: ("", "labels"),
            suffix: None,
            pairs: &[("a.jpg", "labels/a.png")],
            alone: 0,
        },
        // Masks that we write; `P.png` takes precedence. In one shared folder, the photo is not its own label.
        Case {
            files: &["i/a.jpg", "i/b.jpg", "l/a.mask.png", "l/a.overlay.png", "l/b.mask.png", "l/b.png"],
            folders: ("i", "l"),
            suffix: None,
            pairs: &[("i/a.jpg", "l/a.mask.png"), ("i/b.jpg", "l/b.png")],
            alone: 0,
        },
        Case {
            files: &["p.png", "p.mask.png"],
            folders: ("", ""),
            suffix: None,
            pairs: &[("p.png", "p.mask.png")],
            alone: 0,
        },
        // A suffix, with and without the file extension; files that match without the suffix are not labels.
        Case {
            files: &["i/s/a.jpg", "i/b.jpg", "l/s/a_gt.png", "l/b.png"],
            folders: ("i", "l"),
            suffix: Some("_gt.png"),
            pairs: &[("i/s/a.jpg", "l/s/a_gt.png")],
            alone: 1,
        },
        Case {
            files: &["i/a.jpg", "l/a.v1.2.png"],
            folders: ("i", "l"),
            suffix: Some(".v1.2"),
            pairs: &[("i/a.jpg", "l/a.v1.2.png")],
            alone: 0,
        },
        Case {
            files: &["a.jpg", "b.jpg", "a_mask.PNG", "b_mask.png"],
            folders: ("", ""),
            suffix: Some("_mask"),
            pairs: &[("a.jpg", "a_mask.PNG"), ("b.jpg", "b_mask.png")],
            alone: 0,
        },
        Case {
            files: &["i/ulm_0_leftImg8bit.png", "l/ulm_0_gtFine_color.png", "l/ulm_0_gtFine_labelIds.png"],
            folders: ("i", "l"),
            suffix: Some("_gtFine_color.png"),
            pairs: &[("i/ulm_0_leftImg8bit.png", "l/ulm_0_gtFine_color.png")],
            alone: 0,
        },
    ];
    for Case { files, folders: (images, labels), suffix, pairs, alone } in cases {
        let folder = folder(files);
        let root = folder.path();
        let found = find_pairs(root.join(images), root.join(labels), suffix).unwrap();
        let got: Vec<_> =
            found.pairs.iter().map(|pair| (relative(&pair.photo, root), relative(&pair.label, root))).collect();
        let want: Vec<_> = pairs.iter().map(|(p, l)| ((*p).to_owned(), (*l).to_owned())).collect();
        assert_eq!((got, found.failed.len()), (want, alone), "{files:?}: {:?}", found.failed);
    }
}

#[test]
fn labels_of_listed_photos_are_found_by_the_end_of_their_path() {
    let folder = folder(&["l/ulm/a.png", "l/b_L.png", "l/c_gt.png", "l/d.png"]);
    let labels = folder.path().join("l");
    let own = labels.join("d.png");
    let own = own.to_str().unwrap();
    let cases = [
        ("/photos/ulm/a.jpg", None, Some("ulm/a.png")), // the longest matching end
        ("bonn/a.jpg", None, None),                     // a photo of another folder
        ("./x/../b.jpg", None, Some("b_L.png")),
        ("c.jpg", None, None),
        ("c.jpg", Some("_gt.png"), Some("c_gt.png")),
        (own, None, None), // a photo is not its own label
        ("", None, None),
    ];
    for (photo, suffix, want) in cases {
        let found = find_labels([photo], &labels, suffix).unwrap();
        let got: Vec<_> = found.pairs.iter().map(|pair| relative(&pair.label, &labels)).collect();
        assert_eq!(got, want.into_iter().collect::<Vec<_>>(), "{photo}");
        assert_eq!(found.failed.len(), usize::from(want.is_none()), "{photo}");
    }
    assert!(matches!(find_labels(["a.jpg"], "none", None), Err(Error::Read { .. })));
}

#[test]
fn missing_labels_and_folders_are_named() {
    let folder = folder(&["i/a.jpg", "i/b.jpg", "l/a.png", "empty/notes.txt"]);
    let at = |name: &str| folder.path().join(name);
    let found = find_pairs(at("i"), at("l"), None).unwrap();
    let text = found.failed[0].to_string();
    assert!(text.contains("b.jpg") && text.contains("_L.png") && text.contains("_gtFine_labelIds.png"), "{text}");
    for (images, labels, count) in [("i", "empty", "none of 2"), ("empty", "l", "none of 0")] {
        let text = find_pairs(at(images), at(labels), None).unwrap_err().to_string();
        assert!(text.contains(count) && text.contains("_L.png"), "{text}");
    }
    let text = find_pairs(at("i"), at("l"), Some("_gt")).unwrap_err().to_string();
    assert!(text.contains("none of 2") && text.contains("`P_gt.png`"), "{text}");
    let text = find_pairs(at("i"), at("l"), Some("_gt.bmp")).unwrap_err().to_string();
    assert!(text.contains("`_gt.bmp`") && text.contains("`.png`"), "{text}");
    for (images, labels) in [("none", "l"), ("i", "none"), ("i/a.jpg", "l")] {
        let error = find_pairs(at(images), at(labels), None).unwrap_err();
        assert!(matches!(error, Error::Read { .. }), "{error}");
    }
}
