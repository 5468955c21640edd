//! The definitions of the upsampled logits and their argmax.

use super::{Argmax, ClassId, Upsample, Upsampled};

/// One upsampled logit at an output `row` and `column`.
fn logit(u: &Upsampled, class: usize, row: usize, column: usize) -> f32 {
    let mix = |a: f32, b: f32, weight: f32| a + weight * (b - a);
    let (y, x) = (u.vertical.tap(row), u.horizontal.tap(column));
    let left = mix(u.logits.at(class, y.first, x.first), u.logits.at(class, y.second, x.first), y.weight);
    let right = mix(u.logits.at(class, y.first, x.second), u.logits.at(class, y.second, x.second), y.weight);
    mix(left, right, x.weight)
}

pub(super) fn argmax<T: ClassId>(Argmax { upsampled: u, ids, mut confidence, .. }: Argmax<T>) {
    let classes = u.logits.layout().channels;
    for (i, id) in ids.iter_mut().enumerate() {
        let (row, column) = (u.rows.start + i / u.width, i % u.width);
        let mut winner = (logit(&u, 0, row, column), 0);
        for class in 1..classes {
            let value = logit(&u, class, row, column);
            if value > winner.0 {
                winner = (value, class as u32);
            }
        }
        *id = T::from_class(winner.1);
        if let Some(confidence) = &mut confidence {
            let share = |class| ((logit(&u, class, row, column) - winner.0) / confidence.temperature).exp();
            confidence.values[i] = 1.0 / (0..classes).map(share).sum::<f32>();
        }
    }
}

pub(super) fn upsample(Upsample { upsampled: u, planes }: Upsample) {
    for (class, plane) in planes.iter_mut().enumerate() {
        for (i, value) in plane.iter_mut().enumerate() {
            *value = logit(&u, class, u.rows.start + i / u.width, i % u.width);
        }
    }
}
