"""The released aminet-edge against its stored baseline, where this kind of processor has one."""

import pytest

from benchmarks import baseline, regress
from face_tars import ROOT
from quantize.int8 import quantize
from quantize.targets import parse_targets

WEIGHTS = ROOT / "aminet" / "weights" / "aminet-edge.safetensors"

pytestmark = pytest.mark.skipif(not WEIGHTS.is_file(), reason=f"{WEIGHTS} is not there")


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
        patch.setattr(regress, "SECONDS", 0.3)
        return regress.regress(paths, wide=True)


def test_nothing_became_worse(report, capsys):
    with capsys.disabled():
        print("\n" + "\n".join(report.notes or [f"as in {report.key}"]))  # noqa: T201
    assert [one.line for one in report.regressions if one.kind == "worse"] == []


def test_nothing_became_far_slower(report, capsys):
    """A report; it fails only beyond what a busy machine explains."""
    if not report.speeds:
        pytest.skip(f"nothing to compare with for {report.key}: {'; '.join(report.notes)}")
    then = {speed.name: speed.ratio_to_eager for speed in baseline.read(report.key).speeds}
    with capsys.disabled():
        for speed in report.speeds:
            print(  # noqa: T201
                f"\n{speed.name}: {speed.ratio_to_eager:.2f} times as fast as torch eager,"
                f" was {then[speed.name]:.2f}",
                end="",
            )
    assert [one.line for one in report.regressions if one.kind == "slower"] == []
