"""The processor's features and cores: what Linux says of them, and what follows from it."""

import os
from pathlib import Path

import onnx
import pytest

import tiny_artifact
from quantize.fp16_passes import store_weights_in_half, to_half
from runtime import cpu, diagnosis, doctor
from runtime.backends import onnxruntime
from runtime.errors import EXIT_MISSING, EdgeError

# getauxval(AT_HWCAP) and (AT_HWCAP2), as QEMU's processors have them.
CORTEX_A72 = (0x8FB, 0)
NEOVERSE_N1 = (0x119FFB, 0)
MAX_WITHOUT_SVE = (0xECBFFFFB, 0x76181)
NEOVERSE_CPUINFO = """processor\t: 0
Features\t: fp asimd fphp asimdhp asimddp
CPU implementer\t: 0x41
CPU part\t: 0xd0c
"""


@pytest.fixture
def linux(tmp_path, monkeypatch):
    """A function that puts another machine in the place of this one."""
    caches = (cpu.processor, cpu.cpu_features, cpu._first_core)

    def put(machine="x86_64", cpuinfo="", capabilities=None, cgroup="", files=()):
        (tmp_path / "cpuinfo").write_text(cpuinfo)
        (tmp_path / "own").write_text(cgroup)
        for name, text in dict(files).items():
            path = tmp_path / "cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        monkeypatch.setattr(cpu.platform, "machine", lambda: machine)
        monkeypatch.setattr(cpu.platform, "processor", lambda: "")
        monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
        monkeypatch.setattr(cpu, "OWN_CGROUP", tmp_path / "own")
        monkeypatch.setattr(cpu, "CGROUPS", tmp_path / "cgroup")
        monkeypatch.setattr(cpu, "_arm_capabilities", lambda: capabilities)
        for cache in caches:
            cache.cache_clear()

    yield put
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        (CORTEX_A72, set()),
        (NEOVERSE_N1, {"asimddp", "fphp", "asimdhp"}),
        (MAX_WITHOUT_SVE, {"asimddp", "fphp", "asimdhp", "i8mm", "bf16"}),
        ((1 << 22, 0), {"sve"}),
    ],
    ids=["cortex-a72", "neoverse-n1", "max,sve=off", "sve alone"],
)
def test_an_arm_processor_s_features_are_in_its_capabilities(capabilities, expected):
    assert cpu.arm_features(*capabilities) == expected


def test_an_emulated_processor_is_not_the_host_whose_cpuinfo_is_seen(linux):
    linux("aarch64", cpuinfo="model name\t: AMD EPYC\nflags\t: avx2", capabilities=NEOVERSE_N1)
    assert cpu.cpu_features() == {"asimddp", "fphp", "asimdhp"}


def test_an_arm_processor_is_named_by_its_numbers(linux):
    linux("aarch64", NEOVERSE_CPUINFO)
    assert cpu.processor() == "aarch64 0x41 0xd0c (asimddp fphp asimdhp)"


@pytest.mark.parametrize("machine", ["arm64", "x86_64"])
def test_features_that_cannot_be_known_are_unknown_and_not_absent(linux, machine, tmp_path):
    linux(machine)
    assert cpu.cpu_features() is None
    assert cpu.processor() == machine
    report = diagnosis.examine(str(tmp_path))
    assert set(report.features.values()) == {None}
    assert "unknown whether it has" in "\n".join(doctor._lines(report))
    assert any("does not say what the processor has" in line for line in report.advice)


@pytest.mark.parametrize(
    ("machine", "capabilities", "advised", "not_advised"),
    [
        ("aarch64", CORTEX_A72, "no 8-bit dot products (asimddp)", "computes in FP16"),
        ("aarch64", NEOVERSE_N1, "take fp16.onnx", "no 8-bit dot products"),
        ("x86_64", None, "no 8-bit dot products (VNNI)", "computes in FP16"),
    ],
)
def test_doctor_advises_by_the_features(
    linux, machine, capabilities, advised, not_advised, tmp_path
):
    linux(machine, "flags\t: avx2", capabilities)
    advice = "\n".join(diagnosis.examine(str(tmp_path)).advice)
    assert advised in advice
    assert not_advised not in advice


FP32 = tiny_artifact.build()
HALF = to_half(onnx.load_model_from_string(FP32)).SerializeToString()
STORED = store_weights_in_half(onnx.load_model_from_string(FP32)).SerializeToString()


@pytest.mark.parametrize(
    ("machine", "capabilities", "refused"),
    [
        ("x86_64", None, False),
        ("aarch64", CORTEX_A72, False),
        ("aarch64", NEOVERSE_N1, True),
        ("arm64", None, True),  # unknown: it may have FP16 arithmetic
    ],
)
def test_fp16_arithmetic_in_onnx_runtime_on_arm_is_refused(linux, machine, capabilities, refused):
    linux(machine, capabilities=capabilities)
    for opening in (onnxruntime.OnnxRuntimeSession, onnxruntime.optimize):
        for sound in (FP32, STORED):
            assert opening(sound, "a.onnx")
        if not refused:
            assert opening(HALF, "fp16-trt.onnx")
            continue
        with pytest.raises(EdgeError, match=r"^fp16-trt\.onnx: .* take fp16\.onnx") as caught:
            opening(HALF, "fp16-trt.onnx")
        assert caught.value.status == EXIT_MISSING


@pytest.mark.parametrize(
    ("version", "refused"),
    [("1.18.0", True), ("1.31.1", True), ("1.32.0", False), ("2.0.0.dev1", False)],
)
def test_of_a_later_onnx_runtime_the_probes_tell(linux, version, refused):
    linux("aarch64", capabilities=NEOVERSE_N1)
    assert bool(onnxruntime.fp16_fault(HALF, version)) == refused


V2 = "0::/a/b\n"
V1 = "4:memory:/\n3:cpu,cpuacct:/a\n"
QUARTER = {"cpu/a/cpu.cfs_quota_us": "25000", "cpu/a/cpu.cfs_period_us": "100000"}


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("", {}, 8),
        (V2, {"a/b/cpu.max": "max 100000"}, 8),
        (V2, {"a/b/cpu.max": "200000 100000"}, 2),
        (V2, {"a/b/cpu.max": "150000 100000"}, 2),
        (V2, {"a/b/cpu.max": "max 100000", "a/cpu.max": "100000 100000"}, 1),
        (V2, {"cpu.max": "300000 100000"}, 3),  # in a container, its own is the root
        (V2, {"a/b/cpu.max": "900000 100000"}, 8),
        (V2, {"a/b/cpu.max": "rubbish"}, 8),
        (V1, QUARTER, 1),
        (V1, {**QUARTER, "cpu/a/cpu.cfs_quota_us": "-1"}, 8),
    ],
)
def test_usable_cores_respect_the_affinity_and_a_quota(linux, monkeypatch, cgroup, files, expected):
    linux(cgroup=cgroup, files=files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)), raising=False)
    assert cpu.usable_cores() == expected


@pytest.mark.skipif(not Path("/proc/self/cgroup").exists(), reason="no Linux")
def test_usable_cores_here_are_at_most_those_of_the_affinity():
    assert 1 <= cpu.usable_cores() <= len(os.sched_getaffinity(0))
