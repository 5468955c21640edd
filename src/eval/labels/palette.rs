//! Decides whether the pixels of an indexed PNG are numbers or colours.
//!
//! Many programs save class ids as indices with some palette: the data set's, a grey ramp, or any other. Other programs save a picture
//! in the classes' colours, and an optimiser or a quantiser converts it to an indexed PNG, whose indices then have no meaning. The
//! palette distinguishes the two in nearly all cases. If it does not, the file is an error, because a wrong guess would give wrong
//! scores.
//!
//! Optimisers also convert grey PNGs of class ids, and reorder palettes that are a common ramp. The ids are then the places of the
//! palette's colours in the ramp.

use super::colors::{Colors, Meaning, Rgb};
use super::format::{LabelKind, Numbers};
use crate::eval::Confusion;

/// The meaning of the pixels of an indexed PNG.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    Numbers,
    /// Indices into these numbers.
    Moved(Vec<u16>),
    Colors,
}

/// Decides how to read an indexed PNG with this palette (`r, g, b, r, g, b, …`). `used` are the indices that the pixels use.
///
/// 1. Both readings agree, or the palette is the data set's in order, or all its entries are one colour: numbers.
/// 2. The palette has only the data set's colours, of at least two classes, in another order: colours.
/// 3. The palette is a common ramp (grey, or PASCAL VOC's): numbers.
/// 4. The palette is a common ramp in another order: the places of its colours in the ramp are the numbers.
/// 5. Otherwise the used indices decide. If only one reading is possible, it is used. If both are possible, it is an error.
///
/// A file name or a flag that states that the file holds numbers is never overruled. If the palette contradicts it, it is an error.
///
/// # Errors
/// If both readings are possible and differ.
pub(super) fn reading(palette: &[u8], used: &[u16], numbers: &Numbers, colors: &Colors) -> Result<Reading, String> {
    let classes = &colors.dataset().classes;
    let ignore = Confusion::ignore_id(classes.len());
    let palette = without_padding(palette.as_chunks().0, used);
    let entries: Vec<Meaning> = palette.iter().map(|color| colors.of(*color)).collect();
    let entry = |index: u16| entries.get(usize::from(index)).copied().unwrap_or(Meaning::Unknown);
    let by_color = |index: u16| match entry(index) {
        Meaning::Class(id) => Some(id),
        Meaning::Ignored => Some(ignore),
        Meaning::Shared(..) | Meaning::Unknown => None,
    };
    let is_class = |index: &u16| matches!(entry(*index), Meaning::Class(_));
    // The index has a class's colour, but its number means something else: the palette contradicts the numbers.
    let moved = |index: &u16| is_class(index) && numbers.of(*index) != by_color(*index);

    if used.iter().all(|&index| by_color(index).is_some() && by_color(index) == numbers.of(index)) {
        return Ok(Reading::Numbers); // both readings agree, as for the masks that we write
    }
    if palette.len() > 1 && palette.iter().all(|color| *color == palette[0]) {
        return Ok(Reading::Numbers); // a single colour gives no information
    }
    let all = 0..entries.len() as u16;
    let mut at_home: Vec<_> = all.clone().filter(|index| is_class(index) && !moved(index)).map(by_color).collect();
    at_home.sort_unstable();
    at_home.dedup();
    if at_home.len() == classes.len() {
        return Ok(Reading::Numbers); // the data set's own palette, in order
    }

    let ambiguous = || {
        let differs = |index: &&u16| by_color(**index) != numbers.of(**index);
        let index = used.iter().find(differs).copied().unwrap_or_default();
        let name = |id: Option<u16>| match id.and_then(|id| classes.get(usize::from(id))) {
            Some(class) => format!("`{}`", class.name),
            None => "ignored".into(),
        };
        let kinds = LabelKind::NAMES.join("|");
        Err(format!(
            "can be read in two ways: index {index} is {} by its number and {} by its colour in the palette; choose with \
             the label kind: {kinds}",
            name(numbers.of(index)),
            name(by_color(index))
        ))
    };
    let numbers_fit = used.iter().all(|&index| numbers.of(index).is_some());
    let colors_fit = used.iter().all(|&index| by_color(index).is_some());
    let only_known = all.clone().all(|index| by_color(index).is_some());
    let mut named: Vec<_> = all.clone().filter(is_class).map(by_color).collect();
    named.sort_unstable();
    named.dedup();

    // Only the data set's colours, in another order: this cannot be chance, and the colours cannot mean anything else.
    if only_known && colors_fit && named.len() >= 2 && all.clone().any(|index| moved(&index)) {
        return match numbers.stated {
            false => Ok(Reading::Colors),
            true if numbers_fit => ambiguous(),
            true => Ok(Reading::Numbers), // the error names the number
        };
    }
    if !only_known && is_common_ramp(palette) {
        return Ok(Reading::Numbers);
    }
    if let Some(moved) = moved_ramp(palette, used, numbers).filter(|_| !colors_fit) {
        return Ok(Reading::Moved(moved));
    }
    let shows_class = used.iter().any(is_class);
    let contradictions = used.iter().filter(|index| moved(index)).count();
    match (numbers_fit, colors_fit) {
        (true, true) if shows_class || (only_known && !named.is_empty()) => ambiguous(),
        (false, true) if contradictions > 0 && !numbers.stated => Ok(Reading::Colors),
        (_, false)
            if !numbers.stated
                && 2 * contradictions > used.iter().filter(|i| entry(**i) != Meaning::Ignored).count() =>
        {
            // Most colours are classes' colours, so the other entries are colours too. Reading them reports the first unknown one.
            Ok(Reading::Colors)
        }
        _ => Ok(Reading::Numbers),
    }
}

