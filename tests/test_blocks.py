"""Each block does what the paper says of it, and keeps its shape."""

import dataclasses
import shutil

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from aminet.blocks import (
    EDFF,
    FRM,
    LGFI,
    RDFE,
    SA,
    SKAF,
    AttentionUnit,
    BicubicUpscaling,
    BlockTransform,
    Hourglass,
    TransformerBlock,
)
from aminet.config import ModelConfig

CONFIG = ModelConfig(channels=(8, 16), heads=(2, 4), refine_convs=(2, 1), hourglass=(2, 0), side=16)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture
def feature() -> torch.Tensor:
    return torch.randn(2, 8, 16, 16)


@pytest.mark.parametrize(
    "block",
    [
        SA(CONFIG, 0),
        RDFE(CONFIG, 0),
        FRM(CONFIG, 0),
        Hourglass(CONFIG, 8, 2),
        LGFI(CONFIG, 0),
        TransformerBlock(CONFIG, 0),
    ],
    ids=lambda block: type(block).__name__,
)
def test_blocks_keep_the_shape(block: nn.Module, feature: torch.Tensor) -> None:
    assert block(feature).shape == feature.shape


@pytest.mark.parametrize("scale", [2, 4, 8])
def test_bicubic_upscaling_equals_interpolate(scale: int) -> None:
    lr = torch.rand(3, 3, 16, 16)
    expected = F.interpolate(lr, scale_factor=scale, mode="bicubic", align_corners=False)
    torch.testing.assert_close(BicubicUpscaling(scale)(lr), expected, atol=1e-5, rtol=0)


def test_block_transform_keeps_all_and_separates_brightness_from_detail() -> None:
    """Its first three channels are the blocks' means; the rest is 0 on an even surface."""
    lr = torch.rand(2, 3, 16, 16)
    blocks = BlockTransform(4)(lr)
    assert blocks.shape == (2, 48, 4, 4)
    torch.testing.assert_close(blocks[:, :3], F.avg_pool2d(lr, 4))
    energy = 16 * blocks[:, :3].square().sum() + blocks[:, 3:].square().sum()
    torch.testing.assert_close(energy, lr.square().sum())  # orthonormal but for the mean's scale
    even = BlockTransform(4)(torch.full((1, 3, 16, 16), 0.7))
    torch.testing.assert_close(even[:, 3:], torch.zeros_like(even[:, 3:]), atol=1e-6, rtol=0)


def test_attention_is_over_channels(feature: torch.Tensor) -> None:
    """One (C / heads, C / heads) map a head, rows summing to 1, whatever the image's side."""
    sa = SA(CONFIG, 0)
    for side in (4, 16):
        q, k = torch.randn(2, 2, 2, 4, side * side)
        attention = sa.attention(q, k)
        assert attention.shape == (2, 2, 4, 4)
        torch.testing.assert_close(attention.sum(-1), torch.ones(2, 2, 4))


def test_attention_map_equals_softmax_of_k_q_over_temperature() -> None:
    sa = SA(CONFIG, 0)
    sa.temperature.data.fill_(3.0)
    q, k = torch.randn(2, 1, 2, 4, 64)
    unit_q, unit_k = q / q.norm(dim=-1, keepdim=True), k / k.norm(dim=-1, keepdim=True)
    expected = torch.softmax(3.0 * unit_k @ unit_q.transpose(-2, -1), -1)
    torch.testing.assert_close(sa.attention(q, k), expected)


def test_self_attention_mixes_channels_globally(feature: torch.Tensor) -> None:
    """A change in one corner reaches the other one."""
    sa = SA(CONFIG, 0)
    changed = feature.clone()
    changed[:, :, 0, 0] += 10.0
    assert (sa(feature) - sa(changed))[:, :, -1, -1].abs().max() > 1e-6


@pytest.mark.parametrize("kernels", [(3, 5, 7), (3,), (7,)])
def test_rdfe_has_its_kernels_twice_and_depthwise(kernels: tuple[int, ...]) -> None:
    rdfe = RDFE(dataclasses.replace(CONFIG, rdfe_kernels=kernels), 0)
    for stage in (rdfe.extract, rdfe.refine):
        assert [conv.kernel_size for conv in stage] == [(k, k) for k in kernels]
        assert all(conv.groups == conv.in_channels == 8 for conv in stage)


def test_rdfe_without_refinement_sees_no_further_than_its_kernels(feature: torch.Tensor) -> None:
    rdfe = RDFE(dataclasses.replace(CONFIG, refinement=False, attention_unit=False), 0)
    changed = feature.clone()
    changed[:, :, 0, 0] += 10.0
    difference = (rdfe(feature) - rdfe(changed)).abs().amax((0, 1))
    assert difference[:7, :7].max() > 0
    assert difference[7:].max() == 0
    assert difference[:, 7:].max() == 0


def test_narrow_rdfe_works_on_a_share_of_the_channels(feature: torch.Tensor) -> None:
    rdfe = RDFE(dataclasses.replace(CONFIG, branch_ratio=0.5), 0)
    assert all(conv.in_channels == 4 for conv in rdfe.extract)
    assert rdfe(feature).shape == feature.shape


