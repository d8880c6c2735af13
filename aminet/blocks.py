"""AMINet's parts, named as in the paper (sections III-B and III-C). All keep (N, C, H, W)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aminet.config import LR_SIDE, SR_SIDE, ModelConfig
from aminet.depthwise import DepthwiseConv2d

GATE_BIAS = 2.0  # SKAF's sigmoids start open, at 0.88
BRANCH_GAIN = 0.1  # the last convolution of a residual branch starts this small: no warm-up needed


def conv(channels: int, out: int, kernel: int = 3, *, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps the side (over its stride)."""
    return nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2)


def activation(config: ModelConfig) -> nn.Module:
    return nn.ReLU() if config.activation == "relu" else nn.GELU()


class ChannelLayerNorm(nn.Module):
    """LayerNorm over the channels of (N, C, H, W), at each pixel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def before_branch(config: ModelConfig, channels: int) -> nn.Module:
    """The normalization in front of a branch, Restormer's way; none if convolutions carry it."""
    return ChannelLayerNorm(channels) if config.norm == "layer" else nn.Identity()


def normalized(config: ModelConfig, convolution: nn.Conv2d) -> nn.Module:
    """A convolution and, with norm "batch", a batch normalization that folds into it on export."""
    if config.norm != "batch":
        return convolution
    return nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels))


