//! Memory of an emulated GPU: full of NaN until written, between guards that reveal writes outside it.

use std::cell::UnsafeCell;
use std::sync::Arc;

use crate::gpu::memories::Pooled;

/// 16-byte words before and after a buffer's memory.
const GUARD: usize = 256;
/// NaN in single and half precision. Each memory has its own, so that a value read from another memory's guard is recognisable.
const POISONS: std::ops::RangeInclusive<u16> = 0xffc0..=0xffff;

/// Memory of an emulated GPU.
pub type EmulatedBuffer = Pooled<Memory>;

/// Words of memory between guards.
#[derive(Clone)]
pub struct Memory(Arc<Words>);

/// The words, and the poison that fills them.
struct Words(Box<[UnsafeCell<u128>]>, [u8; 2]);

// SAFETY: the memory is written through a shared reference by launches and by `write`, whose callers guarantee that nobody else uses
// it meanwhile.
unsafe impl Sync for Words {}

impl Memory {
    pub(super) fn new(len: usize, number: u64) -> Self {
        let poison = (POISONS.start() + (number % POISONS.len() as u64) as u16).to_ne_bytes();
        let words = std::iter::repeat_with(|| UnsafeCell::new(0)).take(len.div_ceil(16) + 2 * GUARD).collect();
        Self(Arc::new(Words(words, poison)))
    }

    /// The first byte of its memory, aligned to 16 bytes.
    pub(super) fn start(&self) -> *mut u8 {
        self.0.0[GUARD..].as_ptr().cast_mut().cast()
    }

    /// All of its words as bytes, including guards.
    fn all(&self) -> (*mut u8, usize) {
        (self.0.0.as_ptr().cast_mut().cast(), self.0.0.len() * 16)
    }

    /// Overwrites all contents with poison.
    pub(super) fn poison(&self) {
        let (first, len) = self.all();
        // SAFETY: covers exactly its words; it was just handed out, and nobody else has it.
        let all = unsafe { std::slice::from_raw_parts_mut(first, len) };
        all.as_chunks_mut().0.fill(self.0.1);
    }

    /// Overwrites everything after the first `len` bytes with poison: in a recording, buffers of similar size share one memory in turn.
    pub(super) fn poison_behind(&self, len: usize) {
        let (first, all) = self.all();
        // SAFETY: covers exactly its words, as bytes; nothing is launched meanwhile.
        let all = unsafe { std::slice::from_raw_parts_mut(first, all) };
        let end = GUARD * 16 + len;
        if len % 2 == 1 {
            all[end] = self.0.1[1];
        }
        all.as_chunks_mut().0[end.div_ceil(2)..].fill(self.0.1);
    }

    pub(super) fn bytes(&self, len: usize) -> &[u8] {
        // SAFETY: the words between the guards hold at least as many bytes as were requested; nothing is launched meanwhile.
        unsafe { std::slice::from_raw_parts(self.start(), len) }
    }

    /// Whether nothing was written outside its first `len` bytes.
    pub(super) fn is_sound(&self, len: usize) -> bool {
        let (first, all) = self.all();
        // SAFETY: covers exactly its words, as bytes; nothing is launched meanwhile.
        let all = unsafe { std::slice::from_raw_parts(first, all) };
        let (end, pairs) = (GUARD * 16 + len, all.as_chunks().0);
        let mut guards = pairs[..GUARD * 8].iter().chain(&pairs[end.div_ceil(2)..]);
        guards.all(|pair| *pair == self.0.1) && (len.is_multiple_of(2) || all[end] == self.0.1[1])
    }
}
