"""Simulated clicks, for training and evaluation.

A click is (x, y) in pixels of the original picture, x to the right, and a label: 1 on the thing, 0 on the rest.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from utils.classes import VOID

Click = tuple[int, int, int]  # x, y, label


def thing_mask(mask: np.ndarray, thing: int) -> np.ndarray:
    """Mask (H, W) of class ids -> uint8 (H, W): 1 for the class `thing`, 0 for the rest, VOID."""
    return np.where(mask == VOID, VOID, mask == thing).astype(np.uint8)


def random_click(mask: np.ndarray, animal: bool, rng: np.random.Generator) -> tuple[Click, int] | None:
    """A click on a random pixel of the animals (or of the background), and the class under it; None without a pixel.

    mask: (H, W) with class ids and VOID, which is never clicked.
    """
    places = np.flatnonzero((mask != VOID) & ((mask != 0) == animal))
    if not len(places):
        return None
    y, x = divmod(int(rng.choice(places)), mask.shape[1])
    return (x, y, 1), int(mask[y, x])


def next_click(truth: np.ndarray, predicted: np.ndarray, rng: np.random.Generator | None = None) -> Click | None:
    """A click on the largest wrong region, at the pixel farthest from the region's edge; None if nothing is wrong.

    truth: (H, W) with 1, 0, VOID; predicted: bool (H, W). The picture's border counts as an edge; of equally far pixels
    the middle one is clicked. With rng: a random pixel at least half as far from the edge, as a person would click.
    """
    best = 0, None, (), 0
    for label, wrong in ((1, (truth == 1) & ~predicted), (0, (truth == 0) & predicted)):
        regions, count = ndimage.label(wrong)
        if count:
            sizes = np.bincount(regions.ravel())[1:]
            largest = int(sizes.argmax())
            if sizes[largest] > best[0]:
                box = ndimage.find_objects(regions)[largest]
                best = sizes[largest], regions[box] == largest + 1, box, label
    _, region, box, label = best
    if region is None:
        return None
    distance = ndimage.distance_transform_edt(np.pad(region, 1))[1:-1, 1:-1]
    places = np.flatnonzero(distance >= distance.max() * (1.0 if rng is None else 0.5))
    place = places[len(places) // 2] if rng is None else rng.choice(places)
    y, x = divmod(int(place), region.shape[1])
    return x + box[1].start, y + box[0].start, label


def to_tensor(clicks: Sequence[Click], size: tuple[int, int]) -> torch.Tensor:
    """K clicks in a picture of size (H, W) -> float32 (K, 3) for models.pointclip: x and y in 0..1, label."""
    height, width = size
    return torch.tensor([[(x + 0.5) / width, (y + 0.5) / height, label] for x, y, label in clicks])
