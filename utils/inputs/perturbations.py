"""Eight ways to corrupt a picture, each at ten levels; the first level changes nothing.

All take a picture uint8 (H, W, 3) at its own size, a level, and random numbers that depend on the picture alone, so
that every model sees the same noise; they return uint8 (H, W, 3), rounded and clipped to 0..255.
"""

from collections.abc import Callable

import numpy as np


def gaussian_noise(image: np.ndarray, std: float, rng: np.random.Generator) -> np.ndarray:
    """Noise of this standard deviation on every value; from level to level the same noise, only stronger."""
    return _to_uint8(image + std * rng.standard_normal(image.shape, np.float32))


def blur(image: np.ndarray, times: int, rng: np.random.Generator) -> np.ndarray:
    """Convolution with [[1, 2, 1], [2, 4, 2], [1, 2, 1]] / 16, so many times; beyond the border it is reflected."""
    values = image.astype(np.float32)
    for _ in range(times):
        padded = np.pad(values, ((1, 1), (1, 1), (0, 0)), mode="reflect")
        rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
        values = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return _to_uint8(values)


def contrast(image: np.ndarray, factor: float, rng: np.random.Generator) -> np.ndarray:
    """Every value times the factor."""
    return _to_uint8(image * np.float32(factor))


def brightness(image: np.ndarray, shift: int, rng: np.random.Generator) -> np.ndarray:
    """Every value plus the shift."""
    return _to_uint8(image.astype(np.float32) + shift)


def black_square(image: np.ndarray, side: int, rng: np.random.Generator) -> np.ndarray:
    """One black square of so many pixels a side, wholly inside of the picture."""
    height, width = image.shape[:2]
    side = min(side, height, width)
    top, left = (int(share * (length - side + 1)) for share, length in zip(rng.random(2), (height, width), strict=True))
    image = image.copy()
    image[top : top + side, left : left + side] = 0
    return image


def salt_and_pepper(image: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """This share of the pixels becomes white or black, half each."""
    chance = rng.random(image.shape[:2])
    image = image.copy()
    image[chance < share / 2] = 0
    image[chance > 1 - share / 2] = 255
    return image


_SHIFTS = tuple(range(0, 50, 5))
Perturbation = Callable[[np.ndarray, float, np.random.Generator], np.ndarray]
# name -> what the level is, the ten levels, the function
PERTURBATIONS: dict[str, tuple[str, tuple[float, ...], Perturbation]] = {
    "Gaussian noise": ("standard deviation", tuple(range(0, 20, 2)), gaussian_noise),
    "blur": ("times", tuple(range(10)), blur),
    "contrast up": ("factor", (1, 1.01, 1.02, 1.03, 1.04, 1.05, 1.1, 1.15, 1.2, 1.25), contrast),
    "contrast down": ("factor", (1, 0.95, 0.9, 0.85, 0.8, 0.6, 0.4, 0.3, 0.2, 0.1), contrast),
    "brightness up": ("shift", _SHIFTS, brightness),
    "brightness down": ("shift", tuple(-shift for shift in _SHIFTS), brightness),
    "black square": ("side in pixels", _SHIFTS, black_square),
    "salt and pepper": ("share of the pixels", tuple(round(0.02 * i, 2) for i in range(10)), salt_and_pepper),
}


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return values.round().clip(0, 255).astype(np.uint8)
