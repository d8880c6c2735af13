"""AMINet: a U-shape of LGFI blocks between a bicubic upscaling and its residual (Fig. 2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from aminet.blocks import (
    BRANCH_GAIN,
    EDFF,
    LGFI,
    BicubicUpscaling,
    BlockTransform,
    ConcatFusion,
    TransformerBlock,
    conv,
)
from aminet.config import SR_SIDE, ModelConfig


class AMINet(nn.Module):
    """lr (N, 3, lr_side, lr_side) in [0, 1] -> sr (N, 3, 128, 128), unclamped."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        depth = len(config.channels) - 1
        self.upscale = BicubicUpscaling(SR_SIDE // config.lr_side)
        self.unshuffle = (
            BlockTransform(config.lr_side // config.side) if unshuffles(config) else nn.Identity()
        )
        self.entry = Entry(config)
        self.encoders = nn.ModuleList(Encoder(config, level) for level in range(depth))
        self.bottleneck = nn.Sequential(*(block(config, depth) for _ in range(config.bottleneck)))
        self.decoders = nn.ModuleList(Decoder(config, level) for level in reversed(range(depth)))
        self.exit = Exit(config)
        self._initialize()

    def forward(self, lr: Tensor) -> Tensor:
        upscaled = self.upscale(lr)
        seen = self.unshuffle(lr)
        x = self.entry(seen, upscaled)
        skips = []
        for encoder in self.encoders:
            x, skip = encoder(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for decoder in self.decoders:
            x = decoder(x, skips.pop())
        return self.exit(x, seen) + upscaled

    def _initialize(self) -> None:
        """Start as the bicubic upscaling, with quiet residual branches."""
        nn.init.zeros_(self.exit.conv.weight)
        if self.exit.skip is not None:
            nn.init.zeros_(self.exit.skip.weight)
        for module in self.modules():
            if isinstance(module, LGFI) and module.skaf is not None:
                quieten(module.skaf.local)
                quieten(module.skaf.global_)


def quieten(branch: nn.Module) -> None:
    """Scale the last layer of a residual branch by BRANCH_GAIN."""
    last = branch[-1] if isinstance(branch, nn.Sequential) else branch
    if isinstance(last, nn.Conv2d | nn.BatchNorm2d):
        last.weight.data.mul_(BRANCH_GAIN)


def block(config: ModelConfig, level: int) -> nn.Module:
    return LGFI(config, level) if config.block == "lgfi" else TransformerBlock(config, level)


def unshuffles(config: ModelConfig) -> bool:
    """Whether lr is larger than the body, which then sees blocks of its pixels as channels."""
    return config.lr_side > config.side


def input_channels(config: ModelConfig) -> int:
    """Of what entry and exit see of lr: 3, or 3 for each pixel of a block."""
    return 3 * max(config.lr_side // config.side, 1) ** 2


class Entry(nn.Module):
    """To C channels at the body's side: from the upscaled face, or, below 128, from lr itself.

    An lr larger than the body comes unshuffled, a smaller one is shuffled after the convolution.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.from_lr = config.side < SR_SIDE
        self.scale = max(config.side // config.lr_side, 1) if self.from_lr else 1
        self.conv = conv(input_channels(config), config.channels[0] * self.scale**2)

    def forward(self, seen: Tensor, upscaled: Tensor) -> Tensor:
        x = self.conv(seen if self.from_lr else upscaled)
        return F.pixel_shuffle(x, self.scale) if self.scale > 1 else x


class Encoder(nn.Module):
    """A block, kept as the skip (N, C, H, W), then half the side and the next level's channels."""

    def __init__(self, config: ModelConfig, level: int) -> None:
        super().__init__()
        self.block = block(config, level)
        self.down = conv(config.channels[level], config.channels[level + 1], stride=2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.block(x)
        return self.down(skip), skip


class Decoder(nn.Module):
    """Twice the side (1x1 convolution and pixel shuffle), fusion with the skip, a block."""

    def __init__(self, config: ModelConfig, level: int) -> None:
        super().__init__()
        channels = config.channels[level]
        self.up = conv(config.channels[level + 1], 4 * channels, 1)
        self.fuse = EDFF(config, channels) if config.edff else ConcatFusion(channels)
        self.block = block(config, level)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.block(self.fuse(F.pixel_shuffle(self.up(x), 2), skip))


class Exit(nn.Module):
    """(N, C, side, side) -> the detail (N, 3, 128, 128) that bicubic upscaling lacks.

    Where the body is smaller than lr, a linear skip carries lr's own detail past it.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = SR_SIDE // config.side
        self.conv = conv(config.channels[0], 3 * self.scale**2)
        self.skip = conv(input_channels(config), 3 * self.scale**2) if unshuffles(config) else None

    def forward(self, x: Tensor, seen: Tensor) -> Tensor:
        detail = self.conv(x)
        if self.skip is not None:
            detail = detail + self.skip(seen)
        return F.pixel_shuffle(detail, self.scale) if self.scale > 1 else detail
