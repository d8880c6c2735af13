"""Any ONNX image network of one input and one output, made a source model like fp32.onnx.

The graph is brought to a form that can be quantized and proved equal; what it reads and makes is
found in it or asked for, and its probes are made from the calibration images.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import ModelProto, TensorProto, ValueInfoProto, version_converter

from quantize.calibration import read_calibration
from quantize.fp16_passes import store_constants
from quantize.options import NetworkOptions
from quantize.precision import optimized_graph
from runtime import drift
from runtime.artifact import write_artifact
from runtime.atomic import read_bytes, sha256_bytes, sha256_file
from runtime.backends.networks import OnnxRuntimeNetwork
from runtime.backends.onnx_bytes import WEIGHTS_NEED_NO_INPUTS, with_constant_weights
from runtime.backends.onnxruntime import import_onnxruntime
from runtime.drift import NetworkProbes
from runtime.errors import EXIT_DRIFT, EdgeError
from runtime.evaluation import upscale_faces
from runtime.image import Pixels, to_pixels, to_tensor
from runtime.manifest import Manifest, Measurement, manifest_path, read_manifest
from runtime.network import CHANNELS, Network
from runtime.progress import Progress

MAX_BYTES = 1 << 30
DEFAULT_SIDE = 64  # px, where the graph takes images of any size
OPSET, IR_VERSION = 20, 10  # what older graphs are converted to: FP16 scales came with 19
RANGES = ((0.0, 1.0), (0.0, 255.0), (-1.0, 1.0))
CLEARLY = 0.5  # of the usual range's squared error, for another range to be taken
UNLIKE = 50.0  # levels between the parts of images and of what the network makes of them
PROBE_IMAGES = 12
AMINET = Network("lr", "sr", 3, 16, 16)
MAX_DIFFERENCE = 1e-3  # of the range, between the graph as it came and as it is quantized
TOOLS = ("onnx", "onnxruntime", "numpy")
ROUND = 8  # images that find the range and prove the graph


def is_other_network(path: Path) -> bool:
    """Whether it is an ONNX file without manifest whose names are not AMINet's."""
    if not path.is_file() or manifest_path(path).exists():
        return False
    try:
        graph = onnx.load_model_from_string(read_bytes(path, MAX_BYTES)).graph
    except DecodeError:
        return path.suffix == ".onnx"
    return (AMINET.input, AMINET.output) != (
        *(value.name for value in graph.input[:1]),
        *(value.name for value in graph.output[:1]),
    )


