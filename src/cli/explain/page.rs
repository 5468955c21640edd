//! The page of an explained photo: one file without references to others.

use std::io::{Cursor, Write};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use image::codecs::jpeg::JpegEncoder;
use rtformer::Image;
use rtformer::explain::Kind;
use rtformer::files::write_whole;
use serde::Serialize;

use super::super::html::escaped;
use super::draw::picture;
use super::report::{Explained, Report};

const PAGE: &str = include_str!("page.html");

/// The photo's quality as JPEG. The page shows it; nothing is measured on it.
const QUALITY: u8 = 90;

/// What the page's script reads.
#[derive(Serialize)]
struct Data<'a> {
    report: &'a Report,
    /// For each kind, the regions' numbers row by row as runs: number, length, number, length ….
    component: Vec<u32>,
    superpixel: Vec<u32>,
}

pub(super) fn write(path: &Path, photo: &Image, explained: &Explained<'_>, report: &Report) -> rtformer::Result<()> {
    let regions = &explained.explanation.regions;
    let runs = |kind: Kind| {
        let map = regions.map(kind);
        map.chunk_by(|a, b| a == b).flat_map(|run| [u32::from(run[0]), run.len() as u32]).collect()
    };
    let data = Data { report, component: runs(Kind::Component), superpixel: runs(Kind::Superpixel) };
    write_whole(path, |file| {
        let mut jpeg = Cursor::new(Vec::new());
        JpegEncoder::new_with_quality(&mut jpeg, QUALITY)
            .encode_image(&picture(photo))
            .map_err(std::io::Error::other)?;
        // In a script element, `<` could end the script or begin a comment.
        let json = serde_json::to_string(&data)?.replace('<', "\\u003c");
        let page = PAGE.replace("{{title}}", &escaped(&explained.photo.stem.to_string_lossy()));
        let page = page.replace("{{photo}}", &STANDARD.encode(jpeg.get_ref()));
        file.write_all(page.replace("{{data}}", &json).as_bytes())
    })
}
