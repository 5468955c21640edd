//! What is made of each photo while it is in memory: pictures of its errors, and those for the report.

use rtformer::eval::{Measured, Pair};
use rtformer::pixels::Palette;

use super::super::console::Console;
use super::Args;
use super::detail::WORST;
use super::errors::Errors;
use super::report::Worst;

pub(super) struct Pictures<'a> {
    errors: Option<Errors>,
    worst: Option<Worst>,
    palette: &'a Palette,
    failed: usize,
}

impl<'a> Pictures<'a> {
    /// The pictures that the flags ask for.
    ///
    /// # Errors
    /// As [`Errors::new`].
    pub(super) fn new(args: &Args, palette: &'a Palette, pairs: &[Pair]) -> anyhow::Result<Self> {
        let folder = args.detail.save_errors.as_deref();
        let errors = folder.map(|folder| Errors::new(folder, pairs, args.overwrite)).transpose()?;
        let worst = args.detail.report.as_ref().map(|_| Worst::new(args.detail.worst.unwrap_or(WORST)));
        Ok(Self { errors, worst, palette, failed: 0 })
    }

    /// Makes the pictures of a photo. A picture that fails is reported and counted.
    pub(super) fn see(&mut self, pair: &Pair, measured: &Measured<'_>, console: &Console) {
        let saved = self.errors.as_ref().map_or(Ok(()), |errors| errors.save(pair, measured));
        let kept = self.worst.as_mut().map_or(Ok(()), |worst| worst.see(pair, measured, self.palette));
        for error in [saved, kept].into_iter().filter_map(Result::err) {
            console.error(&error.to_string());
            self.failed += 1;
        }
    }

    /// The number of pictures that failed.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    /// The photos for the report, if there is one.
    pub(super) fn worst(&self) -> Option<&Worst> {
        self.worst.as_ref()
    }
}