def test_attention_unit_weighs_channels_between_0_and_1(feature: torch.Tensor) -> None:
    weights = AttentionUnit(8)(feature.mean((2, 3), keepdim=True))
    assert weights.shape == (2, 8, 1, 1)
    assert 0 < weights.min() <= weights.max() < 1


def test_attention_unit_scales_the_branches(feature: torch.Tensor) -> None:
    """With weights of zero nothing is left but the convolutions' biases."""
    rdfe = RDFE(CONFIG, 0)
    assert rdfe.attention is not None
    rdfe.attention.excite.weight.data.zero_()
    rdfe.attention.excite.bias.data.fill_(-100.0)
    torch.testing.assert_close(rdfe(feature), rdfe(feature * 2))


def test_frm_is_residual(feature: torch.Tensor) -> None:
    frm = FRM(dataclasses.replace(CONFIG, hourglass=(0, 0)), 0)
    for parameter in frm.refine[1:].parameters():
        parameter.data.zero_()
    torch.testing.assert_close(frm(feature), feature)


def test_skaf_weights_select(feature: torch.Tensor) -> None:
    """With the local branch's bias up and the global one's down, only the local one is left."""
    skaf = SKAF(CONFIG, 8)
    skaf.select.weight.data.zero_()
    skaf.select.bias.data = torch.tensor([100.0, -100.0])
    local, global_ = skaf(feature, feature)
    torch.testing.assert_close(local, skaf.local(feature))
    assert global_.abs().max() < 1e-6


def test_skaf_gives_one_map_a_branch(feature: torch.Tensor) -> None:
    skaf = SKAF(CONFIG, 8)
    for weights in skaf.weights(feature, feature + 1):
        assert weights.shape == (2, 1, 16, 16)
        assert 0 <= weights.min() <= weights.max() <= 1


def test_skaf_kernels_are_3_local_and_5_global() -> None:
    skaf = SKAF(CONFIG, 8)
    assert skaf.local.kernel_size == (3, 3)
    assert skaf.global_.kernel_size == (5, 5)


def test_lgfi_is_residual_around_both_branches(feature: torch.Tensor) -> None:
    lgfi = LGFI(CONFIG, 0)
    assert lgfi.skaf is not None
    for branch in (lgfi.skaf.local, lgfi.skaf.global_):
        for parameter in branch.parameters():
            parameter.data.zero_()
    torch.testing.assert_close(lgfi(feature), feature)


def test_edff_stands_alone() -> None:
    """Two features in, one out, in the width of any U-shape (Table VI)."""
    edff = EDFF(CONFIG, 24)
    decoder, encoder = torch.randn(2, 1, 24, 12, 12)
    fused = edff(decoder, encoder)
    assert fused.shape == (1, 24, 12, 12)
    assert not torch.allclose(fused, edff(encoder, decoder))


@pytest.mark.parametrize("norm", ["layer", "batch", "none"])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_norm_and_activation_are_what_was_asked(norm: str, activation: str) -> None:
    config = dataclasses.replace(CONFIG, norm=norm, activation=activation)
    kinds = {type(module) for module in LGFI(config, 0).modules()}
    assert (nn.LayerNorm in kinds) == (norm == "layer")
    assert (nn.BatchNorm2d in kinds) == (norm == "batch")
    assert (nn.GELU in kinds) == (activation == "gelu")
    assert (nn.ReLU in kinds) == (activation == "relu")


def test_skaf_pools_over_the_channels_of_both_branches() -> None:
    """Eq. 12 pools their concatenation, which we never write."""
    skaf = SKAF(CONFIG, 8)
    generator = torch.Generator().manual_seed(1)
    local, global_ = torch.randn(2, 2, 8, 16, 16, generator=generator)
    seen: list[torch.Tensor] = []
    skaf.select.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    skaf.weights(local, global_)
    hybrid = torch.cat([local, global_], 1)
    expected = torch.stack([hybrid.mean(1), hybrid.amax(1)], 1)
    torch.testing.assert_close(seen[0], expected)


@pytest.mark.skipif(not (shutil.which("c++") or shutil.which("g++")), reason="no C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch.compile's own
def test_skaf_compiled_in_bfloat16_has_finite_gradients() -> None:
    """The pools' backward pass must not depend on a maximum that was rounded otherwise."""
    torch.manual_seed(0)
    skaf = SKAF(CONFIG, 16).train()
    shape, options = (2, 16, 8, 8), {"dtype": torch.bfloat16, "requires_grad": True}
    features = [torch.randn(shape, **options) for _ in range(2)]

    @torch.compile
    def weights(local: Tensor, global_: Tensor) -> tuple[Tensor, Tensor]:
        return skaf.weights(local * 1.1, global_ * 0.9)  # what they are made of comes before

    with torch.autocast("cpu", torch.bfloat16):
        maps = weights(*features)
    sum(each.float().square().sum() for each in maps).backward()
    for tensor in (*features, *skaf.select.parameters()):
        assert tensor.grad is not None
        assert tensor.grad.isfinite().all()
