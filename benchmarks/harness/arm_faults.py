"""The smallest graphs that ONNX Runtime's FP16 kernels for ARM were seen to get wrong.

Each is run on an emulated processor and compared with FP32 here. As long as one fails there,
runtime.backends.onnxruntime refuses FP16 arithmetic on ARM.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from benchmarks.harness.emulated_arm import EmulatedArm
from quantize.precision import open_quietly
from runtime.errors import EdgeError

POOLING = """<ir_version: 10, opset_import: ["" : 20]>
pooling (float16[1, 4, 8, 8] x) => (float16[1, 4, 4, 4] y) {
    y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x)
}"""
GROUPED = """<ir_version: 10, opset_import: ["" : 20]>
grouped (float16[1, 8, 4, 4] x, float16[8, 2, 3, 3] w) => (float16[1, 8, 4, 4] y) {
    y = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w)
}"""
DENSE = """<ir_version: 10, opset_import: ["" : 20]>
dense (float16[1, 8, 4, 4] x, float16[8, 8, 3, 3] w) => (float16[1, 8, 4, 4] y) {
    y = Conv <pads = [1, 1, 1, 1]> (x, w)
}"""
GRAPHS = {  # the last is right, and shows that the others could be
    "average pooling": POOLING,
    "grouped convolution": GROUPED,
    "dense convolution": DENSE,
}
RIGHT = 0.02  # of the largest result: FP16 sums of 72 terms lose less
RUN = """
import json, sys
import numpy as np, onnxruntime

said = {}
for name in json.loads(sys.argv[1]):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(f"{name}.onnx", options)
        inputs = {key: value for key, value in np.load(f"{name}.npz").items()}
        said[name] = session.run(None, inputs)[0].astype(float).tolist()
    except Exception as error:
        said[name] = str(error).splitlines()[0]
print(json.dumps(said))
"""


@dataclass(frozen=True)
class Fault:
    """What became of a graph on a processor; `fault` is None where it was right."""

    cpu: str
    graph: str
    fault: str | None


def find_faults(arm: EmulatedArm, work: Path) -> list[Fault]:
    """Run GRAPHS in an emulated processor's ONNX Runtime; `work` is a folder for their files."""
    expected = {name: _write(name, text, work) for name, text in GRAPHS.items()}
    done = arm.run(["-c", RUN, json.dumps(list(GRAPHS))], cwd=work)
    if done.returncode:
        raise EdgeError(f"{arm.cpu}: cannot run ONNX Runtime: {done.stderr.strip()[-200:]}")
    said = json.loads(done.stdout)
    return [Fault(arm.cpu, name, _describe(said[name], right)) for name, right in expected.items()]


def _write(name: str, text: str, work: Path) -> NDArray[np.float32]:
    """Write a graph with inputs for it; what FP32 makes of them."""
    model = parser.parse_model(text)
    generator = np.random.default_rng(0)
    inputs = {
        value.name: generator.normal(size=[d.dim_value for d in value.type.tensor_type.shape.dim])
        for value in model.graph.input
    }
    halves = {key: value.astype(np.float16) for key, value in inputs.items()}
    np.savez(work / f"{name}.npz", x=halves["x"])
    exact = parser.parse_model(text.replace("float16", "float"))
    singles = {key: value.astype(np.float32) for key, value in halves.items()}
    right = open_quietly(exact.SerializeToString()).run(None, singles)[0]
    if "w" in halves:  # weights are constants
        model.graph.initializer.append(numpy_helper.from_array(halves["w"], "w"))
        del model.graph.input[1]
    onnx.save(model, work / f"{name}.onnx")
    return right


def _describe(said: str | list, right: NDArray[np.float32]) -> str | None:
    if isinstance(said, str):
        return f"does not open: {said.partition(' (node')[0]}"
    errors = np.abs(np.array(said) - right).max(axis=(0, 2, 3)) / np.abs(right).max()
    wrong = np.flatnonzero(errors > RIGHT)
    if not len(wrong):
        return None
    channels = ", ".join(map(str, wrong))
    return f"channels {channels} of {len(errors)} are wrong, by up to {errors.max():.0%}"
