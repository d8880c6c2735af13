"""The export: what it writes is the contract, equals torch and is whole, or nothing is written."""

import errno
import json
import os
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from aminet import checkpoint
from aminet.blocks import ChannelLayerNorm, Hourglass
from aminet.config import ABLATIONS, MODELS
from export import exporter
from export.contract import OPSET
from export.exporter import export
from export.onnx import main
from runtime.atomic import sha256_file
from runtime.backends.onnxruntime import OnnxRuntimeSession
from runtime.drift import read_probes
from runtime.errors import EXIT_DRIFT, EXIT_ERROR, EXIT_USAGE, EdgeError
from runtime.manifest import manifest_path, probes_path, read_manifest
from runtime.session import open_session
from tiny_networks import BATCHED, LAYERED, network, traced, write_checkpoint

ROOT = Path(__file__).parent.parent


def trace_before(network):
    """In place of export.exporter.trace, which takes seconds, for networks of tiny_networks."""
    return traced(network.config)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The result of exporting a checkpoint; not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    weights = write_checkpoint(folder / "tiny.safetensors", LAYERED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exporter, "trace", trace_before)
        return export(checkpoint=weights, out=folder / "tiny" / "fp32.onnx")


@pytest.fixture
def old(exported, tmp_path):
    """A good artifact with manifest and probes, where another one is about to be written."""
    shutil.copytree(Path(exported.artifact).parent, tmp_path / "old")
    return tmp_path / "old" / "fp32.onnx"


@pytest.fixture
def new(tmp_path, monkeypatch):
    """A checkpoint of another network; its graph was traced before."""
    monkeypatch.setattr(exporter, "trace", trace_before)
    return write_checkpoint(tmp_path / "new.safetensors", BATCHED, psnr_y=None)


