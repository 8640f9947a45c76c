"""COCO's outlines, polygons or run lengths, as pycocotools takes them.

pycocotools checks nothing, and damaged run lengths crash it: they are refused here.
"""

import re

import numpy as np
from pycocotools import mask as masks

FARTHEST = 1e5  # pixels; larger coordinates are damage, and pycocotools takes a step per pixel


def whole(value: object) -> int | None:
    """A whole number, also written as 640.0; None for anything else."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def parts_of(annotation: dict) -> list[np.ndarray | dict]:
    """An annotation's polygons, float64 (2N,): x, y, x, y, ...; or its run lengths {"size", "counts"}, not yet checked.

    Raises ValueError with a text that continues "a picture with".
    """
    outline, box = annotation.get("segmentation") or [], annotation.get("bbox")
    if not isinstance(outline, (list, dict)):
        raise ValueError("an outline that is neither polygons nor run lengths (RLE)")
    parts = [outline] if isinstance(outline, dict) else [_polygon(points) for points in outline]
    if not any(map(len, parts)) or outline == [box]:
        raise ValueError(f"an annotation that has {'a box, but ' if box else ''}no outline")
    return parts


def _polygon(points: object) -> np.ndarray:
    try:
        values = np.array(points, np.float64)
    except (ValueError, TypeError, OverflowError):
        values = np.array([np.nan])
    if values.ndim != 1 or len(values) % 2 or not (np.abs(values) <= FARTHEST).all():  # NaN is not
        raise ValueError("a polygon that is not one list of coordinates [x, y, x, y, ...], or is far outside")
    return values


def to_rle(parts: list[np.ndarray | dict], height: int, width: int) -> dict:
    """The union of the parts (see parts_of) as an RLE of pycocotools. Raises ValueError."""
    return masks.merge([masks.frPyObjects([_checked(part, height, width)], height, width)[0] for part in parts])


def _checked(part: np.ndarray | dict, height: int, width: int) -> list[float] | dict:
    """A polygon as a list, or run lengths with uncompressed "counts". Raises ValueError."""
    if not isinstance(part, dict):
        return part.tolist()
    counts, size = part.get("counts"), part.get("size")
    if not isinstance(counts, (list, str)) or not isinstance(size, list):
        raise ValueError('an outline that is neither polygons nor run lengths (RLE) with "counts" and "size"')
    if list(map(whole, size)) != [height, width]:
        raise ValueError("run lengths (RLE) of another size than the picture")
    counts = _decoded(counts) if isinstance(counts, str) else list(map(whole, counts))
    if any(count is None or count < 0 for count in counts) or sum(counts) != height * width:
        raise ValueError("run lengths (RLE) that do not add up to the picture")
    return {"size": [height, width], "counts": counts}


def _decoded(text: str) -> list[int]:
    """COCO's compressed run lengths, decompressed. Raises ValueError.

    A character holds five bits of a number in two's complement, lowest first; bit 6 says that more follow. From the
    fourth number on, the difference to the number two places before is stored.
    """
    text = text.strip()
    if not re.fullmatch("([P-o]{0,6}[0-O])+", text):
        raise ValueError("run lengths (RLE) in an unknown or damaged encoding")
    counts, number, shift = [], 0, 0
    for code in text.encode():
        number |= (code - 48 & 31) << shift
        shift += 5
        if code < 80:
            number -= (code - 48 & 16) << shift - 4  # the sign
            counts.append(number + (counts[-2] if len(counts) > 2 else 0))
            number = shift = 0
    return counts
