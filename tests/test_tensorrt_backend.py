"""The TensorRT backend, as far as it decides without a GPU; with one, the CPU's tests again."""

import importlib.metadata
import shutil
from dataclasses import replace

import numpy as np
import pytest

import tiny_artifact
from export.trt.build import compile_engine, find_builder
from export.trt.options import BuildOptions
from runtime import selection
from runtime.backends import cuda, engine_files
from runtime.backends import open as runners
from runtime.backends.cuda import Device
from runtime.backends.onnxruntime import GPU_PROVIDERS, OnnxRuntimeSession, refuse_fallback
from runtime.backends.open import with_provider
from runtime.backends.tensorrt import check_device, check_version, import_library
from runtime.check import check, main
from runtime.errors import EXIT_ERROR, EXIT_MISSING, EXIT_USAGE, EdgeError
from runtime.image import to_tensor
from runtime.manifest import probes_path, read_manifest, write_manifest
from runtime.session import open_session

LR = to_tensor(tiny_artifact.faces(4))
RTX = BuildOptions(builder="tensorrt-rtx")
needs_no_gpu = pytest.mark.skipif(cuda.has_device(), reason="there is a GPU here")
needs_gpu = pytest.mark.skipif(not cuda.has_device(), reason="there is no GPU here")


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """A folder with a tiny fp32.onnx and its engine."""
    source = tiny_artifact.write_artifact(tmp_path_factory.mktemp("tiny"))
    compile_engine(source, find_builder(RTX), RTX)
    return source.parent


@pytest.fixture
def engine(compiled, tmp_path):
    """A copy of an engine, with what belongs to it."""
    shutil.copytree(compiled, tmp_path / "tiny")
    (path,) = (tmp_path / "tiny").glob("trt/*/fp32.engine")
    return path


def error_of(*arguments, **options):
    with pytest.raises(EdgeError) as caught:
        open_session(*arguments, **options)
    assert "\n" not in str(caught.value)
    return caught.value


def test_an_engine_shares_the_probes_of_its_model(engine):
    assert probes_path(engine) == engine.parent.parent.parent / "probes.npz"
    assert probes_path(engine).is_file()


def pretend_gpu(monkeypatch, capability):
    monkeypatch.setattr(engine_files, "has_gpu", lambda: True)
    monkeypatch.setattr(engine_files, "find_device", lambda: Device("a GPU", capability))


@pytest.mark.parametrize(("capability", "count"), [("8.6", 1), ("7.5", 0)])
def test_engines_for_this_gpu_are_found(engine, monkeypatch, capability, count):
    pretend_gpu(monkeypatch, capability)
    assert engine_files.find_engines(probes_path(engine).parent) == [engine][:count]
    engine.with_name("fp32.engine.json").unlink()
    assert engine_files.find_engines(probes_path(engine).parent) == []


@needs_no_gpu
def test_without_a_gpu_auto_does_not_try_engines(engine):
    with open_session(probes_path(engine).parent) as session:
        assert [trial.artifact for trial in session.choice.trials] == ["fp32.onnx"]


@needs_no_gpu
def test_an_engine_that_does_not_open_is_left_out_by_auto(engine, monkeypatch):
    pretend_gpu(monkeypatch, "8.6")
    folder = probes_path(engine).parent
    with open_session(folder) as session:
        assert session.backend == "onnxruntime"
        assert session.passed_over == ()
        (failed,) = [trial for trial in session.choice.trials if trial.error]
    assert failed.artifact == engine.relative_to(folder).as_posix()
    assert failed.backend == "tensorrt"


