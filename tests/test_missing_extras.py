"""A command whose extra is not installed says which one to install, and exits with 5."""

import subprocess
import sys

import pytest

from face_tars import ROOT
from runtime import cli
from runtime.errors import EXIT_MISSING, needs

ABSENT = (
    "torch",
    "onnx",
    "onnxsim",
    "onnxscript",
    "safetensors",
    "scipy",
    "skimage",
    "ai_edge_litert",
    "ncnn",
    "coremltools",
    "polygraphy",
)
EXTRAS = {
    "aminet.info": "train",
    "aminet.train --data faces --out run --steps 1": "train",
    "aminet.convert weights.pth --model aminet-edge --out weights.safetensors": "train",
    "export.compare a.onnx b.onnx": "compare",
    "export.coreml": "export,coreml",
    "export.litert": "quantize,litert",
    "export.ncnn": "quantize,ncnn",
    "export.onnx": "export",
    "quantize.int8": "quantize",
    "quantize.fp8": "quantize",
    "quantize.fp16": "quantize",
    "quantize.ranges": "quantize",
    "quantize.sensitivity": "quantize",
    "benchmarks.accuracy --data x": "train,eval",
    "export.pack": "tensorrt-rtx",
    "export.tensorrt": "tensorrt-rtx",
    "benchmarks.demo": "train,export,quantize,tensorrt-rtx,eval",
    "benchmarks.fetch": "train",
    "benchmarks.publish": "train,export,quantize,eval,bench",
    "benchmarks.release --checkpoint x --data x": "train,eval",
    "benchmarks.wild --data x": "train,eval",
    "benchmarks.studies.ablation --data x": "train",
    "benchmarks.studies.engines": "quantize,bench",
    "benchmarks.studies.formats": "quantize,tensorrt-rtx",
    "benchmarks.studies.quantizers": "train,export,quantize,eval,bench",
    "benchmarks.latency": "train,export,quantize,bench",
    "benchmarks.studies.profile": "quantize",
    "benchmarks.regress": "train,export,quantize,bench",
    "benchmarks.report": "train,export,quantize,eval,bench",
}
OTHER_MAINS = {  # a process that another command starts, a sample in packs, the console script
    *("benchmarks.harness.worker", "export.trt.worker", "export.samples.upscale", "runtime.cli"),
}
RUN_ALL = f"""
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
for command in sys.argv[1:]:
    sys.argv = command.split()
    sys.modules.pop(sys.argv[0], None)  # another command may have imported it
    try:
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        print(command, end.code)
"""


def test_each_command_names_the_extra_that_it_needs():
    run = [sys.executable, "-c", RUN_ALL, *EXTRAS]
    done = subprocess.run(run, capture_output=True, text=True)
    assert done.stdout.splitlines() == [f"{command} {EXIT_MISSING}" for command in EXTRAS]
    for line, extra in zip(done.stderr.splitlines(), EXTRAS.values(), strict=True):
        assert line.startswith("error: ")
        assert line.endswith(f" is not installed; pip install 'aminet-edge[{extra}]'")


def commands() -> set[str]:
    """All of the project."""
    packages = ("aminet", "export", "quantize", "runtime", "benchmarks")
    return {
        path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
        for package in packages
        for path in (ROOT / package).rglob("*.py")
        if 'if __name__ == "__main__":' in path.read_text()
    } - OTHER_MAINS


def test_help_needs_no_extra():
    """Of each command of the console script, and of those that a checkout has beside it."""
    found = commands()
    assert found >= {module for module, _ in cli.COMMANDS.values()}
    assert found >= {name.split()[0] for name in EXTRAS}
    asked = [f"{name} --help" for name in sorted(found)]
    run = [sys.executable, "-c", RUN_ALL, *asked]
    done = subprocess.run(run, capture_output=True, text=True)
    ended = [line for line in done.stdout.splitlines() if line.startswith(tuple(asked))]
    assert ended == [f"{command} 0" for command in asked], done.stderr


def test_a_library_that_lacks_its_extra_is_an_import_error():
    with pytest.raises(ModuleNotFoundError), needs("export", "export.onnx"):
        import no_such_library  # noqa: F401
