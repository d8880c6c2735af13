"""Who may import whom: the stages meet in files, not in imports."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# package -> what it may import besides the standard library and itself, anywhere in a file.
ALLOWED = {
    "runtime": {"numpy", "PIL"},
    "aminet": {"numpy", "PIL", "torch", "safetensors", "matplotlib", "runtime"},
    "export": {
        *("numpy", "torch", "onnx", "onnxruntime", "onnxscript", "onnxsim", "google"),
        *("ai_edge_litert", "flatbuffers", "polygraphy", "matplotlib", "coremltools"),
        *("aminet", "runtime"),
    },
    "quantize": {
        *("numpy", "PIL", "onnx", "onnxruntime", "google", "ml_dtypes"),
        *("export", "runtime"),
    },
    "benchmarks": {
        *("numpy", "PIL", "torch", "onnx", "onnxruntime", "openvino", "nncf", "scipy", "skimage"),
        *("jinja2", "matplotlib", "ncnn", "ml_dtypes", "polygraphy"),
        *("aminet", "calib_data", "export", "quantize", "runtime"),
    },
    "calib_data": {"numpy", "torch", "aminet", "runtime"},
}
# The one file of a package that wraps a library; the library is imported when it is used.
WRAPPERS = {
    "onnxruntime": "runtime/backends/onnxruntime.py",
    "openvino": "runtime/backends/openvino.py",
    "tensorrt": "runtime/backends/tensorrt.py",
    "tensorrt_rtx": "runtime/backends/tensorrt.py",
    "cuda": "runtime/backends/cuda.py",
    "ai_edge_litert": "runtime/backends/litert.py",
    "ncnn": "runtime/backends/ncnn.py",
    "av": "runtime/media/video.py",
    "pyarrow": "runtime/media/parquet.py",
    "nncf": "quantize/engines/nncf.py",
    "matplotlib": "quantize/sensitivity_plot.py",
}
# Where a library is handed in, and named for the type checker alone.
NAMED_AS_TYPES = {
    "av": [f"runtime/media/{name}.py" for name in ("sound", "video_input", "video_output")]
}
# What export needs to build an engine where the GPU is.
ON_A_JETSON = [
    f"export/{name}.py"
    for name in (
        "contract",
        "gate",
        "tensorrt",
        "trt/build",
        "trt/loaders",
        "trt/options",
        "trt/subprocess",
        "trt/worker",
    )
]
PACKAGES = [name for name in ALLOWED if (ROOT / name).is_dir()]
SOURCES = [
    path
    for name in PACKAGES
    for path in sorted((ROOT / name).rglob("*.py"))
    if path.parent.name != "samples"  # which run on a device, beside the package
]


def relative(path):
    return path.relative_to(ROOT).as_posix()


def imported(node):
    """Full names of the modules that an import statement names, else nothing."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return ["." * node.level + (node.module or "")]
    return []


def imports(path):
    """All modules that a file imports, wherever in it."""
    return {name for node in ast.walk(ast.parse(path.read_text())) for name in imported(node)}


def imports_at_once(path):
    """The modules that are imported as soon as the file is; not those for the type checker."""
    tree = ast.parse(path.read_text())
    later = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.FunctionDef)
        or (isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING")
        for node in ast.walk(block)
    }
    return {name for node in ast.walk(tree) if id(node) not in later for name in imported(node)}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_packages_import_only_what_they_may(path):
    package = relative(path).split("/")[0]
    wrapped = {name for name, wrapper in WRAPPERS.items() if wrapper == relative(path)}
    wrapped |= {name for name, files in NAMED_AS_TYPES.items() if relative(path) in files}
    allowed = ALLOWED[package] | wrapped | {package} | sys.stdlib_module_names
    assert not {name for name in imports(path) if name.split(".")[0] not in allowed}


@pytest.mark.parametrize("path", WRAPPERS.values())
def test_wrapped_libraries_are_imported_when_used(path):
    wrapped = {name for name, wrapper in WRAPPERS.items() if wrapper == path}
    assert not {name for name in imports_at_once(ROOT / path) if name.split(".")[0] in wrapped}


@pytest.mark.parametrize("library", NAMED_AS_TYPES)
def test_libraries_that_are_handed_in_are_not_imported(library):
    for path in NAMED_AS_TYPES[library]:
        assert library not in {name.split(".")[0] for name in imports_at_once(ROOT / path)}


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_are_absolute(path):
    assert not [name for name in imports(path) if name.startswith(".")]


def test_quantize_imports_the_contract_and_the_gate_of_export_and_export_nothing_of_it():
    """Neither of the two needs torch."""
    assert "quantize" not in ALLOWED["export"]
    quantize = [path for path in SOURCES if relative(path).startswith("quantize/")]
    found = {name for path in quantize for name in imports(path) if name.startswith("export")}
    assert found <= {"export.contract", "export.gate"}


def test_init_files_are_empty():
    assert [relative(p) for p in SOURCES if p.name == "__init__.py" and p.stat().st_size] == []
    folders = {path.parent for path in SOURCES}
    assert [relative(d) for d in folders if not (d / "__init__.py").is_file()] == []


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_data_is_run_as_code(path):
    """No pickle (torch.load, np.load of objects) and no eval: any artifact is only data.

    The one file that reads others' networks admits arrays alone (tests/test_pretrained.py).
    """
    if relative(path) != "aminet/pretrained.py":
        assert not {"pickle", "marshal", "shelve", "dill"} & imports(path)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"eval", "exec", "__import__", "pickle.load", "pickle.loads"}
            if called == "torch.load":
                assert "weights_only=True" in ast.unparse(node)
            if called in {"np.load", "numpy.load"}:
                assert "allow_pickle=False" in ast.unparse(node)


def test_runtime_and_engine_builds_are_written_for_python_3_10():
    """What runs on a Jetson with JetPack 6."""
    for path in SOURCES:
        if relative(path).startswith("runtime/") or relative(path) in ON_A_JETSON:
            ast.parse(path.read_text(), feature_version=(3, 10))


@pytest.mark.parametrize("path", ON_A_JETSON)
def test_engine_builds_need_no_torch(path):
    inside = {name for name in imports(ROOT / path) if name.startswith("export.")}
    assert {f"{name.replace('.', '/')}.py" for name in inside} <= set(ON_A_JETSON)
    assert not {"torch", "aminet", "onnxscript"} & {n.split(".")[0] for n in imports(ROOT / path)}


def test_nothing_is_run_as_a_script():
    """`python export/onnx.py` would put its folder first on the path, so itself before onnx."""
    assert not [relative(path) for path in SOURCES if path.read_text().startswith("#!")]
