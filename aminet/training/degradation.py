"""Degradations of a small face in a camera: light, frame size, blur, noise, JPEG.

A degraded pair is (lr, hr): hr (128, 128, 3) is the clean face under the drawn light and geometry,
lr is a camera's frame of it, 10 to 64 px wide, resampled to the network's input side.
All ranges are config; the same generator gives the same bits. Pixels are uint8 RGB.
"""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aminet.config import SR_SIDE
from runtime.image import Pixels

Rng = np.random.Generator
Floats = NDArray[np.float32]

FILTERS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
BLUR_RADIUS = 3  # px of the frame: blur kernels are 7x7
JPEG_BLOCK = 16  # px: a face lies anywhere on the grid of JPEG's colour blocks


@dataclass(frozen=True)
class Chance:
    """A degradation's range, and the share of the faces that have it."""

    share: float
    least: float
    most: float

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1 or not -math.inf < self.least <= self.most < math.inf:
            raise ValueError(f"degradation out of range: {self}")

    def draw(self, rng: Rng) -> float | None:
        """A value, uniform in the range, or None. Always takes two numbers from the generator."""
        happens, where = rng.random(2)
        return self.least + (self.most - self.least) * where if happens < self.share else None


NEVER = Chance(0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Geometry:
    """How a detector frames a face: mirrored, turned, zoomed, shifted."""

    flip: float = 0.5  # share
    moved: float = 0.5  # share of the faces that have any of the following
    rotation: Chance = Chance(0.7, -15.0, 15.0)  # degrees
    zoom: Chance = Chance(0.8, -0.17, 0.17)  # natural logarithm
    shift: Chance = Chance(0.8, -6.0, 6.0)  # px of the 128x128 face, each axis its own


@dataclass(frozen=True)
class Light:
    """Changes of the scene: the clean face has them, too."""

    stops: Chance = NEVER  # exposure; -1 halves the levels
    gamma: Chance = NEVER  # exponent of the levels, natural logarithm
    grey: float = 0.0  # share of faces without colour
    occlusion: Chance = NEVER  # side of what covers a part of the face, share of the face's


@dataclass(frozen=True)
class Camera:
    """Degradations of the frame alone. Noise comes after the darkening, as in a sensor."""

    frame: tuple[int, int] = (10, 64)  # px, log-uniform
    filters: tuple[str, ...] = tuple(FILTERS)
    blur: Chance = NEVER  # sigma of a gaussian, px of the frame
    motion: Chance = NEVER  # length of a straight motion, px of the frame
    noise: Chance = NEVER  # sigma of gaussian noise, levels
    photons: Chance = NEVER  # sigma of Poisson noise at white, levels
    grey_noise: float = 0.0  # share of the noisy faces whose noise has no colour
    jpeg: Chance = NEVER  # quality
    subsampled: float = 0.5  # share of the JPEGs with colour at half resolution

    def __post_init__(self) -> None:
        least, most = self.frame
        if not 1 <= least <= most <= SR_SIDE:
            raise ValueError(f"frame: {self.frame}, expected 1 to {SR_SIDE} px")
        if not self.filters or not set(self.filters) <= set(FILTERS):
            raise ValueError(f"filters: {self.filters}, expected some of {', '.join(FILTERS)}")


@dataclass(frozen=True)
class Degradation:
    """A recipe: geometry and light of the scene, and the cameras that see it, by their share."""

    geometry: Geometry
    light: Light
    cameras: tuple[tuple[float, Camera], ...]

    def pair(self, hr: Pixels, lr_side: int, rng: Rng) -> tuple[Pixels, Pixels]:
        """A face (128, 128, 3) -> lr (lr_side, lr_side, 3), hr (128, 128, 3)."""
        hr = relight(reframe(hr, self.geometry, rng), self.light, rng)
        shares = np.cumsum([share for share, _ in self.cameras])
        chosen = min(int(np.searchsorted(shares, rng.random() * shares[-1])), len(shares) - 1)
        seen = photograph(hr, self.cameras[chosen][1], rng)
        return resample(seen, lr_side), hr


STILL = Geometry(flip=0.0, moved=0.0)
BICUBIC_ONLY = Camera(filters=("bicubic",))

WORSE = Camera(  # than a usual one
    blur=Chance(0.6, 0.2, 1.4),
    motion=Chance(0.1, 1.0, 4.0),
    noise=Chance(0.8, 0.5, 10.0),
    photons=Chance(0.3, 1.0, 12.0),
    grey_noise=0.3,
    jpeg=Chance(0.8, 30.0, 95.0),
)
LARGE = (40, 64)  # px, of which a log-uniform size gives too few

# For training: about a third of the faces is only shrunk.
WILD = Degradation(
    Geometry(),
    Light(
        stops=Chance(0.35, -2.5, 0.3),
        gamma=Chance(0.2, -0.35, 0.35),
        grey=0.06,
        occlusion=Chance(0.06, 0.15, 0.4),
    ),
    (
        (0.22, BICUBIC_ONLY),
        (0.15, replace(BICUBIC_ONLY, frame=LARGE)),
        (0.53, WORSE),
        (0.10, replace(WORSE, frame=LARGE)),
    ),
)

# The kinds of the test sets. A slight blur, noise of 2 to 8 levels, JPEG 50 to 93; two stops under.
CLEAN = Degradation(STILL, Light(), ((1.0, BICUBIC_ONLY),))
CAMERA = Degradation(
    STILL,
    Light(),
    (
        (
            1.0,
            Camera(
                filters=("bicubic",),
                blur=Chance(1.0, 0.3, 0.7),
                noise=Chance(1.0, 2.0, 8.0),
                jpeg=Chance(1.0, 50.0, 93.0),
            ),
        ),
    ),
)
DARK = Degradation(
    STILL,
    Light(stops=Chance(1.0, -2.0, -2.0)),
    (
        (
            1.0,
            Camera(
                filters=("bicubic",),
                noise=Chance(1.0, 1.0, 4.0),
                jpeg=Chance(1.0, 50.0, 93.0),
            ),
        ),
    ),
)
KINDS = {"clean": CLEAN, "camera": CAMERA, "dark": DARK}


def reframe(hr: Pixels, geometry: Geometry, rng: Rng) -> Pixels:
    """Mirror, turn, zoom and shift (128, 128, 3) in one resampling; beyond it its edge repeats."""
    if rng.random() < geometry.flip:
        hr = hr[:, ::-1]
    if rng.random() >= geometry.moved:
        return np.ascontiguousarray(hr)
    degrees, zoom = geometry.rotation.draw(rng), geometry.zoom.draw(rng)
    right, down = geometry.shift.draw(rng), geometry.shift.draw(rng)
    return turn(hr, degrees or 0.0, math.exp(zoom or 0.0), (right or 0.0, down or 0.0))


def turn(hr: Pixels, degrees: float, zoom: float = 1.0, shift: Sequence[float] = (0, 0)) -> Pixels:
    """(128, 128, 3) turned to the left, `zoom` times as large, moved right and down by `shift`."""
    margin = SR_SIDE // 2
    padded = np.pad(hr, ((margin, margin), (margin, margin), (0, 0)), "edge")
    angle, centre = math.radians(degrees), SR_SIDE / 2
    cos, sin = math.cos(angle) / zoom, math.sin(angle) / zoom
    left, top = centre + shift[0], centre + shift[1]
    matrix = (
        *(cos, -sin, margin + centre - cos * left + sin * top),
        *(sin, cos, margin + centre - sin * left - cos * top),
    )
    size = (SR_SIDE, SR_SIDE)
    image = Image.fromarray(padded)
    turned = image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
    return np.asarray(turned)


def relight(hr: Pixels, light: Light, rng: Rng) -> Pixels:
    """Exposure, gamma, missing colour and something in front of the face (128, 128, 3)."""
    stops, gamma = light.stops.draw(rng), light.gamma.draw(rng)
    grey, covered = rng.random() < light.grey, light.occlusion.draw(rng)
    if covered is not None:
        hr = occlude(hr, covered, rng)
    if stops is not None or gamma is not None:
        levels = np.arange(256, dtype=np.float32) / 255
        lit = levels ** math.exp(gamma or 0.0) * 2.0 ** (stops or 0.0)
        hr = to_pixels(lit * 255)[hr]
    if grey:
        hr = np.repeat(np.rint(hr @ [0.299, 0.587, 0.114]).astype(np.uint8)[..., None], 3, -1)
    return hr


def occlude(hr: Pixels, share: float, rng: Rng) -> Pixels:
    """Cover a rectangle of (128, 128, 3) with one colour, or with another part of the image."""
    height, width = (round(SR_SIDE * share * factor) for factor in rng.uniform(0.6, 1.4, 2))
    top, left, from_top, from_left = rng.integers(0, SR_SIDE - np.array([height, width] * 2))
    hr = hr.copy()
    patch = hr[from_top : from_top + height, from_left : from_left + width].copy()
    colour = rng.integers(0, 256, 3, dtype=np.uint8)
    hr[top : top + height, left : left + width] = colour if rng.random() < 0.5 else patch
    return hr


def photograph(hr: Pixels, camera: Camera, rng: Rng) -> Pixels:
    """Photograph (128, 128, 3) in a frame of the camera's size, (S, S, 3)."""
    least, most = camera.frame
    side = round(least * (most / least) ** rng.random())
    name = camera.filters[rng.integers(len(camera.filters))]
    blur, motion, angle = camera.blur.draw(rng), camera.motion.draw(rng), rng.random() * math.pi
    noise, photons = camera.noise.draw(rng), camera.photons.draw(rng)
    grey_noise = rng.random() < camera.grey_noise
    quality, subsampled = camera.jpeg.draw(rng), rng.random() < camera.subsampled
    seen = np.asarray(Image.fromarray(hr).resize((side, side), FILTERS[name]))
    if blur is not None or motion is not None:
        seen = to_pixels(convolve(seen, blur_kernel(blur or 0.0, motion or 0.0, angle)))
    if noise is not None or photons is not None:
        seen = to_pixels(add_noise(seen, noise or 0.0, photons or 0.0, grey_noise, rng))
    if quality is not None:
        seen = compress(seen, round(quality), subsampled, rng)
    return seen


def blur_kernel(sigma: float, length: float, angle: float) -> Floats:
    """A gaussian, and a motion of `length` px along `angle` (radians): (7, 7), its sum 1."""
    grid = np.arange(-BLUR_RADIUS, BLUR_RADIUS + 1)
    steps = np.linspace(-length / 2, length / 2, 9) if length else np.zeros(1)
    spread = 2 * max(sigma, 0.25 if length else 1e-3) ** 2
    kernel = np.zeros((len(grid), len(grid)))
    for step in steps:
        across = np.exp(-((grid - step * math.cos(angle)) ** 2) / spread)
        along = np.exp(-((grid - step * math.sin(angle)) ** 2) / spread)
        kernel += np.outer(along, across)
    return (kernel / kernel.sum()).astype(np.float32)


def convolve(seen: Pixels, kernel: Floats) -> Floats:
    """(S, S, 3) under a kernel of an odd side; beyond the frame its edge repeats."""
    radius, side = len(kernel) // 2, len(seen)
    padded = np.pad(seen, ((radius, radius), (radius, radius), (0, 0)), "edge").astype(np.float32)
    total = np.zeros(seen.shape, np.float32)
    for row, column in zip(*np.nonzero(kernel > 1e-3), strict=True):
        total += kernel[row, column] * padded[row : row + side, column : column + side]
    return total / kernel[kernel > 1e-3].sum()


def add_noise(seen: Pixels, sigma: float, at_white: float, grey: bool, rng: Rng) -> Floats:
    """Poisson noise of `at_white` levels at 255, then gaussian noise of `sigma` levels."""
    shape = (*seen.shape[:2], 1) if grey else seen.shape
    levels = seen.astype(np.float32)
    if at_white:
        photons_of_white = (255 / at_white) ** 2
        of_each = levels.mean(-1, keepdims=True) if grey else levels
        counted = rng.poisson(of_each / 255 * photons_of_white)
        levels = levels + (counted * (255 / photons_of_white) - of_each).astype(np.float32)
    if sigma:
        levels = levels + sigma * rng.standard_normal(shape, np.float32)
    return levels


def compress(seen: Pixels, quality: int, subsampled: bool, rng: Rng) -> Pixels:
    """Through a JPEG file, at a random place on its grid of blocks."""
    down, right = rng.integers(0, JPEG_BLOCK, 2)
    padded = np.pad(seen, ((down, 0), (right, 0), (0, 0)), "edge")
    file = io.BytesIO()
    Image.fromarray(padded).save(file, "JPEG", quality=quality, subsampling=2 if subsampled else 0)
    return np.asarray(Image.open(file))[down:, right:]


def resample(seen: Pixels, side: int) -> Pixels:
    """(S, S, 3) -> (side, side, 3) by Pillow's bicubic filter."""
    if len(seen) == side:
        return np.ascontiguousarray(seen)
    image = Image.fromarray(np.ascontiguousarray(seen))
    return np.asarray(image.resize((side, side), Image.Resampling.BICUBIC))


def to_pixels(levels: Floats) -> Pixels:
    return np.rint(levels.clip(0, 255)).astype(np.uint8)
