"""ncnn on the CPU, for phones and boards: an extra (`pip install 'aminet-edge[ncnn]'`)."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np

from runtime.backends.base import Closing, check_lr, silenced
from runtime.cpu import usable_cores
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import SR_SIDE, Tensor
from runtime.spinning import spinning_little

if TYPE_CHECKING:
    from ncnn import Net

FIX = "Create it again with: python -m export.ncnn"
INPUT = re.compile(r"^Input lr 0 1 lr 0=(\d+) 1=\1 2=3$", re.MULTILINE)
# Left to itself, ncnn computes in FP16 on Arm processors that can; BF16 is wrong on x86.
OFF = (
    "use_fp16_packed",
    "use_fp16_storage",
    "use_fp16_arithmetic",
    "use_bf16_packed",
    "use_bf16_storage",
    "use_vulkan_compute",
)


class NcnnSession(Closing):
    """A ncnn network, lr (3, S, S) -> sr (3, 128, 128), open in ncnn; FP32 where not quantized.

    `param` and `weights` are the content of its .param and .bin, so that what was hashed is what
    runs; `name` is for messages. Without `threads`, as many as there are cores. Raises EdgeError if
    ncnn is missing or cannot open it, or if the contract is another.
    """

    name = "ncnn"

    def __init__(self, param: bytes, weights: bytes, name: str, threads: int | None = None) -> None:
        self._ncnn = _import_ncnn()
        self._file = name
        self.version: str = self._ncnn.__version__
        threads = threads or usable_cores()
        self.options = f"cpu, float32 where not quantized, {threads} threads"
        self.lr_side = _check_contract(param, name)
        self._net = self._ncnn.Net()
        self._net.opt.num_threads = threads
        for option in OFF:
            setattr(self._net.opt, option, False)
        if not _load(self._net, param, weights):
            raise EdgeError(f"{name}: ncnn cannot open it. {FIX}")

    def run(self, lr: Tensor) -> Tensor:
        """Upscale lr (N, 3, S, S), float32 in [0, 1], to (N, 3, 128, 128), not clipped.

        One face after the other: ncnn has no batch. Threads share the session.
        """
        check_lr(lr, self.lr_side)
        return np.stack([self._run_one(face) for face in lr])

    def _run_one(self, face: Tensor) -> Tensor:
        extractor = self._net.create_extractor()
        # A copy: the Mat does not keep the array alive that it would point to.
        extractor.input("lr", self._ncnn.Mat(np.ascontiguousarray(face)).clone())
        status, sr = extractor.extract("sr")
        made = np.array(sr, np.float32) if status == 0 else np.empty(0, np.float32)
        if made.shape != (3, SR_SIDE, SR_SIDE):
            raise EdgeError(
                f"{self._file}: ncnn cannot run it (status {status}, sr {made.shape}). {FIX}"
            )
        return made

    def close(self) -> None:
        """Give the model's memory back."""
        self._net.clear()


def _load(net: Net, param: bytes, weights: bytes) -> bool:
    """Whether ncnn takes the two files; it reads weights from one on the disk alone."""
    import tempfile

    with tempfile.TemporaryDirectory() as folder, silenced():
        path = Path(folder, "network")
        path.with_suffix(".param").write_bytes(param)
        path.with_suffix(".bin").write_bytes(weights)
        return (
            net.load_param(str(path.with_suffix(".param"))) == 0
            and net.load_model(str(path.with_suffix(".bin"))) == 0
        )


def _check_contract(param: bytes, name: str) -> int:
    """The side S if the network's one input is lr (3, S, S) and it makes sr."""
    text = param.decode(errors="replace")
    inputs = re.findall(r"^Input .*$", text, re.MULTILINE)
    found = INPUT.search(text)
    if len(inputs) != 1 or not found or not re.search(r"^.* sr( -?\d+=\S+)*$", text, re.MULTILINE):
        raise EdgeError(
            f"{name}: has {', '.join(inputs) or 'no input'}, expected one input lr (3, S, S) and a"
            f" layer that makes sr. {FIX}"
        )
    return int(found[1])


def _import_ncnn() -> ModuleType:
    try:
        with spinning_little():
            import ncnn
    except ImportError as error:
        raise EdgeError(
            "backend ncnn is not installed; pip install 'aminet-edge[ncnn]'", EXIT_MISSING
        ) from error
    return ncnn
