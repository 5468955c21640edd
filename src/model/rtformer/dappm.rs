//! The deep aggregation pyramid pooling module, between the low branch and the head.
//!
//! Source: DDRNet, arXiv:2101.06085, section 3.3, as arranged in PaddleSeg.

use crate::backend::{Backend, Epilogue, Window};
use crate::error::Result;
use crate::model::parts::{Parts, Plan};

/// The pools of the branches, from the smallest window to the whole map.
const POOLS: [Option<Window>; 4] = [
    Some(Window { kernel: 5, stride: 2, padding: 2 }),
    Some(Window { kernel: 9, stride: 4, padding: 4 }),
    Some(Window { kernel: 17, stride: 8, padding: 8 }),
    None,
];

/// One of the four pooled views.
struct Branch<B: Backend> {
    pool: Option<Window>,
    scale: B::Conv,
    process: B::Conv,
}

impl<B: Backend> Branch<B> {
    fn load(
        parts: &mut Parts<'_, B>,
        name: &str,
        i: usize,
        pool: Option<Window>,
        [low, inner]: [usize; 2],
    ) -> Result<Self> {
        let of = |part: &str| format!("{name}.{part}{i}");
        // `scale` is `Sequential(pool, norm, ReLU, conv)`: the pool is number 0, so the others are numbered one higher than usual.
        let scale = of("scale");
        let (norm, conv) = (format!("{scale}.1"), format!("{scale}.3"));
        Ok(Self {
            pool,
            scale: parts.conv(&Plan::new(&conv, low, inner, 1).norm_relu_before(&norm))?,
            process: parts.norm_relu_conv(&of("process"), inner, inner, 3)?,
        })
    }

    /// Pools `x` in wider windows than those of `last`, and adds the result to `last`.
    fn forward(&self, b: &B, x: &B::Tensor, last: &B::Tensor) -> Result<B::Tensor> {
        let wide = b.conv(&self.scale, &b.avg_pool(x, self.pool)?, Epilogue::default())?;
        let seen = b.resize_add(&wide, last)?;
        b.conv(&self.process, &seen, Epilogue::default())
    }
}

/// Five views of one map, merged.
pub(super) struct Dappm<B: Backend> {
    scale0: B::Conv,
    branches: [Branch<B>; 4],
    compression: B::Conv,
    shortcut: B::Conv,
}

impl<B: Backend> Dappm<B> {
    pub(super) fn load(parts: &mut Parts<'_, B>, name: &str, low: usize, inner: usize, out: usize) -> Result<Self> {
        let of = |part: &str| format!("{name}.{part}");
        let [pool1, pool2, pool3, pool4] = POOLS;
        let mut branch = |i, pool| Branch::load(parts, name, i, pool, [low, inner]);
        Ok(Self {
            branches: [branch(1, pool1)?, branch(2, pool2)?, branch(3, pool3)?, branch(4, pool4)?],
            scale0: parts.norm_relu_conv(&of("scale0"), low, inner, 1)?,
            compression: parts.norm_relu_conv(&of("compression"), (POOLS.len() + 1) * inner, out, 1)?,
            shortcut: parts.norm_relu_conv(&of("shortcut"), low, out, 1)?,
        })
    }

    /// `[n, 8c, h, w]` → `[n, 2c, h, w]`: five views of one map, each wider than the last and added to it.
    pub(super) fn forward(&self, b: &B, x: &B::Tensor) -> Result<B::Tensor> {
        let [branch1, branch2, branch3, branch4] = &self.branches;
        let view0 = b.conv(&self.scale0, x, Epilogue::default())?;
        let view1 = branch1.forward(b, x, &view0)?;
        let view2 = branch2.forward(b, x, &view1)?;
        let view3 = branch3.forward(b, x, &view2)?;
        let view4 = branch4.forward(b, x, &view3)?;
        let shortcut = b.conv(&self.shortcut, x, Epilogue::default())?;
        let views = b.concat(&[&view0, &view1, &view2, &view3, &view4])?;
        b.conv(&self.compression, &views, Epilogue::residual(&shortcut))
    }
}
