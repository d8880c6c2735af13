"""Off-the-shelf baselines: the same network in other tools, with their default settings.

torch eager and compiled; ONNX Runtime on the graph as torch exports it, in FP32 and after its own
quantizers; OpenVINO on that graph in FP32 and BF16, and NNCF's INT8 of it. The INT8 ones are
calibrated with the same faces as our artifacts.
"""

import contextlib
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from aminet.checkpoint import Checkpoint, build_model
from benchmarks.harness.interleaved import BenchmarkCandidate
from benchmarks.harness.machine import versions
from runtime.atomic import sha256_bytes, write_bytes
from runtime.backends.openvino import import_openvino
from runtime.cpu import FAST_BF16, processor
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import LR_SIDE, Pixels, Tensor, to_tensor
from runtime.progress import Progress, silent
from runtime.telemetry import disable_telemetry

WORK = Path(".work", "baselines")

ONNX, DYNAMIC, STATIC, NNCF = "exported.onnx", "dynamic.onnx", "static.onnx", "nncf.xml"
# name, backend, precision, opener, file (None: the checkpoint itself)
BASELINES: tuple[tuple[str, str, str, str, str | None], ...] = (
    ("torch eager", "torch", "fp32", "torch", None),
    ("torch.compile", "torch", "fp32", "torch.compile", None),
    ("ONNX Runtime FP32", "onnxruntime", "fp32", "onnxruntime", ONNX),
    ("ONNX Runtime dynamic INT8", "onnxruntime", "int8", "onnxruntime", DYNAMIC),
    ("ONNX Runtime static INT8", "onnxruntime", "int8", "onnxruntime", STATIC),
    ("OpenVINO FP32", "openvino", "fp32", "openvino", ONNX),
    ("OpenVINO BF16", "openvino", "bf16", "openvino-bf16", ONNX),
    ("NNCF INT8", "openvino", "int8", "openvino", NNCF),
)
EAGER = BASELINES[0][0]
NAMES = tuple(baseline[0] for baseline in BASELINES)


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained network: its checkpoint, multiply-adds a face, probes and input side in px."""

    checkpoint: Checkpoint
    macs: int
    probes: Path
    lr_side: int = LR_SIDE


def make_baselines(
    network: TrainedNetwork,
    faces: Pixels,
    names: tuple[str, ...] = NAMES,
    progress: Progress = silent,
    note: Callable[[str], None] = silent,
) -> list[BenchmarkCandidate]:
    """Return the named baselines of a network; their files are made once and kept in WORK.

    `faces` (N, S, S, 3) calibrate. A baseline whose tool is missing is left out, and noted.
    """
    checkpoint = network.checkpoint
    assert checkpoint.path
    made = (checkpoint.sha256, sorted(versions().items()), sha256_bytes(faces.tobytes()))
    folder = WORK / f"{checkpoint.model}-{sha256_bytes(repr(made).encode())[:12]}"
    found = []
    for name, backend, precision, opener, file in BASELINES:
        if name not in names or (
            precision == "bf16" and not any(feature in processor() for feature in FAST_BF16)
        ):
            continue
        path = folder / file if file else checkpoint.path
        if not path.is_file():
            progress(f"making {name}")
            try:
                with quietly():
                    _make(path, checkpoint, faces)
            except EdgeError as error:
                note(str(error))
                continue
        found.append(
            BenchmarkCandidate(
                name,
                checkpoint.model,
                backend,
                precision,
                opener,
                path,
                network.macs,
                network.probes,
                baseline=True,
                lr_side=network.lr_side,
            )
        )
    return found


def _make(path: Path, checkpoint: Checkpoint, faces: Pixels) -> None:
    disable_telemetry()
    exported = path.with_name(ONNX)
    if not exported.is_file():
        from export.exporter import trace

        write_bytes(exported, trace(build_model(checkpoint)).SerializeToString())
    if path.name == DYNAMIC:
        from onnxruntime.quantization import quantize_dynamic

        with _atomic(path) as temporary:
            quantize_dynamic(exported, temporary)
    if path.name == STATIC:
        from onnxruntime.quantization import quantize_static

        with _atomic(path) as temporary:
            quantize_static(exported, temporary, FaceReader(to_tensor(faces)))
    if path.name == NNCF:
        _make_nncf(path, exported, faces)


class FaceReader:
    """The CalibrationDataReader of onnxruntime.quantization: faces (N, 3, S, S) one by one."""

    def __init__(self, lr: Tensor) -> None:
        self._left = iter(lr)

    def get_next(self) -> dict[str, Tensor] | None:
        face = next(self._left, None)
        return None if face is None else {"lr": face[None]}


def _make_nncf(path: Path, exported: Path, faces: Pixels) -> None:
    openvino, nncf = import_openvino(), import_nncf()
    batches = nncf.Dataset([face[None] for face in to_tensor(faces)])
    quantized = nncf.quantize(openvino.Core().read_model(exported), batches)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        openvino.save_model(quantized, Path(folder, path.name))
        for suffix in (".bin", ".xml"):  # the .xml last: it stands for both
            os.replace(Path(folder, path.name).with_suffix(suffix), path.with_suffix(suffix))


def import_nncf() -> ModuleType:
    """Import nncf with its telemetry disabled; EdgeError (status 5) if it is not installed."""
    disable_telemetry()
    try:
        import nncf
    except ImportError as error:
        raise EdgeError(
            f"{NAMES[-1]}: {error.name} is not installed; pip install 'aminet-edge[bench]', or"
            " leave it out: --baselines",
            EXIT_MISSING,
        ) from error
    return nncf


@contextlib.contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """A temporary path; what is written there becomes `path` at the end."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        yield Path(folder, path.name)
        os.replace(Path(folder, path.name), path)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Silence the tools' own logs, warnings and progress bars."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as null:
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(null):
                yield
    finally:
        logging.disable(disabled)
