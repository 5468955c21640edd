//! PaddleSeg's own checkpoints.

/// One of the four checkpoints that PaddleSeg publishes.
///
/// ```
/// use rtformer::weights::{Dataset, Official};
///
/// assert_eq!(Official::all().len(), 4);
/// for official in Official::all() {
///     println!("{}: {}", official.name, official.url);
///     assert!(Dataset::named(official.dataset).is_some());
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Official {
    /// The name in `rtformer pull`.
    pub name: &'static str,
    /// The address of the `.pdparams` file.
    pub url: &'static str,
    /// The name of the data set, for [`Dataset::named`](super::Dataset::named).
    pub dataset: &'static str,
    /// Side of the pooled map in cross-resolution attention, which no tensor's shape contains.
    pub cross_size: usize,
}

/// All checkpoints in PaddleSeg's `configs/rtformer`.
const ALL: [Official; 4] = [
    Official {
        name: "slim-cityscapes",
        url: "https://paddleseg.bj.bcebos.com/dygraph/cityscapes/rtformer_slim_cityscapes_1024x512_120k/model.pdparams",
        dataset: "cityscapes",
        cross_size: 12,
    },
    Official {
        name: "base-cityscapes",
        url: "https://paddleseg.bj.bcebos.com/dygraph/cityscapes/rtformer_base_cityscapes_1024x512_120k/model.pdparams",
        dataset: "cityscapes",
        cross_size: 12,
    },
    Official {
        name: "slim-ade20k",
        url: "https://paddleseg.bj.bcebos.com/dygraph/ade20k/rtformer_slim_ade20k_512x512_160k/model.pdparams",
        dataset: "ade20k",
        cross_size: 8,
    },
    Official {
        name: "base-ade20k",
        url: "https://paddleseg.bj.bcebos.com/dygraph/ade20k/rtformer_base_ade20k_512x512_160k/model.pdparams",
        dataset: "ade20k",
        cross_size: 12,
    },
];

impl Official {
    /// All four checkpoints.
    pub const fn all() -> &'static [Self] {
        &ALL
    }

    /// The checkpoint with this name, or `None` if it is unknown.
    ///
    /// ```
    /// let slim = rtformer::weights::Official::named("slim-ade20k").unwrap();
    /// assert_eq!((slim.dataset, slim.cross_size), ("ade20k", 8));
    /// ```
    pub fn named(name: &str) -> Option<&'static Self> {
        ALL.iter().find(|official| official.name == name)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dataset::Dataset;
    use super::*;

    #[test]
    fn names_match_addresses_and_data_sets() {
        for official in Official::all() {
            let (variant, dataset) = official.name.split_once('-').unwrap();
            assert!(
                official.url.contains(&format!("/dygraph/{dataset}/rtformer_{variant}_{dataset}_")),
                "{official:?}"
            );
            assert!(official.url.starts_with("https://") && official.url.ends_with("/model.pdparams"), "{official:?}");
            assert_eq!(official.dataset, dataset);
            assert!(Dataset::named(dataset).is_some());
            assert_eq!(Official::named(official.name), Some(official));
        }
        assert_eq!(Official::named("slim"), None);
    }
}
