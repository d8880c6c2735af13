"""Our calls on TensorRT exist in the real bindings of 10.3 (JetPack 6), 10.13, 11 and RTX.

tests/tensorrt_api.json was recorded from PyPI's wheels by tests/record_tensorrt_api.py;
TensorRT-RTX is installed and asked itself. This is all that is proved of `tensorrt`, whose
libraries were not here.
"""

import ast
import json
import re
from pathlib import Path

import pytest
from cuda.bindings import runtime

from record_tensorrt_api import members
from runtime.backends.tensorrt import import_library

ROOT = Path(__file__).parent.parent
FILES = ("export/trt/loaders.py", "export/trt/worker.py", "runtime/backends/tensorrt.py")
RECORDED = json.loads((ROOT / "tests" / "tensorrt_api.json").read_text())
APIS = {**RECORDED, "rtx": members(import_library("tensorrt-rtx"))}
# What our variables and attributes hold, and what some methods give.
HOLDS = {
    "library": "module",
    "_library": "module",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "layer": "ILayer",
    "tensor": "ITensor",
    "lr": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "_engine": "ICudaEngine",
    "opened": "ICudaEngine",
    "_runtime": "Runtime",
    "_context": "IExecutionContext",
    "settings": "IRuntimeConfig",
    "_compiled": "IRuntimeCache",
}
# What Polygraphy's loaders use, as export/trt/loaders.py calls them; the rest they guard.
POLYGRAPHY = {
    "Builder": (
        *("create_network", "create_builder_config", "create_optimization_profile"),
        "build_serialized_network",
    ),
    "NetworkDefinitionCreationFlag": ("STRONGLY_TYPED",),
    "OnnxParser": ("parse", "num_errors", "get_error"),
    "INetworkDefinition": ("num_inputs", "get_input", "num_outputs"),
    "IOptimizationProfile": ("set_shape",),
    "IBuilderConfig": (
        *("add_optimization_profile", "set_memory_pool_limit", "profiling_verbosity"),
        *("clear_flag", "get_flag", "DLA_core", "default_device_type"),
    ),
    "BuilderFlag": ("TF32",),
    "Runtime": ("deserialize_cuda_engine",),
}
GIVES = {"create_engine_inspector": "EngineInspector", "get_output": "ITensor"}
# Only TensorRT-RTX has these; each is used where the builder is tensorrt-rtx.
ONLY_RTX = {
    *("module.ComputeCapability", "module.EngineValidity", "module.EngineInvalidityDiagnostics"),
    "module.CudaGraphStrategy",
    *("Runtime.get_engine_validity", "ICudaEngine.create_runtime_config"),
    *("IRuntimeConfig.cuda_graph_strategy", "IRuntimeConfig.create_runtime_cache"),
    *("IRuntimeConfig.set_runtime_cache", "EngineValidity.INVALID"),
    *("CudaGraphStrategy.WHOLE_GRAPH_CAPTURE", "IRuntimeCache.serialize"),
    "IRuntimeCache.deserialize",
}
OTHERS = {"lr": {"dtype", "shape"}}  # of a face's tensor, which has the name too


def kind(node):
    """The class of TensorRT that an expression is of, or None."""
    if isinstance(node, ast.Name):
        return HOLDS.get(node.id)
    if isinstance(node, ast.Attribute):
        if ast.unparse(node.value) == "self":
            return HOLDS.get(node.attr)
        return node.attr if kind(node.value) == "module" else None
    called = node.func if isinstance(node, ast.Call) else None
    if isinstance(called, ast.Attribute) and kind(called.value):
        return GIVES.get(called.attr) or kind(called)
    return None


def uses(file):
    """(class, member, how many arguments it is called with, or None) of each use in a file."""
    tree = ast.parse((ROOT / file).read_text())
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Attribute) or kind(node.value) is None:
            continue
        if node.attr.startswith("__"):  # what all modules and classes have
            continue
        if isinstance(node.value, ast.Name) and node.attr in OTHERS.get(node.value.id, ()):
            continue
        call = called.get(id(node))
        starred = call and any(isinstance(one, ast.Starred) for one in call.args)
        count = None if call is None or starred else len(call.args) + len(call.keywords)
        yield kind(node.value), node.attr, count


USES = sorted({use for file in FILES for use in uses(file)}, key=str)


def test_many_uses_are_found():
    assert len(USES) > 40
    assert {"module", "IBuilderConfig", "ICudaEngine", "IExecutionContext"} <= {u[0] for u in USES}
    assert ("IExecutionContext", "execute_async_v3", 1) in USES
    assert {f"{name}.{member}" for name, member, _ in USES} >= ONLY_RTX


@pytest.mark.parametrize("version", APIS)
@pytest.mark.parametrize(("name", "member", "count"), USES)
def test_what_we_use_is_there_and_takes_as_many_arguments(version, name, member, count):
    if version != "rtx" and f"{name}.{member}" in ONLY_RTX:
        return
    if name == "module":
        assert member in APIS[version]
        return
    assert member in APIS[version][name]
    takes = APIS[version][name][member]
    if count is not None and takes != "value":
        fewest, most = takes
        assert fewest <= count <= most


@pytest.mark.parametrize("version", APIS)
def test_what_polygraphy_s_loaders_use_is_there(version):
    missing = {
        f"{name}.{member}"
        for name, members in POLYGRAPHY.items()
        for member in members
        if member not in APIS[version][name]
    }
    assert not missing


def calls_on_cuda():
    """(function, how many arguments, or None for a value) of each use of CUDA's runtime."""
    tree = ast.parse((ROOT / "runtime/backends/cuda.py").read_text())
    called = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in ("cuda", "self._cuda"):
            call = called.get(id(node))
            yield node.attr, None if call is None else len(call.args)


@pytest.mark.parametrize(("name", "count"), sorted(set(calls_on_cuda()), key=str))
def test_what_we_use_of_cuda_is_there_and_takes_as_many_arguments(name, count):
    function = getattr(runtime, name)
    if count is not None:
        (parameters,) = re.match(rf"{name}\((.*)\)", function.__doc__).groups()
        assert count == len([one for one in parameters.split(",") if one.strip()])


def test_cuda_s_directions_and_modes_have_our_names():
    assert {"cudaMemcpyHostToDevice", "cudaMemcpyDeviceToHost"} <= set(dir(runtime.cudaMemcpyKind))
    assert "cudaStreamCaptureModeThreadLocal" in dir(runtime.cudaStreamCaptureMode)
    assert {"name", "major", "minor"} <= set(dir(runtime.cudaDeviceProp))


def test_a_calibrator_or_a_precision_flag_is_nowhere():
    """TensorRT 11 has none, and in 10 they would overrule what the file says."""
    text = "".join((ROOT / file).read_text().lower() for file in FILES)
    for word in (
        "calibrat",
        "builderflag.fp16",
        "builderflag.int8",
        "set_precision",
        "set_output_t",
    ):
        assert word not in text


def test_the_recorded_versions_are_those_that_jetpack_and_pypi_have():
    assert sorted(RECORDED) == ["10.13.3.9", "10.3.0", "11.4.0.106"]
    assert "BuilderFlag" in RECORDED["10.3.0"]
    assert "INT8" in RECORDED["10.3.0"]["BuilderFlag"]
    assert "INT8" not in RECORDED["11.4.0.106"]["BuilderFlag"]
