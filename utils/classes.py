"""The classes of a data set: names and colours, in the order of the ids. They come from the data's classes.txt."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from unicodedata import normalize

import numpy as np

from utils.errors import UserError
from utils.files import read_text, write_text

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
    """The classes in root/classes.txt (or CVAT's labelmap.txt); background, cat and dog without a file.

    Raises UserError naming the file and the line.
    """
    path = classes_file(root)
    return parse_classes(read_text(path, "a list of classes"), path) if path else PETS


def classes_file(root: str | Path) -> Path | None:
    """The list of classes in a folder, in capitals or not; None if there is none."""
    files = {file.name.lower(): file for file in (Path(root).iterdir() if Path(root).is_dir() else ())}
    found = [files[name] for name in ("classes.txt", "labelmap.txt") if name in files and files[name].is_file()]
    return found[0] if found else None


_COMMAS = re.compile(r"(.*[^\s,;])\s+(\d{1,3}),(\d{1,3}),(\d{1,3})")  # cat 1,2,3 and boeing 747 1,2,3
_SPACES = re.compile(r"(.*[^\d\s,;]\d*)[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})[\s,;]+(\d{1,3})")  # cat 1 2 3, not cat 1 2 3 4
_NUMBERED = re.compile(r"(\d{1,3})[\s:,;.)]+(\D.*)")  # 0: background
_UNCLEAR = re.compile(r"[,;:|=#%\"\t]|//|\b\d+\b")  # where no colour shows the end of a name: a list, a key, a comment


def parse_classes(text: str, path: str | Path) -> Classes:
    """The classes in a text; path is for messages. Raises UserError naming the line that has another form.

    A line is `name`, `name r,g,b` (with commas, semicolons, tabs or spaces) or CVAT's `name:r,g,b:parts:actions`. All
    may be numbered in front from 0. Lines that begin with "# " are comments.
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
        name, colour = _name_and_colour(line)
        colour = colour or voc_colour(index)
        if not name or max(colour) > 255:
            raise UserError(
                f"{path}: {line!r} is no class; write its name, or name and colour: cat 128,0,0. A name with signs or "
                "numbers needs a colour, a comment a line that begins with '# '; number all lines 0, 1, 2 ... or none"
            )
        if name in names or colour in (*colours, VOID_COLOUR):
            raise UserError(f"{path}: {line!r}: a class before it has this name or colour, or it is void's white")
        names.append(name)
        colours.append(colour)
    return named(names, colours)


def _name_and_colour(text: str) -> tuple[str, Colour | None]:
    """The parts of a line; the name is empty if the line has another form."""
    if text.count(":") == 3:  # CVAT's
        text = " ".join(text.split(":")[:2]).strip()
    match = _COMMAS.fullmatch(text) or _SPACES.fullmatch(text)
    name = match[1] if match else text
    if re.match(r"\W|.*:$", name) or (not match and _UNCLEAR.search(name)):
        name = ""
    return name, tuple(map(int, match.groups()[1:])) if match else None


def about_background(classes: Classes) -> str:
    """What to know where id 0 is not called background; empty if it is."""
    words = ("background", "bg", "unlabeled", "unlabelled", "other", "others", "none")
    usual = [name.strip("_ ").lower() in words for name in classes.names]
    if usual[0]:
        return ""
    where = f"background is id {usual.index(True)}" if any(usual) else "there is no background"
    return f"id 0 is {classes.names[0]}: {where}"


def write_classes(names: Sequence[str], root: str | Path) -> None:
    """Write root/classes.txt, background first, with the colours of PASCAL VOC. Raises UserError for odd names."""
    path, names = Path(root) / "classes.txt", [normalize("NFC", name).strip() for name in names]
    text = "".join(f"{name} {','.join(map(str, voc_colour(index)))}\n" for index, name in enumerate(names))
    odd = [name for name in names if _name_and_colour(f"{name} 1,1,1")[0] != name]
    if odd or parse_classes(text, path).names != tuple(names):
        raise UserError(f"{path} cannot hold these names of classes, rename them: {', '.join(odd or names)}")
    write_text(text, path)


def require_same(model: Classes, data: Classes, checkpoint: str | Path, root: str | Path) -> None:
    """Raise UserError, with both lists, unless a checkpoint's classes are those of a data set."""
    if model.names != data.names:
        both = f"\n  checkpoint: {model}\n  {root}: {data}"
        raise UserError(f"{checkpoint} was trained on other classes than those of the data:{both}")
