//! Finds the network in a checkpoint, and the names of its tensors.
//!
//! Training programs wrap the network: in dictionaries (`state_dict`, `model_ema`), and in classes that put a prefix before every
//! name (`module.`, `_orig_mod.`). There is no list of either: the network is found by its [`LANDMARKS`].

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// Tensors that every RTFormer has, from stem to head. They include statistics of the stem's norm, because some programs save a
/// second copy of the network without statistics.
const LANDMARKS: [&str; 5] =
    ["conv1.0.weight", "conv1.1._mean", "spp.scale0.2.weight", "seghead.conv1.weight", "seghead.conv2.weight"];

/// Parts that wrappers insert inside names. No network uses them itself.
const WRAPPERS: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// The number of batches that a norm of `PyTorch` was trained on. Not used.
const COUNTER: &str = "num_batches_tracked";

/// The endings of the names of an optimizer's tensors, in Paddle and in `PyTorch`.
const MOMENTS: [&str; 9] = [
    "_velocity_0",
    "_moment1_0",
    "_moment2_0",
    "_moment_0",
    "_beta1_pow_acc_0",
    "_beta2_pow_acc_0",
    ".exp_avg",
    ".exp_avg_sq",
    ".momentum_buffer",
];

/// A dictionary in a file. `K` identifies a tensor in the file.
#[derive(Debug)]
pub(super) struct Dictionary<K> {
    /// The keys that lead to it, joined by dots; empty for the file's root.
    pub(super) path: String,
    pub(super) tensors: Vec<(String, K)>,
    /// The keys of everything else.
    pub(super) others: Vec<String>,
}

impl<K> Dictionary<K> {
    pub(super) fn new(path: String) -> Self {
        Self { path, tensors: Vec::new(), others: Vec::new() }
    }

    /// The path of the dictionary under `key`.
    pub(super) fn nested(&self, key: &str) -> String {
        joined(&self.path, key)
    }

    /// Whether this is the state of an optimizer.
    fn is_optimizers(&self) -> bool {
        let has = |key: &str| self.others.iter().any(|other| other == key);
        let moments =
            self.tensors.iter().filter(|(name, _)| MOMENTS.iter().any(|ending| name.ends_with(ending))).count();
        has("LR_Scheduler") || has("param_groups") || (moments > 0 && 2 * moments >= self.tensors.len())
    }
}

/// Where in its file the tensors of a [`Checkpoint`](super::Checkpoint) were. `Display` describes it to the user.
///
/// ```
/// use rtformer::weights::Checkpoint;
///
/// let checkpoint = Checkpoint::open("tests/data/field/weights/module-prefix.pdparams")?;
/// assert_eq!(checkpoint.found.prefix, "module.");
/// assert_eq!(checkpoint.found.to_string(), "removed the prefix `module.` from every name");
/// # Ok::<(), rtformer::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The keys that lead to the dictionary, joined by dots, such as `state_dict`; empty for the file's root.
    pub dictionary: String,
    /// The prefix that was removed from every tensor's name, such as `module.`; empty if there was none.
    pub prefix: String,
    /// The number of tensors whose names were changed from `PyTorch`'s to `PaddleSeg`'s, which differ for the statistics of norms.
    pub renamed: usize,
    /// Other networks in the file, by the names that [`Checkpoint::open_part`](super::Checkpoint::open_part) accepts.
    pub alternatives: Vec<String>,
    /// The names of entries that are not part of the network and were left out.
    pub left_out: Vec<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if !self.dictionary.is_empty() {
            parts.push(format!("read the dictionary `{}`", self.dictionary.escape_debug()));
        }
        if !self.prefix.is_empty() {
            parts.push(format!("removed the prefix `{}` from every name", self.prefix.escape_debug()));
        }
        if self.renamed > 0 {
            parts.push(format!("renamed {} statistics from PyTorch's names", self.renamed));
        }
        if !self.left_out.is_empty() {
            parts.push(format!("left out {}", listed(&self.left_out)));
        }
        if !self.alternatives.is_empty() {
            parts.push(format!("the file also holds {}", listed(&self.alternatives)));
        }
        f.write_str(&parts.join("; "))
    }
}

