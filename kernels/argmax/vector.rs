//! Upsampling and argmax, one chunk of output columns (`chunk.rs`) at a time.

use super::chunk::{COLUMNS, Chunk, GROUPS};
use super::settled::Settled;
use super::{Argmax, ClassId, Upsample};
use crate::simd::{Simd, Vector, exp};

impl<T: ClassId> Vector for Argmax<'_, T> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { upsampled: u, ids, mut confidence, skip } = self;
        let (layout, mut chunk, mut settled) = (u.logits.layout(), Chunk::new(), Settled::new());
        let (mut best, mut winner, mut sum) = ([[0.0; 16]; GROUPS], [[0.0; 16]; GROUPS], [[0.0; 16]; GROUPS]);
        while chunk.place(&u) {
            settled.forget();
            let groups = chunk.len.div_ceil(16);
            for (line, row) in u.rows.clone().enumerate() {
                let y = u.vertical.tap(row);
                let out = line * u.width + chunk.start..line * u.width + chunk.start + chunk.len;
                if skip {
                    // SAFETY: the caller guarantees the CPU features.
                    unsafe { settled.find::<S>(&chunk, u.logits, y) };
                }
                // The confidence needs every class of every pixel.
                let needed = if confidence.is_some() { &[true; COLUMNS / 16] } else { settled.needed() };
                for block in 0..layout.blocks() {
                    // SAFETY: the caller guarantees the CPU features; lanes are below 16, and the arrays hold 16 floats per group.
                    unsafe {
                        chunk.fill::<S>(u.logits, y, block, needed);
                        for g in 0..groups {
                            let group = &chunk.groups[g];
                            if let Some(class) = settled.class(g) {
                                // The result without the skip: the winner's logit is the largest.
                                if confidence.is_some() && class as usize / 16 == block {
                                    chunk.logits::<S>(class as usize % 16, group).store(best[g].as_mut_ptr());
                                }
                                continue;
                            }
                            // The first class wins unless another one is larger, whatever its value.
                            let first_lane = usize::from(block == 0);
                            let (mut top, mut class) = if block == 0 {
                                (chunk.logits::<S>(0, group), S::splat(0.0))
                            } else {
                                (S::load(best[g].as_ptr()), S::load(winner[g].as_ptr()))
                            };
                            for lane in first_lane..layout.real_lanes(block) {
                                let value = chunk.logits::<S>(lane, group);
                                class = value.if_above(top, S::splat((16 * block + lane) as f32), class);
                                top = value.max(top);
                            }
                            top.store(best[g].as_mut_ptr());
                            class.store(winner[g].as_mut_ptr());
                        }
                    }
                }
                for (g, ids) in ids[out.clone()].chunks_mut(16).enumerate() {
                    let settled = settled.class(g).map(T::from_class);
                    let classes: [T; 16] =
                        settled.map_or_else(|| winner[g].map(|c| T::from_class(c as u32)), |c| [c; 16]);
                    match ids.as_chunks_mut::<16>() {
                        ([all], []) => *all = classes, // a length that is known at compile time
                        (_, some) => some.copy_from_slice(&classes[..some.len()]),
                    }
                }

                let Some(confidence) = &mut confidence else { continue };
                for block in 0..layout.blocks() {
                    // SAFETY: as above. If there is only one block, the planes still hold it.
                    unsafe {
                        if layout.blocks() > 1 {
                            chunk.fill::<S>(u.logits, y, block, needed);
                        }
                        let sharpness = S::splat(1.0 / confidence.temperature);
                        for g in 0..groups {
                            let group = &chunk.groups[g];
                            let top = S::load(best[g].as_ptr());
                            let mut total = if block == 0 { S::splat(0.0) } else { S::load(sum[g].as_ptr()) };
                            for lane in 0..layout.real_lanes(block) {
                                total = total.add(exp(chunk.logits::<S>(lane, group).sub(top).mul(sharpness)));
                            }
                            total.store(sum[g].as_mut_ptr());
                        }
                    }
                }
                for (values, sum) in confidence.values[out].chunks_mut(16).zip(&sum) {
                    for (value, sum) in values.iter_mut().zip(sum) {
                        *value = 1.0 / sum;
                    }
                }
            }
        }
    }
}

impl Vector for Upsample<'_, '_> {
    #[inline(always)]
    unsafe fn vector<S: Simd>(self) {
        let Self { upsampled: u, planes } = self;
        let (layout, mut chunk) = (u.logits.layout(), Chunk::new());
        while chunk.place(&u) {
            for (line, row) in u.rows.clone().enumerate() {
                let y = u.vertical.tap(row);
                for block in 0..layout.blocks() {
                    // SAFETY: the caller guarantees the CPU features.
                    unsafe { chunk.fill::<S>(u.logits, y, block, &[true; COLUMNS / 16]) };
                    for lane in 0..layout.real_lanes(block) {
                        let start = line * u.width + chunk.start;
                        let out = planes[16 * block + lane][start..start + chunk.len].chunks_mut(16);
                        for (group, out) in chunk.groups.iter().zip(out) {
                            // SAFETY: the caller guarantees the CPU features; the lane is below 16; 16 floats are
                            // stored only if there is room for them.
                            unsafe {
                                let values = chunk.logits::<S>(lane, group);
                                if out.len() == 16 {
                                    values.store(out.as_mut_ptr());
                                } else {
                                    let mut lanes = [0.0; 16];
                                    values.store(lanes.as_mut_ptr());
                                    out.copy_from_slice(&lanes[..out.len()]);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}
