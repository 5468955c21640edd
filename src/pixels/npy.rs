//! NumPy's file format, version 1.0.
//!
//! Source: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>.

use std::io::{self, Write};
use std::path::Path;

use crate::error::Result;
use crate::files::write_whole;

/// Writes numbers as a NumPy file: little-endian f32 in C order.
///
/// ```
/// # let folder = tempfile::tempdir()?;
/// let path = folder.path().join("street.logits.npy");
/// rtformer::pixels::render::write_npy(&path, &[0.5; 12], [3, 2, 2])?;
/// assert!(rtformer::pixels::render::write_npy(&path, &[0.5; 12], [3, 2, 3]).is_err(), "18 numbers are needed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
/// [`Error::Write`](crate::error::Error::Write) with the path, also if `data` does not have the length of `shape`.
pub fn write_npy(path: impl AsRef<Path>, data: &[f32], shape: [usize; 3]) -> Result<()> {
    write_whole(path.as_ref(), |file| write_npy_to(file, data, shape))
}

/// Writes numbers as [`write_npy`] does, into `out`.
///
/// ```
/// let mut file = Vec::new();
/// rtformer::pixels::render::write_npy_to(&mut file, &[0.5; 12], [3, 2, 2])?;
/// assert_eq!(file.len(), 128 + 4 * 12);
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The writer's, or one that says that `data` is not as long as its shape says.
pub fn write_npy_to(mut out: impl Write, data: &[f32], shape: [usize; 3]) -> io::Result<()> {
    let numbers = shape.iter().try_fold(1usize, |product, &side| product.checked_mul(side));
    if numbers != Some(data.len()) {
        return Err(io::Error::other(format!("{} numbers do not fill an array of shape {shape:?}", data.len())));
    }
    let [a, b, c] = shape;
    out.write_all(&header("<f4", &format!("{a}, {b}, {c}")))?;
    data.iter().try_for_each(|number| out.write_all(&number.to_le_bytes()))
}

/// Writes an array of bytes, which may follow another array in one file: NumPy's `load` reads one after the other.
///
/// ```
/// let mut file = Vec::new();
/// rtformer::pixels::render::write_npy_bytes(&mut file, b"text")?;
/// assert!(file.starts_with(b"\x93NUMPY") && file.ends_with(b"\ntext"));
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// The writer's.
pub fn write_npy_bytes(mut out: impl Write, data: &[u8]) -> io::Result<()> {
    out.write_all(&header("|u1", &format!("{},", data.len())))?;
    out.write_all(data)
}

/// Magic, version, the length of the rest, and a Python dictionary, padded with spaces to a multiple of 64 bytes.
fn header(descr: &str, shape: &str) -> Vec<u8> {
    let mut header = b"\x93NUMPY\x01\x00\0\0".to_vec();
    header.extend(format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}").into_bytes());
    header.resize((header.len() + 1).next_multiple_of(64) - 1, b' ');
    header.push(b'\n');
    let rest = (header.len() - 10) as u16; // at most 118 bytes and 3 times 20 digits
    header[8..10].copy_from_slice(&rest.to_le_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_numpys_byte_for_byte() {
        // numpy.save of an array of this shape, NumPy 1.26.4
        let known = b"\x93NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (11, 360, 480), }";
        assert_eq!(header("<f4", "11, 360, 480"), [&known[..], &[b' '; 50], b"\n"].concat());
    }

    #[test]
    fn numbers_start_at_a_multiple_of_64() {
        let largest = usize::MAX.to_string();
        for shape in ["0, 0, 0", "1, 10, 100", "7,", &format!("{largest}, {largest}, {largest}")] {
            let header = header("<f4", shape);
            let rest = usize::from(u16::from_le_bytes([header[8], header[9]]));
            assert_eq!((header.len() % 64, 10 + rest, header.last()), (0, header.len(), Some(&b'\n')), "{shape:?}");
        }
    }
}
