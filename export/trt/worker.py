"""One TensorRT build in its own process and folder: `python -m export.trt.worker`.

After a failed build TensorRT builds a different engine of the same network, and its C library
prints past its logger. So export.trt.build starts a process per build and exchanges files with it,
whose names never change: paths of other lengths would shift memory addresses, and with them the
order in which TensorRT-RTX numbers compiled kernels.
"""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeAlias

from export.gate import COUNTED
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

# In the working directory; the log exists only if the builder reported something.
REQUEST, RESULT = "request.json", "result.json"
SOURCE, ENGINE, LOG = "source.onnx", "out.engine", "builder.log"
KEPT = ("INTERNAL_ERROR", "ERROR", "WARNING")  # severities that go to the log
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
    library = import_library(request.builder)
    log = _log(library)
    builder = library.Builder(log)
    strongly_typed = 1 << int(library.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(strongly_typed)
    parser = library.OnnxParser(network, log)
    if not parser.parse(Path(SOURCE).read_bytes()) or not network.num_outputs:
        raise EdgeError(f"{request.builder} cannot read it: {_errors(parser)}")
    types = _network_types(network)
    if types != request.types:
        raise EdgeError(
            f"{request.builder} parsed it to {types}, expected {request.types}",
            EXIT_PRECISION,
        )
    inputs = _tensors(network.get_input(i) for i in range(network.num_inputs))
    outputs = _tensors(network.get_output(i) for i in range(network.num_outputs))
    config = _configure(library, builder, network, request)
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        reason = log.last_error or "no reason given"
        raise EdgeError(
            f"{request.builder} cannot build it for {', '.join(request.capabilities)}: {reason}"
        )
    _refuse_wrong_numbers(log.warnings, request)
    Path(ENGINE).write_bytes(serialized)
    return Built(
        inputs=inputs,
        outputs=outputs,
        network_types=types,
        engine_types=_engine_types(library, log, serialized) if cuda.has_device() else None,
        warnings=len(log.warnings),
    )


def _configure(library: ModuleType, builder: Any, network: Any, request: Request) -> Any:
    """Set the optimization profile, the workspace limit and no TF32; precision is in the graph."""
    config = builder.create_builder_config()
    config.set_memory_pool_limit(library.MemoryPoolType.WORKSPACE, request.workspace_mib << 20)
    config.clear_flag(library.BuilderFlag.TF32)
    config.profiling_verbosity = library.ProfilingVerbosity.DETAILED
    profile = builder.create_optimization_profile()
    lr = network.get_input(0)
    profile.set_shape(lr.name, *((batch, *tuple(lr.shape)[1:]) for batch in request.profile))
    config.add_optimization_profile(profile)
    if request.builder == "tensorrt-rtx":
        config.num_compute_capabilities = len(request.capabilities)
        for i, capability in enumerate(request.capabilities):
            enum = library.ComputeCapability.__members__[f"SM{capability.replace('.', '')}"]
            config.set_compute_capability(enum, i)
    return config


def _log(library: ModuleType) -> Any:
    """Make a logger that writes each distinct warning and error once."""

    class Log(library.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            library.ILogger.__init__(self)
            self.warnings: list[str] = []
            self.last_error = ""
            self._seen: set[str] = set()

        def log(self, severity: Any, message: str) -> None:
            if severity.name not in KEPT:
                return
            if severity.name == "WARNING":
                self.warnings.append(message)
            else:
                self.last_error = " ".join(message.split())
            if message not in self._seen:
                self._seen.add(message)
                with open(LOG, "a") as file:
                    file.write(f"{severity.name}: {message}\n")

    return Log()


def _errors(parser: Any) -> str:
    faults = [parser.get_error(i) for i in range(parser.num_errors)]
    listed = [f"{fault.node_name()}: {fault.desc()}".removeprefix(": ") for fault in faults]
    return " ".join("; ".join(listed).split()) or "no network in it"


def _network_types(network: Any) -> dict[str, dict[str, int]]:
    counts: dict[str, Counter[str]] = {}
    for i in range(network.num_layers):
        layer = network.get_layer(i)
        if layer.type.name in COUNTED.values():
            counts.setdefault(layer.type.name, Counter())[layer.get_output(0).dtype.name] += 1
    return {layer: dict(kinds) for layer, kinds in counts.items()}


def _tensors(tensors: Iterable[Any]) -> tuple[Tensor, ...]:
    return tuple((tensor.name, tensor.dtype.name, tuple(tensor.shape)) for tensor in tensors)


def _engine_types(library: ModuleType, log: Any, serialized: Any) -> dict[str, int] | None:
    engine = library.Runtime(log).deserialize_cuda_engine(serialized)
    if engine is None:  # built for another GPU
        return None
    information = engine.create_engine_inspector().get_engine_information(
        library.LayerInformationFormat.JSON
    )
    return count_engine_types(information)


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


def main() -> int:
    """Answer REQUEST, {"find": builder} or {"build": the fields of a Request}, with RESULT."""
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
