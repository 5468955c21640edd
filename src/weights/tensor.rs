//! Tensors in memory, and the number formats in files.

use half::{bf16, f16};

/// A tensor in C order.
///
/// ```
/// use rtformer::weights::Tensor;
///
/// let kernel = Tensor { shape: vec![2, 1, 1, 1], data: vec![0.5, -0.5] };
/// assert_eq!(kernel.shape.iter().product::<usize>(), kernel.data.len());
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct Tensor {
    /// The sizes; empty for a scalar.
    pub shape: Vec<usize>,
    /// The numbers; as many as the product of the sizes.
    pub data: Vec<f32>,
}

/// The format of a stored number, little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Number {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    U8,
    I16,
    I32,
    I64,
}

impl Number {
    /// The size of one number in bytes.
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::F16 | Self::Bf16 | Self::I16 => 2,
            Self::F32 | Self::I32 => 4,
            Self::F64 | Self::I64 => 8,
        }
    }

    /// Reads every number in `bytes`.
    pub(super) fn read(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => numbers(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Self::Bf16 => numbers(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Self::F32 => numbers(bytes, f32::from_le_bytes),
            Self::F64 => numbers(bytes, |b| f64::from_le_bytes(b) as f32),
            Self::I8 => numbers(bytes, |b| f32::from(i8::from_le_bytes(b))),
            Self::U8 => numbers(bytes, |[b]| f32::from(b)),
            Self::I16 => numbers(bytes, |b| f32::from(i16::from_le_bytes(b))),
            Self::I32 => numbers(bytes, |b| i32::from_le_bytes(b) as f32),
            Self::I64 => numbers(bytes, |b| i64::from_le_bytes(b) as f32),
        }
    }
}

fn numbers<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|chunk| number(*chunk)).collect()
}

/// A view of stored numbers: element `[i, j, …]` is number `offset + i * strides[0] + j * strides[1] + …`.
pub(super) struct View {
    pub(super) number: Number,
    pub(super) offset: usize,
    pub(super) shape: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

impl View {
    /// The strides of `shape` in C order: the last index is the fastest.
    pub(super) fn c_order(shape: &[usize]) -> Vec<usize> {
        let mut strides: Vec<usize> = shape
            .iter()
            .rev()
            .scan(1_usize, |stride, size| Some(std::mem::replace(stride, stride.saturating_mul(*size))))
            .collect();
        strides.reverse();
        strides
    }

    /// The strides of `shape` in Fortran order: the first index is the fastest.
    pub(super) fn fortran_order(shape: &[usize]) -> Vec<usize> {
        shape
            .iter()
            .scan(1_usize, |stride, size| Some(std::mem::replace(stride, stride.saturating_mul(*size))))
            .collect()
    }

    /// The number of elements; `None` on overflow.
    pub(super) fn count(&self) -> Option<usize> {
        self.shape.iter().try_fold(1_usize, |product, &size| product.checked_mul(size))
    }

    /// Reads the tensor in C order; `None` if the view reaches past the end of `bytes`.
    pub(super) fn read(self, bytes: &[u8]) -> Option<Tensor> {
        let (count, width) = (self.count()?, self.number.bytes());
        if count == 0 {
            return Some(Tensor { shape: self.shape, data: Vec::new() });
        }
        let reach = self
            .shape
            .iter()
            .zip(&self.strides)
            .try_fold(self.offset, |last, (&size, &stride)| last.checked_add((size - 1).checked_mul(stride)?));
        if reach? >= bytes.len() / width {
            return None;
        }
        // The stride of an axis of size 1 does not matter.
        let in_order = Self::c_order(&self.shape);
        let contiguous = self
            .shape
            .iter()
            .zip(self.strides.iter().zip(&in_order))
            .all(|(&size, (got, want))| size == 1 || got == want);
        let data = if contiguous {
            self.number.read(&bytes[self.offset * width..(self.offset + count) * width])
        } else {
            self.number.read(&self.gathered(bytes, count))
        };
        Some(Tensor { shape: self.shape, data })
    }

