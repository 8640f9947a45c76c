"""From COCO's outlines to pixels, equal to pycocotools: polygons, and run lengths as a list or as a string.

Pixels are numbered down the columns, as in COCO: (x, y) has the number x * height + y. What an outline encloses
is given by its edges: ascending pixel numbers (2R,) of R runs, start, stop, start, stop, ... A run may be empty.
"""

import ast
import json
import re

import numpy as np

UPSAMPLING = 5  # polygons are drawn on a grid this much finer
FARTHEST = 1e8  # pixels; a larger coordinate is damage


def object_edges(parts: list, height: int, width: int) -> np.ndarray:
    """The edges of an object: of its polygons and run lengths, see parts_of.

    Raises ValueError with what is wrong, as it would follow "a picture with".
    """
    edges = [(run_edges if isinstance(part, dict) else polygon_edges)(part, height, width) for part in parts]
    return union(edges)


def union(parts: list[np.ndarray]) -> np.ndarray:
    """The edges of all pixels that are in at least one of the parts."""
    if len(parts) == 1:
        return parts[0]
    starts, stops = (np.concatenate([part[side::2] for part in parts]) for side in (0, 1))
    positions = np.concatenate([starts, stops])
    order = np.argsort(positions, kind="stable")  # at one pixel starts come first, so the depth is never negative
    depth = np.cumsum(np.repeat([1, -1], len(starts))[order])
    inside = depth > 0
    return positions[order][np.diff(inside, prepend=False)]


def area(edges: np.ndarray) -> int:
    """How many pixels the runs hold."""
    return int((edges[1::2] - edges[::2]).sum())


def filled(edges: np.ndarray, start: int, stop: int) -> np.ndarray:
    """Pixels start .. stop, which contain all edges, as bool (stop - start,)."""
    lengths = np.diff(edges, prepend=start, append=stop)
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)


# ------------------------------------------------------------------------------------------- spellings


def parts_of(outline: object, depth: int = 4) -> list:
    """An annotation's `segmentation` as a list of polygons [x, y, x, y, ...] and run lengths {"size", "counts"}.

    Also read: one polygon or one of the others without a list around it, points as [x, y] or {"x": x, "y": y}, a list
    too much around each of them, JSON as text. What is none of these stays as it is. Raises ValueError where two
    polygons share a list in the list: the second may be a hole.
    """
    if isinstance(outline, str):
        try:
            outline = json.loads(outline)
        except ValueError:
            outline = re.split(r"[\s,;]+", outline.strip())
            if outline != [""] and not all(isinstance(_number(value), float) for value in outline):
                raise ValueError("an outline that is text of no known form") from None
            outline = outline if len(outline) > 1 else []
    if not outline:
        return []
    if not isinstance(outline, list):
        return [outline]
    if (points := _points(outline)) is not None:
        return [points]
    if not depth:
        raise ValueError("an outline nested too deep")
    parts = []
    for entry in outline:
        inner = parts_of(entry, depth - 1) or [entry]
        if len(inner) > 1:
            rings = all(isinstance(part, dict) or len(part) >= 6 for part in inner)
            raise ValueError(
                "a polygon of several rings, of which some may be holes" if rings else "points that are no pairs"
            )
        parts += inner
    return parts


def _points(polygon: list) -> list | None:
    """x, y, x, y, ... of a polygon in any spelling; None for a list of something else."""
    if isinstance(polygon[0], (list, dict)):
        pairs = [[p["x"], p["y"]] if isinstance(p, dict) and {"x", "y"} <= p.keys() else p for p in polygon]
        if not all(isinstance(p, list) and len(p) == 2 and not isinstance(p[0], (list, dict)) for p in pairs):
            return None
        polygon = [value for pair in pairs for value in pair]
    return [_number(value) for value in polygon] if isinstance(polygon[0], str) else polygon


def _number(value: object) -> object:
    """Text that is a number as this number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def whole(value: object) -> int | None:
    """A whole number, also one that is written as 640.0 or "640"; None for anything else."""
    if isinstance(value, str) and (match := re.fullmatch(r"\s*(-?\d{1,40})(?:\.0*)?\s*", value)):
        return int(match[1])
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if type(value) is int else None


def is_fraction(polygon: list) -> bool:
    """Whether its coordinates are shares of the picture's sides."""
    return all(_is_coordinate(value) and 0 <= value <= 1 for value in polygon)


# --------------------------------------------------------------------------------------------- polygons


