"""Wheels carry a model that works at once; this hook refuses to build one without it."""

from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODEL_FILES = ("int8.onnx", "int8.onnx.json", "probes.npz")


class ModelIsPacked(BuildHookInterface):  # type: ignore[type-arg]
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable":  # a checkout finds its models in artifacts/
            return
        folder = Path(self.root, "runtime", "models", "aminet-edge")
        missing = [name for name in MODEL_FILES if not (folder / name).is_file()]
        if missing:
            raise SystemExit(
                f"error: {folder} lacks {', '.join(missing)}; a wheel carries the model: make wheel"
            )
