"""Networks trained by others, for perceptual losses and metrics: read as data, never run as code.

`python -m benchmarks.fetch` brings the files into the user's cache folder.
"""

import io
import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor

from runtime.atomic import read_bytes, sha256_bytes
from runtime.cache import cache_folder
from runtime.errors import EXIT_MISSING, EdgeError

MAX_BYTES = 1 << 30
FETCH = "python -m benchmarks.fetch"


@dataclass(frozen=True)
class Pretrained:
    """A file in the cache folder, and the SHA-256 that it must have."""

    name: str
    sha256: str


VGG16 = Pretrained("vgg16.ckpt", "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d")
ALEXNET = Pretrained(
    "alexnet.ckpt", "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1"
)


def folder() -> Path:
    """Where the files are; EdgeError where the user has no home."""
    cache = cache_folder()
    if cache is None:
        raise EdgeError("no cache folder: there is no home; set XDG_CACHE_HOME to one")
    return cache / "evaluation"


def read_pretrained(file: Pretrained) -> bytes:
    """The bytes of a fetched file. EdgeError (status 5) if absent, (1) if not the expected one."""
    path = folder() / file.name
    if not path.is_file():
        raise EdgeError(f"{path}: not found. Fetch it with: {FETCH}", EXIT_MISSING)
    content = read_bytes(path, MAX_BYTES)
    if sha256_bytes(content) != file.sha256:
        raise EdgeError(f"{path}: is damaged or another file; fetch it again: {FETCH}")
    return content


class _ArraysOnly(pickle.Unpickler):
    """Admits what an array of numbers is made of; any other name in the pickle is refused."""

    ADMITTED = {  # noqa: RUF012
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
        ("numpy._core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ADMITTED:
            raise pickle.UnpicklingError(f"{module}.{name} is not an array")
        return self.ADMITTED[module, name]


def unpickle_arrays(content: bytes, name: str) -> dict[str, Any]:
    """A pickle of nested dicts of arrays; anything else in it raises EdgeError."""
    try:
        found = _ArraysOnly(io.BytesIO(content)).load()
    except Exception as error:  # a damaged pickle raises what it trips over
        raise EdgeError(f"{name}: holds more than arrays ({error}); fetch it again") from error
    if not isinstance(found, dict):
        raise EdgeError(f"{name}: holds no dict of arrays; fetch it again: {FETCH}")
    return found


def flax_convolutions(arrays: Mapping[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """Conv_0, Conv_1, ... of a flax module as torch's (weight OIHW, bias) in turn."""
    layers = [arrays[f"Conv_{index}"] for index in range(len(arrays))]
    return [
        (as_oihw(layer["kernel"]), torch.from_numpy(np.array(layer["bias"]))) for layer in layers
    ]


def as_oihw(kernel: NDArray[np.float32]) -> Tensor:
    """A kernel (H, W, in, out) as torch has it: (out, in, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(np.transpose(kernel, (3, 2, 0, 1))))


def load_torch(content: bytes, name: str) -> dict[str, Any]:
    """A dict that torch.save wrote; a file that holds more than tensors and numbers is refused."""
    try:
        state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):  # torch's advice would run the file's code
            reason = "it holds more than tensors"
        raise EdgeError(
            f"{name}: not a plain state dict ({reason}); save one:"
            " torch.save(network.state_dict(), F)"
        ) from error
    if not isinstance(state, dict):
        raise EdgeError(f"{name}: holds no dict of tensors; save the network's state_dict()")
    return state


def read_torch_state(content: bytes, name: str) -> dict[str, Tensor]:
    """The tensors of a state dict that torch.save wrote."""
    state = load_torch(content, name)
    return {key: value for key, value in state.items() if isinstance(value, Tensor)}


def read_state(path: Path) -> dict[str, Tensor]:
    """A user's weights: .safetensors, or what torch.save made of a state dict."""
    if path.suffix == ".safetensors" and path.is_file():
        try:
            return load_file(path)
        except Exception as error:
            raise EdgeError(f"{path}: is no whole safetensors file; get it again") from error
    return read_torch_state(read_bytes(path, MAX_BYTES), str(path))


def unpack_tfjs(manifest: bytes, content: bytes) -> dict[str, NDArray[np.float32]]:
    """The weights of a TensorFlow.js file, uint8 with a scale each, by name, float32."""
    weights, at = {}, 0
    for group in json.loads(manifest):
        for entry in group["weights"]:
            shape, quantization = entry["shape"], entry.get("quantization")
            dtype = np.dtype(quantization["dtype"] if quantization else entry["dtype"])
            count = int(np.prod(shape))
            values = np.frombuffer(content, dtype, count, at).reshape(shape).astype(np.float32)
            at += count * dtype.itemsize
            if quantization:
                values = values * np.float32(quantization["scale"]) + np.float32(
                    quantization["min"]
                )
            weights[entry["name"]] = values
    return weights