def polygon_edges(polygon: list[float], height: int, width: int) -> np.ndarray:
    """The edges of a polygon x, y, x, y, ... in pixels, with the pixels that pycocotools gives it.

    pycocotools (rleFrPoly in maskApi.c) multiplies the corners by five and walks along every side in steps of
    one. Where a walk passes the middle of a pixel column, x from 5c + 2 to 5c + 3, it enters or leaves the
    polygon. Here these steps are computed for all sides and columns at once. Raises ValueError.
    """
    if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(_is_coordinate, polygon)):
        raise ValueError("a polygon whose coordinates are no pairs of numbers")
    points = np.array(polygon, np.float64).reshape(-1, 2)
    corners = np.trunc(UPSAMPLING * points + 0.5).astype(np.int64)  # (N, 2)
    following = np.roll(corners, -1, 0)
    step = following - corners
    flat = np.abs(step[:, 0]) >= np.abs(step[:, 1])
    backwards = np.where(flat, *step.T) < 0  # flat sides are walked from left to right, steep ones downwards
    start, end = np.where(backwards[:, None], (following, corners), (corners, following))  # (N, 2) each

    low, high = np.sort((corners[:, 0], following[:, 0]), axis=0)
    first, last = np.maximum((low + 2) // UPSAMPLING, 0), np.minimum((high - 3) // UPSAMPLING, width - 1)
    counts = np.maximum(last - first + 1, 0)  # columns whose middle a side passes
    side = np.repeat(np.arange(len(corners)), counts)  # (crossings,)
    column = np.arange(len(side)) + (first - np.cumsum(counts) + counts)[side]
    x = UPSAMPLING * column + 2
    y = np.empty_like(x)
    for chosen, crossings in ((flat[side], _flat_crossings), (~flat[side], _steep_crossings)):
        y[chosen] = crossings(start[side[chosen]], end[side[chosen]], x[chosen])
    row = ((y + 2) // UPSAMPLING).clip(0, height)
    return np.sort(column * height + row)


def _is_coordinate(value: object) -> bool:
    return type(value) in (int, float) and abs(value) <= FARTHEST  # NaN is not


def _flat_crossings(start: np.ndarray, end: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The smaller y of the two steps at x and x + 1; start, end (crossings, 2)."""
    (x0, y0), (x1, y1) = start.T, end.T
    slope = (y1 - y0) / (x1 - x0)
    return np.minimum(*((y0 + slope * (t - x0) + 0.5).astype(np.int64) for t in (x, x + 1)))


def _steep_crossings(start: np.ndarray, end: np.ndarray, x: np.ndarray) -> np.ndarray:
    """The smaller y of the two steps between which x turns to x + 1, or back."""
    (x0, y0), (x1, y1) = start.T, end.T
    slope = (x1 - x0) / (y1 - y0)

    def passed(t: np.ndarray) -> np.ndarray:
        right = (x0 + slope * t + 0.5).astype(np.int64) > x
        return right == (slope > 0)

    t = np.floor((x + 0.5 - x0) / slope).astype(np.int64)  # the first step that has passed is this or one of two more
    t += ~passed(t) + (~passed(t + 1)).astype(np.int64)
    return y0 + t - 1


# ------------------------------------------------------------------------------------------ run lengths


def run_edges(rle: dict, height: int, width: int) -> np.ndarray:
    """The edges of run lengths {"size": [height, width], "counts": list or string}. Raises ValueError."""
    counts, size = rle.get("counts"), rle.get("size")
    if counts is None and size is None:
        raise ValueError("an outline that is neither polygons nor run lengths (RLE)")
    if not isinstance(counts, (list, str)) or not isinstance(size, list):
        raise ValueError('run lengths (RLE) without "counts" or without "size"')
    if list(map(whole, size)) != [height, width]:
        raise ValueError("run lengths (RLE) of another size than the picture")
    if isinstance(counts, list):
        counts = list(map(whole, counts))
        if not all(count is not None and 0 <= count <= height * width for count in counts):
            raise ValueError("run lengths (RLE) that are no numbers of pixels")
        counts = np.array(counts, np.int64)
    else:
        counts = decode_counts(counts)
    if (counts < 0).any() or counts.sum() != height * width:
        raise ValueError("run lengths (RLE) that do not add up to the picture")
    edges = np.cumsum(counts)
    return edges if len(edges) % 2 == 0 else edges[:-1]  # the last run is background


def decode_counts(text: str) -> np.ndarray:
    """COCO's compressed run lengths as numbers (R,), int64. Raises ValueError.

    Five bits a character, the lowest first, bit 6 set where more of the number follow, two's complement. From the
    fourth number on it is the difference to the number before the last one.
    """
    text = text.strip()
    if re.fullmatch(r"b'[^']*'|b\"[^\"]*\"", text):  # as Python prints bytes
        text = ast.literal_eval(text).decode("latin-1")
    codes = np.frombuffer(text.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(codes < 32)  # of every number
    starts = np.concatenate([[0], last + 1])
    lengths = np.diff(starts)
    if not len(codes) or starts[-1] != len(codes) or not ((codes >= 0) & (codes < 64)).all() or lengths.max() > 8:
        raise ValueError("run lengths (RLE) in an unknown or damaged encoding")
    place = np.arange(len(codes)) - np.repeat(starts[:-1], lengths)
    numbers = np.add.reduceat((codes & 31) << 5 * place, starts[:-1])
    numbers -= (codes[last] & 16) << (5 * lengths - 4)  # the sign
    numbers[1::2] = np.cumsum(numbers[1::2])
    numbers[2::2] = np.cumsum(numbers[2::2])
    return numbers
