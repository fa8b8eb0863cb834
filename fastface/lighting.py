"""Light of a photo: what falls on the face, and how bright and of what colour white things are in it.

Irradiance is a quadratic of the normal (Ramamoorthi & Hanrahan, "An Efficient Representation for Irradiance
Environment Maps", SIGGRAPH 2001, equation 12): nine coefficients, estimated on the skin of the photo.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Image = NDArray[np.uint8]

LUMINANCE: Final = np.array([0.2126, 0.7152, 0.0722], np.float32)
_RIDGE: Final = 0.02  # of the number of samples: keeps bands that the face does not show near zero
#: Teeth over sclera and over skin, luminance, of open smiles: medians 1.34 and 1.40, tenth percentiles 0.85
#: and 0.97, ninetieth 1.99 and 3.05.
_LIT_IN_MOUTH: Final = 0.78  # of the light gets to the front teeth of an everyday smile
_TEETH_OVER_SCLERA: Final = 1.34 / _LIT_IN_MOUTH
_TEETH_OVER_SKIN: Final = (0.97 / _LIT_IN_MOUTH, 3.05 / _LIT_IN_MOUTH)
_TEETH_LUMINANCE: Final = 0.8  # most that is left of headroom in an exposed photo

_DECODE: Final[Float32] = np.array(
    [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in np.arange(256) / 255], np.float32
)


def linear_of(srgb: Image) -> Float32:
    """sRGB bytes → linear light in [0, 1] (IEC 61966-2-1)."""
    return _DECODE[srgb]


def harmonics(normals: NDArray[Any]) -> NDArray[Any]:
    """(N, 3) unit normals → (N, 9): 1, y, z, x, xy, yz, 3z² - 1, xz, x² - y²."""
    x, y, z = normals[:, 0], normals[:, 1], normals[:, 2]
    return np.stack([np.ones_like(x), y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y], axis=1)


def estimate_light(luminance: Float32, normals: Float32) -> Float32:
    """(9,) coefficients of the irradiance on skin of even albedo, 1 on average.

    ``luminance (N,)`` linear, ``normals (N, 3)`` of the same places. Two rounds, the second without the
    tenth of the samples that fit worst at either end: beard, brows, highlights.
    """
    level = max(float(np.median(luminance)), 1e-4)
    basis = harmonics(normals.astype(np.float64))
    seen = np.clip(luminance / level, 0.0, 3.0).astype(np.float64)
    ridge = np.diag([0.0, *[_RIDGE * len(seen)] * 8])
    light = np.linalg.solve(basis.T @ basis + ridge, basis.T @ seen)
    error = seen - basis @ light
    low, high = np.quantile(error, [0.1, 0.9])
    kept = (error >= low) & (error <= high)
    light = np.linalg.solve(basis[kept].T @ basis[kept] + ridge, basis[kept].T @ seen[kept])
    mean = float((basis[kept] @ light).mean())
    return (light / max(mean, 1e-3)).astype(np.float32)


def white_of(photo: Image, eye_whites: NDArray[np.bool_], skin_linear: Float32) -> Float32:
    """(3,) linear colour that a white, evenly lit surface at the face would have in the photo.

    ``eye_whites (H, W)`` marks the visible eyeballs without irises, ``skin_linear (3,)`` is the skin's.
    The sclera gives brightness and tint; skin bounds both, so that red or shaded eyes do no harm.
    """
    skin = max(float(skin_linear @ LUMINANCE), 1e-3)
    colour = np.ones(3, np.float32)
    bright = skin * 1.1
    if eye_whites.sum() >= 12:
        pixels = linear_of(photo[eye_whites])
        light = pixels @ LUMINANCE
        top = pixels[light >= np.quantile(light, 0.6)]
        sclera = top.mean(0)
        bright = max(float(sclera @ LUMINANCE), 1e-4)
        colour = (sclera / bright) ** 0.5
    wanted = np.clip(_TEETH_OVER_SCLERA * bright, _TEETH_OVER_SKIN[0] * skin, _TEETH_OVER_SKIN[1] * skin)
    wanted = min(float(wanted), _TEETH_LUMINANCE)
    white: Float32 = (colour / float(colour @ LUMINANCE) * wanted).astype(np.float32)
    return white


def blurred(image: Image, sigma_px: float) -> Image:
    """Gaussian blur, without the pores and hairs that are no shape."""
    return np.asarray(cv2.GaussianBlur(image, (0, 0), max(sigma_px, 0.3)), np.uint8)