def test_auto_takes_the_engine_where_it_is_quickest(engine, monkeypatch):
    """ONNX Runtime runs it here, and the times are made up: what is chosen and kept is real."""
    pretend_gpu(monkeypatch, "8.6")
    folder = probes_path(engine).parent

    def open_engine(artifact, threads):
        runner = OnnxRuntimeSession((folder / "fp32.onnx").read_bytes(), "tensorrt")
        runner.name = "tensorrt"
        return runner

    monkeypatch.setitem(runners.OPENERS, "tensorrt", open_engine)
    monkeypatch.setattr(selection, "take_turns", lambda *_: [[3.0], [1.0]])
    for remembered in (False, True):
        with open_session(folder) as session:
            assert (session.artifact, session.backend) == (engine, "tensorrt")
            assert session.choice.remembered == remembered
    pretend_gpu(monkeypatch, "7.5")  # another GPU is another choice
    monkeypatch.setattr(selection, "take_turns", lambda *_: [[3.0]])
    with open_session(folder) as session:
        assert session.backend == "onnxruntime"


@needs_no_gpu
@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_without_a_gpu_a_sound_engine_says_so(engine, backend):
    error = error_of(engine, backend)
    assert error.status == EXIT_MISSING
    assert "no use of an NVIDIA GPU here: cuda driver version is insufficient" in str(error)
    assert "take an ONNX file and --backend onnxruntime" in str(error)


def test_check_and_infer_have_one_line_and_status_5_for_it(engine, capsys):
    if cuda.has_device():
        pytest.skip("there is a GPU here")
    assert main([str(engine)]) == EXIT_MISSING
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no use of an NVIDIA GPU here")


def test_with_fallback_the_onnx_file_above_it_is_taken(engine):
    if cuda.has_device():
        pytest.skip("there is a GPU here")
    with open_session(engine, fallback=True) as session:
        assert session.artifact == probes_path(engine).with_name("fp32.onnx")
        assert session.backend == "onnxruntime"
        assert "no use of an NVIDIA GPU" in session.passed_over[0]


