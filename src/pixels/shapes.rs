//! Outlines of the areas of a mask, and run lengths, for annotation tools.

mod rle;

use std::collections::BTreeMap;

use super::mask::Mask;

pub use rle::{counts, run_lengths};

/// A corner of pixels: `(0, 0)` is the top left corner of the picture, `(width, height)` the bottom right one.
pub type Corner = (i32, i32);

/// An area and its holes. Rings are closed; the first corner is not repeated. Outlines run clockwise on the screen, holes counterclockwise.
///
/// ```
/// use rtformer::pixels::Mask;
/// use rtformer::pixels::shapes::areas;
///
/// let ring = areas(&Mask::from_ids(3, 3, 5, [1_u8, 1, 1, 1, 0, 1, 1, 1, 1])?, 1).remove(0);
/// assert_eq!((ring.pixels(), ring.holes.len()), (8, 1));
/// assert_eq!(ring.slit(), [(0, 0), (1, 1), (1, 2), (2, 2), (2, 1), (1, 1), (0, 0), (3, 0), (3, 3), (0, 3)]);
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Area {
    /// The outer ring.
    pub outline: Vec<Corner>,
    /// The rings around what does not belong to the area.
    pub holes: Vec<Vec<Corner>>,
}

impl Area {
    /// The number of pixels, or the size of the surface if the area was [simplified](Self::simplified).
    pub fn pixels(&self) -> u64 {
        let doubled: i64 = self.holes.iter().chain([&self.outline]).map(|ring| doubled(ring)).sum();
        doubled.max(0) as u64 / 2
    }

    /// The area with fewer corners: those at most `tolerance` pixels away from the line that remains are left out (Douglas and Peucker, 1973). A ring
    /// keeps at least three corners; with a tolerance of 0 it stays as it is.
    pub fn simplified(&self, tolerance: f64) -> Self {
        Self {
            outline: simplified(&self.outline, tolerance),
            holes: self.holes.iter().map(|hole| simplified(hole, tolerance)).collect(),
        }
    }

    /// One ring around the area without its holes: a slit leads to each hole and back. For formats that know no holes, such as COCO's polygons.
    pub fn slit(&self) -> Vec<Corner> {
        slit(&self.outline, &self.holes)
    }
}

/// The areas of one class: pixels that are connected by their sides. The rings run along the pixels' edges, so they cover exactly the class's pixels.
///
/// ```
/// use rtformer::pixels::Mask;
/// use rtformer::pixels::shapes::areas;
///
/// let mask = Mask::from_ids(3, 1, 5, [1_u8, 1, 0])?;
/// assert_eq!(areas(&mask, 1)[0].outline, [(0, 0), (2, 0), (2, 1), (0, 1)]);
/// # Ok::<(), rtformer::Error>(())
/// ```
pub fn areas(mask: &Mask, class: u16) -> Vec<Area> {
    trace(mask.width(), mask.height(), |x, y| mask.get(x as u32, y as u32) == class)
}

fn trace(width: u32, height: u32, is_set: impl Fn(i32, i32) -> bool) -> Vec<Area> {
    let inside = |x: i32, y: i32| x >= 0 && y >= 0 && x < width as i32 && y < height as i32 && is_set(x, y);
    // The directed edges between a pixel of the class and one that is not, by their start. The class is on the right.
    let mut edges: BTreeMap<Corner, Vec<Corner>> = BTreeMap::new();
    for (x, y) in (0..height as i32).flat_map(|y| (0..width as i32).map(move |x| (x, y))).filter(|&(x, y)| inside(x, y))
    {
        let sides = [
            ((x, y), (x + 1, y), (x, y - 1)),
            ((x + 1, y), (x + 1, y + 1), (x + 1, y)),
            ((x + 1, y + 1), (x, y + 1), (x, y + 1)),
            ((x, y + 1), (x, y), (x - 1, y)),
        ];
        for (from, to, beyond) in sides {
            if !inside(beyond.0, beyond.1) {
                edges.entry(from).or_default().push(to);
            }
        }
    }
    let mut rings = Vec::new();
    while let Some((&start, _)) = edges.first_key_value() {
        rings.push(walk(&mut edges, start));
    }
    nest(rings)
}

/// Follows edges from `start` until they return to it, and takes them.
fn walk(edges: &mut BTreeMap<Corner, Vec<Corner>>, start: Corner) -> Vec<Corner> {
    let (mut ring, mut at, mut came) = (vec![start], start, (0, 0));
    while let Some(next) = edges.get_mut(&at) {
        // Where two pixels meet at a corner, turning right keeps them apart.
        let right = (-came.1, came.0);
        let choice = next.iter().position(|to| (to.0 - at.0, to.1 - at.1) == right).unwrap_or(0);
        let to = next.swap_remove(choice);
        if next.is_empty() {
            edges.remove(&at);
        }
        let step = (to.0 - at.0, to.1 - at.1);
        if step == came {
            ring.pop(); // a straight line has no corner here
        }
        (at, came) = (to, step);
        if at == start {
            break;
        }
        ring.push(at);
    }
    // The start is a corner, because it is the topmost, leftmost point of its ring.
    ring
}

