//! Outlines and run lengths of a scene's classes as GeoJSON and as COCO's JSON.

use rtformer::pixels::shapes::{Area, Corner, areas, counts, run_lengths};
use rtformer::{ClassShare, Scene};
use serde_json::{Value, json};

use super::record::Record;

/// The classes of a scene with their areas.
pub(super) type Traced = Vec<(ClassShare, Vec<Area>)>;

pub(super) fn traced(scene: &Scene) -> Traced {
    let traced = |class: ClassShare| {
        let areas = areas(scene.mask(), class.id);
        (class, areas)
    };
    scene.classes().into_iter().map(traced).collect()
}

/// A GeoJSON feature for each area, with its holes. Coordinates are pixels: x to the right, y downwards, (0, 0) at the top left corner.
pub(super) fn geojson(traced: &Traced, tolerance: f64, record: &Record) -> Value {
    let mut features = Vec::new();
    for (class, areas) in traced {
        for area in areas {
            let pixels = area.pixels();
            let Area { outline, holes } = area.simplified(tolerance);
            let rings: Vec<_> = [outline].into_iter().chain(holes).map(|ring| closed(&ring)).collect();
            features.push(json!({
                "type": "Feature",
                "properties": {"class": class.name, "id": class.id, "color": class.color, "pixels": pixels},
                "geometry": {"type": "Polygon", "coordinates": rings},
            }));
        }
    }
    json!({"type": "FeatureCollection", "features": features, "tolerance": tolerance, "source": record})
}

fn closed(ring: &[Corner]) -> Vec<Corner> {
    ring.iter().chain(ring.first()).copied().collect()
}

/// COCO's JSON with one annotation for each area. COCO's polygons know no holes, so a slit leads from the outline to each hole and back.
pub(super) fn coco_polygons(scene: &Scene, traced: &Traced, tolerance: f64, record: &Record) -> Value {
    let mut annotations = Vec::new();
    for (class, areas) in traced {
        for area in areas {
            let (pixels, bounds) = (area.pixels(), bounds(&area.outline));
            let ring: Vec<i32> = area.simplified(tolerance).slit().into_iter().flat_map(|(x, y)| [x, y]).collect();
            annotations.push(annotation(annotations.len(), class.id, pixels, bounds, &json!([ring])));
        }
    }
    let mut coco = coco(scene, &annotations, record);
    coco["tolerance"] = tolerance.into();
    coco
}

/// COCO's JSON with one annotation for each class, as compressed run lengths.
pub(super) fn coco_runs(scene: &Scene, record: &Record) -> Value {
    let mask = scene.mask();
    let mut annotations = Vec::new();
    for class in scene.classes() {
        let runs = run_lengths(mask, class.id);
        let pixels = runs.iter().skip(1).step_by(2).map(|&run| u64::from(run)).sum();
        let size = [mask.height(), mask.width()];
        let segmentation = json!({"size": size, "counts": counts(&runs)});
        annotations.push(annotation(annotations.len(), class.id, pixels, extent(&runs, mask.height()), &segmentation));
    }
    coco(scene, &annotations, record)
}

/// COCO's numbers of classes begin with 1; so do those of its annotations.
fn annotation(number: usize, class: u16, pixels: u64, bounds: [i64; 4], segmentation: &Value) -> Value {
    json!({
        "id": number + 1, "image_id": 1, "category_id": class + 1, "segmentation": segmentation,
        "area": pixels, "bbox": bounds, "iscrowd": 0,
    })
}

fn coco(scene: &Scene, annotations: &[Value], record: &Record) -> Value {
    let mask = scene.mask();
    let category = |(id, class): (usize, &rtformer::weights::Class)| json!({"id": id + 1, "name": class.name});
    let categories: Vec<_> = scene.dataset().classes.iter().enumerate().map(category).collect();
    json!({
        "images": [{"id": 1, "file_name": record.photo, "width": mask.width(), "height": mask.height()}],
        "annotations": annotations,
        "categories": categories,
        "source": record,
    })
}

/// Left, top, width and height of a ring.
fn bounds(ring: &[Corner]) -> [i64; 4] {
    let of = |value: fn(&Corner) -> i32| {
        let values = ring.iter().map(value);
        (i64::from(values.clone().min().unwrap_or(0)), i64::from(values.max().unwrap_or(0)))
    };
    let ((left, right), (top, bottom)) = (of(|corner| corner.0), of(|corner| corner.1));
    [left, top, right - left, bottom - top]
}

/// Left, top, width and height of the runs of a class.
fn extent(runs: &[u32], height: u32) -> [i64; 4] {
    let height = i64::from(height.max(1));
    let (mut start, mut box_) = (0_i64, [i64::MAX, i64::MAX, 0, 0]);
    for (number, &run) in runs.iter().enumerate() {
        let end = start + i64::from(run);
        if number % 2 == 1 {
            let (first, last) = (start / height, (end - 1) / height);
            // A run that goes on in the next column reaches from the bottom to the top.
            let (top, bottom) = if first == last { (start % height, (end - 1) % height) } else { (0, height - 1) };
            box_ = [box_[0].min(first), box_[1].min(top), box_[2].max(last + 1), box_[3].max(bottom + 1)];
        }
        start = end;
    }
    let [left, top, right, bottom] = box_;
    if right == 0 { [0; 4] } else { [left, top, right - left, bottom - top] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_have_the_extent_of_their_pixels() {
        let cases: [(&[u32], [i64; 4]); 5] = [
            (&[6], [0, 0, 0, 0]),             // nothing
            (&[0, 6], [0, 0, 2, 3]),          // all of two columns of three
            (&[1, 1, 4], [0, 1, 1, 1]),       // one pixel
            (&[2, 2, 2], [0, 0, 2, 3]),       // the last pixel of one column and the first of the next
            (&[0, 1, 2, 1, 2], [0, 0, 2, 1]), // the top row
        ];
        for (runs, want) in cases {
            assert_eq!(extent(runs, 3), want, "{runs:?}");
        }
    }
}
