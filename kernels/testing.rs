//! What the tests and benches of every kernel share: noise, comparison, maps that own their memory.

use crate::{Isa, Lanes, Layout, Map, MapMut, floats, floats_mut, pack_nchw, unpack_nchw};

/// Deterministic noise in -1 .. 1; the same seed gives the same numbers on every machine.
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

/// The greatest difference as a share of the greatest magnitude of `want`.
pub fn relative_error(got: &[f32], want: &[f32]) -> f32 {
    let greatest = want.iter().fold(f32::MIN_POSITIVE, |m, v| m.max(v.abs()));
    got.iter().zip(want).fold(0.0, |e: f32, (a, b)| if (a - b).is_nan() { f32::INFINITY } else { e.max((a - b).abs()) }) / greatest
}

/// Panics unless both are equally long and `max |got - want| <= tolerance * max |want|`.
#[track_caller]
pub fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let error = relative_error(got, want);
    assert!(error <= tolerance, "relative error {error:e} is above {tolerance:e}");
}

/// Every row of the table on every instruction set; a failure names both.
pub fn for_each<C: std::fmt::Debug>(cases: impl IntoIterator<Item = C>, mut test: impl FnMut(Isa, &C)) {
    for case in cases {
        for isa in Isa::available() {
            let named = Named(format!("{} on {case:?}", isa.name()));
            test(isa, &case);
            drop(named);
        }
    }
}

/// Says which row failed when a test panics inside it.
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
    /// Zeros everywhere.
    pub fn zeros(layout: Layout) -> Self {
        Self { data: vec![Lanes::ZERO; layout.len().div_ceil(16)], layout }
    }

    /// Filled with noise in the interior, zero in the halo and the padding lanes.
    pub fn noise(layout: Layout, seed: u64) -> Self {
        Self::from_nchw(&noise(layout.channels * layout.height * layout.width, seed), layout)
    }

    /// A map to be written: its interior is full of rubbish that a kernel must overwrite, its halo is zero.
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

    /// The plain image `[channels, height, width]` as a map.
    pub fn from_nchw(image: &[f32], layout: Layout) -> Self {
        let mut map = Self::zeros(layout);
        pack_nchw(image, map.view()).expect("the image has the layout's size");
        map
    }

    /// The plain image `[channels, height, width]`.
    pub fn to_nchw(&self) -> Vec<f32> {
        let mut image = vec![0.0; self.layout.channels * self.layout.height * self.layout.width];
        unpack_nchw(self.map(), &mut image).expect("the image has the layout's size");
        image
    }

    /// To read.
    pub fn map(&self) -> Map<'_> {
        Map::new(floats(&self.data), self.layout).expect("the memory was made for the layout")
    }

    /// To write.
    pub fn view(&mut self) -> MapMut<'_> {
        MapMut::new(floats_mut(&mut self.data), self.layout).expect("the memory was made for the layout")
    }

    /// Every float, halo and padding lanes included.
    pub fn all(&self) -> &[f32] {
        &floats(&self.data)[..self.layout.len()]
    }

    /// Panics unless the halo and the padding lanes are zero.
    #[track_caller]
    pub fn assert_zero_around(&self) {
        assert!(Self::from_nchw(&self.to_nchw(), self.layout).all() == self.all(), "halo or padding lanes are not zero");
    }
}

/// Runs `kernel` on the whole map and on views split unevenly by blocks and rows; panics unless the bits agree.
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
    assert!(same, "a split view gives other bits than the whole");
    whole.assert_zero_around();
    whole
}
