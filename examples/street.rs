//! Segments one photo and writes its mask, its overlay and the share of each class.
//!
//! `cargo run --release --example street -- tests/data/street/0016E5_07959.jpg`

use std::path::PathBuf;

use rtformer::{Device, Image, Segmenter};

fn main() -> rtformer::Result<()> {
    let path = PathBuf::from(std::env::args_os().nth(1).unwrap_or_else(|| "tests/data/street/0016E5_07959.jpg".into()));
    let segmenter = Segmenter::embedded(Device::auto())?;
    println!("{segmenter}");
    let street = Image::open(&path)?;
    let scene = segmenter.segment(&street)?;
    for class in scene.classes() {
        println!("{:5.1} %  {}", 100.0 * class.share, class.name);
    }
    scene.save_mask(path.with_extension("mask.png"))?;
    scene.save_overlay(path.with_extension("overlay.png"), &street, 0.5)?;
    println!("{}", scene.timings());
    Ok(())
}
