"""Compare two ONNX files on the same images by Polygraphy: outputs, and activations layer by layer.

`export.compare` is the command. Runners and loaders are Polygraphy's (polygraphy.readthedocs.io).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto
from polygraphy import constants
from polygraphy.backend.onnx import BytesFromOnnx, ModifyOutputs
from polygraphy.backend.onnxrt import OnnxrtRunner, SessionFromOnnx
from polygraphy.comparator import Comparator, SnrCompareFunc
from polygraphy.logger import G_LOGGER

from export.contract import shape_of
from runtime import drift
from runtime.atomic import read_bytes
from runtime.backends.onnxruntime import import_onnxruntime
from runtime.dataset import load_faces
from runtime.errors import EdgeError
from runtime.evaluation import BATCH
from runtime.image import mse_y, psnr_of_mse, shrink, to_pixels, to_tensor
from runtime.manifest import probes_path

MAX_ONNX_BYTES = 1 << 30
LAYER_IMAGES = 4  # all activations of more would not fit into memory
EXACT_DB = 200.0  # SNR of equal activations: infinity does not fit in JSON
QDQ = ("QuantizeLinear", "DequantizeLinear")
# Operators that move or convert values: they add no error of their own.
WIRING = (*QDQ, "Identity", "Cast", "Reshape", "Transpose", "Slice", "Split", "Concat", "Pad")

Floats = NDArray[np.float32]
Activations = Mapping[str, Floats]


@dataclass(frozen=True)
class LayerRow:
    """How far one activation of B is from A's, both float32 of the same shape.

    `snr_db`: signal-to-noise ratio, without the per-channel scale that cross-layer equalization
    leaves. `added`: the noise-to-signal power ratio less that of the layer's noisiest input, so the
    error that this layer adds. `least` and `most`: A's range.
    """

    layer: str
    operator: str
    activation: str
    snr_db: float
    added: float
    least: float
    most: float


@dataclass(frozen=True)
class Comparison:
    """Outputs of B against A: fidelity is PSNR-Y in dB between the uint8 images, mean and worst.

    `layers` are in graph order, empty unless asked for; `unmatched` activations of A have no
    counterpart of the same name and shape in B.
    """

    a: str
    b: str
    images: int
    fidelity_db: float
    worst_fidelity_db: float
    worst_image: str
    max_abs_diff: float
    layers: tuple[LayerRow, ...] = ()
    unmatched: int = 0

    @property
    def worst_layers(self) -> tuple[LayerRow, ...]:
        """The layers by the error that they add, most first."""
        return tuple(sorted(self.layers, key=lambda row: -row.added))


def compare(
    a: str | Path, b: str | Path, data: Sequence[str] = (), *, layers: bool = False
) -> Comparison:
    """Run both files on the faces of `data`, else on A's or B's probes, and compare.

    Raises EdgeError: not ONNX, inputs that differ, no images.
    """
    models = _read(a), _read(b)
    sides = [_input_side(model, path) for model, path in zip(models, (a, b), strict=True)]
    if sides[0] != sides[1]:
        raise EdgeError(f"{b}: input is {sides[1]} px, {a} has {sides[0]}; compare like with like")
    lr, names = _images(a, b, data, sides[0])
    outputs = [_outputs(model, lr) for model in models]
    errors = np.concatenate(
        [mse_y(*(to_pixels(out[i : i + 1]) for out in outputs)) for i in range(len(lr))]
    )
    worst = int(errors.argmax())
    rows, unmatched = _compare_layers(models, lr[:LAYER_IMAGES]) if layers else ((), 0)
    return Comparison(
        a=str(a),
        b=str(b),
        images=len(lr),
        fidelity_db=psnr_of_mse(float(errors.mean())),
        worst_fidelity_db=psnr_of_mse(float(errors[worst])),
        worst_image=names[worst],
        max_abs_diff=float(np.abs(outputs[0] - outputs[1]).max()),
        layers=rows,
        unmatched=unmatched,
    )


def _read(path: str | Path) -> ModelProto:
    try:
        model = onnx.load_model_from_string(read_bytes(path, MAX_ONNX_BYTES))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        raise EdgeError(f"{path}: not an ONNX file, or damaged: {_first_line(error)}") from error
    if (len(model.graph.input), len(model.graph.output)) != (1, 1):
        raise EdgeError(f"{path}: expected one input and one output")
    return model


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _input_side(model: ModelProto, path: str | Path) -> int:
    shape = shape_of(model.graph.input[0])
    if len(shape) != 4 or shape[1] != 3 or shape[2] != shape[3] or not isinstance(shape[2], int):
        raise EdgeError(f"{path}: input is {shape}, expected (batch, 3, S, S)")
    return shape[2]


def _images(
    a: str | Path, b: str | Path, data: Sequence[str], side: int
) -> tuple[Floats, Sequence[str]]:
    """Images (N, 3, S, S) in [0, 1], and their names."""
    if data:
        faces = load_faces(data)
        return to_tensor(shrink(faces, side)), [f"face {i}" for i in range(len(faces))]
    for path in map(probes_path, (a, b)):
        if path.is_file():
            probes = drift.read_probes(path)
            if probes.lr.shape[1] == side:
                return to_tensor(probes.lr[: probes.faces]), probes.names[: probes.faces]
    raise EdgeError(f"{a}: no probes of {side} px beside it; give images: --data TAR_OR_DIR")


def _outputs(model: ModelProto, lr: Floats) -> Floats:
    """The output for all images, by Polygraphy's ONNX Runtime runner, as it runs in use."""
    name = model.graph.input[0].name
    feeds = [{name: lr[start : start + BATCH]} for start in range(0, len(lr), BATCH)]
    import_onnxruntime()  # without its telemetry; Polygraphy imports it later
    with _quiet(), OnnxrtRunner(SessionFromOnnx(BytesFromOnnx(model))) as runner:
        outputs = [np.array(next(iter(runner.infer(feed).values()))) for feed in feeds]
    return np.concatenate(outputs)


