//! Atoms: conditions on a region's features that hold or do not hold. They are defined here and nowhere else.
//!
//! The region's own class and the network's confidence are no features, so no atom can name them.

use super::features::{EDGES, Features, NUMBERS, Number, Relation};

/// A range of a feature between two of its quartiles.
const RANGES: [(&str, Option<usize>, Option<usize>); 9] = [
    ("below_q1", None, Some(0)),
    ("below_q2", None, Some(1)),
    ("below_q3", None, Some(2)),
    ("from_q1", Some(0), None),
    ("from_q2", Some(1), None),
    ("from_q3", Some(2), None),
    ("q1_to_q2", Some(0), Some(1)),
    ("q2_to_q3", Some(1), Some(2)),
    ("q1_to_q3", Some(0), Some(2)),
];

/// A condition on the features.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    /// A feature with thresholds, and the index of a range.
    Range(usize, usize),
    /// An index in [`EDGES`].
    Edge(usize),
    /// A relation to a class.
    Relation(Relation, usize),
}

/// The atoms of a data set: their names, their thresholds, and their texts.
///
/// ```
/// use rtformer::explain::Atoms;
///
/// let atoms = Atoms::new(vec!["road".into(), "car".into()], vec![[10.0, 50.0, 90.0]; Atoms::FEATURES])?;
/// let names: Vec<_> = atoms.names().collect();
/// assert!(names.contains(&"height_q1_to_q2") && names.contains(&"touches_road"));
/// assert_eq!(atoms.text(names.iter().position(|name| *name == "y_below_q2").unwrap()), "centre below 50 % of the height");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Atoms {
    classes: Vec<String>,
    thresholds: Vec<[f32; 3]>,
    conditions: Vec<Condition>,
    names: Vec<String>,
}

impl Atoms {
    /// The number of features that have thresholds.
    pub const FEATURES: usize = NUMBERS.len();

    /// The atoms for these classes, with the quartiles of each feature in the order of [`Atoms::features`].
    ///
    /// # Errors
    /// [`Error::Input`](crate::Error::Input) if the number of thresholds is wrong, or if they are not finite and in order.
    pub fn new(classes: Vec<String>, thresholds: Vec<[f32; 3]>) -> crate::Result<Self> {
        let refuse = |reason: String| Err(crate::Error::Input(reason));
        if thresholds.len() != NUMBERS.len() {
            return refuse(format!("thresholds for {} features; expected {}", thresholds.len(), NUMBERS.len()));
        }
        let in_order = |of: &[f32; 3]| of.iter().all(|t| t.is_finite()) && of.is_sorted();
        if let Some(i) = thresholds.iter().position(|of| !in_order(of)) {
            return refuse(format!(
                "the thresholds of `{}` are {:?}; expected three numbers in order",
                NUMBERS[i].name, thresholds[i]
            ));
        }
        let ranges =
            (0..NUMBERS.len()).flat_map(|number| (0..RANGES.len()).map(move |range| Condition::Range(number, range)));
        let relations = Relation::ALL
            .into_iter()
            .flat_map(|relation| (0..classes.len()).map(move |class| Condition::Relation(relation, class)));
        let conditions: Vec<_> = ranges.chain((0..EDGES.len()).map(Condition::Edge)).chain(relations).collect();
        let name = |condition: &Condition| match *condition {
            Condition::Range(number, range) => format!("{}_{}", NUMBERS[number].name, RANGES[range].0),
            Condition::Edge(edge) => format!("at_{}", EDGES[edge]),
            Condition::Relation(relation, class) => format!("{}_{}", relation.name(), classes[class]),
        };
        let names = conditions.iter().map(name).collect();
        Ok(Self { classes, thresholds, conditions, names })
    }

    /// The number of atoms.
    pub fn len(&self) -> usize {
        self.conditions.len()
    }