def content(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def graph_of(result):
    return onnx.load(result.artifact).graph


def operators(graph):
    return Counter(node.op_type for node in graph.node)


# What is written


def test_the_artifact_is_of_the_contract(exported):
    model = onnx.load(exported.artifact)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", OPSET)]
    assert OPSET == exported.opset == 20
    assert [
        path.name for path in Path(exported.artifact).parent.iterdir() if "part" in path.name
    ] == []


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_any_batch_is_upscaled_as_in_torch(exported, batch):
    lr = np.random.default_rng(batch).random((batch, 3, 16, 16), np.float32)
    with torch.inference_mode():
        expected = network(LAYERED)(torch.from_numpy(lr)).numpy()
    with OnnxRuntimeSession(Path(exported.artifact).read_bytes(), "tiny") as session:
        assert abs(session.run(lr) - expected).max() < 1e-4


def test_no_path_and_no_source_is_left_in_it(exported):
    data = Path(exported.artifact).read_bytes() + manifest_path(exported.artifact).read_bytes()
    for text in ("site-packages", str(ROOT), os.getcwd(), "stack_trace", ".py", "forward"):
        assert text.encode() not in data


def test_the_manifest_says_what_it_was_made_of_and_how_it_did(exported):
    manifest = read_manifest(exported.artifact)
    weights = Path(exported.artifact).parent.parent / "tiny.safetensors"
    assert manifest.sha256 == exported.sha256 == sha256_file(exported.artifact)
    assert manifest.checkpoint_sha256 == sha256_file(weights)
    assert manifest.probes_sha256 == sha256_file(probes_path(exported.artifact))
    assert (manifest.model, manifest.precision, manifest.executes_as) == ("tiny", "fp32", "fp32")
    assert (manifest.psnr_y, manifest.random_weights) == (26.5, False)
    assert manifest.tools.keys() >= {"torch", "onnx", "onnxscript", "onnxsim", "onnxruntime"}
    assert manifest.flags["max_abs_diff"] == exported.max_abs_diff <= 1e-4
    (measurement,) = manifest.measured_on
    assert (measurement.backend, measurement.emulated) == ("onnxruntime", False)
    assert measurement.fidelity_db == exported.fidelity_db > 70


def test_a_session_opens_it(exported):
    with open_session(exported.artifact) as session:
        assert session.verdict.passed
    assert len(read_probes(probes_path(exported.artifact)).names) == 21


def test_random_weights_are_for_tests_and_refused_by_a_session(new, tmp_path, monkeypatch):
    loaded = replace(checkpoint.load_checkpoint(new), random_weights=True)
    monkeypatch.setattr(exporter, "load_model", lambda *_: (network(BATCHED), loaded))
    out = tmp_path / "fp32.onnx"
    assert export("tiny", out=out, random_seed=3).random_weights
    assert read_manifest(out).random_weights
    with pytest.raises(EdgeError, match="random weights"):
        open_session(out)


# The graph


def test_layer_norm_is_one_operator(exported):
    norms = sum(isinstance(module, ChannelLayerNorm) for module in network(LAYERED).modules())
    assert operators(graph_of(exported))["LayerNormalization"] == norms > 0


def test_pixel_shuffles_are_in_torchs_order(exported):
    shuffles = [node for node in graph_of(exported).node if node.op_type == "DepthToSpace"]
    modes = [
        onnx.helper.get_attribute_value(entry)
        for shuffle in shuffles
        for entry in shuffle.attribute
        if entry.name == "mode"
    ]
    assert modes == [b"CRD"] * 4


def test_bicubic_is_a_convolution_and_not_a_resize(exported):
    graph = graph_of(exported)
    readers = [node for node in graph.node if "lr" in node.input]
    assert Counter(node.op_type for node in readers) == {"Pad": 1, "Conv": 1}  # bicubic, entry
    hourglasses = sum(isinstance(module, Hourglass) for module in network(LAYERED).modules())
    resizes = [node for node in graph.node if node.op_type == "Resize"]
    assert len(resizes) == hourglasses > 0
    for resize in resizes:
        modes = {entry.name: entry.s for entry in resize.attribute}
        assert modes["mode"] == b"nearest"


def test_batch_norm_is_folded_into_convolutions():
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network(BATCHED).modules())
    assert "BatchNormalization" not in operators(traced(BATCHED).graph)


# What goes wrong


def test_parity_over_the_budget_writes_nothing(old, new, monkeypatch, capsys):
    before = content(old.parent)
    broken = traced(BATCHED)
    shuffle = next(node for node in broken.graph.node if node.op_type == "DepthToSpace")
    next(entry for entry in shuffle.attribute if entry.name == "mode").s = b"DCR"
    monkeypatch.setattr(exporter, "trace", lambda network: broken)
    assert main(["--checkpoint", str(new), "--out", str(old), "--overwrite"]) == EXIT_DRIFT
    assert "after tracing the graph differs from torch" in capsys.readouterr().err
    assert main(["--checkpoint", str(new), "--out", str(old.parent / "b" / "x.onnx")]) == EXIT_DRIFT
    assert content(old.parent) == before


def test_a_tighter_budget_is_kept(old, new, capsys):
    before = content(old.parent)
    arguments = ["--checkpoint", str(new), "--out", str(old), "--overwrite"]
    arguments += ["--max-abs-diff", "1e-9"]
    assert main(arguments) == EXIT_DRIFT
    assert "at most 1.0e-09" in capsys.readouterr().err
    assert content(old.parent) == before


def test_a_pass_that_changes_the_outputs_is_named(old, new, monkeypatch):
    def spoil_weights(model):
        model = onnx.ModelProto.FromString(model.SerializeToString())
        bias = next(tensor for tensor in model.graph.initializer if tensor.name == "exit.conv.bias")
        bias.raw_data = bytes(len(bias.raw_data))
        return model

    monkeypatch.setattr(exporter.simplify, "PASSES", (spoil_weights,))
    before = content(old.parent)
    with pytest.raises(EdgeError, match="after spoil weights the graph differs"):
        export(checkpoint=new, out=old, overwrite=True)
    assert content(old.parent) == before


