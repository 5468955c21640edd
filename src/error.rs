//! The crate's errors. Each names the file and the item, and says what was found, what was expected, and what to do.

use std::path::{Path, PathBuf};

/// A `Result` with this crate's [`Error`] as the default error.
///
/// ```
/// fn width(size: &str) -> rtformer::Result<u32> {
///     Ok(size.parse::<rtformer::Size>()?.of(960, 720).0)
/// }
/// assert_eq!(width("within:480x480")?, 480);
/// assert!(width("huge").is_err());
/// # Ok::<(), rtformer::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The error type of this crate.
///
/// ```
/// use rtformer::{Device, Error, Segmenter};
///
/// let error = Segmenter::open("none.safetensors", Device::Cpu).unwrap_err();
/// assert!(matches!(&error, Error::Read { path, .. } if path.ends_with("none.safetensors")));
/// assert!(error.to_string().starts_with("none.safetensors: cannot be read: "));
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file could not be opened or read.
    #[error("{path}: cannot be read: {cause}")]
    Read {
        /// The file, or `-` for standard input.
        path: PathBuf,
        /// The system's error. It is part of the text, so it is not the `source()`, which would print it twice.
        cause: std::io::Error,
    },

    /// A file could not be written. An existing file of that name is unchanged.
    #[error("{path}: cannot be written: {cause}; {}", write_hint(cause.kind()))]
    Write {
        /// The file that was to be written, or a name for the data if the destination is a [`std::io::Write`].
        path: PathBuf,
        /// The system's error. It is part of the text, so it is not the `source()`, which would print it twice.
        cause: std::io::Error,
    },

    /// A file is not an image that can be decoded.
    #[error("{path}: {reason}")]
    Image {
        /// The file, or a name for the buffer.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// A photo could not be segmented; `cause` says why.
    #[error("{photo}: {cause}")]
    Photo {
        /// The photo's [name](crate::pixels::Pixels::name).
        photo: PathBuf,
        /// What failed. It is part of the text, so it is not the `source()`.
        cause: Box<Error>,
    },

    /// A video cannot be read or written.
    #[error("{path}: {reason}")]
    Video {
        /// The video's file or address.
        path: PathBuf,
        /// What failed, with FFmpeg's own messages if it was involved, and what to do.
        reason: String,
    },

    /// A borrowed pixel buffer is too small for its dimensions, or the dimensions are invalid.
    #[error("pixel buffer: {0}")]
    Pixels(String),

    /// A weights file or checkpoint is damaged, or the file is not one.
    #[error("{path}: {reason}")]
    Weights {
        /// The file, or a name for the embedded weights.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        reason: String,
    },

    /// No weights file was named, and this build has no embedded weights.
    #[error(
        "no weights: this build has no embedded weights; name a weights file, or enable the Cargo feature `embedded-weights`"
    )]
    NoWeights,

    /// The file lacks a tensor that the model needs.
    #[error("{path}: tensor `{name}` is missing, {model} needs it with shape {want:?}; is this another model's file?")]
    MissingTensor {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape that the model needs.
        want: Vec<usize>,
        /// A description of the model.
        model: String,
    },

    /// A tensor does not have the shape that the model needs.
    #[error("{path}: `{name}` is {got:?}, {model} needs {want:?}; is this another model's file?")]
    Shape {
        /// The weights file.
        path: PathBuf,
        /// The tensor's name.
        name: String,
        /// The shape in the file.
        got: Vec<usize>,
        /// The shape that the model needs.
        want: Vec<usize>,
        /// A description of the model.
        model: String,
    },

    /// The file holds tensors that the model does not use.
    #[error(
        "{path}: {model} does not use {count} of the tensors, the first is `{first}`; is this another model's file?"
    )]
    LeftoverTensors {
        /// The weights file.
        path: PathBuf,
        /// The number of unused tensors.
        count: usize,
        /// The name of the first of them.
        first: String,
        /// A description of the model.
        model: String,
    },

    /// A model configuration is inconsistent, or does not match the tensors.
    #[error("model configuration: {0}")]
    Config(String),

    /// An input, option or batch is invalid for the model.
    #[error("{0}")]
    Input(String),

    /// Training runs do not determine the law that was to be fitted to them; the text says what is missing.
    #[error("the runs do not determine the fit: {0}")]
    Runs(String),

    /// A device or precision is not available.
    #[error("device `{device}`: {reason}")]
    Device {
        /// The device, as requested.
        device: String,
        /// Why it is not available, and what to do.
        reason: String,
    },

    /// The device does not have enough memory.
    #[error("device `{device}`: {reason}")]
    DeviceMemory {
        /// The device, as requested.
        device: String,
        /// How much was needed, how much was free, and what to do.
        reason: String,
    },

    /// The machine does not have enough memory for data whose size depends on the input.
    #[error("out of memory: {what} needs {}; use a smaller size or batch, or free memory", binary(*bytes))]
    OutOfMemory {
        /// What the memory is for.
        what: String,
        /// The number of bytes that were needed at once.
        bytes: usize,
    },

    /// A download failed or is not allowed.
    #[error("{url}: {reason}")]
    Download {
        /// The address of the download.
        url: String,
        /// Why it failed, and what to do.
        reason: String,
    },

    /// An operation of a backend failed. This is always a bug in this crate, never a fault of the input.
    #[error("{operation}: {reason}; please report this")]
    Backend {
        /// The operation.
        operation: &'static str,
        /// The operation's error.
        reason: String,
    },
}

