"""Pictures of masks, computed a band of rows at a time: what comes out is what the plain formulas say."""

import numpy as np
import pytest
from matplotlib import colormaps

from utils.classes import PETS, VOID
from utils.figures.overlays import cutout, heat_map, overlay
from utils.inputs import pictures


@pytest.fixture(params=[1 << 20, 1000, 1], ids=["one band", "many", "a row each"])
def example(request, monkeypatch):
    """A picture and its mask, of noise and of shapes."""
    monkeypatch.setattr(pictures, "BAND", request.param)
    rng = np.random.default_rng(0)
    image, mask = rng.integers(0, 256, (410, 330, 3), np.uint8), np.zeros((410, 330), np.uint8)
    mask[40:200, 20:300], mask[150:410, 100:200], mask[300:330] = 1, 2, VOID
    mask[:60] = rng.integers(0, 3, (60, 330))
    return image, mask


def plain_overlay(image, mask, opacity):
    tint, mixed = np.clip(PETS.palette * 1.8, 0, 255), image.copy()
    thing, width = (mask != 0) & (mask != VOID), min(mask.shape) // 150
    mixed[thing] = ((1 - opacity) * image[thing] + opacity * tint[mask[thing]]).round()
    padded, edge = np.pad(mask, width, mode="edge"), np.zeros(mask.shape, bool)
    for top, left in ((width, 2 * width), (2 * width, width), (width, 0), (0, width)):
        edge |= padded[top : top + mask.shape[0], left : left + mask.shape[1]] != mask
    mixed[edge & thing] = 255
    return mixed


def test_overlay_cutout_and_heat_map_in_bands_are_those_of_the_plain_formulas(example):
    image, mask = example
    for opacity in (0.5, 0.0, 0.35):
        assert np.array_equal(overlay(image, mask, PETS, opacity), plain_overlay(image, mask, opacity))
    thing = ((mask != 0) & (mask != VOID))[..., None]
    assert np.array_equal(cutout(image, mask), np.concatenate([image * thing, np.uint8(255) * thing], -1))
    scores = np.random.default_rng(1).random(mask.shape, np.float32)
    colours = colormaps["inferno"](scores)[..., :3] * 255
    plain = (0.35 * image.mean(-1, keepdims=True) + 0.65 * colours).round().astype(np.uint8)
    assert np.array_equal(heat_map(image, scores), plain)
