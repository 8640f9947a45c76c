"""Colours, markers and line styles of rows and classes, the same in every figure."""

from collections.abc import Iterable
from typing import NamedTuple

from utils.classes import Classes
from utils.rows import ROWS

FALLBACK = ("#56B4E9", "#8C564B", "#6A3D9A", "#B8A600", "#17BECF")  # for rows without a colour of their own


class Look(NamedTuple):
    colour: str
    marker: str
    dashes: str


def looks(names: Iterable[str]) -> dict[str, Look]:
    """Name of a row or baseline -> its look; distinct without colours too."""
    declared = {row.name: (place, row.colour) for place, row in enumerate(ROWS)}
    found, others = {}, 0
    for name in dict.fromkeys(names):
        place, colour = declared.get(name.removesuffix(" look-up"), (len(ROWS) + others, ""))
        if not colour:
            colour = FALLBACK[others % len(FALLBACK)]
            others += 1
        found[name] = Look(colour, "os^Dv*PX"[place % 8], ("-", "--", "-", ":", "-.")[place % 5])
    return found


def class_colours(classes: Classes) -> dict[str, tuple[float, float, float] | str]:
    """Name of a class -> colour of its bars: its own, a little brighter; background grey."""
    own = (tuple(min(channel * 1.3, 255) / 255 for channel in colour) for colour in classes.colours)
    return dict(zip(classes.names, own, strict=True)) | dict.fromkeys(classes.names[: classes.first], "#555555")
