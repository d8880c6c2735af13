"""The candidates of a benchmark: artifacts in the backends that they are for, and the baselines."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from aminet.checkpoint import Checkpoint, load_checkpoint, weights_path
from aminet.config import NATURAL, PAPER
from aminet.info import measure_cost
from benchmarks.harness.baselines import TrainedNetwork, make_baselines
from benchmarks.harness.interleaved import BenchmarkCandidate
from benchmarks.harness.plan import ON_A_GPU, OURS
from quantize.calibration import read_calibration
from runtime.artifact import read_artifact
from runtime.backends import openvino
from runtime.backends.open import GPU_BACKENDS
from runtime.backends.openvino import OpenVinoSession
from runtime.errors import EdgeError
from runtime.formats import ONNX, format_of
from runtime.manifest import Manifest, probes_path
from runtime.progress import Progress

CALIBRATION = Path(__file__).parents[2] / "calib_data"
OPENVINO = OpenVinoSession.name


def find_candidates(
    artifacts: Sequence[str | Path],
    backends: Sequence[str],
    baselines: Sequence[str],
    checkpoint: str | Path | None,
    progress: Progress,
    note: Callable[[str], None],
) -> list[BenchmarkCandidate]:
    """Return the candidates of each model: our artifacts, then the named baselines.

    What cannot be timed here because a library is missing is noted; the rest raises EdgeError.
    """
    paths = [Path(path) for path in artifacts] or _default_artifacts()
    if not paths:
        raise EdgeError(
            "artifacts/: no artifact found. Create them with: make demo, or name them: --artifact"
        )
    if OPENVINO in backends and not openvino.is_installed():
        note(f"backend {OPENVINO}: left out, pip install 'aminet-edge[openvino]' installs it")
        backends = [name for name in backends if name != OPENVINO]
    models: dict[str, list[Path]] = {}
    for path in paths:
        models.setdefault(read_artifact(path).manifest.model, []).append(path)
    candidates: list[BenchmarkCandidate] = []
    for model, files in models.items():
        loaded = load_checkpoint(checkpoint or weights_path(model))
        probes = probes_path(files[0])
        macs, lr_side = measure_cost(loaded.config).macs, loaded.config.lr_side
        network = TrainedNetwork(replace(loaded, model=model), macs, probes, lr_side)
        for path in files:
            candidates += _artifact_candidates(path, backends, network, note)
        if baselines:
            faces = read_calibration([CALIBRATION], lr_side).faces
            candidates += make_baselines(network, faces, tuple(baselines), progress, note)
    return candidates


def _default_artifacts() -> list[Path]:
    """Without those of sharp versions, which take as long, and of the paper's slow networks."""
    files = sorted(Path("artifacts").glob("*/*.onnx"))
    return [path for path in files if path.parent.name not in {*NATURAL, *PAPER}]


def _artifact_candidates(
    path: Path, backends: Sequence[str], network: TrainedNetwork, note: Callable[[str], None]
) -> list[BenchmarkCandidate]:
    """An artifact in each backend that it is for: 'aminet-edge/int8.onnx'."""
    manifest = read_artifact(path).manifest
    checkpoint: Checkpoint = network.checkpoint
    if manifest.checkpoint_sha256 != checkpoint.sha256:
        raise EdgeError(
            f"{checkpoint.path}: is not the checkpoint that {path} was made of. Make it again with:"
            " make demo, or name its own: --checkpoint"
        )
    fitting = [name for name in backends if opens(path, name) and is_for(manifest, name)]
    if not fitting:
        note(f"{path}: is for {manifest.target}, which is not measured here")
    return [
        BenchmarkCandidate(
            name=f"{manifest.model}/{path.name}",
            model=manifest.model,
            backend=backend,
            precision=manifest.computed_in,
            opener=OURS if backend == ONNX.backends[0] else backend,
            file=path,
            macs=network.macs,
            probes=probes_path(path),
            sha256=manifest.sha256,
            lr_side=network.lr_side,
        )
        for backend in fitting
    ]


def opens(path: Path, backend: str) -> bool:
    """Whether a backend opens files of this kind; those of a GPU provider are ONNX Runtime's."""
    kind = format_of(path)
    return backend in kind.backends or (kind is ONNX and backend in GPU_BACKENDS)


def is_for(manifest: Manifest, backend: str) -> bool:
    """Whether an artifact is for this backend: for any, or measured in it, not as a proxy.

    Files for TensorRT are for a GPU, whoever runs it.
    """
    if backend in ON_A_GPU and manifest.target == "tensorrt":
        return True
    measured = {one.backend for one in manifest.measured_on if not one.emulated}
    return manifest.target == "any" or backend in measured
