"""SSIM-Y and VIF of single faces, and the bootstrap interval of a mean over faces.

PSNR-Y and PSNR are in runtime.image, LPIPS and KID in modules of their own.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d
from skimage.metrics import structural_similarity

from runtime.image import Pixels, luma

BOOTSTRAP_ROUNDS = 2000
CONFIDENCE = 0.95
VIF_NOISE = 2.0  # variance of the eye's noise, on 0 to 255
VIF_SCALES = 4
EPSILON = 1e-10

Plane = NDArray[np.float64]


def ssim_y(a: Pixels, b: Pixels) -> float:
    """Structural similarity (Wang et al. 2004) of the luma of two images (H, W, 3)."""
    return float(
        structural_similarity(
            luma(a),
            luma(b),
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            data_range=255,
        )
    )


def vif(distorted: Pixels, reference: Pixels) -> float:
    """Visual information fidelity in the pixel domain (Sheikh and Bovik 2006), mean of R, G, B.

    On 0 to 255, which the noise's variance is given for. 1 for equal images.
    """
    a, b = distorted.astype(np.float64), reference.astype(np.float64)
    return float(np.mean([_vif_plane(b[..., c], a[..., c]) for c in range(3)]))


def _vif_plane(reference: Plane, distorted: Plane) -> float:
    kept = possible = 0.0
    for scale in range(VIF_SCALES):
        side = 2 ** (VIF_SCALES - scale) + 1
        if scale:
            reference = _blur(reference, side)[::2, ::2]
            distorted = _blur(distorted, side)[::2, ::2]
        information = _information(reference, distorted, side)
        kept, possible = kept + information[0], possible + information[1]
    return kept / possible if possible else 1.0


def _information(reference: Plane, distorted: Plane, side: int) -> tuple[float, float]:
    """The information kept of the reference in the distorted plane, and at best, in log10 units."""
    mean_r, mean_d = _blur(reference, side), _blur(distorted, side)
    var_r = np.maximum(_blur(reference**2, side) - mean_r**2, 0)
    var_d = np.maximum(_blur(distorted**2, side) - mean_d**2, 0)
    covariance = _blur(reference * distorted, side) - mean_r * mean_d
    gain = covariance / (var_r + EPSILON)
    noise = var_d - gain * covariance
    flat_r, flat_d, inverted = var_r < EPSILON, var_d < EPSILON, gain < 0
    gain[flat_r | flat_d | inverted] = 0
    noise = np.where(flat_r | inverted, var_d, np.where(flat_d, 0, noise))
    var_r = np.where(flat_r, 0, var_r)
    noise = np.maximum(noise, EPSILON)
    kept = np.log10(1 + gain**2 * var_r / (noise + VIF_NOISE)).sum()
    return float(kept), float(np.log10(1 + var_r / VIF_NOISE).sum())


def _blur(plane: Plane, side: int) -> Plane:
    """Blur by a Gaussian of `side` px with a fifth of that as sigma; valid pixels only."""
    at = np.arange(side) - side // 2
    kernel = np.exp(-(at**2) / (2 * (side / 5) ** 2))
    kernel /= kernel.sum()
    half = side // 2
    blurred = correlate1d(correlate1d(plane, kernel, 0), kernel, 1)
    return blurred[half:-half, half:-half]


def interval(scores: NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile-bootstrap interval of the mean of scores (N,)."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(scores), (BOOTSTRAP_ROUNDS, len(scores)))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(scores[drawn].mean(1), (tail, 1 - tail))
    return float(low), float(high)