/// Lists the first names, and the number of the others.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let shown: Vec<_> = names.iter().take(SHOWN).map(|name| format!("`{}`", name.escape_debug())).collect();
    match names.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

/// A place where the network could be.
struct Place {
    dictionary: usize,
    prefix: String,
    landmarks: usize,
    /// The number of tensors in the dictionary. If there are no landmarks, the largest dictionary is used.
    tensors: usize,
    label: String,
}

impl Place {
    /// The name that users see. The root is a dot.
    fn called(&self) -> String {
        if self.label.is_empty() { ".".into() } else { self.label.clone() }
    }

    /// Lower is better. Complete networks come first. Of those, averaged ones come first, because training programs evaluate them, and
    /// teachers last. Then the one nearest to the root comes first.
    fn rank(&self) -> impl Ord + use<'_> {
        let words: Vec<_> =
            self.label.split(|c: char| !c.is_ascii_alphanumeric()).map(str::to_ascii_lowercase).collect();
        let has = |known: &[&str]| words.iter().any(|word| known.contains(&word.as_str()));
        let preference = if has(&["teacher"]) { 2 } else { u8::from(!has(&["ema", "swa", "averaged", "shadow"])) };
        let size = if self.landmarks == 0 { self.tensors } else { 0 };
        let depth = self.label.matches('.').count();
        (std::cmp::Reverse((self.landmarks, size)), preference, depth, &self.label)
    }
}

/// Finds the network, and returns its tensors with `PaddleSeg`'s names. `part` selects one of several networks by a name in
/// [`Found::alternatives`].
///
/// # Errors
/// A description of the problem, as a phrase that follows the file's name.
pub(super) fn find<K: Copy>(
    dictionaries: &[Dictionary<K>],
    part: Option<&str>,
) -> Result<(Found, BTreeMap<String, K>), String> {
    let named: Vec<_> = dictionaries.iter().map(|dictionary| paddle_names(&dictionary.tensors)).collect();
    let mut places: Vec<_> = dictionaries.iter().zip(&named).enumerate().flat_map(places).collect();
    if let Some(part) = part {
        let labels: BTreeSet<_> = places.iter().filter(|place| place.landmarks > 0).map(Place::called).collect();
        let part = part.trim_end_matches('.');
        let is_asked = |label: &str| label == part || label.starts_with(&format!("{part}."));
        places.retain(|place| place.tensors > 0 && is_asked(&place.label));
        if places.is_empty() {
            let labels: Vec<_> = labels.into_iter().collect();
            let has = if labels.is_empty() { "no network".into() } else { listed(&labels) };
            return Err(format!("has no part `{}`; it has {has}", part.escape_debug()));
        }
    }
    places.sort_by(|a, b| a.rank().cmp(&b.rank()));
    let optimizers = || {
        let of_optimizer = |path: &str| {
            let mut own = dictionaries.iter().filter(|dictionary| dictionary.is_optimizers());
            own.any(|own| path == own.path || own.path.is_empty() || path.starts_with(&format!("{}.", own.path)))
        };
        dictionaries.iter().any(Dictionary::is_optimizers)
            && dictionaries.iter().all(|dictionary| dictionary.tensors.is_empty() || of_optimizer(&dictionary.path))
    };
    if places.first().is_none_or(|place| place.landmarks == 0) && optimizers() {
        return Err("holds the state of an optimizer, not a model; convert the model's file, which is usually in the same folder \
                    (`model.pdparams` for `model.pdopt`, or what `torch.save(model.state_dict(), …)` wrote)"
            .into());
    }
    let Some(best) = places.first().filter(|place| place.tensors > 0) else { return Err("holds no tensors".into()) };
    let rivals: Vec<_> =
        places[1..].iter().filter(|place| place.landmarks > 0 && place.landmarks == best.landmarks).collect();
    // Other networks in the same dictionary, with longer prefixes.
    let inner: Vec<_> = rivals
        .iter()
        .filter(|rival| rival.dictionary == best.dictionary && rival.prefix.starts_with(&best.prefix))
        .map(|rival| rival.prefix.as_str())
        .collect();
    let mut found = Found {
        dictionary: dictionaries[best.dictionary].path.clone(),
        prefix: best.prefix.clone(),
        alternatives: rivals.iter().map(|rival| rival.called()).collect(),
        left_out: dictionaries[best.dictionary].others.clone(),
        renamed: 0,
    };
    let mut tensors = BTreeMap::new();
    for Named { name, key, renamed } in &named[best.dictionary] {
        if inner.iter().any(|prefix| name.starts_with(prefix)) {
            continue;
        }
        match name.strip_prefix(&best.prefix) {
            Some(own) if !own.is_empty() => {
                found.renamed += usize::from(*renamed);
                if tensors.insert(own.to_owned(), *key).is_some() {
                    return Err(format!("holds `{}` twice", own.escape_debug()));
                }
            }
            _ if rivals.iter().any(|rival| rival.dictionary == best.dictionary && name.starts_with(&rival.prefix)) => {}
            _ => found.left_out.push(name.clone()),
        }
    }
    if tensors.is_empty() { Err("holds no tensors".into()) } else { Ok((found, tensors)) }
}

