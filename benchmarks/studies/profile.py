"""Where the milliseconds go: an artifact's time in ONNX Runtime by kind of work, from its profile.

python -m benchmarks.studies.profile [--artifact F...]
"""

import argparse
import json
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from runtime.errors import needs, run_command

with needs("quantize", __name__):
    from onnx import ModelProto, NodeProto

    from quantize.precision import node_times_ms

from runtime.artifact import read_artifact
from runtime.session import DEFAULT_MODEL

# What an operator is for. A convolution is told by its weights, what is not named is the rest.
KINDS: Mapping[str, tuple[str, ...]] = {
    "matrix products": ("MatMul", "FusedMatMul", "Gemm", "QGemm", "QLinearMatMul", "MatMulInteger"),
    "to and from 8 bits": ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"),
    "layout": ("ReorderInput", "ReorderOutput", "Transpose", "Reshape", "Squeeze", "Unsqueeze"),
    "join and split": (
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
    "pools and means": (
        *("AveragePool", "MaxPool", "GlobalAveragePool", "ReduceMean", "ReduceMax", "Resize"),
        *("QLinearAveragePool", "QLinearGlobalAveragePool", "QLinearReduceMean", "Upsample"),
    ),
}
CONVOLUTIONS = ("Conv", "FusedConv", "QLinearConv", "ConvInteger", "NhwcFusedConv")
OTHER = "other"


@dataclass(frozen=True)
class Share:
    """Time of one face that a kind of work, or an operator, takes, and its number of nodes."""

    kind: str
    ms: float
    nodes: int


@dataclass(frozen=True)
class Profile:
    """`total_ms` is the sum of all operators, without what lies between them."""

    artifact: str
    total_ms: float
    kinds: tuple[Share, ...]
    operators: tuple[Share, ...]


def profile(path: str | Path) -> Profile:
    """Profile an artifact, one face at a time; EdgeError for one that cannot be read."""
    artifact = read_artifact(Path(path))
    nodes = profile_nodes(artifact.model)
    return Profile(
        artifact=f"{artifact.manifest.model}/{artifact.path.name}",
        total_ms=sum(ms for *_, ms in nodes),
        kinds=_shares((kind, ms) for kind, _, ms in nodes),
        operators=_shares((operator, ms) for _, operator, ms in nodes),
    )


def profile_nodes(content: bytes) -> list[tuple[str, str, float]]:
    """(kind, operator, ms) of each node that ONNX Runtime runs."""
    times_ms, model = node_times_ms(content)
    nodes = [node for node in model.graph.node if node.name in times_ms]
    return [(find_kind(node, model), node.op_type, times_ms[node.name]) for node in nodes]


def find_kind(node: NodeProto, model: ModelProto) -> str:
    """The kind of work that a node of an optimized graph does."""
    if node.op_type in CONVOLUTIONS:
        return _kind_of_convolution(node, model)
    return next((kind for kind, names in KINDS.items() if node.op_type in names), OTHER)


def _kind_of_convolution(node: NodeProto, model: ModelProto) -> str:
    group = next((a.i for a in node.attribute if a.name == "group"), 1)
    if group > 1:
        return "depthwise convolutions"
    weight = node.input[3 if node.op_type == "QLinearConv" else 1]
    dims = next((t.dims for t in model.graph.initializer if t.name == weight), ())
    return "1x1 convolutions" if list(dims[2:]) == [1, 1] else "convolutions"


def _shares(parts: Iterable[tuple[str, float]]) -> tuple[Share, ...]:
    """The sums by kind, the largest first."""
    times: dict[str, list[float]] = defaultdict(list)
    for kind, ms in parts:
        times[kind].append(ms)
    shares = [Share(kind, sum(each), len(each)) for kind, each in times.items()]
    return tuple(sorted(shares, key=lambda share: -share.ms))


def table(profiles: Sequence[Mapping[str, Any]]) -> str:
    """Profiles as JSON objects, one under the other."""
    blocks = []
    for one in profiles:
        lines = [f"{one['artifact']}: {one['total_ms']:.2f} ms in its operators"]
        for title in ("kinds", "operators"):
            lines += [
                f"  {share['ms']:7.3f} ms {share['ms'] / one['total_ms']:6.1%}"
                f" {share['nodes']:4} {share['kind']}"
                for share in one[title]
            ]
            lines.append("")
        blocks.append("\n".join(lines))
    return "\n".join(blocks).rstrip()


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.studies.profile", description=__doc__.split("\n")[0]
    )
    default = [Path("artifacts", DEFAULT_MODEL, name) for name in ("fp32.onnx", "int8.onnx")]
    parser.add_argument("--artifact", nargs="+", default=default, metavar="F")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    arguments = parser.parse_args(argv)

    def run() -> int:
        content = {"profiles": [asdict(profile(path)) for path in arguments.artifact]}
        print(json.dumps(content) if arguments.json else table(content["profiles"]))
        return 0

    return run_command(run)


if __name__ == "__main__":
    sys.exit(main())
