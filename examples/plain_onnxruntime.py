"""Upscale face.png (16x16) with ONNX Runtime alone: all pre- and post-processing there is.

It gives the same bits as `aminet-edge infer face.png --artifact artifacts/aminet-edge/fp32.onnx`,
which verifies the artifact first.
"""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime 1.31's own reports; before its import

import numpy as np
import onnxruntime
from PIL import Image

session = onnxruntime.InferenceSession("artifacts/aminet-edge/fp32.onnx")
lr = np.asarray(Image.open("face.png").convert("RGB"))  # (16, 16, 3)
lr = lr.transpose(2, 0, 1)[None].astype(np.float32) / 255  # (1, 3, 16, 16) in [0, 1]
(sr,) = session.run(["sr"], {"lr": lr})  # (1, 3, 128, 128), not clipped
sr = np.rint(np.clip(sr[0], 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
Image.fromarray(sr).save("face_sr.png")
