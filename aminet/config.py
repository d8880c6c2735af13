"""What an AMINet is made of: one frozen dataclass, and the named configs."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self

from runtime.errors import EXIT_USAGE, EdgeError

LR_SIDE = 16  # px of the paper's input; a network's own is ModelConfig.lr_side
SR_SIDE = 128
SIDES = (16, 32, 64, 128)


@dataclass(frozen=True)
class ModelConfig:
    """An AMINet, from the shallowest level to the bottleneck.

    Every per-level tuple has one entry a level, the bottleneck's last. Defaults are the paper's
    blocks; the fields from `block` on build its ablations (Tables I to V).
    """

    channels: tuple[int, ...]
    heads: tuple[int, ...]
    refine_convs: tuple[int, ...]  # 3x3 convolutions in FRM before the hourglass
    hourglass: tuple[int, ...]  # how often FRM's hourglass halves its feature; 0: none
    bottleneck: int = 2  # blocks at the lowest level, without which it is linear
    lr_side: int = LR_SIDE  # px of the input; the bicubic upscaling starts from it
    side: int = SR_SIDE  # of the shallowest level; below 128 a pixel shuffle does the rest
    branch_ratio: float = 1.0  # width of RDFE's depthwise branches over the feature's
    skaf_depthwise: bool = False  # SKAF's 3x3 and 5x5 convolutions are depthwise
    norm: Literal["layer", "batch", "none"] = "layer"  # before a branch, or after each convolution
    activation: Literal["gelu", "relu"] = "gelu"

    block: Literal["lgfi", "transformer"] = "lgfi"  # Table II
    self_attention: bool = True  # Table I
    local_branch: Literal["rdfe", "ffn", "none"] = "rdfe"  # Tables I and III
    skaf: bool = True  # Table I; without it the two branches are added
    rdfe_kernels: tuple[int, ...] = (3, 5, 7)  # Table IV: one path, or three
    attention_unit: bool = True  # Table IV
    refinement: bool = True  # Table IV: FRM
    skaf_local_kernel: int = 3  # Table V; 0: no convolution on that branch
    skaf_global_kernel: int = 5  # Table V
    skaf_pools: tuple[str, ...] = ("mean", "max")  # Table V
    edff: bool = True  # without it: concat and a 1x1 convolution
    ffn_expansion: float = 2.66  # of the feed-forward network that replaces RDFE or LGFI

    def __post_init__(self) -> None:
        levels = len(self.channels)
        if levels < 2:
            raise ValueError(f"channels: {self.channels}, expected two levels or more")
        if self.bottleneck < 0:
            raise ValueError(f"bottleneck: {self.bottleneck} blocks")
        for name in ("heads", "refine_convs", "hourglass"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"{name}: {getattr(self, name)}, expected {levels} entries")
        for channels, heads in zip(self.channels, self.heads, strict=True):
            if channels % heads:
                raise ValueError(f"heads: {heads} do not divide {channels} channels")
        for name in ("lr_side", "side"):
            if getattr(self, name) not in SIDES:
                raise ValueError(f"{name}: {getattr(self, name)}, expected 16, 32, 64 or 128")
        if self.lr_side == SR_SIDE:
            raise ValueError(f"lr_side: {self.lr_side}, expected 16, 32 or 64: sr has {SR_SIDE}")
        for level, halvings in enumerate(self.hourglass):
            if (self.side >> level) % (1 << halvings):
                raise ValueError(
                    f"hourglass: a side of {self.side >> level} halved {halvings} times"
                )
        if not self.self_attention and self.local_branch == "none":
            raise ValueError("self_attention and local_branch: a block needs one of the two")
        if not set(self.skaf_pools) <= {"mean", "max"} or not self.skaf_pools:
            raise ValueError(f"skaf_pools: {self.skaf_pools}, expected mean, max or both")
        if not all(kernel % 2 for kernel in self.rdfe_kernels) or not self.rdfe_kernels:
            raise ValueError(f"rdfe_kernels: {self.rdfe_kernels}, expected odd sizes")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; tuples become lists."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Self:
        """The inverse of to_dict; an unknown or missing field raises ValueError by its name."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ValueError(f"unknown config fields: {', '.join(unknown)}")
        given: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        try:
            return cls(**given)
        except TypeError as error:
            raise ValueError(f"incomplete config: {error}") from error


