//! A reader with a buffer of bytes that were read but not yet used.

use std::io::{ErrorKind, Read};

/// Why no more pictures can be found.
#[derive(Debug)]
pub(super) enum Stop {
    Read(std::io::Error),
    TooLong,
}

#[derive(Debug)]
pub(super) struct Source<R> {
    reader: R,
    pub(super) buffer: Vec<u8>,
    ended: bool,
    longest: usize,
}

impl<R: Read> Source<R> {
    /// `longest`: the maximum length of the buffer in bytes.
    pub(super) fn new(reader: R, longest: usize) -> Self {
        Self { reader, buffer: Vec::new(), ended: false, longest }
    }

    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// Reads until `length` bytes are buffered; false if the stream ends first. Never waits for more bytes than needed.
    pub(super) fn has(&mut self, length: usize) -> Result<bool, Stop> {
        const STEP: usize = 1 << 16;
        while self.buffer.len() < length && !self.ended {
            let before = self.buffer.len();
            if before > self.longest {
                return Err(Stop::TooLong);
            }
            self.buffer.try_reserve(STEP).map_err(|_| Stop::Read(ErrorKind::OutOfMemory.into()))?;
            self.buffer.resize(before + STEP, 0);
            let read = self.reader.read(&mut self.buffer[before..]);
            self.buffer.truncate(before + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(read) => self.ended = read == 0,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(Stop::Read(error)),
            }
        }
        Ok(self.buffer.len() >= length)
    }

    /// The byte at an offset; `None` at or after the end of the stream.
    pub(super) fn byte(&mut self, at: usize) -> Result<Option<u8>, Stop> {
        self.has(at.saturating_add(1))?;
        Ok(self.buffer.get(at).copied())
    }

    /// Reads the rest of the stream; returns the length of the buffer.
    pub(super) fn everything(&mut self) -> Result<usize, Stop> {
        while self.has(self.buffer.len() + 1)? {}
        Ok(self.buffer.len())
    }

    /// Drops the next bytes of the stream.
    pub(super) fn discard(&mut self, mut bytes: u64) -> Result<(), Stop> {
        while bytes > 0 && self.has(1)? {
            let drop = usize::try_from(bytes).unwrap_or(usize::MAX).min(self.buffer.len());
            self.buffer.drain(..drop);
            bytes -= drop as u64;
        }
        Ok(())
    }
}
