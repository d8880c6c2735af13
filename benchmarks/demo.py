"""The whole way of each trained model, on this machine: export, quantize, check, enlarge, compare.

    python -m benchmarks.demo [--out artifacts/demo.png] [--json]

Enlarges faces of nobody and one public-domain photo (NASA's portrait of the astronaut Eileen
Collins, which scikit-image ships), writes them side by side and prints what each model costs.
"""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from runtime.errors import EXIT_MISSING, EdgeError, needs, run_command

with needs("train,export,quantize,tensorrt-rtx,eval", __name__):
    from skimage.data import astronaut

    from aminet.checkpoint import weights_path
    from aminet.config import MODELS
    from calib_data.generate import PROBE_STRIP, unstrip
    from export.exporter import export
    from export.tensorrt import SOURCES
    from export.tensorrt import describe as describe_engine
    from export.trt.build import Engine, compile_engines
    from quantize.fp16 import convert
    from quantize.fp16 import describe as describe_fp16
    from quantize.int8 import quantize
    from quantize.record import describe

from runtime.atomic import writing
from runtime.backends import openvino
from runtime.check import check
from runtime.image import SR_SIDE, Pixels, psnr_y, read_image, shrink, to_tensor, upscale_bicubic
from runtime.session import DEFAULT_MODEL, Session, open_session
from runtime.timing import TIMED_RUNS, take_turns

OUT = Path("artifacts", "demo.png")
CALIBRATION = PROBE_STRIP.parents[1] / "calib_data"
FACES_OF_NOBODY = 4
TURNS = 10

# Pupils in the 512x512 astronaut, and where the training faces have theirs: (x, y) in pixels.
ASTRONAUT_EYES = ((203.0, 101.0), (247.0, 103.0))
FRAME_EYES = ((46.0, 46.5), (81.0, 46.5))

CELL = 2 * SR_SIDE  # px of the picture that a face takes
BAND = 28  # px for the title above the faces, and for a caption under each
INK, PAPER, FAINT = "#1a1a1a", "#ffffff", "#767676"

Say = Callable[[str], None]


@dataclass(frozen=True)
class Row:
    """One artifact on this machine: what a face takes, and what it loses against FP32 PyTorch."""

    artifact: str
    runs_as: str
    backend: str
    bytes: int
    p50_ms: float
    fidelity_db: float


@dataclass(frozen=True)
class Demo:
    """What ran here, and the engines that were compiled for GPUs that are not here."""

    rows: tuple[Row, ...]
    engines: tuple[Engine, ...]
    picture: str


@dataclass(frozen=True)
class Column:
    """One column of the picture: its title and, for each face, pixels and a caption."""

    title: str
    faces: tuple[Pixels | None, ...]
    captions: tuple[str, ...]


def demo(out: str | Path = OUT, say: Say = lambda line: None) -> Demo:
    """Take every model that has weights the whole way; `say` hears a line for each step."""
    made, engines = [], []
    for model in trained_models():
        runs = make_and_check(model, say)
        made += runs
        engines += compile_all(model, runs[0][0].parent, say)
    photo = aligned_astronaut()
    faces = (shrink(photo), *unstrip(read_image(PROBE_STRIP))[:FACES_OF_NOBODY])
    with ExitStack() as stack:
        sessions = [stack.enter_context(open_session(*run)) for run in made]
        say(
            "enlarging the astronaut, first reduced to 16x16 as infer --reduce does, "
            f"and {FACES_OF_NOBODY} faces of nobody, which are drawn at 16x16"
        )
        draw(columns(sessions, faces, photo), out)
        say(f"timing one face at a time, {TURNS} turns of {TIMED_RUNS} runs each")
        return Demo(tuple(measure(sessions)), tuple(engines), str(out))


def trained_models() -> list[str]:
    """The models that have weights, the default one first."""
    names = sorted(MODELS, key=lambda name: name != DEFAULT_MODEL)
    trained = [name for name in names if weights_path(name).is_file()]
    if not trained:
        raise EdgeError(
            f"no model has weights: {weights_path(DEFAULT_MODEL)} is not there; "
            "train it: python -m aminet.train --help"
        )
    return trained


def make_and_check(model: str, say: Say) -> list[tuple[Path, str]]:
    """Export a model, make it smaller, and prove all of it; the artifacts and their backends."""
    say(f"{model}: exporting from PyTorch")
    exported = export(model)
    fp32 = Path(exported.artifact)
    say(
        f"{model}: exported to {fp32}, {exported.nodes_before} nodes simplified to "
        f"{exported.nodes_after}, at most {exported.max_abs_diff:.1e} from PyTorch"
    )
    halves = convert(fp32)
    for half in halves:
        say(describe_fp16(half))
    say(f"{model}: quantizing, calibrated with faces of nobody")
    small = quantize(fp32, [CALIBRATION])
    for line in (*map(describe, small.artifacts), *small.notes, *small.failures):
        say(line)
    paths = [fp32, *(Path(one.artifact) for one in halves if one.target == "cpu")]
    paths += [Path(one.artifact) for one in small.artifacts if one.target == "cpu"]
    runs = [(path, "onnxruntime") for path in paths]
    if openvino.is_installed():
        runs.append((fp32, "openvino"))
        runs += [
            (Path(one.artifact), "openvino") for one in small.artifacts if one.target == "openvino"
        ]
    for path, backend in runs:
        checked = check(str(path), backend)
        say(
            f"{model}: checked {path.name} on {backend}, fidelity to FP32 PyTorch "
            f"{checked.fidelity_db:.1f} dB (at least {checked.limit_db:.1f})"
        )
    return runs