    /// The bytes of all elements, in C order.
    fn gathered(&self, bytes: &[u8], count: usize) -> Vec<u8> {
        let width = self.number.bytes();
        let mut index = vec![0; self.shape.len()];
        let mut gathered = Vec::with_capacity(count * width);
        for _ in 0..count {
            let at = self.offset + index.iter().zip(&self.strides).map(|(i, stride)| i * stride).sum::<usize>();
            gathered.extend_from_slice(&bytes[at * width..][..width]);
            for axis in (0..index.len()).rev() {
                index[axis] += 1;
                if index[axis] < self.shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        gathered
    }
}

/// Rejects NaN, infinity, and variances below zero, whose square root is NaN. One such number makes every pixel wrong.
pub(super) fn check_numbers(numbers: &[f32], name: &str) -> Result<(), String> {
    let least = if name.ends_with("._variance") { 0.0 } else { f32::MIN };
    match numbers.iter().position(|number| !(least..=f32::MAX).contains(number)) {
        None => Ok(()),
        Some(index) => Err(format!(
            "tensor `{}` holds {} at index {index}; the file is damaged, or its training diverged",
            name.escape_debug(),
            numbers[index]
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_is_read() {
        let cases: [(Number, &[u8], &[f32]); 9] = [
            (Number::F16, &[0, 0x3c, 0, 0xc0], &[1.0, -2.0]),
            (Number::Bf16, &[0x80, 0x3f, 0, 0xc0], &[1.0, -2.0]),
            (Number::F32, &[0, 0, 0x80, 0x3f], &[1.0]),
            (Number::F64, &[0, 0, 0, 0, 0, 0, 0xf0, 0xbf], &[-1.0]),
            (Number::I8, &[127, 128], &[127.0, -128.0]),
            (Number::U8, &[0, 255], &[0.0, 255.0]),
            (Number::I16, &[0, 0x80], &[-32768.0]),
            (Number::I32, &[0xfe, 0xff, 0xff, 0xff], &[-2.0]),
            (Number::I64, &[7, 0, 0, 0, 0, 0, 0, 0], &[7.0]),
        ];
        for (number, bytes, want) in cases {
            assert_eq!(number.read(bytes), want, "{number:?}");
            assert_eq!(bytes.len(), want.len() * number.bytes(), "{number:?}");
        }
    }

    #[test]
    fn a_view_is_read_in_c_order() {
        let bytes: Vec<u8> = (0..12).collect();
        let view = |offset, shape: &[usize], strides: &[usize]| View {
            number: Number::U8,
            offset,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
        };
        let huge = usize::MAX / 2;
        let cases: [(View, Option<&[f32]>); 11] = [
            (view(0, &[2, 3], &[3, 1]), Some(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
            (view(4, &[2, 2], &[2, 1]), Some(&[4.0, 5.0, 6.0, 7.0])), // part of a longer storage
            (view(0, &[3, 2], &[1, 3]), Some(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0])), // transposed
            (view(1, &[2, 2], &[4, 2]), Some(&[1.0, 3.0, 5.0, 7.0])), // every second column
            (view(2, &[3], &[0]), Some(&[2.0, 2.0, 2.0])),            // expanded
            (view(3, &[1, 2], &[99, 1]), Some(&[3.0, 4.0])),          // the stride of a single row does not matter
            (view(11, &[], &[]), Some(&[11.0])),                      // a scalar
            (view(99, &[0, 2], &[2, 1]), Some(&[])),                  // an empty view is never out of bounds
            (view(8, &[2, 3], &[3, 1]), None),                        // past the end
            (view(0, &[2, 2], &[huge, huge]), None),                  // strides that overflow
            (view(12, &[], &[]), None),                               // just past the end
        ];
        for (view, want) in cases {
            let (offset, shape, strides) = (view.offset, view.shape.clone(), view.strides.clone());
            let got = view.read(&bytes).map(|tensor| tensor.data);
            assert_eq!(got.as_deref(), want, "{offset} {shape:?} {strides:?}");
        }
        assert_eq!(View::fortran_order(&[2, 3, 4]), [1, 2, 6]);
    }
}
