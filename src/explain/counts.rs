//! The training regions as bits: which atoms hold for each, and its label. All counts that are shown come from here.

use super::atoms::Atoms;

/// A set of training regions, 64 to a word.
pub(super) type Set = Vec<u64>;

/// The training regions.
pub(super) struct Counts {
    regions: usize,
    /// For each atom, the regions for which it holds.
    holds: Vec<Set>,
    /// For each region, the stored atoms that hold for it.
    rows: Vec<Vec<u64>>,
    stored: Vec<usize>,
    labels: Vec<u16>,
}

impl Counts {
    /// `bits` has a row for each of [`Atoms::stored`], in its order, with a bit for each region, lowest bit first.
    pub(super) fn new(atoms: &Atoms, bits: &[u8], labels: Vec<u16>) -> Self {
        let regions = labels.len();
        let stored = atoms.stored();
        let mut found: Vec<Set> = vec![Set::new(); atoms.len()];
        for (&atom, row) in stored.iter().zip(bits.chunks_exact(row_bytes(regions).max(1))) {
            found[atom] = row.as_chunks().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
        }
        let every = everything(regions);
        let holds = (0..atoms.len())
            .map(|atom| {
                let (yes, no) = atoms.by_stored(atom);
                let mut set = every.clone();
                yes.iter().for_each(|&yes| set.iter_mut().zip(&found[yes]).for_each(|(word, other)| *word &= other));
                no.iter().for_each(|&no| set.iter_mut().zip(&found[no]).for_each(|(word, other)| *word &= !other));
                set
            })
            .collect();
        let words = stored.len().div_ceil(64);
        let mut rows = vec![vec![0; words]; regions];
        for (place, &atom) in stored.iter().enumerate() {
            for (region, row) in rows.iter_mut().enumerate() {
                row[place / 64] |= (found[atom][region / 64] >> (region % 64) & 1) << (place % 64);
            }
        }
        Self { regions, holds, rows, stored, labels }
    }

    /// The number of training regions.
    pub(super) fn regions(&self) -> usize {
        self.regions
    }

    /// All of them.
    pub(super) fn everything(&self) -> Set {
        everything(self.regions)
    }

    /// The number of regions of a set.
    #[expect(clippy::unused_self, reason = "a set belongs to its counts")]
    pub(super) fn count(&self, set: &Set) -> usize {
        set.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// The number of regions of a set for which an atom holds too.
    pub(super) fn count_with(&self, set: &Set, atom: usize) -> usize {
        set.iter().zip(&self.holds[atom]).map(|(a, b)| (a & b).count_ones() as usize).sum()
    }

    /// Keeps only the regions for which an atom holds.
    pub(super) fn restrict(&self, set: &mut Set, atom: usize) {
        set.iter_mut().zip(&self.holds[atom]).for_each(|(word, other)| *word &= other);
    }

    /// The number of regions of each class in a set.
    pub(super) fn by_class(&self, set: &Set, classes: usize) -> Vec<usize> {
        let mut counts = vec![0; classes];
        members(set).for_each(|region| counts[usize::from(self.labels[region])] += 1);
        counts
    }

    /// The members of a set for which the most stored atoms hold, or do not hold, as for a region; at most `wanted` of them.
    pub(super) fn nearest(&self, set: &Set, holds: &[bool], wanted: usize) -> Vec<usize> {
        let mut own = vec![0_u64; self.stored.len().div_ceil(64)];
        for (place, &atom) in self.stored.iter().enumerate() {
            own[place / 64] |= u64::from(holds[atom]) << (place % 64);
        }
        let differences =
            |region: usize| self.rows[region].iter().zip(&own).map(|(a, b)| (a ^ b).count_ones()).sum::<u32>();
        let mut near: Vec<_> = members(set).map(|region| (differences(region), region)).collect();
        near.sort_unstable();
        near.into_iter().take(wanted).map(|(_, region)| region).collect()
    }
}

/// The number of bytes of a row of bits: whole words of 64.
pub(super) fn row_bytes(regions: usize) -> usize {
    regions.div_ceil(64) * 8
}

fn everything(regions: usize) -> Set {
    let mut set = vec![u64::MAX; regions.div_ceil(64)];
    if let Some(last) = set.last_mut().filter(|_| !regions.is_multiple_of(64)) {
        *last = (1 << (regions % 64)) - 1;
    }
    set
}

fn members(set: &Set) -> impl Iterator<Item = usize> + '_ {
    set.iter().enumerate().flat_map(|(word, &bits)| {
        let next = |bits: &u64| Some(bits & (bits - 1)).filter(|rest| *rest != 0);
        let each = std::iter::successors(Some(bits).filter(|bits| *bits != 0), next);
        each.map(move |bits| 64 * word + bits.trailing_zeros() as usize)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 70 regions in two classes. Region `i` has every feature at `i % 4`, so that each quartile holds for some; it touches the
    /// class `i % 2`.
    fn counts() -> (Atoms, Counts) {
        let atoms = Atoms::new(vec!["road".into(), "car".into()], vec![[1.0, 2.0, 3.0]; Atoms::FEATURES]).unwrap();
        let mut bits = Vec::new();
        for &atom in &atoms.stored() {
            let name = atoms.name(atom);
            let holds = |i: usize| match name.rsplit_once('_') {
                Some((_, "q1")) => i % 4 >= 1,
                Some((_, "q2")) => i % 4 >= 2,
                Some((_, "q3")) => i % 4 >= 3,
                Some((_, "road")) => i.is_multiple_of(2),
                Some((_, "car")) => i % 2 == 1,
                _ => false,
            };
            let mut row = vec![0; row_bytes(70)];
            (0..70).filter(|i| holds(*i)).for_each(|i| row[i / 8] |= 1 << (i % 8));
            bits.extend(row);
        }
        let labels = (0..70).map(|i| u16::from(i >= 60)).collect();
        let counts = Counts::new(&atoms, &bits, labels);
        (atoms, counts)
    }

    #[test]
    fn counts_are_those_of_a_loop() {
        let (atoms, counts) = counts();
        let atom = |name: &str| atoms.names().position(|other| other == name).unwrap();
        let mut set = counts.everything();
        assert_eq!(counts.by_class(&set, 2), [60, 10]);
        for (name, holds) in [
            ("y_q1_to_q3", (|i| i % 4 == 1 || i % 4 == 2) as fn(usize) -> bool),
            ("y_below_q2", |i| i % 4 < 2),
            ("touches_car", |i| i % 2 == 1),
            ("at_left", |_| false),
        ] {
            assert_eq!(counts.count_with(&set, atom(name)), (0..70).filter(|i| holds(*i)).count(), "{name}");
        }
        counts.restrict(&mut set, atom("y_q1_to_q3"));
        counts.restrict(&mut set, atom("touches_car"));
        let want: Vec<_> = (0..70).filter(|i| i % 4 == 1).collect();
        assert_eq!(members(&set).collect::<Vec<_>>(), want);
        assert_eq!(
            counts.by_class(&set, 2),
            [want.iter().filter(|i| **i < 60).count(), want.iter().filter(|i| **i >= 60).count()]
        );
    }

    #[test]
    fn the_nearest_regions_share_most_atoms() {
        let (atoms, counts) = counts();
        // As region 5, whose features are all 1 and which touches cars.
        let holds: Vec<_> = atoms.names().map(|name| name.ends_with("from_q1") || name.ends_with("_car")).collect();
        assert_eq!(counts.nearest(&counts.everything(), &holds, 3), [1, 5, 9]);
        assert_eq!(counts.nearest(&vec![0; 2], &holds, 3), [0; 0]);
    }
}
