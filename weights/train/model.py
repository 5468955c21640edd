"""RTFormer (arXiv:2210.07124) in PyTorch, for training only; the engine that runs it is the Rust crate.

Modules and parameters are named as in PaddleSeg's `RTFormer`, so that one checkpoint reads the same in both:
`layer4.attn_l.k`, `spp.scale0.2.weight`, `seghead.conv2.bias`. Only batch norm's statistics are called
`running_mean` and `running_var` here (`_mean` and `_variance` there).

Shapes are `[batch, channels, height, width]`; `c` is `base_channels`, `1/8` a height and width of an eighth
of the photo's, rounded up.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Config:
    """What tells one RTFormer from another."""

    num_classes: int
    base_channels: int = 32
    spp_channels: int = 128
    num_heads: int = 8
    head_channels: int = 64
    cross_size: int = 12
    use_injection: tuple[bool, bool] = (True, True)
    layer_nums: tuple[int, int, int, int] = (2, 2, 2, 2)
    drop_path: float = 0.2

    @staticmethod
    def slim(num_classes: int, drop_path: float = 0.2, width: int = 32) -> "Config":
        """RTFormer-Slim with the widths and injections that PaddleSeg gives it for Cityscapes; with another `width`, all scaled with it."""
        return Config(num_classes, base_channels=width, spp_channels=4 * width, head_channels=2 * width, drop_path=drop_path)


class RTFormer(nn.Module):
    """Photo `[n, 3, H, W]` → logits `[n, classes, H/8, W/8]`; while training, or if asked, the auxiliary head's as well.

    The caller resizes the logits (`resize`), because training wants the crop's size and evaluation the photo's.
    """

    def __init__(self, config: Config):
        super().__init__()
        c = config.base_channels
        depth = config.layer_nums
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, c, 3, stride=2, padding=1), nn.BatchNorm2d(c), nn.ReLU(),
            nn.Conv2d(c, c, 3, stride=2, padding=1), nn.BatchNorm2d(c), nn.ReLU(),
        )
        self.layer1 = residual_stage(c, c, depth[0])
        self.layer2 = residual_stage(c, 2 * c, depth[1], stride=2)
        self.layer3 = residual_stage(2 * c, 4 * c, depth[2], stride=2)
        self.layer3_ = residual_stage(2 * c, 2 * c, 1)
        self.compression3 = norm_relu_conv(4 * c, 2 * c, 1)
        self.layer4 = EABlock(2 * c, 4 * c, 8 * c, config, config.use_injection[0])
        self.layer5 = EABlock(2 * c, 8 * c, 8 * c, config, config.use_injection[1])
        self.spp = DAPPM(8 * c, config.spp_channels, 2 * c)
        self.seghead = SegHead(4 * c, 2 * config.head_channels, config.num_classes)
        self.seghead_extra = SegHead(2 * c, config.head_channels, config.num_classes)
        self.reset_parameters()

    def forward(self, x: Tensor, extra: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        x1 = self.layer1(self.conv1(x))                                         # c,  1/4
        x2 = self.layer2(F.relu(x1))                                            # 2c, 1/8
        x3 = self.layer3(F.relu(x2))                                            # 4c, 1/16
        x3_ = self.layer3_(F.relu(x2 + resize_like(self.compression3(x3), x2))) # 2c, 1/8
        x4_, x4 = self.layer4(F.relu(x3_), F.relu(x3))                          # 2c, 1/8; 8c, 1/32
        x5_, x5 = self.layer5(F.relu(x4_), F.relu(x4))                          # 2c, 1/8; 8c, 1/32
        x6 = resize_like(self.spp(x5), x5_)                                     # 2c, 1/8
        logits = self.seghead(torch.cat([x5_, x6], dim=1))                      # classes, 1/8
        return (logits, self.seghead_extra(x3_)) if self.training or extra else logits

    def reset_parameters(self) -> None:
        """The original's start: He's normal for convs, almost nothing for attention, so that blocks begin as identities."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, ExternalAttention):
                nn.init.normal_(module.k, std=1e-3)
                nn.init.normal_(module.v, std=1e-3)
        for block in (self.layer4, self.layer5):
            nn.init.normal_(block.cross_kv[2].weight, std=0.02)


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear, with half-pixel centres, as every resize in this network."""
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def resize_like(x: Tensor, like: Tensor) -> Tensor:
    return resize(x, like.shape[2:])


def norm_relu_conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(inputs),
        nn.ReLU(),
        nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convs and a shortcut. The last block of a stage leaves its ReLU to the reader (`relu=False`)."""

    def __init__(self, inputs: int, outputs: int, stride: int, relu: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
        self.ends_in_relu = relu

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out = out + (x if self.downsample is None else self.downsample(x))
        return F.relu(out) if self.ends_in_relu else out


def residual_stage(inputs: int, outputs: int, depth: int, stride: int = 1) -> nn.Sequential:
    # A stage of one block keeps its ReLU; only a second or later block at the end drops it.
    first = BasicBlock(inputs, outputs, stride, relu=True)
    rest = [BasicBlock(outputs, outputs, 1, relu=i < depth - 1) for i in range(1, depth)]
    return nn.Sequential(first, *rest)


class MLP(nn.Module):
    """`[n, c, h, w]` → the same: norm, 3x3 conv, GELU, 3x3 conv."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, eps=1e-6)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.gelu(self.conv1(self.norm(x))))


class ExternalAttention(nn.Module):
    """GPU-friendly attention (section 3.1): keys and values are weights, shared by all photos.

    `[n, inputs, h, w]` → `[n, outputs, h, w]`, or half that height and width where the widths differ.
    """

    def __init__(self, inputs: int, outputs: int, heads: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(inputs)
        self.k = nn.Parameter(torch.empty(outputs, inputs, 1, 1))
        self.v = nn.Parameter(torch.empty(outputs, outputs, 1, 1))
        self.heads = heads
        self.stride = 1 if inputs == outputs else 2

    def forward(self, x: Tensor) -> Tensor:
        scores = F.conv2d(self.norm(x), self.k, stride=self.stride)
        return F.conv2d(self.grouped_double_norm(scores), self.v)

    def grouped_double_norm(self, scores: Tensor) -> Tensor:
        """Softmax over pixels, then every pixel divided by its sum over the head's channels."""
        n, c, h, w = scores.shape
        weights = scores.float().reshape(n, self.heads, c // self.heads, h * w).softmax(dim=3)
        weights = weights / (weights.sum(dim=2, keepdim=True) + 1e-6)
        return weights.reshape(n, c, h, w)


class CrossAttention(nn.Module):
    """Cross-resolution attention (section 3.2): keys and values come from the low branch's pooled map.

    `x [n, c, h, w]`, `k [n, c, s*s]`, `v [n, c, s*s]` → `[n, c, h, w]`
    """

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor, k: Tensor, v: Tensor) -> Tensor:
        pixels = self.norm(x).flatten(2)                                        # n, c, h*w
        scores = (k.transpose(1, 2) @ pixels) * k.shape[2] ** -0.5              # n, s*s, h*w
        return (v @ scores.softmax(dim=1).to(v.dtype)).reshape(x.shape)


class DropPath(nn.Module):
    """Stochastic depth: while training, a sample skips the branch with probability `rate`."""

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None  # PyTorch's own by default

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        keep = torch.rand(x.shape[0], 1, 1, 1, device=x.device, generator=self.generator) >= self.rate
        return x * (keep / (1.0 - self.rate)).to(x.dtype)


class EABlock(nn.Module):
    """The RTFormer block: `x_h [n, high, 1/8]`, `x_l [n, low_in, ...]` → `[n, high, 1/8]`, `[n, low, 1/32]`."""

    def __init__(self, high: int, low_in: int, low: int, config: Config, inject: bool):
        super().__init__()
        self.attn_shortcut_l = None
        if low_in != low:
            self.attn_shortcut_l = nn.Sequential(
                nn.BatchNorm2d(low_in), nn.Conv2d(low_in, low, 1, stride=2, bias=False)
            )
        self.attn_l = ExternalAttention(low_in, low, config.num_heads)
        self.mlp_l = MLP(low)
        self.compression = norm_relu_conv(low, high, 1)
        self.attn_h = CrossAttention(high)
        self.mlp_h = MLP(high)
        self.cross_kv = nn.Sequential(
            nn.BatchNorm2d(low),
            nn.AdaptiveMaxPool2d(config.cross_size),
            nn.Conv2d(low, 2 * high, 1, bias=False),
        )
        self.down = None
        if inject:
            self.down = nn.Sequential(
                *norm_relu_conv(high, low // 2, 3, stride=2), *norm_relu_conv(low // 2, low, 3, stride=2)
            )
        self.drop_path = DropPath(config.drop_path)

    def forward(self, x_h: Tensor, x_l: Tensor) -> tuple[Tensor, Tensor]:
        shortcut = x_l if self.attn_shortcut_l is None else self.attn_shortcut_l(x_l)
        x_l = shortcut + self.drop_path(self.attn_l(x_l))
        x_l = x_l + self.drop_path(self.mlp_l(x_l))

        # The upsampled low branch joins first: attention and its residual both see the sum.
        x_h = x_h + resize_like(self.compression(x_l), x_h)
        k, v = self.cross_kv(x_l).flatten(2).chunk(2, dim=1)
        x_h = x_h + self.drop_path(self.attn_h(x_h, k, v))
        x_h = x_h + self.drop_path(self.mlp_h(x_h))

        if self.down is not None:
            x_l = x_l + self.down(x_h)
        return x_h, x_l


class DAPPM(nn.Module):
    """`[n, inputs, h, w]` → `[n, outputs, h, w]`: five views of one map, each wider and added to the last."""

    def __init__(self, inputs: int, inner: int, outputs: int):
        super().__init__()
        pools = [
            nn.AvgPool2d(5, stride=2, padding=2),  # these count the zero border, as the original's do
            nn.AvgPool2d(9, stride=4, padding=4),
            nn.AvgPool2d(17, stride=8, padding=8),
            nn.AdaptiveAvgPool2d(1),
        ]
        self.scale0 = norm_relu_conv(inputs, inner, 1)
        for i, pool in enumerate(pools, start=1):
            setattr(self, f"scale{i}", nn.Sequential(pool, *norm_relu_conv(inputs, inner, 1)))
            setattr(self, f"process{i}", norm_relu_conv(inner, inner, 3))
        self.compression = norm_relu_conv(5 * inner, outputs, 1)
        self.shortcut = norm_relu_conv(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        views = [self.scale0(x)]
        for i in range(1, 5):
            scale, process = getattr(self, f"scale{i}"), getattr(self, f"process{i}")
            views.append(process(resize_like(scale(x), x) + views[-1]))
        return self.compression(torch.cat(views, dim=1)) + self.shortcut(x)


class SegHead(nn.Module):
    """`[n, inputs, h, w]` → logits `[n, classes, h, w]`."""

    def __init__(self, inputs: int, inner: int, classes: int):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inner, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.bn2(self.conv1(F.relu(self.bn1(x))))))
