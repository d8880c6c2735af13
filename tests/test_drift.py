"""The drift formulas, and the faults that the probes are there to catch."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import tiny_artifact
from runtime import drift
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.drift import Fidelity, Limit
from runtime.errors import EdgeError
from runtime.image import PSNR_CAP_DB
from runtime.manifest import probes_path, read_manifest
from tiny_artifact import FP32, INT8

PROBES = tiny_artifact.make_probes()
EDGE_WEIGHTS = Path(__file__).parent.parent / "aminet" / "weights" / "aminet-edge.safetensors"


def save(path, **arrays):
    """A probes.npz with some of its arrays replaced, and its path."""
    names = np.array(PROBES.names)
    fitting = {"lr": PROBES.lr, "sr": PROBES.sr, "names": names, "faces": PROBES.faces}
    np.savez_compressed(path, **{**fitting, **arrays})
    return path


def measure(model):
    with OnnxRuntimeSession(model, "tiny") as session:
        return drift.measure(session.run, PROBES)


def test_what_is_taken_for_an_unknown_quality_is_that_of_the_input_size(tmp_path):
    unknown = replace(read_manifest(tiny_artifact.write_artifact(tmp_path)), psnr_y=None)
    assert drift.budget_psnr_y(replace(unknown, psnr_y=29.5)) == 29.5
    assert drift.budget_psnr_y(unknown) == 27
    larger = replace(unknown, lr_side=64)
    assert drift.budget_psnr_y(larger) == 32
    assert drift.limit(larger, "x").fidelity_db > drift.limit(unknown, "x").fidelity_db + 4


def test_budget_of_27_db_and_a_drop_of_3_hundredths():
    assert drift.budget_fidelity_db(27, 0.03) == pytest.approx(48.6, abs=0.02)
    assert pytest.approx(drift.budget_fidelity_db(27, 0.03), abs=0.02) == drift.BUDGET_DB


def test_expected_drift_is_the_budget_turned_around():
    for max_drop_db in (0.01, 0.03, 0.3):
        fidelity_db = drift.budget_fidelity_db(25.5, max_drop_db)
        assert drift.expected_drift_db(25.5, fidelity_db) == pytest.approx(max_drop_db)


def test_fidelity_is_of_the_mean_error_not_of_the_mean_db():
    sr = PROBES.sr.astype(np.float64).transpose(0, 3, 1, 2) / 255
    sr[0] = np.clip(sr[0] - 20 / 255, 0, 1)
    fidelity = drift.compare(sr, PROBES.sr, PROBES.faces)
    assert fidelity.extremes_fidelity_db == PSNR_CAP_DB
    twelve_to_one_db = 10 * np.log10(12)
    assert fidelity.fidelity_db - fidelity.worst_fidelity_db == pytest.approx(twelve_to_one_db)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_one_number_that_is_not_finite_fails(number):
    sr = np.zeros((18, 3, 128, 128), np.float32)
    sr[17, 2, 5, 5] = number
    fidelity = drift.compare(sr, PROBES.sr, PROBES.faces)
    assert fidelity == Fidelity(0, 0, 0, finite=False)
    assert not Limit(-1, -1).allows(fidelity)


def limits(psnr_y, *measurements):
    """The limit in onnxruntime for fidelities (faces, extremes) measured in backends."""
    measured_on = tuple(
        tiny_artifact.Measurement(backend, "1", "a processor", faces, faces, extremes)
        for backend, faces, extremes in measurements
    )
    manifest = tiny_artifact.Manifest(
        "m", "int8", "cpu", *["0" * 64] * 3, "int8", psnr_y=psnr_y, measured_on=measured_on
    )
    limit = drift.limit(manifest, "onnxruntime")
    return round(limit.fidelity_db, 1), round(limit.extremes_fidelity_db, 1)


@pytest.mark.parametrize(
    ("psnr_y", "measurements", "expected"),
    [
        (27, [], (48.6, 36.6)),
        (None, [], (48.6, 36.6)),
        (27, [("openvino", 60, 60)], (48.6, 36.6)),
        (27, [("onnxruntime", 55, 50)], (53, 48)),
        (27, [("onnxruntime", 49, 40)], (48.6, 38)),
        (27, [("onnxruntime", 100, 95)], (80, 80)),
        (27, [("onnxruntime", 55, 50), ("onnxruntime", 54, 52)], (52, 48)),
    ],
)
def test_limit_is_the_budget_or_what_was_measured_less_2_db(psnr_y, measurements, expected):
    assert limits(psnr_y, *measurements) == expected


def test_extremes_count():
    limit = Limit(50, 40)
    assert limit.allows(Fidelity(50, 0, 40))
    assert not limit.allows(Fidelity(49.9, 0, 40))
    assert not limit.allows(Fidelity(50, 0, 39.9))


def test_probes_are_read_as_they_were_written(tmp_path):
    drift.write_probes(tmp_path / "probes.npz", PROBES)
    again = drift.read_probes(tmp_path / "probes.npz")
    assert np.array_equal(again.lr, PROBES.lr)
    assert np.array_equal(again.sr, PROBES.sr)
    assert (again.names, again.faces) == (PROBES.names, PROBES.faces)


def test_probes_are_the_same_bytes_each_time(tmp_path):
    for name in ("a.npz", "b.npz"):
        drift.write_probes(tmp_path / name, PROBES)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"lr": PROBES.lr[:5]}, r"lr is uint8 \(5, 16, 16, 3\), expected uint8 \(18, 16, 16, 3\)"),
        ({"sr": PROBES.sr.astype(np.float32)}, "sr is float32"),
        ({"faces": 18}, "18 faces of 18 probes"),
        ({"faces": "all"}, "invalid literal"),
        ({"names": np.array([{}], object)}, "allow_pickle"),
    ],
)
def test_what_are_no_probes_is_named(tmp_path, arrays, problem):
    with pytest.raises(EdgeError, match=rf"probes\.npz: damaged, or no probes .*{problem}"):
        drift.read_probes(save(tmp_path / "probes.npz", **arrays))


def test_probes_that_unpack_to_gigabytes_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "probes.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("lr.npy", bytes(drift.MAX_PROBES_BYTES + 1))
    with pytest.raises(EdgeError, match="bytes unpacked"):
        drift.read_probes(tmp_path / "probes.npz")


def test_damaged_probes_are_named():
    stream = io.BytesIO()
    save(stream)
    data = stream.getvalue()
    for length in (0, 10, len(data) // 2, len(data) - 1):
        with pytest.raises(EdgeError, match="cut: damaged, or no probes"):
            drift.decode_probes(data[:length], "cut")


def changed(initializers, **changes):
    """Initializers with some of them changed by a function."""
    return {**initializers, **{k: change(initializers[k]) for k, change in changes.items()}}


def double_channel(channel):
    factors = np.ones(16, np.float32)
    factors[channel] = 2
    return lambda scale: scale * factors


WEIGHTS, QUANTIZED = tiny_artifact.weights(), tiny_artifact.quantized_weights()
# What goes wrong on the way to a device: (graph, initializers).
FAULTS = {
    "uint8 scales read as int8": (INT8, changed(QUANTIZED, feature_zero=np.int8)),
    **{
        f"scale of channel {channel} doubled": (
            INT8,
            changed(QUANTIZED, embed_scale=double_channel(channel)),
        )
        for channel in range(16)
    },
    "local branch zeroed": (FP32, changed(WEIGHTS, local_weight=np.zeros_like)),
    "global branch zeroed": (FP32, changed(WEIGHTS, global_weight=np.zeros_like)),
    "red and blue swapped": (FP32, changed(WEIGHTS, embed=lambda w: w[:, ::-1])),
    "pixel shuffle in another order": (FP32.replace("CRD", "DCR"), WEIGHTS),
    "another bicubic": (FP32.replace("-0.75", "-0.5"), WEIGHTS),
    "constant output": (FP32, changed(WEIGHTS, embed_bias=lambda b: b * np.float32("nan"))),
}


@pytest.fixture(scope="module")
def sound_limits(tmp_path_factory):
    """The limit of the sound network in FP32 and in INT8, each measured here."""
    limits = {}
    for text, initializers in ((FP32, WEIGHTS), (INT8, QUANTIZED)):
        model = tiny_artifact.build(text, initializers)
        folder = tmp_path_factory.mktemp("sound")
        measured_on = (tiny_artifact.measured(model, PROBES),)
        path = tiny_artifact.write_artifact(folder, model=model, measured_on=measured_on)
        limits[text] = drift.limit(read_manifest(path), "onnxruntime")
    return limits


def test_sound_networks_pass(sound_limits):
    assert sound_limits[FP32].allows(measure(tiny_artifact.build(FP32, WEIGHTS)))
    assert sound_limits[INT8].allows(measure(tiny_artifact.build(INT8, QUANTIZED)))
    assert sound_limits[INT8].fidelity_db > drift.BUDGET_DB


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_are_caught_by_the_probes(fault, sound_limits):
    text, initializers = FAULTS[fault]
    limit = sound_limits[INT8 if text == INT8 else FP32]
    assert not limit.allows(measure(tiny_artifact.build(text, initializers)))


def zeroed(weights):
    return np.zeros_like(weights)


def with_its_strongest_channel_doubled(weights):
    doubled = weights.copy()
    doubled[np.abs(weights).sum(axis=(1, 2, 3)).argmax()] *= 2
    return doubled


@pytest.mark.parametrize("plant", [zeroed, with_its_strongest_channel_doubled])
@pytest.mark.skipif(not EDGE_WEIGHTS.exists(), reason="no weights yet; random ones hide faults")
def test_faults_planted_in_aminet_edge_are_caught(plant, edge_artifact):
    """In every sixth convolution of the encoder and the decoder."""
    model = onnx.load(edge_artifact)
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    inputs = [node.input[1] for node in model.graph.node if node.op_type == "Conv"]
    probes = drift.read_probes(probes_path(edge_artifact))
    limit = drift.limit(read_manifest(edge_artifact), "onnxruntime")
    missed = []
    for name in [n for n in inputs if n in weights and n.startswith(("encoders", "decoders"))][::6]:
        sound = numpy_helper.to_array(weights[name])
        weights[name].CopyFrom(numpy_helper.from_array(plant(sound), name))
        with OnnxRuntimeSession(model.SerializeToString(), "faulty") as session:
            if limit.allows(drift.measure(session.run, probes)):
                missed.append(name)
        weights[name].CopyFrom(numpy_helper.from_array(sound, name))
    assert not missed


def test_swapped_channels_are_caught_at_both_ends():
    """A runtime that takes BGR for RGB: the network is sound, what it is given is not."""
    with OnnxRuntimeSession(tiny_artifact.build(), "tiny") as session:
        swapped = drift.measure(lambda lr: session.run(lr[:, ::-1])[:, ::-1], PROBES)
    assert swapped.fidelity_db < drift.BUDGET_DB


def test_a_batch_that_runs_otherwise_than_single_faces_is_caught(sound_limits):
    with OnnxRuntimeSession(tiny_artifact.build(), "tiny") as session:
        fidelity = drift.measure(lambda lr: np.repeat(session.run(lr)[:1], len(lr), 0), PROBES)
    assert fidelity.fidelity_db == PSNR_CAP_DB
    assert not sound_limits[FP32].allows(fidelity)


def test_limits_do_not_outlive_their_manifest():
    manifest = tiny_artifact.Manifest("m", "int8", "cpu", *["0" * 64] * 3, "int8", psnr_y=27.0)
    looser = replace(manifest, max_drop_db=0.3)
    assert drift.limit(looser, "x").fidelity_db < drift.limit(manifest, "x").fidelity_db
