"""A compiled network that computes other gradients than eager mode is found at the first step."""

from contextlib import nullcontext

import pytest
import torch
from torch import nn

from aminet.training.compiled import compile_checked

LR, HR = torch.rand(2, 3, 4, 4), torch.rand(2, 3, 4, 4)


class Wrong(torch.autograd.Function):
    """The network's output, and a gradient of the caller's."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.factor, None


@pytest.fixture(autouse=True)
def _vectors():
    import torch._inductor.config as inductor

    chosen = inductor.cpp.simdlen
    yield
    inductor.cpp.simdlen = chosen


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 3, 1))


def compilers(monkeypatch, *factors):
    """torch.compile whose results' gradients are off by each factor in turn."""
    left = list(factors)

    def compiled(net):
        factor = left.pop(0)
        return lambda x: Wrong.apply(net(x), factor)

    monkeypatch.setattr(torch, "compile", compiled)
    return left


def test_right_gradients_are_taken_without_a_notice(monkeypatch):
    left = compilers(monkeypatch, 1.0, 1.0)
    compiled = compile_checked(network(), LR, HR, nullcontext)
    assert not compiled.notice
    assert len(left) == 1


def test_narrower_vectors_are_tried_next(monkeypatch):
    compilers(monkeypatch, float("nan"), 1.0)
    compiled = compile_checked(network(), LR, HR, nullcontext)
    assert "6 of 6 gradients are not finite" in compiled.notice
    assert "with 256-bit vectors they are right" in compiled.notice
    assert torch._inductor.config.cpp.simdlen == 256


@pytest.mark.parametrize(
    ("factor", "fault"), [(float("nan"), "not finite"), (2.0, "differ from eager mode's by 100%")]
)
def test_eager_mode_is_left_where_no_kernel_is_right(monkeypatch, factor, fault):
    compilers(monkeypatch, factor, factor)
    net = network()
    compiled = compile_checked(net, LR, HR, nullcontext)
    assert compiled.forward is net
    assert fault in compiled.notice
    assert "eager mode" in compiled.notice


def test_the_check_leaves_weights_and_statistics_as_they_were(monkeypatch):
    compilers(monkeypatch, 1.0)
    net, untouched = network(), network()
    compile_checked(net, LR, HR, nullcontext)
    for (name, found), expected in zip(
        net.state_dict().items(), untouched.state_dict().values(), strict=True
    ):
        assert torch.equal(found, expected), name
    assert all(parameter.grad is None for parameter in net.parameters())
