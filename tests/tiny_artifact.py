"""A network of the project's contract, small enough to read, with its manifest and probes.

It enlarges as AMINet does: a fixed bicubic, and the detail that two branches add to it.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper, parser
from PIL import Image

from runtime.atomic import sha256_bytes, sha256_file, write_bytes
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.cpu import processor
from runtime.drift import Probes, measure, write_probes
from runtime.image import to_pixels, to_tensor
from runtime.manifest import Manifest, Measurement, probes_path, write_manifest

FP32 = """
    <ir_version: 10, opset_import: ["" : 20]>
    tiny (float[batch, 3, 16, 16] lr) => (float[batch, 3, 128, 128] sr) {
        scales = Constant <value = float[4] {1, 1, 8, 8}> ()
        enlarged = Resize <mode = "cubic", cubic_coeff_a = -0.75> (lr, , scales)
        embedded = Conv <pads = [1, 1, 1, 1]> (lr, embed, embed_bias)
        feature = Relu (embedded)
        local = Conv <pads = [1, 1, 1, 1]> (feature, local_weight)
        global = Conv (feature, global_weight)
        fused = Add (local, global)
        detail = DepthToSpace <blocksize = 8, mode = "CRD"> (fused)
        sr = Add (enlarged, detail)
    }
"""
# The convolution with uint8 activations and int8 weights, these with a scale for each channel.
INT8 = FP32.replace(
    "embedded = Conv <pads = [1, 1, 1, 1]> (lr, embed, embed_bias)",
    """
        embed_float = DequantizeLinear <axis = 0> (embed, embed_scale)
        embedded = Conv <pads = [1, 1, 1, 1]> (lr, embed_float, embed_bias)
    """,
).replace(
    "feature = Relu (embedded)",
    """
        active = Relu (embedded)
        quantized = QuantizeLinear (active, feature_scale, feature_zero)
        feature = DequantizeLinear (quantized, feature_scale, feature_zero)
    """,
)


# The same that reads 64x64.
FP32_64 = (
    FP32.replace("3, 16, 16]", "3, 64, 64]")
    .replace("{1, 1, 8, 8}", "{1, 1, 2, 2}")
    .replace("blocksize = 8", "blocksize = 2")
)


def weights():
    """The initializers of FP32: detail of about 12 of 255 levels."""
    generator = np.random.default_rng(7)
    return {
        "embed": generator.normal(0, 0.3, (16, 3, 3, 3)).astype(np.float32),
        "embed_bias": np.full(16, 1, np.float32),
        "local_weight": generator.normal(0, 0.01, (192, 16, 3, 3)).astype(np.float32),
        "global_weight": generator.normal(0, 0.02, (192, 16, 1, 1)).astype(np.float32),
    }


def weights_64():
    """The initializers of FP32_64."""
    made = weights()
    return {
        **made,
        "local_weight": made["local_weight"][:12],
        "global_weight": made["global_weight"][:12],
    }


def quantized_weights():
    """The initializers of INT8, of the same network."""
    embed = weights()["embed"]
    scale = np.abs(embed).max(axis=(1, 2, 3)) / 127
    return {
        **weights(),
        "embed": np.rint(embed / scale[:, None, None, None]).astype(np.int8),
        "embed_scale": scale.astype(np.float32),
        "feature_scale": np.float32(4 / 255),
        "feature_zero": np.uint8(0),
    }


def build(text=FP32, initializers=None):
    """The bytes of an ONNX file from its text and weights."""
    model = parser.parse_model(text)
    for name, value in (initializers or weights()).items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    onnx.checker.check_model(model)
    return model.SerializeToString()


def faces(count=12, seed=1, side=16):
    """Smooth images (N, side, side, 3): faces enough for a network that knows none."""
    coarse = np.random.default_rng(seed).integers(0, 256, (count, 5, 5, 3), np.uint8)
    return np.stack([np.array(Image.fromarray(c).resize((side, side), 3)) for c in coarse])


def extremes(side=16):
    """Black, white, a checkerboard, red, green and blue (6, side, side, 3)."""
    pictures = np.zeros((6, side, side, 3), np.uint8)
    pictures[1] = 255
    pictures[2, ::2, ::2] = pictures[2, 1::2, 1::2] = 255
    pictures[3, ..., 0] = pictures[4, ..., 1] = pictures[5, ..., 2] = 255
    return pictures


def make_probes(model=None, seed=1):
    """The probes of an FP32 model."""
    with OnnxRuntimeSession(model or build(), "tiny") as session:
        side = session.lr_side
        lr = np.concatenate([faces(seed=seed, side=side), extremes(side)])
        return Probes(
            lr, to_pixels(session.run(to_tensor(lr))), tuple(f"probe {i}" for i in range(len(lr)))
        )


def measured(model, probes):
    """How a model does on probes here, as the build stages write it down."""
    with OnnxRuntimeSession(model, "tiny") as session:
        fidelity = measure(session.run, probes)
        return Measurement(
            session.name,
            session.version,
            processor(),
            fidelity.fidelity_db,
            fidelity.worst_fidelity_db,
            fidelity.extremes_fidelity_db,
        )


def write_artifact(folder, name="fp32.onnx", model=None, **fields):
    """Write an artifact, its manifest and, where there are none, its probes; return its path.

    The manifest fits unless `fields` say otherwise.
    """
    path = Path(folder, name)
    model = build() if model is None else model
    write_bytes(path, model)
    if not probes_path(path).exists():
        write_probes(probes_path(path), make_probes())
    precision = name.partition(".")[0]
    fitting = {
        "model": "tiny",
        "precision": precision,
        "target": "any",
        "sha256": sha256_bytes(model),
        "checkpoint_sha256": sha256_bytes(b"checkpoint"),
        "probes_sha256": sha256_file(probes_path(path)),
        "executes_as": precision,
        "tools": {"onnx": onnx.__version__},
    }
    write_manifest(path, Manifest(**{**fitting, **fields}))
    return path
