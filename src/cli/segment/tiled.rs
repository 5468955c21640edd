//! `--tile` and `--memory`: photos that are segmented and written strip by strip.

use std::io;
use std::path::Path;

use rtformer::pixels::render::{self, PictureWriter};
use rtformer::pixels::{Limits, RowReader};
use rtformer::{Error, Segmenter, Strip};

use super::super::console::Console;
use super::super::photos;
use super::args::{Args, Cut};
use super::emit::Emit;
use super::jobs::Job;
use super::record::Record;
use super::target::{Output, Target};

/// A photo that has not been decoded yet.
pub(super) struct Large {
    pub(super) cut: Cut,
    /// Its bytes, unless it is a file.
    pub(super) bytes: Option<Vec<u8>>,
    pub(super) record: Record,
    /// The tag of an object, or the digest of its bytes.
    pub(super) version: String,
    /// Whether it has outputs from another photo or other settings.
    pub(super) replaces: bool,
}

/// A picture that is being written.
struct Picture {
    emit: Emit,
    rows: PictureWriter<Output>,
}

/// What photos are segmented and written with.
pub(super) struct Strips<'a> {
    pub(super) args: &'a Args,
    pub(super) console: &'a Console,
    pub(super) emits: &'a [Emit],
    pub(super) segmenter: &'a Segmenter,
    /// The data set's own id of each class.
    pub(super) labels: &'a [u16],
    pub(super) target: &'a Target,
}

impl Strips<'_> {
    /// Segments a photo and writes its outputs, a strip at a time. Says first how much memory it needs. Returns the outputs' fingerprints.
    pub(super) fn segment(&self, job: &Job, large: Large) -> rtformer::Result<Vec<u128>> {
        let Large { cut, bytes, record, version, .. } = large;
        let mut decoder = self.args.photos.decoder();
        if let Cut::Within(most) = cut {
            decoder.limits = Limits { max_alloc: most, ..decoder.limits };
        }
        let mut photo = match bytes {
            Some(bytes) => RowReader::decode(bytes, &job.name, &decoder)?,
            None => RowReader::open(&job.name, &decoder)?,
        };
        let size @ (width, height) = (photo.width(), photo.height());
        let named = |error: Error| Error::Input(format!("{}: {error}", job.name.display()));
        let tiling = match cut {
            Cut::Tiles(tiling) => tiling,
            Cut::Within(most) => self.segmenter.tiling_within(width, height, photo.held(), most).map_err(named)?,
        };
        let needed = photo.held() + self.segmenter.memory_of_strips(width, height, &tiling);
        let count = tiling.count(width, height);
        let tiles = if count == 1 { "1 tile".to_owned() } else { format!("{count} tiles of at most {tiling}") };
        let megabytes = needed.div_ceil(1_000_000);
        self.console
            .note(&format!("{}: {width}x{height} in {tiles}, at most {megabytes} MB of memory", job.name.display()));

        let path = |emit: Emit| if self.args.to_stdout() { "-".into() } else { emit.path(&job.stem) };
        let mut pictures = Vec::new();
        for &emit in self.emits {
            let started = self.start(emit, &path(emit), size, &record.of(emit));
            pictures.push(Picture { emit, rows: started? });
        }
        self.segmenter.segment_strips(&mut photo, &tiling, &mut |strip| {
            for picture in &mut pictures {
                self.draw(picture, strip).map_err(Error::writing(path(picture.emit)))?;
            }
            self.console.detail(&format!(
                "{}: row {} of {height}",
                job.name.display(),
                strip.top + strip.mask.height()
            ));
            Ok(())
        })?;
        if let Some(bits) = photo.likely_depth() {
            self.console.note(&photos::dark(&job.name, bits));
        }
        let mut fingerprints = Vec::new();
        for Picture { emit, rows } in pictures {
            let path = path(emit);
            let output = rows.finish().map_err(Error::writing(&path))?;
            let replace = self.args.overwrite || self.args.resume && job.has(emit);
            let tag = self.target.finish(output, &path, replace)?.unwrap_or_default();
            fingerprints.extend(self.target.fingerprint(emit, &job.stem, &tag, &version, &record));
        }
        Ok(fingerprints)
    }

    fn start(
        &self,
        emit: Emit,
        path: &Path,
        size: (u32, u32),
        record: &Record,
    ) -> rtformer::Result<PictureWriter<Output>> {
        let out = self.target.begin(path)?;
        let (keyword, text) = record.text();
        let text = Some((keyword, text.as_str()));
        let started = match emit {
            Emit::Mask => {
                let classes = self.segmenter.model().num_classes();
                PictureWriter::mask(out, size, classes, self.segmenter.palette(), text)
            }
            Emit::Overlay => PictureWriter::rgb(out, size, text),
            _ => PictureWriter::gray(out, size, text),
        };
        started.map_err(Error::writing(path))
    }

    /// Writes the rows of a strip.
    fn draw(&self, picture: &mut Picture, strip: &Strip<'_>) -> io::Result<()> {
        let (mask, rows) = (strip.mask, &mut picture.rows);
        match picture.emit {
            Emit::Mask => rows.write_mask(mask),
            Emit::Labelid => rows.write(&render::label_ids(mask, self.labels)),
            Emit::BinaryOf(class) => {
                let id = self.args.binaries().iter().find(|(name, _)| *name == class).map(|(_, id)| *id);
                rows.write(&render::binary(mask, id.unwrap_or(mask.ignore_id())))
            }
            Emit::Overlay => {
                rows.write(&render::overlay(&strip.photo, mask, self.segmenter.palette(), self.args.alpha))
            }
            Emit::Confidence => {
                let confidence = strip.confidence.unwrap_or_default();
                rows.write(&render::confidence_picture(confidence, mask.width(), mask.height()))
            }
            // `Args::check` refuses these.
            Emit::Binary | Emit::Logits | Emit::Polygons | Emit::PolygonsCoco | Emit::Rle | Emit::Json => Ok(()),
        }
    }
}
