//! The weights that are compiled into the library, if the Cargo feature `embedded-weights` is on.

use crate::error::Result;
use crate::weights::Weights;

/// The weights that a builder uses if no file is named.
pub(super) fn default_weights() -> Result<Weights> {
    #[cfg(feature = "embedded-weights")]
    return super::Segmenter::embedded_weights();
    #[cfg(not(feature = "embedded-weights"))]
    return Err(crate::error::Error::NoWeights);
}

#[cfg(feature = "embedded-weights")]
mod feature {
    use crate::error::Result;
    use crate::segmenter::{Device, Segmenter};
    use crate::weights::Weights;

    /// RTFormer-Slim trained on CamVid by `weights/train`. See `weights/README.md` for its licence.
    static EMBEDDED: &[u8] = include_bytes!("../../weights/rtformer-slim-camvid.safetensors");

    impl Segmenter {
        /// Opens the embedded network: RTFormer-Slim for CamVid's 11 classes of street scenes.
        ///
        /// The crate's licence does not cover these weights. Like CamVid, they are for research and evaluation.
        ///
        /// ```
        /// # use rtformer::{Device, Segmenter};
        /// let segmenter = Segmenter::embedded(Device::Cpu)?;
        /// assert_eq!((segmenter.dataset().name.as_str(), segmenter.model().num_classes()), ("camvid", 11));
        /// # Ok::<(), rtformer::Error>(())
        /// ```
        ///
        /// # Errors
        /// As [`Builder::build`](crate::Builder::build).
        pub fn embedded(device: Device) -> Result<Self> {
            Self::builder().device(device).build()
        }

        /// Opens the embedded weights as a file.
        ///
        /// ```
        /// let weights = rtformer::Segmenter::embedded_weights()?;
        /// assert_eq!(weights.dataset()?.classes.len(), 11);
        /// # Ok::<(), rtformer::Error>(())
        /// ```
        ///
        /// # Errors
        /// [`Error::Weights`](crate::Error::Weights), as [`Weights::open`].
        pub fn embedded_weights() -> Result<Weights> {
            Weights::from_static(EMBEDDED, "embedded")
        }
    }
}
