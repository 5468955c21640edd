//! Concatenates channels in blocks of sixteen.

use rtformer_kernels::Layout;

/// Concatenates the channels of `parts` in `out`, with halos. All have the same height and width.
pub(super) fn concat<'a>(parts: impl Iterator<Item = (&'a [f32], Layout)> + Clone, out: &mut [f32], layout: Layout) {
    let block = layout.block_stride();
    if parts.clone().any(|(_, part)| part.channels % 16 != 0) {
        out.fill(0.0); // Lanes after the last channel must be zero, and the loop below writes only channels.
    }
    let mut first = 0;
    for (floats, part) in parts {
        if first % 16 == 0 && part.channels % 16 == 0 {
            out[first / 16 * block..][..part.len()].copy_from_slice(&floats[..part.len()]);
        } else {
            for channel in 0..part.channels {
                let source = floats[channel / 16 * block..][..block].iter().skip(channel % 16).step_by(16);
                let to = first + channel;
                let target = out[to / 16 * block..][..block].iter_mut().skip(to % 16).step_by(16);
                target.zip(source).for_each(|(target, source)| *target = *source);
            }
        }
        first += part.channels;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_keep_their_order_for_all_widths() {
        for widths in [vec![16, 32], vec![3, 5], vec![16, 5, 16], vec![17, 1]] {
            let layout = |channels| Layout::blocked(channels, 2, 3);
            let mut next = 0.0;
            let parts: Vec<(Vec<f32>, Layout)> = widths
                .iter()
                .map(|&channels| {
                    let mut floats = vec![0.0; layout(channels).len()];
                    for c in 0..channels {
                        next += 1.0;
                        let block = layout(channels).block_stride();
                        floats[c / 16 * block..][..block].iter_mut().skip(c % 16).step_by(16).for_each(|v| *v = next);
                    }
                    (floats, layout(channels))
                })
                .collect();
            let whole = layout(widths.iter().sum());
            let mut out = vec![f32::NAN; whole.len()];
            concat(parts.iter().map(|(floats, layout)| (&floats[..], *layout)), &mut out, whole);
            for (lane, values) in
                (0..whole.blocks() * 16).map(|lane| (lane, out[lane / 16 * whole.block_stride() + lane % 16]))
            {
                let want = if lane < whole.channels { lane as f32 + 1.0 } else { 0.0 };
                assert!((values - want).abs() < f32::EPSILON, "{widths:?}, channel {lane}: {values}, not {want}");
            }
        }
    }
}
