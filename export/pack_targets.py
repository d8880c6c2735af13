"""What each target of `export.pack` takes, and the README.md of its zip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from export.tensorrt import SOURCES


@dataclass(frozen=True)
class PackTarget:
    """A kind of device.

    `files`: artifacts by their names in the model's folder, the first that is there of those joined
    by '|'. `backend`: the one whose limits its table shows for ONNX files. `samples`: files of
    export/samples, which run the probes before the first face. `text`: the README after the table,
    with {wheel}, {model}, {side} (px that it reads), {face} (the sample, as runtime.infer takes
    it), {sources}, {best} and {small} to be filled in.
    """

    files: tuple[str, ...]
    backend: str
    text: str
    wheel: bool = True
    samples: tuple[str, ...] = ()
    tensorrt: bool = False  # its files must pass TensorRT's gate
    triton: bool = False  # the last file as a model repository too


EVERYWHERE = """
## Everywhere: check and upscale with ONNX Runtime

    python -m runtime.check {model}/fp32.onnx --backend onnxruntime
    python -m runtime.infer {face} --artifact {model}/fp32.onnx --backend onnxruntime
"""
TENSORRT = (
    """
## Install

On a Jetson, where TensorRT comes with JetPack (docs/jetson.md has the rest):

    python3 -m venv --system-site-packages venv && . venv/bin/activate
    python -m pip install {wheel} onnx polygraphy "cuda-bindings==12.*"

On a PC with an NVIDIA GPU: `python -m pip install "{wheel}[tensorrt]"`, or `[tensorrt-rtx]`.
"""
    + EVERYWHERE
    + """
## With TensorRT: build, check and upscale

An engine runs only on the kind of GPU and the version of TensorRT that built it: build it on the
device. Each build is a line for each precision, and says where the engine is.

    python -m export.tensorrt --artifact {sources}
    python -m runtime.check {model}/trt/*/{best}.engine
    python -m runtime.infer {face} --artifact {model}/trt/*/{best}.engine
"""
)
OPENVINO = (
    """
## Install

    python -m pip install {wheel} openvino
"""
    + EVERYWHERE
    + """
## With OpenVINO

    python -m runtime.check {small} --backend openvino
    python -m runtime.infer {face} --artifact {small} --backend openvino
"""
)
CPU = (
    """
## Install

    python -m pip install {wheel}
"""
    + EVERYWHERE
    + """
## In INT8

    python -m runtime.check {small} --backend onnxruntime
    python -m runtime.infer {face} --artifact {small} --backend onnxruntime
"""
)
RASPBERRY_PI = """
## Install and check (64-bit Raspberry Pi OS, or any Linux)

    python -m pip install {wheel} ai-edge-litert
    python -m runtime.check {model}/litert/int8.tflite
    python -m runtime.infer {face} --artifact {model}/litert/int8.tflite
    python upscale.py face.png

The check proves on the device itself, on the probes, that LiteRT computes what it did where the
file was made; over the limit it exits 3. `upscale.py` is the same in 46 lines of Python.

## In C++, with ncnn

ncnn is built from its source (https://github.com/Tencent/ncnn); `upscale.cpp` runs the probes
first, and exits 3 over their limits. With `face.ppm sr.ppm` after the probes it upscales a face of
{side}x{side} px.

    cmake -S . -B build -Dncnn_DIR=.../lib/cmake/ncnn && cmake --build build
    build/upscale {model}/ncnn/int8.param {model}/ncnn/int8.bin {model}/ncnn/int8.probes.bin
"""
ANDROID = """
## In an app

1. Copy `{model}/litert/int8.tflite` and `int8.probes.bin` into `app/src/main/assets/`, and keep the
   model uncompressed: `androidResources {{ noCompress += "tflite" }}`.
2. Add `implementation("com.google.ai.edge.litert:litert:1.4.0")`, or a newer 1.x, to
   `app/build.gradle.kts`.
3. Take `FaceUpscaler.kt`. It runs the probes on the phone before the first face, and throws a
   `DriftException` over their limits: show the face as it is then, not a wrong one.

The file reads RGB (1, {side}, {side}, 3) in [0, 1] and makes (1, 128, 128, 3), to be clipped; its
metadata says so to Android Studio. `FaceUpscaler.kt` was not compiled where it was written: no
Android SDK was there. Where the file itself was run in LiteRT, its manifest says.
"""
IOS = """
## On a Mac: check the packages

    swiftc -O FaceUpscaler.swift main.swift -o verify
    ./verify {model}/coreml/int8.mlpackage {model}/coreml/int8.probes.bin
    ./verify {model}/coreml/fp16.mlpackage {model}/coreml/fp16.probes.bin

It prints the fidelity to FP32 on CPU, GPU and Neural Engine, and exits with 3 if one drifts. Core
ML runs on Apple's systems alone: the packages were converted and interpreted where they were made,
not run, and the Swift files were not compiled there.

## In an app (iOS 17 and newer)

1. Drag `int8.mlpackage` into Xcode, which compiles it, and add `int8.probes.bin` as a resource.
2. Take `FaceUpscaler.swift`. It runs the probes on the phone before the first face, and throws over
   their limits: show the face as it is then, not a wrong one.
"""
TRITON = """
## Serve

`models/` is a model repository for Triton Inference Server: the model in its onnxruntime backend,
one thread an instance, dynamic batching, warmed up by a probe.

    tritonserver --model-repository models

`instance_group` in `models/{model}/config.pbtxt` counts the instances: set the server's cores.

Clients send lr (3, {side}, {side}) float32 in [0, 1] and clip sr (3, 128, 128) themselves. Triton
runs no probes: check the machine once, with the wheel.

    python -m pip install {wheel}
    python -m runtime.check {small} --backend onnxruntime
"""

_TENSORRT = PackTarget(SOURCES, "tensorrt", TENSORRT, tensorrt=True)
TARGETS: Mapping[str, PackTarget] = {
    "tensorrt": _TENSORRT,
    "jetson": _TENSORRT,
    "cpu": PackTarget(("fp32.onnx", "int8.onnx"), "onnxruntime", CPU),
    "openvino": PackTarget(("fp32.onnx", "int8-openvino.onnx|int8.onnx"), "openvino", OPENVINO),
    "triton": PackTarget(("int8.onnx",), "onnxruntime", TRITON, triton=True),
    "raspberrypi": PackTarget(
        ("litert/int8.tflite", "ncnn/int8.param"),
        "litert",
        RASPBERRY_PI,
        samples=("upscale.py", "upscale.cpp", "CMakeLists.txt"),
    ),
    "android": PackTarget(
        ("litert/int8.tflite",), "litert", ANDROID, wheel=False, samples=("FaceUpscaler.kt",)
    ),
    "ios": PackTarget(
        ("coreml/int8.mlpackage", "coreml/fp16.mlpackage"),
        "coreml",
        IOS,
        wheel=False,
        samples=("FaceUpscaler.swift", "main.swift"),
    ),
}
