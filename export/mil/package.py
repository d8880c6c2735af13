"""A Core ML package (.mlpackage, a folder): made of a program, read back, and put in place."""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
import uuid
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import coremltools as ct
import numpy as np
from coremltools.converters.mil.frontend.milproto.load import load

from export.mil.interpreter import interpret
from export.mil.program import TARGET
from runtime.atomic import sha256_bytes, writing, writing_folder
from runtime.image import Tensor

MANIFEST = "Manifest.json"
# In FP16 a sum of squares overflows, and what keeps a division from zero is zero.
IN_FP32 = ("reduce_l2_norm", "clip")

Files = dict[str, bytes]


def make_package(program: Any, description: str) -> Files:
    """The files of a package by their paths: FP16 where not INT8, the same bytes each time."""
    precision = ct.transform.FP16ComputePrecision(lambda op: op.op_type not in IN_FP32)
    with tempfile.TemporaryDirectory() as folder, _tidied():
        model = ct.convert(
            program,
            convert_to="mlprogram",
            compute_precision=precision,
            minimum_deployment_target=TARGET,
            skip_model_load=True,
        )
        model.short_description = description
        path = Path(folder, "made.mlpackage")
        model.save(str(path))
        del model
        files = {
            each.relative_to(path).as_posix(): each.read_bytes()
            for each in sorted(path.rglob("*"))
            if each.is_file()
        }
    files[MANIFEST] = _with_fixed_names(files)
    return files


class InterpretedPackage:
    """A package as it was written, run operator by operator without Core ML."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        with tempfile.TemporaryDirectory() as folder, _tidied():
            path = write_folder(Path(folder, "read.mlpackage"), files)
            model = ct.models.MLModel(str(path), skip_model_load=True)
            spec = model.get_spec()
            self._program = load(spec, spec.specificationVersion, model.weights_dir)
            del model

    def run(self, lr: Tensor) -> Tensor:
        """lr (N, 3, S, S), float32 in [0, 1], to (N, 3, 128, 128), one by one."""
        return np.concatenate([interpret(self._program, face[None]) for face in lr])


@contextlib.contextmanager
def _tidied() -> Iterator[None]:
    """Without the temporary folders that coremltools leaves to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        yield
        gc.collect()


def write_folder(path: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        target = path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return path


def replace_package(path: Path, files: Mapping[str, bytes], manifest: bytes) -> None:
    """Put a package and its manifest in place, both or neither; the manifest last."""
    beside = path.with_name(f"{path.name}.json")
    with writing(beside) as new_manifest, writing_folder(path) as folder:
        new_manifest.write_bytes(manifest)
        write_folder(folder, files)


def _with_fixed_names(files: Files) -> bytes:
    """The package's own manifest with names of its content in the place of random ones."""
    content = json.loads(files[MANIFEST])
    names = {}
    for name, entry in content["itemInfoEntries"].items():
        inside = [files[each] for each in sorted(files) if each.startswith(f"Data/{entry['path']}")]
        names[name] = str(uuid.uuid5(uuid.NAMESPACE_URL, sha256_bytes(b"".join(inside))))
    entries = {names[name]: entry for name, entry in content["itemInfoEntries"].items()}
    content["itemInfoEntries"] = dict(sorted(entries.items()))
    content["rootModelIdentifier"] = names[content["rootModelIdentifier"]]
    return f"{json.dumps(content, indent=4)}\n".encode()
