"""The same network as a newcomer would deploy it: others' tools, with what they do by themselves.

torch eager and compiled; ONNX Runtime on the graph as torch exports it, in FP32 and after its own
quantizers; OpenVINO on that graph in FP32 and BF16, and NNCF's INT8 of it. Calibrated with the
same faces as ours.
"""

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from aminet.checkpoint import Checkpoint, build_model
from benchmarks.harness.machine import versions
from benchmarks.harness.race import Contender
from runtime.atomic import sha256_bytes, write_bytes
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import Pixels, to_tensor

WORK = Path(".work", "peers")
BF16 = ("avx512_bf16", "amx_bf16")  # where OpenVINO computes in BF16
Say = Callable[[str], None]

ONNX, DYNAMIC, STATIC, NNCF = "exported.onnx", "dynamic.onnx", "static.onnx", "nncf.xml"
# name, backend, precision, opener, file (None: the checkpoint itself)
PEERS: tuple[tuple[str, str, str, str, str | None], ...] = (
    ("torch eager", "torch", "fp32", "torch", None),
    ("torch.compile", "torch", "fp32", "torch.compile", None),
    ("ONNX Runtime FP32", "onnxruntime", "fp32", "onnxruntime", ONNX),
    ("ONNX Runtime dynamic INT8", "onnxruntime", "int8", "onnxruntime", DYNAMIC),
    ("ONNX Runtime static INT8", "onnxruntime", "int8", "onnxruntime", STATIC),
    ("OpenVINO FP32", "openvino", "fp32", "openvino", ONNX),
    ("OpenVINO BF16", "openvino", "bf16", "openvino-bf16", ONNX),
    ("NNCF INT8", "openvino", "int8", "openvino", NNCF),
)
EAGER = PEERS[0][0]
NAMES = tuple(peer[0] for peer in PEERS)


def make_peers(
    checkpoint: Checkpoint,
    faces: Pixels,
    processor: str,
    names: tuple[str, ...] = NAMES,
    say: Say = lambda line: None,
    note: Say = lambda line: None,
) -> list[Contender]:
    """The named peers of a trained network; their files are made once and kept in WORK.

    `faces` (N, 16, 16, 3) calibrate. A peer whose tool is missing is left out, and noted.
    """
    assert checkpoint.path
    made = (checkpoint.sha256, sorted(versions().items()), sha256_bytes(faces.tobytes()))
    folder = WORK / f"{checkpoint.model}-{sha256_bytes(repr(made).encode())[:12]}"
    peers = []
    for name, backend, precision, opener, file in PEERS:
        if name not in names or (
            precision == "bf16" and not any(feature in processor for feature in BF16)
        ):
            continue
        path = folder / file if file else checkpoint.path
        if not path.is_file():
            say(f"making {name}")
            try:
                with quietly():
                    _make(path, checkpoint, faces)
            except EdgeError as error:
                note(str(error))
                continue
        peers.append(Contender(name, checkpoint.model, backend, precision, opener, path, peer=True))
    return peers


def _make(path: Path, checkpoint: Checkpoint, faces: Pixels) -> None:
    exported = path.with_name(ONNX)
    if not exported.is_file():
        from export.exporter import trace

        write_bytes(exported, trace(build_model(checkpoint)).SerializeToString())
    if path.name == DYNAMIC:
        from onnxruntime.quantization import quantize_dynamic

        with _whole(path) as temporary:
            quantize_dynamic(exported, temporary)
    if path.name == STATIC:
        from onnxruntime.quantization import quantize_static

        with _whole(path) as temporary:
            quantize_static(exported, temporary, Reader(faces))
    if path.name == NNCF:
        _make_nncf(path, exported, faces)


class Reader:
    """Faces one by one, as ONNX Runtime's quantizer asks for them."""

    def __init__(self, faces: Pixels) -> None:
        self._left = iter(to_tensor(faces))

    def get_next(self) -> dict[str, np.ndarray] | None:
        face = next(self._left, None)
        return None if face is None else {"lr": face[None]}


def _make_nncf(path: Path, exported: Path, faces: Pixels) -> None:
    os.environ["CI"] = "true"  # nncf then sends nothing
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    try:
        import nncf
        import openvino
    except ImportError as error:
        raise EdgeError(
            f"{NAMES[-1]}: {error.name} is not installed; pip install 'aminet-edge[bench]', or"
            " leave it out: --peers",
            EXIT_MISSING,
        ) from error
    batches = nncf.Dataset([face[None] for face in to_tensor(faces)])
    quantized = nncf.quantize(openvino.Core().read_model(exported), batches)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        openvino.save_model(quantized, Path(folder, path.name))
        for suffix in (".bin", ".xml"):  # the .xml last: it stands for both
            os.replace(Path(folder, path.name).with_suffix(suffix), path.with_suffix(suffix))


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A file that becomes `path` when it is done."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        yield Path(folder, path.name)
        os.replace(Path(folder, path.name), path)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Without what these tools say of themselves: our own progress is said by `say`."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), open(os.devnull, "w") as null:
            warnings.simplefilter("ignore")
            with contextlib.redirect_stdout(null):
                yield
    finally:
        logging.disable(disabled)
