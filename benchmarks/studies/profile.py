"""Profile artifacts in ONNX Runtime: the time of one face by kind of operator.

python -m benchmarks.studies.profile [--artifact F...] [--out docs/measured/profile.json]
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.harness.machine import machine
from benchmarks.harness.study import report, study_parser
from benchmarks.harness.table import text_table
from runtime.artifact import read_artifact
from runtime.errors import needs, run_command
from runtime.places import FOLDER

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

# The kind of each operator. Convolutions are classified by their weights; the rest is OTHER.
KINDS: Mapping[str, tuple[str, ...]] = {
    "matrix products": ("MatMul", "FusedMatMul", "Gemm", "QGemm", "QLinearMatMul", "MatMulInteger"),
    "quantize and dequantize": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    "layout": ("ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Squeeze", "Unsqueeze"),
    "concatenate and split": (
        "Concat",
        "QLinearConcat",
        "Split",
        "Slice",
        "Gather",
        "Pad",
        "DepthToSpace",
    ),
    "elementwise": (
        *("Add", "Mul", "Sub", "Div", "Relu", "Sigmoid", "Clip", "Max", "Min", "Erf", "Gelu"),
        *("QLinearAdd", "QLinearMul", "QLinearSigmoid", "BiasGelu", "Cast"),
    ),
    "norms and softmax": ("Softmax", "LayerNormalization", "ReduceL2", "ReduceSumSquare", "Sqrt"),
    "pooling and means": (
        *("AveragePool", "MaxPool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "Resize"),
        *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", "Upsample"),
    ),
}
CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger", "NhwcFusedConv")
OTHER = "other"


@dataclass(frozen=True)
class OperatorShare:
    """Time of one face in a kind of operator (or in one operator), and its number of nodes."""

    kind: str
    ms: float
    nodes: int


@dataclass(frozen=True)
class ArtifactProfile:
    """One artifact; `total_ms` is the sum of its operators, without the overhead between them."""

    artifact: str
    total_ms: float
    kinds: tuple[OperatorShare, ...]
    operators: tuple[OperatorShare, ...]


def profile(path: str | Path) -> ArtifactProfile:
    """Profile an artifact, one face at a time; EdgeError for one that cannot be read."""
    from quantize.precision import node_times_ms

    artifact = read_artifact(Path(path))
    times_ms, model = node_times_ms(artifact.model)
    nodes = [
        (find_kind(node, model), node.op_type, times_ms[node.name])
        for node in model.graph.node
        if node.name in times_ms
    ]
    return ArtifactProfile(
        artifact=f"{artifact.manifest.model}/{artifact.path.name}",
        total_ms=sum(ms for *_, ms in nodes),
        kinds=_shares((kind, ms) for kind, _, ms in nodes),
        operators=_shares((operator, ms) for _, operator, ms in nodes),
    )


def find_kind(node: "NodeProto", model: "ModelProto") -> str:
    """Return the kind of a node of an optimized graph."""
    if node.op_type in CONVOLUTIONS:
        return _kind_of_convolution(node, model)
    return next((kind for kind, names in KINDS.items() if node.op_type in names), OTHER)


def _kind_of_convolution(node: "NodeProto", model: "ModelProto") -> str:
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    if group > 1:
        return "depthwise convolutions"
    weight = node.input[3 if node.op_type == "QLinearConv" else 1]
    dims = next((t.dims for t in model.graph.initializer if t.name == weight), ())
    return "1x1 convolutions" if list(dims[2:]) == [1, 1] else "convolutions"


def _shares(parts: Iterable[tuple[str, float]]) -> tuple[OperatorShare, ...]:
    """Sum by kind, the largest first."""
    times: dict[str, list[float]] = defaultdict(list)
    for kind, ms in parts:
        times[kind].append(ms)
    shares = [OperatorShare(kind, sum(each), len(each)) for kind, each in times.items()]
    return tuple(sorted(shares, key=lambda share: -share.ms))


def table(profiles: Sequence[ArtifactProfile]) -> str:
    blocks = []
    for one in profiles:
        rows = [
            (share.kind, f"{share.ms:.3f}", f"{share.ms / one.total_ms:.1%}", str(share.nodes))
            for shares in (one.kinds, one.operators)
            for share in shares
        ]
        title = f"{one.artifact}: {one.total_ms:.2f} ms in its operators, by kind and by operator"
        blocks.append(f"{title}\n{text_table(('', 'ms', 'share', 'nodes'), rows)}")
    return "\n\n".join(blocks)


def main(argv: Sequence[str] | None = None) -> int:
    return run_command(_parser(), _run, argv)


def _run(arguments: argparse.Namespace) -> int:
    with needs("quantize"):
        profiles = [profile(path) for path in arguments.artifact]
    measured = {"machine": asdict(machine()), "profiles": [asdict(one) for one in profiles]}
    return report(arguments, measured, table(profiles))


def _parser() -> argparse.ArgumentParser:
    parser = study_parser("profile", __doc__)
    parser.add_argument(
        "--artifact",
        nargs="+",
        default=[FOLDER / name for name in ("fp32.onnx", "int8.onnx")],
        metavar="F",
        help=f"(default: fp32.onnx and int8.onnx of {FOLDER})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