def compile_all(model: str, folder: Path, say: Say) -> list[Engine]:
    """TensorRT engines of all precisions in a model's folder, compiled and gated."""
    say(f"{model}: compiling TensorRT engines, for which no GPU is needed")
    sources = [folder / name for name in SOURCES if (folder / name).is_file()]
    try:
        made = compile_engines(sources)
    except EdgeError as error:
        if error.status != EXIT_MISSING:
            raise
        say(f"{model}: no engines, {error}")
        return []
    for line in (*map(describe_engine, made.engines), *map(str, made.failures)):
        say(line)
    return list(made.engines)


def aligned_astronaut() -> Pixels:
    """The astronaut's face (128, 128, 3), turned and scaled as the training faces are."""
    (left, right), (frame_left, frame_right) = (
        [complex(*eye) for eye in eyes] for eyes in (ASTRONAUT_EYES, FRAME_EYES)
    )
    turn = (right - left) / (frame_right - frame_left)  # frame to photo: rotation and scale
    shift = left - turn * frame_left
    matrix = (turn.real, -turn.imag, shift.real, turn.imag, turn.real, shift.imag)
    frame = Image.fromarray(astronaut()).transform(
        (SR_SIDE, SR_SIDE), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC
    )
    return np.array(frame)


def measure(sessions: Sequence[Session]) -> list[Row]:
    """The median time of one face in each session; they take turns, so all see the same load."""
    lr = to_tensor(unstrip(read_image(PROBE_STRIP))[:1])
    times_ms = take_turns([session.run for session in sessions], lr, TURNS)
    return [row(session, taken) for session, taken in zip(sessions, times_ms, strict=True)]


def row(session: Session, times_ms: Sequence[float]) -> Row:
    assert session.verdict  # open_session verifies
    return Row(
        artifact=f"{session.manifest.model}/{session.artifact.name}",
        runs_as=session.manifest.computed_in,
        backend=session.backend,
        bytes=session.artifact.stat().st_size,
        p50_ms=float(np.median(times_ms)),
        fidelity_db=session.verdict.fidelity_db,
    )


def columns(
    sessions: Sequence[Session], faces: Sequence[Pixels], photo: Pixels
) -> tuple[Column, ...]:
    """Input, bicubic, each model, original; only the first face, the photo, has an original.

    Of a model's artifacts the last one is shown, which is the smallest.
    """
    enlarged = {"bicubic": tuple(upscale_bicubic(face) for face in faces)}
    for session in sessions:
        enlarged[session.manifest.model] = tuple(session.upscale(face) for face in faces)
    none = ("",) * (len(faces) - 1)
    return (
        Column("input, 16x16", tuple(faces), ("", *none)),
        *(
            Column(title, results, (f"PSNR-Y {psnr_y(results[0], photo):.1f} dB", *none))
            for title, results in enlarged.items()
        ),
        Column("original", (photo, *[None] * len(none)), ("NASA, public domain", *none)),
    )


def draw(columns: Sequence[Column], out: str | Path) -> None:
    """Write the columns side by side, each face enlarged to CELL px without smoothing."""
    size = (len(columns) * (CELL + BAND) + BAND, len(columns[0].faces) * (CELL + BAND) + 2 * BAND)
    picture = Image.new("RGB", size, PAPER)
    pen, large, small = (
        ImageDraw.Draw(picture),
        ImageFont.load_default(20),
        ImageFont.load_default(15),
    )
    for x, column in zip(range(BAND, size[0], CELL + BAND), columns, strict=False):
        middle = x + CELL // 2
        pen.text((middle, BAND), column.title, INK, large, anchor="mm")
        for number, (face, caption) in enumerate(zip(column.faces, column.captions, strict=True)):
            y = 2 * BAND + number * (CELL + BAND)
            pen.text((middle, y + CELL + BAND // 2), caption, FAINT, small, anchor="mm")
            if face is None:
                absent = "a face of nobody\nhas no original"
                pen.text((middle, y + CELL // 2), absent, FAINT, small, anchor="mm", align="center")
            else:
                cell = Image.fromarray(face).resize((CELL, CELL), Image.Resampling.NEAREST)
                picture.paste(cell, (x, y))
    with writing(out) as temporary:
        picture.save(temporary)


def table(rows: Sequence[Row], engines: Sequence[Engine]) -> str:
    names = [f"{engine.model}/{Path(engine.engine).name}" for engine in engines]
    width = max(map(len, [row.artifact for row in rows] + names))
    lines = [f"{'artifact':{width}}  runs as  {'backend':11}     size   p50 ms  fidelity to FP32"]
    for row in rows:
        size = f"{row.bytes / 1e6:6.1f} MB"
        lines.append(
            f"{row.artifact:{width}}  {row.runs_as:7}  {row.backend:11} {size} {row.p50_ms:8.2f} "
            f"{row.fidelity_db:14.1f} dB"
        )
    for name, engine in zip(names, engines, strict=True):
        capabilities = ", ".join(engine.compute_capabilities)
        lines.append(
            f"{name:{width}}  {engine.precision:7}  {'tensorrt':11} {engine.bytes / 1e6:6.1f} MB"
            f"   compiled, gated, not executed ({engine.builder}, capability {capabilities})"
        )
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.demo", description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=OUT, help=f"the picture (default {OUT})")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    result = demo(options.out, say=lambda line: print(line, file=sys.stderr))
    if options.json:
        print(json.dumps(asdict(result)))
    else:
        print(f"\n{table(result.rows, result.engines)}\n\n{result.picture}")
    return 0


if __name__ == "__main__":
    sys.exit(run_command(main))
