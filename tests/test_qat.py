"""Quantization-aware training: the ranges that it finds are those of the INT8 files."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from aminet.checkpoint import build_model, load_checkpoint, save_checkpoint
from aminet.train import train
from aminet.training import net2net
from aminet.training.data import contrast_half
from aminet.training.options import TrainOptions, parse
from aminet.training.qat import QuantizationAware
from aminet.training.rounding import CPU, OPENVINO, TENSORRT, Rounding, round_weight
from aminet.training.weight_average import average
from benchmarks.studies import real_faces
from export import exporter
from export.exporter import export
from quantize import int8
from quantize.calibration import read_calibration
from quantize.engines.native import NativeEngine
from quantize.options import Int8Options
from quantize.qdq import Range, quantize_weight
from quantize.ranges import write_ranges
from quantize.source import read_source
from quantize.targets import TARGETS
from quantize.trained_ranges import read_trained_ranges
from runtime.activation_ranges import METADATA, Channels, read_range_file, write_range_file
from runtime.errors import EXIT_USAGE, EdgeError
from runtime.image import mse_y, psnr_of_mse, to_pixels, to_tensor
from runtime.manifest import read_manifest
from tiny_networks import BATCHED, traced
from tiny_training import tiny_options, write_disks

GRIDS = {"cpu": CPU, "openvino": OPENVINO, "tensorrt": TENSORRT}


@pytest.fixture(scope="module")
def folder(tiny_model, tmp_path_factory) -> Path:
    """A tiny model's checkpoint, fp32.onnx, faces and ranges.json, and images to train on."""
    folder = tmp_path_factory.mktemp("qat")
    for path in tiny_model.iterdir():
        if path.suffix == ".png" or path.name.startswith(("checkpoint", "fp32", "probes")):
            (folder / path.name).write_bytes(path.read_bytes())
    made = write_ranges(folder / "fp32.onnx", [folder / "face-*.png"])
    assert made.layers == len(read_source(folder / "fp32.onnx").layers)
    (folder / "faces").mkdir()
    write_disks(folder / "faces", 8)
    return folder


def options_of(folder: Path, out: Path) -> TrainOptions:
    return replace(
        tiny_options(folder / "faces", out),
        steps=2,
        qat=True,
        amp=False,
        optimizer="adam",
        rate=3e-4,
        ema=0.0,
        init=folder / "checkpoint.safetensors",
        ranges=folder / "ranges.json",
    )


def traced_with(module: torch.nn.Module) -> onnx.ModelProto:
    """The tiny network's graph, traced once a run, with the weights of this one."""
    model, state = traced(BATCHED), module.state_dict()
    for tensor in model.graph.initializer:
        if tensor.name in state:
            array = state[tensor.name].numpy()
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


@pytest.fixture(scope="module")
def trained(folder) -> Path:
    """A folder with best.safetensors of two steps, its fp32.onnx and int8 files."""
    out = folder / "run"
    assert train(options_of(folder, out), BATCHED).steps == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "trace", traced_with)
        export(checkpoint=out / "best.safetensors")
    return out


def start_of(folder: Path) -> QuantizationAware:
    checkpoint = load_checkpoint(folder / "checkpoint.safetensors")
    return QuantizationAware(
        build_model(checkpoint), read_range_file(folder / "ranges.json")
    ).eval()


def test_trained_ranges_are_those_of_the_int8_files(folder, trained):
    ranges = load_checkpoint(trained / "best.safetensors").ranges
    assert ranges is not None
    start = read_range_file(folder / "ranges.json").ranges
    assert ranges.layers == start.layers
    assert ranges.ranges != start.ranges
    options = Int8Options(max_drop_db=10, minutes=0, trained_ranges=True, force=True)
    made = int8.quantize(
        trained / "fp32.onnx",
        [folder / "face-*.png"],
        [TARGETS["cpu"], TARGETS["tensorrt"]],
        options,
    )
    assert made.failures == ()
    assert any("trained" in note for note in made.notes)
    source = read_source(trained / "fp32.onnx")
    for file, signed in (("int8.onnx", False), ("int8-trt.onnx", True)):
        graph = onnx.load(trained / file)
        assert METADATA not in {entry.key for entry in graph.metadata_props}
        constants = {t.name: numpy_helper.to_array(t) for t in graph.graph.initializer}
        for layer in source.layers:
            reads, _ = ranges.layers[layer.name]
            scale, zero_point = Range(*ranges.ranges[reads]).parameters(signed)
            name = f"{layer.input}_scaled" if reads in ranges.factors else layer.input
            assert constants[f"{name}_scale"] == scale
            assert constants[f"{name}_zero_point"] == zero_point
    drift = real_faces.drift([str(folder / "faces")], trained, [str(folder / "faces")])
    assert {row.calibrated_with for row in drift} == {real_faces.TRAINED}


