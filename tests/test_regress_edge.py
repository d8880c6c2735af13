"""The released aminet-edge against its stored baseline, where this kind of processor has one."""

import pytest

from benchmarks import baseline, regression
from face_tars import ROOT
from quantize.int8 import quantize
from quantize.targets import parse_targets

WEIGHTS = ROOT / "aminet" / "weights" / "aminet-edge.safetensors"

pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS} not found")


@pytest.fixture(scope="module")
def paths(edge_artifact):
    """fp32.onnx and int8.onnx as `make demo` makes them; another test may have done so already."""
    int8 = edge_artifact.with_name("int8.onnx")
    if not int8.is_file():
        quantize(edge_artifact, [ROOT / "calib_data"], parse_targets("cpu,openvino"))
    return [edge_artifact, int8]


@pytest.fixture(scope="module")
def report(paths):
    """Accuracy, and, where there is a baseline, speed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(regression, "SECONDS", 0.3)
        return regression.find_regressions(paths, wide=True)


def test_nothing_became_worse(report, capsys):
    with capsys.disabled():
        print("\n" + "\n".join(report.notes or [f"compared with {report.key}"]))  # noqa: T201
    assert [one.line for one in report.regressions if one.kind == "worse"] == []


def test_nothing_became_far_slower(report, capsys):
    """Fails for what takes twice as long on an idle machine; a busy one is reported as skipped."""
    assert [one.line for one in report.regressions if one.kind == "slower"] == []
    if report.not_comparable:
        pytest.skip("; ".join(report.not_comparable))
    if not report.speeds:
        pytest.skip(f"nothing to compare with for {report.key}: {'; '.join(report.notes)}")
    then = {speed.name: speed.speedup_vs_eager for speed in baseline.read(report.key).speeds}
    with capsys.disabled():
        for speed in report.speeds:
            print(  # noqa: T201
                f"\n{speed.name}: {speed.speedup_vs_eager:.2f} times as fast as torch eager,"
                f" was {then[speed.name]:.2f}",
                end="",
            )
