//! The RTFormer block: GPU-friendly attention on the low branch, cross-resolution attention on the high branch, and the injection
//! of the high branch into the low one.
//!
//! Source: RTFormer, arXiv:2210.07124, section 3.

use super::block::Mlp;
use crate::backend::{Backend, Epilogue};
use crate::error::Result;
use crate::model::parts::{EPSILON, Parts, Plan};

/// Widths of one block.
#[derive(Clone, Copy)]
pub(super) struct Widths {
    /// The high branch's channels, in and out.
    pub(super) high: usize,
    /// The low branch's channels, in and out. If they differ, the map's height and width are halved.
    pub(super) low: [usize; 2],
    /// Number of groups of the double normalization.
    pub(super) heads: usize,
    /// Side of the pooled map from which keys and values are computed.
    pub(super) cross_size: usize,
}

/// Attention to external keys `k` and values `v`, which are parameters: two matrix products with a double normalization between them.
struct GpuFriendlyAttention<B: Backend> {
    k: B::Conv,
    v: B::Conv,
    /// If the channels change: a norm and a strided 1x1 convolution in parallel with the attention.
    shortcut: Option<B::Conv>,
    heads: usize,
}

impl<B: Backend> GpuFriendlyAttention<B> {
    fn load(parts: &mut Parts<'_, B>, name: &str, Widths { low: [c, d], heads, .. }: Widths) -> Result<Self> {
        let of = |part: &str| format!("{name}.{part}");
        let stride = if c == d { 1 } else { 2 };
        let (norm, k, v) = (of("attn_l.norm"), of("attn_l.k"), of("attn_l.v"));
        let (shortcut_norm, shortcut) = (of("attn_shortcut_l.0"), of("attn_shortcut_l.1"));
        Ok(Self {
            k: parts.conv(&Plan::new(&k, c, d, 1).stride(stride).bare().norm_before(&norm, EPSILON))?,
            v: parts.conv(&Plan::new(&v, d, d, 1).bare())?,
            shortcut: if c == d {
                None
            } else {
                Some(parts.conv(&Plan::new(&shortcut, c, d, 1).stride(stride).norm_before(&shortcut_norm, EPSILON))?)
            },
            heads,
        })
    }

    /// `[n, c, h, w]` → `[n, d, h, w]`, with `h` and `w` halved if `c != d`. The residual is included.
    fn forward(&self, b: &B, x: &B::Tensor) -> Result<B::Tensor> {
        let around = self.shortcut.as_ref().map(|conv| b.conv(conv, x, Epilogue::default())).transpose()?;
        let scores = b.conv(&self.k, x, Epilogue::default())?;
        let weights = b.ea_norm(scores, self.heads)?;
        b.conv(&self.v, &weights, Epilogue::residual(around.as_ref().unwrap_or(x)))
    }
}

/// Attention of the high branch to keys and values pooled from the low branch.
struct CrossAttention<B: Backend> {
    /// Applied before the queries.
    norm: B::Norm,
    /// Applied before the pool. It cannot move after the pool: a negative scale turns the maximum into a minimum.
    pool_norm: B::Norm,
    kv: B::Conv,
    side: usize,
}

impl<B: Backend> CrossAttention<B> {
    fn load(
        parts: &mut Parts<'_, B>,
        name: &str,
        Widths { high, low: [_, d], cross_size, .. }: Widths,
    ) -> Result<Self> {
        let of = |part: &str| format!("{name}.{part}");
        Ok(Self {
            norm: parts.norm(&of("attn_h.norm"), high)?,
            pool_norm: parts.norm(&of("cross_kv.0"), d)?,
            kv: parts.conv(&Plan::new(&of("cross_kv.2"), d, 2 * high, 1))?,
            side: cross_size,
        })
    }

    /// Low `[n, 8c, h/32, w/32]` → keys and values `[n, 4c, side, side]`.
    fn keys_and_values(&self, b: &B, low: &B::Tensor) -> Result<B::Tensor> {
        let pooled = b.max_pool_to(low, &self.pool_norm, self.side)?; // 8c, side
        b.conv(&self.kv, &pooled, Epilogue::default())
    }

    /// High `[n, 2c, h/8, w/8]` → the same shape. The residual is included.
    fn forward(&self, b: &B, high: &B::Tensor, kv: &B::Tensor) -> Result<B::Tensor> {
        b.cross_attend(high, &self.norm, kv)
    }
}

