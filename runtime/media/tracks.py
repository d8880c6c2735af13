"""Faces followed through a video, so that their frames do not tremble.

A face is looked for in the whole frame only now and then; in between it is looked at from near,
where it was. Its landmarks are smoothed: a face that stands still stays where it is, one that moves
is followed at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from runtime.image import Pixels
from runtime.media.detector import Detector, FoundFace

LOOK_EVERY = 10  # frames: it takes as long as all else for several of them
LOOK_PIXELS = 1 << 20
KEPT = 2  # frames that a face is remembered after it was last seen
STILL, MOVING = 0.2, 1.0  # how much of a new position is taken
FOLLOWED_AT = 0.06  # face widths of movement in a frame from which on all of it is taken
VIEW_LEFT = 0.2  # face widths from the view's center, and its size
SAME_FACE = 0.5  # face widths between two centers
CUT = 30  # gray levels of 255, in the mean, by which the frame after a cut differs
THUMBNAIL = (32, 18)


@dataclass(frozen=True, eq=False)
class Track:
    """A face as it was smoothed, and for how many frames it was not seen.

    It is looked at in a `view` that stays where it is until the face has left its middle: moved by
    a pixel, the detector would see its landmarks elsewhere.
    """

    face: FoundFace
    view: FoundFace
    unseen: int = 0

    def seen(self, face: FoundFace) -> Track:
        """The track with what was measured in the next frame."""
        moved = np.abs(face.landmarks.mean(axis=0) - self.face.landmarks.mean(axis=0)).max()
        share = moved / max(face.width, 1) / FOLLOWED_AT
        weight = min(MOVING, STILL + (MOVING - STILL) * float(share) ** 2)
        landmarks = self.face.landmarks + weight * (face.landmarks - self.face.landmarks)
        old, new = np.array(self.face.box), np.array(face.box)
        left, top, right, bottom = (old + weight * (new - old)).tolist()
        smooth = FoundFace((left, top, right, bottom), landmarks, face.score)
        apart = _apart(smooth, self.view) / self.view.width
        stays = apart < VIEW_LEFT and abs(smooth.width / self.view.width - 1) < VIEW_LEFT
        return Track(smooth, self.view if stays else smooth)


class Tracker:
    """The faces of a video's frames, given one after the other."""

    def __init__(self, detector: Detector) -> None:
        self._detector = detector
        self._tracks: list[Track] = []
        self._until_look = 0
        self._thumbnail: np.ndarray | None = None

    def find(self, frame: Pixels) -> list[FoundFace]:
        """The faces of the next frame (H, W, 3), smoothed."""
        if self._is_cut(frame):
            self._tracks, self._until_look = [], 0
        self._tracks = [self._follow(track, frame) for track in self._tracks]
        lost = any(track.unseen for track in self._tracks)
        self._tracks = [track for track in self._tracks if track.unseen <= KEPT]
        if self._until_look == 0 or lost:
            self._look(frame)
            self._until_look = LOOK_EVERY
        self._until_look -= 1
        return [track.face for track in self._tracks if not track.unseen]

    def _follow(self, track: Track, frame: Pixels) -> Track:
        near = self._detector.find_near(frame, track.face, track.view)
        return track.seen(near) if near else replace(track, unseen=track.unseen + 1)

    def _look(self, frame: Pixels) -> None:
        """Add faces that are new."""
        for face in self._detector.find(frame, LOOK_PIXELS, turned=False):
            if any(_is_same(face, track.face) for track in self._tracks if not track.unseen):
                continue
            near = self._detector.find_near(frame, face) or face
            lost = [t for t in self._tracks if t.unseen and _apart(near, t.face) < 2 * near.width]
            self._tracks = [track for track in self._tracks if track not in lost]
            self._tracks.append(Track(near, near))

    def _is_cut(self, frame: Pixels) -> bool:
        small = Image.fromarray(frame).resize(THUMBNAIL, Image.Resampling.BOX, reducing_gap=1.0)
        thumbnail = np.asarray(small.convert("L")).astype(np.int16)
        before, self._thumbnail = self._thumbnail, thumbnail
        return before is not None and float(np.abs(thumbnail - before).mean()) > CUT


def _is_same(a: FoundFace, b: FoundFace) -> bool:
    return _apart(a, b) < SAME_FACE * max(a.width, b.width)


def _apart(a: FoundFace, b: FoundFace) -> float:
    """How far the centers are apart, in px, in the larger of both directions."""
    return max(abs(a.center[0] - b.center[0]), abs(a.center[1] - b.center[1]))