def read_network(path: Path, options: NetworkOptions) -> tuple[ModelProto, Network]:
    """Read a network, and its contract from its graph; the range is the one asked for, else [0, 1].

    EdgeError for what is no ONNX, has several inputs or outputs, or is no network of images.
    """
    try:
        model = onnx.load_model_from_string(read_bytes(path, MAX_BYTES))
        onnx.checker.check_model(model)
    except (DecodeError, onnx.checker.ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise EdgeError(f"{path}: is not a valid ONNX file in one piece ({reason})") from error
    model.ir_version = max(model.ir_version, WEIGHTS_NEED_NO_INPUTS)
    model = onnx.load_model_from_string(with_constant_weights(model.SerializeToString()))
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    if len(inputs) != 1 or len(outputs) != 1:
        raise EdgeError(
            f"{path}: has {len(inputs)} inputs and {len(outputs)} outputs, expected a network that"
            " makes one image of one image"
        )
    channels, height, width = _image_shape(path, inputs[0], options.side)
    low, high = options.range or RANGES[0]
    return model, Network(inputs[0].name, outputs[0].name, channels, height, width, low, high)


def import_network(
    path: Path, calib: Sequence[str | Path], options: NetworkOptions, progress: Progress
) -> tuple[Path, str]:
    """Write fp32.onnx with manifest and probes; return its path, and a line on what was found.

    EdgeError with status 3 if the prepared graph computes something else.
    """
    out = Path(options.out or Path("artifacts", path.stem), "fp32.onnx")
    model, network = read_network(path, options)
    checkpoint_sha256 = sha256_file(path)
    _refuse_other(out, checkpoint_sha256)
    calibration = read_calibration(calib, network)
    progress("preparing the graph")
    prepared = _prepare(model)
    content = prepared.SerializeToString(deterministic=True)
    if options.range is None:
        network = _find_range(path, content, network, calibration.held_out[:ROUND])
    images = calibration.held_out[:PROBE_IMAGES]
    lr = np.concatenate([images, _stress_images(network)])
    names = [*(f"image-{i:02}" for i in range(len(images))), *STRESS]
    with OnnxRuntimeNetwork(content, str(path), network) as session:
        made = np.concatenate([session.run(face[None]) for face in to_tensor(lr)])
        _prove(path, model, network, lr[:ROUND], made[:ROUND])
        probes = NetworkProbes(lr, to_pixels(made), tuple(names), len(images))
        fidelity = drift.measure(session.run, probes)
        measured = Measurement.of(fidelity, "onnxruntime", session.version)
    packed = drift.encode_probes(probes)
    manifest = Manifest(
        model=path.stem,
        precision="fp32",
        target="any",
        sha256=sha256_bytes(content),
        checkpoint_sha256=checkpoint_sha256,
        probes_sha256=sha256_bytes(packed),
        executes_as="fp32",
        network=network,
        tools={tool: version(tool) for tool in TOOLS},
        flags={"imported_from": path.name},
        measured_on=(measured,),
    )
    write_artifact(out, content, manifest, probes=packed)
    size = f"(N, {network.channels}, {network.height}, {network.width})"
    return out, (
        f"{path}: has no manifest, so is another network than AMINet: reads {network.input} {size},"
        f" black {network.low:g}, white {network.high:g}, makes {network.output}; imported as {out}"
    )


def _refuse_other(out: Path, checkpoint_sha256: str) -> None:
    """EdgeError if another network's file is in the place."""
    if out.exists() and read_manifest(out).checkpoint_sha256 != checkpoint_sha256:
        raise EdgeError(f"{out}: is of another network; name another folder: --out DIR")


def _image_shape(path: Path, value: ValueInfoProto, side: int | None) -> tuple[int, int, int]:
    """Channels, height and width of an input (N, C, H, W); `side` where the graph has no size."""
    tensor = value.type.tensor_type
    sizes = [dim.dim_value for dim in tensor.shape.dim]
    if tensor.elem_type != TensorProto.FLOAT or len(sizes) != 4 or sizes[1] not in CHANNELS:
        kind = TensorProto.DataType.Name(tensor.elem_type).lower()
        raise EdgeError(
            f"{path}: reads {value.name} {kind} {sizes}, expected float32 (N, 1 or 3, H, W)"
        )
    height, width = (size or side or DEFAULT_SIDE for size in sizes[2:])
    if side and (height, width) != (side, side):
        raise EdgeError(f"--side {side}: {path} reads images of {width}x{height} and no others")
    return sizes[1], height, width


def _prepare(model: ModelProto) -> ModelProto:
    """Constants as initializers, batch norms folded, and an opset that has all that is needed."""
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), 0)
    if opset < OPSET:
        model = version_converter.convert_version(model, OPSET)
        model.ir_version = IR_VERSION
    basic = import_onnxruntime().GraphOptimizationLevel.ORT_ENABLE_BASIC
    model = store_constants(
        optimized_graph(model.SerializeToString(), graph_optimization_level=basic)
    )
    used = {node.domain or "" for node in model.graph.node}
    kept = [opset for opset in model.opset_import if opset.domain.replace("ai.onnx", "") in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    return model


def _find_range(path: Path, content: bytes, network: Network, images: Pixels) -> Network:
    """The range in which the network makes of an image something like it.

    Super-resolution and restoration do, and where ranges do so alike, as they do to a network that
    is nearly linear, it is the usual one. EdgeError if the network makes nothing like its input.
    """
    errors = []
    for low, high in RANGES:
        candidate = replace(network, low=low, high=high)
        with OnnxRuntimeNetwork(content, str(path), candidate) as session:
            made = upscale_faces(session.run, images)
        errors.append(float(np.square(_means(made) - _means(images)).mean()))
    best = int(np.argmin(errors))
    if errors[best] > UNLIKE**2:
        raise EdgeError(
            f"{path}: makes nothing like the images that it reads, whatever their range; give it:"
            " --range 0,1 or 0,255 or -1,1"
        )
    if errors[best] > CLEARLY * errors[0]:
        best = 0
    low, high = RANGES[best]
    return replace(network, low=low, high=high)


def _means(images: Pixels, cells: int = 4) -> np.ndarray:
    """The mean of each of `cells` x `cells` parts of images (N, H, W, 3): (N, cells, cells, 3)."""
    rows = [part.mean(axis=1) for part in np.array_split(images.astype(np.float64), cells, axis=1)]
    stacked = np.stack(rows, axis=1)
    columns = [part.mean(axis=2) for part in np.array_split(stacked, cells, axis=2)]
    return np.stack(columns, axis=2)


def _prove(path: Path, model: ModelProto, network: Network, lr: Pixels, made: np.ndarray) -> None:
    """EdgeError with status 3 unless the graph as it came makes the same of these images."""
    with OnnxRuntimeNetwork(model.SerializeToString(), str(path), network) as session:
        original = np.concatenate([session.run(image[None]) for image in to_tensor(lr)])
    difference = float(np.abs(original - made).max())
    if not difference <= MAX_DIFFERENCE:
        raise EdgeError(
            f"{path}: prepared for quantization it computes something else, by {difference:.1e},"
            f" expected at most {MAX_DIFFERENCE:.0e}; nothing was written",
            EXIT_DRIFT,
        )


STRESS = ("black", "white", "red", "green", "blue", "checkerboard")


def _stress_images(network: Network) -> Pixels:
    shape = (network.height, network.width, 3)
    colors = ((0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255))
    flat = [np.broadcast_to(np.array(color, np.uint8), shape) for color in colors]
    row, column = np.indices(shape[:2])
    board = np.repeat(((row + column) % 2 * 255).astype(np.uint8)[..., None], 3, axis=2)
    return np.stack([*flat, board])
