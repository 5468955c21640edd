//! Splits a stream of concatenated pictures, as `ffmpeg -f image2pipe` writes it, into single pictures.
//!
//! The structure of each picture tells its length: the markers of a JPEG, the chunks of a PNG, the header of a PNM or PAM
//! picture. Pictures in other formats have no such end; one of those takes the whole stream.

use std::io::Read;
use std::path::{Path, PathBuf};

use super::Limits;
use super::decode::jpeg;
use super::sniff::{self, Kind};
use crate::error::{Error, Result};
use source::{Source, Stop};

mod lengths;
mod source;

/// The maximum number of bytes between two pictures, such as the headers of a multipart stream or padding.
const LONGEST_GAP: usize = 4096;

/// The pictures of a stream, each as the bytes of one file.
///
/// - A stream yields at least one item. If it does not begin with a picture, that item is its first bytes, and
///   [`Image::decode`](super::Image::decode) says what they are.
/// - A truncated picture is yielded as it is; decoding it is an error.
/// - Other bytes after the last picture are ignored, such as the video in a motion photo.
/// - Further pictures that a JPEG lists in its index (MPO, gain maps) belong to that JPEG and are skipped.
/// - At most one picture is in memory, and at most [`Limits::max_alloc`] bytes of it.
///
/// ```
/// use rtformer::pixels::{Image, Limits, stream::Pictures};
///
/// let stream: &[u8] = b"P5 2 1 255\nabP5 1 1 255\nc";
/// let mut sizes = Vec::new();
/// for picture in Pictures::new(stream, "-", &Limits::default()) {
///     sizes.push(Image::decode(&picture?, "-", &Limits::default())?.width());
/// }
/// assert_eq!(sizes, [2, 1]);
/// # Ok::<(), rtformer::Error>(())
/// ```
///
/// # Errors
/// An item is [`Error::Read`] if the stream cannot be read, and [`Error::Image`] if a picture is longer than
/// [`Limits::max_alloc`]. Both name the stream by `name`, and no item follows.
#[derive(Debug)]
pub struct Pictures<R> {
    source: Source<R>,
    name: PathBuf,
    /// Pictures yielded so far.
    count: u64,
    /// Bytes to skip before the next picture; they belong to the last one.
    skip: u64,
    finished: bool,
}

impl<R: Read> Pictures<R> {
    /// The pictures of `reader`. Errors name the stream `name`.
    pub fn new(reader: R, name: impl AsRef<Path>, limits: &Limits) -> Self {
        let longest = usize::try_from(limits.max_alloc).unwrap_or(usize::MAX);
        Self {
            source: Source::new(reader, longest),
            name: name.as_ref().to_path_buf(),
            count: 0,
            skip: 0,
            finished: false,
        }
    }

    /// The next picture's bytes; `None` at the end of the stream.
    fn picture(&mut self) -> Result<Option<Vec<u8>>, Stop> {
        let source = &mut self.source;
        source.discard(self.skip)?;
        self.skip = 0;
        let first = self.count == 0;
        let Some((start, format)) = next_start(source, first)? else {
            self.finished = true;
            // After a picture, these bytes are junk. At the start, they are the only item.
            return Ok(first.then(|| std::mem::take(&mut source.buffer)));
        };
        source.buffer.drain(..start);
        let length = match format {
            Format::Jpeg => {
                let jpeg = lengths::jpeg(source)?;
                self.skip = jpeg.further;
                jpeg.length
            }
            Format::Png => lengths::png(source)?,
            Format::Pnm => lengths::pnm(source)?,
            Format::Other => source.everything()?,
        };
        let rest = source.buffer.split_off(length.min(source.buffer.len()));
        Ok(Some(std::mem::replace(&mut source.buffer, rest)))
    }
}

impl<R: Read> Iterator for Pictures<R> {
    type Item = Result<Vec<u8>>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let picture = self.picture();
        self.count += 1;
        self.finished |= picture.is_err();
        match picture {
            Ok(picture) => picture.map(Ok),
            Err(Stop::Read(error)) => Some(Err(Error::reading(&self.name)(error))),
            Err(Stop::TooLong) => Some(Err(Error::image(
                &self.name,
                format!(
                    "picture {} is longer than {} bytes; scale it down first (the rest of the stream was not read)",
                    self.count,
                    self.source.longest()
                ),
            ))),
        }
    }
}

/// The formats that differ in how the length of a picture is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Jpeg,
    Png,
    Pnm,
    /// A picture that takes the whole stream.
    Other,
}

/// The offset of the next picture in the buffer, and its format.
///
/// Directly after the last picture, a signature is enough. After other bytes, a JPEG needs a plausible first segment, and a
/// PNM may follow only white space, so that junk is not mistaken for a picture.
fn next_start<R: Read>(source: &mut Source<R>, first: bool) -> Result<Option<(usize, Format)>, Stop> {
    source.has(12)?; // enough for every signature
    if let Some(format) = starts_with_picture(&source.buffer) {
        return Ok(Some((0, format)));
    }
    if first {
        match sniff::kind(&source.buffer, Path::new("")) {
            Kind::Picture(_) => return Ok(Some((0, Format::Other))),
            Kind::Unreadable(_) => return Ok(None),
            Kind::Other(_) => {}
        }
    }
    let mut behind_space = true;
    for at in 1..LONGEST_GAP {
        source.has(at + 8)?;
        let Some((gap, rest)) = source.buffer.split_at_checked(at) else { break };
        behind_space &= gap[at - 1].is_ascii_whitespace();
        match starts_with_picture(rest) {
            Some(Format::Jpeg) if !jpeg::starts(rest) => {}
            Some(Format::Pnm) if !behind_space => {}
            Some(format) => return Ok(Some((at, format))),
            None => {}
        }
    }
    Ok(None)
}

fn starts_with_picture(bytes: &[u8]) -> Option<Format> {
    match bytes {
        [0xff, 0xd8, 0xff, ..] => Some(Format::Jpeg),
        [b'P', b'1'..=b'7', after, ..] if after.is_ascii_whitespace() || *after == b'#' => Some(Format::Pnm),
        _ if bytes.starts_with(lengths::PNG_SIGNATURE) => Some(Format::Png),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
