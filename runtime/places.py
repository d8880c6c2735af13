"""Where artifacts are looked for, and in which backends each of them is tried."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from runtime.errors import EXIT_ERROR, EXIT_MISSING, EdgeError
from runtime.formats import format_for, format_of
from runtime.manifest import probes_path

DEFAULT_MODEL = "aminet-edge"
FOLDER = Path("artifacts", DEFAULT_MODEL)
PACKED = Path(__file__).parent / "models" / DEFAULT_MODEL  # what the wheel carries
PREFERENCE = ("int8.onnx", "int8-openvino.onnx", "fp32.onnx")  # the fastest first
MADE_FOR = {"int8-openvino.onnx": "openvino"}  # other files suit any backend
DEVICE_FILES = {  # of each backend, the fastest first
    "litert": ("litert/int8.tflite", "litert/fp32.tflite"),
    "ncnn": ("ncnn/int8.param", "ncnn/fp32.param"),
}

Route = tuple[Path, str]  # an artifact and a backend


def find_artifacts(
    artifact: str | Path | None, backend: str, *, fallback: bool = False
) -> tuple[list[Path], bool]:
    """The artifacts to try in turn, and whether they were searched for rather than named.

    `artifact` is a file, a folder of them, or None: then ./artifacts/aminet-edge, or else the model
    that the package carries. EdgeError if a folder has none for the backend.
    """
    if artifact is not None and (not Path(artifact).is_dir() or not format_of(artifact).backends):
        named = Path(artifact)
        spare = probes_path(named).with_name("fp32.onnx")
        return [named, spare] if fallback and spare != named else [named], False
    folders = [Path(artifact)] if artifact is not None else [FOLDER, PACKED]
    names: tuple[str, ...] = DEVICE_FILES.get(backend, PREFERENCE)
    names += PREFERENCE if fallback and names is not PREFERENCE else ()
    for folder in folders:
        if found := [folder / name for name in names if (folder / name).is_file()]:
            return found, True
    raise EdgeError(
        f"{' or '.join(map(str, folders))}: no model found, expected {' or '.join(names)}. Create"
        f" it with: {format_for(backend).make}",
        EXIT_MISSING if backend in DEVICE_FILES else EXIT_ERROR,
    )


def find_model(names: Sequence[str], *, packed: bool = True) -> Path | None:
    """The folder of the first of these models that is here: in ./artifacts, or in the wheel."""
    for name in names:
        for folder in (FOLDER.with_name(name), *([PACKED.with_name(name)] if packed else [])):
            if any((folder / file).is_file() for file in PREFERENCE):
                return folder
    return None


def find_routes(paths: Sequence[Path], backends: Sequence[str]) -> list[Route]:
    """Each artifact in each backend that it is made for; all of them if that leaves none."""
    everything = [(path, backend) for path in paths for backend in backends]
    made_for = [
        (path, backend)
        for path, backend in everything
        if format_of(path) is format_for(backend)
        and (len(paths) == 1 or MADE_FOR.get(path.name, backend) == backend)
    ]
    return made_for or everything


def find_device_files(folder: Path, installed: Mapping[str, str]) -> list[Route]:
    """The files for other backends that lie below a model's folder, the fastest of each."""
    routes: list[Route] = []
    if (folder / "trt").is_dir():
        from runtime.backends.engine_files import find_engines

        routes += [(engine, "tensorrt") for engine in find_engines(folder)]
    for backend, names in DEVICE_FILES.items():
        found = [folder / name for name in names if (folder / name).is_file()]
        if found and backend in installed:
            routes.append((found[0], backend))
    return routes
