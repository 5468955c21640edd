//! COCO's compressed run-length encoding.

use crate::pixels::Mask;

/// The run lengths of one class in COCO's order: column by column, beginning with the pixels before the class, which may be none.
///
/// ```
/// use rtformer::pixels::Mask;
/// use rtformer::pixels::shapes::run_lengths;
///
/// let mask = Mask::from_ids(2, 2, 5, [1_u8, 0, 1, 1])?;
/// assert_eq!(run_lengths(&mask, 1), [0, 2, 1, 1]);
/// # Ok::<(), rtformer::Error>(())
/// ```
pub fn run_lengths(mask: &Mask, class: u16) -> Vec<u32> {
    runs(mask.width(), mask.height(), |x, y| mask.get(x, y) == class)
}

fn runs(width: u32, height: u32, is_set: impl Fn(u32, u32) -> bool) -> Vec<u32> {
    let (mut runs, mut run, mut last) = (Vec::new(), 0, false);
    for (x, y) in (0..width).flat_map(|x| (0..height).map(move |y| (x, y))) {
        let now = is_set(x, y);
        if now != last {
            runs.push(run);
            (run, last) = (0, now);
        }
        run += 1;
    }
    runs.push(run);
    runs
}

/// Run lengths as text: COCO's `counts`. Each number is written in groups of five bits, lowest first, with 48 added; a sixth bit says that more follow.
/// From the fourth on, it is the difference from the run before the last.
///
/// Source: `rleToString` in pycocotools' `maskApi.c`.
///
/// ```
/// assert_eq!(rtformer::pixels::shapes::counts(&[0, 2, 1, 1]), "021O");
/// ```
pub fn counts(runs: &[u32]) -> String {
    let mut text = String::new();
    for (i, &run) in runs.iter().enumerate() {
        let mut rest = i64::from(run) - if i > 2 { i64::from(runs[i - 2]) } else { 0 };
        loop {
            let group = rest & 31;
            rest >>= 5;
            // The fifth bit is the sign of what remains.
            let more = rest != if group & 16 == 0 { 0 } else { -1 };
            text.push(char::from((group | if more { 32 } else { 0 }) as u8 + 48));
            if !more {
                break;
            }
        }
    }
    text
}
