"""The export itself: trace, simplify, prove parity, measure, write; `export.onnx` is the command.

The graph is traced by torch's dynamo exporter, simplified (export.simplify) and proved equal to the
PyTorch network (export.parity). Its manifest and its probes are written beside it.
"""

import contextlib
import logging
import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import torch
from onnx import ModelProto

from aminet.checkpoint import WEIGHTS, Checkpoint, load_model
from aminet.model import AMINet
from export import parity, simplify
from export.contract import BATCH, INPUT, OPSET, OUTPUT, check_contract
from export.metadata import describe
from export.parity import BATCHES, MAX_ABS_DIFF, Parity
from export.probes import make_probes
from runtime import drift
from runtime.artifact import write_artifact
from runtime.atomic import sha256_bytes
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.drift import Fidelity, Probes
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.formats import ENGINE
from runtime.image import Tensor, to_tensor
from runtime.manifest import (
    Manifest,
    Measurement,
    read_manifest,
)

TOOLS = ("torch", "onnx", "onnxscript", "onnxsim", "onnxruntime", "numpy")
Progress = Callable[[str], None]


@dataclass(frozen=True)
class ExportResult:
    """The written artifact, and how close it is to PyTorch.

    `max_abs_diff` and `psnr_db` (peak 1) compare values at the worst batch size; `fidelity_db`
    compares the pixels of the probes' faces. `psnr_y` (dB) is the checkpoint's on validation faces
    and `bicubic_psnr_y` that of bicubic upscaling, None where unknown. `outdated` are the artifacts
    and engines in the folder that were made of other weights.
    """

    artifact: str
    model: str
    random_weights: bool
    psnr_y: float | None
    bicubic_psnr_y: float | None
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
    overwrite: bool = False,
    progress: Progress = lambda step: None,
) -> ExportResult:
    """Export a named model (aminet-edge where neither is given) or a checkpoint.

    `out` defaults to artifacts/<model>/fp32.onnx, for a checkpoint to fp32.onnx in the checkpoint's
    folder. A checkpoint given with a model name must fit that model's config. `random_seed`: random
    weights for tests, which the manifest records.

    Raises EdgeError, and writes nothing, if the artifact of another checkpoint would be replaced
    without `overwrite`, and with status 3 if a value differs from PyTorch's by `max_abs_diff`.
    """
    network, loaded = load_model(model, checkpoint, random_seed)
    target = _target(out, loaded)
    if checkpoint is not None and not overwrite:
        _refuse_other_weights(target, loaded)
    probes, sr = make_probes(network)
    progress("tracing")
    traced = trace(network)
    graph, proved = _simplify(traced, to_tensor(probes.lr), sr, max_abs_diff, progress)
    graph = describe(graph, loaded)
    check_contract(graph, network.config.lr_side)

    content = graph.SerializeToString(deterministic=True)
    fidelity, measurement = _measure(content, probes)
    flags = {
        "exporter": "dynamo",
        "opset": OPSET,
        "passes": [simplifying.__name__ for simplifying in simplify.PASSES],
        "batches": list(BATCHES),
        "max_abs_diff_limit": max_abs_diff,
        "quantization_aware": loaded.ranges is not None,
        **asdict(proved),
    }
    _write(target, content, probes, loaded, flags, measurement)
    return ExportResult(
        artifact=str(target),
        model=loaded.model,
        random_weights=loaded.random_weights,
        psnr_y=_psnr_y(loaded),
        bicubic_psnr_y=loaded.metrics.get("validation/bicubic_psnr_y"),
        nodes_before=len(traced.graph.node),
        nodes_after=len(graph.graph.node),
        **asdict(proved),
        fidelity_db=fidelity.fidelity_db,
        opset=OPSET,
        bytes=len(content),
        sha256=sha256_bytes(content),
        outdated=_outdated(target),
    )


