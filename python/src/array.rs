//! NumPy arrays, through Python's interfaces alone: the module depends neither on NumPy's C interface nor on its version.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyDict, PySlice, PyTuple};

/// A vector that NumPy uses in place. An array that is made from it keeps it alive as its `base`.
///
/// Rust does not read or write the values again, so NumPy is their only user.
#[pyclass(frozen, module = "rtformer._rtformer", name = "_Memory")]
pub(crate) struct Memory {
    address: usize,
    /// In NumPy's notation.
    kind: &'static str,
    shape: Vec<usize>,
    _values: Values,
}

/// The vectors that results consist of.
pub(crate) enum Values {
    U8(Vec<u8>),
    U16(Vec<u16>),
    F32(Vec<f32>),
}

impl Values {
    /// The address, the number of values, and their type in NumPy's notation.
    fn describe(&mut self) -> (usize, usize, &'static str) {
        let (u16s, f32s) = if cfg!(target_endian = "little") { ("<u2", "<f4") } else { (">u2", ">f4") };
        match self {
            Self::U8(values) => (values.as_mut_ptr().expose_provenance(), values.len(), "|u1"),
            Self::U16(values) => (values.as_mut_ptr().expose_provenance(), values.len(), u16s),
            Self::F32(values) => (values.as_mut_ptr().expose_provenance(), values.len(), f32s),
        }
    }
}

#[pymethods]
impl Memory {
    /// NumPy's array interface, version 3.
    #[getter]
    fn __array_interface__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item(intern!(py, "version"), 3)?;
        interface.set_item(intern!(py, "shape"), PyTuple::new(py, &self.shape)?)?;
        interface.set_item(intern!(py, "typestr"), self.kind)?;
        interface.set_item(intern!(py, "data"), (self.address, false))?; // `false`: may be written
        Ok(interface)
    }
}

/// The vector as an array of this shape, without a copy.
///
/// # Panics
/// If the shape does not have as many elements as the vector: NumPy would use memory that is not its own.
pub(crate) fn array<'py>(py: Python<'py>, mut values: Values, shape: &[usize]) -> PyResult<Bound<'py, PyAny>> {
    let (address, len, kind) = values.describe();
    assert_eq!(len, shape.iter().product::<usize>(), "an array of shape {shape:?}");
    let memory = Bound::new(py, Memory { address, kind, shape: shape.to_vec(), _values: values })?;
    numpy(py)?.call_method1(intern!(py, "asarray"), (memory,))
}

/// The module `numpy`.
pub(crate) fn numpy(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "numpy"))
}

/// Whether the object is a NumPy array.
pub(crate) fn is_array(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    object.is_instance(&numpy(object.py())?.getattr(intern!(object.py(), "ndarray"))?)
}

/// An array's type, such as `uint8`.
pub(crate) fn dtype(array: &Bound<'_, PyAny>) -> PyResult<String> {
    Ok(array.getattr(intern!(array.py(), "dtype"))?.str()?.to_string())
}

/// An array's shape.
pub(crate) fn shape(array: &Bound<'_, PyAny>) -> PyResult<Vec<usize>> {
    array.getattr(intern!(array.py(), "shape"))?.extract()
}

/// An array's strides in bytes.
pub(crate) fn strides(array: &Bound<'_, PyAny>) -> PyResult<Vec<isize>> {
    array.getattr(intern!(array.py(), "strides"))?.extract()
}

/// The view of an array `[height, width, channels]` with its channels in reverse order.
pub(crate) fn reversed_channels<'py>(array: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = array.py();
    let reversed = PySlice::new(py, isize::MAX, isize::MIN, -1);
    array.get_item((py.Ellipsis(), reversed))
}

/// A copy of the bytes of an array `[height, width]` or `[height, width, channels]` in row-major order, whatever its strides.
///
/// `tobytes` copies packed arrays at once, but others byte by byte. NumPy's copies between arrays are three to ten times as fast if they
/// follow the order of the memory: whole rows where the pixels of a row are packed, and otherwise one channel at a time.
pub(crate) fn bytes(array: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    let (shape, strides) = (shape(array)?, strides(array)?);
    // The step to the next element of a packed array, for each axis.
    let packed = |axis: usize| shape[axis + 1..].iter().product::<usize>() as isize;
    let is_packed = |axis: usize| strides[axis] == packed(axis) || shape[axis] == 1;
    if (0..shape.len()).all(is_packed) {
        return packed_bytes(array);
    }
    let numpy = numpy(array.py())?;
    if (1..shape.len()).all(is_packed) || shape.len() < 3 {
        return packed_bytes(&numpy.call_method1(intern!(array.py(), "ascontiguousarray"), (array,))?);
    }
    let copy = numpy.call_method1(intern!(array.py(), "empty"), (&shape, "uint8"))?;
    for channel in 0..shape[2] {
        let plane = (array.py().Ellipsis(), channel);
        copy.set_item(&plane, array.get_item(&plane)?)?;
    }
    packed_bytes(&copy)
}

fn packed_bytes(array: &Bound<'_, PyAny>) -> PyResult<PyBackedBytes> {
    Ok(array.call_method0(intern!(array.py(), "tobytes"))?.extract()?)
}
