"""Quantization-aware training: an AMINet that computes as its INT8 files will.

Rounding is simulated where quantize.int8 puts its Q/DQ pairs, on the grids of its targets
(aminet.training.rounding). Batch norms are folded into convolutions and channels equalized before,
so the weights that are trained are those that will be quantized; the ranges of the activations and
the factors of the channels are trained with them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from aminet.model import AMINet
from aminet.training.rounding import CPU, TURNS, ActivationQuantizer, Grid, round_weight
from runtime.activation_ranges import ActivationRanges, Channels, RangeFile
from runtime.errors import EdgeError


class ChannelFactors(nn.Module):
    """The factor of each class of channels, trained as a logarithm; class 0 keeps 1.

    Producers multiply and readers divide by it, so in full precision it changes nothing: what
    trains it is the rounding error alone (learnable equivalent transformation, Shao et al. 2023).
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.log = nn.Parameter(torch.zeros(classes))

    def forward(self, classes: Tensor) -> Tensor:
        return torch.cat([self.log.new_zeros(1), self.log])[classes].exp()


class Mode:
    """The grid that all layers of a network compute on; None: full precision."""

    grid: Grid | None = CPU


class EqualizedConv(nn.Module):
    """A convolution whose channels are scaled as those of the layers around it."""

    out: Tensor | None  # the classes of its output's and its input's channels
    read: Tensor | None

    def __init__(
        self, conv: nn.Conv2d, channels: Channels | None, factors: ChannelFactors, mode: Mode
    ) -> None:
        super().__init__()
        self.conv, self.mode = conv, mode
        self.shared = (factors,)  # a tuple: all layers have the same
        classes = (channels.output_classes, channels.input_classes) if channels else (None, None)
        for name, ids in zip(("out", "read"), classes, strict=True):
            self.register_buffer(name, None if ids is None else torch.tensor(ids), persistent=False)

    def scaled(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias between the scaled channels."""
        weight, bias = self.conv.weight, self.conv.bias
        if self.out is None or self.read is None:
            return weight, bias
        out, read = self.shared[0](self.out), self.shared[0](self.read)
        weight = weight * out.view(-1, 1, 1, 1) / by_input(self.conv, read)
        return weight, None if bias is None else bias * out

    def forward(self, x: Tensor) -> Tensor:
        if self.mode.grid is None:
            return self.conv(x)
        return self.conv._conv_forward(x, *self.scaled())


class QuantizedConv(EqualizedConv):
    """A convolution as an INT8 kernel computes it: 8 bits in, int8 weights, 8 bits out."""

    quantizers: tuple[ActivationQuantizer, ActivationQuantizer]  # of its input and its result

    def forward(self, x: Tensor) -> Tensor:
        grid = self.mode.grid
        if grid is None:
            return self.conv(x)
        (reads, makes), (weight, bias) = self.quantizers, self.scaled()
        factors = reads.factors()
        if factors is not None:
            weight = weight / by_input(self.conv, factors)
        y = self.conv._conv_forward(reads(x, grid.signed), round_weight(weight), bias)
        # A ReLU that follows is in the range, which begins at zero.
        return makes(y, grid.signed) if grid.results else y


def by_input(conv: nn.Conv2d, factors: Tensor) -> Tensor:
    """Factors of the input's channels, (C,), as they multiply the weights."""
    return factors.view(-1, 1, 1, 1) if conv.groups > 1 else factors.view(1, -1, 1, 1)


@dataclass(frozen=True)
class FoldedNorm:
    """A batch norm that was folded into `conv`: what its channels have over a batch, each (C,)."""

    conv: str
    mean: Tensor
    deviation: Tensor


class QuantizationAware(nn.Module):
    """An AMINet whose quantized layers compute on a grid; takes and gives what it does."""

    def __init__(self, network: AMINet, start: RangeFile) -> None:
        """Fold, equalize and wrap `network`; EdgeError for ranges that do not fit it."""
        super().__init__()
        self.mode = Mode()
        self._start, ranges = start, start.ranges
        self._norms = fold_norms(network)
        _check_fit(network, start)
        classes = [
            max(each.output_classes + each.input_classes) for each in start.channels.values()
        ]
        self.channels = ChannelFactors(max(classes, default=0))
        self.quantizers = nn.ModuleDict(
            {
                _key(name): ActivationQuantizer(*ends, ranges.factors.get(name))
                for name, ends in ranges.ranges.items()
            }
        )
        self._wrapped = sorted(start.channels.keys() | ranges.layers.keys())
        for name in self._wrapped:
            conv, channels = network.get_submodule(name), start.channels.get(name)
            assert isinstance(conv, nn.Conv2d)
            if channels is not None:
                _equalize(conv, channels)
            kind = QuantizedConv if name in ranges.layers else EqualizedConv
            wrapped = kind(conv, channels, self.channels, self.mode)
            if isinstance(wrapped, QuantizedConv):
                reads, makes = ranges.layers[name]
                wrapped.quantizers = (self._quantizer(reads), self._quantizer(makes))
            network.set_submodule(name, wrapped)
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        return self.network(lr)

    def select(self, step: int) -> None:
        """The grid of a training step, or full precision."""
        self.mode.grid = TURNS[step % len(TURNS)]

    @contextmanager
    def on(self, grid: Grid | None) -> Iterator[None]:
        """Compute on this grid, or in full precision."""
        before, self.mode.grid = self.mode.grid, grid
        try:
            yield
        finally:
            self.mode.grid = before

    @torch.no_grad()
    def ranges(self) -> ActivationRanges:
        """As they are trained so far."""
        trained, factors = {}, {}
        for name in self._start.ranges.ranges:
            quantizer = self._quantizer(name)
            low, high = quantizer.ends()
            trained[name] = (float(low), float(high))
            if (of_channels := quantizer.factors()) is not None:
                factors[name] = tuple(of_channels.tolist())
        return ActivationRanges(self._start.ranges.layers, trained, factors)

    @torch.no_grad()
    def plain_state(self) -> dict[str, Tensor]:
        """The weights as an AMINet's; its batch norms, folded before, leave values as they are.

        They have the mean and deviation of their channels, so that training can go on from there.
        """
        plain = AMINet(self.network.config)
        for name, norm in self._norms.items():
            part, scale = plain.get_submodule(name), self._scale_of(norm.conv)
            assert isinstance(part, nn.BatchNorm2d)
            assert part.running_mean is not None
            assert part.running_var is not None
            part.running_mean.copy_(norm.mean * scale)
            part.running_var.copy_((norm.deviation * scale) ** 2)
            part.weight.copy_((part.running_var + part.eps).sqrt())
            part.bias.copy_(part.running_mean)
        state = {**plain.state_dict(), **self.network.state_dict()}
        for name in self._wrapped:
            for kind, value in zip(("weight", "bias"), self._layer(name).scaled(), strict=True):
                state.pop(f"{name}.conv.{kind}", None)
                if value is not None:
                    state[f"{name}.{kind}"] = value
        return state

    def _scale_of(self, conv: str) -> Tensor:
        """By what equalization before the training and in it multiplied the channels it makes."""
        channels = self._start.channels.get(conv)
        if channels is None:
            return torch.ones(())
        start, trained = torch.tensor(channels.of_output), self._layer(conv).out
        return start if trained is None else start * self.channels(trained).cpu()

    def _quantizer(self, activation: str) -> ActivationQuantizer:
        quantizer = self.quantizers[_key(activation)]
        assert isinstance(quantizer, ActivationQuantizer)
        return quantizer

    def _layer(self, name: str) -> EqualizedConv:
        layer = self.network.get_submodule(name)
        assert isinstance(layer, EqualizedConv)
        return layer


def fold_norms(network: AMINet) -> dict[str, FoldedNorm]:
    """Multiply each batch norm, as it is in use, into the convolution before it."""
    folded = {}
    for parent_name, parent in list(network.named_modules()):
        if not isinstance(parent, nn.Sequential):
            continue
        for place, part in enumerate(parent):
            if isinstance(part, nn.BatchNorm2d):
                _fold(parent[place - 1], part)
                parent[place] = nn.Identity()
                mean, deviation = part.bias.detach().clone(), part.weight.detach().abs()
                norm = FoldedNorm(f"{parent_name}.{place - 1}", mean, deviation)
                folded[f"{parent_name}.{place}"] = norm
    return folded


@torch.no_grad()
def _fold(conv: nn.Module, norm: nn.BatchNorm2d) -> None:
    assert isinstance(conv, nn.Conv2d)
    assert conv.bias is not None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    gain = norm.weight / (norm.running_var + norm.eps).sqrt()
    conv.weight.mul_(gain.view(-1, 1, 1, 1))
    conv.bias.copy_((conv.bias - norm.running_mean) * gain + norm.bias)


@torch.no_grad()
def _equalize(conv: nn.Conv2d, channels: Channels) -> None:
    out, read = torch.tensor(channels.of_output), torch.tensor(channels.of_input)
    conv.weight.mul_(out.view(-1, 1, 1, 1) / by_input(conv, read))
    if conv.bias is not None:
        conv.bias.mul_(out)


def _check_fit(network: AMINet, start: RangeFile) -> None:
    sizes = {
        name: (conv.out_channels, conv.in_channels)
        for name, conv in network.named_modules()
        if isinstance(conv, nn.Conv2d)
    }
    expected = {n: (len(c.of_output), len(c.of_input)) for n, c in start.channels.items()}
    wrong = [name for name, channels in expected.items() if sizes.get(name) != channels]
    for name, (reads, _) in start.ranges.layers.items():
        scaled = len(start.ranges.factors.get(reads, ()))
        if name not in sizes or scaled not in (0, sizes[name][1]):
            wrong.append(name)
    if wrong:
        raise EdgeError(
            f"train: the ranges do not fit {start.model} at {wrong[0]}; make them of its own"
            " fp32.onnx: python -m quantize.ranges"
        )


def _key(activation: str) -> str:
    """A name that a module may have."""
    return activation.replace(".", "/")
