"""Who is timed: artifacts in the backends that they are for, and the peers of their models."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from aminet.checkpoint import Checkpoint, load_checkpoint, weights_path
from aminet.info import measure_cost
from benchmarks.harness.baselines import make_peers
from benchmarks.harness.race import Contender
from quantize.calibration import read_calibration
from runtime.artifact import read_artifact
from runtime.backends import openvino
from runtime.backends.openvino import OpenVinoSession
from runtime.cpu import processor
from runtime.errors import EdgeError
from runtime.manifest import Manifest, probes_path

CALIBRATION = Path(__file__).parents[2] / "calib_data"
OPENVINO = OpenVinoSession.name
BACKENDS = ("onnxruntime", OPENVINO)

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
    """The contenders of each model: ours in the backends that they are for, then the peers.

    What cannot be timed here for want of a library is noted; the rest raises EdgeError.
    """
    paths = [Path(path) for path in artifacts] or sorted(Path("artifacts").glob("*/*.onnx"))
    if not paths:
        raise EdgeError("no artifact in artifacts/; make them: make demo, or name them: --artifact")
    if OPENVINO in backends and not openvino.is_installed():
        note(f"backend {OPENVINO}: left out, pip install 'aminet-edge[openvino]' brings it")
        backends = [name for name in backends if name != OPENVINO]
    models: dict[str, list[Path]] = {}
    for path in paths:
        models.setdefault(read_artifact(path).manifest.model, []).append(path)
    entries: list[Entry] = []
    for model, files in models.items():
        loaded = load_checkpoint(checkpoint or weights_path(model))
        macs, probes = measure_cost(loaded.config).macs, probes_path(files[0])
        for path in files:
            entries += _ours(path, backends, loaded, macs, note)
        faces, named = read_calibration([CALIBRATION]).faces, tuple(peers)
        others = make_peers(replace(loaded, model=model), faces, processor(), named, say, note)
        entries += [Entry(peer, macs, probes) for peer in others]
    return entries


def _ours(
    path: Path, backends: Sequence[str], checkpoint: Checkpoint, macs: int, note: Say
) -> list[Entry]:
    """An artifact in each backend that it is for: 'aminet-edge/int8.onnx'."""
    manifest = read_artifact(path).manifest
    if manifest.checkpoint_sha256 != checkpoint.sha256:
        raise EdgeError(
            f"{checkpoint.path}: is not what {path} was made of; make it again: make demo, or name"
            " its own: --checkpoint"
        )
    fitting = [backend for backend in backends if is_for(manifest, backend)]
    if not fitting:
        note(f"{path}: is for {manifest.target}, which is not measured here")
    name, computed_in = f"{manifest.model}/{path.name}", manifest.computed_in
    contenders = [Contender(name, manifest.model, b, computed_in, b, path) for b in fitting]
    return [Entry(each, macs, probes_path(path), manifest.sha256) for each in contenders]


def is_for(manifest: Manifest, backend: str) -> bool:
    """Whether an artifact is for this backend: for any, or measured in it for its own sake."""
    measured = {one.backend for one in manifest.measured_on if not one.emulated}
    return manifest.target == "any" or backend in measured
