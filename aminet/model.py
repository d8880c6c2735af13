"""AMINet: a U-shape of LGFI blocks between a bicubic enlargement and its residual (Fig. 2)."""

import torch.nn.functional as F
from torch import Tensor, nn

from aminet.blocks import (
    BRANCH_GAIN,
    EDFF,
    LGFI,
    BicubicEnlargement,
    ConcatFusion,
    TransformerBlock,
    conv,
)
from aminet.config import LR_SIDE, SR_SIDE, ModelConfig


class AMINet(nn.Module):
    """lr (N, 3, 16, 16) in [0, 1] -> sr (N, 3, 128, 128), unclamped."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        depth = len(config.channels) - 1
        self.enlarge = BicubicEnlargement()
        self.entry = Entry(config)
        self.encoders = nn.ModuleList(Encoder(config, level) for level in range(depth))
        self.bottleneck = nn.Sequential(*(block(config, depth) for _ in range(config.bottleneck)))
        self.decoders = nn.ModuleList(Decoder(config, level) for level in reversed(range(depth)))
        self.exit = Exit(config)
        self._initialize()

    def forward(self, lr: Tensor) -> Tensor:
        enlarged = self.enlarge(lr)
        x = self.entry(lr, enlarged)
        skips = []
        for encoder in self.encoders:
            x, skip = encoder(x)
            skips.append(skip)
        x = self.bottleneck(x)
        for decoder in self.decoders:
            x = decoder(x, skips.pop())
        return self.exit(x) + enlarged

    def _initialize(self) -> None:
        """Start as the bicubic enlargement, with quiet residual branches."""
        nn.init.zeros_(self.exit.conv.weight)
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


class Entry(nn.Module):
    """To C channels at the body's side: from the enlarged face, or, below 128, from lr itself."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.from_lr = config.side < SR_SIDE
        self.scale = config.side // LR_SIDE if self.from_lr else 1
        self.conv = conv(3, config.channels[0] * self.scale**2)

    def forward(self, lr: Tensor, enlarged: Tensor) -> Tensor:
        x = self.conv(lr if self.from_lr else enlarged)
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
    """(N, C, side, side) -> the detail (N, 3, 128, 128) that bicubic enlargement lacks."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale = SR_SIDE // config.side
        self.conv = conv(config.channels[0], 3 * self.scale**2)

    def forward(self, x: Tensor) -> Tensor:
        detail = self.conv(x)
        return F.pixel_shuffle(detail, self.scale) if self.scale > 1 else detail
