//! What each colour in a label image stands for.

use std::collections::HashMap;

use crate::eval::Confusion;
use crate::weights::Dataset;

pub(super) type Rgb = [u8; 3];

/// What a colour stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Class(u16),
    Ignored,
    /// Two classes have this colour: it does not say which one is meant.
    Shared(u16, u16),
    Unknown,
}

/// The colours that a data set gives a meaning to.
pub(super) struct Colors<'a> {
    dataset: &'a Dataset,
    meanings: HashMap<Rgb, Meaning>,
}

impl<'a> Colors<'a> {
    pub(super) fn new(dataset: &'a Dataset) -> Self {
        let mut meanings: HashMap<Rgb, Meaning> = HashMap::new();
        for (class, id) in dataset.classes.iter().zip(0..) {
            let shared = |first: &mut Meaning| {
                if let Meaning::Class(first_id) = *first {
                    *first = Meaning::Shared(first_id, id);
                }
            };
            meanings.entry(class.color).and_modify(shared).or_insert(Meaning::Class(id));
        }
        for (class, id) in dataset.classes.iter().zip(0..) {
            for &color in &class.colors {
                meanings.entry(color).or_insert(Meaning::Class(id));
            }
        }
        for &color in dataset.ignore_colors.iter().chain(&[[0; 3]]) {
            meanings.entry(color).or_insert(Meaning::Ignored);
        }
        Self { dataset, meanings }
    }

    pub(super) fn of(&self, color: Rgb) -> Meaning {
        self.meanings.get(&color).copied().unwrap_or(Meaning::Unknown)
    }

    pub(super) fn dataset(&self) -> &'a Dataset {
        self.dataset
    }

    /// The train id or ignore id of every pixel.
    ///
    /// # Errors
    /// For the first colour that stands for no class and is not ignored, or for more than one class.
    pub(super) fn read(&self, pixels: impl Iterator<Item = Rgb>, width: usize) -> Result<Vec<u16>, String> {
        let mut last = None; // neighbours are mostly alike: one look-up for a run of them
        let id = |(at, color): (usize, Rgb)| match last {
            Some((known, id)) if known == color => Ok(id),
            _ => {
                let id = self
                    .id(color)
                    .map_err(|wrong| format!("has colour {color:?} at ({}, {}), {wrong}", at % width, at / width))?;
                last = Some((color, id));
                Ok(id)
            }
        };
        pixels.enumerate().map(id).collect()
    }

    fn id(&self, color: Rgb) -> Result<u16, String> {
        let classes = &self.dataset.classes;
        match self.of(color) {
            Meaning::Class(id) => Ok(id),
            Meaning::Ignored => Ok(Confusion::ignore_id(classes.len())),
            Meaning::Shared(first, second) => Err(format!(
                "which is the colour of both `{}` and `{}`; save class ids as grey PNG",
                classes[usize::from(first)].name,
                classes[usize::from(second)].name
            )),
            Meaning::Unknown => Err(format!(
                "which no class of `{}` has; save class ids as grey PNG, use the classes' own colours, or list the colour under \
                 `colors` or `ignore_colors` in the data set's JSON",
                self.dataset.name
            )),
        }
    }
}