def _compare_layers(
    models: tuple[ModelProto, ModelProto], lr: Floats
) -> tuple[tuple[LayerRow, ...], int]:
    """Compare the activations of the same name in graphs that are not optimized."""
    runners = [_all_outputs_runner(model, name) for model, name in zip(models, "AB", strict=True)]
    with _quiet():
        results = Comparator.run(runners, data_loader=[{models[0].graph.input[0].name: lr}])
        first, second = (iterations[0] for _, iterations in results)
        ours = {name: np.array(values) for name, values in first.items()}
        matched = [name for name in _activations(models[0]) if _is_match(name, first, second)]
        for name in matched:
            second[name] = _align(ours[name], second[name])
        snr = Comparator.compare_accuracy(
            results, compare_func=SnrCompareFunc(find_output_func=_same_name(set(matched)))
        )
    ((compared,),) = snr[0].values()  # one pair of runners, one iteration
    snr_db = {name: _capped(result.snr) for name, result in compared.items()}
    rows = _rows(models[0], snr_db, ours)
    return tuple(rows), len(_activations(models[0])) - len(matched)


def _all_outputs_runner(model: ModelProto, name: str) -> OnnxrtRunner:
    marked = ModifyOutputs(model, outputs=constants.MARK_ALL, copy=True)
    level = import_onnxruntime().GraphOptimizationLevel.ORT_DISABLE_ALL
    return OnnxrtRunner(
        SessionFromOnnx(BytesFromOnnx(marked), graph_optimization_level=level), name
    )


def _same_name(matched: set[str]):  # type: ignore[no-untyped-def]
    """How Polygraphy finds the output to compare with: the one of the same name, if any."""

    def find(name: str, index: int, results: Mapping[str, object]) -> list[str]:
        return [name] if name in matched else []

    return find


def _activations(model: ModelProto) -> list[str]:
    """What nodes compute from the input, in graph order; not constants made of constants."""
    computed = {value.name for value in model.graph.input}
    names = []
    for node in model.graph.node:
        if computed & set(node.input):
            computed.update(node.output)
            names += list(node.output)
    return names


def _is_match(name: str, a: Activations, b: Activations) -> bool:
    both = name in a and name in b
    return both and a[name].shape == b[name].shape and a[name].dtype.kind == "f"


def _align(a: Floats, b: Floats) -> Floats:
    """Scale each channel of b to a by least squares, where that is a per-channel layout."""
    if a.ndim != 4:
        return b
    a64, b64 = a.astype(np.float64), b.astype(np.float64)
    power = (b64**2).sum(axis=(0, 2, 3), keepdims=True)
    scale = (a64 * b64).sum(axis=(0, 2, 3), keepdims=True) / np.maximum(power, 1e-30)
    return (b64 * scale).astype(a.dtype)


def _rows(
    model: ModelProto, snr_db: Mapping[str, float], values: Activations
) -> Iterator[LayerRow]:
    """A row per compared activation; the error that a layer adds is that beyond its inputs'."""
    noise: dict[str, float] = {}
    for node in model.graph.node:
        inherited = max((noise.get(name, 0.0) for name in node.input), default=0.0)
        for name in node.output:
            noise[name] = 10 ** (-snr_db[name] / 10) if name in snr_db else inherited
            if name in snr_db and node.op_type not in WIRING:
                yield LayerRow(
                    layer=_layer(node),
                    operator=node.op_type,
                    activation=name,
                    snr_db=snr_db[name],
                    added=max(noise[name] - inherited, 0.0),
                    least=float(values[name].min()),
                    most=float(values[name].max()),
                )


def _layer(node: NodeProto) -> str:
    """A convolution by its weight, which keeps the network's name for it; else the node."""
    weight = node.input[1] if node.op_type == "Conv" and len(node.input) > 1 else ""
    return weight.removesuffix(".weight") or node.name or node.output[0]


def _capped(snr_db: float) -> float:
    return min(float(snr_db), EXACT_DB) if not math.isnan(snr_db) else EXACT_DB


def _quiet():  # type: ignore[no-untyped-def]
    """Polygraphy logs each step to stdout; errors are raised all the same."""
    return G_LOGGER.verbosity(G_LOGGER.CRITICAL)
