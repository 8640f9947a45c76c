"""Windows of a picture, around something in it."""

import numpy as np

Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the picture as given
MARGIN = 0.15  # on every side of a part, of its own side


def window_around(part: np.ndarray, size: tuple[int, int]) -> Window:
    """The box of a part and a margin, in a picture of size (H, W); never empty, never outside.

    part: bool (h, w), with something in it; the picture at any other size.
    """
    stretches = []
    for axis, side in ((0, size[1]), (1, size[0])):
        places = np.flatnonzero(part.any(axis))
        low, high = places[0] / part.shape[1 - axis], (places[-1] + 1) / part.shape[1 - axis]
        margin = MARGIN * (high - low)
        start = min(int(max(low - margin, 0) * side), side - 1)
        stretches.append((start, max(min(round((high + margin) * side), side), start + 1)))
    (left, right), (top, bottom) = stretches
    return left, top, right, bottom