def test_another_opset_than_asked_for_is_refused(old, new, monkeypatch):
    """The exporter may give another one silently."""
    other = traced(BATCHED)
    other.opset_import[0].version = 21
    monkeypatch.setattr(exporter, "trace", lambda network: other)
    before = content(old.parent)
    with pytest.raises(EdgeError, match=r"opset {'': 21}, expected 20"):
        export(checkpoint=new, out=old, overwrite=True)
    assert content(old.parent) == before


class Killed(BaseException):
    pass


@pytest.mark.parametrize("renamed", [0, 1, 2])
def test_killed_between_files_it_leaves_the_old_artifact_or_none(old, new, monkeypatch, renamed):
    before = content(old.parent)
    done = []

    def replace_and_die(source, target):
        if len(done) == renamed:
            raise Killed
        if not Path(target).name.startswith("."):
            done.append(Path(target).name)
        os.rename(source, target)

    monkeypatch.setattr(os, "replace", replace_and_die)
    with pytest.raises(Killed):
        export(checkpoint=new, out=old, overwrite=True)
    monkeypatch.undo()

    assert done == ["probes.npz", "fp32.onnx"][:renamed]
    after = content(old.parent)
    assert after.keys() == before.keys()
    assert [name for name in after if after[name] != before[name]] == sorted(done)
    if renamed:
        with pytest.raises(EdgeError, match="again with"):
            open_session(old)
    else:
        open_session(old).close()


