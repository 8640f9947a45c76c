"""The classes, their ids, and their colours in pictures and colour masks."""

import numpy as np

CLASSES = ("background", "cat", "dog")
VOID = 255  # boundary pixels and padding: ignored by the loss and by the metric
PALETTE = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), VOID: (255, 255, 255)}


def colourise(mask: np.ndarray) -> np.ndarray:
    """Index mask (H, W) uint8 -> colour mask (H, W, 3) uint8 in PALETTE."""
    table = np.zeros((256, 3), np.uint8)
    for index, colour in PALETTE.items():
        table[index] = colour
    return table[mask]