/// The palette without unused entries at its end, if there are several and all are one colour.
fn without_padding<'a>(palette: &'a [Rgb], used: &[u16]) -> &'a [Rgb] {
    let end = used.last().map_or(0, |last| usize::from(*last) + 1).min(palette.len());
    let (own, rest) = palette.split_at(end);
    let is_padding = rest.len() > 1 && rest.iter().all(|color| *color == rest[0]);
    if is_padding && !own.is_empty() { own } else { palette }
}

/// Whether the palette is one that programs use for any indices: the grey values, evenly spaced grey values, or PASCAL VOC's colour map,
/// which `PaddleSeg` and others use.
fn is_common_ramp(palette: &[Rgb]) -> bool {
    let is = |ramp: fn(u8) -> Rgb| palette.iter().zip(0..=u8::MAX).all(|(color, i)| *color == ramp(i));
    is(|i| [i; 3]) || is(voc) || is_even(palette)
}

/// Whether the palette has evenly spaced grey values from black to some bright one, up to rounding.
fn is_even(palette: &[Rgb]) -> bool {
    let [first, .., last] = palette else { return false };
    let (brightest, steps) = (usize::from(last[0]), palette.len() - 1);
    let even = |(i, color): (usize, &Rgb)| {
        *color == [color[0]; 3] && usize::from(color[0]).abs_diff(i * brightest / steps) <= 1
    };
    *first == [0; 3] && brightest >= 128 && palette.iter().enumerate().all(even)
}

/// The numbers that the indices stand for, if the palette is a common ramp in another order. Most of the used entries must stand for
/// a class or the ignore id, other than black and white, which every palette may have.
fn moved_ramp(palette: &[Rgb], used: &[u16], numbers: &Numbers) -> Option<Vec<u16>> {
    let places = |ramp: fn(u8) -> Rgb| {
        let place = |color: &Rgb| (0..=u8::MAX).find(|i| ramp(*i) == *color).map(u16::from);
        let places: Vec<_> = palette.iter().map(place).collect();
        let of_used: Option<Vec<_>> =
            used.iter().map(|index| places.get(usize::from(*index)).copied().flatten()).collect();
        let possible: Vec<_> = of_used?.into_iter().filter(|place| numbers.of(*place).is_some()).collect();
        let telling = possible.iter().any(|place| !matches!(place, 0 | 255));
        (telling && 2 * possible.len() > used.len())
            .then(|| places.into_iter().map(|place| place.unwrap_or(u16::MAX)).collect())
    };
    places(|i| [i; 3]).or_else(|| places(voc))
}

/// PASCAL VOC's colour map. From the highest bit down, red is the index's bits 0, 3 and 6, green its bits 1, 4 and 7, and blue its bits 2
/// and 5.
fn voc(index: u8) -> Rgb {
    let channel = |from: u8| (index >> from & 1) << 7 | (index >> from >> 3 & 1) << 6 | (index >> from >> 6 & 1) << 5;
    [channel(0), channel(1), channel(2)]
}