class BicubicUpscaling(nn.Module):
    """Upscale (N, 3, H, W) by a whole factor, as `interpolate(mode="bicubic")` does.

    Bicubic interpolation by a whole factor is linear and the same at each pixel: a fixed 5x5
    convolution gives all phases, a pixel shuffle puts them in place. As a cubic Resize it
    would be a quarter of aminet-edge's time in ONNX Runtime.
    """

    CUBIC_A = -0.75  # of torch's and OpenCV's cubic kernel

    weight: Tensor

    def __init__(self, scale: int = SR_SIDE // LR_SIDE) -> None:
        super().__init__()
        self.scale = scale
        taps = self._taps()
        phases = torch.einsum("iy,jx->ijyx", taps, taps).reshape(-1, 1, 5, 5)
        self.register_buffer("weight", phases.repeat(3, 1, 1, 1).float(), persistent=False)

    def _taps(self) -> Tensor:
        """(scale, 5): for each output phase the weights of the input pixels at -2 ... 2."""
        phase = (torch.arange(self.scale, dtype=torch.float64) + 0.5) / self.scale - 0.5
        distance = (phase[:, None] - torch.arange(-2, 3)).abs()
        a = self.CUBIC_A
        near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
        far = ((a * distance - 5 * a) * distance + 8 * a) * distance - 4 * a
        return torch.where(distance <= 1, near, torch.where(distance < 2, far, 0.0))

    def forward(self, lr: Tensor) -> Tensor:
        padded = F.pad(lr, (2, 2, 2, 2), mode="replicate")
        phases = F.conv2d(padded, self.weight.to(lr.dtype), groups=3)
        return F.pixel_shuffle(phases, self.scale)


class BlockTransform(nn.Module):
    """Pixel unshuffle in another basis: (N, 3, H, W) -> (N, 3 * scale^2, H / scale, W / scale).

    Each block of scale x scale pixels becomes its mean and the other coefficients of its discrete
    cosine transform: first the three means, then the detail. It is invertible, and brightness and
    detail are separate channels of similar scale: on plain unshuffled pixels each step of the
    optimizer would shift the brightness. One fixed convolution with a stride.
    """

    weight: Tensor

    def __init__(self, scale: int) -> None:
        super().__init__()
        self.scale = scale
        position = (torch.arange(scale, dtype=torch.float64) + 0.5) * math.pi / scale
        waves = torch.cos(torch.arange(scale)[:, None] * position) * (2 / scale) ** 0.5
        waves[0] /= 2**0.5
        basis = torch.einsum("iy,jx->ijyx", waves, waves).reshape(scale**2, scale, scale)
        basis[0] /= scale  # the mean instead of the orthonormal coefficient
        kernel = torch.zeros(scale**2, 3, 3, scale, scale, dtype=torch.float64)
        for colour in range(3):
            kernel[:, colour, colour] = basis
        flat = kernel.reshape(-1, 3, scale, scale).float()
        self.register_buffer("weight", flat, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.to(x.dtype), stride=self.scale)


class SA(nn.Module):
    """Self-attention over channels (eqs. 1-5; Restormer's MDTA): the global branch.

    The attention map is (channels x channels) a head, so its cost grows with the pixels, not
    with their square.
    """

    def __init__(self, config: ModelConfig, level: int) -> None:
        super().__init__()
        channels, self.heads = config.channels[level], config.heads[level]
        self.temperature = nn.Parameter(torch.ones(self.heads, 1, 1))
        pointwise = normalized(config, conv(channels, 3 * channels, 1))
        self.qkv = nn.Sequential(pointwise, DepthwiseConv2d(3 * channels, 3))
        self.project = conv(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        _, channels, height, width = x.shape
        qkv = self.qkv(x).reshape(-1, 3, self.heads, channels // self.heads, height * width)
        q, k, v = qkv.unbind(1)
        attended = self.attention(q, k) @ v
        return self.project(attended.reshape(-1, channels, height, width))

    def attention(self, q: Tensor, k: Tensor) -> Tensor:
        """Queries and keys (N, heads, C / heads, H * W) -> (N, heads, C / heads, C / heads)."""
        similarity = F.normalize(k, dim=-1) @ F.normalize(q, dim=-1).transpose(-2, -1)
        return (similarity * self.temperature).softmax(-1)


class AttentionUnit(nn.Module):
    """Channels pooled over the pixels (N, C, 1, 1) -> their weights, the same shape in [0, 1]."""

    def __init__(self, channels: int, reduction: int = 8) -> None:
        super().__init__()
        self.squeeze = conv(channels, max(channels // reduction, 8), 1)
        self.excite = conv(max(channels // reduction, 8), channels, 1)

    def forward(self, pooled: Tensor) -> Tensor:
        return self.excite(self.squeeze(pooled).relu()).sigmoid()


def refining_conv(config: ModelConfig, channels: int) -> nn.Module:
    return nn.Sequential(normalized(config, conv(channels, channels)), activation(config))


class Hourglass(nn.Module):
    """Convolutions at H, H/2, ..., H/2^halvings and back, with a skip at each side."""

    def __init__(self, config: ModelConfig, channels: int, halvings: int) -> None:
        super().__init__()
        self.before = refining_conv(config, channels)
        self.inner = Hourglass(config, channels, halvings - 1) if halvings > 1 else nn.Identity()
        self.after = refining_conv(config, channels)

    def forward(self, x: Tensor) -> Tensor:
        smaller = self.after(self.inner(self.before(F.avg_pool2d(x, 2))))
        return x + F.interpolate(smaller, scale_factor=2.0, mode="nearest")


class FRM(nn.Module):
    """Feature refinement (eq. 10): normalization, 3x3 convolutions, hourglass; residual."""

    def __init__(self, config: ModelConfig, level: int) -> None:
        super().__init__()
        channels, halvings = config.channels[level], config.hourglass[level]
        parts: list[nn.Module] = [before_branch(config, channels)]
        for _ in range(config.refine_convs[level]):
            parts.append(refining_conv(config, channels))
        if halvings:
            parts.append(Hourglass(config, channels, halvings))
        self.refine = nn.Sequential(*parts)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.refine(x)


class RDFE(nn.Module):
    """Residual depth feature extraction (eqs. 6-10): the local branch.

    Parallel depthwise convolutions of 3, 5 and 7 pixels; the attention unit weighs their
    channels; each is convolved again with its own kernel; a 1x1 convolution mixes them; FRM.
    """

    def __init__(self, config: ModelConfig, level: int) -> None:
        super().__init__()
        channels, kernels = config.channels[level], config.rdfe_kernels
        width = round(channels * config.branch_ratio)
        self.reduce = (
            normalized(config, conv(channels, width, 1)) if width != channels else nn.Identity()
        )
        self.extract = nn.ModuleList(normalized(config, DepthwiseConv2d(width, k)) for k in kernels)
        self.activation = activation(config)
        self.attention = AttentionUnit(width * len(kernels)) if config.attention_unit else None
        self.refine = nn.ModuleList(DepthwiseConv2d(width, kernel) for kernel in kernels)
        self.mix = normalized(config, conv(width * len(kernels), channels, 1))
        self.frm = FRM(config, level) if config.refinement else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        branches = [self.activation(extract(x)) for extract in self.extract]
        if self.attention is not None:
            pooled = torch.cat([branch.mean((2, 3), keepdim=True) for branch in branches], 1)
            weights = self.attention(pooled).chunk(len(branches), 1)
            branches = [b * weight for b, weight in zip(branches, weights, strict=True)]
        refined = [refine(branch) for refine, branch in zip(self.refine, branches, strict=True)]
        return self.frm(self.mix(torch.cat(refined, 1)))


class FFN(nn.Module):
    """Restormer's gated depthwise feed-forward network, in RDFE's place (Table III)."""

    def __init__(self, channels: int, expansion: float) -> None:
        super().__init__()
        hidden = round(channels * expansion)
        self.expand = nn.Sequential(conv(channels, 2 * hidden, 1), DepthwiseConv2d(2 * hidden, 3))
        self.project = conv(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        gate, value = self.expand(x).chunk(2, 1)
        return self.project(F.gelu(gate) * value)


class SKAF(nn.Module):
    """Selective kernel attention fusion (eqs. 11-14): two features in, two weighted ones out.

    Each input passes a convolution of its own (3x3 local, 5x5 global); the mean and the maximum
    over all their channels give, through a convolution and a sigmoid, one map of weights
    (N, 1, H, W) a branch: where the local feature counts, and where the global one.
    """

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()

        def branch(kernel: int) -> nn.Module:
            if not kernel:
                return nn.Identity()
            if config.skaf_depthwise:
                return normalized(config, DepthwiseConv2d(channels, kernel))
            return normalized(config, conv(channels, channels, kernel))

        self.local = branch(config.skaf_local_kernel)
        self.global_ = branch(config.skaf_global_kernel)
        self.pools = config.skaf_pools
        self.select = conv(len(self.pools), 2, 7)
        nn.init.constant_(self.select.bias, GATE_BIAS)  # type: ignore[arg-type]

    def forward(self, local: Tensor, global_: Tensor) -> tuple[Tensor, Tensor]:
        local, global_ = self.local(local), self.global_(global_)
        local_weight, global_weight = self.weights(local, global_)
        return local * local_weight, global_ * global_weight

    def weights(self, local: Tensor, global_: Tensor) -> tuple[Tensor, Tensor]:
        """Two maps (N, 1, H, W) in [0, 1], from the convolved features (N, C, H, W)."""
        pooled = {  # over the channels of both, without a copy of them side by side
            "mean": lambda: ((local + global_) / 2).mean(1, keepdim=True),
            # not amax: where torch.compile computes it anew, no channel is the largest: 0 / 0
            "max": lambda: torch.maximum(local, global_).max(1, keepdim=True).values,
        }
        maps = self.select(torch.cat([pooled[pool]() for pool in self.pools], 1)).sigmoid()
        return maps[:, :1], maps[:, 1:]


class LGFI(nn.Module):
    """Local and global feature interaction: SA and RDFE on one feature, fused; residual."""

    def __init__(self, config: ModelConfig, level: int) -> None:
        super().__init__()
        channels = config.channels[level]
        self.norm = before_branch(config, channels)
        self.sa = SA(config, level) if config.self_attention else None
        self.local = _local_branch(config, level)
        both = self.sa is not None and self.local is not None
        self.skaf = SKAF(config, channels) if config.skaf and both else None

    def forward(self, x: Tensor) -> Tensor:
        normalized = self.norm(x)
        branches = [branch(normalized) for branch in (self.local, self.sa) if branch is not None]
        if self.skaf is not None:
            branches = list(self.skaf(*branches))
        return x + sum(branches)


def _local_branch(config: ModelConfig, level: int) -> nn.Module | None:
    if config.local_branch == "rdfe":
        return RDFE(config, level)
    return (
        FFN(config.channels[level], config.ffn_expansion) if config.local_branch == "ffn" else None
    )


class TransformerBlock(nn.Module):
    """Restormer's block: attention, then the feed-forward network, in LGFI's place (Table II)."""

    def __init__(self, config: ModelConfig, level: int) -> None:
        super().__init__()
        channels = config.channels[level]
        self.attend = nn.Sequential(before_branch(config, channels), SA(config, level))
        self.feed = nn.Sequential(
            before_branch(config, channels), FFN(channels, config.ffn_expansion)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(x)
        return x + self.feed(x)


class EDFF(nn.Module):
    """Encoder-decoder feature fusion (eqs. 15-16): two features of C channels in, one out.

    Stands alone too: Table VI puts it between the encoder and decoder of other U-shapes.
    """

    def __init__(self, config: ModelConfig, channels: int) -> None:
        super().__init__()
        self.mix = conv(2 * channels, channels, 1)
        self.skaf = SKAF(config, channels)

    def forward(self, decoder: Tensor, encoder: Tensor) -> Tensor:
        mixed = self.mix(torch.cat([decoder, encoder], 1))
        local, global_ = self.skaf(mixed, mixed)
        return local + global_


class ConcatFusion(nn.Module):
    """What EDFF is compared with: concat and a 1x1 convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = conv(2 * channels, channels, 1)

    def forward(self, decoder: Tensor, encoder: Tensor) -> Tensor:
        return self.mix(torch.cat([decoder, encoder], 1))
