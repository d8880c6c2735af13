"""Upscale the faces of parquet files or tars with Ray Data, on one machine or a cluster:

python examples/ray_data.py faces/ upscaled/    # needs pip install 'aminet-edge[scale]'

A row whose image cannot be upscaled has no image and says why in `error`.
"""

import sys
from pathlib import Path

import numpy as np

from runtime.errors import EdgeError
from runtime.image import decode_image, encode_image, fit_face, to_pixels, to_tensor
from runtime.session import open_session
from runtime.telemetry import disable_telemetry

disable_telemetry()  # before ray is imported
import ray  # noqa: E402

BATCH = 8  # faces that the network runs at once
IMAGES = ("image", "png", "jpg", "jpeg")  # columns of parquet files; suffixes in tars


class Upscaler:
    """An actor: a session on one thread, proved on its probes once, for all of its batches."""

    def __init__(self, artifact=None):
        self.session = open_session(artifact, "onnxruntime", threads=1)

    def __call__(self, batch):
        column = next(name for name in IMAGES if name in batch)
        faces, errors = {}, {}
        for row, data in enumerate(batch.pop(column)):
            try:
                pixels = decode_image(data or b"", f"row {row}")
                faces[row] = fit_face(pixels, f"row {row}", side=self.session.lr_side)
            except EdgeError as error:
                errors[row] = str(error)
        rows = range(len(faces) + len(errors))
        images = dict(zip(faces, self.upscale(list(faces.values())), strict=True))
        batch["image"] = [images.get(row) for row in rows]
        batch["error"] = [errors.get(row) for row in rows]
        return batch

    def upscale(self, faces):
        for start in range(0, len(faces), BATCH):
            lr = np.stack(faces[start : start + BATCH])
            sr = to_pixels(self.session.run(to_tensor(lr)))
            yield from (b"".join(encode_image(face, ".png")) for face in sr)


def upscale(source, out, artifact=None):
    """Upscale a folder of parquet files or of tars into a folder of parquet files."""
    if any(Path(source).glob("*.tar")):  # as WebDataset has them: 000001.png, 000001.json, ...
        faces = ray.data.read_webdataset(source, decoder=False)
    else:
        faces = ray.data.read_parquet(source)
    cores = int(ray.cluster_resources()["CPU"])
    upscaled = faces.map_batches(
        Upscaler,
        fn_constructor_args=(artifact,),
        batch_size=8 * BATCH,
        # An actor for each core, and one CPU of all left over: reading and writing want a whole one
        # each. If actors hold all of them nothing can be read, and the job waits for ever.
        num_cpus=max(0.1, (cores - 1) / cores),
        compute=ray.data.ActorPoolStrategy(size=cores),
    )
    upscaled.write_parquet(out)


if __name__ == "__main__":
    ray.init(include_dashboard=False)
    ray.data.DataContext.get_current().enable_progress_bars = sys.stderr.isatty()
    upscale(*sys.argv[1:])
