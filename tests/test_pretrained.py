"""Networks trained by others are read as data: nothing in their files is run."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from aminet.pretrained import (
    Pretrained,
    flax_convolutions,
    folder,
    read_pretrained,
    read_state,
    unpack_tfjs,
    unpickle_arrays,
)
from runtime.atomic import sha256_bytes, write_bytes
from runtime.errors import EXIT_MISSING, EdgeError


class Trap:
    """Unpickled by an ordinary Unpickler, it would make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path, bytes]]:
        return Path.write_bytes, (self.path, b"caught")


def test_arrays_of_numbers_are_read() -> None:
    arrays = {"Conv_0": {"kernel": np.arange(54, dtype=np.float32).reshape(3, 3, 2, 3)}}
    found = unpickle_arrays(pickle.dumps(arrays), "x")
    assert np.array_equal(found["Conv_0"]["kernel"], arrays["Conv_0"]["kernel"])


@pytest.mark.parametrize("inside", ["top", "dict", "array"])
def test_code_in_a_pickle_is_refused_and_not_run(tmp_path: Path, inside: str) -> None:
    path = tmp_path / "trap"
    trap = Trap(path)
    content = {"top": trap, "dict": {"a": trap}, "array": {"a": np.array([trap], object)}}[inside]
    with pytest.raises(EdgeError, match="holds more than arrays"):
        unpickle_arrays(pickle.dumps(content), "x")
    assert not path.exists()


def test_code_in_a_users_weights_is_refused_and_not_run(tmp_path: Path) -> None:
    torch.save({"a": Trap(tmp_path / "trap")}, tmp_path / "vgg.pth")
    with pytest.raises(EdgeError, match=r"vgg\.pth: not a plain state dict"):
        read_state(tmp_path / "vgg.pth")
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize("content", [b"", b"\x80", b"garbage", pickle.dumps([1, 2])])
def test_damaged_pickles_are_named(content: bytes) -> None:
    with pytest.raises(EdgeError, match=r"alexnet\.ckpt: holds"):
        unpickle_arrays(content, "alexnet.ckpt")


def test_kernels_are_turned_to_torchs_order() -> None:
    kernel = np.random.default_rng(0).normal(size=(3, 5, 2, 4)).astype(np.float32)
    ((weight, bias),) = flax_convolutions({"Conv_0": {"kernel": kernel, "bias": np.ones(4)}})
    assert weight.shape == (4, 2, 3, 5)
    assert weight[3, 1, 2, 4] == kernel[2, 4, 1, 3]
    assert bias.tolist() == [1, 1, 1, 1]


def test_tfjs_weights_are_scaled_back() -> None:
    manifest = [
        {
            "weights": [
                {
                    "name": "a",
                    "shape": [2],
                    "dtype": "float32",
                    "quantization": {"dtype": "uint8", "scale": 0.5, "min": -1.0},
                },
                {"name": "b", "shape": [1], "dtype": "float32"},
            ]
        }
    ]
    content = bytes([0, 4]) + np.float32([2.5]).tobytes()
    weights = unpack_tfjs(json.dumps(manifest).encode(), content)
    assert weights["a"].tolist() == [-1, 1]
    assert weights["b"].tolist() == [2.5]


def test_only_the_expected_file_is_read() -> None:
    file = Pretrained("x.bin", sha256_bytes(b"right"))
    with pytest.raises(EdgeError, match=r"x\.bin: not found. Fetch it") as missing:
        read_pretrained(file)
    assert missing.value.status == EXIT_MISSING
    write_bytes(folder() / "x.bin", b"wrong")
    with pytest.raises(EdgeError, match="is damaged or another file"):
        read_pretrained(file)
    write_bytes(folder() / "x.bin", b"right")
    assert read_pretrained(file) == b"right"