def test_nncf_finds_its_own_ranges_and_says_so(folder, trained, tmp_path):
    pytest.importorskip("nncf")
    for file in ("fp32.onnx", "fp32.onnx.json", "probes.npz"):
        (tmp_path / file).write_bytes((trained / file).read_bytes())
    options = Int8Options(max_drop_db=10, engine="nncf", force=True)
    made = int8.quantize(
        tmp_path / "fp32.onnx", [folder / "face-*.png"], [TARGETS["tensorrt"]], options
    )
    assert made.notes[0] == (
        "the trained ranges are left out: nncf finds its own on the calibration set"
    )
    assert read_manifest(Path(made.artifacts[0].artifact)).flags["ranges"] == "calibrated"


@pytest.mark.parametrize("target", GRIDS)
def test_training_computes_as_the_file_will(target, folder):
    aware, source = start_of(folder), read_source(folder / "fp32.onnx")
    calibration = read_calibration([folder / "face-*.png"])
    engine, lr = NativeEngine(source, calibration.faces), to_tensor(calibration.held_out)
    content = source.serialize(engine.quantize(source.layers, TARGETS[target]))
    with source.open(content) as runner, torch.inference_mode(), aware.on(GRIDS[target]):
        sr, expected = aware(torch.from_numpy(lr)).numpy(), runner.run(lr)
    assert psnr_of_mse(mse_y(to_pixels(sr), to_pixels(expected)).mean()) > 50


@torch.inference_mode()
def test_each_third_step_is_in_full_precision(folder):
    """So that FP32 keeps its quality: the folded network is the one that it was."""
    aware, lr = start_of(folder), torch.rand(2, 3, 16, 16)
    exact = []
    with aware.on(None):
        expected = aware(lr)
        for step in range(6):
            aware.select(step)
            exact.append(torch.equal(aware(lr), expected))
    assert exact == [False, False, True] * 2


@torch.inference_mode()
def test_folded_and_equalized_it_is_the_same_network(folder):
    aware, lr = start_of(folder), torch.rand(2, 3, 16, 16)
    plain = build_model(load_checkpoint(folder / "checkpoint.safetensors"))
    expected = plain(lr)
    with aware.on(None):
        assert torch.allclose(aware(lr), expected, atol=1e-4)
    plain.load_state_dict(aware.plain_state())
    assert torch.allclose(plain(lr), expected, atol=1e-4)


