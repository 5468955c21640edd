//! Loads the parameters of layers. Names are PaddleSeg's; shapes come from the configuration.

use crate::backend::Backend;
use crate::error::Result;
use crate::weights::Reader;
use crate::weights::fold::{BatchNorm, Before, ConvLayer};

/// A source of parameters, which are requested by name.
///
/// ```
/// use rtformer::backend::Reference;
/// use rtformer::model::{Config, Parameters, RtFormer};
///
/// struct Ones(usize);
/// impl Parameters for Ones {
///     fn take(&mut self, _name: &str, want: &[usize]) -> rtformer::Result<Vec<f32>> {
///         self.0 += 1;
///         Ok(vec![1.0; want.iter().product()])
///     }
/// }
/// let mut ones = Ones(0);
/// RtFormer::load(&Reference::folded(), &Config { base_channels: 8, ..Config::slim(19) }, &mut ones)?;
/// assert!(ones.0 > 200, "a network has more than 200 tensors");
/// # Ok::<(), rtformer::Error>(())
/// ```
pub trait Parameters {
    /// The values of the tensor `name` in C order. The tensor must have the shape `want`.
    fn take(&mut self, name: &str, want: &[usize]) -> Result<Vec<f32>>;
}

impl Parameters for Reader<'_> {
    fn take(&mut self, name: &str, want: &[usize]) -> Result<Vec<f32>> {
        Reader::take(self, name, want)
    }
}

/// Epsilon of every norm except those of the MLPs.
pub(in crate::model) const EPSILON: f32 = 1e-5;
/// Epsilon of the norms of the MLPs.
pub(in crate::model) const MLP_EPSILON: f32 = 1e-6;

/// A backend, and the parameters to load onto it.
pub(in crate::model) struct Parts<'a, B> {
    pub(in crate::model) backend: &'a B,
    pub(in crate::model) parameters: &'a mut dyn Parameters,
    /// Whether convolutions multiply in f32 on a backend that otherwise rounds products.
    pub(in crate::model) exact: bool,
}

impl<'a, B: Backend> Parts<'a, B> {
    pub(in crate::model) fn new(backend: &'a B, parameters: &'a mut dyn Parameters) -> Self {
        Self { backend, parameters, exact: false }
    }

    /// Packs a norm that does not fold into a convolution.
    pub(in crate::model) fn norm(&mut self, name: &str, channels: usize) -> Result<B::Norm> {
        let norm = self.batch_norm(name, channels, EPSILON)?;
        self.backend.pack_norm(norm)
    }

    /// Packs the convolution that `plan` describes.
    pub(in crate::model) fn conv(&mut self, plan: &Plan<'_>) -> Result<B::Conv> {
        let Plan { name, in_channels, out_channels, kernel, stride, .. } = *plan;
        let weight = if plan.bare { name.to_owned() } else { format!("{name}.weight") };
        let layer = ConvLayer {
            name: name.to_owned(),
            in_channels,
            out_channels,
            kernel,
            stride,
            reads_photo: plan.photo,
            weight: self.parameters.take(&weight, &[out_channels, in_channels, kernel, kernel])?,
            bias: if plan.bias { Some(self.parameters.take(&format!("{name}.bias"), &[out_channels])?) } else { None },
            before: match plan.before {
                Some((norm, epsilon, relu)) => {
                    Some(Before { norm: self.batch_norm(norm, in_channels, epsilon)?, relu })
                }
                None => None,
            },
            after: match plan.after {
                Some(norm) => Some(self.batch_norm(norm, out_channels, EPSILON)?),
                None => None,
            },
        };
        if self.exact { self.backend.pack_conv_exact(layer) } else { self.backend.pack_conv(layer) }
    }

    /// Packs PaddleSeg's usual `Sequential(norm, ReLU, conv)`, whose members are named `.0`, `.1` and `.2`.
    pub(in crate::model) fn norm_relu_conv(
        &mut self,
        name: &str,
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
    ) -> Result<B::Conv> {
        let (norm, conv) = (format!("{name}.0"), format!("{name}.2"));
        self.conv(&Plan::new(&conv, in_channels, out_channels, kernel).norm_relu_before(&norm))
    }

    fn batch_norm(&mut self, name: &str, channels: usize, epsilon: f32) -> Result<BatchNorm> {
        let mut take = |part: &str| self.parameters.take(&format!("{name}.{part}"), &[channels]);
        Ok(BatchNorm {
            weight: take("weight")?,
            bias: take("bias")?,
            mean: take("_mean")?,
            variance: take("_variance")?,
            epsilon,
        })
    }
}

/// A convolution: its sizes, and the checkpoint's names for its parameters.
#[derive(Clone, Copy)]
pub(in crate::model) struct Plan<'a> {
    name: &'a str,
    in_channels: usize,
    out_channels: usize,
    kernel: usize,
    stride: usize,
    bias: bool,
    /// The weight's name is `name`, not `name.weight`, as for the attention's `k` and `v`.
    bare: bool,
    photo: bool,
    before: Option<(&'a str, f32, bool)>,
    after: Option<&'a str>,
}

impl<'a> Plan<'a> {
    pub(in crate::model) fn new(name: &'a str, in_channels: usize, out_channels: usize, kernel: usize) -> Self {
        Self {
            name,
            in_channels,
            out_channels,
            kernel,
            stride: 1,
            bias: false,
            bare: false,
            photo: false,
            before: None,
            after: None,
        }
    }

    pub(in crate::model) fn stride(self, stride: usize) -> Self {
        Self { stride, ..self }
    }

    pub(in crate::model) fn bias(self) -> Self {
        Self { bias: true, ..self }
    }

    /// The input is the uploaded photo.
    pub(in crate::model) fn photo(self) -> Self {
        Self { photo: true, ..self }
    }

    pub(in crate::model) fn bare(self) -> Self {
        Self { bare: true, ..self }
    }

    pub(in crate::model) fn norm_before(self, norm: &'a str, epsilon: f32) -> Self {
        Self { before: Some((norm, epsilon, false)), ..self }
    }

    pub(in crate::model) fn norm_relu_before(self, norm: &'a str) -> Self {
        Self { before: Some((norm, EPSILON, true)), ..self }
    }

    pub(in crate::model) fn norm_after(self, norm: &'a str) -> Self {
        Self { after: Some(norm), ..self }
    }
}
