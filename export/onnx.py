"""Export a model to ONNX: `python -m export.onnx` writes artifacts/aminet-edge/fp32.onnx.

The graph is traced by torch's dynamo exporter, simplified (export.simplify) and proved equal to the
network in torch after every pass (export.parity). Beside it go its manifest and its probes.
"""

import argparse
import contextlib
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from runtime.errors import EdgeError, needs, run_command

with needs("export", __name__):
    import torch
    from onnx import ModelProto
    from torch import nn

from aminet.checkpoint import Checkpoint, load_model
from export import parity, simplify
from export.contract import BATCH, INPUT, OPSET, OUTPUT, check_contract
from export.parity import BATCHES, MAX_ABS_DIFF
from export.probes import make_probes
from runtime import drift
from runtime.atomic import sha256_bytes, sha256_file, writing
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.cpu import processor
from runtime.drift import Fidelity, Probes
from runtime.image import LR_SIDE, to_tensor
from runtime.manifest import (
    Manifest,
    Measurement,
    manifest_path,
    probes_path,
    read_manifest,
    write_manifest,
)

TOOLS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class ExportResult:
    """What was written, and how close it is to torch.

    `max_abs_diff` and `psnr_db` (peak 1) are of the values, at the worst batch size; `fidelity_db`
    is of the pixels of the faces. `outdated` are the other artifacts in the folder that were made
    of another network: its probes are no longer there.
    """

    artifact: str
    model: str
    random_weights: bool
    nodes_before: int
    nodes_after: int
    max_abs_diff: float
    psnr_db: float
    fidelity_db: float
    opset: int
    bytes: int
    sha256: str
    outdated: tuple[str, ...]


def export(
    model: str | None = None,
    checkpoint: str | Path | None = None,
    out: str | Path | None = None,
    random_seed: int | None = None,
    *,
    max_abs_diff: float = MAX_ABS_DIFF,
    progress: Progress = lambda step: None,
) -> ExportResult:
    """Export a named model (aminet-edge where neither is given) or a checkpoint.

    A checkpoint given with a name must be of that model's config. `random_seed`: weights for tests,
    which the manifest says. Over `max_abs_diff` EdgeError with status 3, and nothing is written.
    """
    network, loaded = load_model(model, checkpoint, random_seed)
    out = _checked_name(out, loaded.model)
    probes, sr = make_probes(network)
    lr = to_tensor(probes.lr)

    progress("tracing")
    graph = trace(network)
    nodes_before = len(graph.graph.node)
    progress("proving parity")
    parity.prove(graph, lr, sr, max_abs_diff, "tracing")
    for simplifying in simplify.PASSES:
        step = simplifying.__name__.replace("_", " ")
        progress(step)
        graph = simplifying(graph)
        proved = parity.prove(graph, lr, sr, max_abs_diff, step)
    check_contract(graph)

    content = graph.SerializeToString(deterministic=True)
    fidelity, measurement = _measure(content, probes)
    flags = {
        "exporter": "dynamo",
        "opset": OPSET,
        "passes": [simplifying.__name__ for simplifying in simplify.PASSES],
        "batches": list(BATCHES),
        "max_abs_diff_limit": max_abs_diff,
        **asdict(proved),
    }
    _write(out, content, probes, loaded, flags, measurement)
    return ExportResult(
        artifact=str(out),
        model=loaded.model,
        random_weights=loaded.random_weights,
        nodes_before=nodes_before,
        nodes_after=len(graph.graph.node),
        **asdict(proved),
        fidelity_db=fidelity.fidelity_db,
        opset=OPSET,
        bytes=len(content),
        sha256=sha256_bytes(content),
        outdated=_outdated(out),
    )


def trace(network: nn.Module) -> ModelProto:
    """The graph of a network in eval mode, as torch's exporter gives it."""
    example = torch.zeros(2, 3, LR_SIDE, LR_SIDE)  # not 1: a batch of one would be taken as fixed
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT[0]],
            output_names=[OUTPUT[0]],
            dynamic_shapes=({0: BATCH},),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # it is None only without dynamo
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence what the exporter says of itself, and of torchvision, which is not needed."""

    def is_news(record: logging.LogRecord) -> bool:
        return "torchvision is not installed" not in record.getMessage()

    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    logger.addFilter(is_news)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"`isinstance\(treespec, LeafSpec\)`", FutureWarning)
            yield
    finally:
        logger.removeFilter(is_news)


def _checked_name(out: str | Path | None, model: str) -> Path:
    """Where to write; refused before the long work. A checkpoint's model name may be anything."""
    if out is None:
        if not re.fullmatch(r"\w[\w.-]*", model, re.ASCII):
            raise EdgeError(f"model {model!r}: is no name for a folder; give --out FILE.onnx")
        return Path("artifacts", model, "fp32.onnx")
    if Path(out).suffix != ".onnx" or Path(out).is_dir():
        raise EdgeError(f"{out}: expected the name of a file that ends in .onnx")
    return Path(out)