_AMINET = ModelConfig(  # the paper's Table X: 15.6 M parameters, 15.6 G multiply-adds
    channels=(36, 72, 144, 288),
    heads=(1, 2, 4, 8),
    refine_convs=(4, 4, 3, 1),
    hourglass=(3, 2, 1, 0),
)
_ABLATION = replace(_AMINET, channels=(32, 64, 128, 256))  # the 12.62 M of Tables I to V

_EDGE = ModelConfig(  # the phone and camera model: wide channels on a small side
    side=16,
    channels=(128, 128),
    heads=(4, 4),
    refine_convs=(8, 0),
    hourglass=(1, 0),
    bottleneck=0,
    branch_ratio=0.5,
    skaf_depthwise=True,
    norm="batch",
    activation="relu",
)

MODELS: dict[str, ModelConfig] = {
    "aminet-edge": _EDGE,
    "aminet-real": replace(_EDGE, lr_side=64),  # degraded faces of 10 to 64 px, resampled to 64
    "aminet-s": replace(_AMINET, channels=(28, 56, 112, 224), refine_convs=(6, 4, 1, 0)),
    "aminet": _AMINET,
    "amigan": _AMINET,
    "amigan-edge": _EDGE,  # the sharp versions: the same networks, trained with AMIGAN's losses
    "amigan-real": replace(_EDGE, lr_side=64),
}

PAPER = ("aminet", "aminet-s", "amigan")  # 9 to 16 G multiply-adds: for GPUs

NATURAL = {  # of each sharp model, trained with AMIGAN's losses, the one trained without
    "amigan": "aminet",
    "amigan-edge": "aminet-edge",
    "amigan-real": "aminet-real",
}

ABLATIONS: dict[str, ModelConfig] = {
    "base": _ABLATION,
    "without-sa": replace(_ABLATION, self_attention=False),
    "without-rdfe": replace(_ABLATION, local_branch="none"),
    "without-skaf": replace(_ABLATION, skaf=False),
    "transformer": replace(_ABLATION, block="transformer", ffn_expansion=17.0),
    "ffn": replace(_ABLATION, local_branch="ffn", ffn_expansion=7.57),
    "single-3x3": replace(_ABLATION, rdfe_kernels=(3,)),
    "single-5x5": replace(_ABLATION, rdfe_kernels=(5,)),
    "single-7x7": replace(_ABLATION, rdfe_kernels=(7,)),
    "without-au": replace(_ABLATION, attention_unit=False),
    "without-frm": replace(_ABLATION, refinement=False),
    "skaf-3x3-only": replace(_ABLATION, skaf_global_kernel=0),
    "skaf-5x5-only": replace(_ABLATION, skaf_local_kernel=0),
    "skaf-mean-only": replace(_ABLATION, skaf_pools=("mean",)),
    "skaf-max-only": replace(_ABLATION, skaf_pools=("max",)),
    "without-edff": replace(_ABLATION, edff=False),
}

ABLATION = "ablation/"  # prefix of their model names


def find_config(model: str) -> ModelConfig:
    """The config of a model or of `ablation/NAME`; an unknown name raises EdgeError (status 2)."""
    if model.startswith(ABLATION):
        name, configs = model.removeprefix(ABLATION), ABLATIONS
    else:
        name, configs = model, MODELS
    if name not in configs:
        known = ", ".join([*MODELS, *(f"{ABLATION}{one}" for one in ABLATIONS)])
        raise EdgeError(f"model {model}: unknown, expected one of {known}", EXIT_USAGE)
    return configs[name]
