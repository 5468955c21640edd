//! The meaning of each colour in a label image.

use std::collections::HashMap;

use crate::eval::Confusion;
use crate::weights::Dataset;

pub(super) type Rgb = [u8; 3];

/// The meaning of a colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    Class(u16),
    Ignored,
    /// Two classes have this colour, so it does not identify a class.
    Shared(u16, u16),
    Unknown,
}

/// The colours that have a meaning in a data set.
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
    /// For the first colour that is neither a class nor ignored, or that more than one class has.
    pub(super) fn read(&self, pixels: impl Iterator<Item = Rgb>, width: usize) -> Result<Vec<u16>, String> {
        let mut last = None; // neighbours mostly have the same colour, so a run needs one look-up
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