/// A tensor with `PaddleSeg`'s name after any prefix.
struct Named<K> {
    name: String,
    key: K,
    renamed: bool,
}

/// The tensors of a dictionary with `PaddleSeg`'s names for statistics, without counters, and without wrappers inside names.
fn paddle_names<K: Copy>(tensors: &[(String, K)]) -> Vec<Named<K>> {
    let is_counter = |name: &str| name.rsplit('.').next() == Some(COUNTER);
    let kept = tensors.iter().filter(|(name, _)| !is_counter(name));
    kept.map(|(name, key)| {
        let plain = unwrapped(name);
        let name = paddle_name(&plain);
        Named { renamed: name != plain, name, key: *key }
    })
    .collect()
}

/// Replaces the two names that differ.
fn paddle_name(name: &str) -> String {
    let renamed = |theirs: &str, ours: &str| Some(format!("{}.{ours}", name.strip_suffix(theirs)?.strip_suffix('.')?));
    renamed("running_mean", "_mean").or_else(|| renamed("running_var", "_variance")).unwrap_or_else(|| name.to_owned())
}

/// Removes the wrappers inside a name. Those at the front are a prefix, and are found as such.
fn unwrapped(name: &str) -> String {
    let mut parts: Vec<_> = name.split('.').collect();
    let front = parts.iter().take_while(|part| WRAPPERS.contains(part)).count();
    let mut at = 0;
    parts.retain(|part| {
        at += 1;
        at <= front || !WRAPPERS.contains(part)
    });
    parts.join(".")
}

/// The possible places in one dictionary: each prefix that a landmark has, and no prefix.
fn places<K>((index, (dictionary, named)): (usize, (&Dictionary<K>, &Vec<Named<K>>))) -> Vec<Place> {
    let names: BTreeSet<_> = named.iter().map(|named| named.name.as_str()).collect();
    let prefixes = names.iter().flat_map(|name| LANDMARKS.iter().filter_map(|landmark| name.strip_suffix(landmark)));
    let mut prefixes: BTreeSet<_> = prefixes.filter(|prefix| prefix.is_empty() || prefix.ends_with('.')).collect();
    prefixes.insert("");
    let place = |prefix: &str| Place {
        dictionary: index,
        prefix: prefix.to_owned(),
        landmarks: LANDMARKS.iter().filter(|landmark| names.contains(format!("{prefix}{landmark}").as_str())).count(),
        tensors: names.len(),
        label: joined(&dictionary.path, prefix.trim_end_matches('.')),
    };
    prefixes.into_iter().map(place).collect()
}

