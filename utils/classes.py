"""The classes of a data set: names and colours, in the order of the ids. They come from the data's classes.txt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from utils.errors import UserError
from utils.files import write_text

VOID = 255  # boundary pixels and padding: ignored by the loss and by the metric
VOID_COLOUR = (255, 255, 255)
MOST = 255  # ids 0 to 254

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Classes:
    """Names and colours of the ids 0, 1, ...; id 0 is the background."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return ", ".join(self.names)

    @property
    def things(self) -> tuple[str, ...]:
        """The names behind background, ids from 1 on."""
        return self.names[1:]

    @cached_property
    def palette(self) -> np.ndarray:
        """The colour of every id, uint8 (256, 3): VOID is white, an id without a class black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colours
        table[VOID] = VOID_COLOUR
        return table

    def colourise(self, mask: np.ndarray) -> np.ndarray:
        """Index mask (H, W) uint8 -> colour mask (H, W, 3) uint8."""
        return self.palette[mask]


def named(names: Sequence[str], colours: Sequence[Sequence[int]] = ()) -> Classes:
    """Classes with these names; colours: as many, or none for those of PASCAL VOC."""
    colours = colours or [voc_colour(index) for index in range(len(names))]
    return Classes(tuple(names), tuple(tuple(map(int, colour)) for colour in colours))


def voc_colour(index: int) -> Colour:
    """The colour of an id in PASCAL VOC's map: its bits, spread over the high bits of red, green and blue."""
    return tuple(sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3))


PETS = named(("background", "cat", "dog"))  # (0, 0, 0), (128, 0, 0), (0, 128, 0)


def read_classes(root: str | Path) -> Classes:
    """The classes in root/classes.txt, one per line, background first: `cat` or `cat 128,0,0`.

    Without that file they are background, cat and dog. Raises UserError naming the file and the line.
    """
    path = Path(root) / "classes.txt"
    if not path.is_file():
        return PETS
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a list of classes ({error})") from error
    names, colours = [], []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, *channels = re.fullmatch(r"(.*?)(?:\s+(\d+)\s*,\s*(\d+)\s*,\s*(\d+))?", line).groups()
        colour = tuple(map(int, channels)) if channels[0] else voc_colour(len(names))
        if not name or max(colour) > 255 or re.fullmatch(r"[\d\s,]+,[\d\s,]+", name):
            raise UserError(f"{path}: {line!r} is no class; write its name and, if you like, a colour: cat 128,0,0")
        if colour == VOID_COLOUR:
            raise UserError(f"{path}: {line!r}: white is the colour of void pixels, choose another")
        if name in names or colour in colours:
            raise UserError(f"{path}: {line!r}: its name or its colour {colour} is that of a class before it")
        names.append(name)
        colours.append(colour)
    if not 2 <= len(names) <= MOST:
        raise UserError(f"{path} lists {len(names)} classes: give background and 1 to {MOST - 1} others, a line each")
    return named(names, colours)


def write_classes(names: Sequence[str], root: str | Path) -> None:
    """Write root/classes.txt, background first, with the colours of PASCAL VOC."""
    lines = [f"{name} {','.join(map(str, voc_colour(index)))}\n" for index, name in enumerate(names)]
    write_text("".join(lines), Path(root) / "classes.txt")


def require_same(model: Classes, data: Classes, checkpoint: str | Path, root: str | Path) -> None:
    """Raise UserError, with both lists, unless a checkpoint's classes are those of a data set."""
    if model.names != data.names:
        raise UserError(
            f"{checkpoint} was trained on other classes than those of the data:\n"
            f"  checkpoint: {model}\n  {root}: {data}"
        )
