//! Explains predictions with logic rules over regions.
//!
//! A region of the mask gets a rule of up to four conditions that hold for it, such as "touches road, height 2 to 6 % of the frame", and
//! the rule says how many of the training regions that match it are of which class. These numbers are counts.
//!
//! The conditions ([`Atoms`]) are defined here once. `rtformer explain --emit table` writes them for training, which
//! `weights/train/explain.py` does.
//!
//! Source of the method: Lee et al., "Self-explaining deep models with logic rule reasoning", arXiv:2210.07024.

mod atoms;
mod components;
mod counts;
mod explainer;
mod features;
mod generator;
mod likelihood;
mod planes;
mod pool;
mod regions;
mod superpixels;
mod table;

pub use atoms::Atoms;
pub use explainer::{Explainer, Explanation, MOST_ATOMS, Rule};
pub use regions::{FEWEST_PIXELS, Kind, Region, Regions};
pub use table::Table;
