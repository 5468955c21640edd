//! `eval --by-rules`: the accuracy of the masks that the explainer's rules give.

use std::sync::mpsc::sync_channel;
use std::thread;

use rtformer::eval::{Evaluation, Measuring, Pair};
use rtformer::explain::Explainer;
use rtformer::{Segmenter, Size};

use super::super::console::Console;
use super::super::misuse;
use super::Args;

/// The number of photos that are decoded ahead.
const AHEAD: usize = 2;

/// Checks that the flags can be combined.
pub(super) fn check(args: &Args) -> anyhow::Result<()> {
    if args.by_rules && args.size != Size::Native {
        return Err(misuse("rules are for photos of their own size; omit --size"));
    }
    if args.by_rules && args.model.classes_text().is_some() {
        return Err(misuse("rules are for the network's own classes; omit --classes and --merge"));
    }
    Ok(())
}

/// Segments and explains photos one by one, and counts the pixels of the masks in which each region has the class of its rule. There are no
/// confidences to count, because rules have none.
pub(super) fn measure(
    explainer: &Explainer,
    console: &Console,
    segmenter: &Segmenter,
    (pairs, measuring): (&[Pair], &Measuring),
    evaluation: &mut Evaluation,
) {
    let bar = console.progress(pairs.len() as u64, "photos");
    thread::scope(|scope| {
        let (sender, opened) = sync_channel(AHEAD);
        scope.spawn(move || pairs.iter().all(|pair| sender.send((pair, measuring.open(pair, segmenter))).is_ok()));
        for (pair, opened) in &opened {
            let counted = opened.and_then(|(photo, labels)| {
                let mut scene = segmenter.segment(&photo)?;
                let explanation = explainer.explain(&photo, &scene)?;
                let mut mask = scene.take_mask();
                explanation.relabel(&mut mask)?;
                evaluation.count(pair, &labels, &mask, None).map(drop)
            });
            if let Err(error) = counted {
                evaluation.failed += 1;
                console.error(&error.to_string());
            }
            bar.inc(1);
        }
    });
    console.finish();
}