    /// Whether there is none; never.
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// The names of the features that have thresholds.
    pub fn features() -> impl Iterator<Item = &'static str> {
        NUMBERS.iter().map(|number| number.name)
    }

    /// The names of the atoms, such as `height_q1_to_q2` or `touches_road`.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// The name of an atom.
    pub fn name(&self, atom: usize) -> &str {
        &self.names[atom]
    }

    /// The quartiles of each feature.
    pub fn thresholds(&self) -> &[[f32; 3]] {
        &self.thresholds
    }

    /// An atom in words, such as `height 2.1 to 6.0 % of the frame`.
    pub fn text(&self, atom: usize) -> String {
        match self.conditions[atom] {
            Condition::Range(number, range) => {
                let Number { text, unit, digits, .. } = NUMBERS[number];
                let (_, from, below) = RANGES[range];
                let of = |quartile: usize| format!("{:.digits$}", self.thresholds[number][quartile]);
                let range = match (from, below) {
                    (Some(from), Some(below)) => format!("{} to {}", of(from), of(below)),
                    (Some(from), None) => format!("at least {}", of(from)),
                    (None, Some(below)) => format!("below {}", of(below)),
                    (None, None) => String::new(),
                };
                format!("{text} {range} {unit}").trim_end().to_owned()
            }
            Condition::Edge(edge) => format!("at the {} edge of the frame", EDGES[edge]),
            Condition::Relation(relation, class) => {
                let class = &self.classes[class];
                match relation {
                    Relation::Touches => format!("touches {class}"),
                    Relation::Surrounded => format!("surrounded by {class}"),
                    Relation::Above => format!("above {class}"),
                    Relation::Below => format!("below {class}"),
                    Relation::Beside => format!("beside {class}"),
                }
            }
        }
    }

    /// Which atoms hold.
    pub(super) fn of(&self, features: &Features) -> Vec<bool> {
        let holds = |condition: &Condition| match *condition {
            Condition::Range(number, range) => {
                let (value, thresholds) = (features.numbers[number], self.thresholds[number]);
                let (_, from, below) = RANGES[range];
                from.is_none_or(|from| value >= thresholds[from]) && below.is_none_or(|below| value < thresholds[below])
            }
            Condition::Edge(edge) => features.edges[edge],
            Condition::Relation(relation, class) => features.share(relation, class) >= relation.share(),
        };
        self.conditions.iter().map(holds).collect()
    }

    /// The names of all measured numbers, those of relations included, in the order of [`values`](Self::values).
    pub(super) fn value_names(&self) -> Vec<String> {
        let numbers = NUMBERS.iter().map(|number| number.name.to_owned());
        let shares =
            SHARES.into_iter().flat_map(|share| self.classes.iter().map(move |c| format!("{}_{c}", share.name())));
        numbers.chain(shares).collect()
    }

    /// All measured numbers.
    pub(super) fn values(&self, features: &Features) -> Vec<f32> {
        let shares = SHARES
            .into_iter()
            .flat_map(|relation| (0..self.classes.len()).map(move |class| features.share(relation, class)));
        features.numbers.into_iter().chain(shares).collect()
    }

    /// The atoms from which the others follow, one bit each in a file: for each feature, whether it is at least each quartile; then the
    /// edges and the relations.
    pub(super) fn stored(&self) -> Vec<usize> {
        let is_stored = |condition: &Condition| match condition {
            Condition::Range(_, range) => (3..6).contains(range),
            _ => true,
        };
        (0..self.len()).filter(|&atom| is_stored(&self.conditions[atom])).collect()
    }

    /// An atom as stored atoms: those that must hold, and the one that must not.
    pub(super) fn by_stored(&self, atom: usize) -> (Option<usize>, Option<usize>) {
        match self.conditions[atom] {
            Condition::Range(number, range) => {
                let (_, from, below) = RANGES[range];
                let stored = |quartile: usize| number * RANGES.len() + 3 + quartile;
                (from.map(stored), below.map(stored))
            }
            _ => (Some(atom), None),
        }
    }
}