SPOILED = {
    "truncated": lambda data: data[: len(data) // 2],
    "corrupt": lambda data: data[:999] + bytes([data[999] ^ 1]) + data[1000:],
    "empty": lambda data: b"",
}


@pytest.mark.parametrize("spoil", SPOILED.values(), ids=SPOILED)
def test_a_damaged_engine_is_named_before_it_is_opened(engine, spoil):
    engine.write_bytes(spoil(engine.read_bytes()))
    error = error_of(engine)
    assert error.status == EXIT_ERROR
    assert "fp32.engine: is not the file that its manifest describes" in str(error)
    source = probes_path(engine).with_name("fp32.onnx")
    assert str(error).endswith(f"python -m export.tensorrt --artifact {source}")


def test_an_engine_of_another_version_names_the_command_that_builds_it(engine):
    manifest = read_manifest(engine)
    write_manifest(engine, replace(manifest, tools={"tensorrt-rtx": "1.6.0"}))
    error = error_of(engine)
    assert error.status == EXIT_MISSING
    assert "fp32.engine: was built by tensorrt-rtx 1.6.0, and 1.7.1.116 is here" in str(error)
    source = probes_path(engine).with_name("fp32.onnx")
    assert str(error).endswith(f"python -m export.tensorrt --artifact {source}")


def test_an_engine_of_tensorrt_without_tensorrt_says_what_to_install(engine):
    if "tensorrt" in {dist.name for dist in importlib.metadata.distributions()}:
        pytest.skip("tensorrt is here")
    manifest = read_manifest(engine)
    flags = {**manifest.flags, "builder": "tensorrt"}
    write_manifest(engine, replace(manifest, flags=flags, tools={"tensorrt": "10.3.0"}))
    error = error_of(engine)
    assert error.status == EXIT_MISSING
    assert "tensorrt is not installed; pip install 'aminet-edge[tensorrt]'" in str(error)


def test_an_engine_for_another_gpu_names_both_and_the_command(engine):
    manifest = read_manifest(engine)
    check_device(manifest, Device("RTX 3060", "8.6"), "a.engine")
    check_version(manifest, "1.7.1.116", "a.engine")
    with pytest.raises(EdgeError) as caught:
        check_device(manifest, Device("NVIDIA H200", "9.0"), str(engine))
    assert caught.value.status == EXIT_MISSING
    assert "was built for compute capability 8.6, and NVIDIA H200 is of 9.0" in str(caught.value)
    assert "Build it on this device with: python -m export.tensorrt --artifact" in str(caught.value)


def test_engines_and_onnx_files_are_not_taken_for_each_other(engine):
    error = error_of(engine, "onnxruntime")
    assert (error.status, "use --backend tensorrt" in str(error)) == (EXIT_USAGE, True)
    source = probes_path(engine).with_name("fp32.onnx")
    error = error_of(source, "tensorrt")
    assert error.status == EXIT_MISSING
    assert str(error).endswith(f"python -m export.tensorrt --artifact {source}")


def test_the_real_library_says_that_garbage_is_no_engine():
    rtx = import_library("tensorrt-rtx")
    runtime = rtx.Runtime(rtx.Logger(rtx.Logger.INTERNAL_ERROR))
    validity, diagnostics = runtime.get_engine_validity(b"garbage" * 99)
    assert validity == rtx.EngineValidity.INVALID
    assert diagnostics & int(rtx.EngineInvalidityDiagnostics.MALFORMED_ENGINE)


@pytest.mark.parametrize("provider", GPU_PROVIDERS)
def test_a_provider_that_is_not_installed_is_never_the_cpu(artifact, provider, capsys):
    if "onnxruntime-gpu" in {dist.name for dist in importlib.metadata.distributions()}:
        pytest.skip("onnxruntime-gpu is here")
    assert main([str(artifact), "--backend", "onnxruntime", "--provider", provider]) == EXIT_MISSING
    (line,) = capsys.readouterr().err.splitlines()
    assert f"--provider {provider}: the installed ONNX Runtime has no" in line
    assert "pip install onnxruntime-gpu" in line


def test_a_provider_that_did_not_load_is_never_the_cpu():
    """ONNX Runtime itself only logs it, and goes on with what it has."""
    refuse_fallback(["CUDAExecutionProvider", "CPUExecutionProvider"], "cuda")
    for taken in (["CPUExecutionProvider"], []):
        with pytest.raises(EdgeError, match="could not load CUDAExecutionProvider") as caught:
            refuse_fallback(taken, "cuda")
        assert caught.value.status == EXIT_MISSING
    with pytest.raises(EdgeError, match="would use CUDAExecutionProvider, CPUExec"):
        refuse_fallback(["CUDAExecutionProvider", "CPUExecutionProvider"], "tensorrt")


def test_providers_are_onnx_runtime_s(artifact, capsys):
    assert with_provider("auto", "cpu") == "auto"
    assert with_provider("onnxruntime", None) == "onnxruntime"
    assert with_provider("auto", "cuda") == "onnxruntime-cuda"
    assert main([str(artifact), "--backend", "openvino", "--provider", "cuda"]) == EXIT_USAGE
    assert "--provider cuda is ONNX Runtime's" in capsys.readouterr().err


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("builder", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_computes_what_onnx_runtime_does(tmp_path, builder):
    source = tiny_artifact.write_artifact(tmp_path)
    options = BuildOptions(builder=builder)
    try:
        found = find_builder(options)
    except EdgeError as error:
        pytest.skip(str(error))
    here = cuda.find_device().capability
    if here not in (found.offered or (here,)):
        pytest.skip(f"{builder} does not build for {here}")
    made = compile_engine(source, found, replace(options, capabilities=(here,)))
    with OnnxRuntimeSession(source.read_bytes(), "tiny") as other:
        expected = other.run(np.concatenate([LR] * 5))
    with open_session(made.engine) as session:
        many = session.run(np.concatenate([LR] * 5))  # more than the largest batch
        again = [session.run(LR[:2]) for _ in range(3)]  # the second from a graph
    assert np.abs(many - expected).max() < 1e-4
    assert all(np.array_equal(again[0], sr) for sr in again)
    assert check(made.engine).passed


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("provider", GPU_PROVIDERS)
def test_a_provider_computes_what_the_cpu_does(artifact, provider):
    try:
        with open_session(artifact, with_provider("onnxruntime", provider)) as session:
            sr = session.run(LR)
    except EdgeError as error:
        pytest.skip(str(error))
    with open_session(artifact) as session:
        assert np.abs(session.run(LR) - sr).max() < 1e-3
