//! The deep aggregation pyramid pooling module, between the low branch and the head.
//!
//! Source: DDRNet, arXiv:2101.06085, section 3.3, in PaddleSeg's arrangement.

use super::parts::Parts;
use crate::backend::{Backend, Epilogue, Window};
use crate::error::Result;

/// The pools of the branches, from the narrowest to the whole map.
const POOLS: [Option<Window>; 4] = [
    Some(Window { kernel: 5, stride: 2, padding: 2 }),
    Some(Window { kernel: 9, stride: 4, padding: 4 }),
    Some(Window { kernel: 17, stride: 8, padding: 8 }),
    None,
];

struct Branch<B: Backend> {
    pool: Option<Window>,
    scale: B::Conv,
    process: B::Conv,
}

/// Five views of one map, merged.
pub(super) struct Dappm<B: Backend> {
    scale0: B::Conv,
    branches: Vec<Branch<B>>,
    compression: B::Conv,
    shortcut: B::Conv,
}

impl<B: Backend> Dappm<B> {
    pub(super) fn load(parts: &mut Parts<'_, B>, name: &str, low: usize, inner: usize, out: usize) -> Result<Self> {
        let of = |part: &str| format!("{name}.{part}");
        let branches = POOLS.into_iter().enumerate().map(|(i, pool)| {
            let i = i + 1;
            Ok(Branch {
                pool,
                scale: norm_relu_conv_behind_pool(parts, &of(&format!("scale{i}")), low, inner)?,
                process: parts.norm_relu_conv(&of(&format!("process{i}")), inner, inner, 3)?,
            })
        });
        let branches = branches.collect::<Result<_>>()?;
        Ok(Self {
            scale0: parts.norm_relu_conv(&of("scale0"), low, inner, 1)?,
            branches,
            compression: parts.norm_relu_conv(&of("compression"), (POOLS.len() + 1) * inner, out, 1)?,
            shortcut: parts.norm_relu_conv(&of("shortcut"), low, out, 1)?,
        })
    }

    /// `[n, 8c, h, w]` → `[n, 2c, h, w]`: five views of one map, each wider and added to the last.
    pub(super) fn forward(&self, b: &B, x: &B::Tensor) -> Result<B::Tensor> {
        let mut views = vec![b.conv(&self.scale0, x, Epilogue::default())?];
        for branch in &self.branches {
            let wide = b.conv(&branch.scale, &b.avg_pool(x, branch.pool)?, Epilogue::default())?;
            let seen = b.resize_add(&wide, &views[views.len() - 1])?;
            views.push(b.conv(&branch.process, &seen, Epilogue::default())?);
        }
        let shortcut = b.conv(&self.shortcut, x, Epilogue::default())?;
        b.conv(&self.compression, &b.concat(&views.iter().collect::<Vec<_>>())?, Epilogue::residual(&shortcut))
    }
}

/// `Sequential(pool, norm, ReLU, conv)`: the pool has number 0, so the others are one further than usual.
fn norm_relu_conv_behind_pool<B: Backend>(
    parts: &mut Parts<'_, B>,
    name: &str,
    low: usize,
    inner: usize,
) -> Result<B::Conv> {
    let (norm, conv) = (format!("{name}.1"), format!("{name}.3"));
    parts.conv(&super::parts::Plan::new(&conv, low, inner, 1).norm_relu_before(&norm))
}
