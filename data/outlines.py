"""COCO's outlines, polygons and run lengths, in any of their spellings to run lengths of pycocotools.

pycocotools does not check what it is given, and damaged run lengths would crash it: here they are refused.
"""

import re

import numpy as np
from pycocotools import mask as masks

FARTHEST = 1e5  # pixels; a larger coordinate is damage, and pycocotools walks all the way there


def whole(value: object) -> int | None:
    """A whole number, also one that is written as 640.0 or "640"; None for anything else."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(-?\d{1,40})(?:\.0*)?\s*", value)):
        return int(match[1])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def parts_of(annotation: dict) -> list[np.ndarray | dict]:
    """Its polygons x, y, x, y, ..., float64 (2N,), and run lengths {"size", "counts"}, which are not checked yet.

    Also read: one of these without a list around it, points as [x, y] or {"x": x, "y": y}, numbers as text. Raises
    ValueError with what is wrong, as it would follow "a picture with".
    """
    outline, box = annotation.get("segmentation") or [], annotation.get("bbox")
    if not isinstance(outline, (list, dict)):
        raise ValueError("an outline that is neither polygons nor run lengths (RLE)")
    if isinstance(outline, dict) or not any(map(_is_nested, outline)):
        outline = [outline]
    parts = [part if isinstance(part, dict) else _polygon(part) for part in outline]
    if not any(map(len, parts)) or outline == [box]:
        raise ValueError(f"an annotation that has {'a box, but ' if box else ''}no outline")
    return parts


def _is_nested(value: object) -> bool:
    """Whether a value is a list or an object of JSON, but no point."""
    if isinstance(value, dict):
        return not {"x", "y"} <= value.keys()
    return isinstance(value, list) and (len(value) != 2 or isinstance(value[0], (list, dict)))


def _polygon(points: object) -> np.ndarray:
    if not isinstance(points, list) or any(map(_is_nested, points)):
        raise ValueError("a polygon of several rings, of which some may be holes, or of points that are no pairs")
    try:
        values = np.array([[p["x"], p["y"]] if isinstance(p, dict) else p for p in points], np.float64).ravel()
    except (ValueError, TypeError, OverflowError):
        values = np.array([np.nan])
    if len(values) % 2 or not (np.abs(values) <= FARTHEST).all():  # NaN is not
        raise ValueError("a polygon whose coordinates are no pairs of numbers, or far outside")
    return values


def to_rle(parts: list[np.ndarray | dict], height: int, width: int) -> dict:
    """The pixels that are in at least one of the parts (see parts_of), as pycocotools holds them. Raises ValueError."""
    return masks.merge([masks.frPyObjects([_checked(part, height, width)], height, width)[0] for part in parts])


def _checked(part: np.ndarray | dict, height: int, width: int) -> list[float] | dict:
    """A polygon as a list, or run lengths with "counts" as numbers of pixels. Raises ValueError."""
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
    """COCO's compressed run lengths as numbers. Raises ValueError.

    Five bits a character, the lowest first, bit 6 set where more of the number follow, two's complement. From the
    fourth number on it is the difference to the number before the last one.
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