/// Twice the signed area: positive for outlines.
fn doubled(ring: &[Corner]) -> i64 {
    let next = ring.iter().cycle().skip(1);
    ring.iter().zip(next).map(|(a, b)| i64::from(a.0) * i64::from(b.1) - i64::from(b.0) * i64::from(a.1)).sum()
}

/// Assigns each hole to the smallest outline around it.
fn nest(rings: Vec<Vec<Corner>>) -> Vec<Area> {
    let (outlines, holes): (Vec<_>, Vec<_>) = rings.into_iter().partition(|ring| doubled(ring) > 0);
    let mut areas: Vec<_> = outlines.into_iter().map(|outline| Area { outline, holes: Vec::new() }).collect();
    for hole in holes {
        // The start of a hole is its topmost, leftmost corner; the pixel above it belongs to the area.
        let (x, y) = hole[0];
        let point = (f64::from(x) + 0.5, f64::from(y) - 0.5);
        let around = areas.iter_mut().filter(|area| contains(&area.outline, point));
        if let Some(area) = around.min_by_key(|area| doubled(&area.outline)) {
            area.holes.push(hole);
        }
    }
    areas
}

/// Whether a point that is on no edge is inside a ring.
fn contains(ring: &[Corner], (x, y): (f64, f64)) -> bool {
    let next = ring.iter().cycle().skip(1);
    let crossed = ring.iter().zip(next).filter(|(a, b)| {
        let (low, high) = (f64::from(a.1.min(b.1)), f64::from(a.1.max(b.1)));
        a.0 == b.0 && low < y && y < high && f64::from(a.0) < x
    });
    crossed.count() % 2 == 1
}

/// [`Area::simplified`] of a ring.
fn simplified(ring: &[Corner], tolerance: f64) -> Vec<Corner> {
    if tolerance <= 0.0 || ring.len() <= 4 {
        return ring.to_vec();
    }
    // Two fixed corners: the first, and the one farthest from it.
    let far =
        (0..ring.len()).max_by(|&a, &b| distance(ring[0], ring[a]).total_cmp(&distance(ring[0], ring[b]))).unwrap_or(0);
    let closed: Vec<_> = ring.iter().copied().chain([ring[0]]).collect();
    let mut keep = vec![false; closed.len()];
    (keep[0], keep[far]) = (true, true);
    let mut parts = vec![(0, far), (far, ring.len())];
    while let Some((from, to)) = parts.pop() {
        let worst =
            (from + 1..to).map(|i| (i, off(closed[i], closed[from], closed[to]))).max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((at, away)) = worst
            && away > tolerance
        {
            keep[at] = true;
            parts.extend([(from, at), (at, to)]);
        }
    }
    let kept: Vec<_> = ring.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(corner, _)| *corner).collect();
    if kept.len() >= 3 && doubled(&kept) != 0 { kept } else { ring.to_vec() }
}

fn distance(a: Corner, b: Corner) -> f64 {
    f64::from(a.0 - b.0).hypot(f64::from(a.1 - b.1))
}

/// The distance of a corner from the line between two others.
fn off(point: Corner, from: Corner, to: Corner) -> f64 {
    let (dx, dy) = (f64::from(to.0 - from.0), f64::from(to.1 - from.1));
    let (px, py) = (f64::from(point.0 - from.0), f64::from(point.1 - from.1));
    let length = dx.hypot(dy);
    if length == 0.0 {
        return px.hypot(py);
    }
    let along = ((px * dx + py * dy) / (length * length)).clamp(0.0, 1.0);
    (px - along * dx).hypot(py - along * dy)
}

/// [`Area::slit`].
fn slit(outline: &[Corner], holes: &[Vec<Corner>]) -> Vec<Corner> {
    let mut ring = outline.to_vec();
    for hole in holes {
        let pairs = (0..ring.len()).flat_map(|i| (0..hole.len()).map(move |j| (i, j)));
        let nearest = pairs.min_by(|a, b| distance(ring[a.0], hole[a.1]).total_cmp(&distance(ring[b.0], hole[b.1])));
        let Some((i, j)) = nearest else { continue };
        let inner = hole[j..].iter().chain(&hole[..=j]).copied();
        let back = ring[i];
        let detour: Vec<_> = inner.chain([back]).collect();
        let rest = ring.split_off(i + 1);
        ring.extend(detour.into_iter().chain(rest));
    }
    ring
}

#[cfg(test)]
mod tests;