fn joined(path: &str, key: &str) -> String {
    if path.is_empty() || key.is_empty() { format!("{path}{key}") } else { format!("{path}.{key}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The network's landmarks with a prefix, and one more tensor.
    fn network(prefix: &str) -> Vec<String> {
        LANDMARKS.iter().chain(&["layer1.0.conv1.weight"]).map(|name| format!("{prefix}{name}")).collect()
    }

    fn dictionary(path: &str, names: Vec<String>) -> Dictionary<()> {
        Dictionary {
            path: path.into(),
            tensors: names.into_iter().map(|name| (name, ())).collect(),
            others: Vec::new(),
        }
    }

    #[test]
    fn a_network_is_found_wherever_it_is() {
        let prefixes = [
            "",
            "module.",    // DataParallel
            "_layers.",   // Paddle's DataParallel
            "_orig_mod.", // torch.compile
            "model.",     // Lightning
            "backbone.",  // a detector's
            "student.",   // distillation
            "net.",
            "module._orig_mod.", // both
            "module.model.net.",
            "my_own_wrapper.", // an unknown prefix
        ];
        for path in ["", "state_dict", "checkpoint.model", "anything"] {
            for prefix in prefixes {
                let (found, tensors) = find(&[dictionary(path, network(prefix))], None).unwrap();
                assert_eq!(tensors.keys().collect::<BTreeSet<_>>(), network("").iter().collect(), "{path} {prefix}");
                // A wrapper inside a name is removed, and does not count as a prefix.
                assert_eq!(found.prefix, prefix.replace("module._orig_mod.", "module."), "{path}");
                assert_eq!((found.dictionary.as_str(), found.alternatives.len()), (path, 0), "{prefix}");
            }
        }
    }

    #[test]
    fn of_several_networks_one_is_chosen() {
        struct Case {
            /// The paths of dictionaries.
            paths: &'static [&'static str],
            /// The prefixes in the root.
            prefixes: &'static [&'static str],
            chosen: &'static str,
            others: &'static [&'static str],
        }
        let nested = |paths, chosen, others| Case { paths, prefixes: &[], chosen, others };
        let beside = |prefixes, chosen, others| Case { paths: &[], prefixes, chosen, others };
        let cases = [
            nested(&["model", "model_ema"], "model_ema", &["model"]),
            nested(&["state_dict", "ema_state_dict"], "ema_state_dict", &["state_dict"]),
            nested(&["model", "optimizer.ema"], "optimizer.ema", &["model"]),
            nested(&["teacher", "student"], "student", &["teacher"]),
            nested(&["net", "deeper.net"], "net", &["deeper.net"]),
            nested(&["b", "a"], "a", &["b"]), // otherwise equal: by name
            beside(&["student.", "teacher."], "student", &["teacher"]),
            beside(&["", "teacher."], ".", &["teacher"]),
            beside(&["", "ema."], "ema", &["."]),
        ];
        let label = |found: &Found| match joined(&found.dictionary, found.prefix.trim_end_matches('.')) {
            root if root.is_empty() => ".".to_owned(),
            label => label,
        };
        for Case { paths, prefixes, chosen, others } in cases {
            let root = dictionary("", prefixes.iter().flat_map(|prefix| network(prefix)).collect());
            let nested = paths.iter().map(|path| dictionary(path, network("")));
            let dictionaries: Vec<_> = [root].into_iter().chain(nested).collect();
            let (found, tensors) = find(&dictionaries, None).unwrap();
            assert_eq!((label(&found).as_str(), found.alternatives == others), (chosen, true), "{found:?}");
            assert_eq!(tensors.len(), network("").len(), "{chosen}");
            assert!(found.left_out.is_empty(), "{found:?}");
            // Each of the others can be selected.
            for other in others {
                let (found, tensors) = find(&dictionaries, Some(other)).unwrap();
                assert_eq!(label(&found), *other);
                assert!(tensors.contains_key("conv1.0.weight"), "{other}");
            }
        }
    }

    #[test]
    fn an_average_without_statistics_is_not_the_network() {
        let shadow = network("").into_iter().filter(|name| !name.ends_with("_mean")).collect();
        let (found, _) = find(&[dictionary("ema", shadow), dictionary("model", network(""))], None).unwrap();
        assert_eq!(found.dictionary, "model");
    }

    #[test]
    fn entries_that_are_left_out_are_named() {
        let names = [network("model."), vec!["criterion.weight".into(), "model.conv1.1.num_batches_tracked".into()]];
        let mut beside = dictionary("state_dict", names.concat());
        beside.others = vec!["epoch\u{7}".into()];
        let (found, tensors) = find(&[beside], None).unwrap();
        assert_eq!(tensors.len(), network("").len(), "without the counter");
        assert_eq!(
            found.to_string(),
            "read the dictionary `state_dict`; removed the prefix `model.` from every name; \
             left out `epoch\\u{7}`, `criterion.weight`"
        );
        assert_eq!(Found::default().to_string(), "", "nothing to report for a plain file");
    }

    #[test]
    fn pytorchs_names_become_paddlesegs() {
        let cases = [
            ("conv1.1.running_mean", "conv1.1._mean"),
            ("conv1.1.running_var", "conv1.1._variance"),
            ("conv1.1.weight", "conv1.1.weight"),
            ("running_mean", "running_mean"),     // without a layer
            ("my_running_var", "my_running_var"), // another word
            ("a.running_var.b", "a.running_var.b"),
            ("layer1._fsdp_wrapped_module.0.weight", "layer1.0.weight"),
            ("layer1._checkpoint_wrapped_module.0._orig_mod.weight", "layer1.0.weight"),
        ];
        for (theirs, ours) in cases {
            assert_eq!(paddle_name(&unwrapped(theirs)), ours);
        }
        let twice = ["a.running_mean", "a._mean"].map(String::from).to_vec();
        assert_eq!(find(&[dictionary("", twice)], None).unwrap_err(), "holds `a._mean` twice");
    }

    #[test]
    fn an_optimizers_state_is_not_a_model() {
        let named = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let with = |path: &str, names: &[&str], others: &[&str]| Dictionary {
            others: named(others),
            ..dictionary(path, named(names))
        };
        let refused = [
            vec![with("", &["conv2d_0.w_0_velocity_0"], &["LR_Scheduler"])], // Momentum
            vec![with("", &["conv2d_0.w_0_moment1_0", "conv2d_0.w_0_moment2_0"], &[])], // Adam
            vec![
                with("", &["conv2d_0.w_0_moment1_0"], &["master_weights"]),
                with("master_weights", &["conv2d_0.w_0"], &[]),
            ],
            vec![with("", &[], &["state", "param_groups"]), with("state", &[], &[])], // PyTorch's
            vec![with("", &[], &["optimizer", "epoch"]), with("optimizer", &[], &["state", "param_groups"])],
            vec![with("", &["state.0.exp_avg", "state.0.exp_avg_sq"], &[])], // as safetensors
        ];
        for dictionaries in refused {
            let reason = find(&dictionaries, None).map(|(found, _)| found).unwrap_err();
            assert!(reason.contains("state of an optimizer"), "{dictionaries:?}: {reason}");
        }
        let kept = [
            vec![with("", &["w"], &[])],
            vec![with("", &["w"], &["optimizer"]), with("optimizer", &[], &["state", "param_groups"])],
            vec![with("model", &["w"], &[]), with("optimizer", &["conv2d_0.w_0_velocity_0"], &["LR_Scheduler"])],
        ];
        for dictionaries in kept {
            assert!(find(&dictionaries, None).unwrap().1.contains_key("w"), "{dictionaries:?}");
        }
    }
}