/// Adds the high branch to the low one, downsampled by two strided 3x3 convolutions.
struct Injection<B: Backend>([B::Conv; 2]);

impl<B: Backend> Injection<B> {
    fn load(parts: &mut Parts<'_, B>, name: &str, Widths { high, low: [_, d], .. }: Widths) -> Result<Self> {
        let of = |part: usize| format!("{name}.down.{part}");
        let (norm0, conv0, norm1, conv1) = (of(0), of(2), of(3), of(5));
        Ok(Self([
            parts.conv(&Plan::new(&conv0, high, d / 2, 3).stride(2).norm_relu_before(&norm0))?,
            parts.conv(&Plan::new(&conv1, d / 2, d, 3).stride(2).norm_relu_before(&norm1))?,
        ]))
    }

    fn forward(&self, b: &B, high: &B::Tensor, low: &B::Tensor) -> Result<B::Tensor> {
        let half = b.conv(&self.0[0], high, Epilogue::default())?;
        b.conv(&self.0[1], &half, Epilogue::residual(low))
    }
}

/// What the high branch of a block takes from the low one.
pub(super) struct FromLow<T> {
    /// `[n, 2c, h/32, w/32]`, to be resized and added.
    pub(super) sum: T,
    /// Keys and values `[n, 4c, side, side]`.
    pub(super) kv: T,
}

/// One RTFormer block, both branches.
pub(super) struct RtFormerBlock<B: Backend> {
    attention_low: GpuFriendlyAttention<B>,
    mlp_low: Mlp<B>,
    compression: B::Conv,
    attention_high: CrossAttention<B>,
    mlp_high: Mlp<B>,
    injection: Option<Injection<B>>,
}

impl<B: Backend> RtFormerBlock<B> {
    pub(super) fn load(parts: &mut Parts<'_, B>, name: &str, widths: Widths, inject: bool) -> Result<Self> {
        let Widths { high, low: [_, d], .. } = widths;
        let of = |part: &str| format!("{name}.{part}");
        Ok(Self {
            attention_low: GpuFriendlyAttention::load(parts, name, widths)?,
            mlp_low: Mlp::load(parts, &of("mlp_l"), d)?,
            compression: parts.norm_relu_conv(&of("compression"), d, high, 1)?,
            attention_high: CrossAttention::load(parts, name, widths)?,
            mlp_high: Mlp::load(parts, &of("mlp_h"), high)?,
            injection: if inject { Some(Injection::load(parts, name, widths)?) } else { None },
        })
    }

    /// High and low, both after their ReLU → high and low, both without a ReLU.
    pub(super) fn forward(&self, b: &B, mut high: B::Tensor, mut low: B::Tensor) -> Result<(B::Tensor, B::Tensor)> {
        low = self.low(b, &low)?;
        let FromLow { sum, kv } = self.for_high(b, &low)?;

        // From here on, the sum is the high branch: both its attention and its residual use it.
        high = self.high(b, &b.resize_add(&sum, &high)?, &kv)?;
        low = self.inject(b, &high, low)?;
        Ok((high, low))
    }

    /// The low branch, after its ReLU, without the injection.
    pub(super) fn low(&self, b: &B, low: &B::Tensor) -> Result<B::Tensor> {
        self.mlp_low.forward(b, &self.attention_low.forward(b, low)?)
    }

    /// What the high branch takes from this result of [`low`](Self::low).
    pub(super) fn for_high(&self, b: &B, low: &B::Tensor) -> Result<FromLow<B::Tensor>> {
        let sum = b.conv(&self.compression, low, Epilogue::default())?;
        Ok(FromLow { sum, kv: self.attention_high.keys_and_values(b, low)? })
    }

    /// The high branch, after [`FromLow::sum`] was added. Each pixel of the result depends on pixels within two of its own only.
    pub(super) fn high(&self, b: &B, high: &B::Tensor, kv: &B::Tensor) -> Result<B::Tensor> {
        self.mlp_high.forward(b, &self.attention_high.forward(b, high, kv)?)
    }

    /// Adds the high branch to the low one, if the block does this.
    pub(super) fn inject(&self, b: &B, high: &B::Tensor, low: B::Tensor) -> Result<B::Tensor> {
        match &self.injection {
            Some(injection) => injection.forward(b, high, &low),
            None => Ok(low),
        }
    }
}