/// What kind of failure an [`Error`] is. Several variants share a kind; new variants get one of these kinds or a new one.
///
/// | kind | variants |
/// | --- | --- |
/// | `NotFound` | [`Error::Read`] of a file that does not exist |
/// | `Io` | [`Error::Read`] otherwise, [`Error::Write`] |
/// | `Image` | [`Error::Image`] |
/// | `Video` | [`Error::Video`] |
/// | `Weights` | [`Error::Weights`], [`Error::NoWeights`], [`Error::MissingTensor`], [`Error::Shape`], [`Error::LeftoverTensors`], [`Error::Config`] |
/// | `Input` | [`Error::Input`], [`Error::Pixels`], [`Error::Runs`] |
/// | `Device` | [`Error::Device`] |
/// | `OutOfMemory` | [`Error::OutOfMemory`], [`Error::DeviceMemory`] |
/// | `Download` | [`Error::Download`] |
/// | `Internal` | [`Error::Backend`] |
///
/// [`Error::Photo`] has the kind of its cause.
///
/// ```
/// use rtformer::pixels::Image;
/// use rtformer::{Device, ErrorKind, Segmenter};
///
/// assert_eq!(Image::open("none.jpg").unwrap_err().kind(), ErrorKind::NotFound);
/// assert_eq!(Image::open("Cargo.toml").unwrap_err().kind(), ErrorKind::Image);
/// assert_eq!(Segmenter::open("Cargo.toml", Device::Cpu).unwrap_err().kind(), ErrorKind::Weights);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A file does not exist.
    NotFound,
    /// A file cannot be read or written.
    Io,
    /// A file is not an image that can be decoded.
    Image,
    /// A video cannot be read or written.
    Video,
    /// A weights file or checkpoint is damaged, unknown or missing, or does not fit the network.
    Weights,
    /// An argument, option or pixel buffer is invalid.
    Input,
    /// A device, precision or instruction set is not available.
    Device,
    /// The machine or the device has too little memory.
    OutOfMemory,
    /// A download failed or is not allowed.
    Download,
    /// A defect of this library.
    Internal,
}

/// A number of bytes as text, in bytes or MiB.
fn binary(bytes: usize) -> String {
    if bytes < 1 << 20 { format!("{bytes} bytes") } else { format!("{} MiB", bytes.div_ceil(1 << 20)) }
}

