"""Cross-layer equalization (CLE): graph passes that bring an activation's channels to one range.

An activation has one scale, so a channel a tenth as large as the largest has a tenth of the steps.
Between two convolutions channels are scaled at no cost: the weights that make them are multiplied
by s, those that read them divided by s, and weights have a scale per channel anyway (Nagel et al.
2019, "Data-Free Quantization through Weight Equalization and Bias Correction"; Xiao et al. 2022,
"SmoothQuant"). Additions, pooling, concatenation and products with a weight map propagate s. Other
operators fix their channels; there a Mul before the layer scales them, inserted only where it pays.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from quantize.layers import Layer, activation_shapes, module_name
from quantize.qdq import copy, set_nodes

# At 1 all channels would be as large as the largest, and a face unlike the calibration set could
# drive any of them out of the range, not just one.
STRENGTH = 0.75
LEAST_GAIN = 1.8  # largest channel over the root mean square of all, from which an extra Mul pays
MOST = 32.0  # largest factor of a channel: a dead one needs no steps
SCALED = "_scaled"  # the end of a scaled input's name
FIXED = 0  # the class of channels that cannot be scaled

Ids = NDArray[np.int64]
Sizes = NDArray[np.floating]
Factors = NDArray[np.float64]


@dataclass(frozen=True)
class Equalized:
    """A graph of the same function, and the factors of its activations' channels.

    `convolutions`: of each that can be scaled, by its module's name, the factors of its output's
    and its input's channels. `classes`: likewise the classes of channels that have one factor,
    FIXED for those whose factor is 1.
    """

    model: ModelProto
    factors: Mapping[str, Factors]
    convolutions: Mapping[str, tuple[Factors, Factors]]
    classes: Mapping[str, tuple[Ids, Ids]]


def equalize(
    model: ModelProto, sizes: Mapping[str, Sizes], fixed: Collection[str] = ()
) -> Equalized:
    """Scale the channels of these activations towards their largest, where that costs nothing.

    `sizes`: the largest magnitude of each channel of the activations that are to be quantized.
    `fixed`: modules whose convolutions' results are not scaled.
    """
    model = copy(model)
    channels = _Channels(model, fixed)
    factors = channels.factors(sizes)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions, classes = {}, {}
    for node in model.graph.node:
        if channels.is_scalable(node):
            out, read = channels.ids(node.output[0]), channels.ids(node.input[0])
            if out.any() or read.any():
                classes[module_name(node)] = (out, read)
                convolutions[module_name(node)] = (factors[out], factors[read])
                _scale_convolution(node, constants, factors[out], factors[read])
    of_activations = {name: factors[channels.ids(name)] for name in sizes}
    return Equalized(model, of_activations, convolutions, classes)


def scale_inputs(
    model: ModelProto, layers: Sequence[Layer], sizes: Mapping[str, Sizes]
) -> tuple[ModelProto, tuple[Layer, ...], dict[str, Factors]]:
    """Insert a Mul before layers whose input channels differ much, and divide their weights.

    `sizes` as for `equalize`, of this graph. Returns the graph, the layers with their new inputs,
    and the factors of those inputs' channels.
    """
    unlike = {
        layer.input: _towards_largest(size / size.max())
        for layer in layers
        if (size := sizes[layer.input]).max() >= LEAST_GAIN * np.sqrt(np.mean(size**2)) > 0
    }
    return scale_inputs_by(model, layers, unlike)


def scale_inputs_by(
    model: ModelProto, layers: Sequence[Layer], factors: Mapping[str, Factors]
) -> tuple[ModelProto, tuple[Layer, ...], dict[str, Factors]]:
    """The same with the factors of these activations' channels, by name."""
    model = copy(model)
    channels = _Channels(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = {node.output[0]: node for node in model.graph.node if channels.is_scalable(node)}
    scaled: dict[str, Factors] = {}
    changed = []
    for layer in layers:
        of_input, node = factors.get(layer.input), convolutions.get(layer.output)
        if of_input is None or node is None:
            changed.append(layer)
            continue
        name = f"{layer.input}{SCALED}"
        scaled[name] = of_input
        _scale_convolution(node, constants, np.ones(constants[node.input[1]].dims[0]), of_input)
        node.input[0] = name
        changed.append(replace(layer, input=name))
    _insert_multiplications(model, scaled)
    return model, tuple(changed), scaled


def _insert_multiplications(model: ModelProto, scaled: Mapping[str, Factors]) -> None:
    """Insert the Mul that makes NAME_scaled of each NAME, right behind it."""
    inserted = {}
    for name, factors in scaled.items():
        constant = factors.astype(np.float32).reshape(1, -1, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(constant, f"{name}_factors"))
        source = name.removesuffix(SCALED)
        inputs = [source, f"{name}_factors"]
        inserted[source] = helper.make_node("Mul", inputs, [name], name=f"{name}_Mul")
    nodes = [inserted.pop(value.name) for value in model.graph.input if value.name in inserted]
    for node in model.graph.node:
        nodes += [node, *(inserted.pop(name) for name in node.output if name in inserted)]
    set_nodes(model, nodes)


def _towards_largest(share: Factors | Sizes) -> Factors:
    """The factors of channels that have this share of the largest channel, 0 to 1."""
    return np.minimum(np.maximum(share, 1e-9).astype(np.float64) ** -STRENGTH, MOST)


def _scale_convolution(
    node: NodeProto, constants: Mapping[str, TensorProto], of_output: Factors, of_input: Factors
) -> None:
    """Multiply the weights by the factors of the output, divide by those of the input."""
    weight = constants[node.input[1]]
    values = numpy_helper.to_array(weight).astype(np.float64)
    by_output, by_input = (-1, *[1] * (values.ndim - 1)), (1, -1, *[1] * (values.ndim - 2))
    is_depthwise = _attribute(node, "group", 1) > 1
    of_input = of_input.reshape(by_output if is_depthwise else by_input)
    _store(weight, values * of_output.reshape(by_output) / of_input)
    if len(node.input) > 2:
        bias = constants[node.input[2]]
        _store(bias, numpy_helper.to_array(bias) * of_output)


class _Channels:
    """Which channels of a graph must have one factor: the class of each activation's channels."""

    def __init__(self, model: ModelProto, fixed: Collection[str] = ()) -> None:
        self._shapes = activation_shapes(model)
        self._constants = {tensor.name: tensor for tensor in model.graph.initializer}
        self._parents = [FIXED]
        self._ids: dict[str, Ids] = {}
        uses = [name for node in model.graph.node for name in node.input]
        self._shared = {name for name in self._constants if uses.count(name) > 1}
        for node in model.graph.node:
            self._follow(node)
            if node.op_type == "Conv" and module_name(node) in fixed:
                self._fix(node.output[0])
        for value in model.graph.output:
            self._fix(value.name)

    def ids(self, name: str) -> Ids:
        """The class of each channel (C,)."""
        known = self._ids.get(name)
        if known is None:
            shape = self._shapes.get(name, ())
            return np.full(shape[1] if len(shape) > 1 else 1, FIXED)
        return np.array([self._root(each) for each in known])

    def factors(self, sizes: Mapping[str, Sizes]) -> Factors:
        """The factor of each class of channels, 1 to MOST."""
        share = np.zeros(len(self._parents))
        for name, size in sizes.items():
            ids = self.ids(name)
            if len(ids) == len(size) and size.max() > 0:
                np.maximum.at(share, ids, size / size.max())
        share[share == 0] = 1
        factors = _towards_largest(share)
        factors[FIXED] = 1
        return factors

    def is_scalable(self, node: NodeProto) -> bool:
        """Whether it is a dense or depthwise convolution whose constants nothing else reads."""
        if node.op_type != "Conv" or not set(node.input[1:]) <= self._constants.keys():
            return False
        if self._shared & set(node.input[1:]):
            return False
        return _is_dense_or_depthwise(node, self._constants[node.input[1]])

    def _follow(self, node: NodeProto) -> None:
        follow = _FOLLOW.get(node.op_type)
        if self.is_scalable(node):
            self._ids[node.output[0]] = self._new(self._shapes[node.output[0]][1])
        elif follow is None or not follow(self, node):
            for name in node.input:
                self._fix(name)

    def _new(self, count: int) -> Ids:
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def _root(self, each: int) -> int:
        while self._parents[each] != each:
            each = self._parents[each]
        return each

    def _join(self, one: Ids, other: Ids) -> None:
        for a, b in zip(one, other, strict=True):
            low, high = sorted((self._root(a), self._root(b)))
            self._parents[high] = low  # so FIXED stays a root

    def _fix(self, name: str) -> None:
        if name in self._ids:
            ids = self._ids[name]
            self._join(ids, np.full(len(ids), FIXED))

    def _pass(self, node: NodeProto) -> bool:
        """The output has the channels of the first input."""
        if len(self._shapes[node.output[0]]) != len(self._shapes[node.input[0]]):
            return False
        self._ids[node.output[0]] = self.ids(node.input[0])
        return True

    def _add(self, node: NodeProto) -> bool:
        one, other = (self._shapes[name] for name in node.input)
        if one != other:
            return False
        self._join(self.ids(node.input[0]), self.ids(node.input[1]))
        return self._pass(node)

    def _multiply(self, node: NodeProto) -> bool:
        """Feature maps times a weight map whose channels are fixed."""
        for features, weights in (node.input, reversed(node.input)):
            if (
                not self.ids(weights).any()
                and self._shapes[features] == self._shapes[node.output[0]]
            ):
                self._ids[node.output[0]] = self.ids(features)
                return True
        return False

    def _concatenate(self, node: NodeProto) -> bool:
        if _attribute(node, "axis", 1) != 1:
            return False
        self._ids[node.output[0]] = np.concatenate([self.ids(name) for name in node.input])
        return True

    def _split(self, node: NodeProto) -> bool:
        if _attribute(node, "axis", 0) != 1:
            return False
        ids, start = self.ids(node.input[0]), 0
        for name in node.output:
            count = self._shapes[name][1]
            self._ids[name] = ids[start : start + count]
            start += count
        return True

    def _mean(self, node: NodeProto) -> bool:
        """The mean over the pixels."""
        axes = self._constants.get(node.input[1]) if len(node.input) > 1 else None
        if axes is None or sorted(numpy_helper.to_array(axes) % 4) != [2, 3]:
            return False
        return self._pass(node)


_FOLLOW: Mapping[str, Callable[[_Channels, NodeProto], bool]] = {
    "Relu": _Channels._pass,
    "LeakyRelu": _Channels._pass,
    "PRelu": _Channels._pass,  # factors are positive, so its slopes stay
    "AveragePool": _Channels._pass,
    "MaxPool": _Channels._pass,
    "Resize": _Channels._pass,
    "Add": _Channels._add,
    "Mul": _Channels._multiply,
    "Concat": _Channels._concatenate,
    "Split": _Channels._split,
    "ReduceMean": _Channels._mean,
}


def _is_dense_or_depthwise(node: NodeProto, weight: TensorProto) -> bool:
    group = _attribute(node, "group", 1)
    return group == 1 or (group == weight.dims[0] and weight.dims[1] == 1)


def _attribute(node: NodeProto, name: str, default: int) -> int:
    found = [helper.get_attribute_value(a) for a in node.attribute if a.name == name]
    return found[0] if found else default


def _store(tensor: TensorProto, values: NDArray) -> None:
    tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
