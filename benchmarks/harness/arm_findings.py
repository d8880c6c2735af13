"""What is found out about artifacts on emulated ARM processors, and the JSON that keeps it.

Each artifact is checked on its probes by the runtime's own ARM kernels, a face is upscaled, and the
pack for CPUs is unpacked and checked.
"""

import json
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

import numpy as np

from benchmarks.harness.arm_check import check_command, check_file, last_line
from benchmarks.harness.arm_faults import Fault, find_faults
from benchmarks.harness.emulated_arm import CPUS, EmulatedArm, bring_arm
from benchmarks.harness.targets import TargetRow, read_rows, targets_table
from export.pack import FACE, pack
from runtime.atomic import sha256_bytes, sha256_file
from runtime.errors import EdgeError
from runtime.image import read_image
from runtime.places import FOLDER
from runtime.session import open_session

ROOT = Path(__file__).parents[2]
FILES = (
    "int8.onnx",
    "fp16.onnx",
    "fp16-trt.onnx",
    "fp32.onnx",
    "int8-trt.onnx",
    "litert/int8.tflite",
)
INFERRED = "int8.onnx"  # what a phone would be given
ALL_PROBES = ("int8.onnx", "litert/int8.tflite")
ONE_CPU = ("fp32.onnx",)

Say = Callable[[str], None]


@dataclass(frozen=True)
class ArmFace:
    """A face that an emulated processor upscaled. `levels`: how far from this machine's, of 255."""

    cpu: str
    artifact: str
    levels: int
    command: str


@dataclass(frozen=True)
class PackRun:
    """The commands of a pack's README that were run on an emulated processor, and ended well."""

    cpu: str
    archive: str
    commands: tuple[str, ...]


Finding: TypeAlias = TargetRow | Fault | ArmFace | PackRun
PLACES = {  # in the JSON: where each kind of finding is, and what an older one of it has in common
    TargetRow: ("rows", ("file", "command")),
    Fault: ("faults", ("cpu", "graph")),
    ArmFace: ("faces", ("cpu", "artifact")),
    PackRun: ("packs", ("cpu",)),
}


