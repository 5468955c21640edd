//! The outputs of a photo.

use std::cell::OnceCell;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

use rtformer::pixels::{Image, render};
use rtformer::{Error, Scene};

use super::super::legend;
use super::emit::Emit;
use super::record::{Origin, Record};
use super::shapes;

/// The state of a photo's outputs after earlier runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Outputs are missing.
    Open,
    /// Outputs were made from another photo, or with other settings.
    Replace,
    /// All outputs exist and were made from this photo with these settings.
    Done,
}

/// The state of a photo's outputs for `--resume`. `origin` reads the record of an output.
///
/// # Errors
/// [`Error::Input`] if a file has the name of an output but no record. Another program may have written it, so it is not replaced.
pub(super) fn progress(
    emits: &[Emit],
    stem: &Path,
    record: &Record,
    origin: impl Fn(Emit, &Path) -> rtformer::Result<Origin>,
) -> rtformer::Result<Progress> {
    let mut progress = Progress::Done;
    for &emit in emits {
        let path = emit.path(stem);
        progress = match origin(emit, &path)? {
            Origin::Known(found) if found == record.of(emit) => progress,
            Origin::Known(_) => Progress::Replace,
            Origin::Missing if progress == Progress::Done => Progress::Open,
            Origin::Missing => progress,
            Origin::Unknown => {
                return Err(Error::Input(format!(
                    "{}: does not say which photo it was made from, so --resume neither keeps nor replaces it; move it, or use --overwrite",
                    path.display()
                )));
            }
        };
    }
    Ok(progress)
}

/// The error for an output that exists and is not to be replaced.
pub(super) fn exists(path: &Path) -> Error {
    Error::Input(format!(
        "{}: exists already; use --resume to skip photos that are done, or --overwrite to replace their outputs",
        path.display()
    ))
}

/// Creates the folder for a photo's outputs. Fails if an output cannot be written because its name is too long or is that of a folder.
/// Called before the first output is written, so that a failure leaves no partial set.
pub(super) fn check_writable(emits: &[Emit], stem: &Path) -> rtformer::Result<()> {
    for path in emits.iter().map(|emit| emit.path(stem)) {
        let folder = path.parent().unwrap_or(Path::new(""));
        let found = fs::create_dir_all(folder).and_then(|()| fs::symlink_metadata(&path));
        let checked = match found {
            Ok(found) if found.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        checked.map_err(Error::writing(&path))?;
    }
    Ok(())
}

/// How outputs are drawn.
pub(super) struct Drawing<'a> {
    /// The data set's own id of each class.
    pub(super) labels: &'a [u16],
    /// The opacity of overlays.
    pub(super) alpha: f32,
    /// The tolerance of polygons, in pixels.
    pub(super) tolerance: f64,
    /// Whether overlays have a legend.
    pub(super) legend: bool,
    /// The id of each class with a picture of its own, by its name in file names.
    pub(super) binaries: &'a [(&'static str, u16)],
    /// The areas of the scene's classes, once an output needs them.
    pub(super) traced: OnceCell<shapes::Traced>,
}

/// Encodes one output of a scene, except JSON, including its record.
pub(super) fn encode(
    emit: Emit,
    mut out: &mut dyn Write,
    image: &Image,
    scene: &Scene,
    drawing: &Drawing<'_>,
    record: &Record,
) -> io::Result<()> {
    let mask = scene.mask();
    let (width, height) = (mask.width(), mask.height());
    let (keyword, text) = record.text();
    let text = (keyword, text.as_str());
    let traced = || drawing.traced.get_or_init(|| shapes::traced(scene));
    match emit {
        Emit::Mask => Ok(scene.to_indexed().with_text(text).write_to(out)?),
        Emit::Overlay => {
            let overlay = scene.overlay(image, drawing.alpha);
            let overlay = if drawing.legend { legend::add(&overlay, &scene.classes()) } else { overlay };
            render::write_rgb(out, &overlay, Some(text))
        }
        Emit::Labelid => render::write_gray(out, &render::label_ids(mask, drawing.labels), Some(text)),
        Emit::BinaryOf(class) => {
            let id = drawing.binaries.iter().find(|(name, _)| *name == class).map(|(_, id)| *id);
            render::write_gray(out, &render::binary(mask, id.unwrap_or(mask.ignore_id())), Some(text))
        }
        Emit::Confidence => {
            let confidence = scene.confidence().unwrap_or_default();
            render::write_gray(out, &render::confidence_picture(confidence, width, height), Some(text))
        }
        Emit::Logits => {
            let logits = scene.logits().unwrap_or_default();
            let (w, h) = (width as usize, height as usize);
            render::write_npy_to(&mut out, logits, [logits.len() / (w * h).max(1), h, w])?;
            record.append_to(out)
        }
        Emit::Polygons => write_json(out, &shapes::geojson(traced(), drawing.tolerance, record)),
        Emit::PolygonsCoco => write_json(out, &shapes::coco_polygons(scene, traced(), drawing.tolerance, record)),
        Emit::Rle => write_json(out, &shapes::coco_runs(scene, record)),
        Emit::Json | Emit::Binary => Ok(()), // the caller writes JSON, and one picture for each class
    }
}

fn write_json(out: &mut dyn Write, value: &serde_json::Value) -> io::Result<()> {
    writeln!(out, "{value}")
}