@torch.inference_mode()
def test_the_fixed_transform_of_a_larger_input_keeps_its_channels(tiny_model_64, tmp_path):
    """Its kernels are no weights, in which the factors of its channels would be kept."""
    fp32, faces = tiny_model_64 / "fp32.onnx", tiny_model_64 / "face-*.png"
    written = write_ranges(fp32, [faces], out=tmp_path / "ranges.json")
    start = read_range_file(Path(written.ranges))
    assert "unshuffle" not in start.channels
    assert start.channels
    network = build_model(load_checkpoint(tiny_model_64 / "checkpoint.safetensors"))
    lr = torch.rand(1, 3, 64, 64)
    expected = network(lr)
    aware = QuantizationAware(network, start)
    with aware.on(None):
        torch.testing.assert_close(aware(lr), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("low", "high", "signed", "expected"),
    [
        (0.0, 2.55, False, [0.0, 0.0, 1.0, 2.55]),
        (-1.0, 1.55, False, [-1.0, 0.0, 1.0, 1.55]),
        (-1.0, 1.27, True, [-1.28, 0.0, 1.0, 1.27]),
    ],
)
def test_rounding_clips_to_the_levels_of_the_range(low, high, signed, expected):
    x = torch.tensor([-5.0, 0.001, 1.003, 9.0], requires_grad=True)
    ends = [torch.tensor(end, requires_grad=True) for end in (low, high)]
    y = Rounding.apply(x, *ends, signed)
    assert y.tolist() == pytest.approx(expected, abs=1e-6)
    (of_x,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
    assert of_x.tolist() == [0, 1, 1, 0]  # straight-through, but for what is clipped
    (of_high,) = torch.autograd.grad(y[3], ends[1])
    assert of_high == 1  # what lies above would gain from a wider range


def test_every_other_face_has_more_contrast():
    faces = torch.rand(4, 3, 16, 16) / 4 + 0.4
    changed = contrast_half(faces, 1.6)
    assert torch.equal(changed[::2], faces[::2])
    assert (changed[1::2].std((1, 2, 3)) > 1.4 * faces[1::2].std((1, 2, 3))).all()


def test_weights_are_rounded_as_quantize_int8_does():
    weight = torch.randn(4, 3, 3, 3)
    levels, scale = quantize_weight(weight.numpy(), 0.0, 127)
    assert np.allclose(round_weight(weight), levels * scale.reshape(-1, 1, 1, 1), atol=1e-6)


def test_a_stopped_training_goes_on(folder, tmp_path):
    options = options_of(folder, tmp_path)
    train(replace(options, steps=1), BATCHED)
    assert train(replace(options, resume=True), BATCHED).steps == 2
    with pytest.raises(EdgeError, match="was trained with --qat, cannot be resumed without it"):
        train(replace(options, resume=True, qat=False, ranges=None), BATCHED)


def edited(source: Path, path: Path, **changes) -> Path:
    write_range_file(path, replace(read_range_file(source), **changes))
    return path


def test_ranges_that_do_not_fit_are_refused(folder, tmp_path):
    good = folder / "ranges.json"
    found = read_range_file(good)
    layers = dict(found.ranges.layers)
    layers["no.such"] = layers.pop(next(iter(layers)))
    damaged = tmp_path / "damaged.json"
    damaged.write_text(good.read_text()[:-9])
    narrow = json.loads(good.read_text())
    narrow["ranges"]["ranges"][next(iter(narrow["ranges"]["ranges"]))] = [1.0, 1.0]
    empty = tmp_path / "narrow.json"
    empty.write_text(json.dumps(narrow))
    refused = {
        tmp_path / "none.json": "not found, and quantization-aware training starts from",
        damaged: "not a file of ranges",
        empty: "not a file of ranges",
        edited(good, tmp_path / "others.json", checkpoint_sha256="0" * 64): "of other weights",
        edited(
            good, tmp_path / "misfit.json", ranges=replace(found.ranges, layers=layers)
        ): "do not fit tiny at no.such",
        edited(
            good,
            tmp_path / "shape.json",
            channels={next(iter(found.channels)): Channels((1.0,), (1.0,), (0,), (0,))},
        ): "do not fit tiny at",
    }
    for path, message in refused.items():
        options = replace(options_of(folder, tmp_path / "run"), ranges=path)
        with pytest.raises(EdgeError, match=message):
            train(options, BATCHED)
    assert not (tmp_path / "run").exists()


def test_paths_that_would_lose_the_ranges_refuse_them(folder, trained, tmp_path):
    best = trained / "best.safetensors"
    with pytest.raises(EdgeError, match="is of quantization-aware training") as refused:
        average([best, best], [str(folder / "faces")], tmp_path / "mean.safetensors")
    assert refused.value.status == EXIT_USAGE
    with pytest.raises(EdgeError, match="ranges of other weights"):  # those of its start
        train(replace(options_of(folder, tmp_path / "run"), init=best), BATCHED)
    for options, file, message in (
        (Int8Options(engine="nncf", trained_ranges=True), trained, "nncf does not take trained"),
        (Int8Options(trained_ranges=True), folder, "carries no trained ranges"),
    ):
        with pytest.raises(EdgeError, match=message) as refused:
            int8.quantize(file / "fp32.onnx", [folder / "face-*.png"], options=options)
        assert refused.value.status == EXIT_USAGE


def test_training_goes_on_from_it(folder, trained, tmp_path, capsys):
    """Plainly, which leaves its ranges behind and says so; and again with ranges found anew."""
    best = trained / "best.safetensors"
    plain = replace(tiny_options(folder / "faces", tmp_path / "plain"), init=best)
    assert load_checkpoint(train(plain, BATCHED).checkpoint).ranges is None
    note = f"train: note: the activation ranges of {best} are left behind; run --qat again"
    assert note in capsys.readouterr().err
    found = write_ranges(
        trained / "fp32.onnx", [folder / "face-*.png"], out=tmp_path / "ranges.json"
    )
    again = replace(
        options_of(folder, tmp_path / "again"), init=best, ranges=Path(found.ranges), teacher=best
    )
    assert load_checkpoint(train(again, BATCHED).checkpoint).ranges is not None
    assert "note:" not in capsys.readouterr().err


def test_another_shape_leaves_its_ranges_behind(folder, trained, tmp_path, monkeypatch):
    monkeypatch.setattr(net2net, "find_config", lambda model: BATCHED)
    out = tmp_path / "morphed.safetensors"
    done = net2net.morph_file(trained / "best.safetensors", "tiny", [str(folder / "faces")], out)
    assert done.endswith("its activation ranges are left behind")
    assert load_checkpoint(out).ranges is None


@torch.no_grad()
def test_its_norms_are_those_of_a_network_in_training(folder):
    """Norms that only keep the values would, over a batch, make something else of them."""
    network = build_model(load_checkpoint(folder / "checkpoint.safetensors"))
    for part in network.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            part.weight.uniform_(0.5, 2)
            part.bias.uniform_(-1, 1)
    lr, plain = torch.rand(8, 3, 16, 16), copy.deepcopy(network)
    expected = copy.deepcopy(network).train()(lr)
    aware = QuantizationAware(network, read_range_file(folder / "ranges.json"))
    aware.channels.log.normal_(0, 0.3)  # as training leaves the channels' factors
    plain.load_state_dict(aware.plain_state())
    torch.testing.assert_close(plain.train()(lr), expected, atol=1e-2, rtol=0)


def test_ranges_of_other_weights_are_refused(folder, trained, tmp_path):
    checkpoint = load_checkpoint(trained / "best.safetensors")
    path = tmp_path / "changed.safetensors"
    save_checkpoint(path, checkpoint.state, BATCHED, name="tiny", ranges=checkpoint.ranges)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1  # of some weight
    path.write_bytes(content)
    with pytest.raises(EdgeError, match="its activation ranges are of other weights"):
        load_checkpoint(path)
    save_checkpoint(
        path, checkpoint.state, BATCHED, name="tiny", dtype=torch.float16, ranges=checkpoint.ranges
    )
    assert load_checkpoint(path).ranges == checkpoint.ranges  # a release rounds weights
    model = onnx.load(trained / "fp32.onnx")
    with pytest.raises(EdgeError, match="its ranges are of other weights"):
        read_trained_ranges(model, "0" * 64, "fp32.onnx")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--ranges r.json", "--ranges needs --qat"),
        ("--qat --compile", "--compile does not go with --qat"),
        ("--qat --freeze-norms --init x", "--freeze-norms does not go with --qat"),
        ("--qat --gan", "--gan does not go with --qat"),
    ],
)
def test_options_that_do_not_go_together_are_refused(words, message):
    with pytest.raises(EdgeError, match=message):
        parse(["--data", "x", "--out", "y", "--steps", "1", *words.split()])


def test_a_sharp_model_learns_of_its_own_outputs():
    """Not by the losses that made it: quantization-aware training keeps what it draws."""
    assert parse(["--data", "x", "--out", "y", "--steps", "1", "--model", "amigan-edge"]).gan
    options = parse(
        ["--data", "x", "--out", "y", "--steps", "1", "--model", "amigan-edge", "--qat"]
    )
    assert options.gan is None


def test_qat_trains_in_float32():
    assert not parse(["--data", "x", "--out", "y", "--steps", "1", "--qat"]).amp
    with pytest.raises(EdgeError, match="--qat needs --no-amp"):
        TrainOptions(data=("x",), out=Path("y"), steps=1, qat=True)
