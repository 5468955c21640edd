//! `--emit table`: the regions of all photos, for training.

use std::io::Write;
use std::path::{Path, PathBuf};

use rtformer::eval::LabelImage;
use rtformer::explain::{Atoms, Explainer, Table};
use rtformer::files::write_whole;
use rtformer::weights::Weights;
use rtformer::{Error, Image, Scene, Segmenter};
use serde::Serialize;

use super::super::console::{Console, counted};
use super::inputs::Photo;
use super::{name, refuse_existing};

/// Collects regions, and writes them at the end, because the atoms' thresholds follow from all of them.
pub(super) struct Writer {
    table: Table,
    out: PathBuf,
    classes: Vec<String>,
}

/// What `atoms.json` says about the table.
#[derive(Serialize)]
struct About<'a> {
    /// The digest of the network's tensors.
    digest: String,
    classes: &'a [String],
    regions: usize,
    /// The quartiles of each feature with thresholds.
    thresholds: Vec<(&'a str, [f32; 3])>,
    /// Whether the thresholds are those of the weights' explainer, or this table's own quartiles.
    thresholds_from: &'a str,
    atoms: Vec<Atom<'a>>,
}

#[derive(Serialize)]
struct Atom<'a> {
    atom: &'a str,
    text: String,
}

impl Writer {
    pub(super) fn new(segmenter: &Segmenter, out: &Path) -> Self {
        let classes: Vec<_> = segmenter.dataset().classes.iter().map(|class| class.name.clone()).collect();
        Self { table: Table::new(classes.clone()), out: out.to_path_buf(), classes }
    }

    /// Adds a photo's regions, and writes its superpixels: a grey picture of 16 bits with the regions' numbers.
    pub(super) fn add(
        &mut self,
        photo: &Photo,
        picture: &Image,
        scene: &Scene,
        labels: Option<&LabelImage>,
        overwrite: bool,
    ) -> anyhow::Result<()> {
        let path = photo.output(&self.out.join("superpixels"), ".png");
        refuse_existing(&path, overwrite)?;
        let superpixels = self.table.add(&name(photo), picture, scene, labels)?;
        let (width, height) = (scene.mask().width(), scene.mask().height());
        let picture = image::ImageBuffer::<image::Luma<u16>, _>::from_raw(width, height, superpixels)
            .ok_or_else(|| Error::Input("a superpixel map has another size than its photo".into()))?;
        write_whole(&path, |file| {
            let mut bytes = std::io::Cursor::new(Vec::new());
            picture.write_to(&mut bytes, image::ImageFormat::Png).map_err(std::io::Error::other)?;
            file.write_all(bytes.get_ref())
        })?;
        Ok(())
    }

    /// Writes the table, with the thresholds of the weights' explainer if they have one.
    pub(super) fn finish(self, weights: &Weights, overwrite: bool, console: &Console) -> anyhow::Result<()> {
        let explainer = match weights.metadata("explainer") {
            Some(_) => Some(Explainer::of(weights)?),
            None => None,
        };
        let thresholds = explainer.as_ref().map(|explainer| explainer.atoms().thresholds());
        let atoms = self.table.atoms(thresholds)?;
        let (csv, json) = (self.out.join("regions.csv"), self.out.join("atoms.json"));
        refuse_existing(&csv, overwrite)?;
        refuse_existing(&json, overwrite)?;
        write_whole(&csv, |file| {
            let mut writer = csv::Writer::from_writer(file);
            writer.write_record(self.table.header(&atoms))?;
            self.table.rows(&atoms).try_for_each(|row| writer.write_record(row))?;
            writer.flush()
        })?;
        let about = About {
            digest: weights.tensors_digest(),
            classes: &self.classes,
            regions: self.table.len(),
            thresholds: Atoms::features().zip(atoms.thresholds().iter().copied()).collect(),
            thresholds_from: if explainer.is_some() { "explainer" } else { "table" },
            atoms: atoms.names().enumerate().map(|(i, atom)| Atom { atom, text: atoms.text(i) }).collect(),
        };
        write_whole(&json, |file| {
            serde_json::to_writer_pretty(&mut *file, &about)?;
            file.write_all(b"\n")
        })?;
        console.note(&format!("{} -> {}", counted(self.table.len(), "region"), csv.display()));
        Ok(())
    }
}
