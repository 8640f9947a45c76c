"""Find a thing of any kind in a box by its colours: GrabCut (Rother, Kolmogorov and Blake, SIGGRAPH 2004)."""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from utils.errors import UserError
from utils.figures.overlays import guided_filter
from utils.inputs.clicks import Click

COARSE, FINE = 250, 500  # longer side in pixels: where the colours are learned, where the outline is found
_MARGIN = 0.3  # of background around the box, as a fraction of its longer side
# A dab covers a small disk and similar colours near it; radii are fractions of the crop's longer side.
_DISK, _REACH, _TOLERANCE = 0.015, 0.2, 10
_SPECK = 0.03  # regions smaller than this fraction of the largest one are dropped, unless a dab is in them


def find_in_box(image: np.ndarray, corners: Sequence[tuple[int, int]], dabs: Sequence[Click] = ()) -> np.ndarray:
    """Mask of the thing in a box: bool (H, W).

    image: uint8 (H, W, 3); corners: two opposite ones, (x, y) in pixels; dabs: clicks on the thing (label 1) or beside
    it (0); one on the thing may lie outside of the box. Large pictures are cut down to FINE pixels; the outline is then
    moved to the edges of the full picture. Raises UserError for an empty box.
    """
    try:
        import cv2
    except ImportError as error:
        raise UserError(f"boxes need OpenCV ({error}): pip install -r requirements-demo.txt") from error
    height, width = image.shape[:2]
    points = np.array([*corners, *((x, y) for x, y, label in dabs if label)])
    (left, top), (right, bottom) = points.min(0), points.max(0) + 1  # the box, with the dabs on the thing
    if min(right - left, bottom - top) < 3:
        raise UserError("the box is empty: click on two opposite corners of it")
    margin = max(4, int(_MARGIN * max(right - left, bottom - top)))
    x0, y0 = max(0, left - margin), max(0, top - margin)
    seen = image[y0 : bottom + margin, x0 : right + margin]  # without a copy
    inside = np.full(seen.shape[:2], cv2.GC_BGD, np.uint8)
    inside[top - y0 : bottom - y0, left - x0 : right - x0] = cv2.GC_PR_FGD
    inside[[0, -1]] = inside[:, [0, -1]] = cv2.GC_BGD  # a thing that fills the picture: something must be background

    cv2.setRNGSeed(0)
    colours, found = [np.zeros((1, 65)), np.zeros((1, 65))], None
    for side in (COARSE, FINE):
        scale = min(1.0, side / max(seen.shape[:2]))
        size = [max(3, round(length * scale)) for length in seen.shape[1::-1]]
        small = cv2.resize(seen, size, interpolation=cv2.INTER_AREA)
        labels = cv2.resize(inside, size, interpolation=cv2.INTER_NEAREST)
        if found is not None:  # only a band around the outline is open
            found = cv2.resize(found, size, interpolation=cv2.INTER_NEAREST)
            band = cv2.dilate(found, np.ones((9, 9))) != cv2.erode(found, np.ones((9, 9)))
            labels[~band] = found[~band]
            labels[band & (labels != cv2.GC_BGD)] = cv2.GC_PR_FGD
            labels[band & (labels == cv2.GC_PR_FGD) & (found == 0)] = cv2.GC_PR_BGD
        smooth = cv2.GaussianBlur(small, (5, 5), 0)
        for x, y, label in dabs:
            place = [int((value + 0.5) * scale) for value in (x - x0, y - y0)]
            if not all(0 <= value < most for value, most in zip(place, size, strict=True)):
                continue  # beside the thing, and far from it
            labels[_dab(smooth, place)] = cv2.GC_FGD if label else cv2.GC_BGD
        mode = cv2.GC_INIT_WITH_MASK if found is None else cv2.GC_EVAL
        if 0 < (labels & 1).sum() < labels.size:  # both kinds of pixels are needed
            cv2.grabCut(small, labels, None, *colours, 4 if found is None else 1, mode)
        found = labels & 1
    found = _without_specks(found, labels == cv2.GC_FGD if dabs else np.zeros(found.shape, bool))
    mask = np.zeros((height, width), bool)
    if found.shape != seen.shape[:2]:
        grey = cv2.cvtColor(seen, cv2.COLOR_RGB2GRAY) / np.float32(255)
        found = cv2.resize(found, seen.shape[1::-1], interpolation=cv2.INTER_NEAREST).astype(np.float32)
        found = guided_filter(found, grey, round(2 / scale), 1e-3) > 0.5
    mask[y0 : bottom + margin, x0 : right + margin] = found
    return mask


def _dab(image: np.ndarray, place: list[int]) -> np.ndarray:
    """The pixels of a picture, uint8 (h, w, 3), that a dab at x, y covers: bool (h, w)."""
    import cv2

    height, width = image.shape[:2]
    walls = np.ones((height + 2, width + 2), np.uint8)  # of floodFill: a pixel larger on every side
    cv2.circle(walls[1:-1, 1:-1], place, round(_REACH * max(image.shape)), 0, -1)
    tolerance = (_TOLERANCE,) * 3
    how = 4 | cv2.FLOODFILL_FIXED_RANGE | cv2.FLOODFILL_MASK_ONLY | 2 << 8  # four neighbours; 2 is what it writes
    cv2.floodFill(image, walls, place, 0, tolerance, tolerance, how)
    dab = np.ascontiguousarray(walls[1:-1, 1:-1])
    cv2.circle(dab, place, max(2, round(_DISK * max(image.shape))), 2, -1)
    return dab == 2


def _without_specks(found: np.ndarray, dabbed: np.ndarray) -> np.ndarray:
    """Drop the small regions of a mask (H, W); dabbed: bool (H, W), regions to keep."""
    regions, count = ndimage.label(found)
    if not count:
        return found
    sizes = np.bincount(regions.ravel())
    sizes[0] = 0
    kept = sizes >= _SPECK * sizes.max()
    kept[np.unique(regions[dabbed])] = True
    kept[0] = False
    return kept[regions].astype(np.uint8)
