"""The Triton repository is what Triton's own definition of a model's config says."""

import importlib.util
from importlib.metadata import distribution

import numpy as np
import onnx
import pytest
from google.protobuf import text_format

from export.triton import repository
from runtime.artifact import read_artifact
from runtime.backends.onnxruntime import OnnxRuntimeSession


@pytest.fixture(scope="module")
def model_config():
    """Triton's ModelConfig message, from its client's package (whose __init__ wants gRPC)."""
    files = distribution("tritonclient").files
    path = next(file.locate() for file in files if file.name == "model_config_pb2.py")
    spec = importlib.util.spec_from_file_location("model_config_pb2", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.ModelConfig


def test_the_config_fits_triton_and_the_model(artifact, model_config):
    files = repository(read_artifact(artifact), instances=3)
    (path,) = [path for path in files if path.endswith("config.pbtxt")]
    config = text_format.Parse(files[path].decode(), model_config())
    graph = onnx.load_model_from_string(files[path.replace("config.pbtxt", "1/model.onnx")]).graph
    for declared, value in ((config.input[0], graph.input[0]), (config.output[0], graph.output[0])):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        assert (declared.name, list(declared.dims)) == (value.name, dims[1:])
    assert config.name == path.split("/")[0]
    assert config.instance_group[0].count == 3
    assert config.parameters["intra_op_thread_count"].string_value == "1"
    assert config.dynamic_batching.preferred_batch_size[0] <= config.max_batch_size


def test_the_warm_up_is_an_input_of_the_model(artifact, model_config):
    files = repository(read_artifact(artifact), instances=1)
    (path,) = [path for path in files if "/warmup/" in path]
    config = text_format.Parse(files[path.split("/")[0] + "/config.pbtxt"].decode(), model_config())
    warm_up = config.model_warmup[0].inputs["lr"]
    assert path.endswith(f"/warmup/{warm_up.input_data_file}")
    lr = np.frombuffer(files[path], np.float32).reshape(1, *warm_up.dims)
    with OnnxRuntimeSession(read_artifact(artifact).model, "the repository's model") as session:
        assert session.run(lr).shape == (1, 3, 128, 128)