/// The relations whose shares are different numbers: [`Relation::Surrounded`] compares that of [`Relation::Touches`].
const SHARES: [Relation; 4] = [Relation::Touches, Relation::Above, Relation::Below, Relation::Beside];

/// The quartiles of each feature, for [`Atoms::new`]. Zeros if there is no region.
pub(super) fn quartiles(features: &[Features]) -> Vec<[f32; 3]> {
    let of = |number: usize| {
        let mut values: Vec<f32> = features.iter().map(|features| features.numbers[number]).collect();
        values.sort_by(f32::total_cmp);
        [1, 2, 3].map(|quarter| values.get(values.len() * quarter / 4).copied().unwrap_or(0.0))
    };
    (0..NUMBERS.len()).map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn atoms() -> Atoms {
        Atoms::new(vec!["road".into(), "car".into()], vec![[1.0, 2.0, 3.0]; Atoms::FEATURES]).unwrap()
    }

    fn features(value: f32) -> Features {
        let share = vec![0.05, 0.5];
        Features {
            numbers: [value; NUMBERS.len()],
            edges: [true, false, false, false],
            next: share.clone(),
            above: share.clone(),
            below: share.clone(),
            beside: share,
        }
    }

    #[test]
    fn ranges_include_their_lower_and_exclude_their_upper_end() {
        let atoms = atoms();
        for (value, want) in [
            (0.5, vec!["below_q1", "below_q2", "below_q3"]),
            (1.0, vec!["below_q2", "below_q3", "from_q1", "q1_to_q2", "q1_to_q3"]),
            (2.5, vec!["below_q3", "from_q1", "from_q2", "q2_to_q3", "q1_to_q3"]),
            (3.0, vec!["from_q1", "from_q2", "from_q3"]),
        ] {
            let holds = atoms.of(&features(value));
            let got: Vec<_> = atoms.names().zip(&holds).filter(|(_, holds)| **holds).map(|(name, _)| name).collect();
            let of_area: Vec<_> = got.iter().filter_map(|name| name.strip_prefix("area_")).collect();
            assert_eq!(of_area, want, "{value}");
            let relations = ["touches_road", "touches_car", "surrounded_car", "above_car", "below_car", "beside_car"];
            assert!(got.ends_with(&relations) && got.contains(&"at_left"), "{got:?}");
        }
    }

    #[test]
    fn every_atom_follows_from_the_stored_ones() {
        let atoms = atoms();
        let stored = atoms.stored();
        for value in [0.0, 1.0, 1.5, 2.0, 3.0, 9.0] {
            let holds = atoms.of(&features(value));
            for (atom, want) in holds.iter().enumerate() {
                let (yes, no) = atoms.by_stored(atom);
                assert!(yes.iter().chain(&no).all(|other| stored.contains(other)), "{}", atoms.name(atom));
                let got = yes.is_none_or(|other| holds[other]) && no.is_none_or(|other| !holds[other]);
                assert_eq!(got, *want, "{} at {value}", atoms.name(atom));
            }
        }
    }

    #[test]
    fn wrong_thresholds_are_refused() {
        for (thresholds, want) in [
            (vec![[0.0; 3]; 3], "thresholds for 3 features"),
            (vec![[2.0, 1.0, 3.0]; NUMBERS.len()], "`x` are [2.0, 1.0, 3.0]; expected three numbers in order"),
            (vec![[0.0, f32::NAN, 3.0]; NUMBERS.len()], "expected three numbers in order"),
        ] {
            let error = Atoms::new(vec!["road".into()], thresholds).unwrap_err().to_string();
            assert!(error.contains(want), "{error}");
        }
    }

    #[test]
    fn quartiles_divide_the_regions_into_quarters() {
        let found = quartiles(&(0..8).map(|i| features(i as f32)).collect::<Vec<_>>());
        assert_eq!(found[0], [2.0, 4.0, 6.0]);
        assert_eq!(quartiles(&[])[0], [0.0; 3]);
    }
}
