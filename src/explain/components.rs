//! Connected components: sets of neighbouring cells with one value.

/// The component of each cell, numbered from 0 in the order of their first cells, row by row; and the number of components.
///
/// Cells are neighbours if they share a side. Two passes with union-find.
pub(super) fn components<T: PartialEq>(values: &[T], width: usize) -> (Vec<u32>, usize) {
    let mut of: Vec<u32> = Vec::with_capacity(values.len());
    let mut parents: Vec<u32> = Vec::new();
    for (i, value) in values.iter().enumerate() {
        let left = (i % width > 0 && values[i - 1] == *value).then(|| of[i - 1]);
        let up = (i >= width && values[i - width] == *value).then(|| of[i - width]);
        of.push(match (left, up) {
            (Some(left), Some(up)) if left != up => join(&mut parents, left, up),
            (Some(same), _) | (None, Some(same)) => same,
            (None, None) => {
                parents.push(parents.len() as u32);
                parents.len() as u32 - 1
            }
        });
    }
    // A root is the smallest of its set, so it comes first and has its number when the others need it.
    let mut numbers = vec![0; parents.len()];
    let mut count = 0;
    for i in 0..parents.len() as u32 {
        let root = root(&mut parents, i);
        if root == i {
            numbers[i as usize] = count;
            count += 1;
        } else {
            numbers[i as usize] = numbers[root as usize];
        }
    }
    of.iter_mut().for_each(|component| *component = numbers[*component as usize]);
    (of, count as usize)
}

/// The smallest member of a set. Shortens the path to it.
fn root(parents: &mut [u32], mut of: u32) -> u32 {
    while parents[of as usize] != of {
        parents[of as usize] = parents[parents[of as usize] as usize];
        of = parents[of as usize];
    }
    of
}

fn join(parents: &mut [u32], a: u32, b: u32) -> u32 {
    let (a, b) = (root(parents, a), root(parents, b));
    let (first, other) = (a.min(b), a.max(b));
    parents[other as usize] = first;
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_with_one_value_are_one_component() {
        let cases: [(&str, usize, &[u32]); 4] = [
            ("aaaa", 4, &[0, 0, 0, 0]),
            ("abab", 2, &[0, 1, 0, 1]),                     // two columns
            ("abba", 2, &[0, 1, 2, 3]),                     // corners do not connect
            ("abaabaaaa", 3, &[0, 1, 0, 0, 1, 0, 0, 0, 0]), // a U: its arms join in the last row
        ];
        for (text, width, want) in cases {
            let (got, count) = components(text.as_bytes(), width);
            assert_eq!(got, want, "{text}");
            assert_eq!(count as u32, want.iter().max().unwrap() + 1, "{text}");
        }
        assert_eq!(components::<u8>(&[], 3), (vec![], 0));
    }
}
