pub(crate) const MAX_PIXELS: usize = 14;