def _simplify(
    traced: ModelProto, lr: Tensor, sr: Tensor, limit: float, progress: Progress
) -> tuple[ModelProto, Parity]:
    """Run all passes and prove parity once; on failure prove after each, to name the culprit."""
    graph = traced
    for simplifying in simplify.PASSES:
        progress(_step(simplifying))
        graph = simplifying(graph)
    progress("proving parity")
    try:
        return graph, parity.prove(graph, lr, sr, limit, "simplification")
    except EdgeError as error:
        if error.status != EXIT_DRIFT:
            raise
        graph = traced
        parity.prove(graph, lr, sr, limit, "tracing")
        for simplifying in simplify.PASSES:
            progress(f"proving parity after: {_step(simplifying)}")
            graph = simplifying(graph)
            parity.prove(graph, lr, sr, limit, _step(simplifying))
        raise


def _step(simplifying: simplify.Pass) -> str:
    return simplifying.__name__.replace("_", " ")


def trace(network: AMINet) -> ModelProto:
    """Trace a network in eval mode by torch's dynamo exporter."""
    side = network.config.lr_side
    example = torch.zeros(2, 3, side, side)  # not 1: a batch of one would be taken as fixed
    with _quiet():
        program = torch.onnx.export(
            network,
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: BATCH},),
            external_data=False,
            verbose=False,
        )
    assert program is not None  # it is None only without dynamo
    return program.model_proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence the exporter's notes on itself and on torchvision, which is not needed."""

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


def _target(out: str | Path | None, loaded: Checkpoint) -> Path:
    """The file to write, checked before the long work."""
    path = loaded.path
    if out is None and path is not None and path.resolve().parent != WEIGHTS.resolve():
        return path.parent / "fp32.onnx"
    if out is None:  # a checkpoint's model name may be anything
        if not re.fullmatch(r"\w[\w.-]*", loaded.model, re.ASCII):
            raise EdgeError(f"model {loaded.model!r}: not a folder name; give --out FILE.onnx")
        return Path("artifacts", loaded.model, "fp32.onnx")
    if Path(out).suffix != ".onnx" or Path(out).is_dir():
        raise EdgeError(f"{out}: expected a file name that ends in .onnx")
    return Path(out)


def _refuse_other_weights(target: Path, loaded: Checkpoint) -> None:
    """Refuse to replace the artifact of another checkpoint."""
    try:
        there = read_manifest(target)
    except EdgeError:  # nothing there, or damaged
        return
    if there.model != loaded.model or there.checkpoint_sha256 != loaded.sha256:
        raise EdgeError(
            f"{target}: is {there.model} of other weights (sha256 {there.checkpoint_sha256[:12]});"
            " give --out another file, or --overwrite"
        )


def _measure(content: bytes, probes: Probes) -> tuple[Fidelity, Measurement]:
    with OnnxRuntimeSession(content, "the exported graph") as session:
        fidelity = drift.measure(session.run, probes)
        measurement = Measurement.of(fidelity, session.name, session.version)
    return fidelity, measurement


def _write(
    out: Path,
    content: bytes,
    probes: Probes,
    checkpoint: Checkpoint,
    flags: dict[str, object],
    measurement: Measurement,
) -> None:
    """Write the three files, all or none."""
    encoded = drift.encode_probes(probes)
    manifest = Manifest(
        model=checkpoint.model,
        precision="fp32",
        target="any",
        sha256=sha256_bytes(content),
        checkpoint_sha256=checkpoint.sha256,
        probes_sha256=sha256_bytes(encoded),
        executes_as="fp32",
        lr_side=checkpoint.config.lr_side,
        random_weights=checkpoint.random_weights,
        psnr_y=_psnr_y(checkpoint),
        tools={tool: version(tool) for tool in TOOLS},
        flags=flags,
        measured_on=(measurement,),
    )
    write_artifact(out, content, manifest, probes=encoded)


def _psnr_y(checkpoint: Checkpoint) -> float | None:
    metrics = checkpoint.metrics
    return metrics.get("celeba-val/psnr_y", metrics.get("validation/psnr_y"))


def _outdated(out: Path) -> tuple[str, ...]:
    """The artifacts and engines below the folder of `out` whose manifest names other probes."""
    probes_sha256 = read_manifest(out).probes_sha256
    outdated = []
    for other in sorted([*out.parent.glob("*.onnx"), *out.parent.glob(f"trt/*/*{ENGINE}")]):
        with contextlib.suppress(EdgeError):  # no manifest, or a damaged one: no artifact
            if read_manifest(other).probes_sha256 != probes_sha256:
                outdated.append(str(other))
    return tuple(outdated)
