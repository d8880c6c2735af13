"""Another image network's inputs and outputs: names, channels, size, range of the values.

AMINet's own are fixed (lr, sr, RGB in [0, 1]); any other network of one input and one output says
its own here, and from then on it takes and gives RGB in [0, 1] like AMINet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.image import Tensor

CHANNELS = (1, 3)
MAX_SIDE = 1024  # px of the images that it is calibrated and probed with
MAX_RANGE = 1e6
LUMA = (0.299, 0.587, 0.114)  # of RGB, full range: what networks of one channel read


@dataclass(frozen=True)
class Network:
    """The input (N, channels, height, width) and the output of a network, and their values.

    `height` and `width` (px) are those of its probes. Black is `low` and white is `high`, in the
    input and in the output. Of one channel it reads the luma and makes gray.
    """

    input: str
    output: str
    channels: int
    height: int
    width: int
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        sizes = all(
            isinstance(side, int) and 0 < side <= MAX_SIDE for side in (self.height, self.width)
        )
        values = -MAX_RANGE <= self.low < self.high <= MAX_RANGE
        names = all(isinstance(name, str) and name for name in (self.input, self.output))
        if not (sizes and values and names and self.channels in CHANNELS):
            raise ValueError(f"network is {self!r}")

    def feed(self, rgb: Tensor) -> Tensor:
        """Turn RGB (N, 3, H, W) in [0, 1] into what the network reads."""
        values = rgb
        if self.channels == 1:
            values = np.einsum("nchw,c->nhw", rgb, np.array(LUMA, np.float32))[:, None]
        scaled = values * np.float32(self.high - self.low) + np.float32(self.low)
        return np.ascontiguousarray(scaled, dtype=np.float32)

    def read(self, made: Tensor) -> Tensor:
        """Turn what the network makes into RGB (N, 3, H, W) in [0, 1], not clipped."""
        values = (made - np.float32(self.low)) / np.float32(self.high - self.low)
        return np.repeat(values, 3, axis=1) if values.shape[1] == 1 else values
