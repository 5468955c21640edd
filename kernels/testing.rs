//! Helpers shared by the tests and benches of all kernels: noise, comparison, and maps that own their memory.

use std::alloc::{GlobalAlloc, Layout as Allocation, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::simd::{Kernel, Simd, Vector};
use crate::{Isa, Lanes, Layout, Map, MapMut, floats, floats_mut, pack_nchw, unpack_nchw};

/// Deterministic noise in -1 .. 1. The same seed gives the same numbers on every machine.
pub fn noise(len: usize, seed: u64) -> Vec<f32> {
    // SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): its top 24 bits as a float.
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    };
    (0..len).map(|_| (next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0).collect()
}

/// The largest difference divided by the largest magnitude of `want`.
pub fn relative_error(got: &[f32], want: &[f32]) -> f32 {
    let greatest = want.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    got.iter().zip(want).fold(0.0, |e: f32, (a, b)| if (a - b).is_nan() { f32::INFINITY } else { e.max((a - b).abs()) })
        / greatest
}

/// Panics unless both have the same length and `max |got - want| <= tolerance * max |want|`.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let error = relative_error(got, want);
    assert!(error <= tolerance, "relative error {error:e} is above {tolerance:e}");
}

/// Runs `rounds` rounds of multiply-adds in registers only and returns the number of floating-point operations. A bench
/// runs it beside a kernel to get the limit for comparison.
pub fn fma_peak(isa: Isa, rounds: usize) -> u64 {
    // Twelve registers of sums on AVX2 and fourteen on AVX-512 hide the latency of two FMA units.
    let chains = if isa.name() == "avx512" { 14 } else { 6 };
    isa.run(FmaPeak { rounds });
    (rounds * chains * 16 * 2) as u64
}

struct FmaPeak {
    rounds: usize,
}

impl Vector for FmaPeak {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        // SAFETY: the caller guarantees the instructions.
        unsafe { if S::TILE_BLOCKS == 2 { fma_chains::<S, 14>(self.rounds) } else { fma_chains::<S, 6>(self.rounds) } }
    }
}

impl Kernel for FmaPeak {
    fn scalar(self) {
        let (factor, addend) = (black_box(0.999), black_box(0.001));
        let mut sums: [f32; 96] = std::array::from_fn(|i| i as f32);
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = *sum * factor + addend;
            }
        }
        black_box(sums);
    }
}

/// # Safety
/// The CPU supports the instructions of `S`.
#[inline(always)]
unsafe fn fma_chains<S: Simd, const CHAINS: usize>(rounds: usize) {
    // SAFETY: arithmetic in registers, and a store into an array of sixteen floats.
    unsafe {
        let (factor, addend) = (S::splat(black_box(0.999)), S::splat(black_box(0.001)));
        let mut sums = [S::splat(0.0); CHAINS];
        for i in 0..CHAINS {
            sums[i] = S::splat(i as f32); // all different, otherwise the compiler merges them into one
        }
        for _ in 0..rounds {
            for i in 0..CHAINS {
                sums[i] = sums[i].fma(factor, addend);
            }
        }
        let mut lanes = [0.0; 16];
        for sum in sums {
            sum.store(lanes.as_mut_ptr());
            black_box(lanes);
        }
    }
}

/// The system allocator, which also counts the allocations of all threads.
#[derive(Debug, Default)]
pub struct CountingAllocator(AtomicUsize);

