"""One TensorRT build in its own process and folder: `python -m export.trt.worker`.

After a failed build TensorRT builds a different engine of the same network, and its C library
prints past its logger. So export.trt.build starts a process per build and exchanges files with it,
whose names never change: paths of other lengths would shift memory addresses, and with them the
order in which TensorRT-RTX numbers compiled kernels.
"""

import json
import os
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from export.gate import COUNTED
from export.trt.loaders import Loaders, import_polygraphy
from runtime.backends import cuda
from runtime.backends.tensorrt import LIBRARIES, import_library
from runtime.errors import (
    EXIT_DRIFT,
    EXIT_ERROR,
    EXIT_MISSING,
    EXIT_PRECISION,
    FULL_DISK,
    EdgeError,
)

# In the working directory, with the log of export.trt.loaders.
REQUEST, RESULT = "request.json", "result.json"
SOURCE, ENGINE = "source.onnx", "out.engine"
# Words of warnings after which a builder computes something else than the file says. The gate
# rejects the known causes; these are for the unknown ones.
WRONG_NUMBERS = ("uint8", "instead", "clamp", "out of range", "overflow", "missing scale")

Tensor: TypeAlias = tuple[str, str, tuple[int, ...]]  # name, type, shape


@dataclass(frozen=True)
class Request:
    """How to build SOURCE, for which compute capabilities, such as "8.6".

    `types` are the layer counts that the parsed network must have (export.gate.types_of).
    """

    builder: str
    capabilities: tuple[str, ...]
    profile: tuple[int, int, int]
    workspace_mib: int
    types: dict[str, dict[str, int]]


@dataclass(frozen=True)
class Found:
    """A builder that starts here. `capability` is that of the GPU, for a builder that needs one.

    `offered` are those that it can build for without a GPU.
    """

    builder: str
    version: str
    capability: str | None
    offered: tuple[str, ...]


@dataclass(frozen=True)
class Built:
    """The parsed network, read before the build, and the number of the builder's warnings.

    `engine_types` counts the engine's layers by type; None without a GPU, which reading them needs.
    """

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    network_types: dict[str, dict[str, int]]
    engine_types: dict[str, int] | None
    warnings: int


def find_builder(wanted: str) -> Found:
    """The wanted builder; for 'auto' the first that starts, `tensorrt` before TensorRT-RTX.

    Raises EdgeError with status 5 if there is none.
    """
    reasons = []
    for name in LIBRARIES if wanted == "auto" else (wanted,):
        try:
            library = import_library(name)
            library.Builder(library.Logger(library.Logger.ERROR))
            import_polygraphy(name)
        except EdgeError as error:
            reasons.append(str(error))
        except TypeError:  # how pybind reports a null pointer
            reasons.append(f"{name} is installed, but starts no builder here: is there a GPU?")
        else:
            return _describe(name, library)
    raise EdgeError(f"no builder: {'; '.join(reasons)}", EXIT_MISSING)


def _describe(name: str, library: ModuleType) -> Found:
    if name == "tensorrt":
        return Found(name, library.__version__, cuda.find_device().capability, ())
    offered = sorted(
        (int(enum[2:-1]), int(enum[-1]))
        for enum in library.ComputeCapability.__members__
        if enum.startswith("SM")
    )
    return Found(name, library.__version__, None, tuple(f"{a}.{b}" for a, b in offered))


def build(request: Request) -> Built:
    """Parse, compare with the request, build, write; EdgeError where one of them fails."""
    loaders = Loaders(request.builder)
    parsed = loaders.parse(Path(SOURCE).read_bytes())
    network = parsed[1]
    types = _network_types(network)
    if types != request.types:
        raise EdgeError(
            f"{request.builder} parsed it to {types}, expected {request.types}",
            EXIT_PRECISION,
        )
    inputs = _tensors(network.get_input(i) for i in range(network.num_inputs))
    outputs = _tensors(network.get_output(i) for i in range(network.num_outputs))
    serialized = loaders.build(parsed, request.profile, request.workspace_mib, request.capabilities)
    _refuse_wrong_numbers(loaders.warnings, request)
    Path(ENGINE).write_bytes(serialized)
    information = loaders.inspect(serialized) if cuda.has_device() else None
    return Built(
        inputs=inputs,
        outputs=outputs,
        network_types=types,
        engine_types=count_engine_types(information) if information else None,
        warnings=len(loaders.warnings),
    )


def _network_types(network: Any) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type.name in COUNTED.values():
            counts.setdefault(layer.type.name, Counter())[layer.get_output(0).dtype.name] += 1
    return {layer: dict(kinds) for layer, kinds in counts.items()}


def _tensors(tensors: Iterable[Any]) -> tuple[Tensor, ...]:
    return tuple((tensor.name, tensor.dtype.name, tuple(tensor.shape)) for tensor in tensors)


def count_engine_types(information: str) -> dict[str, int]:
    """Count layers by output type, from the engine inspector's JSON: {"Half": 80, ...}."""
    counts: Counter[str] = Counter()
    for described in json.loads(information)["Layers"]:
        outputs = described.get("Outputs", ()) if isinstance(described, dict) else ()
        for output in outputs:
            counts[output.get("Format/Datatype", "unknown")] += 1
    return dict(counts)


def _refuse_wrong_numbers(warnings: Sequence[str], request: Request) -> None:
    for warning in warnings:
        if any(words in warning.lower() for words in WRONG_NUMBERS):
            raise EdgeError(
                f"{request.builder} would compute something else: {' '.join(warning.split())}",
                EXIT_DRIFT,
            )


def _forget_the_folder() -> None:
    """Import multiprocessing, as the libraries do, elsewhere: it keeps the path of the folder that
    it is imported in."""
    if not hasattr(os, "fchdir"):  # Windows, which gives no fixed addresses either
        return
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir("/")
        import multiprocessing.process  # noqa: F401
    finally:
        os.fchdir(here)
        os.close(here)


def main() -> int:
    """Answer REQUEST, {"find": builder} or {"build": the fields of a Request}, with RESULT."""
    _forget_the_folder()
    asked = json.loads(Path(REQUEST).read_text())
    answer: dict[str, Any]
    try:
        found = find_builder(asked["find"]) if "find" in asked else build(Request(**asked["build"]))
        answer = asdict(found)
    except EdgeError as error:
        answer = {"error": str(error), "status": error.status}
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        answer = {"error": "the disk is full; make room and run it again", "status": EXIT_ERROR}
    Path(RESULT).write_text(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