impl Error {
    /// The kind of failure.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Read { cause, .. } if cause.kind() == std::io::ErrorKind::NotFound => ErrorKind::NotFound,
            Self::Read { .. } | Self::Write { .. } => ErrorKind::Io,
            Self::Image { .. } => ErrorKind::Image,
            Self::Video { .. } => ErrorKind::Video,
            Self::Photo { cause, .. } => cause.kind(),
            Self::Input(_) | Self::Pixels(_) | Self::Runs(_) => ErrorKind::Input,
            Self::Weights { .. }
            | Self::NoWeights
            | Self::MissingTensor { .. }
            | Self::Shape { .. }
            | Self::LeftoverTensors { .. }
            | Self::Config(_) => ErrorKind::Weights,
            Self::Device { .. } => ErrorKind::Device,
            Self::OutOfMemory { .. } | Self::DeviceMemory { .. } => ErrorKind::OutOfMemory,
            Self::Download { .. } => ErrorKind::Download,
            Self::Backend { .. } => ErrorKind::Internal,
        }
    }

    /// An [`Error::Photo`] if the photo has a name, else the error itself.
    pub(crate) fn of_photo(self, name: Option<&Path>) -> Self {
        match name {
            Some(name) => Self::Photo { photo: name.to_path_buf(), cause: Box::new(self) },
            None => self,
        }
    }

    /// An [`Error::Read`] of `path`, for `map_err`.
    ///
    /// ```
    /// # use rtformer::Error;
    /// let error = std::fs::read("none.jpg").map_err(Error::reading("none.jpg")).unwrap_err();
    /// assert!(error.to_string().starts_with("none.jpg: cannot be read: "));
    /// ```
    pub fn reading(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |cause| Self::Read { path, cause }
    }

    /// An [`Error::Write`] of `path`, for `map_err`. If the cause is itself an [`Error::Write`] without a file, its cause is kept.
    ///
    /// ```
    /// # use rtformer::Error;
    /// let full = Err::<(), _>(std::io::Error::other("the disk is full"));
    /// let error = full.map_err(Error::writing("mask.png")).unwrap_err();
    /// assert!(error.to_string().starts_with("mask.png: cannot be written: the disk is full"));
    /// ```
    pub fn writing(path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |cause| match cause.downcast::<Self>() {
            Ok(Self::Write { cause, .. }) | Err(cause) => Self::Write { path, cause },
            Ok(other) => Self::Write { path, cause: other.into() },
        }
    }

    /// An [`Error::Weights`] of `path`.
    ///
    /// ```
    /// # use rtformer::Error;
    /// assert_eq!(Error::weights("a.safetensors", "is empty").to_string(), "a.safetensors: is empty");
    /// ```
    pub fn weights(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Weights { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }

    /// An [`Error::Image`] of `path`.
    ///
    /// ```
    /// # use rtformer::Error;
    /// assert_eq!(Error::image("street.jpg", "has no pixels").to_string(), "street.jpg: has no pixels");
    /// ```
    pub fn image(path: impl AsRef<Path>, reason: impl Into<String>) -> Self {
        Self::Image { path: path.as_ref().to_path_buf(), reason: reason.into() }
    }
}

/// For functions that write and return [`std::io::Result`]. The error keeps its text; a failure to read or write keeps its kind.
///
/// ```
/// use std::io;
///
/// fn save(scene: &rtformer::Scene, mut out: impl io::Write) -> io::Result<()> {
///     scene.to_indexed().write_to(&mut out)?;
///     out.flush()
/// }
/// ```
impl From<Error> for std::io::Error {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Read { cause, .. } | Error::Write { cause, .. } => cause.kind(),
            _ => std::io::ErrorKind::Other,
        };
        Self::new(kind, error)
    }
}

/// What a user can do after a failure to write.
fn write_hint(kind: std::io::ErrorKind) -> &'static str {
    use std::io::ErrorKind::{AlreadyExists, InvalidFilename, IsADirectory, NotADirectory};
    match kind {
        InvalidFilename => "shorten the name",
        AlreadyExists | IsADirectory | NotADirectory => "another file or folder has this name, so choose another",
        _ => "check the free space and the permissions",
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn every_failure_has_a_kind() {
        let missing = || Error::reading("a")(io::ErrorKind::NotFound.into());
        let device = || Error::Device { device: "cuda:0".into(), reason: "is not there".into() };
        let cases = [
            (missing(), ErrorKind::NotFound),
            (Error::reading("a")(io::ErrorKind::PermissionDenied.into()), ErrorKind::Io),
            (Error::writing("a")(io::ErrorKind::NotFound.into()), ErrorKind::Io), // the file to write need not exist
            (Error::image("a", "b"), ErrorKind::Image),
            (Error::Video { path: "a".into(), reason: "b".into() }, ErrorKind::Video),
            (Error::weights("a", "b"), ErrorKind::Weights),
            (Error::NoWeights, ErrorKind::Weights),
            (Error::Config("a".into()), ErrorKind::Weights),
            (Error::Input("a".into()), ErrorKind::Input),
            (Error::Pixels("a".into()), ErrorKind::Input),
            (Error::Runs("a".into()), ErrorKind::Input),
            (device(), ErrorKind::Device),
            (Error::OutOfMemory { what: "a mask".into(), bytes: 1 }, ErrorKind::OutOfMemory),
            (Error::Backend { operation: "conv", reason: "a".into() }, ErrorKind::Internal),
            (device().of_photo(Some("a".as_ref())), ErrorKind::Device), // the cause's
            (missing().of_photo(None), ErrorKind::NotFound),
        ];
        for (error, want) in cases {
            assert_eq!(error.kind(), want, "{error}");
        }
    }
}
