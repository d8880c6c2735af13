"""A model's whole way on this machine: export, quantize, convert, compile, run, compare.

Each artifact is proved on its probes when its session opens. What a missing package would make is
left out, and noted.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np

from aminet.checkpoint import weights_path
from aminet.config import MODELS, NATURAL, PAPER
from benchmarks.astronaut import aligned_astronaut, camera_face
from benchmarks.side_by_side import Column, draw
from calib_data.generate import PROBE_STRIP, unstrip
from export.device_command import DeviceFormat, export_files, find_sources
from export.exporter import export
from export.tensorrt import SOURCES
from export.trt.build import Engine, compile_engines
from quantize.fp16 import convert
from quantize.int8 import Int8Result, quantize
from quantize.targets import TARGETS, Target
from runtime.backends import openvino
from runtime.errors import EXIT_MISSING, EdgeError
from runtime.image import LR_SIDE, Pixels, psnr_y, read_image, shrink, upscale_bicubic
from runtime.progress import Progress, silent
from runtime.session import DEFAULT_MODEL, Session, open_session
from runtime.timing import take_turns

CALIBRATION = PROBE_STRIP.parents[1] / "calib_data"
SYNTHETIC_FACES = 2
ROUNDS = 5
DEVICE_FORMATS = ("litert", "ncnn")  # for phones; each also runs on this CPU
CAMERA_FACE_SIDE = 24  # px, of a face in a photo

Route = tuple[Path, str]  # an artifact and the backend to run it in
Log = Callable[[str], None]


@dataclass(frozen=True)
class DemoRow:
    """One artifact on this machine: time of a face, and fidelity to FP32 in PyTorch."""

    artifact: str
    backend: str
    computes_in: str
    bytes: int
    p50_ms: float
    fidelity_db: float


@dataclass(frozen=True)
class Demo:
    """What ran here, engines that were compiled for GPUs that are not here, and the images."""

    rows: tuple[DemoRow, ...]
    engines: tuple[Engine, ...]
    images: tuple[str, ...]


def demo(
    out: str | Path,
    models: Sequence[str] = (),
    log: Log = silent,
    progress: Progress = silent,
) -> Demo:
    """Take models the whole way, or else every small one that has weights.

    `log` gets a line for each finished step.
    """
    rows: list[DemoRow] = []
    engines: list[Engine] = []
    images = []
    for model in models or trained_models():
        routes = make_artifacts(model, log, progress)
        engines += compile_for_gpus(model, routes[0][0].parent, log, progress)
        for sharp in sharp_versions(model):
            routes.append(make_sharp(sharp, log, progress))
        with ExitStack() as stack:
            sessions = [stack.enter_context(open_session(*route)) for route in routes]
            path = image_path(out, model)
            draw(columns(sessions), path)
            images.append(str(path))
            progress(f"{model}: timing one face")
            rows += measure(sessions)
    return Demo(tuple(rows), tuple(engines), tuple(images))


def image_path(out: str | Path, model: str) -> Path:
    """`out` for the default model, else `demo-aminet-real.png` beside it."""
    path = Path(out)
    return path if model == DEFAULT_MODEL else path.with_stem(f"{path.stem}-{model}")


def trained_models() -> list[str]:
    """The small models that have weights, the default one first; sharp ones are the same networks.

    The paper's own take many minutes: they are named.
    """
    natural = [name for name in MODELS if name not in NATURAL and name not in PAPER]
    names = sorted(natural, key=lambda name: name != DEFAULT_MODEL)
    trained = [name for name in names if weights_path(name).is_file()]
    if not trained:
        raise EdgeError(
            f"{weights_path(DEFAULT_MODEL)}: not found, no model has weights. Create them with:"
            " python -m aminet.train --help"
        )
    return trained


def sharp_versions(model: str) -> list[str]:
    """Those of a model that have weights: the same network, trained with AMIGAN's losses."""
    return [s for s, natural in NATURAL.items() if natural == model and weights_path(s).is_file()]


def make_sharp(model: str, log: Log, progress: Progress) -> Route:
    """What `runtime.infer --style sharp` runs: FP32 exported, and INT8 in ONNX Runtime."""
    progress(f"{model}: exporting")
    fp32 = Path(export(model, progress=progress).artifact)
    quantized = quantize_for(model, fp32, [TARGETS["cpu"]], log, progress)
    files = [Path(one.artifact) for one in quantized.artifacts]
    made = f" and quantized {_names(map(str, files))}" if files else ""
    log(f"{model}: exported {fp32.name}{made}, for --style sharp")
    return (files or [fp32])[0], "onnxruntime"


def make_artifacts(model: str, log: Log, progress: Progress) -> list[Route]:
    """Export a model and make its smaller artifacts; return those that run on this CPU."""
    progress(f"{model}: exporting")
    exported = export(model, progress=progress)
    fp32 = Path(exported.artifact)
    log(
        f"{model}: exported {fp32.name}, {exported.nodes_before} nodes simplified to"
        f" {exported.nodes_after}, values within {exported.max_abs_diff:.0e} of PyTorch"
    )
    progress(f"{model}: converting to FP16")
    halves = convert(fp32)
    log(f"{model}: converted {_names(half.artifact for half in halves)}")
    quantized = quantize_for(model, fp32, None, log, progress)
    names = dict.fromkeys(one.artifact for one in quantized.artifacts)
    log(f"{model}: quantized {_names(names)}")
    routes = [(fp32, "onnxruntime")]
    routes += [(Path(half.artifact), "onnxruntime") for half in halves if half.target == "cpu"]
    if openvino.is_installed():
        routes.append((fp32, "openvino"))
    backends = {"cpu": "onnxruntime", "openvino": "openvino"}
    int8 = [one for one in quantized.artifacts if one.target in backends]
    routes += [(Path(one.artifact), backends[one.target]) for one in int8]
    for name in DEVICE_FORMATS:
        progress(f"{model}: converting for {name}")
        routes += convert_for(name, model, fp32.parent, log)
    return routes


