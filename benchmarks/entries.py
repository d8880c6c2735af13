"""Who is timed: artifacts in the backends that they are for, and the peers of their models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aminet.checkpoint import load_checkpoint, weights_path
from aminet.info import measure_cost
from benchmarks.peers import make_peers
from benchmarks.race import Contender
from quantize.calibration import read_faces
from runtime.errors import EdgeError
from runtime.manifest import Manifest, probes_path
from runtime.processor import processor
from runtime.session import read_artifact

CALIBRATION = Path(__file__).parents[1] / "calib_data"
BACKENDS = ("onnxruntime", "openvino")

Say = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """A contender, the multiply-adds of one face, its model's probes, its file's hash if ours."""

    contender: Contender
    macs: int
    probes: Path
    sha256: str | None = None


def find_entries(
    artifacts: Sequence[str | Path],
    backends: Sequence[str],
    peers: Sequence[str],
    checkpoint: str | Path | None,
    say: Say,
    note: Say,
) -> list[Entry]:
    """The contenders of each model: ours in the backends that they are for, then the peers."""
    paths = [Path(path) for path in artifacts] or sorted(Path("artifacts").glob("*/*.onnx"))
    if not paths:
        raise EdgeError("no artifact in artifacts/; make them: make demo, or name them: --artifact")
    entries: list[Entry] = []
    sources: dict[str, tuple[str, Path]] = {}
    for path in paths:
        manifest = read_artifact(path).manifest
        sources[manifest.model] = (manifest.checkpoint_sha256, probes_path(path))
        fitting = [backend for backend in backends if is_for(manifest, backend)]
        if not fitting:
            note(f"{path}: is for {manifest.target}, which is not measured here")
        entries += [
            Entry(ours(path, manifest, b), 0, probes_path(path), manifest.sha256) for b in fitting
        ]
    complete = []
    for model, (digest, probes) in sources.items():
        loaded = load_checkpoint(checkpoint or weights_path(model))
        if loaded.sha256 != digest:
            raise EdgeError(
                f"{loaded.path}: is not what {model}'s artifacts were made of; make them again:"
                " make demo, or name theirs: --checkpoint"
            )
        macs = measure_cost(loaded.config).macs
        faces = read_faces([CALIBRATION]).faces
        others = make_peers(replace(loaded, model=model), faces, processor(), tuple(peers), say)
        complete += [replace(e, macs=macs) for e in entries if e.contender.model == model]
        complete += [Entry(peer, macs, probes) for peer in others]
    return complete


def ours(path: Path, manifest: Manifest, backend: str) -> Contender:
    """An artifact as a contender: 'aminet-edge/int8.onnx'."""
    name = f"{manifest.model}/{path.name}"
    return Contender(name, manifest.model, backend, manifest.computed_in, backend, path)


def is_for(manifest: Manifest, backend: str) -> bool:
    """Whether an artifact is for this backend: for any, or measured in it for its own sake."""
    measured = {one.backend for one in manifest.measured_on if not one.emulated}
    return manifest.target == "any" or backend in measured
