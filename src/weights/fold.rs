//! Convolutions with norms, and folding the norms into them.

use rtformer_kernels::ConvShape;

use crate::error::{Error, Result};

/// Batch normalization at inference: `(x - mean) / sqrt(variance + epsilon) * weight + bias` for each channel.
///
/// ```
/// use rtformer::weights::fold::BatchNorm;
///
/// let (weight, bias, mean, variance) = (vec![2.0], vec![1.0], vec![3.0], vec![4.0]);
/// let affine = BatchNorm { weight, bias, mean, variance, epsilon: 0.0 }.affine();
/// assert_eq!((affine.scale, affine.shift), (vec![1.0], vec![-2.0])); // 2 / sqrt(4), 1 - 3 * 1
/// ```
#[derive(Clone, Debug)]
pub struct BatchNorm {
    /// Scale of each channel; may be negative.
    pub weight: Vec<f32>,
    /// Shift of each channel.
    pub bias: Vec<f32>,
    /// Running mean of each channel.
    pub mean: Vec<f32>,
    /// Running variance of each channel (biased, as Paddle stores it).
    pub variance: Vec<f32>,
    /// 1e-6 in the MLPs, 1e-5 elsewhere.
    pub epsilon: f32,
}

/// `x * scale + shift` for each channel.
///
/// ```
/// use rtformer::weights::fold::Affine;
///
/// let affine = Affine { scale: vec![2.0, -1.0], shift: vec![0.5, 0.0] };
/// let norm = |c: usize, x: f32| x * affine.scale[c] + affine.shift[c];
/// assert_eq!((norm(0, 3.0), norm(1, 3.0)), (6.5, -3.0));
/// ```
#[derive(Clone, Debug)]
pub struct Affine {
    /// Factor of each channel.
    pub scale: Vec<f32>,
    /// Offset of each channel.
    pub shift: Vec<f32>,
}

impl BatchNorm {
    /// The same map as one multiply and one add, computed in f64.
    pub fn affine(&self) -> Affine {
        let scale = self.scales();
        let shift =
            self.bias.iter().zip(&self.mean).zip(&scale).map(|((&b, &m), s)| (f64::from(b) - f64::from(m) * s) as f32);
        Affine { shift: shift.collect(), scale: scale.iter().map(|&s| s as f32).collect() }
    }

    fn scales(&self) -> Vec<f64> {
        let sigma = self.variance.iter().map(|&v| (f64::from(v) + f64::from(self.epsilon)).sqrt());
        self.weight.iter().zip(sigma).map(|(&w, sigma)| f64::from(w) / sigma).collect()
    }
}

/// What happens to the input of a convolution before it.
///
/// ```
/// use rtformer::weights::fold::{BatchNorm, Before};
///
/// let (weight, bias, mean, variance) = (vec![2.0], vec![1.0], vec![3.0], vec![4.0]);
/// let before = Before { norm: BatchNorm { weight, bias, mean, variance, epsilon: 0.0 }, relu: true };
/// assert!(before.relu, "so it cannot fold into the convolution after it");
/// ```
#[derive(Clone, Debug)]
pub struct Before {
    /// The norm.
    pub norm: BatchNorm,
    /// Whether a ReLU follows the norm.
    pub relu: bool,
}

/// A convolution as stored in a checkpoint: `norm (ReLU) → conv → norm`. Both norms are optional.
///
/// ```
/// use rtformer::weights::fold::{BatchNorm, ConvLayer};
///
/// let (weight, bias, mean, variance) = (vec![2.0], vec![1.0], vec![3.0], vec![4.0]);
/// let layer = ConvLayer {
///     name: "conv1.0".into(),
///     in_channels: 1,
///     out_channels: 1,
///     kernel: 1,
///     stride: 1,
///     reads_photo: false,
///     weight: vec![5.0],
///     bias: None,
///     before: None,
///     after: Some(BatchNorm { weight, bias, mean, variance, epsilon: 0.0 }), // x - 2
/// };
/// let folded = layer.fold()?;
/// assert_eq!((layer.padding(), folded.weight, folded.bias), (0, vec![5.0], vec![-2.0]));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConvLayer {
    /// The name in the checkpoint, for profiles and errors.
    pub name: String,
    /// Input channels.
    pub in_channels: usize,
    /// Output channels.
    pub out_channels: usize,
    /// Side of the kernel: 1 or 3 pixels.
    pub kernel: usize,
    /// Stride: 1 or 2 pixels.
    pub stride: usize,
    /// Whether the input is the uploaded photo, which a backend may store in a different layout than feature maps.
    pub reads_photo: bool,
    /// `[out, in, kernel, kernel]`.
    pub weight: Vec<f32>,
    /// `[out]`.
    pub bias: Option<Vec<f32>>,
    /// The norm before the zero padding.
    pub before: Option<Before>,
    /// The norm after the bias.
    pub after: Option<BatchNorm>,
}

