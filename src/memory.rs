//! Allocations whose size depends on an input: they return an error instead of ending the program.

use crate::error::{Error, Result};

/// An empty vector with capacity for `len` items.
///
/// # Errors
/// As [`resize`].
pub(crate) fn room<T>(len: usize, what: impl FnOnce() -> String) -> Result<Vec<T>> {
    let mut items = Vec::new();
    match items.try_reserve_exact(len) {
        Ok(()) => Ok(items),
        Err(_) => Err(Error::OutOfMemory { what: what(), bytes: len.saturating_mul(size_of::<T>()) }),
    }
}

/// Changes the length of `items` to `len`; new items are `value`.
///
/// # Errors
/// [`Error::OutOfMemory`], which says what the memory is for; `items` is then unchanged.
pub(crate) fn resize<T: Clone>(items: &mut Vec<T>, len: usize, value: T, what: impl FnOnce() -> String) -> Result<()> {
    if items.try_reserve_exact(len.saturating_sub(items.len())).is_err() {
        return Err(Error::OutOfMemory { what: what(), bytes: len.saturating_mul(size_of::<T>()) });
    }
    items.resize(len, value);
    Ok(())
}

/// A vector of `len` times `value`.
///
/// # Errors
/// As [`resize`].
pub(crate) fn filled<T: Clone>(len: usize, value: T, what: impl FnOnce() -> String) -> Result<Vec<T>> {
    let mut items = Vec::new();
    resize(&mut items, len, value, what)?;
    Ok(items)
}

/// `Ok` if `bytes` can be allocated now. Call it before code that ends the program if its own allocation fails.
///
/// # Errors
/// As [`resize`].
pub(crate) fn probe(bytes: usize, what: impl FnOnce() -> String) -> Result<()> {
    room::<u8>(bytes, what).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_allocation_is_an_error_with_the_needed_size() {
        let mut items = vec![7_u32; 3];
        let error = resize(&mut items, usize::MAX / 8, 0, || "a mask of 9x9 pixels".into()).unwrap_err();
        assert!(matches!(&error, Error::OutOfMemory { bytes, .. } if *bytes == usize::MAX / 8 * 4), "{error}");
        assert!(error.to_string().starts_with("out of memory: a mask of 9x9 pixels needs "), "{error}");
        assert_eq!(items, [7; 3]);
        resize(&mut items, 5, 1, String::new).unwrap();
        assert_eq!(items, [7, 7, 7, 1, 1]);
        assert_eq!(filled(2, 0.5_f32, String::new).unwrap(), [0.5; 2]);
        assert!(probe(1000, String::new).is_ok() && probe(usize::MAX / 4, String::new).is_err());
    }
}
