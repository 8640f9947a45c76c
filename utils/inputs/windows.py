"""Windows of a picture around a part of it."""

import numpy as np

from utils.inputs.clicks import Click

Window = tuple[int, int, int, int]  # left, top, right, bottom in pixels of the original picture
MARGIN = 0.15  # on each side, as a fraction of the part's width or height


def window_around(part: np.ndarray, size: tuple[int, int]) -> Window:
    """The bounding box of a part with a margin, in a picture of size (H, W), cut at the picture's border; never empty.

    part: bool (h, w), not all False, at any scale of the picture.
    """
    stretches = []
    for (first, end), side, of_part in zip(box_of(part), size[::-1], part.shape[::-1], strict=True):
        low, high = first / of_part, end / of_part
        margin = MARGIN * (high - low)
        start = min(int(max(low - margin, 0) * side), side - 1)
        stretches.append((start, max(min(round((high + margin) * side), side), start + 1)))
    (left, right), (top, bottom) = stretches
    return left, top, right, bottom


def similar_window(part: np.ndarray, enlarge: float, least: float, most: float) -> Window | None:
    """A window with the picture's aspect ratio around a part, inside the picture; None if part is all False.

    part: bool (H, W). The window's side is `enlarge` times the part's and at least the fraction `least` of the
    picture's; None if it would exceed the fraction `most`.
    """
    if not part.any():
        return None
    height, width = part.shape
    (left, right), (top, bottom) = box_of(part)
    share = max(enlarge * max((bottom - top) / height, (right - left) / width), least)
    if share > most:
        return None
    tall, wide = max(round(share * height), 1), max(round(share * width), 1)
    top = min(max((top + bottom - tall) // 2, 0), height - tall)
    left = min(max((left + right - wide) // 2, 0), width - wide)
    return left, top, left + wide, top + tall


def contains(window: Window, click: Click) -> bool:
    left, top, right, bottom = window
    return left <= click[0] < right and top <= click[1] < bottom


def box_of(part: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    """(left, right), (top, bottom) of the bounding box of part, bool (h, w); right and bottom are excluded."""
    columns, rows = (np.flatnonzero(part.any(axis)) for axis in (0, 1))
    return (int(columns[0]), int(columns[-1]) + 1), (int(rows[0]), int(rows[-1]) + 1)