def _measure(content: bytes, probes: Probes) -> tuple[Fidelity, Measurement]:
    with OnnxRuntimeSession(content, "the exported graph") as session:
        fidelity = drift.measure(session.run, probes)
        measurement = Measurement(
            backend=session.name,
            backend_version=session.version,
            processor=processor(),
            fidelity_db=fidelity.fidelity_db,
            worst_fidelity_db=fidelity.worst_fidelity_db,
            extremes_fidelity_db=fidelity.extremes_fidelity_db,
        )
    return fidelity, measurement


def _write(
    out: Path,
    content: bytes,
    probes: Probes,
    checkpoint: Checkpoint,
    flags: dict[str, object],
    measurement: Measurement,
) -> None:
    """Write the three files whole, then rename probes, artifact and manifest, in this order.

    Killed between two of them, it leaves a manifest whose hashes fit no other files than its own:
    nothing that a session would open.
    """
    with (
        writing(manifest_path(out)) as new_manifest,  # the first to be opened is the last renamed
        writing(out) as new_artifact,
        writing(probes_path(out)) as new_probes,
    ):
        new_artifact.write_bytes(content)
        drift.write_probes(new_probes, probes)
        manifest = Manifest(
            model=checkpoint.model,
            precision="fp32",
            target="any",
            sha256=sha256_bytes(content),
            checkpoint_sha256=checkpoint.sha256,
            probes_sha256=sha256_file(new_probes),
            executes_as="fp32",
            random_weights=checkpoint.random_weights,
            psnr_y=_psnr_y(checkpoint),
            tools={tool: version(tool) for tool in TOOLS},
            flags=flags,
            measured_on=(measurement,),
        )
        write_manifest(new_manifest.with_suffix(""), manifest)  # which adds .json again


def _psnr_y(checkpoint: Checkpoint) -> float | None:
    metrics = checkpoint.metrics
    return metrics.get("celeba-val/psnr_y", metrics.get("validation/psnr_y"))


def _outdated(out: Path) -> tuple[str, ...]:
    """The other artifacts beside `out` whose manifest names other probes."""
    probes_sha256 = read_manifest(out).probes_sha256
    outdated = []
    for other in sorted(out.parent.glob("*.onnx")):
        with contextlib.suppress(EdgeError):  # no manifest, or a damaged one: no artifact
            if read_manifest(other).probes_sha256 != probes_sha256:
                outdated.append(str(other))
    return tuple(outdated)


def main(argv: Sequence[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    return run_command(lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> int:
    result = export(
        arguments.model,
        arguments.checkpoint,
        arguments.out,
        arguments.random_weights,
        max_abs_diff=arguments.max_abs_diff,
        progress=_show_step if sys.stderr.isatty() else lambda step: None,
    )
    if arguments.json:
        print(json.dumps(asdict(result)))
    else:
        _describe(result)
    for artifact in result.outdated:
        print(f"outdated: {artifact} is of other weights; quantize it again", file=sys.stderr)
    return 0


def _describe(result: ExportResult) -> None:
    weights = ", random weights" if result.random_weights else ""
    print(
        f"{result.artifact}: {result.model}{weights}, {result.bytes / 2**20:.1f} MiB,"
        f" {result.nodes_before} -> {result.nodes_after} nodes, opset {result.opset};"
        f" from torch {result.max_abs_diff:.1e} at most, PSNR {result.psnr_db:.0f} dB;"
        f" fidelity {result.fidelity_db:.0f} dB; sha256 {result.sha256[:12]}",
        file=sys.stderr,
    )


def _show_step(step: str) -> None:
    print(f"\r\033[K{step} ...", end="\r", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.onnx",
        description="Export a model to ONNX, simplify it, prove that it equals the one in torch.",
    )
    parser.add_argument("--model", metavar="M", help="a model's name (default: aminet-edge)")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument(
        "--checkpoint", metavar="F", help="trained weights; with --model they must be of its config"
    )
    weights.add_argument(
        "--random-weights", type=int, metavar="SEED", help="weights for tests; infer refuses them"
    )
    parser.add_argument("--out", metavar="F", help="default: artifacts/<model>/fp32.onnx")
    parser.add_argument(
        "--max-abs-diff",
        type=float,
        default=MAX_ABS_DIFF,
        metavar="X",
        help=f"how far values may be from torch's (default: {MAX_ABS_DIFF:g})",
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


if __name__ == "__main__":
    sys.exit(main())
