"""The defaults of quantize, its options, and what quantize.fp16 reports; imports no library."""

from dataclasses import dataclass
from pathlib import Path

from runtime.session import DEFAULT_MODEL

ARTIFACT = Path("artifacts", DEFAULT_MODEL, "fp32.onnx")
CALIBRATION = Path("calib_data")
FP16_FILES = {"cpu": "fp16.onnx", "tensorrt": "fp16-trt.onnx"}
ENGINES = ("native", "nncf")
MINUTES = 10.0
PLOT_SUFFIXES = (".png", ".svg", ".pdf")


@dataclass(frozen=True)
class NetworkOptions:
    """Of another network than AMINet: the side of its images in px where its graph leaves it open,
    its black and white (None: found), and the folder for its artifacts (None: artifacts/<name>).
    """

    side: int | None = None
    range: tuple[float, float] | None = None
    out: Path | None = None


@dataclass(frozen=True)
class Int8Options:
    """`max_drop_db` is the mean's; the worst face may lose five times that; None: the target's own.

    `data`: real faces of 128x128, on which the drift is measured; with `record` it is written into
    the calibration folder, for runs without them. `minutes`: for measuring each
    layer's sensitivity. `engine`: one of ENGINES, or auto, which keeps the better. `force`: a
    calibration set that does not fit the model is taken all the same. `trained_ranges`: a model
    without those of a quantization-aware training is refused.
    """

    max_drop_db: float | None = None
    data: tuple[str, ...] = ()
    record: bool = False
    minutes: float = MINUTES
    require_precision: bool = False
    engine: str = "native"
    force: bool = False
    trained_ranges: bool = False
    network: NetworkOptions = NetworkOptions()


@dataclass(frozen=True)
class Fp16Artifact:
    """One file. The fidelities to FP32 are those of `measured_on`, the backend or its proxy.

    `fp16_sums_fidelity_db` is for hardware that sums in FP16; None where nothing is summed so.
    """

    artifact: str
    target: str
    bytes: int
    fidelity_db: float
    worst_fidelity_db: float
    extremes_fidelity_db: float
    measured_on: str
    fp16_sums_fidelity_db: float | None
    executes_as: str
