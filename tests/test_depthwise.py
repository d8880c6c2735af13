"""The depthwise convolution's own gradients are PyTorch's, in every precision that trains."""

import pytest
import torch
from torch import Tensor, nn

from aminet.blocks import RDFE, SKAF
from aminet.config import MODELS
from aminet.depthwise import SLOW_KERNEL, DepthwiseConv2d, _Depthwise

CHANNELS = 8


def gradients(layer: nn.Conv2d, x: Tensor, gradient: Tensor) -> list[Tensor]:
    """Of the input, the kernel and the bias."""
    x = x.clone().requires_grad_()
    layer.zero_grad()
    layer(x).backward(gradient)
    return [given.grad.clone() for given in (x, layer.weight, layer.bias)]  # type: ignore[union-attr]


@pytest.fixture(params=(5, 7))
def layer(request: pytest.FixtureRequest) -> DepthwiseConv2d:
    torch.manual_seed(0)
    return DepthwiseConv2d(CHANNELS, request.param)


def example() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    x, gradient = torch.randn(2, 4, CHANNELS, 16, 12, generator=generator)
    return x.contiguous(memory_format=torch.channels_last), gradient


def test_gradients_are_those_of_the_library(layer: DepthwiseConv2d) -> None:
    """In float64, where nothing but a wrong sum can differ; eval mode takes the library's way."""
    x, gradient = (tensor.double() for tensor in example())
    ours = gradients(layer.double().train(), x, gradient)
    assert torch.equal(layer.train()(x), layer.eval()(x))
    for own, library in zip(ours, gradients(layer.eval(), x, gradient), strict=True):
        torch.testing.assert_close(own, library)


def test_gradients_under_autocast_are_those_of_float32(layer: DepthwiseConv2d) -> None:
    """bfloat16 has 8 bits: one part in a hundred of the largest gradient."""
    x, gradient = example()
    with torch.autocast("cpu", torch.bfloat16):
        ours = gradients(layer.train(), x, gradient.bfloat16())
    for own, exact in zip(ours, gradients(layer.eval(), x, gradient), strict=True):
        assert own.dtype == exact.dtype == torch.float32
        assert (own - exact).abs().max() < 0.01 * exact.abs().max()


def test_small_kernels_and_inference_keep_the_library_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the gradient's own way was taken")

    monkeypatch.setattr(_Depthwise, "apply", never)
    x, _ = example()
    DepthwiseConv2d(CHANNELS, SLOW_KERNEL - 2).train()(x)
    large = DepthwiseConv2d(CHANNELS, SLOW_KERNEL)
    with torch.no_grad():
        large.train()(x)
    large.eval()(x)
    with pytest.raises(AssertionError, match="own way"):
        large.train()(x)


def test_the_network_uses_it_wherever_a_kernel_is_large() -> None:
    config = MODELS["aminet-edge"]
    for block in (RDFE(config, 0), SKAF(config, 128)):
        for module in block.modules():
            if isinstance(module, nn.Conv2d) and module.groups > 1:
                assert isinstance(module, DepthwiseConv2d)