impl CountingAllocator {
    /// An allocator to use as a program's `#[global_allocator]`.
    pub const fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// The number of allocations so far; deallocations do not count.
    pub fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    fn one_more(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

// SAFETY: every method forwards to the system allocator with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Allocation) -> *mut u8 {
        self.one_more();
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Allocation) -> *mut u8 {
        self.one_more();
        // SAFETY: the caller's contract.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Allocation, len: usize) -> *mut u8 {
        self.one_more();
        // SAFETY: the caller's contract; `at` came from the system allocator.
        unsafe { System.realloc(at, layout, len) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Allocation) {
        // SAFETY: the caller's contract; `at` came from the system allocator.
        unsafe { System.dealloc(at, layout) }
    }
}

/// How many rows of a table run under Miri. Miri is thousands of times slower, and tables start with their small rows.
const ROWS_UNDER_MIRI: usize = 3;

/// Runs `test` for every row of the table on every instruction set. A failure names both.
pub fn for_each<C: std::fmt::Debug>(cases: impl IntoIterator<Item = C>, mut test: impl FnMut(Isa, &C)) {
    let rows = if cfg!(miri) { ROWS_UNDER_MIRI } else { usize::MAX };
    for case in cases.into_iter().take(rows) {
        for isa in Isa::available() {
            let named = Named(format!("{} on {case:?}", isa.name()));
            test(isa, &case);
            drop(named);
        }
    }
}

/// Reports the failed row if a test panics.
struct Named(String);

impl Drop for Named {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed: {}", self.0);
        }
    }
}

/// A map that owns its memory.
#[derive(Clone, Debug)]
pub struct Owned {
    data: Vec<Lanes>,
    layout: Layout,
}

impl Owned {
    /// A map of zeros.
    pub fn zeros(layout: Layout) -> Self {
        Self { data: vec![Lanes::ZERO; layout.len().div_ceil(16)], layout }
    }

    /// A map with noise in the interior and zeros in the halo and the padding lanes.
    pub fn noise(layout: Layout, seed: u64) -> Self {
        Self::from_nchw(&noise(layout.channels * layout.height * layout.width, seed), layout)
    }

    /// An output map. Its interior is filled with garbage that a kernel must overwrite; its halo is zero.
    pub fn rubbish(layout: Layout) -> Self {
        let mut map = Self::zeros(layout);
        let mut view = map.view();
        for block in view.blocks() {
            for row in view.rows() {
                view.row_mut(block, row).fill(1e6);
            }
        }
        map
    }

    /// A map of the plain image `[channels, height, width]`.
    pub fn from_nchw(image: &[f32], layout: Layout) -> Self {
        let mut map = Self::zeros(layout);
        pack_nchw(image, map.view()).expect("the image matches the layout");
        map
    }

    /// The plain image `[channels, height, width]`.
    pub fn to_nchw(&self) -> Vec<f32> {
        let mut image = vec![0.0; self.layout.channels * self.layout.height * self.layout.width];
        unpack_nchw(self.map(), &mut image).expect("the image matches the layout");
        image
    }

    /// The map, read-only.
    pub fn map(&self) -> Map<'_> {
        Map::new(floats(&self.data), self.layout).expect("the memory matches the layout")
    }

    /// The map, writable.
    pub fn view(&mut self) -> MapMut<'_> {
        MapMut::new(floats_mut(&mut self.data), self.layout).expect("the memory matches the layout")
    }

    /// All floats, including the halo and the padding lanes.
    pub fn all(&self) -> &[f32] {
        &floats(&self.data)[..self.layout.len()]
    }

    /// Panics unless the halo and the padding lanes are zero.
    #[track_caller]
    pub fn assert_zero_around(&self) {
        assert!(
            Self::from_nchw(&self.to_nchw(), self.layout).all() == self.all(),
            "halo or padding lanes are not zero"
        );
    }
}

/// Runs `kernel` on the whole map and on views split unevenly by blocks and rows. Panics unless all bits are equal.
#[track_caller]
pub fn whole_and_split(layout: Layout, mut kernel: impl FnMut(MapMut)) -> Owned {
    let mut whole = Owned::rubbish(layout);
    kernel(whole.view());
    let mut split = Owned::rubbish(layout);
    let (top, bottom) = split.view().split_rows(layout.height.div_ceil(3));
    for view in [top, bottom] {
        let (first, rest) = view.split_blocks(1);
        kernel(first);
        kernel(rest);
    }
    let same = whole.all().iter().zip(split.all()).all(|(a, b)| a.to_bits() == b.to_bits());
    assert!(same, "a split view and the whole map give different bits");
    whole.assert_zero_around();
    whole
}
