"""TensorRT and TensorRT-RTX through Polygraphy's loaders: parse, configure, build, deserialize.

By hand is only what Polygraphy has no loader for: TF32 off in TensorRT-RTX (its CreateConfigRTX
leaves the library's default), and the library's messages, which Polygraphy prints and this keeps.
"""

import logging
from types import ModuleType
from typing import Any

from runtime.backends.tensorrt import import_library
from runtime.errors import EdgeError, needs

RTX = "tensorrt-rtx"
LOG = "builder.log"  # exists only if the library reported something


class Loaders:
    """Polygraphy's loaders with one builder's library; a process can have one of them.

    `warnings` and `errors` are what the library said, each once and also in LOG. Raises EdgeError
    with status 5 if the library or Polygraphy is not installed.
    """

    def __init__(self, builder: str) -> None:
        self.tensorrt: ModuleType = import_library(builder)
        self._builder = builder
        import_polygraphy(builder).config.USE_TENSORRT_RTX = builder == RTX  # before .backend.trt
        self._messages = _listen()

    @property
    def warnings(self) -> list[str]:
        return self._messages.of(logging.WARNING)

    def parse(self, onnx_file: bytes) -> tuple[Any, Any, Any]:
        """Builder, strongly typed network and parser of an ONNX file."""
        from polygraphy.backend.trt import NetworkFromOnnxBytes
        from polygraphy.exception import PolygraphyException

        try:
            parsed = NetworkFromOnnxBytes(onnx_file, strongly_typed=True)()
        except PolygraphyException as error:
            raise EdgeError(f"{self._builder} cannot read it: {self._reason(error)}") from error
        if not parsed[1].num_outputs:
            raise EdgeError(f"{self._builder} cannot read it: no network in it")
        return parsed

    def build(
        self,
        parsed: tuple[Any, Any, Any],
        batches: tuple[int, int, int],
        workspace_mib: int,
        capabilities: tuple[str, ...],
    ) -> bytes:
        """The serialized engine; `batches` are the smallest, the optimal and the largest."""
        from polygraphy.backend.trt import EngineBytesFromNetwork, Profile
        from polygraphy.exception import PolygraphyException

        lr = parsed[1].get_input(0)
        profile = Profile().add(lr.name, *((batch, *tuple(lr.shape)[1:]) for batch in batches))
        options = {
            "profiles": [profile],
            "memory_pool_limits": {self.tensorrt.MemoryPoolType.WORKSPACE: workspace_mib << 20},
            "profiling_verbosity": self.tensorrt.ProfilingVerbosity.DETAILED,
        }
        try:
            config = self._config(options, capabilities)
            return bytes(EngineBytesFromNetwork(parsed, config)())
        except PolygraphyException as error:
            raise EdgeError(
                f"{self._builder} cannot build it for {', '.join(capabilities)}:"
                f" {self._reason(error)}"
            ) from error

    def _config(self, options: dict[str, Any], capabilities: tuple[str, ...]) -> Any:
        """Without TF32; TensorRT builds for the GPU here, TensorRT-RTX for these capabilities."""
        if self._builder != RTX:
            from polygraphy.backend.trt import CreateConfig

            return CreateConfig(**options, tf32=False)
        from polygraphy.backend.tensorrt_rtx import CreateConfigRTX
        from polygraphy.backend.trt import PostprocessConfig

        pairs = [tuple(map(int, capability.split("."))) for capability in capabilities]
        config = CreateConfigRTX(**options, compute_capabilities=pairs)
        return PostprocessConfig(config, self._clear_tf32)

    def _clear_tf32(self, builder: Any, network: Any, config: Any) -> None:
        config.clear_flag(self.tensorrt.BuilderFlag.TF32)

    def inspect(self, engine: bytes) -> str | None:
        """What the engine's inspector says, as JSON; None if it was built for another GPU."""
        from polygraphy.backend.trt import EngineFromBytes
        from polygraphy.exception import PolygraphyException

        try:
            opened = EngineFromBytes(engine)()
        except PolygraphyException:
            return None
        information: str = opened.create_engine_inspector().get_engine_information(
            self.tensorrt.LayerInformationFormat.JSON
        )
        return information

    def _reason(self, error: Exception) -> str:
        """The library's last error, else what Polygraphy concluded."""
        errors = self._messages.of(logging.ERROR)
        return " ".join((errors[-1] if errors else str(error)).split())


def import_polygraphy(builder: str) -> ModuleType:
    """Import Polygraphy; EdgeError with status 5, naming the builder's extra, if it is absent."""
    with needs(builder):
        import polygraphy.config
    return polygraphy


class _Messages(logging.Handler):
    """Keeps each distinct warning and error in memory and in LOG."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: dict[tuple[int, str], None] = {}

    def of(self, level: int) -> list[str]:
        return [message for seen, message in self._seen if seen == level]

    def emit(self, record: logging.LogRecord) -> None:
        key = record.levelno, record.getMessage()
        if key in self._seen or record.levelno > logging.ERROR:  # Polygraphy raises these as well
            return
        self._seen[key] = None
        with open(LOG, "a") as file:
            file.write(f"{record.levelname}: {key[1]}\n")


def _listen() -> _Messages:
    """Have Polygraphy's logger, and through it the library's, report to us alone."""
    from polygraphy.logger import G_LOGGER

    messages = _Messages()
    G_LOGGER.module_severity = G_LOGGER.WARNING
    G_LOGGER.colors = G_LOGGER.letter = False
    G_LOGGER.use_python_logging_system = True
    logger = logging.getLogger("Polygraphy")
    logger.propagate = False
    logger.addHandler(messages)
    return messages
