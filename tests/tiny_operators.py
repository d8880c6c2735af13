"""ONNX graphs of an operator or two, x (1, 8, 16, 16) -> y, for the converters."""

import numpy as np
import onnx
from onnx import numpy_helper, parser

GENERATOR = np.random.default_rng(5)


def graph(body, shape="1, 8, 16, 16", **constants):
    """A model x (batch, 8, 16, 16) -> y of a few lines of ONNX text and its constants."""
    model = parser.parse_model(
        f'<ir_version: 10, opset_import: ["" : 20]>'
        f" g (float[batch, 8, 16, 16] x) => (float[batch, c, h, w] y) {{ {body} }}"
    )
    for name, value in constants.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def weights(*shape):
    return GENERATOR.normal(0, 0.2, shape).astype(np.float32)


def integers(*values):
    return np.array(values, np.int64)


OPERATORS = {
    "dense, padded": graph("y = Conv <pads = [1, 1, 1, 1]> (x, w)", w=weights(6, 8, 3, 3)),
    "a stride of 2, padded on the side that torch pads": graph(
        "y = Conv <pads = [1, 1, 1, 1], strides = [2, 2]> (x, w, b)",
        w=weights(6, 8, 3, 3),
        b=weights(6),
    ),
    "padded on one side": graph("y = Conv <pads = [2, 0, 0, 1]> (x, w)", w=weights(6, 8, 3, 3)),
    "dilated": graph(
        "y = Conv <pads = [2, 2, 2, 2], dilations = [2, 2]> (x, w)", w=weights(6, 8, 3, 3)
    ),
    "depthwise": graph("y = Conv <group = 8, pads = [2, 2, 2, 2]> (x, w)", w=weights(8, 1, 5, 5)),
    "depthwise, three of each": graph("y = Conv <group = 8> (x, w)", w=weights(24, 1, 3, 3)),
    "grouped": graph("y = Conv <group = 2> (x, w)", w=weights(6, 4, 3, 3)),
    "an activation that others read too": graph(
        "a = Conv (x, w)  b = Relu (a)  y = Add (a, b)", w=weights(6, 8, 1, 1)
    ),
    "grouped, before a pixel shuffle": graph(
        'a = Conv <group = 2> (x, w)  y = DepthToSpace <blocksize = 2, mode = "CRD"> (a)',
        w=weights(16, 4, 1, 1),
    ),
    "a sum before a pixel shuffle": graph(
        "a = Conv <group = 4> (x, v)  b = Conv (x, w)  c = Add (a, b)  d = Relu (c)"
        ' y = DepthToSpace <blocksize = 2, mode = "CRD"> (d)',
        v=weights(12, 2, 1, 1),
        w=weights(12, 8, 1, 1),
    ),
    "a pixel shuffle of what others read too": graph(
        'a = Conv (x, w)  b = DepthToSpace <blocksize = 2, mode = "CRD"> (a)'
        ' c = DepthToSpace <blocksize = 2, mode = "DCR"> (a)  y = Add (b, c)',
        w=weights(12, 8, 1, 1),
    ),
    "a pixel unshuffle, as torch exports it": graph(
        "a = Reshape (x, s)  b = Transpose <perm = [0, 1, 3, 5, 2, 4]> (a)  c = Reshape (b, t)"
        " y = Conv (c, w)",
        s=integers(-1, 8, 8, 2, 8, 2),
        t=integers(-1, 32, 8, 8),
        w=weights(6, 32, 1, 1),
    ),
    "space to depth": graph("y = SpaceToDepth <blocksize = 2> (x)"),
    "edges repeated": graph('y = Pad <mode = "edge"> (x, p)', p=integers(0, 0, 2, 1, 0, 0, 2, 0)),
    "twice the size": graph(
        'y = Resize <mode = "nearest", nearest_mode = "floor",'
        ' coordinate_transformation_mode = "asymmetric"> (x, , s)',
        s=np.array([1, 1, 2, 2], np.float32),
    ),
    "pooled": graph("y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)"),
    "channels cut and joined": graph(
        "a, b = Split <axis = 1, num_outputs = 2> (x)  c = Slice (x, s, e, s)"
        " y = Concat <axis = 1> (b, c, a)",
        s=integers(1),
        e=integers(2**63 - 1),
    ),
    "reductions": graph(
        "a = ReduceMean (x, s)  b = ReduceMax (x, c)  d = ReduceL2 (x, c)  e = Add (a, b)"
        " y = Mul (e, d)",
        s=integers(2, 3),
        c=integers(1),
    ),
    "elementwise": graph(
        "a = Sigmoid (x)  b = Gelu (x)  d = Clip (x, lo, hi)  e = Max (a, b)  f = Sub (e, d)"
        " g = Div (f, two)  y = Mul (g, k)",
        lo=np.float32(-0.5),
        hi=np.float32(0.5),
        two=np.float32(2),
        k=weights(1, 8, 1, 1),
    ),
    "normalized": graph(
        "a = Transpose <perm = [0, 2, 3, 1]> (x)  b = LayerNormalization <axis = -1> (a, g, h)"
        " y = Transpose <perm = [0, 3, 1, 2]> (b)",
        g=weights(8),
        h=weights(8),
    ),
    "attention over channels": graph(
        "a = Reshape (x, s)  t = Transpose <perm = [0, 1, 3, 2]> (a)  m = MatMul (a, t)"
        " n = Softmax <axis = -1> (m)  o = MatMul (n, a)  y = Reshape (o, r)",
        s=integers(-1, 2, 4, 256),
        r=integers(-1, 8, 16, 16),
    ),
}