def test_a_full_disk_leaves_the_old_artifact(old, new, monkeypatch, capsys):
    before = content(old.parent)

    def write_nothing(self, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", write_nothing)
    assert main(["--checkpoint", str(new), "--out", str(old), "--overwrite"]) == EXIT_ERROR
    assert "the disk is full" in capsys.readouterr().err
    assert content(old.parent) == before


def test_missing_weights_name_the_training_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoint, "WEIGHTS", tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main(["--model", "aminet-edge"]) == EXIT_ERROR
    assert "python -m aminet.train --data" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_config_is_refused_by_what_differs(new, monkeypatch, capsys):
    monkeypatch.setitem(MODELS, "tiny", replace(BATCHED, norm="layer"))
    assert main(["--model", "tiny", "--checkpoint", str(new)]) == EXIT_ERROR
    assert "norm batch (expected layer)" in capsys.readouterr().err


BAD_ARGUMENTS = {
    "an unknown model": (["--model", "amnet"], EXIT_USAGE, "amnet: unknown"),
    "a missing checkpoint": (["--checkpoint", "no.safetensors"], EXIT_ERROR, "no such file"),
    "no checkpoint": (["--checkpoint", __file__], EXIT_ERROR, "not a whole safetensors file"),
    "a name without .onnx": (["--out", "probes.npz"], EXIT_ERROR, "ends in .onnx"),
}


@pytest.mark.parametrize(
    ("arguments", "status", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS
)
def test_bad_arguments_get_one_line(arguments, status, message, new, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if "--model" not in arguments and "--checkpoint" not in arguments:
        arguments = [*arguments, "--checkpoint", str(new)]
    assert main(arguments) == status
    out, err = capsys.readouterr()
    assert message in err
    assert (out, err.count("\n")) == ("", 1)


def test_trained_and_random_weights_exclude_each_other(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["--checkpoint", "a", "--random-weights", "0"])
    assert caught.value.code == EXIT_USAGE


def test_a_model_name_that_leads_elsewhere_is_refused(new, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_checkpoint(new, BATCHED, name="../elsewhere")
    loaded = replace(checkpoint.load_checkpoint(new), path=None)
    monkeypatch.setattr(exporter, "load_model", lambda *_: (network(BATCHED), loaded))
    with pytest.raises(EdgeError, match="not a folder name"):
        export(checkpoint=new)


# The command


def test_the_command_writes_beside_the_checkpoint_and_prints_one_object(
    new, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    assert main(["--checkpoint", str(new), "--json"]) == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result["artifact"] == str(new.with_name("fp32.onnx"))
    assert result["nodes_after"] < result["nodes_before"]
    assert result.keys() >= {"max_abs_diff", "psnr_db", "opset", "sha256"}
    assert err == ""
    assert read_manifest(result["artifact"]).psnr_y is None


def test_the_result_is_one_line_on_stdout(new, tmp_path, capsys):
    assert main(["--checkpoint", str(new), "--out", str(tmp_path / "fp32.onnx")]) == 0
    out, err = capsys.readouterr()
    assert (out.count("\n"), err) == (1, "")
    assert "nodes, opset 20" in out


def test_weights_below_bicubic_are_named(new, tmp_path, monkeypatch, capsys):
    metrics = {"validation/psnr_y": 20.0, "validation/bicubic_psnr_y": 23.9}
    loaded = replace(checkpoint.load_checkpoint(new), metrics=metrics)
    monkeypatch.setattr(exporter, "load_model", lambda *_: (network(BATCHED), loaded))
    assert main(["--checkpoint", str(new), "--out", str(tmp_path / "fp32.onnx")]) == 0
    out, err = capsys.readouterr()
    assert "20.00 dB PSNR-Y" in out
    assert "bicubic upscaling has 23.90: train it longer" in err


def test_an_artifact_of_another_checkpoint_is_replaced_only_on_demand(old, new, capsys):
    before = content(old.parent)
    assert main(["--checkpoint", str(new), "--out", str(old)]) == EXIT_ERROR
    assert "other weights" in capsys.readouterr().err
    assert content(old.parent) == before
    assert main(["--checkpoint", str(new), "--out", str(old), "--overwrite"]) == 0
    assert content(old.parent) != before


def test_outdated_artifacts_and_engines_are_named(old, new, capsys):
    engine = old.parent / "trt" / "8.6-1" / "fp32.engine"
    engine.parent.mkdir(parents=True)
    for copied in (old.with_name("int8.onnx"), engine):
        shutil.copy(old, copied)
        shutil.copy(manifest_path(old), manifest_path(copied))
    assert main(["--checkpoint", str(new), "--out", str(old), "--overwrite"]) == 0
    err = capsys.readouterr().err
    assert f"{old.with_name('int8.onnx')} is outdated" in err
    assert f"{engine} is outdated" in err


def test_the_file_says_what_it_is(exported):
    model = onnx.load(exported.artifact)
    properties = {entry.key: entry.value for entry in model.metadata_props}
    assert (properties["model"], properties["input_range"]) == ("tiny", "[0, 1]")
    assert "non-commercial" in properties["license"]
    assert "super-resolution" in model.doc_string


def test_the_same_graph_gives_the_same_files(new, tmp_path):
    for folder in ("a", "b"):
        export(checkpoint=new, out=tmp_path / folder / "fp32.onnx")
    assert content(tmp_path / "a") == content(tmp_path / "b")


@pytest.mark.soak
@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_exported_and_the_same_way_twice(name, tmp_path):
    first, second = (
        export(name, out=tmp_path / str(i) / "fp32.onnx", random_seed=0) for i in range(2)
    )
    assert first.sha256 == second.sha256


@pytest.mark.soak
@pytest.mark.parametrize("name", ABLATIONS)
def test_every_ablation_is_exported(name, tmp_path):
    config = replace(
        ABLATIONS[name],
        side=32,
        channels=(8, 16),
        heads=(1, 2),
        refine_convs=(1, 0),
        hourglass=(1, 0),
    )
    weights = write_checkpoint(tmp_path / "tiny.safetensors", config, name=name)
    assert export(checkpoint=weights, out=tmp_path / "fp32.onnx").max_abs_diff < 1e-4
