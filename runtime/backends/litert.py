"""LiteRT on the CPU, as on Android: an extra (`pip install 'aminet-edge[litert]'`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from runtime.backends.base import Closing, check_lr, silenced
from runtime.cpu import usable_cores
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import SR_SIDE, Tensor

if TYPE_CHECKING:
    from ai_edge_litert.interpreter import Interpreter

FIX = "Create it again with: python -m export.litert"
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
PRODUCT = "BATCH_MATMUL"
DELEGATE = "DELEGATE"  # what XNNPACK took over, as one node


@dataclass(frozen=True)
class Execution:
    """What LiteRT does with a file: the share of its multiply-adds in INT8, and the operators, one
    by one, that XNNPACK did not take over.
    """

    int8_mac_share: float
    outside_xnnpack: tuple[str, ...]


class LiteRtSession(Closing):
    """A LiteRT file, lr (1, S, S, 3) -> sr (1, 128, 128, 3), open in LiteRT with XNNPACK.

    `model` is the content of the file, so that what was hashed is what runs; `name` is for
    messages. Without `threads`, as many as there are cores. Raises EdgeError if LiteRT is missing
    or cannot open it, or if the contract is another.
    """

    name = "litert"

    def __init__(self, model: bytes, name: str, threads: int | None = None) -> None:
        litert = _import_litert()
        self._litert, self._model, self._file = litert, model, name
        self._threads = threads or usable_cores()
        self.version: str = litert.__version__
        self.options = f"xnnpack, {self._threads} threads"
        self._idle: list[Interpreter] = []  # one runs one face at a time
        interpreter = self._start()
        self.lr_side = _check_contract(interpreter, name)
        self._idle.append(interpreter)

    def run(self, lr: Tensor) -> Tensor:
        """Upscale lr (N, 3, S, S), float32 in [0, 1], to (N, 3, 128, 128), not clipped.

        One face after the other: the file has no batch. Threads that share the session have an
        interpreter each.
        """
        check_lr(lr, self.lr_side)
        sr = np.empty((len(lr), 3, SR_SIDE, SR_SIDE), np.float32)
        interpreter = self._idle.pop() if self._idle else self._start()
        try:
            source = interpreter.get_input_details()[0]["index"]
            result = interpreter.get_output_details()[0]["index"]
            for face, made in zip(lr, sr, strict=True):
                interpreter.set_tensor(source, face.transpose(1, 2, 0)[None])
                interpreter.invoke()
                made[:] = interpreter.get_tensor(result)[0].transpose(2, 0, 1)
        except (RuntimeError, ValueError) as error:
            raise EdgeError(
                f"{self._file}: LiteRT cannot run it ({_first_line(error)}). {FIX}"
            ) from error
        self._idle.append(interpreter)
        return sr

    def execution(self) -> Execution:
        """What is computed in INT8 and what outside XNNPACK, read from the prepared graph."""
        interpreter = self._idle[0] if self._idle else self._start()
        operators = interpreter._get_ops_details()  # the only way to see the delegate's work
        macs = {node["index"]: _macs(interpreter, node) for node in operators}
        int8 = sum(macs[node["index"]] for node in operators if np.int8 in node["result_types"])
        result = interpreter.get_output_details()[0]["index"]
        outside = [name for name in _executed(operators, result) if name != DELEGATE]
        return Execution(int8 / max(1, sum(macs.values())), tuple(outside))

    def close(self) -> None:
        """Give the model's memory back; LiteRT does so when the interpreters are forgotten."""
        self._idle.clear()

    def _start(self) -> Interpreter:
        try:
            with silenced():
                interpreter = self._litert.interpreter.Interpreter(
                    model_content=self._model, num_threads=self._threads
                )
                interpreter.allocate_tensors()
        except (RuntimeError, ValueError) as error:
            raise EdgeError(
                f"{self._file}: LiteRT cannot open it ({_first_line(error)}). {FIX}"
            ) from error
        return interpreter


def _executed(operators: Sequence[dict[str, Any]], result: int) -> list[str]:
    """The names of the operators that run: those that lead to the result, the delegate first.

    The operators that the delegate took over are still listed, without being run.
    """
    makers: dict[int, dict[str, Any]] = {}
    for node in operators:
        for tensor in node["outputs"]:
            if node["op_name"] == DELEGATE or tensor not in makers:
                makers[int(tensor)] = node
    names, wanted, seen = [], [int(result)], set()
    while wanted:
        maker = makers.get(wanted.pop())
        if maker is None or maker["index"] in seen:  # a constant or the input, or seen before
            continue
        seen.add(maker["index"])
        names.append(maker["op_name"])
        wanted += [int(tensor) for tensor in maker["inputs"]]
    return sorted(names)


def _macs(interpreter: Interpreter, node: dict[str, Any]) -> int:
    """The multiply-adds of a node; 0 for all but convolutions and products of matrices."""
    name = node["op_name"]
    if name not in (*CONVOLUTIONS, PRODUCT):
        return 0
    shapes = [
        interpreter._get_tensor_details(int(tensor), subgraph_index=0)["shape"]
        for tensor in (*node["inputs"][:2], node["outputs"][0])
    ]
    data, weight, made = shapes
    if name == PRODUCT:
        return int(prod(made) * data[-1])
    each = prod(weight[1:3]) if name == "DEPTHWISE_CONV_2D" else prod(weight[1:])
    return int(prod(made) * each)


def _import_litert() -> ModuleType:
    try:
        import ai_edge_litert.interpreter
    except ImportError as error:
        raise EdgeError(
            "backend litert is not installed; pip install 'aminet-edge[litert]'", EXIT_MISSING
        ) from error
    except Exception as error:
        raise EdgeError(
            f"backend litert cannot be loaded ({_first_line(error)}); pip install"
            " --force-reinstall ai-edge-litert",
            EXIT_MISSING,
        ) from error
    return ai_edge_litert


def _check_contract(interpreter: Interpreter, name: str) -> int:
    """The side S if the input is lr (1, S, S, 3) and the output sr (1, 128, 128, 3), float32."""
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    found = [(t["name"], t["dtype"], tuple(map(int, t["shape"]))) for t in (*inputs, *outputs)]
    side = found[0][2][1] if found and len(found[0][2]) == 4 else 0
    expected = [
        ("lr", np.float32, (1, side, side, 3)),
        ("sr", np.float32, (1, SR_SIDE, SR_SIDE, 3)),
    ]
    if len(inputs) != 1 or found != expected:
        listed = ", ".join(f"{each} {dtype.__name__} {shape}" for each, dtype, shape in found)
        raise EdgeError(
            f"{name}: has {listed}, expected lr float32 (1, S, S, 3) and sr float32"
            f" (1, {SR_SIDE}, {SR_SIDE}, 3). {FIX}"
        )
    return side


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
