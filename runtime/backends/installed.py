"""Which backends are installed, and their versions, found without importing any of them."""

from __future__ import annotations

import functools
import importlib.util
import os
from pathlib import Path

FLAVOURS = ("-", "_gpu-", "_openvino-", "_directml-", "_cu12-", "_cu13-")  # of one module
NVIDIA = (  # its driver, on Linux, a Jetson, in WSL
    "/dev/nvidiactl",
    "/proc/driver/nvidia/version",
    "/dev/nvmap",
    "/etc/nv_tegra_release",
    "/dev/dxg",
)
PACKAGES = {  # the module of each backend
    "onnxruntime": "onnxruntime",
    "openvino": "openvino",
    "litert": "ai_edge_litert",
    "ncnn": "ncnn",
}


def installed_backends() -> dict[str, str]:
    """The backends that could be opened, each with its package's version."""
    versions = {name: installed_version(module) for name, module in PACKAGES.items()}
    return {name: version for name, version in versions.items() if version}


def has_nvidia_driver() -> bool:
    """Whether this Linux has one; elsewhere False."""
    return any(Path(place).exists() for place in NVIDIA)


@functools.cache
def installed_version(module: str) -> str | None:
    """A module's version as its installer noted it beside it; None if it is not there.

    'unknown' where nobody noted it. importlib.metadata would say the same and takes 20 ms.
    """
    try:
        spec = importlib.util.find_spec(module)
    except ValueError:  # a module without a spec stands in its place
        return "unknown"
    if spec is None:
        return None
    if spec.origin is None:
        return "unknown"
    for name in _notes(Path(spec.origin).parents[1]):  # such as onnxruntime_gpu-1.18.0
        if name.startswith(module) and name[len(module) :].startswith(FLAVOURS):
            return name.rpartition("-")[2]
    return "unknown"


@functools.cache
def _notes(site: Path) -> list[str]:
    """What installers noted in a folder of packages, 'name-version' each, sorted."""
    suffix = ".dist-info"
    return sorted(name.removesuffix(suffix) for name in os.listdir(site) if name.endswith(suffix))
