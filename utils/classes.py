"""The classes of a data set: names and colours in the order of the ids, from its classes.txt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

import numpy as np

from utils.errors import UserError
from utils.files import read_text

VOID = 255  # id of boundary pixels and padding, which the loss and the metric ignore
VOID_COLOUR = (255, 255, 255)
MOST = 255  # classes, with ids 0 to 254
BACKGROUND = ("background", "bg", "unlabeled", "unlabelled", "other", "others", "none")  # usual names of id 0

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Classes:
    """Names and colours of the ids 0, 1, ...; id 0 is usually the background."""

    names: tuple[str, ...]
    colours: tuple[Colour, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        return ", ".join(self.names)

    @property
    def first(self) -> int:
        """Id of the first class that is no background: 1, or 0 in a data set without background."""
        return int(is_background(self.names[0]))

    @property
    def things(self) -> tuple[str, ...]:
        """The names of all classes but background."""
        return self.names[self.first :]

    @property
    def text(self) -> str:
        """The lines of a classes.txt."""
        return "".join(f"{name} {r},{g},{b}\n" for name, (r, g, b) in zip(self.names, self.colours, strict=True))

    @cached_property
    def palette(self) -> np.ndarray:
        """Colours of all ids, uint8 (256, 3): VOID is white, ids without a class are black."""
        table = np.zeros((256, 3), np.uint8)
        table[: len(self)] = self.colours
        table[VOID] = VOID_COLOUR
        return table


def is_background(name: str) -> bool:
    """Whether a name is one of the usual names of the background."""
    return name.strip("_ ").lower() in BACKGROUND


def named(names: Sequence[str], colours: Sequence[Sequence[int]] = ()) -> Classes:
    """Classes with these names; colours: one per name, or empty for those of PASCAL VOC."""
    colours = colours or [voc_colour(index) for index in range(len(names))]
    return Classes(tuple(names), tuple(tuple(map(int, colour)) for colour in colours))


def voc_colour(index: int) -> Colour:
    """The colour of an id in PASCAL VOC's map: the id's bits go in turn to red, green and blue, from the top."""
    return tuple(sum((index >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3))


PETS = named(("background", "cat", "dog"))  # (0, 0, 0), (128, 0, 0), (0, 128, 0)


def read_classes(root: str | Path) -> Classes:
    """The classes in root/classes.txt (or CVAT's labelmap.txt); background, cat and dog without a file.

    Raises UserError naming the file and the line.
    """
    path = classes_file(root)
    return parse_classes(read_text(path, "a list of classes"), path) if path else PETS


def classes_file(root: str | Path) -> Path | None:
    """The list of classes in a folder, upper or lower case; None if there is none."""
    files = Path(root).iterdir() if Path(root).is_dir() else ()
    found = sorted(file for file in files if file.name.lower() in ("classes.txt", "labelmap.txt"))
    return found[0] if found else None


_COLOUR = re.compile(r"(.*[^\s,])[\s,]+(\d{1,3}),\s*(\d{1,3}),\s*(\d{1,3})")  # cat 1,2,3 and boeing 747 1,2,3
_NUMBERED = re.compile(r"(\d{1,3})[\s:,;.)]+(\D.*)")  # 0: background
_NO_NAME = re.compile(r"^\W|:$|,\s*\d+$")  # - cat, cat:, and cat,0 of cat,0,9,9,255
_UNCLEAR = re.compile(r"[,;:|=#%\"\t]|//|\b\d+\b")  # a list, a key, a comment or numbers: not in names without colour


def parse_classes(text: str, path: str | Path) -> Classes:
    """The classes in a text; path is for messages. Raises UserError naming the line that has another form.

    A line is `name`, `name r,g,b`, `name,r,g,b` or CVAT's `name:r,g,b:parts:actions`. All lines may be numbered in
    front from 0. Lines that begin with "# " are comments.
    """
    lines = [line.strip() for line in normalize("NFC", text).splitlines()]
    lines = [line for line in lines if line and line != "#" and not line.startswith("# ")]
    if not 2 <= len(lines) <= MOST:
        raise UserError(f"{path} lists {len(lines)} classes: give background and 1 to {MOST - 1} others, a line each")
    numbers = [_NUMBERED.fullmatch(line) for line in lines]
    if all(number and int(number[1]) == index for index, number in enumerate(numbers)):
        lines = [number[2] for number in numbers]
    names, colours = [], []
    for index, line in enumerate(lines):
        name, colour = name_and_colour(line)
        colour = colour or voc_colour(index)
        if not name or max(colour) > 255:
            raise UserError(
                f"{path}: {line!r} is no class; write its name, or name and colour: cat 128,0,0. Names with signs or "
                "numbers need a colour; comments begin with '# '; number all lines 0, 1, 2 ... or none"
            )
        if name in names or colour in (*colours, VOID_COLOUR):
            raise UserError(f"{path}: {line!r}: a class before it has this name or colour, or it is void's white")
        names.append(name)
        colours.append(colour)
    return named(names, colours)


def name_and_colour(line: str) -> tuple[str, Colour | None]:
    """The parts of a line; the name is empty if the line has another form."""
    if line.count(":") == 3:  # CVAT's
        line = " ".join(line.split(":")[:2]).strip()
    match = _COLOUR.fullmatch(line)
    name = match[1] if match else line
    if _NO_NAME.search(name) or (not match and _UNCLEAR.search(name)):
        name = ""
    return name, tuple(map(int, match.groups()[1:])) if match else None


def require_same(model: Classes, data: Classes, checkpoint: str | Path, root: str | Path) -> None:
    """Raise UserError, with both lists, unless a checkpoint and a data set have the same names of classes."""
    if model.names != data.names:
        both = f"\n  checkpoint: {model}\n  {root}: {data}"
        raise UserError(f"{checkpoint} was trained on other classes than those of the data:{both}")
