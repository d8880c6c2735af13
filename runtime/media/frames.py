"""The frames of one video, upscaled one after the other with what was learned of those before."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from runtime.image import Pixels, fit_face
from runtime.media.photo import UpscaledPhoto, largest_frame_scale, upscale_found
from runtime.media.tracks import Tracker

if TYPE_CHECKING:
    from runtime.media.pipeline import Pipeline


class Frames:
    """Upscales the frames of one video, one after the other, and counts their faces."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._tracker: Tracker | None = None
        self.faces = self.left_alone = 0
        self.scale: int | None = None

    def upscale(self, frame: Pixels) -> Pixels | UpscaledPhoto:
        """A frame (H, W, 3) by the network, if it is a face; else with its faces upscaled."""
        pipeline = self._pipeline
        if not pipeline.is_photo(frame):
            self.faces += 1
            session = pipeline.models.for_faces()
            reduce = pipeline.options.reduce
            lr = fit_face(frame, "the frame", side=session.lr_side, reduce=reduce)
            return session.upscale_faces(lr[None])[0]
        if self._tracker is None:
            self._tracker = Tracker(pipeline.detector)
            self.scale = pipeline.options.scale or largest_frame_scale(*frame.shape[:2])
        assert self.scale
        session, found = pipeline.models.for_photos(), self._tracker.find(frame)
        photo = upscale_found(frame, found, session.upscale_faces, session.lr_side, self.scale)
        self.faces += photo.upscaled
        self.left_alone += len(photo.faces) - photo.upscaled
        return replace(photo, boxes=pipeline.options.draw_boxes)
