"""Draw smooth fields and noise over a whole volume."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from archspec.phantom.painting import Floats, Shape

_NUM_WAVES = 4


def smooth_field(shape: Shape, rng: np.random.Generator) -> Floats:
    """Return a field in -1..1 that changes sign about once along each axis."""
    field = np.zeros(shape)
    for _ in range(_NUM_WAVES):
        waves = [
            np.cos(np.pi * frequency * np.linspace(0.0, 1.0, size) + phase)
            for size, frequency, phase in zip(
                shape, rng.uniform(0.3, 1.5, 3), rng.uniform(0.0, 2 * np.pi, 3), strict=True
            )
        ]
        field += waves[0][:, None, None] * waves[1][None, :, None] * waves[2]
    field /= _NUM_WAVES
    return field


def bias_field(shape: Shape, strength: float, rng: np.random.Generator) -> Floats:
    """Return the factor exp(strength x smooth field) by which a coil's sensitivity varies."""
    factor: Floats = np.exp(strength * smooth_field(shape, rng))
    return factor


def speckle(shape: Shape, blur: float, rng: np.random.Generator) -> Floats:
    """Return grains of mean 0 and deviation 1, about `blur` voxels wide."""
    grains: Floats = ndimage.gaussian_filter(rng.normal(size=shape), blur, mode="wrap")
    grains /= grains.std()
    return grains


def rician(clean: Floats, noise: float, rng: np.random.Generator) -> Floats:
    """Return the magnitude of a complex signal with noise in both parts, as in MR images."""
    real = clean + rng.normal(0.0, noise, clean.shape)
    magnitude: NDArray[np.float64] = np.hypot(real, rng.normal(0.0, noise, clean.shape))
    return magnitude