/// A convolution into which all possible norms are folded.
///
/// ```
/// # use rtformer::weights::fold::ConvLayer;
/// # let layer = ConvLayer {
/// #     name: "double".into(),
/// #     in_channels: 1,
/// #     out_channels: 1,
/// #     kernel: 1,
/// #     stride: 1,
/// #     reads_photo: false,
/// #     weight: vec![2.0],
/// #     bias: None,
/// #     before: None,
/// #     after: None,
/// # };
/// let folded = layer.fold()?; // one weight of 2, no norm
/// assert!(folded.prologue.is_none(), "there is no norm before it");
/// assert_eq!((folded.weight, folded.bias), (vec![2.0], vec![0.0]));
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct FoldedConv {
    /// What remains before the convolution: an affine map, and whether a ReLU follows it.
    pub prologue: Option<(Affine, bool)>,
    /// `[out, in, kernel, kernel]`.
    pub weight: Vec<f32>,
    /// `[out]`.
    pub bias: Vec<f32>,
}

impl ConvLayer {
    /// The width of the zero padding in pixels. It preserves the size at stride 1.
    pub fn padding(&self) -> usize {
        self.kernel / 2
    }

    /// The kernels' description of the convolution.
    pub(crate) fn shape(&self) -> ConvShape {
        let Self { in_channels, out_channels, kernel, stride, .. } = *self;
        ConvShape { in_channels, out_channels, kernel, stride, padding: self.padding() }
    }

    /// Folds the norm after the convolution into weight and bias, and the norm before it if that is exact.
    ///
    /// The norm before it remains as a prologue if a ReLU follows it or if the convolution pads. The zero padding is added *after* the
    /// norm, so a shift folded into the bias would be wrong along the border.
    ///
    /// ```
    /// # use rtformer::weights::fold::ConvLayer;
    /// # let layer = ConvLayer {
    /// #     name: "double".into(),
    /// #     in_channels: 1,
    /// #     out_channels: 1,
    /// #     kernel: 1,
    /// #     stride: 1,
    /// #     reads_photo: false,
    /// #     weight: vec![2.0],
    /// #     bias: None,
    /// #     before: None,
    /// #     after: None,
    /// # };
    /// assert_eq!(layer.fold()?.weight, [2.0]);
    /// let damaged = ConvLayer { in_channels: 2, ..layer };
    /// assert!(damaged.fold().is_err(), "one weight is not enough for two channels");
    /// # Ok::<(), rtformer::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Config`] if a parameter's length does not match the layer's channels, or if a folded number is not finite.
    pub fn fold(&self) -> Result<FoldedConv> {
        self.check()?;
        let taps = self.kernel * self.kernel;
        let mut weight: Vec<f64> = self.weight.iter().map(|&w| f64::from(w)).collect();
        let mut bias: Vec<f64> = match &self.bias {
            Some(bias) => bias.iter().map(|&b| f64::from(b)).collect(),
            None => vec![0.0; self.out_channels],
        };
        let mut prologue = None;
        match &self.before {
            Some(Before { norm, relu: false }) if self.padding() == 0 => {
                let scale = norm.scales();
                for (row, bias) in weight.chunks_exact_mut(self.in_channels * taps).zip(&mut bias) {
                    for (c, window) in row.chunks_exact_mut(taps).enumerate() {
                        let shift = f64::from(norm.bias[c]) - f64::from(norm.mean[c]) * scale[c];
                        *bias += shift * window.iter().sum::<f64>();
                        window.iter_mut().for_each(|w| *w *= scale[c]);
                    }
                }
            }
            Some(Before { norm, relu }) => prologue = Some((norm.affine(), *relu)),
            None => {}
        }
        if let Some(norm) = &self.after {
            let scales = norm.scales();
            for (o, row) in weight.chunks_exact_mut(self.in_channels * taps).enumerate() {
                row.iter_mut().for_each(|w| *w *= scales[o]);
                bias[o] = (bias[o] - f64::from(norm.mean[o])) * scales[o] + f64::from(norm.bias[o]);
            }
        }
        let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<_>>();
        let (weight, bias) = (narrow(weight), narrow(bias));
        if !weight.iter().chain(&bias).all(|number| number.is_finite()) {
            return Err(Error::Config(format!(
                "folding the norm into `{}` gives numbers outside the range of f32; the file is damaged, or its training diverged",
                self.name
            )));
        }
        Ok(FoldedConv { prologue, weight, bias })
    }

    fn check(&self) -> Result<()> {
        let norm_len = |norm: &BatchNorm| [norm.weight.len(), norm.bias.len(), norm.mean.len(), norm.variance.len()];
        let fits = self.weight.len() == self.out_channels * self.in_channels * self.kernel * self.kernel
            && self.bias.as_ref().is_none_or(|b| b.len() == self.out_channels)
            && self.before.as_ref().is_none_or(|b| norm_len(&b.norm) == [self.in_channels; 4])
            && self.after.as_ref().is_none_or(|n| norm_len(n) == [self.out_channels; 4]);
        if fits {
            Ok(())
        } else {
            Err(Error::Config(format!("`{}`: a parameter's length does not match its channels", self.name)))
        }
    }
}
