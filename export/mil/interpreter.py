"""What a Core ML program computes, operator by operator in PyTorch, without Core ML and a Mac.

Values of FP16 are computed in FP32 and then rounded. How Core ML's own kernels add up, and which
unit of a device runs what, this does not say.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from coremltools.converters.mil.mil import types
from torch import Tensor

from runtime.errors import EdgeError

Inputs: TypeAlias = Mapping[str, Any]
LIMITS = {"int8": (-128, 127), "uint8": (0, 255)}


def interpret(program: Any, lr: np.ndarray) -> np.ndarray:
    """Run the function main of a MIL program on lr (1, 3, S, S), one image.

    EdgeError names an operator that it does not know.
    """
    main = program.functions["main"]
    (name,) = main.inputs
    values: dict[str, Any] = {name: torch.from_numpy(np.ascontiguousarray(lr))}
    with torch.inference_mode():
        for operation in main.operations:
            if operation.op_type != "const":
                _run(operation, values)
    return values[main.outputs[0].name].numpy()


def _run(operation: Any, values: dict[str, Any]) -> None:
    kind = operation.op_type
    if kind not in OPERATORS:
        raise EdgeError(f"the Core ML program has {kind}, which its interpreter does not know")
    inputs = {name: _read(values, given) for name, given in operation.inputs.items()}
    made = OPERATORS[kind](inputs)
    outputs = made if isinstance(made, (list, tuple)) else [made]
    for variable, value in zip(operation.outputs, outputs, strict=True):
        half = types.builtin_to_string(variable.dtype) == "fp16"
        values[variable.name] = value.half().float() if half else value


def _read(values: dict[str, Any], given: Any) -> Any:
    """Numbers and lists as Python has them, tensors in FP32 or as they are."""
    if isinstance(given, (list, tuple)):
        return [_read(values, each) for each in given]
    if given is None or given.name in values:
        return None if given is None else values[given.name]
    value = given.val
    if isinstance(value, np.ndarray) and value.dtype in (np.float16, np.float32):
        return torch.from_numpy(value.astype(np.float32))
    if isinstance(value, np.ndarray) and value.dtype in (np.int8, np.uint8):
        return torch.from_numpy(value.copy())
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.item() if isinstance(value, np.generic) else value


def _conv(i: Inputs) -> Tensor:
    if i["pad_type"] != "custom":
        raise EdgeError(f"the Core ML program has a convolution padded {i['pad_type']!r}")
    top, bottom, left, right = i["pad"]
    x = F.pad(i["x"], (left, right, top, bottom))
    return F.conv2d(x, i["weight"], i.get("bias"), i["strides"], 0, i["dilations"], i["groups"])


def _constexpr_affine_dequantize(i: Inputs) -> Tensor:
    return _dequantize({**i, "input": i["quantized_data"]})


def _quantize(i: Inputs) -> Tensor:
    least, most = LIMITS[i["output_dtype"]]
    scaled = torch.round(i["input"] / _along(i, "scale")) + _along(i, "zero_point")
    return scaled.clip(least, most)  # in FP32, which holds them exactly


def _dequantize(i: Inputs) -> Tensor:
    return (i["input"].float() - _along(i, "zero_point")) * _along(i, "scale")


def _along(i: Inputs, name: str) -> Tensor:
    """A scale or a zero point, along its axis if it has several; 0 where there is none."""
    value = torch.as_tensor(i.get(name) if i.get(name) is not None else 0).float()
    if value.ndim == 0 or value.numel() == 1:
        return value.reshape(())
    shape = [1] * i["input"].ndim
    shape[i["axis"]] = -1
    return value.reshape(shape)


def _slice_by_index(i: Inputs) -> Tensor:
    if any(i.get("squeeze_mask") or []):
        raise EdgeError("the Core ML program has a slice that drops an axis")
    x, strides = i["x"], i.get("stride") or [1] * i["x"].ndim
    begin_mask = i.get("begin_mask") or [False] * x.ndim
    end_mask = i.get("end_mask") or [False] * x.ndim
    places = zip(i["begin"], i["end"], strides, begin_mask, end_mask, strict=True)
    return x[
        tuple(
            slice(None if any_begin else begin, None if any_end else end, stride)
            for begin, end, stride, any_begin, any_end in places
        )
    ]


def _pad(i: Inputs) -> Tensor:
    top, bottom, left, right = i["pad"][-4:]
    return F.pad(i["x"], (left, right, top, bottom), mode=i["mode"])


def _upsample(i: Inputs) -> Tensor:
    factors = (i["scale_factor_height"], i["scale_factor_width"])
    return F.interpolate(i["x"], scale_factor=tuple(map(float, factors)), mode="nearest")


def _avg_pool(i: Inputs) -> Tensor:
    if i["pad_type"] != "valid":
        raise EdgeError(f"the Core ML program has a pooling padded {i['pad_type']!r}")
    return F.avg_pool2d(i["x"], i["kernel_sizes"], i["strides"])


def _matmul(i: Inputs) -> Tensor:
    left = i["x"].mT if i.get("transpose_x") else i["x"]
    right = i["y"].mT if i.get("transpose_y") else i["y"]
    return left @ right


def _layer_norm(i: Inputs) -> Tensor:
    shape = [i["x"].shape[axis] for axis in i["axes"]]
    return F.layer_norm(i["x"], shape, i.get("gamma"), i.get("beta"), i["epsilon"])


def _depth_to_space(i: Inputs) -> Tensor:
    """In ONNX's mode DCR."""
    n, channels, height, width = i["x"].shape
    block = i["block_size"]
    split = i["x"].reshape(n, block, block, channels // block**2, height, width)
    moved = split.permute(0, 3, 4, 1, 5, 2)
    return moved.reshape(n, channels // block**2, height * block, width * block)


def _space_to_depth(i: Inputs) -> Tensor:
    n, channels, height, width = i["x"].shape
    block = i["block_size"]
    split = i["x"].reshape(n, channels, height // block, block, width // block, block)
    moved = split.permute(0, 3, 5, 1, 2, 4)
    return moved.reshape(n, channels * block**2, height // block, width // block)


OPERATORS: Mapping[str, Callable[[Inputs], Any]] = {
    "add": lambda i: i["x"] + i["y"],
    "avg_pool": _avg_pool,
    "cast": lambda i: i["x"],  # what FP16 rounds is rounded as the variable says
    "clip": lambda i: i["x"].clip(i["alpha"], i["beta"]),
    "concat": lambda i: torch.cat(i["values"], i["axis"]),
    "constexpr_affine_dequantize": _constexpr_affine_dequantize,
    "conv": _conv,
    "depth_to_space": _depth_to_space,
    "dequantize": _dequantize,
    "gelu": lambda i: F.gelu(
        i["x"], approximate="tanh" if i["mode"] == "TANH_APPROXIMATION" else "none"
    ),
    "identity": lambda i: i["x"],
    "layer_norm": _layer_norm,
    "matmul": _matmul,
    "maximum": lambda i: torch.maximum(i["x"], i["y"]),
    "mul": lambda i: i["x"] * i["y"],
    "pad": _pad,
    "pixel_shuffle": lambda i: F.pixel_shuffle(i["x"], i["upscale_factor"]),
    "quantize": _quantize,
    "real_div": lambda i: i["x"] / i["y"],
    "reduce_l2_norm": lambda i: i["x"].square().sum(i["axes"], i["keep_dims"]).sqrt(),
    "reduce_max": lambda i: i["x"].amax(i["axes"], i["keep_dims"]),
    "reduce_mean": lambda i: i["x"].mean(i["axes"], i["keep_dims"]),
    "relu": lambda i: i["x"].relu(),
    "reshape": lambda i: i["x"].reshape(i["shape"]),
    "sigmoid": lambda i: i["x"].sigmoid(),
    "slice_by_index": _slice_by_index,
    "softmax": lambda i: i["x"].softmax(i["axis"]),
    "space_to_depth": _space_to_depth,
    "split": lambda i: i["x"].split(i["split_sizes"], i["axis"]),
    "sub": lambda i: i["x"] - i["y"],
    "transpose": lambda i: i["x"].permute(i["perm"]),
    "upsample_nearest_neighbor": _upsample,
}