def quantize_for(
    model: str, fp32: Path, targets: Sequence[Target] | None, log: Log, progress: Progress
) -> Int8Result:
    """Quantize for these targets, or all of them; what is to be said of it goes to `log`."""
    progress(f"{model}: quantizing to INT8")
    quantized = quantize(fp32, [CALIBRATION], targets, progress=progress)
    for line in (*quantized.notes, *quantized.failures):
        log(f"{model}: {line}")
    return quantized


def convert_for(name: str, model: str, folder: Path, log: Log) -> list[Route]:
    """Convert a model's artifacts to a phone's format: 'litert' or 'ncnn'."""
    try:
        kind: DeviceFormat = import_module(f"export.{name}").FORMAT
    except ModuleNotFoundError as error:
        log(f"{model}: nothing for {name}, {error.name} is not installed")
        return []
    made = [file for source in find_sources(kind, folder) for file in export_files(kind, source)]
    log(f"{model}: converted {_names(file.artifact for file in made)}")
    return [(Path(file.artifact), name) for file in made]


def compile_for_gpus(model: str, folder: Path, log: Log, progress: Progress) -> list[Engine]:
    """Compile TensorRT engines of all precisions, which needs no GPU."""
    progress(f"{model}: compiling TensorRT engines")
    sources = [folder / name for name in SOURCES if (folder / name).is_file()]
    try:
        made = compile_engines(sources, progress=progress)
    except EdgeError as error:
        if error.status != EXIT_MISSING:
            raise
        log(f"{model}: no TensorRT engines, {error}")
        return []
    for failure in made.failures:
        log(f"{model}: {failure}")
    log(f"{model}: compiled {_names(engine.engine for engine in made.engines)}")
    return list(made.engines)


def _names(paths: Iterable[str]) -> str:
    return ", ".join(Path(path).name for path in paths)


def measure(sessions: Sequence[Session]) -> list[DemoRow]:
    """Time one face in each session, interleaved, so that all see the same background load."""
    rows = []
    shape = (1, 3, sessions[0].lr_side, sessions[0].lr_side)
    lr = np.random.default_rng(0).random(shape, np.float32)
    times_ms = take_turns([session.run for session in sessions], lr, ROUNDS)
    for session, taken in zip(sessions, times_ms, strict=True):
        assert session.verdict  # open_session verifies
        rows.append(
            DemoRow(
                artifact=_name(session),
                backend=session.backend,
                computes_in=session.manifest.computed_in,
                bytes=_bytes(session.artifact),
                p50_ms=float(np.median(taken)),
                fidelity_db=session.verdict.fidelity_db,
            )
        )
    return rows


def _bytes(artifact: Path) -> int:
    """The size of a file, and of the .bin that belongs to ncnn's .param."""
    weights = artifact.with_suffix(".bin")
    beside = weights.stat().st_size if artifact.suffix == ".param" else 0
    return artifact.stat().st_size + beside


def _name(session: Session) -> str:
    """'aminet-edge/int8.onnx', 'aminet-edge/litert/int8.tflite'."""
    parts = session.artifact.parts
    model = session.manifest.model
    return "/".join(parts[parts.index(model) :]) if model in parts else f"{model}/{parts[-1]}"


def columns(sessions: Sequence[Session]) -> tuple[Column, ...]:
    """Input, bicubic, each model's smallest ONNX artifact, and the original where there is one.

    A model of 16x16 faces upscales the astronaut, shrunk, and synthetic faces; any other her face
    as a camera would show it, small and noisy.
    """
    original = aligned_astronaut()
    onnx = [session for session in sessions if session.artifact.suffix == ".onnx"]
    onnx.sort(key=lambda session: session.artifact.stat().st_size, reverse=True)
    smallest = {session.manifest.model: session for session in onnx}  # of each model
    lr_side = onnx[0].lr_side
    inputs: tuple[Pixels, ...] = (camera_face(CAMERA_FACE_SIDE),)
    title = f"input, {CAMERA_FACE_SIDE} px, camera noise"
    if lr_side == LR_SIDE:
        synthetic = unstrip(read_image(PROBE_STRIP))[:SYNTHETIC_FACES]
        inputs, title = (shrink(original), *synthetic), f"input, {LR_SIDE}x{LR_SIDE}"
    none = ("",) * (len(inputs) - 1)
    upscaled = {
        "bicubic": tuple(upscale_bicubic(face) for face in inputs),
    }
    for model in sorted(smallest, key=lambda model: model in NATURAL):
        upscaled[model] = tuple(smallest[model].upscale(face) for face in inputs)
    return (
        Column(title, inputs, ("", *none)),
        *(
            Column(name, faces, (f"PSNR-Y {psnr_y(faces[0], original):.1f} dB", *none))
            for name, faces in upscaled.items()
        ),
        Column("original", (original, *[None] * len(none)), ("NASA, public domain", *none)),
    )