def measure(
    folder: str | Path = FOLDER,
    files: Sequence[str] = (),
    cpus: Sequence[str] = tuple(CPUS),
    wheel: Path | None = None,
    say: Say = lambda line: None,
    known: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[Finding]:
    """Check the files of a model's folder, or those of FILES that it has, on each processor.

    What is `known`, the JSON of a run that was stopped, is left out. Raises EdgeError, with status
    5 where QEMU or what runs in it cannot be brought.
    """
    folder = Path(folder).resolve()
    files = files or [name for name in FILES if (folder / name).is_file()]
    if not files:
        raise EdgeError(f"{folder}: holds none of {', '.join(FILES)}; python -m export.onnx")
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        code = _unpack(wheel, work / "code") if wheel else ROOT
        for cpu in cpus:
            say(f"{cpu}: bringing QEMU, Python and wheels for arm64")
            arm = bring_arm(cpu)
            for file in files:
                if is_known(known, "rows", command=check_command(cpu, file)):
                    continue
                if file in ONE_CPU and cpu != cpus[0]:
                    continue
                say(f"{cpu}: {file}")
                few = file not in ALL_PROBES
                yield check_file(arm, folder / file, code, work, few=few)
            if any("fp16" in file for file in files) and not is_known(known, "faults", cpu=cpu):
                say(f"{cpu}: the smallest graphs in FP16")
                yield from find_faults(arm, work)
            if INFERRED in files and not is_known(known, "faces", cpu=cpu):
                say(f"{cpu}: a face")
                yield upscale_face(arm, folder / INFERRED, code, work)
        if wheel and INFERRED in files and not is_known(known, "packs", cpu=cpus[0]):
            say(f"{cpus[0]}: the pack")
            yield check_pack(bring_arm(cpus[0]), folder, wheel, work)


def is_known(known: Mapping[str, Any], place: str, **facts: str) -> bool:
    """Whether the JSON holds a finding of these facts."""
    return any(facts.items() <= each.items() for each in known.get(place, []))


def digest_of(folder: Path, wheel: Path | None) -> str:
    """Of what a run is made of: the artifacts, and the wheel or this checkout's runtime."""
    code = [wheel] if wheel else sorted(ROOT.joinpath("runtime").rglob("*.py"))
    files = [folder / name for name in FILES if (folder / name).is_file()]
    return sha256_bytes("".join(map(sha256_file, [*code, *files])).encode())


def add(content: dict[str, Any], finding: Finding) -> None:
    """Put a finding into the content of the JSON, in the place of an older one of the same."""
    place, common = PLACES[type(finding)]
    new = asdict(finding)
    kept = [old for old in content.get(place, []) if any(old[k] != new[k] for k in common)]
    content[place] = [*kept, new]


def read_content(path: str | Path | None) -> dict[str, Any]:
    """What earlier runs have put into the JSON; its places, empty, where there is none."""
    empty: dict[str, Any] = {place: [] for place, _ in PLACES.values()}
    if path is None or not Path(path).is_file():
        return empty
    read_rows(path)  # which refuses what is something else
    return {**empty, **json.loads(Path(path).read_bytes())}


def upscale_face(arm: EmulatedArm, artifact: Path, code: Path, work: Path) -> ArmFace:
    """A synthetic face by `runtime.infer`, compared with what this machine makes of it."""
    out = work / f"{arm.cpu}.png"
    words = ["runtime.infer", str(FACE), "--artifact", str(artifact), "--backend", "onnxruntime"]
    _succeed(arm, [*words, "--out", str(out)], [code], work)
    with open_session(artifact, "onnxruntime") as session:
        here = session.upscale(read_image(FACE))
    levels = int(np.abs(read_image(out).astype(int) - here.astype(int)).max())
    name = f"{artifact.parent.name}/{artifact.name}"
    return ArmFace(arm.cpu, name, levels, f"python -m runtime.infer face.png --artifact {name}")


def check_pack(arm: EmulatedArm, folder: Path, wheel: Path, work: Path) -> PackRun:
    """The pack for CPUs, unpacked: its README's commands for INT8, with its own code."""
    made = pack("cpu", folder, wheel, work / "pack.zip")
    place = work / "pack"
    zipfile.ZipFile(made.archive).extractall(place)
    code = _unpack(place / wheel.name, place / "site")
    lines = (place / "README.md").read_text().splitlines()
    commands = [line.strip() for line in lines if line.startswith("    python -m runtime.")]
    run = [command for command in commands if "int8" in command]
    if not run:
        raise EdgeError(f"{made.archive}: its README.md has no command for INT8")
    for command in run:
        _succeed(arm, command.split()[2:], [code], place)
    return PackRun(arm.cpu, f"{folder.name}-cpu.zip", tuple(run))


def _unpack(wheel: Path, folder: Path) -> Path:
    try:
        zipfile.ZipFile(wheel).extractall(folder)
    except (OSError, zipfile.BadZipFile) as error:
        raise EdgeError(f"{wheel}: is no wheel ({error}); make it: make wheel") from error
    return folder


def _succeed(arm: EmulatedArm, words: Sequence[str], path: Sequence[Path], work: Path) -> None:
    """Run a module; EdgeError with its own last line, and its status, if it fails."""
    done = arm.run(["-m", *words], path, work, {"XDG_CACHE_HOME": str(work / "cache")})
    if done.returncode:
        line = last_line(done.stderr).removeprefix("error: ")
        raise EdgeError(f"{arm.cpu}: {' '.join(words)}: {line}", abs(done.returncode))


def tables(measured: Mapping[str, Any]) -> str:
    """The tables of docs/arm.md, from the JSON that --out writes."""
    faults = ["| FP16 graph | processor | ONNX Runtime |", "| --- | --- | --- |"]
    faults += [
        f"| {fault['graph']} | {fault['cpu']} | {fault['fault'] or 'right'} |"
        for fault in measured["faults"]
    ]
    faces = [f"{face['cpu']} {face['levels']}" for face in measured["faces"]]
    packs = [f"`{command}`" for pack in measured["packs"] for command in pack["commands"]]
    return "\n\n".join(
        [
            targets_table([TargetRow(**row) for row in measured["rows"]]),
            "\n".join(faults),
            "A face by runtime.infer differs from x86's by at most so many of 255 levels:"
            f" {', '.join(faces) or 'not run'}. Of the unpacked pack's README ran"
            f" {', '.join(packs) or 'nothing yet'}.",
        ]
    )


def find_wheel() -> Path | None:
    """The one in dist/, if there is one."""
    return next(iter(sorted(Path("dist").glob("aminet_edge-*.whl"))), None)
