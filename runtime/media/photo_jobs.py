"""One photo of a run: its faces are found, upscaled and pasted, and written as the options say."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.errors import EdgeError
from runtime.image import Pixels
from runtime.media.jobs import Box, FaceResult, Job
from runtime.media.outputs import FileOutput
from runtime.media.photo import (
    MAX_FRAME,
    MIN_FACE,
    UpscaledPhoto,
    check_scale,
    largest_scale,
    upscale_found,
)

if TYPE_CHECKING:
    from runtime.media.pipeline import Pipeline


def upscale_photo_job(pipeline: Pipeline, job: Job, pixels: Pixels, read_ms: float) -> FaceResult:
    """Find the faces of a photo, upscale them, write what the options ask for."""
    options, output = pipeline.options, job.output
    assert output
    height, width = pixels.shape[:2]
    scale = options.scale or largest_scale(height, width)
    check_scale(height, width, scale)
    if not options.faces_only:
        output.check(height * scale, width * scale)
    detector, session = pipeline.detector, pipeline.models.for_photos()
    started = time.perf_counter()
    found = detector.find(pixels)
    if not found:
        raise EdgeError(
            f"{job.name}: no face was found in it; --mode face takes it for a face itself"
        )
    photo = upscale_found(
        pixels, found, lambda lr: pipeline.upscale_many(session, lr), session.lr_side, scale
    )
    photo = replace(photo, boxes=options.draw_boxes)
    result = FaceResult(
        job.name,
        kind="photo",
        faces=photo.upscaled,
        scale=scale,
        left_alone=len(photo.faces) - photo.upscaled,
        boxes=_boxes(photo),
    )
    if photo.upscaled:
        result = _write_photo(pipeline, job, photo, result)
    else:
        result = replace(result, note=_nothing_to_do(photo), scale=None)
    return replace(result, ms=round(read_ms + (time.perf_counter() - started) * 1e3, 2))


def _write_photo(
    pipeline: Pipeline, job: Job, photo: UpscaledPhoto, result: FaceResult
) -> FaceResult:
    output = job.output
    assert output
    if pipeline.options.faces_only:
        boxes = [
            replace(box, output=_write_one(pipeline, job, index, face.sr))
            for index, (box, face) in enumerate(zip(result.boxes, photo.faces, strict=True))
        ]
        folder = str(output.path.parent) if isinstance(output, FileOutput) else output.name
        return replace(result, output=folder, boxes=tuple(boxes), scale=None)
    output.write(photo, job.origin)
    return replace(result, output=output.name)


def _write_one(pipeline: Pipeline, job: Job, index: int, sr: Pixels | None) -> str | None:
    """One face of a photo, by itself."""
    if sr is None or job.output is None:
        return None
    output = job.output.face(index)
    output.claim(job.origin, pipeline.options.overwrite, pipeline.started)
    output.write(sr, job.origin)
    return output.name


def _boxes(photo: UpscaledPhoto) -> tuple[Box, ...]:
    return tuple(
        Box(
            tuple(round(side, 1) for side in each.face.box),
            round(each.face.score, 3),
            each.sr is not None,
        )
        for each in photo.faces
    )


def _nothing_to_do(photo: UpscaledPhoto) -> str:
    frames = ", ".join(f"{face.frame.side:.0f}" for face in photo.faces[:5])
    faces = "1 face is" if len(photo.faces) == 1 else f"{len(photo.faces)} faces are"
    return (
        f"nothing to do: its {faces} {frames} px large, and those from {MIN_FACE} px across to"
        f" {MAX_FRAME} px are upscaled"
    )
