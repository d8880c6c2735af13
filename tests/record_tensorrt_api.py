"""Record what TensorRT's real Python bindings offer: `record_tensorrt_api.py FOLDER... > api.json`.

Each FOLDER is an unpacked wheel of PyPI's tensorrt-cu12-bindings. The libraries that it wraps come
from elsewhere; but its classes can be read with empty libraries of their names, which this compiles
(`cc`). tests/test_tensorrt_api.py holds our calls against the file.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

CLASSES = (
    *("Builder", "IBuilderConfig", "INetworkDefinition", "IOptimizationProfile", "OnnxParser"),
    *("ParserError", "ILayer", "ITensor", "Runtime", "ICudaEngine", "IExecutionContext"),
    *("EngineInspector", "IHostMemory", "ILogger", "Logger", "IRuntimeConfig", "IRuntimeCache"),
    *("BuilderFlag", "MemoryPoolType", "NetworkDefinitionCreationFlag", "ProfilingVerbosity"),
    *("LayerInformationFormat", "ComputeCapability", "CudaGraphStrategy", "EngineValidity"),
    "EngineInvalidityDiagnostics",
)
FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL"),
    *("createInferRuntime_INTERNAL", "createNvOnnxParserRefitter_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry", "getNvOnnxParserVersion"),
    *("getPluginRegistry", "initLibNvInferPlugins"),
)


def members(library):
    """{class: {member: "value", or [fewest, most] arguments}} of a module of bindings."""
    return {
        name: {
            member: arguments(member, getattr(getattr(library, name), member))
            for member in sorted(dir(getattr(library, name)))
            if not member.startswith("_")
        }
        for name in CLASSES
        if hasattr(library, name)
    }


def arguments(name, member):
    """How few and how many arguments a method takes after self, from pybind's docstring."""
    if not callable(member):
        return "value"
    found = re.findall(rf"{name}\(self: [\w.]+(?:, )?(.*)\) -> ", member.__doc__ or "")
    if not found:
        return "value"
    counts = [re.findall(r"(?:^|, )\w+: ([^=]*?)( = [^,]*)?(?=, \w+: |$)", one) for one in found]
    fewest = min(sum(not default for _, default in one) for one in counts)
    return [fewest, max(map(len, counts))]


def record(folder):
    """The API of the wheel in a folder, read in a process of its own."""
    package = folder / "tensorrt_bindings"
    needed = subprocess.run(
        ["readelf", "-d", package / "tensorrt.so"], capture_output=True, text=True, check=True
    ).stdout
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for library in re.findall(r"\[(libnv\w+\.so\.\d+)\]", needed):
        command = ["cc", "-shared", "-fPIC", "-o", package / library, source]
        subprocess.run(command, check=True)
    code = "import json, sys, record_tensorrt_api as r, tensorrt_bindings as t\n"
    code += "print(json.dumps([t.__version__, r.members(t)]))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"LD_LIBRARY_PATH": str(package), "PYTHONPATH": f"{folder}:{Path(__file__).parent}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


if __name__ == "__main__":
    recorded = dict(record(Path(folder).resolve()) for folder in sys.argv[1:])
    lines = [f'"{version}": {json.dumps(api)}' for version, api in sorted(recorded.items())]
    sys.stdout.write("{\n" + ",\n".join(lines) + "\n}\n")
