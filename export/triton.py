"""A Triton model repository for an ONNX artifact; `export.pack --target triton` zips it.

Triton Inference Server serves it by its onnxruntime backend on CPUs: one intra-op thread an
instance, so that instances, not threads, share the cores; dynamic batching; warm-up with a probe.
"""

from runtime import drift
from runtime.artifact import Artifact
from runtime.image import SR_SIDE, to_tensor

MAX_BATCH = 16
PREFERRED_BATCH = 8
MAX_QUEUE_DELAY_US = 2000

CONFIG = """name: "{model}"
backend: "onnxruntime"
max_batch_size: {max_batch}
input [ {{ name: "lr" data_type: TYPE_FP32 dims: [ 3, {lr_side}, {lr_side} ] }} ]
output [ {{ name: "sr" data_type: TYPE_FP32 dims: [ 3, {sr_side}, {sr_side} ] }} ]
instance_group [ {{ kind: KIND_CPU count: {instances} }} ]
dynamic_batching {{
  preferred_batch_size: [ {preferred_batch} ]
  max_queue_delay_microseconds: {delay_us}
}}
parameters {{ key: "intra_op_thread_count" value: {{ string_value: "1" }} }}
parameters {{ key: "inter_op_thread_count" value: {{ string_value: "1" }} }}
model_warmup [
  {{
    name: "probe"
    batch_size: 1
    inputs {{
      key: "lr"
      value: {{
        data_type: TYPE_FP32
        dims: [ 3, {lr_side}, {lr_side} ]
        input_data_file: "lr"
      }}
    }}
  }}
]
"""


def repository(artifact: Artifact, instances: int) -> dict[str, bytes]:
    """Return the repository's files by path: config.pbtxt, 1/model.onnx and the warm-up input.

    `instances` of the model run at once, a core each. Names of the contract: lr (3, S, S), sr
    (3, 128, 128), float32 in [0, 1], sr not clipped.
    """
    model = artifact.manifest.model
    config = CONFIG.format(
        model=model,
        lr_side=artifact.manifest.lr_side,
        sr_side=SR_SIDE,
        instances=instances,
        max_batch=MAX_BATCH,
        preferred_batch=PREFERRED_BATCH,
        delay_us=MAX_QUEUE_DELAY_US,
    )
    probes = drift.decode_probes(artifact.probes, str(artifact.path))
    return {
        f"{model}/config.pbtxt": config.encode(),
        f"{model}/1/model.onnx": artifact.model,
        f"{model}/warmup/lr": to_tensor(probes.lr[:1]).tobytes(),
    }
