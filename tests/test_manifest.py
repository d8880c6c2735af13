"""A manifest is read as it was written, or refused with what is wrong with it."""

import json

import pytest

from runtime.atomic import sha256_bytes
from runtime.errors import EdgeError
from runtime.manifest import (
    Manifest,
    Measurement,
    manifest_path,
    probes_path,
    read_manifest,
    write_manifest,
)

SHA = "0123456789abcdef" * 4
MEASUREMENT = Measurement("onnxruntime", "1.31.1", "a processor", 50.6, 48, 61.5)
MANIFEST = Manifest(
    model="aminet-edge",
    precision="int8",
    target="cpu",
    sha256=SHA,
    parent_sha256=SHA[::-1],
    checkpoint_sha256=SHA,
    calibration_sha256=SHA,
    probes_sha256=SHA,
    executes_as="int8 in 92 % of its multiply-adds",
    psnr_y=27.0,
    tools={"onnxruntime": "1.31.1"},
    flags={"per_channel": True, "ops": ["Conv"]},
    measured_on=(MEASUREMENT,),
)


@pytest.fixture
def artifact(tmp_path):
    path = tmp_path / "int8.onnx"
    write_manifest(path, MANIFEST)
    return path


def alter(artifact, change, *, keep_digest=True):
    """Change the JSON of a manifest; without `keep_digest` its digest is made to fit again."""
    path = manifest_path(artifact)
    content = json.loads(path.read_text())
    change(content)
    if not keep_digest:
        del content["digest"]
        canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
        content["digest"] = sha256_bytes(canonical.encode())
    path.write_text(json.dumps(content))


def test_it_is_read_as_it_was_written(artifact):
    assert manifest_path(artifact).name == "int8.onnx.json"
    assert read_manifest(artifact) == MANIFEST


def test_probes_lie_beside_it(artifact):
    assert probes_path(artifact) == artifact.parent / "probes.npz"


def test_the_digest_is_of_the_canonical_json(artifact):
    content = json.loads(manifest_path(artifact).read_text())
    digest = content.pop("digest")
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"))
    assert digest == sha256_bytes(canonical.encode()) == MANIFEST.digest


def test_layout_does_not_matter(artifact):
    alter(artifact, lambda content: None)
    assert read_manifest(artifact) == MANIFEST


def test_an_altered_value_is_noticed_even_if_it_fits_the_schema(artifact):
    alter(artifact, lambda content: content.update(max_drop_db=3))
    with pytest.raises(EdgeError, match=r"int8\.onnx\.json: was altered, its digest does not fit"):
        read_manifest(artifact)


def test_every_altered_field_is_noticed(artifact):
    original = manifest_path(artifact).read_text()
    for name in json.loads(original):
        manifest_path(artifact).write_text(original)
        alter(artifact, lambda content, name=name: content.update({name: "other"}))
        with pytest.raises(EdgeError, match=r"int8\.onnx\.json: "):
            read_manifest(artifact)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema_version": 4}, "has schema version 4, expected 3"),
        ({"precision": "int4"}, "precision is 'int4'"),
        ({"executes_as": "half"}, "computed_in is 'half'"),
        ({"target": "npu"}, "target is 'npu'"),
        ({"sha256": "../../etc/passwd"}, "sha256 is"),
        ({"psnr_y": "27"}, "psnr_y is '27'"),
        ({"max_drop_db": 0}, "max_drop_db is 0"),
        ({"random_weights": 0}, "random_weights is 0"),
        ({"tools": ["onnx"]}, "tools is"),
        ({"measured_on": {}}, "measured_on is not a list"),
        ({"measured_on": [7]}, "expected the fields of a Measurement, got 7"),
        ({"measured_on": [{}]}, "backend, .* missing"),
        ({"new": 1}, "new unknown"),
    ],
)
def test_what_does_not_fit_the_schema_is_named(artifact, change, problem):
    alter(artifact, lambda content: content.update(change), keep_digest=False)
    with pytest.raises(EdgeError, match=problem):
        read_manifest(artifact)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "expected a JSON object"),
        ('{"psnr_y": NaN}', "NaN is no number"),
        ("[" * 100_000, "is not JSON"),
        ("\xff", "is not JSON"),
    ],
    ids=["empty", "cut", "list", "NaN", "deep", "binary"],
)
def test_what_is_no_manifest_is_refused(artifact, text, problem):
    manifest_path(artifact).write_bytes(text.encode("latin-1"))
    with pytest.raises(EdgeError, match=problem):
        read_manifest(artifact)


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(EdgeError, match=r"fp32\.onnx\.json: not found.*python -m export\.onnx"):
        read_manifest(tmp_path / "fp32.onnx")


def test_a_wrong_manifest_cannot_be_made():
    with pytest.raises(ValueError, match="fidelity_db is inf"):
        Manifest(
            **{
                **MANIFEST.__dict__,
                "measured_on": (Measurement("b", "1", "p", float("inf"), 1, 1),),
            }
        )
