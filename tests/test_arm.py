"""The INT8 model on an emulated ARM processor, by the real runtime's ARM kernels."""

import shutil

import numpy as np
import onnx
import pytest

import tiny_artifact
from benchmarks import arm
from benchmarks.harness import arm_findings, arm_packages, emulated_arm
from benchmarks.harness.arm_check import (
    DRIFTS,
    FEW_FACES,
    check_command,
    check_file,
    take_few_probes,
)
from benchmarks.harness.arm_faults import _describe, find_faults
from benchmarks.harness.targets import TargetRow, read_rows
from face_tars import ROOT
from quantize.fp16_passes import to_half
from runtime.drift import read_probes
from runtime.errors import EXIT_ERROR, EXIT_MISSING, EdgeError
from runtime.manifest import probes_path

CACHE = emulated_arm.default_folder()  # the user's own: 60 MB are not to be brought for each run


@pytest.fixture(scope="module")
def neoverse():
    """A processor with dot products and FP16 arithmetic; brought once, then from the cache."""
    if not shutil.which(arm_packages.QEMU):
        pytest.skip(f"{arm_packages.QEMU} is not installed: apt-get install qemu-user-static")
    try:
        return emulated_arm.bring_arm("neoverse-n1", CACHE)
    except EdgeError as error:
        if error.status != EXIT_MISSING:
            raise
        pytest.skip(str(error))


def test_int8_is_right_on_arm_and_fp16_arithmetic_is_refused(neoverse, edge_int8, tmp_path):
    row = check_file(neoverse, edge_int8, ROOT, tmp_path, few=True)
    assert row.not_run is None
    assert row.fidelity_db > 50
    assert row.precision.startswith("int8, 9")
    assert row.ran_on.startswith("QEMU ")
    half = to_half(onnx.load_model_from_string(tiny_artifact.build())).SerializeToString()
    path = tiny_artifact.write_artifact(
        tmp_path / "tiny", "fp16-trt.onnx", half, precision="fp16", executes_as="fp16"
    )
    row = check_file(neoverse, path, ROOT, tmp_path)
    assert row.not_run.startswith("it computes in FP16, which ONNX Runtime")
    assert row.fidelity_db is None


def test_the_fp16_kernels_are_refused_as_long_as_they_are_wrong(neoverse, tmp_path):
    """When this fails, ONNX Runtime has mended them: LAST_WRONG_FP16_ON_ARM stays where it is."""
    faults = {fault.graph: fault.fault for fault in find_faults(neoverse, tmp_path)}
    assert "AveragePool(19)" in faults["average pooling"]
    assert faults["grouped convolution"].startswith("channels 4, 5, 6, 7 of 8 are wrong")
    assert faults["dense convolution"] is None


def test_a_few_probes_are_the_first_faces_and_the_last_stress_probes(artifact, tmp_path):
    copied = take_few_probes(artifact, tmp_path / "few")
    all_probes, few = read_probes(probes_path(artifact)), read_probes(probes_path(copied))
    assert few.faces == FEW_FACES
    assert few.names == (*all_probes.names[:3], *all_probes.names[-2:])
    assert copied.read_bytes() == artifact.read_bytes()


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("no kernel for X (node:'1')", "does not open: no kernel for X"),
        ([[[[1.0]], [[2.0]]]], None),
        ([[[[1.0]], [[1.5]]]], "channels 1 of 2 are wrong, by up to 25%"),
    ],
)
def test_what_a_graph_made_is_compared_channel_by_channel(said, expected):
    assert _describe(said, np.array([[[[1.0]], [[2.0]]]], np.float32)) == expected


def nothing_is_installed(monkeypatch):
    monkeypatch.setenv("PATH", "/nonexistent")


def not_debian(monkeypatch):
    monkeypatch.setattr(arm_packages, "SOURCES", ())


@pytest.mark.parametrize(
    ("spoil", "bring", "message"),
    [
        (
            nothing_is_installed,
            lambda folder: arm_packages.bring_qemu(),
            "as root: apt-get install",
        ),
        (not_debian, arm_packages.bring_userland, "this is no Debian"),
    ],
)
def test_what_cannot_be_brought_is_named_and_leaves_nothing(
    monkeypatch, tmp_path, spoil, bring, message
):
    spoil(monkeypatch)
    with pytest.raises(EdgeError, match=message) as caught:
        bring(tmp_path / "arm64")
    assert caught.value.status == EXIT_MISSING
    assert not (tmp_path / "arm64").exists()


@pytest.mark.skipif(not shutil.which("apt-get"), reason="apt-get is not installed")
def test_an_archive_that_does_not_answer_is_named_and_leaves_nothing(monkeypatch, tmp_path):
    sources = tmp_path / "debian.sources"
    sources.write_text(
        "Types: deb\nURIs: http://127.0.0.1:9/debian\nSuites: none\nComponents: main\n"
    )
    monkeypatch.setattr(arm_packages, "SOURCES", (sources,))
    with pytest.raises(
        EdgeError, match="Debian's Python for arm64: could not be brought"
    ) as caught:
        arm_packages.bring_userland(tmp_path / "arm64")
    assert caught.value.status == EXIT_MISSING
    assert list((tmp_path / "arm64").iterdir()) == []


def test_a_folder_without_artifacts_is_named(tmp_path, capsys):
    assert arm.main(["--artifact", str(tmp_path)]) == EXIT_ERROR
    assert "holds none of int8.onnx" in capsys.readouterr().err


def test_a_run_that_was_stopped_goes_on_and_one_of_other_files_begins_anew(
    artifact, tmp_path, monkeypatch, capsys
):
    """Nothing is emulated: what each call would check is written down."""
    checked = []

    def check(arm, path, code, work, *, few):
        checked.append(f"{arm} {path.name}")
        if len(checked) == 3:
            raise EdgeError("stopped")
        return TargetRow(
            "ONNX Runtime", path.name, 1, "fp32", 90.0, 90.0, 90.0, "QEMU",
            check_command(arm, path.name),
        )  # fmt: skip

    monkeypatch.setattr(arm_findings, "bring_arm", lambda cpu: cpu)
    monkeypatch.setattr(arm_findings, "check_file", check)
    monkeypatch.setattr(arm_findings, "find_wheel", lambda: None)
    shutil.copy(artifact, artifact.with_name("int8-trt.onnx"))
    arguments = ["--artifact", str(artifact.parent), "--out", str(tmp_path / "arm.json")]
    assert arm.main(arguments) == EXIT_ERROR
    assert arm.main([*arguments, "--resume"]) == 0
    whole = ["cortex-a72 fp32.onnx", "cortex-a72 int8-trt.onnx", "neoverse-n1 int8-trt.onnx"]
    assert checked == [*whole, "neoverse-n1 int8-trt.onnx", "max,sve=off int8-trt.onnx"]
    assert len(read_rows(tmp_path / "arm.json")) == 4
    artifact.with_name("int8-trt.onnx").write_bytes(b"another")
    assert arm.main([*arguments, "--resume"]) == 0
    assert len(checked) == 9
    assert "nothing to go on from" in capsys.readouterr().err


def test_what_was_measured_is_within_its_limits_on_every_processor():
    rows = read_rows(ROOT / arm.OUT)
    assert {row.file for row in rows} >= {"aminet-edge/int8.onnx", "aminet-edge/fp16.onnx"}
    assert not [row.file for row in rows if row.precision.endswith(DRIFTS)]
